//! Logins at other providers: begun in a browser, finished in the same one, and handed to whoever wanted them.
//!
//! No token of ours stands in a URL. What a browser brings to a program is a code, good once and for a minute,
//! with which only the program can do anything that began (RFC 7636).

mod arrival;
mod identities;

use iris_auth::{OneTimeSecret, PkceVerifier, Ticket};
use iris_identity::{Begin, IdentityError, Provider, Return};
use iris_protocol::{
    ApiError, AuthGrant, ErrorCode, OauthCallback, OauthProvider, OauthProviderPage, OauthRedeem,
    OauthReturned, OauthStart, OauthStarted,
};
use serde_json::Value;
use url::Url;

use super::accounts::{begin, check_email, stranger_refused};
use super::{Done, Peer, done, stored};
use crate::Node;
use crate::logins::{Begun, Came, Finished, Purpose, Target, WantedLink};

pub(super) use identities::{create, delete, link, list as identities};

/// Longest text that a provider sends back, in bytes.
const CODE_BYTES_MAX: usize = 4 * 1024;
/// Longest URL that a browser is sent to in the end, in bytes.
const REDIRECT_BYTES_MAX: usize = 2 * 1024;
/// What a program on the same machine listens at for its browser, on a port of its choice (RFC 8252 section
/// 7.3). The names of the interface are not taken: others may answer to them (section 8.3).
const LOOPBACK: [&str; 2] = ["http://127.0.0.1:", "http://[::1]:"];
const LOOPBACK_PATH: &str = "/callback";

fn conflict(message: impl Into<String>, reason: &str) -> ApiError {
    ApiError::new(ErrorCode::Conflict, message).reason(reason)
}

pub(super) fn list(node: &Node) -> Result<Done, ApiError> {
    let all = node.services.identity_providers.iter();
    let providers = all.map(|(id, provider)| {
        let place = node.services.settings.public_url.as_ref();
        let start_url = place.map(|place| format!("{place}/v1/auth/oauth/{id}/start"));
        OauthProvider { id: id.clone(), title: provider.settings().title.clone(), start_url }
    });
    done(OauthProviderPage { providers: providers.collect() })
}

fn provider<'a>(node: &'a Node, name: &str) -> Result<&'a Provider, ApiError> {
    node.services.identity_providers.get(name).ok_or_else(|| ApiError::not_found("provider"))
}

/// Where browsers reach us.
fn public_url(node: &Node) -> Result<&str, ApiError> {
    node.services.settings.public_url.as_deref().ok_or_else(|| {
        let message =
            "nobody said where browsers reach this server: the operator sets `IRIS_PUBLIC_URL`";
        conflict(message, "no_public_url")
    })
}

/// Where a browser goes in the end, if it may go there.
fn target(node: &Node, redirect: String, challenge: String) -> Result<Target, ApiError> {
    let allowed = &node.services.settings.oauth_redirects;
    let is_allowed = redirect.len() <= REDIRECT_BYTES_MAX
        && (allowed.contains(&redirect) || is_loopback(&redirect));
    if !is_allowed {
        let message = "`redirect` is none of the configured places, nor \
                       `http://127.0.0.1:PORT/callback` or `http://[::1]:PORT/callback`";
        return Err(ApiError::invalid(message).reason("invalid_redirect"));
    }
    if !PkceVerifier::is_challenge(&challenge) {
        let message = "`codeChallenge` is no SHA-256 in base64url without padding";
        return Err(ApiError::invalid(message).reason("invalid_challenge"));
    }
    Ok(Target { redirect, challenge })
}

/// Compared as text: what a parser would make the same is not the same.
fn is_loopback(text: &str) -> bool {
    let behind = LOOPBACK.iter().find_map(|place| text.strip_prefix(place));
    let port = behind.and_then(|behind| behind.strip_suffix(LOOPBACK_PATH)).unwrap_or_default();
    let is_plain = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
    is_plain && port.parse::<u16>().is_ok()
}

pub(super) async fn start(node: &Node, request: OauthStart) -> Result<Done, ApiError> {
    let name = request.provider.clone();
    let from = provider(node, &name)?;
    let redirect_uri = format!("{}/v1/auth/oauth/{name}/callback", public_url(node)?);
    let (target, purpose) = wanted(node, request)?;
    let random = || Ticket::random().map_err(|error| error.to_error());
    let (state, browser, nonce) = (random()?, random()?, random()?);
    let verifier = PkceVerifier::random().map_err(|error| error.to_error())?;
    let away = Begin {
        redirect_uri: &redirect_uri,
        state: state.as_str(),
        nonce: nonce.as_str(),
        challenge: &verifier.challenge(),
    };
    let now = node.services.clock.now_ms();
    let url = from.begin(away, now).await.map_err(|error| told(&name, &error))?.to_string();
    let begun = Begun {
        provider: name,
        browser: Ticket::hash_of(browser.as_str()),
        nonce: nonce.as_str().to_owned(),
        verifier,
        redirect_uri,
        target,
        purpose,
    };
    node.logins.begun.add(&state, begun, node.services.clock.now_ms());
    done(OauthStarted { url, browser: browser.as_str().to_owned() })
}

