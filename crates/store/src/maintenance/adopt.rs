//! A project's database becomes that of another project, server or time.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use iris_protocol::{ProjectId, UserId};
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, params};

use super::payload::{self, Words};
use super::{check, facts, read_only, read_write, usage};
use crate::{StoreError, project};

/// What a database is to be from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// The project that it is from now on.
    pub project_id: ProjectId,
    /// New with each adoption: the positions that clients have are void then. Never empty.
    pub epoch: String,
    /// The users who have another id from now on; all others keep theirs.
    pub users: BTreeMap<UserId, UserId>,
    /// Who brings it along, where it comes from another server or becomes another project. What it has
    /// published of the outbox of its root database is then forgotten: the numbers of another outbox say
    /// nothing here. What it holds is counted anew. Nothing in it acts for anybody else, runs programs
    /// unasked or knows a secret: who wrote it is not known.
    pub importer: Option<UserId>,
}

/// Gives the database at `path`, which no server may have open, to another project, epoch and users:
/// in columns, in rooms, and in events and other structures, but not in what people and models wrote.
/// Forgets the answers that were kept for repeated commands.
///
/// All of it happens or nothing.
///
/// # Errors
/// `Corrupt` for a file that is missing, damaged or no project database, and for one whose schema is
/// not exactly ours; `Newer`; `StorageFull` and `Internal` as the disk fails.
pub fn adopt_project(path: &Path, adoption: &Adoption) -> Result<(), StoreError> {
    let conn = read_only(path, project::SCHEMA)?;
    check::refuse_foreign_schema(&conn, project::SCHEMA)?;
    let before = facts(&conn)?;
    drop(conn);
    let mut conn = read_write(path)?;
    conn.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA foreign_keys = OFF;",
    )?;
    let words = Arc::new(words(&before.project_id, adoption));
    add_functions(&conn, &words)?;
    let tx = conn.transaction()?;
    if adoption.importer.is_some() && tx.table_exists(None, "usage_days")? {
        // Who used what elsewhere is nobody's budget here, and an archive says of anybody what it likes.
        tx.execute_batch("DELETE FROM usage_days; DELETE FROM usage_totals;")?;
    }
    for (table, columns) in tables(&tx)? {
        rewrite(&tx, &table, &columns)?;
    }
    let sql = "UPDATE meta SET project_id = ?1, epoch = ?2";
    tx.execute(sql, params![adoption.project_id.as_str(), adoption.epoch])?;
    if let Some(importer) = &adoption.importer {
        disown(&tx, importer)?;
    }
    tx.execute("DELETE FROM idempotency", [])?;
    tx.commit()?;
    conn.close().map_err(|(_, error)| error)?;
    File::open(path)?.sync_all()?;
    Ok(())
}

