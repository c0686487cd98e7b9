//! A session with one server, from its greeting to its end.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use iris_sandbox::{Request as Program, Sandbox};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CancelledNotification, CancelledNotificationParam,
    ClientCapabilities, ClientConfig, ClientRequest, ElicitationCapability, Extensions,
    FormElicitationCapability, Implementation, ListToolsRequest, ListToolsRequestMethod,
    PaginatedRequestParams, ProtocolVersion, RequestId, ServerResult,
};
use rmcp::service::{
    ClientInitializeError, Peer, PeerRequestOptions, RequestHandle, RunningService, ServiceError,
};
use rmcp::transport::{DynamicTransportError, Transport};
use rmcp::{RoleClient, serve_client};
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::DropGuard;

use crate::call::{CallAnswer, ElicitationSource};
use crate::definition::Definition;
use crate::error::{McpError, NotOpened, bounded};
use crate::guest::{Calls, Guest, RunningCall};
use crate::http::{Http, HttpServer};
use crate::stdio::Stdio;
use crate::traffic::{Report, Traffic};
use crate::{
    CALLS_MAX, DEFINITIONS_BYTES_MAX, INITIALIZE_TIMEOUT, PAGES_MAX, REQUEST_TIMEOUT, TOOLS_MAX,
};

/// Longest cursor of a page that is given back, in bytes.
const CURSOR_BYTES_MAX: usize = 4 * 1024;

/// Where a server is.
pub enum Target {
    /// A program, which runs in the sandbox as long as the connection.
    Program {
        /// Where it runs.
        sandbox: Sandbox,
        /// What runs.
        request: Box<Program>,
    },
    /// A place on the web.
    Http(HttpServer),
}

/// How long a server is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For it to start and say what it is.
    pub initialize: Duration,
    /// For each answer.
    pub request: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { initialize: INITIALIZE_TIMEOUT, request: REQUEST_TIMEOUT }
    }
}

/// A session with a server. Dropping it ends the session; a program then gets a moment to end by itself.
///
/// Everything of it runs as tasks of the tokio runtime in which it was opened.
pub struct Connection {
    running: RunningService<RoleClient, Guest>,
    patience: Patience,
    traffic: Arc<Traffic>,
    calls: Calls,
    turns: Semaphore,
    changed: Arc<Notify>,
    /// Where what is said at the end of a call is said.
    threads: Handle,
}

impl Connection {
    /// Starts a program or goes to a place, and says hello.
    ///
    /// # Errors
    ///
    /// In [`NotOpened`]: `Sandbox`, `Egress`, `Unauthorized`, `Status`, `Closed`, `Refused`, `Malformed`, and `TimedOut` when the
    /// greeting takes longer than the configured patience. Nothing is left running then.
    pub async fn open(target: Target, patience: Patience) -> Result<Self, NotOpened> {
        let traffic = Arc::<Traffic>::default();
        let opened = Self::reach(target, Arc::clone(&traffic), patience).await;
        opened.map_err(|error| NotOpened { error, report: traffic.report() })
    }

    async fn reach(
        target: Target,
        traffic: Arc<Traffic>,
        patience: Patience,
    ) -> Result<Self, McpError> {
        match target {
            Target::Program { sandbox, request } => {
                let talk = sandbox.open(*request)?;
                Self::greet(Stdio::new(talk, Arc::clone(&traffic)), traffic, patience).await
            }
            Target::Http(server) => {
                Self::greet(Http::new(server, Arc::clone(&traffic)), traffic, patience).await
            }
        }
    }

    async fn greet<T>(
        transport: T,
        traffic: Arc<Traffic>,
        patience: Patience,
    ) -> Result<Self, McpError>
    where
        T: Transport<RoleClient> + 'static,
    {
        let calls: Calls = Arc::default();
        let changed = Arc::<Notify>::default();
        let guest =
            Guest { config: config(), calls: Arc::clone(&calls), changed: Arc::clone(&changed) };
        let greeting = timeout(patience.initialize, serve_client(guest, transport)).await;
        let limit = patience.initialize;
        let running = greeting
            .map_err(|_| McpError::TimedOut { limit })?
            .map_err(|error| not_greeted(error, &traffic))?;
        let turns = Semaphore::new(CALLS_MAX);
        let threads = Handle::current();
        Ok(Self { running, patience, traffic, calls, turns, changed, threads })
    }

