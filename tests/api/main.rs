//! The whole server through its two doors, HTTP and WebSocket. Every test has a server of its own.

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

mod access;
mod actors;
mod admin;
mod agents;
mod auth;
mod backups;
mod bad_input;
mod conformance;
mod files;
mod growth;
mod heartbeat;
mod idempotency;
mod joining;
mod logging;
mod maintenance;
mod messages;
mod models;
mod passivation;
mod patience;
mod presence;
mod process;
mod project_paths;
mod projects;
mod rates;
mod recovering;
mod remote;
mod repeating;
mod restart;
mod resuming;
mod sessions;
mod socket;
mod sse;
mod streaming;
mod subscribing;
mod tickets;
mod tools;
mod top;
mod unattended;

use std::fmt::Debug;

use iris_client::{ClientError, RestAnswer};
use iris_protocol::{ApiError, ErrorCode};

/// Code and `details.reason` of an error.
fn code_of(error: &ApiError) -> (ErrorCode, &str) {
    let reason = error.details.get("reason").and_then(serde_json::Value::as_str);
    (error.code, reason.unwrap_or_default())
}

/// The error with which the server refused.
fn refusal<T: Debug>(result: Result<T, ClientError>) -> ApiError {
    match result.unwrap_err() {
        ClientError::Api(error) => error,
        other => panic!("{other}"),
    }
}

/// The error of an answer, whose status has to be the one of its code.
fn rest_refusal(answer: &RestAnswer) -> ApiError {
    let error = answer.error().unwrap_or_else(|| panic!("{answer:?}"));
    assert_eq!(answer.status, error.code.http_status(), "{error}");
    error
}
