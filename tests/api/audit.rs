//! The audit as administrators and operators see it; and the heads of requests that are refused (H1, H3, H7,
//! H9 to H11, H17 of the threat model).

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use iris_actors::AuditSettings;
use iris_protocol::{ErrorCode, Role, SessionExport, SessionId};
use iris_sandbox::{Sandbox, Tier};
use iris_store::maintenance::check_audit;
use iris_store::root::AuditHead;
use iris_testkit::{
    AppOptions, PASSWORD, Person, ServerProcess, TestApp, TestClock, moment, patiently, spawn_app,
    spawn_app_with,
};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::{bash, code_of, hang_up, iris, rest_refusal, root};

const NOON_MS: i64 = 1_790_000_000_000;

/// Action, target and result of what the audit holds, oldest first.
async fn audited(root: &Person, query: &str) -> Vec<(String, String, String)> {
    let answer = root.get(&format!("/v1/admin/audit?limit=200&{query}")).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let records = answer.json["data"].as_array().unwrap().iter();
    records.map(|r| (text(&r["action"]), text(&r["target"]), text(&r["result"]))).rev().collect()
}

#[tokio::test]
async fn what_is_done_with_rights_is_recorded_with_who_from_where_with_what_and_the_result() {
    let app = spawn_app().await;
    let (root, ann, ben) = (app.admin().await, app.user("ann").await, app.user("ben").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &ben, Role::Member).await;
    let place = format!("/v1/projects/{project}");
    let member = format!("{place}/members/{}", ben.id());
    ann.rest("PATCH", &member, Some(json!({ "role": "viewer" }))).await;
    let rule = json!({ "permission": "edit", "pattern": "a", "action": "ask" });
    ann.post(&format!("{place}/permissions"), rule.clone()).await;
    assert_eq!(ben.post(&format!("{place}/permissions"), rule).await.status, 403);
    ann.rest("DELETE", &member, None).await;

    let found = audited(&root, &format!("projectId={project}")).await;
    let (p, b) = (project.to_string(), ben.id().to_string());
    let record = |action: &str, target: &str, result: &str| {
        (action.to_owned(), target.to_owned(), result.to_owned())
    };
    assert_eq!(
        found,
        [
            record("project.member.add", &b, "done"),
            record("project.member.update", &b, "done"),
            record("permission.create", &p, "begun"),
            record("permission.create", &p, "done"),
            record("permission.create", &p, "FORBIDDEN insufficient_role"),
            record("project.member.remove", &b, "done"),
        ]
    );
    let newest = root.get("/v1/admin/audit?limit=1&action=project.member.update").await;
    let newest = &newest.json["data"][0];
    assert_eq!(
        (&newest["userId"], &newest["details"]["role"]),
        (&json!(ann.id()), &json!("viewer"))
    );
    assert!(newest["ip"].as_str().unwrap().starts_with("127."));
    assert!(newest["credential"].as_str().unwrap().starts_with("aus_"));
    assert!(newest["requestId"].is_string());
    assert_eq!(newest["hash"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn conversations_that_are_taken_along_are_recorded() {
    let app = spawn_app().await;
    let (root, ann, ben) = (app.admin().await, app.user("ann").await, app.user("ben").await);
    let mut talk = ann.conversation().await;
    talk.ask("say hello").await;
    ann.add_member(&talk.project, &ben, Role::Viewer).await;
    let (project, session) = (talk.project.to_string(), talk.session.clone());
    let path = |id: &str| format!("/v1/projects/{project}/sessions/{id}/export?format=markdown");
    assert!(ben.get(&path(session.as_str())).await.is_success());
    let export = SessionExport { session_id: session.clone(), format: None };
    ann.client.call(Some(&talk.project), export).await.unwrap();
    let nowhere = SessionId::from_bits(1);
    assert_eq!(ben.get(&path(nowhere.as_str())).await.status, 404);

    let told = records_of(&root, "session.export").await;
    let (ann, ben) = (ann.id().as_str(), ben.id().as_str());
    let expected = [
        (ben, session.as_str(), "begun"),
        (ben, session.as_str(), "done"),
        (ann, session.as_str(), "begun"),
        (ann, session.as_str(), "done"),
        (ben, nowhere.as_str(), "begun"),
        (ben, nowhere.as_str(), "NOT_FOUND"),
    ];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let told: Vec<_> = told
        .iter()
        .map(|it| (text(&it["userId"]), text(&it["details"]["sessionId"]), text(&it["result"])))
        .collect();
    assert_eq!(told, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
}

#[tokio::test]
async fn logins_keys_and_passwords_are_recorded_without_secrets() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    assert!(app.client().login("ann@example.com", "wrong wrong").await.is_err());
    assert!(app.client().login("nobody@example.com", PASSWORD).await.is_err());
    let made = ann.post("/v1/api-keys", json!({ "name": "k" })).await.json["data"].clone();
    ann.rest("DELETE", &format!("/v1/api-keys/{}", made["id"].as_str().unwrap()), None).await;
    ann.post("/v1/auth/logout", json!({})).await;
    let all = audited(&root, "").await;
    let has = |action: &str, target: &str, result: &str| {
        all.iter().any(|(a, t, r)| (a.as_str(), t.as_str(), r.as_str()) == (action, target, result))
    };
    let (ann_id, key_id) = (ann.id().as_str(), made["id"].as_str().unwrap());
    assert!(has("auth.setup", root.id().as_str(), "done"), "{all:?}");
    assert!(has("auth.register", ann_id, "done"));
    assert!(has("auth.login", ann_id, "UNAUTHENTICATED invalid_credentials"));
    assert!(has("auth.login", "account", "UNAUTHENTICATED invalid_credentials"));
    assert!(has("key.create", key_id, "done") && has("key.revoke", key_id, "done"));
    assert!(has("auth.logout", ann_id, "done"));
    let text = root.get("/v1/admin/audit?limit=200").await.json.to_string();
    for secret in [PASSWORD, "wrong wrong", made["key"].as_str().unwrap(), "nobody@example.com"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn what_is_done_with_accounts_and_invitations_and_what_is_read_of_people_is_recorded() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("p").await.id;
    let change = json!({ "currentPassword": PASSWORD, "newPassword": "another good one 1" });
    let changed = ann.rest("PUT", "/v1/auth/password", Some(change)).await;
    let ann = Person::new(app.client(), changed.data().unwrap());
    let place = format!("/v1/admin/users/{}", ann.id());
    let link = root.post(&format!("{place}/password-reset"), json!({})).await;
    let body = json!({ "token": link.json["data"]["token"], "newPassword": "a third good one 2" });
    let set = app.client().rest("POST", "/v1/auth/password/reset", None, Some(&body)).await;
    assert!(set.unwrap().is_success());
    let grant = app.client().login("ann@example.com", "a third good one 2").await.unwrap();
    let ann = Person::new(app.client(), grant);
    assert!(ann.get("/v1/me/export").await.is_success());
    assert!(root.get(&format!("{place}/export")).await.is_success());
    let invite = json!({ "role": "viewer" });
    let invited = ann.post(&format!("/v1/projects/{project}/invitations"), invite).await;
    assert!(invited.is_success(), "{invited:?}");
    assert!(root.post("/v1/admin/invitations", json!({})).await.is_success());
    let delete = json!({ "currentPassword": "a third good one 2" });
    let archived = ann.rest("DELETE", &format!("/v1/projects/{project}"), None).await;
    assert!(archived.is_success(), "{archived:?}");
    assert!(ann.rest("DELETE", "/v1/me", Some(delete)).await.is_success());

    let (a, r) = (ann.id().as_str(), root.id().as_str());
    for (action, by, target, has_login) in [
        ("auth.password.change", a, a, true),
        ("admin.user.password.reset", r, a, true),
        // Whoever has the link.
        ("auth.password.reset", a, a, false),
        ("user.export", a, a, true),
        ("admin.user.export", r, a, true),
        ("invitation.create", a, project.as_str(), true),
        ("admin.invitation.create", r, r, true),
        ("project.delete", a, project.as_str(), true),
        ("user.delete", a, a, true),
    ] {
        let found = records_of(&root, action).await;
        assert_eq!(found.len(), 1, "{action}: {found:?}");
        let text = |field: &str| found[0][field].as_str().unwrap_or_default();
        assert_eq!(
            (text("userId"), text("target"), text("result")),
            (by, target, "done"),
            "{action}"
        );
        assert_eq!(text("ip"), "127.0.0.1", "{action}");
        assert_eq!(text("credential").starts_with("aus_"), has_login, "{action}: {found:?}");
        assert!(!text("requestId").is_empty(), "{action}");
    }
}

#[tokio::test]
async fn the_audit_is_exported_line_by_line_and_verified_against_a_head_that_was_kept() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let refused = rest_refusal(&ann.get("/v1/admin/audit/export").await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "not_admin"));
    let head = root.get("/v1/admin/audit").await.json["meta"]["head"].as_str().unwrap().to_owned();
    let export = root.get("/v1/admin/audit/export").await;
    let text = String::from_utf8(export.body.to_vec()).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.last().unwrap()["action"], "admin.audit.export");
    let ids: Vec<u64> = lines.iter().map(|line| line["id"].as_u64().unwrap()).collect();
    assert!(ids.iter().copied().eq(1..=ids.len() as u64), "{ids:?}");

    let command = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_iris"));
        command.env_clear().arg("audit").args(args).arg("--data-dir").arg(app.data_dir());
        command.stdin(Stdio::null()).output().unwrap()
    };
    let verify = |args: &[&str]| {
        let output = command(&[&["verify"], args].concat());
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = verify(&["--head", &head]);
    assert_eq!(code, Some(0), "{said}");
    let other = format!("1:{}", "0".repeat(64));
    assert_eq!(verify(&["--head", &other]).0, Some(1));
    assert_eq!(verify(&["--head", "x"]).0, Some(2));

    let exported = command(&["export"]);
    let exported = String::from_utf8(exported.stdout).unwrap();
    assert!(exported.starts_with(text.lines().next().unwrap()), "{exported}");

    let path = app.data_dir().join("root.db");
    let conn = rusqlite::Connection::open(path).unwrap();
    let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'audit_is_not_changed'";
    let trigger: String = conn.query_row(trigger, [], |row| row.get(0)).unwrap();
    conn.execute_batch("DROP TRIGGER audit_is_not_changed").unwrap();
    conn.execute("UPDATE audit SET target = 'x' WHERE id = 2", []).unwrap();
    conn.execute_batch(&trigger).unwrap();
    let (code, said) = verify(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("record 2"), "{said}");
}

#[tokio::test]
async fn old_records_are_let_go_when_the_server_starts_and_the_rest_is_sound() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let audit = AuditSettings { kept: Some(Duration::from_hours(24)), records_max: 0 };
    let options = AppOptions { clock: Some(clock.clone()), audit, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let root = app.admin().await;
    app.user("ann").await;
    let old = root.get("/v1/admin/audit").await.json["data"][0]["id"].as_u64().unwrap();
    let head = root.get("/v1/admin/audit").await.json["meta"]["head"].as_str().unwrap().to_owned();
    clock.advance(Duration::from_hours(25));
    let app = app.restart().await;
    let grant = app.client().login("root@example.com", PASSWORD).await.unwrap();
    let root = Person::new(app.client(), grant);
    let page = root.get("/v1/admin/audit").await.json;
    // The newest of the old ones had nobody behind it yet.
    let of = |record: &Value| {
        (record["id"].as_u64().unwrap(), record["action"].as_str().unwrap().to_owned())
    };
    let found: Vec<_> = page["data"].as_array().unwrap().iter().map(of).collect();
    let expected = [(old + 2, "auth.login"), (old + 1, "audit.trim"), (old, "auth.login")];
    let expected = expected.map(|(id, action)| (id, action.to_owned()));
    assert_eq!(found, expected);
    assert_eq!(page["meta"]["hasMore"], false);
    let known = head.split_once(':').unwrap();
    let known = AuditHead { id: known.0.parse().unwrap(), hash: known.1.to_owned() };
    let verdict = check_audit(&app.data_dir().join("root.db"), Some(&known)).unwrap();
    assert_eq!((verdict.let_go, verdict.records, verdict.damage), (old - 1, 3, None));
}

/// The records of an action, oldest first.
async fn records_of(person: &Person, action: &str) -> Vec<Value> {
    let page = person.get(&format!("/v1/admin/audit?limit=200&action={action}")).await;
    page.json["data"].as_array().unwrap().iter().rev().cloned().collect()
}

/// What is known of the sandbox before each record of it, and then.
async fn sandboxes(person: &Person) -> Vec<(Value, Value)> {
    let records = records_of(person, "server.sandbox").await;
    for record in &records {
        assert_eq!((&record["target"], &record["result"]), (&json!("sandbox"), &json!("done")));
        // The server itself did it.
        for nobody in ["userId", "credential", "ip", "projectId"] {
            assert!(record.get(nobody).is_none(), "{record}");
        }
    }
    let states = records.into_iter().map(|record| record["details"].clone());
    states.map(|details| (details["before"].clone(), details["now"].clone())).collect()
}

fn no_sandbox() -> Value {
    json!({ "tier": null, "minimum": "off", "missing": [] })
}

#[tokio::test]
async fn a_start_records_the_sandbox_where_it_is_another_than_the_last_that_was_recorded() {
    let app = spawn_app().await;
    let root = app.admin().await;
    assert_eq!(sandboxes(&root).await, [(Value::Null, no_sandbox())]);
    let settings = root.get("/v1/admin/settings").await;
    assert_eq!(settings.json["data"]["chosen"], json!([]), "nobody chose it");
    let app = app.restart().await;
    assert_eq!(sandboxes(&app.again(&root)).await.len(), 1, "the same is not told again");

    let app = app.restart_with(|options| options.sandbox = Some(bash::broken_sandbox())).await;
    let found = sandboxes(&app.again(&root)).await;
    assert_eq!((found.len(), &found[1].0), (2, &no_sandbox()));
    let broken = found[1].1.clone();
    assert_eq!(broken["minimum"], "S2");
    assert!(["S0", "S1"].contains(&broken["tier"].as_str().unwrap()), "{broken}");
    assert!(!broken["missing"].as_array().unwrap().is_empty(), "{broken}");
    let app = app.restart().await;
    assert_eq!(sandboxes(&app.again(&root)).await.len(), 2, "the self-test finds the same");

    let stricter = iris_sandbox::Config { minimum: Tier::S3, ..bash::broken_sandbox() };
    let app = app.restart_with(|options| options.sandbox = Some(stricter)).await;
    let found = sandboxes(&app.again(&root)).await;
    let mut expected = broken.clone();
    expected["minimum"] = json!("S3");
    assert_eq!(found[2..], [(broken, expected.clone())]);

    // The one of this machine, whatever that holds.
    let tier = Sandbox::start(bash::sandbox()).await.tier().to_string();
    let app = app.restart_with(|options| options.sandbox = Some(bash::sandbox())).await;
    let root = app.again(&root);
    let found = sandboxes(&root).await;
    assert_eq!((found.len(), &found[3].0), (4, &expected));
    assert_eq!(
        (&found[3].1["tier"], &found[3].1["minimum"]),
        (&json!(tier), &json!("S2")),
        "{found:?}"
    );
    // It is there before anything that this server did.
    let newest = root.get("/v1/admin/audit?limit=1").await;
    assert_eq!(newest.json["data"][0]["action"], "server.sandbox");
    let verdict = check_audit(&app.data_dir().join("root.db"), None).unwrap();
    assert_eq!(verdict.damage, None);
}

#[tokio::test]
async fn what_was_told_of_the_sandbox_stays_known_when_its_record_is_let_go() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let audit = AuditSettings { kept: Some(Duration::from_hours(24)), records_max: 0 };
    let options = AppOptions { clock: Some(clock.clone()), audit, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let root = app.admin().await;
    clock.advance(Duration::from_hours(25));
    root.project("p").await;
    let app = app.restart().await;
    let grant = app.client().login("root@example.com", PASSWORD).await.unwrap();
    let root = Person::new(app.client(), grant);
    let let_go = async {
        while !sandboxes(&root).await.is_empty() {
            moment().await;
        }
    };
    patiently("the old records to go", let_go).await;
    let app = app.restart().await;
    assert_eq!(sandboxes(&app.again(&root)).await, []);
    let app = app.restart_with(|options| options.sandbox = Some(bash::broken_sandbox())).await;
    let found = sandboxes(&app.again(&root)).await;
    assert_eq!((found.len(), &found[0].0), (1, &no_sandbox()));
}

#[tokio::test]
async fn a_sandbox_is_recorded_once_though_the_server_is_killed_and_a_reload_changes_nothing_of_it()
{
    let dir = tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("iris.toml"));
    let serve = || {
        let mut command = iris(&data);
        command.env("IRIS_CONFIG", &file);
        command
    };
    let wants = |minimum: &str| {
        std::fs::write(&file, format!("sandbox_minimum = '{minimum}'\n")).unwrap();
    };
    wants("off");
    ServerProcess::start(serve()).await.kill();
    wants("S3");
    ServerProcess::start(serve()).await.kill();
    let server = ServerProcess::start(serve()).await;
    let admin = root(&server).await;
    let found = sandboxes(&admin).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((&found[0].1, &found[1].0), (&no_sandbox(), &no_sandbox()));
    assert_eq!(found[1].1["minimum"], "S3");

    // What is read again counts for the sandbox with the next start, which the audit has too.
    let before = admin.get("/health/ready").await.json["sandbox"].clone();
    wants("S2");
    hang_up(&server);
    let reloaded = async {
        loop {
            if let Some(record) = records_of(&admin, "server.reload").await.pop() {
                return record;
            }
            moment().await;
        }
    };
    let record = patiently("the reload", reloaded).await;
    assert_eq!(record["details"]["withNextStart"], json!(["sandbox_minimum"]));
    assert_eq!(sandboxes(&admin).await, found);
    assert_eq!(admin.get("/health/ready").await.json["sandbox"], before);
    assert!(server.terminate().await.success());

    let server = ServerProcess::start(serve()).await;
    let admin = Person::new(&server.client(), admin.grant.clone());
    let later = sandboxes(&admin).await;
    assert_eq!((later.len(), &later[2].0, &later[2].1["minimum"]), (3, &found[1].1, &json!("S2")));
    let mut verify = std::process::Command::new(env!("CARGO_BIN_EXE_iris"));
    verify.env_clear().args(["audit", "verify", "--data-dir"]).arg(&data).stdin(Stdio::null());
    let verified = verify.output().unwrap();
    assert!(verified.status.success(), "{verified:?}");
    assert!(server.terminate().await.success());
}

