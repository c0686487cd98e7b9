//! Projects that were cloned with git.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::SecretText;

/// Where a project is cloned from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitSource {
    /// `https`, without a name and a password, or where the server allows it another one: at most 2048 bytes.
    pub url: String,
    /// The branch to begin with; that of the repository when absent.
    #[serde(default)]
    pub branch: Option<String>,
    /// The name that goes with the token.
    #[serde(default)]
    pub username: Option<String>,
    /// A token or password. No answer has it.
    #[serde(default)]
    pub token: Option<SecretText>,
}

/// How far the clone of a project is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CloneState {
    /// The server is at it: files cannot be used yet.
    Cloning,
    /// The files are there.
    Ready,
    /// It did not work; it can be tried again.
    Failed,
}

/// What is known of a project's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectGit {
    /// Where it was cloned from, without credentials.
    pub url: String,
    /// The branch that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// How far the clone is.
    pub state: CloneState,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
