//! `applyPatch`: all of a patch or nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use iris_agent::permissions::{Access, Judge, Target};
use iris_protocol::limits::FILE_BYTES_MAX;
use iris_protocol::{ErrorCode, SessionMode};
use iris_tools::{FileChange, ToolError, ToolOutput, ToolRegistry};
use iris_workspace::content_hash;
use serde_json::{Value, json};

use crate::fixture::Fixture;

fn enveloped(files: &str) -> Value {
    json!({ "patch": format!("*** Begin Patch\n{files}*** End Patch\n") })
}

async fn apply(fixture: &Fixture, files: &str) -> Result<ToolOutput, ToolError> {
    fixture.call("applyPatch", enveloped(files)).await
}

/// All files of the project and what is in them.
fn contents(fixture: &Fixture) -> String {
    let entries = fs::read_dir(fixture.temp.path()).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<_> = files.map(name).collect();
    names.sort();
    let files = names.iter().map(|name| format!("{name}={}", fixture.content(name)));
    files.collect::<Vec<_>>().join(";")
}

#[tokio::test]
async fn a_patch_creates_changes_moves_and_deletes() {
    let fixture = Fixture::new(&[("b", "one\ntwo\n"), ("c", "x\n"), ("d", "gone"), ("e", "y\n")]);
    let patch = "*** Add File: a\n+new\n*** Update File: ./b\n-two\n+2\n\
                 *** Update File: c\n*** Move to: f\n-x\n+X\n*** Delete File: d\n\
                 *** Update File: e\n*** Move to: g\n";
    let done = apply(&fixture, patch).await.unwrap();
    assert_eq!(contents(&fixture), "a=new\n;b=one\n2\n;f=X\n;g=y\n");
    let expected = "applied the patch, 7 files:\ncreated `a`\nchanged `b`\ncreated `f`\ncreated `g`\n\
                    deleted `c`\ndeleted `d`\ndeleted `e`";
    assert_eq!(done.output, expected);
    let change = |path: &str, created, content: &str| FileChange {
        path: path.to_owned(),
        created,
        size: content.len() as u64,
        hash: content_hash(content.as_bytes()),
    };
    let changes = [
        change("a", true, "new\n"),
        change("b", false, "one\n2\n"),
        change("f", true, "X\n"),
        change("g", true, "y\n"),
    ];
    assert_eq!(done.changes, changes);
    assert_eq!(done.metadata["deleted"], json!(["c", "d", "e"]));
    assert_eq!(done.metadata["failed"], Value::Null);
    assert_eq!(done.metadata["notDone"], json!([]));
    let first = json!({"path": "a", "created": true, "hash": content_hash(b"new\n")});
    assert_eq!(done.metadata["written"][0], first);
    assert_eq!(done.metadata["written"].as_array().unwrap().len(), 4);
    let again = apply(&fixture, "*** Update File: f\n-X\n+Y\n").await;
    assert!(again.is_ok(), "its own change is known");
}

#[tokio::test]
async fn a_unified_diff_is_applied_too() {
    let fixture = Fixture::new(&[("src/a", "one\ntwo\n"), ("old", "bye\n")]);
    let patch = "--- a/src/a\n+++ b/src/a\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n\
                 --- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+hi\n\
                 --- a/old\n+++ /dev/null\n@@ -1 +0,0 @@\n-bye\n";
    fixture.output("applyPatch", json!({ "patch": patch })).await;
    assert_eq!(fixture.content("src/a"), "one\n2\n");
    assert_eq!(contents(&fixture), "new=hi\n");
}

