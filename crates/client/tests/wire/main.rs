//! The client against a server that says exactly what a test tells it to.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what helps a test fails by panicking"
)]

mod commands;
mod fake;
mod follower;
mod socket;
mod supervision;
