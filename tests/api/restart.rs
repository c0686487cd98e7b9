//! What survives a server that stops and starts again.

use iris_client::ClientError;
use iris_protocol::{MessageState, RunStatus};
use iris_testkit::{patiently, spawn_app, text_of};

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

    let mut again = person.join_since(&ann.project, &ann.session, Some(as_of)).await;
    for expected in seen.into_iter().filter(|frame| frame.meta.seq.is_some()) {
        assert_eq!(again.next().await, expected);
    }
    assert_eq!(text_of(&again.ask("say three").await), "three");
}

#[tokio::test]
async fn the_position_of_a_client_is_good_across_a_restart() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say one").await;
    ann.wait_for("session.status").await;
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    again.ask("say two").await;
    assert_eq!(again.seen[0].event.name(), "message.created");
    assert_eq!(again.seen[0].meta.prev, Some(ann.position.seq));
}

#[tokio::test]
async fn a_run_that_worked_is_interrupted_and_the_queue_goes_on() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let first = ann.send_message("delay 10\nchunks 10000 tick").await.run_id;
    ann.wait_for("message.text.delta").await;
    let second = ann.send_message("say second").await.run_id;
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    assert_eq!(again.run_ended(&first).await, RunStatus::Interrupted);
    assert_eq!(again.run_ended(&second).await, RunStatus::Completed);
    let cut = again.answer(&first).await;
    assert_eq!(cut.state, MessageState::Interrupted);
    assert_eq!(cut.error.unwrap().details["reason"], "run_interrupted");
    assert_eq!(text_of(&again.answer(&second).await), "second");
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
