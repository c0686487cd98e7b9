//! Messages that go before those that wait: they join the run that works, or take its place.
//!
//! Such a message has a run of its own like any that waits, so that nothing is lost whenever the server
//! stops. When it joins the other run, its own one is gone; when that has ended before, its own one is the
//! next to start.

use iris_protocol::{
    Event, Message, MessageId, Run, RunId, RunStatus, SessionId, UserId, WhenBusy,
};
use rusqlite::{Connection, Row, params};

use super::messages::next_run_number;
use super::rows::{self, NumberedRun};
use super::steps::OpenAnswer;
use super::{log, queries};
use crate::{Command, StoreError, WriteTx, column};

const JOINING: &str = "SELECT * FROM runs WHERE joins = ?1 ORDER BY number";
const WAITS: &str = "SELECT * FROM runs WHERE id = ?1 AND joins IS NOT NULL";
const LAST_JOINED: &str =
    "SELECT max(run_number) FROM messages WHERE run_id = ?1 AND after_step IS NOT NULL";
/// The users whose messages joined a run, or one of those that set it to work.
const JOINED_BY: &str = "WITH RECURSIVE above (id) AS (
         SELECT ?1
         UNION SELECT t.run_id FROM above b JOIN tasks t ON t.child_run_id = b.id
     ) SELECT m.created_by FROM above b JOIN messages m
         ON m.run_id = b.id AND m.after_step IS NOT NULL AND m.created_by IS NOT NULL";
const QUESTION: &str =
    "SELECT * FROM messages WHERE session_id = ?1 AND run_number = ?2 AND place = 0";

/// Where a new message comes to stand.
pub(super) struct Placed {
    /// Of its run.
    pub(super) number: u32,
    /// The run that it is to join.
    pub(super) joins: Option<RunId>,
    /// The run that ends for it.
    pub(super) interrupts: Option<RunId>,
}

/// Finds the place of a new message among the runs that are open, and makes room there.
pub(super) fn place(
    tx: &WriteTx<'_>,
    session_id: &SessionId,
    when_busy: WhenBusy,
    open: &[NumberedRun],
) -> Result<Placed, StoreError> {
    let last = next_run_number(tx, session_id)?;
    let active = open.first();
    let (joins, interrupts) = match (when_busy, active) {
        (WhenBusy::Queue | WhenBusy::Reject, _) | (_, None) => (None, None),
        (WhenBusy::Steer, Some(active)) => (Some(active), None),
        (WhenBusy::Interrupt, Some(active)) => (None, Some(active)),
    };
    let Some(active) = joins.or(interrupts) else {
        return Ok(Placed { number: last, joins: None, interrupts: None });
    };
    let mut behind = last_of(tx.conn(), active)?;
    if joins.is_some() {
        let steering = open.iter().filter(|run| run.joins.as_ref() == Some(&active.run.id));
        behind = steering.map(|run| run.number).fold(behind, u32::max);
    }
    let number = behind + 1;
    make_room(tx.conn(), session_id, number)?;
    let id = |run: &NumberedRun| run.run.id.clone();
    Ok(Placed { number, joins: joins.map(id), interrupts: interrupts.map(id) })
}

/// The number of the last message of a run: its own, or that of one that joined it.
pub(super) fn last_of(conn: &Connection, run: &NumberedRun) -> Result<u32, StoreError> {
    let joined: Option<u32> =
        queries::one(conn, LAST_JOINED, [run.run.id.as_str()], |row| row.get(0))?;
    Ok(joined.map_or(run.number, |joined| joined.max(run.number)))
}

/// Moves the runs from `number` on, which are queued, one place back, and with them their messages. By way
/// of negative numbers: each number is unique at all times.
fn make_room(conn: &Connection, session_id: &SessionId, number: u32) -> Result<(), StoreError> {
    for sql in [
        "UPDATE runs SET number = -(number + 1) WHERE session_id = ?1 AND number >= ?2",
        "UPDATE messages SET run_number = -(run_number + 1)
         WHERE session_id = ?1 AND run_number >= ?2",
    ] {
        conn.prepare_cached(sql)?.execute(params![session_id.as_str(), number])?;
    }
    for sql in [
        "UPDATE runs SET number = -number WHERE session_id = ?1 AND number < 0",
        "UPDATE messages SET run_number = -run_number WHERE session_id = ?1 AND run_number < 0",
    ] {
        conn.prepare_cached(sql)?.execute([session_id.as_str()])?;
    }
    Ok(())
}

