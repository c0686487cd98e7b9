//! Any split, repetition, overlap, loss and restart of a part gives the same text.

use iris_protocol::{SessionId, SnapshotKind};
use proptest::prelude::*;

use super::*;

fn ids() -> (SessionId, MessageId, PartId) {
    (SessionId::from_bits(1), MessageId::from_bits(2), PartId::from_bits(3))
}

fn delta(generation: u32, offset: usize, text: &str) -> Event {
    let (session_id, message_id, part_id) = ids();
    let (offset, delta) = (offset as u64, text.to_owned());
    Event::MessageTextDelta { session_id, message_id, part_id, r#gen: generation, offset, delta }
}

fn snapshot(generation: u32, text: &str) -> Event {
    let (session_id, message_id, part_id) = ids();
    let (length, text) = (text.len() as u64, text.to_owned());
    Event::MessagePartSnapshot {
        session_id,
        message_id,
        part_id,
        kind: SnapshotKind::Text,
        tool_name: None,
        r#gen: generation,
        length,
        text,
    }
}

fn complete(text: &str) -> Event {
    let (session_id, message_id, part_id) = ids();
    let (length, text) = (text.len() as u64, text.to_owned());
    Event::MessageTextComplete { session_id, message_id, part_id, length, text, interrupted: false }
}

/// What is left of a part that was cut off.
fn interrupted(rest: &str) -> Event {
    let Event::MessageTextComplete { session_id, message_id, part_id, length, text, .. } =
        complete(rest)
    else {
        unreachable!("it is that")
    };
    let interrupted = true;
    Event::MessageTextComplete { session_id, message_id, part_id, length, text, interrupted }
}

/// The text that a caller shows who follows the pieces.
#[derive(Default)]
struct Screen {
    tracker: PartTracker,
    text: String,
    gaps: usize,
}

impl Screen {
    fn apply(&mut self, event: &Event) {
        match self.tracker.apply(event) {
            PartChange::Piece(piece) => {
                self.text.truncate(usize::try_from(piece.offset).unwrap_or(usize::MAX));
                self.text.push_str(&piece.delta);
            }
            PartChange::Nothing => {}
            PartChange::Gap => self.gaps += 1,
        }
    }

    fn after(events: &[Event]) -> Self {
        let mut screen = Self::default();
        for event in events {
            screen.apply(event);
        }
        screen
    }
}

#[test]
fn an_overlap_is_skipped_and_a_repeat_ignored() {
    let screen = Screen::after(&[delta(1, 0, "Hel"), delta(1, 1, "ello"), delta(1, 0, "Hello")]);
    assert_eq!((screen.text.as_str(), screen.gaps), ("Hello", 0));
}

#[test]
fn a_gap_is_said_once_and_the_complete_text_fills_it() {
    let mut screen = Screen::after(&[delta(1, 0, "He"), delta(1, 4, "o"), delta(1, 5, "!")]);
    assert_eq!((screen.text.as_str(), screen.gaps), ("He", 1));
    screen.apply(&complete("Hello!"));
    assert_eq!(screen.text, "Hello!");
}

#[test]
fn a_snapshot_fills_a_gap_and_deltas_go_on_from_it() {
    let events = [
        delta(1, 0, "He"),
        delta(1, 4, "o"),
        snapshot(1, "Hello"),
        delta(1, 4, "o w"),
        delta(1, 7, "orld"),
    ];
    let screen = Screen::after(&events);
    assert_eq!((screen.text.as_str(), screen.gaps), ("Hello world", 1));
}

#[test]
fn a_higher_generation_starts_over_and_a_lower_one_is_ignored() {
    let events = [delta(1, 0, "wrong"), delta(2, 0, "ri"), delta(1, 5, "!"), snapshot(1, "wrong!")];
    let mut screen = Screen::after(&events);
    assert_eq!(screen.text, "ri");
    screen.apply(&delta(2, 2, "ght"));
    assert_eq!(screen.text, "right");
}

#[test]
fn a_generation_whose_beginning_was_missed_is_a_gap() {
    let mut screen = Screen::after(&[delta(1, 0, "wrong"), delta(2, 2, "ght")]);
    assert_eq!((screen.text.as_str(), screen.gaps), ("wrong", 1));
    screen.apply(&snapshot(2, "right"));
    assert_eq!(screen.text, "right");
}

#[test]
fn nothing_follows_the_end_of_a_part() {
    let mut screen = Screen::after(&[delta(1, 0, "a"), complete("ab"), delta(1, 0, "abc")]);
    screen.apply(&delta(2, 0, "x"));
    screen.apply(&complete("other"));
    assert_eq!((screen.text.as_str(), screen.gaps), ("ab", 0));
}

#[test]
fn a_text_that_was_interrupted_is_cut_to_what_is_left_of_it() {
    let mut screen = Screen::after(&[delta(1, 0, "Hello wor"), interrupted("Hello")]);
    assert_eq!((screen.text.as_str(), screen.gaps), ("Hello", 0));
    screen.apply(&delta(1, 9, "ld"));
    assert_eq!(screen.text, "Hello");
}

#[test]
fn an_offset_inside_a_character_is_a_gap() {
    let screen = Screen::after(&[delta(1, 0, "abc"), delta(1, 2, "ü!")]);
    assert_eq!((screen.text.as_str(), screen.gaps), ("abc", 1));
}

#[test]
fn ended_parts_are_remembered_up_to_the_limit() {
    let (session_id, message_id, _) = ids();
    let mut tracker = PartTracker::default();
    for bits in 0..=ENDED_PARTS_MAX as u128 {
        let (session_id, message_id) = (session_id.clone(), message_id.clone());
        let part_id = PartId::from_bits(bits);
        tracker.apply(&Event::MessagePartRemoved { session_id, message_id, part_id });
    }
    assert_eq!(tracker.ended.len(), ENDED_PARTS_MAX);
    assert!(!tracker.ended.contains(&PartId::from_bits(0)));
    assert!(tracker.ended.contains(&PartId::from_bits(1)));
}

#[test]
fn the_end_of_a_message_ends_its_parts() {
    let (session_id, message_id, _) = ids();
    let mut screen = Screen::after(&[delta(1, 0, "a")]);
    let error = iris_protocol::ApiError::invalid("x");
    screen.apply(&Event::MessageError { session_id, message_id, error });
    screen.apply(&delta(1, 1, "b"));
    assert_eq!((screen.text.as_str(), screen.tracker.open.len()), ("a", 0));
}

fn boundary(text: &str, at: prop::sample::Index) -> usize {
    let at = at.index(text.len() + 1);
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A stretch of the text as (start, end) at character boundaries.
fn stretch(text: &str, a: prop::sample::Index, b: prop::sample::Index) -> (usize, usize) {
    let (a, b) = (boundary(text, a), boundary(text, b));
    (a.min(b), a.max(b))
}

proptest! {
    #[test]
    fn any_split_with_repeats_and_overlaps_gives_the_text(
        text in "\\PC{0,40}",
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 0..30),
    ) {
        let mut screen = Screen::default();
        let mut sent = 0;
        for (a, b, as_snapshot) in steps {
            // Whatever is sent starts at or before what was sent before: nothing is lost.
            let (start, end) = stretch(&text, a, b);
            let start = start.min(sent);
            let event = if as_snapshot { snapshot(1, &text[..end]) } else { delta(1, start, &text[start..end]) };
            screen.apply(&event);
            sent = sent.max(end);
            prop_assert_eq!(&screen.text, &text[..sent]);
        }
        screen.apply(&complete(&text));
        prop_assert_eq!(screen.text, text);
        prop_assert_eq!(screen.gaps, 0);
    }

    #[test]
    fn any_loss_and_restart_ends_in_the_complete_text(
        attempts in prop::collection::vec("[a-cäß€]{0,12}", 1..4),
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<bool>()), 0..30),
    ) {
        let mut screen = Screen::default();
        for (attempt, a, b, as_snapshot) in steps {
            let generation = attempt.index(attempts.len());
            let text = &attempts[generation];
            let (start, end) = stretch(text, a, b);
            let generation = u32::try_from(generation).unwrap();
            screen.apply(&if as_snapshot { snapshot(generation, &text[..end]) } else { delta(generation, start, &text[start..end]) });
            // What is shown is always the beginning of one attempt.
            prop_assert!(attempts.iter().any(|attempt| attempt.starts_with(&screen.text)));
        }
        let last = attempts.last().unwrap();
        screen.apply(&complete(last));
        prop_assert_eq!(&screen.text, last);
    }
}
