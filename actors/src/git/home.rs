//! Where our own repository of a project is, and what git needs beside it. No command of agents gets there.
//!
//! What git is told by files, its configuration among them, stands in a directory of its own: none of its runs writes
//! there, so that nothing a run could be made to do decides over the next one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use iris_protocol::{ApiError, ProjectId};
use iris_sandbox::Sandbox;
use parking_lot::Mutex;

use super::broken;
use crate::directory::ProjectPlaces;

/// Whoever owns the directories: they are ours, or named by the operator.
const CONFIG: &str = "[safe]\n\tdirectory = *\n";
/// What a new repository among the files leaves out whatever it says itself: what is being received or written.
const EXCLUDES: &str = ".iris-tmp-*\n";
/// Where a repository says whose objects it has besides its own.
const ALTERNATES: &str = "objects/info/alternates";
/// Most files and directories that are looked at for locks of git, and how deep.
pub(super) const ENTRIES_MAX: usize = 100_000;
const DEPTH_MAX: usize = 128;
/// How often a directory is cleared that somebody writes to who is being ended, and the time between.
const CLEARED_TIMES: u32 = 20;
const CLEARED_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

/// The directory of our own.
#[derive(Debug, Clone)]
pub(super) struct Home {
    directory: PathBuf,
    settings: PathBuf,
    scratch: PathBuf,
    files: PathBuf,
}

