//! What a connection hears: joining rooms of projects and the supervision log, leaving them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, ConnectionId, ErrorCode, Operation, ProjectId, Room, RoomOutcome, RoomRequest,
    RoomStatus, Subscribe, SubscribePayload, Unsubscribe, UserId, limits::ROOMS_PER_CONNECTION_MAX,
};

use super::{Connection, Outbound, payload_of};
use crate::Node;
use crate::dispatch::{Patience, given_up};
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::supervision::{detached, in_request};

/// How long joining rooms may take before the connection counts as stuck.
const SUBSCRIBE_BUDGET: Duration = Duration::from_secs(30);

impl Connection {
    pub(super) fn subscribe(
        &mut self,
        (id, deadline_ms): (String, Option<u64>),
        project_id: Option<ProjectId>,
        subscribe: Subscribe,
        ctx: &mut Context<Self>,
    ) {
        for lost in self.outbound.take_lost() {
            self.rooms.remove(&lost);
        }
        let joined: usize = self.rooms.values().map(Vec::len).sum();
        let is_new = |room: &&RoomRequest| !self.is_in(project_id.as_ref(), room.parts().0);
        let asked = subscribe.rooms.iter().filter(is_new).count();
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
        // One request for some of them was counted when it came.
        for _ in 1..subscribe.rooms.len().div_ceil(ROOMS_PER_REQUEST) {
            if let Err(error) = self.count_request() {
                return self.refuse(id, error, ctx);
            }
        }
        let (in_flight, permit) = match self.requests.begin(id, deadline_ms) {
            Ok(begun) => begun,
            Err((id, error)) => return self.refuse(id, error, ctx),
        };
        let wanted: Vec<Room> =
            subscribe.rooms.iter().filter_map(|room| room.parts().0.parse().ok()).collect();
        self.rooms_on_their_way += asked;
        self.projects_on_their_way.extend(project_id.clone());
        let on_its_way = project_id.clone();
        let join = Join {
            node: self.node.clone(),
            claims: self.claims.clone(),
            project_id,
            subscribe,
            connection_id: self.id.clone(),
            outbound: Arc::clone(&self.outbound),
        };
        let work = self.vitals.begin("subscribe", SUBSCRIBE_BUDGET);
        let joined = in_request(self.tag(), join.run(Arc::clone(&in_flight.patience)));
        let joined = joined.into_actor(self);
        ctx.spawn(joined.map(move |joined, connection, _| {
            drop((permit, work));
            let id = in_flight.id.clone();
            drop(in_flight);
            connection.rooms_on_their_way -= asked;
            let places = &mut connection.projects_on_their_way;
            if let Some(place) = places.iter().position(|id| on_its_way.as_ref() == Some(id)) {
                places.swap_remove(place);
            }
            match joined {
                Ok(Joined { project_id, outcomes }) => {
                    connection.hear_log(&outcomes);
                    if let Some(project_id) = project_id {
                        connection.knows(project_id, &outcomes);
                    }
                    connection.respond(id, payload_of(SubscribePayload { rooms: outcomes }), None);
                }
                Err(Failed { error, has_left }) => {
                    if has_left {
                        connection.forgets(&wanted);
                    }
                    connection.respond(id, Err(error), None);
                }
            }
        }));
    }

    fn is_in(&self, project_id: Option<&ProjectId>, room: &str) -> bool {
        let known = project_id.and_then(|project_id| self.rooms.get(project_id));
        known.is_some_and(|known| room.parse().is_ok_and(|room| known.contains(&room)))
    }

