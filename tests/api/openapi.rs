//! The documents about the interface, and that the server keeps to them.

use std::process::Command;

use iris_protocol::{ErrorCode, Operation};
use iris_testkit::spawn_app;
use serde_json::{Value, json};

#[tokio::test]
async fn the_server_answers_every_route_of_the_table() {
    let app = spawn_app().await;
    let client = app.client();
    for operation in Operation::ALL {
        let Some(route) = operation.spec().rest else { continue };
        let path = route.path.replace(['{', '}'], "");
        let answer = client.rest(route.method.as_str(), &path, None, None).await.unwrap();
        assert!(answer.status < 500, "{answer:?}");
        // Some tell anybody.
        let Some(error) = answer.error() else { continue };
        assert_ne!(error.message, "route not found", "{} {}", route.method.as_str(), route.path);
        assert_ne!(error.code, ErrorCode::MethodNotAllowed, "{}", operation.name());
    }
}

#[tokio::test]
async fn the_documents_are_served_and_printed_alike() {
    let app = spawn_app().await;
    for verb in ["openapi", "asyncapi", "schema"] {
        let path = &format!("/v1/{verb}.json");
        let served = app.client().rest("GET", path, None, None).await.unwrap().json;
        let printed =
            Command::new(env!("CARGO_BIN_EXE_iris")).arg(verb).env_clear().output().unwrap();
        assert!(printed.status.success());
        let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
        assert_eq!(served, printed, "{verb}");
    }
}

#[tokio::test]
async fn the_openapi_document_has_every_route() {
    let app = spawn_app().await;
    let answer = app.client().rest("GET", "/v1/openapi.json", None, None).await.unwrap();
    for operation in Operation::ALL {
        let Some(route) = operation.spec().rest else { continue };
        let method = route.method.as_str().to_lowercase();
        assert!(answer.json["paths"][route.path][&method].is_object(), "{}", operation.name());
    }
}

#[tokio::test]
async fn health_is_told_to_anybody() {
    let app = spawn_app().await;
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(app.client().rest("GET", path, None, None).await.unwrap().status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_list_that_has_no_pages_is_its_only_page() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    for list in ["members", "agents", "tools"] {
        let answer = ann.get(&format!("/v1/projects/{project}/{list}")).await.json;
        assert!(!answer["data"].as_array().unwrap().is_empty(), "{list}");
        let page = (&answer["meta"]["nextCursor"], &answer["meta"]["hasMore"]);
        assert_eq!(page, (&Value::Null, &json!(false)), "{list}");
    }
}
