//! The models that are configured, by the name of their provider.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{ErrorCode, ModelRef};

use crate::anthropic::Anthropic;
use crate::chat::OpenAiCompatible;
use crate::google::Google;
use crate::health::Watched;
use crate::ollama::Ollama;
use crate::openai::OpenAi;
use crate::provider::{ApiKey, ConfigError, ProviderConfig, ProviderKind, is_provider_name};
use crate::{Model, Scripted};

/// The registry of providers. What is not in it does not exist: there is no fallback.
#[derive(Clone, Default)]
pub struct Models {
    by_provider: BTreeMap<String, Arc<dyn Model>>,
    /// Those that play scripts.
    scripted: BTreeSet<String>,
    /// Those that an embedding program brought.
    brought: BTreeSet<String>,
    /// How many tokens the models of a provider take, as the operator says.
    windows: BTreeMap<String, u64>,
    /// The configured keys.
    keys: BTreeMap<String, ApiKey>,
    /// How long the most patient provider may let nothing be heard.
    silence: Duration,
}

/// Why there is no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelUnavailable {
    /// Nothing is configured.
    #[error(
        "no model provider is configured: set `IRIS_PROVIDERS__<NAME>__KIND=openai-compatible`, \
         `IRIS_PROVIDERS__<NAME>__BASE_URL` and, if it needs one, `IRIS_PROVIDERS__<NAME>__API_KEY`, \
         then `IRIS_DEFAULT_MODEL=<name>/<model>`, and start the server again"
    )]
    NoProvider,
    /// Nobody chose a model.
    #[error(
        "no model is chosen: name one, or set `IRIS_DEFAULT_MODEL=<name>/<model>`; {configured}"
    )]
    NoModelChosen {
        /// A clause that lists the providers.
        configured: String,
    },
    /// The chosen model's provider is not configured.
    #[error("no model provider `{provider}` is configured; {configured}")]
    UnknownProvider {
        /// The name that was asked for.
        provider: String,
        /// A clause that lists the providers.
        configured: String,
    },
}

impl ModelUnavailable {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::ModelUnavailable
    }
}

impl Models {
    /// Sets up every configured provider, whose keys are hidden from now on where others repeat them. Reads
    /// script files; connects to nothing.
    ///
    /// # Errors
    ///
    /// The first [`ConfigError`].
    pub fn new(configs: BTreeMap<String, ProviderConfig>) -> Result<Self, ConfigError> {
        let mut models = Self::default();
        for (name, config) in configs {
            if let Some(tokens) = config.context_tokens {
                models.windows.insert(name.clone(), tokens.into());
            }
            models.silence = models.silence.max(config.limits.silence());
            if config.kind == ProviderKind::Scripted {
                models.scripted.insert(name.clone());
            }
            // It is of those who run the server: nobody else is to see it.
            if let Some(key) = &config.api_key {
                iris_redact::shared().learn(key.expose());
                models.keys.insert(name.clone(), key.clone());
            }
            let is_remote = config.kind != ProviderKind::Scripted;
            let mut model = build(&name, &config)?;
            if is_remote {
                model = Arc::new(Watched::new(&name, model));
            }
            models.insert(name, model);
        }
        Ok(models)
    }

    /// Adds a model, or replaces the one of that name.
    pub fn insert(&mut self, provider: impl Into<String>, model: Arc<dyn Model>) {
        self.by_provider.insert(provider.into(), model);
    }

    /// Adds a provider that an embedding program brings, which is left alone for a while when it only fails, as
    /// those are that are configured. Users set no keys for it: who may ask it, it knows itself.
    ///
    /// # Errors
    ///
    /// [`ConfigError::BadName`] and [`ConfigError::NameTaken`].
    pub fn bring(&mut self, provider: &str, model: Arc<dyn Model>) -> Result<(), ConfigError> {
        let provider = provider.to_owned();
        if !is_provider_name(&provider) {
            return Err(ConfigError::BadName { provider });
        }
        if self.by_provider.contains_key(&provider) {
            return Err(ConfigError::NameTaken { provider });
        }
        let watched = Watched::new(&provider, model);
        self.brought.insert(provider.clone());
        self.insert(provider, Arc::new(watched));
        Ok(())
    }

