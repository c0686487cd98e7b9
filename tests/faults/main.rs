//! What goes wrong inside the whole server, on purpose: panics in every actor over every message,
//! threads that stop, mailboxes that fill, writers that die. Each test says what the others notice.
//!
//! The faults are armed through a feature that only `iris-testkit` asks for; releases have not a line
//! of it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper of a test fails like the test itself"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the variants that it is about; all others are its failure or no concern"
)]

mod aftermath;
mod bystander;
mod player;
mod scenario;
mod stage;
mod talk;

mod accounts;
mod corruption;
mod crash_points;
mod disk_full;
mod ending;
mod file_crashes;
mod heartbeats;
mod limits;
mod matrix;
mod model;
mod overload;
mod parent;
mod passivation;
mod power_loss;
mod stuck;
mod torture;
mod unshare;
mod writer;
