//! What is told of an operation that is on its way out, over every transport. None of this version is.

use iris_protocol::{Deprecation, Deprecations, Operation};
use iris_testkit::{AppOptions, spawn_app_with};
use serde_json::{Value, json};

const SINCE: i64 = 1_688_169_599;
const SUNSET: i64 = 1_719_791_999;
const OLD: Deprecations = Deprecations::new(&[(
    Operation::ProjectList,
    Deprecation { since: SINCE, sunset: Some(SUNSET), instead: Some(Operation::ProjectGet) },
)]);

fn warnings() -> Value {
    json!([{
        "code": "DEPRECATED",
        "message": "`project.list` is deprecated: use `project.get`",
        "since": SINCE * 1000,
        "sunset": SUNSET * 1000,
        "instead": "project.get",
    }])
}

#[tokio::test]
async fn answers_say_that_an_operation_is_deprecated_and_those_of_others_do_not() {
    let app = spawn_app_with(AppOptions { deprecations: OLD, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    for (path, status, is_old) in [
        ("/v1/projects", 200, true),
        // Whatever becomes of the request.
        ("/v1/projects?limit=0", 400, true),
        ("/v1/me", 200, false),
    ] {
        let answer = ann.get(path).await;
        assert_eq!(answer.status, status, "{answer:?}");
        let header = |name: &str| answer.headers.get(name).map(|it| it.to_str().unwrap());
        let expected = is_old.then_some(("@1688169599", "Sun, 30 Jun 2024 23:59:59 GMT"));
        assert_eq!(header("deprecation").zip(header("sunset")), expected, "{path}");
    }
    let frame = json!({ "id": "1", "type": "project.list", "payload": {} });
    assert_eq!(ann.post("/v1/commands", frame).await.json["warnings"], warnings());
    let mut socket = ann.wire().await;
    for (id, operation, expected) in
        [("1", "project.list", warnings()), ("2", "user.get", Value::Null)]
    {
        socket.ask(id, operation, None, json!({})).await;
        assert_eq!(socket.response(id).await["warnings"], expected);
    }
}
