//! One run: performs the effects of the turn machine and feeds it what comes back. A session starts
//! it; it ends when the end of its run is recorded.

mod checkpoints;
mod compaction;
mod drafts;
mod environment;
mod giving_back;
mod instructions;
mod metering;
mod model;
mod nested;
mod outputs;
mod pause;
mod people;
mod pieces;
mod question;
mod retries;
mod steering;
mod tasks;
mod todos;
mod tool;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::Either;
use iris_agent::{Effect, Input, Resumption, StepEnd, StepPart, Turn, TurnEnd, Wait};
use iris_protocol::{
    ApiError, ApprovalId, ErrorCode, FinishReason, Message, MessageId, ModelRef, Question,
    QuestionId, Run, RunId, RunStatus, Session as SessionResource, SessionId, StreamKind,
    ToolCallId,
};
use iris_store::project::{
    DataOwner, Decision, FailQueuedRun, FinishRun, NewApproval, NewAttachment, NewPart,
    NewQuestion, Outcome, RecordResult, RecordStep, Reply, Rest, Spent, StartRun,
    StepEnd as RecordedStep,
};
use iris_store::{Command, CrashPoint, FromReserve, StoreError, WriteContext, crash_point};
use iris_tools::ReadLog;
use serde_json::{Value, json};
use tokio::join;
use tracing::{Instrument, Span};

use crate::line::Place;
use crate::project::EndStreams;
use crate::session::{
    Answered, Answerer, Decide, Respond, Session, SessionPlace, answerer, answerer_of, may_start,
    starter_lost_access,
};
use crate::supervision::{Address, RequestTag, Supervise, Vitals};
use crate::{Services, mcp, record};
use checkpoints::{Checkpoints, chunk};
use compaction::Summaries;
use drafts::Drafts;
use environment::Environment;
use giving_back::provider_data;
use metering::Meter;
use pause::Paused;
use pieces::Pieces;
use question::{Asker, Early};
use tool::ToolRuns;

pub(crate) use metering::Meter as AnswerMeter;
pub(crate) use nested::ToldInstructions;
pub(crate) use tasks::end_tasks;

/// How long a write may take before the orchestrator counts as stuck.
const WRITE_BUDGET: Duration = Duration::from_secs(30);

/// How long something that has to be recorded waits for another try after a failure.
const RECORD_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What an orchestrator is to do.
#[derive(Clone)]
pub(crate) struct Assignment {
    pub(crate) place: SessionPlace,
    pub(crate) run: Run,
    pub(crate) answer_id: MessageId,
    /// What caused the run, when that is known.
    pub(crate) request: Option<RequestTag>,
    pub(crate) session: Address<Session>,
    /// What the model has seen of the project's files in this session.
    pub(crate) read_log: Arc<ReadLog>,
    /// What it was told of the instructions in the project's directories.
    pub(crate) told: Arc<ToldInstructions>,
    /// The session of a run whose message was just taken, from somebody who may have it answered; for any other
    /// both are looked up.
    pub(crate) known: Option<SessionResource>,
    /// What there is of a run that goes on; none for one that is to start.
    pub(crate) resumed: Option<Resumed>,
    /// Its place among the runs that work, which the session holds.
    pub(crate) work_place: Weak<Place>,
}

/// A run that was cut off, as far as it had come.
#[derive(Clone)]
pub(crate) struct Resumed {
    /// The answer, which names who gives it.
    pub(crate) answer: Message,
    /// The calls that wait, for what, and when their time is over, in milliseconds since 1970 UTC.
    pub(crate) expiries: Vec<(ToolCallId, Expiring, i64)>,
}

/// What a call waits for until its time is over.
#[derive(Debug, Clone)]
pub(crate) enum Expiring {
    /// A yes or a no.
    Approval,
    /// The answer to this question.
    Question(QuestionId),
}

