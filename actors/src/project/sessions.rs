//! The sessions of a project: started when they are wanted, told to stop, cleaned up after.

use std::sync::Arc;

use actix::prelude::*;
use futures_util::future::BoxFuture;
use iris_protocol::{ApiError, ErrorCode, RunId, SessionId};
use iris_store::WriteContext;
use iris_store::project::FailRuns;

use super::{Project, ProjectHandle, RECOVER_AGAIN_AFTER};
use crate::orchestrator::may_succeed_later;
use crate::record;
use crate::session::{Look, Session, SessionPlace};
use crate::supervision::{Address, AskError, ExitReason, MessageFor, Vitals};

impl Project {
    pub(super) fn stop_sessions(&mut self) {
        for (_, session) in self.sessions.drain() {
            session.vitals().stop();
        }
    }

    /// The actor of a session; one that does not run is started.
    pub(super) fn session(&mut self, id: &SessionId, ctx: &mut Context<Self>) -> Address<Session> {
        let me = Arc::clone(&self.vitals);
        self.open_session(id, &me, None, ctx)
    }

    /// The actor of the session of a sub-agent; one that does not run is started as a child of `parent`, for
    /// that run.
    pub(super) fn session_under(
        &mut self,
        id: &SessionId,
        parent: &Arc<Vitals>,
        run_id: RunId,
        ctx: &mut Context<Self>,
    ) -> Address<Session> {
        self.open_session(id, parent, Some(run_id), ctx)
    }

    fn open_session(
        &mut self,
        id: &SessionId,
        parent: &Arc<Vitals>,
        serves: Option<RunId>,
        ctx: &mut Context<Self>,
    ) -> Address<Session> {
        if let Some(session) = self.sessions.get(id).filter(|session| session.connected()) {
            return session.clone();
        }
        let project = self.shared(ctx);
        let (me, session_id) = (Arc::clone(&project), id.clone());
        let is_child = serves.is_some();
        let place = SessionPlace {
            id: id.clone(),
            project,
            services: Arc::clone(&self.services),
            serves,
            is_recovered: self.recovery.is_done.subscribe(),
        };
        let session = place.start(parent, move |exited| {
            let (id, life) = (session_id, me.life);
            me.address.tell(SessionExited { id, life, is_child, reason: exited.reason });
        });
        self.sessions.insert(id.clone(), session.clone());
        session
    }

    /// One handle for all sessions: there may be thousands. It does not outlive them, so the registry
    /// does not keep itself alive.
    pub(super) fn shared(&mut self, ctx: &mut Context<Self>) -> Arc<ProjectHandle> {
        if let Some(shared) = self.shared.upgrade() {
            return shared;
        }
        let shared = Arc::new(ProjectHandle {
            id: self.id.clone(),
            address: Address::of(ctx, &self.vitals),
            reader: self.reader.clone(),
            root: self.root.reader.clone(),
            server_rules: Arc::clone(&self.root.rules),
            kept: Arc::clone(&self.kept),
            workspace: self.workspace.clone(),
            places: self.places.clone(),
            epoch: Arc::clone(&self.epoch),
            life: self.vitals.generation(),
            is_marked: Arc::clone(&self.is_marked),
            usage: self.usage_teller(),
            // A session holds up nothing: it is asked whether it is idle.
            holders: Arc::default(),
        });
        self.shared = Arc::downgrade(&shared);
        shared
    }
}

/// Ask: hands a message to the actor of a session that exists. The actor is started if need be, and
/// cannot end for want of work before it takes the message. While the recovery of the project fails
/// nobody is let in.
#[derive(Message)]
#[rtype(result = "Asked<M::Result>")]
pub(crate) struct InSession<M: Message> {
    pub(crate) id: SessionId,
    pub(crate) message: M,
    /// Whether the session takes it however much waits for it.
    pub(crate) is_urgent: bool,
}

/// The answer of a session, on its way.
pub(crate) type Asked<T> = BoxFuture<'static, Result<T, AskError>>;

impl<M: MessageFor<Session>> Handler<InSession<M>> for Project {
    type Result = MessageResult<InSession<M>>;

    fn handle(&mut self, ask: InSession<M>, ctx: &mut Context<Self>) -> Self::Result {
        self.handed_on += 1;
        if self.recovery.fails {
            let refused: Asked<M::Result> = Box::pin(std::future::ready(Err(AskError::Gone)));
            return MessageResult(refused);
        }
        let session = self.session(&ask.id, ctx);
        let asked: Asked<M::Result> = if ask.is_urgent {
            Box::pin(session.urge(ask.message))
        } else {
            Box::pin(session.ask(ask.message))
        };
        MessageResult(asked)
    }
}

/// Tell: a session left the tree.
#[derive(Message)]
#[rtype(result = "()")]
struct SessionExited {
    id: SessionId,
    /// The life of the registry in which it was started.
    life: u32,
    /// Whether it was below another actor than the registry.
    is_child: bool,
    reason: ExitReason,
}

impl Handler<SessionExited> for Project {
    type Result = ();

    fn handle(&mut self, exited: SessionExited, ctx: &mut Context<Self>) {
        if exited.life != self.vitals.generation() {
            // What an earlier life left is in order, or will be.
            return;
        }
        // Perhaps another one stands in its place already.
        if self.sessions.get(&exited.id).is_some_and(|session| !session.connected()) {
            self.sessions.remove(&exited.id);
        }
        match exited.reason {
            // It had nothing to do, or the registry ended it.
            ExitReason::Normal => {}
            ExitReason::Parent if !exited.is_child => {}
            // What people asked of it is for another actor to do.
            ExitReason::Parent => self.fail_runs(exited.id, true, ctx),
            ExitReason::Panic(_)
            | ExitReason::Error(_)
            | ExitReason::Killed(_)
            | ExitReason::RestartIntensity(_) => self.fail_runs(exited.id, false, ctx),
        }
    }
}

impl Project {
    /// Ends the run of a session that is gone, for as long as it takes. Its queue `goes_on` at once, or when
    /// somebody asks for the session.
    fn fail_runs(&mut self, session_id: SessionId, goes_on: bool, ctx: &mut Context<Self>) {
        let error = ApiError::new(ErrorCode::Internal, "the session ended");
        let command = FailRuns {
            session_id: session_id.clone(),
            run_id: None,
            // Nobody would tell it that its time is over.
            keep_waiting: false,
            error: error.reason("session_ended"),
            at: self.services.clock.now_ms(),
        };
        let address = Address::of(ctx, &self.vitals);
        let failed = record(&address, command, WriteContext::default()).into_actor(self);
        ctx.spawn(failed.map(move |failed, registry, ctx| match failed {
            Ok(failed) => {
                for answer_id in failed.output {
                    registry.rooms.drop_parts(&answer_id);
                }
                if goes_on {
                    registry.session(&session_id, ctx).tell(Look);
                }
            }
            Err(error) => {
                let path = registry.vitals.path();
                tracing::error!(actor.path = %path, %error, "the run of a session that is gone could not be ended");
                if may_succeed_later(error.code()) {
                    ctx.run_later(RECOVER_AGAIN_AFTER, move |registry, ctx| {
                        registry.fail_runs(session_id, goes_on, ctx);
                    });
                }
            }
        }));
    }
}
