//! Bounds of one answer: how long it may be silent and how many bytes it may have.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use launchdarkly_sdk_transport::{ByteStream, TransportError};
use tokio::time::{Instant, Sleep};

use crate::{ErrorClass, ModelError, Pulse};

/// Longest time to open a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time from the request to the first byte of the answer; reasoning models are slow.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_mins(2);
/// Longest time between two bytes of the answer; comments of the stream count.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(2);
/// Longest time in which nothing of an answer comes: comments and pings say that a provider lives, not that it
/// works.
pub const PROGRESS_TIMEOUT: Duration = Duration::from_mins(3);
/// How often it is told at most that a provider lives.
const PULSE_EVERY: Duration = Duration::from_millis(100);
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
    /// [`PROGRESS_TIMEOUT`].
    pub progress: Duration,
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
            progress: PROGRESS_TIMEOUT,
            event_bytes_max: EVENT_BYTES_MAX,
            stream_bytes_max: STREAM_BYTES_MAX,
        }
    }
}

impl Limits {
    /// The same with other patience. Where a provider may be silent for long, it may be without progress for as
    /// long.
    #[must_use]
    pub fn waiting(self, first_byte: Option<Duration>, idle: Option<Duration>) -> Self {
        let first_byte = first_byte.unwrap_or(self.first_byte);
        let idle = idle.unwrap_or(self.idle);
        let progress = self.progress.max(first_byte).max(idle);
        Self { first_byte, idle, progress, ..self }
    }

    /// How long a provider may let nothing at all be heard.
    pub(crate) fn silence(&self) -> Duration {
        self.connect + self.first_byte.max(self.idle)
    }
}

/// How a body is cut into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events (WHATWG HTML, 9.2.6).
    Events,
    /// A line of JSON each.
    Lines,
}

/// Passes a body on and ends it with a [`ModelError`] where it breaks a limit.
pub(crate) fn guard(
    body: ByteStream,
    framing: Framing,
    limits: Limits,
    pulse: Option<Pulse>,
) -> ByteStream {
    let guarded = async move {
        Ok(Guarded {
            body,
            limits,
            patience: limits.first_byte,
            progress: Box::pin(tokio::time::sleep(limits.progress)),
            stream_bytes: 0,
            event: EventSize::new(framing),
            pulse,
            told_at: None,
        })
    };
    let chunks = stream::once(guarded).map_ok(|guarded| {
        stream::try_unfold(guarded, |guarded| async {
            guarded.next().await.map_err(TransportError::new)
        })
    });
    Box::pin(chunks.try_flatten())
}

struct Guarded {
    body: ByteStream,
    limits: Limits,
    patience: Duration,
    /// Ends when there was nothing but comments for too long.
    progress: Pin<Box<Sleep>>,
    stream_bytes: usize,
    event: EventSize,
    /// Who hears that something comes, and when that was told last.
    pulse: Option<Pulse>,
    told_at: Option<Instant>,
}

impl Guarded {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, ModelError> {
        let next = tokio::time::timeout(self.patience, self.body.next());
        let next = tokio::select! {
            biased;
            next = next => next.map_err(|_| silent(self.patience))?,
            () = &mut self.progress => return Err(silent(self.limits.progress)),
        };
        self.patience = self.limits.idle;
        let Some(chunk) = next else { return Ok(None) };
        let chunk = chunk.map_err(|error| broken(&error))?;
        if self.check(&chunk)? {
            self.progress = Box::pin(tokio::time::sleep(self.limits.progress));
        }
        self.tell();
        Ok(Some((chunk, self)))
    }

    fn tell(&mut self) {
        let Some(pulse) = &self.pulse else { return };
        if self.told_at.is_none_or(|at| at.elapsed() >= PULSE_EVERY) {
            pulse.beat();
            self.told_at = Some(Instant::now());
        }
    }

