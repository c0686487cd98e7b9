//! Runs that wait for a place: each limit, the order that is fair, what clients see of it, and maintenance.

use iris_actors::{LineLimits, Shares};
use iris_protocol::{
    ErrorCode, Event, MaintenanceNotice, MessageDequeue, ProjectId, QueueReason, Role, RunId,
    RunStatus, ServerFrame, SessionId, WhenBusy,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Gate, Person, Reply, TestApp, chat, moment, patiently,
    spawn_app, spawn_app_with,
};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

/// Keeps a run waiting for a person.
const HOLD: &str = "call write {\"path\": \"a.txt\", \"content\": \"x\"}";

fn of_server(most: usize) -> Shares {
    Shares { runs: LineLimits { server: Some(most), ..LineLimits::NONE }, ..Shares::NONE }
}

/// A server whose first run stops at the gate; all others answer at once.
async fn held(runs: usize, shares: Shares) -> (TestApp, FakeProvider, Gate) {
    let gate = Gate::default();
    let first = Reply::stream().bytes(chat::text("first")).wait(&gate);
    let first = first.bytes(chat::end("stop"));
    let others = (1..runs).map(|_| chat::says("ok"));
    let provider = FakeProvider::start(std::iter::once(first).chain(others)).await;
    let options = AppOptions { shares, ..AppOptions::with_provider(provider.base_url()) };
    (spawn_app_with(options).await, provider, gate)
}

/// What was said last in each question to the model, in order.
fn asked(provider: &FakeProvider) -> Vec<String> {
    let last = |body: &Value| {
        let messages = body["messages"].as_array().unwrap();
        messages.last().unwrap()["content"].as_str().unwrap_or_default().to_owned()
    };
    provider.asked().iter().map(|asked| last(&asked.body)).collect()
}

/// Says something in a new session; nobody listens there.
async fn say(person: &Person, project: &ProjectId, text: &str) -> (SessionId, RunId) {
    let session = person.session(project).await.id;
    let path = format!("/v1/projects/{project}/sessions/{session}/messages");
    let sent = person.post(&path, json!({ "content": text })).await;
    assert_eq!(sent.status, 202, "{sent:?}");
    let run = sent.json["data"]["runId"].as_str().unwrap().parse().unwrap();
    (session, run)
}

/// Position and reason of the next `run.queued` of a run.
async fn queued(talk: &mut Conversation, run: &RunId) -> (u32, QueueReason) {
    let is_it = |e: &Event| matches!(e, Event::RunQueued { run_id, .. } if run_id == run);
    let frame = talk.wait_until("run.queued", is_it).await;
    assert!(frame.meta.seq.is_none(), "it is not part of the log");
    let Event::RunQueued { position, reason, .. } = frame.event else { panic!("{frame:?}") };
    (position, reason)
}

async fn run_of(talk: &Conversation, run: &RunId) -> Value {
    let (project, session) = (&talk.project, &talk.session);
    let path = format!("/v1/projects/{project}/sessions/{session}/runs/{run}");
    talk.person.get(&path).await.json["data"].clone()
}

async fn node(admin: &Person) -> Value {
    admin.get("/v1/admin/actors").await.json["data"]["node"].clone()
}

