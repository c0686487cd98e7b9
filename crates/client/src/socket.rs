//! One WebSocket connection: requests in flight matched by id, and the frames of the server in order.

mod reader;
mod upgrade;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use iris_protocol::{Connected, EventFrame, Hello, ProjectId, Request, ResponseFrame, ServerFrame};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use self::reader::Shared;
use self::upgrade::Stream;
use crate::error::CLOSED_ABNORMALLY;
use crate::frame::{check_response, decode_payload, request_frame};
use crate::transport::install_crypto_provider;
use crate::{ClientError, REQUEST_TIMEOUT};

/// Frames that may wait for the caller. A caller that leaves more of them unread stops the reading
/// of the socket, and is closed with 4008 by the server after a while.
const FRAMES_WAITING_MAX: usize = 4096;
/// Id of the `hello` request, which nobody waits for: `connected` is the answer.
const HELLO_ID: &str = "hello";

/// How a socket proves who it acts for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Authentication {
    /// By a bearer header on the upgrade request.
    #[default]
    Header,
    /// By `hello` as the first frame, as browsers must.
    Hello {
        /// The project for requests that name none.
        project_id: Option<ProjectId>,
    },
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How the token is sent.
    pub authentication: Authentication,
    /// More headers of the upgrade request, such as `Origin`.
    pub headers: Vec<(String, String)>,
    /// Bound on the upgrade, on the wait for `connected`, and on each request.
    pub request_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            authentication: Authentication::default(),
            headers: Vec::new(),
            request_timeout: REQUEST_TIMEOUT,
        }
    }
}

/// A successful response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<T> {
    /// What the operation answers.
    pub payload: T,
    /// The last durable event that the command caused, when it caused one.
    pub seq: Option<u64>,
}

/// A connection. Every method takes `&self`, so requests may be in flight while frames are read.
/// Dropping it drops the connection without a closing handshake.
#[derive(Debug)]
pub struct Socket {
    sink: tokio::sync::Mutex<SplitSink<Stream, Message>>,
    frames: tokio::sync::Mutex<mpsc::Receiver<ServerFrame>>,
    shared: Arc<Shared>,
    connected: Option<Connected>,
    next_id: AtomicU64,
    request_timeout: Duration,
    reader: JoinHandle<()>,
}

/// Takes a request out of `pending` when its caller stops waiting.
struct Waiting<'a> {
    shared: &'a Shared,
    id: String,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.state.lock().pending.remove(&self.id);
    }
}

impl Socket {
    /// Connects, authenticates with `token`, and waits for `connected`.
    ///
    /// # Errors
    /// `Api` when the server refuses the upgrade or the hello, `Closed` when it closes the socket,
    /// `Timeout` and `Transport` when there is no connection, `Protocol` when it is not Iris.
    pub async fn connect(
        base_url: &str,
        token: &str,
        options: &ConnectOptions,
    ) -> Result<Self, ClientError> {
        let mut socket = match &options.authentication {
            Authentication::Header => Self::open(base_url, Some(token), options).await?,
            Authentication::Hello { project_id } => {
                let socket = Self::open(base_url, None, options).await?;
                let hello = Hello { token: token.to_owned(), project_id: project_id.clone() };
                let frame = request_frame(HELLO_ID.to_owned(), None, &hello)?;
                socket.send_json(&frame).await?;
                socket
            }
        };
        let first = tokio::time::timeout(options.request_timeout, socket.wait_connected()).await;
        socket.connected = Some(first.map_err(|_| ClientError::Timeout)??);
        Ok(socket)
    }

    /// Connects and waits for nothing: for callers that want to say and read every frame themselves.
    ///
    /// # Errors
    /// `Api` when the server refuses the upgrade; `Timeout`, `Transport`, `Protocol`.
    pub async fn open(
        base_url: &str,
        token: Option<&str>,
        options: &ConnectOptions,
    ) -> Result<Self, ClientError> {
        install_crypto_provider();
        let upgrading = upgrade::upgrade(base_url, token, &options.headers);
        let stream = tokio::time::timeout(options.request_timeout, upgrading).await;
        let stream = stream.map_err(|_| ClientError::Timeout)??;
        let (sink, stream) = stream.split();
        let (frames_tx, frames) = mpsc::channel(FRAMES_WAITING_MAX);
        let shared = Arc::new(Shared::default());
        let reader = tokio::spawn(reader::read(stream, frames_tx, Arc::clone(&shared)));
        Ok(Self {
            sink: tokio::sync::Mutex::new(sink),
            frames: tokio::sync::Mutex::new(frames),
            shared,
            connected: None,
            next_id: AtomicU64::new(1),
            request_timeout: options.request_timeout,
            reader,
        })
    }

    /// What the server said first; nothing on a socket made by [`Socket::open`].
    pub fn connected(&self) -> Option<&Connected> {
        self.connected.as_ref()
    }

    /// Runs an operation. Any number may be in flight, up to the server's limit. Waits for the
    /// response as long as [`ConnectOptions::request_timeout`].
    ///
    /// # Errors
    /// `Api` with the server's error; `Closed`, `Timeout`, `Protocol`. After `Closed` and `Timeout` a
    /// command may have had its effect.
    pub async fn call<R: Request>(
        &self,
        project: Option<&ProjectId>,
        request: R,
    ) -> Result<Reply<R::Response>, ClientError> {
        self.call_keyed(project, &request, None).await
    }

