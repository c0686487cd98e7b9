//! Requests are caught and watched like actors.

use iris_actors::supervision::{Panicked, current_request, guarded, in_request};
use iris_protocol::SupervisionKind;

use crate::probe::act_later;
use crate::stage::{Stage, temporary};

#[actix_rt::test]
async fn a_request_that_panics_is_an_error_for_its_caller_and_a_record() {
    let mut stage = Stage::new();
    let child = stage.spawn(temporary("one"));
    let request = guarded(child.address.vitals(), "project.list", async {
        tokio::task::yield_now().await;
        assert!(current_request().is_none(), "on purpose");
    });
    assert_eq!(in_request("req_1".into(), request).await, Err(Panicked));
    let record = stage.next(SupervisionKind::Panicked).await;
    assert_eq!(record.message.as_deref(), Some("project.list"));
    assert_eq!(record.request_id.as_deref(), Some("req_1"));
    assert_eq!(record.error.as_deref(), Some("on purpose"));
    let location = record.location.unwrap();
    assert!(location.contains("tests/supervision/requests.rs"), "{location}");
    let actor = stage.supervision.actors(None, None).remove(0);
    assert_eq!((actor.current, actor.failed), (vec![], 1));
    // Its actor does not even notice.
    assert_eq!((child.count().await, child.starts()), (1, 1));
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_request_is_work_in_progress_until_it_is_answered_or_its_caller_leaves() {
    let stage = Stage::new();
    let child = stage.spawn(temporary("one"));
    let vitals = child.address.vitals();
    let names = || {
        let actor = stage.supervision.actors(None, None).remove(0);
        actor.current.into_iter().map(|work| work.name).collect::<Vec<_>>()
    };
    let seen = guarded(vitals, "project.list", async { names() }).await;
    assert_eq!((seen, names()), (Ok(vec!["project.list".to_owned()]), vec![]));
    let mut leaves = Box::pin(guarded(vitals, "project.get", std::future::pending::<()>()));
    assert!(futures_util::poll!(&mut leaves).is_pending());
    assert_eq!(names(), ["project.get"]);
    drop(leaves);
    assert_eq!(names(), [""; 0]);
    stage.end(child).await;
}

#[actix_rt::test]
async fn a_request_of_the_node_leaves_nothing_behind() {
    let stage = Stage::new();
    let child = stage.spawn(temporary("one"));
    let ask = child.address.ask(act_later(tokio::task::yield_now()));
    assert_eq!(guarded(&stage.node, "session.list", ask).await, Ok(Ok(())));
    let crash = guarded(&stage.node, "session.get", async { panic!("on purpose") });
    assert_eq!(crash.await, Err::<(), _>(Panicked));
    stage.end(child).await;
}
