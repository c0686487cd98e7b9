//! The registry of one project: it owns the project's database, numbers and routes every event, and
//! knows who hears what. The directory starts it.

mod agents;
mod captures;
mod children;
mod heads;
mod joining;
mod kept;
mod listeners;
mod locks;
mod mcp;
mod metering;
mod opening;
mod presence;
mod queued;
mod ring;
mod rooms;
mod sessions;
mod snapshots;
mod unfinished;
mod upkeep;
mod usage;
mod watching;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;
use iris_protocol::{
    ErrorCode, Event, MessageId, PartId, ProjectId, Room, SessionId, SnapshotKind, ToolCallId,
};
use iris_store::project::{ProjectReader, RecoverRuns};
use iris_store::root::{OutboxEntry, RootReader};
use iris_store::{Command, StoredEvent, WriteContext};
use iris_tools::{Places, Progress};
use iris_workspace::Workspace;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::agents::LOOK_EVERY;
use crate::connection::{Wakers, Wants};
use crate::line::Standing;
use crate::mcp::McpClient;
use crate::permissions::ServerRules;
use crate::root::RootAccess;
use crate::session::{IsIdle, Session};
use crate::supervision::{Address, Supervise, Vitals, WeakAddress};
use crate::{Pace, Services, Write, record};
use children::RunEnds;
use heads::Heads;
use joining::UnderWay;
use listeners::Listeners;
use locks::Locks;
use metering::Metering;
use opening::OpenDatabase;
use presence::Presences;
use queued::QueuedRuns;
use ring::Ring;
use rooms::Rooms;
use unfinished::Marking;
use upkeep::Upkeep;
use usage::UsageNews;

pub(crate) use children::{MoveUp, OpenChild, RetireSession};
pub(crate) use heads::RoomHeads;
pub(crate) use joining::{EvictUser, Follower, JoinRooms, LeaveRooms};
pub(crate) use kept::{Kept, Secrets};
pub(crate) use listeners::Listen;
pub use listeners::{Listener, ListeningEnded, ProjectEvent};
pub(crate) use locks::IsPresent;
pub(crate) use mcp::WakeMcp;
pub(crate) use opening::{Damage, FilesAt, FromRoot, NotOpened, OpenedProject};
pub use presence::PresenceSettings;
pub(crate) use presence::{ListPresence, StartTyping, StopTyping, UpdatePresence};
pub(crate) use queued::TellQueued;
pub(crate) use sessions::InSession;
pub(crate) use snapshots::SendSnapshots;
pub(crate) use upkeep::index as index_text;
pub(crate) use usage::UsageTeller;

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
    /// What the server says of its members.
    pub(crate) root: RootReader,
    /// The permission rules for all projects.
    pub(crate) server_rules: Arc<ServerRules>,
    /// Its own permission rules and tools.
    pub(crate) kept: Arc<Kept>,
    /// Its files.
    pub workspace: Workspace,
    /// Where its commands run; none where there is no directory for them.
    pub(crate) places: Option<Arc<Places>>,
    /// Of its order of events.
    pub epoch: Arc<str>,
    /// The life of the registry, counted from 0, that gave it to what works for it.
    pub(crate) life: u32,
    /// Whether the root database names the project among those with unfinished work.
    is_marked: Arc<AtomicBool>,
    /// Tells the root database what was used in it.
    pub(crate) usage: UsageTeller,
    /// Shared by the clones of one handle.
    holders: Arc<()>,
}

impl ProjectHandle {
    /// Whether somebody else has a clone of it: the directory closes no project in which a request
    /// acts.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.holders) > 1
    }

    /// Whether the project was marked as one with unfinished work while it was open.
    pub(crate) fn had_work(&self) -> bool {
        self.is_marked.load(Ordering::Acquire)
    }
}

