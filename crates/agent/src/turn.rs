//! One run of the agent loop as a pure state machine: `step(Input) -> Vec<Effect>`.
//!
//! Model calls, tools, approvals, cancel and limits are inputs and effects here, so the whole loop
//! fits in one file and is tested without a runtime. Whoever drives it performs the effects in
//! order; a `Record..` effect must be durable before the next effect is performed, which is how no
//! tool starts before its intent is durable (INV-6). When it cannot be made durable, the effects
//! after it are dropped and the next input is [`Input::RecordFailed`].

mod compacting;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{
    ApiError, CompactionPart, ErrorCode, FinishReason, JudgedAccess, Message, Part, PartId,
    QuestionItem, Remember, RunStatus, StreamKind, ToolCallId, ToolPart, ToolState, Usage,
};
use serde_json::Value;

use crate::progress::{Loop, Progress};
use crate::retry::RetryLimits;
use crate::{IdSource, OPAQUE_BYTES_MAX, Opaque};
use compacting::Compacting;

pub use compacting::{SQUEEZES_MAX, Summary, is_overflow};

/// Bounds of one run (INV-7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TurnLimits {
    /// Most model calls; the run ends with [`FinishReason::Steps`] after them. At least 1.
    pub steps_max: u32,
    /// Most tool calls of one model call; the ones after that are refused.
    pub calls_per_step_max: usize,
    /// Most bytes of one model call: text, reasoning, what providers want back with it, and what tools of
    /// theirs answered. More ends the run as failed.
    pub step_text_bytes_max: usize,
    /// The run fails after this many model calls in a row whose tool calls were all unusable. At
    /// least 1.
    pub unusable_steps_max: u32,
    /// The run fails after this many steps in a row whose calls and results, or whose errors, were all the
    /// same, and after two steps that came twice in turns. At least 2.
    pub same_steps_max: usize,
    /// The run fails after this many steps in a row whose calls were all the same, whatever came of them. At
    /// least 2.
    pub same_calls_max: usize,
    /// The run fails after this many model calls in a row that go on without a call of a tool: the model
    /// talks to itself. At least 1.
    pub idle_steps_max: u32,
    /// How often a model that failed is asked again.
    pub retry: RetryLimits,
}

impl Default for TurnLimits {
    fn default() -> Self {
        Self {
            steps_max: 50,
            calls_per_step_max: 16,
            step_text_bytes_max: 4 * 1024 * 1024,
            unusable_steps_max: 5,
            same_steps_max: 3,
            same_calls_max: 8,
            idle_steps_max: 8,
            retry: RetryLimits::default(),
        }
    }
}

/// Something that happened outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The run is recorded as running, or as one that goes on.
    Started,
    /// The model said more.
    TextArrived {
        /// What kind of text.
        kind: StreamKind,
        /// Tells apart the pieces of text of one model call, as the model numbers them.
        index: u32,
        /// The piece.
        text: String,
    },
    /// The provider wants something back with a text. One that it said nothing of begins with it, empty.
    OpaqueArrived {
        /// What kind of text.
        kind: StreamKind,
        /// The text, as the model numbers them.
        index: u32,
        /// What it wants back; in place of what it wanted before.
        opaque: Opaque,
    },
    /// The model called a tool, and the call is whole.
    CallArrived {
        /// The part that it was shown as while the model wrote it, if it was.
        part_id: Option<PartId>,
        /// The tool.
        tool_name: String,
        /// The arguments; the raw text as a string where it was not a JSON object.
        input: Value,
        /// What may become of it.
        verdict: Verdict,
        /// What the provider wants back with it.
        opaque: Option<Opaque>,
    },
    /// The provider ran a tool of its own; that it did is all there is to it.
    ProviderToolArrived(ProviderTool),
    /// The model call used this much so far.
    UsageArrived(Usage),
    /// The model call ended.
    ModelFinished(FinishReason),
    /// The provider paused its answer: asked again with what it said so far, it goes on.
    ModelPaused,
    /// The model call failed. It is made again where the error is retryable.
    ModelFailed {
        /// Why; `retry_after_ms` is what the provider wants at least.
        error: ApiError,
        /// Whether another model may be asked in place of this one.
        has_fallback: bool,
    },
    /// A budget is used up: the model was not asked, and is not asked any more in this run.
    BudgetExceeded(ApiError),
    /// The conversation is too long for the model, or about to be: it was not asked, or refused.
    ContextFull {
        /// What the provider said, if it was asked.
        error: Option<ApiError>,
    },
    /// The answer to [`Effect::Compact`].
    Summarized(Summary),
    /// The wait of [`Effect::AskAgainAfter`] is over.
    RetryDue,
    /// A person let a call run; that is recorded.
    CallApproved {
        /// The call.
        call_id: ToolCallId,
        /// Arguments in place of those of the model.
        edited: Option<Value>,
    },
    /// A call that waited has its result without having run, and that is recorded: it was refused by a
    /// person or by time, or what it asked was answered.
    CallSettled(ToolCallId),
    /// A tool ended.
    ToolEnded {
        /// The call.
        call_id: ToolCallId,
        /// How.
        outcome: ToolOutcome,
    },
    /// A user wants the run to end.
    CancelRequested,
    /// A `Record..` effect could not be made durable.
    RecordFailed(ApiError),
}

