//! Kills the real server at random moments under load and looks for what it lost.
//!
//! ```text
//! cargo run -p iris-testkit --example torture -- --rounds 500
//! cargo run -p iris-testkit --example torture -- --rounds 25 --seed 7
//! IRIS_FAULT_ACK_EARLY=5 cargo run -p iris-testkit --example torture -- --rounds 25
//! ```
//!
//! Without `--iris` it builds the command first, with the feature `faults`: the last line is the
//! negative control, a server that acknowledges before it commits, in which the same program has to find
//! what is lost. Ends with 1 when anything is found.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Parser;
use iris_testkit::torture::{Round, Torture, TortureOptions, torture};

/// Kills a server under load, again and again, and compares what is left with what it acknowledged.
#[derive(Parser)]
struct Options {
    /// How often the server is killed
    #[arg(long, default_value_t = 500)]
    rounds: u32,
    /// Decides what clients do and when the server dies; random when absent
    #[arg(long)]
    seed: Option<u64>,
    /// Projects on each server
    #[arg(long, default_value_t = 100)]
    projects: usize,
    /// Clients of each server; every second one is on a WebSocket, the others use REST
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Rounds on one data directory
    #[arg(long, default_value_t = 25)]
    rounds_of_directory: u32,
    /// Latest moment of death, in milliseconds after the load began
    #[arg(long, default_value_t = 80)]
    killed_within_ms: u64,
    /// The command that is killed; built when absent
    #[arg(long)]
    iris: Option<PathBuf>,
    /// Where data directories are made
    #[arg(long)]
    directory: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let iris = match options.iris {
        Some(iris) => iris,
        None => build()?,
    };
    let mut torturing = TortureOptions::new(iris, seed, options.rounds);
    torturing.projects = options.projects;
    torturing.clients = options.clients;
    torturing.rounds_of_directory = options.rounds_of_directory;
    torturing.killed_within = Duration::from_millis(options.killed_within_ms);
    torturing.directory = options.directory.unwrap_or(torturing.directory);
    // The server gets no other environment.
    let faults = std::env::vars().filter(|(name, _)| name.starts_with("IRIS_FAULT_"));
    torturing.environment.extend(faults);
    let (rounds, projects, clients) = (torturing.rounds, torturing.projects, torturing.clients);
    say(&format!("seed {seed}: {rounds} rounds, {projects} projects, {clients} clients"))?;
    let outcome = torture(&torturing, |round| say(&line(round)).unwrap_or_default()).await;
    summary(&outcome, &torturing)?;
    let is_good = outcome.findings().next().is_none();
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the command as this program was built, and says where it is.
fn build() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").context("no `--iris`, and not run by cargo")?;
    let mut command = Command::new(cargo);
    command.args(["build", "--package", "iris", "--bin", "iris", "--features", "faults"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    ensure!(command.status()?.success(), "the command could not be built");
    let here = std::env::current_exe()?;
    let folder = here.parent().and_then(|examples| examples.parent()).context("no folder")?;
    Ok(folder.join("iris"))
}

fn say(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{text}")
}

fn line(round: &Round) -> String {
    let Round { number, acknowledged, unanswered, committed_unanswered, heard, .. } = round;
    let mut line = format!(
        "{number:>4}  killed after {:>5.1} ms  {acknowledged:>4} acknowledged  \
         {unanswered:>3} unanswered ({committed_unanswered:>2} committed)  {heard:>6} events heard  \
         ready {:>4.0} ms  answered {:>4.0} ms",
        ms(round.killed_after),
        ms(round.ready),
        ms(round.answered),
    );
    for finding in &round.findings {
        line.push_str("\n      FOUND ");
        line.push_str(finding);
    }
    line
}

fn summary(outcome: &Torture, options: &TortureOptions) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let findings = outcome.findings().count();
    let ready = outcome.sorted(|round| round.ready);
    let answered = outcome.sorted(|round| round.answered);
    let middle_and_last = |sorted: &[Duration]| {
        let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
        let (middle, last) = (at(sorted.len() / 2), at(sorted.len().saturating_sub(1)));
        format!("{:.0} ms in the middle, {:.0} ms at most", ms(middle), ms(last))
    };
    for (what, value) in [
        ("seed", options.seed.to_string()),
        ("rounds", outcome.rounds.len().to_string()),
        ("acknowledged commands", outcome.total(|round| round.acknowledged).to_string()),
        ("commands without an answer", outcome.total(|round| round.unanswered).to_string()),
        ("of these committed", outcome.total(|round| round.committed_unanswered).to_string()),
        ("ready again", middle_and_last(&ready)),
        ("first request answered", middle_and_last(&answered)),
        ("findings", findings.to_string()),
    ] {
        writeln!(out, "{what:<28} {value}")?;
    }
    if let Some((path, seed)) = &outcome.kept {
        let path = path.display();
        let rounds = outcome.rounds.len();
        writeln!(
            out,
            "\nThe data directory is kept: {path}\n\
             Its databases are open to `sqlite3`, its server's last log is `{path}/server.log`.\n\
             The rounds of this directory again: --seed {seed} --rounds {}",
            1 + (rounds.saturating_sub(1)) % options.rounds_of_directory as usize,
        )?;
    }
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
