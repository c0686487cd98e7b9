//! MCP servers, and what was approved of them; questions of calls that run.

use iris_protocol::{ErrorCode, McpOauth, McpTransport};
use iris_store::project::{
    CreateMcpServer, DeleteMcpServer, MCP_SERVERS_MAX, McpApproval, McpOauthConfig, McpSecrets,
    PublishMcpStatus, Quotas, UpdateMcpServer,
};
use serde_json::json;

use crate::fixture::{Fixture, NOW, ann, bob};

pub(crate) fn web(url: &str) -> McpTransport {
    McpTransport::Http { url: url.to_owned(), headers: [].into() }
}

pub(crate) fn create(name: &str) -> CreateMcpServer {
    CreateMcpServer {
        name: name.to_owned(),
        transport: web("https://a.example/"),
        secrets: McpSecrets { names: vec!["x-key".into()], sealed: Some("sealed".into()) },
        oauth: McpOauthConfig::default(),
        enabled: true,
        initialize_timeout_ms: 1,
        request_timeout_ms: 2,
        quotas: Quotas::default(),
        by: ann(),
        at: NOW,
    }
}

pub(crate) fn update(name: &str) -> UpdateMcpServer {
    UpdateMcpServer {
        name: name.to_owned(),
        seen: None,
        transport: None,
        secrets: None,
        oauth: None,
        forgets_authorization: false,
        client_secret_resealed: None,
        enabled: None,
        initialize_timeout_ms: None,
        request_timeout_ms: None,
        approval: None,
        quotas: Quotas::default(),
        by: bob(),
        at: NOW + 1,
    }
}

fn approval() -> McpApproval {
    McpApproval {
        definitions: vec![json!({ "name": "echo" })],
        tools: vec!["a__echo".into()],
        hash: "h".into(),
    }
}

#[tokio::test]
async fn a_server_is_created_approved_changed_and_deleted() {
    let fixture = Fixture::new();
    let created = fixture.write(create("a")).await.unwrap();
    assert_eq!(created.secret_headers, ["x-key"]);
    let stored = fixture.reader().mcp_server("a".into()).await.unwrap().unwrap();
    assert_eq!((&stored.server, stored.secrets.as_deref()), (&created, Some("sealed")));
    let twice = fixture.refusal(create("a")).await;
    assert_eq!(twice, (ErrorCode::Conflict, "name_taken".into()));

    let approve = UpdateMcpServer { approval: Some(approval()), ..update("a") };
    let approved = fixture.write(approve).await.unwrap();
    assert_eq!(
        (approved.tools.as_slice(), approved.approved_hash.as_deref()),
        (&["a__echo".to_owned()][..], Some("h"))
    );
    assert_eq!((approved.created_by, approved.updated_by), (ann(), bob()));
    // What says nothing of the transport, or names the same, leaves what was approved.
    let same = UpdateMcpServer {
        transport: Some(created.transport.clone()),
        enabled: Some(false),
        ..update("a")
    };
    assert_eq!(fixture.write(same).await.unwrap().tools.len(), 1);
    let moved = UpdateMcpServer { transport: Some(web("https://b.example/")), ..update("a") };
    let moved = fixture.write(moved).await.unwrap();
    assert_eq!((moved.tools.len(), moved.approved_hash, moved.enabled), (0, None, false));
    let stored = fixture.reader().mcp_server("a".into()).await.unwrap().unwrap();
    assert_eq!((stored.definitions.len(), stored.secrets.as_deref()), (0, Some("sealed")));

    fixture.write(DeleteMcpServer { name: "a".into(), by: bob(), at: NOW }).await.unwrap();
    assert_eq!(fixture.reader().mcp_servers().await.unwrap(), []);
    assert_eq!(fixture.take_events(), ["P mcp.status"; 5]);
    let gone = fixture.refusal(update("a")).await;
    assert_eq!(gone.0, ErrorCode::NotFound);
}

#[tokio::test]
async fn the_secret_of_a_client_stays_where_it_was_for() {
    let fixture = Fixture::new();
    let with_secret = |client: &str| McpOauthConfig {
        oauth: Some(McpOauth {
            client_id: Some(client.into()),
            has_client_secret: true,
            origins: Vec::new(),
            scopes: Vec::new(),
        }),
        client_secret: Some(format!("secret of {client}")),
    };
    fixture.write(CreateMcpServer { oauth: with_secret("one"), ..create("a") }).await.unwrap();
    let first = fixture.reader().mcp_server("a".into()).await.unwrap().unwrap().server.transport;
    let to = |url: &str| UpdateMcpServer { transport: Some(web(url)), ..update("a") };
    let moved = fixture.write(to("https://evil.example/")).await.unwrap();
    let oauth = moved.oauth.unwrap();
    assert_eq!((oauth.client_id, oauth.has_client_secret), (None, false));
    let stored = fixture.reader().mcp_server("a".into()).await.unwrap().unwrap();
    assert_eq!(stored.client_secret, None);
    // Whoever gives another one with the move knows it.
    let told = UpdateMcpServer { oauth: Some(with_secret("two")), ..to("https://b.example/") };
    fixture.write(told).await.unwrap();
    let stored = fixture.reader().mcp_server("a".into()).await.unwrap().unwrap();
    assert_eq!(stored.client_secret.as_deref(), Some("secret of two"));
    // A change that was looked at while it was elsewhere is none.
    let late = UpdateMcpServer { seen: Some(first), ..update("a") };
    assert_eq!(fixture.refusal(late).await, (ErrorCode::Conflict, "server_changed".into()));
}

#[tokio::test]
async fn a_project_has_a_bounded_number_of_servers() {
    let fixture = Fixture::new();
    for number in 0..MCP_SERVERS_MAX {
        fixture.write(create(&format!("s{number}"))).await.unwrap();
    }
    let refused = fixture.refusal(create("more")).await;
    assert_eq!(refused, (ErrorCode::Conflict, "too_many_servers".into()));
}

#[tokio::test]
async fn how_a_server_is_is_told_while_it_is_there() {
    let fixture = Fixture::new();
    let status = PublishMcpStatus {
        name: "a".into(),
        state: iris_protocol::McpState::Failed,
        reason: Some("no".into()),
        offered_hash: None,
        at: NOW,
    };
    fixture.write(status.clone()).await.unwrap();
    assert_eq!(fixture.take_events(), [""; 0]);
    fixture.write(create("a")).await.unwrap();
    fixture.write(status).await.unwrap();
    assert_eq!(fixture.take_events(), ["P mcp.status"; 2]);
}
