//! Whether a database is whole: what SQLite can tell, what our schema promises, and the hashes of
//! what it holds.

use std::fmt::Write;
use std::path::Path;

use iris_protocol::{AuditRecord, ProjectId};
use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use super::{ProjectFacts, facts, facts_of, read_only};
use crate::head::Head;
use crate::project::blobs::BLOB_BYTES_MAX;
use crate::root::{AuditHead, AuditVerdict};
use crate::{StoreError, database, project, root};

/// Most problems that a report names.
const PROBLEMS_MAX: usize = 5;

/// Reads the whole database of a project: pages, indexes and foreign keys, the schema, the hash of each
/// blob, and whether it has all that was acknowledged. `id` is whose it must be, if that is known. Works beside a running server.
///
/// # Errors
/// `Corrupt` with the first problems found; `Newer`; `Internal` as the disk fails.
pub fn check_project(path: &Path, id: Option<&ProjectId>) -> Result<ProjectFacts, StoreError> {
    let head = Head::read(path);
    let conn = read_only(path, project::SCHEMA)?;
    refuse_foreign_schema(&conn, project::SCHEMA)?;
    let facts = match id {
        Some(id) => facts_of(&conn, id)?,
        None => facts(&conn)?,
    };
    head.check(&facts.epoch, facts.seq)?;
    check_pages(&conn)?;
    check_blobs(&conn)?;
    Ok(facts)
}

