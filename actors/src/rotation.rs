//! The master key changes while the server goes on: a new key, everything sealed anew, the old key forgotten.
//!
//! Both keys stand in files until nothing needs the old one, so whatever stops the server loses no secret: the
//! next start finds both and goes on. What a request sealed a moment before the change is written a moment
//! after it, therefore everything is looked through again later before the old key goes.

use std::collections::HashSet;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use iris_auth::{AuthError, ChangingKey};
use iris_protocol::{ApiError, ErrorCode, KeysRotated, ProjectId};
use iris_store::project::{McpSealedAgain, McpSecret, SealAgain, StoredTool, ToolSealedAgain};
use iris_store::root::{SealCredentialsAgain, SealGitAgain, SealedAgain};
use iris_store::{CrashPoint, StoreError, WriteContext, crash_point};
use tokio::sync::Mutex;

use crate::git::sealed_for;
use crate::mcp::authorization::Sealed;
use crate::mcp::secrets_owner;
use crate::project::ProjectHandle;
use crate::supervision::detached;
use crate::toolbox::SecretOwner;
use crate::{Node, provider_keys, write};

/// How long what was sealed with the old key may be on its way to a database.
pub const KEY_SETTLES: Duration = Duration::from_secs(30);
/// How many times that there is at most between two looks, while something is left.
const TIMES_MAX: u32 = 20;

/// What a node knows of the change of its master key.
#[derive(Debug)]
pub(crate) struct Rotation {
    file: ChangingKey,
    /// Held by whoever changes the key or looks through what is sealed.
    alone: Mutex<()>,
    /// Whether somebody will forget the old key.
    is_finishing: AtomicBool,
    /// Secrets that do not open with the old key, of which was told.
    unopened: parking_lot::Mutex<HashSet<String>>,
}

/// What came of looking through everything that is sealed.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// What needed the old key still.
    found: u64,
    /// Secrets that were sealed anew: fewer where somebody changed some of them meanwhile.
    sealed: u64,
    /// Projects that could not be looked through.
    left: u64,
}

impl AddAssign for Look {
    fn add_assign(&mut self, other: Self) {
        self.found += other.found;
        self.sealed += other.sealed;
        self.left += other.left;
    }
}

impl Rotation {
    pub(crate) fn new(file: ChangingKey) -> Self {
        Self {
            file,
            alone: Mutex::default(),
            is_finishing: AtomicBool::default(),
            unopened: parking_lot::Mutex::default(),
        }
    }
}

impl Node {
    /// Makes a new master key and seals everything anew; goes on with a change that is not done yet.
    ///
    /// # Errors
    /// `CONFLICT` where the server cannot change the file of the key: `key_kept_elsewhere`, `key_not_writable`,
    /// `key_replaced`.
    pub(crate) async fn rotate_keys(&self) -> Result<KeysRotated, ApiError> {
        let _alone = self.rotation.alone.lock().await;
        let is_new = self.take_key_over().await.map_err(|error| refused(&error))?;
        crash_point(CrashPoint::KeyChanged);
        let look = self.seal_again().await;
        // Also where some of it failed: there are two keys now.
        self.forget_key_later();
        let Look { sealed, left, .. } = look.map_err(|error| error.to_api())?;
        Ok(KeysRotated { is_new, sealed, projects_left: left })
    }

    /// Seals with the newest key: that of a change which is not done yet, else a new one. Tells whether it is
    /// new.
    async fn take_key_over(&self) -> Result<bool, AuthError> {
        let (file, services) = (self.rotation.file.clone(), Arc::clone(&self.services));
        let take = move || {
            let (key, previous) = file.read()?;
            // The same one twice is left of a change that was cut off before there was a new key.
            let is_new = previous.is_none_or(|previous| previous.is_same(&key));
            if is_new && !services.sealing.seals_with(&key)? {
                return Err(AuthError::KeyReplaced { path: file.path().to_owned() });
            }
            services.sealing.seal_with(&if is_new { file.change()? } else { key })?;
            Ok(is_new)
        };
        let taken = tokio::task::spawn_blocking(take).await;
        taken.map_err(|error| AuthError::Internal { source: error.into() })?
    }

    /// Goes on with a change of the master key from before the start, without anybody waiting for it.
    pub fn finish_rotation(&self) {
        if self.services.sealing.has_previous() {
            self.forget_key_later();
        }
    }

    /// Looks through everything again later, as often as it takes, and forgets the old key when nothing needs
    /// it.
    fn forget_key_later(&self) {
        if self.rotation.is_finishing.swap(true, Ordering::AcqRel) {
            return;
        }
        let node = self.clone();
        detached(async move {
            // A panic is in the supervision log; the next call or start goes on.
            if node.guarded("rotation", node.forget_key()).await.is_err() {
                node.rotation.is_finishing.store(false, Ordering::Release);
            }
        });
    }

