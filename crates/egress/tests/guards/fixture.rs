//! Servers that count who comes, and names that lead where a test wants.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use iris_egress::{Config, Egress, EgressError, Exception, Lookup, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server that does what a test says with each connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers each request with what `answer` makes of its text, then closes.
    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    {
        Self::start_at("127.0.0.1:0", answer).await
    }

    pub(crate) async fn start_at<F>(address: &str, answer: F) -> Self
    where
        F: Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        Self::serve(address, move |mut stream, request| {
            let answer = Arc::clone(&answer);
            async move {
                // The client may have left already.
                stream.write_all(&answer(&request)).await.ok();
            }
        })
        .await
    }

    /// Hands each connection to `play` once its request has come.
    pub(crate) async fn serve<F, W>(address: &str, play: F) -> Self
    where
        F: Fn(TcpStream, String) -> W + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("an address");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (count, seen, play) = (Arc::clone(&accepted), Arc::clone(&requests), Arc::new(play));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                count.fetch_add(1, Ordering::SeqCst);
                let (seen, play) = (Arc::clone(&seen), Arc::clone(&play));
                tokio::spawn(async move {
                    let request = read_request(&mut stream).await;
                    seen.lock().expect("no panic").push(request.clone());
                    play(stream, request).await;
                });
            }
        });
        Self { address, accepted, requests }
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Requests so far, in lower case, with their bodies.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("no panic").iter().map(|text| text.to_lowercase()).collect()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// The head, and as much of the body as was announced.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length: ").map(|value| value.parse().expect("a number"))
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return text,
            Ok(_) => {}
        }
    }
}

/// A whole answer.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

pub(crate) fn ok(body: &str) -> Vec<u8> {
    answer("200 OK", "content-type: text/plain\r\n", body.as_bytes())
}

pub(crate) fn found(location: &str) -> Vec<u8> {
    answer("302 Found", &format!("location: {location}\r\n"), b"")
}

/// A configuration with these exceptions.
pub(crate) fn allowing(exceptions: &[&str]) -> Config {
    let read = |text: &&str| text.parse::<Exception>().expect("an exception");
    Config { allow: exceptions.iter().map(read).collect(), ..Config::default() }
}

/// A client that may reach these servers, and no other.
pub(crate) fn egress_to(servers: &[&Server]) -> Egress {
    Egress::new(config_to(servers)).expect("a client")
}

pub(crate) fn config_to(servers: &[&Server]) -> Config {
    let places: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
    allowing(&places.iter().map(String::as_str).collect::<Vec<_>>())
}

pub(crate) async fn get(egress: &Egress, url: &str) -> Result<Response, EgressError> {
    egress.fetch(Request::get(url)).await
}

pub(crate) async fn code(egress: &Egress, url: &str) -> &'static str {
    match get(egress, url).await {
        Ok(response) => panic!("`{url}` answered with {}", response.status),
        Err(error) => error.code(),
    }
}

/// Names with answers that are given one after the other; the last one stays.
#[derive(Default)]
pub(crate) struct Names {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    asked: AtomicUsize,
}

impl Names {
    pub(crate) fn new(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let parse = |text: &&str| text.parse().expect("an address");
        let answers = names.iter().map(|(name, answers)| {
            let answers = answers.iter().map(|answer| answer.iter().map(parse).collect());
            ((*name).to_owned(), answers.collect())
        });
        let answers = Mutex::new(answers.collect());
        Arc::new(Self { answers, asked: AtomicUsize::new(0) })
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Lookup for Names {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut names = self.answers.lock().expect("no panic");
        let answer = match names.get_mut(&host) {
            Some(answers) if answers.len() > 1 => Ok(answers.pop_front().expect("an answer")),
            Some(answers) => Ok(answers.front().cloned().unwrap_or_default()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
        };
        Box::pin(async move { answer })
    }
}

/// Runs one test of this program again, with these variables in its environment.
pub(crate) async fn again(test: &'static str, variables: Vec<(&'static str, String)>) {
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(["--exact", test]).envs(variables);
    let output = tokio::task::spawn_blocking(move || again.output()).await.expect("a thread");
    let output = output.expect("a second run");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
}
