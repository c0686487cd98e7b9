//! Disk space while a command runs: what it leaves to others, and what its own directories hold.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::request::{Request, Shortage, Space};

/// How often the disks are looked at: as little as this a fast one takes before anybody notices.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A command that ends before that is not measured.
const MEASURED_AFTER: Duration = Duration::from_secs(1);
/// As many times as a measurement took lie between it and the next one, so that it is a small part of what
/// the command costs.
const REST: u32 = 20;
/// What the system counts blocks in (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// Resolves when a command has to end for want of space.
pub(super) async fn used_up(space: Space, places: [PathBuf; 2]) -> Shortage {
    let disk = disk_is_short(space.free_bytes_min, &places);
    let directories = directories_are_full(space.bytes_max, &places);
    tokio::select! {
        () = disk => Shortage::Disk,
        () = directories => Shortage::Directories,
    }
}

/// Where a command may write, in a request.
pub(super) fn places(request: &Request) -> [PathBuf; 2] {
    [request.project.clone(), request.scratch.clone()]
}

async fn disk_is_short(free_bytes_min: u64, places: &[PathBuf]) {
    if free_bytes_min == 0 {
        return std::future::pending().await;
    }
    // Nothing is written back for the answer: it is in memory for every local file system.
    while places.iter().all(|place| free_bytes(place).is_none_or(|free| free >= free_bytes_min)) {
        sleep(LOOK_EVERY).await;
    }
}

fn free_bytes(place: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(place).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// One whose directories hold too much already may go on as long as it makes nothing more of it: it may be the
/// one that clears them up.
async fn directories_are_full(bytes_max: u64, places: &[PathBuf]) {
    if bytes_max == 0 {
        return std::future::pending().await;
    }
    let (mut most, mut rest) = (None, MEASURED_AFTER);
    loop {
        sleep(rest).await;
        let (begun, places) = (Instant::now(), places.to_owned());
        // Without the thread nothing is known.
        let held = spawn_blocking(move || held_bytes(places)).await.unwrap_or_default();
        if held > *most.get_or_insert(bytes_max.max(held)) {
            return;
        }
        rest = MEASURED_AFTER.max(begun.elapsed() * REST);
    }
}

/// What the files below some directories take. No link is followed; what goes away meanwhile does not count.
fn held_bytes(mut directories: Vec<PathBuf>) -> u64 {
    let mut held: u64 = 0;
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.is_dir() {
                directories.push(entry.path());
            }
            held = held.saturating_add(found.blocks().saturating_mul(BLOCK_BYTES));
        }
    }
    held
}
