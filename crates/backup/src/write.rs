//! Making an archive of a project whose server may be at work.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use iris_protocol::ProjectId;
use iris_store::maintenance::{self, ListedProject};
use tar::{Builder, Header};
use zstd::stream::write::Encoder;

use crate::archive::{DATABASE, FILES_MAX, MANIFEST, MANIFEST_BYTES_MAX, verify_in};
use crate::contents::{self, Found};
use crate::disk;
use crate::error::BackupError;
use crate::hashing::Hashing;
use crate::manifest::{
    ArchiveInfo, ArchivedGit, ArchivedMember, FORMAT, FORMAT_VERSION, Manifest, MemberFile,
    ProjectAbout,
};
use crate::name::ArchivedPath;
use crate::progress::{self, Stage, Watched};

/// Of zstd: fast, and small enough.
const LEVEL: i32 = 3;
/// Files up to this many bytes are read into memory before they are written.
const IN_MEMORY_BYTES_MAX: u64 = 8 * 1024 * 1024;
const DATABASE_MODE: u32 = 0o600;
/// Contents in a tar are filled up to a multiple of this.
const BLOCK_BYTES: usize = 512;
const MS_PER_SECOND: u64 = 1_000;
/// How often a project is read that is replaced meanwhile.
const TRIES_MAX: usize = 3;

/// One project as it lies on the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectSource {
    /// The project.
    pub id: ProjectId,
    /// Its database.
    pub database: PathBuf,
    /// The directory of its files.
    pub files: PathBuf,
    /// What the root database knows of it.
    pub about: ProjectAbout,
}

impl ProjectSource {
    /// A project of the data directory, as its root database lists it.
    pub fn listed(data_dir: &Path, project: &ListedProject) -> Self {
        let directory = data_dir.join("projects").join(project.id.as_str());
        let files = project.path.as_ref().map_or(directory.join("files"), PathBuf::from);
        let members = project.members.iter().map(|member| ArchivedMember {
            user_id: member.user_id.clone(),
            email: member.email.clone(),
            username: member.username.clone(),
            role: member.role,
        });
        let about = ProjectAbout {
            name: project.name.clone(),
            description: project.description.clone(),
            settings: project.settings.clone(),
            project_type: project.r#type,
            git: project
                .git
                .as_ref()
                .map(|git| ArchivedGit { url: git.url.clone(), branch: git.branch.clone() }),
            created_at: project.created_at,
            members: members.collect(),
        };
        Self { id: project.id.clone(), database: directory.join("project.db"), files, about }
    }
}

/// Archives a project in the new file `to`, also while runs write.
///
/// The database is as it was at one moment after the call, each file as it was when it was read, after
/// that moment. The archive gets its name only when it is on the disk and was read back whole; the
/// directory of `to` has room for the archive, a copy of the database and the largest file meanwhile.
/// `at` is now, in milliseconds since 1970 UTC. A project that is put back to a backup meanwhile is read
/// anew.
///
/// # Errors
/// `Exists`; `Database` when the database is not usable; `TooLarge` for more files than an archive may
/// have; `StorageFull`; `Io`, also when the directory of the files is not there; `Corrupt` when what
/// was read back is not what was written; `Replaced` when the project was put back again and again.
/// There is no new file then.
pub fn write_project(
    source: &ProjectSource,
    to: &Path,
    at: i64,
) -> Result<ArchiveInfo, BackupError> {
    if to.try_exists().map_err(BackupError::io(to))? {
        return Err(BackupError::Exists { path: to.to_owned() });
    }
    for _ in 0..TRIES_MAX {
        if let Some(info) = write_once(source, to, at)? {
            return Ok(info);
        }
    }
    Err(BackupError::Replaced)
}

