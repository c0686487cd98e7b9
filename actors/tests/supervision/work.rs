//! What takes time is seen while it goes on, and reported when it takes too long.

use std::sync::mpsc::channel;
use std::time::Duration;

use iris_actors::supervision::{
    AskError, ChildSpec, ExitReason, OnStuck, Watchdog, WatchdogSettings, in_request,
};
use iris_protocol::{CurrentWork, SupervisionKind, SupervisionRecord};

use crate::probe::{Count, act, act_later};
use crate::stage::{Stage, temporary};

const SETTINGS: WatchdogSettings = WatchdogSettings {
    tick: Duration::from_millis(5),
    thread_budget: Duration::from_mins(1),
    abort_after: None,
};

/// What an actor in these tests may take for a message.
const BUDGET: Duration = Duration::from_millis(50);

/// How long something may take that takes no time.
const PATIENCE: Duration = Duration::from_secs(5);

/// A budget that no test uses up.
const AMPLE: Duration = Duration::from_mins(1);

fn current(stage: &Stage) -> Vec<CurrentWork> {
    stage.supervision.actors(None, None).remove(0).current
}

fn names(stage: &Stage) -> Vec<(String, bool)> {
    current(stage).into_iter().map(|work| (work.name, work.stuck)).collect()
}

fn is_stuck_in(name: &str) -> impl Fn(&SupervisionRecord) -> bool {
    move |record| record.kind == SupervisionKind::Stuck && record.message.as_deref() == Some(name)
}

#[actix_rt::test]
async fn work_in_progress_is_seen_with_its_age_the_oldest_first() {
    tokio::time::pause();
    let stage = Stage::new();
    let child =
        stage.spawn(ChildSpec { message_budget: Duration::from_secs(10), ..temporary("one") });
    let answer = child.address.ask(act_later(std::future::pending()));
    child.count().await;
    tokio::time::advance(Duration::from_secs(8)).await;
    let step = child.address.vitals().begin("Step", AMPLE);
    tokio::time::advance(Duration::from_secs(3)).await;
    let seen = |name: &str, age_ms, stuck| CurrentWork { name: name.to_owned(), age_ms, stuck };
    assert_eq!(current(&stage), [seen("ActLater", 11_000, true), seen("Step", 3_000, false)]);
    step.progress();
    assert_eq!(current(&stage), [seen("ActLater", 11_000, true), seen("Step", 0, false)]);
    drop((step, answer));
    // Nobody waits for the answer, but the actor still works on it.
    assert_eq!(names(&stage), [("ActLater".to_owned(), true)]);
    stage.end(child).await;
}

#[actix_rt::test]
async fn work_over_its_budget_is_told_once() {
    let mut stage = Stage::new();
    let child = stage.spawn(ChildSpec { message_budget: BUDGET, ..temporary("one") });
    let watchdog = Watchdog::start(&stage.supervision, SETTINGS).unwrap();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let slow = act_later(async { drop(released.await) });
    let address = child.address.clone();
    let asked = in_request("req_1".into(), async move { address.ask(slow).await });
    let mut answer = Box::pin(asked);
    let record = tokio::select! {
        record = stage.next(SupervisionKind::Stuck) => record,
        _ = &mut answer => panic!("nothing was slow"),
    };
    assert_eq!((&record.path[..], record.message.as_deref()), (child.path(), Some("ActLater")));
    assert_eq!(record.request_id.as_deref(), Some("req_1"));
    assert_eq!(record.counts["budgetMs"], 50);
    assert!(record.counts["ageMs"] >= 50);
    assert_eq!(names(&stage), [("ActLater".to_owned(), true)]);
    // A later look, which tells of something else, tells nothing of the first again.
    let step = child.address.vitals().begin("Step", BUDGET);
    stage.next_where("the step", is_stuck_in("Step")).await;
    let stuck = [SupervisionKind::Started, SupervisionKind::Stuck, SupervisionKind::Stuck];
    assert_eq!(stage.told(child.path()), stuck);
    drop((release, step));
    assert_eq!(answer.await, Ok(()));
    assert_eq!(current(&stage), []);
    drop(watchdog);
    stage.end(child).await;
}

