//! JSON Schema of the wire, made from the types and the table of operations.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    ConnectionFrame, Deprecations, Event, EventFrame, Operation, RequestFrame, ResponseFrame,
};

/// JSON Schema (draft 2020-12) of every operation's request and response, of every event, and of the
/// frames that they travel in.
pub fn schema_document() -> Value {
    schema_document_of(Deprecations::CURRENT)
}

/// The same where other operations are deprecated.
pub fn schema_document_of(deprecations: Deprecations) -> Value {
    let mut generator = generator("/$defs");
    let mut operations = Map::new();
    for operation in Operation::ALL {
        let spec = operation.spec();
        let request = (spec.request_schema)(&mut generator);
        let response = (spec.response_schema)(&mut generator);
        let transport = spec.transport.as_str();
        let mut described =
            json!({ "transport": transport, "request": request, "response": response });
        if deprecations.of(*operation).is_some() {
            set(&mut described, "deprecated", Value::Bool(true));
        }
        operations.insert(spec.name.to_owned(), described);
    }
    let events = Event::json_schema(&mut generator);
    let frames = frames(&mut generator);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Iris wire protocol, version 1",
        "operations": operations,
        "events": events,
        "frames": frames,
        "$defs": generator.take_definitions(true),
    })
}

/// What stands on a socket or in an event stream: the envelopes, then the frames of the connection.
fn frames(generator: &mut SchemaGenerator) -> Map<String, Value> {
    let response = schema::<ResponseFrame>(generator);
    let mut frames = Map::new();
    frames.insert("request".to_owned(), schema::<RequestFrame>(generator));
    frames.insert("response".to_owned(), success(response.clone(), Value::Bool(true)));
    frames.insert("error".to_owned(), failure(response));
    frames.insert("event".to_owned(), schema::<EventFrame>(generator));
    frames.extend(connection_frames(generator));
    frames
}

/// The frames of the connection, by their type.
pub(crate) fn connection_frames(generator: &mut SchemaGenerator) -> Vec<(String, Value)> {
    by_type(&schema::<ConnectionFrame>(generator))
}

/// The variants of a schema that are told apart by a constant `type`.
pub(crate) fn by_type(union: &Value) -> Vec<(String, Value)> {
    let variants = union.get("oneOf").and_then(Value::as_array);
    let named = variants.into_iter().flatten().filter_map(|variant| {
        let name = variant.pointer("/properties/type/const")?.as_str()?;
        Some((name.to_owned(), variant.clone()))
    });
    named.collect()
}

/// The schema of a response frame that brings `payload`.
pub(crate) fn success(mut response: Value, payload: Value) -> Value {
    set(&mut response, "description", json!("The answer to a request that was done."));
    fix_response(&mut response, true);
    set_property(
        &mut response,
        "id",
        json!({ "description": "The request's id.", "type": "string" }),
    );
    set_property(&mut response, "payload", payload);
    remove_property(&mut response, "error");
    require(&mut response, "payload");
    response
}

/// The schema of a response frame that brings an error.
pub(crate) fn failure(mut response: Value) -> Value {
    set(&mut response, "description", json!("The answer to a request that was not done."));
    fix_response(&mut response, false);
    for absent in ["payload", "seq"] {
        remove_property(&mut response, absent);
    }
    let error = response.pointer("/properties/error/anyOf/0").cloned().unwrap_or_default();
    set_property(&mut response, "error", error);
    require(&mut response, "error");
    response
}

fn fix_response(response: &mut Value, is_success: bool) {
    set_property(response, "type", json!({ "type": "string", "const": "response" }));
    set_property(response, "success", json!({ "type": "boolean", "const": is_success }));
    require(response, "id");
}

pub(crate) fn generator(definitions_path: &'static str) -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = definitions_path.into())
        .into_generator()
}

/// The schema of a type itself, where a reference to it would be in the way.
pub(crate) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    T::json_schema(generator).to_value()
}

pub(crate) fn set(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(key.to_owned(), value);
    }
}

pub(crate) fn set_property(schema: &mut Value, name: &str, property: Value) {
    if let Some(properties) = schema.get_mut("properties") {
        set(properties, name, property);
    }
}

fn remove_property(schema: &mut Value, name: &str) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove(name);
    }
}

pub(crate) fn require(schema: &mut Value, name: &str) {
    let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) else {
        return set(schema, "required", json!([name]));
    };
    if !required.iter().any(|known| known == name) {
        required.push(json!(name));
    }
}
