//! Accounts.

use iris_protocol::User;
use iris_store::root::{CreateUser, Credentials};

use crate::{NOW, Root, conflict, create_user, user_id};

#[tokio::test]
async fn a_new_user_is_found_by_id_and_by_email_in_any_case() {
    let root = Root::new();
    let command = CreateUser { email: "Ada@Example.COM".to_owned(), ..create_user(1) };
    let user = root.run(command).await.unwrap();
    let expected = User {
        id: user_id(1),
        email: "ada@example.com".to_owned(),
        username: "user1".to_owned(),
        avatar_url: None,
        is_admin: false,
        can_execute_code: false,
        disabled: false,
        preferences: serde_json::Map::new(),
        created_at: NOW,
    };
    assert_eq!(user, expected);
    assert_eq!(root.reader.user(&user_id(1)).await.unwrap(), Some(expected.clone()));
    let credentials = Credentials {
        user: expected,
        password_hash: Some("$argon2id$...".to_owned()),
        disabled: false,
        epoch: 0,
    };
    let found = root.reader.user_by_email("ADA@example.com").await.unwrap();
    assert_eq!(found, Some(credentials));
}

#[tokio::test]
async fn nobody_is_found_where_nobody_is() {
    let root = Root::new();
    assert_eq!(root.reader.user(&user_id(1)).await.unwrap(), None);
    assert_eq!(root.reader.user_by_email("user1@example.com").await.unwrap(), None);
}

#[tokio::test]
async fn an_email_and_a_username_belong_to_one_user() {
    let root = Root::new();
    root.user(1).await;
    let email = CreateUser { email: "USER1@example.com".to_owned(), ..create_user(2) };
    assert_eq!(conflict(root.run(email).await), "email_taken");
    let username = CreateUser { username: "User1".to_owned(), ..create_user(2) };
    assert_eq!(conflict(root.run(username).await), "username_taken");
    assert_eq!(root.reader.user(&user_id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn of_two_setups_at_once_one_makes_the_first_admin() {
    let root = Root::new();
    root.user(1).await;
    assert!(!root.reader.has_admin().await.unwrap());
    let setup = |n| CreateUser { is_admin: true, only_if_no_admin: true, ..create_user(n) };
    let (first, second) = tokio::join!(root.run(setup(2)), root.run(setup(3)));
    assert!(first.unwrap().is_admin);
    assert_eq!(conflict(second), "admin_exists");
    assert!(root.reader.has_admin().await.unwrap());

    let another = CreateUser { is_admin: true, ..create_user(4) };
    assert!(root.run(another).await.unwrap().is_admin);
}
