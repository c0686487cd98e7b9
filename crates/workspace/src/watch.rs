//! Hearing of changes below the project's directory, where the system tells of them.
//!
//! What is heard says where to look, nothing more: it may come late, twice, or not at all when there is too
//! much of it. Then the answer is to look at everything.

use std::collections::BTreeSet;
use std::io;

use crate::Workspace;
use crate::ignores::Ignores;
use crate::path::RelPath;
use crate::walk::ignores_above;

/// Most directories that one watcher is to watch: they take memory of the system, which bounds them too.
pub const WATCHED_DIRECTORIES_MAX: usize = 8_192;
/// Paths that are told one by one; of more, all are looked at.
pub const CHANGED_PATHS_MAX: usize = 1_000;

/// Where something changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Files, relative to the project's directory.
    pub paths: BTreeSet<String>,
    /// Whether anything else may have changed too: directories came and went, or there was too much to tell.
    pub is_all: bool,
}

impl Changes {
    /// Takes over what others heard.
    pub fn extend(&mut self, more: Self) {
        self.is_all |= more.is_all;
        self.paths.extend(more.paths);
        if self.is_all || self.paths.len() > CHANGED_PATHS_MAX {
            self.is_all = true;
            self.paths.clear();
        }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        !self.is_all && self.paths.is_empty()
    }
}

impl Workspace {
    /// Whether `.gitignore` files leave out a file; one of a path that is none is.
    pub fn is_ignored(&self, path: &str) -> bool {
        let Ok(path) = RelPath::file(path) else { return true };
        let mut ignores: Ignores = ignores_above(self, &path);
        let names: Vec<&str> = path.names().collect();
        let mut at = RelPath::ROOT;
        for (index, name) in names.iter().enumerate() {
            at = at.child(name);
            if name.eq_ignore_ascii_case(".git") || ignores.contains(&at, index + 1 < names.len()) {
                return true;
            }
        }
        // The stack is that of all directories above; nothing else uses it.
        ignores.leave();
        false
    }
}