#[actix_rt::test]
async fn while_stuck_work_is_told_of_others_begin_work() {
    let mut stage = Stage::new();
    let child = stage.spawn(temporary("one"));
    let (vitals, (done, is_done)) = (child.address.vitals().clone(), channel());
    stage.supervision.log().subscribe(move |_| {
        let (begun, has_begun) = channel();
        let vitals = vitals.clone();
        std::thread::spawn(move || begun.send(vitals.begin("Other", AMPLE)));
        done.send(has_begun.recv_timeout(PATIENCE).map(drop)).unwrap();
        false
    });
    let step = child.address.vitals().begin("Step", BUDGET);
    let watchdog = Watchdog::start(&stage.supervision, SETTINGS).unwrap();
    stage.next_where("the step", is_stuck_in("Step")).await;
    assert_eq!(is_done.recv().unwrap(), Ok(()));
    drop((watchdog, step));
    stage.end(child).await;
}

#[actix_rt::test]
async fn work_that_got_on_has_its_whole_budget_again() {
    let mut stage = Stage::new();
    let child = stage.spawn(temporary("one"));
    let watchdog = Watchdog::start(&stage.supervision, SETTINGS).unwrap();
    let step = child.address.vitals().begin("Step", BUDGET);
    for _ in 0..2 {
        let record = stage.next(SupervisionKind::Stuck).await;
        assert!(record.counts["ageMs"] >= 50);
        step.progress();
    }
    drop((watchdog, step));
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_stuck_actor_is_killed_where_its_spec_says_so() {
    let mut stage = Stage::new();
    let spec = ChildSpec { message_budget: BUDGET, on_stuck: OnStuck::Kill, ..temporary("one") };
    let mut child = stage.spawn(spec);
    let mut below = stage.spawn_under(child.address.vitals(), temporary("child"));
    let watchdog = Watchdog::start(&stage.supervision, SETTINGS).unwrap();
    let answer = child.address.ask(act_later(std::future::pending()));
    assert_eq!(child.ended().await, ExitReason::Killed("stuck in `ActLater`".to_owned()));
    assert_eq!(below.ended().await, ExitReason::Parent);
    assert_eq!(answer.await, Err(AskError::Gone));
    stage.next_where("the message", is_stuck_in("ActLater")).await;
    let record = stage.next_where("its end", |record| record.path == "node/probe/one").await;
    assert_eq!(record.error.as_deref(), Some("stuck in `ActLater`"));
    drop(watchdog);
    stage.end((child, below)).await;
}

#[actix_rt::test]
async fn an_actor_that_takes_no_messages_is_told_once() {
    let mut stage = Stage::new();
    let child = stage.spawn(ChildSpec { message_budget: BUDGET, ..temporary("one") });
    let watchdog = Watchdog::start(&stage.supervision, SETTINGS).unwrap();
    let freeze = act(|_, ctx| {
        actix::AsyncContext::wait(ctx, actix::fut::wrap_future(std::future::pending()));
    });
    child.address.ask(freeze).await.unwrap();
    child.address.tell(Count);
    let record = stage.next(SupervisionKind::Stuck).await;
    assert_eq!(record.error.as_deref(), Some("it takes no messages"));
    assert_eq!((&record.path[..], record.counts["depth"]), (child.path(), 1));
    let step = child.address.vitals().begin("Step", BUDGET);
    stage.next_where("the step", is_stuck_in("Step")).await;
    let stuck = [SupervisionKind::Started, SupervisionKind::Stuck, SupervisionKind::Stuck];
    assert_eq!(stage.told(child.path()), stuck);
    drop((watchdog, step));
    stage.end(child).await;
}

#[actix_rt::test]
async fn work_ends_with_the_actor_that_panicked_over_it() {
    let stage = Stage::new();
    let child = stage.spawn(ChildSpec { message_budget: AMPLE, ..crate::stage::transient("one") });
    let (sender, receiver) = channel();
    child
        .address
        .tell(act(move |probe, _| sender.send(probe.vitals.begin("Step", AMPLE)).unwrap()));
    let slow = child.address.ask(act_later(std::future::pending()));
    child.count().await;
    assert_eq!(current(&stage).len(), 2);
    child.address.tell(act(move |_, _| {
        let _step = receiver.recv();
        panic!("on purpose");
    }));
    assert_eq!(slow.await, Err(AskError::Gone));
    assert_eq!(current(&stage), []);
    stage.end(child).await;
}
