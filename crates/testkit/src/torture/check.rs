//! What is in the databases, compared with what the clients know. Reads the files past the server.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row as SqlRow};
use serde_json::Value;

use super::ledger::{Acknowledged, Hash, Heard, Ledger, Row, digest, hash};
use super::plan::{Deed, Intent};

/// What one project's database holds.
pub(super) struct Stored {
    rows: BTreeMap<Row, Hash>,
    /// Texts of users' messages and titles of sessions, as often as they are there.
    texts: BTreeMap<String, usize>,
    /// Version and hash.
    files: BTreeMap<String, (u64, String)>,
    events: BTreeMap<u64, Heard>,
    /// What is wrong whatever the clients know.
    findings: Vec<String>,
}

/// Opens a database without a chance to change it.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    conn.execute_batch("PRAGMA query_only = ON; PRAGMA busy_timeout = 5000;")?;
    Ok(conn)
}

impl Stored {
    /// Reads a project's database in one state, and looks for what must never be there.
    pub(super) fn read(path: &Path) -> rusqlite::Result<Self> {
        let conn = open(path)?;
        conn.execute_batch("BEGIN")?;
        let mut stored = Self {
            rows: BTreeMap::new(),
            texts: BTreeMap::new(),
            files: BTreeMap::new(),
            events: BTreeMap::new(),
            findings: damage(&conn)?,
        };
        stored.read_messages(&conn)?;
        stored.read_others(&conn)?;
        stored.read_events(&conn)?;
        stored.look_for_loose_ends(&conn)?;
        Ok(stored)
    }

    fn read_messages(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let sql = "SELECT m.id, m.session_id, m.run_id, m.role, m.created_by, p.body
                   FROM messages m JOIN message_parts p ON p.message_id = m.id AND p.ordinal = 0
                   WHERE m.role = 'user'";
        each(conn, sql, |row| {
            let [id, session, run, role, by, body] = texts(row)?;
            let body: Value = serde_json::from_str(&body).unwrap_or_default();
            let text = body["text"].as_str().unwrap_or_default().to_owned();
            let hash = hash([&*session, &*run, &*role, &*by, &*text]);
            self.rows.insert(Row::new("messages", id), hash);
            *self.texts.entry(text).or_default() += 1;
            Ok(())
        })
    }

