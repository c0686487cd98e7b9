//! HTTP: `POST /v1/commands`, file contents, and any route as it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use iris_protocol::{AuthGrant, ErrorCode, File, ProjectId, Request, ResponseFrame};
use serde_json::Value;
use url::Url;

use crate::auth::{LoginTokens, Pair, TokenStore, Tokens};
use crate::frame::{check_response, decode_payload, request_frame};
use crate::transport::install_crypto_provider;
use crate::{ClientError, ConnectOptions, REQUEST_TIMEOUT, RestAnswer, Socket};

/// How long a connection is kept that no request needs: not as long as the server keeps it.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// An HTTP client of one server, with or without the tokens of one user.
///
/// Clones share the tokens: when one of them refreshes, all of them go on with the new pair.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base_url: Url,
    pub(crate) tokens: Arc<Tokens>,
}

impl Client {
    /// A client of the server at `base_url`, like `http://127.0.0.1:4747`, with no tokens. Requests
    /// time out after [`REQUEST_TIMEOUT`]. Makes ring the process's provider of cryptography, unless
    /// there is one.
    ///
    /// # Errors
    /// `Protocol` when the URL is not one of `http` or `https`, `Transport` when TLS is not usable.
    pub fn new(base_url: &str) -> Result<Self, ClientError> {
        Self::with_timeout(base_url, REQUEST_TIMEOUT)
    }

