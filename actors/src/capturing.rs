//! Recording what a session asks model providers, while an administrator of its project wants that.
//!
//! Whether somebody does is kept in memory (`Kept::captures`): where nobody does, that is all there is. What is
//! recorded comes from below the adapters, without the headers of the request, and loses the secrets that are
//! known before it goes anywhere.

use std::collections::HashMap;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use iris_llm::{
    Exchange, HeardBody, Model, ModelError, ModelEvent, ModelRequest, ModelStream, Tap, Tapped,
};
use iris_protocol::{
    CaptureId, CaptureOutcome, CapturePurpose, CaptureRecord, CapturedChunk, CapturedExchange,
    CapturedHeader, Capturing, MessageId, ModelRef, RunId, SessionId,
};
use iris_store::WriteContext;
use iris_store::project::KeepExchange;
use parking_lot::Mutex;
use serde_json::Value;

use crate::asking::ask;
use crate::project::{ProjectHandle, Secrets};
use crate::session::SessionPlace;
use crate::write;

/// The sessions that are recorded.
pub(crate) type Captures = HashMap<SessionId, Capturing>;

/// What a provider is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Occasion {
    pub(crate) run_id: RunId,
    pub(crate) message_id: Option<MessageId>,
    pub(crate) purpose: CapturePurpose,
    /// Which request of the run it is.
    pub(crate) number: u64,
    /// Which attempt at the same step.
    pub(crate) attempt: u32,
    pub(crate) model: ModelRef,
}

/// As [`ask`], recorded where the session is.
pub(crate) async fn ask_on(
    place: &SessionPlace,
    occasion: Occasion,
    model: &Arc<dyn Model>,
    request: ModelRequest,
) -> ModelStream {
    let Some(capturing) = capturing(place).await else {
        return ask(&place.services, model, request);
    };
    let services = &place.services;
    let recorder = Arc::new(Recorder {
        id: CaptureId::from_bits(services.ids.next_bits()),
        captured: capturing.session_id,
        session_id: place.id.clone(),
        occasion,
        at: services.clock.now_ms(),
        project: Arc::clone(&place.project),
        heard: Mutex::default(),
    });
    let tap: Arc<dyn Tap> = Arc::<Recorder>::clone(&recorder);
    let request = ModelRequest { tap: Some(Tapped::by(tap)), ..request };
    Recorded { events: ask(services, model, request), recorder }.boxed()
}

/// What is said of the session where it is recorded now.
async fn capturing(place: &SessionPlace) -> Option<Capturing> {
    let project = &place.project;
    let load = async { Ok(project.reader.captures().await?.into_iter().collect()) };
    let found: Result<Arc<Captures>, _> = project.kept.captures.get(load).await;
    match found {
        Ok(captures) => {
            let now = place.services.clock.now_ms();
            captures.get(&place.id).filter(|capturing| capturing.until > now).cloned()
        }
        Err(error) => {
            // The run is worth more.
            tracing::warn!(project.id = %project.id, %error, "captures could not be read");
            None
        }
    }
}

/// What has been heard of one request. It is kept once the exchange is over and whoever asked knows how it ended.
struct Recorder {
    id: CaptureId,
    captured: SessionId,
    session_id: SessionId,
    occasion: Occasion,
    at: i64,
    project: Arc<ProjectHandle>,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    exchange: Option<CapturedExchange>,
    end: Option<(CaptureOutcome, Option<String>)>,
}

impl Tap for Recorder {
    fn exchanged(&self, exchange: Exchange) {
        let exchange = self.without_secrets(exchange);
        self.heard.lock().exchange = Some(exchange);
        self.keep_if_whole();
    }
}

impl Recorder {
    fn ended(&self, outcome: CaptureOutcome, error: Option<&ModelError>) {
        let secrets = &self.project.kept.secrets;
        let error = error.map(|error| secrets.mask(&error.message).into_owned());
        self.heard.lock().end.get_or_insert((outcome, error));
        self.keep_if_whole();
    }

    fn keep_if_whole(&self) {
        let (mut exchange, (outcome, error)) = {
            let mut heard = self.heard.lock();
            if heard.exchange.is_none() || heard.end.is_none() {
                return;
            }
            let Heard { exchange: Some(exchange), end: Some(end) } = mem::take(&mut *heard) else {
                return;
            };
            (exchange, end)
        };
        (exchange.record.outcome, exchange.record.error) = (outcome, error);
        let command = KeepExchange { captured: self.captured.clone(), exchange, at: self.at };
        // Nobody waits for it. What does not fit, on a full disk for one, is missing from the records.
        drop(write(&self.project.address, command, WriteContext::default()));
    }

