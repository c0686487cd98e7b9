//! What undoing turns is about.

use std::collections::HashSet;

use iris_protocol::limits::{FILES_AT_ONCE_MAX, SUPERSEDED_MESSAGES_MAX};
use iris_protocol::{
    ChangedSince, FileChange, FileSource, FileVersion, MessageId, RunId, SessionId,
};
use rusqlite::{Connection, params};

use super::{RevertedFile, check_rests, last_run, newest};
use crate::StoreError;
use crate::column::word;
use crate::project::files::{self, FileAt};
use crate::project::queries;
use crate::project::sessions::session_busy;
use crate::project::superseding::{Placed, too_much_follows};

const RUNS_FROM: &str = "SELECT id FROM runs WHERE session_id = ?1 AND number >= ?2
     ORDER BY number LIMIT ?3";
const PLACE_OF_RUN: &str = "SELECT session_id, ended_at IS NULL FROM runs WHERE id = ?1";
const VERSIONS_FROM: &str = "SELECT * FROM file_versions WHERE path = ?1 AND version >= ?2
     ORDER BY version LIMIT ?3";

/// Most runs of a session that are undone at once: of each message one, and those that messages superseded.
const RUNS_MAX: usize = 2 * SUPERSEDED_MESSAGES_MAX;
/// Most versions of one path that are looked through for others' changes.
const VERSIONS_MAX: usize = 2_000;

/// What is undone, or done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undoing {
    /// The message with which the first turn begins.
    pub message_id: MessageId,
    /// The messages that it is about, oldest first.
    pub messages: Vec<MessageId>,
    /// The last run of the session.
    pub last_run: u32,
    /// The files that it is about, by path.
    pub paths: Vec<PathThen>,
    /// The revert that is undone; none where turns are.
    pub undoes: Option<i64>,
}

/// A file as it is, and as it was before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathThen {
    /// Relative to the project's directory, with `/`.
    pub path: String,
    /// Its newest version, if it is there.
    pub now: Option<FileAt>,
    /// The version to go back to; none where nothing was there.
    pub then: Option<FileAt>,
    /// Whether that version is not known any more.
    pub is_forgotten: bool,
    /// The last change of somebody else in between, if there is one.
    pub changed_since: Option<ChangedSince>,
}

/// A turn and all that follows it.
pub(in crate::project) fn revert(
    conn: &Connection,
    session_id: &SessionId,
    message_id: &MessageId,
) -> Result<Undoing, StoreError> {
    check_rests(conn, session_id)?;
    let question = Placed::chosen(conn, session_id, message_id)?.question(conn)?;
    let mut messages = vec![question.message.id.clone()];
    messages.extend(question.after(conn)?.into_iter().map(|placed| placed.message.id));
    let ours = Ours::from(conn, session_id, question.number)?;
    let limit = FILES_AT_ONCE_MAX + 1;
    let changed = files::changed_by(conn, &ours.runs, limit)?;
    check_count(changed.len())?;
    let mut paths = Vec::with_capacity(changed.len());
    for changed in changed {
        paths.push(path_then(conn, changed.path, changed.first, &ours)?);
    }
    let last_run = last_run(conn, session_id)?;
    Ok(Undoing { message_id: question.message.id, messages, last_run, paths, undoes: None })
}

/// The last revert of a session.
pub(in crate::project) fn unrevert(
    conn: &Connection,
    session_id: &SessionId,
) -> Result<Undoing, StoreError> {
    check_rests(conn, session_id)?;
    let revert = newest(conn, session_id)?;
    let mut paths = Vec::with_capacity(revert.files.len());
    for RevertedFile { path, before, after } in revert.files {
        let newest = files::newest(conn, &path)?;
        let made = files::one(conn, &path, after)?;
        // What was undone and done again since is a later version that holds the same.
        let holds_it = |newest: &FileAt| {
            made.as_ref().is_some_and(|made| is_same(&made.version, &newest.version))
        };
        let changed_since = newest
            .as_ref()
            .filter(|newest| newest.version.version != after && !holds_it(newest))
            .map(|newest| since(&newest.version));
        let then = match before {
            Some(before) => files::one(conn, &path, before)?,
            None => None,
        };
        let is_forgotten = before.is_some() && then.is_none();
        let now = newest.filter(is_there);
        paths.push(PathThen { path, now, then, is_forgotten, changed_since });
    }
    let messages = revert.messages.into_iter().map(|(id, _)| id).collect();
    let (message_id, last_run) = (revert.message_id, revert.last_run);
    Ok(Undoing { message_id, messages, last_run, paths, undoes: Some(revert.number) })
}

