//! Answers that come part by part: a client that takes nothing of one is cut off.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::body::SizedStream;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use iris_actors::supervision::detached;
use iris_protocol::ApiError;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::sockets;

/// A body of `length` bytes. What `parts` holds it holds until the body has ended.
pub(super) fn body_of<S>(
    request: &HttpRequest,
    stall: Duration,
    length: u64,
    parts: S,
) -> SizedStream<impl Stream<Item = Result<Bytes, ApiError>> + use<S>>
where
    S: Stream<Item = Result<Bytes, ApiError>> + 'static,
{
    let (taken, mut progress) = watch::channel(());
    let abort = sockets::abort_of(request);
    // From outside: nobody asks a body for more whose client does not take what it has.
    detached(async move {
        loop {
            match timeout(stall, progress.changed()).await {
                Ok(Ok(())) => {}
                // The body has ended.
                Ok(Err(_)) => return,
                Err(_) => {
                    tracing::info!("a client took nothing of an answer for too long");
                    return abort();
                }
            }
        }
    });
    SizedStream::new(length, Box::pin(parts.inspect(move |_| taken.send_replace(()))))
}
