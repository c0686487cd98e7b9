//! Sub-agents: set to work by calls of `task`, side by side, in the background, through restarts.

use iris_actors::ResumePolicy;
use iris_protocol::{
    AgentCreate, AgentMode, Approval, ApprovalState, Content, ErrorCode, Event, Message,
    MessageRole, MessageSend, PermissionAction, PermissionCreate, RunId, RunStatus, SessionCreate,
    SessionDelete, SessionId, SessionList, SessionMode, SessionState, SubtaskPart, SubtaskState,
    ToolPart, ToolState,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Gate, Reply, TestApp, calls_of, chat, moment,
    patiently, spawn_app, spawn_app_with, text_of,
};
use serde_json::{Value, json};

use crate::{code_of, refusal};

const ENDLESS: &str = "delay 10\nchunks 10000 tick";
const WRITE: &str = "call write {\"path\": \"a.txt\", \"content\": \"1\"}\nstep\nsay wrote it";

/// A line that sets `agent` to work with a script.
fn task(agent: &str, script: &str) -> String {
    call(&json!({"description": "look", "prompt": script, "agent": agent}))
}

fn call(input: &Value) -> String {
    format!("call task {input}")
}

/// Sets one sub-agent to work and says what it said.
fn one(agent: &str, script: &str) -> String {
    format!("{}\nstep\nsay heard {{{{result}}}}", task(agent, script))
}

fn subtasks(message: &Message) -> Vec<SubtaskPart> {
    let parts = message.parts.iter().filter_map(|part| match part {
        iris_protocol::Part::Subtask(part) => Some(part.clone()),
        _ => None,
    });
    parts.collect()
}

/// Waits until a sub-agent is set to work.
async fn begun(talk: &mut Conversation) -> SubtaskPart {
    let is_new = |event: &Event| match event {
        Event::MessageSubtaskUpdated { part, .. } => part.state == SubtaskState::Running,
        _ => false,
    };
    let frame = talk.wait_until("a sub-agent at work", is_new).await;
    let Event::MessageSubtaskUpdated { part, .. } = frame.event else { panic!("{frame:?}") };
    part
}

/// Why the call of a sub-agent has no result.
async fn error_of(talk: &Conversation, part: &SubtaskPart) -> String {
    let snapshot = talk.person.snapshot(&talk.project, &part.child_session_id).await;
    only_call(snapshot.messages.last().unwrap()).error.clone().unwrap()
}

async fn children(talk: &Conversation, of: &SessionId) -> Vec<iris_protocol::Session> {
    let parent_id = Some(of.clone());
    let list = SessionList { limit: None, cursor: None, include_archived: None, parent_id };
    talk.call(list).await.unwrap().sessions
}

fn only_call(message: &Message) -> &ToolPart {
    let calls = calls_of(message);
    assert_eq!(calls.len(), 1, "{calls:?}");
    calls[0]
}

async fn no_actors_below(app: &TestApp, session: &SessionId) {
    let below = format!("/session/{session}/");
    app.wait_for_actors("nothing below the session", |actors| {
        actors.iter().all(|actor| !actor.path.contains(&below))
    })
    .await;
}

