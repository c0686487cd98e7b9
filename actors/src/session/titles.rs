//! The title of a session to which nobody gave one: a model makes it out of the first message, once that has a
//! first answer. Nobody waits for it, and it takes no time from what somebody waits for.
//!
//! The session starts a `title` actor when the first step of a run ends; one that fails is logged, and tried again
//! with the next run, as is one that a crash took.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;
use futures_util::StreamExt;
use iris_agent::tokens::text_tokens;
use iris_llm::{Charge, ModelEvent, ModelRequest, ModelStream, ReportedUsage};
use iris_protocol::{CapturePurpose, RunId, UserId};
use iris_store::WriteContext;
use iris_store::project::{SetTitle, Spent};
use serde_json::{Value, json};

use super::{Session, SessionPlace, Work, answerer};
use crate::agents::{TITLE_AGENT, find_agent, request_of};
use crate::budgets::{refuse_if_used_up, run_facts, spending};
use crate::capturing::{Occasion, ask_on};
use crate::metrics::counted;
use crate::orchestrator::AnswerMeter;
use crate::provider_keys::model_with;
use crate::supervision::{Address, ChildSpec, OnStuck, Supervise, Vitals, spawn};
use crate::write;

/// How long making a title may take.
const TITLE_BUDGET: Duration = Duration::from_mins(1);
/// Most bytes of the first message that a title is made of.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Most bytes that a model says about it; the rest is not waited for.
const SAID_BYTES_MAX: usize = 16 * 1024;
/// Longest title, in characters and in bytes.
const TITLE_CHARS_MAX: usize = 80;
const TITLE_BYTES_MAX: usize = 200;
/// What stands around a title that is none of it.
const AROUND: &[char] = &['"', '\'', '`', '*', '#', '_', '“', '”', '„', '«', '»', '.', ' '];
/// Where models that think aloud end doing so.
const THOUGHT_END: &str = "</think>";

/// The title actor. It takes no messages.
struct Titler {
    place: SessionPlace,
    /// The run that it is made with, and who started it.
    run_id: RunId,
    starter: UserId,
    vitals: Arc<Vitals>,
    is_settled: Arc<AtomicBool>,
}

impl Actor for Titler {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let work = self.vitals.begin("MakeTitle", TITLE_BUDGET);
        let (place, is_settled) = (self.place.clone(), Arc::clone(&self.is_settled));
        let (run_id, starter) = (self.run_id.clone(), self.starter.clone());
        let made = async move {
            tokio::time::timeout(TITLE_BUDGET, settle(&place, &run_id, &starter)).await
        };
        ctx.spawn(made.into_actor(self).map(move |made, titler, ctx| {
            drop(work);
            let failure = match made {
                Ok(Ok(())) => {
                    is_settled.store(true, Ordering::Relaxed);
                    return ctx.stop();
                }
                Ok(Err(failure)) => failure,
                Err(_) => "the model took too long".to_owned(),
            };
            let path = titler.vitals.path();
            tracing::warn!(actor.path = %path, failure, "a session could not be given a title");
            ctx.stop();
        }));
    }
}

crate::supervised!(Titler);

impl Supervise for Titler {
    fn observe(&self) -> Value {
        json!({ "isSettled": self.is_settled.load(Ordering::Relaxed) })
    }
}

/// Whether a session has a title, as far as is known in this life of its actor.
#[derive(Debug, Default)]
pub(super) struct Titles {
    is_settled: bool,
    is_making: bool,
    /// The run with which one was made or tried last.
    tried_with: Option<RunId>,
}

impl Titles {
    pub(super) fn is_making(&self) -> bool {
        self.is_making
    }
}

/// Tell: the actor that was to make a title has ended.
#[derive(Message)]
#[rtype(result = "()")]
struct TitleEnded {
    is_settled: bool,
}

impl Handler<TitleEnded> for Session {
    type Result = ();

    fn handle(&mut self, ended: TitleEnded, ctx: &mut Context<Self>) {
        self.titles.is_settled = ended.is_settled;
        self.titles.is_making = false;
        self.leave_if_done(ctx);
    }
}

/// Tell: a model has said all that it says in a step of the run.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Answered;

impl Handler<Answered> for Session {
    type Result = ();

