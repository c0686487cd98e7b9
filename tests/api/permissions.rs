//! Rules about what tools may touch: who makes them, what they decide, and answers that are remembered.

use iris_protocol::{
    AgentCreate, Approval, ApprovalList, ApprovalState, ErrorCode, Event, JudgedAccess,
    PermissionAction, PermissionCreate, PermissionDelete, PermissionExplain, PermissionLayer,
    PermissionList, PermissionPayload, PermissionRule, PermissionSetting, PermissionUpdate,
    PermissionVerdict, ProjectId, Remember, Role, RunStatus, SessionCreate, SessionId, SessionMode,
    SessionUpdate, ToolApprove, ToolCallId, ToolState,
};
use iris_testkit::{Conversation, Person, calls_of, patiently, spawn_app, text_of};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};
use PermissionAction::{Allow, Ask, Deny};

fn create(
    session_id: Option<&SessionId>,
    permission: &str,
    pattern: &str,
    action: PermissionAction,
) -> PermissionCreate {
    let (permission, pattern) = (permission.to_owned(), pattern.to_owned());
    PermissionCreate { session_id: session_id.cloned(), permission, pattern, action }
}

async fn rule(
    person: &Person,
    project: &ProjectId,
    permission: &str,
    pattern: &str,
    action: PermissionAction,
) -> PermissionRule {
    let request = create(None, permission, pattern, action);
    person.client.call(Some(project), request).await.unwrap().rule
}

fn rules_of(session_id: Option<&SessionId>) -> PermissionList {
    PermissionList { session_id: session_id.cloned(), limit: None, cursor: None }
}

fn writes(path: &str, content: &str) -> String {
    let input = json!({ "path": path, "content": content });
    format!("call write {input}\nstep\nsay {{{{result}}}}")
}

fn approval_of(talk: &Conversation, call: &ToolCallId) -> ToolApprove {
    ToolApprove {
        session_id: talk.session.clone(),
        tool_call_id: call.clone(),
        remember: None,
        input_hash: None,
        input: None,
    }
}

/// The state of the only call of the answer to a message.
async fn outcome(talk: &mut Conversation, message: &str) -> (ToolState, String) {
    let run = talk.send_message(message).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let call = calls_of(&answer)[0].clone();
    (call.state, call.error.unwrap_or_default())
}

#[tokio::test]
async fn a_rule_counts_from_the_next_call_on_and_until_it_is_deleted() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let allowed = rule(&ann, &talk.project, "edit", "notes", Allow).await;
    assert_eq!(
        (allowed.layer, allowed.created_by.as_ref()),
        (PermissionLayer::Project, Some(ann.id()))
    );
    let (state, _) = outcome(&mut talk, &writes("notes/a", "1")).await;
    assert_eq!(state, ToolState::Completed, "nobody was asked");

    let change = PermissionUpdate {
        permission_id: allowed.id.clone().unwrap(),
        permission: None,
        pattern: None,
        action: Some(Deny),
    };
    let PermissionPayload { rule: changed, .. } = talk.call(change).await.unwrap();
    assert_eq!((changed.action, &changed.pattern), (Deny, &allowed.pattern));
    let (state, error) = outcome(&mut talk, &writes("notes/a", "2")).await;
    assert_eq!(state, ToolState::Denied);
    assert_eq!(
        error,
        "`write` of `notes/a` is not allowed: a rule of the project denies `edit` of `notes`"
    );

    talk.call(PermissionDelete { permission_id: changed.id.unwrap() }).await.unwrap();
    let run = talk.send_message(&writes("notes/a", "3")).await.run_id;
    let asked = talk.approval().await;
    assert_eq!(asked.accesses[0].reason, "no rule names it");
    talk.approve(&asked.tool_call_id).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    assert_eq!(ann.client.file_get(&talk.project, "notes/a").await.unwrap(), "3");
}

