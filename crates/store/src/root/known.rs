//! Answers that are asked for again and again, by every request and every step of a run, and change once a
//! month: kept so that they need no other thread (docs/decisions/0021).
//!
//! What is known holds until the next transaction of the database ends, whatever it was about, and is forgotten
//! then: a right that is taken away counts from the moment on in which anybody hears of it, and no change can
//! be missed for not being told.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use iris_protocol::{AuthSessionId, KeyId, ProjectId, Role, User, UserId};
use parking_lot::Mutex;
use rusqlite::Connection;

use super::{Access, FoundKey, KeyAccess, RunFacts, TokenHash};
use crate::{Reader, State, StoreError};

/// Most answers of one kind that are known at the same time.
const KNOWN_MAX: usize = 10_000;

/// What was read of one state of the database. Of what is not there nothing is kept.
#[derive(Default)]
pub(super) struct Answers {
    /// What the rest was read of, or of a later one.
    state: Option<State>,
    pub(super) access: HashMap<(UserId, AuthSessionId, Option<ProjectId>), Access>,
    pub(super) roles: HashMap<(UserId, ProjectId), Role>,
    pub(super) users: HashMap<UserId, User>,
    /// By the provider too.
    pub(super) run_facts: HashMap<(UserId, ProjectId, String), RunFacts>,
    /// By the hash, which no timing gives a key away by: who presents one cannot choose how it begins.
    pub(super) keys: HashMap<TokenHash, FoundKey>,
    pub(super) key_access: HashMap<(KeyId, Option<ProjectId>), KeyAccess>,
}

/// The answers that a question is among.
type Kind<K, V> = fn(&mut Answers) -> &mut HashMap<K, V>;

/// Known answers, for all who read one database.
#[derive(Default)]
pub(super) struct Known(Mutex<Answers>);

// Nobody finds people and sealed keys in a log.
impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").finish_non_exhaustive()
    }
}

impl Known {
    /// What is known, or else what `query` finds in the database.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub(super) async fn look_up<K, V>(
        &self,
        reader: &Reader,
        kind: Kind<K, V>,
        key: K,
        query: impl FnOnce(&Connection, &K) -> Result<Option<V>, StoreError> + Send + 'static,
    ) -> Result<Option<V>, StoreError>
    where
        K: Clone + Eq + Hash + Send + 'static,
        V: Clone + Send + 'static,
    {
        // Before it is read: what changes meanwhile makes another state.
        let state = reader.state();
        if let Some(state) = &state
            && let Some(value) = kind(self.0.lock().of(state)).get(&key)
        {
            return Ok(Some(value.clone()));
        }
        let asked = key.clone();
        let value = reader.read(move |conn| query(conn, &asked)).await?;
        if let (Some(state), Some(value)) = (state, &value) {
            let mut answers = self.0.lock();
            if answers.state.as_ref() == Some(&state) {
                let known = kind(&mut answers);
                if known.len() >= KNOWN_MAX {
                    known.clear();
                }
                known.insert(key, value.clone());
            }
        }
        Ok(value)
    }
}

impl Answers {
    /// Those that hold in a state: what was read of another one is forgotten.
    fn of(&mut self, state: &State) -> &mut Self {
        if self.state.as_ref() != Some(state) {
            *self = Self { state: Some(state.clone()), ..Self::default() };
        }
        self
    }
}

#[cfg(test)]
mod tests;
