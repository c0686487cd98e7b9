//! `bash`: a command line, in the sandbox.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::BoxFuture;
use iris_agent::permissions::{Access, Judge, Target};
use iris_protocol::{PermissionAction, PermissionLayer};
use iris_sandbox::{
    Command, Finished, Network, Request, Sandbox, SandboxError, Shortage, Status, plain_text,
};
use iris_shell::{COMMAND_BYTES_MAX, Piece};
use iris_workspace::RelPath;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::Tool;
use crate::builtin::{object_schema, parse, shown, target};
use crate::context::{Progress, ToolContext};
use crate::error::{Mistake, ToolError};
use crate::output::ToolOutput;

const NAME: &str = "bash";
/// The permission by which rules open the network to commands, for `loopback` or `on`.
const NETWORK: &str = "network";
const DESCRIPTION: &str = "Runs a command line with bash in the project's directory, without a network unless \
         a rule opens one, without a terminal and without input. Prefer `read`, `list`, `glob`, `grep` and `edit` for files. Write \
         each command out: variables, wildcards and substitutions have to be approved each time.";
/// How long a command may run unless the model says otherwise, in milliseconds.
pub(crate) const TIMEOUT_MS_DEFAULT: u64 = 120_000;
/// The longest that a model can let a command run, in milliseconds.
pub(crate) const TIMEOUT_MS_MAX: u64 = 600_000;
/// Most commands and files of one line.
const TOUCHED_MAX: usize = 64;
/// How often those who watch are told how far a command is.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// How much of the end of the output they are told, in bytes.
const TAIL_BYTES_MAX: usize = 1024;
/// Pieces of output that may wait to be counted; more are not counted in what is told.
const PIECES_MAX: usize = 64;
/// What the sandbox takes at most after the timeout: the time to end by itself, and the clearing up.
pub(crate) const AFTER_TIMEOUT: Duration = Duration::from_secs(15);

/// The tool `bash`, which runs commands in `sandbox`.
pub(crate) struct Bash {
    sandbox: Sandbox,
    parameters: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Input {
    command: String,
    timeout_ms: Option<u64>,
    workdir: Option<String>,
    description: Option<String>,
}

impl Bash {
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        let properties = json!({
            "command": {
                "type": "string",
                "minLength": 1,
                "maxLength": COMMAND_BYTES_MAX,
                "description": "Command line for bash",
            },
            "timeoutMs": {
                "type": "integer",
                "minimum": 1,
                "maximum": TIMEOUT_MS_MAX,
                "description": "How long it may run, by default two minutes",
            },
            "workdir": {
                "type": "string",
                "description": "Directory to start in, relative to the project's directory",
            },
            "description": {
                "type": "string",
                "maxLength": 200,
                "description": "What the command is for, in a few words, for the person who is asked",
            },
        });
        Self { sandbox, parameters: object_schema(&properties, &["command"]) }
    }
}

impl Input {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT).min(TIMEOUT_MS_MAX))
    }
}

impl Tool for Bash {
    fn name(&self) -> &str {
        NAME
    }

    fn description(&self) -> &str {
        DESCRIPTION
    }

    fn parameters(&self) -> &Value {
        &self.parameters
    }

    fn writes(&self) -> bool {
        true
    }

    fn runs_code(&self) -> bool {
        true
    }

    fn unavailable(&self) -> Option<ToolError> {
        self.sandbox.check().err().map(ToolError::Sandbox)
    }

    fn time_limit(&self, input: &Value) -> Option<Duration> {
        let input: Input = parse(NAME, input).ok()?;
        Some(input.timeout() + AFTER_TIMEOUT)
    }

    /// A person has to read the whole line, and everybody who looks at the session gets all that it touches.
    fn check(&self, input: &Value) -> Result<(), ToolError> {
        let Input { command, .. } = parse(NAME, input)?;
        let touched = iris_shell::read(&command).pieces.len();
        if touched <= TOUCHED_MAX {
            return Ok(());
        }
        let problem = format!(
            "has {touched} commands and files, more than {TOUCHED_MAX}: make several calls of it"
        );
        let mistakes = vec![Mistake { pointer: "/command".to_owned(), problem }];
        Err(ToolError::InvalidInput { tool: NAME.to_owned(), mistakes })
    }

    /// Each command of the line, and each file that the shell itself opens for it; and, as if it went there
    /// itself, the directory that it starts in: there the same words may be another program.
    fn accesses(&self, input: &Value) -> Vec<Access> {
        let Ok(Input { command, workdir, .. }) = parse(NAME, input) else { return Vec::new() };
        let workdir = workdir.unwrap_or_else(|| ".".to_owned());
        let mut accesses: Vec<Access> = iris_shell::read(&command)
            .pieces
            .into_iter()
            .map(|piece| access(piece, &workdir))
            .collect();
        match target(&workdir) {
            Target::Path(path) if path == "." => {}
            Target::Path(path) => {
                accesses.push(Access::of(NAME, Target::Text(format!("cd {path}"))));
            }
            outside @ (Target::Outside(_) | Target::Text(_) | Target::Opaque(_)) => {
                accesses.push(Access::of(NAME, outside));
            }
        }
        accesses
    }

