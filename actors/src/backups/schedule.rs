//! Which backups are due, and which have had their time.
//!
//! Nothing here is kept in memory but what operators are shown: what is due follows from the backups
//! that there are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use iris_backup::BackupError;
use iris_protocol::{ApiError, BackupKind, ErrorCode, ProjectId};
use iris_store::maintenance;
use iris_store::root::{BackupState, DeleteBackup, StoredBackup};
use iris_store::{StoreError, WriteContext};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::desk::{Desk, on_disk, stored};
use super::files::{self, NewFile, archive_path, backups_dir, make_dir};
use super::writing::{WriteBackup, failed};
use super::{Backups, perform};
use crate::record;
use crate::supervision::WeakAddress;

/// Looks per interval.
const LOOKS: u32 = 8;
/// The longest time between two looks.
const LOOK_EVERY_MAX: Duration = Duration::from_mins(15);
/// The shortest one.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(5);
/// Failures that operators are shown.
const FAILURES_SHOWN: usize = 8;

/// What became of the rounds so far, for operators.
#[derive(Clone, Default)]
pub(super) struct Rounds(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    rounds: u64,
    backups: u64,
    failures: u64,
    /// The last ones, oldest first.
    last_failures: Vec<String>,
    last_round_at: Option<i64>,
}

impl Rounds {
    pub(super) fn observe(&self) -> Value {
        let seen = self.0.lock();
        json!({
            "rounds": seen.rounds,
            "backups": seen.backups,
            "failures": seen.failures,
            "lastFailures": seen.last_failures,
            "lastRoundAt": seen.last_round_at,
        })
    }

    fn failed(&self, what: &str, error: &ApiError) {
        tracing::error!(what, code = error.code.as_str(), error = error.message, "no backup");
        let mut seen = self.0.lock();
        seen.failures += 1;
        if seen.last_failures.len() >= FAILURES_SHOWN {
            seen.last_failures.remove(0);
        }
        seen.last_failures.push(format!("{what}: {}", error.code.as_str()));
    }
}

/// Makes the backups that are due and removes those that had their time, for as long as the actor lives.
pub(super) async fn keep_up(desk: Desk, backups: WeakAddress<Backups>, rounds: Rounds) {
    let interval = desk.services.settings.backups.interval;
    let pause = interval.map_or(LOOK_EVERY_MAX, |interval| interval / LOOKS);
    let pause = pause.clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
    loop {
        if desk.services.is_draining() {
            return;
        }
        expire(&desk).await;
        // What space there is belongs to the projects.
        if let Some(interval) = interval
            && !desk.services.storage.is_full()
        {
            round(&desk, &backups, &rounds, interval).await;
        }
        sleep(pause).await;
    }
}

/// Backs up what changed, one project after the other.
async fn round(desk: &Desk, backups: &WeakAddress<Backups>, rounds: &Rounds, interval: Duration) {
    let states = match desk.root_reader.backup_states().await {
        Ok(states) => states,
        Err(error) => return rounds.failed("root", &stored(&error)),
    };
    let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
    let due_before = desk.now_ms().saturating_sub(interval_ms);
    for state in states {
        if desk.services.is_draining() {
            return;
        }
        if state.last.as_ref().is_some_and(|last| last.at > due_before) {
            continue;
        }
        match back_up_if_changed(desk, backups, &state).await {
            Ok(false) => {}
            Ok(true) => {
                rounds.0.lock().backups += 1;
                retain(desk, &state.project_id).await;
            }
            // It was deleted meanwhile.
            Err(_) if is_deleted(desk, &state.project_id).await => {}
            Err(error) => {
                rounds.failed(state.project_id.as_str(), &error);
                if error.code == ErrorCode::StorageFull {
                    // The others would fail too, and what space there is belongs to the projects.
                    return;
                }
            }
        }
    }
    if let Err(error) = back_up_root(desk, due_before).await {
        rounds.failed("root", &error);
    }
    let mut seen = rounds.0.lock();
    seen.rounds += 1;
    seen.last_round_at = Some(desk.now_ms());
}

