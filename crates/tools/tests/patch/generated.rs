//! By chance: diffs of another implementation give the text that they were made for, and no text at all
//! brings the reader or the application down.

use iris_tools::patch::{Applying, Change, Patch, parse};
use proptest::prelude::*;
use similar::TextDiff;

use crate::{applied, apply, enveloped};

/// What lines are made of: few of them, so that they repeat.
const LINES: [&str; 8] = ["a", "b", "", "  c", "-- a/f", "++ b/f", "@@ -1 +1 @@", "\\ x"];

/// Which of [`LINES`], and whether it ends with CR LF where some do.
type Line = (usize, bool);
/// Where, how many lines go, and which come.
type Edit = (usize, usize, Vec<Line>);

fn lines() -> impl Strategy<Value = Vec<Line>> {
    proptest::collection::vec((0..LINES.len(), any::<bool>()), 0..25)
}

/// Joins lines; with `has_cr` some of them end with CR LF.
fn text(lines: &[Line], has_cr: bool, is_incomplete: bool) -> String {
    let mut text = String::new();
    for (line, cr) in lines {
        text.push_str(LINES[*line]);
        text.push_str(if *cr && has_cr { "\r\n" } else { "\n" });
    }
    if is_incomplete && text.ends_with('\n') {
        text.truncate(text.trim_end_matches(['\n', '\r']).len());
    }
    text
}

fn edited(mut lines: Vec<Line>, edits: &[Edit]) -> Vec<Line> {
    for (at, removed, added) in edits {
        let start = at % (lines.len() + 1);
        let end = (start + removed).min(lines.len());
        lines.splice(start..end, added.iter().copied());
    }
    lines
}

/// Every change of a patch, put into `text`; what does not fit does not matter.
fn try_all(text: &str, patch: &Patch<'_>) {
    for file in &patch.files {
        if let Change::Update { hunks, .. } | Change::Delete { hunks } = &file.change
            && let Ok(mut applying) = Applying::new(text, hunks)
        {
            let fits = hunks.iter().all(|hunk| applying.hunk(hunk).is_ok());
            let added = hunks.iter().flat_map(|hunk| &hunk.lines).map(|line| line.text.len() + 2);
            let added: usize = added.sum();
            let new = applying.finish();
            assert!(!fits || new.len() <= text.len() + added + 2);
        }
    }
}

/// Patches of both formats, of which mutations are made.
const CORPUS: [&str; 5] = [
    "*** Begin Patch\n*** Add File: a\n+x\n*** Delete File: b\n*** Update File: c\n*** Move to: d\n\
     @@ class A\n@@ def f\n a\n-b\n+c\n\n*** End of File\n*** End Patch\n",
    "*** Begin Patch\n*** Update File: f\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n@@\n+x\n*** End Patch\n",
    "diff --git a/f b/f\nindex 1..2 100644\n--- a/f\n+++ b/f\n@@ -1,3 +1,3 @@ fn\n a\n-b\n+c\n \n\
     @@ -9 +9,0 @@\n-a\n\\ No newline at end of file\n",
    "--- /dev/null\n+++ b/n\n@@ -0,0 +1,2 @@\n+a\n+b\n--- a/o\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n",
    "diff --git a/m b/n\nrename from m\nrename to n\n--- a/m\n+++ b/n\n@@\n-a\n+b\n",
];

/// What mutations put in: pieces that mean something.
const PIECES: [&str; 18] = [
    "\n",
    "\r\n",
    "*** ",
    "*** Begin Patch\n",
    "*** End Patch\n",
    "*** Update File: x\n",
    "@@",
    "@@ a\n",
    "@@ -1,9 +1 @@\n",
    "@@ -18446744073709551615,18446744073709551615 +0 @@\n",
    "+",
    "-",
    " ",
    "\\ \n",
    "--- a/x\n+++ b/x\n",
    "/dev/null",
    "ä\u{0}",
    "\t",
];

