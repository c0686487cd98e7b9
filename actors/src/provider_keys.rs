//! The keys with which the models of a run are asked.
//!
//! One that does not open is never passed over for another: somebody else would pay.

use std::sync::Arc;

use iris_llm::{ApiKey, Model};
use iris_protocol::{ApiError, ErrorCode, ModelRef, UserId};
use iris_store::root::{CredentialOwner, FoundCredential};

use crate::project::ProjectHandle;
use crate::services::Services;
use crate::session::SessionPlace;

/// What a credential's key is sealed for.
pub(crate) fn place<'a>(owner: &'a CredentialOwner, provider_id: &'a str) -> [&'a str; 4] {
    let (kind, id) = match owner {
        CredentialOwner::User(id) => ("user", id.as_str()),
        CredentialOwner::Project(id) => ("project", id.as_str()),
        CredentialOwner::Server => ("server", ""),
    };
    ["provider", kind, id, provider_id]
}

/// The model, asked with the key for what `user_id` sets to work in the session: theirs, else that of the
/// project, else that of the server, else the one of the configuration.
///
/// # Errors
/// `MODEL_UNAVAILABLE` for a provider that is not configured, and with reason `credential_unreadable` for a
/// key that was sealed with another master key; those of the root database.
pub(crate) async fn model_for(
    session: &SessionPlace,
    user_id: &UserId,
    model: &ModelRef,
) -> Result<Arc<dyn Model>, ApiError> {
    let (root, project_id) = (&session.project.root, &session.project.id);
    let credential = root.nearest_credential(&model.provider_id, user_id, project_id).await;
    let credential = credential.map_err(|error| error.to_api())?;
    let found = model_with(&session.project, &session.services, model, credential.as_ref())?;
    Ok(found.0)
}

/// The same with a credential that was found already, and the print of the key, empty without one. The key is
/// hidden from now on where others repeat it: that of the server everywhere, others in the project.
///
/// # Errors
/// As [`model_for`], but for those of the root database.
pub(crate) fn model_with(
    project: &ProjectHandle,
    services: &Services,
    model: &ModelRef,
    credential: Option<&FoundCredential>,
) -> Result<(Arc<dyn Model>, String), ApiError> {
    let found = services.models.get(model);
    let found = found.map_err(|error| ApiError::new(error.code(), error.to_string()))?;
    let print = |key: &ApiKey| services.sealing.print(key.expose());
    let Some(credential) = credential else {
        let key = services.models.configured_key(&model.provider_id);
        return Ok((found, key.map(print).unwrap_or_default()));
    };
    let key = open(project, services, credential)?;
    let print = print(&key);
    Ok((iris_llm::with_key(found, key), print))
}

fn open(
    project: &ProjectHandle,
    services: &Services,
    credential: &FoundCredential,
) -> Result<ApiKey, ApiError> {
    let FoundCredential { owner, provider_id, sealed, .. } = credential;
    match services.sealing.open(sealed, &place(owner, provider_id)) {
        Ok(key) => {
            let key = key.expose();
            match owner {
                CredentialOwner::Server => iris_redact::shared().learn(key),
                CredentialOwner::User(_) | CredentialOwner::Project(_) => {
                    project.kept.secrets.learn_chosen(key);
                }
            }
            Ok(ApiKey::new(key))
        }
        Err(error) => {
            tracing::warn!(credential.id = %credential.id, %error, "a key for a model provider cannot be read");
            let whose = match owner {
                CredentialOwner::User(_) => "of the user",
                CredentialOwner::Project(_) => "of the project",
                CredentialOwner::Server => "of the server",
            };
            let message = format!(
                "the key {whose} for the provider `{provider_id}` cannot be read any more: set it again"
            );
            let error = ApiError::new(ErrorCode::ModelUnavailable, message);
            Err(error
                .reason("credential_unreadable")
                .detail("credentialId", credential.id.as_str()))
        }
    }
}
