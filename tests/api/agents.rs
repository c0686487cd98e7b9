//! Agents of a project: who answers, with which prompt and which tools.

use iris_protocol::{
    AgentCreate, ErrorCode, MessageSend, PermissionAction, PermissionCreate, RunStatus,
    SessionCreate, SessionUpdate, ToolState, limits::PROMPT_BYTES_MAX,
};
use iris_testkit::{AppOptions, FakeProvider, calls_of, chat, spawn_app, spawn_app_with, text_of};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

fn agent(name: &str, tools: &[&str]) -> AgentCreate {
    let tools = Some(tools.iter().map(|tool| (*tool).to_owned()).collect());
    AgentCreate {
        name: name.to_owned(),
        description: None,
        mode: None,
        prompt: None,
        model: None,
        tools,
        tuning: iris_protocol::AgentTuning::default(),
        permissions: None,
        budget: None,
    }
}

fn session_of(agent: &str) -> SessionCreate {
    SessionCreate { title: None, agent: Some(agent.to_owned()), model: None, mode: None }
}

#[tokio::test]
async fn an_agent_is_created_read_changed_and_deleted() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let path = format!("/v1/projects/{project}/agents");
    let created = ann.post(&path, json!({ "name": "poet", "prompt": "Rhyme." })).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.json["data"]["builtin"], false);
    let tools = created.json["data"]["tools"].as_array().unwrap().clone();
    assert_eq!(
        tools.len(),
        ann.get(&format!("/v1/projects/{project}/tools")).await.json["data"]
            .as_array()
            .unwrap()
            .len()
    );

    let body = json!({ "tools": ["grep", "read"] });
    let changed = ann.rest("PATCH", &format!("{path}/poet"), Some(body)).await;
    assert_eq!(changed.json["data"]["tools"], json!(["grep", "read"]));
    assert_eq!(changed.json["data"]["prompt"], "Rhyme.");
    assert_eq!(ann.get(&format!("{path}/poet")).await.json, changed.json);

    let names = |list: &Value| -> Vec<String> {
        let agents = list["data"].as_array().unwrap().iter();
        agents.map(|agent| agent["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        names(&ann.get(&path).await.json),
        ["default", "plan", "explore", "general", "poet"]
    );
    assert!(ann.rest("DELETE", &format!("{path}/poet"), None).await.is_success());
    assert_eq!(names(&ann.get(&path).await.json), ["default", "plan", "explore", "general"]);
    assert_eq!(rest_refusal(&ann.get(&format!("{path}/poet")).await).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn an_agent_that_cannot_be_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let path = format!("/v1/projects/{}/agents", ann.project("p").await.id);
    ann.post(&path, json!({ "name": "taken" })).await;
    let long = "x".repeat(PROMPT_BYTES_MAX + 1);
    for (body, code, reason) in [
        (json!({ "name": "" }), ErrorCode::InvalidRequest, "invalid_name"),
        (json!({ "name": "two words" }), ErrorCode::InvalidRequest, "invalid_name"),
        (json!({ "name": "x".repeat(65) }), ErrorCode::InvalidRequest, "invalid_name"),
        (json!({ "name": "default" }), ErrorCode::Conflict, "builtin_agent"),
        (json!({ "name": "taken" }), ErrorCode::Conflict, "name_taken"),
        (json!({ "name": "a", "tools": ["fly"] }), ErrorCode::InvalidRequest, "unknown_tool"),
        (
            json!({ "name": "a", "tools": ["read", "read"] }),
            ErrorCode::InvalidRequest,
            "duplicate_tool",
        ),
        (json!({ "name": "a", "prompt": long }), ErrorCode::PayloadTooLarge, ""),
    ] {
        let error = rest_refusal(&ann.post(&path, body.clone()).await);
        assert_eq!(code_of(&error), (code, reason), "{body}");
    }
    for (method, name) in [("PATCH", "nobody"), ("DELETE", "nobody")] {
        let answer = ann.rest(method, &format!("{path}/{name}"), Some(json!({}))).await;
        assert_eq!(rest_refusal(&answer).code, ErrorCode::NotFound);
    }
    for method in ["PATCH", "DELETE"] {
        let answer = ann.rest(method, &format!("{path}/default"), Some(json!({}))).await;
        assert_eq!(code_of(&rest_refusal(&answer)), (ErrorCode::Conflict, "builtin_agent"));
    }
}

#[tokio::test]
async fn an_agent_calls_only_its_own_tools() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    ann.client.call(Some(&project), agent("reader", &["read"])).await.unwrap();
    let session = ann.client.call(Some(&project), session_of("reader")).await.unwrap().session;
    let mut ann = ann.join(&project, &session.id).await;
    let answer = ann.ask("call list {\"path\": \".\"}\nstep\nsay {{result}}").await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Error);
    assert_eq!(text_of(&answer), "unknown tool `list`; there are `read`");
    assert_eq!(answer.agent.as_deref(), Some("reader"));
}

