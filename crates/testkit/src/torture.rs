//! Kills the real server at random moments under load, starts it again, and compares what is left with
//! what its clients were told.
//!
//! Several clients send messages, open sessions, write files, approve tool calls and change members,
//! each request under an idempotency key, while the scripted model answers. After `kill -9` the server
//! starts again on the same directory; what has no answer is repeated with its key. Then the databases
//! are read past the server, and the server is asked, too: nothing that was acknowledged or heard may be
//! lost or differ, nothing may be there twice, events have numbers without gaps, no run works without an
//! actor. Everything that clients do and when the server dies is drawn from a seed.

mod check;
mod client;
mod ledger;
mod life;
mod plan;
mod start;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;

use life::Life;

/// How to torture.
#[derive(Debug, Clone)]
pub struct TortureOptions {
    /// The command that is killed.
    pub iris: PathBuf,
    /// Where data directories are made.
    pub directory: PathBuf,
    /// Decides what clients do and when the server dies.
    pub seed: u64,
    /// How often it dies.
    pub rounds: u32,
    /// Rounds on one data directory, before the next one.
    pub rounds_of_directory: u32,
    /// Projects of a data directory.
    pub projects: usize,
    /// Clients, every second of them on a socket.
    pub clients: usize,
    /// The latest moment of death, from the begin of the load.
    pub killed_within: Duration,
    /// How soon a server that starts again has to be ready.
    pub ready_within: Duration,
    /// More environment of the server.
    pub environment: Vec<(String, String)>,
}

impl TortureOptions {
    /// A few projects and clients, in the directory for temporary files.
    pub fn new(iris: impl Into<PathBuf>, seed: u64, rounds: u32) -> Self {
        Self {
            iris: iris.into(),
            directory: std::env::temp_dir(),
            seed,
            rounds,
            rounds_of_directory: 25,
            projects: 4,
            clients: 6,
            killed_within: Duration::from_millis(80),
            ready_within: Duration::from_secs(1),
            environment: Vec::new(),
        }
    }
}

/// What one round showed.
#[derive(Debug, Clone, Default)]
pub struct Round {
    /// From 1.
    pub number: u32,
    /// When the server died, from the begin of the load.
    pub killed_after: Duration,
    /// Commands that were acknowledged before.
    pub acknowledged: usize,
    /// Commands that had no answer.
    pub unanswered: usize,
    /// Those of them that were committed all the same, messages and sessions alone.
    pub committed_unanswered: usize,
    /// Events that clients have heard in this directory so far.
    pub heard: usize,
    /// From the start of the process until it said that it is ready.
    pub ready: Duration,
    /// From the start of the process until it answered a request in a project.
    pub answered: Duration,
    /// Everything that is wrong; empty is good.
    pub findings: Vec<String>,
}

/// What all rounds showed.
#[derive(Debug, Clone, Default)]
pub struct Torture {
    /// In order.
    pub rounds: Vec<Round>,
    /// Where the data directory of the round with findings is, and the seed with which that directory's
    /// rounds begin again.
    pub kept: Option<(PathBuf, u64)>,
}

impl Torture {
    /// Everything that is wrong.
    pub fn findings(&self) -> impl Iterator<Item = &String> {
        self.rounds.iter().flat_map(|round| &round.findings)
    }

    /// The sum over all rounds.
    pub fn total(&self, count: impl Fn(&Round) -> usize) -> usize {
        self.rounds.iter().map(count).sum()
    }

    /// Rounds so far.
    fn count(&self) -> u32 {
        u32::try_from(self.rounds.len()).unwrap_or(u32::MAX)
    }

    /// Durations of all rounds, shortest first.
    pub fn sorted(&self, duration: impl Fn(&Round) -> Duration) -> Vec<Duration> {
        let mut durations: Vec<_> = self.rounds.iter().map(duration).collect();
        durations.sort();
        durations
    }
}

/// Tortures until all rounds are done or one has findings; `told` hears of each.
///
/// # Panics
/// When a server does not start, or anything else fails that is not about what is tested.
pub async fn torture(options: &TortureOptions, mut told: impl FnMut(&Round)) -> Torture {
    let mut outcome = Torture::default();
    let mut seed = options.seed;
    while outcome.count() < options.rounds {
        let left = options.rounds - outcome.count();
        let rounds = left.min(options.rounds_of_directory);
        let (path, found) = torture_directory(options, seed, rounds, &mut told, &mut outcome).await;
        if found {
            outcome.kept = Some((path, seed));
            return outcome;
        }
        std::fs::remove_dir_all(path).unwrap();
        seed = seed.wrapping_add(1);
    }
    outcome
}

/// Gives the directory and whether anything was found in it.
async fn torture_directory(
    options: &TortureOptions,
    seed: u64,
    rounds: u32,
    told: &mut impl FnMut(&Round),
    outcome: &mut Torture,
) -> (PathBuf, bool) {
    let path = new_directory(&options.directory);
    let mut random = Rng::with_seed(seed);
    let mut life = Life::begin(options, &path).await;
    for number in 1..=rounds {
        let longest = u64::try_from(options.killed_within.as_micros()).unwrap();
        let killed_after = Duration::from_micros(random.u64(1_000..=longest));
        let mut round = life.round(options, seed, number, killed_after).await;
        round.number = outcome.count() + 1;
        told(&round);
        let found = !round.findings.is_empty();
        outcome.rounds.push(round);
        if found {
            return (path, true);
        }
    }
    life.end().await;
    (path, false)
}

/// One that stays when something panics.
fn new_directory(parent: &Path) -> PathBuf {
    tempfile::Builder::new().prefix("iris-torture-").tempdir_in(parent).unwrap().keep()
}
