//! Follows the supervision log for as long as somebody wants it: live over a socket, in pages where
//! no socket gets through, and through restarts of the server without a gap or a duplicate.

use std::convert::Infallible;
use std::time::Duration;

use iris_protocol::limits::SUPERVISION_RECORDS_MAX;
use iris_protocol::{
    ErrorCode, Event, Room, RoomRequest, RoomStatus, ServerFrame, Subscribe, SupervisionList,
    SupervisionRecord,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::{Backoff, Client, ClientError, ConnectOptions, Reconnect, Socket};

/// Updates that may wait for the caller; more of them stop the reading of the socket.
const UPDATES_WAITING_MAX: usize = 256;

/// How to follow the supervision log.
#[derive(Debug, Clone)]
pub struct SupervisionFollowOptions {
    /// Which records, and after which one. Without `since` the newest `limit` of them come first.
    pub records: SupervisionList,
    /// How to connect.
    pub connect: ConnectOptions,
    /// How long to wait between attempts.
    pub backoff: Backoff,
}

impl Default for SupervisionFollowOptions {
    fn default() -> Self {
        let backoff = Backoff { max: Duration::from_secs(3), ..Backoff::default() };
        let (records, connect) = (SupervisionList::default(), ConnectOptions::default());
        Self { records, connect, backoff }
    }
}

/// What a [`SupervisionFollower`] tells.
#[derive(Debug, Clone, PartialEq)]
pub enum SupervisionUpdate {
    /// A record. Ids rise; none is missing and none comes twice.
    Record(Box<SupervisionRecord>),
    /// All that was missed was told; what follows comes as it happens.
    Live,
    /// There is no socket, but the server answers: records come with the next attempt.
    Polling {
        /// Why there is no socket.
        reason: String,
        /// How long until the next attempt.
        delay: Duration,
    },
    /// The server does not answer.
    Reconnecting {
        /// Why.
        reason: String,
        /// How long until the next attempt.
        delay: Duration,
    },
}

/// The supervision log as it grows. Dropping it ends the connection.
#[derive(Debug)]
pub struct SupervisionFollower {
    updates: mpsc::Receiver<Result<SupervisionUpdate, ClientError>>,
    task: JoinHandle<()>,
}

impl SupervisionFollower {
    /// Begins to follow with the tokens of `client`, on a task of its own.
    pub fn start(client: Client, options: SupervisionFollowOptions) -> Self {
        let (updates_tx, updates) = mpsc::channel(UPDATES_WAITING_MAX);
        let place = Place { last: options.records.since, wanted: options.records.clone() };
        let worker = Worker { client, options, place, updates: updates_tx, failures: 0 };
        Self { updates, task: tokio::spawn(worker.run()) }
    }

    /// The next update. Waits without a bound; safe to abandon.
    ///
    /// # Errors
    /// The failure that ended the following, once: the server refuses, or there is no valid token.
    /// Then `Closed` with 1000.
    pub async fn next(&mut self) -> Result<SupervisionUpdate, ClientError> {
        let ended =
            || ClientError::Closed { code: 1000, reason: "the follower has ended".to_owned() };
        self.updates.recv().await.unwrap_or_else(|| Err(ended()))
    }
}

impl Drop for SupervisionFollower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Which records are wanted, and which one was the last.
struct Place {
    wanted: SupervisionList,
    /// Id of the last record that was seen, wanted or not. Nothing before the first page.
    last: Option<u64>,
}

impl Place {
    /// The next page to ask for. All others after the first one begin where the last one ended.
    fn page(&self) -> SupervisionList {
        let limit =
            if self.last.is_some() { Some(SUPERVISION_RECORDS_MAX) } else { self.wanted.limit };
        SupervisionList { since: self.last, limit, ..self.wanted.clone() }
    }

    /// Whether to tell of a record: it is new, and wanted.
    fn admit(&mut self, record: &SupervisionRecord) -> bool {
        if self.last.is_some_and(|last| record.id <= last) {
            return false;
        }
        self.last = Some(record.id);
        self.wanted.kind.is_none_or(|kind| kind == record.kind)
            && self.wanted.path.as_deref().is_none_or(|path| is_under(&record.path, path))
    }
}

/// Whether `path` is `top` or below it.
fn is_under(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

struct Worker {
    client: Client,
    options: SupervisionFollowOptions,
    place: Place,
    updates: mpsc::Sender<Result<SupervisionUpdate, ClientError>>,
    /// Attempts in a row that brought no socket.
    failures: u32,
}

impl Worker {
    async fn run(mut self) {
        while !self.updates.is_closed() {
            let outcome = self.attempt().await;
            if let Err(error) = self.wait(outcome).await {
                // Fails when the follower was dropped, and with it the reason to tell.
                self.updates.send(Err(error)).await.ok();
                return;
            }
        }
    }

    /// From one connection to its end, which is the `Ok`. The pages are asked for after the room was
    /// joined, so that nothing falls between the two. They decide whether the server is there and
    /// wants us: a socket may fail for other reasons, a proxy for example.
    async fn attempt(&mut self) -> Result<ClientError, ClientError> {
        let joined = self.join().await;
        self.catch_up().await?;
        let socket = match joined {
            Ok(socket) => socket,
            Err(error) => return Ok(error),
        };
        self.failures = 0;
        self.tell(SupervisionUpdate::Live).await;
        let Err(end) = self.listen(&socket).await;
        Ok(end)
    }

    async fn join(&self) -> Result<Socket, ClientError> {
        let socket = self.client.connect(&self.options.connect).await?;
        let rooms = vec![RoomRequest::Live(Room::Admin.to_string())];
        let reply = socket.call(None, Subscribe { rooms, deltas: None, presence: None }).await?;
        let outcome = reply.payload.rooms.into_iter().next();
        let outcome = outcome
            .ok_or_else(|| ClientError::Protocol("`subscribe` answered no room".to_owned()))?;
        match outcome.status {
            RoomStatus::Live | RoomStatus::Replayed => Ok(socket),
            RoomStatus::Refused | RoomStatus::Reset => {
                Err(ClientError::Api(outcome.code.unwrap_or(ErrorCode::Forbidden).into()))
            }
        }
    }

    /// Tells of everything after the last record.
    async fn catch_up(&mut self) -> Result<(), ClientError> {
        loop {
            let page = self.client.supervision(&self.place.page()).await?;
            let is_last = !page.has_more || page.records.is_empty();
            for record in page.records {
                self.pass(record).await;
            }
            // An empty log: everything from now on is new.
            self.place.last.get_or_insert(0);
            if is_last {
                return Ok(());
            }
        }
    }

    async fn listen(&mut self, socket: &Socket) -> Result<Infallible, ClientError> {
        loop {
            let ServerFrame::Event(frame) = socket.next_frame().await? else { continue };
            if frame.meta.room != Room::Admin {
                continue;
            }
            if let Event::RoomLeft { code, .. } = &frame.event {
                return Err(ClientError::Api((*code).into()));
            }
            if let Some(record) = record(frame.event) {
                self.pass(record).await;
            }
        }
    }

    async fn pass(&mut self, record: SupervisionRecord) {
        if self.place.admit(&record) {
            self.tell(SupervisionUpdate::Record(Box::new(record))).await;
        }
    }

    /// Waits for the next attempt, or gives the failure back when trying again is of no use.
    async fn wait(&mut self, outcome: Result<ClientError, ClientError>) -> Result<(), ClientError> {
        self.failures = self.failures.saturating_add(1);
        let at_least = match &outcome {
            Ok(error) | Err(error) => match Reconnect::after(error) {
                Reconnect::Later { at_least } => at_least,
                Reconnect::Never | Reconnect::WithNewToken if outcome.is_ok() => Duration::ZERO,
                Reconnect::Never | Reconnect::WithNewToken => return outcome.map(drop),
            },
        };
        // Without a source of random numbers every client waits the whole time.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        let delay = self.options.backoff.delay(self.failures, random).max(at_least);
        self.tell(match outcome {
            Ok(error) => SupervisionUpdate::Polling { reason: error.to_string(), delay },
            Err(error) => SupervisionUpdate::Reconnecting { reason: error.to_string(), delay },
        })
        .await;
        tokio::time::sleep(delay).await;
        Ok(())
    }

    async fn tell(&self, update: SupervisionUpdate) {
        // Fails when the follower was dropped, which aborts this task.
        self.updates.send(Ok(update)).await.ok();
    }
}

/// The record that an event tells of.
fn record(event: Event) -> Option<SupervisionRecord> {
    let (Event::SupervisionStarted { record }
    | Event::SupervisionStopped { record }
    | Event::SupervisionPanicked { record }
    | Event::SupervisionRestarted { record }
    | Event::SupervisionGaveUp { record }
    | Event::SupervisionStuck { record }
    | Event::SupervisionOverloaded { record }
    | Event::SupervisionPassivated { record }
    | Event::SupervisionBlocked { record }
    | Event::SupervisionUnblocked { record }) = event
    else {
        return None;
    };
    Some(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_under_itself_and_its_parents_alone() {
        assert!(is_under("node/a", "node/a"));
        assert!(is_under("node/a/b", "node/a"));
        assert!(!is_under("node/ab", "node/a"));
        assert!(!is_under("node", "node/a"));
    }
}
