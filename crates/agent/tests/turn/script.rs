//! Inputs and effects in few words. Ids are counted, so that a test can name them in advance.

use std::sync::atomic::{AtomicU64, Ordering};

use iris_agent::{
    ApprovalRequest, Effect, IdSource, Input, Resumption, StepEnd, StepPart, ToolOutcome, Turn,
    TurnEnd, TurnLimits, Verdict, Wait,
};
use iris_protocol::{
    ApiError, ErrorCode, FinishReason, PartId, QuestionItem, RunStatus, StreamKind, ToolCallId,
    ToolPart, ToolState, Usage,
};
use serde_json::{Value, json};

/// Gives 1, 2, 3 and so on. A text takes one number; a call takes one for its part, then its own.
#[derive(Debug, Default)]
pub(crate) struct CountingIds(AtomicU64);

impl IdSource for CountingIds {
    fn next_bits(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed)) + 1
    }
}

/// A machine whose model was just called.
pub(crate) struct Scene {
    turn: Turn,
    ids: CountingIds,
}

impl Scene {
    pub(crate) fn started() -> Self {
        Self::started_with(TurnLimits::default())
    }

    pub(crate) fn started_with(limits: TurnLimits) -> Self {
        let mut scene = Self { turn: Turn::new(limits), ids: CountingIds::default() };
        assert_eq!(scene.step(Input::Started), [Effect::CallModel]);
        scene
    }

    /// A machine of a run that was cut off, before it is told to go on.
    pub(crate) fn resumed(limits: TurnLimits, resumption: Resumption) -> Self {
        Self { turn: Turn::resume(limits, resumption), ids: CountingIds::default() }
    }

    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        self.turn.step(input, &self.ids)
    }

    pub(crate) fn is_ended(&self) -> bool {
        self.turn.is_ended()
    }
}

// Inputs.

pub(crate) fn says(text: &str) -> Input {
    says_in(0, text)
}

pub(crate) fn says_in(index: u32, text: &str) -> Input {
    Input::TextArrived { kind: StreamKind::Text, index, text: text.to_owned() }
}

pub(crate) fn calls(tool_name: &str, verdict: Verdict) -> Input {
    let tool_name = tool_name.to_owned();
    Input::CallArrived { part_id: None, tool_name, input: arguments(), verdict, opaque: None }
}

pub(crate) fn finishes(reason: FinishReason) -> Input {
    Input::ModelFinished(reason)
}

pub(crate) fn answers(call: u128, output: &str) -> Input {
    Input::ToolEnded { call_id: call_id(call), outcome: completed(output) }
}

pub(crate) fn asks() -> Verdict {
    let request = ApprovalRequest { message: "may it?".to_owned(), ..Default::default() };
    Verdict::Ask(Wait::Approval(request))
}

/// What the call asks is its own business: it waits for answers and never runs.
pub(crate) fn asks_people() -> Verdict {
    let question = QuestionItem { text: "which?".to_owned(), options: Vec::new(), multiple: false };
    Verdict::Ask(Wait::Answers(vec![question]))
}

pub(crate) fn denies(error: &str) -> Verdict {
    Verdict::Deny(error.to_owned())
}

/// A yes to the arguments as they are.
pub(crate) fn approved(call_id: ToolCallId) -> Input {
    Input::CallApproved { call_id, edited: None }
}

pub(crate) fn refuses(error: &str) -> Verdict {
    Verdict::Refuse(error.to_owned())
}

pub(crate) fn disk_full() -> ApiError {
    ApiError::new(ErrorCode::StorageFull, "the disk is full")
}

/// A failure of the model that is not worth another attempt.
pub(crate) fn hopeless() -> ApiError {
    let error = ApiError::new(ErrorCode::ProviderError, "the key is wrong");
    ApiError { retryable: false, ..error }
}

pub(crate) fn arguments() -> Value {
    json!({ "path": "notes.md" })
}

pub(crate) fn call_id(bits: u128) -> ToolCallId {
    ToolCallId::from_bits(bits)
}

pub(crate) fn part_id(bits: u128) -> PartId {
    PartId::from_bits(bits)
}

pub(crate) fn completed(output: &str) -> ToolOutcome {
    ToolOutcome::Completed { output: output.to_owned(), metadata: None, attachment: None }
}

// Effects.

pub(crate) fn show(part: u128, offset: u64, text: &str) -> Effect {
    let text = text.to_owned();
    Effect::Show { part_id: part_id(part), kind: StreamKind::Text, offset, text }
}

pub(crate) fn run(call: u128, tool_name: &str) -> Effect {
    let (call_id, tool_name) = (call_id(call), tool_name.to_owned());
    Effect::RunTool { call_id, tool_name, input: arguments() }
}

pub(crate) fn record_result(call: u128, output: &str) -> Effect {
    Effect::RecordResult { call_id: call_id(call), outcome: completed(output) }
}

pub(crate) fn text_part(part: u128, text: &str) -> StepPart {
    let (id, text) = (part_id(part), text.to_owned());
    StepPart::Text { id, kind: StreamKind::Text, text, opaque: None }
}

/// A call as it is recorded; its own id is the number after its part's.
pub(crate) fn call_part(part: u128, tool_name: &str, verdict: Verdict) -> StepPart {
    let (state, wait, error) = match verdict {
        Verdict::Run => (ToolState::Running, None, None),
        Verdict::Ask(wait) => (ToolState::Waiting, Some(wait), None),
        Verdict::Deny(error) => (ToolState::Denied, None, Some(error)),
        Verdict::Refuse(error) => (ToolState::Error, None, Some(error)),
    };
    let part = ToolPart {
        id: part_id(part),
        tool_call_id: call_id(part + 1),
        tool_name: tool_name.to_owned(),
        input: arguments(),
        state,
        output: None,
        error,
        attachment: None,
        metadata: None,
        provider_executed: false,
        started_at: None,
        ended_at: None,
    };
    StepPart::Call { part, wait, opaque: None }
}

pub(crate) fn step_end(part: u128, index: u32, finish_reason: FinishReason) -> StepEnd {
    StepEnd { part_id: part_id(part), index, usage: Usage::default(), finish_reason }
}

pub(crate) fn end(status: RunStatus, finish_reason: FinishReason) -> TurnEnd {
    let (parts, usage) = (Vec::new(), Usage::default());
    TurnEnd { parts, step: None, usage, status, finish_reason, error: None }
}

pub(crate) fn end_failed(error: ApiError) -> TurnEnd {
    TurnEnd { error: Some(error), ..end(RunStatus::Failed, FinishReason::Error) }
}
