//! Where the programs of a measurement run and what they use: one core is the server's, another one the
//! clients'.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::Duration;

use anyhow::{Context, ensure};

/// The core of the server that is measured.
pub(crate) const SERVER_CORE: usize = 0;
/// The core of all clients.
const CLIENT_CORE: usize = 1;
/// A clock tick in `/proc/PID/stat`; the same on every Linux that this runs on.
const TICK: Duration = Duration::from_millis(10);

/// A program that runs on one core.
pub(crate) fn pinned(core: usize, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Puts this process on the core of clients.
pub(crate) fn become_client() -> anyhow::Result<()> {
    ensure!(available_parallelism()?.get() > 1, "server and clients need a core each");
    rlimit::increase_nofile_limit(rlimit::INFINITY)?;
    let (core, id) = (CLIENT_CORE.to_string(), std::process::id().to_string());
    let output = Command::new("taskset").args(["-a", "-c", "-p", &core, &id]).output();
    let output = output.context("`taskset` is not installed")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The processor time that a process has used, its own and the kernel's for it.
pub(crate) fn cpu_time(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may hold anything; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("not a line of `stat`")?;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || times.next().context("no times").and_then(|field| Ok(field.parse::<u32>()?));
    Ok(TICK * (ticks()? + ticks()?))
}

/// How many `WebSocket`s a server can hold, each of which needs one descriptor, at most `wanted`.
pub(crate) fn connections_max(wanted: usize) -> anyhow::Result<usize> {
    /// Databases, listeners, timers and whatever else a server has open.
    const OTHERS: usize = 100;
    let (_, hard) = rlimit::Resource::NOFILE.get()?;
    Ok(wanted.min(usize::try_from(hard)?.saturating_sub(OTHERS)))
}
