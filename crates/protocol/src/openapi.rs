//! The OpenAPI document of the REST routes, made from the operations table.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::schema::{generator, set};
use crate::{ApiError, Data, Operation, OperationSpec, QueryKind, RestRoute, Right, Role};

/// The OpenAPI 3.1 document of every REST route (spec.openapis.org/oas/v3.1.0).
pub fn openapi(version: &str) -> Value {
    let mut generator = generator("/components/schemas");
    let error = reference::<ApiError>(&mut generator);
    let mut paths: Map<String, Value> = Map::new();
    for operation in Operation::ALL {
        let spec = operation.spec();
        let Some(route) = spec.rest else { continue };
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            let method = route.method.as_str().to_lowercase();
            item.insert(method, route_object(spec, route, &error, &mut generator));
        }
    }
    add_fixed_routes(&mut paths, &error);
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Iris", "version": version, "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" } },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "ticket": { "type": "apiKey", "in": "query", "name": "ticket" },
            },
        },
    })
}

fn reference<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn route_object(
    spec: &OperationSpec,
    route: RestRoute,
    error: &Value,
    generator: &mut SchemaGenerator,
) -> Value {
    let request = (spec.request_schema)(generator).to_value();
    let response = (spec.response_schema)(generator);
    let mut object = json!({
        "operationId": spec.name,
        "summary": spec.summary,
        "description": right_text(spec.right),
        "tags": [spec.name.split('.').next().unwrap_or(spec.name)],
        "parameters": parameters(route, &request),
        "responses": {
            (route.status.to_string()): success(route, &response),
            "default": { "description": "The error.", "content": json_content(&json!({
                "type": "object", "properties": { "error": error }, "required": ["error"] })) },
        },
    });
    if matches!(spec.name, "usage.get" | "admin.usage.get") {
        let status = object.pointer_mut(&format!("/responses/{}/content", route.status));
        if let Some(content) = status {
            set(content, "text/csv", json!({}));
        }
    }
    if spec.name == "auth.oauth.callback"
        && let Some(responses) = object.get_mut("responses")
    {
        set(responses, "303", redirect());
    }
    if let Some(body) = request_body(route, request) {
        set(&mut object, "requestBody", body);
    }
    if spec.right != Right::Public {
        set(&mut object, "security", json!([{ "bearer": [] }]));
    }
    object
}

pub(crate) fn right_text(right: Right) -> String {
    match right {
        Right::Public => "Needs no access token.".to_owned(),
        Right::User => "Needs an access token.".to_owned(),
        Right::Admin => "Needs an access token of an administrator of the server.".to_owned(),
        Right::Project(role) => {
            let role = match role {
                Role::Viewer => "viewer",
                Role::Member => "member",
                Role::Admin => "admin",
                Role::Owner => "owner",
            };
            format!(
                "Needs the role `{role}` or a higher one in the project; answers 404 to everybody else."
            )
        }
    }
}

fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

