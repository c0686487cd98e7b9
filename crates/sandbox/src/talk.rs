//! A command that is talked to while it runs.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::Running;

/// A command that runs, and the pipes to talk to it. Its input ends when `stdin` is dropped.
pub struct Talk {
    /// What the command reads.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// What it and its children write to standard output. Who does not read holds them up.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What they write to standard error. Who does not read holds them up.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// Kills all its processes when it is dropped.
    pub running: Running,
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Talk").field("running", &self.running).finish_non_exhaustive()
    }
}
