//! Who may change a file now: locks, and versions that the caller knows.

use std::time::Duration;

use iris_protocol::limits::FILE_LOCK_WAIT_MS;
use iris_protocol::{ApiError, ErrorCode, FileLock, LockScope, UserId};
use iris_store::StoreError;
use iris_store::project::{KnownFile, locked_for_others};
use serde::{Deserialize, Serialize};

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
    Err(conflict(path, known, message))
}

fn conflict(path: &str, known: Option<KnownFile>, message: String) -> ApiError {
    let (version, hash) = known.map(|known| (known.version, known.hash)).unwrap_or_default();
    let error = ApiError::new(ErrorCode::VersionConflict, message).reason("version_conflict");
    error.detail("path", path).detail("currentVersion", version).detail("currentHash", hash)
}

/// What has to be there before a file is written, by what it holds (RFC 9110, section 13.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Before {
    /// Whatever it is.
    #[default]
    Any,
    /// No file.
    Nothing,
    /// Some file.
    Something,
    /// A file with one of these hashes.
    OneOf(Vec<String>),
    /// No file with one of these hashes.
    NoneOf(Vec<String>),
}

/// Refuses to change what is not there as the caller knows it.
pub(super) async fn check_before(
    place: Place<'_>,
    path: &str,
    before: &Before,
) -> Result<(), ApiError> {
    if *before == Before::Any {
        return Ok(());
    }
    let known = place.project.reader.known_file(path.to_owned()).await.map_err(stored)?;
    let hash = known.as_ref().map(|known| &known.hash);
    let is_met = match before {
        Before::Any => true,
        Before::Nothing => hash.is_none(),
        Before::Something => hash.is_some(),
        Before::OneOf(hashes) => hash.is_some_and(|hash| hashes.contains(hash)),
        Before::NoneOf(hashes) => hash.is_none_or(|hash| !hashes.contains(hash)),
    };
    if is_met {
        return Ok(());
    }
    Err(conflict(path, known, "the file is not what the request names: read it again".to_owned()))
}
