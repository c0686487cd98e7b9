//! Tools that a project defined, and their sealed secrets.

use std::collections::BTreeMap;

use iris_protocol::limits::CUSTOM_TOOLS_MAX;
use iris_protocol::*;
use iris_store::project::*;
use serde_json::json;

use crate::fixture::*;

fn http(url: &str) -> HttpTool {
    HttpTool {
        method: HttpMethod::Get,
        url: url.to_owned(),
        query: BTreeMap::new(),
        headers: BTreeMap::new(),
        body: None,
        secret_headers: vec!["ignored: the names are those of the secrets".to_owned()],
        timeout_ms: 1_000,
    }
}

fn definition(url: &str) -> ToolDefinition {
    ToolDefinition {
        description: "Tells the weather.".to_owned(),
        parameters: json!({ "type": "object" }),
        config: ToolConfig::Http(http(url)),
        secrets: BTreeMap::from([("x-key".to_owned(), "s1.key.sealed".to_owned())]),
        writes: false,
        enabled: true,
    }
}

fn create(n: u128) -> CreateTool {
    CreateTool {
        id: ToolId::from_bits(n),
        name: format!("tool{n}"),
        definition: definition("https://a.example/"),
        quotas: Quotas::default(),
        by: ann(),
        at: NOW,
    }
}

fn update(n: u128, revision: u64, url: &str) -> UpdateTool {
    UpdateTool {
        id: ToolId::from_bits(n),
        change: Some((revision, definition(url))),
        is_disabling: false,
        by: bob(),
        at: NOW + 1,
    }
}

#[tokio::test]
async fn a_tool_is_kept_with_its_secrets_and_shown_without_them() {
    let fixture = Fixture::new();
    let created = fixture.write(create(1)).await.unwrap();
    let shown = created.http.as_ref().unwrap();
    assert_eq!(shown.secret_headers, ["x-key"]);
    assert_eq!((created.revision, created.created_by.clone()), (Some(1), Some(ann())));
    let [stored] = fixture.reader().tools().await.unwrap().try_into().unwrap();
    assert_eq!((&stored.tool, stored.secrets["x-key"].as_str()), (&created, "s1.key.sealed"));
    assert!(!format!("{stored:?}").contains("s1.key"));
    assert_eq!(fixture.reader().tool(ToolId::from_bits(1)).await.unwrap(), Some(stored));

    let updated = fixture.write(update(1, 1, "https://b.example/")).await.unwrap();
    assert_eq!(updated.revision, Some(2));
    assert_eq!((updated.created_by, updated.updated_by), (Some(ann()), Some(bob())));
    assert_eq!(updated.http.unwrap().url, "https://b.example/");
    let delete = DeleteTool { id: ToolId::from_bits(1), by: bob(), at: NOW + 2 };
    fixture.write(delete.clone()).await.unwrap();
    assert_eq!(fixture.refusal(delete).await.0, ErrorCode::NotFound);
    assert_eq!(fixture.refusal(update(1, 2, "https://b.example/")).await.0, ErrorCode::NotFound);
    let events = fixture.take_stored();
    assert!(events.iter().all(|event| !event.payload.contains("s1.key")));
    assert_eq!(events.iter().map(told).collect::<Vec<_>>(), ["P tool.updated"; 3]);
    assert_eq!(fixture.reader().tools().await.unwrap(), []);
}

#[tokio::test]
async fn a_change_that_was_worked_out_from_an_older_tool_is_refused() {
    let fixture = Fixture::new();
    fixture.write(create(1)).await.unwrap();
    fixture.write(update(1, 1, "https://b.example/")).await.unwrap();
    let stale = fixture.refusal(update(1, 1, "https://c.example/")).await;
    assert_eq!(stale, (ErrorCode::Conflict, "tool_changed".into()));
    let nothing = UpdateTool { change: None, ..update(1, 2, "https://c.example/") };
    assert_eq!(fixture.refusal(nothing).await, (ErrorCode::Conflict, "tool_changed".into()));
    let [stored] = fixture.reader().tools().await.unwrap().try_into().unwrap();
    assert_eq!(stored.tool.http.unwrap().url, "https://b.example/");
}

#[tokio::test]
async fn names_are_unique_in_any_case_and_tools_are_bounded() {
    let fixture = Fixture::new();
    for n in 0..u128::from(CUSTOM_TOOLS_MAX) {
        fixture.write(create(n)).await.unwrap();
    }
    let more = fixture.refusal(create(u128::from(CUSTOM_TOOLS_MAX))).await;
    assert_eq!(more, (ErrorCode::Conflict, "too_many_tools".into()));
    let twice = CreateTool { name: "TOOL7".to_owned(), ..create(1_000) };
    assert_eq!(fixture.refusal(twice).await, (ErrorCode::Conflict, "name_taken".into()));
}

#[tokio::test]
async fn a_full_project_takes_no_more_tools() {
    let fixture = Fixture::new();
    let quotas = Quotas { bytes_max: 1, ..Quotas::default() };
    let refused = fixture.refusal(CreateTool { quotas, ..create(1) }).await;
    assert_eq!(refused.0, ErrorCode::QuotaExceeded);
}
