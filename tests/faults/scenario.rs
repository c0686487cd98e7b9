//! One pass through everything that the server can do, in parts, each with a project of its own. Every
//! message of every actor is sent in one of them.

mod backups;
mod extensions;
mod files;
mod operator;
mod people;
mod rooms;
mod runs;

use iris_actors::SystemClock;
use iris_agent::Clock;
use iris_protocol::{
    ActorList, AgentCreate, AgentDelete, AgentList, AgentUpdate, AuthRegister, Budget,
    CaptureStart, CaptureStop, MemberAdd, PermissionAction, PermissionCreate, PermissionDelete,
    PermissionUpdate, ProjectArchive, ProjectDelete, ProjectId, ProjectUnarchive, ProjectUpdate,
    Role, SessionArchive, SessionBudgetSet, SessionCompact, SessionDelete, SessionGet, SessionId,
    SessionRead, SessionUnarchive, SessionUpdate, UserGet,
};
use iris_testkit::{PASSWORD, Person, moment, patiently};

use crate::player::{Player, project_path};
use crate::talk::{How, Talk};

/// Writes a file, once somebody lets it.
const WRITE: &str = "call write {\"path\": \"a\", \"content\": \"1\"}\nstep\nsay done";

/// One part of the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Accounts,
    People,
    Project,
    Extensions,
    Sessions,
    Rooms,
    Runs,
    Backups,
    Operator,
    Idle,
}

impl Part {
    pub(crate) const ALL: &[Self] = &[
        Self::Accounts,
        Self::People,
        Self::Project,
        Self::Extensions,
        Self::Sessions,
        Self::Rooms,
        Self::Runs,
        Self::Backups,
        Self::Operator,
        Self::Idle,
    ];

    pub(crate) async fn play(self, player: &Player<'_>) {
        match self {
            Self::Accounts => accounts(player).await,
            Self::People => people::people(player).await,
            Self::Project => project(player).await,
            Self::Extensions => extensions::extensions(player).await,
            Self::Sessions => sessions(player).await,
            Self::Rooms => rooms::rooms(player).await,
            Self::Runs => runs::runs(player).await,
            Self::Backups => backups::backups(player).await,
            Self::Operator => operator::operator(player).await,
            Self::Idle => idle(player).await,
        }
    }
}

async fn accounts(player: &Player<'_>) {
    let client = player.app.client();
    let name = format!("user{}", SystemClock.now_ms());
    let email = format!("{name}@example.com");
    let register = async || {
        let (email, password) = (email.clone(), PASSWORD.to_owned());
        let request = AuthRegister { invitation: None, email, username: name.clone(), password };
        Ok(client.register(&request).await?)
    };
    player.insist_done("auth.register", register).await;
    let login = async || Ok(client.login(&email, PASSWORD).await?);
    let grant = player.insist("auth.login", login).await;
    let person = Person::new(client, grant);
    // A refresh whose answer is lost has used up its token: then one logs in again.
    let refresh = async || {
        let again = Person::new(client, client.login(&email, PASSWORD).await?);
        Ok(again.client.refresh().await?)
    };
    player.insist("auth.refresh", refresh).await;
    let me = async || Ok(person.client.call(None, UserGet {}).await?);
    player.insist("user.get", me).await;
    let logout = async || Ok(person.client.logout().await?);
    player.insist("auth.logout", logout).await;
}

async fn project(player: &Player<'_>) {
    let project = player.project().await;
    let (client, id) = (&player.person.client, Some(&project));
    let rename = async || {
        let name = Some("b".to_owned());
        Ok(client.call(id, ProjectUpdate { name, description: None, settings: None }).await?)
    };
    player.insist("project.update", rename).await;
    for archive in [true, false] {
        let set = async || {
            if archive {
                client.call(id, ProjectArchive {}).await?;
            } else {
                client.call(id, ProjectUnarchive {}).await?;
            }
            Ok(())
        };
        player.insist("project.archive", set).await;
    }
    let name = || "helper".to_owned();
    let create = async || {
        let request = AgentCreate {
            name: name(),
            description: None,
            mode: None,
            prompt: None,
            model: None,
            tools: None,
            tuning: iris_protocol::AgentTuning::default(),
            permissions: None,
            budget: None,
        };
        Ok(client.call(id, request).await?)
    };
    player.insist_done("agent.create", create).await;
    let update = async || {
        let prompt = Some("help".to_owned());
        let request = AgentUpdate {
            name: name(),
            description: None,
            mode: None,
            prompt,
            model: None,
            tools: None,
            tuning: iris_protocol::AgentTuning::default(),
            permissions: None,
            budget: None,
        };
        Ok(client.call(id, request).await?)
    };
    player.insist("agent.update", update).await;
    let delete = async || Ok(client.call(id, AgentDelete { name: name() }).await?);
    player.insist_done("agent.delete", delete).await;
    rules(player, &project).await;
    let put = async || Ok(client.file_put(&project, "b.txt", "hello").await?);
    player.insist("file.write", put).await;
    let files = player.app.data_dir().join("projects").join(project.as_str()).join("files");
    std::fs::create_dir_all(files.join(".iris/agents")).unwrap();
    std::fs::write(files.join(".iris/agents/poet.md"), "---\n---\nRhyme.").unwrap();
    let list = async || Ok(client.call(id, AgentList {}).await?);
    assert!(player.insist("agent.list", list).await.agents.iter().any(|it| it.name == "poet"));
    let get = async || Ok(client.file_get(&project, "b.txt").await?);
    assert_eq!(player.insist("file.read", get).await, "hello");
    files::files(player, &project).await;
    delete_project(player, &project).await;
}