    fn read_others(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        each(conn, "SELECT id, session_id, started_by FROM runs", |row| {
            let [id, session, by] = texts(row)?;
            self.rows.insert(Row::new("runs", id), hash([&*session, &*by]));
            Ok(())
        })?;
        each(conn, "SELECT id, title, created_by FROM sessions", |row| {
            let [id, title, by] = texts(row)?;
            self.rows.insert(Row::new("sessions", id), hash([&*title, &*by]));
            *self.texts.entry(title).or_default() += 1;
            Ok(())
        })?;
        let sql = "SELECT tool_call_id, session_id, state, coalesce(decided_by, '') FROM approvals";
        each(conn, sql, |row| {
            let [call, session, state, by] = texts(row)?;
            self.rows.insert(Row::new("approvals", call), hash([&*session, &*state, &*by]));
            Ok(())
        })?;
        each(
            conn,
            "SELECT path, hash, (SELECT count(*) FROM file_versions AS v
               WHERE v.path = files.path AND v.source IN ('api', 'tool')) FROM files",
            |row| {
                let version = row.get(2)?;
                self.files.insert(row.get(0)?, (version, row.get(1)?));
                Ok(())
            },
        )
    }

    /// Numbers without gaps, and in each room every event after the one before it.
    fn read_events(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut heads: BTreeMap<String, u64> = BTreeMap::new();
        let (mut first, mut last) = (None, None);
        each(conn, "SELECT seq, prev, room, name, payload FROM events ORDER BY seq", |row| {
            let (seq, prev): (u64, u64) = (row.get(0)?, row.get(1)?);
            let (room, name): (String, String) = (row.get(2)?, row.get(3)?);
            if let Some(last) = last.filter(|last: &u64| last + 1 != seq) {
                self.findings.push(format!("event {seq} comes after event {last}"));
            }
            let first = *first.get_or_insert(seq);
            let head = heads.insert(room.clone(), seq);
            // Of what came before the first one that is kept nothing is known.
            if !head.map_or(prev < first, |head| head == prev) {
                let finding = format!("event {seq} of {room} follows {prev}, not {head:?}");
                self.findings.push(finding);
            }
            last = Some(seq);
            let payload: String = row.get(4)?;
            let payload: Value = serde_json::from_str(&payload).unwrap_or_default();
            let hash = hash([payload.to_string().as_str()]);
            self.events.insert(seq, Heard { room, prev, name, hash });
            Ok(())
        })?;
        let last_seq: u64 = conn.query_row("SELECT last_seq FROM meta", [], |row| row.get(0))?;
        if last.unwrap_or(0) != last_seq {
            self.findings.push(format!("the last event is {last:?}, its number {last_seq}"));
        }
        each(conn, "SELECT room, head FROM rooms", |row| {
            let (room, head): (String, u64) = (row.get(0)?, row.get(1)?);
            if heads.get(&room).is_some_and(|last| *last != head) {
                self.findings.push(format!("the last event of {room} is not {head}"));
            }
            Ok(())
        })
    }

    /// A run that has ended leaves nothing open.
    fn look_for_loose_ends(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        for (what, sql) in [
            (
                "streaming message of an ended run",
                "SELECT m.id FROM messages m JOIN runs r ON r.id = m.run_id
                 WHERE m.state = 'streaming' AND r.ended_at IS NOT NULL",
            ),
            (
                "open tool call of an ended run",
                "SELECT p.tool_call_id FROM message_parts p
                 JOIN messages m ON m.id = p.message_id JOIN runs r ON r.id = m.run_id
                 WHERE p.tool_state IN ('pending', 'waiting', 'running') AND r.ended_at IS NOT NULL",
            ),
            (
                "pending approval of an ended run",
                "SELECT a.id FROM approvals a JOIN runs r ON r.id = a.run_id
                 WHERE a.state = 'pending' AND r.ended_at IS NOT NULL",
            ),
            (
                "pending question of an ended run",
                "SELECT q.id FROM questions q JOIN runs r ON r.id = q.run_id
                 WHERE q.state = 'pending' AND r.ended_at IS NOT NULL",
            ),
            // Nobody rejects or cancels here: whatever waited has to go on waiting.
            (
                "approval that ended without an answer",
                "SELECT id FROM approvals WHERE state NOT IN ('pending', 'approved')",
            ),
            // Each call writes a file of its own.
            ("tool that ran twice", "SELECT path FROM files WHERE path LIKE 'tool/%' AND version > 1"),
            (
                "second run that works in a session",
                "SELECT session_id FROM runs WHERE status IN ('running', 'waiting')
                 GROUP BY session_id HAVING count(*) > 1",
            ),
        ] {
            each(conn, sql, |row| {
                self.findings.push(format!("{what}: {}", row.get::<_, String>(0)?));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Compares with what the clients know of this project; `by` is who they are.
    pub(super) fn compare(mut self, ledger: &Ledger, project: &str, by: &str) -> Vec<String> {
        let is_here = |intent: &Intent| intent.project.as_str() == project;
        let mut written: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for done in ledger.acknowledged.iter().filter(|done| is_here(&done.intent)) {
            self.compare_one(done, by);
            if let Deed::WriteFile { path, content } = &done.intent.deed {
                let times = written.get(path.as_str()).map_or(0, |(times, _)| *times);
                written.insert(path, (times + 1, content));
            }
        }
        for (path, (times, content)) in written {
            let expected = Some((times, digest(content.as_bytes())));
            let found = self.files.get(path).cloned();
            if found != expected {
                let state = if found.is_some() { "differs" } else { "is lost" };
                let finding = format!("`{path}` {state}: acknowledged {expected:?}, is {found:?}");
                self.findings.push(finding);
            }
        }
        for intent in ledger.refused.iter().filter(|intent| is_here(intent)) {
            if unique_text(intent).is_some_and(|text| self.texts.contains_key(text)) {
                self.findings.push(format!("`{}` was refused and is there", intent.key));
            }
        }
        let heard = ledger.heard.iter().filter(|((of, _), _)| of.as_str() == project);
        for ((_, seq), event) in heard {
            let stored = self.events.get(seq);
            if stored != Some(event) {
                self.findings.push(format!("event {seq} was heard as {event:?}, is {stored:?}"));
            }
        }
        self.findings
    }

    fn compare_one(&mut self, done: &Acknowledged, by: &str) {
        let key = &done.intent.key;
        for expected in done.rows(by) {
            let found = self.rows.get(&expected.row);
            if found != Some(&expected.hash) {
                let state = if found.is_some() { "differs" } else { "is lost" };
                let row = &expected.row;
                self.findings.push(format!("`{key}` was acknowledged and {state}: {row:?}"));
            }
        }
        if done.seq.is_some_and(|seq| !self.events.contains_key(&seq)) {
            let seq = done.seq;
            self.findings.push(format!("`{key}` was acknowledged and event {seq:?} is lost"));
        }
        let times = unique_text(&done.intent).map(|text| self.texts.get(text).copied());
        if times.is_some_and(|times| times.is_some_and(|times| times > 1)) {
            self.findings.push(format!("`{key}` was done {times:?} times"));
        }
    }
}

/// Runs that work, as far as a database knows, after their sessions.
pub(super) fn running(path: &Path) -> rusqlite::Result<Vec<[String; 2]>> {
    let mut running = Vec::new();
    each(&open(path)?, "SELECT session_id, id FROM runs WHERE status = 'running'", |row| {
        running.push(texts(row)?);
        Ok(())
    })?;
    Ok(running)
}

/// How many of these intents had their effect, as far as a text shows it.
pub(super) fn count_done<'a>(
    path: &Path,
    intents: impl Iterator<Item = &'a Intent>,
) -> rusqlite::Result<usize> {
    let sql = "SELECT EXISTS (SELECT 1 FROM sessions WHERE title = ?1)
                 OR EXISTS (SELECT 1 FROM message_parts WHERE body ->> 'text' = ?1)";
    let conn = open(path)?;
    let mut statement = conn.prepare(sql)?;
    let mut count = 0;
    for text in intents.filter_map(unique_text) {
        count += usize::from(statement.query_row([text], |row| row.get::<_, bool>(0))?);
    }
    Ok(count)
}

/// What a second effect of an intent would repeat.
fn unique_text(intent: &Intent) -> Option<&str> {
    match &intent.deed {
        Deed::Say { text, .. } => Some(text),
        Deed::OpenSession { title } => Some(title),
        Deed::WriteFile { .. }
        | Deed::Approve { .. }
        | Deed::AddMember { .. }
        | Deed::ChangeMember { .. } => None,
    }
}

/// Compares the members in the root database with the last role that was acknowledged for each.
pub(super) fn members(path: &Path, ledger: &Ledger) -> rusqlite::Result<Vec<String>> {
    let conn = open(path)?;
    let mut findings = damage(&conn)?;
    let mut stored = BTreeMap::new();
    each(&conn, "SELECT project_id, user_id, role FROM project_members", |row| {
        let [project, user, role] = texts(row)?;
        stored.insert((project, user), role);
        Ok(())
    })?;
    let mut expected = BTreeMap::new();
    for done in &ledger.acknowledged {
        if let Deed::AddMember { user, role } | Deed::ChangeMember { user, role } =
            &done.intent.deed
        {
            let place = (done.intent.project.to_string(), user.to_string());
            expected.insert(place, serde_json::json!(role).as_str().unwrap_or_default().to_owned());
        }
    }
    for (place, role) in expected {
        let found = stored.get(&place);
        if found != Some(&role) {
            findings.push(format!("the member {place:?} is {found:?}, was made `{role}`"));
        }
    }
    Ok(findings)
}

/// What SQLite itself finds.
fn damage(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut findings = Vec::new();
    each(conn, "PRAGMA integrity_check", |row| {
        let line: String = row.get(0)?;
        findings.extend(Some(line).filter(|line| line != "ok"));
        Ok(())
    })?;
    each(conn, "PRAGMA foreign_key_check", |row| {
        findings.push(format!("a row of `{}` refers to nothing", row.get::<_, String>(0)?));
        Ok(())
    })?;
    Ok(findings)
}

fn each(
    conn: &Connection,
    sql: &str,
    mut take: impl FnMut(&SqlRow<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = conn.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

/// The first columns, which are texts.
fn texts<const COLUMNS: usize>(row: &SqlRow<'_>) -> rusqlite::Result<[String; COLUMNS]> {
    let mut texts = [const { String::new() }; COLUMNS];
    for (index, text) in texts.iter_mut().enumerate() {
        *text = row.get(index)?;
    }
    Ok(texts)
}
