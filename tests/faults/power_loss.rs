//! The power fails: everything that the databases wrote and synced is recorded with `strace`, and played
//! up to each sync. What was written and not synced by then may be there, in part or not at all; what was
//! acknowledged by then has to be there.
//!
//! The shared memory of a write-ahead log (`-shm`) is not played: it does not outlive the machine.

mod disk;
mod load;
mod trace;

use std::path::Path;
use std::process::Command;

use fastrand::Rng;
use tempfile::TempDir;

use disk::{Disk, Image};
use load::Promise;

/// Syncs that have to be in the recording.
const SYNCS_MIN: usize = 200;
/// Any other one has to do as well: `IRIS_POWER_LOSS_SEED` chooses it.
const SEED: u64 = 20_260_921;

/// What a loss of power at every sync did.
struct Losses {
    syncs: usize,
    promises: usize,
    /// Promises that were broken, by the number of the sync.
    broken: Vec<String>,
}

/// Runs the load under `strace` and gives the recording; none where there is no `strace`.
fn record(dir: &Path, environment: &[(&str, &str)]) -> Option<String> {
    if Command::new("strace").arg("--version").output().is_err() {
        eprintln!("SKIPPED: `strace` is not installed, so the loss of power is not tested here");
        return None;
    }
    let recording = dir.join("recording");
    let watched = dir.join("watched");
    std::fs::create_dir(&watched).unwrap();
    let recorded = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "8388608", "-o"])
        .arg(&recording)
        .arg(format!("-e trace={}", trace::CALLS.join(",")).replace(' ', ""))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "power_loss::load::that_is_watched", "--ignored", "--test-threads=1"])
        .env(load::DIRECTORY, &watched)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(recorded.status.success(), "{}", String::from_utf8_lossy(&recorded.stderr));
    Some(std::fs::read_to_string(&recording).unwrap())
}

/// Plays a recording up to each sync, and looks at what a machine would find that lost its power then.
fn lose_power_at_every_sync(dir: &Path, recording: &str, mut random: Rng) -> Losses {
    let watched = dir.join("watched");
    let mut disk = Disk::new(&watched);
    let mut promises: Vec<Promise> = Vec::new();
    let mut losses = Losses { syncs: 0, promises: 0, broken: Vec::new() };
    for call in trace::calls(recording) {
        if let Some(text) = disk.acknowledged(&call) {
            promises.extend(text.lines().map(|line| Promise::parse(line).unwrap()));
        }
        if disk.syncs(&call) {
            losses.syncs += 1;
            let images = [disk.after_loss_of_all(), disk.after_loss_of_some(&mut random)];
            for image in images {
                let broken = broken_promises(&image, &promises);
                let at = losses.syncs;
                losses.broken.extend(broken.into_iter().map(|what| format!("sync {at}: {what}")));
            }
        }
        disk.play(call);
    }
    losses.promises = promises.len();
    losses
}

fn broken_promises(image: &Image, promises: &[Promise]) -> Vec<String> {
    // Memory, where there is some: what is opened here need not survive.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
    image.write(dir.path());
    load::broken(dir.path(), promises)
}

fn losses(environment: &[(&str, &str)]) -> Option<Losses> {
    let dir = TempDir::new().unwrap();
    let recording = record(dir.path(), environment)?;
    let seed = std::env::var("IRIS_POWER_LOSS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(SEED);
    let losses = lose_power_at_every_sync(dir.path(), &recording, Rng::with_seed(seed));
    eprintln!("seed {seed}: {} syncs, {} promises", losses.syncs, losses.promises);
    Some(losses)
}

#[test]
fn what_was_acknowledged_survives_a_loss_of_power_at_every_sync() {
    let Some(losses) = losses(&[]) else { return };
    assert!(losses.broken.is_empty(), "{:#?}", losses.broken);
    assert!(losses.syncs >= SYNCS_MIN, "only {} syncs", losses.syncs);
    assert!(losses.promises >= SYNCS_MIN, "only {} promises", losses.promises);
}

/// The negative control: without syncs, rows are lost that were acknowledged.
#[test]
fn a_writer_that_does_not_sync_is_found_out() {
    let Some(losses) = losses(&[("IRIS_FAULT_NO_SYNC", "1")]) else { return };
    let lost = losses.broken.iter().filter(|broken| broken.contains("is lost")).count();
    assert!(lost > 0, "{} syncs, {} promises", losses.syncs, losses.promises);
}
