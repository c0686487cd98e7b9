//! Follows one session for as long as it lives, through lost connections, restarts and new tokens.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{
    AuthRefresh, ErrorCode, Event, Position, Presence, PresenceUpdate, ProjectId, Request, Room,
    RoomRequest, RoomSince, RoomStatus, ServerFrame, SessionGet, SessionId, Subscribe, UserId,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::{
    Backoff, Client, ClientError, ConnectOptions, Reconnect, Reply, SessionFeed, Socket, Update,
};

/// Updates that may wait for the caller; more of them stop the reading of the socket.
const UPDATES_WAITING_MAX: usize = 256;
/// Most `reset` answers in a row, each followed by a fresh snapshot.
const RESETS_MAX: u32 = 5;

/// How to follow.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    /// The last event that the caller has seen. Without it the first update is a `Reset`.
    pub since: Option<Position>,
    /// Whether text is wanted while it streams; without it text comes when a part is whole.
    pub deltas: bool,
    /// Whether to say that the user looks at the session, and to hear who else is in the project.
    pub presence: bool,
    /// How to connect.
    pub connect: ConnectOptions,
    /// How long to wait between attempts.
    pub backoff: Backoff,
    /// Most attempts that fail in a row before the follower gives up.
    pub failures_max: u32,
}

impl Default for FollowOptions {
    fn default() -> Self {
        Self {
            since: None,
            deltas: true,
            presence: false,
            connect: ConnectOptions::default(),
            backoff: Backoff::default(),
            failures_max: u32::MAX,
        }
    }
}

/// A session that is being followed. Dropping it ends the connection.
#[derive(Debug)]
pub struct Follower {
    updates: mpsc::Receiver<Result<Update, ClientError>>,
    caller: Caller,
    task: JoinHandle<()>,
}

/// Runs operations on the connection of a [`Follower`], whichever that is at the moment. Clones share it.
#[derive(Debug, Clone)]
pub struct Caller {
    socket: watch::Receiver<Option<Arc<Socket>>>,
    project: ProjectId,
    request_timeout: Duration,
}

impl Caller {
    /// Whether there is a connection at the moment.
    pub fn is_connected(&self) -> bool {
        self.socket.borrow().is_some()
    }

    /// Runs an operation in the session's project, waiting for a connection to be there as long as a
    /// request may take. Never repeated by itself.
    ///
    /// # Errors
    /// Those of [`Socket::call`]; `Closed` with 1000 when the follower has ended.
    pub async fn call<R: Request>(&self, request: R) -> Result<Reply<R::Response>, ClientError> {
        let mut watched = self.socket.clone();
        let connected = connected(&mut watched, None);
        let connected = tokio::time::timeout(self.request_timeout, connected).await;
        connected.map_err(|_| ClientError::Timeout)??.call(Some(&self.project), request).await
    }

    /// Runs an operation that changes something, once, however often the connection is lost: repeats it
    /// under one idempotency key on the connections that follow until it is answered. Waits without a
    /// bound for the server to be there; safe to abandon.
    ///
    /// # Errors
    /// `Api` with the server's error; `Protocol`; `Closed` with 1000 when the follower has ended.
    pub async fn call_once<R: Request>(
        &self,
        request: R,
    ) -> Result<Reply<R::Response>, ClientError> {
        let random = [getrandom::u64(), getrandom::u64()];
        let [Ok(high), Ok(low)] = random else {
            // Without a key it may only be tried once.
            return self.call(request).await;
        };
        let key = format!("{high:016x}{low:016x}");
        let mut watched = self.socket.clone();
        let mut lost = None;
        loop {
            let socket = connected(&mut watched, lost.as_ref()).await?;
            match socket.call_keyed(Some(&self.project), &request, Some(&key)).await {
                // It may have been done; on this connection or another the repeat tells.
                Err(ClientError::Timeout) => {}
                Err(ClientError::Closed { .. } | ClientError::Transport(_)) => lost = Some(socket),
                Err(ClientError::Api(error)) if error.code == ErrorCode::ShuttingDown => {
                    lost = Some(socket);
                }
                outcome => return outcome,
            }
        }
    }
}

/// Waits for a connection that is not the one that was lost.
async fn connected(
    watched: &mut watch::Receiver<Option<Arc<Socket>>>,
    lost: Option<&Arc<Socket>>,
) -> Result<Arc<Socket>, ClientError> {
    let is_lost = |socket: &Arc<Socket>| lost.is_some_and(|lost| Arc::ptr_eq(lost, socket));
    let found = watched.wait_for(|socket| socket.as_ref().is_some_and(|socket| !is_lost(socket)));
    let found = found.await.map_err(|_| ended())?.clone();
    found.ok_or_else(ended)
}

