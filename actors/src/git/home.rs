//! Where our own repository of a project is, and what git needs beside it. No command of agents gets there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use iris_protocol::{ApiError, ProjectId};
use iris_sandbox::Sandbox;

use super::broken;
use crate::directory::ProjectPlaces;

/// Whoever owns the directories: they are ours, or named by the operator.
const CONFIG: &str = "[safe]\n\tdirectory = *\n";
/// How often a directory is cleared that somebody writes to who is being ended, and the time between.
const CLEARED_TIMES: u32 = 20;
const CLEARED_EVERY: std::time::Duration = std::time::Duration::from_millis(50);

/// The directory of our own.
#[derive(Debug, Clone)]
pub(super) struct Home {
    directory: PathBuf,
    scratch: PathBuf,
    files: PathBuf,
}

impl Home {
    pub(super) fn of(data_dir: &Path, id: &ProjectId) -> Self {
        let ProjectPlaces { directory, files, .. } = ProjectPlaces::new(data_dir, id);
        // Commands get absolute paths.
        let directory = std::path::absolute(&directory).unwrap_or(directory);
        let files = std::path::absolute(&files).unwrap_or(files);
        Self { scratch: directory.join("git-scratch"), directory: directory.join("git"), files }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
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
        self.directory.join("config")
    }

    /// What a new repository begins with.
    pub(super) fn template(&self) -> PathBuf {
        self.directory.join("template")
    }

    /// Makes the directories, the first time.
    pub(super) async fn prepare(&self, sandbox: &Sandbox) -> Result<(), ApiError> {
        let (home, sandbox) = (self.clone(), sandbox.clone());
        let prepare = move || {
            if home.config().exists() {
                return Ok(());
            }
            for directory in [&home.directory, &home.scratch, &home.template()] {
                fs::create_dir_all(directory)?;
            }
            sandbox.share_directory(&home.scratch)?;
            sandbox.share_directory(&home.directory)?;
            fs::write(home.config(), CONFIG)
        };
        tokio::task::spawn_blocking(prepare).await.map_err(broken)?.map_err(broken)
    }

    /// Has new repositories know where they came from.
    pub(super) async fn write_template(&self, url: &str) -> Result<(), ApiError> {
        let quoted = url.replace('\\', r"\\").replace('"', r#"\""#);
        let text = format!(
            "[remote \"origin\"]\n\turl = \"{quoted}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n"
        );
        let path = self.template().join("config");
        let write = move || fs::write(path, text);
        tokio::task::spawn_blocking(write).await.map_err(broken)?.map_err(broken)
    }

    /// Removes what an earlier clone left: our own repository and the files.
    pub(super) async fn clear(&self) -> Result<(), ApiError> {
        let mut left = CLEARED_TIMES;
        loop {
            let home = self.clone();
            let clear = move || {
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

fn remove(directory: &Path) -> io::Result<()> {
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
