//! Reading an archive from its first byte to its last, and believing none of it before it is checked.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use iris_store::maintenance;
use serde::Deserialize;
use tar::{Archive, Entries, Entry, EntryType};
use zstd::stream::read::Decoder;

use crate::disk;
use crate::error::BackupError;
use crate::hashing::Hashing;
use crate::manifest::{ArchiveInfo, FORMAT, FORMAT_VERSION, Manifest, MemberFile};
use crate::name::{ArchivedPath, PATH_BYTES_MAX};
use crate::progress::{self, Stage};

/// The first entry.
pub(crate) const MANIFEST: &str = "manifest.json";
/// The second entry.
pub(crate) const DATABASE: &str = "project.db";
/// How the paths of all others begin.
pub(crate) const FILES_PREFIX: &[u8] = b"files/";

/// Most files and directories of an archive.
pub(crate) const FILES_MAX: u64 = 500_000;
/// Largest manifest.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Largest window of zstd, as a power of two: what an archive can make a reader keep in memory.
const WINDOW_LOG_MAX: u32 = 24;
/// Most zeros behind the last entry.
const PADDING_BYTES_MAX: u64 = 1024 * 1024;
const BUFFER_BYTES: usize = 256 * 1024;

/// What an archive says of itself. Reads its first entry alone, and checks it for itself: whether the
/// rest is as it says is [`verify`]'s to tell.
///
/// # Errors
/// `NotFound`; `Corrupt` for a file that does not begin like an archive; `Newer`; `TooLarge`; `Io`.
pub fn read_manifest(archive: &Path) -> Result<Manifest, BackupError> {
    let mut tar = open(archive)?;
    let mut entries = Stream::new(&mut tar)?;
    entries.manifest()
}

/// Reads the whole archive: every entry is there, once, in its order, as long as the manifest says
/// and with its hash; nothing else is; and the database in it is whole, the project's, and of a schema
/// that this server knows.
///
/// Needs room for the database beside the archive, or, where nothing can be written there, in the
/// system's place for temporary files.
///
/// # Errors
/// `NotFound`; `Corrupt`; `Newer`; `TooLarge` for one that no server writes; `StorageFull`; `Io`.
pub fn verify(archive: &Path) -> Result<ArchiveInfo, BackupError> {
    if !archive.try_exists().map_err(BackupError::io(archive))? {
        return Err(BackupError::NotFound { path: archive.to_owned() });
    }
    let work = disk::work_directory(disk::parent(archive))
        .or_else(|_| disk::work_directory(&std::env::temp_dir()))?;
    verify_in(archive, work.path())
}

/// As [`verify`], with the database in the directory `work`.
pub(crate) fn verify_in(archive: &Path, work: &Path) -> Result<ArchiveInfo, BackupError> {
    let database = work.join("verified.db");
    let info = read(
        archive,
        |_| Ok(()),
        |entry, content| {
            if entry.path.as_bytes() == DATABASE.as_bytes() {
                let failed = BackupError::io(&database);
                let mut file = File::create_new(&database).map_err(&failed)?;
                return content.copy_to(&mut file, &database);
            }
            content.copy_to(&mut io::sink(), archive)
        },
    )?;
    check_database(&database, &info.manifest)?;
    std::fs::remove_file(&database).map_err(BackupError::io(&database))?;
    Ok(info)
}

/// Whether the database of an archive is whole and what the manifest says.
pub(crate) fn check_database(path: &Path, manifest: &Manifest) -> Result<(), BackupError> {
    let facts = maintenance::check_project(path, Some(&manifest.project_id))
        .map_err(BackupError::of_archived)?;
    let is_same = facts.epoch == manifest.epoch
        && facts.seq == manifest.seq
        && facts.schema_version == manifest.schema_version;
    if !is_same {
        return Err(BackupError::corrupt("the database is not the one of the manifest"));
    }
    Ok(())
}

/// The content of one entry, which is read exactly once.
pub(crate) struct Content<'a> {
    entry: Hashing<&'a mut dyn Read>,
    /// When the file was changed last, in seconds since 1970, as far as the tar says.
    pub(crate) mtime: u64,
}

impl Content<'_> {
    /// Writes the content to `to`, which lies at `place`.
    pub(crate) fn copy_to(
        &mut self,
        to: &mut dyn io::Write,
        place: &Path,
    ) -> Result<(), BackupError> {
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = self.entry.read(&mut buffer).map_err(|error| unreadable(&error))?;
            let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            to.write_all(bytes).map_err(BackupError::io(place))?;
            progress::passed(count);
        }
    }
}

