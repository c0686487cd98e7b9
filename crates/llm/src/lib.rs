//! The [`Model`] trait, provider adapters and the scripted model.
//!
//! Every provider's stream is turned into one alphabet, [`ModelEvent`], and every failure into one
//! [`ModelError`] whose [`ErrorClass`] says what can be done about it. [`Models`] is the registry of
//! what is configured.
//!
//! What is known of a model, prices included, is data in [`Catalog`].
//!
//! Deliberately absent: retries (a caller that saw a failure decides), tool execution, budgets, and any
//! code that knows one particular model.

mod anthropic;
mod blocks;
mod body;
mod calls;
mod catalog;
mod chat;
mod detect;
mod endpoint;
mod error;
mod failure;
mod frames;
mod google;
mod guard;
mod health;
mod json;
mod keyed;
mod lines;
mod model;
mod models;
mod ollama;
mod openai;
mod provider;
mod provider_tool;
mod replay;
mod request;
mod retry;
pub mod scripted;
mod sse;
mod tap;
mod transport;
mod usage;
mod wire;

pub use calls::CALLS_MAX;
pub use catalog::{
    Catalog, CatalogError, CatalogFileError, Charge, FactsOverride, ModelInfo, OVERRIDES_MAX,
    check_facts, cost,
};
pub use detect::{Detected, LocalServer, detect};
pub use error::{ErrorClass, ModelError};
pub use guard::{
    CONNECT_TIMEOUT, EVENT_BYTES_MAX, FIRST_BYTE_TIMEOUT, IDLE_TIMEOUT, Limits, PROGRESS_TIMEOUT,
    STREAM_BYTES_MAX,
};
pub use keyed::with_key;
pub use model::{
    Finish, Model, ModelEvent, ModelRequest, ModelStream, OutputSchema, ReportedUsage,
    parse_arguments,
};
pub use models::{ModelUnavailable, Models};
pub use provider::{
    ApiKey, ChatSwitches, ConfigError, Effort, KindError, MaxTokensName, ProviderConfig,
    ProviderKind, ProxyUrl, Reasoning, ReasoningReplay, is_provider_name,
};
pub use replay::replay;
pub use scripted::Scripted;
pub use tap::{Exchange, HeardBody, Pulse, Tap, Tapped};
pub use transport::install_tls_provider;
