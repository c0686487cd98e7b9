//! Drives a machine the way the orchestrator does and checks every effect against what was said.
//!
//! The driver keeps its own account of the run from the inputs and the performed effects alone, so
//! that it can contradict the machine. A broken invariant is a failed assertion.
#![expect(clippy::expect_used, reason = "a broken invariant ends the test")]

use std::collections::BTreeMap;

use iris_agent::{
    Effect, Input, PromptBlock, PromptMessage, Resumption, Retry, SQUEEZES_MAX, StepEnd, StepPart,
    ToolOutcome, Turn, TurnEnd, TurnLimits, prompt_messages,
};
use iris_protocol::{
    FinishReason, Message, MessageId, MessageRole, MessageState, Part, RunStatus, SessionId,
    StreamKind, ToolCallId, ToolPart, ToolState, Usage,
};

use crate::model_call::{ModelCall, spoken};
use crate::script::{CountingIds, disk_full};

/// One run, its effects performed.
pub(crate) struct Driver {
    turn: Turn,
    ids: CountingIds,
    limits: TurnLimits,
    /// The model call that is open or was not recorded yet.
    model_call: Option<ModelCall>,
    calls: BTreeMap<ToolCallId, Call>,
    /// What is durable of the answer.
    recorded: Vec<Part>,
    model_calls: u32,
    attempts: Attempts,
    unusable_steps: u32,
    /// Whether there was a summary since the last step.
    is_compacted: bool,
    /// What questions used that were too long, until the summary counts it.
    spent: Usage,
    usage_reported: Usage,
    usage_recorded: Usage,
    is_cancelled: bool,
    has_failed_record: bool,
    end: Option<TurnEnd>,
}

/// Of the attempts at one step.
#[derive(Default)]
struct Attempts {
    /// Those that failed since another model was asked.
    failed: u32,
    has_fallback: bool,
    is_pausing: bool,
}

/// A call whose intent is durable.
struct Call {
    part: ToolPart,
    state: CallState,
}

#[derive(Debug, PartialEq)]
enum CallState {
    Waiting,
    MayRun,
    Running,
    Aborted,
    Ended(ToolOutcome),
    HasResult,
}

/// A call that somebody has to answer.
pub(crate) struct Pending {
    pub(crate) id: ToolCallId,
    /// Whether it waits for a person; else for its tool.
    pub(crate) is_waiting: bool,
}

impl Driver {
    pub(crate) fn new(limits: TurnLimits) -> Self {
        Self {
            turn: Turn::new(limits),
            ids: CountingIds::default(),
            limits,
            model_call: None,
            calls: BTreeMap::new(),
            recorded: Vec::new(),
            model_calls: 0,
            attempts: Attempts::default(),
            unusable_steps: 0,
            is_compacted: false,
            spent: Usage::default(),
            usage_reported: Usage::default(),
            usage_recorded: Usage::default(),
            is_cancelled: false,
            has_failed_record: false,
            end: None,
        }
    }

    pub(crate) fn end(&self) -> Option<&TurnEnd> {
        self.end.as_ref()
    }

    pub(crate) fn model_is_asked(&self) -> bool {
        self.model_call.is_some() && self.end.is_none()
    }

    /// The server stops here and starts again: what is not recorded is lost, the outcome of tools that
    /// run is unknown, calls that wait go on waiting, and the run is resumed.
    pub(crate) fn crash(&mut self) {
        if self.end.is_some() {
            return;
        }
        for call in self.calls.values_mut() {
            if call.state == CallState::Running {
                call.state = CallState::HasResult;
                call.part.state = ToolState::UnknownOutcome;
                call.part.error = Some("the server stopped".to_owned());
            }
        }
        self.model_call = None;
        (self.is_compacted, self.spent) = (false, Usage::default());
        self.attempts = Attempts::default();
        self.usage_reported = self.usage_recorded;
        let is_step = |part: &&Part| matches!(part, Part::Step { .. });
        let steps = self.recorded.iter().filter(is_step).count();
        let resumption = Resumption::of(&self.message(), &self.limits);
        assert_eq!(usize::try_from(resumption.steps), Ok(steps));
        self.model_calls = resumption.steps;
        assert_eq!(resumption.unusable_steps, self.unusable_steps);
        self.turn = Turn::resume(self.limits, resumption);
        self.feed(Input::Started, false);
    }