#[tokio::test]
async fn everybody_in_the_project_hears_that_a_rule_changed() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let talk = ann.conversation().await;
    let notices = talk.connect_to_project().await;
    let made = rule(&ann, &talk.project, "bash", "git *", Allow).await;
    let id = made.id.clone().unwrap();
    talk.call(PermissionDelete { permission_id: id.clone() }).await.unwrap();
    for expected in [Some(made), None] {
        let frame = patiently("permission.updated", notices.next_event()).await.unwrap();
        let Event::PermissionUpdated { permission_id, rule } = frame.event else {
            panic!("{frame:?}")
        };
        assert_eq!((permission_id, rule.map(|rule| *rule)), (id.clone(), expected));
        assert!(frame.meta.seq.is_some());
    }
}

#[tokio::test]
async fn rules_of_the_project_are_for_its_administrators_and_those_of_a_session_for_its_members() {
    let app = spawn_app().await;
    let (ann, bob, eve) = (app.user("ann").await, app.user("bob").await, app.user("eve").await);
    let talk = ann.conversation().await;
    let project = &talk.project;
    ann.add_member(project, &bob, Role::Member).await;
    ann.add_member(project, &eve, Role::Viewer).await;
    let call = async |person: &Person, request: PermissionCreate| {
        person.client.call(Some(project), request).await
    };
    let session = Some(&talk.session);
    let refused = refusal(call(&bob, create(None, "edit", "a", Allow)).await);
    assert_eq!(
        (refused.code, &refused.details["reason"]),
        (ErrorCode::Forbidden, &json!("needs_admin"))
    );
    let his = call(&bob, create(session, "edit", "a", Allow)).await.unwrap().rule;
    assert_eq!((his.layer, his.session_id.as_ref()), (PermissionLayer::Session, session));
    let refused = refusal(call(&eve, create(session, "edit", "a", Allow)).await);
    assert_eq!(refused.code, ErrorCode::Forbidden);

    let hers = rule(&ann, project, "edit", "a", Deny).await;
    let delete = |id| PermissionDelete { permission_id: id };
    let hers_id = hers.id.clone().unwrap();
    let refused = refusal(bob.client.call(Some(project), delete(hers_id.clone())).await);
    assert_eq!(refused.details["reason"], "needs_admin");
    let update = PermissionUpdate {
        permission_id: hers_id,
        permission: None,
        pattern: Some("b".into()),
        action: None,
    };
    assert_eq!(refusal(bob.client.call(Some(project), update).await).code, ErrorCode::Forbidden);
    let list = rules_of(Some(&talk.session));
    let rules = eve.client.call(Some(project), list).await.unwrap().rules;
    assert_eq!(rules, [hers, his.clone()]);
    bob.client.call(Some(project), delete(his.id.unwrap())).await.unwrap();
}

#[tokio::test]
async fn what_is_no_rule_is_refused_and_a_wide_one_is_warned_of() {
    let app = spawn_app().await;
    // The first administrator may have programs run.
    let (admin, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &admin, Role::Admin).await;
    for (permission, pattern, reason) in [
        ("", "a", "invalid_permission"),
        ("re*d", "a", "invalid_permission"),
        ("read", "", "invalid_pattern"),
        ("read", "a[", "invalid_pattern"),
        ("read", "!a", "invalid_pattern"),
        ("read", &"x".repeat(2_000), "invalid_pattern"),
    ] {
        let refused =
            refusal(ann.client.call(Some(&project), create(None, permission, pattern, Ask)).await);
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
        assert_eq!(refused.details["reason"], reason, "{permission} {pattern}");
    }
    let nowhere = SessionId::from_bits(9);
    let refused = ann.client.call(Some(&project), create(Some(&nowhere), "read", "a", Ask)).await;
    assert_eq!(refusal(refused).code, ErrorCode::NotFound);
    let refused = refusal(ann.client.call(Some(&project), create(None, "*", "*", Allow)).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "no_code"));
    let warned = async |person: &Person, permission: &str, pattern: &str| {
        let request = create(None, permission, pattern, Allow);
        person.client.call(Some(&project), request).await.unwrap().warnings
    };
    let wide = warned(&admin, "*", "*").await;
    assert_eq!(wide, ["it allows everything that `*` can touch"]);
    let unknown = warned(&ann, "edti", "a").await;
    assert_eq!(unknown, ["no tool and no group of tools is called `edti` now"]);
    assert!(warned(&ann, "edit", "src/**").await.is_empty());
    // Unknown fields are a mistake here.
    let path = format!("/v1/projects/{project}/permissions");
    let body = json!({ "permission": "edit", "pattern": "a", "action": "ask", "sesionId": "x" });
    assert_eq!(ann.post(&path, body).await.status, 400);
}

