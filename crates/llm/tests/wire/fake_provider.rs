//! A provider of whom every byte is told: it plays one [`Reply`] for each connection, in order, and
//! keeps what it was asked.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails like the test itself")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// What the provider answers.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    chunks: Vec<Vec<u8>>,
    end: End,
}

/// What happens after the last chunk.
#[derive(Clone, Copy)]
pub(crate) enum End {
    /// The body ends as HTTP wants it.
    Whole,
    /// The connection is closed inside the body.
    Cut,
    /// Nothing, until the client goes away.
    Silence,
}

impl Reply {
    /// A stream of events with status 200.
    pub(crate) fn stream(chunks: impl IntoIterator<Item = impl Into<Vec<u8>>>) -> Self {
        Self::status(200, chunks).header("content-type", "text/event-stream; charset=utf-8")
    }

    /// Any status, without a content type.
    pub(crate) fn status(
        status: u16,
        chunks: impl IntoIterator<Item = impl Into<Vec<u8>>>,
    ) -> Self {
        let chunks = chunks.into_iter().map(Into::into).collect();
        Self { status, headers: Vec::new(), chunks, end: End::Whole }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn end(mut self, end: End) -> Self {
        self.end = end;
        self
    }
}

/// What the provider was asked.
#[derive(Clone)]
pub(crate) struct Asked {
    /// Request line and headers.
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) struct FakeProvider {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    left: mpsc::UnboundedReceiver<()>,
}

impl FakeProvider {
    /// Listens on a free port until the test ends. A connection too many is closed at once.
    pub(crate) async fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (leaves, left) = mpsc::unbounded_channel();
        tokio::spawn(serve(listener, replies, Arc::clone(&asked), leaves));
        Self { address, asked, left }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits until the client has left a reply that ended in [`End::Silence`].
    pub(crate) async fn client_left(&mut self) {
        self.left.recv().await.unwrap();
    }
}

async fn serve(
    listener: TcpListener,
    replies: Vec<Reply>,
    asked: Arc<Mutex<Vec<Asked>>>,
    leaves: mpsc::UnboundedSender<()>,
) {
    let mut replies = replies.into_iter();
    while let Ok((socket, _)) = listener.accept().await {
        let mut socket = BufReader::new(socket);
        let request = read_request(&mut socket).await;
        asked.lock().unwrap().push(request);
        if let Some(reply) = replies.next() {
            // Fails when the client has left, which is its right.
            drop(answer(socket, reply, &leaves).await);
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
    Asked { head, body: String::from_utf8(body).unwrap() }
}

async fn answer(
    mut socket: BufReader<TcpStream>,
    reply: Reply,
    leaves: &mpsc::UnboundedSender<()>,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} x\r\ntransfer-encoding: chunked\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("connection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    for chunk in &reply.chunks {
        socket.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
        socket.write_all(chunk).await?;
        socket.write_all(b"\r\n").await?;
        socket.flush().await?;
    }
    match reply.end {
        End::Whole => socket.write_all(b"0\r\n\r\n").await,
        End::Cut => Ok(()),
        End::Silence => {
            let mut rest = Vec::new();
            drop(socket.read_to_end(&mut rest).await);
            // Fails when the test does not care.
            leaves.send(()).unwrap_or_default();
            Ok(())
        }
    }
}
