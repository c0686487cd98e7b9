//! Locks on files: at most [`FILE_LOCKS_MAX`] in a project, so they are compared one by one.

use iris_protocol::limits::FILE_LOCKS_MAX;
use iris_protocol::{Event, FileLock, LockScope, UnlockReason, UserId};
use rusqlite::{Connection, Row, params};

use crate::column::{to_word, word};
use crate::project::{log, queries};
use crate::{Command, StoreError, WhenFull, WriteTx};

const ALL: &str = "SELECT * FROM file_locks ORDER BY path";
const SAVE: &str =
    "INSERT INTO file_locks (path, scope, owner_id, while_connected, created_at, expires_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6)
     ON CONFLICT (path) DO UPDATE SET scope = excluded.scope, owner_id = excluded.owner_id,
       while_connected = excluded.while_connected, created_at = excluded.created_at,
       expires_at = excluded.expires_at";

pub(in crate::project) fn all(conn: &Connection) -> Result<Vec<FileLock>, StoreError> {
    queries::all(conn, ALL, [], lock)
}

fn lock(row: &Row<'_>) -> rusqlite::Result<FileLock> {
    Ok(FileLock {
        path: row.get("path")?,
        scope: word(row, "scope")?,
        owner_id: word(row, "owner_id")?,
        while_connected: row.get("while_connected")?,
        created_at: row.get("created_at")?,
        expires_at: row.get("expires_at")?,
    })
}

/// Whether `path` is `directory` or below it; `.` is the project's directory.
fn is_below(directory: &str, path: &str) -> bool {
    directory == "."
        || path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a lock is about something that `path`, with all below it if it is a subtree, is too.
fn meets(lock: &FileLock, path: &str, scope: LockScope) -> bool {
    let covers =
        lock.path == path || (lock.scope == LockScope::Subtree && is_below(&lock.path, path));
    covers || (scope == LockScope::Subtree && is_below(path, &lock.path))
}

/// The lock of somebody else that keeps `user` from writing `path`, or anything below it if it is a subtree.
pub fn locked_for_others<'a>(
    locks: &'a [FileLock],
    path: &str,
    scope: LockScope,
    user: &UserId,
    now: i64,
) -> Option<&'a FileLock> {
    lock_besides(locks, path, scope, Some(user), now)
}

/// As [`locked_for_others`]; where nobody knows the user, any lock is of somebody else.
pub(super) fn lock_besides<'a>(
    locks: &'a [FileLock],
    path: &str,
    scope: LockScope,
    user: Option<&UserId>,
    now: i64,
) -> Option<&'a FileLock> {
    locks.iter().find(|lock| {
        Some(&lock.owner_id) != user && lock.expires_at > now && meets(lock, path, scope)
    })
}

