//! A model that failed is asked again, or another one is asked in its place.

use std::time::Duration;

use actix::prelude::*;
use iris_agent::{Input, Retry, is_overflow};
use iris_protocol::{ApiError, ErrorCode, ModelRef};
use iris_store::project::{EndRetry, RecordRetry, Rest};

use super::Orchestrator;
use crate::project::EndStreams;

impl Orchestrator {
    pub(super) fn model_failed(&mut self, error: ApiError, ctx: &mut Context<Self>) {
        if error.code == ErrorCode::BudgetExceeded {
            return self.input(Input::BudgetExceeded(error), ctx);
        }
        let has_fallback = self.asks_summarizer() || self.fallback().is_some();
        let input = if is_overflow(&error) {
            Input::ContextFull { error: Some(error) }
        } else {
            Input::ModelFailed { error, has_fallback }
        };
        self.input(input, ctx);
    }

    /// The model that may be asked in place of the one that answers.
    fn fallback(&self) -> Option<&ModelRef> {
        let answerer = self.answerer.as_ref()?;
        let fallback = self.services().settings.fallback_model.as_ref()?;
        (*fallback != answerer.model).then_some(fallback)
    }

    pub(super) fn record_retry(&mut self, retry: Retry, ctx: &mut Context<Self>) {
        let Retry { attempt, error, delay, usage, falls_back } = retry;
        self.attempt = attempt;
        self.drop_pieces();
        self.drop_checkpoints(ctx);
        if let Some(answerer) = &self.answerer {
            self.services().metrics.retried(&answerer.model.provider_id);
        }
        let is_summarizer = self.asks_summarizer() && falls_back;
        self.summaries.has_fallen_back |= is_summarizer;
        let model = self.fallback().filter(|_| falls_back && !is_summarizer).cloned();
        if let (Some(answerer), Some(model)) = (&mut self.answerer, &model) {
            answerer.model = model.clone();
        }
        let (path, class) = (self.vitals.path(), error.details.get("reason"));
        tracing::warn!(
            actor.path = %path, attempt, ?class, delay_ms = delay.as_millis(), falls_back, "a model failed and is asked again"
        );
        // What it had said of this step is no part of the answer.
        let ended = EndStreams(self.assignment.answer_id.clone());
        self.assignment.place.project.address.tell(ended);
        let spent = self.spent();
        let command = RecordRetry {
            session_id: self.session_id(),
            run_id: self.run_id(),
            message_id: self.assignment.answer_id.clone(),
            attempt,
            error,
            delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            used: Rest { usage, spent },
            model,
            at: self.services().clock.now_ms(),
        };
        self.record(command, None, ctx);
    }

    pub(super) fn ask_again_after(&mut self, delay: Duration, ctx: &mut Context<Self>) {
        self.waits_to_ask = true;
        ctx.run_later(delay, |orchestrator, ctx| {
            orchestrator.waits_to_ask = false;
            orchestrator.input(Input::RetryDue, ctx);
        });
    }

    pub(super) fn record_retry_over(&mut self, ctx: &mut Context<Self>) {
        let command = EndRetry {
            session_id: self.session_id(),
            run_id: self.run_id(),
            message_id: self.assignment.answer_id.clone(),
            at: self.services().clock.now_ms(),
        };
        self.record(command, None, ctx);
    }
}
