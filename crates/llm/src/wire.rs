//! What all wires have in common: a body becomes events of its framing, and these become the common
//! alphabet.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{BoxStream, Stream, StreamExt};
use tokio::time::Instant;

use crate::guard::silent;
use crate::{ModelError, ModelEvent, ModelStream};

/// One event of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `message` when an event does not name it; empty where the framing has no names.
    pub(crate) name: String,
    pub(crate) data: String,
}

pub(crate) type Frames = BoxStream<'static, Result<Frame, ModelError>>;

/// Turns the events of one answer into the common alphabet, without any I/O.
pub(crate) trait Decoder: Send + Unpin + 'static {
    /// Takes one event. The answer is over once it gave a [`ModelEvent::Finish`].
    ///
    /// # Errors
    ///
    /// The error that the provider reports with it, classified; [`crate::ErrorClass::Protocol`] when it is
    /// not the provider's wire or a limit is passed; [`ModelError::truncated`] for an end that comes too
    /// early.
    fn push(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ModelError>;

    /// Whether the last event says that the provider works although nothing came of it: a part of what it
    /// wants back, or what a tool of its own is doing. A ping is none such.
    fn is_at_work(&self) -> bool {
        false
    }

    /// Whether the answer is whole as it is, so that it does not matter how the connection ends: never on a
    /// wire whose terminal marker ends the stream.
    fn is_answered(&self) -> bool {
        false
    }

    /// The body has ended. The last event is [`ModelEvent::Finish`].
    ///
    /// # Errors
    ///
    /// [`ModelError::truncated`] when the provider's terminal marker is missing; otherwise as
    /// [`Decoder::push`].
    fn finish(&mut self, _: &mut Vec<ModelEvent>) -> Result<(), ModelError> {
        Err(ModelError::truncated())
    }
}

/// Turns the events of an answer into the common alphabet. Events that say nothing for longer than `patience`
/// end it.
pub(crate) fn decode(frames: Frames, decoder: impl Decoder, patience: Duration) -> ModelStream {
    let (ready, events) = (VecDeque::new(), Vec::new());
    Decoding { frames, decoder, patience, worked_at: None, ready, events, is_over: false }.boxed()
}

struct Decoding<D> {
    frames: Frames,
    decoder: D,
    patience: Duration,
    /// When an event last said something; the first one counts in any case.
    worked_at: Option<Instant>,
    /// Events of the last frame that nobody took.
    ready: VecDeque<ModelEvent>,
    /// Where the decoder puts them; empty in between.
    events: Vec<ModelEvent>,
    is_over: bool,
}

impl<D: Decoder> Decoding<D> {
    /// Takes a frame, or the end of the body.
    fn read(&mut self, frame: Option<Result<Frame, ModelError>>) -> Result<(), ModelError> {
        match frame {
            Some(Ok(frame)) => {
                self.decoder.push(&frame, &mut self.events)?;
                self.note_work()?;
            }
            Some(Err(error)) if !self.decoder.is_answered() => return Err(error),
            Some(Err(_)) | None => self.decoder.finish(&mut self.events)?,
        }
        self.is_over = matches!(self.events.last(), Some(ModelEvent::Finish { .. }));
        self.ready.extend(self.events.drain(..));
        Ok(())
    }

    /// Whoever only pings does not work. That nothing comes at all is seen where bytes are read.
    fn note_work(&mut self) -> Result<(), ModelError> {
        let works = !self.events.is_empty() || self.decoder.is_at_work();
        match self.worked_at {
            Some(at) if !works && at.elapsed() >= self.patience => Err(silent(self.patience)),
            Some(_) if !works => Ok(()),
            Some(_) | None => {
                self.worked_at = Some(Instant::now());
                Ok(())
            }
        }
    }
}

impl<D: Decoder> Stream for Decoding<D> {
    type Item = Result<ModelEvent, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let decoding = &mut *self;
        loop {
            if let Some(event) = decoding.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if decoding.is_over {
                return Poll::Ready(None);
            }
            let frame = ready!(decoding.frames.poll_next_unpin(context));
            if let Err(error) = decoding.read(frame) {
                // Of an event that is wrong nothing counts.
                decoding.is_over = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::anthropic::AnthropicDecoder;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// The events, a second after one another.
    fn answer(events: Vec<String>) -> ModelStream {
        let frames = stream::iter(events).then(|data| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Frame { name: "message".to_owned(), data })
        });
        decode(frames.boxed(), AnthropicDecoder::default(), PATIENCE)
    }

    fn begun() -> Vec<String> {
        let block = r#"{"type":"thinking","thinking":"","signature":""}"#;
        vec![
            r#"{"type":"message_start","message":{}}"#.to_owned(),
            format!(r#"{{"type":"content_block_start","index":0,"content_block":{block}}}"#),
        ]
    }

    async fn error_of(events: Vec<String>) -> String {
        answer(events).collect::<Vec<_>>().await.pop().unwrap().unwrap_err().message
    }

    #[tokio::test(start_paused = true)]
    async fn who_only_pings_is_left() {
        let ping = || r#"{"type":"ping"}"#.to_owned();
        let pings = |count| [begun(), (0..count).map(|_| ping()).collect()].concat();
        let silent = silent(PATIENCE).message;
        assert_eq!(error_of(pings(10)).await, silent);
        assert_ne!(error_of(pings(9)).await, silent, "it ended before");
        assert_eq!(error_of((0..11).map(|_| ping()).collect()).await, silent, "from the first one");
    }

    #[tokio::test(start_paused = true)]
    async fn who_works_unseen_is_waited_for() {
        let delta = r#"{"type":"signature_delta","signature":"x"}"#;
        let hidden = format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#);
        let stop = r#"{"type":"message_stop"}"#.to_owned();
        let events = [begun(), vec![hidden; 100], vec![stop]].concat();
        let answer: Vec<_> = answer(events).collect().await;
        assert!(matches!(answer.last(), Some(Ok(ModelEvent::Finish { .. }))), "{answer:?}");
    }
}
