//! One client: who it is, what it hears, what it asks. A transport starts it with the frames that
//! come in and drains its queue of frames that go out (docs/decisions/0001).

mod alive;
mod catching_up;
mod hearing;
mod heartbeat;
mod identity;
mod limits;
mod outbound;
mod requests;
mod settings;
mod transfers;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::prelude::*;
use bytes::Bytes;
use futures_util::Stream;
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, CancelPayload, Command, ConnectionId, ErrorCode, FrameError, Json, Operation, Pong,
    ProjectId, RequestFrame, RequestId, ResponseFrame, Room, Warning,
    limits::PROTOCOL_ERRORS_PER_MINUTE_MAX,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::dispatch::{Ask, Done, Peer};
use crate::rates::Allowance;
use crate::supervision::{Address, ChildSpec, RequestTag, Supervise, Vitals, detached, spawn};
use crate::{Node, UnknownSocket};

use alive::Pulse;
use limits::Refusals;
use requests::{InFlight, Requests};
use transfers::{About as AboutStream, Streams};

pub(crate) use alive::Connections;
pub use outbound::{
    About, Bundle, CloseReason, Courier, Delivery, Next, OutFrame, Outbound,
    REPLAY_QUEUE_BYTES_MAX, REPLAYS_BYTES_MAX, Reader, Transport,
};
pub(crate) use outbound::{Queued, ReplayRoom, Wakers, Wants};
pub use settings::SocketSettings;

/// When a client may come back whose connection, or project, failed inside the server.
pub(crate) const BACK_AFTER_FAILURE: Duration = Duration::from_millis(500);

/// The window in which protocol errors are counted.
const PROTOCOL_ERROR_WINDOW: Duration = Duration::from_mins(1);

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub enum Inbound {
    /// A whole text message.
    Text(Bytes),
    /// A whole binary message: a chunk of a file.
    Binary(Bytes),
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
    /// Ends the transport whatever still waits to be sent.
    pub abort: Box<dyn Fn() + Send + Sync>,
    /// Who it is, when it said so with the connection itself.
    pub claims: Option<AccessClaims>,
    /// Its place among those of which nobody knows who they are.
    pub unknown: Option<UnknownSocket>,
    /// Set once it is known who it is: the transport may then read as much as comes.
    pub is_known: Arc<AtomicBool>,
    /// Where from.
    pub peer: Peer,
}

