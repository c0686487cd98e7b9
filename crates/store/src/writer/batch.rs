//! One transaction of the writer: many commands, one commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::{Command, Committed, Durability, Guards, StoredEvent, WhenFull, WriteContext, WriteTx};
use crate::root::append_audit;
use crate::{CrashPoint, StoreError, crash_point};

/// Most commands of one transaction.
pub(super) const COMMANDS_MAX: usize = 256;
/// Bytes of events after which a transaction takes no further command.
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Time after which a transaction takes no further command.
const DURATION_MAX: Duration = Duration::from_millis(2);

/// A submitted command without its type.
pub(super) trait Job: Send {
    /// What its commit has to survive.
    fn durability(&self) -> Durability;

    /// Gives up its place in the queue, runs the command in a savepoint of its own and keeps the
    /// outcome. While the disk is full, one that takes space is refused.
    ///
    /// An error means that the whole transaction is lost, not just this command.
    fn run(
        &mut self,
        conn: &Connection,
        is_full: bool,
        events: &mut Vec<StoredEvent>,
    ) -> Result<(), StoreError>;

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
    fn durability(&self) -> Durability {
        Durability::PowerLoss
    }

    #[expect(clippy::panic, reason = "that is what it is for")]
    fn run(&mut self, _: &Connection, _: bool, _: &mut Vec<StoredEvent>) -> Result<(), StoreError> {
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

    fn apply(
        &mut self,
        conn: &Connection,
        is_full: bool,
        events: &mut Vec<StoredEvent>,
    ) -> Outcome<C::Output> {
        let is_refused =
            is_full && self.command.as_ref().is_some_and(|c| c.when_full() == WhenFull::Refuse);
        let key = self.context.idempotency.as_ref();
        if let Some(key) = key {
            // Even to forget takes space.
            if !is_full {
                key.forget_old(conn)?;
            }
            if let Some(first) = key.recall(conn)? {
                return Ok(first);
            }
        }
        if is_refused {
            return Err(StoreError::StorageFull);
        }
        let command = self.command.take().ok_or(StoreError::Closed)?;
        let mark = events.len();
        let output = command.run(&mut WriteTx::new(conn, events))?;
        if let Some(audit) = &self.context.audit {
            append_audit(conn, audit)?;
        }
        let seq = events.iter().skip(mark).next_back().map(|event| event.seq);
        let committed = Committed { output, seq, replayed: false };
        if let Some(key) = key {
            key.remember(conn, &committed)?;
        }
        Ok(committed)
    }
}

impl<C: Command> Job for Submitted<C> {
    fn durability(&self) -> Durability {
        C::DURABILITY
    }

