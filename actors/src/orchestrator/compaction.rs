//! Asking for a summary of the conversation so far, which models are told in its place from then on.
//!
//! The agent `compaction` writes it, with the model that answers in the session unless it has one of its
//! own. What it reads is the conversation as text: no provider has to know calls, images or what another
//! one wants back.

use std::sync::Arc;

use actix::fut::wrap_stream;
use actix::prelude::*;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use iris_agent::compaction::Draft;
use iris_agent::tokens::text_tokens;
use iris_agent::{Input, Summary};
use iris_llm::{Finish, ModelEvent, ModelRequest, ModelStream, Pulse};
use iris_protocol::{Agent, ApiError, CapturePurpose, ErrorCode, ModelRef};
use tracing::{Instrument, Span};

use super::Orchestrator;
use super::model::{Call, model_error, pulse_of};
use super::question::{Asker, Question};
use crate::agents::{COMPACTION_AGENT, find_agent, request_of};
use crate::metrics::counted;
use crate::project::EndStreams;

/// Most bytes of a conversation that one summary is made of.
const TRANSCRIPT_BYTES_MAX: u64 = 1024 * 1024;
/// A model that takes less than that of a conversation makes no summary.
const TRANSCRIPT_BYTES_MIN: u64 = 2 * 1024;
/// Most bytes of a summary; what is said beyond it is dropped.
const SUMMARY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a text that stand for a token, as a rule.
const BYTES_PER_TOKEN: u64 = 4;
/// A summary because of a threshold is made when it stands for at least one of so many parts of the room.
const WORTH: u64 = 4;

/// The summaries of one run.
#[derive(Default)]
pub(super) struct Summaries {
    /// The one that is being written.
    writing: Option<Summarizing>,
    /// Whether the model that answers writes it, because the one that was to do so does not answer.
    pub(super) has_fallen_back: bool,
}

/// A summary that is being written.
struct Summarizing {
    drafted: Drafted,
    text: String,
}

/// What was taken for a summary.
struct Drafted {
    draft: Draft,
    question: Question,
    /// Which model makes it.
    model: ModelRef,
    /// The estimated tokens of what that is asked.
    tokens: u64,
    /// Whether another model makes it than the one that answers.
    is_by_another: bool,
}

enum Told {
    Drafted(Box<Drafted>),
    Event(ModelEvent),
}

type Events = BoxStream<'static, Result<Told, ApiError>>;

/// Whether a question is so long that a summary is to be made first, and there is enough to make it of.
pub(super) fn is_too_long(asker: &Asker, question: &Question) -> bool {
    let Some(threshold) = asker.threshold() else { return false };
    if question.tokens() <= threshold {
        return false;
    }
    let room = question.room(threshold);
    let draft = Draft::of(&question.conversation, room, 0);
    draft.is_some_and(|draft| draft.tokens_replaced >= room / WORTH)
}

impl Orchestrator {
    pub(super) fn compact(&mut self, squeezed: u32, ctx: &mut Context<Self>) {
        if self.services().storage.is_full() {
            return self.compact_later(squeezed, ctx);
        }
        self.drop_pieces();
        self.drop_checkpoints(ctx);
        self.summaries.writing = None;
        // What a model had said before it was too much is no part of the answer.
        let ended = EndStreams(self.assignment.answer_id.clone());
        self.assignment.place.project.address.tell(ended);
        self.calls += 1;
        let number = self.calls;
        let span = tracing::info_span!(
            parent: &self.span,
            "compaction",
            run.id = self.assignment.run.id.as_str(),
            model = self.model_name(),
        );
        let work = self.begin_question("Compact");
        let events = self.summary(squeezed, pulse_of(&work), &span);
        self.attempt = 1;
        let handled = wrap_stream::<_, Self>(events).map(move |event, orchestrator, ctx| {
            span.in_scope(|| orchestrator.summary_event(event, ctx));
        });
        let ended = handled.finish().map(move |(), orchestrator, _| {
            orchestrator.model.take_if(|call| call.number == number);
        });
        self.model = Some(Call { number, task: ctx.spawn(ended), work });
    }

