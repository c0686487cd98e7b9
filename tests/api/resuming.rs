//! Runs that outlive the server that began them: those that wait, and those that are resumed.

use std::sync::Arc;
use std::time::Duration;

use iris_actors::ResumePolicy;
use iris_protocol::{
    ApprovalState, ErrorCode, Event, MemberUpdate, Message, MessageState, Part, ProjectUpdate,
    Role, RunGet, RunId, RunList, RunResume, RunStatus, SessionState, ToolState,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Gate, Person, Reply, TestApp, TestClock, calls_of,
    chat, patiently, spawn_app, spawn_app_with, text_of,
};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

const WRITE: &str = "call write {\"path\": \"a.txt\", \"content\": \"1\"}\nstep\nsay {{result}}";
const ENDLESS: &str = "delay 10\nchunks 10000 tick";

/// A run that waits for a person, at a server that was started again, with a message behind it.
async fn waiting(app: TestApp) -> (TestApp, Conversation, RunId, RunId) {
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(WRITE).await.run_id;
    ann.approval().await;
    let behind = ann.send_message("say behind").await.run_id;
    let app = app.restart().await;
    let again = ann.resume(app.again(&ann.person)).await;
    (app, again, run, behind)
}

/// A run that was interrupted, at a server that was started again.
async fn interrupted(app: TestApp) -> (TestApp, Conversation, RunId) {
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(ENDLESS).await.run_id;
    ann.wait_for("message.text.delta").await;
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    (app, again, run)
}

async fn resume_run(talk: &Conversation, run: &RunId) -> Result<(), iris_client::ClientError> {
    let (session_id, run_id) = (talk.session.clone(), run.clone());
    talk.call(RunResume { session_id, run_id }).await.map(drop)
}

/// What the provider was asked the `n`th time: role and content of each message but the system's.
fn conversation(provider: &FakeProvider, n: usize) -> Vec<(String, Value)> {
    let asked = provider.asked();
    let messages = asked[n].body["messages"].as_array().unwrap().iter();
    let all = messages
        .map(|message| (message["role"].as_str().unwrap().to_owned(), message["content"].clone()));
    all.filter(|(role, _)| role != "system").collect()
}

#[tokio::test]
async fn a_run_that_waits_goes_on_after_a_restart_once_it_is_approved() {
    let (_app, mut ann, run, behind) = waiting(spawn_app().await).await;
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(snapshot.session.state, SessionState::Waiting);
    assert_eq!((snapshot.queue.len(), snapshot.approvals.len()), (1, 1));
    let call = snapshot.approvals[0].tool_call_id.clone();
    assert_eq!(ann.approve(&call).await.unwrap().state, ApprovalState::Approved);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(ann.run_ended(&behind).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Completed);
    assert!(text_of(&answer).contains("created `a.txt`"), "{}", text_of(&answer));
    let path = format!("/v1/projects/{}/files/content?path=a.txt", ann.project);
    assert_eq!(ann.person.get(&path).await.headers["x-iris-file-version"], "1");
    // Nothing was said of an end before.
    let ends = ann.names().into_iter().filter(|name| *name == "run.completed").count();
    assert_eq!(ends, 2);
    let again = refusal(ann.approve(&call).await);
    assert_eq!(code_of(&again), (ErrorCode::Conflict, "already_decided"));
}

#[tokio::test]
async fn a_run_that_waits_hears_a_rejection_after_a_restart() {
    let (_app, mut ann, run, behind) = waiting(spawn_app().await).await;
    let approvals = ann.person.snapshot(&ann.project, &ann.session).await.approvals;
    ann.reject(&approvals[0].tool_call_id, "not today").await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert!(text_of(&ann.answer(&run).await).contains("not today"));
    assert_eq!(ann.run_ended(&behind).await, RunStatus::Completed);
}

#[tokio::test]
async fn a_run_that_waits_is_cancelled_after_a_restart() {
    let (_app, mut ann, run, behind) = waiting(spawn_app().await).await;
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);
    assert_eq!(calls_of(&ann.answer(&run).await)[0].state, ToolState::Cancelled);
    assert_eq!(ann.run_ended(&behind).await, RunStatus::Completed);
}

#[tokio::test]
async fn an_approval_whose_time_ended_while_the_server_was_down_expires_at_once() {
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(WRITE).await.run_id;
    let call = ann.approval().await.tool_call_id;
    clock.advance(Duration::from_mins(11));
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    let resolved = again.wait_for("tool.approval.resolved").await;
    let Event::ToolApprovalResolved { state, .. } = resolved.event else { panic!("no") };
    assert_eq!(state, ApprovalState::Expired);
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(refusal(again.approve(&call).await).code, ErrorCode::Gone);
}

