//! The people of the session, as a call reaches them that runs: what it asks is recorded, and answered like
//! any question.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use iris_protocol::{
    MessageId, Question, QuestionId, QuestionItem, QuestionState, RunId, ToolCallId,
};
use iris_store::WriteContext;
use iris_store::project::{AskDuringCall, NewQuestion, Reply, ResolveQuestion};
use iris_tools::{People, PeopleReply};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Assignment;
use crate::record;
use crate::session::{Respond, Session, SessionPlace};
use crate::supervision::Address;

/// Who waits for the answer to which question.
pub(super) type Asked = Arc<Mutex<HashMap<QuestionId, oneshot::Sender<PeopleReply>>>>;

/// The people of the session in which a call runs.
pub(super) struct CallPeople {
    place: SessionPlace,
    session: Address<Session>,
    run_id: RunId,
    message_id: MessageId,
    tool_call_id: ToolCallId,
    asked: Asked,
}

impl CallPeople {
    pub(super) fn of(assignment: &Assignment, tool_call_id: &ToolCallId, asked: &Asked) -> Self {
        Self {
            place: assignment.place.clone(),
            session: assignment.session.clone(),
            run_id: assignment.run.id.clone(),
            message_id: assignment.answer_id.clone(),
            tool_call_id: tool_call_id.clone(),
            asked: Arc::clone(asked),
        }
    }
}

impl People for CallPeople {
    fn ask(&self, questions: Vec<QuestionItem>) -> BoxFuture<'static, PeopleReply> {
        let services = &self.place.services;
        let (limit, at) = (services.settings.approval_timeout, services.clock.now_ms());
        let wait = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
        let id = QuestionId::from_bits(services.ids.next_bits());
        let command = AskDuringCall {
            session_id: self.place.id.clone(),
            run_id: self.run_id.clone(),
            message_id: self.message_id.clone(),
            question: NewQuestion {
                id: id.clone(),
                tool_call_id: self.tool_call_id.clone(),
                questions,
                expires_at: at.saturating_add(wait),
            },
            at,
        };
        let (answer, answered) = oneshot::channel();
        self.asked.lock().insert(id.clone(), answer);
        let open = OpenQuestion {
            place: self.place.clone(),
            id,
            asked: Arc::clone(&self.asked),
            is_open: true,
        };
        let recorded = record(&self.place.project.address, command, WriteContext::default());
        let session = self.session.clone();
        Box::pin(async move {
            if let Err(error) = recorded.await {
                tracing::warn!(session.id = %open.place.id, %error, "a call could not ask people");
                return PeopleReply::Nobody;
            }
            open.answered(limit, answered, session).await
        })
    }
}

/// A question that nobody answered yet. Dropped so, it is taken back.
struct OpenQuestion {
    place: SessionPlace,
    id: QuestionId,
    asked: Asked,
    is_open: bool,
}

impl OpenQuestion {
    async fn answered(
        mut self,
        limit: Duration,
        answered: oneshot::Receiver<PeopleReply>,
        session: Address<Session>,
    ) -> PeopleReply {
        let reply = timeout(limit, answered).await;
        if let Ok(Ok(reply)) = reply {
            self.is_open = false;
            return reply;
        }
        let (question_id, by, context) = (self.id.clone(), None, WriteContext::default());
        let expired =
            session.urge(Respond { question_id, reply: Reply::Expire, by, context }).await;
        self.is_open = !matches!(expired, Ok(Ok(_)));
        PeopleReply::Nobody
    }
}

impl Drop for OpenQuestion {
    fn drop(&mut self) {
        self.asked.lock().remove(&self.id);
        if !self.is_open {
            return;
        }
        let command = ResolveQuestion {
            session_id: self.place.id.clone(),
            question_id: self.id.clone(),
            reply: Reply::Withdraw,
            by: None,
            at: self.place.services.clock.now_ms(),
        };
        // It is on its way when this returns. One that was answered meanwhile stays answered.
        drop(record(&self.place.project.address, command, WriteContext::default()));
    }
}

/// Passes on what became of a question to the call that asked it while it ran. Gives the question back where
/// none did.
pub(super) fn pass_on(asked: &Asked, question: Question) -> Option<Question> {
    let Some(answer) = asked.lock().remove(&question.id) else { return Some(question) };
    let reply = match (question.state, question.answers) {
        (QuestionState::Answered, Some(answers)) => PeopleReply::Answers(answers),
        (QuestionState::Rejected, _) => PeopleReply::Refused,
        (
            QuestionState::Pending
            | QuestionState::Answered
            | QuestionState::Expired
            | QuestionState::Cancelled,
            _,
        ) => PeopleReply::Nobody,
    };
    // The call may have ended meanwhile.
    drop(answer.send(reply));
    None
}
