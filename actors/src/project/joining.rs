//! Who hears a project: joining rooms with what was missed, leaving them, losing the right to them.

mod under_way;

use std::sync::Arc;
use std::time::Duration;

use actix::fut::wrap_stream;
use actix::prelude::*;
use bytes::Bytes;
use futures_util::stream;
use iris_protocol::{
    ConnectionId, ErrorCode, Position, ProjectId, Role, Room, RoomOutcome, RoomRequest, RoomStatus,
    SessionStatus, UserId,
    limits::{REPLAY_BYTES_MAX, REPLAY_EVENTS_MAX},
};
use iris_store::project::{ProjectReader, Replay};
use iris_store::{StoreError, StoredEvent};
use tokio::time::Instant;

use super::rooms::{Subscriber, Who, durable_frame};
use super::{Project, ring};
use crate::connection::{Outbound, ReplayRoom};

pub(super) use under_way::UnderWay;

/// How long the rooms of one request wait for room for their replays; the others have to be read anew.
const REPLAYS_WAIT_MAX: Duration = Duration::from_secs(10);

/// Rooms that somebody joins in one turn, whatever others do: what is sent for these is one write.
const ROOMS_AT_ONCE: usize = 32;

/// Most sessions of which it is remembered that they are there.
const JOINABLE_MAX: usize = 1024;

/// Ask: joins rooms, one after the other, replaying what was missed in each. Answers what became of
/// them in the same order.
#[derive(Message)]
#[rtype(result = "Vec<RoomOutcome>")]
pub(crate) struct JoinRooms {
    /// As the client named them.
    pub(crate) rooms: Vec<RoomRequest>,
    pub(crate) by: Follower,
}

/// A connection that wants to hear rooms.
pub(crate) struct Follower {
    pub(crate) connection_id: ConnectionId,
    pub(crate) user_id: UserId,
    pub(crate) username: String,
    pub(crate) deltas: bool,
    /// Whether it wants to know who is present.
    pub(crate) presence: bool,
    pub(crate) outbound: Arc<Outbound>,
}

/// One of the rooms.
pub(super) struct JoinRoom {
    /// As the client named it.
    pub(super) room: String,
    pub(super) since: Option<Position>,
    /// Whether there is room for what was missed.
    has_room: bool,
    pub(super) by: Arc<Follower>,
}

impl Handler<JoinRooms> for Project {
    type Result = ResponseActFuture<Self, Vec<RoomOutcome>>;

    fn handle(
        &mut self,
        JoinRooms { rooms, by }: JoinRooms,
        _: &mut Context<Self>,
    ) -> Self::Result {
        let by = Arc::new(by);
        let until = Instant::now() + REPLAYS_WAIT_MAX;
        let number = self.under_way.begin(&by);
        let (reader, project_id, user_id) =
            (self.root.reader.clone(), self.id.clone(), by.user_id.clone());
        // Whoever lost the right before this began was not known to be on the way, and is found here.
        let role = async move { reader.role(&user_id, &project_id).await };
        let role = role.into_actor(self).map(move |role, registry: &mut Self, _| {
            if let Some(code) = no_right(role) {
                registry.under_way.refuse(number, code);
            }
        });
        let joined = move |(), _: &mut Self, _: &mut Context<Self>| {
            let joined = wrap_stream(stream::iter(rooms.into_iter().enumerate())).then(
                move |(before, asked): (usize, RoomRequest), registry: &mut Self, _| {
                    let (name, since) = asked.parts();
                    let (room, since, by) = (name.to_owned(), since.cloned(), Arc::clone(&by));
                    let replay_room = replay_room(Arc::clone(&by), since.is_some(), until);
                    let pace = registry.joining.clone();
                    let replay_room = async move {
                        // However many come at once, what happens meanwhile is told between two turns.
                        if before.is_multiple_of(ROOMS_AT_ONCE) {
                            pace.step().await;
                        }
                        replay_room.await
                    };
                    replay_room.into_actor(registry).then(move |replay_room, registry, ctx| {
                        let has_room = since.is_none() || replay_room.is_some();
                        let joined =
                            registry.join(number, JoinRoom { room, since, has_room, by }, ctx);
                        joined.map(move |outcome, _, _| {
                            drop(replay_room);
                            outcome
                        })
                    })
                },
            );
            joined.collect()
        };
        Box::pin(role.then(joined).map(move |mut outcomes: Vec<RoomOutcome>, registry, _| {
            // Those that were left while later ones were joined are joined no more.
            for outcome in &mut outcomes {
                let Ok(place) = outcome.room.parse() else { continue };
                if let Some(code) = registry.under_way.refusal(number, &place) {
                    *outcome = refused(std::mem::take(&mut outcome.room), code);
                }
            }
            registry.under_way.end(number);
            outcomes
        }))
    }
}