/// Takes from a database what it must not bring along. Not all tables are as old as the oldest schema.
fn disown(conn: &Connection, importer: &UserId) -> Result<(), StoreError> {
    // A run goes on with the rights of who started it (INV-12): nobody else has started one here.
    let sql = "UPDATE runs SET started_by = ?1 WHERE ended_at IS NULL OR status = 'interrupted'";
    conn.execute(sql, [importer.as_str()])?;
    conn.execute("UPDATE sessions SET mode = 'default' WHERE mode = 'auto'", [])?;
    // What others have read, and what was recorded, is nothing of this server's. An archive may say otherwise.
    if conn.table_exists(None, "captures")? {
        conn.execute_batch(
            "DELETE FROM read_positions; DELETE FROM capture_records; DELETE FROM captures;
             UPDATE sessions SET capturing = NULL WHERE capturing IS NOT NULL;",
        )?;
    }
    if conn.table_exists(None, "usage")? {
        conn.execute("UPDATE meta SET outbox_id = 0, outbox_seq = 0", [])?;
        let held = usage(conn)?;
        let sql = "UPDATE usage SET rows = ?1, files = ?2, file_bytes = ?3";
        conn.execute(sql, params![held.rows, held.files, held.file_bytes])?;
    }
    // What is allowed without a question is for people here to say.
    if conn.table_exists(None, "permissions")? {
        let asks = "json_group_array(json(iif(value ->> 'action' = 'allow',
                      json_set(value, '$.action', 'ask'), value)))";
        conn.execute_batch(&format!(
            "UPDATE permissions SET action = 'ask' WHERE action = 'allow';
             UPDATE agents SET permissions =
               (SELECT {asks} FROM json_each(agents.permissions) WHERE type = 'object')
               WHERE permissions <> '[]';"
        ))?;
    }
    // Who brings an archive along need not be who knew the secrets in it: they have to be set again. A program
    // is not used until somebody who may have programs run here has looked at it.
    if conn.table_exists(None, "tools")? {
        let emptied = "SELECT json_group_object(key, '') FROM json_each(tools.secrets)";
        conn.execute(&format!("UPDATE tools SET secrets = ({emptied})"), [])?;
        conn.execute("UPDATE tools SET enabled = 0 WHERE kind IS NOT 'http'", [])?;
    }
    if conn.table_exists(None, "mcp_servers")? {
        conn.execute_batch(
            "DELETE FROM mcp_authorizations;
             UPDATE mcp_servers SET enabled = 0, secrets = NULL, client_secret = NULL, client = NULL,
               authorization = NULL, tokens = NULL, definitions = '[]', tools = '[]',
               approved_hash = NULL;",
        )?;
    }
    Ok(())
}

/// The words that have others in their place from now on.
pub(super) fn words(before: &ProjectId, adoption: &Adoption) -> Words {
    let mut words = BTreeMap::new();
    let mut put = |from: String, to: String| {
        if from != to {
            words.insert(from, to);
        }
    };
    put(before.to_string(), adoption.project_id.to_string());
    put(format!("project:{before}"), format!("project:{}", adoption.project_id));
    for (from, to) in &adoption.users {
        put(from.to_string(), to.to_string());
    }
    Words::new(words)
}

/// SQL functions `iris_word(value)` and `iris_json(value)`: the value as it is from now on.
fn add_functions(conn: &Connection, words: &Arc<Words>) -> Result<(), StoreError> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_DIRECTONLY;
    let known = Arc::clone(words);
    conn.create_scalar_function("iris_word", 1, flags, move |context| {
        let value = context.get::<Option<String>>(0)?;
        Ok(value.map(|value| known.word(&value).map_or(value, str::to_owned)))
    })?;
    let known = Arc::clone(words);
    conn.create_scalar_function("iris_json", 1, flags, move |context| {
        let value = context.get::<Option<String>>(0)?;
        Ok(value.map(|value| known.json(&value).unwrap_or(value)))
    })?;
    Ok(())
}

/// A column whose values may hold ids.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: payload::Kind,
}

/// The tables with the columns of theirs that may hold ids; those of virtual tables are left out.
pub(super) fn tables(conn: &Connection) -> Result<Vec<(String, Vec<Column>)>, StoreError> {
    let mut tables = Vec::new();
    for table in check::table_names(conn)? {
        let mut statement = conn.prepare("SELECT name, type FROM pragma_table_info(?1)")?;
        let columns = statement
            .query_map([&table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
            .collect::<Result<Vec<_>, _>>()?;
        let texts = columns.into_iter().filter(|(_, kind)| kind == "TEXT");
        let columns = texts.filter_map(|(name, _)| {
            let kind = payload::Kind::of_column(&name)?;
            Some(Column { name, kind })
        });
        tables.push((table, columns.collect()));
    }
    Ok(tables)
}

/// Changes the values of one table that hold a word with another in its place.
fn rewrite(conn: &Connection, table: &str, columns: &[Column]) -> Result<(), StoreError> {
    for column in columns {
        let function = match column.kind {
            payload::Kind::Word => "iris_word",
            payload::Kind::Structure => "iris_json",
        };
        let (table, name) = (quoted(table), quoted(&column.name));
        let sql = format!(
            "UPDATE {table} SET {name} = {function}({name}) WHERE {name} IS NOT {function}({name})"
        );
        conn.execute(&sql, [])?;
    }
    Ok(())
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
