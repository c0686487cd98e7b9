//! Who asks: a client that an administrator registered, or one that registers itself (RFC 7591); and the URL
//! that people open to agree.

use iris_egress::Egress;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::discovery::AuthorizationServer;
use super::reach::Reach;
use super::{OauthError, post, short};
use crate::http::Secret;

/// What the authorization server knows us as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OauthClient {
    /// Its name for us.
    pub id: String,
    /// What shows that we are it; absent for a client that can keep none.
    pub secret: Option<Secret>,
    /// Whether the secret stands in the body of requests, in place of a header.
    pub is_in_body: bool,
}

impl OauthClient {
    /// One that somebody registered by hand.
    pub fn configured(id: String, secret: Option<Secret>, server: &AuthorizationServer) -> Self {
        let offers = |name: &str| server.auth_methods.iter().any(|method| method == name);
        // Basic is the default of RFC 8414 section 2.
        let is_in_body = offers("client_secret_post") && !offers("client_secret_basic");
        Self { id, secret, is_in_body }
    }
}

/// Registers a client for `redirect_uri`, which keeps no secret unless the server gives it one.
///
/// # Errors
/// `ClientNeeded` where nobody is registered so; `Refused`, `Status`, `Malformed`, `Egress`.
pub async fn register(
    egress: &Egress,
    reach: &Reach,
    server: &AuthorizationServer,
    redirect_uri: &str,
) -> Result<OauthClient, OauthError> {
    let endpoint = server.registration_endpoint.as_ref().ok_or(OauthError::ClientNeeded)?;
    let body = json!({
        "client_name": "Iris",
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    let fields = post(egress, reach, endpoint.as_str(), |request| {
        Ok(request.header("content-type", "application/json")?.body(body.to_string()))
    });
    let fields = fields.await?;
    let id = short(&fields, "client_id").ok_or(OauthError::Malformed { expected: "a client" })?;
    let secret = short(&fields, "client_secret").map(Secret::new);
    let method = short(&fields, "token_endpoint_auth_method").unwrap_or_default();
    Ok(OauthClient { id, secret, is_in_body: method == "client_secret_post" })
}

/// What a URL for people is made of.
#[derive(Debug, Clone, Copy)]
pub struct AuthorizationRequest<'a> {
    /// Who asks.
    pub client: &'a OauthClient,
    /// Where the answer goes.
    pub redirect_uri: &'a str,
    /// Names the request in the answer.
    pub state: &'a str,
    /// SHA-256 of the verifier (RFC 7636 section 4.2).
    pub challenge: &'a str,
    /// What is asked for; the authorization server decides when it is empty.
    pub scopes: &'a [String],
}

/// The URL that people open to agree.
pub fn authorization_url(server: &AuthorizationServer, request: AuthorizationRequest<'_>) -> Url {
    let AuthorizationRequest { client, redirect_uri, state, challenge, scopes } = request;
    let mut url = server.authorization_endpoint.clone();
    url.set_fragment(None);
    let mut query = url.query_pairs_mut();
    query
        .append_pair("response_type", "code")
        .append_pair("client_id", &client.id)
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("state", state)
        .append_pair("code_challenge", challenge)
        .append_pair("code_challenge_method", "S256")
        .append_pair("resource", &server.resource);
    if !scopes.is_empty() {
        query.append_pair("scope", &scopes.join(" "));
    }
    drop(query);
    url
}