proptest! {
    #[test]
    fn a_unified_diff_gives_the_new_text(
        old_lines in lines(),
        edits in proptest::collection::vec((0_usize..30, 0_usize..6, lines()), 1..4),
        has_cr in any::<bool>(),
        incomplete in any::<(bool, bool)>(),
        radius in 0_usize..5,
    ) {
        let new = text(&edited(old_lines.clone(), &edits), has_cr, incomplete.1);
        let old = text(&old_lines, has_cr, incomplete.0);
        // Where nothing is shown of a text with CR LF, added lines are taken to end so too.
        let radius = if has_cr { radius.max(1) } else { radius };
        let diff = TextDiff::from_lines(&old, &new);
        let mut diff = diff.unified_diff();
        let diff = diff.context_radius(radius).header("a/f", "b/f").to_string();
        if old == new {
            prop_assert!(diff.is_empty());
        } else {
            let patched = apply(&old, &diff);
            prop_assert_eq!(patched.as_deref(), Ok(new.as_str()), "{}", diff);
        }
    }

    #[test]
    fn an_envelope_gives_the_new_text_or_is_refused_and_never_gives_another(
        old_lines in lines(),
        edits in proptest::collection::vec((0_usize..30, 0_usize..6, lines()), 1..3),
        radius in 1_usize..8,
    ) {
        let old = text(&old_lines, false, false);
        let new = text(&edited(old_lines, &edits), false, false);
        let diff = TextDiff::from_lines(&old, &new);
        let mut diff = diff.unified_diff();
        let diff = diff.context_radius(radius);
        let hunks: Vec<String> = diff.iter_hunks().map(|hunk| hunk.to_string()).collect();
        // Without the numbers, as models write it.
        let bodies = hunks.iter().map(|hunk| hunk.split_once('\n').unwrap().1);
        let bare: String = bodies.flat_map(|body| ["@@\n", body]).collect();
        if hunks.is_empty() {
            return Ok(());
        }
        // With one hunk there is one place or none that is meant; with more an earlier one may be
        // unique behind the one before and still be another.
        if let Ok(given) = applied(&old, &parse(&enveloped(&bare)).unwrap())
            && hunks.len() == 1
        {
            prop_assert_eq!(given, new, "{}", bare);
        }
    }

    #[test]
    fn no_text_brings_the_reader_down(text in any::<String>(), old in any::<String>()) {
        if let Ok(patch) = parse(&text) {
            try_all(&old, &patch);
        }
    }

    #[test]
    fn no_row_of_meaningful_pieces_brings_it_down(
        pieces in proptest::collection::vec(0..PIECES.len(), 0..40),
        begins in any::<bool>(),
    ) {
        let text: String = pieces.iter().map(|piece| PIECES[*piece]).collect();
        let begin = if begins { "*** Begin Patch\n*** Update File: f\n" } else { "--- a/f\n+++ b/f\n" };
        if let Ok(patch) = parse(&format!("{begin}{text}")) {
            try_all("a\n\n-\n", &patch);
        }
    }

    #[test]
    fn mutated_patches_are_read_or_refused_with_a_line_that_exists(
        which in 0..CORPUS.len(),
        mutations in proptest::collection::vec((any::<usize>(), 0_usize..8, 0..PIECES.len()), 1..6),
    ) {
        let mut text = CORPUS[which].to_owned();
        for (at, removed, piece) in mutations {
            let start = text.floor_char_boundary(at % (text.len() + 1));
            let end = text.ceil_char_boundary((start + removed).min(text.len()));
            text.replace_range(start..end, PIECES[piece]);
        }
        match parse(&text) {
            Ok(patch) => {
                prop_assert!(!patch.files.is_empty());
                prop_assert!(patch.paths().all(|path| !path.is_empty() && !path.contains('\n')));
                try_all("a\nb\n\nclass A\ndef f\na\nb", &patch);
            }
            Err(error) => {
                prop_assert!((1..=text.split('\n').count()).contains(&error.line), "{}", error);
            }
        }
    }
}

#[test]
fn every_patch_of_the_corpus_is_read() {
    for patch in CORPUS {
        assert!(parse(patch).is_ok(), "{patch}");
    }
}
