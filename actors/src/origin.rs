//! Where requests come from, for the audit: what an actor records of a request names its client too.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use iris_agent::Clock;
use iris_protocol::UserId;
use iris_store::root::RecordAudit;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::supervision::current_request;

/// From where and with what a request was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The address of the client.
    pub ip: Option<String>,
    /// The id of the login or of the API key.
    pub credential: Option<String>,
}

/// The origins of the requests that are under way: no more than those.
#[derive(Default)]
pub struct Origins(Mutex<HashMap<(UserId, String), (Origin, usize)>>);

/// Keeps the origin of a request for as long as it is under way.
pub(crate) struct UnderWay {
    origins: Arc<Origins>,
    key: (UserId, String),
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.origins.0.lock().entry(self.key.clone()) {
            entry.get_mut().1 -= 1;
            if entry.get().1 == 0 {
                entry.remove();
            }
        }
    }
}

impl Origins {
    /// Notes where the current request of a user comes from; none outside of requests.
    pub(crate) fn enter(self: &Arc<Self>, user_id: &UserId, origin: Origin) -> Option<UnderWay> {
        let key = (user_id.clone(), current_request()?.to_string());
        let mut known = self.0.lock();
        let entry = known.entry(key.clone()).or_insert_with(|| (Origin::default(), 0));
        *entry = (origin, entry.1 + 1);
        drop(known);
        Some(UnderWay { origins: Arc::clone(self), key })
    }

    /// Where the current request of a user comes from, as far as anybody noted it.
    pub(crate) fn of_current(&self, user_id: &UserId) -> Origin {
        let Some(request) = current_request() else { return Origin::default() };
        let known = self.0.lock();
        known
            .get(&(user_id.clone(), request.to_string()))
            .map_or_else(Origin::default, |o| o.0.clone())
    }

    /// What the audit is to say of something that a user did in the current request.
    pub(crate) fn audit(
        &self,
        clock: &dyn Clock,
        user_id: &UserId,
        action: &str,
        target: &str,
        details: Value,
    ) -> RecordAudit {
        let Origin { ip, credential } = self.of_current(user_id);
        RecordAudit {
            at: clock.now_ms(),
            user_id: Some(user_id.clone()),
            credential,
            ip,
            action: action.to_owned(),
            target: target.to_owned(),
            request_id: current_request().map(|request| request.to_string()),
            details,
            ..RecordAudit::default()
        }
    }
}
