//! The tools on files that every project has: `read`, `write`, `edit`, `multiEdit`, `applyPatch`, `list`,
//! `glob`, `grep`.
//!
//! Each is a function on a project's files that blocks; this file runs them on blocking threads.

mod apply_patch;
mod edit;
mod glob;
mod grep;
mod image;
mod list;
mod multi_edit;
mod read;
mod write;

pub use edit::replace_text;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use iris_agent::permissions::{Access, Target};
use iris_workspace::{Cancel, Cut, RelPath, WriteOutcome};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Tool;
use crate::context::ToolContext;
use crate::error::{Mistake, ToolError};
use crate::output::{FileChange, ToolOutput};

/// What kind of image begins with `bytes`, as IANA has registered it; none for anything else.
pub fn image_type(bytes: &[u8]) -> Option<&'static str> {
    image::kind(bytes).map(image::Kind::mime_type)
}

/// How much of a path or a pattern a summary shows, in characters.
const SUMMARY_CHARS_MAX: usize = 200;

/// The built-in tools, in the order in which models are told of them.
pub(crate) fn tools() -> Vec<Arc<dyn Tool>> {
    let others = [
        write::tool(),
        edit::tool(),
        multi_edit::tool(),
        apply_patch::tool(),
        list::tool(),
        glob::tool(),
        grep::tool(),
    ];
    let read: Arc<dyn Tool> = Arc::new(read::tool());
    let others = others.into_iter().map(|tool| Arc::new(tool) as Arc<dyn Tool>);
    std::iter::once(read).chain(others).collect()
}

/// A tool that is a function on a project's files.
struct Builtin {
    name: &'static str,
    description: &'static str,
    parameters: Value,
    writes: bool,
    /// What a call touches.
    targets: fn(&Value) -> Vec<Target>,
    /// Says what a call would do; `None` when the arguments are not valid.
    summary: fn(&Value) -> Option<String>,
    work: fn(&ToolContext, &Value) -> Result<ToolOutput, ToolError>,
}

impl Tool for Builtin {
    fn name(&self) -> &str {
        self.name
    }

    fn description(&self) -> &str {
        self.description
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn writes(&self) -> bool {
        self.writes
    }

    fn accesses(&self, input: &Value) -> Vec<Access> {
        let access = if self.writes { Access::edit } else { Access::read };
        (self.targets)(input).into_iter().map(|target| access(self.name, target)).collect()
    }

    fn summary(&self, input: &Value) -> String {
        (self.summary)(input)
            .unwrap_or_else(|| format!("call `{}` with invalid arguments", self.name))
    }

    fn run(
        &self,
        ctx: ToolContext,
        input: Value,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        let (name, work) = (self.name, self.work);
        let guard = CancelOnDrop(ctx.cancel().clone());
        Box::pin(async move {
            let _guard = guard;
            on_its_own_thread(name, move || work(&ctx, &input)).await
        })
    }
}

/// Does what blocks where it may. A panic is a failure of the tool.
pub(crate) async fn on_its_own_thread(
    tool: &'static str,
    work: impl FnOnce() -> Result<ToolOutput, ToolError> + Send + 'static,
) -> Result<ToolOutput, ToolError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => Err(ToolError::Crashed { tool: tool.to_owned() }),
        Err(_) => Err(ToolError::Cancelled),
    }
}

/// The one path that a call names in `path`; the project's directory when it names none.
fn one_path(input: &Value) -> Vec<Target> {
    vec![target(input.get("path").and_then(Value::as_str).unwrap_or("."))]
}

/// What permission rules are asked about when a call touches `path`.
pub(crate) fn target(path: &str) -> Target {
    match RelPath::dir(path) {
        Ok(path) => Target::Path(path.to_string()),
        Err(_) => Target::Outside(path.to_owned()),
    }
}

