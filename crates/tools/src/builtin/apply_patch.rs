//! `applyPatch`: a patch of several files, all of it or nothing, as far as the disk allows.
//!
//! What every file becomes is worked out before anything is written; then each path is looked at, and
//! then one file after the other is written and at last those that go are removed, each only if it is
//! still what it was. When the disk fails or somebody comes between in the middle of that, the answer
//! says what was done and what was not.

mod perform;
mod plan;

use iris_agent::permissions::Target;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Builtin, check_cancelled, object_schema, parse, shown, target};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::ToolOutput;
use crate::patch::{self, Change, FilePatch, Patch};

const NAME: &str = "applyPatch";
/// What stands in place of the paths of a patch that has none to name.
const UNREADABLE: &str = "a patch that cannot be read";
/// Files that a summary names.
const SUMMARY_FILES_MAX: usize = 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    patch: String,
}

pub(super) fn tool() -> Builtin {
    let properties = json!({
        "patch": {
            "type": "string",
            "minLength": 1,
            "description": "From `*** Begin Patch` to `*** End Patch`, or a unified diff",
        },
    });
    Builtin {
        name: NAME,
        description: "Creates, changes, moves and deletes files of the project by a patch: all of it, or \
                      nothing when a part does not fit. Either `*** Begin Patch`, then for each file \
                      `*** Add File: path` with lines `+text`, or `*** Update File: path` (and \
                      `*** Move to: path`) with hunks, or `*** Delete File: path`, then \
                      `*** End Patch`; a hunk is `@@ line above it` or `@@`, and lines that begin with \
                      a space, `-` or `+`. Or a unified diff. Lines must match exactly and at one \
                      place only.",
        parameters: object_schema(&properties, &["patch"]),
        writes: true,
        targets,
        summary: |input| {
            let Input { patch } = parse(NAME, input).ok()?;
            Some(summary(&patch))
        },
        work,
    }
}

fn targets(input: &Value) -> Vec<Target> {
    let text = input.get("patch").and_then(Value::as_str).unwrap_or_default();
    match patch::parse(text) {
        Ok(patch) => patch.paths().map(target).collect(),
        Err(_) => vec![Target::Opaque(UNREADABLE.to_owned())],
    }
}

fn summary(text: &str) -> String {
    let Ok(Patch { files }) = patch::parse(text) else { return format!("apply {UNREADABLE}") };
    let mut named: Vec<String> = files.iter().take(SUMMARY_FILES_MAX).map(sentence).collect();
    if files.len() > SUMMARY_FILES_MAX {
        named.push(format!("and {} more", files.len() - SUMMARY_FILES_MAX));
    }
    named.join(", ")
}

fn sentence(file: &FilePatch<'_>) -> String {
    let path = shown(file.path);
    match &file.change {
        Change::Create { .. } => format!("create {path}"),
        Change::Delete { .. } => format!("delete {path}"),
        Change::Update { move_to: None, .. } => format!("change {path}"),
        Change::Update { move_to: Some(to), hunks } if hunks.is_empty() => {
            format!("move {path} to {}", shown(to))
        }
        Change::Update { move_to: Some(to), .. } => {
            format!("change {path} and move it to {}", shown(to))
        }
    }
}

fn work(ctx: &ToolContext, input: &Value) -> Result<ToolOutput, ToolError> {
    let Input { patch } = parse(NAME, input)?;
    let patch = patch::parse(&patch).map_err(ToolError::InvalidPatch)?;
    let plan = plan::plan(ctx, &patch)?;
    check_cancelled(ctx)?;
    perform::perform(ctx, &plan)
}
