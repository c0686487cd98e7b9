//! One conversation: takes messages, runs one orchestrator at a time (INV-8), passes on cancels and
//! decisions. The project's registry starts it when it is needed; it ends when it is idle.

mod answering;
mod approving;
mod attaching;
mod background;
mod compacting;
mod queueing;
mod rewriting;
mod titles;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{
    Agent, ApiError, Approval, ErrorCode, Message, MessageAccepted, MessageId, ModelRef, Part,
    PartId, Role, Run, RunId, RunStatus, Session as SessionResource, SessionId, ToolCallId,
    ToolState, UserId, WhenBusy,
};
use iris_store::project::{
    AcceptMessage, AcceptedMessage, Decision, FailRuns, OpenRun, ResolveApproval, ResumeRun,
};
use iris_store::{Command, Committed, StoreError, WriteContext};
use iris_tools::ReadLog;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::agents::{DEFAULT_AGENT, find_agent};
use crate::line::Place;
use crate::orchestrator::{
    Answer, Assignment, Cancel, Expiring, Orchestrator, Resumed, ToldInstructions, end_tasks,
    may_succeed_later,
};
use crate::project::{EndStreams, ProjectHandle};
use crate::supervision::{
    Address, ChildExited, ChildSpec, ExitReason, Intensity, OnStuck, RequestTag, RestartPolicy,
    Supervise, Vitals, current_request, spawn,
};
use crate::{Services, record, write};

pub(crate) use answering::Respond;
pub(crate) use attaching::Attached;
use attaching::attach;
use background::Leaving;
pub(crate) use background::{Adopt, Look, Retire};
pub(crate) use compacting::Compact;
use queueing::Turn;
pub(crate) use rewriting::{Rewrite, Said};
pub(crate) use titles::Answered;
use titles::Titles;

/// Messages that may wait for a session before callers are refused.
const MAILBOX_LIMIT: u32 = 256;

/// How long a session waits before it tries again what the store refused.
const START_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Where a session actor belongs.
#[derive(Clone)]
pub(crate) struct SessionPlace {
    pub(crate) id: SessionId,
    pub(crate) project: Arc<ProjectHandle>,
    pub(crate) services: Arc<Services>,
    /// The run of a sub-agent for which the actor stands below whoever set it to work; it does no other. One
    /// that stands below the registry does whatever is asked of it.
    pub(crate) serves: Option<RunId>,
    /// Whether what an earlier life of the project left is in order: until then a run that the store has
    /// may be one of that life.
    pub(crate) is_recovered: watch::Receiver<bool>,
}

impl SessionPlace {
    /// Waits until the runs of an earlier life are recovered.
    async fn recovered(&self) -> Result<(), StoreError> {
        let mut is_recovered = self.is_recovered.clone();
        is_recovered.wait_for(|it| *it).await.map(drop).map_err(|_| StoreError::Closed)
    }

    /// Starts the session actor on the current arbiter.
    pub(crate) fn start(
        self,
        parent: &Arc<Vitals>,
        on_exit: impl FnOnce(ChildExited) + 'static,
    ) -> Address<Session> {
        let spec = ChildSpec {
            policy: RestartPolicy::Transient(Intensity::DEFAULT),
            mailbox_limit: MAILBOX_LIMIT,
            ..ChildSpec::new("session", self.id.to_string())
        };
        let create = |_: &mut Context<Session>, vitals: &Arc<Vitals>| {
            Session::new(self, Arc::clone(vitals), Work::None)
        };
        spawn(parent, spec, create, on_exit)
    }
}

/// The session actor.
pub(crate) struct Session {
    place: SessionPlace,
    vitals: Arc<Vitals>,
    /// What the model has seen of the project's files.
    read_log: Arc<ReadLog>,
    /// What it was told of the instructions in the project's directories.
    told: Arc<ToldInstructions>,
    work: Work,
    /// The run that waits for a place among those that work, or has one and is about to start.
    turn: Option<Turn>,
    /// The run that was last started here.
    last: Option<RunId>,
    /// The requests that caused the runs that are queued, as far as they came in this life.
    requests: HashMap<RunId, RequestTag>,
    /// A run that is to end as soon as it starts.
    to_cancel: Option<RunId>,
    /// Decisions that came before it was known which run goes on wait until theirs is dropped.
    decisions: Vec<oneshot::Sender<()>>,
    /// The runs of sub-agents that work in the background.
    background: HashSet<RunId>,
    /// Whether it has a title.
    titles: Titles,
    /// Whether it stands where nobody needs it: it leaves as soon as it may.
    leaving: Leaving,
    /// Requests that are being answered.
    asked: usize,
    /// Whether anything happened since the last look for idleness.
    was_used: bool,
}

