//! Reading what a server says over HTTP: answers to what was posted, and what it says by itself.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use iris_egress::{Answer, Body};
use rmcp::model::{ErrorData, GetExtensions, JsonRpcMessage, RequestId, ServerJsonRpcMessage};
use rmcp::service::InboundStreamOrigin;
use tokio::time::timeout;

use super::Link;
use crate::MESSAGE_BYTES_MAX;
use crate::error::McpError;
use crate::sse::{Events, Said};
use crate::traffic::Traffic;

/// How often in a row a stream that broke is taken up again without hearing anything.
const ATTEMPTS_MAX: u32 = 5;
/// How long to wait before a stream is taken up again, unless the server says; doubled each time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Reads the answer to the request `id`, and what the server says before it. Whatever happens, whoever waits
/// for the answer gets one.
pub(super) async fn answer(link: Arc<Link>, answer: Answer, id: RequestId) {
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_events = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    let problem = if is_events {
        follow(&link, answer.body, &id).await
    } else {
        whole(&link, answer.body, &id).await
    };
    // An answer that came has ended the wait.
    if link.traffic.gives_up(&id) {
        let error = ErrorData::internal_error(problem, None);
        link.hand_over(ServerJsonRpcMessage::error(error, Some(id))).await;
    }
}

/// A body of one message, or a few. Gives what is to be said if the answer is not among them.
async fn whole(link: &Link, mut body: Body, id: &RequestId) -> String {
    let mut bytes = Vec::new();
    loop {
        match body.chunk().await {
            Ok(Some(piece)) if bytes.len() + piece.len() > MESSAGE_BYTES_MAX => {
                link.traffic.too_long();
                return "the server's answer is too long".to_owned();
            }
            Ok(Some(piece)) => bytes.extend_from_slice(&piece),
            Ok(None) => break,
            Err(error) => return format!("the server's answer broke off: {error}"),
        }
    }
    link.take(&bytes, Some(id)).await;
    "the server's answer is no message".to_owned()
}

/// A stream of events up to the answer; one that breaks is taken up again where the server can do that.
async fn follow(link: &Arc<Link>, mut body: Body, id: &RequestId) -> String {
    let mut events = Events::new(MESSAGE_BYTES_MAX);
    let mut attempts = 0;
    loop {
        if link.drain(&mut body, &mut events, Some(id)).await > 0 {
            attempts = 0;
        }
        let Some(last) = events.last_id().map(str::to_owned) else {
            return "the server's answer broke off".to_owned();
        };
        if !link.traffic.waits_for(id) || attempts == ATTEMPTS_MAX {
            return "the server's answer broke off".to_owned();
        }
        pause(&link.traffic, &events, attempts).await;
        attempts += 1;
        events.reconnected();
        match link.events(Some(&last)).await {
            Ok(again) => body = again,
            Err(error) => return error.to_string(),
        }
    }
}

/// Hears what the server says by itself, for as long as it offers that.
pub(super) async fn listen(link: Arc<Link>) {
    let mut events = Events::new(MESSAGE_BYTES_MAX);
    let mut attempts = 0;
    while attempts < ATTEMPTS_MAX && !link.traffic.ended.is_cancelled() {
        let last = events.last_id().map(str::to_owned);
        match link.events(last.as_deref()).await {
            Ok(mut body) => {
                events.reconnected();
                if link.drain(&mut body, &mut events, None).await > 0 {
                    attempts = 0;
                }
            }
            // It offers none (405), or forgets what we are: the next request will say so.
            Err(
                McpError::Status { .. } | McpError::SessionLost | McpError::Unauthorized { .. },
            ) => {
                return;
            }
            Err(_) => {}
        }
        pause(&link.traffic, &events, attempts).await;
        attempts += 1;
    }
}

/// Waits before a stream is taken up again, unless the connection ends meanwhile.
async fn pause(traffic: &Traffic, events: &Events, attempts: u32) {
    let wait = events.retry().unwrap_or(AGAIN_AFTER * 2_u32.pow(attempts));
    drop(timeout(wait, traffic.ended.cancelled()).await);
}

impl Link {
    /// Opens a stream of what the server says by itself, or goes on with one behind the event `last`.
    async fn events(&self, last: Option<&str>) -> Result<Body, McpError> {
        let mut request = self.request("GET")?.header("accept", "text/event-stream")?;
        if let Some(last) = last {
            request = request.header("last-event-id", last)?;
        }
        let answer = self.checked(self.server.egress.send(request).await?)?;
        let kind = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return Err(McpError::Status { status: answer.status });
        }
        Ok(answer.body)
    }

    /// Reads a stream to its end, or to the answer to `id`. Gives how much it said.
    async fn drain(&self, body: &mut Body, events: &mut Events, id: Option<&RequestId>) -> usize {
        let mut count = 0;
        while let Ok(Some(piece)) = body.chunk().await {
            for said in events.push(&piece) {
                count += 1;
                match said {
                    Said::Message(bytes) => self.take(&bytes, id).await,
                    Said::TooLong => self.traffic.too_long(),
                }
            }
            if id.is_some_and(|id| !self.traffic.waits_for(id)) || self.traffic.ended.is_cancelled()
            {
                break;
            }
        }
        count
    }

    /// Passes on a message, or several in a list as older servers send them.
    async fn take(&self, bytes: &[u8], id: Option<&RequestId>) {
        if let Ok(message) = serde_json::from_slice(bytes) {
            return self.pass_on(message, id).await;
        }
        match serde_json::from_slice::<Vec<ServerJsonRpcMessage>>(bytes) {
            Ok(messages) => {
                for message in messages {
                    self.pass_on(message, id).await;
                }
            }
            Err(_) => self.traffic.garbage(),
        }
    }

    /// Says of a request of the server which of ours it is about.
    async fn pass_on(&self, mut message: ServerJsonRpcMessage, id: Option<&RequestId>) {
        if let JsonRpcMessage::Request(request) = &mut message {
            let origin = id.cloned().map_or(InboundStreamOrigin::Unassociated, |id| {
                InboundStreamOrigin::OutboundRequest(id)
            });
            request.request.extensions_mut().insert(origin);
        }
        if let Some(message) = self.traffic.admitted(message) {
            self.hand_over(message).await;
        }
    }

    /// Nobody takes it once the connection is over.
    async fn hand_over(&self, message: ServerJsonRpcMessage) {
        drop(self.messages.send(message).await);
    }
}
