//! What supervision promises, one test a sentence: real actors on real arbiters.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "test code")]

mod families;
mod mailbox;
mod orders;
mod panics;
mod policies;
mod probe;
mod requests;
mod siblings;
mod stage;
mod watchdog;
mod work;
