//! What all wires have in common: a body becomes events of its framing, and these become the common
//! alphabet.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::stream::{BoxStream, Stream, StreamExt};

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

/// Turns the events of an answer into the common alphabet.
pub(crate) fn decode(frames: Frames, decoder: impl Decoder) -> ModelStream {
    Decoding { frames, decoder, ready: VecDeque::new(), events: Vec::new(), is_over: false }.boxed()
}

struct Decoding<D> {
    frames: Frames,
    decoder: D,
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
            Some(Ok(frame)) => self.decoder.push(&frame, &mut self.events)?,
            Some(Err(error)) if !self.decoder.is_answered() => return Err(error),
            Some(Err(_)) | None => self.decoder.finish(&mut self.events)?,
        }
        self.is_over = matches!(self.events.last(), Some(ModelEvent::Finish { .. }));
        self.ready.extend(self.events.drain(..));
        Ok(())
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
