//! What goes into an archive comes out of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use iris_backup::{
    BackupError, Bounds, Identity, SkippedReason, adopt, read_manifest, unpack, verify,
};
use iris_protocol::ProjectId;
use iris_store::ProjectDatabase;
use iris_store::maintenance::{Adoption, digests};

use crate::fixture::{Fixture, about, ann, names, project_id, tree};

fn identity(id: ProjectId) -> Identity {
    Identity { id, epoch: "restored".to_owned(), users: BTreeMap::new(), importer: None }
}

#[test]
fn a_project_comes_back_row_by_row_and_byte_by_byte() {
    let fixture = Fixture::new();
    let info = fixture.archive("a.tar.zst").unwrap();
    assert_eq!(verify(&fixture.archived("a.tar.zst")).unwrap(), info);
    assert_eq!(read_manifest(&fixture.archived("a.tar.zst")).unwrap(), info.manifest);
    assert_eq!(info.manifest.about, about());
    assert_eq!((info.manifest.seq, info.manifest.epoch.as_str()), (1, "epoch"));
    assert_eq!(names(&fixture.path("archives")), ["a.tar.zst"]);
    assert_eq!(info.bytes, fs::metadata(fixture.archived("a.tar.zst")).unwrap().len());

    let out = fixture.path("out");
    let unpacked = unpack(&fixture.archived("a.tar.zst"), &out, Bounds::default()).unwrap();
    assert_eq!(unpacked.manifest, info.manifest);
    assert_eq!(digests(&unpacked.database, None).unwrap(), fixture.rows());
    assert_eq!(tree(&unpacked.files), tree(&fixture.files()));

    adopt(&unpacked, &identity(project_id())).unwrap();
    assert_eq!(digests(&unpacked.database, None).unwrap(), fixture.rows());
    let database = ProjectDatabase::open(&unpacked.database, &project_id(), |_| {}).unwrap();
    assert_eq!((database.epoch(), database.head().unwrap()), ("restored", 1));
}

#[test]
fn ten_thousand_messages_and_a_thousand_files_come_back() {
    let fixture = Fixture::empty();
    fixture.talk(10_000);
    for n in 0..1_000_u32 {
        let content = n.to_le_bytes().repeat(usize::try_from(n % 50).unwrap() * 20);
        fixture.put(&format!("{}/{}/{n}.bin", n % 7, n % 11), &content);
    }
    fixture.archive("a.tar.zst").unwrap();
    let out = fixture.path("out");
    let unpacked = unpack(&fixture.archived("a.tar.zst"), &out, Bounds::default()).unwrap();
    let other = ProjectId::from_bits(9);
    adopt(&unpacked, &identity(other.clone())).unwrap();

    let (epoch, users) = ("restored".to_owned(), BTreeMap::new());
    let adoption = Adoption { project_id: other, epoch, users, importer: Some(ann()) };
    let expected = digests(&fixture.database(), Some(&adoption)).unwrap();
    let found = digests(&unpacked.database, None).unwrap();
    assert_eq!(found, expected);
    assert_eq!((found["messages"].rows, found["message_parts"].rows), (10_000, 10_000));
    assert_ne!(found["rooms"], fixture.rows()["rooms"]);
    let files = tree(&unpacked.files);
    assert_eq!(files.values().flatten().count(), 1_000);
    assert_eq!(files, tree(&fixture.files()));
}

#[test]
fn names_of_any_bytes_long_paths_permissions_and_times_come_back() {
    let fixture = Fixture::new();
    let strange = std::ffi::OsString::from_vec(b"caf\xe9 \xff".to_vec());
    fs::write(fixture.files().join(&strange), "bytes").unwrap();
    fixture.put(&format!("{}/{}", "long".repeat(40), "name".repeat(50)), b"far away");
    fixture.put("run.sh", b"#!/bin/sh");
    let script = fixture.files().join("run.sh");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o4750)).unwrap();
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::open(&script).unwrap().set_modified(long_ago).unwrap();
    fixture.archive("a.tar.zst").unwrap();
    let out = fixture.path("out");
    let unpacked = unpack(&fixture.archived("a.tar.zst"), &out, Bounds::default()).unwrap();
    assert_eq!(tree(&unpacked.files), tree(&fixture.files()));
    let script = fs::metadata(unpacked.files.join("run.sh")).unwrap();
    assert_eq!(script.permissions().mode() & 0o7777, 0o750);
    assert_eq!(script.modified().unwrap(), long_ago);
}

