//! Authorization for a server on the web (Model Context Protocol 2025-11-25, "Authorization"): where it is
//! given, to whom, and the tokens that come of it.
//!
//! Everything is asked through the egress client, and only where the server itself is or where whoever
//! configured it allows. Deliberately absent: storage, the clock, random numbers, who may begin.

mod challenge;
mod client;
mod discovery;
mod reach;
mod token;

use std::time::Duration;

use iris_egress::{Egress, EgressError, Request, Response};
use serde_json::{Map, Value};
use url::Url;

use crate::error::bounded;

pub use challenge::Challenge;
pub use client::{AuthorizationRequest, OauthClient, authorization_url, register};
pub use discovery::{AuthorizationServer, discover};
pub use reach::{Reach, is_safe};
pub use token::{Granted, Grantor, exchange, refresh};

/// Most bytes of a document or an answer of an authorization server.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How long one of them may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest text that is taken from one: an identifier of a client, a scope.
const TEXT_BYTES_MAX: usize = 2 * 1024;
/// Longest token.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Most scopes that are taken over from what a server says.
const SCOPES_MAX: usize = 64;

/// Why there is no authorization.
#[derive(Debug, thiserror::Error)]
pub enum OauthError {
    /// A place could not be reached.
    #[error("the authorization server could not be reached: {0}")]
    Egress(#[from] EgressError),
    /// Neither where the server is nor allowed.
    #[error("`{origin}` is neither where the server is nor among `oauth.origins`")]
    Foreign {
        /// Scheme, host and port of what was not asked.
        origin: String,
    },
    /// Neither TLS nor this machine.
    #[error("`{origin}` is not reached over https")]
    Insecure {
        /// Scheme, host and port.
        origin: String,
    },
    /// Nothing says where an authorization is given.
    #[error("nothing says where an authorization for the server is given")]
    NotOffered,
    /// What the server says of itself is of another resource.
    #[error("what the server says of itself is about `{resource}`, which is another place")]
    WrongResource {
        /// What it is about, bounded.
        resource: String,
    },
    /// What an authorization server says of itself is of another one.
    #[error("the authorization server calls itself `{issuer}`, and was asked for as another one")]
    WrongIssuer {
        /// What it calls itself, bounded.
        issuer: String,
    },
    /// It does not protect the code.
    #[error("the authorization server does not offer PKCE with S256")]
    NoPkce,
    /// It registers nobody, and nobody was registered by hand.
    #[error("the authorization server registers no clients: configure `oauth.clientId`")]
    ClientNeeded,
    /// It says no.
    #[error("the authorization server refused: {error}{}", .description.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
    Refused {
        /// Its code, such as `invalid_grant`, bounded.
        error: String,
        /// Its words, bounded.
        description: Option<String>,
    },
    /// A status that is no answer.
    #[error("the authorization server answered with the HTTP status {status}")]
    Status {
        /// Such as 500.
        status: u16,
    },
    /// Something else than was asked for.
    #[error("the authorization server answered with something else than {expected}")]
    Malformed {
        /// What it should have been.
        expected: &'static str,
    },
}

impl OauthError {
    /// Whether the same request will be refused again: the grant is void, or the client is.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Refused { error, .. }
            if matches!(error.as_str(), "invalid_grant" | "invalid_client" | "unauthorized_client"))
    }
}

/// Sends a request of ours, whose answer is small.
async fn ask(egress: &Egress, request: Request, reach: &Reach) -> Result<Response, OauthError> {
    let reach = reach.clone();
    let stays = move |url: &Url| reach.check(url).is_ok();
    let request = request.header("accept", "application/json")?.follow_if(stays);
    let answer = egress.fetch(request.timeout(ANSWER_MAX).body_bytes_max(BODY_BYTES_MAX)).await?;
    if answer.is_truncated {
        return Err(OauthError::Malformed { expected: "a short answer" });
    }
    Ok(answer)
}

/// Posts what holds a secret; it goes to that one place and to no other.
async fn post(
    egress: &Egress,
    reach: &Reach,
    place: &str,
    fill: impl FnOnce(Request) -> Result<Request, EgressError>,
) -> Result<Map<String, Value>, OauthError> {
    let request = fill(Request::new("POST", reach.url(place)?)?)?;
    let request = request.header("accept", "application/json")?.follow_if(|_| false);
    let answer = egress.fetch(request.timeout(ANSWER_MAX).body_bytes_max(BODY_BYTES_MAX)).await?;
    let fields = serde_json::from_slice::<Map<String, Value>>(&answer.body).ok();
    match (answer.status, fields) {
        (200 | 201, Some(fields)) => Ok(fields),
        (200 | 201, None) => Err(OauthError::Malformed { expected: "a JSON object" }),
        (400..=499, Some(fields)) if fields.get("error").is_some_and(Value::is_string) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str).map(shown);
            let error = text("error").unwrap_or_default();
            Err(OauthError::Refused { error, description: text("error_description") })
        }
        (status, _) => Err(OauthError::Status { status }),
    }
}

/// The beginning of what a server says, with nothing hidden in it.
fn shown(text: &str) -> String {
    crate::definition::with_hidden_shown(&bounded(text))
}

/// A text of a document, if it is there and short.
fn short(fields: &Map<String, Value>, name: &str) -> Option<String> {
    let text = fields.get(name)?.as_str()?;
    (!text.is_empty() && text.len() <= TEXT_BYTES_MAX).then(|| text.to_owned())
}

/// A list of short texts of a document; empty when it is not there.
fn texts(fields: &Map<String, Value>, name: &str) -> Vec<String> {
    let values = fields.get(name).and_then(Value::as_array).into_iter().flatten();
    let texts = values.filter_map(Value::as_str).filter(|text| text.len() <= TEXT_BYTES_MAX);
    texts.take(SCOPES_MAX).map(str::to_owned).collect()
}

/// The beginning of a URL that says whose it is.
fn origin_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}