#[tokio::test]
async fn an_approval_keeps_its_time_through_a_restart() {
    let options = AppOptions { approval_timeout: Duration::from_secs(2), ..AppOptions::default() };
    let (_app, mut ann, run, _) = waiting(spawn_app_with(options).await).await;
    let resolved = ann.wait_for("tool.approval.resolved").await;
    let Event::ToolApprovalResolved { state, .. } = resolved.event else { panic!("no") };
    assert_eq!(state, ApprovalState::Expired);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
}

#[tokio::test]
async fn a_resumed_run_goes_on_from_its_last_step_and_the_model_reads_what_was_done() {
    let gate = Gate::default();
    let held = Reply::stream().bytes(chat::text("It i")).wait(&gate);
    let replies = [chat::calls("list", "{\"path\": \".\"}"), held, chat::says("It is empty.")];
    let provider = FakeProvider::start(replies.into_iter().chain([chat::says("yes")])).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message("what is there?").await.run_id;
    ann.wait_until("text", |e| matches!(e, Event::MessageTextDelta { .. })).await;
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    let cut = again.answer(&run).await;

    resume_run(&again, &run).await.unwrap();
    again.wait_for("run.started").await;
    let updated = again.wait_for("message.updated").await;
    let Event::MessageUpdated { message, .. } = updated.event else { panic!("no") };
    let expected = Message {
        state: MessageState::Streaming,
        error: None,
        completed_at: None,
        parts: Vec::new(),
        ..cut.clone()
    };
    assert_eq!(message, expected);
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    let answer = again.answer(&run).await;
    assert_eq!((&answer.id, answer.state), (&cut.id, MessageState::Complete));
    assert_eq!((&answer.error, calls_of(&answer).len()), (&None, 1));
    assert!(answer.parts.starts_with(&cut.parts));
    let steps = answer.parts.iter().filter_map(|part| match part {
        Part::Step { index, .. } => Some(*index),
        _ => None,
    });
    assert_eq!(steps.collect::<Vec<_>>(), [0, 1]);
    let request = RunGet { session_id: again.session.clone(), run_id: run.clone() };
    let ended = again.call(request).await.unwrap().run;
    assert_eq!((ended.status, ended.steps, ended.error), (RunStatus::Completed, 2, None));
    assert_eq!(ended.usage, answer.usage.unwrap());

    // The words that were cut off are said to nobody again.
    let roles = |n| conversation(&provider, n).into_iter().map(|(role, _)| role);
    assert_eq!(roles(2).collect::<Vec<_>>(), ["user", "assistant", "tool"]);
    assert_eq!(conversation(&provider, 2), conversation(&provider, 1));
    again.ask("sure?").await;
    let all = conversation(&provider, 3);
    let said: Vec<_> = all.iter().filter_map(|(_, content)| content.as_str()).collect();
    assert!(said.contains(&"It is empty.") && !said.contains(&"It i"), "{all:?}");
}

#[tokio::test]
async fn a_run_is_resumed_over_rest_once_for_a_key_and_only_when_it_can_be() {
    let (_app, mut ann, run) = interrupted(spawn_app().await).await;
    let runs = format!("/v1/projects/{}/sessions/{}/runs", ann.project, ann.session);
    let resume = format!("{runs}/{run}/resume");
    let key = [("idempotency-key", "k")];
    let post = async || {
        let (token, body) = (Some(ann.person.token()), "".into());
        ann.person.client.raw("POST", &resume, token, &key, body).await.unwrap()
    };
    let (first, second) = (post().await, post().await);
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.json["data"]["status"], "running");
    assert_eq!(second.json, first.json);
    assert_eq!(second.headers["idempotent-replay"], "true");
    let busy = rest_refusal(&ann.person.post(&resume, json!({})).await);
    assert_eq!(code_of(&busy), (ErrorCode::Conflict, "run_not_interrupted"));
    assert!(ann.cancel().await);
    ann.wait_for("run.started").await;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);

    let other = ann.send_message("say other").await.run_id;
    assert_eq!(ann.run_ended(&other).await, RunStatus::Completed);
    let listed = ann.person.get(&format!("{runs}?limit=1")).await.json;
    assert_eq!(listed["data"][0]["id"], json!(other));
    let cursor = listed["meta"]["nextCursor"].as_str().unwrap();
    let listed = ann.person.get(&format!("{runs}?cursor={cursor}")).await.json;
    assert_eq!(
        (&listed["data"][0]["id"], &listed["meta"]["hasMore"]),
        (&json!(run), &json!(false))
    );
    let read = ann.person.get(&format!("{runs}/{run}")).await.json;
    assert_eq!(read["data"], listed["data"][0]);
    let missing = ann.person.get(&format!("{runs}/{}", RunId::from_bits(1))).await;
    assert_eq!(rest_refusal(&missing).code, ErrorCode::NotFound);
    let elsewhere = ann.person.session(&ann.project).await.id;
    let request = RunGet { session_id: elsewhere.clone(), run_id: run.clone() };
    assert_eq!(refusal(ann.call(request).await).code, ErrorCode::NotFound);
    let request = RunList { session_id: elsewhere, limit: None, cursor: None };
    assert_eq!(ann.call(request).await.unwrap().runs, []);
}

