//! The connections of a server that are alive, for what is said to all of them or ends some of them,
//! and the one timer that all of them share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iris_auth::{AccessClaims, Credential};
use iris_protocol::{AuthSessionId, ConnectionFrame, ConnectionId, EventFrame, KeyId, UserId};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::heartbeat::Beat;
use super::{CloseReason, Connection, Outbound, Queued, SocketSettings, encoded};
use crate::supervision::{Vitals, WeakAddress, detached, guarded};

/// Most time between two looks at all connections.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
/// Least time between them.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);
/// Looks in the shortest of the times that are kept.
const LOOKS: u32 = 4;
/// A connection that owes a pong for this long makes room for another one of its user.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// A ping comes this share of the interval early at most, in percent, so that clients which came
/// together do not stay together.
const JITTER_PERCENT: u32 = 20;

/// The connections that are alive: their queues and, once they said who they are, their logins.
#[derive(Default)]
pub(crate) struct Connections(Mutex<All>);

#[derive(Default)]
struct All {
    by_id: HashMap<ConnectionId, Alive>,
    /// Those of each user, in the order in which they came.
    of_user: HashMap<UserId, Vec<ConnectionId>>,
    /// Why nobody may come any more.
    closed: Option<CloseReason>,
}

struct Alive {
    outbound: Arc<Outbound>,
    credential: Option<Credential>,
    /// Who it acts for, once that is known.
    user_id: Option<UserId>,
    /// Of the actor, once it runs.
    address: Option<WeakAddress<Connection>>,
    pulse: Arc<Pulse>,
    abort: Abort,
    /// Since when it is known that nothing more is said to it.
    closed_at: Option<Instant>,
    /// Whether its actor has ended; then only its socket is left.
    is_ended: bool,
    /// When the last ping went out; none before the first.
    pinged_at: Option<Instant>,
    /// When the next one is due; none before the first look.
    ping_due: Option<Instant>,
}

/// Ends a transport whatever still waits to be sent.
pub(super) type Abort = Box<dyn Fn() + Send + Sync>;

/// Whether a client owes a pong.
#[derive(Debug, Default)]
pub(super) struct Pulse(AtomicBool);

