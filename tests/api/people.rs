//! Accounts from end to end: passwords, profiles, invitations, what ends them; rows A3, A11 and A16 to A18
//! of the threat model.

use std::sync::Arc;
use std::time::Duration;

use iris_actors::{Rate, RateSettings, Registration};
use iris_protocol::{ErrorCode, Ping, ProjectId, Role};
use iris_testkit::{
    AppOptions, PASSWORD, Person, SETUP_TOKEN, TestApp, TestClock, WireSocket, patiently,
    spawn_app, spawn_app_with,
};
use serde_json::{Value, json};

use crate::mails::mail_server;
use crate::{code_of, refusal, rest_refusal};

const NEW_PASSWORD: &str = "another battery staple";

async fn login(
    app: &TestApp,
    name: &str,
    password: &str,
) -> Result<Person, iris_protocol::ApiError> {
    let grant = app.client().login(&format!("{name}@example.com"), password).await;
    match grant {
        Ok(grant) => Ok(Person::new(app.client(), grant)),
        Err(error) => Err(refusal(Err::<(), _>(error))),
    }
}

/// Whether an answer is a refusal of this code and reason.
#[track_caller]
fn assert_refused(answer: &iris_client::RestAnswer, code: ErrorCode, reason: &str) {
    let error = rest_refusal(answer);
    assert_eq!(code_of(&error), (code, reason), "{answer:?}");
}

#[tokio::test]
async fn a_new_password_ends_every_login_and_begins_another() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (mut socket, other) = (ann.wire().await, login(&app, "ann", PASSWORD).await.unwrap());
    let change =
        |current: &str, new: &str| json!({ "currentPassword": current, "newPassword": new });
    let put = async |body| ann.rest("PUT", "/v1/auth/password", Some(body)).await;
    let wrong = put(change("wrong wrong", NEW_PASSWORD)).await;
    assert_refused(&wrong, ErrorCode::Forbidden, "wrong_password");
    let common = put(change(PASSWORD, "password123")).await;
    assert_refused(&common, ErrorCode::InvalidRequest, "password_common");
    let own_name = put(change(PASSWORD, "ann@example.com")).await;
    assert_refused(&own_name, ErrorCode::InvalidRequest, "password_common");

    let changed = put(change(PASSWORD, NEW_PASSWORD)).await;
    let grant: iris_protocol::AuthGrant = changed.data().unwrap();
    assert_eq!(socket.close_code().await, 4401);
    for old in [&ann, &other] {
        assert_eq!(rest_refusal(&old.get("/v1/me").await).code, ErrorCode::Unauthenticated);
    }
    assert!(Person::new(app.client(), grant).get("/v1/me").await.is_success());
    assert!(login(&app, "ann", PASSWORD).await.is_err());
    login(&app, "ann", NEW_PASSWORD).await.unwrap();
}

