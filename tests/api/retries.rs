//! A model that fails is asked again, within limits, and then another one is.

use std::time::Duration;

use iris_agent::{RetryLimits, TurnLimits};
use iris_protocol::{ErrorCode, Event, ModelRef, RunStatus, SessionState};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Reply, TestApp, chat, spawn_app_with, text_of,
};

use crate::code_of;

/// A server that asks its provider up to `attempts` times, soon.
async fn patient(
    attempts: u32,
    replies: Vec<Reply>,
    change: impl FnOnce(&mut AppOptions),
) -> (TestApp, Conversation, FakeProvider) {
    let provider = FakeProvider::start(replies).await;
    let mut options = AppOptions::with_provider(provider.base_url());
    let base = Duration::from_millis(1);
    let retry = RetryLimits { attempts_max: attempts, base, ..RetryLimits::default() };
    options.turn = TurnLimits { retry, ..options.turn };
    change(&mut options);
    let app = spawn_app_with(options).await;
    let talk = app.user("ann").await.conversation().await;
    (app, talk, provider)
}

fn half() -> Reply {
    Reply::stream().bytes(chat::text("half of an "))
}

fn busy() -> Reply {
    Reply::status(529, r#"{"error":{"message":"too busy"}}"#)
}

/// What the session says of its waits until the run ends: attempt, class.
async fn waits(talk: &mut Conversation) -> Vec<(u32, String)> {
    let mut waits = Vec::new();
    loop {
        match talk.next().await.event {
            Event::SessionStatus {
                state: SessionState::Retrying, attempt, class, message, ..
            } => {
                assert!(message.is_some_and(|message| !message.is_empty()));
                waits.push((attempt.unwrap(), class.unwrap()));
            }
            Event::RunCompleted { .. } => return waits,
            _ => {}
        }
    }
}

/// A wait, as it is told.
async fn wait_of(talk: &mut Conversation) -> (u32, String, u64) {
    loop {
        let status = talk.wait_for("session.status").await.event;
        let Event::SessionStatus { state, attempt, class, delay_ms, .. } = status else { continue };
        if state == SessionState::Retrying {
            return (attempt.unwrap(), class.unwrap(), delay_ms.unwrap());
        }
        assert_eq!((attempt, class, delay_ms), (None, None, None));
    }
}

#[tokio::test]
async fn a_model_that_fails_for_now_is_asked_again_and_its_answer_is_whole() {
    let replies = vec![half().cut(), busy(), chat::says("a whole answer")];
    let (_app, mut ann, provider) = patient(5, replies, |_| {}).await;
    let run = ann.send_message("hello").await.run_id;
    let Event::MessageTextDelta { part_id, .. } = ann.wait_for("message.text.delta").await.event
    else {
        panic!("no text");
    };
    let removed = ann.wait_for("message.part.removed").await.event;
    assert!(
        matches!(&removed, Event::MessagePartRemoved { part_id: gone, .. } if *gone == part_id)
    );
    let expected = [(2, "transient".to_owned()), (3, "overloaded".to_owned())];
    assert_eq!(waits(&mut ann).await, expected);
    let answer = ann.answer(&run).await;
    assert_eq!(text_of(&answer), "a whole answer");
    assert_eq!(answer.parts.len(), 2, "{:?}", answer.parts);
    assert_eq!(answer.error, None);
    // The same was asked each time.
    let asked = provider.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|it| it.body == asked[0].body));
}

#[tokio::test]
async fn after_a_few_attempts_the_run_fails_with_the_last_reason() {
    let replies = vec![busy(), Reply::status(500, "oops"), half().cut(), chat::says("again")];
    let (_app, mut ann, provider) = patient(3, replies, |_| {}).await;
    let run = ann.send_message("hello").await.run_id;
    let expected = [(2, "overloaded".to_owned()), (3, "transient".to_owned())];
    assert_eq!(waits(&mut ann).await, expected);
    let answer = ann.answer(&run).await;
    let error = answer.error.clone().unwrap();
    assert_eq!(code_of(&error), (ErrorCode::ProviderError, "transient"));
    assert_eq!((provider.asked().len(), text_of(&answer).as_str()), (3, "half of an "));
    assert_eq!(text_of(&ann.ask("and now?").await), "again");
}

#[tokio::test]
async fn what_another_attempt_would_not_mend_is_not_tried_again() {
    for (status, reason) in [(401, "auth"), (402, "quota"), (400, "invalid")] {
        let (_app, mut ann, provider) = patient(5, vec![Reply::status(status, "no")], |_| {}).await;
        let answer = ann.ask("hello").await;
        assert_eq!(code_of(&answer.error.unwrap()), (ErrorCode::ProviderError, reason));
        assert_eq!(provider.asked().len(), 1);
    }
}