impl Follower {
    /// Begins to follow a session with the tokens of `client`, on a task of its own.
    pub fn start(
        client: Client,
        project: ProjectId,
        session: SessionId,
        options: FollowOptions,
    ) -> Self {
        let (updates_tx, updates) = mpsc::channel(UPDATES_WAITING_MAX);
        let (socket_tx, socket) = watch::channel(None);
        let request_timeout = options.connect.request_timeout;
        let feed = options.since.clone().map(|since| SessionFeed::resume(session.clone(), since));
        let worker = Worker {
            client,
            project: project.clone(),
            session,
            options,
            feed,
            updates: updates_tx,
            socket: socket_tx,
            present: BTreeMap::new(),
            failures: 0,
        };
        let task = tokio::spawn(worker.run());
        Self { updates, caller: Caller { socket, project, request_timeout }, task }
    }

    /// The next update. Waits without a bound; safe to abandon.
    ///
    /// # Errors
    /// The failure that ended the following, once: the session is gone, the server refuses, there is
    /// no valid token, or [`FollowOptions::failures_max`] was reached. Then `Closed` with 1000.
    pub async fn next(&mut self) -> Result<Update, ClientError> {
        self.updates.recv().await.unwrap_or_else(|| Err(ended()))
    }

    /// Runs an operation as [`Caller::call`] does.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub async fn call<R: Request>(&self, request: R) -> Result<Reply<R::Response>, ClientError> {
        self.caller.call(request).await
    }

    /// What runs operations beside the reading of updates.
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ended() -> ClientError {
    ClientError::Closed { code: 1000, reason: "the follower has ended".to_owned() }
}

struct Worker {
    client: Client,
    project: ProjectId,
    session: SessionId,
    options: FollowOptions,
    /// Nothing until there is a snapshot to go on from.
    feed: Option<SessionFeed>,
    updates: mpsc::Sender<Result<Update, ClientError>>,
    socket: watch::Sender<Option<Arc<Socket>>>,
    /// Who is in the project, where that was asked for.
    present: BTreeMap<UserId, Presence>,
    /// Attempts that failed since the session was last joined.
    failures: u32,
}

/// Passes on that there is no answer; a refusal is one.
fn unless_refused(answer: Result<(), ClientError>) -> Result<(), ClientError> {
    match answer {
        Err(ClientError::Api(_)) => Ok(()),
        answer => answer,
    }
}

