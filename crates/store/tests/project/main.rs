//! The database of a project, on real files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod agents_and_files;
mod approvals;
mod fixture;
mod idempotency;
mod opening;
mod pages;
mod properties;
mod recovery;
mod resuming;
mod runs;
mod sessions;
mod streams;
mod writer;
