//! Routes that are no operations: the socket, event streams, the command envelope, health, the documents.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::{any_error, errors, headers, json_content, reference, right_text};
use crate::schema::set;
use crate::{RequestFrame, ResponseFrame, Right, Role};

/// The documents that a server has of itself.
const DOCUMENTS: &[(&str, &str, &str)] = &[
    ("/v1/openapi.json", "openapi", "This document."),
    ("/v1/asyncapi.json", "asyncapi", "The WebSocket as AsyncAPI."),
    ("/v1/schema.json", "schema", "JSON Schema of the wire."),
];

pub(super) fn add(paths: &mut Map<String, Value>, error: &Value, generator: &mut SchemaGenerator) {
    let status = |words: &[&str]| json!({ "type": "string", "enum": words });
    let live = json!({ "type": "object", "properties": { "status": status(&["live"]) },
        "required": ["status"] });
    let ready = json!({
        "type": "object",
        "properties": {
            "status": status(&["ready"]),
            "storage": status(&["ok", "full"]),
            "sandbox": { "type": "string", "description": "How commands are run, `off` or `unavailable`." },
        },
        "required": ["status", "storage", "sandbox"],
    });
    let summary = "Whether the process answers.";
    paths.insert("/health/live".into(), told("health.live", summary, &live, error));
    let mut is_ready = told("health.ready", "Whether it takes work.", &ready, error);
    let not_ready = json!({ "$ref": "#/components/responses/Error503" });
    if let Some(responses) = is_ready.pointer_mut("/get/responses") {
        set(responses, "503", not_ready);
    }
    paths.insert("/health/ready".into(), is_ready);
    for (path, id, summary) in DOCUMENTS {
        let any = json!({ "type": "object" });
        paths.insert((*path).to_owned(), told(id, summary, &any, error));
    }
    paths.insert("/v1/ws".into(), socket(error));
    paths.insert("/v1/projects/{projectId}/events".into(), event_stream(error));
    paths.insert("/v1/commands".into(), commands(generator));
}

/// What the same route answers to `HEAD`: the head of its answer.
pub(super) fn head_of(get: &Value) -> Value {
    let mut head = get.clone();
    let id = get.get("operationId").and_then(Value::as_str).unwrap_or_default();
    set(&mut head, "operationId", json!(format!("{id}.head")));
    set(&mut head, "summary", json!("Says how long a file is and what, without the bytes."));
    if let Some(responses) = head.get_mut("responses").and_then(Value::as_object_mut) {
        // Of a head there are no ranges.
        responses.retain(|status, _| !matches!(status.as_str(), "206" | "416"));
        for response in responses.values_mut().filter_map(Value::as_object_mut) {
            response.remove("content");
        }
    }
    head
}

/// A route that tells anybody something.
fn told(id: &str, summary: &str, schema: &Value, error: &Value) -> Value {
    let mut responses = errors::of_anybody();
    let success = json!({ "description": "Success.", "headers": headers::of_any_answer(),
        "content": json_content(schema) });
    responses.insert("200".to_owned(), success);
    responses.insert("default".to_owned(), any_error(error));
    json!({ "get": {
        "operationId": id,
        "summary": summary,
        "description": right_text(Right::Public),
        "tags": ["server"],
        "responses": responses,
    } })
}

fn socket(error: &Value) -> Value {
    json!({ "get": {
        "operationId": "socket",
        "summary": "Opens a WebSocket, which the AsyncAPI document describes.",
        "description": "Who says nobody's name here says `hello` first.",
        "tags": ["server"],
        "security": [{ "bearer": [] }, { "ticket": [] }, {}],
        "responses": {
            "101": { "description": "It is a WebSocket from here on." },
            "400": { "$ref": "#/components/responses/Error400" },
            "401": { "$ref": "#/components/responses/Error401" },
            "429": { "$ref": "#/components/responses/Error429" },
            "default": any_error(error),
        },
    } })
}

fn commands(generator: &mut SchemaGenerator) -> Value {
    let request = reference::<RequestFrame>(generator);
    let response = json_content(&reference::<ResponseFrame>(generator));
    let id = "1";
    let body = json!({ "application/json": {
        "schema": request,
        "example": { "id": id, "type": "project.list", "payload": { "limit": 50 } },
    } });
    let mut done = response.clone();
    let mut failed = response;
    set_example(
        &mut done,
        json!({ "id": id, "type": "response", "success": true,
        "payload": { "projects": [], "nextCursor": null, "hasMore": false } }),
    );
    set_example(
        &mut failed,
        json!({ "id": id, "type": "response", "success": false,
        "error": { "code": "NOT_FOUND", "message": "project not found", "retryable": false } }),
    );
    json!({ "post": {
        "operationId": "commands",
        "summary": "Runs one operation given in the WebSocket envelope.",
        "description": "Needs an access token, and what the operation needs.",
        "tags": ["server"],
        "security": [{ "bearer": [] }],
        "requestBody": { "required": true, "content": body },
        "responses": {
            "200": { "description": "The response frame.", "headers": headers::of_any_answer(), "content": done },
            "default": { "description": "The response frame with the error, with its status.", "content": failed },
        },
    } })
}

fn set_example(content: &mut Value, example: Value) {
    if let Some(media) = content.get_mut("application/json") {
        set(media, "example", example);
    }
}

fn event_stream(error: &Value) -> Value {
    let parameter = |name: &str, place: &str, r#type: &str, example: Value| {
        let required = matches!(name, "projectId" | "rooms");
        json!({ "name": name, "in": place, "required": required, "schema": { "type": r#type },
            "example": example })
    };
    let project = "prj_0192f3a45b6c7d8e9f00112233445566";
    json!({ "get": {
        "operationId": "events",
        "summary": "Follows rooms of a project as an event stream (SSE).",
        "description": right_text(Right::Project(Role::Viewer)),
        "tags": ["server"],
        "security": [{ "bearer": [] }, { "ticket": [] }],
        "parameters": [
            parameter("projectId", "path", "string", json!(project)),
            parameter("rooms", "query", "string", json!(format!("project:{project}"))),
            parameter("since", "query", "string", json!("5f2a9c.17")),
            parameter("deltas", "query", "boolean", json!(false)),
            parameter("presence", "query", "boolean", json!(false)),
            parameter("Last-Event-ID", "header", "string", json!("5f2a9c.17")),
        ],
        "responses": {
            "200": { "description": "The events.", "headers": headers::of_any_answer(),
                "content": { "text/event-stream": { "schema": { "type": "string" },
                    "example": "id: 5f2a9c.18\nevent: session.status\ndata: {}\n\n" } } },
            "400": { "$ref": "#/components/responses/Error400" },
            "401": { "$ref": "#/components/responses/Error401" },
            "403": { "$ref": "#/components/responses/Error403" },
            "404": { "$ref": "#/components/responses/Error404" },
            "429": { "$ref": "#/components/responses/Error429" },
            "503": { "$ref": "#/components/responses/Error503" },
            "default": any_error(error),
        },
    } })
}