    /// Has a title made, where the session may want one.
    fn handle(&mut self, _: Answered, ctx: &mut Context<Self>) {
        let Work::Running(run) = &self.work else { return };
        let services = &self.place.services;
        let wants = services.settings.context.titles && !run.compacts && !services.is_draining();
        let is_tried = self.titles.tried_with.as_ref() == Some(&run.id);
        if !wants || is_tried || self.titles.is_settled || self.titles.is_making {
            return;
        }
        self.titles.is_making = true;
        self.titles.tried_with = Some(run.id.clone());
        let by = (run.id.clone(), run.started_by.clone());
        start(&self.place, &self.vitals, by, Address::of(ctx, &self.vitals));
    }
}

fn start(
    place: &SessionPlace,
    parent: &Arc<Vitals>,
    (run_id, starter): (RunId, UserId),
    session: Address<Session>,
) {
    let spec = ChildSpec { on_stuck: OnStuck::Kill, ..ChildSpec::new("title", run_id.to_string()) };
    let is_settled = Arc::<AtomicBool>::default();
    let (place, settled) = (place.clone(), Arc::clone(&is_settled));
    let create = |_: &mut Context<Titler>, vitals: &Arc<Vitals>| Titler {
        place,
        run_id,
        starter,
        vitals: Arc::clone(vitals),
        is_settled,
    };
    let _: Address<Titler> = spawn(parent, spec, create, move |_| {
        session.tell(TitleEnded { is_settled: settled.load(Ordering::Relaxed) });
    });
}

/// Gives the session a title, if it is to have one. Fails with what is to be logged.
async fn settle(place: &SessionPlace, run_id: &RunId, starter: &UserId) -> Result<(), String> {
    let (reader, id) = (&place.project.reader, &place.id);
    let failed = |error: iris_store::StoreError| error.to_string();
    if !reader.is_untitled(id.clone()).await.map_err(failed)? {
        return Ok(());
    }
    let Some(session) = reader.session(id.clone()).await.map_err(failed)? else { return Ok(()) };
    if session.parent_id.is_some() {
        return Ok(());
    }
    let services = &place.services;
    let agent = find_agent(&place.project, services, TITLE_AGENT).await.map_err(failed)?;
    let agent = agent.ok_or("there is no agent for it")?;
    let chosen = agent.model.as_ref().or(services.settings.context.small_model.as_ref()).cloned();
    let is_chosen = chosen.is_some();
    let model = match chosen {
        Some(model) => model,
        None => answerer(place, &session).await.map_err(|error| error.to_string())?.model,
    };
    // A script is about a conversation, not about titles, unless somebody wants it to be.
    if services.models.is_scripted(&model) && !is_chosen {
        return Ok(());
    }
    let Some(first) = reader.first_words(id.clone()).await.map_err(failed)? else { return Ok(()) };
    let facts = run_facts(place, starter, &model).await.map_err(|error| error.message)?;
    let provider = model_with(&place.project, services, &model, facts.credential.as_ref());
    let (provider, _) = provider.map_err(|error| error.message)?;
    let info = services.catalog.info(&model);
    let is_price_known = info.prices().is_some();
    let spending = spending(place, run_id, starter).await.map_err(|error| error.message)?;
    let allowed = refuse_if_used_up(place, (starter, &facts), &spending, is_price_known).await;
    allowed.map_err(|error| error.message)?;
    let words = words(&first);
    let tokens = text_tokens(&agent.prompt) + text_tokens(&words);
    let meter = AnswerMeter::new(services, model.clone(), tokens);
    let request = request_of(&agent, &model, info.facts, words);
    let request = ModelRequest { cache_key: Some(id.to_string()), ..request };
    let began_at = services.clock.now_ms();
    let occasion = Occasion {
        run_id: run_id.clone(),
        message_id: None,
        purpose: CapturePurpose::Title,
        number: 1,
        attempt: 1,
        model: model.clone(),
    };
    let events = ask_on(place, occasion, &provider, request).await;
    let said = said(counted(services, &model, events), meter).await;
    let title = said.text.as_deref().ok().and_then(clean);
    let is_set = title.is_some();
    let charged = match &said.usage {
        Some(usage) => Some((services.catalog.charge(&model, usage), 0)),
        None => said.meter.broken_off(services),
    };
    if let Some((Charge { usage, price_version }, at_least_nano_usd)) = charged {
        let at = services.clock.now_ms();
        let wall_time_ms = u64::try_from(at.saturating_sub(began_at)).unwrap_or(0);
        let spent = Spent { model: Some(model), price_version, at_least_nano_usd, wall_time_ms };
        let (session_id, by) = (id.clone(), starter.clone());
        let command = SetTitle { session_id, title, usage, spent, by, at };
        write(&place.project.address, command, WriteContext::default()).await.map_err(failed)?;
        if let Err(error) = place.project.usage.tell().await {
            // It is told with the next step, or when the project closes or is opened again.
            tracing::warn!(project.id = %place.project.id, %error, "what was used could not be told");
        }
    }
    // It goes to the log, and may say the key again that the provider was asked with.
    let secrets = &place.project.kept.secrets;
    said.text.map_err(|error| secrets.mask(&error).into_owned())?;
    if is_set { Ok(()) } else { Err("the model said nothing that could be one".to_owned()) }
}

