//! One client under whose hands the server dies: it asks for what its plan says, over a WebSocket or
//! over REST, and keeps account of every answer.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use iris_client::{Client, RestAnswer};
use iris_protocol::{ErrorCode, ProjectId, Role, SessionId, ToolCallId, UserId};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::ledger::{Acknowledged, Heard, Ledger, hash};
use super::plan::{Deed, Intent, Kind, Plan};

/// Requests that a client on a socket has in flight.
const WINDOW: usize = 4;

/// Where clients may do something.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) project: ProjectId,
    pub(super) sessions: Vec<SessionId>,
}

/// A client through all rounds of one data directory.
#[derive(Debug)]
pub(super) struct Load {
    /// From 0; even ones use a socket, odd ones REST.
    pub(super) number: usize,
    /// Where it is at home: it hears these sessions and alone changes the members there.
    pub(super) home: Place,
    /// All projects.
    pub(super) places: Arc<Vec<Place>>,
    /// Whom it may add to its project.
    pub(super) users: Arc<Vec<UserId>>,
    /// Those whom it has asked to add.
    added: Vec<UserId>,
    /// Tool calls that wait for somebody, as far as it knows.
    waiting: VecDeque<(SessionId, ToolCallId)>,
    /// The last event of each room that it heard; 0 when the next one may follow any other.
    heads: BTreeMap<String, u64>,
    /// Of the order of events at home; empty before it joined.
    epoch: String,
    /// Files and members that it has asked to change and not heard about: the order of two such requests
    /// would be anybody's guess.
    busy: BTreeSet<String>,
    /// What it knows since the round began.
    ledger: Ledger,
}

/// How to reach a server that has just started.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) client: Client,
    pub(super) token: String,
    /// All clients begin together.
    pub(super) barrier: Arc<Barrier>,
}

/// An answer to an intent.
pub(super) enum Outcome {
    Done {
        payload: Value,
        seq: Option<u64>,
    },
    Refused {
        code: ErrorCode,
        message: String,
    },
    /// The server died.
    Silence,
}

impl Load {
    pub(super) fn new(
        number: usize,
        home: usize,
        places: Arc<Vec<Place>>,
        users: Arc<Vec<UserId>>,
    ) -> Self {
        let home = places[home].clone();
        Self {
            number,
            home,
            places,
            users,
            added: Vec::new(),
            waiting: VecDeque::new(),
            heads: BTreeMap::new(),
            epoch: String::new(),
            busy: BTreeSet::new(),
            ledger: Ledger::default(),
        }
    }

    /// Works until the server is gone, and gives what it learned.
    pub(super) async fn work(&mut self, line: Line, mut plan: Plan, round: u32) -> Ledger {
        if self.has_socket() {
            self.talk(line, &mut plan, round).await;
        } else {
            self.post(line, &mut plan, round).await;
        }
        std::mem::take(&mut self.ledger)
    }

