//! What tools answered beyond what a model read at once, piece by piece.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use iris_protocol::limits::OUTPUT_PIECE_BYTES_MAX;
use iris_protocol::{ApiError, ToolOutput, ToolOutputPiece};
use iris_store::project::StoredAttachment;

use super::{Done, Grant, done, stored};
use crate::Node;

pub(super) async fn piece(
    node: &Node,
    grant: &Grant,
    request: ToolOutput,
) -> Result<Done, ApiError> {
    let ToolOutput { session_id, tool_call_id, offset, limit } = request;
    let project = grant.project(node).await?;
    let found = project.reader.attachment(session_id, tool_call_id).await.map_err(stored)?;
    let found = found.ok_or_else(|| ApiError::not_found("output"))?;
    piece_within(&found, offset, limit)
}

/// A piece of something, as the request wants it.
pub(super) fn piece_within(
    whole: &StoredAttachment,
    offset: Option<u64>,
    limit: Option<u32>,
) -> Result<Done, ApiError> {
    let limit = limit.map_or(OUTPUT_PIECE_BYTES_MAX, |limit| limit as usize);
    // Less than four bytes may hold no character.
    if !(4..=OUTPUT_PIECE_BYTES_MAX).contains(&limit) {
        let message = format!("`limit` must be 4 to {OUTPUT_PIECE_BYTES_MAX}");
        return Err(ApiError::invalid(message));
    }
    let offset = usize::try_from(offset.unwrap_or_default()).unwrap_or(usize::MAX);
    done(piece_of(whole, offset, limit))
}

fn piece_of(whole: &StoredAttachment, offset: usize, limit: usize) -> ToolOutputPiece {
    let StoredAttachment { mime_type, bytes } = whole;
    let end = |start: usize| start.saturating_add(limit).min(bytes.len());
    let (start, end, content) = match std::str::from_utf8(bytes) {
        Ok(text) if mime_type.starts_with("text/") => {
            let start = text.floor_char_boundary(offset);
            let end = text.floor_char_boundary(end(start));
            (start, end, text.get(start..end).unwrap_or_default().to_owned())
        }
        Ok(_) | Err(_) => {
            let start = offset.min(bytes.len());
            let end = end(start);
            let piece = bytes.get(start..end).unwrap_or_default();
            (start, end, BASE64_STANDARD.encode(piece))
        }
    };
    ToolOutputPiece {
        mime_type: mime_type.clone(),
        size: bytes.len() as u64,
        offset: start as u64,
        content,
        next_offset: (end < bytes.len()).then_some(end as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(mime_type: &str, bytes: &[u8]) -> StoredAttachment {
        StoredAttachment { mime_type: mime_type.to_owned(), bytes: bytes.to_owned() }
    }

    #[test]
    fn pieces_of_a_text_are_all_of_it_and_cut_no_character() {
        let text = "aäö€x";
        let whole = whole("text/plain", text.as_bytes());
        let (mut read, mut next) = (String::new(), Some(0));
        while let Some(offset) = next {
            let piece = piece_of(&whole, usize::try_from(offset).unwrap(), 4);
            assert!(piece.content.len() <= 4);
            read.push_str(&piece.content);
            next = piece.next_offset;
        }
        assert_eq!(read, text);
        // Inside a character, and behind the end.
        assert_eq!(piece_of(&whole, 2, 4).offset, 1);
        assert_eq!(piece_of(&whole, 99, 4).content, "");
    }

    #[test]
    fn other_bytes_are_said_in_base64() {
        let piece = piece_of(&whole("image/png", b"\x89PNG"), 1, 2);
        assert_eq!((piece.content.as_str(), piece.size), ("UE4=", 4));
        assert_eq!(piece.next_offset, Some(3));
    }
}
