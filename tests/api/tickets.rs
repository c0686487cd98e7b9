//! Tickets: what stands in a URL in place of a token, because browsers send no header there.

use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{ApiError, ErrorCode, Ping, TicketGrant, limits::TICKETS_PER_USER_MAX};
use iris_testkit::{
    AppOptions, EventStream, PASSWORD, Person, TestApp, TestClock, WireSocket, spawn_app,
    spawn_app_with,
};
use serde_json::json;

use crate::{code_of, refusal};

/// Some day in 2026.
const NOON_MS: i64 = 1_790_000_000_000;
const SPENT: (ErrorCode, &str) = (ErrorCode::Unauthenticated, "invalid_ticket");

async fn ticket(person: &Person) -> String {
    let answer = person.post("/v1/auth/tickets", json!({})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.data::<TicketGrant>().unwrap().ticket
}

async fn socket(app: &TestApp, ticket: &str) -> Result<WireSocket, ApiError> {
    let opened = WireSocket::open_with(&app.url, &format!("?ticket={ticket}"), None, &[]).await;
    match opened {
        Ok(socket) => Ok(socket),
        refused @ Err(_) => Err(refusal(refused.map(drop))),
    }
}

async fn stream(app: &TestApp, path: &str, ticket: &str) -> Result<EventStream, ApiError> {
    EventStream::open(&app.url, &format!("{path}&ticket={ticket}"), None, &[]).await
}

#[tokio::test]
async fn a_ticket_opens_one_socket() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let good = ticket(&ann).await;
    let mut opened = socket(&app, &good).await.unwrap();
    assert_eq!(opened.next_json().await["payload"]["userId"], json!(ann.id()));
    opened.ask("1", "ping", None, json!({})).await;
    assert_eq!(opened.response("1").await["success"], true);
    assert_eq!(code_of(&socket(&app, &good).await.err().unwrap()), SPENT);
    assert_eq!(code_of(&socket(&app, "irt_guessed").await.err().unwrap()), SPENT);
    ann.connect().await.call(None, Ping {}).await.unwrap();
}

#[tokio::test]
async fn a_token_is_no_ticket() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let refused = socket(&app, ann.token()).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::TokenInUrl);
    let project = ann.project("p").await.id;
    let path = format!("/v1/projects/{project}/events?rooms=project:{project}");
    let refused = stream(&app, &path, ann.token()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::TokenInUrl);
}

#[tokio::test]
async fn a_ticket_of_a_stream_opens_that_stream_again_and_nothing_else() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (project, other) = (ann.project("p").await.id, ann.project("o").await.id);
    let session = ann.session(&project).await.id;
    let rooms = format!("session:{session},project:{project}");
    let path = format!("/v1/projects/{project}/events?rooms={rooms}");
    let good = ticket(&ann).await;
    let mut first = stream(&app, &path, &good).await.unwrap();
    assert_eq!(first.next_event().await["payload"]["userId"], json!(ann.id()));
    // The same rooms in another order are the same stream.
    let turned = format!("/v1/projects/{project}/events?rooms=project:{project},session:{session}");
    for path in [&path, &turned] {
        stream(&app, path, &good).await.unwrap().wait_for("subscribed").await;
    }
    for path in [
        format!("/v1/projects/{project}/events?rooms=project:{project}"),
        format!("/v1/projects/{other}/events?rooms=project:{other}"),
    ] {
        assert_eq!(code_of(&stream(&app, &path, &good).await.unwrap_err()), SPENT, "{path}");
    }
    assert_eq!(code_of(&socket(&app, &good).await.err().unwrap()), SPENT);
    let of_a_socket = ticket(&ann).await;
    socket(&app, &of_a_socket).await.unwrap();
    assert_eq!(code_of(&stream(&app, &path, &of_a_socket).await.unwrap_err()), SPENT);
}

#[tokio::test]
async fn a_ticket_waits_half_a_minute_and_a_stream_keeps_it_as_long_as_its_token() {
    let clock = Arc::new(TestClock::at(NOON_MS));
    let options = AppOptions { clock: Some(Arc::clone(&clock) as _), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let path = format!("/v1/projects/{project}/events?rooms=project:{project}");
    let answer = ann.post("/v1/auth/tickets", json!({})).await;
    let granted: TicketGrant = answer.data().unwrap();
    assert_eq!(granted.expires_at, NOON_MS + 30_000);
    let (used, unused, late) = (granted.ticket, ticket(&ann).await, ticket(&ann).await);
    stream(&app, &path, &used).await.unwrap();
    clock.advance(Duration::from_millis(29_999));
    socket(&app, &unused).await.unwrap();
    clock.advance(Duration::from_millis(1));
    assert_eq!(code_of(&socket(&app, &late).await.err().unwrap()), SPENT);
    stream(&app, &path, &used).await.unwrap();
    clock.advance(Duration::from_mins(14));
    stream(&app, &path, &used).await.unwrap();
    // A ticket that is made just before the token ends lasts no longer than that.
    let left_ms = ann.grant.expires_at - (NOON_MS + 30_000 + 14 * 60_000);
    clock.advance(Duration::from_millis(left_ms.unsigned_abs() - 1_000));
    let answer = ann.post("/v1/auth/tickets", json!({})).await;
    assert_eq!(answer.data::<TicketGrant>().unwrap().expires_at, ann.grant.expires_at);
    clock.advance(Duration::from_secs(1));
    assert_eq!(code_of(&stream(&app, &path, &used).await.unwrap_err()), SPENT);
}

#[tokio::test]
async fn a_ticket_ends_with_the_login_that_it_was_made_by() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let path = format!("/v1/projects/{project}/events?rooms=project:{project}");
    let login = app.client().login("ann@example.com", PASSWORD).await.unwrap();
    let second = Person::new(app.client(), login);
    let (used, unused) = (ticket(&second).await, ticket(&second).await);
    let mut opened = stream(&app, &path, &used).await.unwrap();
    let mut connected = socket(&app, &ticket(&second).await).await.unwrap();
    second.post("/v1/auth/logout", json!({})).await;
    assert_eq!(opened.rest().await.last().unwrap()["payload"]["code"], 4401);
    assert_eq!(connected.close_code().await, 4401);
    for left in [&used, &unused] {
        let refused = stream(&app, &path, left).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unauthenticated);
    }
    // The other login of the same user goes on.
    stream(&app, &path, &ticket(&ann).await).await.unwrap();
}

#[tokio::test]
async fn of_too_many_tickets_of_a_user_the_oldest_goes() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let of_bob = ticket(&bob).await;
    let mut tickets = Vec::new();
    for _ in 0..=TICKETS_PER_USER_MAX {
        tickets.push(ticket(&ann).await);
    }
    assert_eq!(code_of(&socket(&app, &tickets[0]).await.err().unwrap()), SPENT);
    for good in [&tickets[1], &tickets[TICKETS_PER_USER_MAX], &of_bob] {
        socket(&app, good).await.unwrap();
    }
}

#[tokio::test]
async fn a_ticket_does_not_outlive_the_server() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let before = ticket(&ann).await;
    let app = app.restart().await;
    assert_eq!(code_of(&socket(&app, &before).await.err().unwrap()), SPENT);
    let ann = app.again(&ann);
    socket(&app, &ticket(&ann).await).await.unwrap();
}
