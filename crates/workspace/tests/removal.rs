//! Removing files, creating new ones, and looking whether either would be let to begin.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use iris_protocol::ErrorCode;
use iris_workspace::{Workspace, WorkspaceError, content_hash};
use tempfile::TempDir;

fn project() -> (TempDir, Workspace) {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("inside")).unwrap();
    fs::write(temp.path().join("secret"), "secret").unwrap();
    let workspace = Workspace::open(&temp.path().join("inside")).unwrap();
    (temp, workspace)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_removed_when_its_content_is_the_known_one() {
    let (temp, workspace) = project();
    let hash = workspace.write("a/b", b"old").unwrap().hash;
    workspace.check_remove("./a//b").unwrap();
    let error = workspace.remove_if_unchanged("a/b", &content_hash(b"other")).unwrap_err();
    assert_eq!(error.code(), ErrorCode::VersionConflict);
    assert_eq!(fs::read_to_string(temp.path().join("inside/a/b")).unwrap(), "old");
    workspace.remove_if_unchanged("./a//b", &hash).unwrap();
    assert!(names(&temp.path().join("inside/a")).is_empty(), "the directory stays");
    for error in [
        workspace.remove_if_unchanged("a/b", &hash).unwrap_err(),
        workspace.check_remove("a/b").unwrap_err(),
    ] {
        assert!(matches!(error, WorkspaceError::NotFound { .. }), "{error}");
    }
}

#[test]
fn removing_what_is_not_there_creates_no_directory() {
    let (temp, workspace) = project();
    let error = workspace.remove_if_unchanged("none/such/file", "x").unwrap_err();
    assert!(matches!(error, WorkspaceError::NotFound { .. }), "{error}");
    assert!(workspace.check_write("none/such/file").is_ok());
    assert!(names(&temp.path().join("inside")).is_empty());
}

#[test]
fn of_many_that_remove_one_content_one_succeeds() {
    let (_temp, workspace) = project();
    let hash = workspace.write("a", b"x").unwrap().hash;
    let removed: usize = std::thread::scope(|scope| {
        let removers: Vec<_> = (0..8)
            .map(|_| {
                let (workspace, hash) = (workspace.clone(), &hash);
                scope.spawn(move || workspace.remove_if_unchanged("a", hash))
            })
            .collect();
        removers.into_iter().map(|it| usize::from(it.join().unwrap().is_ok())).sum()
    });
    assert_eq!(removed, 1);
}

#[test]
fn nothing_is_removed_or_written_where_it_must_not_be() {
    let (temp, workspace) = project();
    let inside = temp.path().join("inside");
    workspace.write("file", b"x").unwrap();
    workspace.write("real/file", b"x").unwrap();
    fs::create_dir_all(inside.join(".git/hooks")).unwrap();
    fs::write(inside.join(".git/config"), "x").unwrap();
    fs::hard_link(temp.path().join("secret"), inside.join("hard")).unwrap();
    symlink("..", inside.join("out")).unwrap();
    symlink("../secret", inside.join("link-out")).unwrap();
    symlink(".git", inside.join("innocent")).unwrap();
    symlink("round", inside.join("round")).unwrap();
    let hash = content_hash(b"x");
    let cases = [
        ("../secret", "invalid_path"),
        ("/etc/passwd", "invalid_path"),
        (".", "invalid_path"),
        ("out/secret", "path_escape"),
        ("round/x", "path_escape"),
        (".git/config", "protected_path"),
        (".GIT/new/deep/file", "protected_path"),
        ("innocent/config", "protected_path"),
        ("none/.iris/x", "protected_path"),
        ("real", "not_regular_file"),
        ("file/x", "not_directory"),
        ("hard", "hard_linked"),
    ];
    for (path, reason) in cases {
        let errors = [
            workspace.remove_if_unchanged(path, &hash).unwrap_err(),
            workspace.check_remove(path).unwrap_err(),
            workspace.check_write(path).unwrap_err(),
            workspace.write_if_absent(path, b"y", None).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.reason(), Some(reason), "{path}: {error}");
        }
    }
    assert_eq!(fs::read_to_string(temp.path().join("secret")).unwrap(), "secret");
    assert_eq!(names(&inside.join(".git")), ["config", "hooks"]);
}

#[test]
fn a_link_is_not_removed_and_neither_is_what_it_leads_to() {
    let (temp, workspace) = project();
    let hash = workspace.write("real/file", b"x").unwrap().hash;
    symlink("real/file", temp.path().join("inside/link")).unwrap();
    symlink("real", temp.path().join("inside/dir")).unwrap();
    symlink("../secret", temp.path().join("inside/out")).unwrap();
    for link in ["link", "out", "dir"] {
        for error in [
            workspace.remove_if_unchanged(link, &hash).unwrap_err(),
            workspace.check_remove(link).unwrap_err(),
        ] {
            assert_eq!(error.reason(), Some("not_regular_file"), "{link}: {error}");
        }
    }
    assert_eq!(names(&temp.path().join("inside")), ["dir", "link", "out", "real"]);
    workspace.remove_if_unchanged("dir/file", &hash).unwrap();
    assert!(names(&temp.path().join("inside/real")).is_empty());
}

#[test]
fn a_file_is_created_only_where_there_is_none() {
    let (temp, workspace) = project();
    let created = workspace.write_if_absent("a/b", b"one", None).unwrap();
    assert!(created.created);
    let error = workspace.write_if_absent("a/b", b"two", None).unwrap_err();
    assert!(matches!(error, WorkspaceError::Changed { .. }), "{error}");
    let directory = temp.path().join("inside/a");
    assert_eq!(fs::read_to_string(directory.join("b")).unwrap(), "one");
    assert_eq!(names(&directory), ["b"]);
}

#[test]
fn a_new_file_may_take_over_the_permission_bits_of_another() {
    let (temp, workspace) = project();
    let mode = |name: &str| {
        let metadata = fs::metadata(temp.path().join("inside").join(name)).unwrap();
        metadata.permissions().mode() & 0o7777
    };
    workspace.write("run.sh", b"x").unwrap();
    let path = temp.path().join("inside/run.sh");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
    workspace.write_if_absent("moved.sh", b"x", Some("run.sh")).unwrap();
    assert_eq!(mode("moved.sh"), 0o751);
    for (path, missing) in [("a", "none"), ("b", "none/none")] {
        workspace.write_if_absent(path, b"x", Some(missing)).unwrap();
    }
    let error = workspace.write_if_absent("c", b"x", Some(".git/config")).unwrap_err();
    assert_eq!(error.reason(), Some("protected_path"));
}
