//! What users used in all projects, as the projects tell it.
//!
//! A project tells what it used on a day in all, so that what is told twice counts once. After a restore it
//! is in another life (`epoch`) and knows less than it told before: what was used stays used, and what
//! it tells from then on counts from what it says first.

use iris_protocol::{ModelRef, ProjectId, UsageReport, UsageRow, UsageTotals, UserId};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use crate::column::{json, to_json, word};
use crate::project::{DayUsed, USAGE_ROWS_MAX};
use crate::totals::{self, Days, TOTALS};
use crate::{Command, StoreError, WhenFull, WriteTx};

const DAY: &str = "SELECT * FROM usage_days WHERE day = ?1 AND user_id = ?2 AND project_id = ?3
     AND provider_id = ?4 AND model_id = ?5 AND price_version = ?6";
const TOTAL: &str = "SELECT * FROM usage_totals WHERE user_id = ?1 AND period = ?2";
const HEAD: &str = "SELECT epoch, revision FROM usage_heads WHERE project_id = ?1";

/// Takes in what a project used.
#[derive(Debug, Clone)]
pub struct RecordUsage {
    /// The project.
    pub project_id: ProjectId,
    /// Its life.
    pub epoch: String,
    /// What changed, in the order of `revision`.
    pub days: Vec<DayUsed>,
}

impl Command for RecordUsage {
    type Output = ();

    /// What was used was used.
    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let Some(last) = self.days.last().map(|day| day.revision) else { return Ok(()) };
        let head = head(tx.conn(), &self.project_id, &self.epoch)?;
        // Whoever told it read later, and knew more.
        for day in self.days.iter().filter(|day| day.revision > head) {
            take_in(tx.conn(), &self.project_id, &self.epoch, day)?;
        }
        let sql = "INSERT INTO usage_heads (project_id, epoch, revision) VALUES (?1, ?2, ?3)
                   ON CONFLICT (project_id) DO UPDATE SET
                     revision = iif(epoch = ?2, max(revision, ?3), ?3), epoch = ?2";
        let key = params![self.project_id.as_str(), self.epoch, last];
        tx.conn().prepare_cached(sql)?.execute(key)?;
        Ok(())
    }
}

/// A day as it is known.
struct Known {
    totals: UsageTotals,
    told: UsageTotals,
    epoch: String,
}

fn take_in(
    conn: &Connection,
    project_id: &ProjectId,
    epoch: &str,
    day: &DayUsed,
) -> Result<(), StoreError> {
    let ModelRef { provider_id, model_id } = &day.model;
    let key = params![
        day.day,
        day.user_id.as_str(),
        project_id.as_str(),
        provider_id,
        model_id,
        day.price_version,
    ];
    let known = conn.prepare_cached(DAY)?.query_row(key, |row| {
        let (totals, told) = (totals::read(row)?, json(row, "told")?);
        Ok(Known { totals, told, epoch: row.get("epoch")? })
    });
    let known = known.optional()?;
    let (mut sum, more) = match known {
        None => (UsageTotals::default(), day.totals),
        Some(known) if known.epoch == epoch => (known.totals, since(&day.totals, &known.told)),
        // What was told in an earlier life is in it, or as much of it as was restored.
        Some(known) => (known.totals, since(&day.totals, &known.totals)),
    };
    sum.add(&more);
    let sql = format!(
        "INSERT OR REPLACE INTO usage_days (day, user_id, project_id, provider_id, model_id,
             price_version, told, epoch, {TOTALS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)"
    );
    let texts = [
        day.user_id.to_string(),
        project_id.to_string(),
        provider_id.clone(),
        model_id.clone(),
        day.price_version.clone(),
        to_json(&day.totals)?,
        epoch.to_owned(),
    ];
    let mut row = vec![Value::from(day.day)];
    row.extend(texts.into_iter().map(Value::from));
    row.extend(totals::values(&sum));
    conn.prepare_cached(&sql)?.execute(params_from_iter(row))?;
    for period in [String::new(), totals::month(day.day)] {
        add_total(conn, &day.user_id, &period, &more)?;
    }
    Ok(())
}

