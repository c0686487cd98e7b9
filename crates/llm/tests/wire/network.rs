//! The way to a provider: names that do not exist, proxies and authorities.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use iris_llm::{ApiKey, ErrorClass, Limits, ProviderConfig, ProviderKind};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::answer::said;
use crate::fake_provider::{FakeProvider, Reply};
use crate::{adapter, chunk, collect, configured, done, request};

fn hello() -> String {
    chunk(r#"{"content":"hello"}"#, "stop") + &done()
}

fn chat(base_url: &str) -> ProviderConfig {
    ProviderConfig {
        base_url: Some(base_url.to_owned()),
        api_key: Some(ApiKey::new("sk-secret")),
        ..ProviderConfig::new(ProviderKind::OpenAiCompatible)
    }
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_a_transient_failure() {
    let model = adapter(ProviderKind::Anthropic, "http://provider.invalid", Limits::default());
    let answer = collect(&model, request()).await;
    let error = answer[0].as_ref().unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert_eq!(error.message, "the provider could not be reached");
}

#[tokio::test]
async fn requests_go_through_the_proxy_with_its_credentials() {
    // For plain HTTP a proxy is a server that is told the whole address.
    let proxy = FakeProvider::start(vec![Reply::stream([hello()])]).await;
    let address = proxy.base_url().replace("/v1", "").replace("http://", "http://ann:canary@");
    let config = ProviderConfig {
        proxy: Some(address.parse().unwrap()),
        ..chat("http://provider.invalid/v1")
    };
    assert_eq!(said(&collect(&configured(config), request()).await).text, "hello");
    let asked = &proxy.asked()[0];
    let line = "POST http://provider.invalid/v1/chat/completions HTTP/1.1\r\n";
    assert!(asked.head.starts_with(line), "{}", asked.head);
    let head = asked.head.to_lowercase();
    assert!(head.contains("proxy-authorization: basic yw5uomnhbmfyeq=="), "{head}");
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_its_password_is_not() {
    let page = "who are you? ann:canary";
    let proxy = FakeProvider::start(vec![Reply::status(407, [page])]).await;
    let address = proxy.base_url().replace("/v1", "").replace("http://", "http://ann:canary@");
    let plain = ProviderConfig {
        proxy: Some(address.parse().unwrap()),
        ..chat("http://provider.invalid/v1")
    };
    let answer = collect(&configured(plain), request()).await;
    let error = answer[0].as_ref().unwrap_err();
    assert_eq!((error.class, error.status), (ErrorClass::Auth, Some(407)));
    assert!(error.message.ends_with("the proxy refuses our credentials"), "{error}");

    // A tunnel that is not opened.
    let proxy = FakeProvider::start(vec![Reply::status(407, [page])]).await;
    let address = proxy.base_url().replace("/v1", "").replace("http://", "http://ann:canary@");
    let tunnel = ProviderConfig {
        proxy: Some(address.parse().unwrap()),
        ..chat("https://provider.invalid/v1")
    };
    let answer = collect(&configured(tunnel), request()).await;
    let error = answer[0].as_ref().unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(!error.message.contains("canary"), "{error}");
    assert!(proxy.asked()[0].head.starts_with("CONNECT provider.invalid:443 "));
    assert!(!proxy.asked()[0].head.contains("sk-secret"), "the key is for the provider alone");
}

/// A provider with a certificate of its own for `localhost`: its address and the certificate.
fn secure_provider() -> (String, String) {
    iris_llm::install_tls_provider();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // Fails for a client that does not trust it, which goes away.
            drop(answer(StreamOwned::new(connection, socket.unwrap())));
        }
    });
    (format!("https://localhost:{port}/v1"), cert.pem())
}

fn answer(mut stream: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    // The end of the body that is sent here.
    while !request.ends_with(br#""stream_options":{"include_usage":true}}"#) {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        request.extend(bytes.iter().take(count));
    }
    let body = hello();
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

#[tokio::test]
async fn a_provider_with_a_private_authority_is_trusted_only_with_its_certificate() {
    let (base_url, pem) = secure_provider();
    let answer = collect(&configured(chat(&base_url)), request()).await;
    assert_eq!(answer[0].as_ref().unwrap_err().class, ErrorClass::Transient);

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let trusting = ProviderConfig { ca_file: Some(file.path().to_owned()), ..chat(&base_url) };
    assert_eq!(said(&collect(&configured(trusting), request()).await).text, "hello");
}
