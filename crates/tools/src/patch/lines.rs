//! The lines of a patch, one after the other, and those of a hunk.

use super::{Budget, Hunk, HunkLine, LineKind, PatchError, shown};

/// What stands behind a last line that has no line feed (GNU diffutils, "Incomplete Lines").
const INCOMPLETE: char = '\\';

/// The lines of a patch that are still to be read.
pub(super) struct Lines<'a> {
    lines: Vec<&'a str>,
    next: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let text = text.strip_suffix('\n').unwrap_or(text);
        Self { lines: text.split('\n').collect(), next: 0 }
    }

    /// The number of the next line, 1-based; of the last one when there is none.
    pub(super) fn number(&self) -> usize {
        (self.next + 1).min(self.lines.len())
    }

    pub(super) fn peek(&self) -> Option<&'a str> {
        self.lines.get(self.next).copied()
    }

    pub(super) fn next(&mut self) -> Option<&'a str> {
        let line = self.peek()?;
        self.next += 1;
        Some(line)
    }

    /// The next line without `prefix` and white space around it, if it begins so; it is taken.
    pub(super) fn take_after(&mut self, prefix: &str) -> Option<&'a str> {
        let rest = self.peek()?.strip_prefix(prefix)?;
        self.next += 1;
        Some(rest.trim())
    }

    pub(super) fn skip_blank(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.next += 1;
        }
    }

    /// Skips blank lines if none of a hunk comes behind them.
    pub(super) fn skip_blank_before_marks(&mut self) {
        let rest = self.lines.get(self.next..).unwrap_or_default();
        let blank_count = rest.iter().take_while(|line| is_blank(line)).count();
        let behind = rest.get(blank_count);
        if behind.is_none_or(|line| line.starts_with("***") || line.starts_with("@@")) {
            self.next += blank_count;
        }
    }

    /// Whether the next two lines begin a file of a unified diff.
    pub(super) fn is_at_file_names(&self) -> bool {
        let second = self.lines.get(self.next + 1);
        self.peek().is_some_and(|line| line.starts_with("--- "))
            && second.is_some_and(|line| line.starts_with("+++ "))
    }

    /// Reads lines of a hunk as long as there are any.
    ///
    /// A line with nothing in it, not even the space of a kept line, is a kept empty line: models leave
    /// the space away. At the end of a hunk such lines are not read as part of it, since they may as well
    /// stand between two hunks; it only has less context then.
    pub(super) fn uncounted_hunk(&mut self, hunk: &mut Hunk<'a>, ends_at_names: bool) {
        let mut blank_count = 0;
        while let Some(line) = self.peek() {
            if ends_at_names && self.is_at_file_names() {
                break;
            }
            if line.trim_end_matches('\r').is_empty() {
                blank_count += 1;
                self.next += 1;
                continue;
            }
            let Some(read) = HunkLine::read(line) else {
                if !line.starts_with(INCOMPLETE) {
                    break;
                }
                self.next += 1;
                hunk.end_without_line_feed();
                continue;
            };
            let blank = HunkLine { kind: LineKind::Keep, text: "", has_end: true };
            hunk.lines.extend(std::iter::repeat_n(blank, blank_count));
            hunk.lines.push(read);
            blank_count = 0;
            self.next += 1;
        }
    }

    /// Reads the lines of a hunk that says how many old and new ones it has.
    pub(super) fn counted_hunk(
        &mut self,
        hunk: &mut Hunk<'a>,
        old_count: usize,
        new_count: usize,
    ) -> Result<(), PatchError> {
        let (mut old_left, mut new_left) = (old_count, new_count);
        while old_left > 0 || new_left > 0 {
            let number = self.number();
            let wrong = |found: &str| {
                let line = hunk.line;
                let says = format!("{old_count} old and {new_count} new lines");
                PatchError::at(number, format!("the hunk of line {line} says {says}: {found}"))
            };
            let Some(line) = self.peek() else { return Err(wrong("the patch ends before")) };
            if line.starts_with(INCOMPLETE) {
                self.next += 1;
                hunk.end_without_line_feed();
                continue;
            }
            let empty = HunkLine { kind: LineKind::Keep, text: line, has_end: true };
            let read = if line.is_empty() { Some(empty) } else { HunkLine::read(line) };
            let Some(read) = read else { return Err(wrong("this line belongs to none")) };
            let (is_old, is_new) = (read.kind != LineKind::Add, read.kind != LineKind::Remove);
            let left = old_left.checked_sub(is_old.into()).zip(new_left.checked_sub(is_new.into()));
            (old_left, new_left) = left.ok_or_else(|| wrong("this line is one too many"))?;
            hunk.lines.push(read);
            self.next += 1;
        }
        if self.peek().is_some_and(|line| line.starts_with(INCOMPLETE)) {
            self.next += 1;
            hunk.end_without_line_feed();
        }
        Ok(())
    }
}

