//! Why a command did not run.

use std::io;
use std::path::PathBuf;

use crate::config::{Missing, Network};

/// Why a command did not run. What a command itself does wrong is a [`Finished`](crate::Finished).
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The sandbox of this machine holds less than the configuration asks for.
    #[error("the sandbox is unavailable: {}", list(missing))]
    Unavailable {
        /// What is missing, never empty.
        missing: Vec<Missing>,
    },
    /// This kind of network needs namespaces, which are missing.
    #[error("the network cannot be `{network:?}` here: it needs namespaces")]
    NetworkUnavailable {
        /// What was asked for.
        network: Network,
    },
    /// The request cannot be carried out on any machine.
    #[error("the request makes no sense: {reason}")]
    InvalidRequest {
        /// What is wrong with it.
        reason: String,
    },
    /// The project, the scratch directory or the working directory is not a directory that the sandbox
    /// can use: it is missing, a link, not a directory, or closed to the user that commands run as.
    #[error("`{}` cannot be used as {role}: {reason}", path.display())]
    Directory {
        /// `project`, `scratch directory`, `working directory` or `protected path`.
        role: String,
        /// Which one.
        path: PathBuf,
        /// What the kernel said of it.
        reason: String,
    },
    /// The program could not be started.
    #[error("`{program}` cannot be run: {reason}")]
    Program {
        /// The first of the arguments.
        program: String,
        /// What the kernel said.
        reason: String,
    },
    /// A part of the sandbox could not be put in place, so nothing ran.
    #[error("the sandbox failed at {step}: {reason}")]
    Setup {
        /// Which part.
        step: String,
        /// What the kernel said.
        reason: String,
    },
    /// The launcher could not be started or talked to, or died without a word.
    #[error("the launcher of the sandbox failed")]
    Launcher {
        /// What happened.
        #[source]
        source: io::Error,
    },
}

fn list(missing: &[Missing]) -> String {
    let all: Vec<String> = missing.iter().map(Missing::to_string).collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_in_the_message() {
        let missing = vec![
            Missing { feature: "landlock".to_owned(), reason: "ABI 5".to_owned() },
            Missing { feature: "seccomp".to_owned(), reason: "not built in".to_owned() },
        ];
        assert_eq!(
            SandboxError::Unavailable { missing }.to_string(),
            "the sandbox is unavailable: landlock: ABI 5; seccomp: not built in"
        );
    }
}
