//! Who may do what: every operation of the table, as everybody, over every transport. The expectation
//! comes from the table; a new operation does not compile until [`payload`] knows a request for it.

use std::collections::BTreeSet;

use iris_client::Client;
use iris_protocol::{
    AuthSessionId, BackupId, CaptureId, Command, CredentialId, Data, IdentityId, InvitationId,
    KeyId, KeyNeeds, Method, Operation, PartId, PermissionId, ProjectId, QuestionId, Right, Role,
    SessionId, SnapshotId, ToolCallId, ToolId, Transport, UserId,
};
use iris_testkit::{EventStream, PASSWORD, Person, TestApp, WireSocket, spawn_app};
use serde_json::{Value, json};

/// Those who try, the weakest first, so that the stronger ones still find what they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anonymous,
    /// Had a role until their account was closed.
    Disabled,
    Stranger,
    /// Was a member until they were taken out.
    Removed,
    /// The owner, with an API key that is for nothing.
    KeyWithoutScope,
    /// The administrator of the server, with such a key.
    AdminKeyWithoutScope,
    Has(Role),
    /// An administrator of the server without a role in any project.
    ServerAdmin,
}

const CALLERS: [Caller; 11] = [
    Caller::Anonymous,
    Caller::Disabled,
    Caller::Stranger,
    Caller::Removed,
    Caller::KeyWithoutScope,
    Caller::AdminKeyWithoutScope,
    Caller::ServerAdmin,
    Caller::Has(Role::Viewer),
    Caller::Has(Role::Member),
    Caller::Has(Role::Admin),
    Caller::Has(Role::Owner),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Unauthenticated,
    NoSuchProject,
    Forbidden,
    /// Whatever comes after the gate.
    Passes,
    WrongTransport,
}

fn expected(operation: Operation, caller: Caller) -> Verdict {
    match (operation.right(), caller) {
        (Right::User | Right::Project(_) | Right::Admin, Caller::Anonymous | Caller::Disabled) => {
            Verdict::Unauthenticated
        }
        (
            Right::Project(_),
            Caller::Stranger | Caller::Removed | Caller::ServerAdmin | Caller::AdminKeyWithoutScope,
        ) => Verdict::NoSuchProject,
        (Right::Project(needed), Caller::Has(role)) if role < needed => Verdict::Forbidden,
        (
            Right::Admin,
            Caller::Stranger | Caller::Removed | Caller::KeyWithoutScope | Caller::Has(_),
        ) => Verdict::Forbidden,
        (Right::User | Right::Project(_), Caller::KeyWithoutScope)
        | (Right::User | Right::Admin, Caller::AdminKeyWithoutScope) => {
            match operation.key_needs() {
                KeyNeeds::Nothing => Verdict::Passes,
                KeyNeeds::Scope(_) | KeyNeeds::Login => Verdict::Forbidden,
            }
        }
        (Right::Public, _)
        | (
            Right::User,
            Caller::Stranger | Caller::Removed | Caller::Has(_) | Caller::ServerAdmin,
        )
        | (Right::Project(_), Caller::Has(_))
        | (Right::Admin, Caller::ServerAdmin) => Verdict::Passes,
    }
}

/// How the gate forbids; whatever else forbids stands behind it.
const GATE: &[&str] =
    &["insufficient_role", "not_admin", "insufficient_scope", "needs_login", "key_of_project"];

fn verdict(status: u16, error: &Value) -> Verdict {
    let reason = error["details"]["reason"].as_str().unwrap_or_default();
    match (status, error["code"].as_str().unwrap_or_default()) {
        (_, "INVALID_REQUEST") if ["rest_only", "socket_only"].contains(&reason) => {
            Verdict::WrongTransport
        }
        (401, "UNAUTHENTICATED") => Verdict::Unauthenticated,
        (403, "FORBIDDEN") if GATE.contains(&reason) => Verdict::Forbidden,
        (404, "NOT_FOUND") if error["message"] == "project not found" => Verdict::NoSuchProject,
        (401 | 403 | 404 | 200..=299 | 400 | 409 | 410, _) => Verdict::Passes,
        other => panic!("{other:?} {error}"),
    }
}

