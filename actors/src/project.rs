//! The registry of one project: it owns the project's database, numbers and routes every event, and
//! knows who hears what. The directory starts it.

mod rooms;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use iris_agent::Clock;
use iris_protocol::{
    ApiError, ConnectionId, ErrorCode, MessageId, PartId, Position, ProjectId, Room, RoomOutcome,
    RoomStatus, SessionId, SessionStatus, StreamKind, UserId,
    limits::{REPLAY_BYTES_MAX, REPLAY_EVENTS_MAX},
};
use iris_store::project::{FailRuns, ProjectDatabase, ProjectReader, RecoverRuns, Replay};
use iris_store::{Command, StoreError, StoredEvent, WriteContext};
use iris_workspace::Workspace;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;

use crate::connection::{CloseReason, Outbound};
use crate::orchestrator::may_succeed_later;
use crate::session::{IsIdle, Session, SessionPlace};
use crate::supervision::{
    Address, AskError, ChildSpec, ExitReason, Intensity, MessageFor, RestartPolicy, Supervise,
    Vitals, WeakAddress, spawn,
};
use crate::{Services, Write, record};
use rooms::{Piece, Rooms, Subscriber, durable_frame};

/// How long pieces of a streaming part are joined before they are sent as one frame.
const JOIN_DELTAS: Duration = Duration::from_millis(30);

/// How long a registry waits before it tries again to end the runs of an earlier life.
const RECOVER_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long the sessions have to say whether they are idle; one that cannot is not. Whoever wants the
/// project meanwhile waits.
const IDLE_ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

/// Messages that may wait for a registry before callers are refused.
const MAILBOX_LIMIT: u32 = 4096;

/// Where the writer thread sends what it committed; set when the registry starts. It does not keep
/// the registry alive.
type Registry = Arc<OnceLock<WeakAddress<Project>>>;

/// How to reach an open project.
#[derive(Clone)]
pub struct ProjectHandle {
    /// The project.
    pub id: ProjectId,
    /// Its registry.
    pub address: Address<Project>,
    /// Its database, for reading.
    pub reader: ProjectReader,
    /// Its files.
    pub workspace: Workspace,
    /// Of its order of events.
    pub epoch: Arc<str>,
    /// Shared by the clones of one handle.
    holders: Arc<()>,
}

impl ProjectHandle {
    /// Whether somebody else has a clone of it: the directory closes no project in which a request
    /// acts.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.holders) > 1
    }
}

/// The registry actor.
pub struct Project {
    id: ProjectId,
    vitals: Arc<Vitals>,
    services: Arc<Services>,
    database: OpenDatabase,
    reader: ProjectReader,
    workspace: Workspace,
    epoch: Arc<str>,
    committed: Registry,
    rooms: Rooms,
    sessions: HashMap<SessionId, Address<Session>>,
    /// The last event that was published.
    head: u64,
    /// Whether a flush of streaming text is due.
    flush_is_due: bool,
    /// How often rooms were joined.
    joins: u64,
}

/// The write handle of a project's database, together with the right to have it. However its owner
/// ends, what was alive is recorded as interrupted, what is queued is committed and the file closed;
/// only then may the project be opened again.
struct OpenDatabase {
    /// There until it is closed.
    open: Option<(ProjectDatabase, OwnedMutexGuard<()>)>,
    clock: Arc<dyn Clock>,
}

impl OpenDatabase {
    fn get(&self) -> Option<&ProjectDatabase> {
        self.open.as_ref().map(|(database, _)| database)
    }

    /// Moves it out of an actor that starts again.
    fn take(&mut self) -> Self {
        Self { open: self.open.take(), clock: Arc::clone(&self.clock) }
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        let Some((database, lease)) = self.open.take() else { return };
        let at = self.clock.now_ms();
        let close = move || {
            // The receipt is not needed: closing waits for the writer.
            drop(database.writer().submit(RecoverRuns { at }, WriteContext::default()));
            database.close();
            drop(lease);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(close)),
            Err(_) => close(),
        }
    }
}

/// A project's database and files, opened and checked, on their way to its registry.
pub(crate) struct OpenedProject {
    id: ProjectId,
    database: ProjectDatabase,
    lease: OwnedMutexGuard<()>,
    workspace: Workspace,
    head: u64,
    committed: Registry,
}

