//! The supervision log: what became of every actor, one structured record each, to `tracing`, to a
//! bounded memory, to live subscribers, and what is abnormal to the root database.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use iris_agent::Clock;
use iris_protocol::{
    Event, EventFrame, EventMeta, ExitKind, Room, SupervisionKind, SupervisionRecord,
};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::panics::PanicReport;
use super::path::is_under;
use super::running::short_name;
use super::watchdog::Culprit;
use super::work::InProgress;
use super::{ExitReason, Vitals};

/// Records of each of the two classes, normal and abnormal, that stay in memory.
const RECORDS_IN_MEMORY_MAX: usize = 1024;
/// Abnormal records that may wait for the root database; more are dropped and counted.
const RECORDS_WAITING_MAX: usize = 1024;
/// Normal records that live subscribers get in a second; a storm of connections is not interesting.
const LIVE_NORMAL_PER_SECOND_MAX: u32 = 200;
/// Ids of records begin at the time of the start times this, so that they rise across restarts.
const IDS_PER_MILLISECOND: u64 = 1000;

/// Takes a frame for a live subscriber; answers whether there will be more use for it.
type Subscriber = Box<dyn Fn(&Bytes) -> bool + Send>;

/// The log of one server.
pub struct SupervisionLog {
    clock: Arc<dyn Clock>,
    next_id: AtomicU64,
    memory: Mutex<Memory>,
    live: Mutex<Live>,
    waiting: Mutex<VecDeque<SupervisionRecord>>,
    /// Told when something waits.
    has_waiting: Notify,
    dropped: AtomicU64,
    /// Records since the start, by what they tell and the kind of actor.
    counts: Mutex<BTreeMap<SupervisionKind, BTreeMap<String, u64>>>,
}

#[derive(Default)]
struct Memory {
    normal: VecDeque<SupervisionRecord>,
    abnormal: VecDeque<SupervisionRecord>,
}

struct Live {
    subscribers: Vec<Subscriber>,
    /// When the current second began, and the normal records sent in it.
    second: (Instant, u32),
}

/// Which records somebody wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordFilter {
    /// Only those after this id.
    pub since: Option<u64>,
    /// Only those of this kind.
    pub kind: Option<SupervisionKind>,
    /// Only those of this actor and of actors under it.
    pub path: Option<String>,
}

impl RecordFilter {
    fn takes(&self, record: &SupervisionRecord) -> bool {
        self.since.is_none_or(|since| record.id > since)
            && self.kind.is_none_or(|kind| record.kind == kind)
            && self.path.as_ref().is_none_or(|path| is_under(&record.path, path))
    }
}

