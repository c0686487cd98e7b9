//! Keys with which model providers are asked.

use iris_auth::PlainSecret;
use iris_llm::ApiKey;
use iris_protocol::{
    ApiError, CredentialId, CredentialPage, CredentialPayload, Done as Ended, SecretText,
};
use iris_store::WriteContext;
use iris_store::root::{CredentialOwner, DeleteCredential, SetCredential};

use super::{Done, Grant, done, internal, stored};
use crate::{Node, provider_keys, write};

/// Characters of a key that its owner sees again.
const HINT_CHARS: usize = 4;
/// A key with fewer characters shows none: too much of it would be known.
const HINTED_CHARS_MIN: usize = 16;

pub(super) fn own(grant: &Grant) -> Result<CredentialOwner, ApiError> {
    Ok(CredentialOwner::User(grant.user_id()?.clone()))
}

pub(super) fn of_project(grant: &Grant) -> Result<CredentialOwner, ApiError> {
    Ok(CredentialOwner::Project(grant.project_id()?.clone()))
}

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    owner: CredentialOwner,
    provider_id: String,
    api_key: &SecretText,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let services = &node.services;
    if !services.models.takes_key(&provider_id) {
        let message = format!("no model provider `{provider_id}` that takes a key is configured");
        return Err(ApiError::invalid(message).reason("unknown_provider"));
    }
    if !ApiKey::is_well_formed(api_key.expose()) {
        let message = "`apiKey` must be 1 to 4096 printable ASCII characters";
        return Err(ApiError::invalid(message).reason("invalid_api_key"));
    }
    let secret = PlainSecret::new(api_key.expose().to_owned());
    let place = provider_keys::place(&owner, &provider_id);
    let sealed = services.sealing.seal(&secret, &place).map_err(internal)?;
    let command = SetCredential {
        id: CredentialId::from_bits(services.ids.next_bits()),
        owner,
        provider_id,
        sealed,
        hint: hint(api_key.expose()),
        created_by: grant.user_id()?.clone(),
        at: services.clock.now_ms(),
    };
    let set = write(&node.root, command, context).await.map_err(stored)?;
    Ok(done(CredentialPayload { credential: set.output })?.at(None, set.replayed))
}

fn hint(key: &str) -> String {
    let count = key.chars().count();
    let shown = if count < HINTED_CHARS_MIN { 0 } else { HINT_CHARS };
    key.chars().skip(count - shown).collect()
}

pub(super) async fn list(node: &Node, owner: CredentialOwner) -> Result<Done, ApiError> {
    let credentials = node.root_reader.credentials_of(owner).await.map_err(stored)?;
    done(CredentialPage { credentials })
}

pub(super) async fn delete(
    node: &Node,
    owner: CredentialOwner,
    id: CredentialId,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let deleted = write(&node.root, DeleteCredential { owner, id }, context).await;
    let deleted = deleted.map_err(stored)?;
    Ok(done(Ended { done: true })?.at(None, deleted.replayed))
}
