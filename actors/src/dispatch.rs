//! The one way from a caller's command to the actors: who is it, may they, then do it (INV-4).
//!
//! Every transport decodes a command and comes here. The gate looks the caller's rights up in the
//! root database for each command, so a change of rights counts from the next command on.

mod access;
mod accounts;
mod admin;
mod agents;
mod answer_format;
mod attachments;
mod audit;
mod backups;
mod bodies;
mod captures;
mod context;
mod credentials;
mod departing;
mod files;
mod git;
mod invitations;
mod keys;
mod mcp;
mod models;
mod oauth;
mod outputs;
mod passwords;
mod patience;
mod people;
mod permissions;
mod presence;
mod projects;
mod questions;
mod repeat;
mod reverting;
mod server_permissions;
mod sessions;
mod settings;
mod tools;
mod turns;
mod usage;
mod users;

use std::cell::Cell;

use futures_util::future::LocalBoxFuture;
use iris_auth::{
    AccessClaims, ApiKeySecret, AuthError, Caller, CallerUser, Credential, KeyRights, NEVER_MS,
    PlainSecret, Resource, authorize,
};
use iris_protocol::{
    ApiError, BackupKind, Command, ConnectionId, ErrorCode, Json, KeyId, ModelRef, Operation,
    ProjectId, RequestId, Right, Role, Transport, UserId,
    limits::{DESCRIPTION_BYTES_MAX, NAME_BYTES_MAX},
};
use iris_store::root::{KEY_USE_NOTED_EVERY_MS, NoteKeyUse};
use iris_store::{IdempotencyKey, StoreError, WriteContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::origin::{Origin, UnderWay};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::project::ProjectHandle;
use crate::supervision::{Panicked, guarded, in_request};
use crate::tickets::TicketUse;
use crate::{Node, UnknownSocket, record};

pub use crate::files::Before;
pub use accounts::check_account;
pub(crate) use admin::rss_bytes;
pub use attachments::{AttachmentAsk, AttachmentDownload, download_attachment};
pub(crate) use attachments::{find_attachment_for, read_attachment_for};
pub use audit::{AuditReader, export as export_audit};
pub use backups::{
    BackupAsk, BackupPart, Download, ImportAsk, Upload, begin_upload, disk_failed, download, import,
};
pub(crate) use backups::{Uploads, read_part_for};
pub(crate) use bodies::Bodies;
pub use bodies::{ANSWER_STALL, Held};
pub(crate) use files::{
    CurrentClaims, DownloadStream, OpenFiles, Receivings, UploadStream, begin_download_stream,
    begin_upload_for, begin_upload_stream, cancel_upload_for, commit_upload_for, open_file_for,
    place_for, read_file_for, stage_for, stage_part_for, write_file_for, write_upload_for,
};
pub use files::{
    FileAsk, FileDownload, FilePart, FilePut, FileUpload, OpenedFile, ReceivedFile, UploadAsk,
    UploadOpen, UploadPart, begin_file_upload, begin_put, download_file, put_file_bytes,
};
pub(crate) use files::{FileBytes, mime_type, read_bytes, read_version};
pub use patience::Patience;
pub(crate) use patience::given_up;

/// What a caller wants.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Who asks; none without credentials.
    pub claims: Option<AccessClaims>,
    /// The project, for operations in one.
    pub project_id: Option<ProjectId>,
    /// What to do.
    pub command: Command,
    /// Makes a repeat answer what the first one did.
    pub idempotency_key: Option<String>,
    /// Where from.
    pub peer: Peer,
    /// Names it in logs and errors, when the caller or the transport gave it a name.
    pub request_id: Option<String>,
    /// The connection that it came over, if it came over one.
    pub connection_id: Option<ConnectionId>,
}

/// Where a request came from, for the list of authentication sessions.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The address.
    pub ip: Option<String>,
    /// What the client calls itself.
    pub agent: Option<String>,
    /// What binds a login that was begun to the browser that comes back; none for all other requests.
    pub browser: Option<PlainSecret>,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The response of the operation.
    pub payload: Json,
    /// The last durable event that it caused.
    pub seq: Option<u64>,
    /// Whether this is the answer to an earlier command with the same idempotency key.
    pub replayed: bool,
}

impl Node {
    /// Checks an access token or an API key; what may be done with it is checked with each command.
    /// Nobody is asked about a text that cannot be either.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, or `TOKEN_EXPIRED` when that is all that is wrong with it.
    pub async fn authenticate(&self, token: &str) -> Result<AccessClaims, ApiError> {
        if !ApiKeySecret::is_meant(token) {
            return self.services.access_tokens.verify_access(token).map_err(|e| e.to_error());
        }
        if !ApiKeySecret::is_well_formed(token) {
            return Err(AuthError::Invalid.to_error());
        }
        let found = self.root_reader.key_by_hash(ApiKeySecret::hash_of(token)).await;
        let key = found.map_err(internal)?.ok_or_else(|| AuthError::Invalid.to_error())?;
        let expires_at_ms = key.expires_at.unwrap_or(NEVER_MS);
        if expires_at_ms <= self.services.clock.now_ms() {
            return Err(ApiError::from(ErrorCode::TokenExpired));
        }
        let credential = Credential::Key(key.id);
        Ok(AccessClaims { user_id: key.user_id, credential, epoch: 0, expires_at_ms })
    }

