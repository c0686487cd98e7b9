//! `iris user` and `iris key`: accounts of a server that runs, and API keys of who asks. Accounts can be
//! made without a server too, on its data directory.

use std::process::ExitCode;

use clap::Subcommand;
use iris_actors::SystemClock;
use iris_agent::Clock;
use iris_client::Client;
use iris_protocol::{
    ApiKey, KeyCreate, KeyId, KeyList, KeyRevoke, ProjectId, Scope, User, UserCreate, UserId,
    UserList, UserLogout, UserManage, UserPasswordReset,
};
use serde_json::json;

use crate::maintenance::{self, UserCreation};
use crate::remote::text::utc;
use crate::remote::{self, Lines, Remote, RemoteError};

/// Accounts that are read at a time.
const USERS_AT_ONCE: u32 = 200;
const MS_PER_DAY: i64 = 24 * 60 * 60 * 1_000;

/// `iris user`.
#[derive(Clone, clap::Args)]
pub struct UserOptions {
    #[command(subcommand)]
    verb: UserVerb,
}

#[derive(Clone, Subcommand)]
enum UserVerb {
    /// List the accounts of a server
    List(Asked),
    /// Create an account: on the data directory while no server runs, or at a server with `--url`
    Create(UserCreation),
    /// Close an account: its user may do nothing at all, and every login of theirs ends
    Disable(OneUser),
    /// Open an account again
    Enable(OneUser),
    /// Let a user manage the server
    Promote(OneUser),
    /// Let a user not manage the server any more
    Demote(OneUser),
    /// End every login of a user
    Logout(OneUser),
    /// Make a link with which a user sets a new password, once
    ResetLink(OneUser),
}

/// Who asks which server, and for which form of answer.
#[derive(Clone, clap::Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Print one line of JSON for each thing
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, clap::Args)]
struct OneUser {
    /// The id of the user, or their e-mail address
    #[arg(value_name = "USER")]
    user: String,
    #[command(flatten)]
    asked: Asked,
}

/// `iris key`.
#[derive(Clone, clap::Args)]
pub struct KeyOptions {
    #[command(subcommand)]
    verb: KeyVerb,
}

#[derive(Clone, Subcommand)]
enum KeyVerb {
    /// List your API keys
    List(Asked),
    /// Make an API key, which is printed this once
    Create(NewKey),
    /// End an API key
    Revoke(OneKey),
}

#[derive(Clone, clap::Args)]
struct NewKey {
    /// What it is for
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it may be used for, like `sessions:read`; may be given several times. Without it everything
    /// but administration of the server
    #[arg(long = "scope", value_name = "SCOPE", value_parser = scope)]
    scopes: Vec<Scope>,
    /// The only project that it is good for
    #[arg(long, value_name = "PROJECT")]
    project: Option<ProjectId>,
    /// When it ends; never without it
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
    expires_in_days: Option<u16>,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Clone, clap::Args)]
struct OneKey {
    /// The id of the key
    #[arg(value_name = "KEY")]
    key: KeyId,
    #[command(flatten)]
    asked: Asked,
}

/// Runs `iris user`.
pub fn user(options: &UserOptions) -> ExitCode {
    let verb = &options.verb;
    if let UserVerb::Create(creation) = verb
        && !creation.is_online()
    {
        return maintenance::create_user(creation);
    }
    remote::block_on("user", async {
        match verb {
            UserVerb::List(asked) => with(asked, list_users).await,
            UserVerb::Create(creation) => create_user(creation).await,
            UserVerb::Disable(one) => {
                manage(one, "closed", |user| user.disabled = Some(true)).await
            }
            UserVerb::Enable(one) => manage(one, "open", |user| user.disabled = Some(false)).await,
            UserVerb::Promote(one) => {
                manage(one, "an administrator", |user| user.is_admin = Some(true)).await
            }
            UserVerb::Demote(one) => {
                manage(one, "no administrator", |user| user.is_admin = Some(false)).await
            }
            UserVerb::Logout(one) => log_out(one).await,
            UserVerb::ResetLink(one) => reset(one).await,
        }
    })
}

/// Runs `iris key`.
pub fn key(options: &KeyOptions) -> ExitCode {
    remote::block_on("key", async {
        match &options.verb {
            KeyVerb::List(asked) => with(asked, list_keys).await,
            KeyVerb::Create(new) => {
                let create =
                    async |client: &Client, lines: &Lines| create_key(client, lines, new).await;
                with(&new.asked, create).await
            }
            KeyVerb::Revoke(one) => {
                with(&one.asked, async |client: &Client, lines: &Lines| {
                    let key_id = one.key.clone();
                    client.over_rest(&KeyRevoke { key_id: key_id.clone() }).await?;
                    Ok(lines.put(&format!("revoked {key_id}"), &json!({ "revoked": key_id }))?)
                })
                .await
            }
        }
    })
}

/// Does something as who asks, and ends the login that was made for it.
pub(crate) async fn with(
    asked: &Asked,
    work: impl AsyncFnOnce(&Client, &Lines) -> Result<(), RemoteError>,
) -> Result<(), RemoteError> {
    let client = asked.remote.client().await?;
    let done = work(&client, &Lines::new(asked.json)).await;
    asked.remote.leave(&client).await;
    done
}

