//! What is read, and what is said of what cannot be.

use iris_tools::patch::{
    Change, FILES_MAX, FilePatch, HEADINGS_MAX, HUNKS_MAX, Hunk, HunkLine, LineKind,
    PATCH_BYTES_MAX, parse,
};

use crate::enveloped;

fn line(kind: LineKind, text: &str) -> HunkLine<'_> {
    HunkLine { kind, text, has_end: true }
}

fn refusal(patch: &str) -> String {
    parse(patch).unwrap_err().to_string()
}

fn refused(patch: &str, expected: &str) {
    let text = refusal(patch);
    assert!(text.starts_with(expected), "{patch}\n{text}");
}

#[test]
fn an_envelope_says_what_becomes_of_each_file() {
    let text = "\n*** Begin Patch\n*** Add File: new/a.md\n+one\n+\n+-two\n*** Delete File: b\n\n\
                *** Update File: c.py\n*** Move to: d.py\n@@ class A:\n@@   def b(self):\n kept\n\n\
                -gone\n+come\n\n@@\n+end\n*** End of File\n*** Update File: e\n*** Move to: f\n\
                *** End Patch\n\n";
    let patch = parse(text).unwrap();
    let first = Hunk {
        line: 11,
        headings: vec!["class A:", "def b(self):"],
        at: None,
        is_at_end: false,
        lines: vec![
            line(LineKind::Keep, "kept"),
            line(LineKind::Keep, ""),
            line(LineKind::Remove, "gone"),
            line(LineKind::Add, "come"),
        ],
    };
    let second = Hunk {
        line: 18,
        headings: vec![],
        at: None,
        is_at_end: true,
        lines: vec![line(LineKind::Add, "end")],
    };
    let hunks = vec![first, second];
    let files = [
        FilePatch {
            line: 3,
            path: "new/a.md",
            change: Change::Create { content: "one\n\n-two\n".to_owned() },
        },
        FilePatch { line: 7, path: "b", change: Change::Delete { hunks: vec![] } },
        FilePatch {
            line: 9,
            path: "c.py",
            change: Change::Update { move_to: Some("d.py"), hunks },
        },
        FilePatch {
            line: 21,
            path: "e",
            change: Change::Update { move_to: Some("f"), hunks: vec![] },
        },
    ];
    assert_eq!(patch.files, files);
    assert_eq!(patch.paths().collect::<Vec<_>>(), ["new/a.md", "b", "c.py", "d.py", "e", "f"]);
}

#[test]
fn a_unified_diff_says_what_becomes_of_each_file() {
    let text = "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\t2026-01-01\n+++ b/x\n\
                @@ -3,2 +3,2 @@ fn f() {\n kept\n--- gone\n+++ come\n\\ No newline at end of file\n\
                --- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+one\n\
                diff --git a/old b/old\ndeleted file mode 100755\n--- a/old\n+++ /dev/null\n\
                @@ -1 +0,0 @@\n-one\n\
                --- plain\n+++ plain\n@@ -1,0 +2 @@\n+two\n\
                diff --git a/m b/n\nsimilarity index 100%\nrename from m\nrename to n\n";
    let patch = parse(text).unwrap();
    let shape: Vec<_> = patch
        .files
        .iter()
        .map(|file| match &file.change {
            Change::Create { content } => format!("{} {} + {content:?}", file.line, file.path),
            Change::Delete { hunks } => format!("{} {} - {}", file.line, file.path, hunks.len()),
            Change::Update { move_to, hunks } => {
                let hunks = hunks.iter().map(|hunk| (hunk.at, hunk.is_at_end, hunk.lines.len()));
                let hunks: Vec<_> = hunks.collect();
                format!("{} {} > {move_to:?} {hunks:?}", file.line, file.path)
            }
        })
        .collect();
    assert_eq!(
        shape,
        [
            "3 x > None [(Some(2), true, 3)]",
            "10 new + \"one\\n\"",
            "16 old - 1",
            "20 plain > None [(Some(1), false, 1)]",
            "24 m > Some(\"n\") []",
        ]
    );
    let Change::Update { hunks, .. } = &patch.files[0].change else { unreachable!() };
    assert_eq!(hunks[0].lines[1], line(LineKind::Remove, "-- gone"));
    let last = HunkLine { has_end: false, ..line(LineKind::Add, "++ come") };
    assert_eq!(hunks[0].lines[2], last);
}

#[test]
fn a_file_that_moves_may_change_too() {
    let text = "diff --git a/m b/n\nrename from m\nrename to n\n--- a/m\n+++ b/n\n\
                @@ -1 +1 @@\n-a\n+b\n";
    let patch = parse(text).unwrap();
    let Change::Update { move_to, hunks } = &patch.files[0].change else { unreachable!() };
    assert_eq!((patch.files[0].path, *move_to, hunks.len()), ("m", Some("n"), 1));
}

