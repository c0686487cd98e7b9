//! The frames that wait for one reader: a bounded queue that the registry fills and the response
//! body of the socket drains.
//!
//! Publishers never wait: when the reader is too slow the queue is given up and the connection
//! closed with 4008 (docs/protocol.md, "Slow readers").

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use iris_protocol::limits::{
    OUTBOUND_BYTES_MAX, OUTBOUND_BYTES_SOFT_MAX, OUTBOUND_FRAMES_MAX, OUTBOUND_FRAMES_SOFT_MAX,
    REPLAY_BYTES_MAX,
};
use iris_protocol::{PartId, ProjectId, SessionId, UserId};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most bytes of replays that may wait for a reader: a few rooms at their limit.
pub const REPLAY_QUEUE_BYTES_MAX: usize = 16 * REPLAY_BYTES_MAX;

/// Something to write to a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutFrame {
    /// A JSON frame, encoded once for all its readers.
    Text(Bytes),
    /// A JSON frame of a replay.
    Replay(Bytes),
    /// A JSON frame with a piece of a streaming part, left out when the reader is slow.
    Delta(Arc<PartId>, Bytes),
    /// A JSON frame with all of a streaming part so far.
    Snapshot(PartId, Bytes),
    /// A JSON frame with all that is so of something now: a slow reader gets none but the latest.
    Latest(About, Bytes),
    /// A JSON frame that says that a room of this project is heard no more.
    Left(ProjectId, Bytes),
    /// A WebSocket ping.
    Ping,
    /// The answer to a WebSocket ping, with the ping's payload.
    Pong(Bytes),
    /// The last frame.
    Close(CloseReason),
}

impl OutFrame {
    /// The JSON that it carries to the client.
    pub fn json(&self) -> Option<&Bytes> {
        match self {
            Self::Text(json)
            | Self::Replay(json)
            | Self::Delta(_, json)
            | Self::Snapshot(_, json)
            | Self::Latest(_, json)
            | Self::Left(_, json) => Some(json),
            Self::Ping | Self::Pong(_) | Self::Close(_) => None,
        }
    }

    /// Of the JSON that counts against the limits of a reader.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(json)
            | Self::Delta(_, json)
            | Self::Snapshot(_, json)
            | Self::Latest(_, json)
            | Self::Left(_, json) => json.len(),
            Self::Replay(_) | Self::Ping | Self::Pong(_) | Self::Close(_) => 0,
        }
    }
}

/// What a frame says all of, so that a later one about it takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum About {
    /// The presence of a user in a project.
    Presence(ProjectId, UserId),
    /// Who writes in a session.
    Typing(SessionId),
}

/// Why a connection ends: a code of docs/protocol.md and a word for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The close code of RFC 6455 or of the 4000 range.
    pub code: u16,
    /// At most 123 bytes.
    pub text: String,
}

