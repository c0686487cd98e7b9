//! People and the ways into the server: accounts, logins, API keys, invitations, settings of the server.
//!
//! Bodies that touch rights refuse fields that they do not know.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{
    AuditRecord, AuthSessionId, Identity, InvitationId, KeyId, ProjectId, ProjectPayload,
    ProviderCredential, Role, Scope, User, UserId,
};

/// A field that is absent, null or a value: null takes away what is there.
#[expect(clippy::option_option, reason = "three cases: leave it, take it away, set it")]
fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Who may create an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RegistrationMode {
    /// Anybody.
    Open,
    /// Who was invited.
    Invite,
    /// Nobody; administrators make accounts.
    Closed,
}

/// Who may create projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ProjectCreation {
    /// Every user.
    Everybody,
    /// Administrators of the server.
    Admins,
}

/// Where an invitation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum InvitationState {
    /// It can be accepted.
    Pending,
    /// Somebody accepted it.
    Accepted,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
}

// Logins and accounts.
payloads! {
    /// A login of a user on one device: the family of refresh tokens that came from it.
    Login {
        /// The login.
        id: AuthSessionId,
        /// Milliseconds since 1970 UTC.
        created_at: i64,
        /// When a refresh token of it was exchanged last, in milliseconds since 1970 UTC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_used_at: Option<i64>,
        /// When its newest refresh token ends, in milliseconds since 1970 UTC.
        expires_at: i64,
        /// The address that it began from.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ip: Option<String>,
        /// What the client called itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent: Option<String>,
        /// Whether the request was made with it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        current: bool,
    }
    /// Lists the caller's logins.
    LoginList {}
    /// The logins that have not ended.
    LoginPage {
        /// Newest first.
        logins: Vec<Login>,
    }
    /// Ends a login of the caller.
    #[serde(deny_unknown_fields)]
    LoginRevoke {
        /// The login.
        auth_session_id: AuthSessionId,
    }
    /// Sets a new password. Every login ends, this one too; the answer is a new one.
    #[serde(deny_unknown_fields)]
    PasswordChange {
        /// As it is now. An account without a password needs a login that is not older than five minutes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        current_password: Option<String>,
        /// 8 to 1024 bytes, used as typed.
        new_password: String,
    }
    /// Asks for a link by e-mail that sets a new password. The answer is the same for every address.
    #[serde(deny_unknown_fields)]
    PasswordForgot {
        /// As registered, in any case.
        email: String,
    }
    /// Sets a new password with the secret of a link, once. Every login of the user ends.
    #[serde(deny_unknown_fields)]
    PasswordReset {
        /// The secret of the link.
        token: String,
        /// 8 to 1024 bytes, used as typed.
        new_password: String,
    }
    /// Changes the caller's account; what is absent stays.
    #[serde(deny_unknown_fields)]
    UserUpdate {
        /// What others see; unique.
        #[serde(default)]
        username: Option<String>,
        /// Where mail reaches the user; unique. Needs `currentPassword`; an account without a password needs a
        /// login that is not older than five minutes.
        #[serde(default)]
        email: Option<String>,
        /// As it is now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        current_password: Option<String>,
        /// An `https` URL of at most 2048 bytes; null takes it away.
        #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
        avatar_url: Option<Option<String>>,
        /// Replaces all preferences; at most 16 KiB of JSON.
        #[serde(default)]
        preferences: Option<Map<String, Value>>,
    }
    /// Deletes the caller's account. What they wrote in projects stays there, under an id that names nobody.
    #[serde(deny_unknown_fields)]
    UserDelete {
        /// As it is now. An account without a password needs a login that is not older than five minutes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        current_password: Option<String>,
    }
    /// Reads all that the server keeps of the caller besides the content of projects.
    UserExport {}
    /// What the server keeps of a person besides the content of projects.
    PersonData {
        /// The account.
        user: User,
        /// The logins that have not ended.
        logins: Vec<Login>,
        /// The keys, without their secrets.
        api_keys: Vec<ApiKey>,
        /// Who they are at other providers of logins.
        identities: Vec<Identity>,
        /// Their keys for model providers, without the keys.
        credentials: Vec<ProviderCredential>,
        /// The projects that they own or are a member of.
        projects: Vec<Membership>,
        /// What the audit holds of them: the newest 1,000 records.
        audit: Vec<AuditRecord>,
    }
    /// A place in a project.
    Membership {
        /// The project.
        project_id: ProjectId,
        /// Its name.
        name: String,
        /// What they may do.
        role: Role,
        /// Milliseconds since 1970 UTC.
        joined_at: i64,
    }
}

