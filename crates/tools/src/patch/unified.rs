//! Unified diffs, as `diff -u` and git write them.
//!
//! `a/` and `b/` in front of the two names of a file are those of git, and taken away; with `/dev/null`
//! as the other name one of them is enough. What a text patch cannot say is refused: binary content,
//! copies, links and modes other than that of a plain file.

use super::lines::{Header, Lines, named};
use super::{Budget, Change, FilePatch, Hunk, LineKind, PatchError, shown};

/// The name of a file that is not there.
const NOTHING: &str = "/dev/null";
/// Lines of git's header that say nothing of what is to be done.
const HEADER_NOISE: [&str; 3] = ["index ", "similarity index ", "dissimilarity index "];

pub(super) fn parse<'a>(
    lines: &mut Lines<'a>,
    budget: &mut Budget,
) -> Result<Vec<FilePatch<'a>>, PatchError> {
    let mut files = Vec::new();
    loop {
        lines.skip_blank();
        let Some(found) = lines.peek() else { return Ok(files) };
        let line = lines.number();
        let file = if found.starts_with("diff ") {
            lines.next();
            with_header(line, lines, budget)?
        } else if lines.is_at_file_names() {
            file(None, lines, budget)?
        } else {
            let problem = format!(
                "expected `*** Begin Patch`, or `--- path` and `+++ path`, and found {}; a line that \
                 belongs to a hunk stands here when the numbers behind `@@` are too small",
                shown(found)
            );
            return Err(PatchError::at(line, problem));
        };
        budget.take_file(line)?;
        files.push(file);
    }
}

/// The names that a file has before and after.
type Names<'a> = (&'a str, &'a str);

/// Reads a file whose line `diff ..` has been read.
fn with_header<'a>(
    line: usize,
    lines: &mut Lines<'a>,
    budget: &mut Budget,
) -> Result<FilePatch<'a>, PatchError> {
    let (mut from, mut to) = (None, None);
    while let Some(found) = lines.peek() {
        if lines.is_at_file_names() || found.starts_with("diff ") || found.trim().is_empty() {
            break;
        }
        let number = lines.number();
        if let Some(path) = lines.take_after("rename from ") {
            from = Some(named(number, path)?);
        } else if let Some(path) = lines.take_after("rename to ") {
            to = Some(named(number, path)?);
        } else if is_plain(found) || HEADER_NOISE.iter().any(|noise| found.starts_with(noise)) {
            lines.next();
        } else {
            let problem = format!("this cannot be done by a patch: {}", shown(found));
            return Err(PatchError::at(number, problem));
        }
    }
    let renamed = from.zip(to);
    if lines.is_at_file_names() {
        return file(renamed, lines, budget);
    }
    let Some((path, to)) = renamed else {
        return Err(PatchError::at(line, "nothing says what becomes of this file"));
    };
    let change = Change::Update { move_to: Some(to), hunks: Vec::new() };
    Ok(FilePatch { line, path, change })
}

/// Whether a line says that a file is or was a plain one.
fn is_plain(line: &str) -> bool {
    let line = line.trim_end();
    line == "new file mode 100644"
        || matches!(line, "deleted file mode 100644" | "deleted file mode 100755")
}

fn file<'a>(
    renamed: Option<Names<'a>>,
    lines: &mut Lines<'a>,
    budget: &mut Budget,
) -> Result<FilePatch<'a>, PatchError> {
    let line = lines.number();
    let names = (name(lines, "--- ")?, name(lines, "+++ ")?);
    let mut hunks = Vec::new();
    while lines.peek().is_some_and(|line| line.starts_with("@@")) {
        hunks.push(hunk(lines, budget)?);
    }
    if hunks.is_empty() {
        let problem = format!("expected `@@ -line,count +line,count @@` for {}", shown(names.1));
        return Err(PatchError::at(lines.number(), problem));
    }
    let (old, new) = plain_names(names);
    let (path, change) = match (old, new) {
        (NOTHING, NOTHING) => {
            return Err(PatchError::at(line, format!("both names are `{NOTHING}`")));
        }
        (NOTHING, new) => (new, Change::Create { content: created(&hunks)? }),
        (old, NOTHING) => (old, Change::Delete { hunks }),
        (old, new) if renamed == Some((old, new)) => {
            (old, Change::Update { move_to: Some(new), hunks })
        }
        (old, new) if old == new && renamed.is_none() => {
            (old, Change::Update { move_to: None, hunks })
        }
        (old, new) => {
            let names = format!("{} and {}", shown(old), shown(new));
            let problem = format!(
                "the names {names} differ: a file that moves needs `rename from` and `rename to`"
            );
            return Err(PatchError::at(line, problem));
        }
    };
    Ok(FilePatch { line, path, change })
}

/// The name behind `mark`, without the time that may follow a tab.
fn name<'a>(lines: &mut Lines<'a>, mark: &str) -> Result<&'a str, PatchError> {
    let line = lines.number();
    let name = lines.take_after(mark).unwrap_or_default();
    named(line, name.split('\t').next().unwrap_or_default().trim_end())
}

/// The names without what git puts before them.
fn plain_names<'a>((old, new): Names<'a>) -> Names<'a> {
    let without = |name: &'a str, prefix: &str| match name.strip_prefix(prefix) {
        Some(rest) if !rest.is_empty() => Some(rest),
        Some(_) | None => None,
    };
    match (without(old, "a/"), without(new, "b/")) {
        (Some(old), Some(new)) => (old, new),
        (Some(old), None) if new == NOTHING => (old, new),
        (None, Some(new)) if old == NOTHING => (old, new),
        (Some(_) | None, Some(_) | None) => (old, new),
    }
}

fn hunk<'a>(lines: &mut Lines<'a>, budget: &mut Budget) -> Result<Hunk<'a>, PatchError> {
    let mut hunk = Hunk::new(lines.number());
    match lines.next().and_then(Header::read) {
        Some(Header::Ranges { old, new }) => {
            hunk.at = Some(old.index());
            lines.counted_hunk(&mut hunk, old.count, new.count)?;
        }
        // Models that count badly leave the numbers away.
        Some(Header::Heading(text)) if text.trim_matches(['@', ' ', '.', '…']).is_empty() => {
            lines.uncounted_hunk(&mut hunk, true);
            lines.skip_blank();
        }
        Some(Header::Heading(_)) | None => {
            return Err(PatchError::at(hunk.line, "expected `@@ -line,count +line,count @@`"));
        }
    }
    hunk.checked(budget)
}

fn created(hunks: &[Hunk<'_>]) -> Result<String, PatchError> {
    let mut content = String::new();
    for hunk in hunks {
        for line in &hunk.lines {
            if line.kind != LineKind::Add {
                let problem = "a file that is not there has no lines to keep or to remove";
                return Err(PatchError::at(hunk.line, problem));
            }
            content.push_str(line.text);
            if line.has_end {
                content.push('\n');
            }
        }
    }
    Ok(content)
}
