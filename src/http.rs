//! HTTP: every route, made from the operations table, and what stands before all of them.

mod archives;
mod attachments;
mod audit;
mod connecting;
mod contents;
mod csv;
mod deprecated;
mod error;
mod gatekeeper;
mod oauth;
mod parts;
mod proxies;
mod ranges;
mod request_id;
mod rest;
mod unread;
mod uploads;
mod written;

use std::cmp::Reverse;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use actix_web::http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ContentType, USER_AGENT,
};
use actix_web::web::{Data, Payload, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse, Resource, Route, web};
use bytes::Bytes;
use futures_util::StreamExt;
use iris_actors::Node;
use iris_actors::dispatch::{Ask, Patience, Peer};
use iris_actors::supervision::detached;
use iris_protocol::{
    ApiError, Command, ErrorCode, FrameError, Method, Operation, RequestFrame, ResponseFrame,
    RestRoute, asyncapi, limits::FRAME_BYTES_MAX, openapi, schema_document,
};
use serde_json::json;
use tracing::Instrument;

pub(crate) use connecting::who_connects;
pub use error::RestError;
pub use gatekeeper::Gatekeeper;
pub(crate) use gatekeeper::guard;
pub use proxies::TrustedProxies;
pub(crate) use request_id::{identify, request_id};
pub(crate) use unread::end_unread;

use crate::{sse, ws};

/// How long a client may take to send a request's body, where nothing else is said.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest body of a caller who is not known yet, in bytes.
const PUBLIC_BODY_BYTES_MAX: usize = 64 * 1024;

/// The version in documents and answers.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

// Anybody may read the documents, and to make one takes milliseconds.
static OPENAPI: LazyLock<Bytes> = LazyLock::new(|| openapi(VERSION).to_string().into());
static ASYNCAPI: LazyLock<Bytes> = LazyLock::new(|| asyncapi(VERSION).to_string().into());
static SCHEMA: LazyLock<Bytes> = LazyLock::new(|| schema_document().to_string().into());

/// The route of a document that is made once.
fn document(json: &'static LazyLock<Bytes>) -> Route {
    web::get().to(async || {
        let json = Bytes::clone(json);
        HttpResponse::Ok().content_type(ContentType::json()).body(json)
    })
}

/// A path with one method.
fn fixed(path: &str, method: &'static str, route: Route) -> Resource {
    let other = move || async move { RestError::method_not_allowed(method) };
    web::resource(path).route(route).default_service(web::route().to(other))
}

/// The routes that are no operations: path, method, and what answers.
fn fixed_routes() -> [(&'static str, &'static str, Route); 8] {
    [
        ("/health/live", "GET", web::get().to(live)),
        ("/health/ready", "GET", web::get().to(ready)),
        ("/v1/openapi.json", "GET", document(&OPENAPI)),
        ("/v1/asyncapi.json", "GET", document(&ASYNCAPI)),
        ("/v1/schema.json", "GET", document(&SCHEMA)),
        ("/v1/ws", "GET", web::get().to(ws::connect)),
        ("/v1/commands", "POST", web::post().to(command)),
        ("/v1/projects/{projectId}/events", "GET", web::get().to(sse::follow)),
    ]
}

/// Whether the head of an answer can be asked for alone.
fn takes_head(operation: Operation) -> bool {
    operation == Operation::FileRead
}

/// Adds every route of the server.
pub fn routes(config: &mut ServiceConfig) {
    for (path, method, route) in fixed_routes() {
        config.service(fixed(path, method, route));
    }
    #[cfg(feature = "echo")]
    config.route("/echo", web::get().to(ws::echo::connect));
    let routed = routed();
    for (index, (_, route)) in routed.iter().enumerate() {
        if routed.iter().take(index).any(|(_, other)| other.path == route.path) {
            continue;
        }
        let same_path = routed.iter().filter(|(_, other)| other.path == route.path);
        let mut resource = web::resource(pattern(*route));
        let mut allowed = Vec::new();
        for (operation, route) in same_path {
            let operation = *operation;
            let answer = move |node: Data<Node>, request: HttpRequest, payload: Payload| {
                deprecated::answer(node, operation, request, payload)
            };
            allowed.push(route.method.as_str());
            resource = resource.route(web::method(http_method(route.method)).to(answer));
            if takes_head(operation) {
                allowed.push("HEAD");
                resource = resource.route(web::head().to(answer));
            }
        }
        let allowed = allowed.join(", ");
        config.service(resource.default_service(web::route().to(move || {
            let allowed = allowed.clone();
            async move { RestError::method_not_allowed(&allowed) }
        })));
    }
    config.default_service(web::route().to(async || RestError::from(ApiError::not_found("route"))));
}

