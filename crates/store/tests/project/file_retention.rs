//! What is kept of the history of files: by count, by age, by bytes; never less than what is there now, nor
//! than what a snapshot holds.

use iris_protocol::SnapshotId;
use iris_store::project::*;

use crate::fixture::*;

/// Writes a version of `a` that holds `size` bytes of its own.
async fn write(fixture: &Fixture, n: u8, size: usize, versions_max: u64, at: i64) {
    let wrote = wrote("a", &vec![n; size], &ann());
    fixture.write(RecordFiles { versions_max, at, ..wrote }).await.unwrap();
}

async fn snapshot(fixture: &Fixture, n: u128, at: i64) {
    let id = SnapshotId::from_bits(n);
    let (session_id, run_id, message_id, by) = (None, None, None, Some(ann()));
    let command = CreateSnapshot { id, session_id, run_id, message_id, by, complete: true, at };
    fixture.write(command).await.unwrap();
}

/// The versions of `a` that are there, oldest first; each can be read.
async fn kept(fixture: &Fixture) -> Vec<u64> {
    let page = fixture.reader().file_versions("a".to_owned(), 200, None).await.unwrap();
    for version in &page.versions {
        let content = fixture.reader().file_content("a".to_owned(), version.version).await.unwrap();
        assert_eq!(content.unwrap().len() as u64, version.size);
    }
    page.versions.into_iter().rev().map(|version| version.version).collect()
}

async fn trim(fixture: &Fixture, kept: FileRetention, at: i64) {
    while fixture.write(TrimVersions { kept, at }).await.unwrap().more {}
}

/// Keeps everything.
fn all() -> FileRetention {
    FileRetention { versions_max: 200, age_ms: None, bytes_max: 0, snapshots_max: 500 }
}

#[tokio::test]
async fn a_path_keeps_so_many_versions_and_those_of_snapshots() {
    let fixture = Fixture::new();
    for n in 1..=4 {
        write(&fixture, n, 10, 3, NOW).await;
    }
    assert_eq!(kept(&fixture).await, [2, 3, 4]);
    snapshot(&fixture, 1, NOW).await;
    for n in 5..=9 {
        write(&fixture, n, 10, 3, NOW).await;
    }
    assert_eq!(kept(&fixture).await, [4, 7, 8, 9]);
    write(&fixture, 10, 10, 1, NOW).await;
    assert_eq!(kept(&fixture).await, [4, 10]);
}

#[tokio::test]
async fn what_is_old_goes_but_not_what_is_there_or_in_a_snapshot() {
    let fixture = Fixture::new();
    for n in 1..=3 {
        write(&fixture, n, 10, 200, NOW + i64::from(n)).await;
        if n == 2 {
            snapshot(&fixture, 1, NOW + 50).await;
        }
    }
    let by_age = FileRetention { age_ms: Some(10), ..all() };
    trim(&fixture, by_age, NOW + 11).await;
    assert_eq!(kept(&fixture).await, [1, 2, 3]);
    trim(&fixture, by_age, NOW + 40).await;
    assert_eq!(kept(&fixture).await, [2, 3]);
    // Then the snapshot is old itself.
    trim(&fixture, by_age, NOW + 100).await;
    assert_eq!(kept(&fixture).await, [3]);
}

#[tokio::test]
async fn what_is_too_much_goes_oldest_first_and_snapshots_at_last() {
    let fixture = Fixture::new();
    write(&fixture, 1, 1_000, 200, NOW).await;
    snapshot(&fixture, 1, NOW).await;
    for n in 2..=5 {
        write(&fixture, n, 1_000, 200, NOW).await;
    }
    trim(&fixture, all(), NOW).await;
    assert_eq!(kept(&fixture).await, [1, 2, 3, 4, 5]);
    trim(&fixture, FileRetention { bytes_max: 2_000, ..all() }, NOW).await;
    assert_eq!(kept(&fixture).await, [1, 5]);
    trim(&fixture, FileRetention { bytes_max: 1_000, ..all() }, NOW).await;
    assert_eq!(kept(&fixture).await, [5]);
    assert_eq!(fixture.reader().snapshots(50, None).await.unwrap().snapshots, []);
    // What is there now is kept, however much it is.
    trim(&fixture, FileRetention { bytes_max: 1, ..all() }, NOW).await;
    assert_eq!(kept(&fixture).await, [5]);
}

#[tokio::test]
async fn a_project_keeps_its_newest_snapshots() {
    let fixture = Fixture::new();
    for n in 1..=4 {
        snapshot(&fixture, n, NOW).await;
    }
    trim(&fixture, FileRetention { snapshots_max: 2, ..all() }, NOW).await;
    let page = fixture.reader().snapshots(50, None).await.unwrap();
    let ids: Vec<SnapshotId> = page.snapshots.into_iter().map(|it| it.id).collect();
    assert_eq!(ids, [4, 3].map(SnapshotId::from_bits));
}