/// As [`check_project`], of the root database. Answers its schema version.
///
/// # Errors
/// As [`check_project`].
pub fn check_root(path: &Path) -> Result<u32, StoreError> {
    let conn = read_only(path, root::SCHEMA)?;
    refuse_foreign_schema(&conn, root::SCHEMA)?;
    root::identify(&conn)?;
    check_pages(&conn)?;
    Ok(conn.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Reads the whole audit of a root database and says where it is not what it was. `known` is the head
/// that somebody kept: then also what is missing at the end shows. Works beside a running server.
///
/// # Errors
/// As [`check_project`].
pub fn check_audit(path: &Path, known: Option<&AuditHead>) -> Result<AuditVerdict, StoreError> {
    let conn = read_only(path, root::SCHEMA)?;
    refuse_foreign_schema(&conn, root::SCHEMA)?;
    root::identify(&conn)?;
    // One state of the database, whatever is written meanwhile.
    let transaction = conn.unchecked_transaction()?;
    let verdict = root::verify_audit(&transaction, known)?;
    transaction.finish()?;
    Ok(verdict)
}

/// The records of the audit behind a number, oldest first, of a root database that a server may have open.
///
/// # Errors
/// As [`check_project`].
pub fn audit_after(path: &Path, id: u64, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
    let conn = read_only(path, root::SCHEMA)?;
    root::identify(&conn)?;
    root::audit_after(&conn, id, limit)
}

/// Pages, indexes and foreign keys. Evaluates what the schema says, which has to be ours by then.
fn check_pages(conn: &Connection) -> Result<(), StoreError> {
    let mut statement = conn.prepare(&format!("PRAGMA integrity_check({PROBLEMS_MAX})"))?;
    let problems = statement.query_map([], |row| row.get(0))?;
    let problems = problems.collect::<Result<Vec<String>, _>>()?;
    if problems != ["ok"] {
        return Err(StoreError::corrupt(problems.join("; ")));
    }
    let mut statement = conn.prepare("PRAGMA foreign_key_check")?;
    let orphans = statement.query_map([], |row| {
        Ok(format!("a row of `{}` refers to none", row.get::<_, String>(0)?))
    })?;
    let orphans = orphans.take(PROBLEMS_MAX).collect::<Result<Vec<_>, _>>()?;
    if !orphans.is_empty() {
        return Err(StoreError::corrupt(orphans.join("; ")));
    }
    Ok(())
}

/// One table, index, trigger or view: its type, name and table, and what it was made with.
type Object = (String, String, String, String);

/// Compares the schema of a database with what its migrations make: all of that is there as it was
/// made, and nothing else, since each table, index, trigger and view may bring expressions that SQLite
/// evaluates. Only the statistics of SQLite's own planner may be there besides.
///
/// Comes before anything that reads or writes a table.
pub(super) fn refuse_foreign_schema(
    conn: &Connection,
    schema: &[&'static str],
) -> Result<(), StoreError> {
    let version = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let mut model = Connection::open_in_memory()?;
    database::migrations(schema).to_version(&mut model, version)?;
    let expected = objects(&model)?;
    model.execute_batch("ANALYZE")?;
    let mut allowed = objects(&model)?;
    let found = objects(conn)?;
    if let Some((kind, name, ..)) = expected.iter().find(|object| !found.contains(object)) {
        return Err(StoreError::corrupt(format!(
            "{kind} `{name}` is not that of schema version {version}"
        )));
    }
    for object in &found {
        // Each may be there once.
        let Some(place) = allowed.iter().position(|allowed| allowed == object) else {
            let (kind, name, ..) = object;
            return Err(StoreError::corrupt(format!("{kind} `{name}` is not ours")));
        };
        allowed.swap_remove(place);
    }
    Ok(())
}

/// The whole schema. A run of blanks counts as one and quotes count for nothing: `ALTER TABLE` may put
/// them otherwise in another version of SQLite.
fn objects(conn: &Connection) -> Result<Vec<Object>, StoreError> {
    let mut statement =
        conn.prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")?;
    let objects = statement.query_map([], |row| {
        let sql: Option<String> = row.get(3)?;
        let sql = sql.unwrap_or_default().replace('"', "");
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, sql))
    })?;
    Ok(objects.collect::<Result<_, _>>()?)
}

/// The names of the tables that hold rows of ours; those of SQLite and of virtual tables are left out.
pub(super) fn table_names(conn: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = conn.prepare(
        "SELECT name FROM pragma_table_list
         WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY name",
    )?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}

/// Compares each blob with its hash. SQLite does not notice most flipped bits of a content.
fn check_blobs(conn: &Connection) -> Result<(), StoreError> {
    let has_blobs = conn
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE name = 'blobs' AND type = 'table'",
            [],
            |_| Ok(()),
        )
        .optional()?;
    if has_blobs.is_none() {
        return Ok(());
    }
    let mut statement = conn.prepare("SELECT hash, size, encoding, content FROM blobs")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let hash: Vec<u8> = row.get(0)?;
        let (size, encoding): (u64, String) = (row.get(1)?, row.get(2)?);
        let content = row
            .get_ref(3)?
            .as_blob()
            .map_err(|error| StoreError::corrupt(format!("a blob without content: {error}")))?;
        if !is_blob_whole(&hash, size, &encoding, content) {
            let mut name = String::new();
            for byte in &hash {
                write!(name, "{byte:02x}").map_err(StoreError::internal)?;
            }
            return Err(StoreError::corrupt(format!("blob `{name}` is not what its hash says")));
        }
    }
    Ok(())
}

