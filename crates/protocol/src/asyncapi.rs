//! The AsyncAPI document of the WebSocket, made from the tables of operations and events.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use crate::openapi::right_text;
use crate::schema::{
    by_type, connection_frames, failure, generator, require, schema, set, set_property, success,
};
use crate::{
    Deprecations, Event, EventKind, EventMeta, EventSpec, Operation, OperationSpec, RequestFrame,
    ResponseFrame, Right, Transport,
};

/// Where the messages of the socket stand in the document.
const MESSAGES: &str = "#/channels/socket/messages";
/// The message with which every request may be answered.
const FAILURE: &str = "response.failure";
/// The frames of event streams, which no WebSocket gets.
const OF_STREAMS: &[&str] = &["subscribed", "closing"];

/// The AsyncAPI 3.0 document of `/v1/ws` (asyncapi.com/docs/reference/specification/v3.0.0), from the
/// side of the server: it receives requests, each answered by one response, and sends events.
pub fn asyncapi(version: &str) -> Value {
    asyncapi_of(version, Deprecations::CURRENT)
}

/// The same where other operations are deprecated.
pub fn asyncapi_of(version: &str, deprecations: Deprecations) -> Value {
    let mut generator = generator("/components/schemas");
    let mut document = Document::default();
    let response = schema::<ResponseFrame>(&mut generator);
    document.message(
        FAILURE,
        "The answer to a request that was not done.",
        &failure(response.clone()),
    );
    for operation in Operation::ALL {
        let spec = operation.spec();
        match spec.transport {
            Transport::Any | Transport::Socket => {
                document.request(spec, &response, &mut generator);
                if deprecations.of(*operation).is_some() {
                    document.deprecate(spec.name);
                }
            }
            Transport::Rest => {}
        }
    }
    document.events(&mut generator);
    for (name, frame) in connection_frames(&mut generator) {
        if !OF_STREAMS.contains(&name.as_str()) {
            document.sent(&name, &frame, json!({}));
        }
    }
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:iris:wire:1",
        "info": {
            "title": "Iris",
            "version": version,
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": { "local": {
            "host": "127.0.0.1:4747",
            "protocol": "ws",
            "description": "The default address; behind a proxy that speaks TLS it is wss.",
            "security": [
                { "$ref": "#/components/securitySchemes/bearer" },
                { "$ref": "#/components/securitySchemes/ticket" },
            ],
        } },
        "channels": { "socket": {
            "address": "/v1/ws",
            "title": "The WebSocket",
            "description": "Every frame is one JSON object. Who can send no header brings a ticket, or `hello` as the first frame.",
            "messages": document.messages,
        } },
        "operations": document.operations,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "ticket": { "type": "httpApiKey", "in": "query", "name": "ticket" },
            },
        },
    })
}

#[derive(Default)]
struct Document {
    messages: Map<String, Value>,
    operations: Map<String, Value>,
}

impl Document {
    fn message(&mut self, name: &str, summary: &str, payload: &Value) {
        let message = json!({ "name": name, "summary": summary, "payload": payload });
        self.messages.insert(name.to_owned(), message);
    }

    /// An operation with its request and its response.
    fn request(&mut self, spec: &OperationSpec, response: &Value, generator: &mut SchemaGenerator) {
        let (asks, answers) = (format!("{}.request", spec.name), format!("{}.response", spec.name));
        let frame = request_frame(spec, generator);
        self.message(&asks, spec.summary, &frame);
        let payload = (spec.response_schema)(generator).to_value();
        let summary = format!("Answers `{}`.", spec.name);
        self.message(&answers, &summary, &success(response.clone(), payload));
        self.operations.insert(
            spec.name.to_owned(),
            json!({
                "action": "receive",
                "channel": { "$ref": "#/channels/socket" },
                "summary": spec.summary,
                "description": right_text(spec.right),
                "messages": [{ "$ref": format!("{MESSAGES}/{asks}") }],
                "reply": {
                    "channel": { "$ref": "#/channels/socket" },
                    "messages": [
                        { "$ref": format!("{MESSAGES}/{answers}") },
                        { "$ref": format!("{MESSAGES}/{FAILURE}") },
                    ],
                },
            }),
        );
    }