/// Every operation with a route, the longest paths first: one that ends in several segments would
/// swallow those that have more behind it. Of two that are as long the one with fewer names in braces,
/// which would swallow the other.
fn routed() -> Vec<(Operation, RestRoute)> {
    let routed = Operation::ALL.iter().filter_map(|o| Some((*o, o.spec().rest?)));
    let mut routed: Vec<_> = routed.collect();
    routed.sort_by_key(|(_, route)| {
        (Reverse(route.path.matches('/').count()), route.path.matches('{').count())
    });
    routed
}

/// The path of a route as the router writes it.
fn pattern(route: RestRoute) -> String {
    route.path.replace("{path}", "{path:.+}")
}

fn http_method(method: Method) -> actix_web::http::Method {
    match method {
        Method::Get => actix_web::http::Method::GET,
        Method::Post => actix_web::http::Method::POST,
        Method::Put => actix_web::http::Method::PUT,
        Method::Patch => actix_web::http::Method::PATCH,
        Method::Delete => actix_web::http::Method::DELETE,
    }
}

async fn live() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "live" }))
}

async fn ready(node: Data<Node>) -> Result<HttpResponse, RestError> {
    let Some(reason) = node.unready().await else {
        // A full disk is no reason to send people elsewhere: they can read, cancel and delete.
        let storage = if node.services.storage.is_full() { "full" } else { "ok" };
        let sandbox = match &node.services.sandbox {
            Some(sandbox) if sandbox.check().is_ok() => sandbox.tier().to_string(),
            Some(_) => "unavailable".to_owned(),
            None => "off".to_owned(),
        };
        // So it is with maintenance; and what was begun goes on.
        let maintenance = node.maintenance().is_some();
        let ready = json!({
            "status": "ready",
            "storage": storage,
            "sandbox": sandbox,
            "maintenance": maintenance,
        });
        return Ok(HttpResponse::Ok().json(ready));
    };
    let code = if node.is_draining() { ErrorCode::ShuttingDown } else { ErrorCode::Overloaded };
    Err(ApiError::from(code).reason(reason).into())
}

/// Runs work in a task of its own: a client that goes away stops listening, not the work.
async fn undisturbed<T: 'static>(
    work: impl Future<Output = Result<T, ApiError>> + 'static,
) -> Result<T, ApiError> {
    let done = detached(work.in_current_span()).await;
    done.unwrap_or_else(|_| Err(ApiError::new(ErrorCode::Internal, "internal error")))
}

/// `POST /v1/commands`: one request of the socket's envelope.
async fn command(node: Data<Node>, request: HttpRequest, payload: Payload) -> HttpResponse {
    let frame = match ask(&node, &request, payload).await {
        Ok((id, patience, ask)) => {
            let operation = ask.command.operation();
            let warnings = node.services.settings.deprecations.warnings(operation);
            let frame =
                match undisturbed(patience.bear(async move { node.dispatch(ask).await })).await {
                    Ok(done) => ResponseFrame::success(id, done.payload, done.seq),
                    Err(error) => ResponseFrame::failure(Some(id), error),
                };
            frame.with_warnings(warnings)
        }
        Err(refused) => {
            let request_id = request_id(&request);
            ResponseFrame::failure(refused.id, ApiError { request_id, ..refused.error })
        }
    };
    let status = frame.error.as_ref().map_or(200, |error| error.code.http_status());
    let retry_after_ms = frame.error.as_ref().and_then(|error| error.retry_after_ms);
    let mut response = HttpResponse::build(error::status_code(status));
    if let Some(delay_ms) = retry_after_ms {
        response.insert_header(error::retry_after(delay_ms));
    }
    response.json(frame)
}

