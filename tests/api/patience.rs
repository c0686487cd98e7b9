//! Requests that are given up: by a deadline, by `cancel`, by an id that is in use.

use iris_actors::supervision::faults::{Armed, Fault};
use iris_protocol::ErrorCode;
use iris_testkit::{Conversation, TestApp, moment, patiently, spawn_app};
use serde_json::{Value, json};

use crate::{code_of, rest_refusal};

/// A conversation whose session takes no message any more, so that whoever sends one waits.
async fn with_frozen_session() -> (TestApp, Conversation) {
    let app = spawn_app().await;
    let ann = app.user("ann").await.conversation().await;
    freeze(&app, "session", "SendMessage");
    (app, ann)
}

fn freeze(app: &TestApp, kind: &'static str, message: &str) {
    let armed = Armed { kind, message: message.to_owned(), fault: Fault::Freeze, times: 1 };
    app.supervision().faults().arm(armed);
}

fn request(id: &str, operation: &str, ann: &Conversation, payload: &Value) -> Value {
    json!({ "id": id, "type": operation, "projectId": ann.project, "payload": payload })
}

fn message(id: &str, ann: &Conversation) -> Value {
    let payload = json!({ "sessionId": ann.session, "content": "say hello" });
    request(id, "session.message.send", ann, &payload)
}

fn code(answer: &Value) -> (&str, &str) {
    let error = &answer["error"];
    (error["code"].as_str().unwrap(), error["details"]["reason"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_command_that_is_under_way_cannot_be_cancelled_and_its_deadline_leaves_its_outcome_open()
{
    let (app, ann) = with_frozen_session().await;
    let operator = app.admin().await;
    let mut socket = ann.person.wire().await;
    let mut hurried = message("1", &ann);
    hurried["deadlineMs"] = 20.into();
    socket.say(hurried.to_string()).await;
    let answer = socket.response("1").await;
    assert_eq!(code(&answer), ("DEADLINE_EXCEEDED", "outcome_unknown"));
    assert_eq!(answer["error"]["retryable"], true);

    socket.say(message("2", &ann).to_string()).await;
    let path = format!("node/directory/project/{}/session/{}", ann.project, ann.session);
    let waits = async {
        while operator.client.actor(&path).await.unwrap().actor.mailbox_depth == 0 {
            moment().await;
        }
    };
    patiently("the second message in the mailbox", waits).await;
    socket.ask("4", "cancel", None, json!({ "requestId": "2" })).await;
    assert_eq!(socket.response("4").await["payload"], json!({ "cancelled": false }));
    for nothing in ["1", "none"] {
        socket.ask("5", "cancel", None, json!({ "requestId": nothing })).await;
        assert_eq!(socket.response("5").await["payload"], json!({ "cancelled": false }));
    }

    let answer = ann.person.post("/v1/commands", hurried).await;
    assert_eq!(code_of(&rest_refusal(&answer)), (ErrorCode::DeadlineExceeded, "outcome_unknown"));
}

#[tokio::test]
async fn what_has_time_is_answered() {
    let app = spawn_app().await;
    let ann = app.user("ann").await.conversation().await;
    let mut socket = ann.person.wire().await;
    let mut patient = message("1", &ann);
    patient["deadlineMs"] = 60_000.into();
    socket.say(patient.to_string()).await;
    assert_eq!(socket.response("1").await["success"], true);
}

#[tokio::test]
async fn a_subscription_that_is_given_up_joins_nothing() {
    let app = spawn_app().await;
    let ann = app.user("ann").await.conversation().await;
    let mut socket = ann.person.wire().await;
    freeze(&app, "project", "JoinRooms");
    let rooms = json!({ "rooms": [format!("session:{}", ann.session)] });
    let mut hurried = request("1", "subscribe", &ann, &rooms);
    hurried["deadlineMs"] = 20.into();
    socket.say(hurried.to_string()).await;
    assert_eq!(code(&socket.response("1").await), ("DEADLINE_EXCEEDED", ""));
    socket.say(request("2", "subscribe", &ann, &rooms).to_string()).await;
    socket.ask("3", "cancel", None, json!({ "requestId": "2" })).await;
    assert_eq!(socket.response("3").await["payload"], json!({ "cancelled": true }));
    assert_eq!(socket.response("2").await["error"]["code"], "CANCELLED");
}

#[tokio::test]
async fn a_request_whose_id_is_in_flight_is_refused_and_the_first_is_answered_once() {
    let (_app, ann) = with_frozen_session().await;
    let mut socket = ann.person.wire().await;
    let mut first = message("1", &ann);
    first["deadlineMs"] = 500.into();
    socket.say(first.to_string()).await;
    for second in ["user.get", "ping", "no.such.operation"] {
        socket.ask("1", second, None, json!({})).await;
        let refused = socket.next_json().await;
        assert_eq!(code(&refused), ("INVALID_REQUEST", "duplicate_id"), "{second}");
        assert_eq!(refused["id"], Value::Null);
        assert_eq!(refused["error"]["details"]["requestId"], "1");
    }
    assert_eq!(code(&socket.response("1").await), ("DEADLINE_EXCEEDED", "outcome_unknown"));
    socket.ask("1", "user.get", None, json!({})).await;
    assert_eq!(socket.response("1").await["success"], true);
}

#[tokio::test]
async fn commands_that_go_on_count_as_in_flight_although_they_were_answered() {
    let (_app, ann) = with_frozen_session().await;
    let mut socket = ann.person.wire().await;
    for index in 0..iris_protocol::limits::REQUESTS_IN_FLIGHT_MAX {
        let mut hurried = message(&index.to_string(), &ann);
        // Long enough for the rights to be checked: from then on it goes on.
        hurried["deadlineMs"] = 500.into();
        socket.say(hurried.to_string()).await;
    }
    for _ in 0..iris_protocol::limits::REQUESTS_IN_FLIGHT_MAX {
        let answer = socket.next_json().await;
        assert_eq!(answer["error"]["code"], "DEADLINE_EXCEEDED", "{answer}");
        assert_eq!(answer["error"]["details"]["reason"], "outcome_unknown", "{answer}");
    }
    socket.say(message("one more", &ann).to_string()).await;
    assert_eq!(socket.response("one more").await["error"]["code"], "RATE_LIMITED");
    // What needs no permit is still answered.
    socket.ask("ping", "ping", None, json!({})).await;
    assert_eq!(socket.response("ping").await["success"], true);
}
