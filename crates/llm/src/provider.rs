//! How a provider is configured.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use iris_protocol::ErrorCode;

use crate::{Limits, ModelError};

/// One provider, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// The wire that it speaks.
    pub kind: ProviderKind,
    /// Where it listens, such as `http://127.0.0.1:8081/v1`; `openai-compatible` needs it.
    pub base_url: Option<String>,
    /// What it knows us by; servers in the own house often need none.
    pub api_key: Option<ApiKey>,
    /// A file with what `scripted` plays for messages that hold no script.
    pub script: Option<PathBuf>,
    /// Whether its models are shown images: only the operator knows.
    pub images: bool,
    /// Bounds of its answers.
    pub limits: Limits,
}

impl ProviderConfig {
    /// A provider of which only the kind is set.
    pub fn new(kind: ProviderKind) -> Self {
        Self {
            kind,
            base_url: None,
            api_key: None,
            script: None,
            images: false,
            limits: Limits::default(),
        }
    }
}

/// The wires that this version speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// Chat Completions, as many servers speak it.
    OpenAiCompatible,
    /// The deterministic model without a network.
    Scripted,
}

impl ProviderKind {
    /// The kind as it stands in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiCompatible => "openai-compatible",
            Self::Scripted => "scripted",
        }
    }
}

/// Why a text is no [`ProviderKind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// It is one that a later version will have.
    #[error("`{0}` is not supported yet; use `openai-compatible` or `scripted`")]
    NotSupportedYet(String),
    /// It is none at all.
    #[error("`{0}` is not `openai-compatible` or `scripted`")]
    Unknown(String),
}

impl FromStr for ProviderKind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        match text {
            "openai-compatible" => Ok(Self::OpenAiCompatible),
            "scripted" => Ok(Self::Scripted),
            "anthropic" | "openai" | "google" | "ollama" => {
                Err(KindError::NotSupportedYet(text.to_owned()))
            }
            _ => Err(KindError::Unknown(text.to_owned())),
        }
    }
}

/// A provider's secret; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Takes the secret. An empty one counts as none.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why a provider cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `openai-compatible` without an address.
    #[error("the provider `{provider}` needs a base url")]
    NoBaseUrl {
        /// The provider.
        provider: String,
    },
    /// An address that is not plain `http(s)://host[:port][/path]`. The value is not repeated: it
    /// may hold a password.
    #[error("the base url of the provider `{provider}` is not an http or https address")]
    BadBaseUrl {
        /// The provider.
        provider: String,
    },
    /// A key that cannot stand in a header.
    #[error("the api key of the provider `{provider}` has characters that no header can hold")]
    BadApiKey {
        /// The provider.
        provider: String,
    },
    /// The HTTP client cannot be built.
    #[error("the http client for the provider `{provider}` cannot be built")]
    HttpClient {
        /// The provider.
        provider: String,
        /// Why not.
        source: reqwest::Error,
    },
    /// The file cannot be read.
    #[error("the script `{path}` of the provider `{provider}` cannot be read")]
    UnreadableScript {
        /// The provider.
        provider: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no script.
    #[error("the script `{path}` of the provider `{provider}` is wrong")]
    BadScript {
        /// The provider.
        provider: String,
        /// The file.
        path: PathBuf,
        /// Which line, and why.
        source: ModelError,
    },
}

impl ConfigError {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoBaseUrl { .. }
            | Self::BadBaseUrl { .. }
            | Self::BadApiKey { .. }
            | Self::UnreadableScript { .. }
            | Self::BadScript { .. } => ErrorCode::InvalidRequest,
            Self::HttpClient { .. } => ErrorCode::Internal,
        }
    }
}
