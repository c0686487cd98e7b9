//! The socket against RFC 6455, byte by byte: what a well-behaved library would never send. What such a
//! library can send is in `socket`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use iris_protocol::limits::FRAME_BYTES_MAX;
use iris_testkit::{TestApp, patiently, spawn_app};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LAST: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// Not zero, so that unmasking is seen.
const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
/// What the server answers with `success`.
const REQUEST: &[u8] = br#"{"id":"1","type":"ping"}"#;

/// A frame as clients send it. `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len());
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of such a frame, whose payload is as long as it says or not.
fn head(first: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        126..=0xffff => {
            bytes.push(0x80 | 0x7e);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 0x7f);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

fn close_frame(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(LAST | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

fn address(app: &TestApp) -> SocketAddr {
    app.url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// A request for a WebSocket, with lines of further headers.
fn handshake(app: &TestApp, path: &str, token: &str, more: &str) -> String {
    let address = address(app);
    format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\n\
         connection: upgrade\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-extensions: permessage-deflate\r\n\
         authorization: Bearer {token}\r\n{more}\r\n"
    )
}

/// A connection without any library.
struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    async fn open(app: &TestApp, token: &str) -> Self {
        let mut raw = Self::connect(app).await;
        raw.send(handshake(app, "/v1/ws", token, "").as_bytes()).await;
        raw.is_upgraded().await;
        raw
    }

    async fn connect(app: &TestApp) -> Self {
        Self { stream: TcpStream::connect(address(app)).await.unwrap(), read: vec![] }
    }

    /// The head of the next answer, lower case.
    async fn head(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill().await, "no answer");
        };
        let head: Vec<u8> = self.read.drain(..end).collect();
        String::from_utf8(head).unwrap().to_lowercase()
    }

    /// Everything up to the end of the connection.
    async fn rest(mut self) -> Vec<u8> {
        while self.fill().await {}
        self.read
    }

    /// Reads the answer to a handshake and the first frame.
    async fn is_upgraded(&mut self) {
        let head = self.head().await;
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        let (opcode, connected) = self.frame().await.unwrap();
        assert_eq!(opcode, TEXT);
        assert_eq!(serde_json::from_slice::<Value>(&connected).unwrap()["type"], "connected");
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed before it has read everything.
        self.stream.write_all(bytes).await.ok();
    }

    /// Reads more; says whether there was any.
    async fn fill(&mut self) -> bool {
        let read = patiently("bytes", self.stream.read_buf(&mut self.read)).await;
        read.is_ok_and(|count| count > 0)
    }

    /// The next frame, which has to be whole and not masked; none at the end.
    async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let (length, head) = match self.read.as_slice() {
                [_, length @ 0..=125, ..] => (usize::from(*length), 2),
                [_, 126, a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 4),
                [_, 127..=255, ..] => panic!("a masked or very long frame"),
                _ => (usize::MAX, 0),
            };
            if length != usize::MAX && self.read.len() >= head + length {
                let frame: Vec<u8> = self.read.drain(..head + length).collect();
                assert_eq!(frame[0] & 0xf0, LAST, "a fragment or reserved bits");
                return Some((frame[0] & 0x0f, frame[head..].to_vec()));
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Says whether the request with this id was answered well; the frame has to be next.
    async fn is_answered(&mut self) -> bool {
        let (opcode, answer) = self.frame().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        opcode == TEXT && answer["id"] == "1" && answer["success"] == json!(true)
    }

    /// The code of the close frame, which has to be next and the last.
    async fn close_code(&mut self) -> u16 {
        let (opcode, payload) = self.frame().await.unwrap();
        assert_eq!(opcode, CLOSE, "{}", String::from_utf8_lossy(&payload));
        assert_eq!(self.frame().await, None, "something after the close frame");
        u16::from_be_bytes([payload[0], payload[1]])
    }
}

#[tokio::test]
async fn what_the_rfc_forbids_is_closed_with_the_code_for_it() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let text = |payload: &[u8]| frame(LAST | TEXT, payload);
    let unmasked = [&[LAST | TEXT, 2][..], b"{}"].concat();
    // Three bytes of one character, cut, and what is no continuation of it.
    let cut = [frame(TEXT, b"\"\xe2\x82"), frame(LAST | CONTINUATION, b"\"")].concat();
    let mut cases: Vec<(String, u16, Vec<u8>)> = vec![
        ("not masked".into(), 1002, unmasked),
        ("a ping of 126 bytes".into(), 1002, frame(LAST | PING, &[0; 126])),
        ("a ping in fragments".into(), 1002, frame(PING, b"half")),
        ("a close in fragments".into(), 1002, frame(CLOSE, &1000_u16.to_be_bytes())),
        ("a close of one byte".into(), 1002, frame(LAST | CLOSE, b"\x03")),
        ("a close of 126 bytes".into(), 1002, close_frame(1000, &[b'x'; 124])),
        ("a reason that is not UTF-8".into(), 1002, close_frame(1000, b"\xff")),
        ("the last fragment of nothing".into(), 1002, frame(LAST | CONTINUATION, b"")),
        ("a fragment of nothing".into(), 1002, frame(CONTINUATION, b"")),
        (
            "a second message inside a binary one".into(),
            1002,
            [frame(BINARY, b"x"), frame(LAST | BINARY, b"y")].concat(),
        ),
        ("a character cut between fragments and not ended".into(), 1007, cut),
        ("a surrogate".into(), 1007, text(b"\xed\xa0\x80")),
        ("an overlong character".into(), 1007, text(b"\xc0\xaf")),
        ("beyond the last character".into(), 1007, text(b"\xf4\x90\x80\x80")),
        ("longer than 63 bits say".into(), 1009, head(LAST | TEXT, usize::MAX)),
    ];
    for bits in [0x40, 0x20, 0x10, 0x70] {
        cases.push((format!("reserved bits {bits:#x}"), 1002, frame(LAST | bits | TEXT, REQUEST)));
    }
    for opcode in (3..=7).chain(11..=15) {
        cases.push((format!("opcode {opcode}"), 1002, frame(LAST | opcode, b"")));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535] {
        cases.push((format!("close code {code}"), 1002, close_frame(code, b"")));
    }
    for (what, code, bytes) in cases {
        let mut raw = Raw::open(&app, ann.token()).await;
        raw.send(&bytes).await;
        assert_eq!(raw.close_code().await, code, "{what}");
    }
}

