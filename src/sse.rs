//! One event stream (SSE): a connection that only hears. It is the actor and the queue of a WebSocket
//! with a transport that says `subscribe` for its client and writes what comes as
//! `text/event-stream` (html.spec.whatwg.org, "Server-sent events").
//!
//! A stream has one position for all its rooms, the id of its last event. So the events of all rooms
//! have to come in the order of the project: what joining the rooms gave is sorted before the first
//! of it is written.

use std::collections::{HashMap, HashSet, VecDeque};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::web::{Data, Query};
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use iris_actors::connection::{
    CloseReason, Inbound, NewConnection, OutFrame, Outbound, REPLAY_QUEUE_BYTES_MAX,
    REPLAYS_BYTES_MAX,
};
use iris_actors::supervision::detached;
use iris_actors::{Node, TicketUse};
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, Closing, ConnectionFrame, ErrorCode, Event, EventFrame, EventMeta, Operation,
    Position, ProjectId, RequestFrame, ResponseFrame, Room, RoomOutcome, RoomRequest, RoomSince,
    RoomStatus, Subscribe, SubscribePayload, limits::CONNECTION_RETRY_MS,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::http::{RestError, peer, who_connects};
use crate::sockets;

/// Bytes that one write joins from the queue, as long as there are frames.
const WRITE_BYTES: usize = 32 * 1024;
/// How soon a browser comes back, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// The streams that are open, to which a comment is written from time to time: so that proxies do not
/// end them, and that those without a client are noticed.
pub(crate) struct Streams(Mutex<Vec<Weak<Outbound>>>);

impl Streams {
    /// No streams yet. One interval of `every`, which is never zero, serves all of them.
    pub(crate) fn start(every: Duration) -> Arc<Self> {
        let streams = Arc::new(Self(Mutex::default()));
        let open = Arc::downgrade(&streams);
        detached(async move {
            let mut ticks = tokio::time::interval(every);
            loop {
                ticks.tick().await;
                let Some(streams) = open.upgrade() else { return };
                streams.comment();
            }
        });
        streams
    }

    fn add(&self, outbound: &Arc<Outbound>) {
        self.0.lock().push(Arc::downgrade(outbound));
    }

    fn comment(&self) {
        self.0.lock().retain(|stream| {
            let Some(outbound) = stream.upgrade() else { return false };
            // Over this transport a sign of life is a comment.
            outbound.push_pong(Bytes::new());
            !outbound.is_closed()
        });
    }
}