/// What came on top of `before`; never less than nothing.
fn since(now: &UsageTotals, before: &UsageTotals) -> UsageTotals {
    let (usage, told) = (&now.usage, &before.usage);
    let mut more = UsageTotals {
        steps: now.steps.saturating_sub(before.steps),
        unpriced_steps: now.unpriced_steps.saturating_sub(before.unpriced_steps),
        known_cost_nano_usd: now
            .known_cost_nano_usd
            .saturating_sub(before.known_cost_nano_usd)
            .max(0),
        wall_time_ms: now.wall_time_ms.saturating_sub(before.wall_time_ms),
        ..*now
    };
    more.usage.input_tokens = usage.input_tokens.saturating_sub(told.input_tokens);
    more.usage.output_tokens = usage.output_tokens.saturating_sub(told.output_tokens);
    more.usage.reasoning_tokens = usage.reasoning_tokens.saturating_sub(told.reasoning_tokens);
    more.usage.cache_read_tokens = usage.cache_read_tokens.saturating_sub(told.cache_read_tokens);
    more.usage.cache_write_tokens =
        usage.cache_write_tokens.saturating_sub(told.cache_write_tokens);
    more.usage.cache_write_1h_tokens =
        usage.cache_write_1h_tokens.saturating_sub(told.cache_write_1h_tokens);
    more.usage.server_tool_calls = usage.server_tool_calls.saturating_sub(told.server_tool_calls);
    more.with_cost()
}

fn add_total(
    conn: &Connection,
    user_id: &UserId,
    period: &str,
    more: &UsageTotals,
) -> Result<(), StoreError> {
    let mut sum = totals::find(conn, TOTAL, params![user_id.as_str(), period])?;
    sum.add(more);
    let sql = format!(
        "INSERT OR REPLACE INTO usage_totals (user_id, period, {TOTALS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    );
    let mut row = vec![Value::from(user_id.to_string()), Value::from(period.to_owned())];
    row.extend(totals::values(&sum));
    conn.prepare_cached(&sql)?.execute(params_from_iter(row))?;
    Ok(())
}

/// How far a project has told what was used in it, in this life.
pub(super) fn head(
    conn: &Connection,
    project_id: &ProjectId,
    epoch: &str,
) -> Result<i64, StoreError> {
    let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
    let found = conn.prepare_cached(HEAD)?.query_row([project_id.as_str()], read).optional()?;
    Ok(found.filter(|(known, _)| known == epoch).map_or(0, |(_, revision)| revision))
}

/// What a user used in all projects, for ever and in the month of `at`.
pub(super) fn of_user(
    conn: &Connection,
    user_id: &UserId,
    at: i64,
) -> Result<(UsageTotals, UsageTotals), StoreError> {
    let month = totals::month(totals::day(at));
    let total = |period: &str| totals::find(conn, TOTAL, params![user_id.as_str(), period]);
    Ok((total("")?, total(&month)?))
}

/// What users used, by day, user and project.
///
/// # Errors
/// `InvalidQuery` when there are more than [`USAGE_ROWS_MAX`] rows.
pub(super) fn report(
    conn: &Connection,
    user_id: Option<&UserId>,
    days: Days,
) -> Result<UsageReport, StoreError> {
    let rows = match user_id {
        Some(user_id) => rows_of_user(conn, user_id, days)?,
        None => rows_of_all(conn, days)?,
    };
    totals::reported(rows, USAGE_ROWS_MAX)
}

fn rows_of_user(
    conn: &Connection,
    user_id: &UserId,
    days: Days,
) -> rusqlite::Result<Vec<UsageRow>> {
    let sql = "SELECT * FROM usage_days WHERE user_id = ?1 AND day >= ?2 AND day <= ?3
               ORDER BY day, project_id, provider_id, model_id, price_version LIMIT ?4";
    let key = params![user_id.as_str(), days.first, days.last, USAGE_ROWS_MAX + 1];
    conn.prepare_cached(sql)?.query_map(key, usage_row)?.collect()
}

fn rows_of_all(conn: &Connection, days: Days) -> rusqlite::Result<Vec<UsageRow>> {
    let sql = "SELECT * FROM usage_days WHERE day >= ?1 AND day <= ?2
               ORDER BY day, user_id, project_id, provider_id, model_id, price_version LIMIT ?3";
    let key = params![days.first, days.last, USAGE_ROWS_MAX + 1];
    conn.prepare_cached(sql)?.query_map(key, usage_row)?.collect()
}

fn usage_row(row: &Row<'_>) -> rusqlite::Result<UsageRow> {
    let version: String = row.get("price_version")?;
    Ok(UsageRow {
        day: totals::date(row.get("day")?),
        project_id: Some(word(row, "project_id")?),
        user_id: word(row, "user_id")?,
        model: ModelRef { provider_id: row.get("provider_id")?, model_id: row.get("model_id")? },
        price_version: Some(version).filter(|version| !version.is_empty()),
        totals: totals::read(row)?,
    })
}
