//! `iris demo`.

use std::process::ExitCode;

/// What the demo runs on.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoOptions {
    /// `openai-compatible/NAME` to run it on a real model
    #[arg(long, requires = "base_url")]
    pub model: Option<String>,
    /// Base URL of the real model's provider
    #[arg(long, requires = "model")]
    pub base_url: Option<String>,
}

/// Runs the demo.
pub fn run(_options: DemoOptions) -> ExitCode {
    ExitCode::FAILURE
}