    pub(crate) fn pending(&self) -> Vec<Pending> {
        let calls = self.calls.iter().filter_map(|(id, call)| match &call.state {
            CallState::Waiting => Some(Pending { id: id.clone(), is_waiting: true }),
            CallState::Running => Some(Pending { id: id.clone(), is_waiting: false }),
            CallState::MayRun | CallState::Aborted | CallState::Ended(_) | CallState::HasResult => {
                None
            }
        });
        calls.collect()
    }

    /// Feeds an input and performs the effects. With `record_fails`, a `Record..` effect among them
    /// fails: what follows it is dropped, and the machine is told.
    pub(crate) fn feed(&mut self, input: Input, record_fails: bool) {
        if self.end.is_some() {
            self.feed_after_the_end(input);
            return;
        }
        self.note(&input);
        let must_end = matches!(input, Input::CancelRequested | Input::RecordFailed(_));
        let said = spoken(&input);
        for effect in self.turn.step(input, &self.ids) {
            let is_record = matches!(
                effect,
                Effect::RecordStep { .. }
                    | Effect::RecordResult { .. }
                    | Effect::RecordRetry(_)
                    | Effect::RecordRetryOver
            );
            if is_record && record_fails {
                self.has_failed_record = true;
                self.feed(Input::RecordFailed(disk_full()), false);
                return;
            }
            self.perform(effect);
        }
        assert!(!must_end || self.end.is_some(), "the run went on");
        assert_eq!(self.turn.is_ended(), self.end.is_some());
        if let (Some(piece), Some(model_call), None) = (said, &mut self.model_call, &self.end)
            && !model_call.is_summary
        {
            model_call.hear(piece);
            model_call.check_shown();
        }
    }

    /// Nothing follows the end. A record cannot fail any more, because none is being made.
    fn feed_after_the_end(&mut self, input: Input) {
        if !matches!(input, Input::RecordFailed(_)) {
            assert_eq!(self.turn.step(input, &self.ids), [], "effects after the end");
            assert!(self.turn.is_ended());
        }
    }

    /// Takes down what an input means, before the machine sees it.
    fn note(&mut self, input: &Input) {
        match input {
            Input::CallArrived { tool_name, input, verdict, .. } => {
                if let Some(model_call) = &mut self.model_call {
                    model_call.called.push((tool_name.clone(), input.clone(), verdict.clone()));
                }
            }
            Input::UsageArrived(usage) => {
                if let Some(model_call) = &mut self.model_call {
                    model_call.usage = *usage;
                }
            }
            Input::Summarized(summary) => {
                let is_good =
                    !summary.text.trim().is_empty() && summary.tokens_after < summary.tokens_before;
                if let Some(model_call) = self.model_call.as_mut().filter(|it| it.is_summary)
                    && is_good
                {
                    model_call.finished = Some(FinishReason::Stop);
                    self.usage_reported.add(&model_call.usage);
                    self.usage_reported.add(&self.spent);
                }
            }
            Input::ModelFinished(reason) => {
                if let Some(model_call) = self.model_call.as_mut().filter(|it| !it.is_summary) {
                    model_call.finished = Some(*reason);
                    self.usage_reported.add(&model_call.usage);
                }
            }
            Input::ModelPaused => {
                if let Some(model_call) = &mut self.model_call {
                    model_call.finished = Some(FinishReason::Stop);
                    self.usage_reported.add(&model_call.usage);
                }
            }
            Input::CallApproved { call_id, .. } => {
                self.change(call_id, &CallState::Waiting, CallState::MayRun);
            }
            Input::CallSettled(id) => self.deny(id),
            Input::ToolEnded { call_id, outcome } => {
                self.change(call_id, &CallState::Running, CallState::Ended(outcome.clone()));
            }
            Input::CancelRequested => self.is_cancelled = true,
            Input::ModelFailed { has_fallback, .. } => self.attempts.has_fallback = *has_fallback,
            Input::Started
            | Input::TextArrived { .. }
            | Input::RetryDue
            | Input::OpaqueArrived { .. }
            | Input::ProviderToolArrived(_)
            | Input::BudgetExceeded(_)
            | Input::ContextFull { .. }
            | Input::RecordFailed(_) => {}
        }
    }

