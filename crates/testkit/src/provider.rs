//! A provider of whom every byte is told: it answers one [`Reply`] for each request, in order, and
//! keeps what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::patiently;

/// A place in an answer where the provider stops until the test says go.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<GateState>);

#[derive(Debug, Default)]
struct GateState {
    reached: Notify,
    opened: Notify,
}

impl Gate {
    /// Lets the answer go on, once.
    pub fn open(&self) {
        self.0.opened.notify_one();
    }

    /// Waits until the provider has come here.
    pub async fn reached(&self) {
        patiently("the provider at its gate", self.0.reached.notified()).await;
    }
}

/// What the provider answers to one request.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    pieces: Vec<Piece>,
    is_cut: bool,
}

#[derive(Debug, Clone)]
enum Piece {
    Bytes(Vec<u8>),
    Wait(Gate),
    Leave(Gate),
    Repeat(Gate, Vec<u8>),
}

/// Between two times that a provider repeats itself.
const REPEAT_EVERY: Duration = Duration::from_millis(1);

impl Reply {
    /// A stream of events that has just begun, with status 200.
    pub fn stream() -> Self {
        Self::status(200, "").header("content-type", "text/event-stream")
    }

    /// An answer with a body that is not a stream.
    pub fn status(status: u16, body: &str) -> Self {
        let reply = Self { status, headers: Vec::new(), pieces: Vec::new(), is_cut: false };
        reply.bytes(body)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds bytes, sent at once as one chunk.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.pieces.push(Piece::Bytes(bytes));
        }
        self
    }

    /// Waits here until the gate is opened.
    #[must_use]
    pub fn wait(mut self, gate: &Gate) -> Self {
        self.pieces.push(Piece::Wait(gate.clone()));
        self
    }

    /// Says nothing more until the client has left, at which the gate is reached.
    #[must_use]
    pub fn until_left(mut self, gate: &Gate) -> Self {
        self.pieces.push(Piece::Leave(gate.clone()));
        self
    }

    /// Says the same again and again until the client has left, at which the gate is reached.
    #[must_use]
    pub fn repeat_until_left(mut self, gate: &Gate, bytes: impl Into<Vec<u8>>) -> Self {
        self.pieces.push(Piece::Repeat(gate.clone(), bytes.into()));
        self
    }

    /// Breaks the connection off inside the body.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.is_cut = true;
        self
    }
}

/// The events of Chat Completions.
pub mod chat {
    use serde_json::{Value, json};

    use super::Reply;

    fn event(delta: &Value, finish: Option<&str>) -> String {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        format!("data: {}\n\n", json!({ "id": "chat-1", "model": "m", "choices": [choice] }))
    }

    /// A piece of text.
    pub fn text(text: &str) -> String {
        event(&json!({ "content": text }), None)
    }

    /// A whole call of a tool; `arguments` as the model wrote them.
    pub fn call(id: &str, tool: &str, arguments: &str) -> String {
        let function = json!({ "name": tool, "arguments": arguments });
        let call = json!({ "index": 0, "id": id, "type": "function", "function": function });
        event(&json!({ "tool_calls": [call] }), None)
    }

    /// More of the arguments of that call.
    pub fn more_of_call(arguments: &str) -> String {
        let call = json!({ "index": 0, "function": { "arguments": arguments } });
        event(&json!({ "tool_calls": [call] }), None)
    }

    /// The end of the answer.
    pub fn end(reason: &str) -> String {
        let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5 });
        let usage = json!({ "id": "chat-1", "model": "m", "choices": [], "usage": usage });
        format!("{}data: {usage}\n\ndata: [DONE]\n\n", event(&json!({}), Some(reason)))
    }

    /// An answer of one text.
    pub fn says(text: &str) -> Reply {
        Reply::stream().bytes(self::text(text)).bytes(end("stop"))
    }

    /// An answer of one tool call.
    pub fn calls(tool: &str, arguments: &str) -> Reply {
        Reply::stream().bytes(call("call_1", tool, arguments)).bytes(end("tool_calls"))
    }
}

/// What the provider was asked.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Request line and headers.
    pub head: String,
    /// The body.
    pub body: Value,
}

/// A provider on a free port, for as long as the runtime of its test lives.
#[derive(Debug)]
pub struct FakeProvider {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What goes wrong here is the test's failure.
impl FakeProvider {
    /// Starts to listen. A request after the last reply is closed without an answer.
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let replies = replies.into_iter().collect();
        tokio::spawn(serve(listener, replies, Arc::clone(&asked)));
        Self { address, asked }
    }

    /// For the configuration of a server.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, replies: Vec<Reply>, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut replies = replies.into_iter();
    while let Ok((socket, _)) = listener.accept().await {
        let mut socket = BufReader::new(socket);
        let request = read_request(&mut socket).await;
        asked.lock().unwrap().push(request);
        if let Some(reply) = replies.next() {
            // Fails when the client has left, which is its right.
            tokio::spawn(async move { answer(socket, reply).await.ok() });
        }
    }
}

async fn read_request(socket: &mut BufReader<TcpStream>) -> Asked {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        socket.read_line(&mut head).await.unwrap();
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, length)| length.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.unwrap();
    Asked { head, body: serde_json::from_slice(&body).unwrap_or_default() }
}

async fn answer(mut socket: BufReader<TcpStream>, reply: Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} x\r\ntransfer-encoding: chunked\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("connection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    for piece in &reply.pieces {
        match piece {
            Piece::Wait(gate) => {
                gate.0.reached.notify_one();
                gate.0.opened.notified().await;
            }
            Piece::Leave(gate) => {
                let mut rest = Vec::new();
                // Fails when the client went away without a word, which is as good.
                socket.read_to_end(&mut rest).await.ok();
                gate.0.reached.notify_one();
                return Ok(());
            }
            Piece::Repeat(gate, bytes) => {
                while write_chunk(&mut socket, bytes).await.is_ok() {
                    tokio::time::sleep(REPEAT_EVERY).await;
                }
                gate.0.reached.notify_one();
                return Ok(());
            }
            Piece::Bytes(bytes) => write_chunk(&mut socket, bytes).await?,
        }
    }
    if !reply.is_cut {
        socket.write_all(b"0\r\n\r\n").await?;
    }
    socket.flush().await
}

async fn write_chunk(socket: &mut BufReader<TcpStream>, bytes: &[u8]) -> std::io::Result<()> {
    socket.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    socket.write_all(bytes).await?;
    socket.write_all(b"\r\n").await?;
    socket.flush().await
}
