//! Every operation that changes something, repeated with its idempotency key: the answer is the first
//! one, and nothing happens again. An operation that is added does not compile until [`World::case`]
//! says how it is repeated, or why it is not.

use std::sync::Arc;
use std::time::Duration;

use iris_client::RestAnswer;
use iris_protocol::{
    AgentCreate, Approval, CaptureStart, Content, Data, ErrorCode, LogSet, MessageId, MessageSend,
    Operation, ProjectArchive, ProjectId, Question, Right, Role, RunId, SessionArchive,
    SessionCreate, SessionId, SessionRevert, SessionState,
};
use iris_testkit::{
    AppOptions, FakeProvider, Gate, PASSWORD, Person, Reply, ServerProcess, TestApp, TestClock,
    chat, patiently, spawn_app, spawn_app_with,
};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::rest_refusal;

/// One millisecond less than keys are kept.
const ALMOST_A_DAY: Duration = Duration::from_millis(24 * 60 * 60 * 1000 - 1);
const ASKS: &str = "call question {\"questions\": [{\"text\": \"which?\"}]}";
const WAITS: &str = "call write {\"path\": \"a\", \"content\": \"\"}";

/// How an operation behaves when it is repeated with its key.
enum Case {
    /// It changes nothing.
    Reads,
    /// Its answer is not kept, for this reason.
    NotKept(&'static str),
    Repeats(Box<Try>),
}

/// A request that succeeds.
struct Try {
    person: Person,
    project: Option<ProjectId>,
    body: Value,
    /// The same key with this is another request; null where there is no other.
    other: Value,
}

struct World {
    app: TestApp,
    operator: Person,
    ann: Person,
    /// An administrator of the project, who leaves it.
    bob: Person,
    /// Who logs out.
    dave: Person,
    carol: Person,
    project: ProjectId,
    archived: ProjectId,
    to_archive: ProjectId,
    doomed: ProjectId,
    put_back: ProjectId,
    /// A run that the server cut off.
    interrupted: (SessionId, RunId),
    busy: SessionId,
    approval: Approval,
    rejection: Approval,
    questions: [Question; 2],
    watched: [SessionId; 2],
}

impl World {
    async fn new() -> Self {
        let held = Gate::default();
        let replies = [Reply::stream().wait(&held), chat::says("on")];
        let provider = FakeProvider::start(replies).await;
        let mut options = AppOptions::with_provider(provider.base_url());
        options.providers.insert("spare".to_owned(), options.providers["fake"].clone());
        let (fake, default_model) = (options.default_model, AppOptions::default().default_model);
        let app = spawn_app_with(AppOptions { default_model, ..options }).await;
        let ann = app.user("ann").await;
        let project = ann.project("p").await.id;
        let interrupted = {
            let request = SessionCreate { title: None, agent: None, model: fake, mode: None };
            let session = ann.client.call(Some(&project), request).await.unwrap().session.id;
            let run = ann.join(&project, &session).await.send_message("go on").await.run_id;
            held.reached().await;
            (session, run)
        };
        let app = app.restart().await;
        let ann = app.again(&ann);
        let operator = app.admin().await;
        let bob = app.user("bob").await;
        let (carol, dave) = (app.user("carol").await, app.user("dave").await);
        ann.add_member(&project, &bob, Role::Admin).await;
        ann.add_member(&project, &operator, Role::Admin).await;
        let [archived, to_archive, doomed] =
            [ann.project("a").await.id, ann.project("b").await.id, ann.project("d").await.id];
        let put_back = ann.project("r").await.id;
        ann.client.call(Some(&archived), ProjectArchive {}).await.unwrap();
        for name in ["changed", "doomed"] {
            let name = name.to_owned();
            let request = AgentCreate {
                name,
                description: None,
                mode: None,
                prompt: None,
                model: None,
                tools: None,
                tuning: iris_protocol::AgentTuning::default(),
                permissions: None,
                budget: None,
            };
            ann.client.call(Some(&project), request).await.unwrap();
        }
        for name in ["changed", "doomed"] {
            ann.post(&format!("/v1/projects/{project}/mcp"), web_server(name)).await;
        }
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let mut talk = ann.conversation_in(&project).await;
            talk.send_message(WAITS).await;
            waiting.push((talk.session.clone(), talk.approval().await));
        }
        let (busy, _) = waiting.remove(0);
        let rejection = waiting.remove(0).1;
        let approval = waiting.remove(0).1;
        let mut questions = Vec::new();
        for _ in 0..2 {
            let mut talk = ann.conversation_in(&project).await;
            talk.send_message(ASKS).await;
            questions.push(talk.question().await);
        }
        let questions = [questions.remove(0), questions.remove(0)];
        // Their actors are there after this.
        let mut watched = Vec::new();
        for _ in 0..2 {
            let mut talk = ann.conversation_in(&project).await;
            talk.ask("say hi").await;
            watched.push(talk.session.clone());
        }
        let watched = [watched.remove(0), watched.remove(0)];
        Self {
            app,
            operator,
            ann,
            bob,
            dave,
            carol,
            project,
            archived,
            to_archive,
            doomed,
            put_back,
            interrupted,
            busy,
            approval,
            rejection,
            questions,
            watched,
        }
    }

