//! Asking the model: from the recorded conversation to the inputs of the turn.

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_stream;
use actix::prelude::*;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use iris_agent::permissions::{Access, Judge, Judgement};
use iris_agent::{ApprovalRequest, Input, Opaque, ProviderTool, Verdict, Wait};
use iris_llm::{
    Finish, ModelError, ModelEvent, ModelStream, Pulse, ReportedUsage, parse_arguments,
};
use iris_protocol::{
    Agent, ApiError, Approval, ApprovalState, ErrorCode, ModelRef, PermissionAction, Remember,
    RunId, StreamKind, ToolCallId, Usage, UserId,
};
use iris_store::StoreError;
use iris_store::project::DataOwner;
use iris_tools::{Tool, ToolRegistry, is_shallow};
use iris_workspace::Workspace;
use serde_json::Value;
use tokio::try_join;
use tracing::{Instrument, Span};

use super::compaction::is_too_long;
use super::drafts::Drafts;
use super::question::{Asker, Early, Gathered};
use super::{Assignment, Orchestrator, Said};
use crate::agents::find_agent;
use crate::permissions;
use crate::project::Secrets;
use crate::session::{SessionPlace, may_start, users_of, with_starter};
use crate::supervision::Work;
use crate::toolbox::{kept_away, tools_of};

/// How long a model may say nothing before the orchestrator counts as stuck.
const MODEL_BUDGET: Duration = Duration::from_mins(4);
/// How much longer than the adapters of providers, which give up by themselves.
const SPARE_BUDGET: Duration = Duration::from_mins(1);
/// Most bytes of a name or a word of a provider that are kept with a step.
const WORD_BYTES_MAX: usize = 256;

/// A question to the model that is being answered.
pub(super) struct Call {
    /// Which one of the run it is.
    pub(super) number: u64,
    pub(super) task: SpawnHandle,
    pub(super) work: Arc<Work>,
}

/// What comes out of a question to the model.
enum Told {
    /// The question goes to the model.
    Asked(Asking),
    /// The conversation is too long to be asked.
    TooLong,
    /// Something that needs no look at the rules.
    Event(ModelEvent),
    /// A call of a tool by the provider's id, and what may become of it.
    Call(String, Input),
}

/// What came of a question before anything of it was judged.
enum Asked {
    Asking(Asking),
    Event(ModelEvent),
    TooLong,
}

/// What is known of a question.
pub(super) struct Asking {
    /// Its estimated tokens.
    pub(super) tokens: u64,
    /// Whether a summary could stand for something of it.
    pub(super) may_be_shorter: bool,
    /// Who can read what the provider wants back with its answer.
    pub(super) owner: DataOwner,
}

type Events = BoxStream<'static, Result<Told, ApiError>>;

/// A question and its answer.
pub(super) type Answering = (Asking, ModelStream);

impl Orchestrator {
    pub(super) fn call_model(&mut self, ctx: &mut Context<Self>) {
        if self.services().storage.is_full() {
            return self.call_model_later(ctx);
        }
        self.calls += 1;
        let number = self.calls;
        let span = tracing::info_span!(
            parent: &self.span,
            "step",
            run.id = self.assignment.run.id.as_str(),
            step.index = number - 1,
            model = self.model_name(),
        );
        let work = self.begin_question("CallModel");
        let gathered = self.gathered.take().and_then(Early::fresh);
        let mut events = self.ask(gathered, pulse_of(&work), &span);
        self.attempt = 1;
        self.drafts = Drafts::default();
        let events = stream::poll_fn({
            let span = span.clone();
            move |task| span.in_scope(|| events.poll_next_unpin(task))
        });
        let handled = wrap_stream::<_, Self>(events).map(move |event, orchestrator, ctx| {
            span.in_scope(|| orchestrator.model_event(event, ctx));
        });
        let ended = handled.finish().map(move |(), orchestrator, _| {
            // A stream may end after the next call has begun.
            orchestrator.model.take_if(|call| call.number == number);
        });
        self.model = Some(Call { number, task: ctx.spawn(ended), work });
    }

