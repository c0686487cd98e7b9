use iris_protocol::limits::{OUTBOUND_BYTES_MAX, OUTBOUND_FRAMES_SOFT_MAX};
use iris_protocol::{SessionId, UserId};

use super::*;

impl Outbound {
    fn push_delta(&self, part_id: &Arc<PartId>, json: Bytes) -> bool {
        self.offer(&Arc::new(OutFrame::Delta(Arc::clone(part_id), json)))
    }

    fn push_latest(&self, about: &About, json: Bytes) -> bool {
        self.offer(&Arc::new(OutFrame::Latest(about.clone(), json)))
    }

    fn push_snapshot(&self, part_id: PartId, json: Bytes) -> bool {
        self.offer(&Arc::new(OutFrame::Snapshot(part_id, json)))
    }
}

fn drain(outbound: &Outbound) -> Vec<OutFrame> {
    let cx = Context::from_waker(Waker::noop());
    let mut frames = Vec::new();
    while let Poll::Ready(Some(frame)) = outbound.poll_next(&cx) {
        frames.push(frame);
    }
    frames
}

#[test]
fn a_reader_that_never_reads_costs_a_bounded_queue_and_is_closed_with_4008() {
    let outbound = Outbound::default();
    let frame = Bytes::from(vec![b'x'; 1024]);
    while outbound.push(frame.clone()) {}
    assert!(outbound.is_closed());
    assert_eq!(drain(&outbound), [OutFrame::Close(CloseReason::new(4008, "slow reader"))]);
}

#[test]
fn one_frame_may_be_larger_than_all_that_may_wait() {
    let outbound = Outbound::default();
    assert!(outbound.push(Bytes::from_static(b"{}")));
    assert!(outbound.push(Bytes::from(vec![b'x'; 2 * OUTBOUND_BYTES_MAX])));
    assert!(outbound.push(Bytes::from_static(b"{}")));
    assert!(!outbound.push(Bytes::from(vec![b'x'; 2 * OUTBOUND_BYTES_MAX])));
}

#[test]
fn a_frame_is_taken_while_others_wait_behind_a_larger_one_that_is_gone() {
    let outbound = Outbound::default();
    assert!(outbound.push(Bytes::from(vec![b'x'; 1024])));
    assert!(outbound.push(Bytes::from_static(b"{}")));
    assert!(outbound.poll_next(&Context::from_waker(Waker::noop())).is_ready());
    assert!(outbound.push(Bytes::from_static(b"{}")));
}

#[test]
fn a_replay_counts_against_no_limit_but_its_own_and_keeps_its_place() {
    let outbound = Outbound::default();
    assert!(outbound.push(Bytes::from_static(b"before")));
    outbound.push_replay((0..2 * OUTBOUND_FRAMES_MAX).map(|_| Bytes::from_static(b"past")));
    assert!(outbound.push(Bytes::from_static(b"after")));
    let frames = drain(&outbound);
    assert_eq!(frames.len(), 2 * OUTBOUND_FRAMES_MAX + 2);
    assert_eq!(frames.first(), Some(&OutFrame::Text(Bytes::from_static(b"before"))));
    assert_eq!(frames.last(), Some(&OutFrame::Text(Bytes::from_static(b"after"))));
}

#[test]
fn replays_are_bounded_too() {
    let outbound = Outbound::default();
    let frame = Bytes::from(vec![b'x'; REPLAY_BYTES_MAX]);
    outbound.push_replay((0..16).map(|_| frame.clone()));
    assert!(!outbound.is_closed());
    outbound.push_replay([Bytes::from_static(b"x")]);
    assert_eq!(drain(&outbound), [OutFrame::Close(CloseReason::new(4008, "slow reader"))]);
}

#[test]
fn many_small_frames_are_bounded_too() {
    let outbound = Outbound::default();
    let mut taken = 0;
    while outbound.push(Bytes::from_static(b"{}")) {
        taken += 1;
    }
    assert_eq!(taken, OUTBOUND_FRAMES_MAX);
}

#[actix_rt::test]
async fn however_the_queue_is_closed_who_waits_for_that_is_told() {
    let flood = |outbound: &Outbound| while outbound.push(Bytes::from_static(b"{}")) {};
    let replay = |outbound: &Outbound| {
        let frame = Bytes::from(vec![b'x'; REPLAY_BYTES_MAX]);
        outbound.push_replay((0..17).map(|_| frame.clone()));
    };
    let close = |outbound: &Outbound| outbound.close(CloseReason::new(1000, "done"));
    let ways: [&dyn Fn(&Outbound); 4] = [&flood, &replay, &close, &Outbound::abandon];
    for way in ways {
        let outbound = Outbound::default();
        let mut closed = Box::pin(outbound.closed());
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(closed.as_mut().poll(cx).is_pending());
        way(&outbound);
        closed.await;
        outbound.closed().await;
    }
}

