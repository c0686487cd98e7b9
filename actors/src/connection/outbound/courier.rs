//! Frames for many readers at once: whoever speaks to a room says each of them once, and the one task
//! that writes to all readers of a thread brings it to one after the other (docs/decisions/0014).
//!
//! A delivery that waits here is as good as queued: whatever is said to one of its readers later, or done
//! with the reader's queue, comes behind it, because it is put into that queue first
//! ([`Courier::settle`]). Each reader gets it once, whoever brings it.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::queue::{Queue, place};
use super::{OutFrame, Outbound, Wakers};

/// Most deliveries that wait at a courier. With more, whoever has another one puts the oldest into the
/// queues of their readers first, where the limits of readers hold.
const DELIVERIES_MAX: usize = 1024;
/// Most bytes of JSON in them.
const DELIVERY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Readers that are fetched from memory together, and written to before others get their turn: what is
/// looked at of so many fits into the caches beside what the kernel looks at.
const BATCH: usize = 64;

/// What brings frames to the readers of one thread.
#[derive(Debug, Default)]
pub struct Courier {
    bag: Mutex<Bag>,
    /// Of the deliveries in the bag, for those who find none nearly always.
    count: AtomicUsize,
    /// Told when there is something to do.
    told: Notify,
}

#[derive(Debug, Default)]
struct Bag {
    /// In the order of their numbers. The first one may be under way.
    deliveries: VecDeque<Arc<Delivery>>,
    bytes: usize,
    /// Of the last one that came.
    number: u64,
    /// Nobody brings anything any more.
    is_over: bool,
}

/// A frame on its way to many readers.
#[derive(Debug)]
pub struct Delivery {
    /// Rises from one to the next of a courier.
    pub(super) number: u64,
    frame: Arc<OutFrame>,
    wants: Wants,
    readers: Arc<[Reader]>,
}

/// One of those who get a delivery.
#[derive(Clone)]
pub struct Reader {
    pub(crate) outbound: Arc<Outbound>,
    /// What writes to it, on the thread of the courier.
    pub transport: Arc<dyn Transport>,
    pub(crate) deltas: bool,
    pub(crate) presence: bool,
}

/// Which of those in a room a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    Everything,
    /// Those who want streaming text.
    Deltas,
    /// Those who want to know who is present.
    Presence,
}

/// Deliveries to the same readers, which are one write to each of them; often a single one.
#[derive(Debug)]
pub struct Bundle {
    deliveries: Vec<Arc<Delivery>>,
    /// Where the ids of the parts are of which these are pieces, sorted, each once; none where one is
    /// something else.
    parts: Vec<usize>,
}

impl Bundle {
    fn of(deliveries: Vec<Arc<Delivery>>) -> Self {
        let part = |delivery: &Arc<Delivery>| {
            if let OutFrame::Delta(part_id, _) = &*delivery.frame {
                Some(place(part_id))
            } else {
                None
            }
        };
        let parts: Option<BTreeSet<_>> = deliveries.iter().map(part).collect();
        let parts = parts.into_iter().flatten().collect();
        Self { deliveries, parts }
    }

    /// In the order of their numbers; at least one.
    pub fn deliveries(&self) -> &[Arc<Delivery>] {
        &self.deliveries
    }

    /// Who gets them, in batches that are small enough for others to wait for one.
    pub fn batches(&self) -> impl Iterator<Item = impl Iterator<Item = &Reader>> {
        self.deliveries.iter().take(1).flat_map(|first| first.batches())
    }
}

/// What a courier brings next.
#[derive(Debug)]
pub enum Next {
    /// One write to each reader.
    Together(Bundle),
    /// One with another behind it that is for others: those who get both have them in one write if both are
    /// queued first.
    Apart(Arc<Delivery>),
}

/// How what is said to many comes to a reader.
pub(super) struct Way {
    courier: Arc<Courier>,
    transport: Weak<dyn Transport>,
}

/// The half of a connection that writes.
pub trait Transport: Send + Sync {
    /// Brings deliveries to the reader; `wire` is their frames as they are written.
    fn deliver(&self, bundle: &Bundle, wire: &Bytes);

    /// Whether it might be written to now. Only looks, at all that [`Transport::deliver`] looks at.
    fn is_free(&self) -> bool;
}

// What these lead to leads back to them.

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").finish_non_exhaustive()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

impl Wants {
    /// Whether somebody who wants these gets it.
    pub(crate) fn is_met(self, deltas: bool, presence: bool) -> bool {
        match self {
            Self::Everything => true,
            Self::Deltas => deltas,
            Self::Presence => presence,
        }
    }
}

