//! L15: no way to the provider, or something else at the end of it.

use iris_llm::{ApiKey, ProviderConfig};
use iris_testkit::{AppOptions, Dialect, FakeProvider, Reply, text_of};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use super::{Talk, talks, talks_on};

/// A server whose providers are not where they are thought to be.
async fn elsewhere(
    change: impl Fn(&mut ProviderConfig),
    replies: impl Fn(Dialect) -> Vec<Reply>,
) -> (iris_testkit::TestApp, Vec<Talk>) {
    let change = |options: &mut AppOptions| {
        for provider in options.providers.values_mut().filter(|it| it.base_url.is_some()) {
            provider.api_key = Some(ApiKey::new("sk-secret"));
            change(provider);
        }
    };
    talks_on(&Dialect::ALL, change, replies).await
}

#[tokio::test]
async fn l15_a_server_that_does_not_speak_tls_where_it_should() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            // Fails when the client has left already.
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        }
    });
    let change = |provider: &mut ProviderConfig| provider.base_url = Some(base_url.clone());
    let (_app, talks) = elsewhere(change, |_| vec![]).await;
    for mut talk in talks {
        let error = talk.failure("transient").await.error.unwrap();
        assert!(error.message.contains("could not be reached"), "{error}");
    }
}

#[tokio::test]
async fn l15_a_name_that_does_not_exist() {
    let (_app, talks) = elsewhere(
        |provider| provider.base_url = Some("http://provider.invalid".to_owned()),
        |_| vec![],
    )
    .await;
    for mut talk in talks {
        let error = talk.failure("transient").await.error.unwrap();
        assert!(error.message.contains("could not be reached"), "{error}");
        assert!(talk.provider.asked().is_empty());
    }
}

#[tokio::test]
async fn l15_a_proxy_that_refuses() {
    let page = "who are you? ann:canary";
    let refusals = Dialect::ALL.map(|_| Reply::status(407, page));
    let proxy = FakeProvider::start(refusals).await;
    let address = proxy.base_url().replace("/v1", "").replace("http://", "http://ann:canary@");
    let (_app, talks) = elsewhere(
        |provider| {
            provider.base_url = Some("http://provider.invalid".to_owned());
            provider.proxy = Some(address.parse().unwrap());
        },
        |_| vec![],
    )
    .await;
    for mut talk in talks {
        let answer = talk.failure("auth").await;
        let told = serde_json::to_string(&(&answer, &talk.ann.seen)).unwrap();
        assert!(told.contains("the proxy refuses our credentials"), "{told}");
        assert!(!told.contains("canary"), "{told}");
    }
    assert_eq!(proxy.asked().len(), Dialect::ALL.len());
}

#[tokio::test]
async fn l15_a_proxy_through_which_the_provider_is_reached() {
    for dialect in Dialect::ALL {
        let proxy = FakeProvider::start([dialect.says("through the proxy")]).await;
        let address = proxy.base_url().replace("/v1", "");
        let change = |options: &mut AppOptions| {
            let provider = options.providers.get_mut(dialect.kind().as_str()).unwrap();
            provider.base_url = Some("http://provider.invalid".to_owned());
            provider.proxy = Some(address.parse().unwrap());
        };
        let (_app, mut talks) = talks_on(&[dialect], change, |_| vec![]).await;
        assert_eq!(text_of(&talks[0].answer().await), "through the proxy");
        let line = format!("POST http://provider.invalid{} HTTP/1.1\r\n", dialect.path());
        assert!(proxy.asked()[0].head.starts_with(&line), "{}", proxy.asked()[0].head);
    }
}

#[tokio::test]
async fn l15_a_page_with_status_200_is_quoted_in_short_and_without_the_key() {
    let page = format!("<html>sk-secret {}</html>", "x".repeat(1_000));
    let (_app, talks) =
        elsewhere(|_| {}, |_| vec![Reply::status(200, &page).header("content-type", "text/html")])
            .await;
    for mut talk in talks {
        let error = talk.failure("protocol").await.error.unwrap();
        assert!(error.message.contains("`<html>[redacted] xxx"), "{error}");
        assert!(error.message.len() < 400, "{error}");
    }
}

#[tokio::test]
async fn l15_status_200_without_a_type_is_read_as_what_it_should_be() {
    let (_app, talks) = talks(|dialect| {
        let body = dialect.answer().text(&["so"]).end(iris_testkit::Why::Done).body();
        vec![Reply::status(200, &body)]
    })
    .await;
    for mut talk in talks {
        assert_eq!(text_of(&talk.answer().await), "so", "{:?}", talk.dialect);
    }
}
