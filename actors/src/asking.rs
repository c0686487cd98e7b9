//! Asking models, whose answers are read on threads of their own: all of a project share one thread, which
//! would be busy with the JSON of providers while the others wait.

use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::stream::ReadyChunks;
use futures_util::{StreamExt, stream};
use iris_llm::{Model, ModelError, ModelEvent, ModelRequest, ModelStream};
use tokio::select;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{Instrument, Span};

use crate::Services;

/// Most events that are taken along together when several are there already.
const EVENTS_MAX: usize = 64;
/// Most such batches that wait for whoever asked; then the provider waits.
const BATCHES_MAX: usize = 8;

/// How long pieces of a streaming part are joined at most before they are sent as one frame.
const JOIN_PIECES: Duration = Duration::from_millis(30);

/// From here on pieces of all answers are sent together, every [`JOIN_PIECES`]: who hears many gets them in one
/// write, and whoever passes them on wakes once for all.
static FIRST_TICK: LazyLock<Instant> = LazyLock::new(Instant::now);

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
        let mut joining = Joining::of(model.stream(request), *FIRST_TICK);
        while let Some(batch) = joining.next().await {
            if to.send(batch).await.is_err() {
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

/// What comes of an answer, joined where it is read: the actors and their clients have that much less to do.
struct Joining {
    events: ReadyChunks<ModelStream>,
    first_tick: Instant,
    /// When the next pieces are taken along.
    due: Instant,
}

impl Joining {
    fn of(events: ModelStream, first_tick: Instant) -> Self {
        Self { events: events.ready_chunks(EVENTS_MAX), first_tick, due: Instant::now() }
    }

    /// Pieces that came since the last ones, once those are old enough; anything else at once, and so the
    /// first piece of a part.
    async fn next(&mut self) -> Option<Vec<Event>> {
        let mut batch = Vec::new();
        join(&mut batch, self.events.next().await?);
        let mut is_due = pin!(sleep_until(self.due));
        while batch.iter().all(is_piece) {
            select! {
                biased;
                () = &mut is_due => break,
                more = self.events.next() => match more {
                    Some(more) => join(&mut batch, more),
                    None => break,
                },
            }
        }
        self.due = Instant::now();
        if batch.last().is_some_and(is_piece) {
            self.due = next_tick(self.first_tick, self.due);
        }
        Some(batch)
    }
}

/// The first tick after a moment.
fn next_tick(first: Instant, now: Instant) -> Instant {
    let ticks = now.duration_since(first).as_nanos() / JOIN_PIECES.as_nanos();
    first + JOIN_PIECES * u32::try_from(ticks + 1).unwrap_or(u32::MAX)
}

/// Whether it is a piece of something, of which more will come.
fn is_piece(event: &Event) -> bool {
    matches!(
        event,
        Ok(ModelEvent::TextDelta { .. }
            | ModelEvent::ReasoningDelta { .. }
            | ModelEvent::ToolInputDelta { .. }
            | ModelEvent::UsageSoFar(_))
    )
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

/// Adds what came to a batch, neighbouring pieces of a text as one.
fn join(batch: &mut Vec<Event>, came: Vec<Event>) {
    for event in came {
        match (batch.last_mut(), event) {
            (
                Some(Ok(ModelEvent::TextDelta { index, text })),
                Ok(ModelEvent::TextDelta { index: next, text: more }),
            )
            | (
                Some(Ok(ModelEvent::ReasoningDelta { index, text })),
                Ok(ModelEvent::ReasoningDelta { index: next, text: more }),
            ) if *index == next => text.push_str(&more),
            (
                Some(Ok(ModelEvent::ToolInputDelta { call_id, fragment })),
                Ok(ModelEvent::ToolInputDelta { call_id: next, fragment: more }),
            ) if *call_id == next => fragment.push_str(&more),
            (Some(Ok(ModelEvent::UsageSoFar(before))), Ok(ModelEvent::UsageSoFar(usage))) => {
                *before = usage;
            }
            // Counts that come with each piece do not part the pieces: the last ones count.
            (Some(last), Ok(ModelEvent::UsageSoFar(usage))) if is_piece(last) => {
                let at = batch.len() - 1;
                match at.checked_sub(1).and_then(|before| batch.get_mut(before)) {
                    Some(Ok(ModelEvent::UsageSoFar(before))) => *before = usage,
                    _ => batch.insert(at, Ok(ModelEvent::UsageSoFar(usage))),
                }
            }
            (_, event) => {
                if let Ok(ModelEvent::ToolCall { call_id, .. }) = &event {
                    leave_out_input(batch, call_id);
                }
                batch.push(event);
            }
        }
    }
}

/// Leaves out the pieces of a call that is there from its beginning to its end: nobody has to be shown how it
/// comes.
fn leave_out_input(batch: &mut Vec<Event>, of: &str) {
    let begins = |event: &Event| matches!(event, Ok(ModelEvent::ToolInputStart { call_id, .. }) if call_id == of);
    let goes_on = |event: &Event| matches!(event, Ok(ModelEvent::ToolInputDelta { call_id, .. }) if call_id == of);
    if batch.iter().any(begins) {
        batch.retain(|event| !begins(event) && !goes_on(event));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

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
        let mut joined = Vec::new();
        join(&mut joined, batch.into_iter().map(Ok).collect());
        let joined: Result<Vec<_>, _> = joined.into_iter().collect();
        assert_eq!(joined.unwrap(), expected);
    }

    #[test]
    fn arguments_are_joined_call_by_call_and_left_out_of_one_that_is_whole() {
        let start = |id: &str| {
            let (call_id, name) = (id.to_owned(), "write".to_owned());
            ModelEvent::ToolInputStart { call_id, name }
        };
        let piece = |id: &str, piece: &str| {
            let (call_id, fragment) = (id.to_owned(), piece.to_owned());
            ModelEvent::ToolInputDelta { call_id, fragment }
        };
        let call = |id: &str| {
            let (call_id, name, arguments) = (id.to_owned(), String::new(), String::new());
            ModelEvent::ToolCall { call_id, name, arguments, is_complete: true, opaque: None }
        };
        let mut joined = Vec::new();
        let batch = [start("a"), piece("a", "1"), piece("a", "2"), start("b"), piece("b", "3")];
        join(&mut joined, batch.into_iter().map(Ok).collect());
        let begun = [start("a"), piece("a", "12"), start("b"), piece("b", "3")];
        assert_eq!(joined.iter().flatten().cloned().collect::<Vec<_>>(), begun);
        join(&mut joined, [piece("b", "4"), call("b")].into_iter().map(Ok).collect());
        let whole = [start("a"), piece("a", "12"), call("b")];
        assert_eq!(joined.iter().flatten().cloned().collect::<Vec<_>>(), whole);
        let mut later = Vec::new();
        join(&mut later, [piece("a", "5"), call("a")].into_iter().map(Ok).collect());
        let rest = [piece("a", "5"), call("a")];
        assert_eq!(later.into_iter().map(Result::unwrap).collect::<Vec<_>>(), rest);
    }

    #[test]
    fn counts_that_come_with_each_piece_do_not_part_the_pieces() {
        let used = |output_tokens| {
            let tokens = iris_protocol::Usage { output_tokens, ..Default::default() };
            ModelEvent::UsageSoFar(tokens.into())
        };
        let end = || ModelEvent::TextEnd { index: 0 };
        let batch =
            [used(1), used(2), text(0, "a"), used(3), text(0, "b"), used(4), end(), used(5)];
        let mut joined = Vec::new();
        for event in batch {
            join(&mut joined, vec![Ok(event)]);
        }
        let joined: Result<Vec<_>, _> = joined.into_iter().collect();
        assert_eq!(joined.unwrap(), [used(4), text(0, "ab"), end(), used(5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_wait_for_each_other_and_nothing_else_for_them() {
        let (says, hears) = answer();
        let mut joining = Joining::of(hears, Instant::now());
        let start = || ModelEvent::TextStart { index: 0 };
        for event in [start(), text(0, "a")] {
            says.send(Ok(event)).unwrap();
        }
        let began = Instant::now();
        assert_eq!(batch(&mut joining).await, [start(), text(0, "a")]);
        assert_eq!(began.elapsed(), Duration::ZERO, "the first of a part");
        says.send(Ok(text(0, "b"))).unwrap();
        let later = async {
            tokio::time::sleep(JOIN_PIECES / 2).await;
            says.send(Ok(text(0, "c"))).unwrap();
        };
        let (came, ()) = tokio::join!(batch(&mut joining), later);
        assert_eq!((came, began.elapsed()), (vec![text(0, "bc")], JOIN_PIECES));
        for event in [text(0, "d"), ModelEvent::TextEnd { index: 0 }] {
            says.send(Ok(event)).unwrap();
        }
        let end = [text(0, "d"), ModelEvent::TextEnd { index: 0 }];
        assert_eq!((batch(&mut joining).await, began.elapsed()), (end.to_vec(), JOIN_PIECES));
        says.send(Ok(text(1, "e"))).unwrap();
        assert_eq!(batch(&mut joining).await, [text(1, "e")]);
        assert_eq!(began.elapsed(), JOIN_PIECES, "the first of the next part");
        says.send(Ok(text(1, "f"))).unwrap();
        drop(says);
        assert_eq!(batch(&mut joining).await, [text(1, "f")]);
        assert_eq!(began.elapsed(), JOIN_PIECES, "nothing more will come");
        assert!(joining.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_of_all_answers_are_sent_together() {
        let ((says, hears), first_tick) = (answer(), Instant::now());
        let mut joining = Joining::of(hears, first_tick);
        tokio::time::sleep(JOIN_PIECES * 2 / 3).await;
        says.send(Ok(text(0, "a"))).unwrap();
        assert_eq!(batch(&mut joining).await, [text(0, "a")]);
        for tick in 1..3 {
            says.send(Ok(text(0, "b"))).unwrap();
            assert_eq!(batch(&mut joining).await, [text(0, "b")]);
            assert_eq!(first_tick.elapsed(), JOIN_PIECES * tick);
        }
    }

    fn answer() -> (UnboundedSender<Event>, ModelStream) {
        let (says, hears) = unbounded_channel();
        let events = stream::unfold(hears, async |mut hears| Some((hears.recv().await?, hears)));
        (says, events.boxed())
    }

    async fn batch(joining: &mut Joining) -> Vec<ModelEvent> {
        joining.next().await.unwrap().into_iter().map(Result::unwrap).collect()
    }
}
