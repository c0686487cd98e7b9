//! The parts that stream in a project, by the sessions that they are in.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use iris_protocol::{MessageId, PartId, SessionId, SnapshotKind};
use serde_json::json;

use super::Stream;

/// A part that is being streamed.
#[derive(Debug)]
pub(super) struct LivePart {
    /// Of the part, shared by all frames that wait somewhere.
    pub(super) id: Arc<PartId>,
    pub(super) session_id: SessionId,
    pub(super) message_id: MessageId,
    pub(super) kind: SnapshotKind,
    /// Of a call.
    pub(super) tool_name: Option<String>,
    /// The bytes of UTF-8 that were sent.
    pub(super) length: u64,
    /// What was sent, as it stands in a string of JSON: for those who join while much streams it is only copied.
    pub(super) escaped: String,
    /// The frame that says it all at once, until more is sent: many slow readers ask for the same one.
    pub(super) snapshot: Option<Bytes>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Live {
    parts: HashMap<PartId, LivePart>,
    /// None is empty.
    by_session: HashMap<SessionId, Vec<Arc<PartId>>>,
}

impl Live {
    /// How many there are, and how much text.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.parts.len(), self.parts.values().map(|part| part.escaped.len()).sum())
    }

    /// One of them.
    pub(super) fn get(&self, part_id: &PartId) -> Option<&LivePart> {
        self.parts.get(part_id)
    }

    /// One of them, for somebody who changes it.
    pub(super) fn get_mut(&mut self, part_id: &PartId) -> Option<&mut LivePart> {
        self.parts.get_mut(part_id)
    }

    /// Those of a session.
    pub(super) fn of_session(&self, session_id: &SessionId) -> Vec<Arc<PartId>> {
        self.by_session.get(session_id).cloned().unwrap_or_default()
    }

    /// Takes the next piece of a part; the shared id of the part. None for the rest of one whose beginning
    /// went down with an earlier life of the registry.
    pub(super) fn take(&mut self, piece: &Stream) -> Option<Arc<PartId>> {
        let known = self.parts.get(&piece.part_id).map_or(0, |part| part.length);
        if known != piece.offset {
            return None;
        }
        let by_session = &mut self.by_session;
        let part = self.parts.entry(piece.part_id.clone()).or_insert_with(|| {
            let id = Arc::new(piece.part_id.clone());
            by_session.entry(piece.session_id.clone()).or_default().push(Arc::clone(&id));
            LivePart {
                id,
                session_id: piece.session_id.clone(),
                message_id: piece.message_id.clone(),
                kind: piece.kind,
                tool_name: piece.tool_name.clone(),
                length: 0,
                escaped: String::new(),
                snapshot: None,
            }
        });
        part.length += piece.text.len() as u64;
        part.escaped.push_str(inside(&json!(piece.text).to_string()));
        part.snapshot = None;
        Some(Arc::clone(&part.id))
    }

    /// Forgets a part.
    pub(super) fn remove(&mut self, part_id: &PartId) -> Option<LivePart> {
        let part = self.parts.remove(part_id)?;
        if let Some(parts) = self.by_session.get_mut(&part.session_id) {
            parts.retain(|other| **other != *part_id);
            if parts.is_empty() {
                self.by_session.remove(&part.session_id);
            }
        }
        Some(part)
    }

    /// Forgets those of a message.
    pub(super) fn remove_of(&mut self, message_id: &MessageId) -> Vec<LivePart> {
        let gone = self.parts.values().filter(|part| part.message_id == *message_id);
        let gone: Vec<_> = gone.map(|part| Arc::clone(&part.id)).collect();
        gone.iter().filter_map(|part_id| self.remove(part_id)).collect()
    }
}

impl LivePart {
    /// The frame of a snapshot with this text, of which `frame` has all else and an empty one.
    pub(super) fn fill(&self, frame: &str) -> Option<String> {
        // A quote inside of another string would be escaped.
        let at = frame.rfind(NO_TEXT)? + NO_TEXT.len() - 1;
        let (before, after) = frame.split_at_checked(at)?;
        Some([before, &self.escaped, after].concat())
    }
}

/// How the member of a snapshot looks that has the text, when it is empty.
const NO_TEXT: &str = r#""text":"""#;

/// What stands between the quotes of a string of JSON.
fn inside(quoted: &str) -> &str {
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use iris_protocol::{Event, ProjectId, Room};
    use proptest::prelude::*;

    use super::super::{GENERATION, Rooms};
    use super::*;

    fn piece(offset: u64, tool_name: &str, text: &str) -> Stream {
        Stream {
            session_id: SessionId::from_bits(1),
            message_id: MessageId::from_bits(2),
            part_id: PartId::from_bits(3),
            kind: SnapshotKind::ToolInput,
            tool_name: Some(tool_name.to_owned()),
            offset,
            text: text.to_owned(),
        }
    }

    /// Texts that JSON has something to say about.
    fn texts() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            Just(NO_TEXT.to_owned()),
            Just("\"\\\n\u{1}\u{2028}".to_owned()),
        ]
    }

    proptest! {
        #[test]
        fn a_snapshot_is_what_it_would_be_of_the_whole_text(
            tool_name in texts(),
            pieces in proptest::collection::vec(texts(), 1..8),
        ) {
            let mut rooms = Rooms::new(ProjectId::from_bits(4), &Arc::default());
            let mut text = String::new();
            for said in &pieces {
                rooms.stream(piece(text.len() as u64, &tool_name, said));
                text.push_str(said);
                let whole = Event::MessagePartSnapshot {
                    session_id: SessionId::from_bits(1),
                    message_id: MessageId::from_bits(2),
                    part_id: PartId::from_bits(3),
                    kind: SnapshotKind::ToolInput,
                    tool_name: Some(tool_name.clone()),
                    r#gen: GENERATION,
                    length: text.len() as u64,
                    text: text.clone(),
                };
                let whole = rooms.ephemeral(&Room::Session(SessionId::from_bits(1)), &whole);
                prop_assert_eq!(rooms.snapshot(&PartId::from_bits(3)), whole);
            }
        }
    }

    #[test]
    fn a_part_that_ended_is_found_nowhere() {
        let mut live = Live::default();
        assert!(live.take(&piece(0, "read", "a")).is_some());
        assert!(live.take(&piece(3, "read", "b")).is_none(), "what came between is not there");
        let session = SessionId::from_bits(1);
        assert_eq!(live.of_session(&session), [Arc::new(PartId::from_bits(3))]);
        assert_eq!(live.remove_of(&MessageId::from_bits(2)).len(), 1);
        assert!(live.of_session(&session).is_empty() && live.by_session.is_empty());
        assert_eq!(live.counts(), (0, 0));
    }
}
