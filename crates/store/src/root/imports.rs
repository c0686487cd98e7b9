//! A project that was made elsewhere becomes one of this server.

use iris_protocol::{ProjectId, ProjectType, Role, UserId};
use rusqlite::params;
use serde_json::{Map, Value};

use super::members::insert_member;
use super::queries::project_location;
use super::rows::project_type_text;
use super::users::existing_user;
use crate::{Command, StoreError, WriteTx};

/// Adds a project with its members, all at once. Its database and files are the caller's to bring, in
/// the data directory.
///
/// Fails with `NotFound` (owner, member), or `Conflict`: `project_exists`.
#[derive(Debug, Clone)]
pub struct ImportProject {
    /// The project.
    pub id: ProjectId,
    /// The user who may do everything with it.
    pub owner_id: UserId,
    /// Never empty.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Free-form.
    pub settings: Map<String, Value>,
    /// Where its files live.
    pub r#type: ProjectType,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_at: i64,
    /// The others; the owner and whoever is named twice are taken once. [`Role::Owner`] means
    /// [`Role::Admin`] here: there is one owner.
    pub members: Vec<(UserId, Role)>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for ImportProject {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        existing_user(tx.conn(), &self.owner_id)?;
        if project_location(tx.conn(), &self.id)?.is_some() {
            return Err(StoreError::conflict("project_exists", "there is a project of that id"));
        }
        let sql = "INSERT INTO projects
                       (id, owner_id, name, description, type, settings, created_at, updated_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            self.owner_id.as_str(),
            self.name,
            self.description,
            project_type_text(self.r#type),
            Value::Object(self.settings).to_string(),
            self.created_at,
            self.at,
        ])?;
        insert_member(tx.conn(), &self.id, &self.owner_id, Role::Owner, self.at)?;
        let mut known = vec![self.owner_id];
        for (user_id, role) in self.members {
            if known.contains(&user_id) {
                continue;
            }
            existing_user(tx.conn(), &user_id)?;
            let role = if role == Role::Owner { Role::Admin } else { role };
            insert_member(tx.conn(), &self.id, &user_id, role, self.at)?;
            known.push(user_id);
        }
        Ok(())
    }
}