#[test]
fn links_pipes_and_unfinished_files_are_not_in_it_and_what_was_left_out_is_named() {
    let fixture = Fixture::new();
    symlink("/etc/passwd", fixture.files().join("link")).unwrap();
    symlink("/etc", fixture.files().join("src/etc")).unwrap();
    let pipe = fixture.files().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fixture.put(".iris-tmp-1", b"half of someth");
    let info = fixture.archive("a.tar.zst").unwrap();

    let skipped = info.manifest.skipped.iter().map(|one| (one.path.as_str(), one.reason));
    assert_eq!(
        skipped.collect::<Vec<_>>(),
        [
            ("files/link", SkippedReason::Link),
            ("files/pipe", SkippedReason::Special),
            ("files/src/etc", SkippedReason::Link),
        ]
    );
    let paths = info.manifest.entries.iter().map(|entry| entry.path.to_string());
    assert_eq!(
        paths.collect::<Vec<_>>(),
        ["project.db", "files/readme.md", "files/src/empty", "files/src/main.rs"]
    );
    let directories = info.manifest.directories.iter().map(|one| one.path.to_string());
    assert_eq!(directories.collect::<Vec<_>>(), ["files/nothing", "files/src"]);
}

#[test]
fn any_tar_reads_it() {
    let fixture = Fixture::new();
    fixture.archive("a.tar.zst").unwrap();
    let file = fs::File::open(fixture.archived("a.tar.zst")).unwrap();
    let out = fixture.path("out");
    tar::Archive::new(zstd::Decoder::new(file).unwrap()).unpack(&out).unwrap();
    assert_eq!(names(&out), ["files", "manifest.json", "project.db"]);
    assert_eq!(fs::read(out.join("files/readme.md")).unwrap(), b"# notes");
}

#[test]
fn deleted_rows_and_kept_answers_are_not_in_it() {
    let fixture = Fixture::new();
    let conn = fixture.conn();
    let sql = "INSERT INTO agents (id, name, prompt, tools, created_at, updated_at)
               VALUES ('agt_1', 'x', 'FORGOTTEN', '[]', 1, 1)";
    conn.execute(sql, []).unwrap();
    conn.execute("DELETE FROM agents", []).unwrap();
    drop(conn);
    let holds = |bytes: &[u8], word: &str| bytes.windows(word.len()).any(|w| w == word.as_bytes());
    let source = fs::read(fixture.database()).unwrap();
    assert!(holds(&source, "FORGOTTEN") && holds(&source, "KEPT-ANSWER"));

    fixture.archive("a.tar.zst").unwrap();
    let out = fixture.path("out");
    let unpacked = unpack(&fixture.archived("a.tar.zst"), &out, Bounds::default()).unwrap();
    let copy = fs::read(unpacked.database).unwrap();
    assert!(!holds(&copy, "FORGOTTEN") && !holds(&copy, "KEPT-ANSWER"));
    assert!(holds(&copy, ann().as_str()));
}

#[test]
fn nothing_is_replaced_and_nothing_is_left_of_a_failure() {
    let fixture = Fixture::new();
    fixture.archive("a.tar.zst").unwrap();
    let again = fixture.archive("a.tar.zst");
    assert!(matches!(again, Err(BackupError::Exists { .. })), "{again:?}");

    let out = fixture.path("out");
    fs::create_dir(&out).unwrap();
    let refused = unpack(&fixture.archived("a.tar.zst"), &out, Bounds::default());
    assert!(matches!(refused, Err(BackupError::Exists { .. })), "{refused:?}");
    assert!(out.is_dir());

    fs::remove_dir_all(fixture.files()).unwrap();
    let without_files = fixture.archive("b.tar.zst");
    // Not `NotFound`, which a project that was deleted is.
    let path = fixture.files();
    assert!(
        matches!(&without_files, Err(BackupError::Io { path: named, .. }) if *named == path),
        "{without_files:?}"
    );
    assert_eq!(names(&fixture.path("archives")), ["a.tar.zst"]);
}

#[test]
fn bounds_are_kept() {
    let fixture = Fixture::new();
    let info = fixture.archive("a.tar.zst").unwrap();
    let bytes: u64 = info.manifest.entries.iter().map(|entry| entry.size).sum();
    let files = (info.manifest.entries.len() + info.manifest.directories.len()) as u64;
    let unpack_within = |bytes_max, files_max| {
        let out = fixture.path("out");
        let bounds = Bounds { bytes_max, files_max };
        let unpacked = unpack(&fixture.archived("a.tar.zst"), &out, bounds);
        assert_eq!(out.exists(), unpacked.is_ok());
        unpacked.map(|unpacked| fs::remove_dir_all(unpacked.directory()).unwrap())
    };
    unpack_within(bytes, files).unwrap();
    for (bytes_max, files_max) in [(bytes - 1, files), (bytes, files - 1)] {
        let refused = unpack_within(bytes_max, files_max);
        assert!(matches!(refused, Err(BackupError::TooLarge { .. })), "{refused:?}");
    }
}
