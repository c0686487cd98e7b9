//! Secrets of their own for every way in, which whoever gets them repeats on every way back: looked for in all that
//! the server answers, tells, logs and keeps. None of them is written by a person or a model as text, so none may be
//! anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use iris_protocol::{
    CaptureList, CaptureStart, GitClone, McpState, ModelRef, ProjectId, RunStatus, SessionCreate,
    TicketGrant, ToolState,
};
use iris_sandbox::Tier;
use iris_testkit::{
    Conversation, FakeProvider, PASSWORD, Person, Reply, ServerProcess, WireSocket, calls_of,
    moment, patiently,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::mcp_web::webfake::{self, Asked, WebFake};
use crate::{bash, iris, is_held, mcp, root};

/// The key of a provider in the configuration.
const OF_OPERATOR: &str = "canary-operator/0f1e+2d3c4b5a";
/// Keys that people gave to the server, to a project and for themselves.
const OF_SERVER: &str = "canary-server-1f1e2d3c4b5a";
const OF_PROJECT: &str = "canary-project-2f1e2d3c4b5a";
const OF_ANN: &str = "canary-own-3f1e2d3c4b5a";
/// What a tool of the project sends along.
const OF_TOOL: &str = "canary-tool-4f1e2d3c4b5a";
/// What an MCP server on the web gets.
const OF_MCP: &str = "canary-mcp-5f1e2d3c4b5a";
/// What a server of repositories gets, before and after it was set anew.
const OF_GIT: &str = "canary-git-6f1e2d3c4b5a";
const OF_GIT_ANEW: &str = "canary-git-7f1e2d3c4b5a";
/// What somebody set in a way that is refused.
const REFUSED: &str = "canary-refused-8f1e2d3c4b5a";
/// With what somebody logs in later.
const NEW_PASSWORD: &str = "canary-password-9f1e2d3c4b5a";
/// What no server ever saw, of a kind that it knows.
const LOOKS: &str = "ghp_canary0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A secret as it is, in a URL, and in base64, where its place in the text is the first of three bytes: without the last
/// character and the filling.
pub(crate) fn forms(secret: &str) -> [String; 3] {
    let in_url = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut encoded = BASE64_STANDARD.encode(secret).trim_end_matches('=').to_owned();
    encoded.pop();
    [secret.to_owned(), in_url, encoded]
}

/// Where in a data directory which of the texts stand: in the bytes of which files, logs of databases among them, and in
/// which columns.
pub(crate) fn places(directory: &Path, texts: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut places = BTreeMap::<_, BTreeSet<_>>::new();
    let mut look = |place: &str, bytes: &[u8]| {
        // What is no text stays between the texts, which are all of ASCII.
        let bytes = String::from_utf8_lossy(bytes);
        for text in texts {
            if bytes.contains(text.as_str()) {
                places.entry(place.to_owned()).or_default().insert(text.clone());
            }
        }
    };
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        // Some are gone again.
        let Ok(bytes) = fs::read(&path) else { continue };
        let name = path.file_name().unwrap().to_str().unwrap();
        look(name, &bytes);
        if path.extension().is_some_and(|end| end == "db") {
            rows(&path, &mut look);
        } else if path.extension().is_some_and(|end| end == "zst") {
            look(&format!("{name}, unpacked"), &zstd::decode_all(&*bytes).unwrap());
        }
    }
    places
}

/// Has every value of every row of a database looked at, packed ones unpacked.
fn rows(path: &Path, look: &mut impl FnMut(&str, &[u8])) {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut tables = conn.prepare(sql).unwrap();
    let tables: Vec<String> =
        tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(tables.len() > 10, "{tables:?}");
    for table in tables {
        let mut statement = conn.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns: Vec<String> =
            statement.column_names().into_iter().map(str::to_owned).collect();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for (index, column) in columns.iter().enumerate() {
                let (ValueRef::Text(bytes) | ValueRef::Blob(bytes)) = row.get_ref(index).unwrap()
                else {
                    continue;
                };
                let place = format!("{table}.{column}");
                look(&place, bytes);
                if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                    look(&place, &zstd::decode_all(bytes).unwrap());
                }
            }
        }
    }
}

