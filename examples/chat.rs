//! A chat in the terminal: history, streaming text, tool calls, approvals, reconnects.
//!
//! To run it against a server on this machine (`iris serve`):
//!
//! ```text
//! IRIS_PASSWORD=... cargo run --example chat -- --email you@example.com
//! echo "What is in README.md?" | IRIS_PASSWORD=... cargo run --example chat -- --email you@example.com
//! ```
//!
//! `/cancel` ends the run, `/history` shows the session again, `/quit` leaves. A tool that asks is
//! answered by `y`, or by `n` and a reason. In a pipe each line waits for the run of the line before
//! it, a line that follows a question answers it, and the chat ends with the last run.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, BufRead, IsTerminal, Write};
use std::ops::ControlFlow;

use anyhow::Context;
use clap::Parser;
use iris_client::{Client, ClientError, FollowOptions, Follower, Update};
use iris_protocol::{
    Approval, Content, Event, EventFrame, MemberList, Message, MessageRole, MessageSend, Part,
    PartId, ProjectCreate, ProjectId, ProjectType, RunCancel, RunId, RunStatus, SessionCreate,
    SessionGet, SessionId, SessionSnapshot, StreamKind, ToolApprove, ToolReject, UserId,
};
use tokio::sync::mpsc;

/// Characters of a tool's input or output that are shown.
const SHOWN_CHARS_MAX: usize = 200;
/// The reason of a rejection that nobody gave.
const NO_ANSWER: &str = "nobody answered: the input ended";

/// Chats with an agent of an Iris server.
#[derive(Parser)]
struct Args {
    /// Address of the server.
    #[arg(long, default_value = "http://127.0.0.1:4747")]
    url: String,
    /// Email of the account.
    #[arg(long)]
    email: String,
    /// Password of the account.
    #[arg(long, env = "IRIS_PASSWORD", hide_env_values = true)]
    password: String,
    /// Project of the chat; a new one when absent.
    #[arg(long)]
    project: Option<ProjectId>,
    /// Session of the chat, in the project; a new one when absent.
    #[arg(long, requires = "project")]
    session: Option<SessionId>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let client = Client::new(&args.url)?;
    let grant = client.login(&args.email, &args.password).await.context("login failed")?;
    let client = client.with_grant(&grant);
    let project = match args.project {
        Some(project) => project,
        None => create_project(&client).await?,
    };
    let session = match args.session {
        Some(session) => session,
        None => create_session(&client, &project).await?,
    };
    let members = client.call(Some(&project), MemberList {}).await?.members;
    let names = members.into_iter().map(|member| (member.user_id, member.username)).collect();
    let follower =
        Follower::start(client, project.clone(), session.clone(), FollowOptions::default());
    let screen = Screen { names, ..Screen::default() };
    let mut chat = Chat::new(follower, session.clone(), grant.user.id, screen);
    chat.run(lines()).await?;
    chat.screen.line(&format!("[to come back: --project {project} --session {session}]"))?;
    Ok(())
}

async fn create_project(client: &Client) -> Result<ProjectId, ClientError> {
    let name = "chat".to_owned();
    let request = ProjectCreate {
        name,
        description: None,
        r#type: ProjectType::default(),
        path: None,
        git: None,
    };
    Ok(client.call(None, request).await?.project.id)
}

async fn create_session(client: &Client, project: &ProjectId) -> Result<SessionId, ClientError> {
    let request = SessionCreate { title: None, agent: None, model: None, mode: None };
    Ok(client.call(Some(project), request).await?.session.id)
}

