//! From the recorded messages of a session to the conversation that a model is told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iris_protocol::{
    CompactionPart, Message, MessageRole, MessageState, ModelRef, Part, PartId, RunId, ToolCallId,
    ToolPart, ToolState, Usage,
};

use super::{PromptAttachment, PromptBlock, PromptCall, PromptMessage};
use crate::Opaque;

/// What stands before each summary.
const SUMMARY_INTRO: &str = "[The conversation before this point was replaced by a summary. Files and \
                             results of tools that it names can be read again.]";
/// What models read in place of an output that was left out.
const LEFT_OUT: &str =
    "[this output was left out to save room: call the tool again if it is needed]";
/// Shorter outputs are never left out.
pub(crate) const LEFT_OUT_BYTES_MIN: usize = 512;

/// A conversation as a model is told it, and where it came from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conversation {
    /// Oldest first; as in [`super::Prompt`].
    pub messages: Vec<PromptMessage>,
    /// The last step whose provider said how long the conversation was.
    pub counted: Option<Counted>,
    /// Where the steps of the run in progress begin among the messages.
    pub(crate) steps: Vec<usize>,
    /// Where what that run was asked stands among the messages.
    pub(crate) question: Vec<usize>,
    /// The calls whose outputs are left out.
    pub left_out: BTreeSet<String>,
}

/// A step whose provider said how long the conversation was.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// How many entries the conversation had then.
    pub entries: usize,
    /// What the provider counted.
    pub input_tokens: u64,
    /// The model that was asked.
    pub model: Option<ModelRef>,
}

/// Turns the messages of a session, oldest first, into the conversation for a model. `opaque` is what is
/// kept for its provider, by the parts that it belongs to.
///
/// An answer is cut at its step parts: each step becomes one assistant entry followed by the results
/// of its calls. A call without a result gets one that says so, so that INV-3 holds for whatever the
/// store holds. Text that was interrupted is said once: when it is the last thing of an answer that
/// ended. An answer that went on continues from its last complete step, without it. What joined a run
/// stands behind the results of the step that it waited for. What is superseded is left out.
///
/// A summary stands in place of all that came before it, but for what its run was asked and for the steps
/// right before it that it keeps.
pub fn prompt_messages(
    history: &[Message],
    opaque: &BTreeMap<PartId, Opaque>,
) -> Vec<PromptMessage> {
    Conversation::of(history, opaque, None).messages
}

impl Conversation {
    /// Whether the message of that number is of what the run in progress was asked.
    pub fn is_asked(&self, index: usize) -> bool {
        self.question.contains(&index)
    }

    /// As [`prompt_messages`]; outputs of calls up to `left_out_to` are left out where they are long, and so is
    /// what goes with messages before those that ask for the answer in which this call is. Where there is no
    /// such call nothing is.
    pub fn of(
        history: &[Message],
        opaque: &BTreeMap<PartId, Opaque>,
        left_out_to: Option<&ToolCallId>,
    ) -> Self {
        let has_mark = left_out_to.is_some_and(|mark| {
            let mut parts = history.iter().flat_map(|message| &message.parts);
            parts.any(|part| matches!(part, Part::Tool(call) if call.tool_call_id == *mark))
        });
        let left_out_to = left_out_to.filter(|_| has_mark);
        let is_told = |message: &&Message| message.state != MessageState::Superseded;
        let history: Vec<&Message> = history.iter().filter(is_told).collect();
        let turn = left_out_to.map_or(0, |mark| turn_with(&history, mark));
        let mut builder = Builder {
            opaque,
            left_out_to,
            leaves_files_out: false,
            run: None,
            told: Self::default(),
        };
        let mut history = history.into_iter().enumerate().peekable();
        while let Some((index, message)) = history.next() {
            builder.leaves_files_out = index < turn;
            match message.role {
                // Models know the server's words as somebody else's than their own, no more.
                MessageRole::User | MessageRole::System => builder.push_user(message),
                MessageRole::Assistant => {
                    let mut joined = VecDeque::new();
                    while let Some((_, next)) = history.next_if(|(_, it)| joins(it, message)) {
                        joined.push_back(next);
                    }
                    builder.push_answer(message, joined);
                }
            }
        }
        builder.told
    }
}

