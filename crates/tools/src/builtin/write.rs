//! `write`: a whole file.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Builtin, check_cancelled, counted, object_schema, one_path, parse, shown, written};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::ToolOutput;

const NAME: &str = "write";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    path: String,
    content: String,
}

pub(super) fn tool() -> Builtin {
    let properties = json!({
        "path": {"type": "string", "description": "File, relative to the project's directory"},
        "content": {"type": "string", "description": "The whole new content"},
    });
    Builtin {
        name: NAME,
        description: "Creates a file of the project, or replaces all of it. Missing directories are \
                      created.",
        parameters: object_schema(&properties, &["path", "content"]),
        writes: true,
        targets: one_path,
        summary: |input| {
            let Input { path, content } = parse(NAME, input).ok()?;
            let lines = counted(content.lines().count(), "line");
            Some(format!("write {lines} to {}", shown(&path)))
        },
        work,
    }
}

fn work(ctx: &ToolContext, input: &Value) -> Result<ToolOutput, ToolError> {
    let Input { path, content } = parse(NAME, input)?;
    check_cancelled(ctx)?;
    let change = written(ctx, ctx.workspace.write(&path, content.as_bytes())?);
    let verb = if change.created { "created" } else { "replaced" };
    let lines = counted(content.lines().count(), "line");
    let output = format!("{verb} `{}`: {lines}, {} bytes", change.path, change.size);
    let metadata = json!({"path": change.path, "created": change.created, "hash": change.hash});
    Ok(ToolOutput::new(&output, metadata).with_change(change))
}