/// The lines of standard input, read on a thread of their own because reading them blocks.
fn lines() -> mpsc::Receiver<String> {
    let (lines_tx, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if lines_tx.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

struct Chat {
    follower: Follower,
    session: SessionId,
    me: UserId,
    screen: Screen,
    /// Whether a person types. A pipe waits for each run before it goes on.
    is_terminal: bool,
    is_connected: bool,
    /// Runs of lines that were sent and have not ended, each with the event that started it.
    runs: HashMap<RunId, u64>,
    /// Tool calls that wait for a person, oldest first.
    questions: VecDeque<Approval>,
}

impl Chat {
    fn new(follower: Follower, session: SessionId, me: UserId, screen: Screen) -> Self {
        let is_terminal = io::stdin().is_terminal();
        Self {
            follower,
            session,
            me,
            screen,
            is_terminal,
            is_connected: false,
            runs: HashMap::new(),
            questions: VecDeque::new(),
        }
    }

    async fn run(&mut self, mut lines: mpsc::Receiver<String>) -> anyhow::Result<()> {
        let mut input_ended = false;
        loop {
            let is_free = self.runs.is_empty() || !self.questions.is_empty();
            let wants_line = self.is_terminal || (self.is_connected && is_free);
            tokio::select! {
                // What has happened is shown before the next line is taken.
                biased;
                update = self.follower.next() => self.show(update?)?,
                line = lines.recv(), if wants_line && !input_ended => match line {
                    Some(line) => {
                        if self.take_line(line.trim()).await?.is_break() {
                            return Ok(());
                        }
                    }
                    None if self.is_terminal => return Ok(()),
                    None => input_ended = true,
                },
            }
            if input_ended {
                while let Some(question) = self.questions.pop_front() {
                    self.answer(question, Some(NO_ANSWER)).await?;
                }
                if self.runs.is_empty() {
                    return Ok(());
                }
            }
        }
    }

    async fn take_line(&mut self, line: &str) -> io::Result<ControlFlow<()>> {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "" => {}
            "/quit" => return Ok(ControlFlow::Break(())),
            "/cancel" => self.cancel().await?,
            "/history" => self.history().await?,
            _ if line.starts_with('/') => {
                self.screen.line("[commands: /cancel, /history, /quit]")?;
            }
            _ => match (self.questions.pop_front(), first) {
                (Some(question), "y" | "yes") => self.answer(question, None).await?,
                (Some(question), "n" | "no") => self.answer(question, Some(rest)).await?,
                (Some(question), _) => {
                    self.screen.ask(&question)?;
                    self.questions.push_front(question);
                }
                (None, _) => self.send(line).await?,
            },
        }
        Ok(ControlFlow::Continue(()))
    }

    async fn send(&mut self, text: &str) -> io::Result<()> {
        let content = Content::Text(text.to_owned());
        let request = MessageSend {
            session_id: self.session.clone(),
            content,
            when_busy: None,
            attachments: Vec::new(),
        };
        match self.follower.call(request).await {
            Ok(reply) => {
                self.runs.insert(reply.payload.run_id, reply.seq.unwrap_or(0));
                if reply.payload.queued { self.screen.line("[waits for its turn]") } else { Ok(()) }
            }
            Err(error) => self.screen.failure(&error),
        }
    }

    async fn cancel(&mut self) -> io::Result<()> {
        let request = RunCancel { session_id: self.session.clone() };
        match self.follower.call(request).await {
            Ok(reply) if reply.payload.cancelled => Ok(()),
            Ok(_) => self.screen.line("[nothing to cancel]"),
            Err(error) => self.screen.failure(&error),
        }
    }

    async fn history(&mut self) -> io::Result<()> {
        let session_id = self.session.clone();
        match self.follower.call(SessionGet { session_id, limit: None, before: None }).await {
            Ok(reply) => self.screen.history(&reply.payload),
            Err(error) => self.screen.failure(&error),
        }
    }

    /// Approves, or rejects with a reason.
    async fn answer(&mut self, question: Approval, rejection: Option<&str>) -> io::Result<()> {
        let (session_id, tool_call_id) = (question.session_id, question.tool_call_id);
        let outcome = match rejection {
            None => {
                let request = ToolApprove {
                    session_id,
                    tool_call_id,
                    remember: None,
                    input_hash: None,
                    input: None,
                };
                self.follower.call(request).await
            }
            Some(reason) => {
                let reason = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
                self.follower.call(ToolReject { session_id, tool_call_id, reason }).await
            }
        };
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => self.screen.failure(&error),
        }
    }

    fn show(&mut self, update: Update) -> io::Result<()> {
        match update {
            Update::Connected => {
                self.is_connected = true;
                self.screen.connected()
            }
            Update::Reset(snapshot) => {
                self.screen.history(&snapshot)?;
                let active = snapshot.runs.iter().filter(|run| is_active(run.status));
                let active: HashSet<&RunId> = active.map(|run| &run.id).collect();
                // A run that began after the snapshot is not in it.
                let as_of = snapshot.as_of.seq;
                self.runs.retain(|run, seq| *seq > as_of || active.contains(run));
                self.questions = snapshot.approvals.into();
                self.questions.iter().try_for_each(|question| self.screen.ask(question))
            }
            Update::Text { part_id, kind, offset, delta, .. } => {
                self.screen.text(&part_id, kind, offset, &delta)
            }
            Update::Event(frame) => self.show_event(*frame),
            Update::Presence(_) => Ok(()),
            Update::Reconnecting { reason, delay } => {
                self.is_connected = false;
                self.screen.reconnecting(&reason, delay)
            }
        }
    }

    fn show_event(&mut self, frame: EventFrame) -> io::Result<()> {
        let by = frame.meta.by;
        if let Event::ToolApprovalResolved { tool_call_id, state, .. } = &frame.event {
            self.questions.retain(|question| question.tool_call_id != *tool_call_id);
            let who = by.as_ref().map_or("the server", |by| self.screen.name(by)).to_owned();
            return self.screen.line(&format!("  {state:?} by {who}").to_lowercase());
        }
        if let Event::ToolApprovalRequired { approval: Some(question), .. } = frame.event {
            self.screen.ask(&question)?;
            self.questions.push_back(*question);
            return Ok(());
        }
        if let Event::RunCompleted { run_id, status, error, .. } = frame.event {
            self.runs.remove(&run_id);
            if status == RunStatus::Completed {
                return self.screen.line("");
            }
            let reason = error.map(|error| format!(": {}", error.message)).unwrap_or_default();
            return self.screen.line(&format!("[{status:?}{reason}]").to_lowercase());
        }
        if let Event::MessageCreated { message, .. } = &frame.event {
            let is_mine = message.created_by.as_ref() == Some(&self.me);
            // What was typed here stands on the terminal already.
            return if is_mine && self.is_terminal { Ok(()) } else { self.screen.message(message) };
        }
        self.screen.tool_event(&frame.event)
    }
}

