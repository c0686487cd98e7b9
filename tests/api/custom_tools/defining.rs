//! Who defines tools, which definitions are taken, and what others hear of them.

use iris_protocol::{ErrorCode, Event, Role, limits::CUSTOM_TOOLS_MAX};
use iris_testkit::{patiently, spawn_app};
use serde_json::json;

use super::*;
use crate::{code_of, rest_refusal};

const URL: &str = "https://weather.example/{{place}}";

#[tokio::test]
async fn a_tool_is_defined_changed_and_deleted_and_the_project_hears_of_it() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let talk = ann.conversation().await;
    ann.add_member(&talk.project, &bob, Role::Viewer).await;
    let his = bob.join(&talk.project, &talk.session).await;
    let notices = his.connect_to_project().await;
    let id = define(&ann, &talk.project, weather(URL)).await;
    let tool = listed(&bob, &talk.project, "weather").await.unwrap();
    assert_eq!(tool["id"], json!(id));
    assert_eq!((&tool["kind"], &tool["enabled"]), (&json!("http"), &json!(true)));
    assert_eq!((&tool["revision"], &tool["createdBy"]), (&json!(1), &json!(ann.id())));
    assert_eq!(tool["http"], json!({ "method": "GET", "url": URL, "timeoutMs": 30_000 }));
    assert!(tool["problem"].is_null(), "{tool}");

    let changed = change(&ann, &talk.project, &id, json!({ "description": "New." })).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.json["data"]["revision"], 2);
    assert_eq!(changed.json["data"]["http"], tool["http"]);
    let one = format!("{}/{id}", path(&talk.project));
    assert!(ann.rest("DELETE", &one, None).await.is_success());
    assert_eq!(listed(&ann, &talk.project, "weather").await, None);
    assert_eq!(rest_refusal(&ann.rest("DELETE", &one, None).await).code, ErrorCode::NotFound);
    let gone = change(&ann, &talk.project, &id, json!({ "enabled": true })).await;
    assert_eq!(rest_refusal(&gone).code, ErrorCode::NotFound);

    let mut heard = Vec::new();
    while heard.len() < 3 {
        let event = patiently("tool.updated", notices.next_event()).await.unwrap();
        if let Event::ToolUpdated { tool_id, name, tool } = event.event {
            assert_eq!((&tool_id, name.as_str()), (&id, "weather"));
            heard.push(tool.map(|tool| tool.description));
        }
    }
    let texts = ["Tells the weather of a place.", "New."].map(|text| Some(text.to_owned()));
    assert_eq!(heard, [texts[0].clone(), texts[1].clone(), None]);
}

#[tokio::test]
async fn only_administrators_define_tools() {
    let app = spawn_app().await;
    let (ann, bob, eve) = (app.user("ann").await, app.user("bob").await, app.user("eve").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let id = define(&ann, &project, weather(URL)).await;
    assert!(listed(&bob, &project, "weather").await.is_some());
    let input = json!({ "place": "x" });
    for (person, code) in [(&bob, ErrorCode::Forbidden), (&eve, ErrorCode::NotFound)] {
        let one = format!("{}/{id}", path(&project));
        for answer in [
            person.post(&path(&project), weather(URL)).await,
            change(person, &project, &id, json!({ "enabled": false })).await,
            person.rest("DELETE", &one, None).await,
            test(person, &project, &id, input.clone()).await,
        ] {
            assert_eq!(rest_refusal(&answer).code, code, "{answer:?}");
        }
    }
    assert_eq!(eve.get(&path(&project)).await.status, 404);
}

#[tokio::test]
async fn names_are_words_of_their_own() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    define(&ann, &project, weather(URL)).await;
    let named = |name: &str| {
        let mut body = weather(URL);
        body["name"] = json!(name);
        body
    };
    for name in ["", "1a", "a-b", "a__b", "é", "a b", &"x".repeat(65)] {
        let error = rest_refusal(&ann.post(&path(&project), named(name)).await);
        assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "invalid_tool"), "{name}");
    }
    // Tools of the server, those that it may have, and the groups that rules name.
    for name in
        ["read", "Read", "multiEdit", "bash", "webfetch", "WEBFETCH", "edit", "network", "mcp"]
    {
        let error = rest_refusal(&ann.post(&path(&project), named(name)).await);
        assert_eq!(code_of(&error), (ErrorCode::Conflict, "builtin_tool"), "{name}");
    }
    for name in ["weather", "WEATHER"] {
        let error = rest_refusal(&ann.post(&path(&project), named(name)).await);
        assert_eq!(code_of(&error), (ErrorCode::Conflict, "name_taken"), "{name}");
    }
    // Another project has its own.
    let other = ann.project("q").await.id;
    define(&ann, &other, weather(URL)).await;
}

