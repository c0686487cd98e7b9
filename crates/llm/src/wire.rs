//! What all wires have in common: a body becomes events of its framing, and these become the common
//! alphabet.

use futures_util::stream::{self, BoxStream, StreamExt};

use crate::{ModelError, ModelEvent, ModelStream};

/// One event of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// `message` when the stream does not name it.
    pub(crate) name: String,
    pub(crate) data: String,
}

pub(crate) type Frames = BoxStream<'static, Result<Frame, ModelError>>;

/// Turns the events of one answer into the common alphabet, without any I/O.
pub(crate) trait Decoder: Send + 'static {
    /// Takes one event. The answer is over once it gave a [`ModelEvent::Finish`].
    ///
    /// # Errors
    ///
    /// The error that the provider reports with it, classified; [`crate::ErrorClass::Protocol`] when it is
    /// not the provider's wire or a limit is passed; [`ModelError::truncated`] for an end that comes too
    /// early.
    fn push(&mut self, frame: &Frame, events: &mut Vec<ModelEvent>) -> Result<(), ModelError>;

    /// Whether the answer is whole as it is, so that it does not matter how the connection ends.
    fn is_answered(&self) -> bool;

    /// The body has ended. The last event is [`ModelEvent::Finish`].
    ///
    /// # Errors
    ///
    /// [`ModelError::truncated`] when the provider's terminal marker is missing; otherwise as
    /// [`Decoder::push`].
    fn finish(&mut self, events: &mut Vec<ModelEvent>) -> Result<(), ModelError>;
}

/// Turns the events of an answer into the common alphabet.
pub(crate) fn decode(frames: Frames, decoder: impl Decoder) -> ModelStream {
    let ready = Vec::new();
    let decoding = Decoding { frames, decoder, ready, next: 0, is_over: false };
    stream::unfold(decoding, Decoding::next).boxed()
}

struct Decoding<D> {
    frames: Frames,
    decoder: D,
    /// Events of one frame, handed out up to `next`.
    ready: Vec<ModelEvent>,
    next: usize,
    is_over: bool,
}

impl<D: Decoder> Decoding<D> {
    async fn next(mut self) -> Option<(Result<ModelEvent, ModelError>, Self)> {
        loop {
            if let Some(event) = self.ready.get_mut(self.next) {
                self.next += 1;
                let taken = ModelEvent::TextEnd { index: 0 };
                return Some((Ok(std::mem::replace(event, taken)), self));
            }
            if self.is_over {
                return None;
            }
            self.ready.clear();
            self.next = 0;
            if let Err(error) = self.read().await {
                self.is_over = true;
                self.ready.clear();
                return Some((Err(error), self));
            }
        }
    }

    async fn read(&mut self) -> Result<(), ModelError> {
        match self.frames.next().await {
            Some(Ok(frame)) => self.decoder.push(&frame, &mut self.ready)?,
            Some(Err(error)) if !self.decoder.is_answered() => return Err(error),
            Some(Err(_)) | None => self.decoder.finish(&mut self.ready)?,
        }
        self.is_over = matches!(self.ready.last(), Some(ModelEvent::Finish { .. }));
        Ok(())
    }
}