#[tokio::test]
async fn a_sub_agent_works_in_a_session_of_its_own_and_its_last_words_are_the_result() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let script = one("explore", "say first\ncall list\nstep\nsay found it");
    let answer = ann.ask(&script).await;
    let part = subtasks(&answer).pop().unwrap();
    let child = &part.child_session_id;
    assert_eq!((part.state, part.agent.as_str()), (SubtaskState::Completed, "explore"));
    assert_eq!(text_of(&answer), format!("heard found it\n\n(session {child})"));
    let metadata = only_call(&answer).metadata.as_ref().unwrap();
    assert_eq!(metadata["childSessionId"], json!(child));
    assert_eq!((&metadata["status"], &metadata["steps"]), (&json!("completed"), &json!(2)));
    assert!(metadata["usage"]["outputTokens"].as_u64().unwrap() > 0);

    let sessions = children(&ann, &ann.session).await;
    assert_eq!(sessions.len(), 1);
    assert_eq!((&sessions[0].id, sessions[0].parent_id.as_ref()), (child, Some(&ann.session)));
    assert_eq!((sessions[0].title.as_str(), sessions[0].state), ("look", SessionState::Idle));
    let snapshot = ann.person.snapshot(&ann.project, child).await;
    assert_eq!(snapshot.messages[0].role, MessageRole::User);
    assert_eq!(text_of(&snapshot.messages[1]), "firstfound it");
    let states = ann.seen.iter().filter_map(|frame| match &frame.event {
        Event::MessageSubtaskUpdated { part, .. } => Some(part.state),
        _ => None,
    });
    assert_eq!(states.collect::<Vec<_>>(), [SubtaskState::Running, SubtaskState::Completed]);
}

#[tokio::test]
async fn sub_agents_work_side_by_side_below_the_run_that_waits_for_them() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let calls: Vec<_> = (0..3).map(|_| task("explore", ENDLESS)).collect();
    let run = ann.send_message(&calls.join("\n")).await.run_id;
    let mut parts = Vec::new();
    for _ in 0..3 {
        parts.push(begun(&mut ann).await);
    }
    let at_work: Vec<String> = parts
        .iter()
        .map(|part| {
            let (own, child) = (&ann.session, &part.child_session_id);
            let run = format!("/session/{own}/orchestrator/{run}/session/{child}/orchestrator/");
            format!("{run}{}", part.child_run_id)
        })
        .collect();
    app.wait_for_actors("three sub-agents", |actors| {
        at_work.iter().all(|path| actors.iter().any(|actor| actor.path.ends_with(path)))
    })
    .await;

    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);
    for part in parts {
        let is_idle =
            async {
                while children(&ann, &ann.session).await.iter().any(|child| {
                    child.id == part.child_session_id && child.state != SessionState::Idle
                }) {}
            };
        patiently("an idle sub-agent", is_idle).await;
    }
    let answer = ann.answer(&run).await;
    assert!(subtasks(&answer).iter().all(|part| part.state == SubtaskState::Cancelled));
    assert!(calls_of(&answer).iter().all(|call| call.state == ToolState::Cancelled));
    no_actors_below(&app, &ann.session).await;
}

#[tokio::test]
async fn what_a_sub_agent_asks_is_answered_in_the_session_above() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let asks = "call question {\"questions\": [{\"text\": \"which?\"}]}\nstep\n";
    let run = ann.send_message(&one("general", &format!("{asks}{WRITE}"))).await.run_id;
    let question = ann.question().await;
    let child = question.child_session_id.clone().unwrap();
    assert_eq!(question.session_id, ann.session);
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(snapshot.questions, std::slice::from_ref(&question));
    ann.answer_question(&question.id, &[&["this"]]).await.unwrap();

    let approval = ann.approval().await;
    assert_eq!((&approval.session_id, &approval.child_session_id), (&ann.session, &Some(child)));
    let decided = ann.approve(&approval.tool_call_id).await.unwrap();
    assert_eq!(decided.state, ApprovalState::Approved);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert!(text_of(&ann.answer(&run).await).contains("wrote it"));
    assert!(ann.names().contains(&"tool.approval.resolved"));

    // From another session nobody can.
    let run = ann.send_message(&one("general", WRITE)).await.run_id;
    let approval = ann.approval().await;
    let other = ann.person.session(&ann.project).await;
    let mut elsewhere = ann.person.join(&ann.project, &other.id).await;
    let refused = refusal(elsewhere.approve(&approval.tool_call_id).await);
    assert_eq!(refused.code, ErrorCode::NotFound);
    elsewhere.session.clone_from(&approval.child_session_id.unwrap());
    elsewhere.reject(&approval.tool_call_id, "no").await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let part = subtasks(&ann.answer(&run).await).pop().unwrap();
    assert!(error_of(&ann, &part).await.contains("rejected"));
}

