//! Commands on logins: a login is a family of refresh tokens of which only the newest is good.
//!
//! Tokens are replaced at each use. Whoever presents a spent one either lost the answer to its first
//! use or stole it; outside a short grace the whole login ends (RFC 9700 section 4.14.2).

use iris_protocol::{AuthSessionId, Login, User, UserId, limits::LOGINS_PER_USER_MAX};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::identities::{IdentityUse, note_login};
use super::rows::{self, USER_COLUMN_COUNT, USER_COLUMNS};
use super::users::existing_user;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// How long a spent token may be presented again for the same child, in milliseconds.
pub const REFRESH_GRACE_MS: i64 = 10_000;
/// How long an expired token is remembered, so that its reuse is noticed, in milliseconds.
pub const EXPIRED_TOKEN_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

const FORGET_LOGINS: &str = "DELETE FROM auth_sessions
    WHERE user_id = ?1 AND NOT EXISTS (
        SELECT 1 FROM refresh_tokens t
        WHERE t.auth_session_id = auth_sessions.id AND t.expires_at > ?2)";
/// Those that ended, where there are too many: they are not to take the place of any that has not.
const FORGET_ENDED: &str = "DELETE FROM auth_sessions
    WHERE user_id = ?1 AND revoked_at IS NOT NULL
      AND (SELECT count(*) FROM auth_sessions WHERE user_id = ?1) > ?2";
/// All but the newest ones.
const FORGET_OLDEST: &str = "DELETE FROM auth_sessions WHERE user_id = ?1 AND id IN (
    SELECT id FROM auth_sessions WHERE user_id = ?1 ORDER BY id DESC LIMIT -1 OFFSET ?2)";
const FORGET_TOKENS: &str =
    "DELETE FROM refresh_tokens WHERE auth_session_id = ?1 AND expires_at < ?2";

/// SHA-256 of a refresh token; the store never sees the token.
pub type TokenHash = [u8; 32];

/// Begins a login with its first refresh token, and forgets logins of the user whose time is over.
///
/// Fails with `NotFound` when there is no such user, or no such identity any more.
#[derive(Debug, Clone)]
pub struct BeginAuthSession {
    /// The new login.
    pub id: AuthSessionId,
    /// The user who logged in.
    pub user_id: UserId,
    /// The first refresh token.
    pub refresh_hash: TokenHash,
    /// When that token ends, in milliseconds since 1970 UTC.
    pub expires_at: i64,
    /// The address of the client, as text.
    pub ip: Option<String>,
    /// What the client calls itself.
    pub agent: Option<String>,
    /// The identity that somebody logged in with; none for a password.
    pub identity: Option<IdentityUse>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for BeginAuthSession {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        existing_user(tx.conn(), &self.user_id)?;
        if let Some(used) = &self.identity {
            note_login(tx.conn(), used, self.at)?;
        }
        tx.conn()
            .prepare_cached(FORGET_LOGINS)?
            .execute(params![self.user_id.as_str(), self.at])?;
        tx.conn()
            .prepare_cached(
                "INSERT INTO auth_sessions (id, user_id, created_at, ip, agent)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                self.id.as_str(),
                self.user_id.as_str(),
                self.at,
                self.ip,
                self.agent
            ])?;
        for sql in [FORGET_ENDED, FORGET_OLDEST] {
            let bound = params![self.user_id.as_str(), LOGINS_PER_USER_MAX];
            tx.conn().prepare_cached(sql)?.execute(bound)?;
        }
        insert_token(tx.conn(), &self.id, &self.refresh_hash, None, self.expires_at)
    }
}

/// Exchanges a refresh token for its one child. Answers a [`RotateOutcome`]; a refusal is an answer
/// and not an error, because what it ends has to be committed.
#[derive(Debug, Clone)]
pub struct RotateRefresh {
    /// The token that the client presents.
    pub presented_hash: TokenHash,
    /// Its child, the same for each presentation.
    pub child_hash: TokenHash,
    /// When the child ends, in milliseconds since 1970 UTC.
    pub child_expires_at: i64,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

/// What became of a presented refresh token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RotateOutcome {
    /// It is spent and its child is good.
    Rotated {
        /// Whose it is.
        user: User,
        /// The login.
        auth_session_id: AuthSessionId,
        /// The user's epoch, for the access token.
        epoch: i64,
    },
    /// It was spent a moment ago and its child is still good; nothing changed.
    Repeated {
        /// Whose it is.
        user: User,
        /// The login.
        auth_session_id: AuthSessionId,
        /// The user's epoch, for the access token.
        epoch: i64,
        /// Of the child that it was exchanged for.
        child_hash: TokenHash,
    },
    /// It is no good.
    Refused {
        /// Why.
        reason: RefusalReason,
    },
}

