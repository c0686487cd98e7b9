//! What survives a server that stops and starts again.

use iris_client::ClientError;
use iris_protocol::{
    FinishReason, MessageState, Position, RoomRequest, RoomSince, RoomStatus, RunStatus,
    SessionState, Subscribe, ToolState,
};
use iris_testkit::{calls_of, patiently, spawn_app, text_of};

#[tokio::test]
async fn everything_acknowledged_is_there_after_a_restart() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let as_of = ann.person.snapshot(&ann.project, &ann.session).await.as_of;
    ann.ask("say one").await;
    ann.ask("call list {\"path\": \".\"}\nstep\nsay two").await;
    ann.wait_for("session.status").await;
    let (mut before, seen) =
        (ann.person.snapshot(&ann.project, &ann.session).await, ann.seen.clone());
    let app = app.restart().await;
    let person = app.again(&ann.person);
    let after = person.snapshot(&ann.project, &ann.session).await;
    before.as_of.clone_from(&after.as_of);
    assert_eq!(after, before);

    let socket = person.connect().await;
    let room = format!("session:{}", ann.session);
    let rooms = vec![RoomRequest::Since(RoomSince { room, since: Some(as_of) })];
    let joined = socket.call(Some(&ann.project), Subscribe { rooms, deltas: None }).await.unwrap();
    assert_eq!(joined.payload.rooms[0].status, RoomStatus::Replayed);
    for expected in seen.into_iter().filter(|frame| frame.meta.seq.is_some()) {
        let replayed = patiently("a replayed event", socket.next_event()).await.unwrap();
        assert_eq!(replayed, expected);
    }
    let mut again = person.join(&ann.project, &ann.session).await;
    assert_eq!(text_of(&again.ask("say three").await), "three");
}

#[tokio::test]
async fn the_position_of_a_client_is_good_across_a_restart() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say one").await;
    let status = ann.wait_for("session.status").await;
    let position = Position {
        seq: status.meta.seq.unwrap(),
        epoch: ann.person.snapshot(&ann.project, &ann.session).await.as_of.epoch,
    };
    let app = app.restart().await;
    let person = app.again(&ann.person);
    let socket = person.connect().await;
    let room = format!("session:{}", ann.session);
    let rooms = vec![RoomRequest::Since(RoomSince { room, since: Some(position.clone()) })];
    let joined = socket.call(Some(&ann.project), Subscribe { rooms, deltas: None }).await.unwrap();
    assert_eq!(joined.payload.rooms[0].status, RoomStatus::Replayed);
    person.join(&ann.project, &ann.session).await.ask("say two").await;
    let next = patiently("the next event", socket.next_event()).await.unwrap();
    assert_eq!(next.event.name(), "message.created");
    assert_eq!(next.meta.prev, Some(position.seq));
}

#[tokio::test]
async fn a_run_that_was_alive_is_interrupted_and_the_queue_goes_on() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await.run_id;
    ann.approval().await;
    let second = ann.send_message("say second").await.run_id;
    let app = app.restart().await;
    let person = app.again(&ann.person);
    let mut again = person.join(&ann.project, &ann.session).await;
    // Opening the project starts what waited; it may be over already.
    let snapshot = person.snapshot(&ann.project, &ann.session).await;
    if snapshot.session.state != SessionState::Idle {
        assert_eq!(again.run_ended(&second).await, RunStatus::Completed);
    }
    let cut = again.answer(&first).await;
    assert_eq!(cut.state, MessageState::Interrupted);
    assert_eq!(cut.error.unwrap().details["reason"], "run_interrupted");
    assert_eq!(again.answer(&second).await.finish_reason, Some(FinishReason::Stop));
    assert_eq!(text_of(&again.answer(&second).await), "second");
    let calls = again.answer(&first).await;
    assert_eq!(calls_of(&calls)[0].state, ToolState::Cancelled);
}

#[tokio::test]
async fn a_server_that_stops_says_so_to_its_clients() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (socket, talk) = (ann.connect().await, ann.conversation().await);
    app.stop().await;
    for socket in [socket, talk.socket] {
        loop {
            match patiently("the close", socket.next_frame()).await {
                Ok(_) => {}
                Err(ClientError::Closed { code, .. }) => break assert_eq!(code, 1012),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
