//! Reading, writing, editing, searching.

use std::fs;
use std::sync::Arc;

use iris_agent::permissions::{Access, Judge, Rule, Rules, Target};
use iris_protocol::{ErrorCode, PermissionAction, PermissionLayer, PermissionRule, SessionMode};
use iris_tools::{FileChange, OUTPUT_BYTES_MAX, ToolRegistry};
use iris_workspace::content_hash;
use serde_json::{Value, json};

use crate::fixture::Fixture;

#[tokio::test]
async fn read_numbers_lines_and_says_where_to_continue() {
    let fixture = Fixture::new(&[("a", "one\ntwo\nthree\n"), ("empty", ""), ("dos", "x\r\n")]);
    let all = "     1\tone\n     2\ttwo\n     3\tthree";
    assert_eq!(fixture.output("read", json!({"path": "./a"})).await, all);
    let part = fixture.output("read", json!({"path": "a", "offset": 2, "limit": 1})).await;
    assert_eq!(part, "     2\ttwo\n(lines 2 to 2 of 3; continue with offset 3)");
    assert_eq!(fixture.output("read", json!({"path": "empty"})).await, "(the file is empty)");
    let dos = fixture.output("read", json!({"path": "dos"})).await;
    assert_eq!(dos, "     1\tx\n(lines end with \\r\\n)");
    let text = fixture.refusal("read", json!({"path": "a", "offset": 4})).await;
    assert_eq!(text, "offset `4` is past the end: `a` has 3 lines");
}

#[tokio::test]
async fn read_stops_at_each_of_its_limits() {
    let fixture = Fixture::new(&[
        ("many", &"x\n".repeat(2001)),
        ("wide", &"ä".repeat(2001)),
        ("both", &format!("{}\n", "y".repeat(2000)).repeat(100)),
    ]);
    let many = fixture.output("read", json!({"path": "many", "limit": 5000})).await;
    assert!(many.ends_with("  2000\tx\n(lines 1 to 2000 of 2001; continue with offset 2001)"));
    let wide = fixture.output("read", json!({"path": "wide"})).await;
    let expected = format!("     1\t{}\n(lines are cut after 2000 characters)", "ä".repeat(2000));
    assert_eq!(wide, expected);
    let both = fixture.call("read", json!({"path": "both"})).await.unwrap();
    assert!(both.output.len() <= OUTPUT_BYTES_MAX);
    assert!(both.output.ends_with("(lines 1 to 32 of 100; continue with offset 33)"));
    assert_eq!(both.metadata["lastLine"], 32);
}

#[tokio::test]
async fn read_refuses_binary_files_and_paths_that_leave() {
    let fixture = Fixture::new(&[("bin", "a\0b")]);
    let text = fixture.refusal("read", json!({"path": "bin"})).await;
    assert_eq!(text, "`bin` is a binary file, not UTF-8 text");
    assert_eq!(fixture.refusal("read", json!({"path": "x"})).await, "`x` does not exist");
    for path in ["../x", "/etc/passwd", ""] {
        let text = fixture.refusal("read", json!({"path": path})).await;
        assert!(text.starts_with(&format!("invalid path `{path}`: ")), "{text}");
    }
}

#[tokio::test]
async fn read_shows_images_whatever_their_names_up_to_a_size() {
    let fixture = Fixture::new(&[]);
    let webp = b"RIFF\x24\0\0\0WEBPVP8 \xff";
    let images: [(&str, &[u8], &str, &str); 4] = [
        ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG image of 16 bytes", "image/png"),
        ("b.txt", b"\xff\xd8\xff\xe0\0", "JPEG image of 5 bytes", "image/jpeg"),
        ("c", b"GIF89a\x01\0\x01\0", "GIF image of 10 bytes", "image/gif"),
        ("d.webp", webp, "WebP image of 17 bytes", "image/webp"),
    ];
    for (path, bytes, kind, mime_type) in images {
        fs::write(fixture.temp.path().join(path), bytes).unwrap();
        let output = fixture.call("read", json!({ "path": path })).await.unwrap();
        assert_eq!(output.output, format!("`{path}` is a {kind}"));
        let attachment = output.attachment.unwrap();
        assert_eq!((attachment.mime_type.as_str(), &*attachment.bytes), (mime_type, bytes));
    }
    let mut large = b"\x89PNG\r\n\x1a\n".to_vec();
    large.resize(3_750_001, 0);
    fs::write(fixture.temp.path().join("large"), &large).unwrap();
    let error = fixture.call("read", json!({ "path": "large" })).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnsupportedMediaType);
    let expected = "`large` is a PNG image of 3750001 bytes; images of more than 3750000 bytes are not shown to models";
    assert_eq!(error.to_string(), expected);
    large.truncate(3_750_000);
    fs::write(fixture.temp.path().join("large"), &large).unwrap();
    assert!(fixture.call("read", json!({ "path": "large" })).await.is_ok());
}

