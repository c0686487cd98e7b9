//! The MCP servers of the project, and what was approved of what they offer.

mod authorization;

use iris_protocol::{Event, McpOauth, McpServer, McpState, McpTransport, UserId};
use rusqlite::{Connection, Row, params};
use serde_json::Value;

use super::quotas::Quotas;
use super::{log, queries};
use crate::column::{json, optional_json, to_json, to_optional_json, word};
use crate::{Command, StoreError, WhenFull, WriteTx};

pub use authorization::{
    BeginMcpAuthorization, BegunMcpAuthorization, KeepMcpAuthorization, MCP_AUTHORIZATIONS_MAX,
    RenewMcpTokens, TakeMcpAuthorization,
};

/// Most MCP servers of one project.
pub const MCP_SERVERS_MAX: u64 = 20;

/// An MCP server as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredMcpServer {
    /// As clients see it.
    pub server: McpServer,
    /// The definitions that were approved, as the server gave them.
    pub definitions: Vec<Value>,
    /// Its secrets, sealed.
    pub secrets: Option<String>,
    /// The secret of the client that was configured for it, sealed.
    pub client_secret: Option<String>,
    /// The client that its authorization server registered, sealed.
    pub client: Option<String>,
    /// The tokens that were given for it, sealed.
    pub tokens: Option<String>,
}

impl StoredMcpServer {
    /// Nobody has agreed to anything.
    fn forget_authorization(&mut self) {
        (self.server.authorization, self.tokens) = (None, None);
    }
}

/// What people approve.
#[derive(Debug, Clone, PartialEq)]
pub struct McpApproval {
    /// The definitions as the server gave them.
    pub definitions: Vec<Value>,
    /// The names by which models call those of them that can be used.
    pub tools: Vec<String>,
    /// SHA-256 of the definitions.
    pub hash: String,
}

/// Names of secret headers, and their values, sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpSecrets {
    /// The names.
    pub names: Vec<String>,
    /// The values; none where there are no names.
    pub sealed: Option<String>,
}

/// How a server is asked for an authorization, and the secret for that, sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct McpOauthConfig {
    /// As clients see it.
    pub oauth: Option<McpOauth>,
    /// The secret of the client.
    pub client_secret: Option<String>,
}