/// The orchestrator actor.
pub(crate) struct Orchestrator {
    assignment: Assignment,
    vitals: Arc<Vitals>,
    /// The run in traces; steps and tool calls are inside it.
    span: Span,
    turn: Turn,
    /// Known once the run is recorded as running.
    answerer: Option<Answerer>,
    /// What the first question of the run consists of, until that is asked.
    gathered: Option<Early>,
    /// What happened and is not taken in yet.
    inputs: VecDeque<Input>,
    /// What is still to be done about the last input.
    effects: VecDeque<Effect>,
    is_recording: bool,
    /// What the disk had no room for.
    paused: Option<Paused>,
    model: Option<model::Call>,
    summaries: Summaries,
    drafts: Drafts,
    /// Where the agent works.
    environment: Arc<Environment>,
    /// Whether it waits before it asks a model again that failed.
    waits_to_ask: bool,
    /// Questions to the model so far, those before a cut that were answered included.
    calls: u64,
    /// Which attempt at its step the next question is.
    attempt: u32,
    tools: ToolRuns,
    /// What calls asked that run.
    asked: people::Asked,
    checkpoints: Checkpoints,
    pieces: Pieces,
    /// What the answer on its way used so far.
    meter: Option<Meter>,
    /// How the open step is charged for, once a model said what it used.
    charged: Option<Charged>,
    /// Who can read what the provider of the open step wants back.
    data_owner: Option<DataOwner>,
    /// What the provider said of the open step.
    said: Said,
    /// Since when it works without having waited for people: milliseconds since 1970 UTC.
    works_since: i64,
    /// When the time of a waiting call is over.
    expiries: HashMap<ToolCallId, SpawnHandle>,
    /// Whether it may have set sub-agents to work.
    has_tasks: bool,
}

impl Orchestrator {
    pub(crate) fn new(assignment: Assignment, vitals: Arc<Vitals>) -> Self {
        let resumption = assignment.resumed.as_ref();
        let limits = assignment.place.services.settings.turn;
        let resumption =
            resumption.map_or_else(Default::default, |it| Resumption::of(&it.answer, &limits));
        let calls = u64::from(resumption.steps);
        let assignment_at = assignment.place.services.clock.now_ms();
        let has_tasks = !resumption.running.is_empty();
        let mut turn = Turn::resume(limits, resumption);
        if assignment.run.compacts {
            turn = turn.compacting_only();
        }
        let span = tracing::info_span!(
            "run",
            project.id = assignment.place.project.id.as_str(),
            session.id = assignment.place.id.as_str(),
            run.id = assignment.run.id.as_str(),
            actor.path = vitals.path().as_str(),
            request.id = assignment.request.as_deref(),
        );
        if let Some(request) = &assignment.request {
            vitals.acts_for(Arc::clone(request));
        }
        Self {
            assignment,
            vitals,
            span,
            turn,
            answerer: None,
            gathered: None,
            inputs: VecDeque::new(),
            effects: VecDeque::new(),
            // Everything waits until the start of the run is recorded.
            is_recording: true,
            paused: None,
            model: None,
            summaries: Summaries::default(),
            environment: Arc::default(),
            waits_to_ask: false,
            calls,
            attempt: 1,
            tools: ToolRuns::default(),
            asked: people::Asked::default(),
            checkpoints: Checkpoints::default(),
            pieces: Pieces::default(),
            meter: None,
            charged: None,
            data_owner: None,
            drafts: Drafts::default(),
            said: Said::default(),
            works_since: assignment_at,
            expiries: HashMap::new(),
            has_tasks,
        }
    }

    fn services(&self) -> &Services {
        &self.assignment.place.services
    }

    fn session_id(&self) -> SessionId {
        self.assignment.place.id.clone()
    }

    fn run_id(&self) -> RunId {
        self.assignment.run.id.clone()
    }
}

impl Actor for Orchestrator {
    type Context = Context<Self>;

    /// Records the run as running, where it is not already; only then does the turn begin.
    fn started(&mut self, ctx: &mut Self::Context) {
        self.begin(ctx);
    }
}

