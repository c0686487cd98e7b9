//! What a chat knows of its session, and what of it is to be shown. Pure: no terminal, no socket.

use std::collections::{HashMap, HashSet, VecDeque};

use iris_client::Update;
use iris_protocol::{
    Approval, ApprovalState, Event, EventFrame, Message, MessageId, MessageRole, MessageState,
    Part, PartId, Presence, PresenceStatus, Question, QuestionState, Remember, RunId, RunStatus,
    SessionId, SessionSnapshot, SessionState, StreamKind, SubtaskPart, SubtaskState, Todo,
    TodoStatus, ToolCallId, ToolPart, ToolState, UserId,
};
use serde_json::Value;

use super::paper::{Ink, Show};

/// Characters of a tool's arguments, or of a line of its output, that are shown.
const SHOWN_CHARS_MAX: usize = 160;
/// Lines of a tool's output that are shown.
const TOOL_LINES_MAX: usize = 4;
/// Lines of a sub-agent's result that are shown.
const RESULT_LINES_MAX: usize = 20;
/// Bytes of what is to be approved that are shown: an answer is for all of it.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Before what belongs to a sub-agent.
const BELOW: &str = "    ";

/// What waits for somebody.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ask {
    /// A tool call.
    Approval(Box<Approval>),
    /// What an agent wants to know, and the answers so far.
    Question(Box<Question>, Vec<Vec<String>>),
}

impl Ask {
    pub(super) fn call(&self) -> &ToolCallId {
        match self {
            Self::Approval(approval) => &approval.tool_call_id,
            Self::Question(question, _) => &question.tool_call_id,
        }
    }

    /// The run that waits, and the session of the sub-agent whose run it is.
    pub(super) fn by(&self) -> (&RunId, Option<&SessionId>) {
        match self {
            Self::Approval(approval) => (&approval.run_id, approval.child_session_id.as_ref()),
            Self::Question(question, _) => (&question.run_id, question.child_session_id.as_ref()),
        }
    }

    fn created_at(&self) -> i64 {
        match self {
            Self::Approval(approval) => approval.created_at,
            Self::Question(question, _) => question.created_at,
        }
    }
}

/// One session, as it is known here.
#[derive(Debug)]
pub(super) struct Room {
    session: SessionId,
    me: UserId,
    names: HashMap<UserId, String>,
    title: String,
    agent: String,
    state: SessionState,
    /// Oldest first.
    asks: VecDeque<Ask>,
    /// The one that was shown last: what is typed answers it.
    asked: Option<ToolCallId>,
    /// How many others were said to wait behind it.
    more: usize,
    /// Whether each of them is shown when it comes: nobody answers them here.
    shows_all: bool,
    /// Runs that have not ended.
    runs: Vec<RunId>,
    present: Vec<Presence>,
    typing: Vec<UserId>,
    /// Bytes of each text that were shown.
    texts: HashMap<PartId, u64>,
    /// What else was shown, so that reading it again shows it once.
    shown: HashSet<String>,
    /// Names of the agents of messages that are being answered.
    speakers: HashMap<MessageId, String>,
    /// Sub-agents by the call that set them to work.
    tasks: HashMap<ToolCallId, SubtaskPart>,
    /// The last message of a user, or its answer.
    last: Option<MessageId>,
    is_known: bool,
    outage: Option<String>,
}

impl Room {
    pub(super) fn new(session: SessionId, me: UserId, names: HashMap<UserId, String>) -> Self {
        Self {
            session,
            me,
            names,
            title: String::new(),
            agent: "agent".to_owned(),
            state: SessionState::Idle,
            asks: VecDeque::new(),
            asked: None,
            more: 0,
            shows_all: false,
            runs: Vec::new(),
            present: Vec::new(),
            typing: Vec::new(),
            texts: HashMap::new(),
            shown: HashSet::new(),
            speakers: HashMap::new(),
            tasks: HashMap::new(),
            last: None,
            is_known: false,
            outage: None,
        }
    }

