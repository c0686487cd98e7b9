//! What tasks with archives work with, and the bounds on how many of them do (INV-7).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Weak};

use iris_backup::{ArchivedMember, BackupError, ProjectSource};
use iris_protocol::{ApiError, ErrorCode, ProjectId, UserId};
use iris_store::root::{RecordAudit, RootReader};
use iris_store::{StoreError, WriteContext};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use crate::Services;
use crate::directory::{Directory, ProjectPlaces};
use crate::root::Root;
use crate::supervision::{Address, current_request, detached, in_request};
use crate::write;

/// Tasks that work at the same time: each keeps a disk and a processor busy.
const WORKING_MAX: usize = 2;
/// Tasks that users asked for and that work or wait.
const TASKS_MAX: usize = 32;
/// Those that one user asked for.
const TASKS_OF_USER_MAX: usize = 4;

/// What tasks work with. Clones share it.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) services: Arc<Services>,
    pub(crate) root: Address<Root>,
    pub(crate) root_reader: RootReader,
    pub(crate) directory: Address<Directory>,
    slots: Arc<Slots>,
}

impl Desk {
    pub(crate) fn new(
        services: Arc<Services>,
        root: Address<Root>,
        root_reader: RootReader,
        directory: Address<Directory>,
    ) -> Self {
        Self { services, root, root_reader, directory, slots: Arc::default() }
    }

    pub(super) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.services.settings.data_dir
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.services.clock.now_ms()
    }

    pub(super) fn places(&self, id: &ProjectId) -> ProjectPlaces {
        ProjectPlaces::new(self.data_dir(), id)
    }

    /// The project as an archive of it is made.
    pub(super) async fn source(&self, id: &ProjectId) -> Result<ProjectSource, ApiError> {
        let listed = self.root_reader.listed_project(id).await.map_err(|e| stored(&e))?;
        let listed = listed.ok_or_else(|| ApiError::not_found("project"))?;
        Ok(ProjectSource::listed(self.data_dir(), &listed))
    }

    /// What the audit is to say of something that was done for a user.
    pub(super) fn audit(
        &self,
        by: &UserId,
        action: &str,
        target: &str,
        details: Value,
    ) -> RecordAudit {
        self.services.audit(by, action, target, details)
    }

    pub(super) async fn record_audit(&self, audit: RecordAudit) -> Result<(), ApiError> {
        let recorded = write(&self.root, audit, WriteContext::default()).await;
        recorded.map(drop).map_err(|e| stored(&e))
    }

    /// The users of this server behind the members of an archive, as far as there are any.
    pub(super) async fn users_of(
        &self,
        members: &[ArchivedMember],
    ) -> Result<BTreeMap<UserId, Option<UserId>>, ApiError> {
        let mut users = BTreeMap::new();
        for member in members {
            let found = self.root_reader.user_by_email(&member.email).await;
            let found = found.map_err(|e| stored(&e))?;
            users.insert(member.user_id.clone(), found.map(|found| found.user.id));
        }
        Ok(users)
    }
}

impl Desk {
    /// Refuses what takes space while there is none: what there is belongs to the projects. Behind the
    /// look for the first answer of a repeat, which takes none.
    pub(super) fn check_space(&self) -> Result<(), ApiError> {
        if self.services.storage.is_full() { Err(stored(&StoreError::StorageFull)) } else { Ok(()) }
    }
}

/// Runs what waits for the disk on a thread of its own. It goes on to its end when nobody waits for it
/// any more; what it answers is then dropped.
pub(super) async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = spawn_blocking(work).await;
    let done = done.map_err(|error| {
        tracing::error!(%error, "work on an archive failed inside the server");
        ApiError::new(ErrorCode::Internal, "internal error")
    })?;
    done.map_err(|error| refused(&error))
}

/// Runs what has to go on to its end once it began, whatever becomes of the task.
pub(super) async fn undisturbed<T: 'static>(
    work: impl Future<Output = Result<T, ApiError>> + 'static,
) -> Result<T, ApiError> {
    let done = match current_request() {
        Some(request) => detached(in_request(request, work)),
        None => detached(work),
    };
    done.await.unwrap_or_else(|_| Err(ApiError::from(ErrorCode::Internal)))
}

/// A failure of an archive as clients see it; the log has the rest.
pub(super) fn refused(error: &BackupError) -> ApiError {
    let wire = error.to_api();
    let is_ours = [ErrorCode::Internal, ErrorCode::ProjectCorrupt, ErrorCode::StorageFull];
    if is_ours.contains(&wire.code) {
        tracing::error!(%error, "work on an archive failed");
    } else {
        tracing::info!(%error, "an archive was refused");
    }
    wire
}

