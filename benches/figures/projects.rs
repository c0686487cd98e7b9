//! What a server costs that has a hundred projects, while nobody needs them: time to start, memory and
//! processor time.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context;

use crate::conversation::{Owner, new_project, new_session};
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

const COLD_START_MS_MAX: f64 = 100.0;
/// Megabytes (10^6 bytes) of resident memory.
const IDLE_MEMORY_MB_MAX: f64 = 30.0;
/// Of one processor.
const IDLE_PERCENT_MAX: f64 = 0.1;
const PROJECTS: usize = 100;
const STARTS: usize = 11;
/// What a start does after the server is ready is over by then.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a server is watched, and how often.
const WINDOW: Duration = Duration::from_secs(15);
const WINDOWS: usize = 3;

/// Makes the projects, each with a session, and measures servers that start with them.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let data_dir = data_dir()?;
    let server = Server::start(data_dir.path())?;
    let owner = Owner::of(&server).await?;
    for _ in 1..PROJECTS {
        let project = new_project(&owner.client).await?;
        new_session(&owner.client, &project).await?;
    }
    server.stop()?;

    let (mut ready, mut listening) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let server = Server::start(data_dir.path())?;
        ready.push(ms(server.ready_after));
        listening.push(ms(server.listening_after));
        server.stop()?;
    }
    let start = Figure {
        name: "cold start to ready, 100 projects",
        target: Some(COLD_START_MS_MAX),
        unit: "ms",
        samples: ready,
        comparison: format!("listens after {:.1} ms", median(&listening)),
    };
    let [memory, processor] = idle(data_dir.path())?;
    Ok(vec![start, memory, processor])
}

/// Memory and processor time of a server that nobody asks for anything.
fn idle(data_dir: &Path) -> anyhow::Result<[Figure; 2]> {
    let server = Server::start(data_dir)?;
    thread::sleep(SETTLE);
    let (mut megabytes, mut percent, mut wakeups) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..WINDOWS {
        let before = Activity::of(server.id())?;
        thread::sleep(WINDOW);
        let after = Activity::of(server.id())?;
        percent.push((after.seconds - before.seconds) / WINDOW.as_secs_f64() * 100.0);
        wakeups.push((after.wakeups - before.wakeups) / WINDOW.as_secs_f64());
        megabytes.push(server.memory_mb("VmRSS")?);
    }
    let anonymous = server.memory_mb("RssAnon")?;
    server.stop()?;
    let memory = Figure {
        name: "idle server, 100 projects, resident memory",
        target: Some(IDLE_MEMORY_MB_MAX),
        unit: "MB",
        samples: megabytes,
        comparison: format!("of it not from files {anonymous:.1} MB"),
    };
    let processor = Figure {
        name: "idle server, 100 projects, processor time",
        target: Some(IDLE_PERCENT_MAX),
        unit: "%",
        samples: percent,
        comparison: format!("its threads wake {:.1} times a second", median(&wakeups)),
    };
    Ok([memory, processor])
}

/// What all threads of a process have done so far.
#[derive(Default)]
struct Activity {
    /// On a processor.
    seconds: f64,
    /// How often one got a processor.
    wakeups: f64,
}

impl Activity {
    /// By the nanosecond, unlike `/proc/PID/stat`; see proc(5), `schedstat`.
    fn of(process: u32) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let line = fs::read_to_string(thread?.path().join("schedstat"))?;
            let mut numbers = line.split_whitespace().map(str::parse::<f64>);
            let mut number = || numbers.next().context("a number is missing");
            all.seconds += number()?? / 1e9;
            number()??;
            all.wakeups += number()??;
        }
        Ok(all)
    }
}
