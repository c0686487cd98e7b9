//! What was used: counted with each step, in the transaction that records it, for all whose budgets it is
//! about. What it cost is recorded and never computed again.

use iris_protocol::{
    Budget, BudgetScope, ModelRef, RunId, SessionId, Usage, UsageReport, UsageRow, UsageTotals,
    UserId,
};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::{family, queries};
use crate::column::{optional_json, to_word, word};
use crate::totals::{self, Days, TOTALS};
use crate::{StoreError, WriteTx};

/// Most rows of one report.
pub const USAGE_ROWS_MAX: usize = 100_000;
/// Most rows that the root database is told of at once.
const TOLD_MAX: usize = 500;
/// Most runs above a run; more would be a circle.
const RUNS_ABOVE_MAX: usize = 8;
/// The key of the project among the totals, and its session among the days.
const PROJECT: &str = "";

const TOTAL: &str = "SELECT * FROM usage_totals WHERE scope = ?1 AND key = ?2";
const DAY: &str = "SELECT * FROM usage_days WHERE session_id = ?1 AND day = ?2 AND user_id = ?3
     AND provider_id = ?4 AND model_id = ?5 AND price_version = ?6";
/// The run whose call set this one to work.
const RUN_ABOVE: &str = "SELECT run_id FROM tasks WHERE child_run_id = ?1";
/// The agent that answers in a run.
const AGENT_OF_RUN: &str = "SELECT m.agent FROM runs r
     JOIN messages m ON m.session_id = r.session_id AND m.run_number = r.number AND m.place = 1
     WHERE r.id = ?1 AND m.agent IS NOT NULL";

/// What a step used, or an attempt at one that failed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spent {
    /// The model that was asked, where it is another one than the one that answers.
    pub model: Option<ModelRef>,
    /// The table of prices that its cost is of; none where that is not known.
    pub price_version: Option<String>,
    /// What is known of a cost that is not known in all, in billionths of a US dollar.
    pub at_least_nano_usd: i64,
    /// How long the run worked for it, in milliseconds.
    pub wall_time_ms: u64,
}

/// What was used and is no step: an attempt that failed, a call that was cut off, the work of tools behind
/// the last step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rest {
    /// As far as the provider said it, the rest estimated.
    pub usage: Usage,
    /// How it was charged for.
    pub spent: Spent,
}

/// Who used something.
pub(super) struct Used<'a> {
    /// For which run; none where it is for the session alone.
    pub(super) run: Option<&'a RunId>,
    pub(super) session: &'a SessionId,
    pub(super) by: &'a UserId,
    /// The model that answers.
    pub(super) model: Option<&'a ModelRef>,
}

/// Counts what was used for the run, the session, all above them and the project.
pub(super) fn count(
    tx: &WriteTx<'_>,
    who: &Used<'_>,
    spent: &Spent,
    totals: &UsageTotals,
    at: i64,
) -> Result<(), StoreError> {
    if *totals == UsageTotals::default() {
        return Ok(());
    }
    let (conn, day) = (tx.conn(), totals::day(at));
    let (user, month) = (who.by.as_str(), totals::month(day));
    if let Some(run) = who.run {
        for run in runs_from(conn, run)? {
            add_total(conn, BudgetScope::Run, run.as_str(), totals)?;
        }
    }
    let above = family::above(conn, who.session)?;
    let mut places = vec![who.session.to_string()];
    places.extend(above.iter().map(ToString::to_string));
    for session in &places {
        add_total(conn, BudgetScope::Session, session, totals)?;
    }
    add_total(conn, BudgetScope::User, user, totals)?;
    add_total(conn, BudgetScope::UserMonth, &format!("{month} {user}"), totals)?;
    add_total(conn, BudgetScope::Project, PROJECT, totals)?;
    add_total(conn, BudgetScope::ProjectMonth, &month, totals)?;
    places.push(PROJECT.to_owned());
    for place in &places {
        add_day(conn, place, day, who, spent, totals)?;
    }
    Ok(())
}

