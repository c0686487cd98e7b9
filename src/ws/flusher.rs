//! Writes to every WebSocket of one thread: what is said to a thousand of them at once costs one wake-up
//! of this task and not a thousand of theirs (docs/decisions/0013 and 0014).

use std::collections::VecDeque;
use std::sync::Arc;

use actix_http::ws::Codec;
use bytes::BytesMut;
use iris_actors::Node;
use iris_actors::connection::{Bundle, Courier, Next, OutFrame};
use iris_actors::supervision::detached;
use parking_lot::Mutex;
use tokio::task::yield_now;

use super::outgoing::{Outgoing, WRITE_BYTES};

/// Connections that are written to before others of the thread's tasks get their turn.
const AT_ONCE: usize = 8;
/// Of the connections that are written to alone, one of so many parts is, at least, between two deliveries to many.
const PARTS: usize = 4;
/// Bytes for which a write to each reader is not too much: what comes meanwhile waits for the next one.
const WORTH_A_WRITE: usize = WRITE_BYTES / 2;
/// Readers for whom something is queued before others get theirs.
const QUEUED_AT_ONCE: usize = 512;

/// Panics over one delivery before it is left: its readers find out that it is missing.
const PANICS_MAX: u32 = 16;

/// The connections of one thread that have something to write, and what is said to many of them.
pub(crate) struct Flusher {
    courier: Arc<Courier>,
    /// None once the thread ends.
    waiting: Mutex<Option<VecDeque<Arc<Outgoing>>>>,
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
            let (mut scratch, mut panics) = (Scratch::new(), 0);
            loop {
                // A panic is in the supervision log, and the connection that it concerned has ended: the
                // others get what waits for them.
                match node.guarded("flush", running.0.flush(&mut scratch)).await {
                    Ok(true) => panics = 0,
                    Ok(false) => running.0.courier.told().await,
                    Err(_) => {
                        panics += 1;
                        scratch = Scratch::new();
                        if panics % PANICS_MAX == 0 {
                            running.0.courier.skip();
                        }
                    }
                }
            }
        });
        flusher
    }

    fn new() -> Arc<Self> {
        Arc::new(Self { courier: Arc::default(), waiting: Mutex::new(Some(VecDeque::new())) })
    }

    /// What brings frames that are said to many.
    pub(super) fn courier(&self) -> &Arc<Courier> {
        &self.courier
    }

    /// Writes what waits for a connection, soon. Never waits itself.
    pub(super) fn add(&self, outgoing: Arc<Outgoing>) {
        let mut waiting = self.waiting.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        waiting.push_back(outgoing);
        if waiting.len() == 1 {
            self.courier.tell();
        }
    }

    /// Deliveries, and then connections, get their turns. Says whether there were any.
    async fn flush(&self, scratch: &mut Scratch) -> bool {
        let delivered = self.deliver(scratch).await;
        let listed = self.count();
        self.write(listed, scratch).await;
        delivered || listed > 0
    }

    /// Brings what waits to be brought; says whether anything did.
    async fn deliver(&self, scratch: &mut Scratch) -> bool {
        let count = self.courier.count();
        let (mut left, mut queued) = (count, 0);
        while left > 0 {
            match self.courier.next(WRITE_BYTES) {
                Some(Next::Together(bundle)) => {
                    left = left.saturating_sub(bundle.deliveries().len());
                    self.hand_out(&bundle, scratch).await;
                }
                Some(Next::Apart(delivery)) => {
                    left -= 1;
                    queued += self.courier.queue(&delivery);
                    if queued >= QUEUED_AT_ONCE {
                        queued = 0;
                        yield_now().await;
                    }
                }
                None => break,
            }
        }
        count > 0
    }

    /// Brings deliveries to their readers. When others come that fit into the same write, what is left is
    /// joined with them.
    async fn hand_out(&self, bundle: &Bundle, scratch: &mut Scratch) {
        let (wire, deliveries) = (scratch.encoded(bundle), bundle.deliveries());
        for batch in bundle.batches() {
            for reader in batch {
                reader.transport.deliver(bundle, &wire);
            }
            yield_now().await;
            if wire.len() < WORTH_A_WRITE && self.courier.count() > deliveries.len() {
                for delivery in deliveries {
                    self.courier.queue(delivery);
                }
                return;
            }
        }
        for delivery in deliveries {
            self.courier.done(delivery);
        }
    }

    async fn write(&self, count: usize, scratch: &mut Scratch) {
        for written in 1..=count {
            // One by one: after a panic the others are still in the list.
            let Some(outgoing) = self.next() else { return };
            outgoing.flush(scratch);
            if written % AT_ONCE == 0 {
                yield_now().await;
                // What is said to many does not wait for all who are written to alone.
                if written * PARTS >= count && self.courier.count() > 0 {
                    return;
                }
            }
        }
    }

    fn next(&self) -> Option<Arc<Outgoing>> {
        self.waiting.lock().as_mut()?.pop_front()
    }

    fn count(&self) -> usize {
        self.waiting.lock().as_ref().map_or(0, VecDeque::len)
    }
}

impl Scratch {
    fn new() -> Self {
        Self { frames: Vec::new(), bytes: BytesMut::new(), codec: Codec::new() }
    }
}

/// The task of a flusher. When its thread ends, so do its lists, whose connections hold on to it.
struct Running(Arc<Flusher>);

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.waiting.lock() = None;
        self.0.courier.end();
    }
}

#[cfg(test)]
impl Flusher {
    /// One without a server around it.
    pub(super) fn unguarded() -> Arc<Self> {
        let flusher = Self::new();
        let running = Running(Arc::clone(&flusher));
        detached(async move {
            let mut scratch = Scratch::new();
            loop {
                running.0.courier.told().await;
                while running.0.flush(&mut scratch).await {}
            }
        });
        flusher
    }
}