#[tokio::test]
async fn a_frame_that_says_how_large_it_is_is_not_waited_for() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut raw = Raw::open(&app, ann.token()).await;
    raw.send(&head(LAST | TEXT, 1 << 40)).await;
    raw.send(&vec![b' '; FRAME_BYTES_MAX + 1]).await;
    assert_eq!(raw.close_code().await, 1009);
}

#[tokio::test]
async fn what_the_rfc_allows_is_understood() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut raw = Raw::open(&app, ann.token()).await;
    for byte in frame(LAST | TEXT, REQUEST) {
        raw.send(&[byte]).await;
    }
    assert!(raw.is_answered().await, "byte by byte");

    // A character cut between fragments, empty fragments, and control frames between all of them.
    let request = "{\"id\":\"1\",\"type\":\"ping\",\"payload\":{\"more\":\"\u{20ac}\"}}".as_bytes();
    let cut = request.iter().position(|byte| *byte == 0xe2).unwrap() + 1;
    let (first, second) = request.split_at(cut);
    let frames = [
        frame(TEXT, b""),
        frame(LAST | PING, b""),
        frame(CONTINUATION, first),
        frame(LAST | PONG, b"not asked for"),
        frame(LAST | PING, &[b'p'; 125]),
        frame(CONTINUATION, b""),
        frame(LAST | CONTINUATION, second),
    ];
    raw.send(&frames.concat()).await;
    assert_eq!(raw.frame().await, Some((PONG, vec![])));
    assert_eq!(raw.frame().await, Some((PONG, vec![b'p'; 125])));
    assert!(raw.is_answered().await, "in fragments");

    // The shortest length is asked of senders alone.
    let mut long_head = vec![LAST | TEXT, 0x80 | 0x7f];
    long_head.extend((REQUEST.len() as u64).to_be_bytes());
    long_head.extend([0; 4]);
    raw.send(&[&long_head, REQUEST].concat()).await;
    assert!(raw.is_answered().await, "with a long head");

    let binary = [frame(BINARY, b"half"), frame(LAST | CONTINUATION, b"whole")];
    raw.send(&binary.concat()).await;
    let (_, refused) = raw.frame().await.unwrap();
    let refused: Value = serde_json::from_slice(&refused).unwrap();
    assert_eq!(refused["error"]["details"]["reason"], "chunk_magic");
    raw.send(&frame(LAST | TEXT, REQUEST)).await;
    assert!(raw.is_answered().await, "after a binary message");
}