    /// The same under an idempotency key: a repeat with the same key, also on another connection, has no
    /// other effect and the same answer.
    ///
    /// # Errors
    /// As [`Socket::call`]; `Api` with `IDEMPOTENCY_CONFLICT` for another request under the key.
    pub async fn call_keyed<R: Request>(
        &self,
        project: Option<&ProjectId>,
        request: &R,
        key: Option<&str>,
    ) -> Result<Reply<R::Response>, ClientError> {
        let id = format!("c-{}", self.next_id.fetch_add(1, Ordering::Relaxed));
        let mut frame = request_frame(id.clone(), project, request)?;
        frame.idempotency_key = key.map(str::to_owned);
        let (response_tx, response) = oneshot::channel();
        let waiting = self.register(id, response_tx)?;
        let exchange = async {
            self.send_json(&frame).await?;
            response.await.map_err(|_| self.end())
        };
        let response = tokio::time::timeout(self.request_timeout, exchange).await;
        drop(waiting);
        let response = check_response(response.map_err(|_| ClientError::Timeout)??)?;
        let seq = response.seq;
        Ok(Reply { payload: decode_payload(response)?, seq })
    }

    /// The next event; other frames before it are dropped.
    ///
    /// # Errors
    /// As [`Socket::next_frame`].
    pub async fn next_event(&self) -> Result<EventFrame, ClientError> {
        loop {
            match self.next_frame().await? {
                ServerFrame::Event(frame) => return Ok(*frame),
                ServerFrame::Connected(_)
                | ServerFrame::Response(_)
                | ServerFrame::AuthExpiring { .. }
                | ServerFrame::Heartbeat(_)
                | ServerFrame::Draining { .. }
                | ServerFrame::Maintenance(_)
                | ServerFrame::TransferFailed(_)
                | ServerFrame::Unknown(_) => {}
            }
        }
    }

    /// The next frame that is not the response to a [`Socket::call`]. Waits without a bound; safe to
    /// abandon.
    ///
    /// # Errors
    /// `Closed` with code and reason once the connection has ended and every frame was read.
    pub async fn next_frame(&self) -> Result<ServerFrame, ClientError> {
        let frame = self.frames.lock().await.recv().await;
        frame.ok_or_else(|| self.end())
    }

    /// Sends a text frame as it is. Its response, if any, comes from [`Socket::next_frame`].
    ///
    /// # Errors
    /// `Closed` when the connection has ended.
    pub async fn send_text(&self, text: impl Into<String>) -> Result<(), ClientError> {
        self.send(Message::text(text.into())).await
    }

    /// Sends a binary frame as it is.
    ///
    /// # Errors
    /// `Closed` when the connection has ended.
    pub async fn send_binary(&self, bytes: Vec<u8>) -> Result<(), ClientError> {
        self.send(Message::binary(bytes)).await
    }

    /// Closes the socket with code 1000 and waits for the server to do the same, at most as long as
    /// a request.
    pub async fn close(mut self) {
        // A socket that is already closed is closed.
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        self.send(Message::Close(Some(normal))).await.ok();
        self.frames.lock().await.close();
        tokio::time::timeout(self.request_timeout, &mut self.reader).await.ok();
    }

    async fn send_json(&self, frame: &impl serde::Serialize) -> Result<(), ClientError> {
        let text = serde_json::to_string(frame)
            .map_err(|e| ClientError::protocol("encoding the request", e))?;
        self.send_text(text).await
    }

    async fn send(&self, message: Message) -> Result<(), ClientError> {
        // The reader knows why the connection ended, when it did.
        self.sink.lock().await.send(message).await.map_err(|error| match self.ended() {
            Some((code, reason)) => ClientError::Closed { code, reason },
            None => ClientError::Closed { code: CLOSED_ABNORMALLY, reason: error.to_string() },
        })
    }

    fn register(
        &self,
        id: String,
        response: oneshot::Sender<ResponseFrame>,
    ) -> Result<Waiting<'_>, ClientError> {
        let mut state = self.shared.state.lock();
        if let Some((code, reason)) = state.end.clone() {
            return Err(ClientError::Closed { code, reason });
        }
        state.pending.insert(id.clone(), response);
        Ok(Waiting { shared: &self.shared, id })
    }

    fn ended(&self) -> Option<(u16, String)> {
        self.shared.state.lock().end.clone()
    }

    fn end(&self) -> ClientError {
        let (code, reason) = self.ended().unwrap_or((CLOSED_ABNORMALLY, String::new()));
        ClientError::Closed { code, reason }
    }

    async fn wait_connected(&self) -> Result<Connected, ClientError> {
        loop {
            match self.next_frame().await? {
                ServerFrame::Connected(connected) => return Ok(*connected),
                ServerFrame::Response(response) => {
                    check_response(*response)?;
                }
                ServerFrame::Event(_)
                | ServerFrame::AuthExpiring { .. }
                | ServerFrame::Heartbeat(_)
                | ServerFrame::Draining { .. }
                | ServerFrame::Maintenance(_)
                | ServerFrame::TransferFailed(_)
                | ServerFrame::Unknown(_) => {}
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
