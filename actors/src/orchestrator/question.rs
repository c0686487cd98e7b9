//! What a model is asked: the conversation as it is recorded, what stands around it, and how long that is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iris_agent::compaction::outputs_to_leave_out;
use iris_agent::tokens::{Correction, entry_tokens, frame_tokens};
use iris_agent::{Conversation, Opaque, Prompt, ToolSpec, wanted_format};
use iris_llm::{Model, ModelInfo, ModelRequest, ModelStream, OutputSchema};
use iris_protocol::{
    Agent, AnswerFormatPart, ApiError, CapturePurpose, ErrorCode, Message, MessageId, ModelRef,
    PartId, Role, RunId, ToolCallId, UserId,
};
use iris_store::project::{AskedAbout, LeaveOutOutputs, ProviderData};
use iris_store::root::{FoundCredential, RunFacts};
use iris_store::{StoreError, WriteContext};
use iris_tools::TASK;
use tokio::time::Instant;
use tokio::try_join;

use super::environment::Environment;
use super::instructions::instructions_of_project;
use super::model::Caller;
use super::nested::ToldInstructions;
use super::outputs::{show_images, tell_texts};
use super::steering::join_messages;
use super::tasks::{name_sub_agents, sub_agents};
use super::{Assignment, Orchestrator};
use crate::budgets::{refuse_if_used_up, run_facts, spending};
use crate::capturing::{Occasion, ask_on};
use crate::provider_keys;
use crate::record;
use crate::session::{Answerer, SessionPlace, starter_lost_access};
use crate::toolbox::tools_of;

/// Who asks which model, and for whom.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) place: SessionPlace,
    pub(super) agent: Agent,
    pub(super) model: ModelRef,
    pub(super) caller: Arc<Caller>,
    run_id: RunId,
    answer_id: MessageId,
    starter: UserId,
    /// Which question of the run it is, and which attempt at its step.
    number: u64,
    attempt: u32,
    environment: Arc<Environment>,
    /// What is known of the model.
    info: ModelInfo,
    told: Arc<ToldInstructions>,
}

/// How long what was gathered for a question may wait to be asked: what somebody may do, and which key is used,
/// counts within a second.
const GATHERED_FOR: Duration = Duration::from_secs(1);

/// What was gathered for a question that is not asked yet, or why nothing was; and since when.
pub(super) struct Early(Instant, Result<Box<Gathered>, ApiError>);

impl Early {
    pub(super) async fn gather(asker: &Asker) -> Self {
        let since = Instant::now();
        Self(since, asker.gather().await)
    }

    /// None where it is too old: whoever asks gathers anew.
    pub(super) fn fresh(self) -> Option<Result<Box<Gathered>, ApiError>> {
        let Self(since, gathered) = self;
        (since.elapsed() < GATHERED_FOR).then_some(gathered)
    }
}

/// What a question is made of, as it was when it was read.
pub(super) struct Gathered {
    facts: RunFacts,
    around: Around,
    recorded: Recorded,
}

impl Asker {
    pub(super) fn of(orchestrator: &Orchestrator) -> Option<Self> {
        let answerer = orchestrator.answerer.as_ref()?;
        let first = Self::first(&orchestrator.assignment, answerer, &orchestrator.environment);
        Some(Self { number: orchestrator.calls, attempt: orchestrator.attempt, ..first })
    }

    /// Who asks the first question of a run.
    pub(super) fn first(
        assignment: &Assignment,
        answerer: &Answerer,
        environment: &Arc<Environment>,
    ) -> Self {
        let info = assignment.place.services.catalog.info(&answerer.model);
        Self {
            info,
            told: Arc::clone(&assignment.told),
            place: assignment.place.clone(),
            agent: answerer.agent.clone(),
            model: answerer.model.clone(),
            caller: Arc::new(Caller::of(assignment, answerer.agent.clone())),
            run_id: assignment.run.id.clone(),
            answer_id: assignment.answer_id.clone(),
            starter: assignment.run.started_by.clone(),
            number: 1,
            attempt: 1,
            environment: Arc::clone(environment),
        }
    }

    /// Has a model asked for the run, and recorded where its session is.
    pub(super) async fn ask(
        &self,
        purpose: CapturePurpose,
        model: &ModelRef,
        provider: &Arc<dyn Model>,
        request: ModelRequest,
    ) -> ModelStream {
        let occasion = Occasion {
            run_id: self.run_id.clone(),
            message_id: Some(self.answer_id.clone()),
            purpose,
            number: self.number,
            attempt: self.attempt,
            model: model.clone(),
        };
        ask_on(&self.place, occasion, provider, request).await
    }

