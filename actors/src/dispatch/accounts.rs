//! Setup, registration, login, tokens.

use iris_auth::{
    AuthError, OneTimeSecret, REFRESH_LIFETIME_DEFAULT, RefreshToken, RefreshTokens, Ticket,
};
use iris_protocol::{
    ApiError, AuthGrant, AuthLogin, AuthLogout, AuthRegister, AuthRotate, AuthSessionId, AuthSetup,
    ErrorCode, Event, RegistrationMode, TicketGrant, User, UserId, UserPayload,
};
use iris_store::WriteContext;
use iris_store::root::{
    BeginAuthSession, CreateInvitedUser, CreateUser, EndLogins, RecordAudit, RefusalReason,
    RevokeAuthSession, RotateOutcome, RotateRefresh, TokenHash,
};
use serde_json::json;

use super::audit::result_of;
use super::invitations::{event_of, joined};
use super::people::login_of;
use super::{Done, Grant, Peer, check_name, done, internal, stored};
use crate::logins::Through;
use crate::supervision::current_request;
use crate::{Node, record, write};

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
        let error = ApiError::new(ErrorCode::Unauthenticated, message).reason("setup_token");
        return Err(stranger_refused(node, "auth.setup", "server", &peer, error));
    }
    let account = Account {
        email: request.email,
        username: request.username,
        password: request.password,
        is_admin: true,
    };
    let user = account.create(node, "auth.setup", &peer, None).await?;
    *node.services.setup_token.lock() = None;
    done(begin(node, user, 0, peer, None).await?)
}

pub(super) async fn register(
    node: &Node,
    request: AuthRegister,
    peer: Peer,
) -> Result<Done, ApiError> {
    let invitation = request.invitation.as_deref().map(OneTimeSecret::hash_of);
    may_register(node, invitation.as_ref())?;
    if let Some(hash) = invitation {
        // Before the password is hashed, which is work that nobody should get for nothing.
        check_invitation(node, hash, &request.email.trim().to_lowercase()).await?;
    }
    let account = Account {
        email: request.email,
        username: request.username,
        password: request.password,
        is_admin: false,
    };
    let user = account.create(node, "auth.register", &peer, invitation).await?;
    done(begin(node, user, 0, peer, None).await?)
}

/// Whether somebody without an account may have one, with an invitation or without.
pub(super) fn may_register(node: &Node, invitation: Option<&TokenHash>) -> Result<(), ApiError> {
    let (message, reason) = match (node.choices.now().registration, invitation) {
        (RegistrationMode::Open, _) | (RegistrationMode::Invite, Some(_)) => return Ok(()),
        (RegistrationMode::Invite, None) => {
            ("only who is invited may register on this server", "invitation_needed")
        }
        (RegistrationMode::Closed, _) => {
            ("registration is closed on this server", "registration_closed")
        }
    };
    Err(ApiError::new(ErrorCode::Forbidden, message).reason(reason))
}

/// Refuses an invitation that is not good for this address, or not any more.
pub(super) async fn check_invitation(
    node: &Node,
    hash: TokenHash,
    email: &str,
) -> Result<(), ApiError> {
    let now = node.services.clock.now_ms();
    let good = node.root_reader.invitation(hash, email, now).await.map_err(stored)?;
    good.map(drop).ok_or_else(|| ApiError::not_found("invitation"))
}

struct Account {
    email: String,
    username: String,
    password: String,
    is_admin: bool,
}

