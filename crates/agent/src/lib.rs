//! The agent loop as a pure state machine, and what it needs from the world as traits.
//!
//! Deliberately absent: I/O, clocks, random numbers, threads. Time and ids come in through
//! [`Clock`] and [`IdSource`].

pub mod permissions;
mod prompt;
mod retry;
mod turn;
mod world;

pub use prompt::{Prompt, PromptCall, PromptMessage, ToolSpec, prompt_messages};
pub use retry::RetryLimits;
pub use turn::*;
pub use world::{Clock, IdSource};
