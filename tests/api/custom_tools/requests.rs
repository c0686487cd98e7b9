//! Tools that make a request: what is asked, what is sent, and where they may not go.

use iris_protocol::{PermissionAction, PermissionExplain, ToolState};
use iris_testkit::{FakeProvider, chat, spawn_app, spawn_app_with};
use serde_json::{Value, json};

use super::*;

#[tokio::test]
async fn a_call_is_asked_about_by_its_host_and_makes_the_request_that_was_defined() {
    let (app, site) = app_and_site().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut body = weather(&site.url("/v1/{{place}}/now?units=c"));
    body["http"] = json!({
        "method": "POST",
        "url": site.url("/v1/{{place}}/now?units=c"),
        "query": { "days": "{{days}}", "fixed": "a b" },
        "headers": { "x-place": "at {{place}}" },
        "body": { "where": "{{place}}", "days": "{{days}}", "text": "in {{place}}\"", "on": true },
        "secretHeaders": { "Authorization": "Bearer 0123456789abcdef" },
    });
    let id = define(&ann.person, &ann.project, body).await;
    let input = json!({ "place": "Zürich/\"x\"", "days": 3 });
    let run = ann.send_message(&calls("weather", &input)).await.run_id;
    let asked = ann.approval().await;
    let touched: Vec<_> =
        asked.accesses.iter().map(|it| (it.permission.as_str(), it.target.as_str())).collect();
    assert_eq!(touched, [("weather", "127.0.0.1")]);
    let expected = format!(
        "call the tool `weather` (revision 1 of {id}): POST `{}`",
        site.url("/v1/Z%C3%BCrich%2F%22x%22/now?units=c&days=3&fixed=a%20b")
    );
    assert_eq!(asked.message, expected);
    assert!(site.seen().is_empty(), "nothing is sent before somebody agrees");

    ann.approve(&asked.tool_call_id).await.unwrap();
    assert_eq!(ann.run_ended(&run).await, RunStatus::Completed);
    let answer = ann.answer(&run).await;
    let call = calls_of(&answer)[0];
    assert_eq!(call.state, ToolState::Completed, "{call:?}");
    assert!(call.output.as_deref().unwrap().contains(" -----\nsunny\n----- end "), "{call:?}");
    assert_eq!(call.metadata.as_ref().unwrap()["status"], 200);
    let [seen] = site.seen().try_into().unwrap();
    assert_eq!(seen.line, "POST /v1/Z%C3%BCrich%2F%22x%22/now?units=c&days=3&fixed=a%20b");
    assert_eq!(seen.headers["authorization"], "Bearer 0123456789abcdef");
    assert_eq!(seen.headers["content-type"], "application/json");
    let sent: Value = serde_json::from_str(&seen.body).unwrap();
    let place = "Zürich/\"x\"";
    assert_eq!(sent["text"], format!("in {place}\""));
    assert_eq!(
        (&sent["where"], &sent["days"], &sent["on"]),
        (&json!(place), &json!(3), &json!(true))
    );
}

#[tokio::test]
async fn arguments_that_a_call_leaves_out_are_left_out_of_the_request() {
    let (app, site) = app_and_site().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut body = weather("");
    body["http"] = json!({
        "method": "PUT", "url": site.url("/{{place}}"), "query": { "days": "{{days}}" },
        "headers": { "x-days": "{{days}}" }, "body": { "days": "{{days}}", "list": ["{{days}}", 1] },
    });
    define(&ann.person, &ann.project, body).await;
    allow(&ann.person, &ann.project, "weather").await;
    let call = outcome(&mut ann, &calls("weather", &json!({ "place": "x" }))).await;
    assert_eq!(call.state, ToolState::Completed, "{call:?}");
    let [seen] = site.seen().try_into().unwrap();
    assert_eq!((seen.line.as_str(), seen.body.as_str()), ("PUT /x", "{\"list\":[1]}"));
    assert!(!seen.headers.contains_key("x-days"));
}

