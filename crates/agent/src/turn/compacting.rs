//! Replacing the conversation so far by a summary, between two steps of a run or as all that a run does.
//!
//! It happens at most once before each step (INV-7): a model for which the conversation is still too long
//! after that ends the run. Asking for the summary is a model call like any other: it is asked again when
//! it fails for now, counts as a step and in usage, and ends with a cancel.

use iris_protocol::{ApiError, CompactionPart, ErrorCode, FinishReason, PartId, RunStatus, Usage};

use super::{Effect, Phase, StepPart, Turn};
use crate::IdSource;

/// How often a summary is asked for again with less of the conversation, because that was too long too.
pub const SQUEEZES_MAX: u32 = 3;

/// What a model made of the conversation so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What models are told from now on.
    pub text: String,
    /// For how many entries of the conversation it stands.
    pub replaced: u32,
    /// How many of the last steps of this run stay as they were.
    pub kept_steps: u32,
    /// The conversation without it, in estimated tokens.
    pub tokens_before: u64,
    /// The same with it.
    pub tokens_after: u64,
}

/// How far a run is with summaries.
#[derive(Debug, Default)]
pub(super) struct Compacting {
    /// Whether it does nothing else.
    pub(super) only: bool,
    /// Whether there was one before this step.
    pub(super) is_done: bool,
    /// Whether one is being asked for, also while that waits to be asked again.
    pub(super) is_asked: bool,
    /// How often less of the conversation was taken for it.
    pub(super) squeezed: u32,
    /// What was used by questions that were too long.
    spent: Usage,
}

impl Turn {
    /// A run that replaces the conversation by a summary and does nothing else.
    #[must_use]
    pub fn compacting_only(mut self) -> Self {
        self.compacting.only = true;
        self
    }

    /// Whether [`super::Input::ContextFull`] would have the conversation replaced by a summary: it is done at most
    /// once before each step.
    pub fn may_compact(&self) -> bool {
        !self.compacting.is_done
    }

    pub(super) fn context_full(&mut self, error: Option<ApiError>) -> Vec<Effect> {
        if self.compacting.is_done {
            let error = error.map_or_else(|| too_long(""), |error| too_long(&error.message));
            return self.fail(error);
        }
        let mut effects = vec![Effect::AbortModel];
        effects.extend(self.ask_for_summary());
        effects
    }

    pub(super) fn ask_for_summary(&mut self) -> Vec<Effect> {
        self.phase = Phase::Compacting;
        // What was said of a step that did not come to its end is no part of the answer.
        self.parts.clear();
        self.spend();
        self.compacting.is_done = true;
        self.compacting.is_asked = true;
        vec![Effect::Compact { squeezed: self.compacting.squeezed }]
    }

    /// The question for a summary was too long itself.
    pub(super) fn summary_overflows(&mut self, error: Option<ApiError>) -> Vec<Effect> {
        if self.compacting.squeezed == SQUEEZES_MAX {
            let error = error.map_or_else(|| too_long(""), |error| too_long(&error.message));
            return self.fail(error);
        }
        self.compacting.squeezed += 1;
        self.spend();
        vec![Effect::AbortModel, Effect::Compact { squeezed: self.compacting.squeezed }]
    }

    fn spend(&mut self) {
        let usage = std::mem::take(&mut self.usage);
        if usage != Usage::default() {
            self.compacting.spent.add(&usage);
        }
    }

    /// What model calls used that no step has.
    pub(super) fn unrecorded(&mut self) -> Usage {
        self.spend();
        std::mem::take(&mut self.compacting.spent)
    }

    pub(super) fn summarized(&mut self, summary: Summary, ids: &dyn IdSource) -> Vec<Effect> {
        if summary.text.trim().is_empty() || summary.tokens_after >= summary.tokens_before {
            return self.fail(no_gain());
        }
        let Summary { text: summary, replaced, kept_steps, tokens_before, tokens_after } = summary;
        let id = PartId::from_bits(ids.next_bits());
        let part =
            CompactionPart { id, summary, replaced, kept_steps, tokens_before, tokens_after };
        let part = StepPart::Compaction(part);
        self.spend();
        self.usage = std::mem::take(&mut self.compacting.spent);
        let step = self.step_end(FinishReason::Stop, ids);
        let only = self.compacting.only;
        self.compacting = super::Compacting { only, is_done: true, ..Default::default() };
        if only {
            let mut effects = self.end(RunStatus::Completed, FinishReason::Stop, Some(step));
            if let Some(Effect::End(end)) = effects.last_mut() {
                end.parts = vec![part];
            }
            return effects;
        }
        self.step += 1;
        self.begin_attempts();
        let mut effects = vec![Effect::RecordStep { parts: vec![part], step }];
        // No model is being asked.
        self.phase = Phase::Tools;
        if self.step >= self.limits.steps_max {
            effects.extend(self.end(RunStatus::Completed, FinishReason::Steps, None));
        } else {
            self.phase = Phase::Model;
            effects.push(Effect::CallModel);
        }
        self.end_awaits_record = self.is_ended();
        effects
    }
}

/// Whether a failure says that the conversation is longer than the model takes.
pub fn is_overflow(error: &ApiError) -> bool {
    super::reason_of(error) == Some(OVERFLOW)
}

/// The reason of that, the same as the class of a provider's failure.
const OVERFLOW: &str = "context_overflow";

fn too_long(said: &str) -> ApiError {
    let said = if said.is_empty() { String::new() } else { format!(" ({said})") };
    let message = format!(
        "the conversation is longer than the model takes, also with a summary in place of what came \
         before{said}: send a shorter message, choose a model with a larger context window, or begin a \
         new session"
    );
    let error = ApiError::new(ErrorCode::ProviderError, message).reason(OVERFLOW);
    ApiError { retryable: false, ..error }
}

fn no_gain() -> ApiError {
    let message = "the summary that was made is not shorter than what it would replace: send a shorter \
                   message, choose a model with a larger context window, or begin a new session";
    let error = ApiError::new(ErrorCode::ProviderError, message).reason("compaction_no_gain");
    ApiError { retryable: false, ..error }
}