#[tokio::test]
async fn the_model_is_told_the_agents_prompt_and_its_tools_in_their_order() {
    let provider = FakeProvider::start([chat::says("hello")]).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let request =
        AgentCreate { prompt: Some("Rhyme.".into()), ..agent("poet", &["write", "grep"]) };
    ann.client.call(Some(&project), request).await.unwrap();
    let session = ann.client.call(Some(&project), session_of("poet")).await.unwrap().session;
    ann.join(&project, &session.id).await.ask("hi").await;
    let body = provider.asked()[0].body.clone();
    assert_eq!(body["messages"][0]["role"], "system");
    let system = body["messages"][0]["content"].as_str().unwrap();
    assert!(system.starts_with("Rhyme.\n\n# Environment\n\n- Platform: "), "{system}");
    let tools: Vec<_> = body["tools"].as_array().unwrap().iter().collect();
    let names: Vec<_> = tools.iter().map(|tool| &tool["function"]["name"]).collect();
    assert_eq!(names, [&json!("write"), &json!("grep")]);
}

#[tokio::test]
async fn a_session_whose_agent_was_deleted_refuses_messages_until_it_has_another() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let missing = ann.client.call(Some(&project), session_of("reader")).await;
    assert_eq!(refusal(missing).code, ErrorCode::NotFound);
    ann.client.call(Some(&project), agent("reader", &["read"])).await.unwrap();
    let session = ann.client.call(Some(&project), session_of("reader")).await.unwrap().session;
    let path = format!("/v1/projects/{project}/agents/reader");
    assert!(ann.rest("DELETE", &path, None).await.is_success());
    let mut ann = ann.join(&project, &session.id).await;
    let refused = refusal(ann.try_send("say hi", None).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "agent_missing"));
    let session_id = session.id;
    let agent = Some("default".to_owned());
    ann.call(SessionUpdate { session_id, title: None, agent, model: None, mode: None })
        .await
        .unwrap();
    assert_eq!(text_of(&ann.ask("say hi").await), "hi");
}

#[tokio::test]
async fn a_run_ends_at_its_limit_of_steps() {
    let mut options = AppOptions::default();
    (options.turn.steps_max, options.turn.same_steps_max) = (3, 4);
    let app = spawn_app_with(options).await;
    let mut ann = app.user("ann").await.conversation().await;
    let answer = ann.ask("call list {\"path\": \".\"}\nrepeat").await;
    assert_eq!(answer.finish_reason, Some(iris_protocol::FinishReason::Steps));
    assert_eq!(calls_of(&answer).len(), 3);
    assert!(calls_of(&answer).iter().all(|call| call.state.is_final()));
    assert_eq!(text_of(&ann.ask("say on").await), "on");
}

#[tokio::test]
async fn a_run_that_goes_round_in_circles_is_stopped_and_says_so() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let (ls, missing) = ("call list {\"path\": \".\"}", "call read {\"path\": \"none\"}");
    let turns = format!("{ls}\nstep\n{missing}\nstep\n{ls}\nstep\n{missing}\nstep\nsay no");
    let errors = (1..=4).map(|n| format!("call read {{\"path\": \"none\", \"limit\": {n}}}"));
    let errors = errors.collect::<Vec<_>>().join("\nstep\n");
    for (script, steps) in [(format!("{ls}\nrepeat"), 3), (turns, 4), (errors, 3)] {
        let answer = ann.ask(&script).await;
        let error = answer.error.clone();
        let error = error.unwrap_or_else(|| panic!("{script}: {answer:?}"));
        assert_eq!(code_of(&error), (ErrorCode::ProviderError, "loop"), "{script}");
        assert!(!error.retryable && calls_of(&answer).len() == steps, "{script}: {answer:?}");
    }
    assert_eq!(text_of(&ann.ask("say on").await), "on");
}

