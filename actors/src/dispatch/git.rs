//! Repositories of projects.

use iris_auth::PlainSecret;
use iris_protocol::{
    ApiError, GitAction, GitCommit, GitCredentialsSet, GitDiff, GitLog, GitPull, GitPush,
    GitSwitch, ProjectPayload,
};
use iris_store::WriteContext;
use iris_store::root::{BeginClone, EndClone, GitPart, NoteGit, SetGitCredentials};
use serde::Serialize;

use super::projects::{page_size, project_of, publish};
use super::{Done, Grant, check_space, done, stored};
use crate::git::{Doing, GIVEN_UP, Repository, Worked, begin_clone, note, seal, stop_clone};
use crate::{Node, record, write};

pub(super) async fn clone_again(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_space(node)?;
    let (project_id, by) = (grant.project_id()?.clone(), grant.user_id()?.clone());
    let at = node.services.clock.now_ms();
    let command = BeginClone { project_id: project_id.clone(), by, at };
    let begun = write(&node.root, command, context).await.map_err(stored)?;
    if !begun.replayed {
        begin_clone(node, &project_id);
    }
    let seq = publish(node, grant, begun.replayed).await;
    Ok(done(ProjectPayload { project: begun.output })?.at(seq, begun.replayed))
}

/// What is not under way cannot be given up, and need not be.
pub(super) async fn cancel(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let id = grant.project_id()?;
    stop_clone(node, id).await;
    // Its end may not have been written: then nobody works on what is still called a clone under way.
    let (error, at) = (Some(GIVEN_UP.to_owned()), node.services.clock.now_ms());
    let end = EndClone { project_id: id.clone(), error, at };
    record(&node.root, end, WriteContext::default()).await.map_err(stored)?;
    publish(node, grant, false).await;
    done(ProjectPayload { project: project_of(node, grant.user_id()?, id).await? })
}

pub(super) async fn set_credentials(
    node: &Node,
    grant: &Grant,
    request: GitCredentialsSet,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (project_id, by) = (grant.project_id()?.clone(), grant.user_id()?.clone());
    let token = request.token.map(|token| PlainSecret::new(token.expose().to_owned()));
    let username = request.username;
    let sealed = seal(&node.services, &project_id, username.as_deref(), token.as_ref())?;
    let at = node.services.clock.now_ms();
    let command = SetGitCredentials { project_id, username, sealed, by, at };
    let set = write(&node.root, command, context).await.map_err(stored)?;
    let seq = publish(node, grant, set.replayed).await;
    Ok(done(ProjectPayload { project: set.output })?.at(seq, set.replayed))
}

pub(super) async fn status(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    done(Repository::open(node, &project).await?.status().await?)
}

pub(super) async fn diff(node: &Node, grant: &Grant, request: GitDiff) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    done(Repository::open(node, &project).await?.diff(request).await?)
}

pub(super) async fn log(node: &Node, grant: &Grant, request: GitLog) -> Result<Done, ApiError> {
    let limit = page_size(request.limit)?;
    let project = grant.project(node).await?;
    done(Repository::open(node, &project).await?.log(request, limit).await?)
}

pub(super) async fn branches(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    done(Repository::open(node, &project).await?.branches().await?)
}

pub(super) async fn switch(
    node: &Node,
    grant: &Grant,
    request: GitSwitch,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let switch =
        async |repository: &Repository<'_>, doing: &Doing| repository.switch(doing, request).await;
    changed(node, grant, context, GitAction::Switched, switch).await
}

pub(super) async fn commit(
    node: &Node,
    grant: &Grant,
    request: GitCommit,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let commit = async |repository: &Repository<'_>, doing: &Doing| {
        check_space(node)?;
        repository.commit(doing, request).await
    };
    changed(node, grant, context, GitAction::Committed, commit).await
}

pub(super) async fn fetch(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let fetch = async |repository: &Repository<'_>, doing: &Doing| {
        check_space(node)?;
        repository.fetch(doing).await
    };
    changed(node, grant, context, GitAction::Fetched, fetch).await
}

pub(super) async fn pull(
    node: &Node,
    grant: &Grant,
    request: GitPull,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let pull = async |repository: &Repository<'_>, doing: &Doing| {
        check_space(node)?;
        repository.pull(doing, &request).await
    };
    changed(node, grant, context, GitAction::Pulled, pull).await
}

pub(super) async fn push(
    node: &Node,
    grant: &Grant,
    request: GitPush,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let push = async |repository: &Repository<'_>, doing: &Doing| {
        repository.push(doing, request.branch).await
    };
    changed(node, grant, context, GitAction::Pushed, push).await
}

/// Changes a repository once for each key: what a crash cut off is settled before, notes what was done, tells the
/// project, and answers.
async fn changed<T: Serialize>(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
    action: GitAction,
    change: impl AsyncFnOnce(&Repository<'_>, &Doing) -> Result<Worked<T>, ApiError>,
) -> Result<Done, ApiError> {
    if let Some(first) = first_answer(node, &context).await? {
        return Ok(first);
    }
    let user = node.root_reader.user(grant.user_id()?).await.map_err(stored)?;
    let by = user.ok_or_else(|| ApiError::not_found("user"))?;
    let project = grant.project(node).await?;
    let repository = Repository::open(node, &project).await?;
    // Those that change no files need not wait for who does.
    let parts: &[GitPart] = if matches!(action, GitAction::Fetched | GitAction::Pushed) {
        &[GitPart::Branches]
    } else {
        &[GitPart::Branches, GitPart::Files]
    };
    repository.settle(parts).await?;
    // Perhaps it is this very request that was cut off, whoever settled it.
    if let Some(first) = first_answer(node, &context).await? {
        return Ok(first);
    }
    let doing = Doing { by, key: context.idempotency.clone() };
    let worked = match change(&repository, &doing).await {
        Ok(worked) => worked,
        // Perhaps it was done under the same key while this one waited, or was cut off and settled.
        Err(error) => return first_answer(node, &context).await?.ok_or(error),
    };
    let command =
        note(grant.project_id()?, action, &doing.by, &worked, node.services.clock.now_ms())?;
    let noted = write(&node.root, command, context).await.map_err(stored)?;
    let seq = publish(node, grant, noted.replayed).await;
    Ok(done(noted.output)?.at(seq, noted.replayed))
}

/// The answer to an earlier request with the same key: git must not work again.
async fn first_answer(node: &Node, context: &WriteContext) -> Result<Option<Done>, ApiError> {
    let Some(key) = context.idempotency.clone() else { return Ok(None) };
    let first = node.root_reader.recall::<NoteGit>(key).await.map_err(stored)?;
    first.map(|first| Ok(done(first.output)?.at(None, true))).transpose()
}
