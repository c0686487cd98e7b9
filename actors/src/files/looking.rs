//! Looking at the disk and recording what is different from what was known.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use iris_protocol::ApiError;
use iris_protocol::limits::FILE_BYTES_MAX;
use iris_store::WriteContext;
use iris_store::project::{
    Author, DiskFacts, FoundContent, FoundFile, KnownFile, RecordFiles, RecordedFiles,
};
use iris_workspace::{Cancel, SearchLimits, Seen, Workspace, WorkspaceError};

use super::{Place, stored};

/// Known files that are read at a time.
const KNOWN_PAGE: u32 = 5_000;
/// Files, and bytes of their contents, that are recorded in one transaction.
const BATCH_FILES: usize = 200;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long a look at all files may take, and how many entries it passes.
const SCAN_TIME: Duration = Duration::from_mins(1);
const SCAN_ENTRIES_MAX: usize = 1_000_000;
/// How long after its last change a large file is looked at: a look right after it tells nothing (see
/// [`iris_workspace::Seen`]).
pub(super) const SETTLE: Duration = Duration::from_millis(60);

/// What a look at all files found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Versions that were recorded.
    pub(crate) count: u64,
    /// Files that are there and watched.
    pub(crate) files: u64,
    /// Whether every file was looked at.
    pub(crate) is_complete: bool,
}

/// Looks at some paths. The caller has the turn. Where nobody is named, what is found is the work of the commands
/// that run, or else of somebody besides Iris.
pub(crate) async fn look_at(
    place: Place<'_>,
    paths: &[String],
    author: Option<&Author>,
) -> Result<RecordedFiles, ApiError> {
    let mut sum = RecordedFiles::default();
    if place.is_stored() {
        return Ok(sum);
    }
    for paths in paths.chunks(BATCH_FILES) {
        let mut known = Vec::with_capacity(paths.len());
        for path in paths {
            let file = place.project.reader.known_file(path.clone()).await.map_err(stored)?;
            known.push((path.clone(), file));
        }
        let mut pending = known;
        while !pending.is_empty() {
            let (found, rest) = place.blocking(move |it| found(it, pending)).await?;
            pending = rest;
            if !found.is_empty() {
                let recorded = save(place, found, author, false).await?;
                sum.count += recorded.count;
                sum.versions.extend(recorded.versions);
            }
        }
    }
    Ok(sum)
}

/// Looks at all files that `.gitignore` files do not leave out, and at all that are known, as [`look_at`]. The first
/// look ever tells nobody: the files were there before. What it did not come to is told when a later one does.
///
/// The first one since the project was opened removes what a crash left of files that were being written: nobody
/// writes but who has the turn.
pub(crate) async fn look_at_all(
    place: Place<'_>,
    author: Option<&Author>,
) -> Result<Looked, ApiError> {
    if place.is_stored() {
        return Ok(Looked { is_complete: true, ..Looked::default() });
    }
    let desk = &place.project.kept.files;
    let is_known = desk.is_known.load(Ordering::Acquire);
    let is_first = !is_known && !place.project.reader.files_are_known().await.map_err(stored)?;
    let mut known = known_files(place).await?;
    let limits = scan_limits(place.services.settings.files.watched_files_max);
    let scan = place.blocking(move |workspace| workspace.scan(&limits, &Cancel::new())).await?;
    let mut looked =
        Looked { count: 0, files: scan.files.len() as u64, is_complete: scan.cut.is_none() };
    if let Some(cut) = scan.cut {
        let project = place.project.id.as_str();
        tracing::warn!(project.id = project, ?cut, "not all files of a project are watched");
    }
    let mut pending = Vec::new();
    for (path, seen) in scan.files {
        let file = known.remove(&path);
        if !file.as_ref().is_some_and(|file| is_same(file, &seen)) {
            pending.push((path, file));
        }
    }
    // What was not met may be left out by an ignore file, or be behind the end of the walk.
    pending.extend(known.into_iter().map(|(path, file)| (path, Some(file))));
    while !pending.is_empty() {
        let rest = pending.split_off(pending.len().min(BATCH_FILES * 10));
        let (found, left) = place.blocking(move |it| found(it, pending)).await?;
        pending = left;
        pending.extend(rest);
        if !found.is_empty() {
            looked.count += save(place, found, author, is_first).await?.count;
        }
    }
    if is_first {
        let note = iris_store::project::NoteFilesKnown { at: place.now() };
        let noted = crate::record(&place.project.address, note, WriteContext::default());
        noted.await.map_err(stored)?;
    }
    if !is_known {
        remove_unfinished(place, scan.unfinished).await?;
    }
    desk.is_known.store(true, Ordering::Release);
    Ok(looked)
}