#[test]
fn what_is_wrong_with_an_envelope_is_said_with_its_line() {
    let begun = |rest: &str| format!("*** Begin Patch\n{rest}");
    refused(&begun("*** Delete File: a\n"), "line 2: the patch ends without `*** End Patch`");
    refused(&begun("*** Add File:\n*** End Patch"), "line 2: a path is missing");
    refused(&begun("*** Update File: a\n*** Move to: \n"), "line 3: a path is missing");
    refused(&begun("*** End Patch\n"), "line 2: there is no file in the patch");
    refused(&begun("*** Update File: a\n*** End Patch"), "line 2: the file is to be updated and");
    refused(
        &begun("*** Add File: a\nplain\n*** End Patch"),
        "line 3: expected `*** Add File: path`",
    );
    refused(
        &begun("*** Delete File: a\n-x\n*** End Patch"),
        "line 3: expected `*** Add File: path`",
    );
    refused(&begun("*** Delete File: a\n*** End Patch\n\nx"), "line 5: nothing may follow");
    refused(&enveloped("@@\nplain\n"), "line 4: expected `*** Add File: path`");
    refused(&enveloped("@@\n kept\n"), "line 3: the hunk adds nothing and removes nothing");
    refused(&enveloped("@@ a\n"), "line 3: the hunk adds nothing and removes nothing");
    refused(&enveloped("-a\n*** Foo\n"), "line 4: expected `*** Add File: path`");
}

#[test]
fn what_is_wrong_with_a_unified_diff_is_said_with_its_line() {
    refused("", "line 1: there is no file in the patch: it begins with `*** Begin Patch`");
    refused("hello", "line 1: expected `*** Begin Patch`, or `--- path` and `+++ path`, and found");
    let file = |hunks: &str| format!("--- a/x\n+++ b/x\n{hunks}");
    refused(&file(""), "line 2: expected `@@ -line,count +line,count @@` for `b/x`");
    refused(
        &file("@@ -1,2 +1,2 @@\n a\n-b\n"),
        "line 5: the hunk of line 3 says 2 old and 2 new lines",
    );
    refused(
        &file("@@ -1 +1 @@\n-a\n-b\n+c\n"),
        "line 5: the hunk of line 3 says 1 old and 1 new lines",
    );
    refused(&file("@@ -1 +1 @@\n-a\nb\n"), "line 5: the hunk of line 3 says 1 old and 1 new lines");
    refused(&file("@@ -1 +1 @@\n-a\n+b\n+c\n"), "line 6: expected `*** Begin Patch`");
    refused(&file("@@ -1,99999999999999999999 +1 @@\n"), "line 3: expected `@@ -line,count");
    refused(&file("@@ fn a() @@\n-a\n"), "line 3: expected `@@ -line,count");
    refused(&file("@@ -1 +1 @@\n a\n"), "line 3: the hunk adds nothing and removes nothing");
    refused("--- /dev/null\n+++ /dev/null\n@@ -0,0 +1 @@\n+a\n", "line 1: both names are");
    refused(
        "--- /dev/null\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
        "line 3: a file that is not there has",
    );
    refused("--- a/x\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n", "line 1: the names `x` and `y` differ");
    refused("--- \"a/x\"\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "line 1: paths in quotation marks");
    refused("--- \n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n", "line 1: a path is missing");
    let header = |line: &str| format!("diff --git a/x b/x\n{line}\n");
    for impossible in ["old mode 100644", "new file mode 120000", "GIT binary patch", "copy from a"]
    {
        refused(
            &header(impossible),
            &format!("line 2: this cannot be done by a patch: `{impossible}"),
        );
    }
    refused(&header("index 1..2"), "line 1: nothing says what becomes of this file");
}

#[test]
fn every_limit_holds_at_its_edge() {
    let files = |count: usize| {
        let files = "*** Delete File: f\n".repeat(count);
        format!("*** Begin Patch\n{files}*** End Patch")
    };
    assert_eq!(parse(&files(FILES_MAX)).unwrap().files.len(), FILES_MAX);
    refused(&files(FILES_MAX + 1), "line 66: a patch has at most 64 files");
    let diffs = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n".repeat(FILES_MAX + 1);
    refused(&diffs, "line 321: a patch has at most 64 files");

    let hunks = |count: usize| enveloped(&"@@\n-a\n".repeat(count));
    assert!(parse(&hunks(HUNKS_MAX)).is_ok());
    refused(&hunks(HUNKS_MAX + 1), "line 2003: a patch has at most 1000 hunks");
    let diff = format!("--- a/x\n+++ b/x\n{}", "@@ -1 +0,0 @@\n-a\n".repeat(HUNKS_MAX + 1));
    refused(&diff, "line 2003: a patch has at most 1000 hunks");

    let headings = |count: usize| enveloped(&format!("{}-a\n", "@@ x\n".repeat(count)));
    assert!(parse(&headings(HEADINGS_MAX)).is_ok());
    refused(&headings(HEADINGS_MAX + 1), "line 11: a hunk has at most 8 headings");

    let padded = |bytes: usize| {
        let patch = enveloped("-a\n");
        format!("{patch}{}", "\n".repeat(bytes - patch.len()))
    };
    assert!(parse(&padded(PATCH_BYTES_MAX)).is_ok());
    refused(&padded(PATCH_BYTES_MAX + 1), "line 1: a patch has at most 262144 bytes");
}

#[test]
fn an_error_repeats_no_long_line_and_no_invisible_character() {
    let text = refusal(&format!("\u{202e}{}", "x".repeat(10_000)));
    assert!(text.len() < 300 && text.contains("\\u{202e}xxx") && text.contains('…'), "{text}");
}
