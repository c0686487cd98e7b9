//! The settings of the server that administrators change while it runs: what they chose, else what the
//! configuration says.

use std::collections::BTreeMap;

use iris_protocol::{ProjectCreation, RegistrationMode, ServerSettings};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Names of the settings, as they stand in the root database.
pub(crate) const REGISTRATION: &str = "registration";
pub(crate) const PROJECT_CREATION: &str = "projectCreation";
pub(crate) const API_KEYS: &str = "apiKeys";
pub(crate) const MAINTENANCE: &str = "maintenance";

/// What counts now.
pub(crate) struct Choices {
    configured: RwLock<RegistrationMode>,
    chosen: RwLock<BTreeMap<String, Value>>,
    /// Held from the read of what is chosen until all of it counts, so that what was read later wins.
    pub(crate) order: tokio::sync::Mutex<()>,
}

impl Choices {
    pub(crate) fn new(configured: RegistrationMode) -> Self {
        Self {
            configured: RwLock::new(configured),
            chosen: RwLock::default(),
            order: tokio::sync::Mutex::default(),
        }
    }

    /// Another configuration counts from now on.
    pub(crate) fn configure(&self, registration: RegistrationMode) {
        *self.configured.write() = registration;
    }

    /// Takes what the root database holds.
    pub(crate) fn set(&self, chosen: BTreeMap<String, Value>) {
        *self.chosen.write() = chosen;
    }

    pub(crate) fn now(&self) -> ServerSettings {
        let chosen = self.chosen.read();
        ServerSettings {
            registration: read(&chosen, REGISTRATION).unwrap_or(*self.configured.read()),
            project_creation: read(&chosen, PROJECT_CREATION).unwrap_or(ProjectCreation::Everybody),
            api_keys: read(&chosen, API_KEYS).unwrap_or(true),
            maintenance: read(&chosen, MAINTENANCE),
            chosen: chosen.keys().cloned().collect(),
        }
    }
}

/// A choice; none for one that is not made, or that another version made and this one cannot read.
fn read<T: DeserializeOwned>(chosen: &BTreeMap<String, Value>, key: &str) -> Option<T> {
    serde_json::from_value(chosen.get(key)?.clone()).ok()
}
