//! A socket that says and hears frames as they are.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use iris_client::ClientError;
use iris_protocol::ApiError;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::patiently;

/// Bytes that the kernel may buffer for a reader that does not read.
const RECEIVE_BUFFER_BYTES: u32 = 64 * 1024;

/// What a server sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A JSON frame.
    Json(Value),
    /// A binary frame.
    Binary(Bytes),
    /// The answer to a ping.
    Pong(Bytes),
    /// The end; 1006 without a close frame.
    Closed {
        /// The close code.
        code: u16,
        /// The server's words.
        reason: String,
    },
}

/// A connection whose every frame the test writes and reads.
pub struct WireSocket {
    stream: WebSocketStream<TcpStream>,
}

/// What goes wrong here is the test's failure.
impl WireSocket {
    /// Connects, with the token as a header when there is one. Waits for no frame.
    ///
    /// # Errors
    /// `Api` when the server refuses the upgrade.
    pub async fn open(base_url: &str, token: Option<&str>) -> Result<Self, ClientError> {
        Self::open_with(base_url, "", token, &[]).await
    }

    /// Connects with a query such as `?token=x` and with more headers, which replace those of the
    /// same name.
    ///
    /// # Errors
    /// `Api` when the server refuses the upgrade.
    pub async fn open_with(
        base_url: &str,
        query: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Self, ClientError> {
        let authority = base_url.trim_start_matches("http://").trim_end_matches('/');
        let mut request = format!("ws://{authority}/v1/ws{query}").into_client_request().unwrap();
        let bearer = token.map(|token| format!("Bearer {token}"));
        let bearer = bearer.iter().map(|bearer| ("authorization", bearer.as_str()));
        for (name, value) in bearer.chain(headers.iter().copied()) {
            let (name, value) = (HeaderName::try_from(name).unwrap(), value.parse().unwrap());
            let _: Option<HeaderValue> = request.headers_mut().insert(name, value);
        }
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
        let tcp = tcp.connect(authority.parse().unwrap()).await.unwrap();
        let upgrade = tokio_tungstenite::client_async(request, tcp);
        match patiently("the upgrade", upgrade).await {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(Error::Http(response)) => {
                Err(ClientError::Api(refusal(response.body().as_deref())))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends a text frame.
    pub async fn say(&mut self, text: impl Into<String>) {
        self.stream.send(Message::text(text.into())).await.unwrap();
    }

    /// Sends a binary frame.
    pub async fn say_bytes(&mut self, bytes: Vec<u8>) {
        self.stream.send(Message::binary(bytes)).await.unwrap();
    }

    /// Sends a request of this operation.
    pub async fn ask(&mut self, id: &str, operation: &str, project: Option<&str>, payload: Value) {
        let mut frame = serde_json::json!({ "id": id, "type": operation, "payload": payload });
        if let Some(project) = project {
            frame["projectId"] = project.into();
        }
        self.say(frame.to_string()).await;
    }

    /// Sends a ping frame.
    pub async fn ping(&mut self, payload: &'static [u8]) {
        self.stream.send(Message::Ping(Bytes::from_static(payload))).await.unwrap();
    }

    /// Sends a data frame as it is. `data` says what it is, `is_last` sets the FIN bit.
    pub async fn frame(&mut self, data: Data, bytes: &[u8], is_last: bool) {
        let frame = Frame::message(bytes.to_vec(), OpCode::Data(data), is_last);
        self.stream.send(Message::Frame(frame)).await.unwrap();
    }

    /// What comes next.
    pub async fn next(&mut self) -> Incoming {
        loop {
            let message = patiently("a frame", self.stream.next()).await;
            return match message {
                Some(Ok(Message::Text(text))) => {
                    Incoming::Json(serde_json::from_str(&text).unwrap())
                }
                Some(Ok(Message::Pong(payload))) => Incoming::Pong(payload),
                Some(Ok(Message::Close(Some(frame)))) => {
                    let (code, reason) = (frame.code.into(), frame.reason.to_string());
                    Incoming::Closed { code, reason }
                }
                Some(Ok(Message::Close(None))) => {
                    Incoming::Closed { code: 1005, reason: String::new() }
                }
                Some(Ok(Message::Binary(bytes))) => Incoming::Binary(bytes),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => Incoming::Closed { code: 1006, reason: error.to_string() },
                None => Incoming::Closed { code: 1006, reason: String::new() },
            };
        }
    }

    /// The next frame, which has to be JSON.
    pub async fn next_json(&mut self) -> Value {
        match self.next().await {
            Incoming::Json(frame) => frame,
            other @ (Incoming::Binary(_) | Incoming::Pong(_) | Incoming::Closed { .. }) => {
                panic!("{other:?}")
            }
        }
    }

    /// The response to a request; other frames before it are dropped.
    pub async fn response(&mut self, id: &str) -> Value {
        loop {
            match self.next().await {
                Incoming::Json(frame) if frame["type"] == "response" && frame["id"] == id => {
                    return frame;
                }
                Incoming::Json(_) | Incoming::Binary(_) => {}
                other @ (Incoming::Pong(_) | Incoming::Closed { .. }) => panic!("{other:?}"),
            }
        }
    }

    /// The code with which the server closes; frames before it are dropped.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            if let Incoming::Closed { code, .. } = self.next().await {
                return code;
            }
        }
    }
}

fn refusal(body: Option<&[u8]>) -> ApiError {
    let body: Value = serde_json::from_slice(body.unwrap_or_default()).unwrap();
    serde_json::from_value(body["error"].clone()).unwrap()
}
