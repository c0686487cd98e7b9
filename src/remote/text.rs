//! What a server said, as lines of a terminal: times, amounts, records of the supervision log, and
//! nothing in them that a terminal would obey.

use std::fmt::Write;

use iris_protocol::{ExitKind, SupervisionRecord};
use serde::Serialize;
use time::OffsetDateTime;

const MS_PER_SECOND: i64 = 1_000;
const MS_PER_DAY: i64 = 86_400_000;

/// Whether a terminal would obey a character, or show the others around it in another order.
fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text in one line, with escapes in place of what a terminal would obey.
pub(crate) fn visible(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if is_active(c) {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// One line of JSON that is as harmless on a terminal. Characters outside of ASCII stand in strings
/// alone, where JSON knows an escape for them.
///
/// # Errors
/// When the value has no JSON.
pub(crate) fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        if is_active(c) {
            // Writing to a string cannot fail.
            write!(line, "\\u{:04x}", u32::from(c)).ok();
        } else {
            line.push(c);
        }
    }
    Ok(line)
}

/// A time in RFC 3339 with milliseconds, in UTC. `at` is in milliseconds since 1970.
/// Those that no calendar has, some ten thousand years from now, are told in milliseconds.
pub(crate) fn utc(at: i64) -> String {
    let (seconds, ms) = (at.div_euclid(MS_PER_SECOND), at.rem_euclid(MS_PER_SECOND));
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return format!("{at} ms after 1970-01-01T00:00:00.000Z");
    };
    let (year, month, day) = time.to_calendar_date();
    let (month, (hour, minute, second)) = (u8::from(month), time.to_hms());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The time of day alone, in UTC.
pub(crate) fn time_of_day(at: i64) -> String {
    let seconds = at.rem_euclid(MS_PER_DAY) / 1_000;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A span of time in its two largest units.
pub(crate) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", ms % 1_000 / 100),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        86_400.. => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A count in at most five characters, unless it is beyond all measure.
pub(crate) fn short_count(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..10_000_000 => format!("{}k", count / 1_000),
        10_000_000.. => format!("{}M", count / 1_000_000),
    }
}

/// A size of memory.
pub(crate) fn bytes(count: u64) -> String {
    const MIB: u64 = 1 << 20;
    if count < 1024 * MIB {
        return format!("{} MiB", count / MIB);
    }
    format!("{}.{} GiB", count / (1024 * MIB), count % (1024 * MIB) * 10 / (1024 * MIB))
}

/// All that a record tells beside time, kind and path, as `name=value`. Empty when that is nothing.
pub(crate) fn record_words(record: &SupervisionRecord) -> String {
    let mut words = Vec::new();
    if let Some(reason) = record.reason {
        words.push(format!("reason={}", exit_name(reason)));
    }
    if let Some(error) = &record.error {
        words.push(format!("error={error:?}"));
    }
    let texts = [
        ("location", &record.location),
        ("message", &record.message),
        ("request", &record.request_id),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            words.push(format!("{name}={text}"));
        }
    }
    words.extend(record.counts.iter().map(|(name, count)| format!("{name}={count}")));
    visible(&words.join(" "))
}

/// The name on the wire.
fn exit_name(kind: ExitKind) -> &'static str {
    match kind {
        ExitKind::Normal => "normal",
        ExitKind::Panic => "panic",
        ExitKind::Error => "error",
        ExitKind::Killed => "killed",
        ExitKind::RestartIntensity => "restartIntensity",
        ExitKind::Parent => "parent",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use iris_protocol::SupervisionKind;

    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        let text = "a\x1b[31m\u{9b}2J\n\t\u{202e}ä";
        assert_eq!(visible(text), "a\\u{1b}[31m\\u{9b}2J\\n\\t\\u{202e}ä");
        let line = json_line(&text).unwrap();
        assert_eq!(line, "\"a\\u001b[31m\\u009b2J\\n\\t\\u202eä\"");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(utc(4_107_542_399_999), "2100-02-28T23:59:59.999Z");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(utc(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(time_of_day(951_782_461_005), "00:01:01");
        // The whole range of times is told, however far.
        assert!(utc(i64::MAX).ends_with('Z') && utc(i64::MIN).ends_with('Z'));
    }

    #[test]
    fn amounts_fit_into_their_columns() {
        let spans = [0, 999, 1_250, 59_999, 61_000, 3_725_000, 90_061_000].map(span);
        assert_eq!(spans, ["0ms", "999ms", "1.2s", "59.9s", "1m01s", "1h02m", "1d01h"]);
        let counts = [9_999, 10_000, 9_999_999, 10_000_000].map(short_count);
        assert_eq!(counts, ["9999", "10k", "9999k", "10M"]);
        assert_eq!([0, 84 << 20, 3 << 29].map(bytes), ["0 MiB", "84 MiB", "1.5 GiB"]);
    }

    #[test]
    fn a_record_tells_all_that_it_holds() {
        let record = SupervisionRecord {
            id: 1,
            at: 0,
            kind: SupervisionKind::Restarted,
            path: "node/root".to_owned(),
            actor_kind: "root".to_owned(),
            reason: Some(ExitKind::Panic),
            error: Some("it \"broke\"\n\x1b".to_owned()),
            location: Some("a.rs:1:2".to_owned()),
            message: Some("Ping".to_owned()),
            request_id: Some("req_1".to_owned()),
            counts: BTreeMap::from([("restarts".to_owned(), 3)]),
        };
        let expected = r#"reason=panic error="it \"broke\"\n\u{1b}" location=a.rs:1:2 message=Ping request=req_1 restarts=3"#;
        assert_eq!(record_words(&record), expected);
    }
}
