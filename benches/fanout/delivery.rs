//! What a delivery costs the server, of Iris and of the bare server, and how late durable events are.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use iris_protocol::SessionId;

use crate::bare::{Bare, Publishing};
use crate::crowd::{Crowd, Rooms, Usage, percentile};
use crate::machine::cpu_time;
use crate::scene::Scene;
use crate::table::{Figure, median, ms};
use crate::wire::Target;

/// Iris compared with the bare server.
const TIMES_MAX: f64 = 1.3;
/// Processor seconds for a million deliveries of 200 bytes at full speed: what the bare server has to
/// come near, or it is no measure.
const BARE_MAX: f64 = 0.25;
const BARE_BYTES: usize = 200;
/// Published at once, so that a write joins as many.
const BARE_FRAMES: usize = 100;
const DELAY_MS_MAX: f64 = 30.0;
/// Deliveries a second.
const STEADY: u32 = 20_000;
/// Deliveries of one round of all sessions that stream.
const ROUND: usize = 100_000;
/// Clients that look at when events come.
const SAMPLED: usize = 20;
/// How often it is measured.
pub(crate) const ROUNDS: usize = 3;
const WINDOW: Duration = Duration::from_secs(4);
/// Before the window: everybody is at work by then.
const WARM_UP: Duration = Duration::from_millis(1500);

/// What is measured, by the names of their groups.
pub(crate) const CROWDS: [(&str, Size); 2] = [
    (
        "delivery-1000",
        Size {
            count: 1_000,
            bare: "bare, 1000 x 200 B, full speed",
            steady: "delivery to 1000, 20000/s, times bare",
            apart: "the same without the events' own cost",
            full: "delivery to 1000, full speed, times bare",
            delay: "durable event to 1000, 20000/s, p99",
            delay_max: Some(DELAY_MS_MAX),
        },
    ),
    (
        "delivery-5000",
        Size {
            count: 5_000,
            bare: "bare, 5000 x 200 B, full speed",
            steady: "delivery to 5000, 20000/s, times bare",
            apart: "the same without the events' own cost",
            full: "delivery to 5000, full speed, times bare",
            delay: "durable event to 5000, 20000/s, p99",
            delay_max: None,
        },
    ),
];

/// A crowd, and what its figures are called.
pub(crate) struct Size {
    count: usize,
    bare: &'static str,
    steady: &'static str,
    /// Without what it costs to make the events for nobody, which the bare server does not do.
    apart: &'static str,
    full: &'static str,
    delay: &'static str,
    /// To 5,000 one event alone is work for longer than what is asked for 1,000.
    delay_max: Option<f64>,
}

/// What both servers used, one of each for every round.
#[derive(Default)]
struct Samples {
    iris: Vec<Usage>,
    bare: Vec<Usage>,
}

impl Samples {
    /// The same where Iris used so much less in each window.
    fn without(&self, cpu: Duration) -> Self {
        let iris = self.iris.iter().map(|usage| usage.without(cpu)).collect();
        Self { iris, bare: self.bare.clone() }
    }

    fn figure(&self, name: &'static str, bytes: usize) -> Figure {
        let each = |usages: &[Usage]| usages.iter().map(Usage::micros_each).collect::<Vec<_>>();
        let rate = |usages: &[Usage]| median(&usages.iter().map(Usage::rate).collect::<Vec<_>>());
        let (iris, bare) = (each(&self.iris), each(&self.bare));
        let times = iris.iter().zip(&bare).map(|(iris, bare)| iris / bare).collect();
        Figure {
            name,
            target: Some(TIMES_MAX),
            unit: "x",
            samples: times,
            comparison: format!(
                "us each: Iris {:.2} at {:.0}/s, bare {:.2} at {:.0}/s; {bytes} B",
                median(&iris),
                rate(&self.iris),
                median(&bare),
                rate(&self.bare),
            ),
        }
    }
}