/// A tool that the provider ran itself.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderTool {
    /// The tool.
    pub tool_name: String,
    /// The arguments; an object where they are one.
    pub input: Value,
    /// What it answered, for people; the error's text when `is_error`.
    pub output: String,
    /// Whether it failed.
    pub is_error: bool,
    /// What the provider wants back.
    pub opaque: Option<Opaque>,
}

/// What may become of a tool call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It runs.
    Run,
    /// It waits for a person.
    Ask(Wait),
    /// Nobody may make it: it gets this error as its result.
    Deny(String),
    /// It is no call that could be made: it gets this error as its result.
    Refuse(String),
}

/// What a call waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// A yes, with which it runs.
    Approval(ApprovalRequest),
    /// Answers to these questions, which are its result: it never runs.
    Answers(Vec<QuestionItem>),
}

/// What a person is asked about a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApprovalRequest {
    /// One sentence.
    pub message: String,
    /// What the call touches, and what the rules say of it.
    pub accesses: Vec<JudgedAccess>,
    /// How long a yes may hold.
    pub options: Vec<Remember>,
}

/// How a tool ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolOutcome {
    /// It answered.
    Completed {
        /// What the model reads.
        output: String,
        /// Facts for clients.
        metadata: Option<Value>,
        /// What it answered besides.
        attachment: Option<Attached>,
    },
    /// It failed; the model reads why.
    Failed {
        /// What the model reads.
        error: String,
    },
}

/// What a tool answered besides what the model reads at once.
#[derive(Clone, PartialEq, Eq)]
pub struct Attached {
    /// `text/plain` for the whole of a text that was cut, or that of an image.
    pub mime_type: String,
    /// All of it.
    pub bytes: Arc<[u8]>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mime_type, bytes) = (&self.mime_type, self.bytes.len());
        f.debug_struct("Attached").field("mime_type", mime_type).field("bytes", &bytes).finish()
    }
}

/// Something to be done outside, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask the model with the recorded conversation.
    CallModel,
    /// Ask for a summary of the recorded conversation, which takes its place then.
    Compact {
        /// How often that was too long already: less of it is to be taken each time.
        squeezed: u32,
    },
    /// Drop the model's stream.
    AbortModel,
    /// Show a piece of text.
    Show {
        /// The part.
        part_id: PartId,
        /// What kind of text.
        kind: StreamKind,
        /// Bytes of the part before this piece.
        offset: u64,
        /// The piece.
        text: String,
    },
    /// Make it durable that the model is asked again, and forget what it said of this step.
    RecordRetry(Retry),
    /// Wait, then [`Input::RetryDue`].
    AskAgainAfter(Duration),
    /// Make it durable that the wait is over.
    RecordRetryOver,
    /// Make a step and the intents of its calls durable.
    RecordStep {
        /// In order of appearance.
        parts: Vec<StepPart>,
        /// The end of the model call.
        step: StepEnd,
    },
    /// Make a result durable.
    RecordResult {
        /// The call.
        call_id: ToolCallId,
        /// How it ended.
        outcome: ToolOutcome,
    },
    /// Start a tool.
    RunTool {
        /// The call.
        call_id: ToolCallId,
        /// The tool.
        tool_name: String,
        /// The arguments.
        input: Value,
    },
    /// Stop a tool; its result will not be read.
    AbortTool(ToolCallId),
    /// Record the end; nothing follows.
    End(TurnEnd),
}