#[tokio::test]
async fn one_sub_agent_needs_approval_one_fails_and_one_is_cancelled() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let fails = "fail invalid no such luck";
    let calls = [task("general", WRITE), task("explore", fails), task("explore", ENDLESS)];
    let run = ann.send_message(&format!("{}\nstep\nsay done", calls.join("\n"))).await.run_id;
    let approval = ann.approval().await;
    let endless = async {
        loop {
            // The one that fails runs for a moment, too.
            let children = children(&ann, &ann.session).await.into_iter();
            for child in children.filter(|child| child.state == SessionState::Running) {
                let snapshot = ann.person.snapshot(&ann.project, &child.id).await;
                if snapshot.messages.first().is_some_and(|asked| text_of(asked) == ENDLESS) {
                    return child;
                }
            }
        }
    };
    let endless = patiently("an endless sub-agent", endless).await;
    let cancel = iris_protocol::RunCancel { session_id: endless.id };
    assert!(ann.call(cancel).await.unwrap().cancelled);
    ann.approve(&approval.tool_call_id).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    let results: Vec<_> = calls_of(&answer)
        .iter()
        .map(|it| it.output.clone().or(it.error.clone()).unwrap())
        .collect();
    assert!(results[0].starts_with("wrote it"), "{results:?}");
    assert!(results[1].starts_with("the sub-agent failed: no such luck; "), "{results:?}");
    assert!(results[2].starts_with("the sub-agent was cancelled; "), "{results:?}");
    // They begin in any order.
    let mut parts = subtasks(&answer);
    parts.sort_by_key(|part| part.tool_call_id.clone());
    let states: Vec<_> = parts.iter().map(|part| part.state).collect();
    let (completed, cancelled) = (SubtaskState::Completed, SubtaskState::Cancelled);
    assert_eq!(states, [completed, SubtaskState::Error, cancelled]);
    assert_eq!(text_of(&answer), "done");
}

#[tokio::test]
async fn a_sub_agent_whose_actor_dies_is_an_error_of_the_call() {
    let app = spawn_app().await;
    let admin = app.admin().await;
    for kill_session in [false, true] {
        let mut ann = admin.conversation().await;
        let run = ann.send_message(&one("explore", ENDLESS)).await.run_id;
        let part = begun(&mut ann).await;
        let session = format!("/session/{}", part.child_session_id);
        let is_child = |path: &str| path.contains(&session) && path.contains("/orchestrator/run_");
        app.wait_for_actors("the sub-agent", |actors| {
            actors.iter().any(|actor| {
                is_child(&actor.path)
                    && actor.kind == "orchestrator"
                    && !actor.path.ends_with(run.as_str())
            })
        })
        .await;
        let actors = app.supervision().actors(None, None).into_iter();
        let kind = if kill_session { "session" } else { "orchestrator" };
        let id =
            if kill_session { part.child_session_id.as_str() } else { part.child_run_id.as_str() };
        let path =
            actors.map(|actor| actor.path).find(|path| path.ends_with(&format!("{kind}/{id}")));
        admin.client.stop_actor(&path.unwrap()).await.unwrap();
        assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
        let answer = ann.answer(&run).await;
        assert!(text_of(&answer).starts_with("heard the sub-agent failed: "), "{answer:?}");
        assert_eq!(subtasks(&answer)[0].state, SubtaskState::Error);
    }
}

