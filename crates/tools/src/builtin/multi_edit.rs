//! `multiEdit`: several texts in one file replaced by others, all of them or none.

use serde::Deserialize;
use serde_json::{Value, json};

use super::edit::{Replacement, known_text, replace, replacement_properties};
use super::{Builtin, check_cancelled, counted, object_schema, one_path, parse, shown, written};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::ToolOutput;

const NAME: &str = "multiEdit";
/// Most edits of one call.
const EDITS_MAX: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    path: String,
    edits: Vec<Replacement>,
}

pub(super) fn tool() -> Builtin {
    let [old, new, all] = replacement_properties();
    let edit = json!({"oldString": old, "newString": new, "replaceAll": all});
    let properties = json!({
        "path": {"type": "string", "description": "File, relative to the project's directory"},
        "edits": {
            "type": "array",
            "minItems": 1,
            "maxItems": EDITS_MAX,
            "description": "Made one after the other, each in what the ones before left",
            "items": object_schema(&edit, &["oldString", "newString"]),
        },
    });
    Builtin {
        name: NAME,
        description: "Replaces several texts in a file of the project, in order: all of them, or none \
                      when one cannot be. Each must occur exactly once unless its `replaceAll` is set.",
        parameters: object_schema(&properties, &["path", "edits"]),
        writes: true,
        targets: one_path,
        summary: |input| {
            let Input { path, edits } = parse(NAME, input).ok()?;
            Some(format!("make {} in {}", counted(edits.len(), "edit"), shown(&path)))
        },
        work,
    }
}

fn work(ctx: &ToolContext, input: &Value) -> Result<ToolOutput, ToolError> {
    let Input { path, edits } = parse(NAME, input)?;
    let file = known_text(ctx, &path)?;
    let (mut text, mut count) = (file.text, 0);
    for (index, edit) in edits.iter().enumerate() {
        check_cancelled(ctx)?;
        let (edited, replaced) = replace(&file.path, &text, edit).map_err(|error| {
            ToolError::EditFailed { pointer: format!("/edits/{index}"), source: Box::new(error) }
        })?;
        text = edited;
        count += replaced;
    }
    check_cancelled(ctx)?;
    let outcome = ctx.workspace.write_if_unchanged(&path, text.as_bytes(), &file.hash)?;
    let change = written(ctx, outcome);
    let (made, replaced) = (counted(edits.len(), "edit"), counted(count, "replacement"));
    let output = format!("edited `{}`: {made}, {replaced}", change.path);
    let metadata = json!({
        "path": change.path,
        "edits": edits.len(),
        "replacements": count,
        "hash": change.hash,
    });
    Ok(ToolOutput::new(&output, metadata).with_change(change))
}
