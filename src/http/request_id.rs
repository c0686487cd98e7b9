//! One id for each HTTP request: the caller's or a new one, in the span, in errors, on the answer.

use std::time::Instant;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{HttpMessage, HttpRequest};
use iris_actors::Node;
use iris_protocol::RequestId;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::RestError;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id of a caller, in bytes.
const ID_BYTES_MAX: usize = 64;

/// The id of a request, among what the request carries along.
#[derive(Clone)]
struct Id(String);

/// The id of a request that came through [`identify`].
pub(crate) fn request_id(request: &HttpRequest) -> Option<String> {
    request.extensions().get::<Id>().map(|id| id.0.clone())
}

/// The middleware, the outermost of all. Its span has the pattern of the route and never the path:
/// nothing that a caller wrote but the id is logged.
///
/// # Errors
/// None of its own.
pub(crate) async fn identify<B: MessageBody>(
    node: Data<Node>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, actix_web::Error> {
    let id = given(request.headers())
        .unwrap_or_else(|| RequestId::from_bits(node.services.ids.next_bits()).to_string());
    request.extensions_mut().insert(Id(id.clone()));
    let span = tracing::info_span!(
        "http.request",
        request.id = id,
        method = %request.method(),
        route = Empty,
        status = Empty,
        duration_ms = Empty,
    );
    let started = Instant::now();
    let method = request.method().clone();
    let mut response = next.call(request).instrument(span.clone()).await?;
    node.services.metrics.responded(method.as_str(), response.status().as_u16());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, id);
    }
    record(&span, &response, started);
    Ok(with_id_in_error(response, id))
}

/// The caller's id, if it is one that can stand anywhere.
fn given(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(HEADER)?.to_str().ok()?;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let has_length = (1..=ID_BYTES_MAX).contains(&id.len());
    (has_length && id.bytes().all(is_good)).then(|| id.to_owned())
}

fn record<B>(span: &Span, response: &ServiceResponse<B>, started: Instant) {
    if span.is_disabled() {
        return;
    }
    if let Some(route) = response.request().match_pattern() {
        span.record("route", route);
    }
    span.record("status", response.status().as_u16());
    span.record("duration_ms", started.elapsed().as_secs_f64() * 1_000.0);
    span.in_scope(|| tracing::debug!("request answered"));
}

/// Puts the id into the body of an error of ours.
fn with_id_in_error<B: MessageBody>(
    response: ServiceResponse<B>,
    id: String,
) -> ServiceResponse<EitherBody<B, BoxBody>> {
    let error = response.response().error().and_then(actix_web::Error::as_error::<RestError>);
    let Some(body) = error.map(|error| error.body(Some(id))) else {
        return response.map_into_left_body();
    };
    response.map_body(|_, _| EitherBody::right(BoxBody::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_and_plain_ids_of_callers_are_taken() {
        let given = |id: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(id).unwrap());
            super::given(&headers)
        };
        let longest = "a".repeat(ID_BYTES_MAX);
        for id in ["a", "A.b_c-1", "0193-uuid", &longest] {
            assert_eq!(given(id.as_bytes()).as_deref(), Some(id));
        }
        for id in [" ", "a b", "a\"b", "a/b", "a,b", "\u{e4}", &format!("{longest}a")] {
            assert_eq!(given(id.as_bytes()), None, "{id}");
        }
        assert_eq!(given(&[0xff]), None);
        assert_eq!(super::given(&HeaderMap::new()), None);
    }
}