#[tokio::test]
async fn the_death_of_a_run_ends_its_sub_agents() {
    let app = spawn_app().await;
    let admin = app.admin().await;
    let mut ann = admin.conversation().await;
    let run = ann.send_message(&one("general", &one("explore", ENDLESS))).await.run_id;
    let part = begun(&mut ann).await;
    let mut child = admin.join(&ann.project, &part.child_session_id).await;
    let nested = async {
        while children(&ann, &part.child_session_id)
            .await
            .iter()
            .all(|it| it.state != SessionState::Running)
        {}
    };
    patiently("a sub-agent of the sub-agent", nested).await;
    let actors = app.supervision().actors(None, None).into_iter();
    let path =
        actors.map(|actor| actor.path).find(|path| path.ends_with(&format!("orchestrator/{run}")));
    admin.client.stop_actor(&path.unwrap()).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Failed);
    assert_ne!(child.run_ended(&part.child_run_id).await, RunStatus::Completed);
    let all_idle = async {
        while children(&ann, &part.child_session_id)
            .await
            .iter()
            .any(|it| it.state != SessionState::Idle)
        {}
    };
    patiently("idle sub-agents", all_idle).await;
    no_actors_below(&app, &ann.session).await;
    // The session goes on.
    assert_eq!(text_of(&ann.ask("say still here").await), "still here");
}

#[tokio::test]
async fn sub_agents_of_sub_agents_are_told_of_no_task() {
    let reply = |call: Option<&str>| match call {
        Some(arguments) => {
            Reply::stream().bytes(chat::call("c", "task", arguments)).bytes(chat::end("tool_calls"))
        }
        None => chat::says("done"),
    };
    let arguments = json!({"description": "d", "prompt": "p", "agent": "general"}).to_string();
    let replies =
        [reply(Some(&arguments)), reply(Some(&arguments)), reply(None), reply(None), reply(None)];
    let provider = FakeProvider::start(replies).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("go").await;
    let asked = provider.asked();
    let task_of = |n: usize| {
        let tools = asked[n].body["tools"].as_array().unwrap().iter();
        tools.map(|tool| &tool["function"]).find(|it| it["name"] == "task").cloned()
    };
    let told = task_of(0).unwrap()["description"].as_str().unwrap().to_owned();
    assert!(told.contains("\n- `explore`: Finds out") && !told.contains("`plan`"), "{told}");
    assert!(task_of(1).is_some());
    assert_eq!(task_of(2), None);
    assert_eq!(asked.len(), 5);
}

#[tokio::test]
async fn a_sub_agent_may_do_no_more_than_the_sessions_above() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let rule = |pattern: &str, action| PermissionCreate {
        session_id: Some(ann.session.clone()),
        permission: "write".to_owned(),
        pattern: pattern.to_owned(),
        action,
    };
    ann.call(rule("*", PermissionAction::Allow)).await.unwrap();
    ann.call(rule("b.txt", PermissionAction::Deny)).await.unwrap();
    // What people allowed in the session holds for its sub-agents.
    let answer = ann.ask(&one("general", WRITE)).await;
    assert!(text_of(&answer).contains("wrote it"), "{answer:?}");
    let denied = WRITE.replace("a.txt", "b.txt");
    let part = subtasks(&ann.ask(&one("general", &denied)).await).pop().unwrap();
    let error = error_of(&ann, &part).await;
    assert!(error.contains("a rule of the session denies `write` of `b.txt`"), "{error}");
    // The agent's own rules too.
    let answer = ann.ask(&one("explore", &denied.replace("b.txt", "c.txt"))).await;
    let error = error_of(&ann, &subtasks(&answer)[0]).await;
    assert!(error.starts_with("unknown tool `write`"), "{error}");

    let planning = SessionCreate {
        title: None,
        agent: Some("plan".to_owned()),
        model: None,
        mode: Some(SessionMode::Default),
    };
    let session = ann.call(planning).await.unwrap().session;
    let mut plan = ann.person.join(&ann.project, &session.id).await;
    let answer = plan.ask(&one("general", WRITE)).await;
    let error = error_of(&plan, &subtasks(&answer)[0]).await;
    assert!(
        error.contains("the session that began this one: a rule of the agent denies"),
        "{error}"
    );
}

