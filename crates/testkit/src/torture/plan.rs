//! What clients mean to do: drawn from a seed, and written down before it is asked for.

use fastrand::Rng;
use iris_protocol::{ProjectId, Role, SessionId, ToolCallId, UserId};
use serde_json::{Value, json};

/// Files that one client writes in turn.
const FILES: usize = 8;
/// The longest line of a file, in repetitions.
const FILE_WORDS_MAX: usize = 200;

/// One change that a client wants, under one idempotency key.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    /// The key; it stands in what is written, too, so that a second effect shows.
    pub(super) key: String,
    /// Where.
    pub(super) project: ProjectId,
    /// What.
    pub(super) deed: Deed,
    /// Whether it takes its REST route; a repeat has to take the same way, where the bodies differ.
    pub(super) by_route: bool,
}

/// What an intent is about.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// A message; its text is unique.
    Say { session: SessionId, text: String },
    /// A new session; its title is unique.
    OpenSession { title: String },
    /// A file as a whole. A client's writes of one path follow each other.
    WriteFile { path: String, content: String },
    /// A yes to a tool call.
    Approve { session: SessionId, call: ToolCallId },
    /// A new member.
    AddMember { user: UserId, role: Role },
    /// Another role for a member.
    ChangeMember { user: UserId, role: Role },
}

impl Intent {
    /// The name of the operation.
    pub(super) fn operation(&self) -> &'static str {
        match self.deed {
            Deed::Say { .. } => "session.message.send",
            Deed::OpenSession { .. } => "session.create",
            Deed::WriteFile { .. } => "file.write",
            Deed::Approve { .. } => "tool.approve",
            Deed::AddMember { .. } => "project.member.add",
            Deed::ChangeMember { .. } => "project.member.update",
        }
    }

    /// The request as a frame of a socket, which is the body of a command, too.
    pub(super) fn frame(&self) -> Value {
        let payload = match &self.deed {
            Deed::Say { session, text } => json!({ "sessionId": session, "content": text }),
            Deed::OpenSession { title } => json!({ "title": title }),
            Deed::WriteFile { path, content } => json!({ "path": path, "content": content }),
            Deed::Approve { session, call } => json!({ "sessionId": session, "toolCallId": call }),
            Deed::AddMember { user, role } | Deed::ChangeMember { user, role } => {
                json!({ "userId": user, "role": role })
            }
        };
        json!({
            "id": self.key,
            "type": self.operation(),
            "projectId": self.project,
            "payload": payload,
            "idempotencyKey": self.key,
        })
    }
}

impl Deed {
    /// What must not be changed twice at the same time, if the last change is to be known.
    pub(super) fn order_matters(&self) -> Option<String> {
        match self {
            Self::WriteFile { path, .. } => Some(path.clone()),
            Self::AddMember { user, .. } | Self::ChangeMember { user, .. } => {
                Some(user.to_string())
            }
            Self::Say { .. } | Self::OpenSession { .. } | Self::Approve { .. } => None,
        }
    }
}

/// Draws the intents of one client in one round.
pub(super) struct Plan {
    random: Rng,
    /// Begins every key.
    name: String,
    drawn: usize,
}

/// A kind of intent that is drawn; what it is about is the caller's to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message in a session that the client hears.
    Say,
    /// A message in any project.
    SayElsewhere,
    /// A new session.
    OpenSession,
    /// A file.
    WriteFile,
    /// An approval, when something waits for one.
    Approve,
    /// A change of the members.
    Member,
}

impl Plan {
    /// The same for the same numbers.
    pub(super) fn new(seed: u64, round: u32, client: usize) -> Self {
        let mut random = Rng::with_seed(seed);
        let of_round = random.u64(..) ^ u64::from(round).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let of_client = of_round.wrapping_add(client as u64 + 1);
        let name = format!("r{round}-c{client}");
        Self { random: Rng::with_seed(of_client), name, drawn: 0 }
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.random.usize(..bound)
    }

    /// What comes next.
    pub(super) fn kind(&mut self) -> Kind {
        self.drawn += 1;
        match self.random.u8(..100) {
            0..40 => Kind::Say,
            40..50 => Kind::SayElsewhere,
            50..60 => Kind::OpenSession,
            60..78 => Kind::WriteFile,
            78..92 => Kind::Approve,
            _ => Kind::Member,
        }
    }

    /// The key of what was drawn last.
    pub(super) fn key(&self) -> String {
        format!("{}-{}", self.name, self.drawn)
    }

    /// A message that makes the scripted model work: answer, stream for a while, or call a tool that
    /// somebody has to allow.
    pub(super) fn text(&mut self) -> String {
        let key = self.key();
        let script = match self.random.u8(..10) {
            0..4 => format!("say heard {key}"),
            4..6 => {
                format!("delay {}\nchunks {} {key}", self.random.u8(1..4), self.random.u8(5..60))
            }
            6..8 => format!(
                "call write {{\"path\": \"tool/{key}.txt\", \"content\": \"{key}\"}}\nstep\nsay done"
            ),
            _ => format!("think about {key}\ncall read {{\"path\": \"none\"}}\nstep\nsay {key}"),
        };
        format!("# {key}\n{script}")
    }

    /// The file whose turn it is, and what it is to hold.
    pub(super) fn file(&mut self, client: usize) -> (String, String) {
        let content = format!("{} ", self.key()).repeat(self.random.usize(1..FILE_WORDS_MAX));
        (format!("client-{client}/{}.txt", self.drawn % FILES), content)
    }
}
