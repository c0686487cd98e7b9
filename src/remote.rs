//! The server that a command for operators speaks to: where it is, who asks, and how failures end
//! the command.

pub(crate) mod credentials;
pub(crate) mod prompt;
pub(crate) mod text;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use iris_client::{Client, ClientError};
use zeroize::Zeroizing;

use self::text::visible;
use crate::exit;

/// Where `iris serve` listens unless told otherwise.
const URL_DEFAULT: &str = "http://127.0.0.1:4747";
/// How long one request may take: an operator would rather see that it failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The variables that commands read of which a server knows nothing.
pub(crate) const VARIABLES: [&str; 4] =
    ["IRIS_URL", "IRIS_TOKEN", "IRIS_PASSWORD", "IRIS_CREDENTIALS_FILE"];

/// Which server, and as whom. Has no `Debug`: it holds secrets.
#[derive(Clone, clap::Args)]
pub struct Remote {
    /// Where the server is
    #[arg(long, env = "IRIS_URL", default_value = URL_DEFAULT)]
    pub url: String,
    /// Access token or API key; without it and without `--email`, the login of `iris login`
    #[arg(long, env = "IRIS_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Log in as this user instead, for as long as the command runs, with the password in
    /// `IRIS_PASSWORD` or from the terminal
    #[arg(long)]
    pub email: Option<String>,
    /// Hidden, so that nobody is led to show it in the list of processes
    #[arg(long, env = "IRIS_PASSWORD", hide = true, hide_env_values = true)]
    pub password: Option<String>,
}

/// Why a command at a server could not go on.
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
    /// The file with the logins.
    #[error("the kept logins: {0}")]
    Credentials(#[source] io::Error),
}

impl Remote {
    /// A client of the server. Logs in when that was asked for.
    ///
    /// # Errors
    /// `Usage` when the URL is none or nobody is logged in, `Client` when the login fails.
    pub(crate) async fn client(&self) -> Result<Client, RemoteError> {
        self.client_within(REQUEST_TIMEOUT).await
    }

    /// The same, for requests that may take this long.
    ///
    /// # Errors
    /// As [`Remote::client`].
    pub(crate) async fn client_within(&self, timeout: Duration) -> Result<Client, RemoteError> {
        let client = self.stranger(timeout)?;
        if let Some(email) = &self.email {
            let password = self.password_of(email)?;
            let grant = client.login(email, &password).await?;
            return Ok(client.with_grant(&grant));
        }
        if let Some(token) = self.token.as_deref().filter(|token| !token.is_empty()) {
            return Ok(client.with_token(token));
        }
        let kept = credentials::of(client.base_url()).map_err(RemoteError::Credentials)?;
        let Some((tokens, store)) = kept else {
            let text = format!(
                "nobody is logged in at `{}`: run `iris login`, set `IRIS_TOKEN` to a token or an API \
                 key, or give `--email`",
                self.url
            );
            return Err(RemoteError::Usage(text));
        };
        Ok(client.with_store(tokens, store))
    }

    /// A client of the server for nobody yet.
    ///
    /// # Errors
    /// `Usage` when the URL is none.
    pub(crate) fn stranger(&self, timeout: Duration) -> Result<Client, RemoteError> {
        Client::with_timeout(&self.url, timeout)
            .map_err(|error| RemoteError::Usage(explain(&error)))
    }

    /// The password of a user: the one that was given, or what is typed on the terminal.
    ///
    /// # Errors
    /// `Usage` without either.
    pub(crate) fn password_of(&self, email: &str) -> Result<Zeroizing<String>, RemoteError> {
        match &self.password {
            Some(password) => Ok(Zeroizing::new(password.clone())),
            None => prompt::secret(&format!("Password of {email}: ")),
        }
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
    block_on_code(verb, async { command.await.map(|()| exit::OK) })
}

/// The same for a command that knows how it ended.
pub(crate) fn block_on_code(
    verb: &str,
    command: impl Future<Output = Result<u8, RemoteError>>,
) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = runtime.map_err(RemoteError::Terminal).and_then(|runtime| {
        let ended = runtime.block_on(command);
        // A thread that waits for a key or a line would be waited for.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(code) => ExitCode::from(code),
        // Who read the output has gone, and wants no more.
        Err(RemoteError::Terminal(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(RemoteError::Terminal(error)) if error.kind() == io::ErrorKind::Interrupted => {
            ExitCode::from(exit::INTERRUPTED)
        }
        Err(error) => {
            let (code, text) = told(&error);
            say(verb, &text);
            ExitCode::from(code)
        }
    }
}

/// How a command ends that failed, and what is said of it.
fn told(error: &RemoteError) -> (u8, String) {
    match error {
        RemoteError::Usage(text) => (exit::USAGE, text.clone()),
        RemoteError::Client(error) => {
            let next = exit::next_step(error).map(|next| format!("; {next}")).unwrap_or_default();
            (exit::of(error), explain(error) + &next)
        }
        RemoteError::Terminal(_) | RemoteError::Credentials(_) => (exit::FAILED, error.to_string()),
    }
}

/// Prints one line for each thing: of JSON, or for people.
pub(crate) struct Lines {
    json: bool,
}

impl Lines {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// One of them.
    ///
    /// # Errors
    /// When nobody reads them, or the value has no JSON.
    pub(crate) fn put(&self, text: &str, value: &impl serde::Serialize) -> io::Result<()> {
        let line = if self.json { text::json_line(value)? } else { visible(text) };
        writeln!(io::stdout(), "{line}")
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
        let error = ClientError::Transport(Box::new(refused));
        assert_eq!(explain(&error), "no connection to the server: refused");
        // And what to do about it.
        let (code, text) = told(&RemoteError::Client(error));
        assert_eq!(code, exit::UNAVAILABLE);
        assert!(text.ends_with("or name another one with `--url`"), "{text}");
    }
}
