//! One conversation: takes messages, runs one orchestrator at a time (INV-8), passes on cancels and
//! decisions. The project's registry starts it when it is needed; it ends when it is idle.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{
    Agent, ApiError, Approval, ErrorCode, FinishReason, MessageAccepted, MessageId, ModelRef,
    PartId, Run, RunId, RunStatus, Session as SessionResource, SessionId, ToolCallId, UserId,
    WhenBusy,
};
use iris_store::project::{AcceptMessage, Decision, FinishRun, ResolveApproval};
use iris_store::{Committed, StoreError, WriteContext};
use iris_tools::ReadLog;
use tokio::sync::oneshot;

use crate::agents::find_agent;
use crate::orchestrator::{
    Answer, Assignment, Cancel, Orchestrator, StopOrchestrator, may_succeed_later,
};
use crate::project::{EndStreams, ProjectHandle};
use crate::supervision::{ActorPath, ChildSpec, ExitReason, RestartPolicy, spawn};
use crate::{Services, write};

/// A session without a run and without a message for this long ends; the next message starts it.
const IDLE_AFTER: Duration = Duration::from_mins(1);

/// How long a session waits before it starts a run again that could not be started nor failed.
const START_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// Where a session actor belongs.
#[derive(Clone)]
pub(crate) struct SessionPlace {
    pub(crate) id: SessionId,
    pub(crate) project: ProjectHandle,
    pub(crate) services: Arc<Services>,
}

impl SessionPlace {
    /// Starts the session actor on the current arbiter.
    pub(crate) fn start(self, parent: &ActorPath) -> Addr<Session> {
        let tree = self.services.tree.clone();
        let spec = ChildSpec {
            kind: "session",
            id: self.id.to_string(),
            policy: RestartPolicy::PERMANENT,
        };
        let create = |_: &mut Context<Session>, path: &ActorPath| Session {
            place: self,
            path: path.clone(),
            read_log: Arc::default(),
            work: Work::None,
            last_started: None,
            asked: 0,
            was_used: true,
        };
        spawn(&tree, parent, spec, create, |_| {})
    }
}

/// The session actor.
pub(crate) struct Session {
    place: SessionPlace,
    path: ActorPath,
    /// What the model has seen of the project's files.
    read_log: Arc<ReadLog>,
    work: Work,
    /// The run that was started last; found again in the queue, it could not even be failed.
    last_started: Option<RunId>,
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
        /// Cancels that came meanwhile; they concern the run that is found, if there is one.
        cancels: Vec<oneshot::Sender<bool>>,
    },
    /// A run works.
    Running(ActiveRun),
    /// The end of a run is being recorded whose orchestrator cannot do it any more.
    Ending(FailedRun),
}

struct ActiveRun {
    id: RunId,
    answer_id: MessageId,
    orchestrator: Addr<Orchestrator>,
    is_cancelling: bool,
}

#[derive(Clone)]
struct FailedRun {
    id: RunId,
    answer_id: MessageId,
    error: ApiError,
}

impl ActiveRun {
    fn failed(self, error: ApiError) -> FailedRun {
        FailedRun { id: self.id, answer_id: self.answer_id, error }
    }
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.start_next(ctx);
        ctx.run_interval(IDLE_AFTER, |session, ctx| {
            let is_idle = matches!(session.work, Work::None) && session.asked == 0;
            if is_idle && !std::mem::take(&mut session.was_used) {
                ctx.stop();
            }
        });
    }
}

impl Supervised for Session {
    /// The orchestrator, if there is one, goes down with the state that knew it.
    fn restarting(&mut self, ctx: &mut Context<Self>) {
        self.asked = 0;
        match std::mem::replace(&mut self.work, Work::None) {
            Work::None | Work::LookingUp { .. } => {}
            Work::Running(run) => {
                run.orchestrator.do_send(StopOrchestrator);
                let message = "the session failed and restarted";
                self.end_run(run.failed(ApiError::new(ErrorCode::Internal, message)), ctx);
            }
            Work::Ending(run) => self.end_run(run, ctx),
        }
    }
}

/// What a run needs of the session's choices: who answers and with which model.
pub(crate) struct Answerer {
    pub(crate) agent: Agent,
    pub(crate) model: ModelRef,
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
    let services = &place.services;
    let agent = find_agent(&place.project, &services.tools, &session.agent).await;
    let agent = agent.map_err(|error| error.to_api())?.ok_or_else(|| {
        let message = format!("the session's agent `{}` does not exist", session.agent);
        ApiError::new(ErrorCode::Conflict, message).reason("agent_missing")
    })?;
    let chosen = session.model.as_ref().or(agent.model.as_ref());
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
    pub(crate) text: String,
    pub(crate) when_busy: WhenBusy,
    pub(crate) by: UserId,
    pub(crate) context: WriteContext,
}

