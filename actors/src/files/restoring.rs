//! Snapshots, and putting back several files: all of them, or none.
//!
//! What each file is to hold is committed before the first is touched, and goes from the database with the
//! commit of the last. Whoever has the next turn after a crash goes on with what is there; a failure on the
//! way puts back what was changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use iris_protocol::limits::{FILES_AT_ONCE_MAX, RUN_DIFF_FILES_MAX};
use iris_protocol::{
    ApiError, ChangedFile, ErrorCode, FileChange, FileSource, LockScope, SkipReason, SkippedFile,
    Snapshot, SnapshotId,
};
use iris_store::project::{
    Author, BeginRestore, ChangedPath, CreateSnapshot, FileAt, FileBetween, FoundContent,
    FoundFile, RecordFiles, RestoreEnd, RestoreTarget, StoredRestore, StoredSnapshot,
};
use iris_store::{CrashPoint, WriteContext, crash_point};
use iris_workspace::{Workspace, WorkspaceError, content_hash};

use super::changing::{By, first_outcome, holds};
use super::guarding::check_locks;
use super::looking::facts;
use super::run_diff::version_of;
use super::{Place, Recorded, Turn, look_at, look_at_all, stored};
use crate::record;

/// Waits for the turn to change files, and goes on with what a crash cut off.
pub(crate) async fn take_turn(place: Place<'_>) -> Result<Turn, ApiError> {
    let desk = &place.project.kept.files;
    let turn = desk.turn().await;
    if !desk.is_settled() {
        if let Some(restore) = place.project.reader.begun_restore().await.map_err(stored)? {
            Box::pin(go_on(place, restore)).await?;
        }
        desk.settle();
    }
    Ok(turn)
}

/// Puts back what a crash left half done, or calls it off where that is not possible.
async fn go_on(place: Place<'_>, restore: StoredRestore) -> Result<(), ApiError> {
    tracing::warn!(project.id = place.project.id.as_str(), "files are put back that were left");
    let targets = restore.targets.clone();
    keep_what_strayed(place, &targets).await?;
    if let Err(error) = put_back(place, restore).await {
        tracing::error!(%error, "what was left could not be put back: it is called off");
        undo(place, &targets).await?;
    }
    Ok(())
}

/// Looks at all files and keeps the moment.
pub(crate) async fn snapshot(
    place: Place<'_>,
    author: &Author,
    context: WriteContext,
) -> Result<(Snapshot, Option<u64>, bool), ApiError> {
    let _turn = take_turn(place).await?;
    let looked = look_at_all(place, None).await?;
    let created = keep(place, author, looked.is_complete, context).await?;
    Ok((created.output, created.seq, created.replayed))
}

/// Keeps the moment before the first change of a run. The caller has the turn.
pub(super) async fn snapshot_before(place: Place<'_>, author: &Author) -> Result<(), ApiError> {
    let Some(run_id) = author.run_id.clone() else { return Ok(()) };
    if place.project.reader.snapshot_of_run(run_id).await.map_err(stored)?.is_some() {
        return Ok(());
    }
    let looked = look_at_all(place, None).await?;
    keep(place, author, looked.is_complete, WriteContext::default()).await.map(drop)
}

async fn keep(
    place: Place<'_>,
    author: &Author,
    complete: bool,
    context: WriteContext,
) -> Result<iris_store::Committed<Snapshot>, ApiError> {
    let command = CreateSnapshot {
        id: SnapshotId::from_bits(place.services.ids.next_bits()),
        session_id: author.session_id.clone(),
        run_id: author.run_id.clone(),
        message_id: author.message_id.clone(),
        by: author.by.clone(),
        complete,
        at: place.now(),
    };
    record(&place.project.address, command, context).await.map_err(stored)
}

async fn existing(place: Place<'_>, id: SnapshotId) -> Result<StoredSnapshot, ApiError> {
    let found = place.project.reader.snapshot_of_files(id).await.map_err(stored)?;
    found.ok_or_else(|| ApiError::not_found("snapshot"))
}

pub(super) fn is_there(version: Option<&FileAt>) -> Option<&FileAt> {
    version.filter(|it| it.version.change != FileChange::Deleted)
}

