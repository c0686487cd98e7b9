//! A tool that runs one command in the sandbox, as `bash` does.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::BoxFuture;
use iris_agent::permissions::{Access, Target};
use iris_protocol::{CommandTool, ToolKind};
use iris_sandbox::{Command, Request, Sandbox};
use iris_workspace::RelPath;
use serde_json::Value;

use super::{About, InvalidDefinition, invalid};
use crate::Tool;
use crate::bash::{AFTER_TIMEOUT, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX, answer, network, watched};
use crate::builtin::{shown, target};
use crate::context::ToolContext;
use crate::error::ToolError;
use crate::output::ToolOutput;

/// How long a command may run where its tool does not say, in milliseconds.
pub const COMMAND_TIMEOUT_MS_DEFAULT: u64 = TIMEOUT_MS_DEFAULT;
/// The longest that it may say.
pub const COMMAND_TIMEOUT_MS_MAX: u64 = TIMEOUT_MS_MAX;
/// Most words of a command.
const WORDS_MAX: usize = 64;
/// Most bytes of all of them: people have to read them.
const WORDS_BYTES_MAX: usize = 4096;

/// A tool that runs one command.
pub(super) struct CustomCommand {
    about: About,
    argv: Vec<String>,
    workdir: Option<String>,
    timeout: Duration,
    sandbox: Option<Sandbox>,
}

impl CustomCommand {
    pub(super) fn new(
        about: About,
        command: &CommandTool,
        sandbox: Option<Sandbox>,
    ) -> Result<Self, InvalidDefinition> {
        let CommandTool { argv, workdir, timeout_ms } = command;
        let bytes: usize = argv.iter().map(String::len).sum();
        if argv.first().is_none_or(String::is_empty) {
            return Err(invalid("`command.argv` must name a program"));
        }
        if argv.len() > WORDS_MAX || bytes > WORDS_BYTES_MAX {
            return Err(invalid(format!(
                "`command.argv` must have at most {WORDS_MAX} words and {WORDS_BYTES_MAX} bytes"
            )));
        }
        if argv.iter().any(|word| word.contains(char::is_control)) {
            return Err(invalid("`command.argv` must not have control characters"));
        }
        if let Some(workdir) = workdir
            && RelPath::dir(workdir).is_err()
        {
            return Err(invalid("`command.workdir` must be a path in the project's directory"));
        }
        if !(1..=TIMEOUT_MS_MAX).contains(timeout_ms) {
            return Err(invalid(format!("`command.timeoutMs` must be 1 to {TIMEOUT_MS_MAX}")));
        }
        Ok(Self {
            about,
            argv: argv.clone(),
            workdir: workdir.clone(),
            timeout: Duration::from_millis(*timeout_ms),
            sandbox,
        })
    }

    fn line(&self) -> String {
        self.argv.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

impl Tool for CustomCommand {
    fn name(&self) -> &str {
        &self.about.name
    }

    fn description(&self) -> &str {
        &self.about.description
    }

    fn parameters(&self) -> &Value {
        &self.about.parameters
    }

    fn kind(&self) -> ToolKind {
        ToolKind::Command
    }

    fn writes(&self) -> bool {
        true
    }

    fn runs_code(&self) -> bool {
        true
    }

    fn unavailable(&self) -> Option<ToolError> {
        match &self.sandbox {
            Some(sandbox) => sandbox.check().err().map(ToolError::Sandbox),
            None => Some(ToolError::NoSandbox),
        }
    }

    fn time_limit(&self, _: &Value) -> Option<Duration> {
        Some(self.timeout + AFTER_TIMEOUT)
    }

    /// The words of the command, as a shell would be given them; and where it starts.
    fn accesses(&self, _: &Value) -> Vec<Access> {
        let access = |target| Access::of(self.about.name.clone(), target);
        let mut accesses = vec![access(Target::Text(self.line()))];
        match self.workdir.as_deref().map(target) {
            None => {}
            Some(Target::Path(path)) if path == "." => {}
            Some(Target::Path(path)) => accesses.push(access(Target::Text(format!("cd {path}")))),
            Some(outside @ (Target::Outside(_) | Target::Text(_) | Target::Opaque(_))) => {
                accesses.push(access(outside));
            }
        }
        accesses
    }

    fn summary(&self, _: &Value) -> String {
        let (what, line) = (self.about.summary(), shown(&self.line()));
        let place = self.workdir.as_deref().map(|it| format!(" in {}", shown(it)));
        format!("{what}: run {line}{}", place.unwrap_or_default())
    }

    fn run(
        &self,
        ctx: ToolContext,
        input: Value,
    ) -> BoxFuture<'static, Result<ToolOutput, ToolError>> {
        let sandbox = self.sandbox.clone();
        let (argv, timeout) = (self.argv.clone(), self.timeout);
        let workdir = self.workdir.as_deref().map(PathBuf::from).unwrap_or_default();
        Box::pin(async move {
            let sandbox = sandbox.ok_or(ToolError::NoSandbox)?;
            let Some(places) = &ctx.places else { return Err(ToolError::NoDirectory) };
            places.prepare(&sandbox).await.map_err(|source| ToolError::Directory { source })?;
            let request = Request {
                workdir,
                timeout,
                network: network(&ctx.judge),
                space: places.space,
                stdin: Some(input.to_string().into_bytes()),
                ..Request::new(
                    Command::Arguments(argv),
                    places.project.clone(),
                    places.scratch.clone(),
                )
            };
            let finished = watched(&sandbox, request, &ctx).await?;
            Ok(answer(&finished, timeout))
        })
    }
}

/// A word as a POSIX shell takes it for itself alone, so that no two commands are the same line.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-+=./:,@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(argv: &[&str], workdir: Option<&str>) -> Result<CustomCommand, InvalidDefinition> {
        let about = About {
            id: "tol_1".to_owned(),
            revision: 2,
            name: "deploy".to_owned(),
            description: "Deploys.".to_owned(),
            parameters: json!({ "type": "object" }),
        };
        let command = CommandTool {
            argv: argv.iter().map(|word| (*word).to_owned()).collect(),
            workdir: workdir.map(str::to_owned),
            timeout_ms: 1_000,
        };
        CustomCommand::new(about, &command, None)
    }

    #[test]
    fn rules_and_people_see_the_words_as_they_are() {
        let tool = made(&["git", "commit", "-m", "it's; rm -rf x", ""], Some("sub/./dir")).unwrap();
        let line = r"git commit -m 'it'\''s; rm -rf x' ''";
        let text = |text: &str| Access::of("deploy", Target::Text(text.to_owned()));
        assert_eq!(tool.accesses(&json!({})), [text(line), text("cd sub/dir")]);
        let summary = tool.summary(&json!({}));
        assert!(summary.starts_with("call the tool `deploy` (revision 2 of tol_1): run `git"));
        assert_eq!(made(&["ls"], Some(".")).unwrap().accesses(&json!({})), [text("ls")]);
        assert!(tool.runs_code() && tool.writes());
        assert!(matches!(tool.unavailable(), Some(ToolError::NoSandbox)));
    }

    #[test]
    fn what_cannot_run_or_be_read_is_refused() {
        let long = "x".repeat(WORDS_BYTES_MAX + 1);
        for argv in [&[][..], &[""], &["a\nb"], &["a", "\u{1b}[0m"], &[&long], &["a"; 65]] {
            assert!(made(argv, None).is_err(), "{argv:?}");
        }
        for workdir in ["..", "/etc", "a/../.."] {
            assert!(made(&["ls"], Some(workdir)).is_err(), "{workdir}");
        }
    }
}
