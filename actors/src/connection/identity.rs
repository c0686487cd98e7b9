//! Who a connection is: hello, a new token, the end of a token.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, AuthExpiry, Connected, ConnectionFrame, ConnectionLimits, ErrorCode, FEATURES,
    Operation, ProjectId,
    limits::{
        CONNECTION_RETRY_MS, FRAME_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX, ROOMS_PER_CONNECTION_MAX,
    },
};

use super::{BACK_AFTER_FAILURE, CloseReason, Connection, payload_of};
use crate::dispatch::Peer;

/// How long before its end a client is told that its access token ends.
const EXPIRY_WARNING: Duration = Duration::from_mins(1);

impl Connection {
    pub(super) fn hello(
        &mut self,
        id: String,
        token: &str,
        project_id: Option<ProjectId>,
        ctx: &mut Context<Self>,
    ) {
        if self.claims.is_some() {
            let error = ApiError::new(ErrorCode::Conflict, "the connection is authenticated");
            return self.respond(id, Err(error.reason("already_authenticated")), None);
        }
        // What comes meanwhile waits.
        ctx.wait(self.admitted(token).into_actor(self).map(move |admitted, connection, ctx| {
            match admitted {
                Ok(claims) => {
                    connection.default_project = project_id;
                    connection.claims = Some(claims.clone());
                    if connection.act_for(&claims, ctx) {
                        connection.greet(&claims);
                        connection.respond(id, payload_of(connection.connected(&claims)), None);
                    }
                }
                Err(error) => {
                    let (code, reason) = if error.code == ErrorCode::RateLimited {
                        let wait = error.retry_after_ms.unwrap_or_default();
                        (4029, format!("retryAfterMs={wait}"))
                    } else if matches!(error.code, ErrorCode::Internal | ErrorCode::Overloaded) {
                        // Nobody knows who it is, which is not the client's fault.
                        (1011, CloseReason::back_after(1011, BACK_AFTER_FAILURE).text)
                    } else {
                        (4401, "not authenticated".to_owned())
                    };
                    connection.respond(id, Err(error), None);
                    connection.close(code, &reason, ctx);
                }
            }
        }));
    }

    /// Who a token stands for. It can outlive its login, so the store is asked too.
    fn admitted(
        &self,
        token: &str,
    ) -> impl Future<Output = Result<AccessClaims, ApiError>> + use<> {
        let (node, token) = (self.node.clone(), token.to_owned());
        // A request of somebody who is known was counted when it came.
        let is_new = self.claims.is_none();
        async move {
            let claims = node.authenticate(&token).await?;
            if is_new {
                node.count(Some(&claims), &Peer::default())?;
            }
            node.admits(Some(&claims), Operation::Ping, None, None).await?;
            Ok(claims)
        }
    }

    fn connected(&self, claims: &AccessClaims) -> Connected {
        Connected {
            connection_id: self.id.clone(),
            user_id: claims.user_id.clone(),
            project_id: self.default_project.clone(),
            protocol: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES.map(str::to_owned).to_vec(),
            limits: ConnectionLimits {
                frame_bytes_max: FRAME_BYTES_MAX,
                requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
                rooms_max: ROOMS_PER_CONNECTION_MAX,
            },
            ping_interval_ms: self.ping_interval_ms(),
            expires_at: claims.expires_at_ms,
        }
    }

    fn ping_interval_ms(&self) -> u64 {
        let interval = self.node.services.settings.sockets.ping_interval.unwrap_or_default();
        u64::try_from(interval.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn greet(&self, claims: &AccessClaims) {
        self.push(&ConnectionFrame::Connected { payload: self.connected(claims) });
    }

    pub(super) fn refresh(&mut self, id: String, token: &str, ctx: &mut Context<Self>) {
        ctx.wait(self.admitted(token).into_actor(self).map(move |admitted, connection, ctx| {
            let user_id = connection.claims.as_ref().map(|claims| &claims.user_id);
            match admitted {
                Ok(claims) if Some(&claims.user_id) == user_id => {
                    connection.act_for(&claims, ctx);
                    let expires_at = claims.expires_at_ms;
                    connection.claims = Some(claims);
                    connection.respond(id, payload_of(AuthExpiry { expires_at }), None);
                }
                Ok(_) => {
                    let message = "the new token is another user's";
                    let error = ApiError::new(ErrorCode::Forbidden, message).reason("other_user");
                    connection.respond(id, Err(error), None);
                }
                Err(error) => connection.respond(id, Err(error), None),
            }
        }));
    }

    /// From now on the connection ends with this login; it is warned before its access token ends, and
    /// closed when it does. Says whether it goes on: a user may have so many at a time.
    pub(super) fn act_for(&mut self, claims: &AccessClaims, ctx: &mut Context<Self>) -> bool {
        self.is_known.store(true, Ordering::Relaxed);
        *self.streams.claims.lock() = Some(claims.clone());
        drop(self.unknown.take());
        let most = self.node.rates.settings().connections_per_user_max;
        if !self.node.connections.authenticated(&self.id, claims, most) {
            self.close(4409, &format!("retryAfterMs={CONNECTION_RETRY_MS}"), ctx);
            return false;
        }
        self.ends_with(claims.clone(), ctx);
        for timer in self.expiry.drain(..) {
            ctx.cancel_future(timer);
        }
        let expires_at = claims.expires_at_ms;
        let left_ms = expires_at.saturating_sub(self.node.services.clock.now_ms());
        let left = Duration::from_millis(u64::try_from(left_ms).unwrap_or(0));
        let warn = ctx.run_later(left.saturating_sub(EXPIRY_WARNING), move |connection, _| {
            let payload = AuthExpiry { expires_at };
            connection.push(&ConnectionFrame::AuthExpiring { payload });
        });
        let end = ctx.run_later(left, |connection, ctx| {
            connection.close(4401, "the access token ended", ctx);
        });
        self.expiry = vec![warn, end];
        true
    }

    /// Looks again whether the login is there: it may have ended after it was looked up and before its
    /// end could find this connection.
    fn ends_with(&self, claims: AccessClaims, ctx: &mut Context<Self>) {
        let node = self.node.clone();
        let admitted = async move { node.admits(Some(&claims), Operation::Ping, None, None).await };
        ctx.spawn(admitted.into_actor(self).map(|admitted, connection, ctx| {
            if admitted.is_err_and(|error| error.code == ErrorCode::Unauthenticated) {
                connection.outbound.cut_off(CloseReason::new(4401, "logged out"));
                ctx.stop();
            }
        }));
    }
}
