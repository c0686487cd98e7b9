//! Repeats of what took the caller's right to it away: who deleted a project, left it or logged out is
//! refused by the gate, and gets the first answer all the same when the request carries its key.

use iris_auth::AccessClaims;
use iris_protocol::{ApiError, ErrorCode, Operation, ProjectId};
use iris_store::WriteContext;
use iris_store::root::{DeleteProject, RemoveMember, RevokeAuthSession};

use super::{Ask, Done, Grant, done, stored};
use crate::Node;

/// How the gate refuses whoever did this already; none for operations after which the right is as it
/// was before.
fn refusal_after(operation: Operation) -> Option<ErrorCode> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all others leave the caller's rights alone"
    )]
    match operation {
        Operation::ProjectDelete | Operation::MemberRemove => Some(ErrorCode::NotFound),
        Operation::AuthLogout => Some(ErrorCode::Unauthenticated),
        _ => None,
    }
}

/// The first answer, if this is a repeat; else the refusal.
pub(super) async fn of_the_last(
    node: &Node,
    operation: Operation,
    ask: &Ask,
    refusal: ApiError,
) -> Result<Done, ApiError> {
    if refusal_after(operation) != Some(refusal.code) {
        return Err(refusal);
    }
    let Some(grant) = grant(ask.claims.as_ref(), ask.project_id.as_ref()) else {
        return Err(refusal);
    };
    let Some(key) = grant.write_context(node, operation, ask)?.idempotency else {
        return Err(refusal);
    };
    let reader = &node.root_reader;
    #[expect(clippy::wildcard_enum_match_arm, reason = "as above")]
    let is_repeat = match operation {
        Operation::ProjectDelete => reader.recall::<DeleteProject>(key).await.map(|r| r.is_some()),
        Operation::MemberRemove => reader.recall::<RemoveMember>(key).await.map(|r| r.is_some()),
        _ => reader.recall::<RevokeAuthSession>(key).await.map(|r| r.is_some()),
    };
    if is_repeat.map_err(stored)? {
        return Ok(done(iris_protocol::Done { done: true })?.at(None, true));
    }
    Err(refusal)
}

/// Whether this may be a repeat, before anybody knows its body; else the refusal.
pub(super) async fn may_be(
    node: &Node,
    operation: Operation,
    claims: Option<&AccessClaims>,
    project_id: Option<&ProjectId>,
    idempotency_key: Option<&str>,
    refusal: ApiError,
) -> Result<(), ApiError> {
    if refusal_after(operation) != Some(refusal.code) {
        return Err(refusal);
    }
    let (Some(grant), Some(key)) = (grant(claims, project_id), idempotency_key) else {
        return Err(refusal);
    };
    let WriteContext { idempotency: Some(key) } = grant.repeatable(node, operation, key, &[])
    else {
        return Err(refusal);
    };
    if node.root_reader.knows(key).await.map_err(stored)? {
        return Ok(());
    }
    Err(refusal)
}

/// Whose key it is. The transport has checked the token; the gate has refused its user.
fn grant(claims: Option<&AccessClaims>, project_id: Option<&ProjectId>) -> Option<Grant> {
    let claims = claims?.clone();
    let user_id = Some(claims.user_id.clone());
    Some(Grant { user_id, claims: Some(claims), project_id: project_id.cloned() })
}
