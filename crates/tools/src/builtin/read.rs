//! `read`: lines of a text file, numbered.

use futures_util::future::BoxFuture;
use iris_agent::Attached;
use iris_agent::permissions::{Access, Target};
use iris_protocol::ToolCallId;
use iris_protocol::limits::{FILE_BYTES_MAX, IMAGE_BYTES_MAX};
use iris_workspace::WorkspaceError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Builtin, image, object_schema, one_path, parse, shown};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::{OUTPUT_BYTES_MAX, TEXT, ToolOutput};
use crate::{Tool, stored};

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

/// `read`, of files and of what tools answered earlier.
pub(super) struct Read {
    files: Builtin,
}

pub(super) fn tool() -> Read {
    Read { files: of_files() }
}

impl Tool for Read {
    fn name(&self) -> &str {
        NAME
    }

    fn description(&self) -> &str {
        self.files.description()
    }

    fn parameters(&self) -> &Value {
        self.files.parameters()
    }

    fn writes(&self) -> bool {
        false
    }

    fn accesses(&self, input: &Value) -> Vec<Access> {
        let path = input.get("path").and_then(Value::as_str).unwrap_or_default();
        match stored::call_of(path) {
            Some(_) => vec![Access::read(NAME, Target::Text(path.to_owned()))],
            None => self.files.accesses(input),
        }
    }

    fn summary(&self, input: &Value) -> String {
        self.files.summary(input)
    }

    fn run(
        &self,
        ctx: ToolContext,
        input: Value,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        let path = input.get("path").and_then(Value::as_str).unwrap_or_default();
        match stored::call_of(path) {
            Some(call_id) => Box::pin(read_output(ctx, call_id, input)),
            None => self.files.run(ctx, input),
        }
    }
}

/// Reads on in what a tool answered.
async fn read_output(
    ctx: ToolContext,
    call_id: ToolCallId,
    input: Value,
) -> Result<ToolOutput, ToolError> {
    let Input { path, offset, limit } = parse(NAME, &input)?;
    let unreadable = |problem: String| ToolError::NoOutput { path: path.clone(), problem };
    let outputs = ctx.outputs().ok_or_else(|| unreadable("there is no session".to_owned()))?;
    let found = outputs.output(call_id).await.map_err(unreadable)?;
    let found = found.ok_or_else(|| {
        unreadable("nothing is kept of that call, or it is one of another session".to_owned())
    })?;
    let text = std::str::from_utf8(&found.bytes).ok().filter(|_| found.mime_type == TEXT);
    let text = text.ok_or_else(|| unreadable(format!("it is {}", found.mime_type)))?;
    let text = wrapped(text);
    let (page, lines) = page(&path, &text, offset, limit)?;
    let (first, line_count) = (page.first, page.line_count);
    let metadata = json!({
        "path": path,
        "firstLine": first,
        "lastLine": page.last,
        "lineCount": line_count,
    });
    Ok(ToolOutput::new(&lines.join("\n"), metadata))
}

/// Long lines as several, so that all of them can be read.
fn wrapped(text: &str) -> String {
    let mut wrapped = String::with_capacity(text.len());
    for line in text.lines() {
        for (index, character) in line.chars().enumerate() {
            if index > 0 && index % LINE_CHARS_MAX == 0 {
                wrapped.push('\n');
            }
            wrapped.push(character);
        }
        wrapped.push('\n');
    }
    wrapped
}

fn of_files() -> Builtin {
    let properties = json!({
        "path": {"type": "string", "description": "File, relative to the project's directory"},
        "offset": {"type": "integer", "minimum": 1, "description": "First line, from 1"},
        "limit": {"type": "integer", "minimum": 1, "description": "Lines, at most and by default 2000"},
    });
    Builtin {
        name: NAME,
        description: "Reads a text file of the project, whose lines come with their numbers, or an image.",
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
    let file = match file {
        Ok(file) => file,
        Err(error) => return image(ctx, error),
    };
    let (page, mut lines) = page(&file.path, &file.text, offset, limit)?;
    let metadata = json!({
        "path": file.path,
        "hash": file.hash,
        "firstLine": page.first,
        "lastLine": page.last,
        "lineCount": page.line_count,
    });
    if file.text.is_empty() {
        lines.push("(the file is empty)".to_owned());
    }
    if file.text.contains("\r\n") {
        lines.push("(lines end with \\r\\n)".to_owned());
    }
    ctx.read_log.record(file.path, file.hash);
    Ok(ToolOutput::new(&lines.join("\n"), metadata))
}

/// A binary file as an image, if it is one that models can be shown.
fn image(ctx: &ToolContext, error: WorkspaceError) -> Result<ToolOutput, ToolError> {
    let WorkspaceError::IsBinary { path } = &error else { return Err(error.into()) };
    let Ok(file) = ctx.workspace.read_beginning(path, FILE_BYTES_MAX as u64, IMAGE_BYTES_MAX)
    else {
        return Err(error.into());
    };
    let Some(kind) = image::kind(&file.bytes) else { return Err(error.into()) };
    let size = file.info.size;
    if size != file.bytes.len() as u64 {
        return Err(ToolError::IsImage { path: path.clone(), kind: kind.name(), size });
    }
    let text = format!("{} is a {} image of {size} bytes", shown(path), kind.name());
    let metadata = json!({ "path": path, "mimeType": kind.mime_type(), "size": size });
    let attachment = Attached { mime_type: kind.mime_type().to_owned(), bytes: file.bytes.into() };
    Ok(ToolOutput::new(&text, metadata).with_attachment(attachment))
}

/// A page of a text, and its lines with what has to be said about them.
fn page(
    path: &str,
    text: &str,
    offset: Option<usize>,
    limit: Option<usize>,
) -> Result<(Page, Vec<String>), ToolError> {
    let (first, line_count) = (offset.unwrap_or(1), text.lines().count());
    if first > line_count.max(1) {
        return Err(ToolError::OffsetPastEnd { path: path.to_owned(), offset: first, line_count });
    }
    let mut page = Page::new(text, first, limit.unwrap_or(LINES_MAX).min(LINES_MAX));
    page.line_count = line_count;
    let mut lines = std::mem::take(&mut page.lines);
    if page.last < line_count {
        let (last, next) = (page.last, page.last + 1);
        lines.push(format!(
            "(lines {first} to {last} of {line_count}; continue with offset {next})"
        ));
    }
    if page.has_cut_lines {
        lines.push(format!("(lines are cut after {LINE_CHARS_MAX} characters)"));
    }
    Ok((page, lines))
}

/// Numbered lines, as many as fit.
struct Page {
    /// Number of the first line.
    first: usize,
    /// Of the whole text.
    line_count: usize,
    lines: Vec<String>,
    /// Number of the last line; one less than the first if there is none.
    last: usize,
    has_cut_lines: bool,
}

impl Page {
    fn new(text: &str, first: usize, count_max: usize) -> Self {
        let (lines, last) = (Vec::new(), first - 1);
        let mut page = Self { first, line_count: 0, lines, last, has_cut_lines: false };
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