/// A server with one of everything that a request may name.
struct World {
    app: TestApp,
    /// Speaks for nobody; every request brings its own token.
    client: Client,
    people: Vec<Person>,
    newcomer: Person,
    spare: Person,
    project: ProjectId,
    doomed_project: ProjectId,
    /// Whose members leave it.
    left_project: ProjectId,
    /// Of the owner, and of the administrator, for nothing.
    keys: [String; 2],
    session: SessionId,
    doomed_session: SessionId,
    message: String,
    run: String,
}

impl World {
    async fn new() -> Self {
        let app = spawn_app().await;
        // The first of all people, and no member of anything.
        let server_admin = app.admin().await;
        let mut people = Vec::new();
        for name in ["stranger", "viewer", "member", "admin"] {
            people.push(app.user(name).await);
        }
        let owner = app.user("owner").await;
        let (newcomer, spare) = (app.user("newcomer").await, app.user("spare").await);
        let (project, doomed_project) = (owner.project("p").await.id, owner.project("d").await.id);
        let left_project = owner.project("l").await.id;
        let (disabled, removed) = (app.user("disabled").await, app.user("removed").await);
        owner.add_member(&project, &disabled, Role::Admin).await;
        owner.add_member(&project, &removed, Role::Admin).await;
        let place = format!("/v1/projects/{project}/members/{}", removed.id());
        assert!(owner.rest("DELETE", &place, None).await.is_success());
        let account = format!("/v1/admin/users/{}", disabled.id());
        let close = json!({ "disabled": true });
        assert!(server_admin.rest("PATCH", &account, Some(close)).await.is_success());
        let key = async |of: &Person| {
            let made = of.post("/v1/api-keys", json!({ "name": "none", "scopes": [] })).await;
            made.json["data"]["key"].as_str().unwrap().to_owned()
        };
        let keys = [key(&owner).await, key(&server_admin).await];
        for id in [&project, &doomed_project, &left_project] {
            for (person, role) in people[1..].iter().zip([Role::Viewer, Role::Member, Role::Admin])
            {
                owner.add_member(id, person, role).await;
            }
            owner.add_member(id, &spare, Role::Viewer).await;
        }
        let mut conversation = owner.conversation_in(&project).await;
        let doomed_session = owner.session(&project).await.id;
        conversation.ask("say hello").await;
        let snapshot = owner.snapshot(&project, &conversation.session).await;
        let (message, run) = (snapshot.messages[0].id.clone(), snapshot.runs[0].id.to_string());
        owner.client.file_put(&project, "a.txt", "a").await.unwrap();
        let agent = json!({ "name": "helper" });
        owner.post(&format!("/v1/projects/{project}/agents"), agent).await;
        people.extend([owner, server_admin, disabled, removed]);
        let (session, message) = (conversation.session, message.to_string());
        Self {
            client: app.client().clone(),
            app,
            people,
            newcomer,
            spare,
            project,
            doomed_project,
            left_project,
            keys,
            session,
            doomed_session,
            message,
            run,
        }
    }

    fn person(&self, caller: Caller) -> Option<&Person> {
        match caller {
            Caller::Anonymous => None,
            Caller::Stranger => self.people.first(),
            Caller::Has(Role::Viewer) => self.people.get(1),
            Caller::Has(Role::Member) => self.people.get(2),
            Caller::Has(Role::Admin) => self.people.get(3),
            Caller::Has(Role::Owner) | Caller::KeyWithoutScope => self.people.get(4),
            Caller::ServerAdmin | Caller::AdminKeyWithoutScope => self.people.get(5),
            Caller::Disabled => self.people.get(6),
            Caller::Removed => self.people.get(7),
        }
    }

    /// The project that a request of the operation names; none for operations outside of projects.
    fn project(&self, operation: Operation) -> Option<&ProjectId> {
        match operation.right() {
            Right::Public | Right::User | Right::Admin => None,
            Right::Project(_) if operation == Operation::ProjectDelete => {
                Some(&self.doomed_project)
            }
            Right::Project(_) if operation == Operation::ProjectLeave => Some(&self.left_project),
            Right::Project(_) => Some(&self.project),
        }
    }

    fn key(&self, caller: Caller) -> Option<&str> {
        let [of_owner, of_admin] = &self.keys;
        match caller {
            Caller::KeyWithoutScope => Some(of_owner),
            Caller::AdminKeyWithoutScope => Some(of_admin),
            _ => None,
        }
    }

