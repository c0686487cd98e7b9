//! Who a connection is: hello, a new token, the end of a token.

use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use iris_auth::AccessClaims;
use iris_protocol::{
    ApiError, AuthExpiry, Connected, ConnectionFrame, ConnectionLimits, ErrorCode, Operation,
    ProjectId,
    limits::{FRAME_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX, ROOMS_PER_CONNECTION_MAX},
};

use super::{Connection, value};

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
        let claims = self.node.authenticate(token);
        let node = self.node.clone();
        // A token can outlive its login, so the store is asked too; what comes meanwhile waits.
        let admitted = async move {
            let claims = claims?;
            node.admits(Some(&claims), Operation::Ping, None, None).await.map(|()| claims)
        };
        ctx.wait(admitted.into_actor(self).map(move |admitted, connection, ctx| match admitted {
            Ok(claims) => {
                connection.default_project = project_id;
                connection.claims = Some(claims.clone());
                connection.act_for(&claims, ctx);
                if connection.is_one_too_many(ctx) {
                    return;
                }
                connection.greet(&claims);
                connection.respond(id, value(connection.connected(&claims)), None);
            }
            Err(error) => {
                connection.respond(id, Err(error), None);
                connection.close(4401, "not authenticated", ctx);
            }
        }));
    }

    fn connected(&self, claims: &AccessClaims) -> Connected {
        Connected {
            connection_id: self.id.clone(),
            user_id: claims.user_id.clone(),
            project_id: self.default_project.clone(),
            protocol: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            features: Vec::new(),
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
        let user_id = self.claims.as_ref().map(|claims| &claims.user_id);
        match self.node.authenticate(token) {
            Ok(claims) if Some(&claims.user_id) == user_id => {
                self.act_for(&claims, ctx);
                let expires_at = claims.expires_at_ms;
                self.claims = Some(claims);
                self.respond(id, value(AuthExpiry { expires_at }), None);
            }
            Ok(_) => {
                let message = "the new token is another user's";
                let error = ApiError::new(ErrorCode::Forbidden, message).reason("other_user");
                self.respond(id, Err(error), None);
            }
            Err(error) => self.respond(id, Err(error), None),
        }
    }

    /// From now on the connection ends with this login; it is warned before its access token ends, and
    /// closed when it does.
    pub(super) fn act_for(&mut self, claims: &AccessClaims, ctx: &mut Context<Self>) {
        self.is_known.store(true, Ordering::Relaxed);
        self.node.connections.authenticated(&self.id, claims);
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
    }
}