#[tokio::test]
async fn a_yes_for_the_session_is_one_for_all_of_the_conversation() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(&one("general", WRITE)).await.run_id;
    let approval = ann.approval().await;
    let yes = iris_protocol::ToolApprove {
        session_id: ann.session.clone(),
        tool_call_id: approval.tool_call_id,
        remember: Some(iris_protocol::Remember::Session),
        input_hash: None,
        input: None,
    };
    ann.call(yes).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let text = text_of(&ann.ask(&one("general", WRITE)).await);
    assert!(text.contains("wrote it"), "{text}");
}

#[tokio::test]
async fn a_task_that_nobody_can_do_is_told_to_the_model() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let error = |text: &str| text.strip_prefix("heard ").unwrap().to_owned();
    let text = error(&text_of(&ann.ask(&one("nobody", "say x")).await));
    assert_eq!(text, "there is no sub-agent `nobody`; there are `explore`, `general`");
    let text = error(&text_of(&ann.ask(&one("plan", "say x")).await));
    assert!(text.starts_with("there is no sub-agent `plan`"), "{text}");
    let say = "\nstep\nsay heard {{result}}";
    let task = |field: &str, value: &str| {
        let mut input = json!({"description": "d", "prompt": "p", "agent": "explore"});
        input[field] = json!(value);
        format!("{}{say}", call(&input))
    };
    let text = error(&text_of(&ann.ask(&task("model", "nowhere/small")).await));
    assert!(text.contains("nowhere"), "{text}");
    let text = error(&text_of(&ann.ask(&task("resume", "ses_no")).await));
    assert!(text.contains("`/resume` is no id of a session"), "{text}");
    let unknown = SessionId::from_bits(7).to_string();
    let text = error(&text_of(&ann.ask(&task("resume", &unknown)).await));
    assert!(text.contains("session"), "{text}");
    assert_eq!(children(&ann, &ann.session).await, []);

    let deny = PermissionCreate {
        session_id: Some(ann.session.clone()),
        permission: "task".to_owned(),
        pattern: "general".to_owned(),
        action: PermissionAction::Deny,
    };
    ann.call(deny).await.unwrap();
    let text = error(&text_of(&ann.ask(&one("general", "say x")).await));
    assert!(text.starts_with("`task` of `general` is not allowed"), "{text}");
    assert!(text_of(&ann.ask(&one("explore", "say fine")).await).contains("fine"));
}

#[tokio::test]
async fn a_sub_agent_goes_on_where_it_was_with_all_it_knows() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let part = subtasks(&ann.ask(&one("explore", "say one")).await).pop().unwrap();
    let mut input = json!({"description": "more", "prompt": "say two", "agent": "explore"});
    input["resume"] = json!(part.child_session_id);
    let answer = ann.ask(&format!("{}\nstep\nsay heard {{{{result}}}}", call(&input))).await;
    assert!(text_of(&answer).starts_with("heard two"), "{answer:?}");
    let again = subtasks(&answer).pop().unwrap();
    assert_eq!(again.child_session_id, part.child_session_id);
    let snapshot = ann.person.snapshot(&ann.project, &part.child_session_id).await;
    assert_eq!(snapshot.messages.len(), 4);
    input["agent"] = json!("general");
    let answer = ann.ask(&format!("{}\nstep\nsay heard {{{{result}}}}", call(&input))).await;
    assert!(text_of(&answer).contains("the agent of that session is `explore`"));
}