impl Size {
    /// Measures it.
    pub(crate) async fn figures(&self, rounds: usize) -> anyhow::Result<Vec<Figure>> {
        let (count, names) = (self.count, self);
        let subscribers = u32::try_from(count)?;
        let scene = Scene::start().await?;
        let sessions = scene.sessions(ROUND / count).await?;
        let rooms = scene.rooms(&sessions);
        let rate = STEADY / subscribers;
        let events = events_alone(&scene, &sessions, rate).await?;
        let listeners = Crowd::gather(&scene.target, &rooms, count, SAMPLED).await?;

        let mut bare = Bare::start()?;
        let target = Target { address: bare.address, token: String::new() };
        let bare_listeners = Crowd::gather(&target, &Rooms::default(), count, 0).await?;
        let (mut steady, mut full, mut plain) =
            (Samples::default(), Samples::default(), Vec::new());
        let (mut steady_bytes, mut full_bytes) = (0, 0);
        let mut delays = Vec::new();
        let first = sessions.first().into_iter();
        for _ in 0..rounds {
            for session in first.clone() {
                let editor = scene.editor(session).await?;
                let editing = editor.edit_steadily(Arc::clone(&listeners.heard), rate);
                tokio::time::sleep(WARM_UP).await;
                listeners.heard.take_delays();
                let usage = listeners.measure(scene.server.id(), WINDOW).await?;
                let mut taken = listeners.heard.take_delays();
                delays.push(ms(percentile(&mut taken, 99)));
                steady_bytes = usage.bytes_each();
                steady.iris.push(usage);
                drop(editing);
            }
            let publishing = Publishing::Steady { bytes: steady_bytes, rate };
            steady.bare.push(of_bare(&mut bare, &bare_listeners, publishing).await?);

            scene.stream(&sessions, 3 * WARM_UP + WINDOW).await?;
            tokio::time::sleep(WARM_UP).await;
            let usage = listeners.measure(scene.server.id(), WINDOW).await?;
            full_bytes = usage.bytes_each();
            full.iris.push(usage);
            let frames = ROUND / count;
            let publishing = Publishing::Full { bytes: full_bytes, frames };
            full.bare.push(of_bare(&mut bare, &bare_listeners, publishing).await?);
            let publishing = Publishing::Full { bytes: BARE_BYTES, frames: BARE_FRAMES };
            plain.push(of_bare(&mut bare, &bare_listeners, publishing).await?);
            listeners.wait_for_silence().await?;
        }
        let rate = median(&plain.iter().map(Usage::rate).collect::<Vec<_>>());
        Ok(vec![
            Figure {
                name: names.bare,
                target: Some(BARE_MAX),
                unit: "us",
                samples: plain.iter().map(Usage::micros_each).collect(),
                comparison: format!("{rate:.0} deliveries/s"),
            },
            steady.figure(names.steady, steady_bytes),
            Figure { target: None, ..steady.without(events).figure(names.apart, steady_bytes) },
            full.figure(names.full, full_bytes),
            Figure {
                name: names.delay,
                target: names.delay_max,
                unit: "ms",
                samples: delays,
                comparison: format!(
                    "from the request to {SAMPLED} of the clients, commit included"
                ),
            },
        ])
    }
}

/// What the steady events of a window cost the server while nobody hears them: requests and commits.
async fn events_alone(
    scene: &Scene,
    sessions: &[SessionId],
    rate: u32,
) -> anyhow::Result<Duration> {
    let editor = scene.editor(sessions.first().context("no session")?).await?;
    let editing = editor.edit_steadily(Arc::default(), rate);
    tokio::time::sleep(WARM_UP).await;
    let before = cpu_time(scene.server.id())?;
    tokio::time::sleep(WINDOW).await;
    let used = cpu_time(scene.server.id())?.saturating_sub(before);
    drop(editing);
    Ok(used)
}

/// The bare server while it publishes.
async fn of_bare(
    bare: &mut Bare,
    listeners: &Crowd,
    publishing: Publishing,
) -> anyhow::Result<Usage> {
    bare.publish(publishing)?;
    tokio::time::sleep(WARM_UP).await;
    let usage = listeners.measure(bare.id(), WINDOW).await?;
    bare.publish(Publishing::Nothing)?;
    tokio::time::sleep(WARM_UP / 3).await;
    Ok(usage)
}
