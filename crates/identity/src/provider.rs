//! One provider of logins: where a browser is sent, and who came back.

use std::sync::Arc;

use iris_egress::{Egress, Exception};
use url::Url;

use crate::ask::Way;
use crate::error::IdentityError;
use crate::github;
use crate::oidc::Oidc;
use crate::settings::{ProviderKind, ProviderSettings};

/// A provider of logins.
pub struct Provider {
    settings: ProviderSettings,
    egress: Arc<Egress>,
    oidc: Oidc,
}

/// What a browser is sent away with.
#[derive(Debug, Clone, Copy)]
pub struct Begin<'a> {
    /// Where it comes back to.
    pub redirect_uri: &'a str,
    /// Names what was begun when it comes back.
    pub state: &'a str,
    /// Comes back inside of the ID token.
    pub nonce: &'a str,
    /// SHA-256 of the verifier (RFC 7636 section 4.2).
    pub challenge: &'a str,
}

/// What a browser comes back with, and what it was sent away with.
#[derive(Debug, Clone, Copy)]
pub struct Return<'a> {
    /// For tokens.
    pub code: &'a str,
    /// Whose challenge was told.
    pub verifier: &'a str,
    /// As it was told.
    pub redirect_uri: &'a str,
    /// As it was told.
    pub nonce: &'a str,
    /// Which provider it comes from, where that is said (RFC 9207).
    pub from: Option<&'a str>,
}

/// Somebody whom a provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// What the provider calls itself.
    pub issuer: String,
    /// What the provider calls them; never another one.
    pub subject: String,
    /// Their address.
    pub email: Option<String>,
    /// Whether the provider knows the address to be theirs.
    pub email_verified: bool,
    /// What they want to be called, the best one first.
    pub names: Vec<String>,
}

impl Provider {
    /// A provider that is asked through `egress`.
    pub fn new(settings: ProviderSettings, egress: Arc<Egress>) -> Self {
        Self { settings, egress, oidc: Oidc::default() }
    }

    /// How it is configured.
    pub fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    fn way(&self) -> Way<'_> {
        Way { egress: &self.egress, settings: &self.settings }
    }

    /// Where a browser is sent. May ask the provider where that is, for at most ten seconds.
    ///
    /// # Errors
    /// `Egress`, `Insecure`, `WrongIssuer`, `NoPkce`, `Status`, `Malformed`.
    pub async fn begin(&self, begin: Begin<'_>, now_ms: i64) -> Result<Url, IdentityError> {
        let Begin { redirect_uri, state, nonce, challenge } = begin;
        let settings = &self.settings;
        let mut url = match settings.kind {
            ProviderKind::GitHub => github::authorization_endpoint(&settings.issuer)?,
            ProviderKind::Google | ProviderKind::Oidc => {
                let known = self.oidc.metadata(self.way(), now_ms).await?;
                known.authorization_endpoint
            }
        };
        url.set_fragment(None);
        let mut query = url.query_pairs_mut();
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &settings.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", &settings.scopes.join(" "))
            .append_pair("state", state)
            .append_pair("code_challenge", challenge)
            .append_pair("code_challenge_method", "S256");
        if settings.kind != ProviderKind::GitHub {
            query.append_pair("nonce", nonce);
        }
        drop(query);
        Ok(url)
    }

    /// Who came back. Asks the provider a few times, each for at most ten seconds.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub async fn identify(&self, back: Return<'_>, now_ms: i64) -> Result<Person, IdentityError> {
        let person = match self.settings.kind {
            ProviderKind::GitHub => github::identify(self.way(), back).await,
            ProviderKind::Google | ProviderKind::Oidc => {
                self.oidc.identify(self.way(), back, now_ms).await
            }
        };
        let person = person?;
        let email_verified = person.email_verified || self.settings.trusts_email;
        Ok(Person { email_verified, ..person })
    }
}

/// What the egress client has to let through so that these providers can be asked: their own places, which the
/// operator named. What they name in turn is on the internet, or has an exception of its own.
pub fn exceptions<'a>(providers: impl IntoIterator<Item = &'a ProviderSettings>) -> Vec<Exception> {
    let place = |settings: &ProviderSettings| {
        let url = Url::parse(&settings.issuer).ok()?;
        let (host, port) = (url.host()?.to_owned(), url.port_or_known_default()?);
        Some(Exception::Place { host, port })
    };
    providers.into_iter().filter_map(place).collect()
}
