//! Senders who work at the same time, each of whom waits for its acknowledgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use parking_lot::Mutex;

/// How many of them.
pub(crate) const SENDERS: usize = 64;

/// What a round of sending took.
pub(crate) struct Sent {
    count: usize,
    took: Duration,
    /// Of each, shortest first.
    waits: Vec<Duration>,
}

impl Sent {
    /// Acknowledgements a second.
    pub(crate) fn rate(&self) -> f64 {
        f64::from(u32::try_from(self.count).unwrap_or(u32::MAX)) / self.took.as_secs_f64()
    }

    /// The wait that 99 of 100 do not exceed.
    pub(crate) fn p99(&self) -> Duration {
        let index = self.waits.len().saturating_sub(1) * 99 / 100;
        self.waits.get(index).copied().unwrap_or_default()
    }
}

/// Sends all of `things`, with as many under way as there are senders.
pub(crate) async fn send_all<T, F>(
    things: Vec<T>,
    send: impl Fn(T) -> F + Clone + Send + 'static,
) -> anyhow::Result<Sent>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let count = things.len();
    let things = Arc::new(Mutex::new(things));
    let started = Instant::now();
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (things, send) = (Arc::clone(&things), send.clone());
            tokio::spawn(async move {
                let mut waits = Vec::new();
                loop {
                    let next = things.lock().pop();
                    let Some(thing) = next else { return anyhow::Ok(waits) };
                    let began = Instant::now();
                    send(thing).await?;
                    waits.push(began.elapsed());
                }
            })
        })
        .collect();
    let mut waits = Vec::new();
    for sender in senders {
        waits.extend(sender.await.context("a sender panicked")??);
    }
    let took = started.elapsed();
    waits.sort();
    Ok(Sent { count, took, waits })
}
