//! Those who hear one room: what is said there is handed to the couriers of their threads, once for all
//! readers of each, and to those who have none, or are held, one by one.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use iris_protocol::{ConnectionId, UserId, limits::OUTBOUND_FRAMES_MAX};

use crate::Metrics;
use crate::connection::{CloseReason, Courier, OutFrame, Outbound, Reader, Wakers, Wants};

/// A connection in a room.
#[derive(Debug)]
pub(in crate::project) struct Subscriber {
    pub(in crate::project) who: Arc<Who>,
    pub(in crate::project) outbound: Arc<Outbound>,
    /// Whether it wants streaming text.
    pub(in crate::project) deltas: bool,
    /// Whether it wants to know who is present.
    pub(in crate::project) presence: bool,
    /// Tells this joining of the room from an earlier or later one of the same connection.
    pub(in crate::project) join: u64,
    /// What waits until the replay is written; none once it is.
    pub(in crate::project) held: Option<Box<Held>>,
    /// Whether a courier brings what is said to all; decided by the audience.
    pub(in crate::project) is_brought: bool,
}

/// Whom a subscriber is.
#[derive(Debug)]
pub(in crate::project) struct Who {
    pub(in crate::project) connection_id: ConnectionId,
    pub(in crate::project) user_id: UserId,
}

/// Durable frames, by seq, that wait for a subscriber.
#[derive(Debug, Default)]
pub(in crate::project) struct Held(pub(super) Vec<(u64, Bytes)>);

/// All of a room.
#[derive(Debug)]
pub(super) struct Audience {
    subscribers: HashMap<ConnectionId, Subscriber>,
    /// How to reach them; made when something is said, and anew after one of them changed.
    ways: Option<Ways>,
    metrics: Arc<Metrics>,
    /// How many the metrics count.
    counted: usize,
}

#[derive(Debug)]
struct Ways {
    /// The readers of each courier, sorted by their places.
    couriers: Vec<(Arc<Courier>, Arc<[Reader]>)>,
    /// Whether there are others, who are spoken to one by one.
    has_others: bool,
    /// How many there are in all, and of them those who want streaming text, and who is present.
    all: usize,
    deltas: usize,
    presence: usize,
    /// How many ways lead to connections that have ended.
    lost: usize,
}

impl Drop for Audience {
    fn drop(&mut self) {
        self.subscribers.clear();
        self.count();
        self.metrics.rooms_changed(-1, 0);
    }
}

impl Audience {
    /// Of a room that somebody is about to join.
    pub(super) fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.rooms_changed(1, 0);
        let metrics = Arc::clone(metrics);
        Self { subscribers: HashMap::new(), ways: None, metrics, counted: 0 }
    }

    /// Has the metrics count those who are there.
    fn count(&mut self) {
        let (before, now) = (self.counted, self.subscribers.len());
        if before != now {
            self.metrics.rooms_changed(0, now.cast_signed() as i64 - before.cast_signed() as i64);
            self.counted = now;
        }
    }

    /// Adds one, in place of an earlier one of the same connection.
    pub(super) fn insert(&mut self, subscriber: Subscriber) {
        let connection_id = subscriber.who.connection_id.clone();
        self.change().insert(connection_id, subscriber);
        self.count();
    }

    pub(super) fn all(&self) -> &HashMap<ConnectionId, Subscriber> {
        &self.subscribers
    }

    /// All of them, for somebody who changes them.
    pub(super) fn change(&mut self) -> &mut HashMap<ConnectionId, Subscriber> {
        self.ways = None;
        &mut self.subscribers
    }

    /// Forgets one, if it is there; says whether anybody is left.
    pub(super) fn remove(&mut self, connection_id: &ConnectionId) -> bool {
        if let Some(gone) = self.subscribers.remove(connection_id) {
            // A way that leads nowhere does no harm; one to somebody who hears other rooms would.
            let may_stay = gone.outbound.is_closed();
            if !self.ways.as_mut().is_some_and(|ways| may_stay && ways.lose(&gone)) {
                self.ways = None;
            }
            self.count();
        }
        !self.subscribers.is_empty()
    }

    /// Forgets those whom this does not say to keep; says whether anybody is left.
    pub(super) fn retain(&mut self, keep: impl Fn(&Subscriber) -> bool) -> bool {
        let count = self.subscribers.len();
        self.subscribers.retain(|_, subscriber| keep(subscriber));
        if self.subscribers.len() < count {
            self.ways = None;
            self.count();
        }
        !self.subscribers.is_empty()
    }

    /// Says something to those who want it. A subscriber that is held gets what is durable, and has a
    /// `seq`, when its hold ends. One that is spoken to alone is let go when its queue has ended.
    pub(super) fn say(
        &mut self,
        frame: &Arc<OutFrame>,
        wants: Wants,
        seq: Option<u64>,
        wakers: &mut Wakers,
    ) {
        let Self { subscribers, ways, metrics, .. } = self;
        let ways = ways.get_or_insert_with(|| Ways::to(subscribers));
        metrics.delivered(ways.count(wants));
        for (courier, readers) in &ways.couriers {
            courier.send(frame, wants, readers, wakers);
        }
        if ways.has_others {
            subscribers.retain(|_, subscriber| {
                subscriber.is_brought
                    || !wants.is_met(subscriber.deltas, subscriber.presence)
                    || subscriber.hear(frame, seq, wakers)
            });
            self.count();
        }
    }
}

