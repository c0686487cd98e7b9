//! Setup, registration, login, tokens.

use iris_auth::{AuthError, REFRESH_LIFETIME_DEFAULT, RefreshToken, RefreshTokens, Ticket};
use iris_protocol::{
    ApiError, AuthGrant, AuthLogin, AuthRegister, AuthRotate, AuthSessionId, AuthSetup, ErrorCode,
    TicketGrant, User, UserId, UserPayload,
};
use iris_store::WriteContext;
use iris_store::root::{
    BeginAuthSession, CreateUser, RefusalReason, RevokeAuthSession, RotateOutcome, RotateRefresh,
};

use super::{Done, Grant, Peer, check_name, done, internal, stored};
use crate::{Node, Registration, write};

/// Longest e-mail address (RFC 5321 section 4.5.3.1.3, without the brackets).
const EMAIL_BYTES_MAX: usize = 254;

pub(super) async fn setup(node: &Node, request: AuthSetup, peer: Peer) -> Result<Done, ApiError> {
    let is_right = node.services.setup_token.lock().as_ref().map(|t| t.matches(&request.token));
    let Some(is_right) = is_right else {
        let message = "this server has its administrator already";
        return Err(ApiError::new(ErrorCode::Conflict, message).reason("already_set_up"));
    };
    if !is_right {
        let message = "the setup token is not the one that the server printed when it started";
        return Err(ApiError::new(ErrorCode::Unauthenticated, message).reason("setup_token"));
    }
    let account = Account {
        email: request.email,
        username: request.username,
        password: request.password,
        is_admin: true,
    };
    let user = account.create(node).await?;
    *node.services.setup_token.lock() = None;
    begin(node, user, 0, peer).await
}

pub(super) async fn register(
    node: &Node,
    request: AuthRegister,
    peer: Peer,
) -> Result<Done, ApiError> {
    match node.services.settings.registration {
        Registration::Open => {}
        Registration::Closed => {
            let message = "registration is closed on this server";
            return Err(ApiError::new(ErrorCode::Forbidden, message).reason("registration_closed"));
        }
    }
    let account = Account {
        email: request.email,
        username: request.username,
        password: request.password,
        is_admin: false,
    };
    let user = account.create(node).await?;
    begin(node, user, 0, peer).await
}

struct Account {
    email: String,
    username: String,
    password: String,
    is_admin: bool,
}

impl Account {
    async fn create(self, node: &Node) -> Result<User, ApiError> {
        let email = self.email.trim().to_lowercase();
        check_email(&email)?;
        check_name("username", &self.username)?;
        let hash = node.services.passwords.hash(self.password).await;
        let command = CreateUser {
            id: UserId::from_bits(node.services.ids.next_bits()),
            email,
            username: self.username,
            password_hash: hash.map_err(|error| error.to_error())?,
            is_admin: self.is_admin,
            only_if_no_admin: self.is_admin,
            at: node.services.clock.now_ms(),
        };
        let created = write(&node.root, command, WriteContext::default()).await;
        Ok(created.map_err(stored)?.output)
    }
}

fn check_email(email: &str) -> Result<(), ApiError> {
    let is_plausible = email.len() <= EMAIL_BYTES_MAX
        && !email.contains(|c: char| c.is_whitespace() || c.is_control())
        && email.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && !host.contains('@')
        });
    if is_plausible {
        return Ok(());
    }
    Err(ApiError::invalid("`email` is not an e-mail address").reason("invalid_email"))
}

pub(super) async fn login(node: &Node, request: AuthLogin, peer: Peer) -> Result<Done, ApiError> {
    let email = request.email.trim().to_lowercase();
    let found = node.root_reader.user_by_email(&email).await.map_err(stored)?;
    let hash = found.as_ref().and_then(|found| found.password_hash.clone());
    let verified = node.services.passwords.verify(request.password, hash).await;
    let is_right = verified.map_err(|error| error.to_error())?;
    let Some(found) = found.filter(|found| is_right && !found.disabled) else {
        let message = "e-mail address or password is wrong";
        let error = ApiError::new(ErrorCode::Unauthenticated, message);
        return Err(error.reason("invalid_credentials"));
    };
    begin(node, found.user, found.epoch, peer).await
}

