//! The models that can be asked, and what administrators know of them.

use iris_llm::check_facts;
use iris_protocol::{
    ApiError, ListedModel, ModelList, ModelPage, ModelPayload, ModelRef, ModelReset, ModelSet,
};
use iris_store::root::{RecordAudit, ResetModelFacts, SetModelFacts};
use iris_store::{Command, Committed, WriteContext};
use serde_json::{Value, json};

use super::projects::page_size;
use super::{Done, Grant, check_model, done, internal, stored};
use crate::{Node, write};

pub(super) fn list(node: &Node, request: ModelList) -> Result<Done, ApiError> {
    let ModelList { provider_id, limit, cursor } = request;
    let limit = page_size(limit)? as usize;
    let behind = cursor.as_deref().map(place_of).transpose()?;
    let services = &node.services;
    let named: Vec<ModelRef> = services.settings.fallback_model.iter().cloned().collect();
    let all = services.catalog.list(&named, services.settings.default_model.as_ref());
    let mut models: Vec<ListedModel> = all
        .into_iter()
        .filter(|it| provider_id.as_ref().is_none_or(|id| *id == it.model.provider_id))
        .filter(|it| behind.as_ref().is_none_or(|place| it.model > *place))
        .take(limit + 1)
        .collect();
    let has_more = models.len() > limit;
    models.truncate(limit);
    let last = models.last().filter(|_| has_more);
    let next_cursor = last.map(|it| format!("{}/{}", it.model.provider_id, it.model.model_id));
    let catalog_version = services.catalog.version();
    done(ModelPage { models, catalog_version, next_cursor, has_more })
}

/// The model that a page ended with.
fn place_of(cursor: &str) -> Result<ModelRef, ApiError> {
    let (provider_id, model_id) = cursor.split_once('/').ok_or_else(|| {
        ApiError::invalid("`cursor` is none that a page gave").reason("invalid_cursor")
    })?;
    Ok(ModelRef { provider_id: provider_id.to_owned(), model_id: model_id.to_owned() })
}

pub(super) async fn set(
    node: &Node,
    grant: &Grant,
    request: ModelSet,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let ModelSet { model, facts } = request;
    check_model(Some(&model))?;
    check_facts(&facts)?;
    let audit = audit(node, grant, "model.set", &model, json!({ "facts": facts }))?;
    let command = SetModelFacts { model: model.clone(), facts, audit };
    let changed = change(node, command, context).await?;
    Ok(done(payload(node, model))?.at(None, changed.replayed))
}

pub(super) async fn reset(
    node: &Node,
    grant: &Grant,
    request: ModelReset,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let model = request.model;
    check_model(Some(&model))?;
    let audit = audit(node, grant, "model.reset", &model, json!({}))?;
    let command = ResetModelFacts { model: model.clone(), audit };
    let changed = change(node, command, context).await?;
    Ok(done(payload(node, model))?.at(None, changed.replayed))
}

fn payload(node: &Node, model: ModelRef) -> ModelPayload {
    let services = &node.services;
    let info = services.catalog.info(&model);
    let is_default = services.settings.default_model.as_ref() == Some(&model);
    let (source, facts, price_version) = (info.source, info.facts, info.price_version);
    ModelPayload { model: ListedModel { model, is_default, source, facts, price_version } }
}

/// Commits a change and has the catalogue know of it, also when who asked for it goes away meanwhile.
async fn change<C: Command>(
    node: &Node,
    command: C,
    context: WriteContext,
) -> Result<Committed<C::Output>, ApiError> {
    let changed = write(&node.root, command, context);
    let node = node.clone();
    let changed = tokio::spawn(async move {
        let changed = changed.await?;
        node.read_model_facts().await?;
        Ok(changed)
    });
    changed.await.map_err(internal)?.map_err(stored)
}

fn audit(
    node: &Node,
    grant: &Grant,
    action: &str,
    model: &ModelRef,
    details: Value,
) -> Result<RecordAudit, ApiError> {
    let target = format!("{}/{}", model.provider_id, model.model_id);
    Ok(node.services.audit(grant.user_id()?, action, &target, details))
}
