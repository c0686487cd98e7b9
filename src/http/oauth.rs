//! Logins at other providers, as browsers see them: where they are sent, and the cookie that binds a login to
//! the one in which it began.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::header::{COOKIE, LOCATION, SET_COOKIE};
use iris_actors::Node;
use iris_auth::PlainSecret;
use iris_protocol::{ApiError, ErrorCode, Json, OauthReturned, OauthStarted};
use serde_json::json;

use super::error::RestError;

/// As long as a login that was begun, in seconds.
const COOKIE_SECONDS: u32 = 600;

/// The name of the cookie and what it is bound to. Behind TLS no other host can set one of this name (RFC
/// 6265bis section 4.1.3.2); without, browsers take none that is for TLS alone.
fn cookie(node: &Node) -> (&'static str, &'static str) {
    let url = node.services.settings.public_url.as_deref().unwrap_or_default();
    if url.starts_with("https://") {
        ("__Host-iris_login", "Path=/; HttpOnly; SameSite=Lax; Secure")
    } else {
        ("iris_login", "Path=/v1/auth/oauth; HttpOnly; SameSite=Lax")
    }
}

/// What binds this browser to a login that began in it.
pub(super) fn browser(node: &Node, request: &HttpRequest) -> Option<PlainSecret> {
    let (name, _) = cookie(node);
    let headers = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut pairs =
        headers.flat_map(|text| text.split(';')).filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(found, _)| found.trim() == name)?;
    Some(PlainSecret::new(value.trim().to_owned()))
}

/// The answer to a browser that begins.
pub(super) fn begun(node: &Node, payload: &Json) -> Result<HttpResponse, RestError> {
    let OauthStarted { url, browser } = read(payload)?;
    let (name, bounds) = cookie(node);
    let cookie = format!("{name}={browser}; Max-Age={COOKIE_SECONDS}; {bounds}");
    let mut answer = HttpResponse::SeeOther();
    Ok(answer.insert_header((LOCATION, url)).insert_header((SET_COOKIE, cookie)).finish())
}

/// The answer to a browser that came back: what was begun in it is over.
pub(super) fn finished(node: &Node, payload: &Json) -> Result<HttpResponse, RestError> {
    let OauthReturned { url, grant } = read(payload)?;
    let (name, bounds) = cookie(node);
    let cookie = (SET_COOKIE, format!("{name}=; Max-Age=0; {bounds}"));
    if let Some(url) = url {
        let mut answer = HttpResponse::SeeOther();
        return Ok(answer.insert_header((LOCATION, url)).insert_header(cookie).finish());
    }
    Ok(HttpResponse::Ok().insert_header(cookie).json(json!({ "data": grant })))
}

fn read<T: serde::de::DeserializeOwned>(payload: &Json) -> Result<T, RestError> {
    payload.read().map_err(|error| {
        tracing::error!(%error, "the answer to a login cannot be read");
        ApiError::from(ErrorCode::Internal).into()
    })
}
