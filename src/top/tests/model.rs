//! What events make of the state.

use iris_client::SupervisionUpdate;
use iris_protocol::{ActorDetail, ActorList, ActorPage, SupervisionKind};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::Value;

use super::{
    PROJECT, SESSION, labels, later, page, panicked, poll, press, press_char, press_code, record,
    state_of, tell,
};
use crate::top::log::{Feed, RECORDS_MAX};
use crate::top::rows::{Fold, Order};
use crate::top::state::{Command, Prompt, State};
use crate::top::update::{Action, Event};

const PROJECT_LABEL: &str = "  project/prj_019abcdef0123456789abcdef01234567";
const SESSION_LABEL: &str = "    session/ses_019abcdef0999999999999999990a";

fn screen() -> State {
    state_of(80, 24)
}

#[test]
fn children_stand_under_their_parents() {
    let expected = [
        ">connection/con_1",
        "connection/con_2",
        "directory",
        PROJECT_LABEL,
        SESSION_LABEL,
        "      orchestrator/run_1",
        "root",
    ];
    assert_eq!(labels(&screen()), expected);
}

#[test]
fn siblings_whose_names_begin_alike_stay_apart() {
    let mut page = page();
    for actor in &mut page.actors {
        // Between `directory` and `directory/..` in the order of texts.
        if actor.kind == "connection" {
            actor.path = actor.path.replace("connection/", "directory-");
        }
    }
    page.actors.sort_by(|a, b| a.path.cmp(&b.path));
    let state = State::new((80, 24), ActorList::default(), page);
    assert_eq!(labels(&state)[..2], [">directory".to_owned(), PROJECT_LABEL.to_owned()]);
}

#[test]
fn an_actor_whose_parent_is_not_there_has_its_whole_path() {
    let mut page = page();
    page.actors.retain(|actor| actor.kind == "session" || actor.kind == "orchestrator");
    let state = State::new((80, 24), ActorList::default(), page);
    let session = SESSION.strip_prefix("node/").unwrap();
    assert_eq!(labels(&state), [format!(">{session}"), "  orchestrator/run_1".to_owned()]);
}

#[test]
fn an_actor_can_be_folded_and_unfolded() {
    let mut state = screen();
    press(&mut state, "jjh");
    assert_eq!(labels(&state), ["connection/con_1", "connection/con_2", ">directory", "root"]);
    assert_eq!(state.rows[2].fold, Fold::Folded);
    press(&mut state, "ljj");
    assert_eq!(state.selected, 4);
    // Twice: it folds, then goes to the parent.
    press(&mut state, "hh");
    assert_eq!(labels(&state)[3], format!(">{PROJECT_LABEL}"));
    assert_eq!(state.rows[4].fold, Fold::Folded);
}

#[test]
fn rows_are_ordered_by_each_figure_and_turned_round() {
    let mut state = screen();
    let mut page = later(page());
    page.actors[6].handled += 1_000;
    poll(&mut state, page);
    let mut firsts = Vec::new();
    loop {
        press(&mut state, "s");
        if state.order == Order::Tree {
            break;
        }
        let first = &state.page.actors[state.rows[0].actor];
        firsts.push((state.order.name(), first.kind.as_str().to_owned()));
    }
    let expected = [
        ("depth", "project"),
        ("rate", "root"),
        ("failed", "session"),
        ("restarts", "session"),
        ("refused", "project"),
        ("age", "orchestrator"),
    ];
    assert_eq!(firsts, expected.map(|(order, kind)| (order, kind.to_owned())));
    press(&mut state, "sS");
    assert_eq!(state.page.actors[state.rows[6].actor].kind, "project");
}

