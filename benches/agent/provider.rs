//! A provider in a process of its own: Chat Completions over HTTP, with nothing in between.
//!
//! It is this program once more, started with [`ARGUMENT`]. What it answers stands in the last message that
//! it is sent.

use std::io::{self, BufRead, BufReader as StdReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use iris_actors::SystemClock;
use iris_agent::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

/// Makes this program the provider.
pub(crate) const ARGUMENT: &str = "provider";
/// Chunks of one answer.
pub(crate) const CHUNKS: usize = 200;
/// Bytes of the text of a chunk: the milliseconds since 1970 at which it was sent, and a space.
pub(crate) const STAMP_BYTES: usize = 14;
/// What the model says once a tool has answered.
pub(crate) const CLOSING: &str = "That is all.";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// [`CHUNKS`] chunks with so many milliseconds before each.
    Chunks(u64),
    /// A call of a tool.
    Tool,
    /// [`CLOSING`].
    Closing,
}

impl Plan {
    /// The message that asks for it.
    pub(crate) fn message(self) -> String {
        match self {
            Self::Chunks(delay_ms) => format!("chunks {delay_ms}"),
            Self::Tool => "tool".to_owned(),
            Self::Closing => "closing".to_owned(),
        }
    }

    fn of(body: &[u8]) -> anyhow::Result<Self> {
        let body: Value = serde_json::from_slice(body)?;
        let messages = body.get("messages").and_then(Value::as_array);
        let last = messages.and_then(|messages| messages.last()).context("no message")?;
        let text = last.get("content").and_then(Value::as_str).unwrap_or_default();
        if last.get("role").and_then(Value::as_str) == Some("tool") {
            return Ok(Self::Closing);
        }
        match text.split_once(' ') {
            Some(("chunks", delay_ms)) => Ok(Self::Chunks(delay_ms.parse()?)),
            _ if text == "tool" => Ok(Self::Tool),
            _ => Ok(Self::Closing),
        }
    }
}

/// The milliseconds between the stamps of `text` and now, of those that stand behind the first `known`.
pub(crate) fn delays(text: &str, known: usize) -> Vec<f64> {
    let now = SystemClock.now_ms();
    let stamps = text.as_bytes().chunks_exact(STAMP_BYTES).skip(known);
    let sent = stamps.filter_map(|stamp| std::str::from_utf8(stamp).ok()?.trim().parse().ok());
    #[expect(clippy::cast_precision_loss, reason = "delays are small")]
    sent.map(|sent: i64| (now - sent) as f64).collect()
}

/// The provider as a child process, until it is dropped.
pub(crate) struct Provider {
    child: Child,
    /// For a configuration.
    pub(crate) url: String,
}

impl Provider {
    /// Starts it.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut url = String::new();
        let stdout = child.stdout.take().context("the provider has no standard output")?;
        StdReader::new(stdout).read_line(&mut url)?;
        Ok(Self { child, url: url.trim_end().to_owned() })
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // Fails when it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Answers until standard input ends, which is when nobody measures any more.
pub(crate) fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (over, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // An error is an end too.
        drop(io::stdin().read_to_end(&mut Vec::new()));
        over.send(()).unwrap_or_default();
    });
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        writeln!(io::stdout(), "http://{}/v1", listener.local_addr()?)?;
        let accepting = async {
            loop {
                let (socket, _) = listener.accept().await?;
                // A client that leaves is its own matter.
                tokio::spawn(async move { converse(socket).await.ok() });
            }
        };
        tokio::select! {
            stopped = accepting => stopped,
            _ = ended => Ok(()),
        }
    })
}

async fn converse(socket: TcpStream) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut socket = BufReader::new(socket);
    while let Some(body) = read_request(&mut socket).await? {
        answer(&mut socket, Plan::of(&body)?).await?;
    }
    Ok(())
}

/// The body of the next request on a connection, if there is one.
async fn read_request(socket: &mut BufReader<TcpStream>) -> anyhow::Result<Option<Vec<u8>>> {
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if socket.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse()?;
            }
            None if line.trim_end().is_empty() => break,
            Some(_) | None => {}
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    Ok(Some(body))
}

async fn answer(socket: &mut BufReader<TcpStream>, plan: Plan) -> anyhow::Result<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                transfer-encoding: chunked\r\n\r\n";
    socket.write_all(head.as_bytes()).await?;
    let began = Instant::now();
    match plan {
        Plan::Chunks(delay_ms) => {
            for number in 1..=CHUNKS {
                if delay_ms > 0 {
                    let after = delay_ms * u64::try_from(number)?;
                    sleep_until(began + Duration::from_millis(after)).await;
                }
                let stamp = format!("{} ", SystemClock.now_ms());
                write(socket, &event(&json!({ "content": stamp }), None)).await?;
            }
            write(socket, &event(&json!({}), Some("stop"))).await?;
        }
        Plan::Tool => {
            let function = json!({ "name": "list", "arguments": "{}" });
            let call =
                json!({ "index": 0, "id": "call", "type": "function", "function": function });
            write(socket, &event(&json!({ "tool_calls": [call] }), None)).await?;
            write(socket, &event(&json!({}), Some("tool_calls"))).await?;
        }
        Plan::Closing => {
            write(socket, &event(&json!({ "content": CLOSING }), None)).await?;
            write(socket, &event(&json!({}), Some("stop"))).await?;
        }
    }
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 2 });
    write(socket, &format!("data: {}\n\n", json!({ "choices": [], "usage": usage }))).await?;
    write(socket, "data: [DONE]\n\n").await?;
    socket.write_all(b"0\r\n\r\n").await?;
    Ok(socket.flush().await?)
}

fn event(delta: &Value, finish: Option<&str>) -> String {
    let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
    format!("data: {}\n\n", json!({ "id": "chat", "model": "m", "choices": [choice] }))
}

/// Writes a chunk of the body, in one packet.
async fn write(socket: &mut BufReader<TcpStream>, text: &str) -> io::Result<()> {
    socket.write_all(format!("{:x}\r\n{text}\r\n", text.len()).as_bytes()).await?;
    socket.flush().await
}
