//! Addresses that nobody may clone from, and servers that do not do what they should.

use std::time::Duration;

use iris_protocol::{
    ApiError, CloneState, ErrorCode, FileWrite, GitCancel, GitClone, GitFetch, GitPush, GitSource,
    ProjectDelete, ProjectId, ProjectTransfer, Request, Role,
};
use iris_testkit::{AppOptions, Person, TestApp, moment, patiently};
use serde_json::json;
use tokio::task::JoinHandle;

use super::serving::{Manner, Server};
use super::{
    Origin, clone, ended, failure, files_of, from, options, ready, refused, scene, state,
    with_token,
};
use crate::{code_of, refusal};

const TOKEN: &str = "correct-horse-battery-staple";

/// A server that lets git reach this machine.
fn open_options(origin: &Origin) -> AppOptions {
    let egress_allow = vec!["127.0.0.1/32".parse().unwrap()];
    AppOptions { egress_allow, ..options(&[origin.top()]) }
}

/// One that waits for a server of repositories as long as it takes, with its administrator.
async fn patient_scene(origin: &Origin, manner: Manner) -> Option<(Server, TestApp, Person)> {
    let server = Server::start(origin.top(), manner).await;
    let mut options = open_options(origin);
    options.git.stall = Duration::from_mins(10);
    let (app, ann) = scene(options).await?;
    Some((server, app, ann))
}

/// Asks for something that needs the other side, which was asked then and says nothing.
async fn hanging<R: Request + Send + Sync + 'static>(
    server: &Server,
    person: &Person,
    id: &ProjectId,
    request: R,
) -> JoinHandle<ApiError> {
    let (client, project, before) = (person.client.clone(), id.clone(), server.count());
    let asking = async move { client.call(Some(&project), request).await.map(drop) };
    let asking = tokio::spawn(async { refusal(asking.await) });
    patiently("a request", async {
        while server.count() == before {
            server.asked().await;
        }
    })
    .await;
    asking
}

#[tokio::test]
async fn addresses_of_this_network_and_tricks_are_refused_before_anything_runs() {
    let origin = Origin::new();
    let server = Server::start(origin.top(), Manner::Well).await;
    let Some((_app, ann)) = scene(options(&[origin.top()])).await else { return };
    let forbidden = [
        (server.url(), "blocked_address"),
        ("https://127.0.0.1/a.git".to_owned(), "blocked_address"),
        ("https://[::1]/a.git".to_owned(), "blocked_address"),
        ("https://example.com:25/a.git".to_owned(), "blocked_port"),
        ("ext::sh -c touch% /tmp/x".to_owned(), "blocked_scheme"),
        ("ssh://example.com/a.git".to_owned(), "blocked_scheme"),
        ("git://example.com/a.git".to_owned(), "blocked_scheme"),
        ("/etc".to_owned(), "outside_project_roots"),
        (format!("file://{}/../..", origin.bare().display()), "outside_project_roots"),
    ];
    for (url, reason) in forbidden {
        let found = refused(&ann, from(url.clone())).await;
        assert_eq!(found, (ErrorCode::Forbidden, reason.to_owned()), "{url}");
    }
    for url in [
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=x",
        "",
        "git@example.com:a/b.git",
        "https://ann:secret@example.com/a.git",
        "file://host/a.git",
    ] {
        let found = refused(&ann, from(url)).await;
        let expected = [ErrorCode::InvalidRequest, ErrorCode::Forbidden];
        assert!(expected.contains(&found.0), "{url}: {found:?}");
    }
    let local = origin.bare().display().to_string();
    for branch in ["--upload-pack=x", "-b", "a..b", "", "a b", "HEAD"] {
        let source = GitSource { branch: Some(branch.to_owned()), ..from(local.clone()) };
        let found = refused(&ann, source).await;
        assert_eq!(found, (ErrorCode::InvalidRequest, "invalid_branch".to_owned()), "{branch}");
    }
    let named = GitSource { username: Some("a:b".to_owned()), ..from(local) };
    let found = refused(&ann, named).await;
    assert_eq!(found, (ErrorCode::InvalidRequest, "invalid_git_credentials".to_owned()));
    assert_eq!(server.count(), 0);
}

