//! The OpenAPI document of the REST routes, made from the operations table.

mod errors;
mod examples;
mod fixed;
mod headers;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use self::examples::example;
use crate::schema::{generator, set};
use crate::{
    ApiError, Data, Deprecation, Deprecations, Method, Operation, OperationSpec, ProjectId,
    QueryKind, RestRoute, Right, Role,
};

/// The OpenAPI 3.1 document of every REST route (spec.openapis.org/oas/v3.1.0).
pub fn openapi(version: &str) -> Value {
    openapi_of(version, Deprecations::CURRENT)
}

/// The same where other operations are deprecated.
pub fn openapi_of(version: &str, deprecations: Deprecations) -> Value {
    let mut generator = generator("/components/schemas");
    let error = reference::<ApiError>(&mut generator);
    let mut paths: Map<String, Value> = Map::new();
    for operation in Operation::ALL {
        let spec = operation.spec();
        let Some(route) = spec.rest else { continue };
        let deprecation = deprecations.of(*operation);
        let object = route_object(spec, route, deprecation, &error, &mut generator);
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        if *operation == Operation::FileRead {
            set(item, "head", fixed::head_of(&object));
        }
        set(item, &route.method.as_str().to_lowercase(), object);
    }
    fixed::add(&mut paths, &error, &mut generator);
    let schemas = generator.take_definitions(true);
    add_examples(&mut paths, &schemas);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Iris",
            "version": version,
            "description": "Every route of a server. Each answer of an operation has `data`, that of a list `meta` too; each error has `error`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": errors::components(&error),
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

/// The error in its envelope.
fn any_error(error: &Value) -> Value {
    json!({ "description": "Any other error.", "content": json_content(&json!({
        "type": "object", "properties": { "error": error }, "required": ["error"] })) })
}

/// Adds an example to each parameter, body and answer that is described by a schema and has none.
fn add_examples(paths: &mut Map<String, Value>, definitions: &Map<String, Value>) {
    let objects = paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    for object in objects {
        let parameters = object.get_mut("parameters").and_then(Value::as_array_mut);
        for parameter in parameters.into_iter().flatten() {
            let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            add_example(parameter, definitions, &name);
        }
        let content = object.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
        for media in content.into_iter().flat_map(Map::values_mut) {
            add_example(media, definitions, "");
        }
        let responses = object.get_mut("responses").and_then(Value::as_object_mut);
        for response in responses.into_iter().flat_map(Map::values_mut) {
            let content = response.get_mut("content").and_then(Value::as_object_mut);
            for media in content.into_iter().flat_map(Map::values_mut) {
                add_example(media, definitions, "");
            }
        }
    }
}

fn add_example(described: &mut Value, definitions: &Map<String, Value>, name: &str) {
    if described.get("example").is_some() {
        return;
    }
    let Some(schema) = described.get("schema") else { return };
    let made = example(schema, definitions, name);
    set(described, "example", made);
}

fn route_object(
    spec: &OperationSpec,
    route: RestRoute,
    deprecation: Option<Deprecation>,
    error: &Value,
    generator: &mut SchemaGenerator,
) -> Value {
    let request = (spec.request_schema)(generator).to_value();
    let response = (spec.response_schema)(generator);
    let mut parameters = parameters(route, &request, generator);
    parameters.extend(headers::of_request(spec, route));
    let mut object = json!({
        "operationId": spec.name,
        "summary": spec.summary,
        "description": right_text(spec.right),
        "tags": [spec.name.split('.').next().unwrap_or(spec.name)],
        "parameters": parameters,
        "responses": responses(spec, route, &response, deprecation, error),
    });
    if let Some(body) = request_body(route, request) {
        set(&mut object, "requestBody", body);
    }
    if spec.right != Right::Public {
        set(&mut object, "security", json!([{ "bearer": [] }]));
    }
    if let Some(deprecation) = deprecation {
        set(&mut object, "deprecated", json!(true));
        let instead = deprecation.instead.map(Operation::name);
        let told =
            json!({ "since": deprecation.since, "sunset": deprecation.sunset, "instead": instead });
        set(&mut object, "x-iris-deprecation", told);
    }
    object
}

/// Every answer of a route, by status.
fn responses(
    spec: &OperationSpec,
    route: RestRoute,
    response: &Schema,
    deprecation: Option<Deprecation>,
    error: &Value,
) -> Value {
    let mut responses = errors::of_route(spec, route);
    let mut success = success(route, response);
    if matches!(spec.name, "usage.get" | "admin.usage.get")
        && let Some(content) = success.get_mut("content")
    {
        set(content, "text/csv", json!({}));
    }
    add_headers(&mut success, headers::of_success(spec, route, deprecation));
    let is_read = route.method == Method::Get;
    if is_read && headers::has_ranges(spec) {
        let mut part = success.clone();
        set(&mut part, "description", json!("One range of the bytes."));
        let range = headers::text("Which bytes of how many.");
        add_headers(&mut part, [("Content-Range".to_owned(), range.clone())].into_iter().collect());
        responses.insert("206".to_owned(), part);
        let mut beyond = any_error(error);
        set(&mut beyond, "description", json!("The range is behind the end: `INVALID_REQUEST`."));
        add_headers(&mut beyond, [("Content-Range".to_owned(), range)].into_iter().collect());
        responses.insert("416".to_owned(), beyond);
    }
    if is_read && headers::has_conditions(spec) {
        let etag = headers::text("What the content is.");
        responses.insert(
            "304".to_owned(),
            json!({ "description": "It is what `If-None-Match` names.", "headers": { "ETag": etag } }),
        );
    }
    if spec.name == "auth.oauth.callback" {
        responses.insert("303".to_owned(), redirect());
    }
    responses.insert(route.status.to_string(), success);
    responses.insert("default".to_owned(), any_error(error));
    Value::Object(responses)
}

fn add_headers(response: &mut Value, more: Map<String, Value>) {
    match response.get_mut("headers").and_then(Value::as_object_mut) {
        Some(headers) => headers.extend(more),
        None => set(response, "headers", Value::Object(more)),
    }
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

fn parameters(route: RestRoute, request: &Value, generator: &mut SchemaGenerator) -> Vec<Value> {
    // It stands beside the request.
    let project_id = reference::<ProjectId>(generator);
    let property = |name: &str| {
        let schema = request.pointer(&format!("/properties/{name}"));
        schema.cloned().unwrap_or_else(|| project_id.clone())
    };
    let in_path = path_names(route.path).map(
        |name| json!({ "name": name, "in": "path", "required": true, "schema": property(name) }),
    );
    let in_query = route.query.iter().map(|(name, kind)| {
        let required = request.get("required").and_then(Value::as_array);
        let required = required.is_some_and(|names| names.iter().any(|n| n == name));
        let schema = query_schema(&property(name), *kind);
        json!({ "name": name, "in": "query", "required": required, "schema": schema })
    });
    in_path.chain(in_query).collect()
}

/// What a field of a request is where it stands in the query: it is there or not, and never null.
fn query_schema(property: &Value, kind: QueryKind) -> Value {
    let r#type = match kind {
        QueryKind::Text => "string",
        QueryKind::Integer => "integer",
        QueryKind::Boolean => "boolean",
    };
    let alternatives = property.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    let mut named = std::iter::once(property).chain(alternatives);
    if let Some(reference) = named.find_map(|schema| schema.get("$ref")) {
        return json!({ "$ref": reference });
    }
    let mut schema = property.clone();
    let has_type = match property.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == r#type),
        Some(kind) => kind == r#type,
        None => false,
    };
    if !has_type {
        return json!({ "type": r#type });
    }
    set(&mut schema, "type", json!(r#type));
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("default");
    }
    schema
}

fn request_body(route: RestRoute, mut request: Value) -> Option<Value> {
    let bytes = json!({ "required": true, "content": { "application/octet-stream": {} } });
    match (route.method, route.data) {
        (Method::Get, _) => return None,
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