async fn remembering(talk: &mut Conversation, remember: Remember, path: &str) -> Approval {
    let run = talk.send_message(&writes(path, "x")).await.run_id;
    let asked = talk.approval().await;
    let request =
        ToolApprove { remember: Some(remember), ..approval_of(talk, &asked.tool_call_id) };
    let approval = talk.call(request).await.unwrap().approval;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    approval
}

#[tokio::test]
async fn an_answer_is_remembered_for_exactly_what_was_asked_and_where() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let approval = remembering(&mut talk, Remember::Session, "a*.txt").await;
    assert_eq!(approval.remember, Some(Remember::Session));
    assert_eq!(outcome(&mut talk, &writes("a*.txt", "y")).await.0, ToolState::Completed);
    // It is no pattern.
    let run = talk.send_message(&writes("ab.txt", "y")).await.run_id;
    let asked = talk.approval().await;
    talk.reject(&asked.tool_call_id, "no").await.unwrap();
    talk.run_ended(&run).await;
    // Another session asks.
    let mut other = ann.conversation_in(&talk.project).await;
    remembering(&mut other, Remember::Project, "a*.txt").await;
    let mut third = ann.conversation_in(&talk.project).await;
    assert_eq!(outcome(&mut third, &writes("a*.txt", "z")).await.0, ToolState::Completed);

    let rules = talk.call(rules_of(None)).await.unwrap().rules;
    let told: Vec<_> = rules
        .iter()
        .map(|it| (it.layer, it.permission.as_str(), it.pattern.as_str(), it.session_id.is_some()))
        .collect();
    let layer = PermissionLayer::Remembered;
    assert_eq!(told, [(layer, "write", r"/a\*.txt", true), (layer, "write", r"/a\*.txt", false)]);
}

#[tokio::test]
async fn a_member_may_not_remember_for_the_whole_project() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let mut hers = ann.conversation().await;
    ann.add_member(&hers.project, &bob, Role::Member).await;
    hers.send_message(&writes("a.txt", "x")).await;
    let asked = hers.approval().await;
    assert_eq!(asked.options, [Remember::Once, Remember::Session, Remember::Project]);
    let request = ToolApprove {
        remember: Some(Remember::Project),
        ..approval_of(&hers, &asked.tool_call_id)
    };
    let refused = refusal(bob.client.call(Some(&hers.project), request.clone()).await);
    assert_eq!(refused.details["reason"], "needs_admin");
    hers.call(request).await.unwrap();
}

