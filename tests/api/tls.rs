//! TLS of the listener: over real sockets, with certificates that are renewed, run out, or are none.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use iris_testkit::{SETUP_TOKEN, ServerProcess, patiently};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::iris;

/// A certificate of this machine that vouches for itself, and its key, in PEM.
struct Made {
    certificate: String,
    key: String,
}

fn made_until(year: i32) -> Made {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    Made { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
}

fn made() -> Made {
    made_until(2200)
}

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts files into the place of those before, as who renews certificates does.
    fn put(&self, made: &Made) {
        for (name, text) in [("key.pem", &made.key), ("certificate.pem", &made.certificate)] {
            let new = self.file(&format!("{name}.new"));
            std::fs::write(&new, text).unwrap();
            std::fs::rename(&new, self.file(name)).unwrap();
        }
    }

    fn command(&self) -> Command {
        let mut command = iris(&self.file("data"));
        command
            .env("IRIS_TLS_CERTIFICATE_FILE", self.file("certificate.pem"))
            .env("IRIS_TLS_KEY_FILE", self.file("key.pem"));
        command
    }

    async fn start(&self) -> ServerProcess {
        ServerProcess::start_logging(self.command(), &self.file("log")).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file("log")).unwrap()
    }
}

fn authority(server: &ServerProcess) -> &str {
    server.url.strip_prefix("https://").unwrap()
}

/// A connection of a client that trusts this certificate alone.
async fn connect(server: &ServerProcess, trusted: &Made) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.certificate.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(authority(server)).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    patiently("TLS", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

/// Sends a request and reads until the server ends the connection.
async fn exchange(server: &ServerProcess, trusted: &Made, head: &str, body: &str) -> String {
    let mut stream = connect(server, trusted).await.unwrap();
    let host = authority(server);
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    patiently("an answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn ask(socket: &mut Socket, request: Value) -> Value {
    let id = request["id"].clone();
    socket.send(Message::text(request.to_string())).await.unwrap();
    loop {
        let message = patiently("an answer", socket.next()).await.unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let frame: Value = serde_json::from_str(&text).unwrap();
        if frame["id"] == id {
            return frame;
        }
    }
}

#[tokio::test]
async fn http_and_websockets_are_served_over_tls_and_the_client_is_known_by_its_address() {
    let (place, made) = (Place::new(), made());
    place.put(&made);
    let server = place.start().await;
    let ready = exchange(&server, &made, "GET /health/ready", "").await;
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    let setup = json!({ "token": SETUP_TOKEN, "email": "root@example.com", "username": "root",
        "password": iris_testkit::PASSWORD });
    let answer = exchange(&server, &made, "POST /v1/auth/setup", &setup.to_string()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 201 "), "{answer}");
    let grant: Value = serde_json::from_str(body).unwrap();
    let token = grant["data"]["accessToken"].as_str().unwrap();

    let stream = connect(&server, &made).await.unwrap();
    let url = format!("wss://{}/v1/ws", authority(&server));
    let (mut socket, _) =
        patiently("a WebSocket", Box::pin(client_async(url, stream))).await.unwrap();
    let hello = json!({ "id": "1", "type": "hello", "payload": { "token": token } });
    socket.send(Message::text(hello.to_string())).await.unwrap();
    let name = "x".repeat(100);
    for n in 0..50 {
        let create = json!({ "id": format!("p{n}"), "type": "project.create",
            "payload": { "name": format!("{name}{n}") } });
        assert_eq!(ask(&mut socket, create).await["success"], true);
    }
    // More than one record of TLS.
    let list = json!({ "id": "l", "type": "project.list", "payload": { "limit": 200 } });
    let list = ask(&mut socket, list).await;
    assert_eq!(list["payload"]["projects"].as_array().unwrap().len(), 50);
    socket.close(None).await.unwrap();

    // Plain text gets nowhere, and nobody minds.
    let mut plain = TcpStream::connect(authority(&server)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    drop(patiently("the end of plain text", plain.read_to_end(&mut said)).await);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    let logins = exchange(&server, &made, "GET /v1/auth/sessions", "").await;
    assert!(logins.starts_with("HTTP/1.1 401 "), "{logins}");
    assert!(server.terminate().await.success());
}

/// Asks over a connection that goes on.
async fn lives(server: &ServerProcess, stream: &mut TlsStream<TcpStream>) {
    let host = authority(server);
    let request = format!("GET /health/live HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut answer, mut bytes) = (String::new(), [0; 1024]);
    while !answer.ends_with('}') {
        let count = patiently("an answer", stream.read(&mut bytes)).await.unwrap();
        assert!(count > 0, "{answer}");
        answer.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn hang_up(server: &ServerProcess) {
    let id = server.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
}

/// Tries until a new connection is shown this certificate.
async fn shows(server: &ServerProcess, made: &Made) {
    let shown = async { while connect(server, made).await.is_err() {} };
    patiently("another certificate", shown).await;
}

#[tokio::test]
async fn a_certificate_that_is_renewed_is_shown_without_a_restart_and_a_bad_one_is_not_taken() {
    let (place, first) = (Place::new(), made());
    place.put(&first);
    let server = place.start().await;
    let mut open = connect(&server, &first).await.unwrap();
    lives(&server, &mut open).await;

    // On a signal.
    let second = made();
    place.put(&second);
    hang_up(&server);
    shows(&server, &second).await;
    assert!(connect(&server, &first).await.is_err());
    // By itself, when the files change.
    let third = made();
    place.put(&third);
    shows(&server, &third).await;

    // What cannot be used is said, and the one before goes on.
    let logged = async |what: &str| {
        let logged = async {
            while !place.log().contains(what) {
                tokio::task::yield_now().await;
            }
        };
        patiently(what, logged).await;
        assert!(connect(&server, &third).await.is_ok(), "{what}");
    };
    place.put(&made_until(2021));
    hang_up(&server);
    logged("and not now").await;
    place.put(&Made { key: made().key, ..made() });
    hang_up(&server);
    logged("is not that of the certificate").await;
    place.put(&Made { certificate: "none".to_owned(), key: "none".to_owned() });
    hang_up(&server);
    logged("holds no certificate in PEM").await;
    std::fs::remove_file(place.file("certificate.pem")).unwrap();
    hang_up(&server);
    logged("cannot be read").await;

    // A connection from before is as it was.
    lives(&server, &mut open).await;
    assert!(server.terminate().await.success());
}

async fn refused(command: Command) -> (Option<i32>, String) {
    ServerProcess::refused(command).await
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_server_does_not_start_with_a_certificate_that_cannot_be_used() {
    let place = Place::new();
    let good = made();
    for (made, said) in [
        (made_until(2021), "is good from"),
        (Made { key: made().key, ..made() }, "is not that of the certificate"),
        (Made { certificate: String::new(), ..made() }, "holds no certificate in PEM"),
        (Made { key: String::new(), ..made() }, "holds no private key in PEM"),
    ] {
        place.put(&made);
        let (code, stderr) = refused(place.command()).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(said), "{stderr}");
    }
    place.put(&good);
    remove(&place.file("key.pem"));
    let (code, stderr) = refused(place.command()).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cannot be read") && stderr.contains("key.pem"), "{stderr}");
    let mut half = place.command();
    half.env_remove("IRIS_TLS_KEY_FILE");
    let (code, stderr) = refused(half).await;
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("tls_key_file"), "{stderr}");
}
