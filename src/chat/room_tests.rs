//! What of a session is shown, and that nothing is shown twice.

use std::collections::HashMap;
use std::time::Duration;

use iris_client::Update;
use iris_protocol::{
    ApprovalId, Event, MessageId, PartId, ProjectId, QuestionId, RunId, SessionId, StreamKind,
    ToolCallId, UserId,
};
use serde_json::{Value, json};

use super::super::paper::Paper;
use super::super::style::Style;
use super::*;

fn session() -> SessionId {
    SessionId::from_bits(1)
}

fn ann() -> UserId {
    UserId::from_bits(1)
}

fn ben() -> UserId {
    UserId::from_bits(2)
}

fn room() -> Room {
    let names = HashMap::from([(ann(), "ann".to_owned()), (ben(), "ben".to_owned())]);
    Room::new(session(), ann(), names)
}

fn usage() -> Value {
    json!({ "inputTokens": 0, "outputTokens": 0, "reasoningTokens": 0, "cacheReadTokens": 0,
        "cacheWriteTokens": 0, "costNanoUsd": null })
}

/// An event of the session, by its name and payload.
fn event(name: &str, payload: Value) -> Update {
    let mut event = json!({ "type": name });
    event["payload"] = payload;
    let event: Event = serde_json::from_value(event).unwrap();
    let meta = iris_protocol::EventMeta {
        project_id: Some(ProjectId::from_bits(1)),
        room: iris_protocol::Room::Session(session()),
        seq: None,
        prev: None,
        at: None,
        by: Some(ben()),
    };
    Update::Event(Box::new(EventFrame { event, meta }))
}

fn user_message(n: u128, by: &UserId, text: &str) -> Value {
    json!({ "id": MessageId::from_bits(n), "sessionId": session(), "role": "user",
        "state": "complete", "createdBy": by, "createdAt": 0,
        "parts": [{ "type": "text", "id": PartId::from_bits(n), "text": text }] })
}

fn answer(n: u128, parts: &Value) -> Value {
    json!({ "id": MessageId::from_bits(n), "sessionId": session(), "role": "assistant",
        "agent": "default", "state": "streaming", "createdAt": 0, "parts": parts })
}

fn snapshot(messages: &[Value], approvals: &[Value]) -> Update {
    let value = json!({
        "session": { "id": session(), "title": "t", "agent": "default", "mode": "default",
            "status": "active", "state": "running", "createdBy": ann(), "createdAt": 0,
            "updatedAt": 0, "messageCount": 0, "usage": usage() },
        "messages": messages, "nextCursor": null, "queue": [], "runs": [],
        "approvals": approvals, "asOf": { "epoch": "e", "seq": 1 },
    });
    Update::Reset(Box::new(serde_json::from_value(value).unwrap()))
}

fn approval(child: Option<u128>) -> Value {
    json!({ "id": ApprovalId::from_bits(1), "sessionId": session(),
        "childSessionId": child.map(SessionId::from_bits), "runId": RunId::from_bits(1),
        "messageId": MessageId::from_bits(2), "toolCallId": ToolCallId::from_bits(1),
        "toolName": "write", "input": { "path": "a\u{1b}[2J" }, "message": "write a",
        "options": ["once", "session"], "state": "pending", "createdAt": 0, "expiresAt": 1 })
}

fn text(offset: u64, delta: &str) -> Update {
    Update::Text {
        message_id: MessageId::from_bits(2),
        part_id: PartId::from_bits(20),
        kind: StreamKind::Text,
        offset,
        delta: delta.to_owned(),
    }
}

/// All lines that the updates lead to, the last one that has not ended included.
fn lines(room: &mut Room, updates: Vec<Update>) -> Vec<String> {
    let mut paper = Paper::new(Style { is_on: false });
    let shows: Vec<Show> = updates.into_iter().flat_map(|update| room.update(update)).collect();
    let mut lines: Vec<String> = shows.iter().flat_map(|show| paper.put(show)).collect();
    lines.extend(paper.end());
    lines
}

#[test]
fn a_snapshot_after_a_loss_shows_what_is_new_alone() {
    let mut room = room();
    let part = |text: &str| json!([{ "type": "text", "id": PartId::from_bits(20), "text": text }]);
    let first = vec![
        snapshot(&[user_message(1, &ben(), "hello")], &[]),
        event(
            "message.created",
            json!({ "sessionId": session(), "message": answer(2, &json!([])) }),
        ),
        text(0, "one tw"),
    ];
    assert_eq!(lines(&mut room, first), ["ben:", "hello", "default:", "one tw"]);
    let again = |to: &str| snapshot(&[user_message(1, &ben(), "hello"), answer(2, &part(to))], &[]);
    let lost = Update::Reconnecting { reason: "gone".to_owned(), delay: Duration::from_millis(7) };
    let told = lines(&mut room, vec![lost.clone(), lost, again("one two"), Update::Connected]);
    let expected =
        ["[gone; trying again, nothing is lost]", "default:", "[...]", "o", "[connected again]"];
    assert_eq!(told, expected);
    assert_eq!(lines(&mut room, vec![again("one two")]), Vec::<String>::new());
}

