//! Where hunks go, and when they go nowhere.

use iris_tools::patch::{TEXT_LINES_MAX, parse};

use crate::{applied, apply, enveloped};

fn patched(text: &str, hunks: &str) -> String {
    apply(text, &enveloped(hunks)).unwrap()
}

fn refused(text: &str, hunks: &str, expected: &str) {
    let error = apply(text, &enveloped(hunks)).unwrap_err().to_string();
    assert!(error.starts_with(expected), "{error}");
}

#[test]
fn hunks_are_put_in_from_the_beginning_to_the_end() {
    let text = "a\nb\nc\nd\n";
    assert_eq!(patched(text, "@@\n-a\n+A\n@@\n c\n+C\n d\n"), "A\nb\nc\nC\nd\n");
    assert_eq!(patched(text, " a\n-b\n-c\n"), "a\nd\n");
    assert_eq!(patched("", "+a\n"), "a\n");
    refused(
        text,
        "@@\n-c\n@@\n-a\n",
        "line 5: its lines, from `a` on, are not there behind line 3",
    );
    refused(
        text,
        "-b\n-d\n",
        "line 3: its lines, from `b` on, are not there; they must match exactly",
    );
    refused(text, "-B\n", "line 3: its lines, from `B` on, are not there");
    refused(text, "- b\n", "line 3: its lines, from ` b` on, are not there");
    refused(text, "-b \n", "line 3: its lines, from `b ` on, are not there");
}

#[test]
fn what_could_go_to_several_places_goes_nowhere() {
    let text = "a\nx\nb\nx\n";
    refused(text, "-x\n+y\n", "line 3: its lines occur at 2 places");
    refused("x\nx\nx\nx\n", "-x\n-x\n", "line 3: its lines occur at 3 places");
    refused(text, "+y\n", "line 3: nothing says where to add its lines");
    assert_eq!(patched(text, " b\n-x\n+y\n"), "a\nx\nb\ny\n");
    assert_eq!(patched(text, "@@\n-a\n@@\n b\n-x\n"), "x\nb\n");
    assert_eq!(patched("x\na\nx\n", "@@\n a\n+b\n@@\n-x\n"), "x\na\nb\n", "one is left");
}

#[test]
fn a_heading_says_which_place() {
    let text = "class A\n  def f\n    x\n  def g\n    x\nclass B\n  def f\n    x\n";
    let changed = |hunk: &str| {
        let new = patched(text, hunk);
        new.lines().position(|line| line == "    y").unwrap()
    };
    assert_eq!(changed("@@ def g\n-    x\n+    y\n"), 4);
    assert_eq!(changed("@@ class B\n@@ def f\n-    x\n+    y\n"), 7);
    assert_eq!(changed("@@ class A\n@@ def f\n-    x\n+    y\n"), 2);
    assert_eq!(changed("@@ class B\n class B\n   def f\n+    y\n"), 7, "it may be the first line");
    assert_eq!(changed("@@ def g\n+    y\n"), 4, "with nothing else it goes right below");
    let ambiguous = "line 3: its lines occur at 2 places";
    refused(text, "@@ def f\n-    x\n+    y\n", ambiguous);
    refused(text, "@@ def f\n+    y\n", ambiguous);
    refused(text, "@@ def h\n-    x\n", "line 3: its heading `def h` does not occur");
    refused(
        text,
        "@@ class B\n-  def g\n",
        "line 3: its lines, from `  def g` on, are not below its",
    );
    refused(
        text,
        "@@ class B\n@@ def g\n-    x\n",
        "line 3: its lines, from `    x` on, are not below",
    );
}

#[test]
fn the_end_of_the_file_is_a_place() {
    let text = "x\ny\nx\n";
    assert_eq!(patched(text, "-x\n+z\n*** End of File\n"), "x\ny\nz\n");
    assert_eq!(patched(text, "+z\n*** End of File\n"), "x\ny\nx\nz\n");
    refused(
        text,
        "-y\n*** End of File\n",
        "line 3: its lines, from `y` on, are not at the end of the",
    );
    refused(
        "x\n",
        "-x\n-x\n*** End of File\n",
        "line 3: its lines, from `x` on, are not at the end",
    );
}

