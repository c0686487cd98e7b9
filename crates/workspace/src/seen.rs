//! What tells, without reading a file, that it is another one than before.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cap_std::fs::{Metadata, MetadataExt};

use crate::cancel::Cancel;
use crate::error::WorkspaceError;
use crate::folder::Opened;
use crate::path::RelPath;
use crate::place::look_up;
use crate::read::read_bounded;
use crate::walk::{Base, Budget, Cut, Found, SearchLimits, walk, walk_noting};
use crate::watch::WATCHED_DIRECTORIES_MAX;
use crate::{EntryKind, Workspace, content_hash};

/// Facts that the file system keeps about a file. Where they are the same as before, so is the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Bytes.
    pub size: u64,
    /// When the content was changed last, in nanoseconds since 1970 UTC.
    pub mtime_ns: i64,
    /// When anything about the file was changed last, in nanoseconds since 1970 UTC.
    pub ctime_ns: i64,
    /// Its number in its file system.
    pub inode: i64,
    /// The permission bits.
    pub mode: u32,
    /// Whether it was changed so shortly before it was looked at that another change might show the same
    /// facts: then these tell nothing.
    pub is_fresh: bool,
}

/// A change within this time before a look may share its time with one after it: the clocks of file
/// systems tick a few times in a hundredth of a second.
const TICK: Duration = Duration::from_millis(50);

impl Seen {
    pub(crate) fn of(metadata: &Metadata, looked_at: SystemTime) -> Self {
        let ctime_ns = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
        let looked_at = looked_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let fresh_from = looked_at.saturating_sub(TICK).as_nanos();
        Self {
            size: metadata.len(),
            mtime_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns,
            inode: metadata.ino().cast_signed(),
            mode: metadata.mode() & 0o777,
            is_fresh: u128::try_from(ctime_ns).is_ok_and(|at| at >= fresh_from),
        }
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// Facts about exactly this content.
    pub seen: Seen,
    /// SHA-256 of the content, 64 hex digits; empty where there is too much of it.
    pub hash: String,
    /// The content; none where there is too much of it.
    pub bytes: Option<Vec<u8>>,
}

/// The regular files of a project that `.gitignore` files do not leave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// By path, sorted by name within each directory.
    pub files: Vec<(String, Seen)>,
    /// Files that were being written, or were left by who was.
    pub unfinished: Vec<String>,
    /// Why there may be more.
    pub cut: Option<Cut>,
}

impl Workspace {
    /// Looks at all files of the project without reading them.
    ///
    /// # Errors
    ///
    /// `Cancelled`, `Io`.
    pub fn scan(&self, limits: &SearchLimits, cancel: &Cancel) -> Result<Scan, WorkspaceError> {
        let base = Base::open(self, &RelPath::ROOT)?;
        let mut budget = Budget::new(limits, cancel);
        let mut files = Vec::new();
        let visit = &mut |budget: &mut Budget<'_>, found: &Found<'_>| {
            if found.kind != EntryKind::File {
                return Ok(());
            }
            if let Some(facts) = found.facts()
                && facts.kind == EntryKind::File
            {
                budget.take_result().map_err(crate::walk::Stop::Cut)?;
                files.push((found.path.to_string(), facts.seen));
            }
            Ok(())
        };
        let mut unfinished = Vec::new();
        let cut = walk_noting(self, &base, &mut unfinished, &mut budget, visit)?;
        Ok(Scan { files, unfinished, cut })
    }

    /// The directories of the project that `.gitignore` files do not leave out, `.` first, and whether these
    /// are all.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn directories(&self) -> Result<(Vec<String>, bool), WorkspaceError> {
        let base = Base::open(self, &RelPath::ROOT)?;
        let limits = SearchLimits {
            results_max: WATCHED_DIRECTORIES_MAX,
            result_bytes_max: usize::MAX,
            entries_max: 1_000_000,
            time_max: Duration::from_mins(1),
        };
        let cancel = Cancel::new();
        let mut budget = Budget::new(&limits, &cancel);
        let mut directories = vec![RelPath::ROOT.to_string()];
        let visit = &mut |budget: &mut Budget<'_>, found: &Found<'_>| {
            if found.kind == EntryKind::Directory {
                budget.take_result().map_err(crate::walk::Stop::Cut)?;
                directories.push(found.path.to_string());
            }
            Ok(())
        };
        let cut = walk(self, &base, usize::MAX, &mut budget, visit)?;
        Ok((directories, cut.is_none()))
    }

    /// Looks at one file without reading it; none where there is no regular file, and where the way there
    /// is none.
    ///
    /// # Errors
    ///
    /// `Io`, also where the directory on the way may not be read.
    pub fn look(&self, path: &str) -> Result<Option<Seen>, WorkspaceError> {
        let path = RelPath::file(path)?;
        match look_up(self, &path).and_then(|spot| spot.facts(&path)) {
            Ok(facts) => Ok((facts.kind == EntryKind::File).then_some(facts.seen)),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a file together with the facts about what was read; none where there is no regular file. More
    /// than `size_max` bytes are not read.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn read_seen(&self, path: &str, size_max: u64) -> Result<Option<SeenFile>, WorkspaceError> {
        let path = RelPath::file(path)?;
        let opened = look_up(self, &path).and_then(|spot| spot.open(&path));
        let (file, seen) = match opened {
            Ok(Opened { body, facts }) => (body, facts.seen),
            Err(error) if is_absence(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        match read_bounded(file, &path, size_max) {
            // Somebody who writes into it meanwhile changes what the next look sees.
            Ok(bytes) => {
                let seen = Seen { size: bytes.len() as u64, ..seen };
                Ok(Some(SeenFile { seen, hash: content_hash(&bytes), bytes: Some(bytes) }))
            }
            Err(WorkspaceError::TooLarge { .. }) => {
                Ok(Some(SeenFile { seen, hash: String::new(), bytes: None }))
            }
            Err(error) => Err(error),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "compared with the times of the file system")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Whether nothing that can be read as a file of the project is there.
fn is_absence(error: &WorkspaceError) -> bool {
    matches!(
        error,
        WorkspaceError::NotFound { .. }
            | WorkspaceError::NotAFile { .. }
            | WorkspaceError::PathEscape { .. }
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_scan_sees_every_change_of_a_file() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "one").unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        let look = || workspace.look("a").unwrap().unwrap();
        let first = look();
        fs::write(root.path().join("a"), "two").unwrap();
        // The same size, and perhaps the same time: then it does not claim to know.
        assert!(look() != first || first.is_fresh);
        fs::write(root.path().join("b"), "two").unwrap();
        fs::rename(root.path().join("b"), root.path().join("a")).unwrap();
        assert_ne!(look().inode, first.inode);
        let scan = workspace.scan(&SearchLimits::default(), &Cancel::new()).unwrap();
        assert_eq!(scan.files.len(), 1);
        assert_eq!(workspace.look("none").unwrap(), None);
        assert_eq!(workspace.read_seen("a", 2).unwrap().unwrap().bytes, None);
        assert_eq!(workspace.read_seen("a", 3).unwrap().unwrap().bytes.unwrap(), b"two");
    }

    #[test]
    fn what_is_no_regular_file_is_no_file() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dir")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("out")).unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        assert_eq!(workspace.look("dir").unwrap(), None);
        assert_eq!(workspace.look("out").unwrap(), None);
        assert_eq!(workspace.read_seen("out", 10).unwrap(), None);
        let scan = workspace.scan(&SearchLimits::default(), &Cancel::new()).unwrap();
        assert_eq!(scan.files, []);
    }
}