/// What a login is for, and where the browser goes then.
fn wanted(node: &Node, request: OauthStart) -> Result<(Option<Target>, Purpose), ApiError> {
    let OauthStart { provider, redirect, code_challenge, code_challenge_method, invitation, link } =
        request;
    if code_challenge_method.is_some_and(|method| method != "S256") {
        let message = "`codeChallengeMethod` is not `S256`";
        return Err(ApiError::invalid(message).reason("invalid_challenge"));
    }
    if let Some(link) = link {
        if redirect.is_some() || code_challenge.is_some() || invitation.is_some() {
            let message = "`link` stands alone: what it is for was said when it was prepared";
            return Err(ApiError::invalid(message).reason("invalid_link"));
        }
        let prepared = node.logins.links.take(&link, node.services.clock.now_ms());
        let prepared = prepared.filter(|prepared| prepared.provider == provider);
        let WantedLink { user_id, target, .. } = prepared.ok_or_else(|| {
            let message = "this link was not prepared, is used, is older than ten minutes, or the \
                           server started again meanwhile: prepare another one";
            ApiError::invalid(message).reason("invalid_link")
        })?;
        return Ok((Some(target), Purpose::Link { user_id }));
    }
    let target = match (redirect, code_challenge) {
        (Some(redirect), Some(challenge)) => Some(target(node, redirect, challenge)?),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let message = "`redirect` and `codeChallenge` belong together";
            return Err(ApiError::invalid(message).reason("invalid_challenge"));
        }
    };
    let invitation = invitation.as_deref().map(OneTimeSecret::hash_of);
    Ok((target, Purpose::LogIn { invitation }))
}

/// What a browser brings is wrong, old, used or another browser's: which of them is nobody's business.
fn not_begun() -> ApiError {
    let message = "this login was not begun in this browser, is finished, took longer than ten \
                   minutes, or the server started again meanwhile: begin again";
    ApiError::invalid(message).reason("login_not_begun")
}

pub(super) async fn callback(
    node: &Node,
    request: OauthCallback,
    peer: Peer,
) -> Result<Done, ApiError> {
    provider(node, &request.provider)?;
    let target = request.provider.clone();
    let refused = |error| stranger_refused(node, "auth.oauth.callback", &target, &peer, error);
    if peer.browser.is_none() {
        // Any page can make a browser come here: that is not to cost its user their own logins.
        let state = request.state.as_deref();
        let begun =
            state.and_then(|state| node.logins.begun.take(state, node.services.clock.now_ms()));
        return Err(if begun.is_some() { refused(not_begun()) } else { not_begun() });
    }
    let attempt = node.rates.begin_exchange(&peer).map_err(refused)?;
    let begun = take_begun(node, &request, &peer).map_err(refused)?;
    // What the provider makes of it is no guess.
    node.rates.login_succeeded(&attempt);
    let came = come_back(node, &begun, request, &peer).await.map_err(refused);
    let Some(Target { redirect, challenge }) = begun.target else {
        let came = came?;
        let grant = Some(log_in(node, came, peer).await?.ok_or_else(not_begun)?);
        return done(OauthReturned { url: None, grant });
    };
    let answer = match came {
        Ok(came) => {
            let code = Ticket::random().map_err(|error| error.to_error())?;
            let finished = Finished { challenge, came };
            node.logins.finished.add(&code, finished, node.services.clock.now_ms());
            vec![("code", code.as_str().to_owned())]
        }
        // The place was checked when the login began.
        Err(error) => {
            let reason = error.details.get("reason").and_then(Value::as_str);
            let reason = reason.unwrap_or(error.code.as_str()).to_owned();
            vec![("error", reason), ("error_description", error.message)]
        }
    };
    let mut url = Url::parse(&redirect).map_err(super::internal)?;
    url.query_pairs_mut().extend_pairs(answer);
    done(OauthReturned { url: Some(url.into()), grant: None })
}

/// What was begun in this very browser, at this very provider. It is over now, whatever comes of it.
fn take_begun(node: &Node, request: &OauthCallback, peer: &Peer) -> Result<Begun, ApiError> {
    let state = request.state.as_deref().ok_or_else(not_begun)?;
    let begun = node.logins.begun.take(state, node.services.clock.now_ms());
    let begun = begun.ok_or_else(not_begun)?;
    let browser = peer.browser.as_ref().map(|it| Ticket::hash_of(it.expose()));
    let is_same = browser == Some(begun.browser);
    if is_same && begun.provider == request.provider { Ok(begun) } else { Err(not_begun()) }
}

