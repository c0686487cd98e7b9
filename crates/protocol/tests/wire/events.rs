//! Every event survives the way over the wire.

use iris_protocol::{
    Event, EventFrame, EventKind, EventMeta, Heartbeat, MaintenanceNotice, Position, Room,
    ServerFrame, SessionId, SupervisionKind, UserId,
};
use serde_json::{Value, json};

use crate::samples::{events, project_id};

/// The event with what stands around it: numbered when it is durable.
fn frame(event: Event) -> EventFrame {
    let durable = event.kind() == EventKind::Durable;
    let is_of_admins = event.name().starts_with("supervision.");
    let meta = EventMeta {
        project_id: (!is_of_admins).then(project_id),
        room: if is_of_admins { Room::Admin } else { Room::Session(SessionId::from_bits(2)) },
        seq: durable.then_some(813),
        prev: durable.then_some(809),
        at: durable.then_some(1_790_000_000_000),
        by: durable.then(|| UserId::from_bits(7)),
    };
    EventFrame { meta, event }
}

#[test]
fn there_is_a_sample_of_every_event() {
    let samples: Vec<_> = events().iter().map(|event| (event.name(), event.kind())).collect();
    let table: Vec<_> = Event::ALL.iter().map(|spec| (spec.name, spec.kind)).collect();
    assert_eq!(samples, table);
}

#[test]
fn every_event_survives_a_round_trip() {
    for event in events() {
        let frame = frame(event);
        let text = serde_json::to_string(&frame).unwrap();
        assert_eq!(ServerFrame::parse(&text).unwrap(), ServerFrame::Event(Box::new(frame)));
    }
}

#[test]
fn an_event_that_was_encoded_before_is_framed_the_same_way() {
    for event in events() {
        let frame = frame(event);
        let value = serde_json::to_value(&frame).unwrap();
        let payload = value["payload"].to_string();
        let encoded = frame.meta.encode(frame.event.name(), &payload).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&encoded).unwrap(), value);
    }
}

#[test]
fn a_payload_that_is_not_json_is_not_framed() {
    let frame = frame(events().remove(0));
    assert!(frame.meta.encode("session.created", "{").is_err());
}

#[test]
fn every_kind_of_supervision_has_the_event_of_its_name() {
    let events = events();
    for kind in SupervisionKind::ALL {
        let name = format!("supervision.{}", kind.as_str());
        let event = events.iter().find(|event| event.name() == name).unwrap();
        let payload = &serde_json::to_value(event).unwrap()["payload"];
        assert_eq!(payload["kind"], json!(kind));
    }
}

#[test]
fn rooms_survive_a_round_trip_and_others_are_refused() {
    let rooms = [
        Room::Session(SessionId::from_bits(2)),
        Room::Project(project_id()),
        Room::User(UserId::from_bits(7)),
        Room::Admin,
    ];
    for room in rooms {
        assert_eq!(room.to_string().parse(), Ok(room));
    }
    for text in ["", "admin:", "Admin", "admin:x", "session", "session:", "project:ses_1", "user:"]
    {
        assert!(text.parse::<Room>().is_err(), "{text}");
    }
}

#[test]
fn shapes_of_events() {
    let frames: Vec<_> = events().into_iter().map(frame).collect();
    insta::assert_json_snapshot!(frames);
}

#[test]
fn fields_that_a_client_does_not_know_are_ignored() {
    let mut value = serde_json::to_value(frame(events().remove(0))).unwrap();
    value["new"] = json!(1);
    value["payload"]["session"]["new"] = json!(1);
    assert!(matches!(ServerFrame::parse(&value.to_string()), Ok(ServerFrame::Event(_))));
}

#[test]
fn frames_that_a_client_does_not_know_are_kept_and_broken_ones_refused() {
    let unknown = json!({ "type": "session.sang", "payload": {} });
    assert_eq!(ServerFrame::parse(&unknown.to_string()).unwrap(), ServerFrame::Unknown(unknown));
    assert!(matches!(ServerFrame::parse("3").unwrap(), ServerFrame::Unknown(_)));
    let expiring = json!({ "type": "auth.expiring", "payload": { "expiresAt": 5 } });
    let expiring = ServerFrame::parse(&expiring.to_string()).unwrap();
    assert_eq!(expiring, ServerFrame::AuthExpiring { expires_at: 5 });
    let draining = json!({ "type": "server.draining", "payload": { "retryAfterMs": 5 } });
    let draining = ServerFrame::parse(&draining.to_string()).unwrap();
    assert_eq!(draining, ServerFrame::Draining { retry_after_ms: 5 });
    let notice = json!({ "type": "server.maintenance", "payload": { "active": false } });
    let notice = ServerFrame::parse(&notice.to_string()).unwrap();
    let expected = MaintenanceNotice { active: false, message: None };
    assert_eq!(notice, ServerFrame::Maintenance(expected));
    let payload = json!({ "rooms": { "project:p": { "epoch": "e", "seq": 3 } }, "at": 5 });
    let heartbeat = json!({ "type": "heartbeat", "payload": payload });
    let position = Position { epoch: "e".to_owned(), seq: 3 };
    let rooms = [("project:p".to_owned(), position)].into();
    let expected = ServerFrame::Heartbeat(Heartbeat { rooms, at: 5 });
    assert_eq!(ServerFrame::parse(&heartbeat.to_string()).unwrap(), expected);
    for text in [
        "",
        "{",
        r#"{"type":"connected"}"#,
        r#"{"type":"heartbeat"}"#,
        r#"{"type":"session.status","payload":{}}"#,
    ] {
        assert!(ServerFrame::parse(text).is_err(), "{text}");
    }
}
