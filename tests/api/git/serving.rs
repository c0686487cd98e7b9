//! A server of repositories: the one that comes with git, behind as little HTTP as it takes, and in front of it
//! whatever a bad one does.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::Notify;

/// What a server does with a request.
#[derive(Debug, Clone)]
pub(super) enum Manner {
    /// What it should.
    Well,
    /// What it should, for who has this name and token.
    WithToken(&'static str),
    /// It serves files and knows nothing of git.
    Files,
    /// It takes the request and says nothing.
    Silent,
    /// It begins an answer and does not go on.
    Begins,
    /// It sends the client on to this place.
    Redirects(String),
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    top: PathBuf,
    manner: Arc<Mutex<Manner>>,
    count: Arc<AtomicUsize>,
    asked: Arc<Notify>,
}

impl Server {
    pub(super) async fn start(top: &Path, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            top: top.canonicalize().unwrap(),
            manner: Arc::new(Mutex::new(manner)),
            count: Arc::default(),
            asked: Arc::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serving.clone().answer(stream));
            }
        });
        server
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/origin.git", self.address)
    }

    pub(super) fn behave(&self, manner: Manner) {
        *self.manner.lock() = manner;
    }

    /// How many requests came.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Waits for a request.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    async fn answer(self, mut stream: TcpStream) {
        let Some(request) = Request::read(&mut stream).await else { return };
        self.count.fetch_add(1, Ordering::AcqRel);
        self.asked.notify_one();
        let manner = self.manner.lock().clone();
        let answer = match manner {
            Manner::Well => request.by_git(&self.top).await,
            Manner::WithToken(token) => {
                let basic = base64::Engine::encode(
                    &base64::engine::general_purpose::STANDARD,
                    format!("ann:{token}"),
                );
                if request.header("authorization") == Some(&format!("Basic {basic}")) {
                    request.by_git(&self.top).await
                } else {
                    b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\
                      Connection: close\r\n\r\n"
                        .to_vec()
                }
            }
            Manner::Files => request.as_file(&self.top),
            Manner::Silent => return std::future::pending().await,
            Manner::Begins => {
                let begin = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\
                             Content-Type: application/x-git-upload-pack-advertisement\r\n\r\n001e# service";
                stream.write_all(begin.as_bytes()).await.unwrap();
                return std::future::pending().await;
            }
            Manner::Redirects(to) => format!(
                "HTTP/1.1 302 Found\r\nLocation: {to}{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                request.target
            )
            .into_bytes(),
        };
        drop(stream.write_all(&answer).await);
        drop(stream.shutdown().await);
    }
}

struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.lines();
        let mut first = lines.next()?.split(' ').map(str::to_owned);
        let (method, target) = (first.next()?, first.next()?);
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut request = Self { method, target, headers, body: bytes[end..].to_vec() };
        let length = request.header("content-length").map_or(0, |it| it.parse().unwrap());
        assert_eq!(request.header("transfer-encoding"), None, "what tests send is small");
        while request.body.len() < length {
            stream.read_buf(&mut request.body).await.ok()?;
        }
        Some(request)
    }

    fn header(&self, name: &str) -> Option<&String> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    async fn by_git(&self, top: &Path) -> Vec<u8> {
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let mut command = Command::new("git");
        command
            .arg("http-backend")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", top.join("gitconfig"))
            .env("GIT_PROJECT_ROOT", top)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REMOTE_USER", "ann")
            .env("REMOTE_ADDR", "127.0.0.1")
            .env("REQUEST_METHOD", &self.method)
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("CONTENT_LENGTH", self.body.len().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for (header, name) in [
            ("content-type", "CONTENT_TYPE"),
            ("content-encoding", "HTTP_CONTENT_ENCODING"),
            ("git-protocol", "GIT_PROTOCOL"),
        ] {
            command.envs(self.header(header).map(|value| (name, value)));
        }
        let mut running = command.spawn().unwrap();
        let mut input = running.stdin.take().unwrap();
        drop(input.write_all(&self.body).await);
        drop(input);
        let output = running.wait_with_output().await.unwrap().stdout;
        let end = output.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(output[..end].to_vec()).unwrap();
        let status =
            head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
        let begin = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{head}\r\n\r\n");
        [begin.as_bytes(), &output[end + 4..]].concat()
    }

    fn as_file(&self, top: &Path) -> Vec<u8> {
        let path = self.target.split('?').next().unwrap().trim_start_matches('/');
        match std::fs::read(top.join(path)) {
            Ok(bytes) => {
                let length = bytes.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                [head.as_bytes(), &bytes].concat()
            }
            Err(_) => b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
        }
    }
}
