//! Why a call gave no output; the text goes back to the model.

use iris_egress::EgressError;
use iris_protocol::ErrorCode;
use iris_sandbox::SandboxError;
use iris_workspace::WorkspaceError;

use crate::patch::PatchError;
use crate::validation::{INPUT_BYTES_MAX, INPUT_DEPTH_MAX};

/// A call failed, or could not start.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// No tool has that name.
    #[error("unknown tool `{name}`; the tools are {}", quoted(.known))]
    UnknownTool {
        /// What was asked for, shortened.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// The schema of a tool is no JSON Schema, or two tools have one name.
    #[error("tool `{name}` cannot be registered: {problem}")]
    InvalidTool {
        /// The tool.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The arguments break the tool's schema.
    #[error("invalid arguments for `{tool}`: {}", listed(.mistakes))]
    InvalidInput {
        /// The tool.
        tool: String,
        /// At least one, at most `MISTAKES_MAX`.
        mistakes: Vec<Mistake>,
    },
    /// The arguments are larger than a call may be.
    #[error(
        "the arguments for `{tool}` are too large: at most {INPUT_BYTES_MAX} bytes of JSON, nested \
         at most {INPUT_DEPTH_MAX} deep"
    )]
    InputTooLarge {
        /// The tool.
        tool: String,
    },
    /// The project's files did not allow it.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// `read` was asked to start after the last line.
    #[error("offset `{offset}` is past the end: `{path}` has {line_count} lines")]
    OffsetPastEnd {
        /// The file.
        path: String,
        /// What was asked for, 1-based.
        offset: usize,
        /// Lines in the file.
        line_count: usize,
    },
    /// `read` was asked for an image that is too large to be shown.
    #[error(
        "`{path}` is a {kind} image of {size} bytes; images of more than 3750000 bytes are not shown to models"
    )]
    IsImage {
        /// The file.
        path: String,
        /// `PNG`, `JPEG`, `GIF` or `WebP`.
        kind: &'static str,
        /// Bytes in the file.
        size: u64,
    },
    /// `edit` did not find its text.
    #[error("`oldString` does not occur in `{path}`; it must match exactly, with all white space")]
    TextNotFound {
        /// The file.
        path: String,
    },
    /// `edit` found its text more than once.
    #[error(
        "`oldString` occurs {count} times in `{path}`; add lines around it until it occurs once, or \
         set `replaceAll`"
    )]
    TextAmbiguous {
        /// The file.
        path: String,
        /// At least 2.
        count: usize,
    },
    /// `edit` was asked to replace text by itself.
    #[error("`oldString` and `newString` are the same")]
    NothingToChange,
    /// One of several edits cannot be made, so none was.
    #[error("no edit was made: `{pointer}`: {source}")]
    EditFailed {
        /// JSON pointer (RFC 6901) to the edit in the arguments.
        pointer: String,
        /// Why it cannot be made.
        source: Box<ToolError>,
    },
    /// The text that `applyPatch` got is no patch.
    #[error("the patch cannot be read, nothing was changed: {0}")]
    InvalidPatch(PatchError),
    /// A patch does not fit the content of a file.
    #[error("nothing was changed: the patch does not fit `{path}`: {source}")]
    PatchMismatch {
        /// The file.
        path: String,
        /// What does not fit, and where the patch says so.
        source: PatchError,
    },
    /// A patch would create a file that is there.
    #[error(
        "nothing was changed: `{path}` exists already; update it, or delete it in the same patch first"
    )]
    PatchTargetExists {
        /// The file.
        path: String,
    },
    /// The files that a patch makes are too large together.
    #[error("nothing was changed: the files of the patch have more than {size_max} bytes together")]
    PatchTooLarge {
        /// Bytes allowed.
        size_max: usize,
    },
    /// The model knows an older content of the file.
    #[error("`{path}` changed since it was read; read it again before editing it")]
    ChangedSinceRead {
        /// The file.
        path: String,
    },
    /// `webfetch` was refused the way out, or found nothing there.
    #[error(transparent)]
    Egress(#[from] EgressError),
    /// A request out failed, and what it said of it holds a secret.
    #[error("{problem}")]
    Request {
        /// Without the secret.
        problem: String,
    },
    /// The server cannot make requests for tools.
    #[error(
        "this server makes no requests for tools: it has no certificates to verify others with"
    )]
    NoWayOut,
    /// A secret of the tool could not be opened.
    #[error(
        "the secret header `{header}` must be set again: it was sealed with another key, or for another \
         project"
    )]
    SecretLost {
        /// The name of the header.
        header: String,
    },
    /// The server runs no commands.
    #[error("this server runs no commands")]
    NoSandbox,
    /// `webfetch` found something that is no text.
    #[error("the page cannot be read: {problem}")]
    UnreadablePage {
        /// What it is instead.
        problem: String,
    },
    /// A command could not be run in the sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The directories for commands could not be made ready.
    #[error("the directories for commands could not be made ready: {source}")]
    Directory {
        /// What the file system said.
        source: std::io::Error,
    },
    /// There is no directory to run a command in.
    #[error("the project has no directory for commands")]
    NoDirectory,
    /// The to-do list could not be read or written.
    #[error("the to-do list is out of reach: {problem}")]
    Todos {
        /// Why.
        problem: String,
    },
    /// There is no output of an earlier call to read on in.
    #[error("`{path}` cannot be read: {problem}")]
    NoOutput {
        /// As the model named it.
        path: String,
        /// Why.
        problem: String,
    },
    /// A sub-agent was not set to work, or did not do what it should.
    #[error("{problem}")]
    Task {
        /// Why.
        problem: String,
    },
    /// The tool asks people, and nothing of it runs.
    #[error("`{tool}` waits for people and does not run")]
    NotRunnable {
        /// The tool.
        tool: String,
    },
    /// An MCP server did not do what it was asked.
    #[error("the MCP server `{server}` did not do it: {problem}")]
    Mcp {
        /// The server.
        server: String,
        /// Why not; what the server said is in it.
        problem: String,
    },
    /// Nobody waits for the call any more.
    #[error("the call was cancelled")]
    Cancelled,
    /// The tool panicked.
    #[error("tool `{tool}` failed unexpectedly")]
    Crashed {
        /// The tool.
        tool: String,
    },
}