// Accounts, for administrators of the server.
payloads! {
    /// Lists the accounts of the server, oldest first.
    UserList {
        /// At most 200; 50 when absent.
        #[serde(default)]
        limit: Option<u32>,
        /// `nextCursor` of the page before.
        #[serde(default)]
        cursor: Option<String>,
        /// Only the account with this address.
        #[serde(default)]
        email: Option<String>,
    }
    /// A page of accounts.
    UserPage {
        /// Oldest first.
        users: Vec<User>,
        /// For the next page.
        next_cursor: Option<String>,
        /// Whether there are more.
        has_more: bool,
    }
    /// Reads an account.
    UserRead {
        /// The user.
        user_id: UserId,
    }
    /// Creates an account, whatever the mode of registration.
    #[serde(deny_unknown_fields)]
    UserCreate {
        /// Where mail reaches the user; unique.
        email: String,
        /// What others see; unique.
        username: String,
        /// 8 to 1024 bytes; without one the user sets it with a link (`admin.user.passwordReset`).
        #[serde(default)]
        password: Option<String>,
        /// Whether they may manage the server.
        #[serde(default)]
        is_admin: bool,
    }
    /// Ends every login of a user at once.
    #[serde(deny_unknown_fields)]
    UserLogout {
        /// The user.
        user_id: UserId,
    }
    /// Makes a link with which a user sets a new password, once.
    #[serde(deny_unknown_fields)]
    UserPasswordReset {
        /// The user.
        user_id: UserId,
    }
    /// What sets a new password, shown this once.
    ResetGrant {
        /// For `auth.password.reset`; a secret.
        token: String,
        /// The link with it, where the server knows how browsers reach it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Milliseconds since 1970 UTC.
        expires_at: i64,
    }
    /// Deletes an account.
    #[serde(deny_unknown_fields)]
    UserRemove {
        /// The user.
        user_id: UserId,
    }
    /// Reads all that the server keeps of a user besides the content of projects.
    UserDataRead {
        /// The user.
        user_id: UserId,
    }
}

// API keys.
payloads! {
    /// A key for programs, without its secret.
    ApiKey {
        /// The key's id.
        id: KeyId,
        /// What its owner calls it.
        name: String,
        /// Its first and last characters, with dots between.
        hint: String,
        /// What it may be used for.
        scopes: Vec<Scope>,
        /// The only project that it is good for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project_id: Option<ProjectId>,
        /// Milliseconds since 1970 UTC.
        created_at: i64,
        /// Milliseconds since 1970 UTC; absent for no end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<i64>,
        /// Milliseconds since 1970 UTC, up to a minute old.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        last_used_at: Option<i64>,
    }
    /// Makes an API key of the caller.
    #[serde(deny_unknown_fields)]
    KeyCreate {
        /// 1 to 200 bytes.
        name: String,
        /// What it may be used for; everything but administration of the server when absent.
        #[serde(default)]
        scopes: Option<Vec<Scope>>,
        /// The only project that it is good for.
        #[serde(default)]
        project_id: Option<ProjectId>,
        /// Milliseconds since 1970 UTC, in the future; absent for no end.
        #[serde(default)]
        expires_at: Option<i64>,
    }
    /// A new key.
    KeyGrant {
        /// The secret, shown this once.
        key: String,
        /// What is known of it afterwards.
        #[serde(flatten)]
        api_key: ApiKey,
    }
    /// Lists the caller's API keys.
    KeyList {}
    /// The keys that were not revoked.
    KeyPage {
        /// Newest first.
        keys: Vec<ApiKey>,
    }
    /// Ends an API key of the caller.
    #[serde(deny_unknown_fields)]
    KeyRevoke {
        /// The key.
        key_id: KeyId,
    }
}