/// `GET /v1/projects/{projectId}/events`.
pub(crate) async fn follow(
    node: Data<Node>,
    streams: Data<Streams>,
    request: HttpRequest,
) -> Result<HttpResponse, RestError> {
    let asked = Asked::of(&request);
    // Whoever put a token into the URL has to hear of that first.
    let purpose = asked.as_ref().map_or(TicketUse::Socket, Asked::purpose);
    let ticket = asked.as_ref().ok().and_then(|asked| asked.ticket.as_deref());
    let claims = who_connects(&node, &request, ticket, &purpose).await?;
    let asked = asked?;
    let project_id = Some(&asked.project_id);
    node.count(claims.as_ref(), &peer(&request))?;
    node.admits(claims.as_ref(), Operation::Subscribe, project_id, None).await?;
    let from = || Line::open(&node, claims.clone(), &request);
    let joined = match from().join(&asked, asked.since.as_ref()).await? {
        Some(joined) => joined,
        // More than a replay may be: the client has to read a snapshot.
        None => from().join(&asked, None).await?.ok_or_else(overloaded)?,
    };
    streams.add(&joined.line.outbound);
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header(("Cache-Control", "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(joined.body(&asked)?))
}

fn overloaded() -> ApiError {
    ApiError::from(ErrorCode::Overloaded).retry_after(RETRY_MS)
}

/// What a request asks for.
#[derive(Debug)]
struct Asked {
    project_id: ProjectId,
    rooms: Vec<Room>,
    since: Option<Position>,
    deltas: Option<bool>,
    presence: Option<bool>,
    ticket: Option<String>,
}

impl Asked {
    fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Parameters {
            rooms: Option<String>,
            since: Option<String>,
            deltas: Option<bool>,
            presence: Option<bool>,
            ticket: Option<String>,
        }
        let project_id = request.match_info().get("projectId").unwrap_or_default().parse();
        let project_id = project_id.map_err(|_| ApiError::not_found("project"))?;
        let query = Query::<Parameters>::from_query(request.query_string());
        let query = query.map_err(|error| ApiError::invalid(format!("the query: {error}")))?;
        let Parameters { rooms, since, deltas, presence, ticket } = query.into_inner();
        let header = request.headers().get("last-event-id").map(|id| id.to_str());
        let header = header.transpose().map_err(|_| invalid_position())?;
        let is_given = |position: &&str| !position.is_empty();
        let since = header.filter(is_given).or(since.as_deref()).filter(is_given);
        Ok(Self {
            project_id,
            rooms: rooms_of(&rooms.unwrap_or_default())?,
            since: since.map(position).transpose()?,
            deltas,
            presence,
            ticket,
        })
    }

    fn purpose(&self) -> TicketUse {
        TicketUse::Stream { project_id: self.project_id.clone(), rooms: self.rooms.clone() }
    }
}

fn rooms_of(names: &str) -> Result<Vec<Room>, ApiError> {
    let room = |name: &str| match name.parse() {
        Ok(Room::User(_) | Room::Admin) | Err(_) => {
            let message = "`rooms` has to be `session:` and `project:` with ids, between commas";
            Err(ApiError::invalid(message).reason("invalid_rooms"))
        }
        Ok(room @ (Room::Session(_) | Room::Project(_))) => Ok(room),
    };
    names.split(',').map(room).collect()
}

/// Reads `<epoch>.<seq>`.
fn position(text: &str) -> Result<Position, ApiError> {
    let (epoch, seq) = text.rsplit_once('.').ok_or_else(invalid_position)?;
    let seq = seq.parse().map_err(|_| invalid_position())?;
    Ok(Position { epoch: epoch.to_owned(), seq })
}

fn invalid_position() -> ApiError {
    let message = "`since` and `Last-Event-ID` have to be an epoch, a dot and a number";
    ApiError::invalid(message).reason("invalid_position")
}

/// The ends of a connection on the side of its transport. Without them the connection ends.
struct Line {
    outbound: Arc<Outbound>,
    /// Two requests at most.
    says: mpsc::Sender<Inbound>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.outbound.abandon();
    }
}

impl Line {
    fn open(node: &Node, claims: Option<AccessClaims>, request: &HttpRequest) -> Self {
        let outbound = Arc::new(Outbound::default());
        let (says, mut said) = mpsc::channel(2);
        let connection = NewConnection {
            node: node.clone(),
            inbound: stream::poll_fn(move |cx| said.poll_recv(cx)),
            outbound: Arc::clone(&outbound),
            abort: sockets::abort_of(request),
            claims,
            unknown: None,
            is_known: Arc::new(AtomicBool::new(true)),
            peer: peer(request),
        };
        connection.start();
        Self { outbound, says }
    }

    fn subscribe(&self, asked: &Asked, rooms: Vec<RoomRequest>) -> Result<(), ApiError> {
        let subscribe = Subscribe { rooms, deltas: asked.deltas, presence: asked.presence };
        let frame = RequestFrame {
            id: "stream".to_owned(),
            r#type: Operation::Subscribe.name().to_owned(),
            project_id: Some(asked.project_id.clone()),
            payload: serde_json::to_value(subscribe).map_err(broken)?,
            idempotency_key: None,
            deadline_ms: None,
        };
        let text = serde_json::to_vec(&frame).map_err(broken)?;
        self.says.try_send(Inbound::Text(text.into())).map_err(broken)
    }

