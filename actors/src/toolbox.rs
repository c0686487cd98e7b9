//! The tools of one project: those of the server, then those that the project has besides. They are kept in
//! memory until somebody changes one, so that a change counts from the next look on.

use std::sync::Arc;

use iris_auth::{AuthError, PlainSecret};
use iris_protocol::{ApiError, ProjectId, Tool as WireTool, ToolId};
use iris_store::StoreError;
use iris_store::project::StoredTool;
use iris_tools::{About, InvalidDefinition, SecretHeader, Tool, ToolRegistry, Workshop, origin_of};
use zeroize::Zeroizing;

use crate::Services;
use crate::mcp;
use crate::project::ProjectHandle;

/// Names that rules use, or that the server may have tools of at another time: no project takes one.
const RESERVED: [&str; 9] =
    ["read", "edit", "network", "bash", "webfetch", "task", "mcp", "skill", "iris"];

/// The tools that a project has now.
///
/// # Errors
/// As the reads of the project's database.
pub(crate) async fn tools_of(
    project: &ProjectHandle,
    services: &Services,
) -> Result<Arc<ToolRegistry>, StoreError> {
    let load = async {
        // Each kind of tool that a project has of its own adds its part here, in this order.
        let mut own = custom_tools(project, services).await?;
        own.extend(mcp::tools(project, services).await?);
        with_own(project, services, own).await
    };
    project.kept.tools.get(load).await
}

/// The server's tools come first: no tool of a project takes the name of one of them. What cannot be
/// registered is left out; the others stay.
async fn with_own(
    project: &ProjectHandle,
    services: &Services,
    own: Vec<Arc<dyn Tool>>,
) -> Result<ToolRegistry, StoreError> {
    let (tools, stored) = (Arc::clone(&services.tools), project.workspace.is_stored());
    let extend = move || {
        let (tools, refused) = tools.extended(own);
        // There is no directory to run programs in.
        (if stored { tools.without_code() } else { tools }, refused)
    };
    let (tools, refused) = off_thread(extend).await?;
    for error in refused {
        tracing::warn!(project.id = %project.id, %error, "a tool of the project is left out");
    }
    Ok(tools)
}

/// The tools that the project defined and that are enabled. One that cannot be made, because another version
/// of the server took it, is left out.
async fn custom_tools(
    project: &ProjectHandle,
    services: &Services,
) -> Result<Vec<Arc<dyn Tool>>, StoreError> {
    let mut stored = project.reader.tools().await?;
    for StoredTool { tool, secrets, .. } in &stored {
        tell_of_rotation(project, services, "tool", &tool.name, secrets.values());
    }
    stored.retain(|stored| stored.tool.enabled);
    let names: Vec<String> = stored.iter().map(|stored| stored.tool.name.clone()).collect();
    let parts = stored.into_iter().map(|stored| {
        let parts = Parts::opened(project, services, stored);
        if parts.secrets.iter().any(|secret| secret.value.is_none()) {
            let name = &parts.tool.name;
            tracing::warn!(project.id = %project.id, tool.name = name, "a secret has to be set again");
        }
        parts
    });
    let made = make(services, parts.collect()).await?.into_iter().zip(names);
    let made = made.filter_map(|(made, name)| {
        made.inspect_err(|error| {
            tracing::warn!(project.id = %project.id, tool.name = name, %error, "a tool is left out");
        })
        .ok()
    });
    Ok(made.collect())
}

/// Tells operators of secrets that the previous master key is still needed for, each time that they are read.
pub(crate) fn tell_of_rotation<'a>(
    project: &ProjectHandle,
    services: &Services,
    kind: &'static str,
    name: &str,
    secrets: impl IntoIterator<Item = &'a String>,
) {
    if secrets.into_iter().any(|sealed| services.sealing.needs_previous(sealed)) {
        tracing::info!(
            project.id = %project.id,
            kind,
            name,
            "a secret is sealed with the previous master key, which is needed until it is sealed anew"
        );
    }
}

/// What a tool is made of.
pub(crate) struct Parts {
    /// As it is defined.
    pub(crate) tool: WireTool,
    /// Its secret headers: without a value where one cannot be opened, which the tool says when it is called.
    pub(crate) secrets: Vec<SecretHeader>,
}

/// A tool, or what is wrong with its definition.
pub(crate) type Made = Result<Arc<dyn Tool>, InvalidDefinition>;

