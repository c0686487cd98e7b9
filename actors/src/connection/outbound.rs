//! The frames that wait for one reader: a bounded queue that the registry fills and the transport
//! drains.
//!
//! Publishers never wait: when the reader is too slow the queue is given up and the connection
//! closed with 4008 (docs/protocol.md, "Slow readers").

mod courier;
mod frame;
mod queue;
mod replays;

use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use iris_protocol::limits::{OUTBOUND_FRAMES_MAX, REPLAY_BYTES_MAX};
use iris_protocol::{PartId, ProjectId};
use parking_lot::{Mutex, MutexGuard};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use courier::Wants;
use courier::Way;
pub use courier::{Bundle, Courier, Delivery, Next, Reader, Transport};
pub use frame::{About, CloseReason, OutFrame};
use queue::Queue;
pub use replays::REPLAYS_BYTES_MAX;
pub(crate) use replays::ReplayRoom;

use crate::Metrics;

/// Most bytes of replays that may wait for a reader with the snapshots of what streams, which are shared by all
/// who join meanwhile: more than ever comes to one who reads.
pub const REPLAY_QUEUE_BYTES_MAX: usize = 16 * REPLAY_BYTES_MAX;

/// The code that the connection of a reader ends with who is too slow.
const SLOW_READER: u16 = 4008;
/// The code of one that ends without any (RFC 6455 section 7.1.5).
const ABNORMAL: u16 = 1006;

/// Readers that are woken when this is dropped, after everything was said to all of them: one that
/// runs meanwhile would write what it has by then, and the rest in further writes.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    readers: Vec<Waker>,
    /// The couriers that got something to bring to theirs.
    couriers: Vec<Arc<Courier>>,
}

impl Drop for Wakers {
    fn drop(&mut self) {
        for waker in self.readers.drain(..) {
            waker.wake();
        }
        for courier in self.couriers.drain(..) {
            courier.tell();
        }
    }
}

/// What waits for readers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
    /// Of the reader for whom most do.
    pub(crate) frames_most: usize,
}

/// The queue of one connection. What every frame looks at is in one cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Outbound {
    queue: Mutex<Queue>,
    /// Whether another queue comes behind this one, which leaves pieces out if need be.
    is_relay: bool,
    /// Told when the queue is closed.
    closed: Notify,
    /// Told when a reader that missed pieces of parts has read everything else.
    drained: Notify,
    /// Told when there may be room for another replay.
    replayed: Notify,
    /// How what is said to many comes to this one.
    way: OnceLock<Way>,
    /// Where is counted what is left out, and why the connection ends.
    metrics: OnceLock<Arc<Metrics>>,
}

impl Outbound {
    /// A queue on the way to the one of the connection: it leaves no piece of text out, because nobody
    /// would ask for a snapshot.
    pub fn relay() -> Self {
        Self { is_relay: true, ..Self::default() }
    }

    /// From now on what is left out, and why the connection ends, is counted there.
    pub(super) fn counts_in(&self, metrics: &Arc<Metrics>) {
        // Of one server: the first one counts.
        drop(self.metrics.set(Arc::clone(metrics)));
    }

    /// Counts the end of the connection, if nothing ended it before.
    fn count_end(&self, queue: &Queue, code: u16) {
        if let Some(metrics) = self.metrics.get().filter(|_| !queue.is_closed) {
            metrics.connection_closed(code);
        }
    }

    /// Queues a JSON frame. Says whether it was taken; when it was not, the connection is ending.
    pub fn push(&self, json: Bytes) -> bool {
        self.offer(&Arc::new(OutFrame::Text(json)))
    }

    /// Queues a binary frame that is small, among the others. Says as [`Outbound::push`] whether it was taken.
    pub(super) fn push_binary(&self, frame: Bytes) -> bool {
        self.offer(&Arc::new(OutFrame::Binary(frame)))
    }

    /// Queues a chunk of a file, which lets everything else go first: at most one goes out each time that
    /// what waits besides is written. Whoever queues them bounds their number. Says whether it was taken.
    pub(super) fn push_chunk(&self, project_id: &ProjectId, frame: Bytes) -> bool {
        let mut queue = self.settled();
        if queue.is_closed {
            return false;
        }
        queue.chunks.push_back((project_id.clone(), Arc::new(OutFrame::Binary(frame))));
        queue.wake();
        true
    }

    /// Queues a frame of any class. Says as [`Outbound::push`] whether the connection goes on.
    ///
    /// While its reader is slow, a piece of a streaming part is left out, and so are those after it
    /// until a snapshot of the part has come; and of frames that say all of something only the latest is
    /// kept.
    pub fn offer(&self, frame: &Arc<OutFrame>) -> bool {
        self.offer_quietly(frame, &mut Wakers::default())
    }

