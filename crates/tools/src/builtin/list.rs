//! `list`: what is in a directory.

use iris_protocol::PermissionAction;
use iris_workspace::{EntryKind, ListEntry, SearchLimits};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Builtin, cut_note, object_schema, one_path, parse, shown};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::{OUTPUT_BYTES_MAX, ToolOutput};

const NAME: &str = "list";
/// Levels that one call may look down.
const DEPTH_MAX: usize = 10;
/// Bytes of paths in one answer; line ends, marks and a note need room too.
const PATH_BYTES_MAX: usize = OUTPUT_BYTES_MAX - 16 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    path: Option<String>,
    depth: Option<usize>,
}

pub(super) fn tool() -> Builtin {
    let properties = json!({
        "path": {"type": "string", "description": "Directory; by default the project's"},
        "depth": {
            "type": "integer",
            "minimum": 1,
            "maximum": DEPTH_MAX,
            "description": "Levels to look down, by default 1",
        },
    });
    Builtin {
        name: NAME,
        description: "Lists files and directories of the project, without ignored ones. A directory \
                      ends with `/`.",
        parameters: object_schema(&properties, &[]),
        writes: false,
        targets: one_path,
        summary: |input| {
            let input: Input = parse(NAME, input).ok()?;
            Some(format!("list {}", shown(input.path.as_deref().unwrap_or("."))))
        },
        work,
    }
}

fn work(ctx: &ToolContext, input: &Value) -> Result<ToolOutput, ToolError> {
    let Input { path, depth } = parse(NAME, input)?;
    let path = path.as_deref().unwrap_or(".");
    let limits = SearchLimits { result_bytes_max: PATH_BYTES_MAX, ..SearchLimits::default() };
    let depth = depth.unwrap_or(1).min(DEPTH_MAX);
    let mut listing = ctx.workspace.list(path, depth, &limits, ctx.cancel())?;
    listing.entries.retain(|entry| ctx.may_read(NAME, &entry.path) != PermissionAction::Deny);
    let mut lines: Vec<String> = listing.entries.iter().map(line).collect();
    if lines.is_empty() {
        lines.push("(nothing there, or everything is ignored)".to_owned());
    }
    lines.extend(listing.cut.map(|cut| cut_note(cut).to_owned()));
    let metadata = json!({"count": listing.entries.len(), "truncated": listing.cut.is_some()});
    Ok(ToolOutput::new(&lines.join("\n"), metadata))
}

fn line(entry: &ListEntry) -> String {
    let mark = match entry.kind {
        EntryKind::File => "",
        EntryKind::Directory => "/",
        EntryKind::Link => " (link)",
        EntryKind::Other => " (special)",
    };
    format!("{}{mark}", entry.path)
}
