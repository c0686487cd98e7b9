//! How much of replays may wait for a reader. They are outside the limits of what is said live, so whoever joins a
//! room waits until there is room for what was missed there.

use std::sync::Arc;

use iris_protocol::limits::REPLAY_BYTES_MAX;
use tokio::select;
use tokio::time::{Instant, sleep_until};

use super::Outbound;
use super::queue::Queue;

/// Most bytes of replays of one connection that wait for its reader, about: two rooms at their limit.
pub const REPLAYS_BYTES_MAX: usize = 2 * REPLAY_BYTES_MAX;

/// Room for the replay of one room, for as long as this is held.
#[derive(Debug)]
pub(crate) struct ReplayRoom(Arc<Outbound>);

impl Drop for ReplayRoom {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.replays_due = queue.replays_due.saturating_sub(1);
        drop(queue);
        self.0.replayed.notify_waiters();
    }
}

impl Queue {
    fn has_room_for_replay(&self) -> bool {
        let due = (self.replays_due + 1) * REPLAY_BYTES_MAX;
        self.replay_bytes + due <= REPLAYS_BYTES_MAX
    }
}

impl Outbound {
    /// Waits for room for the replay of one room. None where there is none in time, or nobody reads any more.
    pub(crate) async fn replay_room(self: &Arc<Self>, until: Instant) -> Option<ReplayRoom> {
        loop {
            let (replayed, closed) = (self.replayed.notified(), self.closed.notified());
            {
                let mut queue = self.settled();
                if queue.is_closed {
                    return None;
                }
                if queue.has_room_for_replay() {
                    queue.replays_due += 1;
                    return Some(ReplayRoom(Arc::clone(self)));
                }
            }
            select! {
                () = replayed => {}
                () = closed => {}
                () = sleep_until(until) => return None,
            }
        }
    }

    /// Tells those who wait for room, once so much is gone that there may be some.
    pub(super) fn replay_goes_on(&self, waited: usize, waits: usize) {
        if waits < waited && waits <= REPLAY_BYTES_MAX {
            self.replayed.notify_waiters();
        }
    }
}
