//! Who came back from a provider: a user of ours, or somebody who becomes one.

use iris_identity::Person;
use iris_protocol::{ApiError, ErrorCode, IdentityId, UserId, limits::NAME_BYTES_MAX};
use iris_store::root::{
    Accepted, CreateLinkedUser, CreateUser, IdentityUse, NewIdentity, RecordAudit, TokenHash,
};
use iris_store::{StoreError, WriteContext};
use serde_json::json;

use super::super::accounts::{check_invitation, may_register};
use super::super::invitations::joined;
use super::super::{Peer, stored};
use super::conflict;
use crate::logins::{Came, Through};
use crate::{Node, write};

/// How many names are tried before one is made up.
const NAMES_TRIED_MAX: u32 = 9;
/// Who tells no name at all.
const NAMELESS: &str = "user";

pub(super) fn disabled() -> ApiError {
    ApiError::new(ErrorCode::Forbidden, "the account is disabled").reason("account_disabled")
}

/// Nobody becomes somebody else because a provider says that they have the same address.
fn link_required() -> ApiError {
    let message = "there is an account with this e-mail address: log in to it as always, and link \
                   it with this provider there";
    conflict(message, "link_required")
}

/// The user whom a provider vouches for, who is made one now where anybody may become one, or is invited.
pub(super) async fn arrive(
    node: &Node,
    provider: String,
    person: Person,
    invitation: Option<TokenHash>,
    peer: &Peer,
) -> Result<Came, ApiError> {
    if let Some(came) = known(node, &provider, &person).await? {
        return Ok(came);
    }
    if let Some(email) = &person.email
        && node.root_reader.user_by_email(email).await.map_err(stored)?.is_some()
    {
        return Err(link_required());
    }
    may_register(node, invitation.as_ref())?;
    let email = person.email.clone().filter(|_| person.email_verified);
    let email = email.ok_or_else(|| {
        let message = format!("`{provider}` tells no e-mail address that it knows to be yours");
        ApiError::new(ErrorCode::Forbidden, message).reason("email_not_verified")
    })?;
    if let Some(hash) = invitation {
        check_invitation(node, hash, &email).await?;
    }
    register(node, provider, person, email, invitation, peer).await
}

/// The user who is linked with this person already.
async fn known(node: &Node, provider: &str, person: &Person) -> Result<Option<Came>, ApiError> {
    let found = node.root_reader.identity(&person.issuer, &person.subject).await;
    let Some((id, account)) = found.map_err(stored)? else { return Ok(None) };
    if account.disabled {
        return Err(disabled());
    }
    let identity = IdentityUse { id, email: person.email.clone() };
    let through = Through { provider: provider.to_owned(), identity };
    Ok(Some(Came::In { user_id: account.user.id, epoch: account.epoch, through }))
}

async fn register(
    node: &Node,
    provider: String,
    person: Person,
    email: String,
    invitation: Option<TokenHash>,
    peer: &Peer,
) -> Result<Came, ApiError> {
    let services = &node.services;
    let id = UserId::from_bits(services.ids.next_bits());
    let identity = NewIdentity {
        id: IdentityId::from_bits(services.ids.next_bits()),
        provider: provider.clone(),
        issuer: person.issuer.clone(),
        subject: person.subject.clone(),
        email: person.email.clone(),
    };
    let details =
        json!({ "isAdmin": false, "invited": invitation.is_some(), "provider": provider });
    let audit = RecordAudit {
        ip: peer.ip.clone(),
        ..services.audit(&id, "auth.register", id.as_str(), details)
    };
    let base = name_of(&person.names, &email);
    let mut tried = 0;
    let Accepted { user, project_id } = loop {
        tried += 1;
        let username = match tried {
            1 => base.clone(),
            2..=NAMES_TRIED_MAX => format!("{base}-{tried}"),
            _ => format!("{base}-{}", id.as_str().trim_start_matches("usr_")),
        };
        let user = CreateUser {
            id: id.clone(),
            email: email.clone(),
            username,
            password_hash: None,
            is_admin: false,
            only_if_no_admin: false,
            at: services.clock.now_ms(),
        };
        let command = CreateLinkedUser { user, identity: identity.clone(), invitation };
        let context =
            WriteContext { audit: Some(Box::new(audit.clone())), ..WriteContext::default() };
        match write(&node.root, command, context).await {
            Ok(created) => break created.output,
            Err(StoreError::Conflict { reason: "username_taken", .. })
                if tried <= NAMES_TRIED_MAX => {}
            // Perhaps they were made a moment ago, by another browser of theirs.
            Err(StoreError::Conflict { reason: "email_taken" | "identity_taken", .. }) => {
                let made = known(node, &provider, &person).await?;
                return made.ok_or_else(link_required);
            }
            Err(error) => return Err(stored(error)),
        }
    };
    if let Some(project_id) = &project_id {
        joined(node, project_id).await;
    }
    let identity = IdentityUse { id: identity.id, email: identity.email };
    let through = Through { provider, identity };
    // That of a user who was just made.
    Ok(Came::In { user_id: user.id, epoch: 0, through })
}

/// What somebody is called, if nobody is called so yet: what they want, or how their address begins.
fn name_of(names: &[String], email: &str) -> String {
    // What is put behind it has place too.
    let bytes_max = NAME_BYTES_MAX - 40;
    let local = email.split('@').next().unwrap_or_default();
    let all = names.iter().map(String::as_str).chain([local]);
    let mut plain = all.map(|name| {
        let mut plain = String::new();
        for c in name.trim().chars().filter(|c| !c.is_control()) {
            if plain.len() + c.len_utf8() > bytes_max {
                break;
            }
            plain.push(c);
        }
        plain
    });
    plain.find(|name| !name.trim().is_empty()).unwrap_or_else(|| NAMELESS.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::super::check_name;
    use super::*;

    #[test]
    fn everybody_gets_a_name_that_may_be_one() {
        let name = |names: &[&str], email| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let name = name_of(&names, email);
            check_name("username", &name).unwrap();
            name
        };
        assert_eq!(name(&["ann", "Ann Example"], "a@b.c"), "ann");
        assert_eq!(name(&[" \u{7}", "Ann\nExample"], "a@b.c"), "AnnExample");
        assert_eq!(name(&[], "ann@b.c"), "ann");
        assert_eq!(name(&[], "\u{1}@b.c"), NAMELESS);
        assert_eq!(name(&[&"ü".repeat(200)], "a@b.c"), "ü".repeat(80));
    }
}
