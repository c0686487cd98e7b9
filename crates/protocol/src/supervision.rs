//! What operators see of the actors: the tree, one actor, and the log of what became of them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What an actor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ActorState {
    /// It handles messages.
    Running,
    /// It panicked, failed or was told to, and will start again; its queue waits.
    Restarting,
    /// It is about to end; its children end first.
    Stopping,
}

/// Reads what the server counts of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsRead {}

/// What a server counts of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MetricsDocument {
    /// The text format of Prometheus, with its version.
    pub mime_type: String,
    /// All of it.
    pub content: String,
}

/// One actor from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorInfo {
    /// Where it stands, for example `node/directory/project/prj_..`.
    pub path: String,
    /// Who started it; `node` for those at the top.
    pub parent: String,
    /// What kind of actor: `root`, `directory`, `project`, `session`, `orchestrator`, `connection`, ..
    pub kind: String,
    /// What it is doing.
    pub state: ActorState,
    /// Messages that wait.
    pub mailbox_depth: u64,
    /// From this depth on callers are refused with `OVERLOADED`; 0 means no limit.
    pub mailbox_limit: u64,
    /// Messages handled since it was spawned.
    pub handled: u64,
    /// Messages and futures of it that panicked since it was spawned.
    pub failed: u64,
    /// Messages refused because its mailbox was over the limit.
    pub refused: u64,
    /// Restarts since it was spawned.
    pub restarts: u64,
    /// When it was spawned: milliseconds since 1970 UTC.
    pub started_at: i64,
    /// What it works on now, the oldest first. Empty when it is idle.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub current: Vec<CurrentWork>,
    /// Its last panic or error, without anything that users wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Actors that it started and that are alive.
    pub children: u64,
}

/// A message or a piece of work that an actor has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentWork {
    /// Name of the message or of the work.
    pub name: String,
    /// Milliseconds since it began.
    pub age_ms: u64,
    /// Whether it runs longer than its budget.
    pub stuck: bool,
}

/// One actor with what it says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorDetail {
    /// From outside.
    pub actor: ActorInfo,
    /// From inside, counts above all; the fields depend on the kind. Null when it did not answer in
    /// time.
    pub observed: Value,
    /// Its children.
    pub children: Vec<ActorInfo>,
    /// What the supervision log still knows of it in memory, oldest first.
    pub log: Vec<SupervisionRecord>,
}

/// The process that the actors live in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeInfo {
    /// Version of the server.
    pub version: String,
    /// Milliseconds since the server started.
    pub uptime_ms: u64,
    /// Resident memory in bytes; 0 where the system does not say.
    pub rss_bytes: u64,
    /// Actors that are alive, by kind.
    pub actors: BTreeMap<String, u64>,
    /// The threads that actors run on.
    pub arbiters: Vec<ArbiterInfo>,
    /// Whether the server is stopping.
    pub draining: bool,
    /// Runs that work, and those that wait for a place.
    #[serde(default)]
    pub runs: LineInfo,
    /// The same of commands of agents.
    #[serde(default)]
    pub commands: LineInfo,
    /// Abnormal records of the supervision log that could not be stored.
    pub records_dropped: u64,
}

/// How much of something goes on at once, and how much waits for a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LineInfo {
    /// As many have a place.
    pub working: u64,
    /// As many wait for one.
    pub waiting: u64,
    /// How long the one has waited that waits longest, in milliseconds.
    pub longest_wait_ms: u64,
}

/// One thread that actors run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArbiterInfo {
    /// The thread's name.
    pub name: String,
    /// Milliseconds for which it has not answered; 0 when it does.
    pub blocked_ms: u64,
    /// The actor that holds it up, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The message that this actor handles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a record of the supervision log tells.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum SupervisionKind {
    /// An actor was spawned.
    Started,
    /// An actor ended.
    Stopped,
    /// A handler, a future or the start of an actor panicked.
    Panicked,
    /// An actor started again.
    Restarted,
    /// An actor failed more often than its policy allows and ended.
    GaveUp,
    /// An actor works on a message longer than its budget.
    Stuck,
    /// A mailbox is over its limit: callers are refused.
    Overloaded,
    /// An idle actor ended to free its memory.
    Passivated,
    /// A thread stopped answering.
    Blocked,
    /// A thread that was blocked answers again.
    Unblocked,
}

