//! Keys with which model providers are asked: of users, of projects, of the server.
//!
//! No answer and no event holds such a key. Of those that fit, the one of the user who set a run to work is
//! used, else the one of its project, else the one of the server, else the one in the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CredentialId, SecretText, UserId};

payloads! {
    /// A key with which a provider is asked, without its secret.
    ProviderCredential {
        /// The credential.
        id: CredentialId,
        /// The provider, as the configuration names it.
        provider_id: String,
        /// The last four characters of a key of 16 or more, by which its owner knows it; empty for others.
        hint: String,
        /// Who set it.
        created_by: UserId,
        /// Milliseconds since 1970 UTC.
        created_at: i64,
    }
    /// One credential.
    CredentialPayload {
        /// What is known of it.
        credential: ProviderCredential,
    }
    /// All credentials of one owner.
    CredentialPage {
        /// By the names of their providers; one for each at most.
        credentials: Vec<ProviderCredential>,
    }
    /// Sets the caller's key for a provider, in place of the one before.
    #[serde(deny_unknown_fields)]
    CredentialCreate {
        /// The provider, as the configuration names it.
        provider_id: String,
        /// The key: 1 to 4096 printable ASCII characters.
        api_key: SecretText,
    }
    /// Lists the caller's credentials.
    CredentialList {}
    /// Takes a credential of the caller away.
    #[serde(deny_unknown_fields)]
    CredentialDelete {
        /// The credential.
        credential_id: CredentialId,
    }
    /// Sets the project's key for a provider, in place of the one before.
    #[serde(deny_unknown_fields)]
    ProjectCredentialCreate {
        /// The provider, as the configuration names it.
        provider_id: String,
        /// The key: 1 to 4096 printable ASCII characters.
        api_key: SecretText,
    }
    /// Lists the credentials of a project.
    ProjectCredentialList {}
    /// Takes a credential of a project away.
    #[serde(deny_unknown_fields)]
    ProjectCredentialDelete {
        /// The credential.
        credential_id: CredentialId,
    }
    /// Sets the server's key for a provider, in place of the one before.
    #[serde(deny_unknown_fields)]
    ServerCredentialCreate {
        /// The provider, as the configuration names it.
        provider_id: String,
        /// The key: 1 to 4096 printable ASCII characters.
        api_key: SecretText,
    }
    /// Lists the credentials of the server.
    ServerCredentialList {}
    /// Takes a credential of the server away.
    #[serde(deny_unknown_fields)]
    ServerCredentialDelete {
        /// The credential.
        credential_id: CredentialId,
    }
}