/// Whoever decides what a model may do.
#[tokio::test]
async fn each_answer_to_an_approval_is_recorded_with_who_from_where_with_which_key_on_what() {
    let app = spawn_app().await;
    let (root, ann, eve) = (app.admin().await, app.user("ann").await, app.user("eve").await);
    let mut talk = ann.conversation().await;
    ann.add_member(&talk.project, &eve, Role::Viewer).await;
    let made = ann.post("/v1/api-keys", json!({ "name": "answers" })).await.json["data"].clone();
    let (key, key_id) = (made["key"].as_str().unwrap(), &made["id"]);
    let place = format!("/v1/projects/{}/sessions/{}/approvals", talk.project, talk.session);
    let mut ours = Vec::new();
    for (number, (verb, body, facts)) in [
        ("approve", json!({}), json!({})),
        ("approve", json!({ "remember": "once" }), json!({ "remember": "once" })),
        ("approve", json!({ "remember": "session" }), json!({ "remember": "session" })),
        ("approve", json!({ "remember": "project" }), json!({ "remember": "project" })),
        (
            "approve",
            json!({ "input": { "path": "edited.txt", "content": "a secret of ann" } }),
            json!({ "edited": true }),
        ),
        ("reject", json!({ "reason": "a secret of ann" }), json!({})),
    ]
    .into_iter()
    .enumerate()
    {
        let input = json!({ "path": format!("{number}.txt"), "content": "a secret of the model" });
        let run = talk.send_message(&format!("call write {input}\nstep\nsay done")).await.run_id;
        let call = talk.approval().await.tool_call_id;
        let path = format!("{place}/{call}/{verb}");
        // Whoever may only look on is refused, and that is recorded too.
        let refused = rest_refusal(&eve.post(&path, json!({})).await);
        assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "insufficient_role"));
        let headers = [JSON, ("x-request-id", "of-the-answer")];
        let text = body.to_string().into();
        let answer = app.client().raw("POST", &path, Some(key), &headers, text).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        talk.run_ended(&run).await;

        let found = root.get(&format!("/v1/admin/audit?target={call}")).await;
        let found = found.json["data"].as_array().unwrap();
        let results: Vec<&Value> = found.iter().rev().map(|record| &record["result"]).collect();
        assert_eq!(results, ["FORBIDDEN insufficient_role", "begun", "done"]);
        let mut details = facts;
        details["sessionId"] = json!(talk.session);
        details["toolCallId"] = json!(call);
        let of_eve = &found[2];
        assert_eq!(
            (&of_eve["userId"], &of_eve["details"]["toolCallId"]),
            (&json!(eve.id()), &json!(call))
        );
        assert!(of_eve["credential"].as_str().unwrap().starts_with("aus_"), "{of_eve}");
        details["tool"] = json!("write");
        for record in &found[..2] {
            assert_eq!(record["action"], format!("tool.{verb}"));
            assert_eq!((&record["userId"], &record["credential"]), (&json!(ann.id()), key_id));
            assert_eq!(
                (&record["ip"], &record["requestId"]),
                (&json!("127.0.0.1"), &json!("of-the-answer"))
            );
            assert_eq!(
                (&record["projectId"], &record["details"]),
                (&json!(talk.project), &details)
            );
        }
        ours.push(call);
    }
    // What was answered already.
    let again = ann.post(&format!("{place}/{}/approve", ours[0]), json!({})).await;
    let refused = rest_refusal(&again);
    assert_eq!(refused.code, ErrorCode::Conflict);
    let found = root.get(&format!("/v1/admin/audit?target={}", ours[0])).await;
    let results = found.json["data"].as_array().unwrap().iter().rev().skip(3);
    let results: Vec<&Value> = results.map(|record| &record["result"]).collect();
    let refused = format!("CONFLICT {}", code_of(&refused).1);
    assert_eq!(results, ["begun", refused.trim_end()], "each once");
    let all = root.get("/v1/admin/audit?limit=200").await.json.to_string();
    for secret in ["a secret of", key] {
        assert!(!all.contains(secret), "{secret}");
    }
}

