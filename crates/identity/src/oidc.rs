//! What an `OpenID` provider says of itself (`OpenID` Connect Discovery 1.0), and its keys.

use std::time::Duration;

use iris_auth::{IdClaims, IdTokenError, IdTokenRules, ProviderKeys, verify_id_token};
use serde::Deserialize;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use url::Url;

use crate::ask::{self, Exchange, SecretPlace, Way, safe_url};
use crate::error::IdentityError;
use crate::provider::{Person, Return};

/// How long what a provider says of itself counts, and its keys, in milliseconds.
const KNOWN_MS: i64 = 60 * 60 * 1_000;
/// How often the keys are asked for again because a token names one that is not known, in milliseconds.
const KEYS_AGAIN_MS: i64 = 60 * 1_000;

/// How long a provider that could not be asked is left alone: nobody queues up for one that is silent.
const SILENT: Duration = Duration::from_secs(5);

/// What is known of a provider; asked for when it is needed.
#[derive(Debug, Default)]
pub(crate) struct Oidc {
    metadata: Mutex<Asked<Metadata>>,
    keys: Mutex<Asked<ProviderKeys>>,
}

/// What came of asking.
#[derive(Debug)]
struct Asked<T> {
    known: Option<Known<T>>,
    /// When nobody answered last.
    silent_at: Option<Instant>,
}

impl<T> Default for Asked<T> {
    fn default() -> Self {
        Self { known: None, silent_at: None }
    }
}

impl<T: Clone> Asked<T> {
    fn within(&self, bound_ms: i64, now_ms: i64) -> Option<T> {
        let known = self.known.as_ref().filter(|known| known.is_within(bound_ms, now_ms));
        known.map(|known| known.what.clone())
    }

    /// Asks one place, unless it was silent a moment ago.
    async fn document(&mut self, way: Way<'_>, place: &Url) -> Result<Vec<u8>, IdentityError> {
        if self.silent_at.is_some_and(|at| at.elapsed() < SILENT) {
            return Err(IdentityError::Silent);
        }
        let answer = ask::get(way, place, None).await;
        let is_silent = matches!(answer, Err(IdentityError::Egress(_)));
        self.silent_at = is_silent.then(Instant::now);
        answer
    }
}

/// Waits for whoever asks already, no longer than they do.
async fn turn<'a, T>(
    asked: &'a Mutex<Asked<T>>,
    way: Way<'_>,
) -> Result<MutexGuard<'a, Asked<T>>, IdentityError> {
    let turn = tokio::time::timeout(way.settings.answer_max, asked.lock()).await;
    turn.map_err(|_| IdentityError::Silent)
}

#[derive(Debug, Clone)]
struct Known<T> {
    what: T,
    /// Milliseconds since 1970 UTC.
    since: i64,
}

impl<T> Known<T> {
    /// Whether it is not older than that. A clock that went back makes it old.
    fn is_within(&self, bound_ms: i64, now_ms: i64) -> bool {
        (0..bound_ms).contains(&now_ms.saturating_sub(self.since))
    }
}

/// Where a provider is asked for what.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    pub(crate) authorization_endpoint: Url,
    token_endpoint: Url,
    keys: Url,
    userinfo_endpoint: Option<Url>,
    secret_place: SecretPlace,
    /// Whether it says who it is when it sends a browser back (RFC 9207).
    names_itself: bool,
}

impl Metadata {
    fn read(document: &[u8], issuer: &str) -> Result<Self, IdentityError> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            authorization_endpoint: String,
            token_endpoint: String,
            jwks_uri: String,
            userinfo_endpoint: Option<String>,
            token_endpoint_auth_methods_supported: Option<Vec<String>>,
            code_challenge_methods_supported: Option<Vec<String>>,
            #[serde(default)]
            authorization_response_iss_parameter_supported: bool,
        }
        let malformed = |_| IdentityError::Malformed { expected: "a discovery document" };
        let document: Document = serde_json::from_slice(document).map_err(malformed)?;
        if document.issuer != issuer {
            return Err(IdentityError::WrongIssuer);
        }
        // Discovery says nothing of PKCE: providers without the field may have it all the same, and those that
        // do not know it pass it over.
        let methods = document.code_challenge_methods_supported;
        if methods.is_some_and(|methods| !methods.iter().any(|method| method == "S256")) {
            return Err(IdentityError::NoPkce);
        }
        let methods = document.token_endpoint_auth_methods_supported;
        let offers = |name: &str| {
            let methods = methods.as_ref();
            methods.is_some_and(|methods| methods.iter().any(|method| method == name))
        };
        let is_in_body = offers("client_secret_post") && !offers("client_secret_basic");
        Ok(Self {
            authorization_endpoint: safe_url(&document.authorization_endpoint)?,
            token_endpoint: safe_url(&document.token_endpoint)?,
            keys: safe_url(&document.jwks_uri)?,
            userinfo_endpoint: document.userinfo_endpoint.as_deref().map(safe_url).transpose()?,
            secret_place: if is_in_body { SecretPlace::Body } else { SecretPlace::Header },
            names_itself: document.authorization_response_iss_parameter_supported,
        })
    }
}

