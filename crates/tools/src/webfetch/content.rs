//! What kind of answer it is, and its bytes as text.

use encoding_rs::{Encoding, UTF_8};
use mime::Mime;

use super::unreadable;
use crate::error::ToolError;

/// How many bytes of an answer are looked at to tell text from binary.
const SNIFF_BYTES: usize = 4096;

/// What is made of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Converted.
    Html,
    /// Shown as it is.
    Text,
}

impl Kind {
    /// Judges by the content type, and by the bytes where that says nothing or claims text.
    pub(super) fn of(content_type: Option<&str>, body: &[u8]) -> Result<Self, ToolError> {
        let mime = content_type.and_then(|text| text.parse::<Mime>().ok());
        let has_charset = mime.as_ref().is_some_and(|mime| charset(mime).is_some());
        if let Some(mime) = &mime {
            let essence = mime.essence_str();
            if mime.type_() == mime::IMAGE && mime.suffix() != Some(mime::XML) {
                return Err(unreadable(&format!(
                    "it is an image (`{essence}`), which is not read yet"
                )));
            }
            if !is_text(mime) && *mime != mime::APPLICATION_OCTET_STREAM {
                return Err(unreadable(&format!("it is binary (`{essence}`)")));
            }
        }
        let start = body.get(..SNIFF_BYTES).unwrap_or(body);
        // UTF-16 has zero bytes of its own; a mark at the beginning or the content type says so.
        if start.contains(&0) && !has_charset && Encoding::for_bom(start).is_none() {
            return Err(unreadable("it is binary"));
        }
        match &mime {
            Some(mime) if is_html(mime) => Ok(Self::Html),
            Some(mime) if is_text(mime) => Ok(Self::Text),
            _ if looks_like_html(start) => Ok(Self::Html),
            _ => Ok(Self::Text),
        }
    }
}

fn is_html(mime: &Mime) -> bool {
    matches!(mime.essence_str(), "text/html" | "application/xhtml+xml")
}

/// By the groups of the MIME Sniffing Standard (<https://mimesniff.spec.whatwg.org/#mime-type-groups>), and
/// what else is written by people.
fn is_text(mime: &Mime) -> bool {
    const TEXTS: &[&str] = &[
        "application/json",
        "application/xml",
        "application/javascript",
        "application/ecmascript",
        "application/yaml",
        "application/x-yaml",
        "application/toml",
        "application/sql",
        "application/x-sh",
        "application/x-ndjson",
        "application/jsonlines",
        "application/x-javascript",
        "application/x-httpd-php",
        "application/graphql",
        "application/x-www-form-urlencoded",
    ];
    let suffix = mime.suffix().map(|suffix| suffix.as_str());
    mime.type_() == mime::TEXT
        || matches!(suffix, Some("xml" | "json" | "yaml"))
        || TEXTS.contains(&mime.essence_str())
}

fn looks_like_html(start: &[u8]) -> bool {
    let start = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
    start.starts_with("<!doctype html") || start.starts_with("<html")
}

fn charset(mime: &Mime) -> Option<&'static Encoding> {
    Encoding::for_label(mime.get_param(mime::CHARSET)?.as_str().as_bytes())
}

/// The text in the encoding of the mark at its beginning, else of the content type, else UTF-8. What is wrong
/// in it becomes U+FFFD.
pub(super) fn decode(content_type: Option<&str>, body: &[u8]) -> String {
    let mime = content_type.and_then(|text| text.parse::<Mime>().ok());
    let encoding = mime.as_ref().and_then(charset).unwrap_or(UTF_8);
    encoding.decode(body).0.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(content_type: &str, body: &[u8]) -> Result<Kind, String> {
        Kind::of(Some(content_type), body).map_err(|error| error.to_string())
    }

    #[test]
    fn html_and_text_are_told_apart_by_type_and_else_by_sight() {
        for html in ["text/html", "TEXT/HTML; charset=utf-8", "application/xhtml+xml"] {
            assert_eq!(kind(html, b"x"), Ok(Kind::Html), "{html}");
        }
        for text in
            ["text/plain", "application/json", "application/ld+json", "image/svg+xml", "text/csv"]
        {
            assert_eq!(kind(text, b"<html>"), Ok(Kind::Text), "{text}");
        }
        for unknown in ["application/octet-stream", "nonsense", ""] {
            assert_eq!(kind(unknown, b" <!DOCTYPE html>"), Ok(Kind::Html), "{unknown}");
            assert_eq!(kind(unknown, b"plain"), Ok(Kind::Text), "{unknown}");
        }
        assert_eq!(Kind::of(None, b"<HTML>").unwrap(), Kind::Html);
    }

    #[test]
    fn binary_is_refused_whatever_it_calls_itself() {
        for (content_type, word) in [
            ("image/png", "image"),
            ("application/pdf", "`application/pdf`"),
            ("video/mp4", "`video/mp4`"),
        ] {
            let error = kind(content_type, b"text").unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        for claimed in ["text/plain", "text/html", "application/octet-stream", ""] {
            assert!(kind(claimed, b"a\0b").unwrap_err().contains("binary"), "{claimed}");
        }
    }

    #[test]
    fn text_is_read_in_its_encoding() {
        assert_eq!(decode(Some("text/plain; charset=windows-1252"), b"caf\xe9"), "café");
        assert_eq!(decode(Some("text/plain; charset=\"Shift_JIS\""), b"\x93\xfa"), "日");
        assert_eq!(decode(Some("text/plain; charset=nonsense"), "é".as_bytes()), "é");
        assert_eq!(decode(None, b"\xff\xfea\0"), "a");
        assert_eq!(decode(None, b"a\xffb"), "a\u{fffd}b");
        assert_eq!(kind("text/plain; charset=utf-16le", b"a\0"), Ok(Kind::Text));
        assert_eq!(kind("text/plain", b"\xff\xfea\0"), Ok(Kind::Text));
    }
}