#[test]
fn a_line_number_counts_where_the_lines_are_and_is_a_hint_elsewhere() {
    let hunk = |start: usize| format!("--- a/f\n+++ b/f\n@@ -{start} +{start} @@\n-x\n+y\n");
    assert_eq!(apply("x\na\nx\n", &hunk(1)).unwrap(), "y\na\nx\n");
    assert_eq!(apply("x\na\nx\n", &hunk(3)).unwrap(), "x\na\ny\n");
    assert_eq!(apply("a\nb\nx\n", &hunk(1)).unwrap(), "a\nb\ny\n");
    assert_eq!(apply("x\n", &hunk(usize::MAX)).unwrap(), "y\n");
    let error = apply("x\na\nx\n", &hunk(2)).unwrap_err();
    assert_eq!(error.line, 3);
    assert!(error.problem.starts_with("its lines occur at 2 places"), "{error}");
    let twice = format!("{}@@ -1 +1 @@\n-x\n+z\n", hunk(1));
    assert_eq!(apply("x\na\nx\n", &twice).unwrap(), "y\na\nz\n", "what is done is not done again");
    let insertion = "--- a/f\n+++ b/f\n@@ -1,0 +2 @@\n+y\n";
    assert_eq!(apply("a\nb\n", insertion).unwrap(), "a\ny\nb\n");
    let behind = "--- a/f\n+++ b/f\n@@ -9,0 +10 @@\n+y\n";
    assert!(apply("a\nb\n", behind).unwrap_err().problem.starts_with("nothing says where"));
    let numbered = enveloped("@@ -3,9 +3,9 @@\n-x\n+y\n");
    assert_eq!(apply("x\na\nx\n", &numbered).unwrap(), "x\na\ny\n");
    let uncounted = "--- a/f\n+++ b/f\n@@ ... @@\n a\n-x\n+y\n\n--- a/g\n+++ b/g\n@@\n-x\n+y\n";
    let patch = parse(uncounted).unwrap();
    assert_eq!(patch.files.len(), 2);
}

#[test]
fn line_ends_are_those_of_the_file() {
    assert_eq!(patched("a\r\nb\r\n", " a\n-b\n+c\n+d\n"), "a\r\nc\r\nd\r\n");
    assert_eq!(patched("a\r\nb", "-b\n+c\n"), "a\r\nc\r\n");
    assert_eq!(patched("a\r\nb\n", "-b\n+c\n"), "a\r\nc\n", "mixed: as the patch says");
    refused("a\r\nb\n", "-a\n", "line 3: its lines, from `a` on, are not there");
    assert_eq!(patched("a\r\nb\r\n", "-b\r\n+c\n"), "a\r\nc\n", "the patch sees the CR itself");
    assert_eq!(patched("a", "-a\n+b\n"), "b\n");
    assert_eq!(patched("a", " a\n+b\n"), "a\nb\n");
    let without = "--- a/f\n+++ b/f\n@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n";
    assert_eq!(apply("a\n", without).unwrap(), "b");
    assert!(apply("a\nc\n", without).is_err(), "it is not the end");
}

#[test]
fn a_text_with_too_many_lines_is_refused() {
    let patch = enveloped("@@ -1 +1 @@\n-b\n+c\n");
    let patch = parse(&patch).unwrap();
    let text = |lines: usize| format!("b\n{}", "\n".repeat(lines - 1));
    assert!(applied(&text(TEXT_LINES_MAX), &patch).unwrap().starts_with("c\n\n"));
    let error = applied(&text(TEXT_LINES_MAX + 1), &patch).unwrap_err();
    assert_eq!(error.to_string(), "line 3: the file has more than 1000000 lines");
}

#[test]
fn texts_that_repeat_themselves_cost_no_more_than_others() {
    // Compared line by line at each place, these would take hours.
    let text = "a\n".repeat(1_000_000);
    let patch = enveloped(&format!("{}-b\n", "-a\n".repeat(80_000)));
    let error = apply(&text, &patch).unwrap_err();
    assert!(error.problem.starts_with("its lines, from `a` on, are not there"), "{error}");
}
