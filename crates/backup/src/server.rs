//! A whole server in one directory: the root database first, then every project that it knows, then
//! a manifest with the hash of each file.
//!
//! The root database is as it was at one moment, each project as it was at a later one: a member, a
//! project or a right that the root database knows is older than what the projects hold, never newer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use iris_protocol::ProjectId;
use iris_store::maintenance::{self, ListedProject};
use serde::{Deserialize, Serialize};

use crate::archive::verify;
use crate::disk;
use crate::error::BackupError;
use crate::hashing::Hashing;
use crate::master_keys::{MASTER_KEY, MASTER_KEY_BEFORE, MasterKeys};
use crate::name::backup_name;
use crate::place::{Identity, adopt, random_epoch};
use crate::progress;
use crate::unpack::{Bounds, unpack};
use crate::write::{ProjectSource, write_project};

/// Tells the backup of a server from other JSON.
const FORMAT: &str = "iris-server";
/// The version of the format that this server writes, and the newest that it reads.
const FORMAT_VERSION: u32 = 1;
const MANIFEST: &str = "manifest.json";
const ROOT: &str = "root.db";
/// The key that signs access tokens.
const JWT_KEY: &str = "jwt.key";
const PROJECTS: &str = "projects";
/// Largest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What the backup of a server holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerManifest {
    /// `iris-server`.
    pub format: String,
    /// At most the version that this server writes.
    pub format_version: u32,
    /// The version of the server that made it.
    pub server_version: String,
    /// The schema version of the root database.
    pub schema_version: u32,
    /// When it was begun, in milliseconds since 1970 UTC.
    pub taken_at: i64,
    /// Whether the keys that sign access tokens and seal secrets are in it.
    pub with_keys: bool,
    /// Every file in it besides the manifest.
    pub files: Vec<ServerFile>,
    /// Every project of the root database in it, oldest first.
    pub projects: Vec<ServerProject>,
}

/// One file of the backup of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerFile {
    /// Relative, with `/`.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// 64 digits, lower case.
    pub sha256: String,
}

/// What became of one project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerProject {
    /// The project.
    pub id: ProjectId,
    /// For people.
    pub name: String,
    /// Whether it is in the backup, and why not.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Whether a project is in the backup of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// It is.
    Archived {
        /// The archive among the files.
        path: String,
        /// The number of its last event.
        seq: u64,
    },
    /// It was deleted while the backup was made.
    Absent,
    /// It could not be archived.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The server that a backup is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSource {
    /// Its data directory; the server may be running.
    pub data_dir: PathBuf,
    /// The server's keys, if they are to be in the backup.
    pub keys: Option<ServerKeys>,
}

/// Where the keys of a server are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerKeys {
    /// The key that signs access tokens.
    pub jwt: PathBuf,
    /// The key that secrets are sealed with; a server that never sealed any has none yet.
    pub master: PathBuf,
}

/// A backup that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerBackup {
    /// Where it is: a new directory.
    pub directory: PathBuf,
    /// What is in it.
    pub manifest: ServerManifest,
}

impl ServerManifest {
    /// The projects that should be in it and are not.
    pub fn failed(&self) -> impl Iterator<Item = (&ServerProject, &str)> {
        self.projects.iter().filter_map(|project| match &project.outcome {
            Outcome::Failed { reason } => Some((project, reason.as_str())),
            Outcome::Archived { .. } | Outcome::Absent => None,
        })
    }
}