#[tokio::test]
async fn a_server_that_is_silent_or_stops_in_the_middle_ends_in_an_error_and_can_be_tried_again() {
    let origin = Origin::new();
    let server = Server::start(origin.top(), Manner::Silent).await;
    let mut options = open_options(&origin);
    options.git.stall = Duration::from_secs(2);
    let Some((app, ann)) = scene(options).await else { return };
    let (id, error) = failure(&ann, from(server.url())).await;
    assert!(error.contains("does not send anything"), "{error}");
    server.behave(Manner::Begins);
    let again = ann.client.call(Some(&id), GitClone {}).await.unwrap().project;
    assert_eq!(again.git.unwrap().state, CloneState::Cloning);
    let found = ended(&ann, &id).await;
    assert!(found.error.unwrap().contains("does not send anything"));
    // Nothing is left, and nothing can be done with files that are not there.
    assert_eq!(std::fs::read_dir(files_of(&app, &id)).unwrap().count(), 0);
    let write = FileWrite {
        path: "a.txt".to_owned(),
        content: "x".to_owned(),
        encoding: None,
        version: None,
    };
    let error = refusal(ann.client.call(Some(&id), write).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "project_not_cloned"));
    server.behave(Manner::Well);
    ann.client.call(Some(&id), GitClone {}).await.unwrap();
    assert_eq!(ended(&ann, &id).await.state, CloneState::Ready);
    assert_eq!(std::fs::read_to_string(files_of(&app, &id).join("a.txt")).unwrap(), "one\n");
    let error = refusal(ann.client.call(Some(&id), GitClone {}).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "clone_not_failed"));
}

#[tokio::test]
async fn nobody_is_sent_on_and_a_token_goes_nowhere_else() {
    let origin = Origin::new();
    let other = Server::start(origin.top(), Manner::Well).await;
    let to = format!("http://{}", other.address);
    let server = Server::start(origin.top(), Manner::Redirects(to)).await;
    let Some((_app, ann)) = scene(open_options(&origin)).await else { return };
    let (_, error) = failure(&ann, with_token(server.url(), TOKEN)).await;
    assert!(error.contains("sent git on"), "{error}");
    assert_eq!((server.count(), other.count()), (1, 0));
}