impl Delivery {
    /// What is brought.
    pub fn frame(&self) -> &OutFrame {
        &self.frame
    }

    fn batches(&self) -> impl Iterator<Item = impl Iterator<Item = &Reader>> {
        self.readers.chunks(BATCH).map(|batch| {
            fetch(batch);
            batch.iter().filter(|reader| self.is_for(reader))
        })
    }

    pub(super) fn shared_frame(&self) -> &Arc<OutFrame> {
        &self.frame
    }

    fn is_for(&self, reader: &Reader) -> bool {
        self.wants.is_met(reader.deltas, reader.presence)
    }

    /// Whether exactly those get it who get the other one.
    fn is_for_those_of(&self, other: &Self) -> bool {
        let (own, others) = (&self.readers, &other.readers);
        if Arc::ptr_eq(own, others) && self.wants == other.wants {
            return true;
        }
        let is_same = |(reader, counterpart): (&Reader, &Reader)| {
            reader.place() == counterpart.place()
                && self.is_for(reader) == other.is_for(counterpart)
        };
        own.len() == others.len() && own.iter().zip(others.iter()).all(is_same)
    }

    fn is_to(&self, outbound: &Outbound) -> bool {
        let place = self.readers.binary_search_by_key(&std::ptr::from_ref(outbound), Reader::place);
        place.ok().and_then(|place| self.readers.get(place)).is_some_and(|r| self.is_for(r))
    }

    fn bytes(&self) -> usize {
        self.frame.bytes()
    }
}

/// Looks at each of these, one straight after the other: the processor then has them come from memory
/// all at once, where it would wait for one after the other between system calls.
fn fetch(readers: &[Reader]) {
    let is_free =
        |reader: &&Reader| reader.transport.is_free() & !reader.outbound.queue.is_locked();
    black_box(readers.iter().filter(is_free).count());
}

impl Reader {
    /// What readers are sorted by, so that one of many is found.
    pub(crate) fn place(&self) -> *const Outbound {
        Arc::as_ptr(&self.outbound)
    }
}

impl Courier {
    /// Takes a frame for readers that are sorted by their places.
    pub(crate) fn send(
        self: &Arc<Self>,
        frame: &Arc<OutFrame>,
        wants: Wants,
        readers: &Arc<[Reader]>,
        wakers: &mut Wakers,
    ) {
        while let Some(first) = self.first_of_too_many(frame.bytes()) {
            self.distribute(&first, wakers);
        }
        let mut bag = self.bag.lock();
        if bag.is_over {
            return;
        }
        bag.number += 1;
        let (number, frame, readers) = (bag.number, Arc::clone(frame), Arc::clone(readers));
        bag.bytes += frame.bytes();
        bag.deliveries.push_back(Arc::new(Delivery { number, frame, wants, readers }));
        self.count.store(bag.deliveries.len(), Ordering::Release);
        if bag.deliveries.len() == 1 {
            wakers.couriers.push(Arc::clone(self));
        }
    }

    fn first_of_too_many(&self, more_bytes: usize) -> Option<Arc<Delivery>> {
        let bag = self.bag.lock();
        let is_full =
            bag.deliveries.len() >= DELIVERIES_MAX || bag.bytes + more_bytes > DELIVERY_BYTES_MAX;
        bag.deliveries.front().filter(|_| is_full).cloned()
    }

    /// What is brought next, as one write of at most `bytes_max` bytes of JSON if there is more than one
    /// delivery in it. It stays until it is [done](Courier::done).
    pub fn next(&self, bytes_max: usize) -> Option<Next> {
        let bag = self.bag.lock();
        let mut bytes = 0;
        let fits = |delivery: &&Arc<Delivery>| {
            bytes += delivery.bytes();
            bytes <= bytes_max
        };
        let first = Arc::clone(bag.deliveries.front()?);
        let together = bag.deliveries.iter().take_while(fits).cloned().collect::<Vec<_>>();
        // Whoever says something does not wait until readers are compared.
        drop(bag);
        Some(if together.is_empty() {
            Next::Together(Bundle::of(vec![first]))
        } else if together.iter().all(|delivery| delivery.is_for_those_of(&first)) {
            Next::Together(Bundle::of(together))
        } else {
            Next::Apart(first)
        })
    }

    /// Deliveries that wait.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Puts a delivery into the queues of those of its readers who did not get it yet. Answers how many
    /// may have been among them.
    pub fn queue(&self, delivery: &Delivery) -> usize {
        self.distribute(delivery, &mut Wakers::default());
        delivery.readers.len()
    }