impl CloseReason {
    /// A close reason.
    pub fn new(code: u16, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// Readers that are woken when this is dropped, after everything was said to all of them: one that
/// runs meanwhile would write what it has by then, and the rest in further writes.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Vec<Waker>);

impl Drop for Wakers {
    fn drop(&mut self) {
        for waker in self.0.drain(..) {
            waker.wake();
        }
    }
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Whether another queue comes behind this one, which leaves pieces out if need be.
    is_relay: bool,
    queue: Mutex<Queue>,
    /// Told when the queue is closed.
    closed: Notify,
    /// Told when a reader that missed pieces of parts has read everything else.
    drained: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// A ping goes out before everything that waits.
    ping_is_due: bool,
    /// In the order in which they go out. A room's events keep theirs when it is joined again.
    frames: VecDeque<Waiting>,
    /// Of replays, which count against no limit but their own.
    replay_bytes: usize,
    /// Frames that are none of a replay.
    live_frames: usize,
    /// Their JSON.
    live_bytes: usize,
    /// Of the largest frame since nothing waited. It does not count: one large answer is no slow
    /// reader.
    largest_bytes: usize,
    /// Parts of which pieces were left out, and whether somebody asks for a snapshot of them already.
    /// At most as many as frames may wait.
    behind: HashMap<PartId, bool>,
    /// What came for a slow reader and goes out when nothing else waits.
    latest: HashMap<About, Bytes>,
    /// Projects that were lost since somebody asked.
    lost: Vec<ProjectId>,
    /// How often one was.
    losses: u32,
    /// Frames that ever came, and how many of them went out.
    came: u64,
    went: u64,
    /// How many had come when somebody looked, as long as some of them still wait.
    looks: VecDeque<(u64, Instant)>,
    /// How many had gone out at the last look.
    went_before: u64,
    /// A close frame is queued, or the body is gone: nothing more is taken.
    is_closed: bool,
    /// The body is gone.
    is_abandoned: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Waiting {
    Replay(Bytes),
    Live(OutFrame),
}

impl Outbound {
    /// A queue on the way to the one of the connection: it leaves no piece of text out, because nobody
    /// would ask for a snapshot.
    pub fn relay() -> Self {
        Self { is_relay: true, ..Self::default() }
    }

    /// Queues a JSON frame. Says whether it was taken; when it was not, the connection is ending.
    pub fn push(&self, json: Bytes) -> bool {
        self.push_quietly(json, &mut Wakers::default())
    }

    /// The same for one of many readers, which is woken with the others.
    pub(crate) fn push_quietly(&self, json: Bytes, wakers: &mut Wakers) -> bool {
        self.take(OutFrame::Text(json), wakers)
    }

    fn take(&self, frame: OutFrame, wakers: &mut Wakers) -> bool {
        let mut queue = self.queue.lock();
        if queue.is_full_for(frame.bytes()) {
            queue.give_up();
            self.closed.notify_waiters();
        }
        let is_taken = queue.take(frame);
        wakers.0.extend(queue.waker.take());
        is_taken
    }

    /// Queues a frame that a later one about the same replaces while the reader is slow. Says as
    /// [`Outbound::push`] whether the connection goes on.
    pub fn push_latest(&self, about: &About, json: Bytes) -> bool {
        self.push_latest_quietly(about, json, &mut Wakers::default())
    }

    /// The same for one of many readers, which is woken with the others.
    pub(crate) fn push_latest_quietly(
        &self,
        about: &About,
        json: Bytes,
        wakers: &mut Wakers,
    ) -> bool {
        let mut queue = self.queue.lock();
        let waits = queue.latest.contains_key(about) || queue.is_slow();
        if self.is_relay || !waits {
            drop(queue);
            return self.take(OutFrame::Latest(about.clone(), json), wakers);
        }
        if queue.is_full_for(json.len()) {
            queue.give_up();
            self.closed.notify_waiters();
        }
        let is_taken = queue.put(about, json);
        wakers.0.extend(queue.waker.take());
        is_taken
    }

    /// Queues frames that say which rooms of a project are heard no more, and drops what waits of the
    /// project: whoever lost a right is told nothing that happened before, either.
    pub fn lose(&self, project_id: &ProjectId, left: impl IntoIterator<Item = Bytes>) {
        self.queue.lock().forget(project_id);
        for json in left {
            self.take(OutFrame::Left(project_id.clone(), json), &mut Wakers::default());
        }
    }

    /// The projects that were lost since the last time that this was asked.
    pub(super) fn take_lost(&self) -> Vec<ProjectId> {
        std::mem::take(&mut self.queue.lock().lost)
    }

    /// Puts frames back before all that waits, as a replay. `events` are dropped where the right to
    /// events has ended since they were taken out.
    pub fn put_back(&self, first: impl DoubleEndedIterator<Item = Bytes>, events: Vec<Bytes>) {
        let mut queue = self.queue.lock();
        if queue.is_closed {
            return;
        }
        let events = if queue.losses > 0 { Vec::new() } else { events };
        for json in first.chain(events).rev() {
            queue.replay_bytes += json.len();
            queue.came += 1;
            queue.frames.push_front(Waiting::Replay(json));
        }
        queue.wake();
    }

    /// Queues a piece of a streaming part. It is left out while the reader is slow, and so are those
    /// after it until a snapshot of the part has come. Says as [`Outbound::push`] whether the
    /// connection goes on.
    pub fn push_delta(&self, part_id: &Arc<PartId>, json: Bytes) -> bool {
        self.push_delta_quietly(part_id, json, &mut Wakers::default())
    }

    /// The same for one of many readers, which is woken with the others.
    pub(crate) fn push_delta_quietly(
        &self,
        part_id: &Arc<PartId>,
        json: Bytes,
        wakers: &mut Wakers,
    ) -> bool {
        let mut queue = self.queue.lock();
        if queue.is_closed {
            return false;
        }
        let is_behind = queue.behind.contains_key(&**part_id) || queue.is_slow();
        if self.is_relay || !is_behind {
            let is_taken = queue.take(OutFrame::Delta(Arc::clone(part_id), json));
            wakers.0.extend(queue.waker.take());
            return is_taken;
        }
        if queue.behind.len() >= OUTBOUND_FRAMES_MAX {
            queue.give_up();
            self.closed.notify_waiters();
            return false;
        }
        queue.behind.entry(PartId::clone(part_id)).or_default();
        true
    }

    /// Queues a snapshot of a streaming part; pieces that follow it are taken again.
    pub fn push_snapshot(&self, part_id: PartId, json: Bytes) -> bool {
        self.queue.lock().behind.remove(&part_id);
        self.take(OutFrame::Snapshot(part_id, json), &mut Wakers::default())
    }

    /// Waits until a reader that missed pieces has read all that waited; gives the parts of which
    /// snapshots are wanted. [`Outbound::caught_up`] is to be called with them.
    pub(super) async fn behind(&self) -> Vec<PartId> {
        loop {
            let drained = self.drained.notified();
            let wanted = self.queue.lock().wanted();
            if !wanted.is_empty() {
                return wanted;
            }
            drained.await;
        }
    }

    /// Snapshots of these parts have come, or will not: of those that still stream pieces are taken
    /// again, and a client that finds one missing asks for itself.
    pub(super) fn caught_up(&self, parts: &[PartId]) {
        let mut queue = self.queue.lock();
        for part_id in parts {
            if queue.behind.get(part_id) == Some(&true) {
                queue.behind.remove(part_id);
            }
        }
    }

    /// Queues frames of a replay: what the room says from now on comes after them.
    pub fn push_replay(&self, frames: impl IntoIterator<Item = Bytes>) {
        let mut queue = self.queue.lock();
        for json in frames {
            if queue.is_closed {
                return;
            }
            queue.replay_bytes += json.len();
            queue.came += 1;
            queue.frames.push_back(Waiting::Replay(json));
            if queue.replay_bytes > REPLAY_QUEUE_BYTES_MAX {
                queue.give_up();
                self.closed.notify_waiters();
            }
        }
        queue.wake();
    }

    /// Queues the answer to a ping, unless the queue is full: pings are the peer's to bound.
    pub fn push_pong(&self, payload: Bytes) {
        let mut queue = self.queue.lock();
        if queue.live_frames < OUTBOUND_FRAMES_MAX {
            queue.take(OutFrame::Pong(payload));
            queue.wake();
        }
    }

    /// Sends a ping before everything that waits.
    pub(super) fn push_ping(&self) {
        let mut queue = self.queue.lock();
        if !queue.is_closed {
            queue.ping_is_due = true;
            queue.wake();
        }
    }

    /// Drops what is queued and ends the connection: its caller may hear nothing any more.
    pub(super) fn cut_off(&self, reason: CloseReason) {
        self.queue.lock().end(reason);
        self.closed.notify_waiters();
    }

    /// Lets what is queued go out, then ends the connection.
    pub fn close(&self, reason: CloseReason) {
        self.queue.lock().close(reason);
        self.closed.notify_waiters();
    }

    /// Queues a frame that came out of another queue, in the class that it had there. Says whether it
    /// was taken.
    pub fn pass_on(&self, frame: OutFrame) -> bool {
        match frame {
            OutFrame::Text(json) => return self.push(json),
            OutFrame::Replay(json) => self.push_replay([json]),
            OutFrame::Delta(part_id, json) => return self.push_delta(&part_id, json),
            OutFrame::Snapshot(part_id, json) => return self.push_snapshot(part_id, json),
            OutFrame::Latest(about, json) => return self.push_latest(&about, json),
            OutFrame::Left(project_id, json) => self.lose(&project_id, [json]),
            OutFrame::Ping => self.push_ping(),
            OutFrame::Pong(payload) => self.push_pong(payload),
            OutFrame::Close(reason) => self.close(reason),
        }
        !self.is_closed()
    }

    /// What waits, for operators.
    pub(super) fn counts(&self) -> Value {
        let queue = self.queue.lock();
        json!({
            "frames": queue.frames.len(),
            "bytes": queue.live_bytes + queue.replay_bytes,
            "isClosed": queue.is_closed,
        })
    }

    /// Gives the queue up when a frame has waited for `age_max`. Frames are not stamped when they come:
    /// one is as old as the first look after that, so looks have to follow each other closely.
    pub(super) fn look(&self, age_max: Duration, now: Instant) {
        let mut queue = self.queue.lock();
        if !queue.is_closed && queue.is_late(age_max, now) {
            queue.give_up();
            self.closed.notify_waiters();
        }
    }

    /// Whether nobody takes frames out any more: the transport has ended.
    pub(super) fn is_abandoned(&self) -> bool {
        self.queue.lock().is_abandoned
    }

    /// Whether nothing more is taken.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().is_closed
    }

    /// Waits until nothing more is taken: for whoever fills the queue from elsewhere.
    pub async fn closed(&self) {
        let told = self.closed.notified();
        if !self.is_closed() {
            told.await;
        }
    }

    /// The body is gone: frees what waits and takes nothing more.
    pub fn abandon(&self) {
        let mut queue = self.queue.lock();
        *queue = Queue { is_closed: true, is_abandoned: true, ..Queue::default() };
        self.closed.notify_waiters();
    }

    /// The next frame, for the response body; `None` once everything after a close was taken.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<OutFrame>> {
        let mut queue = self.queue.lock();
        match queue.next() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => self.wait(queue, cx),
        }
    }

