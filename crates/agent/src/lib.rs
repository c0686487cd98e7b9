//! The agent loop as a pure state machine, and what it needs from the world as traits.
//!
//! Deliberately absent: I/O, clocks, random numbers, threads. Time and ids come in through
//! [`Clock`] and [`IdSource`].

mod answer_format;
mod budget;
pub mod compaction;
mod opaque;
pub mod permissions;
mod progress;
mod prompt;
mod retry;
pub mod tokens;
mod turn;
mod world;

pub use answer_format::wanted_format;
pub use budget::{BudgetUse, exceeded};
pub use opaque::{OPAQUE_BYTES_MAX, Opaque};
pub use progress::Progress;
pub use prompt::{
    Conversation, Counted, Prompt, PromptAttachment, PromptBlock, PromptCall, PromptMessage,
    TextRoom, ToolSpec, prompt_messages, said_with,
};
pub use retry::RetryLimits;
pub use turn::*;
pub use world::{Clock, IdSource};
