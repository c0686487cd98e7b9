//! Messages that go before others, are taken back, or have others in their place.

use iris_protocol::limits::SUPERSEDED_MESSAGES_MAX;
use iris_protocol::*;
use iris_store::project::*;

use crate::fixture::*;

fn send(n: u128, when_busy: WhenBusy) -> AcceptMessage {
    AcceptMessage { when_busy, ..accept(n) }
}

/// With run 1 open, and as many messages that wait in order.
async fn with_queue(last: u128) -> Fixture {
    let fixture = Fixture::with_run().await;
    for n in 2..=last {
        fixture.write(accept(n)).await.unwrap();
    }
    fixture.take_events();
    fixture
}

async fn queue(fixture: &Fixture) -> Vec<MessageId> {
    let snapshot = fixture.reader().snapshot(session_id(), 200, None).await.unwrap().unwrap();
    snapshot.queue.into_iter().map(|queued| queued.message_id).collect()
}

async fn finish_run(fixture: &Fixture, n: u128) {
    fixture.write(finish(n, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
}

async fn history(fixture: &Fixture, n: u128) -> Vec<MessageId> {
    let history = fixture.reader().history(session_id(), run_id(n)).await.unwrap();
    history.into_iter().map(|message| message.id).collect()
}

async fn states(fixture: &Fixture) -> Vec<(MessageId, MessageState)> {
    let page = fixture.reader().messages(session_id(), 200, None).await.unwrap();
    page.messages.into_iter().map(|message| (message.id, message.state)).collect()
}

/// The end of a run that did not start.
fn skip(n: u128) -> FailQueuedRun {
    let (session_id, run_id) = (session_id(), run_id(n));
    FailQueuedRun { session_id, run_id, status: RunStatus::Cancelled, error: None, at: NOW }
}

#[tokio::test]
async fn what_steers_stands_before_what_waits_and_what_interrupts_before_both() {
    let fixture = with_queue(3).await;
    fixture.write(send(4, WhenBusy::Steer)).await.unwrap();
    fixture.write(send(5, WhenBusy::Steer)).await.unwrap();
    assert_eq!(queue(&fixture).await, [4, 5, 2, 3].map(message_id));
    let now = fixture.write(send(6, WhenBusy::Interrupt)).await.unwrap();
    assert_eq!((now.interrupts, now.queued), (Some(run_id(1)), true));
    assert_eq!(queue(&fixture).await, [6, 4, 5, 2, 3].map(message_id));
    assert_eq!(fixture.write(cancel()).await.unwrap(), Some(chosen(1, true)));
    fixture.write(accept(7)).await.unwrap();
    assert_eq!(queue(&fixture).await, [6, 4, 5, 2, 3, 7].map(message_id));
    // The run is about to end: what steers starts runs of its own.
    assert_eq!(fixture.write(join(1)).await.unwrap(), 0);
    let finished = finish(1, RunStatus::Cancelled, FinishReason::Cancelled);
    assert_eq!(fixture.write(finished).await.unwrap().next, Some(run_id(6)));
    for n in [6, 4, 5, 2, 3, 7] {
        let started = fixture.write(start(n)).await.unwrap();
        assert_eq!(started.run.status, RunStatus::Running);
        finish_run(&fixture, n).await;
    }
    assert!(queue(&fixture).await.is_empty());
}

async fn waits_to_join(fixture: &Fixture) -> bool {
    let about = fixture.reader().asked_about(session_id(), run_id(1), None).await;
    about.unwrap().waits_to_join
}

#[tokio::test]
async fn what_joins_a_run_is_said_with_the_step_and_has_no_run_of_its_own() {
    let fixture = Fixture::with_run().await;
    let accepted = fixture.write(send(2, WhenBusy::Steer)).await.unwrap();
    assert_eq!(accepted.message.run_id, Some(run_id(1)));
    assert!(waits_to_join(&fixture).await);
    fixture.write(step(1, 0, vec![text(1, "looks")])).await.unwrap();
    fixture.take_events();
    assert_eq!(fixture.write(join(1)).await.unwrap(), 1);
    assert_eq!(fixture.take_events(), ["S message.updated"]);
    assert_eq!(fixture.write(join(1)).await.unwrap(), 0, "once");
    assert!(!waits_to_join(&fixture).await);
    assert_eq!(fixture.reader().joined_by(run_id(1)).await.unwrap(), [ann()]);
    assert_eq!(fixture.reader().run(run_id(2)).await.unwrap(), None);
    assert_eq!(history(&fixture, 1).await, [message_id(1), answer_id(1), message_id(2)]);
    // The next one that steers stands behind it, before what waits.
    fixture.write(accept(3)).await.unwrap();
    fixture.write(send(4, WhenBusy::Steer)).await.unwrap();
    assert_eq!(queue(&fixture).await, [message_id(4), message_id(3)]);
    fixture.write(join(1)).await.unwrap();
    let expected = [message_id(1), answer_id(1), message_id(2), message_id(4)];
    assert_eq!(history(&fixture, 1).await, expected);
    finish_run(&fixture, 1).await;
    fixture.write(start(3)).await.unwrap();
    let after = [message_id(3), answer_id(3)];
    assert_eq!(history(&fixture, 3).await, [&expected[..], &after].concat());
}

#[tokio::test]
async fn what_waits_to_join_a_run_is_there_after_a_crash_at_any_time() {
    let fixture = Fixture::with_run().await;
    fixture.write(send(2, WhenBusy::Steer)).await.unwrap();
    let waits = fixture.crash();
    fixture.write(join(1)).await.unwrap();
    let joined = fixture.crash();

    let recovered = waits.write(recover(false)).await.unwrap();
    assert_eq!((recovered.interrupted, recovered.unfinished.len()), (1, 1));
    assert_eq!(queue(&waits).await, [message_id(2)]);
    assert_eq!(waits.write(start(2)).await.unwrap().run.status, RunStatus::Running);
    assert_eq!(history(&waits, 2).await.len(), 4);

    let recovered = joined.write(recover(true)).await.unwrap();
    assert_eq!((recovered.interrupted, recovered.resumed), (1, 1));
    assert!(queue(&joined).await.is_empty());
    assert_eq!(history(&joined, 1).await, [message_id(1), answer_id(1), message_id(2)]);
}

#[tokio::test]
async fn a_message_that_was_taken_back_starts_nothing() {
    let fixture = with_queue(3).await;
    fixture.write(send(4, WhenBusy::Steer)).await.unwrap();
    let before = fixture.session().await.message_count;
    fixture.take_events();
    fixture.write(dequeue(message_id(4))).await.unwrap();
    assert_eq!(fixture.take_events(), ["S message.removed"]);
    fixture.write(dequeue(message_id(2))).await.unwrap();
    assert_eq!(fixture.take_events(), ["S message.removed", "S run.completed"]);
    assert_eq!(queue(&fixture).await, [message_id(3)]);
    assert_eq!(fixture.session().await.message_count, before - 2);
    let late = fixture.refusal(dequeue(message_id(1))).await;
    assert_eq!(late, (ErrorCode::Conflict, "message_not_queued".to_owned()));
    assert_eq!(fixture.refusal(dequeue(message_id(2))).await.0, ErrorCode::NotFound);
    // Whoever was about to start it learns of it.
    assert_eq!(fixture.write(start(2)).await.unwrap().run.status, RunStatus::Cancelled);
    fixture.write(FailQueuedRun { status: RunStatus::Failed, ..skip(2) }).await.unwrap();
    assert_eq!(fixture.run(2).await.status, RunStatus::Cancelled);
}

#[tokio::test]
async fn an_interrupted_run_can_be_resumed_when_what_came_after_it_was_taken_back() {
    let fixture = Fixture::with_run().await;
    fixture.write(accept(2)).await.unwrap();
    fixture.write(recover(false)).await.unwrap();
    fixture.write(dequeue(message_id(2))).await.unwrap();
    assert_eq!(fixture.write(resume(1)).await.unwrap().status, RunStatus::Running);
}

#[tokio::test]
async fn another_answer_takes_the_place_of_the_old_one_and_of_what_follows() {
    let fixture = Fixture::with_run().await;
    finish_run(&fixture, 1).await;
    fixture.write(accept(2)).await.unwrap();
    fixture.write(start(2)).await.unwrap();
    let busy = fixture.refusal(retry(message_id(1), 3)).await;
    assert_eq!(busy, (ErrorCode::Conflict, "session_busy".to_owned()));
    finish_run(&fixture, 2).await;
    fixture.take_events();
    let again = fixture.write(retry(answer_id(1), 3)).await.unwrap();
    assert_eq!((again.message.id, again.run.started_by), (message_id(1), bob()));
    let status = ["S session.status", "P session.status"];
    assert_eq!(fixture.take_events(), [&["S message.updated"; 3][..], &status].concat());
    fixture.write(start(3)).await.unwrap();
    assert_eq!(history(&fixture, 3).await, [message_id(1), answer_id(3)]);
    finish_run(&fixture, 3).await;
    let expected = [
        (message_id(1), MessageState::Complete),
        (answer_id(1), MessageState::Superseded),
        (message_id(2), MessageState::Superseded),
        (answer_id(2), MessageState::Superseded),
        (answer_id(3), MessageState::Complete),
    ];
    assert_eq!(states(&fixture).await, expected);
    // What is left is a conversation like any other.
    fixture.write(edit(message_id(1), 4)).await.unwrap();
    fixture.write(start(4)).await.unwrap();
    assert_eq!(history(&fixture, 4).await, [message_id(4), answer_id(4)]);
}

#[tokio::test]
async fn a_run_whose_answer_is_superseded_cannot_be_resumed() {
    let fixture = Fixture::with_run().await;
    fixture.write(recover(false)).await.unwrap();
    fixture.write(retry(message_id(1), 2)).await.unwrap();
    fixture.write(cancel()).await.unwrap();
    assert_eq!(fixture.write(start(2)).await.unwrap().run.status, RunStatus::Cancelled);
    let refused = fixture.refusal(resume(1)).await;
    assert_eq!(refused, (ErrorCode::Conflict, "message_superseded".to_owned()));
}

#[tokio::test]
async fn more_than_so_many_messages_are_not_superseded_at_once() {
    let fixture = Fixture::with_session().await;
    let last = SUPERSEDED_MESSAGES_MAX as u128 + 2;
    for n in 1..=last {
        fixture.write(accept(n)).await.unwrap();
        fixture.write(skip(n)).await.unwrap();
    }
    let refused = fixture.refusal(retry(message_id(1), last + 1)).await;
    assert_eq!(refused, (ErrorCode::Conflict, "too_much_follows".to_owned()));
    assert!(states(&fixture).await.iter().all(|(_, it)| *it != MessageState::Superseded));
    fixture.write(retry(message_id(2), last + 1)).await.unwrap();
}
