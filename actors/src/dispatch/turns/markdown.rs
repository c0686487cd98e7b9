//! A conversation as a text for people. What is superseded is left out; what was said stands as it was
//! said, and what tools were given and answered stands in fences that none of it can end.

use iris_protocol::{
    AttachmentPart, Message, MessageRole, MessageState, Part, Session, SubtaskPart, ToolPart,
    ToolState,
};

/// Shortest fence around a text.
const FENCE_MIN: usize = 3;

pub(super) fn markdown(session: &Session, messages: &[Message]) -> String {
    let mut text = format!("# {}\n\nSession `{}`", line(&session.title), session.id);
    text.extend([format!(" with the agent `{}`.\n", session.agent)]);
    for message in messages.iter().filter(|it| it.state != MessageState::Superseded) {
        write_message(message, &mut text);
    }
    text
}

fn write_message(message: &Message, text: &mut String) {
    let who = match message.role {
        MessageRole::User => "User",
        MessageRole::Assistant => "Assistant",
        MessageRole::System => "System",
    };
    text.extend([format!("\n## {who}\n")]);
    if let Some(steps) = message.after_step {
        text.extend([format!("\n*Said after step {steps} of the answer.*\n")]);
    }
    for part in &message.parts {
        match part {
            Part::Text { text: said, .. } if !said.is_empty() => {
                text.extend([format!("\n{said}\n")]);
            }
            Part::Reasoning { text: thought, .. } if !thought.is_empty() => {
                text.push('\n');
                text.extend(thought.lines().map(|line| format!("> {line}\n")));
            }
            Part::Tool(call) => write_call(call, text),
            Part::Subtask(task) => write_task(task, text),
            Part::Compaction(part) => {
                text.push_str("\n*Models read this in place of what is above:*\n");
                write_fenced("text", &part.summary, text);
            }
            Part::AnswerFormat(format) => {
                text.push_str("\n*The answer has to keep to this schema:*\n");
                write_fenced("json", &format.schema.to_string(), text);
            }
            Part::Attachment(file) => {
                let name = line(file.path.as_ref().unwrap_or(&file.name)).replace('`', "'");
                let AttachmentPart { mime_type, size, .. } = file;
                text.extend([format!("\n*Attached: `{name}`, {mime_type}, {size} bytes*\n")]);
            }
            Part::Text { .. } | Part::Reasoning { .. } | Part::Step { .. } => {}
        }
    }
    match (&message.error, message.state) {
        (Some(error), _) => text.extend([format!("\n*Ended by an error: {}*\n", error.message)]),
        (None, MessageState::Streaming) => text.push_str("\n*Not done yet.*\n"),
        (
            None,
            MessageState::Complete
            | MessageState::Interrupted
            | MessageState::Error
            | MessageState::Superseded,
        ) => {}
    }
}

fn write_call(call: &ToolPart, text: &mut String) {
    let state = match call.state {
        ToolState::Pending => "not begun",
        ToolState::Waiting => "waits for a person",
        ToolState::Running => "runs",
        ToolState::Completed => "completed",
        ToolState::Error => "failed",
        ToolState::Denied => "denied",
        ToolState::Cancelled => "cancelled",
        ToolState::UnknownOutcome => "unknown outcome",
    };
    text.extend([format!("\n**Tool `{}`** ({state})\n", line(&call.tool_name))]);
    write_fenced("json", &call.input.to_string(), text);
    if let Some(answer) = call.output.as_ref().or(call.error.as_ref()) {
        write_fenced("text", answer, text);
    }
}

fn write_task(task: &SubtaskPart, text: &mut String) {
    let (agent, what) = (line(&task.agent), line(&task.description));
    let id = &task.child_session_id;
    text.extend([format!("\n*Sub-agent `{agent}`: {what} (session `{id}`)*\n")]);
}

/// Longer than every run of backticks inside.
fn write_fenced(language: &str, inside: &str, text: &mut String) {
    let longest = inside.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(FENCE_MIN.max(longest + 1));
    text.extend([format!("\n{fence}{language}\n{inside}\n{fence}\n")]);
}

/// On one line, as headings and names stand.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fence_is_longer_than_what_is_in_it() {
        for (inside, fence) in [("", "```"), ("a", "```"), ("a ``` b", "````"), ("`````", "``````")]
        {
            let mut text = String::new();
            write_fenced("text", inside, &mut text);
            assert_eq!(text, format!("\n{fence}text\n{inside}\n{fence}\n"));
        }
    }
}