    /// The same with another bound on requests.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_timeout(base_url: &str, timeout: Duration) -> Result<Self, ClientError> {
        install_crypto_provider();
        let base_url = Url::parse(base_url)
            .map_err(|e| ClientError::protocol(&format!("the URL `{base_url}`"), e))?;
        if !matches!(base_url.scheme(), "http" | "https") {
            let scheme = base_url.scheme();
            return Err(ClientError::Protocol(format!("`{scheme}` is neither `http` nor `https`")));
        }
        let mut http = reqwest::Client::builder()
            .timeout(timeout)
            .pool_idle_timeout(IDLE_MAX)
            .no_proxy()
            .no_gzip();
        if base_url.scheme() == "http" {
            // Nobody has to be trusted: the system's certificates, hundreds of files, are not read.
            http = http.tls_certs_only([]);
        }
        let http = http.build()?;
        Ok(Self { http, base_url, tokens: Arc::default() })
    }

    /// The same server with another access token, which is not refreshed.
    #[must_use]
    pub fn with_token(&self, access_token: impl Into<String>) -> Self {
        self.with_pair(Pair { access: Some(access_token.into()), refresh: None })
    }

    /// The same server for the user of a grant. Expired access tokens are refreshed.
    #[must_use]
    pub fn with_grant(&self, grant: &AuthGrant) -> Self {
        self.with_pair(Pair::from(grant))
    }

    /// The same server for the user of a login. Expired access tokens are refreshed, and kept nowhere.
    #[must_use]
    pub fn with_login(&self, tokens: LoginTokens) -> Self {
        self.with_pair(Pair::from(tokens))
    }

    /// The same server for the user of a login that other processes use too. Expired access tokens are
    /// refreshed, by one process at a time, and the new ones kept in the store.
    #[must_use]
    pub fn with_store(&self, tokens: LoginTokens, store: Arc<dyn TokenStore>) -> Self {
        self.with_tokens(Tokens::kept(tokens, store))
    }

    fn with_pair(&self, pair: Pair) -> Self {
        self.with_tokens(Tokens::from(pair))
    }

    fn with_tokens(&self, tokens: Tokens) -> Self {
        let tokens = Arc::new(tokens);
        Self { http: self.http.clone(), base_url: self.base_url.clone(), tokens }
    }

    /// The server's address.
    pub fn base_url(&self) -> &str {
        self.base_url.as_str()
    }

    /// The access token, when there is one.
    pub fn token(&self) -> Option<String> {
        self.tokens.current.lock().access.clone()
    }

    /// Runs an operation over `POST /v1/commands`. An expired access token is refreshed once.
    ///
    /// # Errors
    /// `Api` with the server's error; otherwise those of [`Client::rest`]. After `Timeout` and
    /// `Transport` a command may have had its effect.
    pub async fn call<R: Request>(
        &self,
        project: Option<&ProjectId>,
        request: R,
    ) -> Result<R::Response, ClientError> {
        self.call_keyed(project, &request, None).await
    }

    /// The same under an idempotency key: a repeat with the same key has no other effect and the same
    /// answer.
    ///
    /// # Errors
    /// As [`Client::call`]; `Api` with `IDEMPOTENCY_CONFLICT` for another request under the key.
    pub async fn call_keyed<R: Request>(
        &self,
        project: Option<&ProjectId>,
        request: &R,
        key: Option<&str>,
    ) -> Result<R::Response, ClientError> {
        let mut frame = request_frame("1".to_owned(), project, request)?;
        frame.idempotency_key = key.map(str::to_owned);
        let body = serde_json::to_value(&frame)
            .map_err(|e| ClientError::protocol("encoding the request", e))?;
        let token = self.token();
        match self.command(token.as_deref(), &body).await {
            Err(ClientError::Api(error)) if error.code == ErrorCode::TokenExpired => {
                self.renew(token.as_deref()).await?;
                let token = self.token();
                decode_payload(self.command(token.as_deref(), &body).await?)
            }
            response => decode_payload(response?),
        }
    }

    async fn command(
        &self,
        token: Option<&str>,
        body: &Value,
    ) -> Result<ResponseFrame, ClientError> {
        let answer = self.rest("POST", "/v1/commands", token, Some(body)).await?;
        // Refused before there was a command: the body is that of a REST error.
        if answer.json.get("type").is_none() {
            answer.success()?;
        }
        let response: ResponseFrame = serde_json::from_value(answer.json)
            .map_err(|e| ClientError::protocol("response frame", e))?;
        check_response(response)
    }

    /// Whether the server takes work.
    ///
    /// # Errors
    /// `Transport` or `Timeout` when the server cannot be reached.
    pub async fn health_ready(&self) -> Result<bool, ClientError> {
        Ok(self.rest("GET", "/health/ready", None, None).await?.is_success())
    }

    /// Writes a file of a project whole, from bytes.
    ///
    /// # Errors
    /// Those of [`Client::rest`]; `Api` when the server refuses.
    pub async fn file_put(
        &self,
        project: &ProjectId,
        path: &str,
        content: impl Into<Bytes>,
    ) -> Result<File, ClientError> {
        let headers = [("content-type", "application/octet-stream")];
        let path = content_path(project, path);
        let token = self.token();
        self.raw("PUT", &path, token.as_deref(), &headers, content.into()).await?.data()
    }

    /// Reads a file of a project as bytes.
    ///
    /// # Errors
    /// Those of [`Client::rest`]; `Api` when the server refuses.
    pub async fn file_get(&self, project: &ProjectId, path: &str) -> Result<Bytes, ClientError> {
        let path = content_path(project, path);
        let answer = self.rest("GET", &path, self.token().as_deref(), None).await?;
        Ok(answer.success()?.body.clone())
    }

    /// Sends a request with this token, not the client's own, and gives the answer as it came.
    ///
    /// # Errors
    /// `Transport` or `Timeout` when there is no answer, `Protocol` when method or path are unusable.
    /// An error of the server is an answer, not an error.
    pub async fn rest(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<RestAnswer, ClientError> {
        match body {
            Some(body) => {
                let headers = [("content-type", "application/json")];
                self.raw(method, path, token, &headers, Bytes::from(body.to_string())).await
            }
            None => self.raw(method, path, token, &[], Bytes::new()).await,
        }
    }

    /// The same with any body and headers; `path` may hold a query.
    ///
    /// # Errors
    /// As [`Client::rest`].
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<RestAnswer, ClientError> {
        let method = reqwest::Method::from_bytes(method.as_bytes())
            .map_err(|e| ClientError::protocol(&format!("the method `{method}`"), e))?;
        let url = self.base_url.join(path);
        let url = url.map_err(|e| ClientError::protocol(&format!("the path `{path}`"), e))?;
        let mut request = self.http.request(method, url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        RestAnswer::read(request.send().await?).await
    }

    /// Opens a socket for the user of this client. An expired access token is refreshed once.
    ///
    /// # Errors
    /// As [`Socket::connect`].
    pub async fn connect(&self, options: &ConnectOptions) -> Result<Socket, ClientError> {
        let token = self.token();
        let connect = async |token: Option<String>| {
            Socket::connect(self.base_url(), &token.unwrap_or_default(), options).await
        };
        match connect(token.clone()).await {
            Err(ClientError::Api(error)) if error.code == ErrorCode::TokenExpired => {
                self.renew(token.as_deref()).await?;
                connect(self.token()).await
            }
            outcome => outcome,
        }
    }
}

fn content_path(project: &ProjectId, path: &str) -> String {
    let query =
        url::form_urlencoded::Serializer::new(String::new()).append_pair("path", path).finish();
    format!("/v1/projects/{project}/files/content?{query}")
}