impl Account {
    /// Creates the user, and accepts the invitation that they bring.
    async fn create(
        self,
        node: &Node,
        action: &str,
        peer: &Peer,
        invitation: Option<[u8; 32]>,
    ) -> Result<User, ApiError> {
        let email = self.email.trim().to_lowercase();
        check_account(&email, &self.username)?;
        let hash = node.services.passwords.hash(self.password, &[&email, &self.username]).await;
        let id = UserId::from_bits(node.services.ids.next_bits());
        let details = json!({ "isAdmin": self.is_admin, "invited": invitation.is_some() });
        let audit = RecordAudit {
            ip: peer.ip.clone(),
            ..node.services.audit(&id, action, id.as_str(), details)
        };
        let command = CreateUser {
            id,
            email,
            username: self.username,
            password_hash: Some(hash.map_err(|error| error.to_error())?),
            is_admin: self.is_admin,
            only_if_no_admin: self.is_admin,
            at: node.services.clock.now_ms(),
        };
        let context = WriteContext { audit: Some(Box::new(audit)), ..WriteContext::default() };
        let Some(hash) = invitation else {
            let created = write(&node.root, command, context).await;
            return Ok(created.map_err(stored)?.output);
        };
        let command = CreateInvitedUser { user: command, hash };
        let accepted = write(&node.root, command, context).await.map_err(stored)?.output;
        if let Some(project_id) = &accepted.project_id {
            joined(node, project_id).await;
        }
        Ok(accepted.user)
    }
}

/// Refuses an address or a name that no account may have. The address is one without blanks around it, in
/// lower case.
///
/// # Errors
/// `INVALID_REQUEST`.
pub fn check_account(email: &str, username: &str) -> Result<(), ApiError> {
    check_email(email)?;
    check_name("username", username)
}