#[tokio::test]
async fn wrong_credentials_are_told_and_right_ones_are_never_shown() {
    let origin = Origin::new();
    let server = Server::start(origin.top(), Manner::WithToken(TOKEN)).await;
    let Some((app, ann)) = scene(open_options(&origin)).await else { return };
    let (id, error) = failure(&ann, with_token(server.url(), "wrong-horse-battery")).await;
    assert!(error.contains("does not accept"), "{error}");
    let path = format!("/v1/projects/{id}/git/credentials");
    let body = serde_json::json!({ "username": "ann", "token": TOKEN });
    let set = ann.rest("PUT", &path, Some(body)).await;
    assert!(set.is_success() && !set.json.to_string().contains(TOKEN), "{set:?}");
    ann.client.call(Some(&id), GitClone {}).await.unwrap();
    assert_eq!(ended(&ann, &id).await.state, CloneState::Ready);
    let audit = ann.get("/v1/admin/audit?action=git.credentials.set").await;
    assert_eq!(audit.json["data"][0]["target"], id.as_str(), "{audit:?}");
    // Neither the token nor what is made of it is anywhere on the disk.
    let basic =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("ann:{TOKEN}"));
    let mut pending = vec![app.data_dir().to_owned()];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for secret in [TOKEN, &basic] {
            let is_there = bytes.windows(secret.len()).any(|it| it == secret.as_bytes());
            assert!(!is_there, "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_clone_is_given_up_when_somebody_says_so_and_with_its_project() {
    let origin = Origin::new();
    let Some((server, app, ann)) = patient_scene(&origin, Manner::Silent).await else { return };
    let id = clone(&ann, from(server.url())).await.id;
    patiently("a request", server.asked()).await;
    let given_up = ann.client.call(Some(&id), GitCancel {}).await.unwrap().project.git.unwrap();
    assert_eq!(given_up.state, CloneState::Failed);
    assert_eq!(given_up.error.as_deref(), Some("it was given up"));
    ann.client.call(Some(&id), GitClone {}).await.unwrap();
    patiently("a request", server.asked()).await;
    ann.client.call(Some(&id), ProjectDelete {}).await.unwrap();
    assert!(!app.data_dir().join("projects").join(id.as_str()).exists());
}

#[tokio::test]
async fn a_clone_ends_with_the_account_or_the_membership_of_who_asked_for_it() {
    let origin = Origin::new();
    let Some((server, app, ann)) = patient_scene(&origin, Manner::Silent).await else { return };
    for how in ["closed", "removed"] {
        let bob = app.user(how).await;
        let id = clone(&bob, from(server.url())).await.id;
        patiently("a request", server.asked()).await;
        bob.add_member(&id, &ann, Role::Admin).await;
        let other = clone(&ann, from(server.url())).await.id;
        patiently("a request", server.asked()).await;
        let ended = if how == "closed" {
            let account = format!("/v1/admin/users/{}", bob.id());
            ann.rest("PATCH", &account, Some(json!({ "disabled": true }))).await
        } else {
            bob.client
                .call(Some(&id), ProjectTransfer { user_id: ann.id().clone() })
                .await
                .unwrap();
            let member = format!("/v1/projects/{id}/members/{}", bob.id());
            ann.rest("DELETE", &member, None).await
        };
        assert!(ended.is_success(), "{ended:?}");
        let found = state(&ann, &id).await;
        let given_up = (CloneState::Failed, Some("it was given up".to_owned()));
        assert_eq!((found.state, found.error), given_up, "{how}");
        // Who is still there goes on, and may try again what was given up.
        assert_eq!(state(&ann, &other).await.state, CloneState::Cloning, "{how}");
        ann.client.call(Some(&other), GitCancel {}).await.unwrap();
        ann.client.call(Some(&id), GitClone {}).await.unwrap();
        patiently("a request", server.asked()).await;
        ann.client.call(Some(&id), GitCancel {}).await.unwrap();
    }
}

#[tokio::test]
async fn a_clone_of_somebody_whose_account_is_closed_is_not_begun_anew() {
    let origin = Origin::new();
    let Some((server, app, ann)) = patient_scene(&origin, Manner::Silent).await else { return };
    let bob = app.user("bob").await;
    let id = clone(&bob, from(server.url())).await.id;
    patiently("a request", server.asked()).await;
    bob.add_member(&id, &ann, Role::Viewer).await;
    let (root, user) = (app.data_dir().join("root.db"), bob.id().to_string());
    let app = app
        .restart_after(|| {
            let root = rusqlite::Connection::open(root).unwrap();
            root.execute("UPDATE users SET disabled = 1 WHERE id = ?1", [user]).unwrap();
        })
        .await;
    let found = ended(&app.again(&ann), &id).await;
    assert_eq!(found.error.as_deref(), Some("it was given up"));
}

#[tokio::test]
async fn one_user_has_two_clones_under_way_at_most() {
    let origin = Origin::new();
    let Some((server, app, ann)) = patient_scene(&origin, Manner::Silent).await else { return };
    let bob = app.user("bob").await;
    let first = clone(&ann, from(server.url())).await.id;
    clone(&ann, from(server.url())).await;
    let found = refused(&ann, from(server.url())).await;
    assert_eq!(found, (ErrorCode::Conflict, "too_many_clones".to_owned()));
    clone(&bob, from(server.url())).await;
    ann.client.call(Some(&first), GitCancel {}).await.unwrap();
    clone(&ann, from(server.url())).await;
    let error = refusal(ann.client.call(Some(&first), GitClone {}).await);
    assert_eq!(code_of(&error), (ErrorCode::Conflict, "too_many_clones"));
}

#[tokio::test]
async fn a_deletion_ends_what_talks_with_the_other_side() {
    let origin = Origin::new();
    let Some((server, app, ann)) = patient_scene(&origin, Manner::Well).await else { return };
    let id = ready(&ann, from(server.url())).await;
    server.behave(Manner::Silent);
    let fetching = hanging(&server, &ann, &id, GitFetch {}).await;
    patiently("the deletion", ann.client.call(Some(&id), ProjectDelete {})).await.unwrap();
    assert!(!app.data_dir().join("projects").join(id.as_str()).exists());
    assert_eq!(patiently("an error", fetching).await.unwrap().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn what_talks_with_the_other_side_ends_with_the_account_or_the_membership_of_who_asked_for_it()
 {
    let origin = Origin::new();
    let Some((server, app, ann)) = patient_scene(&origin, Manner::Well).await else { return };
    let id = ready(&ann, from(server.url())).await;
    for how in ["closed", "removed"] {
        let bob = app.user(how).await;
        ann.add_member(&id, &bob, Role::Member).await;
        server.behave(Manner::Silent);
        let (asking, ended) = if how == "closed" {
            let asking = hanging(&server, &bob, &id, GitFetch {}).await;
            let account = format!("/v1/admin/users/{}", bob.id());
            (asking, ann.rest("PATCH", &account, Some(json!({ "disabled": true }))).await)
        } else {
            let asking = hanging(&server, &bob, &id, GitPush { branch: None }).await;
            let member = format!("/v1/projects/{id}/members/{}", bob.id());
            (asking, ann.rest("DELETE", &member, None).await)
        };
        assert!(ended.is_success(), "{ended:?}");
        let error = patiently("its end", asking).await.unwrap();
        assert_eq!(error.code, ErrorCode::NotFound, "{how}: {error}");
        // Nobody else is held up by it any more.
        server.behave(Manner::Well);
        ann.client.call(Some(&id), GitFetch {}).await.unwrap();
    }
}

#[tokio::test]
async fn a_repository_that_is_too_large_is_not_taken() {
    let origin = Origin::new();
    let mut options = open_options(&origin);
    options.quotas.file_bytes_max = 5;
    let Some((_app, ann)) = scene(options).await else { return };
    let (_, error) = failure(&ann, from(origin.bare().display().to_string())).await;
    assert!(error.contains("more than"), "{error}");
}

#[tokio::test]
async fn a_token_is_sealed_anew_with_a_new_master_key_and_still_opens() {
    let origin = Origin::new();
    let server = Server::start(origin.top(), Manner::WithToken(TOKEN)).await;
    let options = AppOptions { key_settles: Duration::from_millis(50), ..open_options(&origin) };
    let Some((app, ann)) = scene(options).await else { return };
    let id = ready(&ann, with_token(server.url(), TOKEN)).await;
    let data_dir = app.data_dir().to_owned();
    let sealed = || {
        let database = rusqlite::Connection::open(data_dir.join("root.db")).unwrap();
        let sql = "SELECT sealed FROM project_git WHERE project_id = ?1";
        database.query_row(sql, [id.as_str()], |row| row.get::<_, String>(0)).unwrap()
    };
    let before = sealed();
    let rotated = ann.post("/v1/admin/keys/rotate", serde_json::json!({})).await;
    assert_eq!(rotated.json["data"]["sealed"], 1, "{rotated:?}");
    let gone = async {
        while data_dir.join("master.key.previous").exists() {
            moment().await;
        }
    };
    patiently("the end of the old key", gone).await;
    assert_ne!(sealed(), before);
    ann.client.call(Some(&id), GitFetch {}).await.unwrap();
    let app = app.restart().await;
    let before = server.count();
    app.again(&ann).client.call(Some(&id), GitFetch {}).await.unwrap();
    assert!(server.count() > before);
}
