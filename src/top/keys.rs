//! What keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw::Areas;
use super::rows::Fold;
use super::state::{Command, Focus, Prompt, State};
use super::update::Action;
use super::{PROJECTS, project_of};

/// Keys and what they do, as the screen tells them.
pub(super) const HELP: &[(&str, &str)] = &[
    ("up down j k", "move; PgUp PgDn Home End g G"),
    ("left right h l", "fold and unfold the children of an actor"),
    ("Tab", "move in the actors, or in the log"),
    ("Enter", "one actor: figures, own state, children, log"),
    ("s S", "order by the next figure, or as a tree again; turn round"),
    ("/", "only rows that hold a text; Enter keeps it, Esc clears it"),
    ("f", "only actors of the next kind"),
    ("o", "only the project of the chosen actor, or all again"),
    ("r", "restart the chosen actor with fresh state"),
    ("x", "stop the chosen actor and those under it"),
    ("p Space", "pause, go on"),
    ("? F1", "these keys"),
    ("q Esc Ctrl-C", "back, then leave"),
];

/// A way through a list.
#[derive(Clone, Copy)]
enum Step {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
}

impl Step {
    fn of(code: KeyCode) -> Option<Self> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "keys are not ours to name")]
        match code {
            KeyCode::Up | KeyCode::Char('k') => Some(Self::Up),
            KeyCode::Down | KeyCode::Char('j') => Some(Self::Down),
            KeyCode::PageUp => Some(Self::PageUp),
            KeyCode::PageDown => Some(Self::PageDown),
            KeyCode::Home | KeyCode::Char('g') => Some(Self::First),
            KeyCode::End | KeyCode::Char('G') => Some(Self::Last),
            _ => None,
        }
    }

    /// From one place to another, where `page` lines are seen.
    fn from(self, place: usize, page: usize) -> usize {
        match self {
            Self::Up => place.saturating_sub(1),
            Self::Down => place.saturating_add(1),
            Self::PageUp => place.saturating_sub(page.max(1)),
            Self::PageDown => place.saturating_add(page.max(1)),
            Self::First => 0,
            // What is there bounds it.
            Self::Last => usize::MAX / 2,
        }
    }

    /// The same counted from the end.
    fn back(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
            Self::PageUp => Self::PageDown,
            Self::PageDown => Self::PageUp,
            Self::First => Self::Last,
            Self::Last => Self::First,
        }
    }
}

impl State {
    /// Takes a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Vec<Action> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            let is_leaving = matches!(key.code, KeyCode::Char('c'));
            return if is_leaving { vec![Action::Quit] } else { Vec::new() };
        }
        let actions = match self.prompt.clone() {
            Some(Prompt::Filter) => self.type_filter(key.code),
            Some(Prompt::Confirm(command, path)) => {
                self.prompt = None;
                let is_yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
                if is_yes { vec![Action::Order(command, path)] } else { Vec::new() }
            }
            Some(Prompt::Help) => {
                self.prompt = None;
                Vec::new()
            }
            None => self.press_plain(key.code),
        };
        self.keep_in_view();
        actions
    }

    fn type_filter(&mut self, code: KeyCode) -> Vec<Action> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "keys are not ours to name")]
        match code {
            KeyCode::Enter => self.prompt = None,
            KeyCode::Esc => {
                self.prompt = None;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) => self.filter.push(c),
            _ => {}
        }
        self.arrange();
        Vec::new()
    }

    fn press_plain(&mut self, code: KeyCode) -> Vec<Action> {
        self.notice = None;
        if let Some(step) = Step::of(code) {
            self.go(step);
            return Vec::new();
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "keys are not ours to name")]
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return self.back(),
            KeyCode::Char('?') | KeyCode::F(1) => self.prompt = Some(Prompt::Help),
            KeyCode::Char('p' | ' ') => return self.pause(),
            KeyCode::Char('r') => self.confirm(Command::Restart),
            KeyCode::Char('x') => self.confirm(Command::Stop),
            _ if self.detail.is_some() => {}
            KeyCode::Enter => return self.open_detail(),
            KeyCode::Tab => {
                self.focus = match self.focus {
                    Focus::Actors => Focus::Log,
                    Focus::Log => Focus::Actors,
                }
            }
            KeyCode::Left | KeyCode::Char('h') => self.fold(),
            KeyCode::Right | KeyCode::Char('l') => self.unfold(),
            KeyCode::Char('s') => {
                self.order = self.order.next();
                self.arrange();
            }
            KeyCode::Char('S') => {
                self.is_reversed = !self.is_reversed;
                self.arrange();
            }
            KeyCode::Char('/') => self.prompt = Some(Prompt::Filter),
            KeyCode::Char('f') => return self.next_kind(),
            KeyCode::Char('o') => return self.one_project(),
            _ => {}
        }
        Vec::new()
    }

    fn go(&mut self, step: Step) {
        let areas = Areas::of(self.size);
        if let Some(detail) = &mut self.detail {
            detail.scroll = step.from(detail.scroll, usize::from(areas.body.height));
            return;
        }
        match self.focus {
            Focus::Actors => {
                self.selected = step.from(self.selected, usize::from(areas.rows.height));
            }
            Focus::Log => {
                self.log.scroll = step.back().from(self.log.scroll, usize::from(areas.log.height));
            }
        }
    }

    /// One step out: of one actor, of what limits the rows, of the program.
    fn back(&mut self) -> Vec<Action> {
        if self.detail.take().is_some() {
            return Vec::new();
        }
        if !self.filter.is_empty() {
            self.filter.clear();
            self.arrange();
            return Vec::new();
        }
        vec![Action::Quit]
    }

    fn pause(&mut self) -> Vec<Action> {
        self.is_paused = !self.is_paused;
        self.log.freeze(self.is_paused);
        self.look()
    }

    fn confirm(&mut self, command: Command) {
        let path = self.chosen_path().map(str::to_owned);
        self.prompt = path.map(|path| Prompt::Confirm(command, path));
    }

    /// Hides the children of the chosen actor, or goes to its parent.
    fn fold(&mut self) {
        let Some(row) = self.rows.get(self.selected).cloned() else { return };
        if row.fold == Fold::Open {
            self.folded.extend(self.chosen().map(|actor| actor.path.clone()));
            self.arrange();
            return;
        }
        let above = self.rows.get(..self.selected).unwrap_or_default();
        if let Some(place) = above.iter().rposition(|other| other.indent < row.indent) {
            self.selected = place;
        }
    }

    fn unfold(&mut self) {
        if let Some(path) = self.chosen_path().map(str::to_owned) {
            self.folded.remove(&path);
            self.arrange();
        }
    }

    /// Only the first kind, the one after it, and after the last one all again.
    fn next_kind(&mut self) -> Vec<Action> {
        let mut kinds = self.page.node.actors.keys();
        self.query.kind = match &self.query.kind {
            None => kinds.next().cloned(),
            Some(kind) => kinds.find(|other| *other > kind).cloned(),
        };
        self.ask_anew()
    }

    fn one_project(&mut self) -> Vec<Action> {
        self.query.under = match (&self.query.under, self.chosen_path()) {
            (None, Some(path)) => project_of(path).map(|id| format!("{PROJECTS}{id}")),
            (None, None) | (Some(_), _) => None,
        };
        self.ask_anew()
    }

    /// Another question ends a pause: what stands still is the answer to the old one.
    fn ask_anew(&mut self) -> Vec<Action> {
        self.is_paused = false;
        self.log.freeze(false);
        self.look()
    }
}