#[tokio::test]
async fn in_the_background_a_sub_agent_outlives_the_run_and_wakes_the_session() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut input = json!({"description": "look", "agent": "general", "background": true});
    input["prompt"] = json!(WRITE);
    let answer = ann.ask(&format!("{}\nstep\nsay {{{{result}}}}", call(&input))).await;
    assert!(text_of(&answer).starts_with("It works in the background"), "{answer:?}");
    let part = subtasks(&answer).pop().unwrap();
    assert!(part.background);
    let path = format!("/session/{}/session/{}", ann.session, part.child_session_id);
    app.wait_for_actors("the sub-agent below the session", |actors| {
        actors.iter().any(|actor| actor.path.ends_with(&path))
    })
    .await;
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert_eq!(snapshot.session.state, SessionState::Idle);
    let approval = snapshot.approvals.first().cloned();
    let approval = match approval {
        Some(approval) => approval,
        None => ann.approval().await,
    };
    // The session cannot be archived meanwhile.
    let archive = iris_protocol::SessionArchive { session_id: ann.session.clone() };
    assert_eq!(code_of(&refusal(ann.call(archive).await)), (ErrorCode::Conflict, "session_busy"));
    ann.approve(&approval.tool_call_id).await.unwrap();
    let is_wake = |event: &Event| match event {
        Event::MessageCreated { message, .. } => message.role == MessageRole::System,
        _ => false,
    };
    let frame = ann.wait_until("the session is woken", is_wake).await;
    let Event::MessageCreated { message, .. } = frame.event else { panic!("{frame:?}") };
    let text = text_of(&message);
    assert!(text.contains("The sub-agent `general` has done \"look\""), "{text}");
    assert!(text.ends_with("\n\nwrote it"), "{text}");
    let run = message.run_id.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert!(text_of(&ann.answer(&run).await).starts_with("You said: The sub-agent"));
    no_actors_below(&app, &ann.session).await;
}

#[tokio::test]
async fn a_cancel_of_the_session_ends_what_works_in_the_background() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut input = json!({"description": "look", "agent": "explore", "background": true});
    input["prompt"] = json!(ENDLESS);
    let answer = ann.ask(&format!("{}\nstep\nsay ok", call(&input))).await;
    let part = subtasks(&answer).pop().unwrap();
    let mut child = ann.person.join(&ann.project, &part.child_session_id).await;
    assert!(ann.cancel().await);
    let ended = async {
        loop {
            let get = iris_protocol::RunGet {
                session_id: part.child_session_id.clone(),
                run_id: part.child_run_id.clone(),
            };
            let run = child.call(get).await.unwrap().run;
            if run.ended_at.is_some() {
                break run;
            }
            child.next().await;
        }
    };
    assert_eq!(patiently("the end", ended).await.status, RunStatus::Cancelled);
    assert_eq!(children(&ann, &ann.session).await.len(), 1);
    let purge = SessionDelete { session_id: ann.session.clone(), permanent: Some(true) };
    let deleted = async {
        while ann.call(purge.clone()).await.is_err() {
            moment().await;
        }
    };
    patiently("the session is gone", deleted).await;
    let list =
        SessionList { limit: None, cursor: None, include_archived: Some(true), parent_id: None };
    assert_eq!(ann.call(list).await.unwrap().sessions, []);
}

#[tokio::test]
async fn a_run_that_waits_for_a_sub_agent_that_waits_survives_a_restart() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(&one("general", WRITE)).await.run_id;
    let approval = ann.approval().await;
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    let below = format!("/orchestrator/{run}/session/{}", approval.child_session_id.unwrap());
    app.wait_for_actors("the sub-agent below the run", |actors| {
        actors.iter().any(|actor| actor.path.ends_with(&below))
    })
    .await;
    again.approve(&approval.tool_call_id).await.unwrap();
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    assert!(text_of(&again.answer(&run).await).contains("wrote it"));
}