#[tokio::test]
async fn what_goes_wrong_is_told_to_the_model() {
    let (app, site) = app_and_site().await;
    let mut ann = app.user("ann").await.conversation().await;
    let mut body = weather(&site.url("/{{place}}"));
    body["http"]["timeoutMs"] = json!(300);
    define(&ann.person, &ann.project, body).await;
    allow(&ann.person, &ann.project, "weather").await;
    for (input, state, text) in [
        (json!({ "place": "teapot" }), ToolState::Completed, "short and stout"),
        (json!({ "place": "image" }), ToolState::Error, "it is an image"),
        (json!({ "place": "silent" }), ToolState::Error, "not answered within"),
        (json!({ "place": ".." }), ToolState::Error, "`/place` must not leave"),
        (json!({ "place": 1 }), ToolState::Error, "`/place` is wrong"),
        (json!({}), ToolState::Error, "`/place` is required"),
        (json!({ "place": "long" }), ToolState::Completed, "the rest was cut"),
    ] {
        let call = outcome(&mut ann, &calls("weather", &input)).await;
        let told = call.output.clone().or(call.error.clone()).unwrap();
        assert_eq!(call.state, state, "{input}: {told}");
        assert!(told.contains(text), "{input}: {told}");
        assert!(told.len() <= 64 * 1024);
    }
    let status = |call: ToolPart| call.metadata.unwrap()["status"].clone();
    assert_eq!(
        status(outcome(&mut ann, &calls("weather", &json!({ "place": "teapot" }))).await),
        418
    );
}

#[tokio::test]
async fn private_addresses_are_refused_although_somebody_agreed() {
    let site = Site::start().await;
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    for (n, url) in [site.url("/"), "http://169.254.169.254/latest/".to_owned()].iter().enumerate()
    {
        let mut body = weather(url);
        body["name"] = json!(format!("inside{n}"));
        define(&ann.person, &ann.project, body).await;
        allow(&ann.person, &ann.project, &format!("inside{n}")).await;
        let call = outcome(&mut ann, &calls(&format!("inside{n}"), &json!({ "place": "x" }))).await;
        assert_eq!(call.state, ToolState::Error);
        assert!(call.error.unwrap().contains("an address that is not public"));
    }
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn rules_name_the_tool_and_its_host_and_are_explained() {
    let (app, site) = app_and_site().await;
    let mut ann = app.user("ann").await.conversation().await;
    define(&ann.person, &ann.project, weather(&site.url("/"))).await;
    let input = json!({ "place": "x" });
    let explain = |input: &Value| PermissionExplain {
        session_id: None,
        agent: None,
        tool_name: "weather".to_owned(),
        input: input.clone(),
    };
    let verdict = ann.call(explain(&input)).await.unwrap();
    assert_eq!((verdict.action, verdict.accesses.len()), (PermissionAction::Ask, 1));
    let rules = format!("/v1/projects/{}/permissions", ann.project);
    let rule = json!({ "permission": "weather", "pattern": "127.0.0.*", "action": "deny" });
    let made = ann.person.post(&rules, rule).await;
    assert!(made.json["data"]["warnings"].is_null(), "the tool is known: {made:?}");
    assert_eq!(ann.call(explain(&input)).await.unwrap().action, PermissionAction::Deny);
    let call = outcome(&mut ann, &calls("weather", &input)).await;
    assert_eq!(call.state, ToolState::Denied);
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn the_model_is_told_of_the_tools_that_are_enabled() {
    let replies = (0..2).map(|_| chat::says("hi"));
    let provider = FakeProvider::start(replies).await;
    let app = spawn_app_with(AppOptions::with_provider(provider.base_url())).await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    let id = define(&ann, &talk.project, weather("https://weather.example/")).await;
    talk.ask("hi").await;
    let change = change(&ann, &talk.project, &id, json!({ "enabled": false })).await;
    assert_eq!(change.json["data"]["enabled"], false, "{change:?}");
    talk.ask("hi").await;
    let told = |asked: usize| -> Vec<Value> {
        let tools = provider.asked()[asked].body["tools"].as_array().unwrap().clone();
        tools.into_iter().filter(|tool| tool["function"]["name"] == "weather").collect()
    };
    let [tool] = told(0).try_into().unwrap();
    assert_eq!(tool["function"]["description"], "Tells the weather of a place.");
    assert_eq!(tool["function"]["parameters"]["required"], json!(["place"]));
    assert_eq!(told(1), Vec::<Value>::new());
}
