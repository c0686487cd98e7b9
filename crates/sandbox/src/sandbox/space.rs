//! Disk space while a command runs: what it leaves to others, and what its own directories hold.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
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
/// As deep directories are measured; each level holds one open while it is.
const DEPTH_MAX: usize = 128;
/// A directory, and no link to one.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
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
        let held = spawn_blocking(move || held_bytes(&places)).await.unwrap_or_default();
        if held > *most.get_or_insert(bytes_max.max(held)) {
            return;
        }
        rest = MEASURED_AFTER.max(begun.elapsed() * REST);
    }
}

/// What the files below some directories take, each once, whatever names it has. No link is followed; what goes
/// away meanwhile, or cannot be looked into, does not count.
fn held_bytes(places: &[PathBuf]) -> u64 {
    let (mut held, mut linked) = (0, HashSet::new());
    for place in places {
        if let Ok(directory) = openat(CWD, place, DIRECTORY, Mode::empty()) {
            held_below(&directory, DEPTH_MAX, &mut held, &mut linked);
        }
    }
    held
}

fn held_below(
    directory: &OwnedFd,
    depth_left: usize,
    held: &mut u64,
    linked: &mut HashSet<(u64, u64)>,
) {
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(found) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let is_directory = FileType::from_raw_mode(found.st_mode).is_dir();
        if !is_directory && found.st_nlink > 1 && !linked.insert((found.st_dev, found.st_ino)) {
            continue;
        }
        let blocks = u64::try_from(found.st_blocks).unwrap_or_default();
        *held = held.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
        if is_directory
            && depth_left > 0
            && let Ok(below) = openat(directory, name, DIRECTORY, Mode::empty())
        {
            held_below(&below, depth_left - 1, held, linked);
        }
    }
}
