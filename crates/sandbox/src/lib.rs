//! Runs the commands of tools where they can do no harm.
//!
//! [`Sandbox::start`] tries to break out of the sandbox this machine can offer and learns its [`Tier`];
//! [`Sandbox::run`] runs one command in it, [`Sandbox::open`] one that is talked to meanwhile. Everything happens in a process of its own, the launcher,
//! which is the same executable started again: its `main` calls [`launcher_main`] before anything else.
//! docs/sandbox.md says what each tier holds and what it does not.
//!
//! ```no_run
//! # async fn example() -> Result<(), iris_sandbox::SandboxError> {
//! use iris_sandbox::{Command, Config, Request, Sandbox, Status};
//!
//! let sandbox = Sandbox::start(Config::default()).await;
//! let command = Command::Shell("cargo test".to_owned());
//! let request = Request::new(command, "/srv/iris/project".into(), "/srv/iris/scratch".into());
//! let finished = sandbox.run(request).await?;
//! if finished.status == Status::Exited(0) {
//!     println!("{}", finished.output.text());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Deliberately absent: who may run what, and any way to run a command without a sandbox.

mod config;
mod error;
mod output;
mod request;
mod talk;
mod validation;

#[cfg(target_os = "linux")]
mod launcher;
#[cfg(target_os = "linux")]
mod policy;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod sharing;

#[cfg(not(target_os = "linux"))]
mod elsewhere;

pub use config::{Config, Limits, Missing, Network, Tier};
pub use error::SandboxError;
pub use output::{Output, plain_text};
pub use request::{Command, Finished, Request, Shortage, Space, Status};
pub use talk::Talk;

#[cfg(not(target_os = "linux"))]
pub use elsewhere::{Running, Sandbox, hide_memory, launcher_main, share_directory};
#[cfg(target_os = "linux")]
pub use launcher::{hide_memory, launcher_main};
#[cfg(target_os = "linux")]
pub use sandbox::{Running, Sandbox};
#[cfg(target_os = "linux")]
pub use sharing::share_directory;

/// The first argument with which an executable is started as launcher.
pub const LAUNCHER_ARGUMENT: &str = "__sandbox";
/// Most bytes that a command can be given on its standard input.
pub const STDIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of output that are kept unless a request says otherwise: the first and the last half of them.
pub const OUTPUT_BYTES_DEFAULT: usize = 1024 * 1024;
/// What is protected in a project: a command inside cannot change it where the tier allows to hold that.
pub const PROTECTED_PATHS: [&str; 4] = [".git", ".git/config", ".git/hooks", ".iris"];