/// None when the project was replaced meanwhile: the files that were read are perhaps those of another
/// state than the database.
fn write_once(
    source: &ProjectSource,
    to: &Path,
    at: i64,
) -> Result<Option<ArchiveInfo>, BackupError> {
    let work = disk::work_directory(disk::parent(to))?;
    let snapshot = work.path().join("project.db");
    let facts = maintenance::snapshot_project(&source.database, &source.id, &snapshot)
        .map_err(BackupError::of_source)?;

    progress::begin(Stage::Writing, || contents_bytes(&snapshot, &source.files));
    let body = Body::start(work.path())?;
    let written = body.write(&snapshot, &source.files, at);
    // Also when that failed: it may be because what was being read went away. One that is gone for
    // good is the caller's to notice.
    let now = maintenance::project_facts(&source.database);
    if now.is_ok_and(|now| now.epoch != facts.epoch) {
        return Ok(None);
    }
    let (body, entries, found) = written?;
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        format_version: FORMAT_VERSION,
        server_version: env!("CARGO_PKG_VERSION").to_owned(),
        project_id: source.id.clone(),
        epoch: facts.epoch,
        seq: facts.seq,
        schema_version: facts.schema_version,
        taken_at: at,
        about: source.about.clone(),
        entries,
        directories: found.directories,
        skipped: found.skipped,
    };
    let whole = work.path().join("archive");
    let failed = BackupError::io(&whole);
    let json = serde_json::to_vec(&manifest).map_err(|error| failed(error.into()))?;
    join(&json, body, &whole, at)?;
    let info = verify_in(&whole, work.path())?;
    // By way of JSON, which may bring back another last digit of a number in the settings.
    let written: Manifest = serde_json::from_slice(&json).map_err(|error| failed(error.into()))?;
    if info.manifest != written {
        return Err(BackupError::corrupt("what was read back is not what was written"));
    }
    disk::rename_new(&whole, to)?;
    Ok(Some(info))
}

/// How much there is to write, as far as that is known before it is read.
fn contents_bytes(database: &Path, files: &Path) -> u64 {
    let mut bytes = std::fs::metadata(database).map_or(0, |database| database.len());
    let visited = contents::visit(files, |_, _, metadata| {
        bytes = bytes.saturating_add(metadata.len());
        Ok(())
    });
    // What cannot be read is said by the reading itself.
    drop(visited);
    bytes
}

/// Everything behind the manifest, which can only be written when all of this is known.
struct Body<'a> {
    work: &'a Path,
    tar: Builder<Encoder<'static, File>>,
    entries: Vec<MemberFile>,
}

impl<'a> Body<'a> {
    fn start(work: &'a Path) -> Result<Self, BackupError> {
        let path = work.join("body");
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let encoder = file.and_then(encoder).map_err(BackupError::io(&path))?;
        Ok(Self { work, tar: Builder::new(encoder), entries: Vec::new() })
    }

    /// Answers the file, at its beginning, and what is in it.
    fn write(
        mut self,
        database: &Path,
        files: &Path,
        at: i64,
    ) -> Result<(File, Vec<MemberFile>, Found), BackupError> {
        let failed = BackupError::io(database);
        let file = File::open(database).map_err(&failed)?;
        let size = file.metadata().map_err(&failed)?.len();
        let entry = Entry { mode: DATABASE_MODE, mtime: seconds(at), size };
        self.append(archived(DATABASE)?, entry, file, database)?;

        let found = contents::visit(files, |path, file, metadata| {
            let modified = metadata.modified().map(cap_std::time::SystemTime::into_std).ok();
            let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let mtime = modified.map_or(0, |since| since.as_secs());
            let entry = Entry { mode: contents::mode(metadata), mtime, size: metadata.len() };
            self.append_living(path, entry, file.into_std(), files)
        })?;
        let finished = self.tar.into_inner().and_then(Encoder::finish);
        let rewound = finished.and_then(|mut file| file.rewind().map(|()| file));
        Ok((rewound.map_err(BackupError::io(self.work))?, self.entries, found))
    }

