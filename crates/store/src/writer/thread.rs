//! The thread of a writer. It ends when there was nothing to write for a moment and begins anew with the
//! next command: a thousand databases may be open, and one that rests costs neither a thread nor the
//! memory of its statements and pages.

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::StoredEvent;
use super::batch::{Batches, Job};
use crate::StoreError;

/// How long a thread waits for a command before it ends.
const IDLE_AFTER: Duration = Duration::from_millis(250);

/// Whose turn it is: at most one thread has the work.
#[derive(Default)]
pub(super) struct Turn {
    /// What the next thread takes; none while one has it, and after one panicked over it.
    resting: Option<Box<Work>>,
    thread: Option<JoinHandle<()>>,
    /// Whether no thread can be started, for tests.
    #[cfg(test)]
    is_starved: bool,
}

/// What a thread needs to write.
pub(super) struct Work {
    pub(super) writing: Batches,
    pub(super) jobs: Receiver<Box<dyn Job>>,
    pub(super) on_commit: Box<dyn Fn(Vec<StoredEvent>) + Send>,
}

impl Turn {
    pub(super) fn new(work: Work) -> Self {
        Self { resting: Some(Box::new(work)), ..Self::default() }
    }

    /// Whether commands are written, or will be as soon as there is one.
    pub(super) fn is_alive(&self) -> bool {
        self.resting.is_some() || self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    #[cfg(test)]
    pub(super) fn rests(&self) -> bool {
        self.resting.is_some() && self.thread.is_none()
    }

    /// Starts a thread for what was queued, unless one is there. Where the system has none left, nothing
    /// that is queued is done, and the next command tries again.
    pub(super) fn wake(&mut self, name: &str, turn: &Arc<Mutex<Self>>) {
        let Some(work) = self.resting.as_ref().filter(|_| self.thread.is_none()) else { return };
        let turn = Arc::clone(turn);
        let thread = thread::Builder::new().name(name.to_owned());
        // The system refuses more stack than there are addresses.
        #[cfg(test)]
        let thread =
            if self.is_starved { thread.stack_size(1 << (usize::BITS - 2)) } else { thread };
        match thread.spawn(move || take_turn(&turn)) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => {
                tracing::error!(%error, "no thread to write a database");
                let overloaded = StoreError::Overloaded;
                work.jobs.try_iter().for_each(|job| job.acknowledge(Some(&overloaded)));
            }
        }
    }
}

/// Waits for the thread and ends the work. Nothing can be queued any more.
pub(super) fn end(turn: &Mutex<Turn>) {
    let thread = turn.lock().thread.take();
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("the writer thread of a database panicked");
    }
    let resting = turn.lock().resting.take();
    if let Some(work) = resting {
        work.writing.end();
    }
}

fn take_turn(turn: &Mutex<Turn>) {
    let Some(mut work) = turn.lock().resting.take() else { return };
    let mut first = None;
    loop {
        work.write_queued(first.take());
        match work.jobs.recv_timeout(IDLE_AFTER) {
            Ok(job) => {
                first = Some(job);
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => work.writing.rest(),
        }
        // Whoever queues a command has this lock and starts a thread when the work rests here.
        let mut turn = turn.lock();
        match work.jobs.try_recv() {
            Ok(job) => first = Some(job),
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                turn.resting = Some(work);
                // This thread, which has nothing left to do.
                drop(mem::take(&mut turn.thread));
                return;
            }
        }
    }
    work.writing.end();
}

impl Work {
    /// Writes `first` and all that is queued.
    fn write_queued(&mut self, first: Option<Box<dyn Job>>) {
        let mut next = first;
        while let Some(job) = next.take().or_else(|| self.jobs.try_recv().ok()) {
            next = self.writing.write(job, &self.jobs, &self.on_commit);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use iris_protocol::{Event, ProjectId, UserId};

    use super::*;
    use crate::WriteContext;
    use crate::project::{ProjectDatabase, PublishOutbox};
    use crate::root::OutboxEntry;

    fn command(id: u64) -> PublishOutbox {
        let user_id = UserId::from_bits(1);
        let event = Event::MemberRemoved { user_id: user_id.clone() };
        PublishOutbox { entries: vec![OutboxEntry { id, event, by: user_id, at: 0 }] }
    }

    fn rest(database: &ProjectDatabase) {
        while !database.writer().rests() {
            thread::yield_now();
        }
    }

    #[tokio::test]
    async fn a_thread_ends_when_there_is_nothing_to_write_and_the_next_command_has_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("project.db");
        let project_id = ProjectId::from_bits(1);
        ProjectDatabase::create(&path, &project_id, "epoch", 0).unwrap();
        let published = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&published);
        let listen = move |events: Vec<StoredEvent>| {
            count.fetch_add(events.len(), Ordering::SeqCst);
        };
        let database = ProjectDatabase::open(&path, &project_id, listen).unwrap();
        for id in 1..=2 {
            rest(&database);
            assert!(database.writer().is_alive());
            let written = database.writer().submit(command(id), WriteContext::default()).await;
            assert_eq!(written.unwrap().seq, Some(id));
        }
        assert_eq!(published.load(Ordering::SeqCst), 2);

        // Closed while nobody works, it leaves no log behind.
        rest(&database);
        database.close();
        assert!(!path.with_extension("db-wal").exists());

        // Killed out of its rest, it is dead.
        let database = ProjectDatabase::open(&path, &project_id, |_| {}).unwrap();
        database.kill_writer().unwrap();
        while database.writer().is_alive() {
            thread::yield_now();
        }
        let lost = database.writer().submit(command(3), WriteContext::default()).await;
        assert!(matches!(lost, Err(StoreError::Closed)));
    }

    #[tokio::test]
    async fn a_command_without_a_thread_may_be_sent_again_and_a_later_one_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("project.db");
        let project_id = ProjectId::from_bits(1);
        ProjectDatabase::create(&path, &project_id, "epoch", 0).unwrap();
        let database = ProjectDatabase::open(&path, &project_id, |_| {}).unwrap();
        let writer = database.writer();
        rest(&database);
        writer.turn.lock().is_starved = true;
        for id in 1..=2 {
            let refused = writer.submit(command(id), WriteContext::default()).await;
            assert!(matches!(refused, Err(StoreError::Overloaded)), "{refused:?}");
            assert_eq!(writer.queue_depth(), 0);
            assert!(writer.is_alive() && writer.rests());
        }
        writer.turn.lock().is_starved = false;
        let written = writer.submit(command(3), WriteContext::default()).await;
        assert_eq!(written.unwrap().seq, Some(1), "what was refused is not there");
        database.close();
    }
}
