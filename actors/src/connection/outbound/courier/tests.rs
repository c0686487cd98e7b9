use std::task::{Context, Poll, Waker};
use std::thread;

use iris_protocol::limits::OUTBOUND_FRAMES_SOFT_MAX;
use iris_protocol::{PartId, ProjectId};
use serde_json::json;

use super::super::CloseReason;
use super::*;

/// A transport that was written to takes all of it, or only the first byte.
#[derive(Debug)]
struct Socket {
    outbound: Arc<Outbound>,
    takes_all: bool,
    written: Mutex<Vec<Bytes>>,
    writes: AtomicUsize,
}

impl Transport for Socket {
    fn deliver(&self, bundle: &Bundle, _: &Bytes) {
        self.outbound.bring(bundle, || {
            let frames = bundle.deliveries().iter().filter_map(|delivery| delivery.frame().json());
            self.written.lock().extend(frames.cloned());
            self.writes.fetch_add(1, Ordering::Relaxed);
            self.takes_all
        });
    }

    fn is_free(&self) -> bool {
        true
    }
}

struct Scene {
    courier: Arc<Courier>,
    sockets: Vec<Arc<Socket>>,
    readers: Arc<[Reader]>,
}

impl Scene {
    fn of(count: usize) -> Self {
        Self::with(count, true)
    }

    fn with(count: usize, takes_all: bool) -> Self {
        let courier = Arc::<Courier>::default();
        let mut sockets = Vec::new();
        for _ in 0..count {
            let outbound = Arc::<Outbound>::default();
            let (written, writes) = (Mutex::default(), AtomicUsize::new(0));
            let socket = Socket { outbound, takes_all, written, writes };
            let socket = Arc::new(socket);
            let transport: Weak<Socket> = Arc::downgrade(&socket);
            socket.outbound.comes_by(Arc::clone(&courier), transport);
            sockets.push(socket);
        }
        let reader = |(number, socket): (usize, &Arc<Socket>)| {
            let (_, transport) = socket.outbound.way().unwrap();
            let outbound = Arc::clone(&socket.outbound);
            Reader { outbound, transport, deltas: number % 2 == 0, presence: false }
        };
        let mut readers: Vec<_> = sockets.iter().enumerate().map(reader).collect();
        readers.sort_unstable_by_key(Reader::place);
        Self { courier, sockets, readers: readers.into() }
    }

    fn send_as(&self, frame: OutFrame, wants: Wants) {
        self.courier.send(&Arc::new(frame), wants, &self.readers, &mut Wakers::default());
    }

    fn send(&self, word: &'static str) {
        self.send_as(text(word), Wants::Everything);
    }

    fn bring_first(&self) {
        self.bring(0);
    }

    /// Brings what is one write of at most so many bytes.
    fn bring(&self, bytes_max: usize) {
        let bundle = match self.courier.next(bytes_max).unwrap() {
            Next::Together(bundle) => bundle,
            Next::Apart(delivery) => {
                self.courier.queue(&delivery);
                return;
            }
        };
        for reader in bundle.batches().flatten() {
            reader.transport.deliver(&bundle, &Bytes::new());
        }
        bundle.deliveries().iter().for_each(|delivery| self.courier.done(delivery));
    }

    fn writes(&self, place: usize) -> usize {
        self.sockets[place].writes.load(Ordering::Relaxed)
    }

    fn outbound(&self, place: usize) -> &Outbound {
        &self.sockets[place].outbound
    }

    /// What is in a queue; its transport then waits for more.
    fn drain(&self, place: usize) -> Vec<OutFrame> {
        let (cx, mut frames) = (Context::from_waker(Waker::noop()), Vec::new());
        while let Poll::Ready(Some(frame)) = self.outbound(place).poll_next(&cx) {
            frames.push(frame);
        }
        frames
    }

    fn written(&self, place: usize) -> Vec<Bytes> {
        std::mem::take(&mut *self.sockets[place].written.lock())
    }
}

fn text(word: &'static str) -> OutFrame {
    OutFrame::Text(Bytes::from_static(word.as_bytes()))
}

#[test]
fn a_reader_for_whom_nothing_waits_is_written_to_at_once() {
    let scene = Scene::of(2);
    // The second one's transport has not asked for anything yet.
    scene.drain(0);
    scene.send("a");
    scene.bring_first();
    assert_eq!((scene.written(0), scene.written(1)), (vec![Bytes::from("a")], vec![]));
    assert_eq!((scene.drain(0), scene.drain(1)), (vec![], vec![text("a")]));
    scene.send("b");
    scene.bring_first();
    assert_eq!(
        (scene.written(0), scene.written(1)),
        (vec![Bytes::from("b")], vec![Bytes::from("b")])
    );
    assert_eq!(scene.courier.count(), 0);
}

