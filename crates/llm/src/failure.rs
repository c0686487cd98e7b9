//! Reads what a provider says about a failure and finds its class.

use http::HeaderMap;
use iris_agent::OPAQUE_BYTES_MAX;
use serde_json::Value;

use crate::provider::{ApiKey, ProviderKind};
use crate::{ErrorClass, ModelError, retry};

/// The status of a proxy that wants credentials, or others.
const PROXY_REFUSES: u16 = 407;
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

/// Parts of codes that mean that the provider refused our credentials.
const AUTH_WORDS: &[&str] = &["api_key", "authentication", "unauthenticated", "permission"];

/// Parts of codes that mean that the request is wrong.
const INVALID_WORDS: &[&str] =
    &["invalid_request", "invalid_argument", "invalid_prompt", "not_found", "too_large", "image_"];

/// Parts of codes that mean that money or a quota is used up.
const QUOTA_WORDS: &[&str] = &["quota", "billing", "credit", "spend_limit"];

/// The error of an HTTP answer whose status is not a success.
pub(crate) fn from_response(
    kind: ProviderKind,
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
    let mut report = Report { status: Some(status), ..report };
    report.retry_after_ms = retry::after_ms(headers).or(report.retry_after_ms);
    let has_hint = report.retry_after_ms.is_some();
    report.is_spent = status == 429 && !has_hint && says_spent(kind, &report);
    let intro = format!("the provider answered with status {status}");
    let mut error = report.into_error(&intro, key);
    error.should_retry = retry::should(headers);
    let request_id = header(headers, "x-request-id").or_else(|| header(headers, "request-id"));
    error.request_id = request_id.map(|id| excerpt(&id, key));
    error
}

/// Whether a refusal without a word on when to come back is one that waiting does not help against:
/// Anthropic always says when unless money is the matter, Google unless it is the plan.
fn says_spent(kind: ProviderKind, report: &Report) -> bool {
    let says = |words: &[&str]| {
        let message = report.message.to_lowercase();
        words.iter().any(|word| message.contains(word))
    };
    match kind {
        ProviderKind::Anthropic => true,
        ProviderKind::Google => says(&["quota", "billing", "plan"]),
        ProviderKind::OpenAi
        | ProviderKind::OpenAiCompatible
        | ProviderKind::Ollama
        | ProviderKind::Scripted => false,
    }
}

/// The error that a provider sent as an event of its stream, after a status of 200.
pub(crate) fn from_event(value: &Value, key: Option<&ApiKey>) -> ModelError {
    Report::read(value).into_error("the provider broke off its answer", key)
}

/// The error of an event that is no JSON although it should be.
pub(crate) fn not_json() -> ModelError {
    ModelError::new(ErrorClass::Protocol, "the provider sent an event that is not json")
}

/// The error of a provider that wants too much back with one block.
pub(crate) fn too_long() -> ModelError {
    let message = format!("the provider's data on one block is over `{OPAQUE_BYTES_MAX}` bytes");
    ModelError::new(ErrorClass::Protocol, message)
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
    /// `code`, `type`, `status` and reasons, lower case.
    words: String,
    message: String,
    retry_after_ms: Option<u64>,
    /// Whether money or a quota is used up although no word says so.
    is_spent: bool,
}

impl Report {
    /// Reads `{"error": {..}}`, `{"error": "text"}`, `{"message": ..}` and `{"detail": ..}`, alone or as
    /// the first of a list.
    fn read(value: &Value) -> Self {
        let value = value.as_array().and_then(|list| list.first()).unwrap_or(value);
        let error = value.get("error").filter(|error| !error.is_null()).unwrap_or(value);
        let field = |name: &str| error.get(name).filter(|value| !value.is_null());
        let details = field("details").map(Value::as_array);
        let details = details.flatten().into_iter().flatten();
        let reasons = details.clone().filter_map(|detail| detail.get("reason"));
        let words =
            [field("code"), field("type"), field("status"), error.pointer("/details/error_code")];
        let words = words.into_iter().flatten().chain(reasons).filter_map(Value::as_str);
        let number = |name| field(name).and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
        let message = [Some(error), field("message"), field("detail")]
            .into_iter()
            .flatten()
            .find_map(Value::as_str)
            .map_or_else(|| error.to_string(), str::to_owned);
        let delays = details.filter_map(|detail| detail.get("retryDelay")?.as_str());
        Self {
            status: number("status_code").or_else(|| number("code")),
            words: words.collect::<Vec<_>>().join(" ").to_lowercase(),
            message,
            retry_after_ms: delays.filter_map(retry::duration_ms).max(),
            is_spent: false,
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
        if says(QUOTA_WORDS) || self.is_spent {
            return ErrorClass::Quota;
        }
        if says(&["api_key_invalid", "invalid_api_key"]) {
            return ErrorClass::Auth;
        }
        if says(&["content_filter", "policy"]) {
            return ErrorClass::ContentFilter;
        }
        match self.status {
            Some(402) => ErrorClass::Quota,
            Some(429) => ErrorClass::RateLimited,
            Some(401 | 403 | PROXY_REFUSES) => ErrorClass::Auth,
            Some(503 | 529) => ErrorClass::Overloaded,
            Some(408 | 409 | 500..) => ErrorClass::Transient,
            Some(400..) => ErrorClass::Invalid,
            Some(300..) => ErrorClass::Protocol,
            Some(_) | None if says(&["rate_limit", "resource_exhausted"]) => {
                ErrorClass::RateLimited
            }
            Some(_) | None if says(&["overloaded", "server_error", "unavailable"]) => {
                ErrorClass::Overloaded
            }
            Some(_) | None if says(AUTH_WORDS) => ErrorClass::Auth,
            Some(_) | None if says(INVALID_WORDS) => ErrorClass::Invalid,
            Some(_) | None => ErrorClass::Transient,
        }
    }

    fn into_error(self, intro: &str, key: Option<&ApiKey>) -> ModelError {
        let class = self.class();
        // Providers quote the key that they refuse, masked or not.
        let said =
            if class == ErrorClass::Auth { String::new() } else { excerpt(&self.message, key) };
        let message = match (class, said.as_str()) {
            (ErrorClass::Auth, _) if self.status == Some(PROXY_REFUSES) => {
                format!("{intro}: the proxy refuses our credentials")
            }
            (ErrorClass::Auth, _) => format!("{intro}: it refuses our api key"),
            (_, "") => intro.to_owned(),
            (_, said) => format!("{intro}: `{said}`"),
        };
        ModelError {
            status: self.status,
            retry_after_ms: self.retry_after_ms,
            ..ModelError::new(class, message)
        }
    }
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
        answered(ProviderKind::OpenAiCompatible, status, body).class
    }