#[actix_rt::test]
async fn a_slow_reader_gets_a_snapshot_in_place_of_pieces() {
    let outbound = Outbound::default();
    let [slow, other] = [1, 2].map(|bits| Arc::new(PartId::from_bits(bits)));
    let frame = Bytes::from_static(b"{}");
    for _ in 0..2 * OUTBOUND_FRAMES_SOFT_MAX {
        assert!(outbound.push_delta(&slow, frame.clone()));
    }
    let mut behind = Box::pin(outbound.behind());
    let cx = &mut Context::from_waker(Waker::noop());
    assert!(behind.as_mut().poll(cx).is_pending());
    assert_eq!(drain(&outbound).len(), OUTBOUND_FRAMES_SOFT_MAX);
    assert_eq!(behind.await, std::slice::from_ref(&*slow));
    // Until the snapshot has come its pieces are left out, and those of others are not.
    assert!(outbound.push_delta(&slow, frame.clone()));
    assert!(outbound.push_delta(&other, frame.clone()));
    assert!(outbound.push_snapshot(PartId::clone(&slow), frame.clone()));
    assert!(outbound.push_delta(&slow, frame.clone()));
    outbound.caught_up(std::slice::from_ref(&*slow));
    let expected = [
        OutFrame::Delta(other, frame.clone()),
        OutFrame::Snapshot(PartId::clone(&slow), frame.clone()),
        OutFrame::Delta(slow, frame),
    ];
    assert_eq!(drain(&outbound), expected);
}

#[actix_rt::test]
async fn pieces_are_taken_again_of_a_part_of_which_there_is_no_snapshot() {
    let (outbound, part) = (Outbound::default(), Arc::new(PartId::from_bits(1)));
    let frame = Bytes::from(vec![b'x'; 1024]);
    for _ in 0..OUTBOUND_FRAMES_SOFT_MAX + 10 {
        assert!(outbound.push_delta(&part, frame.clone()));
    }
    drain(&outbound);
    let behind = outbound.behind().await;
    outbound.caught_up(&behind);
    assert!(outbound.push_delta(&part, frame.clone()));
    assert_eq!(drain(&outbound), [OutFrame::Delta(part, frame)]);
}

const AGE_MAX: Duration = Duration::from_secs(10);

#[test]
fn a_frame_that_waits_too_long_ends_the_connection() {
    let (outbound, start) = (Outbound::default(), Instant::now());
    let look = |seconds| outbound.look(AGE_MAX, start + Duration::from_secs(seconds));
    assert!(outbound.push(Bytes::from_static(b"first")));
    assert!(outbound.push(Bytes::from_static(b"second")));
    look(0);
    look(9);
    assert!(outbound.push(Bytes::from_static(b"third")));
    look(9);
    // The reader takes two, slowly, and the third is younger.
    let cx = Context::from_waker(Waker::noop());
    assert!(outbound.poll_next(&cx).is_ready());
    assert!(outbound.poll_next(&cx).is_ready());
    look(18);
    assert!(!outbound.is_closed());
    look(19);
    assert_eq!(drain(&outbound), [OutFrame::Close(CloseReason::new(4008, "slow reader"))]);
}

#[test]
fn a_replay_may_take_its_time_as_long_as_it_gets_on() {
    let (outbound, start) = (Outbound::default(), Instant::now());
    let look = |seconds| outbound.look(AGE_MAX, start + Duration::from_secs(seconds));
    outbound.push_replay((0..4).map(|_| Bytes::from_static(b"past")));
    assert!(outbound.push(Bytes::from_static(b"after")));
    let cx = Context::from_waker(Waker::noop());
    for seconds in [0, 9, 18, 27] {
        look(seconds);
        assert!(!outbound.is_closed(), "{seconds}");
        assert!(outbound.poll_next(&cx).is_ready());
    }
    // Now the live frame is the oldest.
    look(28);
    look(36);
    assert!(!outbound.is_closed());
    look(38);
    assert!(outbound.is_closed());
}

