//! The last events of a project, in memory: whoever comes back soon is brought up to date without a
//! read of the database.
//!
//! What is held is always the end of the log without a gap, so a position is either in it or not.

use std::collections::VecDeque;

use bytes::Bytes;
use iris_protocol::{ProjectId, Room};
use iris_store::StoredEvent;
use serde_json::{Value, json};

use super::rooms::durable_frame;

/// Most events that are held.
const EVENTS_MAX: usize = 1024;
/// Most bytes that are held.
const BYTES_MAX: usize = 256 * 1024;
/// Counted for each event beside its text.
const EVENT_BYTES: usize = 256;

/// The end of a project's log.
#[derive(Debug)]
pub(super) struct Ring {
    project_id: ProjectId,
    /// In the order of `seq`, without gaps.
    recent: VecDeque<Recent>,
    bytes: usize,
    /// The number of the last event before the ones that are held.
    floor: u64,
}

#[derive(Debug)]
struct Recent {
    /// Its payload is gone once there is a frame.
    event: StoredEvent,
    payload_bytes: usize,
    frame: Option<Bytes>,
}

impl Recent {
    fn bytes(&self) -> usize {
        self.frame.as_ref().map_or(self.event.payload.len(), Bytes::len) + EVENT_BYTES
    }
}

/// What a room missed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// All of it, in order.
    Frames(Vec<Bytes>),
    /// More than the caller takes.
    TooMuch,
}

impl Ring {
    /// An empty one, at the end of a log.
    pub(super) fn new(project_id: ProjectId, head: u64) -> Self {
        Self { project_id, recent: VecDeque::new(), bytes: 0, floor: head }
    }

    /// How much is held in memory, for operators.
    pub(super) fn counts(&self) -> Value {
        json!({ "events": self.recent.len(), "bytes": self.bytes })
    }

    fn head(&self) -> u64 {
        self.recent.back().map_or(self.floor, |last| last.event.seq)
    }

