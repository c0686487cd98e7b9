//! A chat in a terminal: keys and updates go in, lines come out.

use std::io;
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use iris_client::{Caller, ClientError, Follower};
use iris_protocol::{ErrorCode, Remember, Session, SessionId, ToolCallId, TypingStart, TypingStop};
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use tokio::sync::mpsc;

use super::command::{Command, HELP};
use super::editor::{Editor, Typed};
use super::hands::{self, Act, Done};
use super::paper::{Ink, Paper, Show};
use super::place::{Place, session_line};
use super::room::{Ask, Room, chosen, line, note};
use super::screen::{Below, Screen};
use super::style::Style;
use crate::remote::{RemoteError, explain};

/// Things to do that may wait.
const ACTS_MAX: usize = 64;
/// Keys that may wait.
const KEYS_MAX: usize = 1_024;
/// How long the thread that reads keys goes on after the chat has ended.
const KEY_PATIENCE: Duration = Duration::from_millis(200);
/// Between two signs that something is being typed.
const TYPING_EVERY: Duration = Duration::from_secs(3);

/// Where to go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// In another session of the project.
    Open(SessionId),
    /// In a new one.
    New,
    /// Nowhere.
    Leave,
}

/// What the terminal tells.
#[derive(Debug)]
pub(super) enum Input {
    Key(KeyEvent),
    Pasted(String),
    Resized,
    /// The terminal is gone, or the system wants the program to end.
    Gone,
}

/// What comes from the terminal, read on a thread of its own.
pub(super) fn inputs() -> mpsc::Receiver<Input> {
    let (inputs_tx, inputs) = mpsc::channel(KEYS_MAX);
    let from_keys = inputs_tx.clone();
    thread::spawn(move || {
        while !from_keys.is_closed() {
            let input = match read() {
                Ok(None) => continue,
                Ok(Some(input)) => input,
                Err(_) => Input::Gone,
            };
            let is_last = matches!(input, Input::Gone);
            if from_keys.blocking_send(input).is_err() || is_last {
                return;
            }
        }
    });
    #[cfg(unix)]
    for kind in
        [tokio::signal::unix::SignalKind::terminate(), tokio::signal::unix::SignalKind::hangup()]
    {
        let gone = inputs_tx.clone();
        tokio::spawn(async move {
            if let Ok(mut signal) = tokio::signal::unix::signal(kind)
                && signal.recv().await.is_some()
            {
                gone.send(Input::Gone).await.ok();
            }
        });
    }
    inputs
}

fn read() -> io::Result<Option<Input>> {
    if !event::poll(KEY_PATIENCE)? {
        return Ok(None);
    }
    Ok(match event::read()? {
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(Input::Key(key)),
        Event::Paste(text) => Some(Input::Pasted(text)),
        Event::Resize(..) => Some(Input::Resized),
        Event::Key(_) | Event::Mouse(_) | Event::FocusGained | Event::FocusLost => None,
    })
}

/// One session in the terminal.
pub(super) struct Talk<'a> {
    screen: &'a mut Screen,
    editor: &'a mut Editor,
    inputs: &'a mut mpsc::Receiver<Input>,
    room: Room,
    paper: Paper,
    session: SessionId,
    caller: Caller,
    acts: mpsc::Sender<Act>,
    done: mpsc::Receiver<Done>,
    /// Acts that are not done yet.
    waiting: usize,
    /// What `/open` counts in.
    listed: Vec<Session>,
    /// Ctrl-C was the key before.
    is_leaving: bool,
    /// When others were told last that something is typed.
    typing: Option<Instant>,
    /// The call that waited for an answer when the line was begun.
    begun: Option<ToolCallId>,
}

