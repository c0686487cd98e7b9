//! What is used: by step, session, project, user and day, in tokens and money, through restarts.

use bytes::Bytes;
use iris_client::RestAnswer;
use iris_protocol::{
    ErrorCode, Event, Message, Part, Role, SessionDelete, SubtaskPart, UsageGet, UsageReport,
    UsageTotals,
};
use iris_store::CrashPoint;
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Person, ServerProcess, calls_of, chat, patiently,
    spawn_app, spawn_app_with,
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{ann, code_of, iris, refusal, root};

/// Sets the price of a model: so many billionths of a dollar for a million tokens.
pub(crate) async fn set_price(admin: &Person, model: (&str, &str), input: u64, output: u64) {
    let tier = json!({ "inputNanoUsd": input, "outputNanoUsd": output });
    let facts = json!({ "prices": [tier] });
    let body = json!({ "providerId": model.0, "modelId": model.1, "facts": facts });
    let answer = admin.rest("PUT", "/v1/admin/models", Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
}

async fn usage(talk: &Conversation, of_session: bool) -> UsageReport {
    let session_id = of_session.then(|| talk.session.clone());
    talk.call(UsageGet { session_id, ..UsageGet::default() }).await.unwrap()
}

fn steps(message: &Message) -> Vec<(Option<i64>, Option<String>)> {
    let steps = message.parts.iter().filter_map(|part| match part {
        Part::Step { usage, price_version, .. } => {
            Some((usage.cost_nano_usd, price_version.clone()))
        }
        _ => None,
    });
    steps.collect()
}

async fn csv(person: &Person, path: &str) -> RestAnswer {
    let headers = [("accept", "text/csv")];
    let client = &person.client;
    client.raw("GET", path, Some(person.token()), &headers, Bytes::new()).await.unwrap()
}

/// What the server knows of a user, once the projects told it.
pub(crate) async fn told(
    admin: &Person,
    person: &Person,
    is_right: impl Fn(&Value) -> bool,
) -> Value {
    let path = format!("/v1/admin/usage?userId={}", person.id());
    let asking = async {
        loop {
            let answer = admin.get(&path).await.json;
            if is_right(&answer["data"]) {
                return answer["data"].clone();
            }
        }
    };
    patiently("what a user used on the server", asking).await
}

#[tokio::test]
async fn a_step_costs_what_its_model_cost_when_it_was_asked() {
    let provider = FakeProvider::start([chat::says("a"), chat::says("b"), chat::says("c")]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let unknown = ann.ask("one").await;
    assert_eq!(steps(&unknown), [(None, None)], "an unknown price is not nothing");

    set_price(&root, ("fake", "model"), 1_000_000_000, 2_000_000_000).await;
    let known = ann.ask("two").await;
    let (cost, version) = steps(&known).remove(0);
    // Three tokens of the prompt and two of the answer.
    assert_eq!(cost, Some(3 * 1_000 + 2 * 2_000));
    assert!(version.as_ref().is_some_and(|it| it.starts_with("override-")), "{version:?}");
    assert_eq!(known.usage.unwrap().cost_nano_usd, cost);

    set_price(&root, ("fake", "model"), 9_000_000_000, 9_000_000_000).await;
    let dearer = ann.ask("three").await;
    assert_eq!(steps(&dearer)[0].0, Some(5 * 9_000));
    let report = usage(&ann, false).await;
    assert_eq!((report.total.steps, report.total.unpriced_steps), (3, 1));
    assert_eq!(report.total.usage.cost_nano_usd, None, "one of the steps is unknown");
    assert_eq!(report.total.known_cost_nano_usd, 7_000 + 45_000, "no cost is computed again");
    assert_eq!(report.rows.len(), 3, "{report:?}");
    let session = ann.person.snapshot(&ann.project, &ann.session).await.session;
    assert_eq!(session.usage.cost_nano_usd, None);
    assert_eq!(session.usage.input_tokens, 9);
}

#[tokio::test]
async fn a_session_has_what_its_sub_agents_used_and_so_it_stays() {
    let app = spawn_app().await;
    let root = app.admin().await;
    set_price(&root, ("demo", "script"), 1_000_000, 1_000_000).await;
    let mut ann = app.user("ann").await.conversation().await;
    let input = json!({ "description": "d", "prompt": "say four words of it", "agent": "general" });
    let answer = ann.ask(&format!("call task {input}\nstep\nsay done")).await;
    let subtask = answer.parts.iter().find_map(|part| match part {
        Part::Subtask(part) => Some(part.clone()),
        _ => None,
    });
    let SubtaskPart { child_session_id: child, .. } = subtask.unwrap();
    assert_eq!(calls_of(&answer).len(), 1);

    let own = ann.person.snapshot(&ann.project, &ann.session).await.session.usage;
    let childs = ann.person.snapshot(&ann.project, &child).await.session.usage;
    let all = usage(&ann, true).await.total;
    assert_eq!(all.steps, 3);
    assert_eq!(all.usage.output_tokens, own.output_tokens + childs.output_tokens);
    assert_eq!(all.usage.cost_nano_usd.unwrap(), all.known_cost_nano_usd);
    let sum = own.cost_nano_usd.unwrap() + childs.cost_nano_usd.unwrap();
    assert_eq!(all.known_cost_nano_usd, sum);
    assert_eq!(usage(&ann, false).await.total, all);

    // What is deleted was used all the same.
    let delete = |session_id| SessionDelete { session_id, permanent: Some(true) };
    ann.call(delete(child)).await.unwrap();
    assert_eq!(usage(&ann, true).await.total, all);
    ann.call(delete(ann.session.clone())).await.unwrap();
    let gone = UsageGet { session_id: Some(ann.session.clone()), ..UsageGet::default() };
    assert_eq!(refusal(ann.call(gone).await).code, ErrorCode::NotFound);
    assert_eq!(usage(&ann, false).await.total, all);
}

#[tokio::test]
async fn clients_hear_what_was_used_in_the_session_and_in_the_project() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let hears = ann.connect_to_project().await;
    ann.ask("say one two three").await;
    let frame = ann.wait_for("usage.updated").await;
    assert_eq!(frame.meta.seq, None);
    let Event::UsageUpdated { session_id, totals } = frame.event else { panic!("{frame:?}") };
    assert_eq!((&session_id, totals.steps), (&ann.session, 1));
    assert!(totals.usage.output_tokens >= 3);
    let told = async {
        loop {
            let frame = hears.next_event().await.unwrap();
            if matches!(frame.event, Event::UsageUpdated { .. }) {
                return;
            }
        }
    };
    patiently("usage.updated in the project's room", told).await;
}

#[tokio::test]
async fn the_server_knows_what_users_used_also_after_a_restart_and_counts_nothing_twice() {
    let app = spawn_app().await;
    let root = app.admin().await;
    set_price(&root, ("demo", "script"), 1_000_000, 1_000_000).await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut other = ann.person.conversation().await;
    ann.ask("say one").await;
    other.ask("say two").await;
    let is_two = |data: &Value| data["total"]["steps"] == 2;
    let before = told(&root, &ann.person, is_two).await;
    assert_eq!(before["rows"].as_array().unwrap().len(), 2, "a row for each project: {before}");

    // Told or not when it stops: it is told once.
    ann.ask("say three").await;
    let app = app.restart().await;
    let (root, mut ann) = (app.again(&root), ann.resume(app.again(&ann.person)).await);
    ann.ask("say four").await;
    let after = told(&root, &ann.person, |data| data["total"]["steps"] == 4).await;
    let here = usage(&ann, false).await.total;
    let other = app.again(&other.person).join(&other.project, &other.session).await;
    let there = usage(&other, false);
    let mut both: UsageTotals = here;
    both.add(&there.await.total);
    assert_eq!(serde_json::from_value::<UsageTotals>(after["total"].clone()).unwrap(), both);

    let budget = root.get(&format!("/v1/admin/users/{}/budget", ann.person.id())).await;
    assert_eq!(budget.json["data"]["total"]["steps"], 4);
    assert_eq!(budget.json["data"]["month"]["steps"], 4);
    let refused = ann.person.get("/v1/admin/usage").await;
    assert_eq!(refused.json["error"]["code"], "FORBIDDEN");
}

#[tokio::test]
async fn what_users_used_is_counted_once_when_the_server_is_killed_at_any_commit() {
    let directory = tempdir().unwrap();
    let armed = directory.path().join("armed");
    let server = ServerProcess::start(iris(directory.path())).await;
    let (mut admin, mut talk) = (root(&server).await, ann(&server).await.conversation().await);
    talk.ask("say one").await;
    server.kill();
    for round in 0..6 {
        let mut doomed = iris(directory.path());
        let point = CrashPoint::AfterCommitBeforeFanout.as_str();
        doomed.env("IRIS_CRASH_AT", point).env("IRIS_CRASH_WHEN", &armed);
        let server = ServerProcess::start(doomed).await;
        talk = talk.resume(Person::new(&server.client(), talk.person.grant.clone())).await;
        // What the last server left is answered by then; the sums of this one are on their way.
        talk.ask(&format!("say round {round}")).await;
        std::fs::write(&armed, "").unwrap();
        drop(talk.try_send("say whether it was heard or not", None).await);
        assert!(!server.exited().await.success(), "it committed nothing");
        std::fs::remove_file(&armed).unwrap();
    }
    let server = ServerProcess::start(iris(directory.path())).await;
    let client = server.client();
    admin = Person::new(&client, admin.grant);
    talk = talk.resume(Person::new(&client, talk.person.grant.clone())).await;
    talk.ask("say last").await;
    let recorded = usage(&talk, false).await.total;
    assert!(recorded.steps >= 8, "{recorded:?}");
    let is_all = |data: &Value| data["total"]["steps"] == recorded.steps;
    let all = told(&admin, &talk.person, is_all).await;
    assert_eq!(serde_json::from_value::<UsageTotals>(all["total"].clone()).unwrap(), recorded);
}

#[tokio::test]
async fn viewers_see_what_the_project_used_and_strangers_do_not() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say one").await;
    let (bob, eve) = (app.user("bob").await, app.user("eve").await);
    ann.person.add_member(&ann.project, &bob, Role::Viewer).await;
    let path = format!("/v1/projects/{}/usage", ann.project);
    let seen = bob.get(&path).await;
    assert_eq!(seen.json["data"]["total"]["steps"], 1);
    assert_eq!(seen.json["data"]["rows"][0]["userId"], json!(ann.person.id()));
    assert_eq!(eve.get(&path).await.json["error"]["code"], "NOT_FOUND");

    let of_session = bob.get(&format!("{path}?sessionId={}", ann.session)).await;
    assert_eq!(of_session.json["data"]["total"], seen.json["data"]["total"]);
    let long_ago = bob.get(&format!("{path}?from=0&to=86400000")).await;
    assert_eq!(long_ago.json["data"]["rows"], json!([]));
    assert_eq!(long_ago.json["data"]["total"]["usage"]["costNanoUsd"], 0);
    let refused = bob.get(&format!("{path}?from=2&to=2")).await;
    assert_eq!(refused.json["error"]["details"]["reason"], "invalid_time");
    let other = UsageGet { project_id: Some(bob.project("b").await.id), ..UsageGet::default() };
    let refused = refusal(ann.call(other).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "other_project"));
}

#[tokio::test]
async fn what_was_used_is_exported_for_spreadsheets() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say one").await;
    let table = csv(&ann.person, &format!("/v1/projects/{}/usage", ann.project)).await;
    assert_eq!(table.status, 200);
    assert!(table.headers["content-type"].to_str().unwrap().starts_with("text/csv"));
    let text = String::from_utf8(table.body.to_vec()).unwrap();
    let lines: Vec<&str> = text.split("\r\n").collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("day,projectId,userId,providerId,modelId,priceVersion,steps"));
    assert!(lines[1].contains(",demo,script,,1,1,"), "{}", lines[1]);
    told(&root, &ann.person, |data| data["total"]["steps"] == 1).await;
    let all = csv(&root, "/v1/admin/usage").await;
    let text = String::from_utf8(all.body.to_vec()).unwrap();
    assert!(text.contains(ann.project.as_str()), "{text}");
}
