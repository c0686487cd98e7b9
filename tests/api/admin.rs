//! What administrators of the server see and do: the tree of actors, orders, the supervision log.

mod orders;
mod records;
mod room;
mod tree;

use iris_protocol::{ActorInfo, ActorList, ProjectId, SessionId};
use iris_testkit::Person;

fn project_path(project: &ProjectId) -> String {
    format!("node/directory/project/{project}")
}

fn session_path(project: &ProjectId, session: &SessionId) -> String {
    format!("{}/session/{session}", project_path(project))
}

/// The actors of a kind, as an administrator sees them.
async fn actors(root: &Person, kind: &str) -> Vec<ActorInfo> {
    let request = ActorList { kind: Some(kind.to_owned()), under: None };
    root.client.actors(&request).await.unwrap().actors
}

/// The path of the only actor of a kind.
async fn path_of_the(root: &Person, kind: &str) -> String {
    let mut found = actors(root, kind).await;
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0).path
}
