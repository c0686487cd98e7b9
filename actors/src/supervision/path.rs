//! Where an actor stands in the tree.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// Where an actor stands in the tree, for example `node/directory/project/prj_..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorPath(Arc<str>);

impl ActorPath {
    /// The root of the tree, which is no actor.
    pub(super) fn node() -> Self {
        Self("node".into())
    }

    pub(super) fn child(&self, kind: &str, id: &str) -> Self {
        let separator = if id.is_empty() { "" } else { "/" };
        Self(format!("{self}/{kind}{separator}{id}").into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether `path` is `top` or stands under it.
pub(super) fn is_under(path: &str, top: &str) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Display for ActorPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ActorPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}
