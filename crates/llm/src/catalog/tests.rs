use super::*;
use crate::ApiKey;

fn reference(provider: &str, model: &str) -> ModelRef {
    ModelRef { provider_id: provider.into(), model_id: model.into() }
}

fn providers() -> BTreeMap<String, ProviderConfig> {
    let of = ProviderConfig::new;
    let deepseek =
        ProviderConfig { catalog: Some("deepseek".into()), ..of(ProviderKind::OpenAiCompatible) };
    let hosted = ProviderConfig { api_key: Some(ApiKey::new("k")), ..of(ProviderKind::Ollama) };
    let unlisted = ProviderConfig { catalog: Some("none".into()), ..of(ProviderKind::Anthropic) };
    [
        ("claude", of(ProviderKind::Anthropic)),
        ("proxy", unlisted),
        ("other", of(ProviderKind::OpenAiCompatible)),
        ("deep", deepseek),
        ("home", of(ProviderKind::Ollama)),
        ("hosted", hosted),
    ]
    .map(|(name, config)| (name.to_owned(), config))
    .into()
}

fn builtin() -> Catalog {
    Catalog::builtin().unwrap().of_providers(&providers())
}

#[test]
fn the_list_that_is_brought_along_is_whole_and_has_a_date() {
    let catalog = builtin();
    assert_eq!(catalog.version(), "2026-11-29");
    let value: serde_json::Value = serde_json::from_str(SNAPSHOT).unwrap();
    let models = value["models"].as_array().unwrap();
    assert!(models.len() >= 40 && value["source"].as_str().unwrap().contains("litellm"));
    let names: usize =
        models.iter().map(|model| 1 + model["aliases"].as_array().map_or(0, Vec::len)).sum();
    let edition = catalog.edition();
    assert_eq!(edition.listed.len(), names, "no name stands there twice");
    for (name, facts) in &edition.listed {
        // What could not be read would be absent.
        assert!(facts.prices.is_some() && facts.context_tokens.is_some(), "{name:?}");
    }
}

#[test]
fn a_model_is_found_by_the_kind_of_its_provider_or_by_what_the_operator_says() {
    let catalog = builtin();
    let known = catalog.info(&reference("claude", "claude-sonnet-4-5"));
    assert_eq!(known.facts.context_tokens, Some(200_000));
    assert_eq!(known.facts.output_tokens, Some(64_000));
    assert_eq!(known.price_version.as_deref(), Some("2026-11-29"));
    assert_eq!(known.prices().unwrap()[0].cache_write_nano_usd, Some(3_750_000_000));
    let dated = catalog.info(&reference("claude", "claude-sonnet-4-5-20250929"));
    assert_eq!(dated, known);
    assert_eq!(catalog.info(&reference("deep", "deepseek-v4-pro")).source, FactsSource::Catalog);
    for (provider, model) in [
        ("proxy", "claude-sonnet-4-5"),
        ("other", "claude-sonnet-4-5"),
        ("claude", "claude-of-tomorrow"),
        ("nobody", "claude-sonnet-4-5"),
        ("hosted", "qwen3"),
    ] {
        let info = catalog.info(&reference(provider, model));
        assert_eq!(
            (info.source, info.prices()),
            (FactsSource::Unknown, None),
            "{provider}/{model}"
        );
        assert_eq!(info.price_version, None);
    }
}

#[test]
fn what_runs_in_the_own_house_costs_nothing_and_that_is_known() {
    let info = builtin().info(&reference("home", "qwen3"));
    assert_eq!(info.source, FactsSource::Local);
    let usage = iris_protocol::Usage { input_tokens: 5, ..Default::default() };
    assert_eq!(cost(info.prices().unwrap(), &usage.into()), Some(0));
}

#[test]
fn administrators_know_better_fact_by_fact() {
    let catalog = builtin();
    let model = reference("claude", "claude-sonnet-4-5");
    let context = ModelFacts { context_tokens: Some(1_000), ..ModelFacts::default() };
    let change = |facts: ModelFacts, revision| {
        let better = FactsOverride { facts, revision };
        catalog.set_overrides(BTreeMap::from([(model.clone(), better)]));
        catalog.info(&model)
    };
    let info = change(context, 7);
    assert_eq!((info.facts.context_tokens, info.facts.output_tokens), (Some(1_000), Some(64_000)));
    assert_eq!(info.source, FactsSource::Override);
    assert_eq!(info.price_version.as_deref(), Some("2026-11-29"), "the prices are the list's");

    let tier = PriceTier { input_nano_usd: 1, ..PriceTier::default() };
    let info = change(ModelFacts { prices: Some(vec![tier]), ..ModelFacts::default() }, 8);
    assert_eq!(info.prices(), Some(&[tier][..]));
    assert_eq!(info.price_version.as_deref(), Some("override-8"));
    catalog.set_overrides(BTreeMap::new());
    assert_eq!(catalog.info(&model).source, FactsSource::Catalog);
}

