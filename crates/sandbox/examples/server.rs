//! Stands for a server, for tests: runs one line of shell in a sandbox and prints how it ended.
//!
//! `server <launcher> <user or -> <namespaces: yes or no> <project> <scratch> <line>`; the output is
//! printed as it comes. With a last argument `talk` it is a line that is talked to.

#![expect(clippy::print_stdout, reason = "a test reads it")]

use std::path::PathBuf;
use std::process::ExitCode;

use iris_sandbox::{Command, Config, Request, Sandbox};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [launcher, uid, namespaces, project, scratch, line, rest @ ..] = arguments.as_slice()
    else {
        return ExitCode::FAILURE;
    };
    let config = Config {
        launcher: Some(PathBuf::from(launcher)),
        uid: uid.parse().ok(),
        namespaces: namespaces == "yes",
        ..Config::default()
    };
    let sandbox = Sandbox::start(config).await;
    let command = Command::Shell(line.clone());
    let mut request = Request::new(command, PathBuf::from(project), PathBuf::from(scratch));
    if rest.first().is_some_and(|word| word == "talk") {
        let Ok(mut talk) = sandbox.open(request) else { return ExitCode::FAILURE };
        println!("{:?}", talk.running.ended().await);
        return ExitCode::SUCCESS;
    }
    let (progress, mut pieces) = tokio::sync::mpsc::channel(16);
    request.progress = Some(progress);
    let printing = tokio::spawn(async move {
        while let Some(piece) = pieces.recv().await {
            print!("{}", iris_sandbox::plain_text(&piece));
        }
    });
    match sandbox.run(request).await {
        Ok(finished) => {
            drop(printing.await);
            println!("{:?}", finished.status);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