    /// Takes a ticket in place of an access token; what may be done with it is checked with each
    /// command.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` with reason `invalid_ticket` when it is not good for this any more;
    /// `TOKEN_IN_URL` when it is an access token.
    pub fn redeem(&self, ticket: &str, purpose: &TicketUse) -> Result<AccessClaims, ApiError> {
        let now_ms = self.services.clock.now_ms();
        if let Some(claims) = self.tickets.redeem(ticket, purpose, now_ms) {
            return Ok(claims);
        }
        let is_token = self.services.access_tokens.verify_access(ticket).is_ok();
        if is_token || ApiKeySecret::is_meant(ticket) {
            let message = "an access token or API key is no ticket and must not stand in a URL";
            return Err(ApiError::new(ErrorCode::TokenInUrl, message));
        }
        let message = "the ticket is not good for this, or not any more: ask for a new one";
        Err(ApiError::new(ErrorCode::Unauthenticated, message).reason("invalid_ticket"))
    }

    /// Counts a request before anything is done for it: one of a user who is known, whatever it comes
    /// over, or one that may come from anybody.
    ///
    /// # Errors
    /// `RATE_LIMITED`, and when to try again.
    pub fn count(&self, claims: Option<&AccessClaims>, peer: &Peer) -> Result<(), ApiError> {
        let metrics = &self.services.metrics;
        match claims {
            Some(claims) => {
                if let Credential::Key(key) = &claims.credential {
                    metrics.limited("key", self.rates.of_key(key))?;
                }
                metrics.limited("user", self.rates.of_user(&claims.user_id))
            }
            None => metrics.limited("address", self.rates.of_address(peer)),
        }
    }

    /// Takes in a socket on which nobody has said yet who they are, for as long as the answer is held.
    ///
    /// # Errors
    /// `RATE_LIMITED` when its address has too many.
    pub fn admit_unknown(&self, peer: &Peer) -> Result<Option<UnknownSocket>, ApiError> {
        self.services.metrics.limited("unknown_connections", self.rates.admit_unknown(peer))
    }