impl Orchestrator {
    fn begin(&mut self, ctx: &mut Context<Self>) {
        let work = self.vitals.begin("StartRun", WRITE_BUDGET);
        let began = begin(self.assignment.clone(), Arc::clone(&self.environment));
        let began = began.instrument(self.span.clone()).into_actor(self);
        ctx.spawn(began.map(move |began, orchestrator, ctx| {
            drop(work);
            match began {
                Ok(Began::Answerer(answerer, gathered)) => {
                    orchestrator.gathered = gathered;
                    if let Some(steps_max) = answerer.agent.tuning.max_steps {
                        orchestrator.turn.limit_steps(steps_max);
                    }
                    orchestrator.answerer = Some(answerer);
                    orchestrator.is_recording = false;
                    orchestrator.expire_resumed(ctx);
                    orchestrator.inputs.push_front(Input::Started);
                    orchestrator.advance(ctx);
                }
                Ok(Began::Failed(error)) => {
                    // What it says names what users chose.
                    let (path, code) = (orchestrator.vitals.path(), error.code);
                    tracing::warn!(actor.path = %path, %code, "run could not start");
                    orchestrator.leave(ctx);
                }
                Ok(Began::Cancelled) => ctx.stop(),
                Ok(Began::Unknown(error)) => {
                    tracing::error!(%error, "whether the starter of a run may start it is not known");
                    orchestrator.pause_start(ctx);
                }
                Err(StoreError::StorageFull) => orchestrator.pause_start(ctx),
                Err(error) => {
                    orchestrator
                        .vitals
                        .fail(format!("the start was not recorded: {}", error.code()));
                    ctx.stop();
                }
            }
        }));
    }
}

crate::supervised!(Orchestrator);

impl Supervise for Orchestrator {
    fn observe(&self) -> Value {
        json!({
            "runId": self.assignment.run.id,
            "isRecording": self.is_recording,
            "isPaused": self.is_paused(),
            "asksModel": self.model.is_some(),
            "waitsToAskAgain": self.waits_to_ask,
            "toolsRunning": self.tools.count(),
            "callsWaitingForApproval": self.expiries.len(),
            "questionsOfRunningCalls": self.asked.lock().len(),
            "inputsWaiting": self.inputs.len(),
        })
    }
}

/// How the start of a run went, as it is recorded.
enum Began {
    Answerer(Answerer, Option<Early>),
    /// There is nobody to answer.
    Failed(ApiError),
    /// Somebody cancelled the run before it started.
    Cancelled,
    /// The root database cannot say whether it may start. Nothing is recorded: that passes.
    Unknown(StoreError),
}

async fn begin(assignment: Assignment, environment: Arc<Environment>) -> Result<Began, StoreError> {
    let Assignment { place, run, .. } = &assignment;
    let (may_start, session) = if let Some(session) = assignment.known.clone() {
        (Ok(true), Ok(Some(session)))
    } else {
        let session = place.project.reader.session(place.id.clone());
        join!(may_start(place, &run.started_by), session)
    };
    let may_start = match may_start {
        Ok(may_start) => may_start,
        Err(error) => return Ok(Began::Unknown(error)),
    };
    if let Some(resumed) = &assignment.resumed {
        return go_on(place, run, &resumed.answer, may_start).await;
    }
    let found = match session? {
        Some(session) if may_start => answerer(place, &session).await,
        Some(_) => Err(starter_lost_access()),
        None => Err(ApiError::not_found("session")),
    };
    match found {
        Ok(answerer) => start(&assignment, answerer, &environment).await,
        Err(error) => {
            let command = FailQueuedRun {
                session_id: place.id.clone(),
                run_id: run.id.clone(),
                status: RunStatus::Failed,
                error: Some(error.clone()),
                at: place.services.clock.now_ms(),
            };
            record(&place.project.address, command, WriteContext::default()).await?;
            Ok(Began::Failed(error))
        }
    }
}

/// Records the start of a run, and finds out meanwhile what its first question consists of. If that cannot be
/// found out, the question is where it counts.
async fn start(
    assignment: &Assignment,
    answerer: Answerer,
    environment: &Arc<Environment>,
) -> Result<Began, StoreError> {
    let Assignment { place, run, answer_id, .. } = assignment;
    mcp::warm(place, &answerer.agent.tools, &run.started_by);
    let command = StartRun {
        run_id: run.id.clone(),
        answer_id: answer_id.clone(),
        agent: answerer.agent.name.clone(),
        model: answerer.model.clone(),
        at: place.services.clock.now_ms(),
    };
    let asker = Asker::first(assignment, &answerer, environment);
    let gathered = async { if run.compacts { None } else { Some(Early::gather(&asker).await) } };
    let started = record(&place.project.address, command, WriteContext::default());
    let (started, gathered) = join!(started, gathered);
    if started?.output.run.status == RunStatus::Cancelled {
        return Ok(Began::Cancelled);
    }
    Ok(Began::Answerer(answerer, gathered))
}

