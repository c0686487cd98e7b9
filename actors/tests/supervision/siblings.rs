//! What the restart of one actor does to its siblings, its children and its queue.

use iris_actors::supervision::{AskError, ChildSpec, ExitReason, Strategy};
use iris_protocol::{ExitKind, SupervisionKind};

use crate::probe::{Act, Count, act};
use crate::stage::{Child, Stage, temporary, transient};

fn crash() -> Act {
    act(|_, _| panic!("on purpose"))
}

/// A parent and three children, each of which has counted to one.
async fn family(stage: &Stage, strategy: Strategy) -> (Child, [Child; 3]) {
    let parent = stage.spawn(ChildSpec { strategy, ..transient("parent") });
    let children =
        ["a", "b", "c"].map(|id| stage.spawn_under(parent.address.vitals(), transient(id)));
    for child in &children {
        assert_eq!(child.count().await, 1);
    }
    (parent, children)
}

/// What each child counts to after the one in the middle started again: 1 when its state is new.
async fn after_a_restart(strategy: Strategy, by_operator: bool) -> Vec<usize> {
    let mut stage = Stage::new();
    let (parent, children) = family(&stage, strategy).await;
    if by_operator {
        stage.supervision.restart(children[1].path()).unwrap();
    } else {
        children[1].address.tell(crash());
    }
    let first = stage.next(SupervisionKind::Restarted).await;
    assert_eq!(first.path, children[1].path());
    let mut counts = Vec::new();
    for child in &children {
        counts.push(child.count().await);
        if child.path() != first.path && counts.last() == Some(&1) {
            let history = stage.supervision.history(child.path());
            let restarted = history.last().map(|record| (record.kind, record.reason));
            let expected = (SupervisionKind::Restarted, Some(ExitKind::Parent));
            assert_eq!(restarted, Some(expected));
        }
    }
    stage.end((parent, children)).await;
    counts
}

#[actix_rt::test]
async fn one_for_one_restarts_the_one_that_failed() {
    assert_eq!(after_a_restart(Strategy::OneForOne, false).await, [2, 1, 2]);
}

#[actix_rt::test]
async fn one_for_all_restarts_its_siblings_too() {
    assert_eq!(after_a_restart(Strategy::OneForAll, false).await, [1, 1, 1]);
}

#[actix_rt::test]
async fn rest_for_one_restarts_those_that_were_spawned_after_it() {
    assert_eq!(after_a_restart(Strategy::RestForOne, false).await, [2, 1, 1]);
}

#[actix_rt::test]
async fn an_operators_restart_concerns_one_actor_whatever_the_strategy() {
    assert_eq!(after_a_restart(Strategy::OneForAll, true).await, [2, 1, 2]);
}

#[actix_rt::test]
async fn a_temporary_sibling_ends_instead_of_starting_again() {
    let stage = Stage::new();
    let (parent, children) = family(&stage, Strategy::OneForAll).await;
    let mut guest = stage.spawn_under(parent.address.vitals(), temporary("guest"));
    guest.count().await;
    children[0].address.tell(crash());
    assert_eq!(guest.ended().await, ExitReason::Parent);
    assert_eq!(guest.starts(), 1);
    stage.end((parent, children, guest)).await;
}

#[actix_rt::test]
async fn children_end_before_their_parent_starts_again() {
    let mut stage = Stage::new();
    let (parent, mut children) = family(&stage, Strategy::OneForOne).await;
    parent.address.tell(crash());
    for _ in &children {
        let record = stage.next_where("an end or a restart", is_end).await;
        assert_eq!(
            (record.kind, record.reason),
            (SupervisionKind::Stopped, Some(ExitKind::Parent))
        );
    }
    let record = stage.next_where("an end or a restart", is_end).await;
    assert_eq!((record.kind, &record.path[..]), (SupervisionKind::Restarted, parent.path()));
    for child in &mut children {
        assert_eq!(child.ended().await, ExitReason::Parent);
    }
    stage.end((parent, children)).await;
}

fn is_end(record: &iris_protocol::SupervisionRecord) -> bool {
    matches!(record.kind, SupervisionKind::Stopped | SupervisionKind::Restarted)
}

#[actix_rt::test]
async fn children_that_are_kept_live_on_while_their_parent_starts_again() {
    let stage = Stage::new();
    let parent = stage.spawn(ChildSpec { keeps_children: true, ..transient("parent") });
    let mut child = stage.spawn_under(parent.address.vitals(), transient("child"));
    assert_eq!((parent.count().await, child.count().await), (1, 1));
    parent.address.tell(crash());
    assert_eq!((parent.count().await, child.count().await), (1, 2));
    assert_eq!(stage.supervision.actors(None, None)[0].children, 1);
    // They end with it all the same.
    stage.supervision.stop(parent.path()).unwrap();
    assert_eq!(child.ended().await, ExitReason::Parent);
    stage.end((parent, child)).await;
}

#[actix_rt::test]
async fn what_waited_before_a_restart_is_handled_or_fails_as_the_spec_says() {
    for fails_queue in [false, true] {
        let stage = Stage::new();
        let child = stage.spawn(ChildSpec { fails_queue, ..transient("one") });
        child.count().await;
        let crashed = child.address.ask(crash());
        let waited = [child.address.ask(Count), child.address.ask(Count)];
        assert_eq!(crashed.await, Err(AskError::Gone));
        let [first, second] = waited;
        let expected =
            if fails_queue { [Err(AskError::Gone), Err(AskError::Gone)] } else { [Ok(1), Ok(2)] };
        assert_eq!([first.await, second.await], expected);
        let before = if fails_queue { 0 } else { 2 };
        assert_eq!(child.count().await, before + 1);
        stage.end(child).await;
    }
}