/// One thing that is wrong with the arguments of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// JSON pointer (RFC 6901) into the arguments; empty for the arguments as a whole.
    pub pointer: String,
    /// What is wrong there.
    pub problem: String,
}

impl ToolError {
    /// The code for clients.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownTool { .. }
            | Self::InvalidInput { .. }
            | Self::OffsetPastEnd { .. }
            | Self::TextNotFound { .. }
            | Self::TextAmbiguous { .. }
            | Self::NothingToChange
            | Self::NoOutput { .. }
            | Self::InvalidPatch(_)
            | Self::PatchMismatch { .. } => ErrorCode::InvalidRequest,
            Self::EditFailed { source, .. } => source.code(),
            Self::PatchTargetExists { .. } | Self::SecretLost { .. } => ErrorCode::Conflict,
            Self::InputTooLarge { .. } | Self::PatchTooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::Workspace(error) => error.code(),
            Self::ChangedSinceRead { .. } => ErrorCode::VersionConflict,
            Self::Egress(error) => egress_code(error),
            Self::Sandbox(error) => sandbox_code(error),
            Self::NoDirectory | Self::NoSandbox => ErrorCode::SandboxUnavailable,
            Self::Request { .. } | Self::NoWayOut => ErrorCode::NotFound,
            Self::IsImage { .. } | Self::UnreadablePage { .. } => ErrorCode::UnsupportedMediaType,
            Self::Mcp { .. } => ErrorCode::ProviderError,
            Self::Cancelled => ErrorCode::Cancelled,
            Self::InvalidTool { .. }
            | Self::Todos { .. }
            | Self::Task { .. }
            | Self::NotRunnable { .. }
            | Self::Directory { .. }
            | Self::Crashed { .. } => ErrorCode::Internal,
        }
    }
}

fn sandbox_code(error: &SandboxError) -> ErrorCode {
    match error {
        SandboxError::Unavailable { .. } | SandboxError::NetworkUnavailable { .. } => {
            ErrorCode::SandboxUnavailable
        }
        SandboxError::InvalidRequest { .. } | SandboxError::Program { .. } => {
            ErrorCode::InvalidRequest
        }
        SandboxError::Directory { .. } => ErrorCode::NotFound,
        SandboxError::Setup { .. } | SandboxError::Launcher { .. } => ErrorCode::Internal,
    }
}

fn egress_code(error: &EgressError) -> ErrorCode {
    match error {
        EgressError::BadUrl { .. }
        | EgressError::BadRequest { .. }
        | EgressError::TooManyRedirects
        | EgressError::InsecureRedirect => ErrorCode::InvalidRequest,
        EgressError::RefusedRedirect { .. }
        | EgressError::BlockedScheme { .. }
        | EgressError::BlockedAddress { .. }
        | EgressError::BlockedPort { .. } => ErrorCode::Forbidden,
        EgressError::TimedOut { .. } => ErrorCode::DeadlineExceeded,
        EgressError::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        EgressError::Busy => ErrorCode::Overloaded,
        EgressError::Dns { .. }
        | EgressError::Connect { .. }
        | EgressError::Tls { .. }
        | EgressError::BadResponse { .. } => ErrorCode::NotFound,
        EgressError::Setup { .. } => ErrorCode::Internal,
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn listed(mistakes: &[Mistake]) -> String {
    let texts = mistakes.iter().map(|mistake| {
        if mistake.pointer.is_empty() {
            return mistake.problem.clone();
        }
        format!("`{}` {}", mistake.pointer, mistake.problem)
    });
    texts.collect::<Vec<_>>().join("; ")
}
