//! Sub-agents: what a call of `task` sets to work, and what becomes of both when one of them ends.

use iris_protocol::*;
use iris_store::StoreError;
use iris_store::project::*;

use crate::fixture::*;

/// The session of sub-agent `n`.
fn child(n: u128) -> SessionId {
    SessionId::from_bits(100 + n)
}

/// The run of sub-agent `n`.
fn child_run(n: u128) -> RunId {
    run_id(100 + n)
}

fn ids(n: u128) -> TaskIds {
    let (message_id, run_id) = (message_id(n), run_id(n));
    TaskIds { message_id, part_id: PartId::from_bits(1_000_000 + n), run_id }
}

/// Call `n` of run 1 sets sub-agent `n` to work.
fn spawn(n: u128) -> SpawnTask {
    SpawnTask {
        session_id: session_id(),
        run_id: run_id(1),
        message_id: answer_id(1),
        tool_call_id: call_id(n),
        part_id: PartId::from_bits(4_000_000 + n),
        child: TaskChild::New { id: child(n), agent: "explore".into(), model: None },
        description: format!("look {n}"),
        prompt: "look around".into(),
        ids: ids(100 + n),
        wake: None,
        quotas: Quotas::default(),
        at: NOW + 3,
    }
}

fn in_background(n: u128) -> SpawnTask {
    SpawnTask { wake: Some(ids(200 + n)), ..spawn(n) }
}

/// With run 1, whose step made as many calls.
async fn with_calls(count: u128) -> Fixture {
    let fixture = Fixture::with_run().await;
    let calls = (1..=count).map(|n| call(n, ToolState::Running));
    fixture.write(step(1, 0, calls.collect())).await.unwrap();
    fixture.take_events();
    fixture
}

/// Sub-agent `n` says this and is done.
async fn finish_child(fixture: &Fixture, n: u128, said: &str, status: RunStatus) {
    fixture.write(start(100 + n)).await.unwrap();
    let is_failed = status == RunStatus::Failed;
    let error = is_failed.then(|| ApiError::new(ErrorCode::ProviderError, "no model"));
    let parts = vec![text(100 + n, said)];
    let reason = if is_failed { FinishReason::Error } else { FinishReason::Stop };
    let end = finish(100 + n, status, reason);
    let step = Some(end_of_step(100 + n, 0, FinishReason::Stop));
    fixture.write(FinishRun { session_id: child(n), parts, step, error, ..end }).await.unwrap();
}

async fn subtasks(fixture: &Fixture) -> Vec<SubtaskPart> {
    let parts = fixture.answer(1).await.parts.into_iter();
    let only = |part| if let Part::Subtask(part) = part { Some(part) } else { None };
    parts.filter_map(only).collect()
}

