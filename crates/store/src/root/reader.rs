//! The queries of the root database, off the caller's thread.

use std::sync::{Arc, PoisonError, RwLock};

use iris_protocol::{
    ApiKey, AuditPage, AuditRecord, AuthSessionId, BackupId, CredentialId, Identity, IdentityId,
    Invitation, KeyId, Login, Member, Membership, PermissionRule, Project, ProjectId, ProjectPage,
    ProviderCredential, Role, SupervisionRecord, UsageReport, UsageTotals, User, UserBudgets,
    UserId, UserPage,
};
use serde_json::{Map, Value};

use super::RootDatabase;
use super::audit::{self, AuditQuery};
use super::backups::{self, BackupState, StoredBackup};
use super::git::{self, StoredGit};
use super::git_work::{self, GitWork};
use super::intents::{self, Leftover};
use super::known::Known;
use super::model_facts::StoredFacts;
use super::outbox::{self, OutboxEntry};
use super::permissions;
use super::queries::{self, Access, Credentials, ProjectLocation};
use super::supervision::{self, SupervisionQuery};
use super::unfinished;
use super::{CredentialOwner, FoundCredential, accounts, credentials, identities, invitations};
use super::{FoundKey, KeyAccess, TokenHash};
use super::{keys, logins, settings};
use super::{model_facts, usage, user_budgets};
use crate::maintenance::{ListedProject, listing};
use crate::totals::Days;
use crate::{Command, Committed, IdempotencyKey, Reader, State, StoreError};

/// What decides whether a run may ask a model.
#[derive(Debug, Clone)]
pub struct RunFacts {
    /// The role of who started it; none for whoever may do nothing in the project any more.
    pub role: Option<Role>,
    /// The settings of the project.
    pub settings: Map<String, Value>,
    /// What was set for who started it.
    pub budgets: UserBudgets,
    /// The key for the model's provider.
    pub credential: Option<FoundCredential>,
}

/// Reads the root database. Cheap to clone.
///
/// Each query sees one state of the database and waits for its turn among all readers of the process.
/// Clones read what [`RootReader::follow`] was last told to read. What every request asks for is known once it
/// was read, until anything is written (docs/decisions/0021).
#[derive(Debug, Clone)]
pub struct RootReader {
    reader: Arc<RwLock<Reader>>,
    known: Arc<Known>,
}

impl RootReader {
    pub(super) fn new(reader: Reader) -> Self {
        Self { reader: Arc::new(RwLock::new(reader)), known: Arc::default() }
    }

    /// The same, of which nothing is known yet: its next answers come from the database.
    #[must_use]
    pub fn unknowing(&self) -> Self {
        Self { reader: Arc::clone(&self.reader), known: Arc::default() }
    }

    /// Reads `database` from now on, with all clones of this: for whoever opened it again.
    pub fn follow(&self, database: &RootDatabase) {
        let opened = database.reader.current();
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = opened;
    }

    /// The state that the database is in, for whoever keeps what they read of it; none once damage was seen.
    pub fn state(&self) -> Option<State> {
        self.current().state()
    }

    pub(super) fn current(&self) -> Reader {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the server has an administrator.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn has_admin(&self) -> Result<bool, StoreError> {
        self.current().read(queries::has_admin).await
    }

    /// A user.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn user(&self, id: &UserId) -> Result<Option<User>, StoreError> {
        self.known
            .look_up(&self.current(), |known| &mut known.users, id.clone(), queries::user)
            .await
    }

