//! A place on the web that speaks to MCP clients as a test says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// By names in lower case.
    pub(crate) headers: HashMap<String, String>,
    /// Null for what is no JSON.
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) text: String,
}

impl Asked {
    pub(crate) fn id(&self) -> Value {
        self.body["id"].clone()
    }

    /// The method of the message.
    pub(crate) fn says(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub(crate) struct WebFake {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// What it answers: the whole text of an answer.
pub(crate) type Answer = Vec<u8>;

impl WebFake {
    /// Answers what `answer` gives, and otherwise as a server should.
    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                tokio::spawn(async move {
                    let Some(request) = read(&mut stream).await else { return };
                    seen.lock().expect("no panic").push(request.clone());
                    let bytes = answer(&request).unwrap_or_else(|| ordinary(&request));
                    // Whoever has left hears nothing.
                    stream.write_all(&bytes).await.ok();
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }
}

async fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let mut first = lines.next()?.split(' ');
            let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
            let headers: HashMap<String, String> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length = headers.get("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                let text = body.to_owned();
                let body = serde_json::from_str(body).unwrap_or_default();
                return Some(Asked { method, path, headers, body, text });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// What a server answers that does as it should.
pub(crate) fn ordinary(asked: &Asked) -> Answer {
    match (asked.method.as_str(), asked.says()) {
        ("POST", "initialize") => {
            let result = json!({"protocolVersion": asked.body["params"]["protocolVersion"],
                "capabilities": {"tools": {}}, "serverInfo": {"name": "web", "version": "1"}});
            result_of(asked, "mcp-session-id: s-1\r\n", &result)
        }
        ("POST", "tools/list") => {
            let tools = json!([{"name": "echo", "description": "Echoes.",
                "inputSchema": {"type": "object"}}]);
            result_of(asked, "", &json!({ "tools": tools }))
        }
        ("POST", "tools/call") => result_of(asked, "", &text("called")),
        ("POST", _) => status("202 Accepted", ""),
        ("DELETE", _) => status("200 OK", ""),
        _ => status("405 Method Not Allowed", ""),
    }
}

pub(crate) fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

pub(crate) fn message(asked: &Asked, result: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": asked.id(), "result": result})
}

pub(crate) fn status(status: &str, headers: &str) -> Answer {
    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n{headers}\r\n")
        .into_bytes()
}

pub(crate) fn result_of(asked: &Asked, headers: &str, result: &Value) -> Answer {
    document("200 OK", headers, &message(asked, result))
}

/// An answer of JSON.
pub(crate) fn document(status: &str, headers: &str, body: &Value) -> Answer {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         connection: close\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// An event stream that ends after these.
pub(crate) fn events(text: &str) -> Answer {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{text}")
        .into_bytes()
}
