//! What the server counts of itself: against what happened, for whom it is, and whether the dashboard, the
//! alerts and the documents speak of what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use iris_actors::connection::SocketSettings;
use iris_agent::RetryLimits;
use iris_client::RestAnswer;
use iris_protocol::{ErrorCode, Event, EventFrame, RunStatus, UsageGet};
use iris_testkit::{
    AppOptions, Conversation, Person, TestApp, patiently, spawn_app, spawn_app_with,
};
use serde_json::{Value, json};

use crate::usage::set_price;
use crate::{code_of, flood, rest_refusal};

/// A text of metrics, as it was read.
struct Scrape(String);

impl Scrape {
    async fn of(reader: &Person) -> Self {
        let answer = reader.get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let media_type = answer.headers.get("content-type").unwrap().to_str().unwrap();
        assert!(media_type.starts_with("text/plain; version=0.0.4"), "{media_type}");
        Self(String::from_utf8(answer.body.to_vec()).unwrap())
    }

    /// The value of a series, named as it stands in the text.
    fn find(&self, series: &str) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
    }

    fn decimal(&self, series: &str) -> f64 {
        let value = self.find(series).unwrap_or_else(|| panic!("no `{series}` in\n{}", self.0));
        value.parse().unwrap()
    }

    /// The same of what is counted in whole numbers.
    fn get(&self, series: &str) -> u64 {
        format!("{:.0}", self.decimal(series)).parse().unwrap()
    }

    /// The families, and what type they have.
    fn families(&self) -> BTreeMap<&str, &str> {
        let types = self.0.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split_once(' ').unwrap()).collect()
    }
}

/// Bytes of the frames that wait for readers.
pub(crate) async fn outbound_bytes(reader: &Person) -> u64 {
    Scrape::of(reader).await.get("iris_outbound_bytes")
}

/// Reads until it is right: some of it is counted a moment later.
async fn scraped(reader: &Person, what: &str, is_right: impl Fn(&Scrape) -> bool) -> Scrape {
    let reading = async {
        loop {
            let scrape = Scrape::of(reader).await;
            if is_right(&scrape) {
                return scrape;
            }
        }
    };
    patiently(what, reading).await
}

/// A server on which a bit of everything happened, an administrator, and the conversation.
async fn busy() -> (TestApp, Person, Conversation) {
    let mut options = AppOptions::default();
    let base = Duration::from_millis(1);
    options.turn.retry = RetryLimits { attempts_max: 2, base, ..options.turn.retry };
    let app = spawn_app_with(options).await;
    let root = app.admin().await;
    set_price(&root, ("demo", "script"), 3_000_000_000, 15_000_000_000).await;
    let mut ann = app.user("ann").await.conversation().await;

    let script = "call write {\"path\": \"a\", \"content\": \"x\"}\nstep\nsay it is written";
    let run = ann.send_message(script).await.run_id;
    let approval = ann.approval().await;
    let waiting = |scrape: &Scrape| scrape.get("iris_approvals_waiting") > 0;
    let scrape = scraped(&root, "an approval that waits", waiting).await;
    assert_eq!(scrape.get("iris_approvals_waiting"), 1);
    assert_eq!(scrape.get("iris_runs{state=\"waiting\"}"), 1);
    assert_eq!(scrape.get("iris_runs{state=\"running\"}"), 0);
    assert_eq!(scrape.get("iris_approvals_resolved_total{state=\"approved\"}"), 0);
    // It waits for the one that waits for a person.
    let queued = ann.send_message("say me too").await.run_id;
    let is_queued = |scrape: &Scrape| scrape.get("iris_runs{state=\"queued\"}") > 0;
    scraped(&root, "a run that is queued", is_queued).await;

    ann.approve(&approval.tool_call_id).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(ann.run_ended(&queued).await, RunStatus::Completed);
    let failing = ann.send_message("fail rate_limited slow down").await.run_id;
    assert_eq!(ann.run_ended(&failing).await, RunStatus::Failed);
    let missing = ann.send_message("call read {\"path\": \"none\"}\nstep\nsay so").await.run_id;
    assert_eq!(ann.run_ended(&missing).await, RunStatus::Completed);
    // Of a model without a price.
    let path = format!("/v1/projects/{}/sessions/{}", ann.project, ann.session);
    let model = json!({ "model": { "providerId": "demo", "modelId": "other" } });
    assert!(ann.person.rest("PATCH", &path, Some(model)).await.is_success());
    ann.ask("say for nothing").await;
    (app, root, ann)
}

