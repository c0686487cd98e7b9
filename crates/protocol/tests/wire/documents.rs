//! OpenAPI, AsyncAPI and JSON Schema are whole and hang together.

use std::collections::HashSet;
use std::fmt::Write as _;

use iris_protocol::{
    AuthExpiry, Closing, Command, Connected, ConnectionFrame, ConnectionId, ConnectionLimits, Data,
    Deprecation, Deprecations, Draining, ErrorCode, Event, EventKind, Heartbeat, MaintenanceNotice,
    Method, Operation, ProjectId, ServerFrame, SubscribePayload, TransferFailure, Transport,
    UserId, asyncapi, asyncapi_of, openapi, openapi_of, schema_document, schema_document_of,
};
use serde_json::{Value, json};

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
    assert_references_resolve(&asyncapi("1.2.3"));
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

/// Each object of a path with its method.
fn objects(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let paths = document["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().unwrap().iter();
        item.map(move |(method, object)| (format!("{method} {path}"), object))
    })
}

/// Every example of a document with the schema that it stands beside, by its place.
fn examples(document: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (place, object) in objects(document) {
        for parameter in object["parameters"].as_array().into_iter().flatten() {
            found.push((format!("{place}, {}", parameter["name"]), parameter));
        }
        let body = object["requestBody"]["content"].as_object().into_iter().flatten();
        found.extend(body.map(|(media, it)| (format!("{place}, body, {media}"), it)));
        for (status, response) in object["responses"].as_object().unwrap() {
            let content = response["content"].as_object().into_iter().flatten();
            found.extend(content.map(|(media, it)| (format!("{place}, {status}, {media}"), it)));
        }
    }
    for (name, response) in document["components"]["responses"].as_object().unwrap() {
        found.push((name.clone(), &response["content"]["application/json"]));
    }
    found
}

#[test]
fn every_parameter_body_and_answer_has_an_example_that_is_valid() {
    let document = openapi("1");
    let (mut schemas, mut instance) = (json!({}), json!({}));
    for (place, described) in examples(&document) {
        let Some(schema) = described.get("schema") else {
            // A document may be of any of its types.
            let is_document = place.contains("/export,") || place.contains("/metrics,");
            assert!(!place.ends_with("application/json") || is_document, "{place}");
            continue;
        };
        let example = described.get("example").unwrap_or_else(|| panic!("{place} has no example"));
        schemas[&place] = schema.clone();
        instance[&place] = example.clone();
    }
    let definitions = &document["components"]["schemas"];
    let schema = json!({ "properties": schemas, "components": { "schemas": definitions } });
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let wrong: Vec<_> = validator
        .iter_errors(&instance)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn requests_of_examples_can_be_read() {
    let document = openapi("1");
    for operation in Operation::ALL {
        let Some(route) = operation.spec().rest else { continue };
        let object = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        if matches!(route.data, Data::Upload(_) | Data::Form(_)) {
            continue;
        }
        let mut request = object["requestBody"]["content"]["application/json"]["example"].clone();
        if request.is_null() {
            request = json!({});
        }
        for parameter in object["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] != "header" && name != "projectId" {
                request[name] = parameter["example"].clone();
            }
        }
        // Where it says two things that exclude each other, the server says so, not the reader.
        let read = Command::decode(*operation, request.clone());
        assert!(read.is_ok(), "{}: {read:?} {request}", operation.name());
    }
}

#[test]
fn every_error_code_is_told_with_its_status_and_every_route_names_those_it_may_give() {
    let document = openapi("1");
    let responses = document["components"]["responses"].as_object().unwrap();
    for code in ErrorCode::ALL {
        let response = &responses[&format!("Error{}", code.http_status())];
        let mut enums = Vec::new();
        all(response, "enum", &mut enums);
        let is_told = enums.iter().any(|codes| {
            codes.as_array().is_some_and(|codes| codes.contains(&json!(code.as_str())))
        });
        assert!(is_told, "{}", code.as_str());
    }
    for (place, object) in objects(&document) {
        let told = object["responses"].as_object().unwrap();
        assert!(told.contains_key("default"), "{place}");
        let needs_token = object["security"].as_array().is_some();
        if place.contains("/v1/") && needs_token && !place.ends_with("/v1/commands") {
            assert!(told.contains_key("401") && told.contains_key("429"), "{place}");
        }
        if place.contains("{projectId}") {
            assert!(told.contains_key("404") && told.contains_key("403"), "{place}");
        }
    }
}

