//! Repeats of what took the caller's right to it away: who deleted a project, left it, gave up a role
//! in it or logged out is refused by the gate, and gets the first answer all the same when the request carries its key.

use iris_auth::AccessClaims;
use iris_protocol::{ApiError, ErrorCode, MemberPayload, Operation, ProjectId, ProjectPayload};
use iris_store::root::{
    DeleteProject, RemoveMember, RevokeAuthSession, TransferProject, UpdateMember,
};
use iris_store::{Committed, StoreError, WriteContext};

use super::projects::project_of;
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
        Operation::ProjectDelete | Operation::MemberRemove | Operation::ProjectLeave => {
            Some(ErrorCode::NotFound)
        }
        Operation::MemberUpdate | Operation::ProjectTransfer => Some(ErrorCode::Forbidden),
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
    let first = match operation {
        Operation::MemberUpdate => {
            let first = reader.recall::<UpdateMember>(key).await.map_err(stored)?;
            first.map(|first| done(MemberPayload { member: first.output }))
        }
        Operation::ProjectTransfer => match reader.recall::<TransferProject>(key).await {
            Ok(Some(_)) => {
                let project = project_of(node, grant.user_id()?, grant.project_id()?).await?;
                Some(done(ProjectPayload { project }))
            }
            Ok(None) => None,
            Err(error) => return Err(stored(error)),
        },
        Operation::MemberRemove | Operation::ProjectLeave => {
            is_done(reader.recall::<RemoveMember>(key).await)?
        }
        Operation::ProjectDelete => is_done(reader.recall::<DeleteProject>(key).await)?,
        _ => is_done(reader.recall::<RevokeAuthSession>(key).await)?,
    };
    Ok(first.ok_or(refusal)??.at(None, true))
}

type Recalled<T> = Result<Option<Committed<T>>, StoreError>;

/// The answer of an operation that has nothing to say.
fn is_done(recalled: Recalled<()>) -> Result<Option<Result<Done, ApiError>>, ApiError> {
    let first = recalled.map_err(stored)?;
    Ok(first.map(|_| done(iris_protocol::Done { done: true })))
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
    let WriteContext { idempotency: Some(key), .. } = grant.repeatable(node, operation, key, &[])
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
