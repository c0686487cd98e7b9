//! What changes and ends accounts, keys, invitations and the owner of a project.

use iris_actors::SystemClock;
use iris_agent::Clock;
use iris_auth::PkceVerifier;
use iris_client::RestAnswer;
use iris_protocol::{AuthGrant, AuthRegister, ProjectId};
use iris_testkit::{Browser, PASSWORD, Page, Person};
use serde_json::{Value, json};

use super::delete_project;
use crate::player::{Player, Trouble};

/// Asks for something; a refusal is a trouble.
async fn order(
    person: &Person,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<RestAnswer, Trouble> {
    let answer = person.client.rest(method, path, Some(person.token()), Some(body)).await?;
    match answer.error() {
        Some(error) => Err(Trouble::Refused(error)),
        None => Ok(answer),
    }
}

/// Somebody new, whose name nobody had.
async fn newcomer(player: &Player<'_>, name: &str) -> Person {
    let name = format!("{name}{}", SystemClock.now_ms());
    let client = player.app.client();
    let register = async || {
        let (email, password) = (format!("{name}@example.com"), PASSWORD.to_owned());
        let request = AuthRegister { email, username: name.clone(), password, invitation: None };
        Ok(client.register(&request).await?)
    };
    player.insist_done("auth.register", register).await;
    let login = async || Ok(client.login(&format!("{name}@example.com"), PASSWORD).await?);
    Person::new(client, player.insist("auth.login", login).await)
}

pub(super) async fn people(player: &Player<'_>) {
    let project = player.project().await;
    invitations(player, &project).await;
    accounts(player).await;
    identities(player).await;
    delete_project(player, &project).await;
}

async fn invitations(player: &Player<'_>, project: &ProjectId) {
    let (owner, guest) = (player.person, newcomer(player, "guest").await);
    let place = format!("/v1/projects/{project}");
    let change = json!({ "settings": { "n": 1 } });
    let settings = async || order(owner, "PATCH", &format!("{place}/settings"), &change).await;
    player.insist("project.settings.update", settings).await;
    let invite = async || {
        let body = json!({ "role": "member" });
        let made = order(owner, "POST", &format!("{place}/invitations"), &body).await?;
        Ok(made.json["data"].clone())
    };
    let taken_back = player.insist("invitation.create", invite).await;
    let revoke =
        format!("{place}/invitations/{}", taken_back["invitation"]["id"].as_str().unwrap());
    let revoke = async || order(owner, "DELETE", &revoke, &json!({})).await;
    player.insist("invitation.revoke", revoke).await;
    let invitation = player.insist("invitation.create", invite).await;
    let token = json!({ "token": invitation["token"] });
    let accept = async || order(&guest, "POST", "/v1/invitations/accept", &token).await;
    player.insist_done("invitation.accept", accept).await;

    let invitation = player.insist("invitation.create", invite).await;
    let name = format!("invited{}", SystemClock.now_ms());
    let body = json!({ "email": format!("{name}@example.com"), "username": name,
        "password": PASSWORD, "invitation": invitation["token"] });
    let register = async || {
        let answer = owner.client.rest("POST", "/v1/auth/register", None, Some(&body)).await?;
        answer.error().map_or(Ok(()), |error| Err(Trouble::Refused(error)))
    };
    player.insist_done("auth.register", register).await;

    // There and back: the owner deletes it in the end.
    for (from, to) in [(owner, &guest), (&guest, owner)] {
        let body = json!({ "userId": to.id() });
        let key = format!("{}", SystemClock.now_ms());
        let transfer = async || {
            let headers = [("content-type", "application/json"), ("idempotency-key", key.as_str())];
            let path = format!("{place}/transfer");
            let (token, body) = (Some(from.token()), body.to_string().into());
            let answer = from.client.raw("POST", &path, token, &headers, body).await?;
            answer.error().map_or(Ok(()), |error| Err(Trouble::Refused(error)))
        };
        player.insist("project.transfer", transfer).await;
    }
}

async fn accounts(player: &Player<'_>) {
    let (operator, person) = (player.operator, newcomer(player, "person").await);
    let preferences = json!({ "preferences": { "n": 1 } });
    let update = async || order(&person, "PATCH", "/v1/me", &preferences).await;
    player.insist("user.update", update).await;
    let make = async || {
        let made = order(&person, "POST", "/v1/api-keys", &json!({ "name": "k" })).await?;
        Ok(made.json["data"].clone())
    };
    let key = player.insist("key.create", make).await;
    let client = player.app.client();
    let secret = key["key"].as_str().unwrap();
    let by_key = async || {
        let answer = client.rest("GET", "/v1/me", Some(secret), None).await?;
        answer.error().map_or(Ok(()), |error| Err(Trouble::Refused(error)))
    };
    player.insist("a request with a key", by_key).await;
    let path = format!("/v1/api-keys/{}", key["id"].as_str().unwrap());
    player
        .insist_done("key.revoke", async || order(&person, "DELETE", &path, &json!({})).await)
        .await;
    let set = async || {
        let key = json!({ "providerId": "keyed", "apiKey": "k" });
        let set = order(&person, "POST", "/v1/credentials", &key).await?;
        Ok(set.json["data"]["id"].as_str().unwrap().to_owned())
    };
    let path = format!("/v1/credentials/{}", player.insist("credential.create", set).await);
    player
        .insist_done("credential.delete", async || {
            order(&person, "DELETE", &path, &json!({})).await
        })
        .await;
    let other = async || {
        client.login(&person.grant.user.email, PASSWORD).await?;
        let logins = order(&person, "GET", "/v1/auth/sessions", &json!({})).await?;
        Ok(logins.json["data"][0]["id"].as_str().unwrap().to_owned())
    };
    let path = format!("/v1/auth/sessions/{}", player.insist("another login", other).await);
    player
        .insist("auth.session.revoke", async || order(&person, "DELETE", &path, &json!({})).await)
        .await;

    let settings =
        async || order(operator, "PATCH", "/v1/admin/settings", &json!({ "apiKeys": true })).await;
    player.insist("admin.settings.update", settings).await;
    let place = format!("/v1/admin/users/{}", person.id());
    let link = async || {
        let grant = order(operator, "POST", &format!("{place}/password-reset"), &json!({})).await?;
        let body = json!({ "token": grant.json["data"]["token"], "newPassword": PASSWORD });
        let set = client.rest("POST", "/v1/auth/password/reset", None, Some(&body)).await?;
        set.error().map_or(Ok(()), |error| Err(Trouble::Refused(error)))
    };
    player.insist("auth.password.reset", link).await;
    let change = async || {
        let person = Person::new(client, client.login(&person.grant.user.email, PASSWORD).await?);
        let body = json!({ "currentPassword": PASSWORD, "newPassword": PASSWORD });
        order(&person, "PUT", "/v1/auth/password", &body).await
    };
    player.insist("auth.password.change", change).await;
    let logout = async || order(operator, "POST", &format!("{place}/logout"), &json!({})).await;
    player.insist("admin.user.logout", logout).await;
    player
        .insist_done("admin.user.delete", async || {
            order(operator, "DELETE", &place, &json!({})).await
        })
        .await;
}

/// Somebody who has no password: they come from another provider, become somebody there besides, and go.
async fn identities(player: &Player<'_>) {
    let (provider, app) = (player.identities, player.app);
    let name = format!("elsewhere{}", SystemClock.now_ms());
    let browser = |name: &str| Browser::default().with_cookie(&provider.issuer(), "who", name);
    let refusal = |page: &Page| {
        let error = serde_json::from_value(page.json["error"].clone());
        Trouble::Refused(error.unwrap_or_else(|_| panic!("{page:?}")))
    };
    let enter = async || {
        let start = format!("{}/v1/auth/oauth/fake/start", app.url);
        let (_, page) = browser(&name).go(&start, "nowhere").await;
        let grant: AuthGrant =
            serde_json::from_value(page.json["data"].clone()).map_err(|_| refusal(&page))?;
        Ok(Person::new(app.client(), grant))
    };
    let person = player.insist("auth.oauth.callback", enter).await;
    let link = async || {
        let (verifier, redirect) = (PkceVerifier::random().unwrap(), "http://127.0.0.1:9/callback");
        let body = json!({ "provider": "fake", "redirect": redirect,
            "codeChallenge": verifier.challenge() });
        let begun = order(&person, "POST", "/v1/me/identities/link", &body).await?;
        let url = begun.json["data"]["url"].as_str().unwrap();
        let (back, page) = browser(&format!("{name}two")).go(url, redirect).await;
        let code = back.split_once("?code=").ok_or_else(|| refusal(&page))?.1;
        let body = json!({ "code": code, "codeVerifier": verifier.as_str() });
        order(&person, "POST", "/v1/me/identities", &body).await
    };
    player.insist_done("identity.create", link).await;
    let own = async || order(&person, "GET", "/v1/me/identities", &json!({})).await;
    let own = player.insist("identity.list", own).await.json["data"].clone();
    let place = format!("/v1/me/identities/{}", own[1]["id"].as_str().unwrap());
    let unlink = async || order(&person, "DELETE", &place, &json!({})).await;
    player.insist_done("identity.delete", unlink).await;
    let account = format!("/v1/admin/users/{}", person.id());
    let delete = async || order(player.operator, "DELETE", &account, &json!({})).await;
    player.insist_done("admin.user.delete", delete).await;
}
