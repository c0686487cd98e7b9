//! Titles that a model makes for sessions to which nobody gave one.

use iris_actors::ContextSettings;
use iris_protocol::{ActorInfo, Event, ProjectUpdate, RunStatus, SessionCreate, SessionUpdate};
use iris_testkit::{
    AppOptions, Asked, Conversation, FakeProvider, Gate, Reply, TestApp, chat, spawn_app_with,
    text_of,
};
use serde_json::json;

/// A server whose sessions answer by a script and whose titles a provider makes.
async fn with(replies: Vec<Reply>) -> (TestApp, Conversation, FakeProvider) {
    let provider = FakeProvider::start(replies).await;
    let options = AppOptions::with_provider(provider.base_url());
    let context = ContextSettings {
        titles: true,
        small_model: options.default_model.clone(),
        ..options.context
    };
    let default_model = AppOptions::default().default_model;
    let app = spawn_app_with(AppOptions { context, default_model, ..options }).await;
    let ann = untitled(&app, "ann").await;
    (app, ann, provider)
}

async fn untitled(app: &TestApp, name: &str) -> Conversation {
    let person = app.user(name).await;
    let project = person.project("p").await.id;
    let request = SessionCreate { title: None, agent: None, model: None, mode: None };
    let session = person.client.call(Some(&project), request).await.unwrap().session;
    assert_eq!(session.title, "New session");
    person.join(&project, &session.id).await
}

/// The title that the session's room is told of next.
async fn title(talk: &mut Conversation) -> String {
    match talk.wait_for("session.updated").await.event {
        Event::SessionUpdated { session } => session.title,
        other => panic!("{other:?}"),
    }
}

async fn title_now(talk: &Conversation) -> String {
    talk.person.snapshot(&talk.project, &talk.session).await.session.title
}

#[tokio::test]
async fn a_session_gets_a_title_after_its_first_answer_and_only_one() {
    let (_app, mut ann, provider) =
        with(vec![chat::says("\"Notes on \u{1b}rhyme.\"\nOr so.")]).await;
    ann.send_message("say hello").await;
    assert_eq!(title(&mut ann).await, "Notes on rhyme");
    let session = ann.person.snapshot(&ann.project, &ann.session).await.session;
    assert_eq!(session.title, "Notes on rhyme");
    ann.ask("say more").await;
    let asked = provider.asked();
    assert_eq!(asked.len(), 1);
    let body = &asked[0].body;
    assert!(body["messages"][0]["content"].as_str().unwrap().starts_with("You write the title"));
    let message = body["messages"][1]["content"].as_str().unwrap();
    assert!(message.starts_with("<message>\nsay hello\n</message>"), "{message}");
    // What it used is in the session's usage and in no run's.
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    let request =
        iris_protocol::RunList { session_id: ann.session.clone(), limit: None, cursor: None };
    let runs = ann.call(request).await.unwrap().runs;
    let of_runs: u64 = runs.iter().map(|run| run.usage.input_tokens).sum();
    assert_eq!(snapshot.session.usage.input_tokens, of_runs + 3);
    let path = format!("/v1/projects/{}/usage?sessionId={}", ann.project, ann.session);
    let report = ann.person.get(&path).await.json;
    let rows = report["data"]["rows"].as_array().unwrap();
    let of_title = rows.iter().find(|row| row["providerId"] == "fake").unwrap();
    assert_eq!((&of_title["steps"], &of_title["usage"]["inputTokens"]), (&json!(0), &json!(3)));
}

#[tokio::test]
async fn no_title_is_made_where_a_budget_is_used_up() {
    let (app, mut ann, provider) = with(vec![chat::says("Notes")]).await;
    let settings = json!({ "budgets": { "session": { "steps": 0 } } }).as_object().cloned();
    ann.call(ProjectUpdate { name: None, description: None, settings }).await.unwrap();
    let run = ann.send_message("say one").await.run_id;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Failed);
    // By the end of another run what the first one was to begin has begun.
    let run = ann.send_message("say two").await.run_id;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Failed);
    titles_end(&app, &provider, 0).await;
    assert_eq!((title_now(&ann).await.as_str(), provider.asked().len()), ("New session", 0));
}

#[tokio::test]
async fn a_run_does_not_wait_for_its_title() {
    let gate = Gate::default();
    let slow = Reply::stream().bytes(chat::text("No")).wait(&gate);
    let slow = slow.bytes(chat::text("tes")).bytes(chat::end("stop"));
    let (_app, mut ann, _provider) = with(vec![slow]).await;
    assert_eq!(text_of(&ann.ask("say hello").await), "hello");
    gate.reached().await;
    assert_eq!(title_now(&ann).await, "New session");
    gate.open();
    assert_eq!(title(&mut ann).await, "Notes");
}

