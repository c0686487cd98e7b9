//! A tool that is about to be written: checked as a whole, its secrets sealed.

use std::collections::BTreeMap;
use std::sync::Arc;

use iris_auth::PlainSecret;
use iris_protocol::{
    ApiError, CommandTool, CommandToolSettings, ErrorCode, HttpMethod, HttpTool, HttpToolSettings,
    SecretText, Tool as WireTool, ToolId, ToolKind,
    limits::{
        DESCRIPTION_BYTES_MAX, SECRET_BYTES_MAX, SECRET_BYTES_MIN, SECRET_HEADERS_MAX,
        TOOL_CONFIG_BYTES_MAX,
    },
};
use iris_store::project::{ToolConfig, ToolDefinition};
use iris_tools::{COMMAND_TIMEOUT_MS_DEFAULT, HTTP_TIMEOUT_MS_MAX, SecretHeader, Tool};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{check_may_run, invalid};
use crate::Node;
use crate::dispatch::{Grant, check_length, internal, stored};
use crate::project::ProjectHandle;
use crate::toolbox::{Parts, SecretOwner, check_directory, make};

/// A tool that is about to be written.
pub(super) struct Draft {
    pub(super) id: ToolId,
    pub(super) name: String,
    /// The one that it gets.
    pub(super) revision: u64,
    pub(super) description: String,
    pub(super) parameters: Value,
    pub(super) enabled: Option<bool>,
    pub(super) written: Written,
}

/// What a call of it does, and the secrets for that.
pub(super) enum Written {
    Http {
        http: HttpTool,
        /// Those that stay, by their names.
        sealed: BTreeMap<String, String>,
        /// Those that came with the request.
        new: Vec<(String, SecretText)>,
    },
    Command(CommandTool),
}

impl Written {
    /// A request with the secrets of `before`, unless it goes elsewhere now: whoever changes where a secret
    /// is sent has to know it.
    pub(super) fn http(
        settings: HttpToolSettings,
        before: BTreeMap<String, String>,
        is_moved: bool,
    ) -> Result<Self, ApiError> {
        let HttpToolSettings { method, url, query, headers, body, secret_headers, timeout_ms } =
            settings;
        let (mut sealed, mut new) = (before, Vec::new());
        if secret_headers.len() > SECRET_HEADERS_MAX {
            let message = format!("`http` has more than {SECRET_HEADERS_MAX} secret headers");
            return Err(invalid(message));
        }
        for (name, secret) in secret_headers {
            let name = name.to_ascii_lowercase();
            sealed.remove(&name);
            let Some(secret) = secret else { continue };
            check_secret(&name, &secret)?;
            new.push((name, secret));
        }
        if let (true, Some(name)) = (is_moved, sealed.keys().next()) {
            let message = format!(
                "the secret header `{name}` was set for another server: set it again, or take it away with null"
            );
            return Err(ApiError::new(ErrorCode::Conflict, message).reason("secret_needed"));
        }
        let timeout_ms = timeout_ms.unwrap_or(HTTP_TIMEOUT_MS_MAX);
        let secret_headers = Vec::new();
        let http = HttpTool { method, url, query, headers, body, secret_headers, timeout_ms };
        Ok(Self::Http { http, sealed, new })
    }

    pub(super) fn command(settings: CommandToolSettings) -> Self {
        let CommandToolSettings { argv, workdir, timeout_ms } = settings;
        let timeout_ms = timeout_ms.unwrap_or(COMMAND_TIMEOUT_MS_DEFAULT);
        Self::Command(CommandTool { argv, workdir, timeout_ms })
    }
}

/// The value is repeated nowhere.
fn check_secret(name: &str, secret: &SecretText) -> Result<(), ApiError> {
    if (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.expose().len()) {
        return Ok(());
    }
    let name: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    let range = format!("{SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes");
    Err(invalid(format!("the secret header `{name}` must have {range}")))
}

impl Draft {
    /// Whoever has a program run on the server by defining a tool needs the right to.
    pub(super) async fn check_code(&self, node: &Node, grant: &Grant) -> Result<(), ApiError> {
        match &self.written {
            Written::Http { .. } => Ok(()),
            Written::Command(_) => check_may_run(node, grant).await,
        }
    }

    /// Checks all of it, as it will be when it is read again, and seals what is secret.
    pub(super) async fn definition(
        self,
        node: &Node,
        project: &ProjectHandle,
    ) -> Result<ToolDefinition, ApiError> {
        check_length("description", &self.description, DESCRIPTION_BYTES_MAX)?;
        if matches!(self.written, Written::Command(_)) {
            check_directory(project)?;
        }
        let tool = self.check(node).await?;
        let writes = tool.writes();
        let enabled = self.enabled.unwrap_or(true);
        let (config, secrets) = match self.written {
            Written::Command(command) => (ToolConfig::Command(command), BTreeMap::new()),
            Written::Http { http, sealed, new } => {
                let owner = SecretOwner::new(project, &self.id, &http.url);
                let mut secrets = BTreeMap::new();
                for (name, sealed) in sealed {
                    let sealed = owner.renewed(&node.services, &name, sealed).map_err(internal)?;
                    secrets.insert(name, sealed);
                }
                for (name, secret) in new {
                    let secret = PlainSecret::new(secret.expose().to_owned());
                    let sealed = owner.seal(&node.services, &name, &secret).map_err(internal)?;
                    secrets.insert(name, sealed);
                }
                (ToolConfig::Http(http), secrets)
            }
        };
        check_config(&config)?;
        let (description, parameters) = (self.description, self.parameters);
        Ok(ToolDefinition { description, parameters, config, secrets, writes, enabled })
    }

    /// Makes the tool, once, with the secrets that came; those that stay were looked at when they came.
    async fn check(&self, node: &Node) -> Result<Arc<dyn Tool>, ApiError> {
        let (kind, http, command, secrets) = match &self.written {
            Written::Command(command) => (ToolKind::Command, None, Some(command), Vec::new()),
            Written::Http { http, sealed, new } => {
                let kept = sealed.keys().map(|name| (name, None));
                let new = new
                    .iter()
                    .map(|(name, secret)| (name, Some(Zeroizing::new(secret.expose().to_owned()))));
                let secrets = kept.chain(new);
                let secrets =
                    secrets.map(|(name, value)| SecretHeader { name: name.clone(), value });
                (ToolKind::Http, Some(http), None, secrets.collect())
            }
        };
        let tool = WireTool {
            id: Some(self.id.clone()),
            name: self.name.clone(),
            description: self.description.clone(),
            kind,
            parameters: self.parameters.clone(),
            writes: http.is_none_or(|http| http.method != HttpMethod::Get),
            enabled: true,
            problem: None,
            http: http.cloned(),
            command: command.cloned(),
            revision: Some(self.revision),
            created_by: None,
            created_at: None,
            updated_by: None,
            updated_at: None,
        };
        let made = make(&node.services, vec![Parts { tool, secrets }]).await.map_err(stored)?;
        let made = made.into_iter().next().ok_or_else(|| internal("no tool was made"))?;
        made.map_err(|error| invalid(error.to_string()))
    }
}

fn check_config(config: &ToolConfig) -> Result<(), ApiError> {
    let text = match config {
        ToolConfig::Http(http) => serde_json::to_string(http),
        ToolConfig::Command(command) => serde_json::to_string(command),
    };
    let (field, text) = match config {
        ToolConfig::Http(_) => ("http", text.map_err(internal)?),
        ToolConfig::Command(_) => ("command", text.map_err(internal)?),
    };
    check_length(field, &text, TOOL_CONFIG_BYTES_MAX)
}
