//! Requests: what is read, and what is refused with which reason.

use iris_protocol::limits::{DEADLINE_MS_MAX, IDEMPOTENCY_KEY_BYTES_MAX, REQUEST_ID_BYTES_MAX};
use iris_protocol::{
    ApiError, Command, ErrorCode, FrameError, Json, Operation, Ping, ProjectId, RequestFrame,
    ResponseFrame, ServerFrame,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(value: &Value) -> Result<RequestFrame, FrameError> {
    RequestFrame::parse(value.to_string().as_bytes())
}

/// The id and the reason with which a frame is refused.
fn refusal(text: &[u8]) -> (Option<String>, String) {
    let FrameError { id, error } = RequestFrame::parse(text).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    (id, error.details["reason"].as_str().unwrap().to_owned())
}

#[test]
fn a_request_is_read_whole() {
    let project_id = ProjectId::from_bits(1);
    let value = json!({ "id": "c-1", "type": "ping", "projectId": project_id, "payload": { "a": 1 },
        "idempotencyKey": "k", "deadlineMs": 5000, "new": true });
    let frame = RequestFrame {
        id: "c-1".to_owned(),
        r#type: "ping".to_owned(),
        project_id: Some(project_id),
        payload: json!({ "a": 1 }),
        idempotency_key: Some("k".to_owned()),
        deadline_ms: Some(5000),
    };
    assert_eq!(parse(&value).unwrap(), frame);
    assert_eq!(parse(&serde_json::to_value(&frame).unwrap()).unwrap(), frame);
}

#[test]
fn what_is_optional_may_be_absent_or_null() {
    let short = parse(&json!({ "id": "1", "type": "ping" })).unwrap();
    let long = json!({ "id": "1", "type": "ping", "projectId": null, "payload": null, "idempotencyKey": null,
        "deadlineMs": null });
    assert_eq!(parse(&long).unwrap(), short);
    let command = Command::decode(Operation::Ping, short.payload).unwrap();
    assert_eq!(command, Command::Ping(Ping {}));
}

#[test]
fn every_refusal_has_its_reason_and_the_id_when_there_is_one() {
    let mine = Some("1".to_owned());
    let cases: [(Value, Option<String>, &str); 13] = [
        (json!([]), None, "invalid_message"),
        (json!("ping"), None, "invalid_message"),
        (json!({ "type": "ping" }), None, "missing_id"),
        (json!({ "id": 1, "type": "ping" }), None, "invalid_message"),
        (json!({ "id": "", "type": "ping" }), None, "invalid_message"),
        (json!({ "id": "1" }), mine.clone(), "missing_type"),
        (json!({ "id": "1", "type": 2 }), mine.clone(), "missing_type"),
        (
            json!({ "id": "1", "type": "ping", "projectId": "x" }),
            mine.clone(),
            "invalid_project_id",
        ),
        (json!({ "id": "1", "type": "ping", "projectId": 2 }), mine.clone(), "invalid_project_id"),
        (
            json!({ "id": "1", "type": "ping", "idempotencyKey": "" }),
            mine.clone(),
            "invalid_message",
        ),
        (json!({ "id": "1", "type": "ping", "deadlineMs": 0 }), mine.clone(), "invalid_message"),
        (json!({ "id": "1", "type": "ping", "deadlineMs": "5" }), mine.clone(), "invalid_message"),
        (
            json!({ "id": "1", "type": "ping", "deadlineMs": DEADLINE_MS_MAX + 1 }),
            mine,
            "invalid_message",
        ),
    ];
    for (value, id, reason) in cases {
        assert_eq!(refusal(value.to_string().as_bytes()), (id, reason.to_owned()), "{value}");
    }
    for text in ["", "{", "nul", "{\"id\":\"\u{0}\"}", "{} {}"] {
        assert_eq!(refusal(text.as_bytes()), (None, "invalid_json".to_owned()), "{text}");
    }
    assert_eq!(refusal(b"\"\xff\""), (None, "invalid_json".to_owned()));
}

#[test]
fn nesting_without_end_is_refused() {
    let text = "[".repeat(100_000);
    assert_eq!(refusal(text.as_bytes()), (None, "invalid_json".to_owned()));
}

#[test]
fn ids_and_keys_may_be_as_long_as_the_limit() {
    let request = |id: usize, key: usize| {
        parse(&json!({ "id": "i".repeat(id), "type": "ping", "idempotencyKey": "k".repeat(key) }))
    };
    assert!(request(REQUEST_ID_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX).is_ok());
    assert!(request(REQUEST_ID_BYTES_MAX + 1, 1).is_err());
    assert!(request(1, IDEMPOTENCY_KEY_BYTES_MAX + 1).is_err());
}

#[test]
fn a_refusal_is_answered_with_the_id() {
    let refused = parse(&json!({ "id": "1" })).unwrap_err();
    let response = serde_json::to_value(ResponseFrame::from(refused)).unwrap();
    let error = json!({ "code": "INVALID_REQUEST", "message": "the request has no `type`",
        "retryable": false, "retryAfterMs": null, "details": { "reason": "missing_type" } });
    let expected = json!({ "id": "1", "type": "response", "success": false, "error": error });
    assert_eq!(response, expected);
}

#[test]
fn responses_survive_a_round_trip() {
    let success =
        ResponseFrame::success("1".to_owned(), Json::from(&json!({ "pong": 1 })), Some(812));
    let failure = ResponseFrame::failure(None, ApiError::not_found("session").retry_after(5));
    for frame in [success, failure] {
        let text = serde_json::to_string(&frame).unwrap();
        assert_eq!(serde_json::from_str::<ResponseFrame>(&text).unwrap(), frame);
    }
}

#[test]
fn a_response_is_read_whatever_stands_first_in_it() {
    let expected = ResponseFrame::success("1".to_owned(), Json::from(&json!([1])), None);
    let expected = ServerFrame::Response(Box::new(expected));
    for text in [
        r#"{"id":"1","type":"response","success":true,"payload":[1]}"#,
        r#"{"payload":[1], "type":"response","success":true,"id":"1"}"#,
    ] {
        assert_eq!(ServerFrame::parse(text).unwrap(), expected, "{text}");
    }
    let other = json!({ "id": "1", "type": "new" });
    assert_eq!(ServerFrame::parse(&other.to_string()).unwrap(), ServerFrame::Unknown(other));
    assert!(ServerFrame::parse(r#"{"id":"1","type":"response","success":1}"#).is_err());
}

#[test]
fn a_payload_of_another_shape_names_the_operation_and_the_field() {
    for payload in [json!({}), json!([]), json!("x"), json!({ "path": 1, "content": "" })] {
        let error = Command::decode(Operation::FileWrite, payload).unwrap_err();
        assert_eq!(error.details["reason"], "invalid_payload");
        assert!(error.message.starts_with("payload of `file.write`: "), "{}", error.message);
    }
}

#[test]
fn only_bodies_of_authentication_and_permission_refuse_unknown_fields() {
    let extra = json!({ "path": "a", "content": "", "new": 1 });
    assert!(Command::decode(Operation::FileWrite, extra).is_ok());
    let extra = json!({ "email": "a", "password": "b", "isAdmin": true });
    assert!(Command::decode(Operation::AuthLogin, extra).is_err());
    let extra = json!({ "sessionId": "ses_00000000000000000000000000000001",
        "toolCallId": "tcl_00000000000000000000000000000001", "forever": true });
    assert!(Command::decode(Operation::ToolApprove, extra).is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An object with the fields of a request, each of them absent, well formed or anything.
fn almost_a_request() -> impl Strategy<Value = Value> {
    let field = |good: Value| prop_oneof![Just(None), Just(Some(good)), any_json().prop_map(Some)];
    let fields = (
        field(json!("c-1")),
        field(json!("ping")),
        field(json!("prj_00000000000000000000000000000001")),
        field(json!("key")),
        field(json!(5000)),
        field(json!({})),
    );
    fields.prop_map(|(id, r#type, project_id, key, deadline, payload)| {
        let names = ["id", "type", "projectId", "idempotencyKey", "deadlineMs", "payload"];
        let values = [id, r#type, project_id, key, deadline, payload];
        let pairs = names.into_iter().zip(values);
        Value::Object(pairs.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
    })
}

/// Whatever is read can be written and read again; whatever is refused has a reason.
fn check(text: &[u8]) -> Result<(), TestCaseError> {
    match RequestFrame::parse(text) {
        Ok(frame) => {
            let again = serde_json::to_vec(&frame).unwrap();
            prop_assert_eq!(RequestFrame::parse(&again), Ok(frame));
        }
        Err(refused) => {
            prop_assert!(refused.error.details.contains_key("reason"));
            prop_assert!(refused.id.is_none_or(|id| id.len() <= REQUEST_ID_BYTES_MAX));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        check(&bytes)?;
    }

    #[test]
    fn no_json_breaks_the_reader(value in any_json()) {
        check(value.to_string().as_bytes())?;
    }

    #[test]
    fn no_request_breaks_the_reader(value in almost_a_request()) {
        check(value.to_string().as_bytes())?;
    }

    #[test]
    fn no_payload_breaks_an_operation(operation in prop::sample::select(Operation::ALL), payload in any_json()) {
        if let Err(error) = Command::decode(operation, payload) {
            prop_assert_eq!(error.code, ErrorCode::InvalidRequest);
        }
    }
}
