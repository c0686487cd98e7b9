//! TLS: a certificate that the system trusts, one for another name, and S3's way down to plain HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use iris_egress::Egress;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::fixture::{Names, Server, again, allowing, code, found, get, ok};

/// Where the system's certificates are, for this process (OpenSSL's variable, which rustls knows).
const TRUSTED: &str = "SSL_CERT_FILE";
/// Set in the second run.
const SECOND: &str = "IRIS_EGRESS_TEST_TLS";

/// A server with a certificate for `secure.example`, which is the only one that the system trusts.
fn secure_server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> u16 {
    drop(rustls::crypto::ring::default_provider().install_default());
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["secure.example".to_owned()]).expect("a certificate");
    fs::write(std::env::var(TRUSTED).expect("a path"), cert.pem()).expect("a file");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![cert.der().clone()], key).expect("a configuration");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            let mut stream = StreamOwned::new(connection, stream.expect("a client"));
            let mut request = Vec::new();
            let mut bytes = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut bytes) {
                    // A client that does not trust the server.
                    Ok(0) | Err(_) => break,
                    Ok(count) => request.extend(bytes.iter().take(count)),
                }
            }
            if !request.is_empty() {
                let answer = answer(&String::from_utf8_lossy(&request));
                stream.write_all(&answer).expect("a client");
                stream.conn.send_close_notify();
                stream.flush().expect("a client");
            }
        }
    });
    port
}

#[tokio::test]
async fn s3_https_is_verified_and_never_left_for_http() {
    if std::env::var_os(SECOND).is_none() {
        let temp = tempfile::tempdir().expect("a directory");
        let trusted = temp.path().join("trusted.pem").display().to_string();
        let variables = vec![(TRUSTED, trusted), (SECOND, String::new())];
        return again("tls::s3_https_is_verified_and_never_left_for_http", variables).await;
    }
    let plain = Server::start(|_| ok("plain")).await;
    let down = format!("http://secure.example:{}/", plain.port());
    let port =
        secure_server(
            move |request| {
                if request.starts_with("GET /down ") { found(&down) } else { ok("secure") }
            },
        );
    let here: &[&[&str]] = &[&["127.0.0.1"]];
    let names = Names::new(&[("secure.example", here), ("other.example", here)]);
    let egress = Egress::with_lookup(allowing(&["127.0.0.1"]), names).expect("a client");

    let response = get(&egress, &format!("https://secure.example:{port}/")).await;
    assert_eq!(response.expect("an answer").body, "secure");
    assert_eq!(code(&egress, &format!("https://other.example:{port}/")).await, "tls");
    assert_eq!(
        code(&egress, &format!("https://secure.example:{port}/down")).await,
        "insecure_redirect"
    );
    assert_eq!(plain.accepted(), 0);
}
