//! Reading and writing single files.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use iris_protocol::ErrorCode;
use iris_protocol::limits::FILE_BYTES_MAX;
use iris_workspace::{EntryKind, Workspace, WorkspaceError, WriteOutcome, content_hash};
use tempfile::TempDir;

fn project() -> (TempDir, Workspace) {
    let temp = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(temp.path()).unwrap();
    (temp, workspace)
}

#[test]
fn what_was_written_is_read_back_with_the_same_facts() {
    let (_temp, workspace) = project();
    let outcome = workspace.write("./a//b/notes.md", "grüße\n".as_bytes()).unwrap();
    let hash = content_hash("grüße\n".as_bytes());
    let path = "a/b/notes.md".to_owned();
    let expected = WriteOutcome { path: path.clone(), created: true, size: 8, hash: hash.clone() };
    assert_eq!(outcome, expected);

    let content = workspace.read_text("a/b/notes.md", 8).unwrap();
    assert_eq!((content.text.as_str(), &content.hash), ("grüße\n", &hash));
    let info = workspace.stat(&path).unwrap();
    assert_eq!((info.kind, info.size, info.hash.as_ref()), (EntryKind::File, 8, Some(&hash)));
    assert!(info.modified_ms > 1_600_000_000_000);
    assert_eq!(workspace.read_bytes(&path, 8).unwrap().info, info);
    assert!(!workspace.write(&path, b"").unwrap().created);
    assert_eq!(workspace.read_bytes(&path, 0).unwrap().bytes, b"");
}

#[test]
fn a_write_leaves_no_temporary_file_and_keeps_the_permission_bits() {
    let (temp, workspace) = project();
    let path = temp.path().join("run.sh");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    workspace.write("run.sh", b"new").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o751);
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
}

#[test]
fn a_write_is_refused_when_the_content_is_not_the_known_one() {
    let (temp, workspace) = project();
    let known = workspace.write("a", b"one").unwrap().hash;
    fs::write(temp.path().join("a"), "two").unwrap();
    let error = workspace.write_if_unchanged("a", b"three", &known).unwrap_err();
    assert_eq!(error.code(), ErrorCode::VersionConflict);
    assert_eq!(fs::read_to_string(temp.path().join("a")).unwrap(), "two");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);

    workspace.write_if_unchanged("a", b"three", &content_hash(b"two")).unwrap();
    fs::remove_file(temp.path().join("a")).unwrap();
    let error = workspace.write_if_unchanged("a", b"four", &content_hash(b"three")).unwrap_err();
    assert!(matches!(error, WorkspaceError::Changed { .. }));
}

#[test]
fn of_many_writers_that_know_the_same_content_one_wins() {
    let (_temp, workspace) = project();
    let known = workspace.write("a", b"start").unwrap().hash;
    let winners: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|number| {
                let (workspace, known) = (workspace.clone(), &known);
                let content = format!("writer {number}");
                scope.spawn(move || workspace.write_if_unchanged("a", content.as_bytes(), known))
            })
            .collect();
        writers.into_iter().map(|writer| usize::from(writer.join().unwrap().is_ok())).sum()
    });
    assert_eq!(winners, 1);
}

#[test]
fn files_at_the_limit_pass_and_one_byte_more_does_not() {
    let (temp, workspace) = project();
    let mut bytes = vec![b'x'; FILE_BYTES_MAX];
    assert_eq!(workspace.write("a", &bytes).unwrap().size, FILE_BYTES_MAX as u64);
    bytes.push(b'x');
    assert_eq!(workspace.write("b", &bytes).unwrap_err().code(), ErrorCode::PayloadTooLarge);
    assert!(!temp.path().join("b").exists());
    assert!(workspace.read_bytes("a", FILE_BYTES_MAX as u64).is_ok());
    let error = workspace.read_bytes("a", FILE_BYTES_MAX as u64 - 1).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
}

#[test]
fn a_file_is_read_part_by_part() {
    let (temp, workspace) = project();
    let bytes: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    workspace.write("a", &bytes).unwrap();
    let whole = workspace.read_bytes("a", 200_000).unwrap();
    for bytes_max in [0_u32, 1, 100_000, 200_000, 300_000] {
        let beginning = workspace.read_beginning("a", 200_000, bytes_max.into()).unwrap();
        assert_eq!(beginning.info, whole.info);
        assert_eq!(beginning.bytes, bytes[..bytes_max.min(200_000) as usize]);
        let open = workspace.open_file("a", 200_000).unwrap();
        let rest = open.read_at(beginning.bytes.len() as u64, 200_000).unwrap();
        assert_eq!([beginning.bytes, rest].concat(), bytes);
    }
    let error = workspace.read_beginning("a", 199_999, 3).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
    std::os::unix::fs::symlink("/etc/passwd", temp.path().join("link")).unwrap();
    for (path, reason) in [("link", "path_escape"), ("../x", "invalid_path")] {
        let read = workspace.read_beginning(path, 9, 9);
        assert_eq!(read.unwrap_err().reason(), Some(reason));
        assert_eq!(workspace.open_file(path, 9).unwrap_err().reason(), Some(reason));
    }
}

#[test]
fn bytes_that_are_no_text_are_said_to_be_binary() {
    let (_temp, workspace) = project();
    for bytes in [&b"a\0b"[..], &[0xff, 0xfe], &[b'a', 0xc3]] {
        workspace.write("a", bytes).unwrap();
        let error = workspace.read_text("a", 100).unwrap_err();
        assert_eq!(error.reason(), Some("is_binary"), "{bytes:?}");
    }
}

#[test]
fn what_is_missing_or_in_the_way_is_named() {
    let (_temp, workspace) = project();
    workspace.write("file", b"x").unwrap();
    for path in ["none", "none/x", "file/x"] {
        let error = workspace.read_bytes(path, 9).unwrap_err();
        assert_eq!(error.code(), ErrorCode::NotFound, "{path}");
    }
    let error = workspace.write("file/x", b"x").unwrap_err();
    assert_eq!(error.reason(), Some("not_directory"));
    let long_name = "n".repeat(300);
    for error in [
        workspace.read_bytes(&long_name, 9).unwrap_err(),
        workspace.write(&long_name, b"x").unwrap_err(),
    ] {
        assert_eq!(error.reason(), Some("invalid_path"), "{error}");
    }
    assert_eq!(workspace.stat(".").unwrap().kind, EntryKind::Directory);
}