    /// Runs a command for a caller. Like all that has a whole operation in it, or much of one, a future of no
    /// type of its own: otherwise each crate that waits for one compiles all operations again.
    ///
    /// # Errors
    /// Those of the gate and of the operation.
    pub fn dispatch(&self, ask: Ask) -> LocalBoxFuture<'_, Result<Done, ApiError>> {
        Box::pin(async move {
            let operation = ask.command.operation();
            let (request_id, project_id) = (ask.request_id.clone(), ask.project_id.clone());
            // As large as the largest of all operations.
            let run = Box::pin(self.run(operation, ask));
            self.request(request_id, operation, project_id.as_ref(), run).await
        })
    }

    /// Runs `work` as one request: in a span of its own, watched, its panics caught, its errors named.
    async fn request<T>(
        &self,
        request_id: Option<String>,
        operation: Operation,
        project_id: Option<&ProjectId>,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let request_id = request_id
            .unwrap_or_else(|| RequestId::from_bits(self.services.ids.next_bits()).to_string());
        let span = tracing::info_span!(
            "request",
            request.id = request_id,
            operation = operation.name(),
            project.id = project_id.map(ProjectId::as_str),
            session.id = Empty,
        );
        let run = guarded(&self.top, operation.name(), work);
        let run = in_request(request_id.as_str().into(), run);
        let began_at = Instant::now();
        let done = run.instrument(span).await.unwrap_or_else(|Panicked| Err(broken()));
        let failed = done.as_ref().err().map(|error| error.code);
        self.services.metrics.requested(operation.name(), failed, began_at.elapsed());
        done.map_err(|error| {
            // Perhaps of a file, of whose disk no writer knows.
            if error.code == ErrorCode::StorageFull {
                self.services.storage.suspect_full();
            }
            ApiError { request_id: Some(request_id), ..without_secrets(error) }
        })
    }

    async fn run(&self, operation: Operation, ask: Ask) -> Result<Done, ApiError> {
        if operation.spec().transport == Transport::Socket && ask.connection_id.is_none() {
            let message = format!("`{}` is about a socket: send it on one", operation.name());
            return Err(ApiError::invalid(message).reason("socket_only"));
        }
        let audited = audit::manner(operation) != audit::Manner::Not;
        let refusable = audited.then(|| {
            let (payload, peer) = (ask.command.to_value(), ask.peer.clone());
            (ask.claims.clone(), ask.project_id.clone(), payload, peer)
        });
        let is_admitted = Cell::new(false);
        let outcome = Box::pin(self.admit_and_run(operation, ask, &is_admitted)).await;
        // What such an operation comes to once it was let in, it records by itself.
        let is_recorded = is_admitted.get() && audit::manner(operation) == audit::Manner::Around;
        if let (Err(error), Some((Some(claims), project_id, payload, peer)), false) =
            (&outcome, refusable, is_recorded)
        {
            let (id, said) = (project_id.as_ref(), (&payload, &peer));
            audit::refused(self, &claims, operation, id, said, error).await;
        }
        outcome
    }

    async fn admit_and_run(
        &self,
        operation: Operation,
        ask: Ask,
        is_admitted: &Cell<bool>,
    ) -> Result<Done, ApiError> {
        let gate = self.gate(ask.claims.as_ref(), operation, ask.project_id.as_ref());
        let grant = match gate.await {
            Ok(grant) => grant,
            Err(refusal) => return repeat::of_the_last(self, operation, &ask, refusal).await,
        };
        if attachments::names_files(&ask.command) {
            // A key that may send messages is not one that may read the files of the project.
            self.gate(ask.claims.as_ref(), Operation::FileRead, ask.project_id.as_ref()).await?;
        }
        self.count_work(operation, &grant)?;
        patience::begin(operation)?;
        is_admitted.set(true);
        let _under_way = grant.enter(self, &ask.peer);
        match operation.right() {
            Right::Project(_) => perform_at_owner(self, &grant, ask).await,
            Right::Public | Right::User | Right::Admin => {
                let context = grant.write_context(self, operation, &ask)?;
                perform(self, grant, ask, context).await
            }
        }
    }

    /// Counts what costs more than a request.
    fn count_work(&self, operation: Operation, grant: &Grant) -> Result<(), ApiError> {
        let Some(user_id) = &grant.user_id else { return Ok(()) };
        let metrics = &self.services.metrics;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are counted as requests alone"
        )]
        match operation {
            Operation::MessageSend
            | Operation::MessageRetry
            | Operation::MessageEdit
            | Operation::RunResume => metrics.limited("runs", self.rates.of_runs(user_id)),
            Operation::FileWrite | Operation::ProjectImport => {
                metrics.limited("uploads", self.rates.of_uploads(user_id))
            }
            _ => Ok(()),
        }
    }

    /// Says whether a caller may run an operation, so that a transport need not read the body of one
    /// who may not. With an idempotency key it may be a repeat of what took the right away.
    /// [`Node::dispatch`] decides again.
    ///
    /// # Errors
    /// Those of the gate.
    pub fn admits<'a>(
        &'a self,
        claims: Option<&'a AccessClaims>,
        operation: Operation,
        project_id: Option<&'a ProjectId>,
        idempotency_key: Option<&'a str>,
    ) -> LocalBoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            match self.gate(claims, operation, project_id).await {
                Ok(_) => Ok(()),
                Err(refusal) => {
                    repeat::may_be(self, operation, claims, project_id, idempotency_key, refusal)
                        .await
                }
            }
        })
    }

    /// Records what [`Node::admits`] refused, where the audit is to hold that; `named` is what is known of the
    /// request.
    pub async fn note_refusal(
        &self,
        claims: Option<&AccessClaims>,
        operation: Operation,
        project_id: Option<&ProjectId>,
        (named, peer): (&Value, &Peer),
        error: &ApiError,
    ) {
        if let (true, Some(claims)) = (audit::manner(operation) != audit::Manner::Not, claims) {
            audit::refused(self, claims, operation, project_id, (named, peer), error).await;
        }
    }

    /// Decides whether a caller may run an operation.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, `TOKEN_EXPIRED`, `NOT_FOUND` for a project that the caller may not know of,
    /// `FORBIDDEN`, `INVALID_REQUEST` when no project is named, `CONFLICT` for a write to an archived
    /// project.
    pub(crate) fn gate<'a>(
        &'a self,
        claims: Option<&'a AccessClaims>,
        operation: Operation,
        project_id: Option<&'a ProjectId>,
    ) -> LocalBoxFuture<'a, Result<Grant, ApiError>> {
        Box::pin(async move {
            let mut grant = Grant { user_id: None, claims: claims.cloned(), project_id: None };
            let (mut role, mut is_archived, mut caller) = (None, false, Caller::Anonymous);
            let mut is_uncloned = false;
            if let Some(claims) = claims {
                if claims.expires_at_ms <= self.services.clock.now_ms() {
                    return Err(ApiError::from(ErrorCode::TokenExpired));
                }
                let standing = self.standing(claims, project_id).await?;
                let standing = standing.ok_or_else(|| AuthError::Invalid.to_error())?;
                (role, is_archived) = (standing.role, standing.project_archived);
                is_uncloned = standing.project_uncloned;
                caller = Caller::User(CallerUser {
                    user_id: claims.user_id.clone(),
                    is_admin: standing.is_admin,
                    key: standing.key,
                });
                grant.user_id = Some(claims.user_id.clone());
            }
            let resource = match operation.right() {
                Right::Public | Right::User | Right::Admin => Resource::Server,
                Right::Project(_) => Resource::Project { id: project_id, role },
            };
            authorize(&caller, operation, resource).map_err(|denied| match project_id {
                None if matches!(operation.right(), Right::Project(_)) && claims.is_some() => {
                    ApiError::invalid("the request names no `projectId`")
                        .reason("missing_project_id")
                }
                Some(_) | None => denied.to_error(),
            })?;
            if is_archived && writes_in_project(operation) {
                let message = "the project is archived: unarchive it first";
                return Err(ApiError::new(ErrorCode::Conflict, message).reason("project_archived"));
            }
            if is_uncloned && needs_files(operation) {
                let message = "the files of the project are not cloned yet, or could not be";
                return Err(
                    ApiError::new(ErrorCode::Conflict, message).reason("project_not_cloned")
                );
            }
            grant.project_id = project_id.cloned();
            Ok(grant)
        })
    }

    /// What decides over a request: none when its credential is good no more.
    async fn standing(
        &self,
        claims: &AccessClaims,
        project_id: Option<&ProjectId>,
    ) -> Result<Option<Standing>, ApiError> {
        let reader = &self.root_reader;
        match &claims.credential {
            Credential::Login(id) => {
                let access = reader.access(&claims.user_id, id, project_id).await;
                let access = access.map_err(internal)?.filter(|access| {
                    !access.disabled && !access.session_revoked && access.user_epoch == claims.epoch
                });
                Ok(access.map(|access| Standing {
                    is_admin: access.is_admin,
                    role: access.role,
                    project_archived: access.project_archived,
                    project_uncloned: access.project_uncloned,
                    key: None,
                }))
            }
            Credential::Key(id) => {
                let access = reader.key_access(id, project_id).await.map_err(internal)?;
                let Some(access) = access.filter(|access| !access.disabled) else {
                    return Ok(None);
                };
                self.note_use(id, access.last_used_at);
                let key = KeyRights { scopes: access.scopes, project_id: access.project_id };
                Ok(Some(Standing {
                    is_admin: access.is_admin,
                    role: access.role,
                    project_archived: access.project_archived,
                    project_uncloned: access.project_uncloned,
                    key: Some(key),
                }))
            }
        }
    }

    /// Notes now and then that a key is used. Nobody waits for it.
    fn note_use(&self, id: &KeyId, last_used_at: Option<i64>) {
        let at = self.services.clock.now_ms();
        if last_used_at.is_some_and(|last| at.saturating_sub(last) < KEY_USE_NOTED_EVERY_MS) {
            return;
        }
        if self.services.storage.is_full() {
            return;
        }
        let note = NoteKeyUse { id: id.clone(), at };
        drop(record(&self.root, note, WriteContext::default()));
    }
}

