//! What the service manager is told, as `sd_notify(3)` and `systemd.service(5)` say: that the server is ready, reads
//! its configuration again, stops, and that it is alive.
//!
//! A server that no such manager started tells nobody.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use iris_actors::Node;
use iris_actors::supervision::detached;

/// Shorter intervals of the watchdog are none.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// How long the service manager has to take a message.
#[cfg(target_os = "linux")]
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    /// Where it listens; a name that begins with `@` is one of the abstract namespace (unix(7)).
    socket: Option<OsString>,
    /// How often it wants to hear that the server is alive.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The one of the environment: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn of_process() -> Self {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(std::process::id()));
        let interval = number("WATCHDOG_USEC").filter(|_| is_for_us).map(Duration::from_micros);
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
            watchdog: interval.filter(|interval| *interval >= INTERVAL_MIN),
        }
    }

    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// With the time of the clock by which systemd tells this reload from one before.
    pub(crate) fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\n", monotonic_us()));
    }

    pub(crate) fn reloaded(&self, status: &str) {
        self.ready(status);
    }

    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Stopping: no run begins, those that work may end\n");
    }

    fn alive(&self) {
        self.tell("WATCHDOG=1\n");
    }

    fn tell(&self, words: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, words.as_bytes()) {
            tracing::warn!(%error, "the service manager could not be told");
        }
    }
}

/// Tells the service manager twice in each of its intervals that the server is alive, if it is: one that does not
/// answer says nothing, and is started again.
pub(crate) fn watch(notifier: Arc<Notifier>, node: Node) {
    let Some(interval) = notifier.watchdog else { return };
    detached(async move {
        let mut looks = tokio::time::interval(interval / 2);
        loop {
            looks.tick().await;
            if node.is_alive().await {
                notifier.alive();
            } else {
                tracing::error!(
                    "the server does not answer: the service manager is not told that it is alive"
                );
            }
        }
    });
}

#[cfg(target_os = "linux")]
fn send(socket: &OsString, words: &[u8]) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // What is not taken soon is not worth the wait.
    sender.set_write_timeout(Some(PATIENCE))?;
    sender.send_to_addr(words, &address).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn send(_: &OsString, _: &[u8]) -> io::Result<()> {
    Ok(())
}

/// `CLOCK_MONOTONIC` in microseconds.
#[cfg(target_os = "linux")]
fn monotonic_us() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1_000)
}

#[cfg(not(target_os = "linux"))]
fn monotonic_us() -> i64 {
    0
}
