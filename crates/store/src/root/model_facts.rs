//! What administrators know of models better than the catalogue does.

use iris_protocol::{ModelFacts, ModelRef, UserId};
use rusqlite::{Connection, params};

use super::audit::RecordAudit;
use crate::column::{json, to_json};
use crate::{Command, StoreError, WhenFull, WriteTx};

/// Most models of which something is set.
pub const MODEL_FACTS_MAX: u64 = 1_000;

/// What is set of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFacts {
    /// The model.
    pub model: ModelRef,
    /// What is known better.
    pub facts: ModelFacts,
    /// Rises over all models with each change.
    pub revision: i64,
}

/// Sets what is known of a model, in place of what was set before. Answers the revision.
///
/// Fails with `Conflict`: `too_many_models` when there are [`MODEL_FACTS_MAX`].
#[derive(Debug, Clone)]
pub struct SetModelFacts {
    /// The model.
    pub model: ModelRef,
    /// What is known; valid.
    pub facts: ModelFacts,
    /// What the audit says of it: who, when.
    pub audit: RecordAudit,
}

impl Command for SetModelFacts {
    type Output = i64;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<i64, StoreError> {
        let known = all(tx.conn())?;
        let is_new = known.iter().all(|stored| stored.model != self.model);
        if is_new && known.len() as u64 >= MODEL_FACTS_MAX {
            let message = format!("something is set of {MODEL_FACTS_MAX} models already");
            return Err(StoreError::conflict("too_many_models", message));
        }
        // The audit never forgets a change, so that no revision is given twice.
        let sql = "SELECT coalesce(max(id), 0) + 1 FROM audit";
        let revision: i64 = tx.conn().prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        let sql = "INSERT OR REPLACE INTO model_facts
                     (provider_id, model_id, facts, revision, set_by, set_at)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        tx.conn().prepare_cached(sql)?.execute(params![
            self.model.provider_id,
            self.model.model_id,
            to_json(&self.facts)?,
            revision,
            self.audit.user_id.as_ref().map_or("", UserId::as_str),
            self.audit.at,
        ])?;
        self.audit.run(tx)?;
        Ok(revision)
    }
}

/// Forgets what was set of a model.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct ResetModelFacts {
    /// The model.
    pub model: ModelRef,
    /// What the audit says of it: who, when.
    pub audit: RecordAudit,
}

impl Command for ResetModelFacts {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let sql = "DELETE FROM model_facts WHERE provider_id = ?1 AND model_id = ?2";
        let key = [&self.model.provider_id, &self.model.model_id];
        if tx.conn().prepare_cached(sql)?.execute(key)? == 0 {
            return Err(StoreError::NotFound { what: "facts of the model" });
        }
        self.audit.run(tx).map(drop)
    }
}

/// All that is set, at most [`MODEL_FACTS_MAX`].
pub(super) fn all(conn: &Connection) -> Result<Vec<StoredFacts>, StoreError> {
    let mut statement = conn.prepare_cached("SELECT * FROM model_facts")?;
    let rows = statement.query_map([], |row| {
        let model =
            ModelRef { provider_id: row.get("provider_id")?, model_id: row.get("model_id")? };
        Ok(StoredFacts { model, facts: json(row, "facts")?, revision: row.get("revision")? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
