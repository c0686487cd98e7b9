//! Parents end after their children, however they end, and in time.

use actix::Arbiter;
use iris_actors::supervision::{AskError, ExitReason, RecordFilter};
use iris_protocol::{ExitKind, SupervisionKind};
use tokio::time::Instant;

use crate::probe::{act, act_later};
use crate::stage::{Child, Stage, temporary};

/// Children of one parent.
const CHILDREN: usize = 10;

/// A parent, its children, and one child of each of them.
struct Family {
    top: Child,
    middle: Vec<Child>,
    leaves: Vec<Child>,
}

async fn family(stage: &Stage) -> Family {
    let top = stage.spawn(temporary("top"));
    let (mut middle, mut leaves) = (Vec::new(), Vec::new());
    for id in 0..CHILDREN {
        let child = stage.spawn_under(top.address.vitals(), temporary(&format!("{id}")));
        leaves.push(stage.spawn_under(child.address.vitals(), temporary("leaf")));
        middle.push(child);
    }
    for child in [&top].into_iter().chain(&middle).chain(&leaves) {
        child.count().await;
    }
    Family { top, middle, leaves }
}

/// Checks the order in which a whole family ended, and what was told of each.
async fn ended_leaves_first(stage: &mut Stage, family: &Family, reason: ExitKind) {
    let mut ended: Vec<(String, Option<ExitKind>)> = Vec::new();
    for _ in 0..=2 * CHILDREN {
        let record = stage.next(SupervisionKind::Stopped).await;
        ended.push((record.path, record.reason));
    }
    let at = |child: &Child| ended.iter().position(|(path, _)| path == child.path()).unwrap();
    for (child, leaf) in family.middle.iter().zip(&family.leaves) {
        assert!(at(leaf) < at(child), "{} ended before its child", child.path());
        assert_eq!(ended[at(child)].1, Some(ExitKind::Parent));
        assert_eq!(ended[at(leaf)].1, Some(ExitKind::Parent));
    }
    assert_eq!(ended[2 * CHILDREN], (family.top.path().to_owned(), Some(reason)));
}

#[actix_rt::test]
async fn a_parent_that_stops_ends_its_family_leaves_first() {
    let mut stage = Stage::new();
    let mut family = family(&stage).await;
    stage.supervision.stop(family.top.path()).unwrap();
    let reason = ExitReason::Killed("an operator's order".to_owned());
    assert_eq!(family.top.ended().await, reason);
    ended_leaves_first(&mut stage, &family, ExitKind::Killed).await;
    stage.end((family.top, family.middle, family.leaves)).await;
}

#[actix_rt::test]
async fn a_parent_that_dies_takes_its_children_with_it_and_is_reported_after_them() {
    let mut stage = Stage::new();
    let mut family = family(&stage).await;
    family.top.address.tell(act(|_, _| panic!("on purpose")));
    assert_eq!(family.top.ended().await, ExitReason::Panic("on purpose".to_owned()));
    ended_leaves_first(&mut stage, &family, ExitKind::Panic).await;
    for child in family.middle.iter_mut().chain(&mut family.leaves) {
        assert_eq!(child.ended().await, ExitReason::Parent);
    }
    stage.end((family.top, family.middle, family.leaves)).await;
}

#[actix_rt::test]
async fn children_on_other_threads_end_before_their_parent_too() {
    let stage = Stage::new();
    let threads = [Arbiter::new(), Arbiter::new()];
    let mut parent = stage.spawn(temporary("parent"));
    let mut children = Vec::new();
    for id in 0..CHILDREN {
        let spec = temporary(&format!("{id}"));
        children.push(stage.spawn_on(&threads[id % 2], parent.address.vitals(), spec));
    }
    stage.supervision.stop(parent.path()).unwrap();
    parent.ended().await;
    let kind = Some(SupervisionKind::Stopped);
    let stopped = stage.supervision.log().records(&RecordFilter { kind, ..Default::default() });
    let (last, first) = stopped.split_last().unwrap();
    assert_eq!((&last.path[..], first.len()), (parent.path(), CHILDREN));
    for child in &mut children {
        assert_eq!(child.ended().await, ExitReason::Parent);
    }
    for thread in threads {
        thread.stop();
        thread.join().unwrap();
    }
    stage.end((parent, children)).await;
}

#[actix_rt::test]
async fn a_child_on_a_blocked_thread_holds_its_parent_up_for_six_seconds_at_most() {
    // Nothing else happens on this thread, so the clock jumps from one deadline to the next.
    tokio::time::pause();
    let stage = Stage::new();
    let thread = Arbiter::new();
    let mut parent = stage.spawn(temporary("parent"));
    let mut child = stage.spawn_on(&thread, parent.address.vitals(), temporary("child"));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (blocks, blocked) = std::sync::mpsc::channel();
    child.address.tell(act(move |_, _| {
        blocks.send(()).unwrap();
        released.recv().unwrap_err();
    }));
    blocked.recv().unwrap();
    let since = Instant::now();
    stage.supervision.stop(parent.path()).unwrap();
    parent.ended().await;
    assert_eq!(since.elapsed().as_secs(), 6);
    assert_eq!(stage.told(child.path()), [SupervisionKind::Started]);
    // Once its thread is free it ends like any other.
    tokio::time::resume();
    drop(release);
    assert_eq!(child.ended().await, ExitReason::Parent);
    thread.stop();
    thread.join().unwrap();
    stage.end((parent, child)).await;
}

#[actix_rt::test]
async fn a_child_that_waits_for_its_own_children_too_long_is_killed() {
    tokio::time::pause();
    let stage = Stage::new();
    let thread = Arbiter::new();
    let mut parent = stage.spawn(temporary("parent"));
    let mut child = stage.spawn_under(parent.address.vitals(), temporary("child"));
    child.count().await;
    let mut leaf = stage.spawn_on(&thread, child.address.vitals(), temporary("leaf"));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (blocks, blocked) = std::sync::mpsc::channel();
    leaf.address.tell(act(move |_, _| {
        blocks.send(()).unwrap();
        released.recv().unwrap_err();
    }));
    blocked.recv().unwrap();
    let since = Instant::now();
    stage.supervision.stop(parent.path()).unwrap();
    parent.ended().await;
    child.ended().await;
    assert_eq!(since.elapsed().as_secs(), 6);
    tokio::time::resume();
    drop(release);
    leaf.ended().await;
    thread.stop();
    thread.join().unwrap();
    stage.end((parent, child, leaf)).await;
}

#[actix_rt::test]
async fn actors_whose_thread_ends_leave_the_tree_and_their_callers_hear_it() {
    let stage = Stage::new();
    let thread = Arbiter::new();
    let mut parent = stage.spawn(temporary("parent"));
    let child = stage.spawn_on(&thread, parent.address.vitals(), temporary("child"));
    let slow = child.address.ask(act_later(std::future::pending()));
    child.count().await;
    thread.stop();
    thread.join().unwrap();
    assert_eq!(slow.await, Err(AskError::Gone));
    assert_eq!(stage.supervision.actors(None, Some(child.path())), []);
    // Nobody is told, and nobody waits for it.
    assert!(child.exit.await.is_err());
    parent.address.vitals().stop();
    assert_eq!(parent.ended().await, ExitReason::Parent);
    stage.end((parent, child.address)).await;
}