    /// The caller's token. Logging out gets one of its own, because it is gone afterwards.
    async fn token(&self, operation: Operation, caller: Caller) -> Option<String> {
        let person = self.person(caller)?;
        if let Some(key) = self.key(caller) {
            return Some(key.to_owned());
        }
        if operation != Operation::AuthLogout || caller == Caller::Disabled {
            return Some(person.token().to_owned());
        }
        let login = self.client.login(&person.grant.user.email, PASSWORD).await.unwrap();
        Some(login.access_token)
    }

    /// A request that would be right if the caller may.
    #[expect(clippy::too_many_lines, reason = "each operation has its arm")]
    fn payload(&self, operation: Operation, caller: Caller) -> Value {
        let session = json!({ "sessionId": self.session });
        let call = json!({ "sessionId": self.session, "toolCallId": ToolCallId::from_bits(1) });
        let account = json!({ "email": format!("{caller:?}@new.example"),
                              "username": format!("new {caller:?}"), "password": PASSWORD });
        let own_token =
            self.key(caller).unwrap_or_else(|| self.person(caller).unwrap_or(&self.spare).token());
        let nobody = json!({ "userId": UserId::from_bits(1) });
        match operation {
            Operation::AuthSetup => {
                let mut setup = account;
                setup["token"] = "any".into();
                setup
            }
            Operation::AuthRegister => account,
            Operation::AuthLogin => {
                json!({ "email": "spare@example.com", "password": PASSWORD })
            }
            Operation::AuthRotate => json!({ "refreshToken": self.spare.grant.refresh_token }),
            // The password is wrong: the gate is what is asked here.
            Operation::PasswordChange => {
                json!({ "currentPassword": "wrong wrong", "newPassword": PASSWORD })
            }
            Operation::UserDelete => json!({ "currentPassword": "wrong wrong" }),
            // There is no such provider: the gate is what is asked here.
            Operation::OauthStart => json!({ "provider": "none" }),
            Operation::OauthCallback => json!({ "provider": "none", "state": "x" }),
            Operation::IdentityLink => {
                json!({ "provider": "none", "redirect": "x", "codeChallenge": "x" })
            }
            // Nobody began it.
            Operation::OauthRedeem | Operation::IdentityCreate => {
                json!({ "code": "x", "codeVerifier": "x" })
            }
            // There is none: the gate is what is asked here.
            Operation::IdentityDelete => json!({ "identityId": IdentityId::from_bits(1) }),
            Operation::PasswordForgot => json!({ "email": "nobody@example.com" }),
            // There is none: the gate is what is asked here.
            Operation::PasswordReset => json!({ "token": "x", "newPassword": PASSWORD }),
            Operation::LoginRevoke => json!({ "authSessionId": AuthSessionId::from_bits(1) }),
            Operation::KeyRevoke => json!({ "keyId": KeyId::from_bits(1) }),
            // There is no such provider: the gate is what is asked here.
            Operation::CredentialCreate
            | Operation::ProjectCredentialCreate
            | Operation::ServerCredentialCreate => {
                json!({ "providerId": "none", "apiKey": "k" })
            }
            // There is none: the gate is what is asked here.
            Operation::CredentialDelete
            | Operation::ProjectCredentialDelete
            | Operation::ServerCredentialDelete => {
                json!({ "credentialId": CredentialId::from_bits(1) })
            }
            Operation::InvitationRevoke | Operation::ServerInvitationRevoke => {
                json!({ "invitationId": InvitationId::from_bits(1) })
            }
            Operation::InvitationAccept => json!({ "token": "x" }),
            Operation::ProjectTransfer
            | Operation::UserLogout
            | Operation::UserPasswordReset
            | Operation::UserRemove => nobody,
            Operation::InvitationCreate => json!({ "role": "viewer" }),
            Operation::UserCreate => {
                let (email, name) = (format!("{caller:?}@made.example"), format!("made {caller:?}"));
                json!({ "email": email, "username": name })
            }
            Operation::ProjectSettingsUpdate => json!({ "settings": {} }),
            Operation::AuthLogout
            | Operation::LoginList
            | Operation::OauthList
            | Operation::IdentityList
            | Operation::KeyList
            | Operation::CredentialList
            | Operation::ProjectCredentialList
            | Operation::ServerCredentialList
            | Operation::UserUpdate
            | Operation::UserExport
            | Operation::ProjectSettingsGet
            | Operation::ProjectLeave
            | Operation::InvitationList
            | Operation::UserList
            | Operation::ServerInvitationCreate
            | Operation::ServerInvitationList
            | Operation::SettingsGet
            | Operation::SettingsUpdate
            | Operation::AuditList
            | Operation::AuditExport
            | Operation::MetricsRead
            | Operation::AuthTicket
            | Operation::UserGet
            | Operation::ProjectList
            | Operation::ProjectGet
            | Operation::ProjectUpdate
            | Operation::ProjectArchive
            | Operation::ProjectUnarchive
            | Operation::ProjectDelete
            | Operation::ProjectBackup
            | Operation::BackupList
            | Operation::ProjectExport
            // Its archive is none: the gate is what is asked here.
            | Operation::ProjectImport
            | Operation::FileUpload
            | Operation::ServerBackupCreate
            | Operation::ServerBackupList
            | Operation::KeysRotate
            | Operation::MemberList
            | Operation::SessionCreate
            | Operation::SessionList
            | Operation::AgentList
            | Operation::ToolList
            | Operation::McpList
            | Operation::ActorList
            | Operation::SupervisionList
            | Operation::LogGet
            | Operation::LogSet
            | Operation::ApprovalList
            | Operation::QuestionList
            | Operation::PermissionList
            | Operation::ServerPermissionList
            | Operation::PresenceUpdate
            | Operation::PresenceList
            | Operation::ModelList
            | Operation::UsageGet
            | Operation::ServerUsageGet
            | Operation::FileList
            | Operation::FileLocks
            | Operation::SnapshotCreate
            | Operation::GitClone
            | Operation::GitCancel
            | Operation::GitCredentialsSet
            | Operation::GitStatus
            | Operation::GitDiff
            | Operation::GitLog
            | Operation::GitBranches
            | Operation::GitFetch
            | Operation::GitPull
            | Operation::GitPush
            | Operation::SnapshotList
            | Operation::Ping => json!({}),
            // There is none: the gate is what is asked here.
            Operation::BackupRead | Operation::BackupDelete | Operation::ProjectRestore => {
                json!({ "backupId": BackupId::from_bits(1) })
            }
            Operation::MemberAdd => json!({ "userId": self.newcomer.id(), "role": "viewer" }),
            Operation::MemberUpdate => json!({ "userId": self.spare.id(), "role": "member" }),
            Operation::UserRead
            | Operation::UserDataRead
            | Operation::MemberRemove
            | Operation::UserBudgetGet => {
                json!({ "userId": self.spare.id() })
            }
            Operation::SessionDelete => json!({ "sessionId": self.doomed_session }),
            Operation::SessionGet
            | Operation::SessionUpdate
            | Operation::SessionArchive
            | Operation::SessionUnarchive
            | Operation::SessionFork
            | Operation::SessionUnrevert
            | Operation::SessionExport
            | Operation::CaptureStart
            | Operation::CaptureStop
            | Operation::CaptureList
            | Operation::SessionCompact
            | Operation::RunCancel
            | Operation::RunList
            | Operation::MessageList
            | Operation::TodoList
            | Operation::TypingStart
            | Operation::TypingStop => session,
            Operation::SessionBudgetSet => {
                json!({ "sessionId": self.session, "budget": {} })
            }
            Operation::RunGet | Operation::RunResume | Operation::RunDiff => {
                json!({ "sessionId": self.session, "runId": self.run })
            }
            Operation::SessionSearch => json!({ "query": "hello" }),
            Operation::MessageSend => {
                json!({ "sessionId": self.session, "content": "say hello" })
            }
            Operation::MessageEdit => json!({ "sessionId": self.session,
                "messageId": self.message, "content": "say hello" }),
            // There is none: the gate is what is asked here.
            Operation::CaptureRead => {
                json!({ "sessionId": self.session, "captureId": CaptureId::from_bits(1) })
            }
            Operation::MessageGet
            | Operation::SessionRead
            | Operation::MessageDequeue
            | Operation::MessageRetry
            | Operation::SessionRevert => {
                json!({ "sessionId": self.session, "messageId": self.message })
            }
            // There is none: the gate is what is asked here.
            Operation::MessageAttachment => json!({ "sessionId": self.session,
                "messageId": self.message, "index": 0 }),
            Operation::ProjectCreate | Operation::AgentCreate | Operation::KeyCreate => {
                json!({ "name": "new" })
            }
            Operation::AgentGet | Operation::AgentUpdate | Operation::AgentDelete => {
                json!({ "name": "helper" })
            }
            Operation::McpCreate => {
                let url = "https://mcp.example/";
                json!({ "name": "new", "transport": { "type": "http", "url": url }, "enabled": false })
            }
            // There is none: the gate is what is asked here.
            Operation::McpUpdate
            | Operation::McpDelete
            | Operation::McpAuthorize
            | Operation::McpStatusGet => {
                json!({ "name": "none" })
            }
            // Nobody began it.
            Operation::McpAuthorizeFinish => json!({ "state": "x" }),
            // It describes none: the gate is what is asked here.
            Operation::ToolCreate => {
                json!({ "name": "x", "description": "x", "parameters": {} })
            }
            // There is none: the gate is what is asked here.
            Operation::ToolUpdate | Operation::ToolDelete | Operation::ToolTest => {
                json!({ "toolId": ToolId::from_bits(1) })
            }
            Operation::ToolApprove
            | Operation::ToolReject
            | Operation::ToolOutput
            | Operation::ApprovalGet => call,
            // There is none: the gate is what is asked here.
            Operation::QuestionAnswer => {
                json!({ "sessionId": self.session, "questionId": QuestionId::from_bits(1),
                        "answers": [["a"]] })
            }
            Operation::QuestionReject => {
                json!({ "sessionId": self.session, "questionId": QuestionId::from_bits(1) })
            }
            // What the whole project is about needs more: that has its own test.
            Operation::PermissionCreate => json!({ "sessionId": self.session,
                "permission": "edit", "pattern": "a", "action": "ask" }),
            Operation::UserManage => {
                json!({ "userId": self.spare.id(), "canExecuteCode": true })
            }
            Operation::UserBudgetSet => json!({ "userId": self.spare.id(), "budgets": {} }),
            Operation::ModelSet => {
                json!({ "providerId": "demo", "modelId": "script", "facts": {} })
            }
            // There may be none: the gate is what is asked here.
            Operation::ModelReset => json!({ "providerId": "demo", "modelId": "none" }),
            Operation::ServerPermissionCreate => {
                json!({ "permission": "edit", "pattern": "a", "action": "ask" })
            }
            // There is none: the gate is what is asked here.
            Operation::PermissionUpdate
            | Operation::PermissionDelete
            | Operation::ServerPermissionUpdate
            | Operation::ServerPermissionDelete => {
                json!({ "permissionId": PermissionId::from_bits(1) })
            }
            Operation::PermissionExplain => {
                json!({ "toolName": "read", "input": { "path": "a" } })
            }
            // There is none: the gate is what is asked here.
            Operation::SnapshotDiff | Operation::SnapshotRestore => {
                json!({ "snapshotId": SnapshotId::from_bits(1) })
            }
            // There is no repository: the gate is what is asked here.
            Operation::GitSwitch => json!({ "branch": "b" }),
            Operation::GitCommit => json!({ "message": "b" }),
            Operation::FileSearch => json!({ "query": "a" }),
            Operation::FileEdit => {
                json!({ "path": "b.txt", "oldString": "b", "newString": "c" })
            }
            // There is none: the gate is what is asked here.
            Operation::FileMove => json!({ "from": "none", "to": "nowhere" }),
            Operation::FileDelete | Operation::FileUnlock => json!({ "path": "none" }),
            Operation::FileRestore => json!({ "path": "a.txt", "to": 1 }),
            Operation::FileLockTake => {
                json!({ "path": format!("of {caller:?}"), "ttlMs": 60_000 })
            }
            // There is no such stream: the gate is what is asked here.
            Operation::UploadCommit | Operation::UploadCancel | Operation::DownloadCancel => {
                json!({ "stream": 99 })
            }
            Operation::UploadBegin => {
                json!({ "path": "c.txt", "size": 1, "sha256": "0".repeat(64) })
            }
            Operation::DownloadBegin
            | Operation::FileRead
            | Operation::FileStat
            | Operation::FileVersions
            | Operation::FileDiff => json!({ "path": "a.txt" }),
            Operation::FileWrite => json!({ "path": "b.txt", "content": "b" }),
            Operation::ActorGet => json!({ "path": "node/directory" }),
            // Nobody stands there: the gate is what is asked here.
            Operation::ActorRestart | Operation::ActorStop => {
                json!({ "path": "node/nowhere/at/all" })
            }
            // There is none: the gate is what is asked here.
            Operation::PartSync => json!({ "partId": PartId::from_bits(1) }),
            Operation::Cancel => json!({ "requestId": "none" }),
            Operation::Hello | Operation::AuthRefresh => json!({ "token": own_token }),
            Operation::Subscribe | Operation::Unsubscribe => {
                json!({ "rooms": [format!("project:{}", self.project)] })
            }
        }
    }