/// Why a refresh token is no good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalReason {
    /// No such token was issued, or it is long forgotten.
    Unknown,
    /// Its user may not log in.
    Disabled,
    /// Its login was ended before.
    Revoked,
    /// It was never used and its time is over.
    Expired,
    /// Two parties hold it: its login is ended now.
    Reused {
        /// The user.
        user_id: UserId,
        /// The login that was ended.
        auth_session_id: AuthSessionId,
    },
}

impl Command for RotateRefresh {
    type Output = RotateOutcome;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<RotateOutcome, StoreError> {
        let Some(token) = find_token(tx.conn(), &self.presented_hash)? else {
            return Ok(RotateOutcome::Refused { reason: RefusalReason::Unknown });
        };
        let verdict = judge(token.state, self.at);
        let Token { user, auth_session_id, epoch, child_hash, state: _ } = token;
        match verdict {
            Verdict::Rotate => {
                self.replace(tx.conn(), &auth_session_id)?;
                Ok(RotateOutcome::Rotated { user, auth_session_id, epoch })
            }
            Verdict::Repeat => {
                // The verdict is about a child that is there.
                let child_hash = child_hash.unwrap_or(self.child_hash);
                Ok(RotateOutcome::Repeated { user, auth_session_id, epoch, child_hash })
            }
            Verdict::Refuse(reason) => Ok(RotateOutcome::Refused { reason }),
            Verdict::EndLogin => {
                revoke(tx.conn(), &auth_session_id, self.at)?;
                let reason = RefusalReason::Reused { user_id: user.id, auth_session_id };
                Ok(RotateOutcome::Refused { reason })
            }
        }
    }
}

impl RotateRefresh {
    fn replace(&self, conn: &Connection, login: &AuthSessionId) -> Result<(), StoreError> {
        conn.prepare_cached("UPDATE refresh_tokens SET used_at = ?2 WHERE hash = ?1")?
            .execute(params![self.presented_hash, self.at])?;
        conn.prepare_cached("UPDATE auth_sessions SET last_used_at = ?2 WHERE id = ?1")?
            .execute(params![login.as_str(), self.at])?;
        conn.prepare_cached(FORGET_TOKENS)?
            .execute(params![login.as_str(), self.at.saturating_sub(EXPIRED_TOKEN_KEPT_MS)])?;
        let parent = Some(&self.presented_hash);
        insert_token(conn, login, &self.child_hash, parent, self.child_expires_at)
    }
}

/// Ends a login. Ending one that is over or unknown changes nothing.
#[derive(Debug, Clone)]
pub struct RevokeAuthSession {
    /// The login.
    pub id: AuthSessionId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for RevokeAuthSession {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        revoke(tx.conn(), &self.id, self.at)
    }
}

/// Ends a login of a user. Answers whether it had not ended before.
///
/// Fails with `NotFound` when the user has no such login.
#[derive(Debug, Clone)]
pub struct RevokeLogin {
    /// The user.
    pub user_id: UserId,
    /// The login.
    pub id: AuthSessionId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for RevokeLogin {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let sql = "SELECT 1 FROM auth_sessions WHERE id = ?1 AND user_id = ?2";
        let key = [self.id.as_str(), self.user_id.as_str()];
        if !tx.conn().prepare_cached(sql)?.exists(key)? {
            return Err(StoreError::NotFound { what: "login" });
        }
        revoke(tx.conn(), &self.id, self.at)
    }
}

/// Ends every login of a user at once: their access tokens are void, their refresh tokens too.
///
/// Fails with `NotFound` when there is no such user.
#[derive(Debug, Clone)]
pub struct EndLogins {
    /// The user.
    pub user_id: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for EndLogins {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        existing_user(tx.conn(), &self.user_id)?;
        end_all(tx.conn(), &self.user_id, self.at)
    }
}

/// Raises the user's epoch, which voids access tokens, and revokes what could be refreshed.
pub(super) fn end_all(conn: &Connection, user_id: &UserId, at: i64) -> Result<(), StoreError> {
    conn.prepare_cached("UPDATE users SET epoch = epoch + 1 WHERE id = ?1")?
        .execute([user_id.as_str()])?;
    let sql = "UPDATE auth_sessions SET revoked_at = ?2 WHERE user_id = ?1 AND revoked_at IS NULL";
    conn.prepare_cached(sql)?.execute(params![user_id.as_str(), at])?;
    Ok(())
}

/// Revokes every login of a user but one; access tokens of revoked logins are void too.
pub(super) fn end_others(
    conn: &Connection,
    user_id: &UserId,
    keep: Option<&AuthSessionId>,
    at: i64,
) -> Result<(), StoreError> {
    let sql = "UPDATE auth_sessions SET revoked_at = ?2
               WHERE user_id = ?1 AND revoked_at IS NULL AND id IS NOT ?3";
    let keep = keep.map(AuthSessionId::as_str);
    conn.prepare_cached(sql)?.execute(params![user_id.as_str(), at, keep])?;
    Ok(())
}

