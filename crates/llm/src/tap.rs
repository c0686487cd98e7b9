//! Listening to what goes to a provider and what comes back, for whoever has to find a mistake.
//!
//! Without a tap nothing is copied. With one, the bodies are, up to a limit; of headers only those of the answer
//! that say nothing of keys.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, mem};

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use http::{HeaderMap, StatusCode};
use iris_protocol::limits::{CAPTURE_BODY_BYTES_MAX, CAPTURE_CHUNKS_MAX};
use launchdarkly_sdk_transport::{ByteStream, TransportError};
use tokio::time::Instant;

/// Headers of answers that are told, and how those begin that are told too.
const HEADERS: &[&str] = &[
    "cf-ray",
    "content-type",
    "date",
    "openai-processing-ms",
    "openai-version",
    "request-id",
    "retry-after",
    "x-request-id",
];
const HEADER_PREFIXES: &[&str] = &["anthropic-ratelimit-", "x-ratelimit-"];

/// Hears of each request to a provider, once it is over.
pub trait Tap: Send + Sync {
    /// Takes what was sent and what came. It may be called on any thread, also where nobody waits for the answer.
    fn exchanged(&self, exchange: Exchange);
}

/// Whoever hears of a request.
#[derive(Clone)]
pub struct Tapped(Arc<dyn Tap>);

impl Tapped {
    /// Has `tap` hear.
    pub fn by(tap: Arc<dyn Tap>) -> Self {
        Self(tap)
    }
}

impl fmt::Debug for Tapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tapped")
    }
}

impl PartialEq for Tapped {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Is called when something of an answer comes, also where that says nothing: the provider lives. Not more
/// often than every tenth of a second, on any thread.
#[derive(Clone)]
pub struct Pulse(Arc<dyn Fn() + Send + Sync>);

impl Pulse {
    /// Has `heard` called.
    pub fn heard_by(heard: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(heard))
    }

    pub(crate) fn beat(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pulse")
    }
}

impl PartialEq for Pulse {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The beginning of a body.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HeardBody {
    /// At most [`CAPTURE_BODY_BYTES_MAX`].
    pub bytes: Vec<u8>,
    /// How many there were in all.
    pub total: u64,
}

impl HeardBody {
    fn hear(&mut self, bytes: &[u8]) {
        let room = CAPTURE_BODY_BYTES_MAX - self.bytes.len();
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.total = self.total.saturating_add(bytes.len() as u64);
    }

    /// Whether there was more of it.
    pub fn is_cut(&self) -> bool {
        self.total > self.bytes.len() as u64
    }
}

/// Only how long: it holds what people wrote.
impl fmt::Debug for HeardBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.total)
    }
}

/// One request and what came of it, as it went over the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Where the request went.
    pub url: String,
    /// What was sent.
    pub request: HeardBody,
    /// The status of the answer, where one came.
    pub status: Option<u16>,
    /// Headers of the answer.
    pub headers: Vec<(String, String)>,
    /// What came.
    pub response: HeardBody,
    /// When pieces of it came, since the request was sent, and how many bytes: at most [`CAPTURE_CHUNKS_MAX`], the
    /// last of which stands for all that follow.
    pub chunks: Vec<(Duration, u64)>,
    /// How long until the head of the answer came.
    pub head_after: Option<Duration>,
    /// How long all of it took.
    pub duration: Duration,
}

/// What is being heard of one request. Dropped, it is told.
pub(crate) struct Hearing {
    tap: Tapped,
    since: Instant,
    exchange: Exchange,
}

impl Hearing {
    pub(crate) fn begin(tap: &Tapped, url: String, body: &[u8]) -> Self {
        let mut request = HeardBody::default();
        request.hear(body);
        let exchange = Exchange { url, request, ..Exchange::default() };
        Self { tap: tap.clone(), since: Instant::now(), exchange }
    }

    pub(crate) fn answered(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.exchange.status = Some(status.as_u16());
        self.exchange.head_after = Some(self.since.elapsed());
        let told = headers.iter().filter(|(name, _)| is_told(name.as_str()));
        let told = told.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        self.exchange.headers =
            told.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    /// The body, heard on its way.
    pub(crate) fn of(self, body: ByteStream) -> ByteStream {
        Box::pin(Heard { hearing: self, body })
    }

    fn hear(&mut self, bytes: &[u8]) {
        let (after, length) = (self.since.elapsed(), bytes.len() as u64);
        self.exchange.response.hear(bytes);
        let chunks = &mut self.exchange.chunks;
        let is_full = chunks.len() >= CAPTURE_CHUNKS_MAX;
        match chunks.last_mut().filter(|_| is_full) {
            Some((_, last)) => *last += length,
            None => chunks.push((after, length)),
        }
    }
}

fn is_told(name: &str) -> bool {
    HEADERS.contains(&name) || HEADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.exchange.duration = self.since.elapsed();
        self.tap.0.exchanged(mem::take(&mut self.exchange));
    }
}

struct Heard {
    hearing: Hearing,
    body: ByteStream,
}

impl Stream for Heard {
    type Item = Result<Bytes, TransportError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(self.body.poll_next_unpin(context));
        if let Some(Ok(bytes)) = &next {
            self.hearing.hear(bytes);
        }
        Poll::Ready(next)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Told(Mutex<Vec<Exchange>>);

    impl Tap for Told {
        fn exchanged(&self, exchange: Exchange) {
            self.0.lock().push(exchange);
        }
    }

    #[test]
    fn a_body_is_heard_up_to_its_limit_and_chunks_up_to_theirs() {
        let told = Arc::new(Told::default());
        let mut hearing = Hearing::begin(&Tapped::by(told.clone()), "http://x/".into(), b"asked");
        for _ in 0..CAPTURE_CHUNKS_MAX + 2 {
            hearing.hear(&[b'a'; 1024]);
        }
        assert!(told.0.lock().is_empty());
        drop(hearing);
        let [exchange] = <[Exchange; 1]>::try_from(told.0.lock().clone()).unwrap();
        assert_eq!(exchange.request.bytes, b"asked");
        assert_eq!(exchange.status, None);
        assert_eq!(exchange.response.bytes.len(), CAPTURE_BODY_BYTES_MAX);
        assert!(exchange.response.is_cut());
        assert_eq!(exchange.chunks.len(), CAPTURE_CHUNKS_MAX);
        let counted: u64 = exchange.chunks.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(counted, exchange.response.total);
    }

    #[test]
    fn headers_that_may_name_somebody_are_not_told() {
        let told = Arc::new(Told::default());
        let mut hearing = Hearing::begin(&Tapped::by(told.clone()), String::new(), b"");
        let mut headers = HeaderMap::new();
        for name in
            ["set-cookie", "authorization", "x-api-key", "openai-organization", "request-id"]
        {
            headers.insert(name, name.parse().unwrap());
        }
        hearing.answered(StatusCode::OK, &headers);
        drop(hearing);
        let expected = vec![("request-id".to_owned(), "request-id".to_owned())];
        assert_eq!(told.0.lock()[0].headers, expected);
    }
}