/// What a caller is, as the database has it now.
struct Standing {
    is_admin: bool,
    role: Option<Role>,
    project_archived: bool,
    project_uncloned: bool,
    /// None for a login.
    key: Option<KeyRights>,
}

/// Whether an archived project refuses the operation.
fn writes_in_project(operation: Operation) -> bool {
    let ends_something = matches!(
        operation,
        Operation::MemberRemove
            | Operation::InvitationRevoke
            | Operation::InvitationList
            | Operation::ProjectTransfer
            | Operation::ProjectArchive
            | Operation::ProjectUnarchive
            | Operation::ProjectDelete
            | Operation::RunCancel
            | Operation::MessageDequeue
            | Operation::ToolReject
            | Operation::QuestionReject
            | Operation::CaptureStop
    );
    let reads = matches!(operation, Operation::CaptureList | Operation::CaptureRead);
    // An archive of it changes nothing in it.
    let archives = matches!(
        operation,
        Operation::ProjectBackup
            | Operation::ProjectExport
            | Operation::BackupList
            | Operation::BackupRead
            | Operation::BackupDelete
    );
    !ends_something
        && !archives
        && !reads
        && matches!(operation.right(), Right::Project(role) if role > Role::Viewer)
}

/// Whether a project whose files are not there yet refuses the operation.
fn needs_files(operation: Operation) -> bool {
    matches!(
        operation,
        Operation::FileList
            | Operation::FileStat
            | Operation::FileRead
            | Operation::FileSearch
            | Operation::FileWrite
            | Operation::FileUpload
            | Operation::FileEdit
            | Operation::FileMove
            | Operation::FileDelete
            | Operation::FileVersions
            | Operation::FileDiff
            | Operation::FileRestore
            | Operation::UploadBegin
            | Operation::UploadCommit
            | Operation::DownloadBegin
            | Operation::SnapshotCreate
            | Operation::SnapshotDiff
            | Operation::SnapshotRestore
            | Operation::MessageSend
            | Operation::MessageRetry
            | Operation::MessageEdit
            | Operation::RunResume
            | Operation::SessionRevert
            | Operation::SessionUnrevert
            | Operation::ToolTest
            | Operation::ProjectBackup
            | Operation::ProjectExport
            | Operation::ProjectRestore
            | Operation::GitStatus
            | Operation::GitDiff
            | Operation::GitLog
            | Operation::GitBranches
            | Operation::GitSwitch
            | Operation::GitCommit
            | Operation::GitFetch
            | Operation::GitPull
            | Operation::GitPush
    )
}

/// Proof that the gate let a command through.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    user_id: Option<UserId>,
    claims: Option<AccessClaims>,
    project_id: Option<ProjectId>,
}

impl Grant {
    /// What another gate let through.
    fn of(user_id: UserId, project_id: ProjectId) -> Self {
        Self { user_id: Some(user_id), claims: None, project_id: Some(project_id) }
    }

    /// The caller. Operations that need somebody never get here without.
    pub(crate) fn user_id(&self) -> Result<&UserId, ApiError> {
        self.user_id.as_ref().ok_or_else(|| ApiError::from(ErrorCode::Unauthenticated))
    }

    /// The project. Operations in a project never get here without.
    pub(crate) fn project_id(&self) -> Result<&ProjectId, ApiError> {
        self.project_id.as_ref().ok_or_else(|| ApiError::not_found("project"))
    }

    pub(crate) async fn project(&self, node: &Node) -> Result<ProjectHandle, ApiError> {
        node.project(self.project_id()?).await
    }

    fn write_context(
        &self,
        node: &Node,
        operation: Operation,
        ask: &Ask,
    ) -> Result<WriteContext, ApiError> {
        let mut context = match &ask.idempotency_key {
            Some(key) => {
                let body = serde_json::to_vec(&ask.command.to_value()).map_err(internal)?;
                self.repeatable(node, operation, key, &body)
            }
            None => WriteContext::default(),
        };
        if let (audit::Manner::WithWrite, Some(user_id)) = (audit::manner(operation), &self.user_id)
        {
            let (project_id, payload) = (self.project_id.as_ref(), ask.command.to_value());
            let entry = audit::entry(node, user_id, operation, project_id, &payload);
            context.audit = Some(Box::new(entry));
        }
        Ok(context)
    }

    /// Notes for the audit where the request comes from, for as long as it is under way.
    fn enter(&self, node: &Node, peer: &Peer) -> Option<UnderWay> {
        node.services.origins.enter(self.user_id.as_ref()?, self.origin(peer))
    }

    fn origin(&self, peer: &Peer) -> Origin {
        let credential = self.claims.as_ref().map(|claims| claims.credential.id().to_owned());
        Origin { ip: peer.ip.clone(), credential }
    }

