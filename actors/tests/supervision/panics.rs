//! A panic is caught wherever it happens, named, and only its own message fails.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use iris_actors::supervision::{AskError, ExitReason, MessageFor, in_request};
use iris_protocol::{SupervisionKind, SupervisionRecord};
use tokio::sync::oneshot;

use crate::probe::{Act, Count, Probe, act, act_apart, act_later};
use crate::stage::{Child, Stage, temporary, transient};

/// What a record tells of a panic: where, in which message, for which request, and the text.
fn told(record: &SupervisionRecord) -> (&str, Option<&str>, Option<&str>, Option<&str>) {
    assert_eq!(record.kind, SupervisionKind::Panicked);
    assert_eq!(record.actor_kind, "probe");
    let location = record.location.as_deref().unwrap();
    assert!(location.contains("tests/supervision/"), "{location}");
    let (message, request) = (record.message.as_deref(), record.request_id.as_deref());
    (&record.path, message, request, record.error.as_deref())
}

/// Sends a message that panics, another one behind it, and checks that only the first one fails.
/// `behind` is what the second one is answered.
async fn fails_alone<M: MessageFor<Probe>>(crash: M, name: &str, behind: usize) {
    let mut stage = Stage::new();
    let child = stage.spawn(transient("one"));
    assert_eq!(child.count().await, 1);
    let crashed = in_request("req_1".into(), async { child.address.ask(crash).await.err() });
    let counted = async { child.address.ask(Count).await };
    let (crashed, counted) = tokio::join!(crashed, counted);
    assert_eq!((crashed, counted), (Some(AskError::Gone), Ok(behind)));
    // The address is as good as before, the state is new.
    assert_eq!(child.count().await, if behind == 1 { 2 } else { 1 });
    assert_eq!(child.starts(), 2);
    let record = stage.next(SupervisionKind::Panicked).await;
    assert_eq!(told(&record), ("node/probe/one", Some(name), Some("req_1"), Some("on purpose")));
    let restarted = stage.next(SupervisionKind::Restarted).await;
    assert_eq!(restarted.counts, [("restarts".to_owned(), 1)].into());
    let [actor] = &stage.supervision.actors(None, None)[..] else { panic!("not one actor") };
    assert_eq!((actor.restarts, actor.failed), (1, 1));
    assert_eq!(actor.last_error.as_deref(), Some("on purpose"));
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_panic_in_a_handler_fails_its_message_alone() {
    fails_alone(act(|_, _| panic!("on purpose")), "Act", 1).await;
}

#[actix_rt::test]
async fn a_panic_in_the_future_of_an_answer_fails_its_message_alone() {
    // What waits behind is handled before the future is polled.
    fails_alone(act_later(async { panic!("on purpose") }), "ActLater", 2).await;
}

#[actix_rt::test]
async fn a_panic_in_an_answer_that_does_not_look_at_its_actor_fails_its_message_alone() {
    fails_alone(act_apart(async { panic!("on purpose") }), "ActApart", 2).await;
}

#[actix_rt::test]
async fn an_answer_that_does_not_look_at_its_actor_ends_with_it() {
    for restarts in [false, true] {
        let stage = Stage::new();
        let child = stage.spawn(transient("one"));
        let (held, dropped) = oneshot::channel::<()>();
        let answer = child.address.ask(act_apart(async move {
            std::future::pending::<()>().await;
            drop(held);
        }));
        child.count().await;
        if restarts {
            stage.supervision.restart(child.path()).unwrap();
        } else {
            stage.supervision.stop(child.path()).unwrap();
        }
        assert_eq!(answer.await, Err(AskError::Gone));
        assert!(dropped.await.is_err());
        stage.end(child).await;
    }
}

/// Sends something that panics after its handler has ended, for a request of the whole actor.
async fn panics_outside_messages(crash: Act) {
    let mut stage = Stage::new();
    let child = stage.spawn(transient("one"));
    child.address.ask(act(|probe, _| probe.vitals.acts_for("req_2".into()))).await.unwrap();
    assert_eq!(child.address.ask(crash).await, Ok(()));
    let record = stage.next(SupervisionKind::Panicked).await;
    assert_eq!(told(&record), ("node/probe/one", None, Some("req_2"), Some("on purpose")));
    assert_eq!(child.count().await, 1);
    assert_eq!(child.starts(), 2);
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_panic_in_a_spawned_future_is_caught() {
    let crash = act(|probe, ctx| {
        ctx.spawn(async { panic!("on purpose") }.into_actor(probe));
    });
    panics_outside_messages(crash).await;
}

#[actix_rt::test]
async fn a_panic_in_a_timer_is_caught() {
    let crash = act(|_, ctx| {
        ctx.run_later(Duration::ZERO, |_, _| panic!("on purpose"));
    });
    panics_outside_messages(crash).await;
}

#[actix_rt::test]
async fn a_panic_in_what_came_by_another_way_than_the_mailbox_is_named() {
    let mut stage = Stage::new();
    let child = stage.spawn(transient("one"));
    let crash = act(|_, ctx| {
        ctx.run_later(Duration::ZERO, |probe, ctx| {
            let vitals = std::sync::Arc::clone(&probe.vitals);
            vitals.handle("Frame", probe, ctx, |_, _| panic!("on purpose"));
        });
    });
    child.address.tell(crash);
    let record = stage.next(SupervisionKind::Panicked).await;
    assert_eq!(told(&record), ("node/probe/one", Some("Frame"), None, Some("on purpose")));
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_panic_while_it_starts_is_caught_and_it_starts_again() {
    let mut stage = Stage::new();
    let child = stage.spawn(transient("one"));
    child.script.bad_starts.store(2, Ordering::SeqCst);
    assert_eq!(child.count().await, 1);
    assert_eq!(child.starts(), 3);
    for _ in 0..2 {
        let record = stage.next(SupervisionKind::Panicked).await;
        let text = Some("panicked while it started");
        assert_eq!(told(&record), ("node/probe/one", None, None, text));
    }
    stage.end(child).await;
}

#[actix_rt::test]
async fn panics_while_it_stops_and_while_it_is_dropped_are_told_and_end_nothing_else() {
    for (stopping, dropping) in [(true, false), (false, true), (true, true)] {
        for by_itself in [true, false] {
            let stage = Stage::new();
            let (mut child, neighbour) =
                (stage.spawn(temporary("one")), stage.spawn(temporary("two")));
            child.count().await;
            child.script.panics_when_stopped.store(stopping, Ordering::SeqCst);
            child.script.panics_when_dropped.store(dropping, Ordering::SeqCst);
            let expected = match (by_itself, stopping) {
                (true, true) => ExitReason::Panic("panicked while it stopped".to_owned()),
                (true, false) => ExitReason::Normal,
                (false, _) => ExitReason::Killed("an operator's order".to_owned()),
            };
            if by_itself {
                child.address.tell(act(|_, ctx| ctx.stop()));
            } else {
                stage.supervision.stop(child.path()).unwrap();
            }
            assert_eq!(child.ended().await, expected);
            let panics =
                vec![SupervisionKind::Panicked; usize::from(stopping) + usize::from(dropping)];
            let whole = [vec![SupervisionKind::Started], panics, vec![SupervisionKind::Stopped]];
            assert_eq!(stage.told(child.path()), whole.concat());
            assert_eq!(neighbour.count().await, 1);
            stage.end((child, neighbour)).await;
        }
    }
}

#[actix_rt::test]
async fn a_panic_while_the_old_state_is_dropped_is_one_more_failure() {
    let stage = Stage::new();
    let child = stage.spawn(transient("one"));
    child.count().await;
    child.script.panics_when_dropped.store(true, Ordering::SeqCst);
    child.address.tell(act(|_, _| panic!("on purpose")));
    assert_eq!(child.count().await, 1);
    assert_eq!(
        stage.told(child.path()),
        [
            SupervisionKind::Started,
            SupervisionKind::Panicked,
            SupervisionKind::Panicked,
            SupervisionKind::Restarted,
        ]
    );
    stage.end(child).await;
}

#[actix_rt::test]
async fn what_a_request_causes_in_other_actors_is_told_with_its_id() {
    let mut stage = Stage::new();
    let (first, second) = (stage.spawn(transient("one")), stage.spawn(transient("two")));
    let target = second.address.clone();
    let relay = act(move |_, _| target.tell(act(|_, _| panic!("on purpose"))));
    in_request("req_3".into(), async { first.address.ask(relay).await }).await.unwrap();
    let record = stage.next(SupervisionKind::Panicked).await;
    assert_eq!(told(&record), ("node/probe/two", Some("Act"), Some("req_3"), Some("on purpose")));
    stage.end((first, second)).await;
}

/// Finds fault with everything.
fn checked(text: String) -> Result<(), String> {
    Err(text)
}

#[actix_rt::test]
async fn what_users_wrote_is_in_no_record() {
    let stage = Stage::new();
    let child = stage.spawn(transient("one"));
    let secret = || "sk-123".to_owned();
    child.address.tell(act(move |_, _| panic!("the key is {}", secret())));
    child.address.tell(act(move |_, _| checked(secret()).unwrap()));
    child.address.tell(act(move |_, _| assert_eq!(secret(), "another key")));
    child.count().await;
    assert_eq!(child.starts(), 4);
    let records = stage.supervision.history(child.path());
    let texts: Vec<_> = records.iter().filter_map(|record| record.error.as_deref()).collect();
    assert_eq!(
        texts[..6],
        [
            "the text was made at run time and is withheld",
            "the text was made at run time and is withheld",
            "called `Result::unwrap()` on an `Err` value: …",
            "called `Result::unwrap()` on an `Err` value: …",
            "assertion `left == right` failed",
            "assertion `left == right` failed",
        ]
    );
    let whole = serde_json::to_string(&records).unwrap();
    assert!(!whole.contains("sk-123") && !whole.contains("another key"), "{whole}");
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_panic_leaves_the_neighbours_alone() {
    let stage = Stage::new();
    let (crashing, neighbour) = (stage.spawn(transient("one")), stage.spawn(transient("two")));
    let answer = neighbour.address.ask(act_later(tokio::task::yield_now()));
    assert_eq!(neighbour.count().await, 1);
    assert_eq!(crashing.address.ask(act(|_, _| panic!("on purpose"))).await, Err(AskError::Gone));
    assert_eq!(answer.await, Ok(()));
    assert_eq!((neighbour.count().await, neighbour.starts()), (2, 1));
    stage.end::<(Child, Child)>((crashing, neighbour)).await;
}
