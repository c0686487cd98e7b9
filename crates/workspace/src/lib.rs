//! Project files: contained paths, reads, writes, listing, search.
//!
//! Everything goes through an open handle on the project's directory. A path is resolved from that
//! handle on, one name at a time, so no link, whenever it appears, leads out (INV-9), and what is opened
//! is known by its real path. Every call blocks: run it on a blocking thread.
//!
//! Deliberately absent: the history of files, locks and snapshots; permission rules; any path of the host.

mod cancel;
mod diff;
mod error;
mod find;
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
mod walk;
mod watch;
mod write;

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use cap_std::fs::Dir;

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
pub use walk::{Cut, SearchLimits};
#[cfg(target_os = "linux")]
pub use watch::Watcher;
pub use watch::{CHANGED_PATHS_MAX, Changes, WATCHED_DIRECTORIES_MAX};
pub use write::WriteOutcome;

/// The files of one project, below one directory that stays open.
///
/// Clones share the handle. If the directory is renamed or replaced meanwhile, the handle still means
/// the directory that was opened.
#[derive(Clone)]
pub struct Workspace {
    inner: Arc<Inner>,
    admits: Option<Arc<AdmitsLink>>,
}

/// Whether the path that was named, the first, may be used although links lead it to another one of the
/// project, the second.
pub type AdmitsLink = dyn Fn(&str, &str) -> bool + Send + Sync;

impl fmt::Debug for Workspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspace").field("inner", &self.inner).finish_non_exhaustive()
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
        let root = Dir::open_ambient_dir(root, cap_std::ambient_authority())
            .map_err(|source| WorkspaceError::RootUnavailable { source })?;
        let inner = Inner { root, replacing: Mutex::new(()) };
        Ok(Self { inner: Arc::new(inner), admits: None })
    }

    /// The same directory for a caller who looks where links lead: whatever is opened, listed, written or
    /// removed in it is what its path says, or what `admits` says yes to, whatever becomes of links
    /// meanwhile. Otherwise it fails with [`WorkspaceError::LinkRefused`].
    #[must_use]
    pub fn guarded(self, admits: Arc<AdmitsLink>) -> Self {
        Self { admits: Some(admits), ..self }
    }

    fn root(&self) -> &Dir {
        &self.inner.root
    }
}
