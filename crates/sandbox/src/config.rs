//! What a server decides about its sandbox, and what it learns of it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much a sandbox holds; higher is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Nothing is held.
    S0,
    /// Bubblewrap is there, Landlock is not. Reported only: no command runs in this tier.
    S1,
    /// Landlock (ABI 6) and seccomp; no network.
    S2,
    /// Namespaces with a file system of their own, Landlock and seccomp.
    S3,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S0 => "S0",
            Self::S1 => "S1",
            Self::S2 => "S2",
            Self::S3 => "S3",
        })
    }
}

/// What a command can reach over sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Network {
    /// Nothing: only pairs of Unix sockets can be made.
    #[default]
    Off,
    /// A loopback interface of its own, on which it finds only itself. Needs [`Tier::S3`].
    Loopback,
    /// The network of the host, with all that the host can reach. Needs [`Tier::S3`].
    On,
}

/// Something that the sandbox of this machine does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is missing, in a word or two: `landlock`, `user namespaces`, `unprivileged uid`.
    pub feature: String,
    /// How that was noticed, one line.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.feature, self.reason)
    }
}

/// The most that one command may take. The kernel counts by process unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processes and threads of the command together in [`Tier::S3`]; in [`Tier::S2`] of all commands
    /// that run at once, on top of what the machine ran when this one started.
    pub processes: u64,
    /// Bytes of private memory that a process can write to (`RLIMIT_DATA`); with a cgroup the bytes of
    /// memory of the whole command too.
    pub memory_bytes: u64,
    /// Bytes of addresses of a process, used or not (`RLIMIT_AS`).
    pub address_space_bytes: u64,
    /// Bytes of the largest file that can be written.
    pub file_bytes: u64,
    /// Descriptors of a process.
    pub open_files: u64,
    /// Seconds of processor time of a process.
    pub cpu_seconds: u64,
    /// By how much the command stands behind the server when processor time is scarce (`nice(2)`).
    pub nice: u8,
    /// With a cgroup the most processor time of the whole command, in percent of one processor.
    pub cpu_percent: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        const GIB: u64 = 1024 * 1024 * 1024;
        Self {
            processes: 256,
            memory_bytes: 4 * GIB,
            address_space_bytes: 64 * GIB,
            file_bytes: 2 * GIB,
            open_files: 1024,
            cpu_seconds: 3600,
            nice: 10,
            cpu_percent: None,
        }
    }
}

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// What has to be held for commands to run; below it each is answered with
    /// [`SandboxError::Unavailable`](crate::SandboxError::Unavailable). Nothing runs below
    /// [`Tier::S2`] whatever stands here.
    pub minimum: Tier,
    /// The user that commands run as. Mandatory for a server that was started as root, and not zero;
    /// otherwise absent, or the user that the server is.
    pub uid: Option<u32>,
    /// The group that commands run as; `None` is the number of `uid`, or the group of the server.
    pub gid: Option<u32>,
    /// Absolute paths that commands may read and execute besides the system's: toolchains. What does
    /// not exist when a command starts is left out.
    pub extra_read_only: Vec<PathBuf>,
    /// What one command may take.
    pub limits: Limits,
    /// The executable that calls [`launcher_main`](crate::launcher_main); `None` is this one.
    pub launcher: Option<PathBuf>,
    /// Whether namespaces are used where they can be; without them the tier is at most [`Tier::S2`].
    pub namespaces: bool,
    /// A directory of a cgroup v2 hierarchy in which the server may make groups, one for each command;
    /// `None` uses no cgroups.
    pub cgroup: Option<PathBuf>,
    /// How long a command may go on after it was told to end because of its timeout.
    pub grace: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            minimum: Tier::S2,
            uid: None,
            gid: None,
            extra_read_only: Vec::new(),
            limits: Limits::default(),
            launcher: None,
            namespaces: true,
            cgroup: None,
            grace: Duration::from_secs(5),
        }
    }
}
