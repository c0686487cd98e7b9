//! The connections of a server that are alive, for what is said to all of them or ends some of them.

use std::collections::HashMap;
use std::sync::Arc;

use iris_protocol::{AuthSessionId, ConnectionId};
use parking_lot::Mutex;
use serde_json::Value;

use super::{CloseReason, Outbound, push};

/// The connections that are alive: their queues and, once they said who they are, their logins.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<HashMap<ConnectionId, Alive>>);

#[derive(Debug)]
struct Alive {
    outbound: Arc<Outbound>,
    login: Option<AuthSessionId>,
}

impl Connections {
    pub(super) fn add(&self, id: &ConnectionId, outbound: &Arc<Outbound>) {
        let alive = Alive { outbound: Arc::clone(outbound), login: None };
        self.0.lock().insert(id.clone(), alive);
    }

    pub(super) fn authenticated(&self, id: &ConnectionId, login: &AuthSessionId) {
        if let Some(alive) = self.0.lock().get_mut(id) {
            alive.login = Some(login.clone());
        }
    }

    pub(super) fn remove(&self, id: &ConnectionId) {
        self.0.lock().remove(id);
    }

    /// Sends an event to all of them.
    pub(crate) fn tell_all(&self, event: &Value) {
        for alive in self.0.lock().values() {
            push(&alive.outbound, event);
        }
    }

    /// Ends all of them.
    pub(crate) fn close_all(&self, reason: &CloseReason) {
        for alive in self.0.lock().values() {
            alive.outbound.close(reason.clone());
        }
    }

    /// Ends those of a login that has ended.
    pub(crate) fn close_login(&self, login: &AuthSessionId) {
        for alive in self.0.lock().values().filter(|alive| alive.login.as_ref() == Some(login)) {
            alive.outbound.close(CloseReason::new(4401, "logged out"));
        }
    }
}