/// Where the messages begin that ask for the answer in which a call is.
fn turn_with(history: &[&Message], call_id: &ToolCallId) -> usize {
    let has_call = |message: &&Message| {
        let mut parts = message.parts.iter();
        parts.any(|part| matches!(part, Part::Tool(call) if call.tool_call_id == *call_id))
    };
    let answer = history.iter().position(has_call).unwrap_or(0);
    let is_of_another =
        |message: &&Message| message.role == MessageRole::Assistant || message.after_step.is_some();
    let before = history.get(..answer).unwrap_or_default();
    before.iter().rposition(is_of_another).map_or(0, |last| last + 1)
}

/// Whether a message joined the run of an answer. Then it stands right behind that.
fn joins(message: &Message, answer: &Message) -> bool {
    message.after_step.is_some() && message.run_id.is_some() && message.run_id == answer.run_id
}

struct Builder<'a> {
    opaque: &'a BTreeMap<PartId, Opaque>,
    /// The last call whose output is left out, until it has come.
    left_out_to: Option<&'a ToolCallId>,
    /// Whether what goes with the messages of this turn is left out.
    leaves_files_out: bool,
    /// The run of the last message.
    run: Option<&'a RunId>,
    told: Conversation,
}

impl<'a> Builder<'a> {
    fn enter(&mut self, message: &'a Message) {
        self.told.steps.clear();
        if self.run != message.run_id.as_ref() || self.run.is_none() {
            self.told.question.clear();
        }
        self.run = message.run_id.as_ref();
    }

    fn push_user(&mut self, message: &'a Message) {
        self.enter(message);
        self.say(message);
    }

    /// Says what joined the run before it had made more than `steps` steps.
    fn push_joined(&mut self, joined: &mut VecDeque<&Message>, steps: u32) {
        while let Some(message) =
            joined.pop_front_if(|it| it.after_step.is_none_or(|after| after <= steps))
        {
            self.say(message);
        }
    }

    fn say(&mut self, message: &Message) {
        let (mut text, mut attachments) = (String::new(), Vec::new());
        for part in &message.parts {
            match part {
                Part::Text { text: piece, .. } => {
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(piece);
                }
                Part::Attachment(part) => {
                    attachments.push(PromptAttachment::new(part.clone(), self.leaves_files_out));
                }
                Part::Reasoning { .. }
                | Part::Tool(_)
                | Part::Subtask(_)
                | Part::Compaction(_)
                | Part::AnswerFormat(_)
                | Part::Step { .. } => {}
            }
        }
        if !text.is_empty() || !attachments.is_empty() {
            self.told.question.push(self.told.messages.len());
            self.told.messages.push(PromptMessage::User { text, attachments });
        }
    }

    fn push_answer(&mut self, message: &'a Message, joined: VecDeque<&'a Message>) {
        self.enter(message);
        let mut step = Step::default();
        let (mut joined, mut steps) = (joined, 0);
        let went_on = message.state == MessageState::Streaming;
        let mut parts = message.parts.iter().peekable();
        let mut is_summary = false;
        self.push_joined(&mut joined, steps);
        while let Some(part) = parts.next() {
            let opaque = self.opaque.get(part.id()).cloned();
            match part {
                Part::Text { interrupted: true, .. } if went_on || parts.peek().is_some() => {}
                Part::Text { text, .. } => step.say(text, opaque),
                // Half a thought is none; what a sub-agent did is in the result of its call.
                Part::Reasoning { interrupted: true, .. }
                | Part::Subtask(_)
                | Part::AnswerFormat(_)
                // What goes with a message stands in that.
                | Part::Attachment(_) => {}
                Part::Reasoning { text, .. } => step.think(text, opaque),
                Part::Tool(call) => step.call(call, opaque),
                Part::Compaction(summary) => {
                    self.push_step(std::mem::take(&mut step));
                    self.summarize(summary);
                    is_summary = true;
                }
                Part::Step { usage, .. } => {
                    // One that asked for a summary did so with another conversation.
                    if !std::mem::take(&mut is_summary) {
                        self.count(usage, message.model.as_ref());
                        self.push_step(std::mem::take(&mut step));
                    }
                    steps += 1;
                    self.push_joined(&mut joined, steps);
                }
            }
        }
        self.push_step(step);
        self.push_joined(&mut joined, u32::MAX);
    }

