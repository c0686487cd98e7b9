//! What a model is asked: the conversation in the form that every provider can be given.

mod attachments;
mod history;

use std::collections::BTreeMap;
use std::sync::Arc;

use iris_protocol::Json;
use serde_json::Value;

use crate::{Attached, Opaque};

pub use attachments::{PromptAttachment, TextRoom, said_with};
pub use history::{Conversation, Counted, prompt_messages};
pub(crate) use history::{LEFT_OUT_BYTES_MIN, summary_message};

/// One request to a model, without the provider's details.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Prompt {
    /// Instructions before the conversation; empty for none.
    pub system: String,
    /// The conversation, oldest first. Each call of an assistant message is answered by exactly one
    /// [`PromptMessage::ToolResult`] before the next message of another kind (INV-3).
    pub messages: Vec<PromptMessage>,
    /// The tools that the model may call, in this order.
    pub tools: Vec<Arc<ToolSpec>>,
    /// Images that calls were answered with, by the ids of the calls, and that go with messages, by the ids
    /// of their parts; only for models that are shown some.
    pub images: BTreeMap<String, Attached>,
}

/// One entry of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptMessage {
    /// What a person said.
    User {
        /// UTF-8; never empty without attachments.
        text: String,
        /// What goes with it; [`said_with`] is the text with what stands in it of these.
        attachments: Vec<PromptAttachment>,
    },
    /// What the model said in one step.
    Assistant {
        /// In the order in which it came; never only reasoning.
        blocks: Vec<PromptBlock>,
    },
    /// The answer to one call.
    ToolResult {
        /// The call.
        call_id: String,
        /// The tool.
        tool_name: String,
        /// What the model reads; the error's text when `is_error`.
        output: String,
        /// Whether the call failed, was refused or was cut off.
        is_error: bool,
    },
}

impl PromptMessage {
    /// What a person said, with nothing attached.
    pub fn asked(text: impl Into<String>) -> Self {
        Self::User { text: text.into(), attachments: Vec::new() }
    }

    /// An answer that is nothing but text.
    pub fn said(text: impl Into<String>) -> Self {
        Self::Assistant { blocks: vec![PromptBlock::Text { text: text.into(), opaque: None }] }
    }
}

/// A piece of what the model said.
///
/// What is opaque about it is for providers of its kind alone; the others are sent the rest.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptBlock {
    /// Text.
    Text {
        /// UTF-8; empty only with something opaque.
        text: String,
        /// What its provider wants back with it.
        opaque: Option<Opaque>,
    },
    /// What the model thought.
    Reasoning {
        /// UTF-8; empty where the provider did not show it.
        text: String,
        /// What its provider wants back with it.
        opaque: Option<Opaque>,
    },
    /// A call of one of our tools.
    Call(PromptCall),
    /// A tool that the provider ran itself, with its result: nothing answers it. Only its provider can
    /// be sent it, and what the model made of it is in the text behind it.
    ProviderTool {
        /// The tool.
        tool_name: String,
        /// What its provider wants back.
        opaque: Option<Opaque>,
    },
}

impl PromptBlock {
    /// Whether a step that has it has said something.
    fn says_something(&self) -> bool {
        match self {
            Self::Text { text, .. } => !text.is_empty(),
            Self::Reasoning { .. } => false,
            Self::Call(_) => true,
            Self::ProviderTool { opaque, .. } => opaque.is_some(),
        }
    }
}

/// A tool call in the conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptCall {
    /// Iris' own id of the call; the result has the same.
    pub call_id: String,
    /// The tool.
    pub tool_name: String,
    /// An object where the model gave one.
    pub arguments: Value,
    /// What its provider wants back with it.
    pub opaque: Option<Opaque>,
}

/// A tool as a model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolSpec {
    /// Unique in the request.
    pub name: String,
    /// What it does.
    pub description: String,
    /// JSON Schema of the arguments; its order of properties is kept. Written once: it is sent with every question.
    pub parameters: Json,
}

