//! Keeping a conversation within a model's context window: outputs of old calls are left out first, then
//! what came before is given to a model to make a summary of.

use std::fmt::Write as _;

use iris_protocol::ToolCallId;

use crate::prompt::{
    Conversation, LEFT_OUT_BYTES_MIN, PromptAttachment, PromptBlock, PromptMessage, summary_message,
};
use crate::tokens::{attachment_tokens, entry_tokens, text_tokens};

/// Most bytes of one message of a person in what a summary is made of.
const SAID_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of one text of a model in it.
const ANSWER_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of the arguments of a call in it.
const ARGUMENTS_BYTES_MAX: usize = 1024;
/// Most bytes of a result in it.
const RESULT_BYTES_MAX: usize = 2 * 1024;
/// Where not all fits, an entry has at most one of so many parts of the room, but not less than so many bytes.
const ENTRIES_FIT: usize = 8;
const ENTRY_BYTES_MIN: usize = 256;
/// The part of the room for outputs of calls that the newest ones have in any case: one of so many.
const OUTPUTS_KEPT: u64 = 4;
/// Leaving outputs out is worth it from this part of the room on: one of so many.
const OUTPUTS_WORTH: u64 = 8;
/// The part of the room in which the last steps may stay as they are beside a summary: one of so many.
const STEPS_KEPT: u64 = 8;
/// The same for the very last step, whose results the model may not have read yet.
const LAST_STEP_KEPT: u64 = 2;

/// The last call of which the output is to be left out so that a conversation gets shorter, with all before
/// it: those of the newest steps stay. None where that would not be worth it. `room` is for how many
/// estimated tokens there is any.
pub fn outputs_to_leave_out(conversation: &Conversation, room: u64) -> Option<ToolCallId> {
    // What the model has not read yet stays.
    let read = conversation.messages.iter().rposition(|it| !is_result(it)).unwrap_or(0);
    let (mut kept, mut saved) = (0, 0);
    let mut last = None;
    // What goes with the question of the last of these calls stays.
    let mut is_before_question = false;
    for message in conversation.messages.get(..read)?.iter().rev() {
        let (call_id, output) = match message {
            PromptMessage::ToolResult { call_id, output, is_error: false, .. } => (call_id, output),
            PromptMessage::User { attachments, .. } if last.is_some() => {
                if std::mem::replace(&mut is_before_question, true) {
                    saved += attachments.iter().map(attachment_tokens).sum::<u64>();
                }
                continue;
            }
            PromptMessage::User { .. }
            | PromptMessage::Assistant { .. }
            | PromptMessage::ToolResult { .. } => continue,
        };
        if output.len() < LEFT_OUT_BYTES_MIN || conversation.left_out.contains(call_id) {
            continue;
        }
        let tokens = text_tokens(output);
        if kept + tokens <= room / OUTPUTS_KEPT && last.is_none() {
            kept += tokens;
            continue;
        }
        last = last.or(call_id.parse().ok());
        saved += tokens;
    }
    last.filter(|_| saved > 0 && saved >= room / OUTPUTS_WORTH)
}

fn is_result(message: &PromptMessage) -> bool {
    matches!(message, PromptMessage::ToolResult { .. })
}

/// What a summary is to be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The conversation as text.
    pub transcript: String,
    /// How many entries the summary stands for.
    pub replaced: u32,
    /// How many of the last steps of the run stay as they are.
    pub kept_steps: u32,
    /// The estimated tokens of what the summary stands for.
    pub tokens_replaced: u64,
}

impl Draft {
    /// Takes everything but what the run in progress was asked and, where they are short, its last steps.
    /// None where nothing is left besides an earlier summary. `room` is for how many estimated tokens there
    /// is any beside what stands around the conversation, `bytes_max` how long the transcript may be.
    pub fn of(conversation: &Conversation, room: u64, bytes_max: usize) -> Option<Self> {
        let Conversation { messages, steps, question, .. } = conversation;
        let fits = |kept: &usize| {
            let first = steps.get(steps.len() - kept).copied().unwrap_or(messages.len());
            let tokens = entry_tokens(messages.get(first..).unwrap_or_default());
            tokens <= room / if *kept == 1 { LAST_STEP_KEPT } else { STEPS_KEPT }
        };
        let most = (0..=steps.len()).rev().find(fits).unwrap_or(0);
        (0..=most).rev().find_map(|kept| {
            let cut = steps.get(steps.len() - kept).copied().unwrap_or(messages.len());
            let old: Vec<&PromptMessage> = messages
                .iter()
                .enumerate()
                .take(cut)
                .filter(|(index, _)| !question.contains(index))
                .map(|(_, message)| message)
                .collect();
            let is_new = |message: &&&PromptMessage| !is_summary(message);
            old.iter().find(is_new)?;
            let asked = question.iter().filter_map(|index| messages.get(*index));
            Some(Self {
                transcript: transcript(&old, asked, bytes_max),
                replaced: u32::try_from(old.len()).unwrap_or(u32::MAX),
                kept_steps: u32::try_from(kept).unwrap_or(u32::MAX),
                tokens_replaced: old.iter().map(|it| entry_tokens(std::slice::from_ref(*it))).sum(),
            })
        })
    }