#[cfg(target_os = "linux")]
pub use linux::Watcher;

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashMap;
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

    use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
    use rustix::io::Errno;

    use super::{Changes, io};
    use crate::write::TEMP_PREFIX;
    use crate::{Directory, Files, Workspace};

    /// Hears what changes in the directories of a project. Its descriptor is readable when something did.
    #[derive(Debug)]
    pub struct Watcher {
        heard: OwnedFd,
        directory: Directory,
        directories_max: usize,
        /// Paths of directories by the numbers of their watches.
        directories: HashMap<i32, String>,
    }

    impl Watcher {
        /// A watcher that watches nothing yet, and never more than `directories_max` directories.
        ///
        /// # Errors
        ///
        /// What the system said: it has a bound for watchers. `Unsupported` for stored files, which nobody
        /// changes unseen.
        pub fn new(workspace: &Workspace, directories_max: usize) -> io::Result<Self> {
            let Files::Directory(directory) = &workspace.files else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            let heard = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            let directory = directory.clone();
            Ok(Self { heard, directory, directories_max, directories: HashMap::new() })
        }

        /// Watches these directories too, `.` among them. Says whether that is possible for all of them; one
        /// that is gone needs no watch.
        pub fn watch(&mut self, directories: &[String]) -> bool {
            let root = self.directory.root().as_fd().as_raw_fd();
            let flags = WatchFlags::CREATE
                | WatchFlags::CLOSE_WRITE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::ATTRIB
                | WatchFlags::ONLYDIR
                | WatchFlags::DONT_FOLLOW;
            for directory in directories {
                // Through the open handle, whatever became of the path to it.
                let path = format!("/proc/self/fd/{root}/{directory}");
                match inotify::add_watch(&self.heard, path, flags) {
                    // One that is watched already has the number it had.
                    Ok(number) if self.has_room_for(number) => {
                        self.directories.insert(number, directory.clone());
                    }
                    Ok(number) => {
                        inotify::remove_watch(&self.heard, number).unwrap_or_default();
                        return false;
                    }
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => {}
                    Err(_) => return false,
                }
            }
            true
        }

        fn has_room_for(&self, number: i32) -> bool {
            self.directories.len() < self.directories_max || self.directories.contains_key(&number)
        }

        /// What was heard since the last time. Does not wait.
        pub fn changes(&mut self) -> Changes {
            let mut changes = Changes::default();
            let mut buffer = [MaybeUninit::uninit(); 16 * 1024];
            let mut reader = Reader::new(&self.heard, &mut buffer);
            let mut lost = Vec::new();
            loop {
                let event = match reader.next() {
                    Ok(event) => event,
                    Err(Errno::INTR) => continue,
                    Err(_) => break,
                };
                let kinds = event.events();
                if kinds.contains(ReadFlags::IGNORED) {
                    lost.push(event.wd());
                    continue;
                }
                if kinds.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::ISDIR) {
                    changes.is_all = true;
                    continue;
                }
                let name = event.file_name().and_then(|name| name.to_str().ok());
                let directory = self.directories.get(&event.wd());
                let (Some(name), Some(directory)) = (name, directory) else { continue };
                if name.starts_with(TEMP_PREFIX) {
                    continue;
                }
                let path =
                    if directory == "." { name.to_owned() } else { format!("{directory}/{name}") };
                let paths = [path].into_iter().collect();
                changes.extend(Changes { paths, is_all: false });
            }
            for number in lost {
                self.directories.remove(&number);
            }
            changes.extend(Changes::default());
            changes
        }
    }

    impl AsRawFd for Watcher {
        fn as_raw_fd(&self) -> RawFd {
            self.heard.as_raw_fd()
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_watcher_names_files_and_says_when_everything_has_to_be_looked_at() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dir")).unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        let mut watcher = Watcher::new(&workspace, WATCHED_DIRECTORIES_MAX).unwrap();
        assert!(watcher.watch(&[".".to_owned(), "dir".to_owned(), "gone".to_owned()]));
        assert!(watcher.changes().is_empty());
        fs::write(root.path().join("a"), "a").unwrap();
        fs::write(root.path().join("dir/b"), "b").unwrap();
        fs::write(root.path().join(".iris-tmp-1"), "half").unwrap();
        let changes = watcher.changes();
        let paths: Vec<&str> = changes.paths.iter().map(String::as_str).collect();
        assert_eq!((paths, changes.is_all), (vec!["a", "dir/b"], false));
        fs::create_dir(root.path().join("new")).unwrap();
        assert!(watcher.changes().is_all);
        assert!(watcher.changes().is_empty());
    }

    #[test]
    fn a_watcher_that_may_not_watch_more_says_so_and_hears_of_the_others() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dir")).unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        let mut watcher = Watcher::new(&workspace, 1).unwrap();
        let all = [".".to_owned(), "dir".to_owned()];
        assert!(watcher.watch(&all[..1]));
        assert!(watcher.watch(&all[..1]), "it is watched already");
        assert!(!watcher.watch(&all));
        fs::write(root.path().join("dir/b"), "b").unwrap();
        assert!(watcher.changes().is_empty());
        fs::write(root.path().join("a"), "a").unwrap();
        assert!(watcher.changes().paths.contains("a"));
    }

    #[test]
    fn what_is_ignored_is_known_by_its_path() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/target")).unwrap();
        fs::write(root.path().join(".gitignore"), "target/\n*.log\n").unwrap();
        fs::write(root.path().join("a/.gitignore"), "!keep.log\n").unwrap();
        let workspace = Workspace::open(root.path()).unwrap();
        for (path, expected) in [
            ("a/target/x", true),
            ("a/x.log", true),
            ("a/keep.log", false),
            ("a/x", false),
            (".git/config", true),
            ("../x", true),
        ] {
            assert_eq!(workspace.is_ignored(path), expected, "{path}");
        }
    }
}
