//! What the screen knows.

use std::collections::HashSet;

use iris_protocol::{ActorDetail, ActorInfo, ActorList, ActorPage};

use super::draw::{self, Areas};
use super::log::Log;
use super::rows::{self, Order, Row};

/// The whole state of the screen.
pub(super) struct State {
    /// Columns and lines of the terminal.
    pub(super) size: (u16, u16),
    /// What the server is asked for.
    pub(super) query: ActorList,
    /// Its last answer.
    pub(super) page: ActorPage,
    /// Beside the actors of the page: messages handled in a thousand seconds, where two answers tell.
    pub(super) rates: Vec<Option<u64>>,
    /// Why the server did not answer the last time, when it did not.
    pub(super) lost: Option<String>,
    /// Whether a request for a page is on its way.
    pub(super) is_polling: bool,
    /// Whether the operator wants the screen to stand still.
    pub(super) is_paused: bool,

    /// What the operator sees of the page, in this order. Made from the page by [`State::arrange`].
    pub(super) rows: Vec<Row>,
    /// By what the rows are ordered.
    pub(super) order: Order,
    /// Whether that order is turned round.
    pub(super) is_reversed: bool,
    /// Rows must hold this text; empty for all.
    pub(super) filter: String,
    /// Paths of actors whose children are hidden.
    pub(super) folded: HashSet<String>,
    /// Place of the chosen one in `rows`.
    pub(super) selected: usize,
    /// Place of the first row that is seen.
    pub(super) first: usize,

    /// The supervision log.
    pub(super) log: Log,
    /// What the arrow keys move.
    pub(super) focus: Focus,
    /// The actor that is shown alone.
    pub(super) detail: Option<Detail>,
    /// What the operator is asked.
    pub(super) prompt: Option<Prompt>,
    /// What the last command came to.
    pub(super) notice: Option<Notice>,
}

/// What the arrow keys move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    Actors,
    Log,
}

/// One actor with what it says of itself.
pub(super) struct Detail {
    pub(super) path: String,
    /// Nothing until the server has answered; else its last answer, or why there is none.
    pub(super) answer: Option<Result<Box<ActorDetail>, String>>,
    /// Lines that are scrolled away at the top.
    pub(super) scroll: usize,
}

/// What takes the next key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Prompt {
    /// The text that rows must hold is being typed.
    Filter,
    /// An order that needs a yes.
    Confirm(Command, String),
    /// The list of keys is shown.
    Help,
}

/// What an operator can do to an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Restart,
    Stop,
}

impl Command {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }
}

/// One line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) text: String,
    pub(super) is_error: bool,
}

impl State {
    /// Begins with the server's first answer.
    pub(super) fn new(size: (u16, u16), query: ActorList, page: ActorPage) -> Self {
        let mut state = Self {
            size,
            query,
            rates: vec![None; page.actors.len()],
            page,
            lost: None,
            is_polling: false,
            is_paused: false,
            rows: Vec::new(),
            order: Order::Tree,
            is_reversed: false,
            filter: String::new(),
            folded: HashSet::new(),
            selected: 0,
            first: 0,
            log: Log::default(),
            focus: Focus::Actors,
            detail: None,
            prompt: None,
            notice: None,
        };
        state.arrange();
        state
    }

    /// The actor that is chosen, or shown alone.
    pub(super) fn chosen_path(&self) -> Option<&str> {
        match &self.detail {
            Some(detail) => Some(&detail.path),
            None => self.chosen().map(|actor| actor.path.as_str()),
        }
    }

    /// The actor of the chosen row.
    pub(super) fn chosen(&self) -> Option<&ActorInfo> {
        self.page.actors.get(self.rows.get(self.selected)?.actor)
    }

    /// Makes the rows again, and keeps the chosen actor chosen where it still is.
    pub(super) fn arrange(&mut self) {
        let chosen = self.chosen().map(|actor| actor.path.clone());
        self.rearrange(chosen.as_deref());
    }

    /// The same when the page is another one.
    pub(super) fn rearrange(&mut self, chosen: Option<&str>) {
        self.rows = rows::arrange(self);
        let actors = &self.page.actors;
        let is_chosen =
            |row: &Row| actors.get(row.actor).is_some_and(|actor| Some(&*actor.path) == chosen);
        if let Some(place) = self.rows.iter().position(is_chosen) {
            self.selected = place;
        }
        self.keep_in_view();
    }

    /// Keeps every position within what is there.
    pub(super) fn keep_in_view(&mut self) {
        let areas = Areas::of(self.size);
        let height = usize::from(areas.rows.height).max(1);
        self.selected = self.selected.min(self.rows.len().saturating_sub(1));
        self.first = self.first.min(self.selected);
        self.first = self.first.max((self.selected + 1).saturating_sub(height));
        self.first = self.first.min(self.rows.len().saturating_sub(height));
        if let Some(detail) = &mut self.detail {
            let lines = draw::detail_lines(detail, areas.body.width).len();
            let seen = usize::from(areas.body.height);
            detail.scroll = detail.scroll.min(lines.saturating_sub(seen));
        }
        self.log.keep_in_view(self.query.under.as_deref(), usize::from(areas.log.height));
    }
}
