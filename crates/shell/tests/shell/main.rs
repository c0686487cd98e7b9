//! What is read of command lines: by example, by chance, and against a real shell.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they skip"
)]

#[path = "../../fuzz/bodies.rs"]
mod bodies;
mod corpus;
mod differential;
mod generated;
mod mutated;
mod mutations;
mod rules;
mod traced;