    /// Asks for all tools, page by page.
    ///
    /// # Errors
    ///
    /// `TooMuch` for more than [`TOOLS_MAX`] tools, [`PAGES_MAX`] pages or [`DEFINITIONS_BYTES_MAX`] bytes;
    /// `BadTool` for one that cannot be used or a second one of the same name; `Malformed`, `Refused`,
    /// `TimedOut`, `Closed` and what HTTP adds.
    pub async fn tools(&self) -> Result<Vec<Definition>, McpError> {
        let mut definitions: Vec<Definition> = Vec::new();
        let mut names = HashSet::new();
        let mut bytes = 0;
        let mut cursor = None;
        for _ in 0..PAGES_MAX {
            let page = self.page(cursor).await?;
            for tool in page.tools {
                bytes += serde_json::to_vec(&tool).map_or(0, |json| json.len());
                if bytes > DEFINITIONS_BYTES_MAX {
                    return Err(McpError::TooMuch {
                        what: "bytes of definitions",
                        most: DEFINITIONS_BYTES_MAX,
                    });
                }
                if definitions.len() == TOOLS_MAX {
                    return Err(McpError::TooMuch { what: "tools", most: TOOLS_MAX });
                }
                let definition = Definition::of(tool)?;
                if !names.insert(definition.name.clone()) {
                    let problem = "the server names it twice".to_owned();
                    return Err(McpError::BadTool { tool: definition.name, problem });
                }
                definitions.push(definition);
            }
            let Some(next) = page.next_cursor else { return Ok(definitions) };
            if next.len() > CURSOR_BYTES_MAX {
                return Err(McpError::Malformed { expected: "a short cursor" });
            }
            cursor = Some(next);
        }
        Err(McpError::TooMuch { what: "pages of tools", most: PAGES_MAX })
    }

    async fn page(&self, cursor: Option<String>) -> Result<rmcp::model::ListToolsResult, McpError> {
        let params =
            cursor.map(|cursor| PaginatedRequestParams::default().with_cursor(Some(cursor)));
        let request = ClientRequest::ListToolsRequest(ListToolsRequest {
            method: ListToolsRequestMethod,
            params,
            extensions: Extensions::default(),
        });
        let limit = self.patience.request;
        let options = PeerRequestOptions::with_timeout(limit);
        let sent = self.peer().send_request_with_option(request, options).await;
        let answer = match sent {
            Ok(handle) => handle.await_response().await,
            Err(error) => Err(error),
        };
        let ServerResult::ListToolsResult(page) = answer.map_err(|error| self.failed(error))?
        else {
            return Err(McpError::Malformed { expected: "a list of tools" });
        };
        Ok(page)
    }

    /// Calls a tool, and answers through `source` what the server asks meanwhile. Dropping the future tells
    /// the server that nobody waits any more.
    ///
    /// # Errors
    ///
    /// `TimedOut`, `Refused`, `Malformed`, `Closed`, and what HTTP adds. After `TimedOut` and `Closed` nobody
    /// knows whether the server has done what was asked.
    pub async fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        source: Option<Arc<dyn ElicitationSource>>,
    ) -> Result<CallAnswer, McpError> {
        let limit = self.patience.request;
        let turn = timeout(limit, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(McpError::TimedOut { limit }) };
        let params = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
        let (waiting, waits) = watch::channel(0);
        let call = RunningCall::new(source, waiting);
        let over = call.over.clone().drop_guard();
        let handle = {
            let mut calls = self.calls.lock().await;
            let options = PeerRequestOptions::no_options();
            let sent = self.peer().send_request_with_option(request, options).await;
            let handle = sent.map_err(|error| self.failed(error))?;
            calls.insert(handle.id.clone(), call);
            handle
        };
        let calls = Arc::clone(&self.calls);
        let threads = self.threads.clone();
        let mut handle = Abandoned { handle: Some(handle), calls, threads, _over: over };
        let answer = within(limit, waits, handle.answer()).await;
        let answer = answer.ok_or(McpError::TimedOut { limit })?;
        handle.forget();
        let ServerResult::CallToolResult(result) = answer.map_err(|error| self.failed(error))?
        else {
            return Err(McpError::Malformed { expected: "the result of a call" });
        };
        Ok(CallAnswer::of(result))
    }

    /// Waits until the server says that its tools are others now. One that said so before counts.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Waits until the connection is over. Says how it ended.
    pub async fn ended(&self) -> McpError {
        self.traffic.ended.cancelled().await;
        self.traffic.error()
    }

    /// Whether the connection is over.
    pub fn is_over(&self) -> bool {
        self.traffic.ended.is_cancelled()
    }

    /// What is known of it.
    pub fn report(&self) -> Report {
        self.traffic.report()
    }

    /// What the server calls itself, its name and version; bounded.
    pub fn server(&self) -> Option<(String, String)> {
        let info = self.peer().peer_info()?;
        let implementation = info.server_info.as_ref()?;
        Some((bounded(&implementation.name), bounded(&implementation.version)))
    }

    /// Ends the session and waits for that: for a few seconds at most.
    pub async fn close(mut self) {
        const CLOSE_MAX: Duration = Duration::from_secs(6);
        drop(self.running.close_with_timeout(CLOSE_MAX).await);
    }

    fn peer(&self) -> &Peer<RoleClient> {
        self.running.peer()
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the library may add ways to fail")]
    fn failed(&self, error: ServiceError) -> McpError {
        match error {
            ServiceError::McpError(error) => McpError::Refused { message: bounded(&error.message) },
            ServiceError::TransportSend(error) => of_transport(error),
            ServiceError::Timeout { timeout } => McpError::TimedOut { limit: timeout },
            ServiceError::UnexpectedResponse => {
                McpError::Malformed { expected: "what was asked for" }
            }
            _ => self.traffic.error(),
        }
    }
}

