//! The terminal, the timer and the server around the state: the one part of `iris top` that does
//! anything.

use std::io;
use std::thread;
use std::time::Duration;

use iris_client::{Client, ClientError, SupervisionFollowOptions, SupervisionFollower};
use iris_protocol::{ActorList, ActorPage, SupervisionList};
use ratatui::crossterm::event::{self, KeyEventKind};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::draw;
use super::log::RECORDS_MAX;
use super::state::{Command, State};
use super::update::{Action, Event};
use crate::remote::{RemoteError, explain};

/// Events that may wait to be taken.
const EVENTS_WAITING_MAX: usize = 256;
/// How long the thread that reads keys goes on after the screen has ended.
const KEY_PATIENCE: Duration = Duration::from_millis(200);

/// Puts the terminal back as it was, however the program ends. A panic does so before it is told.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the screen until the operator leaves.
pub(super) async fn run(
    client: &Client,
    query: ActorList,
    page: ActorPage,
    interval: Duration,
) -> Result<(), RemoteError> {
    let (events_tx, mut events) = mpsc::channel(EVENTS_WAITING_MAX);
    let _restored = Restored;
    let mut terminal = ratatui::try_init()?;
    let size = terminal.size()?;
    let mut state = State::new((size.width, size.height), query, page);
    let keys_tx = events_tx.clone();
    thread::spawn(move || read_keys(&keys_tx));
    tokio::spawn(tick(interval, events_tx.clone()));
    tokio::spawn(follow(client.clone(), events_tx.clone()));
    tokio::spawn(await_end(events_tx.clone()));
    let mut batch = Vec::with_capacity(EVENTS_WAITING_MAX);
    loop {
        terminal.draw(|frame| draw::draw(&state, frame))?;
        // Whatever came meanwhile becomes one picture.
        events.recv_many(&mut batch, EVENTS_WAITING_MAX).await;
        for event in batch.drain(..) {
            for action in state.update(event) {
                if action == Action::Quit {
                    return Ok(());
                }
                tokio::spawn(perform(client.clone(), action, events_tx.clone()));
            }
        }
    }
}

/// Carries out an action and tells what came of it.
async fn perform(client: Client, action: Action, events: mpsc::Sender<Event>) {
    let why = |error: ClientError| explain(&error);
    let event = match action {
        Action::Poll(query) => {
            let answer = client.actors(&query).await.map_err(why);
            Event::Polled(query, answer)
        }
        Action::Load(path) => {
            let answer = client.actor(&path).await.map(Box::new).map_err(why);
            Event::Loaded(path, answer)
        }
        Action::Order(command, path) => {
            let outcome = match command {
                Command::Restart => client.restart_actor(&path).await,
                Command::Stop => client.stop_actor(&path).await,
            };
            Event::Ordered(command, path, outcome.map(drop).map_err(why))
        }
        Action::Quit => return,
    };
    // Fails when the screen has ended, as all that follow.
    events.send(event).await.ok();
}

/// Keys and sizes, on a thread of their own: reading them blocks.
fn read_keys(events: &mpsc::Sender<Event>) {
    while !events.is_closed() {
        let event = match read_key() {
            Ok(None) => continue,
            Ok(Some(event)) => event,
            // The terminal is gone.
            Err(_) => Event::Terminated,
        };
        if events.blocking_send(event).is_err() {
            return;
        }
    }
}

fn read_key() -> io::Result<Option<Event>> {
    if !event::poll(KEY_PATIENCE)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        event::Event::Key(key) if key.kind != KeyEventKind::Release => Some(Event::Pressed(key)),
        event::Event::Resize(columns, lines) => Some(Event::Resized(columns, lines)),
        event::Event::Key(_)
        | event::Event::Mouse(_)
        | event::Event::Paste(_)
        | event::Event::FocusGained
        | event::Event::FocusLost => None,
    })
}

async fn tick(interval: Duration, events: mpsc::Sender<Event>) {
    let mut timer = tokio::time::interval(interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        if events.send(Event::Ticked).await.is_err() {
            return;
        }
    }
}

async fn follow(client: Client, events: mpsc::Sender<Event>) {
    let records = SupervisionList { limit: Some(RECORDS_MAX), ..SupervisionList::default() };
    let options = SupervisionFollowOptions { records, ..SupervisionFollowOptions::default() };
    let mut follower = SupervisionFollower::start(client, options);
    loop {
        let update = follower.next().await.map_err(|error| explain(&error));
        let is_end = update.is_err();
        if events.send(Event::Followed(update)).await.is_err() || is_end {
            return;
        }
    }
}

/// Tells when the system wants the program to end.
async fn await_end(events: mpsc::Sender<Event>) {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        terminate.recv().await;
        events.send(Event::Terminated).await.ok();
    }
    #[cfg(not(unix))]
    drop(events);
}