    fn without_secrets(&self, exchange: Exchange) -> CapturedExchange {
        let secrets = &self.project.kept.secrets;
        let hidden = |text: &str| secrets.mask(text).into_owned();
        let Exchange { url, request, status, headers, response, chunks, head_after, duration } =
            exchange;
        let occasion = &self.occasion;
        let record = CaptureRecord {
            id: self.id.clone(),
            session_id: self.session_id.clone(),
            run_id: occasion.run_id.clone(),
            message_id: occasion.message_id.clone(),
            purpose: occasion.purpose,
            number: occasion.number,
            attempt: occasion.attempt,
            model: occasion.model.clone(),
            at: self.at,
            status,
            outcome: CaptureOutcome::Abandoned,
            error: None,
            head_ms: head_after.map(millis),
            first_byte_ms: chunks.first().map(|(after, _)| millis(*after)),
            duration_ms: millis(duration),
            request_bytes: request.total,
            response_bytes: response.total,
        };
        let header =
            |(name, value): (String, String)| CapturedHeader { name, value: hidden(&value) };
        let chunk = |(after, bytes)| CapturedChunk { at_ms: millis(after), bytes };
        CapturedExchange {
            record,
            url: hidden(&url),
            request_truncated: request.is_cut(),
            request: body_without(secrets, &request),
            response_headers: headers.into_iter().map(header).collect(),
            response_truncated: response.is_cut(),
            response: stream_without(secrets, &response),
            chunks: chunks.into_iter().map(chunk).collect(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A body without secrets, nor the beginning of one at its end where that was cut off.
fn body_without(secrets: &Secrets, body: &HeardBody) -> String {
    let text = String::from_utf8_lossy(&body.bytes);
    let masked = if body.is_cut() { secrets.mask_piece(&text) } else { secrets.mask(&text) };
    masked.into_owned()
}

/// A stream of JSON without secrets: also of those that it brings in pieces, each in a line of its own. Lines that
/// hold none stay as they came.
fn stream_without(secrets: &Secrets, body: &HeardBody) -> String {
    let whole = body_without(secrets, body);
    let lines = whole.split_inclusive('\n').map(|line| {
        let start = line.find('{').unwrap_or(line.len());
        let (before, json) = line.split_at(start);
        let body = json.trim_end();
        let end = json.get(body.len()..).unwrap_or_default();
        let Ok(mut value) = serde_json::from_str::<Value>(body) else { return line.to_owned() };
        if hide_pieces(secrets, &mut value) {
            format!("{before}{value}{end}")
        } else {
            line.to_owned()
        }
    });
    lines.collect()
}

/// Hides what texts of a value begin or end of a secret; says whether there was any.
fn hide_pieces(secrets: &Secrets, value: &mut Value) -> bool {
    match value {
        Value::String(text) => {
            let masked = secrets.mask_piece(text).into_owned();
            let is_changed = masked != *text;
            *text = masked;
            is_changed
        }
        Value::Array(items) => hide_in_all(secrets, items.iter_mut()),
        Value::Object(fields) => hide_in_all(secrets, fields.values_mut()),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn hide_in_all<'v>(secrets: &Secrets, values: impl Iterator<Item = &'v mut Value>) -> bool {
    let mut is_changed = false;
    for value in values {
        is_changed |= hide_pieces(secrets, value);
    }
    is_changed
}

/// The answer on its way to whoever asked. Dropped before its end, nobody waits for it any more.
struct Recorded {
    events: ModelStream,
    recorder: Arc<Recorder>,
}

impl Stream for Recorded {
    type Item = Result<ModelEvent, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.events.poll_next_unpin(context);
        match &next {
            Poll::Ready(Some(Ok(ModelEvent::Finish { .. }))) => {
                self.recorder.ended(CaptureOutcome::Complete, None);
            }
            Poll::Ready(Some(Err(error))) => {
                self.recorder.ended(CaptureOutcome::Failed, Some(error));
            }
            Poll::Ready(Some(Ok(_)) | None) | Poll::Pending => {}
        }
        next
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.recorder.ended(CaptureOutcome::Abandoned, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_whole_and_in_pieces_and_other_lines_stay_as_they_came() {
        let secrets = Secrets::default();
        secrets.learn("canary-4f1c9a7be2");
        let kept = "event: x\ndata: {\"b\": 1.50,\"a\":\"plain\"}\n\n: ping\r\n";
        let heard = |text: &str, more: u64| HeardBody {
            bytes: text.as_bytes().to_vec(),
            total: text.len() as u64 + more,
        };
        assert_eq!(stream_without(&secrets, &heard(kept, 0)), kept);
        let whole = "data: {\"text\":\"it is canary-4f1c9a7be2!\"}\n";
        let pieces =
            "data: {\"text\":\"it is canary-4f1\"}\n\ndata: {\"text\":\"c9a7be2 indeed\"}\r\n";
        for told in [whole, pieces] {
            let hidden = stream_without(&secrets, &heard(told, 0));
            for piece in ["canary-4f1", "c9a7be2"] {
                assert!(!hidden.contains(piece), "{hidden}");
            }
            assert!(hidden.contains("it is "), "{hidden}");
        }
        assert!(stream_without(&secrets, &heard(pieces, 0)).ends_with("indeed\"}\r\n"));
        let cut = heard("data: {\"text\":\"it is canary-4f1c9a7be", 1);
        for hidden in [stream_without(&secrets, &cut), body_without(&secrets, &cut)] {
            assert!(hidden.contains("it is ") && !hidden.contains("canary"), "{hidden}");
        }
    }
}