#[test]
fn a_typed_text_limits_the_rows_and_shows_what_is_folded() {
    let mut state = screen();
    press(&mut state, "jjh/CALLmodel");
    let all = ["directory", PROJECT_LABEL, SESSION_LABEL, "      orchestrator/run_1"];
    let chosen_first = |labels: Vec<String>| {
        labels.into_iter().map(|label| label.replace('>', "")).collect::<Vec<_>>()
    };
    assert_eq!(chosen_first(labels(&state)), all);
    assert_eq!(press_code(&mut state, KeyCode::Enter), []);
    assert_eq!(state.prompt, None);
    press(&mut state, "s");
    assert_eq!(state.rows.len(), 1);
    // Back: the text first, then the program.
    press(&mut state, "q");
    assert_eq!(state.rows.len(), 7);
    assert_eq!(press_char(&mut state, 'q'), [Action::Quit]);
    press(&mut state, "/x");
    assert_eq!(press_code(&mut state, KeyCode::Backspace), []);
    assert_eq!(state.filter, "");
    press(&mut state, "nobody");
    assert!(state.rows.is_empty());
    assert_eq!(press_code(&mut state, KeyCode::Esc), []);
    assert_eq!(state.rows.len(), 7);
}

#[test]
fn the_chosen_actor_stays_chosen_while_others_come_and_go() {
    let mut state = screen();
    press(&mut state, "jjjj");
    assert_eq!(state.chosen_path(), Some(SESSION));
    let mut without = page();
    without.actors.drain(..2);
    poll(&mut state, without);
    assert_eq!((state.chosen_path(), state.selected), (Some(SESSION), 2));
    // When it is gone itself, what took its place.
    let mut without = page();
    without.actors.retain(|actor| !actor.path.starts_with(SESSION));
    poll(&mut state, without);
    assert_eq!(state.chosen_path(), Some("node/directory"));
    poll(&mut state, ActorPage { actors: Vec::new(), ..page() });
    assert_eq!(state.chosen_path(), None);
}

#[test]
fn the_chosen_row_is_always_seen() {
    let mut state = state_of(80, 14);
    let height = 5;
    for (keys, first, selected) in
        [("jjjj", 0, 4), ("j", 1, 5), ("G", 2, 6), ("kkkk", 2, 2), ("g", 0, 0)]
    {
        press(&mut state, keys);
        assert_eq!((state.first, state.selected), (first, selected), "{keys}");
        assert!(selected < first + height);
    }
    press_code(&mut state, KeyCode::PageDown);
    assert_eq!(state.selected, height);
    press_code(&mut state, KeyCode::PageUp);
    assert_eq!(state.selected, 0);
    press(&mut state, "G");
    state.update(Event::Resized(80, 40));
    assert_eq!(state.first, 0);
}

#[test]
fn rates_are_counted_by_the_clock_of_the_server() {
    let mut state = screen();
    assert_eq!(state.rates, [None; 7]);
    let second = later(page());
    poll(&mut state, second.clone());
    assert_eq!(state.rates, [Some(25_000); 7]);
    // The same moment tells nothing new.
    poll(&mut state, second.clone());
    assert_eq!(state.rates, [Some(25_000); 7]);
    let mut third = later(second);
    third.actors[0].started_at += 1;
    third.actors.remove(1);
    poll(&mut state, third);
    assert_eq!(state.rates[..2], [None, Some(25_000)]);
    // The server started again.
    let mut anew = page();
    anew.node.uptime_ms = 500;
    poll(&mut state, anew);
    assert_eq!(state.rates, [None; 7]);
}

#[test]
fn a_slow_server_is_asked_one_thing_at_a_time() {
    let mut state = screen();
    let ask = [Action::Poll(ActorList::default())];
    assert_eq!(state.update(Event::Ticked), ask);
    assert_eq!(state.update(Event::Ticked), []);
    // What is asked changes meanwhile: the answer to the old question is not shown.
    press(&mut state, "f");
    let old = Event::Polled(ActorList::default(), Ok(ActorPage { actors: Vec::new(), ..page() }));
    let query = ActorList { kind: Some("connection".to_owned()), under: None };
    assert_eq!(state.update(old), [Action::Poll(query)]);
    assert_eq!(state.rows.len(), 7);
}

