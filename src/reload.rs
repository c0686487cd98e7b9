//! What a server that runs takes of a changed configuration, and how it is told.
//!
//! SIGHUP has the sources read again. What is wrong with them changes nothing. What can change counts from then on
//! and is in the log and in the audit; of the rest the log says that it counts with the next start.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use iris_actors::supervision::detached;
use iris_actors::{Changeable, Node};
use iris_protocol::LogSet;
use tokio::sync::Mutex;

use crate::app::{AppError, catalog, hosts, public_url};
use crate::config::{Config, Flags};
use crate::http::{Gatekeeper, TrustedProxies};
use crate::notify::Notifier;
use crate::tls::HangUp;

/// What became of a changed configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys whose new values count.
    pub changed: Vec<String>,
    /// Keys whose new values count with the next start.
    pub waiting: Vec<String>,
}

/// What can change of a server that runs.
pub(crate) struct Reloading {
    /// As it counts, but for what waits for the next start.
    config: Mutex<Config>,
    address: SocketAddr,
    gatekeeper: Gatekeeper,
    proxies: TrustedProxies,
    node: Node,
}

impl Reloading {
    pub(crate) fn new(
        config: Config,
        address: SocketAddr,
        (gatekeeper, proxies): (Gatekeeper, TrustedProxies),
        node: Node,
    ) -> Self {
        Self { config: Mutex::new(config), address, gatekeeper, proxies, node }
    }

    /// Reads the sources again on each SIGHUP.
    ///
    /// # Errors
    /// When the signal cannot be waited for.
    pub(crate) fn on_hang_up(
        self: Arc<Self>,
        flags: Flags,
        notifier: Arc<Notifier>,
    ) -> io::Result<()> {
        let mut hang_up = HangUp::new()?;
        detached(async move {
            loop {
                hang_up.next().await;
                notifier.reloading();
                let status = self.read_again(flags.clone()).await;
                notifier.reloaded(status);
            }
        });
        Ok(())
    }

    /// What became of it, in a line.
    async fn read_again(&self, flags: Flags) -> &'static str {
        const NOT_TAKEN: &str = "Running; the changed configuration was not taken, see the log";
        const TAKEN: &str = "Running; the configuration was read again";
        // Away from the threads that serve: a disk may take its time.
        let read = tokio::task::spawn_blocking(|| Config::from_process(flags)).await;
        let (config, warnings) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => {
                tracing::error!(%error, "the configuration is wrong: nothing of it was taken");
                return NOT_TAKEN;
            }
            Err(error) => {
                tracing::error!(%error, "the configuration was not read");
                return NOT_TAKEN;
            }
        };
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        if let Err(error) = self.take(config).await {
            tracing::error!(%error, "nothing of the configuration was taken");
            return NOT_TAKEN;
        }
        TAKEN
    }

    /// Takes what can be taken. What is wrong changes nothing.
    pub(crate) async fn take(&self, config: Config) -> Result<Reloaded, AppError> {
        let mut current = self.config.lock().await;
        let (changed, waiting) = config.changes(&current);
        // The list of models is read in any case: its file may be another one under the same name.
        let path = config.model_catalog.clone();
        let read = tokio::task::spawn_blocking(move || catalog(path.as_deref())).await;
        let catalog = read.map_err(io::Error::other)??;
        self.set_log(&config, &changed)?;
        // Another one waits for the next start, as logins come back to the one before.
        let config = Config { public_url: public_url(&current, self.address), ..config };
        self.gatekeeper.list(self.address.ip(), &hosts(&config), &config.allowed_origins);
        self.proxies.believe(config.trusted_proxies.clone());
        self.node.reload(Changeable {
            rates: config.rates,
            shares: config.shares,
            budgets: config.budgets,
            registration: config.registration,
            catalog,
        });
        tracing::info!(changed = changed.join(", "), "the configuration was read again");
        if !waiting.is_empty() {
            let keys = waiting.join(", ");
            tracing::warn!(keys, "some of what changed counts with the next start");
        }
        self.node.audit_reload(&changed, &waiting).await;
        // What waits for the next start is named again the next time.
        let given = config.given.with(&current.given, &waiting);
        *current = Config { given, ..config };
        Ok(Reloaded { changed, waiting })
    }

    fn set_log(&self, config: &Config, changed: &[String]) -> Result<(), AppError> {
        let is_changed = |name: &str| changed.iter().any(|key| key == name);
        let change = LogSet {
            filter: is_changed("log").then(|| config.log.clone()),
            format: is_changed("log_format").then_some(config.log_format),
        };
        if change.filter.is_some() || change.format.is_some() {
            let set = self.node.services.log.set(change);
            set.map_err(|error| io::Error::other(error.message))?;
        }
        Ok(())
    }
}