/// What a session is doing about its runs.
enum Work {
    None,
    /// It looks for the next run.
    LookingUp {
        /// A message was taken meanwhile, perhaps after the look.
        look_again: bool,
    },
    /// A run works.
    Running(ActiveRun),
    /// The end of a run is being recorded whose orchestrator cannot do it any more.
    Ending(Box<Failure>),
}

struct ActiveRun {
    id: RunId,
    started_by: UserId,
    compacts: bool,
    orchestrator: Address<Orchestrator>,
    is_cancelling: bool,
    /// Its place among those that work.
    _place: Arc<Place>,
}

/// Runs that cannot go on.
#[derive(Clone)]
struct Failure {
    /// One that fails even if it is still queued or waits. Those that work fail in any case.
    run_id: Option<RunId>,
    /// Whether others that wait for a person go on waiting.
    keep_waiting: bool,
    error: ApiError,
}

impl Session {
    fn new(place: SessionPlace, vitals: Arc<Vitals>, work: Work) -> Self {
        Self {
            place,
            vitals,
            read_log: Arc::default(),
            told: Arc::default(),
            work,
            turn: None,
            last: None,
            requests: HashMap::new(),
            to_cancel: None,
            decisions: Vec::new(),
            background: HashSet::new(),
            titles: Titles::default(),
            leaving: Leaving::No,
            asked: 0,
            was_used: true,
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self.work, Work::None)
            && self.asked == 0
            && self.turn.is_none()
            && self.background.is_empty()
            && !self.titles.is_making()
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match &self.work {
            Work::Ending(failure) => self.fail_runs(Failure::clone(failure), ctx),
            Work::None | Work::LookingUp { .. } | Work::Running(_) => self.start_next(ctx),
        }
        self.adopt_all(ctx);
        ctx.run_interval(self.place.services.settings.session_idle, |session, ctx| {
            if session.is_idle() && !std::mem::take(&mut session.was_used) {
                session.vitals.passivate();
                ctx.stop();
            }
        });
    }
}

crate::supervised!(Session);

impl Supervise for Session {
    /// Its orchestrator has ended; what the store says was working is failed first, and what waits for a
    /// person goes on.
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        let error = ApiError::new(ErrorCode::Internal, "the session failed and restarted");
        let error = error.reason("session_restarted");
        let failure = Failure { run_id: None, keep_waiting: true, error };
        Ok(Self::new(self.place.clone(), Arc::clone(&self.vitals), Work::Ending(Box::new(failure))))
    }

    fn observe(&self) -> Value {
        let (work, run) = match &self.work {
            Work::None => ("none", None),
            Work::LookingUp { .. } => ("lookingUp", None),
            Work::Running(run) if run.is_cancelling => ("cancelling", Some(&run.id)),
            Work::Running(run) => ("running", Some(&run.id)),
            Work::Ending(failure) => ("ending", failure.run_id.as_ref()),
        };
        json!({
            "work": work,
            "runId": run,
            "runInLine": self.turn.as_ref().map(Turn::run_id),
            "requestsInFlight": self.asked,
            "subAgentsInBackground": self.background.len(),
        })
    }
}

/// What a run needs of the session's choices: who answers and with which model.
pub(crate) struct Answerer {
    pub(crate) agent: Agent,
    pub(crate) model: ModelRef,
}

/// For whom a run acts: who started it and all whose messages joined it, or a run above it. It may do what
/// all of them may (INV-12).
pub(crate) async fn users_of(
    place: &SessionPlace,
    run_id: RunId,
    starter: &UserId,
) -> Result<Vec<UserId>, StoreError> {
    let joined = place.project.reader.joined_by(run_id).await?;
    Ok(with_starter(joined, starter))
}

