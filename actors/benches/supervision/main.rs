//! What supervision costs beside plain actix.
//!
//! ```text
//! cargo bench -p iris-actors --bench supervision
//! ```

mod idle;

use actix_rt::{Arbiter, System};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use idle::{
    ask_plain, ask_supervised, node, on, settle, spawn_plain, spawn_supervised, start_plain,
    start_supervised,
};
use std::time::Duration;

/// Actors that are started together.
const BATCH: u64 = 1_000;

fn spawning(criterion: &mut Criterion) {
    let system = System::new();
    let mut group = criterion.benchmark_group("spawn");
    group.throughput(Throughput::Elements(1));
    group.bench_function("plain", |bencher| {
        bencher.iter_custom(|count| {
            system.block_on(async {
                let mut took = Duration::ZERO;
                let mut left = count;
                while left > 0 {
                    let now = left.min(BATCH);
                    let (actors, this) = spawn_plain(now).await;
                    took += this;
                    left -= now;
                    drop(actors);
                    settle().await;
                }
                took
            })
        });
    });
    group.bench_function("supervised", |bencher| {
        bencher.iter_custom(|count| {
            system.block_on(async {
                let node = node();
                let mut took = Duration::ZERO;
                let mut left = count;
                while left > 0 {
                    let now = left.min(BATCH);
                    let (actors, this) = spawn_supervised(&node, now).await;
                    took += this;
                    left -= now;
                    drop(actors);
                    settle().await;
                }
                took
            })
        });
    });
    group.finish();
}

fn asking(criterion: &mut Criterion) {
    let system = System::new();
    let arbiter = system.block_on(async { Arbiter::new().handle() });
    let node = node();
    let (plain, supervised) =
        system.block_on(async { (start_plain(), start_supervised(&node, "near".to_owned())) });
    let mut group = criterion.benchmark_group("ask");
    group.bench_function("same arbiter/plain", |b| {
        b.iter_custom(|n| system.block_on(ask_plain(&plain, n)))
    });
    group.bench_function("same arbiter/supervised", |b| {
        b.iter_custom(|n| system.block_on(ask_supervised(&supervised, n)))
    });
    group.bench_function("task/plain", |b| {
        b.iter_custom(|n| {
            let a = plain.clone();
            system.block_on(async move {
                actix_rt::spawn(async move { ask_plain(&a, n).await }).await.unwrap()
            })
        })
    });
    group.bench_function("task/supervised", |b| {
        b.iter_custom(|n| {
            let a = supervised.clone();
            system.block_on(async move {
                actix_rt::spawn(async move { ask_supervised(&a, n).await }).await.unwrap()
            })
        })
    });
    let far = system.block_on(on(&arbiter, start_plain)).unwrap();
    let far_s =
        system.block_on(on(&arbiter, move || start_supervised(&node, "far".to_owned()))).unwrap();
    group
        .bench_function("across/plain", |b| b.iter_custom(|n| system.block_on(ask_plain(&far, n))));
    group.bench_function("across/supervised", |b| {
        b.iter_custom(|n| system.block_on(ask_supervised(&far_s, n)))
    });
    group.finish();
}

criterion_group!(benches, spawning, asking);
criterion_main!(benches);
