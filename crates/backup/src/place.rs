//! An unpacked archive becomes a project: with an identity of its own, in the place of another or in
//! a new one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use iris_protocol::{ProjectId, UserId};
use iris_store::maintenance::{self, Adoption};

use crate::disk;
use crate::error::BackupError;
use crate::name::backup_name;
use crate::unpack::Unpacked;

/// What an unpacked project is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The project; that of the archive when it is restored.
    pub id: ProjectId,
    /// Always a new one, see [`random_epoch`]: positions of clients are void then.
    pub epoch: String,
    /// Who the users of the archive are here. Those without an account, and those that are not named,
    /// keep their id in what they did; nobody has it here.
    pub users: BTreeMap<UserId, Option<UserId>>,
    /// Whether it is new here, and not the project of this server that it was.
    pub is_imported: bool,
}

/// An epoch that no database had before.
///
/// # Errors
/// `Io` when the system has no random bits.
pub fn random_epoch() -> Result<String, BackupError> {
    Ok(format!("{:032x}", disk::random_bits(Path::new("epoch"))?))
}

/// Where the backups of a project are.
pub fn backups_of(data_dir: &Path, id: &ProjectId) -> PathBuf {
    data_dir.join("backups").join(id.as_str())
}

/// A path that no backup of a project has, in a directory that is there afterwards. `at` is now, in
/// milliseconds since 1970 UTC.
///
/// # Errors
/// `StorageFull`; `Io`.
pub fn new_backup_path(data_dir: &Path, id: &ProjectId, at: i64) -> Result<PathBuf, BackupError> {
    let directory = backups_of(data_dir, id);
    disk::make_private_directories(&directory)?;
    let name = backup_name(at, disk::random_number(&directory)?);
    Ok(directory.join(format!("{name}.tar.zst")))
}

/// A new path in `directory` for [`crate::unpack`]. What is left there after a crash is removed by
/// [`crate::remove_leftovers`].
///
/// # Errors
/// `Io` when the system has no random bits.
pub fn unpacking_path(directory: &Path) -> Result<PathBuf, BackupError> {
    disk::temporary_path(directory)
}

/// Gives an unpacked database its identity: project id, epoch, rooms and users, in columns and in
/// structures. Forgets the answers kept for repeated commands. All of it happens or nothing.
///
/// # Errors
/// `Corrupt` and `Newer` for a database that this server should not open; `StorageFull`; `Io`.
pub fn adopt(unpacked: &Unpacked, identity: &Identity) -> Result<(), BackupError> {
    let known = identity.users.iter();
    let users = known.filter_map(|(from, to)| Some((from.clone(), to.clone()?))).collect();
    let (project_id, epoch) = (identity.id.clone(), identity.epoch.clone());
    let is_imported = identity.is_imported;
    let adoption = Adoption { project_id, epoch, users, is_imported };
    maintenance::adopt_project(&unpacked.database, &adoption).map_err(BackupError::of_archived)
}

/// Puts an unpacked project in its place: `directory` holds the database (and the files, when `files`
/// is its `files`), which may be there already and may be new. Nobody may have the database open.
///
/// The unpacked directory lies on the same file system as `directory` and is gone afterwards, and so
/// is what was replaced. With the files inside of `directory` the exchange is one step: after a crash
/// there is either the old project or the new one. Files elsewhere are exchanged in a step before.
///
/// # Errors
/// `StorageFull`; `Io`, also for a file system that cannot exchange two directories. Nothing was
/// replaced then, except that files elsewhere may be.
pub fn replace(unpacked: &Unpacked, directory: &Path, files: &Path) -> Result<(), BackupError> {
    if files != directory.join("files") {
        replace_files(&unpacked.files, files)?;
        let emptied = BackupError::io(&unpacked.files);
        fs::remove_dir_all(&unpacked.files).map_err(&emptied)?;
        fs::create_dir(&unpacked.files).map_err(&emptied)?;
        disk::sync_directory(unpacked.directory())?;
    }
    swap(unpacked.directory(), directory)
}

/// Copies the files to where they belong, which may be another file system, and exchanges them there.
fn replace_files(from: &Path, files: &Path) -> Result<(), BackupError> {
    let aside = disk::temporary_path(disk::parent(files))?;
    let copied = copy_tree(from, &aside).and_then(|()| disk::sync_tree(&aside));
    if copied.is_err() {
        drop(fs::remove_dir_all(&aside));
    }
    copied?;
    swap(&aside, files)
}

/// Gives `new` the name `old`, and removes what had it.
fn swap(new: &Path, old: &Path) -> Result<(), BackupError> {
    if !old.try_exists().map_err(BackupError::io(old))? {
        return disk::rename_new(new, old);
    }
    disk::exchange(new, old)?;
    if let Err(error) = fs::remove_dir_all(new) {
        let path = new.display();
        tracing::warn!(%path, %error, "what was replaced could not be removed");
    }
    Ok(())
}

/// Copies what was unpacked: directories and regular files. Durable after [`disk::sync_tree`].
fn copy_tree(from: &Path, to: &Path) -> Result<(), BackupError> {
    fs::create_dir(to).map_err(BackupError::io(to))?;
    for entry in fs::read_dir(from).map_err(BackupError::io(from))? {
        let entry = entry.map_err(BackupError::io(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().map_err(BackupError::io(&source))?.is_dir() {
            copy_tree(&source, &target)?;
            continue;
        }
        let copied = fs::copy(&source, &target);
        let synced = copied.and_then(|_| disk::sync_unless_at_once(&fs::File::open(&target)?));
        synced.map_err(BackupError::io(&target))?;
    }
    let mode = fs::metadata(from).map_err(BackupError::io(from))?.permissions();
    fs::set_permissions(to, mode).map_err(BackupError::io(to))?;
    if disk::SYNCS_AT_ONCE { Ok(()) } else { disk::sync_directory(to) }
}