fn check_count(count: usize) -> Result<(), StoreError> {
    if count <= FILES_AT_ONCE_MAX {
        return Ok(());
    }
    let message = format!("more than {FILES_AT_ONCE_MAX} files were changed");
    Err(StoreError::conflict("too_many_files", message))
}

/// The runs that are undone, with those of their sub-agents, and the sessions of all of them.
struct Ours {
    runs: Vec<String>,
    ids: HashSet<String>,
    sessions: HashSet<SessionId>,
}

impl Ours {
    /// The runs of a session from a number on. Fails while a sub-agent of them works.
    fn from(conn: &Connection, session_id: &SessionId, number: u32) -> Result<Self, StoreError> {
        let key = params![session_id.as_str(), number, RUNS_MAX + 1];
        let own: Vec<RunId> = queries::all(conn, RUNS_FROM, key, |row| word(row, "id"))?;
        if own.len() > RUNS_MAX {
            return Err(too_much_follows());
        }
        let mut ids = HashSet::new();
        for run in &own {
            ids.extend(files::runs_below(conn, run)?);
        }
        let mut sessions = HashSet::from([session_id.clone()]);
        for run in &ids {
            let place = queries::first(conn, PLACE_OF_RUN, [run], |row| {
                Ok((word::<SessionId>(row, "session_id")?, row.get::<_, bool>(1)?))
            })?;
            let Some((session, is_open)) = place else { continue };
            if is_open {
                return Err(session_busy());
            }
            sessions.insert(session);
        }
        let mut runs: Vec<String> = ids.iter().cloned().collect();
        runs.sort_unstable();
        Ok(Self { runs, ids, sessions })
    }

    /// Whether a version was made by these runs, or put back in the course of an earlier revert of them. One of
    /// several commands has to be theirs whichever it was.
    fn made(&self, conn: &Connection, version: &FileVersion) -> Result<bool, StoreError> {
        let by_run = version.run_id.as_ref().is_some_and(|run| self.ids.contains(run.as_str()));
        let in_session = version.session_id.as_ref().is_some_and(|id| self.sessions.contains(id));
        if by_run || (version.source == FileSource::Restore && in_session) {
            return Ok(true);
        }
        if version.source != FileSource::Tool || version.run_id.is_some() {
            return Ok(false);
        }
        let runs = files::shared_by(conn, version)?;
        Ok(!runs.is_empty() && runs.iter().all(|run| self.ids.contains(run)))
    }
}

/// A path that runs changed first in a version, as it is and as it was before that.
fn path_then(
    conn: &Connection,
    path: String,
    first: u64,
    ours: &Ours,
) -> Result<PathThen, StoreError> {
    let before = match first.checked_sub(1).filter(|version| *version > 0) {
        Some(version) => files::one(conn, &path, version)?,
        None => None,
    };
    let is_forgotten = first > 1 && before.is_none();
    let key = params![path, first, VERSIONS_MAX];
    let versions = queries::all(conn, VERSIONS_FROM, key, files::file_at)?;
    let mut changed_since = None;
    let mut last = before.as_ref().map(|before| before.version.clone());
    for (expected, found) in (first..).zip(&versions) {
        let version = &found.version;
        // Of what is missing in between nobody knows who made it.
        let is_known = version.version == expected;
        let differs = last.as_ref().is_none_or(|last| !is_same(last, version));
        if !is_known || (differs && !ours.made(conn, version)?) {
            changed_since = Some(since(version));
        }
        last = Some(version.clone());
        if !is_known {
            break;
        }
    }
    let now = files::newest(conn, &path)?;
    if let Some(now) = &now
        && last.as_ref().is_none_or(|last| last.version != now.version.version)
    {
        changed_since = Some(since(&now.version));
    }
    let (now, then) = (now.filter(is_there), before.filter(is_there));
    Ok(PathThen { path, now, then, is_forgotten, changed_since })
}

fn is_there(version: &FileAt) -> bool {
    version.version.change != FileChange::Deleted
}

/// Whether two versions of a path hold the same, as far as that is known.
fn is_same(one: &FileVersion, other: &FileVersion) -> bool {
    let is_gone = |version: &FileVersion| version.change == FileChange::Deleted;
    match (is_gone(one), is_gone(other)) {
        (true, true) => true,
        (false, false) => one.hash == other.hash && one.size == other.size && !one.hash.is_empty(),
        (true, false) | (false, true) => false,
    }
}

fn since(version: &FileVersion) -> ChangedSince {
    ChangedSince {
        path: version.path.clone(),
        version: version.version,
        source: version.source,
        by: version.by.clone(),
        session_id: version.session_id.clone(),
    }
}