    fn run(
        &mut self,
        conn: &Connection,
        is_full: bool,
        events: &mut Vec<StoredEvent>,
    ) -> Result<(), StoreError> {
        drop(self.place.take());
        conn.prepare_cached("SAVEPOINT command")?.execute([])?;
        let mark = events.len();
        let applied = catch_unwind(AssertUnwindSafe(|| self.apply(conn, is_full, events)));
        let outcome = applied.unwrap_or_else(|_| Err(StoreError::internal("a command panicked")));
        if let Err(error) = &outcome {
            events.truncate(mark);
            // SQLite gives up the whole transaction on some errors, a full disk among them. In a damaged
            // file nothing is written any more.
            let is_damaged = matches!(error, StoreError::Corrupt { .. });
            let is_found_full = matches!(error, StoreError::StorageFull) && !is_full;
            if conn.is_autocommit() || is_damaged || is_found_full {
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

/// The transactions of one connection, one after the other.
pub(super) struct Batches {
    conn: Connection,
    guards: Guards,
    /// As the connection is set now.
    durability: Durability,
    #[cfg(feature = "faults")]
    faults: super::faults::Faults,
}

impl Batches {
    /// On a connection that is set to survive a loss of power.
    pub(super) fn new(conn: Connection, guards: Guards) -> Self {
        Self {
            conn,
            guards,
            durability: Durability::PowerLoss,
            #[cfg(feature = "faults")]
            faults: super::faults::Faults::of_environment(),
        }
    }

    /// Gives the memory of statements and pages back.
    pub(super) fn rest(&self) {
        self.conn.flush_prepared_statement_cache();
        if let Err(error) = self.conn.execute_batch("PRAGMA shrink_memory") {
            tracing::warn!(%error, "an idle database keeps its memory");
        }
    }

    /// Empties the write-ahead log into the file, unless the file is to stay as it is.
    pub(super) fn end(self) {
        if !self.guards.may_empty_log(&self.conn) {
            return;
        }
        let truncated = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        if let Err(error) = truncated {
            tracing::warn!(%error, "could not empty the write-ahead log");
        }
    }

    /// Writes `first` and what else is queued in one transaction, publishes, acknowledges. Answers a
    /// command that was taken out of the queue and needs a transaction of another durability.
    pub(super) fn write(
        &mut self,
        first: Box<dyn Job>,
        queue: &Receiver<Box<dyn Job>>,
        on_commit: &impl Fn(Vec<StoredEvent>),
    ) -> Option<Box<dyn Job>> {
        let mut batch = Batch { jobs: vec![first], events: Vec::new(), next: None };
        let began = Instant::now();
        let lost = self.attempt(queue, &mut batch).err();
        self.guards.transaction_ended();
        match (self.guards.figures(), &lost) {
            (Some(figures), None) => figures.committed(batch.jobs.len(), began.elapsed()),
            (Some(figures), Some(_)) => figures.lost(),
            (None, _) => {}
        }
        let lost = lost.map(|error| self.guards.explain(error, &self.conn));
        let Batch { jobs, events, next } = batch;
        match &lost {
            Some(error) => roll_back(&self.conn, error),
            None if events.is_empty() => {}
            None => publish(events, on_commit),
        }
        for job in jobs {
            job.acknowledge(lost.as_ref());
        }
        next
    }

    /// Writes the batch to files that are sound before and after, and notes what it acknowledges.
    fn attempt(
        &mut self,
        queue: &Receiver<Box<dyn Job>>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        self.guards.check()?;
        self.transact(queue, batch)?;
        self.guards.check_committed()?;
        // What may be lost with the power must not be noted as kept.
        if self.durability == Durability::PowerLoss
            && let Some(last) = batch.events.last()
        {
            self.guards.acknowledge(last.seq);
        }
        Ok(())
    }

    /// Runs the one job of the batch and those that are queued, which it adds to the batch, and commits.
    fn transact(
        &mut self,
        queue: &Receiver<Box<dyn Job>>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let started = Instant::now();
        let Batch { jobs, events, next } = batch;
        if let Some(first) = jobs.first() {
            self.set(first.durability())?;
        }
        let (mut event_bytes, is_full) = (0, self.guards.is_full());
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        while let Some(job) = jobs.last_mut() {
            let mark = events.len();
            job.run(&self.conn, is_full, events)?;
            event_bytes += events.iter().skip(mark).map(|event| event.payload.len()).sum::<usize>();
            let full = jobs.len() >= COMMANDS_MAX
                || event_bytes >= EVENT_BYTES_MAX
                || started.elapsed() >= DURATION_MAX;
            if full {
                break;
            }
            match queue.try_recv() {
                Ok(job) if job.durability() == self.durability => jobs.push(job),
                Ok(other) => {
                    *next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        #[cfg(feature = "faults")]
        if let Some(early) = self.faults.acknowledge_early {
            jobs.drain(..).for_each(|job| job.acknowledge(None));
            std::thread::sleep(early);
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        crash_point(CrashPoint::AfterCommitBeforeFanout);
        Ok(())
    }

    /// SQLite takes the setting between transactions alone.
    fn set(&mut self, durability: Durability) -> Result<(), StoreError> {
        #[cfg(feature = "faults")]
        let durability =
            if self.faults.does_not_sync { Durability::ProcessDeath } else { durability };
        if self.durability == durability {
            return Ok(());
        }
        let synchronous = match durability {
            Durability::ProcessDeath => "NORMAL",
            Durability::PowerLoss => "FULL",
        };
        self.conn.pragma_update(None, "synchronous", synchronous)?;
        self.durability = durability;
        Ok(())
    }
}

/// What happens in one transaction.
struct Batch {
    /// In the order of their commit; the last one may not have run.
    jobs: Vec<Box<dyn Job>>,
    events: Vec<StoredEvent>,
    /// The first command that does not belong to it.
    next: Option<Box<dyn Job>>,
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
