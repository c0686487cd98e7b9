//! Tools that a project defines: one HTTP request, or one command in the sandbox.
//!
//! A definition is checked where the tool is made, so that nothing is stored that could not run. Secrets come
//! in opened and never go out: what a request says of them is blotted out of everything that comes back.

mod body;
mod command;
mod http;
mod schema;
mod template;
mod url;

use std::fmt;
use std::sync::Arc;

use iris_egress::Egress;
use iris_protocol::{CommandTool, HttpTool};
use iris_sandbox::Sandbox;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::Tool;

pub use self::http::HTTP_TIMEOUT_MS_MAX;
pub use self::url::origin_of;
pub use command::{COMMAND_TIMEOUT_MS_DEFAULT, COMMAND_TIMEOUT_MS_MAX};
pub use schema::check_schema;

/// Longest name of a tool.
const NAME_BYTES_MAX: usize = 64;

/// What is wrong with the definition of a tool: one sentence that names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDefinition(String);

impl InvalidDefinition {
    /// A sentence about what is wrong.
    pub fn new(problem: impl Into<String>) -> Self {
        Self(problem.into())
    }
}

/// What all tools of a project have.
#[derive(Debug, Clone)]
pub struct About {
    /// Of the definition.
    pub id: String,
    /// How often it was written: who said yes to one revision did not to another.
    pub revision: u64,
    /// What models call it by.
    pub name: String,
    /// For the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
}

impl About {
    /// The beginning of each summary: which definition it is about.
    fn summary(&self) -> String {
        let Self { name, id, revision, .. } = self;
        format!("call the tool `{name}` (revision {revision} of {id})")
    }
}

/// A header of a request whose value nobody is shown.
#[derive(Clone)]
pub struct SecretHeader {
    /// Lower case.
    pub name: String,
    /// None when it could not be opened: then the tool cannot run.
    pub value: Option<Zeroizing<String>>,
}

impl fmt::Debug for SecretHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretHeader").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Makes the tools of projects with what the server has.
#[derive(Clone, Default)]
pub struct Workshop {
    egress: Option<Arc<Egress>>,
    sandbox: Option<Sandbox>,
}

impl Workshop {
    /// A workshop whose tools go out through `egress` and run commands in `sandbox`, where there are any.
    pub fn new(egress: Option<Arc<Egress>>, sandbox: Option<Sandbox>) -> Self {
        Self { egress, sandbox }
    }

    /// A tool that makes one request.
    ///
    /// # Errors
    /// [`InvalidDefinition`].
    pub fn http(
        &self,
        about: About,
        http: &HttpTool,
        secrets: Vec<SecretHeader>,
    ) -> Result<Arc<dyn Tool>, InvalidDefinition> {
        check_about(&about)?;
        Ok(Arc::new(http::Http::new(about, http, secrets, self.egress.clone())?))
    }

    /// A tool that runs one command.
    ///
    /// # Errors
    /// [`InvalidDefinition`].
    pub fn command(
        &self,
        about: About,
        command: &CommandTool,
    ) -> Result<Arc<dyn Tool>, InvalidDefinition> {
        check_about(&about)?;
        Ok(Arc::new(command::CustomCommand::new(about, command, self.sandbox.clone())?))
    }
}

fn check_about(about: &About) -> Result<(), InvalidDefinition> {
    if !is_name(&about.name) {
        return Err(invalid(format!(
            "`name` must be a letter and at most {} letters, digits and single `_`",
            NAME_BYTES_MAX - 1
        )));
    }
    if about.description.trim().is_empty() {
        return Err(invalid("`description` must say what the tool does"));
    }
    check_schema("parameters", &about.parameters)
}

/// Two underscores stand between the names of a server and of its tool.
fn is_name(name: &str) -> bool {
    let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    begins_well && is_word && name.len() <= NAME_BYTES_MAX && !name.contains("__")
}

fn invalid(problem: impl Into<String>) -> InvalidDefinition {
    InvalidDefinition::new(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_without_the_mark_of_servers() {
        for name in ["a", "weather", "get_it2", "A_", &"x".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "1a", "_a", "a__b", "a-b", "a.b", "ä", "a b", &"x".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
