//! What a project has besides what the server brings: a tool of its own and MCP servers.

use iris_client::Client;
use iris_protocol::{
    ApiError, ErrorCode, HttpMethod, HttpToolSettings, McpAuthorize, McpCreate, McpDelete,
    McpState, McpStatusGet, McpTransport, McpUpdate, ProjectId, ToolCreate, ToolDelete, ToolId,
    ToolList, ToolUpdate,
};
use iris_testkit::moment;
use serde_json::json;
use url::form_urlencoded::Serializer;

use super::delete_project;
use crate::player::{Player, Trouble};

pub(super) async fn extensions(player: &Player<'_>) {
    let project = player.project().await;
    tool(player, &project).await;
    mcp_server(player, &project).await;
    authorized_mcp_server(player, &project).await;
    delete_project(player, &project).await;
}

/// A tool that is made, changed and deleted.
async fn tool(player: &Player<'_>, project: &ProjectId) {
    let (client, id) = (&player.person.client, Some(project));
    let create = async || {
        let http = HttpToolSettings {
            method: HttpMethod::Get,
            url: "https://tools.invalid/".to_owned(),
            query: [].into(),
            headers: [].into(),
            body: None,
            secret_headers: [].into(),
            timeout_ms: None,
        };
        let request = ToolCreate {
            name: "weather".to_owned(),
            description: "Tells the weather.".to_owned(),
            parameters: json!({ "type": "object" }),
            enabled: None,
            http: Some(http),
            command: None,
        };
        Ok(client.call(id, request).await?)
    };
    player.insist_done("tool.create", create).await;
    let find = async || {
        let tools = client.call(id, ToolList {}).await?.tools;
        Ok(tools.into_iter().find_map(|tool| tool.id).unwrap())
    };
    let tool_id: ToolId = player.insist("tool.list", find).await;
    let update = async || {
        let request = ToolUpdate {
            tool_id: tool_id.clone(),
            description: Some("Tells the weather of tomorrow.".to_owned()),
            parameters: None,
            enabled: None,
            http: None,
            command: None,
        };
        Ok(client.call(id, request).await?)
    };
    player.insist("tool.update", update).await;
    let delete = async || Ok(client.call(id, ToolDelete { tool_id: tool_id.clone() }).await?);
    player.insist_done("tool.delete", delete).await;
}

/// A server that nobody reaches, which is made, changed, looked at and deleted.
async fn mcp_server(player: &Player<'_>, project: &ProjectId) {
    let (client, id) = (&player.person.client, Some(project));
    let name = || "web".to_owned();
    let create = async || {
        let url = "https://mcp.invalid/".to_owned();
        let request = McpCreate {
            name: name(),
            transport: McpTransport::Http { url, headers: [].into() },
            secret_headers: None,
            oauth: None,
            enabled: None,
            initialize_timeout_ms: None,
            request_timeout_ms: None,
        };
        Ok(client.call(id, request).await?)
    };
    player.insist_done("mcp.create", create).await;
    let update = async || {
        let request = McpUpdate {
            name: name(),
            transport: None,
            secret_headers: None,
            oauth: None,
            forget_authorization: None,
            enabled: None,
            initialize_timeout_ms: None,
            request_timeout_ms: Some(1_000),
            approve: None,
        };
        Ok(client.call(id, request).await?)
    };
    player.insist("mcp.update", update).await;
    let status = async || Ok(client.call(id, McpStatusGet { name: name() }).await?);
    player.insist("mcp.status", status).await;
    let delete = async || Ok(client.call(id, McpDelete { name: name() }).await?);
    player.insist_done("mcp.delete", delete).await;
}

/// A server that wants an authorization, which is begun, agreed to and, because it is good for a short time,
/// renewed at once.
async fn authorized_mcp_server(player: &Player<'_>, project: &ProjectId) {
    let (client, id, login) = (&player.person.client, Some(project), player.login);
    let name = || "login".to_owned();
    login.login().tokens = json!({ "expires_in": 30 });
    let create = async || {
        let url = format!("{}/mcp", login.origin());
        let request = McpCreate {
            name: name(),
            transport: McpTransport::Http { url, headers: [].into() },
            secret_headers: None,
            oauth: None,
            enabled: None,
            initialize_timeout_ms: None,
            request_timeout_ms: None,
        };
        Ok(client.call(id, request).await?)
    };
    player.insist_done("mcp.create", create).await;
    // What was begun is used up also by an attempt whose answer is lost.
    let authorize = async || {
        let begun = client.call(id, McpAuthorize { name: name() }).await?;
        let query = Serializer::new(String::new()).extend_pairs(login.agree(&begun.url)).finish();
        let path = format!("/v1/mcp/callback?{query}");
        // A browser is another client.
        let browser = Client::new(&player.app.url).unwrap();
        let answer = browser.raw("GET", &path, None, &[], Vec::new().into()).await?;
        answer.error().map_or(Ok(()), |error| Err(Trouble::Refused(error)))?;
        loop {
            let status = client.call(id, McpStatusGet { name: name() }).await?.status;
            let reason = status.reason.unwrap_or_default();
            // The token that was there before is used up, and the new one was not stored.
            if status.state == McpState::NeedsAuth && reason.contains("good no more") {
                return Err(Trouble::Refused(ApiError::new(ErrorCode::Overloaded, reason)));
            }
            if status.state == McpState::NeedsApproval {
                return Ok(());
            }
            moment().await;
        }
    };
    player.insist("mcp.authorize", authorize).await;
}