#[tokio::test]
async fn what_worked_is_interrupted_by_a_restart_or_goes_on_by_itself() {
    for resume in [ResumePolicy::Manual, ResumePolicy::Auto] {
        let gate = Gate::default();
        let arguments = json!({"description": "d", "prompt": "p", "agent": "general"}).to_string();
        let calls = Reply::stream()
            .bytes(chat::call("c", "task", &arguments))
            .bytes(chat::end("tool_calls"));
        let held = Reply::stream().wait(&gate).bytes(chat::text("late")).bytes(chat::end("stop"));
        let replies = [calls, held, chat::says("from the sub-agent"), chat::says("all done")];
        let provider = FakeProvider::start(replies).await;
        let options = AppOptions { resume, ..AppOptions::with_provider(provider.base_url()) };
        let app = spawn_app_with(options).await;
        let mut ann = app.user("ann").await.conversation().await;
        let run = ann.send_message("go").await.run_id;
        gate.reached().await;
        let part = begun(&mut ann).await;
        let app = app.restart().await;
        let mut again = ann.resume(app.again(&ann.person)).await;
        let ended = again.run_ended(&run).await;
        let answer = again.answer(&run).await;
        let call = only_call(&answer);
        match resume {
            ResumePolicy::Auto => {
                assert_eq!(ended, RunStatus::Completed);
                assert!(call.output.as_ref().unwrap().starts_with("from the sub-agent"));
                assert_eq!(text_of(&answer), "all done");
            }
            ResumePolicy::Manual => {
                assert_eq!(
                    (ended, call.state),
                    (RunStatus::Interrupted, ToolState::UnknownOutcome)
                );
                let state = subtasks(&answer)[0].state;
                assert_eq!(
                    (state, &subtasks(&answer)[0].id),
                    (SubtaskState::Interrupted, &part.id)
                );
            }
        }
    }
}

#[tokio::test]
async fn agents_say_what_they_are_for_and_who_may_set_them_to_work() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let create = |name: &str, mode| AgentCreate {
        name: name.to_owned(),
        description: Some("for tests".to_owned()),
        mode,
        prompt: None,
        model: None,
        tools: Some(vec!["read".to_owned()]),
        tuning: iris_protocol::AgentTuning::default(),
        permissions: None,
        budget: None,
    };
    let helper = ann.call(create("helper", Some(AgentMode::Subagent))).await.unwrap().agent;
    assert_eq!((helper.mode, helper.description.as_str()), (AgentMode::Subagent, "for tests"));
    // A project's own takes the place of a built-in one.
    ann.call(create("explore", None)).await.unwrap();
    let agents = ann.call(iris_protocol::AgentList {}).await.unwrap().agents;
    let names: Vec<_> = agents.iter().map(|agent| (agent.name.as_str(), agent.builtin)).collect();
    let expected = [
        ("default", true),
        ("plan", true),
        ("general", true),
        ("explore", false),
        ("helper", false),
    ];
    assert_eq!(names, expected);
    assert!(text_of(&ann.ask(&one("helper", "say hi")).await).contains("hi"));
    let begin =
        SessionCreate { title: None, agent: Some("helper".into()), model: None, mode: None };
    let refused = refusal(ann.call(begin).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "agent_not_primary"));
    let long = AgentCreate { description: Some("x".repeat(1_001)), ..create("long", None) };
    assert_eq!(refusal(ann.call(long).await).code, ErrorCode::PayloadTooLarge);
}

#[tokio::test]
async fn people_may_talk_to_a_sub_agent_after_its_task() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let part = subtasks(&ann.ask(&one("explore", "say one")).await).pop().unwrap();
    let mut child = ann.person.join(&ann.project, &part.child_session_id).await;
    assert_eq!(text_of(&child.ask("say to you too").await), "to you too");
    let send = MessageSend {
        session_id: ann.session.clone(),
        content: Content::Text("say back".to_owned()),
        when_busy: None,
        attachments: Vec::new(),
    };
    let run = ann.call(send).await.unwrap().run_id;
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
}

/// Sets `agent` to work in the background.
fn background(agent: &str, script: &str) -> String {
    call(&json!({"description": "look", "prompt": script, "agent": agent, "background": true}))
}

fn is_wake(event: &Event) -> bool {
    match event {
        Event::MessageCreated { message, .. } => message.role == MessageRole::System,
        _ => false,
    }
}

