//! What two hundred sessions that stream at once cost, and how late their clients hear.

use std::time::Instant;

use anyhow::ensure;
use futures_util::future::try_join_all;

use crate::conversation::Conversation;
use crate::floor::Floor;
use crate::machine::cpu_time;
use crate::provider::{CHUNKS, Plan, STAMP_BYTES, delays};
use crate::scene::Scene;
use crate::table::{Figure, median, ms};

pub(crate) const SESSIONS: usize = 200;
/// Between the chunks of one session.
pub(crate) const DELAY_MS: u64 = 5;
/// How often it is measured.
pub(crate) const ROUNDS: usize = 5;
/// How much longer than the floor, in percent.
const LONGER_PERCENT_MAX: f64 = 5.0;
/// From the provider to the client, the joining of text included.
const DELIVERY_MS_MAX: f64 = 60.0;
/// Processor time of the server, compared with the floor.
const CPU_TIMES_MAX: f64 = 2.0;
/// Megabytes (10^6 bytes) of resident memory, at most at any time.
const MEMORY_MB_MAX: f64 = 120.0;

/// Measures rounds of all sessions of one project, and the floor before each.
pub(crate) async fn figures(rounds: usize) -> anyhow::Result<Vec<Figure>> {
    let scene = Scene::start().await?;
    let mut conversations = Vec::new();
    for _ in 0..SESSIONS {
        conversations.push(scene.owner.new_session().await?);
    }
    // Connections to the provider are there from now on, as they are for the floor.
    hear_all(&mut conversations, Plan::Closing).await?;
    let mut samples = Samples::default();
    for _ in 0..rounds {
        let floor = Floor::measure(&scene.provider.url)?;
        let before = cpu_time(scene.server.id())?;
        let began = Instant::now();
        let late = hear_all(&mut conversations, Plan::Chunks(DELAY_MS)).await?;
        let wall = ms(began.elapsed());
        let cpu = ms(cpu_time(scene.server.id())?.saturating_sub(before));
        samples.add(&floor, wall, cpu, percentile(late, 0.99));
    }
    let memory = scene.server.memory_mb("VmHWM")?;
    let now = scene.server.memory_mb("VmRSS")?;
    scene.server.stop()?;
    Ok(samples.figures(memory, now))
}

/// Has all sessions answer at once, and hears every byte. Answers how late each chunk was, in milliseconds.
async fn hear_all(conversations: &mut [Conversation], plan: Plan) -> anyhow::Result<Vec<f64>> {
    let all = conversations.iter_mut().map(async |conversation| {
        let (mut late, mut known) = (Vec::new(), 0);
        let heard = |text: &str| {
            late.extend(delays(text, known));
            known = text.len() / STAMP_BYTES;
        };
        conversation.hear(&plan.message(), heard).await?;
        let is_whole = plan == Plan::Closing || late.len() == CHUNKS;
        ensure!(is_whole, "{} of {CHUNKS} chunks were heard", late.len());
        Ok(late)
    });
    Ok(try_join_all(all).await?.concat())
}

/// One of each for every round.
#[derive(Default)]
struct Samples {
    longer: Vec<f64>,
    delivery: Vec<f64>,
    times: Vec<f64>,
    wall: Vec<f64>,
    cpu: Vec<f64>,
    floor: [Vec<f64>; 3],
}

impl Samples {
    fn add(&mut self, floor: &Floor, wall: f64, cpu: f64, p99: f64) {
        self.longer.push((wall / floor.wall - 1.0) * 100.0);
        self.delivery.push(p99);
        self.times.push(cpu / floor.processor);
        self.wall.push(wall);
        self.cpu.push(cpu);
        let Floor { wall, processor, delay } = *floor;
        for (samples, sample) in self.floor.iter_mut().zip([wall, processor, delay]) {
            samples.push(sample);
        }
    }

    fn figures(self, memory: f64, now: f64) -> Vec<Figure> {
        let [wall, cpu, p99] = [0, 1, 2].map(|at| self.floor.get(at).map_or(0.0, |it| median(it)));
        let figure = |name, target, unit, samples, comparison| {
            let target = Some(target);
            Figure { name, target, unit, samples, comparison }
        };
        let iris = (median(&self.wall), median(&self.cpu));
        vec![
            figure(
                "200 sessions stream at once, longer by",
                LONGER_PERCENT_MAX,
                "%",
                self.longer,
                format!("Iris {:.0} ms, the floor {wall:.0} ms", iris.0),
            ),
            figure(
                "from the provider to the client, p99",
                DELIVERY_MS_MAX,
                "ms",
                self.delivery,
                format!("the floor {p99:.1} ms; text is joined for 30 ms"),
            ),
            figure(
                "processor time of the server, times the floor",
                CPU_TIMES_MAX,
                "x",
                self.times,
                format!("Iris {:.0} ms, the floor {cpu:.0} ms", iris.1),
            ),
            figure(
                "the server at its largest, resident memory",
                MEMORY_MB_MAX,
                "MB",
                vec![memory],
                format!("afterwards {now:.1} MB"),
            ),
        ]
    }
}

/// The sample below which so much of all is; 0 when there are none.
pub(crate) fn percentile(mut samples: Vec<f64>, part: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list"
    )]
    let at = (samples.len() as f64 * part) as usize;
    samples.get(at).or(samples.last()).copied().unwrap_or_default()
}
