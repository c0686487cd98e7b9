//! The actors that are alive.

use iris_protocol::ActorInfo;
use iris_testkit::spawn_app;

fn count(actors: &[ActorInfo], kind: &str) -> usize {
    actors.iter().filter(|actor| actor.kind == kind).count()
}

#[tokio::test]
async fn no_actor_is_left_of_a_run_that_ended_or_a_client_that_left() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let (stranger, waiting) = (ann.person.wire().await, ann.connect_to_project().await);
    let run = ann.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await.run_id;
    ann.approval().await;
    app.wait_for_actors("a run and three clients", |actors| {
        (count(actors, "orchestrator"), count(actors, "connection")) == (1, 3)
    })
    .await;
    ann.cancel().await;
    ann.run_ended(&run).await;
    ann.ask("say hi").await;
    app.wait_for_actors("the end of both runs", |actors| count(actors, "orchestrator") == 0).await;
    // One says goodbye, two are just gone.
    waiting.close().await;
    drop((stranger, ann));
    app.wait_for_actors("the end of all clients", |actors| count(actors, "connection") == 0).await;
}
