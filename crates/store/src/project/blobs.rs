//! Large values, each stored once under the SHA-256 of what it holds, compressed where that helps,
//! and checked whenever it is read.
//!
//! Rows name a blob by its hash; triggers count them. What nothing names is collected later, in
//! bites, so that a deletion need not wait for it.

use iris_protocol::Part;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::queries;
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Values of this many bytes are worth a blob of their own.
pub const BLOB_BYTES_MIN: usize = 8 * 1024;
/// Largest value, in bytes: what a damaged size cannot make a reader allocate.
pub const BLOB_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Most blobs that one command collects, and most bytes of them as stored.
const COLLECTED_MAX: u32 = 200;

/// The level that zstd takes when it is not told.
const LEVEL: i32 = 3;

const STORED: &str = "SELECT size, encoding, content FROM blobs WHERE hash = ?1";
const COLLECT: &str = "DELETE FROM blobs
     WHERE hash IN (SELECT hash FROM blobs WHERE refs = 0 LIMIT ?1)";

/// The SHA-256 of what a blob holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

impl BlobHash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Of 64 hex digits; none for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(hash))
    }

    /// 64 hex digits.
    pub fn to_hex(self) -> String {
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }

    /// From a column that names a blob.
    pub(super) fn from_column(value: &[u8]) -> Result<Self, StoreError> {
        let hash = value.try_into().map_err(|_| StoreError::corrupt("a hash of another length"))?;
        Ok(Self(hash))
    }
}

/// Stores bytes and answers their name. Equal bytes are stored once.
///
/// The command that puts them must name them in a row too: what no row names is collected.
///
/// # Errors
/// `Internal` for more than [`BLOB_BYTES_MAX`]; `StorageFull` and `Internal` as the disk fails.
pub fn put(tx: &WriteTx<'_>, bytes: &[u8]) -> Result<BlobHash, StoreError> {
    put_on(tx.conn(), bytes)
}

/// The blob that holds what has this hash, if there is one.
pub(super) fn existing(conn: &Connection, hex: &str) -> Result<Option<BlobHash>, StoreError> {
    let Some(hash) = BlobHash::from_hex(hex) else { return Ok(None) };
    let is_there = conn.prepare_cached("SELECT 1 FROM blobs WHERE hash = ?1")?.exists([hash.0])?;
    Ok(is_there.then_some(hash))
}

pub(super) fn put_on(conn: &Connection, bytes: &[u8]) -> Result<BlobHash, StoreError> {
    if bytes.len() > BLOB_BYTES_MAX {
        return Err(StoreError::internal(format!("a value of {} bytes", bytes.len())));
    }
    let hash = BlobHash::of(bytes);
    let sql = "SELECT 1 FROM blobs WHERE hash = ?1";
    if conn.prepare_cached(sql)?.exists([hash.0])? {
        return Ok(hash);
    }
    let compressed = zstd::bulk::compress(bytes, LEVEL)?;
    let saves = compressed.len() <= bytes.len() - bytes.len() / 8;
    let (encoding, content) = if saves { ("zstd", &*compressed) } else { ("plain", bytes) };
    let sql = "INSERT INTO blobs (hash, size, encoding, content) VALUES (?1, ?2, ?3, ?4)";
    conn.prepare_cached(sql)?.execute(params![hash.0, bytes.len(), encoding, content])?;
    Ok(hash)
}

/// What a blob holds, checked against its name.
///
/// # Errors
/// `BlobCorrupt` when it is not there or holds anything else; as the disk fails.
pub fn get(conn: &Connection, hash: BlobHash) -> Result<Vec<u8>, StoreError> {
    let stored = queries::first(conn, STORED, [hash.0], |row| {
        let content = match row.get_ref(2)? {
            ValueRef::Blob(content) => content,
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) => &[],
        };
        let (size, encoding) = (row.get::<_, u64>(0)?, row.get::<_, String>(1)?);
        Ok(decode(size, &encoding, content))
    })?;
    let bytes = stored.flatten().filter(|bytes| BlobHash::of(bytes) == hash);
    bytes.ok_or_else(|| {
        let hash = hash.to_hex();
        tracing::error!(blob.hash = %hash, "a blob is damaged");
        StoreError::BlobCorrupt { hash }
    })
}

fn decode(size: u64, encoding: &str, content: &[u8]) -> Option<Vec<u8>> {
    let size = usize::try_from(size).ok().filter(|size| *size <= BLOB_BYTES_MAX)?;
    let bytes = match encoding {
        "plain" => content.to_vec(),
        "zstd" => zstd::bulk::decompress(content, size).ok()?,
        _ => return None,
    };
    Some(bytes).filter(|bytes| bytes.len() == size)
}

