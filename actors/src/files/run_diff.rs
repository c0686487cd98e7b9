//! What a run made of the files: one difference for all its calls.

use iris_protocol::limits::RUN_DIFF_FILES_MAX;
use iris_protocol::{ApiError, ChangedFile, DiffHunk, FileChange, RunId};
use iris_store::WriteContext;
use iris_store::project::{Author, ChangedPath, FileAt, PublishRunDiff};
use iris_workspace::Difference;

use super::{Place, stored};
use crate::record;

/// Files of which lines are compared; of more, only the paths are told.
pub(super) const COMPARED_FILES_MAX: usize = 100;
/// Contents of which lines are compared, in bytes.
const COMPARED_BYTES_MAX: u64 = 1024 * 1024;

/// What a run made of the files.
pub(crate) struct OfRun {
    pub(crate) files: Vec<ChangedFile>,
    /// Whether there are more.
    pub(crate) is_cut: bool,
    pub(crate) unified: String,
    /// Whether the text does not have all of it.
    pub(crate) is_coarse: bool,
}

/// The files that a run changed, with at most so many bytes of text.
pub(crate) async fn difference_of_run(
    place: Place<'_>,
    run_id: RunId,
    text_max: usize,
) -> Result<OfRun, ApiError> {
    let limit = RUN_DIFF_FILES_MAX + 1;
    let mut paths = place.project.reader.changed_by_run(run_id, limit).await.map_err(stored)?;
    let is_cut = paths.len() > RUN_DIFF_FILES_MAX;
    paths.truncate(RUN_DIFF_FILES_MAX);
    let wants_lines = paths.len() <= COMPARED_FILES_MAX;
    let files = Vec::with_capacity(paths.len());
    let mut found = OfRun { files, is_cut, unified: String::new(), is_coarse: is_cut };
    for path in paths {
        let Some((file, compared)) = changed_file(place, path, wants_lines).await? else {
            continue;
        };
        found.add(file, compared.as_ref(), text_max);
    }
    Ok(found)
}

impl OfRun {
    fn add(&mut self, file: ChangedFile, compared: Option<&Difference>, text_max: usize) {
        // Nobody reads what is beyond the end.
        let has_room = self.unified.len() < text_max;
        let text = compared.filter(|_| has_room).map(|it| headed(&file, &it.hunks));
        match text {
            Some(text) if self.unified.len() + text.len() <= text_max => {
                self.unified.push_str(&text);
                self.is_coarse |= compared.is_some_and(|it| it.is_coarse);
            }
            Some(_) | None => self.is_coarse = true,
        }
        self.files.push(file);
    }
}

/// What became of the lines of a file, as a unified diff.
fn headed(file: &ChangedFile, hunks: &[DiffHunk]) -> String {
    let nothing = || "/dev/null".to_owned();
    let (mut before, mut after) = (format!("a/{}", file.path), format!("b/{}", file.path));
    match file.change {
        FileChange::Created => before = nothing(),
        FileChange::Deleted => after = nothing(),
        FileChange::Updated | FileChange::Moved => {}
    }
    iris_workspace::unified(&before, &after, hunks)
}

/// How a file differs from before the run's first version of it to its last one; none where it is the same
/// again.
async fn changed_file(
    place: Place<'_>,
    changed: ChangedPath,
    wants_lines: bool,
) -> Result<Option<(ChangedFile, Option<Difference>)>, ApiError> {
    let reader = &place.project.reader;
    let ChangedPath { path, first, last } = changed;
    let before = match first.checked_sub(1).filter(|version| *version > 0) {
        Some(version) => reader.file_version(path.clone(), version).await.map_err(stored)?,
        None => None,
    };
    let after = reader.file_version(path.clone(), last).await.map_err(stored)?;
    let is_there = |version: &FileAt| version.version.change != FileChange::Deleted;
    // What came before is there also where it is not kept any more: then it was updated.
    let forgotten = first > 1 && before.is_none();
    let (before, after) = (before.filter(is_there), after.filter(is_there));
    let was = before.is_some() || forgotten;
    let Some(change) = ChangedPath::change(was, after.is_some()) else { return Ok(None) };
    if let (Some(before), Some(after)) = (&before, &after)
        && before.version.hash == after.version.hash
        && !after.version.hash.is_empty()
    {
        return Ok(None);
    }
    let wants_lines = wants_lines && !forgotten;
    let compared = compared(place, &path, before.as_ref(), after.as_ref(), wants_lines).await?;
    let (insertions, deletions) = counts(compared.as_ref());
    let (from, to) = (Some(first.saturating_sub(1)), Some(last));
    Ok(Some((ChangedFile { path, change, from, to, insertions, deletions }, compared)))
}

/// The number of a version; 0 where there was none yet.
pub(super) fn version_of(version: Option<&FileAt>) -> u64 {
    version.map_or(0, |it| it.version.version)
}

/// How many lines the later text has more, and how many less; none where they are not compared.
pub(super) fn counts(compared: Option<&Difference>) -> (Option<u64>, Option<u64>) {
    compared.map_or((None, None), |it| (it.insertions, it.deletions))
}

/// How the second of two versions of a path differs from the first; none where they are not compared.
pub(super) async fn compared(
    place: Place<'_>,
    path: &str,
    before: Option<&FileAt>,
    after: Option<&FileAt>,
    wants_lines: bool,
) -> Result<Option<Difference>, ApiError> {
    let is_kept = |version: Option<&FileAt>| {
        version.is_none_or(|it| it.version.kept && it.version.size <= COMPARED_BYTES_MAX)
    };
    if !wants_lines || !is_kept(before) || !is_kept(after) {
        return Ok(None);
    }
    let content = async |version: Option<&FileAt>| match version {
        Some(it) => {
            let read = place.project.reader.file_content(path.to_owned(), it.version.version).await;
            read.map(Option::unwrap_or_default).map_err(stored)
        }
        None => Ok(Vec::new()),
    };
    let (old, new) = (content(before).await?, content(after).await?);
    place.blocking(move |_| Ok(iris_workspace::compare(&old, &new))).await
}

/// Tells the session what its run made of the files so far.
pub(crate) async fn tell_difference(place: Place<'_>, author: &Author) {
    let (Some(run_id), Some(session_id)) = (author.run_id.clone(), author.session_id.clone())
    else {
        return;
    };
    let told = async {
        let OfRun { files, is_cut: cut, .. } = difference_of_run(place, run_id.clone(), 0).await?;
        let (by, at) = (author.by.clone(), place.now());
        let command = PublishRunDiff { session_id, run_id, files, cut, by, at };
        let published = record(&place.project.address, command, WriteContext::default());
        published.await.map_err(stored)
    };
    if let Err(error) = told.await {
        tracing::warn!(%error, "what a run made of the files could not be told");
    }
}
