//! What a thousand open projects cost.

use anyhow::ensure;
use futures_util::{StreamExt, TryStreamExt, stream};
use iris_protocol::{ActorList, ProjectId, SessionList};

use crate::conversation::{Owner, new_project, new_session};
use crate::server::{Server, data_dir};
use crate::table::Figure;

/// Megabytes (10^6 bytes) of resident memory.
const MEMORY_MB_MAX: f64 = 200.0;
const PROJECTS: usize = 1_000;
/// Requests that are under way at a time.
const AT_ONCE: usize = 16;

/// Measures a server all of whose projects were asked for and are kept open.
pub(crate) async fn figure() -> anyhow::Result<Figure> {
    let data_dir = data_dir()?;
    let settings = [("IRIS_PROJECTS_OPEN_MAX", "1100"), ("IRIS_PROJECT_IDLE_SECONDS", "3600")];
    let server = Server::start_with(data_dir.path(), &settings)?;
    let owner = Owner::of(&server).await?;
    let made = stream::iter(0..PROJECTS).map(|_| async {
        let project = new_project(&owner.client).await?;
        new_session(&owner.client, &project).await?;
        anyhow::Ok(project)
    });
    let projects: Vec<ProjectId> = made.buffer_unordered(AT_ONCE).try_collect().await?;
    server.stop()?;

    // Anew, without what making them has left behind.
    let server = Server::start_with(data_dir.path(), &settings)?;
    let owner = owner.again(&server)?;
    let before = server.memory_mb("VmRSS")?;
    let asked = stream::iter(&projects).map(|project| {
        let sessions =
            SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };
        owner.client.call(Some(project), sessions)
    });
    asked.buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await?;
    let list = ActorList { kind: Some("project".to_owned()), under: None };
    let open = owner.client.actors(&list).await?.actors.len();
    ensure!(open >= PROJECTS, "only {open} projects are open");
    let samples = vec![server.memory_mb("VmRSS")?];
    server.stop()?;
    Ok(Figure {
        name: "server with 1000 open projects, resident memory",
        target: Some(MEMORY_MB_MAX),
        unit: "MB",
        samples,
        comparison: format!("before they were opened {before:.1} MB"),
    })
}
