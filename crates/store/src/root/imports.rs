//! A project that was made elsewhere becomes one of this server.

use iris_protocol::{CloneState, ProjectId, ProjectType, Role, UserId};
use rusqlite::params;
use serde_json::{Map, Value};

use super::git::{self, NewGit};
use super::members::insert_member;
use super::projects::is_of_another;
use super::queries::project_location;
use super::rows::project_type_text;
use super::users::existing_user;
use super::{intents, unfinished};
use crate::{Command, StoreError, WriteTx};

/// Adds a project with its members, all at once, and ends the intent to make its directory. Its
/// database and files are the caller's to bring, in the data directory. The project is marked as one
/// with unfinished work, since nobody knows what it holds.
///
/// One of the type `git` has its files, and becomes one of the type `local` where another project of this server lives
/// in the repository that it was cloned from.
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
    /// Where a project of the type `git` was cloned from.
    pub git: Option<NewGit>,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created_at: i64,
    /// The others; the owner and whoever is named twice are taken once. [`Role::Owner`] means
    /// [`Role::Admin`] here: there is one owner.
    pub members: Vec<(UserId, Role)>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl ImportProject {
    /// Has it be a project of the type `local`: it has its files, and no other side.
    pub fn without_git(&mut self) {
        if self.git.take().is_some() {
            self.r#type = ProjectType::Local;
        }
    }
}

impl Command for ImportProject {
    type Output = ();

    fn run(mut self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        existing_user(tx.conn(), &self.owner_id)?;
        if project_location(tx.conn(), &self.id)?.is_some() {
            return Err(StoreError::conflict("project_exists", "there is a project of that id"));
        }
        // What another project of this server has is not brought along by an archive.
        if let Some(git) = &self.git
            && is_of_another(tx.conn(), &git.url)?
        {
            self.without_git();
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
        if let Some(git) = &self.git {
            git::insert(tx.conn(), &self.id, git, &self.owner_id, self.at, CloneState::Ready)?;
        }
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
        intents::end(tx, &self.id)?;
        unfinished::mark(tx, &self.id, self.at)
    }
}