#[test]
fn the_models_of_all_providers_are_listed_once() {
    let catalog = builtin();
    let default = reference("home", "qwen3");
    let named = [reference("other", "m"), reference("other", "m"), reference("gone", "m")];
    let listed = catalog.list(&named, Some(&default));
    let of = |provider: &str| listed.iter().filter(|it| it.model.provider_id == provider).count();
    assert_eq!((of("other"), of("home"), of("gone"), of("proxy")), (1, 1, 0, 0));
    assert!(of("claude") > 10 && of("deep") == 2);
    let defaults = listed.iter().filter(|it| it.is_default).map(|it| &it.model);
    assert_eq!(defaults.collect::<Vec<_>>(), [&default]);
}

#[test]
fn lists_of_litellm_are_read() {
    let text = r#"{"sample_spec": {"litellm_provider": "one of", "mode": "chat"},
        "gemini/gemini-9": {"litellm_provider": "gemini", "mode": "chat", "max_input_tokens": 1e6,
            "max_output_tokens": "4096", "input_cost_per_token": 1.25e-06,
            "output_cost_per_token": 1e-05, "input_cost_per_token_above_200k_tokens": 2.5e-06,
            "cache_creation_input_token_cost": 0, "supports_vision": true,
            "supports_sampling_params": false, "prompt_cache_min_tokens": 2048.0,
            "reasoning_effort_levels": ["none", "low", "high"]},
        "odd": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": -1},
        "picture": {"litellm_provider": "openai", "mode": "image_generation"}}"#;
    let (listed, _) = files::read(text).unwrap();
    assert_eq!(listed.len(), 2);
    let facts = &listed[&("google".into(), "gemini-9".into())];
    assert_eq!(facts.context_tokens, Some(1_000_000));
    assert_eq!(facts.output_tokens, Some(4_096));
    assert_eq!((facts.images, facts.sampling, facts.tools), (Some(true), Some(false), None));
    assert_eq!(facts.prompt_cache_min_tokens, Some(2_048));
    assert_eq!(facts.efforts.as_deref(), Some(&["low".to_owned(), "high".to_owned()][..]));
    let prices = facts.prices.as_ref().unwrap();
    assert_eq!(prices[0].input_nano_usd, 1_250_000_000);
    assert_eq!(prices[0].cache_write_nano_usd, None);
    assert_eq!((prices[1].above_input_tokens, prices[1].input_nano_usd), (200_000, 2_500_000_000));
    assert_eq!(prices[1].output_nano_usd, 10_000_000_000, "as below where nothing is said");
    assert_eq!(listed[&("openai".into(), "odd".into())], ModelFacts::default());
}

#[test]
fn lists_of_models_dev_are_read() {
    let text = r#"{"acme": {"id": "acme", "models": {"m-1": {"id": "m-1", "attachment": true,
        "reasoning": true, "temperature": false, "tool_call": true,
        "modalities": {"input": ["text"], "output": ["text"]},
        "cost": {"input": 0.5, "output": 2, "cache_read": 0.05,
            "context_over_200k": {"input": 1, "output": 4}},
        "limit": {"context": 400000, "output": 128000}}, "m-2": {"id": "m-2"}}}}"#;
    let (listed, _) = files::read(text).unwrap();
    let facts = &listed[&("acme".into(), "m-1".into())];
    assert_eq!((facts.context_tokens, facts.output_tokens), (Some(400_000), Some(128_000)));
    assert_eq!((facts.images, facts.sampling, facts.tools), (Some(false), Some(false), Some(true)));
    let prices = facts.prices.as_ref().unwrap();
    assert_eq!(prices[0].cache_read_nano_usd, Some(50_000_000));
    assert_eq!((prices[1].above_input_tokens, prices[1].output_nano_usd), (200_000, 4_000_000_000));
    assert_eq!(listed[&("acme".into(), "m-2".into())], ModelFacts::default());
}

#[test]
fn a_file_that_is_no_list_is_refused_with_a_sentence() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (text, part) in [
        ("{", "not JSON"),
        ("[]", "neither"),
        ("{\"a\": 1}", "neither"),
        ("{\"models\": [{\"id\": \"x\"}]}", "no model"),
    ] {
        std::fs::write(file.path(), text).unwrap();
        let error = Catalog::from_file(file.path()).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(matches!(
        Catalog::from_file(Path::new("/nonexistent/catalog")),
        Err(CatalogError::Unreadable(_))
    ));
    file.as_file().set_len(FILE_BYTES_MAX + 1).unwrap();
    assert!(matches!(Catalog::from_file(file.path()), Err(CatalogError::TooLarge)));
}

#[test]
fn the_version_of_a_file_says_which_one_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prices.json");
    let version = |name: &str| {
        std::fs::write(
            &path,
            format!("{{\"models\": [{{\"vendor\": \"v\", \"id\": \"{name}\"}}]}}"),
        )
        .unwrap();
        Catalog::from_file(&path).unwrap().version()
    };
    let (a, b) = (version("a"), version("b"));
    assert!(a.starts_with("prices.json@") && a != b);
    assert_eq!(version("a"), a);
}

#[test]
fn another_list_is_taken_for_all_who_share_the_catalogue() {
    let catalog = Catalog::builtin().unwrap();
    let shared = catalog.clone();
    let other = Catalog::builtin().unwrap();
    *other.edition.write() =
        Arc::new(Edition { listed: Listed::new(), version: "another".to_owned() });
    catalog.take_list(&other);
    assert_eq!(shared.version(), "another");
    assert_eq!(other.version(), "another");
}
