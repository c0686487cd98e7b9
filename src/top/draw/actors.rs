//! The rows of actors with their figures.

use iris_protocol::{ActorInfo, ActorState};
use ratatui::Frame;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::{ALARM, Areas, FAINT, WARNING, fit_path, rule};
use crate::remote::text::{short_count, span, visible};
use crate::top::project_of;
use crate::top::rows::{Fold, Row};
use crate::top::state::{Focus, State};

/// Columns of all figures with a space before each of them.
const FIGURES_COLUMNS: usize = 6 + 10 + 7 + 6 + 6 + 6;
/// From this width on there is room to indent by two.
const WIDE_COLUMNS: usize = 100;

/// Title, heads and rows.
pub(super) fn draw(state: &State, areas: &Areas, frame: &mut Frame) {
    let title = rule(&title(state), areas.title.width, state.focus == Focus::Actors);
    frame.render_widget(Paragraph::new(title), areas.title);
    let columns = Columns::of(usize::from(areas.rows.width));
    frame.render_widget(Paragraph::new(heads(&columns)), areas.heads);
    let seen = state.rows.iter().enumerate().skip(state.first);
    let lines: Vec<_> = seen
        .take(usize::from(areas.rows.height))
        .filter_map(|(place, row)| {
            let line = line(state, row, &columns)?;
            Some(if place == state.selected {
                line.patch_style(Style::new().add_modifier(Modifier::REVERSED))
            } else {
                line
            })
        })
        .collect();
    frame.render_widget(Paragraph::new(lines), areas.rows);
}

/// How many columns the labels get, and each step of the tree.
struct Columns {
    label: usize,
    indent: usize,
}

impl Columns {
    fn of(all: usize) -> Self {
        let texts = all.saturating_sub(FIGURES_COLUMNS + 1);
        let indent = if all >= WIDE_COLUMNS { 2 } else { 1 };
        Self { label: texts * 3 / 5, indent }
    }
}

fn title(state: &State) -> String {
    let mut words = format!("{} of {} actors", state.rows.len(), state.page.actors.len());
    let reversed = if state.is_reversed { ", reversed" } else { "" };
    words = format!("{words} by {}{reversed}", state.order.name());
    if let Some(kind) = &state.query.kind {
        words = format!("{words}, kind {kind}");
    }
    if let Some(under) = &state.query.under {
        let project = project_of(under).unwrap_or(under);
        words = format!("{words}, project {project}");
    }
    if !state.filter.is_empty() {
        words = format!("{words}, with `{}`", state.filter);
    }
    visible(&words)
}

fn heads(columns: &Columns) -> Line<'static> {
    let label = columns.label;
    let text = format!(
        "{:<label$} {:<5} {:>9} {:>6} {:>5} {:>5} {:>5} WORKS ON",
        "  ACTOR", "STATE", "MAILBOX", "MSG/S", "FAIL", "RSTRT", "REFSD"
    );
    Line::styled(text, FAINT)
}

fn line(state: &State, row: &Row, columns: &Columns) -> Option<Line<'static>> {
    let actor = state.page.actors.get(row.actor)?;
    let indent = " ".repeat((row.indent * columns.indent).min(columns.label / 2));
    let sign = match row.fold {
        Fold::Leaf => "  ",
        Fold::Open => "▾ ",
        Fold::Folded => "▸ ",
    };
    let room = columns.label.saturating_sub(indent.len() + 2);
    let label = format!("{indent}{sign}{}", fit_path(&visible(&row.label), room));
    let (state_text, state_look) = match actor.state {
        ActorState::Running => ("run", Style::new()),
        ActorState::Restarting => ("start", WARNING),
        ActorState::Stopping => ("stop", FAINT),
    };
    let rate = state.rates.get(row.actor).copied().flatten();
    let (work, work_look) = work(actor);
    Some(Line::from(vec![
        Span::from(format!("{label:<width$}", width = columns.label)),
        Span::styled(format!(" {state_text:<5}"), state_look),
        Span::styled(format!(" {:>9}", mailbox(actor)), mailbox_look(actor)),
        Span::from(format!(" {:>6}", rate.map_or_else(|| "-".to_owned(), rate_text))),
        count(actor.failed),
        count(actor.restarts),
        count(actor.refused),
        Span::styled(format!(" {work}"), work_look),
    ]))
}

/// A count that should be 0.
fn count(count: u64) -> Span<'static> {
    let look = if count > 0 { WARNING } else { FAINT };
    Span::styled(format!(" {:>5}", short_count(count)), look)
}

fn mailbox(actor: &ActorInfo) -> String {
    let depth = short_count(actor.mailbox_depth);
    match actor.mailbox_limit {
        0 => depth,
        limit => format!("{depth}/{}", short_count(limit)),
    }
}

fn mailbox_look(actor: &ActorInfo) -> Style {
    let is_full = actor.mailbox_limit > 0 && actor.mailbox_depth >= actor.mailbox_limit;
    if is_full { ALARM } else { Style::new() }
}

/// Messages in a second, from those in a thousand seconds.
fn rate_text(rate: u64) -> String {
    if rate < 100_000 {
        format!("{}.{}", rate / 1_000, rate % 1_000 / 100)
    } else {
        short_count(rate / 1_000)
    }
}

/// The oldest thing that the actor works on, and how many more there are.
fn work(actor: &ActorInfo) -> (String, Style) {
    let Some(oldest) = actor.current.iter().max_by_key(|work| work.age_ms) else {
        return (String::new(), Style::new());
    };
    let more = match actor.current.len() - 1 {
        0 => String::new(),
        more => format!(" +{more}"),
    };
    let is_stuck = actor.current.iter().any(|work| work.stuck);
    let text = format!("{} {}{more}", span(oldest.age_ms), visible(&oldest.name));
    (text, if is_stuck { ALARM } else { Style::new() })
}