    fn count(&mut self, usage: &Usage, model: Option<&ModelRef>) {
        // An estimate says nothing of how the provider counts.
        if usage.incomplete {
            return;
        }
        // What a provider's own tools read is in the count and not in the conversation.
        if usage.input_tokens > 0 && usage.server_tool_calls == 0 {
            self.told.counted = Some(Counted {
                entries: self.told.messages.len(),
                input_tokens: usage.input_tokens,
                model: model.cloned(),
            });
        }
    }

    fn push_step(&mut self, step: Step<'_>) {
        let messages = &mut self.told.messages;
        if !step.blocks.iter().any(PromptBlock::says_something) {
            return;
        }
        self.told.steps.push(messages.len());
        messages.push(PromptMessage::Assistant { blocks: step.blocks });
        for call in step.calls {
            let mut result = tool_result(call);
            if let (Some(mark), PromptMessage::ToolResult { output, is_error, .. }) =
                (self.left_out_to, &mut result)
            {
                if !*is_error && output.len() >= LEFT_OUT_BYTES_MIN {
                    LEFT_OUT.clone_into(output);
                    self.told.left_out.insert(call.tool_call_id.to_string());
                }
                if *mark == call.tool_call_id {
                    self.left_out_to = None;
                }
            }
            messages.push(result);
        }
    }

    fn summarize(&mut self, part: &CompactionPart) {
        let told = &mut self.told;
        let first_kept = told.steps.len().saturating_sub(part.kept_steps as usize);
        let cut = told.steps.get(first_kept).copied().unwrap_or(told.messages.len());
        let kept = told.messages.split_off(cut);
        let (asked_before, asked_after): (Vec<usize>, Vec<usize>) =
            std::mem::take(&mut told.question).into_iter().partition(|index| *index < cut);
        let is_asked = |index: &usize| asked_before.contains(index);
        let asked = std::mem::take(&mut told.messages).into_iter().enumerate();
        let asked = asked.filter(|(index, _)| is_asked(index)).map(|(_, message)| message);
        let asked: Vec<PromptMessage> = asked.collect();
        told.messages.push(summary_message(&part.summary));
        let asked_end = asked.len() + 1;
        told.messages.extend(asked);
        told.steps = told.steps.split_off(first_kept);
        for step in &mut told.steps {
            *step = *step - cut + asked_end;
        }
        let asked_after = asked_after.into_iter().map(|index| index - cut + asked_end);
        told.question = (1..asked_end).chain(asked_after).collect();
        told.messages.extend(kept);
        told.counted = None;
    }
}

/// What a model reads of a summary.
pub(crate) fn summary_message(summary: &str) -> PromptMessage {
    PromptMessage::asked(format!("{SUMMARY_INTRO}\n\n{summary}"))
}

#[derive(Default)]
struct Step<'a> {
    blocks: Vec<PromptBlock>,
    calls: Vec<&'a ToolPart>,
}

impl<'a> Step<'a> {
    fn say(&mut self, text: &str, opaque: Option<Opaque>) {
        if !text.is_empty() || opaque.is_some() {
            self.blocks.push(PromptBlock::Text { text: text.to_owned(), opaque });
        }
    }

    fn think(&mut self, text: &str, opaque: Option<Opaque>) {
        if !text.is_empty() || opaque.is_some() {
            self.blocks.push(PromptBlock::Reasoning { text: text.to_owned(), opaque });
        }
    }

    fn call(&mut self, call: &'a ToolPart, opaque: Option<Opaque>) {
        let tool_name = call.tool_name.clone();
        if call.provider_executed {
            return self.blocks.push(PromptBlock::ProviderTool { tool_name, opaque });
        }
        self.blocks.push(PromptBlock::Call(PromptCall {
            call_id: call.tool_call_id.to_string(),
            tool_name,
            arguments: call.input.clone(),
            opaque,
        }));
        self.calls.push(call);
    }
}

fn tool_result(call: &ToolPart) -> PromptMessage {
    let (output, is_error) = match (&call.output, &call.error) {
        (Some(output), _) if call.state == ToolState::Completed => (output.clone(), false),
        (_, Some(error)) => (error.clone(), true),
        (Some(_) | None, None) => ("the call has no result".to_owned(), true),
    };
    PromptMessage::ToolResult {
        call_id: call.tool_call_id.to_string(),
        tool_name: call.tool_name.clone(),
        output,
        is_error,
    }
}
