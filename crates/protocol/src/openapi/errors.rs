//! The errors of routes: a response for each status, with the codes that have it, and which a route may give.

use serde_json::{Map, Value, json};

use super::headers;
use crate::{Data, ErrorCode, Method, OperationSpec, RestRoute, Right};

/// What may become of any request.
const ANY: &[ErrorCode] = &[
    ErrorCode::InvalidRequest,
    ErrorCode::BadHost,
    ErrorCode::RateLimited,
    ErrorCode::Internal,
    ErrorCode::Overloaded,
    ErrorCode::DeadlineExceeded,
];
/// What may become of one that changes something.
const CHANGE: &[ErrorCode] =
    &[ErrorCode::Conflict, ErrorCode::IdempotencyConflict, ErrorCode::StorageFull];
/// What may become of one with a body.
const BODY: &[ErrorCode] = &[ErrorCode::PayloadTooLarge, ErrorCode::UnsupportedMediaType];
/// Groups of operations whose names begin alike, and what may become of those besides.
const GROUPS: &[(&str, &[ErrorCode])] = &[
    ("auth.", &[ErrorCode::Unauthenticated, ErrorCode::Forbidden, ErrorCode::Conflict]),
    ("file.", &[ErrorCode::Locked, ErrorCode::Gone]),
    ("snapshot.", &[ErrorCode::Locked]),
    ("session.revert", &[ErrorCode::Locked, ErrorCode::Gone]),
    ("session.unrevert", &[ErrorCode::Locked, ErrorCode::Gone]),
    ("mcp.", &[ErrorCode::ProviderError, ErrorCode::Gone]),
    ("tool.", &[ErrorCode::Gone]),
    ("question.", &[ErrorCode::Gone]),
    ("invitation.", &[ErrorCode::Gone]),
    ("project.import", &[ErrorCode::PayloadTooLarge, ErrorCode::UnsupportedMediaType]),
];

/// The responses for components, by name: `Error404` has every code of that status.
pub(super) fn components(error: &Value) -> Map<String, Value> {
    let mut found = Map::new();
    for code in ErrorCode::ALL {
        let name = name(code.http_status());
        if !found.contains_key(&name) {
            found.insert(name, response(code.http_status(), error));
        }
    }
    found
}

/// The errors that a route may answer, by status.
pub(super) fn of_route(spec: &OperationSpec, route: RestRoute) -> Map<String, Value> {
    references(&codes(spec, route))
}

/// The errors of a route that is no operation, and of which anybody may ask.
pub(super) fn of_anybody() -> Map<String, Value> {
    references(&[ErrorCode::BadHost, ErrorCode::Internal])
}

fn references(codes: &[ErrorCode]) -> Map<String, Value> {
    let mut statuses: Vec<u16> = codes.iter().map(|code| code.http_status()).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let reference =
        |status: u16| json!({ "$ref": format!("#/components/responses/{}", name(status)) });
    statuses.into_iter().map(|status| (status.to_string(), reference(status))).collect()
}

fn codes(spec: &OperationSpec, route: RestRoute) -> Vec<ErrorCode> {
    let mut codes = ANY.to_vec();
    match spec.right {
        Right::Public => {}
        Right::User | Right::Admin => {
            codes.extend([ErrorCode::Unauthenticated, ErrorCode::Forbidden]);
        }
        Right::Project(_) => codes.extend([
            ErrorCode::Unauthenticated,
            ErrorCode::Forbidden,
            ErrorCode::NotFound,
            ErrorCode::ProjectCorrupt,
        ]),
    }
    if route.path.contains('{') {
        codes.push(ErrorCode::NotFound);
    }
    if route.method != Method::Get {
        codes.extend(CHANGE);
    }
    let takes_body = matches!(route.method, Method::Post | Method::Put | Method::Patch);
    if takes_body || matches!(route.data, Data::Upload(_) | Data::Form(_)) {
        codes.extend(BODY);
    }
    for (beginning, more) in GROUPS {
        if spec.name.starts_with(beginning) {
            codes.extend(*more);
        }
    }
    codes
}

fn name(status: u16) -> String {
    format!("Error{status}")
}

fn response(status: u16, error: &Value) -> Value {
    let codes: Vec<&str> = ErrorCode::ALL
        .iter()
        .filter(|code| code.http_status() == status)
        .map(|code| code.as_str())
        .collect();
    let schema = json!({
        "type": "object",
        "properties": { "error": { "allOf": [
            error, { "type": "object", "properties": { "code": { "enum": codes } } },
        ] } },
        "required": ["error"],
    });
    let example = json!({ "error": {
        "code": codes.first(),
        "message": "What went wrong, for people.",
        "retryable": matches!(status, 423 | 429 | 503 | 504),
    } });
    let mut headers = headers::of_any_answer();
    if matches!(status, 429 | 503) {
        headers.insert("Retry-After".to_owned(), headers::retry_after());
    }
    if status == 401 {
        headers.insert("WWW-Authenticate".to_owned(), headers::text("How to say who asks."));
    }
    if status == 405 {
        headers.insert("Allow".to_owned(), headers::text("The methods that the route takes."));
    }
    json!({
        "description": format!("One of {}.", codes.join(", ")),
        "headers": headers,
        "content": { "application/json": { "schema": schema, "example": example } },
    })
}