async fn raw(
    app: &TestApp,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> iris_client::RestAnswer {
    app.client().raw(method, path, None, headers, body.to_owned().into()).await.unwrap()
}

const JSON: (&str, &str) = ("content-type", "application/json");

/// H1, H7.
#[tokio::test]
async fn a_body_with_a_field_twice_or_one_that_nobody_knows_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let login = |body: &'static str| raw(&app, "POST", "/v1/auth/login", &[JSON], body);
    let twice = r#"{"email":"ann@example.com","password":"a","password":"b"}"#;
    let error = rest_refusal(&login(twice).await);
    assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "invalid_json"));
    assert!(error.message.starts_with("a field stands twice at line 1"), "{error}");
    for broken in ["{", r#"{"email":"a"} x"#, "[]", r#"{"email":"a","password":"b","x":1}"#] {
        assert_eq!(rest_refusal(&login(broken).await).code, ErrorCode::InvalidRequest, "{broken}");
    }
    // H2.
    let deep = "[".repeat(10_000);
    let error = rest_refusal(&raw(&app, "POST", "/v1/auth/login", &[JSON], &deep).await);
    assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "invalid_json"));
    let mut socket = ann.wire().await;
    socket.say(r#"{"id":"1","type":"ping","payload":{"a":1,"a":2}}"#).await;
    assert_eq!(socket.next_json().await["error"]["details"]["reason"], "invalid_json");
}

