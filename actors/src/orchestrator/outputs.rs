//! What tools answered earlier in a session, as `read` reaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::future::BoxFuture;
use iris_agent::{Attached, Conversation, PromptMessage};
use iris_llm::Model;
use iris_protocol::{Message, Part, SessionId, ToolCallId};
use iris_store::StoreError;
use iris_store::project::ProjectReader;
use iris_tools::OutputStore;

use super::Assignment;
use crate::session::SessionPlace;

/// Most images of a conversation that a model is shown at once: the newest ones.
const IMAGES_MAX: usize = 8;
/// Most bytes of them: in base64, with all that is said, they stay below the smallest request that a provider
/// takes, 20 MB.
const IMAGES_BYTES_MAX: u64 = 12 * 1024 * 1024;

/// What the tools of one session answered besides what the model read at once.
pub(super) struct SessionOutputs {
    reader: ProjectReader,
    session_id: SessionId,
}

impl SessionOutputs {
    pub(super) fn of(assignment: &Assignment) -> Self {
        let place = &assignment.place;
        Self { reader: place.project.reader.clone(), session_id: place.id.clone() }
    }
}

impl fmt::Debug for SessionOutputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SessionOutputs").field(&self.session_id).finish()
    }
}

impl OutputStore for SessionOutputs {
    fn output(&self, call_id: ToolCallId) -> BoxFuture<'static, Result<Option<Attached>, String>> {
        let (reader, session_id) = (self.reader.clone(), self.session_id.clone());
        Box::pin(async move {
            let found = reader.attachment(session_id.clone(), call_id).await;
            let found = found.map_err(|error| {
                tracing::error!(session.id = session_id.as_str(), %error, "an output is out of reach");
                error.to_api().message
            })?;
            Ok(found.map(|it| Attached { mime_type: it.mime_type, bytes: it.bytes.into() }))
        })
    }
}

/// The newest images that calls of a conversation were answered with, for a model that is shown some. Of the
/// others the results say that they are not.
pub(super) async fn show_images(
    place: &SessionPlace,
    history: &[Message],
    conversation: &mut Conversation,
    model: &dyn Model,
) -> Result<BTreeMap<String, Attached>, StoreError> {
    let calls = history.iter().flat_map(|message| &message.parts).filter_map(|part| match part {
        Part::Tool(call) => call.attachment.as_ref().map(|it| (&call.tool_call_id, it)),
        Part::Text { .. }
        | Part::Reasoning { .. }
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Step { .. } => None,
    });
    // Of calls before a summary, and of those whose outputs are left out, nothing is told.
    let Conversation { messages, left_out, .. } = conversation;
    let told: BTreeSet<&str> = messages.iter().filter_map(call_of).collect();
    let calls = calls.filter(|(call_id, attachment)| {
        let call_id = call_id.as_str();
        let is_told = told.contains(call_id) && !left_out.contains(call_id);
        is_told && attachment.mime_type.starts_with("image/")
    });
    let all: Vec<(&ToolCallId, u64)> = calls.map(|(call_id, it)| (call_id, it.size)).collect();
    let mut images = BTreeMap::new();
    if model.shows_images() {
        for call_id in newest(&all) {
            let found = place.project.reader.attachment(place.id.clone(), call_id.clone()).await?;
            let image =
                found.map(|it| Attached { mime_type: it.mime_type, bytes: it.bytes.into() });
            images.extend(image.map(|image| (call_id.to_string(), image)));
        }
    }
    for message in messages {
        if let PromptMessage::ToolResult { call_id, output, .. } = message
            && !images.contains_key(call_id)
            && all.iter().any(|(other, _)| other.as_str() == call_id)
        {
            let why = if model.shows_images() {
                "it is not shown any more: read it again to see it"
            } else {
                "this model is shown no images"
            };
            output.extend([" (", why, ")"]);
        }
    }
    Ok(images)
}

fn call_of(message: &PromptMessage) -> Option<&str> {
    match message {
        PromptMessage::ToolResult { call_id, .. } => Some(call_id),
        PromptMessage::User { .. } | PromptMessage::Assistant { .. } => None,
    }
}

/// Those of some images, with their sizes, that are shown: the newest first, up to one that is too much.
fn newest<'a>(all: &[(&'a ToolCallId, u64)]) -> Vec<&'a ToolCallId> {
    let mut left = IMAGES_BYTES_MAX;
    let newest_first = all.iter().rev().take(IMAGES_MAX);
    let shown = newest_first.map_while(|(call_id, size)| {
        left = left.checked_sub(*size)?;
        Some(*call_id)
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_images_are_shown_by_number_and_by_size() {
        let ids: Vec<ToolCallId> = (1..=9).map(ToolCallId::from_bits).collect();
        let shown = |sizes: &[u64]| {
            let all: Vec<_> = ids.iter().zip(sizes.iter().copied()).collect();
            let shown = newest(&all).into_iter();
            shown.map(|id| ids.iter().position(|it| it == id).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[1; 9]), [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(shown(&[1, 3_750_000, 3_750_000, 3_750_000, 3_750_000]), [4, 3, 2]);
        assert_eq!(shown(&[IMAGES_BYTES_MAX, 1]), [1]);
        assert_eq!(shown(&[1, IMAGES_BYTES_MAX + 1]), [0_usize; 0]);
    }
}
