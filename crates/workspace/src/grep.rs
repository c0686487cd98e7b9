//! Finding lines by a regular expression.
//!
//! The engine takes time linear in the text for every pattern. Files are searched through descriptors
//! that the walk opened, never by path.

use std::io::{self, Read};

use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use grep_searcher::{
    BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkFinish, SinkMatch,
};
use iris_protocol::limits::FILE_BYTES_MAX;

use crate::find::{NameFilter, PATTERN_BYTES_MAX, invalid_pattern};
use crate::folder::Body;
use crate::place::look_up;
use crate::walk::{Base, Budget, Cut, SearchLimits, Stop, Time, walk};
use crate::{Cancel, EntryKind, RelPath, Workspace, WorkspaceError};

/// Most context lines on each side of a match.
pub const GREP_CONTEXT_MAX: usize = 20;
/// Largest compiled pattern, in bytes. It bounds the time for one piece of text.
const PATTERN_SIZE_MAX: usize = 1024 * 1024;
/// Memory that matching may take besides, in bytes.
const MATCHER_CACHE_MAX: usize = 8 * 1024 * 1024;
/// Longest line that is searched, in bytes; a file with a longer one is skipped.
const LINE_BYTES_MAX: usize = 256 * 1024;
/// How much of a line the result holds, in characters.
const LINE_CHARS_MAX: usize = 500;

/// What to look for, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrepQuery {
    /// A regular expression in Rust's syntax, matched line by line; at most 1024 bytes.
    pub pattern: String,
    /// A directory or a file; `.` for the whole project.
    pub path: String,
    /// Only files that match this glob, relative to `path`, as for [`Workspace::glob`].
    pub include: Option<String>,
    /// Lines shown before and after each match, at most [`GREP_CONTEXT_MAX`].
    pub context: usize,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrepOutcome {
    /// The files with at least one match, sorted by name within each directory.
    pub files: Vec<GrepFile>,
    /// Matching lines in all of `files`.
    pub match_count: usize,
    /// Files that were not searched: too large, binary, not readable.
    pub skipped_count: usize,
    /// Files that were not searched because the caller does not admit them.
    pub withheld_count: usize,
    /// Why there may be more.
    pub cut: Option<Cut>,
}

/// The matches in one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GrepFile {
    /// Relative to the project's directory.
    pub path: String,
    /// Matching lines and their context, in order.
    pub lines: Vec<GrepLine>,
}

/// A line of a [`GrepFile`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrepLine {
    /// 1-based.
    pub number: u64,
    /// Without its line end, at most 500 characters; an ellipsis says that it was longer.
    pub text: String,
    /// Whether it matches, or is context.
    pub is_match: bool,
}

impl Workspace {
    /// Finds the lines that match, in the files that are neither ignored nor binary. Of the files below a
    /// directory only those are opened whose paths `admits` says yes to; the answer does not tell what the
    /// others hold. A file that `query` names itself is the caller's matter.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `InvalidPattern`, `PathEscape`, `NotFound`, `NotAFile`, `Cancelled`, `Io`.
    pub fn grep(
        &self,
        query: &GrepQuery,
        admits: &dyn Fn(&str) -> bool,
        limits: &SearchLimits,
        cancel: &Cancel,
    ) -> Result<GrepOutcome, WorkspaceError> {
        let path = RelPath::dir(&query.path)?;
        let mut include = query.include.as_deref().map(NameFilter::new).transpose()?;
        let mut grep = Grep::new(query)?;
        let mut budget = Budget::new(limits, cancel);
        let spot = look_up(self, &path)?;
        if spot.facts(&path)?.kind != EntryKind::Directory {
            let file = spot.open(&path)?.body;
            return grep.single_file(file, &path, &mut budget);
        }
        let base = Base::at(spot, &path)?;
        if let Some(include) = &mut include {
            include.begin_below(&base.path);
        }
        let cut = walk(self, &base, usize::MAX, &mut budget, &mut |budget, found| {
            let is_included = include.as_ref().is_none_or(|include| include.matches(found));
            if found.kind != EntryKind::File || !is_included {
                return Ok(());
            }
            if !admits(found.path.as_str()) {
                grep.outcome.withheld_count += 1;
                return Ok(());
            }
            let Ok(opened) = found.dir.open(found.path, found.name) else {
                grep.outcome.skipped_count += 1;
                return Ok(());
            };
            grep.file(opened.body, found.path, budget)
        })?;
        Ok(GrepOutcome { cut, ..grep.outcome })
    }
}

struct Grep {
    matcher: RegexMatcher,
    searcher: Searcher,
    outcome: GrepOutcome,
}