pub(super) fn check_email(email: &str) -> Result<(), ApiError> {
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

/// The answer to a wrong password of somebody who is logged in.
pub(super) fn wrong_password() -> ApiError {
    ApiError::new(ErrorCode::Forbidden, "the password is wrong").reason("wrong_password")
}

pub(super) async fn login(node: &Node, request: AuthLogin, peer: Peer) -> Result<Done, ApiError> {
    let email = request.email.trim().to_lowercase();
    let attempt = match node.rates.begin_login(&email, Some(&peer)) {
        Ok(attempt) => attempt,
        Err(error) => {
            let target = "account";
            return Err(stranger_refused(node, "auth.login", target, &peer, error));
        }
    };
    let found = node.root_reader.user_by_email(&email).await.map_err(stored)?;
    let hash = found.as_ref().and_then(|found| found.password_hash.clone());
    let target = found.as_ref().map(|found| found.user.id.to_string());
    let verified = node.services.passwords.verify(request.password, hash).await;
    let is_right = verified.map_err(|error| error.to_error())?;
    let Some(found) = found.filter(|found| is_right && !found.disabled) else {
        let message = "e-mail address or password is wrong";
        let error = ApiError::new(ErrorCode::Unauthenticated, message);
        let error = error.reason("invalid_credentials");
        let target = target.as_deref().unwrap_or("account");
        return Err(stranger_refused(node, "auth.login", target, &peer, error));
    };
    node.rates.login_succeeded(&attempt);
    done(begin(node, found.user, found.epoch, peer, None).await?)
}

/// Records what somebody was refused whom nobody knows. Whether it is written makes no difference to the
/// time of the answer: nobody waits for it. Answers the refusal.
pub(super) fn stranger_refused(
    node: &Node,
    action: &str,
    target: &str,
    peer: &Peer,
    error: ApiError,
) -> ApiError {
    if node.rates.may_record_strangers_refusal() {
        let audit = RecordAudit {
            at: node.services.clock.now_ms(),
            ip: peer.ip.clone(),
            action: action.to_owned(),
            target: target.to_owned(),
            result: result_of(&error),
            request_id: current_request().map(|request| request.to_string()),
            ..RecordAudit::default()
        };
        drop(record(&node.root, audit, WriteContext::default()));
    }
    error
}

/// Begins an authentication session of a user who proved who they are, here or at another provider.
pub(super) async fn begin(
    node: &Node,
    user: User,
    epoch: i64,
    peer: Peer,
    through: Option<Through>,
) -> Result<AuthGrant, ApiError> {
    let services = &node.services;
    let refresh = services.refresh_tokens.first().map_err(|error| error.to_error())?;
    let id = AuthSessionId::from_bits(services.ids.next_bits());
    let details = match &through {
        Some(through) => json!({ "agent": peer.agent, "provider": through.provider }),
        None => json!({ "agent": peer.agent }),
    };
    let audit = RecordAudit {
        ip: peer.ip.clone(),
        credential: Some(id.to_string()),
        ..services.audit(&user.id, "auth.login", user.id.as_str(), details)
    };
    let command = BeginAuthSession {
        id: id.clone(),
        user_id: user.id.clone(),
        refresh_hash: refresh.hash(),
        expires_at: refresh_expiry(node),
        ip: peer.ip,
        agent: peer.agent,
        identity: through.map(|through| through.identity),
        at: services.clock.now_ms(),
    };
    let context = WriteContext { audit: Some(Box::new(audit)), ..WriteContext::default() };
    write(&node.root, command, context).await.map_err(stored)?;
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
) -> Result<AuthGrant, ApiError> {
    let access = node.services.access_tokens.issue(&user.id, auth_session_id, epoch);
    let access = access.map_err(internal)?;
    Ok(AuthGrant {
        user,
        access_token: access.token,
        refresh_token: refresh.as_str().to_owned(),
        expires_at: access.expires_at_ms,
    })
}

pub(super) async fn rotate(node: &Node, request: AuthRotate, peer: Peer) -> Result<Done, ApiError> {
    let tokens = &node.services.refresh_tokens;
    let child = tokens.child_of(&request.refresh_token);
    let command = RotateRefresh {
        presented_hash: RefreshTokens::hash_of(&request.refresh_token),
        child_hash: child.hash(),
        child_expires_at: refresh_expiry(node),
        at: node.services.clock.now_ms(),
    };
    let rotated = write(&node.root, command, WriteContext::default()).await.map_err(stored)?;
    match rotated.output {
        RotateOutcome::Rotated { user, auth_session_id, epoch } => {
            done(grant(node, user, &auth_session_id, epoch, &child)?)
        }
        RotateOutcome::Repeated { user, auth_session_id, epoch, child_hash } => {
            // Perhaps the key was rotated since the child was made.
            let child = tokens.child_with_hash(&request.refresh_token, &child_hash);
            let child = child.ok_or_else(|| AuthError::Invalid.to_error())?;
            done(grant(node, user, &auth_session_id, epoch, &child)?)
        }
        RotateOutcome::Refused { reason } => {
            if let RefusalReason::Reused { user_id, auth_session_id } = reason {
                reused(node, &user_id, auth_session_id, peer).await;
            }
            Err(AuthError::Invalid.to_error())
        }
    }
}

/// Ends what is open of a login whose refresh token two parties hold, and tells its user.
async fn reused(node: &Node, user_id: &UserId, login: AuthSessionId, peer: Peer) {
    node.connections.close_login(&login);
    tracing::warn!(
        user.id = %user_id, auth_session.id = %login,
        "a refresh token was used twice; its authentication session is ended"
    );
    let audit = RecordAudit {
        ip: peer.ip.clone(),
        credential: Some(login.to_string()),
        user_id: None,
        result: "token_reuse".to_owned(),
        ..node.services.audit(user_id, "auth.rotate", user_id.as_str(), json!({}))
    };
    if let Err(error) = record(&node.root, audit, WriteContext::default()).await {
        tracing::error!(%error, "the reuse of a refresh token is not in the audit");
    }
    let event = Event::TokenReused { auth_session_id: login, ip: peer.ip };
    node.connections.tell_user(user_id, &event_of(user_id, event));
}

pub(super) async fn logout(
    node: &Node,
    grant: &Grant,
    request: AuthLogout,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let at = node.services.clock.now_ms();
    if request.everywhere {
        let user_id = grant.user_id()?.clone();
        write(&node.root, EndLogins { user_id: user_id.clone(), at }, context)
            .await
            .map_err(stored)?;
        node.connections.close_logins_of(&user_id);
    } else if let Some(id) = login_of(grant).cloned() {
        write(&node.root, RevokeAuthSession { id: id.clone(), at }, context)
            .await
            .map_err(stored)?;
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
