//! Commands in any order, sensible or not: what always holds.

use std::collections::HashMap;

use iris_protocol::*;
use iris_store::project::*;
use proptest::prelude::*;

use crate::fixture::*;

const RUNS: u128 = 5;
const CALLS: u128 = 6;

#[derive(Debug, Clone)]
enum Act {
    Accept(u128, WhenBusy),
    Join(u128),
    Dequeue(u128),
    Retry { of: u128, run: u128 },
    Edit { of: u128, run: u128 },
    Start(u128),
    Step { run: u128, call: u128, waits: bool },
    Ask { run: u128, call: u128 },
    Reply { call: u128, answers: bool },
    Result { run: u128, call: u128 },
    Resolve { call: u128, approve: bool },
    Finish { run: u128, cancelled: bool },
    Fail(u128),
    Checkpoint { run: u128, part: u128 },
    Resume(u128),
    Recover { resume: bool },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let run = || 1..=RUNS;
    let call = || 1..=CALLS;
    let act = prop_oneof![
        (run(), when_busy()).prop_map(|(run, when_busy)| Act::Accept(run, when_busy)),
        run().prop_map(Act::Join),
        run().prop_map(Act::Dequeue),
        (run(), run()).prop_map(|(of, run)| Act::Retry { of, run }),
        (run(), run()).prop_map(|(of, run)| Act::Edit { of, run }),
        run().prop_map(Act::Start),
        (run(), call(), any::<bool>()).prop_map(|(run, call, waits)| Act::Step {
            run,
            call,
            waits
        }),
        (run(), call()).prop_map(|(run, call)| Act::Ask { run, call }),
        (call(), any::<bool>()).prop_map(|(call, answers)| Act::Reply { call, answers }),
        (run(), call()).prop_map(|(run, call)| Act::Result { run, call }),
        (call(), any::<bool>()).prop_map(|(call, approve)| Act::Resolve { call, approve }),
        (run(), any::<bool>()).prop_map(|(run, cancelled)| Act::Finish { run, cancelled }),
        run().prop_map(Act::Fail),
        (run(), 0..6_u128).prop_map(|(run, part)| Act::Checkpoint { run, part }),
        run().prop_map(Act::Resume),
        any::<bool>().prop_map(|resume| Act::Recover { resume }),
    ];
    proptest::collection::vec(act, 1..60)
}

fn when_busy() -> impl Strategy<Value = WhenBusy> {
    prop_oneof![
        2 => Just(WhenBusy::Queue),
        3 => Just(WhenBusy::Steer),
        1 => Just(WhenBusy::Interrupt),
        1 => Just(WhenBusy::Reject),
    ]
}

/// Does it; whether it was refused does not matter.
async fn perform(fixture: &Fixture, act: Act, step_index: u32) {
    match act {
        Act::Accept(n, when_busy) => {
            drop(fixture.write(AcceptMessage { when_busy, ..accept(n) }).await);
        }
        Act::Join(n) => drop(fixture.write(join(n)).await),
        Act::Dequeue(n) => drop(fixture.write(dequeue(message_id(n))).await),
        Act::Retry { of, run } => drop(fixture.write(retry(answer_id(of), run)).await),
        Act::Edit { of, run } => drop(fixture.write(edit(message_id(of), run)).await),
        Act::Start(n) => drop(fixture.write(start(n)).await),
        Act::Step { run, call: n, waits } => {
            let state = if waits { ToolState::Waiting } else { ToolState::Running };
            drop(fixture.write(step(run, step_index, vec![call(n, state)])).await);
        }
        Act::Ask { run, call: n } => {
            let step = step(run, step_index, vec![call(n, ToolState::Waiting)]);
            let questions = vec![asks(n)];
            drop(fixture.write(RecordStep { approvals: Vec::new(), questions, ..step }).await);
        }
        Act::Reply { call, answers } => {
            let answer = Reply::Answer(vec![vec!["this".into()]]);
            let reply = if answers { answer } else { Reply::Reject { reason: None } };
            drop(fixture.write(respond(call, reply)).await);
        }
        Act::Result { run, call } => drop(fixture.write(result(run, call, completed("x"))).await),
        Act::Resolve { call, approve } => {
            let decision =
                if approve { Decision::yes() } else { Decision::Reject { reason: None } };
            drop(fixture.write(resolve(call, decision)).await);
        }
        Act::Finish { run, cancelled } => {
            let (status, reason) = if cancelled {
                (RunStatus::Cancelled, FinishReason::Cancelled)
            } else {
                (RunStatus::Completed, FinishReason::Stop)
            };
            drop(fixture.write(finish(run, status, reason)).await);
        }
        Act::Fail(n) => {
            let (session_id, run_id) = (session_id(), run_id(n));
            let status = RunStatus::Failed;
            let fail = FailQueuedRun { session_id, run_id, status, error: None, at: NOW };
            drop(fixture.write(fail).await);
        }
        Act::Checkpoint { run, part } => {
            drop(fixture.write(checkpoint(run, vec![chunk(part, 0, "text")])).await);
        }
        Act::Resume(n) => drop(fixture.write(resume(n)).await),
        Act::Recover { resume } => drop(fixture.write(recover(resume)).await),
    }
}