#[tokio::test]
async fn arguments_can_be_edited_and_are_judged_and_checked_like_the_models() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    rule(&ann, &talk.project, "edit", "private", Deny).await;
    let run = talk.send_message(&writes("a.txt", "x")).await.run_id;
    let asked = talk.approval().await;
    let with = |input: Value| ToolApprove {
        input: Some(input),
        ..approval_of(&talk, &asked.tool_call_id)
    };
    let refused = refusal(talk.call(with(json!({ "path": 1 }))).await);
    assert_eq!(refused.details["reason"], "invalid_input");
    assert!(refused.message.contains("/path"), "{}", refused.message);
    let refused = refusal(talk.call(with(json!({ "path": "private/a", "content": "" }))).await);
    assert_eq!(
        (refused.code, &refused.details["reason"]),
        (ErrorCode::Forbidden, &json!("denied_by_rule"))
    );
    let refused = refusal(talk.call(with(json!({ "path": "../a", "content": "" }))).await);
    assert_eq!(refused.code, ErrorCode::Forbidden);
    let stale =
        ToolApprove { input_hash: Some("0".repeat(64)), ..approval_of(&talk, &asked.tool_call_id) };
    assert_eq!(refusal(talk.call(stale).await).details["reason"], "input_changed");

    let edited = json!({ "path": "b.txt", "content": "mine" });
    let request =
        ToolApprove { input_hash: Some(asked.input_hash.clone()), ..with(edited.clone()) };
    let approval = talk.call(request).await.unwrap().approval;
    assert_eq!((&approval.input, &approval.original_input), (&edited, &Some(asked.input)));
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    assert_eq!(calls_of(&answer)[0].input, edited);
    assert!(text_of(&answer).contains("created `b.txt`"), "{}", text_of(&answer));
    assert_eq!(ann.client.file_get(&talk.project, "b.txt").await.unwrap(), "mine");
    assert_eq!(
        refusal(ann.client.file_get(&talk.project, "a.txt").await).code,
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn a_rule_that_comes_while_a_call_waits_denies_it() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let run = talk.send_message(&writes("a.txt", "x")).await.run_id;
    let asked = talk.approval().await;
    rule(&ann, &talk.project, "*", "*.txt", Deny).await;
    let refused = refusal(talk.approve(&asked.tool_call_id).await);
    assert_eq!(refused.details["reason"], "denied_by_rule");
    talk.reject(&asked.tool_call_id, "as the rule says").await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
}

#[tokio::test]
async fn approvals_are_listed_and_read() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let run = talk.send_message(&writes("a.txt", "x")).await.run_id;
    let asked = talk.approval().await;
    let list = |state| ApprovalList { session_id: None, state, limit: None, cursor: None };
    assert_eq!(talk.call(list(None)).await.unwrap().approvals, std::slice::from_ref(&asked));
    talk.approve(&asked.tool_call_id).await.unwrap();
    talk.run_ended(&run).await;
    assert_eq!(talk.call(list(None)).await.unwrap().approvals, []);
    let approved = talk.call(list(Some(ApprovalState::Approved))).await.unwrap().approvals;
    assert_eq!(approved[0].by.as_ref(), Some(ann.id()));
    let path = format!(
        "/v1/projects/{}/sessions/{}/approvals/{}",
        talk.project, talk.session, asked.tool_call_id
    );
    assert_eq!(ann.get(&path).await.json["data"], json!(approved[0]));
    let path = format!("/v1/projects/{}/approvals?state=approved", talk.project);
    assert_eq!(ann.get(&path).await.json["data"], json!(approved));
}

#[tokio::test]
async fn modes_decide_what_no_rule_names() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let mut talk = ann.conversation().await;
    ann.add_member(&talk.project, &bob, Role::Member).await;
    let set = |mode| SessionUpdate {
        session_id: talk.session.clone(),
        title: None,
        agent: None,
        model: None,
        mode: Some(mode),
    };
    let (accept, plan, auto) =
        (set(SessionMode::AcceptEdits), set(SessionMode::Plan), set(SessionMode::Auto));
    talk.call(accept).await.unwrap();
    assert_eq!(outcome(&mut talk, &writes("a.txt", "x")).await.0, ToolState::Completed);
    talk.call(plan).await.unwrap();
    let (state, error) = outcome(&mut talk, &writes("a.txt", "y")).await;
    assert_eq!(state, ToolState::Denied);
    assert!(error.contains("the mode `plan`"), "{error}");
    assert_eq!(outcome(&mut talk, "call read {\"path\": \"a.txt\"}").await.0, ToolState::Completed);

    let refused = refusal(bob.client.call(Some(&talk.project), auto).await);
    assert_eq!(
        (refused.code, &refused.details["reason"]),
        (ErrorCode::Forbidden, &json!("needs_admin"))
    );
    let create =
        SessionCreate { title: None, agent: None, model: None, mode: Some(SessionMode::Auto) };
    let refused = refusal(bob.client.call(Some(&talk.project), create).await);
    assert_eq!(refused.code, ErrorCode::Forbidden);
}

