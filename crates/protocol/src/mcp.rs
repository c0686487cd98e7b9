//! MCP servers of a project: how they are configured, and how they are.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::UserId;

/// An MCP server that a project uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpServer {
    /// Lower-case letters, digits and `-`, beginning with a letter; 1 to 32 bytes, unique in the project.
    pub name: String,
    /// Where it is.
    pub transport: McpTransport,
    /// Names of the headers whose values are kept secret.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_headers: Vec<String>,
    /// How it is asked for an authorization, where somebody configured that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth: Option<McpOauth>,
    /// What somebody agreed to at its authorization server; absent while nobody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<McpAuthorization>,
    /// Whether it is used.
    pub enabled: bool,
    /// How long it has to start and say what it is.
    pub initialize_timeout_ms: u64,
    /// How long one answer of it may take.
    pub request_timeout_ms: u64,
    /// The tools of it that agents may call, by the names that models call them.
    pub tools: Vec<String>,
    /// SHA-256 of the definitions that were approved, 64 hex digits; absent while none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_hash: Option<String>,
    /// The user who configured it first.
    pub created_by: UserId,
    /// Milliseconds since 1970 UTC.
    pub created_at: i64,
    /// The user who changed it last.
    pub updated_by: UserId,
    /// Milliseconds since 1970 UTC.
    pub updated_at: i64,
}

/// Where an MCP server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum McpTransport {
    /// A program that the server runs in the sandbox and speaks with over its standard input and output.
    Stdio {
        /// A program: a path, or a name that is looked up in `PATH`.
        command: String,
        /// At most 64, as they are; no shell reads them.
        #[serde(default)]
        args: Vec<String>,
        /// At most 32 variables besides those that every command gets. Their values are no secrets.
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
    /// A place on the web that speaks Streamable HTTP.
    Http {
        /// Absolute `http` or `https` URL.
        url: String,
        /// At most 16 headers that each request gets. Their values are no secrets.
        #[serde(default)]
        headers: BTreeMap<String, String>,
    },
}

/// How a server on the web is asked for an authorization.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpOauth {
    /// What its authorization server knows this server as; absent where it registers itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Whether there is a secret to it, which nobody reads back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_client_secret: bool,
    /// What may be asked for the authorization besides the server's own origin: scheme, host and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// What is asked for; what the server wants when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// How a server on the web is to be asked for an authorization.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct McpOauthSettings {
    /// What its authorization server knows this server as, 1 to 2048 bytes; absent where it registers itself.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The secret to it, if it has one, 1 to 2048 bytes.
    #[serde(default)]
    pub client_secret: Option<String>,
    /// What may be asked for the authorization besides the server's own origin, such as
    /// `https://login.example`; at most 8.
    #[serde(default)]
    pub origins: Vec<String>,
    /// What is asked for; what the server wants when empty. At most 32.
    #[serde(default)]
    pub scopes: Vec<String>,
}

/// What somebody agreed to at an authorization server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpAuthorization {
    /// What the authorization server calls itself.
    pub issuer: String,
    /// What the tokens are good for, as far as that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The user who began it.
    pub by: UserId,
    /// Milliseconds since 1970 UTC.
    pub at: i64,
}

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum McpState {
    /// It is not used.
    Disabled,
    /// It is about to be reached.
    Connecting,
    /// It is there, and all that it offers is approved.
    Ready,
    /// It is there and offers something that nobody has approved; what was approved can be called.
    NeedsApproval,
    /// It wants an authorization that it has not got.
    NeedsAuth,
    /// It cannot be reached, or ended too often.
    Failed,
}

/// What is known of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpStatus {
    /// The server.
    pub name: String,
    /// How it is.
    pub state: McpState,
    /// Why, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, in milliseconds since 1970 UTC.
    pub since: i64,
    /// How often it was reached again in the last ten minutes.
    pub restarts: u32,
    /// What it calls itself, name and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// SHA-256 of the definitions that it offers now: what `mcp.update` takes in `approve`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_hash: Option<String>,
    /// SHA-256 of the definitions that were approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_hash: Option<String>,
    /// What it offers and what was approved.
    pub tools: Vec<McpToolStatus>,
    /// What it did in this connection that it should not have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<McpCounts>,
    /// The end of what its program wrote to its standard error; for administrators of the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<String>,
}

