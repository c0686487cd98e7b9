//! What differs between two contents: by lines, within a limit of size and time.

use std::fmt::Write;
use std::time::Duration;

use iris_protocol::limits::{FILE_DIFF_BYTES_MAX, FILE_DIFF_LINES_BYTES_MAX};
use iris_protocol::{DiffHunk, DiffLine, DiffLineKind};
use similar::{Algorithm, ChangeTag, DiffOp, TextDiff};

/// How long the smallest difference is looked for; after that a larger one is taken.
const TIME_MAX: Duration = Duration::from_secs(1);
/// Equal lines around what differs.
const CONTEXT_LINES: usize = 3;

/// How two texts differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Lines of the later text that the earlier one has not; none where there was too much to compare.
    pub insertions: Option<u64>,
    /// Lines of the earlier text that the later one has not; none where there was too much to compare.
    pub deletions: Option<u64>,
    /// Whether lines were left out or not compared.
    pub is_coarse: bool,
    /// What differs, with some lines around it.
    pub hunks: Vec<DiffHunk>,
}

/// Compares two contents; none where one of them is no text: it holds a NUL byte, or is not UTF-8.
///
/// Texts of more than [`FILE_DIFF_BYTES_MAX`] bytes are not compared by lines, and no more than
/// [`FILE_DIFF_LINES_BYTES_MAX`] bytes of lines are given; the answer says so.
pub fn compare(old: &[u8], new: &[u8]) -> Option<Difference> {
    let (old, new) = (text(old)?, text(new)?);
    if old.len().max(new.len()) > FILE_DIFF_BYTES_MAX {
        let is_coarse = true;
        return Some(Difference {
            insertions: None,
            deletions: None,
            is_coarse,
            hunks: Vec::new(),
        });
    }
    let mut config = TextDiff::configure();
    let diff = config.algorithm(Algorithm::Myers).timeout(TIME_MAX).diff_lines(old, new);
    let (mut insertions, mut deletions) = (0, 0);
    for op in diff.ops() {
        match *op {
            DiffOp::Equal { .. } => {}
            DiffOp::Delete { old_len, .. } => deletions += old_len as u64,
            DiffOp::Insert { new_len, .. } => insertions += new_len as u64,
            DiffOp::Replace { old_len, new_len, .. } => {
                deletions += old_len as u64;
                insertions += new_len as u64;
            }
        }
    }
    let (mut hunks, mut bytes_left) = (Vec::new(), FILE_DIFF_LINES_BYTES_MAX);
    let mut is_coarse = false;
    for group in diff.grouped_ops(CONTEXT_LINES) {
        let Some(hunk) = hunk(&diff, &group, &mut bytes_left) else {
            is_coarse = true;
            break;
        };
        hunks.push(hunk);
    }
    let (insertions, deletions) = (Some(insertions), Some(deletions));
    Some(Difference { insertions, deletions, is_coarse, hunks })
}

fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// The lines of one hunk; none when they are more than what is left.
fn hunk(
    diff: &TextDiff<'_, '_, str>,
    group: &[DiffOp],
    bytes_left: &mut usize,
) -> Option<DiffHunk> {
    let (first, last) = (group.first()?, group.last()?);
    let (old, new) = (first.old_range(), first.new_range());
    let (old_end, new_end) = (last.old_range().end, last.new_range().end);
    let mut lines = Vec::new();
    for op in group {
        for change in diff.iter_changes(op) {
            let text = change.value();
            *bytes_left = bytes_left.checked_sub(text.len())?;
            let kind = match change.tag() {
                ChangeTag::Equal => DiffLineKind::Equal,
                ChangeTag::Insert => DiffLineKind::Inserted,
                ChangeTag::Delete => DiffLineKind::Deleted,
            };
            let text = text.strip_suffix('\n').unwrap_or(text).to_owned();
            lines.push(DiffLine { kind, text });
        }
    }
    let start = |from: usize, count: usize| (from + usize::from(count > 0)) as u64;
    Some(DiffHunk {
        old_start: start(old.start, old_end - old.start),
        old_lines: (old_end - old.start) as u64,
        new_start: start(new.start, new_end - new.start),
        new_lines: (new_end - new.start) as u64,
        lines,
    })
}

