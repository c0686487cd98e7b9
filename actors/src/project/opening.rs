//! Opening and closing a project: its database and files, checked, and the right to have them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use actix::prelude::*;
use iris_agent::Clock;
use iris_protocol::{ApiError, ErrorCode, ProjectId};
use iris_store::WriteContext;
use iris_store::project::{ProjectDatabase, RecoverRuns};
use iris_workspace::Workspace;
use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;

use super::rooms::Rooms;
use super::{Committed, MAILBOX_LIMIT, Project, ProjectHandle, Registry};
use crate::supervision::{ChildSpec, Intensity, RestartPolicy, Vitals, WeakAddress, spawn};
use crate::{ResumePolicy, Services};

/// The write handle of a project's database, together with the right to have it. However its owner
/// ends, what worked is recorded as interrupted, unless whoever opens it next resumes it by itself;
/// what is queued is committed and the file closed; only then may the project be opened again.
pub(super) struct OpenDatabase {
    /// There until it is closed.
    open: Option<(ProjectDatabase, OwnedMutexGuard<()>)>,
    clock: Arc<dyn Clock>,
    resume: ResumePolicy,
}

impl OpenDatabase {
    /// Whether runs that were interrupted go on by themselves.
    pub(super) fn resumes(&self) -> bool {
        match self.resume {
            ResumePolicy::Manual => false,
            ResumePolicy::Auto => true,
        }
    }

    pub(super) fn get(&self) -> Option<&ProjectDatabase> {
        self.open.as_ref().map(|(database, _)| database)
    }

    /// Moves it out of an actor that starts again.
    pub(super) fn take(&mut self) -> Self {
        Self { open: self.open.take(), clock: Arc::clone(&self.clock), resume: self.resume }
    }
}

impl Drop for OpenDatabase {
    fn drop(&mut self) {
        let Some((database, lease)) = self.open.take() else { return };
        let (at, resumes) = (self.clock.now_ms(), self.resumes());
        let close = move || {
            if !resumes {
                let recover = RecoverRuns { resume: false, at };
                // The receipt is not needed: closing waits for the writer.
                drop(database.writer().submit(recover, WriteContext::default()));
            }
            database.close();
            drop(lease);
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(close)),
            Err(_) => close(),
        }
    }
}

/// A project's database and files, opened and checked, on their way to its registry.
pub(crate) struct OpenedProject {
    id: ProjectId,
    database: ProjectDatabase,
    lease: OwnedMutexGuard<()>,
    workspace: Workspace,
    head: u64,
    committed: Registry,
    resume: ResumePolicy,
}

impl OpenedProject {
    /// Opens the database and the directory of a project. Blocks: not for an arbiter.
    pub(crate) fn open(
        id: ProjectId,
        database: &Path,
        files: &Path,
        lease: OwnedMutexGuard<()>,
        resume: ResumePolicy,
    ) -> Result<Self, ApiError> {
        let committed: Registry = Arc::default();
        let registry = Arc::clone(&committed);
        let database = ProjectDatabase::open(database, &id, move |events| {
            if let Some(registry) = registry.get().and_then(WeakAddress::upgrade) {
                registry.tell(Committed(events));
            }
        })
        .map_err(|error| {
            tracing::error!(project.id = %id, %error, "project could not be opened");
            error.to_api()
        })?;
        let head = database.head().map_err(|error| error.to_api())?;
        let workspace = Workspace::open(files).map_err(|error| {
            tracing::error!(project.id = %id, %error, "the project's directory could not be opened");
            ApiError::new(ErrorCode::ReadOnly, "the project's directory cannot be opened")
        })?;
        Ok(Self { id, database, lease, workspace, head, committed, resume })
    }

    /// Starts the registry on the current arbiter.
    pub(crate) fn start(
        self,
        services: &Arc<Services>,
        parent: &Arc<Vitals>,
        on_exit: impl FnOnce() + 'static,
    ) -> ProjectHandle {
        let spec = ChildSpec {
            policy: RestartPolicy::Transient(Intensity::DEFAULT),
            mailbox_limit: MAILBOX_LIMIT,
            ..ChildSpec::new("project", self.id.to_string())
        };
        let (id, workspace) = (self.id.clone(), self.workspace.clone());
        let (reader, epoch) = (self.database.reader(), Arc::from(self.database.epoch()));
        let create = {
            let (services, reader, epoch) =
                (Arc::clone(services), reader.clone(), Arc::clone(&epoch));
            move |_: &mut Context<Project>, vitals: &Arc<Vitals>| Project {
                rooms: Rooms::new(self.id.clone()),
                id: self.id,
                vitals: Arc::clone(vitals),
                reader,
                workspace: self.workspace,
                epoch,
                database: OpenDatabase {
                    open: Some((self.database, self.lease)),
                    clock: Arc::clone(&services.clock),
                    resume: self.resume,
                },
                services,
                committed: self.committed,
                sessions: HashMap::new(),
                shared: Weak::new(),
                head: self.head,
                flush_is_due: false,
                joins: 0,
            }
        };
        let address = spawn(parent, spec, create, move |_| on_exit());
        ProjectHandle { id, address, reader, workspace, epoch, holders: Arc::default() }
    }
}