    /// A file that others may write, cut off or lengthen at any moment: takes at most what it had when
    /// it was opened, and what it is told to be is what was read of it.
    fn append_living(
        &mut self,
        path: ArchivedPath,
        entry: Entry,
        file: File,
        place: &Path,
    ) -> Result<(), BackupError> {
        let failed = BackupError::io(place);
        let mut file = file.take(entry.size);
        if entry.size <= IN_MEMORY_BYTES_MAX {
            let mut content = Vec::new();
            file.read_to_end(&mut content).map_err(&failed)?;
            let entry = Entry { size: content.len() as u64, ..entry };
            return self.append(path, entry, Cursor::new(content), place);
        }
        let mut copy = tempfile::tempfile_in(self.work).map_err(BackupError::io(self.work))?;
        let size = io::copy(&mut file, &mut copy).map_err(&failed)?;
        copy.rewind().map_err(BackupError::io(self.work))?;
        self.append(path, Entry { size, ..entry }, copy, place)
    }

    fn append(
        &mut self,
        path: ArchivedPath,
        entry: Entry,
        content: impl Read,
        place: &Path,
    ) -> Result<(), BackupError> {
        if self.entries.len() as u64 >= FILES_MAX {
            return Err(BackupError::TooLarge { what: "files", max: FILES_MAX });
        }
        let mut content = Hashing::new(Watched(content));
        let name = path.to_path().ok_or_else(|| BackupError::corrupt("a path without a name"))?;
        self.tar
            .append_data(&mut entry.header(), name, &mut content)
            .map_err(BackupError::io(place))?;
        let (_, sha256) = content.finish();
        self.entries.push(MemberFile { path, mode: entry.mode, size: entry.size, sha256 });
        Ok(())
    }
}

/// What stands in the header of a file.
#[derive(Clone, Copy)]
struct Entry {
    mode: u32,
    /// Seconds since 1970.
    mtime: u64,
    size: u64,
}

impl Entry {
    fn header(self) -> Header {
        let mut header = Header::new_gnu();
        header.set_mode(self.mode);
        header.set_mtime(self.mtime);
        header.set_size(self.size);
        header
    }
}

/// Writes the archive: a frame of zstd with the manifest, then the frame of the rest as it is. Frames
/// one after the other are one stream (RFC 8878, section 3), so that any `tar` reads it.
fn join(json: &[u8], mut body: File, to: &Path, at: i64) -> Result<(), BackupError> {
    let size = json.len() as u64;
    if size > MANIFEST_BYTES_MAX {
        return Err(BackupError::TooLarge { what: "bytes of manifest", max: MANIFEST_BYTES_MAX });
    }
    let written = (|| {
        let file = File::options().write(true).create_new(true).open(to)?;
        private(&file)?;
        let mut encoder = encoder(file)?;
        // By hand, because a builder would end the tar behind it.
        let mut header = Entry { mode: DATABASE_MODE, mtime: seconds(at), size }.header();
        header.set_path(MANIFEST)?;
        header.set_cksum();
        encoder.write_all(header.as_bytes())?;
        encoder.write_all(json)?;
        let padding = json.len().next_multiple_of(BLOCK_BYTES) - json.len();
        encoder.write_all(&vec![0; padding])?;
        let mut file = encoder.finish()?;
        io::copy(&mut body, &mut file)?;
        file.sync_all()
    })();
    written.map_err(BackupError::io(to))
}

fn encoder(file: File) -> io::Result<Encoder<'static, File>> {
    let mut encoder = Encoder::new(file, LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

#[cfg(unix)]
fn private(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(DATABASE_MODE))
}

#[cfg(not(unix))]
fn private(_: &File) -> io::Result<()> {
    Ok(())
}

fn archived(path: &str) -> Result<ArchivedPath, BackupError> {
    ArchivedPath::new(path.as_bytes()).ok_or_else(|| BackupError::corrupt("a path without a name"))
}

fn seconds(at: i64) -> u64 {
    u64::try_from(at).unwrap_or_default() / MS_PER_SECOND
}
