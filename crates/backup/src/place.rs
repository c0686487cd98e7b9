//! An unpacked archive becomes a project: with an identity of its own, in the place of another or in
//! a new one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use iris_protocol::{ProjectId, ProjectType, UserId};
use iris_store::maintenance::{self, Adoption};
use iris_store::root::{ImportProject, NewGit};

use crate::disk;
use crate::error::BackupError;
use crate::manifest::ProjectAbout;
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
    /// keep their id in what they did.
    pub users: BTreeMap<UserId, Option<UserId>>,
    /// Who brings it along, where it is new here and not the project of this server that it was.
    pub importer: Option<UserId>,
}

impl Identity {
    /// The project that an archive becomes, with those of its members that are users here. `at` is now,
    /// in milliseconds since 1970 UTC.
    pub fn import(&self, about: &ProjectAbout, owner_id: UserId, at: i64) -> ImportProject {
        let members = about.members.iter().filter_map(|member| {
            let user_id = self.users.get(&member.user_id)?.clone()?;
            Some((user_id, member.role))
        });
        ImportProject {
            id: self.id.clone(),
            owner_id,
            members: members.collect(),
            name: about.name.clone(),
            description: about.description.clone(),
            settings: about.settings.clone(),
            // One of the type `git` whose archive does not say where it came from has its files all the same.
            r#type: match about.project_type {
                ProjectType::Git if about.git.is_none() => ProjectType::Local,
                other @ (ProjectType::Local | ProjectType::Git | ProjectType::Remote) => other,
            },
            git: about.git.as_ref().filter(|_| about.project_type == ProjectType::Git).map(|git| {
                let (url, branch) = (git.url.clone(), git.branch.clone());
                NewGit { url, branch, username: None, sealed: None }
            }),
            created_at: about.created_at,
            at,
        }
    }
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
    new_path(data_dir, id, at, ".tar.zst")
}

/// As [`new_backup_path`], for [`replace_kept`].
///
/// # Errors
/// `StorageFull`; `Io`.
pub fn new_kept_path(data_dir: &Path, id: &ProjectId, at: i64) -> Result<PathBuf, BackupError> {
    new_path(data_dir, id, at, "-damaged")
}

fn new_path(
    data_dir: &Path,
    id: &ProjectId,
    at: i64,
    ending: &str,
) -> Result<PathBuf, BackupError> {
    let directory = backups_of(data_dir, id);
    disk::make_private_directories(&directory).map_err(BackupError::io(&directory))?;
    let name = backup_name(at, disk::random_number(&directory)?);
    Ok(directory.join(format!("{name}{ending}")))
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
    let importer = identity.importer.clone();
    let adoption = Adoption { project_id, epoch, users, importer };
    maintenance::adopt_project(&unpacked.database, &adoption).map_err(BackupError::of_archived)
}

/// Puts an unpacked project in its place: `directory` holds the database (and the files, when `files`
/// is its `files`), which may be there already and may be new. Nobody may have the database open.
///
/// The unpacked directory lies on the same file system as `directory` and is gone afterwards, and so
/// is what was replaced, unless that cannot be made durable: then it is left under the temporary name.
/// With the files inside of `directory` the exchange is one step: after a crash there is either the old
/// project or the new one. Files elsewhere are exchanged in a step before.
///
/// # Errors
/// `StorageFull`; `Io`, also for a file system that cannot exchange two directories. Nothing was
/// replaced then, except that files elsewhere may be.
pub fn replace(unpacked: &Unpacked, directory: &Path, files: &Path) -> Result<(), BackupError> {
    if files != directory.join("files") {
        put_copy(&unpacked.files, files, |copy| swap(copy, files))?;
        empty_files(unpacked)?;
    }
    swap(unpacked.directory(), directory)
}

/// Where [`replace_kept`] left what was replaced; nothing where there was nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// All that was in the directory of the project.
    pub directory: Option<PathBuf>,
    /// Files that lie elsewhere: beside where they were.
    pub files: Option<PathBuf>,
}