/// Makes tools, in their order: on a thread that may take its time, because schemas are compiled.
///
/// # Errors
/// `Internal` when that thread is lost.
pub(crate) async fn make(services: &Services, parts: Vec<Parts>) -> Result<Vec<Made>, StoreError> {
    let workshop = services.workshop.clone();
    off_thread(move || parts.into_iter().map(|parts| parts.make(&workshop)).collect()).await
}

/// Why a tool of the server is none of the project's; none where nothing keeps it away.
pub(crate) fn kept_away(
    project: &ProjectHandle,
    services: &Services,
    name: &str,
) -> Option<String> {
    let runs_code = services.tools.get(name).is_some_and(|tool| tool.runs_code());
    (runs_code && project.workspace.is_stored())
        .then(|| format!("`{name}` runs programs, and this project has no directory for them"))
}

/// Refuses what runs programs in a project without a directory for them.
pub(crate) fn check_directory(project: &ProjectHandle) -> Result<(), ApiError> {
    if !project.workspace.is_stored() {
        return Ok(());
    }
    let message = "no programs run in a project of this type: it has no directory";
    Err(ApiError::invalid(message).reason("no_directory"))
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work).await.map_err(StoreError::internal)
}

impl Parts {
    /// A stored tool with its secrets opened.
    pub(crate) fn opened(project: &ProjectHandle, services: &Services, stored: StoredTool) -> Self {
        let secrets = match (&stored.tool.id, &stored.tool.http) {
            (Some(id), Some(http)) => {
                let owner = SecretOwner::new(project, id, &http.url);
                let secrets = stored.secrets.iter();
                let opened = secrets.map(|(name, sealed)| owner.open(services, name, sealed));
                let learnt = opened.inspect(|header| {
                    if let Some(value) = &header.value {
                        project.kept.secrets.learn_chosen(value);
                    }
                });
                learnt.collect()
            }
            (None, _) | (_, None) => Vec::new(),
        };
        Self { tool: stored.tool, secrets }
    }

    fn make(self, workshop: &Workshop) -> Made {
        let Self { tool, secrets } = self;
        let about = About {
            id: tool.id.as_ref().map(ToolId::to_string).unwrap_or_default(),
            revision: tool.revision.unwrap_or_default(),
            name: tool.name,
            description: tool.description,
            parameters: tool.parameters,
        };
        match (&tool.http, &tool.command) {
            (Some(http), _) => workshop.http(about, http, secrets),
            (None, Some(command)) => workshop.command(about, command),
            (None, None) => Err(InvalidDefinition::new("it does nothing")),
        }
    }
}

/// What the secrets of a tool belong to: they open for nothing else.
pub(crate) struct SecretOwner<'a> {
    project_id: &'a ProjectId,
    tool_id: &'a ToolId,
    /// Scheme, host and port of where they are sent.
    origin: String,
}

impl<'a> SecretOwner<'a> {
    /// For a tool of the project that sends them to `url`.
    pub(crate) fn new(project: &'a ProjectHandle, tool_id: &'a ToolId, url: &str) -> Self {
        let origin = origin_of(url).unwrap_or_default();
        Self { project_id: &project.id, tool_id, origin }
    }

    fn parts<'b>(&'b self, name: &'b str) -> [&'b str; 4] {
        [self.project_id.as_str(), self.tool_id.as_str(), name, &self.origin]
    }

    /// Seals the value of a header.
    ///
    /// # Errors
    /// As [`SealingKeys::seal`](iris_auth::SealingKeys::seal).
    pub(crate) fn seal(
        &self,
        services: &Services,
        name: &str,
        secret: &PlainSecret,
    ) -> Result<String, AuthError> {
        services.sealing.seal(secret, &self.parts(name))
    }

    /// The same text, or sealed anew where the key is on its way out.
    ///
    /// # Errors
    /// As [`SecretOwner::seal`].
    pub(crate) fn renewed(
        &self,
        services: &Services,
        name: &str,
        sealed: String,
    ) -> Result<String, AuthError> {
        let renewed = services.sealing.renewed(&sealed, &self.parts(name))?;
        Ok(renewed.unwrap_or(sealed))
    }

    fn open(&self, services: &Services, name: &str, sealed: &str) -> SecretHeader {
        let value = services.sealing.open(sealed, &self.parts(name)).ok();
        let value = value.map(|value| Zeroizing::new(value.expose().to_owned()));
        SecretHeader { name: name.to_owned(), value }
    }
}

/// Whether a project may not call a tool of its own so: models and people would take it for another.
pub(crate) fn is_taken_by_server(services: &Services, name: &str) -> bool {
    let is_it = |other: &str| other.eq_ignore_ascii_case(name);
    RESERVED.iter().any(|other| is_it(other)) || services.tools.names().any(is_it)
}