/// Another attempt at a step, after one that failed. Nothing of the failed one was acted upon: tools run
/// once a step is recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Which attempt at the step comes next, of those with the same model; 1 for the first of a fallback.
    pub attempt: u32,
    /// Why the last one failed.
    pub error: ApiError,
    /// How long is waited before it.
    pub delay: Duration,
    /// What the failed attempt used.
    pub usage: Usage,
    /// Whether another model is asked from here on.
    pub falls_back: bool,
}

/// A part of one step, as it is recorded.
#[derive(Debug, Clone, PartialEq)]
pub enum StepPart {
    /// Text or reasoning, whole.
    Text {
        /// The part.
        id: PartId,
        /// What kind of text.
        kind: StreamKind,
        /// All of it; empty only with something opaque.
        text: String,
        /// What the provider wants back with it.
        opaque: Option<Opaque>,
    },
    /// A tool call. Its state says what follows: `running` starts now, `waiting` asks, a final one
    /// holds its error, or its output where the provider ran it.
    Call {
        /// The part.
        part: ToolPart,
        /// What it waits for; only while it waits.
        wait: Option<Wait>,
        /// What the provider wants back with it.
        opaque: Option<Opaque>,
    },
    /// A summary in place of what came before.
    Compaction(CompactionPart),
}

impl StepPart {
    /// Whether it is a call of one of our tools.
    fn is_call(&self) -> bool {
        matches!(self, Self::Call { part, .. } if !part.provider_executed)
    }

    /// Bytes that the model or its provider sent.
    fn bytes(&self) -> usize {
        match self {
            Self::Text { text, opaque, .. } => text.len() + bytes_of(opaque.as_ref()),
            Self::Call { part, opaque, .. } => {
                let shown = [&part.output, &part.error].into_iter().flatten().map(String::len);
                let shown = if part.provider_executed { shown.sum() } else { 0 };
                shown + bytes_of(opaque.as_ref())
            }
            Self::Compaction(part) => part.summary.len(),
        }
    }
}

fn bytes_of(opaque: Option<&Opaque>) -> usize {
    opaque.map_or(0, |opaque| opaque.json.len())
}

/// The end of one model call.
#[derive(Debug, Clone, PartialEq)]
pub struct StepEnd {
    /// The step's own part.
    pub part_id: PartId,
    /// From 0.
    pub index: u32,
    /// Of this call alone.
    pub usage: Usage,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnEnd {
    /// Parts of the last model call that are not recorded yet.
    pub parts: Vec<StepPart>,
    /// The last model call, where it ended and is not recorded yet.
    pub step: Option<StepEnd>,
    /// What model calls used that belong to no step: one that was cut off, a summary that came to nothing.
    pub usage: Usage,
    /// Completed, failed or cancelled.
    pub status: RunStatus,
    /// Why.
    pub finish_reason: FinishReason,
    /// What went wrong, when something did.
    pub error: Option<ApiError>,
}

/// The state machine. See the module's documentation for the contract with whoever drives it.
#[derive(Debug)]
pub struct Turn {
    limits: TurnLimits,
    phase: Phase,
    /// Model calls that are recorded: the index of the next one.
    step: u32,
    unusable_steps: u32,
    /// The last ones in a row that went on without a call.
    idle_steps: u32,
    progress: Progress,
    /// Attempts at this step that failed.
    failed: u32,
    /// How long was waited in this step for a provider that is left alone.
    waited: Duration,
    compacting: Compacting,
    parts: Vec<OpenPart>,
    usage: Usage,
    /// Calls without a result, of the step that was recorded last.
    calls: Vec<OpenCall>,
    /// The last effects were a record and the end: if the record fails, the end was not performed.
    end_awaits_record: bool,
}

/// Where a run goes on that was cut off: after the last step of its answer that is recorded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Resumption {
    /// Model calls so far.
    pub steps: u32,
    /// Of these, the last ones in a row whose tool calls were all unusable.
    pub unusable_steps: u32,
    /// Of these, the last ones in a row without a call of a tool.
    pub idle_steps: u32,
    /// What the last steps were.
    pub progress: Progress,
    /// The calls that wait for a person.
    pub waiting: Vec<UnfinishedCall>,
    /// The calls that are to run again, which take up what they began before; every other call has its
    /// result.
    pub running: Vec<UnfinishedCall>,
}

/// A call without a result.
#[derive(Debug, Clone, PartialEq)]
pub struct UnfinishedCall {
    /// The call.
    pub id: ToolCallId,
    /// The tool.
    pub tool_name: String,
    /// The arguments.
    pub input: Value,
}

