//! The `Tool` trait, the registry, the built-in tools and those that projects define.
//!
//! A tool says what a call would touch, gets arguments that its schema admits, and answers with text for
//! the model. Deliberately absent: who may call a tool; sessions, runs and events.

mod bash;
mod builtin;
mod context;
mod custom;
mod error;
mod output;
pub mod patch;
mod question;
mod registry;
mod stored;
mod task;
mod todo;
mod validation;
mod webfetch;

use std::time::Duration;

use futures_util::future::BoxFuture;
use iris_agent::permissions::Access;
use iris_protocol::{QuestionItem, ToolKind};
use serde_json::Value;

pub use builtin::{image_type, replace_text};
pub use context::{
    People, PeopleReply, Places, Progress, READ_LOG_FILES_MAX, ReadLog, ToolContext,
};
pub use custom::{
    About, COMMAND_TIMEOUT_MS_DEFAULT, COMMAND_TIMEOUT_MS_MAX, HTTP_TIMEOUT_MS_MAX,
    InvalidDefinition, SecretHeader, Workshop, check_schema, origin_of,
};
pub use error::{Mistake, ToolError};
pub use output::{FileChange, OUTPUT_BYTES_MAX, TEXT, ToolOutput, WHOLE_BYTES_MAX};
pub use registry::ToolRegistry;
pub use stored::{OUTPUT_PREFIX, OutputStore};
pub use task::{SubAgents, TASK, TaskDraft, TaskReport};
pub use todo::{TodoDraft, TodoStore};
pub use validation::{
    INPUT_BYTES_MAX, INPUT_DEPTH_MAX, MISTAKES_MAX, check_parameters, is_shallow,
};
pub use webfetch::webfetch;

/// Something that a model may call.
pub trait Tool: Send + Sync {
    /// Unique in a registry; what models call it by.
    fn name(&self) -> &str;

    /// What it does, for the model.
    fn description(&self) -> &str;

    /// JSON Schema of the arguments, an object; the order of the properties is the order shown.
    fn parameters(&self) -> &Value;

    /// What a call of it does, for people.
    fn kind(&self) -> ToolKind {
        ToolKind::Builtin
    }

    /// Whether it changes something: such calls of one run are made one after the other.
    fn writes(&self) -> bool;

    /// What is wrong with arguments that the schema admits.
    ///
    /// # Errors
    ///
    /// What the model should read.
    fn check(&self, input: &Value) -> Result<(), ToolError> {
        let _ = input;
        Ok(())
    }

    /// What a call with `input` touches: the permission rules are asked about each of it. A call that
    /// names nothing waits for a person. `input` has been validated.
    fn accesses(&self, input: &Value) -> Vec<Access>;

    /// Whether it runs programs on the machine: only for users who may.
    fn runs_code(&self) -> bool {
        false
    }

    /// Whether a call of it is a command that takes a place among those that run at once.
    fn is_command(&self) -> bool {
        self.runs_code()
    }

    /// Why it cannot run on this server at all; then nobody is asked about a call.
    fn unavailable(&self) -> Option<ToolError> {
        None
    }

    /// How long a call may take; the server's own limit when it does not say.
    fn time_limit(&self, input: &Value) -> Option<Duration> {
        let _ = input;
        None
    }

    /// One sentence for the person who is asked: what exactly a call with `input` would do.
    fn summary(&self, input: &Value) -> String;

    /// What a call with `input` asks people instead of running: their answers are its result. `None` for a
    /// call that runs. `input` has been validated.
    ///
    /// # Errors
    ///
    /// What the model should read instead of an answer.
    fn asks(&self, input: &Value) -> Result<Option<Vec<QuestionItem>>, ToolError> {
        let _ = input;
        Ok(None)
    }

    /// Runs one call. `input` has been validated with [`ToolRegistry::validate`].
    ///
    /// Dropping the future ends the call: nothing waits for it any more, and work on other threads
    /// stops at its next look at [`ToolContext::cancel`]. A file that is being replaced at that moment
    /// is replaced as a whole or not at all.
    ///
    /// # Errors
    ///
    /// What the model should read instead of an output.
    fn run(
        &self,
        ctx: ToolContext,
        input: Value,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolError>>;
}