#[test]
fn replays_may_not_take_their_time_forever() {
    let (outbound, start) = (Outbound::default(), Instant::now());
    outbound.push_replay((0..100).map(|_| Bytes::from_static(b"past")));
    let cx = Context::from_waker(Waker::noop());
    let mut seconds = 0;
    loop {
        outbound.look(AGE_MAX, start + Duration::from_secs(seconds));
        if outbound.is_closed() {
            break;
        }
        assert!(outbound.poll_next(&cx).is_ready());
        seconds += 5;
    }
    assert_eq!(seconds, 65, "a minute, and as long as a frame may wait behind it");
}

#[tokio::test(start_paused = true)]
async fn replays_wait_until_there_is_room_for_them() {
    let (outbound, cx) = (Arc::new(Outbound::default()), Context::from_waker(Waker::noop()));
    let until = Instant::now() + AGE_MAX;
    let missed = || [Bytes::from(vec![b'x'; REPLAY_BYTES_MAX])];
    let [first, second] = [outbound.replay_room(until).await, outbound.replay_room(until).await];
    let third = tokio::spawn({
        let outbound = Arc::clone(&outbound);
        async move { outbound.replay_room(until).await.map(|room| (room, Instant::now())) }
    });
    for room in [first, second] {
        assert!(room.is_some());
        outbound.push_replay(missed());
        drop(room);
        tokio::task::yield_now().await;
        assert!(!third.is_finished());
    }
    assert!(outbound.poll_next(&cx).is_ready());
    let (room, _) = third.await.unwrap().unwrap();
    outbound.push_replay(missed());
    drop(room);
    assert!(outbound.replay_room(until).await.is_none(), "nobody reads");
    assert_eq!(Instant::now(), until);
    outbound.abandon();
    assert!(outbound.replay_room(until + AGE_MAX).await.is_none());
    assert_eq!(Instant::now(), until, "nobody will");
}

#[test]
fn a_replay_that_does_not_get_on_ends_the_connection_too() {
    let (outbound, start) = (Outbound::default(), Instant::now());
    outbound.push_replay([Bytes::from_static(b"past")]);
    outbound.look(AGE_MAX, start);
    outbound.look(AGE_MAX, start + AGE_MAX);
    assert!(outbound.is_closed());
}

fn event(project: &ProjectId, word: &str) -> Bytes {
    let room = format!("project:{project}");
    let event = json!({ "type": word, "projectId": project, "room": room, "payload": {} });
    Bytes::from(event.to_string())
}

fn writes(n: u32) -> Bytes {
    Bytes::from(n.to_string())
}

#[test]
fn a_slow_reader_gets_the_latest_alone_of_what_says_all_of_something() {
    let outbound = Outbound::default();
    let about = |n| About::Typing(SessionId::from_bits(n));
    assert!(outbound.push_latest(&about(1), writes(0)));
    for n in 1..OUTBOUND_FRAMES_SOFT_MAX {
        assert!(outbound.push(writes(n.try_into().unwrap())));
    }
    for n in [1, 2, 3] {
        assert!(outbound.push_latest(&about(1), writes(n)));
        assert!(outbound.push_latest(&about(2), writes(n)));
    }
    let cx = Context::from_waker(Waker::noop());
    assert_eq!(outbound.poll_next(&cx), Poll::Ready(Some(OutFrame::Latest(about(1), writes(0)))));
    // No later one may overtake what waits.
    assert!(outbound.push_latest(&about(1), writes(4)));
    let mut frames = drain(&outbound).split_off(OUTBOUND_FRAMES_SOFT_MAX - 1);
    frames.sort_by_key(|frame| *frame == OutFrame::Latest(about(2), writes(3)));
    let expected = [(1, 4), (2, 3)].map(|(n, last)| OutFrame::Latest(about(n), writes(last)));
    assert_eq!(frames, expected);
    // Now it is slow no longer.
    assert!(outbound.push_latest(&about(1), writes(5)));
    assert!(outbound.push(writes(6)));
    let expected = [OutFrame::Latest(about(1), writes(5)), OutFrame::Text(writes(6))];
    assert_eq!(drain(&outbound), expected);
    let queue = outbound.queue.lock();
    assert_eq!((queue.live_frames, queue.live_bytes, queue.largest_bytes), (0, 0, 0));
}

