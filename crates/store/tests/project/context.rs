//! What models are told of a long conversation: from the last summary on, without the outputs that are left
//! out.

use iris_protocol::*;
use iris_store::project::*;

use crate::fixture::*;

fn summary(n: u128, text: &str) -> NewPart {
    NewPart::Compaction(CompactionPart {
        id: PartId::from_bits(n),
        summary: text.to_owned(),
        replaced: 4,
        kept_steps: 0,
        tokens_before: 100,
        tokens_after: 10,
    })
}

fn compact(n: u128) -> CompactSession {
    CompactSession {
        session_id: session_id(),
        run_id: run_id(n),
        by: bob(),
        quotas: Quotas::default(),
        at: NOW + 1,
    }
}

fn reason(error: &iris_store::StoreError) -> String {
    error.to_api().details.get("reason").unwrap().as_str().unwrap().to_owned()
}

async fn finished(fixture: &Fixture, n: u128) {
    fixture.write(finish(n, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
}

async fn history(fixture: &Fixture, n: u128) -> Vec<String> {
    let history = fixture.reader().history(session_id(), run_id(n)).await.unwrap();
    history.into_iter().map(|message| message.id.to_string()).collect()
}

#[tokio::test]
async fn a_summary_is_a_part_that_is_told_once_and_begins_the_history() {
    let fixture = Fixture::with_run().await;
    finished(&fixture, 1).await;
    fixture.write(accept(2)).await.unwrap();
    fixture.write(start(2)).await.unwrap();
    let before = history(&fixture, 2).await;
    assert_eq!(before.len(), 4);
    fixture.write(checkpoint(2, vec![chunk(1, 0, "half a")])).await.unwrap();
    fixture.take_events();
    // Long enough to stand in a blob.
    let long = "they spoke of notes ".repeat(1_000);
    fixture.write(step(2, 0, vec![summary(7, &long)])).await.unwrap();
    let events = fixture.take_stored();
    assert_eq!(
        events.iter().map(told).collect::<Vec<_>>(),
        ["S session.compacted", "S message.step.finished"]
    );
    let payload: serde_json::Value = serde_json::from_str(&events[0].payload).unwrap();
    assert_eq!(payload["part"]["summary"], long);
    assert_eq!(fixture.chunks(), 0, "what was said before it is forgotten");

    let answer = fixture.answer(2).await;
    let Part::Compaction(part) = &answer.parts[0] else { panic!("{answer:?}") };
    assert_eq!((part.summary.as_str(), part.replaced), (long.as_str(), 4));
    let run = fixture.run(2).await;
    assert_eq!((run.steps, run.usage), (1, usage(5)));
    assert_eq!(history(&fixture, 2).await, before[2..]);
    // A run before it sees what it saw.
    assert_eq!(history(&fixture, 1).await, before[..2]);
    // After a crash as well.
    let copy = fixture.crash();
    assert_eq!(history(&copy, 2).await, before[2..]);
}

#[tokio::test]
async fn a_run_for_a_summary_has_no_message_of_a_user_and_comes_once() {
    let fixture = Fixture::with_run().await;
    let busy = fixture.write(compact(2)).await.unwrap_err();
    assert_eq!((busy.code(), reason(&busy)), (ErrorCode::Conflict, "session_busy".to_owned()));
    finished(&fixture, 1).await;
    fixture.take_events();
    let run = fixture.write(compact(2)).await.unwrap();
    assert_eq!((run.status, run.compacts, &run.started_by), (RunStatus::Queued, true, &bob()));
    assert_eq!(fixture.take_events(), ["S session.status", "P session.status"]);
    assert_eq!(fixture.run(2).await, run);
    let busy = fixture.write(compact(3)).await.unwrap_err();
    assert_eq!(reason(&busy), "session_busy");
    let open = fixture.reader().open_run(session_id()).await.unwrap().unwrap();
    assert_eq!((&open.run, open.answer), (&run, None));

    fixture.write(start(2)).await.unwrap();
    let end = finish(2, RunStatus::Completed, FinishReason::Stop);
    let parts = vec![summary(7, "they spoke")];
    fixture.write(FinishRun { parts, ..end }).await.unwrap();
    assert_eq!(history(&fixture, 2).await.len(), 1);
    let again = fixture.write(compact(3)).await.unwrap_err();
    assert_eq!(reason(&again), "nothing_to_compact");
    fixture.write(accept(3)).await.unwrap();
    fixture.write(start(3)).await.unwrap();
    assert_eq!(history(&fixture, 3).await.len(), 3);
    finished(&fixture, 3).await;
    fixture.write(compact(4)).await.unwrap();
}

#[tokio::test]
async fn what_was_never_said_and_what_is_put_away_is_not_summarized() {
    let fixture = Fixture::with_run().await;
    finished(&fixture, 1).await;
    fixture.write(create_session(2)).await.unwrap();
    let empty = CompactSession { session_id: SessionId::from_bits(2), ..compact(5) };
    let refused = fixture.write(empty).await.unwrap_err();
    assert_eq!(reason(&refused), "nothing_to_compact");
    for (status, why) in
        [(SessionStatus::Archived, "session_archived"), (SessionStatus::Deleted, "session_deleted")]
    {
        let set = SetSessionStatus { id: session_id(), status, by: bob(), at: NOW };
        fixture.write(set).await.unwrap();
        let refused = fixture.write(compact(5)).await.unwrap_err();
        assert_eq!(reason(&refused), why);
    }
}

#[tokio::test]
async fn outputs_are_left_out_up_to_a_call() {
    let fixture = Fixture::with_run().await;
    let left_out = async || fixture.reader().left_out_to(session_id()).await.unwrap();
    assert_eq!(left_out().await, None);
    for n in [1, 2] {
        let to = call_id(n);
        let command = LeaveOutOutputs { session_id: session_id(), to: to.clone() };
        fixture.write(command).await.unwrap();
        assert_eq!(left_out().await, Some(to));
    }
    let elsewhere = LeaveOutOutputs { session_id: SessionId::from_bits(9), to: call_id(1) };
    assert_eq!(fixture.write(elsewhere).await.unwrap_err().code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_fork_knows_of_the_summary_and_of_what_is_left_out() {
    let fixture = Fixture::with_run().await;
    finished(&fixture, 1).await;
    let left_out = LeaveOutOutputs { session_id: session_id(), to: call_id(1) };
    fixture.write(left_out).await.unwrap();
    fixture.write(compact(2)).await.unwrap();
    fixture.write(start(2)).await.unwrap();
    fixture.write(step(2, 0, vec![summary(7, "they spoke")])).await.unwrap();
    finished(&fixture, 2).await;
    let fork_id = SessionId::from_bits(77);
    let fork = ForkSession {
        session_id: session_id(),
        message_id: None,
        fork_id: fork_id.clone(),
        title: None,
        mode: SessionMode::Default,
        by: bob(),
        quotas: Quotas::default(),
        at: NOW + 9,
    };
    assert_eq!(fixture.write(fork).await.unwrap().message_count, 1);
    let reader = fixture.reader();
    assert_eq!(reader.left_out_to(fork_id.clone()).await.unwrap(), Some(call_id(1)));
    let again = CompactSession { session_id: fork_id, ..compact(3) };
    let refused = fixture.write(again).await.unwrap_err();
    assert_eq!(reason(&refused), "nothing_to_compact");
}
