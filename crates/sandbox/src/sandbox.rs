//! The server's side: what this machine can hold, and running commands in it.

mod capture;
mod cgroup;
mod open;
mod run;
mod self_test;
mod space;
mod spare;
mod supervisor;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, Missing, Network, Tier};
use crate::error::SandboxError;
use crate::policy::Identity;
use crate::request::{Finished, Request};
use crate::talk::Talk;
use space::Measured;
use spare::Spares;

pub use open::Running;

/// A place to run commands in. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    launcher: PathBuf,
    /// Saves commands the start of it.
    spares: Arc<Spares>,
    measured: Measured,
    /// Who commands run as; absent when that is who the server is.
    identity: Option<Identity>,
    tier: Tier,
    missing: Vec<Missing>,
}

impl Sandbox {
    /// Finds out what this machine can hold, by trying to break out of it: a few commands are run. The
    /// tier stays what it is now until the server starts again.
    ///
    /// Never fails: what is wrong is in [`missing`](Self::missing), and [`run`](Self::run) says so.
    pub async fn start(config: Config) -> Self {
        let mut shared = Shared {
            launcher: config.launcher.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe")),
            config,
            spares: Arc::default(),
            measured: Measured::default(),
            identity: None,
            tier: Tier::S0,
            missing: Vec::new(),
        };
        match identity(&shared.config, rustix::process::geteuid().as_raw()) {
            Ok(identity) => {
                shared.identity = identity;
                let found = self_test::run(&shared).await;
                shared.tier = found.tier;
                shared.missing = found.missing;
            }
            Err(missing) => shared.missing = vec![missing],
        }
        Self { shared: Arc::new(shared) }
    }

    /// What this machine holds.
    pub fn tier(&self) -> Tier {
        self.shared.tier
    }

    /// What has to be held for commands to run.
    pub fn minimum(&self) -> Tier {
        self.shared.config.minimum
    }

    /// What keeps this machine from a higher tier, and parts that are missing in the tier it has.
    pub fn missing(&self) -> &[Missing] {
        &self.shared.missing
    }

    /// Who commands run as, user and group; `None` when that is who the server is.
    pub fn identity(&self) -> Option<(u32, u32)> {
        self.shared.identity.map(|identity| (identity.uid, identity.gid))
    }

    /// Whether commands can run.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the tier is below the configured minimum, or below [`Tier::S2`].
    pub fn check(&self) -> Result<(), SandboxError> {
        let minimum = self.shared.config.minimum.max(Tier::S2);
        if self.shared.tier >= minimum {
            return Ok(());
        }
        Err(SandboxError::Unavailable { missing: self.shared.missing.clone() })
    }

    /// Runs a command and waits until nothing of it runs any more.
    ///
    /// Takes at most the request's timeout, the configured grace and five seconds, and about a millisecond
    /// of the calling thread. When the future is
    /// dropped, all processes of the command are killed. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// Each of [`SandboxError`]; in none of these cases has the command run, except for `Launcher`,
    /// after which it may have.
    pub async fn run(&self, request: Request) -> Result<Finished, SandboxError> {
        let has_namespaces = self.admit(&request)?;
        run::run(&self.shared, request, has_namespaces, &[]).await
    }

    /// Starts a command that stays, and gives the pipes to talk to it. The request's time, input, cap of
    /// output and who listens to it are not for such a command, and have to be what [`Request::new`] made
    /// them. Its processor time has no limit.
    ///
    /// Takes about a millisecond of the calling thread and does not wait for the command: what keeps it from
    /// starting is told by [`Running::ended`]. When `running` is dropped, all processes of the command are
    /// killed, as they are when the server ends. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    ///
    /// `Unavailable`, `NetworkUnavailable`, `InvalidRequest` and `Launcher`; nothing has run then.
    pub fn open(&self, request: Request) -> Result<Talk, SandboxError> {
        let has_namespaces = self.admit(&request)?;
        open::open(&self.shared, request, has_namespaces)
    }

    /// Whether a command gets namespaces, if it can run at all.
    fn admit(&self, request: &Request) -> Result<bool, SandboxError> {
        self.check()?;
        let has_namespaces = self.shared.tier >= Tier::S3;
        if request.network != Network::Off && !has_namespaces {
            return Err(SandboxError::NetworkUnavailable { network: request.network });
        }
        Ok(has_namespaces)
    }

    /// Makes a directory, and what is in it, writable for the server and for commands alike: see
    /// [`share_directory`](crate::share_directory). Does nothing when both are the same user.
    ///
    /// # Errors
    ///
    /// What the file system said.
    pub fn share_directory(&self, path: &Path) -> std::io::Result<()> {
        let Some(identity) = self.shared.identity else { return Ok(()) };
        crate::sharing::share_directory(path, identity.uid, identity.gid)
    }
}

/// Who commands run as, for a server that is `server_uid`; `None` for itself.
fn identity(config: &Config, server_uid: u32) -> Result<Option<Identity>, Missing> {
    let missing = |reason: &str| Missing {
        feature: "unprivileged uid".to_owned(),
        reason: reason.to_owned(),
    };
    match (server_uid, config.uid) {
        (0, None) => Err(missing(
            "the server was started as root and no user is configured that commands run as",
        )),
        (0, Some(0)) => Err(missing("the user that commands run as cannot be root")),
        (0, Some(uid)) => match config.gid.unwrap_or(uid) {
            0 => Err(missing("the group that commands run as cannot be that of root")),
            gid => Ok(Some(Identity { uid, gid })),
        },
        (own, Some(uid)) if own != uid => {
            Err(missing("only a server that was started as root can run commands as another user"))
        }
        (_, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(
        server: u32,
        uid: Option<u32>,
        gid: Option<u32>,
    ) -> Result<Option<(u32, u32)>, String> {
        let config = Config { uid, gid, ..Config::default() };
        let identity = identity(&config, server).map_err(|missing| missing.to_string())?;
        Ok(identity.map(|identity| (identity.uid, identity.gid)))
    }

    #[test]
    fn root_has_to_name_another_user_and_nobody_else_can() {
        assert_eq!(found(1000, None, None), Ok(None));
        assert_eq!(found(1000, Some(1000), None), Ok(None));
        assert_eq!(found(0, Some(999), None), Ok(Some((999, 999))));
        assert_eq!(found(0, Some(999), Some(7)), Ok(Some((999, 7))));
        let refused = [
            (0, None, None, "started as root and no user is configured"),
            (0, Some(0), None, "cannot be root"),
            (0, Some(999), Some(0), "cannot be that of root"),
            (1000, Some(999), None, "only a server that was started as root"),
        ];
        for (server, uid, gid, expected) in refused {
            let message = found(server, uid, gid).unwrap_err();
            assert!(message.starts_with("unprivileged uid: ") && message.contains(expected));
        }
    }
}
