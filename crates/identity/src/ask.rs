//! What is sent to a provider, within bounds, to one place and to no other.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use iris_auth::PlainSecret;
use iris_egress::{Egress, Request, Response};
use serde::Deserialize;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use crate::error::{IdentityError, shown};
use crate::settings::{ProviderSettings, is_safe};

/// Most bytes of one answer.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// Longest access token.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Reads a URL of a provider, and refuses one that others could read.
pub(crate) fn safe_url(text: &str) -> Result<Url, IdentityError> {
    let url = iris_egress::parse_url(text)?;
    if !is_safe(&url) {
        return Err(IdentityError::Insecure { origin: url.origin().ascii_serialization() });
    }
    Ok(url)
}

/// One provider, and the way to it.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) egress: &'a Egress,
    pub(crate) settings: &'a ProviderSettings,
}

/// Reads what stands at a place: the body of an answer with status 200.
pub(crate) async fn get(
    way: Way<'_>,
    url: &Url,
    token: Option<&PlainSecret>,
) -> Result<Vec<u8>, IdentityError> {
    let mut request = Request::get(url.as_str()).header("accept", "application/json")?;
    if let Some(token) = token {
        request = request.header("authorization", &format!("Bearer {}", token.expose()))?;
    }
    let answer = send(way, request).await?;
    match answer.status {
        200 => Ok(answer.body.to_vec()),
        status => Err(IdentityError::Status { status }),
    }
}

async fn send(way: Way<'_>, request: Request) -> Result<Response, IdentityError> {
    let request = request.follow_if(|_| false).timeout(way.settings.answer_max);
    let request = request.body_bytes_max(BODY_BYTES_MAX);
    let answer = way.egress.fetch(request).await?;
    if answer.is_truncated {
        return Err(IdentityError::Malformed { expected: "a short answer" });
    }
    Ok(answer)
}

/// What a provider gives for a code. Other fields are nobody's business: nothing is asked there later.
#[derive(Deserialize)]
pub(crate) struct Tokens {
    access_token: Option<String>,
    pub(crate) id_token: Option<String>,
    /// Such as `invalid_grant`; GitHub sends it with the status 200.
    error: Option<String>,
}

impl Tokens {
    /// What shows that we may ask about somebody.
    pub(crate) fn access(&self) -> Option<PlainSecret> {
        let is_one = |token: &&String| {
            (1..=TOKEN_BYTES_MAX).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        self.access_token.as_ref().filter(is_one).cloned().map(PlainSecret::new)
    }
}

/// How we say who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretPlace {
    /// In the header `Authorization` (RFC 6749 section 2.3.1).
    Header,
    /// Among the parameters.
    Body,
}

/// A code, and what shows that it is ours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange<'a> {
    pub(crate) code: &'a str,
    pub(crate) verifier: &'a str,
    pub(crate) redirect_uri: &'a str,
}

/// Gets tokens for a code.
pub(crate) async fn exchange(
    way: Way<'_>,
    url: &Url,
    place: SecretPlace,
    Exchange { code, verifier, redirect_uri }: Exchange<'_>,
) -> Result<Tokens, IdentityError> {
    let mut request = Request::new("POST", url.as_str())?
        .header("accept", "application/json")?
        .header("content-type", "application/x-www-form-urlencoded")?;
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "authorization_code")
        .append_pair("code", code)
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("code_verifier", verifier);
    let settings = way.settings;
    let id = &settings.client_id;
    match (&settings.client_secret, place) {
        (Some(secret), SecretPlace::Header) => {
            // Both are encoded before they are joined.
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(id), encoded(secret.expose()));
            request =
                request.header("authorization", &format!("Basic {}", STANDARD.encode(pair)))?;
        }
        (Some(secret), SecretPlace::Body) => {
            form.append_pair("client_id", id).append_pair("client_secret", secret.expose());
        }
        (None, _) => {
            form.append_pair("client_id", id);
        }
    }
    let answer = send(way, request.body(form.finish())).await?;
    let tokens = serde_json::from_slice::<Tokens>(&answer.body).ok();
    match (answer.status, tokens) {
        (200 | 400..=499, Some(Tokens { error: Some(error), .. })) => {
            Err(IdentityError::Refused { error: shown(&error) })
        }
        (200, Some(tokens)) => Ok(tokens),
        (200, None) => Err(IdentityError::Malformed { expected: "tokens" }),
        (status, _) => Err(IdentityError::Status { status }),
    }
}