    async fn forget_key(&self) {
        let settles = self.services.settings.key_settles;
        let mut times = 1;
        while !self.is_draining() {
            tokio::time::sleep(settles * times).await;
            let _alone = self.rotation.alone.lock().await;
            match self.seal_again().await {
                Ok(Look { found: 0, left: 0, .. }) => match self.forget_key_now().await {
                    // Before somebody else may begin another change.
                    Ok(()) => return self.rotation.is_finishing.store(false, Ordering::Release),
                    Err(error) => tracing::error!(?error, "the old master key cannot be removed"),
                },
                Ok(Look { found, sealed, left }) => {
                    tracing::info!(found, sealed, projects_left = left, "secrets were sealed anew");
                }
                Err(error) => tracing::error!(%error, "what is sealed cannot be looked through"),
            }
            times = (times * 2).min(TIMES_MAX);
        }
    }

    async fn forget_key_now(&self) -> Result<(), AuthError> {
        let (file, services) = (self.rotation.file.clone(), Arc::clone(&self.services));
        let forget = move || {
            let (key, previous) = file.read()?;
            if previous.is_some() && !services.sealing.seals_with(&key)? {
                // What was sealed since needs the one that would go.
                return Err(AuthError::KeyReplaced { path: file.path().to_owned() });
            }
            file.forget_previous()?;
            services.sealing.forget_previous();
            Ok(())
        };
        let forgotten = tokio::task::spawn_blocking(forget).await;
        forgotten.map_err(|error| AuthError::Internal { source: error.into() })??;
        tracing::info!("everything is sealed with the new master key: the old one is forgotten");
        Ok(())
    }

    /// Seals anew, in bounded steps, what a key sealed that is on its way out. What does not open stays.
    async fn seal_again(&self) -> Result<Look, StoreError> {
        let mut look = self.look_at_credentials().await?;
        crash_point(CrashPoint::CredentialsSealed);
        for id in self.root_reader.all_project_ids().await? {
            look += self.seal_git_again(&id).await?;
            match self.seal_project_again(&id).await {
                Ok(of_project) => look += of_project,
                // Deleted meanwhile.
                Err(error) if error.code == ErrorCode::NotFound => {}
                Err(error) => {
                    tracing::warn!(project.id = %id, %error, "secrets of a project are not sealed anew yet");
                    look.left += 1;
                }
            }
        }
        Ok(look)
    }

    /// The same for the keys for model providers alone.
    ///
    /// # Errors
    /// Those of the root database.
    pub async fn seal_credentials_again(&self) -> Result<(), StoreError> {
        self.look_at_credentials().await.map(drop)
    }

    async fn look_at_credentials(&self) -> Result<Look, StoreError> {
        let (mut look, mut last) = (Look::default(), None);
        loop {
            let some = self.root_reader.credentials_after(last.as_ref()).await?;
            let Some(end) = some.last() else { return Ok(look) };
            last = Some(end.id.clone());
            let mut again = Vec::new();
            for found in some {
                let owner = provider_keys::place(&found.owner, &found.provider_id);
                let renewed = self.services.sealing.renewed(&found.sealed, &owner);
                match renewed.map_err(StoreError::internal)? {
                    Some(sealed) => {
                        again.push(SealedAgain { id: found.id, before: found.sealed, sealed });
                    }
                    None => self.tell_of_unopened(&found.sealed, &owner),
                }
            }
            if !again.is_empty() {
                look.found += again.len() as u64;
                let command = SealCredentialsAgain(again);
                look.sealed += write(&self.root, command, WriteContext::default()).await?.output;
            }
        }
    }

    /// The token for git of a project that was cloned.
    async fn seal_git_again(&self, id: &ProjectId) -> Result<Look, StoreError> {
        let stored = self.root_reader.git(id).await?;
        let Some(before) = stored.and_then(|git| git.source.sealed) else {
            return Ok(Look::default());
        };
        let owner = sealed_for(id);
        let renewed = self.services.sealing.renewed(&before, &owner);
        let Some(sealed) = renewed.map_err(StoreError::internal)? else {
            self.tell_of_unopened(&before, &owner);
            return Ok(Look::default());
        };
        let again = SealGitAgain { project_id: id.clone(), before, sealed };
        let saved = write(&self.root, again, WriteContext::default()).await?;
        Ok(Look { found: 1, sealed: u64::from(saved.output), left: 0 })
    }

    /// Says once of each secret that the old key sealed and does not open: it has to be set again.
    fn tell_of_unopened(&self, sealed: &str, owner: &[&str]) {
        if self.services.sealing.needs_previous(sealed)
            && self.rotation.unopened.lock().insert(sealed.to_owned())
        {
            tracing::warn!(
                ?owner,
                "a secret does not open with the old master key: it has to be set again"
            );
        }
    }

