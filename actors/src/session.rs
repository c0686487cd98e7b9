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
            active: None,
            is_starting: false,
            is_ending: false,
            look_again: false,
            cancels: Vec::new(),
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
    active: Option<ActiveRun>,
    /// The next run is being looked up.
    is_starting: bool,
    /// The end of a run whose orchestrator failed is being recorded.
    is_ending: bool,
    /// A message was taken meanwhile, perhaps after the look.
    look_again: bool,
    /// Cancels that came while the next run was being looked up; they concern it, if there is one.
    cancels: Vec<oneshot::Sender<bool>>,
    /// The run that was started last; found again in the queue, it could not even be failed.
    last_started: Option<RunId>,
    /// Requests that are being answered.
    asked: usize,
    /// Whether anything happened since the last look for idleness.
    was_used: bool,
}

struct ActiveRun {
    id: RunId,
    answer_id: MessageId,
    orchestrator: Addr<Orchestrator>,
    is_cancelling: bool,
}

impl Actor for Session {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.start_next(ctx);
        ctx.run_interval(IDLE_AFTER, |session, ctx| {
            let is_busy = session.is_starting || session.is_ending || session.asked > 0;
            let is_idle = session.active.is_none() && !is_busy;
            if is_idle && !std::mem::take(&mut session.was_used) {
                ctx.stop();
            }
        });
    }
}

impl Supervised for Session {
    /// The orchestrator, if there is one, goes down with the state that knew it; its run is ended by
    /// the look-up of what is alive in the store.
    fn restarting(&mut self, ctx: &mut Context<Self>) {
        self.is_starting = false;
        self.is_ending = false;
        self.look_again = false;
        self.cancels.clear();
        self.asked = 0;
        if let Some(active) = self.active.take() {
            active.orchestrator.do_send(StopOrchestrator);
            let error = ApiError::new(ErrorCode::Internal, "the session failed and restarted");
            self.end_run(active, error, ctx);
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
        if self.active.is_some() || self.is_ending || self.place.services.is_draining() {
            return;
        }
        if std::mem::replace(&mut self.is_starting, true) {
            self.look_again = true;
            return;
        }
        let reader = self.place.project.reader.clone();
        let id = self.place.id.clone();
        let next = async move { reader.next_queued_run(id).await }.into_actor(self);
        ctx.spawn(next.map(|next, session, ctx| {
            session.is_starting = false;
            let look_again = std::mem::take(&mut session.look_again);
            match next {
                Ok(Some(run)) if session.last_started.as_ref() == Some(&run.id) => {
                    session.last_started = None;
                    ctx.run_later(START_AGAIN_AFTER, Self::start_next);
                }
                Ok(Some(run)) => session.start(run, ctx),
                Ok(None) if look_again => return session.start_next(ctx),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(actor.path = %session.path, %error, "the queue could not be read");
                    ctx.run_later(START_AGAIN_AFTER, Self::start_next);
                }
            }
            session.answer_cancels();
        }));
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
        self.active = Some(ActiveRun { id: run_id, answer_id, orchestrator, is_cancelling: false });
    }

    fn cancel(&mut self) -> bool {
        let Some(active) = &mut self.active else { return false };
        if std::mem::replace(&mut active.is_cancelling, true) {
            return false;
        }
        active.orchestrator.do_send(Cancel);
        true
    }

    fn answer_cancels(&mut self) {
        for cancel in std::mem::take(&mut self.cancels) {
            // Fails when the caller went away.
            cancel.send(self.cancel()).ok();
        }
    }

    /// Records that a run failed whose orchestrator cannot do it any more.
    fn end_run(&mut self, run: ActiveRun, error: ApiError, ctx: &mut Context<Self>) {
        let project = self.place.project.address.clone();
        let command = FinishRun {
            session_id: self.place.id.clone(),
            run_id: run.id.clone(),
            message_id: run.answer_id.clone(),
            parts: Vec::new(),
            step: None,
            status: RunStatus::Failed,
            finish_reason: FinishReason::Error,
            error: Some(error.clone()),
            at: self.place.services.clock.now_ms(),
        };
        self.is_ending = true;
        let finished = write(&project, command, WriteContext::default()).into_actor(self);
        ctx.spawn(finished.map(move |finished, session, ctx| {
            if let Err(failure) = finished {
                tracing::error!(actor.path = %session.path, error = %failure, "a failed run could not be ended");
                if may_succeed_later(failure.code()) {
                    let again = move |session: &mut Self, ctx: &mut Context<Self>| {
                        session.end_run(run, error, ctx);
                    };
                    ctx.run_later(START_AGAIN_AFTER, again);
                    return;
                }
            }
            session.is_ending = false;
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
        let Some(active) = self.active.take_if(|active| active.id == exited.run_id) else { return };
        match exited.reason {
            ExitReason::Normal => self.start_next(ctx),
            ExitReason::Panic(_) | ExitReason::RestartIntensity(_) => {
                let error = ApiError::new(ErrorCode::Internal, "the run failed inside the server")
                    .reason("orchestrator_crashed");
                self.end_run(active, error, ctx);
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
        if self.active.is_none() && self.is_starting {
            let (cancel, cancelled) = oneshot::channel();
            self.cancels.push(cancel);
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
            if let Some(active) = session.active.as_ref().filter(|_| !resolved.replayed) {
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
        if let Some(active) = self.active.take() {
            active.orchestrator.do_send(StopOrchestrator);
        }
        ctx.stop();
    }
}
