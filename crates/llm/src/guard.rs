//! Bounds of one answer: how long it may be silent and how many bytes it may have.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use launchdarkly_sdk_transport::{ByteStream, TransportError};

use crate::{ErrorClass, ModelError};

/// Longest time to open a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time from the request to the first byte of the answer; reasoning models are slow.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_mins(2);
/// Longest time between two bytes of the answer; comments of the stream count.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// Largest event of a stream, in bytes.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Largest stream, in bytes.
pub const STREAM_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The bounds of one answer; the constants of this crate by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// [`CONNECT_TIMEOUT`].
    pub connect: Duration,
    /// [`FIRST_BYTE_TIMEOUT`].
    pub first_byte: Duration,
    /// [`IDLE_TIMEOUT`].
    pub idle: Duration,
    /// [`EVENT_BYTES_MAX`].
    pub event_bytes_max: usize,
    /// [`STREAM_BYTES_MAX`].
    pub stream_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            first_byte: FIRST_BYTE_TIMEOUT,
            idle: IDLE_TIMEOUT,
            event_bytes_max: EVENT_BYTES_MAX,
            stream_bytes_max: STREAM_BYTES_MAX,
        }
    }
}

/// Passes a body on and ends it with a [`ModelError`] where it breaks a limit.
pub(crate) fn guard(body: ByteStream, limits: Limits) -> ByteStream {
    let guarded = Guarded {
        body,
        limits,
        patience: limits.first_byte,
        stream_bytes: 0,
        event: EventSize::default(),
    };
    Box::pin(stream::try_unfold(guarded, |guarded| async {
        guarded.next().await.map_err(TransportError::new)
    }))
}

struct Guarded {
    body: ByteStream,
    limits: Limits,
    patience: Duration,
    stream_bytes: usize,
    event: EventSize,
}

impl Guarded {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ModelError> {
        let Ok(next) = tokio::time::timeout(self.patience, self.body.next()).await else {
            return Err(silent(self.patience));
        };
        self.patience = self.limits.idle;
        match next {
            None => Ok(None),
            Some(Err(error)) => Err(broken(&error)),
            Some(Ok(chunk)) => {
                self.check(&chunk)?;
                Ok(Some((chunk, self)))
            }
        }
    }

    fn check(&mut self, chunk: &[u8]) -> Result<(), ModelError> {
        self.stream_bytes = self.stream_bytes.saturating_add(chunk.len());
        if self.stream_bytes > self.limits.stream_bytes_max {
            let message = format!("the answer is over `{}` bytes", self.limits.stream_bytes_max);
            return Err(ModelError::new(ErrorClass::Protocol, message));
        }
        if self.event.largest(chunk) > self.limits.event_bytes_max {
            let max = self.limits.event_bytes_max;
            let message = format!("one event of the answer is over `{max}` bytes");
            return Err(ModelError::new(ErrorClass::Protocol, message));
        }
        Ok(())
    }
}

/// The error of a provider that says nothing for `patience`.
pub(crate) fn silent(patience: Duration) -> ModelError {
    let ms = patience.as_millis();
    ModelError::new(ErrorClass::Transient, format!("the provider sent nothing for `{ms}` ms"))
}

fn broken(error: &TransportError) -> ModelError {
    tracing::warn!(error = ?error.inner(), "the connection to a provider broke");
    ModelError::new(ErrorClass::Transient, "the connection to the provider broke")
}

/// Measures the event that is being received: the bytes since the last blank line
/// (WHATWG HTML, 9.2.6: lines end with LF, CR or CRLF).
#[derive(Default)]
struct EventSize {
    bytes: usize,
    line_bytes: usize,
    after_cr: bool,
}

impl EventSize {
    /// The size of the largest event, begun or ended, that `chunk` has a part of.
    fn largest(&mut self, chunk: &[u8]) -> usize {
        let mut largest = 0;
        for &byte in chunk {
            self.bytes += 1;
            largest = largest.max(self.bytes);
            let ends_crlf = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            if ends_crlf {
                continue;
            }
            if byte != b'\n' && byte != b'\r' {
                self.line_bytes += 1;
                continue;
            }
            if self.line_bytes == 0 {
                self.bytes = 0;
            }
            self.line_bytes = 0;
        }
        largest
    }
}

#[cfg(test)]
mod tests {
    use super::EventSize;

    #[test]
    fn an_event_is_measured_from_blank_line_to_blank_line() {
        for text in ["data: ab\n\nx: 1\n\n", "data: ab\r\n\r\nx: 1\r\n\r\n", "data: ab\r\rx: 1\r\r"]
        {
            let mut size = EventSize::default();
            let whole = size.largest(text.as_bytes());
            assert!((10..=12).contains(&whole), "{text:?} {whole}");
            let mut size = EventSize::default();
            let cut = text.as_bytes().iter().map(|byte| size.largest(&[*byte])).max();
            assert_eq!(cut, Some(whole), "{text:?}");
        }
    }
}