/// Notes which run the message of another one is to join.
pub(super) fn is_to_join(conn: &Connection, id: &RunId, joins: &RunId) -> Result<(), StoreError> {
    let sql = "UPDATE runs SET joins = ?2 WHERE id = ?1";
    conn.prepare_cached(sql)?.execute([id.as_str(), joins.as_str()])?;
    Ok(())
}

/// Lets the messages that wait for it join a run: from now on they are part of it, behind the steps that it
/// has made. Answers how many. Those of a run that is to be cancelled start the next one instead.
///
/// Fails with `NotFound` (run, message), or `Conflict`: `run_ended`.
#[derive(Debug, Clone)]
pub struct JoinMessages {
    /// The session.
    pub session_id: SessionId,
    /// The run, which is about to ask its model.
    pub run_id: RunId,
    /// Its answer.
    pub message_id: MessageId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for JoinMessages {
    type Output = u32;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<u32, StoreError> {
        let open = OpenAnswer::find(tx, &self.session_id, &self.run_id, &self.message_id)?;
        if open.cancel_requested {
            return Ok(0);
        }
        let mut count = 0;
        for waiting in queries::all(tx.conn(), JOINING, [self.run_id.as_str()], rows::run)? {
            let mut message = question_of(tx.conn(), &waiting)?;
            message.after_step = Some(open.run.steps);
            let sql = "UPDATE messages SET after_step = ?2 WHERE id = ?1";
            tx.conn().prepare_cached(sql)?.execute(params![message.id.as_str(), open.run.steps])?;
            forget_run(tx.conn(), &waiting.run.id)?;
            tell(tx, message, self.at)?;
            count += 1;
        }
        Ok(count)
    }
}

/// A run ended: the messages that were to join it start runs of their own, and so does its own one where it
/// was to join another.
pub(super) fn run_ended(tx: &mut WriteTx<'_>, ended: &RunId, at: i64) -> Result<(), StoreError> {
    let mut joining = queries::all(tx.conn(), JOINING, [ended.as_str()], rows::run)?;
    joining.extend(queries::first(tx.conn(), WAITS, [ended.as_str()], rows::run)?);
    for waiting in joining {
        let mut message = question_of(tx.conn(), &waiting)?;
        let id = waiting.run.id;
        let sql = "UPDATE messages SET run_id = ?2 WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute([message.id.as_str(), id.as_str()])?;
        let sql = "UPDATE runs SET joins = NULL WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute([id.as_str()])?;
        message.run_id = Some(id);
        tell(tx, message, at)?;
    }
    Ok(())
}

/// Removes the run of a message that does not start one.
pub(super) fn forget_run(conn: &Connection, id: &RunId) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM runs WHERE id = ?1")?.execute([id.as_str()])?;
    Ok(())
}

fn question_of(conn: &Connection, waiting: &NumberedRun) -> Result<Message, StoreError> {
    let key = params![waiting.run.session_id.as_str(), waiting.number];
    let found = queries::first(conn, QUESTION, key, rows::message)?;
    found.ok_or_else(|| StoreError::internal("a queued run without its message"))
}

fn tell(tx: &mut WriteTx<'_>, message: Message, at: i64) -> Result<(), StoreError> {
    let session_id = message.session_id.clone();
    let event = Event::MessageUpdated { session_id: session_id.clone(), message };
    log::in_session(tx, &session_id, at, None, &event)
}

/// Whether messages wait to join a run.
pub(super) fn has_joining(conn: &Connection, id: &RunId) -> Result<bool, StoreError> {
    Ok(conn.prepare_cached(JOINING)?.exists([id.as_str()])?)
}

/// The users whose messages joined a run, or one above it.
///
/// Bounded by the steps of a run, and by the messages that may wait at each.
pub(super) fn joined_by(conn: &Connection, id: &RunId) -> Result<Vec<UserId>, StoreError> {
    let read = |row: &Row<'_>| column::word(row, "created_by");
    let mut users: Vec<UserId> = queries::all(conn, JOINED_BY, [id.as_str()], read)?;
    users.sort();
    users.dedup();
    Ok(users)
}

/// Whether a run that ended did so before it started: it was taken back.
pub(super) fn was_taken_back(run: &Run) -> bool {
    run.status == RunStatus::Cancelled && run.started_at.is_none()
}
