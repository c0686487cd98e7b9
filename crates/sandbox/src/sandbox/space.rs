//! Disk space while a command runs: what it leaves to others, and what its own directories hold.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
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
/// As many files and directories are counted, and kept in mind.
const ENTRIES_MAX: u32 = 1_000_000;
/// A directory, and no link to one.
const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// What the system counts blocks in (stat(2)).
const BLOCK_BYTES: u64 = 512;

/// The projects whose directories are being measured: each once at a time, whatever runs in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured(Arc<Mutex<HashSet<PathBuf>>>);

/// A measurement that goes on until this is dropped.
struct Turn {
    measured: Measured,
    project: PathBuf,
}

impl Measured {
    /// None while another command has the project measured.
    fn begin(&self, project: &Path) -> Option<Turn> {
        let is_new = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(project.into());
        is_new.then(|| Turn { measured: self.clone(), project: project.into() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.measured.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.project);
    }
}

/// Resolves when a command has to end for want of space.
pub(super) async fn used_up(space: Space, places: [PathBuf; 2], measured: Measured) -> Shortage {
    let disk = disk_is_short(space.free_bytes_min, &places);
    let directories = directories_are_full(space.bytes_max, &places, &measured);
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
async fn directories_are_full(bytes_max: u64, places: &[PathBuf; 2], measured: &Measured) {
    if bytes_max == 0 {
        return std::future::pending().await;
    }
    // Gone with this future, which ends a measurement that nobody waits for any more.
    let command = Arc::new(());
    let (mut most, mut rest) = (None, MEASURED_AFTER);
    loop {
        sleep(rest).await;
        rest = MEASURED_AFTER;
        let [project, _] = places;
        let Some(turn) = measured.begin(project) else { continue };
        let (begun, places, command) = (Instant::now(), places.clone(), Arc::downgrade(&command));
        let held = spawn_blocking(move || {
            let _turn = turn;
            held_bytes(&places, ENTRIES_MAX, &command)
        });
        // Without the thread nothing is known.
        let held = held.await.unwrap_or_default();
        if held > *most.get_or_insert(bytes_max.max(held)) {
            return;
        }
        rest = rest.max(begun.elapsed() * REST);
    }
}

/// What the files below some directories take, each once, whatever names it has. No link is followed; what goes
/// away meanwhile, or cannot be looked into, does not count. More entries than these hold more than any bound.
fn held_bytes(places: &[PathBuf], entries_max: u32, command: &Weak<()>) -> u64 {
    let mut held = Held { bytes: 0, linked: HashSet::new(), entries_left: entries_max, command };
    for place in places {
        let directory = openat(CWD, place, DIRECTORY, Mode::empty());
        if let Ok(directory) = directory.and_then(Dir::new)
            && held.add(directory, DEPTH_MAX).is_none()
        {
            return u64::MAX;
        }
    }
    held.bytes
}

struct Held<'a> {
    bytes: u64,
    /// Files that have another name.
    linked: HashSet<(u64, u64)>,
    entries_left: u32,
    command: &'a Weak<()>,
}

impl Held<'_> {
    /// Adds what is in a directory; none when there is too much, or nobody waits for it any more.
    fn add(&mut self, mut directory: Dir, depth_left: usize) -> Option<()> {
        while let Some(entry) = directory.read() {
            let (Ok(entry), Ok(place)) = (entry, directory.fd()) else { continue };
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if self.command.strong_count() == 0 {
                return None;
            }
            self.entries_left = self.entries_left.checked_sub(1)?;
            let Ok(found) = statat(place, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let is_directory = FileType::from_raw_mode(found.st_mode).is_dir();
            let file = (found.st_dev, found.st_ino);
            if !is_directory && found.st_nlink > 1 && !self.linked.insert(file) {
                continue;
            }
            let blocks = u64::try_from(found.st_blocks).unwrap_or_default();
            self.bytes = self.bytes.saturating_add(blocks.saturating_mul(BLOCK_BYTES));
            if is_directory
                && depth_left > 0
                && let Ok(below) = openat(place, name, DIRECTORY, Mode::empty()).and_then(Dir::new)
            {
                self.add(below, depth_left - 1)?;
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_measured_by_one_command_at_a_time() {
        let measured = Measured::default();
        let turn = measured.begin(Path::new("/a"));
        assert!(turn.is_some() && measured.begin(Path::new("/a")).is_none());
        assert!(measured.begin(Path::new("/b")).is_some());
        drop(turn);
        assert!(measured.begin(Path::new("/a")).is_some());
    }

    #[test]
    fn what_has_more_entries_than_are_counted_holds_more_than_any_bound() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a/b", "c"] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        std::fs::write(directory.path().join("c/file"), vec![1; 100_000]).unwrap();
        let (places, command) = ([directory.path().to_owned()], Arc::new(()));
        let held = |entries_max| held_bytes(&places, entries_max, &Arc::downgrade(&command));
        assert!((100_000..200_000).contains(&held(4)), "{}", held(4));
        assert_eq!(held(3), u64::MAX);
    }

    #[test]
    fn a_measurement_ends_with_its_command() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "x").unwrap();
        let (places, command) = ([directory.path().to_owned()], Weak::new());
        assert_eq!(held_bytes(&places, 10, &command), u64::MAX);
    }
}