#[test]
fn tools_and_sub_agents_are_shown_with_what_came_of_them() {
    let mut room = room();
    let call = ToolCallId::from_bits(9);
    let child = SessionId::from_bits(2);
    let base = json!({ "sessionId": session(), "messageId": MessageId::from_bits(2),
        "partId": PartId::from_bits(21), "toolCallId": call });
    let with = |more: Value| {
        let mut payload = base.clone();
        payload.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        payload
    };
    let task = |state: &str| {
        json!({ "sessionId": session(), "messageId": MessageId::from_bits(2), "part": {
            "id": PartId::from_bits(22), "toolCallId": call, "childSessionId": child,
            "childRunId": RunId::from_bits(3), "agent": "explore", "description": "look",
            "state": state } })
    };
    let required = json!({ "sessionId": session(), "childSessionId": child,
        "toolCallId": ToolCallId::from_bits(1), "toolName": "write", "message": "write a",
        "approval": approval(Some(2)) });
    let told = lines(
        &mut room,
        vec![
            event("message.tool.call", with(json!({ "toolName": "task", "input": { "a": 1 } }))),
            event("message.subtask.updated", task("running")),
            event("tool.approval.required", required),
            event("message.subtask.updated", task("completed")),
            event("message.tool.result", with(json!({ "output": "found\nit" }))),
            event("message.tool.result", with(json!({ "output": "found\nit" }))),
        ],
    );
    let expected = [
        "* task {\"a\":1}",
        "    > explore (at work): look",
        "    ? explore: write a",
        "      {",
        // As JSON escapes it, so that no terminal obeys it.
        "        \"path\": \"a\\u001b[2J\"",
        "      }",
        "      [y once, s for this session, n and why]",
        "    > explore (done): look",
        "    explore answers:",
        "    found",
        "    it",
    ];
    assert_eq!(told, expected);
    assert!(matches!(room.ask(), Some(Ask::Approval(_))));

    let resolved = json!({ "sessionId": session(), "approvalId": ApprovalId::from_bits(1),
        "toolCallId": ToolCallId::from_bits(1), "state": "rejected", "by": ben(),
        "reason": "no\u{1b}]0;x\u{7}" });
    let told = lines(&mut room, vec![event("tool.approval.resolved", resolved)]);
    assert_eq!(told, ["[rejected by ben: no\\u{1b}]0;x\\u{7}]"]);
    assert!(room.ask().is_none());
}

#[test]
fn what_waits_is_asked_once_and_stays_until_it_is_answered() {
    let mut room = room();
    let told = lines(&mut room, vec![snapshot(&[], &[approval(None)])]);
    assert_eq!(told.first().map(String::as_str), Some("? write a"));
    assert_eq!(lines(&mut room, vec![snapshot(&[], &[approval(None)])]), Vec::<String>::new());
    let ask = room.take_ask().unwrap();
    assert_eq!(ask.by(), (&RunId::from_bits(1), None));
    room.return_ask(ask);
    assert!(room.ask().is_some());
    // Another client answered while this one was away.
    lines(&mut room, vec![snapshot(&[], &[])]);
    assert!(room.ask().is_none());
}

fn required(n: u128) -> Update {
    let mut approval = approval(None);
    approval["toolCallId"] = json!(ToolCallId::from_bits(n));
    approval["message"] = json!(format!("write {n}"));
    let payload = json!({ "sessionId": session(), "toolCallId": ToolCallId::from_bits(n),
        "toolName": "write", "message": "write", "approval": approval });
    event("tool.approval.required", payload)
}

fn resolved(n: u128) -> Update {
    let payload = json!({ "sessionId": session(), "approvalId": ApprovalId::from_bits(n),
        "toolCallId": ToolCallId::from_bits(n), "state": "approved", "by": ben() });
    event("tool.approval.resolved", payload)
}

