use std::sync::mpsc::channel;

use actix::{Actor, Context};
use actix_rt::Arbiter;
use iris_protocol::SupervisionKind;

use super::*;
use crate::SystemClock;
use crate::supervision::{ChildSpec, RecordFilter, Supervise, spawn};

struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

crate::supervised!(Idle);

impl Supervise for Idle {}

/// Starts an actor on a thread; it ends because nobody keeps its address.
fn spawn_on(thread: &Arbiter, supervision: &Supervision) {
    let (ended, end) = channel();
    let node = supervision.node();
    thread.spawn_fn(move || {
        let spec = ChildSpec::new("idle", "");
        spawn(&node, spec, |_, _| Idle, move |_| ended.send(()).unwrap());
    });
    end.recv().unwrap();
}

fn settings(thread_budget: Duration) -> WatchdogSettings {
    WatchdogSettings { thread_budget, ..WatchdogSettings::default() }
}

fn kinds(supervision: &Supervision, filter: &RecordFilter) -> Vec<SupervisionKind> {
    supervision.log().records(filter).into_iter().map(|record| record.kind).collect()
}

#[actix_rt::test]
async fn a_thread_that_ended_is_forgotten() {
    let supervision = Supervision::new(Arc::new(SystemClock));
    let (stays, goes) = (Arbiter::new(), Arbiter::new());
    spawn_on(&stays, &supervision);
    spawn_on(&goes, &supervision);
    let mut rounds = Rounds::new(&supervision, settings(Duration::from_mins(1)));
    assert_eq!(supervision.threads().len(), 2);
    goes.stop();
    goes.join().unwrap();
    rounds.look();
    assert_eq!(supervision.threads().len(), 1);
    assert_eq!(rounds.pinged.len(), 1);
    stays.stop();
    stays.join().unwrap();
}

#[actix_rt::test]
async fn a_thread_that_ended_while_it_was_blocked_blocks_nothing_any_more() {
    let supervision = Supervision::new(Arc::new(SystemClock));
    let thread = Arbiter::new();
    spawn_on(&thread, &supervision);
    let (release, released) = channel::<()>();
    let (blocks, blocked) = channel();
    thread.spawn_fn(move || {
        blocks.send(()).unwrap();
        released.recv().unwrap_err();
    });
    blocked.recv().unwrap();
    thread.stop();
    let mut rounds = Rounds::new(&supervision, settings(Duration::ZERO));
    for _ in 0..3 {
        rounds.look();
    }
    assert!(supervision.is_blocked());
    drop(release);
    thread.join().unwrap();
    rounds.look();
    assert!(!supervision.is_blocked());
    assert_eq!(supervision.threads(), []);
    let about = |kind| RecordFilter { kind: Some(kind), ..RecordFilter::default() };
    for kind in [SupervisionKind::Blocked, SupervisionKind::Unblocked] {
        assert_eq!(kinds(&supervision, &about(kind)), [kind], "said once");
    }
}
