//! Clients that only listen, many at once, and what they heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use iris_protocol::{Position, RoomOutcome, SubscribePayload};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::machine::cpu_time;
use crate::wire::{Target, Wire, request};

/// Connections that are made at a time.
const AT_ONCE: usize = 64;
/// As long as this nothing comes where nobody says anything.
const SILENCE: Duration = Duration::from_secs(1);
/// Nobody talks as long as this.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(1);
/// What stands before the number of an event in it.
const NUMBERED: &[u8] = b"\"title\":\"n-";

/// The rooms that every client of a crowd joins.
#[derive(Clone, Default)]
pub(crate) struct Rooms {
    pub(crate) project: String,
    /// None: it is the bare server, which has no rooms.
    pub(crate) names: Vec<String>,
}

impl Rooms {
    /// Joins them, those that the position belongs to if there is one; what became of the first. Events
    /// that come before the answer are given to `on_event`.
    pub(crate) async fn join(
        &self,
        wire: &mut Wire,
        since: Option<&Position>,
        on_event: impl FnMut(&[u8]),
    ) -> anyhow::Result<RoomOutcome> {
        let joined = wire.ask(&self.subscribe(since), on_event).await?;
        let joined: SubscribePayload = serde_json::from_value(joined)?;
        let refused = joined.rooms.iter().find(|room| room.code.is_some());
        ensure!(refused.is_none(), "a room was refused: {refused:?}");
        joined.rooms.into_iter().next().context("no room was joined")
    }

    /// Asks to join them, and does not wait for an answer.
    pub(crate) async fn ask_to_join(&self, wire: &Wire) -> anyhow::Result<()> {
        wire.sender().send(&self.subscribe(None)).await
    }

    fn subscribe(&self, since: Option<&Position>) -> Value {
        let rooms = self.names.iter().map(|room| json!({ "room": room, "since": since }));
        let subscribe = json!({ "rooms": rooms.collect::<Vec<_>>() });
        request("subscribe", "subscribe", &self.project, &subscribe)
    }
}

/// What a crowd heard.
#[derive(Default)]
pub(crate) struct Heard {
    frames: AtomicU64,
    bytes: AtomicU64,
    /// Connections that ended by themselves.
    lost: AtomicU64,
    /// When the events that have a number were asked for.
    sent: Mutex<Vec<Instant>>,
    /// How long these took to the sampled clients.
    delays: Mutex<Vec<Duration>>,
}

impl Heard {
    pub(crate) fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Gives the next event its number; it is sent now.
    pub(crate) fn number(&self) -> usize {
        let mut sent = self.sent.lock();
        sent.push(Instant::now());
        sent.len() - 1
    }

    /// The delays so far, which begin anew.
    pub(crate) fn take_delays(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.delays.lock())
    }

    fn hear(&self, text: &[u8]) {
        let now = Instant::now();
        let Some(at) = text.windows(NUMBERED.len()).position(|window| window == NUMBERED) else {
            return;
        };
        let digits = text.iter().skip(at + NUMBERED.len()).take_while(|byte| byte.is_ascii_digit());
        let number = digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'));
        if let Some(sent) = self.sent.lock().get(number) {
            self.delays.lock().push(now.duration_since(*sent));
        }
    }
}

/// Clients that listen until they are dropped.
pub(crate) struct Crowd {
    pub(crate) heard: Arc<Heard>,
    listening: Vec<JoinHandle<()>>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for task in &self.listening {
            task.abort();
        }
    }
}

impl Crowd {
    /// Connects `count` clients; `sampled` of them look at when events come.
    pub(crate) async fn gather(
        target: &Target,
        rooms: &Rooms,
        count: usize,
        sampled: usize,
    ) -> anyhow::Result<Self> {
        let heard = Arc::<Heard>::default();
        let joined = stream::iter(0..count).map(|place| {
            let heard = Arc::clone(&heard);
            async move {
                let mut wire = Wire::open(target, place).await?;
                if !rooms.names.is_empty() {
                    rooms.join(&mut wire, None, |_| {}).await?;
                }
                // At once: the first may be asked for a pong before the last is there.
                anyhow::Ok(tokio::spawn(listen(wire, heard, place < sampled)))
            }
        });
        let listening = joined.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Self { heard, listening })
    }

    /// Fails when a client was lost.
    pub(crate) fn check_whole(&self) -> anyhow::Result<()> {
        let lost = self.heard.lost.load(Ordering::Relaxed);
        ensure!(lost == 0, "{lost} clients lost their connections");
        Ok(())
    }

    /// Waits until nothing has come for a moment.
    pub(crate) async fn wait_for_silence(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + SILENCE_TIMEOUT;
        loop {
            let before = self.heard.frames();
            tokio::time::sleep(SILENCE).await;
            // Of every connection a heartbeat may come meanwhile, and little else.
            if self.heard.frames() - before < u64::try_from(self.listening.len())? {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "events come without end");
        }
    }

    /// What a server uses and this crowd hears of it for a while.
    pub(crate) async fn measure(&self, server: u32, window: Duration) -> anyhow::Result<Usage> {
        let bytes_heard = || self.heard.bytes.load(Ordering::Relaxed);
        let (frames, bytes) = (self.heard.frames(), bytes_heard());
        let (cpu, began) = (cpu_time(server)?, Instant::now());
        tokio::time::sleep(window).await;
        let usage = Usage {
            deliveries: self.heard.frames() - frames,
            bytes: bytes_heard() - bytes,
            cpu: cpu_time(server)?.saturating_sub(cpu),
            took: began.elapsed(),
        };
        self.check_whole()?;
        ensure!(usage.deliveries > 0, "nothing was delivered");
        Ok(usage)
    }
}

async fn listen(mut wire: Wire, heard: Arc<Heard>, is_sampled: bool) {
    if !is_sampled {
        wire.keep_nothing();
    }
    loop {
        let mut frames = 0;
        let read = wire.read(|text: &[u8]| {
            frames += 1;
            if is_sampled {
                heard.hear(text);
            }
        });
        let read = read.await.unwrap_or(None);
        heard.frames.fetch_add(frames, Ordering::Relaxed);
        let Some(bytes) = read else {
            heard.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        heard.bytes.fetch_add(u64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }
}

/// What deliveries cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    deliveries: u64,
    bytes: u64,
    cpu: Duration,
    took: Duration,
}

impl Usage {
    /// The same with so much less processor time.
    pub(crate) fn without(self, cpu: Duration) -> Self {
        Self { cpu: self.cpu.saturating_sub(cpu), ..self }
    }

    /// Processor microseconds for each delivery, which is as many seconds for a million.
    pub(crate) fn micros_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / float(self.deliveries)
    }

    /// Bytes of a frame, its head included.
    pub(crate) fn bytes_each(&self) -> usize {
        usize::try_from(self.bytes / self.deliveries).unwrap_or(usize::MAX)
    }

    /// Deliveries in a second.
    pub(crate) fn rate(&self) -> f64 {
        float(self.deliveries) / self.took.as_secs_f64()
    }
}

/// A count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// The value that `percent` of all are not above; zero for none.
pub(crate) fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    let place = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(place).copied().unwrap_or_default()
}
