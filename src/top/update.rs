//! What events do to the state, and what is to be done about them.

use std::collections::HashMap;

use iris_client::SupervisionUpdate;
use iris_protocol::{ActorDetail, ActorList, ActorPage};
use ratatui::crossterm::event::KeyEvent;

use super::log::Feed;
use super::state::{Command, Detail, Notice, State};

/// Something that happened outside.
pub(super) enum Event {
    /// A key was pressed.
    Pressed(KeyEvent),
    /// The terminal has so many columns and lines now.
    Resized(u16, u16),
    /// It is time to look at the server.
    Ticked,
    /// The server answered, or did not.
    Polled(ActorList, Result<ActorPage, String>),
    /// The same for one actor.
    Loaded(String, Result<Box<ActorDetail>, String>),
    /// An order was carried out, or refused.
    Ordered(Command, String, Result<(), String>),
    /// The supervision log has news, or ended.
    Followed(Result<SupervisionUpdate, String>),
    /// The system wants the program to end.
    Terminated,
}

/// Something to do outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Ask for a page.
    Poll(ActorList),
    /// Ask for one actor.
    Load(String),
    /// Give an order about an actor.
    Order(Command, String),
    /// Leave.
    Quit,
}

impl State {
    /// Takes an event.
    pub(super) fn update(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Pressed(key) => return self.press(key),
            Event::Terminated => return vec![Action::Quit],
            Event::Ticked => return self.look(),
            Event::Ordered(command, path, outcome) => {
                self.told(command, &path, outcome);
                return self.look();
            }
            Event::Resized(columns, lines) => self.size = (columns, lines),
            Event::Polled(query, answer) => {
                self.is_polling = false;
                if query != self.query {
                    return self.look();
                }
                self.polled(answer);
            }
            Event::Loaded(path, answer) => self.loaded(&path, answer),
            Event::Followed(update) => self.followed(update),
        }
        self.keep_in_view();
        Vec::new()
    }

    /// Asks for what is on the screen. One question at a time: a slow server is not asked again
    /// before it has answered.
    pub(super) fn look(&mut self) -> Vec<Action> {
        if self.is_polling || self.is_paused {
            return Vec::new();
        }
        self.is_polling = true;
        let mut actions = vec![Action::Poll(self.query.clone())];
        actions.extend(self.detail.as_ref().map(|detail| Action::Load(detail.path.clone())));
        actions
    }

    /// Opens one actor alone.
    pub(super) fn open_detail(&mut self) -> Vec<Action> {
        let Some(path) = self.chosen_path().map(str::to_owned) else { return Vec::new() };
        self.detail = Some(Detail { path: path.clone(), answer: None, scroll: 0 });
        vec![Action::Load(path)]
    }

    fn polled(&mut self, answer: Result<ActorPage, String>) {
        match answer {
            // What was on its way when the operator paused.
            Ok(_) if self.is_paused => {}
            Ok(page) => {
                self.lost = None;
                self.rates = rates(&self.page, &self.rates, &page);
                let chosen = self.chosen().map(|actor| actor.path.clone());
                self.page = page;
                self.rearrange(chosen.as_deref());
            }
            Err(reason) => self.lost = Some(reason),
        }
    }

    fn loaded(&mut self, path: &str, answer: Result<Box<ActorDetail>, String>) {
        if let Some(detail) = self.detail.as_mut().filter(|detail| detail.path == path) {
            detail.answer = Some(answer);
        }
    }

    fn told(&mut self, command: Command, path: &str, outcome: Result<(), String>) {
        let name = command.name();
        self.notice = Some(match outcome {
            Ok(()) => Notice { text: format!("{name} of {path}: done"), is_error: false },
            Err(error) => Notice { text: format!("{error}: {name} of {path}"), is_error: true },
        });
    }

    fn followed(&mut self, update: Result<SupervisionUpdate, String>) {
        self.log.feed = match update {
            Ok(SupervisionUpdate::Record(record)) => {
                self.log.push(*record, self.query.under.as_deref());
                return;
            }
            Ok(SupervisionUpdate::Live) => Feed::Live,
            Ok(SupervisionUpdate::Polling { .. }) => Feed::Polling,
            Ok(SupervisionUpdate::Reconnecting { .. }) => Feed::Lost,
            Err(text) => {
                self.notice = Some(Notice { text: format!("log: {text}"), is_error: true });
                Feed::Ended
            }
        };
    }
}

/// Messages handled in a thousand seconds between two pages, by the server's own clock. Nothing for
/// actors that are new, and after a restart of the server.
fn rates(before: &ActorPage, known: &[Option<u64>], now: &ActorPage) -> Vec<Option<u64>> {
    let handled_before: HashMap<_, _> = before
        .actors
        .iter()
        .enumerate()
        .map(|(place, actor)| ((actor.path.as_str(), actor.started_at), (place, actor.handled)))
        .collect();
    let passed_ms = now.node.uptime_ms.checked_sub(before.node.uptime_ms);
    let rate = |actor: &iris_protocol::ActorInfo| {
        let (place, handled) = *handled_before.get(&(actor.path.as_str(), actor.started_at))?;
        match passed_ms? {
            0 => known.get(place).copied().flatten(),
            ms => Some(actor.handled.checked_sub(handled)?.saturating_mul(1_000_000) / ms),
        }
    };
    now.actors.iter().map(rate).collect()
}