/// The run and those that wait for it, the nearest one first.
fn runs_from(conn: &Connection, id: &RunId) -> Result<Vec<RunId>, StoreError> {
    let mut runs = vec![id.clone()];
    while let Some(last) = runs.last() {
        let above: Option<RunId> =
            queries::first(conn, RUN_ABOVE, [last.as_str()], |row| word(row, "run_id"))?;
        let Some(above) = above else { break };
        if runs.len() > RUNS_ABOVE_MAX {
            return Err(StoreError::internal("a run has too many above it"));
        }
        runs.push(above);
    }
    Ok(runs)
}

fn total(conn: &Connection, scope: BudgetScope, key: &str) -> Result<UsageTotals, StoreError> {
    totals::find(conn, TOTAL, params![to_word(&scope)?, key])
}

fn add_total(
    conn: &Connection,
    scope: BudgetScope,
    key: &str,
    more: &UsageTotals,
) -> Result<(), StoreError> {
    let mut sum = total(conn, scope, key)?;
    sum.add(more);
    let sql = format!(
        "INSERT OR REPLACE INTO usage_totals (scope, key, {TOTALS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
    );
    let mut row = vec![Value::from(to_word(&scope)?), Value::from(key.to_owned())];
    row.extend(totals::values(&sum));
    conn.prepare_cached(&sql)?.execute(params_from_iter(row))?;
    Ok(())
}

fn add_day(
    conn: &Connection,
    session_id: &str,
    day: i64,
    who: &Used<'_>,
    spent: &Spent,
    more: &UsageTotals,
) -> Result<(), StoreError> {
    let user = who.by.as_str();
    let model = spent.model.as_ref().or(who.model);
    let (provider, model) =
        model.map_or(("", ""), |model| (model.provider_id.as_str(), model.model_id.as_str()));
    let version = spent.price_version.as_deref().unwrap_or_default();
    let mut sum =
        totals::find(conn, DAY, params![session_id, day, user, provider, model, version])?;
    sum.add(more);
    let revision = if session_id == PROJECT { revision(conn)?.saturating_add(1) } else { 0 };
    let sql = format!(
        "INSERT OR REPLACE INTO usage_days (session_id, day, user_id, provider_id, model_id,
             price_version, revision, {TOTALS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)"
    );
    let texts = [provider, model, version].map(|text| Value::from(text.to_owned()));
    let mut row =
        vec![Value::from(session_id.to_owned()), Value::from(day), Value::from(user.to_owned())];
    row.extend(texts.into_iter().chain([Value::from(revision)]));
    row.extend(totals::values(&sum));
    conn.prepare_cached(&sql)?.execute(params_from_iter(row))?;
    Ok(())
}

/// Of the last change of what the project used; 0 before the first.
fn revision(conn: &Connection) -> Result<i64, StoreError> {
    let sql = "SELECT revision FROM usage_days WHERE revision > 0 ORDER BY revision DESC LIMIT 1";
    Ok(queries::first(conn, sql, [], |row| row.get(0))?.unwrap_or(0))
}

/// What the project used of one model by one user on one day, as the root database is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayUsed {
    /// Days since 1970 UTC.
    pub day: i64,
    /// Who started the runs.
    pub user_id: UserId,
    /// The model.
    pub model: ModelRef,
    /// Empty where the cost is not known.
    pub price_version: String,
    /// All of that day so far.
    pub totals: UsageTotals,
    /// Rises with each change.
    pub revision: i64,
}

/// What changed after `revision`, as many rows as are told at once.
pub(super) fn changed_after(conn: &Connection, revision: i64) -> Result<Vec<DayUsed>, StoreError> {
    let sql = "SELECT * FROM usage_days WHERE revision > ?1 AND revision > 0
               ORDER BY revision LIMIT ?2";
    queries::all(conn, sql, params![revision, TOLD_MAX], |row| {
        Ok(DayUsed {
            day: row.get("day")?,
            user_id: word(row, "user_id")?,
            model: model(row)?,
            price_version: row.get("price_version")?,
            totals: totals::read(row)?,
            revision: row.get("revision")?,
        })
    })
}

