//! `edit`: one text in a file replaced by another.

use iris_protocol::limits::FILE_BYTES_MAX;
use iris_workspace::WorkspaceError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Builtin, check_cancelled, counted, object_schema, one_path, parse, shown, written};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::ToolOutput;

const NAME: &str = "edit";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Input {
    path: String,
    old_string: String,
    new_string: String,
    #[serde(default)]
    replace_all: bool,
}

pub(super) fn tool() -> Builtin {
    let properties = json!({
        "path": {"type": "string", "description": "File, relative to the project's directory"},
        "oldString": {
            "type": "string",
            "minLength": 1,
            "description": "Text to replace, exactly as in the file, without line numbers",
        },
        "newString": {"type": "string", "description": "Text to put in its place"},
        "replaceAll": {"type": "boolean", "description": "Replace every occurrence"},
    });
    Builtin {
        name: NAME,
        description: "Replaces a text in a file of the project. The text must occur exactly once \
                      unless `replaceAll` is set.",
        parameters: object_schema(&properties, &["path", "oldString", "newString"]),
        writes: true,
        paths: one_path,
        summary: |input| parse(NAME, input).ok().map(|input| summary(&input)),
        work,
    }
}

fn summary(input: &Input) -> String {
    let old = counted(input.old_string.lines().count(), "line");
    let new = counted(input.new_string.lines().count(), "line");
    let places = if input.replace_all { " wherever they occur" } else { "" };
    format!("replace {old} by {new} in {}{places}", shown(&input.path))
}

fn work(ctx: &ToolContext, input: &Value) -> Result<ToolOutput, ToolError> {
    let input: Input = parse(NAME, input)?;
    let file = ctx.workspace.read_text(&input.path, FILE_BYTES_MAX as u64)?;
    if ctx.read_log.hash(&file.path).is_some_and(|known| known != file.hash) {
        return Err(ToolError::ChangedSinceRead { path: file.path });
    }
    let (text, count) = replace(&file.path, &file.text, &input)?;
    check_cancelled(ctx)?;
    let outcome = ctx.workspace.write_if_unchanged(&input.path, text.as_bytes(), &file.hash)?;
    let change = written(ctx, outcome);
    let output = format!("edited `{}`: {}", change.path, counted(count, "replacement"));
    let metadata = json!({"path": change.path, "replacements": count, "hash": change.hash});
    Ok(ToolOutput::new(&output, metadata).with_change(change))
}

/// The new text and the number of replacements.
fn replace(path: &str, text: &str, input: &Input) -> Result<(String, usize), ToolError> {
    let Input { old_string: old, new_string: new, replace_all, .. } = input;
    if old == new {
        return Err(ToolError::NothingToChange);
    }
    let count = text.matches(old.as_str()).count();
    if count == 0 {
        return Err(ToolError::TextNotFound { path: path.to_owned() });
    }
    if count > 1 && !replace_all {
        return Err(ToolError::TextAmbiguous { path: path.to_owned(), count });
    }
    // A short text that occurs often, replaced by a long one, would fill the memory.
    let size = (text.len() - count * old.len()).saturating_add(count.saturating_mul(new.len()));
    if size > FILE_BYTES_MAX {
        let (size, size_max) = (size as u64, FILE_BYTES_MAX as u64);
        return Err(WorkspaceError::TooLarge { path: path.to_owned(), size, size_max }.into());
    }
    Ok((text.replace(old.as_str(), new), count))
}
