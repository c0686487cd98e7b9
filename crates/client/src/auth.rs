//! Accounts and tokens: setup, register, login, refresh, logout. REST only.

use std::io;
use std::sync::Arc;

use iris_protocol::{
    AuthGrant, AuthLogin, AuthLogout, AuthRegister, AuthRotate, AuthSetup, Done, ErrorCode,
    Request, RestRoute,
};
use parking_lot::Mutex;

use crate::{Client, ClientError};

/// The tokens that the clones of a client share.
#[derive(Default)]
pub(crate) struct Tokens {
    pub(crate) current: Mutex<Pair>,
    /// Held while a refresh token is exchanged: each of them works once.
    exchange: tokio::sync::Mutex<()>,
    /// Where other processes find the tokens, when they do.
    store: Option<Arc<dyn TokenStore>>,
}

/// The tokens of a login that several processes use.
#[derive(Clone, PartialEq, Eq)]
pub struct LoginTokens {
    /// For `Authorization: Bearer`.
    pub access: String,
    /// For the next pair; works once.
    pub refresh: String,
}

/// Keeps the tokens of a login for several processes, of which one at a time exchanges them.
pub trait TokenStore: Send + Sync {
    /// Waits until no other process is at it, and keeps others out until what it answers is dropped. Blocks.
    ///
    /// # Errors
    /// When the store cannot be reached.
    fn lock(&self) -> io::Result<Box<dyn LockedTokens>>;
}

/// A [`TokenStore`] that no other process changes.
pub trait LockedTokens: Send {
    /// What is kept now; nothing after a logout, or when another user logged in.
    fn tokens(&self) -> Option<LoginTokens>;

    /// Keeps other tokens. Where that fails, other processes have to log in again.
    fn keep(&mut self, tokens: &LoginTokens);
}

/// What one grant gave.
#[derive(Clone, Default)]
pub(crate) struct Pair {
    pub(crate) access: Option<String>,
    pub(crate) refresh: Option<String>,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl From<Pair> for Tokens {
    fn from(pair: Pair) -> Self {
        Self { current: Mutex::new(pair), ..Self::default() }
    }
}

impl From<LoginTokens> for Pair {
    fn from(tokens: LoginTokens) -> Self {
        Self { access: Some(tokens.access), refresh: Some(tokens.refresh) }
    }
}

impl From<&AuthGrant> for LoginTokens {
    fn from(grant: &AuthGrant) -> Self {
        Self { access: grant.access_token.clone(), refresh: grant.refresh_token.clone() }
    }
}

impl Tokens {
    /// Tokens that are kept in a store too.
    pub(crate) fn kept(tokens: LoginTokens, store: Arc<dyn TokenStore>) -> Self {
        Self { store: Some(store), ..Self::from(Pair::from(tokens)) }
    }
}

impl From<&AuthGrant> for Pair {
    fn from(grant: &AuthGrant) -> Self {
        Self {
            access: Some(grant.access_token.clone()),
            refresh: Some(grant.refresh_token.clone()),
        }
    }
}

impl Client {
    /// Creates the first administrator with the token that the server printed.
    ///
    /// # Errors
    /// Those of [`Client::rest`]; `Api` when the server refuses.
    pub async fn setup(&self, request: &AuthSetup) -> Result<AuthGrant, ClientError> {
        self.resource(request, None).await
    }

    /// Creates an account where registration is open.
    ///
    /// # Errors
    /// Those of [`Client::rest`]; `Api` when the server refuses.
    pub async fn register(&self, request: &AuthRegister) -> Result<AuthGrant, ClientError> {
        self.resource(request, None).await
    }

    /// Begins an authentication session. Go on with [`Client::with_grant`].
    ///
    /// # Errors
    /// Those of [`Client::rest`]; `Api` when the server refuses.
    pub async fn login(&self, email: &str, password: &str) -> Result<AuthGrant, ClientError> {
        let request = AuthLogin { email: email.to_owned(), password: password.to_owned() };
        self.resource(&request, None).await
    }

    /// Exchanges the refresh token for a new pair and goes on with it, in all clones.
    ///
    /// # Errors
    /// `Api` with `UNAUTHENTICATED` when there is no refresh token or the server refuses it.
    pub async fn refresh(&self) -> Result<AuthGrant, ClientError> {
        let _exchange = self.tokens.exchange.lock().await;
        self.exchange().await
    }

    /// Refreshes, unless another clone has done so since `stale` was the access token.
    pub(crate) async fn renew(&self, stale: Option<&str>) -> Result<(), ClientError> {
        let (client, stale) = (self.clone(), stale.map(ToOwned::to_owned));
        // On its own: who waits for it may be aborted, and a token that was used and not replaced ends
        // the login.
        let renewed = tokio::spawn(async move { client.renew_whole(stale.as_deref()).await }).await;
        renewed.unwrap_or_else(|e| Err(ClientError::protocol("renewing the tokens", e)))
    }

    async fn renew_whole(&self, stale: Option<&str>) -> Result<(), ClientError> {
        let _exchange = self.tokens.exchange.lock().await;
        if self.token().as_deref() != stale {
            return Ok(());
        }
        let Some(store) = self.tokens.store.clone() else {
            return self.exchange().await.map(drop);
        };
        let locked = tokio::task::spawn_blocking(move || store.lock()).await;
        let locked = locked.map_err(io::Error::from).flatten();
        let mut locked = locked.map_err(|e| ClientError::protocol("the kept tokens", e))?;
        match locked.tokens() {
            // Another process was first.
            Some(tokens) if Some(tokens.access.as_str()) != stale => {
                *self.tokens.current.lock() = Pair::from(tokens);
            }
            Some(_) | None => locked.keep(&LoginTokens::from(&self.exchange().await?)),
        }
        Ok(())
    }

    async fn exchange(&self) -> Result<AuthGrant, ClientError> {
        let refresh_token = self.tokens.current.lock().refresh.clone();
        let refresh_token =
            refresh_token.ok_or_else(|| ClientError::Api(ErrorCode::Unauthenticated.into()))?;
        let grant: AuthGrant = self.resource(&AuthRotate { refresh_token }, None).await?;
        *self.tokens.current.lock() = Pair::from(&grant);
        Ok(grant)
    }

    /// Ends the authentication session and forgets the tokens, in all clones.
    ///
    /// # Errors
    /// Those of [`Client::rest`]; `Api` when the server refuses.
    pub async fn logout(&self) -> Result<Done, ClientError> {
        let done =
            self.resource(&AuthLogout { everywhere: false }, self.token().as_deref()).await?;
        *self.tokens.current.lock() = Pair::default();
        Ok(done)
    }

    /// Runs an operation over its REST route, which has no names in its path.
    async fn resource<R: Request>(
        &self,
        request: &R,
        token: Option<&str>,
    ) -> Result<R::Response, ClientError> {
        let Some(RestRoute { method, path, .. }) = R::OPERATION.spec().rest else {
            let name = R::OPERATION.name();
            return Err(ClientError::Protocol(format!("`{name}` has no REST route")));
        };
        let body = serde_json::to_value(request)
            .map_err(|e| ClientError::protocol("encoding the request", e))?;
        self.rest(method.as_str(), path, token, Some(&body)).await?.data()
    }
}