/// Goes on with the agent and the model that began the answer.
async fn go_on(
    place: &SessionPlace,
    run: &Run,
    answer: &Message,
    may_start: bool,
) -> Result<Began, StoreError> {
    let found =
        if may_start { answerer_of(place, answer).await } else { Err(starter_lost_access()) };
    let error = match found {
        Ok(answerer) => {
            mcp::warm(place, &answerer.agent.tools, &run.started_by);
            return Ok(Began::Answerer(answerer, None));
        }
        Err(error) => error,
    };
    let command = FinishRun {
        session_id: place.id.clone(),
        run_id: run.id.clone(),
        message_id: answer.id.clone(),
        parts: Vec::new(),
        provider_data: Vec::new(),
        step: None,
        rest: Rest::default(),
        status: RunStatus::Failed,
        finish_reason: FinishReason::Error,
        error: Some(error.clone()),
        at: place.services.clock.now_ms(),
    };
    record(&place.project.address, command, WriteContext::default()).await?;
    Ok(Began::Failed(error))
}

impl Orchestrator {
    pub(super) fn input(&mut self, input: Input, ctx: &mut Context<Self>) {
        self.inputs.push_back(input);
        self.advance(ctx);
    }

    /// Takes one input at a time and performs all its effects before the next; an effect that must be
    /// durable holds up everything after it (INV-6).
    fn advance(&mut self, ctx: &mut Context<Self>) {
        while !self.is_recording {
            if let Some(effect) = self.effects.pop_front() {
                self.perform(effect, ctx);
            } else if let Some(input) = self.inputs.pop_front() {
                let ids = &*self.assignment.place.services.ids;
                self.effects.extend(self.turn.step(input, ids));
            } else {
                break;
            }
        }
        self.rest_while_people_think();
    }

    /// A run that does nothing but wait for people leaves its place to others.
    fn rest_while_people_think(&self) {
        let waits = !self.expiries.is_empty()
            && !self.is_recording
            && self.model.is_none()
            && self.tools.count() == 0;
        if let Some(place) = self.assignment.work_place.upgrade() {
            place.rest(waits);
        }
    }

    fn perform(&mut self, effect: Effect, ctx: &mut Context<Self>) {
        match effect {
            Effect::CallModel => self.call_model(ctx),
            Effect::Compact { squeezed } => self.compact(squeezed, ctx),
            Effect::AbortModel => self.abort_model(ctx),
            Effect::Show { part_id, kind, offset, text } => {
                self.checkpoint_soon(chunk(&part_id, kind, offset, &text), ctx);
                self.show(part_id, kind.into(), None, offset, text, ctx);
            }
            Effect::RecordRetry(retry) => self.record_retry(retry, ctx),
            Effect::AskAgainAfter(delay) => self.ask_again_after(delay, ctx),
            Effect::RecordRetryOver => self.record_retry_over(ctx),
            Effect::RecordStep { parts, step } => self.record_step(parts, step, ctx),
            Effect::RecordResult { call_id, outcome } => {
                let command = self.result_command(call_id, outcome);
                self.record(command, None, ctx);
            }
            Effect::RunTool { call_id, tool_name, input } => {
                self.run_tool(call_id, &tool_name, input, ctx);
            }
            Effect::AbortTool(call_id) => self.abort_tool(&call_id, ctx),
            Effect::End(end) => self.finish(end, ctx),
        }
    }

    /// Everything waits until `command` is durable. `behind` is the point right after.
    fn record<C: Command + Clone>(
        &mut self,
        command: C,
        behind: Option<CrashPoint>,
        ctx: &mut Context<Self>,
    ) {
        self.record_from(command, behind, false, ctx);
    }

