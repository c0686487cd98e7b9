//! Tools that a project defines for itself: requests, commands, and the secrets of requests.

mod changing;
mod commands;
mod defining;
mod requests;
mod rotation;
mod secrets;
mod testing;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use iris_client::RestAnswer;
use iris_protocol::{ProjectId, RunStatus, ToolId, ToolPart};
use iris_testkit::{AppOptions, Conversation, Person, TestApp, calls_of, spawn_app_with};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What a request to a site was.
#[derive(Debug, Clone)]
struct Seen {
    /// Method and target.
    line: String,
    headers: BTreeMap<String, String>,
    body: String,
}

/// A site that keeps what it was asked.
#[derive(Clone)]
struct Site {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Somebody asked for `/gate`.
    reached: Arc<Notify>,
    /// Then they are answered.
    opened: Arc<Notify>,
}

impl Site {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            reached: Arc::default(),
            opened: Arc::default(),
        };
        let serving = site.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serving.clone().answer(stream));
            }
        });
        site
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}{rest}", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    async fn answer(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
        let mut lines = head.lines();
        let line = lines.next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        while bytes.len() < head_end + length {
            stream.read_buf(&mut bytes).await.unwrap();
        }
        let body = String::from_utf8(bytes[head_end..].to_vec()).unwrap();
        let seen = Seen { line: line.clone(), headers: headers.clone(), body };
        self.seen.lock().push(seen);
        let path = line.split(' ').nth(1).unwrap();
        let (status, more, text) = match path.split('?').next().unwrap() {
            "/echo" => ("200 OK", String::new(), format!("{headers:?}")),
            "/teapot" => ("418 I'm a teapot", String::new(), "short and stout".to_owned()),
            "/image" => ("200 OK", "content-type: image/png\r\n".to_owned(), "x".to_owned()),
            "/long" => ("200 OK", String::new(), "é".repeat(1 << 20)),
            "/silent" => return std::future::pending().await,
            // A redirect that says the secret back.
            "/leak" => {
                let key = headers.get("x-key").cloned().unwrap_or_default();
                let location = format!("location: http://elsewhere.example/{key}\r\n");
                ("302 Found", location, String::new())
            }
            "/gate" => {
                self.reached.notify_one();
                self.opened.notified().await;
                ("200 OK", String::new(), "open".to_owned())
            }
            _ => ("200 OK", String::new(), "sunny".to_owned()),
        };
        let length = text.len();
        let answer = format!("HTTP/1.1 {status}\r\n{more}content-length: {length}\r\n\r\n{text}");
        // The client may have heard enough.
        drop(stream.write_all(answer.as_bytes()).await);
    }
}

/// A site, and a server whose tools may go there.
async fn app_and_site() -> (TestApp, Site) {
    let site = Site::start().await;
    let egress_allow = vec![site.address.to_string().parse().unwrap()];
    (spawn_app_with(AppOptions { egress_allow, ..AppOptions::default() }).await, site)
}

fn path(project: &ProjectId) -> String {
    format!("/v1/projects/{project}/tools")
}

/// A request for a tool that asks for the weather of a place.
fn weather(url: &str) -> Value {
    json!({
        "name": "weather",
        "description": "Tells the weather of a place.",
        "parameters": {
            "type": "object",
            "properties": { "place": { "type": "string" }, "days": { "type": "integer" } },
            "required": ["place"],
        },
        "http": { "method": "GET", "url": url },
    })
}

/// Defines a tool, which has to work.
async fn define(person: &Person, project: &ProjectId, body: Value) -> ToolId {
    let made = person.post(&path(project), body).await;
    assert_eq!(made.status, 201, "{made:?}");
    serde_json::from_value(made.json["data"]["id"].clone()).unwrap()
}

async fn change(person: &Person, project: &ProjectId, id: &ToolId, body: Value) -> RestAnswer {
    person.rest("PATCH", &format!("{}/{id}", path(project)), Some(body)).await
}

async fn test(person: &Person, project: &ProjectId, id: &ToolId, input: Value) -> RestAnswer {
    person.post(&format!("{}/{id}/test", path(project)), json!({ "input": input })).await
}

/// The tool of that name as `tool.list` gives it.
async fn listed(person: &Person, project: &ProjectId, name: &str) -> Option<Value> {
    let list = person.get(&path(project)).await.json;
    list["data"].as_array().unwrap().iter().find(|tool| tool["name"] == name).cloned()
}

async fn allow(person: &Person, project: &ProjectId, permission: &str) {
    let rule = json!({ "permission": permission, "pattern": "*", "action": "allow" });
    let made = person.post(&format!("/v1/projects/{project}/permissions"), rule).await;
    assert_eq!(made.status, 201, "{made:?}");
}

fn calls(name: &str, input: &Value) -> String {
    format!("call {name} {input}")
}

/// The only call of a message, once its run has ended.
async fn outcome(talk: &mut Conversation, message: &str) -> ToolPart {
    let run = talk.send_message(message).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    calls_of(&answer)[0].clone()
}
