//! Where the demo takes place: a temporary directory, the configuration of the server, the model.

use std::io;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::{DemoError, DemoOptions, plot};
use crate::config::{Config, Flags};

/// The whole demo with the scripted model.
const SCRIPTED_TIME_MAX: Duration = Duration::from_secs(15);
/// The whole demo with a real model.
const REAL_TIME_MAX: Duration = Duration::from_mins(2);
/// What the scripted model is called.
const SCRIPTED_MODEL: &str = "demo/script";
/// The kind of provider that real models are reached by.
const REAL_KIND: &str = "openai-compatible";
/// Name of the script's file in the temporary directory.
const SCRIPT_FILE: &str = "script.txt";
/// How long runs may go on when the server stops: they have ended by then, or the time is up.
const DRAIN_SECONDS: &str = "0";

/// Accepts what `--model` may be.
pub(super) fn real_model(text: &str) -> Result<String, String> {
    match text.split_once('/') {
        Some((REAL_KIND, name)) if !name.is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err(format!("expected `{REAL_KIND}/NAME`")),
    }
}

/// Where and on what the demo runs.
pub(super) struct Stage {
    directory: TempDir,
    options: DemoOptions,
}

impl Stage {
    /// Makes the temporary directory and puts the script into it.
    pub(super) fn set(options: DemoOptions) -> Result<Self, DemoError> {
        let directory = tempfile::Builder::new().prefix("iris-demo-").tempdir();
        let directory = directory.map_err(DemoError::Directory)?;
        std::fs::write(directory.path().join(SCRIPT_FILE), plot::SCRIPT)
            .map_err(DemoError::Directory)?;
        Ok(Self { directory, options })
    }

    /// Removes the temporary directory and all that is in it.
    pub(super) fn clear(self) -> Result<(), DemoError> {
        self.directory.close().map_err(DemoError::Directory)
    }

    pub(super) fn is_scripted(&self) -> bool {
        self.options.model.is_none()
    }

    /// The model as the configuration names it.
    pub(super) fn model(&self) -> &str {
        self.options.model.as_deref().unwrap_or(SCRIPTED_MODEL)
    }

    /// What ann says.
    pub(super) fn messages(&self) -> [&'static str; 2] {
        if self.is_scripted() { plot::MESSAGES } else { plot::REAL_MESSAGES }
    }

    /// How long the demo may take, the server's start and end included.
    pub(super) fn time_max(&self) -> Duration {
        if self.is_scripted() { SCRIPTED_TIME_MAX } else { REAL_TIME_MAX }
    }

    /// A server on a free port that keeps everything in the temporary directory.
    pub(super) fn config(&self) -> Result<Config, DemoError> {
        let path = |name| self.directory.path().join(name).to_string_lossy().into_owned();
        let flags = Flags {
            data_dir: Some(path("data")),
            bind: Some("127.0.0.1:0".to_owned()),
            ..Flags::default()
        };
        let mut settings = vec![
            ("IRIS_REGISTRATION".to_owned(), "open".to_owned()),
            ("IRIS_DRAIN_SECONDS".to_owned(), DRAIN_SECONDS.to_owned()),
            ("IRIS_DEFAULT_MODEL".to_owned(), self.model().to_owned()),
        ];
        settings.extend(self.provider(path(SCRIPT_FILE)));
        let no_file = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let (config, _warnings) = Config::load(flags, settings.into_iter(), no_file)?;
        Ok(config)
    }

    /// The settings of the one provider.
    fn provider(&self, script: String) -> Vec<(String, String)> {
        let DemoOptions { model: _, base_url, api_key, no_color: _, json: _ } = &self.options;
        let (name, settings) = match base_url {
            None => ("DEMO", vec![("KIND", "scripted".to_owned()), ("SCRIPT", script)]),
            Some(base_url) => {
                let kind = ("KIND", REAL_KIND.to_owned());
                let mut settings = vec![kind, ("BASE_URL", base_url.as_str().to_owned())];
                settings.extend(api_key.clone().map(|key| ("API_KEY", key)));
                ("OPENAI-COMPATIBLE", settings)
            }
        };
        let named = |(key, value)| (format!("IRIS_PROVIDERS__{name}__{key}"), value);
        settings.into_iter().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use iris_llm::ProviderKind;

    use super::*;

    fn options(model: Option<&str>) -> DemoOptions {
        DemoOptions {
            model: model.map(str::to_owned),
            base_url: model.and_then(|_| "http://127.0.0.1:8081/v1".parse().ok()),
            api_key: Some("key".to_owned()),
            no_color: None,
            json: false,
        }
    }

    #[test]
    fn only_a_model_of_the_real_kind_is_accepted() {
        assert_eq!(real_model("openai-compatible/a/b").as_deref(), Ok("openai-compatible/a/b"));
        for text in ["", "a", "openai-compatible", "openai-compatible/", "scripted/a"] {
            assert!(real_model(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_server_gets_the_one_provider_that_the_demo_runs_on() {
        for (model, name, kind) in [
            (None, "demo", ProviderKind::Scripted),
            (Some("openai-compatible/a/b"), "openai-compatible", ProviderKind::OpenAiCompatible),
        ] {
            let stage = Stage::set(options(model)).unwrap();
            let config = stage.config().unwrap();
            assert_eq!(config.bind.port(), 0);
            assert!(config.data_dir.starts_with(stage.directory.path()));
            assert_eq!(config.default_model.unwrap().provider_id, name);
            let kinds: Vec<_> =
                config.providers.iter().map(|(name, p)| (&**name, p.kind)).collect();
            assert_eq!(kinds, [(name, kind)]);
        }
    }

    #[test]
    fn nothing_is_left_when_the_stage_is_cleared() {
        let stage = Stage::set(options(None)).unwrap();
        let path = stage.directory.path().to_owned();
        assert!(path.join(SCRIPT_FILE).exists());
        stage.clear().unwrap();
        assert!(!path.exists());
    }
}
