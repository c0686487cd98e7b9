//! A caller who looks where links lead is led nowhere else, whenever a link appears.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use iris_protocol::ErrorCode;
use iris_workspace::{Cancel, GrepQuery, SearchLimits, Workspace, WorkspaceError, content_hash};
use tempfile::TempDir;

const SIZE_MAX: u64 = 1024;

/// A project with the files `notes/file` and `secret/file`, and a caller who admits that `known` leads to
/// `notes/file`.
fn project() -> (TempDir, Workspace) {
    let temp = tempfile::tempdir().unwrap();
    for name in ["notes", "secret"] {
        fs::create_dir(temp.path().join(name)).unwrap();
        fs::write(temp.path().join(name).join("file"), name).unwrap();
    }
    symlink("notes/file", temp.path().join("known")).unwrap();
    let workspace = Workspace::open(temp.path()).unwrap();
    let admits = |named: &str, real: &str| (named, real) == ("known", "notes/file");
    (temp, workspace.guarded(Arc::new(admits)))
}

/// What somebody does after it was looked at what `notes/file` is.
fn swap(temp: &TempDir) {
    fs::rename(temp.path().join("notes"), temp.path().join("aside")).unwrap();
    symlink("secret", temp.path().join("notes")).unwrap();
}

fn refused<T>(result: Result<T, WorkspaceError>) -> (ErrorCode, Option<&'static str>, String) {
    let error = result.err().unwrap();
    (error.code(), error.reason(), error.to_string())
}

fn refusal(named: &str, real: &str) -> (ErrorCode, Option<&'static str>, String) {
    let text = format!("`{named}` leads to `{real}` now: that has to be named itself");
    (ErrorCode::Forbidden, Some("link_refused"), text)
}

#[test]
fn what_is_no_link_and_what_is_admitted_can_be_used() {
    let (_temp, workspace) = project();
    for path in ["notes/file", "known"] {
        assert_eq!(workspace.read_bytes(path, SIZE_MAX).unwrap().bytes, b"notes");
    }
    workspace.write("known", b"new").unwrap();
    assert_eq!(workspace.read_bytes("notes/file", SIZE_MAX).unwrap().bytes, b"new");
    workspace.write("new/deep/file", b"").unwrap();
}

#[test]
fn a_directory_that_became_a_link_leads_no_operation_elsewhere() {
    let (temp, workspace) = project();
    swap(&temp);
    let (limits, cancel) = (SearchLimits::default(), Cancel::new());
    let file = refusal("notes/file", "secret/file");
    assert_eq!(refused(workspace.read_bytes("notes/file", SIZE_MAX)), file);
    assert_eq!(refused(workspace.read_beginning("notes/file", SIZE_MAX, 1)), file);
    assert_eq!(refused(workspace.open_file("notes/file", SIZE_MAX)), file);
    assert_eq!(refused(workspace.read_text("notes/file", SIZE_MAX)), file);
    assert_eq!(refused(workspace.stat("notes/file")), file);
    assert_eq!(refused(workspace.write("notes/file", b"x")), file);
    assert_eq!(refused(workspace.check_write("notes/file")), file);
    let known = content_hash(b"secret");
    assert_eq!(refused(workspace.write_if_unchanged("notes/file", b"x", &known)), file);
    assert_eq!(refused(workspace.remove_if_unchanged("notes/file", &known)), file);
    assert_eq!(refused(workspace.check_remove("notes/file")), file);
    let new = refusal("notes/new", "secret/new");
    assert_eq!(refused(workspace.write_if_absent("notes/new", b"x", None)), new);
    let deep = refusal("notes/new/deep", "secret/new/deep");
    assert_eq!(refused(workspace.write("notes/new/deep", b"x")), deep);

    let directory = refusal("notes", "secret");
    assert_eq!(refused(workspace.list("notes", 1, &limits, &cancel)), directory);
    assert_eq!(refused(workspace.glob("*", "notes", &limits, &cancel)), directory);
    for (path, expected) in [("notes", directory), ("notes/file", file)] {
        let query = GrepQuery { pattern: "x".into(), path: path.into(), ..GrepQuery::default() };
        assert_eq!(refused(workspace.grep(&query, &|_| true, &limits, &cancel)), expected);
    }
    let left: Vec<_> = fs::read_dir(temp.path().join("secret")).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing was made there: {left:?}");
    assert_eq!(fs::read_to_string(temp.path().join("secret/file")).unwrap(), "secret");
}

#[test]
fn an_admitted_link_that_was_changed_is_not_the_one_that_was_admitted() {
    let (temp, workspace) = project();
    fs::remove_file(temp.path().join("known")).unwrap();
    symlink("secret/file", temp.path().join("known")).unwrap();
    let expected = refusal("known", "secret/file");
    assert_eq!(refused(workspace.read_bytes("known", SIZE_MAX)), expected);
    assert_eq!(refused(workspace.write("known", b"x")), expected);
}

#[test]
fn what_is_found_below_a_link_has_the_path_that_it_really_has() {
    let (temp, _) = project();
    swap(&temp);
    let workspace = Workspace::open(temp.path()).unwrap();
    let (limits, cancel) = (SearchLimits::default(), Cancel::new());
    let paths = |found: iris_workspace::Listing| -> Vec<String> {
        found.entries.into_iter().map(|entry| entry.path).collect()
    };
    assert_eq!(paths(workspace.list("notes", 1, &limits, &cancel).unwrap()), ["secret/file"]);
    assert_eq!(paths(workspace.glob("f*", "notes", &limits, &cancel).unwrap()), ["secret/file"]);
    let query =
        GrepQuery { pattern: "secret".into(), path: "notes".into(), ..GrepQuery::default() };
    let admits = |path: &str| !path.starts_with("secret/");
    let found = workspace.grep(&query, &admits, &limits, &cancel).unwrap();
    assert_eq!((found.match_count, found.withheld_count), (0, 1));
}
