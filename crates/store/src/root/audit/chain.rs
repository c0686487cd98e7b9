//! The chain through the audit: the hash of a record is the SHA-256 of the hash before it and of the
//! record as JSON. The first one is made after 32 zero bytes.
//!
//! Records of servers that made no hashes are part of it all the same: the first record with a hash
//! stands on those that the earlier ones would have had.

use std::fmt::Write;

use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::StoreError;

/// SHA-256.
pub(super) type Hash = [u8; 32];

const BEFORE_THE_FIRST: Link = Link { id: 0, hash: [0; 32] };
/// Records that are read at a time.
const RECORDS_AT_ONCE: usize = 1_000;

/// What of a record is hashed, in this order: everything but the hash.
#[derive(Serialize)]
pub(super) struct Hashed<'a> {
    pub(super) id: u64,
    pub(super) at: i64,
    pub(super) user_id: Option<&'a str>,
    pub(super) credential: Option<&'a str>,
    pub(super) ip: Option<&'a str>,
    pub(super) action: &'a str,
    pub(super) target: &'a str,
    pub(super) project_id: Option<&'a str>,
    pub(super) result: &'a str,
    pub(super) request_id: Option<&'a str>,
    /// As it stands in the database.
    pub(super) details: &'a str,
}

impl Hashed<'_> {
    pub(super) fn hash_after(&self, before: &Hash) -> Result<Hash, StoreError> {
        let json = serde_json::to_vec(self)?;
        Ok(Sha256::new().chain_update(before).chain_update(json).finalize().into())
    }
}

/// The number of a record and its hash, on which the next one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: u64,
    pub(super) hash: Hash,
}

impl Link {
    pub(super) fn told(&self) -> AuditHead {
        AuditHead { id: self.id, hash: hex(&self.hash) }
    }
}

/// A record of the audit by which it is known again: the last one, or the last that was let go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHead {
    /// Its number; 0 when there is none.
    pub id: u64,
    /// Its hash, 64 hex digits.
    pub hash: String,
}

impl std::fmt::Display for AuditHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.id, self.hash)
    }
}

/// What became of a check of the whole audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditVerdict {
    /// How many records were sound.
    pub records: u64,
    /// How many were let go before them, when they had been kept for long enough.
    pub let_go: u64,
    /// The last sound one.
    pub head: AuditHead,
    /// What is wrong behind it; none when nothing is.
    pub damage: Option<AuditDamage>,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AuditDamage {
    /// It, or one before it that has no hash, is not what it was.
    #[error("record {id} is not what it was when it was written")]
    Changed {
        /// Its number.
        id: u64,
    },
    /// It is not there.
    #[error("record {id} is missing")]
    Missing {
        /// Its number.
        id: u64,
    },
    /// A record that is known from elsewhere was let go, so that nothing can be compared with it.
    #[error("record {id} was let go when it had been kept for long enough: take a newer head")]
    LetGo {
        /// Its number.
        id: u64,
    },
    /// A record that is known from elsewhere is gone or another one.
    #[error("record {id} is not the one that was known before")]
    NotTheHead {
        /// Its number.
        id: u64,
    },
}

/// The last record that was let go, on which the first one that is left stands.
pub(super) fn anchor(conn: &Connection) -> Result<Link, StoreError> {
    let sql = "SELECT id, hash FROM audit_anchor";
    let link = |row: &Row<'_>| Ok(Link { id: row.get(0)?, hash: row.get(1)? });
    let anchor = conn.prepare_cached(sql)?.query_row([], link).optional()?;
    Ok(anchor.unwrap_or(BEFORE_THE_FIRST))
}

/// The last record, which the next one stands on.
pub(super) fn end(conn: &Connection) -> Result<Link, StoreError> {
    let sql = "SELECT id, hash FROM audit WHERE id = (SELECT max(id) FROM audit)";
    let last = conn.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)));
    match last.optional()? {
        None => anchor(conn),
        Some((id, Some(hash))) => Ok(Link { id, hash }),
        // Once: behind it there is a hash.
        Some((id, None)) => {
            let mut walk = Walk::from(anchor(conn)?);
            while walk.page(conn)? {}
            Ok(Link { id, hash: walk.last.hash })
        }
    }
}

/// The last record as it is told.
pub(super) fn head(conn: &Connection) -> Result<AuditHead, StoreError> {
    Ok(end(conn)?.told())
}