/// Begins an authentication session of a user who proved who they are.
async fn begin(node: &Node, user: User, epoch: i64, peer: Peer) -> Result<Done, ApiError> {
    let services = &node.services;
    let refresh = services.refresh_tokens.first().map_err(|error| error.to_error())?;
    let id = AuthSessionId::from_bits(services.ids.next_bits());
    let command = BeginAuthSession {
        id: id.clone(),
        user_id: user.id.clone(),
        refresh_hash: refresh.hash(),
        expires_at: refresh_expiry(node),
        ip: peer.ip,
        agent: peer.agent,
        at: services.clock.now_ms(),
    };
    write(&node.root, command, WriteContext::default()).await.map_err(stored)?;
    grant(node, user, &id, epoch, &refresh)
}

fn refresh_expiry(node: &Node) -> i64 {
    let lifetime = i64::try_from(REFRESH_LIFETIME_DEFAULT.as_millis()).unwrap_or(i64::MAX);
    node.services.clock.now_ms().saturating_add(lifetime)
}

fn grant(
    node: &Node,
    user: User,
    auth_session_id: &AuthSessionId,
    epoch: i64,
    refresh: &RefreshToken,
) -> Result<Done, ApiError> {
    let access = node.services.access_tokens.issue(&user.id, auth_session_id, epoch);
    let access = access.map_err(internal)?;
    done(AuthGrant {
        user,
        access_token: access.token,
        refresh_token: refresh.as_str().to_owned(),
        expires_at: access.expires_at_ms,
    })
}

pub(super) async fn rotate(node: &Node, request: AuthRotate) -> Result<Done, ApiError> {
    let child = node.services.refresh_tokens.child_of(&request.refresh_token);
    let command = RotateRefresh {
        presented_hash: RefreshTokens::hash_of(&request.refresh_token),
        child_hash: child.hash(),
        child_expires_at: refresh_expiry(node),
        at: node.services.clock.now_ms(),
    };
    let rotated = write(&node.root, command, WriteContext::default()).await.map_err(stored)?;
    match rotated.output {
        RotateOutcome::Rotated { user, auth_session_id, epoch }
        | RotateOutcome::Repeated { user, auth_session_id, epoch } => {
            grant(node, user, &auth_session_id, epoch, &child)
        }
        RotateOutcome::Refused { reason } => {
            if let RefusalReason::Reused { user_id, auth_session_id } = &reason {
                node.connections.close_login(auth_session_id);
                tracing::warn!(
                    user.id = %user_id, auth_session.id = %auth_session_id,
                    "a refresh token was used twice; its authentication session is ended"
                );
            }
            Err(AuthError::Invalid.to_error())
        }
    }
}

pub(super) async fn logout(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(claims) = &grant.claims {
        let id = claims.auth_session_id.clone();
        let command = RevokeAuthSession { id: id.clone(), at: node.services.clock.now_ms() };
        write(&node.root, command, context).await.map_err(stored)?;
        node.connections.close_login(&id);
    }
    done(iris_protocol::Done { done: true })
}

/// Makes a ticket, which stands for the caller's access token.
pub(super) fn ticket(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let claims = grant.claims.clone();
    let claims = claims.ok_or_else(|| ApiError::from(ErrorCode::Unauthenticated))?;
    let ticket = Ticket::random().map_err(|error| error.to_error())?;
    let expires_at = node.tickets.add(&ticket, claims, node.services.clock.now_ms())?;
    done(TicketGrant { ticket: ticket.as_str().to_owned(), expires_at })
}

pub(super) async fn me(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let user = node.root_reader.user(grant.user_id()?).await.map_err(stored)?;
    done(UserPayload { user: user.ok_or_else(|| ApiError::not_found("user"))? })
}
