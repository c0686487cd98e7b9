//! Asking models, whose answers are read on threads of their own: all of a project share one thread, which
//! would be busy with the JSON of providers while the others wait.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use iris_llm::{Model, ModelError, ModelEvent, ModelRequest, ModelStream};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use crate::Services;

/// Most events that are taken along together when several are there already.
const EVENTS_MAX: usize = 64;
/// Most such batches that wait for whoever asked; then the provider waits.
const BATCHES_MAX: usize = 8;

type Event = Result<ModelEvent, ModelError>;

/// The answer of a model. Dropping the stream ends the request.
pub(crate) fn ask(
    services: &Services,
    model: &Arc<dyn Model>,
    request: ModelRequest,
) -> ModelStream {
    // Whoever cannot have threads can read all the same.
    let Ok(threads) = services.provider_threads.handle() else { return model.stream(request) };
    let (to, from) = channel(BATCHES_MAX);
    let model = Arc::clone(model);
    let reading = async move {
        let mut events = model.stream(request).ready_chunks(EVENTS_MAX);
        while let Some(batch) = events.next().await {
            if to.send(joined(batch)).await.is_err() {
                return;
            }
        }
    };
    let reading = Reading { from, task: threads.spawn(reading.instrument(Span::current())) };
    stream::unfold(reading, async |mut reading| Some((reading.next().await?, reading)))
        .map(stream::iter)
        .flatten()
        .boxed()
}

/// What is read on another thread. Dropped, it ends that.
struct Reading {
    from: Receiver<Vec<Event>>,
    task: JoinHandle<()>,
}

impl Reading {
    async fn next(&mut self) -> Option<Vec<Event>> {
        if let Some(batch) = self.from.recv().await {
            return Some(batch);
        }
        match (&mut self.task).await {
            #[expect(clippy::panic, reason = "the actor that asked fails as if it had read itself")]
            Err(error) if error.is_panic() => panic!("reading the answer of a provider panicked"),
            Ok(()) | Err(_) => None,
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The same events, with neighbouring pieces of a text as one.
fn joined(batch: Vec<Event>) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::with_capacity(batch.len());
    for event in batch {
        match (events.last_mut(), event) {
            (
                Some(Ok(ModelEvent::TextDelta { index, text })),
                Ok(ModelEvent::TextDelta { index: next, text: more }),
            )
            | (
                Some(Ok(ModelEvent::ReasoningDelta { index, text })),
                Ok(ModelEvent::ReasoningDelta { index: next, text: more }),
            ) if *index == next => text.push_str(&more),
            (_, event) => events.push(event),
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(index: u32, text: &str) -> ModelEvent {
        ModelEvent::TextDelta { index, text: text.to_owned() }
    }

    fn reasoning(index: u32, text: &str) -> ModelEvent {
        ModelEvent::ReasoningDelta { index, text: text.to_owned() }
    }

    #[test]
    fn neighbours_become_one_and_nothing_changes_places() {
        let end = || ModelEvent::TextEnd { index: 0 };
        let batch = vec![
            text(0, "a"),
            text(0, "b"),
            reasoning(0, "c"),
            reasoning(0, "d"),
            text(0, "e"),
            text(1, "f"),
            end(),
            text(1, "g"),
        ];
        let expected = vec![
            text(0, "ab"),
            reasoning(0, "cd"),
            text(0, "e"),
            text(1, "f"),
            end(),
            text(1, "g"),
        ];
        let joined: Result<Vec<_>, _> =
            joined(batch.into_iter().map(Ok).collect()).into_iter().collect();
        assert_eq!(joined.unwrap(), expected);
    }
}
