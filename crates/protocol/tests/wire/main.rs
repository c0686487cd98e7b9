//! The wire as clients rely on it: names, shapes, refusals and documents.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "what helps a test fails by panicking"
)]

mod documents;
mod events;
mod frames;
mod names;
mod samples;
