//! What fifty sessions that stream at once cost each other.

use std::time::Instant;

use anyhow::ensure;
use futures_util::future::try_join_all;

use crate::conversation::{Answer, Conversation, Owner, drive, model, script};
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

/// How much longer than the model alone, in percent.
const LONGER_PERCENT_MAX: f64 = 5.0;
const SESSIONS: usize = 50;
/// Between the chunks of one session.
const DELAY_MS: u64 = 5;
const ROUNDS: usize = 5;
/// An answer takes a second and text is joined for 30 ms: fewer pieces are no streaming.
const PIECES_MIN: usize = 10;

/// Measures rounds of fifty sessions of one project, and the model alone before each.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let (data_dir, script, model) = (data_dir()?, script(DELAY_MS), model()?);
    let server = Server::start(data_dir.path())?;
    let owner = Owner::of(&server).await?;
    let mut conversations = Vec::new();
    for _ in 0..SESSIONS {
        conversations.push(owner.new_session().await?);
    }
    let (mut longer, mut alone, mut crowd, mut pieces) = (vec![], vec![], vec![], usize::MAX);
    for _ in 0..ROUNDS {
        let own = ms(drive(&*model, &script).await?);
        let started_at = Instant::now();
        let answers = ask_all(&mut conversations, &script).await?;
        let took = ms(started_at.elapsed());
        longer.push((took / own - 1.0) * 100.0);
        alone.push(own);
        crowd.push(took);
        pieces = answers.iter().map(|answer| answer.pieces).fold(pieces, usize::min);
    }
    ensure!(pieces >= PIECES_MIN, "an answer came in {pieces} pieces only");
    server.stop()?;
    let (alone, crowd) = (median(&alone), median(&crowd));
    Ok(vec![Figure {
        name: "50 sessions stream at once, longer by",
        target: Some(LONGER_PERCENT_MAX),
        unit: "%",
        samples: longer,
        comparison: format!(
            "all 50 {crowd:.0} ms, model alone {alone:.0} ms; {pieces} pieces or more each"
        ),
    }])
}

/// Asks in all conversations at once and hears all answers.
async fn ask_all(conversations: &mut [Conversation], script: &str) -> anyhow::Result<Vec<Answer>> {
    try_join_all(conversations.iter_mut().map(|conversation| conversation.ask(script))).await
}
