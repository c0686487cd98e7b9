//! Authorizations of MCP servers on the web: begun by an administrator of the project, finished by the browser
//! that comes back from the authorization server.

use std::time::Duration;

use iris_auth::{PkceVerifier, Ticket};
use iris_egress::Egress;
use iris_mcp::Secret;
use iris_mcp::oauth::{
    AuthorizationRequest, AuthorizationServer, Challenge, Granted, Grantor, OauthClient,
    authorization_url, discover, exchange, is_safe, register,
};
use iris_protocol::{
    ApiError, Command, ErrorCode, McpAuthorization, McpAuthorize, McpAuthorizeFinish,
    McpAuthorizePayload, McpAuthorizedPayload, McpState, McpTransport, Operation, ProjectId, Role,
    UserId,
};
use iris_store::WriteContext;
use iris_store::project::{
    BeginMcpAuthorization, BegunMcpAuthorization, KeepMcpAuthorization, StoredMcpServer,
    TakeMcpAuthorization,
};
use iris_workspace::content_hash;
use tokio::time::timeout;

use super::super::{Done, Grant, check_space, done, internal, stored};
use super::existing;
use crate::mcp::authorization::{Begun, Registered, Sealed, Tokens, reach, told};
use crate::mcp::checks;
use crate::origin::Origin;
use crate::owner::{OwnerAnswer, OwnerAsk, mismatch};
use crate::project::ProjectHandle;
use crate::{Node, write};

/// How long somebody may take to agree, in milliseconds.
const LIFETIME_MS: i64 = 10 * 60_000;
/// How long it may take to find out where an authorization is given.
const DISCOVERY_MAX: Duration = Duration::from_secs(30);
/// Longest text that a browser brings back, in bytes.
const STATE_BYTES_MAX: usize = 256;
const CODE_BYTES_MAX: usize = 4 * 1024;
/// Where the browser comes back to.
const CALLBACK: &str = "/v1/mcp/callback";

fn conflict(message: impl Into<String>, reason: &str) -> ApiError {
    ApiError::new(ErrorCode::Conflict, message).reason(reason)
}

/// Finds out who gives the authorization and as whom we ask, and answers where somebody agrees.
pub(in super::super) async fn begin(
    node: &Node,
    grant: &Grant,
    McpAuthorize { name }: McpAuthorize,
) -> Result<Done, ApiError> {
    checks::check_name(&name)?;
    check_space(node)?;
    let project = grant.project(node).await?;
    let found = existing(&project, &name).await?;
    let redirect_uri = format!("{}{CALLBACK}", addressed(node, &found)?);
    let asking = Asking { node, project: &project, found: &found, redirect_uri: &redirect_uri };
    let egress = node.services.mcp.egress();
    let egress = egress.ok_or_else(|| conflict("this server reaches no web", "no_web"))?;
    let found_out = timeout(DISCOVERY_MAX, asking.find_out(&egress)).await;
    let took_long = || {
        let message = "the authorization server did not answer in time";
        ApiError::new(ErrorCode::ProviderError, message).reason("authorization_failed")
    };
    let (server, client, registered) = found_out.map_err(|_| took_long())??;
    let verifier = PkceVerifier::random().map_err(|error| error.to_error())?;
    let by = grant.user_id()?;
    let ticket = Ticket::random().map_err(|error| error.to_error())?;
    let state = format!("{}.{by}.{}", project.id, ticket.as_str());
    let wanted = found.server.oauth.as_ref().map(|oauth| oauth.scopes.clone());
    let scopes = wanted.filter(|it| !it.is_empty()).unwrap_or_else(|| server.scopes.clone());
    let request = AuthorizationRequest {
        client: &client,
        redirect_uri: &redirect_uri,
        state: &state,
        challenge: &verifier.challenge(),
        scopes: &scopes,
    };
    let url = authorization_url(&server, request).to_string();
    let begun = Begun {
        grantor: Grantor::new(&server, client.clone()),
        names_itself: server.names_itself,
        verifier: Secret::new(verifier.as_str()),
        redirect_uri: redirect_uri.clone(),
        scopes,
        transport: found.server.transport.clone(),
        oauth: found.server.oauth.clone(),
    };
    let at = node.services.clock.now_ms();
    let expires_at = at.saturating_add(LIFETIME_MS);
    let command = BeginMcpAuthorization {
        state_hash: content_hash(state.as_bytes()),
        sealed: asking.seal(Sealed::Begun, &begun)?,
        client: registered.map(|it| asking.seal(Sealed::Client, &it)).transpose()?,
        state: asking.state(),
        expires_at,
        by: by.clone(),
        at,
        name,
    };
    // The answer holds a secret, and is kept for no repeat.
    let saved = write(&project.address, command, WriteContext::default()).await.map_err(stored)?;
    Ok(done(McpAuthorizePayload { url, expires_at })?.at(saved.seq, saved.replayed))
}