impl Project {
    /// Joins the next room of those that somebody joins, unless that was given up meanwhile.
    fn join(
        &mut self,
        number: u64,
        join: JoinRoom,
        ctx: &mut Context<Self>,
    ) -> ResponseActFuture<Self, RoomOutcome> {
        let Ok(room) = join.room.parse::<Room>() else {
            return Box::pin(actix::fut::ready(refused(join.room, ErrorCode::InvalidRequest)));
        };
        if let Some(code) = self.under_way.refusal(number, &room) {
            return Box::pin(actix::fut::ready(refused(join.room, code)));
        }
        let is_of_other = |since: &Position| since.epoch != *self.epoch;
        if !join.has_room || join.since.as_ref().is_some_and(is_of_other) {
            self.rooms.leave(&room, &join.by.connection_id);
            let outcome = self.outcome(&join, RoomStatus::Reset, self.head);
            self.joined(&room, &join, outcome.status, ctx);
            return Box::pin(actix::fut::ready(outcome));
        }
        if let Some(outcome) = self.join_from_memory(&room, &join) {
            self.joined(&room, &join, outcome.status, ctx);
            return Box::pin(actix::fut::ready(outcome));
        }
        // From here on the room's events are held, so none can fall between the replay and them.
        let (to, deletions) = (self.head, self.deletions);
        let number = self.hold(&room, &join);
        let since = join.since.as_ref().map(|since| since.seq);
        let missed = missed(self.reader.clone(), self.id.clone(), room.clone(), since, to);
        Box::pin(missed.into_actor(self).map(move |missed, registry, ctx| {
            let outcome = match missed {
                Ok(Missed::Events { events, head }) => {
                    // One that is not published yet is noted when it is.
                    if head <= to {
                        registry.heads.note(&room, head, |room| registry.rooms.is_joined(room));
                    }
                    if registry.deletions == deletions {
                        registry.note_joinable(&room);
                    }
                    let frames = events.iter().filter_map(|e| durable_frame(&registry.id, e));
                    let frames: Vec<Bytes> = frames.collect();
                    if registry.rooms.release(
                        &room,
                        (&join.by.connection_id, number),
                        since.unwrap_or(0),
                        frames,
                    ) {
                        let replayed = join.since.is_some();
                        let status = if replayed { RoomStatus::Replayed } else { RoomStatus::Live };
                        registry.outcome(&join, status, to)
                    } else {
                        // The connection joined again, or left, while this one was on its way.
                        refused(join.room.clone(), ErrorCode::Conflict)
                    }
                }
                Ok(Missed::Reset) => {
                    registry.rooms.give_up(number);
                    registry.outcome(&join, RoomStatus::Reset, to)
                }
                Err(code) => {
                    registry.rooms.give_up(number);
                    refused(join.room.clone(), code)
                }
            };
            registry.joined(&room, &join, outcome.status, ctx);
            outcome
        }))
    }

    /// Counts a connection as present whose joining came to this, or not any more.
    fn joined(
        &mut self,
        room: &Room,
        join: &JoinRoom,
        status: RoomStatus,
        ctx: &mut Context<Self>,
    ) {
        match status {
            RoomStatus::Live | RoomStatus::Replayed => self.arrived(room, join, ctx),
            RoomStatus::Reset | RoomStatus::Refused => {
                self.may_have_left(&join.by.connection_id, true, ctx);
            }
        }
    }

    /// Makes a connection a subscriber whose events are held. Answers the number of its joining.
    fn hold(&mut self, room: &Room, join: &JoinRoom) -> u64 {
        self.joins += 1;
        let subscriber = Subscriber {
            who: Arc::new(Who {
                connection_id: join.by.connection_id.clone(),
                user_id: join.by.user_id.clone(),
            }),
            outbound: Arc::clone(&join.by.outbound),
            deltas: join.by.deltas,
            presence: join.by.presence,
            join: self.joins,
            held: Some(Box::default()),
            is_brought: false,
        };
        self.rooms.join(room.clone(), subscriber);
        self.joins
    }

    /// Joins a room that is known to be there, when all that was missed is in memory too.
    fn join_from_memory(&mut self, room: &Room, join: &JoinRoom) -> Option<RoomOutcome> {
        let is_there = match room {
            Room::Project(id) => *id == self.id,
            Room::Session(id) => self.joinable.contains(id),
            Room::User(_) | Room::Admin => false,
        };
        if !is_there {
            return None;
        }
        let head = self.heads.of(room).or_else(|| self.ring.last_of(room))?;
        let since = join.since.as_ref().map(|since| since.seq);
        let missed = match since {
            None => ring::Missed::Frames(Vec::new()),
            Some(since) => self.ring.missed(room, since, REPLAY_EVENTS_MAX, REPLAY_BYTES_MAX)?,
        };
        let status = match missed {
            ring::Missed::TooMuch => {
                self.rooms.leave(room, &join.by.connection_id);
                RoomStatus::Reset
            }
            ring::Missed::Frames(frames) => {
                let number = self.hold(room, join);
                self.heads.note(room, head, |room| self.rooms.is_joined(room));
                let joined = (&join.by.connection_id, number);
                self.rooms.release(room, joined, since.unwrap_or(0), frames);
                if since.is_some() { RoomStatus::Replayed } else { RoomStatus::Live }
            }
        };
        Some(self.outcome(join, status, self.head))
    }

