//! Putting hunks into a text.

use super::locate::Place;
use super::{Hunk, LineKind, PatchError};

/// Most lines of a text that hunks are put into.
pub const TEXT_LINES_MAX: usize = 1_000_000;

/// A text into which hunks are put, one after the other from its beginning to its end.
///
/// Lines must be the same, white space included; a hunk whose lines occur at more than one place is
/// refused unless its line number or its headings say which. Two things are not compared, because the
/// formats cannot say them or models cannot see them: whether the last line of the text has a line feed,
/// and, in a text in which every line ends with CR LF, the CR, as long as no line of the hunks that is
/// there already has one. Lines that are added to such a text end with CR LF.
#[derive(Debug)]
pub struct Applying<'a> {
    /// Each with its line end.
    lines: Vec<&'a str>,
    /// Each as it is compared.
    plain: Vec<&'a str>,
    has_crlf: bool,
    /// Lines that were dealt with.
    done: usize,
    out: String,
}

impl<'a> Applying<'a> {
    /// Begins with `text`, for all of `hunks`.
    ///
    /// # Errors
    ///
    /// [`PatchError`] for more than [`TEXT_LINES_MAX`] lines.
    pub fn new(text: &'a str, hunks: &[Hunk<'_>]) -> Result<Self, PatchError> {
        let lines: Vec<&str> = text.split_inclusive('\n').take(TEXT_LINES_MAX + 1).collect();
        if lines.len() > TEXT_LINES_MAX {
            let line = hunks.first().map_or(1, |hunk| hunk.line);
            let problem = format!("the file has more than {TEXT_LINES_MAX} lines");
            return Err(PatchError::at(line, problem));
        }
        let mut old = hunks.iter().flat_map(|hunk| &hunk.lines);
        let hunks_have_cr = old.any(|line| line.kind != LineKind::Add && line.text.ends_with('\r'));
        let has_crlf =
            !hunks_have_cr && text.contains("\r\n") && lines.iter().all(|line| is_crlf(line));
        let plain = lines.iter().map(|line| plain(line, has_crlf)).collect();
        Ok(Self { lines, plain, has_crlf, done: 0, out: String::with_capacity(text.len()) })
    }

    /// Puts in the next hunk. It takes time in proportion to the text.
    ///
    /// # Errors
    ///
    /// [`PatchError`] when the lines of the hunk are not there, or at more than one place.
    pub fn hunk(&mut self, hunk: &Hunk<'_>) -> Result<(), PatchError> {
        let start = Place { text: &self.plain, from: self.done }.of(hunk)?;
        self.keep_until(start);
        for line in &hunk.lines {
            match line.kind {
                LineKind::Keep => self.keep_until(self.done + 1),
                LineKind::Remove => self.done += 1,
                LineKind::Add => self.add(line.text, line.has_end),
            }
        }
        Ok(())
    }

    /// The text with all hunks in it.
    pub fn finish(mut self) -> String {
        self.keep_until(self.lines.len());
        self.out
    }

    fn line_end(&self) -> &'static str {
        if self.has_crlf { "\r\n" } else { "\n" }
    }

    fn keep_until(&mut self, end: usize) {
        for index in self.done..end.min(self.lines.len()) {
            let line = self.lines.get(index).copied().unwrap_or_default();
            self.end_last_line();
            self.out.push_str(line);
        }
        self.done = self.done.max(end);
    }

    fn add(&mut self, text: &str, has_end: bool) {
        self.end_last_line();
        self.out.push_str(text);
        if has_end {
            self.out.push_str(self.line_end());
        }
    }

    /// What was the last line of the text may be followed by others now.
    fn end_last_line(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push_str(self.line_end());
        }
    }
}

/// Whether a line may be one of a text with CR LF; a last line without any end does not tell.
fn is_crlf(line: &str) -> bool {
    line.ends_with("\r\n") || !line.ends_with(['\n', '\r'])
}

fn plain(line: &str, has_crlf: bool) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    if has_crlf { line.strip_suffix('\r').unwrap_or(line) } else { line }
}