    /// Makes a write repeatable under the caller's key, within the project.
    fn repeatable(
        &self,
        node: &Node,
        operation: Operation,
        key: &str,
        body: &[u8],
    ) -> WriteContext {
        let Some(user_id) = &self.user_id else { return WriteContext::default() };
        WriteContext {
            idempotency: Some(IdempotencyKey {
                user_id: user_id.clone(),
                operation: operation.name().into(),
                key: self.scoped(operation, key),
                body_hash: body_hash(node, operation, body),
                at: node.services.clock.now_ms(),
            }),
            audit: None,
        }
    }
}

impl Grant {
    /// The key within what it is about: the project, or the login that ends.
    fn scoped(&self, operation: Operation, key: &str) -> String {
        match (&self.project_id, &self.claims) {
            (Some(project_id), _) => format!("{project_id} {key}"),
            (None, Some(claims)) if operation == Operation::AuthLogout => {
                format!("{} {key}", claims.credential.id())
            }
            (None, _) => key.to_owned(),
        }
    }
}

/// The error as anybody may see it.
pub(crate) fn without_secrets(mut error: ApiError) -> ApiError {
    iris_redact::shared().mask_in(&mut error.message);
    error.details.values_mut().for_each(|value| iris_redact::shared().mask_value(value));
    error
}

/// What tells a repeat from another request under the same key. It is kept, and must not give away a secret
/// that could be guessed.
fn body_hash(node: &Node, operation: Operation, body: &[u8]) -> String {
    let holds_secrets = matches!(
        operation,
        Operation::ToolCreate
            | Operation::ToolUpdate
            | Operation::McpCreate
            | Operation::McpUpdate
            | Operation::McpAuthorizeFinish
            | Operation::ProjectCreate
            | Operation::GitCredentialsSet
            | Operation::UserUpdate
            | Operation::UserCreate
            | Operation::InvitationAccept
            | Operation::CredentialCreate
            | Operation::ProjectCredentialCreate
            | Operation::ServerCredentialCreate
    );
    if holds_secrets {
        node.services.fingerprints.of(body)
    } else {
        iris_workspace::content_hash(body)
    }
}

/// Passes an operation in a project on to whoever owns the project.
async fn perform_at_owner(node: &Node, grant: &Grant, ask: Ask) -> Result<Done, ApiError> {
    let (operation, payload) = (ask.command.operation(), ask.command.to_value());
    if let Some(session_id) = payload.get("sessionId").and_then(Value::as_str) {
        Span::current().record("session.id", session_id);
    }
    let question = OwnerAsk::Perform {
        operation: operation.name().to_owned(),
        payload,
        idempotency_key: ask.idempotency_key,
        connection_id: ask.connection_id,
        origin: grant.origin(&ask.peer),
    };
    let answer = node.ask_owner(grant.project_id()?, grant.user_id()?, question, None).await?;
    let OwnerAnswer::Done(done) = answer else { return Err(mismatch()) };
    Ok(done)
}

/// Runs an operation as the owner of the project, for a user whose rights were checked.
pub(crate) async fn perform_for(
    node: &Node,
    user_id: UserId,
    project_id: ProjectId,
    command: Command,
    idempotency_key: Option<String>,
    connection_id: Option<ConnectionId>,
) -> Result<Done, ApiError> {
    let (grant, operation) = (Grant::of(user_id, project_id), command.operation());
    // The proof of the latter was looked at on the way.
    let is_in_project = matches!(operation.right(), Right::Project(_));
    if !is_in_project && operation != Operation::McpAuthorizeFinish {
        return Err(ApiError::from(ErrorCode::UnknownOperation));
    }
    let ask = Ask {
        claims: None,
        project_id: grant.project_id.clone(),
        command,
        idempotency_key,
        peer: Peer::default(),
        request_id: None,
        connection_id,
    };
    let context = grant.write_context(node, operation, &ask)?;
    let is_audited = audit::manner(operation) == audit::Manner::Around;
    let entry = if is_audited && !is_repeat(node, &grant, &context).await? {
        let (user_id, project_id) = (grant.user_id()?, grant.project_id.as_ref());
        let payload = ask.command.to_value();
        let entry = audit::entry(node, user_id, operation, project_id, &payload);
        Some(audit::with_call(node, &grant, &ask.command, entry).await)
    } else {
        None
    };
    // As large as the largest of all operations.
    let work = Box::pin(perform(node, grant, ask, context));
    match entry {
        Some(entry) => audit::around(node, entry, work).await,
        None => work.await,
    }
}

/// Whether a command was run before under its key: then it does nothing that the audit should hold.
async fn is_repeat(node: &Node, grant: &Grant, context: &WriteContext) -> Result<bool, ApiError> {
    let Some(key) = &context.idempotency else { return Ok(false) };
    if node.root_reader.knows(key.clone()).await.map_err(stored)? {
        return Ok(true);
    }
    let project = grant.project(node).await?;
    project.reader.knows(key.clone()).await.map_err(stored)
}

