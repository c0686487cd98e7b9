//! Project files: contained paths, reads, writes, listing, search.
//!
//! Everything goes through an open handle on the project's directory. A path is resolved relative to
//! that handle by the kernel or one component at a time, so no link, whenever it appears, leads out
//! (INV-9). Every call blocks: run it on a blocking thread.
//!
//! Deliberately absent: versions, locks and snapshots; permission rules; any path of the host.

mod cancel;
mod error;
mod find;
mod grep;
mod ignores;
mod path;
mod place;
mod read;
mod remove;
mod walk;
mod write;

use std::path::Path;
use std::sync::{Arc, Mutex};

use cap_std::fs::Dir;

pub use cancel::Cancel;
pub use error::WorkspaceError;
pub use find::{ListEntry, Listing};
pub use grep::{GREP_CONTEXT_MAX, GrepFile, GrepLine, GrepOutcome, GrepQuery};
pub use path::{PATH_BYTES_MAX, PATH_COMPONENTS_MAX, RelPath};
pub use read::{ContentHash, EntryKind, FileContent, FileInfo, TextContent, content_hash};
pub use walk::{Cut, SearchLimits};
pub use write::WriteOutcome;

/// The files of one project, below one directory that stays open.
///
/// Clones share the handle. If the directory is renamed or replaced meanwhile, the handle still means
/// the directory that was opened.
#[derive(Debug, Clone)]
pub struct Workspace {
    inner: Arc<Inner>,
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
        Ok(Self { inner: Arc::new(Inner { root, replacing: Mutex::new(()) }) })
    }

    fn root(&self) -> &Dir {
        &self.inner.root
    }
}
