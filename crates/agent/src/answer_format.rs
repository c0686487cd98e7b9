//! What an answer has to look like: said with the message that it answers.

use iris_protocol::{AnswerFormatPart, Message, MessageRole, Part};

/// What the newest answer of a conversation, oldest message first, has to look like: what the last message
/// to the model says, or another of its run. Messages before it were answered already.
pub fn wanted_format(history: &[Message]) -> Option<&AnswerFormatPart> {
    let said = history.iter().rev().filter(|message| message.role != MessageRole::Assistant);
    let run = said.clone().next()?.run_id.as_ref();
    let mut parts = said.take_while(|said| said.run_id.as_ref() == run).flat_map(|it| &it.parts);
    parts.find_map(|part| match part {
        Part::AnswerFormat(format) => Some(format),
        Part::Text { .. }
        | Part::Reasoning { .. }
        | Part::Tool(_)
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::Attachment(_)
        | Part::Step { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use iris_protocol::{MessageId, MessageState, PartId, RunId, SessionId};
    use serde_json::json;

    use super::*;

    fn message(run: u128, role: MessageRole, name: Option<&str>) -> Message {
        let format = |name: &str| {
            let (id, name) = (PartId::from_bits(2), name.to_owned());
            Part::AnswerFormat(AnswerFormatPart { id, name, schema: json!({}), strict: true })
        };
        Message {
            id: MessageId::from_bits(run),
            session_id: SessionId::from_bits(1),
            run_id: Some(RunId::from_bits(run)),
            after_step: None,
            role,
            agent: None,
            model: None,
            parts: name.map(format).into_iter().collect(),
            state: MessageState::Complete,
            finish_reason: None,
            error: None,
            usage: None,
            created_by: None,
            created_at: 0,
            completed_at: None,
        }
    }

    #[test]
    fn a_format_holds_for_the_run_of_its_message() {
        let (user, model) = (MessageRole::User, MessageRole::Assistant);
        let name = |history: &[Message]| wanted_format(history).map(|format| format.name.clone());
        let one = [message(1, user, Some("one")), message(1, model, None)];
        assert_eq!(name(&one).as_deref(), Some("one"));
        let steered = [message(1, user, Some("one")), message(1, user, None)];
        assert_eq!(name(&steered).as_deref(), Some("one"));
        let again = [message(1, user, Some("one")), message(1, user, Some("other"))];
        assert_eq!(name(&again).as_deref(), Some("other"));
        let next = [message(1, user, Some("one")), message(2, user, None)];
        assert_eq!(name(&next), None);
        let told = [message(1, user, Some("one")), message(2, MessageRole::System, None)];
        assert_eq!(name(&told), None);
        assert_eq!(name(&[]), None);
    }
}