#[tokio::test]
async fn a_goodbye_is_answered_and_nothing_after_it() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut goodbyes = vec![frame(LAST | CLOSE, b""), close_frame(1000, &[b'x'; 123])];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        goodbyes.push(close_frame(code, "auf Wiederh\u{f6}ren".as_bytes()));
    }
    for goodbye in goodbyes {
        let mut raw = Raw::open(&app, ann.token()).await;
        raw.send(&[goodbye, frame(LAST | TEXT, REQUEST), frame(LAST | PING, b"")].concat()).await;
        assert_eq!(raw.close_code().await, 1000);
    }
}

#[tokio::test]
async fn the_server_ends_the_connection_and_does_not_wait_for_the_client() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut shortest = Duration::MAX;
    for _ in 0..5 {
        let mut raw = Raw::open(&app, ann.token()).await;
        raw.send(&close_frame(1000, b"bye")).await;
        let (opcode, _) = raw.frame().await.unwrap();
        assert_eq!(opcode, CLOSE);
        let said = Instant::now();
        assert_eq!(raw.frame().await, None);
        shortest = shortest.min(said.elapsed());
    }
    // What waits for the client waits half a second at least.
    assert!(shortest < Duration::from_millis(300), "{shortest:?}");
}

#[tokio::test]
async fn an_upgrade_may_come_behind_other_requests() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut raw = Raw::connect(&app).await;
    let document = format!("GET /v1/openapi.json HTTP/1.1\r\nhost: {}\r\n\r\n", address(&app));
    let upgrade = handshake(&app, "/v1/ws", ann.token(), "");
    raw.send(&[document.as_bytes(), document.as_bytes(), upgrade.as_bytes()].concat()).await;
    for _ in 0..2 {
        let length = content_length(&raw.head().await);
        while raw.read.len() < length {
            assert!(raw.fill().await, "the connection ended");
        }
        let document: Vec<u8> = raw.read.drain(..length).collect();
        assert!(serde_json::from_slice::<Value>(&document).unwrap()["openapi"].is_string());
    }
    raw.is_upgraded().await;
    raw.send(&frame(LAST | TEXT, REQUEST)).await;
    assert!(raw.is_answered().await);
}

/// A client has to wait for the answer (RFC 6455, section 4.1); one that does not loses nothing.
#[tokio::test]
async fn an_upgrade_may_come_with_the_first_frames() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut raw = Raw::connect(&app).await;
    let upgrade = handshake(&app, "/v1/ws", ann.token(), "");
    raw.send(&[upgrade.as_bytes(), &frame(LAST | TEXT, REQUEST)].concat()).await;
    raw.is_upgraded().await;
    assert!(raw.is_answered().await);
}

#[tokio::test]
async fn a_route_that_is_no_websocket_answers_whoever_asks_for_one_and_ends_the_connection() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    for (path, status) in [("/v1/openapi.json", 200), ("/v1/nothing", 404), ("/v1/me", 200)] {
        let mut raw = Raw::connect(&app).await;
        raw.send(handshake(&app, path, ann.token(), "").as_bytes()).await;
        let head = raw.head().await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        assert_eq!(raw.rest().await.len(), content_length(&head));
    }
    // So does the one that is, when it says no.
    let mut raw = Raw::connect(&app).await;
    raw.send(handshake(&app, "/v1/ws", "wrong", "").as_bytes()).await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 401"), "{head}");
    assert_eq!(raw.rest().await.len(), content_length(&head));
}

#[tokio::test]
async fn a_handshake_with_a_body_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut raw = Raw::connect(&app).await;
    let chunked = handshake(&app, "/v1/ws", ann.token(), "transfer-encoding: chunked\r\n");
    raw.send(chunked.as_bytes()).await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 400"), "{head}");
}

fn content_length(head: &str) -> usize {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.unwrap_or_else(|| panic!("no length: {head}")).parse().unwrap()
}