#[test]
fn what_the_kernel_does_not_take_at_once_makes_the_next_one_wait() {
    let scene = Scene::with(1, false);
    scene.drain(0);
    scene.send("a");
    scene.bring_first();
    scene.send("b");
    scene.bring_first();
    assert_eq!(scene.written(0), [Bytes::from("a")]);
    assert_eq!(scene.drain(0), [text("b")]);
}

#[test]
fn what_is_for_the_same_readers_is_one_write_to_each() {
    let scene = Scene::of(3);
    scene.drain(0);
    scene.drain(2);
    for word in ["a", "b", "c", "d"] {
        scene.send(word);
    }
    // Somebody who has two of them already gets the others.
    let two = scene.courier.next(2).unwrap();
    let Next::Together(two) = two else { panic!("they are for the same") };
    scene.sockets[2].deliver(&two, &Bytes::new());
    scene.bring(3);
    let words = |words: &[&'static str]| words.iter().copied().map(Bytes::from).collect::<Vec<_>>();
    assert_eq!((scene.writes(0), scene.written(0)), (1, words(&["a", "b", "c"])));
    assert_eq!((scene.writes(1), scene.drain(1)), (0, vec![text("a"), text("b"), text("c")]));
    assert_eq!((scene.writes(2), scene.written(2)), (1, words(&["a", "b"])));
    assert_eq!(scene.drain(2), [text("c")]);
    assert_eq!(scene.courier.count(), 1);
}

#[tokio::test]
async fn pieces_of_parts_that_a_slow_reader_is_behind_with_are_left_out_together() {
    let scene = Scene::of(1);
    let parts = [1, 2, 3].map(|bits| Arc::new(PartId::from_bits(bits)));
    let piece = |part: usize| OutFrame::Delta(Arc::clone(&parts[part]), Bytes::from("{}"));
    let bring = |pieces: &[usize]| {
        for part in pieces {
            scene.send_as(piece(*part), Wants::Deltas);
        }
        scene.bring(usize::MAX);
    };
    for _ in 0..OUTBOUND_FRAMES_SOFT_MAX {
        assert!(scene.outbound(0).push(Bytes::from("a")));
    }
    // Each by itself at first, then both at once; with a new one, and in another order.
    for pieces in [&[0, 1][..], &[0, 1], &[0, 1, 2], &[2, 1, 0], &[1]] {
        bring(pieces);
    }
    assert_eq!(scene.drain(0).len(), OUTBOUND_FRAMES_SOFT_MAX);
    let mut behind = scene.outbound(0).behind().await;
    behind.sort();
    assert_eq!(behind, parts.clone().map(|part| PartId::clone(&part)));
    // Those of which there is a snapshot go on, beside one that is not the same and still equal.
    assert!(
        scene
            .outbound(0)
            .offer(&Arc::new(OutFrame::Snapshot(PartId::clone(&parts[0]), Bytes::from("{}"))))
    );
    scene.drain(0);
    bring(&[0, 1]);
    let equal = OutFrame::Delta(Arc::new(PartId::from_bits(2)), Bytes::from("{}"));
    scene.send_as(equal, Wants::Deltas);
    scene.bring(usize::MAX);
    assert_eq!(scene.drain(0), [piece(0)]);
    scene.outbound(0).caught_up(&behind);
    bring(&[1, 2]);
    assert_eq!(scene.drain(0), [piece(1), piece(2)]);
}

#[test]
fn what_others_get_too_is_queued_so_that_it_is_one_write() {
    let scene = Scene::of(2);
    let delta = || OutFrame::Delta(Arc::new(PartId::from_bits(1)), Bytes::from("{}"));
    scene.send("a");
    scene.send_as(delta(), Wants::Deltas);
    scene.send("b");
    assert!(matches!(scene.courier.next(usize::MAX), Some(Next::Apart(_))));
    // Of what is a whole write already nobody asks what comes behind it.
    assert!(
        matches!(scene.courier.next(2), Some(Next::Together(one)) if one.deliveries().len() == 1)
    );
    (0..3).for_each(|_| scene.bring(usize::MAX));
    assert_eq!(scene.drain(0), [text("a"), delta(), text("b")]);
    assert_eq!(scene.drain(1), [text("a"), text("b")]);
}

#[test]
fn what_is_said_to_one_comes_behind_what_was_said_to_many_before() {
    let scene = Scene::of(2);
    scene.drain(0);
    scene.send("a");
    scene.send("b");
    assert!(scene.outbound(0).push(Bytes::from("c")));
    scene.send("d");
    scene.outbound(0).push_replay([Bytes::from("e")]);
    scene.outbound(0).close(CloseReason::new(1000, "done"));
    for _ in 0..3 {
        scene.bring_first();
    }
    let close = OutFrame::Close(CloseReason::new(1000, "done"));
    let replay = OutFrame::Replay(Bytes::from("e"));
    assert_eq!(scene.drain(0), [text("a"), text("b"), text("c"), text("d"), replay, close]);
    assert_eq!(scene.drain(1), [text("a"), text("b"), text("d")]);
    assert_eq!(scene.written(0), Vec::<Bytes>::new());
}

#[test]
fn whoever_lost_a_right_is_not_brought_what_waited_of_it() {
    let scene = Scene::of(2);
    scene.drain(0);
    scene.drain(1);
    let project = ProjectId::from_bits(1);
    let event = json!({ "projectId": project, "room": format!("project:{project}") });
    scene.send_as(OutFrame::Text(Bytes::from(event.to_string())), Wants::Everything);
    scene.outbound(0).lose(&project, [Bytes::from("left")]);
    scene.bring_first();
    assert_eq!(scene.drain(0), [OutFrame::Left(project, Bytes::from("left"))]);
    assert_eq!((scene.written(0).len(), scene.written(1).len()), (0, 1));
}

#[test]
fn a_frame_is_for_those_who_want_it() {
    let scene = Scene::of(2);
    let delta = || OutFrame::Delta(Arc::new(PartId::from_bits(1)), Bytes::from("{}"));
    scene.send_as(delta(), Wants::Deltas);
    scene.send_as(text("presence"), Wants::Presence);
    // Also where it is queued ahead.
    assert!(scene.outbound(1).push(Bytes::from("a")));
    scene.bring_first();
    scene.bring_first();
    assert_eq!((scene.drain(0), scene.drain(1)), (vec![delta()], vec![text("a")]));
}

#[test]
fn what_a_courier_holds_is_bounded_and_nothing_of_it_is_lost() {
    let scene = Scene::of(1);
    for _ in 0..DELIVERIES_MAX + 10 {
        scene.send("{}");
        assert!(scene.courier.count() <= DELIVERIES_MAX);
    }
    while scene.courier.count() > 0 {
        scene.bring_first();
    }
    assert_eq!(scene.drain(0).len(), DELIVERIES_MAX + 10);
    let large = OutFrame::Text(Bytes::from(vec![b'x'; DELIVERY_BYTES_MAX / 4]));
    for _ in 0..3 {
        scene.send_as(large.clone(), Wants::Everything);
    }
    assert_eq!(scene.courier.count(), 3);
    scene.send_as(OutFrame::Text(Bytes::from(vec![b'x'; DELIVERY_BYTES_MAX])), Wants::Everything);
    // One alone may be larger than all that may wait.
    assert_eq!(scene.courier.count(), 1);
    // A reader for whom so much waits is too slow.
    assert!(scene.outbound(0).is_closed());
}

#[test]
fn nothing_is_brought_on_a_thread_that_has_ended() {
    let scene = Scene::of(1);
    scene.send("a");
    scene.courier.end();
    scene.send("b");
    assert!(scene.outbound(0).push(Bytes::from("c")));
    assert!(scene.courier.next(usize::MAX).is_none());
    assert_eq!(scene.drain(0), [text("c")]);
}

#[test]
fn each_reader_gets_everything_once_and_in_order_whoever_brings_it() {
    const COUNT: usize = 3000;
    let scene = Scene::of(3);
    let number = |number: usize| Bytes::from(number.to_string());
    thread::scope(|threads| {
        threads.spawn(|| {
            for count in 0..COUNT {
                scene.send_as(OutFrame::Text(number(count)), Wants::Everything);
                if count.is_multiple_of(7) {
                    // Said to one, behind what was said to all.
                    assert!(scene.outbound(count % 3).push(number(count)));
                }
            }
        });
        threads.spawn(|| {
            while !(0..3).all(|place| scene.outbound(place).is_closed()) {
                if scene.courier.count() > 0 {
                    // As one write what just fits.
                    scene.bring(12);
                }
                for place in 0..3 {
                    let frames = scene.drain(place);
                    let frames = frames.iter().filter_map(OutFrame::json).cloned();
                    scene.sockets[place].written.lock().extend(frames);
                    if scene.sockets[place].written.lock().last() == Some(&number(COUNT - 1)) {
                        scene.outbound(place).close(CloseReason::new(1000, ""));
                    }
                }
            }
        });
    });
    for place in 0..3 {
        let twice = |count: &usize| count.is_multiple_of(7) && count % 3 == place;
        let expected = (0..COUNT).flat_map(|count| vec![count; 1 + usize::from(twice(&count))]);
        let expected: Vec<Bytes> = expected.map(number).collect();
        assert_eq!(scene.written(place), expected);
    }
}