/// All that was shown to somebody.
struct Shown(Vec<String>);

impl Shown {
    fn add(&mut self, what: &str, told: impl std::fmt::Display) {
        self.0.push(format!("{what}: {told}"));
    }

    async fn get(&mut self, person: &Person, path: &str) -> Value {
        let answer = person.get(path).await;
        assert!(answer.is_success(), "{path}: {answer:?}");
        self.add(path, String::from_utf8_lossy(&answer.body));
        answer.json
    }

    async fn post(&mut self, person: &Person, path: &str, body: Value) -> Value {
        let answer = person.post(path, body).await;
        assert!(answer.is_success(), "{path}: {answer:?}");
        self.add(path, &answer.json);
        answer.json
    }

    async fn refused(&mut self, person: &Person, method: &str, path: &str, body: Value) {
        let answer = person.rest(method, path, Some(body)).await;
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
        self.add(path, &answer.json);
    }
}

/// A server of tools and an MCP server at once, which repeats what it was sent wherever something can be said.
async fn parrot() -> WebFake {
    WebFake::start(|asked: &Asked| {
        let key = asked.header("x-key").to_owned();
        let said = format!("you sent {key}, and {} is {LOOKS}", BASE64_STANDARD.encode(&key));
        let answer = match (asked.method.as_str(), asked.says()) {
            ("GET", _) if asked.path.starts_with("/fails") => {
                let body = json!({ "error": said });
                webfake::document("500 Broken", &format!("x-why: {key}\r\n"), &body)
            }
            ("GET", _) if asked.path.starts_with("/away") => {
                webfake::status("302 Found", &format!("location: http://elsewhere.example/{key}\r\n"))
            }
            ("GET", _) if asked.path.starts_with("/tool") => {
                webfake::document("200 OK", &format!("x-echo: {key}\r\n"), &json!({ "said": said }))
            }
            ("POST", "initialize") => {
                let result = json!({ "protocolVersion": asked.body["params"]["protocolVersion"],
                    "capabilities": { "tools": {}, "logging": {} }, "instructions": said,
                    "serverInfo": { "name": format!("web {key}"), "version": key } });
                webfake::result_of(asked, "", &result)
            }
            ("POST", "tools/list") => {
                let schema = json!({ "type": "object", "description": said, "properties": {
                    "text": { "type": "string", "default": key } } });
                let tool = |name: &str| {
                    json!({ "name": name, "description": said, "title": said, "inputSchema": schema })
                };
                let tools = json!({ "tools": [tool("tells"), tool("fails"), tool("breaks")] });
                webfake::result_of(asked, "", &tools)
            }
            ("POST", "tools/call") => match asked.body["params"]["name"].as_str() {
                Some("tells") => {
                    let note = json!({ "jsonrpc": "2.0", "method": "notifications/message",
                        "params": { "level": "error", "data": said } });
                    let structured = json!({ "content": [{ "type": "text", "text": said }],
                        "structuredContent": { "said": said } });
                    let result = webfake::message(asked, &structured);
                    webfake::events(&format!("data: {note}\n\ndata: {result}\n\n"))
                }
                Some("fails") => {
                    let content = json!([{ "type": "text", "text": said }]);
                    webfake::result_of(asked, "", &json!({ "content": content, "isError": true }))
                }
                _ => {
                    let error = json!({ "code": -32000, "message": said, "data": said });
                    let body = json!({ "jsonrpc": "2.0", "id": asked.id(), "error": error });
                    webfake::document("200 OK", "", &body)
                }
            },
            _ => return None,
        };
        Some(answer)
    })
    .await
}

