//! Questions to models: how they end, how long they take, what they use.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures_util::StreamExt;
use iris_llm::{ModelError, ModelEvent, ModelStream, ReportedUsage};
use iris_protocol::ModelRef;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::{Histograms, WORK_SECONDS, add};
use crate::Services;

/// Providers are those that operators configured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Provider {
    provider: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    provider: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    provider: String,
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    provider: String,
    class: &'static str,
}

pub(super) struct Counters {
    calls: Family<Ended, Counter>,
    seconds: Histograms<Provider>,
    first_seconds: Histograms<Provider>,
    tokens: Family<Tokens, Counter>,
    dollars: Family<Provider, Counter<f64, AtomicU64>>,
    unpriced: Family<Provider, Counter>,
    errors: Family<Failed, Counter>,
    retries: Family<Provider, Counter>,
}

impl Counters {
    pub(super) fn new(r: &mut Registry) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(WORK_SECONDS);
        Self {
            calls: add(
                r,
                "iris_model_calls",
                "Questions to models, by how they ended",
                Family::default(),
            ),
            seconds: add(
                r,
                "iris_model_call_duration_seconds",
                "Time from a question to a model to the end of its answer",
                Family::new_with_constructor(seconds),
            ),
            first_seconds: add(
                r,
                "iris_model_first_piece_seconds",
                "Time from a question to a model to the first piece of its answer",
                Family::new_with_constructor(seconds),
            ),
            tokens: add(
                r,
                "iris_model_tokens",
                "Tokens as providers report them; input includes cache_read and cache_write, output includes reasoning",
                Family::default(),
            ),
            dollars: add(
                r,
                "iris_model_cost_dollars",
                "Cost in US dollars of what has a known price",
                Family::default(),
            ),
            unpriced: add(
                r,
                "iris_model_calls_unpriced",
                "Questions to models that used something without a known price",
                Family::default(),
            ),
            errors: add(
                r,
                "iris_provider_errors",
                "Questions to models that failed, by class of the failure",
                Family::default(),
            ),
            retries: add(
                r,
                "iris_provider_retries",
                "Questions to models that are asked again after a failure, by the provider that failed",
                Family::default(),
            ),
        }
    }
}

/// An answer of a model on its way; counted when it ends, however it does.
struct Answer {
    services: Arc<Services>,
    model: ModelRef,
    asked_at: Instant,
    has_begun: bool,
    usage: Option<ReportedUsage>,
    outcome: &'static str,
}

/// Counts an answer of a model while it is read.
pub(crate) fn counted(
    services: &Arc<Services>,
    model: &ModelRef,
    events: ModelStream,
) -> ModelStream {
    let mut answer = Answer {
        services: Arc::clone(services),
        model: model.clone(),
        asked_at: Instant::now(),
        has_begun: false,
        usage: None,
        outcome: "aborted",
    };
    events.inspect(move |event| answer.hear(event)).boxed()
}

impl Answer {
    fn provider(&self) -> Provider {
        Provider { provider: self.model.provider_id.clone() }
    }

    fn hear(&mut self, event: &Result<ModelEvent, ModelError>) {
        let counters = &self.services.metrics.models;
        match event {
            Ok(ModelEvent::Start { .. }) => return,
            Ok(ModelEvent::UsageSoFar(usage)) => {
                self.usage = Some(usage.clone());
                return;
            }
            Ok(ModelEvent::Usage(usage)) => self.usage = Some(usage.clone()),
            Ok(ModelEvent::Finish { .. }) => self.outcome = "finished",
            Ok(_) => {}
            Err(error) => {
                self.outcome = "failed";
                let (provider, class) = (self.model.provider_id.clone(), error.class.as_str());
                counters.errors.get_or_create(&Failed { provider, class }).inc();
                return;
            }
        }
        if !self.has_begun {
            self.has_begun = true;
            let seconds = self.asked_at.elapsed().as_secs_f64();
            counters.first_seconds.get_or_create(&self.provider()).observe(seconds);
        }
    }

    fn count_usage(&self, used: &ReportedUsage) {
        let counters = &self.services.metrics.models;
        let usage = self.services.catalog.charge(&self.model, used).usage;
        for (kind, count) in [
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("reasoning", usage.reasoning_tokens),
            ("cache_read", usage.cache_read_tokens),
            ("cache_write", usage.cache_write_tokens),
        ] {
            let provider = self.model.provider_id.clone();
            counters.tokens.get_or_create(&Tokens { provider, kind }).inc_by(count);
        }
        match usage.cost_nano_usd {
            Some(cost) => {
                #[expect(clippy::cast_precision_loss, reason = "a millionth of a cent is enough")]
                let dollars = cost.max(0) as f64 / 1e9;
                counters.dollars.get_or_create(&self.provider()).inc_by(dollars);
            }
            None => {
                counters.unpriced.get_or_create(&self.provider()).inc();
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let counters = &self.services.metrics.models;
        let (provider, outcome) = (self.model.provider_id.clone(), self.outcome);
        counters.calls.get_or_create(&Ended { provider, outcome }).inc();
        let seconds = self.asked_at.elapsed().as_secs_f64();
        counters.seconds.get_or_create(&self.provider()).observe(seconds);
        if let Some(usage) = &self.usage {
            self.count_usage(usage);
        }
    }
}

impl super::Metrics {
    /// A model failed and is asked again, or another one in its place.
    pub(crate) fn retried(&self, provider: &str) {
        let provider = Provider { provider: provider.to_owned() };
        self.models.retries.get_or_create(&provider).inc();
    }
}
