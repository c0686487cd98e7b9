//! Prints a recorded provider stream as the events that Iris makes of it, one JSON object a line.
//!
//! `cargo run -q -p iris-llm --example replay -- PROVIDER FILE`, where PROVIDER is a kind as in the
//! configuration and FILE holds the body of the answer as it came. An error, be it recorded or of
//! the parser, is printed as `{"error": {..}}` and makes the exit code 1.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

use std::process::ExitCode;

use bytes::Bytes;
use futures_util::StreamExt;
use iris_llm::{ModelStream, ProviderKind, replay};
use serde_json::json;

/// Bytes of the pieces into which the recording is cut: odd, so that characters, lines and events
/// are torn apart as a network would.
const PIECE_BYTES: usize = 7;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [provider, file] = arguments.as_slice() else {
        eprintln!("usage: replay PROVIDER FILE");
        return ExitCode::from(2);
    };
    let stream = match open(provider, file) {
        Ok(stream) => stream,
        Err(message) => {
            eprintln!("replay: {message}");
            return ExitCode::from(2);
        }
    };
    print(stream).await
}

fn open(provider: &str, file: &str) -> Result<ModelStream, String> {
    let kind = provider.parse::<ProviderKind>().map_err(|error| error.to_string())?;
    let body = std::fs::read(file).map_err(|error| format!("cannot read `{file}`: {error}"))?;
    let pieces = body.chunks(PIECE_BYTES).map(Bytes::copy_from_slice).collect();
    replay(kind, pieces).ok_or_else(|| format!("`{provider}` has no recordings"))
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
