//! Undoing turns of a session together with what they made of the files, and undoing that.
//!
//! The files that the runs of those turns changed are put back as a restore of several files is; the commit
//! that records them has the messages become what belongs to them. Until then the session takes no message.

use iris_protocol::limits::RUN_DIFF_FILES_MAX;
use iris_protocol::{
    ApiError, ChangedFile, ChangedSince, ErrorCode, FileSource, MessageId, RevertOutcome,
    SessionId, SkippedFile,
};
use iris_store::project::{
    Author, ChangedPath, EndRevert, PathThen, RestoreEnd, RestoreTarget, StoredRestore, Undoing,
};

use super::changing::{By, first_outcome};
use super::restoring::{
    barred, check_commands, is_kept, not_kept, not_kept_error, restore_all, told,
};
use super::run_diff::{COMPARED_FILES_MAX, compared, counts, version_of};
use super::{Place, Recorded, look_at, stored, take_turn};

/// What is to be undone, and how.
pub(crate) struct Undo {
    pub(crate) session_id: SessionId,
    /// A message of the first turn; none for the last revert.
    pub(crate) message_id: Option<MessageId>,
    pub(crate) dry_run: bool,
    /// Whether files that somebody else changed since stay as they are.
    pub(crate) skip_changed: bool,
}

/// What was done, or would be, and with which event.
pub(crate) struct Undone {
    pub(crate) outcome: RevertOutcome,
    pub(crate) seq: Option<u64>,
    pub(crate) replayed: bool,
}

/// Undoes turns, or a revert.
pub(crate) async fn undo_turns(place: Place<'_>, by: By, undo: Undo) -> Result<Undone, ApiError> {
    let _turn = take_turn(place).await?;
    // In the turn: what a crash cut off is complete now, and its repeat is known.
    if let Some(first) = first_outcome(place, &by).await? {
        return undone(first);
    }
    check_commands(place)?;
    let known = plan(place, &undo).await?;
    let paths: Vec<String> = known.paths.into_iter().map(|path| path.path).collect();
    look_at(place, &paths, None).await?;
    let mut plan = plan(place, &undo).await?;
    plan.paths.retain(|path| !is_same(path));
    let barred = barred(place, plan.paths.iter().map(target).collect()).await?;
    plan.paths.retain(|path| !barred.contains_key(&path.path));
    let changed_since = take_changed_since(&mut plan.paths);
    let unkept = take_unkept(&mut plan.paths);
    if !undo.dry_run && !undo.skip_changed {
        if !changed_since.is_empty() {
            return Err(changed_error(&changed_since));
        }
        if !unkept.is_empty() {
            return Err(not_kept_error(&unkept));
        }
    }
    let skipped = told(barred.into_values().chain(unkept).collect());
    let outcome = outcome(place, &undo, &plan, changed_since, skipped).await?;
    if undo.dry_run {
        return Ok(Undone { outcome, seq: None, replayed: false });
    }
    let Undoing { messages, last_run, paths, undoes, .. } = plan;
    let targets = paths.iter().map(target).collect();
    let before = paths.into_iter().map(|PathThen { path, now, .. }| RestoreTarget {
        path,
        version: now.map(|now| now.version.version),
    });
    let before = before.collect();
    // The session says whose turns these are: a later revert of them knows these versions.
    let session_id = Some(undo.session_id);
    let author = Author { session_id, ..Author::user(by.user, FileSource::Restore) };
    let end = EndRevert { outcome, messages, last_run, before, undoes };
    let (end, key) = (RestoreEnd::Turns(Box::new(end)), by.context.idempotency);
    let skipped = Vec::new();
    undone(restore_all(place, StoredRestore { targets, author, end, key, skipped }).await?)
}

fn undone(recorded: Recorded) -> Result<Undone, ApiError> {
    let Recorded { files, seq, replayed } = recorded;
    let Some(outcome) = files.reverted else {
        tracing::error!("what was recorded of undone turns does not say what became of them");
        return Err(ApiError::new(ErrorCode::Internal, "internal error"));
    };
    Ok(Undone { outcome, seq, replayed })
}

async fn plan(place: Place<'_>, undo: &Undo) -> Result<Undoing, ApiError> {
    let (reader, session_id) = (&place.project.reader, undo.session_id.clone());
    let plan = match undo.message_id.clone() {
        Some(message_id) => reader.plan_revert(session_id, message_id).await,
        None => reader.plan_unrevert(session_id).await,
    };
    plan.map_err(stored)
}

/// Whether a file is what it was before already.
fn is_same(path: &PathThen) -> bool {
    match (&path.now, &path.then) {
        (None, None) => !path.is_forgotten,
        (Some(now), Some(then)) => {
            now.version.hash == then.version.hash
                && now.version.size == then.version.size
                && !now.version.hash.is_empty()
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn target(path: &PathThen) -> RestoreTarget {
    let version = path.then.as_ref().map(|then| then.version.version);
    RestoreTarget { path: path.path.clone(), version }
}

/// Leaves the files that nobody else changed.
fn take_changed_since(paths: &mut Vec<PathThen>) -> Vec<ChangedSince> {
    let mut changed = Vec::new();
    paths.retain(|path| {
        changed.extend(path.changed_since.clone());
        path.changed_since.is_none()
    });
    changed
}

/// Leaves the files whose contents are kept, before and now.
fn take_unkept(paths: &mut Vec<PathThen>) -> Vec<SkippedFile> {
    let mut unkept = Vec::new();
    paths.retain(|path| {
        let is_kept = !path.is_forgotten && is_kept(path.now.as_ref(), path.then.as_ref());
        unkept.extend((!is_kept).then(|| not_kept(&path.path)));
        is_kept
    });
    unkept
}

fn changed_error(changed: &[ChangedSince]) -> ApiError {
    let count = changed.len();
    let message = format!("{count} files were changed by somebody else since");
    let named: Vec<&ChangedSince> = changed.iter().take(RUN_DIFF_FILES_MAX).collect();
    let error = ApiError::new(ErrorCode::Conflict, message).reason("files_changed_since");
    let named = serde_json::to_value(named).unwrap_or_default();
    error.detail("files", named).detail("fileCount", count)
}

async fn outcome(
    place: Place<'_>,
    undo: &Undo,
    plan: &Undoing,
    mut changed_since: Vec<ChangedSince>,
    skipped: Vec<SkippedFile>,
) -> Result<RevertOutcome, ApiError> {
    let wants_lines = plan.paths.len() <= COMPARED_FILES_MAX;
    let mut files = Vec::new();
    for PathThen { path, now, then, .. } in plan.paths.iter().take(RUN_DIFF_FILES_MAX) {
        let Some(change) = ChangedPath::change(now.is_some(), then.is_some()) else { continue };
        let compared = compared(place, path, now.as_ref(), then.as_ref(), wants_lines).await?;
        let (insertions, deletions) = counts(compared.as_ref());
        let (from, to) = (Some(version_of(now.as_ref())), Some(version_of(then.as_ref())));
        files.push(ChangedFile { path: path.clone(), change, from, to, insertions, deletions });
    }
    changed_since.truncate(RUN_DIFF_FILES_MAX);
    Ok(RevertOutcome {
        session_id: undo.session_id.clone(),
        message_id: plan.message_id.clone(),
        dry_run: undo.dry_run,
        message_count: plan.messages.len() as u64,
        file_count: plan.paths.len() as u64,
        files,
        changed_since,
        skipped,
    })
}
