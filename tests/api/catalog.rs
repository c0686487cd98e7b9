//! The catalogue of models: listed, replaced by a file, overridden by administrators; servers on this
//! machine that are found without a word.

use iris_llm::{LocalServer, ProviderConfig, ProviderKind};
use iris_protocol::{Content, ContentPart, MessageSend, RunStatus};
use iris_testkit::{AppOptions, FakeProvider, Person, Reply, chat, spawn_app_with, text_of};
use serde_json::{Value, json};

use crate::usage::set_price;

async fn models(person: &Person, query: &str) -> Value {
    let answer = person.get(&format!("/v1/models{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    answer.json
}

fn named<'a>(answer: &'a Value, model: &str) -> &'a Value {
    let models = answer["data"].as_array().unwrap();
    models.iter().find(|it| it["modelId"] == model).unwrap_or(&Value::Null)
}

fn with_anthropic() -> AppOptions {
    let mut options = AppOptions::default();
    let claude = ProviderConfig::new(ProviderKind::Anthropic);
    options.providers.insert("claude".into(), claude);
    options
}

#[tokio::test]
async fn models_are_listed_with_what_is_known_of_them() {
    let app = spawn_app_with(with_anthropic()).await;
    let ann = app.user("ann").await;
    let all = models(&ann, "").await;
    let known = named(&all, "claude-sonnet-4-5");
    assert_eq!(known["contextTokens"], 200_000);
    assert_eq!((&known["source"], &known["providerId"]), (&json!("catalog"), &json!("claude")));
    assert_eq!(known["prices"][0]["inputNanoUsd"], 3_000_000_000_u64);
    assert_eq!(known["priceVersion"], all["meta"]["catalogVersion"]);
    let default = named(&all, "script");
    assert_eq!((&default["isDefault"], &default["source"]), (&json!(true), &json!("unknown")));
    assert_eq!(default.get("prices"), None, "what is not known is absent");

    let of_demo = models(&ann, "?providerId=demo").await;
    assert_eq!(of_demo["data"].as_array().unwrap().len(), 1);
    let first = models(&ann, "?limit=2").await;
    assert_eq!(first["meta"]["hasMore"], true);
    let cursor = first["meta"]["nextCursor"].as_str().unwrap();
    let second = models(&ann, &format!("?limit=2&cursor={cursor}")).await;
    assert_eq!(second["data"][0], all["data"][2]);
    assert_eq!(ann.get("/v1/models?cursor=x").await.status, 400);
    assert_eq!(ann.get("/v1/models?limit=0").await.status, 400);
    assert_eq!(app.client().rest("GET", "/v1/models", None, None).await.unwrap().status, 401);
}