/// Asks the provider who came back, and finds out whom they are here.
async fn come_back(
    node: &Node,
    begun: &Begun,
    request: OauthCallback,
    peer: &Peer,
) -> Result<Came, ApiError> {
    let OauthCallback { provider: name, code, error, iss, state: _ } = request;
    let from = provider(node, &name)?;
    if let Some(error) = error {
        let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let error: String = error.chars().filter(plain).take(64).collect();
        let message = format!("the provider `{name}` did not let you in: {error}");
        return Err(ApiError::new(ErrorCode::Forbidden, message).reason("login_refused"));
    }
    let code = code.filter(|code| (1..=CODE_BYTES_MAX).contains(&code.len()));
    let code = code.ok_or_else(|| {
        ApiError::invalid("the provider sent no `code`: begin again").reason("invalid_code")
    })?;
    let back = Return {
        code: &code,
        verifier: begun.verifier.as_str(),
        redirect_uri: &begun.redirect_uri,
        nonce: &begun.nonce,
        from: iss.as_deref(),
    };
    let person = from.identify(back, node.services.clock.now_ms()).await;
    let mut person = person.map_err(|error| told(&name, &error))?;
    let email = person.email.map(|email| email.trim().to_lowercase());
    person.email = email.filter(|email| check_email(email).is_ok());
    match &begun.purpose {
        Purpose::LogIn { invitation } => {
            arrival::arrive(node, name, person, *invitation, peer).await
        }
        Purpose::Link { user_id } => {
            Ok(Came::Linking { user_id: user_id.clone(), provider: name, person })
        }
    }
}

/// What a caller learns of a provider that did not do as it should.
fn told(name: &str, error: &IdentityError) -> ApiError {
    tracing::warn!(provider = name, %error, "a login at a provider failed");
    let (code, reason) = if error.is_suspicious() {
        (ErrorCode::Unauthenticated, "login_not_proven")
    } else {
        (ErrorCode::ProviderError, "provider_failed")
    };
    ApiError::new(code, format!("the login at `{name}` failed: {error}")).reason(reason)
}

/// Logs somebody in who came; none for who came for something else, or whose logins all ended since.
async fn log_in(node: &Node, came: Came, peer: Peer) -> Result<Option<AuthGrant>, ApiError> {
    let Came::In { user_id, epoch, through } = came else { return Ok(None) };
    let found = node.root_reader.credentials(&user_id).await.map_err(stored)?;
    let found = found.filter(|found| !found.disabled).ok_or_else(arrival::disabled)?;
    if found.epoch != epoch {
        return Ok(None);
    }
    begin(node, found.user, epoch, peer, Some(through)).await.map(Some)
}

fn invalid_code() -> ApiError {
    let message = "the code is wrong, used, older than a minute, for somebody else, or from before the \
                   server started again: begin again";
    ApiError::invalid(message).reason("invalid_code")
}

/// Takes what came back with a code, for whoever began it. A wrong guess is the last one.
fn take_finished(node: &Node, code: &str, verifier: &str) -> Result<Came, ApiError> {
    let finished = node.logins.finished.take(code, node.services.clock.now_ms());
    let finished = finished.filter(|it| PkceVerifier::proves(verifier, &it.challenge));
    finished.map(|it| it.came).ok_or_else(invalid_code)
}

pub(super) async fn redeem(
    node: &Node,
    OauthRedeem { code, code_verifier }: OauthRedeem,
    peer: Peer,
) -> Result<Done, ApiError> {
    let refused = |error| stranger_refused(node, "auth.oauth.redeem", "account", &peer, error);
    let attempt = node.rates.begin_exchange(&peer).map_err(refused)?;
    let came = take_finished(node, &code, &code_verifier).map_err(&refused)?;
    let grant =
        log_in(node, came, peer.clone()).await?.ok_or_else(invalid_code).map_err(refused)?;
    node.rates.login_succeeded(&attempt);
    done(grant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_place_on_this_machine_is_a_loopback_redirect() {
        for good in [
            "http://127.0.0.1:1/callback",
            "http://127.0.0.1:65535/callback",
            "http://[::1]:4000/callback",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "http://127.0.0.1/callback",
            "http://127.0.0.1:/callback",
            "http://127.0.0.1:0/callback",
            "http://127.0.0.1:080/callback",
            "http://127.0.0.1:65536/callback",
            "http://127.0.0.1:+80/callback",
            "http://127.0.0.1:80@evil.example/callback",
            "http://127.0.0.1:80.evil.example/callback",
            "http://127.0.0.1.evil.example:80/callback",
            "http://127.0.0.1:80/callback/",
            "http://127.0.0.1:80/callback?a=b",
            "http://127.0.0.1:80/callback#a",
            "http://127.0.0.1:80/x/../callback",
            "http://127.0.0.1:80/",
            "http://127.0.0.1:80//callback",
            "HTTP://127.0.0.1:80/callback",
            "https://127.0.0.1:80/callback",
            "http://localhost:80/callback",
            "http://127.1:80/callback",
            "http://2130706433:80/callback",
            "http://[::ffff:127.0.0.1]:80/callback",
            "http://0.0.0.0:80/callback",
            " http://127.0.0.1:80/callback",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
