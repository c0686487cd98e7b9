//! A program in the sandbox: one message a line, in on its standard input and out on its standard output
//! (Model Context Protocol 2025-11-25, "Transports", section "stdio").

use std::io;
use std::sync::Arc;
use std::time::Duration;

use iris_sandbox::{Running, Status, Talk};
use rmcp::RoleClient;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::MESSAGE_BYTES_MAX;
use crate::line::{Line, Lines};
use crate::traffic::Traffic;

/// How long a program has to end by itself once its input has ended; then it is killed.
const GOODBYE: Duration = Duration::from_secs(2);
/// How long the end of a program is waited for to say how it ended.
const LAST_WORD: Duration = Duration::from_millis(500);
/// Bytes of standard error that are read at once.
const READ_BYTES: usize = 4 * 1024;

type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// What a message is sent with; it is gone once the connection is closed.
type Writer = Arc<Mutex<Option<Input>>>;

pub(crate) struct Stdio {
    writer: Writer,
    lines: Lines<Box<dyn AsyncRead + Send + Unpin>>,
    /// There until the program has ended.
    running: Option<Running>,
    errors: JoinHandle<()>,
    traffic: Arc<Traffic>,
}

impl Stdio {
    pub(crate) fn new(talk: Talk, traffic: Arc<Traffic>) -> Self {
        let errors = tokio::spawn(listen(talk.stderr, Arc::clone(&traffic)));
        Self {
            writer: Arc::new(Mutex::new(Some(talk.stdin))),
            lines: Lines::new(talk.stdout, MESSAGE_BYTES_MAX),
            running: Some(talk.running),
            errors,
            traffic,
        }
    }

    /// How the program ended, whose output has.
    async fn last_word(&mut self) -> String {
        let Some(running) = &mut self.running else { return "the program ended".to_owned() };
        let Ok(ended) = timeout(LAST_WORD, running.ended()).await else {
            return "the program closed its output".to_owned();
        };
        self.running = None;
        // What it said of itself before it ended is heard to the end.
        drop(timeout(LAST_WORD, &mut self.errors).await);
        match ended {
            Ok(Status::Exited(code)) => format!("the program ended with code {code}"),
            Ok(Status::Signalled(signal)) => format!("the program was ended by signal {signal}"),
            Ok(Status::TimedOut | Status::Cancelled | Status::OutOfSpace(_)) => {
                "the program was ended".to_owned()
            }
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        self.errors.abort();
    }
}

impl Transport<RoleClient> for Stdio {
    type Error = io::Error;

    fn send(
        &mut self,
        message: ClientJsonRpcMessage,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.traffic.sent(&message);
        let (writer, traffic) = (Arc::clone(&self.writer), Arc::clone(&self.traffic));
        async move {
            let mut line = serde_json::to_vec(&message)?;
            line.push(b'\n');
            let mut writer = writer.lock().await;
            let Some(input) = writer.as_mut() else { return Err(io::ErrorKind::BrokenPipe.into()) };
            // A program that reads nothing holds this up: whoever waits for an answer gives up in time.
            tokio::select! {
                written = async {
                    input.write_all(&line).await?;
                    input.flush().await
                } => written,
                () = traffic.ended.cancelled() => Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
    }

    async fn receive(&mut self) -> Option<ServerJsonRpcMessage> {
        loop {
            let line = tokio::select! {
                line = self.lines.next() => line,
                () = self.traffic.ended.cancelled() => return None,
            };
            match line {
                Line::Whole(line) => {
                    if let Some(message) = self.traffic.came(&line) {
                        return Some(message);
                    }
                }
                Line::TooLong => self.traffic.too_long(),
                Line::End => {
                    let reason = self.last_word().await;
                    self.traffic.end(&reason);
                    return None;
                }
            }
        }
    }

    /// The end of its input asks a program to end; what is left of it afterwards is killed with `running`.
    async fn close(&mut self) -> io::Result<()> {
        self.traffic.end("it was closed");
        *self.writer.lock().await = None;
        if let Some(mut running) = self.running.take() {
            drop(timeout(GOODBYE, running.ended()).await);
        }
        Ok(())
    }
}

/// Reads what a program says of itself, so that it is never held up.
async fn listen(mut errors: Box<dyn AsyncRead + Send + Unpin>, traffic: Arc<Traffic>) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = errors.read(&mut buffer).await.unwrap_or_default();
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else { return };
        traffic.errors(piece);
    }
}