impl Grep {
    fn new(query: &GrepQuery) -> Result<Self, WorkspaceError> {
        if query.pattern.is_empty() {
            return Err(invalid_pattern(&query.pattern, "it is empty"));
        }
        if query.pattern.len() > PATTERN_BYTES_MAX {
            return Err(invalid_pattern(&query.pattern, "it is longer than 1024 bytes"));
        }
        let matcher = RegexMatcherBuilder::new()
            .case_insensitive(query.ignore_case)
            .size_limit(PATTERN_SIZE_MAX)
            .dfa_size_limit(MATCHER_CACHE_MAX)
            .line_terminator(Some(b'\n'))
            .build(&query.pattern)
            .map_err(|error| invalid_pattern(&query.pattern, &error.to_string()))?;
        let context = query.context.min(GREP_CONTEXT_MAX);
        let searcher = SearcherBuilder::new()
            .line_number(true)
            .before_context(context)
            .after_context(context)
            .heap_limit(Some(LINE_BYTES_MAX))
            .binary_detection(BinaryDetection::quit(0))
            .build();
        Ok(Self { matcher, searcher, outcome: GrepOutcome::default() })
    }

    fn single_file(
        mut self,
        file: Body,
        path: &RelPath,
        budget: &mut Budget<'_>,
    ) -> Result<GrepOutcome, WorkspaceError> {
        let cut = match self.file(file, path, budget) {
            Ok(()) => None,
            Err(Stop::Cut(cut)) => Some(cut),
            Err(Stop::Failed(error)) => return Err(error),
        };
        Ok(GrepOutcome { cut, ..self.outcome })
    }

    /// Searches one file and keeps what was found in it, unless it turns out to be binary.
    fn file(&mut self, file: Body, path: &RelPath, budget: &mut Budget<'_>) -> Result<(), Stop> {
        budget.time.check()?;
        if file.size().unwrap_or(u64::MAX) > FILE_BYTES_MAX as u64 {
            self.outcome.skipped_count += 1;
            return Ok(());
        }
        // The file may grow while it is read.
        let text = Timed { reader: file.take(FILE_BYTES_MAX as u64), time: budget.time };
        let mut found = Collector { budget, lines: Vec::new(), cut: None, is_binary: false };
        let searched = self.searcher.search_reader(&self.matcher, text, &mut found);
        let Collector { lines, cut, is_binary, .. } = found;
        budget.time.check()?;
        if searched.is_err() || is_binary {
            self.outcome.skipped_count += 1;
        } else if lines.iter().any(|line| line.is_match) {
            self.outcome.match_count += lines.iter().filter(|line| line.is_match).count();
            self.outcome.files.push(GrepFile { path: path.to_string(), lines });
        }
        cut.map_or(Ok(()), |cut| Err(Stop::Cut(cut)))
    }
}

/// A file that ends with an error once the search is to stop.
struct Timed<'a, R> {
    reader: R,
    time: Time<'a>,
}

impl<R: Read> Read for Timed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.time.check().is_err() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        self.reader.read(buffer)
    }
}

/// Collects the lines of one file.
struct Collector<'a, 'b> {
    budget: &'a mut Budget<'b>,
    lines: Vec<GrepLine>,
    cut: Option<Cut>,
    is_binary: bool,
}

impl Collector<'_, '_> {
    /// Keeps a line; `false` ends the search of this file.
    fn push(&mut self, number: Option<u64>, bytes: &[u8], is_match: bool) -> bool {
        let text = shortened(&String::from_utf8_lossy(bytes));
        let taken = if is_match { self.budget.take_result() } else { Ok(()) };
        if let Err(cut) = taken.and_then(|()| self.budget.take_bytes(text.len())) {
            self.cut = Some(cut);
            return false;
        }
        self.lines.push(GrepLine { number: number.unwrap_or(0), text, is_match });
        true
    }
}

impl Sink for Collector<'_, '_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        Ok(self.push(found.line_number(), found.bytes(), true))
    }

    fn context(&mut self, _: &Searcher, line: &SinkContext<'_>) -> io::Result<bool> {
        Ok(self.push(line.line_number(), line.bytes(), false))
    }

    fn finish(&mut self, _: &Searcher, finish: &SinkFinish) -> io::Result<()> {
        self.is_binary = finish.binary_byte_offset().is_some();
        Ok(())
    }
}

fn shortened(line: &str) -> String {
    let line = line.trim_end_matches(['\n', '\r']);
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or(line)),
        None => line.to_owned(),
    }
}