    /// Answers a ping, which this transport does not have: a client that does not read is noticed by
    /// what waits for it.
    fn lives(&self) {
        // Full of requests, it lives as well.
        self.says.try_send(Inbound::Pong).ok();
    }

    /// Joins the rooms. None when there is more to replay than may be.
    async fn join(
        self,
        asked: &Asked,
        since: Option<&Position>,
    ) -> Result<Option<Joined>, ApiError> {
        let rooms = asked.rooms.iter().map(ToString::to_string);
        let request = |room| match since {
            Some(since) => RoomRequest::Since(RoomSince { room, since: Some(since.clone()) }),
            None => RoomRequest::Live(room),
        };
        self.subscribe(asked, rooms.map(request).collect())?;
        let mut gathered = Gathered::default();
        let Some(mut outcomes) = self.answer(&mut gathered).await? else { return Ok(None) };
        let is_reset = |outcome: &RoomOutcome| outcome.status == RoomStatus::Reset;
        let reset: HashSet<String> =
            outcomes.iter().filter(|o| is_reset(o)).map(|o| o.room.clone()).collect();
        if !reset.is_empty() {
            // Heard from now on: the client reads a snapshot that is newer than this.
            let live = reset.iter().cloned().map(RoomRequest::Live);
            self.subscribe(asked, live.collect())?;
            let Some(again) = self.answer(&mut gathered).await? else { return Ok(None) };
            outcomes.retain(|outcome| !is_reset(outcome));
            outcomes.extend(again);
        }
        let was_joined = |outcome: &&RoomOutcome| outcome.status != RoomStatus::Refused;
        let mut joined = outcomes.iter().filter(was_joined);
        let Some(epoch) = joined.next().map(|first| first.epoch.clone()) else {
            let code = outcomes.first().and_then(|outcome| outcome.code);
            return Err(code.map_or_else(overloaded, refused));
        };
        if joined.any(|outcome| outcome.epoch != epoch) {
            // The project was put back to a backup meanwhile.
            return Err(overloaded());
        }
        // Also what had to be joined without a position although there is one.
        let reset = if since.is_none() && asked.since.is_some() {
            outcomes.iter().filter(was_joined).map(|outcome| outcome.room.clone()).collect()
        } else {
            reset
        };
        Ok(Some(Joined { line: self, gathered, outcomes, reset, epoch }))
    }

    /// Gathers what comes until the answer to a subscription. None when it is more than may be.
    async fn answer(&self, gathered: &mut Gathered) -> Result<Option<Vec<RoomOutcome>>, ApiError> {
        loop {
            let json = match poll_fn(|cx| self.outbound.poll_next(cx)).await {
                Some(
                    OutFrame::Text(json)
                    | OutFrame::Replay(json)
                    | OutFrame::Delta(_, json)
                    | OutFrame::Snapshot(_, json)
                    | OutFrame::Latest(_, json)
                    | OutFrame::Left(_, json),
                ) => json,
                Some(OutFrame::Ping) => {
                    self.lives();
                    continue;
                }
                Some(OutFrame::Pong(_) | OutFrame::Binary(_)) => continue,
                Some(OutFrame::Close(reason)) => return Err(closed(&reason)),
                None => return Err(overloaded()),
            };
            let head = Head::of(&json)?;
            if head.r#type != "response" {
                gathered.take(&head, json.clone());
                if gathered.missed_bytes > REPLAYS_BYTES_MAX
                    || gathered.bytes > REPLAY_QUEUE_BYTES_MAX
                {
                    return Ok(None);
                }
                continue;
            }
            let response: ResponseFrame = serde_json::from_slice(&json).map_err(broken)?;
            if let Some(error) = response.error {
                return Err(error);
            }
            let payload = response.payload.unwrap_or_default();
            let payload: SubscribePayload = payload.read().map_err(broken)?;
            return Ok(Some(payload.rooms));
        }
    }
}

