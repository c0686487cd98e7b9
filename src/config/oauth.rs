//! The configuration of one provider of logins.

use std::fs;

use iris_auth::PlainSecret;
use iris_identity::{ProviderKind, ProviderSettings};

use super::settings::Section;
use super::{ConfigError, parse};

/// Reads `oauth.NAME`, and the file with the secret if there is one.
pub(super) fn provider(name: &str, mut section: Section) -> Result<ProviderSettings, ConfigError> {
    let bad = |problem: &str| ConfigError::BadValue {
        name: format!("`oauth.{name}`"),
        problem: problem.to_owned(),
    };
    if !parse::is_provider_name(name) {
        return Err(bad("has a name with more than lower case letters, digits, `-` and `_`"));
    }
    let kind = section.parse("kind", parse::identity_kind)?;
    let kind = kind.ok_or_else(|| bad("needs a `kind`"))?;
    let title = section.parse("title", parse::secret_text)?;
    let issuer = section.parse("issuer", parse::secret_text)?;
    let client_id = section.parse("client_id", parse::secret_text)?;
    let client_id = client_id.ok_or_else(|| bad("needs a `client_id`"))?;
    let secret = section.parse("client_secret", parse::secret_text)?;
    let file = section.parse("client_secret_file", parse::path)?;
    let scopes = section.parse_list("scopes", parse::oauth_scope)?;
    let trusts_email = section.parse("trust_email", parse::switch)?.unwrap_or(false);
    if trusts_email && kind == ProviderKind::GitHub {
        return Err(bad("has `trust_email`, and GitHub says itself which addresses are verified"));
    }
    debug_assert!(section.keys_left().is_empty(), "keys not read: {:?}", section.keys_left());

    let title = title.unwrap_or_else(|| title_of(kind, name));
    let settings = ProviderSettings::new(kind, title, issuer, client_id);
    let mut settings = settings.map_err(|error| bad(&error.to_string()))?;
    if !scopes.is_empty() {
        settings = settings.with_scopes(scopes).map_err(|error| bad(&error.to_string()))?;
    }
    let secret = match (secret, file) {
        (Some(_), Some(_)) => {
            return Err(bad(
                "has a `client_secret` and a `client_secret_file`: one of them is enough",
            ));
        }
        (None, Some(path)) => {
            let text = fs::read_to_string(&path);
            let text = text.map_err(|error| {
                bad(&format!("has a `client_secret_file` that cannot be read: {error}"))
            })?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        }
        (secret, None) => secret,
    };
    if secret.is_none() && kind != ProviderKind::Oidc {
        return Err(bad("needs a `client_secret` or a `client_secret_file`"));
    }
    settings.client_secret = secret.map(PlainSecret::new);
    settings.trusts_email = trusts_email;
    Ok(settings)
}

fn title_of(kind: ProviderKind, name: &str) -> String {
    match kind {
        ProviderKind::GitHub => "GitHub".to_owned(),
        ProviderKind::Google => "Google".to_owned(),
        ProviderKind::Oidc => name.to_owned(),
    }
}
