//! Lines of JSON of one request, with our errors.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use http::{Method, Request};
use launchdarkly_sdk_transport::{ByteStream, HttpTransport};

use crate::sse::transport_error;
use crate::wire::{Frame, Frames};
use crate::{ErrorClass, ModelError};

/// Posts `body` and hands out the lines of the answer that are not blank. Ends at the end of the body, or
/// after the first error.
pub(crate) fn post(transport: impl HttpTransport, url: &str, body: String) -> Frames {
    let request = Request::builder().method(Method::POST).uri(url).body(Some(Bytes::from(body)));
    let opened = async move {
        let request = request.map_err(|_| {
            ModelError::new(ErrorClass::Invalid, "the address of the provider is not valid")
        })?;
        let response = transport.request(request).await;
        Ok(response.map_err(|error| transport_error(&error))?.into_body())
    };
    let lines = stream::once(opened).flat_map(|opened| match opened {
        Ok(body) => lines(body),
        Err(error) => stream::iter([Err(error)]).boxed(),
    });
    lines.boxed()
}

/// A line is not longer than the guard of the body lets it be.
fn lines(body: ByteStream) -> Frames {
    Lines { body, read: BytesMut::new(), searched: 0, is_over: false }.boxed()
}

struct Lines {
    body: ByteStream,
    read: BytesMut,
    /// Bytes of `read` that hold no end of a line.
    searched: usize,
    is_over: bool,
}

impl Stream for Lines {
    type Item = Result<Frame, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let lines = &mut *self;
        loop {
            match lines.take_line() {
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => return Poll::Ready(Some(frame(&line))),
                None if lines.is_over => return Poll::Ready(None),
                None => match ready!(lines.body.poll_next_unpin(context)) {
                    Some(Ok(chunk)) => lines.read.extend_from_slice(&chunk),
                    Some(Err(error)) => {
                        lines.is_over = true;
                        lines.read.clear();
                        return Poll::Ready(Some(Err(transport_error(&error))));
                    }
                    None => lines.is_over = true,
                },
            }
        }
    }
}

impl Lines {
    /// The next line; the last one need not have an end.
    fn take_line(&mut self) -> Option<BytesMut> {
        let rest = self.read.get(self.searched..).unwrap_or_default();
        if let Some(end) = memchr::memchr2(b'\n', b'\r', rest) {
            let line = self.read.split_to(self.searched + end);
            self.read.advance(1);
            self.searched = 0;
            return Some(line);
        }
        self.searched = self.read.len();
        if !self.is_over || self.read.is_empty() {
            return None;
        }
        self.searched = 0;
        Some(self.read.split())
    }
}

fn frame(line: &[u8]) -> Result<Frame, ModelError> {
    let data = std::str::from_utf8(line).map_err(|_| {
        ModelError::new(ErrorClass::Protocol, "the provider's answer is not valid UTF-8")
    })?;
    Ok(Frame { name: String::new(), data: data.to_owned() })
}