    fn note_joinable(&mut self, room: &Room) {
        let Room::Session(id) = room else { return };
        if self.joinable.len() >= JOINABLE_MAX {
            self.joinable.clear();
        }
        self.joinable.insert(id.clone());
    }

    /// Whoever wants to join the room of a session that was deleted has to ask the database.
    pub(super) fn forget_deleted(&mut self, event: &StoredEvent) {
        if event.name != "session.deleted" {
            return;
        }
        self.deletions += 1;
        self.joinable.clear();
    }

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

/// Why who has this role in the project hears nothing of it.
fn no_right(role: Result<Option<Role>, StoreError>) -> Option<ErrorCode> {
    match role {
        Ok(Some(_)) => None,
        Ok(None) => Some(ErrorCode::NotFound),
        Err(error) => {
            tracing::error!(%error, "the role of who joins rooms could not be read");
            Some(error.code())
        }
    }
}

fn refused(room: String, code: ErrorCode) -> RoomOutcome {
    let (status, code) = (RoomStatus::Refused, Some(code));
    RoomOutcome { room, status, from: 0, to: 0, epoch: String::new(), code }
}

/// Waits until what was missed in one room fits into the queue of who joins it.
async fn replay_room(by: Arc<Follower>, is_needed: bool, until: Instant) -> Option<ReplayRoom> {
    if is_needed { by.outbound.replay_room(until).await } else { None }
}

enum Missed {
    Events {
        events: Vec<StoredEvent>,
        /// The last event of the room.
        head: u64,
    },
    /// More than a replay may hold, events that are not kept any more, or a position that this project
    /// never had.
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
        Room::User(_) | Room::Admin => false,
        Room::Session(id) => {
            let session = reader.session(id.clone()).await.map_err(log)?;
            session.is_some_and(|session| session.status != SessionStatus::Deleted)
        }
    };
    if !exists {
        return Err(ErrorCode::NotFound);
    }
    let head = reader.room_head(room.clone()).await.map_err(log)?;
    let Some(since) = since else { return Ok(Missed::Events { events: Vec::new(), head }) };
    // A snapshot can be ahead of what this registry has published, but not of the database.
    if since > to && since > reader.head().await.map_err(log)? {
        return Ok(Missed::Reset);
    }
    let replay = reader.events(room, since, to, REPLAY_EVENTS_MAX, REPLAY_BYTES_MAX).await;
    match replay.map_err(log)? {
        Replay::Events(events) => Ok(Missed::Events { events, head }),
        Replay::TooMuch | Replay::Dropped => Ok(Missed::Reset),
    }
}

/// Tell: a connection hears these rooms no more; all of them when none is named.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct LeaveRooms {
    pub(crate) connection_id: ConnectionId,
    pub(crate) rooms: Option<Vec<Room>>,
    /// Whether it may come back: it is present for a moment longer.
    pub(crate) has_right: bool,
}

impl Handler<LeaveRooms> for Project {
    type Result = ();

    fn handle(&mut self, leave: LeaveRooms, ctx: &mut Context<Self>) {
        self.under_way.leave(&leave.connection_id, leave.rooms.as_deref());
        match leave.rooms {
            _ if !leave.has_right => {
                self.under_way.evict(|connection_id, _| *connection_id == leave.connection_id);
                let is_out = |s: &Subscriber| s.who.connection_id == leave.connection_id;
                self.rooms.evict(ErrorCode::NotFound, is_out);
            }
            None => self.rooms.leave_all(&leave.connection_id),
            Some(rooms) => {
                for room in &rooms {
                    self.rooms.leave(room, &leave.connection_id);
                }
            }
        }
        self.may_have_left(&leave.connection_id, leave.has_right, ctx);
    }
}

/// Tell: a user lost the right to hear this project.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EvictUser(pub(crate) UserId);

impl Handler<EvictUser> for Project {
    type Result = ();

    fn handle(&mut self, EvictUser(user_id): EvictUser, _: &mut Context<Self>) {
        self.under_way.evict(|_, other| *other == user_id);
        self.rooms.evict(ErrorCode::NotFound, |subscriber| subscriber.who.user_id == user_id);
        self.is_not_present(&user_id);
    }
}
