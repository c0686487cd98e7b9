//! How the state looks. Texts of the server are made harmless before they come here or where they
//! enter a line.

mod actors;
mod detail;

use iris_protocol::{ArbiterInfo, NodeInfo, SupervisionRecord};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

pub(super) use self::detail::detail_lines;
use super::keys::HELP;
use super::log::Feed;
use super::rows::short;
use super::state::{Focus, Prompt, State};
use crate::remote::text::{bytes, record_words, span, time_of_day, visible};

/// Lines about the process.
const HEADER_LINES: u16 = 3;
/// Columns of the kind of a record, which is at most `overloaded` or `passivated`.
const KIND_COLUMNS: usize = 10;

/// What is worth a look.
const WARNING: Style = Style::new().fg(Color::Yellow);
/// What is wrong.
const ALARM: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
/// What is there for orientation.
const FAINT: Style = Style::new().fg(Color::DarkGray);

/// Where everything stands.
pub(super) struct Areas {
    header: Rect,
    title: Rect,
    heads: Rect,
    /// The actors.
    pub(super) rows: Rect,
    log_title: Rect,
    /// The records.
    pub(super) log: Rect,
    /// All between header and footer, for what is shown alone.
    pub(super) body: Rect,
    footer: Rect,
}

impl Areas {
    /// Shares out so many columns and lines. What finds no room gets none.
    pub(super) fn of((columns, lines): (u16, u16)) -> Self {
        let above_footer = lines.saturating_sub(1);
        let mut used = 0;
        let mut take = |wanted: u16| {
            let given = wanted.min(above_footer - used);
            let area = Rect::new(0, used, columns, given);
            used += given;
            area
        };
        let header = take(HEADER_LINES);
        let rest = above_footer.saturating_sub(HEADER_LINES + 3);
        let (title, heads, rows) = (take(1), take(1), take(rest - rest / 3));
        let (log_title, log) = (take(1), take(rest / 3));
        let body = Rect::new(0, header.height, columns, above_footer - header.height);
        let footer = Rect::new(0, above_footer, columns, lines - above_footer);
        Self { header, title, heads, rows, log_title, log, body, footer }
    }
}

/// Draws the whole screen.
pub(super) fn draw(state: &State, frame: &mut Frame) {
    let areas = Areas::of((frame.area().width, frame.area().height));
    frame.render_widget(Paragraph::new(header(&state.page.node)), areas.header);
    let status = status(state);
    let width = u16::try_from(status.width() + 1).unwrap_or(u16::MAX).min(areas.header.width);
    let corner = Rect::new(areas.header.width - width, 0, width, areas.header.height.min(1));
    frame.render_widget(Paragraph::new(status).right_aligned(), corner);
    if state.prompt == Some(Prompt::Help) {
        frame.render_widget(Paragraph::new(help(areas.body.width)), areas.body);
    } else if let Some(detail) = &state.detail {
        let lines = detail_lines(detail, areas.body.width).into_iter();
        let seen: Vec<_> = lines.skip(detail.scroll).collect();
        frame.render_widget(Paragraph::new(seen), areas.body);
    } else {
        actors::draw(state, &areas, frame);
        draw_log(state, &areas, frame);
    }
    frame.render_widget(Paragraph::new(footer(state, areas.footer.width)), areas.footer);
}

fn header(node: &NodeInfo) -> Vec<Line<'static>> {
    let count: u64 = node.actors.values().sum();
    let mut first = vec![
        Span::from(format!("iris {}", visible(&node.version))).bold(),
        Span::from(format!("  up {}", span(node.uptime_ms))),
        Span::from(format!("  {}  {count} actors", bytes(node.rss_bytes))),
    ];
    if node.draining {
        first.push(Span::styled("  draining", WARNING));
    }
    if node.records_dropped > 0 {
        let text = format!("  {} records dropped", node.records_dropped);
        first.push(Span::styled(text, WARNING));
    }
    let kinds = node.actors.iter().map(|(kind, count)| format!("{} {count}", visible(kind)));
    let kinds = format!("kinds    {}", kinds.collect::<Vec<_>>().join("  "));
    vec![Line::from(first), Line::from(kinds), threads(&node.arbiters)]
}

fn threads(arbiters: &[ArbiterInfo]) -> Line<'static> {
    let blocked: Vec<_> = arbiters.iter().filter(|arbiter| arbiter.blocked_ms > 0).collect();
    let text = format!("threads  {}", arbiters.len());
    if blocked.is_empty() {
        return Line::from(text);
    }
    let mut line = vec![Span::from(format!("{text}, {} blocked", blocked.len()))];
    for arbiter in blocked {
        line.push(Span::styled(format!("  {}", blocked_words(arbiter)), ALARM));
    }
    Line::from(line)
}