#[tokio::test]
async fn a_file_takes_the_place_of_the_catalogue() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = json!({ "claude-x": { "litellm_provider": "anthropic", "mode": "chat",
        "max_input_tokens": 9, "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6 } });
    std::fs::write(file.path(), text.to_string()).unwrap();
    let options = AppOptions { model_catalog: Some(file.path().into()), ..with_anthropic() };
    let app = spawn_app_with(options).await;
    let all = models(&app.user("ann").await, "").await;
    assert_eq!(named(&all, "claude-x")["contextTokens"], 9);
    assert_eq!(named(&all, "claude-sonnet-4-5"), &Value::Null);
    let name = file.path().file_name().unwrap().to_str().unwrap();
    assert!(all["meta"]["catalogVersion"].as_str().unwrap().starts_with(name));
}

#[tokio::test]
async fn administrators_know_better_and_that_survives_a_restart() {
    let app = spawn_app_with(with_anthropic()).await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let body = json!({ "providerId": "claude", "modelId": "claude-sonnet-4-5",
        "facts": { "contextTokens": 1_000_000 } });
    let refused = ann.rest("PUT", "/v1/admin/models", Some(body.clone())).await;
    assert_eq!(refused.json["error"]["code"], "FORBIDDEN");
    let set = root.rest("PUT", "/v1/admin/models", Some(body)).await;
    assert_eq!(set.json["data"]["contextTokens"], 1_000_000, "{}", set.json);
    assert_eq!(set.json["data"]["source"], "override");
    assert_eq!(set.json["data"]["outputTokens"], 64_000, "the rest is the catalogue's");
    set_price(&root, ("demo", "script"), 1, 1).await;

    let app = app.restart().await;
    let (root, ann) = (app.again(&root), app.again(&ann));
    let all = models(&ann, "").await;
    assert_eq!(named(&all, "script")["prices"][0]["inputNanoUsd"], 1);
    let path = "/v1/admin/models?providerId=demo&modelId=script";
    assert_eq!(root.rest("DELETE", path, None).await.status, 200);
    assert_eq!(root.rest("DELETE", path, None).await.status, 404);
    assert_eq!(named(&models(&ann, "").await, "script")["source"], "unknown");

    let bad = json!({ "providerId": "demo", "modelId": "script", "facts": { "prices": [] } });
    let refused = root.rest("PUT", "/v1/admin/models", Some(bad)).await;
    assert_eq!(refused.json["error"]["details"]["reason"], "invalid_model_facts");
}

#[tokio::test]
async fn an_administrator_says_whether_a_model_is_shown_tools() {
    let provider = FakeProvider::start([chat::says("a"), chat::says("b")]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("one").await;
    let body = json!({ "providerId": "fake", "modelId": "model", "facts": { "tools": false } });
    assert_eq!(root.rest("PUT", "/v1/admin/models", Some(body)).await.status, 200);
    ann.ask("two").await;
    let asked = provider.asked();
    assert!(asked[0].body["tools"].is_array());
    assert_eq!(asked[1].body.get("tools"), None);
}

#[tokio::test]
async fn a_server_of_models_on_this_machine_is_found_when_nothing_is_configured() {
    let list = Reply::stream().bytes(r#"{"data": [{"id": "qwen"}]}"#);
    let provider = FakeProvider::start([list, chat::says("hello")]).await;
    let silent = LocalServer {
        name: "ollama",
        kind: ProviderKind::Ollama,
        base_url: "http://127.0.0.1:9".into(),
    };
    let there = LocalServer {
        name: "llamacpp",
        kind: ProviderKind::OpenAiCompatible,
        base_url: provider.base_url(),
    };
    let mut options = AppOptions::default();
    options.providers.clear();
    options.default_model = None;
    options.local_servers = vec![silent, there];
    let app = spawn_app_with(options).await;
    let mut ann = app.user("ann").await.conversation().await;
    let answer = ann.ask("hi").await;
    assert_eq!(text_of(&answer), "hello");
    assert_eq!(answer.usage.unwrap().cost_nano_usd, Some(0), "the own house costs nothing");
    let all = models(&ann.person, "").await;
    assert_eq!(named(&all, "qwen")["source"], "local");
    assert!(provider.asked()[0].head.starts_with("GET /v1/models "));
}

#[tokio::test]
async fn where_something_is_configured_nothing_is_looked_for() {
    let provider = FakeProvider::start([]).await;
    let there = LocalServer {
        name: "llamacpp",
        kind: ProviderKind::OpenAiCompatible,
        base_url: provider.base_url(),
    };
    let app = spawn_app_with(AppOptions { local_servers: vec![there], ..AppOptions::default() });
    app.await.stop().await;
    assert_eq!(provider.asked().len(), 0);
}

#[tokio::test]
async fn a_model_that_answers_in_no_format_is_not_asked_for_one() {
    let provider = FakeProvider::start([chat::says("never")]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let facts = json!({ "structuredOutput": false });
    let body = json!({ "providerId": "fake", "modelId": "model", "facts": facts });
    assert_eq!(root.rest("PUT", "/v1/admin/models", Some(body)).await.status, 200);
    let schema = json!({ "type": "object" });
    let parts = vec![
        ContentPart::Text { text: "hi".to_owned() },
        ContentPart::AnswerFormat { name: None, schema, strict: None },
    ];
    let session_id = ann.session.clone();
    let send = MessageSend {
        session_id,
        content: Content::Parts(parts),
        when_busy: None,
        attachments: Vec::new(),
    };
    let run = ann.call(send).await.unwrap().run_id;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Failed);
    let error = ann.answer(&run).await.error.unwrap();
    assert_eq!(error.details["reason"], "answer_format_unsupported", "{error:?}");
    assert!(provider.asked().is_empty());
}
