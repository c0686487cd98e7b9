//! Where archives lie, and what a crash leaves of work with them.
//!
//! A new archive is `<time>-<id>.tar.zst.new` until its row is committed; a new project that comes from
//! an archive is `<id>.incoming` until its row is. So whatever has such a name at the start is finished
//! if there is a row, and removed if there is none: nobody was told of it. An archive that is deleted
//! goes first and its row after it. An archive without a row is left alone: it is of an operator, or of
//! a root database that somebody put back to an earlier time.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

pub(super) use iris_backup::make_private_directories as make_dir;
use iris_protocol::{BackupId, ProjectId};
use iris_store::root::{DeleteBackup, RootDatabase, StoredBackup};
use iris_store::{StoreError, WriteContext};

/// Ends the name of an archive that has no row yet.
const NEW: &str = ".new";
/// Ends the name of what SQLite keeps beside a copy of the root database that it writes.
const NEW_JOURNAL: &str = ".db.new-journal";
/// Ends the name of a project's directory that has no row yet.
const INCOMING: &str = ".incoming";

/// The directory of all backups.
pub(super) fn backups_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("backups")
}

/// The directory of the archives of a project.
pub(super) fn project_dir(data_dir: &Path, id: &ProjectId) -> PathBuf {
    backups_dir(data_dir).join(id.as_str())
}

/// Where uploads are until they are imported.
fn uploads_dir(data_dir: &Path) -> PathBuf {
    backups_dir(data_dir).join("uploads")
}

/// The archive of a backup.
pub(crate) fn archive_path(data_dir: &Path, id: &ProjectId, file: &str) -> PathBuf {
    project_dir(data_dir, id).join(file)
}

/// The name of a new archive: names sort by time.
pub(super) fn archive_name(at: i64, id: &BackupId) -> String {
    format!("{}-{id}.tar.zst", stamp(at))
}

/// A time as names have it: `20261128T140000Z`.
pub(super) fn stamp(at: i64) -> String {
    let name = iris_backup::backup_name(at, 0);
    name.split('-').next().unwrap_or_default().to_owned()
}

/// The name of an archive until its row is committed.
pub(super) fn unrecorded(archive: &Path) -> PathBuf {
    with_suffix(archive, NEW)
}

/// The directory of a project until its row is committed.
pub(super) fn incoming(directory: &Path) -> PathBuf {
    with_suffix(directory, INCOMING)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Lets nobody but the server read a file.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    File::open(path)?.sync_all()
}

/// Gives something another name, for good: a loss of power does not undo it.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_dir(to.parent().unwrap_or(to))
}

pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Removes a file or a directory with all that is in it, if it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// As [`remove`], where all that can be done about a failure is to say so.
fn clear(path: &Path) {
    if let Err(error) = remove(path) {
        tracing::error!(path = %path.display(), %error, "what is left over could not be removed");
    }
}

/// A file or directory that is removed unless somebody keeps it.
#[derive(Debug)]
pub struct NewFile(Option<PathBuf>);

impl NewFile {
    /// What is at `path` from now on.
    pub(super) fn new(path: PathBuf) -> Self {
        Self(Some(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Leaves it where it is.
    pub(super) fn keep(mut self) -> PathBuf {
        self.0.take().unwrap_or_default()
    }

    /// An empty file for an upload, that only the server can read. Waits for the disk.
    ///
    /// # Errors
    /// As the disk fails.
    pub fn for_upload(data_dir: &Path, name: u128) -> io::Result<(Self, File)> {
        let directory = uploads_dir(data_dir);
        make_dir(&directory)?;
        let path = directory.join(format!("{name:032x}.tar.zst"));
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        Ok((Self::new(path), file))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            clear(&path);
        }
    }
}

/// Removes every archive of a project that is deleted. Waits for the disk.
///
/// # Errors
/// As the disk fails; what is left then is removed by the next call.
pub fn remove_backups(data_dir: &Path, project_id: &ProjectId) -> io::Result<()> {
    remove(&project_dir(data_dir, project_id))
}

/// Finishes or removes what a crash left of work with archives, before the first project is opened.
/// Waits for the disk.
///
/// # Errors
/// When the root database cannot be read or written. Failures of single files are logged.
pub async fn settle(data_dir: &Path, root: &RootDatabase) -> Result<(), StoreError> {
    let reader = root.reader();
    let rows = reader.all_backups().await?;
    let projects: HashSet<ProjectId> = reader.all_project_ids().await?.into_iter().collect();
    clear(&uploads_dir(data_dir));
    let directory = data_dir.join("projects");
    for place in [&directory, &backups_dir(data_dir), &super::server::directory(data_dir)] {
        if let Err(error) = iris_backup::remove_leftovers(place) {
            tracing::error!(%error, "what a crash left could not be removed");
        }
    }
    settle_projects(&directory, &projects);
    settle_new_archives(&backups_dir(data_dir), &rows);
    for StoredBackup { backup, file } in rows {
        let archive = archive_path(data_dir, &backup.project_id, &file);
        // It may also still have the name that it could not be given another one for.
        if !is_absent(&archive) || !is_absent(&unrecorded(&archive)) {
            continue;
        }
        tracing::warn!(backup.id = %backup.id, project.id = %backup.project_id, "a backup is gone");
        let forget = DeleteBackup { project_id: backup.project_id, id: backup.id };
        root.writer().submit(forget, WriteContext::default()).await?;
    }
    Ok(())
}

/// Whether there is surely nothing. What cannot be looked at may be there.
fn is_absent(path: &Path) -> bool {
    match path.try_exists() {
        Ok(is_there) => !is_there,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "what a crash left is not settled");
            false
        }
    }
}

/// What is in a directory, as far as it can be read.
pub(super) fn names(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let named = entries.filter_map(|entry| {
        let entry = entry.ok()?;
        Some((entry.file_name().to_str()?.to_owned(), entry.path()))
    });
    named.collect()
}

fn settle_projects(directory: &Path, projects: &HashSet<ProjectId>) {
    for (name, path) in names(directory) {
        let Some(id) = name.strip_suffix(INCOMING) else { continue };
        let Ok(id) = id.parse::<ProjectId>() else { continue };
        let place = directory.join(id.as_str());
        if !projects.contains(&id) {
            clear(&path);
            continue;
        }
        match place.try_exists() {
            Ok(false) => finish(&path, &place),
            Ok(true) => clear(&path),
            // It may be all that there is of the project.
            Err(error) => {
                let path = place.display();
                tracing::error!(%path, %error, "what a crash left is not settled");
            }
        }
    }
}

fn settle_new_archives(directory: &Path, rows: &[StoredBackup]) {
    let recorded: HashMap<&str, &StoredBackup> =
        rows.iter().map(|row| (row.file.as_str(), row)).collect();
    for (_, of_project) in names(directory) {
        for (name, path) in names(&of_project) {
            let Some(archive) = name.strip_suffix(NEW) else {
                if name.starts_with(iris_backup::TEMP_PREFIX) || name.ends_with(NEW_JOURNAL) {
                    clear(&path);
                }
                continue;
            };
            if recorded.contains_key(archive) {
                finish(&path, &of_project.join(archive));
            } else {
                clear(&path);
            }
        }
    }
}

fn finish(from: &Path, to: &Path) {
    if let Err(error) = rename(from, to) {
        tracing::error!(path = %to.display(), %error, "what a crash left could not be finished");
    }
}
