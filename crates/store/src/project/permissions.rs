//! The rules about what tools may touch, and the answers to approvals that people asked to be
//! remembered.

use std::cmp::Ordering;

use iris_protocol::{
    Event, PermissionAction, PermissionId, PermissionLayer, PermissionRule, PermissionSetting,
    SessionId, UserId,
};
use rusqlite::{Connection, Row, params};

use super::{log, queries, rows};
use crate::column::{from_word, to_word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Most rules of one project, those of its sessions and remembered answers included.
pub const PERMISSIONS_MAX: u64 = 10_000;
/// Most of them that are about sessions, which members make; the others stay for those of the project.
pub const PERMISSIONS_OF_SESSIONS_MAX: u64 = 9_000;
/// Most rules of one session, its remembered answers included.
pub const PERMISSIONS_OF_SESSION_MAX: u64 = 500;

/// All rules, in the order in which those of one layer count.
const ALL: &str = "SELECT * FROM permissions ORDER BY id";
/// Rules of one layer, for a page.
const OF_LAYER: &str =
    "SELECT * FROM permissions WHERE layer = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
/// Those of them that count in one session.
const OF_LAYER_AND_SESSION: &str = "SELECT * FROM permissions
     WHERE layer = ?1 AND id > ?2 AND (session_id IS NULL OR session_id = ?4)
     ORDER BY id LIMIT ?3";

/// The layers of rules that a project has, from the most general one on.
const LAYERS: [PermissionLayer; 3] =
    [PermissionLayer::Project, PermissionLayer::Session, PermissionLayer::Remembered];

/// Makes a rule. Answers it.
///
/// Fails with `NotFound` (session), or `Conflict`: `too_many_permissions` when there are
/// [`PERMISSIONS_MAX`], [`PERMISSIONS_OF_SESSIONS_MAX`] or [`PERMISSIONS_OF_SESSION_MAX`].
#[derive(Debug, Clone)]
pub struct CreatePermission {
    /// A new id.
    pub id: PermissionId,
    /// The session that it is about; the whole project when none.
    pub session_id: Option<SessionId>,
    /// What it says; valid.
    pub setting: PermissionSetting,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreatePermission {
    type Output = PermissionRule;

    /// A full disk keeps no administrator from forbidding something.
    fn when_full(&self) -> WhenFull {
        match self.setting.action {
            PermissionAction::Ask | PermissionAction::Deny if self.session_id.is_none() => {
                WhenFull::Allow
            }
            PermissionAction::Ask | PermissionAction::Deny | PermissionAction::Allow => {
                WhenFull::Refuse
            }
        }
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<PermissionRule, StoreError> {
        if let Some(id) = &self.session_id {
            queries::existing_session(tx.conn(), id)?;
        }
        let layer = match self.session_id {
            Some(_) => PermissionLayer::Session,
            None => PermissionLayer::Project,
        };
        add(
            tx,
            NewRule { id: self.id, setting: self.setting },
            layer,
            self.session_id.as_ref(),
            &self.by,
            self.at,
        )
    }
}

/// Refuses one rule more than there may be, of that session or of the project.
fn check_count(conn: &Connection, session_id: Option<&SessionId>) -> Result<(), StoreError> {
    let sql = "SELECT count(*), count(session_id), count(*) FILTER (WHERE session_id = ?1)
               FROM permissions";
    let session = session_id.map(SessionId::as_str);
    let counted = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let (all, of_sessions, of_session): (u64, u64, u64) =
        queries::one(conn, sql, [session], counted)?;
    let (what, limit) = if all >= PERMISSIONS_MAX {
        ("project has", PERMISSIONS_MAX)
    } else if session.is_some() && of_sessions >= PERMISSIONS_OF_SESSIONS_MAX {
        ("sessions of the project have", PERMISSIONS_OF_SESSIONS_MAX)
    } else if session.is_some() && of_session >= PERMISSIONS_OF_SESSION_MAX {
        ("session has", PERMISSIONS_OF_SESSION_MAX)
    } else {
        return Ok(());
    };
    let message = format!("the {what} {limit} permission rules already");
    Err(StoreError::conflict("too_many_permissions", message))
}

/// A rule that is about to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRule {
    /// A new id.
    pub id: PermissionId,
    /// What it says; valid.
    pub setting: PermissionSetting,
}

/// Adds a rule and says so.
pub(super) fn add(
    tx: &mut WriteTx<'_>,
    new: NewRule,
    layer: PermissionLayer,
    session_id: Option<&SessionId>,
    by: &UserId,
    at: i64,
) -> Result<PermissionRule, StoreError> {
    check_count(tx.conn(), session_id)?;
    let PermissionSetting { permission, pattern, action } = new.setting;
    let sql =
        "INSERT INTO permissions (id, layer, session_id, permission, pattern, action, created_by,
                 created_at, updated_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)";
    tx.conn().prepare_cached(sql)?.execute(params![
        new.id.as_str(),
        to_word(&layer)?,
        session_id.map(SessionId::as_str),
        permission,
        pattern,
        to_word(&action)?,
        by.as_str(),
        at,
    ])?;
    let rule = existing(tx.conn(), &new.id)?;
    publish(tx, &new.id, Some(&rule), by, at)?;
    Ok(rule)
}

/// Changes a rule; its place in the order stays. Answers it as it is then.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct UpdatePermission {
    /// The rule.
    pub id: PermissionId,
    /// A tool, a group of tools or `*`; `None` leaves it.
    pub permission: Option<String>,
    /// A valid glob; `None` leaves it.
    pub pattern: Option<String>,
    /// What becomes of a call that it matches; `None` leaves it.
    pub action: Option<PermissionAction>,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for UpdatePermission {
    type Output = PermissionRule;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<PermissionRule, StoreError> {
        let mut rule = existing(tx.conn(), &self.id)?;
        rule.permission = self.permission.unwrap_or(rule.permission);
        rule.pattern = self.pattern.unwrap_or(rule.pattern);
        rule.action = self.action.unwrap_or(rule.action);
        rule.updated_at = Some(self.at);
        let sql =
            "UPDATE permissions SET permission = ?2, pattern = ?3, action = ?4, updated_at = ?5
                   WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            rule.permission,
            rule.pattern,
            to_word(&rule.action)?,
            self.at,
        ])?;
        publish(tx, &self.id, Some(&rule), &self.by, self.at)?;
        Ok(rule)
    }
}

