//! The root database: users and their ways in, projects and who is a member of which; what became of
//! actors, and who did what.
//!
//! Deliberately absent: everything that happens inside a project, which is in the project's own
//! database, and all secrets: passwords and tokens come in as hashes.

mod queries;
pub(crate) mod rows;

mod accounts;
mod audit;
mod backups;
mod credentials;
mod git;
mod git_work;
mod identities;
mod imports;
mod intents;
mod invitations;
mod keys;
mod known;
mod logins;
mod members;
mod model_facts;
mod outbox;
mod permissions;
mod projects;
mod reader;
mod settings;
mod supervision;
mod unfinished;
mod usage;
mod user_budgets;
mod users;

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use crate::condition::Condition;
use crate::writer::Guards;
use crate::{Reader, Storage, StoreError, Writer, database};

pub use accounts::{BeginPasswordReset, DeleteUser, FinishPasswordReset, SetPassword, UpdateUser};
pub use audit::{
    AUDIT_RECORDS_LOOKED_AT_MAX, AUDIT_RECORDS_TRIMMED_MAX, AuditDamage, AuditHead, AuditQuery,
    AuditVerdict, DONE, RecordAudit, TrimAudit, Trimmed,
};
pub(crate) use audit::{after as audit_after, append as append_audit, verify as verify_audit};
pub use backups::{
    AcceptImport, BackupState, DeleteBackup, LastBackup, RecordBackup, RecordRestore, StoredBackup,
};
pub use credentials::{
    CredentialOwner, DeleteCredential, FoundCredential, SEALED_AT_ONCE_MAX, SealCredentialsAgain,
    SealedAgain, SetCredential,
};
pub use git::{BeginClone, EndClone, NewGit, SealGitAgain, SetGitCredentials, StoredGit};
pub use git_work::{BeginGitWork, EndGitWork, GitPart, GitWork, GitWorkKind, NoteGit, TryGitWork};
pub use identities::{CreateLinkedUser, IdentityUse, LinkIdentity, NewIdentity, UnlinkIdentity};
pub use imports::ImportProject;
pub use intents::{ForgetDirectory, IntendDirectory, Leftover};
pub use invitations::{
    AcceptInvitation, Accepted, CreateInvitation, CreateInvitedUser, RevokeInvitation,
};
pub use keys::{CreateKey, FoundKey, KEY_USE_NOTED_EVERY_MS, KeyAccess, NoteKeyUse, RevokeKey};
pub use logins::{
    BeginAuthSession, EXPIRED_TOKEN_KEPT_MS, EndLogins, REFRESH_GRACE_MS, RefusalReason,
    RevokeAuthSession, RevokeLogin, RotateOutcome, RotateRefresh, TokenHash,
};
pub use members::{AddMember, RemoveMember, TransferProject, UpdateMember};
pub use model_facts::{MODEL_FACTS_MAX, ResetModelFacts, SetModelFacts, StoredFacts};
pub use outbox::{OUTBOX_PAGE, OutboxEntry, SettleOutbox};
pub use permissions::{
    CreateServerPermission, DeleteServerPermission, SERVER_PERMISSIONS_MAX, UpdateServerPermission,
};
pub use projects::{
    CreateProject, DeleteProject, MergeProjectSettings, SetProjectArchived, UpdateProject,
};
pub use queries::{Access, Credentials, ProjectLocation};
pub use reader::{RootReader, RunFacts};
pub use settings::{ChooseSettings, RecordSandbox};
pub use supervision::{RecordSupervision, SupervisionQuery};
pub use unfinished::{ClearUnfinished, MarkUnfinished};
pub use usage::RecordUsage;
pub use user_budgets::SetUserBudgets;
pub use users::CreateUser;

/// The migrations, oldest first.
pub(crate) const SCHEMA: &[&str] = &[
    include_str!("../migrations/root/0001_users_and_projects.sql"),
    include_str!("../migrations/root/0002_supervision.sql"),
    include_str!("../migrations/root/0003_durable_work.sql"),
    include_str!("../migrations/root/0004_permissions.sql"),
    include_str!("../migrations/root/0005_usage.sql"),
    include_str!("../migrations/root/0006_access.sql"),
    include_str!("../migrations/root/0007_credentials.sql"),
    include_str!("../migrations/root/0008_identities.sql"),
    include_str!("../migrations/root/0009_project_types.sql"),
    include_str!("../migrations/root/0010_git_work.sql"),
    include_str!("../migrations/root/0011_git_by_url.sql"),
];

/// The open root database.
#[derive(Debug)]
pub struct RootDatabase {
    writer: Writer,
    reader: RootReader,
    condition: Arc<Condition>,
}

