//! `glob`: files by the pattern of their path.

use iris_protocol::PermissionAction;
use iris_workspace::SearchLimits;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Builtin, cut_note, object_schema, one_path, parse, shown};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::{OUTPUT_BYTES_MAX, ToolOutput};

const NAME: &str = "glob";
/// Bytes of paths in one answer; line ends and a note need room too.
const PATH_BYTES_MAX: usize = OUTPUT_BYTES_MAX - 4 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    pattern: String,
    path: Option<String>,
}

pub(super) fn tool() -> Builtin {
    let properties = json!({
        "pattern": {
            "type": "string",
            "minLength": 1,
            "description": "Glob such as `src/**/*.rs`; without `/` it matches names at any depth",
        },
        "path": {"type": "string", "description": "Directory to start in; by default the project's"},
    });
    Builtin {
        name: NAME,
        description: "Finds files of the project whose path matches a glob, without ignored ones.",
        parameters: object_schema(&properties, &["pattern"]),
        writes: false,
        targets: one_path,
        summary: |input| {
            let input: Input = parse(NAME, input).ok()?;
            Some(format!("find files that match {}", shown(&input.pattern)))
        },
        work,
    }
}

fn work(ctx: &ToolContext, input: &Value) -> Result<ToolOutput, ToolError> {
    let Input { pattern, path } = parse(NAME, input)?;
    let path = path.as_deref().unwrap_or(".");
    let limits = SearchLimits { result_bytes_max: PATH_BYTES_MAX, ..SearchLimits::default() };
    let mut listing = ctx.workspace.glob(&pattern, path, &limits, ctx.cancel())?;
    listing.entries.retain(|entry| ctx.may_read(NAME, &entry.path) != PermissionAction::Deny);
    let (count, cut) = (listing.entries.len(), listing.cut);
    let mut lines: Vec<String> = listing.entries.into_iter().map(|entry| entry.path).collect();
    if lines.is_empty() {
        lines.push("(no file matches)".to_owned());
    }
    lines.extend(cut.map(|cut| cut_note(cut).to_owned()));
    let metadata = json!({"count": count, "truncated": cut.is_some()});
    Ok(ToolOutput::new(&lines.join("\n"), metadata))
}
