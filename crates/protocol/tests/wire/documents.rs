//! The OpenAPI document and the JSON Schema are whole and hang together.

use std::collections::HashSet;

use iris_protocol::{Data, Event, Method, Operation, Transport, openapi, schema_document};
use serde_json::Value;

/// Every value of `key` anywhere in the document.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            for (name, inner) in object {
                if name == key {
                    found.push(inner);
                }
                all(inner, key, found);
            }
        }
        Value::Array(list) => {
            for inner in list {
                all(inner, key, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn assert_references_resolve(document: &Value) {
    let mut references = Vec::new();
    all(document, "$ref", &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

/// The names in braces of a path template.
fn path_names(path: &str) -> Vec<&str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect()
}

#[test]
fn every_reference_resolves() {
    assert_references_resolve(&openapi("1.2.3"));
    assert_references_resolve(&schema_document());
}

#[test]
fn every_route_is_in_the_openapi_document() {
    let document = openapi("1.2.3");
    assert_eq!(document["info"]["version"], "1.2.3");
    for operation in Operation::ALL {
        let spec = operation.spec();
        let Some(route) = spec.rest else { continue };
        let object = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        assert_eq!(object["operationId"], spec.name);
        assert!(object["responses"][route.status.to_string()].is_object(), "{}", spec.name);
        let parameters = object["parameters"].as_array().unwrap();
        for (place, names) in [
            ("path", path_names(route.path)),
            ("query", route.query.iter().map(|(name, _)| *name).collect()),
        ] {
            let declared = parameters.iter().filter(|p| p["in"] == place);
            let declared: Vec<&str> = declared.map(|p| p["name"].as_str().unwrap()).collect();
            assert_eq!(declared, names, "{}", spec.name);
        }
    }
}

#[test]
fn operation_ids_are_unique() {
    let document = openapi("1");
    let mut ids = Vec::new();
    all(&document["paths"], "operationId", &mut ids);
    let unique: HashSet<&str> = ids.iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(unique.len(), ids.len());
}

#[test]
fn routes_name_fields_of_their_requests_and_responses() {
    let document = schema_document();
    for operation in Operation::ALL {
        let spec = operation.spec();
        let Some(route) = spec.rest else { continue };
        let schemas = &document["operations"][spec.name];
        let in_query = route.query.iter().map(|(name, _)| *name);
        for name in path_names(route.path).into_iter().chain(in_query) {
            let known = schemas["request"]["properties"].get(name).is_some();
            assert!(known || name == "projectId", "`{name}` of `{}`", spec.name);
        }
        match route.data {
            Data::Field(name) | Data::List(name) | Data::Upload(name) => {
                assert!(schemas["response"]["properties"].get(name).is_some(), "{}", spec.name);
            }
            Data::Whole | Data::Bytes => {}
        }
    }
}

#[test]
fn reading_routes_have_no_body_and_no_two_routes_are_the_same() {
    let document = openapi("1");
    let mut routes = HashSet::new();
    for operation in Operation::ALL {
        let spec = operation.spec();
        let Some(route) = spec.rest else {
            assert_eq!(spec.transport, Transport::Socket, "`{}` cannot be reached", spec.name);
            continue;
        };
        assert!(routes.insert((route.method.as_str(), route.path)), "{}", spec.name);
        let object = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        match route.method {
            Method::Get | Method::Delete => assert!(object["requestBody"].is_null()),
            Method::Post | Method::Put | Method::Patch => {}
        }
        let mut required = Vec::new();
        all(&object["requestBody"], "required", &mut required);
        let elsewhere = path_names(route.path);
        for names in required.into_iter().filter_map(Value::as_array) {
            let twice = names.iter().find(|name| elsewhere.iter().any(|other| *name == other));
            assert_eq!(twice, None, "{}", spec.name);
        }
    }
}

#[test]
fn the_schema_document_has_every_operation_and_event() {
    let document = schema_document();
    let operations: Vec<_> = document["operations"].as_object().unwrap().keys().collect();
    let names: Vec<_> = Operation::ALL.iter().map(|operation| operation.name()).collect();
    assert_eq!(operations, names);
    let mut tags = Vec::new();
    all(&document["events"], "const", &mut tags);
    let tags: HashSet<&str> = tags.into_iter().filter_map(Value::as_str).collect();
    for (name, _) in Event::NAMES {
        assert!(tags.contains(name), "`{name}` is missing");
    }
}
