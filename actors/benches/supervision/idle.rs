//! The smallest actor there can be: started, asked and ended as plain actix does it and under
//! supervision, so that one can be measured beside the other.

#![expect(clippy::expect_used, reason = "what fails is not measured")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use iris_actors::SystemClock;
use iris_actors::supervision::{
    Address, ChildSpec, Intensity, RestartPolicy, Supervise, Supervision, Vitals, spawn,
};
use tokio::sync::oneshot;

/// Restarts that one measurement may need.
const RESTARTS_MAX: usize = 10_000_000;

/// An actor that does nothing, without state.
pub(crate) struct Idle;

impl Actor for Idle {
    type Context = Context<Self>;
}

iris_actors::supervised!(Idle);

impl Supervise for Idle {
    fn rebuild(&mut self, _: &mut Context<Self>) -> Result<Self, String> {
        Ok(Self)
    }
}

/// Ask: the number after this one.
#[derive(Message)]
#[rtype(result = "u64")]
struct Next(u64);

impl Handler<Next> for Idle {
    type Result = u64;

    fn handle(&mut self, Next(number): Next, _: &mut Context<Self>) -> u64 {
        number + 1
    }
}

/// The top of a tree of its own.
pub(crate) fn node() -> Arc<Vitals> {
    Supervision::new(Arc::new(SystemClock)).node()
}

/// One plain actor on the current arbiter.
#[expect(clippy::disallowed_methods, reason = "supervision is compared with it")]
pub(crate) fn start_plain() -> Addr<Idle> {
    Idle.start()
}

/// One supervised actor on the current arbiter.
pub(crate) fn start_supervised(parent: &Arc<Vitals>, id: String) -> Address<Idle> {
    let restarts = Intensity { restarts_max: RESTARTS_MAX, window: Duration::from_mins(1) };
    let policy = RestartPolicy::Transient(restarts);
    let spec = ChildSpec { policy, ..ChildSpec::new("idle", id) };
    spawn(parent, spec, |_, _| Idle, |_| {})
}

/// What `start` gives on an arbiter of its own.
pub(crate) async fn elsewhere<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    let (started, address) = oneshot::channel();
    Arbiter::new().spawn_fn(move || drop(started.send(start())));
    address.await.expect("a new arbiter")
}

/// Plain actors, and how long it took until the last of them ran.
pub(crate) async fn spawn_plain(count: u64) -> (Vec<Addr<Idle>>, Duration) {
    let began = Instant::now();
    let actors: Vec<_> = (0..count).map(|_| start_plain()).collect();
    // Tasks of an arbiter begin in the order in which they were spawned.
    if let Some(last) = actors.last() {
        ask_plain(last, 1).await;
    }
    (actors, began.elapsed())
}

/// Supervised actors, and how long it took until the last of them ran.
pub(crate) async fn spawn_supervised(
    parent: &Arc<Vitals>,
    count: u64,
) -> (Vec<Address<Idle>>, Duration) {
    let ids: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    let began = Instant::now();
    let actors: Vec<_> = ids.into_iter().map(|id| start_supervised(parent, id)).collect();
    if let Some(last) = actors.last() {
        ask_supervised(last, 1).await;
    }
    (actors, began.elapsed())
}

/// How long it takes to ask a plain actor so often, one question after the other.
pub(crate) async fn ask_plain(actor: &Addr<Idle>, count: u64) -> Duration {
    let began = Instant::now();
    let mut number = 0;
    while number < count {
        number = actor.send::<Next>(Next(number)).await.expect("an answer");
    }
    began.elapsed()
}

/// How long it takes to ask a supervised actor so often, one question after the other.
pub(crate) async fn ask_supervised(actor: &Address<Idle>, count: u64) -> Duration {
    let began = Instant::now();
    let mut number = 0;
    while number < count {
        number = actor.ask(Next(number)).await.expect("an answer");
    }
    began.elapsed()
}

/// How long it takes until an actor that an operator restarts answers.
pub(crate) async fn restart(actor: &Address<Idle>) -> Duration {
    let began = Instant::now();
    let vitals = actor.vitals();
    vitals.supervision().restart(vitals.path().as_str()).expect("an actor that starts again");
    ask_supervised(actor, 1).await;
    began.elapsed()
}

/// Lets those end that nobody needs any more.
pub(crate) async fn settle() {
    // It begins after those that were woken before.
    spawn_plain(1).await;
}