#[test]
fn kinds_are_gone_through_and_then_all_are_back() {
    let mut state = screen();
    let mut seen = Vec::new();
    for _ in 0..6 {
        press_char(&mut state, 'f');
        seen.push(state.query.kind.clone().unwrap_or_default());
        let query = state.query.clone();
        state.update(Event::Polled(query, Ok(page())));
    }
    assert_eq!(seen, ["connection", "directory", "orchestrator", "project", "root", "session"]);
    press_char(&mut state, 'f');
    assert_eq!(state.query.kind, None);
}

#[test]
fn one_project_is_shown_alone_and_all_again() {
    let mut state = screen();
    assert_eq!(press_char(&mut state, 'o'), [Action::Poll(ActorList::default())]);
    poll(&mut state, page());
    press(&mut state, "jjjj");
    let query = ActorList { kind: None, under: Some(PROJECT.to_owned()) };
    assert_eq!(press_char(&mut state, 'o'), [Action::Poll(query)]);
    tell(&mut state, record(1, SupervisionKind::Started, SESSION));
    tell(&mut state, record(2, SupervisionKind::Started, "node/root"));
    assert_eq!(state.log.seen(state.query.under.as_deref(), 9).len(), 1);
    let query = state.query.clone();
    state.update(Event::Polled(query, Ok(page())));
    assert_eq!(press_char(&mut state, 'o'), [Action::Poll(ActorList::default())]);
}

#[test]
fn a_server_that_is_lost_is_asked_again_and_what_was_known_stays() {
    let mut state = screen();
    state.update(Event::Ticked);
    let lost = Event::Polled(ActorList::default(), Err("no connection".to_owned()));
    assert_eq!(state.update(lost), []);
    assert_eq!(state.lost.as_deref(), Some("no connection"));
    assert_eq!(state.rows.len(), 7);
    assert_eq!(state.update(Event::Ticked).len(), 1);
    poll(&mut state, page());
    assert_eq!(state.lost, None);
}

#[test]
fn a_pause_holds_rows_and_log_still() {
    let mut state = screen();
    tell(&mut state, record(1, SupervisionKind::Started, "node/root"));
    state.update(Event::Ticked);
    press(&mut state, "p");
    // Its answer was on the way.
    poll(&mut state, ActorPage { actors: Vec::new(), ..page() });
    tell(&mut state, record(2, SupervisionKind::Stopped, "node/root"));
    assert_eq!(state.rows.len(), 7);
    assert_eq!(state.log.seen(None, 9).len(), 1);
    assert_eq!(state.update(Event::Ticked), []);
    assert_eq!(press_char(&mut state, ' '), [Action::Poll(ActorList::default())]);
    assert_eq!(state.log.seen(None, 9).len(), 2);
}

#[test]
fn an_order_needs_a_yes() {
    let mut state = screen();
    for (key, command) in [('r', Command::Restart), ('x', Command::Stop)] {
        let path = "node/connection/con_1".to_owned();
        press(&mut state, &key.to_string());
        assert_eq!(state.prompt, Some(Prompt::Confirm(command, path.clone())));
        press(&mut state, "n");
        assert_eq!(state.prompt, None);
        press(&mut state, &key.to_string());
        assert_eq!(press_code(&mut state, KeyCode::Enter), []);
        press(&mut state, &key.to_string());
        // Others come and go; the order is about the one that was asked about.
        let mut without = page();
        without.actors.remove(0);
        poll(&mut state, without);
        assert_eq!(press_char(&mut state, 'y'), [Action::Order(command, path)]);
        poll(&mut state, page());
        press(&mut state, "g");
    }
}

