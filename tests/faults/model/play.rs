//! The server and everybody of one plan.

use std::collections::BTreeSet;
use std::time::Duration;

use iris_client::Client;
use iris_protocol::{
    ActorList, AuthRegister, AuthSetup, Content, Event, EventFrame, MemberAdd, MemberRemove,
    MemberUpdate, MessageSend, Position, ProjectId, Role, Room, RoomRequest, RoomSince, RoomStatus,
    RunId, ServerFrame, SessionId, SessionUpdate, Subscribe,
};
use iris_testkit::{PASSWORD, Person, SETUP_TOKEN, ServerProcess, Weather, moment, patiently};
use tempfile::{TempDir, tempdir};

use super::ear::Known;
use super::listener::{self, Listener};
use super::streamer::Streamer;
use super::{LISTENERS, SESSIONS, Step};
use crate::player::project_path;

pub(super) struct Play {
    data_dir: TempDir,
    /// None while it is down.
    server: Option<ServerProcess>,
    operator: Person,
    listeners: Vec<Listener>,
    project: ProjectId,
    sessions: Vec<SessionId>,
    streamer: Streamer,
    /// Runs that the server has acknowledged.
    runs: BTreeSet<RunId>,
    names: usize,
}

async fn start(data_dir: &TempDir) -> ServerProcess {
    let mut command = ServerProcess::command(env!("CARGO_BIN_EXE_iris"), data_dir.path());
    command.env("IRIS_PROJECT_IDLE_SECONDS", "1").env("IRIS_SESSION_IDLE_SECONDS", "1");
    // Half of a connection that the other half does not know of is found out.
    command.env("IRIS_PING_INTERVAL_SECONDS", "1").env("IRIS_PONG_TIMEOUT_SECONDS", "2");
    ServerProcess::start(command).await
}

async fn register(client: &Client, name: &str) -> Person {
    let email = format!("{name}@example.com");
    let request = AuthRegister {
        invitation: None,
        email,
        username: name.to_owned(),
        password: PASSWORD.to_owned(),
    };
    Person::new(client, client.register(&request).await.unwrap())
}