impl Resumption {
    /// Reads it from an answer with all the parts that are recorded of it.
    ///
    /// `limits` are those of the run.
    pub fn of(answer: &Message, limits: &TurnLimits) -> Self {
        let mut resumption = Self::default();
        let (mut is_usable, mut has_calls) = (false, false);
        let mut is_summary = false;
        for part in &answer.parts {
            match part {
                // The step behind it made the summary, and says nothing of the model's progress.
                Part::Compaction(_) => is_summary = true,
                Part::Step { .. } if std::mem::take(&mut is_summary) => resumption.steps += 1,
                Part::Tool(call) if call.provider_executed => {}
                Part::Tool(call) => {
                    if !has_calls {
                        // Results of the last step may still be to come.
                        resumption.progress.end_step(limits.same_steps_max, limits.same_calls_max);
                    }
                    has_calls = true;
                    resumption.progress.note_recorded(call);
                    // What was refused as soon as it arrived has its error and has never begun.
                    is_usable |= call.state != ToolState::Error || call.started_at.is_some();
                    let unfinished = || UnfinishedCall {
                        id: call.tool_call_id.clone(),
                        tool_name: call.tool_name.clone(),
                        input: call.input.clone(),
                    };
                    match call.state {
                        ToolState::Waiting => resumption.waiting.push(unfinished()),
                        ToolState::Running => resumption.running.push(unfinished()),
                        ToolState::Pending
                        | ToolState::Completed
                        | ToolState::Error
                        | ToolState::Denied
                        | ToolState::Cancelled
                        | ToolState::UnknownOutcome => {}
                    }
                }
                Part::Step { .. } => {
                    let unusable = resumption.unusable_steps + 1;
                    let is_unusable = has_calls && !is_usable;
                    resumption.unusable_steps = if is_unusable { unusable } else { 0 };
                    if is_unusable {
                        resumption.progress.drop_step();
                    }
                    resumption.idle_steps = if has_calls { 0 } else { resumption.idle_steps + 1 };
                    resumption.steps += 1;
                    (is_usable, has_calls) = (false, false);
                }
                Part::Text { .. }
                | Part::Reasoning { .. }
                | Part::Subtask(_)
                | Part::AnswerFormat(_)
                | Part::Attachment(_) => {}
            }
        }
        resumption
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Ready,
    Model,
    /// Asking for a summary.
    Compacting,
    /// Between two attempts at a step.
    Pause,
    Tools,
    Ended,
}

#[derive(Debug)]
struct OpenPart {
    /// The model's number of a text; none for calls.
    index: Option<u32>,
    part: StepPart,
}

#[derive(Debug)]
struct OpenCall {
    id: ToolCallId,
    tool_name: String,
    input: Value,
    is_running: bool,
}

impl Turn {
    /// A run that has not started.
    pub fn new(limits: TurnLimits) -> Self {
        Self::resume(limits, Resumption::default())
    }

    /// A run that was cut off. Nothing that has a result is done again, the limits count over the
    /// whole run, and calls that wait are answered by [`Input::CallApproved`] and
    /// [`Input::CallSettled`] as before. Calls that run are run again.
    pub fn resume(limits: TurnLimits, resumption: Resumption) -> Self {
        let Resumption { steps, unusable_steps, idle_steps, progress, waiting, running } =
            resumption;
        let open = |is_running| {
            move |UnfinishedCall { id, tool_name, input }| OpenCall {
                id,
                tool_name,
                input,
                is_running,
            }
        };
        let calls = waiting.into_iter().map(open(false)).chain(running.into_iter().map(open(true)));
        Self {
            limits,
            phase: Phase::Ready,
            step: steps,
            unusable_steps,
            idle_steps,
            progress,
            failed: 0,
            waited: Duration::ZERO,
            compacting: Compacting::default(),
            parts: Vec::new(),
            usage: Usage::default(),
            calls: calls.collect(),
            end_awaits_record: false,
        }
    }

    /// Lets the run make at most that many steps, where it may make more.
    pub fn limit_steps(&mut self, steps_max: u32) {
        self.limits.steps_max = self.limits.steps_max.min(steps_max.max(1));
    }

