//! What of the operations goes into the audit, and how: a new operation does not compile until it says so.

use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, AuditList, AuditPage, AuditRecord, Command, ErrorCode, Operation, ProjectId, UserId,
};
use iris_store::WriteContext;
use iris_store::root::{AuditQuery, RecordAudit};
use serde_json::{Map, Value};

use super::projects::page_size;
use super::{Done, Grant, done, stored};
use crate::{Node, record};

/// Records of one piece of an export.
const EXPORTED_AT_ONCE: u32 = 500;

/// Fields of requests that the audit holds. None of them is ever a secret.
const FIELDS: &[&str] = &[
    "userId",
    "role",
    "permission",
    "pattern",
    "action",
    "canExecuteCode",
    "isAdmin",
    "disabled",
    "scopes",
    "projectId",
    "expiresAt",
    "remember",
    "everywhere",
    "sessionId",
    "toolCallId",
    "name",
    "registration",
    "projectCreation",
    "apiKeys",
    "backupId",
    "expiresInHours",
    "provider",
    "providerId",
    "budget",
    "minutes",
    "discard",
    "captureId",
    "branch",
];

/// Fields of requests that name what something is done to, the most telling ones first.
const TARGETS: &[&str] = &[
    "userId",
    "keyId",
    "credentialId",
    "identityId",
    "authSessionId",
    "invitationId",
    "permissionId",
    "toolId",
    "toolCallId",
    "backupId",
    "captureId",
    "name",
];

/// How an operation comes into the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Not at all: it changes no right and shows no secret.
    Not,
    /// With its own write to the root database, in one transaction.
    WithWrite,
    /// Before it begins and when it has ended: its write is to another database, or what it takes out is from there.
    Around,
    /// It records itself: its facts are known only on the way.
    Itself,
}

