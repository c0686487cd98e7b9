//! What agents ask, the answers of people, and to-do lists.

use iris_protocol::{
    ApiError, QuestionAnswer, QuestionId, QuestionList, QuestionPayload, QuestionReject,
    QuestionState, SessionId, TodoList, TodoPage,
};
use iris_store::project::Reply;
use iris_store::{Committed, WriteContext};

use super::projects::page_size;
use super::sessions::in_session;
use super::{Done, Grant, check_description, done, stored};
use crate::Node;
use crate::session::Respond;

pub(super) async fn list(
    node: &Node,
    grant: &Grant,
    request: QuestionList,
) -> Result<Done, ApiError> {
    let limit = page_size(request.limit)?;
    let state = request.state.unwrap_or(QuestionState::Pending);
    let project = grant.project(node).await?;
    let page = project.reader.questions(request.session_id, state, limit, request.cursor).await;
    done(page.map_err(stored)?)
}

/// Whether the answers fit is for the session to say, which knows the questions.
pub(super) async fn answer(
    node: &Node,
    grant: &Grant,
    request: QuestionAnswer,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let QuestionAnswer { session_id, question_id, answers } = request;
    respond(node, grant, session_id, question_id, Reply::Answer(answers), context).await
}

pub(super) async fn reject(
    node: &Node,
    grant: &Grant,
    request: QuestionReject,
    context: WriteContext,
) -> Result<Done, ApiError> {
    check_description("reason", request.reason.as_deref())?;
    let QuestionReject { session_id, question_id, reason } = request;
    respond(node, grant, session_id, question_id, Reply::Reject { reason }, context).await
}

async fn respond(
    node: &Node,
    grant: &Grant,
    session_id: SessionId,
    question_id: QuestionId,
    reply: Reply,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let found = project.reader.session_of_question(session_id.clone(), question_id.clone()).await;
    // Of a sub-agent's question perhaps. What is wrong with one that is not there is for the command to say.
    let session_id = found.map_err(stored)?.unwrap_or(session_id);
    let by = Some(grant.user_id()?.clone());
    let respond = |_| Respond { question_id, reply, by, context };
    let Committed { output: question, seq, replayed } =
        in_session(node, grant, session_id, true, respond).await??;
    Ok(done(QuestionPayload { question })?.at(seq, replayed))
}

pub(super) async fn todos(node: &Node, grant: &Grant, request: TodoList) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let todos = project.reader.todos(request.session_id).await.map_err(stored)?;
    done(TodoPage { todos })
}