#[test]
fn what_is_answered_next_is_what_was_asked_last() {
    let mut room = room();
    let told = lines(&mut room, vec![required(1), required(2), required(3)]);
    assert_eq!(told[0], "? write 1");
    assert_eq!(told[5..], ["[1 more to answer after this]", "[2 more to answer after this]"]);
    assert_eq!(lines(&mut room, vec![resolved(2)]), ["[approved by ben]"]);
    let told = lines(&mut room, vec![resolved(1)]);
    assert_eq!(told[..2], ["[approved by ben]", "? write 3"]);
    assert_eq!(room.ask().map(Ask::call), Some(&ToolCallId::from_bits(3)));
    // One that is answered makes room for the next, and is asked again when that failed.
    lines(&mut room, vec![required(4)]);
    let ask = room.take_ask().unwrap();
    assert_eq!(room.next_ask()[0], line(Ink::Question, "? write 4"));
    room.return_ask(ask);
    let shows = room.next_ask();
    assert_eq!(shows[0], line(Ink::Question, "? write 3"));
    assert_eq!(shows.last(), Some(&note("[1 more to answer after this]")));
    assert!(room.next_ask().is_empty());

    // Nobody answers in a pipe: all of them are shown.
    let mut room = self::room().showing_all();
    let told = lines(&mut room, vec![required(1), required(2), resolved(1)]);
    let asked = told.iter().filter(|line| line.starts_with("? ")).count();
    assert_eq!((asked, told.len()), (2, 11));
}

#[test]
fn an_approval_shows_all_that_it_is_for() {
    let asked = |bytes: usize| {
        let mut approval = approval(None);
        approval["input"] = json!({ "content": "x".repeat(bytes), "then": "the end" });
        let mut room = room();
        lines(&mut room, vec![snapshot(&[], &[approval])])
    };
    let told = asked(10_000);
    assert!(told[2].len() > 10_000 && told[3].ends_with("\"the end\""), "{told:?}");
    assert!(!told.concat().contains("NOT shown"));
    let told = asked(INPUT_BYTES_MAX);
    assert!(told[told.len() - 2].contains("bytes of it are NOT shown"), "{}", told[told.len() - 2]);
}

#[test]
fn a_snapshot_keeps_what_was_answered_of_a_question() {
    let mut room = room();
    let with_question = || {
        let Update::Reset(mut snapshot) = snapshot(&[], &[]) else { unreachable!() };
        snapshot.questions.push(question());
        Update::Reset(snapshot)
    };
    let told = lines(&mut room, vec![with_question()]);
    assert_eq!(told[0], "? which?");
    let Some(Ask::Question(question, mut answers)) = room.take_ask() else { panic!("no question") };
    answers.push(vec!["red".to_owned()]);
    let ask = Ask::Question(question, answers);
    room.return_ask(ask.clone());
    assert_eq!(lines(&mut room, vec![with_question()]), Vec::<String>::new());
    assert_eq!(room.ask(), Some(&ask));
}

fn question() -> Question {
    serde_json::from_value(json!({
        "id": QuestionId::from_bits(1), "sessionId": session(), "runId": RunId::from_bits(1),
        "messageId": MessageId::from_bits(2), "toolCallId": ToolCallId::from_bits(1),
        "questions": [
            { "text": "which?", "options": [{ "label": "red" }, { "label": "green" }] },
            { "text": "and?", "options": [{ "label": "a" }], "multiple": true },
        ],
        "state": "pending", "createdAt": 0, "expiresAt": 1,
    }))
    .unwrap()
}

#[test]
fn answers_to_questions_are_numbers_or_texts() {
    let question = question();
    assert_eq!(chosen(&question, 0, " 2 "), ["green"]);
    assert_eq!(chosen(&question, 0, "blue, 1"), ["blue, 1"]);
    assert_eq!(chosen(&question, 0, "0"), ["0"]);
    assert_eq!(chosen(&question, 1, "1, b,, 9"), ["a", "b", "9"]);
    let asked = Ask::Question(Box::new(question), Vec::new());
    let shows = room().asking(&asked);
    let mut paper = Paper::new(Style { is_on: false });
    let lines: Vec<String> = shows.iter().flat_map(|show| paper.put(show)).collect();
    let how = "  [a number or a text, or `/deny` and why]";
    assert_eq!(lines, ["? which?", "  1 red", "  2 green", how]);
}

#[test]
fn the_status_tells_what_goes_on_and_who_is_there() {
    let mut room = room();
    assert_eq!(room.status(), "");
    let present = |user: UserId, name: &str, session: Option<SessionId>| Presence {
        user_id: user,
        username: name.to_owned(),
        status: PresenceStatus::Online,
        session_id: session,
        connections: 1,
    };
    room.update(snapshot(&[], &[]));
    room.update(Update::Presence(vec![
        present(ann(), "ann", Some(session())),
        present(ben(), "ben", Some(session())),
        present(UserId::from_bits(3), "cleo", None),
    ]));
    let typing = json!({ "sessionId": session(), "userIds": [ann(), ben()] });
    room.update(event("typing.updated", typing));
    assert_eq!(room.status(), "working (Ctrl-C cancels) · ben is writing · ben here");
    let mut paper = Paper::new(Style { is_on: false });
    let who: Vec<String> = room.who().iter().flat_map(|show| paper.put(show)).collect();
    assert_eq!(who, ["ann here", "ben here", "cleo in the project"]);
}