async fn remove_unfinished(place: Place<'_>, paths: Vec<String>) -> Result<(), ApiError> {
    if paths.is_empty() {
        return Ok(());
    }
    let removed = place.blocking(move |workspace| {
        Ok(paths.iter().filter(|path| workspace.remove_unfinished(path).is_ok()).count())
    });
    let (count, project) = (removed.await?, place.project.id.as_str());
    tracing::info!(project.id = project, count, "files that were being written were left over");
    Ok(())
}

fn scan_limits(results_max: usize) -> SearchLimits {
    SearchLimits {
        entries_max: SCAN_ENTRIES_MAX,
        results_max,
        result_bytes_max: usize::MAX,
        time_max: SCAN_TIME,
    }
}

async fn known_files(place: Place<'_>) -> Result<HashMap<String, KnownFile>, ApiError> {
    let (mut known, mut after) = (HashMap::new(), String::new());
    loop {
        let page =
            place.project.reader.known_files(after.clone(), KNOWN_PAGE).await.map_err(stored)?;
        let Some(last) = page.last() else { return Ok(known) };
        after.clone_from(&last.path);
        known.extend(page.into_iter().map(|file| (file.path.clone(), file)));
    }
}

async fn save(
    place: Place<'_>,
    found: Vec<FoundFile>,
    author: Option<&Author>,
    is_quiet: bool,
) -> Result<RecordedFiles, ApiError> {
    let commands = &place.project.kept.files.commands;
    let whoever = author.cloned().unwrap_or_else(|| commands.author());
    let command = RecordFiles { is_quiet, ..place.change(found, whoever) };
    let recorded = place.commit(command, WriteContext::default()).await?.files;
    if author.is_none() {
        commands.note(&recorded);
    }
    Ok(recorded)
}

/// Whether the file system says the same of a file as when it was looked at last.
pub(crate) fn is_same(known: &KnownFile, seen: &Seen) -> bool {
    known.size == seen.size && known.facts.is_some() && known.facts == facts(seen)
}

/// What is to be remembered of a look; nothing where it tells nothing.
pub(super) fn facts(seen: &Seen) -> Option<DiskFacts> {
    let Seen { mtime_ns, ctime_ns, inode, is_fresh, .. } = *seen;
    (!is_fresh).then_some(DiskFacts { mtime_ns, ctime_ns, inode })
}

type Pending = Vec<(String, Option<KnownFile>)>;

/// How paths are found that may have changed, as many as fit into one transaction, and the paths that are left.
/// One that cannot be looked at stays as it is known.
fn found(
    workspace: &Workspace,
    mut pending: Pending,
) -> Result<(Vec<FoundFile>, Pending), WorkspaceError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while batch.len() < BATCH_FILES && bytes < BATCH_BYTES {
        let Some((path, known)) = pending.pop() else { break };
        match found_one(workspace, path, known.as_ref()) {
            Ok(None) => {}
            Ok(Some(file)) => {
                let content = file.content.as_ref().and_then(|content| content.bytes.as_ref());
                bytes += content.map_or(0, |bytes| bytes.len());
                batch.push(file);
            }
            Err(error @ (WorkspaceError::Cancelled | WorkspaceError::RootUnavailable { .. })) => {
                return Err(error);
            }
            Err(error) => tracing::warn!(%error, "a file could not be looked at"),
        }
    }
    Ok((batch, pending))
}

/// How one path is found; none where nothing is different for sure.
fn found_one(
    workspace: &Workspace,
    path: String,
    known: Option<&KnownFile>,
) -> Result<Option<FoundFile>, WorkspaceError> {
    let gone =
        |path| known.map(|_| FoundFile { path, content: None, from: None, is_written: false });
    let Some(seen) = workspace.look(&path)? else { return Ok(gone(path)) };
    if known.is_some_and(|known| is_same(known, &seen)) {
        return Ok(None);
    }
    let Some(content) = workspace.read_seen(&path, FILE_BYTES_MAX as u64)? else {
        return Ok(gone(path));
    };
    let seen = match &content.bytes {
        Some(_) => content.seen,
        None => settled(workspace, &path, content.seen)?,
    };
    let content = FoundContent {
        size: seen.size,
        hash: content.hash,
        bytes: content.bytes.map(Arc::from),
        mode: seen.mode,
        facts: facts(&seen),
    };
    Ok(Some(FoundFile { path, content: Some(content), from: None, is_written: false }))
}

/// A look at a large file that is not too soon after its last change to tell anything: there is no hash by which
/// the next look would see that it is the same still, and not the work of somebody else.
fn settled(workspace: &Workspace, path: &str, seen: Seen) -> Result<Seen, WorkspaceError> {
    let is_large = |seen: &Seen| seen.size > FILE_BYTES_MAX as u64;
    let mut last = seen;
    for wait in [Duration::ZERO, SETTLE] {
        if !last.is_fresh {
            break;
        }
        std::thread::sleep(wait);
        // What became of it otherwise is found by the next look.
        let Some(again) = workspace.look(path)?.filter(is_large) else { break };
        last = again;
    }
    Ok(last)
}
