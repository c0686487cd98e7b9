//! What an MCP server on the web was given: how its authorization is configured, what is kept sealed of it,
//! and the token that is good now.

use std::time::Duration;

use iris_auth::{AuthError, PlainSecret};
use iris_egress::parse_url;
use iris_mcp::oauth::{Granted, Grantor, OauthClient, OauthError, Reach, is_safe, refresh};
use iris_mcp::{McpError, Secret};
use iris_protocol::{ApiError, McpOauth, McpOauthSettings, McpTransport, ProjectId};
use iris_store::WriteContext;
use iris_store::project::{RenewMcpTokens, StoredMcpServer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::checks::invalid;
use super::client::McpPlace;
use super::seat::Seat;
use crate::{Services, record};

/// Most origins that may be asked besides the server's own.
const ORIGINS_MAX: usize = 8;
/// Most scopes, and most bytes of one.
const SCOPES_MAX: usize = 32;
const SCOPE_BYTES_MAX: usize = 256;
/// Longest name and longest secret of a client, in bytes.
const CLIENT_BYTES_MAX: usize = 2048;
/// A token is renewed when it is good for less than this.
const EARLY: Duration = Duration::from_mins(1);
/// The least time between two renewals of one connection, however short tokens are good.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What is sealed for a server.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sealed {
    /// The secret of the client that somebody configured.
    ClientSecret,
    /// The client that was registered.
    Client,
    /// What was begun.
    Begun,
    /// The tokens.
    Tokens,
}

impl Sealed {
    /// It opens for this project and server, and as this alone.
    pub(crate) fn owner(self, project_id: &ProjectId, name: &str) -> [String; 4] {
        let what = match self {
            Self::ClientSecret => "client secret",
            Self::Client => "client",
            Self::Begun => "begun",
            Self::Tokens => "tokens",
        };
        [project_id.to_string(), "mcp".to_owned(), name.to_owned(), what.to_owned()]
    }

    pub(crate) fn seal<T: Serialize>(
        self,
        services: &Services,
        (project_id, name): (&ProjectId, &str),
        value: &T,
    ) -> Result<String, AuthError> {
        let text = serde_json::to_string(value);
        let text = text.map_err(|error| AuthError::Internal { source: error.into() })?;
        let owner = self.owner(project_id, name);
        services.sealing.seal(&PlainSecret::new(text), &owner.each_ref().map(String::as_str))
    }

    /// None for what does not open, or is none.
    pub(crate) fn open<T: DeserializeOwned>(
        self,
        services: &Services,
        (project_id, name): (&ProjectId, &str),
        sealed: &str,
    ) -> Option<T> {
        let owner = self.owner(project_id, name);
        let opened = services.sealing.open(sealed, &owner.each_ref().map(String::as_str)).ok()?;
        serde_json::from_str(opened.expose()).ok()
    }
}

/// A client that registered itself, and where that counts.
#[derive(Serialize, Deserialize)]
pub(crate) struct Registered {
    pub(crate) issuer: String,
    pub(crate) redirect_uri: String,
    pub(crate) client: OauthClient,
}

/// What is needed to finish what was begun.
#[derive(Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) grantor: Grantor,
    /// Whether the authorization server says who it is when it sends the browser back.
    pub(crate) names_itself: bool,
    pub(crate) verifier: Secret,
    pub(crate) redirect_uri: String,
    pub(crate) scopes: Vec<String>,
    /// The server as it was then.
    pub(crate) transport: McpTransport,
    pub(crate) oauth: Option<McpOauth>,
}

/// What came of it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Tokens {
    grantor: Grantor,
    access: Secret,
    refresh: Option<Secret>,
    /// Milliseconds since 1970 UTC; none where nobody said.
    expires_at: Option<i64>,
}

impl Tokens {
    pub(crate) fn new(grantor: Grantor, granted: Granted, now: i64) -> Self {
        let Granted { access, refresh, lifetime, .. } = granted;
        let expires_at = lifetime.map(|it| now.saturating_add(millis(it)));
        Self { grantor, access, refresh, expires_at }
    }

