//! No statement of this crate reads a growing table from end to end, or sorts what has no bound.
//!
//! The statements are read out of the source files, so that none can be forgotten: whatever string
//! begins like SQL must be one that SQLite can prepare on the schema of its folder. Statements that
//! are put together while the server runs are listed by their modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use iris_protocol::SupervisionKind;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::{database, project, root};

/// Tables that may be read from end to end, and why.
const SMALL: &[(&str, &str)] = &[
    ("meta", "one row"),
    ("usage", "one row"),
    ("audit_anchor", "one row"),
    ("file_locks", "at most `FILE_LOCKS_MAX` rows"),
    ("file_restores", "one row"),
    ("uploads", "at most `UPLOADS_MAX` rows"),
    ("below", "the runs of the sub-agents of one run, up to a limit"),
    ("agents", "at most `AGENTS_MAX` rows"),
    ("captures", "at most `CAPTURES_MAX` rows"),
    ("file_agents", "as many rows as files of agents are read"),
    ("mcp_servers", "at most `MCP_SERVERS_MAX` rows"),
    ("mcp_authorizations", "at most `MCP_AUTHORIZATIONS_MAX` rows"),
    ("model_facts", "at most `MODEL_FACTS_MAX` rows"),
    ("tools", "at most `CUSTOM_TOOLS_MAX` rows"),
    (
        "permissions",
        "at most `PERMISSIONS_MAX` or `SERVER_PERMISSIONS_MAX` rows, read once a change",
    ),
    ("settings", "a row for each setting that an administrator chose, and one of the sandbox"),
    ("sqlite_sequence", "a row for each table that counts"),
    ("unfinished_work", "what is under way is what is asked for, once at the start"),
    ("git_work", "what git works on is what is asked for, once at the start"),
    ("outbox", "what is under way is what is asked for, once at the start"),
    ("b", "the sessions below one, each found through an index: all of them are asked for"),
    // The table's name in its statement.
    ("i", "directories under way are what is asked for, once at the start"),
];

/// Partial indexes that may be read from end to end, and why.
const SMALL_INDEXES: &[(&str, &str)] = &[
    ("project_git_cloning", "clones under way are what is asked for, once at the start"),
    ("provider_credentials_of_server", "as many rows as providers are configured"),
    ("approvals_pending", "approvals that nobody decided: calls that wait for a person"),
    ("questions_pending", "questions that nobody answered: calls that wait for a person"),
    ("sessions_capturing", "sessions that are recorded now"),
    ("runs_open", "runs that have not ended: the queues of the sessions"),
    ("search_parts_waiting", "parts that wait for the index, read up to a limit"),
    ("blobs_unused", "blobs that wait for collection, read up to a limit"),
];

/// Statements that may step over as many rows as they are told, by a piece of their text, and why.
const STEPS: &[(&str, &str)] = &[
    ("FROM supervision_log ORDER BY id DESC LIMIT 1 OFFSET ?1", "as many steps as rows are kept"),
    ("SELECT id FROM snapshots ORDER BY id", "in the order of the key, as many steps as are kept"),
    ("SELECT * FROM audit ORDER BY id DESC LIMIT ?1", "in the order of the key, up to its limit"),
    ("SELECT id FROM projects ORDER BY id", "all ids are what is asked for, once at the start"),
    ("FROM backups ORDER BY id", "all archives are what is asked for, once at the start"),
    ("SELECT p.id, b.at, b.epoch, b.seq", "every project is asked for, once in an interval"),
];

/// Statements that may sort what they found, by a piece of their text, and why.
const SORTS: &[(&str, &str)] = &[
    ("state = 'pending' ORDER BY id", "what waits for people in one session: a step's calls"),
    ("FROM supervision_log WHERE id > ?1  AND (path =", "the supervision log has a bound itself"),
];

/// Statements of the writer that only one of the two schemas can take.
const PROJECT_ONLY: &str = "writer/tx.rs";

/// Files whose statements are put together while the server runs; they list them.
const LISTED: &[&str] = &["root/supervision.rs"];

/// Statements over whole databases, of any schema: to check, copy and rewrite them is to read them.
const WHOLE_DATABASES: &str = "maintenance";

#[derive(Debug)]
struct Statement {
    /// Of the file, from `src`.
    place: String,
    sql: String,
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The Rust files below a folder, but for those that hold tests alone.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !name.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// A string literal and what stands before it.
struct Literal<'a> {
    before: &'a str,
    text: String,
}