#[tokio::test]
async fn when_one_part_does_not_fit_nothing_is_changed() {
    let fixture = Fixture::new(&[("a", "x\n"), ("b", "y\n"), ("bin", "\0"), ("dir/f", "")]);
    let before = contents(&fixture);
    let good = "*** Update File: a\n-x\n+X\n*** Add File: new\n+x\n";
    let cases = [
        (
            "*** Update File: b\n-x\n+z\n",
            "nothing was changed: the patch does not fit `b`: line 8: its",
        ),
        ("*** Update File: none\n-x\n+z\n", "`none` does not exist"),
        ("*** Delete File: none\n", "`none` does not exist"),
        ("*** Add File: b\n+z\n", "nothing was changed: `b` exists already"),
        ("*** Update File: b\n*** Move to: bin\n", "nothing was changed: `bin` exists already"),
        ("*** Update File: bin\n-x\n+z\n", "`bin` is a binary file"),
        ("*** Add File: dir\n+z\n", "`dir` is not a regular file"),
        ("*** Delete File: dir\n", "`dir` is not a regular file"),
        ("*** Add File: b/c\n+z\n", "`b/c` does not exist"),
        ("*** Add File: p\n+z\n*** Add File: p/q\n+z\n", "`p` is not a directory"),
        ("*** Add File: .git/hooks/x\n+z\n", "`.git/hooks/x` is protected"),
        ("*** Add File: ../x\n+z\n", "invalid path `../x`"),
        ("*** Delete File: .\n", "invalid path `.`"),
        ("*** Delete File: b\n*** Update File: b\n-y\n+z\n", "`b` does not exist"),
        ("*** Nothing\n", "the patch cannot be read, nothing was changed: line 7: expected"),
    ];
    for (bad, problem) in cases {
        let error = apply(&fixture, &format!("{good}{bad}")).await.unwrap_err();
        assert!(error.to_string().starts_with(problem), "{bad}\n{error}");
        assert_eq!(contents(&fixture), before, "{bad}");
    }
    let deletion = "--- a/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n";
    fixture.put("a", "x\nmore\n");
    fixture.output("read", json!({"path": "a"})).await;
    let text = fixture.refusal("applyPatch", json!({ "patch": deletion })).await;
    assert!(
        text.ends_with("line 3: the file is to be deleted and has more lines than these"),
        "{text}"
    );
    assert_eq!(fixture.content("a"), "x\nmore\n");
}

#[tokio::test]
async fn each_file_that_changed_since_it_was_read_is_refused() {
    for change in ["*** Update File: b\n-old\n+new\n", "*** Delete File: b\n"] {
        let fixture = Fixture::new(&[("a", "old\n"), ("b", "old\n")]);
        fixture.output("read", json!({"path": "b"})).await;
        fixture.put("b", "old\ntheirs\n");
        let patch = format!("*** Update File: a\n-old\n+new\n{change}");
        let error = apply(&fixture, &patch).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::VersionConflict);
        assert_eq!(contents(&fixture), "a=old\n;b=old\ntheirs\n");
    }
}

#[tokio::test]
async fn a_file_may_occur_more_than_once() {
    let fixture = Fixture::new(&[("a", "one\ntwo\n"), ("b", "b\n")]);
    let patch = "*** Update File: a\n-two\n+2\n*** Update File: ./a\n-one\n+1\n\
                 *** Delete File: b\n*** Add File: b\n+B\n*** Add File: c\n+c\n*** Delete File: c\n";
    let done = apply(&fixture, patch).await.unwrap();
    assert_eq!(contents(&fixture), "a=1\n2\n;b=B\n");
    assert_eq!(done.output, "applied the patch, 2 files:\nchanged `a`\nchanged `b`");
    let back = "*** Update File: a\n-1\n+x\n*** Update File: a\n-x\n+1\n";
    let done = apply(&fixture, back).await.unwrap();
    assert_eq!(done.output, "the files are already as the patch makes them");
    assert!(done.changes.is_empty());
}