impl ToolSpec {
    /// Describes a tool whose arguments have the JSON Schema `parameters`.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        parameters: &Value,
    ) -> Self {
        Self { name: name.into(), description: description.into(), parameters: parameters.into() }
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::{
        FinishReason, Message, MessageId, MessageRole, MessageState, Part, PartId, RunId,
        SessionId, ToolCallId, ToolPart, ToolState, Usage,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn conversation_alternates_and_ends_with_the_newest_question() {
        let history = [asked(&["Hello?"]), answered(&[text("Hello."), step()]), asked(&["And?"])];

        assert_eq!(prompt_of(&history), [user("Hello?"), says("Hello.", &[]), user("And?")]);
    }

    #[test]
    fn what_joined_a_run_is_said_behind_the_step_that_it_waited_for() {
        let run_id = Some(RunId::from_bits(1));
        let answer = answered(&[completed(1, "a.md"), step(), text("Done."), step()]);
        let answer = Message { run_id: run_id.clone(), ..answer };
        let joined = |text: &str, steps| {
            let after_step = Some(steps);
            Message { run_id: run_id.clone(), after_step, ..asked(&[text]) }
        };
        let history = [asked(&["Go."]), answer, joined("now", 0), joined("more", 1)];
        let history = [&history[..], &[asked(&["And?"])]].concat();

        let expected = [
            user("Go."),
            user("now"),
            PromptMessage::Assistant { blocks: vec![call(1)] },
            result(1, "a.md"),
            user("more"),
            says("Done.", &[]),
            user("And?"),
        ];
        assert_eq!(prompt_of(&history), expected);
    }

    #[test]
    fn what_is_superseded_is_not_said_and_what_joined_its_run_is_said_in_its_place() {
        let run_id = Some(RunId::from_bits(1));
        let answer = answered(&[text("No."), step()]);
        let answer = Message { run_id: run_id.clone(), state: MessageState::Superseded, ..answer };
        let joined = Message { run_id, after_step: Some(1), ..asked(&["Please."]) };
        let again = answered(&[text("Yes."), step()]);

        let history = [asked(&["Go."]), answer, joined, again];
        let expected = [user("Go."), user("Please."), says("Yes.", &[])];
        assert_eq!(prompt_of(&history), expected);
    }

    #[test]
    fn each_step_is_one_entry_followed_by_the_results_of_its_calls() {
        let answer = answered(&[
            reasoning("Where?"),
            text("I look."),
            completed(1, "a.md"),
            completed(2, "b.md"),
            step(),
            text("I read."),
            completed(3, "text"),
            step(),
            text("Done."),
            step(),
        ]);

        let first = PromptMessage::Assistant {
            blocks: vec![thinks("Where?"), speaks("I look."), call(1), call(2)],
        };
        let expected = [
            first,
            result(1, "a.md"),
            result(2, "b.md"),
            says("I read.", &[3]),
            result(3, "text"),
            says("Done.", &[]),
        ];
        assert_eq!(prompt_of(&[answer]), expected);
    }

    // Some providers refuse a conversation that ends with the model's own words.
    #[test]
    fn text_after_a_call_of_the_same_step_stays_before_the_result() {
        let answer = answered(&[text("I read"), completed(1, "text"), text(" it."), step()]);

        let blocks = vec![speaks("I read"), call(1), speaks(" it.")];
        let expected = [PromptMessage::Assistant { blocks }, result(1, "text")];
        assert_eq!(prompt_of(&[answer]), expected);
    }

    #[test]
    fn what_is_opaque_goes_with_its_part_and_keeps_even_an_empty_one() {
        let opaque = |n: u32| Opaque { kind: "k".into(), json: format!("[{n}]").into() };
        let parts = [
            Part::Reasoning { id: PartId::from_bits(5), text: String::new(), interrupted: false },
            Part::Text { id: PartId::from_bits(6), text: "Hi".into(), interrupted: false },
            completed(7, "x"),
            step(),
        ];
        let kept = (5..8).map(|n| (PartId::from_bits(n.into()), opaque(n))).collect();

        let PromptBlock::Call(mut called) = call(7) else { unreachable!() };
        called.opaque = Some(opaque(7));
        let blocks = vec![
            PromptBlock::Reasoning { text: String::new(), opaque: Some(opaque(5)) },
            PromptBlock::Text { text: "Hi".into(), opaque: Some(opaque(6)) },
            PromptBlock::Call(called),
        ];
        let expected = [PromptMessage::Assistant { blocks }, result(7, "x")];
        assert_eq!(prompt_messages(&[answered(&parts)], &kept), expected);
    }

    #[test]
    fn tool_of_the_provider_is_no_call_and_gets_no_result() {
        let Part::Tool(ran) = completed(1, "found") else { unreachable!() };
        let ran = Part::Tool(ToolPart { provider_executed: true, ..ran });
        let parts = [ran, step()];
        let opaque = Opaque { kind: "k".into(), json: "[]".into() };
        let kept = BTreeMap::from([(PartId::from_bits(1), opaque.clone())]);

        let tool_name = "read".to_owned();
        let block = PromptBlock::ProviderTool { tool_name, opaque: Some(opaque) };
        let expected = [PromptMessage::Assistant { blocks: vec![block] }];
        assert_eq!(prompt_messages(&[answered(&parts)], &kept), expected);
        assert_eq!(prompt_of(&[answered(&parts)]), [], "of use to its own provider alone");
    }

    #[test]
    fn parts_without_a_step_are_an_entry_as_well() {
        let cut_off = answered(&[completed(1, "text"), step(), text("So it")]);

        assert_eq!(prompt_of(&[cut_off]), [says("", &[1]), result(1, "text"), says("So it", &[])]);
    }

    #[test]
    fn call_without_a_result_gets_one_that_says_so() {
        for state in [ToolState::Pending, ToolState::Waiting, ToolState::Running] {
            let answer = answered(&[tool(1, state, None, None), step()]);

            let expected = [says("", &[1]), error(1, "the call has no result")];
            assert_eq!(prompt_of(&[answer]), expected, "{state:?}");
        }
    }

    #[test]
    fn call_that_did_not_complete_is_answered_with_its_error() {
        use ToolState::{Cancelled, Denied, Error, UnknownOutcome};
        for state in [Error, Denied, Cancelled, UnknownOutcome] {
            let answer = answered(&[tool(1, state, None, Some("why")), step()]);

            assert_eq!(prompt_of(&[answer]), [says("", &[1]), error(1, "why")], "{state:?}");
        }
    }

    #[test]
    fn output_of_a_call_that_did_not_complete_is_not_read() {
        let both = answered(&[tool(1, ToolState::Cancelled, Some("half"), Some("cancelled"))]);
        let output_only = answered(&[tool(1, ToolState::Running, Some("half"), None)]);

        assert_eq!(prompt_of(&[both]), [says("", &[1]), error(1, "cancelled")]);
        let expected = [says("", &[1]), error(1, "the call has no result")];
        assert_eq!(prompt_of(&[output_only]), expected);
    }

    #[test]
    fn text_that_was_interrupted_is_said_where_the_answer_ends_with_it() {
        let answer = answered(&[completed(1, "text"), step(), thought_cut(), text_cut("So it")]);

        let expected = [says("", &[1]), result(1, "text"), says("So it", &[])];
        assert_eq!(prompt_of(&[answer]), expected);
    }

    #[test]
    fn text_that_was_interrupted_is_left_out_once_the_answer_goes_on() {
        let parts = [completed(1, "text"), step(), text_cut("So it")];
        let going_on = Message { state: MessageState::Streaming, ..answered(&parts) };
        let went_on = answered(&[&parts[..], &[text("So it is."), step()]].concat());
        let cut_twice = answered(&[&parts[..], &[text_cut("So it is")]].concat());

        let first = [says("", &[1]), result(1, "text")];
        assert_eq!(prompt_of(&[going_on]), first);
        for (answer, last) in [(went_on, "So it is."), (cut_twice, "So it is")] {
            let expected = [&first[..], &[says(last, &[])]].concat();
            assert_eq!(prompt_of(&[answer]), expected);
        }
    }

    #[test]
    fn several_texts_of_a_question_become_one_with_line_breaks() {
        assert_eq!(prompt_of(&[asked(&["", "one", "two"])]), [user("one\ntwo")]);
    }

    #[test]
    fn texts_and_thoughts_of_a_step_keep_their_order() {
        let answer = answered(&[reasoning("a"), text("1"), reasoning("b"), text("2"), step()]);

        let expected = PromptMessage::Assistant {
            blocks: vec![thinks("a"), speaks("1"), thinks("b"), speaks("2")],
        };
        assert_eq!(prompt_of(&[answer]), [expected]);
    }

    #[test]
    fn entries_that_say_nothing_are_left_out() {
        let history = [
            asked(&[]),
            asked(&[""]),
            answered(&[]),
            answered(&[step()]),
            answered(&[text(""), step()]),
            answered(&[reasoning("Hm."), step()]),
        ];

        assert_eq!(prompt_of(&history), []);
    }

    fn prompt_of(history: &[Message]) -> Vec<PromptMessage> {
        prompt_messages(history, &BTreeMap::new())
    }

    fn message(role: MessageRole, parts: Vec<Part>) -> Message {
        Message {
            id: MessageId::from_bits(1),
            session_id: SessionId::from_bits(1),
            run_id: None,
            after_step: None,
            role,
            agent: None,
            model: None,
            parts,
            state: MessageState::Complete,
            finish_reason: None,
            error: None,
            usage: None,
            created_by: None,
            created_at: 0,
            completed_at: None,
        }
    }

    fn asked(texts: &[&str]) -> Message {
        message(MessageRole::User, texts.iter().copied().map(text).collect())
    }

    fn answered(parts: &[Part]) -> Message {
        message(MessageRole::Assistant, parts.to_vec())
    }

    fn text(text: &str) -> Part {
        Part::Text { id: PartId::from_bits(1), text: text.to_owned(), interrupted: false }
    }

    fn reasoning(text: &str) -> Part {
        Part::Reasoning { id: PartId::from_bits(1), text: text.to_owned(), interrupted: false }
    }

    fn text_cut(text: &str) -> Part {
        Part::Text { id: PartId::from_bits(1), text: text.to_owned(), interrupted: true }
    }

    fn thought_cut() -> Part {
        Part::Reasoning { id: PartId::from_bits(1), text: "Hm".to_owned(), interrupted: true }
    }

    fn step() -> Part {
        Part::Step {
            id: PartId::from_bits(1),
            index: 0,
            usage: Usage::default(),
            price_version: None,
            answered_by: None,
            finish_reason: FinishReason::Stop,
            raw_finish_reason: None,
        }
    }

    fn completed(id: u128, output: &str) -> Part {
        tool(id, ToolState::Completed, Some(output), None)
    }

    fn tool(id: u128, state: ToolState, output: Option<&str>, error: Option<&str>) -> Part {
        Part::Tool(ToolPart {
            id: PartId::from_bits(id),
            tool_call_id: ToolCallId::from_bits(id),
            tool_name: "read".to_owned(),
            input: json!({ "path": id.to_string() }),
            state,
            output: output.map(str::to_owned),
            error: error.map(str::to_owned),
            attachment: None,
            metadata: None,
            provider_executed: false,
            started_at: None,
            ended_at: None,
        })
    }

    fn user(text: &str) -> PromptMessage {
        PromptMessage::asked(text)
    }

    fn speaks(text: &str) -> PromptBlock {
        PromptBlock::Text { text: text.to_owned(), opaque: None }
    }

    fn thinks(text: &str) -> PromptBlock {
        PromptBlock::Reasoning { text: text.to_owned(), opaque: None }
    }

    fn says(text: &str, calls: &[u128]) -> PromptMessage {
        let text = (!text.is_empty()).then(|| speaks(text));
        let calls = calls.iter().copied().map(call);
        PromptMessage::Assistant { blocks: text.into_iter().chain(calls).collect() }
    }

    fn call(id: u128) -> PromptBlock {
        PromptBlock::Call(PromptCall {
            call_id: ToolCallId::from_bits(id).to_string(),
            tool_name: "read".to_owned(),
            arguments: json!({ "path": id.to_string() }),
            opaque: None,
        })
    }

    fn result(id: u128, output: &str) -> PromptMessage {
        PromptMessage::ToolResult {
            call_id: ToolCallId::from_bits(id).to_string(),
            tool_name: "read".to_owned(),
            output: output.to_owned(),
            is_error: false,
        }
    }

    fn error(id: u128, error: &str) -> PromptMessage {
        PromptMessage::ToolResult {
            call_id: ToolCallId::from_bits(id).to_string(),
            tool_name: "read".to_owned(),
            output: error.to_owned(),
            is_error: true,
        }
    }
}
