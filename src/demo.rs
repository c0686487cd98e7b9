//! `iris demo`: the real server, two people with real sockets and an agent, in one short story.
//!
//! Ann and ben share a session. Ann asks, the agent streams, reads and writes, ben decides what may
//! be written, and every event is printed as it arrives at either of them. In the end the demo checks
//! that both saw the same. Log lines stay off.

mod cast;
mod checks;
mod look;
mod plot;
mod screen;
mod stage;
mod words;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use iris_auth::SetupToken;
use iris_client::ClientError;
use iris_protocol::{ErrorCode, Event, RunId};
use tokio::signal::ctrl_c;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::app::{App, AppError, Dependencies};
use crate::config::ConfigError;
use cast::{Cast, Verdict, Viewer};
use checks::{Check, Evidence};
use screen::Screen;
use stage::Stage;

/// How long the server may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// How long ann waits for a run. Two of them fit into the time of a demo on a real model.
const RUN_TIME_MAX: Duration = Duration::from_secs(45);

/// What the demo runs on.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoOptions {
    /// `openai-compatible/NAME` to run it on a real model
    #[arg(long, requires = "base_url", value_parser = stage::real_model)]
    pub model: Option<String>,
    /// Base URL of the real model's provider
    #[arg(long, requires = "model")]
    pub base_url: Option<Url>,
    /// Key for the real model's provider
    #[arg(long, env = "IRIS_DEMO_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Any text: no colour, even on a terminal (<https://no-color.org>)
    #[arg(long, env = "NO_COLOR", hide = true)]
    pub no_color: Option<String>,
    /// Print what was checked in the end, each as one line of JSON, and nothing of the story
    #[arg(long)]
    pub json: bool,
}

