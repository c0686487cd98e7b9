//! What somebody has under way who may not work in the project any more.

use iris_protocol::*;
use iris_store::project::*;

use crate::fixture::*;

fn of(user_id: UserId) -> EndWorkOf {
    EndWorkOf { user_id, at: NOW + 9 }
}

fn by(user_id: UserId, n: u128, when_busy: WhenBusy) -> AcceptMessage {
    AcceptMessage { by: user_id, when_busy, ..accept(n) }
}

async fn status(fixture: &Fixture, n: u128) -> RunStatus {
    fixture.run(n).await.status
}

#[tokio::test]
async fn runs_that_wait_their_turn_end_and_the_one_that_works_is_to_end() {
    let fixture = Fixture::with_run().await;
    fixture.write(by(bob(), 2, WhenBusy::Queue)).await.unwrap();
    fixture.write(by(ann(), 3, WhenBusy::Queue)).await.unwrap();
    fixture.write(by(bob(), 4, WhenBusy::Queue)).await.unwrap();
    fixture.take_events();

    let ended = fixture.write(of(bob())).await.unwrap();
    assert_eq!(ended.runs, [2, 4].map(|n| (session_id(), run_id(n))));
    assert_eq!(fixture.write(of(bob())).await.unwrap(), EndedWork::default());
    for (n, expected) in [
        (1, RunStatus::Running),
        (2, RunStatus::Cancelled),
        (3, RunStatus::Queued),
        (4, RunStatus::Cancelled),
    ] {
        assert_eq!(status(&fixture, n).await, expected, "{n}");
    }
    let ends = fixture.take_events().iter().filter(|it| *it == "S run.completed").count();
    assert_eq!((ends, fixture.session().await.state), (2, SessionState::Running));

    let ended = fixture.write(of(ann())).await.unwrap();
    assert_eq!(ended.runs, [1, 3].map(|n| (session_id(), run_id(n))));
    assert_eq!(status(&fixture, 3).await, RunStatus::Cancelled);
    // Until it has heard of it, and then no more.
    let ended = fixture.write(of(ann())).await.unwrap();
    assert_eq!(ended.runs, [(session_id(), run_id(1))]);
    let mut failed = finish(1, RunStatus::Failed, FinishReason::Error);
    failed.error = Some(ApiError::from(ErrorCode::Internal));
    fixture.write(failed).await.unwrap();
    assert_eq!(status(&fixture, 1).await, RunStatus::Cancelled);
    assert_eq!(fixture.write(of(ann())).await.unwrap(), EndedWork::default());
    assert_eq!(fixture.session().await.state, SessionState::Idle);
}

#[tokio::test]
async fn what_was_to_join_the_run_of_another_joins_nothing() {
    let fixture = Fixture::with_run().await;
    fixture.write(by(bob(), 2, WhenBusy::Steer)).await.unwrap();
    fixture.write(of(bob())).await.unwrap();
    assert_eq!(status(&fixture, 2).await, RunStatus::Cancelled);
    assert_eq!(fixture.write(join(1)).await.unwrap(), 0);
    assert_eq!(fixture.reader().joined_by(run_id(1)).await.unwrap(), []);
    let end = finish(1, RunStatus::Completed, FinishReason::Stop);
    assert_eq!(fixture.write(end).await.unwrap().next, None);
}

#[tokio::test]
async fn what_they_send_is_forgotten_and_what_others_send_is_not() {
    let fixture = Fixture::new();
    for (user_id, id) in [(ann(), "one"), (bob(), "two"), (bob(), "three")] {
        let upload = StoredUpload {
            id: id.to_owned(),
            user_id,
            path: format!("{id}.txt"),
            size: 10,
            sha256: sha256_of(id),
            version: None,
            expires_at: NOW + 1_000,
        };
        let begin = BeginUpload { upload, quotas: Quotas::default(), at: NOW };
        fixture.write(begin).await.unwrap();
    }
    let mut ended = fixture.write(of(bob())).await.unwrap();
    ended.uploads.sort();
    assert_eq!((ended.uploads, ended.runs), (vec!["three".to_owned(), "two".to_owned()], vec![]));
    let left = fixture.write(ExpireUploads { at: NOW + 1_000 }).await.unwrap();
    assert_eq!(left, ["one"]);
}