impl Handler<SendMessage> for Session {
    type Result = ResponseActFuture<Self, Result<Committed<MessageAccepted>, ApiError>>;

    fn handle(&mut self, send: SendMessage, _: &mut Context<Self>) -> Self::Result {
        self.asked += 1;
        self.was_used = true;
        let accepted = accept(self.place.clone(), send);
        Box::pin(accepted.into_actor(self).map(|accepted, session, ctx| {
            session.asked = session.asked.saturating_sub(1);
            if accepted.is_ok() {
                session.start_next(ctx);
            }
            accepted
        }))
    }
}

async fn accept(
    place: SessionPlace,
    send: SendMessage,
) -> Result<Committed<MessageAccepted>, ApiError> {
    answerer(&place, &send.session).await?;
    let ids = &place.services.ids;
    let command = AcceptMessage {
        session_id: place.id.clone(),
        message_id: MessageId::from_bits(ids.next_bits()),
        part_id: PartId::from_bits(ids.next_bits()),
        run_id: RunId::from_bits(ids.next_bits()),
        text: send.text,
        by: send.by,
        reject_if_busy: send.when_busy == WhenBusy::Reject,
        at: place.services.clock.now_ms(),
    };
    let accepted = write(&place.project.address, command, send.context).await;
    let Committed { output, seq, replayed } = accepted.map_err(|error| error.to_api())?;
    let (message_id, run_id) = (output.message.id, output.run.id);
    let output = MessageAccepted { message_id, run_id, queued: output.queued };
    Ok(Committed { output, seq, replayed })
}

impl Session {
    /// Starts the run of the first queued message, unless a run is active.
    fn start_next(&mut self, ctx: &mut Context<Self>) {
        match &mut self.work {
            Work::None if !self.place.services.is_draining() => {}
            Work::LookingUp { look_again, .. } => return *look_again = true,
            Work::None | Work::Running(_) | Work::Ending(_) => return,
        }
        self.work = Work::LookingUp { look_again: false, cancels: Vec::new() };
        let reader = self.place.project.reader.clone();
        let id = self.place.id.clone();
        let next = async move { reader.next_queued_run(id).await }.into_actor(self);
        ctx.spawn(next.map(|next, session, ctx| session.looked_up(next, ctx)));
    }

    fn looked_up(&mut self, next: Result<Option<Run>, StoreError>, ctx: &mut Context<Self>) {
        let (look_again, cancels) = match std::mem::replace(&mut self.work, Work::None) {
            Work::LookingUp { look_again, cancels } => (look_again, cancels),
            other @ (Work::None | Work::Running(_) | Work::Ending(_)) => {
                self.work = other;
                return;
            }
        };
        match next {
            Ok(Some(run)) if self.last_started.as_ref() == Some(&run.id) => {
                self.last_started = None;
                ctx.run_later(START_AGAIN_AFTER, Self::start_next);
            }
            Ok(Some(run)) => self.start(run, ctx),
            Ok(None) if look_again => {
                self.start_next(ctx);
                if let Work::LookingUp { cancels: waiting, .. } = &mut self.work {
                    *waiting = cancels;
                    return;
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(actor.path = %self.path, %error, "the queue could not be read");
                ctx.run_later(START_AGAIN_AFTER, Self::start_next);
            }
        }
        for cancel in cancels {
            // Fails when the caller went away.
            cancel.send(self.cancel()).ok();
        }
    }

    fn start(&mut self, run: Run, ctx: &mut Context<Self>) {
        self.was_used = true;
        let run_id = run.id.clone();
        self.last_started = Some(run_id.clone());
        let answer_id = MessageId::from_bits(self.place.services.ids.next_bits());
        let assignment = Assignment {
            place: self.place.clone(),
            run,
            answer_id: answer_id.clone(),
            session: ctx.address(),
            read_log: Arc::clone(&self.read_log),
        };
        let spec = ChildSpec {
            kind: "orchestrator",
            id: run_id.to_string(),
            policy: RestartPolicy::Temporary,
        };
        let session = ctx.address();
        let orchestrator = spawn(
            &self.place.services.tree,
            &self.path,
            spec,
            |_, path| Orchestrator::new(assignment, path.clone()),
            {
                let run_id = run_id.clone();
                move |reason| session.do_send(OrchestratorExited { run_id, reason })
            },
        );
        let id = run_id;
        self.work = Work::Running(ActiveRun { id, answer_id, orchestrator, is_cancelling: false });
    }

    fn cancel(&mut self) -> bool {
        let Work::Running(active) = &mut self.work else { return false };
        if std::mem::replace(&mut active.is_cancelling, true) {
            return false;
        }
        active.orchestrator.do_send(Cancel);
        true
    }

    /// Records that a run failed whose orchestrator cannot do it any more, for as long as it takes.
    fn end_run(&mut self, run: FailedRun, ctx: &mut Context<Self>) {
        let project = self.place.project.address.clone();
        let command = FinishRun {
            session_id: self.place.id.clone(),
            run_id: run.id.clone(),
            message_id: run.answer_id.clone(),
            parts: Vec::new(),
            step: None,
            status: RunStatus::Failed,
            finish_reason: FinishReason::Error,
            error: Some(run.error.clone()),
            at: self.place.services.clock.now_ms(),
        };
        self.work = Work::Ending(run.clone());
        let finished = write(&project, command, WriteContext::default()).into_actor(self);
        ctx.spawn(finished.map(move |finished, session, ctx| {
            if let Err(error) = finished {
                tracing::error!(actor.path = %session.path, %error, "a failed run could not be ended");
                if may_succeed_later(error.code()) {
                    ctx.run_later(START_AGAIN_AFTER, |session, ctx| session.end_run(run, ctx));
                    return;
                }
            }
            session.work = Work::None;
            project.do_send(EndStreams(run.answer_id));
            session.start_next(ctx);
        }));
    }
}

/// Tell: an orchestrator left, having recorded the end of its run unless it panicked.
#[derive(Message)]
#[rtype(result = "()")]
struct OrchestratorExited {
    run_id: RunId,
    reason: ExitReason,
}

impl Handler<OrchestratorExited> for Session {
    type Result = ();

