//! Archives that are made while others write.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use iris_backup::{Bounds, Identity, adopt, replace, unpack, verify};
use iris_store::maintenance::digests;
use iris_store::{ProjectDatabase, WriteContext};
use rusqlite::Connection;

use crate::fixture::{Fixture, bob, member_removed, project_id};

/// Tells the other threads to stop, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Writes events until it is told to stop; `acknowledged` is the number of the last.
fn write_on(database: &ProjectDatabase, stop: &AtomicBool, acknowledged: &AtomicU64) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    while !stop.load(Ordering::Acquire) {
        let receipt = database.writer().submit(member_removed(bob()), WriteContext::default());
        let seq = runtime.block_on(receipt).unwrap().seq.unwrap();
        acknowledged.store(seq, Ordering::Release);
    }
}

#[test]
fn what_was_acknowledged_before_is_in_it_and_the_log_has_no_gap() {
    let fixture = Fixture::new();
    let database = ProjectDatabase::open(&fixture.database(), &project_id(), |_| {}).unwrap();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        let writing = scope.spawn(|| write_on(&database, &stop, &acknowledged));
        for n in 0..5 {
            let target = acknowledged.load(Ordering::Acquire) + 20;
            while acknowledged.load(Ordering::Acquire) < target {
                assert!(!writing.is_finished());
                thread::yield_now();
            }
            let before = acknowledged.load(Ordering::Acquire);
            let name = format!("{n}.tar.zst");
            let info = fixture.archive(&name).unwrap();
            let after = database.head().unwrap();
            assert!((before..=after).contains(&info.manifest.seq), "{before} {after} {info:?}");

            let out = fixture.path(&format!("out-{n}"));
            let unpacked = unpack(&fixture.archived(&name), &out, Bounds::default()).unwrap();
            let conn = Connection::open(&unpacked.database).unwrap();
            let sql = "SELECT count(*), min(seq), max(seq) FROM events";
            let row = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
            assert_eq!(row.unwrap(), (info.manifest.seq, 1, info.manifest.seq));
        }
    });
    // The writer went on meanwhile, on the same database.
    let head = database.head().unwrap();
    database.close();
    let info = fixture.archive("last.tar.zst").unwrap();
    assert_eq!(info.manifest.seq, head);
    let out = fixture.path("last");
    let last = unpack(&fixture.archived("last.tar.zst"), &out, Bounds::default()).unwrap();
    assert_eq!(digests(&last.database, None).unwrap(), fixture.rows());
}

/// Makes a file longer and shorter, and another come and go, until it is told to stop.
fn change_on(files: &Path, stop: &AtomicBool) {
    let mut n = 0_usize;
    while !stop.load(Ordering::Acquire) {
        n += 1;
        // Beyond what is read at once, and below.
        let size = if n.is_multiple_of(2) { 9 << 20 } else { n % 5_000 };
        fs::write(files.join("living"), vec![7; size]).unwrap();
        fs::create_dir_all(files.join("coming")).unwrap();
        fs::write(files.join("coming/and-going"), vec![7; n % 100]).unwrap();
        fs::remove_dir_all(files.join("coming")).unwrap();
    }
}

#[test]
fn files_that_grow_shrink_and_vanish_meanwhile_make_no_wrong_hash() {
    let fixture = Fixture::new();
    let (stop, files) = (AtomicBool::new(false), fixture.files());
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| change_on(&files, &stop));
        for n in 0..10 {
            let name = format!("{n}.tar.zst");
            let info = fixture.archive(&name).unwrap();
            assert_eq!(verify(&fixture.archived(&name)).unwrap(), info);
        }
    });
}

/// The file of an archive that is being made, from the moment on in which the database was copied.
fn body_of(archives: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(archives).unwrap();
    entries.map(|entry| entry.unwrap().path().join("body")).find(|body| body.exists())
}

#[test]
fn a_project_that_is_put_back_meanwhile_is_archived_in_one_state() {
    let fixture = Fixture::new();
    fixture.put("z-state", b"before");
    fixture.archive("before.tar.zst").unwrap();
    fixture.put("z-state", b"after");
    // What is read before it, and takes a while.
    for n in 0..2_000 {
        fixture.put(&format!("more/{n}"), b"more");
    }
    let archive = fixture.archived("before.tar.zst");
    let unpacked = unpack(&archive, &fixture.path("out"), Bounds::default()).unwrap();
    let (id, users) = (project_id(), BTreeMap::new());
    adopt(&unpacked, &Identity { id, epoch: "new".to_owned(), users, importer: None }).unwrap();

    let info = thread::scope(|scope| {
        let archiving = scope.spawn(|| fixture.archive("during.tar.zst").unwrap());
        while body_of(&fixture.path("archives")).is_none() {
            assert!(!archiving.is_finished());
            thread::yield_now();
        }
        replace(&unpacked, &fixture.path("project"), &fixture.files()).unwrap();
        archiving.join().unwrap()
    });
    let out = fixture.path("during");
    let archived = unpack(&fixture.archived("during.tar.zst"), &out, Bounds::default()).unwrap();
    let state = fs::read(archived.files.join("z-state")).unwrap();
    let expected = if info.manifest.epoch == "new" { &b"before"[..] } else { b"after" };
    assert_eq!(state, expected);
    assert_eq!(archived.files.join("more").exists(), info.manifest.epoch != "new");
}