impl Play {
    pub(super) async fn begin() -> Self {
        let data_dir = tempdir().unwrap();
        let server = start(&data_dir).await;
        let client = server.client();
        let setup = AuthSetup {
            token: SETUP_TOKEN.to_owned(),
            email: "operator@example.com".to_owned(),
            username: "operator".to_owned(),
            password: PASSWORD.to_owned(),
        };
        let operator = Person::new(&client, client.setup(&setup).await.unwrap());
        let mut people = Vec::new();
        for number in 0..LISTENERS {
            people.push(register(&client, &format!("listener{number}")).await);
        }
        let project = people[0].project("p").await.id;
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            sessions.push(people[0].session(&project).await.id);
        }
        for person in &people[1..] {
            people[0].add_member(&project, person, Role::Member).await;
        }
        let mut listeners = Vec::new();
        for person in people {
            listeners.push(Listener::start(&server, person, &project).await);
        }
        let client = &listeners[0].person.client;
        let at = client.call(Some(&project), listener::SESSIONS).await.unwrap().as_of;
        let (server, runs, streamer) = (Some(server), BTreeSet::new(), Streamer::since(at));
        Self { data_dir, server, operator, listeners, project, sessions, streamer, runs, names: 0 }
    }

    /// What was done, for whoever looks whether it was anything.
    pub(super) fn end(&self) -> String {
        let ears = self.listeners.iter().map(|listener| listener.ear.borrow());
        let (mut events, mut joins, mut pieces) = (0, 0, 0);
        for ear in ears {
            events += ear.rooms.values().map(|heard| heard.events.len()).sum::<usize>();
            (joins, pieces) = (joins + ear.joins, pieces + ear.pieces);
        }
        assert!(events > 0 && joins > LISTENERS && pieces > 0, "a plan that does nothing");
        format!("{events} events heard, {joins} joins, {pieces} pieces, {} runs", self.runs.len())
    }

    fn owner(&self) -> &Person {
        &self.listeners[0].person
    }

    fn room(&self, session: Option<usize>) -> Room {
        match session {
            Some(session) => Room::Session(self.sessions[session].clone()),
            None => Room::Project(self.project.clone()),
        }
    }

    fn rooms(&self) -> Vec<Room> {
        let sessions = (0..SESSIONS).map(|session| self.room(Some(session)));
        sessions.chain([self.room(None)]).collect()
    }

    pub(super) async fn step(&mut self, number: usize, step: Step) {
        match step {
            Step::Rename { session, times } => self.rename(session, times).await,
            Step::Say { session, words } => self.say(session, words).await,
            Step::Join { listener, session } => {
                self.listeners[listener].join(&self.room(session));
            }
            Step::Leave { listener, session } => {
                self.listeners[listener].leave(&self.room(session));
            }
            Step::Cut { listener } => self.listeners[listener].proxy.cut(),
            Step::Stall { listener } => {
                let weather = Weather { is_stalled: true, ..Weather::FAIR };
                self.listeners[listener].proxy.set(weather);
            }
            Step::Slow { listener, bytes, delay_ms } => {
                let delay = Duration::from_millis(delay_ms);
                let weather = Weather { bytes_max: bytes, delay, is_stalled: false };
                self.listeners[listener].proxy.set(weather);
            }
            Step::Fair { listener } => self.listeners[listener].proxy.set(Weather::FAIR),
            Step::Remove { listener } => self.remove(listener).await,
            Step::Add { listener } => self.add(listener).await,
            Step::ChangeRole { listener } => self.change_role(listener).await,
            Step::Rest => self.rest().await,
            Step::Kill => self.kill().await,
            Step::Calm => self.calm().await,
        }
        for (name, listener) in self.listeners.iter().enumerate() {
            let ear = listener.ear.borrow();
            assert!(ear.wrongs.is_empty(), "listener {name}, step {number}: {:#?}", ear.wrongs);
            let bar = listener.barred_after.unwrap_or(u64::MAX);
            assert!(ear.last() <= bar, "listener {name}, step {number}: heard more than {bar}");
        }
    }

    async fn rename(&mut self, session: usize, times: usize) {
        for _ in 0..times {
            self.names += 1;
            let (session_id, title) = (self.sessions[session].clone(), self.names.to_string());
            let request = SessionUpdate {
                session_id,
                title: Some(title),
                agent: None,
                model: None,
                mode: None,
            };
            self.owner().client.call(Some(&self.project), request).await.unwrap();
        }
    }

    async fn say(&mut self, session: usize, words: usize) {
        let script = format!("delay 2\nchunks {words} word");
        let (session_id, content) = (self.sessions[session].clone(), Content::Text(script));
        let request = MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
        let accepted = self.owner().client.call(Some(&self.project), request).await.unwrap();
        self.runs.insert(accepted.run_id);
    }

    async fn remove(&mut self, listener: usize) {
        if !self.listeners[listener].is_member {
            return;
        }
        let (client, project) = (&self.owner().client, Some(&self.project));
        let user_id = self.listeners[listener].person.id().clone();
        client.call(project, MemberRemove { user_id }).await.unwrap();
        let head = client.call(project, listener::SESSIONS).await.unwrap().as_of.seq;
        let listener = &mut self.listeners[listener];
        (listener.is_member, listener.barred_after) = (false, Some(head));
    }

    async fn add(&mut self, listener: usize) {
        if self.listeners[listener].is_member {
            return;
        }
        self.listeners[listener].barred_after = None;
        let user_id = Some(self.listeners[listener].person.id().clone());
        let request = MemberAdd { user_id, email: None, role: Role::Viewer };
        self.owner().client.call(Some(&self.project), request).await.unwrap();
        let listener = &mut self.listeners[listener];
        (listener.is_member, listener.role) = (true, Role::Viewer);
        listener.ask_again();
    }

    /// Who may less or more hears everything all the same.
    async fn change_role(&mut self, listener: usize) {
        let Listener { is_member, role, person, .. } = &self.listeners[listener];
        if !is_member {
            return;
        }
        let role = if *role == Role::Admin { Role::Viewer } else { Role::Admin };
        let request = MemberUpdate { user_id: person.id().clone(), role };
        self.owner().client.call(Some(&self.project), request).await.unwrap();
        self.listeners[listener].role = role;
    }

    /// Lets everybody know at once what became of their connections.
    fn clear_up(&self) {
        for listener in &self.listeners {
            listener.proxy.set(Weather::FAIR);
            listener.proxy.cut();
        }
    }

    async fn rest(&mut self) {
        let wanted: Vec<_> = self.listeners.iter().map(Listener::go).collect();
        self.streamer.go();
        self.clear_up();
        let under = Some(project_path(&self.project));
        let list = ActorList { kind: None, under };
        let closed = async {
            while !self.operator.client.actors(&list).await.unwrap().actors.is_empty() {
                moment().await;
            }
        };
        patiently("the project to close", closed).await;
        for (listener, rooms) in self.listeners.iter().zip(wanted) {
            listener.come_back(rooms);
        }
    }

    async fn kill(&mut self) {
        self.server.take().unwrap().kill();
        let server = start(&self.data_dir).await;
        let client = server.client();
        self.operator = Person::new(&client, self.operator.grant.clone());
        for listener in &mut self.listeners {
            listener.person = Person::new(&client, listener.person.grant.clone());
            listener.proxy.lead_to(&server.url);
        }
        self.server = Some(server);
    }

    async fn calm(&mut self) {
        self.clear_up();
        for listener in &self.listeners {
            listener.ask_again();
        }
        // Until nothing has happened while everybody caught up.
        loop {
            let before = self.log(true).await;
            for (name, listener) in self.listeners.iter().enumerate() {
                for (room, events) in &before {
                    if listener.is_member && listener.wants(room) {
                        let head = events.last().and_then(|frame| frame.meta.seq).unwrap_or(0);
                        listener
                            .is_at(&format!("listener {name} to hear {head}"), room, head)
                            .await;
                    }
                }
            }
            let heads = before.iter().filter_map(|(_, events)| events.last()?.meta.seq);
            let head = heads.max().unwrap_or_default();
            let (rooms, url) = (self.rooms(), self.server.as_ref().unwrap().url.clone());
            let place = (url.as_str(), &self.project);
            self.streamer.hear(&self.listeners[0].person, place, &rooms, head).await;
            if self.log(false).await == before {
                self.compare_streamer(&before);
                return self.compare(&before).await;
            }
        }
    }

    /// Every event of each room, as somebody hears it who comes now; when all runs have ended.
    async fn log(&self, is_patient: bool) -> Vec<(Room, Vec<EventFrame>)> {
        let socket = self.owner().connect().await;
        let (client, project) = (&self.owner().client, Some(&self.project));
        let at = client.call(project, listener::SESSIONS).await.unwrap().as_of;
        let rooms = self.rooms();
        let requests = rooms.iter().map(|room| {
            let since = Some(Position { seq: 0, ..at.clone() });
            RoomRequest::Since(RoomSince { room: room.to_string(), since })
        });
        let subscribe =
            Subscribe { rooms: requests.collect(), deltas: Some(false), presence: None };
        let joined = socket.call(Some(&self.project), subscribe).await.unwrap();
        let is_whole = |status| status == RoomStatus::Replayed;
        assert!(joined.payload.rooms.iter().all(|room| is_whole(room.status)), "{joined:?}");
        let mut log: Vec<(Room, Vec<EventFrame>)> =
            rooms.into_iter().map(|room| (room, Vec::new())).collect();
        // The replay came before the answer, and both before the answer to this.
        socket.send_text(r#"{"id":"last","type":"ping","payload":{}}"#).await.unwrap();
        let (mut running, mut is_replayed) = (self.runs.clone(), false);
        while !is_replayed || (is_patient && !running.is_empty()) {
            let frame = patiently("the replay and the end of all runs", socket.next_frame()).await;
            let frame = match frame.unwrap() {
                ServerFrame::Event(frame) => frame,
                ServerFrame::Response(_) => {
                    is_replayed = true;
                    continue;
                }
                _ => continue,
            };
            if let Event::RunCompleted { run_id, .. } = &frame.event {
                running.remove(run_id);
            }
            let (_, events) = log.iter_mut().find(|(room, _)| *room == frame.meta.room).unwrap();
            events.push(*frame);
        }
        log
    }

    fn compare_streamer(&self, log: &[(Room, Vec<EventFrame>)]) {
        let Streamer { began_at, events: heard, .. } = &self.streamer;
        let all = log.iter().flat_map(|(_, events)| events);
        let mut all: Vec<_> = all.filter(|frame| frame.meta.seq > Some(*began_at)).collect();
        all.sort_by_key(|frame| frame.meta.seq);
        let first = all.iter().zip(heard).find(|(one, other)| *one != other);
        assert!(first.is_none(), "by event streams: {first:#?}");
        assert_eq!(all.len(), heard.len(), "by event streams");
    }

    async fn compare(&self, log: &[(Room, Vec<EventFrame>)]) {
        for (room, events) in log {
            let known = match room {
                Room::Session(session) => {
                    Known::of(&self.owner().snapshot(&self.project, session).await)
                }
                Room::Project(_) | Room::User(_) | Room::Admin => Known::default(),
            };
            for (name, listener) in self.listeners.iter().enumerate() {
                let ear = listener.ear.borrow();
                let Some(heard) = ear.rooms.get(room) else { continue };
                if !listener.is_member || !listener.wants(room) {
                    continue;
                }
                let since = events.iter().filter(|frame| frame.meta.seq > Some(heard.began_at));
                let since: Vec<&EventFrame> = since.collect();
                let first = since.iter().zip(&heard.events).find(|(one, other)| *one != other);
                assert!(first.is_none(), "listener {name} in {room}: {first:#?}");
                let counts = (since.len(), heard.events.len());
                assert_eq!(counts.0, counts.1, "listener {name} in {room}");
                if let Room::Session(_) = room {
                    assert_eq!(heard.known, known, "listener {name} in {room}");
                }
            }
        }
    }
}