#[test]
fn contents_are_described_with_their_conditions_and_ranges() {
    let document = openapi("1");
    let content = &document["paths"]["/v1/projects/{projectId}/files/content"];
    for method in ["get", "head", "put"] {
        let parameters = content[method]["parameters"].as_array().unwrap();
        let names: Vec<_> = parameters.iter().map(|it| it["name"].as_str().unwrap()).collect();
        let is_read = method != "put";
        assert!(names.contains(&"If-Match") && names.contains(&"If-None-Match"), "{names:?}");
        assert_eq!(names.contains(&"Range"), is_read, "{method}");
        assert_eq!(names.contains(&"Idempotency-Key"), !is_read, "{method}");
        assert_eq!(content[method]["responses"]["304"].is_object(), is_read, "{method}");
        assert_eq!(content[method]["responses"]["206"].is_object(), method == "get");
    }
    assert!(content["get"]["responses"]["200"]["headers"]["ETag"].is_object());
    let busy = &document["components"]["responses"]["Error429"]["headers"]["Retry-After"];
    assert!(busy.is_object());
}

#[test]
fn what_is_deprecated_is_so_in_every_document() {
    const OLD: Deprecations = Deprecations::new(&[(
        Operation::SessionList,
        Deprecation { since: 1, sunset: Some(2), instead: Some(Operation::SessionSearch) },
    )]);
    let document = openapi_of("1", OLD);
    let old: Vec<_> = objects(&document).filter(|(_, it)| it["deprecated"] == true).collect();
    assert_eq!(old.len(), 1);
    let (_, object) = &old[0];
    assert_eq!(object["operationId"], "session.list");
    assert_eq!(object["x-iris-deprecation"]["instead"], "session.search");
    let headers = &object["responses"]["200"]["headers"];
    assert!(headers["Deprecation"].is_object() && headers["Sunset"].is_object());
    let schemas = schema_document_of(OLD);
    assert_eq!(schemas["operations"]["session.list"]["deprecated"], true);
    let socket = asyncapi_of("1", OLD);
    let messages = &socket["channels"]["socket"]["messages"];
    assert_eq!(messages["session.list.request"]["payload"]["deprecated"], true);
    assert!(messages["session.get.request"]["payload"]["deprecated"].is_null());
    for document in [openapi("1"), asyncapi("1"), schema_document()] {
        let mut marks = Vec::new();
        all(&document, "deprecated", &mut marks);
        assert!(marks.is_empty());
    }
}

/// The document without what is made from the rest of it.
#[test]
fn the_openapi_document_is_as_it_was() {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(object) => {
                if object.contains_key("schema") || object.contains_key("content") {
                    object.remove("example");
                }
                object.values_mut().for_each(strip);
            }
            Value::Array(list) => list.iter_mut().for_each(strip),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut document = openapi("0");
    strip(&mut document);
    // A line for each route and each schema: a change shows where it is.
    let mut text = String::new();
    for (place, object) in objects(&document) {
        writeln!(text, "{place} {object}").unwrap();
    }
    for (kind, components) in document["components"].as_object().unwrap() {
        for (name, component) in components.as_object().unwrap() {
            writeln!(text, "{kind} {name} {component}").unwrap();
        }
    }
    insta::assert_snapshot!(text);
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
            Data::Field(name) | Data::List(name) | Data::Upload(name) | Data::Form(name) => {
                assert!(schemas["response"]["properties"].get(name).is_some(), "{}", spec.name);
            }
            Data::Whole | Data::Bytes(_) | Data::Document | Data::Redirect => {}
        }
    }
}

#[test]
fn bodies_stand_where_routes_take_them_and_no_two_routes_are_the_same() {
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
            Method::Get => assert!(object["requestBody"].is_null()),
            // Whoever deletes their account says their password, which stands in no URL.
            Method::Delete => {
                assert_eq!(object["requestBody"].is_null(), spec.name != "user.delete");
            }
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
    for spec in Event::ALL {
        assert!(tags.contains(spec.name), "`{}` is missing", spec.name);
    }
}

/// The message of the socket that `reference` means.
fn message<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let name = reference["$ref"].as_str().unwrap();
    let name = name.strip_prefix("#/channels/socket/messages/").unwrap();
    &document["channels"]["socket"]["messages"][name]
}

