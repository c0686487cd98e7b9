//! What a client that never reads costs the server and the others.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::crowd::{Crowd, Rooms, float, percentile};
use crate::scene::Scene;
use crate::table::{Figure, median, ms};
use crate::wire::Wire;

/// Of one such client, in MiB of the server's resident memory.
const MEMORY_MIB_MAX: f64 = 1.5;
const GONE_S_MAX: f64 = 15.0;
/// Of the others, by how much they may be later.
const LATER_PERCENT_MAX: f64 = 20.0;
const OTHERS: usize = 50;
/// Sessions that stream to everybody: what comes of them fills the buffers of whoever does not read.
const STREAMING: usize = 60;
/// Durable events a second, by which the others are sampled: enough that a slow commit or two of the disk do
/// not decide which one is the slowest of a hundred.
const RATE: u32 = 100;
/// How often it is measured.
pub(crate) const ROUNDS: usize = 5;
const CROWD: usize = 200;
/// How long everybody listens, with and without those that do not.
const WINDOW: Duration = Duration::from_secs(15);
/// No client may be there as long as this.
const GONE_TIMEOUT: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The smallest that the kernel gives.
const RECEIVE_BYTES: u32 = 1;

/// Measures the others without and with one such client, and with two hundred.
pub(crate) async fn figures(rounds: usize) -> anyhow::Result<Vec<Figure>> {
    let scene = Scene::start().await?;
    let sessions = scene.sessions(STREAMING).await?;
    let rooms = scene.rooms(&sessions);
    let others = Crowd::gather(&scene.target, &rooms, OTHERS, OTHERS).await?;
    let streaming = WINDOW * 5 * u32::try_from(rounds)?;
    scene.stream(&sessions, streaming).await?;
    let Some(first) = sessions.first() else { bail!("no session") };
    let _editing = scene.editor(first).await?.edit_steadily(Arc::clone(&others.heard), RATE);
    tokio::time::sleep(WINDOW / 5).await;

    let (mut alone, mut one, mut many) = (Phases::default(), Phases::default(), Phases::default());
    for _ in 0..rounds {
        alone.add(&phase(&scene, &rooms, &others, 0).await?);
        one.add(&phase(&scene, &rooms, &others, 1).await?);
        alone.add(&phase(&scene, &rooms, &others, 0).await?);
        many.add(&phase(&scene, &rooms, &others, CROWD).await?);
    }
    let mut figures = one.figures(Phases::ONE, &alone);
    figures.extend(many.figures(Phases::MANY, &alone));
    Ok(figures)
}

/// What was seen while some clients did not read.
struct Phase {
    memory_mib_each: f64,
    gone_after: Duration,
    /// Of the others; first only while the silent ones come.
    coming_p99: Duration,
    p99: Duration,
}

async fn phase(
    scene: &Scene,
    rooms: &Rooms,
    others: &Crowd,
    stalled: usize,
) -> anyhow::Result<Phase> {
    let server = scene.server.id();
    let sockets_before = sockets(server)?;
    let memory_before = scene.server.memory_mb("VmRSS")?;
    others.heard.take_delays();
    let began = Instant::now();
    let joined = stream::iter(0..stalled).map(|place| async move {
        let wire = Wire::open_with(&scene.target, place, Some(RECEIVE_BYTES)).await?;
        rooms.ask_to_join(&wire).await?;
        anyhow::Ok(wire)
    });
    let wires: Vec<Wire> = joined.buffer_unordered(16).try_collect().await?;
    let mut coming = others.heard.take_delays();
    let (mut memory_most, mut gone_after) = (memory_before, None);
    while began.elapsed() < WINDOW || gone_after.is_none() {
        memory_most = memory_most.max(scene.server.memory_mb("VmRSS")?);
        if gone_after.is_none() && sockets(server)? <= sockets_before {
            gone_after = Some(began.elapsed());
        }
        ensure!(began.elapsed() < GONE_TIMEOUT, "the server holds on to those that do not read");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    drop(wires);
    others.check_whole()?;
    let mut delays = others.heard.take_delays();
    delays.extend_from_slice(&coming);
    ensure!(!delays.is_empty(), "the others heard nothing");
    let count = float(u64::try_from(stalled.max(1))?);
    Ok(Phase {
        memory_mib_each: (memory_most - memory_before) * 1e6 / f64::from(1 << 20) / count,
        gone_after: gone_after.unwrap_or_default(),
        coming_p99: percentile(&mut coming, 99),
        p99: percentile(&mut delays, 99),
    })
}

/// How many sockets a process has open.
fn sockets(process: u32) -> anyhow::Result<usize> {
    let open = fs::read_dir(format!("/proc/{process}/fd"));
    let open = open.context("the server shows what it has open to root alone")?;
    // One may be closed while the directory is read.
    let links = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
}

/// Several phases of one kind.
#[derive(Default)]
struct Phases {
    memory: Vec<f64>,
    gone: Vec<f64>,
    coming_p99: Vec<f64>,
    p99: Vec<f64>,
}

impl Phases {
    const ONE: [&str; 3] = [
        "one that never reads, resident memory",
        "one that never reads, gone after",
        "one that never reads, others' p99 more by",
    ];
    const MANY: [&str; 3] = [
        "each of 200 that never read, resident memory",
        "200 that never read, gone after",
        "200 that never read, others' p99 more by",
    ];

    fn add(&mut self, phase: &Phase) {
        self.memory.push(phase.memory_mib_each);
        self.gone.push(phase.gone_after.as_secs_f64());
        self.coming_p99.push(ms(phase.coming_p99));
        self.p99.push(ms(phase.p99));
    }

    fn figures(self, names: [&'static str; 3], alone: &Self) -> Vec<Figure> {
        let [memory, gone, later] = names;
        let without = median(&alone.p99);
        let with = median(&self.p99);
        let later_by = self.p99.iter().map(|p99| (p99 / without - 1.0) * 100.0).collect();
        let figure = |name, target, unit, samples, comparison| Figure {
            name,
            target: Some(target),
            unit,
            samples,
            comparison,
        };
        let noise = format!("without any the memory grew by {:.2} MiB", median(&alone.memory));
        let coming = median(&self.coming_p99);
        let p99 = format!(
            "p99 {with:.1} ms, while they come {coming:.1} ms, without {without:.1} ms; {OTHERS} others"
        );
        vec![
            figure(memory, MEMORY_MIB_MAX, "MiB", self.memory, noise),
            figure(gone, GONE_S_MAX, "s", self.gone, "since it connected".to_owned()),
            figure(later, LATER_PERCENT_MAX, "%", later_by, p99),
        ]
    }
}
