//! The statements of a command with their values, as SQLite was given them, so that the bare limit is
//! measured with nothing else.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail, ensure};
use iris_store::{Command, StoreError, WriteTx};
use rusqlite::Connection;
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::types::Value;

/// One statement and its values.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) sql: Arc<str>,
    pub(crate) values: Vec<Value>,
}

/// The statements of one command, in order, without its transaction.
pub(crate) type Work = Arc<Vec<Statement>>;

/// Texts as SQLite gives them: with parameters, and with their values in place.
static TRACED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// How the statements of a command begin and end.
const BEGIN: &str = "SAVEPOINT command";
const END: &str = "RELEASE command";

/// Begins to note what its connection is given.
pub(crate) struct BeginTrace;

impl Command for BeginTrace {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        tx.conn().trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(note));
        Ok(())
    }
}

fn note(event: TraceEvent<'_>) {
    let TraceEvent::Stmt(statement, text) = event else { return };
    // What triggers and virtual tables do is done again by the statement that made them do it.
    let is_inner = text.starts_with("--") || text.contains("'main'.") || text.contains("\"main\".");
    if !is_inner && let Ok(mut traced) = TRACED.lock() {
        traced.push((statement.sql().into_owned(), statement.expanded_sql().unwrap_or_default()));
    }
}

/// What was noted since [`BeginTrace`], one entry for each command.
pub(crate) fn traced() -> anyhow::Result<Vec<Work>> {
    let traced = std::mem::take(&mut *TRACED.lock().ok().context("the trace was lost")?);
    let mut known: HashMap<String, Arc<str>> = HashMap::new();
    let (mut commands, mut command) = (Vec::new(), None);
    for (sql, expanded) in traced {
        if sql == BEGIN {
            command = Some(Vec::new());
        }
        let Some(statements) = &mut command else { continue };
        let values = values(&sql, &expanded)?;
        let is_end = sql == END;
        let sql = known.entry(sql).or_insert_with_key(|sql| sql.as_str().into());
        statements.push(Statement { sql: Arc::clone(sql), values });
        if is_end {
            commands.extend(command.take().map(Arc::new));
        }
    }
    ensure!(!commands.is_empty(), "nothing was traced");
    Ok(commands)
}

/// The values that stand where the parameters were, by number.
fn values(sql: &str, expanded: &str) -> anyhow::Result<Vec<Value>> {
    let mut values = Vec::new();
    let (mut sql, mut expanded) = (sql, expanded);
    while let Some((before, rest)) = sql.split_once('?') {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = rest.split_at(digits);
        let number: usize = number.parse().with_context(|| format!("a nameless `?` in {sql}"))?;
        let after = expanded.strip_prefix(before).context("the texts differ")?;
        let (value, after) = literal(after)?;
        if values.len() < number {
            values.resize(number, Value::Null);
        }
        if let Some(place) = values.get_mut(number - 1) {
            *place = value;
        }
        (sql, expanded) = (rest, after);
    }
    Ok(values)
}

/// The literal at the begin of a text, and the rest.
fn literal(text: &str) -> anyhow::Result<(Value, &str)> {
    if let Some(mut rest) = text.strip_prefix('\'') {
        let mut value = String::new();
        loop {
            let (piece, after) = rest.split_once('\'').context("a text without an end")?;
            value.push_str(piece);
            let Some(more) = after.strip_prefix('\'') else {
                return Ok((Value::Text(value), after));
            };
            value.push('\'');
            rest = more;
        }
    }
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"-+.'".contains(c));
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    let value = if word == "NULL" {
        Value::Null
    } else if let Some(digits) = word.strip_prefix("x'") {
        let digits = digits.trim_end_matches('\'').as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        Value::Blob(digits.chunks(2).filter_map(byte).collect())
    } else if let Ok(integer) = word.parse::<i64>() {
        Value::Integer(integer)
    } else if let Ok(real) = word.parse::<f64>() {
        Value::Real(real)
    } else {
        bail!("`{word}` is no literal");
    };
    Ok((value, rest))
}

/// A connection as the server's writers have it.
pub(crate) fn connect(path: &Path) -> anyhow::Result<Connection> {
    let conn = Connection::open(path)?;
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864;
         PRAGMA wal_autocheckpoint = 250; PRAGMA cache_size = -2048;",
    )?;
    conn.set_prepared_statement_cache_capacity(128);
    Ok(conn)
}
