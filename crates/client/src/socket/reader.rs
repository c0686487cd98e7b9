//! The task that reads a socket: responses to whoever waits for them, all other frames in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use iris_protocol::{ResponseFrame, ServerFrame};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::upgrade::Stream;
use crate::error::CLOSED_ABNORMALLY;

/// Silence of this much more than two of the server's pings means that the connection is dead.
const SILENCE_GRACE: Duration = Duration::from_secs(10);
/// Bound on the closing handshake.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Code of a close frame that holds none (RFC 6455, section 7.1.5).
const NO_STATUS: u16 = 1005;
/// The server sent a message that is larger than this client takes.
const TOO_BIG: u16 = 1009;
/// A frame of a known type had another shape: client and server do not fit together.
const UNREADABLE: u16 = 1002;

/// What the reading task and the callers share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Requests that wait for their response, by id.
    pub(super) pending: HashMap<String, oneshot::Sender<ResponseFrame>>,
    /// Close code and reason, once there is one.
    pub(super) end: Option<(u16, String)>,
}

impl Shared {
    /// Notes the end and fails every request in flight.
    fn end(&self, end: (u16, String)) {
        let mut state = self.state.lock();
        state.end = Some(end);
        state.pending.clear();
    }
}

/// Reads until the end.
pub(super) async fn read(
    mut stream: SplitStream<Stream>,
    frames: mpsc::Sender<ServerFrame>,
    shared: Arc<Shared>,
) {
    let mut silence_max = None;
    let end = loop {
        let message = match within(silence_max, stream.next()).await {
            Some(Some(Ok(message))) => message,
            Some(Some(Err(Error::Capacity(error)))) => break (TOO_BIG, error.to_string()),
            Some(Some(Err(error))) => break (CLOSED_ABNORMALLY, error.to_string()),
            Some(None) => break (CLOSED_ABNORMALLY, "the connection was lost".to_owned()),
            None => break (CLOSED_ABNORMALLY, "the server is silent".to_owned()),
        };
        let frame = match message {
            Message::Text(text) => ServerFrame::parse(&text),
            Message::Close(frame) => {
                let no_code = (NO_STATUS, String::new());
                break frame.map_or(no_code, |f| (f.code.into(), f.reason.as_str().to_owned()));
            }
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {
                continue;
            }
        };
        match frame {
            Ok(frame) => {
                if let ServerFrame::Connected(connected) = &frame {
                    silence_max = silence_limit(connected.ping_interval_ms);
                }
                deliver(frame, &frames, &shared).await;
            }
            Err(error) => break (UNREADABLE, format!("unreadable frame: {error}")),
        }
    };
    shared.end(end);
    drop(frames);
    // Sends the answer to the server's close frame, and waits for the connection to go.
    let closing = async { while let Some(Ok(_)) = stream.next().await {} };
    within(Some(CLOSE_GRACE), closing).await;
}

fn silence_limit(ping_interval_ms: u64) -> Option<Duration> {
    let pings = Duration::from_millis(ping_interval_ms.checked_mul(2)?);
    if pings.is_zero() { None } else { Some(pings + SILENCE_GRACE) }
}

/// Waits for `future`, with a bound when there is one.
async fn within<F: Future>(limit: Option<Duration>, future: F) -> Option<F::Output> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, future).await.ok(),
        None => Some(future.await),
    }
}

async fn deliver(frame: ServerFrame, frames: &mpsc::Sender<ServerFrame>, shared: &Shared) {
    let frame = match frame {
        ServerFrame::Response(response) => {
            let waiting =
                response.id.as_ref().and_then(|id| shared.state.lock().pending.remove(id));
            match waiting {
                // The caller may have stopped waiting meanwhile.
                Some(waiting) => return drop(waiting.send(*response)),
                None => ServerFrame::Response(response),
            }
        }
        other @ (ServerFrame::Connected(_)
        | ServerFrame::Event(_)
        | ServerFrame::AuthExpiring { .. }
        | ServerFrame::Heartbeat(_)
        | ServerFrame::Draining { .. }
        | ServerFrame::Maintenance(_)
        | ServerFrame::TransferFailed(_)
        | ServerFrame::Unknown(_)) => other,
    };
    // Fails when the socket is being closed: nobody reads any more.
    frames.send(frame).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_pings_and_a_while_may_be_missing() {
        assert_eq!(silence_limit(20_000), Some(Duration::from_secs(50)));
        assert_eq!(silence_limit(0), None);
        assert_eq!(silence_limit(u64::MAX), None);
    }
}
