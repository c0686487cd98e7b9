//! Calls that wait for a person.

use iris_protocol::*;
use iris_store::project::*;

use crate::fixture::*;

async fn waiting() -> Fixture {
    let fixture = Fixture::with_run().await;
    let calls = vec![call(1, ToolState::Waiting), call(2, ToolState::Waiting)];
    fixture.write(step(1, 0, calls)).await.unwrap();
    fixture
}

#[tokio::test]
async fn a_question_is_whole_in_the_session_and_short_in_the_project() {
    let fixture = waiting().await;
    let events = fixture.take_stored();
    let asked: Vec<_> =
        events.iter().filter(|event| event.name == "tool.approval.required").collect();
    assert_eq!(asked.len(), 4);
    for event in asked {
        let is_whole = event.payload.contains(r#""approval":{"#);
        assert_eq!(is_whole, matches!(event.room, Room::Session(_)), "{}", event.payload);
    }
    assert_eq!(told(&events[events.len() - 1]), "P session.status");
    assert_eq!(fixture.session().await.state, SessionState::Waiting);
    assert_eq!(fixture.run(1).await.status, RunStatus::Waiting);
    let snapshot = fixture.reader().snapshot(session_id(), 50, None).await.unwrap().unwrap();
    assert_eq!(snapshot.approvals.len(), 2);
    assert_eq!(snapshot.approvals[0].input, serde_json::json!({ "path": "a.txt" }));
}

#[tokio::test]
async fn the_run_goes_on_when_the_last_call_is_decided() {
    let fixture = waiting().await;
    fixture.take_events();
    let approved = fixture.write(resolve(1, Decision::yes())).await.unwrap();
    assert_eq!((approved.state, approved.by), (ApprovalState::Approved, Some(bob())));
    assert_eq!(fixture.take_events(), ["S tool.approval.resolved", "P tool.approval.resolved"]);
    assert_eq!(fixture.session().await.state, SessionState::Waiting);

    let reject = Decision::Reject { reason: Some("not this file".into()) };
    let rejected = fixture.write(resolve(2, reject)).await.unwrap();
    assert_eq!(rejected.reason.as_deref(), Some("not this file"));
    assert_eq!(
        fixture.take_events(),
        [
            "S message.tool.error",
            "S tool.approval.resolved",
            "P tool.approval.resolved",
            "S session.status",
            "P session.status"
        ]
    );
    assert_eq!(fixture.session().await.state, SessionState::Running);
    assert_eq!(fixture.run(1).await.status, RunStatus::Running);
    let calls = fixture.calls(1).await;
    assert_eq!((calls[0].state, calls[0].started_at), (ToolState::Running, Some(NOW + 5)));
    let error = calls[1].error.as_deref();
    assert_eq!(calls[1].state, ToolState::Denied);
    assert_eq!(error, Some("the user rejected this call: not this file"));
}

#[tokio::test]
async fn the_first_decision_counts() {
    let fixture = waiting().await;
    fixture.write(resolve(1, Decision::yes())).await.unwrap();
    for decision in [Decision::yes(), Decision::Reject { reason: None }, Decision::Expire] {
        let refusal = fixture.refusal(resolve(1, decision)).await;
        assert_eq!(refusal, (ErrorCode::Conflict, "already_decided".into()));
    }
    assert_eq!(fixture.refusal(resolve(9, Decision::yes())).await.0, ErrorCode::NotFound);
}

#[tokio::test]
async fn after_its_time_an_approval_is_gone() {
    let fixture = waiting().await;
    let late = ResolveApproval { at: NOW + 1001, ..resolve(1, Decision::yes()) };
    assert_eq!(fixture.refusal(late).await.0, ErrorCode::Gone);
    let expired = fixture.write(resolve(1, Decision::Expire)).await.unwrap();
    assert_eq!((expired.state, expired.by), (ApprovalState::Expired, None));
    assert_eq!(fixture.refusal(resolve(1, Decision::yes())).await.0, ErrorCode::Gone);
    let calls = fixture.calls(1).await;
    assert_eq!(calls[0].error.as_deref(), Some("nobody approved this call in time"));

    fixture.write(finish(1, RunStatus::Cancelled, FinishReason::Cancelled)).await.unwrap();
    assert_eq!(fixture.refusal(resolve(2, Decision::yes())).await.0, ErrorCode::Gone);
}