    /// Begins to wait for an answer. Whoever lets something be heard, whatever it is, is waited for: that it says
    /// nothing of an answer is for the adapter of its provider to judge.
    pub(super) fn begin_question(&mut self, name: &'static str) -> Arc<Work> {
        self.said = Said::default();
        let patience = self.services().models.silence() + SPARE_BUDGET;
        Arc::new(self.vitals.begin(name, MODEL_BUDGET.max(patience)))
    }

    pub(super) fn abort_model(&mut self, ctx: &mut Context<Self>) {
        if let Some(call) = self.model.take() {
            ctx.cancel_future(call.task);
        }
    }

    pub(super) fn model_name(&self) -> Option<String> {
        let model = self.answerer.as_ref().map(|answerer| &answerer.model)?;
        Some(format!("{}/{}", model.provider_id, model.model_id))
    }

    /// The model's answer to everything that is recorded, which may have been `gathered` before. Dropping the
    /// stream ends the request.
    fn ask(
        &self,
        gathered: Option<Result<Box<Gathered>, ApiError>>,
        pulse: Pulse,
        span: &Span,
    ) -> Events {
        let Some(asker) = Asker::of(self) else { return stream::empty().boxed() };
        let caller = Arc::clone(&asker.caller);
        let secrets = asker.place.project.kept.secrets.clone();
        let may_compact = self.turn.may_compact();
        let opened = async move {
            let gathered = match gathered {
                Some(gathered) => gathered?,
                None => asker.gather().await?,
            };
            let question = asker.next_question(gathered).await?;
            if may_compact && is_too_long(&asker, &question) {
                return Ok(None);
            }
            asker.answer(question, pulse).await.map(Some)
        };
        let opened = stream::once(opened.instrument(span.clone()));
        let events =
            opened.flat_map(move |opened: Result<Option<Answering>, ApiError>| match opened {
                Ok(Some((asking, events))) => {
                    let secrets = secrets.clone();
                    let error = move |error| model_error(&secrets, &error);
                    let events = events.map(move |it| it.map(Asked::Event).map_err(&error));
                    stream::iter([Ok(Asked::Asking(asking))]).chain(events).boxed()
                }
                Ok(None) => stream::iter([Ok(Asked::TooLong)]).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            });
        events.then(move |event| told(event, Arc::clone(&caller))).boxed()
    }

    fn model_event(&mut self, event: Result<Told, ApiError>, ctx: &mut Context<Self>) {
        // What has no wire has no pulse either.
        if let Some(call) = &self.model {
            call.work.progress();
        }
        let event = match event {
            Ok(Told::Event(event)) => event,
            Ok(Told::Asked(Asking { tokens, may_be_shorter, owner })) => {
                self.said.may_be_shorter = may_be_shorter;
                self.data_owner = Some(owner);
                return self.meter_answerer(tokens);
            }
            Ok(Told::Call(id, input)) => return self.input(self.drafted(&id, input), ctx),
            Ok(Told::TooLong) => return self.input(Input::ContextFull { error: None }, ctx),
            Err(error) => return self.model_failed(error, ctx),
        };
        let used = self.meter.as_mut().and_then(|meter| meter.hear(&event));
        self.inputs.extend(used.map(Input::UsageArrived));
        let input = match event {
            ModelEvent::TextDelta { index, text } => {
                Input::TextArrived { kind: StreamKind::Text, index, text }
            }
            ModelEvent::ReasoningDelta { index, text } => {
                Input::TextArrived { kind: StreamKind::Reasoning, index, text }
            }
            ModelEvent::TextOpaque { index, opaque } => {
                Input::OpaqueArrived { kind: StreamKind::Text, index, opaque }
            }
            ModelEvent::ReasoningOpaque { index, opaque } => {
                Input::OpaqueArrived { kind: StreamKind::Reasoning, index, opaque }
            }
            ModelEvent::ProviderTool { name, arguments, output, is_error, opaque } => {
                Input::ProviderToolArrived(provider_tool(name, arguments, output, is_error, opaque))
            }
            ModelEvent::Usage(usage) => Input::UsageArrived(self.charged_to_answerer(&usage)),
            ModelEvent::Finish { reason, raw } => {
                self.note_end(&raw);
                let may_be_shorter = self.said.may_be_shorter && self.turn.may_compact();
                if reason == Finish::Paused {
                    Input::ModelPaused
                } else if reason == Finish::ContextOverflow && may_be_shorter {
                    Input::ContextFull { error: None }
                } else {
                    Input::ModelFinished(reason.reason())
                }
            }
            ModelEvent::Start { model, id } => {
                tracing::debug!(answerer = model, answer = id, "a model answers");
                let asked = self.answerer.as_ref().map(|answerer| answerer.model.clone());
                self.note_answerer(asked.as_ref(), &model);
                return self.advance(ctx);
            }
            ModelEvent::ToolInputStart { call_id, name } => {
                self.draft_call(&call_id, name, ctx);
                return self.advance(ctx);
            }
            ModelEvent::ToolInputDelta { call_id, fragment } => {
                self.show_input(&call_id, fragment, ctx);
                return self.advance(ctx);
            }
            // A call was judged on its way here.
            ModelEvent::ToolCall { .. }
            | ModelEvent::UsageSoFar(_)
            | ModelEvent::TextStart { .. }
            | ModelEvent::TextEnd { .. }
            | ModelEvent::ReasoningStart { .. }
            | ModelEvent::ReasoningEnd { .. } => return self.advance(ctx),
        };
        self.input(input, ctx);
    }
}

