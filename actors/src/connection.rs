//! One client: who it is, what it hears, what it asks. A transport starts it with the frames that
//! come in and drains its queue of frames that go out (docs/decisions/0001).

mod outbound;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures_util::Stream;
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, AuthExpiry, AuthSessionId, Command, Connected, ConnectionId, ConnectionLimits,
    ErrorCode, FrameError, Operation, Pong, ProjectId, RequestFrame, ResponseFrame, Room,
    RoomOutcome, RoomStatus, Subscribe, SubscribePayload, Unsubscribe,
    limits::{
        FRAME_BYTES_MAX, PROTOCOL_ERRORS_PER_MINUTE_MAX, REQUESTS_IN_FLIGHT_MAX,
        ROOMS_PER_CONNECTION_MAX,
    },
};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::Node;
use crate::dispatch::{Ask, Peer};
use crate::project::{JoinRoom, LeaveRooms, Project};
use crate::supervision::{ActorPath, ChildSpec, RestartPolicy, spawn};

pub use outbound::{CloseReason, OutFrame, Outbound};

/// How long before its end a client is told that its access token ends.
const EXPIRY_WARNING: Duration = Duration::from_mins(1);
/// The window in which protocol errors are counted.
const PROTOCOL_ERROR_WINDOW: Duration = Duration::from_mins(1);

/// The connections that are alive: their queues and, once they said who they are, their logins.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<HashMap<ConnectionId, Alive>>);

#[derive(Debug)]
struct Alive {
    outbound: Arc<Outbound>,
    login: Option<AuthSessionId>,
}

impl Connections {
    fn add(&self, id: &ConnectionId, outbound: &Arc<Outbound>) {
        let alive = Alive { outbound: Arc::clone(outbound), login: None };
        self.0.lock().insert(id.clone(), alive);
    }

    fn authenticated(&self, id: &ConnectionId, login: &AuthSessionId) {
        if let Some(alive) = self.0.lock().get_mut(id) {
            alive.login = Some(login.clone());
        }
    }

    fn remove(&self, id: &ConnectionId) {
        self.0.lock().remove(id);
    }

    /// Ends all of them.
    pub(crate) fn close_all(&self, reason: &CloseReason) {
        for alive in self.0.lock().values() {
            alive.outbound.close(reason.clone());
        }
    }

    /// Ends those of a login that has ended.
    pub(crate) fn close_login(&self, login: &AuthSessionId) {
        for alive in self.0.lock().values().filter(|alive| alive.login.as_ref() == Some(login)) {
            alive.outbound.close(CloseReason::new(4401, "logged out"));
        }
    }
}

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Inbound {
    /// A whole text message.
    Text(Bytes),
    /// A whole binary message; the protocol has none yet.
    Binary,
    /// A WebSocket ping and its payload.
    Ping(Bytes),
    /// A WebSocket pong.
    Pong,
    /// The client said goodbye, or is gone.
    Closed,
    /// What came breaks the transport's rules; the connection ends with this reason.
    Broken(CloseReason),
}

/// A client that has connected.
pub struct NewConnection<S> {
    /// The server's actors.
    pub node: Node,
    /// The frames that come in.
    pub inbound: S,
    /// The frames that go out.
    pub outbound: Arc<Outbound>,
    /// Who it is, when it said so with the connection itself.
    pub claims: Option<AccessClaims>,
    /// Set once it is known who it is: the transport may then read as much as comes.
    pub is_known: Arc<AtomicBool>,
    /// Where from.
    pub peer: Peer,
}