    fn summary(&self, input: &Value) -> String {
        let Ok(Input { command, workdir, description, .. }) = parse(NAME, input) else {
            return format!("call `{NAME}` with invalid arguments");
        };
        let place = workdir.map(|it| format!(" in {}", shown(&it))).unwrap_or_default();
        let why = description.map(|it| format!(": {}", shown(&it))).unwrap_or_default();
        format!("run {}{place}{why}", shown(&command))
    }

    fn run(
        &self,
        ctx: ToolContext,
        input: Value,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        let sandbox = self.sandbox.clone();
        Box::pin(async move {
            let input: Input = parse(NAME, &input)?;
            let timeout = input.timeout();
            let Input { command, workdir, .. } = input;
            let Some(places) = &ctx.places else { return Err(ToolError::NoDirectory) };
            places.prepare(&sandbox).await.map_err(|source| ToolError::Directory { source })?;
            let request = Request {
                workdir: workdir.map(PathBuf::from).unwrap_or_default(),
                timeout,
                network: network(&ctx.judge),
                space: places.space,
                ..Request::new(
                    Command::Shell(command),
                    places.project.clone(),
                    places.scratch.clone(),
                )
            };
            let finished = watched(&sandbox, request, &ctx).await?;
            Ok(answer(&finished, timeout))
        })
    }
}

/// Runs a command and tells now and then how far it is.
pub(crate) async fn watched(
    sandbox: &Sandbox,
    mut request: Request,
    ctx: &ToolContext,
) -> Result<Finished, SandboxError> {
    let (pieces, mut output) = mpsc::channel(PIECES_MAX);
    request.progress = Some(pieces);
    let mut running = pin!(sandbox.run(request));
    let mut tell = tokio::time::interval(TELL_EVERY);
    tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut bytes, mut told) = (0_u64, 0_u64);
    let mut tail: Vec<u8> = Vec::new();
    loop {
        tokio::select! {
            finished = &mut running => return finished,
            Some(piece) = output.recv() => {
                bytes = bytes.saturating_add(piece.len() as u64);
                tail.extend(piece);
                tail.drain(..tail.len().saturating_sub(TAIL_BYTES_MAX));
            }
            _ = tell.tick() => {
                if bytes > told {
                    told = bytes;
                    ctx.tell(Progress { bytes, tail: plain_text(&tail) });
                }
            }
        }
    }
}

/// What rules are asked about a piece of a command line.
fn access(piece: Piece, workdir: &str) -> Access {
    match piece {
        Piece::Command { text, .. } => Access::of(NAME, Target::Text(text)),
        Piece::Write { path, .. } => Access::of("edit", below(workdir, &path)),
        Piece::Read { path } => Access::of("read", below(workdir, &path)),
        Piece::Opaque { text, .. } => Access::of(NAME, Target::Opaque(text)),
    }
}

/// The path that the shell opens when it starts in `workdir`.
fn below(workdir: &str, path: &str) -> Target {
    if path.starts_with('/') || path.starts_with('~') {
        return Target::Outside(path.to_owned());
    }
    match RelPath::dir(workdir) {
        Ok(workdir) => target(&format!("{workdir}/{path}")),
        Err(_) => Target::Outside(path.to_owned()),
    }
}

/// Nothing, unless a rule that an administrator made decides so: what a command can reach then is all that
/// the server can, so neither a mode nor what any member may say opens it.
pub(crate) fn network(judge: &Judge) -> Network {
    let is_opened = |kind: &str| {
        let judged = judge.judge_one(&Access::of(NETWORK, Target::Text(kind.to_owned())));
        let by_administrator = judged.rule.is_some_and(|rule| match rule.layer {
            PermissionLayer::Server | PermissionLayer::Project | PermissionLayer::Agent => true,
            PermissionLayer::Builtin
            | PermissionLayer::Mode
            | PermissionLayer::Session
            | PermissionLayer::Remembered => false,
        });
        judged.action == PermissionAction::Allow && by_administrator
    };
    if is_opened("on") {
        Network::On
    } else if is_opened("loopback") {
        Network::Loopback
    } else {
        Network::Off
    }
}

pub(crate) fn answer(finished: &Finished, timeout: Duration) -> ToolOutput {
    let (status, code, ended) = match finished.status {
        Status::Exited(code) => ("exited", Some(code), format!("(exit code {code})")),
        Status::Signalled(signal) => {
            ("signalled", Some(signal), format!("(ended by signal {signal})"))
        }
        Status::TimedOut => {
            let timeout = timeout.as_millis();
            let ended =
                format!("(ended after {timeout} ms, its timeout; nothing of it runs any more)");
            ("timedOut", None, ended)
        }
        Status::Cancelled => ("cancelled", None, "(cancelled)".to_owned()),
        Status::OutOfSpace(shortage) => {
            let why = match shortage {
                Shortage::Disk => "the disk is almost full",
                Shortage::Directories => "its files take more than the project may have",
            };
            let ended = format!("(ended because {why}; nothing of it runs any more)");
            ("outOfSpace", None, ended)
        }
    };
    let text = finished.output.text();
    let metadata = json!({
        "status": status,
        "code": code,
        "durationMs": u64::try_from(finished.duration.as_millis()).unwrap_or(u64::MAX),
        "bytesLeftOut": finished.output.bytes_left_out(),
    });
    let text = text.trim_end();
    let text = if text.is_empty() { ended } else { format!("{text}\n{ended}") };
    ToolOutput::new(&text, metadata)
}

#[cfg(test)]
mod tests;