/// The string literals of a Rust source, without those of its tests.
fn literals(source: &str) -> Vec<Literal<'_>> {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap();
    let mut literals = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..).filter(|rest| !rest.is_empty()) {
        let next = rest.chars().next().unwrap();
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some(hashes) = raw(rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let from = hashes + 2;
            let length = rest[from..].find(&end).unwrap();
            let text = rest[from..from + length].to_owned();
            literals.push(Literal { before: &source[..at], text });
            at += from + length + end.len();
        } else if next == '"' {
            let (text, length) = quoted(&rest[1..]);
            literals.push(Literal { before: &source[..at], text });
            at += length + 2;
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            at += rest[1..].find('\'').unwrap() + 2;
        } else {
            at += next.len_utf8();
        }
    }
    literals
}

/// How many `#` a raw string begins with, if one begins here.
fn raw(rest: &str) -> Option<usize> {
    let behind = rest.strip_prefix('r')?;
    let hashes = behind.chars().take_while(|c| *c == '#').count();
    behind[hashes..].starts_with('"').then_some(hashes)
}

/// The value of a literal behind its first quote, and how long it is up to its last.
fn quoted(rest: &str) -> (String, usize) {
    let (mut text, mut chars) = (String::new(), rest.char_indices().peekable());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (text, at),
            '\\' => match chars.next().unwrap().1 {
                '\n' => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                'n' => text.push('\n'),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    unreachable!("a literal ends in its file");
}

fn is_sql(text: &str) -> bool {
    let first = text.split_whitespace().next().unwrap_or_default();
    let verbs = ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"];
    verbs.contains(&first) && text.trim() != first
}

/// The name of the constant that a literal is the value of.
fn constant(before: &str) -> Option<&str> {
    let before = before.trim_end().strip_suffix('=')?.trim_end().strip_suffix(": &str")?;
    let (declared, name) = before.rsplit_once(char::is_whitespace)?;
    declared.ends_with("const").then_some(name)
}

fn statements() -> Vec<Statement> {
    let mut paths = Vec::new();
    files(&src(), &mut paths);
    paths.sort();
    let sources: Vec<(String, String)> = paths
        .iter()
        .map(|path| {
            let place = path.strip_prefix(src()).unwrap().to_str().unwrap().to_owned();
            (place, fs::read_to_string(path).unwrap())
        })
        .collect();
    let mut constants = BTreeMap::new();
    for (_, source) in &sources {
        for literal in literals(source) {
            if let Some(name) = constant(literal.before) {
                constants.insert(format!("{{{name}}}"), literal.text);
            }
        }
    }
    let mut statements = Vec::new();
    for (place, source) in &sources {
        for literal in literals(source).into_iter().filter(|literal| is_sql(&literal.text)) {
            let mut sql = literal.text;
            for (placeholder, text) in &constants {
                sql = sql.replace(placeholder, text);
            }
            if sql.contains('{') && LISTED.contains(&place.as_str()) {
                continue;
            }
            statements.push(Statement { place: place.clone(), sql });
        }
    }
    let listed = root::supervision_statements().into_iter();
    statements.extend(listed.map(|sql| Statement { place: "root/supervision.rs".into(), sql }));
    statements
}

fn migrated(schema: &[&'static str]) -> Connection {
    let mut conn = Connection::open_in_memory().unwrap();
    database::migrations(schema).to_latest(&mut conn).unwrap();
    conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
    // Plans of triggers and of deletions that cascade are told too.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_TRIGGER_EQP, true).unwrap();
    conn
}

/// What SQLite would do to run a statement, one line a step.
fn plan(conn: &Connection, sql: &str) -> Result<Vec<String>, rusqlite::Error> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let mut rows = statement.raw_query();
    let mut steps = Vec::new();
    while let Some(row) = rows.next()? {
        // A trigger that has nothing to find says nothing.
        steps.extend(row.get::<_, Option<String>>(3)?);
    }
    Ok(steps)
}

/// What is wrong with a step of a plan.
fn objection(sql: &str, step: &str) -> Option<String> {
    if step.contains("TEMP B-TREE") {
        let is_known = SORTS.iter().any(|(piece, _)| sql.contains(piece));
        return (!is_known).then(|| format!("sorts: {step}"));
    }
    let scanned = step.strip_prefix("SCAN ")?;
    let table = scanned.split(' ').next().unwrap_or_default();
    let is_small = STEPS.iter().any(|(piece, _)| sql.contains(piece))
        || SMALL.iter().any(|(name, _)| *name == table)
        || scanned == "CONSTANT ROW"
        // Made by the statement itself out of what it found through an index.
        || table.starts_with("(subquery")
        || SMALL_INDEXES.iter().any(|(name, _)| {
            scanned.ends_with(&format!("INDEX {name}"))
        })
        // Of a full-text index, `M` is a search for words and `=` one entry (FTS5,
        // `fts5BestIndexMethod`).
        || (scanned.starts_with("search_index VIRTUAL TABLE INDEX") && scanned.contains(['M', '=']));
    (!is_small).then(|| format!("reads a table from end to end: {step}"))
}

fn objections(conn: &Connection, statement: &Statement) -> Vec<String> {
    let Statement { place, sql } = statement;
    let found = match plan(conn, sql) {
        Ok(steps) => steps.iter().filter_map(|step| objection(sql, step)).collect(),
        Err(error) => vec![format!("cannot be prepared: {error}")],
    };
    found.into_iter().map(|objection| format!("{place}: {objection}\n    {sql}\n")).collect()
}

#[test]
fn every_statement_finds_its_rows_through_an_index() {
    let statements = statements();
    let (projects, root) = (migrated(project::SCHEMA), migrated(root::SCHEMA));
    let mut bad = Vec::new();
    let (mut of_projects, mut of_root) = (0, 0);
    for statement in &statements {
        let place = statement.place.as_str();
        if place.starts_with(WHOLE_DATABASES) {
            continue;
        }
        let is_shared = place.starts_with("writer");
        if place.starts_with("project") || is_shared {
            bad.extend(objections(&projects, statement));
            of_projects += 1;
        }
        if place.starts_with("root") || (is_shared && place != PROJECT_ONLY) {
            bad.extend(objections(&root, statement));
            of_root += 1;
        }
        let has_schema = ["project", "root", "writer"].iter().any(|at| place.starts_with(at));
        assert!(has_schema, "`{place}` has statements and no schema:\n{}", statement.sql);
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
    // The reader of sources did not overlook a folder.
    assert!(of_projects > 60 && of_root > 40, "{of_projects} and {of_root} statements");
}

#[test]
fn the_supervision_log_of_one_kind_is_read_in_the_order_of_its_index() {
    let conn = migrated(root::SCHEMA);
    for since in [None, Some(1)] {
        let kind = Some(SupervisionKind::Stuck);
        let query = root::SupervisionQuery { since, kind, path: None, limit: 1 };
        let steps = plan(&conn, &query.sql()).unwrap();
        assert!(steps.iter().any(|step| step.contains("supervision_log_by_kind")), "{steps:#?}");
    }
}

/// Otherwise every deletion of a row reads the table of those that refer to it.
#[test]
fn every_reference_to_another_table_has_an_index() {
    for schema in [project::SCHEMA, root::SCHEMA] {
        let conn = migrated(schema);
        let list = |sql: &str, name: &str| -> Vec<(String, Option<String>)> {
            let mut statement = conn.prepare(sql).unwrap();
            let rows = statement.query_map([name], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            rows.map(Result::unwrap).collect()
        };
        let tables = "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name <> ?1";
        for (table, _) in list(tables, "") {
            // Of a key of several columns the first one leads to the index.
            let references =
                "SELECT \"from\", \"table\" FROM pragma_foreign_key_list(?1) WHERE seq = 0";
            for (column, parent) in list(references, &table) {
                let steps = plan(&conn, &format!("SELECT 1 FROM {table} WHERE {column} = 'x'"));
                let steps = steps.unwrap();
                let is_found = steps.iter().all(|step| step.starts_with("SEARCH"));
                assert!(is_found, "{table}.{column} -> {parent:?}: {steps:?}");
            }
        }
    }
}

#[test]
fn what_reads_or_sorts_without_bound_is_noticed() {
    let conn = migrated(project::SCHEMA);
    let bad = [
        "SELECT * FROM messages",
        "SELECT * FROM messages WHERE run_id = ?1",
        "DELETE FROM events WHERE at < ?1",
        "SELECT * FROM messages WHERE session_id = ?1 ORDER BY created_at",
        "SELECT * FROM search_index",
        "UPDATE sessions SET title = ?1",
        "SELECT * FROM nowhere",
    ];
    for sql in bad {
        let statement = Statement { place: String::new(), sql: sql.to_owned() };
        assert_eq!(objections(&conn, &statement).len(), 1, "{sql}");
    }
}

#[test]
fn statements_are_read_out_of_sources_of_any_form() {
    let source = r#"
        // "SELECT 1 FROM a comment"
        const NAMES: &str = "a, b";
        const LONG: &str =
            "SELECT x \
             FROM y";
        fn f() { let c = '"'; let sql = format!("SELECT {NAMES} FROM \"z\""); }
        const RAW: &str = r"DELETE FROM 'q'";
        #[cfg(test)]
mod tests { const T: &str = "SELECT 1 FROM tests"; }
    "#;
    let source = source.replace("        #[cfg", "#[cfg");
    let found = literals(&source);
    let texts: Vec<&str> = found.iter().map(|literal| literal.text.as_str()).collect();
    let expected = ["a, b", "SELECT x FROM y", "SELECT {NAMES} FROM \"z\"", "DELETE FROM 'q'"];
    assert_eq!(texts, expected);
    let names: Vec<_> = found.iter().map(|literal| constant(literal.before)).collect();
    assert_eq!(names, [Some("NAMES"), Some("LONG"), None, Some("RAW")]);
}