/// The text of a part that can be long, and that other parts may have too: what was said or thought,
/// or what a tool answered.
pub(super) fn long_text_of(part: &mut Part) -> Option<&mut String> {
    match part {
        Part::Text { text, .. } | Part::Reasoning { text, .. } => Some(text),
        Part::Tool(call) => call.output.as_mut(),
        Part::Compaction(part) => Some(&mut part.summary),
        Part::Subtask(_) | Part::AnswerFormat(_) | Part::Attachment(_) | Part::Step { .. } => None,
    }
}

/// Deletes blobs that nothing names, a bite at a time.
#[derive(Debug, Clone, Copy)]
pub struct CollectBlobs;

/// What a bite did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bite {
    /// Rows that are gone.
    pub rows: u64,
    /// Whether there may be more to do.
    pub more: bool,
}

impl Command for CollectBlobs {
    type Output = Bite;

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<Bite, StoreError> {
        let rows = tx.conn().prepare_cached(COLLECT)?.execute([COLLECTED_MAX])? as u64;
        Ok(Bite { rows, more: rows == u64::from(COLLECTED_MAX) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::database;
    use crate::project::SCHEMA;

    fn database() -> Connection {
        let mut conn = Connection::open_in_memory().unwrap();
        database::migrations(SCHEMA).to_latest(&mut conn).unwrap();
        conn
    }

    fn stored(conn: &Connection, hash: BlobHash) -> (u64, String, u64) {
        let sql = "SELECT size, encoding, octet_length(content) FROM blobs WHERE hash = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        conn.query_row(sql, [hash.0], read).unwrap()
    }

    #[test]
    fn bytes_are_compressed_only_where_an_eighth_is_saved() {
        let conn = database();
        let text = "all work and no play ".repeat(1_000).into_bytes();
        let hash = put_on(&conn, &text).unwrap();
        let (size, encoding, content) = stored(&conn, hash);
        assert_eq!((size, encoding.as_str()), (text.len() as u64, "zstd"));
        assert!(content < size / 8);
        assert_eq!(get(&conn, hash).unwrap(), text);

        // Nothing that hashes gives can be compressed.
        let noise: Vec<u8> = (0_u32..512).flat_map(|n| BlobHash::of(&n.to_le_bytes()).0).collect();
        let hash = put_on(&conn, &noise).unwrap();
        assert_eq!(stored(&conn, hash), (noise.len() as u64, "plain".to_owned(), 16 * 1024));
        assert_eq!(get(&conn, hash).unwrap(), noise);
    }

    #[test]
    fn equal_bytes_are_stored_once() {
        let conn = database();
        let first = put_on(&conn, b"same").unwrap();
        assert_eq!(put_on(&conn, b"same").unwrap(), first);
        let count: u32 =
            conn.query_row("SELECT count(*) FROM blobs", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn damage_of_any_kind_is_noticed() {
        let damage = [
            "UPDATE blobs SET content = zeroblob(octet_length(content))",
            "UPDATE blobs SET content = substr(content, 1, octet_length(content) - 1)",
            "UPDATE blobs SET size = size - 1",
            "UPDATE blobs SET size = 1 << 50",
            "UPDATE blobs SET encoding = 'plain'",
            "DELETE FROM blobs",
        ];
        for sql in damage {
            let conn = database();
            let hash = put_on(&conn, &b"x".repeat(20_000)).unwrap();
            conn.execute(sql, []).unwrap();
            let Err(error) = get(&conn, hash) else { panic!("not noticed: {sql}") };
            let is_told = |told: &String| *told == hash.to_hex();
            assert!(matches!(&error, StoreError::BlobCorrupt { hash } if is_told(hash)), "{sql}");
            let wire = error.to_api();
            assert_eq!(wire.code, iris_protocol::ErrorCode::ProjectCorrupt);
            assert_eq!(wire.details["reason"], "blob_corrupt");
            assert_eq!(wire.details["hash"], hash.to_hex());
        }
    }

    #[test]
    fn one_flipped_bit_is_noticed_wherever_it_is() {
        let conn = database();
        let bytes: Vec<u8> =
            (0..400_u16).flat_map(|n| [u8::try_from(n / 7).unwrap(), b'a']).collect();
        let hash = put_on(&conn, &bytes).unwrap();
        let read = "SELECT content FROM blobs";
        let content: Vec<u8> = conn.query_row(read, [], |row| row.get(0)).unwrap();
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            conn.execute("UPDATE blobs SET content = ?1", [&flipped]).unwrap();
            match get(&conn, hash) {
                // A bit of the frame's header that changes nothing of what is read.
                Ok(found) => assert_eq!(found, bytes),
                Err(error) => assert!(matches!(error, StoreError::BlobCorrupt { .. })),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_is_put_comes_back(
            unit in proptest::collection::vec(any::<u8>(), 0..300),
            times in 1_usize..200,
        ) {
            let conn = database();
            let bytes = unit.repeat(times);
            let hash = put_on(&conn, &bytes).unwrap();
            prop_assert_eq!(hash, BlobHash::of(&bytes));
            prop_assert_eq!(get(&conn, hash).unwrap(), bytes);
        }
    }
}
