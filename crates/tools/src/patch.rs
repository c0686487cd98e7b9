//! Patches: two formats that models write, read into one form, and applied to text.
//!
//! The first is the envelope that models know as `apply_patch` (`*** Begin Patch`, described in the
//! instructions of the Codex command line), the second the unified format of `diff -u` and git (GNU
//! diffutils, "Detailed Description of Unified Format"). Everything here works on text alone:
//! deliberately absent are files, paths that are checked, and permission.
//!
//! ```
//! use iris_tools::patch::{Applying, Change, parse};
//!
//! let patch = parse("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n").unwrap();
//! let Change::Update { hunks, .. } = &patch.files[0].change else { unreachable!() };
//! let mut applying = Applying::new("one\ntwo\n", hunks).unwrap();
//! applying.hunk(&hunks[0]).unwrap();
//! assert_eq!(applying.finish(), "one\n2\n");
//! ```

mod apply;
mod envelope;
mod lines;
mod locate;
mod unified;

pub use apply::{Applying, TEXT_LINES_MAX};
use lines::Lines;

/// Longest patch, in bytes.
pub const PATCH_BYTES_MAX: usize = 256 * 1024;
/// Most files in one patch; a file that occurs twice counts twice.
pub const FILES_MAX: usize = 64;
/// Most hunks in one patch.
pub const HUNKS_MAX: usize = 1000;
/// Most headings above one hunk.
pub const HEADINGS_MAX: usize = 8;

/// What is wrong with a patch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct PatchError {
    /// Line of the patch, 1-based; that of the hunk when the hunk does not fit.
    pub line: usize,
    /// What is wrong there, for the model.
    pub problem: String,
}

impl PatchError {
    fn at(line: usize, problem: impl Into<String>) -> Self {
        Self { line, problem: problem.into() }
    }
}

/// What a patch does, file by file, in the order in which it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch<'a> {
    /// At least one, at most [`FILES_MAX`].
    pub files: Vec<FilePatch<'a>>,
}

/// What a patch does to one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePatch<'a> {
    /// Where the patch begins to speak of it, 1-based.
    pub line: usize,
    /// As the patch says it, without `a/` and `b/`; not checked, never empty.
    pub path: &'a str,
    /// What becomes of it.
    pub change: Change<'a>,
}

/// What becomes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'a> {
    /// It is created.
    Create {
        /// All of it.
        content: String,
    },
    /// It is removed.
    Delete {
        /// What was in it; empty when the patch does not say.
        hunks: Vec<Hunk<'a>>,
    },
    /// Its content is changed, or its place, or both.
    Update {
        /// Its new path; not checked, never empty.
        move_to: Option<&'a str>,
        /// In the order of the file; empty only when it is moved.
        hunks: Vec<Hunk<'a>>,
    },
}

/// A change of lines that are next to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hunk<'a> {
    /// Where it begins in the patch, 1-based.
    pub line: usize,
    /// Lines of the file somewhere above the hunk, from the outermost on; at most [`HEADINGS_MAX`].
    pub headings: Vec<&'a str>,
    /// Where its lines were in the file, 0-based, when the patch says so.
    pub at: Option<usize>,
    /// Whether its last line was the last one of the file.
    pub is_at_end: bool,
    /// At least one of them is added or removed.
    pub lines: Vec<HunkLine<'a>>,
}

/// A line of a hunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HunkLine<'a> {
    /// What becomes of it.
    pub kind: LineKind,
    /// Without its line feed.
    pub text: &'a str,
    /// Whether a line feed is behind it; only the last line of a file can be without.
    pub has_end: bool,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineKind {
    /// It is there and stays.
    Keep,
    /// It is there and goes.
    Remove,
    /// It is not there and comes.
    Add,
}

impl<'a> Patch<'a> {
    /// All paths that the patch names, those of moves included, in its order.
    pub fn paths(&self) -> impl Iterator<Item = &'a str> {
        self.files.iter().flat_map(|file| {
            let moved = match &file.change {
                Change::Update { move_to, .. } => *move_to,
                Change::Create { .. } | Change::Delete { .. } => None,
            };
            [file.path].into_iter().chain(moved)
        })
    }
}

/// Reads a patch in either format.
///
/// # Errors
///
/// [`PatchError`] with the line that is wrong, also for a patch beyond one of the limits.
pub fn parse(text: &str) -> Result<Patch<'_>, PatchError> {
    if text.len() > PATCH_BYTES_MAX {
        return Err(PatchError::at(1, format!("a patch has at most {PATCH_BYTES_MAX} bytes")));
    }
    let mut lines = Lines::new(text);
    lines.skip_blank();
    let mut budget = Budget { files_left: FILES_MAX, hunks_left: HUNKS_MAX };
    let files = if lines.peek().is_some_and(envelope::is_begin) {
        envelope::parse(&mut lines, &mut budget)?
    } else {
        unified::parse(&mut lines, &mut budget)?
    };
    if files.is_empty() {
        let problem = "there is no file in the patch: it begins with `*** Begin Patch`, or it is a \
                       unified diff with `--- `, `+++ ` and `@@ `";
        return Err(PatchError::at(lines.number(), problem));
    }
    Ok(Patch { files })
}

/// What a patch has left of its limits.
struct Budget {
    files_left: usize,
    hunks_left: usize,
}

impl Budget {
    fn take_file(&mut self, line: usize) -> Result<(), PatchError> {
        let left = self.files_left.checked_sub(1);
        let problem = || PatchError::at(line, format!("a patch has at most {FILES_MAX} files"));
        self.files_left = left.ok_or_else(problem)?;
        Ok(())
    }

    fn take_hunk(&mut self, line: usize) -> Result<(), PatchError> {
        let left = self.hunks_left.checked_sub(1);
        let problem = || PatchError::at(line, format!("a patch has at most {HUNKS_MAX} hunks"));
        self.hunks_left = left.ok_or_else(problem)?;
        Ok(())
    }
}

/// A line for an error message: short, each character visible.
fn shown(line: &str) -> String {
    const CHARS_MAX: usize = 60;
    let mut short: String = line.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if line.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}