/// Those whose messages joined a run, and who started it.
pub(crate) fn with_starter(mut joined: Vec<UserId>, starter: &UserId) -> Vec<UserId> {
    joined.retain(|user| user != starter);
    joined.push(starter.clone());
    joined
}

/// Finds agent and model of a session.
///
/// # Errors
/// `CONFLICT` when the agent was deleted, `MODEL_UNAVAILABLE` with a sentence that says how to
/// configure one when there is no such model.
pub(crate) async fn answerer(
    place: &SessionPlace,
    session: &SessionResource,
) -> Result<Answerer, ApiError> {
    find_answerer(place, &session.agent, session.model.as_ref()).await
}

/// Finds the agent and the model that gave an answer so far.
///
/// # Errors
/// As [`answerer`].
pub(crate) async fn answerer_of(
    place: &SessionPlace,
    answer: &Message,
) -> Result<Answerer, ApiError> {
    let agent = answer.agent.as_deref().unwrap_or(DEFAULT_AGENT);
    find_answerer(place, agent, answer.model.as_ref()).await
}

/// Whether who started a run may still do so. It acts with the rights of that user, whoever lets it go on
/// (INV-12).
pub(crate) async fn may_start(place: &SessionPlace, user_id: &UserId) -> Result<bool, StoreError> {
    let role = place.project.root.role(user_id, &place.project.id).await?;
    Ok(role.is_some_and(|role| role >= Role::Member))
}

/// Why a run does not go on whose starter [`may_start`] none any more.
pub(crate) fn starter_lost_access() -> ApiError {
    let message = "who started the run may not do so in this project any more";
    ApiError::new(ErrorCode::Forbidden, message).reason("starter_lost_access")
}

async fn find_answerer(
    place: &SessionPlace,
    agent: &str,
    model: Option<&ModelRef>,
) -> Result<Answerer, ApiError> {
    let services = &place.services;
    let found = find_agent(&place.project, services, agent).await;
    let agent = found.map_err(|error| error.to_api())?.ok_or_else(|| {
        let message = format!("the session's agent `{agent}` does not exist");
        ApiError::new(ErrorCode::Conflict, message).reason("agent_missing")
    })?;
    let chosen = model.or(agent.model.as_ref());
    let chosen = chosen.or(services.settings.default_model.as_ref());
    let found = match chosen {
        Some(model) => services.models.get(model).map(|_| model.clone()),
        None => Err(services.models.none_chosen()),
    };
    let model = found.map_err(|error| ApiError::new(error.code(), error.to_string()))?;
    Ok(Answerer { agent, model })
}

/// Ask: takes a message durably, then sees to it that it is answered.
#[derive(Message)]
#[rtype(result = "Result<Committed<MessageAccepted>, ApiError>")]
pub(crate) struct SendMessage {
    pub(crate) session: SessionResource,
    pub(crate) said: Said,
    pub(crate) when_busy: WhenBusy,
    pub(crate) by: UserId,
    pub(crate) context: WriteContext,
}

impl Handler<SendMessage> for Session {
    type Result = ResponseActFuture<Self, Result<Committed<MessageAccepted>, ApiError>>;

    fn handle(&mut self, send: SendMessage, _: &mut Context<Self>) -> Self::Result {
        self.asked += 1;
        self.was_used = true;
        let known = send.session.clone();
        let run_id = RunId::from_bits(self.place.services.ids.next_bits());
        // Before the commit: the run may begin at once after it.
        if let Some(request) = current_request() {
            self.requests.insert(run_id.clone(), request);
        }
        let accepted = accept(self.place.clone(), run_id.clone(), send);
        Box::pin(accepted.into_actor(self).map(move |accepted, session, ctx| {
            // One that is to join another run starts none, unless that ends before.
            if !matches!(&accepted, Ok(Committed { replayed: false, .. })) {
                session.requests.remove(&run_id);
            }
            if let Ok(Committed { output, .. }) = &accepted
                && let Some(interrupted) = &output.interrupts
            {
                session.cancel_run(interrupted.clone(), ctx);
            }
            if let Ok(Committed { output, replayed: false, .. }) = &accepted
                && !output.queued
            {
                session.take_up_first(output.run.clone(), known, ctx);
            }
            session.answered(accepted.is_ok(), ctx);
            accepted.map(accepted_message)
        }))
    }
}

