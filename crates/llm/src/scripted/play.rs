//! Plays the lines of one step as a model's stream.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use iris_agent::{PromptBlock, PromptMessage, said_with};
use iris_protocol::Usage;

use super::line::Line;
use crate::blocks::Blocks;
use crate::{Finish, ModelError, ModelEvent, ModelRequest, ModelStream, ReportedUsage};

/// What a text stands for the output of the last tool.
const RESULT: &str = "{{result}}";
/// Characters of one fragment of a call's arguments.
const FRAGMENT_CHARS: usize = 16;

/// What the lines may refer to.
pub(super) struct Scene {
    model: String,
    /// Words of the prompt.
    input_words: u64,
    /// Output of the last tool that ran; empty for none.
    result: String,
}

impl Scene {
    pub(super) fn of(request: &ModelRequest) -> Self {
        let mut input_words = words(&request.prompt.system);
        let mut result = "";
        for message in &request.prompt.messages {
            input_words += match message {
                PromptMessage::User { text, attachments } => words(&said_with(text, attachments)),
                PromptMessage::Assistant { blocks } => blocks.iter().map(words_of).sum(),
                PromptMessage::ToolResult { output, .. } => {
                    result = output;
                    words(output)
                }
            };
        }
        Self { model: request.model.clone(), input_words, result: result.to_owned() }
    }
}

/// The answer that `lines` describe. Waits only where they say so.
pub(super) fn play(lines: &[Line], scene: &Scene) -> ModelStream {
    let mut step = Step::new(scene);
    step.play(lines);
    let pieces = stream::iter(step.pieces).then(async |(delay, piece)| {
        if delay.is_zero() {
            // Without it a long answer would be one piece of work that lets nothing else run.
            tokio::task::consume_budget().await;
        } else {
            tokio::time::sleep(delay).await;
        }
        piece
    });
    pieces.boxed()
}

struct Step<'a> {
    scene: &'a Scene,
    pieces: Vec<(Duration, Result<ModelEvent, ModelError>)>,
    blocks: Blocks,
    delay: Duration,
    calls: usize,
    output_words: u64,
    reasoning_words: u64,
    /// Whether the last line was a `say`, so that the next one begins a new line.
    has_said: bool,
}

impl<'a> Step<'a> {
    fn new(scene: &'a Scene) -> Self {
        Self {
            scene,
            pieces: Vec::new(),
            blocks: Blocks::default(),
            delay: Duration::ZERO,
            calls: 0,
            output_words: 0,
            reasoning_words: 0,
            has_said: false,
        }
    }

    fn play(&mut self, lines: &[Line]) {
        let id = "scripted".to_owned();
        let asked = Usage { input_tokens: self.scene.input_words, ..Usage::default() };
        self.emit([
            ModelEvent::Start { model: self.scene.model.clone(), id },
            ModelEvent::UsageSoFar(asked.into()),
        ]);
        let last_call = lines.iter().rposition(|line| matches!(line, Line::Call { .. }));
        let is_cut_short = lines.contains(&Line::Finish(Finish::Length));
        let mut finish = None;
        for (at, line) in lines.iter().enumerate() {
            match line {
                Line::Say(text) => self.say(text),
                Line::Think(text) => self.think(text),
                Line::Chunks { count, text } => self.chunks(*count, text),
                Line::Call { tool, arguments } => {
                    self.call(tool, arguments, !is_cut_short || Some(at) != last_call);
                }
                Line::Delay { ms } => self.delay = Duration::from_millis(*ms),
                Line::Finish(reason) => finish = Some(*reason),
                Line::Fail { class, message } => {
                    return self.fail(ModelError::new(*class, message));
                }
                Line::Cut => return self.fail(ModelError::truncated()),
            }
            self.has_said = matches!(line, Line::Say(_));
        }
        let natural = if self.calls > 0 { Finish::ToolCalls } else { Finish::Stop };
        self.finish(finish.unwrap_or(natural));
    }

    fn say(&mut self, text: &str) {
        let mut text = text.replace(RESULT, &self.scene.result);
        if self.has_said {
            text.insert(0, '\n');
        }
        self.output_words += words(&text);
        let mut events = Vec::new();
        for word in text.split_inclusive(' ') {
            self.blocks.text(word, &mut events);
        }
        self.emit(events);
    }

    fn think(&mut self, text: &str) {
        let text = text.replace(RESULT, &self.scene.result);
        self.output_words += words(&text);
        self.reasoning_words += words(&text);
        let mut events = Vec::new();
        for word in text.split_inclusive(' ') {
            self.blocks.reasoning(word, &mut events);
        }
        self.emit(events);
    }

    fn chunks(&mut self, count: usize, text: &str) {
        let text = format!("{text} ");
        let mut events = Vec::new();
        for _ in 0..count {
            self.output_words += words(&text);
            self.blocks.text(&text, &mut events);
        }
        self.emit(events);
    }