/// A11: what ends a login ends its sockets within a second.
#[tokio::test]
async fn whatever_takes_a_login_away_closes_its_sockets_within_a_second() {
    let app = spawn_app().await;
    let root = app.admin().await;
    for (name, code) in [("ann", 4401), ("ben", 4401), ("cas", 4403), ("dan", 4403), ("eve", 4401)]
    {
        let person = app.user(name).await;
        let mut socket = person.wire().await;
        let account = format!("/v1/admin/users/{}", person.id());
        let answer = match name {
            "ann" => person.post("/v1/auth/logout", json!({ "everywhere": true })).await,
            "ben" => root.post(&format!("{account}/logout"), json!({})).await,
            "cas" => root.rest("PATCH", &account, Some(json!({ "disabled": true }))).await,
            "dan" => root.rest("DELETE", &account, None).await,
            _ => {
                let logins = person.get("/v1/auth/sessions").await;
                let id = logins.json["data"][0]["id"].as_str().unwrap().to_owned();
                person.rest("DELETE", &format!("/v1/auth/sessions/{id}"), None).await
            }
        };
        assert!(answer.is_success(), "{name}: {answer:?}");
        let closed = tokio::time::timeout(Duration::from_secs(1), socket.close_code()).await;
        assert_eq!(closed, Ok(code), "{name}");
        assert_eq!(rest_refusal(&person.get("/v1/me").await).code, ErrorCode::Unauthenticated);
        assert!(WireSocket::open(&app.url, Some(person.token())).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn logins_are_listed_by_device_and_ended_one_by_one() {
    let app = spawn_app().await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    let other = login(&app, "ann", PASSWORD).await.unwrap();
    let listed = ann.get("/v1/auth/sessions").await.json["data"].clone();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let current: Vec<_> = listed.as_array().unwrap().iter().map(|l| l["current"] == true).collect();
    assert_eq!(current, [false, true]);
    assert!(listed[0]["ip"].as_str().unwrap().starts_with("127."));
    let place = format!("/v1/auth/sessions/{}", listed[0]["id"].as_str().unwrap());
    assert_eq!(rest_refusal(&ben.rest("DELETE", &place, None).await).code, ErrorCode::NotFound);
    assert!(ann.rest("DELETE", &place, None).await.is_success());
    assert_eq!(rest_refusal(&other.get("/v1/me").await).code, ErrorCode::Unauthenticated);
    assert_eq!(ann.get("/v1/auth/sessions").await.json["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_profile_is_changed_and_a_new_address_takes_the_password() {
    let app = spawn_app().await;
    let (ann, _ben) = (app.user("ann").await, app.user("ben").await);
    let patch = async |body: Value| ann.rest("PATCH", "/v1/me", Some(body)).await;
    let changed = patch(json!({ "username": "anna", "avatarUrl": "https://a.example/x.png",
        "preferences": { "theme": "dark" } }))
    .await;
    assert_eq!(changed.json["data"]["username"], "anna");
    assert_eq!(changed.json["data"]["preferences"]["theme"], "dark");
    let cleared = patch(json!({ "avatarUrl": null })).await;
    assert_eq!(cleared.json["data"].get("avatarUrl"), None);
    for (body, code, reason) in [
        (json!({ "username": "ben" }), ErrorCode::Conflict, "username_taken"),
        (json!({ "username": " " }), ErrorCode::InvalidRequest, "invalid_name"),
        (json!({ "isAdmin": true }), ErrorCode::InvalidRequest, "invalid_payload"),
        (json!({ "avatarUrl": "http://a.example/" }), ErrorCode::InvalidRequest, "avatar_url"),
        (json!({ "avatarUrl": "https://u:p@a.example/" }), ErrorCode::InvalidRequest, "avatar_url"),
        (json!({ "email": "x@y.z" }), ErrorCode::InvalidRequest, "current_password_missing"),
        (
            json!({ "email": "ben@example.com", "currentPassword": PASSWORD }),
            ErrorCode::Conflict,
            "email_taken",
        ),
        (
            json!({ "email": "x@y.z", "currentPassword": "wrong wrong" }),
            ErrorCode::Forbidden,
            "wrong_password",
        ),
    ] {
        assert_refused(&patch(body.clone()).await, code, reason);
    }
    let large = json!({ "preferences": { "x": "y".repeat(17_000) } });
    assert_eq!(rest_refusal(&patch(large).await).code, ErrorCode::PayloadTooLarge);
    let moved = json!({ "email": "Anna@Example.com", "currentPassword": PASSWORD });
    assert_eq!(patch(moved).await.json["data"]["email"], "anna@example.com");
    login(&app, "anna", PASSWORD).await.unwrap();
}

#[tokio::test]
async fn an_account_is_deleted_when_it_owns_nothing_and_what_it_wrote_stays() {
    let app = spawn_app().await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    let mut talk = ann.conversation().await;
    ann.add_member(&talk.project, &ben, Role::Member).await;
    talk.ask("say hi").await;
    let delete = async |password: &str| {
        let body = json!({ "currentPassword": password });
        ann.rest("DELETE", "/v1/me", Some(body)).await
    };
    assert_refused(&delete("wrong wrong").await, ErrorCode::Forbidden, "wrong_password");
    assert_refused(&delete(PASSWORD).await, ErrorCode::Conflict, "owns_projects");
    let data = ann.get("/v1/me/export").await.json["data"].clone();
    assert_eq!(data["projects"][0]["role"], "owner");
    assert_eq!(data["user"]["email"], "ann@example.com");

    let transfer = format!("/v1/projects/{}/transfer", talk.project);
    let to = json!({ "userId": ben.id() });
    assert_eq!(ann.post(&transfer, to).await.json["data"]["role"], "admin");
    let mut socket = ann.wire().await;
    assert!(delete(PASSWORD).await.is_success());
    assert_eq!(socket.close_code().await, 4403);
    assert!(login(&app, "ann", PASSWORD).await.is_err());
    let messages = ben.snapshot(&talk.project, &talk.session).await.messages;
    assert_eq!(messages[0].created_by.as_ref(), Some(ann.id()));
    let members = ben.get(&format!("/v1/projects/{}/members", talk.project)).await;
    assert_eq!(members.json["data"].as_array().unwrap().len(), 1);
    // The address is free again.
    app.user("ann").await;
}

#[tokio::test]
async fn administrators_manage_accounts_but_not_their_own_rights() {
    let app = spawn_app().await;
    let root = app.admin().await;
    let ann = app.user("ann").await;
    let made = root
        .post("/v1/admin/users", json!({ "email": "new@example.com", "username": "new" }))
        .await;
    assert_eq!(made.status, 201);
    let listed = root.get("/v1/admin/users?limit=2").await;
    assert_eq!(listed.json["data"].as_array().unwrap().len(), 2);
    assert_eq!(listed.json["meta"]["hasMore"], true);
    let cursor = listed.json["meta"]["nextCursor"].as_str().unwrap();
    let rest = root.get(&format!("/v1/admin/users?cursor={cursor}")).await;
    assert_eq!(rest.json["data"][0]["username"], "new");
    let by_email = root.get("/v1/admin/users?email=ANN@example.com").await;
    assert_eq!(by_email.json["data"][0]["id"], json!(ann.id()));

    // A18: nobody changes their own rights.
    let own = format!("/v1/admin/users/{}", root.id());
    for change in [json!({ "isAdmin": false }), json!({ "disabled": true })] {
        let refused = root.rest("PATCH", &own, Some(change)).await;
        assert_refused(&refused, ErrorCode::Forbidden, "own_account");
    }
    let refused = root.rest("DELETE", &own, None).await;
    assert_refused(&refused, ErrorCode::Forbidden, "own_account");
    let anns = format!("/v1/admin/users/{}", ann.id());
    let raised = root.rest("PATCH", &anns, Some(json!({ "isAdmin": true }))).await;
    assert_eq!(raised.json["data"]["isAdmin"], true);
    assert!(ann.get("/v1/admin/users").await.is_success());
    assert!(ann.rest("PATCH", &own, Some(json!({ "isAdmin": false }))).await.is_success());
    assert_eq!(rest_refusal(&root.get("/v1/admin/users").await).code, ErrorCode::Forbidden);
}

/// A16.
#[tokio::test]
async fn an_administrators_link_sets_a_password_once() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let place = format!("/v1/admin/users/{}/password-reset", ann.id());
    let grant = root.post(&place, json!({})).await.json["data"].clone();
    let token = grant["token"].as_str().unwrap();
    assert!(grant["url"].as_str().unwrap().ends_with(&format!("#reset={token}")));
    let reset = async |token: &str, password: &str| {
        let body = json!({ "token": token, "newPassword": password });
        app.client().rest("POST", "/v1/auth/password/reset", None, Some(&body)).await.unwrap()
    };
    let mut socket = ann.wire().await;
    let bad = reset("iro_x", NEW_PASSWORD).await;
    assert_refused(&bad, ErrorCode::InvalidRequest, "invalid_or_expired");
    let weak = reset(token, "password1").await;
    assert_refused(&weak, ErrorCode::InvalidRequest, "password_common");
    assert!(reset(token, NEW_PASSWORD).await.is_success());
    assert_eq!(socket.close_code().await, 4401);
    let again = reset(token, NEW_PASSWORD).await;
    assert_refused(&again, ErrorCode::InvalidRequest, "invalid_or_expired");
    login(&app, "ann", NEW_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_forgotten_password_is_set_with_a_link_from_a_mail_and_nobody_learns_who_has_an_account()
{
    let (smtp, mut mails) = mail_server().await;
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let options =
        AppOptions { smtp: Some(smtp), clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let forgot = async |email: &str| {
        let body = json!({ "email": email });
        let path = "/v1/auth/password/forgot";
        app.client().rest("POST", path, None, Some(&body)).await.unwrap()
    };
    let (unknown, known) = (forgot("nobody@example.com").await, forgot("ANN@example.com").await);
    assert_eq!((unknown.status, &unknown.json), (202, &known.json));
    let mail = patiently("the mail", mails.recv()).await.unwrap();
    // That somebody asked is recorded of her alone, and not who.
    let asked = root.get("/v1/admin/audit?action=auth.password.forgot").await.json["data"].clone();
    let [asked] = asked.as_array().unwrap().as_slice() else { panic!("{asked}") };
    assert_eq!((&asked["target"], &asked["ip"]), (&json!(ann.id()), &json!("127.0.0.1")));
    assert!(asked.get("userId").is_none(), "{asked}");
    assert!(mail.contains("To: ann@example.com"), "{mail}");
    let reset = async |mail: &str, password: &str| {
        let (_, token) = mail.split_once("#reset=").unwrap();
        let token = token.split_whitespace().next().unwrap();
        let body = json!({ "token": token, "newPassword": password });
        app.client().rest("POST", "/v1/auth/password/reset", None, Some(&body)).await.unwrap()
    };
    clock.advance(Duration::from_mins(10));
    let late = reset(&mail, NEW_PASSWORD).await;
    assert_refused(&late, ErrorCode::InvalidRequest, "invalid_or_expired");
    forgot("ann@example.com").await;
    let mail = patiently("another mail", mails.recv()).await.unwrap();
    clock.advance(Duration::from_secs(599));
    assert!(reset(&mail, NEW_PASSWORD).await.is_success());
    let again = reset(&mail, "yet another battery staple").await;
    assert_refused(&again, ErrorCode::InvalidRequest, "invalid_or_expired");
    login(&app, "ann", NEW_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn where_only_who_is_invited_may_register_an_invitation_lets_one_in() {
    let options = AppOptions { registration: Registration::Invite, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let root = app.admin().await;
    let project = root.project("p").await.id;
    let register = async |name: &str, invitation: Option<&str>| {
        let body = json!({ "email": format!("{name}@example.com"), "username": name,
            "password": PASSWORD, "invitation": invitation });
        app.client().rest("POST", "/v1/auth/register", None, Some(&body)).await.unwrap()
    };
    assert_refused(&register("ann", None).await, ErrorCode::Forbidden, "invitation_needed");
    let invited = root
        .post(
            &format!("/v1/projects/{project}/invitations"),
            json!({ "role": "member", "email": "Ann@example.com" }),
        )
        .await;
    assert_eq!(invited.status, 201);
    let token = invited.json["data"]["token"].as_str().unwrap().to_owned();
    assert_eq!(rest_refusal(&register("ben", Some(&token)).await).code, ErrorCode::NotFound);
    let joined = register("ann", Some(&token)).await;
    assert_eq!(joined.status, 201, "{joined:?}");
    let ann = Person::new(app.client(), joined.data().unwrap());
    let place = format!("/v1/projects/{project}");
    assert_eq!(ann.get(&place).await.json["data"]["role"], "member");
    assert_eq!(rest_refusal(&register("ann2", Some(&token)).await).code, ErrorCode::NotFound);

    let to_server = root.post("/v1/admin/invitations", json!({})).await;
    let token = to_server.json["data"]["token"].as_str().unwrap().to_owned();
    assert_eq!(register("ben", Some(&token)).await.status, 201);
}

#[tokio::test]
async fn an_invitation_is_heard_listed_taken_back_and_accepted_once() {
    let app = spawn_app().await;
    let (ann, ben, eve) = (app.user("ann").await, app.user("ben").await, app.user("eve").await);
    let project = ann.project("p").await.id;
    let place = format!("/v1/projects/{project}/invitations");
    let mut socket = ben.wire().await;
    let key = [("idempotency-key", "once"), ("content-type", "application/json")];
    let body = json!({ "role": "viewer", "email": "ben@example.com" }).to_string();
    let post = async || {
        let body = body.clone().into();
        ann.client.raw("POST", &place, Some(ann.token()), &key, body).await.unwrap()
    };
    let invited = post().await.json["data"].clone();
    assert_refused(&post().await, ErrorCode::Conflict, "shown_once");
    let heard = socket.next_json().await;
    assert_eq!(heard["type"], "invitation.received");
    assert_eq!(heard["room"], format!("user:{}", ben.id()));
    assert_eq!(heard["payload"]["invitationId"], invited["invitation"]["id"]);
    assert_eq!(ann.get(&place).await.json["data"][0]["state"], "pending");

    let accept = json!({ "token": invited["token"] });
    let foreign = eve.post("/v1/invitations/accept", accept.clone()).await;
    assert_eq!(rest_refusal(&foreign).code, ErrorCode::NotFound);
    let accepted = ben.post("/v1/invitations/accept", accept.clone()).await;
    assert_eq!(accepted.json["data"]["role"], "viewer");
    let again = ben.post("/v1/invitations/accept", accept).await;
    assert_eq!(rest_refusal(&again).code, ErrorCode::NotFound);

    let open = ann.post(&place, json!({ "role": "admin" })).await.json["data"].clone();
    let id = open["invitation"]["id"].as_str().unwrap();
    assert!(ann.rest("DELETE", &format!("{place}/{id}"), None).await.is_success());
    let late = eve.post("/v1/invitations/accept", json!({ "token": open["token"] })).await;
    assert_eq!(rest_refusal(&late).code, ErrorCode::NotFound);
    let owner = ann.post(&place, json!({ "role": "owner" })).await;
    assert_refused(&owner, ErrorCode::InvalidRequest, "owner_role");
    assert_eq!(rest_refusal(&ben.get(&place).await).code, ErrorCode::Forbidden);
}

async fn role_in(person: &Person, project: &ProjectId) -> Value {
    person.get(&format!("/v1/projects/{project}")).await.json["data"]["role"].clone()
}

/// A18: a project never loses its owner.
#[tokio::test]
async fn a_project_is_given_away_and_left_but_never_without_an_owner() {
    let app = spawn_app().await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &ben, Role::Viewer).await;
    let leave = format!("/v1/projects/{project}/leave");
    assert_refused(&ann.post(&leave, json!({})).await, ErrorCode::Conflict, "last_owner");
    let transfer = format!("/v1/projects/{project}/transfer");
    let refused = ben.post(&transfer, json!({ "userId": ben.id() })).await;
    assert_refused(&refused, ErrorCode::Forbidden, "insufficient_role");

    let mut socket = ben.wire().await;
    let rooms = json!({ "rooms": [format!("project:{project}")] });
    socket.ask("1", "subscribe", Some(project.as_str()), rooms).await;
    assert_eq!(socket.response("1").await["success"], true);
    assert!(ann.post(&transfer, json!({ "userId": ben.id() })).await.is_success());
    for role in ["admin", "owner"] {
        let event = socket.next_json().await;
        assert_eq!(
            (&event["type"], &event["payload"]["member"]["role"]),
            (&json!("member.updated"), &json!(role))
        );
    }
    assert_eq!(
        (role_in(&ann, &project).await, role_in(&ben, &project).await),
        (json!("admin"), json!("owner"))
    );
    let own = format!("/v1/projects/{project}/members/{}", ann.id());
    let raise = ann.rest("PATCH", &own, Some(json!({ "role": "owner" }))).await;
    assert_refused(&raise, ErrorCode::InvalidRequest, "owner_role");
    assert!(ann.post(&leave, json!({})).await.is_success());
    assert_eq!(socket.next_json().await["type"], "member.removed");
    assert_eq!(
        rest_refusal(&ann.get(&format!("/v1/projects/{project}")).await).code,
        ErrorCode::NotFound
    );
}

#[tokio::test]
async fn settings_of_the_server_and_of_projects_change_while_it_runs_and_outlive_it() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let place = "/v1/admin/settings";
    assert_eq!(root.get(place).await.json["data"]["registration"], "open");
    let chosen = json!({ "registration": "closed", "projectCreation": "admins", "apiKeys": false });
    assert!(root.rest("PATCH", place, Some(chosen)).await.is_success());
    let body = json!({ "email": "x@y.z", "username": "x", "password": PASSWORD });
    let refused = app.client().rest("POST", "/v1/auth/register", None, Some(&body)).await.unwrap();
    assert_refused(&refused, ErrorCode::Forbidden, "registration_closed");
    let refused = ann.post("/v1/projects", json!({ "name": "p" })).await;
    assert_refused(&refused, ErrorCode::Forbidden, "project_creation");
    let refused = ann.post("/v1/api-keys", json!({ "name": "k" })).await;
    assert_refused(&refused, ErrorCode::Forbidden, "api_keys_off");
    let project = root.project("p").await.id;
    let settings = format!("/v1/projects/{project}/settings");
    let patch = async |root: &Person, change: Value| {
        root.rest("PATCH", &settings, Some(json!({ "settings": change }))).await
    };
    patch(&root, json!({ "a": 1, "b": 2 })).await;
    assert_eq!(
        patch(&root, json!({ "a": null, "c": 3 })).await.json["data"],
        json!({ "b": 2, "c": 3 })
    );
    assert_refused(
        &patch(&root, json!({ "resume": "x" })).await,
        ErrorCode::InvalidRequest,
        "invalid_settings",
    );
    let large = patch(&root, json!({ "d": "x".repeat(65_000) })).await;
    assert!(large.is_success());
    assert_refused(
        &patch(&root, json!({ "e": "x".repeat(2_000) })).await,
        ErrorCode::Conflict,
        "settings_too_large",
    );

    let app = app.restart().await;
    let root = app.again(&root);
    let kept = root.get(place).await.json["data"].clone();
    assert_eq!(kept["chosen"], json!(["apiKeys", "projectCreation", "registration"]));
    let back = json!({ "registration": null });
    let open = root.rest("PATCH", place, Some(back)).await;
    assert_eq!(open.json["data"]["registration"], "open");
}

/// A17.
#[tokio::test]
async fn of_twenty_setups_at_once_exactly_one_wins() {
    let app = spawn_app().await;
    let setups = (0..20).map(|n| {
        let client = app.client().clone();
        async move {
            let body = json!({ "token": SETUP_TOKEN, "email": format!("u{n}@example.com"),
                "username": format!("u{n}"), "password": PASSWORD });
            client.rest("POST", "/v1/auth/setup", None, Some(&body)).await.unwrap().status
        }
    });
    let statuses = futures_util::future::join_all(setups).await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 409, 503].contains(status)), "{statuses:?}");
}

/// A3: too many wrong passwords for one account, whether there is one or not.
#[tokio::test]
async fn an_account_whose_password_is_guessed_is_closed_for_a_while_and_not_for_ever() {
    let rate = Rate { every: Duration::from_secs(3), burst: 3 };
    let rates = RateSettings { login_failures: Some(rate), ..RateSettings::NONE };
    let app = spawn_app_with(AppOptions { rates, ..AppOptions::default() }).await;
    let (_ann, _ben) = (app.user("ann").await, app.user("ben").await);
    for name in ["ann", "nobody"] {
        // Those that succeed do not count.
        for _ in 0..5 {
            if name == "ann" {
                login(&app, name, PASSWORD).await.unwrap();
            }
        }
        // One that takes long gives another attempt: the limit is met all the same.
        let limited = async {
            while login(&app, name, "wrong wrong").await.unwrap_err().code != ErrorCode::RateLimited
            {
            }
        };
        patiently("the limit", limited).await;
    }
    login(&app, "ben", PASSWORD).await.unwrap();
    // The right password works again once there is an attempt left.
    let right = async { while login(&app, "ann", PASSWORD).await.is_err() {} };
    patiently("another attempt", right).await;
}

/// A3: one address that tries a password at many accounts, each too seldom to be noticed there.
#[tokio::test]
async fn an_address_that_tries_a_password_at_many_accounts_is_stopped_and_nobody_else_is() {
    const ACCOUNTS: usize = 100;
    let login_failures_of_address = RateSettings::default().login_failures_of_address;
    let rates = RateSettings { login_failures_of_address, ..RateSettings::default() };
    // All else that would stop it first.
    let rates = RateSettings { public: None, ..rates };
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let options = AppOptions { rates, trusted_proxies, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let root = app.admin().await;
    app.user("ann").await;
    let login = async |from: &str, name: &str, password: &str| {
        let email = format!("{name}@example.com");
        let body = json!({ "email": email, "password": password }).to_string();
        let headers = [("content-type", "application/json"), ("x-forwarded-for", from)];
        app.client().raw("POST", "/v1/auth/login", None, &headers, body.into()).await.unwrap()
    };
    let (sprayer, other) = ("203.0.113.1", "203.0.113.2");
    for n in 0..ACCOUNTS {
        let refused = login(sprayer, &format!("u{n}"), "Spring2026!").await;
        assert_refused(&refused, ErrorCode::Unauthenticated, "invalid_credentials");
    }
    // One comes back every few seconds, however long the hundred took.
    let mut more = 0;
    let limited = async {
        loop {
            let refused = login(sprayer, &format!("more{more}"), "Spring2026!").await;
            if rest_refusal(&refused).code == ErrorCode::RateLimited {
                break refused;
            }
            more += 1;
        }
    };
    let limited = patiently("the limit", limited).await;
    assert!(more <= 20, "{more} more");
    let wait = rest_refusal(&limited).retry_after_ms.unwrap();
    assert!((1..=6_000).contains(&wait), "{wait}: it is no lock for ever");
    assert!(limited.headers.contains_key("retry-after"));
    // The right password is not tried either, and its account is as open as before to everybody else.
    let stopped = rest_refusal(&login(sprayer, "ann", PASSWORD).await);
    assert_eq!(stopped.code, ErrorCode::RateLimited);
    assert!(login(other, "ann", PASSWORD).await.is_success());
    let audit = root.get("/v1/admin/audit?action=auth.login&limit=200").await;
    let records = audit.json["data"].as_array().unwrap();
    let of_sprayer = records.iter().filter(|it| it["ip"] == sprayer).count();
    let limited = records.iter().filter(|it| it["ip"] == sprayer && it["result"] == "RATE_LIMITED");
    assert!(of_sprayer > ACCOUNTS && limited.count() >= 1, "{of_sprayer} in the audit");
}

/// H18, for what is dearer than a request.
#[tokio::test]
async fn runs_and_uploads_have_allowances_of_their_own() {
    let once = Some(Rate { every: Duration::from_hours(1), burst: 1 });
    let rates = RateSettings { runs: once, uploads: once, ..RateSettings::NONE };
    let app = spawn_app_with(AppOptions { rates, ..AppOptions::default() }).await;
    let (ann, ben) = (app.user("ann").await, app.user("ben").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &ben, Role::Member).await;
    let session = ann.session(&project).await.id;
    let place = format!("/v1/projects/{project}/sessions/{session}/messages");
    let send = async |person: &Person| person.post(&place, json!({ "content": "say hi" })).await;
    assert!(send(&ann).await.is_success());
    let limited = send(&ann).await;
    assert_eq!(rest_refusal(&limited).code, ErrorCode::RateLimited);
    assert!(limited.headers.contains_key("retry-after"));
    assert!(send(&ben).await.is_success());
    assert!(ann.client.file_put(&project, "a", "a").await.is_ok());
    assert_eq!(refusal(ann.client.file_put(&project, "b", "b").await).code, ErrorCode::RateLimited);
    ann.connect().await.call(None, Ping {}).await.unwrap();
}