/// Where browsers reach us, for a server that can be given an authorization.
fn addressed<'a>(node: &'a Node, found: &StoredMcpServer) -> Result<&'a str, ApiError> {
    let McpTransport::Http { url, .. } = &found.server.transport else {
        let message = "a program needs no authorization";
        return Err(ApiError::invalid(message).reason("not_on_the_web"));
    };
    if !iris_egress::parse_url(url).is_ok_and(|url| is_safe(&url)) {
        let message = "an authorization is for a server that is reached over https";
        return Err(ApiError::invalid(message).reason("invalid_url"));
    }
    if found.server.secret_headers.iter().any(|name| name.eq_ignore_ascii_case("authorization")) {
        let message = "`secretHeaders` hold an `authorization` already: take it out first";
        return Err(conflict(message, "authorization_set"));
    }
    node.services.settings.public_url.as_deref().ok_or_else(|| {
        let message =
            "nobody said where browsers reach this server: the operator sets `IRIS_PUBLIC_URL`";
        conflict(message, "no_public_url")
    })
}

/// Who asks for an authorization for what.
struct Asking<'a> {
    node: &'a Node,
    project: &'a ProjectHandle,
    found: &'a StoredMcpServer,
    redirect_uri: &'a str,
}

impl Asking<'_> {
    fn owner(&self) -> (&ProjectId, &str) {
        (&self.project.id, &self.found.server.name)
    }

    fn seal<T: serde::Serialize>(&self, what: Sealed, value: &T) -> Result<String, ApiError> {
        what.seal(&self.node.services, self.owner(), value).map_err(internal)
    }

    fn open<T: serde::de::DeserializeOwned>(&self, what: Sealed, sealed: &str) -> Option<T> {
        what.open(&self.node.services, self.owner(), sealed)
    }

    fn state(&self) -> McpState {
        if self.found.server.enabled {
            self.project.kept.mcp.seat(&self.found.server.name).standing().state
        } else {
            McpState::Disabled
        }
    }

    /// Who gives the authorization, as whom we ask, and the client if it is a new one.
    async fn find_out(
        &self,
        egress: &Egress,
    ) -> Result<(AuthorizationServer, OauthClient, Option<Registered>), ApiError> {
        let server = &self.found.server;
        let reach = reach(&server.transport, server.oauth.as_ref());
        let reach = reach.ok_or_else(|| ApiError::invalid("the server has no URL"))?;
        let said = self.project.kept.mcp.seat(&server.name).standing().challenge;
        let challenge = said.map(|said| Challenge::read(&said)).unwrap_or_default();
        let from = discover(egress, &reach, &challenge).await.map_err(|error| told(&error))?;
        if let Some(client) = self.configured(&from)? {
            return Ok((from, client, None));
        }
        if let Some(client) = self.registered(&from) {
            return Ok((from, client, None));
        }
        let client = register(egress, &reach, &from, self.redirect_uri).await;
        let client = client.map_err(|error| told(&error))?;
        let (issuer, redirect_uri) = (from.issuer.clone(), self.redirect_uri.to_owned());
        let registered = Registered { issuer, redirect_uri, client: client.clone() };
        Ok((from, client, Some(registered)))
    }

    /// The client that somebody configured.
    fn configured(&self, from: &AuthorizationServer) -> Result<Option<OauthClient>, ApiError> {
        let id = self.found.server.oauth.as_ref().and_then(|oauth| oauth.client_id.clone());
        let Some(id) = id else { return Ok(None) };
        let has_secret =
            self.found.server.oauth.as_ref().is_some_and(|oauth| oauth.has_client_secret);
        let sealed = self.found.client_secret.as_deref();
        let secret = sealed.and_then(|sealed| self.open(Sealed::ClientSecret, sealed));
        if has_secret && secret.is_none() {
            let message = "the secret of the client cannot be opened: set `oauth` anew";
            return Err(conflict(message, "secret_needed"));
        }
        Ok(Some(OauthClient::configured(id, secret, from)))
    }

    /// The client that was registered before, if it is for the same.
    fn registered(&self, from: &AuthorizationServer) -> Option<OauthClient> {
        let registered: Registered = self.open(Sealed::Client, self.found.client.as_deref()?)?;
        let is_it =
            registered.issuer == from.issuer && registered.redirect_uri == self.redirect_uri;
        is_it.then_some(registered.client)
    }
}

/// What the browser brings is wrong, old or used: which of them is nobody's business.
fn not_begun() -> ApiError {
    let message = "this authorization was not begun, is finished, or took longer than ten minutes: \
                   begin again";
    ApiError::new(ErrorCode::Gone, message).reason("not_begun")
}

