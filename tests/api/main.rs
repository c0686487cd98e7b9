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

mod abuse;
mod access;
mod accounts;
mod actors;
mod admin;
mod agent_files;
mod agents;
mod attachments;
mod audit;
mod auth;
mod backups;
mod bad_input;
mod bash;
mod budgets;
mod canaries;
mod captures;
mod catalog;
mod chat;
mod conformance;
mod context;
mod credentials;
mod custom_tools;
mod departing;
mod deprecation;
mod files;
mod forks;
mod git;
mod growth;
mod heartbeat;
mod idempotency;
mod joining;
mod keys;
mod large;
mod listening;
mod logging;
mod mails;
mod maintenance;
mod mcp;
mod mcp_oauth;
mod mcp_web;
mod messages;
mod metrics;
mod models;
mod oauth;
mod openapi;
mod passivation;
mod patience;
mod people;
mod permissions;
mod presence;
mod process;
mod project_paths;
mod projects;
mod providers;
mod questions;
mod queueing;
mod races;
mod rates;
mod reading;
mod real_model;
mod recovering;
mod redaction;
mod remote;
mod repeating;
mod restart;
mod resuming;
mod retries;
mod rewriting;
mod rights;
mod sessions;
mod socket;
mod sse;
mod steering;
mod streaming;
mod subscribing;
mod system;
mod tasks;
mod tickets;
mod titles;
mod tls;
mod todos;
mod tools;
mod top;
mod unattended;
mod upgrade;
mod usage;
mod webfetch;
mod whole_conversation;
mod wires;

use std::fmt::Debug;
use std::path::Path;
use std::process::Command;

use iris_client::{ClientError, RestAnswer};
use iris_protocol::{ApiError, AuthRegister, AuthSetup, ErrorCode, ProjectId, SessionId};
use iris_sandbox::{Config as SandboxConfig, Sandbox, Tier};
use iris_testkit::{Conversation, FakeProvider, PASSWORD, Person, SETUP_TOKEN, ServerProcess};

/// Whether the sandbox of this machine holds a tier. A test that needs it is skipped where it does not, unless
/// `IRIS_TEST_TIER`, or S3 in CI, says that it has to.
async fn is_held(config: SandboxConfig, tier: Tier) -> bool {
    let found = Sandbox::start(config).await;
    let is_held = found.tier() >= tier;
    let is_ci = std::env::var("CI").as_deref() == Ok("true");
    let required = std::env::var("IRIS_TEST_TIER").ok().or_else(|| is_ci.then(|| "S3".to_owned()));
    let is_required = required.is_some_and(|required| required >= tier.to_string());
    assert!(is_held || !is_required, "{tier} is needed: {:?}", found.missing());
    if !is_held {
        eprintln!("skipped: {tier} is needed: {:?}", found.missing());
    }
    is_held
}

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

/// The command that serves a data directory.
fn iris(data_dir: &Path) -> Command {
    ServerProcess::command(env!("CARGO_BIN_EXE_iris"), data_dir)
}

/// The same with the models of a provider.
fn iris_with(data_dir: &Path, provider: &FakeProvider) -> Command {
    let mut command = iris(data_dir);
    command
        .env("IRIS_PROVIDERS__FAKE__KIND", "openai-compatible")
        .env("IRIS_PROVIDERS__FAKE__BASE_URL", provider.base_url())
        .env("IRIS_DEFAULT_MODEL", "fake/model");
    command
}

/// Has a server read its configuration again.
fn hang_up(server: &ServerProcess) {
    let id = server.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
}

/// The administrator of a new server.
async fn root(server: &ServerProcess) -> Person {
    let request = AuthSetup {
        token: SETUP_TOKEN.to_owned(),
        email: "root@example.com".to_owned(),
        username: "root".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let client = server.client();
    Person::new(&client, client.setup(&request).await.unwrap())
}

/// A new user.
async fn ann(server: &ServerProcess) -> Person {
    let request = AuthRegister {
        invitation: None,
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let client = server.client();
    Person::new(&client, client.register(&request).await.unwrap())
}

fn session_room(session: &SessionId) -> String {
    format!("session:{session}")
}

fn project_room(project: &ProjectId) -> String {
    format!("project:{project}")
}

/// Makes a session say more than may wait for one reader.
async fn flood(talk: &mut Conversation) {
    talk.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await;
    talk.approval().await;
    let long = format!("say ok\n#{}", "x".repeat(200_000));
    for _ in 0..30 {
        talk.send_message(&long).await;
        talk.wait_for("message.created").await;
    }
}
