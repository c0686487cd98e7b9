//! What an API key may be used for: a scope for each group of operations, and which one an operation
//! takes. A new operation does not compile until it has its line here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Operation;

macro_rules! scopes {
    ($($(#[$doc:meta])* $variant:ident = $name:literal;)*) => {
        /// A group of operations that an API key may be used for.
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
            JsonSchema,
        )]
        pub enum Scope { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }

        impl Scope {
            /// Every scope.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// On the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

scopes! {
    /// The user's own account.
    AccountRead = "account:read";
    /// Changes of the user's own account.
    AccountWrite = "account:write";
    /// Projects, their settings and backups.
    ProjectsRead = "projects:read";
    /// Changes of projects.
    ProjectsWrite = "projects:write";
    /// Members and invitations.
    MembersRead = "members:read";
    /// Changes of members, and inviting.
    MembersWrite = "members:write";
    /// Rooms: everything that happens in a project.
    EventsRead = "events:read";
    /// Sessions, messages and runs.
    SessionsRead = "sessions:read";
    /// Sending messages, and whatever else changes sessions.
    SessionsWrite = "sessions:write";
    /// Approvals and questions.
    ApprovalsRead = "approvals:read";
    /// Answering approvals and questions.
    ApprovalsWrite = "approvals:write";
    /// Agents, tools, MCP servers and permission rules.
    AgentsRead = "agents:read";
    /// Changes of agents, tools, MCP servers and permission rules.
    AgentsWrite = "agents:write";
    /// Files.
    FilesRead = "files:read";
    /// Changes of files.
    FilesWrite = "files:write";
    /// What administrators of the server read.
    AdminRead = "admin:read";
    /// What administrators of the server do.
    AdminWrite = "admin:write";
    /// The metrics of the server.
    MetricsRead = "metrics:read";
}

impl Scope {
    /// Whether it is about administration of the server.
    pub fn is_of_admins(self) -> bool {
        matches!(self, Self::AdminRead | Self::AdminWrite | Self::MetricsRead)
    }
}

/// What a key needs for an operation, besides the rights of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyNeeds {
    /// To be good.
    Nothing,
    /// This scope.
    Scope(Scope),
    /// To be a login: no key may.
    Login,
}

impl Operation {
    /// What an API key needs for it.
    #[expect(clippy::too_many_lines, reason = "each operation has its line")]
    pub fn key_needs(self) -> KeyNeeds {
        let scope = match self {
            Self::AuthSetup
            | Self::AuthRegister
            | Self::AuthLogin
            | Self::AuthRotate
            | Self::OauthList
            | Self::OauthStart
            | Self::OauthCallback
            | Self::OauthRedeem
            | Self::PasswordForgot
            | Self::PasswordReset
            | Self::McpAuthorizeFinish
            | Self::AuthTicket
            | Self::UserGet
            | Self::Hello
            | Self::AuthRefresh
            | Self::Unsubscribe
            | Self::Cancel
            | Self::Ping => return KeyNeeds::Nothing,
            Self::AuthLogout
            | Self::LoginRevoke
            | Self::PasswordChange
            | Self::UserDelete
            | Self::IdentityLink
            | Self::IdentityCreate
            | Self::IdentityDelete
            | Self::KeyCreate
            | Self::KeyList
            | Self::KeyRevoke => return KeyNeeds::Login,
            Self::LoginList | Self::UserExport | Self::CredentialList | Self::IdentityList => {
                Scope::AccountRead
            }
            Self::UserUpdate | Self::CredentialCreate | Self::CredentialDelete => {
                Scope::AccountWrite
            }
            Self::ProjectList
            | Self::ProjectGet
            | Self::ProjectSettingsGet
            | Self::ProjectCredentialList
            | Self::UsageGet
            | Self::BackupList
            | Self::BackupRead => Scope::ProjectsRead,
            Self::GitCredentialsSet
            | Self::GitClone
            | Self::GitCancel
            | Self::ProjectCreate
            | Self::ProjectUpdate
            | Self::ProjectSettingsUpdate
            | Self::ProjectCredentialCreate
            | Self::ProjectCredentialDelete
            | Self::ProjectArchive
            | Self::ProjectUnarchive
            | Self::ProjectDelete
            | Self::ProjectBackup
            | Self::BackupDelete
            | Self::ProjectRestore
            | Self::ProjectExport
            | Self::ProjectImport
            | Self::ProjectTransfer => Scope::ProjectsWrite,
            Self::MemberList | Self::InvitationList | Self::PresenceList => Scope::MembersRead,
            Self::MemberAdd
            | Self::MemberUpdate
            | Self::MemberRemove
            | Self::ProjectLeave
            | Self::InvitationCreate
            | Self::InvitationRevoke
            | Self::InvitationAccept => Scope::MembersWrite,
            Self::Subscribe | Self::PartSync | Self::PresenceUpdate => Scope::EventsRead,
            Self::SessionList
            | Self::SessionGet
            | Self::SessionRead
            | Self::SessionExport
            | Self::RunDiff
            | Self::RunGet
            | Self::RunList
            | Self::MessageGet
            | Self::MessageList
            | Self::MessageAttachment
            | Self::SessionSearch
            | Self::ToolOutput
            | Self::TodoList => Scope::SessionsRead,
            Self::SessionCreate
            | Self::SessionUpdate
            | Self::SessionArchive
            | Self::SessionUnarchive
            | Self::SessionDelete
            | Self::SessionFork
            | Self::SessionCompact
            | Self::SessionBudgetSet
            | Self::CaptureStart
            | Self::CaptureStop
            | Self::CaptureList
            | Self::CaptureRead
            | Self::SessionRevert
            | Self::SessionUnrevert
            | Self::MessageSend
            | Self::MessageDequeue
            | Self::MessageRetry
            | Self::MessageEdit
            | Self::RunCancel
            | Self::RunResume
            | Self::TypingStart
            | Self::TypingStop => Scope::SessionsWrite,
            Self::ApprovalList | Self::ApprovalGet | Self::QuestionList => Scope::ApprovalsRead,
            Self::ToolApprove | Self::ToolReject | Self::QuestionAnswer | Self::QuestionReject => {
                Scope::ApprovalsWrite
            }
            Self::AgentList
            | Self::AgentGet
            | Self::ToolList
            | Self::ModelList
            | Self::PermissionList
            | Self::PermissionExplain
            | Self::McpList
            | Self::McpStatusGet => Scope::AgentsRead,
            Self::AgentCreate
            | Self::AgentUpdate
            | Self::AgentDelete
            | Self::ToolCreate
            | Self::ToolUpdate
            | Self::ToolDelete
            | Self::ToolTest
            | Self::PermissionCreate
            | Self::PermissionUpdate
            | Self::PermissionDelete
            | Self::McpCreate
            | Self::McpUpdate
            | Self::McpDelete
            | Self::McpAuthorize => Scope::AgentsWrite,
            Self::DownloadBegin
            | Self::DownloadCancel
            | Self::FileRead
            | Self::FileList
            | Self::FileStat
            | Self::FileSearch
            | Self::FileVersions
            | Self::FileDiff
            | Self::FileLocks
            | Self::SnapshotList
            | Self::SnapshotDiff
            | Self::GitStatus
            | Self::GitDiff
            | Self::GitLog
            | Self::GitBranches => Scope::FilesRead,
            Self::UploadBegin
            | Self::UploadCommit
            | Self::UploadCancel
            | Self::FileWrite
            | Self::FileUpload
            | Self::FileEdit
            | Self::FileMove
            | Self::FileDelete
            | Self::FileRestore
            | Self::FileLockTake
            | Self::FileUnlock
            | Self::SnapshotCreate
            | Self::SnapshotRestore
            | Self::GitSwitch
            | Self::GitCommit
            | Self::GitFetch
            | Self::GitPull
            | Self::GitPush => Scope::FilesWrite,
            Self::UserBudgetGet
            | Self::ServerUsageGet
            | Self::ActorList
            | Self::ActorGet
            | Self::SupervisionList
            | Self::ServerBackupList
            | Self::ServerPermissionList
            | Self::ServerCredentialList
            | Self::LogGet
            | Self::UserList
            | Self::UserRead
            | Self::UserDataRead
            | Self::ServerInvitationList
            | Self::SettingsGet
            | Self::AuditList
            | Self::AuditExport => Scope::AdminRead,
            Self::MetricsRead => Scope::MetricsRead,
            Self::UserBudgetSet
            | Self::ModelSet
            | Self::ModelReset
            | Self::ActorRestart
            | Self::ActorStop
            | Self::ServerBackupCreate
            | Self::KeysRotate
            | Self::UserManage
            | Self::UserCreate
            | Self::UserLogout
            | Self::UserPasswordReset
            | Self::UserRemove
            | Self::ServerInvitationCreate
            | Self::ServerInvitationRevoke
            | Self::SettingsUpdate
            | Self::ServerCredentialCreate
            | Self::ServerCredentialDelete
            | Self::ServerPermissionCreate
            | Self::ServerPermissionUpdate
            | Self::ServerPermissionDelete
            | Self::LogSet => Scope::AdminWrite,
        };
        KeyNeeds::Scope(scope)
    }
}
