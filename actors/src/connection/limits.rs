//! What one client may ask for: how often, over how many connections, and how many refusals it may
//! collect before it has to go.

use std::collections::VecDeque;
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::ApiError;
use tokio::time::Instant;

use super::Connection;

/// The window in which refusals are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// When the refusals inside the window happened.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<Instant>);

impl Refusals {
    /// Notes a refusal. When there are more than `most`, says how long it takes until one of them is
    /// forgotten.
    fn note(&mut self, most: usize, now: Instant) -> Option<Duration> {
        self.0.push_back(now);
        while self.0.front().is_some_and(|at| now.duration_since(*at) > WINDOW) {
            self.0.pop_front();
        }
        let oldest = self.0.front().filter(|_| self.0.len() > most)?;
        Some(WINDOW.saturating_sub(now.duration_since(*oldest)))
    }
}

impl Connection {
    /// Counts a request against what this connection and its user may do.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub(super) fn count_request(&mut self) -> Result<(), ApiError> {
        let services = &self.node.services;
        let taken = self.allowance.take(self.node.rates.settings().requests, Instant::now());
        services.metrics.limited("connection", taken)?;
        match &self.claims {
            Some(claims) => {
                services.metrics.limited("user", self.node.rates.of_user(&claims.user_id))
            }
            // It may send `hello` or is sent away.
            None => Ok(()),
        }
    }

    /// Answers a request of a client that asks too much. One that does not listen is closed.
    pub(super) fn refuse(&mut self, id: String, error: ApiError, ctx: &mut Context<Self>) {
        self.respond(id, Err(error), None);
        self.note_refusal(ctx);
    }

    /// Counts a ping or a pong, of which a socket may send as many as requests. Says whether it is answered;
    /// those that are not count as requests that were refused.
    pub(super) fn counts_control(&mut self, ctx: &mut Context<Self>) -> bool {
        let rate = self.node.rates.settings().requests;
        let taken = self.control_allowance.take(rate, Instant::now());
        let is_allowed = self.node.services.metrics.limited("connection", taken).is_ok();
        if !is_allowed {
            self.note_refusal(ctx);
        }
        is_allowed
    }

    fn note_refusal(&mut self, ctx: &mut Context<Self>) {
        let Some(most) = self.node.rates.settings().refusals_per_minute_max else { return };
        if let Some(wait) = self.refusals.note(most, Instant::now()) {
            self.close(4029, &format!("retryAfterMs={}", wait.as_millis()), ctx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_forgotten_after_a_while() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.note(2, start), None);
        assert_eq!(refusals.note(2, start + Duration::from_secs(1)), None);
        let later = start + Duration::from_secs(2);
        assert_eq!(refusals.note(2, later), Some(Duration::from_secs(58)));
        let much_later = start + Duration::from_millis(60_500);
        assert_eq!(refusals.note(3, much_later), None);
        assert_eq!(refusals.0.len(), 3);
    }
}
