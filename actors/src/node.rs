//! The node: starts the actors that are always there, and is what transports hold.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix::prelude::*;
use iris_protocol::{ApiError, ProjectId};
use iris_store::StoreError;
use iris_store::root::{RootDatabase, RootReader};
use tokio::sync::oneshot;

use crate::Services;
use crate::connection::{CloseReason, Connections};
use crate::directory::{CloseAll, Directory, OpenProject};
use crate::project::ProjectHandle;
use crate::root::{Root, TakeDatabase};
use crate::supervision::{ActorPath, ChildSpec, RestartPolicy, spawn};

/// How often a draining node looks whether runs are alive.
const DRAIN_TICK: Duration = Duration::from_millis(50);

/// The running actors of one server. Clones share them.
#[derive(Clone)]
pub struct Node {
    /// What every actor may use.
    pub services: Arc<Services>,
    pub(crate) root: Addr<Root>,
    pub(crate) root_reader: RootReader,
    pub(crate) directory: Addr<Directory>,
    pub(crate) connections: Arc<Connections>,
}

/// Why a node did not start or stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The root database.
    #[error("root database: {0}")]
    Store(#[from] StoreError),
    /// An arbiter or an actor was gone.
    #[error("an actor of the node is gone")]
    Gone,
}

impl Node {
    /// Starts the root and the directory on the current arbiter; projects go to `arbiters`.
    pub fn start(
        services: Arc<Services>,
        root: RootDatabase,
        arbiters: Vec<ArbiterHandle>,
    ) -> Self {
        let (tree, top) = (services.tree.clone(), ActorPath::node());
        let policy = RestartPolicy::PERMANENT;
        let root_reader = root.reader();
        let spec = ChildSpec { kind: "root", id: String::new(), policy };
        let root = spawn(&tree, &top, spec, |_, _| Root::new(root), |_| {});
        let spec = ChildSpec { kind: "directory", id: String::new(), policy };
        let directory = {
            let (services, reader) = (Arc::clone(&services), root_reader.clone());
            let create = move |_: &mut Context<Directory>, path: &ActorPath| {
                Directory::new(path.clone(), services, reader, arbiters)
            };
            spawn(&tree, &top, spec, create, |_| {})
        };
        Self { services, root, root_reader, directory, connections: Arc::default() }
    }

    pub(crate) async fn project(&self, id: &ProjectId) -> Result<ProjectHandle, ApiError> {
        let (answer, opened) = oneshot::channel();
        self.directory.do_send(OpenProject { id: id.clone(), answer });
        opened.await.map_err(|_| {
            let message = "the project could not be opened; try again";
            ApiError::new(iris_protocol::ErrorCode::Overloaded, message).retry_after(1_000)
        })?
    }

    /// Whether somebody is an administrator.
    ///
    /// # Errors
    /// When the root database cannot be read.
    pub async fn has_admin(&self) -> Result<bool, NodeError> {
        Ok(self.root_reader.has_admin().await?)
    }

    /// Whether the node takes work: its root database answers.
    pub async fn is_ready(&self) -> bool {
        !self.is_draining()
            && self.root.connected()
            && self.directory.connected()
            && self.root_reader.has_admin().await.is_ok()
    }

    /// Whether the node is stopping: runs may end, none may start.
    pub fn is_draining(&self) -> bool {
        self.services.is_draining()
    }

    /// Takes no messages any more and waits for the runs that are alive, at most `patience`.
    pub async fn drain(&self, patience: Duration) {
        self.services.draining.store(true, Ordering::Relaxed);
        let deadline = tokio::time::Instant::now() + patience;
        let is_running =
            || self.services.tree.snapshot().iter().any(|record| record.kind == "orchestrator");
        while is_running() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(DRAIN_TICK).await;
        }
    }

    /// Stops runs, closes every project and the root database; everything acknowledged is on disk.
    /// Runs that were alive become `interrupted` at the next start.
    ///
    /// # Errors
    /// When an actor was gone before it could close what it owned.
    pub async fn close(&self) -> Result<(), NodeError> {
        self.connections.close_all(&CloseReason::new(1012, "the server is stopping"));
        self.directory.send(CloseAll).await.map_err(|_| NodeError::Gone)?;
        let database = self.root.send(TakeDatabase).await.map_err(|_| NodeError::Gone)?;
        let closed = tokio::task::spawn_blocking(move || drop(database)).await;
        closed.map_err(|_| NodeError::Gone)
    }
}