fn words(first: &str) -> String {
    let cut = first.get(..first.floor_char_boundary(MESSAGE_BYTES_MAX)).unwrap_or_default();
    format!("<message>\n{cut}\n</message>\n\nWrite the title of this conversation now.")
}

/// What a model said, and what that used.
struct Said {
    text: Result<String, String>,
    usage: Option<ReportedUsage>,
    meter: AnswerMeter,
}

async fn said(mut events: ModelStream, mut meter: AnswerMeter) -> Said {
    let (mut text, mut usage) = (String::new(), None);
    while let Some(event) = events.next().await {
        if let Ok(event) = &event {
            meter.hear(event);
        }
        match event {
            Ok(ModelEvent::TextDelta { text: piece, .. }) if text.len() < SAID_BYTES_MAX => {
                text.push_str(&piece);
            }
            Ok(ModelEvent::Usage(reported)) => usage = Some(reported),
            Ok(_) => {}
            Err(error) => return Said { text: Err(error.message), usage, meter },
        }
    }
    Said { text: Ok(text), usage, meter }
}

/// A title out of what a model said: one line, no control characters, not too long.
fn clean(said: &str) -> Option<String> {
    let said = said.rsplit_once(THOUGHT_END).map_or(said, |(_, said)| said);
    let line = said.lines().map(|line| line.trim_matches(AROUND)).find(|line| !line.is_empty())?;
    let line = line.strip_prefix("Title:").unwrap_or(line).trim_matches(AROUND);
    let mut title = String::new();
    for c in line.chars().filter(|c| is_shown(*c)).take(TITLE_CHARS_MAX) {
        if title.len() + c.len_utf8() > TITLE_BYTES_MAX {
            break;
        }
        let c = if c.is_whitespace() { ' ' } else { c };
        if c != ' ' || !title.ends_with(' ') {
            write!(title, "{c}").ok()?;
        }
    }
    let title = title.trim();
    (!title.is_empty()).then(|| title.to_owned())
}

/// Whether a character may stand in a title: neither a control character nor one that turns others around
/// or hides them.
fn is_shown(c: char) -> bool {
    let hides = matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    );
    !hides && (!c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_is_one_clean_line() {
        for (said, expected) in [
            ("Notes on rhyme", Some("Notes on rhyme")),
            ("  \"Notes on rhyme.\"\n\nI chose this because", Some("Notes on rhyme")),
            ("# **Title: Notes**", Some("Notes")),
            ("<think>\nwhat?\n</think>\n\nNotes", Some("Notes")),
            ("a\u{1b}[31m b\u{202e}c\t\td", Some("a[31m bc d")),
            ("Überblick über Reime", Some("Überblick über Reime")),
            ("", None),
            (" \n\"\"\n", None),
            ("\u{200b}\u{202e}", None),
        ] {
            assert_eq!(clean(said).as_deref(), expected, "{said:?}");
        }
        let long = clean(&"word ".repeat(100)).unwrap();
        assert!(long.chars().count() <= TITLE_CHARS_MAX && !long.ends_with(' '), "{long}");
        let wide = clean(&"🌱".repeat(100)).unwrap();
        assert!(wide.len() <= TITLE_BYTES_MAX, "{wide}");
    }
}
