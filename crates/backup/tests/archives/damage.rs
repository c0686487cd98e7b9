//! Damaged archives: whatever is wrong with them is noticed before anything of them is used.

use std::fs;

use iris_backup::{BackupError, Bounds, read_manifest, unpack, verify};

use crate::fixture::{Fixture, names, tree};

/// Bytes that are changed, one after the other, over the whole archive.
const FLIPS: usize = 400;
/// Places at which the archive is cut off.
const CUTS: usize = 100;

#[test]
fn a_flipped_bit_is_noticed_or_changes_nothing() {
    let fixture = Fixture::new();
    let good = fixture.archive("a.tar.zst").unwrap();
    let bytes = fs::read(fixture.archived("a.tar.zst")).unwrap();
    let damaged = fixture.archived("damaged");
    let (mut flips, mut unnoticed) = (0, 0);
    // Every byte of the first hundred, where the heads of everything are, then evenly.
    let step = (bytes.len() / FLIPS).max(1);
    for at in (0..100).chain((100..bytes.len()).step_by(step)) {
        flips += 1;
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&damaged, &bytes).unwrap();
        match verify(&damaged) {
            Ok(info) => {
                // A bit of zstd's that decoders ignore. Every content has the hash of the manifest, and
                // that is the same: so is all that comes out.
                assert_eq!(info.manifest, good.manifest, "byte {at}");
                assert_ne!(info.sha256, good.sha256, "byte {at}");
                unnoticed += 1;
            }
            Err(BackupError::Corrupt { .. }) => {}
            Err(other) => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(unnoticed * 20 < flips, "{unnoticed} of {flips} flips were not noticed");
    assert_eq!(names(&fixture.path("archives")), ["a.tar.zst", "damaged"]);
}

#[test]
fn an_archive_that_is_cut_off_anywhere_is_refused() {
    let fixture = Fixture::new();
    fixture.archive("a.tar.zst").unwrap();
    let bytes = fs::read(fixture.archived("a.tar.zst")).unwrap();
    let damaged = fixture.archived("damaged");
    let step = (bytes.len() / CUTS).max(1);
    for length in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
        fs::write(&damaged, &bytes[..length]).unwrap();
        let refused = verify(&damaged);
        assert!(matches!(refused, Err(BackupError::Corrupt { .. })), "{length}: {refused:?}");
        let out = fixture.path("out");
        let refused = unpack(&damaged, &out, Bounds::default());
        assert!(matches!(refused, Err(BackupError::Corrupt { .. })), "{length}: {refused:?}");
        assert!(!out.exists());
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let fixture = Fixture::new();
    fixture.archive("a.tar.zst").unwrap();
    let mut bytes = fs::read(fixture.archived("a.tar.zst")).unwrap();
    let damaged = fixture.archived("damaged");
    bytes.push(0);
    fs::write(&damaged, &bytes).unwrap();
    assert!(matches!(verify(&damaged), Err(BackupError::Corrupt { .. })));
    // A whole frame of something else.
    bytes.pop();
    bytes.extend(zstd::encode_all(&b"more"[..], 3).unwrap());
    fs::write(&damaged, &bytes).unwrap();
    assert!(matches!(verify(&damaged), Err(BackupError::Corrupt { .. })));
    // And more zeros than any tar ends with.
    let mut bytes = fs::read(fixture.archived("a.tar.zst")).unwrap();
    bytes.extend(zstd::encode_all(&vec![0; 8 << 20][..], 3).unwrap());
    fs::write(&damaged, &bytes).unwrap();
    assert!(matches!(verify(&damaged), Err(BackupError::Corrupt { .. })));
}

#[test]
fn what_is_no_archive_is_refused_and_what_is_not_there_is_not_found() {
    let fixture = Fixture::new();
    for content in [&b""[..], b"hello", &[0; 4096]] {
        fixture.put("no-archive", content);
        let refused = verify(&fixture.files().join("no-archive"));
        assert!(matches!(refused, Err(BackupError::Corrupt { .. })), "{refused:?}");
        let refused = read_manifest(&fixture.files().join("no-archive"));
        assert!(matches!(refused, Err(BackupError::Corrupt { .. })), "{refused:?}");
    }
    assert!(matches!(verify(&fixture.files()), Err(BackupError::Corrupt { .. })));
    assert!(matches!(verify(&fixture.path("nothing")), Err(BackupError::NotFound { .. })));
    assert!(tree(&fixture.path("archives")).is_empty());
}

#[test]
fn a_damaged_database_gets_no_archive() {
    let fixture = Fixture::new();
    let mut bytes = fs::read(fixture.database()).unwrap();
    // The second page, whatever it holds: a tree of SQLite's without a head.
    bytes[4096..8192].fill(0xa5);
    fs::write(fixture.database(), bytes).unwrap();
    let refused = fixture.archive("a.tar.zst");
    assert!(
        matches!(refused, Err(BackupError::Database(_) | BackupError::Corrupt { .. })),
        "{refused:?}"
    );
    assert!(tree(&fixture.path("archives")).is_empty());
}