    /// Whether the run has ended: no input has an effect any more, except that the record right
    /// before the end failed.
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Takes one input and says what to do. An input that does not fit the state has no effect.
    pub fn step(&mut self, input: Input, ids: &dyn IdSource) -> Vec<Effect> {
        let end_awaited_record = std::mem::take(&mut self.end_awaits_record);
        match (self.phase, input) {
            (Phase::Ended, Input::RecordFailed(error)) if end_awaited_record => self.fail(error),
            (Phase::Ended, _) => Vec::new(),
            (Phase::Ready, Input::Started) if self.compacting.only => self.ask_for_summary(),
            (Phase::Ready, Input::Started) => {
                self.phase = Phase::Tools;
                let running = self.calls.iter().filter(|call| call.is_running);
                let mut effects: Vec<Effect> = running.map(OpenCall::run).collect();
                effects.extend(self.next_step_if_done());
                effects
            }
            (Phase::Model, Input::TextArrived { kind, index, text }) => {
                self.text_arrived(kind, index, text, ids)
            }
            (Phase::Model, Input::OpaqueArrived { kind, index, opaque }) => {
                self.opaque_arrived(kind, index, opaque, ids)
            }
            (Phase::Model, Input::CallArrived { part_id, tool_name, input, verdict, opaque }) => {
                let mut made = tool_part(tool_name, input, ids);
                made.id = part_id.unwrap_or(made.id);
                let part = self.judged_call(made, verdict, opaque);
                self.add_call(part)
            }
            (Phase::Model, Input::ProviderToolArrived(tool)) => {
                self.add_call(provider_tool(tool, ids))
            }
            (Phase::Model | Phase::Compacting, Input::UsageArrived(usage)) => {
                self.usage = usage;
                Vec::new()
            }
            (Phase::Model, Input::ModelFinished(reason)) => self.model_finished(reason, ids),
            (Phase::Model, Input::ModelPaused) => {
                let step = self.step_end(FinishReason::Stop, ids);
                self.record_step(step)
            }
            (Phase::Tools, Input::CallApproved { call_id, edited }) => {
                self.call_approved(&call_id, edited)
            }
            (Phase::Tools, Input::CallSettled(id)) => self.call_settled(&id),
            (Phase::Tools, Input::ToolEnded { call_id, outcome }) => {
                self.tool_ended(call_id, outcome)
            }
            (_, Input::CancelRequested) => {
                self.end(RunStatus::Cancelled, FinishReason::Cancelled, None)
            }
            (Phase::Model | Phase::Compacting, Input::ModelFailed { error, has_fallback }) => {
                self.model_failed(error, has_fallback, ids)
            }
            (Phase::Model | Phase::Compacting, Input::BudgetExceeded(error)) => {
                self.end_with(RunStatus::Failed, FinishReason::Budget, error)
            }
            (Phase::Model, Input::ContextFull { error }) => self.context_full(error),
            (Phase::Compacting, Input::ContextFull { error }) => self.summary_overflows(error),
            (Phase::Compacting, Input::Summarized(summary)) => self.summarized(summary, ids),
            (Phase::Pause, Input::RetryDue) => self.ask_again(),
            (_, Input::RecordFailed(error)) => self.fail(error),
            (
                Phase::Ready | Phase::Model | Phase::Compacting | Phase::Pause | Phase::Tools,
                Input::Started
                | Input::TextArrived { .. }
                | Input::OpaqueArrived { .. }
                | Input::CallArrived { .. }
                | Input::ProviderToolArrived(_)
                | Input::ModelPaused
                | Input::UsageArrived(_)
                | Input::ModelFinished(_)
                | Input::ModelFailed { .. }
                | Input::BudgetExceeded(_)
                | Input::ContextFull { .. }
                | Input::Summarized(_)
                | Input::RetryDue
                | Input::CallApproved { .. }
                | Input::CallSettled(_)
                | Input::ToolEnded { .. },
            ) => Vec::new(),
        }
    }

    fn text_arrived(
        &mut self,
        kind: StreamKind,
        index: u32,
        piece: String,
        ids: &dyn IdSource,
    ) -> Vec<Effect> {
        if piece.is_empty() {
            return Vec::new();
        }
        if self.bytes() + piece.len() > self.limits.step_text_bytes_max {
            return self.too_much();
        }
        if let Some(StepPart::Text { id, text, .. }) = self.text_part(kind, index) {
            let (part_id, offset) = (id.clone(), text.len() as u64);
            text.push_str(&piece);
            return vec![Effect::Show { part_id, kind, offset, text: piece }];
        }
        let id = PartId::from_bits(ids.next_bits());
        let part = StepPart::Text { id: id.clone(), kind, text: piece.clone(), opaque: None };
        self.parts.push(OpenPart { index: Some(index), part });
        vec![Effect::Show { part_id: id, kind, offset: 0, text: piece }]
    }

