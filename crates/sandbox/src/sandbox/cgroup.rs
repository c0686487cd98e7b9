//! A control group (cgroup v2) for one command: its processes and memory counted together, and killed
//! together.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::config::Limits;
use crate::error::SandboxError;

/// How the groups of this server begin.
const PREFIX: &str = "iris-sandbox-";
/// Processes and threads of a launcher, which is in the group too.
const LAUNCHER_TASKS: u64 = 8;
/// In which processor time is shared out, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// How often, and how many times, a group is looked at that still has processes in it.
const EMPTY_WAIT: Duration = Duration::from_millis(5);
const EMPTY_LOOKS: usize = 200;

/// Numbers the groups of this process.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// A group, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    /// Makes a group below `parent`; none for `None`.
    ///
    /// # Errors
    ///
    /// `Setup`, for a directory that is none of cgroup v2 or not the server's.
    pub(super) fn make(
        parent: Option<&Path>,
        limits: &Limits,
    ) -> Result<Option<Self>, SandboxError> {
        let Some(parent) = parent else { return Ok(None) };
        Self::make_in(parent, limits).map(Some).map_err(|error| SandboxError::Setup {
            step: "cgroup".to_owned(),
            reason: format!("`{}`: {error}", parent.display()),
        })
    }

    fn make_in(parent: &Path, limits: &Limits) -> io::Result<Self> {
        if !parent.join("cgroup.procs").exists() {
            return Err(io::Error::other("no directory of a cgroup v2 hierarchy"));
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        let group = Self { path };
        group.limit("pids.max", limits.processes.saturating_add(LAUNCHER_TASKS))?;
        group.limit("memory.max", limits.memory_bytes)?;
        group.limit("memory.swap.max", 0)?;
        if let Some(percent) = limits.cpu_percent {
            let quota = percent.saturating_mul(CPU_PERIOD_US / 100);
            group.limit("cpu.max", format_args!("{quota} {CPU_PERIOD_US}"))?;
        }
        Ok(group)
    }

    /// Sets a limit, if the controller is switched on for groups here.
    fn limit(&self, name: &str, value: impl Display) -> io::Result<()> {
        let path = self.path.join(name);
        if path.exists() { fs::write(path, value.to_string()) } else { Ok(()) }
    }

    /// Which limits are not set, because their controllers are not switched on.
    pub(super) fn absent_limits(&self, limits: &Limits) -> Vec<&'static str> {
        let wanted = limits.cpu_percent.map(|_| "cpu.max");
        ["pids.max", "memory.max"]
            .into_iter()
            .chain(wanted)
            .filter(|name| !self.path.join(name).exists())
            .collect()
    }

    /// Moves a process into the group, and with it all that it will start.
    ///
    /// # Errors
    ///
    /// What the kernel said, `NotFound` for a process that has ended.
    pub(super) fn add(&self, process: Option<u32>) -> io::Result<()> {
        let process = process.ok_or(io::ErrorKind::NotFound)?;
        fs::write(self.path.join("cgroup.procs"), process.to_string())
    }

    /// Kills what is in the group, and removes it.
    pub(super) async fn remove(self) {
        for _ in 0..EMPTY_LOOKS {
            if self.try_remove() {
                return;
            }
            // Killed processes leave in their own time.
            sleep(EMPTY_WAIT).await;
        }
    }

    /// Whether the group is gone.
    fn try_remove(&self) -> bool {
        match fs::remove_dir(&self.path) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(_) => {
                // Absent before Linux 5.14, where nothing but the launcher kills.
                drop(fs::write(self.path.join("cgroup.kill"), "1"));
                false
            }
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.try_remove() {
            self.try_remove();
        }
    }
}

/// Removes what a server that was killed has left: groups are empty when their launchers are gone.
pub(super) fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // Those of another server that lives are in use, and stay.
            drop(fs::remove_dir(entry.path()));
        }
    }
}
