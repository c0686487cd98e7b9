//! `iris chat`: a session in the terminal, with streaming text, approvals, sub-agents and whoever else is
//! there; or one message in a pipe, with all that comes of it.

mod command;
mod editor;
mod hands;
mod markdown;
mod paper;
mod pipe;
mod place;
mod room;
mod screen;
mod style;
mod talk;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;

use iris_client::{Client, ClientError, FollowOptions, Follower};
use iris_protocol::{MemberList, ModelRef, SessionId, UserGet, UserId};

use self::editor::Editor;
use self::pipe::Pipe;
use self::place::{Place, session_line};
use self::room::Room;
use self::screen::Screen;
use self::style::{Style, clean};
use self::talk::{Next, Talk, inputs};
use crate::exit;
use crate::remote::{self, Lines, Remote, RemoteError, say};

/// Longest message that is read from standard input; a server takes less.
const INPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Attempts to come back that fail in a row before a chat without a terminal gives up.
const FAILURES_MAX: u32 = 20;

/// `iris chat`.
#[derive(Clone, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ChatOptions {
    #[command(flatten)]
    remote: Remote,
    /// The project, by its id or its name; the only one without it
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Go on in this session of the project; a new one without it
    #[arg(long, value_name = "SESSION", requires = "project", conflicts_with = "last")]
    session: Option<SessionId>,
    /// Go on where something happened last
    #[arg(long)]
    last: bool,
    /// List the sessions of the project, and end
    #[arg(long)]
    list: bool,
    /// The agent of a new session
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// The model of a new session
    #[arg(long, value_name = "PROVIDER/MODEL", value_parser = model)]
    model: Option<ModelRef>,
    /// Without a terminal: leave questions and approvals to others, in place of refusing them
    #[arg(long)]
    leave_questions: bool,
    /// Print every event as one line of JSON
    #[arg(long)]
    json: bool,
    /// Say this at once. Without it, and without a terminal, standard input is the message
    message: Option<String>,
    /// Any text: no colour, even on a terminal (<https://no-color.org>)
    #[arg(long, env = "NO_COLOR", hide = true)]
    no_color: Option<String>,
}

/// Runs the command until the user leaves, or all is said.
pub fn run(options: &ChatOptions) -> ExitCode {
    remote::block_on_code("chat", chat(options))
}

async fn chat(options: &ChatOptions) -> Result<u8, RemoteError> {
    let client = options.remote.client().await?;
    let outcome = chat_with(&client, options).await;
    options.remote.leave(&client).await;
    outcome
}

async fn chat_with(client: &Client, options: &ChatOptions) -> Result<u8, RemoteError> {
    let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal() && !options.json;
    if options.list {
        return list(client, options, is_terminal).await;
    }
    if is_terminal {
        let place = place::find(client, options, true).await?;
        return talk(client, options, place).await;
    }
    let text = match &options.message {
        Some(message) => message.clone(),
        None => read_message()?,
    };
    let place = place::find(client, options, false).await?;
    one_message(client, options, &place, &text).await
}

async fn list(client: &Client, options: &ChatOptions, may_ask: bool) -> Result<u8, RemoteError> {
    let project = place::project(client, options, may_ask).await?;
    let lines = Lines::new(options.json);
    for session in place::sessions(client, &project).await? {
        lines.put(&session_line(&session), &session)?;
    }
    Ok(exit::OK)
}

/// The message that standard input is.
fn read_message() -> Result<String, RemoteError> {
    let mut text = String::new();
    io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut text)?;
    let text = text.trim();
    if text.is_empty() {
        let wrong = "there is nothing to say: give a message, or write one to standard input";
        return Err(RemoteError::Usage(wrong.to_owned()));
    }
    Ok(text.to_owned())
}

async fn one_message(
    client: &Client,
    options: &ChatOptions,
    place: &Place,
    text: &str,
) -> Result<u8, RemoteError> {
    let follow = FollowOptions {
        // The end of each text holds all of it.
        deltas: !options.json,
        failures_max: FAILURES_MAX,
        ..FollowOptions::default()
    };
    let mut follower = follow_at(client, place, follow);
    let pipe = if options.json {
        Pipe::json(&follower, place)
    } else {
        let room = room(client, place).await?;
        Pipe::people(&follower, place, room, options.style())
    };
    let pipe = pipe.leaving_questions(options.leave_questions);
    Box::pin(pipe.run(&mut follower, place, text)).await
}

fn follow_at(client: &Client, place: &Place, options: FollowOptions) -> Follower {
    Follower::start(client.clone(), place.project.clone(), place.session.clone(), options)
}

/// What is known of a session before it is heard.
async fn room(client: &Client, place: &Place) -> Result<Room, ClientError> {
    let names: HashMap<UserId, String> =
        match client.call(Some(&place.project), MemberList {}).await {
            Ok(page) => page.members.into_iter().map(|it| (it.user_id, it.username)).collect(),
            // An API key may not read them: people are called by their ids.
            Err(ClientError::Api(_)) => HashMap::new(),
            Err(error) => return Err(error),
        };
    let me = client.call(None, UserGet {}).await?.user.id;
    Ok(Room::new(place.session.clone(), me, names))
}

/// Talks in the terminal, in one session after the other.
async fn talk(client: &Client, options: &ChatOptions, mut place: Place) -> Result<u8, RemoteError> {
    let style = options.style();
    let mut first = options.message.clone();
    let mut screen = Screen::open(style)?;
    let (mut editor, mut inputs) = (Editor::default(), inputs());
    loop {
        let follow = FollowOptions { presence: true, ..FollowOptions::default() };
        let mut follower = follow_at(client, &place, follow);
        let room = room(client, &place).await?;
        let terminal = (&mut screen, &mut editor, &mut inputs);
        let talk = Talk::new(&follower, &place, room, style, terminal);
        match Box::pin(talk.run(&mut follower, first.take())).await? {
            Next::Leave => break,
            Next::Open(session) => place.session = session,
            Next::New => place.session = place::begin(client, &place.project, options).await?,
        }
    }
    drop(screen);
    let Place { project, session } = place;
    say(
        "chat",
        &clean(&format!("to come back: iris chat --project {project} --session {session}")),
    );
    Ok(exit::OK)
}

impl ChatOptions {
    fn style(&self) -> Style {
        let no_color = self.no_color.as_ref().is_some_and(|value| !value.is_empty());
        Style { is_on: io::stdout().is_terminal() && !no_color }
    }
}

/// Reads `provider/model`.
fn model(text: &str) -> Result<ModelRef, String> {
    let named =
        text.split_once('/').filter(|(provider, model)| !provider.is_empty() && !model.is_empty());
    let (provider, model) = named.ok_or_else(|| format!("`{text}` is not `PROVIDER/MODEL`"))?;
    Ok(ModelRef { provider_id: provider.to_owned(), model_id: model.to_owned() })
}