    fn forgets(&mut self, rooms: &[Room]) {
        for known in self.rooms.values_mut() {
            known.retain(|room| !rooms.contains(room));
        }
        self.rooms.retain(|_, known| !known.is_empty());
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

    /// Notes which rooms of a project were joined, and which it is not in any more.
    fn knows(&mut self, project_id: ProjectId, outcomes: &[RoomOutcome]) {
        let rooms_that = |is_joined: bool| -> Vec<Room> {
            let rooms = outcomes.iter().filter(|outcome| match outcome.status {
                RoomStatus::Live | RoomStatus::Replayed => is_joined,
                RoomStatus::Reset | RoomStatus::Refused => !is_joined,
            });
            let rooms = rooms.filter_map(|outcome| outcome.room.parse().ok());
            rooms.filter(|room| *room != Room::Admin).collect()
        };
        self.forgets(&rooms_that(false));
        let joined = rooms_that(true);
        if joined.is_empty() {
            return;
        }
        let known = self.rooms.entry(project_id).or_default();
        known.retain(|room| !joined.contains(room));
        known.extend(joined);
    }

    pub(super) fn unsubscribe(&mut self, id: String, unsubscribe: &Unsubscribe) {
        let rooms: Vec<Room> =
            unsubscribe.rooms.iter().filter_map(|room| room.parse().ok()).collect();
        if rooms.contains(&Room::Admin) {
            self.hears_log = None;
        }
        let on_their_way = self.projects_on_their_way.iter();
        let projects: BTreeSet<_> = self.rooms.keys().chain(on_their_way).cloned().collect();
        for project_id in projects {
            self.leave(project_id, Some(rooms.clone()));
        }
        self.forgets(&rooms);
        self.respond(id, payload_of(iris_protocol::Done { done: true }), None);
    }

    /// Leaves rooms of a project; all of them when none is named.
    pub(super) fn leave(&self, project_id: ProjectId, rooms: Option<Vec<Room>>) {
        let Some(claims) = &self.claims else { return };
        let (node, user_id) = (self.node.clone(), claims.user_id.clone());
        let leave = OwnerAsk::Leave { connection_id: self.id.clone(), rooms, has_right: true };
        detached(async move {
            // A project that is gone has no rooms to leave.
            drop(node.ask_owner(&project_id, &user_id, leave, None).await);
        });
    }
}

/// Rooms that a subscription may name for what one request costs.
const ROOMS_PER_REQUEST: usize = 8;

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

/// A subscription that came to nothing.
struct Failed {
    error: ApiError,
    /// Whether its rooms were left, also those that were joined before.
    has_left: bool,
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self { error, has_left: false }
    }
}

impl Failed {
    fn left(error: ApiError) -> Self {
        Self { error, has_left: true }
    }
}

impl Join {
    /// Joins the rooms, or none of them when the client is patient no longer.
    async fn run(self, patience: Arc<Patience>) -> Result<Joined, Failed> {
        let code = tokio::select! {
            biased;
            joined = self.join_all() => {
                // Who was told that it is cancelled is in no room.
                if patience.finish() {
                    return joined;
                }
                ErrorCode::Cancelled
            }
            code = patience.over() => code,
        };
        if let (Some(project_id), Some(claims)) = (&self.project_id, &self.claims) {
            self.leave_again(project_id, &claims.user_id).await;
        }
        Err(Failed::left(given_up(code)))
    }

    async fn join_all(&self) -> Result<Joined, Failed> {
        let is_admin_room = |room: &str| room.parse() == Ok(Room::Admin);
        let names: Vec<&str> = self.subscribe.rooms.iter().map(|room| room.parts().0).collect();
        let is_only_admin = !names.is_empty() && names.iter().all(|room| is_admin_room(room));
        let project = if is_only_admin { None } else { Some(self.may_hear_project().await?) };
        let joined = match &project {
            Some((project_id, user_id)) => {
                let username = self.username(user_id).await?;
                match self.join(project_id, user_id, username).await {
                    Ok(outcomes) => outcomes,
                    Err(error) => {
                        self.leave_again(project_id, user_id).await;
                        return Err(Failed::left(error));
                    }
                }
            }
            None => Vec::new(),
        };
        let (mut joined, mut outcomes) = (joined.into_iter(), Vec::with_capacity(names.len()));
        for room in names {
            outcomes.push(if is_admin_room(room) {
                self.join_log(room).await
            } else {
                joined.next().ok_or_else(mismatch)?
            });
        }
        let Some((project_id, user_id)) = project else {
            return Ok(Joined { project_id: None, outcomes });
        };
        // Who lost the right after the first look may have been taken out of the rooms before they
        // were in: look again, now that they are.
        self.may_still_hear(&project_id, &user_id).await?;
        Ok(Joined { project_id: Some(project_id), outcomes })
    }