/// The registry actor.
pub struct Project {
    id: ProjectId,
    vitals: Arc<Vitals>,
    services: Arc<Services>,
    root: RootAccess,
    database: OpenDatabase,
    reader: ProjectReader,
    kept: Arc<Kept>,
    workspace: Workspace,
    places: Option<Arc<Places>>,
    epoch: Arc<str>,
    committed: Registry,
    rooms: Rooms,
    listeners: Listeners,
    presences: Presences,
    /// The locks on files that somebody may have.
    locks: Locks,
    heads: Heads,
    /// The last events that were published.
    ring: Ring,
    /// Sessions whose rooms can be joined, as far as that is known without the database.
    joinable: HashSet<SessionId>,
    /// How often sessions were deleted.
    deletions: u64,
    upkeep: Upkeep,
    usage_news: UsageNews,
    /// The runs that wait for a place.
    queued: QueuedRuns,
    /// Looks whether a recording is over.
    capture_timer: Option<SpawnHandle>,
    metering: Metering,
    sessions: HashMap<SessionId, Address<Session>>,
    run_ends: RunEnds,
    /// The clients of the MCP servers that somebody needed.
    mcp: HashMap<String, Address<McpClient>>,
    /// What the sessions share; there while one of them is.
    shared: Weak<ProjectHandle>,
    /// The last event that was published.
    head: u64,
    /// How often rooms were joined.
    joins: u64,
    under_way: UnderWay,
    /// Of those that are under way.
    joining: Pace,
    /// How many messages were handed to sessions.
    handed_on: u64,
    /// Whether the mark of unfinished work was committed in this life.
    is_marked: Arc<AtomicBool>,
    /// Who waits for the mark, while it is on its way.
    marking: Option<Vec<Marking>>,
    /// Events of the root database that came with the opening and are not published yet.
    outbox: Vec<OutboxEntry>,
    recovery: Recovery,
    /// Whether somebody looks for changes of agents in files.
    looks_for_agents: bool,
}

/// How far what an earlier life left is put in order. Sessions wait for it.
#[derive(Default)]
struct Recovery {
    is_done: watch::Sender<bool>,
    /// Whether it failed and is tried again after a while.
    fails: bool,
}

impl Actor for Project {
    type Context = Context<Self>;

    /// Whatever worked before this start does not any more: it becomes `interrupted`. Sessions wait for
    /// that, other writes do not. What waits for a person, and queued messages, then go on.
    fn started(&mut self, ctx: &mut Self::Context) {
        let address = Address::of(ctx, &self.vitals);
        // Set already after a restart: the address is the same.
        drop(self.committed.set(address.downgrade()));
        ctx.run_interval(upkeep::EVERY, Self::keep_up);
        ctx.run_interval(LOOK_EVERY, Self::look_for_agents);
        self.recover(ctx);
        self.publish_outbox(ctx);
        self.learn_locks(ctx);
        self.watch_files(ctx);
        self.watch_captures(ctx);
    }

    /// Who hears a project that ends comes back with the position that it has.
    fn stopped(&mut self, _: &mut Self::Context) {
        self.rooms.close_all();
    }
}

impl Project {
    /// Ends the runs of an earlier life, for as long as it takes, and lets go on what can.
    fn recover(&mut self, ctx: &mut Context<Self>) {
        let (address, at) = (Address::of(ctx, &self.vitals), self.services.clock.now_ms());
        let recover = RecoverRuns { resume: self.database.resumes(), at };
        let recovered = record(&address, recover, WriteContext::default()).into_actor(self);
        ctx.spawn(recovered.map(|recovered, registry, ctx| match recovered {
            Ok(recovered) => {
                registry.recovery.fails = false;
                registry.recovery.is_done.send_replace(true);
                let unfinished = recovered.output.unfinished;
                if !unfinished.is_empty() {
                    registry.mark_unless_marked(ctx);
                }
                for session_id in unfinished {
                    registry.session(&session_id, ctx);
                }
                registry.keep_up(ctx);
                registry.tell_usage(ctx);
                registry.count_open_soon(ctx);
            }
            Err(error) => {
                let path = registry.vitals.path();
                tracing::error!(actor.path = %path, %error, "recovery of runs failed");
                // Who waits for it in a session is told to try again.
                registry.recovery.fails = true;
                registry.stop_sessions();
                ctx.run_later(RECOVER_AGAIN_AFTER, Self::recover);
            }
        }));
    }
}

