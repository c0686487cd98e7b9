//! Tests of tools by their administrators, outside of sessions.

use iris_protocol::ErrorCode;
use serde_json::json;

use super::*;
use crate::bash::{app, sandbox};
use crate::{code_of, rest_refusal};

#[tokio::test]
async fn a_test_answers_what_a_model_would_read() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let mut body = weather(&site.url("/{{place}}"));
    body["enabled"] = json!(false);
    let id = define(&ann, &project, body).await;
    let tested = test(&ann, &project, &id, json!({ "place": "teapot" })).await;
    assert_eq!(tested.status, 200, "{tested:?}");
    let data = &tested.json["data"];
    assert!(data["output"].as_str().unwrap().contains("short and stout"), "{data}");
    assert_eq!(data["metadata"]["status"], 418);
    assert!(data["durationMs"].is_u64() && data["error"].is_null());
    let failed = test(&ann, &project, &id, json!({ "place": "image" })).await;
    assert!(failed.json["data"]["error"].as_str().unwrap().contains("an image"), "{failed:?}");
    for input in [json!({}), json!({ "place": 7 }), json!({ "place": ".." })] {
        let refused = rest_refusal(&test(&ann, &project, &id, input).await);
        assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "invalid_input"));
    }
    let nobody = rest_refusal(&test(&ann, &project, &ToolId::from_bits(9), json!({})).await);
    assert_eq!(nobody.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_rule_of_the_server_that_denies_counts_for_tests_too() {
    let (app, site) = app_and_site().await;
    let (admin, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("p").await.id;
    let id = define(&ann, &project, weather(&site.url("/"))).await;
    let rule = json!({ "permission": "weather", "pattern": "127.0.0.1", "action": "deny" });
    assert_eq!(admin.post("/v1/admin/permissions", rule).await.status, 201);
    let refused = rest_refusal(&test(&ann, &project, &id, json!({ "place": "x" })).await);
    assert_eq!(code_of(&refused), (ErrorCode::Forbidden, "denied_by_rule"));
    assert!(site.seen().is_empty());
}

#[tokio::test]
async fn a_test_is_made_once_for_one_key() {
    let (app, site) = app_and_site().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let id = define(&ann, &project, weather(&site.url("/"))).await;
    let once = async || {
        let path = format!("{}/{id}/test", path(&project));
        let body = json!({ "input": { "place": "x" } }).to_string().into_bytes().into();
        let headers = [("content-type", "application/json"), ("idempotency-key", "one")];
        ann.client.raw("POST", &path, Some(ann.token()), &headers, body).await.unwrap()
    };
    let both = tokio::join!(once(), once());
    let mut statuses = [both.0.status, both.1.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    let again = rest_refusal(&once().await);
    assert_eq!(code_of(&again), (ErrorCode::Conflict, "already_tested"));
    assert_eq!(site.seen().len(), 1);
}

#[tokio::test]
async fn a_command_is_tested_in_the_sandbox() {
    let Some((_app, admin)) = app(sandbox()).await else { return };
    let project = admin.project("p").await.id;
    let body = json!({
        "name": "count", "description": "Counts.", "parameters": { "type": "object" },
        "command": { "argv": ["wc", "-c"] },
    });
    let id = define(&admin, &project, body).await;
    let tested = test(&admin, &project, &id, json!({ "a": 1 })).await;
    assert_eq!(tested.json["data"]["output"], "7\n(exit code 0)", "{tested:?}");
}
