//! Messages and the runs that they start.

use iris_protocol::{
    ErrorCode, FinishReason, MessageState, RunStatus, SessionState, WhenBusy,
    limits::MESSAGE_TEXT_BYTES_MAX,
};
use iris_testkit::{spawn_app, text_of};
use serde_json::json;

use crate::{code_of, refusal, rest_refusal};

/// Keeps a run waiting for a person.
const HOLD: &str = "call write {\"path\": \"a.txt\", \"content\": \"x\"}\nstep\nsay first";

#[tokio::test]
async fn a_message_is_answered_and_every_step_is_told_in_order() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let answer = ann.ask("think hm\nsay hello there").await;
    assert_eq!(text_of(&answer), "hello there");
    assert_eq!(answer.state, MessageState::Complete);
    assert_eq!(answer.finish_reason, Some(FinishReason::Stop));
    assert_eq!(answer.usage.unwrap().output_tokens, 3);
    ann.wait_for("session.status").await;
    let durable = ann.seen.iter().filter(|frame| frame.meta.seq.is_some());
    let durable: Vec<_> = durable.map(|frame| frame.event.name()).collect();
    assert_eq!(
        durable,
        [
            "message.created",
            "session.status",
            "run.started",
            "message.created",
            "session.status",
            "message.reasoning.complete",
            "message.text.complete",
            "message.step.finished",
            "message.complete",
            "run.completed",
            "session.status",
        ]
    );
    let session = ann.person.snapshot(&ann.project, &ann.session).await.session;
    assert_eq!((session.state, session.message_count), (SessionState::Idle, 2));
    assert_eq!(session.usage, answer.usage.unwrap());
}

#[tokio::test]
async fn a_message_while_a_run_is_active_waits_and_is_answered_after_it() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await;
    let call = ann.approval().await.tool_call_id;
    let second = ann.send_message("say second").await;
    let third = ann.send_message("say third").await;
    assert_eq!([first.queued, second.queued, third.queued], [false, true, true]);
    let waiting = ann.person.snapshot(&ann.project, &ann.session).await;
    let queue: Vec<_> = waiting.queue.iter().map(|queued| &queued.run_id).collect();
    assert_eq!(queue, [&second.run_id, &third.run_id]);

    ann.approve(&call).await.unwrap();
    for (run, text) in [(first, "first"), (second, "second"), (third, "third")] {
        assert_eq!(ann.run_ended(&run.run_id).await, RunStatus::Completed);
        assert_eq!(text_of(&ann.answer(&run.run_id).await), text);
    }
    assert!(ann.person.snapshot(&ann.project, &ann.session).await.queue.is_empty());
}

#[tokio::test]
async fn a_message_that_does_not_want_to_wait_is_refused_while_a_run_is_active() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await;
    let call = ann.approval().await.tool_call_id;
    let refused = refusal(ann.try_send("say no", Some(WhenBusy::Reject)).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "session_busy"));
    ann.approve(&call).await.unwrap();
    assert_eq!(ann.run_ended(&first.run_id).await, RunStatus::Completed);
    ann.try_send("say yes", Some(WhenBusy::Reject)).await.unwrap();
    let messages = ann.person.snapshot(&ann.project, &ann.session).await.messages;
    assert!(messages.iter().all(|message| text_of(message) != "say no"));
}

#[tokio::test]
async fn cancelling_ends_the_run_and_cancelling_again_finds_none() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    assert!(!ann.cancel().await);
    let run = ann.send_message(HOLD).await.run_id;
    let call = ann.approval().await.tool_call_id;
    assert!(ann.cancel().await);
    assert!(!ann.cancel().await);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);
    assert!(!ann.cancel().await);
    let answer = ann.answer(&run).await;
    assert_eq!(answer.finish_reason, Some(FinishReason::Cancelled));
    let gone = refusal(ann.approve(&call).await);
    assert_eq!(gone.code, ErrorCode::Gone);
    assert_eq!(text_of(&ann.ask("say next").await), "next");
}

#[tokio::test]
async fn a_run_can_be_cancelled_from_the_moment_its_message_is_taken() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    for round in 0..20 {
        let run = ann.send_message(HOLD).await.run_id;
        assert!(ann.cancel().await, "round {round}");
        assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled, "round {round}");
    }
}

#[tokio::test]
async fn cancelling_leaves_the_messages_that_wait() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message(HOLD).await.run_id;
    ann.approval().await;
    let second = ann.send_message("say second").await.run_id;
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&first).await, RunStatus::Cancelled);
    assert_eq!(ann.run_ended(&second).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&second).await), "second");
}

