//! Reads when a provider wants to be asked again.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

/// How long a provider wants us to wait: `retry-after-ms`, else `retry-after` in seconds or as a date (RFC
/// 9110, 10.2.3), else when the limits that are used up begin anew. A date is taken relative to the answer's
/// own `date`, so that no clock of ours takes part.
pub(crate) fn after_ms(headers: &HeaderMap) -> Option<u64> {
    if let Some(delay) = header(headers, "retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(delay);
    }
    match header(headers, "retry-after") {
        Some(after) => match after.parse::<u64>() {
            Ok(seconds) => Some(seconds.saturating_mul(1000)),
            Err(_) => until(headers, after),
        },
        None => resets_ms(headers),
    }
}

/// Whether the provider says itself that asking again is, or is not, of use.
pub(crate) fn should(headers: &HeaderMap) -> Option<bool> {
    header(headers, "x-should-retry").and_then(|text| text.parse().ok())
}

fn until(headers: &HeaderMap, date: &str) -> Option<u64> {
    let then = httpdate::parse_http_date(date).ok()?;
    let now = httpdate::parse_http_date(header(headers, "date")?).ok()?;
    let delay = then.duration_since(now).unwrap_or(Duration::ZERO);
    u64::try_from(delay.as_millis()).ok()
}

/// The longest time until a limit that is used up begins anew.
fn resets_ms(headers: &HeaderMap) -> Option<u64> {
    let of_openai = ["requests", "tokens"].into_iter().filter_map(|what| {
        let is_used_up = header(headers, &format!("x-ratelimit-remaining-{what}")) == Some("0");
        let reset = header(headers, &format!("x-ratelimit-reset-{what}")).filter(|_| is_used_up);
        reset.and_then(duration_ms)
    });
    let of_anthropic = ["requests", "tokens", "input-tokens", "output-tokens"];
    let of_anthropic = of_anthropic.into_iter().filter_map(|what| {
        let left = header(headers, &format!("anthropic-ratelimit-{what}-remaining"));
        let reset = header(headers, &format!("anthropic-ratelimit-{what}-reset"));
        let then = moment_ms(reset.filter(|_| left.is_none_or(|left| left == "0"))?)?;
        let now = httpdate::parse_http_date(header(headers, "date")?).ok()?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(then.saturating_sub(u64::try_from(now.as_millis()).ok()?))
    });
    of_openai.chain(of_anthropic).max()
}

/// Milliseconds since 1970 of a moment in UTC like `2026-11-29T08:30:00Z` (RFC 3339); parts of a second do not
/// matter here. The days are counted by Howard Hinnant's `days_from_civil`.
fn moment_ms(text: &str) -> Option<u64> {
    let (whole, _) = text.strip_suffix('Z')?.split_once('.').unwrap_or((text, ""));
    let parts = whole.trim_end_matches('Z').split(['-', 'T', ':']).map(str::parse::<u64>);
    let parts = parts.collect::<Result<Vec<_>, _>>().ok()?;
    let [
        year @ 1970..=9999,
        month @ 1..=12,
        day @ 1..=31,
        hour @ ..=23,
        minute @ ..=59,
        second @ ..=60,
    ] = parts[..]
    else {
        return None;
    };
    // A year begins with March, so that the day of a leap year is its last one.
    let year = if month <= 2 { year - 1 } else { year };
    let days = 365 * year + year / 4 - year / 100 + year / 400;
    let days = days + (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
}

/// Milliseconds of a text like `34s`, `1.5s`, `6m0s` or `20ms`.
pub(crate) fn duration_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        let piece = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        total = total.checked_add(piece)?;
        rest = after;
    }
    u64::try_from(total.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn retry_after_is_read_in_all_forms() {
        for (name, value, expected) in [
            ("retry-after", "2", Some(2_000)),
            ("retry-after", "99999", Some(99_999_000)),
            ("retry-after", "18446744073709551615", Some(u64::MAX)),
            ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT", Some(10_000)),
            ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("retry-after", "soon", None),
            ("retry-after", "-3", None),
            ("retry-after-ms", "250", Some(250)),
        ] {
            let headers = headers(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT"), (name, value)]);
            assert_eq!(after_ms(&headers), expected, "{value}");
        }
    }

    #[test]
    fn limits_that_are_used_up_say_when_they_begin_anew() {
        let limits = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "6m0s"),
            ("x-ratelimit-remaining-tokens", "17"),
            ("x-ratelimit-reset-tokens", "9h"),
        ];
        assert_eq!(after_ms(&headers(&limits)), Some(360_000));
        let told = [&limits[..], &[("retry-after", "1")]].concat();
        assert_eq!(after_ms(&headers(&told)), Some(1_000));
    }

    #[test]
    fn limits_of_anthropic_begin_anew_at_a_moment() {
        let limits = [
            ("date", "Sun, 29 Nov 2026 08:30:00 GMT"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "2026-11-29T08:30:07Z"),
            ("anthropic-ratelimit-input-tokens-remaining", "12"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-11-29T09:30:00Z"),
        ];
        assert_eq!(after_ms(&headers(&limits)), Some(7_000));
        // Without a clock, or without a limit that is used up, nothing is known.
        assert_eq!(after_ms(&headers(&limits[1..])), None);
        assert_eq!(after_ms(&headers(&[limits[0], limits[3], limits[4]])), None);
        for (text, expected) in [
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("2000-02-29T23:59:59.25Z", Some(951_868_799_000)),
            ("2026-11-30T00:00:00Z", Some(1_795_996_800_000)),
            ("1969-12-31T23:59:59Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-11-30T00:00:00+02:00", None),
            ("2026-11-30T00:00Z", None),
            ("soon", None),
        ] {
            assert_eq!(moment_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn durations_are_read_or_refused() {
        for (text, expected) in [
            ("34s", Some(34_000)),
            ("1.5s", Some(1_500)),
            ("6m0s", Some(360_000)),
            ("20ms", Some(20)),
            ("1h2m", Some(3_720_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5d", None),
            ("1.2.3s", None),
            ("999999999999999999999999999999h", None),
        ] {
            assert_eq!(duration_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn a_provider_may_say_itself_whether_to_try_again() {
        assert_eq!(should(&headers(&[("x-should-retry", "false")])), Some(false));
        assert_eq!(should(&headers(&[("x-should-retry", "true")])), Some(true));
        assert_eq!(should(&headers(&[("x-should-retry", "maybe")])), None);
    }
}