/// Everything was judged by what the paths were before.
#[tokio::test]
async fn no_tool_follows_a_link_that_appeared_after_its_call_was_judged() {
    let mut fixture = Fixture::new(&[("notes/file", "text"), ("secret/file", "text")]);
    let denied = PermissionRule {
        id: None,
        layer: PermissionLayer::Project,
        session_id: None,
        permission: "*".to_owned(),
        pattern: "/secret".to_owned(),
        action: PermissionAction::Deny,
        created_by: None,
        created_at: None,
        updated_at: None,
    };
    let rules = Arc::new(Rules::new(vec![Rule::new(denied).unwrap()]));
    fixture.judge = Arc::new(Judge::new(SessionMode::AcceptEdits, vec![rules]));
    let edit = json!({"oldString": "text", "newString": "x"});
    let patch = |lines: &str| json!({"patch": format!("*** Begin Patch\n{lines}*** End Patch")});
    let calls = [
        ("read", json!({"path": "notes/file"})),
        ("write", json!({"path": "notes/file", "content": "x"})),
        ("write", json!({"path": "notes/deep/new", "content": "x"})),
        ("edit", json!({"path": "notes/file", "oldString": "text", "newString": "x"})),
        ("multiEdit", json!({"path": "notes/file", "edits": [edit]})),
        ("applyPatch", patch("*** Update File: notes/file\n-text\n+x\n")),
        ("applyPatch", patch("*** Add File: notes/new\n+x\n")),
        ("applyPatch", patch("*** Delete File: notes/file\n")),
        ("list", json!({"path": "notes"})),
        ("glob", json!({"pattern": "*", "path": "notes"})),
        ("grep", json!({"pattern": "text", "path": "notes"})),
        ("grep", json!({"pattern": "text", "path": "notes/file"})),
    ];
    fs::rename(fixture.temp.path().join("notes"), fixture.temp.path().join("aside")).unwrap();
    std::os::unix::fs::symlink("secret", fixture.temp.path().join("notes")).unwrap();
    for (tool, input) in &calls {
        let error = fixture.call(tool, input.clone()).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Forbidden, "{tool} {input}: {error}");
        assert!(error.to_string().contains("leads to `secret"), "{tool} {input}: {error}");
    }
    assert_eq!(fixture.content("secret/file"), "text");
    assert_eq!(fs::read_dir(fixture.temp.path().join("secret")).unwrap().count(), 1);
    // What the rules allow by its own name may be meant by a link to it.
    fs::remove_file(fixture.temp.path().join("notes")).unwrap();
    std::os::unix::fs::symlink("aside", fixture.temp.path().join("notes")).unwrap();
    for (tool, input) in &calls[..3] {
        fixture.call(tool, input.clone()).await.unwrap();
    }
    assert_eq!(fixture.content("aside/deep/new"), "x");
}

#[tokio::test]
async fn no_tool_follows_a_link_that_leads_out() {
    let fixture = Fixture::new(&[]);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), fixture.temp.path().join("out")).unwrap();
    let calls = [
        ("read", json!({"path": "out/secret"})),
        ("write", json!({"path": "out/secret", "content": "x"})),
        ("edit", json!({"path": "out/secret", "oldString": "secret", "newString": "x"})),
        (
            "multiEdit",
            json!({"path": "out/secret", "edits": [{"oldString": "secret", "newString": "x"}]}),
        ),
        ("applyPatch", json!({"patch": "--- a/out/secret\n+++ b/out/secret\n@@\n-secret\n+x\n"})),
        ("list", json!({"path": "out"})),
        ("glob", json!({"pattern": "*", "path": "out"})),
        ("grep", json!({"pattern": "secret", "path": "out"})),
    ];
    for (tool, input) in calls {
        let error = fixture.call(tool, input).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Forbidden, "{tool}: {error}");
        assert!(error.to_string().ends_with("leads outside the project"), "{tool}: {error}");
    }
    assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "secret");
}

