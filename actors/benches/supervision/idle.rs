//! The smallest actor there can be: started, asked and ended as plain actix does it and under
//! supervision, so that one can be measured beside the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use actix_rt::ArbiterHandle;
use iris_actors::SystemClock;
use iris_actors::supervision::{
    Address, ChildSpec, Intensity, RestartPolicy, Supervise, Supervision, Vitals, spawn,
};
use tokio::sync::oneshot;

/// Restarts of one actor that a measurement may need.
const RESTARTS_MAX: usize = 1_000_000;

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
#[expect(clippy::disallowed_methods, reason = "plain actix is what supervision is compared with")]
pub(crate) fn start_plain() -> Addr<Idle> {
    Idle.start()
}

/// One supervised actor on the current arbiter.
pub(crate) fn start_supervised(parent: &Arc<Vitals>, id: String) -> Address<Idle> {
    let restarts = Intensity { restarts_max: RESTARTS_MAX, window: Duration::from_mins(1) };
    let policy = RestartPolicy::Permanent(restarts);
    let spec = ChildSpec { policy, ..ChildSpec::new("idle", id) };
    spawn(parent, spec, |_, _| Idle, |_| {})
}

/// Runs `start` on another arbiter.
pub(crate) async fn on<T: Send + 'static>(
    arbiter: &ArbiterHandle,
    start: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (started, address) = oneshot::channel();
    arbiter.spawn_fn(move || drop(started.send(start())));
    address.await.ok()
}

/// Plain actors, and how long it took until all of them ran.
pub(crate) async fn spawn_plain(count: u64) -> (Vec<Addr<Idle>>, Duration) {
    let began = Instant::now();
    let actors: Vec<_> = (0..count).map(|_| start_plain()).collect();
    // An arbiter polls its tasks in the order in which they were spawned.
    if let Some(last) = actors.last() {
        ask_plain(last, 1).await;
    }
    (actors, began.elapsed())
}

/// Supervised actors, and how long it took until all of them ran.
pub(crate) async fn spawn_supervised(
    parent: &Arc<Vitals>,
    count: u64,
) -> (Vec<Address<Idle>>, Duration) {
    let ids: Vec<String> = (0..count).map(|number| format!("{number:020}")).collect();
    let began = Instant::now();
    let actors: Vec<_> = ids.into_iter().map(|id| start_supervised(parent, id)).collect();
    if let Some(last) = actors.last() {
        ask_supervised(last, 1).await;
    }
    (actors, began.elapsed())
}

/// How long it takes to ask a plain actor `count` times, one question after the other.
pub(crate) async fn ask_plain(actor: &Addr<Idle>, count: u64) -> Duration {
    let began = Instant::now();
    let mut number = 0;
    while number < count {
        number = actor.send::<Next>(Next(number)).await.unwrap_or(count);
    }
    began.elapsed()
}

/// How long it takes to ask a supervised actor `count` times, one question after the other.
pub(crate) async fn ask_supervised(actor: &Address<Idle>, count: u64) -> Duration {
    let began = Instant::now();
    let mut number = 0;
    while number < count {
        number = actor.ask(Next(number)).await.unwrap_or(count);
    }
    began.elapsed()
}

/// Waits until actors that nobody needs any more have ended on the current arbiter.
pub(crate) async fn settle() {
    for _ in 0..3 {
        spawn_plain(1).await;
    }
}
