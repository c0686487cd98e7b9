//! API keys that were looked up, so that a program that asks often does not have each request wait for the
//! root database.
//!
//! What is known holds until the next transaction of that database ends, whatever it was about, and is
//! forgotten then: a key that is revoked, an account that is closed and a role that is taken away count from
//! the moment on in which anybody hears of it, and no change can be missed for not being told
//! (decision 0021). The end of a key
//! is compared with the clock at each use. Of keys only hashes are kept, as in the database.

use std::collections::HashMap;
use std::hash::Hash;

use iris_auth::ApiKeySecret;
use iris_protocol::{KeyId, ProjectId};
use iris_store::root::{FoundKey, KeyAccess, TokenHash};
use iris_store::{RootReader, State, StoreError};
use parking_lot::Mutex;

/// Most keys, and most pairs of a key and a project, that are known at the same time.
const KNOWN_MAX: usize = 10_000;

/// The API keys of a server that were looked up.
#[derive(Debug, Default)]
pub struct KnownKeys(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// What the rest was read of, or of a later one.
    state: Option<State>,
    /// By the hash, which no timing gives a key away by: who presents one cannot choose how it begins.
    found: HashMap<TokenHash, FoundKey>,
    access: HashMap<(KeyId, Option<ProjectId>), KeyAccess>,
}

impl Known {
    /// Forgets what was read of another state.
    fn turn_to(&mut self, state: &State) {
        if self.state.as_ref() != Some(state) {
            self.found.clear();
            self.access.clear();
            self.state = Some(state.clone());
        }
    }
}

/// The part of what is known that a question is about.
type Part<K, V> = fn(&mut Known) -> &mut HashMap<K, V>;

impl KnownKeys {
    /// The key of a text; none for one that is no key, was never made or is revoked. Nobody is asked about a
    /// text that cannot be one.
    ///
    /// # Errors
    /// As [`RootReader::key_by_hash`].
    pub async fn find(
        &self,
        reader: &RootReader,
        text: &str,
    ) -> Result<Option<FoundKey>, StoreError> {
        if !ApiKeySecret::is_well_formed(text) {
            return Ok(None);
        }
        let hash = ApiKeySecret::hash_of(text);
        self.look_up(reader, |known| &mut known.found, hash, || reader.key_by_hash(hash)).await
    }

    /// What decides over a request with a key, in a project or in none; none once the key is revoked.
    ///
    /// # Errors
    /// As [`RootReader::key_access`].
    pub async fn access(
        &self,
        reader: &RootReader,
        id: &KeyId,
        project_id: Option<&ProjectId>,
    ) -> Result<Option<KeyAccess>, StoreError> {
        let key = (id.clone(), project_id.cloned());
        let read = || reader.key_access(id, project_id);
        self.look_up(reader, |known| &mut known.access, key, read).await
    }

    async fn look_up<K: Eq + Hash, V: Clone, F>(
        &self,
        reader: &RootReader,
        part: Part<K, V>,
        key: K,
        read: impl FnOnce() -> F,
    ) -> Result<Option<V>, StoreError>
    where
        F: Future<Output = Result<Option<V>, StoreError>>,
    {
        // Before it is read: what changes meanwhile makes another state.
        let Some(state) = reader.state() else { return read().await };
        {
            let mut known = self.0.lock();
            known.turn_to(&state);
            if let Some(value) = part(&mut known).get(&key) {
                return Ok(Some(value.clone()));
            }
        }
        let value = read().await?;
        if let Some(value) = &value {
            let mut known = self.0.lock();
            if known.state.as_ref() == Some(&state) {
                let values = part(&mut known);
                if values.len() >= KNOWN_MAX {
                    values.clear();
                }
                values.insert(key, value.clone());
            }
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use iris_protocol::{Scope, UserId};
    use iris_store::root::{CreateKey, CreateUser, NoteKeyUse, RevokeKey, UpdateUser};
    use iris_store::{Command, RootDatabase, WriteContext};
    use tempfile::TempDir;

    use super::*;

    const NOW: i64 = 1_790_000_000_000;

    struct Scene {
        directory: TempDir,
        root: RootDatabase,
        keys: KnownKeys,
        secret: ApiKeySecret,
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
            let root = RootDatabase::open_or_create(&directory.path().join("root.db"), NOW);
            let (keys, secret) = (KnownKeys::default(), ApiKeySecret::random().unwrap());
            let scene = Self { directory, root: root.unwrap(), keys, secret };
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
                hash: scene.secret.hash(),
                hint: scene.secret.hint(),
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
            let found = self.keys.find(&self.root.reader(), self.secret.as_str()).await?;
            Ok(found.map(|found| found.id))
        }

        async fn access(&self) -> Result<Option<KeyAccess>, StoreError> {
            self.keys.access(&self.root.reader(), &key_id(), None).await
        }
    }

    #[tokio::test]
    async fn what_is_known_needs_no_database_and_what_is_not_does() {
        let scene = Scene::new().await;
        assert_eq!(scene.find().await.unwrap(), Some(key_id()));
        assert_eq!(scene.access().await.unwrap().unwrap().scopes, [Scope::FilesRead]);
        std::fs::remove_file(scene.directory.path().join("root.db")).unwrap();
        assert_eq!(scene.find().await.unwrap(), Some(key_id()));
        assert!(scene.access().await.unwrap().is_some());
        let project = ProjectId::from_bits(3);
        let unknown = scene.keys.access(&scene.root.reader(), &key_id(), Some(&project)).await;
        assert!(matches!(unknown, Err(StoreError::Corrupt { .. })), "{unknown:?}");
        // Now somebody noticed: nothing that was known counts any more.
        assert!(scene.find().await.is_err() && scene.access().await.is_err());
    }

    #[tokio::test]
    async fn what_is_known_is_forgotten_with_the_next_change_of_anything() {
        let scene = Scene::new().await;
        let is_disabled = async || scene.access().await.unwrap().map(|access| access.disabled);
        let last_use =
            async || scene.access().await.unwrap().and_then(|access| access.last_used_at);
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
        let reader = scene.root.reader();
        let read = async || {
            let read = reader.key_by_hash(scene.secret.hash()).await;
            // It is taken away while the answer is on its way.
            scene.run(RevokeKey { user_id: user_id(), id: key_id() }).await;
            read
        };
        let hash = scene.secret.hash();
        let late = scene.keys.look_up(&reader, |known| &mut known.found, hash, read).await;
        assert!(late.unwrap().is_some(), "it was asked before");
        assert_eq!(scene.find().await.unwrap(), None);
    }

    #[tokio::test]
    async fn so_many_are_known_and_no_more() {
        let scene = Scene::new().await;
        let reader = scene.root.reader();
        for n in 0..=KNOWN_MAX as u128 {
            let key = (key_id(), Some(ProjectId::from_bits(n)));
            let found = async { Ok(Some(some_access())) };
            scene.keys.look_up(&reader, |known| &mut known.access, key, || found).await.unwrap();
        }
        assert_eq!(scene.keys.0.lock().access.len(), 1);
        let unknown = ApiKeySecret::random().unwrap();
        for text in [unknown.as_str(), "iris_", ""] {
            assert_eq!(scene.keys.find(&reader, text).await.unwrap(), None);
        }
        assert!(scene.keys.0.lock().found.is_empty(), "of what is no key nothing is kept");
    }

    fn some_access() -> KeyAccess {
        KeyAccess {
            disabled: false,
            is_admin: false,
            scopes: Vec::new(),
            project_id: None,
            last_used_at: None,
            role: None,
            project_archived: false,
            project_uncloned: false,
        }
    }
}
