//! How events look on a terminal: their colour, and nothing in them that a terminal would obey.

use iris_protocol::Event;

/// Characters of the words about an event.
const WORDS_CHARS_MAX: usize = 100;

/// How a text looks on a terminal: parameters of "select graphic rendition" (ECMA-48, 8.3.117).
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    Plain,
    Bold,
    Faint,
    Red,
    Green,
    Yellow,
    Magenta,
    Cyan,
}

impl Look {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Faint => "2",
            Self::Red => "31",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Magenta => "35",
            Self::Cyan => "36",
        }
    }
}

/// How the words about an event look.
pub(super) fn look(event: &Event) -> Look {
    match event {
        Event::MessageTextDelta { .. } | Event::MessagePartSnapshot { .. } => Look::Green,
        Event::MessageReasoningDelta { .. } | Event::MessageToolInputDelta { .. } => Look::Faint,
        Event::ToolApprovalRequired { .. }
        | Event::ToolApprovalResolved { .. }
        | Event::QuestionAsked { .. }
        | Event::QuestionResolved { .. } => Look::Yellow,
        Event::MessageToolError { .. }
        | Event::MessageError { .. }
        | Event::BudgetExceeded { .. }
        | Event::RoomReset { .. }
        | Event::RoomLeft { .. } => Look::Red,
        Event::MessageCreated { .. }
        | Event::MessageToolCall { .. }
        | Event::MessageToolResult { .. }
        | Event::MessageSubtaskUpdated { .. }
        | Event::SessionCompacted { .. }
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
        | Event::SessionReverted { .. }
        | Event::SessionUnreverted { .. }
        | Event::RunDiffUpdated { .. } => Look::Bold,
        Event::SessionCreated { .. }
        | Event::SessionUpdated { .. }
        | Event::SessionArchived { .. }
        | Event::SessionDeleted { .. }
        | Event::SessionForked { .. }
        | Event::SessionCaptureStarted { .. }
        | Event::SessionCaptureEnded { .. }
        | Event::SessionStatus { .. }
        | Event::MessageUpdated { .. }
        | Event::MessageRemoved { .. }
        | Event::MessageTextComplete { .. }
        | Event::MessageReasoningComplete { .. }
        | Event::MessageStepFinished { .. }
        | Event::UsageUpdated { .. }
        | Event::MessageComplete { .. }
        | Event::MessagePartRemoved { .. }
        | Event::MessageToolProgress { .. }
        | Event::RunQueued { .. }
        | Event::RunStarted { .. }
        | Event::RunCompleted { .. }
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
        | Event::PresenceSnapshot { .. }
        | Event::PresenceJoined { .. }
        | Event::PresenceUpdated { .. }
        | Event::PresenceLeft { .. }
        | Event::TypingUpdated { .. }
        | Event::SupervisionStarted { .. }
        | Event::SupervisionStopped { .. }
        | Event::SupervisionPanicked { .. }
        | Event::SupervisionRestarted { .. }
        | Event::SupervisionGaveUp { .. }
        | Event::SupervisionStuck { .. }
        | Event::SupervisionOverloaded { .. }
        | Event::SupervisionPassivated { .. }
        | Event::SupervisionBlocked { .. }
        | Event::SupervisionUnblocked { .. } => Look::Plain,
    }
}

/// One line of it, not too long.
pub(super) fn shortened(text: &str) -> String {
    let line = visible(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    match line.char_indices().nth(WORDS_CHARS_MAX) {
        Some((end, _)) => line.get(..end).unwrap_or_default().to_owned() + "…",
        None => line,
    }
}

/// Without anything that a terminal would obey.
pub(super) fn visible(text: &str) -> String {
    let text = text.replace('\t', "  ");
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_one_line_that_is_not_too_long() {
        assert_eq!(shortened("a\n\tb \x07 c"), "a b \u{fffd} c");
        let longest = "ä".repeat(WORDS_CHARS_MAX);
        assert_eq!(shortened(&longest), longest);
        assert_eq!(shortened(&format!("{longest}b")), format!("{longest}…"));
    }
}
