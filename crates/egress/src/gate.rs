//! How many requests are under way at once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::error::EgressError;

/// Lets requests in, so many at once, and so many to one host.
pub(crate) struct Gate {
    /// One permit for each request that is under way or waits.
    admitted: Arc<Semaphore>,
    under_way: Arc<Semaphore>,
    /// By name; those that nobody holds any more go with the next request.
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
    per_host_max: usize,
}

/// A place in the building, until it is dropped.
pub(crate) type Admission = OwnedSemaphorePermit;

/// The right to talk to one host, until it is dropped.
pub(crate) struct Turn {
    _host: OwnedSemaphorePermit,
    _under_way: OwnedSemaphorePermit,
}

impl Gate {
    pub(crate) fn new(config: &Config) -> Self {
        let admitted_max = config.requests_max.saturating_add(config.waiting_max);
        Self {
            admitted: Arc::new(Semaphore::new(admitted_max.min(Semaphore::MAX_PERMITS))),
            under_way: Arc::new(Semaphore::new(config.requests_max.min(Semaphore::MAX_PERMITS))),
            hosts: Mutex::new(HashMap::new()),
            per_host_max: config.requests_per_host_max.min(Semaphore::MAX_PERMITS),
        }
    }

    /// Never waits.
    pub(crate) fn admit(&self) -> Result<Admission, EgressError> {
        Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| EgressError::Busy)
    }

    /// Waits for a turn at `host`; the caller bounds the wait.
    ///
    /// The host comes first, so that those who wait for a slow host keep nobody from the others; and a
    /// request that goes on to another host gives its turn back before, so that none waits for the other.
    pub(crate) async fn turn(&self, host: &str) -> Result<Turn, EgressError> {
        let host = self.host(host).acquire_owned().await.map_err(|_| EgressError::Busy)?;
        let under_way = Arc::clone(&self.under_way).acquire_owned().await;
        Ok(Turn { _host: host, _under_way: under_way.map_err(|_| EgressError::Busy)? })
    }

    fn host(&self, name: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock();
        hosts.retain(|_, semaphore| semaphore.strong_count() > 0);
        if let Some(semaphore) = hosts.get(name).and_then(Weak::upgrade) {
            return semaphore;
        }
        let semaphore = Arc::new(Semaphore::new(self.per_host_max));
        hosts.insert(name.to_owned(), Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn gate(requests_max: usize, requests_per_host_max: usize, waiting_max: usize) -> Gate {
        Gate::new(&Config { requests_max, requests_per_host_max, waiting_max, ..Config::default() })
    }

    #[test]
    fn one_more_than_may_wait_is_refused() {
        let gate = gate(1, 1, 1);
        let held = [gate.admit().unwrap(), gate.admit().unwrap()];
        assert_eq!(gate.admit().unwrap_err().code(), "busy");
        drop(held);
        assert!(gate.admit().is_ok());
    }

    #[test]
    fn a_host_takes_its_share_and_the_others_go_on() {
        let gate = gate(2, 1, 8);
        let first = gate.turn("a").now_or_never().unwrap().unwrap();
        let mut waiting = Box::pin(gate.turn("a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        let other =
            gate.turn("b").now_or_never().expect("the one who waits holds no turn").unwrap();
        assert!(gate.turn("c").now_or_never().is_none(), "two are under way");
        drop(first);
        assert!(waiting.now_or_never().is_some());
        drop(other);
        assert!(gate.turn("c").now_or_never().is_some());
    }

    #[test]
    fn hosts_that_nobody_talks_to_are_forgotten() {
        let gate = gate(4, 4, 4);
        for number in 0..100 {
            drop(gate.turn(&number.to_string()).now_or_never().unwrap().unwrap());
        }
        assert_eq!(gate.hosts.lock().len(), 1);
    }
}