impl Oidc {
    /// What the provider says of itself.
    pub(crate) async fn metadata(
        &self,
        way: Way<'_>,
        now_ms: i64,
    ) -> Result<Metadata, IdentityError> {
        let issuer = way.settings.issuer.as_str();
        let mut asked = turn(&self.metadata, way).await?;
        if let Some(known) = asked.within(KNOWN_MS, now_ms) {
            return Ok(known);
        }
        let place = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let document = asked.document(way, &safe_url(&place)?).await?;
        let what = Metadata::read(&document, issuer)?;
        asked.known = Some(Known { what: what.clone(), since: now_ms });
        Ok(what)
    }

    /// Keys of the provider that are not older than `bound_ms`.
    async fn keys(
        &self,
        way: Way<'_>,
        place: &Url,
        bound_ms: i64,
        now_ms: i64,
    ) -> Result<ProviderKeys, IdentityError> {
        let mut asked = turn(&self.keys, way).await?;
        if let Some(known) = asked.within(bound_ms, now_ms) {
            return Ok(known);
        }
        let what = ProviderKeys::read(&asked.document(way, place).await?)?;
        asked.known = Some(Known { what: what.clone(), since: now_ms });
        Ok(what)
    }

    /// Finds out who came back.
    pub(crate) async fn identify(
        &self,
        way: Way<'_>,
        back: Return<'_>,
        now_ms: i64,
    ) -> Result<Person, IdentityError> {
        let Return { code, verifier, redirect_uri, nonce, from } = back;
        let issuer = way.settings.issuer.as_str();
        let metadata = self.metadata(way, now_ms).await?;
        if from.map_or(metadata.names_itself, |from| from != issuer) {
            return Err(IdentityError::OtherProvider);
        }
        let exchange = Exchange { code, verifier, redirect_uri };
        let place = &metadata.token_endpoint;
        let tokens = ask::exchange(way, place, metadata.secret_place, exchange).await?;
        let expected = "an ID token";
        let id_token = tokens.id_token.as_deref();
        let id_token = id_token.ok_or(IdentityError::Malformed { expected })?;
        let client_id = way.settings.client_id.as_str();
        let rules = IdTokenRules { issuer, client_id, nonce, now_ms };
        let keys = self.keys(way, &metadata.keys, KNOWN_MS, now_ms).await?;
        let mut claims = match verify_id_token(id_token, &keys, rules) {
            Err(IdTokenError::UnknownKey) => {
                let keys = self.keys(way, &metadata.keys, KEYS_AGAIN_MS, now_ms).await?;
                verify_id_token(id_token, &keys, rules)
            }
            verified => verified,
        }?;
        // Some providers tell addresses there alone.
        if let (None, Some(place), Some(token)) =
            (&claims.email, &metadata.userinfo_endpoint, tokens.access())
        {
            let told = ask::get(way, place, Some(&token)).await?;
            let told = IdClaims::of_userinfo(&told, &claims.subject)?;
            claims.names.extend(told.names);
            (claims.email, claims.email_verified) = (told.email, told.email_verified);
        }
        let IdClaims { subject, email, email_verified, names } = claims;
        Ok(Person { issuer: issuer.to_owned(), subject, email, email_verified, names })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://i.example";

    fn read(other: &Value) -> Result<Metadata, IdentityError> {
        let mut document = json!({ "issuer": ISSUER,
            "authorization_endpoint": "https://i.example/agree",
            "token_endpoint": "https://t.example/token", "jwks_uri": "https://i.example/keys" });
        let fields = document.as_object_mut().unwrap();
        fields.extend(other.as_object().unwrap().clone());
        Metadata::read(document.to_string().as_bytes(), ISSUER)
    }

    #[test]
    fn a_document_is_of_the_provider_that_was_asked() {
        assert!(read(&json!({})).is_ok());
        for issuer in ["https://i.example/", "https://evil.example", "HTTPS://i.example", ""] {
            let refused = read(&json!({ "issuer": issuer }));
            assert!(matches!(refused, Err(IdentityError::WrongIssuer)), "{issuer}");
        }
    }

    #[test]
    fn no_place_in_a_document_is_one_that_others_can_read() {
        for field in ["authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"] {
            for bad in
                ["http://i.example/", "http://10.0.0.1/", "file:///etc/passwd", "javascript:x", ""]
            {
                assert!(read(&json!({ field: bad })).is_err(), "{field} {bad}");
            }
            assert!(read(&json!({ field: "http://127.0.0.1:3000/" })).is_ok(), "{field}");
        }
    }

    #[test]
    fn pkce_is_missing_only_where_that_is_said() {
        let methods = |list: Value| read(&json!({ "code_challenge_methods_supported": list }));
        assert!(methods(json!(["plain", "S256"])).is_ok() && methods(Value::Null).is_ok());
        for bad in [json!([]), json!(["plain"])] {
            assert!(matches!(methods(bad), Err(IdentityError::NoPkce)));
        }
    }

    #[test]
    fn the_secret_stands_where_the_provider_wants_it() {
        let place = |list: Value| {
            let document = json!({ "token_endpoint_auth_methods_supported": list });
            read(&document).unwrap().secret_place
        };
        assert_eq!(place(Value::Null), SecretPlace::Header);
        assert_eq!(
            place(json!(["client_secret_post", "client_secret_basic"])),
            SecretPlace::Header
        );
        assert_eq!(place(json!(["client_secret_post"])), SecretPlace::Body);
    }

    #[test]
    fn what_is_known_grows_old_also_when_the_clock_goes_back() {
        let known = Known { what: (), since: 1_000 };
        assert!(known.is_within(500, 1_000) && known.is_within(500, 1_499));
        assert!(!known.is_within(500, 1_500) && !known.is_within(500, 999));
    }
}
