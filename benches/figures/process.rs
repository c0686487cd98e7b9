//! What a server costs before anybody uses it: memory, time to start, and that of the command line.

use std::thread;
use std::time::Duration;

use crate::server::{Server, bare_process, data_dir};
use crate::table::{Figure, median, ms};

/// Megabytes (10^6 bytes) of resident memory.
const IDLE_MEMORY_MB_MAX: f64 = 30.0;
const COLD_START_MS_MAX: f64 = 100.0;
const HELP_MS_MAX: f64 = 5.0;
const SERVERS: usize = 3;
const STARTS: usize = 11;
const HELPS: usize = 41;
/// How long a server is left alone before its memory is read again.
const IDLE_FOR: Duration = Duration::from_secs(1);

/// Measures idle memory, cold starts and the command line.
pub(crate) fn figures() -> anyhow::Result<Vec<Figure>> {
    let (fresh, existing) = cold_starts()?;
    Ok(vec![idle_memory()?, fresh, existing, help()?])
}

/// What every command takes at least, with a text that is put together first.
fn help() -> anyhow::Result<Figure> {
    let (mut samples, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..HELPS {
        samples.push(ms(bare_process("--help")?));
        bare.push(ms(bare_process("--version")?));
    }
    let comparison = format!("`iris --version` {:.2} ms", median(&bare));
    Ok(Figure { name: "iris --help", target: Some(HELP_MS_MAX), unit: "ms", samples, comparison })
}

fn idle_memory() -> anyhow::Result<Figure> {
    let (mut samples, mut at_ready, mut anonymous) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SERVERS {
        let data_dir = data_dir()?;
        let server = Server::start(data_dir.path())?;
        at_ready.push(server.memory_mb("VmRSS")?);
        thread::sleep(IDLE_FOR);
        samples.push(server.memory_mb("VmRSS")?);
        anonymous.push(server.memory_mb("RssAnon")?);
        server.stop()?;
    }
    let comparison = format!(
        "when ready {:.1} MB; of it not from files {:.1} MB",
        median(&at_ready),
        median(&anonymous)
    );
    let target = Some(IDLE_MEMORY_MB_MAX);
    Ok(Figure { name: "idle server, resident memory", target, unit: "MB", samples, comparison })
}

/// Starts each server twice on one directory: first it is new, then it is there.
fn cold_starts() -> anyhow::Result<(Figure, Figure)> {
    let mut fresh = Starts::default();
    let mut existing = Starts::default();
    let mut bare = Vec::new();
    for _ in 0..STARTS {
        let data_dir = data_dir()?;
        fresh.add(Server::start(data_dir.path())?)?;
        existing.add(Server::start(data_dir.path())?)?;
        bare.push(ms(bare_process("--version")?));
    }
    let bare = median(&bare);
    let fresh = fresh.figure("cold start to ready, new data directory", bare);
    Ok((fresh, existing.figure("cold start to ready, existing data directory", bare)))
}

#[derive(Default)]
struct Starts {
    ready: Vec<f64>,
    listening: Vec<f64>,
}

impl Starts {
    fn add(&mut self, server: Server) -> anyhow::Result<()> {
        self.ready.push(ms(server.ready_after));
        self.listening.push(ms(server.listening_after));
        server.stop()
    }

    fn figure(self, name: &'static str, bare: f64) -> Figure {
        let listening = median(&self.listening);
        let comparison = format!("listens after {listening:.1} ms; `iris --version` {bare:.1} ms");
        let target = Some(COLD_START_MS_MAX);
        Figure { name, target, unit: "ms", samples: self.ready, comparison }
    }
}