#[expect(clippy::too_many_lines, reason = "each operation has its line")]
pub(super) fn manner(operation: Operation) -> Manner {
    match operation {
        Operation::AuthLogout
        | Operation::LoginRevoke
        | Operation::KeyRevoke
        | Operation::IdentityDelete
        | Operation::CredentialCreate
        | Operation::CredentialDelete
        | Operation::ProjectCredentialCreate
        | Operation::ProjectCredentialDelete
        | Operation::ServerCredentialCreate
        | Operation::ServerCredentialDelete
        | Operation::UserUpdate
        | Operation::GitCredentialsSet
        | Operation::ProjectUpdate
        | Operation::ProjectSettingsUpdate
        | Operation::ProjectArchive
        | Operation::ProjectUnarchive
        | Operation::ProjectDelete
        | Operation::ProjectTransfer
        | Operation::ProjectLeave
        | Operation::MemberAdd
        | Operation::MemberUpdate
        | Operation::MemberRemove
        | Operation::InvitationCreate
        | Operation::InvitationRevoke
        | Operation::InvitationAccept
        | Operation::UserLogout
        | Operation::UserRemove
        | Operation::ServerInvitationCreate
        | Operation::ServerInvitationRevoke
        | Operation::SettingsUpdate => Manner::WithWrite,
        Operation::PermissionCreate
        | Operation::PermissionUpdate
        | Operation::PermissionDelete
        | Operation::ToolApprove
        | Operation::ToolReject
        | Operation::ToolCreate
        | Operation::ToolUpdate
        | Operation::ToolDelete
        | Operation::AgentCreate
        | Operation::AgentUpdate
        | Operation::AgentDelete
        | Operation::McpCreate
        | Operation::McpUpdate
        | Operation::McpDelete
        | Operation::McpAuthorize
        | Operation::McpAuthorizeFinish
        | Operation::SessionBudgetSet
        | Operation::CaptureStart
        | Operation::CaptureStop
        | Operation::CaptureRead
        | Operation::SessionExport
        | Operation::GitPush
        | Operation::BackupDelete => Manner::Around,
        Operation::AuthSetup
        | Operation::AuthRegister
        | Operation::AuthLogin
        | Operation::AuthRotate
        | Operation::OauthCallback
        | Operation::OauthRedeem
        | Operation::IdentityLink
        | Operation::IdentityCreate
        | Operation::PasswordChange
        | Operation::PasswordForgot
        | Operation::PasswordReset
        | Operation::KeyCreate
        | Operation::UserDelete
        | Operation::UserExport
        | Operation::UserManage
        | Operation::UserCreate
        | Operation::UserPasswordReset
        | Operation::UserDataRead
        | Operation::AuditExport
        | Operation::BackupRead
        | Operation::ProjectRestore
        | Operation::ProjectExport
        | Operation::ProjectImport
        | Operation::ToolTest
        | Operation::ServerBackupCreate
        | Operation::KeysRotate
        | Operation::ActorRestart
        | Operation::ActorStop
        | Operation::ServerPermissionCreate
        | Operation::ServerPermissionUpdate
        | Operation::ServerPermissionDelete
        | Operation::ModelSet
        | Operation::ModelReset
        | Operation::UserBudgetSet
        | Operation::LogSet => Manner::Itself,
        Operation::AuthTicket
        | Operation::MetricsRead
        | Operation::LoginList
        | Operation::OauthList
        | Operation::OauthStart
        | Operation::IdentityList
        | Operation::KeyList
        | Operation::CredentialList
        | Operation::ProjectCredentialList
        | Operation::ServerCredentialList
        | Operation::UserGet
        | Operation::ProjectCreate
        | Operation::ProjectList
        | Operation::ProjectGet
        | Operation::ProjectSettingsGet
        | Operation::ProjectBackup
        | Operation::BackupList
        | Operation::MemberList
        | Operation::InvitationList
        | Operation::SessionCreate
        | Operation::SessionList
        | Operation::SessionGet
        | Operation::SessionRead
        | Operation::CaptureList
        | Operation::SessionUpdate
        | Operation::SessionArchive
        | Operation::SessionUnarchive
        | Operation::SessionDelete
        | Operation::SessionFork
        | Operation::SessionCompact
        | Operation::MessageSend
        | Operation::MessageDequeue
        | Operation::MessageRetry
        | Operation::MessageEdit
        | Operation::RunCancel
        | Operation::RunGet
        | Operation::RunList
        | Operation::RunResume
        | Operation::MessageGet
        | Operation::MessageList
        | Operation::MessageAttachment
        | Operation::SessionSearch
        | Operation::AgentList
        | Operation::AgentGet
        | Operation::ToolList
        | Operation::ToolOutput
        | Operation::ApprovalList
        | Operation::ApprovalGet
        | Operation::QuestionList
        | Operation::QuestionAnswer
        | Operation::QuestionReject
        | Operation::TodoList
        | Operation::PermissionList
        | Operation::PermissionExplain
        | Operation::McpList
        | Operation::McpStatusGet
        | Operation::FileList
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
        | Operation::FileLockTake
        | Operation::FileUnlock
        | Operation::FileLocks
        | Operation::SnapshotCreate
        | Operation::SnapshotList
        | Operation::SnapshotDiff
        | Operation::SnapshotRestore
        | Operation::SessionRevert
        | Operation::SessionUnrevert
        | Operation::GitClone
        | Operation::GitCancel
        | Operation::GitStatus
        | Operation::GitDiff
        | Operation::GitLog
        | Operation::GitBranches
        | Operation::GitSwitch
        | Operation::GitCommit
        | Operation::GitFetch
        | Operation::GitPull
        | Operation::RunDiff
        | Operation::ModelList
        | Operation::UsageGet
        | Operation::ServerUsageGet
        | Operation::UserBudgetGet
        | Operation::UploadBegin
        | Operation::UploadCommit
        | Operation::UploadCancel
        | Operation::DownloadBegin
        | Operation::DownloadCancel
        | Operation::PresenceUpdate
        | Operation::PresenceList
        | Operation::TypingStart
        | Operation::TypingStop
        | Operation::ActorList
        | Operation::ActorGet
        | Operation::SupervisionList
        | Operation::ServerBackupList
        | Operation::UserList
        | Operation::UserRead
        | Operation::ServerInvitationList
        | Operation::SettingsGet
        | Operation::AuditList
        | Operation::ServerPermissionList
        | Operation::LogGet
        | Operation::Hello
        | Operation::AuthRefresh
        | Operation::Subscribe
        | Operation::Unsubscribe
        | Operation::PartSync
        | Operation::Cancel
        | Operation::Ping => Manner::Not,
    }
}

/// What the audit is to say of an operation of a user.
pub(super) fn entry(
    node: &Node,
    user_id: &UserId,
    operation: Operation,
    project_id: Option<&ProjectId>,
    payload: &Value,
) -> RecordAudit {
    let text = |field: &&&str| payload.get(**field).and_then(Value::as_str);
    let named = TARGETS.iter().find_map(|field| text(&field));
    let target = named.or(project_id.map(ProjectId::as_str)).unwrap_or(user_id.as_str());
    let field = |field: &&str| Some(((*field).to_owned(), payload.get(*field)?.clone()));
    let details = FIELDS.iter().filter_map(field).filter(|(_, value)| !value.is_null());
    let details: Map<String, Value> = details.collect();
    let audit = node.services.audit(user_id, operation.name(), target, Value::Object(details));
    RecordAudit { project_id: project_id.cloned(), ..audit }
}

/// Adds to the record of an answer to an approval which tool the call is of, and whether its arguments are others than
/// the model's. Not what these are, which may be secret.
pub(super) async fn with_call(
    node: &Node,
    grant: &Grant,
    command: &Command,
    mut audit: RecordAudit,
) -> RecordAudit {
    let (session, call, is_edited) = if let Command::ToolApprove(request) = command {
        (&request.session_id, &request.tool_call_id, request.input.is_some())
    } else if let Command::ToolReject(request) = command {
        (&request.session_id, &request.tool_call_id, false)
    } else {
        return audit;
    };
    let Value::Object(details) = &mut audit.details else { return audit };
    if is_edited {
        details.insert("edited".to_owned(), Value::Bool(true));
    }
    // What is wrong with an answer to nothing is for the command to say.
    if let Ok(project) = grant.project(node).await
        && let Ok(Some(session)) =
            project.reader.session_of_approval(session.clone(), call.clone()).await
        && let Ok(Some(approval)) = project.reader.approval(session, call.clone()).await
    {
        details.insert("tool".to_owned(), Value::String(approval.tool_name));
    }
    audit
}

