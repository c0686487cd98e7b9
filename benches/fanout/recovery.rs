//! How long a client that comes back waits for what it missed.

use std::time::Instant;

use anyhow::ensure;
use iris_protocol::{Position, RoomOutcome, RoomStatus};

use crate::crowd::{Heard, Rooms};
use crate::scene::Scene;
use crate::table::{Figure, ms};
use crate::wire::Wire;

const RECOVERY_MS_MAX: f64 = 5.0;
/// Events that were missed.
const EVENTS: usize = 300;
/// Events of another room that drive these out of the server's memory.
const OTHERS: usize = 1_100;
const REPEATS: usize = 31;

/// Measures clients that come back one after the other, first while what they missed is in the server's
/// memory, then when it has to be read from the database.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let scene = Scene::start().await?;
    let sessions = scene.sessions(2).await?;
    let [missed, other] = sessions.as_slice() else { unreachable!("two were made") };
    let rooms = scene.rooms(std::slice::from_ref(missed));
    let mut wire = Wire::open(&scene.target, 0).await?;
    let RoomOutcome { epoch, to, .. } = rooms.join(&mut wire, None, |_| {}).await?;
    let since = Position { epoch, seq: to };

    let heard = Heard::default();
    let mut editor = scene.editor(missed).await?;
    editor.edit_all(&heard, EVENTS).await?;
    let memory = recoveries(&scene, &rooms, &since).await?;
    let mut editor = scene.editor(other).await?;
    editor.edit_all(&heard, OTHERS).await?;
    let database = recoveries(&scene, &rooms, &since).await?;
    let figure = |name, samples| Figure {
        name,
        target: Some(RECOVERY_MS_MAX),
        unit: "ms",
        samples,
        comparison: "from the request to the answer and the last event".to_owned(),
    };
    Ok(vec![
        figure("recovery of 300 events, from memory", memory),
        figure("recovery of 300 events, from the database", database),
    ])
}

async fn recoveries(scene: &Scene, rooms: &Rooms, since: &Position) -> anyhow::Result<Vec<f64>> {
    let mut samples = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let mut wire = Wire::open(&scene.target, 0).await?;
        let mut events = 0;
        let began = Instant::now();
        let on_event = |event: &[u8]| events += usize::from(is_durable(event));
        let outcome = rooms.join(&mut wire, Some(since), on_event).await?;
        let took = began.elapsed();
        samples.push(ms(took));
        ensure!(outcome.status == RoomStatus::Replayed, "not recovered: {outcome:?}");
        ensure!(events == EVENTS, "{events} events came before the answer");
    }
    Ok(samples)
}

fn is_durable(event: &[u8]) -> bool {
    event.starts_with(b"{\"type\":\"session.updated\"")
}
