//! A project dies that has ten sessions, each with a run that streams.

use futures_util::future::join_all;
use iris_actors::supervision::faults::{Armed, Fault};
use iris_client::ClientError;
use iris_protocol::{ExitKind, MessageState, RunId, RunStatus, SupervisionKind};
use iris_testkit::{AppOptions, Conversation, patiently};

use crate::aftermath::{mark, records_since, told_of_one_panic};
use crate::bystander::Bystander;
use crate::player::project_path;
use crate::stage::Stage;

const SESSIONS: usize = 10;

/// A run that streams.
async fn talks(talk: &mut Conversation) -> RunId {
    let run = talk.send_message("delay 10\nchunks 10000 tick").await.run_id;
    talk.wait_for("message.text.delta").await;
    run
}

/// Reads on until the server closes the socket.
async fn closed(talk: &mut Conversation) -> u16 {
    loop {
        match patiently("the close", talk.socket.next_event()).await {
            Ok(frame) => talk.position.seq = frame.meta.seq.unwrap_or(talk.position.seq),
            Err(ClientError::Closed { code, .. }) => return code,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn ten_runs_of_a_project_that_dies_are_interrupted_and_everybody_comes_back_without_a_gap() {
    let stage = Stage::set(AppOptions::default()).await;
    let mut bystander = Bystander::join(&stage.friend).await;
    bystander.begin().await;
    let project = stage.person.project("ten").await.id;
    let joined = (0..SESSIONS).map(|_| stage.person.conversation_in(&project));
    let mut all = join_all(joined).await;
    let runs = join_all(all.iter_mut().map(talks)).await;
    let path = project_path(&project);
    assert_eq!(stage.app.supervision().actors(None, Some(&path)).len(), 1 + 2 * SESSIONS);

    let since = mark(&stage.app);
    let armed =
        Armed { kind: "project", message: "Observe".to_owned(), fault: Fault::Panic, times: 1 };
    stage.app.supervision().faults().arm_under(&path, armed);
    assert!(stage.operator.client.actor(&path).await.unwrap().observed.is_null());

    let back = all.iter_mut().zip(&runs).map(|(talk, run)| async {
        assert_eq!(closed(talk).await, 1011);
        // Joined with its position: whatever happened meanwhile is replayed, none of it twice.
        let mut again = talk.resume(talk.person.clone()).await;
        assert_eq!(again.run_ended(run).await, RunStatus::Interrupted);
        let mut before = talk.position.seq;
        for frame in again.seen.iter().filter(|frame| frame.meta.seq.is_some()) {
            assert_eq!(frame.meta.prev, Some(before), "{frame:?}");
            before = frame.meta.seq.unwrap();
        }
        assert_eq!(again.answer(run).await.state, MessageState::Interrupted);
        again.ask("say still here").await;
    });
    join_all(back).await;
    bystander.check().await;

    told_of_one_panic(&stage.app, since, "project", "Observe").await;
    let records = records_since(&stage.app, since);
    let ended_with_parent = |kind: &str| {
        let is_it = |record: &&iris_protocol::SupervisionRecord| {
            record.actor_kind == kind
                && (record.kind, record.reason)
                    == (SupervisionKind::Stopped, Some(ExitKind::Parent))
        };
        records.iter().filter(is_it).count()
    };
    assert_eq!(ended_with_parent("session"), SESSIONS);
    assert_eq!(ended_with_parent("orchestrator"), SESSIONS);
}
