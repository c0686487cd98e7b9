//! The caller's own account: logins, profile, deletion, export.

use iris_auth::Credential;
use iris_protocol::{
    ApiError, ErrorCode, LoginPage, LoginRevoke, PersonData, UserDelete, UserId, UserPayload,
    UserUpdate,
    limits::{AVATAR_URL_BYTES_MAX, PREFERENCES_BYTES_MAX},
};
use iris_store::WriteContext;
use iris_store::root::{
    AuditQuery, CredentialOwner, Credentials, DeleteUser, RevokeLogin, UpdateUser,
};
use serde_json::{Map, Value, json};

use super::accounts::{check_email, wrong_password};
use super::departing::left;
use super::{Done, Grant, check_length, check_name, done, internal, stored};
use crate::connection::CloseReason;
use crate::{Node, record, write};

/// Records of the audit that an export of a person has.
const EXPORTED_RECORDS_MAX: u32 = 200;
/// How old the login of an account without a password may be where others show their password, in milliseconds.
const FRESH_MS: i64 = 5 * 60 * 1_000;

pub(super) async fn logins(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let now = node.services.clock.now_ms();
    let mut logins = node.root_reader.logins(grant.user_id()?, now).await.map_err(stored)?;
    let credential = grant.claims.as_ref().map(|claims| claims.credential.id());
    for login in &mut logins {
        login.current = Some(login.id.as_str()) == credential;
    }
    done(LoginPage { logins })
}

pub(super) async fn end_login(
    node: &Node,
    grant: &Grant,
    request: LoginRevoke,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let LoginRevoke { auth_session_id: id } = request;
    let (user_id, at) = (grant.user_id()?.clone(), node.services.clock.now_ms());
    let command = RevokeLogin { user_id, id: id.clone(), at };
    let ended = write(&node.root, command, context).await.map_err(stored)?;
    node.connections.close_login(&id);
    Ok(done(iris_protocol::Done { done: true })?.at(None, ended.replayed))
}

pub(super) async fn update(
    node: &Node,
    grant: &Grant,
    request: UserUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let UserUpdate { username, email, current_password, avatar_url, preferences } = request;
    let user_id = grant.user_id()?;
    if let Some(username) = &username {
        check_name("username", username)?;
    }
    if let Some(Some(url)) = &avatar_url {
        check_avatar(url)?;
    }
    if let Some(preferences) = &preferences {
        check_preferences(preferences)?;
    }
    let email = email.map(|email| email.trim().to_lowercase());
    if let Some(email) = &email {
        check_email(email)?;
        // Where mail goes decides who can set a password: a login that lies open is not enough.
        prove(node, grant, current_password).await?;
    }
    let at = node.services.clock.now_ms();
    let command = UpdateUser {
        email,
        username,
        avatar_url,
        preferences,
        ..UpdateUser::of(user_id.clone(), at)
    };
    let updated = write(&node.root, command, context).await.map_err(stored)?;
    Ok(done(UserPayload { user: updated.output })?.at(None, updated.replayed))
}