#[tokio::test]
async fn a_run_after_which_something_was_said_is_not_resumed() {
    let (_app, mut ann, run) = interrupted(spawn_app().await).await;
    ann.ask("say on").await;
    let refused = refusal(resume_run(&ann, &run).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "not_last_run"));
}

#[tokio::test]
async fn whoever_resumes_a_run_does_not_become_the_one_who_started_it() {
    let (app, mut ann, run) = interrupted(spawn_app().await).await;
    let bob = app.user("bob").await;
    ann.person.add_member(&ann.project, &bob, iris_protocol::Role::Member).await;
    let his = bob.join(&ann.project, &ann.session).await;
    resume_run(&his, &run).await.unwrap();
    let started = ann.wait_for("run.started").await;
    assert_eq!(started.meta.by.as_ref(), Some(bob.id()));
    let Event::RunStarted { run } = started.event else { panic!("no") };
    assert_eq!(&run.started_by, ann.person.id());
    assert!(his.cancel().await);
}

#[tokio::test]
async fn a_project_may_choose_that_its_runs_go_on_by_themselves() {
    let gate = Gate::default();
    let held = Reply::stream().bytes(chat::text("It i")).wait(&gate);
    let provider = FakeProvider::start([held, chat::says("It is.")]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let ann = app.user("ann").await.conversation().await;
    let update = |settings: Value| {
        let settings = settings.as_object().cloned();
        ProjectUpdate { name: None, description: None, settings }
    };
    for wrong in [json!("always"), json!(true), json!(null)] {
        let refused = refusal(ann.call(update(json!({ "resume": wrong }))).await);
        assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "invalid_settings"));
        assert!(refused.message.contains("`settings.resume`"), "{refused}");
    }
    ann.call(update(json!({ "resume": "auto" }))).await.unwrap();
    // It counts from the next time on that the project is opened.
    let app = app.restart().await;
    let mut ann = ann.resume(app.again(&ann.person)).await;
    let run = ann.send_message("is it?").await.run_id;
    ann.wait_for("message.text.delta").await;
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(again.answer(&run).await.state, MessageState::Complete);
    assert_eq!(provider.asked().len(), 2);
}

/// Takes away what a user may do in the project of a conversation.
async fn demote(ann: &Conversation, person: &Person) {
    let update = MemberUpdate { user_id: person.id().clone(), role: Role::Viewer };
    ann.call(update).await.unwrap();
}

#[tokio::test]
async fn a_queued_run_of_a_user_who_may_not_start_one_any_more_fails() {
    let app = spawn_app().await;
    let (mut ann, bob) = (app.user("ann").await.conversation().await, app.user("bob").await);
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    ann.send_message(ENDLESS).await;
    let his = bob.join(&ann.project, &ann.session).await.send_message(WRITE).await.run_id;
    let behind = ann.send_message("say behind").await.run_id;
    demote(&ann, &bob).await;
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&his).await, RunStatus::Failed);
    let run = ann.call(RunGet { session_id: ann.session.clone(), run_id: his }).await.unwrap().run;
    assert_eq!(code_of(&run.error.unwrap()), (ErrorCode::Forbidden, "starter_lost_access"));
    assert_eq!(ann.run_ended(&behind).await, RunStatus::Completed);
}

#[tokio::test]
async fn a_run_does_not_go_on_for_a_user_who_may_not_start_one_any_more() {
    for resume in [ResumePolicy::Manual, ResumePolicy::Auto] {
        let app = spawn_app_with(AppOptions { resume, ..AppOptions::default() }).await;
        let (ann, bob) = (app.user("ann").await.conversation().await, app.user("bob").await);
        ann.person.add_member(&ann.project, &bob, Role::Member).await;
        let mut his = bob.join(&ann.project, &ann.session).await;
        let run = his.send_message(ENDLESS).await.run_id;
        his.wait_for("message.text.delta").await;
        demote(&ann, &bob).await;
        let app = app.restart().await;
        let mut again = ann.resume(app.again(&ann.person)).await;
        let forbidden = (ErrorCode::Forbidden, "starter_lost_access");
        assert_eq!(again.run_ended(&run).await, RunStatus::Interrupted);
        match resume {
            // Somebody else who resumes it does not lend his rights to it.
            ResumePolicy::Manual => {
                assert_eq!(code_of(&refusal(resume_run(&again, &run).await)), forbidden);
                let update = MemberUpdate { user_id: bob.id().clone(), role: Role::Member };
                again.call(update).await.unwrap();
                resume_run(&again, &run).await.unwrap();
            }
            ResumePolicy::Auto => {
                assert_eq!(again.run_ended(&run).await, RunStatus::Failed);
                let run = again
                    .call(RunGet { session_id: again.session.clone(), run_id: run })
                    .await
                    .unwrap()
                    .run;
                assert_eq!(code_of(&run.error.unwrap()), forbidden);
            }
        }
    }
}