impl<S: Stream<Item = Inbound> + 'static> NewConnection<S> {
    /// Starts the connection's actor on the current arbiter.
    pub fn start(self) {
        let Self { node, inbound, outbound, claims, is_known, peer } = self;
        let id = ConnectionId::from_bits(node.services.ids.next_bits());
        let tree = node.services.tree.clone();
        let spec =
            ChildSpec { kind: "connection", id: id.to_string(), policy: RestartPolicy::Temporary };
        let on_exit = {
            let (id, outbound) = (id.clone(), Arc::clone(&outbound));
            let connections = Arc::clone(&node.connections);
            connections.add(&id, &outbound);
            move |_| {
                // One that panicked tells its client to come back; any other has closed already.
                outbound.close(CloseReason::new(1011, "internal error"));
                connections.remove(&id);
            }
        };
        let create = move |ctx: &mut Context<Connection>, path: &ActorPath| {
            ctx.add_stream(inbound);
            Connection {
                id,
                path: path.clone(),
                node,
                outbound,
                claims,
                is_known,
                peer,
                default_project: None,
                rooms: HashMap::new(),
                rooms_on_their_way: 0,
                in_flight: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX)),
                protocol_errors: VecDeque::new(),
                expiry: Vec::new(),
            }
        };
        spawn(&tree, &ActorPath::node(), spec, create, on_exit);
    }
}

/// The connection actor.
pub struct Connection {
    id: ConnectionId,
    path: ActorPath,
    node: Node,
    outbound: Arc<Outbound>,
    /// Who it is; none before `hello`.
    claims: Option<AccessClaims>,
    peer: Peer,
    /// For requests that name no project.
    default_project: Option<ProjectId>,
    /// Told once it is known who it is.
    is_known: Arc<AtomicBool>,
    /// The rooms that were asked for, by project.
    rooms: HashMap<ProjectId, (Addr<Project>, Vec<Room>)>,
    /// Rooms of subscriptions that are not answered yet.
    rooms_on_their_way: usize,
    in_flight: Arc<Semaphore>,
    /// When the protocol errors inside the window happened.
    protocol_errors: VecDeque<Instant>,
    expiry: Vec<SpawnHandle>,
}