#[tokio::test]
async fn a_message_has_text_of_a_bounded_length() {
    let app = spawn_app().await;
    let ann = app.user("ann").await.conversation().await;
    let empty = refusal(ann.try_send(" \n", None).await);
    assert_eq!(code_of(&empty), (ErrorCode::InvalidRequest, "empty_content"));
    let long = "x".repeat(MESSAGE_TEXT_BYTES_MAX + 1);
    assert_eq!(refusal(ann.try_send(&long, None).await).code, ErrorCode::PayloadTooLarge);
    ann.try_send(&format!("say ok\n#{}", &long[9..]), None).await.unwrap();
}

#[tokio::test]
async fn messages_are_read_one_by_one_and_page_by_page() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let path = format!("/v1/projects/{}/sessions/{}/messages", ann.project, ann.session);
    let parts = json!([{ "type": "text", "text": "say" }, { "type": "text", "text": "say one" }]);
    let sent = ann.person.post(&path, json!({ "content": parts })).await;
    assert_eq!(sent.status, 202);
    ann.wait_for("run.completed").await;
    for text in ["say two", "say three"] {
        ann.ask(text).await;
    }
    let id = sent.json["data"]["messageId"].as_str().unwrap();
    let one = ann.person.get(&format!("{path}/{id}")).await;
    assert_eq!(one.json["data"]["parts"][0]["text"], "say\nsay one");
    assert_eq!(
        rest_refusal(&ann.person.get(&format!("{path}/msg_0")).await).code,
        ErrorCode::NotFound
    );

    let mut ids = Vec::new();
    let mut before = String::new();
    loop {
        let page = ann.person.get(&format!("{path}?limit=2{before}")).await.json;
        let newest_last = page["data"].as_array().unwrap().iter().rev();
        ids.extend(newest_last.map(|message| message["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["meta"]["nextCursor"].as_str() else {
            assert_eq!(page["meta"]["hasMore"], false);
            break;
        };
        assert_eq!(page["meta"]["hasMore"], true);
        before = format!("&before={cursor}");
    }
    let all = ann.person.snapshot(&ann.project, &ann.session).await.messages;
    let all: Vec<_> = all.iter().rev().map(|message| message.id.to_string()).collect();
    assert_eq!((all.len(), ids), (6, all));
    let bad = rest_refusal(&ann.person.get(&format!("{path}?before=nonsense")).await);
    assert_eq!(code_of(&bad), (ErrorCode::InvalidRequest, "invalid_cursor"));
}

#[tokio::test]
async fn a_repeated_key_gets_the_same_answer_and_sends_one_message() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let path = format!("/v1/projects/{}/sessions/{}/messages", ann.project, ann.session);
    let send = async |key: &str, content: &str| {
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        let body = json!({ "content": content }).to_string();
        let (client, token) = (&ann.person.client, Some(ann.person.token()));
        client.raw("POST", &path, token, &headers, body.into()).await.unwrap()
    };
    let first = send("key-1", "say once").await;
    assert!(!first.headers.contains_key("idempotent-replay"));
    let again = send("key-1", "say once").await;
    assert_eq!((again.status, &again.json), (202, &first.json));
    assert_eq!(again.headers["idempotent-replay"], "true");
    let other = rest_refusal(&send("key-1", "say twice").await);
    assert_eq!((other.code, other.code.http_status()), (ErrorCode::IdempotencyConflict, 422));
    assert_eq!(rest_refusal(&send("", "say x").await).code, ErrorCode::InvalidRequest);
    ann.wait_for("run.completed").await;
    let messages = ann.person.snapshot(&ann.project, &ann.session).await.messages;
    assert_eq!(messages.len(), 2);
}

#[tokio::test]
async fn the_key_counts_on_every_transport_and_for_its_user_alone() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let bob = app.user("bob").await;
    let frame = json!({ "id": "1", "type": "project.create", "payload": { "name": "one" },
                        "idempotencyKey": "key" });
    let first = ann.post("/v1/commands", frame.clone()).await;
    let mut socket = ann.wire().await;
    socket.say(frame.to_string()).await;
    assert_eq!(socket.response("1").await["payload"], first.json["payload"]);
    let others = bob.post("/v1/commands", frame).await;
    assert_ne!(others.json["payload"]["project"]["id"], first.json["payload"]["project"]["id"]);
    assert_eq!(ann.get("/v1/projects").await.json["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_message_at_the_very_end_of_a_run_is_answered_too() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    for _ in 0..50 {
        let run = ann.send_message("say hi").await.run_id;
        assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    }
}