    /// How many tokens the model takes, where that is known.
    pub(super) fn window(&self) -> Option<u64> {
        self.window_of(&self.model, &self.info)
    }

    /// The same of another model, of which this is known.
    pub(super) fn window_of(&self, model: &ModelRef, info: &ModelInfo) -> Option<u64> {
        // What the operator says of a provider wins over what is known of a model.
        let set = self.place.services.models.context_window(model);
        set.or(info.facts.context_tokens)
    }

    /// From how many tokens on the conversation is made shorter; none where it never is.
    pub(super) fn threshold(&self) -> Option<u64> {
        let percent = u64::from(self.place.services.settings.context.compact_at_percent);
        let window = self.window().filter(|_| percent > 0)?;
        Some(window.saturating_mul(percent) / 100)
    }

    /// The question as it is now. Where it would be too long, outputs of old calls are left out from here on.
    ///
    /// # Errors
    /// `FORBIDDEN` when the run's starter may not work in the project any more, `BUDGET_EXCEEDED`,
    /// `MODEL_UNAVAILABLE`, and as the reads and writes of the project's database.
    pub(super) async fn question(&self) -> Result<Question, ApiError> {
        let Gathered { facts, around, recorded } = *self.gather().await?;
        self.question_of(facts.credential.as_ref(), around, recorded).await
    }

    /// What the question consists of as it is now.
    ///
    /// # Errors
    /// As [`Self::question`].
    pub(super) async fn gather(&self) -> Result<Box<Gathered>, ApiError> {
        // Each of them goes to other threads and back, some several times: side by side.
        let gathered = try_join!(self.allowed(), self.around(), self.recorded());
        gathered.map(|(facts, around, recorded)| Box::new(Gathered { facts, around, recorded }))
    }

    /// The question for the next step, with the messages that waited for it: read again if any did.
    ///
    /// # Errors
    /// As [`Self::question`].
    pub(super) async fn next_question(
        &self,
        gathered: Box<Gathered>,
    ) -> Result<Question, ApiError> {
        let Gathered { facts, around, mut recorded } = *gathered;
        if recorded.waits_to_join {
            join_messages(&self.place, self.run_id.clone(), self.answer_id.clone()).await;
            recorded = self.recorded().await?;
        }
        let question = self.question_of(facts.credential.as_ref(), around, recorded).await?;
        let takes_formats = self.info.facts.structured_output != Some(false);
        if question.output_schema.is_none() || takes_formats {
            return Ok(question);
        }
        let ModelRef { provider_id, model_id } = &self.model;
        let message = format!(
            "the model `{provider_id}/{model_id}` does not answer in a format (`answerFormat`): choose another one"
        );
        let error = ApiError::new(ErrorCode::ModelUnavailable, message);
        Err(error.reason("answer_format_unsupported"))
    }

    /// What the root database says of the run, where it may ask its model once more.
    async fn allowed(&self) -> Result<RunFacts, ApiError> {
        self.facts_within_budgets(&self.model, &self.info).await
    }

    /// Refuses to ask another model, of which this is known, where budgets do not allow it.
    pub(super) async fn check_budgets_for(
        &self,
        model: &ModelRef,
        info: &ModelInfo,
    ) -> Result<(), ApiError> {
        self.facts_within_budgets(model, info).await.map(drop)
    }

    async fn facts_within_budgets(
        &self,
        model: &ModelRef,
        info: &ModelInfo,
    ) -> Result<RunFacts, ApiError> {
        let (place, starter) = (&self.place, &self.starter);
        let facts = run_facts(place, starter, model);
        let (facts, spending) = try_join!(facts, spending(place, &self.run_id, starter))?;
        if facts.role.is_none_or(|role| role < Role::Member) {
            return Err(starter_lost_access());
        }
        let is_price_known = info.prices().is_some();
        refuse_if_used_up(place, (starter, &facts), &spending, is_price_known).await?;
        Ok(facts)
    }

    /// A model as the run asks it: with the key that is nearest to whoever started it.
    pub(super) async fn model_for(&self, model: &ModelRef) -> Result<Arc<dyn Model>, ApiError> {
        provider_keys::model_for(&self.place, &self.starter, model).await
    }

