//! Who hears what: the rooms of one project, their subscribers and the parts that stream in them.
//!
//! Live parts stand beside the subscribers so that joining a room and hearing what streams in it is
//! one step of the registry (docs/decisions/0003): a client that joins gets a snapshot of each part
//! and then exactly the pieces that follow it.

mod audience;
mod live;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use iris_protocol::{
    ConnectionId, ErrorCode, Event, EventMeta, MessageId, PartId, ProjectId, Room, SnapshotKind,
};
use iris_store::StoredEvent;
use serde_json::{Value, json};

use super::Stream;
use crate::Metrics;
use crate::connection::{
    About, BACK_AFTER_FAILURE, CloseReason, OutFrame, Outbound, Wakers, Wants,
};

use audience::Audience;
pub(super) use audience::{Subscriber, Who};
use live::{Live, LivePart};

/// The number of times that a part started over; retries will raise it.
const GENERATION: u32 = 1;

/// All rooms of one project.
#[derive(Debug)]
pub(super) struct Rooms {
    project_id: ProjectId,
    /// No room is empty.
    audiences: HashMap<Room, Audience>,
    live: Live,
    metrics: Arc<Metrics>,
}

impl Rooms {
    pub(super) fn new(project_id: ProjectId, metrics: &Arc<Metrics>) -> Self {
        let metrics = Arc::clone(metrics);
        Self { project_id, audiences: HashMap::new(), live: Live::default(), metrics }
    }

    /// Forgets subscribers whose connections have ended; says whether anybody is left.
    pub(super) fn is_heard(&mut self) -> bool {
        self.retain(|subscriber| !subscriber.outbound.is_closed());
        !self.audiences.is_empty()
    }

    /// How much is held in memory, for operators.
    pub(super) fn counts(&self) -> Value {
        let (parts, bytes) = self.live.counts();
        json!({
            "joined": self.audiences.len(),
            "subscribers": self.audiences.values().map(|all| all.all().len()).sum::<usize>(),
            "streamingParts": parts,
            "streamingBytes": bytes,
        })
    }

    /// Whether anybody is in a room.
    pub(super) fn is_joined(&self, room: &Room) -> bool {
        self.audiences.contains_key(room)
    }

    /// Whether a connection is in a room and gets what is said there as it is said.
    pub(super) fn hears(&self, room: &Room, connection_id: &ConnectionId) -> bool {
        self.subscriber(room, connection_id).is_some_and(|subscriber| subscriber.held.is_none())
    }

    fn subscriber(&self, room: &Room, connection_id: &ConnectionId) -> Option<&Subscriber> {
        self.audiences.get(room)?.all().get(connection_id)
    }

    /// Adds a subscriber; one of the same connection is replaced.
    pub(super) fn join(&mut self, room: Room, subscriber: Subscriber) {
        let audience = self.audiences.entry(room);
        audience.or_insert_with(|| Audience::new(&self.metrics)).insert(subscriber);
    }

    pub(super) fn leave(&mut self, room: &Room, connection_id: &ConnectionId) {
        if let Some(audience) = self.audiences.get_mut(room)
            && !audience.remove(connection_id)
        {
            self.audiences.remove(room);
        }
    }

    pub(super) fn leave_all(&mut self, connection_id: &ConnectionId) {
        self.audiences.retain(|_, audience| audience.remove(connection_id));
    }

    /// Whether a connection is in any room. Looks at all subscribers of the project.
    pub(super) fn is_joined_by(&self, connection_id: &ConnectionId) -> bool {
        self.audiences.values().any(|all| all.all().contains_key(connection_id))
    }

    /// Sends an ephemeral event to those in a room who want it.
    pub(super) fn tell(&mut self, room: &Room, event: &Event, wants: Wants) {
        if let Some(frame) = self.telling(room, event) {
            self.send(room, &frame, wants, &mut Wakers::default());
        }
    }

    /// Sends an ephemeral event to one connection in a room.
    pub(super) fn tell_one(&self, room: &Room, event: &Event, connection_id: &ConnectionId) {
        let subscriber = self.subscriber(room, connection_id);
        if let Some(subscriber) = subscriber.filter(|subscriber| subscriber.held.is_none())
            && let Some(frame) = self.telling(room, event)
        {
            subscriber.outbound.offer(&frame);
        }
    }