fn check_avatar(url: &str) -> Result<(), ApiError> {
    check_length("avatarUrl", url, AVATAR_URL_BYTES_MAX)?;
    let is_one = url::Url::parse(url).is_ok_and(|url| {
        url.scheme() == "https"
            && url.host().is_some()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if is_one {
        return Ok(());
    }
    Err(ApiError::invalid("`avatarUrl` must be an `https` URL without user").reason("avatar_url"))
}

fn check_preferences(preferences: &Map<String, Value>) -> Result<(), ApiError> {
    let json = serde_json::to_string(preferences).map_err(internal)?;
    check_length("preferences", &json, PREFERENCES_BYTES_MAX)?;
    if preferences.values().all(iris_tools::is_shallow) {
        return Ok(());
    }
    Err(ApiError::invalid("`preferences` is nested too deeply").reason("too_deep"))
}

/// Has a caller who is logged in prove again who they are: by their password, or where the account has none
/// by a login that began a moment ago. A password counts like a login: whoever has a token must not guess here
/// as often as they like.
///
/// # Errors
/// `INVALID_REQUEST` and `current_password_missing`; `FORBIDDEN` and `wrong_password` or `login_too_old`;
/// `RATE_LIMITED`; `OVERLOADED`.
pub(super) async fn prove(
    node: &Node,
    grant: &Grant,
    password: Option<String>,
) -> Result<Credentials, ApiError> {
    let found = node.root_reader.credentials(grant.user_id()?).await.map_err(stored)?;
    let found = found.ok_or_else(|| ApiError::from(ErrorCode::Unauthenticated))?;
    let Some(password) = password else {
        if found.password_hash.is_some() {
            let message = "this needs `currentPassword`";
            return Err(ApiError::invalid(message).reason("current_password_missing"));
        }
        return if is_fresh(node, grant).await? { Ok(found) } else { Err(login_too_old()) };
    };
    let attempt = node.rates.begin_login(&found.user.email, None)?;
    let verified = node.services.passwords.verify(password, found.password_hash.clone()).await;
    if verified.map_err(|error| error.to_error())? {
        node.rates.login_succeeded(&attempt);
        return Ok(found);
    }
    Err(wrong_password())
}

fn login_too_old() -> ApiError {
    let message = "this needs a login that is not older than five minutes: log in again";
    ApiError::new(ErrorCode::Forbidden, message).reason("login_too_old")
}

/// Whether the caller's login began a moment ago: no API key, and no token that was refreshed since.
async fn is_fresh(node: &Node, grant: &Grant) -> Result<bool, ApiError> {
    let now = node.services.clock.now_ms();
    let logins = node.root_reader.logins(grant.user_id()?, now).await.map_err(stored)?;
    let own = logins.iter().find(|login| Some(&login.id) == login_of(grant));
    Ok(own.is_some_and(|login| now.saturating_sub(login.created_at) <= FRESH_MS))
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    request: UserDelete,
) -> Result<Done, ApiError> {
    prove(node, grant, request.current_password).await?;
    let user_id = grant.user_id()?;
    let audit = node.services.audit(user_id, "user.delete", user_id.as_str(), json!({}));
    let context = WriteContext { audit: Some(Box::new(audit)), ..WriteContext::default() };
    delete_account(node, user_id, user_id, context).await?;
    done(iris_protocol::Done { done: true })
}

/// Deletes an account and ends whatever is open of it.
pub(super) async fn delete_account(
    node: &Node,
    id: &UserId,
    by: &UserId,
    context: WriteContext,
) -> Result<bool, ApiError> {
    let command = DeleteUser { id: id.clone(), by: by.clone(), at: node.services.clock.now_ms() };
    let deleted = write(&node.root, command, context).await.map_err(stored)?;
    if deleted.replayed {
        return Ok(true);
    }
    node.connections.close_user(id, &CloseReason::new(4403, "the account is gone"));
    for project_id in &deleted.output {
        left(node, project_id, id).await;
    }
    Ok(false)
}

pub(super) async fn export(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let user_id = grant.user_id()?;
    let audit = node.services.audit(user_id, "user.export", user_id.as_str(), json!({}));
    record(&node.root, audit, WriteContext::default()).await.map_err(stored)?;
    done(person_data(node, user_id).await?)
}

/// All that the root database holds of a person.
pub(super) async fn person_data(node: &Node, id: &UserId) -> Result<PersonData, ApiError> {
    let reader = &node.root_reader;
    let user = reader.user(id).await.map_err(stored)?;
    let user = user.ok_or_else(|| ApiError::not_found("user"))?;
    let logins = reader.logins(id, node.services.clock.now_ms()).await.map_err(stored)?;
    let api_keys = reader.keys(id).await.map_err(stored)?;
    let identities = reader.identities(id).await.map_err(stored)?;
    let owner = CredentialOwner::User(id.clone());
    let credentials = reader.credentials_of(owner).await.map_err(stored)?;
    let projects = reader.memberships(id).await.map_err(stored)?;
    let query = AuditQuery {
        user_id: Some(id.clone()),
        limit: EXPORTED_RECORDS_MAX,
        ..AuditQuery::default()
    };
    let audit = reader.audit_page(query).await.map_err(stored)?.records;
    Ok(PersonData { user, logins, api_keys, identities, credentials, projects, audit })
}

/// The login that a request was made with; none for one with an API key.
pub(super) fn login_of(grant: &Grant) -> Option<&iris_protocol::AuthSessionId> {
    match &grant.claims.as_ref()?.credential {
        Credential::Login(id) => Some(id),
        Credential::Key(_) => None,
    }
}
