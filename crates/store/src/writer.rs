//! What writes a database, one thread at a time, and the group commit in it.
//!
//! Commands are plain data. The thread takes one, drains what else is queued, runs all of them in
//! one transaction with a savepoint each, commits, publishes their events and only then
//! acknowledges (INV-1). Commands of one transaction are of one [`Durability`].

mod batch;
#[cfg(feature = "faults")]
mod faults;
mod guards;
mod idempotency;
mod thread;
mod tx;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{SendError, Sender, channel};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::StoreError;
use batch::{Batches, Job, Submitted};
use thread::{Turn, Work};

pub(crate) use guards::Guards;
pub use idempotency::{IdempotencyKey, WriteContext};
pub(crate) use tx::EVENT_BYTES;
pub use tx::{StoredEvent, WriteTx};

/// Most commands that may wait for the writer of one database.
pub const QUEUED_COMMANDS_MAX: usize = 1024;

/// A change of a database: plain data that knows how to apply itself.
///
/// Ids and times are fields given by the caller, so that a command draws on nothing but the
/// database. A command that fails or panics leaves nothing behind.
pub trait Command: Send + 'static {
    /// What a commit of it survives.
    const DURABILITY: Durability = Durability::PowerLoss;

    /// What the caller learns. Stored as JSON when the write carries an idempotency key, so it
    /// must not hold a secret.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// What becomes of it while the disk is full.
    fn when_full(&self) -> WhenFull {
        WhenFull::Refuse
    }

    /// Applies the change inside the writer's transaction.
    ///
    /// # Errors
    /// Whatever the command refuses; its own changes are rolled back.
    fn run(self, tx: &mut WriteTx<'_>) -> Result<Self::Output, StoreError>;
}

/// What an acknowledged command survives. The order is the order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The end of the process, however it ends: the commit is in the system's cache of the file
    /// (`PRAGMA synchronous = NORMAL`). For what can be made again, such as text that streams.
    ProcessDeath,
    /// A loss of power: the commit is on the disk (`PRAGMA synchronous = FULL`).
    PowerLoss,
}

/// What becomes of a command while the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused with `StorageFull` before it runs: it would take space.
    Refuse,
    /// It runs, in the space of the reserve: it ends something, cleans up, or records what has happened
    /// already.
    Allow,
}

/// A command that may take the space of the reserve, whatever it is: for what somebody put an end to
/// and whose last words are still to be written.
#[derive(Debug, Clone)]
pub struct FromReserve<C>(pub C);

impl<C: Command> Command for FromReserve<C> {
    const DURABILITY: Durability = C::DURABILITY;

    type Output = C::Output;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Self::Output, StoreError> {
        self.0.run(tx)
    }
}

/// What a command that committed did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed<T> {
    /// What the command answered.
    pub output: T,
    /// The number of its last event; none when it published nothing.
    pub seq: Option<u64>,
    /// Whether an earlier command with the same idempotency key did the work.
    pub replayed: bool,
}

/// The handle to the thread that writes a database. There is one while there is something to write.
///
/// Dropping it is closing it: what was submitted is still written, then the write-ahead log is
/// emptied into the file and the thread joined. That blocks, so do it off the async threads. A
/// database that turned out to be damaged is left as it is.
pub struct Writer {
    name: &'static str,
    /// Bounded by what waits: a queue of its own bound would take its memory beforehand.
    queue: Option<Sender<Box<dyn Job>>>,
    turn: Arc<Mutex<Turn>>,
    /// Each command holds a clone as long as it waits.
    waiting: Arc<()>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Writer {
    /// A writer whose threads are called `name`. `conn` is theirs from now on.
    ///
    /// `on_commit` runs on such a thread after each commit with the events of the batch in the order
    /// of `seq`, before any of its commands is acknowledged. It must not block.
    pub(crate) fn new(
        conn: Connection,
        name: &'static str,
        guards: Guards,
        on_commit: impl Fn(Vec<StoredEvent>) + Send + 'static,
    ) -> Self {
        let (queue, jobs) = channel();
        let on_commit = Box::new(on_commit);
        let work = Work { writing: Batches::new(conn, guards), jobs, on_commit };
        let turn = Arc::new(Mutex::new(Turn::new(work)));
        Self { name, queue: Some(queue), turn, waiting: Arc::default() }
    }

    /// Queues a command. Never blocks; a full queue, a system without threads and a closed writer show in
    /// the receipt.
    pub fn submit<C: Command>(&self, command: C, context: WriteContext) -> Receipt<C::Output> {
        let (reply, receipt) = oneshot::channel();
        let is_full = self.queue_depth() >= QUEUED_COMMANDS_MAX;
        let place = Arc::clone(&self.waiting);
        let job = Box::new(Submitted::new(command, context, place, reply));
        if is_full {
            job.acknowledge(Some(&StoreError::Overloaded));
        } else if let Err(job) = self.enqueue(job) {
            job.acknowledge(Some(&StoreError::Closed));
        }
        Receipt(receipt)
    }

    fn enqueue(&self, job: Box<dyn Job>) -> Result<(), Box<dyn Job>> {
        let Some(queue) = &self.queue else { return Err(job) };
        let mut turn = self.turn.lock();
        queue.send(job).map_err(|SendError(job)| job)?;
        turn.wake(self.name, &self.turn);
        Ok(())
    }

    /// Commands that wait and have not begun; at most [`QUEUED_COMMANDS_MAX`] and those on their way
    /// into the queue.
    pub fn queue_depth(&self) -> usize {
        Arc::strong_count(&self.waiting) - 1
    }

    /// Gone with the writer; held by it and by each command that waits.
    pub(crate) fn waiting(&self) -> Weak<()> {
        Arc::downgrade(&self.waiting)
    }

    /// False once a thread panicked outside of a command: then nothing is written any more, and every command, those that waited too, answers `Closed`, perhaps a moment before
    /// this turns.
    pub fn is_alive(&self) -> bool {
        self.turn.lock().is_alive()
    }

    /// Ends the thread by a panic outside of a command, once the commands before it are done. Those
    /// of the same transaction are lost with it.
    ///
    /// # Errors
    /// `Closed` when the thread has ended.
    #[cfg(any(test, feature = "faults"))]
    pub fn kill(&self) -> Result<(), StoreError> {
        self.enqueue(Box::new(batch::Death)).map_err(|_| StoreError::Closed)
    }

    /// Whether there is no thread, because there is nothing to write.
    #[cfg(test)]
    fn rests(&self) -> bool {
        self.turn.lock().rests()
    }

    /// Writes what was submitted, empties the write-ahead log and waits for the thread to end.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        thread::end(&self.turn);
    }
}

/// The promise of a command's outcome. Dropping it does not undo the write.
#[derive(Debug)]
pub struct Receipt<T>(oneshot::Receiver<Result<Committed<T>, StoreError>>);

impl<T> Receipt<T> {
    /// Waits for the outcome on the current thread: not for an async one.
    ///
    /// # Errors
    /// As the command's; `Closed` when the writer ended before it.
    pub fn wait(self) -> Result<Committed<T>, StoreError> {
        self.0.blocking_recv().unwrap_or(Err(StoreError::Closed))
    }
}

impl<T> Future for Receipt<T> {
    type Output = Result<Committed<T>, StoreError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| outcome.unwrap_or(Err(StoreError::Closed)))
    }
}

#[cfg(test)]
mod full_tests;
