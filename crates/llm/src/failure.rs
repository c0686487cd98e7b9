//! Reads what a provider says about a failure and finds its class.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;

use crate::provider::ApiKey;
use crate::{ErrorClass, ModelError};

/// Most bytes of a provider's text in our own message.
const EXCERPT_BYTES_MAX: usize = 200;

/// Parts of messages, in lower case, by which providers without a code for it report a prompt that
/// is too long.
const OVERFLOW_PHRASES: &[&str] = &[
    "prompt is too long",
    "this model's maximum context length is",
    "exceed context limit",
    "is longer than the model's context length",
    "exceeds the available context size",
    "exceeds the maximum number of tokens allowed",
];

/// Parts of codes that mean that money or a quota is used up.
const QUOTA_WORDS: &[&str] = &["quota", "billing", "credit", "spend_limit"];

/// The error of an HTTP answer whose status is not a success.
pub(crate) fn from_response(
    status: u16,
    headers: &HeaderMap,
    body: &[u8],
    key: Option<&ApiKey>,
) -> ModelError {
    let text = String::from_utf8_lossy(body);
    let report = match serde_json::from_slice::<Value>(body) {
        Ok(value) => Report::read(&value),
        Err(_) => Report { message: text.into_owned(), ..Report::default() },
    };
    let report = Report { status: Some(status), ..report };
    let intro = format!("the provider answered with status {status}");
    let mut error = report.into_error(&intro, key);
    error.retry_after_ms = retry_after_ms(headers);
    let request_id = header(headers, "x-request-id").or_else(|| header(headers, "request-id"));
    error.request_id = request_id.map(|id| excerpt(&id, key));
    error
}

/// The error that a provider sent as an event of its stream, after a status of 200.
pub(crate) fn from_event(value: &Value, key: Option<&ApiKey>) -> ModelError {
    Report::read(value).into_error("the provider broke off its answer", key)
}

/// Shortens a foreign text to what may be quoted: no key, no control characters, 200 bytes. The one
/// way by which a provider's words get into an error; the key goes before the end is cut off.
pub(crate) fn excerpt(text: &str, key: Option<&ApiKey>) -> String {
    let mut text = match key {
        Some(key) => text.replace(key.expose(), "[redacted]"),
        None => text.to_owned(),
    };
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    text = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    text.truncate(text.floor_char_boundary(EXCERPT_BYTES_MAX));
    text
}

/// What the many error shapes have in common.
#[derive(Default)]
struct Report {
    status: Option<u16>,
    /// `code` and `type`, lower case.
    words: String,
    message: String,
}

impl Report {
    /// Reads `{"error": {..}}`, `{"error": "text"}`, `{"message": ..}` and `{"detail": ..}`.
    fn read(value: &Value) -> Self {
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
        let field = |name: &str| error.get(name).filter(|value| !value.is_null());
        let words = [field("code"), field("type")].into_iter().flatten().filter_map(Value::as_str);
        let number = |name| field(name).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
        let message = [Some(error), field("message"), field("detail")]
            .into_iter()
            .flatten()
            .find_map(Value::as_str)
            .map_or_else(|| error.to_string(), str::to_owned);
        Self {
            status: number("status_code").or_else(|| number("code")),
            words: words.collect::<Vec<_>>().join(" ").to_lowercase(),
            message,
        }
    }

    fn class(&self) -> ErrorClass {
        let message = self.message.to_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| self.words.contains(word));
        if says(&["context_length_exceeded"])
            || OVERFLOW_PHRASES.iter().any(|p| message.contains(p))
        {
            return ErrorClass::ContextOverflow;
        }
        if says(QUOTA_WORDS) {
            return ErrorClass::Quota;
        }
        if says(&["content_filter", "content_policy"]) {
            return ErrorClass::ContentFilter;
        }
        match self.status {
            Some(402) => ErrorClass::Quota,
            Some(429) => ErrorClass::RateLimited,
            Some(401 | 403 | 407) => ErrorClass::Auth,
            Some(503 | 529) => ErrorClass::Overloaded,
            Some(408 | 409 | 500..) => ErrorClass::Transient,
            Some(400..) => ErrorClass::Invalid,
            Some(300..) => ErrorClass::Protocol,
            Some(_) | None if says(&["rate_limit"]) => ErrorClass::RateLimited,
            Some(_) | None if says(&["overloaded", "server_error"]) => ErrorClass::Overloaded,
            Some(_) | None if says(&["api_key", "authentication", "permission"]) => {
                ErrorClass::Auth
            }
            Some(_) | None if says(&["invalid_request"]) => ErrorClass::Invalid,
            Some(_) | None => ErrorClass::Transient,
        }
    }

    fn into_error(self, intro: &str, key: Option<&ApiKey>) -> ModelError {
        let class = self.class();
        // Providers quote the key that they refuse, masked or not.
        let said =
            if class == ErrorClass::Auth { String::new() } else { excerpt(&self.message, key) };
        let message = match (class, said.as_str()) {
            (ErrorClass::Auth, _) => format!("{intro}: it refuses our api key"),
            (_, "") => intro.to_owned(),
            (_, said) => format!("{intro}: `{said}`"),
        };
        ModelError { status: self.status, ..ModelError::new(class, message) }
    }
}