pub(super) fn stored(error: &StoreError) -> ApiError {
    let wire = error.to_api();
    if wire.code == ErrorCode::Internal {
        tracing::error!(%error, "work on an archive failed in the store");
    }
    wire
}

/// How many tasks there are, and whose turn it is.
pub(super) struct Slots {
    tasks: Mutex<HashMap<Option<UserId>, usize>>,
    working: Arc<Semaphore>,
    lanes: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
}

impl Default for Slots {
    fn default() -> Self {
        let working = Arc::new(Semaphore::new(WORKING_MAX));
        Self { tasks: Mutex::default(), working, lanes: Mutex::default() }
    }
}

/// The right to work; dropping it lets the next one have it.
pub(super) struct Turn {
    _lane: OwnedMutexGuard<()>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// A place among the tasks; dropping it frees it.
pub(super) struct Place {
    slots: Arc<Slots>,
    by: Option<UserId>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.slots.tasks.lock().entry(self.by.take()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Slots {
    /// Takes one more task, if there may be one. Nobody keeps others out for long, and users never the
    /// server, which does one thing after the other.
    pub(super) fn admit(self: &Arc<Self>, by: Option<&UserId>) -> Option<Place> {
        let by = by.cloned();
        let mut tasks = self.tasks.lock();
        if by.is_some() {
            let own = tasks.get(&by).copied().unwrap_or_default();
            let of_users: usize =
                tasks.iter().filter(|(by, _)| by.is_some()).map(|(_, count)| count).sum();
            if own >= TASKS_OF_USER_MAX || of_users >= TASKS_MAX {
                return None;
            }
        }
        *tasks.entry(by.clone()).or_default() += 1;
        drop(tasks);
        Some(Place { slots: Arc::clone(self), by })
    }

    pub(super) fn count(&self) -> usize {
        self.tasks.lock().values().sum()
    }

    pub(super) fn working(&self) -> usize {
        WORKING_MAX - self.working.available_permits()
    }

    /// Waits until nothing else runs in the lane and few enough run at all.
    pub(super) async fn turn(&self, lane: &str) -> Turn {
        let lane = self.lane(lane).lock_owned().await;
        // Fails only when it is closed, which it never is.
        let permit = Arc::clone(&self.working).acquire_owned().await.ok();
        Turn { _lane: lane, _permit: permit }
    }

    fn lane(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut lanes = self.lanes.lock();
        if let Some(lane) = lanes.get(name).and_then(Weak::upgrade) {
            return lane;
        }
        lanes.retain(|_, lane| lane.strong_count() > 0);
        let lane = Arc::default();
        lanes.insert(name.to_owned(), Arc::downgrade(&lane));
        lane
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_has_one_task_at_a_time_and_the_server_two() {
        let slots = Arc::<Slots>::default();
        let first = slots.turn("a").await;
        let second = slots.turn("b").await;
        assert_eq!(slots.working(), 2);
        let mut same = Box::pin(slots.turn("a"));
        let mut third = Box::pin(slots.turn("c"));
        assert!(futures_util::poll!(&mut same).is_pending());
        assert!(futures_util::poll!(&mut third).is_pending());
        drop(second);
        let third = third.await;
        assert!(futures_util::poll!(&mut same).is_pending());
        drop(third);
        assert!(futures_util::poll!(&mut same).is_pending(), "the lane is taken");
        drop(first);
        same.await;
    }

    #[test]
    fn there_is_a_bound_on_tasks_and_a_place_is_freed() {
        let slots = Arc::<Slots>::default();
        let user = |n: usize| UserId::from_bits((n / TASKS_OF_USER_MAX) as u128);
        let taken = (0..TASKS_MAX).map(|n| slots.admit(Some(&user(n))).unwrap());
        let mut places: Vec<Place> = taken.collect();
        assert!(slots.admit(Some(&user(TASKS_MAX))).is_none());
        assert!(slots.admit(None).is_some(), "the server itself is kept out");
        places.pop();
        assert!(slots.admit(Some(&user(0))).is_none(), "a user has all that one may have");
        let again = slots.admit(Some(&user(TASKS_MAX)));
        assert_eq!((again.is_some(), slots.count()), (true, TASKS_MAX));
        drop((again, places));
        assert_eq!(slots.count(), 0);
    }
}
