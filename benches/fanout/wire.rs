//! The client's half of a WebSocket (RFC 6455), as little of it as counts frames: of a frame that nobody
//! looks into only the head is read.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use iris_protocol::ResponseFrame;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
/// Masked with zeros, as all that is sent here.
const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];
/// The head of a frame with the longest kind of length.
const HEAD_BYTES_MAX: usize = 10;
/// What one read takes at most.
const READ_BYTES: usize = 256 * 1024;
/// Addresses that clients come from: one has too few ports for all of them.
const ADDRESSES: usize = 8;

thread_local! {
    /// Shared by all connections: what was read is parsed before another one reads.
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A server and who asks it.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The access token; the bare server asks for none.
    pub(crate) token: String,
}

/// Cuts a stream into frames.
#[derive(Default)]
struct FrameReader {
    /// Of a head that is not whole yet.
    head: Vec<u8>,
    opcode: u8,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// Whether payloads are kept.
    keeps: bool,
    payload: Vec<u8>,
}

impl FrameReader {
    fn read(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(u8, &[u8])) {
        while !bytes.is_empty() {
            if self.left == 0 {
                let Some(rest) = self.read_head(bytes) else { return };
                bytes = rest;
            }
            let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
            if self.keeps {
                self.payload.extend_from_slice(payload);
            }
            self.left -= payload.len();
            bytes = rest;
            if self.left == 0 {
                on_frame(self.opcode, &self.payload);
                self.payload.clear();
            }
        }
    }

    /// Reads the head of the next frame; what comes behind it, once it is whole.
    fn read_head<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let had = self.head.len();
        let parsed = if had == 0 {
            parse_head(bytes)
        } else {
            let (more, _) = bytes.split_at(bytes.len().min(HEAD_BYTES_MAX - had));
            self.head.extend_from_slice(more);
            parse_head(&self.head)
        };
        let Some((opcode, length, head_bytes)) = parsed else {
            if had == 0 {
                self.head.extend_from_slice(bytes);
            }
            return None;
        };
        self.head.clear();
        (self.opcode, self.left) = (opcode, length);
        Some(bytes.split_at(head_bytes - had).1)
    }
}

/// The opcode, the length of the payload, and that of the head itself.
fn parse_head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let &[first, length, ..] = bytes else { return None };
    let opcode = first & 0x0f;
    match (length, bytes) {
        (126, &[_, _, a, b, ..]) => Some((opcode, usize::from(u16::from_be_bytes([a, b])), 4)),
        (127, &[_, _, _, _, _, _, a, b, c, d, ..]) => {
            let length = u32::from_be_bytes([a, b, c, d]);
            Some((opcode, usize::try_from(length).unwrap_or(usize::MAX), HEAD_BYTES_MAX))
        }
        (126 | 127, _) => None,
        _ => Some((opcode, usize::from(length), 2)),
    }
}

/// One connection.
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    reader: FrameReader,
    /// Text frames that were read and not asked for yet.
    waiting: VecDeque<Vec<u8>>,
}

impl Wire {
    /// Connects; `place` says which of the addresses it comes from.
    pub(crate) async fn open(target: &Target, place: usize) -> anyhow::Result<Self> {
        Self::open_with(target, place, None).await
    }

