//! The headers of requests and answers.

use serde_json::{Map, Value, json};

use crate::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::{Data, Deprecation, Method, Operation, OperationSpec, RestRoute};

/// A header of an answer that is a text.
pub(super) fn text(description: &str) -> Value {
    json!({ "description": description, "schema": { "type": "string" } })
}

/// When to try again.
pub(super) fn retry_after() -> Value {
    json!({ "description": "When to try again, in seconds.", "schema": { "type": "integer", "minimum": 0 } })
}

/// What every answer has.
pub(super) fn of_any_answer() -> Map<String, Value> {
    let id = text("The id of the request: the caller's where it is a good one, else a new one.");
    [("X-Request-Id".to_owned(), id)].into_iter().collect()
}

/// What a success has.
pub(super) fn of_success(
    spec: &OperationSpec,
    route: RestRoute,
    deprecation: Option<Deprecation>,
) -> Map<String, Value> {
    let mut headers = of_any_answer();
    let mut add = |name: &str, description: &str| {
        headers.insert(name.to_owned(), text(description));
    };
    if route.method != Method::Get {
        add(
            "Idempotent-Replay",
            "`true` where this is the answer to an earlier request with the same key.",
        );
    }
    if has_conditions(spec) {
        add("ETag", "What the content is, for `If-Match`, `If-None-Match` and `If-Range`.");
    }
    if has_ranges(spec) {
        add("Accept-Ranges", "`bytes`.");
    }
    if matches!(route.data, Data::Bytes(_)) {
        add("Content-Disposition", "What to call it where it is saved.");
    }
    if spec.name == "file.read" {
        add("X-Iris-File-Version", "The version of the file.");
    }
    if let Some(deprecation) = deprecation {
        add("Deprecation", "Since when the route is deprecated (RFC 9745).");
        if deprecation.sunset.is_some() {
            add("Sunset", "When it goes (RFC 8594).");
        }
    }
    headers
}

/// The headers that a request may have, as parameters.
pub(super) fn of_request(spec: &OperationSpec, route: RestRoute) -> Vec<Value> {
    let mut headers = vec![parameter(
        "X-Request-Id",
        "Names the request in logs and errors.",
        &json!({ "type": "string", "pattern": "^[0-9A-Za-z._-]{1,64}$" }),
        "req-1",
    )];
    if is_repeatable(spec, route) {
        let schema =
            json!({ "type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX });
        let description = "Makes a repeat answer what the first one did, for a day.";
        headers.push(parameter("Idempotency-Key", description, &schema, "4f1c9a"));
    }
    let any = json!({ "type": "string" });
    if has_conditions(spec) {
        headers.push(parameter("If-None-Match", "Not if it is that.", &any, "\"2cf24d\""));
    }
    if spec.name.starts_with("file.") && has_conditions(spec) {
        headers.push(parameter("If-Match", "Only if it is that.", &any, "\"2cf24d\""));
    }
    if has_ranges(spec) {
        headers.push(parameter("Range", "One range of bytes.", &any, "bytes=0-1023"));
        headers.push(parameter("If-Range", "The part only if it is that.", &any, "\"2cf24d\""));
    }
    headers
}

/// Whether a key is looked at: not where the answer holds secrets that are shown once, nor where nobody is known.
fn is_repeatable(spec: &OperationSpec, route: RestRoute) -> bool {
    route.method != Method::Get && spec.right != crate::Right::Public
}

/// Whether a content is read or written on conditions.
pub(super) fn has_conditions(spec: &OperationSpec) -> bool {
    [Operation::FileRead, Operation::FileWrite, Operation::MessageAttachment]
        .iter()
        .any(|operation| operation.name() == spec.name)
}

/// Whether a part of a content can be read.
pub(super) fn has_ranges(spec: &OperationSpec) -> bool {
    [Operation::FileRead, Operation::BackupRead]
        .iter()
        .any(|operation| operation.name() == spec.name)
}

fn parameter(name: &str, description: &str, schema: &Value, example: &str) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": description,
        "schema": schema, "example": example })
}
