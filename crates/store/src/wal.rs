//! The header of a write-ahead log (SQLite file format, section 4.1).
//!
//! SQLite takes a log whose header does not add up for an empty one and overwrites it. It is written
//! whole and synced before anything that was committed stands behind it, so a bad header with
//! something behind it is damage: the commits in it are about to be lost without a word.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::StoreError;

const HEADER_BYTES: usize = 32;
/// What the checksum covers.
const SUMMED_BYTES: usize = 24;
/// The last bit says whether the words of the checksum are big-endian.
const MAGIC: u32 = 0x377f_0682;

/// Checks the header of the log at `path`. One that is missing, empty or shorter than a header holds
/// no commits.
///
/// # Errors
/// `Corrupt` when the header does not add up; `Internal` when the log cannot be read.
pub(crate) fn check(path: &Path) -> Result<(), StoreError> {
    let mut header = [0; HEADER_BYTES];
    match read(path, &mut header) {
        Ok(true) if !is_sound(&header) => {
            Err(StoreError::corrupt("the header of the write-ahead log is damaged"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether there was a whole header to read.
fn read(path: &Path, header: &mut [u8]) -> io::Result<bool> {
    match File::open(path).and_then(|mut file| file.read_exact(header)) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_sound(header: &[u8; HEADER_BYTES]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let big = words.iter().map(|word| u32::from_be_bytes(*word));
    let [magic, _, _, _, _, _, sum_1, sum_2] = collect(big);
    if magic & !1 != MAGIC {
        return false;
    }
    let (summed, _) = words.split_at(SUMMED_BYTES / 4);
    let is_big = magic & 1 == 1;
    let read = |word: [u8; 4]| {
        if is_big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    };
    let (mut first, mut second) = (0_u32, 0_u32);
    for pair in summed.as_chunks::<2>().0 {
        let [a, b] = pair.map(read);
        first = first.wrapping_add(a).wrapping_add(second);
        second = second.wrapping_add(b).wrapping_add(first);
    }
    (first, second) == (sum_1, sum_2)
}

fn collect(words: impl Iterator<Item = u32>) -> [u32; HEADER_BYTES / 4] {
    let mut all = [0; HEADER_BYTES / 4];
    for (place, word) in all.iter_mut().zip(words) {
        *place = word;
    }
    all
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_header_that_was_changed_anywhere_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("some.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1)",
        )
        .unwrap();
        let log = directory.path().join("some.db-wal");
        check(&log).unwrap();
        let whole = std::fs::read(&log).unwrap();
        assert!(whole.len() > HEADER_BYTES);
        let copy = directory.path().join("copy");
        for index in 0..HEADER_BYTES {
            let mut bytes = whole.clone();
            bytes[index] ^= 0x10;
            std::fs::write(&copy, bytes).unwrap();
            assert!(matches!(check(&copy), Err(StoreError::Corrupt { .. })), "byte {index}");
        }
        std::fs::write(&copy, vec![0; whole.len()]).unwrap();
        assert!(check(&copy).is_err());
        for length in [0, 1, HEADER_BYTES - 1] {
            std::fs::write(&copy, &whole[..length]).unwrap();
            check(&copy).unwrap();
        }
        check(&directory.path().join("missing")).unwrap();
    }
}