    fn distribute(&self, delivery: &Delivery, wakers: &mut Wakers) {
        // Their sockets are not needed for this, and would push queues out of the caches.
        for reader in delivery.readers.iter().filter(|reader| delivery.is_for(reader)) {
            reader.outbound.receive(delivery, wakers);
        }
        self.done(delivery);
    }

    /// All readers got this delivery.
    pub fn done(&self, delivery: &Delivery) {
        let mut bag = self.bag.lock();
        if bag.deliveries.front().is_some_and(|first| first.number == delivery.number) {
            self.drop_first(&mut bag);
        }
    }

    /// Leaves the delivery that is next to nobody.
    pub fn skip(&self) {
        self.drop_first(&mut self.bag.lock());
    }

    fn drop_first(&self, bag: &mut Bag) {
        let Some(first) = bag.deliveries.pop_front() else { return };
        bag.bytes = bag.bytes.saturating_sub(first.bytes());
        self.count.store(bag.deliveries.len(), Ordering::Release);
    }

    /// Puts what waits for one reader into its queue.
    pub(super) fn settle(&self, outbound: &Outbound) {
        if self.count() == 0 {
            return;
        }
        let brought = outbound.queue.lock().brought();
        let bag = self.bag.lock();
        let (last, new) = (bag.number, bag.deliveries.iter().rev());
        let new = new.take_while(|delivery| delivery.number > brought);
        let its: Vec<_> = new.filter(|delivery| delivery.is_to(outbound)).cloned().collect();
        drop(bag);
        let mut wakers = Wakers::default();
        for delivery in its.iter().rev() {
            outbound.receive(delivery, &mut wakers);
        }
        // The others are for others: nobody looks at them again.
        outbound.queue.lock().gets(last);
    }

    /// Says that there is something to do.
    pub fn tell(&self) {
        self.told.notify_one();
    }

    /// Waits until there is.
    pub async fn told(&self) {
        self.told.notified().await;
    }

    /// The thread ends, and its connections with it: nothing is brought any more.
    pub fn end(&self) {
        let mut bag = self.bag.lock();
        *bag = Bag { is_over: true, ..Bag::default() };
        self.count.store(0, Ordering::Release);
    }
}

impl Outbound {
    /// From now on what is said to many is brought by `courier` to `transport`, which writes to the
    /// reader. A queue has one way for good.
    pub fn comes_by(&self, courier: Arc<Courier>, transport: Weak<dyn Transport>) {
        let is_first = self.way.set(Way { courier, transport }).is_ok();
        debug_assert!(is_first, "a queue has one way");
    }

    /// How what is said to many comes to the reader: none where each is spoken to by itself.
    pub(crate) fn way(&self) -> Option<(&Arc<Courier>, Arc<dyn Transport>)> {
        let Way { courier, transport } = self.way.get()?;
        Some((courier, transport.upgrade()?))
    }

    /// The queue, with all in it that was said to this reader and others.
    pub(super) fn settled(&self) -> MutexGuard<'_, Queue> {
        if let Some(way) = self.way.get() {
            way.courier.settle(self);
        }
        self.queue.lock()
    }

    /// Queues a delivery, unless it was brought already.
    fn receive(&self, delivery: &Delivery, wakers: &mut Wakers) {
        let mut queue = self.queue.lock();
        if queue.gets(delivery.number) {
            self.admit(&mut queue, delivery.shared_frame(), wakers);
        }
    }

    /// Brings those of some deliveries that were not brought: where nothing waits, and none was, `write`
    /// writes all of them, else they are queued. `write` says whether it wrote all, or the transport has to be
    /// woken for the rest.
    pub fn bring(&self, bundle: &Bundle, write: impl FnOnce() -> bool) {
        let mut wakers = Wakers::default();
        let mut queue = self.queue.lock();
        let Bundle { deliveries, parts } = bundle;
        let (Some(first), Some(last)) = (deliveries.first(), deliveries.last()) else { return };
        let is_new = first.number > queue.brought();
        if is_new && queue.is_idle() {
            queue.gets(last.number);
            if !write() {
                wakers.readers.extend(queue.waker.take());
            }
        } else if is_new && !parts.is_empty() && queue.is_behind_all(parts) {
            queue.gets(last.number);
            self.count_skipped(deliveries.len());
        } else {
            for delivery in deliveries {
                if queue.gets(delivery.number) {
                    self.admit(&mut queue, delivery.shared_frame(), &mut wakers);
                }
            }
        }
        drop(queue);
    }
}

#[cfg(test)]
mod tests;
