//! What a provider wants back with what it said: kept for the model and the key that it was asked with, and
//! forgotten once it is refused.

use futures_util::{StreamExt, stream};
use iris_agent::StepPart;
use iris_agent::compaction::Draft;
use iris_llm::{ErrorClass, ModelError, ModelRequest, Pulse};
use iris_protocol::{ApiError, CapturePurpose};
use iris_store::WriteContext;
use iris_store::project::{DataOwner, ForgetProviderData, ProviderData};

use super::model::{Answering, Asking};
use super::question::{Asker, Question};
use crate::metrics::counted;
use crate::record;

/// Words of a refusal that is about such data, in lower case: providers have no code for it in common.
const NAMES_OF_DATA: &[&str] = &["encrypted", "signature", "thinking", "thought", "reasoning"];

impl Asker {
    /// The answer to a question. Where the provider refuses what it wanted back before, that is forgotten, and the
    /// question asked once more without it.
    ///
    /// # Errors
    /// As [`Asker::next_question`].
    pub(super) async fn answer(
        &self,
        question: Question,
        pulse: Pulse,
    ) -> Result<Answering, ApiError> {
        if !question.gives_back {
            return Ok(self.put(question, pulse).await);
        }
        let (asking, mut events) = self.put(question, pulse.clone()).await;
        let first = events.next().await;
        if let Some(Err(error)) = &first
            && refuses_data(error)
        {
            let provider = &self.model.provider_id;
            tracing::warn!(provider, %error, "a provider refuses what it wanted back");
            let (session_id, owner) = (self.place.id.clone(), asking.owner);
            let forget = ForgetProviderData { session_id, owner };
            let (project, context) = (&self.place.project.address, WriteContext::default());
            record(project, forget, context).await.map_err(|error| error.to_api())?;
            return Ok(self.put(self.next_question(self.gather().await?).await?, pulse).await);
        }
        Ok((asking, stream::iter(first).chain(events).boxed()))
    }

    async fn put(&self, question: Question, pulse: Pulse) -> Answering {
        let asking = Asking {
            tokens: question.tokens(),
            may_be_shorter: Draft::is_possible(&question.conversation),
            owner: DataOwner { model: self.model.clone(), key_print: question.key_print.clone() },
        };
        let (provider, request) = question.into_request(self);
        let request = ModelRequest { pulse: Some(pulse), ..request };
        let events = self.ask(CapturePurpose::Answer, &self.model, &provider, request).await;
        (asking, counted(&self.place.services, &self.model, events))
    }
}

fn refuses_data(error: &ModelError) -> bool {
    let message = error.message.to_lowercase();
    error.class == ErrorClass::Invalid
        && error.status == Some(400)
        && NAMES_OF_DATA.iter().any(|name| message.contains(name))
}

/// What providers want back with some of the parts.
pub(super) fn provider_data(owner: Option<&DataOwner>, parts: &[StepPart]) -> Vec<ProviderData> {
    let Some(owner) = owner else { return Vec::new() };
    let kept = parts.iter().filter_map(|part| {
        let (id, opaque) = match part {
            StepPart::Text { id, opaque, .. } => (id, opaque.as_ref()?),
            StepPart::Call { part, opaque, .. } => (&part.id, opaque.as_ref()?),
            StepPart::Compaction(_) => return None,
        };
        let (kind, json) = (opaque.kind.clone(), opaque.json.to_string());
        Some(ProviderData { part_id: id.clone(), owner: owner.clone(), kind, json })
    });
    kept.collect()
}