    fn compact_later(&mut self, squeezed: u32, ctx: &mut Context<Self>) {
        self.pause(ctx, move |orchestrator, is_cancelled, ctx| {
            // Then nobody wants the summary any more.
            if !is_cancelled {
                orchestrator.compact(squeezed, ctx);
            }
        });
    }

    /// The model's summary. Dropping the stream ends the request.
    fn summary(&self, squeezed: u32, pulse: Pulse, span: &Span) -> Events {
        let Some(asker) = Asker::of(self) else { return stream::empty().boxed() };
        let secrets = asker.place.project.kept.secrets.clone();
        let shrinks = !self.assignment.run.compacts;
        let gave_up = self.summaries.has_fallen_back;
        let opened = async move {
            let question = asker.question().await?;
            let agent = summarizer(&asker).await?;
            let own = agent.model.as_ref().filter(|own| !gave_up && **own != asker.model);
            let own = match own {
                Some(own) => asker.model_for(own).await.ok().zip(Some(own)),
                None => None,
            };
            let own = own.map(|(provider, model)| (provider, model.clone()));
            let is_by_another = own.is_some();
            let answering = || (Arc::clone(&question.provider), asker.model.clone());
            let (provider, model) = own.unwrap_or_else(answering);
            let info = asker.place.services.catalog.info(&model);
            if is_by_another {
                asker.check_budgets_for(&model, &info).await?;
            }
            let window = asker.window_of(&model, &info);
            let bytes_max = transcript_bytes(window, &question, shrinks, squeezed);
            let threshold = asker.threshold().unwrap_or_else(|| question.tokens());
            let room = question.room(threshold);
            let bytes = usize::try_from(bytes_max).unwrap_or(usize::MAX);
            let draft = Draft::of(&question.conversation, room, bytes);
            let draft = draft.ok_or_else(nothing_left)?;
            let words = words(&draft);
            let tokens = text_tokens(&agent.prompt) + text_tokens(&words);
            let request = request_of(&agent, &model, info.facts, words);
            let cache_key = Some(asker.place.id.to_string());
            let request = ModelRequest { cache_key, pulse: Some(pulse), ..request };
            let events = asker.ask(CapturePurpose::Summary, &model, &provider, request).await;
            let events = counted(&asker.place.services, &model, events);
            Ok((Drafted { draft, question, model, tokens, is_by_another }, events))
        };
        let opened = stream::once(opened.instrument(span.clone()));
        let events =
            opened.flat_map(move |opened: Result<(Drafted, ModelStream), ApiError>| match opened {
                Ok((drafted, events)) => {
                    let drafted = stream::iter([Ok(Told::Drafted(Box::new(drafted)))]);
                    let secrets = secrets.clone();
                    let error = move |error| model_error(&secrets, &error);
                    let events = events.map(move |it| it.map(Told::Event).map_err(&error));
                    drafted.chain(events).boxed()
                }
                Err(error) => stream::iter([Err(error)]).boxed(),
            });
        events.boxed()
    }

    fn summary_event(&mut self, event: Result<Told, ApiError>, ctx: &mut Context<Self>) {
        if let Some(call) = &self.model {
            call.work.progress();
        }
        if let Ok(Told::Event(event)) = &event {
            let used = self.meter.as_mut().and_then(|meter| meter.hear(event));
            self.inputs.extend(used.map(Input::UsageArrived));
        }
        match event {
            Ok(Told::Drafted(drafted)) => {
                self.meter(drafted.model.clone(), drafted.tokens);
                self.summaries.writing =
                    Some(Summarizing { drafted: *drafted, text: String::new() });
            }
            Ok(Told::Event(ModelEvent::Start { model, .. })) => {
                let writing = self.summaries.writing.as_ref();
                let asked = writing.map(|writing| writing.drafted.model.clone());
                self.note_answerer(asked.as_ref(), &model);
            }
            Ok(Told::Event(ModelEvent::TextDelta { text, .. })) => self.take_summary(&text),
            Ok(Told::Event(ModelEvent::Usage(usage))) => {
                let Some(writing) = &self.summaries.writing else { return };
                let usage = self.charged(writing.drafted.model.clone(), &usage);
                self.input(Input::UsageArrived(usage), ctx);
            }
            Ok(Told::Event(ModelEvent::Finish { reason, raw })) => {
                self.note_end(&raw);
                self.summarized(reason, ctx);
            }
            // It is asked for words alone.
            Ok(Told::Event(_)) => {}
            Err(error) => self.model_failed(error, ctx),
        }
        self.advance(ctx);
    }

