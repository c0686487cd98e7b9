//! The root database on real files: every command with good and bad input, every query.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod accounts;
mod audit;
mod backups;
mod files;
mod git;
mod identities;
mod invitations;
mod keys;
mod logins;
mod permissions;
mod projects;
mod released;
mod supervision;
mod unfinished;
mod usage;
mod users;

use std::path::PathBuf;

use iris_protocol::{AuthSessionId, Project, ProjectId, ProjectType, Role, User, UserId};
use iris_store::root::{
    AddMember, BeginAuthSession, CreateProject, CreateUser, RotateOutcome, RotateRefresh, TokenHash,
};
use iris_store::{Command, RootDatabase, RootReader, StoreError, WriteContext};
use tempfile::TempDir;

const NOW: i64 = 1_790_000_000_000;
/// How long refresh tokens of these tests are good, in milliseconds.
const LIFETIME: i64 = 1_000_000;

/// A root database in a directory of its own.
struct Root {
    db: RootDatabase,
    reader: RootReader,
    directory: TempDir,
}

impl Root {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = RootDatabase::open_or_create(&directory.path().join("root.db"), NOW).unwrap();
        Self { reader: db.reader(), db, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("root.db")
    }

    async fn run<C: Command>(&self, command: C) -> Result<C::Output, StoreError> {
        Ok(self.db.writer().submit(command, WriteContext::default()).await?.output)
    }

    async fn user(&self, n: u128) -> User {
        self.run(create_user(n)).await.unwrap()
    }

    /// A project of a user who is there already.
    async fn project(&self, n: u128, owner: u128) -> Project {
        self.run(create_project(n, owner)).await.unwrap()
    }

    async fn add_member(&self, project: u128, user: u128, role: Role) {
        let (project_id, user_id) = (project_id(project), user_id(user));
        self.run(AddMember { project_id, user_id, role, by: self::user_id(1), at: NOW })
            .await
            .unwrap();
    }

    async fn begin_login(&self, n: u128, user: u128, token: u8) {
        self.run(begin_login(n, user, token)).await.unwrap();
    }

    async fn rotate(&self, presented: u8, child: u8, at: i64) -> RotateOutcome {
        self.run(rotate(presented, child, at)).await.unwrap()
    }
}

fn user_id(n: u128) -> UserId {
    UserId::from_bits(n)
}

fn project_id(n: u128) -> ProjectId {
    ProjectId::from_bits(n)
}

fn login_id(n: u128) -> AuthSessionId {
    AuthSessionId::from_bits(n)
}

fn hash(n: u8) -> TokenHash {
    [n; 32]
}

fn create_user(n: u128) -> CreateUser {
    CreateUser {
        id: user_id(n),
        email: format!("user{n}@example.com"),
        username: format!("user{n}"),
        password_hash: Some("$argon2id$...".to_owned()),
        is_admin: false,
        only_if_no_admin: false,
        at: NOW,
    }
}

fn create_project(n: u128, owner: u128) -> CreateProject {
    CreateProject {
        id: project_id(n),
        owner_id: user_id(owner),
        name: format!("Project {n}"),
        description: None,
        r#type: ProjectType::Local,
        path: None,
        git: None,
        at: NOW,
    }
}

fn begin_login(n: u128, user: u128, token: u8) -> BeginAuthSession {
    BeginAuthSession {
        id: login_id(n),
        user_id: user_id(user),
        refresh_hash: hash(token),
        expires_at: NOW + LIFETIME,
        ip: Some("127.0.0.1".to_owned()),
        agent: None,
        identity: None,
        at: NOW,
    }
}

fn rotate(presented: u8, child: u8, at: i64) -> RotateRefresh {
    let (presented_hash, child_hash) = (hash(presented), hash(child));
    RotateRefresh { presented_hash, child_hash, child_expires_at: at + LIFETIME, at }
}

/// The reason of a conflict, or what else came instead of it.
fn conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Conflict { reason, .. }) => reason.to_owned(),
        other => format!("{other:?}"),
    }
}

/// What was not found, or what else came instead.
fn missing<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::NotFound { what }) => what.to_owned(),
        other => format!("{other:?}"),
    }
}