impl Worker {
    async fn run(mut self) {
        loop {
            let Err(error) = self.follow().await;
            self.socket.send_replace(None);
            if let Err(error) = self.recover(error).await {
                // Fails when the follower was dropped, and with it the reason to tell.
                self.updates.send(Err(error)).await.ok();
                return;
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn follow(&mut self) -> Result<Infallible, ClientError> {
        let socket = Arc::new(self.client.connect(&self.options.connect).await?);
        self.subscribe(&socket).await?;
        self.failures = 0;
        self.socket.send_replace(Some(Arc::clone(&socket)));
        self.tell(Update::Connected).await;
        if self.options.presence {
            self.appear(&socket).await?;
        }
        loop {
            match socket.next_frame().await? {
                ServerFrame::Event(frame) => {
                    if matches!(frame.meta.room, Room::Project(_)) {
                        self.hear_of(frame.event).await;
                        continue;
                    }
                    let Some(feed) = &mut self.feed else { continue };
                    let left = left(&frame.event, feed);
                    let received = feed.receive(*frame);
                    for update in received.updates {
                        self.tell(update).await;
                    }
                    if let Some(code) = left {
                        return Err(ClientError::Api(code.into()));
                    }
                    if received.gap {
                        self.subscribe(&socket).await?;
                    }
                }
                ServerFrame::AuthExpiring { .. } => self.renew(&socket).await?,
                ServerFrame::Heartbeat(heartbeat) => {
                    let is_behind = self.feed.as_ref().is_some_and(|feed| feed.misses(&heartbeat));
                    if is_behind {
                        self.subscribe(&socket).await?;
                    }
                }
                // The close that follows says when to come back.
                ServerFrame::Draining { .. }
                | ServerFrame::Maintenance(_)
                | ServerFrame::TransferFailed(_)
                | ServerFrame::Connected(_)
                | ServerFrame::Response(_)
                | ServerFrame::Unknown(_) => {}
            }
        }
    }

    /// Joins the session's room after what is known, from a fresh snapshot where that is too old.
    async fn subscribe(&mut self, socket: &Socket) -> Result<(), ClientError> {
        for _ in 0..RESETS_MAX {
            let feed = match self.feed.take() {
                Some(feed) => feed,
                None => self.snapshot(socket).await?,
            };
            let feed = self.feed.insert(feed);
            let since = Some(feed.position().clone());
            let room = RoomRequest::Since(RoomSince { room: feed.room().to_string(), since });
            let deltas = Some(self.options.deltas);
            let request = Subscribe { rooms: vec![room], deltas, presence: None };
            let reply = socket.call(Some(&self.project), request).await?;
            let outcome =
                reply.payload.rooms.into_iter().next().ok_or_else(|| {
                    ClientError::Protocol("`subscribe` answered no room".to_owned())
                })?;
            match outcome.status {
                RoomStatus::Live | RoomStatus::Replayed => {
                    feed.subscribed(outcome.to);
                    return Ok(());
                }
                RoomStatus::Refused => {
                    let code = outcome.code.unwrap_or(ErrorCode::Forbidden);
                    return Err(ClientError::Api(code.into()));
                }
                RoomStatus::Reset => self.feed = None,
            }
        }
        Err(ClientError::Protocol(format!("`subscribe` answered `reset` {RESETS_MAX} times")))
    }

    /// Says which session the user looks at, and joins the room that tells who else is there. Who may do
    /// neither follows the session all the same.
    async fn appear(&mut self, socket: &Socket) -> Result<(), ClientError> {
        let rooms = vec![RoomRequest::Live(Room::Project(self.project.clone()).to_string())];
        let subscribe = Subscribe { rooms, deltas: Some(false), presence: Some(true) };
        let update = PresenceUpdate { session_id: Some(self.session.clone()), status: None };
        self.present.clear();
        // First: the room tells who joins where everybody is, and changes only a moment later.
        let said = socket.call(Some(&self.project), update).await.map(drop);
        unless_refused(said)?;
        unless_refused(socket.call(Some(&self.project), subscribe).await.map(drop))
    }

    /// Takes an event of the project's room, which tells who is there among other things.
    async fn hear_of(&mut self, event: Event) {
        if let Event::PresenceSnapshot { users } = event {
            self.present = users.into_iter().map(|user| (user.user_id.clone(), user)).collect();
        } else if let Event::PresenceJoined { presence } | Event::PresenceUpdated { presence } =
            event
        {
            self.present.insert(presence.user_id.clone(), presence);
        } else if let Event::PresenceLeft { presence } = event {
            self.present.remove(&presence.user_id);
        } else {
            return;
        }
        self.tell(Update::Presence(self.present.values().cloned().collect())).await;
    }

    async fn snapshot(&mut self, socket: &Socket) -> Result<SessionFeed, ClientError> {
        let request = SessionGet { session_id: self.session.clone(), limit: None, before: None };
        let snapshot = socket.call(Some(&self.project), request).await?.payload;
        let feed = SessionFeed::from_snapshot(&snapshot);
        self.tell(Update::Reset(Box::new(snapshot))).await;
        Ok(feed)
    }

    /// Gives the socket a new access token before the old one ends.
    async fn renew(&mut self, socket: &Socket) -> Result<(), ClientError> {
        if let Err(ClientError::Api(_)) = self.client.renew(self.client.token().as_deref()).await {
            // No new token to be had: the server closes with 4401 when the time is over.
            return Ok(());
        }
        let token = self.client.token().unwrap_or_default();
        socket.call(None, AuthRefresh { token }).await?;
        Ok(())
    }

    /// Waits as long as the failure asks for, or gives it back when trying again is of no use.
    async fn recover(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.failures = self.failures.saturating_add(1);
        if self.failures > self.options.failures_max || self.updates.is_closed() {
            return Err(error);
        }
        let at_least = match Reconnect::after(&error) {
            Reconnect::Never => return Err(error),
            Reconnect::Later { at_least } => at_least,
            Reconnect::WithNewToken => {
                let token = self.client.token();
                if let Err(ClientError::Api(_)) = self.client.renew(token.as_deref()).await {
                    return Err(error);
                }
                Duration::ZERO
            }
        };
        // Without a source of random numbers every client waits the whole time.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let delay = self.options.backoff.delay(self.failures, random).max(at_least);
        self.tell(Update::Reconnecting { reason: error.to_string(), delay }).await;
        tokio::time::sleep(delay).await;
        Ok(())
    }

    async fn tell(&self, update: Update) {
        // Fails when the follower was dropped, which aborts this task.
        self.updates.send(Ok(update)).await.ok();
    }
}

/// Why the session's room was left, when the event says so.
fn left(event: &Event, feed: &SessionFeed) -> Option<ErrorCode> {
    let Event::RoomLeft { room, code } = event else { return None };
    (*room == feed.room().to_string()).then_some(*code)
}
