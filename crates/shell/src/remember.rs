//! What is made of a judged line: the worst verdict, and the rule that "always" means.

use crate::piece::{Piece, Reading};

/// The worst verdict over all pieces, greatest is worst; `None` when there is nothing to judge.
///
/// Nothing to judge is no permission: whoever calls this asks a person then. A reading of
/// [`read`](crate::read) always has something.
///
/// ```
/// use iris_shell::{Piece, read, worst};
///
/// #[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
/// enum Verdict { Allow, Ask, Deny }
///
/// let judge = |piece: &Piece| match piece {
///     Piece::Command { text, .. } if text.starts_with("git ") => Verdict::Allow,
///     Piece::Command { text, .. } if text.starts_with("rm ") => Verdict::Deny,
///     _ => Verdict::Ask,
/// };
/// assert_eq!(worst(&read("git status && rm -rf x"), judge), Some(Verdict::Deny));
/// assert_eq!(worst(&read("git status > x"), judge), Some(Verdict::Ask));
/// assert_eq!(worst(&read("git status"), judge), Some(Verdict::Allow));
/// ```
pub fn worst<V: Ord>(reading: &Reading, judge: impl FnMut(&Piece) -> V) -> Option<V> {
    reading.pieces.iter().map(judge).max()
}

/// The pattern to save when a person answers "always" to `piece`; `None` when nothing is saved.
///
/// It is the text of a command with `\` before every character that means something in a glob, so
/// that it matches this command and no other. Files and opaque pieces are asked again each time: a
/// pattern over paths would also permit other tools to write there, and nobody can say what an
/// opaque piece will do the next time.
///
/// ```
/// use iris_shell::{read, remembered};
///
/// let reading = read("grep 'a*' x; rm $X");
/// let patterns: Vec<_> = reading.pieces.iter().map(remembered).collect();
/// assert_eq!(patterns, [Some(r"grep 'a\*' x".to_owned()), None]);
/// ```
#[must_use]
pub fn remembered(piece: &Piece) -> Option<String> {
    let Piece::Command { text, .. } = piece else { return None };
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '!' | '\\' | ',') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    Some(pattern)
}
