//! Whether, when and with what to connect again (docs/protocol.md, table of close codes).

use std::time::Duration;

use iris_protocol::ErrorCode;

use crate::ClientError;

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// Nothing: it would fail in the same way.
    Never,
    /// Try again, not before this time is over.
    Later {
        /// As the server asked; zero when it did not say.
        at_least: Duration,
    },
    /// Get a new access token, then try again.
    WithNewToken,
}

impl Reconnect {
    /// Decides from the failure of a connection attempt or of a connection.
    pub fn after(error: &ClientError) -> Self {
        match error {
            ClientError::Closed { code, reason } => Self::after_close(*code, reason),
            ClientError::Api(error)
                if matches!(error.code, ErrorCode::Unauthenticated | ErrorCode::TokenExpired) =>
            {
                Self::WithNewToken
            }
            ClientError::Api(error) if error.retryable => {
                Self::Later { at_least: Duration::from_millis(error.retry_after_ms.unwrap_or(0)) }
            }
            ClientError::Transport(_) | ClientError::Timeout => {
                Self::Later { at_least: Duration::ZERO }
            }
            ClientError::Api(_) | ClientError::Protocol(_) => Self::Never,
        }
    }

    /// Decides from the close code and reason of a socket.
    pub fn after_close(code: u16, reason: &str) -> Self {
        match code {
            // 1001, 1005 and 1006 come from whatever stands between client and server.
            1001 | 1005 | 1006 | 1011..=1013 | 4008 | 4012 | 4029 | 4409 => {
                Self::Later { at_least: retry_after(reason) }
            }
            4401 | 4402 => Self::WithNewToken,
            _ => Self::Never,
        }
    }
}

/// Reads the number that follows `retryAfterMs` in a close reason; zero when there is none.
fn retry_after(reason: &str) -> Duration {
    let Some((_, rest)) = reason.split_once("retryAfterMs") else { return Duration::ZERO };
    let rest = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Duration::from_millis(digits.parse().unwrap_or(0))
}

/// Waiting times between attempts: doubling, bounded, half of each random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second attempt, at most.
    pub first: Duration,
    /// Before any attempt, at most.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(250), max: Duration::from_secs(15) }
    }
}

impl Backoff {
    /// How long to wait after `failures` attempts that failed in a row, from a uniform `random`.
    pub fn delay(&self, failures: u32, random: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let full = self.first.saturating_mul(1 << doublings).min(self.max);
        let half = full / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::ApiError;

    use super::*;

    #[test]
    fn close_codes_are_followed_as_documented() {
        let later = |ms| Reconnect::Later { at_least: Duration::from_millis(ms) };
        for code in [1000, 1002, 1003, 1007, 1008, 1009, 4403] {
            assert_eq!(Reconnect::after_close(code, ""), Reconnect::Never, "{code}");
        }
        for code in [1006, 1011, 1012, 1013, 4008, 4012, 4029, 4409] {
            assert_eq!(Reconnect::after_close(code, ""), later(0), "{code}");
        }
        for code in [4401, 4402] {
            assert_eq!(Reconnect::after_close(code, ""), Reconnect::WithNewToken, "{code}");
        }
        assert_eq!(Reconnect::after_close(1012, r#"{"retryAfterMs":1500}"#), later(1500));
        assert_eq!(Reconnect::after_close(4029, "retryAfterMs=20"), later(20));
        assert_eq!(Reconnect::after_close(1013, "retryAfterMs: soon"), later(0));
    }

    #[test]
    fn an_error_of_the_server_is_retried_when_it_says_so() {
        let after = |error: ApiError| Reconnect::after(&ClientError::Api(error));
        assert_eq!(after(ErrorCode::TokenExpired.into()), Reconnect::WithNewToken);
        assert_eq!(after(ErrorCode::NotFound.into()), Reconnect::Never);
        let busy = ApiError::from(ErrorCode::Overloaded).retry_after(40);
        assert_eq!(after(busy), Reconnect::Later { at_least: Duration::from_millis(40) });
    }

    #[test]
    fn waiting_doubles_up_to_the_limit_and_half_of_it_is_random() {
        let backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(1) };
        let range = |failures| (backoff.delay(failures, 0), backoff.delay(failures, u32::MAX));
        assert_eq!(range(1), (Duration::from_millis(50), Duration::from_millis(100)));
        assert_eq!(range(2), (Duration::from_millis(100), Duration::from_millis(200)));
        assert_eq!(range(99), (Duration::from_millis(500), Duration::from_secs(1)));
    }
}
