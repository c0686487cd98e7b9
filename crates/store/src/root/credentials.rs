//! Keys with which model providers are asked. They come in sealed: the store cannot open them.

use iris_protocol::{CredentialId, ProjectId, ProviderCredential, UserId};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::projects::existing_project;
use super::users::existing_user;
use crate::column::{optional_word, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Whose a credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialOwner {
    /// For the runs that this user sets to work, in all projects.
    User(UserId),
    /// For the runs of this project.
    Project(ProjectId),
    /// For all runs.
    Server,
}

impl CredentialOwner {
    /// The columns `user_id` and `project_id`.
    fn columns(&self) -> (Option<&str>, Option<&str>) {
        match self {
            Self::User(id) => (Some(id.as_str()), None),
            Self::Project(id) => (None, Some(id.as_str())),
            Self::Server => (None, None),
        }
    }
}

/// Sets the key of an owner for a provider, in place of the one before.
///
/// Fails with `NotFound`: `user`, `project`.
#[derive(Debug, Clone)]
pub struct SetCredential {
    /// A new id.
    pub id: CredentialId,
    /// Whose it is.
    pub owner: CredentialOwner,
    /// The provider, never empty.
    pub provider_id: String,
    /// The key, sealed for its owner and provider.
    pub sealed: String,
    /// By what its owner knows it.
    pub hint: String,
    /// Who sets it.
    pub created_by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for SetCredential {
    type Output = ProviderCredential;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<ProviderCredential, StoreError> {
        let conn = tx.conn();
        match &self.owner {
            CredentialOwner::User(id) => drop(existing_user(conn, id)?),
            CredentialOwner::Project(id) => drop(existing_project(conn, &self.created_by, id)?),
            CredentialOwner::Server => {}
        }
        if let Some(before) = find(conn, &self.owner, &self.provider_id)? {
            let sql = "DELETE FROM provider_credentials WHERE id = ?1";
            conn.prepare_cached(sql)?.execute([before.id.as_str()])?;
        }
        let (user_id, project_id) = self.owner.columns();
        let sql = "INSERT INTO provider_credentials
                       (id, user_id, project_id, provider_id, sealed, hint, created_by, created_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        conn.prepare_cached(sql)?.execute(params![
            self.id.as_str(),
            user_id,
            project_id,
            self.provider_id,
            self.sealed,
            self.hint,
            self.created_by.as_str(),
            self.at,
        ])?;
        Ok(ProviderCredential {
            id: self.id,
            provider_id: self.provider_id,
            hint: self.hint,
            created_by: self.created_by,
            created_at: self.at,
        })
    }
}

/// Takes a credential of an owner away.
///
/// Fails with `NotFound` when they have no such credential.
#[derive(Debug, Clone)]
pub struct DeleteCredential {
    /// Whose it is.
    pub owner: CredentialOwner,
    /// The credential.
    pub id: CredentialId,
}

impl Command for DeleteCredential {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let (user_id, project_id) = self.owner.columns();
        let sql = "DELETE FROM provider_credentials
                   WHERE id = ?1 AND user_id IS ?2 AND project_id IS ?3";
        let values = params![self.id.as_str(), user_id, project_id];
        if tx.conn().prepare_cached(sql)?.execute(values)? == 0 {
            return Err(StoreError::NotFound { what: "credential" });
        }
        Ok(())
    }
}

/// Most credentials that are sealed anew in one transaction.
pub const SEALED_AT_ONCE_MAX: u32 = 100;

/// Puts newly sealed texts in the place of those that were sealed with the key before, but for credentials that
/// changed meanwhile. Answers how many did not.
#[derive(Debug, Clone)]
pub struct SealCredentialsAgain(
    /// At most [`SEALED_AT_ONCE_MAX`].
    pub Vec<SealedAgain>,
);

/// A credential whose key is sealed anew.
#[derive(Debug, Clone)]
pub struct SealedAgain {
    /// The credential.
    pub id: CredentialId,
    /// As it was read.
    pub before: String,
    /// Sealed with the key of now.
    pub sealed: String,
}

impl Command for SealCredentialsAgain {
    type Output = u64;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<u64, StoreError> {
        let sql = "UPDATE provider_credentials SET sealed = ?3 WHERE id = ?1 AND sealed = ?2";
        let mut update = tx.conn().prepare_cached(sql)?;
        let mut count = 0;
        for SealedAgain { id, before, sealed } in self.0 {
            count += update.execute(params![id.as_str(), before, sealed])? as u64;
        }
        Ok(count)
    }
}

/// A credential with its sealed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCredential {
    /// The credential.
    pub id: CredentialId,
    /// Whose it is.
    pub owner: CredentialOwner,
    /// The provider.
    pub provider_id: String,
    /// The key, sealed for its owner and provider.
    pub sealed: String,
}

fn found(row: &Row<'_>) -> rusqlite::Result<FoundCredential> {
    let (user_id, project_id) = (optional_word(row, "user_id")?, optional_word(row, "project_id")?);
    let owner = match (user_id, project_id) {
        (Some(id), _) => CredentialOwner::User(id),
        (None, Some(id)) => CredentialOwner::Project(id),
        (None, None) => CredentialOwner::Server,
    };
    let (provider_id, sealed) = (row.get("provider_id")?, row.get("sealed")?);
    Ok(FoundCredential { id: word(row, "id")?, owner, provider_id, sealed })
}

/// The key of an owner for a provider.
fn find(
    conn: &Connection,
    owner: &CredentialOwner,
    provider_id: &str,
) -> Result<Option<FoundCredential>, StoreError> {
    let of_user = "SELECT * FROM provider_credentials WHERE user_id = ?1 AND provider_id = ?2";
    let of_project =
        "SELECT * FROM provider_credentials WHERE project_id = ?1 AND provider_id = ?2";
    let of_server = "SELECT * FROM provider_credentials
                     WHERE user_id IS NULL AND project_id IS NULL AND provider_id = ?1";
    let row = match owner {
        CredentialOwner::User(id) => {
            conn.prepare_cached(of_user)?.query_row([id.as_str(), provider_id], found)
        }
        CredentialOwner::Project(id) => {
            conn.prepare_cached(of_project)?.query_row([id.as_str(), provider_id], found)
        }
        CredentialOwner::Server => conn.prepare_cached(of_server)?.query_row([provider_id], found),
    };
    Ok(row.optional()?)
}

/// The key for a run: that of its user, else that of its project, else that of the server.
pub(super) fn nearest(
    conn: &Connection,
    provider_id: &str,
    user_id: UserId,
    project_id: ProjectId,
) -> Result<Option<FoundCredential>, StoreError> {
    let owners = [
        CredentialOwner::User(user_id),
        CredentialOwner::Project(project_id),
        CredentialOwner::Server,
    ];
    for owner in owners {
        let found = find(conn, &owner, provider_id)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The next ones behind an id, in the order of their ids; the first ones for an empty one.
pub(super) fn after(conn: &Connection, id: &str) -> Result<Vec<FoundCredential>, StoreError> {
    let mut statement = conn.prepare_cached(AFTER_SQL)?;
    let after = statement.query_map(params![id, SEALED_AT_ONCE_MAX], found)?;
    Ok(after.collect::<Result<_, _>>()?)
}

pub(super) const AFTER_SQL: &str =
    "SELECT * FROM provider_credentials WHERE id > ?1 ORDER BY id LIMIT ?2";

/// The credentials of an owner, by provider.
pub(super) fn of(
    conn: &Connection,
    owner: &CredentialOwner,
) -> Result<Vec<ProviderCredential>, StoreError> {
    let of_user = "SELECT * FROM provider_credentials WHERE user_id = ?1 ORDER BY provider_id";
    let of_project =
        "SELECT * FROM provider_credentials WHERE project_id = ?1 ORDER BY provider_id";
    let of_server = "SELECT * FROM provider_credentials
                     WHERE user_id IS NULL AND project_id IS NULL ORDER BY provider_id";
    let (sql, id) = match owner {
        CredentialOwner::User(id) => (of_user, Some(id.as_str())),
        CredentialOwner::Project(id) => (of_project, Some(id.as_str())),
        CredentialOwner::Server => (of_server, None),
    };
    let mut statement = conn.prepare_cached(sql)?;
    let found = statement.query_map(params_from_iter(id), |row| {
        Ok(ProviderCredential {
            id: word(row, "id")?,
            provider_id: row.get("provider_id")?,
            hint: row.get("hint")?,
            created_by: word(row, "created_by")?,
            created_at: row.get("created_at")?,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}
