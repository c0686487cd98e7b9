//! When an actor starts again, how often, and what its parent is told when it does not.

use std::time::Duration;

use actix::prelude::*;
use iris_actors::supervision::{AskError, ChildSpec, ExitReason, Intensity, RestartPolicy};
use iris_protocol::{ExitKind, SupervisionKind};

use crate::probe::{Act, Count, act};
use crate::stage::{Child, Stage, permanent, temporary, transient};

/// Two restarts a minute.
const TWICE: Intensity = Intensity { restarts_max: 2, window: Duration::from_mins(1) };

fn crash() -> Act {
    act(|_, _| panic!("on purpose"))
}

/// What an actor sends itself to stop.
fn stop() -> Act {
    act(|_, ctx| ctx.stop())
}

/// What an actor sends itself when it cannot go on.
fn fail() -> Act {
    act(|probe, ctx| {
        probe.vitals.fail("the disk is full");
        ctx.stop();
    })
}

#[actix_rt::test]
async fn a_permanent_actor_starts_again_however_it_ended() {
    let mut stage = Stage::new();
    let child = stage.spawn(permanent("one"));
    for (end, reason) in
        [(crash(), ExitKind::Panic), (stop(), ExitKind::Normal), (fail(), ExitKind::Error)]
    {
        assert_eq!(child.count().await, 1);
        child.address.tell(end);
        assert_eq!(stage.next(SupervisionKind::Restarted).await.reason, Some(reason));
    }
    assert_eq!((child.count().await, child.starts()), (1, 4));
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_transient_actor_starts_again_after_failures_alone() {
    let mut stage = Stage::new();
    let mut child = stage.spawn(transient("one"));
    for (end, reason) in [(crash(), ExitKind::Panic), (fail(), ExitKind::Error)] {
        assert_eq!(child.count().await, 1);
        child.address.tell(end);
        assert_eq!(stage.next(SupervisionKind::Restarted).await.reason, Some(reason));
    }
    assert_eq!(child.count().await, 1);
    child.address.tell(stop());
    assert_eq!(child.ended().await, ExitReason::Normal);
    assert_eq!(child.starts(), 3);
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_temporary_actor_ends_at_its_first_failure() {
    for (end, reason) in [
        (crash(), ExitReason::Panic("on purpose".to_owned())),
        (fail(), ExitReason::Error("the disk is full".to_owned())),
        (stop(), ExitReason::Normal),
    ] {
        let mut stage = Stage::new();
        let mut child = stage.spawn(temporary("one"));
        child.address.tell(end);
        assert_eq!(child.ended().await, reason);
        let record = stage.next(SupervisionKind::Stopped).await;
        assert_eq!(record.error.as_deref(), reason.error());
        assert_eq!(child.starts(), 1);
        stage.end(child).await;
    }
}

#[actix_rt::test]
async fn an_actor_that_fails_too_often_gives_up_and_its_parent_is_told() {
    let mut stage = Stage::new();
    let mut child =
        stage.spawn(ChildSpec { policy: RestartPolicy::Permanent(TWICE), ..temporary("one") });
    for _ in 0..3 {
        child.address.tell(crash());
    }
    let waiting = child.address.ask(Count);
    assert_eq!(child.ended().await, ExitReason::RestartIntensity("on purpose".to_owned()));
    assert_eq!(child.starts(), 1 + TWICE.restarts_max);
    let record = stage.next(SupervisionKind::GaveUp).await;
    assert_eq!(record.reason, Some(ExitKind::RestartIntensity));
    assert_eq!(record.error.as_deref(), Some("on purpose"));
    assert_eq!(waiting.await, Err(AskError::Gone));
    assert_eq!(child.address.ask(Count).await, Err(AskError::Gone));
    assert!(!child.address.connected());
    stage.end(child).await;
}

#[actix_rt::test]
async fn an_actor_that_cannot_start_does_not_try_for_ever() {
    let stage = Stage::new();
    let mut child =
        stage.spawn(ChildSpec { policy: RestartPolicy::Transient(TWICE), ..temporary("one") });
    child.script.bad_starts.store(usize::MAX, std::sync::atomic::Ordering::SeqCst);
    let reason = ExitReason::RestartIntensity("panicked while it started".to_owned());
    assert_eq!(child.ended().await, reason);
    assert_eq!(child.starts(), 1 + TWICE.restarts_max);
    stage.end(child).await;
}

#[actix_rt::test]
async fn restarts_that_are_older_than_the_window_do_not_count() {
    tokio::time::pause();
    let mut stage = Stage::new();
    let child =
        stage.spawn(ChildSpec { policy: RestartPolicy::Transient(TWICE), ..temporary("one") });
    for _ in 0..3 {
        for _ in 0..TWICE.restarts_max {
            child.address.tell(crash());
            stage.next(SupervisionKind::Restarted).await;
        }
        tokio::time::advance(TWICE.window).await;
    }
    assert_eq!((child.count().await, child.starts()), (1, 1 + 3 * TWICE.restarts_max));
    stage.end(child).await;
}

#[actix_rt::test]
async fn an_actor_whose_state_cannot_be_rebuilt_ends_and_says_why() {
    let stage = Stage::new();
    let mut child = stage.spawn(transient("one"));
    child.count().await;
    *child.script.refusal.lock() = Some("the database is closed".to_owned());
    child.address.tell(crash());
    assert_eq!(child.ended().await, ExitReason::Error("the database is closed".to_owned()));
    assert_eq!(child.starts(), 1, "it began with the state of before the panic");
    let kinds = [SupervisionKind::Started, SupervisionKind::Panicked, SupervisionKind::Stopped];
    assert_eq!(stage.told(child.path()), kinds);
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_permanent_actor_whose_state_cannot_be_rebuilt_tries_again() {
    let mut stage = Stage::new();
    let child = stage.spawn(permanent("one"));
    child.count().await;
    *child.script.refusal.lock() = Some("the disk is full".to_owned());
    child.address.tell(crash());
    let record = stage.next(SupervisionKind::Restarted).await;
    assert_eq!(record.reason, Some(ExitKind::Error));
    assert_eq!(record.error.as_deref(), Some("the disk is full"));
    assert_eq!((child.count().await, child.starts()), (1, 2));
    stage.end(child).await;
}

#[actix_rt::test]
async fn what_an_actor_said_before_it_panicked_is_no_refusal_to_start_again() {
    let stage = Stage::new();
    let child = stage.spawn(transient("one"));
    child.address.tell(act(|probe, _| {
        probe.vitals.fail("the disk is full");
        panic!("on purpose");
    }));
    assert_eq!((child.count().await, child.starts()), (1, 2));
    stage.end(child).await;
}

#[actix_rt::test]
async fn an_actor_that_nobody_can_reach_any_more_does_not_start_again() {
    let mut stage = Stage::new();
    let Child { address, exit, script } = stage.spawn(permanent("one"));
    address.tell(crash());
    stage.next(SupervisionKind::Panicked).await;
    drop(address);
    assert_eq!(exit.await.unwrap().reason, ExitReason::Normal);
    assert_eq!(script.starts.load(std::sync::atomic::Ordering::SeqCst), 1);
    stage.end(()).await;
}
