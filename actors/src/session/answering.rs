//! Replies to what the agent asked: checked, recorded, and passed on to the run that waits.

use actix::prelude::*;
use iris_protocol::limits::{ANSWERS_BYTES_MAX, QUESTION_ANSWERS_MAX};
use iris_protocol::{ApiError, Question, QuestionId, QuestionItem, QuestionState, UserId};
use iris_store::project::{Reply, ResolveQuestion};
use iris_store::{Committed, WriteContext};

use super::{Deciding, Session, SessionPlace, Work, may_start, repeated, starter_lost_access};
use crate::orchestrator::Replied;
use crate::record;

/// Ask: records a reply to what a tool call asked and passes it on.
#[derive(Message)]
#[rtype(result = "Result<Committed<Question>, ApiError>")]
pub(crate) struct Respond {
    pub(crate) question_id: QuestionId,
    pub(crate) reply: Reply,
    /// None when the time is over.
    pub(crate) by: Option<UserId>,
    pub(crate) context: WriteContext,
}

impl Handler<Respond> for Session {
    type Result = Deciding<Question>;

    fn handle(&mut self, respond: Respond, ctx: &mut Context<Self>) -> Self::Result {
        self.once_taken_up(ctx, move |session| session.respond(respond))
    }
}

impl Session {
    fn respond(&mut self, respond: Respond) -> Deciding<Question> {
        let answers = matches!(respond.reply, Reply::Answer(_));
        let starter = self.other_starter(respond.by.as_ref()).filter(|_| answers);
        let command = ResolveQuestion {
            session_id: self.place.id.clone(),
            question_id: respond.question_id,
            reply: respond.reply,
            by: respond.by,
            at: self.place.services.clock.now_ms(),
        };
        let resolved = resolved(self.place.clone(), starter, command, respond.context);
        Box::pin(resolved.into_actor(self).map(move |resolved, session, _| {
            let resolved = resolved?;
            if let Work::Running(active) = &session.work
                && !resolved.replayed
            {
                active.orchestrator.tell(Replied(resolved.output.clone()));
            }
            Ok(resolved)
        }))
    }
}

/// Records a reply, unless the run would go on for somebody who may not start one any more, or the answers
/// do not fit the questions.
async fn resolved(
    place: SessionPlace,
    starter: Option<UserId>,
    command: ResolveQuestion,
    context: WriteContext,
) -> Result<Committed<Question>, ApiError> {
    if let Some(starter) = starter
        && !may_start(&place, &starter).await.map_err(|error| error.to_api())?
    {
        return repeated::<ResolveQuestion>(&place, context, starter_lost_access()).await;
    }
    if let Reply::Answer(answers) = &command.reply {
        let (session_id, id) = (command.session_id.clone(), command.question_id.clone());
        let found = place.project.reader.question(session_id, id).await;
        let found = found.map_err(|error| error.to_api())?;
        // What is wrong with a question that does not wait is for the command to say.
        if let Some(question) = found.filter(|it| it.state == QuestionState::Pending)
            && let Err(error) = check_answers(&question.questions, answers)
        {
            return repeated::<ResolveQuestion>(&place, context, error).await;
        }
    }
    record(&place.project.address, command, context).await.map_err(|error| error.to_api())
}

/// Refuses answers that do not fit the questions.
fn check_answers(questions: &[QuestionItem], answers: &[Vec<String>]) -> Result<(), ApiError> {
    let invalid = |message: String| Err(ApiError::invalid(message).reason("invalid_answers"));
    if answers.len() != questions.len() {
        let expected = questions.len();
        return invalid(format!("`answers` needs one list for each of {expected} questions"));
    }
    let mut bytes = 0;
    for (index, (question, texts)) in questions.iter().zip(answers).enumerate() {
        if question.multiple && texts.len() > QUESTION_ANSWERS_MAX {
            return invalid(format!(
                "`answers[{index}]` has more than {QUESTION_ANSWERS_MAX} texts"
            ));
        }
        if !question.multiple && texts.len() != 1 {
            return invalid(format!("`answers[{index}]` needs exactly one text"));
        }
        if texts.iter().any(String::is_empty) {
            return invalid(format!("`answers[{index}]` has an empty text"));
        }
        bytes += texts.iter().map(String::len).sum::<usize>();
    }
    if bytes > ANSWERS_BYTES_MAX {
        return invalid(format!("`answers` has more than {ANSWERS_BYTES_MAX} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(multiple: bool) -> QuestionItem {
        QuestionItem { text: "which?".to_owned(), options: Vec::new(), multiple }
    }

    fn texts(count: usize, text: &str) -> Vec<String> {
        vec![text.to_owned(); count]
    }

    #[test]
    fn answers_fit_their_questions_up_to_the_limits() {
        let questions = [item(false), item(true)];
        let most = "x".repeat(ANSWERS_BYTES_MAX - QUESTION_ANSWERS_MAX);
        for good in [
            vec![texts(1, "a"), texts(0, "")],
            vec![texts(1, &most), texts(QUESTION_ANSWERS_MAX, "b")],
        ] {
            assert_eq!(check_answers(&questions, &good), Ok(()));
        }
        for bad in [
            vec![],
            vec![texts(1, "a")],
            vec![texts(1, "a"), texts(1, "b"), texts(1, "c")],
            vec![texts(0, ""), texts(1, "b")],
            vec![texts(2, "a"), texts(1, "b")],
            vec![texts(1, ""), texts(1, "b")],
            vec![texts(1, "a"), texts(QUESTION_ANSWERS_MAX + 1, "b")],
            vec![texts(1, &format!("{most}x")), texts(QUESTION_ANSWERS_MAX, "b")],
        ] {
            let error = check_answers(&questions, &bad).unwrap_err();
            assert_eq!(error.details["reason"], "invalid_answers", "{bad:?}");
        }
    }
}
