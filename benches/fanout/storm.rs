//! A thousand clients that lose their connections at the same moment and all come back at once.

use std::time::Instant;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use iris_protocol::{Position, RoomOutcome, RoomStatus};
use serde::Deserialize;

use crate::crowd::{Heard, Rooms};
use crate::scene::Scene;
use crate::table::Figure;
use crate::wire::{Target, Wire};

const RESUMED_S_MAX: f64 = 30.0;
const CLIENTS: usize = 1_000;
const STORMS: usize = 5;
/// Events that happen while nobody is connected.
const MISSED: usize = 20;
/// Events a second while they come back.
const RATE: u32 = 20;

/// Measures each storm from the first attempt to the last client that has everything.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let scene = Scene::start().await?;
    let sessions = scene.sessions(1).await?;
    let session = sessions.first().context("no session")?;
    let rooms = scene.rooms(&sessions);
    let heard = std::sync::Arc::<Heard>::default();
    let mut clients =
        try_join_all((0..CLIENTS).map(|place| Client::arrive(&scene.target, &rooms, place)))
            .await?;
    let mut samples = Vec::new();
    for _ in 0..STORMS {
        for client in &mut clients {
            client.wire = None;
        }
        scene.editor(session).await?.edit_all(&heard, MISSED).await?;
        let _editing = scene.editor(session).await?.edit_steadily(heard.clone(), RATE);
        let began = Instant::now();
        let resumed = clients.iter_mut().map(|client| client.resume(&scene.target, &rooms));
        try_join_all(resumed).await?;
        samples.push(began.elapsed().as_secs_f64());
    }
    Ok(vec![Figure {
        name: "1000 clients come back at once, all resumed",
        target: Some(RESUMED_S_MAX),
        unit: "s",
        samples,
        comparison: format!("{STORMS} times, {MISSED} events missed each, no gap"),
    }])
}

/// One client and what it has.
struct Client {
    place: usize,
    /// None while it is not connected.
    wire: Option<Wire>,
    /// The last event that it heard.
    at: Position,
    /// Events that it heard.
    events: usize,
}

#[derive(Deserialize)]
struct Numbers {
    seq: u64,
    prev: u64,
}

impl Client {
    async fn arrive(target: &Target, rooms: &Rooms, place: usize) -> anyhow::Result<Self> {
        let mut wire = Wire::open(target, place).await?;
        let RoomOutcome { epoch, to, .. } = rooms.join(&mut wire, None, |_| {}).await?;
        Ok(Self { place, wire: Some(wire), at: Position { epoch, seq: to }, events: 0 })
    }

    /// Comes back with the position that it has, and hears every event since, each behind the one
    /// before it: at least those that were committed before anybody came back.
    async fn resume(&mut self, target: &Target, rooms: &Rooms) -> anyhow::Result<()> {
        let mut wire = Wire::open(target, self.place).await?;
        let mut events = Vec::new();
        // Ephemeral ones have no numbers.
        let on_event = |event: &[u8]| events.extend(serde_json::from_slice::<Numbers>(event).ok());
        let outcome = rooms.join(&mut wire, Some(&self.at), on_event).await?;
        ensure!(outcome.status == RoomStatus::Replayed, "not resumed: {outcome:?}");
        ensure!(events.len() >= MISSED, "only {} events came", events.len());
        // The first one's predecessor may lie before this room was joined for the first time.
        for Numbers { seq, prev } in events {
            let follows = if self.events == 0 { prev <= self.at.seq } else { prev == self.at.seq };
            ensure!(follows, "event {seq} follows {prev}, and {} was the last heard", self.at.seq);
            (self.at.seq, self.events) = (seq, self.events + 1);
        }
        self.wire = Some(wire);
        Ok(())
    }
}
