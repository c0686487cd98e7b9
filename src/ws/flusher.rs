//! Writes to every WebSocket of one thread: what is said to a thousand of them at once costs one wake-up
//! of this task and not a thousand of theirs (docs/decisions/0013).

use std::collections::VecDeque;
use std::sync::Arc;

use actix_http::ws::Codec;
use bytes::BytesMut;
use iris_actors::Node;
use iris_actors::connection::OutFrame;
use iris_actors::supervision::detached;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;

use super::outgoing::Outgoing;

/// Connections that are written to before others of the thread's tasks get their turn.
const AT_ONCE: usize = 32;

/// The connections of one thread that have something to write.
pub(crate) struct Flusher {
    /// None once the thread ends.
    waiting: Mutex<Option<VecDeque<Arc<Outgoing>>>>,
    told: Notify,
}

/// What writing needs, for one connection after the other.
pub(super) struct Scratch {
    pub(super) frames: Vec<Arc<OutFrame>>,
    pub(super) bytes: BytesMut,
    pub(super) codec: Codec,
}

impl Flusher {
    /// Starts one on the current thread, for connections that are served there.
    pub(crate) fn start(node: Node) -> Arc<Self> {
        let flusher = Self::new();
        let running = Running(Arc::clone(&flusher));
        detached(async move {
            loop {
                running.0.told.notified().await;
                // A panic is in the supervision log, and the connection that it concerned has ended.
                node.guarded("flush", running.0.flush()).await.ok();
            }
        });
        flusher
    }

    fn new() -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::new(Some(VecDeque::new())), told: Notify::new() })
    }

    /// Writes what waits for a connection, soon. Never waits itself.
    pub(super) fn add(&self, outgoing: Arc<Outgoing>) {
        let mut waiting = self.waiting.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        waiting.push_back(outgoing);
        if waiting.len() == 1 {
            self.told.notify_one();
        }
    }

    async fn flush(&self) {
        let mut scratch = Scratch::new();
        let mut written = 0;
        // One by one: after a panic the others are still in the list.
        while let Some(outgoing) = self.next() {
            outgoing.flush(&mut scratch);
            written += 1;
            if written % AT_ONCE == 0 {
                yield_now().await;
            }
        }
    }

    fn next(&self) -> Option<Arc<Outgoing>> {
        self.waiting.lock().as_mut()?.pop_front()
    }
}

impl Scratch {
    fn new() -> Self {
        Self { frames: Vec::new(), bytes: BytesMut::new(), codec: Codec::new() }
    }
}

/// The task of a flusher. When its thread ends, so does the list, whose connections hold on to it.
struct Running(Arc<Flusher>);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.waiting.lock() = None;
    }
}

#[cfg(test)]
impl Flusher {
    /// One without a server around it.
    pub(super) fn unguarded() -> Arc<Self> {
        let flusher = Self::new();
        let running = Running(Arc::clone(&flusher));
        detached(async move {
            loop {
                running.0.told.notified().await;
                running.0.flush().await;
            }
        });
        flusher
    }
}