    async fn socket(&self, caller: Caller) -> WireSocket {
        let token = self.token(Operation::Ping, caller).await;
        let mut socket = WireSocket::open(&self.app.url, token.as_deref()).await.unwrap();
        if token.is_some() {
            assert_eq!(socket.next_json().await["type"], "connected");
        }
        socket
    }

    fn frame(&self, operation: Operation, caller: Caller) -> Value {
        let payload = self.payload(operation, caller);
        Command::decode(operation, payload.clone()).unwrap();
        json!({ "id": "1", "type": operation.name(), "projectId": self.project(operation),
                "payload": payload })
    }
}

#[tokio::test]
async fn over_rest_every_caller_gets_what_the_table_says() {
    let world = World::new().await;
    for operation in Operation::ALL {
        let Some(route) = operation.spec().rest else { continue };
        for caller in CALLERS {
            let token = world.token(*operation, caller).await;
            let project = world.project(*operation).map(ToString::to_string).unwrap_or_default();
            let mut path = route.path.replace("{projectId}", &project);
            let mut body = world.payload(*operation, caller);
            for (field, value) in body.as_object().unwrap().clone() {
                let text = match &value {
                    Value::Number(number) => number.to_string(),
                    other => other.as_str().unwrap_or_default().to_owned(),
                };
                path = path.replace(&format!("{{{field}}}"), &text);
                if route.query.iter().any(|(name, _)| *name == field) {
                    path = format!("{path}?{field}={text}");
                }
            }
            let client = &world.client;
            let answer = if matches!(route.data, Data::Upload(_) | Data::Form(_)) {
                let method = route.method.as_str();
                // Where a form is wanted it is one without files.
                let headers = [("content-type", "multipart/form-data; boundary=b")];
                client.raw(method, &path, token.as_deref(), &headers, "--b--".into()).await
            } else {
                for name in path_fields(route.path) {
                    body.as_object_mut().unwrap().remove(name);
                }
                let body = (route.method != Method::Get).then_some(&body);
                client.rest(route.method.as_str(), &path, token.as_deref(), body).await
            };
            let answer = answer.unwrap();
            let found = verdict(answer.status, &answer.json["error"]);
            let name = operation.name();
            assert_eq!(found, expected(*operation, caller), "{name} as {caller:?}: {answer:?}");
        }
    }
}