#[tokio::test]
async fn a_verdict_is_explained_with_the_rule_that_decides() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let talk = ann.conversation().await;
    let made = rule(&ann, &talk.project, "edit", "src", Allow).await;
    let permission =
        PermissionSetting { permission: "write".into(), pattern: "src/gen".into(), action: Deny };
    let agent = AgentCreate {
        name: "careful".into(),
        description: None,
        mode: None,
        prompt: None,
        model: None,
        tools: None,
        tuning: iris_protocol::AgentTuning::default(),
        permissions: Some(vec![permission.clone()]),
    };
    let agent = talk.call(agent).await.unwrap().agent;
    assert_eq!(agent.permissions, [permission]);
    let explain = |tool: &str, path: &str, agent: Option<&str>| PermissionExplain {
        session_id: Some(talk.session.clone()),
        agent: agent.map(str::to_owned),
        tool_name: tool.to_owned(),
        input: json!({ "path": path, "content": "" }),
    };
    let PermissionVerdict { action, accesses } =
        talk.call(explain("write", "src/gen/a", None)).await.unwrap();
    assert_eq!(action, Allow);
    let [JudgedAccess { target, rule: Some(decided), .. }] = accesses.as_slice() else {
        panic!("{accesses:?}")
    };
    assert_eq!((target.as_str(), decided), ("src/gen/a", &made));
    let verdict = talk.call(explain("write", "src/gen/a", Some("careful"))).await.unwrap();
    assert_eq!(verdict.action, Deny);
    assert_eq!(verdict.accesses[0].rule.as_ref().unwrap().layer, PermissionLayer::Agent);
    assert_eq!(talk.call(explain("write", "other", None)).await.unwrap().action, Ask);
    assert_eq!(talk.call(explain("write", "/etc/passwd", None)).await.unwrap().action, Deny);
    let refused = refusal(talk.call(explain("nothing", "a", None)).await);
    assert_eq!(refused.details["reason"], "unknown_tool");
    let refused = refusal(talk.call(explain("read", "a", None)).await);
    assert_eq!(refused.details["reason"], "invalid_input", "`read` takes no `content`");
    let refused = refusal(talk.call(explain("write", "a", Some("nobody"))).await);
    assert_eq!(refused.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn rules_of_an_agent_are_checked() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let path = format!("/v1/projects/{project}/agents");
    let rules = |rules: Value| json!({ "name": "a", "permissions": rules });
    let good = json!({ "permission": "edit", "pattern": "a", "action": "ask" });
    let bad = json!({ "permission": "edit", "pattern": "[", "action": "ask" });
    let answer = ann.post(&path, rules(json!([good, bad]))).await;
    assert_eq!(answer.json["error"]["details"]["reason"], "invalid_pattern");
    let many = vec![good; 129];
    let answer = ann.post(&path, rules(json!(many))).await;
    assert_eq!(answer.json["error"]["details"]["reason"], "too_many_permissions");
}

#[tokio::test]
async fn a_rule_of_the_server_counts_in_every_project() {
    let app = spawn_app().await;
    let (admin, ann) = (app.admin().await, app.user("ann").await);
    let mut talk = ann.conversation().await;
    rule(&ann, &talk.project, "edit", "*", Allow).await;
    assert_eq!(outcome(&mut talk, &writes("a.lock", "x")).await.0, ToolState::Completed);
    let body = json!({ "permission": "edit", "pattern": "*.lock", "action": "deny" });
    let made = admin.post("/v1/admin/permissions", body.clone()).await;
    assert_eq!(made.status, 201, "{made:?}");
    let (state, error) = outcome(&mut talk, &writes("a.lock", "y")).await;
    assert_eq!(state, ToolState::Denied);
    assert!(error.contains("a rule of the server denies"), "{error}");
    let rules = talk.call(rules_of(None)).await.unwrap().rules;
    let layers: Vec<_> = rules.iter().map(|rule| rule.layer).collect();
    assert_eq!(layers, [PermissionLayer::Server, PermissionLayer::Project]);

    let id = made.json["data"]["rule"]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/admin/permissions/{id}");
    let changed = admin.rest("PATCH", &path, Some(json!({ "action": "ask" }))).await;
    assert_eq!(changed.json["data"]["rule"]["action"], "ask");
    // The project's own rule is more specific.
    assert_eq!(outcome(&mut talk, &writes("a.lock", "z")).await.0, ToolState::Completed);
    assert_eq!(admin.rest("DELETE", &path, None).await.status, 200);
    assert_eq!(admin.get("/v1/admin/permissions").await.json["data"], json!([]));
    assert_eq!(ann.post("/v1/admin/permissions", body).await.status, 403);
}