impl Connection {
    fn close(&self, code: u16, text: &str, ctx: &mut Context<Self>) {
        self.outbound.close(CloseReason::new(code, text));
        ctx.stop();
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(claims) = self.claims.clone() {
            self.act_for(&claims, ctx);
            return self.greet(&claims);
        }
        let timeout = self.node.services.settings.hello_timeout;
        ctx.run_later(timeout, |connection, ctx| {
            if connection.claims.is_none() {
                connection.close(4402, "no hello in time", ctx);
            }
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        for (project, _) in self.rooms.values() {
            project.do_send(LeaveRooms { connection_id: self.id.clone(), rooms: None });
        }
        self.outbound.close(CloseReason::new(1000, "closed"));
        tracing::debug!(actor.path = %self.path, "connection ended");
    }
}

/// Never called: a connection that panicked ends, and its client comes back.
impl Supervised for Connection {}

impl StreamHandler<Inbound> for Connection {
    fn handle(&mut self, frame: Inbound, ctx: &mut Context<Self>) {
        match frame {
            Inbound::Text(text) => self.text(&text, ctx),
            Inbound::Binary => {
                let message = "binary frames are not part of this protocol version";
                let error = ApiError::invalid(message).reason("invalid_message");
                self.protocol_error(FrameError { id: None, error }, ctx);
            }
            Inbound::Ping(payload) => self.outbound.push_pong(payload),
            Inbound::Pong => {}
            Inbound::Closed => ctx.stop(),
            Inbound::Broken(reason) => {
                self.outbound.close(reason);
                ctx.stop();
            }
        }
    }
}

impl Connection {
    fn text(&mut self, text: &[u8], ctx: &mut Context<Self>) {
        if self.outbound.is_closed() {
            // Nobody would hear the answer: a reader that was too slow, or a login that ended.
            return ctx.stop();
        }
        let request = match RequestFrame::parse(text) {
            Ok(request) => request,
            Err(error) => return self.protocol_error(error, ctx),
        };
        let operation = match Operation::in_envelope(&request.r#type) {
            Ok(operation) => operation,
            Err(error) => {
                return self.protocol_error(FrameError { id: Some(request.id), error }, ctx);
            }
        };
        let RequestFrame { id, project_id, payload, idempotency_key, .. } = request;
        if self.claims.is_none() && operation != Operation::Hello {
            self.respond(id, Err(ApiError::from(ErrorCode::Unauthenticated)), None);
            return self.close(4401, "not authenticated", ctx);
        }
        let command = match Command::decode(operation, payload) {
            Ok(command) => command,
            Err(error) => return self.protocol_error(FrameError { id: Some(id), error }, ctx),
        };
        let project_id = project_id.or_else(|| self.default_project.clone());
        self.command(Request { id, project_id, command, idempotency_key }, ctx);
    }

    /// Answers a frame that is no valid request; too many of them end the connection.
    fn protocol_error(&mut self, error: FrameError, ctx: &mut Context<Self>) {
        self.push(&ResponseFrame::from(error));
        let now = Instant::now();
        self.protocol_errors.push_back(now);
        while self
            .protocol_errors
            .front()
            .is_some_and(|at| now.duration_since(*at) > PROTOCOL_ERROR_WINDOW)
        {
            self.protocol_errors.pop_front();
        }
        if self.protocol_errors.len() > PROTOCOL_ERRORS_PER_MINUTE_MAX {
            self.close(1008, "too many protocol errors", ctx);
        }
    }

    fn command(&mut self, request: Request, ctx: &mut Context<Self>) {
        let Request { id, project_id, command, idempotency_key } = request;
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others are not about the socket")]
        match command {
            Command::Hello(hello) => self.hello(id, &hello.token, hello.project_id, ctx),
            Command::AuthRefresh(refresh) => self.refresh(id, &refresh.token, ctx),
            Command::Ping(_) => {
                self.respond(id, value(Pong { pong: self.node.services.clock.now_ms() }), None);
            }
            Command::Subscribe(subscribe) => self.subscribe(id, project_id, subscribe, ctx),
            Command::Unsubscribe(unsubscribe) => self.unsubscribe(id, &unsubscribe),
            command => {
                let (claims, peer) = (self.claims.clone(), self.peer.clone());
                self.dispatch(id, Ask { claims, project_id, command, idempotency_key, peer });
            }
        }
    }

    /// Runs a command in a task of its own: a client that goes away stops listening, not the work.
    fn dispatch(&self, id: String, ask: Ask) {
        let Some(permit) = self.permit() else { return self.respond(id, Err(too_many()), None) };
        let (node, outbound) = (self.node.clone(), Arc::clone(&self.outbound));
        actix_rt::spawn(async move {
            let frame = match node.dispatch(ask).await {
                Ok(done) => ResponseFrame::success(id, done.payload, done.seq),
                Err(error) => ResponseFrame::failure(Some(id), error),
            };
            push(&outbound, &frame);
            drop(permit);
        });
    }

    /// The right to have one more request in flight.
    fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.in_flight).try_acquire_owned().ok()
    }

    fn respond(&self, id: String, result: Result<Value, ApiError>, seq: Option<u64>) {
        self.push(&match result {
            Ok(payload) => ResponseFrame::success(id, payload, seq),
            Err(error) => ResponseFrame::failure(Some(id), error),
        });
    }

    fn push(&self, frame: &impl Serialize) {
        push(&self.outbound, frame);
    }
}

struct Request {
    id: String,
    project_id: Option<ProjectId>,
    command: Command,
    idempotency_key: Option<String>,
}

fn push(outbound: &Outbound, frame: &impl Serialize) {
    match serde_json::to_vec(frame) {
        Ok(json) => drop(outbound.push(Bytes::from(json))),
        Err(error) => tracing::error!(%error, "a frame could not be encoded"),
    }
}

fn too_many() -> ApiError {
    let message = format!("at most {REQUESTS_IN_FLIGHT_MAX} requests may be in flight");
    ApiError::new(ErrorCode::RateLimited, message).retry_after(100)
}

fn value(payload: impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(payload).map_err(|_| ApiError::from(ErrorCode::Internal))
}

