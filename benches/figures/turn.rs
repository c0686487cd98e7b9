//! What Iris adds to the model in one turn whose chunks come without a delay.

use std::path::Path;

use anyhow::ensure;

use crate::commit::{PlainDatabase, commits_in_log};
use crate::conversation::{Owner, drive, model, script};
use crate::server::{Server, data_dir, project_log};
use crate::table::{Figure, median, ms};

const OVERHEAD_MS_MAX: f64 = 8.0;
const TURNS: usize = 30;

/// Measures turns one after the other, each in a session of its own.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let (data_dir, script, model) = (data_dir()?, script(0), model()?);
    let server = Server::start(data_dir.path())?;
    let owner = Owner::of(&server).await?;
    let plain = PlainDatabase::create(data_dir.path())?;
    let commits = commits_of_a_turn(&owner, &script, data_dir.path()).await?;

    let mut samples = Samples::default();
    for _ in 0..TURNS {
        let mut conversation = owner.new_session().await?;
        let turn = ms(conversation.ask(&script).await?.took);
        let own = ms(drive(&*model, &script).await?);
        let committing = plain.commit_ms()? * commits;
        samples.overhead.push(turn - own - committing);
        samples.turn.push(turn);
        samples.own.push(own);
        samples.committing.push(committing);
    }
    server.stop()?;
    Ok(vec![samples.figure(commits)])
}

/// The first turn of the project, during which its log is not begun anew.
async fn commits_of_a_turn(owner: &Owner, script: &str, data_dir: &Path) -> anyhow::Result<f64> {
    let log = project_log(data_dir, owner.project.as_str());
    let mut conversation = owner.new_session().await?;
    let before = commits_in_log(&log)?;
    conversation.ask(script).await?;
    let commits = commits_in_log(&log)?.saturating_sub(before);
    ensure!(commits > 0, "a turn without a commit was not recorded");
    Ok(f64::from(u32::try_from(commits)?))
}

/// Milliseconds, one of each for every turn.
#[derive(Default)]
struct Samples {
    overhead: Vec<f64>,
    turn: Vec<f64>,
    own: Vec<f64>,
    committing: Vec<f64>,
}

impl Samples {
    fn figure(self, commits: f64) -> Figure {
        let [turn, own, committing] =
            [&self.turn, &self.own, &self.committing].map(|samples| median(samples));
        Figure {
            name: "one turn of 200 chunks, overhead",
            target: Some(OVERHEAD_MS_MAX),
            unit: "ms",
            samples: self.overhead,
            comparison: format!(
                "turn {turn:.1} ms - model alone {own:.1} ms - {commits} commits {committing:.1} ms"
            ),
        }
    }
}