    /// Adds the next frames to `frames`: of at most `bytes_max` bytes of JSON, but at least one. Says
    /// whether there was any, which is false once everything after a close was taken; else as
    /// [`Outbound::poll_next`].
    pub fn poll_some(
        &self,
        bytes_max: usize,
        cx: &Context<'_>,
        frames: &mut Vec<OutFrame>,
    ) -> Poll<bool> {
        let mut queue = self.queue.lock();
        let Some(first) = queue.next() else {
            return self.wait::<()>(queue, cx).map(|none| none.is_some());
        };
        let mut bytes = first.json().map_or(0, Bytes::len);
        frames.push(first);
        while let Some(waiting) = queue.frames.front() {
            bytes += waiting.json().map_or(0, Bytes::len);
            if bytes > bytes_max {
                break;
            }
            frames.extend(queue.next());
        }
        Poll::Ready(true)
    }

    /// Nothing waits: whoever takes frames is woken by the next one, if there will be one.
    fn wait<T>(&self, mut queue: MutexGuard<'_, Queue>, cx: &Context<'_>) -> Poll<Option<T>> {
        if queue.is_closed {
            return Poll::Ready(None);
        }
        if queue.behind.values().any(|is_asked| !is_asked) {
            self.drained.notify_waiters();
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Waiting {
    fn json(&self) -> Option<&Bytes> {
        match self {
            Self::Replay(json) => Some(json),
            Self::Live(frame) => frame.json(),
        }
    }
}

impl Queue {
    /// The frame that goes out next.
    fn next(&mut self) -> Option<OutFrame> {
        if std::mem::take(&mut self.ping_is_due) {
            return Some(OutFrame::Ping);
        }
        match self.frames.pop_front() {
            Some(waiting) => Some(self.gone(waiting)),
            None => self.next_latest(),
        }
    }

    /// Ends the connection: its reader is too slow.
    fn give_up(&mut self) {
        if !self.is_closed {
            self.end(CloseReason::new(4008, "slow reader"));
        }
    }

    /// Frees what waits and ends the connection, also one whose close frame waits behind it.
    fn end(&mut self, reason: CloseReason) {
        let is_over = self.is_closed && self.frames.is_empty();
        if !is_over && !self.is_abandoned {
            let waker = self.waker.take();
            *self = Self { waker, ..Self::default() };
            self.close(reason);
        }
    }

    /// Drops what waits of a project but for what says that its rooms were left.
    fn forget(&mut self, project_id: &ProjectId) {
        let frames = std::mem::take(&mut self.frames);
        for waiting in frames {
            let is_left = matches!(waiting, Waiting::Live(OutFrame::Left(..)));
            let is_its = waiting.json().is_some_and(|json| is_event_of(project_id, json));
            if is_its && !is_left {
                self.gone(waiting);
            } else {
                self.frames.push_back(waiting);
            }
        }
        let (mut dropped, mut bytes) = (0, 0);
        self.latest.retain(|_, json| {
            let is_its = is_event_of(project_id, json);
            if is_its {
                (dropped, bytes) = (dropped + 1, bytes + json.len());
            }
            !is_its
        });
        self.live_frames = self.live_frames.saturating_sub(dropped);
        self.live_bytes = self.live_bytes.saturating_sub(bytes);
        self.losses = self.losses.saturating_add(1);
        if !self.lost.contains(project_id) {
            self.lost.push(project_id.clone());
        }
    }

    /// Looks whether the oldest frame is too old.
    fn is_late(&mut self, age_max: Duration, now: Instant) -> bool {
        // A replay may take its time as long as it gets on, and so what waits behind it.
        if self.replay_bytes > 0 && self.went > self.went_before {
            self.looks.clear();
        }
        self.went_before = self.went;
        while self.looks.front().is_some_and(|(came, _)| *came <= self.went) {
            self.looks.pop_front();
        }
        if self.came > self.looks.back().map_or(self.went, |(came, _)| *came) {
            self.looks.push_back((self.came, now));
        }
        self.looks.front().is_some_and(|(_, at)| now.duration_since(*at) >= age_max)
    }

    fn is_full_for(&self, bytes: usize) -> bool {
        // The largest may be gone already while others still wait.
        let counted = (self.live_bytes + bytes).saturating_sub(self.largest_bytes.max(bytes));
        self.live_frames >= OUTBOUND_FRAMES_MAX || counted > OUTBOUND_BYTES_MAX
    }

    /// Whether so much waits that pieces of text are better left out.
    fn is_slow(&self) -> bool {
        let counted = self.live_bytes.saturating_sub(self.largest_bytes);
        self.live_frames >= OUTBOUND_FRAMES_SOFT_MAX || counted > OUTBOUND_BYTES_SOFT_MAX
    }

    /// The parts of which snapshots are wanted now, and nobody has asked for yet.
    fn wanted(&mut self) -> Vec<PartId> {
        if !self.frames.is_empty() || self.is_closed {
            return Vec::new();
        }
        let wanted = self.behind.iter_mut().filter(|(_, is_asked)| !**is_asked);
        wanted
            .map(|(part_id, is_asked)| {
                *is_asked = true;
                part_id.clone()
            })
            .collect()
    }

    /// Queues a frame; its reader is to be woken.
    fn take(&mut self, frame: OutFrame) -> bool {
        if self.is_closed {
            return false;
        }
        let bytes = frame.bytes();
        self.live_bytes += bytes;
        self.largest_bytes = self.largest_bytes.max(bytes);
        self.live_frames += 1;
        self.came += 1;
        self.frames.push_back(Waiting::Live(frame));
        true
    }

    /// Counts a frame that waits no longer.
    fn gone(&mut self, waiting: Waiting) -> OutFrame {
        self.went += 1;
        let frame = match waiting {
            Waiting::Replay(json) => {
                self.replay_bytes = self.replay_bytes.saturating_sub(json.len());
                return OutFrame::Replay(json);
            }
            Waiting::Live(frame) => frame,
        };
        self.is_less_by(&frame);
        frame
    }

    fn is_less_by(&mut self, frame: &OutFrame) {
        self.live_bytes = self.live_bytes.saturating_sub(frame.bytes());
        self.live_frames = self.live_frames.saturating_sub(1);
        if self.live_frames == 0 {
            self.largest_bytes = 0;
        }
    }

    /// Keeps a frame in the place of an earlier one about the same, until nothing else waits; its reader
    /// is to be woken.
    fn put(&mut self, about: &About, json: Bytes) -> bool {
        if self.is_closed {
            return false;
        }
        self.remove_latest(about);
        self.live_bytes += json.len();
        self.live_frames += 1;
        self.latest.insert(about.clone(), json);
        true
    }

    fn remove_latest(&mut self, about: &About) -> Option<OutFrame> {
        let (about, json) = self.latest.remove_entry(about)?;
        let frame = OutFrame::Latest(about, json);
        self.is_less_by(&frame);
        Some(frame)
    }

    fn next_latest(&mut self) -> Option<OutFrame> {
        let about = self.latest.keys().next()?.clone();
        self.remove_latest(&about)
    }

    fn close(&mut self, reason: CloseReason) {
        if !self.is_closed {
            self.latest.clear();
            self.live_frames += 1;
            self.frames.push_back(Waiting::Live(OutFrame::Close(reason)));
            self.is_closed = true;
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Whether a frame is an event in a room of this project.
fn is_event_of(project_id: &ProjectId, json: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head<'a> {
        #[serde(borrow)]
        project_id: Option<&'a str>,
        #[serde(borrow)]
        room: Option<&'a str>,
    }
    let head = serde_json::from_slice(json);
    head.is_ok_and(|head: Head<'_>| {
        head.room.is_some() && head.project_id == Some(project_id.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(outbound: &Outbound) -> Vec<OutFrame> {
        let cx = Context::from_waker(Waker::noop());
        let mut frames = Vec::new();
        while let Poll::Ready(Some(frame)) = outbound.poll_next(&cx) {
            frames.push(frame);
        }
        frames
    }

    #[test]
    fn a_reader_that_never_reads_costs_a_bounded_queue_and_is_closed_with_4008() {
        let outbound = Outbound::default();
        let frame = Bytes::from(vec![b'x'; 1024]);
        while outbound.push(frame.clone()) {}
        assert!(outbound.is_closed());
        assert_eq!(drain(&outbound), [OutFrame::Close(CloseReason::new(4008, "slow reader"))]);
    }

    #[test]
    fn one_frame_may_be_larger_than_all_that_may_wait() {
        let outbound = Outbound::default();
        assert!(outbound.push(Bytes::from_static(b"{}")));
        assert!(outbound.push(Bytes::from(vec![b'x'; 2 * OUTBOUND_BYTES_MAX])));
        assert!(outbound.push(Bytes::from_static(b"{}")));
        assert!(!outbound.push(Bytes::from(vec![b'x'; 2 * OUTBOUND_BYTES_MAX])));
    }

    #[test]
    fn a_frame_is_taken_while_others_wait_behind_a_larger_one_that_is_gone() {
        let outbound = Outbound::default();
        assert!(outbound.push(Bytes::from(vec![b'x'; 1024])));
        assert!(outbound.push(Bytes::from_static(b"{}")));
        assert!(outbound.poll_next(&Context::from_waker(Waker::noop())).is_ready());
        assert!(outbound.push(Bytes::from_static(b"{}")));
    }

    #[test]
    fn a_replay_counts_against_no_limit_but_its_own_and_keeps_its_place() {
        let outbound = Outbound::default();
        assert!(outbound.push(Bytes::from_static(b"before")));
        outbound.push_replay((0..2 * OUTBOUND_FRAMES_MAX).map(|_| Bytes::from_static(b"past")));
        assert!(outbound.push(Bytes::from_static(b"after")));
        let frames = drain(&outbound);
        assert_eq!(frames.len(), 2 * OUTBOUND_FRAMES_MAX + 2);
        assert_eq!(frames.first(), Some(&OutFrame::Text(Bytes::from_static(b"before"))));
        assert_eq!(frames.last(), Some(&OutFrame::Text(Bytes::from_static(b"after"))));
    }

    #[test]
    fn replays_are_bounded_too() {
        let outbound = Outbound::default();
        let frame = Bytes::from(vec![b'x'; REPLAY_BYTES_MAX]);
        outbound.push_replay((0..16).map(|_| frame.clone()));
        assert!(!outbound.is_closed());
        outbound.push_replay([Bytes::from_static(b"x")]);
        assert_eq!(drain(&outbound), [OutFrame::Close(CloseReason::new(4008, "slow reader"))]);
    }

    #[test]
    fn many_small_frames_are_bounded_too() {
        let outbound = Outbound::default();
        let mut taken = 0;
        while outbound.push(Bytes::from_static(b"{}")) {
            taken += 1;
        }
        assert_eq!(taken, OUTBOUND_FRAMES_MAX);
    }

    #[actix_rt::test]
    async fn however_the_queue_is_closed_who_waits_for_that_is_told() {
        let flood = |outbound: &Outbound| while outbound.push(Bytes::from_static(b"{}")) {};
        let replay = |outbound: &Outbound| {
            let frame = Bytes::from(vec![b'x'; REPLAY_BYTES_MAX]);
            outbound.push_replay((0..17).map(|_| frame.clone()));
        };
        let close = |outbound: &Outbound| outbound.close(CloseReason::new(1000, "done"));
        let ways: [&dyn Fn(&Outbound); 4] = [&flood, &replay, &close, &Outbound::abandon];
        for way in ways {
            let outbound = Outbound::default();
            let mut closed = Box::pin(outbound.closed());
            let cx = &mut Context::from_waker(Waker::noop());
            assert!(closed.as_mut().poll(cx).is_pending());
            way(&outbound);
            closed.await;
            outbound.closed().await;
        }
    }

    #[actix_rt::test]
    async fn a_slow_reader_gets_a_snapshot_in_place_of_pieces() {
        let outbound = Outbound::default();
        let [slow, other] = [1, 2].map(|bits| Arc::new(PartId::from_bits(bits)));
        let frame = Bytes::from_static(b"{}");
        for _ in 0..2 * OUTBOUND_FRAMES_SOFT_MAX {
            assert!(outbound.push_delta(&slow, frame.clone()));
        }
        let mut behind = Box::pin(outbound.behind());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(behind.as_mut().poll(cx).is_pending());
        assert_eq!(drain(&outbound).len(), OUTBOUND_FRAMES_SOFT_MAX);
        assert_eq!(behind.await, std::slice::from_ref(&*slow));
        // Until the snapshot has come its pieces are left out, and those of others are not.
        assert!(outbound.push_delta(&slow, frame.clone()));
        assert!(outbound.push_delta(&other, frame.clone()));
        assert!(outbound.push_snapshot(PartId::clone(&slow), frame.clone()));
        assert!(outbound.push_delta(&slow, frame.clone()));
        outbound.caught_up(std::slice::from_ref(&*slow));
        let expected = [
            OutFrame::Delta(other, frame.clone()),
            OutFrame::Snapshot(PartId::clone(&slow), frame.clone()),
            OutFrame::Delta(slow, frame),
        ];
        assert_eq!(drain(&outbound), expected);
    }

    #[actix_rt::test]
    async fn pieces_are_taken_again_of_a_part_of_which_there_is_no_snapshot() {
        let (outbound, part) = (Outbound::default(), Arc::new(PartId::from_bits(1)));
        let frame = Bytes::from(vec![b'x'; 1024]);
        for _ in 0..OUTBOUND_FRAMES_SOFT_MAX + 10 {
            assert!(outbound.push_delta(&part, frame.clone()));
        }
        drain(&outbound);
        let behind = outbound.behind().await;
        outbound.caught_up(&behind);
        assert!(outbound.push_delta(&part, frame.clone()));
        assert_eq!(drain(&outbound), [OutFrame::Delta(part, frame)]);
    }

    const AGE_MAX: Duration = Duration::from_secs(10);

    #[test]
    fn a_frame_that_waits_too_long_ends_the_connection() {
        let (outbound, start) = (Outbound::default(), Instant::now());
        let look = |seconds| outbound.look(AGE_MAX, start + Duration::from_secs(seconds));
        assert!(outbound.push(Bytes::from_static(b"first")));
        assert!(outbound.push(Bytes::from_static(b"second")));
        look(0);
        look(9);
        assert!(outbound.push(Bytes::from_static(b"third")));
        look(9);
        // The reader takes two, slowly, and the third is younger.
        let cx = Context::from_waker(Waker::noop());
        assert!(outbound.poll_next(&cx).is_ready());
        assert!(outbound.poll_next(&cx).is_ready());
        look(18);
        assert!(!outbound.is_closed());
        look(19);
        assert_eq!(drain(&outbound), [OutFrame::Close(CloseReason::new(4008, "slow reader"))]);
    }

    #[test]
    fn a_replay_may_take_its_time_as_long_as_it_gets_on() {
        let (outbound, start) = (Outbound::default(), Instant::now());
        let look = |seconds| outbound.look(AGE_MAX, start + Duration::from_secs(seconds));
        outbound.push_replay((0..4).map(|_| Bytes::from_static(b"past")));
        assert!(outbound.push(Bytes::from_static(b"after")));
        let cx = Context::from_waker(Waker::noop());
        for seconds in [0, 9, 18, 27] {
            look(seconds);
            assert!(!outbound.is_closed(), "{seconds}");
            assert!(outbound.poll_next(&cx).is_ready());
        }
        // Now the live frame is the oldest.
        look(28);
        look(36);
        assert!(!outbound.is_closed());
        look(38);
        assert!(outbound.is_closed());
    }

    #[test]
    fn a_replay_that_does_not_get_on_ends_the_connection_too() {
        let (outbound, start) = (Outbound::default(), Instant::now());
        outbound.push_replay([Bytes::from_static(b"past")]);
        outbound.look(AGE_MAX, start);
        outbound.look(AGE_MAX, start + AGE_MAX);
        assert!(outbound.is_closed());
    }

    fn event(project: &ProjectId, word: &str) -> Bytes {
        let room = format!("project:{project}");
        let event = json!({ "type": word, "projectId": project, "room": room, "payload": {} });
        Bytes::from(event.to_string())
    }

    fn writes(n: u32) -> Bytes {
        Bytes::from(n.to_string())
    }

    #[test]
    fn a_slow_reader_gets_the_latest_alone_of_what_says_all_of_something() {
        let outbound = Outbound::default();
        let about = |n| About::Typing(SessionId::from_bits(n));
        assert!(outbound.push_latest(&about(1), writes(0)));
        for n in 1..OUTBOUND_FRAMES_SOFT_MAX {
            assert!(outbound.push(writes(n.try_into().unwrap())));
        }
        for n in [1, 2, 3] {
            assert!(outbound.push_latest(&about(1), writes(n)));
            assert!(outbound.push_latest(&about(2), writes(n)));
        }
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(
            outbound.poll_next(&cx),
            Poll::Ready(Some(OutFrame::Latest(about(1), writes(0))))
        );
        // No later one may overtake what waits.
        assert!(outbound.push_latest(&about(1), writes(4)));
        let mut frames = drain(&outbound).split_off(OUTBOUND_FRAMES_SOFT_MAX - 1);
        frames.sort_by_key(|frame| *frame == OutFrame::Latest(about(2), writes(3)));
        let expected = [(1, 4), (2, 3)].map(|(n, last)| OutFrame::Latest(about(n), writes(last)));
        assert_eq!(frames, expected);
        // Now it is slow no longer.
        assert!(outbound.push_latest(&about(1), writes(5)));
        assert!(outbound.push(writes(6)));
        let expected = [OutFrame::Latest(about(1), writes(5)), OutFrame::Text(writes(6))];
        assert_eq!(drain(&outbound), expected);
        let queue = outbound.queue.lock();
        assert_eq!((queue.live_frames, queue.live_bytes, queue.largest_bytes), (0, 0, 0));
    }

    #[test]
    fn the_latest_count_against_the_limits() {
        let outbound = Outbound::default();
        for _ in 0..OUTBOUND_FRAMES_SOFT_MAX {
            assert!(outbound.push(Bytes::new()));
        }
        let about = |n| About::Presence(ProjectId::from_bits(1), UserId::from_bits(n));
        let many = 0..2 * OUTBOUND_FRAMES_MAX as u128;
        let counted = many.take_while(|n| outbound.push_latest(&about(*n), writes(0))).count();
        assert_eq!(counted, OUTBOUND_FRAMES_MAX - OUTBOUND_FRAMES_SOFT_MAX);
        assert_eq!(drain(&outbound), [OutFrame::Close(CloseReason::new(4008, "slow reader"))]);
    }

    #[test]
    fn nothing_of_a_project_goes_out_once_it_is_lost() {
        let outbound = Outbound::default();
        let (lost, kept) = (ProjectId::from_bits(1), ProjectId::from_bits(2));
        let left = Bytes::from_static(b"left");
        assert!(outbound.push(event(&lost, "a")));
        assert!(outbound.push(event(&kept, "b")));
        outbound.push_replay([event(&lost, "c"), event(&kept, "d")]);
        assert!(outbound.push_delta(&Arc::new(PartId::from_bits(1)), event(&lost, "e")));
        assert!(outbound.push_latest(&About::Typing(SessionId::from_bits(1)), event(&lost, "f")));
        outbound.lose(&lost, [left.clone(), left.clone()]);
        outbound.lose(&lost, []);
        assert!(outbound.push(event(&lost, "again")));
        let expected = [
            OutFrame::Text(event(&kept, "b")),
            OutFrame::Replay(event(&kept, "d")),
            OutFrame::Left(lost.clone(), left.clone()),
            OutFrame::Left(lost.clone(), left),
            OutFrame::Text(event(&lost, "again")),
        ];
        assert_eq!(drain(&outbound), expected);
        let queue = outbound.queue.lock();
        assert_eq!((queue.live_frames, queue.live_bytes, queue.replay_bytes), (0, 0, 0));
    }

    #[test]
    fn who_is_cut_off_hears_the_reason_alone_and_once() {
        let outbound = Outbound::default();
        let reason = |code| CloseReason::new(code, "x");
        assert!(outbound.push(Bytes::from_static(b"{}")));
        outbound.close(reason(1000));
        outbound.cut_off(reason(4401));
        assert_eq!(drain(&outbound), [OutFrame::Close(reason(4401))]);
        outbound.cut_off(reason(4403));
        assert_eq!(drain(&outbound), []);
    }

    #[test]
    fn a_ping_goes_out_before_what_waits() {
        let outbound = Outbound::default();
        assert!(outbound.push(Bytes::from_static(b"{}")));
        outbound.push_ping();
        outbound.push_ping();
        assert_eq!(drain(&outbound), [OutFrame::Ping, OutFrame::Text(Bytes::from_static(b"{}"))]);
    }

    #[test]
    fn what_was_queued_before_a_close_still_goes_out() {
        let outbound = Outbound::default();
        assert!(outbound.push(Bytes::from_static(b"{}")));
        outbound.close(CloseReason::new(1000, "done"));
        assert!(!outbound.push(Bytes::from_static(b"{}")));
        assert_eq!(drain(&outbound).len(), 2);
    }
}