/// Which thread is blocked, for how long and by what.
pub(super) fn blocked_words(arbiter: &ArbiterInfo) -> String {
    let mut words = format!("{} {}", arbiter.name, span(arbiter.blocked_ms));
    if let Some(actor) = &arbiter.actor {
        words = format!("{words} {}", short(actor));
    }
    if let Some(message) = &arbiter.message {
        words = format!("{words} in {message}");
    }
    visible(&words)
}

fn status(state: &State) -> Span<'static> {
    if state.lost.is_some() {
        return Span::styled("disconnected, retrying", ALARM);
    }
    if state.is_paused {
        return Span::styled("paused", WARNING);
    }
    match state.log.feed {
        Feed::Starting => Span::styled("joining the log", FAINT),
        Feed::Live => Span::styled("live", Style::new().fg(Color::Green)),
        Feed::Polling => Span::styled("log by polling", WARNING),
        Feed::Lost => Span::styled("log lost, retrying", WARNING),
        Feed::Ended => Span::styled("log ended", ALARM),
    }
}

fn footer(state: &State, columns: u16) -> Line<'static> {
    match &state.prompt {
        Some(Prompt::Filter) => return Line::from(format!("/{}_", visible(&state.filter))),
        Some(Prompt::Confirm(command, path)) => {
            let (order, end) = (command.name(), "? y/n");
            let room = usize::from(columns).saturating_sub(order.len() + 1 + end.len());
            let path = fit_path(&visible(path), room);
            return Line::styled(format!("{order} {path}{end}"), WARNING);
        }
        Some(Prompt::Help) => return Line::styled("any key to go back", FAINT),
        None => {}
    }
    if let Some(notice) = &state.notice {
        let look = if notice.is_error { ALARM } else { Style::new() };
        return Line::styled(visible(&notice.text), look);
    }
    if let Some(reason) = &state.lost {
        return Line::styled(visible(reason), ALARM);
    }
    let keys = if state.detail.is_some() {
        "q back  r restart  x stop  p pause  ? keys"
    } else {
        "? keys  q quit  enter detail  s sort  / find  f kind  r restart  x stop  p pause"
    };
    Line::styled(keys, FAINT)
}

fn help(columns: u16) -> Vec<Line<'static>> {
    let mut lines = vec![rule("keys", columns, true)];
    lines.extend(HELP.iter().map(|(keys, what)| Line::from(format!("{keys:<16}{what}"))));
    lines
}

/// A line across the screen with a title in it.
fn rule(title: &str, columns: u16, has_focus: bool) -> Line<'static> {
    let used = title.chars().count() + 4;
    let rest = "─".repeat(usize::from(columns).saturating_sub(used));
    let look = if has_focus { Style::new().add_modifier(Modifier::BOLD) } else { FAINT };
    Line::styled(format!("── {title} {rest}"), look)
}

fn draw_log(state: &State, areas: &Areas, frame: &mut Frame) {
    let title = match state.log.scroll {
        0 => "log".to_owned(),
        below => format!("log, {below} newer"),
    };
    let title = rule(&title, areas.log_title.width, state.focus == Focus::Log);
    frame.render_widget(Paragraph::new(title), areas.log_title);
    let seen = state.log.seen(state.query.under.as_deref(), usize::from(areas.log.height));
    let path_columns = usize::from(areas.log.width) * 2 / 5;
    let lines: Vec<_> = seen.into_iter().map(|record| log_line(record, path_columns)).collect();
    frame.render_widget(Paragraph::new(lines), areas.log);
}

fn log_line(record: &SupervisionRecord, path_columns: usize) -> Line<'static> {
    let look = if record.is_abnormal() { WARNING } else { Style::new() };
    let path = fit_path(&visible(short(&record.path)), path_columns);
    Line::from(vec![
        Span::styled(time_of_day(record.at), FAINT),
        Span::styled(format!(" {:<KIND_COLUMNS$}", record.kind.as_str()), look),
        Span::from(format!(" {path:<path_columns$} {}", record_words(record))),
    ])
}

/// A path in at most so many columns: whole, or its last actor alone.
fn fit_path(path: &str, columns: usize) -> String {
    if path.chars().count() <= columns {
        return path.to_owned();
    }
    // An actor is its kind and its id.
    let last = path.rmatch_indices('/').nth(1).and_then(|(slash, _)| path.get(slash..));
    fit(&last.map_or_else(|| path.to_owned(), |last| format!("…{last}")), columns)
}

/// The text in at most so many columns, without its middle where it is longer: what tells ids apart
/// stands at their ends.
fn fit(text: &str, columns: usize) -> String {
    let count = text.chars().count();
    if count <= columns {
        return text.to_owned();
    }
    let tail = columns.saturating_sub(1) / 2;
    let head = columns.saturating_sub(1) - tail;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    let middle = if columns == 0 { "" } else { "…" };
    format!("{start}{middle}{end}")
}
