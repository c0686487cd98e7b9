//! Tokens: for a code, and anew for a refresh token (RFC 6749 sections 4.1.3 and 6, RFC 8707 section 2.2).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iris_egress::{Egress, EgressError, Request};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::form_urlencoded::{Serializer, byte_serialize};

use super::client::OauthClient;
use super::discovery::AuthorizationServer;
use super::reach::Reach;
use super::{OauthError, TOKEN_BYTES_MAX, post};
use crate::http::Secret;

/// The longest that a token counts as good, however long the server says.
const LIFETIME_MAX: Duration = Duration::from_hours(24 * 30);

/// Who gives tokens, and to whom: what has to be known to get new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grantor {
    /// What the authorization server calls itself.
    pub issuer: String,
    /// Where tokens come from.
    pub token_endpoint: String,
    /// What they are for.
    pub resource: String,
    /// Who asks.
    pub client: OauthClient,
}

impl Grantor {
    /// The authorization server, for this client.
    pub fn new(server: &AuthorizationServer, client: OauthClient) -> Self {
        Self {
            issuer: server.issuer.clone(),
            token_endpoint: server.token_endpoint.to_string(),
            resource: server.resource.clone(),
            client,
        }
    }

    async fn tokens(
        &self,
        egress: &Egress,
        reach: &Reach,
        parameters: &[(&str, &str)],
    ) -> Result<Granted, OauthError> {
        let fill = |request| self.filled(request, parameters);
        read(&post(egress, reach, &self.token_endpoint, fill).await?)
    }

    fn filled(
        &self,
        mut request: Request,
        parameters: &[(&str, &str)],
    ) -> Result<Request, EgressError> {
        let OauthClient { id, secret, is_in_body } = &self.client;
        let mut form = Serializer::new(String::new());
        form.extend_pairs(parameters).append_pair("resource", &self.resource);
        match secret {
            Some(secret) if !is_in_body => {
                // Both are encoded before they are joined (RFC 6749 section 2.3.1).
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let pair = format!("{}:{}", encoded(id), encoded(secret.expose()));
                let value = format!("Basic {}", STANDARD.encode(pair));
                request = request.header("authorization", &value)?;
            }
            Some(secret) => {
                form.append_pair("client_id", id).append_pair("client_secret", secret.expose());
            }
            None => {
                form.append_pair("client_id", id);
            }
        }
        let request = request.header("content-type", "application/x-www-form-urlencoded")?;
        Ok(request.body(form.finish()))
    }
}

/// What an authorization server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// What shows that we may ask.
    pub access: Secret,
    /// What gets another one; absent when there is none, or the one before stays good.
    pub refresh: Option<Secret>,
    /// How long it is good, if that is known.
    pub lifetime: Option<Duration>,
    /// What it is good for, where the server says.
    pub scopes: Option<Vec<String>>,
}

/// Gets tokens for a code that came back to `redirect_uri`.
///
/// # Errors
/// `Foreign`, `Insecure`, `Refused`, `Status`, `Malformed`, `Egress`.
pub async fn exchange(
    egress: &Egress,
    reach: &Reach,
    grantor: &Grantor,
    code: &str,
    verifier: &str,
    redirect_uri: &str,
) -> Result<Granted, OauthError> {
    let parameters = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", redirect_uri),
        ("code_verifier", verifier),
    ];
    grantor.tokens(egress, reach, &parameters).await
}

/// Gets new tokens in place of those that are no more good.
///
/// # Errors
/// As [`exchange`].
pub async fn refresh(
    egress: &Egress,
    reach: &Reach,
    grantor: &Grantor,
    token: &Secret,
) -> Result<Granted, OauthError> {
    let parameters = [("grant_type", "refresh_token"), ("refresh_token", token.expose())];
    grantor.tokens(egress, reach, &parameters).await
}

fn read(fields: &Map<String, Value>) -> Result<Granted, OauthError> {
    let malformed = OauthError::Malformed { expected: "a bearer token" };
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let is_bearer = text("token_type").is_some_and(|it| it.eq_ignore_ascii_case("bearer"));
    let access = text("access_token").filter(|token| is_token(token));
    let (Some(access), true) = (access, is_bearer) else { return Err(malformed) };
    let refresh = text("refresh_token").filter(|token| is_token(token));
    let lifetime = fields.get("expires_in").and_then(|value| {
        value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()))
    });
    let scopes = text("scope")
        .filter(|scope| scope.len() <= super::TEXT_BYTES_MAX)
        .map(|scope| scope.split_whitespace().map(str::to_owned).collect());
    Ok(Granted {
        access: Secret::new(access),
        refresh: refresh.map(Secret::new),
        lifetime: lifetime.map(|seconds| Duration::from_secs(seconds).min(LIFETIME_MAX)),
        scopes,
    })
}

/// Whether it can stand in a header.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOKEN_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn granted(value: &Value) -> Result<Granted, OauthError> {
        read(value.as_object().unwrap())
    }

    #[test]
    fn tokens_are_read_with_what_is_said_of_them() {
        let answer = json!({ "access_token": "a", "token_type": "bearer", "expires_in": 3600,
            "refresh_token": "r", "scope": "x y" });
        let read = granted(&answer).unwrap();
        assert_eq!((read.access.expose(), read.refresh.unwrap().expose()), ("a", "r"));
        assert_eq!(read.lifetime, Some(Duration::from_hours(1)));
        assert_eq!(read.scopes, Some(vec!["x".to_owned(), "y".to_owned()]));
        let long = json!({ "access_token": "a", "token_type": "Bearer", "expires_in": u64::MAX });
        assert_eq!(granted(&long).unwrap().lifetime, Some(LIFETIME_MAX));
        for bad in [
            json!({}),
            json!({ "access_token": "a" }),
            json!({ "access_token": "a", "token_type": "mac" }),
            json!({ "access_token": "a\r\nb", "token_type": "bearer" }),
            json!({ "access_token": "x".repeat(TOKEN_BYTES_MAX + 1), "token_type": "bearer" }),
        ] {
            assert!(matches!(granted(&bad), Err(OauthError::Malformed { .. })));
        }
    }

    #[test]
    fn nothing_shows_a_token() {
        let answer =
            json!({ "access_token": "canary", "token_type": "bearer", "refresh_token": "canary" });
        assert!(!format!("{:?}", granted(&answer).unwrap()).contains("canary"));
    }
}
