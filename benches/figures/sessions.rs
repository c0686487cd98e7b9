//! What ten thousand idle sessions cost a server, and an operator who looks at them.

use std::time::Instant;

use anyhow::ensure;
use futures_util::{StreamExt, TryStreamExt, stream};
use iris_protocol::{RunCancel, SessionGet, SessionId};

use crate::conversation::{Owner, new_session};
use crate::server::{OK, Server, data_dir};
use crate::table::{Figure, median, ms};

/// Megabytes (10^6 bytes) of resident memory.
const MEMORY_MB_MAX: f64 = 25.0;
const LIST_MS_MAX: f64 = 50.0;
const SESSIONS: usize = 10_000;
/// Requests that are under way at a time.
const AT_ONCE: usize = 32;
/// How often the actors are listed.
const LISTS: usize = 21;
const ACTORS: &str = "/v1/admin/actors";

/// Measures what a server grows by when all sessions of a project get an actor, and how long it takes
/// to list these.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let data_dir = data_dir()?;
    let server = Server::start(data_dir.path())?;
    let owner = Owner::of(&server).await?;
    let (client, project) = (&owner.client, &owner.project);
    let made = stream::iter(0..SESSIONS).map(|_| new_session(client, project));
    let sessions: Vec<SessionId> = made.buffer_unordered(AT_ONCE).try_collect().await?;
    server.stop()?;

    // Anew, without what making them has left behind.
    let server = Server::start_with(data_dir.path(), &[("IRIS_SESSION_IDLE_SECONDS", "3600")])?;
    let owner = owner.again(&server)?;
    read_all(&owner, &sessions).await?;
    let few = list(&server, &owner, 0)?;
    let before = server.memory_mb("VmRSS")?;
    start_all(&owner, &sessions).await?;
    let after = server.memory_mb("VmRSS")?;
    let memory = Figure {
        name: "actors of 10000 idle sessions, resident memory",
        target: Some(MEMORY_MB_MAX),
        unit: "MB",
        samples: vec![after - before],
        comparison: format!("the server without them {before:.1} MB"),
    };
    let many = list(&server, &owner, SESSIONS)?;
    server.stop()?;
    let comparison = format!("without the sessions {:.1} ms", median(&few));
    let (name, target) = ("list of 10000 actors over HTTP", Some(LIST_MS_MAX));
    Ok(vec![memory, Figure { name, target, unit: "ms", samples: many, comparison }])
}

/// Requests that leave no actor behind, so that the memory of requests is there already.
async fn read_all(owner: &Owner, sessions: &[SessionId]) -> anyhow::Result<()> {
    let read = stream::iter(sessions).map(|id| {
        let get = SessionGet { session_id: id.clone(), limit: None, before: None };
        owner.client.call(Some(&owner.project), get)
    });
    Ok(read.buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await?)
}

/// Asks the sessions for something that only their actors know, one after the other: what many requests
/// need at once is not the actors'.
async fn start_all(owner: &Owner, sessions: &[SessionId]) -> anyhow::Result<()> {
    for session_id in sessions.iter().cloned() {
        owner.client.call(Some(&owner.project), RunCancel { session_id }).await?;
    }
    Ok(())
}

/// Milliseconds of each of some lists, all of which have at least so many actors.
fn list(server: &Server, owner: &Owner, actors_min: usize) -> anyhow::Result<Vec<f64>> {
    let mut samples = Vec::new();
    for _ in 0..LISTS {
        let began = Instant::now();
        let answer = server.get(ACTORS, owner.token())?;
        samples.push(ms(began.elapsed()));
        ensure!(answer.starts_with(OK), "the actors were not listed: {answer}");
        let actors = answer.matches("\"path\":").count();
        ensure!(actors >= actors_min, "only {actors} actors were listed");
    }
    Ok(samples)
}