/// Configures an MCP server. Answers it.
///
/// Fails with `Conflict`: `name_taken`, `too_many_servers` when there are [`MCP_SERVERS_MAX`]; with
/// `QuotaExceeded` when the project is full.
#[derive(Debug, Clone)]
pub struct CreateMcpServer {
    /// Unique in the project.
    pub name: String,
    /// Where it is.
    pub transport: McpTransport,
    /// What is kept secret.
    pub secrets: McpSecrets,
    /// How it is asked for an authorization.
    pub oauth: McpOauthConfig,
    /// Whether it is used.
    pub enabled: bool,
    /// How long it has to start.
    pub initialize_timeout_ms: u64,
    /// How long one answer may take.
    pub request_timeout_ms: u64,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for CreateMcpServer {
    type Output = McpServer;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<McpServer, StoreError> {
        if one(tx.conn(), &self.name)?.is_some() {
            let message = format!("there is an MCP server `{}` already", self.name);
            return Err(StoreError::conflict("name_taken", message));
        }
        let count: u64 =
            queries::one(tx.conn(), "SELECT count(*) FROM mcp_servers", [], |row| row.get(0))?;
        if count >= MCP_SERVERS_MAX {
            let message = format!("the project has `{MCP_SERVERS_MAX}` MCP servers already");
            return Err(StoreError::conflict("too_many_servers", message));
        }
        self.quotas.check_rows(tx.conn(), 1)?;
        let server = McpServer {
            name: self.name,
            transport: self.transport,
            secret_headers: self.secrets.names,
            oauth: self.oauth.oauth,
            authorization: None,
            enabled: self.enabled,
            initialize_timeout_ms: self.initialize_timeout_ms,
            request_timeout_ms: self.request_timeout_ms,
            tools: Vec::new(),
            approved_hash: None,
            created_by: self.by.clone(),
            created_at: self.at,
            updated_by: self.by.clone(),
            updated_at: self.at,
        };
        let stored = StoredMcpServer {
            server,
            definitions: Vec::new(),
            secrets: self.secrets.sealed,
            client_secret: self.oauth.client_secret,
            client: None,
            tokens: None,
        };
        save(tx, &stored)?;
        publish(tx, &stored.server, &self.by, self.at)?;
        Ok(stored.server)
    }
}

/// Changes an MCP server. Answers it as it is then. Another transport takes back what was approved, unless
/// something is approved with it, and the client whose secret was for another place. Another transport, other
/// words about authorizations and a secret header that is one forget the authorization that there is.
///
/// Fails with `NotFound`; with `Conflict` and `server_changed` when it is not where it was when it was looked
/// at; with `QuotaExceeded` when something is approved in a full project.
#[derive(Debug, Clone)]
pub struct UpdateMcpServer {
    /// The server.
    pub name: String,
    /// Where it was when the change was looked at; `None` for wherever it is.
    pub seen: Option<McpTransport>,
    /// Where it is; `None` leaves it.
    pub transport: Option<McpTransport>,
    /// What is kept secret; `None` leaves it.
    pub secrets: Option<McpSecrets>,
    /// How it is asked for an authorization; `None` leaves it.
    pub oauth: Option<McpOauthConfig>,
    /// Whether the authorization that it has is forgotten, and the client that was registered for it.
    pub forgets_authorization: bool,
    /// The secret of the client, sealed anew; `None` leaves it.
    pub client_secret_resealed: Option<String>,
    /// Whether it is used; `None` leaves it.
    pub enabled: Option<bool>,
    /// How long it has to start; `None` leaves it.
    pub initialize_timeout_ms: Option<u64>,
    /// How long one answer may take; `None` leaves it.
    pub request_timeout_ms: Option<u64>,
    /// What is approved; `None` leaves what was.
    pub approval: Option<McpApproval>,
    /// The most that the project may hold.
    pub quotas: Quotas,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for UpdateMcpServer {
    type Output = McpServer;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<McpServer, StoreError> {
        let mut stored = existing(tx, &self.name)?;
        if self.seen.is_some_and(|seen| seen != stored.server.transport) {
            let message = "somebody else moved the server meanwhile: look at it and try again";
            return Err(StoreError::conflict("server_changed", message));
        }
        if self.approval.is_some() {
            self.quotas.check_rows(tx.conn(), 1)?;
        }
        let mut forgets = self.forgets_authorization;
        if forgets {
            stored.client = None;
        }
        if self.client_secret_resealed.is_some() {
            stored.client_secret = self.client_secret_resealed;
        }
        let server = &mut stored.server;
        if let Some(transport) = self.transport.filter(|new| *new != server.transport) {
            server.transport = transport;
            (server.tools, server.approved_hash) = (Vec::new(), None);
            stored.definitions = Vec::new();
            (stored.client, forgets) = (None, true);
            // Whoever moves it need not know the secret, which must not go where they say.
            if stored.client_secret.take().is_some()
                && let Some(oauth) = &mut server.oauth
            {
                (oauth.client_id, oauth.has_client_secret) = (None, false);
            }
        }
        if let Some(McpSecrets { names, sealed }) = self.secrets {
            forgets |= names.iter().any(|name| name.eq_ignore_ascii_case("authorization"));
            server.secret_headers = names;
            stored.secrets = sealed;
        }
        if let Some(McpOauthConfig { oauth, client_secret }) = self.oauth {
            server.oauth = oauth;
            stored.client_secret = client_secret;
            (stored.client, forgets) = (None, true);
        }
        server.enabled = self.enabled.unwrap_or(server.enabled);
        server.initialize_timeout_ms =
            self.initialize_timeout_ms.unwrap_or(server.initialize_timeout_ms);
        server.request_timeout_ms = self.request_timeout_ms.unwrap_or(server.request_timeout_ms);
        if let Some(McpApproval { definitions, tools, hash }) = self.approval {
            (server.tools, server.approved_hash) = (tools, Some(hash));
            stored.definitions = definitions;
        }
        server.updated_by = self.by.clone();
        server.updated_at = self.at;
        if forgets {
            stored.forget_authorization();
            authorization::forget_begun(tx, &self.name)?;
        }
        save(tx, &stored)?;
        publish(tx, &stored.server, &self.by, self.at)?;
        Ok(stored.server)
    }
}

/// Forgets an MCP server.
///
/// Fails with `NotFound`.
#[derive(Debug, Clone)]
pub struct DeleteMcpServer {
    /// The server.
    pub name: String,
    /// The user who wants it.
    pub by: UserId,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for DeleteMcpServer {
    type Output = ();

    fn when_full(&self) -> WhenFull {
        WhenFull::Allow
    }

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        existing(tx, &self.name)?;
        tx.conn()
            .prepare_cached("DELETE FROM mcp_servers WHERE name = ?1")?
            .execute([&self.name])?;
        let event = Event::McpStatusChanged {
            name: self.name,
            state: McpState::Disabled,
            reason: None,
            offered_hash: None,
            server: None,
            deleted: true,
        };
        log::in_project(tx, self.at, Some(&self.by), &event)
    }
}

/// Says in the project's room how an MCP server is. One that is gone meanwhile is not spoken of.
#[derive(Debug, Clone)]
pub struct PublishMcpStatus {
    /// The server.
    pub name: String,
    /// How it is.
    pub state: McpState,
    /// Why.
    pub reason: Option<String>,
    /// SHA-256 of what it offers.
    pub offered_hash: Option<String>,
    /// Now, in milliseconds since 1970 UTC.
    pub at: i64,
}

impl Command for PublishMcpStatus {
    type Output = ();

