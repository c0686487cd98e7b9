//! When a model that failed is asked again: classes are judged elsewhere, this is the waiting.

use std::time::Duration;

/// How often one step is tried and how long is waited in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryLimits {
    /// Most attempts at one step with one model. At least 1.
    pub attempts_max: u32,
    /// The longest wait after the first attempt; it doubles with each one.
    pub base: Duration,
    /// The longest wait that is chosen here; a provider may want a longer one.
    pub cap: Duration,
    /// The longest wait that a provider may want: a run that would wait longer fails and says so.
    pub hint_max: Duration,
    /// The longest that one step waits, all in all, for a provider that is not asked because it is left alone.
    pub left_alone_max: Duration,
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self {
            attempts_max: 5,
            base: Duration::from_secs(1),
            cap: Duration::from_mins(1),
            hint_max: Duration::from_mins(2),
            left_alone_max: Duration::from_mins(5),
        }
    }
}

impl RetryLimits {
    /// How long to wait after `failed` attempts: at random between nothing and a time that doubles, so that
    /// runs which failed together do not come back together, and on top of what the provider wants. None
    /// where there is no further attempt. `bits` are the chance.
    pub fn delay(&self, failed: u32, hint: Option<Duration>, bits: u128) -> Option<Duration> {
        let hint = hint.unwrap_or_default();
        if failed >= self.attempts_max || hint > self.hint_max {
            return None;
        }
        let doublings = failed.saturating_sub(1).min(31);
        let longest = self.base.saturating_mul(1 << doublings).min(self.cap);
        let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        // The low half: ids begin with the time.
        let chance = u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
        Some(hint + Duration::from_millis(chance % millis.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_are_at_random_up_to_a_time_that_doubles_and_is_capped() {
        let limits = RetryLimits { attempts_max: 100, ..RetryLimits::default() };
        for (failed, longest) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (99, 60)] {
            let longest = Duration::from_secs(longest);
            for bits in [0, 1, 999, 1_000, 12_345_678, u128::MAX] {
                let delay = limits.delay(failed, None, bits).unwrap();
                assert!(delay <= longest, "{failed} {delay:?}");
            }
            let millis = longest.as_millis();
            assert_eq!(limits.delay(failed, None, millis), Some(longest));
            assert_eq!(limits.delay(failed, None, millis + 1), Some(Duration::ZERO));
        }
    }

    #[test]
    fn what_the_provider_wants_is_the_least_and_too_much_is_not_waited_for() {
        let limits = RetryLimits::default();
        assert_eq!(limits.delay(1, Some(7 * SECOND), 500), Some(Duration::from_millis(7_500)));
        assert_eq!(limits.delay(1, Some(120 * SECOND), 0), Some(120 * SECOND));
        assert_eq!(limits.delay(1, Some(121 * SECOND), 0), None);
    }

    #[test]
    fn there_is_a_last_attempt() {
        let limits = RetryLimits::default();
        assert!(limits.delay(4, None, 0).is_some());
        assert_eq!(limits.delay(5, None, 0), None);
    }
}
