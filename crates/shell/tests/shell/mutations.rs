//! Inputs that are nearly those of a corpus.

/// Runs the body of a fuzz target over all of a corpus, and then over so many mutations of it, the same ones for
/// the same seed.
pub(crate) fn over_mutations(
    body: fn(&[u8]),
    corpus: &[Vec<u8>],
    pieces: &[&str],
    (rounds, seed): (usize, u64),
) {
    assert!(corpus.len() > 10, "{}", corpus.len());
    for entry in corpus {
        body(entry);
    }
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        let base = &corpus[random.usize(0..corpus.len())];
        let other = &corpus[random.usize(0..corpus.len())];
        body(&mutated(base, other, pieces, &mut random));
    }
}

/// `base` with one to four changes: bytes or lines that go or are others, an end that is cut off or that of
/// `other`, and pieces that mean something.
fn mutated(base: &[u8], other: &[u8], pieces: &[&str], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for _ in 0..random.usize(1..=4) {
        let at = random.usize(0..=bytes.len());
        let piece = pieces[random.usize(0..pieces.len())].as_bytes();
        match random.u8(0..9) {
            0 if at < bytes.len() => drop(bytes.remove(at)),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => bytes.truncate(at),
            3 => bytes.extend_from_slice(&other[random.usize(0..=other.len())..]),
            4 => {
                let line = line_at(&bytes, at);
                bytes.splice(line, []);
            }
            5 | 6 => {
                let line = line_at(other, random.usize(0..=other.len()));
                let start = line_at(&bytes, at).start;
                bytes.splice(start..start, other[line].iter().copied());
            }
            7 => {
                let start = line_at(&bytes, at).start;
                bytes.splice(start..start, piece.iter().copied());
            }
            _ => {
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
    bytes
}

/// Where the line begins and ends, its line feed included, that the byte `at` is in.
fn line_at(bytes: &[u8], at: usize) -> std::ops::Range<usize> {
    let start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |feed| feed + 1);
    let end = bytes[at..].iter().position(|byte| *byte == b'\n');
    start..end.map_or(bytes.len(), |feed| at + feed + 1)
}