    async fn seal_project_again(&self, id: &ProjectId) -> Result<Look, ApiError> {
        let project = self.project(id).await?;
        let mut again = SealAgain::default();
        let failed = |error: StoreError| error.to_api();
        for tool in project.reader.tools().await.map_err(failed)? {
            again.tools.extend(self.tool_again(&project, tool).map_err(|it| it.to_error())?);
        }
        for begun in project.reader.begun_mcp_authorizations().await.map_err(failed)? {
            let owner = Sealed::Begun.owner(id, &begun.server);
            let (of, sealed) = (begun.state_hash, Some(begun.sealed));
            again.mcp.extend(self.mcp_again(McpSecret::Begun, of, sealed, &owner)?);
        }
        let mut look = save(&project, again).await?;
        for stored in project.reader.mcp_servers().await.map_err(failed)? {
            look += self.seal_server_again(&project, stored.server.name).await?;
        }
        Ok(look)
    }

    fn tool_again(
        &self,
        project: &ProjectHandle,
        stored: StoredTool,
    ) -> Result<Option<ToolSealedAgain>, AuthError> {
        let StoredTool { tool, secrets: before, .. } = stored;
        let (Some(id), Some(http)) = (tool.id, tool.http) else { return Ok(None) };
        let owner = SecretOwner::new(project, &id, &http.url);
        let mut sealed = before.clone();
        for (name, text) in &mut sealed {
            *text = owner.renewed(&self.services, name, std::mem::take(text))?;
            self.tell_of_unopened(text, &[project.id.as_str(), id.as_str(), name]);
        }
        let is_changed = sealed != before;
        Ok(is_changed.then_some(ToolSealedAgain { id, before, sealed }))
    }

    /// Waits for who renews the tokens of the server: their new ones are to find the old ones as they read
    /// them.
    async fn seal_server_again(
        &self,
        project: &ProjectHandle,
        name: String,
    ) -> Result<Look, ApiError> {
        let seat = project.kept.mcp.seat(&name);
        let _nobody_renews = seat.renewing.lock().await;
        let stored = project.reader.mcp_server(name.clone()).await;
        let Some(stored) = stored.map_err(|error| error.to_api())? else {
            return Ok(Look::default());
        };
        let id = &project.id;
        let headers = secrets_owner(id, &name);
        let [client_secret, client, tokens] =
            [Sealed::ClientSecret, Sealed::Client, Sealed::Tokens]
                .map(|sealed| sealed.owner(id, &name));
        let mut again = SealAgain::default();
        for (secret, sealed, owner) in [
            (McpSecret::Headers, stored.secrets, headers.as_slice()),
            (McpSecret::ClientSecret, stored.client_secret, client_secret.as_slice()),
            (McpSecret::Client, stored.client, client.as_slice()),
            (McpSecret::Tokens, stored.tokens, tokens.as_slice()),
        ] {
            again.mcp.extend(self.mcp_again(secret, name.clone(), sealed, owner)?);
        }
        save(project, again).await
    }

    fn mcp_again(
        &self,
        secret: McpSecret,
        of: String,
        before: Option<String>,
        owner: &[String],
    ) -> Result<Option<McpSealedAgain>, ApiError> {
        let Some(before) = before else { return Ok(None) };
        let owner: Vec<&str> = owner.iter().map(String::as_str).collect();
        let renewed = self.services.sealing.renewed(&before, &owner);
        let renewed = renewed.map_err(|error| error.to_error())?;
        if renewed.is_none() {
            self.tell_of_unopened(&before, &owner);
        }
        Ok(renewed.map(|sealed| McpSealedAgain { secret, of, before, sealed }))
    }
}

async fn save(project: &ProjectHandle, again: SealAgain) -> Result<Look, ApiError> {
    let found = (again.tools.len() + again.mcp.len()) as u64;
    if found == 0 {
        return Ok(Look::default());
    }
    let saved = write(&project.address, again, WriteContext::default()).await;
    Ok(Look { found, sealed: saved.map_err(|error| error.to_api())?.output, left: 0 })
}

/// What an administrator can do where the server cannot change its key by itself.
fn refused(error: &AuthError) -> ApiError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are no state of the key's file")]
    let (what, reason) = match error {
        AuthError::KeyIsLink { .. } => (
            "the file of the master key is a link: something else keeps the key",
            "key_kept_elsewhere",
        ),
        AuthError::KeyFile { .. } => {
            ("the file of the master key cannot be changed by the server", "key_not_writable")
        }
        AuthError::KeyReplaced { .. } => (
            "the file of the master key holds another key than the server seals with",
            "key_replaced",
        ),
        other => {
            tracing::error!(error = ?other, "the master key was not changed");
            return other.to_error();
        }
    };
    tracing::warn!(?error, "the master key was not changed");
    let message = format!(
        "{what}; put a new key there yourself, and start the server with \
         `IRIS_MASTER_KEY_PREVIOUS_FILE` naming a file that holds the key of now"
    );
    ApiError::new(ErrorCode::Conflict, message).reason(reason)
}
