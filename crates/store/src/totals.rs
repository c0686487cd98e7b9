//! Sums of what was used as columns, the same in both databases. They are added up here and not by
//! SQLite, whose sums fail when they overflow.

use iris_protocol::{Usage, UsageReport, UsageRow, UsageTotals};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Params, Row};

use crate::StoreError;

/// The columns of a sum, in the order of [`values`].
pub(crate) const TOTALS: &str = "steps, unpriced_steps, input_tokens, output_tokens,
    reasoning_tokens, cache_read_tokens, cache_write_tokens, cache_write_1h_tokens,
    server_tool_calls, known_cost, wall_time";

pub(crate) fn values(totals: &UsageTotals) -> Vec<Value> {
    let usage = &totals.usage;
    let counts = [
        totals.steps,
        totals.unpriced_steps,
        usage.input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        usage.server_tool_calls,
    ];
    let counts = counts.into_iter().map(held);
    counts.chain([totals.known_cost_nano_usd, held(totals.wall_time_ms)]).map(Value::from).collect()
}

/// As much as a column can hold.
fn held(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<UsageTotals> {
    let usage = Usage {
        input_tokens: row.get("input_tokens")?,
        output_tokens: row.get("output_tokens")?,
        reasoning_tokens: row.get("reasoning_tokens")?,
        cache_read_tokens: row.get("cache_read_tokens")?,
        cache_write_tokens: row.get("cache_write_tokens")?,
        cache_write_1h_tokens: row.get("cache_write_1h_tokens")?,
        server_tool_calls: row.get("server_tool_calls")?,
        cost_nano_usd: None,
        // Kept with steps, answers and runs; here it shows as a step without a cost.
        incomplete: false,
    };
    let totals = UsageTotals {
        usage,
        steps: row.get("steps")?,
        unpriced_steps: row.get("unpriced_steps")?,
        known_cost_nano_usd: row.get("known_cost")?,
        wall_time_ms: row.get("wall_time")?,
    };
    Ok(totals.with_cost())
}

/// The sum that `sql` finds; nothing where there is none.
pub(crate) fn find(
    conn: &Connection,
    sql: &str,
    key: impl Params,
) -> Result<UsageTotals, StoreError> {
    let found = conn.prepare_cached(sql)?.query_row(key, read).optional()?;
    Ok(found.unwrap_or_default().with_cost())
}

/// The rows of a report with their sum.
///
/// # Errors
/// `InvalidQuery` when there are more than `most`: nothing is left out in silence.
pub(crate) fn reported(rows: Vec<UsageRow>, most: usize) -> Result<UsageReport, StoreError> {
    if rows.len() > most {
        let problem = format!("there are more than {most} rows: ask for a shorter time");
        return Err(StoreError::InvalidQuery { problem });
    }
    let mut total = UsageTotals::default().with_cost();
    for row in &rows {
        total.add(&row.totals);
    }
    Ok(UsageReport { total, rows })
}

/// A day as in `2026-11-29`, of days since 1970 UTC (the algorithm is that of Howard Hinnant's
/// `civil_from_days`).
pub(crate) fn date(day: i64) -> String {
    let shifted = day.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The month of a day, as in `2026-11`.
pub(crate) fn month(day: i64) -> String {
    let date = date(day);
    date.rsplit_once('-').map_or(date.clone(), |(month, _)| month.to_owned())
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The day of a moment in milliseconds since 1970 UTC.
pub(crate) fn day(at: i64) -> i64 {
    at.div_euclid(DAY_MS)
}

/// The days of a time: from the one of its first moment to the one of its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    /// Days since 1970 UTC.
    pub(crate) first: i64,
    /// The last one.
    pub(crate) last: i64,
}

impl Days {
    /// The days from the moment `from` to the moment before `to`, in milliseconds since 1970 UTC; those that
    /// are absent have no end.
    pub fn between(from: Option<i64>, to: Option<i64>) -> Self {
        let last = to.map_or(i64::MAX, |to| day(to.saturating_sub(1)));
        Self { first: from.map_or(i64::MIN, day), last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (at, expected) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (1_795_996_799_999, "2026-11-29"),
            (1_795_996_800_000, "2026-11-30"),
            (-1, "1969-12-31"),
        ] {
            assert_eq!(date(day(at)), expected, "{at}");
        }
        assert_eq!(month(day(1_795_900_000_000)), "2026-11");
    }

    #[test]
    fn a_time_covers_the_days_that_it_touches() {
        let days = Days::between(Some(DAY_MS - 1), Some(2 * DAY_MS));
        assert_eq!((days.first, days.last), (0, 1));
        let days = Days::between(None, Some(2 * DAY_MS + 1));
        assert_eq!((days.first, days.last), (i64::MIN, 2));
    }
}
