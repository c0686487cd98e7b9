//! What a connection costs that is subscribed and hears nothing.

use std::time::Duration;

use crate::bare::Bare;
use crate::crowd::{Crowd, Rooms, float};
use crate::machine::connections_max;
use crate::scene::Scene;
use crate::server::memory_mb;
use crate::table::Figure;
use crate::wire::Target;

/// Kilobytes (1,000 bytes) of resident memory.
const KILOBYTES_MAX: f64 = 18.0;
const CONNECTIONS: usize = 10_000;
/// Connections before the first look, so that what every server needs once is there.
const FIRST: usize = 10;
/// Left alone before each look.
const SETTLE: Duration = Duration::from_secs(2);

/// Holds as many connections as this machine allows, with Iris and with the bare server.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let count = connections_max(CONNECTIONS)?;
    let scene = Scene::start().await?;
    let rooms = scene.rooms(&scene.sessions(1).await?);
    let iris = kilobytes_each(scene.server.id(), &scene.target, &rooms, count).await?;
    drop(scene);
    let bare = Bare::start()?;
    let target = Target { address: bare.address, token: String::new() };
    let bare = kilobytes_each(bare.id(), &target, &Rooms::default(), count).await?;
    Ok(vec![Figure {
        name: "idle subscribed connection, resident memory",
        target: Some(KILOBYTES_MAX),
        unit: "KB",
        samples: vec![iris],
        comparison: format!("{count} of them; bare {bare:.1} KB"),
    }])
}

async fn kilobytes_each(
    server: u32,
    target: &Target,
    rooms: &Rooms,
    count: usize,
) -> anyhow::Result<f64> {
    let memory = || memory_mb(&server.to_string(), "VmRSS");
    let _first = Crowd::gather(target, rooms, FIRST, 0).await?;
    tokio::time::sleep(SETTLE).await;
    let before = memory()?;
    let crowd = Crowd::gather(target, rooms, count - FIRST, 0).await?;
    tokio::time::sleep(SETTLE).await;
    let after = memory()?;
    crowd.check_whole()?;
    Ok((after - before) * 1000.0 / float(u64::try_from(count - FIRST)?))
}
