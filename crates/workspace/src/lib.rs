//! Project files: contained paths, reads, writes, listing, search.
//!
//! The files are in a directory, or in a store. In a directory everything goes through an open handle on it:
//! a path is resolved from that handle on, one name at a time, so no link, whenever it appears, leads out
//! (INV-9), and what is opened is known by its real path. In a store there are no links, and what is changed
//! is a draft until the caller commits it. Every call blocks: run it on a blocking thread.
//!
//! Deliberately absent: the history of files, locks and snapshots; permission rules; any path of the host.

mod cancel;
mod diff;
mod error;
mod find;
mod folder;
mod grep;
mod ignores;
mod open;
mod page;
mod path;
mod place;
mod read;
mod remove;
mod rename;
mod seen;
mod staging;
mod stamps;
mod stored;
mod walk;
mod watch;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cap_std::fs::Dir;
use stored::Stored;

pub use cancel::Cancel;
pub use diff::{Difference, compare, unified};
pub use error::WorkspaceError;
pub use find::{ListEntry, Listing};
pub use grep::{GREP_CONTEXT_MAX, GrepFile, GrepLine, GrepOutcome, GrepQuery};
pub use open::OpenFile;
pub use page::{Entry, EntryPage, shown_path};
pub use path::{PATH_BYTES_MAX, PATH_COMPONENTS_MAX, RelPath};
pub use read::{ContentHash, EntryKind, FileContent, FileInfo, TextContent, content_hash};
pub use rename::Moved;
pub use seen::{Scan, Seen, SeenFile};
pub use staging::StagedFile;
pub use stamps::FileStamp;
pub use stored::{Drafted, FileStore, StoredEntry, StoredFile};
pub use walk::{Cut, SearchLimits};
#[cfg(target_os = "linux")]
pub use watch::Watcher;
pub use watch::{CHANGED_PATHS_MAX, Changes, WATCHED_DIRECTORIES_MAX};
pub use write::WriteOutcome;
#[cfg(feature = "faults")]
pub use write::when_half_written;

/// The files of one project. Clones mean the same ones.
#[derive(Debug, Clone)]
pub struct Workspace {
    files: Files,
}

/// Where they are.
#[derive(Debug, Clone)]
enum Files {
    Directory(Directory),
    Stored(Stored),
}

/// Files below one directory that stays open.
///
/// If the directory is renamed or replaced meanwhile, the handle still means the one that was opened.
#[derive(Clone)]
struct Directory {
    inner: Arc<Inner>,
    admits: Option<Arc<AdmitsLink>>,
}

/// Whether the path that was named, the first, may be used although links lead it to another one of the
/// project, the second.
pub type AdmitsLink = dyn Fn(&str, &str) -> bool + Send + Sync;

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Directory").field("inner", &self.inner).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Inner {
    root: Dir,
    /// Held from the last look at a file until its replacement is in place.
    replacing: Mutex<()>,
}

impl Workspace {
    /// Opens the directory `root`, following links to it.
    ///
    /// Writers check for changes against each other only through clones of one `Workspace`, so open
    /// one for each project and clone it.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::RootUnavailable`] when it is missing, not a directory or not readable.
    pub fn open(root: &Path) -> Result<Self, WorkspaceError> {
        let inner = Inner { root: open_root(root)?, replacing: Mutex::new(()) };
        let directory = Directory { inner: Arc::new(inner), admits: None };
        Ok(Self { files: Files::Directory(directory) })
    }

    /// The files that `store` holds. What is received of them grows below `staging`, a directory that holds
    /// none of them.
    ///
    /// # Errors
    ///
    /// [`WorkspaceError::RootUnavailable`] when that is missing, not a directory or not readable.
    pub fn stored(store: Arc<dyn FileStore>, staging: &Path) -> Result<Self, WorkspaceError> {
        let stored = Stored::new(store, open_root(staging)?);
        Ok(Self { files: Files::Stored(stored) })
    }

    /// Whether they are in a store: nobody changes them but through Iris.
    pub fn is_stored(&self) -> bool {
        matches!(self.files, Files::Stored(_))
    }

    /// The same files, to be changed: in a store what is changed is seen through this and its clones alone,
    /// until the caller commits what [`Workspace::drafted`] says.
    #[must_use]
    pub fn draft(&self) -> Self {
        let files = match &self.files {
            Files::Directory(directory) => Files::Directory(directory.clone()),
            Files::Stored(stored) => Files::Stored(stored.draft()),
        };
        Self { files }
    }

    /// What was changed in a draft of stored files, by path; nothing of a directory, which is changed already.
    pub fn drafted(&self) -> Vec<Drafted> {
        match &self.files {
            Files::Directory(_) => Vec::new(),
            Files::Stored(stored) => stored.drafted(),
        }
    }

    /// The same directory for a caller who looks where links lead: whatever is opened, listed, written or
    /// removed in it is what its path says, or what `admits` says yes to, whatever becomes of links
    /// meanwhile. Otherwise it fails with [`WorkspaceError::LinkRefused`]. In a store there are no links.
    #[must_use]
    pub fn guarded(self, admits: Arc<AdmitsLink>) -> Self {
        let files = match self.files {
            Files::Directory(directory) => {
                Files::Directory(Directory { admits: Some(admits), ..directory })
            }
            stored @ Files::Stored(_) => stored,
        };
        Self { files }
    }

    /// The directory below which what is received grows.
    fn staging_root(&self) -> &Dir {
        match &self.files {
            Files::Directory(directory) => directory.root(),
            Files::Stored(stored) => stored.staging(),
        }
    }
}

impl Directory {
    fn root(&self) -> &Dir {
        &self.inner.root
    }

    /// Waits until no other writer is between its last look at a file and its replacement.
    fn replacing(&self) -> MutexGuard<'_, ()> {
        self.inner.replacing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_root(path: &Path) -> Result<Dir, WorkspaceError> {
    Dir::open_ambient_dir(path, cap_std::ambient_authority())
        .map_err(|source| WorkspaceError::RootUnavailable { source })
}