    /// Whether the chunk has more than comments.
    fn check(&mut self, chunk: &[u8]) -> Result<bool, ModelError> {
        self.stream_bytes = self.stream_bytes.saturating_add(chunk.len());
        if self.stream_bytes > self.limits.stream_bytes_max {
            let message = format!("the answer is over `{}` bytes", self.limits.stream_bytes_max);
            return Err(ModelError::new(ErrorClass::Protocol, message));
        }
        let Seen { largest, is_progress } = self.event.see(chunk);
        if largest > self.limits.event_bytes_max {
            let max = self.limits.event_bytes_max;
            let message = format!("one event of the answer is over `{max}` bytes");
            return Err(ModelError::new(ErrorClass::Protocol, message));
        }
        Ok(is_progress)
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

/// Measures the event that is being received: the bytes since the last blank line, or since the last
/// line. Lines end with LF, CR or CRLF.
#[derive(Debug)]
struct EventSize {
    framing: Framing,
    bytes: usize,
    line_bytes: usize,
    is_comment: bool,
    after_cr: bool,
}

/// What a chunk has in it.
struct Seen {
    /// The size of the largest event, begun or ended, that it has a part of.
    largest: usize,
    /// Whether it has more than comments and blank lines.
    is_progress: bool,
}

impl EventSize {
    fn new(framing: Framing) -> Self {
        Self { framing, bytes: 0, line_bytes: 0, is_comment: false, after_cr: false }
    }

    fn see(&mut self, chunk: &[u8]) -> Seen {
        let mut seen = Seen { largest: 0, is_progress: false };
        let mut rest = chunk;
        while !rest.is_empty() {
            let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            seen.is_progress |= self.add(line);
            if let Some((byte, after)) = after.split_first() {
                self.end_line(*byte, line.is_empty(), &mut seen);
                rest = after;
            } else {
                rest = after;
            }
            seen.largest = seen.largest.max(self.bytes);
        }
        seen
    }

    /// Adds a part of a line; whether it is one that counts.
    fn add(&mut self, line: &[u8]) -> bool {
        let Some(first) = line.first() else { return false };
        if self.line_bytes == 0 {
            self.is_comment = self.framing == Framing::Events && *first == b':';
        }
        self.after_cr = false;
        self.line_bytes += line.len();
        self.bytes += line.len();
        !self.is_comment
    }

    fn end_line(&mut self, byte: u8, nothing_between: bool, seen: &mut Seen) {
        let ends_crlf = byte == b'\n' && self.after_cr && nothing_between;
        self.after_cr = byte == b'\r';
        self.bytes += 1;
        seen.largest = seen.largest.max(self.bytes);
        if ends_crlf {
            return;
        }
        let ends_event = self.framing == Framing::Lines || self.line_bytes == 0;
        if ends_event {
            self.bytes = 0;
        }
        self.line_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(framing: Framing, pieces: &[&[u8]]) -> (usize, Vec<bool>) {
        let mut size = EventSize::new(framing);
        let seen: Vec<Seen> = pieces.iter().map(|piece| size.see(piece)).collect();
        let largest = seen.iter().map(|seen| seen.largest).max().unwrap_or_default();
        (largest, seen.iter().map(|seen| seen.is_progress).collect())
    }

    #[test]
    fn an_event_is_measured_from_blank_line_to_blank_line() {
        for text in ["data: ab\n\nx: 1\n\n", "data: ab\r\n\r\nx: 1\r\n\r\n", "data: ab\r\rx: 1\r\r"]
        {
            let (whole, _) = seen(Framing::Events, &[text.as_bytes()]);
            assert!((10..=12).contains(&whole), "{text:?} {whole}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(seen(Framing::Events, &bytes).0, whole, "{text:?}");
        }
    }

    #[test]
    fn a_line_of_json_is_an_event() {
        let text = b"{\"a\":1}\r\n{}\n{\"b\":22}\n";
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(seen(Framing::Lines, &[text]).0, 9);
        assert_eq!(seen(Framing::Lines, &bytes).0, 9);
    }

    #[test]
    fn comments_are_no_progress_however_they_are_cut() {
        let pieces: [&[u8]; 6] = [b": alive\n", b"\n", b":", b" x\ndata", b": 1\n", b"\n"];
        let (_, progress) = seen(Framing::Events, &pieces);
        assert_eq!(progress, [false, false, false, true, true, false]);
        let (_, progress) = seen(Framing::Lines, &[b":\n"]);
        assert_eq!(progress, [true]);
    }
}
