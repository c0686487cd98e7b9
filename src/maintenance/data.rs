//! The data directory that a command works on.

use std::path::PathBuf;

use iris_actors::{SystemClock, SystemIds};
use iris_agent::{Clock, IdSource};
use iris_backup::{ProjectSource, remove_leftovers};
use iris_protocol::{ProjectId, UserId};
use iris_store::maintenance::{ListedProject, list_projects};
use iris_store::{Command, RootDatabase, StoreError, WriteContext};
use tokio::runtime::Runtime;

use super::{MaintenanceError, Place};
use crate::config::Config;
use crate::lock::DataDirLock;
use crate::remote::say;

/// A data directory that is there.
pub(super) struct DataDir {
    pub(super) config: Config,
    pub(super) path: PathBuf,
}

impl DataDir {
    /// The one that flags, variables and the file name.
    pub(super) fn find(place: &Place) -> Result<Self, MaintenanceError> {
        let (config, warnings) = Config::from_process(place.flags())?;
        for warning in warnings {
            say("warning", &warning);
        }
        let path = config.data_dir.clone();
        if !path.join("root.db").is_file() {
            return Err(MaintenanceError::NoData(path));
        }
        Ok(Self { config, path })
    }

    pub(super) fn root(&self) -> PathBuf {
        self.path.join("root.db")
    }

    pub(super) fn projects(&self) -> PathBuf {
        self.path.join("projects")
    }

    /// Holds the database of a project, and its files unless they have a directory of their own.
    pub(super) fn project(&self, id: &ProjectId) -> PathBuf {
        self.projects().join(id.as_str())
    }

    /// Every project, oldest first.
    pub(super) fn list(&self) -> Result<Vec<ListedProject>, MaintenanceError> {
        let path = self.root();
        list_projects(&path).map_err(|source| MaintenanceError::Database { path, source })
    }

    /// These projects; all for none.
    pub(super) fn listed(&self, ids: &[ProjectId]) -> Result<Vec<ListedProject>, MaintenanceError> {
        let all = self.list()?;
        let missing = ids.iter().find(|id| !all.iter().any(|project| project.id == **id));
        if let Some(id) = missing {
            return Err(MaintenanceError::Refused(format!("there is no project `{id}`")));
        }
        let is_wanted = |project: &ListedProject| ids.is_empty() || ids.contains(&project.id);
        Ok(all.into_iter().filter(is_wanted).collect())
    }

    pub(super) fn source(&self, project: &ListedProject) -> ProjectSource {
        ProjectSource::listed(&self.path, project)
    }

    /// Keeps servers out until the lock is dropped, and removes what commands left that were cut off.
    pub(super) fn lock(&self) -> Result<DataDirLock, MaintenanceError> {
        let failed = |source| MaintenanceError::Io { path: self.path.clone(), source };
        let lock = DataDirLock::take(&self.path).map_err(failed)?;
        let lock = lock.ok_or_else(|| MaintenanceError::Locked(self.path.clone()))?;
        remove_leftovers(&self.projects())?;
        remove_leftovers(&self.path.join("backups"))?;
        Ok(lock)
    }
}

/// The root database, open for writing: only under the lock.
pub(super) struct Root {
    database: RootDatabase,
    path: PathBuf,
    runtime: Runtime,
}

impl Root {
    pub(super) fn open(data: &DataDir) -> Result<Self, MaintenanceError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let path = data.root();
        let runtime =
            runtime.map_err(|source| MaintenanceError::Io { path: path.clone(), source })?;
        let database = RootDatabase::open_or_create(&path, now())
            .map_err(|source| MaintenanceError::Database { path: path.clone(), source })?;
        Ok(Self { database, path, runtime })
    }

    /// The error of a database that is this one.
    pub(super) fn failed(&self) -> impl Fn(StoreError) -> MaintenanceError {
        let path = self.path.clone();
        move |source| MaintenanceError::Database { path: path.clone(), source }
    }

    pub(super) fn write<C: Command>(&self, command: C) -> Result<C::Output, MaintenanceError> {
        self.try_write(command, WriteContext::default()).map_err(self.failed())
    }

    /// As `write`, for who has a word of their own on what is refused.
    pub(super) fn try_write<C: Command>(
        &self,
        command: C,
        context: WriteContext,
    ) -> Result<C::Output, StoreError> {
        let receipt = self.database.writer().submit(command, context);
        Ok(self.runtime.block_on(receipt)?.output)
    }

    /// Waits for something here, where nothing else is done meanwhile.
    pub(super) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The user with an email address, in any case.
    pub(super) fn user(
        &self,
        email: &str,
    ) -> Result<Option<iris_protocol::User>, MaintenanceError> {
        let reader = self.database.reader();
        let found = self.runtime.block_on(reader.user_by_email(email)).map_err(self.failed())?;
        Ok(found.map(|credentials| credentials.user))
    }

    pub(super) fn close(self) {
        self.database.close();
    }
}

/// Now, in milliseconds since 1970 UTC.
pub(super) fn now() -> i64 {
    SystemClock.now_ms()
}

/// An id that no user has.
pub(super) fn new_user_id() -> UserId {
    UserId::from_bits(SystemIds.next_bits())
}

/// An id that no project has.
pub(super) fn new_project_id() -> ProjectId {
    ProjectId::from_bits(SystemIds.next_bits())
}
