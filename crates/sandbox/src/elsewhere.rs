//! What there is on systems without Landlock and namespaces: nothing, said clearly.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, Missing, Tier};
use crate::error::SandboxError;
use crate::request::{Finished, Request, Status};
use crate::talk::Talk;
use crate::validation;

/// A command that is talked to: there is none on this system.
#[derive(Debug)]
pub enum Running {}

impl Running {
    /// Never called.
    ///
    /// # Errors
    ///
    /// None.
    #[expect(clippy::unused_async, reason = "on Linux it waits")]
    pub async fn ended(&mut self) -> Result<Status, SandboxError> {
        match *self {}
    }
}

/// A sandbox that never runs anything: there is one for Linux only.
#[derive(Clone, Debug)]
pub struct Sandbox {
    minimum: Tier,
    missing: Vec<Missing>,
}

impl Sandbox {
    /// Finds that there is no sandbox on this system.
    #[expect(clippy::unused_async, reason = "on Linux it runs commands")]
    pub async fn start(config: Config) -> Self {
        let reason = format!("there is no sandbox for {}", std::env::consts::OS);
        Self {
            minimum: config.minimum,
            missing: vec![Missing { feature: "Linux".to_owned(), reason }],
        }
    }

    /// Always [`Tier::S0`].
    pub fn tier(&self) -> Tier {
        Tier::S0
    }

    /// What has to be held for commands to run.
    pub fn minimum(&self) -> Tier {
        self.minimum
    }

    /// That this is not Linux.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Always `None`.
    pub fn identity(&self) -> Option<(u32, u32)> {
        None
    }

    /// Whether commands can run: they cannot.
    ///
    /// # Errors
    ///
    /// Always `Unavailable`.
    pub fn check(&self) -> Result<(), SandboxError> {
        Err(SandboxError::Unavailable { missing: self.missing.clone() })
    }

    /// Runs nothing.
    ///
    /// # Errors
    ///
    /// `Unavailable`, or `InvalidRequest` for what makes no sense anywhere.
    #[expect(clippy::unused_async, reason = "on Linux it waits")]
    pub async fn run(&self, request: Request) -> Result<Finished, SandboxError> {
        validation::check(&request)?;
        self.check()?;
        Err(SandboxError::Unavailable { missing: self.missing.clone() })
    }

    /// Starts nothing.
    ///
    /// # Errors
    ///
    /// As [`Sandbox::run`].
    pub fn open(&self, request: Request) -> Result<Talk, SandboxError> {
        validation::check(&request)?;
        validation::check_talk(&request)?;
        self.check()?;
        Err(SandboxError::Unavailable { missing: self.missing.clone() })
    }

    /// Does nothing: commands run as nobody.
    ///
    /// # Errors
    ///
    /// None.
    pub fn share_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Does nothing: nothing starts a launcher on this system.
pub fn launcher_main() -> ExitCode {
    ExitCode::FAILURE
}

/// Does nothing on this system.
///
/// # Errors
///
/// `Unsupported`.
pub fn hide_memory() -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Does nothing on this system.
///
/// # Errors
///
/// `Unsupported`.
pub fn share_directory(_path: &Path, _uid: u32, _gid: u32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
