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
    ErrorCode, FrameError, Operation, Pong, Position, ProjectId, RequestFrame, RequestId,
    ResponseFrame, Room, RoomOutcome, RoomStatus, Subscribe, SubscribePayload, Unsubscribe, UserId,
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
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::supervision::{ChildSpec, RequestTag, Supervise, Vitals, detached, in_request, spawn};

pub use outbound::{CloseReason, OutFrame, Outbound};

/// How long before its end a client is told that its access token ends.
const EXPIRY_WARNING: Duration = Duration::from_mins(1);
/// How long joining rooms may take before the connection counts as stuck.
const SUBSCRIBE_BUDGET: Duration = Duration::from_secs(30);
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

    /// Sends an event to all of them.
    pub(crate) fn tell_all(&self, event: &Value) {
        for alive in self.0.lock().values() {
            push(&alive.outbound, event);
        }
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
        let top = Arc::clone(&node.top);
        let spec = ChildSpec::new("connection", id.to_string());
        let on_exit = {
            let (id, outbound) = (id.clone(), Arc::clone(&outbound));
            let connections = Arc::clone(&node.connections);
            connections.add(&id, &outbound);
            move |_| {
                // One that panicked or was stopped tells its client to come back; any other has closed.
                outbound.close(CloseReason::new(1011, "internal error"));
                connections.remove(&id);
            }
        };
        let create = move |ctx: &mut Context<Connection>, vitals: &Arc<Vitals>| {
            ctx.add_stream(inbound);
            Connection {
                id,
                vitals: Arc::clone(vitals),
                node,
                outbound,
                claims,
                is_known,
                peer,
                default_project: None,
                rooms: HashMap::new(),
                hears_log: None,
                rooms_on_their_way: 0,
                in_flight: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX)),
                protocol_errors: VecDeque::new(),
                expiry: Vec::new(),
            }
        };
        spawn(&top, spec, create, on_exit);
    }
}

/// The connection actor.
pub struct Connection {
    id: ConnectionId,
    vitals: Arc<Vitals>,
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
    rooms: HashMap<ProjectId, Vec<Room>>,
    /// Held as long as it hears the supervision log.
    hears_log: Option<Arc<()>>,
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
        for project_id in std::mem::take(&mut self.rooms).into_keys() {
            self.leave(project_id, None);
        }
    }
}

crate::supervised!(Connection);

impl Supervise for Connection {
    fn observe(&self) -> Value {
        json!({
            "userId": self.claims.as_ref().map(|claims| &claims.user_id),
            "rooms": self.rooms.values().map(Vec::len).sum::<usize>(),
            "projects": self.rooms.len(),
            "requestsInFlight": REQUESTS_IN_FLIGHT_MAX - self.in_flight.available_permits(),
            "outbound": self.outbound.counts(),
        })
    }
}

impl StreamHandler<Inbound> for Connection {
    fn handle(&mut self, frame: Inbound, ctx: &mut Context<Self>) {
        let vitals = Arc::clone(&self.vitals);
        vitals.handle("Inbound", self, ctx, |connection, ctx| connection.inbound(frame, ctx));
    }
}