    fn handle(&mut self, exited: OrchestratorExited, ctx: &mut Context<Self>) {
        let run = match std::mem::replace(&mut self.work, Work::None) {
            Work::Running(run) if run.id == exited.run_id => run,
            other @ (Work::None | Work::LookingUp { .. } | Work::Running(_) | Work::Ending(_)) => {
                self.work = other;
                return;
            }
        };
        match exited.reason {
            ExitReason::Normal => self.start_next(ctx),
            ExitReason::Panic(_) | ExitReason::RestartIntensity(_) => {
                let error = ApiError::new(ErrorCode::Internal, "the run failed inside the server");
                self.end_run(run.failed(error.reason("orchestrator_crashed")), ctx);
            }
        }
    }
}

/// Ask: ends the active run. Answers whether there was one that was not ending already.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct CancelRun;

impl Handler<CancelRun> for Session {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, _: CancelRun, _: &mut Context<Self>) -> Self::Result {
        if let Work::LookingUp { cancels, .. } = &mut self.work {
            let (cancel, cancelled) = oneshot::channel();
            cancels.push(cancel);
            return Box::pin(async { cancelled.await.unwrap_or(false) });
        }
        let cancelled = self.cancel();
        Box::pin(std::future::ready(cancelled))
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
    type Result = ResponseActFuture<Self, Result<Committed<Approval>, ApiError>>;

    fn handle(&mut self, decide: Decide, _: &mut Context<Self>) -> Self::Result {
        self.asked += 1;
        self.was_used = true;
        let approved = matches!(decide.decision, Decision::Approve);
        let tool_call_id = decide.tool_call_id.clone();
        let command = ResolveApproval {
            session_id: self.place.id.clone(),
            tool_call_id: decide.tool_call_id,
            decision: decide.decision,
            by: decide.by,
            at: self.place.services.clock.now_ms(),
        };
        let resolved = write(&self.place.project.address, command, decide.context);
        Box::pin(resolved.into_actor(self).map(move |resolved, session, _| {
            session.asked = session.asked.saturating_sub(1);
            let resolved = resolved.map_err(|error: StoreError| error.to_api())?;
            if let Work::Running(active) = &session.work
                && !resolved.replayed
            {
                active.orchestrator.do_send(Answer { tool_call_id, approved });
            }
            Ok(resolved)
        }))
    }
}

/// Tell: ends at once, recording nothing: the store's recovery sees what was alive.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StopSession;

impl Handler<StopSession> for Session {
    type Result = ();

    fn handle(&mut self, _: StopSession, ctx: &mut Context<Self>) {
        if let Work::Running(run) = &self.work {
            run.orchestrator.do_send(StopOrchestrator);
        }
        ctx.stop();
    }
}
