//! `grep`: lines by a regular expression.

use iris_protocol::PermissionAction;
use iris_workspace::{GREP_CONTEXT_MAX, GrepFile, GrepOutcome, GrepQuery, SearchLimits};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Builtin, counted, cut_note, object_schema, one_path, parse, shown};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::{OUTPUT_BYTES_MAX, ToolOutput};

const NAME: &str = "grep";
/// Matching lines of one answer.
const MATCHES_MAX: usize = 200;
/// Bytes of lines in one answer; paths and line numbers need room too.
const LINE_BYTES_MAX: usize = OUTPUT_BYTES_MAX / 2;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Input {
    pattern: String,
    path: Option<String>,
    include: Option<String>,
    context: Option<usize>,
    #[serde(default)]
    ignore_case: bool,
}

pub(super) fn tool() -> Builtin {
    let properties = json!({
        "pattern": {
            "type": "string",
            "minLength": 1,
            "description": "Regular expression, matched line by line",
        },
        "path": {"type": "string", "description": "Directory or file; by default the whole project"},
        "include": {"type": "string", "minLength": 1, "description": "Glob of the files to search"},
        "context": {
            "type": "integer",
            "minimum": 0,
            "maximum": GREP_CONTEXT_MAX,
            "description": "Lines to show before and after each match, by default 0",
        },
        "ignoreCase": {"type": "boolean", "description": "Whether `A` matches `a`"},
    });
    Builtin {
        name: NAME,
        description: "Searches the text of the project's files, without ignored and binary ones. \
                      Matching lines are shown as `number: text`, context as `number- text`.",
        parameters: object_schema(&properties, &["pattern"]),
        writes: false,
        targets: one_path,
        summary: |input| {
            let input: Input = parse(NAME, input).ok()?;
            Some(format!("search files for {}", shown(&input.pattern)))
        },
        work,
    }
}

fn work(ctx: &ToolContext, input: &Value) -> Result<ToolOutput, ToolError> {
    let input: Input = parse(NAME, input)?;
    let query = GrepQuery {
        pattern: input.pattern,
        path: input.path.unwrap_or_else(|| ".".to_owned()),
        include: input.include,
        context: input.context.unwrap_or(0),
        ignore_case: input.ignore_case,
    };
    let limits = SearchLimits {
        results_max: MATCHES_MAX,
        result_bytes_max: LINE_BYTES_MAX,
        ..SearchLimits::default()
    };
    let admits = |path: &str| ctx.may_read(NAME, path) == PermissionAction::Allow;
    let found = ctx.workspace.grep(&query, &admits, &limits, ctx.cancel())?;
    let metadata = json!({
        "matches": found.match_count,
        "files": found.files.len(),
        "skipped": found.skipped_count,
        "withheld": found.withheld_count,
        "truncated": found.cut.is_some(),
    });
    Ok(ToolOutput::new(&render(&found, query.context > 0), metadata))
}

fn render(found: &GrepOutcome, has_context: bool) -> String {
    let mut lines = Vec::new();
    for file in &found.files {
        push_file(&mut lines, file, has_context);
    }
    let files = counted(found.files.len(), "file");
    lines.push(match found.match_count {
        0 => "(no match)".to_owned(),
        1 => format!("(1 match in {files})"),
        many => format!("({many} matches in {files})"),
    });
    if found.skipped_count > 0 {
        let skipped = counted(found.skipped_count, "file");
        lines.push(format!("({skipped} not searched: too large, binary or not readable)"));
    }
    if found.withheld_count > 0 {
        let withheld = counted(found.withheld_count, "file");
        lines.push(format!("({withheld} not searched: reading them needs permission)"));
    }
    lines.extend(found.cut.map(|cut| cut_note(cut).to_owned()));
    lines.join("\n")
}

/// The path on its own line, then the lines; `--` where lines between two shown ones are missing.
fn push_file(lines: &mut Vec<String>, file: &GrepFile, has_context: bool) {
    lines.push(file.path.clone());
    let mut previous = None;
    for line in &file.lines {
        if has_context && previous.is_some_and(|previous| previous + 1 != line.number) {
            lines.push("--".to_owned());
        }
        let mark = if line.is_match { ':' } else { '-' };
        lines.push(format!("{}{mark} {}", line.number, line.text));
        previous = Some(line.number);
    }
    lines.push(String::new());
}
