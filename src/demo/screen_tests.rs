//! Lines of two viewers do not mix, and nothing that streams in can take over the terminal.

use std::sync::Arc;

use iris_protocol::{EventMeta, MessageId, ProjectId, SessionId, SessionState};
use parking_lot::Mutex;

use super::*;

/// What was written, for a test to look at.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    /// The lines without their time.
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        text.lines().map(|line| line.get(9..).unwrap_or_default().to_owned()).collect()
    }
}

fn frame(seq: Option<u64>, event: Event) -> EventFrame {
    let (project_id, room) =
        (Some(ProjectId::from_bits(1)), Room::Session(SessionId::from_bits(1)));
    EventFrame { meta: EventMeta { project_id, room, seq, prev: None, at: None, by: None }, event }
}

fn delta(part: u128, text: &str) -> EventFrame {
    let event = Event::MessageTextDelta {
        session_id: SessionId::from_bits(1),
        message_id: MessageId::from_bits(1),
        part_id: PartId::from_bits(part),
        r#gen: 1,
        offset: 0,
        delta: text.to_owned(),
    };
    frame(None, event)
}

fn idle(seq: u64) -> EventFrame {
    let (session_id, state) = (SessionId::from_bits(1), SessionState::Idle);
    frame(Some(seq), Event::session_status(session_id, state))
}

#[test]
fn pieces_of_a_part_are_joined_on_one_line_for_each_viewer() {
    let paper = Paper::default();
    let mut screen = Screen::new(Box::new(paper.clone()), false);
    for (viewer, frame) in [
        (Viewer::Ann, delta(1, "one ")),
        (Viewer::Ben, delta(1, "one ")),
        (Viewer::Ann, delta(1, "two")),
        (Viewer::Ben, delta(1, "two")),
        (Viewer::Ben, idle(7)),
        (Viewer::Ann, delta(2, "next")),
        (Viewer::Ann, idle(7)),
    ] {
        screen.show(viewer, &frame).unwrap();
    }
    assert_eq!(
        paper.lines(),
        [
            "ann  session    -  message.text.delta          one two",
            "ann  session    -  message.text.delta          next",
            "ann  session    7  session.status              idle",
            "ben  session    -  message.text.delta          one two",
            "ben  session    7  session.status              idle",
        ]
    );
}

#[test]
fn what_waits_is_shown_before_somebody_acts() {
    let paper = Paper::default();
    let mut screen = Screen::new(Box::new(paper.clone()), false);
    screen.show(Viewer::Ann, &delta(1, "one")).unwrap();
    screen.show(Viewer::Ben, &delta(1, "one")).unwrap();
    screen.act(Viewer::Ben, "approves").unwrap();
    let text = "session    -  message.text.delta          one";
    assert_eq!(
        paper.lines(),
        [format!("ann  {text}"), format!("ben  {text}"), "ben  -> approves".into()]
    );
}

#[test]
fn text_of_a_model_cannot_steer_the_terminal() {
    let paper = Paper::default();
    let mut screen = Screen::new(Box::new(paper.clone()), false);
    screen.show(Viewer::Ann, &delta(1, "a\x1b[2J\r\nb\tc")).unwrap();
    let indent = " ".repeat(MARGIN - 9);
    assert_eq!(
        paper.lines(),
        [
            "ann  session    -  message.text.delta          a\u{fffd}[2J\u{fffd}".to_owned(),
            format!("{indent}b  c"),
        ]
    );
}

#[test]
fn colour_is_there_only_where_it_was_asked_for() {
    for (is_coloured, expected) in [(false, false), (true, true)] {
        let paper = Paper::default();
        let mut screen = Screen::new(Box::new(paper.clone()), is_coloured);
        screen.show(Viewer::Ann, &idle(1)).unwrap();
        assert_eq!(paper.0.lock().contains(&0x1b), expected);
    }
}