fn is_active(status: RunStatus) -> bool {
    match status {
        RunStatus::Queued | RunStatus::Running | RunStatus::Waiting => true,
        RunStatus::Completed
        | RunStatus::Failed
        | RunStatus::Cancelled
        | RunStatus::Interrupted => false,
    }
}

/// Standard output, where at most one part is being written.
#[derive(Default)]
struct Screen {
    /// Names of the project's members.
    names: HashMap<UserId, String>,
    /// The part at the end of the output, and how many bytes of it are there.
    open: Option<(PartId, u64)>,
    is_reconnecting: bool,
}

impl Screen {
    fn name<'a>(&'a self, user: &'a UserId) -> &'a str {
        self.names.get(user).map_or(user.as_str(), String::as_str)
    }

    /// Writes a line of its own.
    fn line(&mut self, text: &str) -> io::Result<()> {
        let end = if self.open.take().is_some() { "\n" } else { "" };
        writeln!(io::stdout(), "{end}{text}")
    }

    fn failure(&mut self, error: &ClientError) -> io::Result<()> {
        self.line(&format!("[{error}]"))
    }

    /// Continues a part at `offset`, or begins it on a new line.
    fn text(
        &mut self,
        part: &PartId,
        kind: StreamKind,
        offset: u64,
        delta: &str,
    ) -> io::Result<()> {
        let continues = self.open.as_ref() == Some(&(part.clone(), offset));
        if !continues {
            let speaker = match kind {
                StreamKind::Text => "agent",
                StreamKind::Reasoning => "thought",
            };
            let ellipsis = if offset > 0 { ".." } else { "" };
            let end = if self.open.is_some() { "\n" } else { "" };
            write!(io::stdout(), "{end}{speaker}: {ellipsis}")?;
        }
        self.open = Some((part.clone(), offset + delta.len() as u64));
        write!(io::stdout(), "{delta}")?;
        io::stdout().flush()
    }

    fn history(&mut self, snapshot: &SessionSnapshot) -> io::Result<()> {
        self.line(&format!("[{}]", snapshot.session.title))?;
        snapshot.messages.iter().try_for_each(|message| self.message(message))
    }

    fn message(&mut self, message: &Message) -> io::Result<()> {
        for part in &message.parts {
            match part {
                Part::Text { id, text, .. } => match (message.role, &message.created_by) {
                    (MessageRole::User, Some(user)) => {
                        let line = format!("{}: {text}", self.name(user));
                        self.line(&line)?;
                    }
                    (MessageRole::System, _) => self.line(text)?,
                    (MessageRole::User | MessageRole::Assistant, _) => {
                        self.text(id, StreamKind::Text, 0, text)?;
                    }
                },
                Part::Reasoning { id, text, .. } => {
                    self.text(id, StreamKind::Reasoning, 0, text)?;
                }
                Part::Tool(tool) => {
                    self.line(&format!("  {} {}", tool.tool_name, short(&tool.input.to_string())))?;
                    if let Some(result) = tool.output.as_ref().or(tool.error.as_ref()) {
                        self.line(&format!("  = {}", short(result)))?;
                    }
                }
                Part::Subtask(_)
                | Part::Compaction(_)
                | Part::AnswerFormat(_)
                | Part::Attachment(_)
                | Part::Step { .. } => {}
            }
        }
        Ok(())
    }

    fn tool_event(&mut self, event: &Event) -> io::Result<()> {
        if let Event::MessageToolCall { tool_name, input, .. } = event {
            return self.line(&format!("  {tool_name} {}", short(&input.to_string())));
        }
        if let Event::MessageToolResult { output, .. } = event {
            return self.line(&format!("  = {}", short(output)));
        }
        if let Event::MessageToolError { error, .. } = event {
            return self.line(&format!("  ! {}", short(error)));
        }
        Ok(())
    }

    fn ask(&mut self, question: &Approval) -> io::Result<()> {
        self.line(&format!("  ? {} [y, or n and why]", question.message))
    }

    fn reconnecting(&mut self, reason: &str, delay: std::time::Duration) -> io::Result<()> {
        self.is_reconnecting = true;
        self.line(&format!("[{reason}; again in {} ms]", delay.as_millis()))
    }

    fn connected(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.is_reconnecting) { self.line("[connected]") } else { Ok(()) }
    }
}

/// The first line, cut where it is too long to be read.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    let short: String = line.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < text.len() { short + " .." } else { short }
}
