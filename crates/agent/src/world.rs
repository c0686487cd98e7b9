//! What the rest of Iris needs from the world, as traits, so that tests can bring their own.

/// Tells the time of day.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970 UTC.
    fn now_ms(&self) -> i64;
}

/// Makes ids.
pub trait IdSource: Send + Sync {
    /// 128 bits that were never given before and that sort by the time of the call.
    fn next_bits(&self) -> u128;
}
