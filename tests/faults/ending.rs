//! A panic while the server stops: it stops all the same, and nothing acknowledged is lost.

use futures_util::future::join_all;
use iris_actors::supervision::faults::{Armed, Fault};
use iris_protocol::{RunStatus, SupervisionKind, SupervisionList};
use iris_testkit::{AppOptions, text_of};

use crate::stage::Stage;

/// The messages with which a server stops.
const LAST: &[(&str, &str, Fault)] = &[
    ("directory", "CloseAll", Fault::Panic),
    ("directory", "CloseAll", Fault::PanicLater),
    ("recorder", "StoreNow", Fault::Panic),
    ("recorder", "StoreNow", Fault::PanicLater),
    ("root", "TakeDatabase", Fault::Panic),
];

#[tokio::test]
async fn a_panic_over_any_of_the_last_messages_does_not_keep_a_server_from_stopping_cleanly() {
    join_all(LAST.iter().map(|(kind, message, fault)| stops(kind, message, *fault))).await;
}

async fn stops(kind: &'static str, message: &str, fault: Fault) {
    let stage = Stage::set(AppOptions::default()).await;
    let mut talk = stage.person.conversation().await;
    let said = talk.ask("say one").await;
    let run = talk.send_message("delay 10\nchunks 10000 tick").await.run_id;
    talk.wait_for("message.text.delta").await;
    let faults = stage.app.supervision().clone();
    faults.faults().arm(Armed { kind, message: message.to_owned(), fault, times: 1 });
    let (stopped, app) = stage.app.try_restart().await;
    assert!(stopped.is_ok(), "{kind} {message} {fault:?}: {stopped:?}");
    assert!(faults.faults().armed().is_empty(), "{kind} {message} {fault:?}");

    let mut again = talk.resume(app.again(&talk.person)).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    assert_eq!(text_of(&again.answer(said.run_id.as_ref().unwrap()).await), "one");
    assert_eq!(text_of(&again.ask("say two").await), "two");
    if kind == "directory" {
        // What happened before the log was stored for the last time is in it.
        let request =
            SupervisionList { kind: Some(SupervisionKind::Panicked), ..SupervisionList::default() };
        let log = app.again(&stage.operator).client.supervision(&request).await.unwrap();
        let last = log.records.last().unwrap();
        assert_eq!(last.message.as_deref(), Some(message), "{log:#?}");
    }
}
