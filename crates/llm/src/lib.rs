//! The [`Model`] trait, provider adapters and the scripted model.
//!
//! Every provider's stream is turned into one alphabet, [`ModelEvent`], and every failure into one
//! [`ModelError`] whose [`ErrorClass`] says what can be done about it. [`Models`] is the registry of
//! what is configured.
//!
//! Deliberately absent: retries (a caller that saw a failure decides), prices, tool execution, and
//! any code that knows one particular model.

mod blocks;
mod chat;
mod error;
mod failure;
mod guard;
mod health;
mod model;
mod models;
mod provider;
mod replay;
pub mod scripted;
mod sse;
mod transport;

pub use chat::{CALLS_MAX, ChatDecoder, OpenAiCompatible};
pub use error::{ErrorClass, ModelError};
pub use guard::{
    CONNECT_TIMEOUT, EVENT_BYTES_MAX, FIRST_BYTE_TIMEOUT, IDLE_TIMEOUT, Limits, STREAM_BYTES_MAX,
};
pub use model::{Finish, Model, ModelEvent, ModelRequest, ModelStream, parse_arguments};
pub use models::{ModelUnavailable, Models};
pub use provider::{ApiKey, ConfigError, KindError, ProviderConfig, ProviderKind};
pub use replay::replay;
pub use scripted::Scripted;
pub use transport::install_tls_provider;