    fn change(&mut self, id: &ToolCallId, from: &CallState, to: CallState) {
        if let Some(call) = self.calls.get_mut(id).filter(|call| call.state == *from) {
            call.state = to;
        }
    }

    fn deny(&mut self, id: &ToolCallId) {
        self.change(id, &CallState::Waiting, CallState::HasResult);
        if let Some(call) =
            self.calls.get_mut(id).filter(|call| call.part.state == ToolState::Waiting)
            && call.state == CallState::HasResult
        {
            call.part.state = ToolState::Denied;
            call.part.error = Some("a person said no".to_owned());
        }
    }

    fn perform(&mut self, effect: Effect) {
        assert!(self.end.is_none(), "{effect:?} after the end");
        match effect {
            Effect::CallModel => self.call_model(),
            Effect::Compact { squeezed } => self.compact(squeezed),
            Effect::AbortModel => self.abort_model(),
            Effect::Show { part_id, kind, offset, text } => {
                assert!(!self.is_cancelled, "text after cancel");
                let model_call = self.model_call.as_mut().expect("the model is asked");
                model_call.show(part_id, kind, offset, &text);
            }
            Effect::RecordRetry(retry) => self.record_retry(&retry),
            Effect::AskAgainAfter(_) => assert!(self.attempts.is_pausing),
            Effect::RecordRetryOver => assert!(std::mem::take(&mut self.attempts.is_pausing)),
            Effect::RecordStep { parts, step } => self.record_step(parts, &step),
            Effect::RecordResult { call_id, outcome } => self.record_result(&call_id, outcome),
            Effect::RunTool { call_id, tool_name, input } => {
                assert!(!self.is_cancelled, "a tool started after cancel (INV-6)");
                let call = self.calls.get_mut(&call_id).expect("the intent is durable (INV-6)");
                assert_eq!(call.state, CallState::MayRun);
                assert_eq!((&call.part.tool_name, &call.part.input), (&tool_name, &input));
                call.state = CallState::Running;
            }
            Effect::AbortTool(call_id) => self.abort_tool(&call_id),
            Effect::End(end) => self.perform_end(end),
        }
    }

    fn call_model(&mut self) {
        assert!(!self.is_cancelled, "the model was called after cancel");
        assert!(self.model_call.is_none(), "two model calls at once");
        assert!(!self.attempts.is_pausing, "the wait is not over");
        for (id, call) in &self.calls {
            assert_eq!(call.state, CallState::HasResult, "{id} has no result (INV-3)");
        }
        self.model_calls += 1;
        assert!(self.model_calls <= self.limits.steps_max);
        assert!(self.unusable_steps < self.limits.unusable_steps_max);
        self.model_call = Some(ModelCall::default());
        check_prompt(&prompt_messages(&[self.message()], &BTreeMap::new()));
    }

    /// It takes the place of the question that was too long, or of one for a summary that was.
    fn compact(&mut self, squeezed: u32) {
        assert!(squeezed <= SQUEEZES_MAX);
        assert!(!self.is_compacted, "a second summary before one step");
        if let Some(too_long) = self.model_call.take() {
            assert!(too_long.is_aborted && too_long.finished.is_none());
            self.spent.add(&too_long.usage);
            self.model_calls -= 1;
        }
        self.call_model();
        let model_call = self.model_call.get_or_insert_default();
        model_call.is_summary = true;
    }

    fn abort_model(&mut self) {
        match &mut self.model_call {
            Some(model_call) if model_call.finished.is_none() => model_call.is_aborted = true,
            Some(_) | None => assert!(self.has_failed_record, "no model call to abort"),
        }
    }

    fn abort_tool(&mut self, id: &ToolCallId) {
        // A tool whose intent could not be recorded was never started; stopping it does nothing.
        let Some(call) = self.calls.get_mut(id) else {
            assert!(self.has_failed_record, "{id} was never started");
            return;
        };
        assert_eq!(call.state, CallState::Running);
        call.state = CallState::Aborted;
    }

