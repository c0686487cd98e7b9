//! The screen without a terminal and without a server: what keys and answers make of it, and how it
//! looks then.

mod model;
mod options;
mod pictures;

use std::collections::BTreeMap;

use iris_client::SupervisionUpdate;
use iris_protocol::{
    ActorInfo, ActorList, ActorPage, ActorState, ArbiterInfo, CurrentWork, ExitKind, LineInfo,
    NodeInfo, SupervisionKind, SupervisionRecord,
};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw;
use super::state::State;
use super::update::{Action, Event};

const PROJECT: &str = "node/directory/project/prj_019abcdef0123456789abcdef01234567";
const SESSION: &str = "node/directory/project/prj_019abcdef0123456789abcdef01234567/session/ses_019abcdef0999999999999999990a";

fn actor(path: &str, kind: &str) -> ActorInfo {
    let (parent, _) = path.rsplit_once(&format!("/{kind}")).unwrap();
    ActorInfo {
        path: path.to_owned(),
        parent: parent.to_owned(),
        kind: kind.to_owned(),
        state: ActorState::Running,
        mailbox_depth: 0,
        mailbox_limit: 1_024,
        handled: 100,
        failed: 0,
        refused: 0,
        restarts: 0,
        started_at: 951_782_400_000,
        current: Vec::new(),
        last_error: None,
        children: 0,
    }
}

fn work(name: &str, age_ms: u64, stuck: bool) -> CurrentWork {
    CurrentWork { name: name.to_owned(), age_ms, stuck }
}

/// A server with a project in which something is wrong.
fn page() -> ActorPage {
    let mut session = actor(SESSION, "session");
    session.state = ActorState::Restarting;
    (session.failed, session.restarts, session.mailbox_depth) = (2, 2, 7);
    session.last_error = Some("index out of bounds: the len is 0".to_owned());
    let mut run = actor(&format!("{SESSION}/orchestrator/run_1"), "orchestrator");
    run.current = vec![work("CallModel", 61_000, true), work("RunTool", 1_250, false)];
    let mut project = actor(PROJECT, "project");
    (project.mailbox_depth, project.refused) = (1_024, 12_345);
    let actors = vec![
        actor("node/connection/con_1", "connection"),
        actor("node/connection/con_2", "connection"),
        actor("node/directory", "directory"),
        project,
        session,
        run,
        actor("node/root", "root"),
    ];
    let mut kinds = BTreeMap::new();
    for actor in &actors {
        *kinds.entry(actor.kind.clone()).or_insert(0) += 1;
    }
    let arbiter = |name: &str| ArbiterInfo {
        name: name.to_owned(),
        blocked_ms: 0,
        actor: None,
        message: None,
    };
    let node = NodeInfo {
        version: "0.1.0".to_owned(),
        uptime_ms: 11_520_000,
        rss_bytes: 84 << 20,
        actors: kinds,
        arbiters: vec![arbiter("arbiter-1"), arbiter("arbiter-2")],
        draining: false,
        runs: LineInfo::default(),
        commands: LineInfo::default(),
        records_dropped: 0,
    };
    ActorPage { node, actors }
}

/// The same after a second in which each actor handled 25 messages.
fn later(mut page: ActorPage) -> ActorPage {
    page.node.uptime_ms += 1_000;
    for actor in &mut page.actors {
        actor.handled += 25;
    }
    page
}

fn record(id: u64, kind: SupervisionKind, path: &str) -> SupervisionRecord {
    SupervisionRecord {
        id,
        at: 951_782_400_000 + i64::try_from(id).unwrap() * 1_000,
        kind,
        path: path.to_owned(),
        actor_kind: "session".to_owned(),
        reason: None,
        error: None,
        location: None,
        message: None,
        request_id: None,
        counts: BTreeMap::default(),
    }
}

fn panicked(id: u64) -> SupervisionRecord {
    SupervisionRecord {
        reason: Some(ExitKind::Panic),
        error: Some("index out of bounds: the len is 0".to_owned()),
        location: Some("actors/src/session.rs:10:5".to_owned()),
        message: Some("SendMessage".to_owned()),
        request_id: Some("req_1".to_owned()),
        ..record(id, SupervisionKind::Panicked, SESSION)
    }
}

fn state_of(columns: u16, lines: u16) -> State {
    State::new((columns, lines), ActorList::default(), page())
}

/// Presses keys that must cause nothing outside.
fn press(state: &mut State, keys: &str) {
    for key in keys.chars() {
        assert_eq!(press_code(state, KeyCode::Char(key)), [], "{key}");
    }
}

fn press_code(state: &mut State, code: KeyCode) -> Vec<Action> {
    state.update(Event::Pressed(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn press_char(state: &mut State, key: char) -> Vec<Action> {
    press_code(state, KeyCode::Char(key))
}

fn poll(state: &mut State, page: ActorPage) {
    let answer = Event::Polled(state.query.clone(), Ok(page));
    assert_eq!(state.update(answer), []);
}

fn tell(state: &mut State, record: SupervisionRecord) {
    state.update(Event::Followed(Ok(SupervisionUpdate::Record(Box::new(record)))));
}

/// The labels of the rows, the chosen one marked.
fn labels(state: &State) -> Vec<String> {
    let rows = state.rows.iter().enumerate();
    rows.map(|(place, row)| {
        let mark = if place == state.selected { ">" } else { "" };
        format!("{mark}{}{}", "  ".repeat(row.indent), row.label)
    })
    .collect()
}

/// The screen as text.
fn picture(state: &State) -> String {
    let mut terminal = Terminal::new(TestBackend::new(state.size.0, state.size.1)).unwrap();
    terminal.draw(|frame| draw::draw(state, frame)).unwrap();
    let cells: Vec<&str> =
        terminal.backend().buffer().content.iter().map(ratatui::buffer::Cell::symbol).collect();
    let lines = cells.chunks(usize::from(state.size.0).max(1));
    lines.map(|line| line.concat().trim_end().to_owned() + "\n").collect()
}
