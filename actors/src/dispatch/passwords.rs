//! Passwords that are changed, forgotten and set anew.

use iris_auth::OneTimeSecret;
use iris_protocol::{ApiError, PasswordChange, PasswordForgot, PasswordReset, User};
use iris_store::WriteContext;
use iris_store::root::{BeginPasswordReset, FinishPasswordReset, RecordAudit, SetPassword};
use serde_json::json;

use super::accounts::begin;
use super::people::prove;
use super::{Done, Grant, Peer, done, stored};
use crate::mail::Mail;
use crate::{Node, write};

/// How long a link is good that goes out by e-mail, in milliseconds.
const RESET_LIFETIME_MS: i64 = 10 * 60 * 1_000;

/// The page on which a client takes a secret. It stands behind `#`, which browsers send to no server.
pub(super) fn link(node: &Node, page: &str, secret: &OneTimeSecret) -> Option<String> {
    let origin = node.services.settings.public_url.as_ref()?;
    Some(format!("{origin}/#{page}={}", secret.as_str()))
}

pub(super) async fn change(
    node: &Node,
    grant: &Grant,
    request: PasswordChange,
    peer: Peer,
) -> Result<Done, ApiError> {
    let user_id = grant.user_id()?;
    let found = prove(node, grant, request.current_password).await?;
    let about = [found.user.email.as_str(), &found.user.username];
    let hash = node.services.passwords.hash(request.new_password, &about).await;
    let audit = node.services.audit(user_id, "auth.password.change", user_id.as_str(), json!({}));
    let command = SetPassword {
        id: user_id.clone(),
        password_hash: hash.map_err(|error| error.to_error())?,
        instead_of: found.password_hash,
        at: node.services.clock.now_ms(),
    };
    let context = WriteContext { audit: Some(Box::new(audit)), ..WriteContext::default() };
    let epoch = write(&node.root, command, context).await.map_err(stored)?.output;
    node.connections.close_logins_of(user_id);
    done(begin(node, found.user, epoch, peer, None).await?)
}

/// Answers the same for every address, and at once: whoever asks learns nothing of who has an account.
pub(super) fn forgot(node: &Node, request: &PasswordForgot, peer: Peer) -> Result<Done, ApiError> {
    let email = request.email.trim().to_lowercase();
    node.rates.count_reset(&email)?;
    if node.services.mailer.is_some() {
        let (node, request) = (node.clone(), crate::supervision::current_request());
        crate::supervision::detached(async move {
            let sent = send_link(&node, &email, peer);
            let sent = match request {
                Some(request) => crate::supervision::in_request(request, sent).await,
                None => sent.await,
            };
            if let Err(error) = sent {
                tracing::warn!(%error, "a link to set a password was not sent");
            }
        });
    }
    done(iris_protocol::Done { done: true })
}

async fn send_link(node: &Node, email: &str, peer: Peer) -> Result<(), ApiError> {
    let found = node.root_reader.user_by_email(email).await.map_err(stored)?;
    let Some(found) = found.filter(|found| !found.disabled) else { return Ok(()) };
    let Some(mailer) = &node.services.mailer else { return Ok(()) };
    let secret = OneTimeSecret::random().map_err(|error| error.to_error())?;
    let user_id = found.user.id;
    let audit = RecordAudit {
        ip: peer.ip,
        user_id: None,
        ..node.services.audit(&user_id, "auth.password.forgot", user_id.as_str(), json!({}))
    };
    let expires_at = node.services.clock.now_ms().saturating_add(RESET_LIFETIME_MS);
    let command = BeginPasswordReset { user_id, hash: secret.hash(), expires_at };
    let context = WriteContext { audit: Some(Box::new(audit)), ..WriteContext::default() };
    write(&node.root, command, context).await.map_err(stored)?;
    mailer.send(Mail {
        to: found.user.email,
        subject: "Set a new password",
        text: text(
            node,
            "reset",
            &secret,
            "Somebody, perhaps you, asked to set a new password.",
            "It is good once, for ten minutes. If it was not you, do nothing.",
        ),
    });
    Ok(())
}

/// A mail with a secret and, where it is known, the link to the page that takes it.
pub(super) fn text(
    node: &Node,
    page: &str,
    secret: &OneTimeSecret,
    why: &str,
    bounds: &str,
) -> String {
    let place = match link(node, page, secret) {
        Some(link) => format!("Open this link:\n\n{link}\n"),
        None => format!("This is the code for it:\n\n{}\n", secret.as_str()),
    };
    format!("{why}\n{place}\n{bounds}\n")
}

pub(super) async fn reset(
    node: &Node,
    request: PasswordReset,
    peer: Peer,
) -> Result<Done, ApiError> {
    let hash = OneTimeSecret::hash_of(&request.token);
    let now = node.services.clock.now_ms();
    // Before the new password is hashed, which is work that nobody should get for nothing.
    let whose = node.root_reader.password_reset(hash, now).await.map_err(stored)?;
    let user_id = whose.ok_or_else(invalid_or_expired)?;
    let user = node.root_reader.user(&user_id).await.map_err(stored)?;
    let User { email, username, .. } = user.ok_or_else(invalid_or_expired)?;
    let password_hash =
        node.services.passwords.hash(request.new_password, &[&email, &username]).await;
    let audit = RecordAudit {
        ip: peer.ip,
        ..node.services.audit(&user_id, "auth.password.reset", user_id.as_str(), json!({}))
    };
    let command = FinishPasswordReset {
        hash,
        password_hash: password_hash.map_err(|error| error.to_error())?,
        at: now,
    };
    let context = WriteContext { audit: Some(Box::new(audit)), ..WriteContext::default() };
    let set = write(&node.root, command, context).await.map_err(stored)?;
    let user_id = set.output.ok_or_else(invalid_or_expired)?;
    node.connections.close_logins_of(&user_id);
    done(iris_protocol::Done { done: true })
}

fn invalid_or_expired() -> ApiError {
    let message = "the link is not good, or not any more: ask for a new one";
    ApiError::invalid(message).reason("invalid_or_expired")
}
