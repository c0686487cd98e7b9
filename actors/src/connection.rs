//! One client: who it is, what it hears, what it asks. A transport starts it with the frames that
//! come in and drains its queue of frames that go out (docs/decisions/0001).

mod alive;
mod hearing;
mod identity;
mod outbound;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures_util::Stream;
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, Command, ConnectionId, ErrorCode, FrameError, Operation, Pong, ProjectId,
    RequestFrame, ResponseFrame, Room,
    limits::{PROTOCOL_ERRORS_PER_MINUTE_MAX, REQUESTS_IN_FLIGHT_MAX},
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::Node;
use crate::dispatch::{Ask, Peer};
use crate::supervision::{ChildSpec, Supervise, Vitals, detached, spawn};

pub(crate) use alive::Connections;
pub use outbound::{CloseReason, OutFrame, Outbound, REPLAY_QUEUE_BYTES_MAX};

/// The window in which protocol errors are counted.
const PROTOCOL_ERROR_WINDOW: Duration = Duration::from_mins(1);

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
                projects_on_their_way: Vec::new(),
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
    /// Where they are, one for each subscription.
    projects_on_their_way: Vec<ProjectId>,
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
        // Also where joining was cut off: some of the rooms may have been joined.
        let mut projects = std::mem::take(&mut self.projects_on_their_way);
        projects.extend(std::mem::take(&mut self.rooms).into_keys());
        for project_id in projects {
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
                let (request_id, connection_id) = (None, Some(self.id.clone()));
                let ask = Ask {
                    claims,
                    project_id,
                    command,
                    idempotency_key,
                    peer,
                    request_id,
                    connection_id,
                };
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