    /// The same where nobody answers: whatever asks is shown at once.
    pub(super) fn showing_all(self) -> Self {
        Self { shows_all: true, ..self }
    }

    /// Who reads, and what others are called.
    pub(super) fn people(&self) -> (UserId, HashMap<UserId, String>) {
        (self.me.clone(), self.names.clone())
    }

    /// Whether something is being done that can be cancelled.
    pub(super) fn is_busy(&self) -> bool {
        !self.runs.is_empty()
    }

    /// What waits longest for somebody.
    pub(super) fn ask(&self) -> Option<&Ask> {
        self.asks.front()
    }

    /// Takes it: it is being answered.
    pub(super) fn take_ask(&mut self) -> Option<Ask> {
        self.asks.pop_front()
    }

    /// Gives it back: it was not answered.
    pub(super) fn return_ask(&mut self, ask: Ask) {
        // A snapshot may have told of it again meanwhile.
        self.asks.retain(|other| other.call() != ask.call());
        self.asks.push_front(ask);
    }

    /// What is to be answered next, unless it was shown last, and how many others wait.
    pub(super) fn next_ask(&mut self) -> Vec<Show> {
        if self.shows_all {
            return self.new_asks();
        }
        let front = self.asks.front();
        let call = front.map(|ask| ask.call().clone());
        let is_other = call != self.asked;
        let mut shows = front.filter(|_| is_other).map_or_else(Vec::new, |ask| self.asking(ask));
        let more = self.asks.len().saturating_sub(1);
        if more > 0 && (is_other || more > self.more) {
            shows.push(note(format!("[{more} more to answer after this]")));
        }
        (self.asked, self.more) = (call, more);
        shows
    }

    /// The same, also when it was shown last.
    pub(super) fn ask_again(&mut self) -> Vec<Show> {
        self.asked = None;
        self.next_ask()
    }

    fn new_asks(&mut self) -> Vec<Show> {
        let asks = self.asks.iter();
        let asks = asks.filter(|ask| self.shown.insert(format!("ask {}", ask.call())));
        let asks: Vec<Ask> = asks.cloned().collect();
        asks.iter().flat_map(|ask| self.asking(ask)).collect()
    }

    /// The turn that another answer can be asked for.
    pub(super) fn last_turn(&self) -> Option<&MessageId> {
        self.last.as_ref()
    }

    pub(super) fn name<'a>(&'a self, user: &'a UserId) -> &'a str {
        let present = self.present.iter().find(|other| other.user_id == *user);
        let known = self.names.get(user).or(present.map(|other| &other.username));
        known.map_or(user.as_str(), String::as_str)
    }

    /// One line about what goes on; empty when that is nothing.
    pub(super) fn status(&self) -> String {
        let mut words = Vec::new();
        if let Some(outage) = &self.outage {
            words.push(format!("disconnected: {outage}"));
        }
        match self.state {
            SessionState::Idle | SessionState::Interrupted => {}
            SessionState::Queued => words.push("queued".to_owned()),
            SessionState::Running => words.push("working (Ctrl-C cancels)".to_owned()),
            SessionState::Waiting => words.push("waits for an answer".to_owned()),
            SessionState::Retrying => words.push("tries the model again".to_owned()),
        }
        let writing: Vec<&str> = self.others(self.typing.iter());
        if !writing.is_empty() {
            words.push(format!("{} writing", joined(&writing)));
        }
        let here = self.viewers();
        if !here.is_empty() {
            words.push(format!("{} here", here.join(", ")));
        }
        words.join(" · ")
    }

    fn others<'a>(&'a self, users: impl Iterator<Item = &'a UserId>) -> Vec<&'a str> {
        users.filter(|user| **user != self.me).map(|user| self.name(user)).collect()
    }

