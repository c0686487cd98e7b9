//! The one place where a request is sent and its answer becomes frames.

use launchdarkly_sdk_transport::HttpTransport;

use crate::guard::Framing;
use crate::transport::Transport;
use crate::wire::Frames;
use crate::{lines, sse};

/// Posts `body`; nothing is sent before the frames are asked for.
pub(crate) fn post(transport: Transport, url: &str, body: String) -> Frames {
    let framing = transport.framing();
    post_with(transport, framing, url, body)
}

/// The same through any transport.
pub(crate) fn post_with(
    transport: impl HttpTransport,
    framing: Framing,
    url: &str,
    body: String,
) -> Frames {
    match framing {
        Framing::Events => sse::post(transport, url, body),
        Framing::Lines => lines::post(transport, url, body),
    }
}