#[test]
fn the_latest_count_against_the_limits() {
    let outbound = Outbound::default();
    for _ in 0..OUTBOUND_FRAMES_SOFT_MAX {
        assert!(outbound.push(Bytes::new()));
    }
    let about = |n| About::Presence(ProjectId::from_bits(1), UserId::from_bits(n));
    let many = 0..2 * OUTBOUND_FRAMES_MAX as u128;
    let counted = many.take_while(|n| outbound.push_latest(&about(*n), writes(0))).count();
    assert_eq!(counted, OUTBOUND_FRAMES_MAX - OUTBOUND_FRAMES_SOFT_MAX);
    assert_eq!(drain(&outbound), [OutFrame::Close(CloseReason::new(4008, "slow reader"))]);
}

#[test]
fn nothing_of_a_project_goes_out_once_it_is_lost() {
    let outbound = Outbound::default();
    let (lost, kept) = (ProjectId::from_bits(1), ProjectId::from_bits(2));
    let left = Bytes::from_static(b"left");
    assert!(outbound.push(event(&lost, "a")));
    assert!(outbound.push(event(&kept, "b")));
    outbound.push_replay([event(&lost, "c"), event(&kept, "d")]);
    assert!(outbound.push_delta(&Arc::new(PartId::from_bits(1)), event(&lost, "e")));
    assert!(outbound.push_latest(&About::Typing(SessionId::from_bits(1)), event(&lost, "f")));
    outbound.lose(&lost, [left.clone(), left.clone()]);
    outbound.lose(&lost, []);
    assert!(outbound.push(event(&lost, "again")));
    let expected = [
        OutFrame::Text(event(&kept, "b")),
        OutFrame::Replay(event(&kept, "d")),
        OutFrame::Left(lost.clone(), left.clone()),
        OutFrame::Left(lost.clone(), left),
        OutFrame::Text(event(&lost, "again")),
    ];
    assert_eq!(drain(&outbound), expected);
    let queue = outbound.queue.lock();
    assert_eq!((queue.live_frames, queue.live_bytes, queue.replay_bytes), (0, 0, 0));
}

#[test]
fn who_is_cut_off_hears_the_reason_alone_and_once() {
    let outbound = Outbound::default();
    let reason = |code| CloseReason::new(code, "x");
    assert!(outbound.push(Bytes::from_static(b"{}")));
    outbound.close(reason(1000));
    outbound.cut_off(reason(4401));
    assert_eq!(drain(&outbound), [OutFrame::Close(reason(4401))]);
    outbound.cut_off(reason(4403));
    assert_eq!(drain(&outbound), []);
}

#[test]
fn a_ping_goes_out_before_what_waits() {
    let outbound = Outbound::default();
    assert!(outbound.push(Bytes::from_static(b"{}")));
    outbound.push_ping();
    outbound.push_ping();
    assert_eq!(drain(&outbound), [OutFrame::Ping, OutFrame::Text(Bytes::from_static(b"{}"))]);
}

#[test]
fn what_was_queued_before_a_close_still_goes_out() {
    let outbound = Outbound::default();
    assert!(outbound.push(Bytes::from_static(b"{}")));
    outbound.close(CloseReason::new(1000, "done"));
    assert!(!outbound.push(Bytes::from_static(b"{}")));
    assert_eq!(drain(&outbound).len(), 2);
}

#[test]
fn chunks_of_files_hold_up_nothing_else_and_go_with_the_right_to_their_project() {
    let (outbound, cx) = (Outbound::default(), Context::from_waker(Waker::noop()));
    let [one, other] = [1, 2].map(ProjectId::from_bits);
    for project_id in [&one, &other, &one] {
        assert!(outbound.push_chunk(project_id, Bytes::from(vec![b'c'; 48 * 1024])));
    }
    let event = Bytes::from(vec![b'e'; 1024]);
    for _ in 0..40 {
        assert!(outbound.push(event.clone()));
    }
    // As long as events wait there is one chunk behind each write of them.
    let flush = || {
        let mut frames = Vec::new();
        let is_some = outbound.poll_some(32 * 1024, &cx, &mut frames).is_ready();
        let chunks = frames.iter().filter(|frame| matches!(***frame, OutFrame::Binary(_)));
        is_some.then(|| (frames.len(), chunks.count()))
    };
    assert_eq!([flush(), flush()], [Some((33, 1)), Some((9, 1))]);
    outbound.lose(&one, []);
    assert_eq!(flush(), None);
    assert!(outbound.push_chunk(&other, Bytes::from_static(b"c")));
    outbound.close(CloseReason::new(1000, "closed"));
    assert_eq!(drain(&outbound), [OutFrame::Close(CloseReason::new(1000, "closed"))]);
    assert!(!outbound.push_chunk(&other, Bytes::from_static(b"c")));
}
