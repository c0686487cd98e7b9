//! What people change themselves: writing, editing, moving, deleting, putting back.

use std::collections::HashSet;
use std::sync::Arc;

use iris_protocol::limits::{FILE_BYTES_MAX, FILES_AT_ONCE_MAX, RUN_DIFF_FILES_MAX};
use iris_protocol::{ApiError, ErrorCode, FileChange, FileSource, LockScope, UserId};
use iris_store::WriteContext;
use iris_store::project::{Author, FoundContent, FoundFile, RecordFiles};
use iris_workspace::{Cancel, Entry, EntryKind, RelPath, Workspace, WorkspaceError, content_hash};

use super::guarding::{Before, check_before, check_locks, check_version};
use super::looking::facts;
use super::{Place, Recorded, Turn, look_at, look_at_all, stored, take_turn};
use iris_store::{CrashPoint, crash_point};

/// Who asks for a change, and how a repeat of it is known.
pub(crate) struct By {
    pub(crate) user: UserId,
    pub(crate) context: WriteContext,
}

/// A file that is to hold these bytes.
pub(crate) struct Put {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    /// The version that the caller knows.
    pub(crate) version: Option<u64>,
    pub(crate) before: Before,
}

/// A text that is to stand in place of another.
pub(crate) struct Edit {
    pub(crate) path: String,
    pub(crate) old: String,
    pub(crate) new: String,
    pub(crate) all: bool,
    pub(crate) version: Option<u64>,
}

/// A file or a directory that is to have another path.
pub(crate) struct Move {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) overwrite: bool,
    pub(crate) version: Option<u64>,
}

/// A file or a directory that is not to be there any more.
pub(crate) struct Delete {
    pub(crate) path: String,
    pub(crate) recursive: bool,
    /// Whether files that have no version go with a directory.
    pub(crate) unversioned: bool,
    pub(crate) version: Option<u64>,
}

/// A file that is to be as it was.
pub(crate) struct Restore {
    pub(crate) path: String,
    pub(crate) to: u64,
    pub(crate) version: Option<u64>,
}

/// The outcome of an earlier change with the same key: it must not touch the disk again.
pub(super) async fn first_outcome(place: Place<'_>, by: &By) -> Result<Option<Recorded>, ApiError> {
    let Some(key) = by.context.idempotency.clone() else { return Ok(None) };
    let first = place.project.reader.recall::<RecordFiles>(key).await.map_err(stored)?;
    Ok(first.map(|first| Recorded { files: first.output, seq: first.seq, replayed: true }))
}

/// Where the path leads: versions are of files, however they are called.
pub(super) async fn real(place: Place<'_>, path: String) -> Result<String, ApiError> {
    // Refuses first what a write refuses, so that the error is about the path as it was given.
    place.blocking(move |workspace| workspace.real_path(&path)).await
}

/// Refuses what the project has no room for, before the disk is touched.
pub(crate) async fn check_room(place: Place<'_>, path: &str, size: u64) -> Result<(), ApiError> {
    let quotas = place.services.settings.quotas;
    let checked = place.project.reader.check_file(quotas, path.to_owned(), Some(size)).await;
    checked.map_err(stored)?;
    if place.services.storage.is_full() {
        return Err(iris_store::StoreError::StorageFull.to_api());
    }
    Ok(())
}

fn check_size(size: usize) -> Result<(), ApiError> {
    if size > FILE_BYTES_MAX {
        let message = format!("a file may have at most {FILE_BYTES_MAX} bytes");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
    }
    Ok(())
}

/// Refuses a file that is too large to be kept where the database alone keeps it.
pub(crate) fn check_held(place: Place<'_>, size: u64) -> Result<(), ApiError> {
    let is_large = size > FILE_BYTES_MAX as u64;
    if place.is_stored() && is_large { check_size(usize::MAX) } else { Ok(()) }
}

/// Waits for the turn, and refuses what somebody else has locked.
async fn begin(
    place: Place<'_>,
    targets: &[(String, LockScope)],
    user: &UserId,
) -> Result<Turn, ApiError> {
    let turn = take_turn(place).await?;
    check_locks(place, targets, user).await?;
    Ok(turn)
}

