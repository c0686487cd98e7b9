//! What actors have begun and not ended: messages whose answer takes time, and steps that they name
//! themselves.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::running::RequestTag;
use super::{Supervision, Vitals};

/// Something in progress; dropping it says that it ended.
pub struct Work {
    number: u64,
    supervision: Supervision,
}

/// What is known of something in progress.
#[derive(Clone)]
pub(super) struct InProgress {
    pub(super) vitals: Arc<Vitals>,
    pub(super) name: &'static str,
    pub(super) since: Instant,
    pub(super) budget: Duration,
    pub(super) request: Option<RequestTag>,
    /// Whether it was said that it is stuck.
    pub(super) is_reported: bool,
}

impl Supervision {
    pub(super) fn begin(
        &self,
        vitals: &Arc<Vitals>,
        name: &'static str,
        budget: Duration,
        request: Option<RequestTag>,
    ) -> Work {
        let number = self.next_number();
        let in_progress = InProgress {
            vitals: Arc::clone(vitals),
            name,
            since: Instant::now(),
            budget,
            request: request.or_else(|| vitals.request().cloned()),
            is_reported: false,
        };
        self.0.work.lock().insert(number, in_progress);
        Work { number, supervision: self.clone() }
    }
}

impl Work {
    /// Says that it got on: its budget begins again.
    pub fn progress(&self) {
        if let Some(work) = self.supervision.0.work.lock().get_mut(&self.number) {
            work.since = Instant::now();
            work.is_reported = false;
        }
    }

    #[cfg(feature = "faults")]
    pub(super) fn strike(&self, name: &str) {
        let vitals =
            self.supervision.0.work.lock().get(&self.number).map(|work| Arc::clone(&work.vitals));
        if let Some(vitals) = vitals {
            self.supervision.faults().strike_future(&vitals, name);
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.supervision.0.work.lock().remove(&self.number);
    }
}
