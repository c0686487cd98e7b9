//! Another answer to a question, or another question: what was there is superseded, and a run begins.

use actix::prelude::*;
use iris_protocol::{
    AnswerFormatPart, ApiError, MessageAccepted, MessageId, PartId, RunId,
    Session as SessionResource, UserId,
};
use iris_store::project::{AcceptedMessage, EditMessage, RetryMessage};
use iris_store::{Command, Committed, WriteContext};

use super::attaching::{Attached, attach};
use super::{Session, SessionPlace, accepted_message, answerer, repeated};
use crate::supervision::current_request;
use crate::write;

/// Ask: has a message answered again or, with a text, another one in its place.
#[derive(Message)]
#[rtype(result = "Result<Committed<MessageAccepted>, ApiError>")]
pub(crate) struct Rewrite {
    pub(crate) session: SessionResource,
    pub(crate) message_id: MessageId,
    /// What is said in place of the message.
    pub(crate) said: Option<Said>,
    pub(crate) by: UserId,
    pub(crate) context: WriteContext,
}

/// What a user says.
pub(crate) struct Said {
    pub(crate) text: String,
    /// What the answer has to look like.
    pub(crate) answer_format: Option<AnswerFormatPart>,
    /// What goes with it.
    pub(crate) attachments: Vec<Attached>,
}

impl Handler<Rewrite> for Session {
    type Result = ResponseActFuture<Self, Result<Committed<MessageAccepted>, ApiError>>;

    fn handle(&mut self, rewrite: Rewrite, _: &mut Context<Self>) -> Self::Result {
        self.asked += 1;
        self.was_used = true;
        let run_id = RunId::from_bits(self.place.services.ids.next_bits());
        // Before the commit: the run may begin at once after it.
        if let Some(request) = current_request() {
            self.requests.insert(run_id.clone(), request);
        }
        let rewritten = rewritten(self.place.clone(), run_id.clone(), rewrite);
        Box::pin(rewritten.into_actor(self).map(move |rewritten, session, ctx| {
            if matches!(&rewritten, Ok(Committed { replayed: false, .. })) {
                // Instructions may stand in what is superseded now.
                session.told.forget();
            } else {
                session.requests.remove(&run_id);
            }
            session.answered(rewritten.is_ok(), ctx);
            rewritten.map(accepted_message)
        }))
    }
}

async fn rewritten(
    place: SessionPlace,
    run_id: RunId,
    rewrite: Rewrite,
) -> Result<Committed<AcceptedMessage>, ApiError> {
    let Rewrite { session, message_id, said, by, context } = rewrite;
    let (session_id, quotas) = (place.id.clone(), place.services.settings.quotas);
    let at = place.services.clock.now_ms();
    let Some(Said { text, answer_format, attachments }) = said else {
        let command = RetryMessage { session_id, message_id, run_id, by, quotas, at };
        if let Err(error) = answerer(&place, &session).await {
            return repeated::<RetryMessage>(&place, context, error).await;
        }
        return begun(&place, command, context).await;
    };
    let attachments = match attach(&place, &session, attachments).await {
        Ok(attachments) => attachments,
        Err(error) => return repeated::<EditMessage>(&place, context, error).await,
    };
    let ids = &place.services.ids;
    let (new_id, part_id) =
        (MessageId::from_bits(ids.next_bits()), PartId::from_bits(ids.next_bits()));
    let command = EditMessage {
        session_id,
        message_id,
        new_id,
        part_id,
        run_id,
        text,
        answer_format,
        attachments,
        by,
        quotas,
        at,
    };
    begun(&place, command, context).await
}

/// Commits what begins a run that somebody can answer.
async fn begun<C: Command<Output = AcceptedMessage>>(
    place: &SessionPlace,
    command: C,
    context: WriteContext,
) -> Result<Committed<AcceptedMessage>, ApiError> {
    place.project.mark_unfinished().await?;
    let begun = write(&place.project.address, command, context).await;
    begun.map_err(|error| error.to_api())
}
