//! Authorizations of MCP servers: begun, finished once, and the tokens that come of them. All secrets come in
//! sealed, and what a browser brings back as a hash.

use iris_protocol::{Event, McpAuthorization, McpOauth, McpServer, McpState, McpTransport, UserId};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{existing, one, publish, save};
use crate::project::{log, queries};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Most authorizations of one project that are begun and not finished.
pub const MCP_AUTHORIZATIONS_MAX: u64 = 100;

/// Begins an authorization, in place of one that the same user began for the same server. Those whose time is
/// over are forgotten.
///
/// Fails with `NotFound`; with `Conflict`: `too_many_authorizations` when there are
/// [`MCP_AUTHORIZATIONS_MAX`].
#[derive(Debug, Clone)]
pub struct BeginMcpAuthorization {
    /// The server.
    pub name: String,
    /// SHA-256 of what the browser is to bring back.
    pub state_hash: String,
    /// What is needed to finish it.
    pub sealed: String,
    /// The client that was registered for it, sealed; `None` leaves the one that there is.
    pub client: Option<String>,
    /// How the server is meanwhile.
    pub state: McpState,
    /// From when on it is good no more, in milliseconds since 1970 UTC.
    pub expires_at: i64,
    /// The user who begins it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for BeginMcpAuthorization {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let mut stored = existing(tx, &self.name)?;
        let user = self.by.as_str();
        tx.conn()
            .prepare_cached(
                "DELETE FROM mcp_authorizations
                 WHERE expires_at <= ?1 OR (server = ?2 AND user_id = ?3)",
            )?
            .execute(params![self.at, self.name, user])?;
        let sql = "SELECT count(*) FROM mcp_authorizations";
        let count: u64 = queries::one(tx.conn(), sql, [], |row| row.get(0))?;
        if count >= MCP_AUTHORIZATIONS_MAX {
            let message = "too many authorizations are begun: finish some, or wait ten minutes";
            return Err(StoreError::conflict("too_many_authorizations", message));
        }
        tx.conn()
            .prepare_cached(
                "INSERT INTO mcp_authorizations (state_hash, server, user_id, sealed, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![self.state_hash, self.name, user, self.sealed, self.expires_at])?;
        if self.client.is_some() {
            stored.client = self.client;
            save(tx, &stored)?;
        }
        let event = Event::McpStatusChanged {
            name: self.name,
            state: self.state,
            reason: Some("an authorization was begun".to_owned()),
            offered_hash: None,
            server: None,
            deleted: false,
        };
        log::in_project(tx, self.at, Some(&self.by), &event)
    }
}

/// An authorization that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunMcpAuthorization {
    /// The server.
    pub name: String,
    /// What is needed to finish it.
    pub sealed: String,
}

/// Takes an authorization that was begun, to finish it: it is good once. Answers none when there is none of
/// this user, or its time is over.
#[derive(Debug, Clone)]
pub struct TakeMcpAuthorization {
    /// SHA-256 of what the browser brings back.
    pub state_hash: String,
    /// The user who began it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for TakeMcpAuthorization {
    type Output = Option<BegunMcpAuthorization>;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Self::Output, StoreError> {
        let sql = "DELETE FROM mcp_authorizations WHERE state_hash = ?1 AND user_id = ?2
                   RETURNING server, sealed, expires_at";
        let taken = queries::first(tx.conn(), sql, [&*self.state_hash, self.by.as_str()], |row| {
            let begun = BegunMcpAuthorization { name: row.get(0)?, sealed: row.get(1)? };
            Ok((begun, row.get::<_, i64>(2)?))
        })?;
        Ok(taken.filter(|(_, expires_at)| *expires_at > self.at).map(|(begun, _)| begun))
    }
}

/// Keeps what came of an authorization. Answers the server as it is then.
///
/// Fails with `NotFound`; with `Conflict`: `server_changed` when the server is not the one any more that it
/// was begun for.
#[derive(Debug, Clone)]
pub struct KeepMcpAuthorization {
    /// The server.
    pub name: String,
    /// Where it was when the authorization was begun.
    pub transport: McpTransport,
    /// How it was to be asked.
    pub oauth: Option<McpOauth>,
    /// What somebody agreed to.
    pub authorization: McpAuthorization,
    /// The tokens, sealed.
    pub tokens: String,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for KeepMcpAuthorization {
    type Output = McpServer;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<McpServer, StoreError> {
        let mut stored = existing(tx, &self.name)?;
        if stored.server.transport != self.transport || stored.server.oauth != self.oauth {
            let message = "the server was changed meanwhile: begin again";
            return Err(StoreError::conflict("server_changed", message));
        }
        let by = self.authorization.by.clone();
        stored.server.authorization = Some(self.authorization);
        stored.tokens = Some(self.tokens);
        stored.server.updated_by = by.clone();
        stored.server.updated_at = self.at;
        save(tx, &stored)?;
        publish(tx, &stored.server, &by, self.at)?;
        Ok(stored.server)
    }
}

/// Puts new tokens in the place of those that were there before. Answers whether they still were.
#[derive(Debug, Clone)]
pub struct RenewMcpTokens {
    /// The server.
    pub name: String,
    /// Those before, sealed.
    pub before: String,
    /// The new ones, sealed.
    pub tokens: String,
}

impl Command for RenewMcpTokens {
    type Output = bool;

    /// The server that gave them has forgotten those before.
    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<bool, StoreError> {
        let Some(mut stored) = one(tx.conn(), &self.name)? else { return Ok(false) };
        if stored.tokens.as_ref() != Some(&self.before) {
            return Ok(false);
        }
        stored.tokens = Some(self.tokens);
        save(tx, &stored)?;
        Ok(true)
    }
}

/// Forgets the authorizations of a server that were begun.
pub(super) fn forget_begun(tx: &WriteTx<'_>, name: &str) -> Result<(), StoreError> {
    let sql = "DELETE FROM mcp_authorizations WHERE server = ?1";
    tx.conn().prepare_cached(sql)?.execute([name])?;
    Ok(())
}