/// Waits until a session is woken, and gives what it says to that.
async fn woken(talk: &mut Conversation) -> String {
    let frame = talk.wait_until("the session is woken", is_wake).await;
    let Event::MessageCreated { message, .. } = frame.event else { panic!("{frame:?}") };
    let run = message.run_id.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    text_of(&talk.answer(&run).await)
}

#[tokio::test]
async fn a_sub_agent_that_somebody_talked_to_goes_on_for_a_task() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let part = subtasks(&ann.ask(&one("explore", "say one")).await).pop().unwrap();
    let mut child = ann.person.join(&ann.project, &part.child_session_id).await;
    assert_eq!(text_of(&child.ask("say to you too").await), "to you too");
    let mut input = json!({"description": "more", "prompt": "say two", "agent": "explore"});
    input["resume"] = json!(part.child_session_id);
    let answer = ann.ask(&format!("{}\nstep\nsay heard {{{{result}}}}", call(&input))).await;
    assert!(text_of(&answer).starts_with("heard two"), "{answer:?}");
}

/// What a sub-agent in the background asks, and the end of the run that left it: either may come first.
async fn approval_and_end(ann: &mut Conversation, run: &RunId) -> Approval {
    let (mut asked, mut has_ended) = (None, false);
    loop {
        match ann.next().await.event {
            Event::ToolApprovalRequired { approval, .. } => asked = approval,
            Event::RunCompleted { run_id, status, .. } if run_id == *run => {
                assert_eq!(status, RunStatus::Completed);
                has_ended = true;
            }
            _ => {}
        }
        if has_ended && let Some(approval) = asked.take() {
            return *approval;
        }
    }
}

#[tokio::test]
async fn what_a_sub_agent_leaves_at_work_outlives_the_run_above_it_too() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let middle = format!("{}\nstep\nsay set to work", background("general", WRITE));
    let run = ann.send_message(&one("general", &middle)).await.run_id;
    let approval = approval_and_end(&mut ann, &run).await;
    let part = subtasks(&ann.answer(&run).await).pop().unwrap();
    let mut child = ann.person.join(&ann.project, &part.child_session_id).await;
    no_actors_below(&app, &ann.session).await;
    // It works still, and who set it to work is told of its end.
    ann.approve(&approval.tool_call_id).await.unwrap();
    let said = woken(&mut child).await;
    assert!(said.contains("has done \"look\"") && said.ends_with("wrote it"), "{said}");
}

#[tokio::test]
async fn what_a_person_asks_of_a_sub_agent_outlives_the_run_that_set_it_to_work() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message(&one("general", WRITE)).await.run_id;
    let approval = ann.approval().await;
    let id = approval.child_session_id.clone().unwrap();
    let mut child = ann.person.join(&ann.project, &id).await;
    let own = child.send_message("delay 10\nchunks 50 tick").await.run_id;
    ann.approve(&approval.tool_call_id).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(child.run_ended(&own).await, RunStatus::Completed);
    no_actors_below(&app, &ann.session).await;
}

#[tokio::test]
async fn a_sub_agent_in_the_background_that_is_resumed_wakes_the_session() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let script = format!("{}\nstep\nsay ok", background("explore", "delay 10\nchunks 50 tick"));
    let part = subtasks(&ann.ask(&script).await).pop().unwrap();
    let mut child = ann.person.join(&ann.project, &part.child_session_id).await;
    child.wait_for("message.text.delta").await;
    let app = app.restart().await;
    let mut again = ann.resume(app.again(&ann.person)).await;
    let (session_id, run_id) = (part.child_session_id.clone(), part.child_run_id.clone());
    let resume =
        || iris_protocol::RunResume { session_id: session_id.clone(), run_id: run_id.clone() };
    // The recovery may not have got there yet.
    let resumed = async {
        while again.call(resume()).await.is_err() {
            moment().await;
        }
    };
    patiently("the sub-agent to go on", resumed).await;
    assert!(woken(&mut again).await.contains("has done \"look\""));
}
