//! Large parts: stored once, read back as they were, collected when nothing names them.

use iris_protocol::*;
use iris_store::StoreError;
use iris_store::project::*;
use proptest::prelude::*;
use rusqlite::Connection;

use crate::fixture::*;

/// Long enough for a blob; equal for equal `n`.
fn long(n: u128) -> String {
    format!("{n} {}", "all work and no play ".repeat(500))
}

fn count(fixture: &Fixture, sql: &str) -> u64 {
    let conn = Connection::open(fixture.path()).unwrap();
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn blobs(fixture: &Fixture) -> u64 {
    count(fixture, "SELECT count(*) FROM blobs")
}

/// Whether each blob is counted as often as it is named.
fn assert_counted(fixture: &Fixture) {
    let wrong = "SELECT count(*) FROM blobs b WHERE refs <>
        (SELECT count(*) FROM message_parts p WHERE p.blob = b.hash)";
    assert_eq!(count(fixture, wrong), 0);
}

async fn say(fixture: &Fixture, n: u128, text: String) {
    fixture.write(AcceptMessage { text, ..accept(n) }).await.unwrap();
}

#[tokio::test]
async fn a_long_part_is_read_back_wherever_parts_are_read() {
    let fixture = Fixture::with_session().await;
    say(&fixture, 1, long(1)).await;
    fixture.write(start(1)).await.unwrap();
    let parts = vec![text(1, &long(2)), call(1, ToolState::Running), call(2, ToolState::Running)];
    fixture.write(step(1, 0, parts)).await.unwrap();
    fixture.write(result(1, 1, completed(&long(3)))).await.unwrap();
    assert_eq!(blobs(&fixture), 3);

    let answer = fixture.answer(1).await;
    assert!(
        answer.parts.iter().any(|part| matches!(part, Part::Text { text, .. } if *text == long(2)))
    );
    assert_eq!(fixture.calls(1).await[0].output, Some(long(3)));
    let page = fixture.reader().messages(session_id(), 50, None).await.unwrap();
    assert_eq!(page.messages[1], answer);
    let history = fixture.reader().history(session_id(), run_id(1)).await.unwrap();
    assert_eq!(history, page.messages);
    let input = serde_json::json!({ "path": "a", "content": long(4) });
    let NewPart::Tool(whole) = call(3, ToolState::Running) else { unreachable!() };
    let whole = NewPart::Tool(ToolPart { input: input.clone(), ..whole });
    fixture.write(step(1, 1, vec![whole])).await.unwrap();
    assert_eq!(fixture.calls(1).await[2].input, input);
    assert_eq!(count(&fixture, "SELECT count(*) FROM message_parts WHERE body = ''"), 1);
    // A call with a result in a blob is still final.
    let again = fixture.refusal(result(1, 1, completed("x"))).await;
    assert_eq!(again, (ErrorCode::Conflict, "already_final".into()));
    fixture.write(finish(1, RunStatus::Cancelled, FinishReason::Cancelled)).await.unwrap();
    assert_eq!(fixture.calls(1).await[1].state, ToolState::Cancelled);
    assert_counted(&fixture);
}

#[tokio::test]
async fn a_page_is_as_long_as_its_parts_are_before_they_are_compressed() {
    let fixture = Fixture::with_session().await;
    for n in 1..=10 {
        say(&fixture, n, "x".repeat(100 * 1024)).await;
    }
    let page = fixture.reader().messages(session_id(), 50, None).await.unwrap();
    assert_eq!((page.messages.len(), page.has_more), (PAGE_BYTES_MAX / (100 * 1024), true));
}

#[tokio::test]
async fn equal_texts_share_a_blob_until_none_is_left() {
    let fixture = Fixture::with_session().await;
    let fail = |n| {
        let (session_id, run_id) = (SessionId::from_bits(n), run_id(n));
        let status = RunStatus::Cancelled;
        FailQueuedRun { session_id, run_id, status, error: None, at: NOW }
    };
    fixture.write(create_session(2)).await.unwrap();
    for n in 1..=2 {
        let session_id = SessionId::from_bits(n);
        let message = AcceptMessage { session_id, text: long(1), ..accept(n) };
        fixture.write(message).await.unwrap();
        fixture.write(fail(n)).await.unwrap();
    }
    assert_eq!((blobs(&fixture), count(&fixture, "SELECT refs FROM blobs")), (1, 2));
    let purge = |n| PurgeSession { id: SessionId::from_bits(n), by: ann(), at: NOW };
    fixture.write(purge(1)).await.unwrap();
    assert_counted(&fixture);
    assert_eq!(fixture.write(CollectBlobs).await.unwrap().rows, 0);
    fixture.write(purge(2)).await.unwrap();
    assert_counted(&fixture);
    assert_eq!(fixture.write(CollectBlobs).await.unwrap(), Bite { rows: 1, more: false });
    assert_eq!(blobs(&fixture), 0);
    assert_eq!(fixture.write(CollectBlobs).await.unwrap(), Bite { rows: 0, more: false });
}

#[tokio::test]
async fn a_damaged_blob_is_an_error_of_its_message_alone() {
    let mut fixture = Fixture::with_session().await;
    say(&fixture, 1, long(1)).await;
    say(&fixture, 2, "short".into()).await;
    fixture.close();
    let conn = Connection::open(fixture.path()).unwrap();
    let sql = "UPDATE blobs SET content = zeroblob(octet_length(content))";
    assert_eq!(conn.execute(sql, []).unwrap(), 1);
    drop(conn);
    fixture.open();
    let reader = fixture.reader();
    let error = reader.message(session_id(), message_id(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::BlobCorrupt { .. }), "{error:?}");
    assert_eq!(error.to_api().code, ErrorCode::ProjectCorrupt);
    let whole = reader.message(session_id(), message_id(2)).await.unwrap().unwrap();
    assert!(matches!(&whole.parts[0], Part::Text { text, .. } if text == "short"));
    // It does not keep others out of the index, nor itself from being deleted.
    assert_eq!(fixture.write(IndexParts).await.unwrap(), Bite { rows: 2, more: false });
    for n in 1..=2 {
        let (session_id, run_id, status) = (session_id(), run_id(n), RunStatus::Cancelled);
        let fail = FailQueuedRun { session_id, run_id, status, error: None, at: NOW };
        fixture.write(fail).await.unwrap();
    }
    fixture.write(PurgeSession { id: session_id(), by: ann(), at: NOW }).await.unwrap();
    assert_eq!(fixture.write(CollectBlobs).await.unwrap().rows, 1);
}

#[derive(Debug, Clone)]
enum Act {
    Say { session: u128, is_long: bool },
    Work { session: u128, output: u128 },
    Purge(u128),
    Collect,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let session = || 1_u128..4;
    let act = prop_oneof![
        3 => (session(), any::<bool>()).prop_map(|(session, is_long)| Act::Say { session, is_long }),
        4 => (session(), 0_u128..3).prop_map(|(session, output)| Act::Work { session, output }),
        1 => session().prop_map(Act::Purge),
        1 => Just(Act::Collect),
    ];
    proptest::collection::vec(act, 1..30)
}

/// Whether a command was refused does not matter.
async fn perform(fixture: &Fixture, n: u128, act: Act) {
    let at = NOW;
    match act {
        Act::Say { session, is_long } => {
            drop(fixture.write(create_session(session)).await);
            let text = if is_long { long(n) } else { "short".to_owned() };
            let session_id = SessionId::from_bits(session);
            drop(fixture.write(AcceptMessage { session_id, text, ..accept(n) }).await);
        }
        Act::Work { session, output } => {
            let session_id = SessionId::from_bits(session);
            let next = fixture.reader().open_run(session_id.clone()).await.unwrap();
            let Some(OpenRun { run, .. }) = next else { return };
            if run.status != RunStatus::Queued {
                return;
            }
            let (run_id, answer_id) = (run.id, answer_id(n));
            let start =
                StartRun { run_id: run_id.clone(), answer_id: answer_id.clone(), ..start(n) };
            fixture.write(start).await.unwrap();
            let step = RecordStep {
                session_id: session_id.clone(),
                run_id: run_id.clone(),
                message_id: answer_id.clone(),
                ..step(n, 0, vec![call(n, ToolState::Running)])
            };
            fixture.write(step).await.unwrap();
            let result = RecordResult {
                session_id: session_id.clone(),
                run_id: run_id.clone(),
                message_id: answer_id.clone(),
                ..result(n, n, completed(&long(output)))
            };
            fixture.write(result).await.unwrap();
            let finish = FinishRun {
                session_id,
                run_id,
                message_id: answer_id,
                ..finish(n, RunStatus::Completed, FinishReason::Stop)
            };
            fixture.write(finish).await.unwrap();
        }
        Act::Purge(session) => {
            let id = SessionId::from_bits(session);
            drop(fixture.write(PurgeSession { id, by: ann(), at }).await);
        }
        Act::Collect => drop(fixture.write(CollectBlobs).await.unwrap()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn blobs_and_rows_are_counted_as_they_are(acts in acts()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new();
            for (n, act) in (1..).zip(acts) {
                perform(&fixture, n, act).await;
                assert_counted(&fixture);
                let rows = "SELECT (SELECT count(*) FROM messages)
                    + (SELECT count(*) FROM message_parts)";
                assert_eq!(fixture.reader().usage().await.unwrap().rows, count(&fixture, rows));
            }
            fixture.write(CollectBlobs).await.unwrap();
            assert_eq!(count(&fixture, "SELECT count(*) FROM blobs WHERE refs = 0"), 0);
            let named = "SELECT count(DISTINCT blob) FROM message_parts";
            assert_eq!(blobs(&fixture), count(&fixture, named));
            let violations = "SELECT count(*) FROM pragma_foreign_key_check";
            assert_eq!(count(&fixture, violations), 0);
        });
    }
}

#[tokio::test]
async fn a_file_is_kept_as_long_as_a_message_names_it_and_is_no_part_of_its_length() {
    let fixture = Fixture::with_session().await;
    let bytes = vec![7; PAGE_BYTES_MAX + 1];
    let attached = |n: u128| {
        let part = AttachmentPart {
            id: PartId::from_bits(1_000 + n),
            name: "a.bin".to_owned(),
            path: Some("a.bin".to_owned()),
            version: None,
            mime_type: "application/octet-stream".to_owned(),
            size: bytes.len() as u64,
            hash: BlobHash::of(&bytes).to_hex(),
            given: AttachmentGiven::Named,
        };
        let attachments = vec![AttachedFile { part, bytes: bytes.clone() }];
        AcceptMessage { attachments, ..accept(n) }
    };
    for n in 1..=3 {
        fixture.write(attached(n)).await.unwrap();
    }
    assert_eq!((blobs(&fixture), count(&fixture, "SELECT refs FROM blobs")), (1, 3));
    assert_counted(&fixture);
    let page = fixture.reader().messages(session_id(), 50, None).await.unwrap();
    assert_eq!((page.messages.len(), page.has_more), (3, false));
    let whole = fixture.reader().conversation(session_id(), 10_000).await.unwrap().unwrap();
    assert_eq!(whole.messages.as_ref(), Some(&page.messages));
    let [Part::Text { .. }, Part::Attachment(part)] = &page.messages[2].parts[..] else {
        panic!("{:?}", page.messages[2])
    };
    assert_eq!(fixture.reader().attached(part.hash.clone()).await.unwrap(), bytes);

    let (session_id, by, at) = (session_id(), ann(), NOW);
    for n in [2, 3] {
        let (session_id, by, message_id) = (session_id.clone(), by.clone(), message_id(n));
        fixture.write(DequeueMessage { session_id, message_id, by, at }).await.unwrap();
    }
    assert_counted(&fixture);
    assert_eq!(fixture.write(CollectBlobs).await.unwrap().rows, 0);
    assert_eq!(fixture.reader().attached(part.hash.clone()).await.unwrap(), bytes);
    fixture.write(PurgeSession { id: session_id, by, at }).await.map(drop).unwrap_err();
    assert_eq!(blobs(&fixture), 1);
}
