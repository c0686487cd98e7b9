//! What Iris adds to one answer, and to a turn in which a tool is called.

use std::path::Path;

use anyhow::{bail, ensure};

use crate::commit::{PlainDatabase, commits_in_log};
use crate::floor::{self, Read};
use crate::provider::{CHUNKS, CLOSING, Plan, STAMP_BYTES};
use crate::scene::Scene;
use crate::server::project_log;
use crate::table::{Figure, median, ms};

const TURN_MS_MAX: f64 = 3.0;
const FIRST_MS_MAX: f64 = 2.0;
const TOOL_MS_MAX: f64 = 5.0;
/// How often it is measured.
pub(crate) const ROUNDS: usize = 30;
/// The log is begun anew after some turns.
const TURNS_TO_COUNT: usize = 5;
/// Turns before the first one that is measured.
const WARM_UP: usize = 3;

/// Measures turns one after the other, each in a session of its own.
pub(crate) async fn figures(rounds: usize) -> anyhow::Result<Vec<Figure>> {
    let scene = Scene::start().await?;
    let model = floor::model(&scene.provider.url)?;
    let plain = PlainDatabase::create(scene.data_dir.path())?;
    let commits = Commits::count(&scene).await?;
    let read = |plan| floor::read(&*model, plan);
    for _ in 0..WARM_UP {
        answer(&scene, Plan::Chunks(0)).await?;
        read(Plan::Chunks(0)).await?;
    }
    let (mut turn, mut first, mut tool) = (Row::default(), Row::default(), Row::default());
    for _ in 0..rounds {
        let (whole, began) = answer(&scene, Plan::Chunks(0)).await?;
        let own: Read = read(Plan::Chunks(0)).await?;
        let (with_tool, _) = answer(&scene, Plan::Tool).await?;
        let (call, closing) = (read(Plan::Tool).await?, read(Plan::Closing).await?);
        let commit = plain.commit_ms()?;
        turn.add(whole, ms(own.took), commits.of_turn * commit);
        first.add(began, ms(own.first), commits.before_text * commit);
        tool.add(with_tool, ms(call.took) + ms(closing.took), commits.of_tool_turn * commit);
    }
    scene.server.stop()?;
    Ok(vec![
        turn.figure("one turn of 200 chunks, added", TURN_MS_MAX, commits.of_turn),
        first.figure("its first text, later by", FIRST_MS_MAX, commits.before_text),
        tool.figure("a turn with a tool, added", TOOL_MS_MAX, commits.of_tool_turn),
    ])
}

/// Milliseconds of a turn in a session of its own, and until its first text.
async fn answer(scene: &Scene, plan: Plan) -> anyhow::Result<(f64, f64)> {
    let mut conversation = scene.owner.new_session().await?;
    let mut text = String::new();
    let answer = conversation.hear(&plan.message(), |heard| heard.clone_into(&mut text)).await?;
    let is_whole = match plan {
        Plan::Chunks(_) => text.len() == CHUNKS * STAMP_BYTES,
        Plan::Tool | Plan::Closing => text == CLOSING,
    };
    ensure!(is_whole, "text was lost: `{text}`");
    Ok((ms(answer.took), ms(answer.first)))
}

/// How often a turn is committed.
struct Commits {
    of_turn: f64,
    before_text: f64,
    of_tool_turn: f64,
}

impl Commits {
    /// Counts those of turns during which the log is not begun anew.
    async fn count(scene: &Scene) -> anyhow::Result<Self> {
        let log = project_log(scene.data_dir.path(), scene.owner.project.as_str());
        // Slow enough that what comes first is seen before what comes later.
        let (before_text, _) = count(scene, &log, Plan::Chunks(2)).await?;
        let (_, of_turn) = count(scene, &log, Plan::Chunks(0)).await?;
        let (_, of_tool_turn) = count(scene, &log, Plan::Tool).await?;
        ensure!(before_text > 0.0 && of_turn > 0.0 && of_tool_turn > 0.0, "nothing was recorded");
        Ok(Self { of_turn, before_text, of_tool_turn })
    }
}

/// The commits of a turn until its first text, and all of them. Where the log was begun anew meanwhile they
/// cannot be told, and the next turn is counted.
async fn count(scene: &Scene, log: &Path, plan: Plan) -> anyhow::Result<(f64, f64)> {
    for _ in 0..TURNS_TO_COUNT {
        let (before_text, all) = count_once(scene, log, plan).await?;
        if all > 0.0 {
            return Ok((before_text, all));
        }
    }
    bail!("no turn of {TURNS_TO_COUNT} was counted")
}

async fn count_once(scene: &Scene, log: &Path, plan: Plan) -> anyhow::Result<(f64, f64)> {
    let mut conversation = scene.owner.new_session().await?;
    let before = commits_in_log(log)?;
    let mut at_first = None;
    let heard = |_: &str| {
        at_first.get_or_insert_with(|| commits_in_log(log).unwrap_or_default());
    };
    conversation.hear(&plan.message(), heard).await?;
    let since = |now: usize| u32::try_from(now.saturating_sub(before)).map(f64::from);
    Ok((since(at_first.unwrap_or_default())?, since(commits_in_log(log)?)?))
}

/// Milliseconds, one of each for every round.
#[derive(Default)]
struct Row {
    added: Vec<f64>,
    iris: Vec<f64>,
    floor: Vec<f64>,
    committing: Vec<f64>,
}

impl Row {
    fn add(&mut self, iris: f64, floor: f64, committing: f64) {
        self.added.push(iris - floor - committing);
        self.iris.push(iris);
        self.floor.push(floor);
        self.committing.push(committing);
    }

    fn figure(self, name: &'static str, target: f64, commits: f64) -> Figure {
        let [iris, floor, committing] =
            [&self.iris, &self.floor, &self.committing].map(|samples| median(samples));
        let comparison = format!(
            "Iris {iris:.2} ms - reading the provider {floor:.2} ms - {commits} commits {committing:.2} ms"
        );
        Figure { name, target: Some(target), unit: "ms", samples: self.added, comparison }
    }
}
