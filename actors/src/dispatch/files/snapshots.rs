//! Keeping the files as they are, and going back.

use iris_protocol::{
    ApiError, FileSource, FilesRestored, SnapshotDiff, SnapshotDifference, SnapshotList,
    SnapshotPayload, SnapshotRestore,
};
use iris_store::WriteContext;
use iris_store::project::{Author, CreateSnapshot, RecordedFiles};

use super::{Done, Grant, done, stored};
use crate::Node;
use crate::dispatch::projects::page_size;
use crate::files::{By, Place, difference, restore_snapshot, snapshot};

pub(in crate::dispatch) async fn create(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    if let Some(key) = context.idempotency.clone()
        && let Some(first) = project.reader.recall::<CreateSnapshot>(key).await.map_err(stored)?
    {
        return Ok(done(SnapshotPayload { snapshot: first.output })?.at(first.seq, true));
    }
    let place = Place { project: &project, services: &node.services };
    let author = Author::user(grant.user_id()?.clone(), FileSource::Api);
    let (snapshot, seq, replayed) = snapshot(place, &author, context).await?;
    Ok(done(SnapshotPayload { snapshot })?.at(seq, replayed))
}

pub(in crate::dispatch) async fn list(
    node: &Node,
    grant: &Grant,
    request: SnapshotList,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let limit = page_size(request.limit)?;
    done(project.reader.snapshots(limit, request.cursor).await.map_err(stored)?)
}

pub(in crate::dispatch) async fn diff(
    node: &Node,
    grant: &Grant,
    request: SnapshotDiff,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let place = Place { project: &project, services: &node.services };
    let (files, cut) = difference(place, request.snapshot_id, request.to).await?;
    done(SnapshotDifference { files, cut })
}

pub(in crate::dispatch) async fn restore(
    node: &Node,
    grant: &Grant,
    request: SnapshotRestore,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let place = Place { project: &project, services: &node.services };
    let by = By { user: grant.user_id()?.clone(), context };
    let SnapshotRestore { snapshot_id, skip_unkept } = request;
    let skip_unkept = skip_unkept.unwrap_or(false);
    let restored = restore_snapshot(place, by, snapshot_id, skip_unkept).await?;
    let RecordedFiles { versions, count, skipped, .. } = restored.files;
    Ok(done(FilesRestored { versions, count, skipped })?.at(restored.seq, restored.replayed))
}