fn path_fields(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The routes that are no operations, each with the operation that its gate is that of; none where there is none.
const FIXED: [(&str, &str, Option<Operation>); 8] = [
    ("GET", "/health/live", None),
    ("GET", "/health/ready", None),
    ("GET", "/v1/openapi.json", None),
    ("GET", "/v1/asyncapi.json", None),
    ("GET", "/v1/schema.json", None),
    ("GET", "/v1/ws", Some(Operation::Ping)),
    ("POST", "/v1/commands", Some(Operation::UserGet)),
    ("GET", "/v1/projects/{projectId}/events", Some(Operation::Subscribe)),
];

#[test]
fn every_route_that_is_no_operation_is_known_here() {
    let document = iris_protocol::openapi("1");
    let routes = document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().map(|method| method.to_uppercase());
        methods.map(move |method| (method, path.clone()))
    });
    let is_operation = |method: &str, path: &str| {
        let mut routes = Operation::ALL.iter().filter_map(|operation| operation.spec().rest);
        // The head of an answer is for whom the answer is.
        let method = if method == "HEAD" { "GET" } else { method };
        routes.any(|route| (route.method.as_str(), route.path) == (method, path))
    };
    let fixed = routes.filter(|(method, path)| !is_operation(method, path));
    let known = FIXED.map(|(method, path, _)| (method.to_owned(), path.to_owned()));
    assert_eq!(fixed.collect::<BTreeSet<_>>(), BTreeSet::from(known));
}

