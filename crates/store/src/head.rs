//! The head file: the last event that was acknowledged, written down beside the database.
//!
//! SQLite replays a write-ahead log up to its first damaged frame and says nothing of the rest, so a
//! database alone cannot tell that it has lost commits. This file can
//! (docs/decisions/0010-a-head-file.md). It is written after a commit that is on the disk and never
//! synced itself: it may fall behind, and is never ahead of what the disk had.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::StoreError;

/// Beside `project.db`.
const NAME: &str = "project.head";
/// Of the hash of the epoch, of the number, and of the checksum over both.
const FIELD_BYTES: usize = 8;
const HEAD_BYTES: usize = 3 * FIELD_BYTES;

/// An open head file.
#[derive(Debug)]
pub(crate) struct HeadFile {
    file: File,
    epoch: [u8; FIELD_BYTES],
    /// Whether the last write failed; said once.
    fails: bool,
}

impl HeadFile {
    /// Opens the head file of the database at `database`, or makes an empty one. What stands in it is
    /// left until the first [`HeadFile::write`].
    pub(crate) fn open(database: &Path, epoch: &str) -> io::Result<Self> {
        let path = database.with_file_name(NAME);
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, epoch: hash(epoch.as_bytes()), fails: false })
    }

    /// Writes down the last event of a commit that is on the disk. A failure is no reason to refuse
    /// anything: a head that stays behind makes no statement.
    pub(crate) fn write(&mut self, seq: u64) {
        let written = self.file.rewind().and_then(|()| self.file.write_all(&self.encode(seq)));
        match written {
            Ok(()) => self.fails = false,
            Err(error) if !self.fails => {
                tracing::warn!(%error, "the head file could not be written");
                self.fails = true;
            }
            Err(_) => {}
        }
    }

    fn encode(&self, seq: u64) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        let sum = checksum(self.epoch, seq);
        let fields = self.epoch.into_iter().chain(seq.to_be_bytes()).chain(sum);
        for (byte, value) in bytes.iter_mut().zip(fields) {
            *byte = value;
        }
        bytes
    }
}

/// Compares the head file with a database of `epoch` whose last event is `last_seq`, and that nobody
/// writes meanwhile. A file that is missing, garbled or of another epoch says nothing.
///
/// # Errors
/// `Corrupt` when events are missing that were acknowledged.
pub(crate) fn check(database: &Path, epoch: &str, last_seq: u64) -> Result<(), StoreError> {
    Head::read(database).check(epoch, last_seq)
}

/// What a head file said at one moment. A database that is read after that, while a server writes it,
/// has all of it.
pub(crate) struct Head(Option<(u64, [u8; FIELD_BYTES])>);

impl Head {
    /// Of the database at `database`.
    pub(crate) fn read(database: &Path) -> Self {
        Self(read(&database.with_file_name(NAME)))
    }

    /// As [`check`].
    pub(crate) fn check(&self, epoch: &str, last_seq: u64) -> Result<(), StoreError> {
        match self.0 {
            Some((acknowledged, of_epoch))
                if of_epoch == hash(epoch.as_bytes()) && acknowledged > last_seq =>
            {
                Err(StoreError::corrupt(format!(
                    "the database lacks events that were acknowledged: {acknowledged} > {last_seq}"
                )))
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn read(path: &Path) -> Option<(u64, [u8; FIELD_BYTES])> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + 1);
    File::open(path).ok()?.take(HEAD_BYTES as u64 + 1).read_to_end(&mut bytes).ok()?;
    let [of_epoch, seq, sum] = fields(&bytes)?;
    let seq = u64::from_be_bytes(seq);
    (sum == checksum(of_epoch, seq)).then_some((seq, of_epoch))
}

fn fields(bytes: &[u8]) -> Option<[[u8; FIELD_BYTES]; 3]> {
    let (fields, rest) = bytes.as_chunks::<FIELD_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    fields.try_into().ok()
}

fn checksum(epoch: [u8; FIELD_BYTES], seq: u64) -> [u8; FIELD_BYTES] {
    let mut bytes = [0; 2 * FIELD_BYTES];
    for (byte, value) in bytes.iter_mut().zip(epoch.into_iter().chain(seq.to_be_bytes())) {
        *byte = value;
    }
    hash(&bytes)
}

/// The first bytes of the SHA-256.
fn hash(bytes: &[u8]) -> [u8; FIELD_BYTES] {
    let digest = Sha256::digest(bytes);
    let mut short = [0; FIELD_BYTES];
    for (byte, value) in short.iter_mut().zip(digest) {
        *byte = value;
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(database: &Path, epoch: &str, last_seq: u64) -> Option<String> {
        check(database, epoch, last_seq).err().map(|error| error.to_string())
    }

    #[test]
    fn a_database_that_lacks_what_was_acknowledged_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("project.db");
        assert_eq!(refusal(&database, "one", 0), None, "no file, no statement");
        let mut head = HeadFile::open(&database, "one").unwrap();
        assert_eq!(refusal(&database, "one", 0), None, "an empty file makes no statement");
        head.write(300);
        head.write(7);
        assert_eq!(refusal(&database, "one", 7), None);
        assert_eq!(refusal(&database, "one", 8), None, "it may fall behind");
        assert!(refusal(&database, "one", 6).unwrap().contains("acknowledged: 7 > 6"));
        assert_eq!(refusal(&database, "another", 6), None, "a restore begins another epoch");
    }

    #[test]
    fn a_garbled_head_file_makes_no_statement() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("project.db");
        HeadFile::open(&database, "one").unwrap().write(7);
        let path = directory.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(whole.len(), HEAD_BYTES);
        for index in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[index] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(refusal(&database, "one", 0), None, "byte {index}");
        }
        for bytes in [&whole[..23], &[&whole[..], b"x"].concat()] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(refusal(&database, "one", 0), None);
        }
        std::fs::write(&path, whole).unwrap();
        assert!(refusal(&database, "one", 0).is_some());
    }
}
