//! The frames that wait for one reader: a bounded queue that the registry fills and the response
//! body of the socket drains.
//!
//! Publishers never wait: when the reader is too slow the queue is given up and the connection
//! closed with 4008 (docs/protocol.md, "Slow readers").

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use iris_protocol::limits::{OUTBOUND_BYTES_MAX, OUTBOUND_FRAMES_MAX, REPLAY_BYTES_MAX};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Most bytes of replays that may wait for a reader: a few rooms at their limit.
pub const REPLAY_QUEUE_BYTES_MAX: usize = 16 * REPLAY_BYTES_MAX;

/// Something to write to a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutFrame {
    /// A JSON frame, encoded once for all its readers.
    Text(Bytes),
    /// A JSON frame of a replay.
    Replay(Bytes),
    /// The answer to a WebSocket ping, with the ping's payload.
    Pong(Bytes),
    /// The last frame.
    Close(CloseReason),
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

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbound {
    queue: Mutex<Queue>,
    /// Told when the queue is closed.
    closed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
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
    /// A close frame is queued, or the body is gone: nothing more is taken.
    is_closed: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Waiting {
    Replay(Bytes),
    Live(OutFrame),
}

impl Outbound {
    /// Queues a JSON frame. Says whether it was taken; when it was not, the connection is ending.
    pub fn push(&self, json: Bytes) -> bool {
        let mut queue = self.queue.lock();
        if queue.is_full_for(json.len()) {
            queue.give_up();
            self.closed.notify_waiters();
        }
        queue.take(OutFrame::Text(json))
    }

    /// Queues frames of a replay: what the room says from now on comes after them.
    pub fn push_replay(&self, frames: impl IntoIterator<Item = Bytes>) {
        let mut queue = self.queue.lock();
        for json in frames {
            if queue.is_closed {
                return;
            }
            queue.replay_bytes += json.len();
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
        }
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
        *queue = Queue { is_closed: true, ..Queue::default() };
        self.closed.notify_waiters();
    }

    /// The next frame, for the response body; `None` once everything after a close was taken.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Option<OutFrame>> {
        let mut queue = self.queue.lock();
        if let Some(waiting) = queue.frames.pop_front() {
            return Poll::Ready(Some(queue.gone(waiting)));
        }
        if queue.is_closed {
            return Poll::Ready(None);
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Queue {
    /// Frees what waits and ends the connection: its reader is too slow.
    fn give_up(&mut self) {
        if !self.is_closed {
            let waker = self.waker.take();
            *self = Self { waker, ..Self::default() };
            self.close(CloseReason::new(4008, "slow reader"));
        }
    }

    fn is_full_for(&self, bytes: usize) -> bool {
        // The largest may be gone already while others still wait.
        let counted = (self.live_bytes + bytes).saturating_sub(self.largest_bytes.max(bytes));
        self.live_frames >= OUTBOUND_FRAMES_MAX || counted > OUTBOUND_BYTES_MAX
    }

    fn take(&mut self, frame: OutFrame) -> bool {
        if self.is_closed {
            return false;
        }
        if let OutFrame::Text(json) = &frame {
            self.live_bytes += json.len();
            self.largest_bytes = self.largest_bytes.max(json.len());
        }
        self.live_frames += 1;
        self.frames.push_back(Waiting::Live(frame));
        self.wake();
        true
    }

    /// Counts a frame that waits no longer.
    fn gone(&mut self, waiting: Waiting) -> OutFrame {
        let frame = match waiting {
            Waiting::Replay(json) => {
                self.replay_bytes = self.replay_bytes.saturating_sub(json.len());
                return OutFrame::Replay(json);
            }
            Waiting::Live(frame) => frame,
        };
        if let OutFrame::Text(json) = &frame {
            self.live_bytes = self.live_bytes.saturating_sub(json.len());
        }
        self.live_frames = self.live_frames.saturating_sub(1);
        if self.live_frames == 0 {
            self.largest_bytes = 0;
        }
        frame
    }

    fn close(&mut self, reason: CloseReason) {
        if !self.is_closed {
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

    #[test]
    fn what_was_queued_before_a_close_still_goes_out() {
        let outbound = Outbound::default();
        assert!(outbound.push(Bytes::from_static(b"{}")));
        outbound.close(CloseReason::new(1000, "done"));
        assert!(!outbound.push(Bytes::from_static(b"{}")));
        assert_eq!(drain(&outbound).len(), 2);
    }
}
