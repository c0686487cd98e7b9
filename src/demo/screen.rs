//! What the person who runs the demo sees: one line for each event, pieces of text joined as they
//! stream in.
//!
//! Two viewers hear the same text at the same time. While a line of the one grows, what reaches the
//! other waits, with its time, and follows when the line has ended.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use iris_protocol::{Event, EventFrame, PartId, Room};

use super::cast::Viewer;
use super::checks::{Check, Evidence};
use super::look::{Look, look, shortened, visible};
use super::words::{Names, describe};

/// Columns before the words: time, viewer, room, number, name.
const MARGIN: usize = 7 + 2 + 3 + 2 + 7 + 2 + 3 + 2 + 26 + 2;

/// Where the story is shown.
pub(super) struct Screen {
    out: Box<dyn Write>,
    is_coloured: bool,
    started: Instant,
    names: Names,
    /// Whose line grows, and with which part.
    open: Option<(Viewer, PartId)>,
    /// What reached the other viewer meanwhile.
    waiting: VecDeque<(Duration, Viewer, EventFrame)>,
}

impl Screen {
    pub(super) fn new(out: Box<dyn Write>, is_coloured: bool) -> Self {
        Self {
            out,
            is_coloured,
            started: Instant::now(),
            names: Names::default(),
            open: None,
            waiting: VecDeque::new(),
        }
    }

    /// Knows people by their names from now on.
    pub(super) fn introduce(&mut self, names: Names) {
        self.names = names;
    }

    /// The first lines.
    pub(super) fn title(&mut self, url: &str, model: &str) -> io::Result<()> {
        let about = format!("iris demo on {url}, model `{model}`");
        writeln!(self.out, "{}", self.paint(Look::Bold, &about))?;
        let (time, name) = ("time", "event");
        let head = format!("{time:>7}  who  room     seq  {name:<26}  what happened");
        writeln!(self.out, "{}", self.paint(Look::Faint, &head))
    }

    /// Something that one of the two does.
    pub(super) fn act(&mut self, viewer: Viewer, what: &str) -> io::Result<()> {
        self.catch_up()?;
        let (time, who) = (self.time(self.started.elapsed()), self.name(viewer));
        writeln!(self.out, "{time}  {who}  {}", self.paint(Look::Bold, &format!("-> {what}")))
    }

    /// An event that has reached one of the two.
    pub(super) fn show(&mut self, viewer: Viewer, frame: &EventFrame) -> io::Result<()> {
        let at = self.started.elapsed();
        if !self.may_write(viewer) {
            self.waiting.push_back((at, viewer, frame.clone()));
            return Ok(());
        }
        self.write(at, viewer, frame)?;
        // All that waits is of the other viewer: either nothing of it may be written or all.
        if self.waiting.front().is_some_and(|(_, viewer, _)| self.may_write(*viewer)) {
            self.write_waiting()?;
        }
        self.out.flush()
    }

    /// The end: what was checked, and the figures.
    pub(super) fn verdict(
        &mut self,
        checks: &[Check],
        evidence: &Evidence,
        time: Duration,
    ) -> io::Result<()> {
        self.catch_up()?;
        writeln!(self.out)?;
        for Check { claim, failures } in checks {
            let sign = if failures.is_empty() {
                self.paint(Look::Green, " ok ")
            } else {
                self.paint(Look::Red, "FAIL")
            };
            writeln!(self.out, "{sign}  {claim}")?;
            for failure in failures {
                writeln!(self.out, "      {}", visible(failure))?;
            }
        }
        let holds = checks.iter().filter(|check| check.holds()).count();
        let (word, look) =
            if holds == checks.len() { ("passed", Look::Green) } else { ("failed", Look::Red) };
        let [ann, ben] = Viewer::BOTH.map(|viewer| Figures::of(evidence.seen_by(viewer)));
        let summary = format!(
            "demo {word}: {holds} of {} checks; ann saw {ann}, ben {ben}; {:.1} s",
            checks.len(),
            time.as_secs_f64()
        );
        writeln!(self.out, "\n{}", self.paint(look, &summary))?;
        self.out.flush()
    }

    fn may_write(&self, viewer: Viewer) -> bool {
        self.open.as_ref().is_none_or(|(owner, _)| *owner == viewer)
    }

    /// Ends the line that grows and shows what waits.
    fn catch_up(&mut self) -> io::Result<()> {
        self.close_line()?;
        self.write_waiting()?;
        self.close_line()
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        while let Some((at, viewer, frame)) = self.waiting.pop_front() {
            self.write(at, viewer, &frame)?;
        }
        Ok(())
    }

    fn write(&mut self, at: Duration, viewer: Viewer, frame: &EventFrame) -> io::Result<()> {
        let (Event::MessageTextDelta { part_id, .. }
        | Event::MessageReasoningDelta { part_id, .. }
        | Event::MessageToolInputDelta { part_id, .. }) = &frame.event
        else {
            self.close_line()?;
            let words = describe(&frame.event, &self.names);
            let words = self.paint(look(&frame.event), &shortened(&words));
            return writeln!(self.out, "{}{words}", self.margin(at, viewer, frame));
        };
        let open = Some((viewer, part_id.clone()));
        if self.open != open {
            self.close_line()?;
            write!(self.out, "{}", self.margin(at, viewer, frame))?;
            self.open = open;
        }
        let piece = describe(&frame.event, &self.names);
        for (index, line) in piece.split('\n').enumerate() {
            if index > 0 {
                write!(self.out, "\n{:MARGIN$}", "")?;
            }
            write!(self.out, "{}", self.paint(look(&frame.event), &visible(line)))?;
        }
        Ok(())
    }

    fn close_line(&mut self) -> io::Result<()> {
        if self.open.take().is_some() {
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn margin(&self, at: Duration, viewer: Viewer, frame: &EventFrame) -> String {
        let (time, who, name) = (self.time(at), self.name(viewer), frame.event.name());
        let room = match frame.meta.room {
            Room::Session(_) => "session",
            Room::Project(_) => "project",
            Room::User(_) => "user",
            Room::Admin => "admin",
        };
        let seq = frame.meta.seq.map_or_else(|| "-".to_owned(), |seq| seq.to_string());
        let seq = self.paint(Look::Faint, &format!("{seq:>3}"));
        format!("{time}  {who}  {room}  {seq}  {name:<26}  ")
    }

    fn name(&self, viewer: Viewer) -> String {
        let look = match viewer {
            Viewer::Ann => Look::Cyan,
            Viewer::Ben => Look::Magenta,
        };
        self.paint(look, viewer.name())
    }

    fn time(&self, at: Duration) -> String {
        self.paint(Look::Faint, &format!("{:>7.3}", at.as_secs_f64()))
    }

    fn paint(&self, look: Look, text: &str) -> String {
        if self.is_coloured && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", look.code())
        } else {
            text.to_owned()
        }
    }
}

/// What one of the two saw, in numbers.
struct Figures {
    durable: usize,
    ephemeral: usize,
}

impl Figures {
    fn of(frames: &[EventFrame]) -> Self {
        let durable = frames.iter().filter(|frame| frame.meta.seq.is_some()).count();
        Self { durable, ephemeral: frames.len() - durable }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} durable events and {} pieces", self.durable, self.ephemeral)
    }
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
