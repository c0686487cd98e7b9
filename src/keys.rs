//! `iris keys`: the master key of a server, changed while it runs.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use iris_client::Client;
use iris_protocol::KeysRotated;

use crate::maintenance::{self, Place};
use crate::remote::text::json_line;
use crate::remote::{self, Remote, RemoteError};

/// How long it may take to open every project and to seal its secrets anew.
const ROTATION_TIMEOUT: Duration = Duration::from_hours(1);

/// `iris keys`.
#[derive(Clone, clap::Args)]
pub struct KeysOptions {
    #[command(subcommand)]
    verb: KeysVerb,
}

#[derive(Clone, Subcommand)]
enum KeysVerb {
    /// Have a server that runs make a new master key and seal everything anew that is secret at rest
    Rotate(RotateOptions),
    /// Put a new master key in the place of the one of now; the server must not run, and seals everything
    /// anew when it does
    RotateOffline(Place),
}

/// Which server.
#[derive(Clone, clap::Args)]
struct RotateOptions {
    #[command(flatten)]
    remote: Remote,
    /// Print the answer as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(options: &KeysOptions) -> ExitCode {
    match &options.verb {
        KeysVerb::Rotate(options) => remote::block_on("keys", rotate(options)),
        KeysVerb::RotateOffline(place) => maintenance::rotate_offline(place),
    }
}

async fn rotate(options: &RotateOptions) -> Result<(), RemoteError> {
    let client = options.remote.client_within(ROTATION_TIMEOUT).await?;
    let outcome = rotate_with(&client, options.json).await;
    options.remote.leave(&client).await;
    outcome
}

async fn rotate_with(client: &Client, is_json: bool) -> Result<(), RemoteError> {
    let rotated = client.rotate_keys().await?;
    let line = if is_json { json_line(&rotated).map_err(io::Error::from)? } else { told(&rotated) };
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

fn told(rotated: &KeysRotated) -> String {
    let KeysRotated { is_new, sealed, projects_left } = rotated;
    let key =
        if *is_new { "with a new master key" } else { "with the master key of a change before" };
    let then = match projects_left {
        0 => "the old key goes within a minute, once nothing needs it".to_owned(),
        left => format!("{left} projects could not be opened, the server tries again by itself"),
    };
    format!("sealed {sealed} secrets {key}; {then}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_it_is_told_in_one_line() {
        let done = told(&KeysRotated { is_new: true, sealed: 3, projects_left: 0 });
        assert!(
            done.starts_with("sealed 3 secrets with a new master key; the old key goes"),
            "{done}"
        );
        let left = told(&KeysRotated { is_new: false, sealed: 0, projects_left: 2 });
        assert!(left.contains("of a change before; 2 projects could not be opened"), "{left}");
    }
}