impl OpenedProject {
    /// Opens the database and the directory of a project. Blocks: not for an arbiter.
    pub(crate) fn open(
        id: ProjectId,
        database: &std::path::Path,
        files: &std::path::Path,
        lease: OwnedMutexGuard<()>,
    ) -> Result<Self, ApiError> {
        let committed: Registry = Arc::default();
        let registry = Arc::clone(&committed);
        let database = ProjectDatabase::open(database, &id, move |events| {
            if let Some(registry) = registry.get().and_then(WeakAddress::upgrade) {
                registry.tell(Committed(events));
            }
        })
        .map_err(|error| {
            tracing::error!(project.id = %id, %error, "project could not be opened");
            error.to_api()
        })?;
        let head = database.head().map_err(|error| error.to_api())?;
        let workspace = Workspace::open(files).map_err(|error| {
            tracing::error!(project.id = %id, %error, "the project's directory could not be opened");
            ApiError::new(ErrorCode::ReadOnly, "the project's directory cannot be opened")
        })?;
        Ok(Self { id, database, lease, workspace, head, committed })
    }

    /// Starts the registry on the current arbiter.
    pub(crate) fn start(
        self,
        services: &Arc<Services>,
        parent: &Arc<Vitals>,
        on_exit: impl FnOnce() + 'static,
    ) -> ProjectHandle {
        let spec = ChildSpec {
            policy: RestartPolicy::Transient(Intensity::DEFAULT),
            mailbox_limit: MAILBOX_LIMIT,
            ..ChildSpec::new("project", self.id.to_string())
        };
        let (id, workspace) = (self.id.clone(), self.workspace.clone());
        let (reader, epoch) = (self.database.reader(), Arc::from(self.database.epoch()));
        let create = {
            let (services, reader, epoch) =
                (Arc::clone(services), reader.clone(), Arc::clone(&epoch));
            move |_: &mut Context<Project>, vitals: &Arc<Vitals>| Project {
                rooms: Rooms::new(self.id.clone()),
                id: self.id,
                vitals: Arc::clone(vitals),
                reader,
                workspace: self.workspace,
                epoch,
                database: OpenDatabase {
                    open: Some((self.database, self.lease)),
                    clock: Arc::clone(&services.clock),
                },
                services,
                committed: self.committed,
                sessions: HashMap::new(),
                head: self.head,
                flush_is_due: false,
                joins: 0,
            }
        };
        let address = spawn(parent, spec, create, move |_| on_exit());
        ProjectHandle { id, address, reader, workspace, epoch, holders: Arc::default() }
    }
}

impl Actor for Project {
    type Context = Context<Self>;

    /// Whatever was alive before this start is not any more: it becomes `interrupted`, before any
    /// other write, because the writer keeps the order. Queued messages then go on.
    fn started(&mut self, ctx: &mut Self::Context) {
        let address = Address::of(ctx, &self.vitals);
        // Set already after a restart: the address is the same.
        drop(self.committed.set(address.downgrade()));
        self.recover(ctx);
    }

    /// Who hears a project that ends comes back with the position that it has.
    fn stopped(&mut self, _: &mut Self::Context) {
        self.rooms.close_all(&CloseReason::new(1011, "the project ended"));
    }
}

impl Project {
    /// Ends the runs of an earlier life, for as long as it takes, and starts what waited behind them.
    fn recover(&mut self, ctx: &mut Context<Self>) {
        let address = Address::of(ctx, &self.vitals);
        let recover = RecoverRuns { at: self.services.clock.now_ms() };
        let recovered = record(&address, recover, WriteContext::default()).into_actor(self);
        ctx.spawn(recovered.map(|recovered, registry, ctx| match recovered {
            Ok(recovered) => {
                for session_id in recovered.output.sessions_with_queue {
                    registry.session(&session_id, ctx);
                }
            }
            Err(error) => {
                let path = registry.vitals.path();
                tracing::error!(actor.path = %path, %error, "recovery of runs failed");
                ctx.run_later(RECOVER_AGAIN_AFTER, |registry, ctx| {
                    // What began meanwhile is about to be recorded as interrupted: end it first.
                    registry.stop_sessions();
                    registry.recover(ctx);
                });
            }
        }));
    }
}

crate::supervised!(Project);