#[test]
fn what_an_order_came_to_is_told_and_looked_at() {
    let mut state = screen();
    let outcome = Err("NOT_FOUND: actor not found".to_owned());
    let actions = state.update(Event::Ordered(Command::Stop, "node/a".to_owned(), outcome));
    assert_eq!(actions, [Action::Poll(ActorList::default())]);
    let notice = state.notice.clone().unwrap();
    assert_eq!(
        (notice.text.as_str(), notice.is_error),
        ("NOT_FOUND: actor not found: stop of node/a", true)
    );
    poll(&mut state, page());
    state.update(Event::Ordered(Command::Restart, "node/a".to_owned(), Ok(())));
    let notice = state.notice.clone().unwrap();
    assert_eq!((notice.text.as_str(), notice.is_error), ("restart of node/a: done", false));
    press(&mut state, "j");
    assert_eq!(state.notice, None);
}

#[test]
fn one_actor_is_shown_alone_and_kept_fresh() {
    let mut state = screen();
    let path = "node/connection/con_1".to_owned();
    let load = Action::Load(path.clone());
    assert_eq!(press_code(&mut state, KeyCode::Enter), std::slice::from_ref(&load));
    assert_eq!(state.update(Event::Ticked), [Action::Poll(ActorList::default()), load]);
    let answer = |count: usize| {
        let observed = Value::from(vec![0; count]);
        let actor = page().actors.remove(0);
        Ok(Box::new(ActorDetail { actor, observed, children: Vec::new(), log: Vec::new() }))
    };
    state.update(Event::Loaded("node/other".to_owned(), answer(0)));
    assert!(state.detail.as_ref().unwrap().answer.is_none());
    state.update(Event::Loaded(path.clone(), answer(40)));
    press(&mut state, "Gk");
    // 11 lines of figures and titles, 40 numbers, in 20 lines.
    assert_eq!(state.detail.as_ref().unwrap().scroll, 11 + 40 - 20 - 1);
    press(&mut state, "x");
    assert_eq!(press_char(&mut state, 'y'), [Action::Order(Command::Stop, path)]);
    press(&mut state, "q");
    assert!(state.detail.is_none());
}

#[test]
fn the_log_is_bounded_and_what_is_read_stays_in_its_place() {
    let mut state = screen();
    let count = RECORDS_MAX as u64;
    for id in 1..=count {
        tell(&mut state, record(id, SupervisionKind::Started, "node/root"));
    }
    assert_eq!(press_code(&mut state, KeyCode::Tab), []);
    press(&mut state, "kk");
    let newest = |state: &State| state.log.seen(None, 5).last().unwrap().id;
    assert_eq!(newest(&state), count - 2);
    tell(&mut state, panicked(count + 1));
    assert_eq!(newest(&state), count - 2);
    assert_eq!(state.log.wanted(None).count(), RECORDS_MAX);
    press(&mut state, "g");
    assert_eq!(state.log.seen(None, 5).first().unwrap().id, 2);
    press(&mut state, "G");
    assert_eq!(newest(&state), count + 1);
}

#[test]
fn how_the_log_comes_is_known() {
    let mut state = screen();
    let delay = std::time::Duration::ZERO;
    let reason = || "x".to_owned();
    for (update, feed) in [
        (Ok(SupervisionUpdate::Polling { reason: reason(), delay }), Feed::Polling),
        (Ok(SupervisionUpdate::Live), Feed::Live),
        (Ok(SupervisionUpdate::Reconnecting { reason: reason(), delay }), Feed::Lost),
        (Err(reason()), Feed::Ended),
    ] {
        state.update(Event::Followed(update));
        assert_eq!(state.log.feed, feed);
    }
    assert_eq!(state.notice.unwrap().text, "log: x");
}

#[test]
fn every_way_out_leads_out() {
    for code in [KeyCode::Char('q'), KeyCode::Esc] {
        assert_eq!(press_code(&mut screen(), code), [Action::Quit]);
    }
    let mut state = screen();
    press(&mut state, "?");
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.update(Event::Pressed(interrupt)), [Action::Quit]);
    assert_eq!(state.update(Event::Terminated), [Action::Quit]);
}
