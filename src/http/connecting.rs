//! Who begins a connection that stays: a WebSocket or an event stream.

use actix_web::HttpRequest;
use iris_actors::{Node, TicketUse};
use iris_auth::AccessClaims;
use iris_protocol::{ApiError, ErrorCode};

use super::bearer;

/// Names of query parameters in which people put tokens.
const TOKEN_PARAMETERS: &[&str] = &["token", "access_token", "api_key", "authorization"];

/// Who it is by the `Authorization` header, else by the ticket, which is used up for `purpose`; none
/// when there is neither.
///
/// # Errors
/// `TOKEN_IN_URL`; `UNAUTHENTICATED` or `TOKEN_EXPIRED` for a token or a ticket that is not good.
pub(crate) async fn who_connects(
    node: &Node,
    request: &HttpRequest,
    ticket: Option<&str>,
    purpose: &TicketUse,
) -> Result<Option<AccessClaims>, ApiError> {
    refuse_token_in_url(request.query_string())?;
    if let Some(token) = bearer(request)? {
        return node.authenticate(token).await.map(Some);
    }
    ticket.map(|ticket| node.redeem(ticket, purpose)).transpose()
}

fn refuse_token_in_url(query: &str) -> Result<(), ApiError> {
    let mut names = query.split('&').filter_map(|pair| pair.split('=').next());
    if names.any(|name| TOKEN_PARAMETERS.iter().any(|token| name.eq_ignore_ascii_case(token))) {
        let message =
            "send the token in the `Authorization` header, in a `hello` frame, or get a ticket";
        return Err(ApiError::new(ErrorCode::TokenInUrl, message));
    }
    Ok(())
}