    fn run(self, tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
        if one(tx.conn(), &self.name)?.is_none() {
            return Ok(());
        }
        let event = Event::McpStatusChanged {
            name: self.name,
            state: self.state,
            reason: self.reason,
            offered_hash: self.offered_hash,
            server: None,
            deleted: false,
        };
        log::in_project(tx, self.at, None, &event)
    }
}

fn existing(tx: &WriteTx<'_>, name: &str) -> Result<StoredMcpServer, StoreError> {
    one(tx.conn(), name)?.ok_or(StoreError::NotFound { what: "MCP server" })
}

fn publish(
    tx: &mut WriteTx<'_>,
    server: &McpServer,
    by: &UserId,
    at: i64,
) -> Result<(), StoreError> {
    let event = Event::McpStatusChanged {
        name: server.name.clone(),
        state: if server.enabled { McpState::Connecting } else { McpState::Disabled },
        reason: None,
        offered_hash: None,
        server: Some(server.clone()),
        deleted: false,
    };
    log::in_project(tx, at, Some(by), &event)
}

fn save(tx: &WriteTx<'_>, stored: &StoredMcpServer) -> Result<(), StoreError> {
    let server = &stored.server;
    let sql = "INSERT INTO mcp_servers (name, transport, secret_headers, secrets, enabled,
                 initialize_timeout_ms, request_timeout_ms, definitions, tools, approved_hash,
                 created_by, created_at, updated_by, updated_at, oauth, client_secret, client,
                 authorization, tokens)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                 ?18, ?19)
               ON CONFLICT (name) DO UPDATE SET transport = ?2, secret_headers = ?3, secrets = ?4,
                 enabled = ?5, initialize_timeout_ms = ?6, request_timeout_ms = ?7,
                 definitions = ?8, tools = ?9, approved_hash = ?10, updated_by = ?13,
                 updated_at = ?14, oauth = ?15, client_secret = ?16, client = ?17,
                 authorization = ?18, tokens = ?19";
    tx.conn().prepare_cached(sql)?.execute(params![
        server.name,
        to_json(&server.transport)?,
        to_json(&server.secret_headers)?,
        stored.secrets,
        server.enabled,
        server.initialize_timeout_ms,
        server.request_timeout_ms,
        to_json(&stored.definitions)?,
        to_json(&server.tools)?,
        server.approved_hash,
        server.created_by.as_str(),
        server.created_at,
        server.updated_by.as_str(),
        server.updated_at,
        to_optional_json(server.oauth.as_ref())?,
        stored.client_secret,
        stored.client,
        to_optional_json(server.authorization.as_ref())?,
        stored.tokens,
    ])?;
    Ok(())
}

fn row(row: &Row<'_>) -> rusqlite::Result<StoredMcpServer> {
    let server = McpServer {
        name: row.get("name")?,
        transport: json(row, "transport")?,
        secret_headers: json(row, "secret_headers")?,
        oauth: optional_json(row, "oauth")?,
        authorization: optional_json(row, "authorization")?,
        enabled: row.get("enabled")?,
        initialize_timeout_ms: row.get("initialize_timeout_ms")?,
        request_timeout_ms: row.get("request_timeout_ms")?,
        tools: json(row, "tools")?,
        approved_hash: row.get("approved_hash")?,
        created_by: word(row, "created_by")?,
        created_at: row.get("created_at")?,
        updated_by: word(row, "updated_by")?,
        updated_at: row.get("updated_at")?,
    };
    Ok(StoredMcpServer {
        server,
        definitions: json(row, "definitions")?,
        secrets: row.get("secrets")?,
        client_secret: row.get("client_secret")?,
        client: row.get("client")?,
        tokens: row.get("tokens")?,
    })
}

pub(super) fn one(conn: &Connection, name: &str) -> Result<Option<StoredMcpServer>, StoreError> {
    queries::first(conn, "SELECT * FROM mcp_servers WHERE name = ?1", [name], row)
}

pub(super) fn all(conn: &Connection) -> Result<Vec<StoredMcpServer>, StoreError> {
    queries::all(conn, "SELECT * FROM mcp_servers ORDER BY name", [], row)
}