    fn call(&mut self, tool: &str, arguments: &str, is_complete: bool) {
        let quoted = serde_json::Value::from(self.scene.result.as_str()).to_string();
        let inside = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
        let mut arguments = arguments.replace(RESULT, inside);
        if !is_complete {
            arguments.truncate(arguments.floor_char_boundary(arguments.len() / 2));
        }
        self.output_words += words(&arguments);
        self.calls += 1;
        let (call_id, name) = (format!("call_{}", self.calls), tool.to_owned());
        let mut events = Vec::new();
        self.blocks.close(&mut events);
        events.push(ModelEvent::ToolInputStart { call_id: call_id.clone(), name: name.clone() });
        let characters = arguments.chars().collect::<Vec<_>>();
        for fragment in characters.chunks(FRAGMENT_CHARS) {
            let (call_id, fragment) = (call_id.clone(), fragment.iter().collect());
            events.push(ModelEvent::ToolInputDelta { call_id, fragment });
        }
        let call = ModelEvent::ToolCall { call_id, name, arguments, is_complete, opaque: None };
        events.push(call);
        self.emit(events);
    }

    fn finish(&mut self, reason: Finish) {
        let raw = match reason {
            Finish::Stop => "stop",
            Finish::ToolCalls => "tool_calls",
            Finish::Length => "length",
            Finish::ContentFilter => "content_filter",
            Finish::ContextOverflow | Finish::Paused | Finish::Other => "other",
        };
        let mut events = Vec::new();
        self.blocks.close(&mut events);
        events.push(ModelEvent::Usage(ReportedUsage::from(Usage {
            input_tokens: self.scene.input_words,
            output_tokens: self.output_words,
            reasoning_tokens: self.reasoning_words,
            ..Usage::default()
        })));
        events.push(ModelEvent::Finish { reason, raw: raw.to_owned() });
        self.emit(events);
    }

    fn fail(&mut self, error: ModelError) {
        self.pieces.push((self.delay, Err(error)));
    }

    /// Queues events; the delay stands before those that carry something to see.
    fn emit(&mut self, events: impl IntoIterator<Item = ModelEvent>) {
        for event in events {
            let is_piece = matches!(
                event,
                ModelEvent::TextDelta { .. }
                    | ModelEvent::ReasoningDelta { .. }
                    | ModelEvent::ToolInputDelta { .. }
            );
            let delay = if is_piece { self.delay } else { Duration::ZERO };
            self.pieces.push((delay, Ok(event)));
        }
    }
}

fn words_of(block: &PromptBlock) -> u64 {
    match block {
        PromptBlock::Text { text, .. } => words(text),
        PromptBlock::Call(call) => words(&call.arguments.to_string()),
        PromptBlock::Reasoning { .. } | PromptBlock::ProviderTool { .. } => 0,
    }
}

fn words(text: &str) -> u64 {
    text.split_whitespace().map(|_| 1).sum()
}

#[cfg(test)]
mod tests {
    use iris_agent::{Prompt, PromptCall};
    use serde_json::json;

    use super::super::Scripted;
    use super::*;
    use crate::{ErrorClass, Model};

    fn user(text: &str) -> PromptMessage {
        PromptMessage::asked(text)
    }

    /// An answer with one call, and its result.
    fn step(output: &str) -> [PromptMessage; 2] {
        let call = PromptCall {
            call_id: "c".into(),
            tool_name: "read".into(),
            arguments: json!({"path": "x"}),
            opaque: None,
        };
        let result = PromptMessage::ToolResult {
            call_id: "c".into(),
            tool_name: "read".into(),
            output: output.into(),
            is_error: false,
        };
        [PromptMessage::Assistant { blocks: vec![PromptBlock::Call(call)] }, result]
    }

    async fn ask(
        model: &Scripted,
        messages: Vec<PromptMessage>,
    ) -> Vec<Result<ModelEvent, ModelError>> {
        let prompt = Prompt { messages, ..Prompt::default() };
        let request = ModelRequest { model: "m".into(), prompt, ..ModelRequest::default() };
        model.stream(request).collect().await
    }

    async fn said(model: &Scripted, messages: Vec<PromptMessage>) -> String {
        let mut said = String::new();
        for event in ask(model, messages).await {
            if let Ok(ModelEvent::TextDelta { text, .. }) = event {
                said.push_str(&text);
            }
        }
        said
    }