    fn opaque_arrived(
        &mut self,
        kind: StreamKind,
        index: u32,
        opaque: Opaque,
        ids: &dyn IdSource,
    ) -> Vec<Effect> {
        let bytes = opaque.json.len();
        if bytes > OPAQUE_BYTES_MAX || self.bytes() + bytes > self.limits.step_text_bytes_max {
            return self.too_much();
        }
        if let Some(StepPart::Text { opaque: kept, .. }) = self.text_part(kind, index) {
            *kept = Some(opaque);
            return Vec::new();
        }
        let id = PartId::from_bits(ids.next_bits());
        let part = StepPart::Text { id, kind, text: String::new(), opaque: Some(opaque) };
        self.parts.push(OpenPart { index: Some(index), part });
        Vec::new()
    }

    /// The newest part of that number: a model that numbers sloppily continues what it said last.
    fn text_part(&mut self, of_kind: StreamKind, index: u32) -> Option<&mut StepPart> {
        let mut parts = self.parts.iter_mut().rev().filter(|open| open.index == Some(index));
        let found = parts.find(|open| match &open.part {
            StepPart::Text { kind, .. } => *kind == of_kind,
            StepPart::Call { .. } | StepPart::Compaction(_) => false,
        });
        found.map(|open| &mut open.part)
    }

    fn bytes(&self) -> usize {
        self.parts.iter().map(|open| open.part.bytes()).sum()
    }

    fn too_much(&mut self) -> Vec<Effect> {
        let limit = self.limits.step_text_bytes_max;
        let message = format!("the model said more than {limit} bytes in one step");
        self.fail(ApiError::new(ErrorCode::ProviderError, message).reason("output_limit"))
    }

    fn judged_call(&self, made: ToolPart, verdict: Verdict, opaque: Option<Opaque>) -> StepPart {
        let calls = self.parts.iter().filter(|open| open.part.is_call()).count();
        let verdict = if calls < self.limits.calls_per_step_max {
            verdict
        } else {
            let limit = self.limits.calls_per_step_max;
            Verdict::Refuse(format!("at most {limit} tools may be called at once; call it again"))
        };
        let (state, wait, error) = match verdict {
            Verdict::Run => (ToolState::Running, None, None),
            Verdict::Ask(wait) => (ToolState::Waiting, Some(wait), None),
            Verdict::Deny(error) => (ToolState::Denied, None, Some(error)),
            Verdict::Refuse(error) => (ToolState::Error, None, Some(error)),
        };
        let part = ToolPart { state, error, ..made };
        StepPart::Call { part, wait, opaque }
    }

    fn add_call(&mut self, part: StepPart) -> Vec<Effect> {
        if self.bytes() + part.bytes() > self.limits.step_text_bytes_max {
            return self.too_much();
        }
        self.parts.push(OpenPart { index: None, part });
        Vec::new()
    }

    fn step_end(&mut self, finish_reason: FinishReason, ids: &dyn IdSource) -> StepEnd {
        StepEnd {
            part_id: PartId::from_bits(ids.next_bits()),
            index: self.step,
            usage: std::mem::take(&mut self.usage),
            finish_reason,
        }
    }

    fn model_finished(&mut self, reason: FinishReason, ids: &dyn IdSource) -> Vec<Effect> {
        let step = self.step_end(reason, ids);
        let has_calls = self.parts.iter().any(|open| open.part.is_call());
        let goes_on = match reason {
            FinishReason::Stop
            | FinishReason::ToolCalls
            | FinishReason::Length
            | FinishReason::Other => has_calls,
            FinishReason::ContentFilter
            | FinishReason::Cancelled
            | FinishReason::Error
            | FinishReason::Budget
            | FinishReason::Steps => false,
        };
        if !goes_on {
            return self.end(RunStatus::Completed, reason, Some(step));
        }
        self.record_step(step)
    }

    /// Asks again, asks another model, or gives up.
    fn model_failed(
        &mut self,
        error: ApiError,
        has_fallback: bool,
        ids: &dyn IdSource,
    ) -> Vec<Effect> {
        if !error.retryable {
            return self.fail(error);
        }
        let (delay, falls_back) = match self.delay(&error, has_fallback, ids.next_bits()) {
            Some(delay) => (delay, false),
            None if has_fallback => (Duration::ZERO, true),
            None => return self.fail(error),
        };
        if falls_back {
            self.begin_attempts();
        }
        self.phase = Phase::Pause;
        self.parts.clear();
        let (attempt, usage) = (self.failed + 1, std::mem::take(&mut self.usage));
        let retry = Retry { attempt, error, delay, usage, falls_back };
        vec![Effect::AbortModel, Effect::RecordRetry(retry), Effect::AskAgainAfter(delay)]
    }

