//! Lines of JSON of one request, with our errors.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
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
    let lines = Lines { body, read: BytesMut::new(), searched: 0, is_over: false };
    stream::unfold(lines, Lines::next).boxed()
}

struct Lines {
    body: ByteStream,
    read: BytesMut,
    /// Bytes of `read` that hold no end of a line.
    searched: usize,
    is_over: bool,
}

impl Lines {
    async fn next(mut self) -> Option<(Result<Frame, ModelError>, Self)> {
        loop {
            match self.take_line() {
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => return Some((frame(&line), self)),
                None if self.is_over => return None,
                None => match self.body.next().await {
                    Some(Ok(chunk)) => self.read.extend_from_slice(&chunk),
                    Some(Err(error)) => {
                        self.is_over = true;
                        self.read.clear();
                        return Some((Err(transport_error(&error)), self));
                    }
                    None => self.is_over = true,
                },
            }
        }
    }

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
    Ok(Frame { name: "message".to_owned(), data: data.to_owned() })
}
