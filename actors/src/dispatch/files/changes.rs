//! Changing files by operations.

use iris_protocol::ConnectionId;
use iris_protocol::{
    ApiError, ErrorCode, File, FileDelete, FileEdit, FileLockPage, FileLockPayload, FileLockTake,
    FileMove, FilePayload, FileRestore, FileUnlock, FilesChanged, LockScope, Role,
    limits::{FILE_LOCK_MS_DEFAULT, FILE_LOCK_MS_MAX},
};
use iris_store::WriteContext;
use iris_store::project::{ReleaseLock, TakeLock, file_of};
use iris_workspace::RelPath;

use super::{Done, Grant, done, refused, stored};
use crate::files::{self, By, Delete, Edit, Move, Place, Recorded, Restore};
use crate::project::{IsPresent, ProjectHandle};
use crate::supervision::AskError;
use crate::{Node, write as commit};

fn by(grant: &Grant, context: WriteContext) -> Result<By, ApiError> {
    Ok(By { user: grant.user_id()?.clone(), context })
}

/// The one file that was changed.
pub(super) fn one(recorded: &Recorded) -> Result<File, ApiError> {
    let version = recorded.files.versions.first();
    version.map(file_of).ok_or_else(|| ApiError::not_found("file"))
}

fn all(recorded: Recorded) -> Result<Done, ApiError> {
    let Recorded { files, seq, replayed } = recorded;
    let changed = FilesChanged { versions: files.versions, count: files.count };
    Ok(done(changed)?.at(seq, replayed))
}

pub(in crate::dispatch) async fn edit(
    node: &Node,
    grant: &Grant,
    request: FileEdit,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let place = Place { project: &project, services: &node.services };
    let FileEdit { path, old_string, new_string, replace_all, version } = request;
    let all = replace_all.unwrap_or(false);
    let edit = Edit { path, old: old_string, new: new_string, all, version };
    let recorded = files::edit(place, by(grant, context)?, edit).await?;
    Ok(done(FilePayload { file: one(&recorded)? })?.at(recorded.seq, recorded.replayed))
}

pub(in crate::dispatch) async fn move_to(
    node: &Node,
    grant: &Grant,
    request: FileMove,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let place = Place { project: &project, services: &node.services };
    let FileMove { from, to, overwrite, version } = request;
    let overwrite = overwrite.unwrap_or(false);
    all(files::move_to(place, by(grant, context)?, Move { from, to, overwrite, version }).await?)
}

pub(in crate::dispatch) async fn delete(
    node: &Node,
    grant: &Grant,
    request: FileDelete,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let place = Place { project: &project, services: &node.services };
    let FileDelete { path, recursive, unversioned, version } = request;
    let (recursive, unversioned) = (recursive.unwrap_or(false), unversioned.unwrap_or(false));
    let delete = Delete { path, recursive, unversioned, version };
    all(files::delete(place, by(grant, context)?, delete).await?)
}

pub(in crate::dispatch) async fn restore(
    node: &Node,
    grant: &Grant,
    request: FileRestore,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let place = Place { project: &project, services: &node.services };
    let FileRestore { path, to, version } = request;
    let recorded =
        files::restore(place, by(grant, context)?, Restore { path, to, version }).await?;
    Ok(done(FilePayload { file: one(&recorded)? })?.at(recorded.seq, recorded.replayed))
}

/// Whether the caller is an administrator of the project.
async fn is_admin(node: &Node, grant: &Grant) -> Result<bool, ApiError> {
    let role = node.root_reader.role(grant.user_id()?, grant.project_id()?).await;
    Ok(role.map_err(stored)?.is_some_and(|role| role >= Role::Admin))
}

/// Whether the user is there, so that it is noticed when they are not any more.
async fn is_present(project: &ProjectHandle, grant: &Grant) -> Result<bool, ApiError> {
    let ask = IsPresent { user_id: grant.user_id()?.clone() };
    project.address.ask(ask).await.map_err(AskError::to_api)
}

pub(in crate::dispatch) async fn lock(
    node: &Node,
    grant: &Grant,
    request: FileLockTake,
    connection_id: Option<ConnectionId>,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let FileLockTake { path, scope, ttl_ms, take_over } = request;
    let (path, scope) = (locked_path(&path)?, scope.unwrap_or_default());
    if path == "." && scope == LockScope::File {
        let message = "the project's directory can be locked as a subtree alone";
        return Err(ApiError::invalid(message).reason("invalid_path"));
    }
    let ttl_ms = ttl_ms.unwrap_or(FILE_LOCK_MS_DEFAULT);
    if !(1..=FILE_LOCK_MS_MAX).contains(&ttl_ms) {
        return Err(ApiError::invalid(format!("`ttlMs` must be 1 to {FILE_LOCK_MS_MAX}")));
    }
    let takes_over = take_over.unwrap_or(false);
    if takes_over && !is_admin(node, grant).await? {
        let message = "only administrators of the project take locks from others";
        return Err(ApiError::new(ErrorCode::Forbidden, message).reason("not_admin"));
    }
    let at = node.services.clock.now_ms();
    let command = TakeLock {
        path,
        scope,
        owner_id: grant.user_id()?.clone(),
        while_connected: connection_id.is_some() && is_present(&project, grant).await?,
        takes_over,
        expires_at: at.saturating_add(i64::try_from(ttl_ms).unwrap_or(i64::MAX)),
        at,
    };
    let taken = commit(&project.address, command, context).await.map_err(stored)?;
    Ok(done(FileLockPayload { lock: taken.output })?.at(taken.seq, taken.replayed))
}

fn locked_path(path: &str) -> Result<String, ApiError> {
    Ok(RelPath::dir(path).map_err(refused)?.as_str().to_owned())
}

pub(in crate::dispatch) async fn unlock(
    node: &Node,
    grant: &Grant,
    request: FileUnlock,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let (path, user) = (locked_path(&request.path)?, grant.user_id()?.clone());
    let (of_others, at) = (is_admin(node, grant).await?, node.services.clock.now_ms());
    let command = ReleaseLock { path, by: user, of_others, at };
    let released = commit(&project.address, command, context).await.map_err(|error| {
        if matches!(error, iris_store::StoreError::Locked { .. }) {
            let message = "the lock is somebody else's";
            return ApiError::new(ErrorCode::Forbidden, message).reason("not_owner");
        }
        stored(error)
    })?;
    Ok(done(iris_protocol::Done { done: true })?.at(released.seq, released.replayed))
}

pub(in crate::dispatch) async fn locks(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let mut locks = project.reader.file_locks().await.map_err(stored)?;
    let now = node.services.clock.now_ms();
    locks.retain(|lock| lock.expires_at > now);
    done(FileLockPage { locks })
}
