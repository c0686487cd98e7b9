//! Secrets of the project that are sealed anew when the master key changes. The store cannot open them.

use std::collections::BTreeMap;
use std::fmt;

use iris_protocol::ToolId;
use rusqlite::{Connection, params};

use super::queries;
use crate::{Command, StoreError, WriteTx, column};

/// Puts newly sealed texts in the place of those that were sealed with the key before, but for what changed
/// meanwhile. Answers how many did not. Nobody is told: what they say is the same.
#[derive(Debug, Clone, Default)]
pub struct SealAgain {
    /// Of tools.
    pub tools: Vec<ToolSealedAgain>,
    /// Of MCP servers.
    pub mcp: Vec<McpSealedAgain>,
}

/// The secrets of a tool.
#[derive(Clone)]
pub struct ToolSealedAgain {
    /// The tool.
    pub id: ToolId,
    /// All of them as they were read.
    pub before: BTreeMap<String, String>,
    /// All of them as they are to be.
    pub sealed: BTreeMap<String, String>,
}

impl fmt::Debug for ToolSealedAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolSealedAgain").field("id", &self.id).finish_non_exhaustive()
    }
}

/// One secret of an MCP server.
#[derive(Clone)]
pub struct McpSealedAgain {
    /// Which one.
    pub secret: McpSecret,
    /// The server, or SHA-256 of what the browser brings back.
    pub of: String,
    /// As it was read.
    pub before: String,
    /// As it is to be.
    pub sealed: String,
}

impl fmt::Debug for McpSealedAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, of, .. } = self;
        let mut text = f.debug_struct("McpSealedAgain");
        text.field("secret", secret).field("of", of).finish_non_exhaustive()
    }
}

/// What is sealed of an MCP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum McpSecret {
    /// The values of its secret headers.
    Headers,
    /// The secret of the client that was configured for it.
    ClientSecret,
    /// The client that registered itself.
    Client,
    /// The tokens.
    Tokens,
    /// An authorization that was begun.
    Begun,
}

impl McpSecret {
    fn sql(self) -> &'static str {
        match self {
            Self::Headers => "UPDATE mcp_servers SET secrets = ?3 WHERE name = ?1 AND secrets = ?2",
            Self::ClientSecret => {
                "UPDATE mcp_servers SET client_secret = ?3 WHERE name = ?1 AND client_secret = ?2"
            }
            Self::Client => "UPDATE mcp_servers SET client = ?3 WHERE name = ?1 AND client = ?2",
            Self::Tokens => "UPDATE mcp_servers SET tokens = ?3 WHERE name = ?1 AND tokens = ?2",
            Self::Begun => {
                "UPDATE mcp_authorizations SET sealed = ?3 WHERE state_hash = ?1 AND sealed = ?2"
            }
        }
    }
}

impl Command for SealAgain {
    type Output = u64;

    fn run(self, tx: &mut WriteTx<'_>) -> Result<u64, StoreError> {
        let mut count = 0;
        let sql = "UPDATE tools SET secrets = ?3 WHERE id = ?1 AND secrets = ?2";
        for ToolSealedAgain { id, before, sealed } in self.tools {
            let (before, sealed) = (column::to_json(&before)?, column::to_json(&sealed)?);
            let values = params![id.as_str(), before, sealed];
            count += tx.conn().prepare_cached(sql)?.execute(values)? as u64;
        }
        for McpSealedAgain { secret, of, before, sealed } in self.mcp {
            let values = params![of, before, sealed];
            count += tx.conn().prepare_cached(secret.sql())?.execute(values)? as u64;
        }
        Ok(count)
    }
}

/// An authorization of an MCP server that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunAuthorization {
    /// SHA-256 of what the browser brings back.
    pub state_hash: String,
    /// The server.
    pub server: String,
    /// What is needed to finish it, sealed.
    pub sealed: String,
}

/// All authorizations that were begun; there are few.
pub(super) fn begun(conn: &Connection) -> Result<Vec<BegunAuthorization>, StoreError> {
    let sql = "SELECT state_hash, server, sealed FROM mcp_authorizations ORDER BY state_hash";
    queries::all(conn, sql, [], |row| {
        let (state_hash, server, sealed) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(BegunAuthorization { state_hash, server, sealed })
    })
}