/// Reads a whole archive. `on_manifest` may refuse it before anything else is read; `on_entry` takes
/// the content of each entry, whose hash is compared afterwards.
pub(crate) fn read(
    archive: &Path,
    on_manifest: impl FnOnce(&Manifest) -> Result<(), BackupError>,
    mut on_entry: impl FnMut(&MemberFile, &mut Content<'_>) -> Result<(), BackupError>,
) -> Result<ArchiveInfo, BackupError> {
    let mut tar = open(archive)?;
    let mut stream = Stream::new(&mut tar)?;
    let manifest = stream.manifest()?;
    on_manifest(&manifest)?;
    progress::begin(Stage::Reading, || manifest.contents_bytes());
    for expected in &manifest.entries {
        let name = &expected.path;
        let Some((path, mut entry)) = stream.next()? else {
            return Err(BackupError::corrupt(format!("`{name}` is missing")));
        };
        if path != name.as_bytes() {
            let path = String::from_utf8_lossy(&path);
            return Err(BackupError::corrupt(format!("`{path}` in place of `{name}`")));
        }
        if entry.size() != expected.size {
            return Err(BackupError::corrupt(format!("`{name}` is not as long as it should be")));
        }
        let mtime = entry.header().mtime().unwrap_or_default();
        let mut content = Content { entry: Hashing::new(&mut entry), mtime };
        on_entry(expected, &mut content)?;
        if content.entry.finish() != (expected.size, expected.sha256.clone()) {
            return Err(BackupError::corrupt(format!("`{name}` is not what its hash says")));
        }
    }
    if let Some((path, _)) = stream.next()? {
        let path = String::from_utf8_lossy(&path);
        return Err(BackupError::corrupt(format!("`{path}` is not in the manifest")));
    }
    let (bytes, sha256) = end(tar, archive)?;
    Ok(ArchiveInfo { manifest, bytes, sha256 })
}

/// An archive file, decompressed; the file's own bytes are hashed on their way.
type Input = Decoder<'static, BufReader<Hashing<File>>>;

fn open(path: &Path) -> Result<Archive<Input>, BackupError> {
    let failed = BackupError::io(path);
    let file = File::open(path).map_err(&failed)?;
    if !file.metadata().map_err(&failed)?.is_file() {
        return Err(BackupError::corrupt("it is no file"));
    }
    let input = BufReader::with_capacity(BUFFER_BYTES, Hashing::new(file));
    let mut decoder = Decoder::with_buffer(input).map_err(&failed)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(&failed)?;
    Ok(Archive::new(decoder))
}

/// Reads what is behind the last entry, which must be nothing. Answers the size of the file and its
/// hash.
fn end(tar: Archive<Input>, path: &Path) -> Result<(u64, String), BackupError> {
    let mut decoder = tar.into_inner();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut padding = 0;
    loop {
        let count = decoder.read(&mut buffer).map_err(|error| unreadable(&error))?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        padding += count as u64;
        if padding > PADDING_BYTES_MAX || bytes.iter().any(|byte| *byte != 0) {
            return Err(BackupError::corrupt("there is something behind its end"));
        }
    }
    let mut file = decoder.finish();
    // The decoder has seen the end already; this is for what a buffer may hold back.
    io::copy(&mut file, &mut io::sink()).map_err(BackupError::io(path))?;
    Ok(file.into_inner().finish())
}

/// A file of a tar, after its path.
type Named<'a> = (Vec<u8>, Entry<'a, Input>);

/// The entries of a tar: regular files, some of them with a long name before them, and nothing else.
struct Stream<'a> {
    entries: Entries<'a, Input>,
}

impl<'a> Stream<'a> {
    fn new(tar: &'a mut Archive<Input>) -> Result<Self, BackupError> {
        // Raw, because the crate would read a long name of any length into memory.
        let entries = tar.entries().map_err(|error| unreadable(&error))?.raw(true);
        Ok(Self { entries })
    }