/// Makes a backup of a whole server in a new directory below `to`, which is made when it is missing.
///
/// The backup gets its name when all of it is on the disk and was read back. A project that cannot be
/// archived is noted as failed, one that was deleted meanwhile as absent; the others go on. `at` is
/// now, in milliseconds since 1970 UTC.
///
/// # Errors
/// `Database` when the root database is not usable; `KeysChanged`; `StorageFull`; `Io`. There is no new
/// directory then.
pub fn write_server(
    source: &ServerSource,
    to: &Path,
    at: i64,
) -> Result<ServerBackup, BackupError> {
    disk::make_directories(to)?;
    let work = disk::work_directory(to)?;
    let (root, live) = (work.path().join(ROOT), source.data_dir.join(ROOT));
    // The server may change its master key meanwhile: what is copied needs the key of that moment.
    let mut master_keys = MasterKeys::default();
    let mut look_at_keys = || match &source.keys {
        Some(keys) => master_keys.look(&keys.master),
        None => Ok(()),
    };
    look_at_keys()?;
    maintenance::snapshot_root(&live, &root).map_err(BackupError::of_source)?;
    let schema_version = maintenance::check_root(&root).map_err(BackupError::of_source)?;
    let listed = maintenance::list_projects(&root).map_err(BackupError::of_source)?;
    let mut files = vec![file_of(work.path(), ROOT)?];

    let archives = work.path().join(PROJECTS);
    fs::create_dir(&archives).map_err(BackupError::io(&archives))?;
    let mut projects = Vec::with_capacity(listed.len());
    for (done, project) in listed.iter().enumerate() {
        progress::project(done, listed.len());
        let path = format!("{PROJECTS}/{}.tar.zst", project.id);
        let written = write_project(
            &ProjectSource::listed(&source.data_dir, project),
            &work.path().join(&path),
            at,
        );
        let outcome = match written {
            Ok(info) => {
                let seq = info.manifest.seq;
                let (size, sha256) = (info.bytes, info.sha256);
                files.push(ServerFile { path: path.clone(), size, sha256 });
                Outcome::Archived { path, seq }
            }
            // It would be the same for all that follow.
            Err(BackupError::StorageFull) => return Err(BackupError::StorageFull),
            Err(error) if is_known(&live, project)? => {
                Outcome::Failed { reason: error.to_string() }
            }
            Err(_) => Outcome::Absent,
        };
        projects.push(ServerProject {
            id: project.id.clone(),
            name: project.name.clone(),
            outcome,
        });
        look_at_keys()?;
    }
    if let Some(ServerKeys { jwt, .. }) = &source.keys {
        // Also of a server without projects.
        look_at_keys()?;
        let jwt_key = fs::read(jwt).map_err(BackupError::io(jwt))?;
        let kept = [(JWT_KEY, jwt_key)].into_iter().chain(master_keys.kept()?);
        for (name, key) in kept {
            write_private(&work.path().join(name), &key)?;
            files.push(file_of(work.path(), name)?);
        }
    }
    let manifest = ServerManifest {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        schema_version,
        taken_at: at,
        with_keys: source.keys.is_some(),
        files,
        projects,
    };
    write_manifest(work.path(), &manifest)?;
    disk::sync_directory(&archives)?;
    disk::sync_directory(work.path())?;

    let directory = to.join(format!("iris-{}", backup_name(at, disk::random_number(to)?)));
    disk::rename_new(work.path(), &directory)?;
    // It has another name now: there is nothing to remove.
    drop(work.keep());
    Ok(ServerBackup { directory, manifest })
}

/// Whether the server still knows a project.
fn is_known(root: &Path, project: &ListedProject) -> Result<bool, BackupError> {
    let known = maintenance::list_projects(root).map_err(BackupError::of_source)?;
    Ok(known.iter().any(|other| other.id == project.id))
}

fn write_manifest(directory: &Path, manifest: &ServerManifest) -> Result<(), BackupError> {
    let path = directory.join(MANIFEST);
    let failed = BackupError::io(&path);
    let json = serde_json::to_vec_pretty(manifest).map_err(|error| failed(error.into()))?;
    fs::write(&path, json).map_err(&failed)?;
    File::open(&path).and_then(|file| file.sync_all()).map_err(&failed)?;
    if read_server_manifest(directory)? != *manifest {
        return Err(BackupError::corrupt("what was read back is not what was written"));
    }
    Ok(())
}

/// Reads a file of the directory for its size and hash.
fn file_of(directory: &Path, path: &str) -> Result<ServerFile, BackupError> {
    let place = directory.join(path);
    let failed = BackupError::io(&place);
    let mut file = Hashing::new(File::open(&place).map_err(&failed)?);
    io::copy(&mut file, &mut io::sink()).map_err(&failed)?;
    let (size, sha256) = file.finish();
    Ok(ServerFile { path: path.to_owned(), size, sha256 })
}

/// Copies a file that nobody else may read.
fn copy_private(from: &Path, to: &Path) -> Result<(), BackupError> {
    write_private(to, &fs::read(from).map_err(BackupError::io(from))?)
}