impl<'a> Talk<'a> {
    pub(super) fn new(
        follower: &Follower,
        place: &Place,
        room: Room,
        style: Style,
        (screen, editor, inputs): (&'a mut Screen, &'a mut Editor, &'a mut mpsc::Receiver<Input>),
    ) -> Self {
        let (acts, to_do) = mpsc::channel(ACTS_MAX);
        let (done_tx, done) = mpsc::channel(ACTS_MAX);
        let (caller, session) = (follower.caller(), place.session.clone());
        tokio::spawn(hands::work(caller.clone(), session.clone(), to_do, done_tx));
        Self {
            screen,
            editor,
            inputs,
            room,
            paper: Paper::new(style),
            session,
            caller,
            acts,
            done,
            waiting: 0,
            listed: Vec::new(),
            is_leaving: false,
            typing: None,
            begun: None,
        }
    }

    /// Talks until the user goes elsewhere. `first` is said at once.
    pub(super) async fn run(
        mut self,
        follower: &mut Follower,
        first: Option<String>,
    ) -> Result<Next, RemoteError> {
        if let Some(text) = first {
            self.act(Act::Send(text));
        }
        self.draw(&[])?;
        loop {
            let shows = tokio::select! {
                update = follower.next() => self.room.update(update?),
                done = self.done.recv() => done.map_or_else(Vec::new, |done| self.done(done)),
                input = self.inputs.recv() => match self.input(input.unwrap_or(Input::Gone)) {
                    ControlFlow::Continue(shows) => shows,
                    ControlFlow::Break(next) => {
                        let lines = self.paper.end();
                        self.draw_lines(&lines)?;
                        return Ok(next);
                    }
                },
            };
            self.draw(&shows)?;
        }
    }

    fn draw(&mut self, shows: &[Show]) -> io::Result<()> {
        let lines: Vec<String> = shows.iter().flat_map(|show| self.paper.put(show)).collect();
        self.draw_lines(&lines)
    }

    fn draw_lines(&mut self, lines: &[String]) -> io::Result<()> {
        let mut status = self.room.status();
        if self.waiting > 0 {
            let comma = if status.is_empty() { "" } else { " · " };
            status = format!("waits for the server{comma}{status}");
        }
        let prompt = match self.room.ask() {
            Some(Ask::Approval(_)) => "y/n> ",
            Some(Ask::Question(..)) => "answer> ",
            None => "> ",
        };
        let unfinished = self.paper.unfinished();
        self.screen.draw(lines, &Below { unfinished, status, prompt, editor: self.editor })
    }

    fn act(&mut self, act: Act) -> Vec<Show> {
        match self.acts.try_send(act) {
            Ok(()) => {
                self.waiting += 1;
                Vec::new()
            }
            Err(_) => vec![line(Ink::Failure, "[too much waits for the server already]")],
        }
    }

    fn done(&mut self, done: Done) -> Vec<Show> {
        self.waiting = self.waiting.saturating_sub(1);
        match done {
            Done::Sent { queued: true, .. } => vec![note("[it waits for its turn]")],
            Done::Sent { .. } | Done::Well => Vec::new(),
            Done::NothingToCancel => vec![note("[there is nothing to cancel]")],
            Done::Sessions(sessions) => {
                let lines = sessions.iter().enumerate();
                let shows = lines.map(|(n, session)| {
                    let here = if session.id == self.session { "*" } else { " " };
                    note(format!("{here}{:>3} {}", n + 1, session_line(session)))
                });
                let shows = shows.collect();
                self.listed = sessions;
                shows
            }
            Done::Session(mut snapshot) => {
                let (me, names) = self.room.people();
                let mut again = Room::new(self.session.clone(), me, names);
                // What is answered here is what this room says.
                snapshot.approvals.clear();
                snapshot.questions.clear();
                let mut shows = again.update(iris_client::Update::Reset(snapshot));
                shows.extend(self.room.ask_again());
                shows
            }
            Done::Failed(act, error) => self.failed(act, &error),
        }
    }

    fn failed(&mut self, act: Act, error: &ClientError) -> Vec<Show> {
        let mut shows = vec![line(Ink::Failure, format!("[{}]", explain(error)))];
        // Somebody else was first: an event says who.
        let is_over = matches!(error.code(), ErrorCode::Conflict | ErrorCode::NotFound);
        match act {
            Act::Send(text) => {
                if self.editor.text().is_empty() {
                    // It was no answer, and is none to what waits now.
                    self.begun = None;
                }
                self.editor.give_back(text);
            }
            Act::Approve(approval, _) | Act::Reject(approval, _) if !is_over => {
                self.room.return_ask(Ask::Approval(approval));
            }
            Act::Answer(question, mut answers) if !is_over => {
                if error.code() == ErrorCode::InvalidRequest {
                    // Any of them may be the one that is not taken.
                    answers.clear();
                } else {
                    // The last one sends them all again.
                    answers.pop();
                }
                self.room.return_ask(Ask::Question(question, answers));
            }
            Act::Refuse(question, _) if !is_over => {
                self.room.return_ask(Ask::Question(question, Vec::new()));
            }
            Act::Approve(..)
            | Act::Reject(..)
            | Act::Answer(..)
            | Act::Refuse(..)
            | Act::Cancel
            | Act::Retry(_)
            | Act::Rename(_)
            | Act::List
            | Act::Read => {}
        }
        shows.extend(self.room.next_ask());
        shows
    }

    fn input(&mut self, input: Input) -> ControlFlow<Next, Vec<Show>> {
        let was_leaving = std::mem::take(&mut self.is_leaving);
        match input {
            Input::Gone => ControlFlow::Break(Next::Leave),
            Input::Resized => ControlFlow::Continue(Vec::new()),
            Input::Pasted(text) => {
                self.begin();
                self.editor.paste(&text);
                self.tell_typing();
                ControlFlow::Continue(Vec::new())
            }
            Input::Key(key) => {
                self.begin();
                match self.editor.key(key) {
                    Typed::Edited => {
                        self.tell_typing();
                        ControlFlow::Continue(Vec::new())
                    }
                    Typed::Line(line) => {
                        self.typing = None;
                        self.line(&line)
                    }
                    Typed::End => ControlFlow::Break(Next::Leave),
                    Typed::Interrupt if was_leaving => ControlFlow::Break(Next::Leave),
                    Typed::Interrupt => ControlFlow::Continue(self.interrupt()),
                }
            }
        }
    }

    /// Remembers for what a line is that is begun now.
    fn begin(&mut self) {
        if self.editor.text().is_empty() {
            self.begun = self.room.ask().map(|ask| ask.call().clone());
        }
    }

    /// Ctrl-C: what is typed goes first, then the run; at once again it leaves.
    fn interrupt(&mut self) -> Vec<Show> {
        self.is_leaving = true;
        if !self.editor.text().is_empty() {
            self.editor.clear();
            self.tell_typing();
            return Vec::new();
        }
        let mut shows = if self.room.is_busy() { self.act(Act::Cancel) } else { Vec::new() };
        shows.push(note("[Ctrl-C again leaves]"));
        shows
    }

    /// Tells others that something is being typed, or is not any more.
    fn tell_typing(&mut self) {
        let (caller, session_id) = (self.caller.clone(), self.session.clone());
        let is_typing = !self.editor.text().is_empty() && !self.editor.text().starts_with('/');
        if !caller.is_connected() {
            return;
        }
        if !is_typing {
            if self.typing.take().is_some() {
                // Nothing is lost when it does not arrive: it ends by itself.
                tokio::spawn(async move { drop(caller.call(TypingStop { session_id }).await) });
            }
        } else if self.typing.is_none_or(|at| at.elapsed() >= TYPING_EVERY) {
            self.typing = Some(Instant::now());
            tokio::spawn(async move { drop(caller.call(TypingStart { session_id }).await) });
        }
    }

    fn line(&mut self, text: &str) -> ControlFlow<Next, Vec<Show>> {
        let command = Command::parse(text);
        let may_answer =
            matches!(command, Command::Approve(_) | Command::Deny(_) | Command::Say(_));
        if may_answer && self.begun.as_ref() != self.room.ask().map(Ask::call) {
            return ControlFlow::Continue(self.stray(text));
        }
        let shows = match command {
            Command::Nothing => Vec::new(),
            Command::Help => HELP.lines().map(note).collect(),
            Command::Sessions => self.act(Act::List),
            Command::Open(name) => match self.find(&name) {
                Ok(session) => return ControlFlow::Break(Next::Open(session)),
                Err(shows) => shows,
            },
            Command::New => return ControlFlow::Break(Next::New),
            Command::History => self.act(Act::Read),
            Command::Rename(title) => self.act(Act::Rename(title)),
            Command::Who => self.room.who(),
            Command::Cancel => self.act(Act::Cancel),
            Command::Retry => match self.room.last_turn().cloned() {
                Some(message) => self.act(Act::Retry(message)),
                None => vec![note("[nothing was said yet]")],
            },
            Command::Approve(remember) => self.approve(remember),
            Command::Deny(reason) => self.deny(reason),
            Command::Quit => return ControlFlow::Break(Next::Leave),
            Command::Say(text) => self.say(text),
            Command::Wrong(why) => vec![line(Ink::Failure, format!("[{why}]"))],
        };
        ControlFlow::Continue(shows)
    }

    /// What was begun when something else waited, or nothing, or is over meanwhile, answers nothing.
    fn stray(&mut self, text: &str) -> Vec<Show> {
        let text = text.trim();
        if text.starts_with('/') || Command::verdict(text).is_some() {
            // Not in the line again, where Enter pressed twice would send it.
            return vec![note("[not sent: what waits has changed; the arrow up brings it back]")];
        }
        self.editor.give_back(text.to_owned());
        self.begun = self.room.ask().map(|ask| ask.call().clone());
        vec![note("[not sent: what waits has changed; Enter sends it now]")]
    }

    /// The session that `/open` means.
    fn find(&self, name: &str) -> Result<SessionId, Vec<Show>> {
        if let Ok(session) = name.parse() {
            return Ok(session);
        }
        let n = name.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
        let session = n.and_then(|n| self.listed.get(n));
        session.map(|session| session.id.clone()).ok_or_else(|| {
            let text = format!("[there is no session `{name}`: `/sessions` lists them]");
            vec![line(Ink::Failure, text)]
        })
    }

    /// A text that is no command: it answers what waits, or is said.
    fn say(&mut self, text: String) -> Vec<Show> {
        match self.room.ask() {
            None => self.act(Act::Send(text)),
            Some(Ask::Approval(_)) => match Command::verdict(&text) {
                Some(Command::Approve(remember)) => self.approve(remember),
                Some(Command::Deny(reason)) => self.deny(reason),
                Some(_) | None => {
                    self.editor.give_back(text);
                    vec![note("[first say y, s, p, or n and why]")]
                }
            },
            Some(Ask::Question(..)) => self.answer(&text),
        }
    }

    fn approve(&mut self, remember: Remember) -> Vec<Show> {
        match self.room.take_ask() {
            Some(Ask::Approval(approval)) if approval.options.contains(&remember) => {
                self.settle(Act::Approve(approval, remember))
            }
            Some(ask @ Ask::Approval(_)) => {
                self.room.return_ask(ask);
                vec![note("[that is not among the answers]")]
            }
            Some(ask @ Ask::Question(..)) => {
                self.room.return_ask(ask);
                vec![note("[it wants to know something: write the answer]")]
            }
            None => vec![note("[nothing waits for an answer]")],
        }
    }

    fn deny(&mut self, reason: Option<String>) -> Vec<Show> {
        match self.room.take_ask() {
            Some(Ask::Approval(approval)) => self.settle(Act::Reject(approval, reason)),
            Some(Ask::Question(question, _)) => self.settle(Act::Refuse(question, reason)),
            None => vec![note("[nothing waits for an answer]")],
        }
    }

    /// Answers what waited longest, and shows what waits next.
    fn settle(&mut self, act: Act) -> Vec<Show> {
        let mut shows = self.act(act);
        shows.extend(self.room.next_ask());
        shows
    }

    fn answer(&mut self, text: &str) -> Vec<Show> {
        let Some(Ask::Question(question, mut answers)) = self.room.take_ask() else {
            return Vec::new();
        };
        answers.push(chosen(&question, answers.len(), text));
        if answers.len() == question.questions.len() {
            return self.settle(Act::Answer(question, answers));
        }
        let next = Ask::Question(question, answers);
        let shows = self.room.asking(&next);
        self.room.return_ask(next);
        shows
    }
}
