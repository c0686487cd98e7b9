//! Tools that are changed, disabled or deleted while somebody uses them.

use iris_protocol::{ErrorCode, SessionCreate, ToolState};
use iris_testkit::{calls_of, patiently, text_of};
use serde_json::json;

use super::*;
use crate::{code_of, refusal};

#[tokio::test]
async fn a_change_counts_from_the_next_call_of_a_session_that_is_there() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    assert_eq!(outcome(&mut talk, "call weather {\"place\": \"x\"}").await.state, ToolState::Error);
    let id = define(&ann, &talk.project, weather(&site.url("/old"))).await;
    allow(&ann, &talk.project, "weather").await;
    let input = json!({ "place": "x" });
    assert_eq!(outcome(&mut talk, &calls("weather", &input)).await.state, ToolState::Completed);
    let moved = json!({ "http": { "method": "GET", "url": site.url("/new") } });
    assert!(change(&ann, &talk.project, &id, moved).await.is_success());
    assert_eq!(outcome(&mut talk, &calls("weather", &input)).await.state, ToolState::Completed);
    assert!(change(&ann, &talk.project, &id, json!({ "enabled": false })).await.is_success());
    let call = outcome(&mut talk, &calls("weather", &input)).await;
    assert_eq!(call.state, ToolState::Error);
    assert!(call.error.unwrap().starts_with("unknown tool `weather`; there are `read`"));
    let lines: Vec<_> = site.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, ["GET /old", "GET /new"]);
}

#[tokio::test]
async fn an_agent_that_names_a_tool_which_is_gone_goes_on_without_it() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let id = define(&ann, &project, weather(&site.url("/"))).await;
    let agent = json!({ "name": "scout", "tools": ["read", "weather"] });
    assert_eq!(ann.post(&format!("/v1/projects/{project}/agents"), agent).await.status, 201);
    assert!(change(&ann, &project, &id, json!({ "enabled": false })).await.is_success());
    let agent = Some("scout".to_owned());
    let create = SessionCreate { title: None, agent, model: None, mode: None };
    let session = ann.client.call(Some(&project), create).await.unwrap().session;
    let mut talk = ann.join(&project, &session.id).await;
    let answer = talk.ask("call weather {\"place\": \"x\"}\nstep\nsay {{result}}").await;
    let expected =
        "there is no tool `weather` in this project any more: it was deleted or disabled";
    assert_eq!(
        (calls_of(&answer)[0].state, text_of(&answer).as_str()),
        (ToolState::Error, expected)
    );
    assert!(change(&ann, &project, &id, json!({ "enabled": true })).await.is_success());
    allow(&ann, &project, "weather").await;
    let call = outcome(&mut talk, &calls("weather", &json!({ "place": "x" }))).await;
    assert_eq!(call.state, ToolState::Completed);
}

#[tokio::test]
async fn nobody_agrees_to_a_call_of_a_tool_that_was_changed_or_deleted_meanwhile() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let id = define(&ann, &talk.project, weather(&site.url("/get"))).await;
    let input = json!({ "place": "x" });
    let run = talk.send_message(&calls("weather", &input)).await.run_id;
    let asked = talk.approval().await;
    let deletes = json!({ "http": { "method": "DELETE", "url": site.url("/all") } });
    assert!(change(&ann, &talk.project, &id, deletes).await.is_success());
    let refused = refusal(talk.approve(&asked.tool_call_id).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "tool_changed"));
    assert!(ann.rest("DELETE", &format!("{}/{id}", path(&talk.project)), None).await.is_success());
    let refused = refusal(talk.approve(&asked.tool_call_id).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "tool_gone"));
    // Another one of the same name is not what was asked about either.
    define(&ann, &talk.project, weather(&site.url("/get"))).await;
    let refused = refusal(talk.approve(&asked.tool_call_id).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "tool_changed"));
    talk.reject(&asked.tool_call_id, "no").await.unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn a_yes_does_not_hold_for_what_a_tool_became_after_it() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let mut posts = weather("");
    posts["http"] = json!({ "method": "POST", "url": site.url("/one") });
    let id = define(&ann, &talk.project, posts).await;
    let input = json!({ "place": "x" });
    let mut gate = weather("");
    gate["name"] = json!("gate");
    gate["http"] = json!({ "method": "POST", "url": site.url("/gate") });
    define(&ann, &talk.project, gate).await;
    allow(&ann, &talk.project, "gate").await;
    // Calls that change something take turns: the second one is agreed to and waits for the first.
    let message = format!("{}\n{}", calls("gate", &input), calls("weather", &input));
    let run = talk.send_message(&message).await.run_id;
    let asked = talk.approval().await;
    assert_eq!(asked.tool_name, "weather");
    patiently("the first call", site.reached.notified()).await;
    talk.approve(&asked.tool_call_id).await.unwrap();
    let moved = json!({ "http": { "method": "POST", "url": site.url("/other") } });
    assert!(change(&ann, &talk.project, &id, moved).await.is_success());
    site.opened.notify_one();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    let part = calls_of(&answer).into_iter().find(|part| part.tool_name == "weather").unwrap();
    assert_eq!(part.state, ToolState::Error);
    assert!(part.error.as_deref().unwrap().contains("was changed since"), "{part:?}");
    let lines: Vec<_> = site.seen().into_iter().map(|seen| seen.line).collect();
    assert_eq!(lines, ["POST /gate"]);
}

#[tokio::test]
async fn a_call_that_runs_comes_to_its_end_when_its_tool_is_deleted() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let id = define(&ann, &talk.project, weather(&site.url("/gate"))).await;
    allow(&ann, &talk.project, "weather").await;
    let run = talk.send_message(&calls("weather", &json!({ "place": "x" }))).await.run_id;
    patiently("the call", site.reached.notified()).await;
    assert!(ann.rest("DELETE", &format!("{}/{id}", path(&talk.project)), None).await.is_success());
    site.opened.notify_one();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let answer = talk.answer(&run).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Completed);
}

#[tokio::test]
async fn tools_are_there_after_a_restart() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let mut body = weather(&site.url("/{{place}}"));
    body["http"]["secretHeaders"] = json!({ "x-key": "0123456789abcdef" });
    define(&ann, &talk.project, body).await;
    allow(&ann, &talk.project, "weather").await;
    let run = talk.send_message("call write {\"path\": \"a\", \"content\": \"b\"}").await.run_id;
    talk.approval().await;
    let app = app.restart().await;
    let ann = app.again(&ann);
    let mut talk = talk.resume(ann.clone()).await;
    assert!(talk.cancel().await);
    talk.run_ended(&run).await;
    let call = outcome(&mut talk, &calls("weather", &json!({ "place": "x" }))).await;
    assert_eq!(call.state, ToolState::Completed, "{call:?}");
    assert_eq!(site.seen()[0].headers["x-key"], "0123456789abcdef");
}
