//! Finding where a write goes, one name at a time.
//!
//! Reads let the kernel resolve a path below the root. A write also needs to know through which names
//! it went, because a link must not lead it into a protected directory, and it needs the handle of the
//! last directory, in which the temporary file and the final name lie together.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Component, Path};

use cap_fs_ext::DirExt;
use cap_std::fs::Dir;

use crate::error::WorkspaceError;
use crate::path::RelPath;

/// Most links that one path may go through; Linux has the same bound.
const LINKS_MAX: usize = 40;
/// Most steps of one resolution; only reached while somebody keeps changing the directories.
const STEPS_MAX: usize = 4096;

/// Names that no write goes through, whatever their case: `.git` holds commands that git runs, `.iris`
/// the rules that agents are bound by.
const PROTECTED_NAMES: [&str; 2] = [".git", ".iris"];

/// Where a file is or will be.
pub(crate) struct Place {
    /// The directory that holds it.
    pub(crate) dir: Dir,
    /// Its name there; not a link when it was looked at.
    pub(crate) name: String,
}

/// What becomes of a directory that is missing on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Create,
    Report,
}

/// What becomes of a link at the end of the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastLink {
    /// It is followed, as on the rest of the way.
    Follow,
    /// It is what was asked for.
    Keep,
}

/// Resolves `path` for writing and creates the directories that are missing on the way.
///
/// # Errors
///
/// `PathEscape` for a link that leads out or in a circle, `ProtectedPath`, `NotADirectory` for a file
/// on the way, `NotAFile` when the path ends in a directory, `Io`.
pub(crate) fn resolve(root: &Dir, path: &RelPath) -> Result<Place, WorkspaceError> {
    walk_to(root, path, Missing::Create, LastLink::Follow)
}

/// Resolves `path` like [`resolve`] and changes nothing.
///
/// # Errors
///
/// As [`resolve`], and `NotFound` when a directory is missing on the way.
pub(crate) fn resolve_existing(
    root: &Dir,
    path: &RelPath,
    last: LastLink,
) -> Result<Place, WorkspaceError> {
    walk_to(root, path, Missing::Report, last)
}

fn walk_to(
    root: &Dir,
    path: &RelPath,
    missing: Missing,
    last: LastLink,
) -> Result<Place, WorkspaceError> {
    let pending = path.names().map(str::to_owned).collect();
    let mut walker = Walker { root, path, missing, below: Vec::new(), pending, links: 0 };
    for _ in 0..STEPS_MAX {
        let Some(name) = walker.pending.pop_front() else {
            return Err(WorkspaceError::NotAFile { path: path.to_string() });
        };
        walker.check_protected(&name)?;
        if name == ".." {
            walker.leave()?;
        } else if !walker.pending.is_empty() {
            walker.enter(&name)?;
        } else if last == LastLink::Keep || !walker.follow_link(&name)? {
            return Ok(Place { dir: walker.into_dir()?, name });
        }
    }
    Err(WorkspaceError::PathEscape { path: path.to_string() })
}

struct Walker<'a> {
    root: &'a Dir,
    path: &'a RelPath,
    missing: Missing,
    /// The directories entered, from the root (not included) down to the current one.
    below: Vec<Dir>,
    /// Names still to resolve; `..` only from the text of links.
    pending: VecDeque<String>,
    links: usize,
}

impl Walker<'_> {
    fn current(&self) -> &Dir {
        self.below.last().unwrap_or(self.root)
    }

    fn into_dir(mut self) -> Result<Dir, WorkspaceError> {
        match self.below.pop() {
            Some(dir) => Ok(dir),
            None => self.root.try_clone().map_err(|source| self.io(source)),
        }
    }

    fn check_protected(&self, name: &str) -> Result<(), WorkspaceError> {
        if PROTECTED_NAMES.iter().any(|protected| name.eq_ignore_ascii_case(protected)) {
            return Err(WorkspaceError::ProtectedPath { path: self.path.to_string() });
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<(), WorkspaceError> {
        self.below.pop().map(drop).ok_or_else(|| self.escape())
    }

    /// Goes into the directory `name`, or puts the text of the link `name` before the pending names.
    fn enter(&mut self, name: &str) -> Result<(), WorkspaceError> {
        let error = match self.current().open_dir_nofollow(name) {
            Ok(dir) => {
                self.below.push(dir);
                return Ok(());
            }
            Err(error) => error,
        };
        if error.kind() == ErrorKind::NotFound {
            if self.missing == Missing::Report {
                return Err(self.not_there());
            }
            self.create_dir(name)?;
            self.pending.push_front(name.to_owned());
            return Ok(());
        }
        if self.follow_link(name)? {
            return Ok(());
        }
        if error.kind() == ErrorKind::NotADirectory {
            return Err(WorkspaceError::NotADirectory { path: self.path.to_string() });
        }
        Err(self.io(error))
    }

    /// The error for a way that ends early; a name behind its end may still be a protected one.
    fn not_there(&self) -> WorkspaceError {
        let protected = self.pending.iter().find_map(|name| self.check_protected(name).err());
        protected.unwrap_or_else(|| WorkspaceError::NotFound { path: self.path.to_string() })
    }

    fn create_dir(&self, name: &str) -> Result<(), WorkspaceError> {
        match self.current().create_dir(name) {
            Ok(()) => sync_dir(self.current()).map_err(|source| self.io(source)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Puts the names in the link `name` before the pending ones; `false` when it is no link.
    fn follow_link(&mut self, name: &str) -> Result<bool, WorkspaceError> {
        match self.current().symlink_metadata(name) {
            Ok(metadata) if metadata.is_symlink() => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.io(error)),
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(self.escape());
        }
        let target = match self.current().read_link_contents(name) {
            Ok(target) => target,
            // Somebody replaced the link by something else since: look again.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return Ok(self.retry(name)),
            Err(error) => return Err(self.io(error)),
        };
        for name in self.names_of(&target)?.into_iter().rev() {
            self.pending.push_front(name);
        }
        Ok(true)
    }

    fn retry(&mut self, name: &str) -> bool {
        self.pending.push_front(name.to_owned());
        true
    }

    fn names_of(&self, target: &Path) -> Result<Vec<String>, WorkspaceError> {
        let mut names = Vec::new();
        for component in target.components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => names.push("..".to_owned()),
                Component::Normal(name) => {
                    names.push(name.to_str().ok_or_else(|| self.escape())?.to_owned());
                }
                Component::Prefix(_) | Component::RootDir => return Err(self.escape()),
            }
        }
        Ok(names)
    }

    fn escape(&self) -> WorkspaceError {
        WorkspaceError::PathEscape { path: self.path.to_string() }
    }

    fn io(&self, source: std::io::Error) -> WorkspaceError {
        WorkspaceError::from_io(self.path, source)
    }
}

/// Makes the names in `dir` durable.
pub(crate) fn sync_dir(dir: &Dir) -> std::io::Result<()> {
    // `dir` may be a handle for lookups only, which cannot be synced.
    dir.open(".")?.sync_all()
}
