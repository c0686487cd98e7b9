//! `iris login` and `iris logout`: a login that the commands of this user go on with.

use std::process::ExitCode;
use std::time::Duration;

use iris_client::{ClientError, LoginTokens};
use iris_protocol::ErrorCode;
use serde_json::json;

use crate::remote::credentials::{self, Store};
use crate::remote::{self, Lines, Remote, RemoteError, prompt, say};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// At which server.
#[derive(Clone, clap::Args)]
pub struct LoginOptions {
    #[command(flatten)]
    remote: Remote,
    /// Print the answer as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs `iris login`.
pub fn login(options: &LoginOptions) -> ExitCode {
    remote::block_on("login", log_in(options))
}

/// Runs `iris logout`.
pub fn logout(options: &LoginOptions) -> ExitCode {
    remote::block_on("logout", log_out(options))
}

async fn log_in(options: &LoginOptions) -> Result<(), RemoteError> {
    let client = options.remote.stranger(REQUEST_TIMEOUT)?;
    let email = match &options.remote.email {
        Some(email) => email.clone(),
        None => prompt::line(&format!("E-mail address at {}: ", client.base_url()))?.to_string(),
    };
    let password = options.remote.password_of(&email)?;
    let grant = client.login(&email, &password).await?;
    let store = Store::new(client.base_url()).map_err(RemoteError::Credentials)?;
    let before = match store.put(&grant.user.email, LoginTokens::from(&grant)) {
        Ok(before) => before,
        Err(error) => {
            // Nobody would ever use it.
            client.with_grant(&grant).logout().await.ok();
            return Err(RemoteError::Credentials(error));
        }
    };
    if let Some(before) = before
        && let Err(error) = end(&client.with_login(before)).await
    {
        let why = remote::explain(&error);
        say("login", &format!("the login before ends at the server in 30 days: {why}"));
    }
    let (name, path) = (&grant.user.username, store.path());
    let text = format!("logged in as {name}; `{}` keeps it until `iris logout`", path.display());
    let value = json!({ "user": grant.user, "url": client.base_url(), "keptIn": path });
    Ok(Lines::new(options.json).put(&text, &value)?)
}

async fn log_out(options: &LoginOptions) -> Result<(), RemoteError> {
    let stranger = options.remote.stranger(REQUEST_TIMEOUT)?;
    let url = stranger.base_url().to_owned();
    let lines = Lines::new(options.json);
    let kept = credentials::of(&url).map_err(RemoteError::Credentials)?;
    let Some((tokens, store)) = kept else {
        let text = format!("nobody is logged in at {url}");
        return Ok(lines.put(&text, &json!({ "loggedOut": false }))?);
    };
    let client = stranger.with_store(tokens, store);
    let ended = end(&client).await;
    // Here it ends in any case.
    let store = Store::new(&url).map_err(RemoteError::Credentials)?;
    store.forget().map_err(RemoteError::Credentials)?;
    if let Err(error) = &ended {
        let why = remote::explain(error);
        say(
            "logout",
            &format!("the server does not know of it, and the login ends there in 30 days: {why}"),
        );
    }
    let value = json!({ "loggedOut": true, "endedAtServer": ended.is_ok() });
    Ok(lines.put(&format!("logged out at {url}"), &value)?)
}

/// Ends a login at the server, also one whose access token is over.
async fn end(client: &iris_client::Client) -> Result<(), ClientError> {
    let ended = match client.logout().await {
        Err(ClientError::Api(error)) if error.code == ErrorCode::TokenExpired => {
            client.refresh().await?;
            client.logout().await
        }
        ended => ended,
    };
    match ended {
        // It had ended before.
        Err(ClientError::Api(error)) if error.code == ErrorCode::Unauthenticated => Ok(()),
        ended => ended.map(drop),
    }
}
