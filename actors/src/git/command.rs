//! One run of git in the sandbox.

use std::path::{Path, PathBuf};
use std::time::Duration;

use iris_protocol::{ApiError, ErrorCode};
use iris_sandbox::{Command, Request, Sandbox, Status, Talk, plain_text};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::home::Home;
use super::{LOCAL_TIME, Network, SHORT, broken, conflict, not_run};

/// What git is told whatever a repository's own configuration says: no program of its choice runs, nothing is
/// asked, nothing works in the background, and what it says is UTF-8.
const CONFIG: [(&str, &str); 26] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.sshCommand", "false"),
    ("core.askPass", "false"),
    ("core.pager", "cat"),
    ("core.editor", "true"),
    ("core.quotePath", "false"),
    ("i18n.commitEncoding", "UTF-8"),
    ("i18n.logOutputEncoding", "UTF-8"),
    ("core.alternateRefsCommand", "true"),
    ("credential.helper", ""),
    ("commit.gpgSign", "false"),
    ("tag.gpgSign", "false"),
    ("log.showSignature", "false"),
    ("color.ui", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("push.recurseSubmodules", "no"),
    ("push.gpgSign", "false"),
    ("transfer.bundleURI", "false"),
    ("protocol.allow", "never"),
];
/// Most bytes of what git says of errors.
const ERRORS_BYTES_MAX: usize = 16 * 1024;
/// Most characters of it that people read.
const SAID_CHARS_MAX: usize = 1_000;

/// What git is to do.
pub(super) struct Run {
    pub(super) program: &'static str,
    pub(super) directory: PathBuf,
    pub(super) scratch: PathBuf,
    pub(super) read_only: Vec<PathBuf>,
    pub(super) network: Network,
    /// The one way to other repositories that is open.
    pub(super) protocol: Option<&'static str>,
    pub(super) config: Vec<(String, String)>,
    pub(super) env: Vec<(String, String)>,
    pub(super) arguments: Vec<String>,
    pub(super) input: Vec<u8>,
    /// Most bytes that are read of its output; it is ended where there are more.
    pub(super) output_max: usize,
    pub(super) time: Duration,
}

/// How it ended.
pub(super) struct Ran {
    pub(super) code: i32,
    pub(super) output: Vec<u8>,
    /// Whether there was more output.
    pub(super) is_cut: bool,
    /// What it said of errors, for people.
    pub(super) errors: String,
}