/// A permission rule that is made, changed and deleted.
async fn rules(player: &Player<'_>, project: &ProjectId) {
    let (client, id) = (&player.person.client, Some(project));
    let create = async || {
        let request = PermissionCreate {
            session_id: None,
            permission: "edit".to_owned(),
            pattern: "/nowhere".to_owned(),
            action: PermissionAction::Deny,
        };
        Ok(client.call(id, request).await?.rule.id)
    };
    let rule = player.insist("permission.create", create).await.unwrap();
    let update = async || {
        let pattern = Some("/nowhere/else".to_owned());
        let permission_id = rule.clone();
        let request = PermissionUpdate { permission_id, permission: None, pattern, action: None };
        Ok(client.call(id, request).await?)
    };
    player.insist("permission.update", update).await;
    let delete =
        async || Ok(client.call(id, PermissionDelete { permission_id: rule.clone() }).await?);
    player.insist_done("permission.delete", delete).await;
}

pub(crate) async fn delete_project(player: &Player<'_>, project: &ProjectId) {
    let delete = async || Ok(player.person.client.call(Some(project), ProjectDelete {}).await?);
    player.insist_done("project.delete", delete).await;
}

async fn sessions(player: &Player<'_>) {
    let project = player.project().await;
    let session = player.session(&project).await;
    let (client, id) = (&player.person.client, Some(&project));
    let session_id = || session.clone();
    rename(player, &project, &session).await;
    invite(player, &project).await;
    let mut talk = Talk::follow(player, &project, session.clone());
    talk.run("a run", "chunks 100 word", How::Watch).await;
    // Its answer may be lost while its run goes on: only with a key does the repeat tell which run it is.
    let compact = SessionCompact { session_id: session_id() };
    let compact = async || Ok(client.call_keyed(id, &compact, Some("compact")).await?);
    let made = player.insist("session.compact", compact).await;
    talk.ended(&made.run.id, How::Watch).await;
    drop(talk);
    mark_read(player, &project, &session).await;
    let archive = async || Ok(client.call(id, SessionArchive { session_id: session_id() }).await?);
    player.insist("session.archive", archive).await;
    let unarchive =
        async || Ok(client.call(id, SessionUnarchive { session_id: session_id() }).await?);
    player.insist("session.unarchive", unarchive).await;
    for permanent in [None, Some(true)] {
        let delete = async || {
            Ok(client.call(id, SessionDelete { session_id: session_id(), permanent }).await?)
        };
        player.insist_done("session.delete", delete).await;
    }
    delete_project(player, &project).await;
}

async fn rename(player: &Player<'_>, project: &ProjectId, session: &SessionId) {
    let rename = async || {
        let title = Some("renamed".to_owned());
        let request = SessionUpdate {
            session_id: session.clone(),
            title,
            agent: None,
            model: None,
            mode: None,
        };
        Ok(player.person.client.call(Some(project), request).await?)
    };
    player.insist("session.update", rename).await;
    let limit = async || {
        let budget = Budget { steps: Some(1_000), ..Budget::default() };
        let request = SessionBudgetSet { session_id: session.clone(), budget };
        Ok(player.person.client.call(Some(project), request).await?)
    };
    player.insist("session.budget.set", limit).await;
    record(player, project, session).await;
}

/// Has the session recorded, for a while.
async fn record(player: &Player<'_>, project: &ProjectId, session: &SessionId) {
    let begin = async || {
        let (session_id, minutes) = (session.clone(), Some(1));
        let request = CaptureStart { session_id, minutes, expires_at: None, bytes_max: None };
        Ok(player.person.client.call(Some(project), request).await?)
    };
    player.insist("session.capture.start", begin).await;
    let end = async || {
        let request = CaptureStop { session_id: session.clone(), discard: None };
        Ok(player.person.client.call(Some(project), request).await?)
    };
    player.insist("session.capture.stop", end).await;
}

/// Notes how far the user has read the session.
async fn mark_read(player: &Player<'_>, project: &ProjectId, session: &SessionId) {
    let last = player.person.snapshot(project, session).await.messages.pop();
    let Some(last) = last else { return };
    let read = async || {
        let (session_id, message_id) = (session.clone(), last.id.clone());
        Ok(player.person.client.call(Some(project), SessionRead { session_id, message_id }).await?)
    };
    player.insist("session.read", read).await;
}

/// Lets the operator follow the sessions of the project too.
pub(crate) async fn invite(player: &Player<'_>, project: &ProjectId) {
    let add = async || {
        let user_id = Some(player.operator.id().clone());
        let request = MemberAdd { user_id, email: None, role: Role::Member };
        Ok(player.person.client.call(Some(project), request).await?)
    };
    player.insist_done("member.add", add).await;
}

async fn idle(player: &Player<'_>) {
    let project = player.project().await;
    let session = player.session(&project).await;
    invite(player, &project).await;
    let mut talk = Talk::follow(player, &project, session.clone());
    talk.run("a run", "say hi", How::Watch).await;
    drop(talk);
    let under = Some(project_path(&project));
    let list = ActorList { kind: None, under };
    let closed = async {
        while !player.operator.client.actors(&list).await.unwrap().actors.is_empty() {
            moment().await;
        }
    };
    patiently("the project to close", closed).await;
    let read = async || {
        let request = SessionGet { session_id: session.clone(), limit: None, before: None };
        Ok(player.person.client.call(Some(&project), request).await?)
    };
    assert!(player.insist("session.get", read).await.messages.len() >= 2);
    delete_project(player, &project).await;
}