    /// Takes the event that comes next, and its frame where somebody heard it.
    pub(super) fn push(&mut self, mut event: StoredEvent, frame: Option<Bytes>) {
        if event.seq != self.head() + 1 {
            self.forget(event.seq.saturating_sub(1));
        }
        let payload_bytes = event.payload.len();
        if frame.is_some() {
            event.payload = String::new();
        }
        let recent = Recent { event, payload_bytes, frame };
        self.bytes += recent.bytes();
        self.recent.push_back(recent);
        while self.recent.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.recent.pop_front() else { return };
            self.bytes -= oldest.bytes();
            self.floor = oldest.event.seq;
        }
    }

    /// Lets everything go; whoever has the last event still has all of them.
    pub(super) fn clear(&mut self) {
        self.forget(self.head());
    }

    fn forget(&mut self, floor: u64) {
        self.recent = VecDeque::new();
        (self.bytes, self.floor) = (0, floor);
    }

    /// The number of a room's last event, if that is held.
    pub(super) fn last_of(&self, room: &Room) -> Option<u64> {
        let mut newest = self.recent.iter().rev();
        newest.find(|recent| recent.event.room == *room).map(|recent| recent.event.seq)
    }

    /// The frames of a room's events after `since`, when all of them are held; none when some may
    /// not be, or when nothing is known of that position.
    pub(super) fn missed(
        &mut self,
        room: &Room,
        since: u64,
        events_max: usize,
        bytes_max: usize,
    ) -> Option<Missed> {
        if since < self.floor || since > self.head() {
            return None;
        }
        let (mut frames, mut bytes) = (Vec::new(), 0);
        let first = self.recent.partition_point(|recent| recent.event.seq <= since);
        for recent in self.recent.iter_mut().skip(first) {
            if recent.event.room != *room {
                continue;
            }
            bytes += recent.payload_bytes;
            if frames.len() == events_max || bytes > bytes_max {
                return Some(Missed::TooMuch);
            }
            if let Some(frame) = &recent.frame {
                frames.push(frame.clone());
                continue;
            }
            let frame = durable_frame(&self.project_id, &recent.event)?;
            self.bytes -= recent.bytes();
            recent.event.payload = String::new();
            recent.frame = Some(frame.clone());
            self.bytes += recent.bytes();
            frames.push(frame);
        }
        Some(Missed::Frames(frames))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use iris_protocol::{Event, SessionId, SessionMode, SessionStatus, UserId};
    use iris_store::project::{CreateSession, PublishOutbox, Quotas, Replay, SetSessionStatus};
    use iris_store::root::OutboxEntry;
    use iris_store::{Command, ProjectDatabase, WriteContext};
    use proptest::prelude::*;

    use super::*;

    fn id() -> ProjectId {
        ProjectId::from_bits(1)
    }

    fn event(seq: u64, bytes: usize) -> StoredEvent {
        StoredEvent {
            seq,
            prev: seq - 1,
            room: Room::Project(id()),
            at: 0,
            by: None,
            name: "member.removed".to_owned(),
            payload: format!("\"{}\"", "x".repeat(bytes)),
        }
    }

    fn held(ring: &mut Ring, since: u64) -> Option<usize> {
        match ring.missed(&Room::Project(id()), since, usize::MAX, usize::MAX)? {
            Missed::Frames(frames) => Some(frames.len()),
            Missed::TooMuch => unreachable!("there is no limit"),
        }
    }

    #[test]
    fn a_ring_is_bounded_by_its_events_and_by_their_bytes() {
        let mut ring = Ring::new(id(), 5);
        for seq in 6..=5 + 2 * EVENTS_MAX as u64 {
            ring.push(event(seq, 0), None);
            assert!(ring.recent.len() <= EVENTS_MAX && ring.bytes <= BYTES_MAX);
        }
        assert_eq!(held(&mut ring, 5 + EVENTS_MAX as u64 - 1), None);
        let counted: usize = ring.recent.iter().map(Recent::bytes).sum();
        assert_eq!(ring.bytes, counted);

        let next = ring.head() + 1;
        ring.push(event(next, BYTES_MAX), None);
        assert_eq!((held(&mut ring, next - 1), held(&mut ring, next)), (None, Some(0)));
    }

    #[test]
    fn an_event_after_a_gap_leaves_nothing_from_before_it() {
        let mut ring = Ring::new(id(), 0);
        ring.push(event(1, 0), None);
        ring.push(event(4, 0), None);
        assert_eq!((held(&mut ring, 1), held(&mut ring, 3)), (None, Some(1)));
    }

    #[test]
    fn a_ring_that_was_cleared_still_knows_who_is_up_to_date() {
        let mut ring = Ring::new(id(), 0);
        ring.push(event(1, 0), None);
        assert_eq!(held(&mut ring, 0), Some(1));
        ring.clear();
        assert_eq!((held(&mut ring, 0), held(&mut ring, 1)), (None, Some(0)));
        assert_eq!((ring.bytes, ring.recent.capacity()), (0, 0));
    }

    #[test]
    fn a_position_of_the_future_is_not_known() {
        assert_eq!(held(&mut Ring::new(id(), 3), 4), None);
    }

    /// Which event is published next.
    #[derive(Debug, Clone)]
    enum Act {
        InProject(usize),
        InSession(u128),
        Clear,
        Ask { room: u128, since: u64, events_max: usize, bytes_max: usize },
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let limits = (0_usize..40, prop_oneof![Just(usize::MAX), 0_usize..20_000]);
        let act = prop_oneof![
            4 => (1_usize..2_000).prop_map(Act::InProject),
            4 => (1_u128..4).prop_map(Act::InSession),
            1 => Just(Act::Clear),
            6 => (0_u128..4, 0_u64..80, limits).prop_map(|(room, since, (events_max, bytes_max))| {
                Act::Ask { room, since, events_max, bytes_max }
            }),
        ];
        proptest::collection::vec(act, 1..80)
    }

    /// A database and a ring that is told what is committed.
    struct Pair {
        database: ProjectDatabase,
        committed: Arc<Mutex<Vec<StoredEvent>>>,
        ring: Ring,
    }

    impl Pair {
        async fn commit<C: Command>(&mut self, command: C) {
            let receipt = self.database.writer().submit(command, WriteContext::default());
            drop(receipt.await.unwrap());
            for event in self.committed.lock().unwrap().drain(..) {
                // Every other event was heard by somebody.
                let frame = durable_frame(&id(), &event).filter(|_| event.seq % 2 == 0);
                self.ring.push(event, frame);
            }
        }

        /// The same question to both: the ring knows nothing, or the same.
        async fn compare(&mut self, room: Room, since: u64, events_max: usize, bytes_max: usize) {
            let head = self.ring.head();
            let Some(missed) = self.ring.missed(&room, since, events_max, bytes_max) else {
                assert!(since < self.ring.floor || since > head);
                return;
            };
            let reader = self.database.reader();
            let replay = reader.events(room, since, head, events_max, bytes_max).await.unwrap();
            let stored = match replay {
                Replay::Events(events) => Missed::Frames(
                    events.iter().map(|event| durable_frame(&id(), event).unwrap()).collect(),
                ),
                Replay::TooMuch => Missed::TooMuch,
                Replay::Dropped => unreachable!("nothing was dropped"),
            };
            assert_eq!(missed, stored);
        }

        async fn perform(&mut self, act: Act) {
            let by = UserId::from_bits(1);
            match act {
                Act::InProject(bytes) => {
                    let name = "x".repeat(bytes);
                    let event = Event::AgentUpdated { name, agent: None };
                    // Every entry is a new one.
                    let id = self.database.committed_head() + 1;
                    let entries = vec![OutboxEntry { id, event, by, at: 0 }];
                    self.commit(PublishOutbox { entries }).await;
                }
                Act::InSession(n) => {
                    let id = SessionId::from_bits(n);
                    let known = self.database.reader().session(id.clone()).await.unwrap();
                    let Some(session) = known else {
                        let command = CreateSession {
                            id,
                            title: Some("talk".to_owned()),
                            agent: "default".to_owned(),
                            model: None,
                            mode: SessionMode::Default,
                            created_by: by,
                            quotas: Quotas::default(),
                            at: 0,
                        };
                        return self.commit(command).await;
                    };
                    let status = match session.status {
                        SessionStatus::Active => SessionStatus::Archived,
                        SessionStatus::Archived | SessionStatus::Deleted => SessionStatus::Active,
                    };
                    self.commit(SetSessionStatus { id, status, by, at: 0 }).await;
                }
                Act::Clear => self.ring.clear(),
                Act::Ask { room, since, events_max, bytes_max } => {
                    let room = match room {
                        0 => Room::Project(id()),
                        n => Room::Session(SessionId::from_bits(n)),
                    };
                    self.compare(room, since, events_max, bytes_max).await;
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn a_ring_answers_as_the_database_does(acts in acts()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("project.db");
                ProjectDatabase::create(&path, &id(), "epoch", 0).unwrap();
                let committed = Arc::<Mutex<Vec<StoredEvent>>>::default();
                let told = Arc::clone(&committed);
                let database = ProjectDatabase::open(&path, &id(), move |events| {
                    told.lock().unwrap().extend(events);
                })
                .unwrap();
                let mut pair = Pair { database, committed, ring: Ring::new(id(), 0) };
                for act in acts {
                    pair.perform(act).await;
                }
                for room in 0..4 {
                    for since in 0..=pair.ring.head() {
                        let (events_max, bytes_max) = (100_000, usize::MAX);
                        pair.perform(Act::Ask { room, since, events_max, bytes_max }).await;
                    }
                }
            });
        }
    }
}