    /// How long to wait until the model is asked again; none where it is not.
    fn delay(&mut self, error: &ApiError, has_fallback: bool, bits: u128) -> Option<Duration> {
        let limits = self.limits.retry;
        let hint = error.retry_after_ms.map(Duration::from_millis);
        // Nobody was asked, so that nobody failed. Where another model may answer, that one need not wait.
        if is_not_asked(error) && !has_fallback {
            let delay = limits.delay(0, hint, bits)?;
            self.waited = self.waited.saturating_add(delay);
            return (self.waited <= limits.left_alone_max).then_some(delay);
        }
        self.failed += 1;
        let attempts_max = if reason_of(error) == Some(BAD_ANSWER) {
            limits.attempts_max.min(BAD_ANSWERS_MAX)
        } else {
            limits.attempts_max
        };
        RetryLimits { attempts_max, ..limits }.delay(self.failed, hint, bits)
    }

    fn begin_attempts(&mut self) {
        self.failed = 0;
        self.waited = Duration::ZERO;
    }

    fn ask_again(&mut self) -> Vec<Effect> {
        let (phase, ask) = if self.compacting.is_asked {
            (Phase::Compacting, Effect::Compact { squeezed: self.compacting.squeezed })
        } else {
            (Phase::Model, Effect::CallModel)
        };
        self.phase = phase;
        vec![Effect::RecordRetryOver, ask]
    }

    fn record_step(&mut self, step: StepEnd) -> Vec<Effect> {
        self.phase = Phase::Tools;
        self.compacting = Compacting::default();
        let parts: Vec<StepPart> = self.parts.drain(..).map(|open| open.part).collect();
        // A step without calls is one after which a paused provider goes on.
        let has_calls = parts.iter().any(StepPart::is_call);
        let mut is_usable = !has_calls;
        self.idle_steps = if has_calls { 0 } else { self.idle_steps + 1 };
        for part in parts.iter().filter(|part| part.is_call()) {
            let StepPart::Call { part, .. } = part else { continue };
            is_usable |= part.state != ToolState::Error;
            self.progress.note_recorded(part);
            if !part.state.is_final() {
                self.calls.push(OpenCall {
                    id: part.tool_call_id.clone(),
                    tool_name: part.tool_name.clone(),
                    input: part.input.clone(),
                    is_running: part.state == ToolState::Running,
                });
            }
        }
        self.step += 1;
        self.begin_attempts();
        self.unusable_steps = if is_usable { 0 } else { self.unusable_steps + 1 };
        if !is_usable {
            // These are counted by themselves.
            self.progress.drop_step();
        }
        let mut effects = vec![Effect::RecordStep { parts, step }];
        effects.extend(self.calls.iter().filter(|call| call.is_running).map(OpenCall::run));
        effects.extend(self.next_step_if_done());
        self.end_awaits_record = self.is_ended();
        effects
    }

    fn call_approved(&mut self, id: &ToolCallId, edited: Option<Value>) -> Vec<Effect> {
        let waiting = self.calls.iter_mut().find(|call| call.id == *id && !call.is_running);
        let Some(call) = waiting else { return Vec::new() };
        call.is_running = true;
        call.input = edited.unwrap_or_else(|| call.input.take());
        vec![call.run()]
    }

    fn call_settled(&mut self, id: &ToolCallId) -> Vec<Effect> {
        let waiting = self.calls.iter().position(|call| call.id == *id && !call.is_running);
        let Some(position) = waiting else { return Vec::new() };
        self.calls.remove(position);
        self.progress.note_incomparable();
        self.next_step_if_done()
    }

    fn tool_ended(&mut self, call_id: ToolCallId, outcome: ToolOutcome) -> Vec<Effect> {
        let running = self.calls.iter().position(|call| call.id == call_id && call.is_running);
        let Some(position) = running else { return Vec::new() };
        let call = self.calls.remove(position);
        let result = match &outcome {
            ToolOutcome::Completed { output, .. } => Ok(output.as_str()),
            ToolOutcome::Failed { error } => Err(error.as_str()),
        };
        self.progress.note(&call.tool_name, &call.input, result);
        let mut effects = vec![Effect::RecordResult { call_id, outcome }];
        effects.extend(self.next_step_if_done());
        self.end_awaits_record = self.is_ended();
        effects
    }

