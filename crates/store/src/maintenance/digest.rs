//! The rows of a database as hashes, to tell whether two databases hold the same.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use sha2::{Digest, Sha256};

use super::adopt::{self, Adoption, Column, quoted};
use super::payload::{Kind, Words};
use super::{facts, read_only};
use crate::{StoreError, project};

/// What each table holds, by its name.
pub type Digests = BTreeMap<String, TableDigest>;

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableDigest {
    /// How many.
    pub rows: u64,
    /// SHA-256 of the hashes of the rows, sorted: the order in which they lie does not matter.
    pub sha256: [u8; 32],
}

/// Hashes every row of every table of the project database at `path`, as it is, or as it would be
/// after `adoption`. Left out is what a copy does not keep: the epoch, and the answers kept for
/// repeated commands. Works beside a running server.
///
/// # Errors
/// As [`super::project_facts`].
pub fn digests(path: &Path, adoption: Option<&Adoption>) -> Result<Digests, StoreError> {
    let mut conn = read_only(path, project::SCHEMA)?;
    let before = facts(&conn)?;
    let words = adoption.map(|adoption| adopt::words(&before.project_id, adoption));
    let tx = conn.transaction()?;
    let mut digests = Digests::new();
    for (table, columns) in adopt::tables(&tx)? {
        if table != "idempotency" {
            let digest = table_digest(&tx, &table, &columns, words.as_ref())?;
            digests.insert(table, digest);
        }
    }
    Ok(digests)
}

fn table_digest(
    conn: &Connection,
    table: &str,
    columns: &[Column],
    words: Option<&Words>,
) -> Result<TableDigest, StoreError> {
    let mut statement = conn.prepare(&format!("SELECT * FROM {}", quoted(table)))?;
    let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let kinds: Vec<Option<Kind>> = names
        .iter()
        .map(|name| columns.iter().find(|column| column.name == *name).map(|column| column.kind))
        .collect();
    let mut rows = statement.query([])?;
    let mut hashes = Vec::new();
    while let Some(row) = rows.next()? {
        hashes.push(row_hash(row, table, &names, &kinds, words)?);
    }
    hashes.sort_unstable();
    let mut all = Sha256::new();
    for hash in &hashes {
        all.update(hash);
    }
    Ok(TableDigest { rows: hashes.len() as u64, sha256: all.finalize().into() })
}

fn row_hash(
    row: &Row<'_>,
    table: &str,
    names: &[String],
    kinds: &[Option<Kind>],
    words: Option<&Words>,
) -> Result<[u8; 32], StoreError> {
    let mut hash = Sha256::new();
    for (index, (name, kind)) in names.iter().zip(kinds).enumerate() {
        if table == "meta" && name == "epoch" {
            continue;
        }
        add(&mut hash, name.as_bytes());
        match row.get_ref(index)? {
            ValueRef::Null => add(&mut hash, b"null"),
            ValueRef::Integer(number) => add(&mut hash, format!("i{number}").as_bytes()),
            ValueRef::Real(number) => add(&mut hash, format!("r{number:?}").as_bytes()),
            ValueRef::Blob(bytes) => {
                add(&mut hash, b"blob");
                add(&mut hash, bytes);
            }
            ValueRef::Text(bytes) => {
                add(&mut hash, b"text");
                let changed = words.zip(*kind).and_then(|(words, kind)| {
                    let text = std::str::from_utf8(bytes).ok()?;
                    match kind {
                        Kind::Word => words.word(text).map(str::to_owned),
                        Kind::Structure => words.json(text),
                    }
                });
                add(&mut hash, changed.as_deref().map_or(bytes, str::as_bytes));
            }
        }
    }
    Ok(hash.finalize().into())
}

/// With its length before it, so that no two rows look alike.
fn add(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