#[tokio::test]
async fn a_model_whose_calls_are_all_unusable_is_stopped() {
    let mut options = AppOptions::default();
    options.turn.unusable_steps_max = 2;
    let app = spawn_app_with(options).await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message("call fly {}\nrepeat").await.run_id;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Failed);
    let answer = ann.answer(&run).await;
    assert_eq!(calls_of(&answer).len(), 2);
    assert!(answer.error.is_some());
}

#[tokio::test]
async fn a_change_of_an_agent_is_told_to_the_project() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let socket = ann.connect().await;
    let rooms = vec![iris_protocol::RoomRequest::Live(format!("project:{project}"))];
    let subscribe = iris_protocol::Subscribe { rooms, deltas: None, presence: None };
    socket.call(Some(&project), subscribe).await.unwrap();
    let reply = socket.call(Some(&project), agent("poet", &[])).await.unwrap();
    let told = iris_testkit::patiently("agent.updated", socket.next_event()).await.unwrap();
    assert_eq!(told.event.name(), "agent.updated");
    assert_eq!((told.meta.seq, told.meta.by.as_ref()), (reply.seq, Some(ann.id())));
    let session_id = ann.session(&project).await.id;
    let content = iris_protocol::Content::Text("say x".to_owned());
    let send = MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
    assert!(socket.call(Some(&project), send).await.unwrap().seq > reply.seq);
}

#[tokio::test]
async fn rules_of_an_agent_count_at_once_also_for_a_run_that_works() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    ann.client.call(Some(&project), agent("poet", &["write"])).await.unwrap();
    let session = ann.client.call(Some(&project), session_of("poet")).await.unwrap().session;
    let mut talk = ann.join(&project, &session.id).await;
    let writes =
        |path: &str| format!("call write {}", json!({ "path": path, "content": "a rhyme" }));
    let script = format!("{}\nstep\n{}", writes("first"), writes("second"));
    let run = talk.send_message(&script).await.run_id;
    let asked = talk.approval().await;
    let permissions = json!([{ "permission": "edit", "pattern": "second", "action": "deny" }]);
    let path = format!("/v1/projects/{project}/agents/poet");
    let changed = ann.rest("PATCH", &path, Some(json!({ "permissions": permissions }))).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    talk.approve(&asked.tool_call_id).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let [first, second] = calls_of(&answer)[..] else { panic!("{answer:?}") };
    assert_eq!(first.state, ToolState::Completed);
    let why = "`write` of `second` is not allowed: a rule of the agent denies `edit` of `second`";
    assert_eq!((second.state, second.error.as_deref()), (ToolState::Denied, Some(why)));
}

#[tokio::test]
async fn the_instructions_of_a_project_stand_behind_the_prompt_where_they_may_be_read() {
    let provider = FakeProvider::start((0..5).map(|_| chat::says("ok"))).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let ann = app.user("ann").await.conversation().await;
    let files = app.data_dir().join("projects").join(ann.project.as_str()).join("files");
    let put = async |name: &str, text: &str| {
        ann.person.client.file_put(&ann.project, name, text.to_owned()).await.unwrap();
    };
    put("secret.txt", "a secret").await;
    put("CLAUDE.md", "Be brief.\n").await;
    let told = async |ann: &mut iris_testkit::Conversation| {
        ann.ask("hi").await;
        let body = provider.asked().last().unwrap().body.clone();
        let system = body["messages"][0]["content"].as_str().unwrap();
        system.split_once("\n\n# Instructions of the project ").map(|(_, it)| it.to_owned())
    };
    let mut talk = ann.person.join(&ann.project, &ann.session).await;
    assert_eq!(told(&mut talk).await.as_deref(), Some("(`CLAUDE.md`)\n\nBe brief."));
    put("AGENTS.md", "Rhyme.").await;
    assert_eq!(told(&mut talk).await.as_deref(), Some("(`AGENTS.md`)\n\nRhyme."));
    // A link is not followed: it might lead to what may not be read.
    std::fs::remove_file(files.join("AGENTS.md")).unwrap();
    std::os::unix::fs::symlink("secret.txt", files.join("AGENTS.md")).unwrap();
    assert_eq!(told(&mut talk).await.as_deref(), Some("(`CLAUDE.md`)\n\nBe brief."));
    for action in [PermissionAction::Ask, PermissionAction::Deny] {
        let rule = PermissionCreate {
            session_id: None,
            permission: "read".to_owned(),
            pattern: "CLAUDE.md".to_owned(),
            action,
        };
        ann.call(rule).await.unwrap();
        assert_eq!(told(&mut talk).await, None);
    }
}
