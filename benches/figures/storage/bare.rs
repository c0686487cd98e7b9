//! The limit: one thread that writes, with the same group commit and nothing around it.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use rusqlite::{Connection, params_from_iter};
use tokio::sync::oneshot;

use super::statements::Work;

/// As the server's.
const COMMANDS_MAX: usize = 256;
const DURATION_MAX: Duration = Duration::from_millis(2);
const QUEUED_MAX: usize = 1024;

/// A command and whoever waits for it.
type Job = (Work, oneshot::Sender<()>);

/// The thread and the way to it.
pub(crate) struct BareWriter {
    queue: SyncSender<Job>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl BareWriter {
    /// Starts a thread that owns `conn`.
    pub(crate) fn start(conn: Connection) -> Self {
        let (queue, jobs) = sync_channel(QUEUED_MAX);
        Self { queue, thread: thread::spawn(move || write(&conn, &jobs)) }
    }

    /// Commits the statements of a command.
    pub(crate) async fn commit(&self, work: Work) -> anyhow::Result<()> {
        let (done, committed) = oneshot::channel();
        self.queue.try_send((work, done)).context("the queue is full")?;
        Ok(committed.await?)
    }

    /// Waits for the end of the thread.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        drop(self.queue);
        self.thread.join().ok().context("the thread panicked")?
    }
}

fn write(conn: &Connection, jobs: &Receiver<Job>) -> anyhow::Result<()> {
    while let Ok((work, done)) = jobs.recv() {
        let started = Instant::now();
        let mut waiting = vec![done];
        conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        run(conn, &work)?;
        while waiting.len() < COMMANDS_MAX && started.elapsed() < DURATION_MAX {
            let Ok((work, done)) = jobs.try_recv() else { break };
            run(conn, &work)?;
            waiting.push(done);
        }
        conn.prepare_cached("COMMIT")?.execute([])?;
        for done in waiting {
            // Whoever gave up does not want to know.
            done.send(()).ok();
        }
    }
    Ok(())
}

fn run(conn: &Connection, work: &Work) -> rusqlite::Result<()> {
    for statement in work.iter() {
        let mut prepared = conn.prepare_cached(&statement.sql)?;
        let mut rows = prepared.query(params_from_iter(&statement.values))?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}