impl Recovery {
    fn is_done(&self) -> bool {
        *self.is_done.borrow()
    }

    /// What operators see.
    fn observe(&self) -> &'static str {
        match (self.is_done(), self.fails) {
            (true, _) => "done",
            (false, true) => "fails",
            (false, false) => "underWay",
        }
    }
}

crate::supervised!(Project);

impl Supervise for Project {
    /// Clients come back with their positions; its sessions have ended and start again when they are
    /// needed. Where the log of events ends is what the writer has committed; what was not published
    /// is replayed to whoever joins. Without its writer it cannot go on: the directory opens it anew.
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        self.rooms.close_all();
        let database = self.database.take();
        let head = match database.get() {
            Some(database) if let Some(damage) = database.damage() => return Err(damage),
            Some(database) if database.writer().is_alive() => database.committed_head(),
            Some(_) | None => return Err("the database is closed".to_owned()),
        };
        Ok(Self {
            id: self.id.clone(),
            vitals: Arc::clone(&self.vitals),
            services: Arc::clone(&self.services),
            root: self.root.clone(),
            database,
            reader: self.reader.clone(),
            kept: Arc::clone(&self.kept),
            workspace: self.workspace.clone(),
            places: self.places.clone(),
            epoch: Arc::clone(&self.epoch),
            committed: Arc::clone(&self.committed),
            rooms: Rooms::new(self.id.clone(), &self.services.metrics),
            listeners: Listeners::new(self.id.clone()),
            presences: Presences::default(),
            locks: Locks::default(),
            heads: Heads::default(),
            ring: Ring::new(self.id.clone(), head),
            joinable: HashSet::new(),
            deletions: 0,
            upkeep: Upkeep::default(),
            usage_news: UsageNews::default(),
            queued: QueuedRuns::default(),
            capture_timer: None,
            metering: Metering::new(&self.services.metrics),
            sessions: HashMap::new(),
            run_ends: RunEnds::default(),
            mcp: HashMap::new(),
            shared: Weak::new(),
            head,
            joins: 0,
            under_way: UnderWay::default(),
            joining: Pace::default(),
            handed_on: 0,
            is_marked: Arc::clone(&self.is_marked),
            marking: None,
            outbox: std::mem::take(&mut self.outbox),
            recovery: Recovery::default(),
            looks_for_agents: false,
        })
    }

    fn observe(&self) -> Value {
        json!({
            "head": self.head,
            "epoch": &*self.epoch,
            "rooms": self.rooms.counts(),
            "listeners": self.listeners.count(),
            "presence": self.presences.counts(),
            "recentEvents": self.ring.counts(),
            "sessions": self.sessions.len(),
            "mcpClients": self.mcp.len(),
            "recovery": self.recovery.observe(),
            "isMarkedUnfinished": self.is_marked.load(Ordering::Acquire),
            "commandsWaiting": self.database.get().map(|database| database.writer().queue_depth()),
        })
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

    fn handle(&mut self, Committed(events): Committed, ctx: &mut Context<Self>) {
        self.count_events(&events, ctx);
        self.usage_sees(&events, ctx);
        self.queued.see(&events);
        self.captures_see(&events, ctx);
        // After a restart the head is ahead of what was queued for the earlier life.
        let (known, mut wakers) = (self.head, Wakers::default());
        for event in events.into_iter().filter(|event| event.seq > known) {
            self.forget_deleted(&event);
            self.heads.published(&event, self.rooms.is_joined(&event.room));
            self.head = event.seq;
            let frame = self.rooms.publish(&event, &mut wakers);
            self.listeners.tell(&self.epoch, &event);
            self.presence_sees(&event, ctx);
            self.locks_see(&event, ctx);
            self.run_ends.see(&event);
            self.meter(&event, ctx);
            self.wake_session(&event, ctx);
            self.mcp_sees(&event, ctx);
            self.ring.push(event, frame);
        }
    }
}