#[tokio::test]
async fn a_title_of_a_person_is_never_overwritten() {
    let gate = Gate::default();
    let slow = || Reply::stream().wait(&gate).bytes(chat::text("Notes")).bytes(chat::end("stop"));
    let (_app, mut ann, provider) = with(vec![slow()]).await;
    ann.ask("say hello").await;
    gate.reached().await;
    let title = Some("Mine".to_owned());
    let session_id = ann.session.clone();
    let rename = SessionUpdate { session_id, title, agent: None, model: None, mode: None };
    ann.call(rename).await.unwrap();
    gate.open();
    // The title comes too late; that it was made counts.
    for _ in 0..2 {
        assert_eq!(self::title(&mut ann).await, "Mine");
    }
    ann.ask("say more").await;
    assert_eq!((title_now(&ann).await.as_str(), provider.asked().len()), ("Mine", 1));

    // Nor is one that it began with.
    let title = Some("New session".to_owned());
    let request = SessionCreate { title, agent: None, model: None, mode: None };
    let session = ann.call(request).await.unwrap().session;
    let mut talk = ann.person.join(&ann.project, &session.id).await;
    talk.ask("say hello").await;
    talk.ask("say more").await;
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test]
async fn a_title_that_failed_is_made_with_the_next_run() {
    let replies = vec![Reply::status(500, "oops"), chat::says("\"\""), chat::says("Notes")];
    let (app, mut ann, provider) = with(replies).await;
    ann.ask("say one").await;
    titles_end(&app, &provider, 1).await;
    assert_eq!((title_now(&ann).await.as_str(), provider.asked().len()), ("New session", 1));
    ann.ask("say two").await;
    titles_end(&app, &provider, 2).await;
    // It said nothing that could be one.
    assert_eq!((title_now(&ann).await.as_str(), provider.asked().len()), ("New session", 2));
    ann.ask("say three").await;
    titles_end(&app, &provider, 3).await;
    assert_eq!(title_now(&ann).await, "Notes");
    // Of what was said first.
    let body = provider.asked()[2].body.clone();
    assert!(body["messages"][1]["content"].as_str().unwrap().contains("say one"));
}

#[tokio::test]
async fn a_title_that_failed_is_not_tried_again_with_the_steps_of_the_same_run() {
    let (app, mut ann, provider) =
        with(vec![Reply::status(500, "oops"), chat::says("Notes")]).await;
    let look = "call list {\"path\":\".\"}\nstep\n";
    ann.ask(&format!("{}say done", look.repeat(4))).await;
    titles_end(&app, &provider, 1).await;
    assert_eq!((title_now(&ann).await.as_str(), provider.asked().len()), ("New session", 1));
    ann.ask("say more").await;
    titles_end(&app, &provider, 2).await;
    assert_eq!(title_now(&ann).await, "Notes");
}

/// Waits until the provider was asked that often and no title is being made. One begins a moment after the end
/// of a step was told.
async fn titles_end(app: &TestApp, provider: &FakeProvider, asked: usize) {
    let is_over = |actors: &[ActorInfo]| {
        provider.asked().len() >= asked && actors.iter().all(|actor| actor.kind != "title")
    };
    app.wait_for_actors("the end of a title", is_over).await;
}

#[tokio::test]
async fn a_title_that_a_restart_cut_off_is_made_with_the_next_run() {
    let gate = Gate::default();
    let replies = vec![Reply::stream().wait(&gate), chat::says("Notes")];
    let (app, mut ann, _provider) = with(replies).await;
    ann.ask("say one").await;
    gate.reached().await;
    let app = app.restart().await;
    let mut ann = ann.resume(app.again(&ann.person)).await;
    ann.send_message("say two").await;
    assert_eq!(title(&mut ann).await, "Notes");
}

#[tokio::test]
async fn sub_agents_have_the_titles_of_their_tasks_and_scripts_make_none() {
    let (app, mut ann, provider) = with(vec![chat::says("Notes")]).await;
    let task =
        serde_json::json!({ "description": "look", "prompt": "say found", "agent": "explore" });
    ann.ask(&format!("call task {task}\nstep\nsay done")).await;
    titles_end(&app, &provider, 1).await;
    assert_eq!(provider.asked().len(), 1);

    let context = ContextSettings { titles: true, ..ContextSettings::default() };
    let app = spawn_app_with(AppOptions { context, ..AppOptions::default() }).await;
    let mut bob = untitled(&app, "bob").await;
    bob.ask("say hello").await;
    bob.ask("say more").await;
    titles_end(&app, &provider, 0).await;
    assert_eq!(title_now(&bob).await, "New session");
}

#[tokio::test]
async fn the_model_of_the_session_makes_it_where_there_is_no_small_one() {
    let provider = FakeProvider::start([chat::says("one"), chat::says("one")]).await;
    let mut options = AppOptions::with_provider(provider.base_url());
    options.context.titles = true;
    let app = spawn_app_with(options).await;
    let mut ann = untitled(&app, "ann").await;
    ann.send_message("hello").await;
    assert_eq!(title(&mut ann).await, "one");
    let asked = provider.asked();
    assert!(asked.iter().all(|asked| asked.body["model"] == "model"));
    // Not before the answer is there.
    let system = |asked: &Asked| asked.body["messages"][0]["content"].to_string();
    let is_title: Vec<bool> =
        asked.iter().map(|asked| system(asked).contains("You write the title")).collect();
    assert_eq!(is_title, [false, true]);
}
