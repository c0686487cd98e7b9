//! Joins the pieces of streamed parts, whichever way they were split, repeated or cut off.
//!
//! The rules are those of docs/protocol.md, "Streaming text": offsets count bytes of UTF-8, a higher
//! `gen` starts the part over, and the complete text at the end has the last word.

use std::collections::{HashMap, VecDeque};

use iris_protocol::{Event, Message, MessageId, MessageState, Part, PartId, StreamKind};

/// Most ended parts that are remembered, so that a late piece of them is not taken for a new part.
const ENDED_PARTS_MAX: usize = 256;

/// A change of a part's text: cut the text at `offset`, then append `delta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The message.
    pub message_id: MessageId,
    /// The part.
    pub part_id: PartId,
    /// What the part holds.
    pub kind: StreamKind,
    /// Bytes of UTF-8 that stay. Less than what was there when the part starts over.
    pub offset: u64,
    /// What follows them; empty when the part only starts over.
    pub delta: String,
}

/// What an event does to the streamed parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartChange {
    /// The text of a part changed.
    Piece(Piece),
    /// Nothing that was not known.
    Nothing,
    /// Text is missing. Said once until a snapshot or another generation of the part comes: subscribe
    /// again for a snapshot of it, or wait for the end of the part.
    Gap,
}

/// The parts of one session that are being streamed.
#[derive(Debug, Default)]
pub struct PartTracker {
    open: HashMap<PartId, Progress>,
    ended: VecDeque<PartId>,
}

#[derive(Debug)]
struct Progress {
    message_id: MessageId,
    /// Unknown while all that is known comes from a snapshot of the session.
    generation: Option<u32>,
    text: String,
    /// The generation whose gap the caller knows of.
    gap_reported: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
enum Change {
    Set { offset: usize, delta: String },
    Nothing,
    Gap,
}

impl PartTracker {
    /// Knows the text of messages that are still being produced, so that it is not said again.
    pub fn from_messages(messages: &[Message]) -> Self {
        let mut tracker = Self::default();
        for message in messages.iter().filter(|m| m.state == MessageState::Streaming) {
            for part in &message.parts {
                match part {
                    Part::Text { id, text, .. } | Part::Reasoning { id, text, .. } => {
                        tracker.progress(&message.id, id).text.clone_from(text);
                    }
                    Part::Tool(_)
                    | Part::Subtask(_)
                    | Part::Compaction(_)
                    | Part::AnswerFormat(_)
                    | Part::Attachment(_)
                    | Part::Step { .. } => {}
                }
            }
        }
        tracker
    }