/// A tool of a server, as people see it who are to approve it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpToolStatus {
    /// What the server calls it.
    pub name: String,
    /// What models call it.
    pub tool_name: String,
    /// Whether agents may call it.
    pub state: McpToolState,
    /// A name for people, as the server gives it. What cannot be seen is written out, here and below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does, in the server's words.
    pub description: String,
    /// JSON Schema of its arguments.
    pub input_schema: Value,
    /// What the server says of its behaviour; nothing relies on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
    /// What keeps it from being used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Whether agents may call a tool of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum McpToolState {
    /// They may: it is what somebody approved.
    Approved,
    /// Nobody has approved it.
    New,
    /// It is described otherwise than what was approved.
    Changed,
    /// It was approved, and the server has it no more.
    Removed,
    /// It cannot be used, whoever approves it.
    Unusable,
    /// It was approved; what the server offers now is not known.
    Unknown,
}

/// What a server did that it should not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpCounts {
    /// What it sent that is no message.
    pub garbage: u64,
    /// Messages that were longer than is taken.
    pub too_long: u64,
    /// Answers to what nobody asked.
    pub unknown_answers: u64,
    /// Second answers, and answers that came too late.
    pub repeated_answers: u64,
    /// Requests for what is not granted to servers, or too many at once.
    pub refused_requests: u64,
}

/// Lists the MCP servers of a project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpList {}

/// The MCP servers of a project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpPage {
    /// By name.
    pub servers: Vec<McpServer>,
}

/// Configures an MCP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct McpCreate {
    /// Lower-case letters, digits and `-`, beginning with a letter; at most 32 bytes.
    pub name: String,
    /// Where it is. A program takes a user who may have programs run.
    pub transport: McpTransport,
    /// Headers whose values are kept secret; for HTTP alone.
    #[serde(default)]
    pub secret_headers: Option<BTreeMap<String, String>>,
    /// How it is asked for an authorization; for HTTP alone.
    #[serde(default)]
    pub oauth: Option<McpOauthSettings>,
    /// Whether it is used; yes when absent.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// How long it has to start, 100 to 120000; 30000 when absent.
    #[serde(default)]
    pub initialize_timeout_ms: Option<u64>,
    /// How long one answer may take, 100 to 600000; 60000 when absent.
    #[serde(default)]
    pub request_timeout_ms: Option<u64>,
}

/// Changes an MCP server, or approves what it offers. It is reached anew, also when nothing changes; a new
/// transport takes back what was approved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct McpUpdate {
    /// The server.
    pub name: String,
    /// Where it is.
    #[serde(default)]
    pub transport: Option<McpTransport>,
    /// All headers whose values are kept secret, in place of those that there are.
    #[serde(default)]
    pub secret_headers: Option<BTreeMap<String, String>>,
    /// How it is asked for an authorization, in place of all that was said of it. The authorization that it
    /// has is forgotten.
    #[serde(default)]
    pub oauth: Option<McpOauthSettings>,
    /// Forgets the authorization that it has, and those that were begun.
    #[serde(default)]
    pub forget_authorization: Option<bool>,
    /// Whether it is used.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// How long it has to start.
    #[serde(default)]
    pub initialize_timeout_ms: Option<u64>,
    /// How long one answer may take.
    #[serde(default)]
    pub request_timeout_ms: Option<u64>,
    /// Approves what it offers, if that is what the caller saw: `offeredHash` of its status.
    #[serde(default)]
    pub approve: Option<String>,
}

/// Forgets an MCP server, with what was approved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpDelete {
    /// The server.
    pub name: String,
}

/// An MCP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpPayload {
    /// The server.
    pub server: McpServer,
}

/// Says how an MCP server is and what it offers; one that is used is reached if it is not yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpStatusGet {
    /// The server.
    pub name: String,
}

/// Begins the authorization of a server on the web: somebody is to agree at its authorization server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpAuthorize {
    /// The server.
    pub name: String,
}

/// Where somebody agrees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpAuthorizePayload {
    /// To be opened in a browser by whoever began it, once. Whoever opens it lends their account to the
    /// project.
    pub url: String,
    /// Until when, in milliseconds since 1970 UTC.
    pub expires_at: i64,
}

/// What an authorization server sends a browser back with. The names are those of RFC 6749 and RFC 9207.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct McpAuthorizeFinish {
    /// Names what was begun, and is the proof of it.
    pub state: String,
    /// What tokens are given for.
    #[serde(default)]
    pub code: Option<String>,
    /// Why there is no code.
    #[serde(default)]
    pub error: Option<String>,
    /// What the authorization server calls itself.
    #[serde(default)]
    pub iss: Option<String>,
}

/// An authorization that is finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpAuthorizedPayload {
    /// The server.
    pub name: String,
    /// For the person at the browser.
    pub message: String,
}

/// What is known of an MCP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpStatusPayload {
    /// What is known of it.
    pub status: McpStatus,
}
