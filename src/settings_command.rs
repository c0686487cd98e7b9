//! `iris config`: whether the configuration is right, and every setting there is.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::config::{Config, Flags, reference_file, reference_json};
use crate::exit;

/// What `iris config` is asked for.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ConfigOptions {
    #[command(flatten)]
    flags: Flags,
    /// Look whether a server would take the configuration (the default)
    #[arg(long, conflicts_with_all = ["print_default", "explain"])]
    check: bool,
    /// Print a file with every setting at its default
    #[arg(long)]
    print_default: bool,
    /// Print it with values, defaults, variables and when a change counts
    #[arg(long)]
    explain: bool,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `iris config`. It ends with 0, with 78 where the configuration is wrong, and with 1 where nobody takes its
/// output.
pub fn run(options: ConfigOptions) -> ExitCode {
    let ConfigOptions { flags, check: _, print_default, explain, json } = options;
    let (text, code) = if print_default || explain {
        let text = if json { format!("{:#}\n", reference_json()) } else { reference_file(explain) };
        (text, ExitCode::SUCCESS)
    } else {
        checked(flags, json)
    };
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// What is wrong with the configuration of this process.
fn checked(flags: Flags, as_json: bool) -> (String, ExitCode) {
    match Config::from_process(flags) {
        Ok((_, warnings)) if as_json => {
            (format!("{}\n", json!({ "ok": true, "warnings": warnings })), ExitCode::SUCCESS)
        }
        Ok((_, warnings)) => {
            let mut lines: Vec<String> =
                warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
            lines.push("the configuration is right\n".to_owned());
            (lines.concat(), ExitCode::SUCCESS)
        }
        Err(error) => {
            let mut says = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                says = format!("{says}: {source}");
            }
            let text = if as_json {
                format!("{}\n", json!({ "ok": false, "error": says, "key": error.key() }))
            } else {
                format!("failed: {says}\n`iris config --explain` says what each setting may be\n")
            };
            (text, ExitCode::from(exit::CONFIG))
        }
    }
}
