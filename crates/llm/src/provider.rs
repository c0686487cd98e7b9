//! How a provider is configured.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use iris_protocol::ErrorCode;
use zeroize::Zeroizing;

use crate::{Limits, ModelError};

/// Whether a text can name a provider: it stands before the `/` of a model and in variables, there in upper case.
pub fn is_provider_name(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    !name.is_empty() && name.chars().all(is_part)
}

/// One provider, as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderConfig {
    /// The wire that it speaks.
    pub kind: ProviderKind,
    /// Where it listens, such as `http://127.0.0.1:8081/v1`; `openai-compatible` needs it, the others have
    /// one of their own.
    pub base_url: Option<String>,
    /// What it knows us by; servers in the own house often need none.
    pub api_key: Option<ApiKey>,
    /// A file with what `scripted` plays for messages that hold no script.
    pub script: Option<PathBuf>,
    /// Whether its models are shown images; as the catalogue says without it.
    pub images: Option<bool>,
    /// Whose models these are, as the catalogue calls them; those of its kind without it, `none` for none.
    pub catalog: Option<String>,
    /// Whether its models cost nothing; without it those of `ollama` without a key do.
    pub free: Option<bool>,
    /// What `openai-compatible` servers differ in.
    pub chat: ChatSwitches,
    /// How much its models think before they answer; as they like without it.
    pub reasoning: Option<Reasoning>,
    /// Most tokens of an answer, for requests without a limit of their own.
    pub max_output_tokens: Option<u32>,
    /// Tokens that its models take in all, as far as the operator says; `ollama` is asked for a window of that
    /// size.
    pub context_tokens: Option<u32>,
    /// The proxy through which it is reached.
    pub proxy: Option<ProxyUrl>,
    /// A file with certificates of authorities, in PEM, that are trusted besides those of the system.
    pub ca_file: Option<PathBuf>,
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
            images: None,
            catalog: None,
            free: None,
            chat: ChatSwitches::default(),
            reasoning: None,
            max_output_tokens: None,
            context_tokens: None,
            proxy: None,
            ca_file: None,
            limits: Limits::default(),
        }
    }
}

/// In what servers that speak Chat Completions differ, as an operator knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatSwitches {
    /// Whether usage is asked for with `stream_options`, which some servers refuse.
    pub stream_options: bool,
    /// What `parallel_tool_calls` says; not sent without it.
    pub parallel_tool_calls: Option<bool>,
    /// What the limit of output tokens is called.
    pub max_tokens_name: MaxTokensName,
    /// How reasoning is sent back.
    pub reasoning: ReasoningReplay,
    /// Whether `prompt_cache_key` is sent.
    pub prompt_cache_key: bool,
}

impl Default for ChatSwitches {
    fn default() -> Self {
        Self {
            stream_options: true,
            parallel_tool_calls: None,
            max_tokens_name: MaxTokensName::MaxTokens,
            reasoning: ReasoningReplay::None,
            prompt_cache_key: false,
        }
    }
}

/// What a server calls the limit of output tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxTokensName {
    /// `max_tokens`.
    MaxTokens,
    /// `max_completion_tokens`.
    MaxCompletionTokens,
}

/// How a server takes back the reasoning of its earlier answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasoningReplay {
    /// Not at all; many refuse it.
    None,
    /// As text in `reasoning_content`.
    ReasoningContent,
    /// As text in `reasoning`.
    Reasoning,
    /// As the `reasoning_details` that it sent.
    ReasoningDetails,
}

/// The wires that this version speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    /// Chat Completions, as many servers speak it.
    OpenAiCompatible,
    /// Anthropic's Messages.
    Anthropic,
    /// `OpenAI`'s Responses.
    OpenAi,
    /// Google's Gemini.
    Google,
    /// Ollama's own.
    Ollama,
    /// The deterministic model without a network.
    Scripted,
}

impl ProviderKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Anthropic,
        Self::Google,
        Self::Ollama,
        Self::OpenAi,
        Self::OpenAiCompatible,
        Self::Scripted,
    ];

    /// The kind as it stands in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenAiCompatible => "openai-compatible",
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::Google => "google",
            Self::Ollama => "ollama",
            Self::Scripted => "scripted",
        }
    }
}

/// A text that is no [`ProviderKind`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not `anthropic`, `google`, `ollama`, `openai`, `openai-compatible` or `scripted`"
)]
pub struct KindError(pub String);

impl FromStr for ProviderKind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        let found = Self::ALL.iter().find(|kind| kind.as_str() == text);
        found.copied().ok_or_else(|| KindError(text.to_owned()))
    }
}

/// How much a model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reasoning {
    /// It does not, or is one that cannot: nothing about it is asked for.
    Off,
    /// This much.
    Effort(Effort),
}