    /// The next model call once every call has its result (INV-3), within the limits.
    fn next_step_if_done(&mut self) -> Vec<Effect> {
        if !self.calls.is_empty() {
            return Vec::new();
        }
        if self.unusable_steps >= self.limits.unusable_steps_max {
            let steps = self.unusable_steps;
            let message = format!("the model made only unusable tool calls {steps} times in a row");
            return self.fail(
                ApiError::new(ErrorCode::ProviderError, message).reason("tool_args_invalid"),
            );
        }
        let limits = &self.limits;
        let found = self.progress.end_step(limits.same_steps_max, limits.same_calls_max);
        let is_idle = self.idle_steps >= self.limits.idle_steps_max;
        if let Some(found) = found.or(is_idle.then_some(Loop::Monologue)) {
            let error = ApiError::new(ErrorCode::ProviderError, found.message());
            return self.fail(ApiError { retryable: false, ..error.reason("loop") });
        }
        if self.step >= self.limits.steps_max {
            return self.end(RunStatus::Completed, FinishReason::Steps, None);
        }
        self.phase = Phase::Model;
        vec![Effect::CallModel]
    }

    fn fail(&mut self, error: ApiError) -> Vec<Effect> {
        self.end_with(RunStatus::Failed, FinishReason::Error, error)
    }

    fn end_with(
        &mut self,
        status: RunStatus,
        finish_reason: FinishReason,
        error: ApiError,
    ) -> Vec<Effect> {
        let mut effects = self.end(status, finish_reason, None);
        if let Some(Effect::End(end)) = effects.last_mut() {
            end.error = Some(error);
        }
        effects
    }

    /// Ends the run. Calls that were not recorded are dropped: nobody was promised a result of them.
    fn end(
        &mut self,
        status: RunStatus,
        finish_reason: FinishReason,
        step: Option<StepEnd>,
    ) -> Vec<Effect> {
        let mut effects = Vec::new();
        if matches!(self.phase, Phase::Model | Phase::Compacting) && step.is_none() {
            effects.push(Effect::AbortModel);
        }
        let running = self.calls.drain(..).filter(|call| call.is_running);
        effects.extend(running.map(|call| Effect::AbortTool(call.id)));
        self.phase = Phase::Ended;
        let parts = self.parts.drain(..).map(|open| open.part);
        let parts = parts.filter(|part| !part.is_call()).collect();
        let usage = if step.is_none() { self.unrecorded() } else { Usage::default() };
        let end = TurnEnd { parts, step, usage, status, finish_reason, error: None };
        effects.push(Effect::End(end));
        effects
    }
}

/// The reason of an answer that nothing can be made of, the same as the class of a provider's failure.
const BAD_ANSWER: &str = "bad_answer";
/// How often a model may answer so before its run fails: it might do so for ever.
const BAD_ANSWERS_MAX: u32 = 2;

fn reason_of(error: &ApiError) -> Option<&str> {
    error.details.get("reason").and_then(Value::as_str)
}

/// Whether a provider was not asked at all, because it is left alone for a while.
fn is_not_asked(error: &ApiError) -> bool {
    error.details.get("notAsked").and_then(Value::as_bool) == Some(true)
}

/// A call with ids of its own and without a state.
fn tool_part(tool_name: String, input: Value, ids: &dyn IdSource) -> ToolPart {
    ToolPart {
        id: PartId::from_bits(ids.next_bits()),
        tool_call_id: ToolCallId::from_bits(ids.next_bits()),
        tool_name,
        input,
        state: ToolState::Pending,
        output: None,
        attachment: None,
        error: None,
        metadata: None,
        provider_executed: false,
        started_at: None,
        ended_at: None,
    }
}

fn provider_tool(tool: ProviderTool, ids: &dyn IdSource) -> StepPart {
    let ProviderTool { tool_name, input, output, is_error, opaque } = tool;
    let (state, output, error) = if is_error {
        (ToolState::Error, None, Some(output))
    } else {
        (ToolState::Completed, Some(output), None)
    };
    let part = tool_part(tool_name, input, ids);
    let part = ToolPart { state, output, error, provider_executed: true, ..part };
    StepPart::Call { part, wait: None, opaque }
}

impl OpenCall {
    fn run(&self) -> Effect {
        Effect::RunTool {
            call_id: self.id.clone(),
            tool_name: self.tool_name.clone(),
            input: self.input.clone(),
        }
    }
}