async fn back_up_if_changed(
    desk: &Desk,
    backups: &WeakAddress<Backups>,
    state: &BackupState,
) -> Result<bool, ApiError> {
    let database = desk.places(&state.project_id).database;
    let facts = move || maintenance::project_facts(&database).map_err(BackupError::Database);
    let facts = on_disk(facts).await?;
    let is_known =
        state.last.as_ref().is_some_and(|last| last.epoch == facts.epoch && last.seq == facts.seq);
    let Some(backups) = backups.upgrade().filter(|_| !is_known) else { return Ok(false) };
    let task = WriteBackup {
        project_id: state.project_id.clone(),
        kind: BackupKind::Scheduled,
        by: None,
        context: WriteContext::default(),
    };
    perform(&backups, task).await.map(|_| true)
}

/// Whether there is surely no such project any more.
async fn is_deleted(desk: &Desk, project_id: &ProjectId) -> bool {
    desk.root_reader.project_location(project_id).await.is_ok_and(|found| found.is_none())
}

/// Removes of the backups that the server made by itself all but the newest ones.
pub(super) async fn retain(desk: &Desk, project_id: &ProjectId) {
    let all = match desk.root_reader.backups(project_id).await {
        Ok(all) => all,
        Err(error) => return drop(stored(&error)),
    };
    let own = all.into_iter().filter(|stored| match stored.backup.kind {
        BackupKind::Scheduled | BackupKind::Safety => true,
        BackupKind::Manual | BackupKind::Export => false,
    });
    for surplus in own.skip(desk.services.settings.backups.kept) {
        discard(desk, surplus).await;
    }
}

async fn expire(desk: &Desk) {
    match desk.root_reader.expired_backups(desk.now_ms()).await {
        Ok(expired) => {
            for stored in expired {
                discard(desk, stored).await;
            }
        }
        Err(error) => drop(stored(&error)),
    }
}

/// Removes a backup, its archive first: a crash in between leaves a row, which the next start removes.
async fn discard(desk: &Desk, StoredBackup { backup, file }: StoredBackup) {
    let archive = archive_path(desk.data_dir(), &backup.project_id, &file);
    let remove = move || files::remove(&archive).map_err(failed(&archive));
    if on_disk(remove).await.is_err() {
        return;
    }
    let forget = DeleteBackup { project_id: backup.project_id, id: backup.id };
    match record(&desk.root, forget, WriteContext::default()).await {
        Ok(_) | Err(StoreError::NotFound { .. }) => {}
        Err(error) => drop(stored(&error)),
    }
}

/// Copies the root database, unless there is a copy that is young enough.
async fn back_up_root(desk: &Desk, due_before: i64) -> Result<(), ApiError> {
    let (from, directory) =
        (desk.data_dir().join("root.db"), backups_dir(desk.data_dir()).join("root"));
    let (at, kept) = (desk.now_ms(), desk.services.settings.backups.kept);
    let copy = move || {
        make_dir(&directory).map_err(failed(&directory))?;
        let mut copies = root_copies(&directory);
        if copies.last().is_some_and(|(newest, _)| *newest > due_before) {
            return Ok(());
        }
        let path = directory.join(format!("{}-{at}.db", files::stamp(at)));
        let new = NewFile::new(files::unrecorded(&path));
        maintenance::snapshot_root(&from, new.path()).map_err(BackupError::Database)?;
        maintenance::check_root(new.path()).map_err(BackupError::Database)?;
        files::make_private(new.path()).map_err(failed(&path))?;
        files::rename(&new.keep(), &path).map_err(failed(&path))?;
        copies.push((at, path));
        let surplus = copies.len().saturating_sub(kept);
        for (_, old) in copies.into_iter().take(surplus) {
            files::remove(&old).map_err(failed(&old))?;
        }
        Ok(())
    };
    on_disk(copy).await
}

/// The copies of the root database and when they were made, oldest first.
fn root_copies(directory: &Path) -> Vec<(i64, PathBuf)> {
    let mut copies: Vec<(i64, PathBuf)> = files::names(directory)
        .into_iter()
        .filter_map(|(name, path)| {
            let (_, at) = name.strip_suffix(".db")?.rsplit_once('-')?;
            let at = at.parse().ok()?;
            Some((at, path))
        })
        .collect();
    copies.sort();
    copies
}