    /// As [`Orchestrator::record`], from the reserve of a full disk when the run is to end anyway.
    fn record_from<C: Command + Clone>(
        &mut self,
        command: C,
        behind: Option<CrashPoint>,
        from_reserve: bool,
        ctx: &mut Context<Self>,
    ) {
        self.is_recording = true;
        let (project, again) = (&self.assignment.place.project.address, command.clone());
        let work = self.vitals.begin(std::any::type_name::<C>(), WRITE_BUDGET);
        let recorded = if from_reserve {
            let command = FromReserve(command);
            Either::Left(record(project, command, WriteContext::default()))
        } else {
            Either::Right(record(project, command, WriteContext::default()))
        };
        ctx.spawn(recorded.into_actor(self).map(move |recorded, orchestrator, ctx| {
            drop(work);
            if matches!(recorded, Err(StoreError::StorageFull)) {
                return orchestrator.pause(ctx, move |orchestrator, is_cancelled, ctx| {
                    orchestrator.record_from(again, behind, from_reserve || is_cancelled, ctx);
                });
            }
            orchestrator.is_recording = false;
            if let Some(point) = behind.filter(|_| recorded.is_ok()) {
                crash_point(point);
            }
            if let Err(error) = recorded {
                orchestrator.log_failed_record(&error);
                orchestrator.effects.clear();
                orchestrator.inputs.push_front(Input::RecordFailed(error.to_api()));
            }
            orchestrator.advance(ctx);
        }));
    }

    fn log_failed_record(&self, error: &StoreError) {
        tracing::error!(actor.path = %self.vitals.path(), %error, "a step of a run could not be recorded");
    }

