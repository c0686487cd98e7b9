//! One pass through everything that the server can do, in parts, each with a project of its own. Every
//! message of every actor is sent in one of them.

use iris_actors::SystemClock;
use iris_actors::supervision::faults::Spot;
use iris_agent::Clock;
use iris_client::{ClientError, Socket};
use iris_protocol::{
    ActorList, AgentCreate, AgentDelete, AgentUpdate, AuthRegister, ErrorCode, Event, MemberAdd,
    MemberRemove, MemberUpdate, ProjectArchive, ProjectDelete, ProjectId, ProjectUnarchive,
    ProjectUpdate, Role, Room, RoomRequest, RoomStatus, RunStatus, SessionArchive, SessionDelete,
    SessionGet, SessionId, SessionUnarchive, SessionUpdate, Subscribe, Unsubscribe, UserGet,
};
use iris_testkit::{PASSWORD, Person, patiently};

use crate::player::{Player, Trouble, project_path};
use crate::talk::{How, Talk};

const WRITE: &str = "call write {\"path\": \"a\", \"content\": \"1\"}\nstep\nsay done";

/// One part of the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Accounts,
    Project,
    Sessions,
    Rooms,
    Runs,
    Operator,
    Idle,
}

impl Part {
    pub(crate) const ALL: &[Self] = &[
        Self::Accounts,
        Self::Project,
        Self::Sessions,
        Self::Rooms,
        Self::Runs,
        Self::Operator,
        Self::Idle,
    ];

    pub(crate) async fn play(self, player: &Player<'_>) {
        match self {
            Self::Accounts => accounts(player).await,
            Self::Project => project(player).await,
            Self::Sessions => sessions(player).await,
            Self::Rooms => rooms(player).await,
            Self::Runs => runs(player).await,
            Self::Operator => operator(player).await,
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
        let request = AuthRegister { email, username: name.clone(), password };
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
        let request = AgentCreate { name: name(), prompt: None, model: None, tools: None };
        Ok(client.call(id, request).await?)
    };
    player.insist_done("agent.create", create).await;
    let update = async || {
        let prompt = Some("help".to_owned());
        let request = AgentUpdate { name: name(), prompt, model: None, tools: None };
        Ok(client.call(id, request).await?)
    };
    player.insist("agent.update", update).await;
    let delete = async || Ok(client.call(id, AgentDelete { name: name() }).await?);
    player.insist_done("agent.delete", delete).await;
    let put = async || Ok(client.file_put(&project, "b.txt", "hello").await?);
    player.insist("file.write", put).await;
    let get = async || Ok(client.file_get(&project, "b.txt").await?);
    assert_eq!(player.insist("file.read", get).await, "hello");
    delete_project(player, &project).await;
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
        let request =
            SessionUpdate { session_id: session.clone(), title, agent: None, model: None };
        Ok(player.person.client.call(Some(project), request).await?)
    };
    player.insist("session.update", rename).await;
}

async fn rooms(player: &Player<'_>) {
    let project = player.project().await;
    let session = player.session(&project).await;
    let room = Room::Session(session.clone()).to_string();
    let visit = async || {
        let socket = player.person.client.connect(&Default::default()).await?;
        subscribe(&socket, &project, &room).await?;
        let title = Some("heard".to_owned());
        let session_id = session.clone();
        let request = SessionUpdate { session_id, title, agent: None, model: None };
        socket.call(Some(&project), request).await?;
        while !matches!(socket.next_event().await?.event, Event::SessionUpdated { .. }) {}
        socket.call(Some(&project), Unsubscribe { rooms: vec![room.clone()] }).await?;
        Ok(())
    };
    player.insist("visit", visit).await;
    let (client, user_id) = (&player.person.client, || player.friend.id().clone());
    for role in [Role::Viewer, Role::Member] {
        let add = async || {
            let request = MemberAdd { user_id: Some(user_id()), email: None, role: Role::Viewer };
            match client.call(Some(&project), request).await {
                Ok(_) => Ok(()),
                // From an attempt before.
                Err(ClientError::Api(error)) if !error.retryable => Ok(()),
                Err(error) => Err(error.into()),
            }
        };
        let update = async || {
            let request = MemberUpdate { user_id: user_id(), role };
            Ok(client.call(Some(&project), request).await?)
        };
        let sent_away = async || {
            add().await?;
            let socket = player.friend.client.connect(&Default::default()).await?;
            subscribe(&socket, &project, &room).await?;
            client.call(Some(&project), MemberRemove { user_id: user_id() }).await?;
            while !matches!(socket.next_event().await?.event, Event::RoomLeft { .. }) {}
            Ok(())
        };
        player.insist("member.add", add).await;
        player.insist("member.update", update).await;
        player.insist("member.remove", sent_away).await;
    }
    delete_project(player, &project).await;
}