/// Why the demo could not go on.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("the temporary directory: {0}")]
    Directory(#[source] io::Error),
    #[error("standard output: {0}")]
    Screen(#[source] io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the server has an administrator already")]
    NoSetupToken,
    #[error("the server did not stop within {} s", STOP_TIMEOUT.as_secs())]
    NotStopped,
    #[error("it was not told within {} s", .0.as_secs())]
    TimeUp(Duration),
    #[error("interrupted")]
    Interrupted,
}

/// Runs the demo. Succeeds when all that was expected did happen.
pub fn run(options: DemoOptions) -> ExitCode {
    let no_color = options.no_color.as_ref().is_some_and(|value| !value.is_empty());
    let is_coloured = io::stdout().is_terminal() && !no_color;
    let out: Box<dyn Write> =
        if options.json { Box::new(io::sink()) } else { Box::new(io::stdout()) };
    let mut screen = Screen::new(out, is_coloured);
    match actix_rt::System::new().block_on(perform(options, &mut screen)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            drop(writeln!(io::stderr(), "iris: demo: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Starts a server, tells the story, stops the server, leaves nothing behind. Says whether all that
/// was expected did happen.
async fn perform(options: DemoOptions, screen: &mut Screen) -> Result<bool, DemoError> {
    let started = Instant::now();
    let is_json = options.json;
    let stage = Stage::set(options)?;
    let app = App::start(stage.config()?, Dependencies::default()).await?;
    let mut evidence = Evidence::default();
    let time = stage.time_max().saturating_sub(started.elapsed() + STOP_TIMEOUT);
    let outcome = Box::pin(tell_in_time(time, &stage, &app, screen, &mut evidence)).await;
    let stopped = timeout(STOP_TIMEOUT, app.stop()).await;
    let is_scripted = stage.is_scripted();
    stage.clear()?;
    let stopped = stopped.map_or(Err(DemoError::NotStopped), |stopped| Ok(stopped?));

    let mut checks = vec![told(outcome.and(stopped))];
    checks.extend(checks::hold_for_any_model(&evidence));
    if is_scripted {
        checks.extend(plot::checks(&evidence));
    }
    screen.verdict(&checks, &evidence, started.elapsed()).map_err(DemoError::Screen)?;
    if is_json {
        for check in &checks {
            writeln!(io::stdout(), "{}", check.json()).map_err(DemoError::Screen)?;
        }
    }
    Ok(checks.iter().all(Check::holds))
}

fn told(outcome: Result<(), DemoError>) -> Check {
    let failures = outcome.err().map(|error| error.to_string());
    Check::new("the story was told to its end", failures.into_iter().collect())
}

async fn tell_in_time(
    time: Duration,
    stage: &Stage,
    app: &App,
    screen: &mut Screen,
    evidence: &mut Evidence,
) -> Result<(), DemoError> {
    let token = app.setup_token().ok_or(DemoError::NoSetupToken)?;
    let url = format!("http://{}", app.address());
    tokio::select! {
        told = timeout(time, tell(&url, token, stage, screen, evidence)) => {
            told.unwrap_or(Err(DemoError::TimeUp(time)))
        }
        _ = ctrl_c() => Err(DemoError::Interrupted),
    }
}

/// The story, from the first account to the last event.
async fn tell(
    url: &str,
    token: &SetupToken,
    stage: &Stage,
    screen: &mut Screen,
    evidence: &mut Evidence,
) -> Result<(), DemoError> {
    screen.title(url, stage.model()).map_err(DemoError::Screen)?;
    let cast = Cast::assemble(url, token.as_str()).await?;
    screen.introduce(HashMap::from(
        [&cast.ann, &cast.ben].map(|person| (person.id.clone(), person.name)),
    ));
    evidence.ben_id = Some(cast.ben.id.clone());
    let mut story = Story { cast, screen, evidence };
    story.settle().await?;
    story.act(Viewer::Ann, &format!("puts `{}` with REST", plot::NOTES_PATH))?;
    story.cast.put_file(plot::NOTES_PATH, plot::NOTES).await?;
    story.settle().await?;
    let [first, second] = stage.messages();
    story.converse(first, Verdict::Approve).await?;
    story.converse(second, Verdict::Reject { reason: plot::REASON }).await?;
    story.look_at_files().await
}

/// A story that is being told: who takes part, where it is shown, what was seen.
struct Story<'a> {
    cast: Cast,
    screen: &'a mut Screen,
    evidence: &'a mut Evidence,
}

impl Story<'_> {
    /// Ann sends a message; ben gives his verdict on whatever asks, until the run has ended.
    async fn converse(&mut self, message: &str, verdict: Verdict) -> Result<(), DemoError> {
        self.act(Viewer::Ann, &format!("sends \"{message}\""))?;
        let run_id = self.cast.send(message).await?;
        self.evidence.runs.push(run_id.clone());
        let mut patience = pin!(sleep(RUN_TIME_MAX));
        loop {
            let (viewer, event) = tokio::select! {
                next = self.next() => next?,
                () = &mut patience, if !self.evidence.cancelled.contains(&run_id) => {
                    self.cancel(&run_id).await?;
                    continue;
                }
            };
            if let (Viewer::Ben, Event::ToolApprovalRequired { approval: Some(asked), .. }) =
                (viewer, &event)
            {
                self.act(Viewer::Ben, &format!("{} the call: {}", verdict.says(), asked.message))?;
                self.cast.decide(&asked.tool_call_id, verdict).await?;
            }
            if matches!(event, Event::RunCompleted { run_id: ended, .. } if ended == run_id) {
                return self.settle().await;
            }
        }
    }

    /// Ann has waited long enough: small models may talk without end.
    async fn cancel(&mut self, run_id: &RunId) -> Result<(), DemoError> {
        self.act(Viewer::Ann, "cancels a run that does not come to an end")?;
        self.evidence.cancelled.push(run_id.clone());
        Ok(self.cast.cancel().await?)
    }

    /// Reads on until both have seen all that the server has recorded.
    async fn settle(&mut self) -> Result<(), DemoError> {
        let snapshot = self.cast.snapshot().await?;
        let last = snapshot.as_of.seq;
        self.evidence.stored = Some(snapshot);
        while !Viewer::BOTH.into_iter().all(|viewer| self.evidence.has_all(viewer, last)) {
            self.next().await?;
        }
        Ok(())
    }

    /// Reads back, with REST, the files that the agent wanted to write.
    async fn look_at_files(&mut self) -> Result<(), DemoError> {
        for path in [plot::APPROVED_PATH, plot::REJECTED_PATH] {
            let content = match self.cast.get_file(path).await {
                Ok(content) => Some(content),
                Err(error) if error.code() == ErrorCode::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            self.evidence.files.insert(path, content);
        }
        Ok(())
    }

    /// Waits for the next event on either side, shows it and keeps it.
    async fn next(&mut self) -> Result<(Viewer, Event), DemoError> {
        let (viewer, frame) = self.cast.next_event().await?;
        self.screen.show(viewer, &frame).map_err(DemoError::Screen)?;
        let event = frame.event.clone();
        self.evidence.keep(viewer, frame);
        Ok((viewer, event))
    }

    fn act(&mut self, viewer: Viewer, what: &str) -> Result<(), DemoError> {
        self.screen.act(viewer, what).map_err(DemoError::Screen)
    }
}
