//! Calls that wait for the answers of people.

use iris_protocol::*;
use iris_store::project::*;
use iris_store::{IdempotencyKey, StoreError, WriteContext};

use crate::fixture::*;

/// A step of run 1 whose calls 1 and 2 ask.
fn asking() -> RecordStep {
    let calls = vec![call(1, ToolState::Waiting), call(2, ToolState::Waiting)];
    RecordStep { approvals: Vec::new(), questions: vec![asks(1), asks(2)], ..step(1, 0, calls) }
}

async fn asked() -> Fixture {
    let fixture = Fixture::with_run().await;
    fixture.write(asking()).await.unwrap();
    fixture
}

fn answer() -> Reply {
    Reply::Answer(vec![vec!["this".into()], vec![]])
}

async fn pending(fixture: &Fixture) -> Vec<Question> {
    fixture.reader().snapshot(session_id(), 50, None).await.unwrap().unwrap().questions
}

#[tokio::test]
async fn a_question_is_whole_in_the_session_and_short_in_the_project() {
    let fixture = asked().await;
    let events = fixture.take_stored();
    let asked: Vec<_> = events.iter().filter(|event| event.name == "question.asked").collect();
    assert_eq!(asked.len(), 4);
    for event in asked {
        let is_whole = event.payload.contains(r#""question":{"#);
        assert_eq!(is_whole, matches!(event.room, Room::Session(_)), "{}", event.payload);
        assert!(event.payload.contains(r#""message":"which?""#), "{}", event.payload);
    }
    assert_eq!(fixture.session().await.state, SessionState::Waiting);
    assert_eq!(fixture.run(1).await.status, RunStatus::Waiting);
    let pending = pending(&fixture).await;
    assert_eq!(pending.len(), 2);
    let found = fixture.reader().question(session_id(), question_id(1)).await.unwrap();
    assert_eq!(found.as_ref(), pending.first());
    let elsewhere = fixture.reader().question(SessionId::from_bits(9), question_id(1)).await;
    assert_eq!(elsewhere.unwrap(), None);
}

#[tokio::test]
async fn an_answer_is_the_result_and_the_run_goes_on_with_the_last_one() {
    let fixture = asked().await;
    fixture.take_events();
    let answered = fixture.write(respond(1, answer())).await.unwrap();
    assert_eq!((answered.state, answered.by), (QuestionState::Answered, Some(bob())));
    let told = ["S message.tool.result", "S question.resolved", "P question.resolved"];
    assert_eq!(fixture.take_events(), told);
    assert_eq!(fixture.session().await.state, SessionState::Waiting);

    let reject = Reply::Reject { reason: Some("guess".into()) };
    fixture.write(respond(2, reject)).await.unwrap();
    assert_eq!(
        fixture.take_events(),
        [
            "S message.tool.error",
            "S question.resolved",
            "P question.resolved",
            "S session.status",
            "P session.status"
        ]
    );
    assert_eq!(fixture.run(1).await.status, RunStatus::Running);
    let calls = fixture.calls(1).await;
    assert_eq!((calls[0].state, calls[0].ended_at), (ToolState::Completed, Some(NOW + 5)));
    assert_eq!(calls[0].output.as_deref(), Some("which?\n- this\n\nwhy?\n- (none)"));
    let error = calls[1].error.as_deref();
    assert_eq!(
        (calls[1].state, error),
        (ToolState::Denied, Some("the user refused to answer: guess"))
    );
    assert_eq!(pending(&fixture).await, []);
}

#[tokio::test]
async fn a_call_that_needs_a_yes_and_one_that_asks_wait_for_each_other() {
    let fixture = Fixture::with_run().await;
    let both = asking();
    let approvals = step(1, 0, vec![call(2, ToolState::Waiting)]).approvals;
    let questions = both.questions[..1].to_vec();
    fixture.write(RecordStep { approvals, questions, ..both }).await.unwrap();
    fixture.write(respond(1, answer())).await.unwrap();
    assert_eq!(fixture.run(1).await.status, RunStatus::Waiting);
    fixture.write(resolve(2, Decision::yes())).await.unwrap();
    assert_eq!(fixture.run(1).await.status, RunStatus::Running);

    let fixture = Fixture::with_run().await;
    let both = asking();
    let approvals = step(1, 0, vec![call(2, ToolState::Waiting)]).approvals;
    let questions = both.questions[..1].to_vec();
    fixture.write(RecordStep { approvals, questions, ..both }).await.unwrap();
    fixture.write(resolve(2, Decision::yes())).await.unwrap();
    assert_eq!(fixture.run(1).await.status, RunStatus::Waiting);
    fixture.write(respond(1, answer())).await.unwrap();
    assert_eq!(fixture.run(1).await.status, RunStatus::Running);
}

#[tokio::test]
async fn the_first_reply_counts_and_after_its_time_a_question_is_gone() {
    let fixture = asked().await;
    fixture.write(respond(1, answer())).await.unwrap();
    for late in [answer(), Reply::Reject { reason: None }, Reply::Expire] {
        let refusal = fixture.refusal(respond(1, late)).await;
        assert_eq!(refusal, (ErrorCode::Conflict, "already_decided".into()));
    }
    assert_eq!(fixture.refusal(respond(9, answer())).await.0, ErrorCode::NotFound);
    let late = ResolveQuestion { at: NOW + 1001, ..respond(2, answer()) };
    assert_eq!(fixture.refusal(late).await.0, ErrorCode::Gone);
    let expired = fixture.write(respond(2, Reply::Expire)).await.unwrap();
    assert_eq!((expired.state, expired.by), (QuestionState::Expired, None));
    assert_eq!(fixture.refusal(respond(2, answer())).await.0, ErrorCode::Gone);
    let error = fixture.calls(1).await[1].error.clone();
    assert_eq!(error.as_deref(), Some("nobody answered in time"));
}

#[tokio::test]
async fn a_run_that_ends_takes_its_questions_with_it() {
    let fixture = asked().await;
    fixture.take_events();
    fixture.write(finish(1, RunStatus::Cancelled, FinishReason::Cancelled)).await.unwrap();
    let told = fixture.take_events();
    assert_eq!(told.iter().filter(|name| *name == "S question.resolved").count(), 2, "{told:?}");
    let calls = fixture.calls(1).await;
    assert!(calls.iter().all(|call| call.state == ToolState::Cancelled));
    assert_eq!(fixture.refusal(respond(1, answer())).await.0, ErrorCode::Gone);
}

#[tokio::test]
async fn a_question_waits_through_a_crash_and_keeps_the_project_under_way() {
    let fixture = asked().await.crash();
    assert!(fixture.database().has_open_work().unwrap());
    let recovered = fixture.write(recover(true)).await.unwrap();
    assert_eq!((recovered.waiting, recovered.interrupted), (1, 0));
    let open = fixture.reader().open_run(session_id()).await.unwrap().unwrap();
    let ids: Vec<_> = open.questions.iter().map(|question| question.id.clone()).collect();
    assert_eq!((open.approvals.len(), ids), (0, vec![question_id(1), question_id(2)]));
    let calls = fixture.calls(1).await;
    assert!(calls.iter().all(|call| call.state == ToolState::Waiting));
    fixture.write(respond(1, answer())).await.unwrap();
}

#[tokio::test]
async fn a_repeat_with_its_key_answers_the_first_answer() {
    let fixture = asked().await;
    let key = || IdempotencyKey {
        user_id: bob(),
        operation: "question.answer".into(),
        key: "k".into(),
        body_hash: "b".into(),
        at: NOW,
    };
    let context = || WriteContext { idempotency: Some(key()), audit: None };
    let first = fixture.commit(respond(1, answer()), context()).await.unwrap();
    let second = fixture.commit(respond(1, answer()), context()).await.unwrap();
    assert_eq!((first.replayed, second.replayed), (false, true));
    assert_eq!(first.output, second.output);
}

#[tokio::test]
async fn questions_are_listed_by_state_and_session_in_pages() {
    let fixture = asked().await;
    let page = async |session, state, limit, cursor| {
        fixture.reader().questions(session, state, limit, cursor).await
    };
    let first = page(None, QuestionState::Pending, 1, None).await.unwrap();
    assert_eq!((&first.questions[0].id, first.has_more), (&question_id(2), true));
    let second = page(None, QuestionState::Pending, 1, first.next_cursor).await.unwrap();
    assert_eq!((&second.questions[0].id, second.has_more), (&question_id(1), false));
    fixture.write(respond(1, answer())).await.unwrap();
    let answered = page(Some(session_id()), QuestionState::Answered, 50, None).await.unwrap();
    let answers = answered.questions[0].answers.clone();
    assert_eq!(answers, Some(vec![vec!["this".to_owned()], vec![]]));
    let nowhere = page(Some(SessionId::from_bits(9)), QuestionState::Pending, 1, None).await;
    assert!(matches!(nowhere, Err(StoreError::NotFound { what: "session" })));
    let nonsense = page(None, QuestionState::Pending, 1, Some("x".into())).await;
    assert!(matches!(nonsense, Err(StoreError::InvalidCursor { .. })));
}

#[tokio::test]
async fn a_page_of_questions_has_a_bounded_size_and_at_least_one() {
    let fixture = Fixture::with_run().await;
    let large = |n: u128| {
        let text = "x".repeat(PAGE_BYTES_MAX / 2 + 1);
        let item = QuestionItem { text, options: Vec::new(), multiple: false };
        NewQuestion { questions: vec![item], ..asks(n) }
    };
    let calls = (1..=3).map(|n| call(n, ToolState::Waiting)).collect();
    let questions = vec![large(1), large(2), asks(3)];
    let asking = RecordStep { approvals: Vec::new(), questions, ..step(1, 0, calls) };
    fixture.write(asking).await.unwrap();
    let reader = fixture.reader();
    let (mut cursor, mut pages) = (None, Vec::new());
    loop {
        let page = reader.questions(None, QuestionState::Pending, 200, cursor).await.unwrap();
        pages.push(page.questions.into_iter().map(|it| it.id).collect::<Vec<_>>());
        assert_eq!(page.has_more, page.next_cursor.is_some());
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(pages, [vec![question_id(3), question_id(2)], vec![question_id(1)]]);
}

/// What a call that runs asks.
fn during(n: u128, id: u128) -> AskDuringCall {
    AskDuringCall {
        session_id: session_id(),
        run_id: run_id(1),
        message_id: answer_id(1),
        question: NewQuestion { id: question_id(id), ..asks(n) },
        at: NOW + 2,
    }
}

#[tokio::test]
async fn a_call_that_runs_may_ask_more_than_once_and_the_answers_are_not_its_result() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![call(1, ToolState::Running)])).await.unwrap();
    fixture.take_events();
    let question = fixture.write(during(1, 1)).await.unwrap();
    assert_eq!((question.state, question.tool_call_id), (QuestionState::Pending, call_id(1)));
    assert_eq!(fixture.take_events(), ["S question.asked", "P question.asked"]);
    // Nothing waits: the run works.
    assert_eq!(fixture.run(1).await.status, RunStatus::Running);
    fixture.write(respond(1, answer())).await.unwrap();
    assert_eq!(fixture.take_events(), ["S question.resolved", "P question.resolved"]);
    assert_eq!(fixture.calls(1).await[0].state, ToolState::Running);

    fixture.write(during(1, 2)).await.unwrap();
    let withdrawn = fixture.write(respond(2, Reply::Withdraw)).await.unwrap();
    assert_eq!(withdrawn.state, QuestionState::Cancelled);
    assert_eq!(pending(&fixture).await, []);
    let late = fixture.refusal(respond(2, answer())).await;
    assert_eq!(late.0, ErrorCode::Gone);
}

#[tokio::test]
async fn a_call_that_does_not_run_cannot_ask_so() {
    let fixture = Fixture::with_run().await;
    let calls = vec![call(1, ToolState::Error), call(2, ToolState::Waiting)];
    fixture.write(step(1, 0, calls)).await.unwrap();
    for n in [1, 2] {
        let refused = fixture.refusal(during(n, n)).await;
        assert_eq!(refused, (ErrorCode::Conflict, "not_running".into()));
    }
    assert_eq!(fixture.refusal(during(3, 3)).await.0, ErrorCode::NotFound);
    assert_eq!(pending(&fixture).await, []);
}

#[tokio::test]
async fn questions_of_calls_that_ran_end_with_the_server_and_those_of_calls_that_wait_stay() {
    let fixture = Fixture::with_run().await;
    let calls = vec![call(1, ToolState::Running), call(2, ToolState::Waiting)];
    let step = RecordStep { approvals: Vec::new(), questions: vec![asks(2)], ..step(1, 0, calls) };
    fixture.write(step).await.unwrap();
    fixture.write(during(1, 1)).await.unwrap();
    let recovered = fixture.write(recover(false)).await.unwrap();
    assert_eq!((recovered.waiting, recovered.interrupted), (1, 0));
    let left: Vec<_> = pending(&fixture).await.into_iter().map(|it| it.id).collect();
    assert_eq!(left, [question_id(2)]);
    assert_eq!(fixture.calls(1).await[0].state, ToolState::UnknownOutcome);
    let open = fixture.reader().open_run(session_id()).await.unwrap().unwrap();
    assert_eq!(open.questions.len(), 1);
}

#[tokio::test]
async fn the_end_of_a_run_ends_what_its_running_calls_asked() {
    let fixture = Fixture::with_run().await;
    fixture.write(step(1, 0, vec![call(1, ToolState::Running)])).await.unwrap();
    fixture.write(during(1, 1)).await.unwrap();
    let recovered = fixture.write(recover(false)).await.unwrap();
    assert_eq!((recovered.waiting, recovered.interrupted), (0, 1));
    assert_eq!(pending(&fixture).await, []);
}
