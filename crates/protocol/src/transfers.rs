//! Files over a WebSocket: the operations that begin and end a stream, and the binary frames of its bytes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::limits::{CHUNK_BYTES_MAX, CHUNK_HEAD_BYTES};

/// Begins to send a file, or goes on with one: a repeat with the same fields continues what was cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadBegin {
    /// Relative to the project's directory.
    pub path: String,
    /// Bytes of the whole file.
    pub size: u64,
    /// SHA-256 of the whole file, 64 hex digits in lower case.
    pub sha256: String,
    /// The newest version that the caller knows, 0 for none; any where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// A stream that takes chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadBegun {
    /// Names it in chunks of this connection.
    pub stream: u32,
    /// How many bytes are on the disk already: where to go on.
    pub received: u64,
}

/// Makes a version of a file that was sent whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadCommit {
    /// Its stream, which ends.
    pub stream: u32,
}

/// Gives up a file that is being sent, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UploadCancel {
    /// Its stream, which ends.
    pub stream: u32,
}

/// Begins to receive a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadBegin {
    /// Relative to the project's directory.
    pub path: String,
    /// The first byte that is wanted; 0 where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The version that is wanted; what is on the disk where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// A stream of which chunks come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadBegun {
    /// Names it in chunks of this connection.
    pub stream: u32,
    /// Bytes of the whole file.
    pub size: u64,
    /// SHA-256 of the whole file: another one than before means that it is another file.
    pub etag: String,
}

/// Ends a stream of which chunks come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownloadCancel {
    /// Which.
    pub stream: u32,
}

/// Payload of `transfer.failed`: a stream that has ended by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferFailure {
    /// Which.
    pub stream: u32,
    /// Why.
    pub error: ApiError,
}

/// The first byte of every binary frame.
const MAGIC: u8 = 0x49;
/// The version of their head.
const VERSION: u8 = 1;
/// The flag of the last chunk.
const LAST: u8 = 1;

/// What a binary frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// Bytes of a file from a client.
    Up,
    /// Bytes of a file for a client.
    Down,
    /// How far the other side has got: no bytes.
    Ack,
}

impl ChunkKind {
    fn code(self) -> u8 {
        match self {
            Self::Up => 1,
            Self::Down => 2,
            Self::Ack => 3,
        }
    }
}

/// A binary frame: its head, in network byte order, and its bytes.
///
/// `0x49`, version, kind, flags (each one byte), stream (4 bytes), offset (8), length (4), CRC-32C of the
/// bytes (4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// What it is.
    pub kind: ChunkKind,
    /// Whether the file ends with it.
    pub is_last: bool,
    /// Whose it is.
    pub stream: u32,
    /// Where its first byte stands in the file; of an ack, how many bytes have come.
    pub offset: u64,
    /// At most [`CHUNK_BYTES_MAX`].
    pub bytes: &'a [u8],
}

/// Why bytes are no binary frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// They do not begin like one.
    #[error("the frame does not begin like a chunk")]
    Magic,
    /// The version is not known.
    #[error("the frame has a version that is not known")]
    Version,
    /// The kind is not known, or not one that clients send.
    #[error("the frame has a kind that is not known here")]
    Kind,
    /// A flag is not known.
    #[error("the frame has a flag that is not known")]
    Flags,
    /// The length is not that of the bytes, or more than there may be.
    #[error("the length in the frame is not that of its bytes, or too large")]
    Length,
    /// The bytes are not those that were sent.
    #[error("the checksum is not that of the bytes")]
    Checksum {
        /// Whose they are.
        stream: u32,
    },
}

impl ChunkError {
    /// The `details.reason` of an answer.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Magic => "chunk_magic",
            Self::Version => "chunk_version",
            Self::Kind => "chunk_kind",
            Self::Flags => "chunk_flags",
            Self::Length => "chunk_length",
            Self::Checksum { .. } => "chunk_checksum",
        }
    }
}

impl<'a> Chunk<'a> {
    /// Says how far a stream has got.
    pub fn ack(stream: u32, offset: u64) -> Self {
        Self { kind: ChunkKind::Ack, is_last: false, stream, offset, bytes: &[] }
    }

