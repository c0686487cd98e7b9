//! A place on the web: messages are posted to it, and its answers are JSON or an event stream (Model Context
//! Protocol 2025-11-25, "Transports", section "Streamable HTTP").

mod reading;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use iris_egress::{Answer, Egress, EgressError, Request};
use parking_lot::Mutex;
use rmcp::RoleClient;
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, JsonRpcMessage, RequestId, ServerJsonRpcMessage,
    ServerResult,
};
use rmcp::transport::Transport;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use url::Url;

use crate::error::McpError;
use crate::traffic::{End, Traffic};

/// Messages that may wait to be taken; who sends more waits.
const WAITING_MAX: usize = 64;
/// Longest id of a session, in bytes.
const SESSION_BYTES_MAX: usize = 1024;
/// Longest challenge that is kept, in bytes.
const CHALLENGE_BYTES_MAX: usize = 2 * 1024;
/// How long the end of a session may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// The longest that an answer may take, with all that is asked in between. Calls end sooner.
const EXCHANGE_MAX: Duration = Duration::from_mins(20);

/// A text that is shown nowhere. It is serialised for one purpose: to be sealed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Secret(String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.0
    }
}

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self::from(text.into())
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The token that a server gets with each request, if any; all copies are one, so that a new one takes its
/// place while a connection stands.
#[derive(Debug, Clone, Default)]
pub struct Token(Arc<Mutex<Option<Secret>>>);

impl Token {
    /// A token.
    pub fn new(secret: Secret) -> Self {
        Self(Arc::new(Mutex::new(Some(secret))))
    }

    /// From the next request on it is this one.
    pub fn replace(&self, secret: Secret) {
        *self.0.lock() = Some(secret);
    }

    /// As it is now.
    pub fn current(&self) -> Option<Secret> {
        self.0.lock().clone()
    }
}

/// Where a server is on the web, and what it gets with each request.
#[derive(Clone)]
pub struct HttpServer {
    /// The way out, with its guards.
    pub egress: Arc<Egress>,
    /// Its one address.
    pub url: Url,
    /// Headers for it and for no other origin.
    pub headers: Vec<(String, Secret)>,
    /// What says that we may ask, for this server and no other.
    pub token: Token,
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

pub(crate) struct Http {
    link: Arc<Link>,
    incoming: mpsc::Receiver<ServerJsonRpcMessage>,
    /// What reads answers to requests that are not answered yet.
    reading: Arc<Mutex<HashMap<RequestId, AbortHandle>>>,
    listening: Option<AbortHandle>,
}

/// What all requests of one connection share.
struct Link {
    server: HttpServer,
    traffic: Arc<Traffic>,
    messages: mpsc::Sender<ServerJsonRpcMessage>,
    session: Mutex<Option<String>>,
    version: OnceLock<String>,
}

impl Http {
    pub(crate) fn new(server: HttpServer, traffic: Arc<Traffic>) -> Self {
        let (messages, incoming) = mpsc::channel(WAITING_MAX);
        let (session, version) = (Mutex::default(), OnceLock::new());
        let link = Link { server, traffic, messages, session, version };
        let reading = Arc::default();
        Self { link: Arc::new(link), incoming, reading, listening: None }
    }

    /// Learns what later requests have to say, and begins to hear what the server says by itself.
    fn learn(&mut self, message: &ServerJsonRpcMessage) {
        if let JsonRpcMessage::Response(response) = message
            && let ServerResult::InitializeResult(result) = &response.result
        {
            drop(self.link.version.set(result.protocol_version.as_str().to_owned()));
        }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        for (_, task) in self.reading.lock().drain() {
            task.abort();
        }
        if let Some(task) = &self.listening {
            task.abort();
        }
    }
}

impl Transport<RoleClient> for Http {
    type Error = McpError;