impl<S: Stream<Item = Inbound> + 'static> NewConnection<S> {
    /// Starts the connection's actor on the current arbiter.
    pub fn start(self) {
        let Self { node, inbound, outbound, abort, claims, unknown, is_known, peer } = self;
        let id = ConnectionId::from_bits(node.services.ids.next_bits());
        let top = Arc::clone(&node.top);
        let spec = ChildSpec::new("connection", id.to_string());
        let pulse = Arc::<Pulse>::default();
        let on_exit = {
            let (id, outbound) = (id.clone(), Arc::clone(&outbound));
            let connections = Arc::clone(&node.connections);
            outbound.counts_in(&node.services.metrics);
            node.services.metrics.connection_opened();
            connections.add(&id, &outbound, &pulse, abort);
            move |_| {
                // One that panicked or was stopped tells its client to come back; any other has closed.
                outbound.close(CloseReason::back_after(1011, BACK_AFTER_FAILURE));
                connections.ended(&id);
            }
        };
        let create = move |ctx: &mut Context<Connection>, vitals: &Arc<Vitals>| {
            ctx.add_stream(inbound);
            Connection {
                id,
                vitals: Arc::clone(vitals),
                node,
                outbound,
                pulse,
                heartbeat_is_due: false,
                claims,
                unknown,
                is_known,
                peer,
                default_project: None,
                rooms: HashMap::new(),
                hears_log: None,
                rooms_on_their_way: 0,
                projects_on_their_way: Vec::new(),
                requests: Requests::new(),
                streams: Streams::default(),
                protocol_errors: VecDeque::new(),
                allowance: Allowance::default(),
                control_allowance: Allowance::default(),
                refusals: Refusals::default(),
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
    /// Whether the client owes a pong.
    pulse: Arc<Pulse>,
    /// Whether a heartbeat is on its way.
    heartbeat_is_due: bool,
    /// Who it is; none before `hello`.
    claims: Option<AccessClaims>,
    /// Held until then.
    unknown: Option<UnknownSocket>,
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
    requests: Requests,
    /// Files that are on their way.
    streams: Streams,
    /// When the protocol errors inside the window happened.
    protocol_errors: VecDeque<Instant>,
    /// How many requests it may make now.
    allowance: Allowance,
    /// How many pings and pongs.
    control_allowance: Allowance,
    refusals: Refusals,
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
        let address = Address::of(ctx, &self.vitals).downgrade();
        self.node.connections.runs(&self.id, address);
        self.catch_up(ctx);
        if let Some(claims) = self.claims.clone() {
            if self.act_for(&claims, ctx) {
                self.greet(&claims);
            }
            return;
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
            "requestsInFlight": self.requests.count(),
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
            Inbound::Text(text) => {
                self.node.services.metrics.frame_received();
                self.text(&text, ctx);
            }
            Inbound::Binary(frame) => {
                self.node.services.metrics.frame_received();
                self.chunk(&frame, ctx);
            }
            Inbound::Ping(payload) => {
                if self.counts_control(ctx) {
                    self.outbound.push_pong(payload);
                }
            }
            Inbound::Pong => {
                if self.counts_control(ctx) {
                    self.pulse.beat();
                }
            }
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
        if self.requests.is_in_flight(&request.id) {
            // Its id stands for the one that is in flight, whose answer is still to come.
            let message = "a request with this id is in flight";
            let error = ApiError::invalid(message).reason("duplicate_id");
            let error = error.detail("requestId", request.id);
            return self.protocol_error(FrameError { id: None, error }, ctx);
        }
        let operation = match Operation::in_envelope(&request.r#type) {
            Ok(operation) => operation,
            Err(error) => {
                return self.protocol_error(FrameError { id: Some(request.id), error }, ctx);
            }
        };
        if let Err(error) = self.count_request() {
            return self.refuse(request.id, error, ctx);
        }
        if self.claims.is_none() && operation != Operation::Hello {
            self.respond(request.id, Err(ApiError::from(ErrorCode::Unauthenticated)), None);
            return self.close(4401, "not authenticated", ctx);
        }
        let RequestFrame { id, project_id, payload, idempotency_key, deadline_ms, .. } = request;
        let command = match Command::decode(operation, payload) {
            Ok(command) => command,
            Err(error) => return self.protocol_error(FrameError { id: Some(id), error }, ctx),
        };
        let project_id = project_id.or_else(|| self.default_project.clone());
        self.command(Request { id, project_id, command, idempotency_key, deadline_ms }, ctx);
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
        let Request { id, project_id, command, idempotency_key, deadline_ms } = request;
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others are not about the socket")]
        match command {
            Command::Hello(hello) => self.hello(id, &hello.token, hello.project_id, ctx),
            Command::AuthRefresh(refresh) => self.refresh(id, &refresh.token, ctx),
            Command::Ping(_) => {
                self.respond(
                    id,
                    payload_of(Pong { pong: self.node.services.clock.now_ms() }),
                    None,
                );
            }
            Command::Cancel(cancel) => {
                let cancelled = self.requests.cancel(&cancel.request_id);
                self.respond(id, payload_of(CancelPayload { cancelled }), None);
            }
            Command::PartSync(sync) => {
                self.sync_part((id, deadline_ms), project_id, sync.part_id, ctx);
            }
            Command::Subscribe(subscribe) => {
                self.subscribe((id, deadline_ms), project_id, subscribe, ctx);
            }
            Command::Unsubscribe(unsubscribe) => self.unsubscribe(id, &unsubscribe),
            Command::UploadBegin(begin) => {
                self.begin_upload(AboutStream { id, deadline_ms, project_id }, begin, ctx);
            }
            Command::UploadCommit(commit) => {
                let about = AboutStream { id, deadline_ms, project_id };
                self.commit_upload(about, commit.stream, ctx);
            }
            Command::UploadCancel(cancel) => {
                let about = AboutStream { id, deadline_ms, project_id };
                self.cancel_upload(about, cancel.stream, ctx);
            }
            Command::DownloadBegin(begin) => {
                self.begin_download(AboutStream { id, deadline_ms, project_id }, begin, ctx);
            }
            Command::DownloadCancel(cancel) => {
                let about = AboutStream { id, deadline_ms, project_id };
                self.cancel_download(about, cancel.stream, ctx);
            }
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
                self.dispatch(id, deadline_ms, ask, ctx);
            }
        }
    }

    /// Runs a command in a task of its own: a client that goes away stops listening, not the work.
    fn dispatch(
        &mut self,
        id: String,
        deadline_ms: Option<u64>,
        ask: Ask,
        ctx: &mut Context<Self>,
    ) {
        let (in_flight, permit) = match self.requests.begin(id, deadline_ms) {
            Ok(begun) => begun,
            Err((id, error)) => return self.refuse(id, error, ctx),
        };
        let (node, outbound) = (self.node.clone(), Arc::clone(&self.outbound));
        let warnings = node.services.settings.deprecations.warnings(ask.command.operation());
        detached(async move {
            let work = async move {
                let done = node.dispatch(ask).await;
                drop(permit);
                done
            };
            answer(in_flight, &outbound, warnings, work).await;
        });
    }

    fn respond(&self, id: String, result: Result<Json, ApiError>, seq: Option<u64>) {
        self.push(&match result {
            Ok(payload) => ResponseFrame::success(id, payload, seq),
            Err(error) => ResponseFrame::failure(Some(id), error),
        });
    }

    /// Names a request of this connection, for what it causes.
    fn tag(&self) -> RequestTag {
        RequestId::from_bits(self.node.services.ids.next_bits()).as_str().into()
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
    deadline_ms: Option<u64>,
}

/// Does the work of a request as long as somebody waits for it, and answers it.
async fn answer(
    in_flight: InFlight,
    outbound: &Outbound,
    warnings: Vec<Warning>,
    work: impl Future<Output = Result<Done, ApiError>> + 'static,
) {
    let done = Arc::clone(&in_flight.patience).bear(work).await;
    let id = in_flight.id.clone();
    // From the answer on the client may use the id again.
    drop(in_flight);
    let response = match done {
        Ok(done) => ResponseFrame::success(id, done.payload, done.seq),
        Err(error) => ResponseFrame::failure(Some(id), error),
    };
    push(outbound, &response.with_warnings(warnings));
}

fn push(outbound: &Outbound, frame: &impl Serialize) {
    if let Some(json) = encoded(frame) {
        outbound.push(json);
    }
}

fn encoded(frame: &impl Serialize) -> Option<Bytes> {
    let json = serde_json::to_vec(frame);
    json.inspect_err(|error| tracing::error!(%error, "a frame could not be encoded"))
        .ok()
        .map(Bytes::from)
}

fn payload_of(payload: impl Serialize) -> Result<Json, ApiError> {
    Json::of(&payload).map_err(|_| ApiError::from(ErrorCode::Internal))
}