impl Orchestrator {
    fn meter_answerer(&mut self, asked: u64) {
        let model = self.answerer.as_ref().map(|answerer| answerer.model.clone());
        if let Some(model) = model {
            self.meter(model, asked);
        }
    }

    /// Which model answers is for the provider to say, and need not be the one that was asked.
    pub(super) fn note_answerer(&mut self, asked: Option<&ModelRef>, model: &str) {
        let is_another = !model.is_empty() && asked.is_none_or(|asked| asked.model_id != model);
        self.said.answered_by = is_another.then(|| self.word(model));
    }

    /// Why the answer ended, in the words of the provider.
    pub(super) fn note_end(&mut self, raw: &str) {
        self.said.finish_reason = (!raw.is_empty()).then(|| self.word(raw));
    }

    fn word(&self, said: &str) -> String {
        let cut = said.get(..said.floor_char_boundary(WORD_BYTES_MAX)).unwrap_or_default();
        self.assignment.place.project.kept.secrets.mask(cut).into_owned()
    }

    fn charged_to_answerer(&mut self, usage: &ReportedUsage) -> Usage {
        let model = self.answerer.as_ref().map(|answerer| answerer.model.clone());
        model.map_or(usage.tokens, |model| self.charged(model, usage))
    }
}

/// What says that work goes on; it does not keep it from ending.
pub(super) fn pulse_of(work: &Arc<Work>) -> Pulse {
    let work = Arc::downgrade(work);
    Pulse::heard_by(move || {
        if let Some(work) = work.upgrade() {
            work.progress();
        }
    })
}

fn provider_tool(
    tool_name: String,
    arguments: String,
    output: String,
    is_error: bool,
    opaque: Option<Opaque>,
) -> ProviderTool {
    // What nests too deeply cannot be stored and read again; the text of it can.
    let parsed = parse_arguments(&arguments).ok().filter(is_shallow);
    let input = parsed.unwrap_or(Value::String(arguments));
    ProviderTool { tool_name, input, output, is_error, opaque }
}

/// Judges the call of a tool on its way from the model to the turn.
async fn told(event: Result<Asked, ApiError>, caller: Arc<Caller>) -> Result<Told, ApiError> {
    let event = match event? {
        Asked::Event(event) => event,
        Asked::Asking(asking) => return Ok(Told::Asked(asking)),
        Asked::TooLong => return Ok(Told::TooLong),
    };
    let ModelEvent::ToolCall { call_id, name, arguments, is_complete, opaque } = event else {
        return Ok(Told::Event(event));
    };
    let input = caller.judged_call(name, arguments, is_complete, opaque).await;
    input.map(|input| Told::Call(call_id, input)).map_err(|error| error.to_api())
}