async fn accept(
    place: SessionPlace,
    run_id: RunId,
    send: SendMessage,
) -> Result<Committed<AcceptedMessage>, ApiError> {
    let Said { text, answer_format, attachments } = send.said;
    let attachments = match attach(&place, &send.session, attachments).await {
        Ok(attachments) => attachments,
        Err(error) => return repeated::<AcceptMessage>(&place, send.context, error).await,
    };
    place.project.mark_unfinished().await?;
    let ids = &place.services.ids;
    let command = AcceptMessage {
        session_id: place.id.clone(),
        message_id: MessageId::from_bits(ids.next_bits()),
        part_id: PartId::from_bits(ids.next_bits()),
        run_id,
        text,
        answer_format,
        attachments,
        by: send.by,
        when_busy: send.when_busy,
        quotas: place.services.settings.quotas,
        at: place.services.clock.now_ms(),
    };
    let accepted = write(&place.project.address, command, send.context).await;
    accepted.map_err(|error| error.to_api())
}

fn accepted_message(accepted: Committed<AcceptedMessage>) -> Committed<MessageAccepted> {
    let Committed { output, seq, replayed } = accepted;
    // The message names the run that it is to join; a question that is answered again its first one.
    let joins = output.queued.then_some(output.message.run_id).flatten();
    let (message_id, run_id) = (output.message.id, joins.unwrap_or(output.run.id));
    let output = MessageAccepted { message_id, run_id, queued: output.queued };
    Committed { output, seq, replayed }
}

/// What a command answered the first time that it came with its key; `error` when it did not. For what
/// is refused before its command, because something is not there any more that was there then.
async fn repeated<C: Command>(
    place: &SessionPlace,
    context: WriteContext,
    error: ApiError,
) -> Result<Committed<C::Output>, ApiError> {
    let Some(key) = context.idempotency else { return Err(error) };
    let first = place.project.reader.recall::<C>(key).await.map_err(|error| error.to_api())?;
    first.ok_or(error)
}

impl Session {
    /// A request is answered, after which there is perhaps a run to start.
    fn answered(&mut self, may_have_run: bool, ctx: &mut Context<Self>) {
        self.asked = self.asked.saturating_sub(1);
        if may_have_run {
            self.start_next(ctx);
        }
        self.leave_if_done(ctx);
    }

    /// Starts the run of the first queued message, or lets one go on that nobody runs, unless a run is
    /// active.
    fn start_next(&mut self, ctx: &mut Context<Self>) {
        match &mut self.work {
            Work::None if !self.place.services.is_draining() => {}
            Work::LookingUp { look_again } => return *look_again = true,
            Work::None => return self.decisions.clear(),
            Work::Running(_) | Work::Ending(_) => return,
        }
        self.work = Work::LookingUp { look_again: false };
        let place = self.place.clone();
        let next = async move {
            place.recovered().await?;
            place.project.reader.open_run(place.id).await
        };
        ctx.spawn(next.into_actor(self).map(|next, session, ctx| session.looked_up(next, ctx)));
    }

    /// Takes up a queued run before which there was none, without a look at what the store just said: it begins
    /// with the session as it was when its message came, and for somebody who was let through with that.
    fn take_up_first(&mut self, run: Run, known: SessionResource, ctx: &mut Context<Self>) {
        let is_free = matches!(self.work, Work::None) && !self.place.services.is_draining();
        if is_free && *self.place.is_recovered.borrow() {
            self.take_up(OpenRun::queued(run), Some(known), ctx);
        }
    }

