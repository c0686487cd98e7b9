//! Which part of a content a request asks for (RFC 9110, section 14).

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_RANGE, ContentType, Header, HeaderName, IF_RANGE, Range};
use actix_web::{HttpRequest, HttpResponse};
use iris_protocol::ApiError;

use super::RestError;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it: also for several ranges, and for what makes no sense, as a server may.
    Whole,
    /// From a byte to before another one.
    Part(u64, u64),
    /// What is behind its end.
    Beyond,
}

impl Asked {
    /// What a request asks for of a content of `total` bytes.
    pub(super) fn of(request: &HttpRequest, etag: &str, total: u64) -> Self {
        let headers = request.headers();
        // A date is no tag either: there is none to compare with.
        if headers.get(IF_RANGE).is_some_and(|given| given.as_bytes() != etag.as_bytes()) {
            return Self::Whole;
        }
        let text = headers.get(Range::name()).and_then(|range| range.to_str().ok());
        if text.is_none_or(|text| text.contains(',')) {
            return Self::Whole;
        }
        let Ok(Range::Bytes(ranges)) = Range::parse(request) else { return Self::Whole };
        let [range] = ranges.as_slice() else { return Self::Whole };
        match range.to_satisfiable_range(total) {
            Some((first, last)) => Self::Part(first, last + 1),
            None => Self::Beyond,
        }
    }
}

/// The header of an answer that is a part.
pub(super) fn content_range(first: u64, end: u64, total: u64) -> (HeaderName, String) {
    (CONTENT_RANGE, format!("bytes {first}-{}/{total}", end.saturating_sub(1)))
}

/// The answer to a request for what is behind the end.
pub(super) fn not_satisfiable(total: u64, request_id: Option<String>) -> HttpResponse {
    let error = ApiError::invalid(format!("the content has {total} bytes"));
    let error = RestError::from(error.reason("range_not_satisfiable"));
    HttpResponse::build(StatusCode::RANGE_NOT_SATISFIABLE)
        .insert_header((CONTENT_RANGE, format!("bytes */{total}")))
        .content_type(ContentType::json())
        .body(error.body(request_id))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn one_range_that_makes_sense_is_a_part_and_all_else_is_not() {
        let asked = |range: &str| {
            Asked::of(
                &TestRequest::default().insert_header(("range", range)).to_http_request(),
                "",
                10,
            )
        };
        for (range, part) in [
            ("bytes=0-0", Asked::Part(0, 1)),
            ("bytes=3-", Asked::Part(3, 10)),
            ("bytes=3-99", Asked::Part(3, 10)),
            ("bytes=-4", Asked::Part(6, 10)),
            ("bytes=-99", Asked::Part(0, 10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=5-3", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=0-1,x", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("lines=1-2", Asked::Whole),
            ("bytes=99999999999999999999-", Asked::Whole),
        ] {
            assert_eq!(asked(range), part, "{range}");
        }
        let empty = TestRequest::default().insert_header(("range", "bytes=0-")).to_http_request();
        assert_eq!(Asked::of(&empty, "", 0), Asked::Beyond);
        let other = TestRequest::default()
            .insert_header(("range", "bytes=0-1"))
            .insert_header(("if-range", "W/\"a\""))
            .to_http_request();
        assert_eq!(Asked::of(&other, "\"a\"", 10), Asked::Whole);
    }
}
