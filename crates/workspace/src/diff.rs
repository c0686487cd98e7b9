//! What differs between two contents: by lines, within a limit of size and time.

use std::collections::HashMap;
use std::fmt::Write;
use std::iter::once;
use std::ops::Range;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use iris_protocol::limits::{FILE_DIFF_BYTES_MAX, FILE_DIFF_LINES_BYTES_MAX};
use iris_protocol::{DiffHunk, DiffLine, DiffLineKind};
use similar::{Algorithm, DiffOp, capture_diff_slices_deadline};

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
    let old: Vec<&str> = old.split_inclusive('\n').collect();
    let new: Vec<&str> = new.split_inclusive('\n').collect();
    let changes = changes(&old, &new);
    let insertions = Some(changes.iter().map(|it| it.new.len() as u64).sum());
    let deletions = Some(changes.iter().map(|it| it.old.len() as u64).sum());
    let (mut hunks, mut bytes_left) = (Vec::new(), FILE_DIFF_LINES_BYTES_MAX);
    let mut is_coarse = false;
    let is_near = |one: &Change, next: &Change| next.old.start - one.old.end <= 2 * CONTEXT_LINES;
    for near in changes.chunk_by(is_near) {
        let Some(hunk) = hunk(&old, &new, near, &mut bytes_left) else {
            is_coarse = true;
            break;
        };
        hunks.push(hunk);
    }
    Some(Difference { insertions, deletions, is_coarse, hunks })
}

/// Lines that went, and those that came in their place.
struct Change {
    old: Range<usize>,
    new: Range<usize>,
}

/// What differs, in the order of the lines; between two changes all lines are equal.
fn changes(old: &[&str], new: &[&str]) -> Vec<Change> {
    // A line that only one text has is a change whatever the others are. They alone are compared, as numbers: without
    // lines of their own, texts that differ much are soon found to be equal in the rest.
    let capacity = old.len();
    let mut numbers = HashMap::with_capacity_and_hasher(capacity, RandomState::default());
    let mut is_shared = vec![false; capacity];
    let number_old = |line| {
        let next = numbers.len();
        *numbers.entry(line).or_insert(next)
    };
    let old_numbers: Vec<usize> = old.iter().map(number_old).collect();
    let number_new = |(at, line)| {
        let number = *numbers.get(line)?;
        *is_shared.get_mut(number)? = true;
        Some((at, number))
    };
    let (new_at, new_numbers): (Vec<usize>, Vec<usize>) =
        new.iter().enumerate().filter_map(number_new).unzip();
    let is_of_both = |(_, number): &(usize, usize)| is_shared.get(*number) == Some(&true);
    let (old_at, old_numbers): (Vec<usize>, Vec<usize>) =
        old_numbers.into_iter().enumerate().filter(is_of_both).unzip();
    let deadline = Some(Instant::now() + TIME_MAX);
    let ops = capture_diff_slices_deadline(Algorithm::Myers, &old_numbers, &new_numbers, deadline);

    let equal = ops.iter().filter_map(|op| match *op {
        DiffOp::Equal { old_index, new_index, len } => Some((old_index, new_index, len)),
        DiffOp::Delete { .. } | DiffOp::Insert { .. } | DiffOp::Replace { .. } => None,
    });
    let pairs = equal.flat_map(|(old_index, new_index, len)| {
        let old = old_at.iter().skip(old_index).take(len);
        old.copied().zip(new_at.iter().skip(new_index).copied())
    });
    let (mut old_from, mut new_from) = (0, 0);
    let mut changes = Vec::new();
    for (old_equal, new_equal) in pairs.chain(once((old.len(), new.len()))) {
        let change = Change { old: old_from..old_equal, new: new_from..new_equal };
        if !change.old.is_empty() || !change.new.is_empty() {
            changes.push(change);
        }
        (old_from, new_from) = (old_equal + 1, new_equal + 1);
    }
    changes
}

fn text(bytes: &[u8]) -> Option<&str> {
    if bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// Changes that lie near each other, and equal lines around them; none when these are more bytes than are left.
fn hunk(
    old: &[&str],
    new: &[&str],
    changes: &[Change],
    bytes_left: &mut usize,
) -> Option<DiffHunk> {
    use DiffLineKind::{Deleted, Equal, Inserted};

    let (first, last) = (changes.first()?, changes.last()?);
    // As many are equal before and after on both sides.
    let leading = first.old.start.min(CONTEXT_LINES);
    let trailing = (old.len() - last.old.end).min(CONTEXT_LINES);
    let old_range = first.old.start - leading..last.old.end + trailing;
    let new_range = first.new.start - leading..last.new.end + trailing;

    let mut lines = Vec::new();
    let mut add = |kind: DiffLineKind, texts: Option<&[&str]>| {
        for text in texts? {
            *bytes_left = bytes_left.checked_sub(text.len())?;
            let text = text.strip_suffix('\n').unwrap_or(text).to_owned();
            lines.push(DiffLine { kind, text });
        }
        Some(())
    };
    let mut equal_from = old_range.start;
    for change in changes {
        add(Equal, old.get(equal_from..change.old.start))?;
        add(Deleted, old.get(change.old.clone()))?;
        add(Inserted, new.get(change.new.clone()))?;
        equal_from = change.old.end;
    }
    add(Equal, old.get(equal_from..old_range.end))?;

    // Lines are counted from one; where there are none, the line before them is meant.
    let start = |range: &Range<usize>| (range.start + usize::from(!range.is_empty())) as u64;
    Some(DiffHunk {
        old_start: start(&old_range),
        old_lines: old_range.len() as u64,
        new_start: start(&new_range),
        new_lines: new_range.len() as u64,
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
            old in "([a-d]\n){0,12}", new in "([a-d]\n){0,12}",
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
        // Everything in common, in another order.
        let order = |factor: usize| -> String {
            (0..200_000)
                .map(|n| if (n * factor % 7919).is_multiple_of(2) { "a\n" } else { "b\n" })
                .collect()
        };
        let other = compare(order(31).as_bytes(), order(37).as_bytes()).unwrap();
        assert_eq!(other.insertions, other.deletions);
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }

    #[test]
    fn changes_near_each_other_share_a_hunk() {
        let text = |changed: &[usize]| {
            let line = |n| if changed.contains(&n) { format!("{n}!\n") } else { format!("{n}\n") };
            (0..30).map(line).collect::<String>()
        };
        let at = |changed: &[usize]| {
            let difference = compare(text(&[]).as_bytes(), text(changed).as_bytes()).unwrap();
            let at = |it: &DiffHunk| (it.old_start, it.old_lines, it.new_start, it.new_lines);
            difference.hunks.iter().map(at).collect::<Vec<_>>()
        };
        // Six equal lines between them are shown once, of seven one is left out.
        assert_eq!(at(&[10, 17]), [(8, 14, 8, 14)]);
        assert_eq!(at(&[10, 18]), [(8, 7, 8, 7), (16, 7, 16, 7)]);
        assert_eq!(at(&[0, 29]), [(1, 4, 1, 4), (27, 4, 27, 4)]);
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