    fn send(
        &mut self,
        message: ClientJsonRpcMessage,
    ) -> impl Future<Output = Result<(), McpError>> + Send + 'static {
        self.link.traffic.sent(&message);
        if let Some(id) = cancelled(&message)
            && let Some(task) = self.reading.lock().remove(id)
        {
            task.abort();
        }
        if is_initialized(&message) && self.listening.is_none() {
            let listening = tokio::spawn(reading::listen(Arc::clone(&self.link)));
            self.listening = Some(listening.abort_handle());
        }
        let (link, reading) = (Arc::clone(&self.link), Arc::clone(&self.reading));
        async move {
            let id = match &message {
                JsonRpcMessage::Request(request) => Some(request.id.clone()),
                JsonRpcMessage::Response(_)
                | JsonRpcMessage::Notification(_)
                | JsonRpcMessage::Error(_) => None,
            };
            let posted = link.post(&message).await;
            match posted {
                Ok(answer) => {
                    let is_initialize = matches!(&message, JsonRpcMessage::Request(request)
                        if request.request.method() == "initialize");
                    if is_initialize {
                        link.begin_session(&answer);
                    }
                    if let Some(id) = id {
                        let mut tasks = reading.lock();
                        tasks.retain(|_, task| !task.is_finished());
                        let task = tokio::spawn(reading::answer(link, answer, id.clone()));
                        tasks.insert(id, task.abort_handle());
                    }
                    Ok(())
                }
                Err(error) => {
                    if let Some(id) = &id {
                        link.traffic.gives_up(id);
                    }
                    if let McpError::SessionLost = &error {
                        link.traffic.end_as(End::SessionLost);
                    }
                    if let McpError::Unauthorized { status, challenge } = &error
                        && (*status == 401 || link.version.get().is_none())
                    {
                        link.traffic.end_as(End::Unauthorized(*status, challenge.clone()));
                    }
                    Err(error)
                }
            }
        }
    }

    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        let message = tokio::select! {
            message = self.incoming.recv() => message?,
            () = self.link.traffic.ended.cancelled() => return None,
        };
        self.learn(&message);
        Some(message)
    }

    /// Tells the server that the session is over, which need not care (same section, "Session Management").
    async fn close(&mut self) -> Result<(), McpError> {
        self.link.traffic.end("it was closed");
        if self.link.session.lock().is_some() {
            let request = self.link.request("DELETE")?.timeout(GOODBYE);
            drop(self.link.server.egress.send(request).await);
        }
        Ok(())
    }
}

fn cancelled(message: &ClientJsonRpcMessage) -> Option<&RequestId> {
    let JsonRpcMessage::Notification(notification) = message else { return None };
    let ClientNotification::CancelledNotification(it) = &notification.notification else {
        return None;
    };
    it.params.request_id.as_ref()
}

fn is_initialized(message: &ClientJsonRpcMessage) -> bool {
    matches!(message, JsonRpcMessage::Notification(notification)
        if matches!(notification.notification, ClientNotification::InitializedNotification(_)))
}

/// What a server wants that refuses, as far as it says so in a reasonable length.
fn challenge(answer: &Answer) -> Option<String> {
    let values = answer.headers.get_all(http::header::WWW_AUTHENTICATE).iter();
    let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
    let text = values.join(", ");
    (!text.is_empty() && text.len() <= CHALLENGE_BYTES_MAX).then_some(text)
}

impl Link {
    /// A request with all that this server gets, and that goes nowhere else.
    fn request(&self, method: &str) -> Result<Request, EgressError> {
        let HttpServer { url, headers, token, .. } = &self.server;
        let mut request = Request::new(method, url.as_str())?;
        for (name, value) in headers {
            request = request.header(name, value.expose())?;
        }
        if let Some(token) = token.current() {
            request = request.header("authorization", &format!("Bearer {}", token.expose()))?;
        }
        if let Some(id) = &*self.session.lock() {
            request = request.header("mcp-session-id", id)?;
        }
        if let Some(version) = self.version.get() {
            request = request.header("mcp-protocol-version", version)?;
        }
        let origin = url.origin();
        let stays = move |url: &Url| url.origin() == origin;
        Ok(request.follow_if(stays).timeout(EXCHANGE_MAX))
    }

    async fn post(&self, message: &ClientJsonRpcMessage) -> Result<Answer, McpError> {
        let body = serde_json::to_vec(message)
            .map_err(|_| McpError::Malformed { expected: "a message that can be sent" })?;
        let request = self.request("POST")?;
        let request = request.header("accept", "application/json, text/event-stream")?;
        let request = request.header("content-type", "application/json")?.body(body);
        self.checked(self.server.egress.send(request).await?)
    }

    /// Refuses answers that are none.
    fn checked(&self, answer: Answer) -> Result<Answer, McpError> {
        match answer.status {
            200..=299 => Ok(answer),
            status @ (401 | 403) => {
                Err(McpError::Unauthorized { status, challenge: challenge(&answer) })
            }
            404 if self.session.lock().is_some() => Err(McpError::SessionLost),
            status => Err(McpError::Status { status }),
        }
    }

    /// Keeps the id of the session that the answer begins, if it begins one.
    fn begin_session(&self, answer: &Answer) {
        let id = answer.headers.get("mcp-session-id").and_then(|value| value.to_str().ok());
        let id = id.filter(|id| !id.is_empty() && id.len() <= SESSION_BYTES_MAX);
        *self.session.lock() = id.map(str::to_owned);
    }
}
