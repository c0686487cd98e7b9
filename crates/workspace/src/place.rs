//! Finding where a path leads, one name at a time.
//!
//! The kernel could resolve a path below the root, but would not tell through which names it went: a
//! link must lead a write into no protected directory, and a guarded caller nowhere unseen. A write also
//! needs the handle of the last directory, in which the temporary file and the final name lie together.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::{Component, Path};

use cap_fs_ext::DirExt;
use cap_std::fs::Dir;

use crate::error::WorkspaceError;
use crate::folder::{Facts, Folder, Opened};
use crate::path::RelPath;
use crate::write::TEMP_PREFIX;
use crate::{Directory, Files, Workspace};

/// Most links that one path may go through; Linux has the same bound.
const LINKS_MAX: usize = 40;
/// Most steps of one resolution; only reached while somebody keeps changing the directories.
const STEPS_MAX: usize = 4096;

/// Names that no write goes through, whatever their case: `.git` holds commands that git runs, `.iris`
/// the rules that agents are bound by.
const PROTECTED_NAMES: [&str; 2] = [".git", ".iris"];

/// Whether no write goes through a name. Those of files that are being written are the writers' own.
pub(crate) fn is_protected(name: &str) -> bool {
    stays(name) || name.starts_with(TEMP_PREFIX)
}

/// Whether no directory goes in which something has this name. What was left of a write keeps none.
pub(crate) fn stays(name: &str) -> bool {
    PROTECTED_NAMES.iter().any(|protected| name.eq_ignore_ascii_case(protected))
}

/// Where a file is or will be.
pub(crate) struct Place {
    /// The directory that holds it.
    pub(crate) dir: Dir,
    /// Its name there; not a link when it was looked at.
    pub(crate) name: String,
}

/// Where a path leads.
pub(crate) struct Spot {
    /// The directory that holds it.
    folder: Folder,
    /// Its name there, not a link when it was looked at; none for that directory itself.
    name: Option<String>,
    /// The path without links.
    pub(crate) real: RelPath,
}

impl Spot {
    /// What has that name in a folder; none for the folder itself.
    pub(crate) fn new(folder: Folder, name: Option<String>, real: RelPath) -> Self {
        Self { folder, name, real }
    }

    /// Opens the regular file that is there.
    ///
    /// # Errors
    ///
    /// `NotAFile`, `NotFound`, `PathEscape` for what became a link meanwhile, `Io`.
    pub(crate) fn open(&self, path: &RelPath) -> Result<Opened, WorkspaceError> {
        match &self.name {
            Some(name) => self.folder.open(path, name),
            None => Err(WorkspaceError::NotAFile { path: path.to_string() }),
        }
    }

    /// Facts about what is there.
    pub(crate) fn facts(&self, path: &RelPath) -> Result<Facts, WorkspaceError> {
        match &self.name {
            Some(name) => self.folder.facts(path, name),
            None => self.folder.own_facts(path),
        }
    }

    /// Removes the file that is there.
    ///
    /// # Errors
    ///
    /// `NotAFile`, `NotFound`, `Io`.
    pub(crate) fn remove(&self, path: &RelPath) -> Result<(), WorkspaceError> {
        match (&self.folder, &self.name) {
            (Folder::Disk(dir), Some(name)) => {
                dir.remove_file(name).map_err(|source| WorkspaceError::from_io(path, source))
            }
            (Folder::Disk(_) | Folder::Stored(_), _) => {
                Err(WorkspaceError::NotAFile { path: path.to_string() })
            }
        }
    }

    /// Opens the directory that is there.
    ///
    /// # Errors
    ///
    /// `NotADirectory`, `NotFound`, `PathEscape` for what became a link meanwhile, `Io`.
    pub(crate) fn directory(self, path: &RelPath) -> Result<Folder, WorkspaceError> {
        match self.name {
            Some(name) => self.folder.child(path, &name),
            None => Ok(self.folder),
        }
    }
}

/// Where the way of a path in a directory ends.
struct End {
    dir: Dir,
    name: Option<String>,
    real: RelPath,
}

impl End {
    /// The place of a file.
    ///
    /// # Errors
    ///
    /// `NotAFile` when the path ends in a directory that needs no name.
    fn file(self, path: &RelPath) -> Result<Place, WorkspaceError> {
        match self.name {
            Some(name) => Ok(Place { dir: self.dir, name }),
            None => Err(WorkspaceError::NotAFile { path: path.to_string() }),
        }
    }
}

/// What a path is looked up for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Read,
    Write,
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
/// `PathEscape` for a link that leads out or in a circle, `LinkRefused`, `ProtectedPath`,
/// `NotADirectory` for a file on the way, `NotAFile` when the path ends in a directory, `Io`.
pub(crate) fn resolve(directory: &Directory, path: &RelPath) -> Result<Place, WorkspaceError> {
    walk_to(directory, path, Purpose::Write, Missing::Create, LastLink::Follow)?.file(path)
}

