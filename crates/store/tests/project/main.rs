//! The database of a project, on real files.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

mod agents_and_files;
mod approvals;
mod blobs;
mod context;
mod damage;
mod departing;
mod file_retention;
mod fixture;
mod forks;
mod idempotency;
mod mcp;
mod mcp_authorizations;
mod opening;
mod pages;
mod permissions;
mod properties;
mod provider_data;
mod questions;
mod quotas;
mod recovery;
mod released;
mod resuming;
mod retention;
mod runs;
mod search;
mod sessions;
mod streams;
mod tasks;
mod titles;
mod todos;
mod tools;
mod turns;
mod usage;
mod writer;