    /// After a renewal; a server that gives no other refresh token lets the one before stay good.
    fn renewed(&self, granted: Granted, now: i64) -> Self {
        let new = Self::new(self.grantor.clone(), granted, now);
        Self { refresh: new.refresh.clone().or_else(|| self.refresh.clone()), ..new }
    }

    fn is_good_for(&self, least: Duration, now: i64) -> bool {
        self.expires_at.is_none_or(|at| at.saturating_sub(now) > millis(least))
    }

    /// When they have to be renewed, if that is known and possible.
    fn renew_in(&self, now: i64) -> Option<Duration> {
        let expires_at = self.expires_at.filter(|_| self.refresh.is_some())?;
        let left = u64::try_from(expires_at.saturating_sub(now)).unwrap_or_default();
        let early = Duration::from_millis(left).saturating_sub(EARLY);
        Some(early.max(RENEW_AGAIN_AFTER))
    }

    fn good(&self, now: i64) -> Good {
        Good { secret: self.access.clone(), renew_in: self.renew_in(now) }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A token that can be shown.
pub(super) struct Good {
    pub(super) secret: Secret,
    /// When it has to be renewed.
    pub(super) renew_in: Option<Duration>,
}

/// The token for a server, renewed where it is about to run out or is `refused`; none where it needs none.
///
/// # Errors
/// `Expired` when somebody has to agree anew; `NotRenewed` when it may work another time; `Closed`.
pub(super) async fn token(
    place: &McpPlace,
    seat: &Seat,
    refused: Option<Secret>,
) -> Result<Option<Good>, McpError> {
    let _one_at_a_time = seat.renewing.lock().await;
    // Whoever was faster has renewed it.
    let stored = place.reader.mcp_server(place.name.clone()).await;
    let stored = stored.map_err(|error| McpError::Closed { reason: error.to_string() })?;
    let Some(StoredMcpServer { server, tokens: Some(sealed), .. }) = stored else {
        return Ok(None);
    };
    let owner = (&place.project_id, place.name.as_str());
    let Some(tokens) = Sealed::Tokens.open::<Tokens>(&place.services, owner, &sealed) else {
        return Err(expired("it cannot be opened here"));
    };
    let now = place.services.clock.now_ms();
    let is_refused = refused.is_some_and(|refused| refused == tokens.access);
    if !is_refused && tokens.is_good_for(EARLY, now) {
        if place.services.sealing.is_outdated(&sealed) {
            save(place, sealed, &tokens).await?;
        }
        return Ok(Some(tokens.good(now)));
    }
    let is_good_yet = !is_refused && tokens.is_good_for(Duration::ZERO, now);
    let renewed = match renew(place, server.oauth.as_ref(), &server.transport, &tokens).await {
        Ok(granted) => tokens.renewed(granted, now),
        Err(_) if is_good_yet => return Ok(Some(tokens.good(now))),
        Err(error) => return Err(error),
    };
    if save(place, sealed, &renewed).await? {
        return Ok(Some(renewed.good(now)));
    }
    Err(expired("somebody has changed it meanwhile"))
}

async fn renew(
    place: &McpPlace,
    oauth: Option<&McpOauth>,
    transport: &McpTransport,
    tokens: &Tokens,
) -> Result<Granted, McpError> {
    let refresh_token = tokens.refresh.as_ref().ok_or_else(|| expired("it has run out"))?;
    let (Some(egress), Some(reach)) = (place.services.mcp.egress(), reach(transport, oauth)) else {
        return Err(McpError::Closed { reason: "this server reaches no web".to_owned() });
    };
    let renewed = refresh(&egress, &reach, &tokens.grantor, refresh_token).await;
    renewed.map_err(|error| match error {
        error if error.is_final() => expired(&error.to_string()),
        error => McpError::NotRenewed(error),
    })
}

/// Stores tokens in the place of those before. Tells whether those still were there; what cannot be stored
/// now is good until the connection ends.
async fn save(place: &McpPlace, before: String, tokens: &Tokens) -> Result<bool, McpError> {
    let closed = |reason: &str| McpError::Closed { reason: reason.to_owned() };
    let owner = (&place.project_id, place.name.as_str());
    let sealed = Sealed::Tokens.seal(&place.services, owner, tokens);
    let sealed = sealed.map_err(|error| closed(&error.to_string()))?;
    let project = place.project.upgrade().ok_or_else(|| closed("the project is closed"))?;
    let command = RenewMcpTokens { name: place.name.clone(), before, tokens: sealed };
    match record(&project, command, WriteContext::default()).await {
        Ok(saved) => Ok(saved.output),
        Err(error) => {
            tracing::warn!(project.id = %place.project_id, %error, "a renewed token is not stored");
            Ok(true)
        }
    }
}

fn expired(reason: &str) -> McpError {
    McpError::Expired { reason: reason.to_owned() }
}

/// Where the authorization of a server may be asked for; none for a program.
pub(crate) fn reach(transport: &McpTransport, oauth: Option<&McpOauth>) -> Option<Reach> {
    let McpTransport::Http { url, .. } = transport else { return None };
    let origins = oauth.map(|oauth| oauth.origins.as_slice()).unwrap_or_default();
    Some(Reach::new(parse_url(url).ok()?, origins))
}

/// Refuses what cannot be asked with, or would not stay secret. Gives what clients see of it, and the secret.
pub(crate) fn checked(
    transport: &McpTransport,
    settings: McpOauthSettings,
) -> Result<(McpOauth, Option<String>), ApiError> {
    let refused = |message: &str| Err(invalid(message, "invalid_oauth"));
    let McpTransport::Http { .. } = transport else {
        return refused("`oauth` is for servers on the web");
    };
    let McpOauthSettings { client_id, client_secret, origins, scopes } = settings;
    let is_good = |text: &String| {
        (1..=CLIENT_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control)
    };
    if !client_id.iter().chain(&client_secret).all(is_good) {
        return refused("`oauth.clientId` and `oauth.clientSecret` have 1 to 2048 bytes");
    }
    if client_secret.is_some() && client_id.is_none() {
        return refused("`oauth.clientSecret` belongs to a `clientId`");
    }
    if origins.len() > ORIGINS_MAX || !origins.iter().all(|text| is_origin(text)) {
        return refused(
            "`oauth.origins` has at most 8 entries like `https://login.example`, without a path",
        );
    }
    if scopes.len() > SCOPES_MAX || !scopes.iter().all(|scope| is_scope(scope)) {
        return refused(
            "`oauth.scopes` has at most 32 entries of at most 256 visible characters, without quotes",
        );
    }
    let has_client_secret = client_secret.is_some();
    Ok((McpOauth { client_id, has_client_secret, origins, scopes }, client_secret))
}

/// One place, named: a `*` would look like a pattern, and is none.
fn is_origin(text: &str) -> bool {
    let is_it = |url: url::Url| is_safe(&url) && url.origin().ascii_serialization() == text;
    !text.contains('*') && parse_url(text).is_ok_and(is_it)
}

/// RFC 6749 section 3.3.
fn is_scope(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    (1..=SCOPE_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

/// What the caller of an operation learns. What is wrong with a server is no error of ours.
pub(crate) fn told(error: &OauthError) -> ApiError {
    use iris_protocol::ErrorCode::{Conflict, ProviderError};
    let (code, reason) = match error {
        OauthError::Foreign { .. } => (Conflict, "foreign_origin"),
        OauthError::ClientNeeded => (Conflict, "client_needed"),
        OauthError::NotOffered => (Conflict, "no_authorization_server"),
        OauthError::Refused { .. } => (ProviderError, "authorization_refused"),
        OauthError::Egress(_)
        | OauthError::Insecure { .. }
        | OauthError::WrongResource { .. }
        | OauthError::WrongIssuer { .. }
        | OauthError::NoPkce
        | OauthError::Status { .. }
        | OauthError::Malformed { .. } => (ProviderError, "authorization_failed"),
    };
    let told = ApiError::new(code, error.to_string()).reason(reason);
    if let OauthError::Foreign { origin } = error {
        return told.detail("origin", origin.clone());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(lifetime: Option<u64>, has_refresh: bool) -> Tokens {
        let client = OauthClient { id: "c".into(), secret: None, is_in_body: false };
        let grantor = Grantor {
            issuer: "https://i.example".into(),
            token_endpoint: "https://i.example/t".into(),
            resource: "https://a.example/".into(),
            client,
        };
        let granted = Granted {
            access: Secret::new("a"),
            refresh: has_refresh.then(|| Secret::new("r")),
            lifetime: lifetime.map(Duration::from_secs),
            scopes: None,
        };
        Tokens::new(grantor, granted, 1000)
    }

    #[test]
    fn tokens_are_renewed_a_minute_before_they_run_out_and_not_all_the_time() {
        let renew_in = |lifetime, has_refresh| tokens(lifetime, has_refresh).renew_in(1000);
        assert_eq!(renew_in(Some(3600), true), Some(Duration::from_mins(59)));
        assert_eq!(renew_in(Some(61), true), Some(RENEW_AGAIN_AFTER));
        assert_eq!(renew_in(Some(0), true), Some(RENEW_AGAIN_AFTER));
        assert_eq!(renew_in(None, true), None);
        assert_eq!(renew_in(Some(3600), false), None);
        let hour = tokens(Some(3600), true);
        assert!(hour.is_good_for(EARLY, 3_540_000) && !hour.is_good_for(EARLY, 3_541_000));
        assert!(tokens(None, false).is_good_for(EARLY, i64::MAX));
    }

    #[test]
    fn a_refresh_token_stays_unless_another_one_comes() {
        let granted = |refresh: Option<&str>| Granted {
            access: Secret::new("b"),
            refresh: refresh.map(Secret::new),
            lifetime: None,
            scopes: None,
        };
        let before = tokens(Some(1), true);
        assert_eq!(before.renewed(granted(None), 0).refresh, Some(Secret::new("r")));
        assert_eq!(before.renewed(granted(Some("s")), 0).refresh, Some(Secret::new("s")));
    }

    #[test]
    fn configurations_out_of_bounds_are_refused() {
        let web = McpTransport::Http { url: "https://a.example/".into(), headers: [].into() };
        let good = McpOauthSettings {
            client_id: Some("iris".into()),
            client_secret: Some("secret".into()),
            origins: vec!["https://login.example".into(), "http://127.0.0.1:3000".into()],
            scopes: vec!["read:all".into()],
        };
        let (shown, secret) = checked(&web, good.clone()).unwrap();
        assert!(shown.has_client_secret && secret.as_deref() == Some("secret"));
        let bad = [
            McpOauthSettings { client_id: None, ..good.clone() },
            McpOauthSettings { client_id: Some(String::new()), ..good.clone() },
            McpOauthSettings { client_secret: Some("a\n".into()), ..good.clone() },
            McpOauthSettings { origins: vec!["https://login.example/x".into()], ..good.clone() },
            McpOauthSettings { origins: vec!["http://login.example".into()], ..good.clone() },
            McpOauthSettings { origins: vec!["https://*".into()], ..good.clone() },
            McpOauthSettings { origins: vec!["https://a.example".into(); 9], ..good.clone() },
            McpOauthSettings { scopes: vec!["a b".into()], ..good.clone() },
            McpOauthSettings { scopes: vec!["a".into(); 33], ..good.clone() },
        ];
        for settings in bad {
            assert!(checked(&web, settings.clone()).is_err(), "{settings:?}");
        }
        let program = McpTransport::Stdio { command: "a".into(), args: vec![], env: [].into() };
        assert!(checked(&program, good).is_err());
    }
}
