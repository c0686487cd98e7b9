//! Limits of the kernel for a process and what it starts.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{At, Trouble};
use crate::config::Limits;

/// The score with which a process is the first to go when memory runs out (`proc_pid_oom_score_adj(5)`).
const OOM_SCORE_MAX: &str = "1000";

/// Limits this process. With a user namespace of its own the kernel counts its processes alone.
pub(super) fn apply(limits: &Limits, has_namespaces: bool) -> Result<(), Trouble> {
    let processes = if has_namespaces {
        limits.processes
    } else {
        // Whatever else the user runs counts too, so it is added; that this is all that the machine
        // runs, in place of one user's share, only makes the limit wider.
        limits.processes.saturating_add(tasks_of_machine().at("counting of processes")?)
    };
    let all = [
        (Resource::Core, 0),
        (Resource::Data, limits.memory_bytes),
        (Resource::As, limits.address_space_bytes),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Nofile, limits.open_files),
        (Resource::Cpu, limits.cpu_seconds),
        (Resource::Nproc, processes),
    ];
    for (resource, wanted) in all {
        // An ordinary process cannot have more than its own limit.
        let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let value = Some(wanted.min(most));
        setrlimit(resource, Rlimit { current: value, maximum: value }).at("limits")?;
    }
    Ok(())
}

/// Puts this thread, and what it starts, behind others when processor time is scarce. The kernel counts by thread
/// (setpriority(2)).
pub(super) fn be_nice(limits: &Limits) -> Result<(), Trouble> {
    rustix::process::nice(i32::from(limits.nice)).map(drop).at("niceness")
}

/// Processes and threads of the whole machine: after the slash in `/proc/loadavg` (`proc_loadavg(5)`).
fn tasks_of_machine() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let count = text.split('/').nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no count in /proc/loadavg"))
}

/// The score that decides who is killed first when memory runs out: the highest while this lives, so
/// that a process that is started meanwhile has it, then what it was before.
pub(super) struct FirstToGo {
    file: File,
    before: String,
}

impl FirstToGo {
    pub(super) fn begin() -> Result<Self, Trouble> {
        const PATH: &str = "/proc/self/oom_score_adj";
        let before = fs::read_to_string(PATH).at("the score for lack of memory")?;
        let file = OpenOptions::new().write(true).open(PATH).at("the score for lack of memory")?;
        Ok(Self { file, before })
    }

    pub(super) fn raise(&mut self) -> Result<(), Trouble> {
        self.file.write_all(OOM_SCORE_MAX.as_bytes()).at("the score for lack of memory")
    }

    pub(super) fn restore(&mut self) -> Result<(), Trouble> {
        self.file.write_all(self.before.trim().as_bytes()).at("the score for lack of memory")
    }
}