    /// Whether [`Draft::of`] finds anything that a summary could stand for.
    pub fn is_possible(conversation: &Conversation) -> bool {
        let Conversation { messages, question, .. } = conversation;
        let mut old = messages.iter().enumerate().filter(|(index, _)| !question.contains(index));
        old.any(|(_, message)| !is_summary(message))
    }

    /// The estimated tokens that a summary saves; none where it is no shorter.
    pub fn saves(&self, summary: &str) -> u64 {
        self.tokens_replaced.saturating_sub(entry_tokens(&[summary_message(summary)]))
    }
}

fn is_summary(message: &PromptMessage) -> bool {
    let PromptMessage::User { text, .. } = message else { return false };
    let PromptMessage::User { text: begin, .. } = summary_message("") else { return false };
    text.starts_with(&begin)
}

/// The entries as text; of many the first and, above all, the last ones.
fn transcript<'a>(
    old: &[&PromptMessage],
    asked: impl Iterator<Item = &'a PromptMessage>,
    bytes_max: usize,
) -> String {
    let whole = old.iter().map(|message| entry(message, usize::MAX)).collect::<Vec<_>>();
    let entries = if whole.iter().map(String::len).sum::<usize>() <= bytes_max {
        whole
    } else {
        let each = (bytes_max / ENTRIES_FIT).max(ENTRY_BYTES_MIN);
        old.iter().map(|message| entry(message, each)).collect()
    };
    let (first, last) = (bytes_max / 4, bytes_max - bytes_max / 4);
    let mut left = first;
    let head = entries.iter().take_while(|entry| {
        let fits = entry.len() <= left;
        left = left.saturating_sub(entry.len());
        fits
    });
    let head = head.count();
    let mut left = last + left;
    let tail = entries.iter().skip(head).rev().take_while(|entry| {
        let fits = entry.len() <= left;
        left = left.saturating_sub(entry.len());
        fits
    });
    let tail = entries.len() - tail.count();
    let mut text = entries.get(..head).unwrap_or_default().concat();
    if tail > head {
        let count = tail - head;
        writeln!(text, "[{count} entries are left out here]").unwrap_or_default();
    }
    text.push_str(&entries.get(tail..).unwrap_or_default().concat());
    for question in asked {
        if let PromptMessage::User { text: question, attachments } = question {
            let question = said_within(question, attachments, ANSWER_BYTES_MAX);
            write!(text, "[the request in progress, which stays as it is]\n{question}\n")
                .unwrap_or_default();
        }
    }
    text
}

/// What a person said, within about so many bytes: no file is cut, so that its fence ends where it should.
fn said_within(text: &str, attachments: &[PromptAttachment], bytes_max: usize) -> String {
    let mut said = cut(text, bytes_max);
    for attachment in attachments {
        let has_room = said.len() + attachment.text().len() <= bytes_max;
        said.push_str("\n\n");
        said.push_str(&if has_room { attachment.text().to_owned() } else { attachment.named() });
    }
    said
}

fn entry(message: &PromptMessage, bytes_max: usize) -> String {
    match message {
        PromptMessage::User { text, attachments } => {
            let text = said_within(text, attachments, SAID_BYTES_MAX.min(bytes_max));
            format!("[user]\n{text}\n")
        }
        PromptMessage::Assistant { blocks } => {
            let mut text = "[assistant]\n".to_owned();
            for block in blocks {
                text.push_str(&said(block, bytes_max));
            }
            text
        }
        PromptMessage::ToolResult { tool_name, output, is_error, .. } => {
            let kind = if *is_error { "error" } else { "result" };
            format!("[{kind} of {tool_name}]\n{}\n", cut(output, RESULT_BYTES_MAX.min(bytes_max)))
        }
    }
}

fn said(block: &PromptBlock, bytes_max: usize) -> String {
    match block {
        PromptBlock::Text { text, .. } if !text.is_empty() => {
            format!("{}\n", cut(text, ANSWER_BYTES_MAX.min(bytes_max)))
        }
        // What it thought is in what it did, and what is opaque only its provider can read.
        PromptBlock::Text { .. } | PromptBlock::Reasoning { .. } => String::new(),
        PromptBlock::Call(call) => {
            let arguments = call.arguments.to_string();
            format!("[calls {} {}]\n", call.tool_name, cut(&arguments, ARGUMENTS_BYTES_MAX))
        }
        PromptBlock::ProviderTool { tool_name, .. } => format!("[used {tool_name}]\n"),
    }
}

/// The beginning and the end of a text that is too long.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let begin = text.floor_char_boundary(bytes_max / 2);
    let end = text.ceil_char_boundary(text.len() - bytes_max / 2);
    let (begin, end) = (text.get(..begin), text.get(end..));
    format!("{}\n[..]\n{}", begin.unwrap_or_default(), end.unwrap_or_default())
}