/// Runs an operation whose write is to another database, between two records.
pub(super) async fn around(
    node: &Node,
    audit: RecordAudit,
    work: impl Future<Output = Result<Done, ApiError>>,
) -> Result<Done, ApiError> {
    let begun = RecordAudit { result: "begun".to_owned(), ..audit.clone() };
    record(&node.root, begun, WriteContext::default()).await.map_err(stored)?;
    let outcome = work.await;
    let result = outcome.as_ref().map_or_else(result_of, |_| iris_store::root::DONE.to_owned());
    let ended = RecordAudit { at: node.services.clock.now_ms(), result, ..audit };
    // It has happened; the record of its beginning stands.
    if let Err(error) = record(&node.root, ended, WriteContext::default()).await {
        tracing::error!(%error, "the end of an operation is not in the audit");
    }
    outcome
}

/// An error as a result of the audit: its code, and its reason if it has one.
pub(super) fn result_of(error: &ApiError) -> String {
    match error.details.get("reason").and_then(Value::as_str) {
        Some(reason) => format!("{} {reason}", error.code.as_str()),
        None => error.code.as_str().to_owned(),
    }
}

/// Records that an operation was refused to a user who is known. Not every one of many.
pub(super) async fn refused(
    node: &Node,
    claims: &AccessClaims,
    operation: Operation,
    project_id: Option<&ProjectId>,
    (payload, peer): (&Value, &super::Peer),
    error: &ApiError,
) {
    // The others say nothing of rights.
    let is_telling = matches!(
        error.code,
        ErrorCode::Forbidden | ErrorCode::NotFound | ErrorCode::Conflict | ErrorCode::Gone
    );
    if !is_telling || !node.rates.may_record_refusal(&claims.user_id) {
        return;
    }
    let audit = entry(node, &claims.user_id, operation, project_id, payload);
    let audit = RecordAudit {
        result: result_of(error),
        ip: peer.ip.clone(),
        credential: Some(claims.credential.id().to_owned()),
        request_id: audit.request_id.or_else(|| error.request_id.clone()),
        ..audit
    };
    if let Err(error) = record(&node.root, audit, WriteContext::default()).await {
        tracing::warn!(%error, "a refusal is not in the audit");
    }
}

pub(super) async fn list(node: &Node, request: AuditList) -> Result<Done, ApiError> {
    let AuditList { user_id, action, target, project_id, from, to, limit, cursor } = request;
    let before = cursor.map(|cursor| cursor.parse::<u64>()).transpose();
    let before = before.map_err(|_| ApiError::invalid("no page gave this `cursor`"))?;
    let limit = page_size(limit)?;
    let query = AuditQuery { user_id, action, target, project_id, from, to, limit, before };
    let page: AuditPage = node.root_reader.audit_page(query).await.map_err(stored)?;
    done(page)
}

/// The audit as it is sent line by line.
pub struct AuditReader {
    node: Node,
    /// The last record that was read.
    after: u64,
}

/// Begins an export of the audit, for an administrator of the server. It is in the audit itself.
///
/// # Errors
/// Those of the gate.
pub async fn export(
    node: &Node,
    claims: Option<&AccessClaims>,
    peer: super::Peer,
    request_id: Option<String>,
) -> Result<AuditReader, ApiError> {
    let begin = async {
        let grant: Grant = node.gate(claims, Operation::AuditExport, None).await?;
        let user_id = grant.user_id()?;
        let _under_way = grant.enter(node, &peer);
        let audit =
            node.services.audit(user_id, "admin.audit.export", "audit", Value::Object(Map::new()));
        record(&node.root, audit, WriteContext::default()).await.map_err(stored)?;
        Ok(AuditReader { node: node.clone(), after: 0 })
    };
    node.request(request_id, Operation::AuditExport, None, begin).await
}

impl AuditReader {
    /// Some records, each as a line of JSON; none at the end.
    ///
    /// # Errors
    /// When the root database cannot be read.
    pub async fn part(&mut self) -> Result<Option<String>, ApiError> {
        let records = self.node.root_reader.audit_after(self.after, EXPORTED_AT_ONCE).await;
        let records: Vec<AuditRecord> = records.map_err(stored)?;
        let Some(last) = records.last() else { return Ok(None) };
        self.after = last.id;
        let mut lines = String::new();
        for record in &records {
            lines.push_str(&serde_json::to_string(record).map_err(super::internal)?);
            lines.push('\n');
        }
        Ok(Some(lines))
    }
}