    async fn question_of(
        &self,
        credential: Option<&FoundCredential>,
        Around { system, mut tools, sub_agents }: Around,
        recorded: Recorded,
    ) -> Result<Question, ApiError> {
        let place = &self.place;
        let (provider, key_print) =
            provider_keys::model_with(&place.project, &place.services, &self.model, credential)?;
        let recorded = recorded.for_key(&key_print);
        name_sub_agents(&sub_agents, recorded.depth, &mut tools);
        let output_schema = wanted_format(&recorded.history).map(output_schema);
        let told = self.tell(&recorded, provider.as_ref()).await.map_err(|error| error.to_api())?;
        let (conversation, images) = told;
        let frame = Prompt { system, tools, images, messages: Vec::new() };
        let mut question = Question::new(provider, frame, conversation, &self.model);
        question.output_schema = output_schema;
        question.key_print = key_print;
        question.gives_back = !recorded.opaque.is_empty();
        if let Some(threshold) = self.threshold()
            && question.tokens() > threshold
            && let Some(to) = outputs_to_leave_out(&question.conversation, question.room(threshold))
        {
            self.leave_out(&mut question, recorded, to).await.map_err(|error| error.to_api())?;
        }
        Ok(question)
    }

    /// What stands around the conversation: the instructions of the agent, where it works, those of the
    /// project, and its tools.
    async fn around(&self) -> Result<Around, ApiError> {
        let place = &self.place;
        let around = async {
            let tools = tools_of(&place.project, &place.services).await?;
            let tools = tools.specs(&self.agent.tools);
            let sub_agents = async {
                if tools.iter().any(|spec| spec.name == TASK) {
                    sub_agents(place).await
                } else {
                    Ok(Vec::new())
                }
            };
            let facts = self.environment.facts(place);
            let instructions = instructions_of_project(&self.caller);
            let (facts, instructions, sub_agents) = try_join!(facts, instructions, sub_agents)?;
            let mut system = format!("{}\n\n{facts}", self.agent.prompt);
            system.extend(instructions);
            Ok(Around { system, tools, sub_agents })
        };
        around.await.map_err(|error: StoreError| error.to_api())
    }

    /// The conversation, and what is kept with it for the model.
    async fn recorded(&self) -> Result<Recorded, ApiError> {
        let model = self.place.services.models.get(&self.model);
        let model = model.map_err(|error| ApiError::new(error.code(), error.to_string()))?;
        let reader = &self.place.project.reader;
        let (session_id, run_id) = (self.place.id.clone(), self.run_id.clone());
        let kept_for = model.opaque_kind().map(|_| self.model.clone());
        let about = reader.asked_about(session_id, run_id, kept_for).await;
        let about = about.map_err(|error| error.to_api())?;
        let AskedAbout { history, provider_data, left_out_to, depth, waits_to_join } = about;
        let opaque = BTreeMap::new();
        Ok(Recorded { history, provider_data, opaque, left_out_to, depth, waits_to_join })
    }

    async fn tell(
        &self,
        recorded: &Recorded,
        model: &dyn Model,
    ) -> Result<(Conversation, BTreeMap<String, iris_agent::Attached>), StoreError> {
        let Recorded { history, opaque, left_out_to, .. } = recorded;
        let mut conversation = Conversation::of(history, opaque, left_out_to.as_ref());
        tell_texts(&self.place, &mut conversation).await?;
        let can_see = model.shows_images().or(self.info.facts.images).unwrap_or(false);
        let images = show_images(&self.place, history, &mut conversation, can_see).await?;
        Ok((conversation, images))
    }

    /// Leaves out outputs, for good: what was left out stays so, so that providers find in their caches what
    /// they were asked before.
    async fn leave_out(
        &self,
        question: &mut Question,
        recorded: Recorded,
        to: ToolCallId,
    ) -> Result<(), StoreError> {
        let command = LeaveOutOutputs { session_id: self.place.id.clone(), to: to.clone() };
        record(&self.place.project.address, command, WriteContext::default()).await?;
        // Instructions may have stood behind them.
        self.told.forget();
        let recorded = Recorded { left_out_to: Some(to), ..recorded };
        let (conversation, images) = self.tell(&recorded, question.provider.as_ref()).await?;
        question.conversation = conversation;
        question.frame.images = images;
        question.frame_tokens = frame_tokens(&question.frame);
        Ok(())
    }
}