    fn looked_up(&mut self, next: Result<Option<OpenRun>, StoreError>, ctx: &mut Context<Self>) {
        let work = std::mem::replace(&mut self.work, Work::None);
        let look_again = match work {
            Work::LookingUp { look_again } => look_again,
            other @ (Work::None | Work::Running(_) | Work::Ending(_)) => {
                self.work = other;
                return;
            }
        };
        match next {
            Ok(Some(open)) => self.take_up(open, None, ctx),
            Ok(None) if look_again => return self.start_next(ctx),
            Ok(None) => {
                self.turn = None;
                // Nothing is queued, so nobody asks for one of these any more.
                if self.asked == 0 {
                    self.requests.clear();
                }
            }
            // Of its answer, which nobody can go on with then: a queued run has none.
            Err(error @ StoreError::BlobCorrupt { .. }) => {
                let error = error.to_api();
                self.fail_runs(Failure { run_id: None, keep_waiting: false, error }, ctx);
            }
            Err(error) => {
                let path = self.vitals.path();
                tracing::error!(actor.path = %path, %error, "the queue could not be read");
                ctx.run_later(START_AGAIN_AFTER, Self::start_next);
            }
        }
        if !matches!(self.work, Work::Ending(_)) {
            self.decisions.clear();
        }
        self.leave_if_done(ctx);
    }

    /// Starts a run that is queued, and lets one go on that was resumed or that waits.
    fn take_up(&mut self, open: OpenRun, known: Option<SessionResource>, ctx: &mut Context<Self>) {
        let OpenRun { run, answer, approvals, questions, tasks } = open;
        if self.place.serves.as_ref().is_some_and(|served| *served != run.id) {
            // People asked for it, and it is not to end with who set the sub-agent to work.
            self.leaving = Leaving::WithWork;
            return;
        }
        let answer = match run.status {
            RunStatus::Running | RunStatus::Waiting => answer,
            RunStatus::Queued
            | RunStatus::Completed
            | RunStatus::Failed
            | RunStatus::Cancelled
            | RunStatus::Interrupted => {
                let Some(place) = self.place_of(&run, ctx) else { return };
                let answer_id = MessageId::from_bits(self.place.services.ids.next_bits());
                return self.start(run, answer_id, known, None, place, ctx);
            }
        };
        // Its orchestrator has left without recording the end: another one would fare no better.
        let is_left = self.last.as_ref() == Some(&run.id);
        let answer = answer.filter(|answer| !is_left && !holds_lost_calls(answer, &tasks));
        let Some(answer) = answer else {
            // Nobody can say what became of it.
            let error = ApiError::new(ErrorCode::Internal, "the run failed inside the server");
            let error = error.reason("orchestrator_lost");
            let failure = Failure { run_id: Some(run.id), keep_waiting: true, error };
            return self.fail_runs(failure, ctx);
        };
        let approvals =
            approvals.into_iter().map(|it| (it.tool_call_id, Expiring::Approval, it.expires_at));
        let questions = questions
            .into_iter()
            .map(|it| (it.tool_call_id, Expiring::Question(it.id), it.expires_at));
        let (id, expiries) = (answer.id.clone(), approvals.chain(questions).collect());
        // What goes on does not wait again.
        let place = self.place.services.runs.join(self.whose(&run));
        self.start(run, id, None, Some(Resumed { answer, expiries }), place, ctx);
    }

    fn start(
        &mut self,
        run: Run,
        answer_id: MessageId,
        known: Option<SessionResource>,
        resumed: Option<Resumed>,
        place: Place,
        ctx: &mut Context<Self>,
    ) {
        let work_place = Arc::new(place);
        self.was_used = true;
        let (run_id, started_by, compacts) = (run.id.clone(), run.started_by.clone(), run.compacts);
        self.last = Some(run_id.clone());
        let me = Address::of(ctx, &self.vitals);
        let assignment = Assignment {
            place: self.place.clone(),
            request: self.requests.remove(&run.id),
            run,
            answer_id,
            session: me.clone(),
            read_log: Arc::clone(&self.read_log),
            told: Arc::clone(&self.told),
            known,
            resumed,
            work_place: Arc::downgrade(&work_place),
        };
        let spec = ChildSpec {
            on_stuck: OnStuck::Kill,
            ..ChildSpec::new("orchestrator", run_id.to_string())
        };
        let create = |_: &mut Context<Orchestrator>, vitals: &Arc<Vitals>| {
            Orchestrator::new(assignment, Arc::clone(vitals))
        };
        let orchestrator = spawn(&self.vitals, spec, create, {
            let run_id = run_id.clone();
            move |exited| me.tell(OrchestratorExited { run_id, reason: exited.reason })
        });
        let is_cancelled = self.to_cancel.take_if(|to_cancel| *to_cancel == run_id).is_some();
        self.work = Work::Running(ActiveRun {
            id: run_id,
            started_by,
            compacts,
            orchestrator,
            is_cancelling: false,
            _place: work_place,
        });
        if is_cancelled {
            self.cancel();
        }
    }