impl<'a> HunkLine<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let kinds = [(' ', LineKind::Keep), ('-', LineKind::Remove), ('+', LineKind::Add)];
        kinds.into_iter().find_map(|(mark, kind)| {
            Some(Self { kind, text: line.strip_prefix(mark)?, has_end: true })
        })
    }
}

impl Hunk<'_> {
    pub(super) fn new(line: usize) -> Self {
        Self { line, headings: Vec::new(), at: None, is_at_end: false, lines: Vec::new() }
    }

    /// What has no line feed behind it is the end of the file.
    fn end_without_line_feed(&mut self) {
        if let Some(last) = self.lines.last_mut() {
            last.has_end = false;
            self.is_at_end = true;
        }
    }

    /// The hunk, if it changes something and there may be one more.
    pub(super) fn checked(self, budget: &mut Budget) -> Result<Self, PatchError> {
        budget.take_hunk(self.line)?;
        if self.lines.iter().all(|line| line.kind == LineKind::Keep) {
            return Err(PatchError::at(self.line, "the hunk adds nothing and removes nothing"));
        }
        Ok(self)
    }
}

/// What a line that begins with `@@` says.
pub(super) enum Header<'a> {
    /// Old and new lines.
    Ranges { old: Range, new: Range },
    /// A line above the hunk; may be empty.
    Heading(&'a str),
}

/// Some lines of a file.
#[derive(Clone, Copy)]
pub(super) struct Range {
    start: usize,
    pub(super) count: usize,
}

impl Range {
    /// Where it is, 0-based. One without lines is behind the line that it names.
    pub(super) fn index(self) -> usize {
        if self.count == 0 { self.start } else { self.start.saturating_sub(1) }
    }

    fn read(text: &str) -> Option<Self> {
        let Some((start, count)) = text.split_once(',') else {
            return Some(Self { start: text.parse().ok()?, count: 1 });
        };
        Some(Self { start: start.parse().ok()?, count: count.parse().ok()? })
    }
}

impl<'a> Header<'a> {
    pub(super) fn read(line: &'a str) -> Option<Self> {
        let text = line.strip_prefix("@@")?;
        Some(ranges(text).unwrap_or_else(|| Self::Heading(text.trim())))
    }
}

/// `-start,count +start,count @@`; a count of 1 may be left away.
fn ranges(text: &str) -> Option<Header<'_>> {
    let (old, rest) = text.trim_start().strip_prefix('-')?.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    Some(Header::Ranges { old: Range::read(old)?, new: Range::read(new)? })
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty()
}

/// Checks that a path is one line with something in it.
pub(super) fn named(line: usize, path: &str) -> Result<&str, PatchError> {
    if path.is_empty() {
        return Err(PatchError::at(line, "a path is missing"));
    }
    if path.starts_with('"') {
        let problem = format!("paths in quotation marks are not understood: {}", shown(path));
        return Err(PatchError::at(line, problem));
    }
    Ok(path)
}
