//! A quick look that tells most patterns apart from most texts.

/// Which pairs of neighbouring bytes occur in a text, roughly: each pair has one of 128 bits, and shares
/// it with others.
///
/// What a pattern names literally has to be in everything that it matches, so a pattern whose bits are
/// not all in the signature of a text does not match it. Most of ten thousand patterns end here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature(u128);

impl Signature {
    pub(super) fn of_text(text: &str) -> Self {
        Self(text.as_bytes().windows(2).fold(0, |bits, pair| bits | bit(pair)))
    }

    /// Of the literal text before the first character that makes alternatives of what is behind it, or
    /// that changes the meaning of the next one. A slash is left out: `**/` may stand for nothing.
    pub(super) fn of_pattern(pattern: &str) -> Self {
        let plain = pattern.split(['[', '{', '\\']).next().unwrap_or_default();
        let runs = plain.split(['*', '?', '/', '!', '^', ',', ']', '}']);
        Self(runs.fold(0, |bits, run| bits | Self::of_text(run).0))
    }

    pub(super) fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }
}

fn bit(pair: &[u8]) -> u128 {
    let number = pair.iter().fold(0_u8, |number, byte| number.wrapping_mul(31).wrapping_add(*byte));
    1 << (number % 128)
}
