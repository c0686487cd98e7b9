//! The connections of a server that are alive, for what is said to all of them or ends some of them,
//! and the one timer that all of them share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iris_auth::AccessClaims;
use iris_protocol::{AuthSessionId, ConnectionFrame, ConnectionId, UserId};
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::heartbeat::Beat;
use super::{CloseReason, Connection, Outbound, SocketSettings, push};
use crate::supervision::{Vitals, WeakAddress, detached, guarded};

/// Most time between two looks at all connections.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);
/// Least time between them.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);
/// Looks in the shortest of the times that are kept.
const LOOKS: u32 = 4;
/// A ping comes this share of the interval early at most, in percent, so that clients which came
/// together do not stay together.
const JITTER_PERCENT: u32 = 20;

/// The connections that are alive: their queues and, once they said who they are, their logins.
#[derive(Default)]
pub(crate) struct Connections(Mutex<All>);

#[derive(Default)]
struct All {
    by_id: HashMap<ConnectionId, Alive>,
    /// How many of them each user has.
    of_user: HashMap<UserId, usize>,
}

struct Alive {
    outbound: Arc<Outbound>,
    login: Option<AuthSessionId>,
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
            login: None,
            user_id: None,
            address: None,
            pulse: Arc::clone(pulse),
            abort,
            closed_at: None,
            is_ended: false,
            pinged_at: None,
            ping_due: None,
        };
        self.0.lock().by_id.insert(id.clone(), alive);
    }

    pub(super) fn runs(&self, id: &ConnectionId, address: WeakAddress<Connection>) {
        if let Some(alive) = self.0.lock().by_id.get_mut(id) {
            alive.address = Some(address);
        }
    }

    pub(super) fn authenticated(&self, id: &ConnectionId, claims: &AccessClaims) {
        let All { by_id, of_user } = &mut *self.0.lock();
        let Some(alive) = by_id.get_mut(id) else { return };
        alive.login = Some(claims.auth_session_id.clone());
        // A later token is the same user's.
        if alive.user_id.is_none() {
            alive.user_id = Some(claims.user_id.clone());
            *of_user.entry(claims.user_id.clone()).or_default() += 1;
        }
    }

    /// How many connections a user has.
    pub(super) fn count_of(&self, user_id: &UserId) -> usize {
        self.0.lock().of_user.get(user_id).copied().unwrap_or(0)
    }

    /// The actor has ended. Its socket is watched until it has ended too.
    pub(super) fn ended(&self, id: &ConnectionId) {
        let All { by_id, of_user } = &mut *self.0.lock();
        let Some(alive) = by_id.get_mut(id) else { return };
        alive.is_ended = true;
        let user_id = alive.user_id.take();
        if alive.outbound.is_abandoned() {
            by_id.remove(id);
        }
        let Some(user_id) = user_id else { return };
        if let Entry::Occupied(mut count) = of_user.entry(user_id) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Sends a frame to all of them.
    pub(crate) fn tell_all(&self, frame: &ConnectionFrame) {
        for alive in self.0.lock().by_id.values() {
            push(&alive.outbound, frame);
        }
    }

    /// Ends all of them.
    pub(crate) fn close_all(&self, reason: &CloseReason) {
        for alive in self.0.lock().by_id.values() {
            alive.outbound.close(reason.clone());
        }
    }

    /// Ends those of a login that has ended.
    pub(crate) fn close_login(&self, login: &AuthSessionId) {
        for alive in
            self.0.lock().by_id.values().filter(|alive| alive.login.as_ref() == Some(login))
        {
            alive.outbound.close(CloseReason::new(4401, "logged out"));
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
        self.pulse.0.store(true, Ordering::Relaxed);
        (self.pinged_at, self.ping_due) = (Some(now), Some(now + jittered(interval)));
        self.outbound.push_ping();
        if let Some(address) = self.address.as_ref().and_then(WeakAddress::upgrade) {
            address.tell(Beat);
        }
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
