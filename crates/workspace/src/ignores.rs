//! The `.gitignore` files that apply at one point of a walk.

use std::io::Read;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::folder::Folder;
use crate::path::RelPath;

pub(crate) const IGNORE_FILE: &str = ".gitignore";
/// How much of one `.gitignore` counts, in bytes.
const IGNORE_FILE_BYTES_MAX: u64 = 64 * 1024;

/// A stack of ignore files, one for each directory from the root down to the current one.
#[derive(Default)]
pub(crate) struct Ignores {
    files: Vec<Gitignore>,
}

impl Ignores {
    /// Enters `dir`, whose path is `path`. A file that is missing or broken ignores nothing.
    pub(crate) fn enter(&mut self, folder: &Folder, path: &RelPath) {
        self.files.push(read(folder, path).unwrap_or_else(Gitignore::empty));
    }

    /// Enters a directory that has none.
    pub(crate) fn enter_without(&mut self) {
        self.files.push(Gitignore::empty());
    }

    /// Leaves the directory entered last.
    pub(crate) fn leave(&mut self) {
        self.files.pop();
    }

    /// Whether the entry `path` of the current directory is ignored; the nearest file decides.
    pub(crate) fn contains(&self, path: &RelPath, is_dir: bool) -> bool {
        for file in self.files.iter().rev() {
            match file.matched(path.as_str(), is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

fn read(folder: &Folder, path: &RelPath) -> Option<Gitignore> {
    let file = folder.open(&path.child(IGNORE_FILE), IGNORE_FILE).ok()?.body;
    let mut bytes = Vec::new();
    file.take(IGNORE_FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let mut builder = GitignoreBuilder::new(if path.is_root() { "" } else { path.as_str() });
    for line in String::from_utf8_lossy(&bytes).lines() {
        // A line that is no glob is skipped, as git does.
        let _skipped = builder.add_line(None, line).is_err();
    }
    builder.build().ok()
}
