//! One transaction of the writer: many commands, one commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Command, Committed, StoredEvent, WriteContext, WriteTx};
use crate::StoreError;

/// Most commands of one transaction.
pub(super) const COMMANDS_MAX: usize = 256;
/// Bytes of events after which a transaction takes no further command.
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Time after which a transaction takes no further command.
const DURATION_MAX: Duration = Duration::from_millis(2);

/// A submitted command without its type.
pub(super) trait Job: Send {
    /// Gives up its place in the queue, runs the command in a savepoint of its own and keeps the
    /// outcome.
    ///
    /// An error means that the whole transaction is lost, not just this command.
    fn run(&mut self, conn: &Connection, events: &mut Vec<StoredEvent>) -> Result<(), StoreError>;

    /// Tells the caller the outcome: `lost` when the transaction did not commit.
    fn acknowledge(self: Box<Self>, lost: Option<&StoreError>);
}

type Outcome<T> = Result<Committed<T>, StoreError>;

/// A command on its way through the writer.
pub(super) struct Submitted<C: Command> {
    command: Option<C>,
    context: WriteContext,
    place: Option<Arc<()>>,
    outcome: Option<Outcome<C::Output>>,
    reply: oneshot::Sender<Outcome<C::Output>>,
}

/// Takes the writer's thread with it.
#[cfg(any(test, feature = "faults"))]
pub(super) struct Death;

#[cfg(any(test, feature = "faults"))]
impl Job for Death {
    #[expect(clippy::panic, reason = "that is what it is for")]
    fn run(&mut self, _: &Connection, _: &mut Vec<StoredEvent>) -> Result<(), StoreError> {
        panic!("the writer was killed on purpose");
    }

    fn acknowledge(self: Box<Self>, _: Option<&StoreError>) {}
}

impl<C: Command> Submitted<C> {
    pub(super) fn new(
        command: C,
        context: WriteContext,
        place: Arc<()>,
        reply: oneshot::Sender<Outcome<C::Output>>,
    ) -> Self {
        Self { command: Some(command), context, place: Some(place), outcome: None, reply }
    }

    fn apply(&mut self, conn: &Connection, events: &mut Vec<StoredEvent>) -> Outcome<C::Output> {
        let key = self.context.idempotency.as_ref();
        if let Some(key) = key {
            key.forget_old(conn)?;
            if let Some(first) = key.recall(conn)? {
                return Ok(first);
            }
        }
        let command = self.command.take().ok_or(StoreError::Closed)?;
        let mark = events.len();
        let output = command.run(&mut WriteTx::new(conn, events))?;
        let seq = events.iter().skip(mark).next_back().map(|event| event.seq);
        let committed = Committed { output, seq, replayed: false };
        if let Some(key) = key {
            key.remember(conn, &committed)?;
        }
        Ok(committed)
    }
}

impl<C: Command> Job for Submitted<C> {
    fn run(&mut self, conn: &Connection, events: &mut Vec<StoredEvent>) -> Result<(), StoreError> {
        drop(self.place.take());
        conn.prepare_cached("SAVEPOINT command")?.execute([])?;
        let mark = events.len();
        let applied = catch_unwind(AssertUnwindSafe(|| self.apply(conn, events)));
        let outcome = applied.unwrap_or_else(|_| Err(StoreError::internal("a command panicked")));
        if let Err(error) = &outcome {
            events.truncate(mark);
            // SQLite gives up the whole transaction on some errors, a full disk among them.
            if conn.is_autocommit() {
                return Err(error.clone());
            }
            conn.prepare_cached("ROLLBACK TO command")?.execute([])?;
        }
        conn.prepare_cached("RELEASE command")?.execute([])?;
        self.outcome = Some(outcome);
        Ok(())
    }

    fn acknowledge(self: Box<Self>, lost: Option<&StoreError>) {
        let outcome = match lost {
            Some(error) => Err(error.clone()),
            None => self.outcome.unwrap_or(Err(StoreError::Closed)),
        };
        // A caller that went away does not want to know.
        drop(self.reply.send(outcome));
    }
}

/// Writes `first` and what else is queued in one transaction, publishes, acknowledges.
pub(super) fn write(
    conn: &Connection,
    first: Box<dyn Job>,
    queue: &Receiver<Box<dyn Job>>,
    on_commit: &impl Fn(Vec<StoredEvent>),
) {
    let mut jobs = vec![first];
    let mut events = Vec::new();
    let lost = transact(conn, queue, &mut jobs, &mut events).err();
    match &lost {
        Some(error) => roll_back(conn, error),
        None if events.is_empty() => {}
        None => publish(events, on_commit),
    }
    for job in jobs {
        job.acknowledge(lost.as_ref());
    }
}

/// Runs the one job in `jobs` and those that are queued, which it adds to `jobs`, and commits.
fn transact(
    conn: &Connection,
    queue: &Receiver<Box<dyn Job>>,
    jobs: &mut Vec<Box<dyn Job>>,
    events: &mut Vec<StoredEvent>,
) -> Result<(), StoreError> {
    let started = Instant::now();
    let mut event_bytes = 0;
    conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    while let Some(job) = jobs.last_mut() {
        let mark = events.len();
        job.run(conn, events)?;
        event_bytes += events.iter().skip(mark).map(|event| event.payload.len()).sum::<usize>();
        let full = jobs.len() >= COMMANDS_MAX
            || event_bytes >= EVENT_BYTES_MAX
            || started.elapsed() >= DURATION_MAX;
        if full {
            break;
        }
        let Ok(next) = queue.try_recv() else { break };
        jobs.push(next);
    }
    conn.prepare_cached("COMMIT")?.execute([])?;
    Ok(())
}

fn roll_back(conn: &Connection, cause: &StoreError) {
    tracing::error!(%cause, "a batch of writes was lost");
    if conn.is_autocommit() {
        return;
    }
    if let Err(error) = conn.execute_batch("ROLLBACK") {
        tracing::error!(%error, "could not roll back");
    }
}

/// Hands the events on. What listens there must not take the writer with it.
fn publish(events: Vec<StoredEvent>, on_commit: &impl Fn(Vec<StoredEvent>)) {
    if catch_unwind(AssertUnwindSafe(|| on_commit(events))).is_err() {
        tracing::error!("the listener for committed events panicked");
    }
}
