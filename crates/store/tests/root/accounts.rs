//! What changes and ends accounts.

use iris_protocol::Role;
use iris_store::StoreError;
use iris_store::root::{
    BeginPasswordReset, CreateUser, DeleteUser, EndLogins, FinishPasswordReset, RevokeLogin,
    SetPassword, UpdateUser,
};
use serde_json::json;

use crate::{NOW, Root, conflict, create_user, hash, login_id, missing, project_id, user_id};

fn update(n: u128) -> UpdateUser {
    UpdateUser::of(user_id(n), NOW)
}

async fn epoch(root: &Root, n: u128) -> i64 {
    root.reader.credentials(&user_id(n)).await.unwrap().unwrap().epoch
}

#[tokio::test]
async fn a_profile_changes_where_it_is_told_to_alone() {
    let root = Root::new();
    root.user(1).await;
    root.user(2).await;
    let preferences = json!({ "theme": "dark" }).as_object().cloned();
    let url = "https://example.com/a.png".to_owned();
    let changed = UpdateUser {
        email: Some("New@Example.com".to_owned()),
        avatar_url: Some(Some(url.clone())),
        preferences: preferences.clone(),
        ..update(1)
    };
    let user = root.run(changed).await.unwrap();
    assert_eq!((user.email.as_str(), user.username.as_str()), ("new@example.com", "user1"));
    assert_eq!((user.avatar_url, Some(user.preferences)), (Some(url), preferences));
    let user = root.run(UpdateUser { avatar_url: Some(None), ..update(1) }).await.unwrap();
    assert_eq!((user.avatar_url, user.email.as_str()), (None, "new@example.com"));
    let taken = UpdateUser { email: Some("USER2@example.com".to_owned()), ..update(1) };
    assert_eq!(conflict(root.run(taken).await), "email_taken");
    let taken = UpdateUser { username: Some("USER2".to_owned()), ..update(1) };
    assert_eq!(conflict(root.run(taken).await), "username_taken");
    let own = UpdateUser { username: Some("USER1".to_owned()), ..update(1) };
    assert_eq!(root.run(own).await.unwrap().username, "USER1");
    assert_eq!(missing(root.run(update(9)).await), "user");
}

#[tokio::test]
async fn the_last_administrator_stays_one() {
    let root = Root::new();
    for n in 1..=2 {
        root.run(CreateUser { is_admin: true, ..create_user(n) }).await.unwrap();
    }
    root.run(UpdateUser { disabled: Some(true), ..update(2) }).await.unwrap();
    for change in [
        UpdateUser { is_admin: Some(false), ..update(1) },
        UpdateUser { disabled: Some(true), ..update(1) },
    ] {
        assert_eq!(conflict(root.run(change).await), "last_admin");
    }
    let delete = DeleteUser { id: user_id(1), by: user_id(1), at: NOW };
    assert_eq!(conflict(root.run(delete).await), "last_admin");
}

#[tokio::test]
async fn every_login_ends_at_once() {
    let root = Root::new();
    root.user(1).await;
    root.user(2).await;
    root.begin_login(1, 1, 1).await;
    root.begin_login(2, 1, 2).await;
    root.begin_login(3, 2, 3).await;
    assert_eq!(root.reader.logins(&user_id(1), NOW).await.unwrap().len(), 2);
    root.run(EndLogins { user_id: user_id(1), at: NOW }).await.unwrap();
    assert_eq!((epoch(&root, 1).await, epoch(&root, 2).await), (1, 0));
    assert_eq!(root.reader.logins(&user_id(1), NOW).await.unwrap(), []);
    assert_eq!(root.reader.logins(&user_id(2), NOW).await.unwrap().len(), 1);
    let foreign = RevokeLogin { user_id: user_id(1), id: login_id(3), at: NOW };
    assert_eq!(missing(root.run(foreign).await), "login");
    let own = RevokeLogin { user_id: user_id(2), id: login_id(3), at: NOW };
    root.run(own).await.unwrap();
    assert_eq!(root.reader.logins(&user_id(2), NOW).await.unwrap(), []);
}

#[tokio::test]
async fn the_oldest_of_too_many_logins_goes() {
    let root = Root::new();
    root.user(1).await;
    for n in 1..=101 {
        root.begin_login(n, 1, u8::try_from(n).unwrap()).await;
    }
    let logins = root.reader.logins(&user_id(1), NOW).await.unwrap();
    assert_eq!((logins.len(), &logins[0].id), (100, &login_id(101)));
    assert!(logins.iter().all(|login| login.id != login_id(1)));
}

#[tokio::test]
async fn a_password_is_set_in_place_of_the_one_that_was_checked() {
    let root = Root::new();
    root.user(1).await;
    let set = |instead_of: &str| SetPassword {
        id: user_id(1),
        password_hash: "$new".to_owned(),
        instead_of: Some(instead_of.to_owned()),
        at: NOW,
    };
    let stale = root.run(set("$another")).await;
    assert!(matches!(stale, Err(StoreError::VersionConflict)), "{stale:?}");
    assert_eq!(root.run(set("$argon2id$...")).await.unwrap(), 1);
}

/// A16 of the threat model.
#[tokio::test]
async fn a_link_sets_a_password_once_in_its_time_for_the_address_it_was_made_for() {
    let root = Root::new();
    root.user(1).await;
    let begin = |n| BeginPasswordReset { user_id: user_id(1), hash: hash(n), expires_at: NOW + 10 };
    let finish = |n, at| FinishPasswordReset { hash: hash(n), password_hash: "$new".into(), at };
    root.run(begin(1)).await.unwrap();
    root.run(begin(2)).await.unwrap();
    assert_eq!(root.run(finish(1, NOW)).await.unwrap(), None, "a later link voids it");
    assert_eq!(root.run(finish(2, NOW + 10)).await.unwrap(), None, "its time is over");
    assert_eq!(root.run(finish(2, NOW)).await.unwrap(), Some(user_id(1)));
    assert_eq!(root.run(finish(2, NOW)).await.unwrap(), None, "it was used");
    assert_eq!(epoch(&root, 1).await, 1);
    root.run(begin(3)).await.unwrap();
    let moved = UpdateUser { email: Some("other@example.com".to_owned()), ..update(1) };
    root.run(moved).await.unwrap();
    assert_eq!(root.run(finish(3, NOW)).await.unwrap(), None, "another address");
}

#[tokio::test]
async fn an_account_goes_with_its_memberships_once_it_owns_nothing() {
    let root = Root::new();
    root.user(1).await;
    root.user(2).await;
    root.project(1, 1).await;
    root.add_member(1, 2, Role::Member).await;
    let delete = |n| DeleteUser { id: user_id(n), by: user_id(n), at: NOW };
    assert_eq!(conflict(root.run(delete(1)).await), "owns_projects");
    assert_eq!(root.run(delete(2)).await.unwrap(), [project_id(1)]);
    assert_eq!(root.reader.user(&user_id(2)).await.unwrap(), None);
    assert_eq!(root.reader.members(&project_id(1)).await.unwrap().len(), 1);
    // Added, then removed.
    assert_eq!(root.reader.outbox(&project_id(1)).await.unwrap().len(), 2);
    assert_eq!(missing(root.run(delete(2)).await), "user");
}
