//! Actors that do not get on: one that holds up its thread, one that takes no messages, one that waits
//! for what never comes.

use std::thread::available_parallelism;
use std::time::Duration;

use iris_actors::supervision::faults::{Armed, Fault};
use iris_actors::supervision::{RecordFilter, WatchdogSettings};
use iris_protocol::{
    ErrorCode, Event, ExitKind, RunStatus, SessionCreate, SupervisionKind, SupervisionRecord,
};
use iris_testkit::{AppOptions, Conversation, TestApp, moment, patiently, text_of};

use crate::bystander::Bystander;
use crate::player::project_path;
use crate::stage::Stage;

/// Long enough for a bystander to talk meanwhile.
const BLOCK: Duration = Duration::from_secs(2);
/// Makes the budget of a message 200 ms, that of a write 600 ms, that of a model 4.8 s.
const HASTE: u32 = 50;

async fn watched() -> Stage {
    let watchdog = WatchdogSettings {
        tick: Duration::from_millis(20),
        thread_budget: Duration::from_millis(200),
        abort_after: None,
    };
    Stage::set(AppOptions { watchdog, ..AppOptions::default() }).await
}

/// Waits for the first record of this kind about `path` or what is under it.
async fn told(app: &TestApp, kind: SupervisionKind, path: Option<&str>) -> SupervisionRecord {
    let path = path.map(str::to_owned);
    let filter = RecordFilter { since: None, kind: Some(kind), path };
    let told = async {
        loop {
            if let Some(record) = app.supervision().log().records(&filter).into_iter().next() {
                return record;
            }
            moment().await;
        }
    };
    patiently("the log", told).await
}

fn session_path(talk: &Conversation) -> String {
    format!("{}/session/{}", project_path(&talk.project), talk.session)
}

/// Lets something go wrong in the session of a conversation.
fn arm(app: &TestApp, talk: &Conversation, kind: &'static str, message: &str, fault: Fault) {
    let armed = Armed { kind, message: message.to_owned(), fault, times: 1 };
    app.supervision().faults().arm_under(&session_path(talk), armed);
}

#[tokio::test]
async fn a_handler_that_holds_up_its_thread_is_named_and_projects_of_other_threads_go_on() {
    if available_parallelism().is_ok_and(|count| count.get() == 1) {
        // All projects share the one thread that there is.
        return;
    }
    let stage = watched().await;
    // Projects take turns on the threads.
    let mut bystander = Bystander::join(&stage.friend).await;
    bystander.begin().await;
    let project = stage.person.project("blocked").await.id;
    let path = project_path(&project);
    let armed = Armed {
        kind: "project",
        message: "Write<CreateSession>".to_owned(),
        fault: Fault::Block(BLOCK),
        times: 1,
    };
    stage.app.supervision().faults().arm_under(&path, armed);
    let request = SessionCreate { title: None, agent: None, model: None, mode: None };
    let create = stage.person.client.call(Some(&project), request);
    let meanwhile = async {
        let record = told(&stage.app, SupervisionKind::Blocked, None).await;
        assert_eq!(record.message.as_deref(), Some("Write<CreateSession>"));
        assert_eq!(record.error, Some(format!("held up by {path}")));
        assert!(record.request_id.is_some(), "{record:?}");
        let client = stage.app.client();
        assert!(!client.health_ready().await.unwrap());
        assert_eq!(client.rest("GET", "/health/live", None, None).await.unwrap().status, 200);
        bystander.check().await;
        bystander.begin().await;
        bystander.check().await;
        assert!(!client.health_ready().await.unwrap(), "the others were not faster");
    };
    let (created, ()) = tokio::join!(create, meanwhile);
    created.unwrap();
    told(&stage.app, SupervisionKind::Unblocked, None).await;
    assert!(stage.app.client().health_ready().await.unwrap());
    assert_eq!(stage.app.supervision().actors(None, Some(&path))[0].restarts, 0);
}

#[tokio::test]
async fn a_session_that_takes_no_messages_is_reported_and_healed_by_an_operator() {
    let stage = watched().await;
    stage.app.supervision().faults().shorten_budgets(HASTE);
    let mut talk = stage.person.conversation().await;
    talk.ask("say one").await;
    let path = session_path(&talk);
    arm(&stage.app, &talk, "session", "SendMessage", Fault::Freeze);
    let heal = async {
        let record = told(&stage.app, SupervisionKind::Stuck, Some(&path)).await;
        assert_eq!(record.message.as_deref(), Some("SendMessage"));
        assert!(record.counts["ageMs"] >= record.counts["budgetMs"], "{record:?}");
        let detail = stage.operator.client.actor(&path).await.unwrap();
        assert!(detail.actor.current[0].stuck, "{detail:?}");
        assert!(detail.observed.is_null());
        stage.operator.client.restart_actor(&path).await.unwrap();
    };
    let (refused, ()) = tokio::join!(talk.try_send("say two", None), heal);
    assert_eq!(refused.unwrap_err().code(), ErrorCode::Overloaded);
    assert_eq!(text_of(&talk.ask("say three").await), "three");
    let restarted = told(&stage.app, SupervisionKind::Restarted, Some(&path)).await;
    assert_eq!(restarted.reason, Some(ExitKind::Killed));
}

/// Waits until the run failed because its orchestrator was killed.
async fn killed(stage: &Stage, talk: &mut Conversation) {
    let is_end = |event: &Event| matches!(event, Event::RunCompleted { .. });
    let end = talk.wait_until("the end of the run", is_end).await;
    let Event::RunCompleted { status, error: Some(error), .. } = end.event else {
        panic!("{end:?}")
    };
    assert_eq!(
        (status, error.details["reason"].as_str()),
        (RunStatus::Failed, Some("orchestrator_killed"))
    );
    let path = session_path(talk);
    told(&stage.app, SupervisionKind::Stuck, Some(&path)).await;
    let stopped = told(&stage.app, SupervisionKind::Stopped, Some(&path)).await;
    assert_eq!(
        (stopped.actor_kind.as_str(), stopped.reason),
        ("orchestrator", Some(ExitKind::Killed))
    );
    assert_eq!(text_of(&talk.ask("say on we go").await), "on we go");
}

#[tokio::test]
async fn an_orchestrator_that_does_not_take_a_cancel_is_killed_and_its_run_fails() {
    let stage = watched().await;
    let mut talk = stage.person.conversation().await;
    stage.app.supervision().faults().shorten_budgets(HASTE);
    talk.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await;
    let call = talk.approval().await.tool_call_id;
    arm(&stage.app, &talk, "orchestrator", "Answer", Fault::Freeze);
    talk.approve(&call).await.unwrap();
    assert!(talk.cancel().await);
    killed(&stage, &mut talk).await;
}

#[tokio::test]
async fn an_orchestrator_that_waits_for_what_never_comes_is_killed_and_its_run_fails() {
    let stage = watched().await;
    let mut talk = stage.person.conversation().await;
    stage.app.supervision().faults().shorten_budgets(HASTE);
    let run = talk.send_message("delay 10\nchunks 10000 tick").await.run_id;
    talk.wait_for("message.text.delta").await;
    arm(&stage.app, &talk, "orchestrator", "Observe", Fault::Freeze);
    let path = format!("{}/orchestrator/{run}", session_path(&talk));
    stage.operator.client.actor(&path).await.unwrap();
    killed(&stage, &mut talk).await;
    let stuck = told(&stage.app, SupervisionKind::Stuck, Some(&path)).await;
    assert_eq!(stuck.message.as_deref(), Some("CallModel"));
}