/// For whom tools are called, where, and by which agent.
#[derive(Clone)]
pub(super) struct Caller {
    place: SessionPlace,
    agent: Agent,
    run_id: RunId,
    starter: UserId,
}

impl Caller {
    pub(super) fn of(assignment: &Assignment, agent: Agent) -> Self {
        let (run_id, starter) = (assignment.run.id.clone(), assignment.run.started_by.clone());
        Self { place: assignment.place.clone(), agent, run_id, starter }
    }

    /// The project's directory.
    pub(super) fn workspace(&self) -> Workspace {
        self.place.project.workspace.clone()
    }

    /// The rules as they are now; those of the agent as they were last when it is deleted.
    pub(super) async fn judge(&self) -> Result<Judge, StoreError> {
        let place = &self.place;
        let found = place.project.reader.session_of_run(place.id.clone(), self.run_id.clone());
        let (session, joined) = found.await?.ok_or(StoreError::NotFound { what: "session" })?;
        let (project, services) = (&place.project, &place.services);
        let agent = find_agent(project, services, &self.agent.name).await?;
        let agent = agent.as_ref().unwrap_or(&self.agent);
        let users = with_starter(joined, &self.starter);
        permissions::judge(project, services, Some(&session), agent, &users).await
    }

    async fn users(&self) -> Result<Vec<UserId>, StoreError> {
        users_of(&self.place, self.run_id.clone(), &self.starter).await
    }

    /// The tools of the project as they are now.
    pub(super) async fn tools(&self) -> Result<Arc<ToolRegistry>, StoreError> {
        tools_of(&self.place.project, &self.place.services).await
    }

    /// Why those for whom the run acts may not use that tool, whatever rules say: the right to it, or to the
    /// project, may have been taken away since.
    pub(super) async fn lacking_right(
        &self,
        tool: &dyn Tool,
    ) -> Result<Option<&'static str>, StoreError> {
        let root = &self.place.project.root;
        for user in self.users().await? {
            if !may_start(&self.place, &user).await? {
                return Ok(Some(NO_ACCESS));
            }
            if tool.runs_code() && !permissions::may_run_code(root, &user).await? {
                return Ok(Some(NO_CODE));
            }
        }
        Ok(None)
    }

    /// What a person said yes to, if anybody did to this call.
    pub(super) async fn approved(
        &self,
        call_id: &ToolCallId,
    ) -> Result<Option<Approval>, StoreError> {
        let place = &self.place;
        let found = place.project.reader.approval(place.id.clone(), call_id.clone()).await?;
        Ok(found.filter(|approval| approval.state == ApprovalState::Approved))
    }

    /// A call runs when it is whole, its tool is one of the agent's, its arguments fit and the rules
    /// allow what it touches.
    async fn judged_call(
        &self,
        tool_name: String,
        arguments: String,
        is_complete: bool,
        opaque: Option<Opaque>,
    ) -> Result<Input, StoreError> {
        let parsed = if is_complete {
            parse_arguments(&arguments)
        } else {
            Err("the call was cut off before its arguments were whole".to_owned())
        };
        let (input, verdict) = match parsed {
            // What nests too deeply cannot be stored and read again; the text of it can.
            Ok(input) if !is_shallow(&input) => {
                let error = "the arguments are nested too deeply".to_owned();
                (Value::String(arguments), Verdict::Refuse(error))
            }
            Ok(input) => {
                let verdict = self.verdict(&tool_name, &input).await?;
                (input, verdict)
            }
            Err(error) => (Value::String(arguments), Verdict::Refuse(error)),
        };
        Ok(Input::CallArrived { part_id: None, tool_name, input, verdict, opaque })
    }

    async fn verdict(&self, tool_name: &str, input: &Value) -> Result<Verdict, StoreError> {
        if let Some(error) = kept_away(&self.place.project, &self.place.services, tool_name) {
            return Ok(Verdict::Refuse(error));
        }
        let (tools, allowed) = (self.tools().await?, &self.agent.tools);
        if !allowed.iter().any(|name| name == tool_name) {
            // An agent may name tools that do not exist any more.
            let known = allowed.iter().filter(|name| tools.get(name).is_some());
            let names = known.map(String::as_str).collect::<Vec<_>>().join("`, `");
            let error = format!("unknown tool `{tool_name}`; there are `{names}`");
            return Ok(Verdict::Refuse(error));
        }
        let Some(tool) = tools.get(tool_name) else {
            return Ok(Verdict::Refuse(tool_gone(tool_name)));
        };
        if let Some(error) = tool.unavailable() {
            return Ok(Verdict::Refuse(error.to_string()));
        }
        let (lacking, judge) = try_join!(self.lacking_right(tool.as_ref()), self.judge())?;
        if let Some(lacking) = lacking {
            return Ok(Verdict::Deny(lacking.to_owned()));
        }
        let judge = Arc::new(judge);
        let judged = permissions::judged(&tools, &tool, input, &judge).await;
        let asked = judged.and_then(|judged| Ok((judged, tool.asks(input)?)));
        let ((accesses, judgement), asks) = match asked {
            Ok(asked) => asked,
            Err(error) => return Ok(Verdict::Refuse(error.to_string())),
        };
        Ok(match (judgement.action, asks) {
            (PermissionAction::Deny, _) => Verdict::Deny(judgement.denial().unwrap_or_default()),
            // To be asked whether one may be asked is to be asked.
            (PermissionAction::Allow | PermissionAction::Ask, Some(questions)) => {
                Verdict::Ask(Wait::Answers(questions))
            }
            (PermissionAction::Allow, None) => Verdict::Run,
            (PermissionAction::Ask, None) => {
                let request = request(tool.as_ref(), input, &accesses, judgement);
                Verdict::Ask(Wait::Approval(request))
            }
        })
    }
}

