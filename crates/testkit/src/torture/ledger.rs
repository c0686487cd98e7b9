//! What the clients know: what was acknowledged, what was refused, what has no answer, what they heard.

use std::collections::BTreeMap;

use iris_protocol::ProjectId;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::plan::{Deed, Intent};

/// SHA-256 of texts, each with its length before it.
pub(super) type Hash = [u8; 32];

/// The hash of a row: of the columns that a client knows.
pub(super) fn hash<'a>(columns: impl IntoIterator<Item = &'a str>) -> Hash {
    let mut hasher = Sha256::new();
    for column in columns {
        hasher.update((column.len() as u64).to_be_bytes());
        hasher.update(column.as_bytes());
    }
    hasher.finalize().into()
}

/// SHA-256 of some bytes, in hexadecimal digits.
pub(super) fn digest(bytes: &[u8]) -> String {
    let hash: Hash = Sha256::digest(bytes).into();
    hash.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A durable event that reached a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) room: String,
    pub(super) prev: u64,
    pub(super) name: String,
    /// Of the payload.
    pub(super) hash: Hash,
}

/// An intent that the server says is done.
#[derive(Debug, Clone)]
pub(super) struct Acknowledged {
    pub(super) intent: Intent,
    /// The payload of the response.
    pub(super) answer: Value,
    /// The number of the last event that it caused.
    pub(super) seq: Option<u64>,
    /// The first round after which it has to be there.
    pub(super) round: u32,
}

/// A row that has to be in a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    /// Of which table, and which row.
    pub(super) row: Row,
    pub(super) hash: Hash,
}

/// Names a row of a project's database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row {
    pub(super) table: &'static str,
    pub(super) id: String,
}

impl Row {
    pub(super) fn new(table: &'static str, id: impl Into<String>) -> Self {
        Self { table, id: id.into() }
    }
}

/// Everything that the clients of one data directory know.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// In the order in which the answers came, for each client.
    pub(super) acknowledged: Vec<Acknowledged>,
    /// Refused with an error: these must have had no effect.
    pub(super) refused: Vec<Intent>,
    /// Sent, and the server died before it answered.
    pub(super) unanswered: Vec<Intent>,
    /// By project and number.
    pub(super) heard: BTreeMap<(ProjectId, u64), Heard>,
    /// What should never have been heard or answered.
    pub(super) findings: Vec<String>,
}

impl Ledger {
    /// Takes over what one client knows.
    pub(super) fn add(&mut self, other: Self) {
        let Self { acknowledged, refused, unanswered, heard, findings } = other;
        self.acknowledged.extend(acknowledged);
        self.refused.extend(refused);
        self.unanswered.extend(unanswered);
        self.findings.extend(findings);
        for (place, event) in heard {
            self.hear(place.0, place.1, &event);
        }
    }

    /// Notes an event; two clients have to hear the same one under the same number.
    pub(super) fn hear(&mut self, project: ProjectId, seq: u64, event: &Heard) {
        let known = self.heard.entry((project, seq)).or_insert_with(|| event.clone());
        if known != event {
            self.findings.push(format!("two events have the number {seq}: {known:?}, {event:?}"));
        }
    }
}

impl Acknowledged {
    /// A text of the answer, empty when it has none.
    fn told(&self, pointer: &str) -> &str {
        self.answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// The rows that a project's database has to hold since, as far as they never change again. `by` is
    /// the user who acts.
    pub(super) fn rows(&self, by: &str) -> Vec<Expected> {
        match &self.intent.deed {
            Deed::Say { session, text } => {
                let (message, run) = (self.told("/messageId"), self.told("/runId"));
                let message_hash = hash([session.as_str(), run, "user", by, text]);
                vec![
                    Expected { row: Row::new("messages", message), hash: message_hash },
                    Expected { row: Row::new("runs", run), hash: hash([session.as_str(), by]) },
                ]
            }
            Deed::OpenSession { title } => {
                let row = Row::new("sessions", self.told("/session/id"));
                vec![Expected { row, hash: hash([title.as_str(), by]) }]
            }
            Deed::Approve { session, call } => {
                let row = Row::new("approvals", call.as_str());
                vec![Expected { row, hash: hash([session.as_str(), "approved", by]) }]
            }
            Deed::WriteFile { .. } | Deed::AddMember { .. } | Deed::ChangeMember { .. } => {
                Vec::new()
            }
        }
    }
}