#[tokio::test]
async fn runs_whose_starter_cannot_be_looked_up_wait_until_the_root_database_is_back() {
    let gate = Gate::default();
    let held = Reply::stream().bytes(chat::text("one")).wait(&gate).bytes(chat::end("stop"));
    let provider = FakeProvider::start([held, chat::says("two"), chat::says("three")]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut runs = Vec::new();
    for text in ["1", "2", "3"] {
        runs.push(ann.send_message(text).await.run_id);
    }
    gate.reached().await;
    let (root, aside) = (app.data_dir().join("root.db"), app.data_dir().join("aside.db"));
    std::fs::rename(&root, &aside).unwrap();
    assert!(ann.person.get("/v1/projects").await.status >= 500, "it is noticed");
    gate.open();
    assert_eq!(ann.run_ended(&runs[0]).await, RunStatus::Completed);
    let waits = async {
        loop {
            for actor in app.supervision().actors(Some("orchestrator"), None) {
                let seen = app.supervision().observe(&actor.path).await;
                if seen["runId"] == runs[1].as_str() && seen["isPaused"] == true {
                    return;
                }
            }
            // What it takes to answer this is time to start in.
            app.client().rest("GET", "/health/live", None, None).await.unwrap();
        }
    };
    patiently("the second run to wait", waits).await;

    std::fs::rename(&aside, &root).unwrap();
    for run in &runs[1..] {
        let status = ann.run_ended(run).await;
        let ended = ann.call(RunGet { session_id: ann.session.clone(), run_id: run.clone() }).await;
        assert_eq!(status, RunStatus::Completed, "{ended:?}");
    }
}

#[tokio::test]
async fn nobody_approves_for_a_user_who_may_not_start_a_run_any_more() {
    let app = spawn_app().await;
    let (mut ann, bob) = (app.user("ann").await.conversation().await, app.user("bob").await);
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    let run = bob.join(&ann.project, &ann.session).await.send_message(WRITE).await.run_id;
    let call = ann.approval().await.tool_call_id;
    demote(&ann, &bob).await;
    let refused = refusal(ann.approve(&call).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "starter_lost_access"));
    // It waits as before, and others may put an end to it: nothing more is done for bob (INV-12).
    ann.reject(&call, "not for bob").await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Failed);
    assert_eq!(calls_of(&ann.answer(&run).await)[0].state, ToolState::Denied);
    let request = RunGet { session_id: ann.session.clone(), run_id: run };
    let error = ann.call(request).await.unwrap().run.error.unwrap();
    assert_eq!(code_of(&error), (ErrorCode::Forbidden, "starter_lost_access"));
    let path = format!("/v1/projects/{}/files/content?path=a.txt", ann.project);
    assert_eq!(ann.person.get(&path).await.status, 404);
}

#[tokio::test]
async fn a_run_that_works_ends_at_its_next_step_once_its_starter_may_start_none_any_more() {
    let gate = Gate::default();
    let list = chat::call("call_1", "list", "{}");
    let held = Reply::stream().wait(&gate).bytes(list).bytes(chat::end("tool_calls"));
    let provider = FakeProvider::start([held, chat::says("never")]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let (mut ann, bob) = (app.user("ann").await.conversation().await, app.user("bob").await);
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    let run = bob.join(&ann.project, &ann.session).await.send_message("look").await.run_id;
    gate.reached().await;
    demote(&ann, &bob).await;
    gate.open();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Failed);
    let answer = ann.answer(&run).await;
    let [call] = calls_of(&answer)[..] else { panic!("{answer:?}") };
    // Reading is allowed to all agents: the call is refused for the sake of its starter.
    let why = "who started or steered this run may not work in this project any more";
    assert_eq!((call.state, call.error.as_deref()), (ToolState::Denied, Some(why)));
    let request = RunGet { session_id: ann.session.clone(), run_id: run };
    let error = ann.call(request).await.unwrap().run.error.unwrap();
    assert_eq!(code_of(&error), (ErrorCode::Forbidden, "starter_lost_access"));
    assert_eq!(provider.asked().len(), 1, "the model is not asked again");
}
