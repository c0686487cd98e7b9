//! What supervision costs beside plain actix: each pair of lines is the same done both ways.
//!
//! ```text
//! cargo bench -p iris-actors --bench supervision
//! ```
//!
//! Tells how a change moved a figure; `benches/figures` is what holds the figures to their targets.

#![expect(clippy::expect_used, reason = "what fails is not measured")]

mod idle;

use std::time::{Duration, Instant};

use actix::{Context, Handler, Message, System};
use criterion::{Criterion, criterion_group, criterion_main};
use iris_actors::supervision::{Address, detached, install_panic_hook};

use idle::{
    Idle, ask_plain, ask_supervised, elsewhere, node, restart, settle, spawn_plain,
    spawn_supervised, start_plain, start_supervised,
};

/// Actors that are started together.
const BATCH: u64 = 1_000;

criterion_group!(benches, spawning, asking, restarting);
criterion_main!(benches);

/// An actor is started and runs.
fn spawning(criterion: &mut Criterion) {
    let system = System::new();
    let mut group = criterion.benchmark_group("spawn");
    group.bench_function("plain", |bencher| {
        bencher.iter_custom(|count| {
            system.block_on(in_batches(count, async |count| spawn_plain(count).await.1))
        });
    });
    group.bench_function("supervised", |bencher| {
        bencher.iter_custom(|count| {
            system.block_on(async {
                let node = node();
                in_batches(count, async |count| spawn_supervised(&node, count).await.1).await
            })
        });
    });
    group.finish();
}

/// The time of all batches.
async fn in_batches(count: u64, batch: impl AsyncFn(u64) -> Duration) -> Duration {
    let mut took = Duration::ZERO;
    for first in (0..count).step_by(usize::try_from(BATCH).unwrap_or(usize::MAX)) {
        took += batch(BATCH.min(count - first)).await;
        settle().await;
    }
    took
}

/// An actor is asked by a task and answers.
fn asking(criterion: &mut Criterion) {
    let system = System::new();
    let node = node();
    let (plain, supervised) =
        system.block_on(async { (start_plain(), start_supervised(&node, "near".to_owned())) });
    let far_plain = system.block_on(elsewhere(start_plain));
    let far_supervised =
        system.block_on(elsewhere(move || start_supervised(&node, "far".to_owned())));

    let mut group = criterion.benchmark_group("ask");
    for (name, actor) in [("same arbiter, plain", plain), ("other arbiter, plain", far_plain)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let actor = actor.clone();
                system.block_on(in_task(async move { ask_plain(&actor, count).await }))
            });
        });
    }
    for (name, actor) in
        [("same arbiter, supervised", supervised), ("other arbiter, supervised", far_supervised)]
    {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let actor = actor.clone();
                system.block_on(in_task(async move { ask_supervised(&actor, count).await }))
            });
        });
    }
    group.finish();
}

/// What the system itself awaits is polled another way than what runs on it.
async fn in_task(measuring: impl Future<Output = Duration> + 'static) -> Duration {
    detached(measuring).await.expect("a measurement")
}

/// An actor starts again and answers.
fn restarting(criterion: &mut Criterion) {
    install_panic_hook();
    let system = System::new();
    let mut group = criterion.benchmark_group("restart");
    group.bench_function("by an operator", |bencher| {
        bencher
            .iter_custom(|count| system.block_on(often(count, async |actor| restart(actor).await)));
    });
    group.bench_function("after a panic, without the pause", |bencher| {
        bencher.iter_custom(|count| {
            system.block_on(async {
                // From here on the pause before a restart is over as soon as nothing else happens.
                tokio::time::pause();
                let took = often(count, async |actor| crash(actor).await).await;
                tokio::time::resume();
                took
            })
        });
    });
    group.finish();
}

/// The time of so many restarts of one actor.
async fn often(count: u64, measure: impl AsyncFn(&Address<Idle>) -> Duration) -> Duration {
    let actor = start_supervised(&node(), "again".to_owned());
    let mut took = Duration::ZERO;
    for _ in 0..count {
        took += measure(&actor).await;
    }
    took
}

/// Tell: panics.
#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

impl Handler<Crash> for Idle {
    type Result = ();

    #[expect(clippy::panic, reason = "that is what it is for")]
    fn handle(&mut self, _: Crash, _: &mut Context<Self>) {
        panic!("a measurement wanted this panic");
    }
}

/// How long it takes until an actor that panicked answers, its pause included.
async fn crash(actor: &Address<Idle>) -> Duration {
    let began = Instant::now();
    actor.tell(Crash);
    ask_supervised(actor, 1).await;
    began.elapsed()
}