    /// Makes a backup and answers its id.
    async fn backup(&self, project: &ProjectId) -> Value {
        let path = format!("/v1/projects/{project}/backup");
        self.ann.post(&path, json!({})).await.json["data"]["id"].clone()
    }

    async fn file(&self, path: &str, content: &str) {
        let bytes = content.to_owned();
        self.ann.client.file_put(&self.project, path, bytes).await.unwrap();
    }

    /// A session in which something was said.
    async fn talk(&self) -> SessionId {
        let mut talk = self.ann.conversation_in(&self.project).await;
        talk.ask("say hi").await;
        talk.session.clone()
    }

    /// Makes a permission rule and answers its id.
    async fn rule(&self, project: &ProjectId) -> Value {
        let path = format!("/v1/projects/{project}/permissions");
        self.ann.post(&path, rule("x")).await.json["data"]["rule"]["id"].clone()
    }

    /// Defines a tool and answers its id.
    async fn tool(&self, project: &ProjectId, name: &str) -> Value {
        let path = format!("/v1/projects/{project}/tools");
        self.ann.post(&path, tool(name)).await.json["data"]["id"].clone()
    }

    /// Invites whoever has the link.
    async fn invitation(&self, project: &ProjectId) -> Value {
        let path = format!("/v1/projects/{project}/invitations");
        self.ann.post(&path, json!({ "role": "viewer" })).await.json["data"].clone()
    }

    /// Begins another login and answers its id.
    async fn login_of_carol(&self) -> Value {
        self.app.client().login("carol@example.com", PASSWORD).await.unwrap();
        self.carol.get("/v1/auth/sessions").await.json["data"][0]["id"].clone()
    }

    /// Makes a permission rule of the server and answers its id.
    async fn server_rule(&self) -> Value {
        let made = self.operator.post("/v1/admin/permissions", rule("x")).await;
        made.json["data"]["rule"]["id"].clone()
    }

    fn actor_of(&self, session: &SessionId) -> Value {
        json!({ "path": format!("node/directory/project/{}/session/{session}", self.project) })
    }

