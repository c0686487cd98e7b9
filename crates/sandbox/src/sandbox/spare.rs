//! Launchers that wait for their policy. One is started ahead, when a command has ended, so that the next
//! command does not wait until the executable is loaded.

use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command as Process};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::LAUNCHER_ARGUMENT;

/// How long one waits for a command. An executable in memory is not kept for nothing.
const IDLE: Duration = Duration::from_mins(1);

/// A launcher that waits for its policy. It ends when its socket does.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) launcher: Child,
    pub(super) lifeline: UnixStream,
    pub(super) output: pipe::Receiver,
}

pub(super) fn start(launcher: &Path) -> io::Result<Started> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (output, writer): (PipeReader, _) = io::pipe()?;
    // One pipe for both, so that the order of what is written is kept.
    let launcher = Process::new(launcher)
        .arg(LAUNCHER_ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    Ok(Started {
        launcher,
        lifeline: UnixStream::from_std(ours)?,
        output: pipe::Receiver::from_owned_fd(OwnedFd::from(output))?,
    })
}

/// The launcher that is started ahead, if there is one.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Option<Waiting>>);

#[derive(Debug)]
struct Waiting {
    started: Started,
    /// Ends it when nobody wants it for too long.
    ending: AbortHandle,
}

impl Spare {
    /// The one that waits, unless somebody has killed it.
    pub(super) fn take(&self) -> Option<Started> {
        let Waiting { mut started, ending } = self.waiting().take()?;
        ending.abort();
        let is_alive = matches!(started.launcher.try_wait(), Ok(None));
        is_alive.then_some(started)
    }

    /// Has one started for the next command. What goes wrong, that command will meet and tell itself.
    pub(super) fn refill(self: Arc<Self>, launcher: PathBuf) {
        self.refill_for(launcher, IDLE);
    }

    fn refill_for(self: Arc<Self>, launcher: PathBuf, idle: Duration) {
        if self.waiting().is_some() {
            return;
        }
        // Starting a process takes about a millisecond of the thread.
        tokio::task::spawn_blocking(move || {
            let Ok(started) = start(&launcher) else { return };
            let spare = Arc::downgrade(&self);
            let ending = tokio::spawn(async move {
                sleep(idle).await;
                let waiting = spare.upgrade().and_then(|spare| spare.waiting().take());
                if let Some(Waiting { mut started, .. }) = waiting {
                    drop(started.lifeline);
                    drop(started.launcher.wait().await);
                }
            });
            let ending = ending.abort_handle();
            // Another command may have ended meanwhile, and been faster.
            if let Some(before) = self.waiting().replace(Waiting { started, ending }) {
                before.ending.abort();
            }
        });
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits for its policy as a launcher does: until the end of its standard input.
    const CAT: &str = "/bin/cat";

    async fn filled(idle: Duration) -> (Arc<Spare>, u32) {
        let spare = Arc::new(Spare::default());
        Arc::clone(&spare).refill_for(CAT.into(), idle);
        loop {
            let pid = spare.waiting().as_ref().and_then(|waiting| waiting.started.launcher.id());
            match pid {
                Some(pid) => return (spare, pid),
                None => tokio::task::yield_now().await,
            }
        }
    }

    async fn gone(pid: u32) {
        while Path::new(&format!("/proc/{pid}")).exists() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn one_waits_for_one_command() {
        let (spare, pid) = filled(IDLE).await;
        Arc::clone(&spare).refill(CAT.into());
        let mut started = spare.take().unwrap();
        assert_eq!(started.launcher.id(), Some(pid));
        assert!(spare.take().is_none());
        drop(started.lifeline);
        assert!(started.launcher.wait().await.is_ok());
    }

    #[tokio::test]
    async fn one_that_was_killed_is_not_given_out() {
        let (spare, pid) = filled(IDLE).await;
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        while spare.waiting().as_mut().unwrap().started.launcher.try_wait().unwrap().is_none() {
            tokio::task::yield_now().await;
        }
        assert!(spare.take().is_none());
    }

    #[tokio::test]
    async fn one_that_nobody_wants_ends() {
        let (spare, pid) = filled(Duration::from_millis(1)).await;
        gone(pid).await;
        assert!(spare.take().is_none());
    }

    #[tokio::test]
    async fn one_ends_with_the_server() {
        let (spare, pid) = filled(IDLE).await;
        drop(spare);
        gone(pid).await;
    }
}
