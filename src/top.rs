//! `iris top`: the actors of a server, live, for operators.
//!
//! The screen is a pure model: `state::State` is what is known, `update` takes events to it and
//! says what to do, `draw` shows it. `screen` alone has a terminal, timers and a server. Deliberately
//! absent: anything that is not in the operations `admin.*`.

mod draw;
mod keys;
mod log;
mod once;
mod rows;
mod screen;
mod state;
mod update;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use iris_protocol::{ActorList, ProjectId};

use crate::remote::{self, Remote, RemoteError};

/// Where projects stand in the tree of actors.
const PROJECTS: &str = "node/directory/project/";
/// Shortest and longest time between two looks at the server.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_hours(1);

/// What to show, of which server.
#[derive(Clone, clap::Args)]
pub struct TopOptions {
    /// The server.
    #[command(flatten)]
    pub remote: Remote,
    /// Only the actors of this project
    #[arg(long)]
    pub project: Option<ProjectId>,
    /// Only actors of this kind, such as `session`
    #[arg(long)]
    pub kind: Option<String>,
    /// Time between two looks at the server, like `500ms` or `2s`
    #[arg(long, default_value = "1s", value_parser = interval)]
    pub interval: Duration,
    /// Print the actors once, as a table, and end
    #[arg(long)]
    pub once: bool,
    /// Print them as one line of JSON
    #[arg(long, requires = "once")]
    pub json: bool,
}

/// Runs the command until the operator leaves.
pub fn run(options: &TopOptions) -> ExitCode {
    remote::block_on("top", show(options))
}

async fn show(options: &TopOptions) -> Result<(), RemoteError> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if !options.once && !is_terminal {
        let text = "standard input and output are no terminal: use `--once` or `--once --json`";
        return Err(RemoteError::Usage(text.to_owned()));
    }
    let client = options.remote.client().await?;
    let under = options.project.as_ref().map(project_path);
    let query = ActorList { kind: options.kind.clone(), under };
    let shown = async {
        // Before the terminal is touched: who cannot be reached or refuses ends the command.
        let page = client.actors(&query).await?;
        if options.once {
            return once::print(&page, options.json);
        }
        screen::run(&client, query, page, options.interval).await
    };
    let outcome = shown.await;
    options.remote.leave(&client).await;
    outcome
}

/// Where a project stands.
fn project_path(project: &ProjectId) -> String {
    format!("{PROJECTS}{project}")
}

/// The project that an actor belongs to, when it belongs to one.
fn project_of(path: &str) -> Option<&str> {
    path.strip_prefix(PROJECTS)?.split('/').next()
}

/// Reads a time like `500ms`, `2s` or `1m`.
fn interval(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (amount, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => return Err(format!("`{unit}` is not `ms`, `s` or `m`")),
    };
    let ms = amount.parse::<u64>().ok().and_then(|amount| amount.checked_mul(unit_ms));
    let time = ms.map(Duration::from_millis);
    let time = time.filter(|time| (INTERVAL_MIN..=INTERVAL_MAX).contains(time));
    time.ok_or_else(|| format!("`{text}` is not a time from 100ms to 60m"))
}

#[cfg(test)]
mod tests;
