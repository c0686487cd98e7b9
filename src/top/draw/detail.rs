//! One actor alone: its figures, what it says of itself, its children and its log.

use iris_protocol::{ActorDetail, ActorInfo, ActorState};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

use super::{ALARM, FAINT, WARNING};
use crate::remote::text::{record_words, span, utc, visible};
use crate::top::state::Detail;

/// Columns before what belongs to the line above.
const INDENT: &str = "    ";

/// All that is known of the actor, from the top. Long texts go on in the next line.
pub(in crate::top) fn detail_lines(detail: &Detail, columns: u16) -> Vec<Line<'static>> {
    let columns = usize::from(columns);
    let mut lines = Vec::new();
    let bold = Style::new().add_modifier(Modifier::BOLD);
    wrap("", &visible(&detail.path), columns, bold, &mut lines);
    match &detail.answer {
        None => lines.push(Line::styled("asking for it", FAINT)),
        Some(Err(reason)) => lines.push(Line::styled(visible(reason), ALARM)),
        Some(Ok(answer)) => {
            figures(&answer.actor, columns, &mut lines);
            observed(answer, &mut lines);
            children(answer, &mut lines);
            log(answer, columns, &mut lines);
        }
    }
    lines
}

fn figures(actor: &ActorInfo, columns: usize, lines: &mut Vec<Line<'static>>) {
    let limit = match actor.mailbox_limit {
        0 => "no limit".to_owned(),
        limit => format!("limit {limit}"),
    };
    let kind = visible(&actor.kind);
    lines.push(named("kind", &format!("{kind}, {}", state_name(actor.state))));
    lines.push(named("parent", &visible(&actor.parent)));
    lines.push(named("started", &utc(actor.started_at)));
    let refused = actor.refused;
    lines.push(named("mailbox", &format!("{}, {limit}, {refused} refused", actor.mailbox_depth)));
    let (failed, restarts) = (actor.failed, actor.restarts);
    let counts = format!("{}, {failed} failed, {restarts} restarts", actor.handled);
    lines.push(named("handled", &counts));
    for work in &actor.current {
        let text = format!("{} for {}", visible(&work.name), span(work.age_ms));
        let mut line = named("works on", &text);
        if work.stuck {
            line.push_span(Span::styled("  stuck", ALARM));
        }
        lines.push(line);
    }
    if let Some(error) = &actor.last_error {
        lines.push(named("last error", ""));
        wrap(INDENT, &visible(error), columns, WARNING, lines);
    }
}

/// The text below the last line, in as many lines as it needs.
fn wrap(indent: &str, text: &str, columns: usize, look: Style, lines: &mut Vec<Line<'static>>) {
    let room = columns.saturating_sub(indent.len()).max(1);
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.char_indices().nth(room).map_or(rest.len(), |(end, _)| end);
        let (line, after) = rest.split_at(end);
        lines.push(Line::styled(format!("{indent}{line}"), look));
        rest = after;
    }
}

fn named(name: &str, text: &str) -> Line<'static> {
    Line::from(vec![Span::styled(format!("{name:<12}"), FAINT), Span::from(text.to_owned())])
}

fn state_name(state: ActorState) -> &'static str {
    match state {
        ActorState::Running => "running",
        ActorState::Restarting => "restarting",
        ActorState::Stopping => "stopping",
    }
}

fn observed(answer: &ActorDetail, lines: &mut Vec<Line<'static>>) {
    lines.push(Line::styled("its own state", FAINT));
    if answer.observed.is_null() {
        lines.push(Line::styled("  it did not answer in time", WARNING));
        return;
    }
    let json = format!("{:#}", answer.observed);
    lines.extend(json.lines().map(|line| Line::from(format!("  {}", visible(line)))));
}

fn children(answer: &ActorDetail, lines: &mut Vec<Line<'static>>) {
    let count = answer.children.len();
    lines.push(Line::styled(format!("children: {count}"), FAINT));
    for child in &answer.children {
        let label = child.path.strip_prefix(&child.parent).unwrap_or(&child.path);
        let label = visible(label.trim_start_matches('/'));
        let state = state_name(child.state);
        let text = format!("  {label}  {state}, {} waiting", child.mailbox_depth);
        lines.push(Line::from(text));
    }
}

fn log(answer: &ActorDetail, columns: usize, lines: &mut Vec<Line<'static>>) {
    lines.push(Line::styled(format!("records: {}", answer.log.len()), FAINT));
    for record in &answer.log {
        let look = if record.is_abnormal() { WARNING } else { Style::new() };
        lines.push(Line::from(vec![
            Span::styled(format!("  {} ", utc(record.at)), FAINT),
            Span::styled(record.kind.as_str(), look),
        ]));
        wrap(INDENT, &record_words(record), columns, Style::new(), lines);
    }
}