    /// Looks again whether the user may hear the project. Who may not leaves all of its rooms; where that
    /// cannot be told, the subscription alone comes to nothing.
    async fn may_still_hear(&self, project_id: &ProjectId, user_id: &UserId) -> Result<(), Failed> {
        let Err(error) = self.may_hear_project().await else { return Ok(()) };
        if matches!(error.code, ErrorCode::Internal | ErrorCode::Overloaded) {
            self.leave_again(project_id, user_id).await;
        } else {
            self.lose(project_id, user_id).await?;
        }
        Err(Failed::left(error))
    }

    /// Leaves every room of the project, the right to which has ended.
    async fn lose(&self, project_id: &ProjectId, user_id: &UserId) -> Result<(), ApiError> {
        let connection_id = self.connection_id.clone();
        let leave = OwnerAsk::Leave { connection_id, rooms: None, has_right: false };
        self.node.ask_owner(project_id, user_id, leave, None).await.map(drop)
    }

    /// Leaves what this subscription has joined, since its client is told that it failed.
    async fn leave_again(&self, project_id: &ProjectId, user_id: &UserId) {
        let rooms = self.subscribe.rooms.iter().filter_map(|room| room.parts().0.parse().ok());
        let (connection_id, rooms) = (self.connection_id.clone(), Some(rooms.collect()));
        let leave = OwnerAsk::Leave { connection_id, rooms, has_right: true };
        // An owner that cannot be reached has no rooms to leave.
        drop(self.node.ask_owner(project_id, user_id, leave, None).await);
    }

    async fn may_hear_project(&self) -> Result<(ProjectId, UserId), ApiError> {
        let (node, claims) = (&self.node, self.claims.as_ref());
        let grant = node.gate(claims, Operation::Subscribe, self.project_id.as_ref()).await?;
        Ok((grant.project_id()?.clone(), grant.user_id()?.clone()))
    }

    /// The name of the user that others see.
    async fn username(&self, user_id: &UserId) -> Result<String, ApiError> {
        let user = self.node.root_reader.user(user_id).await.map_err(|error| error.to_api())?;
        user.map(|user| user.username).ok_or_else(|| ApiError::from(ErrorCode::Unauthenticated))
    }

    /// Joins all rooms of the project at once: to ask for each would be as many changes between threads.
    /// Who loses the right meanwhile joins none of those that are still to come.
    async fn join(
        &self,
        project_id: &ProjectId,
        user_id: &UserId,
        username: String,
    ) -> Result<Vec<RoomOutcome>, ApiError> {
        let is_its = |request: &&RoomRequest| request.parts().0.parse() != Ok(Room::Admin);
        let rooms: Vec<_> = self.subscribe.rooms.iter().filter(is_its).cloned().collect();
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let count = rooms.len();
        let ask = OwnerAsk::Join {
            rooms,
            deltas: self.subscribe.deltas.unwrap_or(true),
            presence: self.subscribe.presence.unwrap_or(false),
            username,
            connection_id: self.connection_id.clone(),
        };
        let outbound = Some(Arc::clone(&self.outbound));
        let answer = self.node.ask_owner(project_id, user_id, ask, outbound).await?;
        let OwnerAnswer::Joined(outcomes) = answer else { return Err(mismatch()) };
        if outcomes.len() == count { Ok(outcomes) } else { Err(mismatch()) }
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
