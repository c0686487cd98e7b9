//! One command, and how it ended.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::OUTPUT_BYTES_DEFAULT;
use crate::config::Network;
use crate::output::Output;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A program and its arguments, as they are. A name without a slash is looked up in `PATH`.
    Arguments(Vec<String>),
    /// A line for `/bin/bash -c`, or `/bin/sh -c` where there is no bash.
    Shell(String),
}

/// A command to be run.
#[derive(Debug)]
pub struct Request {
    /// What to run.
    pub command: Command,
    /// The directory of the project, absolute; read, written and executed from.
    pub project: PathBuf,
    /// A directory for temporary files, absolute, outside of the project; `HOME` and `TMPDIR`.
    pub scratch: PathBuf,
    /// Absolute paths that it may read and execute besides those of the configuration. One that does not exist is
    /// left out.
    pub read_only: Vec<PathBuf>,
    /// Where the command starts, relative to the project; empty is the project itself.
    pub workdir: PathBuf,
    /// What it can reach over sockets.
    pub network: Network,
    /// Variables besides those that every command gets; they win over these.
    pub env: Vec<(String, String)>,
    /// What it reads, at most [`STDIN_BYTES_MAX`](crate::STDIN_BYTES_MAX); `None` is `/dev/null`.
    pub stdin: Option<Vec<u8>>,
    /// How long it may run before it is told to end.
    pub timeout: Duration,
    /// How many bytes of output are kept; what is beyond is read and counted.
    pub output_bytes_max: usize,
    /// The disk space that it leaves, and that it may take.
    pub space: Space,
    /// Gets the output as it comes, in pieces. A piece that does not fit is lost for it: nothing waits
    /// for who listens.
    pub progress: Option<mpsc::Sender<Vec<u8>>>,
    /// Ends the command at once when it is told so, or closed; unlike a future that is dropped, the call
    /// then answers with [`Status::Cancelled`] and the output so far.
    pub cancel: Option<oneshot::Receiver<()>>,
}

impl Request {
    /// A request with two minutes of time, no network and no input, that starts in the project.
    pub fn new(command: Command, project: PathBuf, scratch: PathBuf) -> Self {
        Self {
            command,
            project,
            scratch,
            read_only: Vec::new(),
            workdir: PathBuf::new(),
            network: Network::Off,
            env: Vec::new(),
            stdin: None,
            timeout: Duration::from_mins(2),
            output_bytes_max: OUTPUT_BYTES_DEFAULT,
            space: Space::default(),
            progress: None,
            cancel: None,
        }
    }
}

/// Bounds of disk space, which is looked at while a command runs; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// The command ends when fewer bytes than these are free on the disk of its project or of its scratch
    /// directory, whoever took them.
    pub free_bytes_min: u64,
    /// It ends when both directories together hold more bytes than these, or more than a million files and
    /// directories, which are not counted further. Where they do from the beginning, it ends when they hold still
    /// more bytes, if these could be counted.
    pub bytes_max: u64,
}

/// Which space was used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// [`Space::free_bytes_min`] is not free any more.
    Disk,
    /// [`Space::bytes_max`] is exceeded.
    Directories,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal with this number that the server did not send.
    Signalled(i32),
    /// It was told to end, or was killed, because its time was over.
    TimedOut,
    /// It was killed because [`Request::cancel`] said so.
    Cancelled,
    /// It was killed because [`Request::space`] was used up.
    OutOfSpace(Shortage),
}

/// A command that ran, and of which nothing runs any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub status: Status,
    /// What it and its children wrote to standard output and standard error, in order.
    pub output: Output,
    /// From the start of the launcher to the end of the last process.
    pub duration: Duration,
}