    /// The same for one of many readers, which is woken with the others.
    pub(crate) fn offer_quietly(&self, frame: &Arc<OutFrame>, wakers: &mut Wakers) -> bool {
        match &**frame {
            OutFrame::Text(_)
            | OutFrame::Delta(..)
            | OutFrame::Latest(..)
            | OutFrame::Binary(_)
            | OutFrame::Snapshot(..) => {
                return self.admit(&mut self.settled(), frame, wakers);
            }
            OutFrame::Replay(json) => self.push_replay([json.clone()]),
            OutFrame::Left(project_id, json) => self.lose(project_id, [json.clone()]),
            OutFrame::Ping => self.push_ping(),
            OutFrame::Pong(payload) => self.push_pong(payload.clone()),
            OutFrame::Close(reason) => self.close(reason.clone()),
        }
        !self.is_closed()
    }

    /// Queues a frame that counts against the limits.
    fn admit(&self, queue: &mut Queue, frame: &Arc<OutFrame>, wakers: &mut Wakers) -> bool {
        match &**frame {
            OutFrame::Delta(part_id, _) => return self.take_delta(queue, part_id, frame, wakers),
            OutFrame::Latest(about, _) => return self.take_latest(queue, about, frame, wakers),
            OutFrame::Snapshot(part_id, _) => queue.is_whole(part_id),
            OutFrame::Text(_)
            | OutFrame::Replay(_)
            | OutFrame::Left(..)
            | OutFrame::Binary(_)
            | OutFrame::Ping
            | OutFrame::Pong(_)
            | OutFrame::Close(_) => {}
        }
        self.take(queue, Arc::clone(frame), wakers)
    }

    fn take(&self, queue: &mut Queue, frame: Arc<OutFrame>, wakers: &mut Wakers) -> bool {
        self.make_room(queue, &frame);
        let is_taken = queue.take(frame);
        wakers.readers.extend(queue.waker.take());
        is_taken
    }

    /// Gives the queue up if it is too full for a frame.
    fn make_room(&self, queue: &mut Queue, frame: &OutFrame) {
        if queue.is_full_for(frame.bytes()) {
            self.give_up(queue);
        }
    }

    fn give_up(&self, queue: &mut Queue) {
        self.count_end(queue, SLOW_READER);
        queue.give_up();
        self.closed.notify_waiters();
    }

    fn take_latest(
        &self,
        queue: &mut Queue,
        about: &About,
        frame: &Arc<OutFrame>,
        wakers: &mut Wakers,
    ) -> bool {
        let waits = queue.keeps_latest(about) || queue.is_slow();
        if self.is_relay || !waits {
            return self.take(queue, Arc::clone(frame), wakers);
        }
        self.make_room(queue, frame);
        let is_taken = queue.put(about, Arc::clone(frame));
        wakers.readers.extend(queue.waker.take());
        is_taken
    }

    fn take_delta(
        &self,
        queue: &mut Queue,
        part_id: &Arc<PartId>,
        frame: &Arc<OutFrame>,
        wakers: &mut Wakers,
    ) -> bool {
        if queue.is_closed {
            return false;
        }
        let is_behind = queue.is_behind(part_id);
        if self.is_relay || !(is_behind || queue.is_slow()) {
            let is_taken = queue.take(Arc::clone(frame));
            wakers.readers.extend(queue.waker.take());
            return is_taken;
        }
        let goes_on = is_behind || queue.leave_out(part_id);
        if goes_on {
            self.count_skipped(1);
        } else {
            self.give_up(queue);
        }
        goes_on
    }

    /// Counts pieces that were left out.
    fn count_skipped(&self, pieces: usize) {
        if let Some(metrics) = self.metrics.get() {
            metrics.pieces_skipped(pieces);
        }
    }

    /// Queues frames that say which rooms of a project are heard no more, and drops what waits of the
    /// project: whoever lost a right is told nothing that happened before, either.
    pub fn lose(&self, project_id: &ProjectId, left: impl IntoIterator<Item = Bytes>) {
        let mut wakers = Wakers::default();
        let mut queue = self.settled();
        let waited = queue.replay_bytes;
        queue.forget(project_id);
        self.replay_goes_on(waited, queue.replay_bytes);
        for json in left {
            let left = Arc::new(OutFrame::Left(project_id.clone(), json));
            self.take(&mut queue, left, &mut wakers);
        }
        drop(queue);
    }

    /// The projects that were lost since the last time that this was asked.
    pub(super) fn take_lost(&self) -> Vec<ProjectId> {
        std::mem::take(&mut self.queue.lock().lost)
    }

