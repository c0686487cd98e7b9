use std::sync::Weak;
use std::task::{Context, Poll, Waker};

use crate::connection::{Bundle, Next, Transport};

use super::*;

/// A transport that takes everything from the queue.
struct Idle;

impl Transport for Idle {
    fn deliver(&self, _: &Bundle, _: &Bytes) {}

    fn is_free(&self) -> bool {
        true
    }
}

struct Scene {
    audience: Audience,
    courier: Arc<Courier>,
    outbounds: Vec<Arc<Outbound>>,
    _transport: Arc<Idle>,
}

impl Scene {
    fn of(count: u8) -> Self {
        let (courier, transport) = (Arc::<Courier>::default(), Arc::new(Idle));
        let mut audience = Audience::new(&Arc::default());
        let mut outbounds = Vec::new();
        for number in 0..count {
            let outbound = Arc::<Outbound>::default();
            let weak: Weak<Idle> = Arc::downgrade(&transport);
            outbound.comes_by(Arc::clone(&courier), weak);
            audience.insert(Subscriber {
                who: Arc::new(Who { connection_id: id(number), user_id: UserId::from_bits(1) }),
                outbound: Arc::clone(&outbound),
                deltas: true,
                presence: false,
                join: 1,
                held: None,
                is_brought: false,
            });
            outbounds.push(outbound);
        }
        Self { audience, courier, outbounds, _transport: transport }
    }

    /// Says something; answers who has it in the queue.
    fn say(&mut self, word: &'static str) -> Vec<usize> {
        let frame = Arc::new(OutFrame::Text(Bytes::from(word)));
        self.audience.say(&frame, Wants::Deltas, None, &mut Wakers::default());
        let mut heard = Vec::new();
        while let Some(next) = self.courier.next(0) {
            let Next::Together(bundle) = next else { panic!("it is a write of its own") };
            for delivery in bundle.deliveries() {
                self.courier.queue(delivery);
            }
        }
        let cx = Context::from_waker(Waker::noop());
        for (place, outbound) in self.outbounds.iter().enumerate() {
            while let Poll::Ready(Some(frame)) = outbound.poll_next(&cx) {
                if frame.json().is_some_and(|json| json == word) {
                    heard.push(place);
                }
            }
        }
        heard
    }

    fn counted(&self) -> Option<(usize, usize, usize)> {
        self.audience.ways.as_ref().map(|ways| (ways.all, ways.deltas, ways.presence))
    }
}

fn id(number: u8) -> ConnectionId {
    ConnectionId::from_bits(number.into())
}

#[test]
fn the_way_to_a_connection_that_has_ended_may_stay_and_is_not_counted() {
    let mut scene = Scene::of(12);
    assert_eq!(scene.say("a"), (0..12).collect::<Vec<_>>());
    for gone in [0, 1] {
        scene.outbounds[gone].close(CloseReason::new(4008, "slow reader"));
        assert!(scene.audience.remove(&id(gone.try_into().unwrap())));
    }
    let left = 10;
    assert_eq!(scene.counted(), Some((left, left, 0)), "the ways are not made anew");
    assert_eq!(scene.say("b"), (2..12).collect::<Vec<_>>());
    // A third one makes them more than a quarter.
    scene.outbounds[2].close(CloseReason::new(4008, "slow reader"));
    assert!(scene.audience.remove(&id(2)));
    assert_eq!(scene.counted(), None);
    assert_eq!(scene.say("c"), (3..12).collect::<Vec<_>>());
}

#[test]
fn whoever_leaves_and_hears_other_rooms_is_told_nothing_more() {
    let mut scene = Scene::of(9);
    scene.say("a");
    assert!(scene.audience.remove(&id(0)));
    assert_eq!(scene.counted(), None);
    assert_eq!(scene.say("b"), (1..9).collect::<Vec<_>>());
}
