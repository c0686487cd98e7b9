//! Mailboxes are counted, bounded for callers, and no actor keeps its neighbours from theirs.

use std::sync::Arc;
use std::time::Duration;

use iris_actors::supervision::{AskError, ChildSpec};
use iris_protocol::{ErrorCode, SupervisionKind};
use parking_lot::Mutex;

use crate::probe::{Count, act};
use crate::stage::{Stage, temporary, transient};

/// Messages that wait for the only actor.
fn depth(stage: &Stage) -> u64 {
    stage.supervision.actors(None, None)[0].mailbox_depth
}

#[actix_rt::test]
async fn the_depth_counts_what_waits_and_goes_back_to_zero() {
    let stage = Stage::new();
    let child = stage.spawn(transient("one"));
    for _ in 0..3 {
        child.address.tell(Count);
    }
    let (asked, urged) = (child.address.ask(Count), child.address.urge(Count));
    assert_eq!(depth(&stage), 5);
    assert_eq!((asked.await, urged.await), (Ok(4), Ok(5)));
    assert_eq!(depth(&stage), 0);
    assert_eq!(stage.supervision.actors(None, None)[0].handled, 5);
    stage.end(child).await;
}

#[actix_rt::test]
async fn the_depth_goes_back_to_zero_after_panics_and_when_callers_leave() {
    let stage = Stage::new();
    let child = stage.spawn(ChildSpec { fails_queue: true, ..transient("one") });
    child.count().await;
    child.address.tell(act(|_, _| panic!("on purpose")));
    child.address.tell(Count);
    drop(child.address.ask(Count));
    assert_eq!(depth(&stage), 3);
    while child.starts() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(child.count().await, 1);
    assert_eq!(depth(&stage), 0);
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_caller_that_leaves_takes_its_message_out() {
    let stage = Stage::new();
    let child = stage.spawn(temporary("one"));
    let (first, second) = (child.address.ask(Count), child.address.ask(Count));
    drop(first);
    // The order of a caller that does not wait for the answer stays.
    child.address.tell(Count);
    assert_eq!(second.await, Ok(1));
    assert_eq!(child.count().await, 3);
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_full_mailbox_refuses_callers_and_takes_what_must_get_through() {
    tokio::time::pause();
    let mut stage = Stage::new();
    let child = stage.spawn(ChildSpec { mailbox_limit: 2, ..temporary("one") });
    let taken = [child.address.ask(Count), child.address.ask(Count)];
    for _ in 0..5 {
        assert_eq!(child.address.ask(Count).await, Err(AskError::Overloaded));
    }
    // Nothing of what was refused waits; what must get through does.
    child.address.tell(Count);
    let urged = child.address.urge(Count);
    assert_eq!(child.address.admit(), Err(AskError::Overloaded));
    assert_eq!(depth(&stage), 4);
    let [first, second] = taken;
    assert_eq!((first.await, second.await, urged.await), (Ok(1), Ok(2), Ok(4)));
    assert_eq!(child.address.admit(), Ok(()));
    let record = stage.next(SupervisionKind::Overloaded).await;
    let counts = [("depth", 2), ("limit", 2), ("refused", 1)];
    assert_eq!(record.counts, counts.map(|(name, count)| (name.to_owned(), count)).into());
    assert_eq!(stage.supervision.actors(None, None)[0].refused, 6);
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_mailbox_that_stays_full_is_told_once_in_ten_seconds() {
    tokio::time::pause();
    let stage = Stage::new();
    let child = stage.spawn(ChildSpec { mailbox_limit: 1, ..temporary("one") });
    child.address.ask(act(|_, ctx| freeze(ctx))).await.unwrap();
    let waiting = child.address.ask(Count);
    let told = || {
        assert_eq!(child.address.admit(), Err(AskError::Overloaded));
        let told = stage.told(child.path());
        told.into_iter().filter(|kind| *kind == SupervisionKind::Overloaded).count()
    };
    assert_eq!((told(), told()), (1, 1));
    tokio::time::advance(Duration::from_millis(9_999)).await;
    assert_eq!(told(), 1);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!((told(), told()), (2, 2));
    drop(waiting);
    stage.end(child).await;
}

/// Lets an actor take no further message.
fn freeze(ctx: &mut actix::Context<crate::probe::Probe>) {
    actix::AsyncContext::wait(ctx, actix::fut::wrap_future(std::future::pending()));
}

#[actix_rt::test]
async fn an_actor_that_ends_frees_the_places_in_its_mailbox() {
    let stage = Stage::new();
    let mut child = stage.spawn(ChildSpec { mailbox_limit: 1, ..temporary("one") });
    child.address.tell(Count);
    assert_eq!(child.address.admit(), Err(AskError::Overloaded));
    stage.supervision.stop(child.path()).unwrap();
    child.ended().await;
    assert_eq!(child.address.ask(Count).await, Err(AskError::Gone));
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_flooded_actor_lets_its_neighbours_be_answered_in_between() {
    const FLOOD: usize = 1_000;
    /// More than a busy actor handles in a row.
    const IN_A_ROW_MAX: usize = 16;
    let stage = Stage::new();
    let (flooded, neighbour) = (stage.spawn(temporary("one")), stage.spawn(temporary("two")));
    flooded.count().await;
    neighbour.count().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let order = Arc::clone(&order);
        act(move |_, _| order.lock().push(name))
    };
    for _ in 0..FLOOD {
        flooded.address.tell(note("flood"));
    }
    // Each question is asked once the one before is answered, as a client would.
    for _ in 0..3 {
        neighbour.address.ask(note("neighbour")).await.unwrap();
    }
    flooded.count().await;
    let order = std::mem::take(&mut *order.lock());
    let rows: Vec<usize> = order.split(|name| *name == "neighbour").map(<[_]>::len).collect();
    assert_eq!((rows.len(), rows.iter().sum::<usize>()), (4, FLOOD));
    // One row before the question, and one before the answer is heard and the next one is asked.
    assert!(rows[..3].iter().all(|row| *row <= 2 * IN_A_ROW_MAX), "{rows:?}");
    stage.end((flooded, neighbour)).await;
}

#[test]
fn a_client_whose_message_was_not_taken_is_told_when_to_come_back() {
    for error in [AskError::Overloaded, AskError::Gone] {
        let told = error.to_api();
        assert_eq!(told.code, ErrorCode::Overloaded);
        assert!(told.retry_after_ms.is_some_and(|wait| wait > 0));
    }
}