#[tokio::test]
async fn rules_are_listed_in_pages_the_most_general_ones_first() {
    let app = spawn_app().await;
    let (admin, ann) = (app.admin().await, app.user("ann").await);
    let talk = ann.conversation().await;
    let other = ann.session(&talk.project).await.id;
    for session in [Some(&talk.session), None, Some(&other), None] {
        talk.call(create(session, "edit", "a", Ask)).await.unwrap();
    }
    let mut of_server = Vec::new();
    for pattern in ["x", "y"] {
        let body = json!({ "permission": "edit", "pattern": pattern, "action": "deny" });
        let made = admin.post("/v1/admin/permissions", body).await;
        of_server.push(made.json["data"]["rule"].clone());
    }
    let pages = async |person: &Person, path: &str, limit: usize| {
        let (mut pages, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = person.get(&format!("{path}limit={limit}{cursor}")).await.json;
            let rules = page["data"].as_array().unwrap().clone();
            assert!(!rules.is_empty() && rules.len() <= limit, "{page}");
            pages.extend(rules);
            let next = page["meta"]["nextCursor"].as_str();
            assert_eq!(page["meta"]["hasMore"], json!(next.is_some()), "{page}");
            let Some(next) = next else { return pages };
            cursor = format!("&cursor={next}");
        }
    };
    let path = format!("/v1/projects/{}/permissions?", talk.project);
    let all = pages(&ann, &path, 200).await;
    let layers: Vec<_> = all.iter().map(|rule| rule["layer"].as_str().unwrap()).collect();
    assert_eq!(layers, ["server", "server", "project", "project", "session", "session"]);
    assert_eq!(all[..2], of_server);
    for limit in 1..=6 {
        assert_eq!(pages(&ann, &path, limit).await, all, "{limit}");
    }
    let of_session = pages(&ann, &format!("{path}sessionId={other}&"), 1).await;
    assert_eq!(of_session, [&all[..4], &all[5..]].concat());
    assert_eq!(pages(&admin, "/v1/admin/permissions?", 1).await, of_server);

    let page = talk.call(PermissionList { limit: Some(5), ..rules_of(None) }).await.unwrap();
    assert_eq!((json!(page.rules), page.has_more), (json!(all[..5]), true));
    let rest = PermissionList { cursor: page.next_cursor, ..rules_of(None) };
    let page = talk.call(rest).await.unwrap();
    assert_eq!((json!(page.rules), page.has_more), (json!(all[5..]), false));
    assert_eq!(page.next_cursor, None);
    for (person, path) in [(&ann, path.as_str()), (&admin, "/v1/admin/permissions?")] {
        for wrong in ["cursor=x", "limit=0", "limit=201"] {
            let refused = rest_refusal(&person.get(&format!("{path}{wrong}")).await);
            assert_eq!(refused.code, ErrorCode::InvalidRequest, "{path}{wrong}");
        }
    }
}

#[tokio::test]
async fn a_link_does_not_get_around_a_rule() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    ann.client.file_put(&talk.project, "prod.env", "secret").await.unwrap();
    let files = app.data_dir().join("projects").join(talk.project.as_str()).join("files");
    std::os::unix::fs::symlink("prod.env", files.join("harmless")).unwrap();
    let (state, error) = outcome(&mut talk, "call read {\"path\": \"harmless\"}").await;
    assert_eq!(state, ToolState::Error);
    assert_eq!(error, "`harmless` leads to `prod.env`: call the tool with that path");
}