/// Tells a blocking thread that nobody waits for it.
pub(crate) struct CancelOnDrop(pub(crate) Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A schema for an object with these properties, in this order, and no others.
pub(crate) fn object_schema(properties: &Value, required: &[&str]) -> Value {
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// Takes validated arguments apart.
pub(crate) fn parse<'a, T: Deserialize<'a>>(tool: &str, input: &'a Value) -> Result<T, ToolError> {
    T::deserialize(input).map_err(|error| ToolError::InvalidInput {
        tool: tool.to_owned(),
        mistakes: vec![Mistake { pointer: String::new(), problem: error.to_string() }],
    })
}

/// A path or a pattern for people: in backticks, each character visible, not too long.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::from("`");
    for (index, character) in text.chars().enumerate() {
        if index == SUMMARY_CHARS_MAX {
            shown.push('…');
            break;
        }
        match character {
            '\\' | '"' | '\'' => shown.push(character),
            '`' => shown.extend(character.escape_unicode()),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown.push('`');
    shown
}

/// `1 line`, `2 lines`.
fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// What the model is told when a listing or a search stopped early.
fn cut_note(cut: Cut) -> &'static str {
    match cut {
        Cut::Entries => "(stopped: too many files; give a narrower path)",
        Cut::Results | Cut::Bytes => "(stopped: too many results; ask for something narrower)",
        Cut::Time => "(stopped: it took too long; give a narrower path)",
    }
}

/// Notes the new content as known to the model and reports it.
fn written(ctx: &ToolContext, outcome: WriteOutcome) -> FileChange {
    let WriteOutcome { path, created, size, hash } = outcome;
    ctx.read_log.record(path.clone(), hash.clone());
    FileChange { path, created, size, hash }
}

fn check_cancelled(ctx: &ToolContext) -> Result<(), ToolError> {
    if ctx.cancel().is_cancelled() { Err(ToolError::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use iris_agent::permissions::Judge;
    use iris_protocol::SessionMode;
    use iris_workspace::Workspace;
    use tempfile::TempDir;

    use super::*;
    use crate::ReadLog;

    fn context() -> (TempDir, ToolContext, Arc<ReadLog>) {
        let temp = tempfile::tempdir().unwrap();
        let log = Arc::new(ReadLog::new());
        let workspace = Workspace::open(temp.path()).unwrap();
        let judge = Arc::new(Judge::new(SessionMode::Default, vec![]));
        let ctx = ToolContext::new(workspace, Arc::clone(&log), judge);
        (temp, ctx, log)
    }

    fn tool_that(work: fn(&ToolContext, &Value) -> Result<ToolOutput, ToolError>) -> Builtin {
        let parameters = object_schema(&json!({}), &[]);
        let summary = |_: &Value| None;
        let targets = one_path;
        let (name, description, writes) = ("probe", "", false);
        Builtin { name, description, parameters, writes, targets, summary, work }
    }

    /// Works until it is cancelled; says so in the read log.
    fn wait_for_cancel(ctx: &ToolContext, _: &Value) -> Result<ToolOutput, ToolError> {
        ctx.read_log.record("started".to_owned(), String::new());
        while !ctx.cancel().is_cancelled() {
            thread::yield_now();
        }
        ctx.read_log.record("stopped".to_owned(), String::new());
        Err(ToolError::Cancelled)
    }

    #[tokio::test]
    async fn dropping_the_future_stops_the_blocking_thread() {
        let (_temp, ctx, log) = context();
        let call = tokio::spawn(tool_that(wait_for_cancel).run(ctx, json!({})));
        while log.hash("started").is_none() {
            tokio::task::yield_now().await;
        }
        call.abort();
        while log.hash("stopped").is_none() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_tool_that_panics_fails_its_call_only() {
        let (_temp, ctx, _) = context();
        let error = tool_that(|_, _| panic!("on purpose")).run(ctx, json!({})).await.unwrap_err();
        assert!(matches!(error, ToolError::Crashed { tool } if tool == "probe"));
    }

    #[test]
    fn writing_tools_do_nothing_once_cancelled() {
        let (temp, ctx, _) = context();
        std::fs::write(temp.path().join("a"), "old").unwrap();
        ctx.cancel().cancel();
        let input = json!({"path": "a", "content": "new", "oldString": "old", "newString": "new"});
        let only = |names: [&str; 3]| {
            let fields = input.as_object().unwrap().clone().into_iter();
            Value::Object(fields.filter(|(name, _)| names.contains(&name.as_str())).collect())
        };
        let write = (write::tool().work)(&ctx, &only(["path", "content", ""]));
        let edit = (edit::tool().work)(&ctx, &only(["path", "oldString", "newString"]));
        let edits = json!({"path": "a", "edits": [{"oldString": "old", "newString": "new"}]});
        let multi_edit = (multi_edit::tool().work)(&ctx, &edits);
        let patch = "*** Begin Patch\n*** Update File: a\n-old\n+new\n*** End Patch";
        let apply_patch = (apply_patch::tool().work)(&ctx, &json!({ "patch": patch }));
        for result in [write, edit, multi_edit, apply_patch] {
            assert!(matches!(result, Err(ToolError::Cancelled)));
        }
        assert_eq!(std::fs::read_to_string(temp.path().join("a")).unwrap(), "old");
    }
}