    /// The frame of an ephemeral event, where somebody hears it.
    fn telling(&self, room: &Room, event: &Event) -> Option<Arc<OutFrame>> {
        if !self.is_joined(room) {
            return None;
        }
        let frame = self.ephemeral(room, event)?;
        Some(Arc::new(match self.about(event) {
            Some(about) => OutFrame::Latest(about, frame),
            None => OutFrame::Text(frame),
        }))
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
            Event::MessageToolProgress { tool_call_id, .. } => {
                Some(About::Tool(tool_call_id.clone()))
            }
            _ => None,
        }
    }

    /// Ends every connection that hears anything: it comes back with the position it has.
    pub(super) fn close_all(&mut self) {
        for subscriber in self.audiences.values().flat_map(|all| all.all().values()) {
            subscriber.outbound.close(CloseReason::back_after(1011, BACK_AFTER_FAILURE));
        }
        self.audiences.clear();
        self.live = Live::default();
    }

    fn retain(&mut self, keep: impl Fn(&Subscriber) -> bool) {
        self.audiences.retain(|_, audience| audience.retain(&keep));
    }

    /// Takes these subscribers out of every room and tells them why. What waits for them of this project
    /// is dropped.
    pub(super) fn evict(&mut self, code: ErrorCode, is_out: impl Fn(&Subscriber) -> bool) {
        let mut told: HashMap<*const Outbound, (Arc<Outbound>, Vec<Bytes>)> = HashMap::new();
        for (room, audience) in &self.audiences {
            let event = Event::RoomLeft { room: room.to_string(), code };
            let Some(frame) = self.ephemeral(room, &event) else { continue };
            for Subscriber { outbound, .. } in audience.all().values().filter(|s| is_out(s)) {
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
        (connection_id, join): (&ConnectionId, u64),
        since: u64,
        replay: Vec<Bytes>,
    ) -> bool {
        let wants_deltas = self.subscriber(room, connection_id).is_some_and(|s| s.deltas);
        let snapshots = if wants_deltas { self.snapshots(room) } else { Vec::new() };
        let audience = self.audiences.get_mut(room);
        let subscriber = audience.and_then(|all| all.change().get_mut(connection_id));
        let subscriber = subscriber.filter(|subscriber| subscriber.join == join);
        let Some(subscriber) = subscriber else { return false };
        let held = subscriber.held.take().unwrap_or_default().0.into_iter();
        let held = held.filter(|(seq, _)| *seq > since).map(|(_, frame)| frame);
        subscriber.outbound.push_replay(replay.into_iter().chain(held).chain(snapshots));
        true
    }

    /// Ends a joining that came to nothing.
    pub(super) fn give_up(&mut self, join: u64) {
        self.retain(|subscriber| subscriber.join != join);
    }

    /// Sends a committed event to its room; answers its frame where somebody hears it.
    pub(super) fn publish(&mut self, event: &StoredEvent, wakers: &mut Wakers) -> Option<Bytes> {
        self.end_of_part(event);
        let audience = self.audiences.get_mut(&event.room)?;
        let frame = durable_frame(&self.project_id, event)?;
        let text = Arc::new(OutFrame::Text(frame.clone()));
        audience.say(&text, Wants::Everything, Some(event.seq), wakers);
        self.let_go(&event.room);
        Some(frame)
    }

    /// Sends a piece of streaming text, and keeps it for those who join later.
    pub(super) fn stream(&mut self, piece: Stream) {
        let Some(sent) = self.live.take(&piece) else { return };
        let room = Room::Session(piece.session_id.clone());
        if !self.is_joined(&room) {
            return;
        }
        let Stream { session_id, message_id, part_id, kind, tool_name, offset, text: delta } =
            piece;
        let r#gen = GENERATION;
        let event = match kind {
            SnapshotKind::Text => {
                Event::MessageTextDelta { session_id, message_id, part_id, r#gen, offset, delta }
            }
            SnapshotKind::Reasoning => Event::MessageReasoningDelta {
                session_id,
                message_id,
                part_id,
                r#gen,
                offset,
                delta,
            },
            SnapshotKind::ToolInput => Event::MessageToolInputDelta {
                session_id,
                message_id,
                part_id,
                tool_name: tool_name.unwrap_or_default(),
                r#gen,
                offset,
                delta,
            },
        };
        if let Some(frame) = self.ephemeral(&room, &event) {
            let frame = Arc::new(OutFrame::Delta(sent, frame));
            self.send(&room, &frame, Wants::Deltas, &mut Wakers::default());
        }
    }

    /// Forgets the parts of a message, which ended without completing them.
    pub(super) fn drop_parts(&mut self, message_id: &MessageId) {
        for LivePart { id, session_id, message_id, .. } in self.live.remove_of(message_id) {
            let room = Room::Session(session_id.clone());
            let part_id = Arc::unwrap_or_clone(id);
            let event = Event::MessagePartRemoved { session_id, message_id, part_id };
            if let Some(frame) = self.ephemeral(&room, &event) {
                let frame = Arc::new(OutFrame::Text(frame));
                self.send(&room, &frame, Wants::Deltas, &mut Wakers::default());
            }
        }
    }

    /// A durable event that completes a part ends its stream. Of a text that was interrupted the pieces may
    /// be more than what is left.
    fn end_of_part(&mut self, event: &StoredEvent) {
        if matches!(
            event.name.as_str(),
            "message.text.complete" | "message.reasoning.complete" | "message.tool.call"
        ) {
            #[derive(serde::Deserialize)]
            #[serde(rename_all = "camelCase")]
            struct Completed {
                part_id: PartId,
            }
            if let Ok(Completed { part_id }) = serde_json::from_str(&event.payload) {
                self.live.remove(&part_id);
            }
        }
    }

    fn snapshots(&mut self, room: &Room) -> Vec<Bytes> {
        let Room::Session(session_id) = room else { return Vec::new() };
        let parts = self.live.of_session(session_id);
        parts.iter().filter_map(|part_id| self.snapshot(part_id)).collect()
    }

    /// All of a part that was sent, as one frame.
    fn snapshot(&mut self, part_id: &PartId) -> Option<Bytes> {
        let part = self.live.get(part_id)?;
        if let Some(frame) = &part.snapshot {
            return Some(frame.clone());
        }
        let event = Event::MessagePartSnapshot {
            session_id: part.session_id.clone(),
            message_id: part.message_id.clone(),
            part_id: part_id.clone(),
            kind: part.kind,
            tool_name: part.tool_name.clone(),
            r#gen: GENERATION,
            length: part.length,
            text: String::new(),
        };
        let frame = self.ephemeral(&Room::Session(part.session_id.clone()), &event)?;
        let frame = Bytes::from(part.fill(str::from_utf8(&frame).ok()?)?);
        self.live.get_mut(part_id)?.snapshot = Some(frame.clone());
        Some(frame)
    }

    /// Sends a snapshot of a part to a connection that hears its room; says whether it did.
    pub(super) fn send_snapshot(&mut self, connection_id: &ConnectionId, part_id: &PartId) -> bool {
        let Some(part) = self.live.get(part_id) else { return false };
        let room = Room::Session(part.session_id.clone());
        let subscriber = self.subscriber(&room, connection_id);
        let Some(subscriber) = subscriber.filter(|s| s.held.is_none() && s.deltas) else {
            return false;
        };
        let outbound = Arc::clone(&subscriber.outbound);
        let frame = self.snapshot(part_id);
        frame.is_some_and(|frame| {
            outbound.offer(&Arc::new(OutFrame::Snapshot(part_id.clone(), frame)))
        })
    }

    /// Sends something ephemeral to those in a room who get what is said as it is said; a subscriber that
    /// is held gets a snapshot in place of it.
    fn send(&mut self, room: &Room, frame: &Arc<OutFrame>, wants: Wants, wakers: &mut Wakers) {
        if let Some(audience) = self.audiences.get_mut(room) {
            audience.say(frame, wants, None, wakers);
            self.let_go(room);
        }
    }

    /// Forgets a room if nobody is left in it.
    fn let_go(&mut self, room: &Room) {
        if self.audiences.get(room).is_some_and(|audience| audience.all().is_empty()) {
            self.audiences.remove(room);
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
