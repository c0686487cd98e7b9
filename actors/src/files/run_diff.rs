//! What a run made of the files: one difference for all its calls.

use iris_protocol::limits::RUN_DIFF_FILES_MAX;
use iris_protocol::{ApiError, ChangedFile, FileChange, RunId};
use iris_store::WriteContext;
use iris_store::project::{Author, ChangedPath, FileAt, PublishRunDiff};

use super::{Place, stored};
use crate::record;

/// Files of which lines are compared; of more, only the paths are told.
pub(super) const COMPARED_FILES_MAX: usize = 100;
/// Contents of which lines are compared, in bytes.
const COMPARED_BYTES_MAX: u64 = 1024 * 1024;

/// The files that a run changed, and whether there are more.
pub(crate) async fn difference_of_run(
    place: Place<'_>,
    run_id: RunId,
) -> Result<(Vec<ChangedFile>, bool), ApiError> {
    let limit = RUN_DIFF_FILES_MAX + 1;
    let mut paths = place.project.reader.changed_by_run(run_id, limit).await.map_err(stored)?;
    let is_cut = paths.len() > RUN_DIFF_FILES_MAX;
    paths.truncate(RUN_DIFF_FILES_MAX);
    let compares = paths.len() <= COMPARED_FILES_MAX;
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        files.extend(changed_file(place, path, compares).await?);
    }
    Ok((files, is_cut))
}

/// How a file differs from before the run's first version of it to its last one; none where it is the same
/// again.
async fn changed_file(
    place: Place<'_>,
    changed: ChangedPath,
    compares: bool,
) -> Result<Option<ChangedFile>, ApiError> {
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
    let compares = compares && !forgotten;
    let (insertions, deletions) =
        lines(place, &path, before.as_ref(), after.as_ref(), compares).await?;
    Ok(Some(ChangedFile { path, change, insertions, deletions }))
}

/// How many lines the second of two versions of a path has more, and how many less; none where they are not
/// compared.
pub(super) async fn lines(
    place: Place<'_>,
    path: &str,
    before: Option<&FileAt>,
    after: Option<&FileAt>,
    compares: bool,
) -> Result<(Option<u64>, Option<u64>), ApiError> {
    let is_kept = |version: Option<&FileAt>| {
        version.is_none_or(|it| it.version.kept && it.version.size <= COMPARED_BYTES_MAX)
    };
    if !compares || !is_kept(before) || !is_kept(after) {
        return Ok((None, None));
    }
    let content = async |version: Option<&FileAt>| match version {
        Some(it) => {
            let read = place.project.reader.file_content(path.to_owned(), it.version.version).await;
            read.map(Option::unwrap_or_default).map_err(stored)
        }
        None => Ok(Vec::new()),
    };
    let (old, new) = (content(before).await?, content(after).await?);
    let found = place.blocking(move |_| Ok(iris_workspace::compare(&old, &new))).await?;
    Ok(found.map_or((None, None), |it| (it.insertions, it.deletions)))
}

/// Tells the session what its run made of the files so far.
pub(crate) async fn tell_difference(place: Place<'_>, author: &Author) {
    let (Some(run_id), Some(session_id)) = (author.run_id.clone(), author.session_id.clone())
    else {
        return;
    };
    let told = async {
        let (files, cut) = difference_of_run(place, run_id.clone()).await?;
        let (by, at) = (author.by.clone(), place.now());
        let command = PublishRunDiff { session_id, run_id, files, cut, by, at };
        let published = record(&place.project.address, command, WriteContext::default());
        published.await.map_err(stored)
    };
    if let Err(error) = told.await {
        tracing::warn!(%error, "what a run made of the files could not be told");
    }
}