#[expect(clippy::too_many_lines, reason = "each operation has its arm")]
async fn perform(
    node: &Node,
    grant: Grant,
    ask: Ask,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let Ask { command, peer, connection_id, .. } = ask;
    match command {
        Command::AuthSetup(request) => accounts::setup(node, request, peer).await,
        Command::AuthRegister(request) => accounts::register(node, request, peer).await,
        Command::AuthLogin(request) => accounts::login(node, request, peer).await,
        Command::AuthRotate(request) => accounts::rotate(node, request, peer).await,
        Command::AuthLogout(request) => accounts::logout(node, &grant, request, context).await,
        Command::AuthTicket(_) => accounts::ticket(node, &grant),
        Command::UserGet(_) => accounts::me(node, &grant).await,
        command @ (Command::OauthList(_)
        | Command::OauthStart(_)
        | Command::OauthCallback(_)
        | Command::OauthRedeem(_)
        | Command::IdentityList(_)
        | Command::IdentityLink(_)
        | Command::IdentityCreate(_)
        | Command::IdentityDelete(_)
        | Command::LoginList(_)
        | Command::LoginRevoke(_)
        | Command::PasswordChange(_)
        | Command::PasswordForgot(_)
        | Command::PasswordReset(_)
        | Command::UserUpdate(_)
        | Command::UserDelete(_)
        | Command::UserExport(_)
        | Command::KeyCreate(_)
        | Command::KeyList(_)
        | Command::KeyRevoke(_)
        | Command::CredentialCreate(_)
        | Command::CredentialList(_)
        | Command::CredentialDelete(_)
        | Command::ProjectCredentialCreate(_)
        | Command::ProjectCredentialList(_)
        | Command::ProjectCredentialDelete(_)
        | Command::ServerCredentialCreate(_)
        | Command::ServerCredentialList(_)
        | Command::ServerCredentialDelete(_)
        | Command::ProjectSettingsGet(_)
        | Command::ProjectSettingsUpdate(_)
        | Command::ProjectTransfer(_)
        | Command::ProjectLeave(_)
        | Command::InvitationCreate(_)
        | Command::InvitationList(_)
        | Command::InvitationRevoke(_)
        | Command::InvitationAccept(_)
        | Command::UserList(_)
        | Command::UserRead(_)
        | Command::UserCreate(_)
        | Command::UserManage(_)
        | Command::UserLogout(_)
        | Command::UserPasswordReset(_)
        | Command::UserRemove(_)
        | Command::UserDataRead(_)
        | Command::ServerInvitationCreate(_)
        | Command::ServerInvitationList(_)
        | Command::ServerInvitationRevoke(_)
        | Command::SettingsGet(_)
        | Command::SettingsUpdate(_)
        | Command::AuditList(_)) => access::perform(node, &grant, command, peer, context).await,
        Command::ProjectCreate(request) => projects::create(node, &grant, request, context).await,
        Command::ProjectList(request) => projects::list(node, &grant, request).await,
        Command::ProjectGet(_) => projects::get(node, &grant).await,
        Command::ProjectUpdate(request) => projects::update(node, &grant, request, context).await,
        Command::ProjectArchive(_) => projects::archive(node, &grant, true, context).await,
        Command::ProjectUnarchive(_) => projects::archive(node, &grant, false, context).await,
        Command::ProjectDelete(_) => projects::delete(node, &grant, context).await,
        Command::ProjectBackup(_) => {
            backups::create(node, &grant, BackupKind::Manual, context).await
        }
        Command::ProjectExport(_) => {
            backups::create(node, &grant, BackupKind::Export, context).await
        }
        Command::BackupList(_) => backups::list(node, &grant).await,
        Command::BackupDelete(request) => backups::delete(node, &grant, request, context).await,
        Command::ProjectRestore(request) => backups::restore(node, &grant, request, context).await,
        Command::MemberList(_) => projects::members(node, &grant).await,
        Command::MemberAdd(request) => projects::add_member(node, &grant, request, context).await,
        Command::MemberUpdate(request) => {
            projects::update_member(node, &grant, request, context).await
        }
        Command::MemberRemove(request) => {
            projects::remove_member(node, &grant, request, context).await
        }
        Command::SessionCreate(request) => sessions::create(node, &grant, request, context).await,
        Command::SessionList(request) => sessions::list(node, &grant, request).await,
        Command::SessionGet(request) => sessions::get(node, &grant, request).await,
        Command::SessionRead(request) => sessions::read(node, &grant, request, context).await,
        Command::CaptureStart(request) => captures::start(node, &grant, request, context).await,
        Command::CaptureStop(request) => captures::stop(node, &grant, request, context).await,
        Command::CaptureList(request) => captures::list(node, &grant, request).await,
        Command::CaptureRead(request) => captures::read(node, &grant, request).await,
        Command::SessionUpdate(request) => sessions::update(node, &grant, request, context).await,
        Command::SessionArchive(request) => {
            sessions::archive(node, &grant, request.session_id, context).await
        }
        Command::SessionUnarchive(request) => {
            sessions::unarchive(node, &grant, request.session_id, context).await
        }
        Command::SessionCompact(request) => context::compact(node, &grant, request, context).await,
        Command::SessionDelete(request) => sessions::delete(node, &grant, request, context).await,
        Command::MessageSend(request) => sessions::send(node, &grant, request, context).await,
        Command::MessageDequeue(request) => turns::dequeue(node, &grant, request, context).await,
        Command::MessageRetry(request) => turns::retry(node, &grant, request, context).await,
        Command::MessageEdit(request) => turns::edit(node, &grant, request, context).await,
        Command::SessionFork(request) => turns::fork(node, &grant, request, context).await,
        Command::SessionRevert(request) => reverting::revert(node, &grant, request, context).await,
        Command::SessionUnrevert(request) => {
            reverting::unrevert(node, &grant, request, context).await
        }
        Command::SessionExport(request) => turns::export(node, &grant, request).await,
        Command::RunCancel(request) => sessions::cancel(node, &grant, request, context).await,
        Command::RunGet(request) => sessions::run(node, &grant, request).await,
        Command::RunList(request) => sessions::runs(node, &grant, request).await,
        Command::RunResume(request) => sessions::resume(node, &grant, request, context).await,
        Command::MessageGet(request) => sessions::message(node, &grant, request).await,
        Command::MessageList(request) => sessions::messages(node, &grant, request).await,
        Command::SessionSearch(request) => sessions::search(node, &grant, request).await,
        Command::AgentCreate(request) => agents::create(node, &grant, request, context).await,
        Command::AgentList(_) => agents::list(node, &grant).await,
        Command::AgentGet(request) => agents::get(node, &grant, &request.name).await,
        Command::AgentUpdate(request) => agents::update(node, &grant, request, context).await,
        Command::AgentDelete(request) => agents::delete(node, &grant, request.name, context).await,
        Command::ToolList(_) => tools::list(node, &grant).await,
        Command::ToolCreate(request) => tools::create(node, &grant, request, context).await,
        Command::ToolUpdate(request) => tools::update(node, &grant, request, context).await,
        Command::ToolDelete(request) => tools::delete(node, &grant, request, context).await,
        Command::ToolTest(request) => tools::test(node, &grant, request, context).await,
        Command::ToolApprove(request) => sessions::approve(node, &grant, request, context).await,
        Command::ToolReject(request) => sessions::reject(node, &grant, request, context).await,
        Command::ApprovalList(request) => sessions::approvals(node, &grant, request).await,
        Command::MessageAttachment(request) => attachments::piece(node, &grant, request).await,
        Command::ToolOutput(request) => outputs::piece(node, &grant, request).await,
        Command::ApprovalGet(request) => sessions::approval(node, &grant, request).await,
        Command::QuestionList(request) => questions::list(node, &grant, request).await,
        Command::QuestionAnswer(request) => questions::answer(node, &grant, request, context).await,
        Command::QuestionReject(request) => questions::reject(node, &grant, request, context).await,
        Command::TodoList(request) => questions::todos(node, &grant, request).await,
        Command::PermissionList(request) => permissions::list(node, &grant, request).await,
        Command::PermissionCreate(request) => {
            permissions::create(node, &grant, request, context).await
        }
        Command::PermissionUpdate(request) => {
            permissions::update(node, &grant, request, context).await
        }
        Command::PermissionDelete(request) => {
            permissions::delete(node, &grant, request, context).await
        }
        Command::PermissionExplain(request) => permissions::explain(node, &grant, request).await,
        Command::McpList(_) => mcp::list(node, &grant).await,
        Command::McpCreate(request) => mcp::create(node, &grant, request, context).await,
        Command::McpUpdate(request) => mcp::update(node, &grant, request, context).await,
        Command::McpDelete(request) => mcp::delete(node, &grant, request.name, context).await,
        Command::McpAuthorize(request) => mcp::authorize(node, &grant, request).await,
        // At the owner of the project there is a project.
        Command::McpAuthorizeFinish(request) if grant.project_id.is_some() => {
            mcp::finish(node, &grant, request).await
        }
        Command::McpAuthorizeFinish(request) => mcp::come_back(node, request).await,
        Command::McpStatusGet(request) => mcp::status(node, &grant, &request.name).await,
        Command::ModelList(request) => models::list(node, request),
        Command::ModelSet(request) => models::set(node, &grant, request, context).await,
        Command::ModelReset(request) => models::reset(node, &grant, request, context).await,
        Command::UsageGet(request) => usage::get(node, &grant, request).await,
        Command::ServerUsageGet(request) => usage::of_server(node, request).await,
        Command::SessionBudgetSet(request) => {
            usage::set_session_budget(node, &grant, request, context).await
        }
        Command::UserBudgetGet(request) => usage::user_budgets(node, request).await,
        Command::UserBudgetSet(request) => {
            usage::set_user_budgets(node, &grant, request, context).await
        }
        Command::FileRead(request) => files::read(node, &grant, request).await,
        Command::FileWrite(request) => files::write(node, &grant, request, context).await,
        Command::FileList(request) => files::browse::list(node, &grant, request).await,
        Command::FileStat(request) => files::browse::stat(node, &grant, request).await,
        Command::FileSearch(request) => files::browse::search(node, &grant, request).await,
        Command::FileEdit(request) => files::changes::edit(node, &grant, request, context).await,
        Command::FileMove(request) => files::changes::move_to(node, &grant, request, context).await,
        Command::FileDelete(request) => {
            files::changes::delete(node, &grant, request, context).await
        }
        Command::FileVersions(request) => files::history::versions(node, &grant, request).await,
        Command::FileDiff(request) => files::history::diff(node, &grant, request).await,
        Command::FileRestore(request) => {
            files::changes::restore(node, &grant, request, context).await
        }
        Command::FileLockTake(request) => {
            files::changes::lock(node, &grant, request, connection_id, context).await
        }
        Command::FileUnlock(request) => {
            files::changes::unlock(node, &grant, request, context).await
        }
        Command::FileLocks(_) => files::changes::locks(node, &grant).await,
        Command::SnapshotCreate(_) => files::snapshots::create(node, &grant, context).await,
        Command::SnapshotList(request) => files::snapshots::list(node, &grant, request).await,
        Command::SnapshotDiff(request) => files::snapshots::diff(node, &grant, request).await,
        Command::SnapshotRestore(request) => {
            files::snapshots::restore(node, &grant, request, context).await
        }
        Command::GitClone(_) => git::clone_again(node, &grant, context).await,
        Command::GitCancel(_) => git::cancel(node, &grant).await,
        Command::GitCredentialsSet(request) => {
            git::set_credentials(node, &grant, request, context).await
        }
        Command::GitStatus(_) => git::status(node, &grant).await,
        Command::GitDiff(request) => git::diff(node, &grant, request).await,
        Command::GitLog(request) => git::log(node, &grant, request).await,
        Command::GitBranches(_) => git::branches(node, &grant).await,
        Command::GitSwitch(request) => git::switch(node, &grant, request, context).await,
        Command::GitCommit(request) => git::commit(node, &grant, request, context).await,
        Command::GitFetch(_) => git::fetch(node, &grant, context).await,
        Command::GitPull(request) => git::pull(node, &grant, request, context).await,
        Command::GitPush(request) => git::push(node, &grant, request, context).await,
        Command::RunDiff(request) => files::history::run_diff(node, &grant, request).await,
        Command::PresenceUpdate(request) => {
            presence::update(node, &grant, connection_id, request).await
        }
        Command::PresenceList(_) => presence::list(node, &grant).await,
        Command::TypingStart(request) => {
            presence::start_typing(node, &grant, connection_id, request.session_id).await
        }
        Command::TypingStop(request) => {
            presence::stop_typing(node, &grant, request.session_id).await
        }
        Command::ActorList(request) => admin::actors(node, request).await,
        Command::ActorGet(request) => admin::actor(node, request).await,
        Command::ActorRestart(request) => admin::restart(node, &grant, request, context).await,
        Command::ActorStop(request) => admin::stop(node, &grant, request, context).await,
        Command::SupervisionList(request) => admin::supervision(node, request).await,
        Command::ServerBackupCreate(_) => backups::back_up_server(node, &grant, context).await,
        Command::ServerBackupList(_) => backups::list_server(node).await,
        Command::ServerPermissionList(request) => server_permissions::list(node, request).await,
        Command::ServerPermissionCreate(request) => {
            server_permissions::create(node, &grant, request, context).await
        }
        Command::ServerPermissionUpdate(request) => {
            server_permissions::update(node, &grant, request, context).await
        }
        Command::ServerPermissionDelete(request) => {
            server_permissions::delete(node, &grant, request, context).await
        }
        Command::MetricsRead(_) => admin::metrics(node).await,
        Command::LogGet(_) => admin::log_settings(node),
        Command::KeysRotate(_) => admin::rotate_keys(node, &grant, context).await,
        Command::LogSet(request) => admin::set_log(node, &grant, request, context).await,
        // They have routes of their own, because of their bodies, or are about a connection.
        Command::FileUpload(_)
        | Command::UploadBegin(_)
        | Command::UploadCommit(_)
        | Command::UploadCancel(_)
        | Command::DownloadBegin(_)
        | Command::DownloadCancel(_)
        | Command::BackupRead(_)
        | Command::AuditExport(_)
        | Command::ProjectImport(_)
        | Command::Hello(_)
        | Command::AuthRefresh(_)
        | Command::Subscribe(_)
        | Command::Unsubscribe(_)
        | Command::PartSync(_)
        | Command::Cancel(_)
        | Command::Ping(_) => Err(ApiError::from(ErrorCode::UnknownOperation)),
    }
}

