//! Providers that fail, and what is left of their answer.

use std::time::Duration;

use futures_util::StreamExt;
use iris_llm::{ErrorClass, Limits, ModelError, ModelEvent, ProviderKind};

use crate::fake_provider::{End, FakeProvider, Reply};
use crate::{PATIENCE, adapter, ask, ask_error, chunk, decode, done, event, model, request};

/// Short enough for a test that waits until it has passed.
const SHORT: Duration = Duration::from_millis(50);

fn hello() -> String {
    chunk(r#"{"content":"hello"}"#, "")
}

#[tokio::test]
async fn refused_requests_are_classified_and_not_repeated() {
    for (status, body, class, message) in [
        (
            429,
            r#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#,
            ErrorClass::RateLimited,
            "the provider answered with status 429: `slow down`",
        ),
        (
            429,
            r#"{"error":{"message":"You have no money","code":"insufficient_quota"}}"#,
            ErrorClass::Quota,
            "the provider answered with status 429: `You have no money`",
        ),
        (
            401,
            r#"{"error":{"message":"bad key sk-sec*****","code":"invalid_api_key"}}"#,
            ErrorClass::Auth,
            "the provider answered with status 401: it refuses our api key",
        ),
        (500, "", ErrorClass::Transient, "the provider answered with status 500"),
        (
            400,
            "key sk-secret is fine",
            ErrorClass::Invalid,
            "the provider answered with status 400: `key [redacted] is fine`",
        ),
    ] {
        let reply = Reply::status(status, [body])
            .header("x-request-id", "req-7")
            .header("retry-after", "2");
        let provider = FakeProvider::start(vec![reply]).await;
        let error = ask_error(&provider, Limits::default()).await;
        let expected = ModelError {
            class,
            message: message.to_owned(),
            status: Some(status),
            retry_after_ms: Some(2_000),
            should_retry: None,
            request_id: Some("req-7".to_owned()),
            is_not_asked: false,
        };
        assert_eq!(error, expected);
        assert_eq!(provider.asked().len(), 1);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for status in [301, 302, 307, 308] {
        let target = FakeProvider::start(vec![]).await;
        let reply = Reply::status(status, [""]).header("location", &target.base_url());
        let provider = FakeProvider::start(vec![reply]).await;
        let error = ask_error(&provider, Limits::default()).await;
        assert_eq!((error.class, error.status), (ErrorClass::Protocol, Some(status)));
        assert!(target.asked().is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_refused() {
    let page = "<html>\n<h1>Welcome</h1> sk-secret";
    let reply = Reply::status(200, [page]).header("content-type", "text/html");
    let provider = FakeProvider::start(vec![reply]).await;
    let error = ask_error(&provider, Limits::default()).await;
    let expected = "the provider answered with `text/html` instead of an event stream: \
                    `<html> <h1>Welcome</h1> [redacted]`";
    assert_eq!(error, ModelError::new(ErrorClass::Protocol, expected));

    let body = r#"{"error":{"message":"busy","type":"overloaded"}}"#;
    let reply = Reply::status(200, [body]).header("content-type", "application/json");
    let provider = FakeProvider::start(vec![reply]).await;
    assert_eq!(ask_error(&provider, Limits::default()).await.class, ErrorClass::Overloaded);
}

#[tokio::test]
async fn no_error_shows_the_key() {
    // The second one has the key where the quoted text is cut off.
    for (said, quoted) in [
        ("sk-secret is busy".to_owned(), "[redacted] is busy".to_owned()),
        (format!("{}sk-secret", "x".repeat(194)), format!("{}[redac", "x".repeat(194))),
    ] {
        let error = format!(r#"{{"error":{{"message":"{said}","type":"server_error"}}}}"#);
        let message = format!("the provider broke off its answer: `{quoted}`");
        let expected = ModelError::new(ErrorClass::Overloaded, message);
        for reply in [
            Reply::stream([hello(), event(&error)]),
            Reply::status(200, [error]).header("content-type", "application/json"),
        ] {
            let provider = FakeProvider::start(vec![reply]).await;
            assert_eq!(ask_error(&provider, Limits::default()).await, expected);
        }
    }
    let reply = Reply::status(500, [""]).header("x-request-id", "for sk-secret");
    let provider = FakeProvider::start(vec![reply]).await;
    let error = ask_error(&provider, Limits::default()).await;
    assert_eq!(error.request_id.as_deref(), Some("for [redacted]"));
}

#[tokio::test]
async fn an_error_inside_the_stream_ends_it() {
    for body in [
        event(r#"{"error":{"message":"busy","type":"server_error"}}"#),
        "event: error\ndata: {\"message\":\"busy\",\"type\":\"server_error\"}\n\n".to_owned(),
        event(r#"{"object":"error","message":"busy","type":"server_error"}"#),
    ] {
        let answer = decode(&(hello() + &body + &chunk("{}", "stop") + &done())).await;
        let message = "the provider broke off its answer: `busy`";
        assert_eq!(answer.last(), Some(&Err(ModelError::new(ErrorClass::Overloaded, message))));
    }
    let answer = decode(&(hello() + &chunk("{}", "error") + &done())).await;
    assert_eq!(answer.last().unwrap().as_ref().unwrap_err().class, ErrorClass::BadAnswer);
}

#[tokio::test]
async fn a_stream_that_just_ends_is_never_a_stop() {
    let half = &hello()[..20];
    for body in [String::new(), hello(), hello() + half, hello() + &done()] {
        let answer = decode(&body).await;
        assert_eq!(answer.last(), Some(&Err(ModelError::truncated())), "{body:?}");
    }
    let provider = FakeProvider::start(vec![Reply::stream([hello()]).end(End::Cut)]).await;
    let answer = ask(&provider, Limits::default()).await;
    assert_eq!(answer.last().unwrap().as_ref().unwrap_err().class, ErrorClass::Transient);
    assert_eq!(answer.len(), 4, "start, text start, text, error");
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test]
async fn a_connection_cut_after_the_finish_reason_does_no_harm() {
    let body = [hello(), chunk("{}", "stop")];
    let provider = FakeProvider::start(vec![Reply::stream(body).end(End::Cut)]).await;
    let answer = ask(&provider, Limits::default()).await;
    assert!(matches!(answer.last(), Some(Ok(ModelEvent::Finish { .. }))));
}

#[tokio::test]
async fn bytes_that_are_no_event_stream_are_refused() {
    let answer = decode(&event("{broken")).await;
    let message = "the provider sent an event that is not json";
    assert_eq!(answer, [Err(ModelError::new(ErrorClass::Protocol, message))]);

    let reply = Reply::stream([b"data: \xff\xfe\n\n".to_vec()]);
    let provider = FakeProvider::start(vec![reply]).await;
    assert_eq!(ask_error(&provider, Limits::default()).await.class, ErrorClass::Protocol);
}

#[tokio::test]
async fn an_event_and_a_stream_over_their_limits_are_refused() {
    let limits = Limits { event_bytes_max: 300, stream_bytes_max: 2_000, ..Limits::default() };
    let long = chunk(&format!(r#"{{"content":"{}"}}"#, "x".repeat(300)), "");
    let provider = FakeProvider::start(vec![Reply::stream([long])]).await;
    let message = "one event of the answer is over `300` bytes";
    let expected = ModelError::new(ErrorClass::Protocol, message);
    assert_eq!(ask_error(&provider, limits).await, expected);

    let endless = std::iter::repeat_n(hello(), 100);
    let provider = FakeProvider::start(vec![Reply::stream(endless)]).await;
    let message = "the answer is over `2000` bytes";
    let expected = ModelError::new(ErrorClass::Protocol, message);
    assert_eq!(ask_error(&provider, limits).await, expected);

    let default = "x".repeat(iris_llm::EVENT_BYTES_MAX);
    let answer = decode(&chunk(&format!(r#"{{"content":"{default}"}}"#), "stop")).await;
    assert_eq!(answer.last().unwrap().as_ref().unwrap_err().class, ErrorClass::Protocol);
}

#[tokio::test]
async fn a_silent_provider_is_left() {
    let idle = Limits { idle: SHORT, ..Limits::default() };
    let reply = Reply::stream([hello()]).end(End::Silence);
    let mut provider = FakeProvider::start(vec![reply]).await;
    let expected = ModelError::new(ErrorClass::Transient, "the provider sent nothing for `50` ms");
    assert_eq!(ask_error(&provider, idle).await, expected);
    tokio::time::timeout(PATIENCE, provider.client_left()).await.unwrap();

    let first = Limits { first_byte: SHORT, ..Limits::default() };
    let silent = Reply::stream(Vec::<String>::new()).end(End::Silence);
    let mut provider = FakeProvider::start(vec![silent]).await;
    assert_eq!(ask_error(&provider, first).await, expected);
    tokio::time::timeout(PATIENCE, provider.client_left()).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_not_there_is_a_transient_failure() {
    // A port that was free a moment ago: nothing listens there.
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let base_url = format!("http://{address}/v1");
    let adapter = adapter(ProviderKind::OpenAiCompatible, &base_url, Limits::default());
    let answer: Vec<_> = adapter.stream(request()).collect().await;
    let message = "the provider could not be reached";
    assert_eq!(answer, [Err(ModelError::new(ErrorClass::Transient, message))]);
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let reply = Reply::stream([hello()]).end(End::Silence);
    let mut provider = FakeProvider::start(vec![reply]).await;
    let mut stream = model(&provider, Limits::default()).stream(request());
    let first = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
    assert!(matches!(first, Some(Ok(ModelEvent::Start { .. }))));
    drop(stream);
    tokio::time::timeout(PATIENCE, provider.client_left()).await.unwrap();
}
