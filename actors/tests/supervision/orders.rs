//! What an operator may order, what is refused, and what callers hear.

use actix::prelude::*;
use iris_actors::supervision::{AskError, ExitReason, OrderError};
use iris_protocol::{ActorState, ExitKind, SupervisionKind};
use serde_json::{Value, json};

use crate::probe::{Count, act, act_later};
use crate::stage::{Stage, permanent, temporary, transient};

fn by_order() -> ExitReason {
    ExitReason::Killed("an operator's order".to_owned())
}

#[actix_rt::test]
async fn a_restart_gives_fresh_state_and_does_not_count_as_a_failure() {
    let mut stage = Stage::new();
    let child = stage.spawn(permanent("one"));
    for restarts in 1..=20 {
        assert_eq!(child.count().await, 1);
        stage.supervision.restart(child.path()).unwrap();
        let record = stage.next(SupervisionKind::Restarted).await;
        assert_eq!(record.reason, Some(ExitKind::Killed));
        assert_eq!(record.counts, [("restarts".to_owned(), restarts)].into());
    }
    assert_eq!((child.count().await, child.starts()), (1, 21));
    assert_eq!(stage.supervision.actors(None, None)[0].failed, 0);
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_restart_that_comes_while_it_restarts_is_not_a_second_one() {
    let stage = Stage::new();
    let child = stage.spawn(transient("one"));
    child.count().await;
    for _ in 0..3 {
        stage.supervision.restart(child.path()).unwrap();
    }
    child.count().await;
    assert_eq!(child.starts(), 2);
    stage.end(child).await;
}

#[actix_rt::test]
async fn the_callers_of_an_actor_that_is_stopped_hear_that_it_is_gone() {
    let stage = Stage::new();
    let mut child = stage.spawn(temporary("one"));
    let begun = child.address.ask(act_later(std::future::pending()));
    child.count().await;
    stage.supervision.stop(child.path()).unwrap();
    let waiting = [child.address.ask(Count), child.address.ask(Count)];
    assert_eq!(child.ended().await, by_order());
    assert_eq!(begun.await, Err(AskError::Gone));
    for waiting in waiting {
        assert_eq!(waiting.await, Err(AskError::Gone));
    }
    assert_eq!(child.address.urge(Count).await, Err(AskError::Gone));
    child.address.tell(Count);
    stage.end(child).await;
}

#[actix_rt::test]
async fn an_actor_that_waits_to_start_again_is_stopped_at_once() {
    let mut stage = Stage::new();
    let mut child = stage.spawn(transient("one"));
    child.address.tell(act(|_, _| panic!("on purpose")));
    stage.next(SupervisionKind::Panicked).await;
    assert_eq!(stage.supervision.actors(None, None)[0].state, ActorState::Restarting);
    stage.supervision.stop(child.path()).unwrap();
    assert_eq!(child.ended().await, by_order());
    assert_eq!(child.starts(), 1);
    stage.end(child).await;
}

#[actix_rt::test]
async fn an_actor_that_is_stopped_before_it_began_never_begins() {
    let stage = Stage::new();
    let mut child = stage.spawn(temporary("one"));
    stage.supervision.stop(child.path()).unwrap();
    assert_eq!(child.ended().await, by_order());
    assert_eq!(child.starts(), 0);
    stage.end(child).await;
}

#[actix_rt::test]
async fn orders_that_cannot_be_followed_are_refused() {
    let stage = Stage::new();
    let (one, two) = (stage.spawn(temporary("one")), stage.spawn(permanent("two")));
    assert_eq!(stage.supervision.restart("node/probe/three"), Err(OrderError::NotFound));
    assert_eq!(stage.supervision.stop("node/probe/three"), Err(OrderError::NotFound));
    assert_eq!(stage.supervision.stop("node"), Err(OrderError::NotFound));
    assert_eq!(stage.supervision.restart(one.path()), Err(OrderError::NotRestartable));
    assert_eq!(stage.supervision.stop(two.path()), Err(OrderError::Indispensable));
    assert_eq!((one.count().await, two.count().await), (1, 1));
    assert_eq!((one.starts(), two.starts()), (1, 1));
    stage.end((one, two)).await;
}

#[actix_rt::test]
async fn the_tree_shows_what_is_asked_for() {
    let stage = Stage::new();
    let parent = stage.spawn(permanent("one"));
    let child = stage.spawn_under(parent.address.vitals(), transient("child"));
    // Its path begins with the same letters, and it is not under it.
    let other = stage.spawn(temporary("one-more"));
    parent.count().await;
    let paths = |kind, under| {
        let actors = stage.supervision.actors(kind, under);
        actors.into_iter().map(|actor| actor.path).collect::<Vec<_>>()
    };
    let all = ["node/probe/one", "node/probe/one-more", "node/probe/one/probe/child"];
    assert_eq!(paths(None, None), all);
    assert_eq!(paths(Some("probe"), None), all);
    assert_eq!(paths(Some("prob"), None), [""; 0]);
    assert_eq!(paths(None, Some("node/probe/one")), [all[0], all[2]]);
    let actors = stage.supervision.actors(None, None);
    assert_eq!((&actors[0].parent[..], actors[0].children, actors[0].handled), ("node", 1, 1));
    assert_eq!((&actors[2].parent[..], actors[2].children), (parent.path(), 0));
    assert_eq!(stage.supervision.count("probe"), 3);
    assert_eq!(stage.supervision.count_by_kind(), [("probe".to_owned(), 3)].into());
    stage.end((parent, child, other)).await;
}

#[actix_rt::test]
async fn an_actor_says_of_itself_what_it_can_and_nothing_when_it_cannot() {
    tokio::time::pause();
    let stage = Stage::new();
    let child = stage.spawn(temporary("one"));
    child.count().await;
    assert_eq!(stage.supervision.observe(child.path()).await, json!({ "count": 1 }));
    assert_eq!(stage.supervision.observe("node/probe/two").await, Value::Null);
    let freeze = act(|_, ctx| ctx.wait(actix::fut::wrap_future(std::future::pending())));
    child.address.ask(freeze).await.unwrap();
    assert_eq!(stage.supervision.observe(child.path()).await, Value::Null);
    stage.end(child).await;
}
