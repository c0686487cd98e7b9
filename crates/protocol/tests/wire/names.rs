//! Names are promises: a change of the wire shows as a change of a snapshot.

use std::fmt::Write as _;

use iris_protocol::{
    Data, ErrorCode, Event, Operation, OperationSpec, Right, Role, Transport, schema_document,
};
use serde_json::{Value, json};

#[test]
fn names_of_operations() {
    let document = schema_document();
    let mut text = String::new();
    for operation in Operation::ALL {
        let spec = operation.spec();
        assert_eq!(Operation::from_name(spec.name), Some(*operation));
        let schemas = &document["operations"][spec.name];
        writeln!(text, "{}", line(spec)).unwrap();
        writeln!(text, "  {} -> {}", shape(&schemas["request"]), shape(&schemas["response"]))
            .unwrap();
    }
    insta::assert_snapshot!(text);
}

fn line(spec: &OperationSpec) -> String {
    let transport = match spec.transport {
        Transport::Any => "any",
        Transport::Rest => "rest only",
        Transport::Socket => "socket only",
    };
    let head = format!("{} | {} | {transport}", spec.name, right(spec.right));
    let Some(route) = spec.rest else { return head };
    let data = match route.data {
        Data::Whole => "data".to_owned(),
        Data::Field(name) => format!("data = {name}"),
        Data::List(name) => format!("data = {name}, meta"),
        Data::Bytes(_) | Data::Upload(_) => "bytes".to_owned(),
        Data::Form(name) => format!("form, data = {name}"),
        Data::Document => "document".to_owned(),
        Data::Redirect => "redirect".to_owned(),
    };
    let query: Vec<&str> = route.query.iter().map(|(name, _)| *name).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    let (method, path, status) = (route.method.as_str(), route.path, route.status);
    format!("{head} | {method} {path}{query} {status} {data}")
}

fn right(right: Right) -> &'static str {
    match right {
        Right::Public => "public",
        Right::User => "user",
        Right::Project(Role::Viewer) => "viewer",
        Right::Project(Role::Member) => "member",
        Right::Project(Role::Admin) => "admin",
        Right::Project(Role::Owner) => "owner",
        Right::Admin => "server admin",
    }
}

/// A schema in one line: `{a: string, b?: Type}`, `"x" | "y"`, `[Type]`.
fn shape(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        let more = fields(schema).map(|fields| format!(" + {fields}")).unwrap_or_default();
        return format!("{name}{more}");
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(list) = schema[key].as_array() {
            return list.iter().map(shape).collect::<Vec<_>>().join(" | ");
        }
    }
    if let Some(list) = schema["enum"].as_array() {
        return list.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    if !schema["const"].is_null() {
        return schema["const"].to_string();
    }
    if let Some(fields) = fields(schema) {
        return fields;
    }
    let plain = |name: &Value| match name.as_str().unwrap() {
        "array" => format!("[{}]", shape(&schema["items"])),
        "object" => "{}".to_owned(),
        name => name.to_owned(),
    };
    match &schema["type"] {
        Value::Array(names) => names.iter().map(plain).collect::<Vec<_>>().join(" | "),
        name @ Value::String(_) => plain(name),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => "any".to_owned(),
    }
}

fn fields(schema: &Value) -> Option<String> {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let field = |(name, schema): (&String, &Value)| {
        let mark = if required.contains(&json!(name)) { "" } else { "?" };
        format!("{name}{mark}: {}", shape(schema))
    };
    let fields: Vec<String> = schema["properties"].as_object()?.iter().map(field).collect();
    Some(format!("{{{}}}", fields.join(", ")))
}

#[test]
fn names_of_types() {
    let document = schema_document();
    let mut lines: Vec<String> = Vec::new();
    for (name, schema) in document["$defs"].as_object().unwrap() {
        lines.push(format!("{name} = {}", shape(schema)));
    }
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn names_of_events() {
    let mut lines = Vec::new();
    for spec in Event::ALL {
        let rooms: Vec<_> = spec.rooms.iter().map(|room| room.as_str()).collect();
        lines.push(format!("{} | {} | {}", spec.name, spec.kind.as_str(), rooms.join(", ")));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn names_of_frames() {
    let document = schema_document();
    let frames = document["frames"].as_object().unwrap().iter();
    let lines: Vec<_> =
        frames.map(|(name, schema)| format!("{name} = {}", fields(schema).unwrap())).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn names_of_error_codes() {
    let mut lines = Vec::new();
    for code in ErrorCode::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), json!(code.as_str()));
        let retry = if code.is_retryable() { " retryable" } else { "" };
        lines.push(format!("{code} {}{retry}", code.http_status()));
    }
    insta::assert_snapshot!(lines.join("\n"));
}