async fn check(fixture: &Fixture) {
    let snapshot = fixture.reader().snapshot(session_id(), 200, None).await.unwrap().unwrap();
    let works = |run: &&Run| matches!(run.status, RunStatus::Running | RunStatus::Waiting);
    assert!(snapshot.runs.iter().filter(works).count() <= 1, "INV-8: {:?}", snapshot.runs);
    let state = match snapshot.runs.iter().find(|run| run.ended_at.is_none()) {
        Some(run) if run.status == RunStatus::Queued => SessionState::Queued,
        Some(run) if run.status == RunStatus::Waiting => SessionState::Waiting,
        Some(_) => SessionState::Running,
        None if snapshot.runs.iter().any(|run| run.status == RunStatus::Interrupted) => {
            SessionState::Interrupted
        }
        None => SessionState::Idle,
    };
    let found = snapshot.session.state;
    let is_cut_off = found == SessionState::Interrupted && state == SessionState::Idle;
    assert!(found == state || is_cut_off, "{found:?} with {:?}", snapshot.runs);
    for approval in &snapshot.approvals {
        let run = snapshot.runs.iter().find(|run| run.id == approval.run_id).unwrap();
        assert_eq!(run.status, RunStatus::Waiting);
    }
    for question in &snapshot.questions {
        let run = snapshot.runs.iter().find(|run| run.id == question.run_id).unwrap();
        assert_eq!(run.status, RunStatus::Waiting);
    }
    for message in &snapshot.messages {
        let open = message.parts.iter().any(|part| match part {
            Part::Tool(call) => !call.state.is_final(),
            Part::Text { .. }
            | Part::Reasoning { .. }
            | Part::Subtask(_)
            | Part::Compaction(_)
            | Part::AnswerFormat(_)
            | Part::Attachment(_)
            | Part::Step { .. } => false,
        });
        assert!(!open || message.state == MessageState::Streaming, "INV-3: {message:?}");
    }
    assert_eq!(snapshot.session.message_count, snapshot.messages.len() as u64);
}

/// Pieces of text are kept for what streams alone, and of no part that is recorded.
fn check_chunks(conn: &rusqlite::Connection) {
    let sql = "SELECT count(*) FROM stream_chunks c JOIN messages m ON m.id = c.message_id
               WHERE m.state <> 'streaming'
                 OR EXISTS (SELECT 1 FROM message_parts p WHERE p.id = c.part_id)";
    let left_over: u32 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(left_over, 0);
}

/// What waits to join a run waits for one that is open, and stands behind it; what joined one has no run of
/// its own; and nothing is left at the numbers by which places are exchanged.
fn check_places(conn: &rusqlite::Connection) {
    for sql in [
        "SELECT count(*) FROM runs r LEFT JOIN runs a ON a.id = r.joins
         WHERE r.joins IS NOT NULL
           AND (r.status <> 'queued' OR a.id IS NULL OR a.ended_at IS NOT NULL
                OR a.number >= r.number OR a.joins IS NOT NULL)",
        "SELECT count(*) FROM messages m JOIN runs r
           ON r.session_id = m.session_id AND r.number = m.run_number
         WHERE m.after_step IS NOT NULL",
        "SELECT (SELECT count(*) FROM runs WHERE number <= 0)
              + (SELECT count(*) FROM messages WHERE run_number <= 0)",
    ] {
        let wrong: u32 = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(wrong, 0, "{sql}");
    }
}

/// Every event has its number, and every call at most one result.
fn check_log(fixture: &Fixture) {
    let mut heads = HashMap::new();
    let mut results = HashMap::new();
    for (event, seq) in fixture.take_stored().iter().zip(3..) {
        assert_eq!(event.seq, seq);
        if let Some(prev) = heads.insert(event.room.clone(), seq) {
            assert_eq!(event.prev, prev);
        }
        if event.name == "message.tool.result" || event.name == "message.tool.error" {
            let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
            let count =
                results.entry(payload.get("toolCallId").map(ToString::to_string)).or_insert(0);
            *count += 1;
            assert_eq!(*count, 1, "INV-3: {event:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_the_state_stays_consistent(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::with_session().await;
            let conn = rusqlite::Connection::open(fixture.path()).unwrap();
            for (act, index) in acts.into_iter().zip(0..) {
                perform(&fixture, act, index).await;
                check(&fixture).await;
                check_chunks(&conn);
                check_places(&conn);
            }
            check_log(&fixture);
        });
    }
}