    #[expect(clippy::too_many_lines, reason = "each operation has its arm")]
    async fn case(&self, operation: Operation) -> Case {
        let ann = |project: &ProjectId, body: Value, other: Value| {
            let (person, project) = (self.ann.clone(), Some(project.clone()));
            Case::Repeats(Box::new(Try { person, project, body, other }))
        };
        let somebody = |person: &Person, body: Value, other: Value| {
            Case::Repeats(Box::new(Try { person: person.clone(), project: None, body, other }))
        };
        let session = async || self.ann.session(&self.project).await.id;
        let (p, none) = (&self.project, Value::Null);
        match operation {
            Operation::UserGet
            | Operation::ProjectList
            | Operation::ProjectGet
            | Operation::MemberList
            | Operation::SessionList
            | Operation::SessionGet
            | Operation::CaptureList
            | Operation::CaptureRead
            | Operation::SessionSearch
            | Operation::SessionExport
            | Operation::RunGet
            | Operation::RunList
            | Operation::MessageGet
            | Operation::MessageList
            | Operation::MessageAttachment
            | Operation::AgentList
            | Operation::AgentGet
            | Operation::ToolList
            | Operation::McpList
            | Operation::McpStatusGet
            | Operation::ApprovalList
            | Operation::QuestionList
            | Operation::TodoList
            | Operation::ApprovalGet
            | Operation::ToolOutput
            | Operation::PermissionList
            | Operation::PermissionExplain
            | Operation::ServerPermissionList
            | Operation::FileRead
            | Operation::FileList
            | Operation::FileStat
            | Operation::FileSearch
            | Operation::FileVersions
            | Operation::FileDiff
            | Operation::FileLocks
            | Operation::RunDiff
            | Operation::SnapshotList
            | Operation::SnapshotDiff
            | Operation::GitStatus
            | Operation::GitDiff
            | Operation::GitLog
            | Operation::GitBranches
            | Operation::BackupList
            | Operation::PresenceList
            | Operation::BackupRead
            | Operation::ServerBackupList
            | Operation::ActorList
            | Operation::ActorGet
            | Operation::SupervisionList
            | Operation::ModelList
            | Operation::UsageGet
            | Operation::ServerUsageGet
            | Operation::UserBudgetGet
            | Operation::LoginList
            | Operation::OauthList
            | Operation::IdentityList
            | Operation::KeyList
            | Operation::CredentialList
            | Operation::ProjectCredentialList
            | Operation::ServerCredentialList
            | Operation::UserExport
            | Operation::ProjectSettingsGet
            | Operation::InvitationList
            | Operation::UserList
            | Operation::UserRead
            | Operation::UserDataRead
            | Operation::ServerInvitationList
            | Operation::SettingsGet
            | Operation::AuditList
            | Operation::AuditExport
            | Operation::MetricsRead
            | Operation::LogGet => Case::Reads,
            Operation::AuthSetup
            | Operation::AuthRegister
            | Operation::AuthLogin
            | Operation::AuthRotate
            | Operation::AuthTicket
            | Operation::McpAuthorize
            | Operation::PasswordChange
            | Operation::PasswordForgot
            | Operation::PasswordReset
            | Operation::OauthStart
            | Operation::OauthCallback
            | Operation::OauthRedeem
            | Operation::IdentityLink
            | Operation::IdentityCreate
            | Operation::KeyCreate
            | Operation::InvitationCreate
            | Operation::ServerInvitationCreate
            | Operation::UserPasswordReset
            | Operation::McpAuthorizeFinish => {
                Case::NotKept("the answer or the request is a secret")
            }
            Operation::IdentityDelete => {
                Case::NotKept("it needs a provider of logins: it has its own test in `oauth.rs`")
            }
            Operation::GitClone
            | Operation::GitCancel
            | Operation::GitCredentialsSet
            | Operation::GitSwitch
            | Operation::GitCommit
            | Operation::GitFetch
            | Operation::GitPull
            | Operation::GitPush => {
                Case::NotKept("it needs a sandbox and a repository: it has its own test in `git`")
            }
            Operation::UserDelete => Case::NotKept("what is kept for the user goes with the user"),
            Operation::LoginRevoke => {
                let [one, other] = [self.login_of_carol().await, self.login_of_carol().await];
                let revoke = |id| json!({ "authSessionId": id });
                somebody(&self.carol, revoke(one), revoke(other))
            }
            Operation::KeyRevoke => {
                let make = async || {
                    let made = self.ann.post("/v1/api-keys", json!({ "name": "k" })).await;
                    made.json["data"]["id"].clone()
                };
                let [one, other] = [make().await, make().await];
                somebody(&self.ann, json!({ "keyId": one }), json!({ "keyId": other }))
            }
            Operation::CredentialCreate => somebody(&self.ann, api_key("a"), api_key("b")),
            Operation::ProjectCredentialCreate => ann(p, api_key("a"), api_key("b")),
            Operation::ServerCredentialCreate => {
                somebody(&self.operator, api_key("a"), api_key("b"))
            }
            Operation::CredentialDelete => {
                let [one, other] = credentials(&self.ann, "/v1/credentials").await;
                somebody(&self.ann, one, other)
            }
            Operation::ProjectCredentialDelete => {
                let path = format!("/v1/projects/{p}/credentials");
                let [one, other] = credentials(&self.ann, &path).await;
                ann(p, one, other)
            }
            Operation::ServerCredentialDelete => {
                let [one, other] = credentials(&self.operator, "/v1/admin/credentials").await;
                somebody(&self.operator, one, other)
            }
            Operation::UserUpdate => {
                let update = |n: u32| json!({ "preferences": { "n": n } });
                somebody(&self.ann, update(1), update(2))
            }
            Operation::ProjectSettingsUpdate => {
                let update = |n: u32| json!({ "settings": { "n": n } });
                ann(p, update(1), update(2))
            }
            Operation::ProjectTransfer => {
                let given = self.ann.project("given").await.id;
                for person in [&self.carol, &self.operator] {
                    self.ann.add_member(&given, person, Role::Viewer).await;
                }
                let to = |person: &Person| json!({ "userId": person.id() });
                ann(&given, to(&self.carol), to(&self.operator))
            }
            Operation::ProjectLeave => {
                let left = self.ann.project("left").await.id;
                self.ann.add_member(&left, &self.carol, Role::Viewer).await;
                let (person, project) = (self.carol.clone(), Some(left));
                Case::Repeats(Box::new(Try { person, project, body: json!({}), other: none }))
            }
            Operation::InvitationRevoke => {
                let [one, other] = [self.invitation(p).await, self.invitation(p).await];
                let revoke = |it: Value| json!({ "invitationId": it["invitation"]["id"] });
                ann(p, revoke(one), revoke(other))
            }
            Operation::InvitationAccept => {
                let joined = self.ann.project("joined").await.id;
                let [one, other] = [self.invitation(&joined).await, self.invitation(&joined).await];
                let accept = |it: Value| json!({ "token": it["token"] });
                somebody(&self.carol, accept(one), accept(other))
            }
            Operation::UserCreate => {
                let create =
                    |name| json!({ "email": format!("{name}@x.example"), "username": name });
                somebody(&self.operator, create("one"), create("two"))
            }
            Operation::UserLogout => {
                let (erin, faye) = (self.app.user("erin").await, self.app.user("faye").await);
                let user = |person: &Person| json!({ "userId": person.id() });
                somebody(&self.operator, user(&erin), user(&faye))
            }
            Operation::UserRemove => {
                let (gail, hana) = (self.app.user("gail").await, self.app.user("hana").await);
                let user = |person: &Person| json!({ "userId": person.id() });
                somebody(&self.operator, user(&gail), user(&hana))
            }
            Operation::ServerInvitationRevoke => {
                let make = async || {
                    let made = self.operator.post("/v1/admin/invitations", json!({})).await;
                    json!({ "invitationId": made.json["data"]["invitation"]["id"] })
                };
                let [one, other] = [make().await, make().await];
                somebody(&self.operator, one, other)
            }
            Operation::SettingsUpdate => {
                let update = |may: bool| json!({ "apiKeys": may });
                somebody(&self.operator, update(true), update(false))
            }
            Operation::UploadBegin
            | Operation::UploadCommit
            | Operation::UploadCancel
            | Operation::DownloadBegin
            | Operation::DownloadCancel
            | Operation::PresenceUpdate
            | Operation::TypingStart
            | Operation::TypingStop
            | Operation::Hello
            | Operation::AuthRefresh
            | Operation::Subscribe
            | Operation::Unsubscribe
            | Operation::PartSync
            | Operation::Cancel
            | Operation::Ping => Case::NotKept("it is about one socket, and ends with it"),
            Operation::LogSet => {
                Case::NotKept("refused where another program writes the log: it has its own test")
            }
            Operation::FileUpload => {
                Case::NotKept("its body is a form: it has its own test in `files/uploads.rs`")
            }
            Operation::ProjectImport => {
                Case::NotKept("its body is an archive: it has its own test in `backups.rs`")
            }
            Operation::ProjectBackup | Operation::ProjectExport | Operation::SnapshotCreate => {
                ann(p, json!({}), none)
            }
            Operation::BackupDelete => {
                let [one, other] = [self.backup(p).await, self.backup(p).await];
                ann(p, json!({ "backupId": one }), json!({ "backupId": other }))
            }
            Operation::ProjectRestore => {
                let [one, other] =
                    [self.backup(&self.put_back).await, self.backup(&self.put_back).await];
                let restore = |backup: &Value| json!({ "backupId": backup });
                ann(&self.put_back, restore(&one), restore(&other))
            }
            Operation::ServerBackupCreate | Operation::KeysRotate => {
                somebody(&self.operator, json!({}), none)
            }
            Operation::AuthLogout => somebody(&self.dave, json!({}), none),
            Operation::ProjectCreate => {
                somebody(&self.ann, json!({ "name": "new" }), json!({ "name": "other" }))
            }
            Operation::ProjectUpdate => ann(p, json!({ "name": "n" }), json!({ "name": "o" })),
            Operation::ProjectArchive => ann(&self.to_archive, json!({}), none),
            Operation::ProjectUnarchive => ann(&self.archived, json!({}), none),
            Operation::ProjectDelete => ann(&self.doomed, json!({}), none),
            Operation::MemberAdd => {
                let add = |role| json!({ "userId": self.carol.id(), "role": role });
                ann(p, add("viewer"), add("member"))
            }
            // An administrator who gives that up.
            Operation::MemberUpdate => {
                let update = |role| json!({ "userId": self.operator.id(), "role": role });
                let (person, project) = (self.operator.clone(), Some(p.clone()));
                let (body, other) = (update("viewer"), update("member"));
                Case::Repeats(Box::new(Try { person, project, body, other }))
            }
            Operation::MemberRemove => Case::Repeats(Box::new(Try {
                person: self.bob.clone(),
                project: Some(p.clone()),
                body: json!({ "userId": self.bob.id() }),
                other: json!({ "userId": self.carol.id() }),
            })),
            Operation::SessionCreate => ann(p, json!({ "title": "s" }), json!({ "title": "t" })),
            Operation::SessionUpdate => {
                let id = session().await;
                let update = |title| json!({ "sessionId": id, "title": title });
                ann(p, update("s"), update("t"))
            }
            Operation::SessionBudgetSet => {
                let id = session().await;
                let set = |steps| json!({ "sessionId": id, "budget": { "steps": steps } });
                ann(p, set(1), set(2))
            }
            Operation::SessionRead => {
                let talk = self.talk().await;
                let messages = self.ann.snapshot(p, &talk).await.messages;
                let read = |at: usize| json!({ "sessionId": talk, "messageId": messages[at].id });
                ann(p, read(0), read(1))
            }
            Operation::CaptureStart => {
                let id = session().await;
                let start = |minutes| json!({ "sessionId": id, "minutes": minutes });
                ann(p, start(1), start(2))
            }
            Operation::CaptureStop => {
                let id = session().await;
                let (session_id, minutes) = (id.clone(), None);
                let start = CaptureStart { session_id, minutes, expires_at: None, bytes_max: None };
                self.ann.client.call(Some(p), start).await.unwrap();
                ann(p, json!({ "sessionId": id }), json!({ "sessionId": id, "discard": true }))
            }
            Operation::SessionArchive | Operation::SessionDelete => {
                let [one, other] = [session().await, session().await];
                ann(p, json!({ "sessionId": one }), json!({ "sessionId": other }))
            }
            Operation::SessionCompact => {
                let [one, other] = [self.talk().await, self.talk().await];
                ann(p, json!({ "sessionId": one }), json!({ "sessionId": other }))
            }
            Operation::SessionUnarchive => {
                let [one, other] = [session().await, session().await];
                let request = SessionArchive { session_id: one.clone() };
                self.ann.client.call(Some(p), request).await.unwrap();
                ann(p, json!({ "sessionId": one }), json!({ "sessionId": other }))
            }
            Operation::MessageSend => {
                let id = session().await;
                let say = |text| json!({ "sessionId": id, "content": text });
                ann(p, say("say hi"), say("say ho"))
            }
            Operation::SessionFork => {
                let id = session().await;
                let fork = |title| json!({ "sessionId": id, "title": title });
                ann(p, fork("s"), fork("t"))
            }
            Operation::MessageDequeue => {
                let talk = self.ann.join(p, &self.busy).await;
                let id = talk.send_message("say never").await.message_id;
                let take = |id: &MessageId| json!({ "sessionId": self.busy, "messageId": id });
                ann(p, take(&id), take(&MessageId::from_bits(1)))
            }
            Operation::SessionRevert => {
                let mut talk = self.ann.conversation_in(p).await;
                let answer = talk.ask("say hi").await.id;
                let undo = |id: &MessageId| json!({ "sessionId": talk.session, "messageId": id });
                ann(p, undo(&answer), undo(&MessageId::from_bits(1)))
            }
            Operation::SessionUnrevert => {
                let mut talk = self.ann.conversation_in(p).await;
                let answer = talk.ask("say hi").await.id;
                let undo = json!({ "sessionId": talk.session, "messageId": answer });
                let undo: SessionRevert = serde_json::from_value(undo).unwrap();
                talk.call(undo).await.unwrap();
                let redo = |id: &SessionId| json!({ "sessionId": id });
                ann(p, redo(&talk.session), redo(&SessionId::from_bits(1)))
            }
            Operation::MessageRetry => {
                let mut talk = self.ann.conversation_in(p).await;
                let answer = talk.ask("say hi").await.id;
                let retry = |id: &MessageId| json!({ "sessionId": talk.session, "messageId": id });
                ann(p, retry(&answer), retry(&MessageId::from_bits(1)))
            }
            Operation::MessageEdit => {
                let mut talk = self.ann.conversation_in(p).await;
                let id = talk.send_message("say hi").await;
                talk.run_ended(&id.run_id).await;
                let say = |text| {
                    json!({ "sessionId": talk.session,
                                         "messageId": id.message_id, "content": text })
                };
                ann(p, say("say ho"), say("say ha"))
            }
            Operation::RunCancel => {
                let other = session().await;
                ann(p, json!({ "sessionId": self.busy }), json!({ "sessionId": other }))
            }
            Operation::RunResume => {
                let (id, run) = &self.interrupted;
                let resume = |run: &RunId| json!({ "sessionId": id, "runId": run });
                ann(p, resume(run), resume(&self.approval.run_id))
            }
            Operation::AgentCreate => ann(p, json!({ "name": "new" }), json!({ "name": "other" })),
            Operation::AgentUpdate => {
                let update = |prompt| json!({ "name": "changed", "prompt": prompt });
                ann(p, update("be brief"), update("be long"))
            }
            Operation::AgentDelete | Operation::McpDelete => {
                ann(p, json!({ "name": "doomed" }), json!({ "name": "changed" }))
            }
            Operation::ToolCreate => ann(p, tool("a"), tool("b")),
            Operation::ToolUpdate => {
                let [one, other] = [self.tool(p, "c").await, self.tool(p, "d").await];
                let update = |id| json!({ "toolId": id, "description": "new" });
                ann(p, update(one), update(other))
            }
            Operation::ToolDelete => {
                let [one, other] = [self.tool(p, "e").await, self.tool(p, "f").await];
                ann(p, json!({ "toolId": one }), json!({ "toolId": other }))
            }
            Operation::ToolTest => Case::NotKept("what came of it: it has its own test"),
            Operation::McpCreate => ann(p, web_server("new"), web_server("other")),
            Operation::McpUpdate => {
                let update = |limit: u64| json!({ "name": "changed", "requestTimeoutMs": limit });
                ann(p, update(1000), update(2000))
            }
            Operation::PermissionCreate => ann(p, rule("a"), rule("b")),
            Operation::PermissionUpdate => {
                let [one, other] = [self.rule(p).await, self.rule(p).await];
                let update = |id| json!({ "permissionId": id, "pattern": "c" });
                ann(p, update(one), update(other))
            }
            Operation::PermissionDelete => {
                let [one, other] = [self.rule(p).await, self.rule(p).await];
                ann(p, json!({ "permissionId": one }), json!({ "permissionId": other }))
            }
            Operation::UserManage => {
                let update = |user: &Person| json!({ "userId": user.id(), "canExecuteCode": true });
                somebody(&self.operator, update(&self.carol), update(&self.dave))
            }
            Operation::UserBudgetSet => {
                let set = |steps| {
                    json!({ "userId": self.carol.id(),
                    "budgets": { "total": { "steps": steps } } })
                };
                somebody(&self.operator, set(100), set(200))
            }
            Operation::ModelSet => {
                let set = |tokens| {
                    json!({ "providerId": "fake", "modelId": "new",
                    "facts": { "contextTokens": tokens } })
                };
                somebody(&self.operator, set(100), set(200))
            }
            Operation::ModelReset => {
                let model = |name| json!({ "providerId": "fake", "modelId": name });
                let mut known = model("known");
                known["facts"] = json!({});
                self.operator.rest("PUT", "/v1/admin/models", Some(known)).await;
                somebody(&self.operator, model("known"), model("other"))
            }
            Operation::ServerPermissionCreate => somebody(&self.operator, rule("a"), rule("b")),
            Operation::ServerPermissionUpdate => {
                let [one, other] = [self.server_rule().await, self.server_rule().await];
                let update = |id| json!({ "permissionId": id, "pattern": "c" });
                somebody(&self.operator, update(one), update(other))
            }
            Operation::ServerPermissionDelete => {
                let [one, other] = [self.server_rule().await, self.server_rule().await];
                let delete = |id| json!({ "permissionId": id });
                somebody(&self.operator, delete(one), delete(other))
            }
            Operation::ToolApprove => decision(&self.ann, p, &self.approval, &self.rejection),
            Operation::ToolReject => decision(&self.ann, p, &self.rejection, &self.approval),
            Operation::QuestionAnswer => {
                let [one, other] = self.questions.each_ref().map(|question| {
                    json!({ "sessionId": question.session_id, "questionId": question.id,
                            "answers": [["a"]] })
                });
                ann(p, one, other)
            }
            Operation::QuestionReject => {
                let [other, one] = self.questions.each_ref().map(|question| {
                    json!({ "sessionId": question.session_id, "questionId": question.id })
                });
                ann(p, one, other)
            }
            Operation::FileWrite => {
                let write = |content| json!({ "path": "b.txt", "content": content });
                ann(p, write("b"), write("c"))
            }
            Operation::FileEdit => {
                self.file("edited", "one two").await;
                let edit = |new| json!({ "path": "edited", "oldString": "one", "newString": new });
                ann(p, edit("1"), edit("2"))
            }
            Operation::FileMove => {
                self.file("moved", "moved").await;
                let move_to = |to| json!({ "from": "moved", "to": to });
                ann(p, move_to("there"), move_to("elsewhere"))
            }
            Operation::FileDelete => {
                self.file("deleted", "deleted").await;
                ann(p, json!({ "path": "deleted" }), json!({ "path": "b.txt" }))
            }
            Operation::FileRestore => {
                self.file("restored", "one").await;
                self.file("restored", "two").await;
                let restore = |to| json!({ "path": "restored", "to": to });
                ann(p, restore(1), restore(2))
            }
            Operation::FileLockTake => {
                ann(p, json!({ "path": "locked" }), json!({ "path": "locked too" }))
            }
            Operation::SnapshotRestore => {
                let path = format!("/v1/projects/{p}/snapshots");
                let make =
                    async || self.ann.post(&path, json!({})).await.json["data"]["id"].clone();
                let [one, other] = [make().await, make().await];
                self.file("later", "later").await;
                ann(p, json!({ "snapshotId": one }), json!({ "snapshotId": other }))
            }
            Operation::FileUnlock => {
                let path = format!("/v1/projects/{p}/files/locks");
                for name in ["unlocked", "locked still"] {
                    self.ann.post(&path, json!({ "path": name })).await;
                }
                ann(p, json!({ "path": "unlocked" }), json!({ "path": "locked still" }))
            }
            Operation::ActorRestart => {
                let [one, other] = self.watched.each_ref().map(|session| self.actor_of(session));
                somebody(&self.operator, one, other)
            }
            Operation::ActorStop => {
                let [other, one] = self.watched.each_ref().map(|session| self.actor_of(session));
                somebody(&self.operator, one, other)
            }
        }
    }

