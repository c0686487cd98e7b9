//! Images by how they begin, whatever their names say.

/// What kind of image begins with `bytes`; none for anything else. Twelve bytes are enough.
pub(super) fn kind(bytes: &[u8]) -> Option<&'static str> {
    // The signatures are those of the PNG specification (5.2), of JPEG (ITU-T T.81, B.1.1.3: SOI and the
    // marker behind it), of GIF89a (17) and of the WebP container (RIFF header).
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some("PNG");
    }
    if bytes.starts_with(b"\xff\xd8\xff") {
        return Some("JPEG");
    }
    if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") {
        return Some("GIF");
    }
    let is_webp = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    is_webp.then_some("WebP")
}

#[cfg(test)]
mod tests {
    use super::kind;

    #[test]
    fn images_are_known_by_their_first_bytes_and_nothing_else_is_one() {
        assert_eq!(kind(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"), Some("PNG"));
        assert_eq!(kind(b"\xff\xd8\xff\xe0\0\x10JFIF"), Some("JPEG"));
        assert_eq!(kind(b"GIF87a"), Some("GIF"));
        assert_eq!(kind(b"GIF89a\x01\0"), Some("GIF"));
        assert_eq!(kind(b"RIFF\x24\0\0\0WEBPVP8 "), Some("WebP"));
        for other in [&b""[..], b"\x89PNG", b"RIFF\x24\0\0\0WAVE", b"RIFF", b"GIF88a", b"\xff\xd8"]
        {
            assert_eq!(kind(other), None, "{other:?}");
        }
    }
}
