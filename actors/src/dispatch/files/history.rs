//! What files were, and what differs.

use iris_protocol::{
    ApiError, ErrorCode, FileChange, FileDiff, FileDifference, FileVersionPage, FileVersions,
    RunDiff, RunDifference,
    limits::{FILE_BYTES_MAX, FILE_DIFF_LINES_BYTES_MAX},
};
use iris_workspace::{RelPath, WorkspaceError, compare, unified};

use super::{Done, Grant, done, internal, refused, stored};
use crate::Node;
use crate::dispatch::projects::page_size;
use crate::files::{OfRun, Place, difference_of_run};
use crate::project::ProjectHandle;

/// Checks a path and takes away what does not count in it.
fn plain(path: &str) -> Result<String, ApiError> {
    Ok(RelPath::file(path).map_err(refused)?.as_str().to_owned())
}

pub(in crate::dispatch) async fn versions(
    node: &Node,
    grant: &Grant,
    request: FileVersions,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let (path, limit) = (plain(&request.path)?, page_size(request.limit)?);
    let page: FileVersionPage =
        project.reader.file_versions(path, limit, request.cursor).await.map_err(stored)?;
    done(page)
}

/// What a version holds: nothing for one that is deleted, and for 0.
pub(super) async fn content_of(
    project: &ProjectHandle,
    path: &str,
    version: u64,
) -> Result<Option<Vec<u8>>, ApiError> {
    if version == 0 {
        return Ok(None);
    }
    let reader = &project.reader;
    let found = reader.file_version(path.to_owned(), version).await.map_err(stored)?;
    let found = found.ok_or_else(|| ApiError::not_found("version"))?;
    if found.version.change == FileChange::Deleted {
        return Ok(None);
    }
    let content = reader.file_content(path.to_owned(), version).await.map_err(stored)?;
    if content.is_none() {
        let message = format!("the content of version {version} is not kept");
        return Err(ApiError::new(ErrorCode::Conflict, message).reason("content_not_kept"));
    }
    Ok(content)
}

pub(in crate::dispatch) async fn diff(
    node: &Node,
    grant: &Grant,
    request: FileDiff,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let path = plain(&request.path)?;
    let newest = project.reader.newest_file_version(path.clone()).await.map_err(stored)?;
    let newest = newest.map_or(0, |newest| newest.version.version);
    let to = request.to;
    let from = request.from.unwrap_or(to.map_or(newest, |to| to.saturating_sub(1)));
    let old = content_of(&project, &path, from).await?;
    let new = match to {
        Some(to) => content_of(&project, &path, to).await?,
        None => on_disk(&project, path.clone()).await?,
    };
    if old.is_none() && new.is_none() && from == 0 {
        return Err(ApiError::not_found("file"));
    }
    let compared = tokio::task::spawn_blocking({
        let path = path.clone();
        move || {
            let (before, after) = (format!("a/{path}"), format!("b/{path}"));
            let nothing = || "/dev/null".to_owned();
            let before = if old.is_some() { before } else { nothing() };
            let after = if new.is_some() { after } else { nothing() };
            let compared = compare(&old.unwrap_or_default(), &new.unwrap_or_default())?;
            let text = unified(&before, &after, &compared.hunks);
            Some((compared, text))
        }
    });
    let compared = compared.await.map_err(internal)?;
    let binary = compared.is_none();
    let (coarse, insertions, deletions, hunks, unified) = match compared {
        Some((it, text)) => (it.is_coarse, it.insertions, it.deletions, it.hunks, text),
        None => (false, None, None, Vec::new(), String::new()),
    };
    done(FileDifference { path, from, to, binary, coarse, insertions, deletions, hunks, unified })
}

/// What stands on the disk; none where no file is.
async fn on_disk(project: &ProjectHandle, path: String) -> Result<Option<Vec<u8>>, ApiError> {
    let workspace = project.workspace.clone();
    let read = move || match workspace.read_bytes(&path, FILE_BYTES_MAX as u64) {
        Ok(file) => Ok(Some(file.bytes)),
        Err(WorkspaceError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    };
    tokio::task::spawn_blocking(read).await.map_err(internal)?.map_err(refused)
}

pub(in crate::dispatch) async fn run_diff(
    node: &Node,
    grant: &Grant,
    request: RunDiff,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let RunDiff { session_id, run_id } = request;
    let run = project.reader.run(run_id.clone()).await.map_err(stored)?;
    let run = run.filter(|run| run.session_id == session_id);
    run.ok_or_else(|| ApiError::not_found("run"))?;
    let place = Place { project: &project, services: &node.services };
    let found = difference_of_run(place, run_id.clone(), FILE_DIFF_LINES_BYTES_MAX).await?;
    let OfRun { files, is_cut: cut, unified, is_coarse: coarse } = found;
    done(RunDifference { session_id, run_id, files, cut, unified, coarse })
}
