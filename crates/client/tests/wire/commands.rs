//! REST and commands.

use iris_client::{Client, ClientError};
use iris_protocol::{ApiError, ErrorCode, Json, Ping, ResponseFrame, UserGet};
use serde_json::json;

use crate::fake::{Fake, grant, project, soon, user};

#[tokio::test]
async fn login_gives_a_grant_that_authenticates_commands() {
    let fake = Fake::start().await;
    let client = fake.client();
    let data = json!({ "data": grant("fresh") });
    let (granted, request) = tokio::join!(client.login("a@b.c", "pw"), fake.answer(200, data));
    assert!(request.head.starts_with("post /v1/auth/login "));
    assert_eq!(request.json(), json!({ "email": "a@b.c", "password": "pw" }));
    let client = client.with_grant(&granted.unwrap());

    let project = project();
    let response =
        ResponseFrame::success("1".to_owned(), Json::from(&json!({ "user": user() })), None);
    let answer = serde_json::to_value(response).unwrap();
    let (payload, request) =
        tokio::join!(client.call(Some(&project), UserGet {}), fake.answer(200, answer));
    assert!(request.head.starts_with("post /v1/commands "));
    assert!(request.head.contains("authorization: bearer fresh\r\n"));
    let frame = json!({ "id": "1", "type": "user.get", "projectId": project, "payload": {} });
    assert_eq!(request.json(), frame);
    assert_eq!(payload.unwrap().user, user());
}

#[tokio::test]
async fn an_expired_token_is_refreshed_once_and_the_command_sent_again() {
    let fake = Fake::start().await;
    let client = fake.logged_in();
    let other = client.clone();
    let expired = ResponseFrame::failure(Some("1".to_owned()), ErrorCode::TokenExpired.into());
    let pong = ResponseFrame::success("1".to_owned(), Json::from(&json!({ "pong": 1 })), None);
    let serve = async {
        let first = fake.answer(401, serde_json::to_value(&expired).unwrap()).await;
        assert!(first.head.contains("bearer access\r\n"));
        let refresh = fake.answer(200, json!({ "data": grant("second") })).await;
        assert!(refresh.head.starts_with("post /v1/auth/refresh "));
        assert_eq!(refresh.json(), json!({ "refreshToken": "refresh" }));
        let again = fake.answer(200, serde_json::to_value(&pong).unwrap()).await;
        assert!(again.head.contains("bearer second\r\n"));
    };
    let (pong, ()) = tokio::join!(client.call(None, Ping {}), serve);
    assert_eq!(pong.unwrap().pong, 1);
    assert_eq!(other.token().as_deref(), Some("second"), "clones share the tokens");
}

#[tokio::test]
async fn errors_of_commands_and_of_routes_are_api_errors() {
    let fake = Fake::start().await;
    let client = fake.client().with_token("t");
    let error = ApiError::not_found("session").detail("id", "x");
    let frame = ResponseFrame::failure(Some("1".to_owned()), error.clone());
    for body in [serde_json::to_value(frame).unwrap(), json!({ "error": error })] {
        let (outcome, _) = tokio::join!(client.call(None, Ping {}), fake.answer(404, body));
        assert!(matches!(outcome, Err(ClientError::Api(got)) if got == error));
    }
    let body = json!({ "error": error });
    let (outcome, _) = tokio::join!(client.login("a", "b"), fake.answer(404, body));
    assert!(matches!(outcome, Err(ClientError::Api(got)) if got == error));
}

#[tokio::test]
async fn a_raw_answer_has_status_headers_and_json() {
    let fake = Fake::start().await;
    let client = fake.client();
    let body = json!({ "name": "x" });
    let (answer, request) = tokio::join!(
        client.rest("PATCH", "/v1/projects/p?x=1", Some("t"), Some(&body)),
        fake.answer(409, json!({ "error": ApiError::from(ErrorCode::Conflict) })),
    );
    assert!(request.head.starts_with("patch /v1/projects/p?x=1 "));
    assert!(request.head.contains("content-type: application/json\r\n"));
    assert_eq!(request.json(), body);
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (409, &"application/json".parse().unwrap())
    );
    assert_eq!(answer.error().unwrap().code, ErrorCode::Conflict);
}

#[tokio::test]
async fn files_travel_as_bytes_under_an_encoded_path() {
    let fake = Fake::start().await;
    let client = fake.client().with_token("t");
    let project = project();
    let file = json!({ "path": "a b&c", "type": "file", "size": 2, "version": 1, "hash": "00" });
    let (put, request) = tokio::join!(
        client.file_put(&project, "a b&c", vec![0xff, 0x00]),
        fake.answer(200, json!({ "data": file })),
    );
    assert_eq!(put.unwrap().version, 1);
    let route = format!("put /v1/projects/{project}/files/content?path=a+b%26c ");
    assert!(request.head.starts_with(&route), "{}", request.head);
    assert_eq!(request.body, [0xff, 0x00]);

    let (got, _) = tokio::join!(client.file_get(&project, "a"), fake.answer(200, json!("content")));
    assert_eq!(got.unwrap(), r#""content""#);
    let error = json!({ "error": ApiError::not_found("file") });
    let (got, _) = tokio::join!(client.file_get(&project, "a"), fake.answer(404, error));
    assert_eq!(got.unwrap_err().code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn a_server_that_is_not_there_and_a_url_that_is_none_are_told_apart() {
    let fake = Fake::start().await;
    let client = fake.client();
    drop(fake);
    assert!(matches!(soon(client.health_ready()).await, Err(ClientError::Transport(_))));
    for url in ["", "127.0.0.1:4747", "ftp://127.0.0.1"] {
        assert!(matches!(Client::new(url), Err(ClientError::Protocol(_))), "{url}");
    }
}