    fn record_retry(&mut self, retry: &Retry) {
        let model_call = self.model_call.take().expect("the model was asked");
        assert!(model_call.is_aborted && model_call.finished.is_none());
        assert_eq!(retry.usage, model_call.usage);
        self.attempts.failed += 1;
        if retry.falls_back {
            assert!(self.attempts.has_fallback);
            assert_eq!(self.attempts.failed, self.limits.retry.attempts_max);
            self.attempts.failed = 0;
        }
        assert!(self.attempts.failed < self.limits.retry.attempts_max);
        assert_eq!(retry.attempt, self.attempts.failed + 1);
        // It is the same step once more.
        self.model_calls -= 1;
        self.attempts.is_pausing = true;
    }

    fn record_step(&mut self, parts: Vec<StepPart>, step: &StepEnd) {
        let model_call = self.model_call.take().expect("the model was asked");
        self.check_step(step, &model_call);
        self.attempts.failed = 0;
        if model_call.is_summary {
            return self.record_summary(parts, step);
        }
        model_call.check_parts(&parts, &self.limits);
        self.is_compacted = false;
        // A step without a call goes on by itself.
        let mut is_usable = !parts.iter().any(|part| matches!(part, StepPart::Call { .. }));
        for part in parts {
            match part {
                StepPart::Text { id, kind: StreamKind::Text, text, .. } => {
                    self.recorded.push(Part::Text { id, text, interrupted: false });
                }
                StepPart::Text { id, kind: StreamKind::Reasoning, text, .. } => {
                    self.recorded.push(Part::Reasoning { id, text, interrupted: false });
                }
                StepPart::Compaction(_) => unreachable!("a summary that nobody asked for"),
                StepPart::Call { part, .. } => {
                    is_usable |= part.state != ToolState::Error;
                    self.recorded.push(Part::Tool(part.clone()));
                    self.record_intent(part);
                }
            }
        }
        self.unusable_steps = if is_usable { 0 } else { self.unusable_steps + 1 };
        self.recorded.push(step_part(step));
    }

    fn record_summary(&mut self, mut parts: Vec<StepPart>, step: &StepEnd) {
        let Some(StepPart::Compaction(part)) = parts.pop() else { unreachable!("no summary") };
        assert_eq!(parts, []);
        assert!(part.tokens_after < part.tokens_before, "it does not shrink");
        self.is_compacted = true;
        self.recorded.push(Part::Compaction(part));
        self.recorded.push(step_part(step));
    }

    fn record_intent(&mut self, part: ToolPart) {
        let state = match part.state {
            ToolState::Running => CallState::MayRun,
            ToolState::Waiting => CallState::Waiting,
            ToolState::Pending
            | ToolState::Completed
            | ToolState::Error
            | ToolState::Denied
            | ToolState::Cancelled
            | ToolState::UnknownOutcome => CallState::HasResult,
        };
        let before = self.calls.insert(part.tool_call_id.clone(), Call { part, state });
        assert!(before.is_none(), "the call was recorded twice");
    }

    fn check_step(&mut self, step: &StepEnd, model_call: &ModelCall) {
        assert_eq!(step.index + 1, self.model_calls);
        let mut used = model_call.usage;
        if model_call.is_summary {
            used.add(&std::mem::take(&mut self.spent));
        }
        assert_eq!(step.usage, used);
        assert_eq!(Some(step.finish_reason), model_call.finished);
        self.usage_recorded.add(&step.usage);
    }

    fn record_result(&mut self, id: &ToolCallId, outcome: ToolOutcome) {
        let call = self.calls.get_mut(id).expect("the call was recorded");
        assert_eq!(call.state, CallState::Ended(outcome.clone()), "one result a call (INV-3)");
        call.state = CallState::HasResult;
        call.part.started_at = Some(0);
        match outcome {
            ToolOutcome::Completed { output, .. } => {
                call.part.state = ToolState::Completed;
                call.part.output = Some(output);
            }
            ToolOutcome::Failed { error } => {
                call.part.state = ToolState::Error;
                call.part.error = Some(error);
            }
        }
    }