#[tokio::test]
async fn a_message_that_is_taken_out_of_the_queue_leaves_the_line() {
    let (app, _provider, gate) = held(1, of_server(1)).await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("busy").await.id;
    say(&ann, &project, "works").await;
    gate.reached().await;
    let mut bob = app.user("bob").await.conversation().await;
    let sent = bob.send_message("never mind").await;
    queued(&mut bob, &sent.run_id).await;
    let (session_id, message_id) = (bob.session.clone(), sent.message_id);
    let dequeue = MessageDequeue { session_id, message_id };
    bob.person.client.call(Some(&bob.project), dequeue).await.unwrap();
    patiently("an empty line", async {
        while node(&root).await["runs"]["waiting"] != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_somebody_who_leaves_leaves_the_line() {
    let (app, _provider, gate) = held(1, of_server(1)).await;
    let (root, ann, bob) = (app.admin().await, app.user("ann").await, app.user("bob").await);
    let project = ann.project("busy").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    say(&ann, &project, "works").await;
    gate.reached().await;
    let mut his = bob.conversation_in(&project).await;
    let run = his.send_message("never mind").await.run_id;
    assert_eq!(queued(&mut his, &run).await.0, 1);
    let mut hers = ann.conversation_in(&project).await;
    let behind = hers.send_message("behind").await.run_id;
    assert_eq!(queued(&mut hers, &behind).await.0, 2);
    assert!(bob.post(&format!("/v1/projects/{project}/leave"), json!({})).await.is_success());
    assert_eq!(queued(&mut hers, &behind).await.0, 1);
    assert_eq!(node(&root).await["runs"]["waiting"], 1);
}

#[tokio::test]
async fn a_greedy_project_does_not_hold_up_the_first_run_of_another() {
    let (app, provider, gate) = held(22, of_server(1)).await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let mut bob = app.user("bob").await.conversation().await;
    let greedy = ann.project("greedy").await.id;
    say(&ann, &greedy, "works").await;
    gate.reached().await;
    for number in 1..=20 {
        say(&ann, &greedy, &format!("greedy {number}")).await;
    }
    let run = bob.send_message("modest").await.run_id;
    assert_eq!(queued(&mut bob, &run).await, (2, QueueReason::Server));
    let mut later = bob.person.join(&bob.project, &bob.session).await;
    assert_eq!(queued(&mut later, &run).await, (2, QueueReason::Server), "who comes later is told");
    let seen = run_of(&bob, &run).await;
    assert_eq!((&seen["status"], &seen["position"]), (&json!("queued"), &json!(2)));
    let seen = node(&root).await["runs"].clone();
    assert_eq!((&seen["working"], &seen["waiting"]), (&json!(1), &json!(21)));
    let metrics = root.get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("\niris_runs_in_line 21\n"), "{metrics}");

    gate.open();
    assert_eq!(bob.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(run_of(&bob, &run).await["position"], Value::Null);
    let order = asked(&provider);
    assert_eq!(&order[..3], ["works", "greedy 1", "modest"], "{order:?}");
    let all = async {
        while provider.asked().len() < 22 {
            moment().await;
        }
    };
    patiently("all the others", all).await;
    let greedy: Vec<String> = (1..=20).map(|number| format!("greedy {number}")).collect();
    let order: Vec<String> =
        asked(&provider).into_iter().filter(|it| it.starts_with("greedy")).collect();
    assert_eq!(order, greedy, "those of one user begin in the order in which they came");
    let metrics = root.get("/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(metrics.contains("\niris_run_wait_seconds_count 21\n"), "{metrics}");
}

#[tokio::test]
async fn the_users_of_a_project_take_turns() {
    let (app, provider, gate) = held(5, of_server(1)).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("shared").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    say(&ann, &project, "works").await;
    gate.reached().await;
    for text in ["ann 1", "ann 2", "ann 3"] {
        say(&ann, &project, text).await;
    }
    let mut talk = bob.conversation_in(&project).await;
    let run = talk.send_message("bob").await.run_id;
    queued(&mut talk, &run).await;
    gate.open();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let order = asked(&provider);
    assert_eq!(&order[..3], ["works", "ann 1", "bob"], "{order:?}");
}

#[tokio::test]
async fn each_limit_is_reached_and_named() {
    let most = |server, project, user| Shares {
        runs: LineLimits { server, project, user },
        ..Shares::NONE
    };
    for (shares, expected) in [
        (most(Some(1), None, None), QueueReason::Server),
        (most(None, Some(1), None), QueueReason::Project),
        (most(None, None, Some(1)), QueueReason::User),
    ] {
        let (app, _provider, gate) = held(2, shares).await;
        let ann = app.user("ann").await;
        let project = ann.project("p").await.id;
        say(&ann, &project, "works").await;
        gate.reached().await;
        let mut talk = ann.conversation_in(&project).await;
        let run = talk.send_message("waits").await.run_id;
        assert_eq!(queued(&mut talk, &run).await, (1, expected));
        gate.open();
        assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    }
}

#[tokio::test]
async fn what_is_cancelled_while_it_waits_leaves_the_line() {
    let (app, provider, gate) = held(2, of_server(1)).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    say(&ann, &project, "works").await;
    gate.reached().await;
    let mut first = ann.conversation_in(&project).await;
    let cancelled = first.send_message("cancelled").await.run_id;
    queued(&mut first, &cancelled).await;
    let mut second = ann.conversation_in(&project).await;
    let stays = second.send_message("stays").await.run_id;
    assert_eq!(queued(&mut second, &stays).await.0, 2);
    assert!(first.cancel().await);
    assert_eq!(first.run_ended(&cancelled).await, RunStatus::Cancelled);
    assert_eq!(queued(&mut second, &stays).await.0, 1);
    gate.open();
    assert_eq!(second.run_ended(&stays).await, RunStatus::Completed);
    assert_eq!(asked(&provider), ["works", "stays"]);
}

#[tokio::test]
async fn a_run_that_waits_for_a_person_leaves_its_place_to_others() {
    let app = spawn_app_with(AppOptions { shares: of_server(1), ..AppOptions::default() }).await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut bob = app.user("bob").await.conversation().await;
    let held = ann.send_message(HOLD).await.run_id;
    let call = ann.approval().await.tool_call_id;
    bob.ask("say in the meantime").await;
    ann.approve(&call).await.unwrap();
    assert_eq!(ann.run_ended(&held).await, RunStatus::Completed);
}

/// Else the run that waits for it would wait for ever.
#[tokio::test]
async fn a_sub_agent_works_beside_the_run_that_set_it_to_work() {
    let app = spawn_app_with(AppOptions { shares: of_server(1), ..AppOptions::default() }).await;
    let mut ann = app.user("ann").await.conversation().await;
    let task = json!({ "agent": "explore", "description": "look", "prompt": "say found" });
    let run = ann.send_message(&format!("call task {task}\nstep\nsay done")).await.run_id;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(iris_testkit::text_of(&ann.answer(&run).await), "done");
}

#[tokio::test]
async fn those_who_waited_begin_after_a_restart() {
    let (app, provider, gate) = held(4, of_server(1)).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    say(&ann, &project, "works").await;
    gate.reached().await;
    let mut waiting = Vec::new();
    for text in ["one", "two", "three"] {
        waiting.push((text, say(&ann, &project, text).await));
    }
    let app = app.restart().await;
    gate.open();
    let ann = Person::new(app.client(), ann.grant.clone());
    for (text, (session, run)) in waiting {
        let path = format!("/v1/projects/{project}/sessions/{session}/runs/{run}");
        let ended = async {
            while ann.get(&path).await.json["data"]["status"] != "completed" {
                moment().await;
            }
        };
        patiently(text, ended).await;
    }
    let mut again = asked(&provider);
    again.retain(|text| text != "works");
    again.sort();
    assert_eq!(again, ["one", "three", "two"], "each begins once");
}

async fn set_maintenance(admin: &Person, maintenance: Value) -> Value {
    let change = json!({ "maintenance": maintenance });
    let changed = admin.rest("PATCH", "/v1/admin/settings", Some(change)).await;
    assert!(changed.is_success(), "{changed:?}");
    changed.json["data"].clone()
}

async fn notice(talk: &Conversation) -> MaintenanceNotice {
    let waiting = async {
        loop {
            if let ServerFrame::Maintenance(notice) = talk.socket.next_frame().await.unwrap() {
                return notice;
            }
        }
    };
    patiently("a notice", waiting).await
}

#[tokio::test]
async fn in_maintenance_no_run_begins_until_it_ends_and_a_restart_does_not_end_it() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let mut talk = ann.conversation().await;
    let works = talk.send_message(HOLD).await.run_id;
    let call = talk.approval().await.tool_call_id;
    let behind = talk.send_message("say behind").await.run_id;

    let settings = set_maintenance(&root, json!({ "message": "new disks" })).await;
    assert_eq!(settings["maintenance"]["message"], "new disks");
    let expected = MaintenanceNotice { active: true, message: Some("new disks".to_owned()) };
    assert_eq!(notice(&talk).await, expected);
    let error = refusal(talk.try_send("say no", None).await);
    assert_eq!(code_of(&error), (ErrorCode::Overloaded, "maintenance"));
    assert!(error.message.contains("new disks") && error.retry_after_ms.is_some(), "{error}");
    let joins = talk.try_send("say joined", Some(WhenBusy::Steer)).await.unwrap();
    assert_eq!(joins.run_id, works, "what works goes on");
    let ready = app.client().rest("GET", "/health/ready", None, None).await.unwrap();
    assert_eq!((ready.status, &ready.json["maintenance"]), (200, &json!(true)));

    // What works goes on, and what waits waits.
    talk.approve(&call).await.unwrap();
    assert_eq!(talk.run_ended(&works).await, RunStatus::Completed);
    assert_eq!(queued(&mut talk, &behind).await, (1, QueueReason::Maintenance));

    let app = app.restart().await;
    let root = Person::new(app.client(), root.grant.clone());
    let mut talk = talk.resume(Person::new(app.client(), ann.grant.clone())).await;
    let error = refusal(talk.try_send("say no", None).await);
    assert_eq!(code_of(&error), (ErrorCode::Overloaded, "maintenance"));
    assert_eq!(run_of(&talk, &behind).await["status"], "queued");
    assert!(set_maintenance(&root, Value::Null).await.get("maintenance").is_none());
    assert_eq!(talk.run_ended(&behind).await, RunStatus::Completed);
    talk.ask("say again").await;

    let long = json!({ "maintenance": { "message": "x".repeat(501) } });
    let refused = root.rest("PATCH", "/v1/admin/settings", Some(long)).await;
    assert_eq!(rest_refusal(&refused).code, ErrorCode::PayloadTooLarge);
}

/// Commands take their turns too.
#[tokio::test]
async fn commands_beyond_the_limit_wait_for_those_that_run() {
    let Some((app, admin)) = crate::bash::app(crate::bash::sandbox()).await else { return };
    let limits = LineLimits { server: Some(1), ..LineLimits::NONE };
    let app = app
        .restart_with(|options| options.shares = Shares { commands: limits, ..Shares::NONE })
        .await;
    let admin = Person::new(app.client(), admin.grant.clone());
    let mut first = admin.conversation().await;
    crate::bash::allow(&first, "bash", "*").await;
    let waits = "until [ -e go ]; do sleep 0.05; done";
    let call = |command: &str| format!("call bash {}", json!({ "command": command }));
    let held = first.send_message(&call(waits)).await.run_id;
    let figures = async |key: &str| node(&admin).await["commands"][key].clone();
    let until = async |key: &str| {
        let reached = async {
            while figures(key).await != json!(1) {
                moment().await;
            }
        };
        patiently(key, reached).await;
    };
    until("working").await;
    let mut second = admin.conversation_in(&first.project).await;
    let behind = second.send_message(&call("echo behind")).await.run_id;
    until("waiting").await;
    let standing = async |talk: &mut Conversation| {
        let frame = talk.wait_for("message.tool.progress").await;
        let Event::MessageToolProgress { position, reason, .. } = frame.event else {
            panic!("{frame:?}")
        };
        (position, reason)
    };
    assert_eq!(standing(&mut second).await, (Some(1), Some(QueueReason::Server)));
    first.person.client.file_put(&first.project, "go", "").await.unwrap();
    assert_eq!(first.run_ended(&held).await, RunStatus::Completed);
    assert_eq!(standing(&mut second).await, (None, None), "it does not wait any more");
    assert_eq!(second.run_ended(&behind).await, RunStatus::Completed);
    assert_eq!((figures("working").await, figures("waiting").await), (json!(0), json!(0)));
}
