//! The table of operations: one row each for name, types, required right and REST route.
//!
//! The dispatcher, the gate, the REST routes, the documents and the access test are all made
//! from these rows, so none of them can forget an operation.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

#[cfg_attr(
    not(test),
    expect(clippy::wildcard_imports, reason = "the table names nearly every payload")
)]
use crate::*;

/// What a caller needs in order to run an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Nothing: the request itself carries the proof.
    Public,
    /// To be somebody. What the answer holds is their own.
    User,
    /// At least this role in the project that the request names.
    Project(Role),
    /// To be an administrator of the server.
    Admin,
}

/// Ways to reach an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// WebSocket, `POST /v1/commands` and its REST route.
    Any,
    /// Its REST route alone.
    Rest,
    /// WebSocket alone: it is about the socket.
    Socket,
}

impl Transport {
    /// What it is called in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Rest => "rest",
            Self::Socket => "socket",
        }
    }
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of RFC 9110 and RFC 5789")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// The method's name, upper case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// What the `data` of a REST answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data {
    /// The whole response.
    Whole,
    /// One field of the response.
    Field(&'static str),
    /// One field of the response; its other fields are `meta`.
    List(&'static str),
    /// None: the body of the answer is bytes of this media type.
    Bytes(&'static str),
    /// None: the body of the answer is the field `content` of the response, its type the field `mimeType`.
    Document,
    /// None: the answer has no body and sends a browser on, to the field `url` of the response.
    Redirect,
    /// One field of the response; the body of the request is the bytes of a file, and every field of
    /// the request stands in path or query.
    Upload(&'static str),
    /// One field of the response; the body of the request is a form with files (RFC 7578).
    Form(&'static str),
}

/// How the text of a query parameter is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryKind {
    /// As it is.
    Text,
    /// A decimal integer from 0 to 2^64 - 1.
    Integer,
    /// `true` or `false`.
    Boolean,
}

/// A query parameter: its name, equal to the field of the request, and how it is read.
pub type QueryParam = (&'static str, QueryKind);

/// The REST route of an operation. Names in braces are fields of the request, but for `projectId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestRoute {
    /// The method.
    pub method: Method,
    /// The path template. `{path}` stands for one or more segments, other names for one.
    pub path: &'static str,
    /// Fields of the request that stand in the query; the others stand in a JSON body.
    pub query: &'static [QueryParam],
    /// The status of a success.
    pub status: u16,
    /// What the `data` of the answer is.
    pub data: Data,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct OperationSpec {
    /// On the wire.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// What a caller needs.
    pub right: Right,
    /// How it can be reached.
    pub transport: Transport,
    /// Its REST route.
    pub rest: Option<RestRoute>,
    /// JSON Schema of the request.
    pub request_schema: fn(&mut SchemaGenerator) -> Schema,
    /// JSON Schema of the response.
    pub response_schema: fn(&mut SchemaGenerator) -> Schema,
}

/// A request that knows its operation and its response.
pub trait Request: Serialize + DeserializeOwned {
    /// What the operation answers.
    type Response: Serialize + DeserializeOwned;
    /// The operation.
    const OPERATION: Operation;
}

const fn rest(method: Method, path: &'static str, status: u16, data: Data) -> RestRoute {
    RestRoute { method, path, query: &[], status, data }
}

const fn query(
    method: Method,
    path: &'static str,
    data: Data,
    query: &'static [QueryParam],
) -> RestRoute {
    RestRoute { method, path, query, status: 200, data }
}

macro_rules! operations {
    ($($request:ident = $name:literal -> $response:ty, $right:expr, $transport:ident, $rest:expr, $summary:literal;)*) => {
        /// Names an operation.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Operation { $(#[doc = $summary] $request,)* }

        impl Operation {
            /// Every operation, in the order of the documentation.
            pub const ALL: &[Self] = &[$(Self::$request,)*];

            /// Its row of the table.
            pub fn spec(self) -> &'static OperationSpec {
                match self {
                    $(Self::$request => {
 const SPEC: OperationSpec = OperationSpec {
                        name: $name,
                        summary: $summary,
                        right: $right,
                        transport: Transport::$transport,
                        rest: $rest,
                        request_schema: <$request as JsonSchema>::json_schema,
                        response_schema: <$response as JsonSchema>::json_schema,
                    };
 &SPEC
 },)*
                }
            }

            /// The operation of that name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$request),)* _ => None }
            }
        }

        /// A decoded request of any operation.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Command { $(#[doc = $summary] $request($request),)* }

        impl Command {
            /// Which operation it is.
            pub fn operation(&self) -> Operation {
                match self { $(Self::$request(_) => Operation::$request,)* }
            }

            /// The request as JSON.
            pub fn to_value(&self) -> Value {
                match self { $(Self::$request(request) => serde_json::json!(request),)* }
            }

            /// Decodes the payload of a request.
            ///
            /// # Errors
            /// `INVALID_REQUEST` with reason `invalid_payload`, naming what is wrong.
            pub fn decode(operation: Operation, payload: Value) -> Result<Self, ApiError> {
                let payload = if payload.is_null() { Value::Object(Map::new()) } else { payload };
                let decoded = match operation {
                    $(Operation::$request => serde_json::from_value(payload).map(Self::$request),)*
                };
                decoded.map_err(|e| {
                    ApiError::invalid(format!("payload of `{}`: {e}", operation.name()))
                        .reason("invalid_payload")
                })
            }
        }

        $(impl Request for $request {
            type Response = $response;
            const OPERATION: Operation = Operation::$request;
        })*
    };
}

use Data::{Bytes, Document, Field, Form, List, Redirect, Upload, Whole};
use Method::{Delete, Get, Patch, Post, Put};
use QueryKind::{Boolean, Integer, Text};
use Role::{Admin, Member as MemberRole, Owner, Viewer};

operations! {
    AuthSetup = "auth.setup" -> AuthGrant, Right::Public, Rest, Some(rest(Post, "/v1/auth/setup", 201, Whole)), "Creates the first administrator with the setup token.";
    AuthRegister = "auth.register" -> AuthGrant, Right::Public, Rest, Some(rest(Post, "/v1/auth/register", 201, Whole)), "Creates an account where registration is open.";
    AuthLogin = "auth.login" -> AuthGrant, Right::Public, Rest, Some(rest(Post, "/v1/auth/login", 200, Whole)), "Begins an authentication session.";
    AuthRotate = "auth.rotate" -> AuthGrant, Right::Public, Rest, Some(rest(Post, "/v1/auth/refresh", 200, Whole)), "Exchanges a refresh token for a new pair of tokens.";
    AuthLogout = "auth.logout" -> Done, Right::User, Rest, Some(rest(Post, "/v1/auth/logout", 200, Whole)), "Ends the caller's authentication session.";
    AuthTicket = "auth.ticket" -> TicketGrant, Right::User, Rest, Some(rest(Post, "/v1/auth/tickets", 201, Whole)), "Makes a ticket for the URL of a WebSocket or of an event stream.";
    LoginList = "auth.session.list" -> LoginPage, Right::User, Rest, Some(rest(Get, "/v1/auth/sessions", 200, List("logins"))), "Lists the caller's logins, newest first.";
    LoginRevoke = "auth.session.revoke" -> Done, Right::User, Rest, Some(rest(Delete, "/v1/auth/sessions/{authSessionId}", 200, Whole)), "Ends a login of the caller.";
    PasswordChange = "auth.password.change" -> AuthGrant, Right::User, Rest, Some(rest(Put, "/v1/auth/password", 200, Whole)), "Sets a new password, ends every login and begins another one.";
    PasswordForgot = "auth.password.forgot" -> Done, Right::Public, Rest, Some(rest(Post, "/v1/auth/password/forgot", 202, Whole)), "Sends a link by e-mail that sets a new password.";
    PasswordReset = "auth.password.reset" -> Done, Right::Public, Rest, Some(rest(Post, "/v1/auth/password/reset", 200, Whole)), "Sets a new password with the secret of a link, once.";
    OauthList = "auth.oauth.list" -> OauthProviderPage, Right::Public, Rest, Some(rest(Get, "/v1/auth/oauth", 200, List("providers"))), "Lists the providers at which people may log in.";
    OauthStart = "auth.oauth.start" -> OauthStarted, Right::Public, Rest, Some(RestRoute { status: 303, ..query(Get, "/v1/auth/oauth/{provider}/start", Redirect, &[("redirect", Text), ("codeChallenge", Text), ("codeChallengeMethod", Text), ("invitation", Text), ("link", Text)]) }), "Sends a browser to a provider to log in there.";
    OauthCallback = "auth.oauth.callback" -> OauthReturned, Right::Public, Rest, Some(query(Get, "/v1/auth/oauth/{provider}/callback", Field("grant"), &[("state", Text), ("code", Text), ("error", Text), ("iss", Text)])), "Finishes a login in the browser that comes back from a provider, or sends it on.";
    OauthRedeem = "auth.oauth.redeem" -> AuthGrant, Right::Public, Rest, Some(rest(Post, "/v1/auth/oauth/token", 200, Whole)), "Begins an authentication session with the code that a browser brought from a login.";
    KeyCreate = "key.create" -> KeyGrant, Right::User, Rest, Some(rest(Post, "/v1/api-keys", 201, Whole)), "Makes an API key of the caller, which is shown this once.";
    KeyList = "key.list" -> KeyPage, Right::User, Rest, Some(rest(Get, "/v1/api-keys", 200, List("keys"))), "Lists the caller's API keys, newest first.";
    KeyRevoke = "key.revoke" -> Done, Right::User, Rest, Some(rest(Delete, "/v1/api-keys/{keyId}", 200, Whole)), "Ends an API key of the caller.";
    CredentialCreate = "credential.create" -> CredentialPayload, Right::User, Any, Some(rest(Post, "/v1/credentials", 201, Field("credential"))), "Sets the caller's key for a model provider, in place of the one before.";
    CredentialList = "credential.list" -> CredentialPage, Right::User, Any, Some(rest(Get, "/v1/credentials", 200, List("credentials"))), "Lists the caller's keys for model providers, without the keys.";
    CredentialDelete = "credential.delete" -> Done, Right::User, Any, Some(rest(Delete, "/v1/credentials/{credentialId}", 200, Whole)), "Takes a key of the caller for a model provider away.";
    UserGet = "user.get" -> UserPayload, Right::User, Any, Some(rest(Get, "/v1/me", 200, Field("user"))), "Reads the caller's own account.";
    UserUpdate = "user.update" -> UserPayload, Right::User, Any, Some(rest(Patch, "/v1/me", 200, Field("user"))), "Changes name, address, picture or preferences of the caller's account.";
    UserDelete = "user.delete" -> Done, Right::User, Rest, Some(rest(Delete, "/v1/me", 200, Whole)), "Deletes the caller's account.";
    UserExport = "user.export" -> PersonData, Right::User, Rest, Some(rest(Get, "/v1/me/export", 200, Whole)), "Reads all that the server keeps of the caller besides the content of projects.";
    IdentityList = "identity.list" -> IdentityPage, Right::User, Rest, Some(rest(Get, "/v1/me/identities", 200, List("identities"))), "Lists who the caller is at other providers.";
    IdentityLink = "identity.link" -> IdentityLinkStarted, Right::User, Rest, Some(rest(Post, "/v1/me/identities/link", 200, Whole)), "Prepares a link with who the caller is at another provider, for a browser to open.";
    IdentityCreate = "identity.create" -> IdentityPayload, Right::User, Rest, Some(rest(Post, "/v1/me/identities", 201, Field("identity"))), "Links the caller's account with who they turned out to be at another provider.";
    IdentityDelete = "identity.delete" -> Done, Right::User, Rest, Some(rest(Delete, "/v1/me/identities/{identityId}", 200, Whole)), "Takes away who the caller is at another provider.";

    ProjectCreate = "project.create" -> ProjectPayload, Right::User, Any, Some(rest(Post, "/v1/projects", 201, Field("project"))), "Creates a project that the caller owns.";
    ProjectList = "project.list" -> ProjectPage, Right::User, Any, Some(query(Get, "/v1/projects", List("projects"), &[("limit", Integer), ("cursor", Text), ("includeArchived", Boolean)])), "Lists the caller's projects, newest first.";
    ProjectGet = "project.get" -> ProjectPayload, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}", 200, Field("project"))), "Reads a project.";
    ProjectUpdate = "project.update" -> ProjectPayload, Right::Project(Admin), Any, Some(rest(Patch, "/v1/projects/{projectId}", 200, Field("project"))), "Changes name, description or settings of a project.";
    ProjectSettingsGet = "project.settings.get" -> ProjectSettings, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/settings", 200, Field("settings"))), "Reads the settings of a project.";
    ProjectSettingsUpdate = "project.settings.update" -> ProjectSettings, Right::Project(Admin), Any, Some(rest(Patch, "/v1/projects/{projectId}/settings", 200, Field("settings"))), "Changes settings of a project and leaves the others.";
    ProjectTransfer = "project.transfer" -> ProjectPayload, Right::Project(Owner), Any, Some(rest(Post, "/v1/projects/{projectId}/transfer", 200, Field("project"))), "Gives a project to another member.";
    ProjectArchive = "project.archive" -> ProjectPayload, Right::Project(Owner), Any, Some(rest(Post, "/v1/projects/{projectId}/archive", 200, Field("project"))), "Makes a project read-only.";
    ProjectUnarchive = "project.unarchive" -> ProjectPayload, Right::Project(Owner), Any, Some(rest(Post, "/v1/projects/{projectId}/unarchive", 200, Field("project"))), "Undoes an archive.";
    ProjectDelete = "project.delete" -> Done, Right::Project(Owner), Any, Some(rest(Delete, "/v1/projects/{projectId}", 200, Whole)), "Deletes a project with everything in it.";

    ProjectBackup = "project.backup" -> BackupPayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/backup", 201, Field("backup"))), "Writes an archive of a project to the server's disk.";
    BackupList = "project.backup.list" -> BackupPage, Right::Project(Admin), Any, Some(rest(Get, "/v1/projects/{projectId}/backups", 200, List("backups"))), "Lists the backups of a project, newest first.";
    BackupRead = "project.backup.read" -> BackupPayload, Right::Project(Admin), Rest, Some(rest(Get, "/v1/projects/{projectId}/backups/{backupId}/content", 200, Bytes("application/zstd"))), "Downloads a backup.";
    BackupDelete = "project.backup.delete" -> Done, Right::Project(Owner), Any, Some(rest(Delete, "/v1/projects/{projectId}/backups/{backupId}", 200, Whole)), "Deletes a backup.";
    ProjectRestore = "project.restore" -> RestorePayload, Right::Project(Owner), Any, Some(rest(Post, "/v1/projects/{projectId}/restore", 200, Whole)), "Puts a project back to a backup, after a backup of what it is now.";
    ProjectExport = "project.export" -> BackupPayload, Right::Project(Owner), Any, Some(rest(Post, "/v1/projects/{projectId}/export", 201, Field("backup"))), "Writes an archive of a project that is kept for a day, to be downloaded.";
    ProjectImport = "project.import" -> ProjectPayload, Right::User, Rest, Some(RestRoute { method: Post, path: "/v1/projects/import", query: &[("id", Text), ("members", Text)], status: 201, data: Upload("project") }), "Creates a project that the caller owns from an archive.";

    MemberList = "project.member.list" -> MemberPage, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/members", 200, List("members"))), "Lists the members of a project.";
    MemberAdd = "project.member.add" -> MemberPayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/members", 201, Field("member"))), "Adds a user to a project.";
    MemberUpdate = "project.member.update" -> MemberPayload, Right::Project(Admin), Any, Some(rest(Patch, "/v1/projects/{projectId}/members/{userId}", 200, Field("member"))), "Changes a member's role.";
    MemberRemove = "project.member.remove" -> Done, Right::Project(Admin), Any, Some(rest(Delete, "/v1/projects/{projectId}/members/{userId}", 200, Whole)), "Takes a member out of a project.";
    ProjectLeave = "project.leave" -> Done, Right::Project(Viewer), Any, Some(rest(Post, "/v1/projects/{projectId}/leave", 200, Whole)), "Leaves a project.";
    InvitationCreate = "invitation.create" -> InvitationGrant, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/invitations", 201, Whole)), "Invites somebody to a project, by a link that is shown this once.";
    InvitationList = "invitation.list" -> InvitationPage, Right::Project(Admin), Any, Some(rest(Get, "/v1/projects/{projectId}/invitations", 200, List("invitations"))), "Lists the invitations to a project, newest first.";
    InvitationRevoke = "invitation.revoke" -> Done, Right::Project(Admin), Any, Some(rest(Delete, "/v1/projects/{projectId}/invitations/{invitationId}", 200, Whole)), "Takes an invitation to a project back.";
    InvitationAccept = "invitation.accept" -> InvitationAccepted, Right::User, Any, Some(rest(Post, "/v1/invitations/accept", 200, Field("project"))), "Accepts an invitation to a project.";

    SessionCreate = "session.create" -> SessionPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions", 201, Field("session"))), "Creates a session.";
    SessionList = "session.list" -> SessionPage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/sessions", List("sessions"), &[("limit", Integer), ("cursor", Text), ("includeArchived", Boolean), ("parentId", Text)])), "Lists sessions, newest first.";
    SessionGet = "session.get" -> SessionSnapshot, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/sessions/{sessionId}", Whole, &[("limit", Integer), ("before", Text)])), "Reads a session with all that a client needs to follow it.";
    SessionUpdate = "session.update" -> SessionPayload, Right::Project(MemberRole), Any, Some(rest(Patch, "/v1/projects/{projectId}/sessions/{sessionId}", 200, Field("session"))), "Changes title, agent or model of a session.";
    SessionBudgetSet = "session.budget.set" -> SessionPayload, Right::Project(MemberRole), Any, Some(rest(Put, "/v1/projects/{projectId}/sessions/{sessionId}/budget", 200, Field("session"))), "Sets the most that a session may use with its sub-agents.";
    SessionArchive = "session.archive" -> SessionPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/archive", 200, Field("session"))), "Makes a session read-only.";
    SessionUnarchive = "session.unarchive" -> SessionPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/unarchive", 200, Field("session"))), "Brings an archived or softly deleted session back.";
    SessionCompact = "session.compact" -> RunPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/compact", 202, Field("run"))), "Has a run replace the conversation so far by a summary, as far as models are concerned.";
    SessionDelete = "session.delete" -> Done, Right::Project(MemberRole), Any, Some(query(Delete, "/v1/projects/{projectId}/sessions/{sessionId}", Whole, &[("permanent", Boolean)])), "Deletes a session, softly unless told otherwise.";
    SessionFork = "session.fork" -> SessionPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/fork", 201, Field("session"))), "Begins another session with what the model knows of this one, up to a message.";
    SessionRevert = "session.revert" -> RevertOutcome, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/revert", 200, Whole)), "Undoes a turn and all that follows it, with what it made of the files; or says what that would do.";
    SessionUnrevert = "session.unrevert" -> RevertOutcome, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/unrevert", 200, Whole)), "Undoes the last revert of a session, as long as nothing was said since.";
    SessionExport = "session.export" -> SessionDocument, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/sessions/{sessionId}/export", Document, &[("format", Text)])), "Reads a whole conversation as one document.";

    SessionRead = "session.read" -> UnreadPayload, Right::Project(Viewer), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/read", 200, Field("unread"))), "Says how far the caller has read a session, which nobody else is told.";
    CaptureStart = "session.capture.start" -> CapturePayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/capture", 200, Field("capture"))), "Begins to record what a session and its sub-agents ask model providers, or makes it last longer.";
    CaptureStop = "session.capture.stop" -> CapturePayload, Right::Project(Admin), Any, Some(query(Delete, "/v1/projects/{projectId}/sessions/{sessionId}/capture", Field("capture"), &[("discard", Boolean)])), "Ends the recording of a session.";
    CaptureList = "session.capture.list" -> CapturePage, Right::Project(Admin), Any, Some(query(Get, "/v1/projects/{projectId}/sessions/{sessionId}/capture/records", List("records"), &[("limit", Integer), ("cursor", Text)])), "Lists what was recorded of a session and its sub-agents, newest first.";
    CaptureRead = "session.capture.read" -> CapturedExchange, Right::Project(Admin), Rest, Some(rest(Get, "/v1/projects/{projectId}/sessions/{sessionId}/capture/records/{captureId}", 200, Whole)), "Reads one recorded request to a provider with its response.";

    MessageSend = "session.message.send" -> MessageAccepted, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/messages", 202, Whole)), "Sends a message to the agent of a session.";
    MessageDequeue = "session.message.dequeue" -> Done, Right::Project(MemberRole), Any, Some(rest(Delete, "/v1/projects/{projectId}/sessions/{sessionId}/messages/{messageId}", 200, Whole)), "Takes back a message that waits.";
    MessageRetry = "session.message.retry" -> MessageAccepted, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/messages/{messageId}/retry", 202, Whole)), "Asks for another answer to a message; what follows it is superseded.";
    MessageEdit = "session.message.edit" -> MessageAccepted, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/messages/{messageId}/edit", 202, Whole)), "Says something else in place of a message, which is superseded with all that follows it.";
    RunCancel = "session.message.cancel" -> CancelPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/cancel", 200, Whole)), "Ends the active run of a session.";
    RunGet = "run.get" -> RunPayload, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/sessions/{sessionId}/runs/{runId}", 200, Field("run"))), "Reads one run.";
    RunList = "run.list" -> RunPage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/sessions/{sessionId}/runs", List("runs"), &[("limit", Integer), ("cursor", Text)])), "Lists the runs of a session, newest first.";
    RunResume = "run.resume" -> RunPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/runs/{runId}/resume", 200, Field("run"))), "Lets an interrupted run go on from its last complete step.";
    MessageGet = "session.message.get" -> MessagePayload, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/sessions/{sessionId}/messages/{messageId}", 200, Field("message"))), "Reads one message.";
    MessageList = "session.message.list" -> MessagePage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/sessions/{sessionId}/messages", List("messages"), &[("limit", Integer), ("before", Text)])), "Lists messages, the last page first.";
    MessageAttachment = "session.message.attachment" -> ToolOutputPiece, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/sessions/{sessionId}/messages/{messageId}/attachments/{index}", 200, Bytes("*/*"))), "Reads what a file held that went with a message.";
    SessionSearch = "session.search" -> SearchPage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/search", List("hits"), &[("query", Text), ("sessionId", Text), ("limit", Integer), ("cursor", Text)])), "Looks for words in what people and agents said, newest first.";

    AgentCreate = "agent.create" -> AgentPayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/agents", 201, Field("agent"))), "Creates an agent.";
    AgentList = "agent.list" -> AgentPage, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/agents", 200, List("agents"))), "Lists the agents of a project.";
    AgentGet = "agent.get" -> AgentPayload, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/agents/{name}", 200, Field("agent"))), "Reads an agent.";
    AgentUpdate = "agent.update" -> AgentPayload, Right::Project(Admin), Any, Some(rest(Patch, "/v1/projects/{projectId}/agents/{name}", 200, Field("agent"))), "Changes an agent.";
    AgentDelete = "agent.delete" -> Done, Right::Project(Admin), Any, Some(rest(Delete, "/v1/projects/{projectId}/agents/{name}", 200, Whole)), "Deletes an agent.";
    ToolList = "tool.list" -> ToolPage, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/tools", 200, List("tools"))), "Lists the tools of a project: the server's, then its own.";
    ToolCreate = "tool.create" -> ToolPayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/tools", 201, Field("tool"))), "Defines a tool of the project.";
    ToolUpdate = "tool.update" -> ToolPayload, Right::Project(Admin), Any, Some(rest(Patch, "/v1/projects/{projectId}/tools/{toolId}", 200, Field("tool"))), "Changes a tool of the project.";
    ToolDelete = "tool.delete" -> Done, Right::Project(Admin), Any, Some(rest(Delete, "/v1/projects/{projectId}/tools/{toolId}", 200, Whole)), "Deletes a tool of the project.";
    ToolTest = "tool.test" -> ToolTestPayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/tools/{toolId}/test", 200, Whole)), "Runs a tool of the project once, outside of a session.";
    ToolApprove = "tool.approve" -> ApprovalPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/approvals/{toolCallId}/approve", 200, Field("approval"))), "Lets a tool call run that waits for a person.";
    ToolReject = "tool.reject" -> ApprovalPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/approvals/{toolCallId}/reject", 200, Field("approval"))), "Refuses a tool call that waits for a person.";
    ApprovalList = "approval.list" -> ApprovalPage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/approvals", List("approvals"), &[("sessionId", Text), ("state", Text), ("limit", Integer), ("cursor", Text)])), "Lists approvals, newest first; those that wait unless told otherwise.";
    ToolOutput = "tool.output" -> ToolOutputPiece, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/sessions/{sessionId}/calls/{toolCallId}/output", Whole, &[("offset", Integer), ("limit", Integer)])), "Reads what a tool answered besides what the model read at once.";
    ApprovalGet = "approval.get" -> ApprovalPayload, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/sessions/{sessionId}/approvals/{toolCallId}", 200, Field("approval"))), "Reads one approval.";

    QuestionList = "question.list" -> QuestionPage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/questions", List("questions"), &[("sessionId", Text), ("state", Text), ("limit", Integer), ("cursor", Text)])), "Lists what agents asked, newest first; what waits unless told otherwise.";
    QuestionAnswer = "question.answer" -> QuestionPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/questions/{questionId}/answer", 200, Field("question"))), "Answers what an agent asked.";
    QuestionReject = "question.reject" -> QuestionPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/sessions/{sessionId}/questions/{questionId}/reject", 200, Field("question"))), "Refuses to answer what an agent asked.";
    TodoList = "todo.list" -> TodoPage, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/sessions/{sessionId}/todos", 200, List("todos"))), "Reads the to-do list of a session.";

    PermissionList = "permission.list" -> PermissionPage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/permissions", List("rules"), &[("sessionId", Text), ("limit", Integer), ("cursor", Text)])), "Lists the rules about what tools may touch, the most general ones first.";
    ProjectCredentialCreate = "project.credential.create" -> CredentialPayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/credentials", 201, Field("credential"))), "Sets the project's key for a model provider, in place of the one before.";
    ProjectCredentialList = "project.credential.list" -> CredentialPage, Right::Project(Admin), Any, Some(rest(Get, "/v1/projects/{projectId}/credentials", 200, List("credentials"))), "Lists the project's keys for model providers, without the keys.";
    ProjectCredentialDelete = "project.credential.delete" -> Done, Right::Project(Admin), Any, Some(rest(Delete, "/v1/projects/{projectId}/credentials/{credentialId}", 200, Whole)), "Takes a key of the project for a model provider away.";
    PermissionCreate = "permission.create" -> PermissionPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/permissions", 201, Whole)), "Makes a rule for a session, or for the whole project as its administrator.";
    PermissionUpdate = "permission.update" -> PermissionPayload, Right::Project(MemberRole), Any, Some(rest(Patch, "/v1/projects/{projectId}/permissions/{permissionId}", 200, Whole)), "Changes a rule; one of the whole project as its administrator.";
    PermissionDelete = "permission.delete" -> Done, Right::Project(MemberRole), Any, Some(rest(Delete, "/v1/projects/{projectId}/permissions/{permissionId}", 200, Whole)), "Deletes a rule; one of the whole project as its administrator.";
    PermissionExplain = "permission.explain" -> PermissionVerdict, Right::Project(Viewer), Any, Some(rest(Post, "/v1/projects/{projectId}/permissions/explain", 200, Whole)), "Says what would become of a tool call and which rule decides.";

    McpList = "mcp.list" -> McpPage, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/mcp", 200, List("servers"))), "Lists the MCP servers of a project.";
    McpCreate = "mcp.create" -> McpPayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/mcp", 201, Field("server"))), "Configures an MCP server; a program takes a user who may have programs run.";
    McpUpdate = "mcp.update" -> McpPayload, Right::Project(Admin), Any, Some(rest(Patch, "/v1/projects/{projectId}/mcp/{name}", 200, Field("server"))), "Changes an MCP server, or approves what it offers.";
    McpDelete = "mcp.delete" -> Done, Right::Project(Admin), Any, Some(rest(Delete, "/v1/projects/{projectId}/mcp/{name}", 200, Whole)), "Forgets an MCP server.";
    McpAuthorize = "mcp.authorize" -> McpAuthorizePayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/mcp/{name}/authorize", 200, Whole)), "Begins the authorization of an MCP server: answers the URL at which somebody agrees.";
    McpAuthorizeFinish = "mcp.authorize.finish" -> McpAuthorizedPayload, Right::Public, Rest, Some(query(Get, "/v1/mcp/callback", Whole, &[("state", Text), ("code", Text), ("error", Text), ("iss", Text)])), "Finishes what `mcp.authorize` began; a browser comes here from the authorization server.";
    McpStatusGet = "mcp.status" -> McpStatusPayload, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/mcp/{name}/status", 200, Field("status"))), "Says how an MCP server is and what it offers.";

    ModelList = "model.list" -> ModelPage, Right::User, Any, Some(query(Get, "/v1/models", List("models"), &[("providerId", Text), ("limit", Integer), ("cursor", Text)])), "Lists the models that can be asked, with what is known of them.";
    UsageGet = "usage.get" -> UsageReport, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/usage", Whole, &[("sessionId", Text), ("from", Integer), ("to", Integer)])), "Reads what was used in a project, or in a session with its sub-agents.";

    FileList = "file.list" -> FilePage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/files", List("entries"), &[("path", Text), ("depth", Integer), ("ignored", Boolean), ("limit", Integer), ("cursor", Text)])), "Lists what is below a directory, sorted by name.";
    FileStat = "file.stat" -> FilePayload, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/files/stat", Field("file"), &[("path", Text)])), "Reads facts about a file or a directory.";
    FileRead = "file.read" -> FileContent, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/files/content", Bytes("application/octet-stream"), &[("path", Text), ("version", Integer)])), "Reads a file, as it is or as it was.";
    FileWrite = "file.write" -> FilePayload, Right::Project(MemberRole), Any, Some(RestRoute { method: Put, path: "/v1/projects/{projectId}/files/content", query: &[("path", Text), ("version", Integer)], status: 200, data: Upload("file") }), "Writes a file whole.";
    FileUpload = "file.upload" -> UploadedFiles, Right::Project(MemberRole), Rest, Some(rest(Post, "/v1/projects/{projectId}/uploads", 200, Form("files"))), "Writes the files of a form, in a directory and with paths of their own.";
    FileEdit = "file.edit" -> FilePayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/files/edit", 200, Field("file"))), "Replaces a text in a file.";
    FileMove = "file.move" -> FilesChanged, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/files/move", 200, Whole)), "Moves a file, or a directory with all that is below it.";
    FileDelete = "file.delete" -> FilesChanged, Right::Project(MemberRole), Any, Some(query(Delete, "/v1/projects/{projectId}/files", Whole, &[("path", Text), ("recursive", Boolean), ("unversioned", Boolean), ("version", Integer)])), "Deletes a file, or a directory.";
    FileSearch = "file.search" -> FileMatches, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/files/search", List("matches"), &[("query", Text), ("kind", Text), ("path", Text), ("include", Text), ("ignoreCase", Boolean), ("limit", Integer)])), "Looks for files by what they are called or by what stands in them.";
    FileVersions = "file.versions" -> FileVersionPage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/files/versions", List("versions"), &[("path", Text), ("limit", Integer), ("cursor", Text)])), "Lists the versions of a file, newest first.";
    FileDiff = "file.diff" -> FileDifference, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/files/diff", Whole, &[("path", Text), ("from", Integer), ("to", Integer)])), "Compares two versions of a file, or one with what stands on the disk.";
    FileRestore = "file.restore" -> FilePayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/files/restore", 200, Field("file"))), "Puts a file back to an earlier version, which becomes a new one.";
    FileLockTake = "file.lock" -> FileLockPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/files/locks", 200, Field("lock"))), "Takes a lock on a file or on all below a directory, or makes it last longer.";
    FileUnlock = "file.unlock" -> Done, Right::Project(MemberRole), Any, Some(query(Delete, "/v1/projects/{projectId}/files/locks", Whole, &[("path", Text)])), "Gives a lock back.";
    FileLocks = "file.locks" -> FileLockPage, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/files/locks", 200, List("locks"))), "Lists the locks of a project.";
    SnapshotCreate = "snapshot.create" -> SnapshotPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/snapshots", 201, Field("snapshot"))), "Keeps the files as they are now.";
    SnapshotList = "snapshot.list" -> SnapshotPage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/snapshots", List("snapshots"), &[("limit", Integer), ("cursor", Text)])), "Lists snapshots, newest first.";
    SnapshotDiff = "snapshot.diff" -> SnapshotDifference, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/snapshots/{snapshotId}/diff", List("files"), &[("to", Text)])), "Compares a snapshot with another one, or with the files as they are now.";
    SnapshotRestore = "snapshot.restore" -> FilesRestored, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/snapshots/{snapshotId}/restore", 200, Whole)), "Puts all files back to what they were: all of them, or none.";
    RunDiff = "run.diff" -> RunDifference, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/sessions/{sessionId}/runs/{runId}/diff", 200, Whole)), "Compares the files before a run with what it made of them.";

    GitClone = "git.clone" -> ProjectPayload, Right::Project(Admin), Any, Some(rest(Post, "/v1/projects/{projectId}/git/clone", 202, Field("project"))), "Clones a project again whose clone failed.";
    GitCancel = "git.cancel" -> ProjectPayload, Right::Project(Admin), Any, Some(rest(Delete, "/v1/projects/{projectId}/git/clone", 200, Field("project"))), "Gives the clone of a project up.";
    GitCredentialsSet = "git.credentials.set" -> ProjectPayload, Right::Project(Admin), Any, Some(rest(Put, "/v1/projects/{projectId}/git/credentials", 200, Field("project"))), "Sets name and token with which the other side of a repository is asked.";
    GitStatus = "git.status" -> GitStatusInfo, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/git/status", 200, Whole)), "Compares the files with the last commit.";
    GitDiff = "git.diff" -> GitDifference, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/git/diff", Whole, &[("path", Text), ("from", Text), ("to", Text)])), "Compares two commits, or one with the files.";
    GitLog = "git.log" -> GitCommitPage, Right::Project(Viewer), Any, Some(query(Get, "/v1/projects/{projectId}/git/commits", List("commits"), &[("from", Text), ("path", Text), ("limit", Integer), ("cursor", Text)])), "Lists commits, newest first.";
    GitBranches = "git.branches" -> GitBranchPage, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/git/branches", 200, List("branches"))), "Lists branches of both sides.";
    GitSwitch = "git.switch" -> GitHead, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/git/switch", 200, Whole)), "Checks another branch out, or makes one.";
    GitCommit = "git.commit" -> GitCommitPayload, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/git/commits", 201, Field("commit"))), "Commits what differs.";
    GitFetch = "git.fetch" -> GitBranchPage, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/git/fetch", 200, List("branches"))), "Looks at the branches of the other side.";
    GitPull = "git.pull" -> GitHead, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/git/pull", 200, Whole)), "Brings what the other side has into the current branch.";
    GitPush = "git.push" -> GitHead, Right::Project(MemberRole), Any, Some(rest(Post, "/v1/projects/{projectId}/git/push", 200, Whole)), "Sends a branch to the other side.";

    UploadBegin = "upload.begin" -> UploadBegun, Right::Project(MemberRole), Socket, None, "Begins to send a file in chunks, or goes on with one.";
    UploadCommit = "upload.commit" -> FilePayload, Right::Project(MemberRole), Socket, None, "Makes a version of a file that was sent whole.";
    UploadCancel = "upload.cancel" -> Done, Right::Project(MemberRole), Socket, None, "Gives up a file that is being sent, and what came of it.";
    DownloadBegin = "download.begin" -> DownloadBegun, Right::Project(Viewer), Socket, None, "Begins to receive a file in chunks.";
    DownloadCancel = "download.cancel" -> Done, Right::Project(Viewer), Socket, None, "Ends a file that is being received.";
    PresenceUpdate = "presence.update" -> Done, Right::Project(Viewer), Socket, None, "Says which session the user of a socket looks at, and their status.";
    PresenceList = "presence.list" -> PresencePage, Right::Project(Viewer), Any, Some(rest(Get, "/v1/projects/{projectId}/presence", 200, List("users"))), "Lists who is present in a project.";
    TypingStart = "typing.start" -> Done, Right::Project(MemberRole), Socket, None, "Says that the user is writing a message; to be repeated while they do.";
    TypingStop = "typing.stop" -> Done, Right::Project(MemberRole), Socket, None, "Says that the user is not writing any more.";

    ActorList = "admin.actor.list" -> ActorPage, Right::Admin, Rest, Some(query(Get, "/v1/admin/actors", Whole, &[("kind", Text), ("under", Text)])), "Lists the actors that are alive, in the order of their paths.";
    ActorGet = "admin.actor.get" -> ActorDetail, Right::Admin, Rest, Some(rest(Get, "/v1/admin/actors/{path}", 200, Whole)), "Reads one actor with what it says of itself.";
    ActorRestart = "admin.actor.restart" -> Done, Right::Admin, Rest, Some(rest(Post, "/v1/admin/actors/{path}/restart", 200, Whole)), "Starts an actor again with fresh state.";
    ActorStop = "admin.actor.stop" -> Done, Right::Admin, Rest, Some(rest(Post, "/v1/admin/actors/{path}/stop", 200, Whole)), "Ends an actor and those under it.";
    SupervisionList = "admin.supervision.list" -> SupervisionPage, Right::Admin, Rest, Some(query(Get, "/v1/admin/supervision", List("records"), &[("since", Integer), ("kind", Text), ("path", Text), ("limit", Integer)])), "Reads the supervision log, oldest first.";
    ServerBackupCreate = "admin.backup.create" -> ServerBackupPayload, Right::Admin, Rest, Some(rest(Post, "/v1/admin/backup", 201, Field("backup"))), "Writes a backup of the whole server to its disk.";
    ServerBackupList = "admin.backup.list" -> ServerBackupPage, Right::Admin, Rest, Some(rest(Get, "/v1/admin/backup", 200, List("backups"))), "Lists the backups of the whole server, newest first.";
    UserManage = "admin.user.update" -> UserPayload, Right::Admin, Rest, Some(rest(Patch, "/v1/admin/users/{userId}", 200, Field("user"))), "Changes an account: rights, address, name, whether it is closed.";
    UserList = "admin.user.list" -> UserPage, Right::Admin, Rest, Some(query(Get, "/v1/admin/users", List("users"), &[("limit", Integer), ("cursor", Text), ("email", Text)])), "Lists the accounts of the server, oldest first.";
    UserRead = "admin.user.get" -> UserPayload, Right::Admin, Rest, Some(rest(Get, "/v1/admin/users/{userId}", 200, Field("user"))), "Reads an account.";
    UserCreate = "admin.user.create" -> UserPayload, Right::Admin, Rest, Some(rest(Post, "/v1/admin/users", 201, Field("user"))), "Creates an account, whatever the mode of registration.";
    UserLogout = "admin.user.logout" -> Done, Right::Admin, Rest, Some(rest(Post, "/v1/admin/users/{userId}/logout", 200, Whole)), "Ends every login of a user at once.";
    UserPasswordReset = "admin.user.password.reset" -> ResetGrant, Right::Admin, Rest, Some(rest(Post, "/v1/admin/users/{userId}/password-reset", 201, Whole)), "Makes a link with which a user sets a new password, once.";
    UserRemove = "admin.user.delete" -> Done, Right::Admin, Rest, Some(rest(Delete, "/v1/admin/users/{userId}", 200, Whole)), "Deletes an account.";
    UserDataRead = "admin.user.export" -> PersonData, Right::Admin, Rest, Some(rest(Get, "/v1/admin/users/{userId}/export", 200, Whole)), "Reads all that the server keeps of a user besides the content of projects.";
    ServerInvitationCreate = "admin.invitation.create" -> InvitationGrant, Right::Admin, Rest, Some(rest(Post, "/v1/admin/invitations", 201, Whole)), "Invites somebody to the server, by a link that is shown this once.";
    ServerInvitationList = "admin.invitation.list" -> InvitationPage, Right::Admin, Rest, Some(rest(Get, "/v1/admin/invitations", 200, List("invitations"))), "Lists the invitations to the server alone, newest first.";
    ServerInvitationRevoke = "admin.invitation.revoke" -> Done, Right::Admin, Rest, Some(rest(Delete, "/v1/admin/invitations/{invitationId}", 200, Whole)), "Takes an invitation to the server back.";
    SettingsGet = "admin.settings.get" -> ServerSettings, Right::Admin, Rest, Some(rest(Get, "/v1/admin/settings", 200, Whole)), "Reads the settings of the server.";
    SettingsUpdate = "admin.settings.update" -> ServerSettings, Right::Admin, Rest, Some(rest(Patch, "/v1/admin/settings", 200, Whole)), "Changes settings of the server.";
    AuditList = "admin.audit.list" -> AuditPage, Right::Admin, Rest, Some(query(Get, "/v1/admin/audit", List("records"), &[("userId", Text), ("action", Text), ("target", Text), ("projectId", Text), ("from", Integer), ("to", Integer), ("limit", Integer), ("cursor", Text)])), "Reads the audit, newest first.";
    AuditExport = "admin.audit.export" -> AuditPage, Right::Admin, Rest, Some(rest(Get, "/v1/admin/audit/export", 200, Bytes("application/x-ndjson"))), "Reads the whole audit as lines of JSON, oldest first.";
    UserBudgetGet = "admin.budget.get" -> UserBudgetPayload, Right::Admin, Rest, Some(rest(Get, "/v1/admin/users/{userId}/budget", 200, Whole)), "Reads what a user may use in all projects, and what they used.";
    UserBudgetSet = "admin.budget.set" -> UserBudgetPayload, Right::Admin, Rest, Some(rest(Put, "/v1/admin/users/{userId}/budget", 200, Whole)), "Sets what a user may use in all projects.";
    ServerUsageGet = "admin.usage.get" -> UsageReport, Right::Admin, Rest, Some(query(Get, "/v1/admin/usage", Whole, &[("userId", Text), ("from", Integer), ("to", Integer)])), "Reads what users used in all projects.";
    ModelSet = "admin.model.set" -> ModelPayload, Right::Admin, Rest, Some(rest(Put, "/v1/admin/models", 200, Field("model"))), "Sets what is known of a model, in place of what the catalogue says.";
    ModelReset = "admin.model.reset" -> ModelPayload, Right::Admin, Rest, Some(query(Delete, "/v1/admin/models", Field("model"), &[("providerId", Text), ("modelId", Text)])), "Forgets what was set of a model.";
    ServerCredentialCreate = "admin.credential.create" -> CredentialPayload, Right::Admin, Rest, Some(rest(Post, "/v1/admin/credentials", 201, Field("credential"))), "Sets the server's key for a model provider, in place of the one before.";
    ServerCredentialList = "admin.credential.list" -> CredentialPage, Right::Admin, Rest, Some(rest(Get, "/v1/admin/credentials", 200, List("credentials"))), "Lists the server's keys for model providers, without the keys.";
    ServerCredentialDelete = "admin.credential.delete" -> Done, Right::Admin, Rest, Some(rest(Delete, "/v1/admin/credentials/{credentialId}", 200, Whole)), "Takes a key of the server for a model provider away.";
    ServerPermissionList = "admin.permission.list" -> PermissionPage, Right::Admin, Rest, Some(query(Get, "/v1/admin/permissions", List("rules"), &[("limit", Integer), ("cursor", Text)])), "Lists the rules of the server, the oldest first.";
    ServerPermissionCreate = "admin.permission.create" -> PermissionPayload, Right::Admin, Rest, Some(rest(Post, "/v1/admin/permissions", 201, Whole)), "Makes a rule for all projects.";
    ServerPermissionUpdate = "admin.permission.update" -> PermissionPayload, Right::Admin, Rest, Some(rest(Patch, "/v1/admin/permissions/{permissionId}", 200, Whole)), "Changes a rule of the server.";
    ServerPermissionDelete = "admin.permission.delete" -> Done, Right::Admin, Rest, Some(rest(Delete, "/v1/admin/permissions/{permissionId}", 200, Whole)), "Deletes a rule of the server.";
    KeysRotate = "admin.keys.rotate" -> KeysRotated, Right::Admin, Rest, Some(rest(Post, "/v1/admin/keys/rotate", 200, Whole)), "Makes a new master key and seals everything anew that is secret at rest.";
    MetricsRead = "admin.metrics" -> MetricsDocument, Right::Admin, Rest, Some(rest(Get, "/metrics", 200, Document)), "Reads what the server counts of itself, as Prometheus reads it.";
    LogGet = "admin.log.get" -> LogSettings, Right::Admin, Rest, Some(rest(Get, "/v1/admin/log", 200, Whole)), "Says which log lines are written and how.";
    LogSet = "admin.log.set" -> LogSettings, Right::Admin, Rest, Some(rest(Put, "/v1/admin/log", 200, Whole)), "Changes which log lines are written and how, until the server stops.";

    Hello = "hello" -> Connected, Right::Public, Socket, None, "Authenticates a socket that could not send a header.";
    AuthRefresh = "auth.refresh" -> AuthExpiry, Right::User, Socket, None, "Gives a socket a new access token of the same user.";
    Subscribe = "subscribe" -> SubscribePayload, Right::Project(Viewer), Socket, None, "Joins rooms of one project, replaying what was missed.";
    Unsubscribe = "unsubscribe" -> Done, Right::User, Socket, None, "Leaves rooms.";
    PartSync = "message.part.sync" -> Done, Right::Project(Viewer), Socket, None, "Sends a snapshot of a part that streams in a joined room.";
    Cancel = "cancel" -> CancelPayload, Right::User, Socket, None, "Gives up a request of this socket that is not answered yet.";
    Ping = "ping" -> Pong, Right::User, Socket, None, "Asks for a sign of life.";
}

impl Operation {
    /// On the wire.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// What a caller needs.
    pub fn right(self) -> Right {
        self.spec().right
    }

    /// The operation that an envelope names, on a socket or in `POST /v1/commands`.
    ///
    /// # Errors
    /// `UNKNOWN_OPERATION`; `INVALID_REQUEST` with reason `rest_only` for one that has a REST route
    /// alone.
    pub fn in_envelope(name: &str) -> Result<Self, ApiError> {
        let Some(operation) = Self::from_name(name) else {
            let name: String = name.chars().take(64).collect();
            let message = format!("unknown operation `{name}`");
            return Err(ApiError::new(ErrorCode::UnknownOperation, message));
        };
        match operation.spec().transport {
            Transport::Any | Transport::Socket => Ok(operation),
            Transport::Rest => {
                let message = format!("`{name}` is reached by its REST route alone");
                Err(ApiError::invalid(message).reason("rest_only"))
            }
        }
    }
}