impl Supervise for Project {
    /// Clients come back with their positions; its sessions have ended and start again when they are
    /// needed. Where the log of events ends is what the writer has committed; what was not published
    /// is replayed to whoever joins. Without its writer it cannot go on: the directory opens it anew.
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        self.rooms.close_all(&CloseReason::new(1011, "the project restarted"));
        let database = self.database.take();
        let head = match database.get() {
            Some(database) if database.writer().is_alive() => database.committed_head(),
            Some(_) | None => return Err("the database is closed".to_owned()),
        };
        Ok(Self {
            id: self.id.clone(),
            vitals: Arc::clone(&self.vitals),
            services: Arc::clone(&self.services),
            database,
            reader: self.reader.clone(),
            workspace: self.workspace.clone(),
            epoch: Arc::clone(&self.epoch),
            committed: Arc::clone(&self.committed),
            rooms: Rooms::new(self.id.clone()),
            sessions: HashMap::new(),
            head,
            flush_is_due: false,
            joins: 0,
        })
    }

    fn observe(&self) -> Value {
        json!({
            "head": self.head,
            "epoch": &*self.epoch,
            "rooms": self.rooms.counts(),
            "sessions": self.sessions.len(),
            "commandsWaiting": self.database.get().map(|database| database.writer().queue_depth()),
        })
    }
}

impl Project {
    fn stop_sessions(&mut self) {
        for (_, session) in self.sessions.drain() {
            session.vitals().stop();
        }
    }

    fn session(&mut self, id: &SessionId, ctx: &mut Context<Self>) -> Address<Session> {
        if let Some(session) = self.sessions.get(id).filter(|session| session.connected()) {
            return session.clone();
        }
        let project = ProjectHandle {
            id: self.id.clone(),
            address: Address::of(ctx, &self.vitals),
            reader: self.reader.clone(),
            workspace: self.workspace.clone(),
            epoch: Arc::clone(&self.epoch),
            // A session holds up nothing: it is asked whether it is idle.
            holders: Arc::default(),
        };
        let place = SessionPlace { id: id.clone(), project, services: Arc::clone(&self.services) };
        let (me, session_id) = (Address::of(ctx, &self.vitals), id.clone());
        let session = place.start(&self.vitals, move |exited| {
            me.tell(SessionExited { id: session_id, reason: exited.reason });
        });
        self.sessions.retain(|_, session| session.connected());
        self.sessions.insert(id.clone(), session.clone());
        session
    }
}

impl<C: Command> Handler<Write<C>> for Project {
    type Result = ();

    fn handle(&mut self, write: Write<C>, ctx: &mut Context<Self>) {
        let Some(database) = self.database.get() else { return };
        #[cfg(feature = "faults")]
        if self.vitals.supervision().faults().kills_writer::<Write<C>>(&self.vitals) {
            drop(database.writer().kill());
        }
        let receipt = database.writer().submit(write.command, write.context);
        // A caller who went away does not need the receipt; the command is committed all the same.
        drop(write.receipt.send(receipt));
        if !database.writer().is_alive() {
            self.vitals.fail("the writer thread of the database is gone");
            ctx.stop();
        }
    }
}

/// Tell: these events are committed, in this order (INV-1).
#[derive(Message)]
#[rtype(result = "()")]
pub struct Committed(Vec<StoredEvent>);

impl Handler<Committed> for Project {
    type Result = ();

    fn handle(&mut self, Committed(events): Committed, _: &mut Context<Self>) {
        // After a restart the head is ahead of what was queued for the earlier life.
        for event in events.iter().filter(|event| event.seq > self.head) {
            self.rooms.publish(event);
        }
        self.head = events.last().map_or(self.head, |event| event.seq.max(self.head));
    }
}

/// Tell: a piece of streaming text.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Stream {
    pub(crate) session_id: SessionId,
    pub(crate) message_id: MessageId,
    pub(crate) part_id: PartId,
    pub(crate) kind: StreamKind,
    /// Bytes of the part before this piece.
    pub(crate) offset: u64,
    pub(crate) text: String,
}

impl Handler<Stream> for Project {
    type Result = ();

    fn handle(&mut self, piece: Stream, ctx: &mut Context<Self>) {
        let Stream { session_id, message_id, part_id, kind, offset, text } = piece;
        let is_first =
            self.rooms.stream(Piece { session_id, message_id, part_id, kind, offset, text });
        if !is_first && !self.flush_is_due {
            self.flush_is_due = true;
            ctx.run_later(JOIN_DELTAS, |registry, _| {
                registry.flush_is_due = false;
                registry.rooms.flush();
            });
        }
    }
}

