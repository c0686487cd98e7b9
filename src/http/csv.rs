//! What was used as a table for spreadsheets (RFC 4180). What begins like a formula is made a text: names
//! of models come from users and providers.

use actix_web::HttpRequest;
use actix_web::http::header::ACCEPT;
use iris_protocol::{UsageReport, UsageRow};

/// The media type.
pub(super) const MEDIA_TYPE: &str = "text/csv; charset=utf-8; header=present";

const HEADER: &str = "day,projectId,userId,providerId,modelId,priceVersion,steps,unpricedSteps,\
                      inputTokens,outputTokens,reasoningTokens,cacheReadTokens,cacheWriteTokens,\
                      cacheWrite1hTokens,serverToolCalls,costNanoUsd,knownCostNanoUsd,wallTimeMs\r\n";

/// Whether the table is wanted: it is named before JSON and anything else.
pub(super) fn is_wanted(request: &HttpRequest) -> bool {
    let accepted = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let first = accepted.and_then(|accept| accept.split([',', ';']).next());
    first.is_some_and(|first| first.trim().eq_ignore_ascii_case("text/csv"))
}

/// All rows; a cost that is not known is empty, not 0.
pub(super) fn table(report: &UsageReport) -> String {
    let mut text = HEADER.to_owned();
    for row in &report.rows {
        push_row(&mut text, row);
    }
    text
}

fn push_row(text: &mut String, row: &UsageRow) {
    let UsageRow { day, project_id, user_id, model, price_version, totals } = row;
    let project = project_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let version = price_version.as_deref().unwrap_or_default();
    let words = [day, &project, user_id.as_str(), &model.provider_id, &model.model_id, version];
    let words = words.map(field).join(",");
    let usage = &totals.usage;
    let cost = usage.cost_nano_usd.map(|cost| cost.to_string()).unwrap_or_default();
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
    let counts = counts.map(|count| count.to_string()).join(",");
    let (known, wall) = (totals.known_cost_nano_usd, totals.wall_time_ms);
    let line = format!("{words},{counts},{cost},{known},{wall}\r\n");
    text.push_str(&line);
}

fn field(text: &str) -> String {
    let is_formula = |piece: &str| {
        piece.trim_start_matches([' ', '"']).starts_with(['=', '+', '-', '@', '\t', '\r'])
    };
    // Where spreadsheets part fields by `;`, no quote around them keeps them together.
    let said = |piece: &str| if is_formula(piece) { format!("'{piece}") } else { piece.to_owned() };
    let harmless = text.split(';').map(said).collect::<Vec<_>>().join(";");
    let (is_formula, text) = (harmless != text, harmless);
    if text.contains(['"', ',', '\n', '\r']) || is_formula {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

#[cfg(test)]
mod tests {
    use iris_protocol::{ModelRef, Usage, UsageTotals, UserId};

    use super::*;

    #[test]
    fn formulas_become_texts_and_odd_characters_stay_in_their_field() {
        for (text, expected) in [
            ("gpt-5", "gpt-5"),
            ("=1+1", "\"'=1+1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("-2", "\"'-2\""),
            ("+2", "\"'+2\""),
            ("\t=1", "\"'\t=1\""),
            ("x;=1", "\"x;'=1\""),
            ("x; \"-1", "\"x;' \"\"-1\""),
            ("x;y", "x;y"),
            ("a,b\"c", "\"a,b\"\"c\""),
        ] {
            assert_eq!(field(text), expected);
        }
    }

    #[test]
    fn a_cost_that_is_not_known_is_empty() {
        let usage = Usage { input_tokens: 7, ..Usage::default() };
        let row = UsageRow {
            day: "2026-11-29".into(),
            project_id: None,
            user_id: UserId::from_bits(1),
            model: ModelRef { provider_id: "p".into(), model_id: "m".into() },
            price_version: None,
            totals: UsageTotals::of_step(usage, 1, 9),
        };
        let report = UsageReport { total: UsageTotals::default(), rows: vec![row] };
        let table = table(&report);
        let lines: Vec<&str> = table.split("\r\n").collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0].split(',').count(), lines[1].split(',').count());
        let user = UserId::from_bits(1);
        assert_eq!(lines[1], format!("2026-11-29,,{user},p,m,,1,1,7,0,0,0,0,0,0,,0,9"));
    }
}