    /// The first entry, checked for itself.
    fn manifest(&mut self) -> Result<Manifest, BackupError> {
        let (path, mut entry) = self.next()?.ok_or_else(|| BackupError::corrupt("it is empty"))?;
        if path != MANIFEST.as_bytes() {
            return Err(BackupError::corrupt("it does not begin with its manifest"));
        }
        if entry.size() > MANIFEST_BYTES_MAX {
            let (what, max) = ("bytes of manifest", MANIFEST_BYTES_MAX);
            return Err(BackupError::TooLarge { what, max });
        }
        let mut json = Vec::new();
        entry.read_to_end(&mut json).map_err(|error| unreadable(&error))?;
        parse(&json)
    }

    /// The next file with its path; `None` at the end.
    fn next(&mut self) -> Result<Option<Named<'a>>, BackupError> {
        let Some(mut entry) = self.raw()? else { return Ok(None) };
        let mut long_name = None;
        if entry.header().entry_type() == EntryType::GNULongName {
            long_name = Some(long_name_of(&mut entry)?);
            entry = self.raw()?.ok_or_else(|| BackupError::corrupt("a name without a file"))?;
        }
        let kind = entry.header().entry_type();
        let path = long_name.unwrap_or_else(|| entry.header().path_bytes().into_owned());
        if kind != EntryType::Regular {
            let path = String::from_utf8_lossy(&path);
            return Err(BackupError::corrupt(format!("`{path}` is no regular file")));
        }
        Ok(Some((path, entry)))
    }

    fn raw(&mut self) -> Result<Option<Entry<'a, Input>>, BackupError> {
        self.entries.next().transpose().map_err(|error| unreadable(&error))
    }
}

/// The name of the next entry, which ends with a zero (`././@LongLink` of GNU tar).
fn long_name_of(entry: &mut Entry<'_, Input>) -> Result<Vec<u8>, BackupError> {
    if entry.size() > PATH_BYTES_MAX as u64 + 1 {
        return Err(BackupError::corrupt("a name is too long"));
    }
    let mut name = Vec::new();
    entry.read_to_end(&mut name).map_err(|error| unreadable(&error))?;
    if name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// What must be readable in a manifest of any version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: String,
    format_version: u32,
}

fn parse(json: &[u8]) -> Result<Manifest, BackupError> {
    let malformed = |error| BackupError::corrupt(format!("its manifest cannot be read: {error}"));
    let head: Head = serde_json::from_slice(json).map_err(malformed)?;
    if head.format != FORMAT {
        return Err(BackupError::corrupt("it is no archive of a project"));
    }
    if head.format_version > FORMAT_VERSION {
        let (found, known) = (head.format_version.into(), FORMAT_VERSION.into());
        return Err(BackupError::Newer { what: "format version", found, known });
    }
    let manifest: Manifest = serde_json::from_slice(json).map_err(malformed)?;
    check(&manifest)?;
    Ok(manifest)
}

/// Whether the paths of a manifest make a tree: the database, then files, each in a directory that is
/// in it, no path twice.
fn check(manifest: &Manifest) -> Result<(), BackupError> {
    let count = manifest.entries.len() as u64 + manifest.directories.len() as u64;
    if count > FILES_MAX {
        return Err(BackupError::TooLarge { what: "files", max: FILES_MAX });
    }
    let mut entries = manifest.entries.iter();
    if entries.next().is_none_or(|first| first.path.as_bytes() != DATABASE.as_bytes()) {
        return Err(BackupError::corrupt("its first file is not the database"));
    }
    let mut directories = BTreeSet::from([crate::contents::FILES]);
    let mut files = BTreeSet::new();
    let holder = |path: &ArchivedPath| {
        let bytes = path.as_bytes();
        let slash = bytes.iter().rposition(|byte| *byte == b'/');
        slash.and_then(|at| bytes.get(..at).map(<[u8]>::to_owned)).unwrap_or_default()
    };
    for directory in &manifest.directories {
        let is_held = directories.contains(holder(&directory.path).as_slice());
        if !is_held || !directories.insert(directory.path.as_bytes()) {
            return Err(BackupError::corrupt(format!("the directory `{}`", directory.path)));
        }
    }
    for entry in entries {
        let path = entry.path.as_bytes();
        let is_held = directories.contains(holder(&entry.path).as_slice());
        if !is_held || directories.contains(path) || !files.insert(path) {
            return Err(BackupError::corrupt(format!("the path `{}`", entry.path)));
        }
    }
    Ok(())
}

/// What cannot be decompressed or is no tar is damaged; the disk's own failures are not.
fn unreadable(error: &io::Error) -> BackupError {
    BackupError::corrupt(error.to_string())
}