/// Tell: the database turned out to be damaged. The project ends, and the directory opens it no more;
/// its files are left as they are.
#[derive(Message)]
#[rtype(result = "()")]
struct Damaged {
    reason: String,
}

impl Handler<Damaged> for Project {
    type Result = ();

    fn handle(&mut self, Damaged { reason }: Damaged, ctx: &mut Context<Self>) {
        self.vitals.fail(format!("the database is damaged: {reason}"));
        ctx.stop();
    }
}

/// Tell: a piece of streaming text.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(crate) struct Stream {
    pub(crate) session_id: SessionId,
    pub(crate) message_id: MessageId,
    pub(crate) part_id: PartId,
    pub(crate) kind: SnapshotKind,
    /// Of a call whose arguments these are.
    pub(crate) tool_name: Option<String>,
    /// Bytes of the part before this piece.
    pub(crate) offset: u64,
    pub(crate) text: String,
}

impl Handler<Stream> for Project {
    type Result = ();

    /// Sends it: whoever reads the answer joined what came in a short while.
    fn handle(&mut self, piece: Stream, _: &mut Context<Self>) {
        self.rooms.stream(piece);
    }
}

/// Tell: how far a tool call is.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ToolProgress {
    pub(crate) session_id: SessionId,
    pub(crate) message_id: MessageId,
    pub(crate) tool_call_id: ToolCallId,
    pub(crate) progress: Progress,
    /// Where it stands while it waits for others.
    pub(crate) standing: Option<Standing>,
}

impl Handler<ToolProgress> for Project {
    type Result = ();

    /// For those who hear what streams.
    fn handle(&mut self, told: ToolProgress, _: &mut Context<Self>) {
        let ToolProgress { session_id, message_id, tool_call_id, progress, standing } = told;
        let room = Room::Session(session_id.clone());
        let Progress { bytes, tail } = progress;
        let (position, reason) = standing.map(|it| (it.position, it.reason)).unzip();
        let event = Event::MessageToolProgress {
            session_id,
            message_id,
            tool_call_id,
            bytes,
            tail,
            position,
            reason,
        };
        self.rooms.tell(&room, &event, Wants::Deltas);
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

/// Tell: as [`CloseProject`], but whoever hears it may come back at once.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CloseToReturn;

impl Handler<CloseToReturn> for Project {
    type Result = ();

    fn handle(&mut self, _: CloseToReturn, ctx: &mut Context<Self>) {
        self.rooms.evict(ErrorCode::Overloaded, |_| true);
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
        // What is not recovered is not finished either.
        if self.rooms.is_heard() || !self.recovery.is_done() {
            return Box::pin(actix::fut::ready(false));
        }
        let handed_on = self.handed_on;
        // One that has ended is idle.
        let asked = self.sessions.values().map(|session| session.urge(IsIdle));
        let asked = tokio::time::timeout(IDLE_ANSWER_TIMEOUT, join_all(asked.collect::<Vec<_>>()));
        Box::pin(asked.into_actor(self).map(move |idle, registry, ctx| {
            let is_idle = idle.is_ok_and(|idle| idle.into_iter().all(|idle| idle.unwrap_or(true)));
            // A session that got something meanwhile was not asked.
            if !is_idle || registry.rooms.is_heard() || registry.handed_on != handed_on {
                return false;
            }
            registry.vitals.passivate();
            ctx.stop();
            true
        }))
    }
}
