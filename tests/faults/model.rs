//! Random plans: a project changes, its listeners have a bad network, the server is killed, members come
//! and go. Whenever the sun comes out everybody has heard each event once, in order, and knows what the
//! server knows.
//!
//! A plan follows from its seed, which is printed, and is kept in `target/tmp` until it went well:
//! `IRIS_MODEL_PLAN=FILE` plays one again, `IRIS_MODEL_SEED` makes others.

mod ear;
mod listener;
mod play;
mod streamer;

use std::path::Path;

use serde::{Deserialize, Serialize};

use play::Play;

/// Of the plans of which the seeds follow from this one.
const SEED: u64 = 20_261_128;
/// Plans in one run; `IRIS_MODEL_PLANS` makes it more.
const PLANS: u64 = 3;
const STEPS: usize = 60;
const LISTENERS: usize = 4;
const SESSIONS: usize = 3;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Plan {
    seed: u64,
    steps: Vec<Step>,
}

/// What happens next. Listeners and sessions go by number; the first listener is the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    /// Sessions get new names.
    Rename {
        session: usize,
        times: usize,
    },
    /// A model says so many words.
    Say {
        session: usize,
        words: usize,
    },
    /// A listener hears a room; none of a session is that of the project.
    Join {
        listener: usize,
        session: Option<usize>,
    },
    Leave {
        listener: usize,
        session: Option<usize>,
    },
    /// The connections of a listener end.
    Cut {
        listener: usize,
    },
    /// They stay, and nothing arrives any more.
    Stall {
        listener: usize,
    },
    /// So many bytes arrive at a time.
    Slow {
        listener: usize,
        bytes: usize,
        delay_ms: u64,
    },
    Fair {
        listener: usize,
    },
    /// A listener is no member for a while.
    Remove {
        listener: usize,
    },
    Add {
        listener: usize,
    },
    /// A member becomes an administrator of the project, or a viewer again.
    ChangeRole {
        listener: usize,
    },
    /// Everybody goes, the project is closed, everybody comes back.
    Rest,
    /// The server is killed and starts again.
    Kill,
    /// Everybody catches up and is compared.
    Calm,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut steps = Vec::new();
        for listener in 0..LISTENERS {
            steps.push(Step::Join { listener, session: None });
            steps.push(Step::Join { listener, session: Some(random.usize(..SESSIONS)) });
        }
        steps.extend((0..STEPS).map(|n| Self::step(n, &mut random)));
        steps.push(Step::Calm);
        Self { seed, steps }
    }

    fn step(n: usize, random: &mut fastrand::Rng) -> Step {
        if n % 20 == 19 {
            return Step::Calm;
        }
        let listener = random.usize(..LISTENERS);
        let member = random.usize(1..LISTENERS);
        let session = random.usize(..SESSIONS);
        let room = random.bool().then_some(session);
        match random.u32(..100) {
            0..20 => Step::Rename { session, times: random.usize(1..8) },
            20..40 => Step::Say { session, words: random.usize(1..400) },
            40..48 => Step::Join { listener, session: room },
            48..52 => Step::Leave { listener, session: room },
            52..64 => Step::Cut { listener },
            64..70 => Step::Stall { listener },
            70..74 => Step::Slow { listener, bytes: 1, delay_ms: 0 },
            74..76 => Step::ChangeRole { listener: member },
            76..78 => {
                let (bytes, delay_ms) = (random.usize(64..1024), random.u64(1..5));
                Step::Slow { listener, bytes, delay_ms }
            }
            78..82 => Step::Fair { listener },
            82..87 => Step::Remove { listener: member },
            87..93 => Step::Add { listener: member },
            93..95 => Step::Rest,
            _ => Step::Kill,
        }
    }

    fn from_environment() -> Option<Self> {
        let file = std::env::var_os("IRIS_MODEL_PLAN")?;
        Some(serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap())
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

async fn play(plan: Plan) {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("plan-{}.json", plan.seed));
    std::fs::write(&kept, serde_json::to_vec_pretty(&plan).unwrap()).unwrap();
    eprintln!("seed {}, plan {}", plan.seed, kept.display());
    let mut everybody = Play::begin().await;
    for (number, step) in plan.steps.iter().enumerate() {
        everybody.step(number, *step).await;
    }
    eprintln!("seed {}: {}", plan.seed, everybody.end());
    std::fs::remove_file(kept).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_everybody_hears_everything_once_and_in_order() {
    if let Some(plan) = Plan::from_environment() {
        return play(plan).await;
    }
    let first = number("IRIS_MODEL_SEED", SEED);
    for seed in first..first + number("IRIS_MODEL_PLANS", PLANS) {
        play(Plan::of(seed)).await;
    }
}