fn parameters(route: RestRoute, request: &Value) -> Vec<Value> {
    let property = |name: &str| {
        let schema = request.pointer(&format!("/properties/{name}"));
        schema.cloned().unwrap_or_else(|| json!({ "type": "string" }))
    };
    let in_path = path_names(route.path).map(
        |name| json!({ "name": name, "in": "path", "required": true, "schema": property(name) }),
    );
    let in_query = route.query.iter().map(|(name, kind)| {
        let r#type = match kind {
            QueryKind::Text => "string",
            QueryKind::Integer => "integer",
            QueryKind::Boolean => "boolean",
        };
        let required = request.get("required").and_then(Value::as_array);
        let required = required.is_some_and(|names| names.iter().any(|n| n == name));
        json!({ "name": name, "in": "query", "required": required, "schema": { "type": r#type } })
    });
    in_path.chain(in_query).collect()
}

fn request_body(route: RestRoute, mut request: Value) -> Option<Value> {
    let bytes = json!({ "required": true, "content": { "application/octet-stream": {} } });
    match (route.method, route.data) {
        (crate::Method::Get, _) => return None,
        (_, Data::Upload(_)) => return Some(bytes),
        (_, Data::Form(_)) => return Some(form()),
        (
            _,
            Data::Bytes(_)
            | Data::Document
            | Data::Redirect
            | Data::Whole
            | Data::Field(_)
            | Data::List(_),
        ) => {}
    }
    let elsewhere: Vec<&str> =
        path_names(route.path).chain(route.query.iter().map(|(name, _)| *name)).collect();
    if let Some(Value::Object(properties)) = request.get_mut("properties") {
        properties.retain(|name, _| !elsewhere.contains(&name.as_str()));
    }
    if let Some(Value::Array(required)) = request.get_mut("required") {
        required.retain(|name| !elsewhere.iter().any(|other| name == other));
    }
    let is_empty = request.get("properties").and_then(Value::as_object).is_none_or(Map::is_empty);
    if is_empty {
        return None;
    }
    // An empty body counts as `{}`.
    let required = request.get("required").and_then(Value::as_array).is_some_and(|r| !r.is_empty());
    Some(json!({ "required": required, "content": json_content(&request) }))
}

fn success(route: RestRoute, response: &Schema) -> Value {
    let property = |name: &str| {
        let schema = response.as_value().pointer(&format!("/properties/{name}"));
        schema.cloned().unwrap_or(Value::Bool(true))
    };
    let mut properties = Map::new();
    match route.data {
        Data::Bytes(media_type) => {
            return json!({ "description": "The bytes.", "content": { (media_type): {} } });
        }
        Data::Document => {
            return json!({ "description": "The document.", "content": { "application/json": {}, "text/markdown": {}, "text/plain": {} } });
        }
        Data::Redirect => return redirect(),
        Data::Whole => properties.insert("data".to_owned(), response.as_value().clone()),
        Data::Field(name) | Data::Upload(name) | Data::Form(name) => {
            properties.insert("data".to_owned(), property(name))
        }
        Data::List(name) => {
            let all = response.as_value().get("properties").and_then(Value::as_object);
            let rest = all.into_iter().flatten().filter(|(key, _)| *key != name);
            let mut rest: Map<String, Value> = rest.map(|(k, v)| (k.clone(), v.clone())).collect();
            rest.entry("nextCursor").or_insert_with(|| json!({ "type": ["string", "null"] }));
            rest.entry("hasMore").or_insert_with(|| json!({ "type": "boolean" }));
            let meta = json!({ "type": "object", "properties": rest,
                "required": ["nextCursor", "hasMore"] });
            properties.insert("meta".to_owned(), meta);
            properties.insert("data".to_owned(), property(name))
        }
    };
    let mut required = vec!["data"];
    required.extend(properties.contains_key("meta").then_some("meta"));
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    json!({ "description": "Success.", "content": json_content(&schema) })
}

fn redirect() -> Value {
    let location = json!({ "required": true, "schema": { "type": "string", "format": "uri" } });
    json!({ "description": "Where the browser goes.", "headers": { "Location": location } })
}

/// A form with files: those in fields named `file` say their paths in `filename`, others by their names.
fn form() -> Value {
    let file = json!({ "type": "string", "format": "binary" });
    let schema = json!({
        "type": "object",
        "properties": {
            "directory": { "type": "string" },
            "file": { "type": "array", "items": &file },
        },
        "additionalProperties": file,
    });
    json!({ "required": true, "content": { "multipart/form-data": { "schema": schema } } })
}

fn json_content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

/// Routes that are no operations: the command envelope, health and the documents themselves.
fn add_fixed_routes(paths: &mut Map<String, Value>, error: &Value) {
    let plain = |id: &str, summary: &str| {
        json!({ "get": { "operationId": id, "summary": summary, "responses": {
            "200": { "description": "Success." },
            "default": { "description": "The error.", "content": json_content(error) } } } })
    };
    paths.insert("/health/live".into(), plain("health.live", "Whether the process answers."));
    paths.insert("/health/ready".into(), plain("health.ready", "Whether it takes work."));
    paths.insert("/v1/openapi.json".into(), plain("openapi", "This document."));
    paths.insert("/v1/asyncapi.json".into(), plain("asyncapi", "The WebSocket as AsyncAPI."));
    paths.insert("/v1/schema.json".into(), plain("schema", "JSON Schema of the wire."));
    paths.insert("/v1/projects/{projectId}/events".into(), event_stream(error));
    paths.insert(
        "/v1/commands".into(),
        json!({ "post": {
            "operationId": "commands",
            "summary": "Runs one operation given in the WebSocket envelope.",
            "security": [{ "bearer": [] }],
            "requestBody": { "required": true, "content": json_content(&json!({ "type": "object" })) },
            "responses": {
                "200": { "description": "The response frame." },
                "default": { "description": "The response frame with the error.", "content": json_content(&json!({ "type": "object" })) } } } }),
    );
}

fn event_stream(error: &Value) -> Value {
    let parameter = |name: &str, place: &str, r#type: &str| {
        let required = matches!(name, "projectId" | "rooms");
        json!({ "name": name, "in": place, "required": required, "schema": { "type": r#type } })
    };
    json!({ "get": {
        "operationId": "events",
        "summary": "Follows rooms of a project as an event stream (SSE).",
        "description": right_text(Right::Project(Role::Viewer)),
        "security": [{ "bearer": [] }, { "ticket": [] }],
        "parameters": [
            parameter("projectId", "path", "string"),
            parameter("rooms", "query", "string"),
            parameter("since", "query", "string"),
            parameter("deltas", "query", "boolean"),
            parameter("presence", "query", "boolean"),
            parameter("Last-Event-ID", "header", "string"),
        ],
        "responses": {
            "200": { "description": "The events.", "content": { "text/event-stream": {} } },
            "default": { "description": "The error.", "content": json_content(&json!({
                "type": "object", "properties": { "error": error }, "required": ["error"] })) } } } })
}
