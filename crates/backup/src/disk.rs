//! Temporary names, and making sure that what was written stays.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::error::BackupError;

/// How names of what is not finished begin. After a crash they may be removed.
pub const TEMP_PREFIX: &str = ".iris-tmp-";

/// The directory that holds `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// A new directory in `directory`, for its owner alone, which is gone when the value is dropped.
pub(crate) fn work_directory(directory: &Path) -> Result<tempfile::TempDir, BackupError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMP_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir_in(directory).map_err(BackupError::io(directory))
}

/// A temporary name in `directory` that nothing has.
pub(crate) fn temporary_path(directory: &Path) -> Result<PathBuf, BackupError> {
    Ok(directory.join(format!("{TEMP_PREFIX}{:032x}", random_bits(directory)?)))
}

/// Random bits of the system; `path` is for the error alone.
pub(crate) fn random_bits(path: &Path) -> Result<u128, BackupError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| BackupError::io(path)(io::Error::other(error.to_string())))?;
    Ok(u128::from_le_bytes(bytes))
}

/// As [`random_bits`], enough to tell apart what is made in one second.
pub(crate) fn random_number(path: &Path) -> Result<u32, BackupError> {
    let bytes = random_bits(path)?.to_le_bytes();
    Ok(bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)))
}

/// Makes a directory and those that hold it, for their owner alone, as far as they are missing. They
/// are on the disk then.
///
/// # Errors
/// As the disk fails.
pub fn make_private_directories(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    make_with(&builder, path)
}

/// As [`make_private_directories`], for whoever the system lets in.
///
/// # Errors
/// As the disk fails.
pub fn make_directories(path: &Path) -> Result<(), BackupError> {
    make_with(&fs::DirBuilder::new(), path).map_err(BackupError::io(path))
}

fn make_with(builder: &fs::DirBuilder, path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_with(builder, parent(path))?;
    match builder.create(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        made => made?,
    }
    File::open(parent(path))?.sync_all()
}

/// Makes durable which names a directory holds.
pub(crate) fn sync_directory(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(BackupError::io(path))
}

/// Whether [`sync_tree`] does everything, so that the files need not be synced one by one, which takes
/// a write of the disk's journal each.
pub(crate) const SYNCS_AT_ONCE: bool = cfg!(target_os = "linux");

/// Makes durable what was written below a directory, where [`SYNCS_AT_ONCE`] says so; otherwise only
/// the names in the directory itself.
#[cfg(target_os = "linux")]
pub(crate) fn sync_tree(path: &Path) -> Result<(), BackupError> {
    let synced = File::open(path).and_then(|directory| Ok(rustix::fs::syncfs(directory)?));
    synced.map_err(BackupError::io(path))
}

/// Makes durable what was written below a directory, where [`SYNCS_AT_ONCE`] says so; otherwise only
/// the names in the directory itself.
#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_tree(path: &Path) -> Result<(), BackupError> {
    sync_directory(path)
}

/// Makes a file durable, unless [`sync_tree`] will.
pub(crate) fn sync_unless_at_once(file: &File) -> io::Result<()> {
    if SYNCS_AT_ONCE { Ok(()) } else { file.sync_all() }
}

/// Gives `from` the name `to`, which nothing may have, and makes that durable. When it fails, `from` is
/// where it was.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<(), BackupError> {
    rename(from, to)?;
    sync_parents(from, to).inspect_err(|_| {
        if let Err(error) = rename(to, from) {
            tracing::warn!(path = %to.display(), %error, "what is not durable could not be taken back");
        }
    })
}

/// Gives `from` the name `to`, which nothing may have. Durable after [`sync_parents`].
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), BackupError> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => {
            Err(BackupError::Exists { path: to.to_owned() })
        }
        Err(error) => Err(BackupError::io(to)(error.into())),
    }
}

/// Exchanges two directories or files in one step, which is durable after [`sync_parents`]. Nothing
/// was exchanged when it fails.
pub(crate) fn exchange(one: &Path, other: &Path) -> Result<(), BackupError> {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
        .map_err(|error| BackupError::io(other)(error.into()))
}

/// Makes durable that a thing is called `to` and no longer `from`, or that both have each other's name.
pub(crate) fn sync_parents(from: &Path, to: &Path) -> Result<(), BackupError> {
    sync_directory(parent(to))?;
    if parent(from) == parent(to) { Ok(()) } else { sync_directory(parent(from)) }
}

/// Removes what operations that were cut off left in `directory`. Answers how many things that were.
///
/// Only for whoever knows that no other operation is at work there.
///
/// # Errors
/// `Io` as the disk fails.
pub fn remove_leftovers(directory: &Path) -> Result<usize, BackupError> {
    let failed = BackupError::io(directory);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let mut count = 0;
    for entry in entries {
        let entry = entry.map_err(&failed)?;
        if !is_temporary(&entry.file_name()) {
            continue;
        }
        let kind = entry.file_type().map_err(&failed)?;
        let path = entry.path();
        let removed =
            if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(BackupError::io(&path))?;
        count += 1;
    }
    Ok(count)
}

/// Whether a name is that of something unfinished.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes())
}