#[tokio::test]
async fn what_happened_is_what_is_counted() {
    let (app, root, ann) = busy().await;
    let is_over = |scrape: &Scrape| {
        let runs = ["queued", "running", "waiting"];
        let open = |state| scrape.get(&format!("iris_runs{{state=\"{state}\"}}"));
        runs.into_iter().all(|state| open(state) == 0)
    };
    let scrape = scraped(&root, "the end of all runs", is_over).await;
    for (series, expected) in [
        ("iris_runs_started_total", 5),
        ("iris_runs_ended_total{status=\"completed\"}", 4),
        ("iris_runs_ended_total{status=\"failed\"}", 1),
        ("iris_runs_ended_total{status=\"cancelled\"}", 0),
        ("iris_approvals_waiting", 0),
        ("iris_approvals_resolved_total{state=\"approved\"}", 1),
        ("iris_approvals_resolved_total{state=\"rejected\"}", 0),
        ("iris_questions_waiting", 0),
        ("iris_tool_calls_total{tool=\"write\",outcome=\"completed\"}", 1),
        ("iris_tool_calls_total{tool=\"read\",outcome=\"failed\"}", 1),
        ("iris_tool_call_duration_seconds_count{tool=\"write\"}", 1),
        ("iris_tools_running", 0),
        ("iris_model_calls_total{provider=\"demo\",outcome=\"finished\"}", 6),
        ("iris_model_calls_total{provider=\"demo\",outcome=\"failed\"}", 2),
        ("iris_model_call_duration_seconds_count{provider=\"demo\"}", 8),
        ("iris_model_calls_unpriced_total{provider=\"demo\"}", 1),
        ("iris_provider_errors_total{provider=\"demo\",class=\"rate_limited\"}", 2),
        ("iris_provider_retries_total{provider=\"demo\"}", 1),
        ("iris_connections", 1),
        ("iris_connections_opened_total", 1),
        ("iris_connections_closed_total{code=\"4008\"}", 0),
        ("iris_rooms", 1),
        ("iris_room_members", 1),
        ("iris_projects_open", 1),
        ("iris_databases_open", 2),
        ("iris_commits_lost_total", 0),
        ("iris_disk_full", 0),
        ("iris_draining", 0),
        ("iris_actors{kind=\"project\",state=\"running\"}", 1),
        ("iris_actors{kind=\"connection\",state=\"running\"}", 1),
        ("iris_requests_total{operation=\"session.message.send\",status=\"2xx\"}", 5),
        ("iris_request_duration_seconds_count{operation=\"session.message.send\"}", 5),
        ("iris_requests_total{operation=\"tool.approve\",status=\"2xx\"}", 1),
        ("iris_rate_limited_total{limit=\"user\"}", 0),
    ] {
        assert_eq!(scrape.get(series), expected, "{series}");
    }

    // What is counted elsewhere is the same.
    let total = ann.call(UsageGet::default()).await.unwrap().total;
    let tokens =
        |kind| scrape.get(&format!("iris_model_tokens_total{{provider=\"demo\",kind=\"{kind}\"}}"));
    assert_eq!(tokens("input"), total.usage.input_tokens);
    assert_eq!(tokens("output"), total.usage.output_tokens);
    let dollars = scrape.decimal("iris_model_cost_dollars_total{provider=\"demo\"}");
    assert!(dollars > 0.0);
    assert_eq!(format!("{:.0}", dollars * 1e9), total.known_cost_nano_usd.to_string());
    assert_eq!(scrape.get("iris_run_steps_total"), total.steps);
    let is_heard = |event: &&EventFrame| event.meta.seq.is_some();
    let heard = ann.seen.iter().filter(is_heard).count() as u64;
    assert!(scrape.get("iris_deliveries_total") >= heard && heard > 10, "{heard}");
    assert!(scrape.get("iris_events_published_total") >= heard);
    assert!(scrape.get("iris_commit_commands_count") > 4);
    let commits = scrape.get("iris_commit_duration_seconds_bucket{le=\"+Inf\"}");
    assert!(scrape.get("iris_commit_commands_sum") >= commits);
    assert!(scrape.get("iris_wal_bytes") > 0);
    assert!(scrape.get("iris_disk_available_bytes") > 0);
    let before = scrape.get("iris_http_responses_total{method=\"GET\",status=\"2xx\"}");
    assert_eq!(ann.person.get("/v1/nothing").await.status, 404);
    let scrape = Scrape::of(&root).await;
    assert_eq!(scrape.get("iris_http_responses_total{method=\"GET\",status=\"2xx\"}"), before + 1);
    assert_eq!(scrape.get("iris_http_responses_total{method=\"GET\",status=\"4xx\"}"), 1);
    is_about_nobody(&scrape, &app, &ann);
    check(&["metrics"], &scrape.0);
    is_what_documents_name(&scrape);
}

