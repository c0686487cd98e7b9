//! Runs that go on after they were interrupted.

use iris_protocol::*;
use iris_store::project::*;

use crate::fixture::*;

const CONFLICT: ErrorCode = ErrorCode::Conflict;

/// With a run that was interrupted while a tool of its first step ran and the model said more.
async fn interrupted() -> Fixture {
    let fixture = Fixture::with_run().await;
    let parts = vec![text(1, "I look."), call(1, ToolState::Running), call(2, ToolState::Running)];
    fixture.write(step(1, 0, parts)).await.unwrap();
    fixture.write(result(1, 2, completed("found"))).await.unwrap();
    fixture.write(checkpoint(1, vec![chunk(2, 0, "It i")])).await.unwrap();
    fixture.write(recover(false)).await.unwrap();
    fixture.take_events();
    fixture
}

#[tokio::test]
async fn a_resumed_run_goes_on_with_its_answer() {
    let fixture = interrupted().await;
    let before = fixture.answer(1).await;
    let run = fixture.write(resume(1)).await.unwrap();
    assert_eq!((run.status, run.ended_at, &run.error), (RunStatus::Running, None, &None));
    assert_eq!((run.steps, run.usage, &run.started_by), (1, usage(5), &ann()));
    assert_eq!(fixture.run(1).await, run);
    let stored = fixture.take_stored();
    assert_eq!(
        stored.iter().map(told).collect::<Vec<_>>(),
        ["S run.started", "S message.updated", "S session.status", "P session.status"]
    );
    assert!(stored.iter().all(|event| event.by == Some(bob())));

    let answer = fixture.answer(1).await;
    let expected =
        Message { state: MessageState::Streaming, error: None, completed_at: None, ..before };
    assert_eq!(answer, expected);
    let payload: serde_json::Value = serde_json::from_str(&stored[1].payload).unwrap();
    let told: Message = serde_json::from_value(payload["message"].clone()).unwrap();
    assert_eq!(told, Message { parts: Vec::new(), ..answer });
    assert_eq!(fixture.session().await.state, SessionState::Running);

    // Steps and usage count on.
    let end = finish(1, RunStatus::Completed, FinishReason::Stop);
    let step = Some(end_of_step(1, 1, FinishReason::Stop));
    let end = FinishRun { parts: vec![text(3, "It is here.")], step, ..end };
    fixture.write(end).await.unwrap();
    let run = fixture.run(1).await;
    assert_eq!((run.steps, run.usage.output_tokens), (2, 10));
    assert_eq!(fixture.session().await.usage, run.usage);
    let texts = [("I look.", false), ("It i", true), ("It is here.", false)];
    assert_eq!(fixture.texts(1).await, texts.map(|(text, cut)| (text.to_owned(), cut)));
    assert_eq!(fixture.calls(1).await[0].state, ToolState::UnknownOutcome);
}

#[tokio::test]
async fn only_the_last_run_of_a_session_at_rest_is_resumed_and_only_once() {
    let fixture = interrupted().await;
    assert_eq!(fixture.refusal(resume(2)).await.0, ErrorCode::NotFound);
    let elsewhere = ResumeRun { session_id: SessionId::from_bits(2), ..resume(1) };
    assert_eq!(fixture.refusal(elsewhere).await.0, ErrorCode::NotFound);
    let copy = fixture.crash();

    fixture.write(accept(2)).await.unwrap();
    assert_eq!(fixture.refusal(resume(1)).await, (CONFLICT, "session_busy".into()));
    assert_eq!(fixture.refusal(resume(2)).await, (CONFLICT, "run_not_interrupted".into()));
    fixture.write(start(2)).await.unwrap();
    fixture.write(finish(2, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    assert_eq!(fixture.refusal(resume(1)).await, (CONFLICT, "not_last_run".into()));
    assert_eq!(fixture.refusal(resume(2)).await, (CONFLICT, "run_not_interrupted".into()));

    let status = |status| SetSessionStatus { id: session_id(), status, by: ann(), at: NOW };
    copy.write(status(SessionStatus::Archived)).await.unwrap();
    assert_eq!(copy.refusal(resume(1)).await, (CONFLICT, "session_archived".into()));
    copy.write(status(SessionStatus::Active)).await.unwrap();
    copy.write(resume(1)).await.unwrap();
    assert_eq!(copy.refusal(resume(1)).await, (CONFLICT, "run_not_interrupted".into()));
}

#[tokio::test]
async fn a_recovery_resumes_what_it_interrupted_a_few_times_and_nothing_else() {
    let fixture = interrupted().await;
    // Interrupted by an earlier one: that was not asked for.
    assert_eq!(fixture.write(recover(true)).await.unwrap(), Recovered::default());
    fixture.write(resume(1)).await.unwrap();
    fixture.write(accept(2)).await.unwrap();
    fixture.take_events();
    let unfinished = vec![session_id()];
    for _ in 0..RESUMES_MAX {
        let recovered = fixture.write(recover(true)).await.unwrap();
        let unfinished = unfinished.clone();
        let expected = Recovered { interrupted: 1, resumed: 1, unfinished, ..Recovered::default() };
        assert_eq!(recovered, expected);
        let open = fixture.reader().open_run(session_id()).await.unwrap().unwrap();
        assert_eq!((open.run.id, open.run.status), (run_id(1), RunStatus::Running));
    }
    assert_eq!(
        fixture.take_events()[..6],
        [
            "S message.error",
            "S run.completed",
            "S session.status",
            "P session.status",
            "S run.started",
            "S message.updated"
        ]
    );
    let recovered = fixture.write(recover(true)).await.unwrap();
    assert_eq!(recovered, Recovered { interrupted: 1, unfinished, ..Recovered::default() });
    assert_eq!(fixture.run(1).await.status, RunStatus::Interrupted);
    fixture.write(start(2)).await.unwrap();
}

#[tokio::test]
async fn runs_are_listed_newest_first_in_pages() {
    let fixture = Fixture::with_session().await;
    for n in 1..=5 {
        fixture.write(accept(n)).await.unwrap();
    }
    let page = async |limit, cursor: Option<&str>| {
        let cursor = cursor.map(str::to_owned);
        fixture.reader().runs(session_id(), limit, cursor).await
    };
    let ids = |page: &RunPage| page.runs.iter().map(|run| run.id.clone()).collect::<Vec<_>>();
    let first = page(2, None).await.unwrap();
    assert_eq!((ids(&first), first.has_more), (vec![run_id(5), run_id(4)], true));
    let second = page(2, first.next_cursor.as_deref()).await.unwrap();
    assert_eq!(ids(&second), [run_id(3), run_id(2)]);
    let last = page(2, second.next_cursor.as_deref()).await.unwrap();
    assert_eq!((ids(&last), last.next_cursor, last.has_more), (vec![run_id(1)], None, false));
    assert!(page(2, Some("x")).await.is_err());
    let missing = fixture.reader().runs(SessionId::from_bits(9), 1, None).await;
    assert_eq!(missing.unwrap_err().code(), ErrorCode::NotFound);
}