/// H3, H11.
#[tokio::test]
async fn a_head_or_a_body_that_is_too_long_is_refused() {
    let app = spawn_app().await;
    let url = format!("/v1/me?x={}", "y".repeat(9 * 1024));
    let error = rest_refusal(&raw(&app, "GET", &url, &[], "").await);
    assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "url_too_long"));
    let long = "z".repeat(33 * 1024);
    let error = rest_refusal(&raw(&app, "GET", "/v1/me", &[("x-long", &long)], "").await);
    assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "headers_too_large"));
    let large = "x".repeat(65 * 1024);
    let refused = rest_refusal(&raw(&app, "POST", "/v1/auth/login", &[JSON], &large).await);
    assert_eq!(refused.code, ErrorCode::PayloadTooLarge);
}

/// H17, and what every answer tells browsers.
#[tokio::test]
async fn no_page_is_told_that_it_may_call_and_no_answer_is_kept_or_framed() {
    let options = AppOptions {
        allowed_origins: vec!["https://app.example".to_owned()],
        ..AppOptions::default()
    };
    let app = spawn_app_with(options).await;
    let preflight = async |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        raw(&app, "OPTIONS", "/v1/auth/login", &headers, "").await
    };
    let listed = preflight("https://app.example").await;
    assert_eq!(listed.headers["access-control-allow-origin"], "https://app.example");
    for origin in ["https://evil.example", "null", "https://app.example.evil.com"] {
        let refused = preflight(origin).await;
        assert!(!refused.headers.contains_key("access-control-allow-origin"), "{origin}");
        assert_eq!(refused.status, 403);
    }
    let answer = raw(&app, "GET", "/health/live", &[], "").await;
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.headers[name], value);
    }
    assert!(answer.headers.contains_key("content-security-policy"));
}

/// H10.
#[tokio::test]
async fn the_address_of_a_client_is_what_a_trusted_proxy_says_and_nobody_else() {
    for (trusted, expected) in [(vec![], "127.0.0.1"), (vec!["127.0.0.0/8"], "198.51.100.7")] {
        let trusted_proxies = trusted.iter().map(|network| network.parse().unwrap()).collect();
        let app = spawn_app_with(AppOptions { trusted_proxies, ..AppOptions::default() }).await;
        app.user("ann").await;
        let body = json!({ "email": "ann@example.com", "password": PASSWORD }).to_string();
        let headers = [JSON, ("x-forwarded-for", "203.0.113.1, 198.51.100.7")];
        let login = raw(&app, "POST", "/v1/auth/login", &headers, &body).await;
        let ann = Person::new(app.client(), login.data().unwrap());
        let logins = ann.get("/v1/auth/sessions").await;
        assert_eq!(logins.json["data"][0]["ip"], expected);
    }
}
