//! Sessions that begin with what the model knows of another one.

use std::sync::Arc;

use iris_protocol::limits::FORKED_PARTS_MAX;
use iris_protocol::*;
use iris_store::project::*;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::fixture::*;

fn fork_id() -> SessionId {
    SessionId::from_bits(77)
}

fn fork(message_id: Option<MessageId>) -> ForkSession {
    ForkSession {
        session_id: session_id(),
        message_id,
        fork_id: fork_id(),
        title: None,
        mode: SessionMode::Default,
        by: bob(),
        quotas: Quotas::default(),
        at: NOW + 9,
    }
}

fn asked_model() -> ModelRef {
    ModelRef { provider_id: "p".into(), model_id: "m".into() }
}

/// With a run whose call has a long input and an output beyond what the model read, and of which the
/// provider wants something back.
async fn with_conversation() -> Fixture {
    let fixture = Fixture::with_run().await;
    let NewPart::Tool(made) = call(1, ToolState::Running) else { unreachable!() };
    let input = json!({ "content": "x".repeat(20_000) });
    let parts = vec![text(1, &"long ".repeat(4_000)), NewPart::Tool(ToolPart { input, ..made })];
    let kept = ProviderData {
        part_id: PartId::from_bits(2_000_001),
        owner: DataOwner { model: asked_model(), key_print: "p".into() },
        kind: "k".into(),
        json: "{\"b\":1, \"a\":2}".into(),
    };
    let recorded = RecordStep { provider_data: vec![kept], ..step(1, 0, parts) };
    fixture.write(recorded).await.unwrap();
    let bytes = Arc::from("whole ".repeat(9_000).as_bytes());
    let outcome = Outcome::Completed {
        output: "cut".into(),
        metadata: None,
        attachment: Some(NewAttachment { mime_type: "text/plain".into(), bytes }),
    };
    fixture.write(result(1, 1, outcome)).await.unwrap();
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    fixture
}

/// The blobs whose count of names is not that of the rows which name them.
fn miscounted(fixture: &Fixture) -> u32 {
    let conn = Connection::open(fixture.path()).unwrap();
    let sql = "SELECT count(*) FROM blobs b WHERE b.refs <>
                 (SELECT count(*) FROM message_parts p WHERE p.blob = b.hash)
               + (SELECT count(*) FROM tool_outputs o WHERE o.blob = b.hash)";
    conn.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Parts without their ids.
fn plain(messages: &[Message]) -> Vec<Value> {
    let parts = messages.iter().flat_map(|message| &message.parts).map(|part| {
        let mut part = json!(part);
        part.as_object_mut().unwrap().remove("id");
        part
    });
    parts.collect()
}

#[tokio::test]
async fn a_fork_has_all_that_the_model_is_given_and_each_blob_is_counted() {
    let fixture = with_conversation().await;
    let reader = fixture.reader();
    let source = reader.messages(session_id(), 200, None).await.unwrap().messages;
    let rows = reader.usage().await.unwrap().rows;
    fixture.take_events();
    let session = fixture.write(fork(None)).await.unwrap();
    assert_eq!((&session.id, session.message_count), (&fork_id(), 2));
    assert_eq!(session.usage, Usage::default());
    let events = fixture.take_events();
    assert_eq!(events, ["S session.created", "P session.created", "S session.forked"]);
    assert_eq!(miscounted(&fixture), 0);
    assert_eq!(reader.usage().await.unwrap().rows, rows * 2);

    let messages = reader.messages(fork_id(), 200, None).await.unwrap().messages;
    assert_eq!(plain(&messages), plain(&source));
    let run = messages[1].run_id.clone().unwrap();
    let opaque = async |session, run| {
        reader.asked_about(session, run, Some(asked_model())).await.unwrap().provider_data
    };
    let own = opaque(session_id(), run_id(1)).await;
    let taken_along = opaque(fork_id(), run.clone()).await;
    assert_eq!((taken_along.len(), &taken_along[0].json), (1, &own[0].json));
    assert_eq!(taken_along[0].owner, own[0].owner);
    assert_eq!(taken_along[0].part_id, *messages[1].parts[0].id());
    let run = reader.run(run).await.unwrap().unwrap();
    assert_eq!((run.status, run.usage), (RunStatus::Completed, Usage::default()));
    let output = reader.attachment(fork_id(), call_id(1)).await.unwrap();
    assert_eq!(output, reader.attachment(session_id(), call_id(1)).await.unwrap());

    let purge = PurgeSession { id: session_id(), by: ann(), at: NOW + 10 };
    fixture.write(purge).await.unwrap();
    while fixture.write(CollectBlobs).await.unwrap().more {}
    assert_eq!(miscounted(&fixture), 0);
    assert_eq!(reader.messages(fork_id(), 200, None).await.unwrap().messages, messages);
    assert!(reader.attachment(fork_id(), call_id(1)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_fork_with_too_many_parts_is_refused_whole() {
    let fixture = Fixture::with_run().await;
    let parts = (0..=FORKED_PARTS_MAX as u128).map(|n| text(n, "x")).collect();
    fixture.write(step(1, 0, parts)).await.unwrap();
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    let refused = fixture.refusal(fork(None)).await;
    assert_eq!(refused, (ErrorCode::Conflict, "fork_too_large".to_owned()));
    assert_eq!(fixture.reader().session(fork_id()).await.unwrap(), None);
    // Up to the question there is less.
    assert_eq!(fixture.write(fork(Some(message_id(1)))).await.unwrap().message_count, 1);
}

#[tokio::test]
async fn a_fork_beyond_the_quota_is_refused() {
    let fixture = with_conversation().await;
    let rows_max = fixture.reader().usage().await.unwrap().rows + 3;
    let quotas = Quotas { rows_max, ..Quotas::default() };
    let refused = fixture.refusal(ForkSession { quotas, ..fork(None) }).await;
    assert_eq!(refused, (ErrorCode::QuotaExceeded, "rows_quota".to_owned()));
}

#[tokio::test]
async fn nobody_goes_on_with_a_run_in_a_fork() {
    let fixture = Fixture::with_run().await;
    fixture.write(recover(false)).await.unwrap();
    fixture.write(fork(None)).await.unwrap();
    let runs = fixture.reader().runs(fork_id(), 10, None).await.unwrap().runs;
    assert_eq!(runs.iter().map(|run| run.status).collect::<Vec<_>>(), [RunStatus::Cancelled]);
    let accept = AcceptMessage { session_id: fork_id(), ..accept(2) };
    assert!(!fixture.write(accept).await.unwrap().queued);
    fixture.write(start(2)).await.unwrap();
    let history = fixture.reader().history(fork_id(), run_id(2)).await.unwrap();
    assert_eq!(history.len(), 4);
}

#[tokio::test]
async fn a_fork_may_use_what_its_session_may() {
    let fixture = Fixture::with_session().await;
    let budget = Budget { steps: Some(3), ..Budget::default() };
    let set = SetSessionBudget { id: session_id(), budget, by: ann(), at: NOW };
    let source = fixture.write(set).await.unwrap();
    assert!(source.budget.is_some());
    fixture.write(fork(None)).await.unwrap();
    let fork = fixture.reader().session(fork_id()).await.unwrap().unwrap();
    assert_eq!((fork.budget, fork.usage), (source.budget, Usage::default()));
}
