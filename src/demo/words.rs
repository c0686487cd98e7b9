//! Says in a few words what an event is about. Its name is said elsewhere.

use std::collections::HashMap;

use iris_protocol::{ApiError, Event, Message, MessageRole, Part, Usage, UserId};
use serde::Serialize;

/// The names of people.
pub(super) type Names = HashMap<UserId, &'static str>;

/// Says what happened, on one line, without the event's name.
#[expect(clippy::too_many_lines, reason = "each event has its arm")]
pub(super) fn describe(event: &Event, names: &Names) -> String {
    let name = |id: &UserId| names.get(id).copied().unwrap_or("somebody");
    match event {
        Event::SessionCreated { session }
        | Event::SessionUpdated { session }
        | Event::SessionArchived { session }
        | Event::SessionDeleted { session } => {
            format!("\"{}\" with the agent `{}`", session.title, session.agent)
        }
        Event::SessionStatus { state, message: Some(why), .. } => format!("{}: {why}", word(state)),
        Event::SessionStatus { state, .. } => word(state),
        Event::MessageCreated { message, .. } => match message.role {
            MessageRole::User => {
                let by = message.created_by.as_ref().map_or("somebody", name);
                format!("{by}: \"{}\"", text_of(message))
            }
            MessageRole::Assistant => "the agent begins to answer".to_owned(),
            MessageRole::System => text_of(message),
        },
        Event::MessageUpdated { message, .. } => match message.role {
            MessageRole::User if message.after_step.is_some() => {
                "a message joins the run".to_owned()
            }
            MessageRole::User | MessageRole::System => {
                format!("a message is {}", word(&message.state))
            }
            MessageRole::Assistant => format!("the answer is {}", word(&message.state)),
        },
        Event::MessageRemoved { .. } => "a message was taken back".to_owned(),
        Event::SessionCaptureStarted { .. } => "its model's requests are recorded".to_owned(),
        Event::SessionCaptureEnded { .. } => "they are recorded no more".to_owned(),
        Event::SessionUnread { unread, .. } => format!("{} messages are unread", unread.count),
        Event::SessionForked { fork, .. } => format!("\"{}\" goes on from here", fork.title),
        Event::SessionReverted { message_count, file_count, .. } => {
            format!("{message_count} messages and {file_count} files are undone")
        }
        Event::SessionUnreverted { message_count, file_count, .. } => {
            format!("{message_count} messages and {file_count} files are there again")
        }
        Event::MessageTextComplete { length, .. }
        | Event::MessageReasoningComplete { length, .. } => format!("whole: {length} bytes"),
        Event::MessageToolCall { tool_name, input, .. } => format!("{tool_name} {input}"),
        Event::MessageToolResult { output, .. } => output.clone(),
        Event::MessageToolError { state, error, .. } => format!("{}: {error}", word(state)),
        Event::SessionCompacted { part, .. } => {
            format!("a summary of {} entries: {}", part.replaced, part.summary)
        }
        Event::MessageSubtaskUpdated { part, .. } => {
            format!("the sub-agent {}: {}, {}", part.agent, part.description, word(&part.state))
        }
        Event::MessageStepFinished { index, finish_reason, usage, .. } => {
            format!("step {}: {}, {}", index + 1, word(finish_reason), tokens(usage))
        }
        Event::UsageUpdated { totals, .. } => format!("so far {}", tokens(&totals.usage)),
        Event::BudgetExceeded { message, .. } => message.clone(),
        Event::MessageComplete { finish_reason, usage, .. } => {
            format!("{}, {}", word(finish_reason), tokens(usage))
        }
        Event::MessageError { error, .. } => said(error),
        Event::MessageTextDelta { delta: text, .. }
        | Event::MessageReasoningDelta { delta: text, .. }
        | Event::MessageToolInputDelta { delta: text, .. }
        | Event::MessagePartSnapshot { text, .. } => text.clone(),
        Event::MessageToolProgress { position: Some(position), .. } => {
            format!("number {position} of the commands that wait")
        }
        Event::MessageToolProgress { bytes, .. } => format!("{bytes} bytes of output so far"),
        Event::MessagePartRemoved { .. } => "a part that will not be completed".to_owned(),
        Event::RunQueued { position, .. } => format!("number {position} of those who wait"),
        Event::RunStarted { run } => format!("with the rights of {}", name(&run.started_by)),
        Event::RunCompleted { status, error: Some(error), .. } => {
            format!("{}: {}", word(status), said(error))
        }
        Event::RunCompleted { status, usage, .. } => format!("{}, {}", word(status), tokens(usage)),
        Event::ToolApprovalRequired { message, .. } => format!("may the agent {message}?"),
        Event::ToolApprovalResolved { state, by, reason, .. } => {
            decided(state, by.as_ref().map(name), reason.as_deref().unwrap_or_default())
        }
        Event::QuestionAsked { message, .. } => format!("the agent asks: {message}"),
        Event::QuestionResolved { state, by, answers, reason, .. } => {
            let answers = answers.iter().flatten().flatten().map(String::as_str);
            let said = reason.as_deref().into_iter().chain(answers).collect::<Vec<_>>().join(", ");
            decided(state, by.as_ref().map(name), &said)
        }
        Event::TodoUpdated { todos, .. } => format!("{} to do", todos.len()),
        Event::FileCreated { path, version, by, session_id, .. }
        | Event::FileUpdated { path, version, by, session_id, .. }
        | Event::FileDeleted { path, version, by, session_id, .. }
        | Event::FileMoved { path, version, by, session_id, .. } => {
            let how = if session_id.is_some() { "the agent, for " } else { "" };
            let who = by.as_ref().map_or_else(|| "somebody outside", &name);
            format!("`{path}`, version {version}, by {how}{who}")
        }
        Event::FileLocked { lock } => format!("`{}`, by {}", lock.path, name(&lock.owner_id)),
        Event::FileUnlocked { path, owner_id, .. } => format!("`{path}`, of {}", name(owner_id)),
        Event::SnapshotCreated { snapshot } => format!("of {} files", snapshot.file_count),
        Event::FileChanged { count, .. } | Event::SnapshotRestored { count, .. } => {
            format!("{count} files")
        }
        Event::RunDiffUpdated { files, .. } => format!("{} files", files.len()),
        Event::GitChanged { action, .. } => word(action),
        Event::ProjectUpdated { name, .. } => format!("\"{name}\""),
        Event::ProjectArchived { .. } => "now read-only".to_owned(),
        Event::ProjectUnarchived { .. } => "back from the archive".to_owned(),
        Event::ProjectRestored { .. } => "put back to a backup".to_owned(),
        Event::MemberAdded { member } | Event::MemberUpdated { member } => {
            format!("{} as {}", member.username, word(&member.role))
        }
        Event::MemberRemoved { user_id } => name(user_id).to_owned(),
        Event::ProjectDeleted { name, .. } => name.clone(),
        Event::InvitationReceived { by, .. } => format!("from {}", name(by)),
        Event::TokenReused { .. } => "a login has ended".to_owned(),
        Event::AgentUpdated { name, agent: Some(agent) } => {
            format!("`{name}` with the tools {}", agent.tools.join(", "))
        }
        Event::AgentUpdated { name, agent: None }
        | Event::McpStatusChanged { name, deleted: true, .. } => format!("`{name}` is deleted"),
        Event::ToolUpdated { name, .. } => format!("`{name}` is another one now"),
        Event::McpStatusChanged { name, state, .. } => format!("`{name}` is {}", word(state)),
        Event::PermissionUpdated { rule: Some(rule), .. } => {
            format!("{} of {}", rule.permission, rule.pattern)
        }
        Event::PermissionUpdated { rule: None, .. } => "a permission rule is deleted".to_owned(),
        Event::RoomReset { room, .. } => format!("{room}: too long ago"),
        Event::RoomLeft { room, code } => format!("{room}: {}", code.as_str()),
        Event::PresenceSnapshot { users } => format!("{} present", users.len()),
        Event::PresenceJoined { presence }
        | Event::PresenceUpdated { presence }
        | Event::PresenceLeft { presence } => {
            format!("{}: {}", presence.username, word(&presence.status))
        }
        Event::TypingUpdated { user_ids, .. } => format!("{} writing", user_ids.len()),
        Event::SupervisionStarted { record }
        | Event::SupervisionStopped { record }
        | Event::SupervisionPanicked { record }
        | Event::SupervisionRestarted { record }
        | Event::SupervisionGaveUp { record }
        | Event::SupervisionStuck { record }
        | Event::SupervisionOverloaded { record }
        | Event::SupervisionPassivated { record }
        | Event::SupervisionBlocked { record }
        | Event::SupervisionUnblocked { record } => {
            format!("{}: {}", record.path, word(&record.kind))
        }
    }
}

/// What became of what people were asked.
fn decided(state: &impl Serialize, by: Option<&str>, said: &str) -> String {
    let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    format!("{}{by}{said}", word(state))
}

/// A value of one of the wire's enums, as the wire names it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().unwrap_or("?").to_owned()
}

fn said(error: &ApiError) -> String {
    format!("{}, {}", error.code.as_str(), error.message)
}

fn tokens(usage: &Usage) -> String {
    format!("{} tokens in, {} out", usage.input_tokens, usage.output_tokens)
}

fn text_of(message: &Message) -> String {
    let texts = message.parts.iter().filter_map(|part| match part {
        Part::Text { text, .. } => Some(text.as_str()),
        Part::Reasoning { .. }
        | Part::Tool(_)
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => None,
    });
    texts.collect::<Vec<_>>().join(" ")
}