#[tokio::test]
async fn on_routes_that_are_no_operations_every_caller_gets_what_the_table_says() {
    let world = World::new().await;
    for (method, path, operation) in FIXED {
        for caller in CALLERS {
            let token = world.token(Operation::Ping, caller).await;
            let token = token.as_deref();
            let expected = match operation {
                None => Verdict::Passes,
                // Who opens a socket may say there who they are.
                Some(Operation::Ping) if caller == Caller::Anonymous => Verdict::Passes,
                Some(operation) => expected(operation, caller),
            };
            let found = if operation == Some(Operation::Subscribe) {
                // It has no end.
                let path = path.replace("{projectId}", world.project.as_str());
                let path = format!("{path}?rooms=project:{}", world.project);
                match EventStream::open(&world.app.url, &path, token, &[]).await {
                    Ok(_) => Verdict::Passes,
                    Err(error) => verdict(error.code.http_status(), &json!(error)),
                }
            } else {
                let frame = world.frame(Operation::UserGet, caller);
                let body = (method == "POST").then_some(&frame);
                let answer = world.client.rest(method, path, token, body).await.unwrap();
                verdict(answer.status, &answer.json["error"])
            };
            assert_eq!(found, expected, "{method} {path} as {caller:?}");
        }
    }
}

#[tokio::test]
async fn over_commands_every_caller_gets_what_the_table_says() {
    let world = World::new().await;
    for operation in Operation::ALL {
        for caller in CALLERS {
            let (token, frame) =
                (world.token(*operation, caller).await, world.frame(*operation, caller));
            let client = &world.client;
            let answer = client.rest("POST", "/v1/commands", token.as_deref(), Some(&frame)).await;
            let answer = answer.unwrap();
            // Nobody's envelope is read who does not say who they are.
            let expected = match (caller, operation.spec().transport) {
                (Caller::Anonymous, _) => Verdict::Unauthenticated,
                (_, Transport::Any) => expected(*operation, caller),
                (_, Transport::Rest | Transport::Socket) => Verdict::WrongTransport,
            };
            let found = verdict(answer.status, &answer.json["error"]);
            let name = operation.name();
            assert_eq!(found, expected, "{name} as {caller:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn over_a_socket_every_caller_gets_what_the_table_says() {
    let world = World::new().await;
    for caller in CALLERS {
        if caller == Caller::Disabled {
            let token = world.person(caller).unwrap().token();
            assert!(WireSocket::open(&world.app.url, Some(token)).await.is_err());
            continue;
        }
        let mut socket = world.socket(caller).await;
        let mut mistakes = 0;
        for operation in Operation::ALL {
            socket.say(world.frame(*operation, caller).to_string()).await;
            let answer = socket.response("1").await;
            let status = match answer["error"]["code"].as_str() {
                Some(code) => {
                    let code = serde_json::from_value(json!(code));
                    let code: iris_protocol::ErrorCode = code.unwrap();
                    code.http_status()
                }
                None => 200,
            };
            let expected = match operation.spec().transport {
                Transport::Any | Transport::Socket => expected(*operation, caller),
                Transport::Rest => Verdict::WrongTransport,
            };
            let (found, name) = (verdict(status, &answer["error"]), operation.name());
            assert_eq!(found, expected, "{name} as {caller:?}: {answer}");
            if found == Verdict::WrongTransport {
                mistakes += 1;
            }
            // More than twenty mistakes in a minute end a socket.
            if mistakes == 20 {
                mistakes = 0;
                socket = world.socket(caller).await;
            }
            if caller == Caller::Anonymous && found != Verdict::WrongTransport {
                if found == Verdict::Unauthenticated {
                    assert_eq!(socket.close_code().await, 4401, "{name}");
                }
                socket = WireSocket::open(&world.app.url, None).await.unwrap();
            }
        }
    }
}
