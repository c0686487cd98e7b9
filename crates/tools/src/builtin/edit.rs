//! `edit`: one text in a file replaced by another.

use iris_protocol::limits::FILE_BYTES_MAX;
use iris_workspace::{TextContent, WorkspaceError};
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

/// One text to be replaced by another.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Replacement {
    pub(super) old_string: String,
    pub(super) new_string: String,
    #[serde(default)]
    pub(super) replace_all: bool,
}

pub(super) fn tool() -> Builtin {
    let [old, new, all] = replacement_properties();
    let properties = json!({
        "path": {"type": "string", "description": "File, relative to the project's directory"},
        "oldString": old,
        "newString": new,
        "replaceAll": all,
    });
    Builtin {
        name: NAME,
        description: "Replaces a text in a file of the project. The text must occur exactly once \
                      unless `replaceAll` is set.",
        parameters: object_schema(&properties, &["path", "oldString", "newString"]),
        writes: true,
        targets: one_path,
        summary: |input| parse(NAME, input).ok().map(|input| summary(&input)),
        work,
    }
}

/// The schemas of `oldString`, `newString` and `replaceAll`.
pub(super) fn replacement_properties() -> [Value; 3] {
    [
        json!({
            "type": "string",
            "minLength": 1,
            "description": "Text to replace, exactly as in the file, without line numbers",
        }),
        json!({"type": "string", "description": "Text to put in its place"}),
        json!({"type": "boolean", "description": "Replace every occurrence"}),
    ]
}

fn summary(input: &Input) -> String {
    let old = counted(input.old_string.lines().count(), "line");
    let new = counted(input.new_string.lines().count(), "line");
    let places = if input.replace_all { " wherever they occur" } else { "" };
    format!("replace {old} by {new} in {}{places}", shown(&input.path))
}

fn work(ctx: &ToolContext, input: &Value) -> Result<ToolOutput, ToolError> {
    let Input { path, old_string, new_string, replace_all } = parse(NAME, input)?;
    let file = known_text(ctx, &path)?;
    let replacement = Replacement { old_string, new_string, replace_all };
    let (text, count) = replace(&file.path, &file.text, &replacement)?;
    check_cancelled(ctx)?;
    let outcome = ctx.workspace.write_if_unchanged(&path, text.as_bytes(), &file.hash)?;
    let change = written(ctx, outcome);
    let output = format!("edited `{}`: {}", change.path, counted(count, "replacement"));
    let metadata = json!({"path": change.path, "replacements": count, "hash": change.hash});
    Ok(ToolOutput::new(&output, metadata).with_change(change))
}

/// The text of a file, unless the model knows another one.
pub(super) fn known_text(ctx: &ToolContext, path: &str) -> Result<TextContent, ToolError> {
    let file = ctx.workspace.read_text(path, FILE_BYTES_MAX as u64)?;
    if ctx.read_log.hash(&file.path).is_some_and(|known| known != file.hash) {
        return Err(ToolError::ChangedSinceRead { path: file.path });
    }
    Ok(file)
}

/// The text of the file `path` with `new` in the place of `old`, and how often that was replaced: exactly once,
/// unless `all`.
///
/// # Errors
///
/// `NothingToChange`, `TextNotFound`, `TextAmbiguous`, and a file that would be too large.
pub fn replace_text(
    path: &str,
    text: &str,
    old: &str,
    new: &str,
    all: bool,
) -> Result<(String, usize), ToolError> {
    if old.is_empty() {
        return Err(ToolError::TextNotFound { path: path.to_owned() });
    }
    let (old_string, new_string) = (old.to_owned(), new.to_owned());
    replace(path, text, &Replacement { old_string, new_string, replace_all: all })
}

/// The new text and the number of replacements.
pub(super) fn replace(
    path: &str,
    text: &str,
    replacement: &Replacement,
) -> Result<(String, usize), ToolError> {
    let Replacement { old_string: old, new_string: new, replace_all } = replacement;
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
