//! Starting the server again, with a watch in hand.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{PATIENCE, ServerProcess, patiently};

use super::TortureOptions;

/// The log of the server, in the data directory.
pub(super) const LOG: &str = "server.log";

/// A server that has just started.
pub(super) struct Started {
    pub(super) server: ServerProcess,
    /// From the start of the process.
    pub(super) ready: Duration,
    /// From the start of the process, to the answer of the request that was asked first.
    pub(super) answered: Duration,
}

/// Starts a server and waits until it is ready and has answered `path` for `token`.
pub(super) async fn start(
    options: &TortureOptions,
    data_dir: &Path,
    first: Option<(String, String)>,
) -> Started {
    let began = Instant::now();
    let server =
        ServerProcess::start_logging(command(options, data_dir), &data_dir.join(LOG)).await;
    let url = server.url.clone();
    let waiting = tokio::task::spawn_blocking(move || {
        while !get(&url, "/health/ready", "").is_some_and(|answer| is_success(&answer)) {
            assert!(began.elapsed() < PATIENCE, "the server is not ready");
        }
        let ready = began.elapsed();
        if let Some((path, token)) = first {
            let answer = get(&url, &path, &token).unwrap_or_default();
            assert!(is_success(&answer), "`{path}` was not answered: {answer}");
        }
        (ready, began.elapsed())
    });
    let (ready, answered) = patiently("the first answer", waiting).await.unwrap();
    Started { server, ready, answered }
}

fn command(options: &TortureOptions, data_dir: &Path) -> Command {
    let executable = options.iris.to_str().unwrap();
    let mut command = ServerProcess::command(executable, data_dir);
    // How many messages somebody sends before a kill is not what this is about.
    command.env("IRIS_RUNS_PER_MINUTE", "0").env("IRIS_UPLOADS_PER_MINUTE", "0");
    command.envs(options.environment.iter().map(|(name, value)| (name, value)));
    command
}

fn is_success(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200 ")
}

/// The answer as it comes: a client that makes itself ready would be in the time.
fn get(url: &str, path: &str, token: &str) -> Option<String> {
    let address = url.strip_prefix("http://")?;
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         connection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
