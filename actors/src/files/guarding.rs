//! Who may change a file now: locks, and versions that the caller knows.

use std::time::Duration;

use iris_protocol::limits::FILE_LOCK_WAIT_MS;
use iris_protocol::{ApiError, ErrorCode, FileLock, LockScope, UserId};
use iris_store::StoreError;
use iris_store::project::locked_for_others;

use super::{Place, stored};

/// What is about to be changed.
pub(super) type Targets<'a> = &'a [(String, LockScope)];

/// The lock of somebody else on one of these.
pub(super) async fn lock_of_other(
    place: Place<'_>,
    targets: Targets<'_>,
    user: &UserId,
) -> Result<Option<FileLock>, ApiError> {
    let locks = place.project.reader.file_locks().await.map_err(stored)?;
    let now = place.now();
    let met =
        targets.iter().find_map(|(path, scope)| locked_for_others(&locks, path, *scope, user, now));
    Ok(met.cloned())
}

/// Refuses what somebody else has locked.
pub(super) async fn check_locks(
    place: Place<'_>,
    targets: Targets<'_>,
    user: &UserId,
) -> Result<(), ApiError> {
    match lock_of_other(place, targets, user).await? {
        Some(lock) => Err(lock_error(lock)),
        None => Ok(()),
    }
}

/// What somebody is told who meets the lock of another.
fn lock_error(lock: FileLock) -> ApiError {
    StoreError::Locked { lock: Box::new(lock) }.to_api()
}

/// Waits a while until nobody else has a lock on these any more; answers the lock that is there still.
pub(super) async fn wait_for_locks(
    place: Place<'_>,
    targets: Targets<'_>,
    user: &UserId,
) -> Result<Option<FileLock>, ApiError> {
    let wait =
        Duration::from_millis(FILE_LOCK_WAIT_MS).min(place.services.settings.files.lock_wait);
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        // Before the look: a lock that ends right after it is not missed.
        let unlocked = place.project.kept.files.unlocked.notified();
        tokio::pin!(unlocked);
        unlocked.as_mut().enable();
        let Some(lock) = lock_of_other(place, targets, user).await? else { return Ok(None) };
        let left = u64::try_from(lock.expires_at.saturating_sub(place.now())).unwrap_or_default();
        let ends = tokio::time::Instant::now() + Duration::from_millis(left.max(1));
        tokio::select! {
            () = unlocked => {}
            () = tokio::time::sleep_until(ends) => {}
            () = tokio::time::sleep_until(deadline) => return Ok(Some(lock)),
        }
    }
}

/// Refuses to change what is not in the version that the caller knows; 0 is no file.
pub(super) async fn check_version(
    place: Place<'_>,
    path: &str,
    expected: Option<u64>,
) -> Result<(), ApiError> {
    let Some(expected) = expected else { return Ok(()) };
    let known = place.project.reader.known_file(path.to_owned()).await.map_err(stored)?;
    let current = known.as_ref().map_or(0, |known| known.version);
    if current == expected {
        return Ok(());
    }
    let message = format!("the file is in version {current}, not {expected}: read it again");
    let hash = known.map(|known| known.hash).unwrap_or_default();
    let error = ApiError::new(ErrorCode::VersionConflict, message).reason("version_conflict");
    Err(error.detail("path", path).detail("currentVersion", current).detail("currentHash", hash))
}