#[tokio::test]
async fn what_could_not_run_is_not_taken() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let with = |pointer: &str, value: Value| {
        let mut body = weather(URL);
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let http = |value: Value| with("/http", value);
    for (body, part) in [
        (with("/description", json!(" ")), "`description`"),
        (with("/parameters", json!({})), "\"type\": \"object\""),
        (
            with(
                "/parameters",
                json!({ "type": "object", "properties": { "a": { "type": "x" } } }),
            ),
            "no JSON Schema",
        ),
        (
            with("/parameters/properties/place", json!({ "$ref": "http://127.0.0.1:1/s" })),
            "nothing is fetched",
        ),
        (with("/http/url", json!("https://{{place}}/")), "literally"),
        (with("/http/url", json!("file:///etc/passwd")), "`http.url`"),
        (with("/http/url", json!("https://weather.example/{{who}}")), "argument `who`"),
        (http(json!({ "method": "GET", "url": URL, "timeoutMs": 0 })), "timeoutMs"),
        (http(json!({ "method": "GET", "url": URL, "body": {} })), "`GET`"),
        (http(json!({ "method": "GET", "url": URL, "headers": { "host": "x" } })), "`host`"),
        (
            http(json!({ "method": "GET", "url": URL, "secretHeaders": { "x": "short" } })),
            "8 to 4096",
        ),
        (
            http(
                json!({ "method": "GET", "url": URL, "secretHeaders": { "x": "a\r\nb: 12345678" } }),
            ),
            "characters",
        ),
        (
            http(json!({ "method": "GET", "url": URL, "headers": { "X": "y" },
                      "secretHeaders": { "x": "12345678" } })),
            "twice",
        ),
        (http(json!(null)), "either `http` or `command`"),
    ] {
        let error = rest_refusal(&ann.post(&path(&project), body.clone()).await);
        assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "invalid_tool"), "{body}");
        assert!(error.message.contains(part), "{body}: {error}");
        assert!(!error.message.contains("12345678"), "{error}");
    }
    for body in [
        http(json!({ "method": "HEAD", "url": URL })),
        json!({ "name": "x" }),
        with("/http/url", json!(7)),
    ] {
        let error = rest_refusal(&ann.post(&path(&project), body.clone()).await);
        assert_eq!(code_of(&error), (ErrorCode::InvalidRequest, "invalid_payload"), "{body}");
    }
    let large = with("/description", json!("x".repeat(4097)));
    let error = rest_refusal(&ann.post(&path(&project), large).await);
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    let large = http(json!({ "method": "POST", "url": URL, "body": "x".repeat(33_000) }));
    let error = rest_refusal(&ann.post(&path(&project), large).await);
    assert_eq!(error.code, ErrorCode::PayloadTooLarge);
    assert_eq!(listed(&ann, &project, "weather").await, None);

    let id = define(&ann, &project, weather(URL)).await;
    let kind = change(&ann, &project, &id, json!({ "command": { "argv": ["ls"] } })).await;
    assert_eq!(code_of(&rest_refusal(&kind)), (ErrorCode::InvalidRequest, "invalid_tool"));
    let bad = change(&ann, &project, &id, json!({ "parameters": { "type": "object" } })).await;
    assert!(rest_refusal(&bad).message.contains("argument `place`"), "{bad:?}");
}

#[tokio::test]
async fn a_project_has_a_bounded_number_of_tools() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let numbered = |n: u64| {
        let mut body = weather(URL);
        body["name"] = json!(format!("tool{n}"));
        body
    };
    for n in 0..CUSTOM_TOOLS_MAX {
        define(&ann, &project, numbered(n)).await;
    }
    let refused = ann.post(&path(&project), numbered(CUSTOM_TOOLS_MAX)).await;
    assert_eq!(code_of(&rest_refusal(&refused)), (ErrorCode::Conflict, "too_many_tools"));
    let agents = ann.get(&format!("/v1/projects/{project}/agents")).await.json;
    let tools = agents["data"][0]["tools"].as_array().unwrap();
    assert!(tools.len() > usize::try_from(CUSTOM_TOOLS_MAX).unwrap());
}