/// Takes a lock, or has it last longer.
///
/// Fails with `Locked` when somebody else has one that meets it and it is not to be taken from them, and with
/// `Conflict` (`too_many_locks`).
#[derive(Debug, Clone)]
pub struct TakeLock {
    /// Relative to the project's directory, with `/`; `.` for the directory itself.
    pub path: String,
    /// What is locked.
    pub scope: LockScope,
    /// Who may write then.
    pub owner_id: UserId,
    /// Whether it ends with the last connection of the owner.
    pub while_connected: bool,
    /// Whether locks of others that meet it are taken from them.
    pub takes_over: bool,
    /// When it ends, in milliseconds since 1970 UTC.
    pub expires_at: i64,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for TakeLock {
    type Output = FileLock;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<FileLock, StoreError> {
        let Self { path, scope, owner_id, while_connected, takes_over, expires_at, at } = self;
        let locks = all(tx.conn())?;
        for other in
            locks.iter().filter(|lock| lock.owner_id != owner_id && meets(lock, &path, scope))
        {
            let reason = if other.expires_at <= at {
                UnlockReason::Expired
            } else if takes_over {
                UnlockReason::TakenOver
            } else {
                return Err(StoreError::Locked { lock: Box::new(other.clone()) });
            };
            end(tx, other, reason, Some(&owner_id), at)?;
        }
        let mine = locks.iter().find(|lock| lock.path == path && lock.owner_id == owner_id);
        if mine.is_none() && locks.len() >= FILE_LOCKS_MAX {
            let message = format!("the project has {FILE_LOCKS_MAX} locks already");
            return Err(StoreError::conflict("too_many_locks", message));
        }
        let created_at =
            mine.filter(|lock| lock.expires_at > at).map_or(at, |lock| lock.created_at);
        let lock = FileLock { path, scope, owner_id, while_connected, created_at, expires_at };
        tx.conn().prepare_cached(SAVE)?.execute(params![
            lock.path,
            to_word(&lock.scope)?,
            lock.owner_id.as_str(),
            lock.while_connected,
            lock.created_at,
            lock.expires_at,
        ])?;
        let by = lock.owner_id.clone();
        log::in_project(tx, at, Some(&by), &Event::FileLocked { lock: lock.clone() })?;
        Ok(lock)
    }
}

/// Gives a lock back.
///
/// Fails with `NotFound` (lock) where there is none, and with `Locked` for that of somebody else, unless any
/// may be given back.
#[derive(Debug, Clone)]
pub struct ReleaseLock {
    /// The path that it was taken for.
    pub path: String,
    /// Who gives it back.
    pub by: UserId,
    /// Whether they may give back those of others.
    pub of_others: bool,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for ReleaseLock {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let locks = all(tx.conn())?;
        let found = locks.iter().find(|lock| lock.path == self.path);
        let lock = found.ok_or(StoreError::NotFound { what: "lock" })?;
        if lock.expires_at <= self.at {
            end(tx, lock, UnlockReason::Expired, None, self.at)?;
            return if lock.owner_id == self.by {
                Ok(())
            } else {
                Err(StoreError::NotFound { what: "lock" })
            };
        }
        if lock.owner_id != self.by && !self.of_others {
            return Err(StoreError::Locked { lock: Box::new(lock.clone()) });
        }
        end(tx, lock, UnlockReason::Released, Some(&self.by), self.at)
    }
}

/// Ends the locks whose time is over.
#[derive(Debug, Clone, Copy)]
pub struct EndLocks {
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for EndLocks {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        for lock in all(tx.conn())?.iter().filter(|lock| lock.expires_at <= self.at) {
            end(tx, lock, UnlockReason::Expired, None, self.at)?;
        }
        Ok(())
    }
}

/// Ends the locks of somebody who has no connection any more, those that are to end then.
#[derive(Debug, Clone)]
pub struct EndLocksOf {
    /// Whose.
    pub owner_id: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for EndLocksOf {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let locks = all(tx.conn())?;
        let ends = |lock: &&FileLock| lock.owner_id == self.owner_id && lock.while_connected;
        for lock in locks.iter().filter(ends) {
            end(tx, lock, UnlockReason::Disconnected, None, self.at)?;
        }
        Ok(())
    }
}

fn end(
    tx: &mut WriteTx<'_>,
    lock: &FileLock,
    reason: UnlockReason,
    by: Option<&UserId>,
    at: i64,
) -> Result<(), StoreError> {
    tx.conn().prepare_cached("DELETE FROM file_locks WHERE path = ?1")?.execute([&lock.path])?;
    let (path, owner_id) = (lock.path.clone(), lock.owner_id.clone());
    log::in_project(tx, at, by, &Event::FileUnlocked { path, owner_id, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(path: &str, scope: LockScope) -> FileLock {
        let owner_id = UserId::from_bits(1);
        let (created_at, expires_at) = (0, 10);
        FileLock {
            path: path.to_owned(),
            scope,
            owner_id,
            while_connected: false,
            created_at,
            expires_at,
        }
    }

    #[test]
    fn a_lock_is_met_by_what_it_covers_and_by_what_covers_it() {
        use LockScope::{File, Subtree};
        let cases = [
            ("a/b", File, "a/b", File, true),
            ("a/b", File, "a/bc", File, false),
            ("a", Subtree, "a/b/c", File, true),
            ("a", Subtree, "ab", File, false),
            ("a", File, "a/b", File, false),
            ("a/b", File, "a", Subtree, true),
            ("a/b", File, "a", File, false),
            (".", Subtree, "x", File, true),
            ("x", File, ".", Subtree, true),
        ];
        for (locked, scope, path, wanted, expected) in cases {
            let locks = [lock(locked, scope)];
            let other = UserId::from_bits(2);
            let met = locked_for_others(&locks, path, wanted, &other, 5).is_some();
            assert_eq!(met, expected, "{locked} {path}");
            assert!(locked_for_others(&locks, path, wanted, &other, 10).is_none(), "it is over");
            assert!(locked_for_others(&locks, path, wanted, &UserId::from_bits(1), 5).is_none());
        }
    }
}
