//! The tools of one project: those of the server, then those that the project has besides. They are kept in
//! memory until somebody changes one, so that a change counts from the next look on.

use std::sync::Arc;

use iris_store::StoreError;
use iris_tools::{Tool, ToolRegistry};

use crate::Services;
use crate::mcp;
use crate::project::ProjectHandle;

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
        let own = mcp::tools(project).await?;
        Ok(with_own(project, services, own))
    };
    project.kept.tools.get(load).await
}

/// The server's tools come first: no tool of a project takes the name of one of them. What cannot be
/// registered is left out; the others stay.
fn with_own(project: &ProjectHandle, services: &Services, own: Vec<Arc<dyn Tool>>) -> ToolRegistry {
    let (tools, refused) = services.tools.extended(own);
    for error in refused {
        tracing::warn!(project.id = %project.id, %error, "a tool of the project is left out");
    }
    tools
}
