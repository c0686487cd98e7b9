//! Somebody who wants to hear rooms, and comes back whenever the connection is lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use iris_client::{Client, ClientError, ConnectOptions};
use iris_protocol::{
    ErrorCode, ProjectId, Role, Room, RoomRequest, RoomSince, ServerFrame, SessionGet, SessionList,
    Subscribe, Unsubscribe,
};
use iris_testkit::{Person, Proxy, ServerProcess, patiently};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::ear::{Ear, Known};

/// Between two attempts to connect, unless something else is wanted meanwhile.
const AGAIN_AFTER: Duration = Duration::from_millis(10);
/// Most messages of a session.
const MESSAGES_MAX: u32 = 100;

/// Asks for the sessions, of which nobody needs more than the position.
pub(super) const SESSIONS: SessionList =
    SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };

/// What it wants to hear; a new number asks again for what was refused.
#[derive(Debug, Clone, Default)]
struct Wants {
    rooms: BTreeSet<String>,
    number: u64,
}

pub(super) struct Listener {
    pub(super) person: Person,
    pub(super) proxy: Proxy,
    pub(super) is_member: bool,
    pub(super) role: Role,
    /// Nothing after this event may be heard while it is no member.
    pub(super) barred_after: Option<u64>,
    wants: watch::Sender<Wants>,
    pub(super) ear: Arc<watch::Sender<Ear>>,
    listening: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Listener {
    /// Listens to nothing yet.
    pub(super) async fn start(server: &ServerProcess, person: Person, project: &ProjectId) -> Self {
        let proxy = Proxy::start(&server.url).await;
        let (wants, ear) = (watch::Sender::default(), Arc::new(watch::Sender::default()));
        let behind = Person::new(&Client::new(proxy.url()).unwrap(), person.grant.clone());
        let line = Line { person: behind, project: project.clone(), ear: Arc::clone(&ear) };
        let listening = tokio::spawn(line.listen(wants.subscribe()));
        let (is_member, role, barred_after) = (true, Role::Member, None);
        Self { person, proxy, is_member, role, barred_after, wants, ear, listening }
    }

    pub(super) fn join(&self, room: &Room) {
        self.wants.send_modify(|wants| {
            wants.rooms.insert(room.to_string());
        });
    }

    pub(super) fn leave(&self, room: &Room) {
        self.wants.send_modify(|wants| {
            wants.rooms.remove(&room.to_string());
        });
    }

    /// Asks again for what was refused or left.
    pub(super) fn ask_again(&self) {
        self.wants.send_modify(|wants| wants.number += 1);
    }

    pub(super) fn wants(&self, room: &Room) -> bool {
        self.wants.borrow().rooms.contains(&room.to_string())
    }

    /// Hears nothing for a moment; gives what it wants when it is back.
    pub(super) fn go(&self) -> BTreeSet<String> {
        let mut wanted = BTreeSet::new();
        self.wants.send_modify(|wants| wanted = std::mem::take(&mut wants.rooms));
        wanted
    }

    pub(super) fn come_back(&self, rooms: BTreeSet<String>) {
        self.wants.send_modify(|wants| wants.rooms = rooms);
    }

    pub(super) async fn is_at(&self, what: &str, room: &Room, head: u64) {
        let mut ear = self.ear.subscribe();
        let there = ear.wait_for(|ear| !ear.wrongs.is_empty() || ear.is_at(room, head));
        drop(patiently(what, there).await.unwrap());
    }
}

/// One end of the connections.
struct Line {
    person: Person,
    project: ProjectId,
    ear: Arc<watch::Sender<Ear>>,
}

impl Line {
    async fn listen(self, mut wants: watch::Receiver<Wants>) {
        loop {
            if wants.wait_for(|wants| !wants.rooms.is_empty()).await.is_err() {
                return;
            }
            // Whatever ended it: it comes back with its positions.
            let ended = self.connection(&mut wants).await;
            self.ear.send_modify(Ear::disconnected);
            if ended.is_err() {
                // Nothing tells that the network is there again.
                tokio::time::timeout(AGAIN_AFTER, wants.changed()).await.ok();
            }
        }
    }

    async fn connection(&self, wants: &mut watch::Receiver<Wants>) -> Result<(), ClientError> {
        let socket = self.person.client.connect(&ConnectOptions::default()).await?;
        let (mut joined, mut ever) = (BTreeSet::new(), BTreeSet::new());
        loop {
            let wanted = wants.borrow_and_update().rooms.clone();
            if wanted.is_empty() {
                return Ok(());
            }
            let rooms: Vec<String> = joined.difference(&wanted).cloned().collect();
            if !rooms.is_empty() {
                // What comes until the server has heard of it is still heard.
                socket.call(Some(&self.project), Unsubscribe { rooms }).await?;
                joined.retain(|room| wanted.contains(room));
            }
            let is_heard = |room: &str| self.ear.borrow().is_joined(&room.parse().unwrap());
            let is_to_join = |room: &String| !joined.contains(room) || !is_heard(room);
            let rooms: Vec<String> = wanted.into_iter().filter(is_to_join).collect();
            if !rooms.is_empty() {
                let mut requests = Vec::new();
                for room in &rooms {
                    let since = Some(self.position(&room.parse().unwrap()).await?);
                    requests.push(RoomRequest::Since(RoomSince { room: room.clone(), since }));
                }
                let subscribe = Subscribe { rooms: requests, deltas: None, presence: None };
                let reply = socket.call(Some(&self.project), subscribe).await?;
                for outcome in reply.payload.rooms {
                    if let Some(code) = outcome.code {
                        return Err(ClientError::Api(code.into()));
                    }
                    let is_again = ever.contains(&outcome.room) && is_heard(&outcome.room);
                    let room = outcome.room.parse().unwrap();
                    self.ear.send_modify(|ear| ear.joined(&room, &outcome, is_again));
                    ever.insert(outcome.room.clone());
                    joined.insert(outcome.room);
                }
            }
            loop {
                tokio::select! {
                    frame = socket.next_frame() => {
                        if let ServerFrame::Event(frame) = frame? {
                            self.ear.send_modify(|ear| ear.hear(*frame));
                        }
                    }
                    changed = wants.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Where to go on in a room; a snapshot where there was none.
    async fn position(&self, room: &Room) -> Result<iris_protocol::Position, ClientError> {
        if let Some(position) = self.ear.borrow().position(room) {
            return Ok(position);
        }
        let (client, project) = (&self.person.client, Some(&self.project));
        let (at, known) = match room {
            Room::Session(session_id) => {
                let (session_id, limit) = (session_id.clone(), Some(MESSAGES_MAX));
                let request = SessionGet { session_id, limit, before: None };
                let snapshot = client.call(project, request).await?;
                (snapshot.as_of.clone(), Known::of(&snapshot))
            }
            Room::Project(_) => {
                let list = client.call(project, SESSIONS).await?;
                (list.as_of, Known::default())
            }
            Room::User(_) | Room::Admin => {
                return Err(ClientError::Api(ErrorCode::Internal.into()));
            }
        };
        self.ear.send_modify(|ear| ear.begin(room, &at, known));
        Ok(at)
    }
}