/// Writes a file whole. It is a new version also where nothing is different.
pub(crate) async fn put(place: Place<'_>, by: By, put: Put) -> Result<Recorded, ApiError> {
    if let Some(first) = first_outcome(place, &by).await? {
        return Ok(first);
    }
    check_size(put.bytes.len())?;
    let path = real(place, put.path).await?;
    check_room(place, &path, put.bytes.len() as u64).await?;
    let _turn = begin(place, &[(path.clone(), LockScope::File)], &by.user).await?;
    let bytes: Arc<[u8]> = put.bytes.into();
    // A write that was cut off before it was recorded is no change of somebody else.
    let is_there = place.is_stored() || {
        let (path, bytes) = (path.clone(), Arc::clone(&bytes));
        place.blocking(move |workspace| holds(workspace, &path, &bytes)).await?
    };
    if !is_there {
        look_at(place, std::slice::from_ref(&path), None).await?;
    }
    check_version(place, &path, put.version).await?;
    check_before(place, &path, &put.before).await?;
    let author = Author::user(by.user, FileSource::Api);
    write(place, author, by.context, path, bytes, None).await
}

/// Whether a file holds exactly these bytes.
pub(super) fn holds(
    workspace: &Workspace,
    path: &str,
    bytes: &[u8],
) -> Result<bool, WorkspaceError> {
    if workspace.look(path)?.is_none_or(|seen| seen.size != bytes.len() as u64) {
        return Ok(false);
    }
    let found = workspace.read_seen(path, FILE_BYTES_MAX as u64)?;
    Ok(found.and_then(|found| found.bytes).is_some_and(|found| found == bytes))
}

/// Replaces a text in a file.
pub(crate) async fn edit(place: Place<'_>, by: By, edit: Edit) -> Result<Recorded, ApiError> {
    if let Some(first) = first_outcome(place, &by).await? {
        return Ok(first);
    }
    let Edit { path, old, new, all, version } = edit;
    let path = real(place, path).await?;
    let _turn = begin(place, &[(path.clone(), LockScope::File)], &by.user).await?;
    look_at(place, std::slice::from_ref(&path), None).await?;
    check_version(place, &path, version).await?;
    let file = {
        let path = path.clone();
        place.blocking(move |workspace| workspace.read_text(&path, FILE_BYTES_MAX as u64)).await?
    };
    let replaced = iris_tools::replace_text(&path, &file.text, &old, &new, all);
    let (text, _) =
        replaced.map_err(|error| ApiError::invalid(error.to_string()).reason("edit"))?;
    check_room(place, &path, text.len() as u64).await?;
    let author = Author::user(by.user, FileSource::Api);
    write(place, author, by.context, path, text.into_bytes().into(), None).await
}

/// Writes and records. The caller has the turn.
async fn write(
    place: Place<'_>,
    author: Author,
    context: WriteContext,
    path: String,
    bytes: Arc<[u8]>,
    mode: Option<u32>,
) -> Result<Recorded, ApiError> {
    let found = {
        let bytes = Arc::clone(&bytes);
        let write = move |workspace: &Workspace| {
            workspace.write_with_mode(&path, &bytes, mode)?;
            let seen = workspace.look(&path)?;
            let held = FoundContent {
                size: bytes.len() as u64,
                hash: content_hash(&bytes),
                bytes: Some(Arc::clone(&bytes)),
                mode: seen.as_ref().map_or(0o644, |seen| seen.mode),
                // Whoever changed it since is found by the next look.
                facts: seen.filter(|seen| seen.size == bytes.len() as u64).as_ref().and_then(facts),
            };
            Ok(FoundFile { path, content: Some(held), from: None, is_written: true })
        };
        place.blocking(write).await?
    };
    crash_point(CrashPoint::FileWritten);
    let quotas = (author.source == FileSource::Api).then_some(place.services.settings.quotas);
    let command = RecordFiles { quotas, ..place.change(vec![found], author) };
    place.commit(command, context).await
}

