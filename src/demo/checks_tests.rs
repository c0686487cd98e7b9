//! Each kind of damage to what was seen is noticed, and named.

use iris_protocol::{
    EventMeta, FinishReason, MessageId, ProjectId, SessionId, SessionState, ToolState, Usage,
};
use serde_json::json;

use super::*;

fn session() -> SessionId {
    SessionId::from_bits(1)
}

fn frame(seq: Option<u64>, prev: Option<u64>, event: Event) -> EventFrame {
    let (project_id, room) = (Some(ProjectId::from_bits(1)), Room::Session(session()));
    EventFrame { meta: EventMeta { project_id, room, seq, prev, at: None, by: None }, event }
}

fn status(seq: u64, prev: u64) -> EventFrame {
    let event = Event::session_status(session(), SessionState::Idle);
    frame(Some(seq), Some(prev), event)
}

fn delta(offset: u64, delta: &str) -> EventFrame {
    let (message_id, part_id) = (MessageId::from_bits(1), PartId::from_bits(1));
    let (session_id, delta) = (session(), delta.to_owned());
    let event =
        Event::MessageTextDelta { session_id, message_id, part_id, r#gen: 1, offset, delta };
    frame(None, None, event)
}

fn whole(seq: u64, prev: u64, text: &str) -> EventFrame {
    let event = Event::MessageTextComplete {
        session_id: session(),
        message_id: MessageId::from_bits(1),
        part_id: PartId::from_bits(1),
        length: text.len() as u64,
        text: text.to_owned(),
        interrupted: false,
    };
    frame(Some(seq), Some(prev), event)
}

fn call(seq: u64, prev: u64) -> EventFrame {
    let event = Event::MessageToolCall {
        session_id: session(),
        message_id: MessageId::from_bits(1),
        part_id: PartId::from_bits(2),
        tool_call_id: ToolCallId::from_bits(1),
        tool_name: "read".to_owned(),
        input: json!({}),
        provider_executed: false,
    };
    frame(Some(seq), Some(prev), event)
}

fn tool_error(seq: u64, prev: u64) -> EventFrame {
    let event = Event::MessageToolError {
        session_id: session(),
        message_id: MessageId::from_bits(1),
        part_id: PartId::from_bits(2),
        tool_call_id: ToolCallId::from_bits(1),
        state: ToolState::Denied,
        error: "no".to_owned(),
    };
    frame(Some(seq), Some(prev), event)
}

fn run_end(seq: u64, prev: u64, run: u128, status: RunStatus) -> EventFrame {
    let (run_id, session_id) = (RunId::from_bits(run), session());
    let event =
        Event::RunCompleted { run_id, session_id, status, usage: Usage::default(), error: None };
    frame(Some(seq), Some(prev), event)
}

/// A stored session with one text.
fn stored(text: &str) -> SessionSnapshot {
    let part = Part::Text { id: PartId::from_bits(1), text: text.to_owned(), interrupted: false };
    let message = json!({
        "id": MessageId::from_bits(1), "sessionId": session(), "role": "assistant",
        "parts": [part], "state": "complete", "finishReason": FinishReason::Stop, "createdAt": 0,
    });
    let snapshot = json!({
        "session": {
            "id": session(), "title": "t", "agent": "a", "mode": "default", "status": "active",
            "state": "idle", "createdBy": UserId::from_bits(1), "createdAt": 0, "updatedAt": 0,
            "messageCount": 1, "usage": Usage::default(),
        },
        "messages": [message], "nextCursor": null, "queue": [], "runs": [], "approvals": [],
        "questions": [], "todos": [],
        "asOf": {"epoch": "e", "seq": 6},
    });
    serde_json::from_value(snapshot).unwrap()
}

/// What a whole story leaves behind.
fn whole_story() -> Evidence {
    let frames = vec![
        status(1, 0),
        delta(0, "Hel"),
        delta(3, "lo"),
        whole(2, 1, "Hello"),
        call(3, 2),
        tool_error(4, 3),
        run_end(5, 4, 1, RunStatus::Completed),
        run_end(6, 5, 2, RunStatus::Completed),
    ];
    Evidence {
        ann: frames.clone(),
        ben: frames,
        runs: vec![RunId::from_bits(1), RunId::from_bits(2)],
        stored: Some(stored("Hello")),
        ..Evidence::default()
    }
}

fn failures(evidence: &Evidence) -> Vec<String> {
    hold_for_any_model(evidence).into_iter().flat_map(|check| check.failures).collect()
}

#[test]
fn a_whole_story_passes() {
    assert_eq!(failures(&whole_story()), Vec::<String>::new());
}

#[test]
fn nothing_seen_is_not_a_pass() {
    let checks = hold_for_any_model(&Evidence::default());
    let failed: Vec<_> = checks.iter().filter(|check| !check.holds()).collect();
    assert_eq!(failed.len(), 4, "{failed:?}");
}

#[test]
fn a_gap_is_noticed() {
    let mut evidence = whole_story();
    evidence.ann.remove(0);
    evidence.ben.remove(0);
    let room = Room::Session(session());
    let expected = |who| format!("{who} in `{room}`: seq 2 follows seq 1, but 0 was the last");
    assert_eq!(failures(&evidence), [expected("ann"), expected("ben")]);
}

#[test]
fn a_duplicate_is_noticed() {
    let mut evidence = whole_story();
    for frames in [&mut evidence.ann, &mut evidence.ben] {
        frames.push(status(6, 5));
    }
    let room = Room::Session(session());
    let expected = |who| format!("{who} in `{room}`: seq 6 came after seq 6");
    assert_eq!(failures(&evidence), [expected("ann"), expected("ben")]);
}

#[test]
fn an_event_that_only_one_of_them_saw_is_noticed() {
    let mut evidence = whole_story();
    evidence.ann.push(status(7, 6));
    let room = Room::Session(session());
    let expected = format!("event 7 of `{room}`: ann saw `session.status` with seq 7, ben nothing");
    assert_eq!(failures(&evidence), [expected]);
}

#[test]
fn another_order_is_noticed() {
    let mut evidence = whole_story();
    evidence.ben.swap(4, 5);
    assert!(!same_events(&evidence).holds());
    assert!(!whole_chains(&evidence).holds());
}

#[test]
fn pieces_that_are_not_the_whole_text_are_noticed() {
    let part = PartId::from_bits(1);
    for damage in [delta(3, "p"), delta(3, "lo!"), delta(4, "o"), delta(9, "")] {
        let mut evidence = whole_story();
        evidence.ben[2] = damage;
        assert_eq!(failures(&evidence), [format!("ben: the pieces of `{part}` differ")]);
    }
}

#[test]
fn another_stored_text_is_noticed() {
    let evidence = Evidence { stored: Some(stored("Hallo")), ..whole_story() };
    assert_eq!(failures(&evidence), [format!("`{}` differs", PartId::from_bits(1))]);
}

#[test]
fn a_call_without_exactly_one_result_is_noticed() {
    let mut evidence = whole_story();
    for frames in [&mut evidence.ann, &mut evidence.ben] {
        frames[5] = call(4, 3);
    }
    let id = ToolCallId::from_bits(1);
    let expected = |who| format!("{who}: `{id}` was called 2 times, answered 0");
    assert_eq!(failures(&evidence), [expected("ann"), expected("ben")]);
}

#[test]
fn a_run_that_did_not_complete_is_noticed() {
    let mut evidence = whole_story();
    evidence.ann[7] = run_end(6, 5, 2, RunStatus::Cancelled);
    evidence.ben[7] = status(6, 5);
    let run = RunId::from_bits(2);
    assert_eq!(
        runs_completed(&evidence).failures,
        [format!("ann: `{run}` ended as `Cancelled`"), format!("ben: `{run}` did not end")]
    );
    evidence.runs.truncate(1);
    assert_eq!(runs_completed(&evidence).failures, ["1 of 2 runs were started"]);
}

#[test]
fn a_run_that_ann_cancelled_may_end_as_cancelled_but_not_every_run() {
    let mut evidence = whole_story();
    for frames in [&mut evidence.ann, &mut evidence.ben] {
        frames[7] = run_end(6, 5, 2, RunStatus::Cancelled);
    }
    evidence.cancelled = vec![RunId::from_bits(2)];
    let claim = "1 of 2 runs completed, ann cancelled 1";
    assert_eq!(runs_completed(&evidence), Check::new(claim, Vec::new()));
    evidence.cancelled.push(RunId::from_bits(1));
    assert_eq!(runs_completed(&evidence).failures, ["ann had to cancel all of them"]);
}
