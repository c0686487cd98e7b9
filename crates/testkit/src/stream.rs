//! An event stream (SSE), read byte by byte, as slowly as a test wants.

use std::collections::BTreeMap;
use std::fmt::Write;

use iris_protocol::ApiError;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::patiently;

/// Bytes that the kernel may buffer for a reader that does not read.
const RECEIVE_BUFFER_BYTES: u32 = 4096;

/// What a stream told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// An event.
    Event {
        /// Its `id`.
        id: Option<String>,
        /// Its `event`.
        name: String,
        /// Its `data`, which is one line of JSON.
        data: Value,
    },
    /// A comment.
    Comment,
    /// How soon to come back, in milliseconds.
    Retry(u64),
    /// The server ended the stream. False when the connection broke.
    End(bool),
}

/// A stream that is open.
#[derive(Debug)]
pub struct EventStream {
    tcp: TcpStream,
    /// The headers of the answer, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// What came and was not looked at yet: chunks.
    wire: Vec<u8>,
    /// What the chunks hold.
    text: Vec<u8>,
    end: Option<bool>,
    /// The id of the last event that had one.
    pub last_id: Option<String>,
}

/// What goes wrong here is the test's failure.
impl EventStream {
    /// Opens the stream at a path with its query.
    ///
    /// # Errors
    /// The server's, with any status but 200.
    pub async fn open(
        base_url: &str,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Self, ApiError> {
        let authority = base_url.trim_start_matches("http://").trim_end_matches('/');
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).unwrap();
        let mut tcp = tcp.connect(authority.parse().unwrap()).await.unwrap();
        let mut request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n");
        let bearer = token.map(|token| format!("Bearer {token}"));
        let bearer = bearer.iter().map(|bearer| ("Authorization", bearer.as_str()));
        for (name, value) in bearer.chain(headers.iter().copied()) {
            write!(request, "{name}: {value}\r\n").unwrap();
        }
        tcp.write_all(format!("{request}\r\n").as_bytes()).await.unwrap();
        let mut stream = Self {
            tcp,
            headers: BTreeMap::new(),
            wire: Vec::new(),
            text: Vec::new(),
            end: None,
            last_id: None,
        };
        let head = patiently("the head of the answer", stream.head()).await;
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let headers = lines.filter_map(|line| line.split_once(": "));
        stream.headers =
            headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        if status == "200" {
            return Ok(stream);
        }
        let length: usize = stream.headers["content-length"].parse().unwrap();
        while stream.wire.len() < length {
            assert!(patiently("the error", stream.fill()).await, "the error was cut off");
        }
        let body: Value = serde_json::from_slice(&stream.wire).unwrap();
        let error: ApiError = serde_json::from_value(body["error"].clone()).unwrap();
        assert_eq!(status, error.code.http_status().to_string());
        Err(error)
    }

    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = position(&self.wire, b"\r\n\r\n") {
                let head = self.wire.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.fill().await, "the answer was cut off");
        }
    }

    /// Reads more. False at the end.
    async fn fill(&mut self) -> bool {
        matches!(self.tcp.read_buf(&mut self.wire).await, Ok(1..))
    }

    /// Takes the chunks that are whole. Says whether there was one.
    fn unwrap_chunks(&mut self) -> bool {
        let mut found = false;
        while let Some(end) = position(&self.wire, b"\r\n") {
            let size = std::str::from_utf8(&self.wire[..end]).unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            let whole = end + 2 + size + 2;
            if self.wire.len() < whole {
                break;
            }
            let chunk: Vec<u8> = self.wire.drain(..whole).collect();
            self.text.extend_from_slice(&chunk[end + 2..end + 2 + size]);
            found = true;
            if size == 0 {
                self.end = Some(true);
                break;
            }
        }
        found
    }

    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = position(&self.text, b"\n\n") {
                let block = self.text.drain(..end + 2).collect();
                return Some(String::from_utf8(block).unwrap());
            }
            if self.end.is_some() {
                return None;
            }
            if !self.unwrap_chunks() && !self.fill().await {
                self.end = Some(false);
            }
        }
    }

    /// What comes next.
    pub async fn next(&mut self) -> Told {
        let Some(block) = patiently("an event of a stream", self.block()).await else {
            return Told::End(self.end.unwrap());
        };
        let (mut id, mut name, mut data) = (None, None, None);
        for line in block.trim_end_matches('\n').split('\n') {
            let (field, value) = line.split_once(':').unwrap();
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            let place = match field {
                "" => return Told::Comment,
                "retry" => return Told::Retry(value.parse().unwrap()),
                "id" => &mut id,
                "event" => &mut name,
                "data" => &mut data,
                other => panic!("the field `{other}`"),
            };
            assert_eq!(place.replace(value), None, "twice in {block}");
        }
        let data: Value = serde_json::from_str(&data.unwrap()).unwrap();
        self.last_id = id.clone().or_else(|| self.last_id.take());
        Told::Event { id, name: name.unwrap(), data }
    }

    /// The data of the next event. Comments before it are dropped.
    pub async fn next_event(&mut self) -> Value {
        loop {
            match self.next().await {
                Told::Event { name, data, .. } => {
                    assert_eq!(data["type"], name);
                    return data;
                }
                Told::Comment | Told::Retry(_) => {}
                Told::End(is_whole) => panic!("the stream ended, whole: {is_whole}"),
            }
        }
    }

    /// The data of the next event of that name. Others before it are dropped.
    pub async fn wait_for(&mut self, name: &str) -> Value {
        loop {
            let data = self.next_event().await;
            if data["type"] == name {
                return data;
            }
        }
    }

    /// Everything up to the end. The stream has to end whole.
    pub async fn rest(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            match self.next().await {
                Told::Event { data, .. } => events.push(data),
                Told::Comment | Told::Retry(_) => {}
                Told::End(is_whole) => {
                    assert!(is_whole, "the connection broke after {events:?}");
                    return events;
                }
            }
        }
    }
}

fn position(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|window| window == mark)
}
