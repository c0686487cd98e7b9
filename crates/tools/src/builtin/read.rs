//! `read`: lines of a text file, numbered.

use iris_protocol::limits::FILE_BYTES_MAX;
use iris_workspace::WorkspaceError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Builtin, image, object_schema, one_path, parse, shown};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::{OUTPUT_BYTES_MAX, ToolOutput};

const NAME: &str = "read";
/// Lines of one answer.
const LINES_MAX: usize = 2000;
/// Characters of one line.
const LINE_CHARS_MAX: usize = 2000;
/// Bytes of lines in one answer; the rest is for the notes below them.
const PAGE_BYTES_MAX: usize = OUTPUT_BYTES_MAX - 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    path: String,
    offset: Option<usize>,
    limit: Option<usize>,
}

pub(super) fn tool() -> Builtin {
    let properties = json!({
        "path": {"type": "string", "description": "File, relative to the project's directory"},
        "offset": {"type": "integer", "minimum": 1, "description": "First line, from 1"},
        "limit": {"type": "integer", "minimum": 1, "description": "Lines, at most and by default 2000"},
    });
    Builtin {
        name: NAME,
        description: "Reads a text file of the project. Each line comes with its number.",
        parameters: object_schema(&properties, &["path"]),
        writes: false,
        targets: one_path,
        summary: |input| {
            let input: Input = parse(NAME, input).ok()?;
            Some(format!("read {}", shown(&input.path)))
        },
        work,
    }
}

fn work(ctx: &ToolContext, input: &Value) -> Result<ToolOutput, ToolError> {
    let Input { path, offset, limit } = parse(NAME, input)?;
    let file = ctx.workspace.read_text(&path, FILE_BYTES_MAX as u64);
    let file = file.map_err(|error| named_image(ctx, error))?;
    let (first, line_count) = (offset.unwrap_or(1), file.text.lines().count());
    if first > line_count.max(1) {
        return Err(ToolError::OffsetPastEnd { path: file.path, offset: first, line_count });
    }
    let page = Page::new(&file.text, first, limit.unwrap_or(LINES_MAX).min(LINES_MAX));
    let metadata = json!({
        "path": file.path,
        "hash": file.hash,
        "firstLine": first,
        "lastLine": page.last,
        "lineCount": line_count,
    });
    let mut lines = page.lines;
    if file.text.is_empty() {
        lines.push("(the file is empty)".to_owned());
    }
    if page.last < line_count {
        let (last, next) = (page.last, page.last + 1);
        lines.push(format!(
            "(lines {first} to {last} of {line_count}; continue with offset {next})"
        ));
    }
    if page.has_cut_lines {
        lines.push(format!("(lines are cut after {LINE_CHARS_MAX} characters)"));
    }
    if file.text.contains("\r\n") {
        lines.push("(lines end with \\r\\n)".to_owned());
    }
    ctx.read_log.record(file.path, file.hash);
    Ok(ToolOutput::new(&lines.join("\n"), metadata))
}

/// Says that a binary file is an image, if it is one.
fn named_image(ctx: &ToolContext, error: WorkspaceError) -> ToolError {
    if let WorkspaceError::IsBinary { path } = &error
        && let Ok(file) = ctx.workspace.read_beginning(path, FILE_BYTES_MAX as u64, 12)
        && let Some(kind) = image::kind(&file.bytes)
    {
        return ToolError::IsImage { path: path.clone(), kind, size: file.info.size };
    }
    error.into()
}

/// Numbered lines, as many as fit.
struct Page {
    lines: Vec<String>,
    /// Number of the last line; one less than the first if there is none.
    last: usize,
    has_cut_lines: bool,
}

impl Page {
    fn new(text: &str, first: usize, count_max: usize) -> Self {
        let mut page = Self { lines: Vec::new(), last: first - 1, has_cut_lines: false };
        let mut bytes_left = PAGE_BYTES_MAX;
        for line in text.lines().skip(first - 1).take(count_max) {
            let shown = match line.char_indices().nth(LINE_CHARS_MAX) {
                Some((end, _)) => line.get(..end).unwrap_or(line),
                None => line,
            };
            let numbered = format!("{:>6}\t{shown}", page.last + 1);
            let Some(left) = bytes_left.checked_sub(numbered.len() + 1) else { break };
            bytes_left = left;
            page.lines.push(numbered);
            page.last += 1;
            page.has_cut_lines |= shown.len() < line.len();
        }
        page
    }
}