/// What servers are told of us.
fn config() -> ClientConfig {
    let elicitation = ElicitationCapability::new().with_form(FormElicitationCapability::default());
    let mut capabilities = ClientCapabilities::default();
    capabilities.elicitation = Some(elicitation);
    let implementation = Implementation::new("Iris", env!("CARGO_PKG_VERSION"));
    ClientConfig::new(capabilities, implementation)
        .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
}

/// Waits for an answer; time in which people are asked does not count. `None` when it is over.
async fn within<T>(
    limit: Duration,
    mut waits: watch::Receiver<usize>,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    let mut left = limit;
    loop {
        let is_asking = *waits.borrow_and_update() > 0;
        let begun = Instant::now();
        let deadline = begun + left;
        tokio::select! {
            answer = &mut answer => return Some(answer),
            () = sleep_until(deadline), if !is_asking => return None,
            changed = waits.changed() => {
                if !is_asking {
                    left = left.saturating_sub(begun.elapsed());
                }
                if changed.is_err() {
                    // The call is not among those that run any more, so nobody is asked.
                    return timeout(left, answer).await.ok();
                }
            }
        }
    }
}

/// A call that is under way. Dropped before its answer it is taken back.
struct Abandoned {
    handle: Option<RequestHandle<RoleClient>>,
    calls: Calls,
    threads: Handle,
    _over: DropGuard,
}

impl Abandoned {
    async fn answer(&mut self) -> Result<ServerResult, ServiceError> {
        let Some(handle) = &mut self.handle else { return Err(ServiceError::TransportClosed) };
        (&mut handle.rx).await.unwrap_or(Err(ServiceError::TransportClosed))
    }

    /// The answer is there.
    fn forget(&mut self) {
        if let Some(handle) = self.handle.take() {
            remove(&self.calls, handle.id, &self.threads);
        }
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        let peer = handle.peer.clone();
        let id = handle.id.clone();
        remove(&self.calls, handle.id, &self.threads);
        let params = CancelledNotificationParam::new(Some(id), None);
        let notification = CancelledNotification::new(params);
        self.threads.spawn(async move { drop(peer.send_notification(notification.into()).await) });
    }
}

/// Takes a call off the list of those that run; what is asked about it is answered by nobody.
fn remove(calls: &Calls, id: RequestId, threads: &Handle) {
    if let Ok(mut calls) = calls.try_lock() {
        calls.remove(&id);
        return;
    }
    let calls = Arc::clone(calls);
    threads.spawn(async move { calls.lock().await.remove(&id) });
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the library may add ways to fail")]
fn not_greeted(error: ClientInitializeError, traffic: &Traffic) -> McpError {
    match error {
        ClientInitializeError::TransportError { error, .. } => of_transport(error),
        ClientInitializeError::JsonRpcError(error) => {
            McpError::Refused { message: bounded(&error.message) }
        }
        ClientInitializeError::ConnectionClosed(_) => traffic.error(),
        _ => McpError::Malformed { expected: "a greeting" },
    }
}

/// What happened, where a transport says so itself.
fn of_transport(error: DynamicTransportError) -> McpError {
    match error.error.downcast::<McpError>() {
        Ok(error) => *error,
        Err(error) => McpError::Closed { reason: bounded(&error.to_string()) },
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;
    use tokio::sync::oneshot;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_time_in_which_people_are_asked_does_not_count() {
        let (waiting, waits) = watch::channel(0);
        let (_answer, answered) = oneshot::channel::<()>();
        let mut call = pin!(within(3 * SECOND, waits, answered));
        assert!((&mut call).now_or_never().is_none());
        advance(2 * SECOND).await;
        waiting.send_replace(1);
        assert!((&mut call).now_or_never().is_none());
        advance(3600 * SECOND).await;
        assert!((&mut call).now_or_never().is_none());
        waiting.send_replace(0);
        assert!((&mut call).now_or_never().is_none());
        advance(Duration::from_millis(990)).await;
        assert!((&mut call).now_or_never().is_none());
        advance(Duration::from_millis(20)).await;
        assert_eq!((&mut call).now_or_never(), Some(None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_also_while_people_are_asked_and_after() {
        for asks_until_the_end in [true, false] {
            let (waiting, waits) = watch::channel(1);
            let (answer, answered) = oneshot::channel();
            let mut call = pin!(within(SECOND, waits, answered));
            assert!((&mut call).now_or_never().is_none());
            advance(60 * SECOND).await;
            if !asks_until_the_end {
                drop(waiting);
                assert!((&mut call).now_or_never().is_none());
            }
            answer.send(7).unwrap();
            assert_eq!(call.now_or_never(), Some(Some(Ok(7))));
        }
    }
}
