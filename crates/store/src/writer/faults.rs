//! A writer that breaks its promises, for tests that have to notice.
//!
//! Told by the environment, because it is the server as a process that they kill.

use std::time::Duration;

/// Acknowledges a transaction so many milliseconds before it commits.
const ACKNOWLEDGE_EARLY: &str = "IRIS_FAULT_ACK_EARLY";
/// Set to anything, it leaves what was committed in the system's cache.
const DO_NOT_SYNC: &str = "IRIS_FAULT_NO_SYNC";

/// What a writer does wrong; nothing by default.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Faults {
    /// Callers learn of a commit this long before it happens.
    pub(super) acknowledge_early: Option<Duration>,
    /// Everything is as durable as a checkpoint of streaming text.
    pub(super) does_not_sync: bool,
}

impl Faults {
    /// What the environment says now.
    pub(super) fn of_environment() -> Self {
        let early = std::env::var(ACKNOWLEDGE_EARLY).ok();
        let early = early.and_then(|early| early.parse().ok()).map(Duration::from_millis);
        Self { acknowledge_early: early, does_not_sync: std::env::var_os(DO_NOT_SYNC).is_some() }
    }
}