    /// Waits until nothing happens any more by itself, but for a run that waits for a person.
    async fn settled(&self) {
        let is_busy = |state: &Value| {
            ![SessionState::Queued, SessionState::Running].iter().all(|busy| *state != json!(busy))
        };
        let settled = async {
            loop {
                let sessions = self.sessions(&self.project).await;
                let sessions = sessions["data"].as_array().unwrap().clone();
                if !sessions.iter().any(|session| is_busy(&session["state"])) {
                    break;
                }
            }
        };
        patiently("the runs to end", settled).await;
    }

    async fn sessions(&self, project: &ProjectId) -> Value {
        let path = format!("/v1/projects/{project}/sessions?includeArchived=true&limit=100");
        self.ann.get(&path).await.json
    }

    /// All that an operation could have changed.
    async fn state(&self) -> Value {
        self.settled().await;
        let mut state = vec![self.ann.get("/v1/projects?includeArchived=true").await.json];
        for project in [&self.project, &self.archived, &self.to_archive] {
            state.push(self.ann.get(&format!("/v1/projects/{project}/members")).await.json);
            // The position in it counts every event.
            state.push(self.sessions(project).await);
        }
        let directories = std::fs::read_dir(self.app.data_dir().join("projects")).unwrap().count();
        let sql = "SELECT (SELECT count(*) FROM audit), (SELECT count(*) FROM auth_sessions
                   WHERE revoked_at IS NOT NULL)";
        let conn = self.root_database();
        let counts: (u32, u32) =
            conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        json!([state, directories, counts])
    }

    /// The number of the last record of the audit.
    fn audit_head(&self) -> u64 {
        let sql = "SELECT coalesce(max(id), 0) FROM audit";
        self.root_database().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Action and result of what a person did behind a record of the audit, over this machine and with a login.
    fn audited_since(&self, head: u64, person: &Person) -> Vec<(String, String)> {
        let conn = self.root_database();
        let sql = "SELECT action, result FROM audit WHERE id > ?1 AND user_id = ?2 AND ip = '127.0.0.1'
                   AND credential LIKE 'aus_%' AND target <> '' AND request_id IS NOT NULL ORDER BY id";
        let mut statement = conn.prepare(sql).unwrap();
        let values = rusqlite::params![head, person.id().as_str()];
        let rows = statement.query_map(values, |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    fn root_database(&self) -> Connection {
        let path = self.app.data_dir().join("root.db");
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    async fn again(self) -> Self {
        let app = self.app.restart().await;
        let [operator, ann, bob, dave, carol] =
            [&self.operator, &self.ann, &self.bob, &self.dave, &self.carol].map(|p| app.again(p));
        Self { app, operator, ann, bob, dave, carol, ..self }
    }
}

/// An MCP server that nobody reaches.
fn api_key(key: &str) -> Value {
    json!({ "providerId": "fake", "apiKey": key })
}

/// Sets two keys and answers the requests that take them away.
async fn credentials(person: &Person, path: &str) -> [Value; 2] {
    let mut requests = [Value::Null, Value::Null];
    for (request, provider) in requests.iter_mut().zip(["fake", "spare"]) {
        let set = person.post(path, json!({ "providerId": provider, "apiKey": "k" })).await;
        *request = json!({ "credentialId": set.json["data"]["id"] });
    }
    requests
}

fn web_server(name: &str) -> Value {
    let transport = json!({ "type": "http", "url": "https://mcp.example/" });
    json!({ "name": name, "transport": transport, "enabled": false })
}

/// A tool that nobody calls.
fn tool(name: &str) -> Value {
    json!({ "name": name, "description": "Does nothing.", "parameters": { "type": "object" },
            "http": { "method": "GET", "url": "https://nowhere.example/" } })
}

/// A rule that stands in the way of nothing here.
fn rule(pattern: &str) -> Value {
    json!({ "permission": "edit", "pattern": format!("/nowhere/{pattern}"), "action": "ask" })
}

fn decision(person: &Person, project: &ProjectId, one: &Approval, other: &Approval) -> Case {
    let decide =
        |it: &Approval| json!({ "sessionId": it.session_id, "toolCallId": it.tool_call_id });
    let (person, project) = (person.clone(), Some(project.clone()));
    Case::Repeats(Box::new(Try { person, project, body: decide(one), other: decide(other) }))
}

/// What the audit holds of an operation that is done.
fn expected_audit(operation: Operation) -> Vec<(String, String)> {
    let (name, results): (&str, &[&str]) = match operation {
        Operation::AuthLogout
        | Operation::LoginRevoke
        | Operation::KeyRevoke
        | Operation::CredentialCreate
        | Operation::CredentialDelete
        | Operation::ProjectCredentialCreate
        | Operation::ProjectCredentialDelete
        | Operation::ServerCredentialCreate
        | Operation::ServerCredentialDelete
        | Operation::UserUpdate
        | Operation::UserCreate
        | Operation::UserLogout
        | Operation::UserRemove
        | Operation::ProjectUpdate
        | Operation::ProjectSettingsUpdate
        | Operation::ProjectArchive
        | Operation::ProjectUnarchive
        | Operation::ProjectDelete
        | Operation::ProjectTransfer
        | Operation::ProjectLeave
        | Operation::ProjectExport
        | Operation::ProjectRestore
        | Operation::MemberAdd
        | Operation::MemberUpdate
        | Operation::MemberRemove
        | Operation::InvitationRevoke
        | Operation::InvitationAccept
        | Operation::ServerInvitationRevoke
        | Operation::SettingsUpdate
        | Operation::ServerBackupCreate
        | Operation::ToolTest => (operation.name(), &["done"]),
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
        | Operation::SessionBudgetSet
        | Operation::CaptureStart
        | Operation::CaptureStop
        | Operation::BackupDelete => (operation.name(), &["begun", "done"]),
        // What was asked for, and what came of it.
        Operation::KeysRotate => ("keys.rotate", &["done", "done"]),
        Operation::UserManage => ("user.update", &["done"]),
        Operation::UserBudgetSet => ("budget.set", &["done"]),
        Operation::ServerPermissionCreate => ("permission.create", &["done"]),
        Operation::ServerPermissionUpdate => ("permission.update", &["done"]),
        Operation::ServerPermissionDelete => ("permission.delete", &["done"]),
        Operation::ModelSet => ("model.set", &["done"]),
        Operation::ModelReset => ("model.reset", &["done"]),
        Operation::ActorRestart => ("actor.restart", &["done"]),
        Operation::ActorStop => ("actor.stop", &["done"]),
        // It changes no right and shows no secret.
        _ => ("", &[]),
    };
    results.iter().map(|result| (name.to_owned(), (*result).to_owned())).collect()
}

/// Sends a request over its REST route with a key.
async fn send(operation: Operation, who: &Try, body: &Value, key: &str) -> RestAnswer {
    let route = operation.spec().rest.unwrap();
    let project = who.project.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut path = route.path.replace("{projectId}", &project);
    let mut fields = body.as_object().unwrap().clone();
    fields.retain(|name, value| {
        let place = format!("{{{name}}}");
        let is_in_path = path.contains(&place);
        path = path.replace(&place, value.as_str().unwrap_or_default());
        !is_in_path
    });
    let body = if matches!(route.data, Data::Bytes(_) | Data::Upload(_)) {
        path = format!("{path}?path={}", fields["path"].as_str().unwrap());
        fields["content"].as_str().unwrap().to_owned()
    } else {
        Value::Object(fields).to_string()
    };
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let (client, token) = (&who.person.client, Some(who.person.token()));
    client.raw(route.method.as_str(), &path, token, &headers, body.into()).await.unwrap()
}

fn is_replay(answer: &RestAnswer) -> bool {
    answer.headers.get("idempotent-replay").is_some_and(|value| value == "true")
}

#[tokio::test]
async fn a_repeat_of_every_operation_answers_the_first_answer_and_does_nothing_also_after_a_restart()
 {
    let world = Box::pin(World::new()).await;
    let mut firsts = Vec::new();
    for operation in Operation::ALL {
        let name = operation.name();
        let who = match world.case(*operation).await {
            Case::Reads => continue,
            Case::NotKept(reason) => {
                assert!(operation.right() == Right::Public || !reason.is_empty());
                continue;
            }
            Case::Repeats(who) => who,
        };
        let head = world.audit_head();
        let first = send(*operation, &who, &who.body, "key").await;
        assert!(first.is_success() && !is_replay(&first), "{name}: {first:?}");
        let audited = world.audited_since(head, &who.person);
        assert_eq!(audited, expected_audit(*operation), "{name}");
        if *operation == Operation::RunCancel {
            // A later run, which the repeat must not end.
            world.settled().await;
            let content = Content::Text(WAITS.to_owned());
            let request = MessageSend {
                session_id: world.busy.clone(),
                content,
                when_busy: None,
                attachments: Vec::new(),
            };
            let mut talk = world.ann.join(&world.project, &world.busy).await;
            talk.call(request).await.unwrap();
            talk.approval().await;
        }
        let before = world.state().await;
        let again = send(*operation, &who, &who.body, "key").await;
        assert!(is_replay(&again), "{name}: {again:?}");
        assert_eq!((again.status, &again.json), (first.status, &first.json), "{name}");
        if who.other != Value::Null {
            let other = send(*operation, &who, &who.other, "key").await;
            assert_eq!(other.error().unwrap().code, ErrorCode::IdempotencyConflict, "{name}");
        }
        assert_eq!(world.state().await, before, "{name} happened again");
        firsts.push((*operation, who, first));
    }
    assert!(firsts.len() > 20, "{}", firsts.len());

    let talk = world.ann.join(&world.project, &world.busy).await;
    assert!(talk.cancel().await, "the later run");
    let world = Box::pin(world.again()).await;
    let before = world.state().await;
    for (operation, mut who, first) in firsts {
        who.person = world.app.again(&who.person);
        let again = send(operation, &who, &who.body, "key").await;
        assert!(is_replay(&again), "{}: {again:?}", operation.name());
        assert_eq!((again.status, &again.json), (first.status, &first.json));
    }
    assert_eq!(world.state().await, before);
}

#[tokio::test]
async fn without_its_key_what_took_the_right_away_is_refused() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    let who = |person: &Person| Try {
        person: person.clone(),
        project: Some(project.clone()),
        body: json!({}),
        other: Value::Null,
    };
    let delete = async |person: &Person, key: &str| {
        let who = who(person);
        send(Operation::ProjectDelete, &who, &who.body, key).await
    };
    assert!(delete(&ann, "mine").await.is_success());
    assert!(is_replay(&delete(&ann, "mine").await));
    // Another key, and the same key of somebody else.
    for (person, key) in [(&ann, "other"), (&bob, "mine")] {
        assert_eq!(rest_refusal(&delete(person, key).await).code, ErrorCode::NotFound);
    }
    // A key of one login does not end another.
    let second =
        Person::new(app.client(), app.client().login("ann@example.com", PASSWORD).await.unwrap());
    let logout = async |person: &Person| {
        let who = Try { project: None, ..who(person) };
        send(Operation::AuthLogout, &who, &who.body, "bye").await
    };
    for person in [&ann, &second] {
        assert!(person.get("/v1/me").await.is_success());
        assert!(!is_replay(&logout(person).await));
        assert_eq!(person.get("/v1/me").await.status, 401);
        assert!(is_replay(&logout(person).await));
    }
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_day() {
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let options = AppOptions { clock: Some(Arc::clone(&clock) as _), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    app.user("ann").await;
    let create = async || {
        let login = app.client().login("ann@example.com", PASSWORD).await.unwrap();
        let (person, body) = (Person::new(app.client(), login), json!({ "name": "p" }));
        let who = Try { person, project: None, body, other: Value::Null };
        send(Operation::ProjectCreate, &who, &who.body, "key").await
    };
    let first = create().await;
    clock.advance(ALMOST_A_DAY);
    assert!(is_replay(&create().await));
    clock.advance(Duration::from_millis(1));
    let later = create().await;
    assert!(!is_replay(&later) && later.json != first.json, "{later:?}");
}

#[tokio::test]
async fn a_repeated_change_of_the_log_does_not_undo_a_later_one() {
    let dir = tempdir().unwrap();
    let command = ServerProcess::command(env!("CARGO_BIN_EXE_iris"), dir.path());
    let server = ServerProcess::start(command).await;
    let setup = iris_protocol::AuthSetup {
        token: iris_testkit::SETUP_TOKEN.to_owned(),
        email: "root@example.com".to_owned(),
        username: "root".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let client = server.client();
    let operator = Person::new(&client, client.setup(&setup).await.unwrap());
    let set = async |filter: &str, key: &str| {
        let request = LogSet { filter: Some(filter.to_owned()), format: None };
        let (person, body) = (operator.clone(), serde_json::to_value(request).unwrap());
        let who = Try { person, project: None, body, other: Value::Null };
        send(Operation::LogSet, &who, &who.body, key).await
    };
    let first = set("warn", "one").await;
    assert!(first.is_success(), "{first:?}");
    set("error", "two").await;
    let again = set("warn", "one").await;
    assert!(is_replay(&again));
    assert_eq!(again.json, first.json);
    assert_eq!(operator.get("/v1/admin/log").await.json["data"]["filter"], "error");
    assert_eq!(set("info", "one").await.error().unwrap().code, ErrorCode::IdempotencyConflict);
}