impl Home {
    pub(super) fn of(data_dir: &Path, id: &ProjectId) -> Self {
        let ProjectPlaces { directory, files, .. } = ProjectPlaces::new(data_dir, id);
        // Commands get absolute paths.
        let directory = std::path::absolute(&directory).unwrap_or(directory);
        let files = std::path::absolute(&files).unwrap_or(files);
        Self {
            scratch: directory.join("git-scratch"),
            settings: directory.join("git-settings"),
            directory: directory.join("git"),
            files,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// What no run of git writes to.
    pub(super) fn settings(&self) -> &Path {
        &self.settings
    }

    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The repository that knows the other side.
    pub(super) fn mirror(&self) -> PathBuf {
        self.directory.join("mirror.git")
    }

    /// In place of what a user may have configured.
    pub(super) fn config(&self) -> PathBuf {
        self.settings.join("config")
    }

    /// What a new repository among the files begins with.
    pub(super) fn template(&self) -> PathBuf {
        self.settings.join("template")
    }

    /// A repository of ours with the objects of the one among the files, and nothing else of it: neither its
    /// configuration nor its hooks. It is made for each use.
    pub(super) fn bridge(&self) -> PathBuf {
        self.directory.join("bridge.git")
    }

    /// What it begins with.
    pub(super) fn bridge_template(&self) -> PathBuf {
        self.settings.join("bridge")
    }

    /// Makes the directories, and what is written in them: the first time, and after the data directory was moved.
    pub(super) async fn prepare(&self, sandbox: &Sandbox) -> Result<(), ApiError> {
        let (home, sandbox) = (self.clone(), sandbox.clone());
        let prepare = move || {
            let objects = home.files.join(".git/objects");
            let objects = objects.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            let alternates = format!("{objects}\n");
            if home.is_prepared(&alternates) {
                return Ok(());
            }
            for directory in [&home.directory, &home.scratch, &home.template()] {
                fs::create_dir_all(directory)?;
            }
            sandbox.share_directory(&home.scratch)?;
            sandbox.share_directory(&home.directory)?;
            write_whole(&home.bridge_template().join(ALTERNATES), &alternates)?;
            // The last of all: it says that everything is there.
            write_whole(&home.config(), CONFIG)
        };
        on_disk(prepare).await
    }

    fn is_prepared(&self, alternates: &str) -> bool {
        let places = [&self.directory, &self.scratch];
        let texts =
            [(self.bridge_template().join(ALTERNATES), alternates), (self.config(), CONFIG)];
        places.iter().all(|directory| directory.is_dir())
            && texts.iter().all(|(path, text)| fs::read_to_string(path).is_ok_and(|it| it == *text))
    }

    /// Has new repositories know where they came from, and commands that commit there leave out what is none of
    /// theirs.
    pub(super) async fn write_template(&self, url: &str) -> Result<(), ApiError> {
        let quoted = url.replace('\\', r"\\").replace('"', r#"\""#);
        let text = format!(
            "[remote \"origin\"]\n\turl = \"{quoted}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
        );
        let template = self.template();
        let write = move || {
            write_whole(&template.join("info/exclude"), EXCLUDES)?;
            write_whole(&template.join("config"), &text)
        };
        on_disk(write).await
    }

    /// Removes what an earlier clone left: our own repository and the files.
    pub(super) async fn clear(&self) -> Result<(), ApiError> {
        let mut left = CLEARED_TIMES;
        loop {
            let home = self.clone();
            let clear = move || {
                remove(&home.settings)?;
                remove(&home.directory)?;
                remove(&home.scratch)?;
                empty(&home.files)
            };
            match tokio::task::spawn_blocking(clear).await.map_err(broken)? {
                Ok(()) => return Ok(()),
                Err(error) if left == 0 => return Err(broken(error)),
                // What wrote there is being ended.
                Err(_) => tokio::time::sleep(CLEARED_EVERY).await,
            }
            left -= 1;
        }
    }
}

/// Works with files where it holds nobody up.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(broken)?.map_err(broken)
}

/// Writes a file that is there with all of its text or not at all, and the directories above.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    // Whoever writes the same has the same name for what is not whole yet.
    static WRITING: Mutex<()> = Mutex::new(());
    let _alone = WRITING.lock();
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(directory)?;
    let half = path.with_extension("half");
    let mut file = File::create(&half)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    File::open(directory)?.sync_all()
}

/// Removes a directory with everything in it, if there is one.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The directory itself stays: it is held open.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Removes the packs that were not received whole, and the locks of who did not live to give them back.
pub(super) fn remove_halves(repository: &Path) -> std::io::Result<()> {
    for directory in ["", "objects", "objects/pack"] {
        let Ok(entries) = fs::read_dir(repository.join(directory)) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_half = entry.file_name().to_str().is_some_and(|name| name.starts_with("tmp_"));
            if !is_half && path.extension().is_none_or(|it| it != "lock") {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
    }
    remove_locks(&repository.join("refs"))
}

/// No ref has a name that ends like this.
fn remove_locks(directory: &Path) -> std::io::Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_locks(&path)?;
        } else if path.extension().is_some_and(|it| it == "lock") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// The locks that are held in a repository, as paths below the directory that `.git` is in; none where there is too
/// much to look at. Follows no link: whatever commands made of the repository, what is found is removed in the sandbox.
pub(super) fn locks(files: &Path) -> Option<Vec<String>> {
    let (mut locks, mut count) = (Vec::new(), 0);
    let flat = [".git", ".git/objects/info", ".git/objects/pack"].map(|it| (it.to_owned(), 0));
    let mut left = Vec::from(flat);
    left.push((".git/refs".to_owned(), DEPTH_MAX));
    while let Some((directory, depth)) = left.pop() {
        if !is_inside(files, Path::new(&directory)) {
            continue;
        }
        let Ok(entries) = fs::read_dir(files.join(&directory)) else { continue };
        for entry in entries.flatten() {
            count += 1;
            if count > ENTRIES_MAX {
                return None;
            }
            let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else {
                continue;
            };
            let path = format!("{directory}/{name}");
            if kind.is_dir() && depth > 0 {
                left.push((path, depth - 1));
            } else if kind.is_file() && Path::new(&name).extension().is_some_and(|it| it == "lock")
            {
                locks.push(path);
            }
        }
    }
    Some(locks)
}

/// Whether a directory is there, with no link on the way to it.
fn is_inside(files: &Path, directory: &Path) -> bool {
    let mut way = directory.ancestors().filter(|it| !it.as_os_str().is_empty());
    way.all(|it| files.join(it).symlink_metadata().is_ok_and(|found| found.is_dir()))
}

/// How many bytes the files below a directory have. What goes away meanwhile does not count.
pub(super) fn size_of(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_write_the_same_file_at_once_and_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("settings/config");
        std::thread::scope(|threads| {
            let write = || (0..50).try_for_each(|_| write_whole(&path, CONFIG));
            let writers: Vec<_> = (0..4).map(|_| threads.spawn(write)).collect();
            for writer in writers {
                writer.join().unwrap().unwrap();
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), CONFIG);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn locks_are_looked_for_behind_no_link_and_only_as_far_as_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let (files, git) = (dir.path().join("files"), dir.path().join("files/.git"));
        let deepest = git.join("refs").join("d/".repeat(DEPTH_MAX));
        fs::create_dir_all(deepest.join("d")).unwrap();
        fs::create_dir_all(git.join("objects/info")).unwrap();
        for lock in ["index.lock", "config", "refs/main.lock", "objects/info/a.lock"] {
            File::create(git.join(lock)).unwrap();
        }
        File::create(deepest.join("in.lock")).unwrap();
        File::create(deepest.join("d/beyond.lock")).unwrap();
        let found = |expected: &[&str]| {
            let mut locks = locks(&files).unwrap();
            locks.sort();
            assert_eq!(locks, expected);
        };
        let deep = format!(".git/refs/{}in.lock", "d/".repeat(DEPTH_MAX));
        found(&[".git/index.lock", ".git/objects/info/a.lock", &deep, ".git/refs/main.lock"]);

        for (directory, elsewhere) in [("refs", "refs-of-others"), ("objects", "others")] {
            fs::rename(git.join(directory), dir.path().join(elsewhere)).unwrap();
            std::os::unix::fs::symlink(dir.path().join(elsewhere), git.join(directory)).unwrap();
        }
        found(&[".git/index.lock"]);

        let pack = git.join("objects-of-ours/pack");
        fs::create_dir_all(&pack).unwrap();
        fs::remove_file(git.join("objects")).unwrap();
        fs::rename(git.join("objects-of-ours"), git.join("objects")).unwrap();
        for n in 0..ENTRIES_MAX {
            File::create(git.join("objects/pack").join(n.to_string())).unwrap();
        }
        assert_eq!(locks(&files), None);
    }
}