fn refused(code: ErrorCode) -> ApiError {
    if code == ErrorCode::NotFound { ApiError::not_found("room") } else { ApiError::from(code) }
}

/// Why there is no stream, when its connection was closed before it began.
fn closed(reason: &CloseReason) -> ApiError {
    let code = match reason.code {
        4401 => ErrorCode::Unauthenticated,
        1012 => ErrorCode::ShuttingDown,
        4029 => ErrorCode::RateLimited,
        4409 => {
            let error = ApiError::new(ErrorCode::RateLimited, "too many connections");
            return error.reason("too_many_connections").retry_after(CONNECTION_RETRY_MS);
        }
        1011 => ErrorCode::Internal,
        _ => return overloaded(),
    };
    match reason.retry_after_ms() {
        Some(ms) => ApiError::from(code).retry_after(ms),
        None => ApiError::new(code, reason.text.clone()),
    }
}

/// Our own failure: the log has the cause, the client has a sentence.
fn broken(error: impl std::fmt::Display) -> ApiError {
    tracing::error!(%error, "an event stream failed inside the server");
    ApiError::new(ErrorCode::Internal, "internal error")
}

/// What a frame says of itself before its payload.
#[derive(Deserialize)]
struct Head {
    r#type: String,
    room: Option<String>,
    seq: Option<u64>,
}

impl Head {
    fn of(json: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(json).map_err(broken)
    }
}

/// The frames that came while rooms were joined, room after room.
#[derive(Default)]
struct Gathered {
    /// Those of no room.
    of_none: VecDeque<Bytes>,
    /// The others. An ephemeral event stands with the number of the durable one before it in its
    /// room, so that sorting does not take it from its place in the room.
    of_rooms: Vec<(u64, Bytes)>,
    last: HashMap<String, u64>,
    bytes: usize,
    /// Of durable events.
    missed_bytes: usize,
}

impl Gathered {
    fn take(&mut self, head: &Head, json: Bytes) {
        self.bytes += json.len();
        self.missed_bytes += if head.seq.is_some() { json.len() } else { 0 };
        let Some(room) = &head.room else { return self.of_none.push_back(json) };
        let known = self.last.get(room).copied().unwrap_or(0);
        let place = head.seq.unwrap_or(known);
        self.last.insert(room.clone(), place);
        self.of_rooms.push((place, json));
    }
}

/// A connection that has joined its rooms.
struct Joined {
    line: Line,
    gathered: Gathered,
    outcomes: Vec<RoomOutcome>,
    /// The rooms whose position could not be resumed.
    reset: HashSet<String>,
    epoch: String,
}

impl Joined {
    fn body(self, asked: &Asked) -> Result<Body, ApiError> {
        let Self { line, gathered, mut outcomes, reset, epoch } = self;
        let Gathered { of_none: mut frames, mut of_rooms, .. } = gathered;
        let is_refused = |outcome: &RoomOutcome| outcome.status == RoomStatus::Refused;
        for outcome in &mut outcomes {
            if reset.contains(&outcome.room) && !is_refused(outcome) {
                outcome.status = RoomStatus::Reset;
            }
        }
        let subscribed = ConnectionFrame::Subscribed {
            project_id: asked.project_id.clone(),
            payload: SubscribePayload { rooms: outcomes.clone() },
        };
        frames.push_back(encoded(&subscribed)?);
        for outcome in &outcomes {
            let RoomOutcome { room, epoch, to, code, .. } = outcome.clone();
            let event = match (outcome.status, code) {
                (RoomStatus::Reset, _) => Event::RoomReset { room, epoch, to },
                (RoomStatus::Refused, Some(code)) => Event::RoomLeft { room, code },
                (RoomStatus::Live | RoomStatus::Replayed | RoomStatus::Refused, _) => continue,
            };
            let meta = EventMeta {
                project_id: Some(asked.project_id.clone()),
                room: outcome.room.parse().map_err(broken)?,
                seq: None,
                prev: None,
                at: None,
                by: None,
            };
            frames.push_back(encoded(&EventFrame { meta, event })?);
        }
        of_rooms.sort_by_key(|(place, _)| *place);
        let events = of_rooms.into_iter().map(|(_, json)| json).collect();
        line.outbound.put_back(frames.into_iter(), events);
        let rooms = outcomes.into_iter().filter(|outcome| !is_refused(outcome));
        let rooms = rooms.map(|outcome| outcome.room).collect();
        let preamble = Some(Bytes::from(format!("retry: {RETRY_MS}\n\n")));
        Ok(Body { line, preamble, rooms, epoch })
    }
}

