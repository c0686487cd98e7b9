//! API keys.

use iris_protocol::{KeyId, Role, Scope};
use iris_store::root::{CreateKey, KEY_USE_NOTED_EVERY_MS, NoteKeyUse, RevokeKey, UpdateUser};

use crate::{NOW, Root, conflict, hash, missing, project_id, user_id};

fn key_id(n: u8) -> KeyId {
    KeyId::from_bits(u128::from(n))
}

fn create(n: u8, user: u128) -> CreateKey {
    CreateKey {
        id: key_id(n),
        user_id: user_id(user),
        name: "ci".to_owned(),
        hash: hash(n),
        hint: "iris_ab...yz".to_owned(),
        scopes: vec![Scope::FilesRead],
        project_id: None,
        expires_at: Some(NOW + 9),
        at: NOW,
    }
}

async fn with_people() -> Root {
    let root = Root::new();
    root.user(1).await;
    root.user(2).await;
    root.project(1, 1).await;
    root
}

#[tokio::test]
async fn a_key_is_found_by_its_hash_until_it_is_revoked() {
    let root = with_people().await;
    let made = root.run(create(1, 1)).await.unwrap();
    assert_eq!(root.reader.keys(&user_id(1)).await.unwrap(), [made]);
    let found = root.reader.key_by_hash(hash(1)).await.unwrap().unwrap();
    assert_eq!((found.id, found.user_id, found.expires_at), (key_id(1), user_id(1), Some(NOW + 9)));
    assert_eq!(root.reader.key_by_hash(hash(2)).await.unwrap(), None);
    let of_another = RevokeKey { user_id: user_id(2), id: key_id(1) };
    assert_eq!(missing(root.run(of_another).await), "key");
    root.run(RevokeKey { user_id: user_id(1), id: key_id(1) }).await.unwrap();
    assert_eq!(root.reader.key_by_hash(hash(1)).await.unwrap(), None);
    assert_eq!(root.reader.key_access(&key_id(1), None).await.unwrap(), None);
}

#[tokio::test]
async fn what_decides_over_a_request_is_the_user_s_own_and_the_key_s() {
    let root = with_people().await;
    let bound = CreateKey { project_id: Some(project_id(1)), ..create(1, 1) };
    root.run(bound).await.unwrap();
    let access = root.reader.key_access(&key_id(1), Some(&project_id(1))).await.unwrap().unwrap();
    assert_eq!((access.role, access.disabled), (Some(Role::Owner), false));
    assert_eq!((access.scopes, access.project_id), (vec![Scope::FilesRead], Some(project_id(1))));
    let close = UpdateUser { disabled: Some(true), ..UpdateUser::of(user_id(1), NOW) };
    root.run(close).await.unwrap();
    assert!(root.reader.key_access(&key_id(1), None).await.unwrap().unwrap().disabled);
}

#[tokio::test]
async fn a_key_is_for_a_project_of_its_user_and_there_are_not_too_many() {
    let root = with_people().await;
    let foreign = CreateKey { project_id: Some(project_id(1)), ..create(1, 2) };
    assert_eq!(missing(root.run(foreign).await), "project");
    assert_eq!(missing(root.run(create(1, 9)).await), "user");
    for n in 1..=100 {
        root.run(create(n, 1)).await.unwrap();
    }
    assert_eq!(conflict(root.run(create(101, 1)).await), "too_many_keys");
}

#[tokio::test]
async fn a_use_is_noted_now_and_then() {
    let root = with_people().await;
    root.run(create(1, 1)).await.unwrap();
    let note = async |at| {
        root.run(NoteKeyUse { id: key_id(1), at }).await.unwrap();
        root.reader.keys(&user_id(1)).await.unwrap()[0].last_used_at
    };
    assert_eq!(note(NOW).await, Some(NOW));
    assert_eq!(note(NOW + KEY_USE_NOTED_EVERY_MS).await, Some(NOW));
    let later = NOW + KEY_USE_NOTED_EVERY_MS + 1;
    assert_eq!(note(later).await, Some(later));
}