/// Reads the whole audit and says where it is not what it was. `known` is the head that it had before.
pub(crate) fn verify(
    conn: &Connection,
    known: Option<&AuditHead>,
) -> Result<AuditVerdict, StoreError> {
    let anchor = anchor(conn)?;
    let mut walk = Walk::from(anchor);
    walk.known = known.cloned();
    walk.compare_with_anchor(anchor);
    while walk.damage.is_none() && walk.page(conn)? {}
    let Walk { last, known, mut damage } = walk;
    // It was not met on the way.
    if let Some(AuditHead { id, .. }) = known.filter(|_| damage.is_none()) {
        damage = Some(AuditDamage::NotTheHead { id });
    }
    let (records, let_go) = (last.id - anchor.id, anchor.id);
    Ok(AuditVerdict { records, let_go, head: last.told(), damage })
}

/// The last of the oldest records that are all alike, at most `count` of them and none behind `through`; none
/// when the oldest is not.
pub(super) fn last_alike(
    conn: &Connection,
    (count, through): (u64, u64),
    is_alike: impl Fn(u64, i64) -> bool,
) -> Result<Result<Option<Link>, AuditDamage>, StoreError> {
    let anchor = anchor(conn)?;
    let mut walk = Walk::from(anchor);
    let sql = "SELECT * FROM audit WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3";
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(rusqlite::params![anchor.id, through, count])?;
    while let Some(row) = rows.next()? {
        if !is_alike(row.get("id")?, row.get("at")?) {
            break;
        }
        walk.step(row)?;
        if let Some(damage) = walk.damage {
            return Ok(Err(damage));
        }
    }
    Ok(Ok((walk.last != anchor).then_some(walk.last)))
}

/// One record after the other.
struct Walk {
    /// The last one that was sound.
    last: Link,
    /// Still to be met.
    known: Option<AuditHead>,
    damage: Option<AuditDamage>,
}

impl From<Link> for Walk {
    fn from(last: Link) -> Self {
        Self { last, known: None, damage: None }
    }
}

impl Walk {
    /// What is known may be the last record that was let go, or one before it.
    fn compare_with_anchor(&mut self, anchor: Link) {
        let Some(known) = self.known.take_if(|known| known.id <= anchor.id) else { return };
        let id = known.id;
        if id < anchor.id {
            self.damage = Some(AuditDamage::LetGo { id });
        } else if known != anchor.told() {
            self.damage = Some(AuditDamage::NotTheHead { id });
        }
    }

    /// Reads some records. Says whether there may be more.
    fn page(&mut self, conn: &Connection) -> Result<bool, StoreError> {
        let sql = "SELECT * FROM audit WHERE id > ?1 ORDER BY id LIMIT ?2";
        let mut statement = conn.prepare_cached(sql)?;
        let limit = i64::try_from(RECORDS_AT_ONCE).unwrap_or(i64::MAX);
        let mut rows = statement.query(rusqlite::params![self.last.id, limit])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            count += 1;
            self.step(row)?;
            if self.damage.is_some() {
                return Ok(false);
            }
        }
        Ok(count == RECORDS_AT_ONCE)
    }

    fn step(&mut self, row: &Row<'_>) -> Result<(), StoreError> {
        let id: u64 = row.get("id")?;
        if id != self.last.id + 1 {
            self.damage = Some(AuditDamage::Missing { id: self.last.id + 1 });
            return Ok(());
        }
        let hash = hashed(row, id)?.hash_after(&self.last.hash)?;
        let stored: Option<Hash> = row.get("hash")?;
        if stored.is_some_and(|stored| stored != hash) {
            self.damage = Some(AuditDamage::Changed { id });
            return Ok(());
        }
        if let Some(known) = self.known.take_if(|known| known.id == id)
            && known.hash != hex(&hash)
        {
            self.damage = Some(AuditDamage::NotTheHead { id });
            return Ok(());
        }
        self.last = Link { id, hash };
        Ok(())
    }
}

fn hashed<'a>(row: &'a Row<'_>, id: u64) -> rusqlite::Result<Hashed<'a>> {
    let text = |column: &str| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str()?);
    let optional = |column: &str| Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str_or_null()?);
    Ok(Hashed {
        id,
        at: row.get("at")?,
        user_id: optional("user_id")?,
        credential: optional("credential")?,
        ip: optional("ip")?,
        action: text("action")?,
        target: text("target")?,
        project_id: optional("project_id")?,
        result: text("result")?,
        request_id: optional("request_id")?,
        details: text("details")?,
    })
}

pub(super) fn hex(hash: &Hash) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}