/// Writes a file that nobody else may read.
fn write_private(to: &Path, bytes: &[u8]) -> Result<(), BackupError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(to).map_err(BackupError::io(to))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(BackupError::io(to))
}

/// What the backup of a server says that it holds; whether it does is [`verify_server`]'s to tell.
///
/// # Errors
/// `NotFound`; `Corrupt` for what is no backup of a server; `Newer`; `Io`.
pub fn read_server_manifest(directory: &Path) -> Result<ServerManifest, BackupError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        format: String,
        format_version: u32,
    }
    let path = directory.join(MANIFEST);
    let failed = BackupError::io(&path);
    if fs::metadata(&path).map_err(&failed)?.len() > MANIFEST_BYTES_MAX {
        return Err(BackupError::TooLarge { what: "bytes of manifest", max: MANIFEST_BYTES_MAX });
    }
    let json = fs::read(&path).map_err(&failed)?;
    let malformed = |error| BackupError::corrupt(format!("its manifest cannot be read: {error}"));
    let head: Head = serde_json::from_slice(&json).map_err(malformed)?;
    if head.format != FORMAT {
        return Err(BackupError::corrupt("it is no backup of a server"));
    }
    if head.format_version > FORMAT_VERSION {
        let (found, known) = (head.format_version.into(), FORMAT_VERSION.into());
        return Err(BackupError::Newer { what: "format version", found, known });
    }
    serde_json::from_slice(&json).map_err(malformed)
}

/// Reads the whole backup of a server: every file is there with its hash, nothing else is, the root
/// database is whole, every archive is ([`verify`]), and they are of the projects that they should be.
///
/// # Errors
/// `NotFound`; `Corrupt`; `Newer`; `StorageFull`; `Io`.
pub fn verify_server(directory: &Path) -> Result<ServerManifest, BackupError> {
    let manifest = read_server_manifest(directory)?;
    let mut named = BTreeSet::from([MANIFEST.to_owned()]);
    for file in &manifest.files {
        check_name(&file.path)?;
        if !named.insert(file.path.clone()) {
            return Err(BackupError::corrupt(format!("`{}` is named twice", file.path)));
        }
        let place = directory.join(&file.path);
        if !place.try_exists().map_err(BackupError::io(&place))? {
            return Err(BackupError::corrupt(format!("`{}` is missing", file.path)));
        }
        let found = file_of(directory, &file.path)?;
        if found != *file {
            return Err(BackupError::corrupt(format!("`{}` is not what its hash says", file.path)));
        }
    }
    for path in paths(directory)? {
        if !named.contains(&path) {
            return Err(BackupError::corrupt(format!("`{path}` is not in the manifest")));
        }
    }
    let root = directory.join(ROOT);
    maintenance::check_root(&root).map_err(BackupError::of_archived)?;
    let listed = maintenance::list_projects(&root).map_err(BackupError::of_archived)?;
    let listed = listed.iter().map(|project| &project.id);
    if !listed.eq(manifest.projects.iter().map(|project| &project.id)) {
        return Err(BackupError::corrupt("the projects are not those of the root database"));
    }
    for (done, project) in manifest.projects.iter().enumerate() {
        progress::project(done, manifest.projects.len());
        let Outcome::Archived { path, .. } = &project.outcome else { continue };
        if !named.contains(path) {
            return Err(BackupError::corrupt(format!("`{path}` is not in the manifest")));
        }
        let info = verify(&directory.join(path))?;
        if info.manifest.project_id != project.id {
            return Err(BackupError::corrupt(format!("`{path}` is of another project")));
        }
    }
    Ok(manifest)
}

/// A backup has these files and no others, so that no name leads out of it.
fn check_name(path: &str) -> Result<(), BackupError> {
    let archive = path.strip_prefix("projects/").and_then(|name| name.strip_suffix(".tar.zst"));
    let is_archive = archive.is_some_and(|id| id.parse::<ProjectId>().is_ok());
    if is_archive || matches!(path, ROOT | JWT_KEY | MASTER_KEY | MASTER_KEY_BEFORE) {
        return Ok(());
    }
    Err(BackupError::corrupt(format!("the path `{path}`")))
}

