//! What tools answered earlier in a session, as `read` reaches it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::future::BoxFuture;
use iris_agent::{Attached, Conversation, PromptAttachment, PromptMessage, TextRoom};
use iris_protocol::limits::{ATTACHED_IMAGES_BYTES_MAX, ATTACHED_IMAGES_MAX};
use iris_protocol::{AttachmentGiven, Message, Part, SessionId, ToolCallId};
use iris_store::StoreError;
use iris_store::project::ProjectReader;
use iris_tools::OutputStore;

use super::Assignment;
use crate::session::SessionPlace;

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

/// An image that a model may be shown.
struct Candidate {
    /// The id of its call, or of its part of a message.
    key: String,
    size: u64,
    kept: Kept,
    /// Whether it goes with what the run in progress was asked.
    is_asked: bool,
}

/// Where an image is kept.
enum Kept {
    OfCall(ToolCallId),
    OfMessage { mime_type: String, hash: String },
}

/// The images of a conversation for a model that is shown some: those that go with what the run was asked, and
/// the newest others. Of those that are not shown, results and messages say so.
pub(super) async fn show_images(
    place: &SessionPlace,
    history: &[Message],
    conversation: &mut Conversation,
    can_see: bool,
) -> Result<BTreeMap<String, Attached>, StoreError> {
    let all = candidates(history, conversation);
    let keys: BTreeSet<String> = all.iter().map(|it| it.key.clone()).collect();
    let mut images = BTreeMap::new();
    if can_see {
        let (asked, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|it| it.is_asked);
        let sized = |it: Candidate| (it.size, it);
        for Candidate { key, kept, .. } in newest(others.into_iter().chain(asked).map(sized)) {
            let image = load(place, kept).await?;
            images.extend(image.map(|image| (key, image)));
        }
    }
    for message in &mut conversation.messages {
        match message {
            PromptMessage::ToolResult { call_id, output, .. } => {
                if keys.contains(call_id) && !images.contains_key(call_id) {
                    output.extend([" (", not_shown(can_see, true), ")"]);
                }
            }
            PromptMessage::User { attachments, .. } => {
                for it in attachments {
                    let id = it.part().id.as_str();
                    if keys.contains(id) && !images.contains_key(id) {
                        let is_file = it.part().path.is_some();
                        it.name(not_shown(can_see, is_file));
                    }
                }
            }
            PromptMessage::Assistant { .. } => {}
        }
    }
    Ok(images)
}

fn not_shown(can_see: bool, is_file: bool) -> &'static str {
    match (can_see, is_file) {
        (false, _) => "this model is shown no images",
        (true, true) => "it is not shown any more: read it again to see it",
        (true, false) => "it is not shown any more",
    }
}

/// The images of a conversation, in its order. Of calls and messages before a summary, and of what is left
/// out, nothing is told.
fn candidates(history: &[Message], conversation: &Conversation) -> Vec<Candidate> {
    let parts = history.iter().flat_map(|message| &message.parts);
    let calls = parts.filter_map(|part| match part {
        Part::Tool(call) => {
            call.attachment.as_ref().map(|it| (call.tool_call_id.as_str(), (call, it)))
        }
        Part::Text { .. }
        | Part::Reasoning { .. }
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => None,
    });
    let calls: BTreeMap<&str, _> =
        calls.filter(|(_, (_, it))| it.mime_type.starts_with("image/")).collect();
    let mut all = Vec::new();
    for (index, message) in conversation.messages.iter().enumerate() {
        match message {
            PromptMessage::ToolResult { call_id, .. } => {
                let call = calls.get(call_id.as_str());
                if let Some((call, it)) = call.filter(|_| !conversation.left_out.contains(call_id))
                {
                    all.push(Candidate {
                        key: call_id.clone(),
                        size: it.size,
                        kept: Kept::OfCall(call.tool_call_id.clone()),
                        is_asked: false,
                    });
                }
            }
            PromptMessage::User { attachments, .. } => {
                let is_image = |it: &&PromptAttachment| {
                    it.part().given == AttachmentGiven::Image && !it.left_out()
                };
                let images = attachments.iter().filter(is_image).map(PromptAttachment::part);
                all.extend(images.map(|part| Candidate {
                    key: part.id.to_string(),
                    size: part.size,
                    kept: Kept::OfMessage {
                        mime_type: part.mime_type.clone(),
                        hash: part.hash.clone(),
                    },
                    is_asked: conversation.is_asked(index),
                }));
            }
            PromptMessage::Assistant { .. } => {}
        }
    }
    all
}

async fn load(place: &SessionPlace, kept: Kept) -> Result<Option<Attached>, StoreError> {
    let reader = &place.project.reader;
    match kept {
        Kept::OfCall(call_id) => {
            let found = reader.attachment(place.id.clone(), call_id).await?;
            Ok(found.map(|it| Attached { mime_type: it.mime_type, bytes: it.bytes.into() }))
        }
        Kept::OfMessage { mime_type, hash } => {
            let bytes = reader.attached(hash).await?.into();
            Ok(Some(Attached { mime_type, bytes }))
        }
    }
}

/// Tells what stands in the texts that go with messages.
pub(super) async fn tell_texts(
    place: &SessionPlace,
    conversation: &mut Conversation,
) -> Result<(), StoreError> {
    for message in &mut conversation.messages {
        let PromptMessage::User { attachments, .. } = message else { continue };
        let mut room = TextRoom::default();
        for it in attachments {
            if it.part().given == AttachmentGiven::Text && !it.left_out() {
                let bytes = place.project.reader.attached(it.part().hash.clone()).await?;
                it.tell(&String::from_utf8_lossy(&bytes), &mut room);
            }
        }
    }
    Ok(())
}

/// Those of some images, with their sizes, that are shown: the newest first, up to one that is too much.
fn newest<T>(all: impl DoubleEndedIterator<Item = (u64, T)>) -> Vec<T> {
    let mut left = ATTACHED_IMAGES_BYTES_MAX;
    let newest_first = all.rev().take(ATTACHED_IMAGES_MAX);
    let shown = newest_first.map_while(|(size, image)| {
        left = left.checked_sub(size)?;
        Some(image)
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_images_are_shown_by_number_and_by_size() {
        let shown = |sizes: &[u64]| newest(sizes.iter().copied().zip(0..sizes.len()));
        assert_eq!(shown(&[1; 9]), [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(shown(&[1, 3_750_000, 3_750_000, 3_750_000, 3_750_000]), [4, 3, 2]);
        assert_eq!(shown(&[ATTACHED_IMAGES_BYTES_MAX, 1]), [1]);
        assert_eq!(shown(&[1, ATTACHED_IMAGES_BYTES_MAX + 1]), [0_usize; 0]);
    }
}
