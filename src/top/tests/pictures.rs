//! How states look, at the sizes of terminals that operators have.

use iris_client::SupervisionUpdate;
use iris_protocol::{ActorDetail, ActorPage, SupervisionKind, SupervisionRecord};
use serde_json::json;

use super::{
    SESSION, later, page, panicked, picture, poll, press, press_char, record, state_of, tell, work,
};
use crate::top::state::{Command, State};
use crate::top::update::Event;
use ratatui::crossterm::event::KeyCode;

/// A screen in use.
fn lively(columns: u16, lines: u16) -> State {
    let mut state = state_of(columns, lines);
    state.update(Event::Followed(Ok(SupervisionUpdate::Live)));
    let mut page = later(page());
    let arbiter = &mut page.node.arbiters[1];
    arbiter.blocked_ms = 12_300;
    arbiter.actor = Some("node/root".to_owned());
    arbiter.message = Some("Write".to_owned());
    page.node.records_dropped = 3;
    poll(&mut state, page);
    tell(&mut state, record(1, SupervisionKind::Started, SESSION));
    tell(&mut state, panicked(2));
    let mut restarted = record(3, SupervisionKind::Restarted, SESSION);
    restarted.counts.insert("restarts".to_owned(), 1);
    tell(&mut state, restarted);
    press(&mut state, "jjjj");
    state
}

fn detail() -> ActorDetail {
    let mut actors = page().actors;
    actors[4].current = vec![work("Recover", 90_000, true)];
    ActorDetail {
        actor: actors.remove(4),
        observed: json!({ "queue": 2, "run": { "id": "run_1", "state": "running" } }),
        children: vec![actors.remove(4)],
        log: vec![panicked(2)],
    }
}

fn lively_detail(columns: u16, lines: u16) -> State {
    let mut state = lively(columns, lines);
    super::press_code(&mut state, KeyCode::Enter);
    state.update(Event::Loaded(SESSION.to_owned(), Ok(Box::new(detail()))));
    state
}

#[test]
fn a_small_terminal() {
    insta::assert_snapshot!(picture(&lively(80, 24)));
}

#[test]
fn a_large_terminal() {
    insta::assert_snapshot!(picture(&lively(120, 40)));
}

#[test]
fn one_actor_alone() {
    insta::assert_snapshot!(picture(&lively_detail(80, 24)));
}

#[test]
fn one_actor_alone_on_a_large_terminal() {
    insta::assert_snapshot!(picture(&lively_detail(120, 40)));
}

#[test]
fn the_keys() {
    let mut state = lively(80, 24);
    press(&mut state, "?");
    insta::assert_snapshot!(picture(&state));
}

#[test]
fn a_question() {
    let mut state = lively(80, 24);
    press(&mut state, "sssr");
    insta::assert_snapshot!(picture(&state));
}

#[test]
fn a_server_that_is_lost() {
    let mut state = lively(80, 24);
    press_char(&mut state, 'o');
    state.update(Event::Polled(state.query.clone(), Err("no connection to the server".to_owned())));
    insta::assert_snapshot!(picture(&state));
}

#[test]
fn no_size_is_too_small() {
    for columns in [0, 1, 2, 5, 20, 79, 300] {
        for lines in 0..30 {
            for mut state in [lively(columns, lines), lively_detail(columns, lines)] {
                picture(&state);
                press(&mut state, "x");
                picture(&state);
                press(&mut state, "n?");
                picture(&state);
            }
        }
    }
    // The terminal changed and the state does not know yet.
    let mut state = lively(200, 60);
    state.size = (80, 24);
    picture(&state);
}

#[test]
fn nothing_on_the_screen_moves_the_terminal() {
    let evil = "\x1b[2J\u{9b}31m\r\n\u{202e}";
    let mut page = later(page());
    page.node.version = evil.to_owned();
    page.node.actors.insert(evil.to_owned(), 1);
    for arbiter in &mut page.node.arbiters {
        arbiter.blocked_ms = 1;
        (arbiter.name, arbiter.actor) = (evil.to_owned(), Some(evil.to_owned()));
        arbiter.message = Some(evil.to_owned());
    }
    for actor in &mut page.actors {
        actor.kind = evil.to_owned();
        actor.path = format!("{}{evil}", actor.path);
        actor.current = vec![work(evil, 1, true)];
        actor.last_error = Some(evil.to_owned());
    }
    let log = SupervisionRecord {
        path: evil.to_owned(),
        error: Some(evil.to_owned()),
        location: Some(evil.to_owned()),
        message: Some(evil.to_owned()),
        request_id: Some(evil.to_owned()),
        ..panicked(9)
    };
    let actor = page.actors[0].clone();
    let children = vec![page.actors[1].clone()];
    let (path, observed) = (actor.path.clone(), json!({ evil: evil }));
    let mut state = state_of(300, 50);
    poll(&mut state, ActorPage { actors: page.actors, node: page.node });
    tell(&mut state, log.clone());
    let mut pictures = vec![picture(&state)];
    state.update(Event::Ordered(Command::Stop, evil.to_owned(), Err(evil.to_owned())));
    pictures.push(picture(&state));
    press(&mut state, "r");
    pictures.push(picture(&state));
    press(&mut state, "ng");
    super::press_code(&mut state, KeyCode::Enter);
    let detail = ActorDetail { actor, observed, children, log: vec![log] };
    state.update(Event::Loaded(path, Ok(Box::new(detail))));
    pictures.push(picture(&state));
    for picture in pictures {
        let is_active = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!picture.contains(is_active), "{picture:?}");
        assert!(picture.contains("\\u{1b}[2J"), "{picture}");
    }
}
