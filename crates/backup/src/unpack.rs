//! From an archive to a database and files, in a directory of their own.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::archive::{self, DATABASE, FILES_MAX, FILES_PREFIX};
use crate::contents::MODE_MASK;
use crate::disk;
use crate::error::BackupError;
use crate::manifest::Manifest;
use crate::name::ArchivedPath;

/// Bits that the owner keeps on each directory, so that it can be changed and removed.
const OWNER_OF_DIRECTORY: u32 = 0o700;
/// Of the directory of the project: commands may run as another user, who has to get to the files below.
const ENTERED_BY_ALL: u32 = 0o711;
const PRIVATE_FILE: u32 = 0o600;

/// How much an archive may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Sum of the sizes of all files, the database included.
    pub bytes_max: u64,
    /// Files and directories.
    pub files_max: u64,
}

impl Default for Bounds {
    /// What an archive can have at all; the disk is the bound.
    fn default() -> Self {
        Self { bytes_max: u64::MAX, files_max: FILES_MAX }
    }
}

/// An archive that was unpacked and found to be whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpacked {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The database, with nothing changed in it yet.
    pub database: PathBuf,
    /// The directory of the files.
    pub files: PathBuf,
}

impl Unpacked {
    /// The directory that holds both.
    pub fn directory(&self) -> &Path {
        disk::parent(&self.database)
    }
}

/// Unpacks an archive into the new directory `into`, whose parent exists, and checks all that
/// [`crate::verify`] checks. Everything is on the disk when this returns.
///
/// Nothing is written outside of `into`, and no more than `bounds` and the manifest say.
///
/// # Errors
/// `Exists` for `into`; `NotFound`; `Corrupt`; `Newer`; `TooLarge`; `StorageFull`; `Io`. There is
/// no `into` then, unless it was there before.
pub fn unpack(archive: &Path, into: &Path, bounds: Bounds) -> Result<Unpacked, BackupError> {
    if let Err(error) = make_directory(into) {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Err(BackupError::Exists { path: into.to_owned() });
        }
        return Err(BackupError::io(into)(error));
    }
    let unpacked = unpack_into(archive, into, bounds);
    if unpacked.is_err() {
        fs::remove_dir_all(into).map_err(BackupError::io(into))?;
    }
    unpacked
}

fn unpack_into(archive: &Path, into: &Path, bounds: Bounds) -> Result<Unpacked, BackupError> {
    let (database, files) = (into.join(DATABASE), into.join("files"));
    make_directory(&files).map_err(BackupError::io(&files))?;
    let on_manifest = |manifest: &Manifest| {
        check_bounds(manifest, bounds)?;
        for directory in &manifest.directories {
            let path = place(&files, &directory.path)?;
            make_directory(&path).map_err(BackupError::io(&path))?;
        }
        Ok(())
    };
    let whole = archive::read(archive, on_manifest, |entry, content| {
        let is_database = entry.path.as_bytes() == DATABASE.as_bytes();
        let path = if is_database { database.clone() } else { place(&files, &entry.path)? };
        let failed = BackupError::io(&path);
        let mut copy = File::create_new(&path).map_err(&failed)?;
        content.copy_to(&mut copy, &path)?;
        // A time that no file system can hold is not worth a failure: it stays at now.
        if let Some(modified) = UNIX_EPOCH.checked_add(Duration::from_secs(content.mtime)) {
            copy.set_modified(modified).ok();
        }
        let permissions = if is_database { PRIVATE_FILE } else { entry.mode };
        set_mode(&copy, permissions)
            .and_then(|()| disk::sync_unless_at_once(&copy))
            .map_err(&failed)
    })?;
    for directory in whole.manifest.directories.iter().rev() {
        let path = place(&files, &directory.path)?;
        let failed = BackupError::io(&path);
        let handle = File::open(&path).map_err(&failed)?;
        set_mode(&handle, directory.mode | OWNER_OF_DIRECTORY).map_err(&failed)?;
        disk::sync_unless_at_once(&handle).map_err(&failed)?;
    }
    archive::check_database(&database, &whole.manifest)?;
    let handle = File::open(into).map_err(BackupError::io(into))?;
    set_mode(&handle, ENTERED_BY_ALL).map_err(BackupError::io(into))?;
    disk::sync_directory(&files)?;
    disk::sync_tree(into)?;
    disk::sync_directory(disk::parent(into))?;
    Ok(Unpacked { manifest: whole.manifest, database, files })
}

fn check_bounds(manifest: &Manifest, bounds: Bounds) -> Result<(), BackupError> {
    let count = manifest.entries.len() as u64 + manifest.directories.len() as u64;
    if count > bounds.files_max {
        return Err(BackupError::TooLarge { what: "files", max: bounds.files_max });
    }
    if manifest.contents_bytes() > bounds.bytes_max {
        return Err(BackupError::TooLarge { what: "bytes", max: bounds.bytes_max });
    }
    Ok(())
}

/// Where a path of the archive goes. It has no `..` and there is no link in `files`: every name in it
/// was made here.
fn place(files: &Path, path: &ArchivedPath) -> Result<PathBuf, BackupError> {
    let below = path.below(FILES_PREFIX).and_then(|path| path.to_path());
    let below = below.ok_or_else(|| BackupError::corrupt(format!("the path `{path}`")))?;
    Ok(files.join(below))
}

fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, OWNER_OF_DIRECTORY);
    builder.create(path)
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(mode & MODE_MASK))
}

#[cfg(not(unix))]
fn set_mode(_: &File, mode: u32) -> io::Result<()> {
    debug_assert!(mode <= MODE_MASK, "more than permissions");
    Ok(())
}