/// A server of repositories that lets nobody in, and repeats what it was sent.
async fn repository() -> WebFake {
    WebFake::start(|asked: &Asked| {
        let given = asked.header("authorization").to_owned();
        if given.is_empty() {
            return Some(webfake::status("401 No", "www-authenticate: Basic realm=\"x\"\r\n"));
        }
        let encoded = given.trim_start_matches("Basic ");
        let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).unwrap()).unwrap();
        let body = format!("no entry with {decoded} ({encoded}), try {LOOKS}\n");
        let length = body.len();
        let head = format!(
            "HTTP/1.1 403 No\r\ncontent-type: text/plain\r\nx-why: {decoded}\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n"
        );
        Some(format!("{head}{body}").into_bytes())
    })
    .await
}

/// Has the scripted model call a tool, which is allowed, and answers how that ended.
async fn call(talk: &mut Conversation, tool: &str, input: Value) -> (ToolState, String) {
    let run = talk.send_message(&format!("call {tool} {input}\nstep\nsay done")).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let part = calls_of(&talk.answer(&run).await).remove(0).clone();
    (part.state, part.output.or(part.error).unwrap_or_default())
}

/// What a provider answers that repeats how it was asked: errors of its own kind, and those of somebody before it.
fn provider_replies(key: &str) -> [Reply; 2] {
    let said = format!("denied: {key} {LOOKS}");
    let own = json!({ "error": { "message": said, "type": key } }).to_string();
    let reply = |status, text: &str, r#type| {
        Reply::status(status, text).header("content-type", r#type).header("x-request-id", key)
    };
    [reply(400, &own, "application/json"), reply(403, &said, "text/plain")]
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "each way has its lines, and all are one server's")]
async fn a_secret_is_in_no_answer_event_record_log_line_or_database_whoever_repeats_it() {
    if !is_held(bash::sandbox(), Tier::S3).await {
        return;
    }
    let keys = [OF_OPERATOR, OF_SERVER, OF_PROJECT, OF_ANN];
    let provider = FakeProvider::start(keys.into_iter().flat_map(provider_replies)).await;
    let (parrot, repository) = (parrot().await, repository().await);
    let dir = tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("stderr"));
    // What a program finds where the server never looked.
    let beside = tempdir().unwrap();
    fs::set_permissions(beside.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let note = beside.path().join("note");
    fs::write(&note, [OF_MCP, OF_TOOL, OF_OPERATOR, LOOKS].join("\n")).unwrap();
    fs::set_permissions(&note, fs::Permissions::from_mode(0o644)).unwrap();
    let programs = mcp::fake().parent().unwrap().display().to_string();

    let mut command = iris(&data);
    command
        .env("IRIS_PROVIDERS__FAKE__KIND", "openai-compatible")
        .env("IRIS_PROVIDERS__FAKE__BASE_URL", provider.base_url())
        .env("IRIS_PROVIDERS__FAKE__API_KEY", OF_OPERATOR)
        .env("IRIS_EGRESS_ALLOW", "127.0.0.1/32")
        .env("IRIS_SANDBOX_READ_ONLY", format!("{programs},{}", beside.path().display()))
        .env("IRIS_LOG", "trace");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        let uid = bash::sandbox().uid.unwrap().to_string();
        command.env("IRIS_SANDBOX_UID", &uid).env("IRIS_SANDBOX_GID", &uid);
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o711)).unwrap();
    }
    let server = ServerProcess::start_logging(command, &log).await;
    let ann = root(&server).await;
    let mut talk = ann.conversation().await;
    let project = talk.project.clone();
    let place = format!("/v1/projects/{project}");
    let mut room = talk.connect_to_project().await;
    let mut wire = ann.wire().await;
    let rooms = json!([format!("project:{project}"), format!("session:{}", talk.session)]);
    wire.ask("s", "subscribe", Some(project.as_str()), json!({ "rooms": rooms })).await;
    let mut shown = Shown(Vec::new());
    // Only what the server hands out once, which is not to be seen again.
    let mut secrets: Vec<String> = keys.into_iter().map(str::to_owned).collect();
    secrets.extend([OF_TOOL, OF_MCP, OF_GIT, OF_GIT_ANEW, REFUSED, LOOKS].map(str::to_owned));

    // Providers, with the key that is nearest; what they are asked is recorded.
    let model = ModelRef { provider_id: "fake".to_owned(), model_id: "m".to_owned() };
    let request = SessionCreate { title: None, agent: None, model: Some(model), mode: None };
    let session = ann.client.call(Some(&project), request).await.unwrap().session.id;
    let mut failing = ann.join(&project, &session).await;
    let start = CaptureStart {
        session_id: session.clone(),
        minutes: None,
        expires_at: None,
        bytes_max: None,
    };
    failing.call(start).await.unwrap();
    let setting = |key: &str| json!({ "providerId": "fake", "apiKey": key });
    for (path, key) in [
        (None, OF_OPERATOR),
        (Some("/v1/admin/credentials".to_owned()), OF_SERVER),
        (Some(format!("{place}/credentials")), OF_PROJECT),
        (Some("/v1/credentials".to_owned()), OF_ANN),
    ] {
        if let Some(path) = path {
            shown.post(&ann, &path, setting(key)).await;
        }
        for _ in 0..2 {
            let run = failing.send_message("go").await.run_id;
            assert_eq!(failing.run_ended(&run).await, RunStatus::Failed);
            let asked = provider.asked();
            assert!(asked.last().unwrap().head.contains(key), "{key}");
            shown.add("an answer", failing.answer(&run).await.error.unwrap());
        }
    }
    let list = CaptureList { session_id: session.clone(), limit: None, cursor: None };
    let recorded = async {
        loop {
            let records = failing.call(list.clone()).await.unwrap().records;
            if records.len() == 8 {
                return records;
            }
            moment().await;
        }
    };
    for record in patiently("the records", recorded).await {
        let path = format!("{place}/sessions/{session}/capture/records/{}", record.id);
        let record = shown.get(&ann, &path).await.to_string();
        assert!(record.contains("denied: [redacted secret]"), "{record}");
    }

    // Tools of the project.
    for route in ["tool", "fails", "away"] {
        let http = json!({ "method": "GET", "url": format!("http://{}/{route}", parrot.address),
                           "secretHeaders": { "x-key": OF_TOOL } });
        let tool = json!({ "name": route, "description": "d", "http": http,
                           "parameters": { "type": "object" } });
        let made = shown.post(&ann, &format!("{place}/tools"), tool).await;
        bash::allow(&talk, route, "*").await;
        shown.add(route, call(&mut talk, route, json!({})).await.1);
        let path = format!("{place}/tools/{}/test", made["data"]["id"].as_str().unwrap());
        shown.post(&ann, &path, json!({ "input": {} })).await;
    }
    assert!(parrot.asked().iter().all(|asked| asked.header("x-key") == OF_TOOL));

    // MCP servers: on the web, and a program.
    let web =
        json!({ "type": "http", "url": format!("http://{}/mcp", parrot.address), "headers": {} });
    let web = json!({ "name": "web", "transport": web, "secretHeaders": { "x-key": OF_MCP } });
    shown.post(&ann, &format!("{place}/mcp"), web).await;
    mcp::until(&mut room, "web", McpState::NeedsApproval).await;
    mcp::approve(&talk, &mut room, "web").await;
    let program = json!({ "type": "stdio", "command": mcp::fake().display().to_string(),
                          "args": ["tools=file,moan"], "env": {} });
    shown
        .post(&ann, &format!("{place}/mcp"), json!({ "name": "here", "transport": program }))
        .await;
    mcp::until(&mut room, "here", McpState::NeedsApproval).await;
    mcp::approve(&talk, &mut room, "here").await;
    for (server, tool, ends) in [
        ("web", "tells", ToolState::Completed),
        ("web", "fails", ToolState::Error),
        ("web", "breaks", ToolState::Error),
        ("here", "file", ToolState::Completed),
        ("here", "moan", ToolState::Error),
    ] {
        bash::allow(&talk, &format!("mcp:{server}"), "*").await;
        let input = json!({ "text": note.display().to_string() });
        let (state, said) = call(&mut talk, &format!("{server}__{tool}"), input).await;
        assert_eq!(state, ends, "{server} {tool}: {said}");
        assert!(said.contains("[redacted secret]"), "{server} {tool}: {said}");
        shown.add(tool, said);
    }
    for name in ["web", "here"] {
        shown.get(&ann, &format!("{place}/mcp/{name}/status")).await;
    }

    // A command that prints what the server knows.
    let command = json!({ "command": format!("cat {0}; cat {0} >&2; exit 3", note.display()) });
    bash::allow(&talk, "bash", "*").await;
    let (_, said) = call(&mut talk, "bash", command).await;
    assert!(said.contains("[redacted secret]"), "{said}");
    shown.add("bash", said);

    // Repositories.
    let git = json!({ "url": format!("http://{}/a.git", repository.address), "username": "ann",
                      "token": OF_GIT });
    let made = shown
        .post(&ann, "/v1/projects", json!({ "name": "cloned", "type": "git", "git": git }))
        .await;
    let cloned: ProjectId = serde_json::from_value(made["data"]["id"].clone()).unwrap();
    let path = format!("/v1/projects/{cloned}");
    let failed = async |shown: &mut Shown| loop {
        let state = shown.get(&ann, &path).await["data"]["git"].clone();
        if state["state"] == "failed" {
            return state.to_string();
        }
        moment().await;
    };
    let why = patiently("the end of a clone", failed(&mut shown)).await;
    assert!(!repository.asked().is_empty(), "{why}");
    let credentials = format!("{path}/git/credentials");
    let body = json!({ "username": "ann", "token": OF_GIT_ANEW });
    let set = ann.rest("PUT", &credentials, Some(body)).await;
    assert!(set.is_success(), "{set:?}");
    shown.add(&credentials, &set.json);
    ann.client.call(Some(&cloned), GitClone {}).await.unwrap();
    patiently("the end of a clone", failed(&mut shown)).await;
    let seen = |token: &str| {
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("ann:{token}")));
        repository.asked().iter().any(|asked| asked.header("authorization") == basic)
    };
    assert!(seen(OF_GIT) && seen(OF_GIT_ANEW));

    // What is refused.
    let broken = format!("{REFUSED}\n");
    shown.refused(&ann, "PUT", &credentials, json!({ "token": broken, "username": "ann" })).await;
    shown.refused(&ann, "POST", "/v1/credentials", setting(&broken)).await;
    shown
        .refused(
            &ann,
            "POST",
            "/v1/credentials",
            json!({ "providerId": "none", "apiKey": REFUSED }),
        )
        .await;
    let header = json!({ "name": "bad", "secretHeaders": { "x-key": broken },
                         "transport": { "type": "http", "url": "https://mcp.example/" } });
    shown.refused(&ann, "POST", &format!("{place}/mcp"), header).await;
    let http = json!({ "method": "GET", "url": "https://tool.example/",
                       "secretHeaders": { "x-key": broken } });
    let tool = json!({ "name": "bad", "description": "d", "http": http,
                       "parameters": { "type": "object" } });
    shown.refused(&ann, "POST", &format!("{place}/tools"), tool).await;
    for body in [
        json!({ "email": "root@example.com", "password": [REFUSED] }),
        json!({ "email": "root@example.com", "password": REFUSED }),
        json!({ "email": { "a": 1 }, "password": REFUSED }),
    ] {
        shown.refused(&ann, "POST", "/v1/auth/login", body).await;
    }

    // What the server itself hands out, once.
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let handed_out = async |path: &str, body: Value, field: &str| {
        let made = ann.post(path, body).await;
        assert!(made.is_success(), "{made:?}");
        text(&made.json["data"][field])
    };
    let key = handed_out("/v1/api-keys", json!({ "name": "k" }), "key").await;
    let invited = json!({ "role": "viewer" });
    secrets.push(handed_out(&format!("{place}/invitations"), invited, "token").await);
    secrets.push(handed_out("/v1/admin/invitations", json!({}), "token").await);
    let ticket: TicketGrant = ann.post("/v1/auth/tickets", json!({})).await.data().unwrap();
    let socket = WireSocket::open(&server.url, Some(&key)).await.unwrap();
    secrets.extend([key, ticket.ticket]);
    let reset = format!("/v1/admin/users/{}/password-reset", ann.id());
    let reset = handed_out(&reset, json!({}), "token").await;
    let body = json!({ "token": reset, "newPassword": NEW_PASSWORD });
    // It ends every login.
    let before = [ann.token().to_owned(), ann.grant.refresh_token.clone()];
    wire.ask("p", "ping", None, json!({})).await;
    loop {
        let frame = wire.next_json().await;
        if frame["id"] == "p" {
            break;
        }
        shown.add("a frame", frame);
    }
    for told in failing.seen.iter().chain(&talk.seen) {
        shown.add("an event", serde_json::to_string(told).unwrap());
    }
    let set = server.client().rest("POST", "/v1/auth/password/reset", None, Some(&body)).await;
    assert!(set.unwrap().is_success());
    let grant = server.client().login("root@example.com", NEW_PASSWORD).await.unwrap();
    let ann = Person::new(&server.client(), grant);
    secrets.extend([reset, NEW_PASSWORD.to_owned(), PASSWORD.to_owned()]);
    secrets.extend(before);
    secrets.extend([ann.token().to_owned(), ann.grant.refresh_token.clone()]);

    for path in [
        format!("{place}/sessions/{}/messages", talk.session),
        format!("{place}/sessions/{}/export", talk.session),
        format!("{place}/sessions/{session}/messages"),
        format!("{place}/sessions/{session}/export"),
        format!("{place}/sessions/{session}/runs"),
        format!("{place}/tools"),
        format!("{place}/mcp"),
        format!("{place}/credentials"),
        format!("{place}/permissions"),
        "/v1/credentials".to_owned(),
        "/v1/admin/credentials".to_owned(),
        "/v1/me/export".to_owned(),
        "/v1/admin/audit?limit=200".to_owned(),
        "/v1/admin/audit/export".to_owned(),
        "/v1/admin/supervision".to_owned(),
        "/v1/admin/actors".to_owned(),
        "/metrics".to_owned(),
    ] {
        shown.get(&ann, &path).await;
    }
    shown.post(&ann, &format!("{place}/backup"), json!({})).await;
    drop((room, wire, socket));

    let texts: Vec<String> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    for told in &shown.0 {
        let leaks: Vec<_> = texts.iter().filter(|text| told.contains(text.as_str())).collect();
        assert!(leaks.is_empty(), "{leaks:?} in {told}");
    }
    // With the logs of the databases as they are while it works, and after all was written out.
    assert_eq!(places(&data, &texts), BTreeMap::new());
    // What is there is found, in each of these.
    let there = places(&data, &[note.display().to_string(), "root@example.com".to_owned()]);
    for place in
        ["message_parts.body", "events.payload", "users.email", "root.db-wal", "project.db-wal"]
    {
        assert!(there.contains_key(place), "{place}: {there:?}");
    }
    assert!(server.terminate().await.success());
    assert_eq!(places(&data, &texts), BTreeMap::new());
    let logged = fs::read_to_string(&log).unwrap();
    let told: Vec<_> = texts.iter().filter(|text| logged.contains(text.as_str())).collect();
    let is_leak = |line: &&str| told.iter().any(|text| line.contains(text.as_str()));
    let leaks: Vec<_> = logged.lines().filter(is_leak).collect();
    assert!(leaks.is_empty() && logged.len() > 10_000, "{leaks:#?}");
}