impl Run {
    /// One that reaches nobody.
    pub(super) fn new(directory: &Path, scratch: &Path, home: &Home, arguments: &[&str]) -> Self {
        let mut env: Vec<(String, String)> = [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_LITERAL_PATHSPECS", "1"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            // A repository may name the program that it gets objects with which it lacks.
            ("GIT_NO_LAZY_FETCH", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        env.push(("GIT_CONFIG_GLOBAL".to_owned(), home.config().display().to_string()));
        let above = directory.parent().unwrap_or(directory);
        env.push(("GIT_CEILING_DIRECTORIES".to_owned(), above.display().to_string()));
        Self {
            program: "git",
            directory: directory.to_owned(),
            scratch: scratch.to_owned(),
            read_only: vec![home.settings().to_owned()],
            network: Network::Off,
            protocol: None,
            config: Vec::new(),
            env,
            arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
            input: Vec::new(),
            output_max: SHORT,
            time: LOCAL_TIME,
        }
    }

    /// Runs it. When nobody waits any more all of it is ended.
    ///
    /// # Errors
    /// `SANDBOX_UNAVAILABLE`, `DEADLINE_EXCEEDED`.
    pub(super) async fn within(self, sandbox: &Sandbox) -> Result<Ran, ApiError> {
        let (time, output_max, input) = (self.time, self.output_max, self.input.clone());
        let talk = sandbox.open(self.request()).map_err(not_run)?;
        let talked = timeout(time, talk_to(talk, input, output_max)).await;
        talked.map_err(|_| {
            let message = format!("git did not end within {} seconds", time.as_secs());
            ApiError::new(ErrorCode::DeadlineExceeded, message).reason("git_time")
        })?
    }

    fn request(self) -> Request {
        let fixed = CONFIG.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = [fixed.to_vec(), self.config].concat();
        let mut env = self.env;
        // Decides over what any configuration says.
        env.push(("GIT_ALLOW_PROTOCOL".to_owned(), self.protocol.unwrap_or("none").to_owned()));
        env.push(("GIT_CONFIG_COUNT".to_owned(), config.len().to_string()));
        for (at, (name, value)) in config.into_iter().enumerate() {
            env.push((format!("GIT_CONFIG_KEY_{at}"), name));
            env.push((format!("GIT_CONFIG_VALUE_{at}"), value));
        }
        let command = [vec![self.program.to_owned()], self.arguments].concat();
        Request {
            read_only: self.read_only,
            network: self.network,
            env,
            ..Request::new(Command::Arguments(command), self.directory, self.scratch)
        }
    }
}

async fn talk_to(talk: Talk, input: Vec<u8>, output_max: usize) -> Result<Ran, ApiError> {
    let Talk { mut stdin, mut stdout, stderr, mut running } = talk;
    let said = crate::supervision::detached(read_errors(stderr));
    let given = crate::supervision::detached(async move {
        // Who does not read it says why by the code.
        drop(stdin.write_all(&input).await);
    });
    let mut output = Vec::new();
    let mut piece = vec![0; SHORT];
    let is_cut = loop {
        let count = stdout.read(&mut piece).await.map_err(broken)?;
        output.extend(piece.iter().take(count));
        if output.len() > output_max {
            output.truncate(output_max);
            break true;
        }
        if count == 0 {
            break false;
        }
    };
    if is_cut {
        drop(running);
        return Ok(Ran { code: 0, output, is_cut, errors: String::new() });
    }
    let code = match running.ended().await.map_err(not_run)? {
        Status::Exited(code) => code,
        status @ (Status::Signalled(_)
        | Status::TimedOut
        | Status::Cancelled
        | Status::OutOfSpace(_)) => {
            // It is no refusal of git: what it was doing is half done.
            tracing::warn!(
                ?status,
                errors = plain_text(&said.await.map_err(broken)?),
                "git was ended"
            );
            let message = "git was ended before it was done";
            return Err(ApiError::new(ErrorCode::Internal, message));
        }
    };
    drop(given);
    let errors = said.await.map_err(broken)?;
    Ok(Ran { code, output, is_cut, errors: plain_text(&errors) })
}

/// The beginning of it; what is beyond is read so that nobody is held up.
async fn read_errors(mut stderr: Box<dyn AsyncRead + Send + Unpin>) -> Vec<u8> {
    let (mut errors, mut piece) = (Vec::new(), vec![0; 4096]);
    while let Ok(count @ 1..) = stderr.read(&mut piece).await {
        let room = ERRORS_BYTES_MAX - errors.len();
        errors.extend(piece.iter().take(count.min(room)));
    }
    errors
}

impl Ran {
    /// Itself, if it worked.
    pub(super) fn worked(self) -> Result<Self, ApiError> {
        if self.code == 0 { Ok(self) } else { Err(self.refusal()) }
    }

    /// What git said, without its marks.
    pub(super) fn said(&self) -> String {
        let lines = self.errors.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<_> = lines.filter(|line| !line.starts_with("hint:")).collect();
        let text = lines.join(" ");
        let text = text.strip_prefix("fatal: ").or(text.strip_prefix("error: ")).unwrap_or(&text);
        if text.is_empty() {
            return format!("git ended with code {}", self.code);
        }
        text.chars().take(SAID_CHARS_MAX).collect()
    }

    fn has(&self, text: &str) -> bool {
        self.errors.contains(text)
    }

    /// Why git did not do what it was told among the files.
    pub(super) fn refusal(&self) -> ApiError {
        let reason = if self.has("would be overwritten") || self.has("local changes") {
            "local_changes"
        } else if self.has(".lock': File exists") {
            "git_busy"
        } else if self.has("unmerged") || self.has("unresolved conflict") {
            "merge_conflict"
        } else {
            "git_failed"
        };
        conflict(reason, format!("git: {}", self.said()))
    }

    /// Why git did not get from the other side what it wanted.
    pub(super) fn refusal_of_other_side(&self) -> ApiError {
        let is_refused = self.has("Authentication failed")
            || self.has("could not read Username")
            || self.has("could not read Password")
            || self.has("returned error: 401")
            || self.has("returned error: 403");
        let is_redirect = self.has("unable to update url base from redirection")
            || ["301", "302", "303", "307", "308"]
                .iter()
                .any(|code| self.has(&format!("returned error: {code}")));
        let is_slow =
            self.has("Operation too slow") || self.has("timed out") || self.has("Timeout");
        let (reason, message) = if is_refused {
            ("git_credentials", "the other side does not accept the name and the token")
        } else if is_redirect {
            ("git_redirect", "the other side sent git on to another address, which is not followed")
        } else if is_slow {
            ("git_stalled", "the other side does not send anything any more")
        } else if self.has("Remote branch") && self.has("not found") {
            ("git_branch", "the other side has no such branch")
        } else if self.has("File too large") || self.has("too large") {
            ("git_too_large", "the repository is larger than allowed")
        } else if self.has("[rejected]") || self.has("non-fast-forward") {
            ("push_rejected", "the other side has commits that are not here: pull first")
        } else {
            return conflict("git_failed", format!("git: {}", self.said()));
        };
        conflict(reason, message)
    }
}
