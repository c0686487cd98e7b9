//! Who the caller is at other providers: links that they want, make and take away.

use iris_auth::Ticket;
use iris_protocol::{
    ApiError, IdentityCreate, IdentityDelete, IdentityId, IdentityLink, IdentityLinkStarted,
    IdentityPage, IdentityPayload,
};
use iris_store::WriteContext;
use iris_store::root::{LinkIdentity, NewIdentity, UnlinkIdentity};
use serde_json::json;

use super::super::people::{login_of, prove};
use super::super::{Done, Grant, done, stored};
use super::{invalid_code, provider, public_url, take_finished, target};
use crate::logins::{Came, WantedLink};
use crate::mail::Mail;
use crate::{Node, record, write};

pub(in super::super) async fn list(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let identities = node.root_reader.identities(grant.user_id()?).await.map_err(stored)?;
    done(IdentityPage { identities })
}

/// Prepares a link. Another way in is made with it, for which a login that lies open is not enough.
pub(in super::super) async fn link(
    node: &Node,
    grant: &Grant,
    request: IdentityLink,
) -> Result<Done, ApiError> {
    let IdentityLink { provider: name, redirect, code_challenge, current_password } = request;
    provider(node, &name)?;
    let place = public_url(node)?;
    let target = target(node, redirect, code_challenge)?;
    prove(node, grant, current_password).await?;
    let user_id = grant.user_id()?;
    let details = json!({ "provider": name });
    let audit = node.services.audit(user_id, "identity.link", user_id.as_str(), details);
    record(&node.root, audit, WriteContext::default()).await.map_err(stored)?;
    let secret = Ticket::random().map_err(|error| error.to_error())?;
    let url = format!("{place}/v1/auth/oauth/{name}/start?link={}", secret.as_str());
    let wanted = WantedLink { user_id: user_id.clone(), provider: name, target };
    let expires_at = node.logins.links.add(&secret, wanted, node.services.clock.now_ms());
    done(IdentityLinkStarted { url, expires_at })
}

/// Makes a link that the caller prepared, and for which they came back.
pub(in super::super) async fn create(
    node: &Node,
    grant: &Grant,
    IdentityCreate { code, code_verifier }: IdentityCreate,
) -> Result<Done, ApiError> {
    let user_id = grant.user_id()?;
    let user = node.root_reader.user(user_id).await.map_err(stored)?;
    let (provider, person) = match take_finished(node, &code, &code_verifier)? {
        Came::Linking { user_id: by, provider, person } if by == *user_id => (provider, person),
        Came::Linking { .. } | Came::In { .. } => return Err(invalid_code()),
    };
    let id = IdentityId::from_bits(node.services.ids.next_bits());
    let details = json!({ "provider": provider, "issuer": person.issuer });
    let audit = node.services.audit(user_id, "identity.create", id.as_str(), details);
    let command = LinkIdentity {
        user_id: user_id.clone(),
        identity: NewIdentity {
            id,
            provider,
            issuer: person.issuer,
            subject: person.subject,
            email: person.email,
        },
        at: node.services.clock.now_ms(),
    };
    let context = WriteContext { audit: Some(Box::new(audit)), ..WriteContext::default() };
    let identity = write(&node.root, command, context).await.map_err(stored)?.output;
    if let (Some(mailer), Some(user)) = (&node.services.mailer, user) {
        let text = format!(
            "Your account can be logged in to with `{}` from now on.\n\n\
             If it was not you, set a new password with a link by e-mail: that takes this way in away.\n",
            identity.provider
        );
        mailer.send(Mail { to: user.email, subject: "Another way to log in", text });
    }
    done(IdentityPayload { identity })
}

pub(in super::super) async fn delete(
    node: &Node,
    grant: &Grant,
    IdentityDelete { identity_id: id }: IdentityDelete,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let providers = node.services.identity_providers.values();
    let issuers = providers.map(|provider| provider.settings().issuer.clone()).collect();
    let (user_id, keep) = (grant.user_id()?.clone(), login_of(grant));
    let at = node.services.clock.now_ms();
    let command = UnlinkIdentity { user_id: user_id.clone(), id, issuers, keep: keep.cloned(), at };
    let taken = write(&node.root, command, context).await.map_err(stored)?;
    node.connections.close_other_logins_of(&user_id, keep);
    Ok(done(iris_protocol::Done { done: true })?.at(None, taken.replayed))
}