/// Resolves `path` like [`resolve`] and changes nothing.
///
/// # Errors
///
/// As [`resolve`], and `NotFound` when a directory is missing on the way.
pub(crate) fn resolve_existing(
    directory: &Directory,
    path: &RelPath,
    last: LastLink,
) -> Result<Place, WorkspaceError> {
    walk_to(directory, path, Purpose::Write, Missing::Report, last)?.file(path)
}

/// Resolves `path` for reading.
///
/// # Errors
///
/// `PathEscape` for a link that leads out or in a circle, `LinkRefused`, `NotFound`, `Io`.
pub(crate) fn look_up(workspace: &Workspace, path: &RelPath) -> Result<Spot, WorkspaceError> {
    let directory = match &workspace.files {
        Files::Directory(directory) => directory,
        Files::Stored(stored) => return stored.look_up(path),
    };
    match walk_to(directory, path, Purpose::Read, Missing::Report, LastLink::Follow) {
        Err(WorkspaceError::NotADirectory { path }) => Err(WorkspaceError::NotFound { path }),
        found => found.map(|End { dir, name, real }| Spot::new(Folder::Disk(dir), name, real)),
    }
}

fn walk_to(
    directory: &Directory,
    path: &RelPath,
    purpose: Purpose,
    missing: Missing,
    last: LastLink,
) -> Result<End, WorkspaceError> {
    let pending = path.names().map(str::to_owned).collect();
    let (below, links) = (Vec::new(), 0);
    let mut walker = Walker { directory, path, purpose, missing, below, pending, links };
    for _ in 0..STEPS_MAX {
        let Some(name) = walker.pending.pop_front() else { return walker.end(None) };
        walker.check_protected(&name)?;
        if name == ".." {
            walker.leave()?;
        } else if !walker.pending.is_empty() {
            walker.enter(&name)?;
        } else if last == LastLink::Keep || !walker.follow_link(&name)? {
            return walker.end(Some(name));
        }
    }
    Err(WorkspaceError::PathEscape { path: path.to_string() })
}

struct Walker<'a> {
    directory: &'a Directory,
    path: &'a RelPath,
    purpose: Purpose,
    missing: Missing,
    /// The directories entered, with their names, from the root (not included) down to the current one.
    below: Vec<(String, Dir)>,
    /// Names still to resolve; `..` only from the text of links.
    pending: VecDeque<String>,
    links: usize,
}

impl Walker<'_> {
    fn current(&self) -> &Dir {
        self.below.last().map_or(self.directory.root(), |(_, dir)| dir)
    }

    /// The end of the way: `name` in the current directory, or that directory itself.
    fn end(mut self, name: Option<String>) -> Result<End, WorkspaceError> {
        let real = self.real(name.as_deref());
        self.check_links(&real)?;
        let dir = match self.below.pop() {
            Some((_, dir)) => dir,
            None => self.directory.root().try_clone().map_err(|source| self.io(source))?,
        };
        Ok(End { dir, name, real })
    }

    /// The path of the current directory, and of more names from there on.
    fn real<'b>(&'b self, names: impl IntoIterator<Item = &'b str>) -> RelPath {
        let below = self.below.iter().map(|(name, _)| name.as_str());
        below.chain(names).fold(RelPath::ROOT, |path, name| path.child(name))
    }

    /// Refuses a path that links lead to another one, unless the caller admits that one.
    fn check_links(&self, real: &RelPath) -> Result<(), WorkspaceError> {
        if self.links == 0 || real == self.path {
            return Ok(());
        }
        let (path, real) = (self.path.as_str(), real.as_str());
        if self.directory.admits.as_ref().is_none_or(|admits| admits(path, real)) {
            return Ok(());
        }
        Err(WorkspaceError::LinkRefused { path: path.to_owned(), real: real.to_owned() })
    }

    fn check_protected(&self, name: &str) -> Result<(), WorkspaceError> {
        if self.purpose == Purpose::Read {
            return Ok(());
        }
        if is_protected(name) {
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
                self.below.push((name.to_owned(), dir));
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
        if error.kind() != ErrorKind::NotADirectory {
            return Err(self.io(error));
        }
        // What was a link a moment ago may be a directory again: look again.
        if self.current().symlink_metadata(name).is_ok_and(|metadata| metadata.is_dir()) {
            self.retry(name);
            return Ok(());
        }
        Err(WorkspaceError::NotADirectory { path: self.path.to_string() })
    }

    /// The error for a way that ends early; a name behind its end may still be a protected one.
    fn not_there(&self) -> WorkspaceError {
        let protected = self.pending.iter().find_map(|name| self.check_protected(name).err());
        protected.unwrap_or_else(|| WorkspaceError::NotFound { path: self.path.to_string() })
    }

    fn create_dir(&self, name: &str) -> Result<(), WorkspaceError> {
        // Where all of it would lead: nothing is made on a way that is refused at its end.
        let rest = self.pending.iter().map(String::as_str).filter(|name| *name != "..");
        self.check_links(&self.real([name].into_iter().chain(rest)))?;
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