async fn session_of(fixture: &Fixture, id: SessionId) -> Session {
    fixture.reader().session(id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_call_sets_a_sub_agent_to_work_and_gets_what_it_said() {
    let fixture = with_calls(1).await;
    let part = fixture.write(spawn(1)).await.unwrap();
    assert_eq!(
        fixture.take_events(),
        [
            "S session.created",
            "P session.created",
            "S message.created",
            "S session.status",
            "P session.status",
            "S message.subtask.updated",
        ]
    );
    assert_eq!(subtasks(&fixture).await, std::slice::from_ref(&part));
    assert_eq!((part.child_run_id.clone(), part.state), (child_run(1), SubtaskState::Running));
    let session = session_of(&fixture, child(1)).await;
    assert_eq!(session.parent_id, Some(session_id()));
    assert_eq!((session.agent.as_str(), session.title.as_str()), ("explore", "look 1"));

    finish_child(&fixture, 1, "here it is", RunStatus::Completed).await;
    assert!(fixture.take_events().contains(&"S message.subtask.updated".to_owned()));
    assert_eq!(subtasks(&fixture).await[0].state, SubtaskState::Completed);
    let result = fixture.reader().task_result(child(1), child_run(1)).await.unwrap();
    assert_eq!((result.run.status, result.text.as_str()), (RunStatus::Completed, "here it is"));
}

#[tokio::test]
async fn a_call_that_is_run_again_finds_what_it_began() {
    let fixture = with_calls(1).await;
    let part = fixture.write(spawn(1)).await.unwrap();
    fixture.take_events();
    let other = TaskChild::New { id: child(9), agent: "explore".into(), model: None };
    let again = SpawnTask { child: other, ids: ids(109), ..spawn(1) };
    assert_eq!(fixture.write(again).await.unwrap(), part);
    assert!(fixture.take_events().is_empty());
}

#[tokio::test]
async fn sub_agents_are_bounded_in_number_and_in_depth() {
    let count = u128::from(limits::TASKS_OPEN_MAX);
    let fixture = with_calls(count + 1).await;
    for n in 1..=count {
        fixture.write(spawn(n)).await.unwrap();
    }
    let too_many = (ErrorCode::Conflict, "too_many_tasks".to_owned());
    assert_eq!(fixture.refusal(spawn(count + 1)).await, too_many);
    finish_child(&fixture, 1, "done", RunStatus::Completed).await;
    fixture.write(spawn(count + 1)).await.unwrap();

    // Sub-agent 2 sets one of its own to work, that one may not.
    let deeper = |above: u128, n: u128| SpawnTask {
        session_id: child(above),
        run_id: child_run(above),
        message_id: answer_id(100 + above),
        ..spawn(n)
    };
    fixture.write(start(102)).await.unwrap();
    let calls = vec![call(30, ToolState::Running)];
    let made = RecordStep { session_id: child(2), ..step(102, 0, calls) };
    fixture.write(made).await.unwrap();
    fixture.write(deeper(2, 30)).await.unwrap();
    fixture.write(start(130)).await.unwrap();
    let calls = vec![call(40, ToolState::Running)];
    fixture.write(RecordStep { session_id: child(30), ..step(130, 0, calls) }).await.unwrap();
    let too_deep = (ErrorCode::Conflict, "task_too_deep".to_owned());
    assert_eq!(fixture.refusal(deeper(30, 40)).await, too_deep);
    let above = fixture.reader().sessions_above(child(30)).await.unwrap();
    assert_eq!(above, [child(2), session_id()]);
}

#[tokio::test]
async fn a_sub_agent_can_be_set_to_work_again_by_its_own_session_alone() {
    let fixture = with_calls(3).await;
    fixture.write(spawn(1)).await.unwrap();
    let known = |id| SpawnTask { child: TaskChild::Known(id), ..spawn(2) };
    let busy = (ErrorCode::Conflict, "session_busy".to_owned());
    assert_eq!(fixture.refusal(known(child(1))).await, busy);
    finish_child(&fixture, 1, "done", RunStatus::Completed).await;
    let part = fixture.write(known(child(1))).await.unwrap();
    assert_eq!((part.child_session_id, part.child_run_id), (child(1), child_run(2)));
    fixture.write(create_session(7)).await.unwrap();
    let foreign = SpawnTask { tool_call_id: call_id(3), ..known(SessionId::from_bits(7)) };
    assert_eq!(fixture.refusal(foreign).await.0, ErrorCode::NotFound);
}

#[tokio::test]
async fn what_is_in_the_background_tells_its_session_of_its_end() {
    let fixture = with_calls(3).await;
    for n in 1..=3 {
        fixture.write(in_background(n)).await.unwrap();
        fixture.write(result(1, n, completed("it works"))).await.unwrap();
    }
    let working = fixture.reader().tasks_in_background(session_id()).await.unwrap();
    assert_eq!(working.len(), 3);
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    assert_eq!(session_of(&fixture, child(1)).await.state, SessionState::Queued);

    finish_child(&fixture, 1, "found it", RunStatus::Completed).await;
    let told = fixture.reader().message(session_id(), message_id(201)).await.unwrap().unwrap();
    assert_eq!((told.role, told.run_id.as_ref()), (MessageRole::System, Some(&run_id(201))));
    let Part::Text { text, .. } = &told.parts[0] else { panic!("{told:?}") };
    assert!(text.contains("\"look 1\"") && text.ends_with("\n\nfound it"), "{text}");
    assert_eq!(fixture.run(201).await.status, RunStatus::Queued);

    finish_child(&fixture, 2, "", RunStatus::Failed).await;
    let told = fixture.reader().message(session_id(), message_id(202)).await.unwrap().unwrap();
    assert!(format!("{told:?}").contains("no model"));

    // Of an end that a user wanted nobody is told.
    fixture.write(cancel()).await.unwrap();
    let copy = fixture.crash();
    copy.write(recover(false)).await.unwrap();
    assert_eq!(
        copy.reader().run(child_run(3)).await.unwrap().unwrap().status,
        RunStatus::Cancelled
    );
    assert_eq!(copy.reader().message(session_id(), message_id(203)).await.unwrap(), None);
    assert_eq!(copy.reader().tasks_in_background(session_id()).await.unwrap(), []);
}

#[tokio::test]
async fn an_archived_session_is_not_told() {
    let fixture = with_calls(1).await;
    fixture.write(in_background(1)).await.unwrap();
    fixture.write(finish(1, RunStatus::Completed, FinishReason::Stop)).await.unwrap();
    let archive = SetSessionStatus {
        id: session_id(),
        status: SessionStatus::Archived,
        by: ann(),
        at: NOW + 9,
    };
    let busy = (ErrorCode::Conflict, "session_busy".to_owned());
    assert_eq!(fixture.refusal(archive.clone()).await, busy);
    finish_child(&fixture, 1, "found it", RunStatus::Completed).await;
    fixture.write(cancel()).await.unwrap();
    fixture.write(start(201)).await.unwrap();
    fixture.write(archive.clone()).await.unwrap();
    assert_eq!(session_of(&fixture, child(1)).await.status, SessionStatus::Archived);
    let back = SetSessionStatus { status: SessionStatus::Active, ..archive };
    fixture.write(back).await.unwrap();
    assert_eq!(session_of(&fixture, child(1)).await.status, SessionStatus::Active);
    let purge = PurgeSession { id: session_id(), by: ann(), at: NOW + 10 };
    fixture.write(purge).await.unwrap();
    assert_eq!(fixture.reader().session(child(1)).await.unwrap(), None);
}

#[tokio::test]
async fn the_end_of_a_run_ends_what_it_waits_for_and_nothing_in_the_background() {
    let fixture = with_calls(2).await;
    fixture.write(spawn(1)).await.unwrap();
    fixture.write(in_background(2)).await.unwrap();
    fixture.write(finish(1, RunStatus::Cancelled, FinishReason::Cancelled)).await.unwrap();
    let copy = fixture.crash();
    let recovered = copy.write(recover(false)).await.unwrap();
    // The keeper of the other one is the session that set it to work.
    let unfinished = vec![session_id()];
    assert_eq!(recovered, Recovered { unfinished, cancelled: 1, ..Recovered::default() });
    let states: Vec<_> = subtasks(&copy).await.iter().map(|part| part.state).collect();
    assert_eq!(states, [SubtaskState::Cancelled, SubtaskState::Running]);
}

#[tokio::test]
async fn after_a_crash_a_run_waits_for_the_sub_agents_that_go_on() {
    let fixture = with_calls(3).await;
    for n in 1..=2 {
        fixture.write(spawn(n)).await.unwrap();
        fixture.write(start(100 + n)).await.unwrap();
    }
    let waits = vec![call(50, ToolState::Waiting)];
    fixture.write(RecordStep { session_id: child(1), ..step(101, 0, waits) }).await.unwrap();
    let copy = fixture.crash();
    let recovered = copy.write(recover(false)).await.unwrap();
    let unfinished = vec![session_id()];
    let expected = Recovered { unfinished, interrupted: 1, waiting: 2, ..Recovered::default() };
    assert_eq!(recovered, expected);
    let states: Vec<_> = copy.calls(1).await.into_iter().map(|call| call.state).collect();
    let unknown = ToolState::UnknownOutcome;
    assert_eq!(states, [ToolState::Running, unknown, unknown]);
    let open = copy.reader().open_run(session_id()).await.unwrap().unwrap();
    assert_eq!((open.run.status, open.tasks), (RunStatus::Running, vec![call_id(1)]));
    let states: Vec<_> = subtasks(&copy).await.iter().map(|part| part.state).collect();
    assert_eq!(states, [SubtaskState::Running, SubtaskState::Interrupted]);

    // Where no sub-agent goes on, neither does the run.
    let fixture = with_calls(1).await;
    fixture.write(spawn(1)).await.unwrap();
    fixture.write(start(101)).await.unwrap();
    let copy = fixture.crash();
    assert_eq!(copy.write(recover(false)).await.unwrap().interrupted, 2);
    assert_eq!(copy.run(1).await.status, RunStatus::Interrupted);
    let copy = fixture.crash();
    let recovered = copy.write(recover(true)).await.unwrap();
    assert_eq!((recovered.resumed, recovered.waiting), (1, 1));
    assert_eq!(subtasks(&copy).await[0].state, SubtaskState::Running);
}

#[tokio::test]
async fn after_a_crash_a_run_gets_what_its_sub_agents_said_before() {
    let fixture = with_calls(2).await;
    for n in 1..=2 {
        fixture.write(spawn(n)).await.unwrap();
        finish_child(&fixture, n, "here it is", RunStatus::Completed).await;
    }
    // The model has the second one's result already.
    let failed = Outcome::Failed { error: "no".into() };
    fixture.write(result(1, 2, failed)).await.unwrap();
    let copy = fixture.crash();
    assert_eq!(copy.write(recover(false)).await.unwrap().waiting, 1);
    let open = copy.reader().open_run(session_id()).await.unwrap().unwrap();
    assert_eq!(open.tasks, [call_id(1)]);
    let begun = copy.reader().begun_task(call_id(1)).await.unwrap().unwrap();
    assert_eq!((begun.child_run_id, begun.state), (child_run(1), SubtaskState::Completed));
    assert_eq!(copy.reader().begun_task(call_id(9)).await.unwrap(), None);
}

#[tokio::test]
async fn a_sub_agent_that_a_person_resumed_is_kept_by_nobody_who_has_ended() {
    let fixture = with_calls(1).await;
    fixture.write(spawn(1)).await.unwrap();
    fixture.write(start(101)).await.unwrap();
    let copy = fixture.crash();
    assert_eq!(copy.write(recover(false)).await.unwrap().interrupted, 2);
    let resumed = ResumeRun { session_id: child(1), ..resume(101) };
    copy.write(resumed).await.unwrap();
    let copy = copy.crash();
    let recovered = copy.write(recover(true)).await.unwrap();
    assert_eq!(recovered.unfinished, [child(1)]);
}

#[tokio::test]
async fn a_run_that_is_to_end_sets_nobody_to_work() {
    let fixture = with_calls(1).await;
    fixture.write(ChooseCancelled { session_id: session_id() }).await.unwrap();
    let refused = fixture.write(spawn(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Gone { what: "run" }), "{refused:?}");
}

#[tokio::test]
async fn what_waits_for_people_is_told_to_the_sessions_above() {
    let fixture = with_calls(1).await;
    fixture.write(spawn(1)).await.unwrap();
    fixture.write(start(101)).await.unwrap();
    fixture.take_events();
    let waits = vec![call(50, ToolState::Waiting), call(51, ToolState::Waiting)];
    let mut asks_both = RecordStep { session_id: child(1), ..step(101, 0, waits) };
    asks_both.approvals.pop();
    asks_both.questions.push(asks(51));
    fixture.write(asks_both).await.unwrap();
    let seen: Vec<_> = fixture.take_stored();
    let above = Room::Session(session_id());
    let told: Vec<_> = seen.iter().filter(|event| event.room == above).collect();
    let names: Vec<_> = told.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["tool.approval.required", "question.asked"]);
    for event in told {
        let payload: serde_json::Value = serde_json::from_str(&event.payload).unwrap();
        let ids = [&payload["sessionId"], &payload["childSessionId"]];
        assert_eq!(ids, [session_id().as_str(), child(1).as_str()]);
    }
    let snapshot = fixture.reader().snapshot(session_id(), 10, None).await.unwrap().unwrap();
    let (approval, question) = (&snapshot.approvals[0], &snapshot.questions[0]);
    assert_eq!(
        (&approval.session_id, &approval.child_session_id),
        (&session_id(), &Some(child(1)))
    );
    assert_eq!(
        (&question.session_id, &question.child_session_id),
        (&session_id(), &Some(child(1)))
    );

    let reader = fixture.reader();
    for id in [session_id(), child(1)] {
        let found = reader.session_of_approval(id.clone(), call_id(50)).await.unwrap();
        assert_eq!(found, Some(child(1)));
        let found = reader.session_of_question(id, question_id(51)).await.unwrap();
        assert_eq!(found, Some(child(1)));
    }
    fixture.write(create_session(7)).await.unwrap();
    let other = SessionId::from_bits(7);
    assert_eq!(reader.session_of_approval(other, call_id(50)).await.unwrap(), None);

    let decide = ResolveApproval { session_id: child(1), ..resolve(50, Decision::yes()) };
    fixture.take_events();
    fixture.write(decide).await.unwrap();
    let resolved: Vec<_> =
        fixture.take_stored().into_iter().filter(|it| it.room == above).collect();
    assert_eq!(resolved.len(), 1);
    assert_eq!(resolved[0].name, "tool.approval.resolved");
}

#[tokio::test]
async fn sessions_of_sub_agents_are_listed_under_theirs() {
    let fixture = with_calls(2).await;
    fixture.write(spawn(1)).await.unwrap();
    fixture.write(spawn(2)).await.unwrap();
    let listed = |parent| async {
        let page = fixture.reader().sessions(10, None, true, parent).await.unwrap();
        page.sessions.into_iter().map(|session| session.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(None).await, [session_id()]);
    assert_eq!(listed(Some(session_id())).await, [child(2), child(1)]);
    assert_eq!(listed(Some(child(1))).await, []);
    let unknown = fixture.reader().sessions(10, None, true, Some(child(9))).await;
    assert!(unknown.is_err());
}
