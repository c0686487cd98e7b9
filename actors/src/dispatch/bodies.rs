//! How much of files and archives is in memory while clients send it or do not take it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{ApiError, ErrorCode, UserId};
use parking_lot::Mutex;

/// Bytes of files and archives that all users together may hold.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Those of one user: two of the largest files on their way in, or 64 answers on their way out.
const BYTES_OF_USER_MAX: u64 = 32 * 1024 * 1024;
/// What the smallest body counts, so that their number has a bound too.
const BYTES_MIN: u64 = PART_BYTES;
/// How soon a caller may try again when there is no room, in milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;
/// Bytes of a file or an archive that are read for an answer at a time.
pub(super) const PART_BYTES: u64 = 256 * 1024;
/// What an answer holds: a part that is being written, and the next one.
pub(super) const ANSWER_BYTES: u64 = 2 * PART_BYTES;

/// How long a client may take nothing of an answer that comes part by part.
pub const ANSWER_STALL: Duration = Duration::from_secs(30);

/// The bytes that each user holds.
#[derive(Default)]
pub(crate) struct Bodies(Mutex<HashMap<UserId, u64>>);

/// Room for a body; dropping it gives it back.
pub struct Held {
    bodies: Arc<Bodies>,
    user_id: UserId,
    bytes: u64,
}

impl Bodies {
    /// Makes room for a body of a user.
    ///
    /// # Errors
    /// `OVERLOADED`.
    pub(super) fn hold(self: &Arc<Self>, user_id: &UserId, bytes: u64) -> Result<Held, ApiError> {
        let bytes = bytes.max(BYTES_MIN);
        let mut held = self.0.lock();
        let own = held.get(user_id).copied().unwrap_or_default();
        if own + bytes > BYTES_OF_USER_MAX || held.values().sum::<u64>() + bytes > BYTES_MAX {
            let message = "too many files are being sent and read; try again";
            return Err(ApiError::new(ErrorCode::Overloaded, message).retry_after(RETRY_AFTER_MS));
        }
        held.insert(user_id.clone(), own + bytes);
        Ok(Held { bodies: Arc::clone(self), user_id: user_id.clone(), bytes })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Entry::Occupied(mut own) = self.bodies.0.lock().entry(self.user_id.clone()) {
            *own.get_mut() -= self.bytes;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u8) -> UserId {
        format!("usr_{n:032x}").parse().unwrap()
    }

    #[test]
    fn each_user_and_all_together_hold_so_many_bytes() {
        let bodies = Arc::<Bodies>::default();
        let whole = |n| bodies.hold(&user(n), BYTES_OF_USER_MAX);
        let mut held: Vec<Held> = (1..=8).map(|n| whole(n).ok().unwrap()).collect();
        for n in [1, 9] {
            let refused = bodies.hold(&user(n), 0).err().unwrap();
            assert_eq!(refused.code, ErrorCode::Overloaded);
        }
        held.pop();
        assert!(bodies.hold(&user(1), 0).is_err());
        let own = |_| bodies.hold(&user(9), 0);
        let small: Vec<Held> =
            (0..BYTES_OF_USER_MAX / BYTES_MIN).map(|n| own(n).ok().unwrap()).collect();
        assert!(bodies.hold(&user(9), 0).is_err());
        drop((held, small));
        assert!(bodies.0.lock().is_empty());
    }
}
