//! What an answer uses while it comes. It may break off before its provider says so, and some never say it: what
//! was used then is not nothing.

use iris_llm::{Charge, ModelEvent, ReportedUsage};
use iris_protocol::{ModelRef, PriceTier, Usage};

use super::{Charged, Orchestrator};
use crate::Services;

/// Bytes of an answer that stand for a token, as a rule.
const BYTES_PER_TOKEN: u64 = 4;

/// An answer on its way.
pub(crate) struct Meter {
    pub(crate) model: ModelRef,
    /// Whether the model is known to cost nothing, however much is used.
    is_free: bool,
    /// The estimated tokens of the question.
    asked: u64,
    /// Whether its provider answers: before that nothing was used.
    is_answered: bool,
    /// What that said last.
    said: Option<ReportedUsage>,
    /// How much of the answer came.
    bytes: u64,
}

impl Meter {
    /// Of a question of so many estimated tokens.
    pub(crate) fn new(services: &Services, model: ModelRef, asked: u64) -> Self {
        let info = services.catalog.info(&model);
        let free = |tier: &PriceTier| *tier == PriceTier::default();
        let is_free = info.prices().is_some_and(|prices| prices.iter().all(free));
        Self { model, is_free, asked, is_answered: false, said: None, bytes: 0 }
    }

    /// Takes in an event of the answer. What was used until then, where that is more than before.
    pub(crate) fn hear(&mut self, event: &ModelEvent) -> Option<Usage> {
        let came = match event {
            ModelEvent::Start { .. } => "",
            ModelEvent::TextDelta { text, .. } | ModelEvent::ReasoningDelta { text, .. } => {
                text.as_str()
            }
            ModelEvent::ToolInputDelta { fragment, .. } => fragment.as_str(),
            ModelEvent::UsageSoFar(usage) => {
                self.said = Some(usage.clone());
                ""
            }
            ModelEvent::TextStart { .. }
            | ModelEvent::TextEnd { .. }
            | ModelEvent::ReasoningStart { .. }
            | ModelEvent::ReasoningEnd { .. }
            | ModelEvent::TextOpaque { .. }
            | ModelEvent::ReasoningOpaque { .. }
            | ModelEvent::ToolInputStart { .. }
            | ModelEvent::ToolCall { .. }
            | ModelEvent::ProviderTool { .. }
            | ModelEvent::Usage(_)
            | ModelEvent::Finish { .. } => return None,
        };
        self.is_answered = true;
        self.bytes = self.bytes.saturating_add(came.len() as u64);
        let cost_nano_usd = self.is_free.then_some(0);
        Some(Usage { cost_nano_usd, ..self.so_far().tokens })
    }

    /// What was used until now: what the provider said, and an estimate of what it did not.
    fn so_far(&self) -> ReportedUsage {
        let said = self.said.clone().unwrap_or_default();
        let tokens = Usage {
            input_tokens: if said.tokens.input_tokens == 0 {
                self.asked
            } else {
                said.tokens.input_tokens
            },
            output_tokens: said.tokens.output_tokens.max(self.bytes.div_ceil(BYTES_PER_TOKEN)),
            incomplete: true,
            ..said.tokens
        };
        ReportedUsage { tokens, ..said }
    }

    /// What was used when nothing more comes, what that costs at least, and by which table of prices; none where
    /// the provider did not answer.
    pub(crate) fn broken_off(&self, services: &Services) -> Option<(Charge, i64)> {
        if !self.is_answered {
            return None;
        }
        let Charge { usage, price_version } = services.catalog.charge(&self.model, &self.so_far());
        let at_least = usage.cost_nano_usd.filter(|_| !self.is_free).unwrap_or(0);
        let usage = Usage { cost_nano_usd: self.is_free.then_some(0), ..usage };
        Some((Charge { usage, price_version }, at_least))
    }
}

impl Orchestrator {
    /// A question of so many estimated tokens goes to a model.
    pub(super) fn meter(&mut self, model: ModelRef, asked: u64) {
        self.settle_meter();
        self.meter = Some(Meter::new(self.services(), model, asked));
    }

    /// What the provider said of an answer that is whole is all there is to know.
    pub(super) fn charged(&mut self, model: ModelRef, used: &ReportedUsage) -> Usage {
        self.meter = None;
        let Charge { usage, price_version } = self.services().catalog.charge(&model, used);
        let at_least = self.charged.take().map_or(0, |before| before.at_least);
        self.charged = Some(Charged { model, price_version, at_least });
        usage
    }

    /// An answer of which the provider does not say what it used is charged for by what is known of it.
    pub(super) fn settle_meter(&mut self) {
        let Some(meter) = self.meter.take() else { return };
        let Some((charge, at_least)) = meter.broken_off(self.services()) else { return };
        let before = self.charged.take().map_or(0, |before| before.at_least);
        let (model, price_version) = (meter.model, charge.price_version);
        let at_least = at_least.saturating_add(before);
        self.charged = Some(Charged { model, price_version, at_least });
    }
}