    fn perform_end(&mut self, end: TurnEnd) {
        for (id, call) in &self.calls {
            assert_ne!(call.state, CallState::Running, "{id} runs on");
            assert_ne!(call.state, CallState::MayRun, "{id} was never started");
            let is_lost = matches!(call.state, CallState::Ended(_));
            assert!(!is_lost || self.has_failed_record, "the result of {id} is lost");
        }
        match self.model_call.take() {
            Some(_) if self.has_failed_record => {
                assert_eq!((&end.parts, &end.step), (&vec![], &None));
            }
            Some(model_call) => {
                let texts_only = end.parts.iter().all(|part| matches!(part, StepPart::Text { .. }));
                assert!(texts_only, "a call without a result was recorded");
                assert_eq!(end.parts, model_call.shown);
                assert_eq!(end.step.is_some(), model_call.finished.is_some());
                assert_ne!(model_call.is_aborted, model_call.finished.is_some());
                if let Some(step) = &end.step {
                    self.check_step(step, &model_call);
                }
            }
            None => assert_eq!((&end.parts, &end.step), (&vec![], &None)),
        }
        self.check_reason(&end);
        self.end = Some(end);
    }

    fn check_reason(&self, end: &TurnEnd) {
        assert_eq!(end.status == RunStatus::Cancelled, self.is_cancelled);
        assert_eq!(end.status == RunStatus::Failed, end.error.is_some());
        if !self.has_failed_record {
            assert_eq!(self.usage_recorded, self.usage_reported);
        }
        if end.finish_reason == FinishReason::Steps && end.step.is_none() {
            assert_eq!(self.model_calls, self.limits.steps_max);
        }
        let reason = end.error.as_ref().and_then(|error| error.details.get("reason"));
        if reason.is_some_and(|reason| reason == "tool_args_invalid") {
            assert_eq!(self.unusable_steps, self.limits.unusable_steps_max);
        }
    }

    /// The answer as the store would give it.
    fn message(&self) -> Message {
        let parts = self.recorded.iter().map(|part| match part {
            Part::Tool(part) => match self.calls.get(&part.tool_call_id) {
                Some(call) => Part::Tool(call.part.clone()),
                None => Part::Tool(part.clone()),
            },
            Part::Text { .. }
            | Part::Reasoning { .. }
            | Part::Subtask(_)
            | Part::Compaction(_)
            | Part::AnswerFormat(_)
            | Part::Attachment(_)
            | Part::Step { .. } => part.clone(),
        });
        Message {
            id: MessageId::from_bits(1),
            session_id: SessionId::from_bits(1),
            run_id: None,
            after_step: None,
            role: MessageRole::Assistant,
            agent: None,
            model: None,
            parts: parts.collect(),
            state: MessageState::Streaming,
            finish_reason: None,
            error: None,
            usage: None,
            created_by: None,
            created_at: 0,
            completed_at: None,
        }
    }
}

/// Each call is followed by its one result, in order, and the model has the last word to answer
/// (INV-3).
fn check_prompt(messages: &[PromptMessage]) {
    let mut open: Vec<&str> = Vec::new();
    for message in messages {
        match message {
            PromptMessage::ToolResult { call_id, .. } => {
                assert!(!open.is_empty(), "a result without a call");
                assert_eq!(open.remove(0), call_id);
            }
            PromptMessage::User { .. } => assert!(open.is_empty()),
            PromptMessage::Assistant { blocks } => {
                let calls = blocks.iter().filter_map(|block| match block {
                    PromptBlock::Call(call) => Some(call.call_id.as_str()),
                    PromptBlock::Text { .. }
                    | PromptBlock::Reasoning { .. }
                    | PromptBlock::ProviderTool { .. } => None,
                });
                let calls: Vec<&str> = calls.collect();
                assert!(open.is_empty(), "{open:?} have no result");
                assert!(!calls.is_empty(), "the model was asked after an answer without calls");
                open = calls;
            }
        }
    }
    assert!(open.is_empty(), "{open:?} have no result");
}

fn step_part(step: &StepEnd) -> Part {
    let StepEnd { part_id: id, index, usage, finish_reason } = step.clone();
    Part::Step {
        id,
        index,
        usage,
        price_version: None,
        answered_by: None,
        finish_reason,
        raw_finish_reason: None,
    }
}