async fn list_users(client: &Client, lines: &Lines) -> Result<(), RemoteError> {
    let mut page = UserList { limit: Some(USERS_AT_ONCE), cursor: None, email: None };
    loop {
        let answer = client.over_rest(&page).await?;
        for user in &answer.users {
            lines.put(&user_line(user), user)?;
        }
        if answer.next_cursor.is_none() {
            return Ok(());
        }
        page.cursor = answer.next_cursor;
    }
}

fn user_line(user: &User) -> String {
    let marks = [
        (user.is_admin, " administrator"),
        (user.can_execute_code, " executes-code"),
        (user.disabled, " disabled"),
    ];
    let marks: String = marks.into_iter().filter_map(|(is, mark)| is.then_some(mark)).collect();
    format!("{}  {}  {}{marks}", user.id, user.username, user.email)
}

async fn create_user(creation: &UserCreation) -> Result<(), RemoteError> {
    let remote = creation.remote();
    let password = maintenance::given_password(creation)
        .map_err(|error| RemoteError::Usage(error.to_string()))?;
    let request = UserCreate {
        email: creation.email.clone(),
        username: creation.username.clone(),
        password: password.as_deref().cloned(),
        is_admin: creation.admin,
    };
    let asked = Asked { remote, json: creation.manner().json };
    with(&asked, async |client: &Client, lines: &Lines| {
        let user = client.over_rest(&request).await?.user;
        let mut text = format!("created {}", user_line(&user));
        if password.is_none() {
            text += "; `iris user reset-link` makes a link with which they set a password";
        }
        Ok(lines.put(&text, &json!({ "status": "ok", "user": user }))?)
    })
    .await
}

/// The user of an id or of an address.
async fn find(client: &Client, name: &str) -> Result<UserId, RemoteError> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let wanted = UserList { limit: None, cursor: None, email: Some(name.to_owned()) };
    let found = client.over_rest(&wanted).await?.users.into_iter().next();
    found.map(|user| user.id).ok_or_else(|| {
        RemoteError::Usage(format!("nobody has the address `{name}`: see `iris user list`"))
    })
}

async fn manage(
    one: &OneUser,
    what: &str,
    change: impl FnOnce(&mut UserManage),
) -> Result<(), RemoteError> {
    with(&one.asked, async |client: &Client, lines: &Lines| {
        let mut request = UserManage {
            user_id: find(client, &one.user).await?,
            can_execute_code: None,
            is_admin: None,
            disabled: None,
            email: None,
            username: None,
        };
        change(&mut request);
        let user = client.over_rest(&request).await?.user;
        let text = format!("{} is {what} now", user.username);
        Ok(lines.put(&text, &json!({ "status": "ok", "user": user }))?)
    })
    .await
}

async fn log_out(one: &OneUser) -> Result<(), RemoteError> {
    with(&one.asked, async |client: &Client, lines: &Lines| {
        let user_id = find(client, &one.user).await?;
        client.over_rest(&UserLogout { user_id: user_id.clone() }).await?;
        Ok(lines
            .put(&format!("logged {user_id} out everywhere"), &json!({ "loggedOut": user_id }))?)
    })
    .await
}

async fn reset(one: &OneUser) -> Result<(), RemoteError> {
    with(&one.asked, async |client: &Client, lines: &Lines| {
        let user_id = find(client, &one.user).await?;
        let grant = client.over_rest(&UserPasswordReset { user_id }).await?;
        let text = match &grant.url {
            Some(url) => format!("{url} (good until {})", utc(grant.expires_at)),
            None => format!(
                "token {} for `POST /v1/auth/password/reset` (good until {})",
                grant.token,
                utc(grant.expires_at)
            ),
        };
        Ok(lines.put(&text, &grant)?)
    })
    .await
}

async fn list_keys(client: &Client, lines: &Lines) -> Result<(), RemoteError> {
    for key in client.over_rest(&KeyList {}).await?.keys {
        lines.put(&key_line(&key), &key)?;
    }
    Ok(())
}

fn key_line(key: &ApiKey) -> String {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let until = key.expires_at.map_or("no end".to_owned(), |at| format!("until {}", utc(at)));
    let used = key.last_used_at.map_or("never used".to_owned(), |at| format!("used {}", utc(at)));
    let project = key.project_id.as_ref().map(|id| format!("  only {id}")).unwrap_or_default();
    format!(
        "{}  {}  {}  {until}  {used}{project}  {}",
        key.id,
        key.hint,
        key.name,
        scopes.join(",")
    )
}

async fn create_key(client: &Client, lines: &Lines, new: &NewKey) -> Result<(), RemoteError> {
    let days = new.expires_in_days.map(|days| i64::from(days) * MS_PER_DAY);
    let request = KeyCreate {
        name: new.name.clone(),
        scopes: Some(new.scopes.clone()).filter(|scopes| !scopes.is_empty()),
        project_id: new.project.clone(),
        expires_at: days.map(|days| SystemClock.now_ms().saturating_add(days)),
    };
    let grant = client.over_rest(&request).await?;
    let text = format!("{}  ({}, shown this once)", grant.key, grant.api_key.id);
    Ok(lines.put(&text, &grant)?)
}

/// Reads the name of a scope.
fn scope(text: &str) -> Result<Scope, String> {
    let found = Scope::ALL.iter().find(|scope| scope.as_str() == text);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        format!("`{text}` is none of {}", names.join(", "))
    })
}