/// Tell: a message ended; parts of it that still stream will not be completed.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EndStreams(pub(crate) MessageId);

impl Handler<EndStreams> for Project {
    type Result = ();

    fn handle(&mut self, EndStreams(message_id): EndStreams, _: &mut Context<Self>) {
        self.rooms.drop_parts(&message_id);
    }
}

/// Ask: joins a room, replaying what was missed.
#[derive(Message)]
#[rtype(result = "RoomOutcome")]
pub(crate) struct JoinRoom {
    /// As the client named it.
    pub(crate) room: String,
    pub(crate) since: Option<Position>,
    pub(crate) deltas: bool,
    pub(crate) connection_id: ConnectionId,
    pub(crate) user_id: UserId,
    pub(crate) outbound: Arc<Outbound>,
}

impl Handler<JoinRoom> for Project {
    type Result = ResponseActFuture<Self, RoomOutcome>;

    fn handle(&mut self, join: JoinRoom, _: &mut Context<Self>) -> Self::Result {
        let refused = |room: String, code| RoomOutcome {
            room,
            status: RoomStatus::Refused,
            from: 0,
            to: 0,
            epoch: String::new(),
            code: Some(code),
        };
        let Ok(room) = join.room.parse::<Room>() else {
            return Box::pin(actix::fut::ready(refused(join.room, ErrorCode::InvalidRequest)));
        };
        if join.since.as_ref().is_some_and(|since| since.epoch != *self.epoch) {
            self.rooms.leave(&room, &join.connection_id);
            return Box::pin(actix::fut::ready(self.outcome(&join, RoomStatus::Reset, self.head)));
        }
        // From here on the room's events are held, so none can fall between the replay and them.
        let to = self.head;
        self.joins += 1;
        let number = self.joins;
        self.rooms.join(
            room.clone(),
            Subscriber {
                connection_id: join.connection_id.clone(),
                user_id: join.user_id.clone(),
                outbound: Arc::clone(&join.outbound),
                deltas: join.deltas,
                join: number,
                held: Some(Vec::new()),
            },
        );
        let since = join.since.as_ref().map(|since| since.seq);
        let missed = missed(self.reader.clone(), self.id.clone(), room.clone(), since, to);
        Box::pin(missed.into_actor(self).map(move |missed, registry, _| match missed {
            Ok(Missed::Events(events)) => {
                let frames = events.iter().filter_map(|e| durable_frame(&registry.id, e));
                let frames: Vec<Bytes> = frames.collect();
                if !registry.rooms.release(&room, number, since.unwrap_or(0), frames) {
                    // The connection joined again, or left, while this one was on its way.
                    return refused(join.room, ErrorCode::Conflict);
                }
                let replayed = join.since.is_some();
                let status = if replayed { RoomStatus::Replayed } else { RoomStatus::Live };
                registry.outcome(&join, status, to)
            }
            Ok(Missed::Reset) => {
                registry.rooms.give_up(number);
                registry.outcome(&join, RoomStatus::Reset, to)
            }
            Err(code) => {
                registry.rooms.give_up(number);
                refused(join.room, code)
            }
        }))
    }
}

impl Project {
    fn outcome(&self, join: &JoinRoom, status: RoomStatus, to: u64) -> RoomOutcome {
        RoomOutcome {
            room: join.room.clone(),
            status,
            from: join.since.as_ref().map_or(0, |since| since.seq),
            to,
            epoch: self.epoch.to_string(),
            code: None,
        }
    }
}

enum Missed {
    Events(Vec<StoredEvent>),
    /// More than a replay may hold, or a position that this project never had.
    Reset,
}

/// The events of a room after `since` and up to `to`, once it is known that the room exists.
async fn missed(
    reader: ProjectReader,
    project_id: ProjectId,
    room: Room,
    since: Option<u64>,
    to: u64,
) -> Result<Missed, ErrorCode> {
    let log = |error: StoreError| {
        tracing::error!(%error, "a room could not be read");
        error.code()
    };
    let exists = match &room {
        Room::Project(id) => *id == project_id,
        Room::Admin => false,
        Room::Session(id) => {
            let session = reader.session(id.clone()).await.map_err(log)?;
            session.is_some_and(|session| session.status != SessionStatus::Deleted)
        }
    };
    if !exists {
        return Err(ErrorCode::NotFound);
    }
    let Some(since) = since else { return Ok(Missed::Events(Vec::new())) };
    // A snapshot can be ahead of what this registry has published, but not of the database.
    if since > to && since > reader.head().await.map_err(log)? {
        return Ok(Missed::Reset);
    }
    let replay = reader.events(room, since, to, REPLAY_EVENTS_MAX, REPLAY_BYTES_MAX).await;
    match replay.map_err(log)? {
        Replay::Events(events) => Ok(Missed::Events(events)),
        Replay::TooMuch => Ok(Missed::Reset),
    }
}

