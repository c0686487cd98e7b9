//! Budgets: of runs, sessions, projects and users, checked before each step, sub-agents included.

use iris_actors::BudgetSettings;
use iris_protocol::{
    AgentCreate, Budget, BudgetLimit, BudgetScope, ErrorCode, Event, FinishReason, Message,
    ProjectBudgets, ProjectUpdate, RunId, RunStatus, SessionBudgetSet, UserBudgets,
};
use iris_testkit::{AppOptions, Conversation, Person, spawn_app, spawn_app_with, text_of};
use serde_json::{Value, json};

use crate::usage::{set_price, told};
use crate::{code_of, refusal};

/// A script that would go on for long.
const STEPS: &str = "call list {\"path\": \".\"}\nstep\ncall list {\"path\": \"..\"}\nstep\ncall read \
                     {\"path\": \"x\"}\nstep\nsay done";

async fn set(talk: &Conversation, budgets: Value) {
    let settings = json!({ "budgets": budgets }).as_object().cloned();
    let request = ProjectUpdate { name: None, description: None, settings };
    talk.call(request).await.unwrap();
}

fn steps(steps: u64) -> Budget {
    Budget { steps: Some(steps), ..Budget::default() }
}

/// The answer of a run that a budget ended, and which one.
async fn ended(talk: &mut Conversation, run: &RunId) -> (Message, BudgetScope, BudgetLimit) {
    let frame = talk.wait_for("budget.exceeded").await;
    assert!(frame.meta.seq.is_some(), "it is durable");
    let Event::BudgetExceeded { run_id, budget, message, .. } = frame.event else {
        panic!("{frame:?}")
    };
    assert_eq!((&run_id, message.is_empty()), (run, false));
    assert_eq!(talk.run_ended(run).await, RunStatus::Failed);
    let answer = talk.answer(run).await;
    assert_eq!(answer.finish_reason, Some(FinishReason::Budget));
    assert_eq!(answer.error.as_ref().unwrap().code, ErrorCode::BudgetExceeded);
    assert_eq!(answer.error.as_ref().unwrap().message, message);
    (answer, budget.scope, budget.limit)
}

async fn stopped(talk: &mut Conversation, text: &str) -> (Message, BudgetScope, BudgetLimit) {
    let run = talk.send_message(text).await.run_id;
    ended(talk, &run).await
}

fn step_count(message: &Message) -> usize {
    let is_step = |part: &&iris_protocol::Part| matches!(part, iris_protocol::Part::Step { .. });
    message.parts.iter().filter(is_step).count()
}

#[tokio::test]
async fn a_run_ends_before_the_step_that_its_budget_does_not_allow() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    set(&ann, json!({ "run": { "steps": 2 } })).await;
    let (answer, scope, limit) = stopped(&mut ann, STEPS).await;
    assert_eq!((scope, limit, step_count(&answer)), (BudgetScope::Run, BudgetLimit::Steps, 2));
    // Each run has its own.
    let short = ann.ask("say ok").await;
    assert_eq!(text_of(&short), "ok");
}

#[tokio::test]
async fn the_budget_of_a_session_counts_its_sub_agents_and_is_set_by_its_people() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let set = |steps| SessionBudgetSet {
        session_id: ann.session.clone(),
        budget: Budget { steps, ..Budget::default() },
    };
    let changed = ann.call(set(Some(3))).await.unwrap().session;
    assert_eq!(changed.budget, Some(steps(3)));
    let again = set(None);
    let input = json!({ "description": "d", "prompt": STEPS, "agent": "general" });
    let (answer, scope, limit) =
        stopped(&mut ann, &format!("call task {input}\nstep\nsay done")).await;
    assert_eq!((scope, limit), (BudgetScope::Session, BudgetLimit::Steps));
    // One step of its own and two of the sub-agent, which was stopped by the same budget.
    assert_eq!(step_count(&answer), 1);
    let (_, scope, _) = stopped(&mut ann, "say ok").await;
    assert_eq!(scope, BudgetScope::Session);
    assert_eq!(ann.call(again).await.unwrap().session.budget, None);
    assert_eq!(text_of(&ann.ask("say ok").await), "ok");
}

#[tokio::test]
async fn the_budget_of_an_agent_limits_the_runs_that_it_answers() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let agent = AgentCreate {
        name: "thrifty".into(),
        description: None,
        mode: None,
        prompt: None,
        model: None,
        tools: None,
        tuning: iris_protocol::AgentTuning::default(),
        permissions: None,
        budget: Some(steps(1)),
    };
    let made = ann.client.call(Some(&project), agent).await.unwrap().agent;
    assert_eq!(made.budget, Some(steps(1)));
    let mut talk = ann.conversation_in(&project).await;
    let input = json!({ "description": "d", "prompt": STEPS, "agent": "thrifty" });
    let answer = talk.ask(&format!("call task {input}\nstep\nsay heard {{{{result}}}}")).await;
    assert!(text_of(&answer).contains("budget of this run is used up"), "{}", text_of(&answer));
    assert_eq!(answer.finish_reason, Some(FinishReason::Stop), "who asked goes on");
}