const LOGINS: &str = "SELECT s.id, s.created_at, s.last_used_at, s.ip, s.agent,
        (SELECT max(t.expires_at) FROM refresh_tokens t WHERE t.auth_session_id = s.id) AS ends
    FROM auth_sessions s
    WHERE s.user_id = ?1 AND s.revoked_at IS NULL ORDER BY s.id DESC";

/// The logins of a user that have not ended, newest first.
pub(super) fn logins(
    conn: &Connection,
    user_id: &UserId,
    at: i64,
) -> Result<Vec<Login>, StoreError> {
    let mut statement = conn.prepare_cached(LOGINS)?;
    let found = statement.query_map([user_id.as_str()], login)?;
    let found = found.collect::<Result<Vec<_>, _>>()?;
    Ok(found.into_iter().filter(|login| login.expires_at > at).collect())
}

fn login(row: &Row<'_>) -> rusqlite::Result<Login> {
    Ok(Login {
        id: rows::id(row, 0)?,
        created_at: row.get(1)?,
        last_used_at: row.get(2)?,
        ip: row.get(3)?,
        agent: row.get(4)?,
        expires_at: row.get::<_, Option<i64>>(5)?.unwrap_or(0),
        current: false,
    })
}

/// A refresh token with its login and user.
struct Token {
    user: User,
    auth_session_id: AuthSessionId,
    epoch: i64,
    /// None while it was not exchanged.
    child_hash: Option<TokenHash>,
    state: TokenState,
}

/// All that decides what becomes of a presented token.
#[derive(Debug, Clone, Copy)]
struct TokenState {
    used_at: Option<i64>,
    expires_at: i64,
    login_revoked: bool,
    user_disabled: bool,
    /// Nobody has used its child: it is the newest token but one.
    child_is_unused: bool,
}

enum Verdict {
    Rotate,
    Repeat,
    Refuse(RefusalReason),
    EndLogin,
}

/// A spent token counts as reused even after its own expiry, because its children live on.
fn judge(token: TokenState, now: i64) -> Verdict {
    if token.user_disabled {
        return Verdict::Refuse(RefusalReason::Disabled);
    }
    if token.login_revoked {
        return Verdict::Refuse(RefusalReason::Revoked);
    }
    if let Some(used_at) = token.used_at {
        let in_grace = now.saturating_sub(used_at) <= REFRESH_GRACE_MS;
        return if in_grace && token.child_is_unused { Verdict::Repeat } else { Verdict::EndLogin };
    }
    if token.expires_at <= now {
        return Verdict::Refuse(RefusalReason::Expired);
    }
    Verdict::Rotate
}

fn token_sql() -> String {
    format!(
        "SELECT {USER_COLUMNS}, s.id, u.epoch, t.used_at, t.expires_at,
                s.revoked_at IS NOT NULL, u.disabled, c.hash IS NOT NULL AND c.used_at IS NULL,
                c.hash
         FROM refresh_tokens t
         JOIN auth_sessions s ON s.id = t.auth_session_id
         JOIN users u ON u.id = s.user_id
         LEFT JOIN refresh_tokens c ON c.parent_hash = t.hash
         WHERE t.hash = ?1"
    )
}

fn find_token(conn: &Connection, hash: &TokenHash) -> Result<Option<Token>, StoreError> {
    let token = conn.prepare_cached(&token_sql())?.query_row([hash], |row| {
        const AFTER_USER: usize = USER_COLUMN_COUNT;
        Ok(Token {
            user: rows::user(row)?,
            auth_session_id: rows::id(row, AFTER_USER)?,
            epoch: row.get(AFTER_USER + 1)?,
            child_hash: row.get(AFTER_USER + 7)?,
            state: TokenState {
                used_at: row.get(AFTER_USER + 2)?,
                expires_at: row.get(AFTER_USER + 3)?,
                login_revoked: row.get(AFTER_USER + 4)?,
                user_disabled: row.get(AFTER_USER + 5)?,
                child_is_unused: row.get(AFTER_USER + 6)?,
            },
        })
    });
    Ok(token.optional()?)
}

fn insert_token(
    conn: &Connection,
    login: &AuthSessionId,
    hash: &TokenHash,
    parent: Option<&TokenHash>,
    expires_at: i64,
) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO refresh_tokens (hash, auth_session_id, parent_hash, expires_at)
         VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![hash, login.as_str(), parent, expires_at])?;
    Ok(())
}

fn revoke(conn: &Connection, login: &AuthSessionId, at: i64) -> Result<(), StoreError> {
    conn.prepare_cached(
        "UPDATE auth_sessions SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL",
    )?
    .execute(params![login.as_str(), at])?;
    Ok(())
}