/// The known files that are `path` or below it, refused when they are too many.
async fn known_below(place: Place<'_>, path: &str) -> Result<Vec<(String, String, u64)>, ApiError> {
    let mut found = Vec::new();
    if let Some(file) = place.project.reader.known_file(path.to_owned()).await.map_err(stored)? {
        found.push((file.path, file.hash, file.size));
    }
    let prefix = format!("{path}/");
    let mut after = prefix.clone();
    loop {
        let page = place.project.reader.known_files(after, 1_000).await.map_err(stored)?;
        let count = page.len();
        let below: Vec<_> =
            page.into_iter().take_while(|file| file.path.starts_with(&prefix)).collect();
        let is_last = below.len() < count || count == 0;
        after = below.last().map(|file| file.path.clone()).unwrap_or_default();
        found.extend(below.into_iter().map(|file| (file.path, file.hash, file.size)));
        if found.len() > FILES_AT_ONCE_MAX {
            let (path, count_max) = (path.to_owned(), FILES_AT_ONCE_MAX);
            return Err(super::refused(WorkspaceError::TooMany { path, count_max }));
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// Refuses a directory with files of which no version is known: nobody could put them back.
async fn check_versioned(
    place: Place<'_>,
    path: &str,
    known: &[(String, String, u64)],
) -> Result<(), ApiError> {
    if place.is_stored() {
        return Ok(());
    }
    let below = {
        let path = path.to_owned();
        let list = move |workspace: &Workspace| {
            let (depth, limit) = (usize::MAX, FILES_AT_ONCE_MAX);
            let page = workspace.list_page(&path, depth, true, None, limit, &Cancel::new())?;
            if page.has_more || page.cut.is_some() {
                return Err(WorkspaceError::TooMany { path, count_max: FILES_AT_ONCE_MAX });
            }
            Ok(page.entries)
        };
        place.blocking(list).await?
    };
    let known: HashSet<&str> = known.iter().map(|(path, ..)| path.as_str()).collect();
    // Nobody knows what is in a directory that no operation reaches.
    let may_be_lost = |entry: &Entry| entry.kind == EntryKind::File || entry.is_unreachable;
    let is_lost = |entry: &&Entry| may_be_lost(entry) && !known.contains(entry.path.as_str());
    let lost: Vec<&str> = below.iter().filter(is_lost).map(|entry| &*entry.path).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} files below `{path}` have no version and would be gone for good: set `unversioned`",
        lost.len()
    );
    let error = ApiError::new(ErrorCode::Conflict, message).reason("unversioned_files");
    let named: Vec<&str> = lost.iter().take(RUN_DIFF_FILES_MAX).copied().collect();
    Err(error.detail("paths", named).detail("fileCount", lost.len()))
}

async fn is_directory(place: Place<'_>, path: &str) -> Result<bool, ApiError> {
    let path = path.to_owned();
    let info = place.blocking(move |workspace| workspace.stat(&path)).await?;
    Ok(info.kind == EntryKind::Directory)
}

/// The path as it is written in the database, without following a link at its end: that is what is moved or
/// deleted.
fn named(path: &str) -> Result<String, ApiError> {
    Ok(RelPath::file(path).map_err(super::refused)?.as_str().to_owned())
}

/// Moves a file or a directory.
pub(crate) async fn move_to(place: Place<'_>, by: By, request: Move) -> Result<Recorded, ApiError> {
    if let Some(first) = first_outcome(place, &by).await? {
        return Ok(first);
    }
    let Move { from, to, overwrite, version } = request;
    let (from, to) = (named(&from)?, named(&to)?);
    let targets = [(from.clone(), LockScope::Subtree), (to.clone(), LockScope::Subtree)];
    let _turn = begin(place, &targets, &by.user).await?;
    if is_directory(place, &from).await? {
        look_at_all(place, None).await?;
    } else {
        look_at(place, &[from.clone(), to.clone()], None).await?;
    }
    check_version(place, &from, version).await?;
    let known = known_below(place, &from).await?;
    let rename = {
        let (from, to) = (from.clone(), to.clone());
        move |workspace: &Workspace| {
            workspace.rename(&from, &to, overwrite)?;
            let mut found = Vec::with_capacity(known.len() * 2);
            for (path, hash, size) in known {
                let rest = path.strip_prefix(&from).unwrap_or_default();
                let moved = format!("{to}{rest}");
                let seen = workspace.look(&moved)?.filter(|seen| seen.size == size);
                let content = FoundContent {
                    size,
                    hash,
                    bytes: None,
                    mode: seen.as_ref().map_or(0o644, |seen| seen.mode),
                    facts: seen.as_ref().and_then(facts),
                };
                let gone =
                    FoundFile { path: path.clone(), content: None, from: None, is_written: true };
                let (content, from) = (Some(content), Some(path));
                found.push(FoundFile { path: moved, content, from, is_written: true });
                found.push(gone);
            }
            Ok(found)
        }
    };
    let found = place.blocking(rename).await?;
    crash_point(CrashPoint::FileWritten);
    record_all(place, by, found).await
}

/// Deletes a file or a directory.
pub(crate) async fn delete(
    place: Place<'_>,
    by: By,
    request: Delete,
) -> Result<Recorded, ApiError> {
    if let Some(first) = first_outcome(place, &by).await? {
        return Ok(first);
    }
    let Delete { path, recursive, unversioned, version } = request;
    let path = named(&path)?;
    let _turn = begin(place, &[(path.clone(), LockScope::Subtree)], &by.user).await?;
    let is_directory = is_directory(place, &path).await.unwrap_or(false);
    if is_directory {
        look_at_all(place, None).await?;
    } else {
        look_at(place, std::slice::from_ref(&path), None).await?;
    }
    check_version(place, &path, version).await?;
    let known = known_below(place, &path).await?;
    if is_directory && recursive && !unversioned {
        check_versioned(place, &path, &known).await?;
    }
    place.blocking(move |workspace| workspace.remove(&path, recursive, FILES_AT_ONCE_MAX)).await?;
    crash_point(CrashPoint::FileWritten);
    let gone = |path| FoundFile { path, content: None, from: None, is_written: true };
    let found = known.into_iter().map(|(path, _, _)| gone(path)).collect();
    record_all(place, by, found).await
}

async fn record_all(place: Place<'_>, by: By, found: Vec<FoundFile>) -> Result<Recorded, ApiError> {
    let author = Author::user(by.user, FileSource::Api);
    place.commit(place.change(found, author), by.context).await
}

/// Puts a file back to what a version of it held.
pub(crate) async fn restore(
    place: Place<'_>,
    by: By,
    request: Restore,
) -> Result<Recorded, ApiError> {
    if let Some(first) = first_outcome(place, &by).await? {
        return Ok(first);
    }
    let Restore { path, to, version } = request;
    let path = named(&path)?;
    let _turn = begin(place, &[(path.clone(), LockScope::File)], &by.user).await?;
    look_at(place, std::slice::from_ref(&path), None).await?;
    check_version(place, &path, version).await?;
    let reader = &place.project.reader;
    let old = reader.file_version(path.clone(), to).await.map_err(stored)?;
    let old = old.ok_or_else(|| ApiError::not_found("version"))?;
    let author = Author::user(by.user.clone(), FileSource::Restore);
    if old.version.change == FileChange::Deleted {
        let known = reader.known_file(path.clone()).await.map_err(stored)?;
        if known.is_none() {
            return Err(ApiError::not_found("file"));
        }
        let gone = FoundFile { path: path.clone(), content: None, from: None, is_written: true };
        place.blocking(move |workspace| workspace.remove(&path, false, 1)).await?;
        return place.commit(place.change(vec![gone], author), by.context).await;
    }
    let Some(bytes) = reader.file_content(path.clone(), to).await.map_err(stored)? else {
        let message = format!("the content of version {to} is not kept");
        return Err(ApiError::new(ErrorCode::Conflict, message).reason("content_not_kept"));
    };
    check_room(place, &path, bytes.len() as u64).await?;
    write(place, author, by.context, path, bytes.into(), old.mode).await
}
