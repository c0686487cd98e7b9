//! A repeat of a command answers what the first one answered, and does nothing.
//!
//! Needs this table in the database:
//!
//! ```sql
//! CREATE TABLE idempotency (
//!     user_id   TEXT    NOT NULL,
//!     operation TEXT    NOT NULL,
//!     key       TEXT    NOT NULL,
//!     body_hash TEXT    NOT NULL,
//!     output    TEXT    NOT NULL,
//!     seq       INTEGER,
//!     at        INTEGER NOT NULL,
//!     PRIMARY KEY (user_id, operation, key)
//! ) STRICT, WITHOUT ROWID;
//!
//! CREATE INDEX idempotency_by_time ON idempotency (at);
//! ```

use std::borrow::Cow;

use iris_protocol::UserId;
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Committed;
use crate::StoreError;
use crate::root::RecordAudit;

/// How long a repeat is recognised, in milliseconds.
pub(super) const KEPT_MS: i64 = 24 * 60 * 60 * 1000;

/// What stands around a command.
#[derive(Debug, Clone, Default)]
pub struct WriteContext {
    /// Makes the command repeatable.
    pub idempotency: Option<IdempotencyKey>,
    /// What the audit says of it, in the command's own transaction. For the root database alone, and not for
    /// repeats.
    pub audit: Option<Box<RecordAudit>>,
}

/// The name of one intended change: who, what, and the client's own key for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// The user who wants it.
    pub user_id: UserId,
    /// The operation's name on the wire.
    pub operation: Cow<'static, str>,
    /// The client's key, at most [`iris_protocol::limits::IDEMPOTENCY_KEY_BYTES_MAX`] bytes.
    pub key: String,
    /// Tells one request body from another.
    pub body_hash: String,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl IdempotencyKey {
    /// The outcome of the first command with this key, if there was one in the last 24 hours.
    pub(crate) fn recall<T: DeserializeOwned>(
        &self,
        conn: &Connection,
    ) -> Result<Option<Committed<T>>, StoreError> {
        let sql = "SELECT body_hash, output, seq FROM idempotency
                   WHERE user_id = ?1 AND operation = ?2 AND key = ?3 AND at > ?4";
        let since = self.at.saturating_sub(KEPT_MS);
        let found = conn
            .prepare_cached(sql)?
            .query_row(params![self.user_id.as_str(), self.operation, self.key, since], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?))
            })
            .optional()?;
        let Some((body_hash, output, seq)) = found else { return Ok(None) };
        if body_hash != self.body_hash {
            return Err(StoreError::IdempotencyConflict);
        }
        Ok(Some(Committed { output: serde_json::from_str(&output)?, seq, replayed: true }))
    }

    /// Whether there was a command with this key in the last 24 hours, with whatever body.
    pub(crate) fn is_known(&self, conn: &Connection) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM idempotency
                   WHERE user_id = ?1 AND operation = ?2 AND key = ?3 AND at > ?4";
        let since = self.at.saturating_sub(KEPT_MS);
        let key = params![self.user_id.as_str(), self.operation, self.key, since];
        Ok(conn.prepare_cached(sql)?.exists(key)?)
    }

    /// Forgets the outcomes whose time is over.
    pub(super) fn forget_old(&self, conn: &Connection) -> Result<(), StoreError> {
        let sql = "DELETE FROM idempotency WHERE at <= ?1";
        conn.prepare_cached(sql)?.execute([self.at.saturating_sub(KEPT_MS)])?;
        Ok(())
    }

    /// Keeps an outcome for repeats.
    pub(super) fn remember<T: Serialize>(
        &self,
        conn: &Connection,
        committed: &Committed<T>,
    ) -> Result<(), StoreError> {
        let sql = "INSERT INTO idempotency (user_id, operation, key, body_hash, output, seq, at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        conn.prepare_cached(sql)?.execute(params![
            self.user_id.as_str(),
            self.operation,
            self.key,
            self.body_hash,
            serde_json::to_string(&committed.output)?,
            committed.seq,
            self.at,
        ])?;
        Ok(())
    }
}