/// Tell: a connection hears these rooms no more; all of them when none is named.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LeaveRooms {
    pub(crate) connection_id: ConnectionId,
    pub(crate) rooms: Option<Vec<Room>>,
}

impl Handler<LeaveRooms> for Project {
    type Result = ();

    fn handle(&mut self, leave: LeaveRooms, _: &mut Context<Self>) {
        match leave.rooms {
            None => self.rooms.leave_all(&leave.connection_id),
            Some(rooms) => {
                for room in &rooms {
                    self.rooms.leave(room, &leave.connection_id);
                }
            }
        }
    }
}

/// Tell: a user lost the right to hear this project.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EvictUser(pub(crate) UserId);

impl Handler<EvictUser> for Project {
    type Result = ();

    fn handle(&mut self, EvictUser(user_id): EvictUser, _: &mut Context<Self>) {
        self.rooms.evict(ErrorCode::NotFound, |subscriber| subscriber.user_id == user_id);
    }
}

/// Ask: hands a message to the actor of a session that exists. The actor is started if need be, and
/// cannot end for want of work before it takes the message.
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
    reason: ExitReason,
}

impl Handler<SessionExited> for Project {
    type Result = ();

    fn handle(&mut self, exited: SessionExited, ctx: &mut Context<Self>) {
        match exited.reason {
            // It had nothing to do, or the registry ended it.
            ExitReason::Normal | ExitReason::Parent => {}
            ExitReason::Panic(_)
            | ExitReason::Error(_)
            | ExitReason::Killed(_)
            | ExitReason::RestartIntensity(_) => self.fail_runs(exited.id, ctx),
        }
    }
}

impl Project {
    /// Ends the run of a session that is gone, for as long as it takes. Its queue goes on when somebody
    /// asks for the session.
    fn fail_runs(&mut self, session_id: SessionId, ctx: &mut Context<Self>) {
        let error = ApiError::new(ErrorCode::Internal, "the session ended");
        let command = FailRuns {
            session_id: session_id.clone(),
            run_id: None,
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
            }
            Err(error) => {
                let path = registry.vitals.path();
                tracing::error!(actor.path = %path, %error, "the run of a session that is gone could not be ended");
                if may_succeed_later(error.code()) {
                    ctx.run_later(RECOVER_AGAIN_AFTER, |registry, ctx| {
                        registry.fail_runs(session_id, ctx);
                    });
                }
            }
        }));
    }
}

/// Tell: empties the rooms and ends; the sessions end before it and the database is closed after it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseProject;

impl Handler<CloseProject> for Project {
    type Result = ();

    fn handle(&mut self, _: CloseProject, ctx: &mut Context<Self>) {
        self.rooms.evict(ErrorCode::NotFound, |_| true);
        ctx.stop();
    }
}

/// Ask: ends if nobody needs it: no subscriber, no run, no queue. Answers whether it does.
#[derive(Message)]
#[rtype(result = "bool")]
pub(crate) struct CloseIfIdle;

impl Handler<CloseIfIdle> for Project {
    type Result = ResponseActFuture<Self, bool>;

    fn handle(&mut self, _: CloseIfIdle, _: &mut Context<Self>) -> Self::Result {
        if self.rooms.is_heard() {
            return Box::pin(actix::fut::ready(false));
        }
        // One that has ended is idle.
        let asked = self.sessions.values().map(|session| session.urge(IsIdle));
        let asked = tokio::time::timeout(IDLE_ANSWER_TIMEOUT, join_all(asked.collect::<Vec<_>>()));
        Box::pin(asked.into_actor(self).map(|idle, registry, ctx| {
            let is_idle = idle.is_ok_and(|idle| idle.into_iter().all(|idle| idle.unwrap_or(true)));
            if !is_idle || registry.rooms.is_heard() {
                return false;
            }
            registry.vitals.passivate();
            ctx.stop();
            true
        }))
    }
}