    /// The model that answers for `model`. Whether its provider knows `model_id` shows only when it
    /// is asked.
    ///
    /// # Errors
    ///
    /// [`ModelUnavailable::NoProvider`] or [`ModelUnavailable::UnknownProvider`].
    pub fn get(&self, model: &ModelRef) -> Result<Arc<dyn Model>, ModelUnavailable> {
        if let Some(found) = self.by_provider.get(&model.provider_id) {
            return Ok(Arc::clone(found));
        }
        if self.by_provider.is_empty() {
            return Err(ModelUnavailable::NoProvider);
        }
        let provider = model.provider_id.clone();
        Err(ModelUnavailable::UnknownProvider { provider, configured: self.configured() })
    }

    /// Whether a provider of this name is configured that is asked with a key.
    pub fn takes_key(&self, provider: &str) -> bool {
        self.by_provider.contains_key(provider)
            && !self.scripted.contains(provider)
            && !self.brought.contains(provider)
    }

    /// The key with which a provider is asked for who has none of their own.
    pub fn configured_key(&self, provider: &str) -> Option<&ApiKey> {
        self.keys.get(provider)
    }

    /// Whether a model plays a script, whatever it is asked.
    pub fn is_scripted(&self, model: &ModelRef) -> bool {
        self.scripted.contains(&model.provider_id)
    }

    /// How many tokens a model takes in all, where that is known.
    pub fn context_window(&self, model: &ModelRef) -> Option<u64> {
        self.windows.get(&model.provider_id).copied()
    }

    /// How long a provider may let nothing be heard until its adapter gives up, the most patient one of all.
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// What to say when nobody chose a model.
    pub fn none_chosen(&self) -> ModelUnavailable {
        if self.by_provider.is_empty() {
            return ModelUnavailable::NoProvider;
        }
        ModelUnavailable::NoModelChosen { configured: self.configured() }
    }

    fn configured(&self) -> String {
        let names = self.by_provider.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        format!("configured: {}", names.join(", "))
    }
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_provider.keys()).finish()
    }
}