impl Connection {
    fn inbound(&mut self, frame: Inbound, ctx: &mut Context<Self>) {
        match frame {
            Inbound::Text(text) => self.text(&text, ctx),
            Inbound::Binary => {
                let message = "binary frames are not part of this protocol version";
                let error = ApiError::invalid(message).reason("invalid_message");
                self.protocol_error(FrameError { id: None, error }, ctx);
            }
            Inbound::Ping(payload) => self.outbound.push_pong(payload),
            Inbound::Pong => {}
            Inbound::Closed => self.close(1000, "closed", ctx),
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
                let request_id = None;
                let ask = Ask { claims, project_id, command, idempotency_key, peer, request_id };
                self.dispatch(id, ask);
            }
        }
    }

    /// Runs a command in a task of its own: a client that goes away stops listening, not the work.
    fn dispatch(&self, id: String, ask: Ask) {
        let Some(permit) = self.permit() else { return self.respond(id, Err(too_many()), None) };
        let (node, outbound) = (self.node.clone(), Arc::clone(&self.outbound));
        detached(async move {
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
        let joined: usize = self.rooms.values().map(Vec::len).sum();
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
        let request = RequestId::from_bits(self.node.services.ids.next_bits());
        let request: RequestTag = request.as_str().into();
        let work = self.vitals.begin("subscribe", SUBSCRIBE_BUDGET);
        let joined = in_request(request, join.run()).into_actor(self);
        ctx.spawn(joined.map(move |joined, connection, _| {
            drop((permit, work));
            connection.rooms_on_their_way -= asked;
            match joined {
                Ok(Joined { project_id, outcomes }) => {
                    connection.hear_log(&outcomes);
                    if let Some(project_id) = project_id {
                        connection.knows(project_id, &outcomes);
                    }
                    connection.respond(id, value(SubscribePayload { rooms: outcomes }), None);
                }
                Err(error) => connection.respond(id, Err(error), None),
            }
        }));
    }

    /// Hears the supervision log from now on, unless it does already or was refused.
    fn hear_log(&mut self, outcomes: &[RoomOutcome]) {
        let is_joined = |outcome: &RoomOutcome| {
            outcome.status == RoomStatus::Live && outcome.room.parse() == Ok(Room::Admin)
        };
        if self.hears_log.is_some() || !outcomes.iter().any(is_joined) {
            return;
        }
        let (held, outbound) = (Arc::new(()), Arc::clone(&self.outbound));
        let hears = Arc::downgrade(&held);
        self.node
            .services
            .supervision
            .log()
            .subscribe(move |frame| hears.strong_count() > 0 && outbound.push(frame.clone()));
        self.hears_log = Some(held);
    }

    /// Notes which rooms of a project were joined.
    fn knows(&mut self, project_id: ProjectId, outcomes: &[RoomOutcome]) {
        let joined = outcomes.iter().filter(|outcome| match outcome.status {
            RoomStatus::Live | RoomStatus::Replayed => true,
            RoomStatus::Reset | RoomStatus::Refused => false,
        });
        let rooms = joined.filter_map(|outcome| outcome.room.parse().ok());
        let rooms: Vec<Room> = rooms.filter(|room| *room != Room::Admin).collect();
        let known = self.rooms.entry(project_id).or_default();
        for room in rooms {
            if !known.contains(&room) {
                known.push(room);
            }
        }
    }

    fn unsubscribe(&mut self, id: String, unsubscribe: &Unsubscribe) {
        let rooms: Vec<Room> =
            unsubscribe.rooms.iter().filter_map(|room| room.parse().ok()).collect();
        if rooms.contains(&Room::Admin) {
            self.hears_log = None;
        }
        for known in self.rooms.values_mut() {
            known.retain(|room| !rooms.contains(room));
        }
        for project_id in self.rooms.keys() {
            self.leave(project_id.clone(), Some(rooms.clone()));
        }
        self.rooms.retain(|_, known| !known.is_empty());
        self.respond(id, value(iris_protocol::Done { done: true }), None);
    }

    /// Leaves rooms of a project; all of them when none is named.
    fn leave(&self, project_id: ProjectId, rooms: Option<Vec<Room>>) {
        let Some(claims) = &self.claims else { return };
        let (node, user_id) = (self.node.clone(), claims.user_id.clone());
        let leave = OwnerAsk::Leave { connection_id: self.id.clone(), rooms };
        detached(async move {
            // A project that is gone has no rooms to leave.
            drop(node.ask_owner(&project_id, &user_id, leave, None).await);
        });
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
    /// None when only the room of the server was joined.
    project_id: Option<ProjectId>,
    outcomes: Vec<RoomOutcome>,
}

impl Join {
    async fn run(self) -> Result<Joined, ApiError> {
        let is_admin_room = |room: &str| room.parse() == Ok(Room::Admin);
        let names: Vec<&str> = self.subscribe.rooms.iter().map(|room| room.parts().0).collect();
        let is_only_admin = !names.is_empty() && names.iter().all(|room| is_admin_room(room));
        let project = if is_only_admin { None } else { Some(self.may_hear_project().await?) };
        let mut outcomes = Vec::with_capacity(names.len());
        for request in &self.subscribe.rooms {
            let (room, since) = request.parts();
            outcomes.push(match &project {
                _ if is_admin_room(room) => self.join_log(room).await,
                Some((project_id, user_id)) => {
                    self.join(project_id, user_id, room, since.cloned()).await?
                }
                None => return Err(ApiError::from(ErrorCode::Internal)),
            });
        }
        let Some((project_id, user_id)) = project else {
            return Ok(Joined { project_id: None, outcomes });
        };
        // Who lost the right after the first look may have been taken out of the rooms before they
        // were in: look again, now that they are.
        if let Err(error) = self.may_hear_project().await {
            let leave = OwnerAsk::Leave { connection_id: self.connection_id.clone(), rooms: None };
            self.node.ask_owner(&project_id, &user_id, leave, None).await?;
            return Err(error);
        }
        Ok(Joined { project_id: Some(project_id), outcomes })
    }

    async fn may_hear_project(&self) -> Result<(ProjectId, UserId), ApiError> {
        let (node, claims) = (&self.node, self.claims.as_ref());
        let grant = node.gate(claims, Operation::Subscribe, self.project_id.as_ref()).await?;
        Ok((grant.project_id()?.clone(), grant.user_id()?.clone()))
    }

    async fn join(
        &self,
        project_id: &ProjectId,
        user_id: &UserId,
        room: &str,
        since: Option<Position>,
    ) -> Result<RoomOutcome, ApiError> {
        let ask = OwnerAsk::Join {
            room: room.to_owned(),
            since,
            deltas: self.subscribe.deltas.unwrap_or(true),
            connection_id: self.connection_id.clone(),
        };
        let outbound = Some(Arc::clone(&self.outbound));
        match self.node.ask_owner(project_id, user_id, ask, outbound).await? {
            OwnerAnswer::Joined(outcome) => Ok(outcome),
            OwnerAnswer::Done(_)
            | OwnerAnswer::File(_)
            | OwnerAnswer::Written(..)
            | OwnerAnswer::Left => Err(mismatch()),
        }
    }

    /// Says whether the connection may join the room of the server: the supervision log, for server
    /// administrators.
    async fn join_log(&self, room: &str) -> RoomOutcome {
        let allowed = self.node.gate(self.claims.as_ref(), Operation::SupervisionList, None).await;
        let (status, code) = match allowed {
            Ok(_) => (RoomStatus::Live, None),
            Err(error) => (RoomStatus::Refused, Some(error.code)),
        };
        let (room, epoch) = (room.to_owned(), String::new());
        RoomOutcome { room, status, from: 0, to: 0, epoch, code }
    }
}