    /// Says that an operation is deprecated, where the specification has a word for it: in the schema of its
    /// request.
    fn deprecate(&mut self, name: &str) {
        let request = self.messages.get_mut(&format!("{name}.request"));
        if let Some(payload) = request.and_then(|message| message.get_mut("payload")) {
            set(payload, "deprecated", Value::Bool(true));
        }
    }

    fn events(&mut self, generator: &mut SchemaGenerator) {
        let variants = by_type(&schema::<Event>(generator));
        let meta = schema::<EventMeta>(generator);
        for (spec, (name, variant)) in Event::ALL.iter().zip(variants) {
            let rooms: Vec<_> = spec.rooms.iter().map(|room| room.as_str()).collect();
            let more = json!({ "x-iris-kind": spec.kind.as_str(), "x-iris-rooms": rooms });
            self.sent(&name, &event_frame(spec, &meta, &variant), more);
        }
    }

    /// A message that the server sends by itself, with what its operation says `more`. One that is called
    /// like an operation of clients stands under its name and `.event`.
    fn sent(&mut self, name: &str, frame: &Value, mut more: Value) {
        let is_taken = self.operations.contains_key(name);
        let name = &if is_taken { format!("{name}.event") } else { name.to_owned() };
        let summary = frame.get("description").and_then(Value::as_str).unwrap_or(name).to_owned();
        self.message(name, &summary, frame);
        let mut operation = json!({
            "action": "send",
            "channel": { "$ref": "#/channels/socket" },
            "summary": summary,
            "messages": [{ "$ref": format!("{MESSAGES}/{name}") }],
        });
        if let (Some(operation), Some(more)) = (operation.as_object_mut(), more.as_object_mut()) {
            operation.append(more);
        }
        self.operations.insert(name.to_owned(), operation);
    }
}

/// The envelope of a request, with the name of the operation and its own payload.
fn request_frame(spec: &OperationSpec, generator: &mut SchemaGenerator) -> Value {
    let mut frame = schema::<RequestFrame>(generator);
    let payload = (spec.request_schema)(generator).to_value();
    if payload.get("required").is_some() {
        require(&mut frame, "payload");
    }
    set_property(&mut frame, "type", json!({ "type": "string", "const": spec.name }));
    set_property(&mut frame, "payload", payload);
    match spec.right {
        Right::Project(_) => {}
        Right::Public | Right::User | Right::Admin => {
            let none = json!({ "description": "Ignored.", "type": ["string", "null"] });
            set_property(&mut frame, "projectId", none);
        }
    }
    frame
}

/// The envelope of an event, with what every event of its kind has.
fn event_frame(spec: &EventSpec, meta: &Value, variant: &Value) -> Value {
    let mut frame = meta.clone();
    for name in ["type", "payload"] {
        let property = variant.pointer(&format!("/properties/{name}")).cloned();
        set_property(&mut frame, name, property.unwrap_or_default());
        require(&mut frame, name);
    }
    if let (Value::Object(frame), Some(description)) = (&mut frame, variant.get("description")) {
        frame.insert("description".to_owned(), description.clone());
    }
    let numbered: &[&str] = match spec.kind {
        EventKind::Durable => &["projectId", "seq", "prev", "at"],
        EventKind::Ephemeral => &[],
    };
    for name in numbered {
        let schema = frame.pointer_mut(&format!("/properties/{name}"));
        if let Some(schema) = schema {
            not_null(schema);
        }
        require(&mut frame, name);
    }
    frame
}

/// What is always there is not null.
fn not_null(schema: &mut Value) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|r#type| r#type != "null");
    }
    if let Some(Value::Array(any)) = schema.get_mut("anyOf") {
        any.retain(|schema| schema.get("type").is_none_or(|r#type| r#type != "null"));
    }
}
