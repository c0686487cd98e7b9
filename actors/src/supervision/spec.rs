//! What can be chosen for an actor, and what its parent is told at its end.

use std::time::Duration;

use iris_protocol::ExitKind;

use super::ActorPath;

/// How long a message may take, unless the actor's spec says otherwise.
const MESSAGE_BUDGET: Duration = Duration::from_secs(10);

/// What happens to an actor when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// It starts again, however it ended. The server cannot be without it.
    Permanent(Intensity),
    /// It starts again after a panic or an error.
    Transient(Intensity),
    /// It ends, and its parent decides.
    Temporary,
}

/// How often an actor may start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// Most restarts in the window; the one after that ends the actor.
    pub restarts_max: usize,
    /// How far back restarts count.
    pub window: Duration,
}

impl Intensity {
    /// 5 restarts a minute.
    pub const DEFAULT: Self = Self { restarts_max: 5, window: Duration::from_mins(1) };
}

/// What happens to the other children of an actor when one of them starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Nothing.
    OneForOne,
    /// They start again too.
    OneForAll,
    /// Those that were spawned after it start again too.
    RestForOne,
}

/// What happens to an actor that works on something longer than its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStuck {
    /// It is reported.
    Report,
    /// It is reported and killed.
    Kill,
}

/// Who an actor is and what becomes of it.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// What kind of actor: the first part of its own path segment.
    pub kind: &'static str,
    /// Which one of its kind; empty for the only one.
    pub id: String,
    /// What happens when it ends.
    pub policy: RestartPolicy,
    /// Messages that may wait before callers are refused; 0 means any number.
    pub mailbox_limit: u32,
    /// How long a message may take before the actor counts as stuck.
    pub message_budget: Duration,
    /// What happens to its children when one of them starts again.
    pub strategy: Strategy,
    /// Whether its children live on when it starts again itself.
    pub keeps_children: bool,
    /// Whether what was queued before a restart fails; it is handled by the new life otherwise.
    pub fails_queue: bool,
    /// What happens when it is stuck.
    pub on_stuck: OnStuck,
}

impl ChildSpec {
    /// A temporary actor without a limit of its mailbox.
    pub fn new(kind: &'static str, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
            policy: RestartPolicy::Temporary,
            mailbox_limit: 0,
            message_budget: MESSAGE_BUDGET,
            strategy: Strategy::OneForOne,
            keeps_children: false,
            fails_queue: false,
            on_stuck: OnStuck::Report,
        }
    }
}

/// Why an actor ended, as its parent is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// It stopped by itself or because nobody holds its address.
    Normal,
    /// It panicked, and its policy is to end then. The text is that of the panic.
    Panic(String),
    /// It said that it cannot go on.
    Error(String),
    /// It was stuck, or an operator stopped it.
    Killed(String),
    /// It failed more often than its policy allows; the text is that of the last failure.
    RestartIntensity(String),
    /// Its parent ended.
    Parent,
}

impl ExitReason {
    pub(super) fn by_operator() -> Self {
        Self::Killed("an operator's order".to_owned())
    }

    pub(super) fn kind(&self) -> ExitKind {
        match self {
            Self::Normal => ExitKind::Normal,
            Self::Panic(_) => ExitKind::Panic,
            Self::Error(_) => ExitKind::Error,
            Self::Killed(_) => ExitKind::Killed,
            Self::RestartIntensity(_) => ExitKind::RestartIntensity,
            Self::Parent => ExitKind::Parent,
        }
    }

    /// The text of the failure, if it was one.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Normal | Self::Parent => None,
            Self::Panic(text)
            | Self::Error(text)
            | Self::Killed(text)
            | Self::RestartIntensity(text) => Some(text),
        }
    }
}

/// What a parent is told when a child has ended for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildExited {
    /// Where the child stood.
    pub path: ActorPath,
    /// Why it ended.
    pub reason: ExitReason,
}