    /// Puts frames back before all that waits, as a replay. `events` are dropped where the right to
    /// events has ended since they were taken out.
    pub fn put_back(&self, first: impl DoubleEndedIterator<Item = Bytes>, events: Vec<Bytes>) {
        let mut queue = self.settled();
        if queue.is_closed {
            return;
        }
        let events = if queue.losses > 0 { Vec::new() } else { events };
        for json in first.chain(events).rev() {
            queue.take_replay(json, true);
        }
        queue.wake();
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
            queue.is_given_up(part_id);
        }
    }

    /// Queues frames of a replay: what the room says from now on comes after them.
    pub fn push_replay(&self, frames: impl IntoIterator<Item = Bytes>) {
        let mut queue = self.settled();
        for json in frames {
            if queue.is_closed {
                return;
            }
            queue.take_replay(json, false);
            if queue.replay_bytes > REPLAY_QUEUE_BYTES_MAX {
                self.give_up(&mut queue);
            }
        }
        queue.wake();
    }

    /// Queues the answer to a ping, unless the queue is full: pings are the peer's to bound.
    pub fn push_pong(&self, payload: Bytes) {
        let mut queue = self.settled();
        if queue.live_frames < OUTBOUND_FRAMES_MAX {
            queue.take(Arc::new(OutFrame::Pong(payload)));
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
        let mut queue = self.queue.lock();
        self.count_end(&queue, reason.code);
        queue.end(reason);
        drop(queue);
        self.closed.notify_waiters();
    }

    /// Lets what is queued go out, then ends the connection.
    pub fn close(&self, reason: CloseReason) {
        let mut queue = self.settled();
        self.count_end(&queue, reason.code);
        queue.close(reason);
        drop(queue);
        self.closed.notify_waiters();
    }

    /// Adds what waits here.
    pub(super) fn add_to(&self, queued: &mut Queued) {
        let queue = self.queue.lock();
        let frames = queue.frames.len();
        queued.frames += frames;
        queued.bytes += queue.live_bytes + queue.replay_bytes;
        queued.frames_most = queued.frames_most.max(frames);
    }

    /// What waits, for operators.
    pub(super) fn counts(&self) -> Value {
        let queue = self.settled();
        json!({
            "frames": queue.frames.len(),
            "bytes": queue.live_bytes + queue.replay_bytes,
            "isClosed": queue.is_closed,
        })
    }

    /// Gives the queue up when a frame has waited for `age_max`. Frames are not stamped when they come:
    /// one is as old as the first look after that, so looks have to follow each other closely.
    pub(super) fn look(&self, age_max: Duration, now: Instant) {
        let mut queue = self.settled();
        if !queue.is_closed && queue.is_late(age_max, now) {
            self.give_up(&mut queue);
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

    /// The transport is gone: frees what waits and takes nothing more.
    pub fn abandon(&self) {
        let mut queue = self.queue.lock();
        self.count_end(&queue, ABNORMAL);
        *queue = Queue::abandoned();
        self.closed.notify_waiters();
    }

    /// The next frame, for the transport; `None` once everything after a close was taken.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<OutFrame>> {
        let mut queue = self.queue.lock();
        let waited = queue.replay_bytes;
        match queue.next().or_else(|| queue.next_chunk()) {
            Some(frame) => {
                self.replay_goes_on(waited, queue.replay_bytes);
                Poll::Ready(Some(Arc::unwrap_or_clone(frame)))
            }
            None => self.wait(queue, cx),
        }
    }

    /// Adds the next frames to `frames`: of at most `bytes_max` bytes of JSON, but at least one, and at most
    /// one chunk of a file behind them. Says
    /// whether there was any, which is false once everything after a close was taken; else as
    /// [`Outbound::poll_next`].
    pub fn poll_some(
        &self,
        bytes_max: usize,
        cx: &Context<'_>,
        frames: &mut Vec<Arc<OutFrame>>,
    ) -> Poll<bool> {
        let mut queue = self.queue.lock();
        let waited = queue.replay_bytes;
        let Some(first) = queue.next() else {
            let Some(chunk) = queue.next_chunk() else {
                return self.wait::<()>(queue, cx).map(|none| none.is_some());
            };
            frames.push(chunk);
            return Poll::Ready(true);
        };
        let mut bytes = first.json().map_or(0, Bytes::len);
        frames.push(first);
        while let Some(next) = queue.frames.front() {
            bytes += next.json().map_or(0, Bytes::len);
            if bytes > bytes_max {
                break;
            }
            frames.extend(queue.next());
        }
        frames.extend(queue.next_chunk());
        self.replay_goes_on(waited, queue.replay_bytes);
        Poll::Ready(true)
    }

    /// Nothing waits: whoever takes frames is woken by the next one, if there will be one.
    fn wait<T>(&self, mut queue: MutexGuard<'_, Queue>, cx: &Context<'_>) -> Poll<Option<T>> {
        if queue.is_closed {
            return Poll::Ready(None);
        }
        if queue.wants_any() {
            self.drained.notify_waiters();
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests;