/// `retry-after-ms`, else `retry-after` in seconds or as a date (RFC 9110, 10.2.3). A date is taken
/// relative to the answer's own `date`, so that no clock of ours takes part.
fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    if let Some(delay) = header(headers, "retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(delay);
    }
    let text = header(headers, "retry-after")?;
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds.saturating_mul(1000));
    }
    let now = httpdate::parse_http_date(&header(headers, "date")?).ok()?;
    let then = httpdate::parse_http_date(&text).ok()?;
    let delay = then.duration_since(now).unwrap_or(Duration::ZERO);
    u64::try_from(delay.as_millis()).ok()
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorClass::{
        Auth, ContentFilter, ContextOverflow, Invalid, Overloaded, Protocol, Quota, RateLimited,
        Transient,
    };

    fn class(status: u16, body: &str) -> ErrorClass {
        from_response(status, &HeaderMap::new(), body.as_bytes(), None).class
    }

    #[test]
    fn http_answers_are_classified() {
        for (status, body, expected) in [
            (429, r#"{"error":{"message":"slow down","code":"rate_limit_exceeded"}}"#, RateLimited),
            (429, r#"{"error":{"message":"pay","code":"insufficient_quota"}}"#, Quota),
            (402, r#"{"error":"no money"}"#, Quota),
            (529, "", Overloaded),
            (503, "<html>", Overloaded),
            (408, "", Transient),
            (500, r#"{"detail":"boom"}"#, Transient),
            (504, "", Transient),
            (401, r#"{"error":{"code":"invalid_api_key"}}"#, Auth),
            (403, "", Auth),
            (400, r#"{"error":{"code":"context_length_exceeded"}}"#, ContextOverflow),
            (400, r#"{"message":"it exceeds the available context size (512)"}"#, ContextOverflow),
            (400, r#"{"error":{"code":"content_filter"}}"#, ContentFilter),
            (404, r#"{"object":"error","message":"no such model"}"#, Invalid),
            (422, "", Invalid),
            (302, "", Protocol),
        ] {
            assert_eq!(class(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn errors_inside_a_stream_are_classified() {
        for (event, expected) in [
            (r#"{"error":{"message":"x","type":"server_error"}}"#, Overloaded),
            (r#"{"error":{"message":"x","type":"rate_limit_error"}}"#, RateLimited),
            (r#"{"error":{"message":"x","code":400}}"#, Invalid),
            (r#"{"error":{"message":"x","status_code":503}}"#, Overloaded),
            (r#"{"error":"boom"}"#, Transient),
        ] {
            let value = serde_json::from_str(event).unwrap();
            assert_eq!(from_event(&value, None).class, expected, "{event}");
        }
    }

    #[test]
    fn retry_after_is_read_in_all_forms() {
        for (name, value, expected) in [
            ("retry-after", "2", Some(2_000)),
            ("retry-after", "99999", Some(99_999_000)),
            ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT", Some(10_000)),
            ("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("retry-after", "soon", None),
            ("retry-after", "-3", None),
            ("retry-after-ms", "250", Some(250)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
            headers.insert(name, value.parse().unwrap());
            assert_eq!(retry_after_ms(&headers), expected, "{value}");
        }
    }

    #[test]
    fn excerpt_holds_no_key_and_at_most_200_bytes() {
        let key = ApiKey::new("sk-secret");
        let text = format!("{}sk-secret\u{1b}[31m\n{}", "é".repeat(97), "x".repeat(500));
        let quoted = excerpt(&text, Some(&key));
        assert!(quoted.len() <= EXCERPT_BYTES_MAX, "{quoted}");
        assert!(!quoted.contains("sk-s") && !quoted.contains('\u{1b}'), "{quoted}");
    }
}