/// How hard a model thinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Hardly.
    Minimal,
    /// A little.
    Low,
    /// As usual.
    Medium,
    /// Hard.
    High,
    /// Harder.
    XHigh,
    /// As hard as it can.
    Max,
}

impl Effort {
    /// Every effort, from little to much.
    pub const ALL: &[Self] =
        &[Self::Minimal, Self::Low, Self::Medium, Self::High, Self::XHigh, Self::Max];

    /// The effort as it stands in a configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::XHigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// For wires on which there is nothing below `low`.
    pub(crate) fn at_least_low(self) -> &'static str {
        match self {
            Self::Minimal | Self::Low => "low",
            Self::Medium | Self::High | Self::XHigh | Self::Max => self.as_str(),
        }
    }

    /// For wires that know three.
    pub(crate) fn of_three(self) -> &'static str {
        match self {
            Self::Minimal | Self::Low => "low",
            Self::Medium => "medium",
            Self::High | Self::XHigh | Self::Max => "high",
        }
    }

    /// In tokens, for models of Gemini that are told a number.
    pub(crate) fn thinking_budget(self) -> u32 {
        match self {
            Self::Minimal => 1_024,
            Self::Low => 4_096,
            Self::Medium => 8_192,
            Self::High => 16_384,
            Self::XHigh | Self::Max => 24_576,
        }
    }

    /// As Gemini calls it.
    pub(crate) fn thinking_level(self) -> &'static str {
        match self {
            Self::Minimal => "MINIMAL",
            Self::Low => "LOW",
            Self::Medium => "MEDIUM",
            Self::High | Self::XHigh | Self::Max => "HIGH",
        }
    }
}

impl FromStr for Reasoning {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let effort = Effort::ALL.iter().find(|effort| effort.as_str() == text);
        effort.copied().map(Self::Effort).ok_or_else(|| {
            format!("`{text}` is not `off`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`")
        })
    }
}

/// The address of a proxy; never printed, because it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(String);

impl ProxyUrl {
    /// Its host and port.
    pub fn place(&self) -> (String, u16) {
        let url = reqwest::Url::parse(&self.0).ok();
        let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        (host, url.and_then(|url| url.port_or_known_default()).unwrap_or(80))
    }

    pub(crate) fn to_proxy(&self, provider: &str) -> Result<reqwest::Proxy, ConfigError> {
        let bad = || ConfigError::BadProxy { provider: provider.to_owned() };
        reqwest::Proxy::all(&self.0).map_err(|_| bad())
    }
}

impl FromStr for ProxyUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let message = "it is not of the form `http://[user:password@]host:port`";
        let url = reqwest::Url::parse(text).map_err(|_| message)?;
        let is_good = matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.path().trim_matches('/').is_empty()
            && url.query().is_none()
            && url.fragment().is_none();
        if is_good { Ok(Self(text.to_owned())) } else { Err(message) }
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Longest key, in bytes.
const API_KEY_BYTES_MAX: usize = 4096;

/// A provider's secret: never printed, wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Zeroizing<String>);

impl ApiKey {
    /// Takes the secret. An empty one counts as none.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// Whether a text can be a key: 1 to 4096 printable characters of ASCII, so that a header holds it.
    pub fn is_well_formed(text: &str) -> bool {
        (1..=API_KEY_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// The secret, for the one use that it is for.
    pub fn expose(&self) -> &str {
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
    /// A name that no model can be chosen by.
    #[error("`{provider}` names no provider: lower case letters, digits, `-` and `_` do")]
    BadName {
        /// The name.
        provider: String,
    },
    /// Two providers of one name.
    #[error("there are two providers `{provider}`")]
    NameTaken {
        /// The name.
        provider: String,
    },
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
    /// The address of the proxy, which is not repeated.
    #[error("the proxy of the provider `{provider}` is not of the form `http://host:port`")]
    BadProxy {
        /// The provider.
        provider: String,
    },
    /// The certificates cannot be read.
    #[error("the certificates `{path}` of the provider `{provider}` cannot be read")]
    UnreadableCaFile {
        /// The provider.
        provider: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file holds no certificates.
    #[error("`{path}`, for the provider `{provider}`, holds no certificates in PEM")]
    BadCaFile {
        /// The provider.
        provider: String,
        /// The file.
        path: PathBuf,
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
            Self::BadName { .. }
            | Self::NameTaken { .. }
            | Self::NoBaseUrl { .. }
            | Self::BadBaseUrl { .. }
            | Self::BadApiKey { .. }
            | Self::BadProxy { .. }
            | Self::UnreadableCaFile { .. }
            | Self::BadCaFile { .. }
            | Self::UnreadableScript { .. }
            | Self::BadScript { .. } => ErrorCode::InvalidRequest,
            Self::HttpClient { .. } => ErrorCode::Internal,
        }
    }
}
