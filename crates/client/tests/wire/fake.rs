//! A server with a script: each test accepts connections and answers by hand.
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use iris_client::Client;
use iris_protocol::{
    ApiError, AuthGrant, Connected, ConnectionId, ConnectionLimits, ErrorCode, Event, EventFrame,
    EventMeta, Json, MessageId, PartId, Position, ProjectId, RequestFrame, ResponseFrame, Room,
    Session, SessionId, SessionMode, SessionSnapshot, SessionState, SessionStatus, Usage, User,
    UserId,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Message, http};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

/// Bound on every wait of a test.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn project() -> ProjectId {
    ProjectId::from_bits(1)
}

pub(crate) fn session() -> SessionId {
    SessionId::from_bits(2)
}

pub(crate) fn message() -> MessageId {
    MessageId::from_bits(3)
}

pub(crate) fn part() -> PartId {
    PartId::from_bits(4)
}

/// Fails the test when the future takes too long.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("nothing came"))
}

pub(crate) struct Fake {
    listener: TcpListener,
    pub(crate) url: String,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.url).unwrap()
    }

    /// A client whose access token is `access` and whose refresh token is `refresh`.
    pub(crate) fn logged_in(&self) -> Client {
        self.client().with_grant(&grant("access"))
    }

    async fn accept(&self) -> TcpStream {
        soon(self.listener.accept()).await.unwrap().0
    }

    /// Answers one HTTP request and gives it back.
    pub(crate) async fn answer(&self, status: u16, body: Value) -> HttpRequest {
        let mut stream = self.accept().await;
        let request = soon(HttpRequest::read(&mut stream)).await;
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        request
    }

    /// Accepts a WebSocket and does not say `connected` yet.
    pub(crate) async fn upgrade(&self) -> Peer {
        let stream = self.accept().await;
        let mut authorization = None;
        let look = |request: &Request, response: Response| {
            assert_eq!(request.uri().path(), "/v1/ws");
            let header = request.headers().get("authorization");
            authorization = header.map(|value| value.to_str().unwrap().to_owned());
            Ok(response)
        };
        let socket = soon(accept_hdr_async(stream, look)).await.unwrap();
        Peer { socket, authorization }
    }

    /// Refuses a WebSocket with an error.
    pub(crate) async fn refuse(&self, code: ErrorCode) {
        let stream = self.accept().await;
        let body = json!({ "error": ApiError::from(code) }).to_string();
        let look = |_: &Request, _: Response| {
            Err(http::Response::builder().status(code.http_status()).body(Some(body)).unwrap())
        };
        assert!(soon(accept_hdr_async(stream, look)).await.is_err());
    }

    /// Accepts a WebSocket and says `connected`.
    pub(crate) async fn connection(&self) -> Peer {
        let mut peer = self.upgrade().await;
        peer.say_connected(0).await;
        peer
    }
}

pub(crate) struct HttpRequest {
    /// The request line and the headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl HttpRequest {
    async fn read(stream: &mut TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        Self { head, body }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// The server's end of a socket.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
    pub(crate) authorization: Option<String>,
}

impl Peer {
    pub(crate) async fn say_connected(&mut self, ping_interval_ms: u64) {
        let payload = Connected {
            connection_id: ConnectionId::from_bits(1),
            user_id: UserId::from_bits(1),
            project_id: None,
            protocol: 1,
            version: "0".to_owned(),
            features: Vec::new(),
            limits: ConnectionLimits {
                frame_bytes_max: 1 << 20,
                requests_in_flight_max: 32,
                rooms_max: 128,
            },
            ping_interval_ms,
            expires_at: 0,
        };
        self.send(&json!({ "type": "connected", "payload": payload })).await;
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        soon(self.socket.send(Message::text(frame.to_string()))).await.unwrap();
    }

    /// Sends a frame to a client that may go away in the middle of it.
    pub(crate) async fn try_send(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).await.ok();
    }

    /// The next request.
    pub(crate) async fn request(&mut self) -> RequestFrame {
        loop {
            if let Message::Text(text) = soon(self.socket.next()).await.unwrap().unwrap() {
                return RequestFrame::parse(text.as_bytes()).unwrap();
            }
        }
    }