#[tokio::test]
async fn a_link_is_the_file_that_it_leads_to_and_is_not_deleted() {
    let mut fixture = Fixture::new(&[("a", "one\ntwo\n")]);
    fixture.judge = Arc::new(Judge::new(SessionMode::AcceptEdits, vec![]));
    symlink("a", fixture.temp.path().join("link")).unwrap();
    apply(&fixture, "*** Update File: a\n-one\n+1\n*** Update File: link\n-two\n+2\n")
        .await
        .unwrap();
    assert_eq!(fixture.content("a"), "1\n2\n");
    let error = apply(&fixture, "*** Delete File: link\n").await.unwrap_err();
    assert_eq!(error.to_string(), "`link` is not a regular file");
    assert_eq!(fixture.content("link"), "1\n2\n");
}

#[tokio::test]
async fn a_file_that_moves_takes_its_permission_bits_along() {
    let fixture = Fixture::new(&[("run", "#!\n")]);
    let mode =
        |name: &str| fs::metadata(fixture.temp.path().join(name)).unwrap().permissions().mode();
    fs::set_permissions(fixture.temp.path().join("run"), fs::Permissions::from_mode(0o750))
        .unwrap();
    apply(&fixture, "*** Update File: run\n*** Move to: bin/go\n").await.unwrap();
    assert_eq!(mode("bin/go") & 0o7777, 0o750);
    let same = apply(&fixture, "*** Update File: bin/go\n*** Move to: bin/go\n-#!\n+#!sh\n").await;
    assert_eq!(same.unwrap().output, "applied the patch, 1 file:\nchanged `bin/go`");
    assert_eq!((fixture.content("bin/go"), mode("bin/go") & 0o7777), ("#!sh\n".to_owned(), 0o750));
}

#[tokio::test]
async fn what_a_patch_makes_is_bounded() {
    let full = "x".repeat(FILE_BYTES_MAX - 1) + "\n";
    let fixture =
        Fixture::new(&[("a", &full), ("b", &full), ("c", &full), ("d", &full), ("e", "y\n")]);
    let error = apply(&fixture, "*** Update File: a\n+y\n*** End of File\n").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
    let move_to = |name: &str| format!("*** Update File: {name}\n*** Move to: m{name}\n");
    let four: String = ["a", "b", "c", "d"].map(move_to).concat();
    let error = apply(&fixture, &format!("{four}{}", move_to("e"))).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
    let expected =
        "nothing was changed: the files of the patch have more than 67108864 bytes together";
    assert_eq!(error.to_string(), expected);
    assert_eq!(fixture.content("e"), "y\n");
    assert_eq!(apply(&fixture, &four).await.unwrap().changes.len(), 4);
}

#[test]
fn every_path_of_a_patch_is_judged() {
    let registry = ToolRegistry::builtin().unwrap();
    let tool = registry.get("applyPatch").unwrap();
    let edit = |target: Target| Access::edit("applyPatch", target);
    let inside = |path: &str| edit(Target::Path(path.to_owned()));
    let patch = "*** Add File: ./a\n+x\n*** Update File: b//c\n*** Move to: .git/d\n*** Delete File: ../e\n";
    let outside = edit(Target::Outside("../e".to_owned()));
    assert_eq!(
        tool.accesses(&enveloped(patch)),
        [inside("a"), inside("b/c"), inside(".git/d"), outside]
    );
    let unreadable = edit(Target::Opaque("a patch that cannot be read".to_owned()));
    for input in [json!({"patch": "x"}), json!({})] {
        assert_eq!(tool.accesses(&input), std::slice::from_ref(&unreadable));
    }
    assert_eq!(
        tool.summary(&enveloped(patch)),
        "create `./a`, move `b//c` to `.git/d`, delete `../e`"
    );
    let many = "*** Delete File: a\n".repeat(12);
    assert!(tool.summary(&enveloped(&many)).ends_with("delete `a`, and 2 more"));
    let changes = "*** Update File: a\n-x\n*** Update File: b\n*** Move to: c\n-x\n";
    assert_eq!(tool.summary(&enveloped(changes)), "change `a`, change `b` and move it to `c`");
    assert_eq!(tool.summary(&json!({"patch": "x"})), "apply a patch that cannot be read");
}
