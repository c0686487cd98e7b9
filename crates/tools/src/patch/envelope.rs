//! The format that begins with `*** Begin Patch`.
//!
//! More than its description asks for is understood where it can mean one thing only: blank lines
//! around files, a first hunk without `@@`, headings that are line numbers of a unified diff.

use super::lines::{Header, Lines, named};
use super::{Budget, Change, FilePatch, HEADINGS_MAX, Hunk, PatchError, shown};

const BEGIN: &str = "*** Begin Patch";
const END: &str = "*** End Patch";
const ADD: &str = "*** Add File:";
const DELETE: &str = "*** Delete File:";
const UPDATE: &str = "*** Update File:";
const MOVE: &str = "*** Move to:";
const END_OF_FILE: &str = "*** End of File";

pub(super) fn is_begin(line: &str) -> bool {
    line.trim_end() == BEGIN
}

/// Reads the files of a patch whose next line [`is_begin`].
pub(super) fn parse<'a>(
    lines: &mut Lines<'a>,
    budget: &mut Budget,
) -> Result<Vec<FilePatch<'a>>, PatchError> {
    lines.next();
    let mut files = Vec::new();
    loop {
        lines.skip_blank();
        let line = lines.number();
        let Some(found) = lines.peek() else {
            return Err(PatchError::at(line, format!("the patch ends without `{END}`")));
        };
        if found.trim_end() == END {
            lines.next();
            break;
        }
        let (path, change) = if let Some(path) = lines.take_after(ADD) {
            (path, Change::Create { content: content(lines) })
        } else if let Some(path) = lines.take_after(DELETE) {
            (path, Change::Delete { hunks: Vec::new() })
        } else if let Some(path) = lines.take_after(UPDATE) {
            (path, update(line, lines, budget)?)
        } else {
            return Err(unexpected(line, found));
        };
        budget.take_file(line)?;
        files.push(FilePatch { line, path: named(line, path)?, change });
    }
    lines.skip_blank();
    match lines.peek() {
        Some(line) => {
            let problem = format!("nothing may follow `{END}`, and there is {}", shown(line));
            Err(PatchError::at(lines.number(), problem))
        }
        None => Ok(files),
    }
}

fn unexpected(line: usize, found: &str) -> PatchError {
    let problem = format!(
        "expected `{ADD} path`, `{UPDATE} path`, `{DELETE} path` or `{END}`, and found {}; each line \
         of a new file begins with `+`, each of a hunk with a space, `-` or `+`",
        shown(found)
    );
    PatchError::at(line, problem)
}

fn content(lines: &mut Lines<'_>) -> String {
    let mut content = String::new();
    while let Some(text) = lines.peek().and_then(|line| line.strip_prefix('+')) {
        content.push_str(text);
        content.push('\n');
        lines.next();
    }
    content
}

fn update<'a>(
    line: usize,
    lines: &mut Lines<'a>,
    budget: &mut Budget,
) -> Result<Change<'a>, PatchError> {
    let move_line = lines.number();
    let move_to = lines.take_after(MOVE).map(|path| named(move_line, path)).transpose()?;
    let mut hunks = Vec::new();
    loop {
        lines.skip_blank_before_marks();
        match lines.peek() {
            Some(found) if !found.starts_with("***") => {
                hunks.push(hunk(lines, budget)?);
            }
            Some(_) | None => break,
        }
    }
    if hunks.is_empty() && move_to.is_none() {
        return Err(PatchError::at(line, "the file is to be updated and there is no hunk"));
    }
    Ok(Change::Update { move_to, hunks })
}

fn hunk<'a>(lines: &mut Lines<'a>, budget: &mut Budget) -> Result<Hunk<'a>, PatchError> {
    let mut hunk = Hunk::new(lines.number());
    while let Some(header) = lines.peek().and_then(Header::read) {
        match header {
            // Counts are often wrong here and nothing depends on them.
            Header::Ranges { old, .. } => hunk.at = Some(old.index()),
            Header::Heading("") => {}
            Header::Heading(heading) => hunk.headings.push(heading),
        }
        if hunk.headings.len() > HEADINGS_MAX {
            let problem = format!("a hunk has at most {HEADINGS_MAX} headings");
            return Err(PatchError::at(lines.number(), problem));
        }
        lines.next();
    }
    lines.uncounted_hunk(&mut hunk, false);
    match lines.peek() {
        Some(found) if found.trim_end() == END_OF_FILE => {
            hunk.is_at_end = true;
            lines.next();
        }
        Some(found) if !found.starts_with("***") && !found.starts_with("@@") => {
            return Err(unexpected(lines.number(), found));
        }
        Some(_) | None => {}
    }
    hunk.checked(budget)
}
