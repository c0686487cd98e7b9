//! Checkpoints of streaming text: what of an answer is safe before its step is.

use iris_protocol::{
    Message, MessageId, MessageState, Part, PartId, Run, RunId, SessionId, StreamKind,
};
use rusqlite::{Connection, Row, params};

use super::steps::event_of;
use super::{log, queries, records};
use crate::column::to_word;
use crate::{Command, Durability, StoreError, WriteTx, column};

/// The pieces of the parts of a message that are not recorded, in the order in which they came.
pub(super) const CHUNKS: &str = "SELECT * FROM stream_chunks WHERE message_id = ?1 ORDER BY id";

/// A piece of a part that streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextChunk {
    /// The part.
    pub part_id: PartId,
    /// What it holds.
    pub kind: StreamKind,
    /// Bytes of UTF-8 of the part before this piece.
    pub offset: u64,
    /// Never empty. Takes the place of a piece that begins where it does.
    pub text: String,
}

/// Keeps streaming text, so that it is not lost with the process. Publishes nothing.
///
/// Never fails for coming too late: what belongs to a part that is recorded, or to a run that ended,
/// is dropped.
#[derive(Debug, Clone)]
pub struct CheckpointText {
    /// The session.
    pub session_id: SessionId,
    /// The run.
    pub run_id: RunId,
    /// Its answer.
    pub message_id: MessageId,
    /// In order of appearance.
    pub chunks: Vec<TextChunk>,
}

impl Command for CheckpointText {
    const DURABILITY: Durability = Durability::ProcessDeath;

    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        let conn = tx.conn();
        if !self.is_streaming(conn)? {
            return Ok(());
        }
        for chunk in &self.chunks {
            if !is_recorded(conn, &chunk.part_id)? {
                keep_chunk(conn, &self.message_id, chunk)?;
            }
        }
        Ok(())
    }
}

impl CheckpointText {
    fn is_streaming(&self, conn: &Connection) -> Result<bool, StoreError> {
        let run = queries::run(conn, &self.run_id)?;
        let is_open = run.is_some_and(|found| found.run.ended_at.is_none());
        let message = queries::bare_message(conn, &self.session_id, &self.message_id)?;
        let is_its = |message: Message| {
            message.run_id.as_ref() == Some(&self.run_id)
                && message.state == MessageState::Streaming
        };
        Ok(is_open && message.is_some_and(is_its))
    }
}

fn is_recorded(conn: &Connection, part_id: &PartId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM message_parts WHERE id = ?1";
    Ok(queries::first(conn, sql, [part_id.as_str()], |_| Ok(()))?.is_some())
}

fn keep_chunk(
    conn: &Connection,
    message_id: &MessageId,
    chunk: &TextChunk,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO stream_chunks (message_id, part_id, kind, byte_offset, text)
               VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (message_id, part_id, byte_offset) DO UPDATE SET text = excluded.text";
    conn.prepare_cached(sql)?.execute(params![
        message_id.as_str(),
        chunk.part_id.as_str(),
        to_word(&chunk.kind)?,
        chunk.offset,
        chunk.text,
    ])?;
    Ok(())
}

/// Forgets the pieces of a part, which is recorded now.
pub(super) fn drop_part(
    conn: &Connection,
    message_id: &MessageId,
    part_id: &PartId,
) -> Result<(), StoreError> {
    let sql = "DELETE FROM stream_chunks WHERE message_id = ?1 AND part_id = ?2";
    conn.prepare_cached(sql)?.execute([message_id.as_str(), part_id.as_str()])?;
    Ok(())
}

/// Forgets all that is kept of an answer beyond its recorded parts.
pub(super) fn drop_all(conn: &Connection, message_id: &MessageId) -> Result<(), StoreError> {
    let sql = "DELETE FROM stream_chunks WHERE message_id = ?1";
    conn.prepare_cached(sql)?.execute([message_id.as_str()])?;
    Ok(())
}

/// Makes parts of what was kept of the text that the answer of a run was streaming, says so, and
/// forgets the pieces.
pub(super) fn keep_interrupted(
    tx: &mut WriteTx<'_>,
    run: &Run,
    message: &Message,
    at: i64,
) -> Result<(), StoreError> {
    for part in join(queries::all(tx.conn(), CHUNKS, [message.id.as_str()], chunk)?) {
        records::append_part(tx.conn(), message, &part)?;
        drop_part(tx.conn(), &message.id, part.id())?;
        let event = event_of(message, &part);
        log::in_session(tx, &message.session_id, at, Some(&run.started_by), &event)?;
    }
    Ok(())
}

fn chunk(row: &Row<'_>) -> rusqlite::Result<TextChunk> {
    Ok(TextChunk {
        part_id: column::word(row, "part_id")?,
        kind: column::word(row, "kind")?,
        offset: row.get("byte_offset")?,
        text: row.get("text")?,
    })
}

/// The parts that the pieces are of, each as far as it is without a gap.
fn join(chunks: Vec<TextChunk>) -> Vec<Part> {
    let mut parts: Vec<TextChunk> = Vec::new();
    for chunk in chunks {
        let Some(part) = parts.iter_mut().find(|part| part.part_id == chunk.part_id) else {
            // A part without its beginning would be a lie.
            if chunk.offset == 0 {
                parts.push(chunk);
            }
            continue;
        };
        let known = (part.text.len() as u64).checked_sub(chunk.offset);
        let known = known.and_then(|known| usize::try_from(known).ok());
        part.text.push_str(known.and_then(|known| chunk.text.get(known..)).unwrap_or_default());
    }
    let parts = parts.into_iter().map(|TextChunk { part_id: id, kind, text, .. }| match kind {
        StreamKind::Text => Part::Text { id, text, interrupted: true },
        StreamKind::Reasoning => Part::Reasoning { id, text, interrupted: true },
    });
    parts.collect()
}
