//! A thousand clients that lose their connections at the same moment and all come back at once.

use std::time::Instant;

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::crowd::{Heard, Rooms};
use crate::scene::Scene;
use crate::table::Figure;
use crate::wire::{Target, Wire, request};

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
    epoch: String,
    /// The last event that it heard.
    seq: u64,
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
        let joined = rooms.join(&mut wire).await?;
        let outcome = joined["rooms"].get(0).context("no room was joined")?;
        let epoch = outcome["epoch"].as_str().context("no epoch")?.to_owned();
        let seq = outcome["to"].as_u64().context("no position")?;
        Ok(Self { place, wire: Some(wire), epoch, seq, events: 0 })
    }

    /// Comes back with the position that it has, and hears every event since, each behind the one
    /// before it: at least those that were committed before anybody came back.
    async fn resume(&mut self, target: &Target, rooms: &Rooms) -> anyhow::Result<()> {
        let mut wire = Wire::open(target, self.place).await?;
        let since = json!({ "epoch": self.epoch, "seq": self.seq });
        let wanted: Vec<Value> =
            rooms.names.iter().map(|room| json!({ "room": room, "since": since })).collect();
        let subscribe = json!({ "rooms": wanted });
        let subscribe = request("subscribe", "subscribe", &rooms.project, &subscribe);
        let mut events = Vec::new();
        let joined = wire
            .ask(&subscribe, |event| {
                // Ephemeral ones have no numbers.
                events.extend(serde_json::from_slice::<Numbers>(event).ok());
            })
            .await?;
        let outcome = joined["rooms"].get(0).context("no room was joined")?;
        ensure!(outcome["status"] == "replayed", "not resumed: {outcome}");
        ensure!(events.len() >= MISSED, "only {} events came", events.len());
        // The first one's predecessor may lie before this room was joined for the first time.
        for Numbers { seq, prev } in events {
            let follows = if self.events == 0 { prev <= self.seq } else { prev == self.seq };
            ensure!(follows, "event {seq} follows {prev}, and {} was the last heard", self.seq);
            (self.seq, self.events) = (seq, self.events + 1);
        }
        self.wire = Some(wire);
        Ok(())
    }
}