// Who it is.
impl Connection {
    fn hello(
        &mut self,
        id: String,
        token: &str,
        project_id: Option<ProjectId>,
        ctx: &mut Context<Self>,
    ) {
        if self.claims.is_some() {
            let error = ApiError::new(ErrorCode::Conflict, "the connection is authenticated");
            return self.respond(id, Err(error.reason("already_authenticated")), None);
        }
        let claims = self.node.authenticate(token);
        let node = self.node.clone();
        // A token can outlive its login, so the store is asked too; what comes meanwhile waits.
        let admitted = async move {
            let claims = claims?;
            node.admits(Some(&claims), Operation::Ping, None).await.map(|()| claims)
        };
        ctx.wait(admitted.into_actor(self).map(move |admitted, connection, ctx| match admitted {
            Ok(claims) => {
                connection.default_project = project_id;
                connection.claims = Some(claims.clone());
                connection.act_for(&claims, ctx);
                connection.greet(&claims);
                connection.respond(id, value(connection.connected(&claims)), None);
            }
            Err(error) => {
                connection.respond(id, Err(error), None);
                connection.close(4401, "not authenticated", ctx);
            }
        }));
    }

    fn connected(&self, claims: &AccessClaims) -> Connected {
        Connected {
            connection_id: self.id.clone(),
            user_id: claims.user_id.clone(),
            project_id: self.default_project.clone(),
            protocol: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: Vec::new(),
            limits: ConnectionLimits {
                frame_bytes_max: FRAME_BYTES_MAX,
                requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
                rooms_max: ROOMS_PER_CONNECTION_MAX,
            },
            ping_interval_ms: 0,
            expires_at: claims.expires_at_ms,
        }
    }

    fn greet(&self, claims: &AccessClaims) {
        self.push(&json!({ "type": "connected", "payload": self.connected(claims) }));
    }

    fn refresh(&mut self, id: String, token: &str, ctx: &mut Context<Self>) {
        let user_id = self.claims.as_ref().map(|claims| &claims.user_id);
        match self.node.authenticate(token) {
            Ok(claims) if Some(&claims.user_id) == user_id => {
                self.act_for(&claims, ctx);
                let expires_at = claims.expires_at_ms;
                self.claims = Some(claims);
                self.respond(id, value(AuthExpiry { expires_at }), None);
            }
            Ok(_) => {
                let message = "the new token is another user's";
                let error = ApiError::new(ErrorCode::Forbidden, message).reason("other_user");
                self.respond(id, Err(error), None);
            }
            Err(error) => self.respond(id, Err(error), None),
        }
    }

    /// From now on the connection ends with this login; it is warned before its access token ends, and
    /// closed when it does.
    fn act_for(&mut self, claims: &AccessClaims, ctx: &mut Context<Self>) {
        self.is_known.store(true, Ordering::Relaxed);
        self.node.connections.authenticated(&self.id, &claims.auth_session_id);
        for timer in self.expiry.drain(..) {
            ctx.cancel_future(timer);
        }
        let expires_at = claims.expires_at_ms;
        let left_ms = expires_at.saturating_sub(self.node.services.clock.now_ms());
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let warn = ctx.run_later(left.saturating_sub(EXPIRY_WARNING), move |connection, _| {
            let payload = json!({ "expiresAt": expires_at });
            connection.push(&json!({ "type": "auth.expiring", "payload": payload }));
        });
        let end = ctx.run_later(left, |connection, ctx| {
            connection.close(4401, "the access token ended", ctx);
        });
        self.expiry = vec![warn, end];
    }
}