async fn subscribe(socket: &Socket, project: &ProjectId, room: &str) -> Result<(), Trouble> {
    let request = Subscribe { rooms: vec![RoomRequest::Live(room.to_owned())], deltas: None };
    let joined = socket.call(Some(project), request).await?.payload.rooms.remove(0);
    match joined.code {
        Some(code) => Err(Trouble::Refused(code.into())),
        None => {
            assert_eq!(joined.status, RoomStatus::Live);
            Ok(())
        }
    }
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

async fn runs(player: &Player<'_>) {
    let project = player.project().await;
    let session = player.session(&project).await;
    invite(player, &project).await;
    let mut talk = Talk::follow(player, &project, session);
    talk.run("approved run", WRITE, How::Approve).await;
    talk.run("rejected run", WRITE, How::Reject).await;
    talk.run("cancelled run", "delay 5\nchunks 1000 tick", How::Cancel).await;
    talk.run("run with a tool", "think hm\ncall list {\"path\": \".\"}\nstep\nsay ok", How::Watch)
        .await;
    without_agent(player, &project, &mut talk).await;
    drop(talk);
    delete_project(player, &project).await;
}

/// A message whose agent is deleted while it waits behind another one.
async fn without_agent(player: &Player<'_>, project: &ProjectId, talk: &mut Talk<'_>) {
    let (client, id, name) = (&player.person.client, Some(project), || "helper".to_owned());
    let fails = async || {
        let request = AgentCreate { name: name(), prompt: None, model: None, tools: None };
        match client.call(id, request).await {
            Ok(_) => {}
            // From an attempt before.
            Err(ClientError::Api(error)) if error.code == ErrorCode::Conflict => {}
            Err(error) => return Err(error.into()),
        }
        let (session_id, agent) = (talk.session().clone(), Some(name()));
        let request = SessionUpdate { session_id, title: None, agent, model: None };
        client.call(id, request).await?;
        let first = talk.try_send(WRITE).await?;
        let second = talk.try_send("say no").await?;
        client.call(id, AgentDelete { name: name() }).await?;
        talk.cancel().await;
        talk.ended(&first, How::Watch).await;
        match talk.ended(&second, How::Watch).await {
            RunStatus::Failed => Ok(()),
            other => Err(Trouble::RunEnded(other)),
        }
    };
    player.insist("run without an agent", fails).await;
}

async fn operator(player: &Player<'_>) {
    let project = player.project().await;
    let session = player.session(&project).await;
    invite(player, &project).await;
    let mut talk = Talk::follow(player, &project, session.clone());
    talk.run("a run", "say hi", How::Watch).await;
    player.insist("a run that waits", async || talk.try_send(WRITE).await).await;
    talk.asked().await;
    player.insist("observe", async || observe_all(player).await).await;
    talk.cancel().await;
    let registry = project_path(&project);
    let session_path = format!("{registry}/session/{session}");
    for path in [&session_path, &registry, "node/root", "node/directory", "node/recorder"] {
        talk.run("a run before a restart", "say hi", How::Watch).await;
        restart(player, path).await;
    }
    for path in [&session_path, &registry] {
        talk.run("a run before a stop", "say hi", How::Watch).await;
        let stop = async || Ok(player.operator.client.stop_actor(path).await?);
        player.insist_done("stop", stop).await;
    }
    talk.run("a run after a stop", "say hi", How::Watch).await;
    drop(talk);
    delete_project(player, &project).await;
    let stored = async {
        let is_it = |spot: &Spot| spot.message == "Write<RecordSupervision>";
        while !player.app.supervision().faults().seen().iter().any(is_it) {
            tokio::task::yield_now().await;
        }
    };
    patiently("the log to be stored", stored).await;
}

/// Asks every actor what it says of itself, except those of the bystander.
async fn observe_all(player: &Player<'_>) -> Result<(), Trouble> {
    let client = &player.operator.client;
    let all = client.actors(&ActorList::default()).await?.actors;
    for actor in all.iter().filter(|actor| !player.spares(&actor.path)) {
        match client.actor(&actor.path).await {
            Ok(detail) if detail.observed.is_null() => {
                return Err(Trouble::Silent(actor.path.clone()));
            }
            Ok(_) => {}
            // It ended meanwhile.
            Err(ClientError::Api(error)) if !error.retryable => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Orders a restart and waits until it has happened, or the actor is gone with its parent.
async fn restart(player: &Player<'_>, path: &str) {
    let client = &player.operator.client;
    let order = async || {
        let before = client.actor(path).await?.actor.restarts;
        client.restart_actor(path).await?;
        while client.actor(path).await?.actor.restarts == before {}
        Ok(())
    };
    let order_if_there = async || match order().await {
        Err(ClientError::Api(error)) if error.code == ErrorCode::NotFound => Ok(()),
        ordered => Ok(ordered?),
    };
    player.insist("restart", order_if_there).await;
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
    let closed =
        async { while !player.operator.client.actors(&list).await.unwrap().actors.is_empty() {} };
    patiently("the project to close", closed).await;
    let read = async || {
        let request = SessionGet { session_id: session.clone(), limit: None, before: None };
        Ok(player.person.client.call(Some(&project), request).await?)
    };
    assert!(player.insist("session.get", read).await.messages.len() >= 2);
    delete_project(player, &project).await;
}