fn is_blob_whole(hash: &[u8], size: u64, encoding: &str, content: &[u8]) -> bool {
    let matches =
        |plain: &[u8]| plain.len() as u64 == size && Sha256::digest(plain).as_slice() == hash;
    match encoding {
        "plain" => matches(content),
        "zstd" => {
            let capacity = usize::try_from(size).ok().filter(|size| *size <= BLOB_BYTES_MAX);
            capacity.is_some_and(|capacity| {
                zstd::bulk::decompress(content, capacity).is_ok_and(|plain| matches(&plain))
            })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database_with(sql: &str) -> Connection {
        let mut conn = Connection::open_in_memory().unwrap();
        database::migrations(project::SCHEMA).to_latest(&mut conn).unwrap();
        conn.execute_batch(sql).unwrap();
        conn
    }

    fn refusal(conn: &Connection) -> Option<String> {
        refuse_foreign_schema(conn, project::SCHEMA).err().map(|error| error.to_string())
    }

    /// A database with a schema entry that no statement makes.
    fn database_with_entry(kind: &str, name: &str, sql: &str) -> Connection {
        let conn = database_with("PRAGMA writable_schema = ON");
        let entry = "INSERT INTO sqlite_schema VALUES (?1, ?2, 'meta', 0, ?3)";
        conn.execute(entry, [kind, name, sql]).unwrap();
        conn
    }

    #[test]
    fn whatever_is_more_or_other_than_the_migrations_make_is_refused() {
        assert_eq!(refusal(&database_with("")), None);
        assert_eq!(refusal(&database_with("ANALYZE")), None);
        for (kind, name, sql) in [
            ("trigger", "t", "CREATE TRIGGER t AFTER INSERT ON runs BEGIN DELETE FROM runs; END"),
            ("view", "v", "CREATE VIEW v AS SELECT 1"),
            ("index", "i", "CREATE INDEX i ON sessions (hex(title))"),
            ("table", "more", "CREATE TABLE more (x CHECK (length(hex(x)) > 0))"),
        ] {
            let expected = format!("{kind} `{name}` is not ours");
            assert!(refusal(&database_with(sql)).unwrap().contains(&expected), "{sql}");
        }
        let other = "DROP TABLE rooms; CREATE TABLE rooms (room TEXT, head INTEGER)";
        assert!(refusal(&database_with(other)).unwrap().contains("table `rooms`"));
        let gone = "DROP INDEX runs_open";
        assert!(refusal(&database_with(gone)).unwrap().contains("index `runs_open`"));
    }

    /// SQLite takes them all the same: it compares kinds without regard to case, and keeps nobody
    /// from a name of its own who writes the schema's table himself.
    #[test]
    fn an_entry_that_was_written_past_sqlite_is_refused() {
        let sql = "CREATE TRIGGER evil AFTER UPDATE ON meta BEGIN DELETE FROM runs; END";
        for (kind, name) in [("trigger", "sqlite_evil"), ("TRIGGER", "evil"), ("View", "sqlite_v")]
        {
            let expected = format!("{kind} `{name}` is not ours");
            let conn = database_with_entry(kind, name, &sql.replace("evil", name));
            assert!(refusal(&conn).unwrap().contains(&expected), "{kind} {name}");
        }
        let twice = database_with(
            "PRAGMA writable_schema = ON;
             INSERT INTO sqlite_schema SELECT * FROM sqlite_schema WHERE name = 'runs_open'",
        );
        assert!(refusal(&twice).unwrap().contains("index `runs_open` is not ours"));
        let joined = database_with(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, 'TEXT    NOT NULL', 'TEXTNOTNULL')
             WHERE name = 'rooms'",
        );
        assert!(refusal(&joined).unwrap().contains("table `rooms` is not that"));
    }

    #[test]
    fn a_blob_that_is_not_what_its_hash_says_is_found() {
        for (encoding, change) in
            [("plain", false), ("zstd", false), ("plain", true), ("zstd", true)]
        {
            let conn = Connection::open_in_memory().unwrap();
            conn.execute_batch("CREATE TABLE blobs (hash BLOB, size, encoding TEXT, content BLOB)")
                .unwrap();
            let plain = b"what somebody stored".repeat(10);
            let mut stored = match encoding {
                "plain" => plain.clone(),
                _ => zstd::bulk::compress(&plain, 3).unwrap(),
            };
            if change {
                *stored.last_mut().unwrap() ^= 1;
            }
            let row = (Sha256::digest(&plain).to_vec(), plain.len(), encoding, stored);
            conn.execute("INSERT INTO blobs VALUES (?1, ?2, ?3, ?4)", row).unwrap();
            assert_eq!(check_blobs(&conn).is_err(), change, "{encoding}");
        }
    }
}
