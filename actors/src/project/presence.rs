//! Who is present in a project and who writes in its sessions, told to its rooms. It is in memory alone
//! and ends with the registry: whoever is there subscribes again then.

mod people;
mod typing;

use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{
    ApiError, ConnectionId, ErrorCode, Event, MessageRole, Presence, PresenceStatus, Role, Room,
    SessionId, UserId, limits::PRESENCE_CONNECTIONS_MAX,
};
use iris_store::StoredEvent;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Project;
use super::joining::JoinRoom;
use crate::connection::Wants;
use crate::supervision::Address;
use people::{Doing, Newcomer, People};
use typing::Typing;

/// How presence is counted. No duration is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceSettings {
    /// How long a user stays present after their last connection. As often it is looked for
    /// connections that ended without a word.
    pub grace: Duration,
    /// For how long after something was told changes are joined.
    pub joined_for: Duration,
    /// How long somebody writes who does not repeat it.
    pub typing_for: Duration,
    /// Most connections, and most users, that count in one project.
    pub connections_max: usize,
}

impl Default for PresenceSettings {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            joined_for: Duration::from_millis(500),
            typing_for: Duration::from_secs(6),
            connections_max: PRESENCE_CONNECTIONS_MAX,
        }
    }
}

/// Who is present and who writes, and when something is to be done about it.
#[derive(Debug, Default)]
pub(super) struct Presences {
    people: People,
    typing: Typing,
    /// When something was told last.
    told_at: Option<Instant>,
    /// When it is looked after all of this next: one timer for everybody.
    wake: Option<(Instant, SpawnHandle)>,
}

impl Presences {
    /// Whether a user is present.
    pub(super) fn has(&self, user_id: &UserId) -> bool {
        self.people.has(user_id)
    }

    /// How much is held in memory, for operators.
    pub(super) fn counts(&self) -> Value {
        let (users, connections) = self.people.counts();
        json!({ "users": users, "connections": connections, "typing": self.typing.count() })
    }
}

impl Project {
    /// A connection has joined a room: it counts from now on, and is told what it cannot know.
    pub(super) fn arrived(&mut self, room: &Room, join: &JoinRoom, ctx: &mut Context<Self>) {
        let newcomer = Newcomer {
            connection_id: &join.by.connection_id,
            user_id: &join.by.user_id,
            username: &join.by.username,
            outbound: &join.by.outbound,
        };
        let most = self.services.settings.presence.connections_max;
        let is_new = self.presences.people.connect(&newcomer, most);
        let news = match room {
            Room::Project(_) if join.by.presence => {
                Some(Event::PresenceSnapshot { users: self.presences.people.show() })
            }
            Room::Session(id) => self.presences.typing.show(id),
            Room::Project(_) | Room::User(_) | Room::Admin => None,
        };
        if let Some(news) = news {
            self.rooms.tell_one(room, &news, &join.by.connection_id);
        }
        if let Room::Session(id) = room {
            self.tell_queued(id, &join.by.connection_id);
        }
        if is_new {
            self.presence_changed(ctx);
        }
    }

    /// A connection may hear no room any more. `has_right` says whether it could come back to one.
    pub(super) fn may_have_left(
        &mut self,
        connection_id: &ConnectionId,
        has_right: bool,
        ctx: &mut Context<Self>,
    ) {
        if self.rooms.is_joined_by(connection_id) {
            return;
        }
        let until = has_right.then(|| Instant::now() + self.services.settings.presence.grace);
        if let Some(user_id) = self.presences.people.disconnect(connection_id, until) {
            self.presences.typing.stop(&user_id, None);
        }
        self.presence_changed(ctx);
    }

    /// A user lost the right to the project.
    pub(super) fn is_not_present(&mut self, user_id: &UserId) {
        self.presences.people.evict(user_id);
        self.presences.typing.stop(user_id, None);
        self.tell_presence();
    }

    /// Sees an event that was published: whoever sent a message does not write it any more, and nobody
    /// looks at a session that is gone.
    pub(super) fn presence_sees(&mut self, event: &StoredEvent, ctx: &mut Context<Self>) {
        #[derive(Deserialize)]
        struct Created {
            message: Sent,
        }
        #[derive(Deserialize)]
        struct Sent {
            role: MessageRole,
        }
        #[derive(Deserialize)]
        struct Deleted {
            session: Gone,
        }
        #[derive(Deserialize)]
        struct Gone {
            id: SessionId,
        }
        match (event.name.as_str(), &event.room, &event.by) {
            ("message.created", Room::Session(session_id), Some(user_id))
                if !self.presences.typing.is_empty() =>
            {
                // An answer is by whoever asked for it, and they may write the next message already.
                let created = serde_json::from_str::<Created>(&event.payload);
                if created.is_ok_and(|created| created.message.role == MessageRole::User) {
                    self.presences.typing.stop(user_id, Some(session_id));
                }
            }
            ("session.deleted", _, _) => {
                if let Ok(Deleted { session }) = serde_json::from_str(&event.payload) {
                    self.presences.people.forget_session(&session.id);
                }
            }
            _ => return,
        }
        self.presence_changed(ctx);
    }

