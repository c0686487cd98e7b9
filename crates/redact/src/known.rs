//! Secrets that were learnt.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use parking_lot::RwLock;

use crate::{MARK, forms};

/// Most secrets that are remembered; the oldest are forgotten first.
pub(crate) const SECRETS_MAX: usize = 64;
/// Most bytes of all of them: what finds them takes many times their size.
const BYTES_MAX: usize = 8 * 1024;
/// Shorter ones would be found in ordinary words.
const SECRET_BYTES_MIN: usize = 8;
/// A longer text is no secret that anything is shown of.
const SECRET_BYTES_MAX: usize = 4 * 1024;
/// Fewer characters of a secret at the edge of a piece say nothing.
const CUT_BYTES_MIN: usize = 4;

#[derive(Default)]
pub(crate) struct Known(RwLock<Secrets>);

#[derive(Default)]
struct Secrets {
    /// Oldest first.
    all: VecDeque<String>,
    set: HashSet<String>,
    /// Of all of them.
    bytes: usize,
    /// Finds every form of all of them; none while there are none.
    finder: Option<AhoCorasick>,
    /// Whether others have come since it was made: it is made anew when it is needed.
    is_stale: bool,
}

impl Known {
    pub(crate) fn learn(&self, secret: &str) {
        let is_one = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len());
        if !is_one || self.0.read().set.contains(secret) {
            return;
        }
        let mut secrets = self.0.write();
        if !secrets.set.insert(secret.to_owned()) {
            return;
        }
        secrets.bytes += secret.len();
        secrets.all.push_back(secret.to_owned());
        while secrets.all.len() > SECRETS_MAX || secrets.bytes > BYTES_MAX {
            let Some(oldest) = secrets.all.pop_front() else { break };
            secrets.set.remove(&oldest);
            secrets.bytes -= oldest.len();
        }
        secrets.is_stale = true;
    }

    fn finder(&self) -> Option<AhoCorasick> {
        {
            let secrets = self.0.read();
            if !secrets.is_stale {
                return secrets.finder.clone();
            }
        }
        let mut secrets = self.0.write();
        if std::mem::take(&mut secrets.is_stale) {
            secrets.find_all();
        }
        secrets.finder.clone()
    }

    pub(crate) fn mask<'t>(&self, text: &'t str) -> Cow<'t, str> {
        // Nobody waits until a long text is looked through.
        let Some(finder) = self.finder() else { return Cow::Borrowed(text) };
        let mut masked = String::new();
        let mut kept_to = 0;
        for found in finder.find_iter(text) {
            masked.push_str(text.get(kept_to..found.start()).unwrap_or_default());
            masked.push_str(MARK);
            kept_to = found.end();
        }
        if kept_to == 0 {
            return Cow::Borrowed(text);
        }
        masked.push_str(text.get(kept_to..).unwrap_or_default());
        Cow::Owned(masked)
    }

    /// The part of a piece that is between secrets which its edges cut.
    pub(crate) fn within_cuts(&self, piece: &str) -> Range<usize> {
        let secrets = self.0.read();
        let (mut start, mut end) = (0, piece.len());
        for secret in &secrets.all {
            let longest = secret.len().min(piece.len() + 1) - 1;
            for length in (CUT_BYTES_MIN..=longest).rev() {
                let tail = secret.get(secret.len() - length..);
                if length > start && tail.is_some_and(|tail| piece.starts_with(tail)) {
                    start = length;
                }
                let head = secret.get(..length);
                if piece.len() - length < end && head.is_some_and(|head| piece.ends_with(head)) {
                    end = piece.len() - length;
                }
            }
        }
        start..end.max(start)
    }
}

impl Secrets {
    fn find_all(&mut self) {
        let forms = self.all.iter().flat_map(|secret| forms::of(secret));
        let mut builder = AhoCorasick::builder();
        // The longest form, so that nothing of it is left behind a shorter one. The kind is the one that is
        // made fast. More forms than it takes are not a mistake of ours: what was found before is found still.
        builder.match_kind(MatchKind::LeftmostLongest).kind(Some(AhoCorasickKind::ContiguousNFA));
        if let Ok(finder) = builder.build(forms) {
            self.finder = Some(finder);
        }
    }
}
