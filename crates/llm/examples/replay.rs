//! Prints a recorded provider stream as the events that Iris makes of it, one JSON object a line.
//!
//! `cargo run -q -p iris-llm --example replay -- PROVIDER FILE`, where PROVIDER is a kind as in the
//! configuration and FILE holds the body of the answer as it came. An error, be it recorded or of
//! the parser, is printed as `{"error": {..}}` and makes the exit code 1.
//!
//! `cargo run -q -p iris-llm --example replay -- DIRECTORY` replays every `*.sse` and `*.ndjson` below a
//! directory and prints a line for each. The wire follows from the address in the file beside it, of the
//! same name with `.json` at its end. The exit code is 1 when one of them is cut off, is not understood
//! or lacks its usage, or when a call in it is not whole; an error that the provider itself reports is
//! only listed.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use futures_util::StreamExt;
use iris_llm::{
    ErrorClass, Finish, ModelError, ModelEvent, ModelStream, ProviderKind, parse_arguments, replay,
};
use serde_json::json;

/// Bytes of the pieces into which the recording is cut: odd, so that characters, lines and events
/// are torn apart as a network would.
const PIECE_BYTES: usize = 7;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [directory] => match replay_all(Path::new(directory)).await {
            Ok(code) => code,
            Err(message) => fail(&message),
        },
        [provider, file] => match provider.parse::<ProviderKind>() {
            Ok(kind) => match open(kind, Path::new(file)) {
                Ok(stream) => print(stream).await,
                Err(message) => fail(&message),
            },
            Err(error) => fail(&error.to_string()),
        },
        _ => {
            eprintln!("usage: replay PROVIDER FILE | replay DIRECTORY");
            ExitCode::from(2)
        }
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("replay: {message}");
    ExitCode::from(2)
}

fn open(kind: ProviderKind, file: &Path) -> Result<ModelStream, String> {
    let body = std::fs::read(file)
        .map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
    let pieces = body.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect();
    replay(kind, pieces).ok_or_else(|| format!("`{}` has no recordings", kind.as_str()))
}

async fn print(mut stream: ModelStream) -> ExitCode {
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => println!("{}", json!(event)),
            Err(error) => {
                println!("{}", json!({ "error": error }));
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

async fn replay_all(directory: &Path) -> Result<ExitCode, String> {
    let mut files = Vec::new();
    find(directory, &mut files)?;
    files.sort();
    let (mut bad, mut reported) = (0, 0);
    for file in &files {
        let kind = kind_of(file)?;
        let mut found = Found::default();
        let mut stream = open(kind, file)?;
        while let Some(event) = stream.next().await {
            found.add(event);
        }
        let problem = found.problem();
        bad += usize::from(problem.is_some());
        reported += usize::from(found.error.is_some());
        let name = file.strip_prefix(directory).unwrap_or(file).display();
        let verdict = problem.as_deref().unwrap_or("ok");
        println!("{verdict}: {} {} {name}", kind.as_str(), found.summary());
    }
    println!("{} recordings, {bad} bad, {reported} errors", files.len());
    Ok(if bad == 0 && !files.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn find(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    let unreadable = |error| format!("cannot read `{}`: {error}", directory.display());
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let extension = path.extension().and_then(|it| it.to_str());
        if path.is_dir() {
            find(&path, files)?;
        } else if matches!(extension, Some("sse" | "ndjson")) {
            files.push(path);
        }
    }
    Ok(())
}

fn kind_of(file: &Path) -> Result<ProviderKind, String> {
    let beside = file.with_extension("json");
    let text = std::fs::read_to_string(&beside)
        .map_err(|error| format!("cannot read `{}`: {error}", beside.display()))?;
    let known = [
        ("/chat/completions", ProviderKind::OpenAiCompatible),
        ("/messages", ProviderKind::Anthropic),
        ("/responses", ProviderKind::OpenAi),
        ("streamGenerateContent", ProviderKind::Google),
        ("/api/chat", ProviderKind::Ollama),
    ];
    let meta: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let address = ["uri", "url"].into_iter().find_map(|key| meta.get(key)?.as_str());
    let address = address.unwrap_or_default();
    let kind = known.into_iter().find(|(part, _)| address.contains(part));
    kind.map(|(_, kind)| kind).ok_or_else(|| format!("`{}` names no known wire", beside.display()))
}

/// What came out of one recording.
#[derive(Default)]
struct Found {
    text: usize,
    reasoning: usize,
    opaque: usize,
    provider_tools: usize,
    calls: usize,
    broken_calls: usize,
    has_usage: bool,
    finish: Option<Finish>,
    error: Option<ModelError>,
}

impl Found {
    fn add(&mut self, event: Result<ModelEvent, ModelError>) {
        match event {
            Ok(ModelEvent::TextDelta { text, .. }) => self.text += text.len(),
            Ok(ModelEvent::ReasoningDelta { text, .. }) => self.reasoning += text.len(),
            Ok(ModelEvent::TextOpaque { .. } | ModelEvent::ReasoningOpaque { .. }) => {
                self.opaque += 1;
            }
            Ok(ModelEvent::ProviderTool { opaque, .. }) => {
                self.provider_tools += 1;
                self.opaque += usize::from(opaque.is_some());
            }
            Ok(ModelEvent::ToolCall { arguments, is_complete, opaque, .. }) => {
                self.calls += 1;
                self.opaque += usize::from(opaque.is_some());
                let is_broken = !is_complete || parse_arguments(&arguments).is_err();
                self.broken_calls += usize::from(is_broken);
            }
            Ok(ModelEvent::Usage(_)) => self.has_usage = true,
            Ok(ModelEvent::Finish { reason, .. }) => self.finish = Some(reason),
            Ok(
                ModelEvent::Start { .. }
                | ModelEvent::TextStart { .. }
                | ModelEvent::TextEnd { .. }
                | ModelEvent::ReasoningStart { .. }
                | ModelEvent::ReasoningEnd { .. }
                | ModelEvent::ToolInputStart { .. }
                | ModelEvent::ToolInputDelta { .. }
                | ModelEvent::UsageSoFar(_),
            ) => {}
            Err(error) => self.error = Some(error),
        }
    }

    fn problem(&self) -> Option<String> {
        if let Some(error) = &self.error {
            let is_ours = error.class == ErrorClass::Protocol || *error == ModelError::truncated();
            return is_ours.then(|| format!("BAD `{error}`"));
        }
        match self.finish {
            None => Some("BAD no finish".to_owned()),
            Some(Finish::Other) => Some("BAD unknown finish".to_owned()),
            Some(_) if self.broken_calls > 0 => Some("BAD call".to_owned()),
            Some(_) if !self.has_usage => Some("BAD no usage".to_owned()),
            Some(_) if self.text + self.calls + self.provider_tools == 0 => {
                Some("BAD nothing said".to_owned())
            }
            Some(_) => None,
        }
    }

    fn summary(&self) -> String {
        let Self { text, reasoning, opaque, provider_tools, calls, .. } = self;
        let end = match (&self.error, self.finish) {
            (Some(error), _) => format!("reports {} `{error}`", error.class.as_str()),
            (None, finish) => finish.map(|finish| json!(finish).to_string()).unwrap_or_default(),
        };
        format!(
            "text={text} reasoning={reasoning} calls={calls} tools={provider_tools} opaque={opaque} {end}"
        )
    }
}
