//! Finding files by where they are and how they are called.

use globset::{GlobBuilder, GlobSet};

use crate::error::{WorkspaceError, shown};
use crate::walk::{Base, Budget, Cut, Found, SearchLimits, Stop, walk};
use crate::{Cancel, EntryKind, RelPath, Workspace};

/// Longest glob or regular expression, in bytes.
pub(crate) const PATTERN_BYTES_MAX: usize = 1024;

/// One entry of a [`Listing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// Relative to the project's directory.
    pub path: String,
    /// What it is; links are not followed.
    pub kind: EntryKind,
}

/// What [`Workspace::list`] and [`Workspace::glob`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by name within each directory, a directory before what is in it.
    pub entries: Vec<ListEntry>,
    /// Why there may be more.
    pub cut: Option<Cut>,
}

impl Workspace {
    /// Lists what is below the directory `path`, `depth` levels deep (1: its own entries).
    ///
    /// Without `.git` and without what the project's `.gitignore` files leave out.
    ///
    /// # Errors
    ///
    /// `InvalidPath`, `PathEscape`, `NotFound`, `NotADirectory`, `Cancelled`, `Io`.
    pub fn list(
        &self,
        path: &str,
        depth: usize,
        limits: &SearchLimits,
        cancel: &Cancel,
    ) -> Result<Listing, WorkspaceError> {
        let base = Base::open(self, &RelPath::dir(path)?)?;
        self.find(&base, depth, limits, cancel, &|_| true)
    }

    /// Finds the files below the directory `path` that match the glob `pattern`, relative to `path`.
    ///
    /// `*` and `?` do not match `/`, `**` does; a pattern without `/` is matched against the name, at
    /// any depth. Without `.git` and without what the project's `.gitignore` files leave out.
    ///
    /// # Errors
    ///
    /// As [`Workspace::list`], and `InvalidPattern`.
    pub fn glob(
        &self,
        pattern: &str,
        path: &str,
        limits: &SearchLimits,
        cancel: &Cancel,
    ) -> Result<Listing, WorkspaceError> {
        let (path, mut filter) = (RelPath::dir(path)?, NameFilter::new(pattern)?);
        let base = Base::open(self, &path)?;
        filter.begin_below(&base.path);
        self.find(&base, usize::MAX, limits, cancel, &|found| {
            found.kind == EntryKind::File && filter.matches(found)
        })
    }

    fn find(
        &self,
        base: &Base,
        depth: usize,
        limits: &SearchLimits,
        cancel: &Cancel,
        is_wanted: &dyn Fn(&Found<'_>) -> bool,
    ) -> Result<Listing, WorkspaceError> {
        let mut entries = Vec::new();
        let mut budget = Budget::new(limits, cancel);
        let cut = walk(self, base, depth, &mut budget, &mut |budget, found| {
            if is_wanted(found) {
                budget.take_result().map_err(Stop::Cut)?;
                budget.take_bytes(found.path.as_str().len()).map_err(Stop::Cut)?;
                entries.push(ListEntry { path: found.path.to_string(), kind: found.kind });
            }
            Ok(())
        })?;
        Ok(Listing { entries, cut })
    }
}

/// A glob, relative to a directory.
pub(crate) struct NameFilter {
    glob: GlobSet,
    /// Whether only the last name counts.
    is_name: bool,
    /// How many bytes of a path come before the part that counts.
    base_bytes: usize,
}

impl NameFilter {
    /// A glob that is relative to the project's directory.
    pub(crate) fn new(pattern: &str) -> Result<Self, WorkspaceError> {
        if pattern.is_empty() {
            return Err(invalid_pattern(pattern, "it is empty"));
        }
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(invalid_pattern(pattern, "it is longer than 1024 bytes"));
        }
        if pattern.starts_with('/') {
            return Err(invalid_pattern(pattern, "it must be relative"));
        }
        let relative = pattern.strip_prefix("./").unwrap_or(pattern);
        let invalid = |error: globset::Error| invalid_pattern(pattern, &error.kind().to_string());
        let glob = GlobBuilder::new(relative).literal_separator(true).build().map_err(invalid)?;
        // A set of one: compiling a single matcher panics where a set answers with an error.
        let glob = GlobSet::builder().add(glob).build().map_err(invalid)?;
        Ok(Self { glob, is_name: !pattern.contains('/'), base_bytes: 0 })
    }

    /// Takes the glob as relative to `base`.
    pub(crate) fn begin_below(&mut self, base: &RelPath) {
        self.base_bytes = if base.is_root() { 0 } else { base.as_str().len() + 1 };
    }

    pub(crate) fn matches(&self, found: &Found<'_>) -> bool {
        if self.is_name {
            return self.glob.is_match(found.name);
        }
        found.path.as_str().get(self.base_bytes..).is_some_and(|path| self.glob.is_match(path))
    }
}

pub(crate) fn invalid_pattern(pattern: &str, problem: &str) -> WorkspaceError {
    WorkspaceError::InvalidPattern { pattern: shown(pattern), problem: problem.to_owned() }
}