impl SupervisionLog {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let now_ms = u64::try_from(clock.now_ms()).unwrap_or_default();
        let second = (Instant::now(), 0);
        Self {
            clock,
            next_id: AtomicU64::new(now_ms.saturating_mul(IDS_PER_MILLISECOND)),
            memory: Mutex::default(),
            live: Mutex::new(Live { subscribers: Vec::new(), second }),
            waiting: Mutex::default(),
            has_waiting: Notify::new(),
            dropped: AtomicU64::new(0),
            counts: Mutex::default(),
        }
    }

    /// The records in memory that the filter takes, oldest first.
    pub fn records(&self, filter: &RecordFilter) -> Vec<SupervisionRecord> {
        let memory = self.memory.lock();
        let taken = memory.normal.iter().chain(&memory.abnormal).filter(|r| filter.takes(r));
        let mut records: Vec<SupervisionRecord> = taken.cloned().collect();
        records.sort_unstable_by_key(|record| record.id);
        records
    }

    /// Sends each further record to `subscriber`, as a frame of the room `admin`, until it answers
    /// false.
    pub fn subscribe(&self, subscriber: impl Fn(&Bytes) -> bool + Send + 'static) {
        self.live.lock().subscribers.push(Box::new(subscriber));
    }

    /// Abnormal records that could not be stored since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Records since the start, by what they tell and the kind of actor.
    pub(crate) fn counted(&self) -> Vec<(SupervisionKind, String, u64)> {
        let counts = self.counts.lock();
        let all = counts.iter().flat_map(|(record, kinds)| {
            kinds.iter().map(|(kind, count)| (*record, kind.clone(), *count))
        });
        all.collect()
    }

    fn count(&self, record: &SupervisionRecord) {
        let mut counts = self.counts.lock();
        let kinds = counts.entry(record.kind).or_default();
        match kinds.get_mut(&record.actor_kind) {
            Some(count) => *count += 1,
            None => drop(kinds.insert(record.actor_kind.clone(), 1)),
        }
    }

    /// Waits until abnormal records wait to be stored.
    pub(crate) async fn something_waits(&self) {
        while self.waiting.lock().is_empty() {
            self.has_waiting.notified().await;
        }
    }

    /// Takes at most `count_max` abnormal records that are to be stored.
    pub(crate) fn take_waiting(&self, count_max: usize) -> Vec<SupervisionRecord> {
        let mut waiting = self.waiting.lock();
        let count = waiting.len().min(count_max);
        waiting.drain(..count).collect()
    }

    /// Counts records that could not be stored.
    pub(crate) fn lost(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

// What can be said of an actor.
impl SupervisionLog {
    pub(super) fn started(&self, vitals: &Vitals) {
        self.say(self.record(vitals, SupervisionKind::Started));
    }

    pub(super) fn stopped(&self, vitals: &Vitals, reason: &ExitReason) {
        let kind = match reason {
            ExitReason::RestartIntensity(_) => SupervisionKind::GaveUp,
            ExitReason::Normal if vitals.is_passivated() => SupervisionKind::Passivated,
            ExitReason::Normal
            | ExitReason::Panic(_)
            | ExitReason::Error(_)
            | ExitReason::Killed(_)
            | ExitReason::Parent => SupervisionKind::Stopped,
        };
        let (reason, error) = (Some(reason.kind()), reason.error().map(str::to_owned));
        self.say(SupervisionRecord { reason, error, ..self.record(vitals, kind) });
    }

    pub(super) fn panicked(&self, vitals: &Vitals, report: &PanicReport) {
        self.say(SupervisionRecord {
            error: Some(report.text.clone()),
            location: report.location.clone(),
            message: report.message.clone(),
            request_id: report.request.as_deref().map(str::to_owned),
            ..self.record(vitals, SupervisionKind::Panicked)
        });
    }

    pub(super) fn restarted(&self, vitals: &Vitals, reason: &ExitReason) {
        self.say(SupervisionRecord {
            reason: Some(reason.kind()),
            error: reason.error().map(str::to_owned),
            counts: counts([("restarts", vitals.generation().into())]),
            ..self.record(vitals, SupervisionKind::Restarted)
        });
    }

    pub(super) fn overloaded(&self, vitals: &Vitals) {
        self.say(SupervisionRecord {
            counts: counts([
                ("depth", vitals.depth().into()),
                ("limit", vitals.mailbox_limit.into()),
                ("refused", vitals.refused()),
            ]),
            ..self.record(vitals, SupervisionKind::Overloaded)
        });
    }

    pub(super) fn stuck(&self, work: &InProgress, age: Duration) {
        self.say(SupervisionRecord {
            message: Some(short_name(work.name)),
            request_id: work.request.as_deref().map(str::to_owned),
            counts: counts([("ageMs", millis(age)), ("budgetMs", millis(work.budget))]),
            ..self.record(&work.vitals, SupervisionKind::Stuck)
        });
    }

    /// An actor has messages waiting and has taken none for a while.
    pub(super) fn stalled(&self, vitals: &Vitals, age: Duration) {
        self.say(SupervisionRecord {
            error: Some("it takes no messages".to_owned()),
            counts: counts([("ageMs", millis(age)), ("depth", vitals.depth().into())]),
            ..self.record(vitals, SupervisionKind::Stuck)
        });
    }

    pub(super) fn blocked(&self, thread: &str, culprit: Option<&Culprit>, age: Duration) {
        self.say(SupervisionRecord {
            error: culprit.map(|culprit| format!("held up by {}", culprit.path)),
            message: culprit.and_then(|culprit| culprit.message).map(short_name),
            request_id: culprit.and_then(|culprit| culprit.request.as_deref().map(str::to_owned)),
            counts: counts([("ageMs", millis(age))]),
            ..self.about(SupervisionKind::Blocked, thread.to_owned(), "arbiter")
        });
    }

    pub(super) fn unblocked(&self, thread: &str, age: Duration) {
        self.say(SupervisionRecord {
            counts: counts([("ageMs", millis(age))]),
            ..self.about(SupervisionKind::Unblocked, thread.to_owned(), "arbiter")
        });
    }

    /// An actor was not started, because what it would own is not usable.
    pub(crate) fn unusable(&self, path: String, actor_kind: &str, error: &str) {
        self.say(SupervisionRecord {
            reason: Some(ExitKind::Error),
            error: Some(error.to_owned()),
            ..self.about(SupervisionKind::Stopped, path, actor_kind)
        });
    }

    /// The disk is full, or has space again.
    pub fn disk(&self, is_full: bool) {
        let (kind, error) = if is_full {
            (SupervisionKind::Blocked, Some("the disk is full".to_owned()))
        } else {
            (SupervisionKind::Unblocked, None)
        };
        self.say(SupervisionRecord { error, ..self.about(kind, "storage".to_owned(), "disk") });
    }

    fn record(&self, vitals: &Vitals, kind: SupervisionKind) -> SupervisionRecord {
        self.about(kind, vitals.path().to_string(), vitals.kind)
    }

    fn about(&self, kind: SupervisionKind, path: String, actor_kind: &str) -> SupervisionRecord {
        SupervisionRecord {
            // Given when it is told.
            id: 0,
            at: self.clock.now_ms(),
            kind,
            path,
            actor_kind: actor_kind.to_owned(),
            reason: None,
            error: None,
            location: None,
            message: None,
            request_id: None,
            counts: BTreeMap::new(),
        }
    }

    /// Tells a record. One lock is held from its id on until it was sent, so that whoever has a record
    /// has, or finds in memory, all that were before it.
    fn say(&self, mut record: SupervisionRecord) {
        self.count(&record);
        let mut live = self.live.lock();
        record.id = self.next_id.fetch_add(1, Ordering::Relaxed);
        if record.is_abnormal() {
            self.store(record.clone());
        }
        self.memory.lock().keep(record.clone());
        if let Some(frame) = live.frame(&record) {
            live.subscribers.retain(|subscriber| subscriber(&frame));
        }
        drop(live);
        trace(&record);
    }

    fn store(&self, record: SupervisionRecord) {
        let mut waiting = self.waiting.lock();
        if waiting.len() == RECORDS_WAITING_MAX {
            drop(waiting);
            return self.lost(1);
        }
        waiting.push_back(record);
        drop(waiting);
        self.has_waiting.notify_one();
    }
}

impl Memory {
    fn keep(&mut self, record: SupervisionRecord) {
        let ring = if record.is_abnormal() { &mut self.abnormal } else { &mut self.normal };
        if ring.len() == RECORDS_IN_MEMORY_MAX {
            ring.pop_front();
        }
        ring.push_back(record);
    }
}

impl Live {
    /// What subscribers get of a record: nothing when there are none, or too many records.
    fn frame(&mut self, record: &SupervisionRecord) -> Option<Bytes> {
        if self.subscribers.is_empty() || !(record.is_abnormal() || self.may_send_normal()) {
            return None;
        }
        let meta = EventMeta {
            project_id: None,
            room: Room::Admin,
            seq: None,
            prev: None,
            at: None,
            by: None,
        };
        let frame = EventFrame { meta, event: Event::supervision(record.clone()) };
        serde_json::to_vec(&frame).ok().map(Bytes::from)
    }

    fn may_send_normal(&mut self) -> bool {
        let (began, sent) = &mut self.second;
        if began.elapsed() >= Duration::from_secs(1) {
            (*began, *sent) = (Instant::now(), 0);
        }
        *sent += 1;
        *sent <= LIVE_NORMAL_PER_SECOND_MAX
    }
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes a record as one log line.
fn trace(record: &SupervisionRecord) {
    macro_rules! line {
        ($level:ident) => {
            tracing::event!(
                target: "iris::supervision",
                tracing::Level::$level,
                actor.path = record.path,
                actor.kind = record.actor_kind,
                supervision.id = record.id,
                reason = record.reason.map(tracing::field::debug),
                error = record.error,
                location = record.location,
                message_name = record.message,
                request.id = record.request_id,
                counts = (!record.counts.is_empty()).then(|| tracing::field::debug(&record.counts)),
                "actor {}", record.kind.as_str()
            )
        };
    }
    match record.kind {
        SupervisionKind::Panicked
        | SupervisionKind::GaveUp
        | SupervisionKind::Stuck
        | SupervisionKind::Blocked => line!(ERROR),
        SupervisionKind::Restarted | SupervisionKind::Overloaded | SupervisionKind::Unblocked => {
            line!(WARN);
        }
        SupervisionKind::Stopped
            if record.reason != Some(ExitKind::Normal) && record.is_abnormal() =>
        {
            line!(WARN);
        }
        SupervisionKind::Started | SupervisionKind::Stopped | SupervisionKind::Passivated => {
            line!(DEBUG);
        }
    }
}

#[cfg(test)]
mod tests;
