//! The requests of one connection that are not answered yet, by their ids.

use std::collections::HashMap;
use std::sync::Arc;

use iris_protocol::limits::REQUESTS_IN_FLIGHT_MAX;
use iris_protocol::{ApiError, ErrorCode};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::dispatch::Patience;

/// At most [`REQUESTS_IN_FLIGHT_MAX`] of them, and of what goes on although it was answered.
pub(super) struct Requests {
    by_id: Arc<Mutex<HashMap<String, Arc<Patience>>>>,
    permits: Arc<Semaphore>,
}

/// A request that is not answered yet. Dropping it frees its id.
pub(super) struct InFlight {
    pub(super) id: String,
    pub(super) patience: Arc<Patience>,
    by_id: Arc<Mutex<HashMap<String, Arc<Patience>>>>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.by_id.lock().remove(&self.id);
    }
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { by_id: Arc::default(), permits: Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT_MAX)) }
    }

    /// Takes a request in, with a permit to be held as long as there is work for it.
    ///
    /// # Errors
    /// The refusal when there are too many, and the id for the answer.
    pub(super) fn begin(
        &self,
        id: String,
        deadline_ms: Option<u64>,
    ) -> Result<(InFlight, OwnedSemaphorePermit), (String, ApiError)> {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Err((id, too_many()));
        };
        let patience = Patience::new(deadline_ms);
        self.by_id.lock().insert(id.clone(), Arc::clone(&patience));
        Ok((InFlight { id, patience, by_id: Arc::clone(&self.by_id) }, permit))
    }

    /// Whether a request of that id is not answered yet.
    pub(super) fn is_in_flight(&self, id: &str) -> bool {
        self.by_id.lock().contains_key(id)
    }

    /// Gives a request up; says whether there was one and it could be.
    pub(super) fn cancel(&self, id: &str) -> bool {
        self.by_id.lock().get(id).is_some_and(|patience| patience.cancel())
    }

    pub(super) fn count(&self) -> usize {
        REQUESTS_IN_FLIGHT_MAX - self.permits.available_permits()
    }
}

fn too_many() -> ApiError {
    let message = format!("at most {REQUESTS_IN_FLIGHT_MAX} requests may be in flight");
    ApiError::new(ErrorCode::RateLimited, message).retry_after(100)
}