impl Pulse {
    /// The client answered.
    pub(super) fn beat(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Connections {
    pub(super) fn add(
        &self,
        id: &ConnectionId,
        outbound: &Arc<Outbound>,
        pulse: &Arc<Pulse>,
        abort: Abort,
    ) {
        let alive = Alive {
            outbound: Arc::clone(outbound),
            credential: None,
            user_id: None,
            address: None,
            pulse: Arc::clone(pulse),
            abort,
            closed_at: None,
            is_ended: false,
            pinged_at: None,
            ping_due: None,
        };
        let mut all = self.0.lock();
        if let Some(reason) = &all.closed {
            outbound.close(reason.clone());
        }
        all.by_id.insert(id.clone(), alive);
    }

    pub(super) fn runs(&self, id: &ConnectionId, address: WeakAddress<Connection>) {
        if let Some(alive) = self.0.lock().by_id.get_mut(id) {
            alive.address = Some(address);
        }
    }

    /// Notes who a connection acts for. Says whether its user may have it beside the others: where there
    /// are `most` already, one that has not answered for a while makes room, and all are asked whether
    /// they live, for the next attempt.
    pub(super) fn authenticated(
        &self,
        id: &ConnectionId,
        claims: &AccessClaims,
        most: Option<usize>,
    ) -> bool {
        let now = Instant::now();
        let All { by_id, of_user, .. } = &mut *self.0.lock();
        let Some(alive) = by_id.get_mut(id) else { return true };
        alive.credential = Some(claims.credential.clone());
        // A later token is the same user's.
        if alive.user_id.is_some() {
            return true;
        }
        let others = of_user.entry(claims.user_id.clone()).or_default();
        let is_open =
            |id: &&ConnectionId| by_id.get(*id).is_some_and(|alive| !alive.outbound.is_closed());
        if most.is_some_and(|most| others.iter().filter(is_open).count() >= most) {
            let mut open = others.iter().filter(is_open);
            let silent = open.find(|id| by_id.get(*id).is_some_and(|alive| alive.is_silent(now)));
            if let Some(silent) = silent.and_then(|id| by_id.get(id)) {
                silent.outbound.close(CloseReason::new(4012, "no pong"));
            } else {
                for other in others.iter() {
                    if let Some(other) = by_id.get_mut(other) {
                        other.ping(now);
                    }
                }
                return false;
            }
        }
        others.push(id.clone());
        if let Some(alive) = by_id.get_mut(id) {
            alive.user_id = Some(claims.user_id.clone());
        }
        true
    }

    /// The actor has ended. Its socket is watched until it has ended too.
    pub(super) fn ended(&self, id: &ConnectionId) {
        let All { by_id, of_user, .. } = &mut *self.0.lock();
        let Some(alive) = by_id.get_mut(id) else { return };
        alive.is_ended = true;
        let user_id = alive.user_id.take();
        if alive.outbound.is_abandoned() {
            by_id.remove(id);
        }
        let Some(user_id) = user_id else { return };
        if let Entry::Occupied(mut ids) = of_user.entry(user_id) {
            ids.get_mut().retain(|other| other != id);
            if ids.get().is_empty() {
                ids.remove();
            }
        }
    }

    /// How many there are, and what waits for their readers.
    pub(crate) fn queued(&self) -> (usize, Queued) {
        let all = self.0.lock();
        let mut queued = Queued::default();
        for alive in all.by_id.values() {
            alive.outbound.add_to(&mut queued);
        }
        (all.by_id.len(), queued)
    }

    /// Sends a frame to all of them.
    pub(crate) fn tell_all(&self, frame: &ConnectionFrame) {
        let Some(json) = encoded(frame) else { return };
        for alive in self.0.lock().by_id.values() {
            alive.outbound.push(json.clone());
        }
    }

    /// Ends all of them, and whoever comes later.
    pub(crate) fn close_all(&self, reason: impl Fn() -> CloseReason) {
        let mut all = self.0.lock();
        all.closed = Some(reason());
        for alive in all.by_id.values() {
            alive.outbound.close(reason());
        }
    }

    /// Ends those of a login that has ended.
    pub(crate) fn close_login(&self, login: &AuthSessionId) {
        let reason = CloseReason::new(4401, "logged out");
        let is_its =
            |credential: &Credential| matches!(credential, Credential::Login(id) if id == login);
        self.cut_off(&reason, |alive| alive.credential.as_ref().is_some_and(is_its));
    }

    /// Ends those of an API key that was revoked.
    pub(crate) fn close_key(&self, key: &KeyId) {
        let reason = CloseReason::new(4403, "the API key was revoked");
        let is_its =
            |credential: &Credential| matches!(credential, Credential::Key(id) if id == key);
        self.cut_off(&reason, |alive| alive.credential.as_ref().is_some_and(is_its));
    }

    /// Ends those of every login of a user; those of API keys stay.
    pub(crate) fn close_logins_of(&self, user_id: &UserId) {
        self.close_other_logins_of(user_id, None);
    }

    /// Ends those of every login of a user but one; those of API keys stay.
    pub(crate) fn close_other_logins_of(&self, user_id: &UserId, keep: Option<&AuthSessionId>) {
        let reason = CloseReason::new(4401, "logged out");
        self.cut_off(&reason, |alive| {
            alive.user_id.as_ref() == Some(user_id)
                && matches!(&alive.credential, Some(Credential::Login(id)) if Some(id) != keep)
        });
    }

    /// Ends all of a user.
    pub(crate) fn close_user(&self, user_id: &UserId, reason: &CloseReason) {
        self.cut_off(reason, |alive| alive.user_id.as_ref() == Some(user_id));
    }

    /// Ends those that are meant, whatever still waits for them.
    fn cut_off(&self, reason: &CloseReason, is_meant: impl Fn(&Alive) -> bool) {
        for alive in self.0.lock().by_id.values().filter(|alive| is_meant(alive)) {
            alive.outbound.cut_off(reason.clone());
        }
    }

    /// Sends an event to all of a user.
    pub(crate) fn tell_user(&self, user_id: &UserId, frame: &EventFrame) {
        let Some(json) = encoded(frame) else { return };
        let All { by_id, of_user, .. } = &*self.0.lock();
        let own = of_user.get(user_id).into_iter().flatten();
        for alive in own.filter_map(|id| by_id.get(id)) {
            alive.outbound.push(json.clone());
        }
    }

    /// Looks at all of them again and again, on the current arbiter, for as long as the node is there.
    /// It is the only timer that connections have for this: none of them needs one of its own, and
    /// none can stop it by not reading.
    pub(crate) fn watch(self: &Arc<Self>, settings: SocketSettings, top: &Arc<Vitals>) {
        let (connections, top) = (Arc::downgrade(self), Arc::clone(top));
        let mut looks = tokio::time::interval(settings.look_every());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        detached(async move {
            loop {
                looks.tick().await;
                let Some(connections) = connections.upgrade() else { return };
                let look = async { connections.look(&settings, Instant::now()) };
                // A panic is in the supervision log; the next look begins anew.
                guarded(&top, "connections", look).await.ok();
            }
        });
    }

    fn look(&self, settings: &SocketSettings, now: Instant) {
        self.0.lock().by_id.retain(|_, alive| alive.look(settings, now));
    }
}

impl Alive {
    /// Ends a reader that is too slow, aborts a socket that does not end; says whether there is
    /// anything left to look at.
    fn look(&mut self, settings: &SocketSettings, now: Instant) -> bool {
        if self.outbound.is_abandoned() {
            return !self.is_ended;
        }
        if !self.outbound.is_closed() {
            self.outbound.look(settings.frame_age_max, now);
            self.keep_alive(settings, now);
            return true;
        }
        let closed_at = *self.closed_at.get_or_insert(now);
        if now.duration_since(closed_at) < settings.abort_after {
            return true;
        }
        (self.abort)();
        !self.is_ended
    }

    /// Sends the ping that is due, and ends a client that did not answer the last one in time.
    fn keep_alive(&mut self, settings: &SocketSettings, now: Instant) {
        let Some(interval) = settings.ping_interval else { return };
        if self.pulse.0.load(Ordering::Relaxed) {
            let since = self.pinged_at.unwrap_or(now);
            if now.duration_since(since) >= settings.pong_timeout {
                self.outbound.close(CloseReason::new(4012, "no pong"));
            }
            return;
        }
        let due = *self.ping_due.get_or_insert_with(|| now + jittered(interval));
        if now < due {
            return;
        }
        self.ping_due = Some(now + jittered(interval));
        self.ping(now);
        if let Some(address) = self.address.as_ref().and_then(WeakAddress::upgrade) {
            address.tell(Beat);
        }
    }
}

impl Alive {
    /// Asks whether it lives, unless it was asked already.
    fn ping(&mut self, now: Instant) {
        if !self.pulse.0.swap(true, Ordering::Relaxed) {
            self.pinged_at = Some(now);
            self.outbound.push_ping();
        }
    }

    /// Whether it has been asked and did not answer for longer than a good network takes.
    fn is_silent(&self, now: Instant) -> bool {
        let asked_at = self.pinged_at.filter(|_| self.pulse.0.load(Ordering::Relaxed));
        asked_at.is_some_and(|at| now.duration_since(at) >= SILENT_AFTER)
    }
}

/// At most the interval, and not much less.
fn jittered(interval: Duration) -> Duration {
    interval.saturating_sub(interval * fastrand::u32(0..=JITTER_PERCENT) / 100)
}

impl SocketSettings {
    fn look_every(&self) -> Duration {
        let shortest = self.abort_after.min(self.frame_age_max).min(self.pong_timeout);
        let shortest = self.ping_interval.map_or(shortest, |every| every.min(shortest));
        (shortest / LOOKS).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::super::OutFrame;
    use super::*;

    #[test]
    fn whoever_comes_while_the_server_stops_is_told() {
        let (connections, outbound) = (Connections::default(), Arc::new(Outbound::default()));
        let reason = CloseReason::new(1012, "the server is stopping");
        connections.close_all(|| reason.clone());
        let id = ConnectionId::from_bits(1);
        connections.add(&id, &outbound, &Arc::default(), Box::new(|| {}));
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(outbound.poll_next(&cx), Poll::Ready(Some(OutFrame::Close(reason))));
    }
}