#[tokio::test]
async fn write_creates_and_replaces_and_reports_the_change() {
    let fixture = Fixture::new(&[]);
    let input = json!({"path": "./a//b.md", "content": "one\ntwo\n"});
    let created = fixture.call("write", input.clone()).await.unwrap();
    assert_eq!(created.output, "created `a/b.md`: 2 lines, 8 bytes");
    let hash = content_hash(b"one\ntwo\n");
    let change = FileChange { path: "a/b.md".into(), created: true, size: 8, hash };
    assert_eq!(created.changes, [change]);
    let replaced = fixture.call("write", input).await.unwrap();
    assert_eq!(replaced.output, "replaced `a/b.md`: 2 lines, 8 bytes");
    assert!(!replaced.changes[0].created);
    assert_eq!(fixture.content("a/b.md"), "one\ntwo\n");
    let text = fixture.refusal("write", json!({"path": ".git/config", "content": ""})).await;
    assert_eq!(text, "`.git/config` is protected and cannot be written");
}

#[tokio::test]
async fn edit_replaces_text_that_occurs_once() {
    let fixture = Fixture::new(&[("a", "one two (.*) two\n")]);
    let edit = |old: &str, new: &str| json!({"path": "a", "oldString": old, "newString": new});
    let done = fixture.call("edit", edit("(.*)", "$1")).await.unwrap();
    assert_eq!(done.output, "edited `a`: 1 replacement");
    assert_eq!(fixture.content("a"), "one two $1 two\n");
    assert_eq!(done.changes[0].hash, content_hash(b"one two $1 two\n"));

    let text = fixture.refusal("edit", edit("two", "2")).await;
    assert!(text.starts_with("`oldString` occurs 2 times in `a`; "), "{text}");
    let text = fixture.refusal("edit", edit("three", "3")).await;
    assert!(text.starts_with("`oldString` does not occur in `a`; "), "{text}");
    let text = fixture.refusal("edit", edit("one", "one")).await;
    assert_eq!(text, "`oldString` and `newString` are the same");
    assert_eq!(fixture.content("a"), "one two $1 two\n");

    let mut all = edit("two", "2");
    all["replaceAll"] = json!(true);
    assert_eq!(fixture.output("edit", all).await, "edited `a`: 2 replacements");
    assert_eq!(fixture.content("a"), "one 2 $1 2\n");
}

#[tokio::test]
async fn edit_refuses_a_file_that_changed_since_it_was_read() {
    let fixture = Fixture::new(&[("a", "old text")]);
    let edit = json!({"path": "./a", "oldString": "text", "newString": "words"});
    fixture.output("read", json!({"path": "a"})).await;
    fixture.put("a", "somebody's text");
    let error = fixture.call("edit", edit.clone()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::VersionConflict);
    let expected = "`a` changed since it was read; read it again before editing it";
    assert_eq!(error.to_string(), expected);
    assert_eq!(fixture.content("a"), "somebody's text");

    fixture.output("read", json!({"path": "a"})).await;
    assert!(fixture.call("edit", edit).await.is_ok());
    let again = json!({"path": "a", "oldString": "words", "newString": "text"});
    assert!(fixture.call("edit", again).await.is_ok(), "its own change is known");
}

#[tokio::test]
async fn edit_refuses_a_result_that_would_be_too_large() {
    let fixture = Fixture::new(&[("a", &"x".repeat(1000))]);
    let new = "y".repeat(100_000);
    let edit = json!({"path": "a", "oldString": "x", "newString": new, "replaceAll": true});
    let error = fixture.call("edit", edit).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::PayloadTooLarge);
}

#[tokio::test]
async fn list_and_glob_answer_with_paths() {
    let fixture = Fixture::new(&[("src/b.rs", ""), ("src/a.rs", ""), ("x.md", "")]);
    assert_eq!(fixture.output("list", json!({})).await, "src/\nx.md");
    let deep = fixture.output("list", json!({"path": ".", "depth": 2})).await;
    assert_eq!(deep, "src/\nsrc/a.rs\nsrc/b.rs\nx.md");
    let found = fixture.output("glob", json!({"pattern": "*.rs"})).await;
    assert_eq!(found, "src/a.rs\nsrc/b.rs");
    assert_eq!(fixture.output("glob", json!({"pattern": "*.py"})).await, "(no file matches)");
    let text = fixture.refusal("glob", json!({"pattern": "["})).await;
    assert!(text.starts_with("invalid pattern `[`: "), "{text}");
}

