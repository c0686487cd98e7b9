//! Accounts, for administrators of the server.

use iris_auth::OneTimeSecret;
use iris_protocol::{
    ApiError, ErrorCode, ResetGrant, UserCreate, UserId, UserList, UserManage, UserPage,
    UserPayload,
};
use iris_store::root::{BeginPasswordReset, CreateUser, EndLogins, UpdateUser};
use iris_store::{StoreError, WriteContext};
use serde_json::json;

use super::accounts::check_email;
use super::departing::closed;
use super::passwords::link;
use super::people::{delete_account, person_data};
use super::projects::page_size;
use super::{Done, Grant, check_name, done, stored};
use crate::connection::CloseReason;
use crate::{Node, record, write};

/// How long a link is good that an administrator hands out, in milliseconds.
const RESET_LIFETIME_MS: i64 = 60 * 60 * 1_000;

pub(super) async fn list(node: &Node, request: UserList) -> Result<Done, ApiError> {
    let UserList { limit, cursor, email } = request;
    let limit = page_size(limit)?;
    let reader = &node.root_reader;
    if let Some(email) = email {
        let found = reader.user_by_email(email.trim()).await.map_err(stored)?;
        let users = found.into_iter().map(|found| found.user).collect();
        return done(UserPage { users, next_cursor: None, has_more: false });
    }
    done(reader.users(limit, cursor.as_deref()).await.map_err(stored)?)
}

pub(super) async fn read(node: &Node, id: &UserId) -> Result<Done, ApiError> {
    let user = node.root_reader.user(id).await.map_err(stored)?;
    done(UserPayload { user: user.ok_or_else(|| ApiError::not_found("user"))? })
}

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: UserCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let UserCreate { email, username, password, is_admin } = request;
    let email = email.trim().to_lowercase();
    check_email(&email)?;
    check_name("username", &username)?;
    let password_hash = match password {
        Some(password) => {
            let hash = node.services.passwords.hash(password, &[&email, &username]).await;
            Some(hash.map_err(|error| error.to_error())?)
        }
        None => None,
    };
    let id = UserId::from_bits(node.services.ids.next_bits());
    let details = json!({ "isAdmin": is_admin });
    let by = grant.user_id()?;
    let audit = node.services.audit(by, "admin.user.create", id.as_str(), details);
    let at = node.services.clock.now_ms();
    let command =
        CreateUser { id, email, username, password_hash, is_admin, only_if_no_admin: false, at };
    let context = WriteContext { audit: Some(Box::new(audit)), ..context };
    let created = write(&node.root, command, context).await.map_err(stored)?;
    Ok(done(UserPayload { user: created.output })?.at(None, created.replayed))
}

pub(super) async fn manage(
    node: &Node,
    grant: &Grant,
    request: UserManage,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let UserManage { user_id: id, can_execute_code, is_admin, disabled, email, username } = request;
    let by = grant.user_id()?;
    if *by == id && (is_admin.is_some() || disabled.is_some()) {
        let message = "another administrator has to change this of your account";
        return Err(ApiError::new(ErrorCode::Forbidden, message).reason("own_account"));
    }
    let email = email.map(|email| email.trim().to_lowercase());
    if let Some(email) = &email {
        check_email(email)?;
    }
    if let Some(username) = &username {
        check_name("username", username)?;
    }
    // Where the programs would run that this may be about.
    let tier = node.services.sandbox.as_ref().map(|sandbox| sandbox.tier().to_string());
    let details = json!({ "canExecuteCode": can_execute_code, "isAdmin": is_admin,
        "disabled": disabled, "email": email.is_some(), "username": username, "sandbox": tier });
    let audit = node.services.audit(by, "user.update", id.as_str(), details);
    let at = node.services.clock.now_ms();
    let command = UpdateUser {
        can_execute_code,
        is_admin,
        disabled,
        email,
        username,
        ..UpdateUser::of(id.clone(), at)
    };
    let context = WriteContext { audit: Some(Box::new(audit)), ..context };
    let changed = write(&node.root, command, context).await.map_err(stored)?;
    // Somebody may have let them in again since a request that is repeated.
    let is_closed = disabled == Some(true)
        && (!changed.replayed || is_disabled(node, &id).await.map_err(stored)?);
    if is_closed {
        node.connections.close_user(&id, &CloseReason::new(4403, "the account is closed"));
        closed(node, &id).await;
    }
    Ok(done(UserPayload { user: changed.output })?.at(None, changed.replayed))
}

async fn is_disabled(node: &Node, id: &UserId) -> Result<bool, StoreError> {
    Ok(node.root_reader.user(id).await?.is_some_and(|user| user.disabled))
}

pub(super) async fn log_out(
    node: &Node,
    id: UserId,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let command = EndLogins { user_id: id.clone(), at: node.services.clock.now_ms() };
    let ended = write(&node.root, command, context).await.map_err(stored)?;
    node.connections.close_logins_of(&id);
    Ok(done(iris_protocol::Done { done: true })?.at(None, ended.replayed))
}

pub(super) async fn password_reset(
    node: &Node,
    grant: &Grant,
    id: UserId,
) -> Result<Done, ApiError> {
    let secret = OneTimeSecret::random().map_err(|error| error.to_error())?;
    let expires_at = node.services.clock.now_ms().saturating_add(RESET_LIFETIME_MS);
    let (by, action) = (grant.user_id()?, "admin.user.password.reset");
    let audit = node.services.audit(by, action, id.as_str(), json!({}));
    let command = BeginPasswordReset { user_id: id, hash: secret.hash(), expires_at };
    let context = WriteContext { audit: Some(Box::new(audit)), ..WriteContext::default() };
    write(&node.root, command, context).await.map_err(stored)?;
    let url = link(node, "reset", &secret);
    done(ResetGrant { token: secret.as_str().to_owned(), url, expires_at })
}

pub(super) async fn remove(
    node: &Node,
    grant: &Grant,
    id: UserId,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let by = grant.user_id()?;
    if *by == id {
        let message = "delete your own account with `DELETE /v1/me`";
        return Err(ApiError::new(ErrorCode::Forbidden, message).reason("own_account"));
    }
    let replayed = delete_account(node, &id, by, context).await?;
    Ok(done(iris_protocol::Done { done: true })?.at(None, replayed))
}

pub(super) async fn export(node: &Node, grant: &Grant, id: UserId) -> Result<Done, ApiError> {
    let by = grant.user_id()?;
    let data = person_data(node, &id).await?;
    let audit = node.services.audit(by, "admin.user.export", id.as_str(), json!({}));
    record(&node.root, audit, WriteContext::default()).await.map_err(stored)?;
    done(data)
}
