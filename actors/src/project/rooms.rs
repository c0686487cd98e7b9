//! Who hears what: the rooms of one project, their subscribers and the parts that stream in them.
//!
//! Live parts stand beside the subscribers so that joining a room and hearing what streams in it is
//! one step of the registry (docs/decisions/0003): a client that joins gets a snapshot of each part
//! and then exactly the pieces that follow it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use iris_protocol::{
    ConnectionId, ErrorCode, Event, EventMeta, MessageId, PartId, ProjectId, Room, SessionId,
    StreamKind, UserId, limits::OUTBOUND_FRAMES_MAX,
};
use iris_store::StoredEvent;
use serde_json::{Value, json};

use crate::connection::{About, CloseReason, Outbound};

/// A connection in a room.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) connection_id: ConnectionId,
    pub(super) user_id: UserId,
    pub(super) outbound: Arc<Outbound>,
    /// Whether it wants streaming text.
    pub(super) deltas: bool,
    /// Whether it wants to know who is present.
    pub(super) presence: bool,
    /// Tells this joining of the room from an earlier or later one of the same connection.
    pub(super) join: u64,
    /// Durable frames, by seq, that wait until the replay is written; none once it is.
    pub(super) held: Option<Vec<(u64, Bytes)>>,
}

/// A part that is being streamed.
#[derive(Debug)]
struct LivePart {
    session_id: SessionId,
    message_id: MessageId,
    kind: StreamKind,
    text: String,
    /// Bytes of `text` that were sent.
    sent: usize,
}

/// A piece of text, as the orchestrator shows it.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) session_id: SessionId,
    pub(super) message_id: MessageId,
    pub(super) part_id: PartId,
    pub(super) kind: StreamKind,
    /// Bytes of the part before this piece.
    pub(super) offset: u64,
    pub(super) text: String,
}

/// The number of times that a part started over; retries will raise it.
const GENERATION: u32 = 1;

/// All rooms of one project.
#[derive(Debug)]
pub(super) struct Rooms {
    project_id: ProjectId,
    subscribers: HashMap<Room, Vec<Subscriber>>,
    live: HashMap<PartId, LivePart>,
}

impl Rooms {
    pub(super) fn new(project_id: ProjectId) -> Self {
        Self { project_id, subscribers: HashMap::new(), live: HashMap::new() }
    }

    /// Forgets subscribers whose connections have ended; says whether anybody is left.
    pub(super) fn is_heard(&mut self) -> bool {
        self.retain(|subscriber| !subscriber.outbound.is_closed());
        !self.subscribers.is_empty()
    }

    /// How much is held in memory, for operators.
    pub(super) fn counts(&self) -> Value {
        let live_bytes: usize = self.live.values().map(|part| part.text.len()).sum();
        json!({
            "joined": self.subscribers.len(),
            "subscribers": self.subscribers.values().map(Vec::len).sum::<usize>(),
            "streamingParts": self.live.len(),
            "streamingBytes": live_bytes,
        })
    }

    /// Whether anybody is in a room.
    pub(super) fn is_joined(&self, room: &Room) -> bool {
        self.subscribers.contains_key(room)
    }

    /// Whether a connection is in a room and gets what is said there as it is said.
    pub(super) fn hears(&self, room: &Room, connection_id: &ConnectionId) -> bool {
        let mut subscribers = self.subscribers.get(room).into_iter().flatten();
        subscribers.any(|s| s.connection_id == *connection_id && s.held.is_none())
    }

    /// Adds a subscriber; one of the same connection is replaced.
    pub(super) fn join(&mut self, room: Room, subscriber: Subscriber) {
        self.leave(&room, &subscriber.connection_id);
        self.subscribers.entry(room).or_default().push(subscriber);
    }

    pub(super) fn leave(&mut self, room: &Room, connection_id: &ConnectionId) {
        if let Some(subscribers) = self.subscribers.get_mut(room) {
            subscribers.retain(|s| s.connection_id != *connection_id);
            if subscribers.is_empty() {
                self.subscribers.remove(room);
            }
        }
    }

