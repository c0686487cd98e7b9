//! Plays a recorded answer through the same parser and decoder as a live one.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use launchdarkly_sdk_transport::{HttpTransport, ResponseFuture};

use crate::guard::{Limits, guard};
use crate::{ChatDecoder, ModelStream, ProviderKind, chat, sse};

/// Decodes the body of a recorded event stream, given in pieces of any size. Does no I/O. A kind
/// that has no wire, [`ProviderKind::Scripted`], has no recordings: none.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use futures_util::StreamExt;
/// use iris_llm::{ProviderKind, replay};
///
/// let body = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
/// let stream = replay(ProviderKind::OpenAiCompatible, vec![body.into()]).unwrap();
/// assert_eq!(stream.count().await, 2, "start and finish");
/// # }
/// ```
pub fn replay(kind: ProviderKind, pieces: Vec<Bytes>) -> Option<ModelStream> {
    match kind {
        ProviderKind::OpenAiCompatible => {
            // The address is never used: the transport has the answer.
            let events = sse::post(Recording(pieces), "http://recording/", String::new());
            Some(chat::decode(events, ChatDecoder::default()))
        }
        ProviderKind::Scripted => None,
    }
}

/// A transport that answers every request with the same pieces.
#[derive(Clone)]
struct Recording(Vec<Bytes>);

impl HttpTransport for Recording {
    fn request(&self, _request: Request<Option<Bytes>>) -> ResponseFuture {
        let pieces = self.0.clone().into_iter().map(Ok);
        let body = guard(Box::pin(stream::iter(pieces)), Limits::default());
        Box::pin(async { Ok(Response::new(body)) })
    }
}