/// What the store has of a conversation.
struct Recorded {
    history: Vec<Message>,
    /// What is kept for the model, whatever key it was asked with.
    provider_data: Vec<ProviderData>,
    /// Of that what the model is told with the key of this question, by the parts that it belongs to.
    opaque: BTreeMap<PartId, Opaque>,
    left_out_to: Option<ToolCallId>,
    /// How many sessions are above this one.
    depth: usize,
    /// Whether messages wait to join the run.
    waits_to_join: bool,
}

impl Recorded {
    /// Other accounts of a provider cannot read what one of them was sent.
    fn for_key(mut self, key_print: &str) -> Self {
        let data = std::mem::take(&mut self.provider_data);
        let own = data.into_iter().filter(|data| data.owner.key_print == key_print);
        let opaque = own.map(|ProviderData { part_id, kind, json, .. }| {
            (part_id, Opaque { kind, json: json.into() })
        });
        Self { opaque: opaque.collect(), ..self }
    }
}

/// What stands around a conversation.
struct Around {
    system: String,
    tools: Vec<Arc<ToolSpec>>,
    /// Those that the agent may set to work.
    sub_agents: Vec<Agent>,
}

/// A question to a model.
pub(super) struct Question {
    pub(super) provider: Arc<dyn Model>,
    /// What stands around the conversation.
    frame: Prompt,
    /// The estimated tokens of that.
    frame_tokens: u64,
    pub(super) conversation: Conversation,
    /// What estimates are multiplied with.
    pub(super) correction: Correction,
    /// What the answer has to look like.
    output_schema: Option<OutputSchema>,
    /// Of the key that it is asked with.
    pub(super) key_print: String,
    /// Whether the provider is sent something that it wanted back.
    pub(super) gives_back: bool,
}

impl Question {
    fn new(
        provider: Arc<dyn Model>,
        frame: Prompt,
        mut conversation: Conversation,
        model: &ModelRef,
    ) -> Self {
        // Another model counts otherwise.
        conversation.counted.take_if(|counted| counted.model.as_ref() != Some(model));
        let frame_tokens = frame_tokens(&frame);
        let correction = Correction::of(&conversation, frame_tokens);
        Self {
            provider,
            frame,
            frame_tokens,
            conversation,
            correction,
            output_schema: None,
            key_print: String::new(),
            gives_back: false,
        }
    }

    /// The estimated tokens as they are, without the correction.
    fn estimate(&self) -> u64 {
        self.frame_tokens + entry_tokens(&self.conversation.messages)
    }

    /// How long it is.
    pub(super) fn tokens(&self) -> u64 {
        self.correction.apply(self.estimate())
    }

    /// For how many estimated tokens of conversation there is room within so many true ones.
    pub(super) fn room(&self, tokens: u64) -> u64 {
        self.correction.invert(tokens).saturating_sub(self.frame_tokens)
    }

    /// How long it will be when so many estimated tokens less are told.
    pub(super) fn tokens_without(&self, saved: u64) -> u64 {
        self.correction.apply(self.estimate().saturating_sub(saved))
    }

    /// As the model's provider is asked it.
    pub(super) fn into_request(self, asker: &Asker) -> (Arc<dyn Model>, ModelRequest) {
        let prompt = Prompt { messages: self.conversation.messages, ..self.frame };
        let request = ModelRequest {
            model: asker.model.model_id.clone(),
            prompt,
            // The same for all requests of a session, which begin alike.
            cache_key: Some(asker.place.id.to_string()),
            temperature: asker.agent.tuning.temperature,
            top_p: asker.agent.tuning.top_p,
            output_schema: self.output_schema,
            facts: asker.info.facts.clone(),
            ..Default::default()
        };
        (self.provider, request)
    }
}

fn output_schema(format: &AnswerFormatPart) -> OutputSchema {
    let AnswerFormatPart { name, schema, strict, .. } = format;
    OutputSchema { name: name.clone(), schema: schema.clone(), strict: *strict }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_gathered_is_used_for_a_second() {
        let early = || Early(Instant::now(), Err(ApiError::from(ErrorCode::Forbidden)));
        let (soon, late) = (early(), early());
        tokio::time::advance(Duration::from_millis(999)).await;
        assert!(matches!(soon.fresh(), Some(Err(_))));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(late.fresh().is_none());
    }
}