/// What the model reads of a call of a tool that the agent names and the project has no more.
pub(super) fn tool_gone(name: &str) -> String {
    format!("there is no tool `{name}` in this project any more: it was deleted or disabled")
}

/// What the model reads of a call for somebody who may not work in the project any more.
const NO_ACCESS: &str = "who started or steered this run may not work in this project any more";
/// What the model reads of a call that would run a program for somebody who may not.
const NO_CODE: &str = "who started or steered this run may not have programs run on this server";

/// What a person is asked about a call. What no rule can name is not to be remembered.
fn request(
    tool: &dyn Tool,
    input: &Value,
    accesses: &[Access],
    judged: Judgement,
) -> ApprovalRequest {
    let asked = accesses.iter().zip(&judged.accesses);
    let mut asked = asked.filter(|(_, judged)| judged.action == PermissionAction::Ask);
    let is_nameable =
        !accesses.is_empty() && asked.all(|(access, _)| access.target.exact_pattern().is_some());
    let options = if is_nameable {
        vec![Remember::Once, Remember::Session, Remember::Project]
    } else {
        vec![Remember::Once]
    };
    ApprovalRequest { message: tool.summary(input), accesses: judged.accesses, options }
}

pub(super) fn model_error(secrets: &Secrets, error: &ModelError) -> ApiError {
    let message = secrets.mask(&error.message).into_owned();
    let mut wire = ApiError::new(error.code(), message).reason(error.class.as_str());
    if let Some(status) = error.status {
        wire = wire.detail("status", status);
    }
    if let Some(id) = &error.request_id {
        wire = wire.detail("providerRequestId", id.clone());
    }
    if error.is_not_asked {
        wire = wire.detail("notAsked", true);
    }
    wire.retryable = error.is_retryable();
    wire.retry_after_ms = error.retry_after_ms;
    debug_assert!(wire.code != ErrorCode::Internal, "a provider's failure is not ours");
    wire
}