#[test]
fn every_operation_of_the_socket_is_in_the_asyncapi_document_with_its_answer() {
    let (document, schemas) = (asyncapi("1.2.3"), schema_document());
    assert_eq!(document["info"]["version"], "1.2.3");
    for operation in Operation::ALL {
        let spec = operation.spec();
        let object = &document["operations"][spec.name];
        if spec.transport == Transport::Rest {
            assert!(object.is_null(), "{}", spec.name);
            continue;
        }
        assert_eq!(object["action"], "receive", "{}", spec.name);
        let request = &message(&document, &object["messages"][0])["payload"];
        assert_eq!(request["properties"]["type"]["const"], spec.name);
        let response = &message(&document, &object["reply"]["messages"][0])["payload"];
        assert_eq!(response["properties"]["success"]["const"], true);
        // The payloads are those of the schema, which names the same definitions in another place.
        let placed = |schema: &Value| -> Value {
            let text = schema.to_string().replace("#/$defs/", "#/components/schemas/");
            serde_json::from_str(&text).unwrap()
        };
        for (frame, side) in [(request, "request"), (response, "response")] {
            let expected = placed(&schemas["operations"][spec.name][side]);
            assert_eq!(frame["properties"]["payload"], expected, "{}", spec.name);
        }
        let error = &message(&document, &object["reply"]["messages"][1])["payload"];
        assert_eq!(error["properties"]["success"]["const"], false);
    }
}

#[test]
fn every_event_is_in_the_asyncapi_document_with_kind_and_rooms() {
    let document = asyncapi("1");
    for spec in Event::ALL {
        // `mcp.status` is asked for and told.
        let is_asked = Operation::ALL.iter().any(|operation| operation.name() == spec.name);
        let key = if is_asked { format!("{}.event", spec.name) } else { spec.name.to_owned() };
        let object = &document["operations"][key];
        assert_eq!(object["action"], "send", "{}", spec.name);
        assert_eq!(object["x-iris-kind"], spec.kind.as_str());
        let rooms: Vec<_> = spec.rooms.iter().map(|room| room.as_str()).collect();
        assert_eq!(object["x-iris-rooms"], json!(rooms));
        let payload = &message(&document, &object["messages"][0])["payload"];
        assert_eq!(payload["properties"]["type"]["const"], spec.name);
        let is_numbered = payload["required"].as_array().unwrap().contains(&json!("seq"));
        assert_eq!(is_numbered, spec.kind == EventKind::Durable, "{}", spec.name);
    }
}

#[test]
fn every_frame_of_the_connection_is_in_the_documents_and_is_understood() {
    let payload = Connected {
        connection_id: ConnectionId::from_bits(1),
        user_id: UserId::from_bits(2),
        project_id: None,
        protocol: 1,
        version: "1".to_owned(),
        features: Vec::new(),
        limits: ConnectionLimits { frame_bytes_max: 1, requests_in_flight_max: 1, rooms_max: 1 },
        ping_interval_ms: 1,
        expires_at: 1,
    };
    let heartbeat = Heartbeat { rooms: [].into(), at: 1 };
    let of_sockets = [
        ConnectionFrame::Connected { payload },
        ConnectionFrame::Heartbeat { payload: heartbeat },
        ConnectionFrame::AuthExpiring { payload: AuthExpiry { expires_at: 1 } },
        ConnectionFrame::Draining { payload: Draining { retry_after_ms: 1 } },
        ConnectionFrame::Maintenance {
            payload: MaintenanceNotice { active: true, message: Some("an update".to_owned()) },
        },
        ConnectionFrame::TransferFailed {
            payload: TransferFailure { stream: 1, error: ErrorCode::NotFound.into() },
        },
    ];
    let subscribed = ConnectionFrame::Subscribed {
        project_id: ProjectId::from_bits(1),
        payload: SubscribePayload { rooms: Vec::new() },
    };
    let closing = Closing { code: 1000, reason: String::new() };
    let of_streams = [subscribed, ConnectionFrame::Closing { payload: closing }];
    let (schemas, document) = (schema_document(), asyncapi("1"));
    let mut names = vec!["request".to_owned(), "response".into(), "error".into(), "event".into()];
    for (frame, is_of_socket) in of_sockets
        .iter()
        .map(|frame| (frame, true))
        .chain(of_streams.iter().map(|frame| (frame, false)))
    {
        let json = serde_json::to_value(frame).unwrap();
        let name = json["type"].as_str().unwrap();
        assert_eq!(document["operations"][name].is_object(), is_of_socket, "{name}");
        let parsed = ServerFrame::parse(&json.to_string()).unwrap();
        assert_eq!(!matches!(parsed, ServerFrame::Unknown(_)), is_of_socket, "{name}");
        assert_eq!(serde_json::from_value::<ConnectionFrame>(json.clone()).unwrap(), *frame);
        names.push(name.to_owned());
    }
    let described: Vec<&String> = schemas["frames"].as_object().unwrap().keys().collect();
    assert_eq!(described, names.iter().collect::<Vec<_>>());
}