// What it hears.
impl Connection {
    fn subscribe(
        &mut self,
        id: String,
        project_id: Option<ProjectId>,
        subscribe: Subscribe,
        ctx: &mut Context<Self>,
    ) {
        let joined: usize = self.rooms.values().map(|(_, rooms)| rooms.len()).sum();
        let asked = subscribe.rooms.len();
        if joined + self.rooms_on_their_way + asked > ROOMS_PER_CONNECTION_MAX {
            let message = format!("a connection may join {ROOMS_PER_CONNECTION_MAX} rooms");
            let error = ApiError::new(ErrorCode::QuotaExceeded, message).reason("too_many_rooms");
            return self.respond(id, Err(error), None);
        }
        let mut names: Vec<&str> = subscribe.rooms.iter().map(|room| room.parts().0).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            let error = ApiError::invalid("a room is named twice").reason("duplicate_room");
            return self.respond(id, Err(error), None);
        }
        let Some(permit) = self.permit() else { return self.respond(id, Err(too_many()), None) };
        self.rooms_on_their_way += asked;
        let join = Join {
            node: self.node.clone(),
            claims: self.claims.clone(),
            project_id,
            subscribe,
            connection_id: self.id.clone(),
            outbound: Arc::clone(&self.outbound),
        };
        let joined = join.run().into_actor(self);
        ctx.spawn(joined.map(move |joined, connection, _| {
            drop(permit);
            connection.rooms_on_their_way -= asked;
            match joined {
                Ok(Joined { project_id, project, outcomes }) => {
                    let rooms = outcomes.iter().filter(|outcome| match outcome.status {
                        RoomStatus::Live | RoomStatus::Replayed => true,
                        RoomStatus::Reset | RoomStatus::Refused => false,
                    });
                    let rooms = rooms.filter_map(|outcome| outcome.room.parse().ok());
                    let entry = connection.rooms.entry(project_id);
                    let (address, known) = entry.or_insert_with(|| (project.clone(), Vec::new()));
                    // A registry that was closed and opened again knows nothing of what was joined before.
                    if *address != project {
                        *address = project;
                        known.clear();
                    }
                    for room in rooms {
                        if !known.contains(&room) {
                            known.push(room);
                        }
                    }
                    connection.respond(id, value(SubscribePayload { rooms: outcomes }), None);
                }
                Err(error) => connection.respond(id, Err(error), None),
            }
        }));
    }

    fn unsubscribe(&mut self, id: String, unsubscribe: &Unsubscribe) {
        let rooms: Vec<Room> =
            unsubscribe.rooms.iter().filter_map(|room| room.parse().ok()).collect();
        for (project, known) in self.rooms.values_mut() {
            known.retain(|room| !rooms.contains(room));
            let (connection_id, rooms) = (self.id.clone(), Some(rooms.clone()));
            project.do_send(LeaveRooms { connection_id, rooms });
        }
        self.rooms.retain(|_, (_, known)| !known.is_empty());
        self.respond(id, value(iris_protocol::Done { done: true }), None);
    }
}

/// A subscription on its way.
struct Join {
    node: Node,
    claims: Option<AccessClaims>,
    project_id: Option<ProjectId>,
    subscribe: Subscribe,
    connection_id: ConnectionId,
    outbound: Arc<Outbound>,
}

struct Joined {
    project_id: ProjectId,
    project: Addr<Project>,
    outcomes: Vec<RoomOutcome>,
}

impl Join {
    async fn run(self) -> Result<Joined, ApiError> {
        let Self { node, claims, project_id, subscribe, connection_id, outbound } = self;
        let grant = node.gate(claims.as_ref(), Operation::Subscribe, project_id.as_ref()).await?;
        let project = grant.project(&node).await?;
        let user_id = claims.as_ref().map(|claims| claims.user_id.clone());
        let user_id = user_id.ok_or_else(|| ApiError::from(ErrorCode::Unauthenticated))?;
        let mut outcomes = Vec::with_capacity(subscribe.rooms.len());
        for request in &subscribe.rooms {
            let (room, since) = request.parts();
            let join = JoinRoom {
                room: room.to_owned(),
                since: since.cloned(),
                deltas: subscribe.deltas.unwrap_or(true),
                connection_id: connection_id.clone(),
                user_id: user_id.clone(),
                outbound: Arc::clone(&outbound),
            };
            let outcome = project.address.send(join).await;
            outcomes.push(outcome.map_err(|_| ApiError::from(ErrorCode::Overloaded))?);
        }
        // Who lost the right after the first look may have been taken out of the rooms before they
        // were in: look again, now that they are.
        let still = node.gate(claims.as_ref(), Operation::Subscribe, project_id.as_ref()).await;
        if let Err(error) = still {
            project.address.do_send(LeaveRooms { connection_id, rooms: None });
            return Err(error);
        }
        Ok(Joined { project_id: project.id, project: project.address, outcomes })
    }
}