    /// Who else looks at the session, and how.
    fn viewers(&self) -> Vec<String> {
        let is_here = |other: &&Presence| {
            other.user_id != self.me && other.session_id.as_ref() == Some(&self.session)
        };
        let said = |other: &Presence| match other.status {
            PresenceStatus::Online => other.username.clone(),
            PresenceStatus::Away => format!("{} (away)", other.username),
            PresenceStatus::Busy => format!("{} (busy)", other.username),
        };
        self.present.iter().filter(is_here).map(said).collect()
    }

    /// Who is in the project, one line for each.
    pub(super) fn who(&self) -> Vec<Show> {
        let line = |other: &Presence| {
            let place = match &other.session_id {
                Some(session) if *session == self.session => "here",
                Some(_) => "in another session",
                None => "in the project",
            };
            note(format!("{} {place}", other.username))
        };
        self.present.iter().map(line).collect()
    }

    /// Takes an update. Answers what of it is to be shown.
    pub(super) fn update(&mut self, update: Update) -> Vec<Show> {
        match update {
            Update::Connected => {
                self.outage.take().map(|_| note("[connected again]")).into_iter().collect()
            }
            Update::Reconnecting { reason, delay } => {
                let is_new = self.outage.is_none();
                self.outage = Some(format!("again in {} ms", delay.as_millis()));
                // Once for each time that it is lost.
                let told =
                    is_new.then(|| note(format!("[{reason}; trying again, nothing is lost]")));
                told.into_iter().collect()
            }
            Update::Presence(present) => {
                self.present = present;
                Vec::new()
            }
            Update::Reset(snapshot) => self.reset(*snapshot),
            Update::Text { message_id, part_id, kind, offset, delta } => {
                vec![self.text(&message_id, part_id, kind, offset, delta)]
            }
            Update::Event(frame) => self.event(*frame),
        }
    }

    /// All that is there, of which only what is new is shown.
    fn reset(&mut self, snapshot: SessionSnapshot) -> Vec<Show> {
        let mut shows = Vec::new();
        let session = snapshot.session;
        if !self.is_known && snapshot.next_cursor.is_some() {
            shows.push(note("[earlier messages are left out]"));
        }
        self.is_known = true;
        (self.title, self.agent, self.state) = (session.title, session.agent, session.state);
        let open = snapshot.runs.iter().filter(|run| is_open(run.status));
        self.runs = open.map(|run| run.id.clone()).collect();
        for message in &snapshot.messages {
            shows.extend(self.message(message));
        }
        // What was answered of a question stays answered.
        let begun = self.asks.drain(..).filter_map(|ask| match ask {
            Ask::Question(question, answers) => Some((question.tool_call_id, answers)),
            Ask::Approval(_) => None,
        });
        let mut begun: HashMap<ToolCallId, Vec<Vec<String>>> = begun.collect();
        let approvals = snapshot.approvals.into_iter().map(|it| Ask::Approval(Box::new(it)));
        let questions = snapshot.questions.into_iter().map(|it| {
            let answers = begun.remove(&it.tool_call_id).unwrap_or_default();
            Ask::Question(Box::new(it), answers)
        });
        self.asks.extend(approvals.chain(questions));
        self.asks.make_contiguous().sort_by_key(Ask::created_at);
        shows.extend(self.next_ask());
        shows
    }