    fn has_socket(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    /// Over REST, one request after the other.
    async fn post(&mut self, Line { client, token, barrier }: Line, plan: &mut Plan, round: u32) {
        self.look(&client, &token).await;
        barrier.wait().await;
        loop {
            let intent = self.next(plan);
            let outcome = ask(&client, &token, &intent).await;
            let is_over = matches!(outcome, Outcome::Silence);
            self.note(intent, outcome, round);
            if is_over {
                return;
            }
        }
    }

    /// Over a socket, several requests at a time, hearing the rooms at home.
    async fn talk(&mut self, Line { client, token, barrier }: Line, plan: &mut Plan, round: u32) {
        self.look(&client, &token).await;
        let socket = open(client.base_url(), &token).await;
        barrier.wait().await;
        let Some(mut socket) = socket else {
            self.ledger.findings.push("a socket was refused".to_owned());
            return;
        };
        let mut in_flight = HashMap::new();
        if socket.send(text(&self.subscription())).await.is_ok() {
            self.converse(&mut socket, plan, &mut in_flight, round).await;
        }
        for (_, intent) in in_flight {
            self.note(intent, Outcome::Silence, round);
        }
    }

    async fn converse(
        &mut self,
        socket: &mut WebSocketStream<TcpStream>,
        plan: &mut Plan,
        in_flight: &mut HashMap<String, Intent>,
        round: u32,
    ) {
        loop {
            while in_flight.len() < WINDOW {
                let intent = self.next(plan);
                let frame = intent.frame();
                in_flight.insert(intent.key.clone(), intent);
                if socket.send(text(&frame)).await.is_err() {
                    // What arrived before the end is read all the same.
                    break;
                }
            }
            let frame = match socket.next().await {
                Some(Ok(Message::Text(text))) => serde_json::from_str::<Value>(&text).unwrap(),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            };
            if frame["type"] != "response" {
                self.hear(&frame);
                continue;
            }
            let intent = frame["id"].as_str().and_then(|id| in_flight.remove(id));
            match intent {
                Some(intent) => self.note(intent, outcome_of(&frame), round),
                None => self.joined(&frame),
            }
        }
    }

    /// What comes next.
    fn next(&mut self, plan: &mut Plan) -> Intent {
        let kind = plan.kind();
        let key = plan.key();
        let approvable = if kind == Kind::Approve { self.waiting.pop_front() } else { None };
        let (mut project, session) =
            (self.home.project.clone(), plan.below(self.home.sessions.len()));
        let deed = match (kind, approvable) {
            (Kind::Approve, Some((session, call))) => Deed::Approve { session, call },
            (Kind::Say | Kind::Approve, _) => {
                Deed::Say { session: self.home.sessions[session].clone(), text: plan.text() }
            }
            (Kind::SayElsewhere, _) => {
                let place = &self.places[plan.below(self.places.len())];
                project = place.project.clone();
                Deed::Say { session: place.sessions[0].clone(), text: plan.text() }
            }
            (Kind::OpenSession, _) => {
                project = self.places[plan.below(self.places.len())].project.clone();
                Deed::OpenSession { title: key.clone() }
            }
            (Kind::WriteFile, _) => {
                let (path, content) = plan.file(self.number);
                Deed::WriteFile { path, content }
            }
            (Kind::Member, _) => self.member(plan),
        };
        if deed.order_matters().is_some_and(|name| !self.busy.insert(name)) {
            // As something else, so that the plan goes on as it would.
            let deed = Deed::OpenSession { title: key.clone() };
            return Intent { key, project, deed, by_route: false };
        }
        let by_route = matches!(deed, Deed::WriteFile { .. }) && !self.has_socket();
        Intent { key, project, deed, by_route }
    }

    /// Adds everybody once, then changes their roles. Of those who share a home only one does.
    fn member(&mut self, plan: &mut Plan) -> Deed {
        if self.number >= self.places.len() {
            return Deed::OpenSession { title: plan.key() };
        }
        if let Some(user) = self.users.get(self.added.len()) {
            self.added.push(user.clone());
            return Deed::AddMember { user: user.clone(), role: Role::Viewer };
        }
        let user = self.added[plan.below(self.added.len())].clone();
        let role = [Role::Viewer, Role::Member, Role::Admin][plan.below(3)];
        Deed::ChangeMember { user, role }
    }

    fn note(&mut self, intent: Intent, outcome: Outcome, round: u32) {
        if let Some(name) = intent.deed.order_matters() {
            self.busy.remove(&name);
        }
        match outcome {
            Outcome::Done { payload, seq } => {
                let acknowledged = Acknowledged { intent, answer: payload, seq, round };
                self.ledger.acknowledged.push(acknowledged);
            }
            Outcome::Refused { code, message } => {
                if !may_refuse(code) {
                    let what = format!("{} `{}`", intent.operation(), intent.key);
                    self.ledger.findings.push(format!("{what} was refused: {code} {message}"));
                }
                self.ledger.refused.push(intent);
            }
            Outcome::Silence => self.ledger.unanswered.push(intent),
        }
    }

    /// Learns which calls wait.
    async fn look(&mut self, client: &Client, token: &str) {
        self.waiting.clear();
        for session in &self.home.sessions {
            let path = format!("/v1/projects/{}/sessions/{session}?limit=1", self.home.project);
            let Ok(answer) = client.rest("GET", &path, Some(token), None).await else { return };
            for approval in answer.json["data"]["approvals"].as_array().into_iter().flatten() {
                let call = approval["toolCallId"].as_str().and_then(|call| call.parse().ok());
                self.waiting.extend(call.map(|call| (session.clone(), call)));
            }
        }
    }

    /// Asks for the rooms at home, after what was heard of them.
    fn subscription(&self) -> Value {
        let sessions = self.home.sessions.iter().map(|session| format!("session:{session}"));
        let rooms = std::iter::once(format!("project:{}", self.home.project)).chain(sessions);
        let rooms = rooms.map(|room| match self.heads.get(&room) {
            Some(seq @ 1..) => {
                json!({ "room": room, "since": { "epoch": self.epoch, "seq": seq } })
            }
            Some(0) | None => Value::from(room),
        });
        json!({
            "id": "rooms",
            "type": "subscribe",
            "projectId": self.home.project,
            "payload": { "rooms": rooms.collect::<Vec<_>>() },
        })
    }

    /// What was missed is replayed, or the server says that it is not.
    fn joined(&mut self, frame: &Value) {
        let rooms = frame["payload"]["rooms"].as_array().cloned().unwrap_or_default();
        for room in &rooms {
            let word = |name: &str| room[name].as_str().unwrap_or_default().to_owned();
            match word("status").as_str() {
                "live" | "replayed" => self.epoch = word("epoch"),
                "reset" => drop(self.heads.remove(&word("room"))),
                _ => self.ledger.findings.push(format!("a room was not joined: {room}")),
            }
        }
        if rooms.is_empty() {
            self.ledger.findings.push(format!("no room was joined: {frame}"));
        }
    }

    /// Keeps a durable event; in each room they have to come one after the other.
    fn hear(&mut self, frame: &Value) {
        let Some(seq) = frame["seq"].as_u64() else { return };
        let word = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
        let (room, prev) = (word("room"), frame["prev"].as_u64().unwrap_or_default());
        let head = self.heads.insert(room.clone(), seq).unwrap_or_default();
        if head != 0 && head != prev {
            let finding = format!("event {seq} of {room} follows {prev}, heard was {head}");
            self.ledger.findings.push(finding);
        }
        if word("type") == "tool.approval.required" {
            let payload = &frame["payload"];
            let session = payload["sessionId"].as_str().and_then(|id| id.parse().ok());
            let call = payload["toolCallId"].as_str().and_then(|id| id.parse().ok());
            self.waiting.extend(session.zip(call).filter(|_| room.starts_with("session:")));
        }
        let hash = hash([frame["payload"].to_string().as_str()]);
        let event = Heard { room, prev, name: word("type"), hash };
        self.ledger.hear(self.home.project.clone(), seq, &event);
    }
}

/// What a server that is asked for too much, or too late, answers.
pub(super) fn may_refuse(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Conflict | ErrorCode::Overloaded | ErrorCode::Gone | ErrorCode::NotFound
    )
}