    /// As it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let Self { kind, is_last, stream, offset, bytes } = *self;
        let mut frame = Vec::with_capacity(CHUNK_HEAD_BYTES + bytes.len());
        frame.extend([MAGIC, VERSION, kind.code(), if is_last { LAST } else { 0 }]);
        frame.extend(stream.to_be_bytes());
        frame.extend(offset.to_be_bytes());
        frame.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend(crc32c::crc32c(bytes).to_be_bytes());
        frame.extend(bytes);
        frame
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// What is wrong with it first.
    pub fn decode(frame: &'a [u8]) -> Result<Self, ChunkError> {
        if frame.first() != Some(&MAGIC) {
            return Err(ChunkError::Magic);
        }
        if frame.get(1) != Some(&VERSION) {
            return Err(ChunkError::Version);
        }
        let Some((head, bytes)) = frame.split_first_chunk::<CHUNK_HEAD_BYTES>() else {
            return Err(ChunkError::Length);
        };
        let [
            _,
            _,
            kind,
            flags,
            s0,
            s1,
            s2,
            s3,
            o0,
            o1,
            o2,
            o3,
            o4,
            o5,
            o6,
            o7,
            l0,
            l1,
            l2,
            l3,
            c0,
            c1,
            c2,
            c3,
        ] = *head;
        let kind = match kind {
            1 => ChunkKind::Up,
            2 => ChunkKind::Down,
            3 => ChunkKind::Ack,
            _ => return Err(ChunkError::Kind),
        };
        if flags & !LAST != 0 {
            return Err(ChunkError::Flags);
        }
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        let is_too_long = length > CHUNK_BYTES_MAX || (kind == ChunkKind::Ack && length > 0);
        if length != bytes.len() || is_too_long {
            return Err(ChunkError::Length);
        }
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        if u32::from_be_bytes([c0, c1, c2, c3]) != crc32c::crc32c(bytes) {
            return Err(ChunkError::Checksum { stream });
        }
        let offset = u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        Ok(Self { kind, is_last: flags & LAST != 0, stream, offset, bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chunk_looks_as_the_document_says() {
        let chunk =
            Chunk { kind: ChunkKind::Up, is_last: true, stream: 2, offset: 3, bytes: b"123456789" };
        let frame = chunk.encode();
        // The check value of CRC-32C is that of these digits.
        let head =
            [0x49, 1, 1, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 9, 0xe3, 0x06, 0x92, 0x83];
        assert_eq!(frame, [&head[..], b"123456789"].concat());
        assert_eq!(Chunk::decode(&frame), Ok(chunk));
        let ack = Chunk::ack(7, 1 << 40).encode();
        assert_eq!(ack.len(), CHUNK_HEAD_BYTES);
        assert_eq!(Chunk::decode(&ack), Ok(Chunk::ack(7, 1 << 40)));
    }

    #[test]
    fn what_is_wrong_with_a_frame_is_said() {
        let good =
            Chunk { kind: ChunkKind::Up, is_last: false, stream: 2, offset: 3, bytes: b"ab" };
        let with = |index: usize, byte: u8| {
            let mut frame = good.encode();
            frame[index] = byte;
            Chunk::decode(&frame).map(|chunk| chunk.stream).unwrap_err()
        };
        assert_eq!(with(0, 0), ChunkError::Magic);
        assert_eq!(with(1, 2), ChunkError::Version);
        assert_eq!(with(2, 0), ChunkError::Kind);
        assert_eq!(with(2, 3), ChunkError::Length);
        assert_eq!(with(3, 2), ChunkError::Flags);
        assert_eq!(with(19, 3), ChunkError::Length);
        assert_eq!(with(25, 0), ChunkError::Checksum { stream: 2 });
        assert_eq!(Chunk::decode(b""), Err(ChunkError::Magic));
        assert_eq!(Chunk::decode(&good.encode()[..23]), Err(ChunkError::Length));
        let bytes = vec![0; CHUNK_BYTES_MAX + 1];
        let large = Chunk { bytes: &bytes, ..good }.encode();
        assert_eq!(Chunk::decode(&large), Err(ChunkError::Length));
    }

    proptest! {
        #[test]
        fn a_chunk_is_what_it_was_after_the_wire(
            stream: u32, offset: u64, is_last: bool, bytes in proptest::collection::vec(any::<u8>(), 0..999),
        ) {
            let chunk = Chunk { kind: ChunkKind::Down, is_last, stream, offset, bytes: &bytes };
            let frame = chunk.encode();
            prop_assert_eq!(Chunk::decode(&frame), Ok(chunk));
        }

        #[test]
        fn no_bytes_are_too_strange_to_be_refused(frame in proptest::collection::vec(any::<u8>(), 0..99)) {
            prop_assert!(Chunk::decode(&frame).is_err() || frame.len() >= CHUNK_HEAD_BYTES);
        }
    }
}