    /// Ends the active run, unless it is ending already.
    fn cancel(&mut self) {
        if let Work::Running(active) = &mut self.work
            && !std::mem::replace(&mut active.is_cancelling, true)
        {
            active.orchestrator.tell(Cancel);
        }
    }

    /// Records that runs failed whose orchestrators cannot do it any more, for as long as it takes.
    fn fail_runs(&mut self, failure: Failure, ctx: &mut Context<Self>) {
        let project = self.place.project.address.clone();
        let command = FailRuns {
            session_id: self.place.id.clone(),
            run_id: failure.run_id.clone(),
            keep_waiting: failure.keep_waiting,
            error: failure.error.clone(),
            at: self.place.services.clock.now_ms(),
        };
        self.work = Work::Ending(Box::new(failure.clone()));
        let failed = record(&project, command, WriteContext::default()).into_actor(self);
        ctx.spawn(failed.map(move |failed, session, ctx| match failed {
            Ok(failed) => {
                for answer_id in failed.output {
                    project.tell(EndStreams(answer_id));
                }
                session.end_tasks(ctx);
                // The run may have set one to work without living to say so.
                session.adopt_all(ctx);
                session.work = Work::None;
                session.start_next(ctx);
            }
            Err(error) => {
                let path = session.vitals.path();
                tracing::error!(actor.path = %path, %error, "a failed run could not be ended");
                if may_succeed_later(error.code()) {
                    let again = move |session: &mut Self, ctx: &mut Context<Self>| {
                        session.fail_runs(failure, ctx);
                    };
                    ctx.run_later(START_AGAIN_AFTER, again);
                } else {
                    session.work = Work::None;
                    session.decisions.clear();
                    ctx.run_later(START_AGAIN_AFTER, Self::start_next);
                }
            }
        }));
    }
}

impl Session {
    /// Ends what runs set to work that could not do it themselves.
    fn end_tasks(&mut self, ctx: &mut Context<Self>) {
        let (project, id) = (Arc::clone(&self.place.project), self.place.id.clone());
        let ended = async move { end_tasks(&project, id).await };
        ctx.spawn(ended.into_actor(self));
    }
}

/// Whether an answer has calls that began and have no result, or that should have begun, besides those that
/// wait for sub-agents.
fn holds_lost_calls(answer: &Message, tasks: &[ToolCallId]) -> bool {
    answer.parts.iter().any(|part| match part {
        Part::Tool(call) => {
            matches!(call.state, ToolState::Running | ToolState::Pending)
                && !tasks.contains(&call.tool_call_id)
        }
        Part::Text { .. }
        | Part::Reasoning { .. }
        | Part::Subtask(_)
        | Part::Compaction(_)
        | Part::AnswerFormat(_)
        | Part::Attachment(_)
        | Part::Step { .. } => false,
    })
}

/// Tell: an orchestrator left, having recorded the end of its run unless something else ended it.
#[derive(Message)]
#[rtype(result = "()")]
struct OrchestratorExited {
    run_id: RunId,
    reason: ExitReason,
}

impl Handler<OrchestratorExited> for Session {
    type Result = ();

    fn handle(&mut self, exited: OrchestratorExited, ctx: &mut Context<Self>) {
        match std::mem::replace(&mut self.work, Work::None) {
            Work::Running(run) if run.id == exited.run_id => {}
            other @ (Work::None | Work::LookingUp { .. } | Work::Running(_) | Work::Ending(_)) => {
                self.work = other;
                return;
            }
        }
        let (message, reason) = match exited.reason {
            ExitReason::Normal => return self.start_next(ctx),
            ExitReason::Panic(_) | ExitReason::RestartIntensity(_) | ExitReason::Error(_) => {
                ("the run failed inside the server".to_owned(), "orchestrator_crashed")
            }
            ExitReason::Killed(why) => (format!("the run was ended: {why}"), "orchestrator_killed"),
            ExitReason::Parent => ("the session ended".to_owned(), "session_ended"),
        };
        let error = ApiError::new(ErrorCode::Internal, message).reason(reason);
        let failure = Failure { run_id: Some(exited.run_id), keep_waiting: true, error };
        self.fail_runs(failure, ctx);
    }
}

