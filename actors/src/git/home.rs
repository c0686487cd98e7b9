//! Where our own repository of a project is, and what git needs beside it. No command of agents gets there.
//!
//! What git is told by files, its configuration among them, stands in a directory of its own: none of its runs writes
//! there, so that nothing a run could be made to do decides over the next one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use iris_protocol::{ApiError, ProjectId};
use iris_sandbox::Sandbox;

use super::broken;
use crate::directory::ProjectPlaces;

/// Whoever owns the directories: they are ours, or named by the operator.
const CONFIG: &str = "[safe]\n\tdirectory = *\n";
/// Where a repository says whose objects it has besides its own.
const ALTERNATES: &str = "objects/info/alternates";
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

    /// Makes the directories, the first time, and what is written in them.
    pub(super) async fn prepare(&self, sandbox: &Sandbox) -> Result<(), ApiError> {
        let (home, sandbox) = (self.clone(), sandbox.clone());
        let prepare = move || {
            if home.is_prepared() {
                return Ok(());
            }
            for directory in [&home.directory, &home.scratch, &home.template()] {
                fs::create_dir_all(directory)?;
            }
            sandbox.share_directory(&home.scratch)?;
            sandbox.share_directory(&home.directory)?;
            let objects = home.files.join(".git/objects");
            let objects = objects.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            write_whole(&home.bridge_template().join(ALTERNATES), &format!("{objects}\n"))?;
            // The last of all: it says that everything is there.
            write_whole(&home.config(), CONFIG)
        };
        tokio::task::spawn_blocking(prepare).await.map_err(broken)?.map_err(broken)
    }

    fn is_prepared(&self) -> bool {
        let places = [&self.directory, &self.scratch];
        places.iter().all(|directory| directory.is_dir())
            && fs::read_to_string(self.config()).is_ok_and(|text| text == CONFIG)
    }

    /// Has new repositories know where they came from.
    pub(super) async fn write_template(&self, url: &str) -> Result<(), ApiError> {
        let quoted = url.replace('\\', r"\\").replace('"', r#"\""#);
        let text = format!(
            "[remote \"origin\"]\n\turl = \"{quoted}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
        );
        let path = self.template().join("config");
        let write = move || write_whole(&path, &text);
        tokio::task::spawn_blocking(write).await.map_err(broken)?.map_err(broken)
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

/// Writes a file that is there with all of its text or not at all, and the directories above.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
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

/// The locks that are held in a repository, as paths below the directory that `.git` is in.
pub(super) fn locks(files: &Path) -> Vec<String> {
    let mut locks = Vec::new();
    for directory in [".git", ".git/objects/info", ".git/objects/pack"] {
        add_locks(files, directory, false, &mut locks);
    }
    add_locks(files, ".git/refs", true, &mut locks);
    locks
}

/// Follows no link: whatever commands made of the repository, what is found is removed in the sandbox.
fn add_locks(files: &Path, directory: &str, is_deep: bool, locks: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(files.join(directory)) else { return };
    for entry in entries.flatten() {
        let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else {
            continue;
        };
        let path = format!("{directory}/{name}");
        if kind.is_dir() && is_deep {
            add_locks(files, &path, is_deep, locks);
        } else if kind.is_file() && Path::new(&name).extension().is_some_and(|it| it == "lock") {
            locks.push(path);
        }
    }
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
