//! Who may do what: every operation of the table, as everybody, over every transport. The expectation
//! comes from the table; a new operation does not compile until [`payload`] knows a request for it.

use iris_client::Client;
use iris_protocol::{
    BackupId, Command, Data, Method, Operation, PartId, PermissionId, ProjectId, QuestionId, Right,
    Role, SessionId, SnapshotId, ToolCallId, ToolId, Transport,
};
use iris_testkit::{PASSWORD, Person, TestApp, WireSocket, spawn_app};
use serde_json::{Value, json};

/// Those who try, the weakest first, so that the stronger ones still find what they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Anonymous,
    Stranger,
    Has(Role),
    /// An administrator of the server without a role in any project.
    ServerAdmin,
}

const CALLERS: [Caller; 7] = [
    Caller::Anonymous,
    Caller::Stranger,
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
        (Right::User | Right::Project(_) | Right::Admin, Caller::Anonymous) => {
            Verdict::Unauthenticated
        }
        (Right::Project(_), Caller::Stranger | Caller::ServerAdmin) => Verdict::NoSuchProject,
        (Right::Project(needed), Caller::Has(role)) if role < needed => Verdict::Forbidden,
        (Right::Admin, Caller::Stranger | Caller::Has(_)) => Verdict::Forbidden,
        (Right::Public, _)
        | (Right::User, Caller::Stranger | Caller::Has(_) | Caller::ServerAdmin)
        | (Right::Project(_), Caller::Has(_))
        | (Right::Admin, Caller::ServerAdmin) => Verdict::Passes,
    }
}

fn verdict(status: u16, error: &Value) -> Verdict {
    let reason = error["details"]["reason"].as_str().unwrap_or_default();
    match (status, error["code"].as_str().unwrap_or_default()) {
        (_, "INVALID_REQUEST") if ["rest_only", "socket_only"].contains(&reason) => {
            Verdict::WrongTransport
        }
        (401, "UNAUTHENTICATED") => Verdict::Unauthenticated,
        (403, "FORBIDDEN") => Verdict::Forbidden,
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
        for id in [&project, &doomed_project] {
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
        people.extend([owner, server_admin]);
        let (session, message) = (conversation.session, message.to_string());
        Self {
            client: app.client().clone(),
            app,
            people,
            newcomer,
            spare,
            project,
            doomed_project,
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
            Caller::Has(Role::Owner) => self.people.get(4),
            Caller::ServerAdmin => self.people.get(5),
        }
    }

    /// The project that a request of the operation names; none for operations outside of projects.
    fn project(&self, operation: Operation) -> Option<&ProjectId> {
        match operation.right() {
            Right::Public | Right::User | Right::Admin => None,
            Right::Project(_) if operation == Operation::ProjectDelete => {
                Some(&self.doomed_project)
            }
            Right::Project(_) => Some(&self.project),
        }
    }

    /// The caller's token. Logging out gets one of its own, because it is gone afterwards.
    async fn token(&self, operation: Operation, caller: Caller) -> Option<String> {
        let person = self.person(caller)?;
        if operation != Operation::AuthLogout {
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
        let own_token = self.person(caller).unwrap_or(&self.spare).token();
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
            Operation::AuthLogout
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
            | Operation::ServerBackupCreate
            | Operation::ServerBackupList
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
            | Operation::FileList
            | Operation::FileLocks
            | Operation::SnapshotCreate
            | Operation::SnapshotList
            | Operation::Ping => json!({}),
            // There is none: the gate is what is asked here.
            Operation::BackupRead | Operation::BackupDelete | Operation::ProjectRestore => {
                json!({ "backupId": BackupId::from_bits(1) })
            }
            Operation::MemberAdd => json!({ "userId": self.newcomer.id(), "role": "viewer" }),
            Operation::MemberUpdate => json!({ "userId": self.spare.id(), "role": "member" }),
            Operation::MemberRemove => json!({ "userId": self.spare.id() }),
            Operation::SessionDelete => json!({ "sessionId": self.doomed_session }),
            Operation::SessionGet
            | Operation::SessionUpdate
            | Operation::SessionArchive
            | Operation::SessionUnarchive
            | Operation::SessionFork
            | Operation::SessionUnrevert
            | Operation::SessionExport
            | Operation::SessionCompact
            | Operation::RunCancel
            | Operation::RunList
            | Operation::MessageList
            | Operation::TodoList
            | Operation::TypingStart
            | Operation::TypingStop => session,
            Operation::RunGet | Operation::RunResume | Operation::RunDiff => {
                json!({ "sessionId": self.session, "runId": self.run })
            }
            Operation::SessionSearch => json!({ "query": "hello" }),
            Operation::MessageSend => {
                json!({ "sessionId": self.session, "content": "say hello" })
            }
            Operation::MessageEdit => json!({ "sessionId": self.session,
                "messageId": self.message, "content": "say hello" }),
            Operation::MessageGet
            | Operation::MessageDequeue
            | Operation::MessageRetry
            | Operation::SessionRevert => {
                json!({ "sessionId": self.session, "messageId": self.message })
            }
            Operation::ProjectCreate | Operation::AgentCreate => json!({ "name": "new" }),
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
            Operation::FileRead
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
                let text = value.as_str().unwrap_or_default();
                path = path.replace(&format!("{{{field}}}"), text);
                if route.query.iter().any(|(name, _)| *name == field) {
                    path = format!("{path}?{field}={text}");
                }
            }
            let client = &world.client;
            let answer = if matches!(route.data, Data::Upload(_)) {
                let method = route.method.as_str();
                client.raw(method, &path, token.as_deref(), &[], "b".into()).await
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
        let mut socket = match world.person(caller) {
            Some(person) => person.wire().await,
            None => WireSocket::open(&world.app.url, None).await.unwrap(),
        };
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
                socket = match world.person(caller) {
                    Some(person) => person.wire().await,
                    None => WireSocket::open(&world.app.url, None).await.unwrap(),
                };
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