/// No label says who or where.
fn is_about_nobody(scrape: &Scrape, app: &TestApp, ann: &Conversation) {
    let braces = scrape.0.lines().filter_map(|line| line.split_once('{')?.1.split_once('}'));
    let labels = braces.map(|(labels, _)| labels).collect::<Vec<_>>().join("\n");
    let own = [ann.person.id().as_str(), ann.project.as_str(), ann.session.as_str()];
    let run = ann.seen.iter().find_map(|frame| match &frame.event {
        Event::RunStarted { run } => Some(run.id.as_str()),
        _ => None,
    });
    let directory = app.data_dir().to_str().unwrap();
    let words =
        ["ann", "root@", "example.com", "conversation", directory, "127.0.0.1", "script", "other"];
    for word in own.into_iter().chain(run).chain(words) {
        assert!(!labels.contains(word), "a label has `{word}`");
    }
    let is_long =
        |word: &str| word.len() >= 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut words = labels.split(|c: char| !c.is_ascii_alphanumeric());
    assert!(!words.any(is_long), "something looks like an id");
}

/// Has the tool of Prometheus check a text.
fn check(what: &[&str], text: &str) {
    let mut promtool = Command::new("promtool");
    promtool.arg("check").args(what).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = match promtool.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let is_ci = std::env::var("CI").as_deref() == Ok("true");
            assert!(!is_ci, "promtool is needed for this test: .ci/run test installs it");
            return eprintln!("promtool is not installed: nobody else checked the {what:?}");
        }
        spawned => spawned.unwrap(),
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && complaints.is_empty(), "{complaints}");
}

/// Metrics are named in a text between characters that no name has.
fn names_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_name = |word: &&str| word.starts_with("iris_") || word.starts_with("process_");
    words.filter(is_name).collect()
}

fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What the dashboard and the alerts look at is there, and the table of the documents has all there is.
fn is_what_documents_name(scrape: &Scrape) {
    let families = scrape.families();
    let exported: BTreeSet<&str> = families.keys().copied().collect();
    let document = file("docs/operations.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter_map(|row| row.split('`').next());
    let is_name = |name: &&str| name.starts_with("iris_") || name.starts_with("process_");
    let documented: BTreeSet<&str> = rows.filter(is_name).collect();
    assert_eq!(documented, exported, "docs/operations.md against the server");

    let dashboard: Value = serde_json::from_str(&file("deploy/grafana/iris.json")).unwrap();
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    queries.sort();
    queries.dedup();
    assert!(queries.len() >= 20, "{queries:?}");
    // As rules, because these can be checked; JSON is YAML.
    let rule = |query: &String| {
        let query = query.replace("$__rate_interval", "5m").replace("$instance", "a");
        json!({ "record": "a", "labels": { "of": query }, "expr": query })
    };
    let rules: Vec<Value> = queries.iter().map(rule).collect();
    check(
        &["rules", "/dev/stdin"],
        &json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string(),
    );
    let alerts = file("deploy/prometheus/alerts.yml");
    let conditions = alerts.lines().filter_map(|line| line.trim().strip_prefix("expr:"));
    queries.extend(conditions.map(|condition| condition.trim().to_owned()));
    for query in &queries {
        let names = names_in(query);
        // Prometheus says of every target whether it is up.
        assert!(!names.is_empty() || query.starts_with("up{"), "`{query}` is about nothing");
        for name in names {
            let parts = ["_bucket", "_sum", "_count"].into_iter();
            let mut whole = parts.filter_map(|part| name.strip_suffix(part));
            let is_part = whole.any(|whole| families.get(whole) == Some(&"histogram"));
            assert!(is_part || exported.contains(name), "`{query}` names `{name}`");
        }
    }
}

fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| expressions(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_counted() {
    let abort_after = Duration::from_mins(1);
    let sockets = SocketSettings { abort_after, ..SocketSettings::default() };
    let app = spawn_app_with(AppOptions { sockets, ..AppOptions::default() }).await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut stalled = ann.person.wire().await;
    let rooms = json!({ "rooms": [format!("session:{}", ann.session)] });
    stalled.ask("1", "subscribe", Some(ann.project.as_str()), rooms).await;
    assert_eq!(stalled.response("1").await["success"], true);
    let scrape = Scrape::of(&root).await;
    assert_eq!((scrape.get("iris_connections"), scrape.get("iris_room_members")), (2, 2));

    flood(&mut ann).await;
    let dropped = |scrape: &Scrape| scrape.get("iris_connections_closed_total{code=\"4008\"}") > 0;
    scraped(&root, "a reader that was dropped", dropped).await;
    assert_eq!(stalled.close_code().await, 4008);
    let is_gone = |scrape: &Scrape| scrape.get("iris_connections") == 1;
    let scrape = scraped(&root, "the end of its connection", is_gone).await;
    assert_eq!(scrape.get("iris_connections_closed_total{code=\"4008\"}"), 1);
    assert_eq!(scrape.get("iris_connections_opened_total"), 2);
    let left = |scrape: &Scrape| scrape.get("iris_room_members") == 1;
    scraped(&root, "its place in the room", left).await;
}

async fn with_key(app: &TestApp, owner: &Person, scope: &str) -> RestAnswer {
    let made = owner.post("/v1/api-keys", json!({ "name": "k", "scopes": [scope] })).await;
    assert_eq!(made.status, 201, "{made:?}");
    let key = made.json["data"]["key"].as_str().unwrap();
    app.client().rest("GET", "/metrics", Some(key), None).await.unwrap()
}

#[tokio::test]
async fn administrators_and_keys_for_it_read_it_and_nobody_else() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let anonymous = app.client().rest("GET", "/metrics", None, None).await.unwrap();
    assert_eq!(anonymous.status, 401);
    assert_eq!(rest_refusal(&ann.get("/metrics").await).code, ErrorCode::Forbidden);
    let (refused, taken) =
        (with_key(&app, &root, "admin:read").await, with_key(&app, &root, "metrics:read").await);
    assert_eq!(code_of(&rest_refusal(&refused)).1, "insufficient_scope");
    assert_eq!(taken.status, 200);
    assert!(taken.body.starts_with(b"# HELP "));
    // It is for nothing else, and of no use to somebody who is no administrator.
    assert_eq!(with_key(&app, &ann, "metrics:read").await.status, 403);
    let made = root.post("/v1/api-keys", json!({ "name": "k", "scopes": ["metrics:read"] })).await;
    let key = made.json["data"]["key"].as_str().unwrap();
    let actors = app.client().rest("GET", "/v1/admin/actors", Some(key), None).await.unwrap();
    assert_eq!(actors.status, 403);
    // A key that names no scopes has none for administrators.
    let made = root.post("/v1/api-keys", json!({ "name": "all" })).await;
    let key = made.json["data"]["key"].as_str().unwrap();
    let refused = app.client().rest("GET", "/metrics", Some(key), None).await.unwrap();
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn what_a_restart_did_is_counted() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await.conversation().await);
    let path = format!("node/directory/project/{}", ann.project);
    app.supervision().restart(&path).unwrap();
    let series = "iris_supervision_records_total{record=\"restarted\",kind=\"project\"}";
    // Its rooms went with its life.
    let restarted =
        |scrape: &Scrape| scrape.find(series) == Some("1") && scrape.get("iris_rooms") == 0;
    scraped(&root, "the restart of a project", restarted).await;
}

#[tokio::test]
async fn what_waits_is_counted_after_a_restart_before_anybody_comes() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await;
    ann.approval().await;
    let app = app.restart().await;
    let root = app.again(&root);
    let waits = |scrape: &Scrape| {
        let runs = scrape.get("iris_runs{state=\"waiting\"}");
        (runs, scrape.get("iris_approvals_waiting")) == (1, 1)
    };
    let scrape = scraped(&root, "a run that waits", waits).await;
    assert_eq!((scrape.get("iris_connections"), scrape.get("iris_runs_started_total")), (0, 0));
}