async fn ask(
    node: &Node,
    request: &HttpRequest,
    payload: Payload,
) -> Result<(String, Arc<Patience>, Ask), FrameError> {
    let refused = |id: Option<String>| move |error: ApiError| FrameError { id, error };
    let claims = claims(node, request).await.map_err(refused(None))?;
    if claims.is_none() {
        return Err(refused(None)(ApiError::from(ErrorCode::Unauthenticated)));
    }
    require_json(request).map_err(refused(None))?;
    let body = body(node, request, payload, FRAME_BYTES_MAX).await.map_err(refused(None))?;
    let frame = RequestFrame::parse(&body)?;
    let (id, patience) = (frame.id, Patience::new(frame.deadline_ms));
    let operation = Operation::in_envelope(&frame.r#type).map_err(refused(Some(id.clone())))?;
    let command = Command::decode(operation, frame.payload).map_err(refused(Some(id.clone())))?;
    let (project_id, peer) = (frame.project_id, peer(request));
    let (idempotency_key, request_id) = (frame.idempotency_key, request_id(request));
    let connection_id = None;
    let ask = Ask { claims, project_id, command, idempotency_key, peer, request_id, connection_id };
    Ok((id, patience, ask))
}

/// The bearer token of a request (RFC 6750 section 2.1).
fn bearer(request: &HttpRequest) -> Result<Option<&str>, ApiError> {
    let Some(header) = request.headers().get(AUTHORIZATION) else { return Ok(None) };
    let token = header.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match token {
        Some(token) if !token.is_empty() => Ok(Some(token)),
        Some(_) | None => {
            let message = "the `Authorization` header must be `Bearer` and a token";
            Err(ApiError::new(ErrorCode::Unauthenticated, message))
        }
    }
}

/// Who asks, which counts as one of their requests.
async fn claims(
    node: &Node,
    request: &HttpRequest,
) -> Result<Option<iris_auth::AccessClaims>, ApiError> {
    let Some(token) = bearer(request)? else { return Ok(None) };
    let claims = node.authenticate(token).await?;
    node.count(Some(&claims), &peer(request))?;
    Ok(Some(claims))
}

/// Where a request came from.
pub(crate) fn peer(request: &HttpRequest) -> Peer {
    let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    let address = request.peer_addr().map(|address| address.ip());
    let client = |address| match request.app_data::<Data<TrustedProxies>>() {
        Some(proxies) => proxies.client(address, request.headers()),
        None => address,
    };
    Peer {
        ip: address.map(|address| client(address).to_string()),
        agent: agent.map(|agent| agent.chars().take(200).collect()),
        browser: None,
    }
}

fn require_json(request: &HttpRequest) -> Result<(), ApiError> {
    let given = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = "the body must be `application/json`";
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message))
}

/// How long the body is, as its headers say.
fn content_length(request: &HttpRequest) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Bodies come as they are: nothing is decompressed, so that a small one cannot become a large one.
fn require_plain(request: &HttpRequest) -> Result<(), ApiError> {
    let coding = request.headers().get(CONTENT_ENCODING);
    if coding.is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let message = "the body must not have a `Content-Encoding`";
    Err(ApiError::new(ErrorCode::UnsupportedMediaType, message).reason("content_encoding"))
}

/// The body, of at most `bytes_max` bytes whatever its headers say.
async fn body(
    node: &Node,
    request: &HttpRequest,
    mut payload: Payload,
    bytes_max: usize,
) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("the body is larger than {bytes_max} bytes");
        ApiError::new(ErrorCode::PayloadTooLarge, message)
    };
    if content_length(request).is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    require_plain(request)?;
    let mut body = Vec::new();
    let read = async {
        while let Some(chunk) = payload.next().await {
            let chunk =
                chunk.map_err(|error| ApiError::invalid(format!("broken body: {error}")))?;
            if body.len() + chunk.len() > bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let time = node.services.settings.body_timeout;
    tokio::time::timeout(time, read).await.map_err(|_| {
        let message = format!("the body took longer than {} s", time.as_secs());
        ApiError::new(ErrorCode::DeadlineExceeded, message)
    })??;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_openapi_document_has_the_routes_of_the_router_and_no_others() {
        let fixed = fixed_routes().map(|(path, method, _)| format!("{method} {path}"));
        let routed = routed().into_iter().flat_map(|(operation, route)| {
            let head = takes_head(operation).then(|| format!("HEAD {}", route.path));
            std::iter::once(format!("{} {}", route.method.as_str(), route.path)).chain(head)
        });
        let taken: BTreeSet<String> = fixed.into_iter().chain(routed).collect();
        let document = openapi(VERSION);
        let paths = document["paths"].as_object().unwrap().iter();
        let described: BTreeSet<String> = paths
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().keys();
                methods.map(move |method| format!("{} {path}", method.to_uppercase()))
            })
            .collect();
        assert_eq!(taken, described);
    }
}
