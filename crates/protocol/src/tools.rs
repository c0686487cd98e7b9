//! Tools: what models may call, and those that a project defines for itself.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroize;

use crate::{ToolId, UserId};

/// A tool as a model sees it, and how a project defined it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// Absent on tools that the server brings along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ToolId>,
    /// Unique in the project.
    pub name: String,
    /// What it does.
    pub description: String,
    /// What a call of it does.
    pub kind: ToolKind,
    /// JSON Schema of its arguments.
    pub parameters: Value,
    /// Whether it changes something: such calls of one run are made one after the other. What asks is for
    /// the permission rules to say.
    pub writes: bool,
    /// Whether models are told of it and may call it.
    pub enabled: bool,
    /// Why it cannot run as it is now, in a list; absent when it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The request that a tool of the kind `http` makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTool>,
    /// The command that a tool of the kind `command` runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandTool>,
    /// How often it was written, from 1 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The user who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<UserId>,
    /// When, in milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<i64>,
    /// The user who changed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_by: Option<UserId>,
    /// When, in milliseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<i64>,
}

/// What a call of a tool does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ToolKind {
    /// What the server brings along.
    Builtin,
    /// One HTTP request.
    Http,
    /// One command in the sandbox.
    Command,
}

/// A method of a request that a tool makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names are those of RFC 9110 and RFC 5789")]
pub enum HttpMethod {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl HttpMethod {
    /// The method's name, upper case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// The request that a tool makes. `{{name}}` stands for the argument `name` of the call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpTool {
    /// The method.
    pub method: HttpMethod,
    /// An absolute URL; arguments may stand in its path and its query.
    pub url: String,
    /// Added to the query, percent-encoded. A value that is one argument alone is left out where the call
    /// does not give it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Headers that are no secrets, left out like parts of the query.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Sent as JSON. A text that is one argument alone becomes that argument, whatever its type; a field of
    /// an object is left out where the call does not give it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Names of headers whose values nobody is shown, lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_headers: Vec<String>,
    /// How long the whole request may take.
    pub timeout_ms: u64,
}

/// What a request sets of [`HttpTool`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpToolSettings {
    /// The method.
    pub method: HttpMethod,
    /// An absolute URL; scheme, host and port are literal.
    pub url: String,
    /// Added to the query.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub query: BTreeMap<String, String>,
    /// Headers that are no secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Sent as JSON; not with `GET`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Value>,
    /// Secret headers by their names; `null` takes one away. Those that are not named stay, unless the URL
    /// leads to another origin: then each has to be written again or taken away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_headers: BTreeMap<String, Option<SecretText>>,
    /// 1 to 30,000; 30,000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The command that a tool runs in the sandbox; the arguments of the call are JSON on its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandTool {
    /// The program and its arguments, as they are: no shell reads them.
    pub argv: Vec<String>,
    /// Where it starts, relative to the project's directory; there when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// How long it may run.
    pub timeout_ms: u64,
}

/// What a request sets of [`CommandTool`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CommandToolSettings {
    /// The program and its arguments, as they are: no shell reads them.
    pub argv: Vec<String>,
    /// Where it starts, relative to the project's directory; there when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// 1 to 600,000; 120,000 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// A secret on its way in. No answer and no event has one; it does not show itself and is wiped from memory
/// when dropped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Takes a secret over.
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret, for the one use that it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Defines a tool of the project: either `http` or `command`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolCreate {
    /// A letter, then up to 63 letters, digits and single `_`; unique in the project.
    pub name: String,
    /// What it does, for the model; 1 to 4096 bytes.
    pub description: String,
    /// JSON Schema of its arguments, an object without references to other documents.
    pub parameters: Value,
    /// Whether models are told of it; true when absent.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// The request that it makes.
    #[serde(default)]
    pub http: Option<HttpToolSettings>,
    /// The command that it runs.
    #[serde(default)]
    pub command: Option<CommandToolSettings>,
}

/// Changes a tool of the project, from the next call on. Name and kind stay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolUpdate {
    /// The tool.
    pub tool_id: ToolId,
    /// What it does, for the model.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    #[serde(default)]
    pub parameters: Option<Value>,
    /// Whether models are told of it.
    #[serde(default)]
    pub enabled: Option<bool>,
    /// The request that it makes: all of it, but for the secret headers.
    #[serde(default)]
    pub http: Option<HttpToolSettings>,
    /// The command that it runs: all of it.
    #[serde(default)]
    pub command: Option<CommandToolSettings>,
}

/// Deletes a tool of the project. Calls of it that run come to their end; those that wait do not run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolDelete {
    /// The tool.
    pub tool_id: ToolId,
}

/// Runs a tool of the project once, outside of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolTest {
    /// The tool, which may be disabled.
    pub tool_id: ToolId,
    /// The arguments; none when absent.
    #[serde(default)]
    pub input: Map<String, Value>,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolTestPayload {
    /// What a model would read of it; absent when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Facts for clients, an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Value>,
    /// How long it took.
    pub duration_ms: u64,
}

/// A tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ToolPayload {
    /// The tool.
    pub tool: Tool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_holds_a_secret_does_not_show_it() {
        let settings: HttpToolSettings = serde_json::from_value(serde_json::json!({
            "method": "GET", "url": "https://a.example",
            "secretHeaders": { "authorization": "Bearer 0123456789", "x-old": null },
        }))
        .unwrap();
        let shown = format!("{settings:?}");
        assert!(shown.contains("authorization") && !shown.contains("0123456789"), "{shown}");
        let secret = settings.secret_headers["authorization"].as_ref().unwrap();
        assert_eq!(secret.expose(), "Bearer 0123456789");
        assert_eq!(settings.secret_headers["x-old"], None);
    }
}
