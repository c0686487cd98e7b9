//! The headers that say that a route is on its way out (RFC 9745, RFC 8594).

use std::time::{Duration, SystemTime};

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue, HttpDate};
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use iris_actors::Node;
use iris_protocol::{Deprecation, Operation};

use super::rest;

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// Answers an operation over its route, and says where it is deprecated, whatever becomes of the request.
pub(super) async fn answer(
    node: Data<Node>,
    operation: Operation,
    request: HttpRequest,
    payload: Payload,
) -> Result<HttpResponse, actix_web::Error> {
    let deprecation = node.services.settings.deprecations.of(operation);
    let answered = rest::answer(node, operation, request, payload).await;
    let Some(deprecation) = deprecation else { return answered.map_err(Into::into) };
    // As an error still, so that the request's id finds its way into it.
    let mut response = answered.unwrap_or_else(HttpResponse::from_error);
    say(response.headers_mut(), deprecation);
    Ok(response)
}

fn say(headers: &mut HeaderMap, deprecation: Deprecation) {
    let since = HeaderValue::from_str(&format!("@{}", deprecation.since));
    if let Ok(since) = since {
        headers.insert(DEPRECATION, since);
    }
    let sunset = deprecation.sunset.and_then(|at| u64::try_from(at).ok());
    let sunset = sunset.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)));
    if let Some(sunset) = sunset
        && let Ok(sunset) = HeaderValue::from_str(&HttpDate::from(sunset).to_string())
    {
        headers.insert(SUNSET, sunset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_since_when_and_until_when() {
        let mut headers = HeaderMap::new();
        let since = 1_688_169_599;
        say(&mut headers, Deprecation { since, sunset: None, instead: None });
        assert_eq!(headers.get("deprecation").unwrap(), "@1688169599");
        assert!(!headers.contains_key("sunset"));
        say(&mut headers, Deprecation { since, sunset: Some(1_719_791_999), instead: None });
        assert_eq!(headers.get("sunset").unwrap(), "Sun, 30 Jun 2024 23:59:59 GMT");
    }
}