/// Passes what a browser brings on to the owner of the project, for the user who began it and may still
/// decide that.
pub(in super::super) async fn come_back(
    node: &Node,
    request: McpAuthorizeFinish,
) -> Result<Done, ApiError> {
    let (project_id, user_id) = named(&request.state).ok_or_else(not_begun)?;
    let role = node.root_reader.role(&user_id, &project_id).await.map_err(stored)?;
    let location = node.root_reader.project_location(&project_id).await.map_err(stored)?;
    if role.is_none_or(|role| role < Role::Admin) || location.is_none_or(|it| it.archived) {
        return Err(not_begun());
    }
    let ask = OwnerAsk::Perform {
        operation: Operation::McpAuthorizeFinish.name().to_owned(),
        payload: Command::McpAuthorizeFinish(request).to_value(),
        idempotency_key: None,
        connection_id: None,
        origin: Origin::default(),
    };
    let answer = node.ask_owner(&project_id, &user_id, ask, None).await?;
    let OwnerAnswer::Done(done) = answer else { return Err(mismatch()) };
    Ok(done)
}

/// The project and the user that a state names.
fn named(state: &str) -> Option<(ProjectId, UserId)> {
    let mut parts = state.splitn(3, '.');
    let (project_id, user_id) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    (state.len() <= STATE_BYTES_MAX && parts.next().is_some()).then_some((project_id, user_id))
}

/// Gets tokens for what the browser brought. What was begun is over then, whatever comes of it.
pub(in super::super) async fn finish(
    node: &Node,
    grant: &Grant,
    request: McpAuthorizeFinish,
) -> Result<Done, ApiError> {
    let project = grant.project(node).await?;
    let (by, at) = (grant.user_id()?.clone(), node.services.clock.now_ms());
    let state_hash = content_hash(request.state.as_bytes());
    let command = TakeMcpAuthorization { state_hash, by: by.clone(), at };
    let taken = write(&project.address, command, WriteContext::default()).await.map_err(stored)?;
    let BegunMcpAuthorization { name, sealed } = taken.output.ok_or_else(not_begun)?;
    let owner = (&project.id, name.as_str());
    let begun = Sealed::Begun.open::<Begun>(&node.services, owner, &sealed);
    let begun = begun.ok_or_else(not_begun)?;
    let code = code_of(&begun, request)?;
    let granted = granted(node, &begun, &code).await?;
    let authorization = McpAuthorization {
        issuer: begun.grantor.issuer.clone(),
        scopes: granted.scopes.clone().unwrap_or(begun.scopes),
        by,
        at,
    };
    let tokens = Tokens::new(begun.grantor, granted, node.services.clock.now_ms());
    let command = KeepMcpAuthorization {
        tokens: Sealed::Tokens.seal(&node.services, owner, &tokens).map_err(internal)?,
        name: name.clone(),
        transport: begun.transport,
        oauth: begun.oauth,
        authorization,
        at,
    };
    let kept = write(&project.address, command, WriteContext::default()).await.map_err(stored)?;
    let message = format!("Iris may use the MCP server `{name}` now. You can close this window.");
    Ok(done(McpAuthorizedPayload { name, message })?.at(kept.seq, kept.replayed))
}

/// The code, if it comes from where it was asked for (RFC 9207 section 2.4).
fn code_of(begun: &Begun, request: McpAuthorizeFinish) -> Result<String, ApiError> {
    let is_it = request.iss.as_ref().map_or(!begun.names_itself, |it| *it == begun.grantor.issuer);
    if !is_it {
        let message = "this comes from another authorization server than was asked: begin again";
        return Err(conflict(message, "wrong_issuer"));
    }
    if let Some(error) = request.error {
        let error: String = error.chars().take(100).collect();
        let error = iris_mcp::with_hidden_shown(&error);
        let message = format!("the authorization was not given: {error}");
        return Err(conflict(message, "authorization_refused"));
    }
    let code = request.code.filter(|code| (1..=CODE_BYTES_MAX).contains(&code.len()));
    code.ok_or_else(|| ApiError::invalid("there is no `code`: begin again").reason("invalid_code"))
}

async fn granted(node: &Node, begun: &Begun, code: &str) -> Result<Granted, ApiError> {
    let (Some(egress), Some(reach)) =
        (node.services.mcp.egress(), reach(&begun.transport, begun.oauth.as_ref()))
    else {
        return Err(conflict("this server reaches no web", "no_web"));
    };
    let (grantor, verifier) = (&begun.grantor, begun.verifier.expose());
    let granted = exchange(&egress, &reach, grantor, code, verifier, &begun.redirect_uri).await;
    granted.map_err(|error| told(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_names_a_project_and_a_user() {
        let (project, user) = (ProjectId::from_bits(1), UserId::from_bits(2));
        let state = format!("{project}.{user}.irt_x");
        assert_eq!(named(&state), Some((project.clone(), user.clone())));
        for bad in ["", "a.b.c", &format!("{project}.{user}"), &format!("{user}.{project}.x")] {
            assert_eq!(named(bad), None, "{bad}");
        }
        assert_eq!(named(&format!("{state}{}", "x".repeat(200))), None);
    }
}
