//! Paths as clients and models give them: checked text, before any look at the disk.

use std::fmt;
use std::path::Path;

use crate::WorkspaceError;
use crate::error::shown;

/// Longest path, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Most names in a path.
pub const PATH_COMPONENTS_MAX: usize = 64;

/// A path relative to the project's directory: UTF-8, `/` between names, no `..`, no NUL, at most
/// [`PATH_BYTES_MAX`] bytes and [`PATH_COMPONENTS_MAX`] names.
///
/// `.` and doubled slashes are dropped, so that one file has one text. Being valid says nothing about
/// where links lead.
///
/// ```
/// use iris_workspace::RelPath;
///
/// assert_eq!(RelPath::file("./src//main.rs").unwrap().as_str(), "src/main.rs");
/// assert!(RelPath::file("src/../../etc/passwd").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath {
    /// Names joined with `/`; empty means the project's directory itself.
    text: String,
}

impl RelPath {
    /// The project's directory itself.
    pub const ROOT: Self = Self { text: String::new() };

    /// Checks a path that names something inside the project's directory.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::InvalidPath`], also for `.` and for the empty text.
    pub fn file(text: &str) -> Result<Self, WorkspaceError> {
        let path = Self::dir(text)?;
        if path.is_root() {
            return Err(invalid(text, "it names the project's directory, not a file"));
        }
        Ok(path)
    }

    /// Checks a path that may also be `.`, the project's directory.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::InvalidPath`], also for the empty text.
    pub fn dir(text: &str) -> Result<Self, WorkspaceError> {
        if text.is_empty() {
            return Err(invalid(text, "it is empty"));
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(invalid(text, "it is longer than 4096 bytes"));
        }
        if text.contains('\0') {
            return Err(invalid(text, "it contains a NUL byte"));
        }
        if text.starts_with('/') || Path::new(text).is_absolute() {
            return Err(invalid(text, "it must be relative to the project's directory"));
        }
        let names: Vec<&str> =
            text.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.contains(&"..") {
            return Err(invalid(text, "it contains `..`"));
        }
        if names.len() > PATH_COMPONENTS_MAX {
            return Err(invalid(text, "it has more than 64 names"));
        }
        Ok(Self { text: names.join("/") })
    }

    /// The path; `.` for the project's directory.
    pub fn as_str(&self) -> &str {
        if self.is_root() { "." } else { &self.text }
    }

    /// Whether this is the project's directory itself.
    pub fn is_root(&self) -> bool {
        self.text.is_empty()
    }

    /// The names from the project's directory down; none for the directory itself.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.text.split('/').filter(|name| !name.is_empty())
    }

    /// The path of `name` in the directory that this path names.
    pub(crate) fn child(&self, name: &str) -> Self {
        if self.is_root() {
            return Self { text: name.to_owned() };
        }
        Self { text: format!("{}/{name}", self.text) }
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn invalid(text: &str, problem: &'static str) -> WorkspaceError {
    WorkspaceError::InvalidPath { path: shown(text), problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn dots_and_doubled_slashes_are_dropped() {
        assert_eq!(RelPath::file("./a/.//b/").unwrap().as_str(), "a/b");
        assert_eq!(RelPath::dir("./.").unwrap().as_str(), ".");
    }

    #[test]
    fn names_that_only_look_special_are_allowed() {
        for text in ["...", "..a", "a..", "a b", " ", "~", "C:", "a\\..\\b", "ä/日本"] {
            assert_eq!(RelPath::file(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn paths_that_leave_or_name_nothing_are_refused() {
        let long = "a".repeat(PATH_BYTES_MAX + 1);
        let deep = "a/".repeat(PATH_COMPONENTS_MAX + 1);
        let outside = ["../x", "/etc/passwd", "a/../../x", "a/..", "..", "//x", "a\0b", "\0"];
        for text in outside.into_iter().chain(["", ".", "./", &long, &deep]) {
            let error = RelPath::file(text).unwrap_err();
            assert_eq!(error.reason(), Some("invalid_path"), "{text:?}");
            assert!(error.to_string().len() < 300, "{text:?}");
        }
    }

    #[test]
    fn the_longest_and_the_deepest_path_are_allowed() {
        assert!(RelPath::file(&"a".repeat(PATH_BYTES_MAX)).is_ok());
        assert!(RelPath::file(&"a/".repeat(PATH_COMPONENTS_MAX)).is_ok());
    }

    proptest! {
        #[test]
        fn a_valid_path_stays_below_and_reads_back_as_itself(text in "[a./\0\\\\~ ]{0,12}") {
            if let Ok(path) = RelPath::dir(&text) {
                prop_assert!(path.names().all(|name| name != ".." && name != "."));
                prop_assert!(!path.as_str().starts_with('/'));
                prop_assert_eq!(RelPath::dir(path.as_str()).unwrap(), path);
            }
        }
    }
}