/// Why an actor ended, or started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ExitKind {
    /// By itself, or because nobody holds its address.
    Normal,
    /// It panicked.
    Panic,
    /// It said that it cannot go on.
    Error,
    /// The supervisor ended it: stuck, or an operator's order.
    Killed,
    /// It failed more often than its policy allows.
    RestartIntensity,
    /// Its parent ended.
    Parent,
}

/// One record of the supervision log. It never holds a secret or what a user wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupervisionRecord {
    /// Rises with each record, also across restarts of the server; below 2^53.
    pub id: u64,
    /// When: milliseconds since 1970 UTC.
    pub at: i64,
    /// What happened.
    pub kind: SupervisionKind,
    /// To which actor; the name of the thread for `blocked` and `unblocked`.
    pub path: String,
    /// What kind of actor it is; `arbiter` for a thread.
    pub actor_kind: String,
    /// Why, for `stopped`, `gaveUp` and `restarted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ExitKind>,
    /// The text of the panic or error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where in the source: `file:line:column`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Name of the message or work that was being handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The request that caused that message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Restarts so far, mailbox depth, age in milliseconds: whatever the kind counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counts: BTreeMap<String, u64>,
}

impl SupervisionKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Started,
        Self::Stopped,
        Self::Panicked,
        Self::Restarted,
        Self::GaveUp,
        Self::Stuck,
        Self::Overloaded,
        Self::Passivated,
        Self::Blocked,
        Self::Unblocked,
    ];

    /// Its name on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Panicked => "panicked",
            Self::Restarted => "restarted",
            Self::GaveUp => "gaveUp",
            Self::Stuck => "stuck",
            Self::Overloaded => "overloaded",
            Self::Passivated => "passivated",
            Self::Blocked => "blocked",
            Self::Unblocked => "unblocked",
        }
    }
}

impl SupervisionRecord {
    /// Whether an operator should know of it: such records are kept in the root database.
    pub fn is_abnormal(&self) -> bool {
        match self.kind {
            SupervisionKind::Panicked
            | SupervisionKind::Restarted
            | SupervisionKind::GaveUp
            | SupervisionKind::Stuck
            | SupervisionKind::Overloaded
            | SupervisionKind::Blocked
            | SupervisionKind::Unblocked => true,
            SupervisionKind::Stopped => {
                matches!(self.reason, Some(ExitKind::Panic | ExitKind::Error | ExitKind::Killed))
            }
            SupervisionKind::Started | SupervisionKind::Passivated => false,
        }
    }
}

/// How log lines are written and which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogSettings {
    /// Directives such as `info` or `iris_actors=debug,warn`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `admin.actor.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorList {
    /// Only actors of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only this actor and those under it, by path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under: Option<String>,
}

/// All actors, in the order of their paths, and the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorPage {
    /// The process.
    pub node: NodeInfo,
    /// The actors.
    pub actors: Vec<ActorInfo>,
}

/// `admin.actor.get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorGet {
    /// Where the actor stands.
    pub path: String,
}

/// `admin.actor.restart`: starts an actor again with fresh state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorRestart {
    /// Where the actor stands.
    pub path: String,
}

/// `admin.actor.stop`: ends an actor and those under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorStop {
    /// Where the actor stands.
    pub path: String,
}

/// `admin.supervision.list`: the supervision log, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupervisionList {
    /// Only records after this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Only records of this kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<SupervisionKind>,
    /// Only records of this actor and those under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Most records; 1 to `SUPERVISION_RECORDS_MAX`, `SUPERVISION_RECORDS_DEFAULT` when absent.
    /// Without `since` the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A page of the supervision log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SupervisionPage {
    /// The records, oldest first.
    pub records: Vec<SupervisionRecord>,
    /// Whether there are more after the last one.
    pub has_more: bool,
    /// Abnormal records since the start of the server that could not be stored.
    pub dropped: u64,
}

/// `admin.log.get`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogGet {}

/// `admin.log.set`: changes which log lines are written, until the server stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogSet {
    /// Directives such as `info` or `iris_actors=debug,warn`; as it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// As it is when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<LogFormat>,
}