#[tokio::test]
async fn another_model_is_asked_when_this_one_does_not_answer() {
    let fallback = ModelRef { provider_id: "demo".to_owned(), model_id: "script".to_owned() };
    let (_app, mut ann, provider) = patient(2, vec![busy(), busy()], |options| {
        options.fallback_model = Some(fallback.clone());
    })
    .await;
    let run = ann.send_message("hello").await.run_id;
    assert_eq!(wait_of(&mut ann).await.0, 2);
    let updated = ann.wait_for("message.updated").await.event;
    assert!(
        matches!(&updated, Event::MessageUpdated { message, .. } if message.model == Some(fallback.clone()))
    );
    let (attempt, class, delay_ms) = wait_of(&mut ann).await;
    assert_eq!((attempt, class.as_str(), delay_ms), (1, "overloaded", 0));
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    assert_eq!((text_of(&answer).as_str(), answer.model), ("You said: hello", Some(fallback)));
    assert_eq!(provider.asked().len(), 2);
    // The session's own model stays: the next message is for it.
    let run = ann.send_message("hello again").await.run_id;
    ann.run_ended(&run).await;
    assert!(provider.asked().len() > 2);
}

#[tokio::test]
async fn a_provider_that_wants_to_be_left_alone_is_by_every_session() {
    let later = Reply::status(429, "slow down").header("retry-after-ms", "400");
    let replies = vec![later, chat::says("one"), chat::says("other")];
    let (_app, mut ann, provider) = patient(5, replies, |_| {}).await;
    let mut bob = ann.person.conversation_in(&ann.project).await;
    let first = ann.send_message("hello").await.run_id;
    let (_, class, delay_ms) = wait_of(&mut ann).await;
    assert!(class == "rate_limited" && delay_ms >= 400, "{class} {delay_ms}");
    let second = bob.send_message("hello").await.run_id;
    let (_, class, delay_ms) = wait_of(&mut bob).await;
    assert!(class == "rate_limited" && (1..=401).contains(&delay_ms), "{class} {delay_ms}");
    assert_eq!(provider.asked().len(), 1);
    assert_eq!(ann.run_ended(&first).await, RunStatus::Completed);
    assert_eq!(bob.run_ended(&second).await, RunStatus::Completed);
    assert_eq!(provider.asked().len(), 3);
}

#[tokio::test]
async fn who_is_not_asked_has_not_failed() {
    let later = Reply::status(429, "slow down").header("retry-after-ms", "400");
    let (_app, mut ann, provider) = patient(1, vec![later, chat::says("one")], |_| {}).await;
    let mut bob = ann.person.conversation_in(&ann.project).await;
    let error = ann.ask("hello").await.error.unwrap();
    assert_eq!(code_of(&error), (ErrorCode::ProviderError, "rate_limited"));
    // It has its one attempt once the provider may be asked again.
    let run = bob.send_message("hello").await.run_id;
    let (attempt, class, delay_ms) = wait_of(&mut bob).await;
    assert!(
        attempt == 1 && class == "rate_limited" && delay_ms > 0,
        "{attempt} {class} {delay_ms}"
    );
    assert_eq!(bob.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(provider.asked().len(), 2);
}

#[tokio::test]
async fn a_wait_that_would_be_too_long_is_an_error_that_says_how_long() {
    let later = Reply::status(429, "slow down").header("retry-after", "121");
    let (_app, mut ann, _provider) = patient(5, vec![later], |_| {}).await;
    let error = ann.ask("hello").await.error.unwrap();
    assert_eq!(code_of(&error), (ErrorCode::ProviderError, "rate_limited"));
    assert_eq!(error.retry_after_ms, Some(121_000));
}

#[tokio::test]
async fn a_run_that_waits_to_ask_again_is_cancelled_at_once_and_outlives_a_restart() {
    let later = || Reply::status(429, "slow down").header("retry-after", "100");
    let replies = vec![later(), later(), chat::says("at last")];
    let (app, mut ann, _provider) = patient(5, replies, |_| {}).await;
    let run = ann.send_message("hello").await.run_id;
    let (_, _, delay_ms) = wait_of(&mut ann).await;
    assert!(delay_ms >= 100_000);
    assert_eq!(
        ann.person.snapshot(&ann.project, &ann.session).await.session.state,
        SessionState::Retrying
    );
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);

    // What the provider wants is forgotten with the server: nobody can tell how long it was.
    let app = app.restart().await;
    let mut ann = ann.resume(app.again(&ann.person)).await;
    let run = ann.send_message("hello").await.run_id;
    wait_of(&mut ann).await;
    let app = app.restart().await;
    let mut ann = ann.resume(app.again(&ann.person)).await;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Interrupted);
    let session = ann.person.snapshot(&ann.project, &ann.session).await.session;
    assert_eq!(session.state, SessionState::Interrupted);
    let request = iris_protocol::RunResume { session_id: ann.session.clone(), run_id: run.clone() };
    ann.call(request).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(text_of(&ann.answer(&run).await), "at last");
}