fn model(row: &Row<'_>) -> rusqlite::Result<ModelRef> {
    Ok(ModelRef { provider_id: row.get("provider_id")?, model_id: row.get("model_id")? })
}

/// What a session used with its sub-agents, or the whole project.
///
/// # Errors
/// `NotFound` (session); `InvalidQuery` when there are more than [`USAGE_ROWS_MAX`] rows.
pub(super) fn report(
    conn: &Connection,
    session_id: Option<&SessionId>,
    days: Days,
) -> Result<UsageReport, StoreError> {
    if let Some(id) = session_id {
        queries::existing_session(conn, id)?;
    }
    let place = session_id.map_or(PROJECT, SessionId::as_str);
    let sql = "SELECT * FROM usage_days WHERE session_id = ?1 AND day >= ?2 AND day <= ?3
               ORDER BY day, user_id, provider_id, model_id, price_version LIMIT ?4";
    let most = USAGE_ROWS_MAX + 1;
    let rows = queries::all(conn, sql, params![place, days.first, days.last, most], usage_row)?;
    totals::reported(rows, USAGE_ROWS_MAX)
}

fn usage_row(row: &Row<'_>) -> rusqlite::Result<UsageRow> {
    let version: String = row.get("price_version")?;
    Ok(UsageRow {
        day: totals::date(row.get("day")?),
        project_id: None,
        user_id: word(row, "user_id")?,
        model: model(row)?,
        price_version: Some(version).filter(|version| !matches!(version.as_str(), "" | "-")),
        totals: totals::read(row)?,
    })
}

/// What the budgets that count for a run are compared with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spending {
    /// The run and those that wait for it, the nearest one first: who answers, and what they used.
    pub runs: Vec<(Option<String>, UsageTotals)>,
    /// Its session and those above, the nearest one first: their budgets, and what they used.
    pub sessions: Vec<(Budget, UsageTotals)>,
    /// Who started it.
    pub user: UsageTotals,
    /// The same in this month.
    pub user_month: UsageTotals,
    /// The project.
    pub project: UsageTotals,
    /// The same in this month.
    pub project_month: UsageTotals,
}

pub(super) fn spending(
    conn: &Connection,
    session_id: &SessionId,
    run_id: &RunId,
    user_id: &UserId,
    at: i64,
) -> Result<Spending, StoreError> {
    let month = totals::month(totals::day(at));
    let mut runs = Vec::new();
    for run in runs_from(conn, run_id)? {
        let agent: Option<String> =
            queries::first(conn, AGENT_OF_RUN, [run.as_str()], |row| row.get(0))?;
        runs.push((agent, total(conn, BudgetScope::Run, run.as_str())?));
    }
    let mut sessions = Vec::new();
    let above = family::above(conn, session_id)?;
    for session in std::iter::once(session_id).chain(&above) {
        let sql = "SELECT budget FROM sessions WHERE id = ?1";
        let budget: Option<Option<Budget>> =
            queries::first(conn, sql, [session.as_str()], |row| optional_json(row, "budget"))?;
        let used = total(conn, BudgetScope::Session, session.as_str())?;
        sessions.push((budget.flatten().unwrap_or_default(), used));
    }
    let user = user_id.as_str();
    Ok(Spending {
        runs,
        sessions,
        user: total(conn, BudgetScope::User, user)?,
        user_month: total(conn, BudgetScope::UserMonth, &format!("{month} {user}"))?,
        project: total(conn, BudgetScope::Project, PROJECT)?,
        project_month: total(conn, BudgetScope::ProjectMonth, &month)?,
    })
}

/// What sessions used with their sub-agents, and those above them.
pub(super) fn of_sessions(
    conn: &Connection,
    ids: &[SessionId],
) -> Result<Vec<(SessionId, UsageTotals)>, StoreError> {
    let mut all: Vec<SessionId> = Vec::new();
    for id in ids {
        for one in std::iter::once(id.clone()).chain(family::above(conn, id)?) {
            if !all.contains(&one) {
                all.push(one);
            }
        }
    }
    let of = |id: SessionId| Ok((id.clone(), total(conn, BudgetScope::Session, id.as_str())?));
    all.into_iter().map(of).collect()
}