fn encoded(frame: &impl Serialize) -> Result<Bytes, ApiError> {
    serde_json::to_vec(frame).map(Bytes::from).map_err(broken)
}

/// The response body.
struct Body {
    line: Line,
    preamble: Option<Bytes>,
    /// The rooms that it still hears.
    rooms: HashSet<String>,
    epoch: String,
}

impl Body {
    fn write(&mut self, frame: OutFrame, to: &mut BytesMut) {
        match frame {
            OutFrame::Text(json)
            | OutFrame::Replay(json)
            | OutFrame::Delta(_, json)
            | OutFrame::Snapshot(_, json)
            | OutFrame::Latest(_, json)
            | OutFrame::Left(_, json) => self.write_event(&json, to),
            OutFrame::Ping => {
                self.line.lives();
                to.extend_from_slice(b":\n\n");
            }
            OutFrame::Pong(_) => to.extend_from_slice(b":\n\n"),
            // An event stream has no streams of files.
            OutFrame::Binary(_) => {}
            OutFrame::Close(CloseReason { code, text }) => {
                let payload = Closing { code, reason: text };
                if let Ok(frame) = encoded(&ConnectionFrame::Closing { payload }) {
                    write_fields(None, "closing", &frame, to);
                }
            }
        }
    }

    fn write_event(&mut self, json: &[u8], to: &mut BytesMut) {
        let Ok(head) = Head::of(json) else { return };
        let id = head.seq.map(|seq| format!("{}.{seq}", self.epoch));
        write_fields(id.as_deref(), &head.r#type, json, to);
        let left = head.room.filter(|_| head.r#type == "room.left" && head.seq.is_none());
        if left.is_some_and(|room| self.rooms.remove(&room)) && self.rooms.is_empty() {
            self.line.outbound.close(CloseReason::new(1000, "no room is left"));
        }
    }
}

/// Writes one event. What was imported may have line breaks where our own frames have none: no name has
/// them, and data is written line by line, so that nothing becomes a field of its own.
fn write_fields(id: Option<&str>, event: &str, data: &[u8], to: &mut BytesMut) {
    if event.contains(char::is_control) {
        return;
    }
    if let Some(id) = id {
        to.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    to.extend_from_slice(format!("event: {event}\n").as_bytes());
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        to.extend_from_slice(b"data: ");
        to.extend_from_slice(line);
        to.extend_from_slice(b"\n");
    }
    to.extend_from_slice(b"\n");
}

impl Stream for Body {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let mut written = BytesMut::from(this.preamble.take().unwrap_or_default());
        while written.len() < WRITE_BYTES {
            match this.line.outbound.poll_next(cx) {
                Poll::Ready(Some(frame)) => this.write(frame, &mut written),
                Poll::Ready(None) if written.is_empty() => return Poll::Ready(None),
                Poll::Pending if written.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(Ok(written.freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_imported_cannot_forge_fields_of_a_stream() {
        let mut written = BytesMut::new();
        write_fields(Some("e.1"), "x\nevent: closing", b"{}", &mut written);
        assert!(written.is_empty());
        write_fields(Some("e.1"), "x", b"{\n\r\n\"a\":1}", &mut written);
        let expected = "id: e.1\nevent: x\ndata: {\ndata: \ndata: \ndata: \"a\":1}\n\n";
        assert_eq!(written, expected);
    }
}
