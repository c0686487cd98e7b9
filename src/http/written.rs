//! What a URL says, looked at as it is written: the libraries below read on over what they cannot decode.

use iris_protocol::ApiError;

/// Checks that what is encoded in a path or a query can be decoded.
///
/// # Errors
/// `INVALID_REQUEST` with reason `invalid_encoding`.
pub(super) fn check(text: &str) -> Result<(), ApiError> {
    let decoded = decoded(text.as_bytes());
    if decoded.is_some_and(|bytes| std::str::from_utf8(&bytes).is_ok()) {
        return Ok(());
    }
    let message =
        "the URL is not well formed: a `%` stands before two hex digits, and all of them for UTF-8";
    Err(ApiError::invalid(message).reason("invalid_encoding"))
}

/// What the text stands for; none where a `%` stands for nothing.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let mut digit = || char::from(*rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(bytes)
}

/// Checks that a path of a file leads up on no system. Here a backslash is a character like any other, and what such a
/// file is called is not; a URL that says so was made for another system.
///
/// # Errors
/// `INVALID_REQUEST` with reason `invalid_path`.
pub(super) fn check_path(path: &str) -> Result<(), ApiError> {
    let names = || path.split(['/', '\\']);
    if !path.contains('\\') || names().all(|name| name != "..") {
        return Ok(());
    }
    let message = "the path has `..` beside a backslash, which some systems take for a way up";
    Err(ApiError::invalid(message).reason("invalid_path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_decoded_is_taken_and_nothing_else() {
        for good in ["", "a=b&c", "path=a%20b+c", "%41", "%e4%bd%a0", "%C3%A4", "%25zz", "%00"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "%",
            "a%",
            "%4",
            "%zz",
            "%4g",
            "%%41",
            "% 41",
            "%+1",
            "%ff",
            "%c0%ae",
            "%e4%bd",
            "%ed%a0%80",
        ] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.details["reason"], "invalid_encoding", "{bad}");
        }
    }

    #[test]
    fn a_backslash_is_a_character_unless_it_leads_up() {
        for good in ["a\\b", "a/..", "..", "\\", "...\\a", "a..\\b", "C:\\x"] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in ["..\\x", "a\\..\\b", "a\\..", "a/..\\x", "a\\x/../y"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
