//! From a text to a URL that may be asked for.

use url::Url;

use crate::error::EgressError;

/// Longest URL, in bytes, before and after it is normalised.
pub const URL_BYTES_MAX: usize = 8 * 1024;

/// Reads an absolute `http` or `https` URL without user or password. Nothing is connected to or resolved.
///
/// The result is what people who approve a request should see: hosts in other scripts are in their ASCII
/// form (`xn--`), so that none looks like another, and odd spellings of addresses are plain.
///
/// ```
/// assert_eq!(iris_egress::parse_url("http://bücher.example")?.as_str(), "http://xn--bcher-kva.example/");
/// assert_eq!(iris_egress::parse_url("http://2130706433")?.as_str(), "http://127.0.0.1/");
/// # Ok::<(), iris_egress::EgressError>(())
/// ```
///
/// # Errors
///
/// `BadUrl` for what is no URL, is longer than [`URL_BYTES_MAX`] or holds a user or password;
/// `BlockedScheme` for other schemes.
pub fn parse_url(text: &str) -> Result<Url, EgressError> {
    if text.len() > URL_BYTES_MAX {
        return Err(too_long());
    }
    let url =
        Url::parse(text).map_err(|error| EgressError::BadUrl { problem: error.to_string() })?;
    check_url(url)
}

/// The checks of [`parse_url`] for a URL that is parsed already.
pub(crate) fn check_url(url: Url) -> Result<Url, EgressError> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(EgressError::BlockedScheme { scheme: url.scheme().to_owned() });
    }
    if !url.username().is_empty() || url.password().is_some() {
        let problem = "it holds a user name or a password".to_owned();
        return Err(EgressError::BadUrl { problem });
    }
    if url.as_str().len() > URL_BYTES_MAX {
        return Err(too_long());
    }
    Ok(url)
}

fn too_long() -> EgressError {
    EgressError::BadUrl { problem: format!("it is longer than {URL_BYTES_MAX} bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        parse_url(text).unwrap_err().code()
    }

    #[test]
    fn only_plain_web_addresses_are_read() {
        for text in [
            "",
            "example.com",
            "//example.com",
            "http://",
            "http://[fe80::1%eth0]/",
            "http://a b/",
            "http://256.1.1.1/",
        ] {
            assert_eq!(code(text), "bad_url", "{text}");
        }
        for text in
            ["http://user@example.com", "http://:secret@example.com", "https://a:b@example.com"]
        {
            assert_eq!(code(text), "bad_url", "{text}");
        }
        for text in ["file:///etc/passwd", "gopher://example.com", "ftp://example.com", "data:,x"] {
            assert_eq!(code(text), "blocked_scheme", "{text}");
        }
    }

    #[test]
    fn a_url_at_the_limit_is_read_and_one_byte_more_is_not() {
        let start = "http://example.com/";
        let longest = format!("{start}{}", "a".repeat(URL_BYTES_MAX - start.len()));
        assert!(parse_url(&longest).is_ok());
        assert_eq!(code(&format!("{longest}a")), "bad_url");
        // Each character grows to nine bytes.
        assert_eq!(code(&format!("{start}{}", "€".repeat(URL_BYTES_MAX / 4))), "bad_url");
    }

    #[test]
    fn line_breaks_never_reach_the_request() {
        let url = parse_url("http://example.com/a\r\nHost: evil\r\n?b\r\nc").unwrap();
        assert_eq!(url.as_str(), "http://example.com/aHost:%20evil?bc");
    }
}