/// The paths of all files of a backup. Directories besides that of the projects count as files.
fn paths(directory: &Path) -> Result<Vec<String>, BackupError> {
    let mut paths = Vec::new();
    let failed = BackupError::io(directory);
    for entry in fs::read_dir(directory).map_err(&failed)? {
        let name = entry.map_err(&failed)?.file_name();
        // What another verification unpacks, or left as it was killed, is not of the backup.
        if disk::is_temporary(&name) {
            continue;
        }
        let name = name.to_string_lossy().into_owned();
        if name != PROJECTS {
            paths.push(name);
        }
    }
    let below = directory.join(PROJECTS);
    for entry in fs::read_dir(&below).map_err(BackupError::io(&below))? {
        let name = entry.map_err(BackupError::io(&below))?.file_name();
        paths.push(format!("{PROJECTS}/{}", name.display()));
    }
    Ok(paths)
}

/// What the restored server does with projects whose files have a directory of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnDirectories {
    /// Their files come into the new data directory like all others.
    Collected,
    /// The directories are left as they are, and the files of the backup are not used for them.
    Kept,
}

/// Builds the new data directory `data_dir` from the backup of a server, after all of it was verified.
///
/// Every project gets a new epoch. The directory may be there when it is empty, and gets its name when
/// all is on the disk. A project that is not in the backup stays listed without its database.
///
/// # Errors
/// `Exists` for a directory that is not empty; as [`verify_server`]; `StorageFull`; `Io`. There is
/// no new directory then.
pub fn restore_server(
    from: &Path,
    data_dir: &Path,
    own_directories: OwnDirectories,
) -> Result<ServerManifest, BackupError> {
    refuse_used(data_dir)?;
    let manifest = verify_server(from)?;
    let parent = disk::parent(data_dir);
    disk::make_directories(parent)?;
    let work = disk::work_directory(parent)?;
    let root = work.path().join(ROOT);
    copy_private(&from.join(ROOT), &root)?;
    let listed = maintenance::list_projects(&root).map_err(BackupError::of_archived)?;
    let outside = listed.into_iter().filter(|project| project.path.is_some());
    let outside: BTreeSet<ProjectId> = outside.map(|project| project.id).collect();
    if own_directories == OwnDirectories::Collected {
        maintenance::detach_directories(&root).map_err(BackupError::of_archived)?;
    }
    maintenance::mark_all_unfinished(&root).map_err(BackupError::of_archived)?;

    let projects = work.path().join(PROJECTS);
    fs::create_dir(&projects).map_err(BackupError::io(&projects))?;
    for (done, project) in manifest.projects.iter().enumerate() {
        progress::project(done, manifest.projects.len());
        let Outcome::Archived { path, .. } = &project.outcome else { continue };
        let place = projects.join(project.id.as_str());
        let unpacked = unpack(&from.join(path), &place, Bounds::default())?;
        let (id, epoch) = (project.id.clone(), random_epoch()?);
        let identity = Identity { id, epoch, users: BTreeMap::new(), importer: None };
        adopt(&unpacked, &identity)?;
        if own_directories == OwnDirectories::Kept && outside.contains(&project.id) {
            let failed = BackupError::io(&unpacked.files);
            fs::remove_dir_all(&unpacked.files).map_err(&failed)?;
            fs::create_dir(&unpacked.files).map_err(&failed)?;
        }
    }
    for key in [JWT_KEY, MASTER_KEY, MASTER_KEY_BEFORE] {
        if manifest.files.iter().any(|file| file.path == key) {
            copy_private(&from.join(key), &work.path().join(key))?;
        }
    }
    disk::sync_directory(&projects)?;
    disk::sync_tree(work.path())?;
    if data_dir.try_exists().map_err(BackupError::io(data_dir))? {
        // Fails when somebody put something in it since.
        fs::remove_dir(data_dir).map_err(BackupError::io(data_dir))?;
    }
    disk::rename_new(work.path(), data_dir)?;
    drop(work.keep());
    Ok(manifest)
}

fn refuse_used(data_dir: &Path) -> Result<(), BackupError> {
    let mut entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(BackupError::io(data_dir)(error)),
    };
    if entries.next().is_some() {
        return Err(BackupError::Exists { path: data_dir.to_owned() });
    }
    Ok(())
}