    pub(super) fn leave_all(&mut self, connection_id: &ConnectionId) {
        self.retain(|subscriber| subscriber.connection_id != *connection_id);
    }

    /// Whether a connection is in any room. Looks at all subscribers of the project.
    pub(super) fn is_joined_by(&self, connection_id: &ConnectionId) -> bool {
        self.subscribers.values().flatten().any(|s| s.connection_id == *connection_id)
    }

    /// Sends an ephemeral event to those in a room who want it.
    pub(super) fn tell(&mut self, room: &Room, event: &Event, wants: impl Fn(&Subscriber) -> bool) {
        if self.subscribers.contains_key(room)
            && let Some(frame) = self.ephemeral(room, event)
        {
            let about = self.about(event);
            self.send(room, |subscriber| {
                !wants(subscriber)
                    || match &about {
                        Some(about) => subscriber.outbound.push_latest(about, frame.clone()),
                        None => subscriber.outbound.push(frame.clone()),
                    }
            });
        }
    }

    /// What an event says all of, if it does.
    fn about(&self, event: &Event) -> Option<About> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others say what happened")]
        match event {
            Event::PresenceJoined { presence }
            | Event::PresenceUpdated { presence }
            | Event::PresenceLeft { presence } => {
                Some(About::Presence(self.project_id.clone(), presence.user_id.clone()))
            }
            Event::TypingUpdated { session_id, .. } => Some(About::Typing(session_id.clone())),
            _ => None,
        }
    }

    /// Ends every connection that hears anything: it comes back with the position it has.
    pub(super) fn close_all(&mut self, reason: &CloseReason) {
        for subscriber in self.subscribers.values().flatten() {
            subscriber.outbound.close(reason.clone());
        }
        self.subscribers.clear();
        self.live.clear();
    }

    fn retain(&mut self, keep: impl Fn(&Subscriber) -> bool) {
        self.subscribers.retain(|_, subscribers| {
            subscribers.retain(&keep);
            !subscribers.is_empty()
        });
    }

    /// Takes these subscribers out of every room and tells them why. What waits for them of this project
    /// is dropped.
    pub(super) fn evict(&mut self, code: ErrorCode, is_out: impl Fn(&Subscriber) -> bool) {
        let mut told: HashMap<*const Outbound, (Arc<Outbound>, Vec<Bytes>)> = HashMap::new();
        for (room, subscribers) in &self.subscribers {
            let event = Event::RoomLeft { room: room.to_string(), code };
            let Some(frame) = self.ephemeral(room, &event) else { continue };
            for Subscriber { outbound, .. } in subscribers.iter().filter(|s| is_out(s)) {
                let (_, frames) = told
                    .entry(Arc::as_ptr(outbound))
                    .or_insert_with(|| (Arc::clone(outbound), Vec::new()));
                frames.push(frame.clone());
            }
        }
        for (outbound, frames) in told.into_values() {
            outbound.lose(&self.project_id, frames);
        }
        self.retain(|subscriber| !is_out(subscriber));
    }

    /// Ends the hold of a subscriber: the replay, what was held of what it does not have already,
    /// the parts that stream now. `since` is the last event that it has. Says whether the subscriber
    /// of this `join` was still there.
    pub(super) fn release(
        &mut self,
        room: &Room,
        join: u64,
        since: u64,
        replay: Vec<Bytes>,
    ) -> bool {
        let snapshots = self.snapshots(room);
        let subscribers = self.subscribers.get_mut(room);
        let subscriber = subscribers.and_then(|all| all.iter_mut().find(|s| s.join == join));
        let Some(subscriber) = subscriber else { return false };
        let held = subscriber.held.take().unwrap_or_default().into_iter();
        let held = held.filter(|(seq, _)| *seq > since).map(|(_, frame)| frame);
        subscriber.outbound.push_replay(replay.into_iter().chain(held));
        if subscriber.deltas {
            subscriber.outbound.push_replay(snapshots);
        }
        true
    }

    /// Ends a joining that came to nothing.
    pub(super) fn give_up(&mut self, join: u64) {
        self.retain(|subscriber| subscriber.join != join);
    }

    /// Sends a committed event to its room; answers its frame where somebody hears it.
    pub(super) fn publish(&mut self, event: &StoredEvent) -> Option<Bytes> {
        self.end_of_part(event);
        if !self.subscribers.contains_key(&event.room) {
            return None;
        }
        let frame = durable_frame(&self.project_id, event)?;
        self.send_durable(&event.room, &frame, event.seq);
        Some(frame)
    }

    /// Takes a piece of streaming text. Says whether it was the first of its part, which goes out at
    /// once; later ones wait for [`Rooms::flush`].
    pub(super) fn stream(&mut self, piece: Piece) -> bool {
        let known = self.live.get(&piece.part_id).map_or(0, |part| part.text.len() as u64);
        if known != piece.offset {
            // The rest of a part whose beginning went down with an earlier life of the registry.
            return true;
        }
        let part = self.live.entry(piece.part_id.clone()).or_insert_with(|| LivePart {
            session_id: piece.session_id,
            message_id: piece.message_id,
            kind: piece.kind,
            text: String::new(),
            sent: 0,
        });
        let is_first = part.text.is_empty();
        part.text.push_str(&piece.text);
        if is_first {
            self.flush_part(&piece.part_id);
        }
        is_first
    }

    /// Sends what came since the last flush, one frame a part.
    pub(super) fn flush(&mut self) {
        for part_id in self.live.keys().cloned().collect::<Vec<_>>() {
            self.flush_part(&part_id);
        }
    }

    /// Forgets the parts of a message, which ended without completing them.
    pub(super) fn drop_parts(&mut self, message_id: &MessageId) {
        let gone = self.live.iter().filter(|(_, part)| part.message_id == *message_id);
        for part_id in gone.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            let Some(part) = self.live.remove(&part_id) else { continue };
            let room = Room::Session(part.session_id.clone());
            let LivePart { session_id, message_id, .. } = part;
            let event = Event::MessagePartRemoved { session_id, message_id, part_id };
            if let Some(frame) = self.ephemeral(&room, &event) {
                self.send(&room, |s| !s.deltas || s.outbound.push(frame.clone()));
            }
        }
    }

    /// Sends what came of a part since the last flush, if anything did.
    fn flush_part(&mut self, part_id: &PartId) {
        let part = self.live.get_mut(part_id);
        let Some(part) = part.filter(|part| part.sent < part.text.len()) else { return };
        let room = Room::Session(part.session_id.clone());
        let offset = part.sent as u64;
        let delta = part.text.get(part.sent..).unwrap_or_default().to_owned();
        part.sent = part.text.len();
        let (session_id, message_id) = (part.session_id.clone(), part.message_id.clone());
        let (part_id, r#gen) = (part_id.clone(), GENERATION);
        let sent = part_id.clone();
        let event = match part.kind {
            StreamKind::Text => {
                Event::MessageTextDelta { session_id, message_id, part_id, r#gen, offset, delta }
            }
            StreamKind::Reasoning => Event::MessageReasoningDelta {
                session_id,
                message_id,
                part_id,
                r#gen,
                offset,
                delta,
            },
        };
        if self.subscribers.contains_key(&room)
            && let Some(frame) = self.ephemeral(&room, &event)
        {
            self.send(&room, |s| !s.deltas || s.outbound.push_delta(&sent, frame.clone()));
        }
    }

    /// A durable event that completes a part ends its stream; what was not sent goes out before it,
    /// so that the pieces are the whole text. Of a text that was interrupted the pieces may be more than
    /// what is left.
    fn end_of_part(&mut self, event: &StoredEvent) {
        if matches!(event.name.as_str(), "message.text.complete" | "message.reasoning.complete") {
            #[derive(serde::Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Completed {
                part_id: PartId,
                #[serde(default)]
                interrupted: bool,
            }
            if let Ok(Completed { part_id, interrupted }) = serde_json::from_str(&event.payload) {
                if !interrupted {
                    self.flush_part(&part_id);
                }
                self.live.remove(&part_id);
            }
        }
    }

    fn snapshots(&self, room: &Room) -> Vec<Bytes> {
        let Room::Session(session_id) = room else { return Vec::new() };
        let parts = self.live.iter().filter(|(_, part)| part.session_id == *session_id);
        let frames = parts.filter_map(|(part_id, part)| self.snapshot(room, part_id, part));
        frames.collect()
    }

    fn snapshot(&self, room: &Room, part_id: &PartId, part: &LivePart) -> Option<Bytes> {
        let text = part.text.get(..part.sent).unwrap_or_default().to_owned();
        let event = Event::MessagePartSnapshot {
            session_id: part.session_id.clone(),
            message_id: part.message_id.clone(),
            part_id: part_id.clone(),
            kind: part.kind,
            r#gen: GENERATION,
            length: text.len() as u64,
            text,
        };
        self.ephemeral(room, &event)
    }

    /// Sends a snapshot of a part to a connection that hears its room; says whether it did.
    pub(super) fn send_snapshot(&self, connection_id: &ConnectionId, part_id: &PartId) -> bool {
        let Some(part) = self.live.get(part_id) else { return false };
        let room = Room::Session(part.session_id.clone());
        let subscribers = self.subscribers.get(&room);
        let mut heard = subscribers.into_iter().flatten().filter(|s| s.held.is_none() && s.deltas);
        let subscriber = heard.find(|subscriber| subscriber.connection_id == *connection_id);
        let frame = subscriber.and_then(|s| Some((s, self.snapshot(&room, part_id, part)?)));
        frame.is_some_and(|(s, frame)| s.outbound.push_snapshot(part_id.clone(), frame))
    }

    /// Offers something ephemeral to those in a room who get what is said as it is said; a subscriber
    /// that is held gets a snapshot in place of it. A reader whose queue ended is let go.
    fn send(&mut self, room: &Room, offer: impl Fn(&Subscriber) -> bool) {
        self.keep(room, |subscriber| subscriber.held.is_some() || offer(subscriber));
    }

    /// Sends a durable frame to a room. A subscriber that is held gets it when its hold ends.
    fn send_durable(&mut self, room: &Room, frame: &Bytes, seq: u64) {
        self.keep(room, |subscriber| match &mut subscriber.held {
            None => subscriber.outbound.push(frame.clone()),
            Some(held) if held.len() < OUTBOUND_FRAMES_MAX => {
                held.push((seq, frame.clone()));
                true
            }
            Some(_) => {
                subscriber.outbound.close(CloseReason::new(4008, "slow replay"));
                false
            }
        });
    }

    /// Keeps those in a room for whom this says so.
    fn keep(&mut self, room: &Room, keep: impl FnMut(&mut Subscriber) -> bool) {
        let Some(subscribers) = self.subscribers.get_mut(room) else { return };
        subscribers.retain_mut(keep);
        if subscribers.is_empty() {
            self.subscribers.remove(room);
        }
    }

    fn ephemeral(&self, room: &Room, event: &Event) -> Option<Bytes> {
        #[derive(serde::Serialize)]
        struct Frame<'a> {
            #[serde(flatten)]
            meta: EventMeta,
            #[serde(flatten)]
            event: &'a Event,
        }
        let meta = EventMeta {
            project_id: Some(self.project_id.clone()),
            room: room.clone(),
            seq: None,
            prev: None,
            at: None,
            by: None,
        };
        encoded(serde_json::to_string(&Frame { meta, event }))
    }
}

/// The frame of a committed event.
pub(super) fn durable_frame(project_id: &ProjectId, event: &StoredEvent) -> Option<Bytes> {
    let meta = EventMeta {
        project_id: Some(project_id.clone()),
        room: event.room.clone(),
        seq: Some(event.seq),
        prev: Some(event.prev),
        at: Some(event.at),
        by: event.by.clone(),
    };
    encoded(meta.encode(&event.name, &event.payload))
}

fn encoded(json: serde_json::Result<String>) -> Option<Bytes> {
    json.inspect_err(|error| tracing::error!(%error, "an event could not be encoded"))
        .ok()
        .map(Bytes::from)
}
