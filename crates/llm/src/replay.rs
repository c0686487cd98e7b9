//! Plays a recorded answer through the same parser and decoder as a live one.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use launchdarkly_sdk_transport::{HttpTransport, ResponseFuture};

use crate::anthropic::AnthropicDecoder;
use crate::chat::ChatDecoder;
use crate::endpoint::Wire;
use crate::google::GoogleDecoder;
use crate::guard::{Framing, Limits, guard};
use crate::ollama::OllamaDecoder;
use crate::openai::ResponsesDecoder;
use crate::wire::{Decoder, Frames, decode};
use crate::{ModelStream, ProviderKind, anthropic, chat, frames, google, ollama, openai};

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
    let frames = |wire: &Wire| {
        let transport = Recording { pieces, framing: wire.framing };
        // The address is never used: the transport has the answer.
        frames::post_with(transport, wire.framing, "http://recording/", String::new())
    };
    Some(match kind {
        ProviderKind::OpenAiCompatible => read(frames(&chat::WIRE), ChatDecoder::default()),
        ProviderKind::Anthropic => read(frames(&anthropic::WIRE), AnthropicDecoder::default()),
        ProviderKind::OpenAi => read(frames(&openai::WIRE), ResponsesDecoder::default()),
        ProviderKind::Google => read(frames(&google::WIRE), GoogleDecoder::default()),
        ProviderKind::Ollama => read(frames(&ollama::WIRE), OllamaDecoder::default()),
        ProviderKind::Scripted => return None,
    })
}

fn read(frames: Frames, decoder: impl Decoder) -> ModelStream {
    decode(frames, decoder, Limits::default().progress)
}

/// A transport that answers every request with the same pieces.
#[derive(Clone)]
struct Recording {
    pieces: Vec<Bytes>,
    framing: Framing,
}

impl HttpTransport for Recording {
    fn request(&self, _request: Request<Option<Bytes>>) -> ResponseFuture {
        let pieces = self.pieces.clone().into_iter().map(Ok);
        let body = Box::pin(stream::iter(pieces));
        let body = guard(body, self.framing, Limits::default(), None);
        Box::pin(async { Ok(Response::new(body)) })
    }
}