    /// Takes an event of the session into account.
    #[expect(clippy::too_many_lines, reason = "every event is named")]
    pub fn apply(&mut self, event: &Event) -> PartChange {
        use StreamKind::{Reasoning, Text};
        match event {
            Event::MessageTextDelta { message_id, part_id, r#gen, offset, delta, .. } => {
                self.change(message_id, part_id, Text, |p| p.delta(*r#gen, *offset, delta))
            }
            Event::MessageReasoningDelta { message_id, part_id, r#gen, offset, delta, .. } => {
                self.change(message_id, part_id, Reasoning, |p| p.delta(*r#gen, *offset, delta))
            }
            Event::MessagePartSnapshot { message_id, part_id, kind, r#gen, text, .. } => {
                // The arguments of a call are no text of the message: the call has them whole.
                let Some(kind) = kind.text() else { return PartChange::Nothing };
                self.change(message_id, part_id, kind, |p| p.snapshot(*r#gen, text))
            }
            Event::MessageTextComplete { message_id, part_id, text, .. } => {
                self.complete(message_id, part_id, Text, text)
            }
            Event::MessageReasoningComplete { message_id, part_id, text, .. } => {
                self.complete(message_id, part_id, Reasoning, text)
            }
            Event::MessagePartRemoved { part_id, .. } => {
                self.end(part_id);
                PartChange::Nothing
            }
            Event::MessageComplete { message_id, .. } | Event::MessageError { message_id, .. } => {
                self.end_message(message_id);
                PartChange::Nothing
            }
            Event::SessionCreated { .. }
            | Event::SessionUpdated { .. }
            | Event::SessionArchived { .. }
            | Event::SessionDeleted { .. }
            | Event::SessionForked { .. }
            | Event::SessionCaptureStarted { .. }
            | Event::SessionCaptureEnded { .. }
            | Event::SessionReverted { .. }
            | Event::SessionUnreverted { .. }
            | Event::SessionStatus { .. }
            | Event::MessageCreated { .. }
            | Event::MessageUpdated { .. }
            | Event::MessageRemoved { .. }
            | Event::MessageToolInputDelta { .. }
            | Event::MessageToolCall { .. }
            | Event::MessageToolResult { .. }
            | Event::MessageToolError { .. }
            | Event::MessageSubtaskUpdated { .. }
            | Event::SessionCompacted { .. }
            | Event::MessageStepFinished { .. }
            | Event::UsageUpdated { .. }
            | Event::BudgetExceeded { .. }
            | Event::RunQueued { .. }
            | Event::RunStarted { .. }
            | Event::RunCompleted { .. }
            | Event::ToolApprovalRequired { .. }
            | Event::ToolApprovalResolved { .. }
            | Event::QuestionAsked { .. }
            | Event::QuestionResolved { .. }
            | Event::TodoUpdated { .. }
            | Event::FileCreated { .. }
            | Event::FileUpdated { .. }
            | Event::FileDeleted { .. }
            | Event::FileMoved { .. }
            | Event::FileChanged { .. }
            | Event::FileLocked { .. }
            | Event::FileUnlocked { .. }
            | Event::SnapshotCreated { .. }
            | Event::SnapshotRestored { .. }
            | Event::RunDiffUpdated { .. }
            | Event::GitChanged { .. }
            | Event::ProjectUpdated { .. }
            | Event::ProjectArchived { .. }
            | Event::ProjectUnarchived { .. }
            | Event::ProjectRestored { .. }
            | Event::MemberAdded { .. }
            | Event::MemberUpdated { .. }
            | Event::MemberRemoved { .. }
            | Event::ProjectDeleted { .. }
            | Event::InvitationReceived { .. }
            | Event::SessionUnread { .. }
            | Event::TokenReused { .. }
            | Event::AgentUpdated { .. }
            | Event::McpStatusChanged { .. }
            | Event::ToolUpdated { .. }
            | Event::PermissionUpdated { .. }
            | Event::MessageToolProgress { .. }
            | Event::PresenceSnapshot { .. }
            | Event::PresenceJoined { .. }
            | Event::PresenceUpdated { .. }
            | Event::PresenceLeft { .. }
            | Event::TypingUpdated { .. }
            | Event::RoomReset { .. }
            | Event::RoomLeft { .. }
            | Event::SupervisionStarted { .. }
            | Event::SupervisionStopped { .. }
            | Event::SupervisionPanicked { .. }
            | Event::SupervisionRestarted { .. }
            | Event::SupervisionGaveUp { .. }
            | Event::SupervisionStuck { .. }
            | Event::SupervisionOverloaded { .. }
            | Event::SupervisionPassivated { .. }
            | Event::SupervisionBlocked { .. }
            | Event::SupervisionUnblocked { .. } => PartChange::Nothing,
        }
    }

    fn change(
        &mut self,
        message_id: &MessageId,
        part_id: &PartId,
        kind: StreamKind,
        step: impl FnOnce(&mut Progress) -> Change,
    ) -> PartChange {
        if self.ended.contains(part_id) {
            return PartChange::Nothing;
        }
        match step(self.progress(message_id, part_id)) {
            Change::Nothing => PartChange::Nothing,
            Change::Gap => PartChange::Gap,
            Change::Set { offset, delta } => PartChange::Piece(Piece {
                message_id: message_id.clone(),
                part_id: part_id.clone(),
                kind,
                offset: offset as u64,
                delta,
            }),
        }
    }

    fn complete(
        &mut self,
        message_id: &MessageId,
        part_id: &PartId,
        kind: StreamKind,
        text: &str,
    ) -> PartChange {
        let change = self.change(message_id, part_id, kind, |part| part.replace(text));
        self.end(part_id);
        change
    }

    fn progress(&mut self, message_id: &MessageId, part_id: &PartId) -> &mut Progress {
        self.open.entry(part_id.clone()).or_insert_with(|| Progress {
            message_id: message_id.clone(),
            generation: None,
            text: String::new(),
            gap_reported: None,
        })
    }

    fn end(&mut self, part_id: &PartId) {
        self.open.remove(part_id);
        if self.ended.contains(part_id) {
            return;
        }
        if self.ended.len() == ENDED_PARTS_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(part_id.clone());
    }

    fn end_message(&mut self, message_id: &MessageId) {
        let ended = self.open.iter().filter(|(_, part)| part.message_id == *message_id);
        let ended: Vec<PartId> = ended.map(|(part_id, _)| part_id.clone()).collect();
        for part_id in &ended {
            self.end(part_id);
        }
    }
}

impl Progress {
    fn delta(&mut self, generation: u32, offset: u64, delta: &str) -> Change {
        match self.generation {
            Some(known) if generation < known => return Change::Nothing,
            Some(known) if generation > known && offset > 0 => return self.gap(generation),
            Some(known) if generation > known => {
                self.generation = Some(generation);
                return self.start_over(delta);
            }
            Some(_) | None => self.generation = Some(generation),
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(overlap) = self.text.len().checked_sub(offset) else {
            return self.gap(generation);
        };
        if overlap >= delta.len() {
            return Change::Nothing;
        }
        match delta.get(overlap..) {
            Some(fresh) => self.append(fresh),
            None => self.gap(generation),
        }
    }

    fn snapshot(&mut self, generation: u32, text: &str) -> Change {
        match self.generation {
            Some(known) if generation < known => return Change::Nothing,
            // An older snapshot of the same text, overtaken by deltas.
            Some(known) if generation == known && self.text.starts_with(text) => {
                return Change::Nothing;
            }
            Some(_) | None => self.generation = Some(generation),
        }
        self.gap_reported = None;
        self.replace(text)
    }

    /// Makes `text` the text of the part, keeping what is there when it is the beginning of it.
    fn replace(&mut self, text: &str) -> Change {
        match text.strip_prefix(self.text.as_str()) {
            Some("") => Change::Nothing,
            Some(fresh) => self.append(fresh),
            None => self.start_over(text),
        }
    }

    fn append(&mut self, fresh: &str) -> Change {
        let offset = self.text.len();
        self.text.push_str(fresh);
        Change::Set { offset, delta: fresh.to_owned() }
    }

    fn start_over(&mut self, text: &str) -> Change {
        text.clone_into(&mut self.text);
        Change::Set { offset: 0, delta: text.to_owned() }
    }

    fn gap(&mut self, generation: u32) -> Change {
        if self.gap_reported == Some(generation) {
            return Change::Nothing;
        }
        self.gap_reported = Some(generation);
        Change::Gap
    }
}

#[cfg(test)]
#[path = "part_tests.rs"]
mod tests;