/// As [`replace`], for what is not archived and must not be lost: the directory that was replaced is
/// `kept` afterwards, a new path on the same file system whose parent is there. Files elsewhere that
/// were replaced are beside `files`, under its name with that of `kept` at its end.
///
/// The exchange is one step here too; after a crash just before it `kept` holds the new project.
///
/// # Errors
/// As [`replace`]; `Exists` for `kept`. What was there is in its place then; or kept, which is
/// `FilesKept`.
pub fn replace_kept(
    unpacked: &Unpacked,
    directory: &Path,
    files: &Path,
    kept: &Path,
) -> Result<Kept, BackupError> {
    let is_elsewhere = files != directory.join("files");
    let mut kept_files = None;
    if is_elsewhere {
        let beside = beside(files, kept);
        let is_kept = put_copy(&unpacked.files, files, |copy| swap_kept(copy, files, &beside))?;
        kept_files = is_kept.then_some(beside);
    }
    let emptied = if is_elsewhere { empty_files(unpacked) } else { Ok(()) };
    match (emptied.and_then(|()| swap_kept(unpacked.directory(), directory, kept)), kept_files) {
        (Ok(is_kept), files) => Ok(Kept { directory: is_kept.then(|| kept.to_owned()), files }),
        (Err(cause), Some(files)) => Err(BackupError::FilesKept { files, cause: Box::new(cause) }),
        (Err(cause), None) => Err(cause),
    }
}

fn beside(files: &Path, kept: &Path) -> PathBuf {
    let mut name = files.file_name().unwrap_or_default().to_owned();
    name.push(OsStr::new("-"));
    name.push(kept.file_name().unwrap_or_default());
    files.with_file_name(name)
}

/// Copies files to a temporary place beside where they belong, which may be another file system, and has
/// them put there. When that fails, nothing is left of the copy: nobody cleans up there.
fn put_copy<T>(
    from: &Path,
    files: &Path,
    put: impl FnOnce(&Path) -> Result<T, BackupError>,
) -> Result<T, BackupError> {
    let copy = disk::temporary_path(disk::parent(files))?;
    let copied = copy_tree(from, &copy).and_then(|()| disk::sync_tree(&copy));
    let put = copied.and_then(|()| put(&copy));
    if put.is_err() {
        drop(fs::remove_dir_all(&copy));
    }
    put
}

/// The files went elsewhere: leaves an empty directory.
fn empty_files(unpacked: &Unpacked) -> Result<(), BackupError> {
    let emptied = BackupError::io(&unpacked.files);
    fs::remove_dir_all(&unpacked.files).map_err(&emptied)?;
    fs::create_dir(&unpacked.files).map_err(&emptied)?;
    disk::sync_directory(unpacked.directory())
}

/// Gives `new` the name `old`, and removes what had it. When it fails, both are where they were.
fn swap(new: &Path, old: &Path) -> Result<(), BackupError> {
    if !old.try_exists().map_err(BackupError::io(old))? {
        return disk::rename_new(new, old);
    }
    disk::exchange(new, old)?;
    // Removed only for good: a loss of power may bring back what was replaced.
    if made_durable(new, old)
        && let Err(error) = fs::remove_dir_all(new)
    {
        let path = new.display();
        tracing::warn!(%path, %error, "what was replaced could not be removed");
    }
    Ok(())
}

/// Makes an exchange durable and says whether it is. It happened in any case: whoever heard of a failure
/// would take what is in place now for what was not put there.
fn made_durable(left: &Path, placed: &Path) -> bool {
    let synced = disk::sync_parents(left, placed);
    if let Err(error) = &synced {
        let (path, left) = (placed.display(), left.display());
        tracing::warn!(%path, %left, %error, "what was put in place may not outlast a loss of power");
    }
    synced.is_ok()
}

/// Gives `new` the name `old`, and what had it the name `kept`. Answers whether there was anything. When
/// it fails, both are where they were.
fn swap_kept(new: &Path, old: &Path, kept: &Path) -> Result<bool, BackupError> {
    if !old.try_exists().map_err(BackupError::io(old))? {
        return disk::rename_new(new, old).map(|()| false);
    }
    // Before the exchange, so that whatever is cut off after it leaves what was replaced under a name
    // that nobody cleans up.
    disk::rename_new(new, kept)?;
    if let Err(error) = disk::exchange(kept, old) {
        // Nothing was exchanged: the caller has the new one where it was.
        disk::rename(kept, new)?;
        return Err(error);
    }
    made_durable(kept, old);
    Ok(true)
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