    /// The user with an email address, in any case, and what a login needs to know of them.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn user_by_email(&self, email: &str) -> Result<Option<Credentials>, StoreError> {
        let email = email.to_owned();
        self.current().read(move |conn| queries::user_by_email(conn, &email)).await
    }

    /// A user and what checking their password needs.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn credentials(&self, id: &UserId) -> Result<Option<Credentials>, StoreError> {
        let id = id.clone();
        self.current().read(move |conn| queries::credentials(conn, &id)).await
    }

    /// A page of all users, oldest first; `cursor` is the `next_cursor` of the page before.
    ///
    /// # Errors
    /// `InvalidCursor` for a cursor that no page gave, otherwise as [`Reader::read`].
    pub async fn users(&self, limit: u32, cursor: Option<&str>) -> Result<UserPage, StoreError> {
        let invalid = |cursor: &str| StoreError::InvalidCursor { cursor: cursor.to_owned() };
        let after = cursor.map(|cursor| cursor.parse::<UserId>().map_err(|_| invalid(cursor)));
        let after = after.transpose()?;
        self.current().read(move |conn| queries::users(conn, limit, after.as_ref())).await
    }

    /// Where a user is a member.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn memberships(&self, id: &UserId) -> Result<Vec<Membership>, StoreError> {
        let id = id.clone();
        self.current().read(move |conn| queries::memberships(conn, &id)).await
    }

    /// The logins of a user that have not ended at `at`, newest first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn logins(&self, id: &UserId, at: i64) -> Result<Vec<Login>, StoreError> {
        let id = id.clone();
        self.current().read(move |conn| logins::logins(conn, &id, at)).await
    }

    /// The API keys of a user, newest first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn keys(&self, id: &UserId) -> Result<Vec<ApiKey>, StoreError> {
        let id = id.clone();
        self.current().read(move |conn| keys::keys(conn, &id)).await
    }

    /// The identities of a user at providers of logins, oldest first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn identities(&self, id: &UserId) -> Result<Vec<Identity>, StoreError> {
        let id = id.clone();
        self.current().read(move |conn| identities::of(conn, &id)).await
    }

    /// The identity that a provider vouches for, and the account that it is linked with.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn identity(
        &self,
        issuer: &str,
        subject: &str,
    ) -> Result<Option<(IdentityId, Credentials)>, StoreError> {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        self.current().read(move |conn| identities::by_subject(conn, &issuer, &subject)).await
    }

    /// The credentials of an owner for model providers, by provider.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn credentials_of(
        &self,
        owner: CredentialOwner,
    ) -> Result<Vec<ProviderCredential>, StoreError> {
        self.current().read(move |conn| credentials::of(conn, &owner)).await
    }

    /// The credential with which a provider is asked for a user in a project: theirs, else that of the
    /// project, else that of the server.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn nearest_credential(
        &self,
        provider_id: &str,
        user_id: &UserId,
        project_id: &ProjectId,
    ) -> Result<Option<FoundCredential>, StoreError> {
        let (provider_id, user_id) = (provider_id.to_owned(), user_id.clone());
        let project_id = project_id.clone();
        let find = move |conn: &_| credentials::nearest(conn, &provider_id, user_id, project_id);
        self.current().read(find).await
    }

    /// The next credentials for model providers behind an id, at most
    /// [`SEALED_AT_ONCE_MAX`](super::SEALED_AT_ONCE_MAX), in the order of their ids; the first ones for none.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn credentials_after(
        &self,
        id: Option<&CredentialId>,
    ) -> Result<Vec<FoundCredential>, StoreError> {
        let id = id.map(ToString::to_string).unwrap_or_default();
        self.current().read(move |conn| credentials::after(conn, &id)).await
    }

    /// What is known of a project's repository; none for a project of another type.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn git(&self, id: &ProjectId) -> Result<Option<StoredGit>, StoreError> {
        let id = id.clone();
        self.current().read(move |conn| git::find(conn, &id)).await
    }

    /// The projects whose clone did not end.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn cloning(&self) -> Result<Vec<ProjectId>, StoreError> {
        self.current().read(git::cloning).await
    }

    /// What git works on, or was about to, among the files of a project.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn git_work(&self, id: &ProjectId) -> Result<Vec<GitWork>, StoreError> {
        let id = id.clone();
        self.current().read(move |conn| git_work::find(conn, &id)).await
    }

    /// The projects in which git works on something, or was about to.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn git_works(&self) -> Result<Vec<ProjectId>, StoreError> {
        self.current().read(git_work::projects).await
    }

    /// The API key of a hash; none for one that was never made or is revoked.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn key_by_hash(&self, hash: TokenHash) -> Result<Option<FoundKey>, StoreError> {
        self.known.look_up(&self.current(), |known| &mut known.keys, hash, keys::by_hash).await
    }

    /// All that decides over a request with an API key, in one query; `None` once it is revoked.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn key_access(
        &self,
        id: &KeyId,
        project_id: Option<&ProjectId>,
    ) -> Result<Option<KeyAccess>, StoreError> {
        let key = (id.clone(), project_id.cloned());
        let query = |conn: &_, (id, project_id): &(_, Option<_>)| {
            keys::access(conn, id, project_id.as_ref())
        };
        self.known.look_up(&self.current(), |known| &mut known.key_access, key, query).await
    }

    /// Whose password the secret of a link sets at `at`; none when it is not good, or not any more.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn password_reset(
        &self,
        hash: TokenHash,
        at: i64,
    ) -> Result<Option<UserId>, StoreError> {
        self.current().read(move |conn| accounts::password_reset(conn, &hash, at)).await
    }

    /// The invitation of a secret, if this address may accept it at `at`.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn invitation(
        &self,
        hash: TokenHash,
        email: &str,
        at: i64,
    ) -> Result<Option<Invitation>, StoreError> {
        let email = email.to_owned();
        self.current().read(move |conn| invitations::good(conn, &hash, &email, at)).await
    }

    /// The invitations to a project, or to the server alone, newest first, as they stand at `at`.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn invitations(
        &self,
        project_id: Option<&ProjectId>,
        at: i64,
    ) -> Result<Vec<Invitation>, StoreError> {
        let id = project_id.cloned();
        self.current().read(move |conn| invitations::list(conn, id.as_ref(), at)).await
    }

    /// The settings of the server that administrators chose.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn chosen_settings(
        &self,
    ) -> Result<std::collections::BTreeMap<String, Value>, StoreError> {
        self.current().read(settings::chosen).await
    }

    /// A page of the audit, newest first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn audit_page(&self, query: AuditQuery) -> Result<AuditPage, StoreError> {
        self.current().read(move |conn| audit::page(conn, &query)).await
    }

    /// The records of the audit behind a number, oldest first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn audit_after(&self, id: u64, limit: u32) -> Result<Vec<AuditRecord>, StoreError> {
        self.current().read(move |conn| audit::after(conn, id, limit)).await
    }

    /// All that decides over a request, in one query; `None` when there is no such user.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn access(
        &self,
        user_id: &UserId,
        auth_session_id: &AuthSessionId,
        project_id: Option<&ProjectId>,
    ) -> Result<Option<Access>, StoreError> {
        let key = (user_id.clone(), auth_session_id.clone(), project_id.cloned());
        let query = |conn: &_, (user_id, login, project_id): &(_, _, Option<_>)| {
            queries::access(conn, user_id, login, project_id.as_ref())
        };
        self.known.look_up(&self.current(), |known| &mut known.access, key, query).await
    }

    /// The role of a user in a project; none for one who is no member of it or whose account is
    /// disabled.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn role(
        &self,
        user_id: &UserId,
        project_id: &ProjectId,
    ) -> Result<Option<Role>, StoreError> {
        let key = (user_id.clone(), project_id.clone());
        let query = |conn: &_, (user_id, project_id): &_| queries::role(conn, user_id, project_id);
        self.known.look_up(&self.current(), |known| &mut known.roles, key, query).await
    }

    /// What decides whether a run of a user may ask a model, and with which key, in one query: each has its
    /// way to another thread, and every step of every run asks for all of it.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn run_facts(
        &self,
        user_id: &UserId,
        project_id: &ProjectId,
        provider_id: &str,
    ) -> Result<RunFacts, StoreError> {
        let key = (user_id.clone(), project_id.clone(), provider_id.to_owned());
        let query = |conn: &_, (user_id, project_id, provider_id): &(UserId, ProjectId, String)| {
            let (user, project) = (user_id.clone(), project_id.clone());
            Ok(Some(RunFacts {
                role: queries::role(conn, user_id, project_id)?,
                settings: queries::project_settings(conn, project_id)?,
                budgets: user_budgets::of_user(conn, user_id)?,
                credential: credentials::nearest(conn, provider_id, user, project)?,
            }))
        };
        let facts =
            self.known.look_up(&self.current(), |known| &mut known.run_facts, key, query).await?;
        facts.ok_or_else(|| StoreError::internal("a run has no facts"))
    }

    /// The permission rules of the server, in the order in which they count.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn permissions(&self) -> Result<Vec<PermissionRule>, StoreError> {
        self.current().read(permissions::all).await
    }

    /// What administrators set of models, at most [`super::MODEL_FACTS_MAX`].
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn model_facts(&self) -> Result<Vec<StoredFacts>, StoreError> {
        self.current().read(model_facts::all).await
    }

    /// What administrators allow a user; empty where the configuration says.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn user_budgets(&self, id: &UserId) -> Result<UserBudgets, StoreError> {
        let id = id.clone();
        self.current().read(move |conn| user_budgets::of_user(conn, &id)).await
    }

    /// What a user used in all projects, for ever and in the month of `at`, as far as the projects told.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn usage_of_user(
        &self,
        id: &UserId,
        at: i64,
    ) -> Result<(UsageTotals, UsageTotals), StoreError> {
        let id = id.clone();
        self.current().read(move |conn| usage::of_user(conn, &id, at)).await
    }

    /// How far a project has told what was used in it, in this life of it.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn usage_head(&self, id: &ProjectId, epoch: &str) -> Result<i64, StoreError> {
        let (id, epoch) = (id.clone(), epoch.to_owned());
        self.current().read(move |conn| usage::head(conn, &id, &epoch)).await
    }

    /// What users used in all projects.
    ///
    /// # Errors
    /// `InvalidQuery` for too many rows, otherwise as [`Reader::read`].
    pub async fn usage(
        &self,
        user_id: Option<UserId>,
        days: Days,
    ) -> Result<UsageReport, StoreError> {
        self.current().read(move |conn| usage::report(conn, user_id.as_ref(), days)).await
    }

    /// A page of the projects that a user is a member of, newest first.
    ///
    /// `limit` is taken as at least 1 and at most `iris_protocol::limits::PAGE_MAX`; `cursor` is the
    /// `next_cursor` of the page before.
    ///
    /// # Errors
    /// `InvalidCursor` for a cursor that no page gave, otherwise as [`Reader::read`].
    pub async fn projects(
        &self,
        user_id: &UserId,
        limit: u32,
        cursor: Option<&str>,
        include_archived: bool,
    ) -> Result<ProjectPage, StoreError> {
        let user_id = user_id.clone();
        let cursor = cursor.map(parse_cursor).transpose()?;
        self.current()
            .read(move |conn| {
                queries::projects(conn, &user_id, limit, cursor.as_ref(), include_archived)
            })
            .await
    }

    /// A project as a user sees it; `None` when they are not a member.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn project(
        &self,
        user_id: &UserId,
        project_id: &ProjectId,
    ) -> Result<Option<Project>, StoreError> {
        let (user_id, project_id) = (user_id.clone(), project_id.clone());
        self.current().read(move |conn| queries::project(conn, &user_id, &project_id)).await
    }

    /// Where a project's files are.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn project_location(
        &self,
        project_id: &ProjectId,
    ) -> Result<Option<ProjectLocation>, StoreError> {
        let id = project_id.clone();
        self.current().read(move |conn| queries::project_location(conn, &id)).await
    }

    /// The settings of a project; empty when there is no such project.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn project_settings(
        &self,
        project_id: &ProjectId,
    ) -> Result<Map<String, Value>, StoreError> {
        let id = project_id.clone();
        self.current().read(move |conn| queries::project_settings(conn, &id)).await
    }

    /// Every project of the server, oldest first. Reads the whole table: for the start of the server.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn all_project_ids(&self) -> Result<Vec<ProjectId>, StoreError> {
        self.current().read(queries::all_project_ids).await
    }

    /// The projects that have unfinished work or an event on its way. Reads the whole index: for the start
    /// of the directory.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn unfinished_projects(&self) -> Result<Vec<ProjectId>, StoreError> {
        self.current().read(unfinished::unfinished_projects).await
    }

    /// Projects that do not exist, of whose directories something may be left. For the start of the
    /// server, before any project is created or deleted.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn leftovers(&self) -> Result<Vec<Leftover>, StoreError> {
        self.current().read(intents::leftovers).await
    }

    /// The events that are on their way to a project, the oldest [`super::OUTBOX_PAGE`] of them.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn outbox(&self, project_id: &ProjectId) -> Result<Vec<OutboxEntry>, StoreError> {
        let id = project_id.clone();
        self.current().read(move |conn| outbox::entries(conn, &id)).await
    }

    /// What a command answered to an earlier write with the same idempotency key.
    ///
    /// For work that has to be done before its command: the command itself checks the key again.
    ///
    /// # Errors
    /// `IdempotencyConflict` when the key was used with another body, otherwise as [`Reader::read`].
    pub async fn recall<C: Command>(
        &self,
        key: IdempotencyKey,
    ) -> Result<Option<Committed<C::Output>>, StoreError> {
        self.current().read(move |conn| key.recall(conn)).await
    }

    /// Whether a command was written with this idempotency key, with whatever body.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn knows(&self, key: IdempotencyKey) -> Result<bool, StoreError> {
        self.current().read(move |conn| key.is_known(conn)).await
    }

    /// A project with its members, whoever asks.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn listed_project(
        &self,
        project_id: &ProjectId,
    ) -> Result<Option<ListedProject>, StoreError> {
        let id = project_id.clone();
        self.current().read(move |conn| listing::one(conn, &id)).await
    }

    /// The members of a project in the order in which they joined; empty when there is no such project.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn members(&self, project_id: &ProjectId) -> Result<Vec<Member>, StoreError> {
        let id = project_id.clone();
        self.current().read(move |conn| queries::members(conn, &id)).await
    }

    /// A user's place in a project.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn member(
        &self,
        project_id: &ProjectId,
        user_id: &UserId,
    ) -> Result<Option<Member>, StoreError> {
        let (project_id, user_id) = (project_id.clone(), user_id.clone());
        self.current().read(move |conn| queries::member(conn, &project_id, &user_id)).await
    }

    /// The kept records of the supervision log that a query asks for, oldest first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn supervision(
        &self,
        query: SupervisionQuery,
    ) -> Result<Vec<SupervisionRecord>, StoreError> {
        self.current().read(move |conn| supervision::records(conn, &query)).await
    }

    /// The last `limit` records of the audit, newest first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn audit(&self, limit: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.current().read(move |conn| audit::newest(conn, limit)).await
    }

    /// The backups of a project, newest first.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn backups(&self, project_id: &ProjectId) -> Result<Vec<StoredBackup>, StoreError> {
        let id = project_id.clone();
        self.current().read(move |conn| backups::of_project(conn, &id)).await
    }

    /// A backup of a project.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn backup(
        &self,
        project_id: &ProjectId,
        id: &BackupId,
    ) -> Result<Option<StoredBackup>, StoreError> {
        let (project_id, id) = (project_id.clone(), id.clone());
        self.current().read(move |conn| backups::one(conn, &project_id, &id)).await
    }

    /// The backups whose time is over at `at`.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn expired_backups(&self, at: i64) -> Result<Vec<StoredBackup>, StoreError> {
        self.current().read(move |conn| backups::expired(conn, at)).await
    }

    /// Every backup. Reads the whole table: for the start of the server.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn all_backups(&self) -> Result<Vec<StoredBackup>, StoreError> {
        self.current().read(backups::all).await
    }

    /// Every project, oldest first, and where its newest backup ends. Reads all projects: for work that
    /// is about all of them.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn backup_states(&self) -> Result<Vec<BackupState>, StoreError> {
        self.current().read(backups::states).await
    }
}

fn parse_cursor(cursor: &str) -> Result<ProjectId, StoreError> {
    cursor.parse().map_err(|_| StoreError::InvalidCursor { cursor: cursor.to_owned() })
}