    /// Something may be to tell: at once, or with all else that changes meanwhile when it is time again.
    fn presence_changed(&mut self, ctx: &mut Context<Self>) {
        let (now, settings) = (Instant::now(), self.services.settings.presence);
        let again_at = self.presences.told_at.map_or(now, |told_at| told_at + settings.joined_for);
        if again_at <= now {
            self.tell_presence();
        }
        let Presences { people, typing, .. } = &self.presences;
        let has_changed = people.has_changed() || typing.has_changed();
        let times = [
            has_changed.then_some(again_at),
            people.expires_at(),
            typing.expires_at(),
            (!people.is_empty()).then_some(now + settings.grace),
        ];
        if let Some(next) = times.into_iter().flatten().min() {
            self.wake_at(next, ctx);
        }
    }

    fn wake_at(&mut self, at: Instant, ctx: &mut Context<Self>) {
        match self.presences.wake.take() {
            Some((earlier, timer)) if earlier <= at => {
                self.presences.wake = Some((earlier, timer));
                return;
            }
            Some((_, timer)) => drop(ctx.cancel_future(timer)),
            None => {}
        }
        let wait = at.saturating_duration_since(Instant::now());
        self.presences.wake = Some((at, ctx.run_later(wait, Self::look_after_presence)));
    }

    fn look_after_presence(&mut self, ctx: &mut Context<Self>) {
        let (now, grace) = (Instant::now(), self.services.settings.presence.grace);
        let presences = &mut self.presences;
        presences.wake = None;
        for user_id in presences.people.sweep(now + grace) {
            presences.typing.stop(&user_id, None);
        }
        presences.people.expire(now);
        presences.typing.expire(now);
        self.presence_changed(ctx);
    }

    fn tell_presence(&mut self) {
        let room = Room::Project(self.id.clone());
        let (people, typing) = (self.presences.people.tell(), self.presences.typing.tell());
        if !people.is_empty() || !typing.is_empty() {
            self.presences.told_at = Some(Instant::now());
        }
        for event in people {
            self.rooms.tell(&room, &event, Wants::Presence);
        }
        for (session_id, event) in typing {
            self.rooms.tell(&Room::Session(session_id), &event, Wants::Everything);
        }
    }

    /// Refuses what only a connection may say that counts.
    fn check_counted(&self, connection_id: &ConnectionId) -> Result<(), ApiError> {
        if self.presences.people.is_counted(connection_id) {
            return Ok(());
        }
        if self.rooms.is_joined_by(connection_id) {
            let message = "too many are present in the project";
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message).reason("too_many_present"));
        }
        let message = "the connection hears no room of the project: subscribe first";
        Err(ApiError::new(ErrorCode::Conflict, message).reason("not_joined"))
    }
}

/// Ask: a connection says what its user does.
#[derive(Message)]
#[rtype(result = "Result<(), ApiError>")]
pub(crate) struct UpdatePresence {
    pub(crate) connection_id: ConnectionId,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) status: PresenceStatus,
}

impl Handler<UpdatePresence> for Project {
    type Result = Result<(), ApiError>;

    fn handle(&mut self, update: UpdatePresence, ctx: &mut Context<Self>) -> Self::Result {
        let UpdatePresence { connection_id, session_id, status } = update;
        self.check_counted(&connection_id)?;
        self.presences.people.update(&connection_id, Doing { session_id, status });
        self.presence_changed(ctx);
        Ok(())
    }
}

/// Ask: everybody who is present.
#[derive(Message)]
#[rtype(result = "Vec<Presence>")]
pub(crate) struct ListPresence;

impl Handler<ListPresence> for Project {
    type Result = MessageResult<ListPresence>;

    fn handle(&mut self, _: ListPresence, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.presences.people.show())
    }
}

/// Ask: a user writes a message.
#[derive(Message)]
#[rtype(result = "Result<(), ApiError>")]
pub(crate) struct StartTyping {
    pub(crate) connection_id: ConnectionId,
    pub(crate) by: UserId,
    pub(crate) session_id: SessionId,
}

impl Handler<StartTyping> for Project {
    type Result = Result<(), ApiError>;

    fn handle(&mut self, start: StartTyping, ctx: &mut Context<Self>) -> Self::Result {
        self.check_counted(&start.connection_id)?;
        let until = Instant::now() + self.services.settings.presence.typing_for;
        self.presences.typing.start(start.by, start.session_id, until);
        self.presence_changed(ctx);
        Ok(())
    }
}

/// Tell: a user, or everybody where none is named, does not write any more in this session; in any
/// where none is named.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct StopTyping {
    pub(crate) user_id: Option<UserId>,
    pub(crate) session_id: Option<SessionId>,
}

impl StopTyping {
    /// Ends the writing of those who have no right to it any more after this event.
    pub(crate) fn after(event: &Event, project: &Address<Project>) {
        let user_id = if let Event::MemberUpdated { member } = event
            && member.role < Role::Member
        {
            Some(member.user_id.clone())
        } else if let Event::ProjectArchived { .. } = event {
            None
        } else {
            return;
        };
        project.tell(Self { user_id, session_id: None });
    }
}

impl Handler<StopTyping> for Project {
    type Result = ();

    fn handle(&mut self, stop: StopTyping, ctx: &mut Context<Self>) {
        match stop.user_id {
            Some(user_id) => self.presences.typing.stop(&user_id, stop.session_id.as_ref()),
            None => self.presences.typing.stop_all(),
        }
        self.presence_changed(ctx);
    }
}
