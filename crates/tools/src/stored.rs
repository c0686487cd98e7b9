//! What tools answered earlier in a session, beyond what the model read at once: `read` pages through it.

use std::fmt::Debug;

use futures_util::future::BoxFuture;
use iris_agent::Attached;
use iris_protocol::ToolCallId;

/// What stands before the id of a call in a path that means its output.
pub const OUTPUT_PREFIX: &str = "output:";

/// What tools answered earlier in the session in which a tool is called.
pub trait OutputStore: Debug + Send + Sync {
    /// What is kept of the answer to a call; none where all of it was read at once.
    ///
    /// # Errors
    /// One sentence for the model.
    fn output(&self, call_id: ToolCallId) -> BoxFuture<'static, Result<Option<Attached>, String>>;
}

/// The call whose output a path means; none for the path of a file.
pub(crate) fn call_of(path: &str) -> Option<ToolCallId> {
    path.strip_prefix(OUTPUT_PREFIX)?.parse().ok()
}
