//! How long somebody waits for a project that was closed because nobody needed it.

use std::time::{Duration, Instant};

use anyhow::ensure;
use iris_protocol::{ActorList, SessionList};
use tokio::time::sleep;

use crate::conversation::{Owner, new_project, new_session};
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

const OPEN_MS_MAX: f64 = 5.0;
const PROJECTS: usize = 25;
/// How often the server is asked whether its projects are closed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// No project stays open for as long as this.
const CLOSED_AFTER: Duration = Duration::from_secs(30);

/// Measures the first request to each of some closed projects, and the next one.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let data_dir = data_dir()?;
    let settings = [("IRIS_PROJECT_IDLE_SECONDS", "1"), ("IRIS_SESSION_IDLE_SECONDS", "1")];
    let server = Server::start_with(data_dir.path(), &settings)?;
    let owner = Owner::of(&server).await?;
    let mut projects = Vec::new();
    for _ in 0..PROJECTS {
        let project = new_project(&owner.client).await?;
        new_session(&owner.client, &project).await?;
        projects.push(project);
    }
    all_close(&owner).await?;
    let (mut samples, mut open) = (Vec::new(), Vec::new());
    for project in &projects {
        for took in [&mut samples, &mut open] {
            let began = Instant::now();
            let sessions =
                SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };
            owner.client.call(Some(project), sessions).await?;
            took.push(ms(began.elapsed()));
        }
    }
    server.stop()?;
    Ok(vec![Figure {
        name: "first request to a closed project",
        target: Some(OPEN_MS_MAX),
        unit: "ms",
        samples,
        comparison: format!("to an open one {:.2} ms", median(&open)),
    }])
}

async fn all_close(owner: &Owner) -> anyhow::Result<()> {
    let began = Instant::now();
    let projects = ActorList { kind: Some("project".to_owned()), under: None };
    while !owner.client.actors(&projects).await?.actors.is_empty() {
        ensure!(began.elapsed() < CLOSED_AFTER, "the projects stay open");
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}
