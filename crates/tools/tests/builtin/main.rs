//! What each built-in tool does with files, and what it tells the model.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod files;
mod fixture;
mod multi_edit;
mod patches;
