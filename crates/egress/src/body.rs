//! A body on its way: not longer, not for longer than allowed.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, timeout_at};

use crate::error::EgressError;
use crate::gate::{Admission, Turn};

/// The decoded body of an answer, piece by piece. Dropping it closes the connection.
pub struct Body {
    pub(crate) host: String,
    pub(crate) pieces: BoxStream<'static, reqwest::Result<Bytes>>,
    /// Bytes that may still come.
    pub(crate) bytes_left: usize,
    pub(crate) bytes_max: usize,
    /// Whether there was more than `bytes_max`; the next read says so.
    pub(crate) is_cut: bool,
    pub(crate) is_over: bool,
    pub(crate) deadline: Instant,
    pub(crate) limit: Duration,
    pub(crate) _turn: Turn,
    pub(crate) _admission: Admission,
}

impl Body {
    /// Waits for the next piece, until the time of the whole request is up; `None` after the last one. A piece
    /// is at most as long as what is left of the limit.
    ///
    /// # Errors
    ///
    /// `TooLarge` once as many bytes came as are allowed and there are more; `TimedOut`; `BadResponse` when
    /// the connection or the encoding breaks. After an error nothing more comes.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, EgressError> {
        loop {
            if self.is_over {
                return Ok(None);
            }
            match self.read().await {
                // An empty piece says nothing; the end is told by `None`.
                Ok(Some(piece)) if piece.is_empty() => {}
                Ok(Some(piece)) => return Ok(Some(piece)),
                last => {
                    self.is_over = true;
                    return last;
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, EgressError> {
        if self.is_cut {
            return Err(EgressError::TooLarge { part: "body", bytes_max: self.bytes_max });
        }
        let next = timeout_at(self.deadline, self.pieces.next()).await;
        let Some(piece) = next.map_err(|_| EgressError::TimedOut { limit: self.limit })? else {
            return Ok(None);
        };
        let mut piece = piece.map_err(|source| EgressError::BadResponse {
            host: self.host.clone(),
            source: Some(source.without_url()),
        })?;
        if piece.len() > self.bytes_left {
            self.is_cut = true;
            piece.truncate(self.bytes_left);
        }
        self.bytes_left -= piece.len();
        Ok(Some(piece))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("bytes_left", &self.bytes_left).finish_non_exhaustive()
    }
}