    /// The next request, which must be of this operation.
    pub(crate) async fn expect(&mut self, name: &str) -> RequestFrame {
        let request = self.request().await;
        assert_eq!(request.r#type, name);
        request
    }

    pub(crate) async fn respond(&mut self, request: &RequestFrame, payload: Value) {
        let payload = Json::from(&payload);
        let response = ResponseFrame::success(request.id.clone(), payload, Some(7));
        self.send(&serde_json::to_value(response).unwrap()).await;
    }

    pub(crate) async fn fail(&mut self, request: &RequestFrame, error: ApiError) {
        let response = ResponseFrame::failure(Some(request.id.clone()), error);
        self.send(&serde_json::to_value(response).unwrap()).await;
    }

    /// Answers `session.get` with a session that has no messages.
    pub(crate) async fn give_snapshot(&mut self, as_of_seq: u64) {
        let request = self.expect("session.get").await;
        let snapshot = serde_json::to_value(snapshot(as_of_seq)).unwrap();
        self.respond(&request, snapshot).await;
    }

    /// Answers `subscribe`, which must ask since `since`.
    pub(crate) async fn join(&mut self, since: u64, status: &str, to: u64) {
        let request = self.expect("subscribe").await;
        let room = &request.payload["rooms"][0];
        assert_eq!(room["since"], json!({ "epoch": "e1", "seq": since }));
        let outcome = json!({ "room": room["room"], "status": status, "from": since, "to": to, "epoch": "e1" });
        self.respond(&request, json!({ "rooms": [outcome] })).await;
    }

    /// Sends a durable event of the session.
    pub(crate) async fn durable(&mut self, seq: u64, prev: u64, event: Event) {
        self.event(Some((seq, prev)), event).await;
    }

    /// Sends an ephemeral event of the session.
    pub(crate) async fn ephemeral(&mut self, event: Event) {
        self.event(None, event).await;
    }

    async fn event(&mut self, order: Option<(u64, u64)>, event: Event) {
        let meta = EventMeta {
            project_id: Some(project()),
            room: Room::Session(session()),
            seq: order.map(|(seq, _)| seq),
            prev: order.map(|(_, prev)| prev),
            at: Some(0),
            by: None,
        };
        self.send(&serde_json::to_value(EventFrame { meta, event }).unwrap()).await;
    }

    /// The code with which the client closes.
    pub(crate) async fn closed(mut self) -> u16 {
        loop {
            if let Message::Close(frame) = soon(self.socket.next()).await.unwrap().unwrap() {
                return frame.unwrap().code.into();
            }
        }
    }

    pub(crate) async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        soon(self.socket.close(Some(frame))).await.unwrap();
        // Until the client has answered the close.
        while let Some(Ok(_)) = soon(self.socket.next()).await {}
    }
}

pub(crate) fn user() -> User {
    User {
        id: UserId::from_bits(1),
        email: "a@b.c".to_owned(),
        username: "a".to_owned(),
        is_admin: false,
        can_execute_code: false,
        avatar_url: None,
        disabled: false,
        preferences: serde_json::Map::new(),
        created_at: 0,
    }
}

/// A grant with this access token and the refresh token `refresh`.
pub(crate) fn grant(access: &str) -> AuthGrant {
    AuthGrant {
        user: user(),
        access_token: access.to_owned(),
        refresh_token: "refresh".to_owned(),
        expires_at: 0,
    }
}

pub(crate) fn snapshot(as_of_seq: u64) -> SessionSnapshot {
    SessionSnapshot {
        session: Session {
            id: session(),
            parent_id: None,
            title: "t".to_owned(),
            agent: "default".to_owned(),
            model: None,
            mode: SessionMode::Default,
            status: SessionStatus::Active,
            state: SessionState::Idle,
            created_by: UserId::from_bits(1),
            created_at: 0,
            updated_at: 0,
            archived_at: None,
            message_count: 0,
            usage: Usage::default(),
            budget: None,
            capturing: None,
        },
        messages: Vec::new(),
        next_cursor: None,
        queue: Vec::new(),
        runs: Vec::new(),
        approvals: Vec::new(),
        questions: Vec::new(),
        todos: Vec::new(),
        unread: None,
        as_of: Position { epoch: "e1".to_owned(), seq: as_of_seq },
    }
}

/// A durable event that is told apart from others by `state`.
pub(crate) fn status(state: SessionState) -> Event {
    Event::session_status(session(), state)
}

pub(crate) fn delta(offset: u64, text: &str) -> Event {
    Event::MessageTextDelta {
        session_id: session(),
        message_id: message(),
        part_id: part(),
        r#gen: 1,
        offset,
        delta: text.to_owned(),
    }
}

pub(crate) fn text_complete(text: &str) -> Event {
    Event::MessageTextComplete {
        session_id: session(),
        message_id: message(),
        part_id: part(),
        length: text.len() as u64,
        text: text.to_owned(),
        interrupted: false,
    }
}