impl RootDatabase {
    /// Opens the root database at `path`, or makes a new one when there is no such file.
    ///
    /// `at` is now, in milliseconds since 1970 UTC. Waits for the disk: call it off the async threads.
    ///
    /// # Errors
    /// `Corrupt` for a file that is empty, cut off, or another database, and for a write-ahead log
    /// without its database; `Newer` for one of a newer server. Such a file is left as it is.
    /// `StorageFull` and `Internal` as the disk fails.
    pub fn open_or_create(path: &Path, at: i64) -> Result<Self, StoreError> {
        if !path.try_exists()? {
            database::create(path, SCHEMA, |conn| mark(conn, at))?;
        }
        let conn = database::open(path, SCHEMA, identify)?;
        let condition = Arc::new(Condition::new(path)?);
        let guards = Guards::new(Arc::clone(&condition), None);
        let writer = Writer::new(conn, "db-root", guards, |_| {});
        let reader = RootReader::new(Reader::new(Arc::clone(&condition)));
        Ok(Self { writer, reader, condition })
    }

    /// What is wrong with the files, once anybody who reads or writes noticed.
    pub fn damage(&self) -> Option<String> {
        self.condition.damage().map(str::to_owned)
    }

    /// Lets the writer know of the disk: it says when it is full, and then refuses what takes space.
    pub fn use_storage(&self, storage: &Storage) {
        self.condition.use_storage(storage, &self.writer);
    }

    /// Where commands go.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Reads; stays usable as long as the file is there and sound.
    pub fn reader(&self) -> RootReader {
        self.reader.clone()
    }

    /// Writes what was submitted and waits for the writer's thread to end, as dropping does too.
    pub fn close(self) {
        self.writer.close();
    }
}

fn mark(conn: &Connection, at: i64) -> Result<(), StoreError> {
    conn.execute("INSERT INTO meta (one, kind, created_at) VALUES (1, 'root', ?1)", [at])?;
    Ok(())
}

pub(crate) fn identify(conn: &Connection) -> Result<(), StoreError> {
    let kind: Option<String> = conn
        .query_row("SELECT kind FROM meta", [], |row| row.get(0))
        .optional()
        .map_err(|error| StoreError::corrupt(format!("not a root database: {error}")))?;
    match kind.as_deref() {
        Some("root") => Ok(()),
        Some(_) | None => Err(StoreError::corrupt("not a root database")),
    }
}

#[cfg(test)]
pub(crate) use supervision::statements as supervision_statements;

#[cfg(test)]
mod tests {
    use iris_protocol::{Backup, BackupId, BackupKind, ProjectId, RestorePayload, UserId};

    use super::*;
    use crate::WriteContext;

    #[test]
    fn every_migration_in_the_folder_is_embedded_and_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/root");
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        let files: Vec<_> =
            names.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
        assert_eq!(files, SCHEMA);
        database::migrations(SCHEMA).validate().unwrap();
    }

    #[tokio::test]
    async fn a_restore_that_has_happened_is_recorded_also_on_a_full_disk() {
        let directory = tempfile::tempdir().unwrap();
        let database = RootDatabase::open_or_create(&directory.path().join("root.db"), 0).unwrap();
        let storage = Storage::open(directory.path()).unwrap();
        database.use_storage(&storage);
        storage.pretend_available(Some(0));
        storage.report_full();
        let backup = Backup {
            id: BackupId::from_bits(1),
            project_id: ProjectId::from_bits(1),
            kind: BackupKind::Manual,
            at: 0,
            bytes: 0,
            sha256: String::new(),
            seq: 0,
            epoch: String::new(),
            by: None,
            verified_at: 0,
            expires_at: None,
        };
        let (file, audit) = (String::new(), None);
        let new = RecordBackup { backup: backup.clone(), file, audit };
        let refused = database.writer().submit(new, WriteContext::default()).await;
        assert!(matches!(refused, Err(StoreError::StorageFull)), "{refused:?}");
        let (restored, safety, epoch) = (backup, None, String::new());
        let outcome = RestorePayload { restored, safety, epoch, seq: 1, files: true };
        let record = RecordRestore { outcome: outcome.clone() };
        let recorded = database.writer().submit(record, WriteContext::default()).await;
        assert_eq!(recorded.unwrap().output, outcome);
    }

    #[tokio::test]
    async fn a_database_of_each_earlier_version_is_brought_up_to_date() {
        for version in 1..SCHEMA.len() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("root.db");
            let id = UserId::from_bits(1);
            let add_user = |conn: &Connection| {
                mark(conn, 0)?;
                let sql = "INSERT INTO users (id, email, username, created_at)
                           VALUES (?1, 'ada@example.com', 'ada', 0)";
                conn.execute(sql, [id.as_str()])?;
                Ok(())
            };
            database::create(&path, &SCHEMA[..version], add_user).unwrap();

            let database = RootDatabase::open_or_create(&path, 0).unwrap();
            assert!(database.reader().user(&id).await.unwrap().is_some());
            let query = SupervisionQuery { limit: 1, ..SupervisionQuery::default() };
            assert_eq!(database.reader().supervision(query).await.unwrap(), []);
            assert_eq!(database.reader().audit(1).await.unwrap(), []);
            assert_eq!(database.reader().all_backups().await.unwrap(), []);
        }
    }
}
