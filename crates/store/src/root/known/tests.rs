use std::sync::Arc;

use iris_protocol::Scope;
use tempfile::TempDir;

use super::*;
use crate::root::{CreateKey, CreateUser, NoteKeyUse, RevokeKey, RootReader, UpdateUser};
use crate::{Command, RootDatabase, WriteContext};

const NOW: i64 = 1_790_000_000_000;
const HASH: TokenHash = [7; 32];

struct Scene {
    directory: TempDir,
    root: Arc<RootDatabase>,
    reader: RootReader,
}

fn user_id() -> UserId {
    UserId::from_bits(1)
}

fn key_id() -> KeyId {
    KeyId::from_bits(2)
}

impl Scene {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = RootDatabase::open_or_create(&directory.path().join("root.db"), NOW).unwrap();
        let scene = Self { directory, reader: root.reader(), root: Arc::new(root) };
        let user = CreateUser {
            id: user_id(),
            email: "ann@example.com".to_owned(),
            username: "ann".to_owned(),
            password_hash: None,
            is_admin: false,
            only_if_no_admin: false,
            at: NOW,
        };
        scene.run(user).await;
        let key = CreateKey {
            id: key_id(),
            user_id: user_id(),
            name: "ci".to_owned(),
            hash: HASH,
            hint: "abcd".to_owned(),
            scopes: vec![Scope::FilesRead],
            project_id: None,
            expires_at: None,
            at: NOW,
        };
        scene.run(key).await;
        scene
    }

    async fn run<C: Command>(&self, command: C) {
        self.root.writer().submit(command, WriteContext::default()).await.unwrap();
    }

    async fn find(&self) -> Result<Option<KeyId>, StoreError> {
        Ok(self.reader.key_by_hash(HASH).await?.map(|found| found.id))
    }

    async fn access(&self) -> Result<Option<KeyAccess>, StoreError> {
        self.reader.key_access(&key_id(), None).await
    }
}

#[tokio::test]
async fn what_is_known_needs_no_database_and_what_is_not_does() {
    let scene = Scene::new().await;
    let name = async || Ok::<_, StoreError>(scene.reader.user(&user_id()).await?.unwrap().username);
    assert_eq!(scene.find().await.unwrap(), Some(key_id()));
    assert_eq!(scene.access().await.unwrap().unwrap().scopes, [Scope::FilesRead]);
    assert_eq!(name().await.unwrap(), "ann");
    std::fs::remove_file(scene.directory.path().join("root.db")).unwrap();
    assert_eq!(scene.find().await.unwrap(), Some(key_id()));
    assert_eq!(name().await.unwrap(), "ann");
    assert!(scene.access().await.unwrap().is_some());
    let project = ProjectId::from_bits(3);
    let unknown = scene.reader.key_access(&key_id(), Some(&project)).await;
    assert!(matches!(unknown, Err(StoreError::Corrupt { .. })), "{unknown:?}");
    // Now somebody noticed: nothing that was known counts any more.
    assert!(scene.find().await.is_err() && scene.access().await.is_err() && name().await.is_err());
}

#[tokio::test]
async fn what_is_known_is_forgotten_with_the_next_change_of_anything() {
    let scene = Scene::new().await;
    let is_disabled = async || scene.access().await.unwrap().map(|access| access.disabled);
    let last_use = async || scene.access().await.unwrap().and_then(|access| access.last_used_at);
    assert_eq!((is_disabled().await, last_use().await), (Some(false), None));
    scene.run(NoteKeyUse { id: key_id(), at: NOW + 1 }).await;
    assert_eq!(last_use().await, Some(NOW + 1));
    for disabled in [true, false] {
        let change = UpdateUser { disabled: Some(disabled), ..UpdateUser::of(user_id(), NOW) };
        scene.run(change).await;
        assert_eq!(is_disabled().await, Some(disabled));
        assert_eq!(scene.find().await.unwrap(), Some(key_id()));
    }
    scene.run(RevokeKey { user_id: user_id(), id: key_id() }).await;
    assert_eq!(scene.find().await.unwrap(), None);
    assert_eq!(scene.access().await.unwrap(), None);
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_kept_after_it() {
    let scene = Scene::new().await;
    let (known, reader) = (Known::default(), scene.reader.current());
    let root = Arc::clone(&scene.root);
    let read = move |_: &Connection, _: &_| {
        // Something is taken away while the answer is on its way.
        let revoke = RevokeKey { user_id: user_id(), id: key_id() };
        root.writer().submit(revoke, WriteContext::default()).wait()?;
        Ok(Some(Role::Admin))
    };
    let key = (user_id(), ProjectId::from_bits(3));
    let late = known.look_up(&reader, |known| &mut known.roles, key.clone(), read).await;
    assert_eq!(late.unwrap(), Some(Role::Admin), "it was asked before");
    let gone = known.look_up(&reader, |known| &mut known.roles, key, |_, _| Ok(None)).await;
    assert_eq!(gone.unwrap(), None);
}

#[tokio::test]
async fn so_many_are_known_and_no_more() {
    let scene = Scene::new().await;
    let (known, reader) = (Known::default(), scene.root.reader());
    let reader = reader.current();
    for n in 0..=KNOWN_MAX as u128 {
        let key = (user_id(), ProjectId::from_bits(n));
        let found = |_: &Connection, _: &_| Ok(Some(Role::Viewer));
        known.look_up(&reader, |known| &mut known.roles, key, found).await.unwrap();
    }
    assert_eq!(known.0.lock().roles.len(), 1);
    let stranger = (UserId::from_bits(9), ProjectId::from_bits(3));
    let nothing = |_: &Connection, _: &_| Ok(None);
    known.look_up(&reader, |known| &mut known.roles, stranger, nothing).await.unwrap();
    assert_eq!(known.0.lock().roles.len(), 1, "of what is not there nothing is kept");
}