    #[tokio::test]
    async fn a_script_in_the_message_is_played_line_by_line() {
        let script = "think hm\nsay Hello there\nsay you\ncall read {\"path\": \"x\"}";
        let events = ask(&Scripted::default(), vec![user(script)]).await;
        let events: Vec<_> = events.into_iter().map(Result::unwrap).collect();
        let delta = |text: &str| ModelEvent::TextDelta { index: 1, text: text.into() };
        let usage =
            Usage { input_tokens: 11, output_tokens: 6, reasoning_tokens: 1, ..Usage::default() };
        let call_id = "call_1".to_owned();
        let expected = vec![
            ModelEvent::Start { model: "m".into(), id: "scripted".into() },
            ModelEvent::UsageSoFar(Usage { input_tokens: 11, ..Usage::default() }.into()),
            ModelEvent::ReasoningStart { index: 0 },
            ModelEvent::ReasoningDelta { index: 0, text: "hm".into() },
            ModelEvent::ReasoningEnd { index: 0 },
            ModelEvent::TextStart { index: 1 },
            delta("Hello "),
            delta("there"),
            delta("\nyou"),
            ModelEvent::TextEnd { index: 1 },
            ModelEvent::ToolInputStart { call_id: call_id.clone(), name: "read".into() },
            ModelEvent::ToolInputDelta {
                call_id: call_id.clone(),
                fragment: r#"{"path": "x"}"#.into(),
            },
            ModelEvent::ToolCall {
                call_id,
                name: "read".into(),
                arguments: r#"{"path": "x"}"#.into(),
                is_complete: true,
                opaque: None,
            },
            ModelEvent::Usage(usage.into()),
            ModelEvent::Finish { reason: Finish::ToolCalls, raw: "tool_calls".into() },
        ];
        assert_eq!(events, expected);
    }

    #[tokio::test]
    async fn the_next_step_can_quote_the_tools_result() {
        let script = "call read\nstep\nsay It says: {{result}}\ncall write {\"a\": \"{{result}}\"}";
        let [answer, result] = step("one\n\"two\"");
        let events = ask(&Scripted::default(), vec![user(script), answer, result]).await;
        let call = events.iter().find_map(|event| match event {
            Ok(ModelEvent::ToolCall { arguments, .. }) => Some(arguments.clone()),
            Ok(_) | Err(_) => None,
        });
        assert_eq!(call.as_deref(), Some(r#"{"a": "one\n\"two\""}"#));
        let [answer, result] = step("one\n\"two\"");
        let text = said(&Scripted::default(), vec![user(script), answer, result]).await;
        assert_eq!(text, "It says: one\n\"two\"");
    }

    #[tokio::test]
    async fn without_a_script_the_message_is_repeated() {
        let model = Scripted::default();
        assert_eq!(said(&model, vec![user("hello you")]).await, "You said: hello you");
        let [answer, result] = step("x");
        assert_eq!(said(&model, vec![user("say a"), answer, result]).await, "Done.");
    }

    #[tokio::test]
    async fn a_file_answers_turn_by_turn_and_a_script_in_the_message_goes_first() {
        let model = Scripted::new("say one\nstep\nsay more\nturn\nsay two").unwrap();
        let [answer, result] = step("x");
        let mut messages = vec![user("first")];
        assert_eq!(said(&model, messages.clone()).await, "one");
        messages.extend([answer, result]);
        assert_eq!(said(&model, messages.clone()).await, "more");
        messages.push(user("second"));
        assert_eq!(said(&model, messages.clone()).await, "two");
        messages.push(user("say mine"));
        assert_eq!(said(&model, messages.clone()).await, "mine");
        messages.push(user("fourth"));
        assert_eq!(said(&model, messages).await, "You said: fourth");
    }

    #[tokio::test]
    async fn failures_end_the_stream_without_a_finish() {
        for (script, expected) in [
            ("say a\ncut\nsay b", ModelError::truncated()),
            ("fail quota no money left", ModelError::new(ErrorClass::Quota, "no money left")),
        ] {
            let events = ask(&Scripted::default(), vec![user(script)]).await;
            assert_eq!(events.last(), Some(&Err(expected)));
        }
        let events = ask(&Scripted::default(), vec![user("say a\nsing")]).await;
        assert!(matches!(events.as_slice(), [Err(error)] if error.class == ErrorClass::Invalid));
    }

    #[tokio::test]
    async fn finish_length_cuts_the_last_call() {
        let script = "call read {}\ncall write {\"path\": 1}\nfinish length";
        let events = ask(&Scripted::default(), vec![user(script)]).await;
        let calls: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                Ok(ModelEvent::ToolCall { arguments, is_complete, .. }) => {
                    Some((arguments.as_str(), *is_complete))
                }
                Ok(_) | Err(_) => None,
            })
            .collect();
        assert_eq!(calls, [("{}", true), ("{\"pat", false)]);
        let raw = "length".to_owned();
        assert_eq!(events.last(), Some(&Ok(ModelEvent::Finish { reason: Finish::Length, raw })));
    }

    #[tokio::test(start_paused = true)]
    async fn delay_waits_before_each_piece() {
        let start = tokio::time::Instant::now();
        let events =
            ask(&Scripted::default(), vec![user("delay 20\nchunks 3 ab\ndelay 0\nsay c")]).await;
        let deltas = events.iter().filter(|e| matches!(e, Ok(ModelEvent::TextDelta { .. })));
        assert_eq!(deltas.count(), 4);
        assert_eq!(start.elapsed(), Duration::from_millis(60));
    }
}
