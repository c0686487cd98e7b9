//! The permission rules of the server.

use iris_protocol::{
    ErrorCode, PermissionAction, PermissionId, PermissionLayer, PermissionSetting,
};
use iris_store::root::{
    CreateServerPermission, DeleteServerPermission, RecordAudit, SERVER_PERMISSIONS_MAX,
    UpdateServerPermission,
};
use serde_json::json;

use crate::{NOW, Root, user_id};

fn audit(action: &str) -> RecordAudit {
    RecordAudit {
        at: NOW,
        user_id: Some(user_id(1)),
        action: action.to_owned(),
        target: "permission".to_owned(),
        request_id: None,
        details: json!({}),
        ..RecordAudit::default()
    }
}

fn create(n: u128) -> CreateServerPermission {
    let setting = PermissionSetting {
        permission: "bash".to_owned(),
        pattern: "git *".to_owned(),
        action: PermissionAction::Allow,
    };
    CreateServerPermission { id: PermissionId::from_bits(n), setting, audit: audit("create") }
}

#[tokio::test]
async fn each_change_of_a_rule_is_in_the_audit() {
    let root = Root::new();
    root.user(1).await;
    let created = root.run(create(1)).await.unwrap();
    assert_eq!(
        (created.layer, created.created_by.clone()),
        (PermissionLayer::Server, Some(user_id(1)))
    );
    let id = PermissionId::from_bits(1);
    let update = UpdateServerPermission {
        id: id.clone(),
        permission: None,
        pattern: None,
        action: Some(PermissionAction::Deny),
        audit: audit("update"),
    };
    let updated = root.run(update.clone()).await.unwrap();
    assert_eq!((updated.action, updated.pattern.as_str()), (PermissionAction::Deny, "git *"));
    assert_eq!(root.reader.permissions().await.unwrap(), [updated]);
    let delete = DeleteServerPermission { id, audit: audit("delete") };
    root.run(delete.clone()).await.unwrap();
    assert_eq!(root.reader.permissions().await.unwrap(), []);
    assert_eq!(root.run(update).await.unwrap_err().code(), ErrorCode::NotFound);
    assert_eq!(root.run(delete).await.unwrap_err().code(), ErrorCode::NotFound);
    let audited = root.reader.audit(10).await.unwrap();
    let actions: Vec<_> = audited.iter().map(|it| it.action.as_str()).collect();
    assert_eq!(actions, ["delete", "update", "create"]);
}

#[tokio::test]
async fn the_server_has_a_bounded_number_of_rules() {
    let root = Root::new();
    root.user(1).await;
    for n in 0..u128::from(SERVER_PERMISSIONS_MAX) {
        root.run(create(n)).await.unwrap();
    }
    let refused = root.run(create(u128::from(SERVER_PERMISSIONS_MAX))).await.unwrap_err();
    assert_eq!(refused.to_api().details["reason"], "too_many_permissions");
}
