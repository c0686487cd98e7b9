//! API keys of the caller.

use iris_auth::ApiKeySecret;
use iris_protocol::{ApiError, ErrorCode, KeyCreate, KeyGrant, KeyId, KeyPage, KeyRevoke, Scope};
use iris_store::WriteContext;
use iris_store::root::{CreateKey, RevokeKey};
use serde_json::json;

use super::{Done, Grant, check_name, done, shown_once, stored};
use crate::{Node, write};

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: KeyCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let KeyCreate { name, scopes, project_id, expires_at } = request;
    if !node.choices.now().api_keys {
        let message = "this server makes no API keys";
        return Err(ApiError::new(ErrorCode::Forbidden, message).reason("api_keys_off"));
    }
    check_name("name", &name)?;
    let now = node.services.clock.now_ms();
    if expires_at.is_some_and(|end| end <= now) {
        return Err(ApiError::invalid("`expiresAt` must be in the future").reason("expires_at"));
    }
    let scopes = match scopes {
        Some(mut scopes) => {
            scopes.sort_unstable();
            scopes.dedup();
            scopes
        }
        None => Scope::ALL.iter().copied().filter(|scope| !scope.is_of_admins()).collect(),
    };
    let secret = ApiKeySecret::random().map_err(|error| error.to_error())?;
    let user_id = grant.user_id()?.clone();
    let id = KeyId::from_bits(node.services.ids.next_bits());
    let details = json!({ "scopes": scopes, "projectId": project_id, "expiresAt": expires_at });
    let audit = node.services.audit(&user_id, "key.create", id.as_str(), details);
    let command = CreateKey {
        id,
        user_id,
        name,
        hash: secret.hash(),
        hint: secret.hint(),
        scopes,
        project_id,
        expires_at,
        at: now,
    };
    let context = WriteContext { audit: Some(Box::new(audit)), ..context };
    let made = write(&node.root, command, context).await.map_err(stored)?;
    if made.replayed {
        return Err(shown_once());
    }
    done(KeyGrant { key: secret.as_str().to_owned(), api_key: made.output })
}

pub(super) async fn list(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let keys = node.root_reader.keys(grant.user_id()?).await.map_err(stored)?;
    done(KeyPage { keys })
}

pub(super) async fn revoke(
    node: &Node,
    grant: &Grant,
    request: KeyRevoke,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let KeyRevoke { key_id: id } = request;
    let command = RevokeKey { user_id: grant.user_id()?.clone(), id: id.clone() };
    let revoked = write(&node.root, command, context).await.map_err(stored)?;
    node.connections.close_key(&id);
    Ok(done(iris_protocol::Done { done: true })?.at(None, revoked.replayed))
}
