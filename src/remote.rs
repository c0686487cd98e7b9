//! The server that a command for operators speaks to: where it is, who asks, and how failures end
//! the command.

pub(crate) mod text;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use iris_client::{Client, ClientError};

use self::text::visible;

/// Where `iris serve` listens unless told otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:4747";
/// How long one request may take: an operator would rather see that it failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The server cannot be reached, or it refused.
const EXIT_FAILED: u8 = 1;
/// The command line asks for what cannot be, as clap itself says it.
const EXIT_USAGE: u8 = 2;

/// Which server, and as whom. Has no `Debug`: it holds secrets.
#[derive(Clone, clap::Args)]
pub struct Remote {
    /// Where the server is
    #[arg(long, env = "IRIS_URL", default_value = URL_DEFAULT)]
    pub url: String,
    /// Access token of a server administrator; good for as long as the token is
    #[arg(long, env = "IRIS_TOKEN", hide_env_values = true, required_unless_present = "email")]
    pub token: Option<String>,
    /// Log in as this administrator instead, with the password in `IRIS_PASSWORD`
    #[arg(long, requires = "password")]
    pub email: Option<String>,
    /// Hidden, so that nobody is led to show it in the list of processes
    #[arg(long, env = "IRIS_PASSWORD", hide = true, hide_env_values = true)]
    pub password: Option<String>,
}

/// Why a command for operators could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// It was asked for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The server did not answer as it should, or refused.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The terminal, standard output or standard input.
    #[error("terminal: {0}")]
    Terminal(#[from] io::Error),
}

impl Remote {
    /// A client of the server. Logs in when that was asked for.
    ///
    /// # Errors
    /// `Usage` when the URL is none, `Client` when the login fails.
    pub(crate) async fn client(&self) -> Result<Client, RemoteError> {
        self.client_within(REQUEST_TIMEOUT).await
    }

    /// The same, for requests that may take this long.
    ///
    /// # Errors
    /// As [`Remote::client`].
    pub(crate) async fn client_within(&self, timeout: Duration) -> Result<Client, RemoteError> {
        let client = Client::with_timeout(&self.url, timeout)
            .map_err(|error| RemoteError::Usage(explain(&error)))?;
        let (Some(email), Some(password)) = (&self.email, &self.password) else {
            return Ok(client.with_token(self.token.clone().unwrap_or_default()));
        };
        let grant = client.login(email, password).await?;
        Ok(client.with_grant(&grant))
    }

    /// Ends the login that [`Remote::client`] made, when it made one.
    pub(crate) async fn leave(&self, client: &Client) {
        if self.email.is_some() {
            // It would end by itself when nobody refreshes it.
            client.logout().await.ok();
        }
    }
}

/// Runs a command on a runtime of its own, and says on standard error why it failed.
pub(crate) fn block_on(
    verb: &str,
    command: impl Future<Output = Result<(), RemoteError>>,
) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(RemoteError::Terminal).and_then(|runtime| runtime.block_on(command)) {
        Ok(()) => ExitCode::SUCCESS,
        // Who read the output has gone, and wants no more.
        Err(RemoteError::Terminal(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let (code, text) = match &error {
                RemoteError::Usage(text) => (EXIT_USAGE, text.clone()),
                RemoteError::Client(error) => (EXIT_FAILED, explain(error)),
                RemoteError::Terminal(_) => (EXIT_FAILED, error.to_string()),
            };
            say(verb, &text);
            ExitCode::from(code)
        }
    }
}

/// One line on standard error.
pub(crate) fn say(verb: &str, text: &str) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr(), "iris: {verb}: {}", visible(text)));
}

/// A failure with its first cause, in one line. What stands between them repeats the two.
pub(crate) fn explain(error: &ClientError) -> String {
    let Some(mut cause) = error.source() else { return error.to_string() };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    format!("{error}: {cause}")
}

#[cfg(test)]
mod tests {
    use iris_protocol::{ApiError, ErrorCode};

    use super::*;

    #[test]
    fn a_failure_is_told_with_its_code_or_its_causes() {
        let denied = ApiError::new(ErrorCode::Forbidden, "administrators only");
        let text = explain(&ClientError::Api(denied));
        assert_eq!(text, "FORBIDDEN: administrators only");
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "refused");
        let text = explain(&ClientError::Transport(Box::new(refused)));
        assert_eq!(text, "no connection to the server: refused");
    }
}