fn done(payload: impl Serialize) -> Result<Done, ApiError> {
    let payload = Json::of(&payload).map_err(internal)?;
    Ok(Done { payload, seq: None, replayed: false })
}

impl Done {
    fn at(mut self, seq: Option<u64>, replayed: bool) -> Self {
        (self.seq, self.replayed) = (seq, replayed);
        self
    }
}

/// The answer to the repeat of a request whose answer held a secret: that is kept nowhere.
fn shown_once() -> ApiError {
    let message = "this was done before under the same key; its secret was shown then";
    ApiError::new(ErrorCode::Conflict, message).reason("shown_once")
}

/// The answer to a request that panicked: the supervision log has the cause.
pub(crate) fn broken() -> ApiError {
    ApiError::new(ErrorCode::Internal, "internal error").reason("panicked")
}

/// Our own failure: the log has the cause, the client has a sentence.
fn internal(error: impl std::fmt::Display) -> ApiError {
    tracing::error!(%error, "a command failed inside the server");
    ApiError::new(ErrorCode::Internal, "internal error")
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
fn stored(error: StoreError) -> ApiError {
    let wire = error.to_api();
    if wire.code == ErrorCode::Internal {
        tracing::error!(%error, "a command failed in the store");
    }
    wire
}

/// Refuses what would take space before anything is written, while there is none.
fn check_space(node: &Node) -> Result<(), ApiError> {
    if node.services.storage.is_full() {
        return Err(StoreError::StorageFull.to_api());
    }
    Ok(())
}

pub(crate) fn check_name(field: &str, name: &str) -> Result<(), ApiError> {
    if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
        let message = format!(
            "`{field}` must have 1 to {NAME_BYTES_MAX} bytes, not only spaces, no control characters"
        );
        return Err(ApiError::invalid(message).reason("invalid_name"));
    }
    Ok(())
}

/// Whether a reference to a model is one that can be shown and logged.
fn check_model(model: Option<&ModelRef>) -> Result<(), ApiError> {
    let Some(ModelRef { provider_id, model_id }) = model else { return Ok(()) };
    check_name("model.providerId", provider_id)?;
    check_name("model.modelId", model_id)
}

pub(crate) fn check_description(field: &str, text: Option<&str>) -> Result<(), ApiError> {
    check_length(field, text.unwrap_or_default(), DESCRIPTION_BYTES_MAX)
}

pub(crate) fn check_length(field: &str, text: &str, bytes_max: usize) -> Result<(), ApiError> {
    if text.len() > bytes_max {
        let message = format!("`{field}` is longer than {bytes_max} bytes");
        return Err(ApiError::new(ErrorCode::PayloadTooLarge, message));
    }
    Ok(())
}