/// Ask: ends this run, now or as soon as it is active. The store knows already, unless the disk is full.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CancelRun(pub(crate) RunId);

impl Handler<CancelRun> for Session {
    type Result = ();

    fn handle(&mut self, CancelRun(run_id): CancelRun, ctx: &mut Context<Self>) {
        self.cancel_run(run_id, ctx);
    }
}

impl Session {
    /// Ends a run, now or as soon as it is active.
    fn cancel_run(&mut self, run_id: RunId, ctx: &mut Context<Self>) {
        let is_active = matches!(&self.work, Work::Running(active) if active.id == run_id);
        // It is about to start, or has ended: then no run has this id any more.
        self.to_cancel = Some(run_id).filter(|_| !is_active);
        if is_active {
            self.cancel();
        } else {
            // What is queued ends when it would begin.
            self.start_next(ctx);
        }
    }
}

/// Ask: records a decision about a waiting tool call and passes it on.
#[derive(Message)]
#[rtype(result = "Result<Committed<Approval>, ApiError>")]
pub(crate) struct Decide {
    pub(crate) tool_call_id: ToolCallId,
    pub(crate) decision: Decision,
    pub(crate) by: Option<UserId>,
    pub(crate) context: WriteContext,
}

impl Handler<Decide> for Session {
    type Result = Deciding<Approval>;

    fn handle(&mut self, decide: Decide, ctx: &mut Context<Self>) -> Self::Result {
        self.once_taken_up(ctx, move |session| session.decide(decide))
    }
}

type Deciding<T> = ResponseActFuture<Session, Result<Committed<T>, ApiError>>;

impl Session {
    /// Has a run that waits go on before it hears of a decision: otherwise nobody would act on it.
    fn once_taken_up<T: 'static>(
        &mut self,
        ctx: &mut Context<Self>,
        then: impl FnOnce(&mut Self) -> Deciding<T> + 'static,
    ) -> Deciding<T> {
        self.asked += 1;
        self.was_used = true;
        self.start_next(ctx);
        let decided = match self.work {
            Work::None | Work::Running(_) => self.unless_late(then),
            Work::LookingUp { .. } | Work::Ending(_) => {
                let (known, is_known) = oneshot::channel();
                self.decisions.push(known);
                let is_known = is_known.into_actor(self);
                Box::pin(is_known.then(|_, session, _| session.unless_late(then)))
            }
        };
        Box::pin(decided.map(|decided, session, ctx| {
            session.answered(false, ctx);
            decided
        }))
    }

    /// Refuses a decision of which no run would hear before the server stops.
    fn unless_late<T: 'static>(
        &mut self,
        then: impl FnOnce(&mut Self) -> Deciding<T>,
    ) -> Deciding<T> {
        if matches!(self.work, Work::None) && self.place.services.is_draining() {
            return Box::pin(actix::fut::ready(Err(ErrorCode::ShuttingDown.into())));
        }
        then(self)
    }

    /// For whom the active run acts, where that is another than who decides: the gate let that one through
    /// just now.
    fn other_starter(&self, by: Option<&UserId>) -> Option<UserId> {
        match &self.work {
            Work::Running(active) => Some(&active.started_by).filter(|it| Some(*it) != by).cloned(),
            Work::None | Work::LookingUp { .. } | Work::Ending(_) => None,
        }
    }

    fn decide(&mut self, decide: Decide) -> Deciding<Approval> {
        let approved = matches!(decide.decision, Decision::Approve(_));
        let starter = self.other_starter(decide.by.as_ref()).filter(|_| approved);
        let tool_call_id = decide.tool_call_id.clone();
        let command = ResolveApproval {
            session_id: self.place.id.clone(),
            tool_call_id: decide.tool_call_id,
            decision: decide.decision,
            by: decide.by,
            at: self.place.services.clock.now_ms(),
        };
        let resolved = resolved(self.place.clone(), starter, command, decide.context);
        Box::pin(resolved.into_actor(self).map(move |resolved, session, _| {
            let resolved = resolved?;
            if let Work::Running(active) = &session.work
                && !resolved.replayed
            {
                let approval = &resolved.output;
                let edited = approval.original_input.is_some().then(|| approval.input.clone());
                active.orchestrator.tell(Answer { tool_call_id, runs: approved, edited });
            }
            Ok(resolved)
        }))
    }
}