    /// The same with as small a buffer for what comes in as the kernel makes of `receive_bytes`.
    pub(crate) async fn open_with(
        target: &Target,
        place: usize,
        receive_bytes: Option<u32>,
    ) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        let last = u8::try_from(2 + place % ADDRESSES)?;
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
        let stream = socket.connect(target.address).await?;
        stream.set_nodelay(true)?;
        let mut wire = Self {
            stream: Arc::new(stream),
            reader: FrameReader { keeps: true, ..FrameReader::default() },
            waiting: VecDeque::new(),
        };
        wire.shake_hands(target).await.context("no WebSocket")?;
        Ok(wire)
    }

    async fn shake_hands(&mut self, target: &Target) -> anyhow::Result<()> {
        let Target { address, token } = target;
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\n\
             connection: upgrade\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        self.sender().write(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let end = loop {
            self.stream.readable().await?;
            let mut bytes = [0; 1024];
            match self.stream.try_read(&mut bytes) {
                Ok(0) => bail!("the connection ended: {}", String::from_utf8_lossy(&answer)),
                Ok(count) => answer.extend_from_slice(bytes.split_at(count).0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let (head, rest) = answer.split_at(end);
        ensure!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        let Self { reader, waiting, .. } = self;
        reader.read(rest, |_, payload| waiting.push_back(payload.to_vec()));
        Ok(())
    }

    /// What sends on this connection while somebody else reads it.
    pub(crate) fn sender(&self) -> Sender {
        Sender(Arc::clone(&self.stream))
    }

    /// The next text frame.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(text) = self.waiting.pop_front() {
                return Ok(text);
            }
            let mut heard = Vec::new();
            let read = self.read(|payload: &[u8]| heard.push(payload.to_vec())).await?;
            self.waiting.extend(heard);
            ensure!(read.is_some() || !self.waiting.is_empty(), "the connection ended");
        }
    }

    /// Asks and waits for the answer; what else comes is given to `on_event`.
    pub(crate) async fn ask(
        &mut self,
        request: &Value,
        mut on_event: impl FnMut(&[u8]),
    ) -> anyhow::Result<Value> {
        self.sender().send(request).await?;
        loop {
            let text = self.next().await?;
            // Events begin with their type, responses with their id.
            if !text.starts_with(b"{\"id\"") {
                on_event(&text);
                continue;
            }
            let answer: ResponseFrame = serde_json::from_slice(&text)?;
            ensure!(answer.success, "refused: {:?}", answer.error);
            return Ok(answer.payload.unwrap_or_default().read()?);
        }
    }

    /// From now on only the heads of frames are read.
    pub(crate) fn keep_nothing(&mut self) {
        self.reader.keeps = false;
    }

    /// Reads what is there, once, and answers pings; the text of frames that are not kept is empty.
    /// How many bytes came; none when the connection has ended.
    pub(crate) async fn read(
        &mut self,
        mut on_text: impl FnMut(&[u8]),
    ) -> io::Result<Option<usize>> {
        for text in std::mem::take(&mut self.waiting) {
            on_text(&text);
        }
        loop {
            self.stream.readable().await?;
            let (stream, reader) = (&self.stream, &mut self.reader);
            let (mut is_pinged, mut is_closed) = (false, false);
            let read: io::Result<usize> = READ.with_borrow_mut(|bytes| {
                let count = stream.try_read(bytes)?;
                reader.read(bytes.split_at(count).0, |opcode, payload| match opcode {
                    PING => is_pinged = true,
                    CLOSE => is_closed = true,
                    _ => {
                        debug_assert_eq!(opcode, TEXT, "servers send whole texts");
                        on_text(payload);
                    }
                });
                Ok(count)
            });
            if is_pinged {
                self.sender().write(&PONG).await?;
            }
            match read {
                Ok(count) => return Ok((count > 0 && !is_closed).then_some(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sends on a connection.
#[derive(Clone)]
pub(crate) struct Sender(Arc<TcpStream>);

impl Sender {
    /// Sends a request, which is small.
    pub(crate) async fn send(&self, request: &Value) -> anyhow::Result<()> {
        let text = request.to_string();
        let length = u16::try_from(text.len())?.to_be_bytes();
        let mut frame = vec![0x81, 0x80 | 0x7e];
        frame.extend_from_slice(&length);
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        Ok(self.write(&frame).await?)
    }

    async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.0.writable().await?;
            match self.0.try_write(bytes) {
                Ok(count) => bytes = bytes.split_at(count).1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A request of the protocol.
pub(crate) fn request(id: &str, operation: &str, project: &str, payload: &Value) -> Value {
    json!({ "id": id, "type": operation, "projectId": project, "payload": payload })
}
