//! Images by how they begin, whatever their names say.

/// A kind of image that models are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Png,
    Jpeg,
    Gif,
    WebP,
}

impl Kind {
    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
        }
    }

    /// As IANA has registered it.
    pub(super) fn mime_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Gif => "image/gif",
            Self::WebP => "image/webp",
        }
    }
}

/// What kind of image begins with `bytes`; none for anything else. Twelve bytes are enough.
pub(super) fn kind(bytes: &[u8]) -> Option<Kind> {
    // The signatures are those of the PNG specification (5.2), of JPEG (ITU-T T.81, B.1.1.3: SOI and the
    // marker behind it), of GIF89a (17) and of the WebP container (RIFF header).
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some(Kind::Png);
    }
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Some(Kind::Jpeg);
    }
    if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        return Some(Kind::Gif);
    }
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    is_webp.then_some(Kind::WebP)
}

#[cfg(test)]
mod tests {
    use super::{Kind, kind};

    #[test]
    fn images_are_known_by_their_first_bytes_and_nothing_else_is_one() {
        assert_eq!(kind(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), Some(Kind::Png));
        assert_eq!(kind(b"\xff\xd8\xff\xe0\0\x10JFIF"), Some(Kind::Jpeg));
        assert_eq!(kind(b"GIF87a"), Some(Kind::Gif));
        assert_eq!(kind(b"GIF89a\x01\0"), Some(Kind::Gif));
        assert_eq!(kind(b"RIFF\x24\0\0\0WEBPVP8 "), Some(Kind::WebP));
        for other in [&b""[..], b"\x89PNG", b"RIFF\x24\0\0\0WAVE", b"RIFF", b"GIF88a", b"\xff\xd8"]
        {
            assert_eq!(kind(other), None, "{other:?}");
        }
    }
}