    fn answered(kind: ProviderKind, status: u16, body: &str) -> ModelError {
        from_response(kind, status, &HeaderMap::new(), body.as_bytes(), None)
    }

    #[test]
    fn errors_of_anthropic_are_classified() {
        for (status, code, expected) in [
            (400, "invalid_request_error", Invalid),
            (401, "authentication_error", Auth),
            (402, "billing_error", Quota),
            (403, "permission_error", Auth),
            (404, "not_found_error", Invalid),
            (409, "conflict_error", Transient),
            (413, "request_too_large", Invalid),
            (500, "api_error", Transient),
            (504, "timeout_error", Transient),
            (529, "overloaded_error", Overloaded),
            // It says when to come back, unless money is the matter.
            (429, "rate_limit_error", Quota),
        ] {
            let body = format!(r#"{{"type":"error","error":{{"type":"{code}","message":"m"}}}}"#);
            assert_eq!(answered(ProviderKind::Anthropic, status, &body).class, expected, "{code}");
        }
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "2".parse().unwrap());
        let waits = r#"{"error":{"type":"rate_limit_error","message":"m"}}"#;
        let spent = r#"{"error":{"type":"rate_limit_error","message":"m",
            "details":{"error_code":"enforced_spend_limit_reached"}}}"#;
        for (body, expected) in [(waits, RateLimited), (spent, Quota)] {
            let body = body.as_bytes();
            let error = from_response(ProviderKind::Anthropic, 429, &headers, body, None);
            assert_eq!((error.class, error.retry_after_ms), (expected, Some(2_000)));
        }
    }

    #[test]
    fn errors_of_google_are_classified_alone_and_in_a_list() {
        let retry = r#","details":[{"@type":"t/RetryInfo","retryDelay":"34s"}]"#;
        let key = r#","details":[{"reason":"API_KEY_INVALID"}]"#;
        for (status, word, message, details, expected, after) in [
            (429, "RESOURCE_EXHAUSTED", "check your plan", retry, RateLimited, Some(34_000)),
            (429, "RESOURCE_EXHAUSTED", "your quota, check your plan", "", Quota, None),
            (429, "RESOURCE_EXHAUSTED", "slow down", "", RateLimited, None),
            (400, "INVALID_ARGUMENT", "bad", "", Invalid, None),
            (400, "INVALID_ARGUMENT", "API key not valid", key, Auth, None),
            (
                400,
                "INVALID_ARGUMENT",
                "exceeds the maximum number of tokens allowed",
                "",
                ContextOverflow,
                None,
            ),
            (403, "PERMISSION_DENIED", "no", "", Auth, None),
            (404, "NOT_FOUND", "no", "", Invalid, None),
            (500, "INTERNAL", "no", "", Transient, None),
            (503, "UNAVAILABLE", "no", "", Overloaded, None),
            (504, "DEADLINE_EXCEEDED", "no", "", Transient, None),
        ] {
            let error = format!(
                r#"{{"error":{{"code":{status},"message":"{message}","status":"{word}"{details}}}}}"#
            );
            for body in [error.clone(), format!("[{error}]")] {
                let found = answered(ProviderKind::Google, status, &body);
                assert_eq!((found.class, found.retry_after_ms), (expected, after), "{body}");
                assert!(found.message.contains(message) || expected == Auth, "{}", found.message);
            }
        }
    }

    #[test]
    fn a_proxy_that_refuses_us_is_named() {
        let error = answered(ProviderKind::Anthropic, 407, "<html>who are you</html>");
        let expected = "the provider answered with status 407: the proxy refuses our credentials";
        assert_eq!((error.class, error.message.as_str()), (Auth, expected));
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
    fn excerpt_holds_no_key_and_at_most_200_bytes() {
        let key = ApiKey::new("sk-secret");
        let text = format!("{}sk-secret\u{1b}[31m\n{}", "é".repeat(97), "x".repeat(500));
        let quoted = excerpt(&text, Some(&key));
        assert!(quoted.len() <= EXCERPT_BYTES_MAX, "{quoted}");
        assert!(!quoted.contains("sk-s") && !quoted.contains('\u{1b}'), "{quoted}");
    }
}