fn build(provider: &str, config: &ProviderConfig) -> Result<Arc<dyn Model>, ConfigError> {
    Ok(match config.kind {
        ProviderKind::OpenAiCompatible => Arc::new(OpenAiCompatible::new(provider, config)?),
        ProviderKind::Anthropic => Arc::new(Anthropic::new(provider, config)?),
        ProviderKind::OpenAi => Arc::new(OpenAi::new(provider, config)?),
        ProviderKind::Google => Arc::new(Google::new(provider, config)?),
        ProviderKind::Ollama => Arc::new(Ollama::new(provider, config)?),
        ProviderKind::Scripted => match &config.script {
            Some(path) => Arc::new(Scripted::from_file(provider, path)?),
            None => Arc::new(Scripted::default()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProxyUrl;

    fn reference(provider: &str) -> ModelRef {
        ModelRef { provider_id: provider.into(), model_id: "m".into() }
    }

    fn one(config: ProviderConfig) -> Result<Models, ConfigError> {
        Models::new(BTreeMap::from([("local".to_owned(), config)]))
    }

    fn chat(base_url: &str) -> ProviderConfig {
        ProviderConfig {
            base_url: Some(base_url.into()),
            api_key: Some(ApiKey::new("sk-secret")),
            ..ProviderConfig::new(ProviderKind::OpenAiCompatible)
        }
    }

    #[test]
    fn without_a_provider_the_sentence_says_how_to_configure_one() {
        let models = Models::default();
        let error = models.get(&reference("local")).err().unwrap();
        assert_eq!(error.code(), ErrorCode::ModelUnavailable);
        for word in ["__KIND=", "__BASE_URL", "__API_KEY", "IRIS_DEFAULT_MODEL=<name>/<model>"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        assert_eq!(models.none_chosen(), error);
    }

    #[test]
    fn an_unknown_provider_is_refused_with_the_known_ones() {
        let models = one(chat("http://127.0.0.1:8081/v1/")).unwrap();
        assert!(models.get(&reference("local")).is_ok());
        let error = models.get(&reference("scripted")).err().unwrap();
        assert_eq!(
            error.to_string(),
            "no model provider `scripted` is configured; configured: `local`"
        );
        assert!(models.none_chosen().to_string().contains("`local`"));
    }

    #[test]
    fn bad_configuration_is_refused_by_name_and_without_its_secrets() {
        let bare = ProviderConfig::new(ProviderKind::OpenAiCompatible);
        assert!(matches!(one(bare), Err(ConfigError::NoBaseUrl { .. })));
        for url in
            ["127.0.0.1:80", "ftp://x/", "http://u:p@x/v1", "http://x/v1?key=1", "http://a b"]
        {
            let error = one(chat(url)).err().unwrap();
            assert!(matches!(error, ConfigError::BadBaseUrl { .. }), "{url}");
            assert!(!error.to_string().contains("u:p"), "{error}");
        }
        let bad_key = ProviderConfig { api_key: Some(ApiKey::new("a\nb")), ..chat("http://x/v1") };
        assert!(matches!(one(bad_key), Err(ConfigError::BadApiKey { .. })));
        let missing = ProviderConfig {
            script: Some("/nonexistent/script".into()),
            ..ProviderConfig::new(ProviderKind::Scripted)
        };
        assert!(matches!(one(missing), Err(ConfigError::UnreadableScript { .. })));
        assert!(!format!("{:?}", chat("http://x")).contains("sk-secret"));
    }

    #[test]
    fn a_script_file_is_read_when_the_models_are_set_up() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = ProviderConfig {
            script: Some(file.path().to_owned()),
            ..ProviderConfig::new(ProviderKind::Scripted)
        };
        std::fs::write(file.path(), "say hi").unwrap();
        assert!(one(config.clone()).is_ok());
        std::fs::write(file.path(), "say hi\nsing").unwrap();
        let error = one(config).unwrap_err();
        assert!(matches!(&error, ConfigError::BadScript { source, .. }
            if source.message.starts_with("line 2 of the script")));
    }

    #[test]
    fn a_provider_that_is_brought_has_a_name_of_its_own_and_takes_no_keys() {
        let mut models = one(chat("http://127.0.0.1:8081/v1/")).unwrap();
        models.bring("own", Arc::new(Scripted::default())).unwrap();
        assert!(models.get(&reference("own")).is_ok());
        assert!(models.takes_key("local") && !models.takes_key("own"));
        for name in ["local", "own"] {
            let error = models.bring(name, Arc::new(Scripted::default())).unwrap_err();
            assert!(matches!(error, ConfigError::NameTaken { .. }), "{error}");
        }
        for name in ["", "Own", "a/b", "a b"] {
            let error = models.bring(name, Arc::new(Scripted::default())).unwrap_err();
            assert!(matches!(error, ConfigError::BadName { .. }), "{error}");
        }
    }

    #[test]
    fn every_kind_is_known_by_its_name() {
        for kind in ProviderKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
        }
        let error = "gpt".parse::<ProviderKind>().unwrap_err();
        for kind in ProviderKind::ALL {
            assert!(error.to_string().contains(kind.as_str()), "{error}");
        }
    }

    #[test]
    fn providers_with_an_address_of_their_own_need_no_more_than_their_kind() {
        use ProviderKind::{Anthropic, Google, Ollama, OpenAi};
        for kind in [Anthropic, OpenAi, Google, Ollama] {
            assert!(one(ProviderConfig::new(kind)).is_ok(), "{kind:?}");
        }
    }

    #[test]
    fn proxies_and_certificates_are_checked_and_never_shown() {
        let proxy: ProxyUrl = "http://ann:canary@127.0.0.1:3128".parse().unwrap();
        let config = ProviderConfig { proxy: Some(proxy), ..chat("http://x/v1") };
        assert!(!format!("{config:?}").contains("canary"));
        assert!(one(config).is_ok());
        for bad in ["127.0.0.1:3128", "socks5://x:1", "http://x/path", "http://x?a", "ftp://x", ""]
        {
            assert!(bad.parse::<ProxyUrl>().is_err(), "{bad}");
        }

        let file = tempfile::NamedTempFile::new().unwrap();
        let with = |path: &std::path::Path| ProviderConfig {
            ca_file: Some(path.to_owned()),
            ..chat("https://x/v1")
        };
        let nowhere = with(std::path::Path::new("/nonexistent/ca.pem"));
        assert!(matches!(one(nowhere), Err(ConfigError::UnreadableCaFile { .. })));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in ["", "no certificate", broken] {
            std::fs::write(file.path(), text).unwrap();
            let found = one(with(file.path()));
            assert!(
                matches!(
                    found,
                    Err(ConfigError::BadCaFile { .. } | ConfigError::HttpClient { .. })
                ),
                "{text}"
            );
        }
    }
}
