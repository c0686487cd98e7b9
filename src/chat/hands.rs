//! What a chat asks of the server, one thing after the other and beside what is heard. What changes
//! something is done once, also when the connection is lost meanwhile.

use iris_client::{Caller, ClientError};
use iris_protocol::{
    Approval, Content, MessageId, MessageRetry, MessageSend, Question, QuestionAnswer,
    QuestionReject, Remember, RunCancel, RunId, Session, SessionGet, SessionId, SessionList,
    SessionSnapshot, SessionUpdate, ToolApprove, ToolReject,
};
use tokio::sync::mpsc;

/// Sessions that are listed.
const SESSIONS_MAX: u32 = 50;

/// Something to do.
#[derive(Debug)]
pub(super) enum Act {
    Send(String),
    Cancel,
    Retry(MessageId),
    Approve(Box<Approval>, Remember),
    Reject(Box<Approval>, Option<String>),
    Answer(Box<Question>, Vec<Vec<String>>),
    Refuse(Box<Question>, Option<String>),
    Rename(String),
    List,
    Read,
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    /// The message was taken: this run answers it, or waits to.
    Sent {
        run: RunId,
        queued: bool,
    },
    /// Nothing is to be said of it: an event tells.
    Well,
    /// There was no run to cancel.
    NothingToCancel,
    Sessions(Vec<Session>),
    Session(Box<SessionSnapshot>),
    /// It was not done.
    Failed(Act, ClientError),
}

/// Does what it is told until nobody tells it any more.
pub(super) async fn work(
    caller: Caller,
    session: SessionId,
    mut acts: mpsc::Receiver<Act>,
    done: mpsc::Sender<Done>,
) {
    while let Some(act) = acts.recv().await {
        let outcome = perform(&caller, &session, &act).await;
        let outcome = outcome.unwrap_or_else(|error| Done::Failed(act, error));
        if done.send(outcome).await.is_err() {
            return;
        }
    }
}

/// Does one thing.
pub(super) async fn perform(
    caller: &Caller,
    session: &SessionId,
    act: &Act,
) -> Result<Done, ClientError> {
    let session_id = session.clone();
    match act {
        Act::Send(text) => {
            let content = Content::Text(text.clone());
            let request =
                MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
            let accepted = caller.call_once(request).await?.payload;
            return Ok(Done::Sent { run: accepted.run_id, queued: accepted.queued });
        }
        Act::Cancel => {
            let cancelled = caller.call_once(RunCancel { session_id }).await?.payload.cancelled;
            return Ok(if cancelled { Done::Well } else { Done::NothingToCancel });
        }
        Act::Retry(message) => {
            let request = MessageRetry { session_id, message_id: message.clone() };
            let accepted = caller.call_once(request).await?.payload;
            return Ok(Done::Sent { run: accepted.run_id, queued: accepted.queued });
        }
        Act::Approve(approval, remember) => {
            // For what was shown, and nothing else.
            let shown = Some(approval.input_hash.clone()).filter(|hash| !hash.is_empty());
            let request = ToolApprove {
                session_id,
                tool_call_id: approval.tool_call_id.clone(),
                remember: Some(*remember),
                input_hash: shown,
                input: None,
            };
            caller.call_once(request).await?;
        }
        Act::Reject(approval, reason) => {
            let (tool_call_id, reason) = (approval.tool_call_id.clone(), reason.clone());
            caller.call_once(ToolReject { session_id, tool_call_id, reason }).await?;
        }
        Act::Answer(question, answers) => {
            let (question_id, answers) = (question.id.clone(), answers.clone());
            caller.call_once(QuestionAnswer { session_id, question_id, answers }).await?;
        }
        Act::Refuse(question, reason) => {
            let (question_id, reason) = (question.id.clone(), reason.clone());
            caller.call_once(QuestionReject { session_id, question_id, reason }).await?;
        }
        Act::Rename(title) => {
            let request = SessionUpdate {
                session_id,
                title: Some(title.clone()),
                agent: None,
                model: None,
                mode: None,
            };
            caller.call_once(request).await?;
        }
        Act::List => {
            let request = SessionList {
                limit: Some(SESSIONS_MAX),
                cursor: None,
                include_archived: None,
                parent_id: None,
            };
            return Ok(Done::Sessions(caller.call(request).await?.payload.sessions));
        }
        Act::Read => {
            let request = SessionGet { session_id, limit: None, before: None };
            return Ok(Done::Session(Box::new(caller.call(request).await?.payload)));
        }
    }
    Ok(Done::Well)
}