    fn record_step(&mut self, parts: Vec<StepPart>, step: StepEnd, ctx: &mut Context<Self>) {
        self.tell_pieces();
        self.assignment.session.tell(Answered);
        self.drop_checkpoints(ctx);
        let timeout = self.services().settings.approval_timeout;
        let at = self.services().clock.now_ms();
        let expires_at = at.saturating_add(i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX));
        let approvals = self.approvals(&parts, expires_at);
        let questions = self.questions(&parts, expires_at);
        for approval in &approvals {
            self.expire_later(approval.tool_call_id.clone(), Expiring::Approval, timeout, ctx);
        }
        for question in &questions {
            let expiring = Expiring::Question(question.id.clone());
            self.expire_later(question.tool_call_id.clone(), expiring, timeout, ctx);
        }
        let command = RecordStep {
            session_id: self.session_id(),
            run_id: self.run_id(),
            message_id: self.assignment.answer_id.clone(),
            provider_data: provider_data(self.data_owner.as_ref(), &parts),
            parts: parts.into_iter().map(new_part).collect(),
            approvals,
            questions,
            step: Some(self.recorded_step(step)),
            at,
        };
        crash_point(CrashPoint::BeforeIntent);
        self.record(command, Some(CrashPoint::AfterIntent), ctx);
    }

    fn approvals(&self, parts: &[StepPart], expires_at: i64) -> Vec<NewApproval> {
        let waiting = parts.iter().filter_map(|part| match part {
            StepPart::Call { part, wait: Some(Wait::Approval(request)), .. } => {
                let request = request.clone();
                Some(NewApproval {
                    id: ApprovalId::from_bits(self.services().ids.next_bits()),
                    tool_call_id: part.tool_call_id.clone(),
                    accesses: request.accesses,
                    message: request.message,
                    options: request.options,
                    expires_at,
                })
            }
            StepPart::Call { .. } | StepPart::Text { .. } | StepPart::Compaction(_) => None,
        });
        waiting.collect()
    }

    fn questions(&self, parts: &[StepPart], expires_at: i64) -> Vec<NewQuestion> {
        let waiting = parts.iter().filter_map(|part| match part {
            StepPart::Call { part, wait: Some(Wait::Answers(questions)), .. } => {
                Some(NewQuestion {
                    id: QuestionId::from_bits(self.services().ids.next_bits()),
                    tool_call_id: part.tool_call_id.clone(),
                    questions: questions.clone(),
                    expires_at,
                })
            }
            StepPart::Call { .. } | StepPart::Text { .. } | StepPart::Compaction(_) => None,
        });
        waiting.collect()
    }

    /// Sets the time of the calls of a resumed run that wait; for some of them it may be over already.
    fn expire_resumed(&mut self, ctx: &mut Context<Self>) {
        let Some(resumed) = &self.assignment.resumed else { return };
        let now = self.services().clock.now_ms();
        for (tool_call_id, expiring, expires_at) in resumed.expiries.clone() {
            let left = u64::try_from(expires_at.saturating_sub(now)).unwrap_or_default();
            self.expire_later(tool_call_id, expiring, Duration::from_millis(left), ctx);
        }
    }

    /// Ends the wait of a call after `timeout`, for as long as it takes to record it.
    fn expire_later(
        &mut self,
        tool_call_id: ToolCallId,
        expiring: Expiring,
        timeout: Duration,
        ctx: &mut Context<Self>,
    ) {
        let id = tool_call_id.clone();
        let handle = ctx.run_later(timeout, move |orchestrator, ctx| {
            let session = orchestrator.assignment.session.clone();
            let expired = expire(session, id.clone(), expiring.clone()).into_actor(orchestrator);
            ctx.spawn(expired.map(move |expired, orchestrator, ctx| {
                if let Err(error) = expired
                    && may_succeed_later(error.code)
                {
                    orchestrator.expire_later(id, expiring, RECORD_AGAIN_AFTER, ctx);
                }
            }));
        });
        self.expiries.insert(tool_call_id, handle);
    }

    fn result_command(
        &self,
        tool_call_id: ToolCallId,
        outcome: iris_agent::ToolOutcome,
    ) -> RecordResult {
        let outcome = match outcome {
            iris_agent::ToolOutcome::Completed { output, metadata, attachment } => {
                let attachment =
                    attachment.map(|it| NewAttachment { mime_type: it.mime_type, bytes: it.bytes });
                Outcome::Completed { output, metadata, attachment }
            }
            iris_agent::ToolOutcome::Failed { error } => Outcome::Failed { error },
        };
        RecordResult {
            session_id: self.session_id(),
            run_id: self.run_id(),
            message_id: self.assignment.answer_id.clone(),
            tool_call_id,
            outcome,
            by: self.assignment.run.started_by.clone(),
            at: self.services().clock.now_ms(),
        }
    }

    /// Records the end of the run, for as long as it takes: the session waits for it.
    fn finish(&mut self, mut end: TurnEnd, ctx: &mut Context<Self>) {
        self.tell_pieces();
        self.drop_checkpoints(ctx);
        let step = end.step.take().map(|step| self.recorded_step(step));
        let spent = if step.is_none() { self.spent() } else { Spent::default() };
        let rest = Rest { usage: end.usage, spent };
        self.record_end(end, step, rest, ctx);
    }

    fn record_end(
        &mut self,
        end: TurnEnd,
        step: Option<RecordedStep>,
        rest: Rest,
        ctx: &mut Context<Self>,
    ) {
        self.is_recording = true;
        let again = (end.clone(), step.clone(), rest.clone());
        let command = FinishRun {
            session_id: self.session_id(),
            run_id: self.run_id(),
            message_id: self.assignment.answer_id.clone(),
            provider_data: provider_data(self.data_owner.as_ref(), &end.parts),
            parts: end.parts.into_iter().map(new_part).collect(),
            step,
            rest,
            status: end.status,
            finish_reason: end.finish_reason,
            error: end.error,
            at: self.services().clock.now_ms(),
        };
        let project = self.assignment.place.project.address.clone();
        let work = self.vitals.begin("FinishRun", WRITE_BUDGET);
        crash_point(CrashPoint::Finish);
        let finished = record(&project, command, WriteContext::default()).into_actor(self);
        ctx.spawn(finished.map(move |finished, orchestrator, ctx| {
            drop(work);
            if let Err(error) = finished {
                orchestrator.log_failed_record(&error);
                if may_succeed_later(error.code()) {
                    ctx.run_later(pause::try_again_after(&error), |orchestrator, ctx| {
                        orchestrator.record_end(again.0, again.1, again.2, ctx);
                    });
                    return;
                }
            }
            project.tell(EndStreams(orchestrator.assignment.answer_id.clone()));
            orchestrator.assignment.session.tell(Answered);
            orchestrator.leave(ctx);
        }));
    }

    /// Ends once the sub-agents have that the run waited for.
    fn leave(&mut self, ctx: &mut Context<Self>) {
        if !self.has_tasks {
            return ctx.stop();
        }
        let (project, session_id) = (self.assignment.place.project.clone(), self.session_id());
        let ended = async move { end_tasks(&project, session_id).await };
        ctx.spawn(ended.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// Tells a session that the time of a waiting call is over. A session that is gone needs no telling.
async fn expire(
    session: Address<Session>,
    tool_call_id: ToolCallId,
    expiring: Expiring,
) -> Result<(), ApiError> {
    let (by, context) = (None, WriteContext::default());
    match expiring {
        Expiring::Approval => {
            let decision = Decision::Expire;
            let decided = session.urge(Decide { tool_call_id, decision, by, context }).await;
            decided.map_or(Ok(()), |decided| decided.map(drop))
        }
        Expiring::Question(question_id) => {
            let reply = Reply::Expire;
            let replied = session.urge(Respond { question_id, reply, by, context }).await;
            replied.map_or(Ok(()), |replied| replied.map(drop))
        }
    }
}

/// Whether a write that failed so may be tried again.
pub(crate) fn may_succeed_later(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::StorageFull | ErrorCode::Overloaded | ErrorCode::Internal)
}

fn new_part(part: StepPart) -> NewPart {
    match part {
        StepPart::Text { id, kind: StreamKind::Text, text, .. } => NewPart::Text { id, text },
        StepPart::Text { id, kind: StreamKind::Reasoning, text, .. } => {
            NewPart::Reasoning { id, text }
        }
        StepPart::Call { part, .. } => NewPart::Tool(part),
        StepPart::Compaction(part) => NewPart::Compaction(part),
    }
}

impl Orchestrator {
    fn recorded_step(&mut self, step: StepEnd) -> RecordedStep {
        let StepEnd { part_id, index, usage, finish_reason } = step;
        let Said { answered_by, finish_reason: raw_finish_reason, .. } =
            std::mem::take(&mut self.said);
        let spent = self.spent();
        RecordedStep { part_id, index, usage, answered_by, finish_reason, raw_finish_reason, spent }
    }

    /// How what was used since the last record is charged for.
    fn spent(&mut self) -> Spent {
        let now = self.services().clock.now_ms();
        let since = std::mem::replace(&mut self.works_since, now);
        let wall_time_ms = u64::try_from(now.saturating_sub(since)).unwrap_or(0);
        self.settle_meter();
        let Some(Charged { model, price_version, at_least }) = self.charged.take() else {
            return Spent { wall_time_ms, ..Spent::default() };
        };
        Spent { model: Some(model), price_version, at_least_nano_usd: at_least, wall_time_ms }
    }
}

/// Which model was charged for, and by which table of prices, where its cost is known.
struct Charged {
    model: ModelRef,
    price_version: Option<String>,
    /// What is known of the cost where not all of it is.
    at_least: i64,
}

/// What a provider said of a step, as it is recorded.
#[derive(Default)]
struct Said {
    /// The model that answers, where it is another one than was asked.
    answered_by: Option<String>,
    /// Its word for the end.
    finish_reason: Option<String>,
    /// Whether a summary could stand for something of what it was asked.
    may_be_shorter: bool,
}

/// Tell: what people said about a waiting call is recorded.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Answer {
    pub(crate) tool_call_id: ToolCallId,
    /// Whether it runs now; otherwise it has its result.
    pub(crate) runs: bool,
    /// Arguments in place of those of the model.
    pub(crate) edited: Option<Value>,
}

