//! Repositories of projects.

use iris_auth::PlainSecret;
use iris_protocol::{
    ApiError, Event, GitAction, GitCommit, GitCommitPayload, GitCredentialsSet, GitDiff, GitLog,
    GitPull, GitPush, GitSwitch, ProjectPayload, User,
};
use iris_store::WriteContext;
use iris_store::root::{BeginClone, EndClone, NoteGit, SetGitCredentials};
use serde::Serialize;
use serde_json::Value;

use super::projects::{page_size, project_of, publish};
use super::{Done, Grant, check_space, done, internal, stored};
use crate::git::{GIVEN_UP, Repository, begin_clone, seal, stop_clone};
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
    if let Some(first) = first_answer(node, &context).await? {
        return Ok(first);
    }
    let (by, project) = (caller(node, grant).await?, grant.project(node).await?);
    let head = Repository::open(node, &project).await?.switch(&by, request).await?;
    let (branch, commit) = (head.branch.clone(), head.commit.clone());
    answer(node, grant, (GitAction::Switched, branch, commit), head, context).await
}

pub(super) async fn commit(
    node: &Node,
    grant: &Grant,
    request: GitCommit,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(first) = first_answer(node, &context).await? {
        return Ok(first);
    }
    check_space(node)?;
    let (by, project) = (caller(node, grant).await?, grant.project(node).await?);
    let repository = Repository::open(node, &project).await?;
    let commit = repository.commit(&by, request).await?;
    let about = (GitAction::Committed, repository.current_branch().await?, Some(commit.id.clone()));
    answer(node, grant, about, GitCommitPayload { commit }, context).await
}

pub(super) async fn fetch(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(first) = first_answer(node, &context).await? {
        return Ok(first);
    }
    check_space(node)?;
    let project = grant.project(node).await?;
    let page = Repository::open(node, &project).await?.fetch().await?;
    answer(node, grant, (GitAction::Fetched, None, None), page, context).await
}

pub(super) async fn pull(
    node: &Node,
    grant: &Grant,
    request: GitPull,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(first) = first_answer(node, &context).await? {
        return Ok(first);
    }
    check_space(node)?;
    let (by, project) = (caller(node, grant).await?, grant.project(node).await?);
    let head = Repository::open(node, &project).await?.pull(&by, &request).await?;
    let (branch, commit) = (head.branch.clone(), head.commit.clone());
    answer(node, grant, (GitAction::Pulled, branch, commit), head, context).await
}

pub(super) async fn push(
    node: &Node,
    grant: &Grant,
    request: GitPush,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(first) = first_answer(node, &context).await? {
        return Ok(first);
    }
    let project = grant.project(node).await?;
    let head = Repository::open(node, &project).await?.push(request.branch).await?;
    let (branch, commit) = (head.branch.clone(), head.commit.clone());
    answer(node, grant, (GitAction::Pushed, branch, commit), head, context).await
}

/// Who does it.
async fn caller(node: &Node, grant: &Grant) -> Result<User, ApiError> {
    let user = node.root_reader.user(grant.user_id()?).await.map_err(stored)?;
    user.ok_or_else(|| ApiError::not_found("user"))
}

/// The answer to an earlier request with the same key: git must not work again.
async fn first_answer(node: &Node, context: &WriteContext) -> Result<Option<Done>, ApiError> {
    let Some(key) = context.idempotency.clone() else { return Ok(None) };
    let first = node.root_reader.recall::<NoteGit>(key).await.map_err(stored)?;
    first.map(|first| Ok(done(first.output)?.at(None, true))).transpose()
}

/// Notes what was done, tells the project, and answers.
async fn answer(
    node: &Node,
    grant: &Grant,
    (action, branch, commit): (GitAction, Option<String>, Option<String>),
    answer: impl Serialize,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (project_id, by) = (grant.project_id()?.clone(), grant.user_id()?.clone());
    let answer: Value = serde_json::to_value(answer).map_err(internal)?;
    let event =
        Event::GitChanged { project_id: project_id.clone(), action, branch, commit, error: None };
    let at = node.services.clock.now_ms();
    let command = NoteGit { project_id, event, answer, by, at };
    let noted = write(&node.root, command, context).await.map_err(stored)?;
    let seq = publish(node, grant, noted.replayed).await;
    Ok(done(noted.output)?.at(seq, noted.replayed))
}