/// The hunks as a unified diff of a file, whose earlier and later name are `old` and `new`.
pub fn unified(old: &str, new: &str, hunks: &[DiffHunk]) -> String {
    if hunks.is_empty() {
        return String::new();
    }
    let mut text = format!("--- {old}\n+++ {new}\n");
    for hunk in hunks {
        let DiffHunk { old_start, old_lines, new_start, new_lines, lines } = hunk;
        // Writing to a string does not fail.
        let _infallible =
            writeln!(text, "@@ -{old_start},{old_lines} +{new_start},{new_lines} @@").is_ok();
        for line in lines {
            text.push(match line.kind {
                DiffLineKind::Equal => ' ',
                DiffLineKind::Inserted => '+',
                DiffLineKind::Deleted => '-',
            });
            text.push_str(&line.text);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The later text, made of the earlier one and the difference.
    fn patched(old: &str, hunks: &[DiffHunk]) -> String {
        let old: Vec<&str> = old.split_inclusive('\n').collect();
        let (mut new, mut at) = (String::new(), 0);
        for hunk in hunks {
            let from = usize::try_from(hunk.old_start).unwrap();
            let from = from - usize::from(hunk.old_lines > 0);
            new.extend(old[at..from].iter().copied());
            at = from;
            for line in &hunk.lines {
                if line.kind != DiffLineKind::Deleted {
                    new.push_str(&line.text);
                    new.push('\n');
                }
                at += usize::from(line.kind != DiffLineKind::Inserted);
            }
        }
        new.extend(old[at..].iter().copied());
        new
    }

    proptest! {
        #[test]
        fn the_difference_makes_the_later_text_of_the_earlier_one(
            old in "([ab]\n){0,12}", new in "([ab]\n){0,12}",
        ) {
            let difference = compare(old.as_bytes(), new.as_bytes()).unwrap();
            prop_assert_eq!(patched(&old, &difference.hunks), new.clone());
            let count = |text: &str| text.lines().count() as u64;
            let (more, less) = (difference.insertions.unwrap(), difference.deletions.unwrap());
            prop_assert_eq!(count(&old) + more, count(&new) + less);
        }
    }

    #[test]
    fn bytes_that_are_no_text_have_no_lines() {
        assert_eq!(compare(b"a\0", b"a"), None);
        assert_eq!(compare(b"a", &[0xff]), None);
        let equal = compare(b"a\n", b"a\n").unwrap();
        assert_eq!((equal.hunks, equal.insertions, equal.is_coarse), (vec![], Some(0), false));
    }

    #[test]
    fn f11_large_texts_are_compared_coarsely_and_soon() {
        let begun = std::time::Instant::now();
        let huge = vec![b'x'; 50 * 1024 * 1024];
        let coarse = compare(&huge, b"y").unwrap();
        assert_eq!((coarse.insertions, coarse.is_coarse), (None, true));
        // One line each: nothing to find, and too much to show.
        let line = vec![b'x'; FILE_DIFF_BYTES_MAX];
        let coarse = compare(&line, b"y").unwrap();
        assert_eq!(
            (coarse.insertions, coarse.deletions, coarse.is_coarse),
            (Some(1), Some(1), true)
        );
        // Nothing in common, which takes the longest to find out.
        let lines = |from: usize| {
            let lines: Vec<String> = (from..=from + 200_000).map(|n| n.to_string()).collect();
            lines.join("\n")
        };
        let different = compare(lines(0).as_bytes(), lines(1_000_000).as_bytes()).unwrap();
        assert_eq!(different.insertions, Some(200_001));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_unified_diff_has_the_headers_of_its_hunks() {
        let difference = compare(b"a\nb\nc\n", b"a\nx\nc\nd\n").unwrap();
        let text = unified("a/f", "b/f", &difference.hunks);
        assert_eq!(text, "--- a/f\n+++ b/f\n@@ -1,3 +1,4 @@\n a\n-b\n+x\n c\n+d\n");
        let created = compare(b"", b"new\n").unwrap();
        assert!(unified("x", "y", &created.hunks).contains("@@ -0,0 +1,1 @@\n+new\n"));
    }
}
