//! What supervision costs beside plain actix: the smallest actor there can be, both ways, in this
//! process.

use std::time::Duration;

use actix::{Addr, System};
use iris_actors::supervision::{Address, detached};

use crate::idle::{
    Idle, ask_plain, ask_supervised, elsewhere, node, restart, settle, spawn_plain,
    spawn_supervised, start_plain, start_supervised,
};
use crate::server::memory_mb;
use crate::table::{Figure, median, ms};

const IDLE_ACTOR_BYTES_MAX: f64 = 1500.0;
const SPAWN_US_MAX: f64 = 3.0;
/// How much longer than with plain actix.
const ASK_LONGER_PERCENT_MAX: f64 = 30.0;
const RESTART_US_MAX: f64 = 1000.0;

/// Actors of one measurement of memory.
const CROWD: u32 = 10_000;
const CROWDS: usize = 3;
/// Actors that are started together.
const BATCH: u32 = 1_000;
/// Questions of one measurement.
const QUESTIONS: u32 = 2_000;
/// Measurements are short and many: in most of them nothing else takes the processor.
const ROUNDS: usize = 101;

/// Measures memory, start, question and restart.
pub(crate) fn figures() -> anyhow::Result<Vec<Figure>> {
    let mut figures = vec![System::new().block_on(memory())?];
    // Without the crowds.
    System::new().block_on(async {
        figures.push(spawning().await);
        let name = "ask an actor on this arbiter, longer by";
        let node = node();
        let near = (start_plain(), start_supervised(&node, "near".to_owned()));
        figures.push(asking(name, near).await?);
        let name = "ask an actor on another arbiter, longer by";
        let far = elsewhere(move || (start_plain(), start_supervised(&node, "far".to_owned())));
        figures.push(asking(name, far.await).await?);
        figures.push(restarting().await);
        anyhow::Ok(())
    })?;
    Ok(figures)
}

/// All actors live until the end, so that none gets what another one has freed.
async fn memory() -> anyhow::Result<Figure> {
    // What is made once, for the first of each.
    let mut plain_ones = vec![spawn_plain(1).await];
    let mut supervised_ones = vec![spawn_supervised(&node(), 1).await];
    let (mut samples, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..CROWDS {
        let before = memory_mb("self", "VmRSS")?;
        plain_ones.push(spawn_plain(CROWD.into()).await);
        let between = memory_mb("self", "VmRSS")?;
        supervised_ones.push(spawn_supervised(&node(), CROWD.into()).await);
        let after = memory_mb("self", "VmRSS")?;
        plain.push((between - before) * 1e6 / f64::from(CROWD));
        samples.push((after - between) * 1e6 / f64::from(CROWD));
    }
    Ok(Figure {
        name: "idle supervised actor, resident memory",
        target: Some(IDLE_ACTOR_BYTES_MAX),
        unit: "B",
        samples,
        comparison: format!("plain {:.0} B; {CROWD} actors each time", median(&plain)),
    })
}

async fn spawning() -> Figure {
    let each = |took: Duration| ms(took) * 1e3 / f64::from(BATCH);
    let (mut samples, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        plain.push(each(spawn_plain(BATCH.into()).await.1));
        settle().await;
        samples.push(each(spawn_supervised(&node(), BATCH.into()).await.1));
        settle().await;
    }
    Figure {
        name: "spawn a supervised actor until it runs",
        target: Some(SPAWN_US_MAX),
        unit: "us",
        samples,
        comparison: format!("plain {:.2} us; {BATCH} actors each time", median(&plain)),
    }
}

/// Asks both actors in turn, from a task, as everything in a server asks.
async fn asking(
    name: &'static str,
    (plain_one, supervised_one): (Addr<Idle>, Address<Idle>),
) -> anyhow::Result<Figure> {
    let each = |took: Duration| ms(took) * 1e6 / f64::from(QUESTIONS);
    let (mut samples, mut plain, mut supervised) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (a, b) = (plain_one.clone(), supervised_one.clone());
        let asked = detached(async move {
            (ask_plain(&a, QUESTIONS.into()).await, ask_supervised(&b, QUESTIONS.into()).await)
        });
        let (a, b) = asked.await?;
        plain.push(each(a));
        supervised.push(each(b));
        samples.push((each(b) / each(a) - 1.0) * 100.0);
    }
    let (plain, supervised) = (median(&plain), median(&supervised));
    Ok(Figure {
        name,
        target: Some(ASK_LONGER_PERCENT_MAX),
        unit: "%",
        samples,
        comparison: format!("plain {plain:.0} ns, supervised {supervised:.0} ns"),
    })
}

async fn restarting() -> Figure {
    let actor = start_supervised(&node(), "again".to_owned());
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        samples.push(ms(restart(&actor).await) * 1e3);
    }
    Figure {
        name: "restart of a supervised actor until it answers",
        target: Some(RESTART_US_MAX),
        unit: "us",
        samples,
        comparison: "by an operator; after a panic there is a pause besides".to_owned(),
    }
}