#[tokio::test]
async fn a_budget_of_money_counts_what_steps_cost_and_refuses_unknown_prices() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    set(&ann, json!({ "project": { "costNanoUsd": 1 } })).await;
    let run = ann.send_message("say ok").await.run_id;
    let (answer, scope, limit) = ended(&mut ann, &run).await;
    assert_eq!((scope, limit), (BudgetScope::Project, BudgetLimit::CostNanoUsd));
    let error = answer.error.unwrap();
    assert_eq!(error.details["reason"], "price_unknown");
    assert_eq!(
        (step_count(&answer_of(&ann, &run).await), &error.details["used"]),
        (0, &Value::Null)
    );

    set_price(&root, ("demo", "script"), 1_000_000, 1_000_000).await;
    assert_eq!(text_of(&ann.ask("say ok").await), "ok");
    let (answer, ..) = stopped(&mut ann, "say ok").await;
    assert_eq!(answer.error.unwrap().details["reason"], "budget_used_up");
}

async fn answer_of(talk: &Conversation, run: &RunId) -> Message {
    talk.answer(run).await
}

#[tokio::test]
async fn a_budget_of_tokens_of_a_user_is_theirs_alone_and_lasts_through_a_restart() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let bob = app.user("bob").await;
    ann.person.add_member(&ann.project, &bob, iris_protocol::Role::Member).await;
    set(&ann, json!({ "userMonth": { "tokens": 1 }, "user": { "tokens": 1_000_000 } })).await;
    ann.ask("say ok").await;
    let (_, scope, limit) = stopped(&mut ann, "say ok").await;
    assert_eq!((scope, limit), (BudgetScope::UserMonth, BudgetLimit::Tokens));
    let mut his = bob.conversation_in(&ann.project).await;
    assert_eq!(text_of(&his.ask("say ok").await), "ok");
    let app = app.restart().await;
    let mut ann = ann.resume(app.again(&ann.person)).await;
    let (_, scope, _) = stopped(&mut ann, "say ok").await;
    assert_eq!(scope, BudgetScope::UserMonth);
}

#[tokio::test]
async fn the_server_limits_a_user_over_all_projects() {
    let month = steps(2);
    let user = UserBudgets { month, ..UserBudgets::default() };
    let project = ProjectBudgets { run: steps(50), ..ProjectBudgets::default() };
    let budgets = BudgetSettings { project, user };
    let app =
        spawn_app_with(AppOptions { budgets: Box::new(budgets), ..AppOptions::default() }).await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut other = ann.person.conversation().await;
    ann.ask("say one").await;
    other.ask("say two").await;
    // Other projects tell what was used in them a moment later.
    told(&root, &ann.person, |data| data["total"]["steps"] == 2).await;
    let (_, scope, limit) = stopped(&mut ann, "say three").await;
    assert_eq!((scope, limit), (BudgetScope::ServerUserMonth, BudgetLimit::Steps));

    let raise = |person: &Person, budgets: Value| {
        let path = format!("/v1/admin/users/{}/budget", person.id());
        (path, json!({ "budgets": budgets }))
    };
    let (path, body) = raise(&ann.person, json!({ "month": { "steps": 3 } }));
    let refused = ann.person.rest("PUT", &path, Some(body.clone())).await;
    assert_eq!(refused.json["error"]["code"], "FORBIDDEN");
    let raised = root.rest("PUT", &path, Some(body)).await;
    assert_eq!(raised.json["data"]["effective"]["month"]["steps"], 3, "{}", raised.json);
    assert_eq!(text_of(&ann.ask("say three").await), "three");
    told(&root, &ann.person, |data| data["total"]["steps"] == 3).await;
    let (_, scope, _) = stopped(&mut other, "say four").await;
    assert_eq!(scope, BudgetScope::ServerUserMonth);
    // Other users have their own.
    let mut bob = app.user("bob").await.conversation().await;
    assert_eq!(text_of(&bob.ask("say ok").await), "ok");

    let (path, body) = raise(&ann.person, json!({ "day": { "steps": 3 } }));
    assert_eq!(root.rest("PUT", &path, Some(body)).await.status, 400);
    let nobody = format!("/v1/admin/users/{}/budget", iris_protocol::UserId::from_bits(7));
    assert_eq!(root.get(&nobody).await.status, 404);
}

#[tokio::test]
async fn a_project_may_set_its_own_in_place_of_the_operators() {
    let project = ProjectBudgets { run: steps(1), ..ProjectBudgets::default() };
    let budgets = BudgetSettings { project, ..BudgetSettings::default() };
    let app =
        spawn_app_with(AppOptions { budgets: Box::new(budgets), ..AppOptions::default() }).await;
    let mut ann = app.user("ann").await.conversation().await;
    let (answer, ..) = stopped(&mut ann, STEPS).await;
    assert_eq!(step_count(&answer), 1);
    set(&ann, json!({ "run": { "steps": 9 } })).await;
    assert_eq!(text_of(&ann.ask(STEPS).await), "done");
    let bad = json!({ "budgets": { "run": { "step": 9 } } }).as_object().cloned();
    let request = ProjectUpdate { name: None, description: None, settings: bad };
    let refused = refusal(ann.call(request).await);
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "invalid_settings"));
}

#[tokio::test]
async fn time_in_which_people_are_waited_for_is_nobodys() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let run = ann.send_message("delay 30\nchunks 4 tick\ncall write {\"path\": \"a\", \"content\": \"\"}\nstep\nsay ok").await.run_id;
    let approval = ann.approval().await;
    ann.approve(&approval.tool_call_id).await.unwrap();
    ann.run_ended(&run).await;
    let report = ann.call(iris_protocol::UsageGet::default()).await.unwrap();
    assert!(report.total.wall_time_ms >= 100, "{report:?}");
    set(&ann, json!({ "session": { "wallTimeMs": 100 } })).await;
    let (_, scope, limit) = stopped(&mut ann, "say ok").await;
    assert_eq!((scope, limit), (BudgetScope::Session, BudgetLimit::WallTimeMs));
}