#[tokio::test]
async fn long_listings_say_that_they_were_cut() {
    let fixture = Fixture::new(&[]);
    for number in 0..1001 {
        fixture.put(&format!("{number:04}"), "");
    }
    for (tool, input) in [("list", json!({})), ("glob", json!({"pattern": "*"}))] {
        let output = fixture.call(tool, input).await.unwrap();
        assert_eq!(
            (output.metadata["count"].as_u64(), output.output.lines().count()),
            (Some(1000), 1001)
        );
        assert!(output.output.ends_with("(stopped: too many results; ask for something narrower)"));
    }
}

#[tokio::test]
async fn grep_shows_matches_by_file() {
    let fixture =
        Fixture::new(&[("a.rs", "fn one\nx\nx\nx\nFn two\n"), ("b.md", "fn"), ("c", "\0")]);
    let found = fixture.output("grep", json!({"pattern": "fn", "include": "*.rs"})).await;
    assert_eq!(found, "a.rs\n1: fn one\n\n(1 match in 1 file)");
    let input = json!({"pattern": "fn", "context": 1, "ignoreCase": true});
    let found = fixture.output("grep", input).await;
    let expected = "a.rs\n1: fn one\n2- x\n--\n4- x\n5: Fn two\n\nb.md\n1: fn\n\n\
                    (3 matches in 2 files)\n\
                    (1 file not searched: too large, binary or not readable)";
    assert_eq!(found, expected);
    let none = fixture.output("grep", json!({"pattern": "zzz", "path": "a.rs"})).await;
    assert_eq!(none, "(no match)");
    let text = fixture.refusal("grep", json!({"pattern": "("})).await;
    assert!(text.starts_with("invalid pattern `(`: "), "{text}");
}

#[tokio::test]
async fn grep_stops_at_its_limits_and_stays_within_the_output() {
    let many = "hit\n".repeat(201);
    let wide = format!("{}\n", "w".repeat(500)).repeat(200);
    let fixture = Fixture::new(&[("many", &many), ("wide", &wide)]);
    let found = fixture.call("grep", json!({"pattern": "hit"})).await.unwrap();
    assert_eq!(
        (&found.metadata["matches"], &found.metadata["truncated"]),
        (&json!(200), &json!(true))
    );
    let found = fixture.call("grep", json!({"pattern": "w"})).await.unwrap();
    assert!(found.output.len() <= OUTPUT_BYTES_MAX);
    assert!(found.output.ends_with("(stopped: too many results; ask for something narrower)"));
}

fn denied(pattern: &str) -> Arc<Judge> {
    let rule = PermissionRule {
        id: None,
        layer: PermissionLayer::Project,
        session_id: None,
        permission: "read".to_owned(),
        pattern: pattern.to_owned(),
        action: PermissionAction::Deny,
        created_by: None,
        created_at: None,
        updated_at: None,
    };
    let rules = Rules::new(vec![Rule::new(rule).unwrap()]);
    Arc::new(Judge::new(SessionMode::Default, vec![Arc::new(rules)]))
}

#[tokio::test]
async fn searching_tells_nothing_of_files_that_may_not_be_read() {
    let mut fixture = Fixture::new(&[
        ("open", "token=open"),
        ("prod.env", "token=secret"),
        ("private/key", "token=private"),
    ]);
    fixture.judge = denied("private");
    let found = fixture.output("grep", json!({"pattern": "token"})).await;
    let nothing = fixture.output("grep", json!({"pattern": "zzz"})).await;
    let withheld = "(2 files not searched: reading them needs permission)";
    assert_eq!(found, format!("open\n1: token=open\n\n(1 match in 1 file)\n{withheld}"));
    assert_eq!(nothing, format!("(no match)\n{withheld}"));
    // What asks may be known by its name; what is denied may not.
    assert_eq!(fixture.output("list", json!({"depth": 2})).await, "open\nprod.env");
    assert_eq!(fixture.output("glob", json!({"pattern": "**"})).await, "open\nprod.env");
}

#[test]
fn tools_name_what_their_calls_touch() {
    let registry = ToolRegistry::builtin().unwrap();
    let accesses = |tool: &str, input: Value| registry.get(tool).unwrap().accesses(&input);
    let path = |path: &str| Target::Path(path.to_owned());
    assert_eq!(accesses("read", json!({"path": "./a//b"})), [Access::read("read", path("a/b"))]);
    assert_eq!(accesses("list", json!({})), [Access::read("list", path("."))]);
    assert_eq!(accesses("edit", json!({"path": "a"})), [Access::edit("edit", path("a"))]);
    for outside in ["../x", "/etc/passwd", "a\0", ""] {
        let target = Target::Outside(outside.to_owned());
        assert_eq!(accesses("write", json!({"path": outside})), [Access::edit("write", target)]);
    }
}
