//! How long the metrics take to read while ten thousand clients are connected.

use std::time::Instant;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::conversation::{Owner, new_session};
use crate::server::{OK, Server, data_dir};
use crate::table::{Figure, median, ms};
use crate::wire::{Target, Wire, request};

const SCRAPE_MS_MAX: f64 = 5.0;
const CONNECTIONS: usize = 10_000;
/// Connections that are made at a time.
const AT_ONCE: usize = 64;
const SCRAPES: usize = 41;
const METRICS: &str = "/metrics";

/// Reads the metrics of a server with nobody, and with a crowd that hears a session.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    rlimit::increase_nofile_limit(rlimit::INFINITY)?;
    let data_dir = data_dir()?;
    let server = Server::start(data_dir.path())?;
    let owner = Owner::of(&server).await?;
    let session = new_session(&owner.client, &owner.project).await?;
    let subscribe = json!({ "rooms": [{ "room": format!("session:{session}") }] });
    let subscribe = request("subscribe", "subscribe", &owner.project.to_string(), &subscribe);
    let address = server.url().strip_prefix("http://").context("not an address")?.parse()?;
    let target = Target { address, token: owner.token().to_owned() };
    let alone = scrapes(&server, &owner, 0)?;
    let joined = stream::iter(0..CONNECTIONS).map(async |place| {
        let mut wire = Wire::open(&target, place).await?;
        wire.ask(&subscribe, |_| {}).await?;
        anyhow::Ok(tokio::spawn(listen(wire)))
    });
    let crowd: Vec<JoinHandle<()>> = joined.buffer_unordered(AT_ONCE).try_collect().await?;
    let crowded = scrapes(&server, &owner, CONNECTIONS)?;
    let lost = crowd.iter().filter(|client| client.is_finished()).count();
    ensure!(lost == 0, "{lost} clients lost their connections");
    for client in crowd {
        client.abort();
    }
    server.stop()?;
    let comparison = format!("without connections {:.2} ms", median(&alone));
    let (name, target) = ("metrics with 10000 connections", Some(SCRAPE_MS_MAX));
    Ok(vec![Figure { name, target, unit: "ms", samples: crowded, comparison }])
}

/// Answers what has to be answered, until the connection ends.
async fn listen(mut wire: Wire) {
    wire.keep_nothing();
    while let Ok(Some(_)) = wire.read(|_| {}).await {}
}

/// Milliseconds of each of some reads, all of which say that there are so many connections.
fn scrapes(server: &Server, owner: &Owner, connections: usize) -> anyhow::Result<Vec<f64>> {
    let connections = format!("\niris_connections {connections}\n");
    let mut samples = Vec::new();
    for _ in 0..SCRAPES {
        let began = Instant::now();
        let answer = server.get(METRICS, owner.token())?;
        samples.push(ms(began.elapsed()));
        ensure!(answer.starts_with(OK), "the metrics were not read: {answer}");
        ensure!(answer.contains(&connections), "it is not{connections}{answer}");
    }
    Ok(samples)
}