    fn take_summary(&mut self, text: &str) {
        let Some(Summarizing { text: summary, .. }) = &mut self.summaries.writing else { return };
        let left = SUMMARY_BYTES_MAX - summary.len();
        summary.push_str(text.get(..text.floor_char_boundary(left)).unwrap_or_default());
    }

    fn summarized(&mut self, reason: Finish, ctx: &mut Context<Self>) {
        let Some(Summarizing { text, .. }) = &self.summaries.writing else { return };
        let is_refused = match reason {
            Finish::ContentFilter => true,
            Finish::Stop
            | Finish::ToolCalls
            | Finish::Length
            | Finish::ContextOverflow
            | Finish::Paused
            | Finish::Other => false,
        };
        let text = text.trim().to_owned();
        if is_refused || text.is_empty() {
            let message = "the model made no summary of the conversation";
            let error = ApiError::new(ErrorCode::ProviderError, message);
            return self.model_failed(error.reason("no_summary"), ctx);
        }
        let Some(Summarizing { drafted, .. }) = self.summaries.writing.take() else { return };
        let Drafted { draft, question, .. } = drafted;
        let saved = draft.saves(&text);
        let summary = Summary {
            text,
            replaced: draft.replaced,
            kept_steps: draft.kept_steps,
            tokens_before: question.tokens(),
            tokens_after: question.tokens_without(saved),
        };
        // What models were told of the project is not told any more.
        self.assignment.told.forget();
        self.input(Input::Summarized(summary), ctx);
    }

    /// Whether a summary was asked for of another model than the one that answers, which may do it as well.
    pub(super) fn asks_summarizer(&self) -> bool {
        self.summaries.writing.as_ref().is_some_and(|it| it.drafted.is_by_another)
    }
}

/// The agent that writes summaries.
async fn summarizer(asker: &Asker) -> Result<Agent, ApiError> {
    let (project, services) = (&asker.place.project, &asker.place.services);
    let found = find_agent(project, services, COMPACTION_AGENT).await;
    found.map_err(|error| error.to_api())?.ok_or_else(|| ApiError::not_found("agent"))
}

/// How much of the conversation a summary is made of: what half of the window of the model that makes it takes, where that is known, else half of what
/// was too long; half of that each time that it was still too long.
fn transcript_bytes(window: Option<u64>, question: &Question, shrinks: bool, squeezed: u32) -> u64 {
    let tokens = match window {
        Some(window) => window / 2,
        None if shrinks => question.tokens() / 2,
        None => question.tokens(),
    };
    let bytes = question.correction.invert(tokens).saturating_mul(BYTES_PER_TOKEN);
    let bytes = bytes.min(TRANSCRIPT_BYTES_MAX) >> squeezed.min(u64::BITS - 1);
    bytes.max(TRANSCRIPT_BYTES_MIN)
}

fn words(draft: &Draft) -> String {
    let transcript = &draft.transcript;
    format!(
        "<conversation>\n{transcript}</conversation>\n\nWrite the summary of this conversation now."
    )
}

/// Nothing can be made shorter.
fn nothing_left() -> ApiError {
    let message = "there is nothing in the conversation that a summary could stand for: send a shorter \
                   message, choose a model with a larger context window, or begin a new session";
    let error = ApiError::new(ErrorCode::ProviderError, message).reason("nothing_to_compact");
    ApiError { retryable: false, ..error }
}