impl Ways {
    fn to(subscribers: &mut HashMap<ConnectionId, Subscriber>) -> Self {
        let mut couriers: Vec<(Arc<Courier>, Vec<Reader>)> = Vec::new();
        let mut has_others = false;
        for subscriber in subscribers.values_mut() {
            let reader = subscriber.reader();
            subscriber.is_brought = reader.is_some();
            let Some((courier, reader)) = reader else {
                has_others = true;
                continue;
            };
            // There are as many couriers as threads.
            match couriers.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &courier)) {
                Some((_, readers)) => readers.push(reader),
                None => couriers.push((courier, vec![reader])),
            }
        }
        let sorted = couriers.into_iter().map(|(courier, mut readers)| {
            readers.sort_unstable_by_key(Reader::place);
            (courier, Arc::from(readers))
        });
        let couriers = sorted.collect();
        let all = subscribers.values();
        let deltas = all.clone().filter(|subscriber| subscriber.deltas).count();
        let presence = all.filter(|subscriber| subscriber.presence).count();
        Self { couriers, has_others, all: subscribers.len(), deltas, presence, lost: 0 }
    }

    /// Leaves the way to one whose connection has ended. False where so many lead nowhere that they are better
    /// made anew.
    fn lose(&mut self, gone: &Subscriber) -> bool {
        self.lost += 1;
        self.all = self.all.saturating_sub(1);
        self.deltas = self.deltas.saturating_sub(usize::from(gone.deltas));
        self.presence = self.presence.saturating_sub(usize::from(gone.presence));
        self.lost * 4 <= self.all
    }

    /// How many want these.
    fn count(&self, wants: Wants) -> usize {
        match wants {
            Wants::Everything => self.all,
            Wants::Deltas => self.deltas,
            Wants::Presence => self.presence,
        }
    }
}

impl Subscriber {
    /// One to whom a courier brings what is said to all, unless this one is spoken to alone.
    fn reader(&self) -> Option<(Arc<Courier>, Reader)> {
        let (courier, transport) = self.outbound.way().filter(|_| self.held.is_none())?;
        let Self { deltas, presence, .. } = *self;
        let outbound = Arc::clone(&self.outbound);
        Some((Arc::clone(courier), Reader { outbound, transport, deltas, presence }))
    }

    /// Hears something alone; says whether it goes on.
    fn hear(&mut self, frame: &Arc<OutFrame>, seq: Option<u64>, wakers: &mut Wakers) -> bool {
        let Some(held) = &mut self.held else {
            return self.outbound.offer_quietly(frame, wakers);
        };
        let (Some(seq), Some(json)) = (seq, frame.json()) else { return true };
        if held.0.len() < OUTBOUND_FRAMES_MAX {
            held.0.push((seq, json.clone()));
            return true;
        }
        self.outbound.close(CloseReason::new(4008, "slow replay"));
        false
    }
}

#[cfg(test)]
mod tests;
