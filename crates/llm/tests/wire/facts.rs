//! What is known of a model decides what is sent; the operator's word wins.

use iris_agent::{Prompt, PromptMessage, ToolSpec};
use iris_llm::{ModelRequest, OutputSchema, ProviderConfig, ProviderKind};
use iris_protocol::ModelFacts;
use serde_json::{Value, json};

use crate::fake_provider::{FakeProvider, Reply};

/// What a provider of that kind is sent, whatever it answers.
async fn sent(config: ProviderConfig, facts: ModelFacts, max_output_tokens: Option<u32>) -> Value {
    let provider = FakeProvider::start(vec![Reply::stream(["nothing of use\n\n"])]).await;
    let base_url = provider.base_url().replace("/v1", "");
    let model = crate::configured(ProviderConfig { base_url: Some(base_url), ..config });
    let tool = ToolSpec::new("read", "d", &json!({})).into();
    let prompt = Prompt {
        messages: vec![PromptMessage::asked("hi")],
        tools: vec![tool],
        ..Prompt::default()
    };
    let schema = OutputSchema { name: "o".into(), schema: json!({}), strict: false };
    let request = ModelRequest {
        model: "m".into(),
        prompt,
        max_output_tokens,
        temperature: Some(0.5),
        output_schema: Some(schema),
        facts,
        ..ModelRequest::default()
    };
    crate::collect(&model, request).await;
    serde_json::from_str(&provider.asked().first().unwrap().body).unwrap()
}

fn thinking(kind: ProviderKind, effort: &str) -> ProviderConfig {
    ProviderConfig { reasoning: effort.parse().ok(), ..ProviderConfig::new(kind) }
}

fn efforts(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn what_a_model_cannot_take_is_sent_to_no_provider() {
    let cannot = ModelFacts {
        tools: Some(false),
        sampling: Some(false),
        structured_output: Some(false),
        reasoning: Some(false),
        ..ModelFacts::default()
    };
    for kind in ProviderKind::ALL.iter().filter(|kind| **kind != ProviderKind::Scripted) {
        let known = sent(thinking(*kind, "high"), cannot.clone(), None).await.to_string();
        let unknown = sent(thinking(*kind, "high"), ModelFacts::default(), None).await.to_string();
        for word in ["temperature", "tools", "schema", "high", "adaptive"] {
            assert!(!known.to_lowercase().contains(word), "{kind:?}: {word} in {known}");
        }
        for word in ["temperature", "tools"] {
            assert!(unknown.contains(word), "{kind:?}: no {word} in {unknown}");
        }
    }
    let openai = sent(ProviderConfig::new(ProviderKind::OpenAi), cannot, None).await;
    assert_eq!(
        openai.get("include"),
        None,
        "a model that does not think has no thoughts to ask for"
    );
}

#[tokio::test]
async fn no_more_is_asked_for_than_a_model_gives() {
    let facts = |output| ModelFacts { output_tokens: Some(output), ..ModelFacts::default() };
    let kind = ProviderConfig::new(ProviderKind::Anthropic);
    for (known, wanted, expected) in [
        (facts(64_000), None, 32_000),
        (facts(4_096), None, 4_096),
        (ModelFacts::default(), None, 8_192),
        (facts(64_000), Some(100_000), 64_000),
        (facts(64_000), Some(50_000), 50_000),
    ] {
        assert_eq!(sent(kind.clone(), known, wanted).await["max_tokens"], expected);
    }
    let operator = ProviderConfig {
        max_output_tokens: Some(70_000),
        ..ProviderConfig::new(ProviderKind::OpenAi)
    };
    assert_eq!(sent(operator.clone(), facts(9), None).await["max_output_tokens"], 9);
    let free = sent(operator, ModelFacts::default(), None).await;
    assert_eq!(free["max_output_tokens"], 70_000);
}

#[tokio::test]
async fn a_model_thinks_in_the_way_that_it_knows() {
    let told = ModelFacts {
        adaptive_reasoning: Some(false),
        output_tokens: Some(64_000),
        ..ModelFacts::default()
    };
    let body = sent(thinking(ProviderKind::Anthropic, "high"), told.clone(), None).await;
    assert_eq!(body["thinking"], json!({"type": "enabled", "budget_tokens": 20_000}));
    assert_eq!(body.get("temperature"), None);
    assert_eq!(body["output_config"].get("effort"), None);
    // Less than a thousand tokens are left for both.
    let body = sent(thinking(ProviderKind::Anthropic, "high"), told.clone(), Some(1_500)).await;
    assert_eq!(body.get("thinking"), None);
    assert_eq!(body["temperature"], 0.5);

    let body = sent(thinking(ProviderKind::Google, "low"), told, None).await;
    let expected = json!({"includeThoughts": true, "thinkingBudget": 4_096});
    assert_eq!(body["generationConfig"]["thinkingConfig"], expected);

    for (wanted, known, expected) in [
        ("max", Some(efforts(&["low", "medium", "high"])), "high"),
        ("minimal", Some(efforts(&["medium", "high"])), "medium"),
        ("high", Some(efforts(&["low", "max"])), "low"),
        ("xhigh", None, "xhigh"),
    ] {
        let facts = ModelFacts { efforts: known, ..ModelFacts::default() };
        let body = sent(thinking(ProviderKind::OpenAi, wanted), facts, None).await;
        assert_eq!(body["reasoning"]["effort"], expected, "{wanted}");
    }
}

#[tokio::test]
async fn what_is_too_short_to_be_cached_is_not_marked() {
    let kind = ProviderConfig::new(ProviderKind::Anthropic);
    let facts = |least| ModelFacts { prompt_cache_min_tokens: least, ..ModelFacts::default() };
    for (least, is_marked) in [(Some(1_024), false), (Some(5), true), (None, true)] {
        let body = sent(kind.clone(), facts(least), None).await.to_string();
        assert_eq!(body.contains("cache_control"), is_marked, "{least:?}");
    }
}

#[tokio::test]
async fn the_window_of_ollama_is_what_is_known_unless_the_operator_says_otherwise() {
    let facts = ModelFacts { context_tokens: Some(9_000), ..ModelFacts::default() };
    let config = ProviderConfig::new(ProviderKind::Ollama);
    assert_eq!(sent(config.clone(), facts.clone(), None).await["options"]["num_ctx"], 9_000);
    let config = ProviderConfig { context_tokens: Some(4_096), ..config };
    assert_eq!(sent(config, facts, None).await["options"]["num_ctx"], 4_096);
}
