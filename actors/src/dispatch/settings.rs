//! Settings of projects and of the server.

use iris_protocol::{
    ApiError, ProjectSettings, ProjectSettingsUpdate, SettingsUpdate,
    limits::{MAINTENANCE_MESSAGE_BYTES_MAX, SETTINGS_BYTES_MAX},
};
use iris_store::WriteContext;
use iris_store::root::{ChooseSettings, MergeProjectSettings};
use serde_json::{Map, Value, json};

use super::projects::publish;
use super::{Done, Grant, check_length, done, internal, stored};
use crate::choices::{API_KEYS, MAINTENANCE, PROJECT_CREATION, REGISTRATION};
use crate::{Node, ResumePolicy, write};

/// Refuses settings of a project that cannot be kept.
pub(super) fn check_project_settings(settings: &Map<String, Value>) -> Result<(), ApiError> {
    let json = serde_json::to_string(settings).map_err(internal)?;
    check_length("settings", &json, SETTINGS_BYTES_MAX)?;
    if !settings.values().all(iris_tools::is_shallow) {
        return Err(ApiError::invalid("`settings` is nested too deeply").reason("too_deep"));
    }
    Ok(())
}

pub(super) async fn of_project(node: &Node, grant: &Grant) -> Result<Done, ApiError> {
    let settings = node.root_reader.project_settings(grant.project_id()?).await;
    done(ProjectSettings { settings: settings.map_err(stored)? })
}

pub(super) async fn update_project(
    node: &Node,
    grant: &Grant,
    request: ProjectSettingsUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let ProjectSettingsUpdate { settings: changes } = request;
    check_project_settings(&changes)?;
    // Null takes a choice away, so it is none.
    let chosen = changes.iter().filter(|(_, value)| !value.is_null());
    ResumePolicy::check(&chosen.map(|(key, value)| (key.clone(), value.clone())).collect())?;
    let command = MergeProjectSettings {
        id: grant.project_id()?.clone(),
        changes,
        bytes_max: SETTINGS_BYTES_MAX,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    let merged = write(&node.root, command, context).await.map_err(stored)?;
    let seq = publish(node, grant, merged.replayed).await;
    Ok(done(ProjectSettings { settings: merged.output })?.at(seq, merged.replayed))
}

pub(super) fn get(node: &Node) -> Result<Done, ApiError> {
    done(node.choices.now())
}

pub(super) async fn update(
    node: &Node,
    request: SettingsUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let SettingsUpdate { registration, project_creation, api_keys, maintenance } = request;
    let mut changes = Vec::new();
    if let Some(mode) = registration {
        changes.push((REGISTRATION, mode.map(|mode| json!(mode))));
    }
    if let Some(who) = project_creation {
        changes.push((PROJECT_CREATION, who.map(|who| json!(who))));
    }
    if let Some(may) = api_keys {
        changes.push((API_KEYS, may.map(|may| json!(may))));
    }
    if let Some(maintenance) = maintenance {
        if let Some(message) = maintenance.as_ref().and_then(|it| it.message.as_deref()) {
            check_length("maintenance.message", message, MAINTENANCE_MESSAGE_BYTES_MAX)?;
        }
        changes.push((MAINTENANCE, maintenance.map(|it| json!(it))));
    }
    let command = ChooseSettings { changes, at: node.services.clock.now_ms() };
    let chosen = write(&node.root, command, context).await.map_err(stored)?;
    // Not what this write answered: another one may have come behind it.
    let _order = node.choices.order.lock().await;
    node.choose(node.root_reader.chosen_settings().await.map_err(stored)?);
    Ok(done(node.choices.now())?.at(None, chosen.replayed))
}
