//! Test only: a whole server for one test, people who use it, and a provider of whom every byte is
//! told.
//!
//! [`spawn_app`] starts the same [`iris::app::App`] as the `iris` command, on a free port, with a data
//! directory of its own. [`Person`] and [`Conversation`] speak in intentions, [`WireSocket`] in frames,
//! [`FakeProvider`] in bytes. Only this crate knows routes and frames well enough to build them.
//!
//! Nothing here waits by sleeping: everything waits for what has to happen, at most [`PATIENCE`]. What
//! nobody tells of is looked for again and again, a [`moment`] apart.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool of a test fails like the test"
)]

mod app;
mod browser;
mod clock;
mod conversation;
mod dialect;
mod fill;
mod hop;
mod identity;
mod person;
mod process;
mod provider;
mod proxy;
mod stream;
pub mod torture;
mod wire;

use std::time::Duration;

pub use app::{AppOptions, REMOTE, SETUP_TOKEN, TestApp, spawn_app, spawn_app_in, spawn_app_with};
pub use browser::{Browser, Page};
pub use clock::TestClock;
pub use conversation::{Conversation, calls_of, text_of};
pub use dialect::{Answer, Dialect, REPORTED, Why};
pub use fill::Fill;
pub use identity::{Bad, IdentityProvider, Ways};
pub use person::{PASSWORD, Person};
pub use process::ServerProcess;
pub use provider::{Asked, FakeProvider, Gate, Reply, chat};
pub use proxy::{Proxy, Weather};
pub use stream::{EventStream, Told};
pub use wire::{Incoming, WireSocket};

/// The longest that a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// From one look at what nobody tells of to the next.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Leaves the cores to what is looked for. A loop without it would take them from the very thing that
/// it waits for.
pub async fn moment() {
    tokio::time::sleep(LOOK_EVERY).await;
}

/// Waits for `future`, at most [`PATIENCE`].
///
/// # Panics
/// When it takes longer; `what` says for what.
pub async fn patiently<F: Future>(what: &str, future: F) -> F::Output {
    let outcome = tokio::time::timeout(PATIENCE, future).await;
    outcome.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}