/// Deletes a rule or a remembered answer. Answers it as it was.
///
/// Fails as [`UpdatePermission`].
#[derive(Debug, Clone)]
pub struct DeletePermission {
    /// The rule.
    pub id: PermissionId,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for DeletePermission {
    type Output = PermissionRule;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<PermissionRule, StoreError> {
        let rule = existing(tx.conn(), &self.id)?;
        let sql = "DELETE FROM permissions WHERE id = ?1";
        tx.conn().prepare_cached(sql)?.execute([self.id.as_str()])?;
        publish(tx, &self.id, None, &self.by, self.at)?;
        Ok(rule)
    }
}

pub(super) fn one(
    conn: &Connection,
    id: &PermissionId,
) -> Result<Option<PermissionRule>, StoreError> {
    let sql = "SELECT * FROM permissions WHERE id = ?1";
    queries::first(conn, sql, [id.as_str()], rows::permission)
}

fn existing(conn: &Connection, id: &PermissionId) -> Result<PermissionRule, StoreError> {
    one(conn, id)?.ok_or(StoreError::NotFound { what: "permission" })
}

/// All rules of the project and of its sessions.
pub(super) fn all(conn: &Connection) -> Result<Vec<PermissionRule>, StoreError> {
    queries::all(conn, ALL, [], rows::permission)
}

/// Where a rule stands in a list of rules: by its layer, and in that by its id. It is the cursor of a page.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RulePlace {
    layer: PermissionLayer,
    id: PermissionId,
}

impl RulePlace {
    /// The place of a stored rule; none for a rule that nobody made.
    pub fn of(rule: &PermissionRule) -> Option<Self> {
        Some(Self { layer: rule.layer, id: rule.id.clone()? })
    }

    /// Reads a cursor.
    ///
    /// # Errors
    /// `InvalidCursor` for a cursor that no page gave.
    pub fn parse(cursor: &str) -> Result<Self, StoreError> {
        let parsed = cursor.split_once('.').and_then(|(layer, id)| {
            Some(Self { layer: from_word(layer).ok()?, id: id.parse().ok()? })
        });
        parsed.ok_or_else(|| StoreError::InvalidCursor { cursor: cursor.to_owned() })
    }

    /// For the next page.
    ///
    /// # Errors
    /// `Internal`, which would be a mistake in this crate.
    pub fn cursor(&self) -> Result<String, StoreError> {
        Ok(format!("{}.{}", to_word(&self.layer)?, self.id))
    }
}

/// The rules behind a place, in the order of [`RulePlace`], at most `limit`; with a session, which must
/// exist, those that count in it.
pub(super) fn behind(
    conn: &Connection,
    session_id: Option<&SessionId>,
    place: Option<&RulePlace>,
    limit: usize,
) -> Result<Vec<PermissionRule>, StoreError> {
    if let Some(id) = session_id {
        queries::existing_session(conn, id)?;
    }
    let mut rules = Vec::new();
    for layer in LAYERS {
        let after = match place.map(|place| place.layer.cmp(&layer)) {
            Some(Ordering::Greater) => continue,
            Some(Ordering::Equal) => place.map_or("", |place| place.id.as_str()),
            Some(Ordering::Less) | None => "",
        };
        let (layer, left) = (to_word(&layer)?, limit.saturating_sub(rules.len()));
        rules.extend(match session_id {
            Some(id) => {
                let key = params![layer, after, left, id.as_str()];
                queries::all(conn, OF_LAYER_AND_SESSION, key, rows::permission)?
            }
            None => queries::all(conn, OF_LAYER, params![layer, after, left], rows::permission)?,
        });
    }
    Ok(rules)
}

fn publish(
    tx: &mut WriteTx<'_>,
    id: &PermissionId,
    rule: Option<&PermissionRule>,
    by: &UserId,
    at: i64,
) -> Result<(), StoreError> {
    let rule = rule.cloned().map(Box::new);
    let event = Event::PermissionUpdated { permission_id: id.clone(), rule };
    log::in_project(tx, at, Some(by), &event)
}