impl Handler<Answer> for Orchestrator {
    type Result = ();

    fn handle(&mut self, answer: Answer, ctx: &mut Context<Self>) {
        self.take_answer(answer, ctx);
    }
}

/// Tell: what became of a question is recorded.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Replied(pub(crate) Question);

impl Handler<Replied> for Orchestrator {
    type Result = ();

    fn handle(&mut self, Replied(question): Replied, ctx: &mut Context<Self>) {
        // One that asked while it ran goes on by itself.
        if let Some(question) = people::pass_on(&self.asked, question) {
            let tool_call_id = question.tool_call_id;
            self.take_answer(Answer { tool_call_id, runs: false, edited: None }, ctx);
        }
    }
}

impl Orchestrator {
    fn take_answer(&mut self, answer: Answer, ctx: &mut Context<Self>) {
        if let Some(expiry) = self.expiries.remove(&answer.tool_call_id) {
            ctx.cancel_future(expiry);
        }
        // The time in which people were waited for is nobody's.
        self.works_since = self.services().clock.now_ms();
        let call_id = answer.tool_call_id;
        let input = if answer.runs {
            Input::CallApproved { call_id, edited: answer.edited }
        } else {
            Input::CallSettled(call_id)
        };
        self.input(input, ctx);
    }
}

/// Tell: a user wants the run to end.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Cancel;

impl Handler<Cancel> for Orchestrator {
    type Result = ();

    fn handle(&mut self, _: Cancel, ctx: &mut Context<Self>) {
        self.input(Input::CancelRequested, ctx);
        self.resume(true, ctx);
    }
}
