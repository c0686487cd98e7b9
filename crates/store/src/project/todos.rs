//! The to-do list of a session, which an agent rewrites as a whole.

use std::collections::BTreeSet;

use iris_protocol::{Event, SessionId, Todo, TodoId, TodoPriority, TodoStatus, UserId};
use rusqlite::{Connection, Row, params};

use super::{log, queries};
use crate::column::{to_word, word};
use crate::{Command, StoreError, WriteTx};

const TODOS: &str = "SELECT * FROM todos WHERE session_id = ?1 ORDER BY place";

/// An entry that a list is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTodo {
    /// The entry of the list before that this is, where it is one.
    pub id: Option<TodoId>,
    /// A new id, for an entry that the list before does not have.
    pub new_id: TodoId,
    /// What is to be done.
    pub content: String,
    /// How far it is.
    pub status: TodoStatus,
    /// How much it matters.
    pub priority: TodoPriority,
}

/// Replaces the to-do list of a session. Answers the list as it is then.
///
/// Fails with `NotFound` (session).
#[derive(Debug, Clone)]
pub struct WriteTodos {
    /// The session.
    pub session_id: SessionId,
    /// All entries, in order; at most `TODOS_MAX` of the protocol's limits.
    pub todos: Vec<NewTodo>,
    /// The user with whose rights the run acts.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for WriteTodos {
    type Output = Vec<Todo>;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Vec<Todo>, StoreError> {
        queries::existing_session(tx.conn(), &self.session_id)?;
        // Each id of the list before goes to one entry, however often it is named.
        let before = of_session(tx.conn(), &self.session_id)?;
        let mut known: BTreeSet<TodoId> = before.into_iter().map(|todo| todo.id).collect();
        let todos = self.todos.into_iter().map(|new| {
            let kept = new.id.filter(|id| known.remove(id));
            let (content, status, priority) = (new.content, new.status, new.priority);
            Todo { id: kept.unwrap_or(new.new_id), content, status, priority }
        });
        let todos: Vec<Todo> = todos.collect();
        replace(tx.conn(), &self.session_id, &todos)?;
        let session_id = self.session_id.clone();
        let event = Event::TodoUpdated { session_id, todos: todos.clone() };
        log::in_session(tx, &self.session_id, self.at, Some(&self.by), &event)?;
        Ok(todos)
    }
}

fn replace(conn: &Connection, session_id: &SessionId, todos: &[Todo]) -> Result<(), StoreError> {
    let sql = "DELETE FROM todos WHERE session_id = ?1";
    conn.prepare_cached(sql)?.execute([session_id.as_str()])?;
    let sql = "INSERT INTO todos (session_id, place, id, content, status, priority)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = conn.prepare_cached(sql)?;
    for (place, todo) in todos.iter().enumerate() {
        insert.execute(params![
            session_id.as_str(),
            place,
            todo.id.as_str(),
            todo.content,
            to_word(&todo.status)?,
            to_word(&todo.priority)?,
        ])?;
    }
    Ok(())
}

/// The list of a session, in its order; at most as many as one command writes.
pub(super) fn of_session(
    conn: &Connection,
    session_id: &SessionId,
) -> Result<Vec<Todo>, StoreError> {
    queries::all(conn, TODOS, [session_id.as_str()], |row: &Row<'_>| {
        Ok(Todo {
            id: word(row, "id")?,
            content: row.get("content")?,
            status: word(row, "status")?,
            priority: word(row, "priority")?,
        })
    })
}

/// The list of a session, which must exist.
pub(super) fn list(conn: &Connection, session_id: &SessionId) -> Result<Vec<Todo>, StoreError> {
    queries::existing_session(conn, session_id)?;
    of_session(conn, session_id)
}