/// Sends an intent over REST.
pub(super) async fn ask(client: &Client, token: &str, intent: &Intent) -> Outcome {
    let sent = match &intent.deed {
        Deed::WriteFile { path, content } if intent.by_route => {
            put(client, token, intent, path, content).await
        }
        Deed::Say { .. }
        | Deed::OpenSession { .. }
        | Deed::WriteFile { .. }
        | Deed::Approve { .. }
        | Deed::AddMember { .. }
        | Deed::ChangeMember { .. } => {
            client.rest("POST", "/v1/commands", Some(token), Some(&intent.frame())).await
        }
    };
    match sent {
        Ok(answer) if intent.by_route && answer.is_success() => {
            Outcome::Done { payload: json!({ "file": answer.json["data"] }), seq: None }
        }
        Ok(answer) => outcome_of(&answer.json),
        Err(_) => Outcome::Silence,
    }
}

async fn put(
    client: &Client,
    token: &str,
    intent: &Intent,
    path: &str,
    content: &str,
) -> Result<RestAnswer, iris_client::ClientError> {
    let route = format!("/v1/projects/{}/files/content?path={path}", intent.project);
    let headers =
        [("content-type", "application/octet-stream"), ("idempotency-key", intent.key.as_str())];
    client.raw("PUT", &route, Some(token), &headers, Bytes::from(content.to_owned())).await
}

/// Reads a response frame, or the body of an error.
fn outcome_of(frame: &Value) -> Outcome {
    if frame["success"] == true {
        let payload = frame["payload"].clone();
        return Outcome::Done { payload, seq: frame["seq"].as_u64() };
    }
    let error = serde_json::from_value::<iris_protocol::ApiError>(frame["error"].clone());
    match error {
        Ok(error) => Outcome::Refused { code: error.code, message: error.message },
        // Half an answer is none.
        Err(_) => Outcome::Silence,
    }
}

/// A socket whose frames are read as they are; none when the server refuses it.
async fn open(base_url: &str, token: &str) -> Option<WebSocketStream<TcpStream>> {
    let authority = base_url.trim_start_matches("http://").trim_end_matches('/');
    let mut request = format!("ws://{authority}/v1/ws").into_client_request().unwrap();
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.headers_mut().insert("authorization", bearer);
    let stream = TcpStream::connect(authority).await.ok()?;
    stream.set_nodelay(true).ok()?;
    Some(tokio_tungstenite::client_async(request, stream).await.ok()?.0)
}

fn text(frame: &Value) -> Message {
    Message::text(frame.to_string())
}