    /// A message as it is stored, without what of it was shown.
    fn message(&mut self, message: &Message) -> Vec<Show> {
        if message.state == MessageState::Superseded {
            return Vec::new();
        }
        if message.role != MessageRole::System {
            self.last = Some(message.id.clone());
        }
        if let Some(agent) = &message.agent {
            self.speakers.insert(message.id.clone(), agent.clone());
        }
        let mut shows = Vec::new();
        for part in &message.parts {
            match part {
                Part::Text { id, text, .. } => match (message.role, &message.created_by) {
                    (MessageRole::Assistant, _) => {
                        shows.extend(self.rest(message, id, StreamKind::Text, text));
                    }
                    (MessageRole::User, Some(user)) if self.is_new(id.as_str()) => {
                        shows.push(line(Ink::Name, format!("{}:", self.name(user))));
                        shows.push(line(Ink::Plain, text.clone()));
                    }
                    (MessageRole::System | MessageRole::User, _) if self.is_new(id.as_str()) => {
                        shows.push(note(short_lines(text, RESULT_LINES_MAX, "")));
                    }
                    (MessageRole::System | MessageRole::User, _) => {}
                },
                Part::Reasoning { id, text, .. } => {
                    shows.extend(self.rest(message, id, StreamKind::Reasoning, text));
                }
                Part::Tool(tool) => shows.extend(self.tool(tool)),
                Part::Subtask(part) => shows.extend(self.subtask(part)),
                Part::Attachment(part) if self.is_new(part.id.as_str()) => {
                    shows.push(note(format!("[with {}]", part.name)));
                }
                Part::Compaction(part) if self.is_new(part.id.as_str()) => {
                    shows.push(note("[a summary stands for what came before]"));
                }
                Part::Attachment(_)
                | Part::Compaction(_)
                | Part::AnswerFormat(_)
                | Part::Step { .. } => {}
            }
        }
        shows
    }

    /// What of a text was not shown yet.
    fn rest(
        &mut self,
        message: &Message,
        part: &PartId,
        kind: StreamKind,
        text: &str,
    ) -> Option<Show> {
        let shown = self.texts.get(part).copied().unwrap_or_default();
        let from = usize::try_from(shown).unwrap_or(usize::MAX);
        let rest = text.get(from..)?;
        // What the provider hides is an empty text.
        let is_new = !rest.is_empty();
        is_new.then(|| self.text(&message.id, part.clone(), kind, shown, rest.to_owned()))
    }

    fn text(
        &mut self,
        message: &MessageId,
        part: PartId,
        kind: StreamKind,
        offset: u64,
        delta: String,
    ) -> Show {
        self.texts.insert(part.clone(), offset + delta.len() as u64);
        let speaker = self.speakers.get(message).unwrap_or(&self.agent).clone();
        Show::Text { speaker, part, kind, offset, delta }
    }

    /// Whether something is to be shown for the first time.
    fn is_new(&mut self, what: &str) -> bool {
        self.shown.insert(what.to_owned())
    }

    fn tool(&mut self, tool: &ToolPart) -> Vec<Show> {
        let mut shows = self.call(&tool.tool_call_id, &tool.tool_name, &tool.input);
        if let Some(output) = &tool.output {
            shows.extend(self.result(&tool.tool_call_id, output));
        } else if tool.state.is_final() {
            let error = tool.error.as_deref().unwrap_or_default();
            shows.extend(self.failure(&tool.tool_call_id, tool.state, error));
        }
        shows
    }

    fn call(&mut self, call: &ToolCallId, name: &str, input: &Value) -> Vec<Show> {
        if !self.is_new(&format!("call {call}")) {
            return Vec::new();
        }
        vec![line(Ink::Tool, format!("* {name} {}", short(&input.to_string())))]
    }

    /// What a tool answered; of a sub-agent, what it found.
    fn result(&mut self, call: &ToolCallId, output: &str) -> Vec<Show> {
        if !self.is_new(&format!("result {call}")) {
            return Vec::new();
        }
        if let Some(task) = self.tasks.get(call) {
            let text = short_lines(output, RESULT_LINES_MAX, BELOW);
            return vec![line(Ink::Tool, format!("{BELOW}{} answers:", task.agent)), note(text)];
        }
        let text = short_lines(output, TOOL_LINES_MAX, "  | ");
        if text.is_empty() { Vec::new() } else { vec![note(text)] }
    }

    fn failure(&mut self, call: &ToolCallId, state: ToolState, error: &str) -> Vec<Show> {
        if !self.is_new(&format!("result {call}")) {
            return Vec::new();
        }
        let how = match state {
            ToolState::Denied => "denied",
            ToolState::Cancelled => "cancelled",
            ToolState::UnknownOutcome => "cut off, perhaps done",
            ToolState::Pending
            | ToolState::Waiting
            | ToolState::Running
            | ToolState::Completed
            | ToolState::Error => "failed",
        };
        vec![line(Ink::Failure, format!("  ! {how}: {}", short(error)))]
    }

