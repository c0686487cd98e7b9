//! Launchers that wait for their policy. One is started ahead, when a command has ended, so that the next
//! command does not wait until the executable is loaded.

use std::collections::HashMap;
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{ThreadId, current};
use std::time::{Duration, Instant};

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

/// The launchers that are started ahead, one at most for each thread that runs commands: what one says is read
/// by the runtime that started it, and another one may be busy.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<HashMap<ThreadId, Waiting>>);

#[derive(Debug)]
struct Waiting {
    started: Started,
    since: Instant,
    /// Ends it when nobody wants it for too long.
    ending: AbortHandle,
}

impl Spares {
    /// The one that waits for this thread, unless somebody has killed it.
    pub(super) fn take(&self) -> Option<Started> {
        let Waiting { mut started, ending, .. } = self.waiting().remove(&current().id())?;
        ending.abort();
        let is_alive = matches!(started.launcher.try_wait(), Ok(None));
        is_alive.then_some(started)
    }

    /// Has one started for the next command of this thread. What goes wrong, that command will meet and tell
    /// itself.
    pub(super) fn refill(self: &Arc<Self>, launcher: PathBuf) {
        self.refill_for(launcher, IDLE);
    }

    fn refill_for(self: &Arc<Self>, launcher: PathBuf, idle: Duration) {
        let thread = current().id();
        {
            let mut waiting = self.waiting();
            // Those whose runtime has ended are ended by nobody else.
            waiting.retain(|_, waiting| waiting.since.elapsed() < 2 * IDLE);
            if waiting.contains_key(&thread) {
                return;
            }
        }
        let spares = Arc::clone(self);
        // Starting a process takes about a millisecond of the thread.
        tokio::task::spawn_blocking(move || {
            let Ok(started) = start(&launcher) else { return };
            let weak = Arc::downgrade(&spares);
            let ending = tokio::spawn(async move {
                sleep(idle).await;
                let waiting = weak.upgrade().and_then(|spares| spares.waiting().remove(&thread));
                if let Some(Waiting { mut started, .. }) = waiting {
                    drop(started.lifeline);
                    drop(started.launcher.wait().await);
                }
            });
            let waiting = Waiting { started, since: Instant::now(), ending: ending.abort_handle() };
            // Another command may have ended meanwhile, and been faster.
            if let Some(before) = spares.waiting().insert(thread, waiting) {
                before.ending.abort();
            }
        });
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<ThreadId, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits as a launcher does, until the end of its standard input: the argument is a pattern to it.
    const GREP: &str = "/bin/grep";

    async fn filled(idle: Duration) -> (Arc<Spares>, u32) {
        let spares = Arc::new(Spares::default());
        spares.refill_for(GREP.into(), idle);
        loop {
            let pid = spares.waiting().values().next().and_then(|it| it.started.launcher.id());
            match pid {
                Some(pid) => return (spares, pid),
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
        let (spares, pid) = filled(IDLE).await;
        spares.refill(GREP.into());
        let mut started = spares.take().unwrap();
        assert_eq!(started.launcher.id(), Some(pid));
        assert!(spares.take().is_none());
        drop(started.lifeline);
        assert!(started.launcher.wait().await.is_ok());
    }

    #[tokio::test]
    async fn one_of_another_thread_is_left_there() {
        let (spares, _) = filled(IDLE).await;
        let others = Arc::clone(&spares);
        assert!(std::thread::spawn(move || others.take().is_none()).join().unwrap());
        assert!(spares.take().is_some());
    }

    #[tokio::test]
    async fn one_that_was_killed_is_not_given_out() {
        let (spares, pid) = filled(IDLE).await;
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let is_alive = || {
            let mut waiting = spares.waiting();
            let waiting = waiting.values_mut().next().unwrap();
            waiting.started.launcher.try_wait().unwrap().is_none()
        };
        while is_alive() {
            tokio::task::yield_now().await;
        }
        assert!(spares.take().is_none());
    }

    #[tokio::test]
    async fn one_that_nobody_wants_ends() {
        let (spares, pid) = filled(Duration::from_millis(1)).await;
        gone(pid).await;
        assert!(spares.take().is_none());
    }

    #[tokio::test]
    async fn one_ends_with_the_server() {
        let (spares, pid) = filled(IDLE).await;
        drop(spares);
        gone(pid).await;
    }
}