/// Records a decision, unless the run's starter may not start one any more, or the rules deny what was
/// approved.
async fn resolved(
    place: SessionPlace,
    starter: Option<UserId>,
    mut command: ResolveApproval,
    context: WriteContext,
) -> Result<Committed<Approval>, ApiError> {
    if let Some(starter) = starter
        && !may_start(&place, &starter).await.map_err(|error| error.to_api())?
    {
        return repeated::<ResolveApproval>(&place, context, starter_lost_access()).await;
    }
    if let Decision::Approve(yes) = &mut command.decision {
        let (session_id, call_id) = (&command.session_id, &command.tool_call_id);
        if let Err(error) =
            approving::prepare(&place, session_id, call_id, command.by.as_ref(), yes).await
        {
            return repeated::<ResolveApproval>(&place, context, error).await;
        }
    }
    record(&place.project.address, command, context).await.map_err(|error| error.to_api())
}

/// Ask: lets an interrupted run go on.
#[derive(Message)]
#[rtype(result = "Result<Committed<Run>, ApiError>")]
pub(crate) struct Resume {
    pub(crate) run_id: RunId,
    pub(crate) by: UserId,
    pub(crate) context: WriteContext,
}

impl Handler<Resume> for Session {
    type Result = ResponseActFuture<Self, Result<Committed<Run>, ApiError>>;

    fn handle(&mut self, resume: Resume, _: &mut Context<Self>) -> Self::Result {
        self.asked += 1;
        self.was_used = true;
        let run_id = resume.run_id.clone();
        if let Some(request) = current_request() {
            self.requests.insert(run_id.clone(), request);
        }
        let resumed = resumed(self.place.clone(), resume).into_actor(self);
        Box::pin(resumed.map(move |resumed, session, ctx| {
            if resumed.is_err() {
                session.requests.remove(&run_id);
            }
            session.answered(resumed.is_ok(), ctx);
            resumed
        }))
    }
}

async fn resumed(place: SessionPlace, resume: Resume) -> Result<Committed<Run>, ApiError> {
    let Resume { run_id, by, context } = resume;
    // Otherwise the recovery would interrupt it again.
    place.recovered().await.map_err(|error| error.to_api())?;
    if let Err(error) = can_go_on(&place, &run_id).await {
        return repeated::<ResumeRun>(&place, context, error).await;
    }
    place.project.mark_unfinished().await?;
    let (session_id, at) = (place.id.clone(), place.services.clock.now_ms());
    let command = ResumeRun { session_id, run_id, by, at };
    write(&place.project.address, command, context).await.map_err(|error| error.to_api())
}

/// Refuses a run that nobody could answer, or whose starter may not start one any more. Whether there is
/// such a run, and in a state to be resumed, is for the command to say.
async fn can_go_on(place: &SessionPlace, run_id: &RunId) -> Result<(), ApiError> {
    let reader = &place.project.reader;
    let run = reader.run(run_id.clone()).await.map_err(|error| error.to_api())?;
    if let Some(run) = run
        && !may_start(place, &run.started_by).await.map_err(|error| error.to_api())?
    {
        return Err(starter_lost_access());
    }
    let answer = reader.answer(place.id.clone(), run_id.clone()).await;
    match answer.map_err(|error| error.to_api())? {
        Some(answer) => answerer_of(place, &answer).await.map(drop),
        None => Ok(()),
    }
}

/// Ask: whether the session does nothing and has nothing to do.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct IsIdle;

impl Handler<IsIdle> for Session {
    type Result = bool;

    fn handle(&mut self, _: IsIdle, _: &mut Context<Self>) -> bool {
        self.is_idle()
    }
}