    fn subtask(&mut self, part: &SubtaskPart) -> Vec<Show> {
        let state = match part.state {
            SubtaskState::Running => "at work",
            SubtaskState::Completed => "done",
            SubtaskState::Error => "failed",
            SubtaskState::Cancelled => "cancelled",
            SubtaskState::Interrupted => "cut off",
        };
        self.tasks.insert(part.tool_call_id.clone(), part.clone());
        if !self.is_new(&format!("{} {state}", part.id)) {
            return Vec::new();
        }
        let aside = if part.background { ", in the background" } else { "" };
        let text =
            format!("{BELOW}> {} ({state}{aside}): {}", part.agent, short(&part.description));
        vec![line(Ink::Tool, text)]
    }

    #[expect(clippy::too_many_lines, reason = "a line or two for each event that is shown")]
    #[expect(clippy::wildcard_enum_match_arm, reason = "most events are nothing to show in a chat")]
    fn event(&mut self, frame: EventFrame) -> Vec<Show> {
        let by = frame.meta.by;
        match frame.event {
            Event::MessageCreated { message, .. } => self.message(&message),
            Event::MessageTextComplete { .. } | Event::MessageReasoningComplete { .. } => {
                vec![Show::End]
            }
            Event::MessageRemoved { message_id, .. } => {
                if self.last.as_ref() == Some(&message_id) {
                    self.last = None;
                }
                vec![note("[a message that waited was taken back]")]
            }
            Event::MessageToolCall { tool_call_id, tool_name, input, .. } => {
                self.call(&tool_call_id, &tool_name, &input)
            }
            Event::MessageToolResult { tool_call_id, output, .. } => {
                self.result(&tool_call_id, &output)
            }
            Event::MessageToolError { tool_call_id, state, error, .. } => {
                self.failure(&tool_call_id, state, &error)
            }
            Event::MessageSubtaskUpdated { part, .. } => self.subtask(&part),
            Event::ToolApprovalRequired { approval: Some(approval), .. } => {
                self.wait_for(Ask::Approval(approval))
            }
            Event::ToolApprovalResolved {
                tool_call_id,
                state,
                by: decided,
                reason,
                remember,
                ..
            } => {
                self.asks.retain(|ask| *ask.call() != tool_call_id);
                let who =
                    decided.or(by).map_or("the server".to_owned(), |by| self.name(&by).to_owned());
                let mut shows = vec![note(decision(state, &who, reason.as_deref(), remember))];
                shows.extend(self.next_ask());
                shows
            }
            Event::QuestionAsked { question: Some(question), .. } => {
                self.wait_for(Ask::Question(question, Vec::new()))
            }
            Event::QuestionResolved {
                tool_call_id, state, by: decided, answers, reason, ..
            } => {
                self.asks.retain(|ask| *ask.call() != tool_call_id);
                let who =
                    decided.or(by).map_or("the server".to_owned(), |by| self.name(&by).to_owned());
                let how = match state {
                    QuestionState::Answered => "answered",
                    QuestionState::Rejected => "not to be answered, said",
                    QuestionState::Expired => "not answered in time, said",
                    QuestionState::Pending | QuestionState::Cancelled => {
                        "not answered any more, said"
                    }
                };
                let texts = answers.into_iter().flatten().flatten().chain(reason);
                let texts: Vec<String> = texts.collect();
                let mut shows = vec![note(format!("[{how} {who}: {}]", texts.join(", ")))];
                shows.extend(self.next_ask());
                shows
            }
            Event::TodoUpdated { todos, .. } => todos.iter().map(todo).collect(),
            Event::RunStarted { run } => {
                if !self.runs.contains(&run.id) {
                    self.runs.push(run.id);
                }
                Vec::new()
            }
            Event::RunCompleted { run_id, status, error, .. } => {
                self.runs.retain(|run| *run != run_id);
                let error = error.map(|error| format!(": {}", error.message)).unwrap_or_default();
                match status {
                    RunStatus::Completed => Vec::new(),
                    RunStatus::Cancelled => vec![note("[cancelled]")],
                    RunStatus::Interrupted => {
                        vec![note("[the server was cut off; `/retry` asks for another answer]")]
                    }
                    RunStatus::Failed
                    | RunStatus::Queued
                    | RunStatus::Running
                    | RunStatus::Waiting => {
                        vec![line(Ink::Failure, format!("[failed{error}]"))]
                    }
                }
            }
            Event::SessionStatus { state, message, .. } => {
                self.state = state;
                message.map(|message| note(format!("[{message}]"))).into_iter().collect()
            }
            Event::SessionUpdated { session } => {
                let is_renamed = session.title != self.title;
                (self.title, self.agent) = (session.title, session.agent);
                let told = is_renamed.then(|| note(format!("[this is \"{}\" now]", self.title)));
                told.into_iter().collect()
            }
            Event::SessionArchived { .. } => vec![note("[the session was archived]")],
            Event::SessionDeleted { .. } => vec![note("[the session was deleted]")],
            Event::SessionReverted { message_count, .. } => {
                vec![note(format!("[{message_count} messages were undone]"))]
            }
            Event::SessionCompacted { part, .. } if self.is_new(part.id.as_str()) => {
                vec![note("[a summary stands for what came before]")]
            }
            Event::BudgetExceeded { message, .. } => {
                vec![line(Ink::Failure, format!("[{message}]"))]
            }
            Event::TypingUpdated { user_ids, .. } => {
                self.typing = user_ids;
                Vec::new()
            }
            Event::MemberAdded { member } => {
                self.names.insert(member.user_id, member.username);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn wait_for(&mut self, ask: Ask) -> Vec<Show> {
        self.asks.push_back(ask);
        self.next_ask()
    }

    /// What somebody has to know to answer.
    pub(super) fn asking(&self, ask: &Ask) -> Vec<Show> {
        match ask {
            Ask::Approval(approval) => self.asking_approval(approval),
            Ask::Question(question, answers) => self.asking_question(question, answers.len()),
        }
    }

    fn below(&self, child: Option<&SessionId>) -> (&str, String) {
        let Some(child) = child else { return ("", String::new()) };
        let task = self.tasks.values().find(|task| task.child_session_id == *child);
        (BELOW, format!("{}: ", task.map_or("a sub-agent", |task| task.agent.as_str())))
    }

    fn asking_approval(&self, approval: &Approval) -> Vec<Show> {
        let (indent, who) = self.below(approval.child_session_id.as_ref());
        let input = serde_json::to_string_pretty(&approval.input).unwrap_or_default();
        let (input, hidden) = input.split_at(input.floor_char_boundary(INPUT_BYTES_MAX));
        let input: Vec<String> = input.lines().map(|line| format!("{indent}  {line}")).collect();
        let keys = approval.options.iter().map(|option| match option {
            Remember::Once => "y once",
            Remember::Session => "s for this session",
            Remember::Project => "p for the project",
        });
        let keys: Vec<&str> = keys.chain(["n and why"]).collect();
        let mut shows = vec![
            line(Ink::Question, format!("{indent}? {who}{}", approval.message)),
            line(Ink::Plain, input.join("\n")),
        ];
        shows.extend(approval.accesses.iter().map(|access| {
            note(format!("{indent}  {} {}: {}", access.permission, access.target, access.reason))
        }));
        if !hidden.is_empty() {
            let text = format!(
                "{indent}  [the last {} bytes of it are NOT shown, and an answer is for all of it]",
                hidden.len()
            );
            shows.push(line(Ink::Failure, text));
        }
        shows.push(line(Ink::Question, format!("{indent}  [{}]", keys.join(", "))));
        shows
    }

    fn asking_question(&self, question: &Question, done: usize) -> Vec<Show> {
        let (indent, who) = self.below(question.child_session_id.as_ref());
        let Some(item) = question.questions.get(done) else { return Vec::new() };
        let mut shows = vec![line(Ink::Question, format!("{indent}? {who}{}", item.text))];
        for (n, option) in item.options.iter().enumerate() {
            let about =
                option.description.as_ref().map(|it| format!(" - {it}")).unwrap_or_default();
            shows.push(line(Ink::Plain, format!("{indent}  {} {}{about}", n + 1, option.label)));
        }
        let how = match (item.options.is_empty(), item.multiple) {
            (true, _) => "[a text, or `/deny` and why]",
            (false, false) => "[a number or a text, or `/deny` and why]",
            (false, true) => "[numbers or texts between commas, or `/deny` and why]",
        };
        shows.push(line(Ink::Question, format!("{indent}  {how}")));
        shows
    }
}

/// The answers of a line to one question.
pub(super) fn chosen(question: &Question, done: usize, text: &str) -> Vec<String> {
    let Some(item) = question.questions.get(done) else { return Vec::new() };
    let pieces: Vec<&str> = if item.multiple { text.split(',').collect() } else { vec![text] };
    let pieces = pieces.into_iter().map(str::trim).filter(|piece| !piece.is_empty());
    let option = |piece: &str| {
        let n: usize = piece.parse().ok()?;
        item.options.get(n.checked_sub(1)?).map(|option| option.label.clone())
    };
    pieces.map(|piece| option(piece).unwrap_or_else(|| piece.to_owned())).collect()
}

/// Whether a run has not ended.
pub(super) fn is_open(status: RunStatus) -> bool {
    match status {
        RunStatus::Queued | RunStatus::Running | RunStatus::Waiting => true,
        RunStatus::Completed
        | RunStatus::Failed
        | RunStatus::Cancelled
        | RunStatus::Interrupted => false,
    }
}

fn decision(
    state: ApprovalState,
    who: &str,
    reason: Option<&str>,
    remember: Option<Remember>,
) -> String {
    let how = match state {
        ApprovalState::Approved => "approved",
        ApprovalState::Rejected => "rejected",
        ApprovalState::Expired => "nobody decided in time, says",
        ApprovalState::Pending | ApprovalState::Cancelled => "not asked any more, says",
    };
    let until = match remember {
        Some(Remember::Session) => " for this session",
        Some(Remember::Project) => " for the project",
        Some(Remember::Once) | None => "",
    };
    let by = if state == ApprovalState::Approved || state == ApprovalState::Rejected {
        " by"
    } else {
        ""
    };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("[{how}{by} {who}{until}{reason}]")
}

fn todo(todo: &Todo) -> Show {
    let mark = match todo.status {
        TodoStatus::Pending => "[ ]",
        TodoStatus::InProgress => "[>]",
        TodoStatus::Completed => "[x]",
        TodoStatus::Cancelled => "[-]",
    };
    note(format!("  {mark} {}", short(&todo.content)))
}

pub(super) fn line(ink: Ink, text: impl Into<String>) -> Show {
    Show::Lines(ink, text.into())
}

pub(super) fn note(text: impl Into<String>) -> Show {
    line(Ink::Note, text)
}

fn joined(names: &[&str]) -> String {
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(", "))
}

/// The first line, cut where it is too long to be read.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(SHOWN_CHARS_MAX).collect();
    if short.len() < text.trim_end().len() { short + " .." } else { short }
}

/// The first lines, each behind `margin`.
fn short_lines(text: &str, lines_max: usize, margin: &str) -> String {
    let mut lines: Vec<String> =
        text.lines().take(lines_max).map(|line| format!("{margin}{}", short(line))).collect();
    let left = text.lines().count().saturating_sub(lines_max);
    if left > 0 {
        lines.push(format!("{margin}.. {left} more lines"));
    }
    lines.join("\n")
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