// Invitations, ownership and leaving.
payloads! {
    /// An invitation, without its secret.
    Invitation {
        /// The invitation.
        id: InvitationId,
        /// The project; absent for the server alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project_id: Option<ProjectId>,
        /// The role in the project.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        role: Option<Role>,
        /// The only address that may accept it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        email: Option<String>,
        /// Where it stands.
        state: InvitationState,
        /// Who invites.
        created_by: UserId,
        /// Milliseconds since 1970 UTC.
        created_at: i64,
        /// Milliseconds since 1970 UTC.
        expires_at: i64,
        /// Who accepted it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        accepted_by: Option<UserId>,
    }
    /// Invites somebody to the project.
    #[serde(deny_unknown_fields)]
    InvitationCreate {
        /// Not `owner`.
        role: Role,
        /// The only address that may accept it; whoever has the link when absent.
        #[serde(default)]
        email: Option<String>,
        /// How long it is good, in hours, 1 to 720; 168 when absent.
        #[serde(default)]
        expires_in_hours: Option<u32>,
    }
    /// Invites somebody to the server.
    #[serde(deny_unknown_fields)]
    ServerInvitationCreate {
        /// The only address that may accept it; whoever has the link when absent.
        #[serde(default)]
        email: Option<String>,
        /// How long it is good, in hours, 1 to 720; 168 when absent.
        #[serde(default)]
        expires_in_hours: Option<u32>,
    }
    /// A new invitation.
    InvitationGrant {
        /// The invitation.
        invitation: Invitation,
        /// For `invitation.accept` and `auth.register`, shown this once.
        token: String,
        /// The link with it, where the server knows how browsers reach it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// Whether it is on its way by e-mail.
        mailed: bool,
    }
    /// Lists the invitations to the project.
    InvitationList {}
    /// Lists the invitations to the server alone.
    ServerInvitationList {}
    /// Invitations, the newest 200.
    InvitationPage {
        /// Newest first.
        invitations: Vec<Invitation>,
    }
    /// Takes an invitation to the project back.
    #[serde(deny_unknown_fields)]
    InvitationRevoke {
        /// The invitation.
        invitation_id: InvitationId,
    }
    /// Takes an invitation to the server back.
    #[serde(deny_unknown_fields)]
    ServerInvitationRevoke {
        /// The invitation.
        invitation_id: InvitationId,
    }
    /// Accepts an invitation to a project.
    #[serde(deny_unknown_fields)]
    InvitationAccept {
        /// The secret of the link.
        token: String,
    }
    /// Gives the project to another member; its owner becomes an administrator of it.
    #[serde(deny_unknown_fields)]
    ProjectTransfer {
        /// A member of the project.
        user_id: UserId,
    }
    /// Leaves the project.
    ProjectLeave {}
    /// Reads the settings of the project.
    ProjectSettingsGet {}
    /// Changes settings of the project (RFC 7396): null takes a setting away.
    ProjectSettingsUpdate {
        /// The settings to change.
        settings: Map<String, Value>,
    }
    /// The settings of a project.
    ProjectSettings {
        /// All of them.
        settings: Map<String, Value>,
    }
}

/// What an invitation led to.
pub type InvitationAccepted = ProjectPayload;

/// That the server begins no runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Maintenance {
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

// Settings of the server.
payloads! {
    /// Reads the settings of the server.
    SettingsGet {}
    /// Changes settings of the server; what is absent stays, null goes back to the configuration.
    #[serde(deny_unknown_fields)]
    SettingsUpdate {
        /// Who may create an account.
        #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
        registration: Option<Option<RegistrationMode>>,
        /// Who may create projects.
        #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
        project_creation: Option<Option<ProjectCreation>>,
        /// Whether users may make API keys.
        #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
        api_keys: Option<Option<bool>>,
        /// Whether the server is in maintenance: it begins no runs then, and those that work go on.
        #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
        maintenance: Option<Option<Maintenance>>,
    }
    /// The settings of the server that can change while it runs, as they count now.
    ServerSettings {
        /// Who may create an account.
        registration: RegistrationMode,
        /// Who may create projects.
        project_creation: ProjectCreation,
        /// Whether users may make API keys.
        api_keys: bool,
        /// There while the server is in maintenance.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maintenance: Option<Maintenance>,
        /// Names of those that an administrator chose, in place of the configuration.
        chosen: Vec<String>,
    }
}