/// Whether a path is the same at both moments.
fn is_same(between: &FileBetween) -> bool {
    match (is_there(between.before.as_ref()), is_there(between.after.as_ref())) {
        (None, None) => true,
        (Some(before), Some(after)) => {
            before.version.hash == after.version.hash
                && before.version.size == after.version.size
                && !before.version.hash.is_empty()
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// The files that differ between a snapshot and another one, or now; and whether there are more.
pub(crate) async fn difference(
    place: Place<'_>,
    from: SnapshotId,
    to: Option<SnapshotId>,
) -> Result<(Vec<ChangedFile>, bool), ApiError> {
    let from = existing(place, from).await?.number;
    let to = if let Some(to) = to {
        Some(existing(place, to).await?.number)
    } else {
        let _turn = take_turn(place).await?;
        look_at_all(place, None).await?;
        None
    };
    let limit = RUN_DIFF_FILES_MAX;
    let between = place.project.reader.files_between(from, to, limit).await.map_err(stored)?;
    let (paths, is_cut) = between;
    let mut files = Vec::new();
    for between in paths.iter().filter(|between| !is_same(between)) {
        let was = is_there(between.before.as_ref()).is_some();
        let is = is_there(between.after.as_ref()).is_some();
        if let Some(change) = ChangedPath::change(was, is) {
            let path = between.path.clone();
            let (from, to) = (between.before.as_ref(), between.after.as_ref());
            let (from, to) = (Some(version_of(from)), Some(version_of(to)));
            let (insertions, deletions) = (None, None);
            files.push(ChangedFile { path, change, from, to, insertions, deletions });
        }
    }
    Ok((files, is_cut))
}

/// Refuses to put files back while a command runs: it would go on to change them, with what it read before.
pub(super) fn check_commands(place: Place<'_>) -> Result<(), ApiError> {
    if place.project.kept.files.has_commands() {
        let message = "a command works among the files: wait for its end, or cancel it";
        return Err(ApiError::new(ErrorCode::Conflict, message).reason("command_running"));
    }
    Ok(())
}

/// Files that nobody may change, whatever is asked: they never hold up the others.
pub(super) async fn barred(
    place: Place<'_>,
    targets: Vec<RestoreTarget>,
) -> Result<BTreeMap<String, SkippedFile>, ApiError> {
    let check = move |workspace: &Workspace| {
        let mut barred = BTreeMap::new();
        for RestoreTarget { path, version } in targets {
            let checked = match version {
                Some(_) => workspace.check_write(&path),
                None => workspace.check_remove(&path),
            };
            let reason = match checked {
                Err(WorkspaceError::ProtectedPath { .. }) => SkipReason::ProtectedPath,
                Err(WorkspaceError::HardLinked { .. }) => SkipReason::HardLinked,
                // What else is in the way has all of it refused, before anything is touched.
                Ok(()) | Err(_) => continue,
            };
            barred.insert(path.clone(), SkippedFile { path, reason });
        }
        Ok(barred)
    };
    place.blocking(check).await
}

/// Whether what a path is to hold is kept, and what it holds: otherwise that would be lost.
pub(super) fn is_kept(now: Option<&FileAt>, then: Option<&FileAt>) -> bool {
    now.into_iter().chain(then).all(|it| it.version.kept)
}

pub(super) fn not_kept(path: &str) -> SkippedFile {
    SkippedFile { path: path.to_owned(), reason: SkipReason::ContentNotKept }
}

/// Refuses what would lose contents, and names all of it.
pub(super) fn not_kept_error(files: &[SkippedFile]) -> ApiError {
    let count = files.len();
    let message = format!("the contents of {count} files are not kept, before or now");
    let named: Vec<&str> =
        files.iter().take(RUN_DIFF_FILES_MAX).map(|file| file.path.as_str()).collect();
    let error = ApiError::new(ErrorCode::Conflict, message).reason("content_not_kept");
    let error = error.detail("path", named.first().copied().unwrap_or_default());
    error.detail("paths", named).detail("fileCount", count)
}

/// Those that are answered.
pub(super) fn told(mut skipped: Vec<SkippedFile>) -> Vec<SkippedFile> {
    skipped.sort_by(|one, other| one.path.cmp(&other.path));
    skipped.truncate(RUN_DIFF_FILES_MAX);
    skipped
}

/// Puts all files back to what they were at a snapshot.
pub(crate) async fn restore_snapshot(
    place: Place<'_>,
    by: By,
    id: SnapshotId,
    skip_unkept: bool,
) -> Result<Recorded, ApiError> {
    let _turn = take_turn(place).await?;
    // In the turn: what a crash cut off is complete now, and its repeat is known.
    if let Some(first) = first_outcome(place, &by).await? {
        return Ok(first);
    }
    let number = existing(place, id.clone()).await?.number;
    check_commands(place)?;
    // Whatever is there now can be gone back to as well.
    look_at_all(place, None).await?;
    let limit = FILES_AT_ONCE_MAX;
    let between = place.project.reader.files_between(number, None, limit).await.map_err(stored)?;
    let (mut paths, is_cut) = between;
    if is_cut {
        let message = format!("more than {FILES_AT_ONCE_MAX} files are different");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message).reason("too_many_files"));
    }
    paths.retain(|between| !is_same(between));
    let target = |between: &FileBetween| RestoreTarget {
        path: between.path.clone(),
        version: is_there(between.before.as_ref()).map(|before| before.version.version),
    };
    let barred = barred(place, paths.iter().map(target).collect()).await?;
    paths.retain(|between| !barred.contains_key(&between.path));
    let (paths, unkept): (Vec<_>, Vec<_>) = paths.into_iter().partition(|between| {
        is_kept(is_there(between.after.as_ref()), is_there(between.before.as_ref()))
    });
    let unkept: Vec<SkippedFile> = unkept.iter().map(|it| not_kept(&it.path)).collect();
    if !unkept.is_empty() && !skip_unkept {
        return Err(not_kept_error(&unkept));
    }
    let targets = paths.iter().map(target).collect();
    let skipped = told(barred.into_values().chain(unkept).collect());
    let author = Author::user(by.user, FileSource::Restore);
    let (end, key) = (RestoreEnd::Snapshot(id), by.context.idempotency);
    restore_all(place, StoredRestore { targets, author, end, key, skipped }).await
}

/// Puts back several files, all of them or none, for a user whose locks these are. The caller has the turn.
pub(super) async fn restore_all(
    place: Place<'_>,
    restore: StoredRestore,
) -> Result<Recorded, ApiError> {
    let targets = restore.targets.clone();
    if let Some(user) = &restore.author.by {
        let locked: Vec<_> =
            targets.iter().map(|target| (target.path.clone(), LockScope::File)).collect();
        check_locks(place, &locked, user).await?;
    }
    check_targets(place, &targets).await?;
    // After a crash the project is opened although nobody asks for it.
    place.project.mark_unfinished().await?;
    let desk = &place.project.kept.files;
    // Until it is complete: whoever has the next turn goes on, should this end on the way.
    desk.unsettle();
    let begin = BeginRestore { restore: Some(restore.clone()), at: place.now() };
    record(&place.project.address, begin, WriteContext::default()).await.map_err(stored)?;
    crash_point(CrashPoint::RestoreBegun);
    let done = put_back(place, restore).await;
    if done.is_err() {
        undo(place, &targets).await?;
    }
    desk.settle();
    done
}

/// Records what somebody else made of files while they were being put back and nobody watched, so that it
/// can be gone back to.
async fn keep_what_strayed(place: Place<'_>, targets: &[RestoreTarget]) -> Result<(), ApiError> {
    if place.is_stored() {
        return Ok(());
    }
    let mut strayed = Vec::new();
    for target in targets {
        // What cannot be told is looked at, too.
        if !is_put_back(place, target).await.unwrap_or(false) {
            strayed.push(target.path.clone());
        }
    }
    look_at(place, &strayed, None).await.map(drop)
}

async fn is_put_back(place: Place<'_>, target: &RestoreTarget) -> Result<bool, ApiError> {
    let (path, content) = (target.path.clone(), content(place, target).await?);
    let check = move |workspace: &Workspace| match content {
        Some((bytes, _)) => holds(workspace, &path, &bytes),
        None => workspace.look(&path).map(|seen| seen.is_none()),
    };
    place.blocking(check).await
}

/// Reads everything once, so that nothing is touched when something cannot be put back.
async fn check_targets(place: Place<'_>, targets: &[RestoreTarget]) -> Result<(), ApiError> {
    for target in targets {
        content(place, target).await?;
        let (path, removes) = (target.path.clone(), target.version.is_none());
        let check = move |workspace: &Workspace| {
            if removes { workspace.check_remove(&path) } else { workspace.check_write(&path) }
        };
        place.blocking(check).await?;
    }
    Ok(())
}

/// What a file is to hold, and its permission bits; none where it is not to be there.
async fn content(
    place: Place<'_>,
    target: &RestoreTarget,
) -> Result<Option<(Arc<[u8]>, Option<u32>)>, ApiError> {
    let Some(version) = target.version else { return Ok(None) };
    let (reader, path) = (&place.project.reader, target.path.clone());
    let bytes = reader.file_content(path.clone(), version).await.map_err(stored)?;
    let mode = reader.file_version(path, version).await.map_err(stored)?.and_then(|it| it.mode);
    let Some(bytes) = bytes else {
        let message = format!("version {version} of `{}` is not kept", target.path);
        let error = ApiError::new(ErrorCode::Conflict, message).reason("content_not_kept");
        return Err(error.detail("path", target.path.as_str()));
    };
    Ok(Some((Arc::from(bytes), mode)))
}

/// Has each file hold what it is to hold, and records all of them at once.
async fn put_back(place: Place<'_>, restore: StoredRestore) -> Result<Recorded, ApiError> {
    let StoredRestore { targets, author, end, key, .. } = restore;
    let mut found = Vec::with_capacity(targets.len());
    for target in &targets {
        found.push(put_back_one(place, target).await?);
        crash_point(CrashPoint::RestoreHalf);
    }
    crash_point(CrashPoint::FileWritten);
    let command = RecordFiles { ends_restore: Some(end), ..place.change(found, author) };
    place.commit(command, WriteContext { idempotency: key, ..WriteContext::default() }).await
}

async fn put_back_one(place: Place<'_>, target: &RestoreTarget) -> Result<FoundFile, ApiError> {
    let (path, content) = (target.path.clone(), content(place, target).await?);
    place
        .blocking(move |workspace| {
            let Some((bytes, mode)) = content else {
                match workspace.remove(&path, false, 1) {
                    Ok(()) | Err(WorkspaceError::NotFound { .. }) => {}
                    Err(error) => return Err(error),
                }
                workspace.remove_empty_above(&path);
                return Ok(FoundFile { path, content: None, from: None, is_written: true });
            };
            workspace.write_with_mode(&path, &bytes, mode)?;
            let seen = workspace.look(&path)?;
            let content = FoundContent {
                size: bytes.len() as u64,
                hash: content_hash(&bytes),
                // It is kept: that is where it came from.
                bytes: None,
                mode: seen.as_ref().map_or(0o644, |seen| seen.mode),
                facts: seen.as_ref().and_then(facts),
            };
            Ok(FoundFile { path, content: Some(content), from: None, is_written: false })
        })
        .await
}

/// Puts back what was there before a restore that failed, which is what was recorded last, and calls it off.
async fn undo(place: Place<'_>, targets: &[RestoreTarget]) -> Result<(), ApiError> {
    for target in targets {
        let path = target.path.clone();
        let newest =
            place.project.reader.newest_file_version(path.clone()).await.map_err(stored)?;
        let version = is_there(newest.as_ref()).map(|newest| newest.version.version);
        if let Err(error) = put_back_one(place, &RestoreTarget { path, version }).await {
            tracing::error!(%error, "a file could not be put back as it was before a restore failed");
        }
    }
    let call_off = BeginRestore { restore: None, at: place.now() };
    record(&place.project.address, call_off, WriteContext::default()).await.map_err(stored)?;
    Ok(())
}
