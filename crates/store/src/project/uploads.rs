//! Files that are being received over sockets, so that a client that was cut goes on with them. At most
//! [`UPLOADS_MAX`] in a project, so they are compared one by one.

use iris_protocol::UserId;
use iris_protocol::limits::{UPLOADS_MAX, UPLOADS_PER_USER_MAX};
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use super::queries;
use super::quotas::Quotas;
use crate::column::word;
use crate::{Command, StoreError, WhenFull, WriteTx};

const ALL: &str = "SELECT * FROM uploads ORDER BY id";
const INSERT: &str =
    "INSERT INTO uploads (id, user_id, path, size, sha256, version, created_at, expires_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const PROLONG: &str = "UPDATE uploads SET expires_at = ?2 WHERE id = ?1";
const DELETE: &str = "DELETE FROM uploads WHERE id = ?1";

/// A file that is being received.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredUpload {
    /// The name of what has come of it.
    pub id: String,
    /// Who sends it.
    pub user_id: UserId,
    /// Where it will belong.
    pub path: String,
    /// How many bytes it will have.
    pub size: u64,
    /// Their SHA-256, 64 hex digits.
    pub sha256: String,
    /// The version that the sender knows.
    pub version: Option<u64>,
    /// When it is given up, in milliseconds since 1970 UTC.
    pub expires_at: i64,
}

pub(super) fn all(conn: &Connection) -> Result<Vec<StoredUpload>, StoreError> {
    queries::all(conn, ALL, [], upload)
}

fn upload(row: &Row<'_>) -> rusqlite::Result<StoredUpload> {
    Ok(StoredUpload {
        id: row.get("id")?,
        user_id: word(row, "user_id")?,
        path: row.get("path")?,
        size: row.get("size")?,
        sha256: row.get("sha256")?,
        version: row.get("version")?,
        expires_at: row.get("expires_at")?,
    })
}

/// Notes that a file is being received, or goes on with the one that is the same but for its id; then that is
/// the answer, and its time begins anew. Forgets what its sender began to send to the same path before.
///
/// Fails with `QuotaExceeded`: (`uploads_quota`) when its sender, or all together, have too many, and when the
/// project would have no room for all of them.
#[derive(Debug, Clone)]
pub struct BeginUpload {
    /// What is to be received.
    pub upload: StoredUpload,
    /// The most that the project may hold, with all that is being received.
    pub quotas: Quotas,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// A file that is received from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunUpload {
    /// What is to be received.
    pub upload: StoredUpload,
    /// The ids of those whose place it takes.
    pub replaced: Vec<String>,
}

impl Command for BeginUpload {
    type Output = BegunUpload;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<BegunUpload, StoreError> {
        let Self { upload, quotas, at } = self;
        let mut known = all(tx.conn())?;
        known.retain(|other| other.expires_at > at);
        let is_same = |other: &StoredUpload| {
            (other.size, &other.sha256, other.version)
                == (upload.size, &upload.sha256, upload.version)
        };
        let before = known
            .extract_if(.., |other| other.user_id == upload.user_id && other.path == upload.path);
        let (same, replaced): (Vec<_>, Vec<_>) = before.partition(is_same);
        let replaced: Vec<String> = replaced.into_iter().map(|other| other.id).collect();
        for id in &replaced {
            tx.conn().prepare_cached(DELETE)?.execute([id])?;
        }
        if let Some(same) = same.into_iter().next() {
            tx.conn().prepare_cached(PROLONG)?.execute(params![same.id, upload.expires_at])?;
            let upload = StoredUpload { expires_at: upload.expires_at, ..same };
            return Ok(BegunUpload { upload, replaced });
        }
        let own = known.iter().filter(|other| other.user_id == upload.user_id).count();
        for (used, limit) in [(own, UPLOADS_PER_USER_MAX), (known.len(), UPLOADS_MAX)] {
            if used >= limit {
                let (limit, used) = (limit as u64, used as u64);
                return Err(StoreError::QuotaExceeded { reason: "uploads_quota", limit, used });
            }
        }
        let pending: u64 = known.iter().map(|other| other.size).sum();
        let size = pending.saturating_add(upload.size);
        quotas.check_file(tx.conn(), &upload.path, Some(size))?;
        tx.conn().prepare_cached(INSERT)?.execute(params![
            upload.id,
            upload.user_id.as_str(),
            upload.path,
            upload.size,
            upload.sha256,
            upload.version,
            at,
            upload.expires_at,
        ])?;
        Ok(BegunUpload { upload, replaced })
    }
}

/// Forgets a file that has its place, or was given up.
#[derive(Debug, Clone)]
pub struct EndUpload {
    /// Which.
    pub id: String,
}

impl Command for EndUpload {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        tx.conn().prepare_cached(DELETE)?.execute([self.id])?;
        Ok(())
    }
}

/// Forgets the files that a user sends, and answers their ids.
pub(super) fn give_up_of(conn: &Connection, user_id: &UserId) -> Result<Vec<String>, StoreError> {
    let mut given_up = all(conn)?;
    given_up.retain(|upload| upload.user_id == *user_id);
    let mut delete = conn.prepare_cached(DELETE)?;
    for upload in &given_up {
        delete.execute([&upload.id])?;
    }
    Ok(given_up.into_iter().map(|upload| upload.id).collect())
}

/// Forgets the files whose time is over, and answers their ids.
#[derive(Debug, Clone, Copy)]
pub struct ExpireUploads {
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for ExpireUploads {
    type Output = Vec<String>;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Vec<String>, StoreError> {
        let mut expired = all(tx.conn())?;
        expired.retain(|upload| upload.expires_at <= self.at);
        let mut delete = tx.conn().prepare_cached(DELETE)?;
        for upload in &expired {
            delete.execute([&upload.id])?;
        }
        Ok(expired.into_iter().map(|upload| upload.id).collect())
    }
}
