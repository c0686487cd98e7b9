//! The rules about what tools may touch in all projects: a matter of the server's administrators.

use std::sync::Arc;

use iris_protocol::{
    ApiError, PermissionId, PermissionSetting, ServerPermissionCreate, ServerPermissionDelete,
    ServerPermissionList, ServerPermissionUpdate,
};
use iris_store::root::{
    CreateServerPermission, DeleteServerPermission, RecordAudit, UpdateServerPermission,
};
use iris_store::{Command, Committed, WriteContext};
use serde_json::{Value, json};

use super::permissions::{answer, behind, check_parts, check_setting, page, place_of};
use super::projects::page_size;
use super::{Done, Grant, done, internal, stored};
use crate::{Node, write};

pub(super) async fn list(node: &Node, request: ServerPermissionList) -> Result<Done, ApiError> {
    let ServerPermissionList { limit, cursor } = request;
    let (limit, place) = (page_size(limit)? as usize, place_of(cursor.as_deref())?);
    let rules = node.root_reader.permissions().await.map_err(stored)?;
    done(page(behind(rules, place.as_ref()), limit)?)
}

/// Commits a change and has the rules read again, also when who asked for it goes away meanwhile.
async fn change<C: Command>(
    node: &Node,
    command: C,
    context: WriteContext,
) -> Result<Committed<C::Output>, ApiError> {
    let changed = write(&node.root, command, context);
    let rules = Arc::clone(&node.server_rules);
    let changed = tokio::spawn(async move {
        let changed = changed.await;
        rules.outdate();
        changed
    });
    changed.await.map_err(internal)?.map_err(stored)
}

fn audit(
    node: &Node,
    grant: &Grant,
    action: &str,
    id: &PermissionId,
    details: Value,
) -> Result<RecordAudit, ApiError> {
    Ok(node.services.audit(grant.user_id()?, action, id.as_str(), details))
}

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: ServerPermissionCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let ServerPermissionCreate { permission, pattern, action } = request;
    let setting = PermissionSetting { permission, pattern, action };
    check_setting(&setting)?;
    let id = PermissionId::from_bits(node.services.ids.next_bits());
    let audit = audit(node, grant, "permission.create", &id, json!({ "rule": setting }))?;
    let command = CreateServerPermission { id, setting, audit };
    answer(&node.services.tools, change(node, command, context).await?)
}

pub(super) async fn update(
    node: &Node,
    grant: &Grant,
    request: ServerPermissionUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let ServerPermissionUpdate { permission_id: id, permission, pattern, action } = request;
    check_parts(permission.as_deref(), pattern.as_deref())?;
    let details = json!({ "permission": permission, "pattern": pattern, "action": action });
    let audit = audit(node, grant, "permission.update", &id, details)?;
    let command = UpdateServerPermission { id, permission, pattern, action, audit };
    answer(&node.services.tools, change(node, command, context).await?)
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    request: ServerPermissionDelete,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let id = request.permission_id;
    let audit = audit(node, grant, "permission.delete", &id, json!({}))?;
    let command = DeleteServerPermission { id, audit };
    let deleted = change(node, command, context).await?;
    Ok(done(iris_protocol::Done { done: true })?.at(deleted.seq, deleted.replayed))
}
