//! The tree of the actors that are alive.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// Where an actor stands in the tree, for example `node/directory/project/prj_..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorPath(Arc<str>);

impl ActorPath {
    /// The root of the tree, which is no actor.
    pub fn node() -> Self {
        Self("node".into())
    }

    pub(super) fn child(&self, kind: &str, id: &str) -> Self {
        let separator = if id.is_empty() { "" } else { "/" };
        Self(format!("{self}/{kind}{separator}{id}").into())
    }
}

impl fmt::Display for ActorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorState {
    /// It handles messages.
    Running,
    /// It panicked and will start again.
    Restarting,
}

/// What the tree knows of one actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorRecord {
    /// Where it stands.
    pub path: ActorPath,
    /// Who started it.
    pub parent: ActorPath,
    /// What kind of actor.
    pub kind: &'static str,
    /// What it is doing.
    pub state: ActorState,
    /// Restarts since it was spawned.
    pub restarts: u64,
}

/// The actors that are alive. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ActorTree(Arc<Mutex<BTreeMap<ActorPath, ActorRecord>>>);

impl ActorTree {
    /// The actors that are alive now, in the order of their paths.
    pub fn snapshot(&self) -> Vec<ActorRecord> {
        self.0.lock().values().cloned().collect()
    }

    pub(super) fn add(&self, path: &ActorPath, kind: &'static str, parent: &ActorPath) {
        let (parent, state) = (parent.clone(), ActorState::Running);
        let record = ActorRecord { path: path.clone(), parent, kind, state, restarts: 0 };
        self.0.lock().insert(path.clone(), record);
    }

    pub(super) fn panicked(&self, path: &ActorPath) {
        if let Some(record) = self.0.lock().get_mut(path) {
            record.state = ActorState::Restarting;
        }
    }

    pub(super) fn restarted(&self, path: &ActorPath) {
        if let Some(record) = self.0.lock().get_mut(path) {
            record.state = ActorState::Running;
            record.restarts += 1;
        }
    }

    pub(super) fn remove(&self, path: &ActorPath) {
        self.0.lock().remove(path);
    }
}
