//! What administrators of the server do: look at the actors, restart and stop them, read the
//! supervision log, change the log lines and the master key. What changes something is in the audit first.

use iris_protocol::{
    ActorDetail, ActorGet, ActorList, ActorPage, ActorRestart, ActorStop, ApiError, ErrorCode,
    LineInfo, LogSet, MetricsDocument, NodeInfo, SupervisionList, SupervisionPage,
    SupervisionRecord,
    limits::{SUPERVISION_RECORDS_DEFAULT, SUPERVISION_RECORDS_MAX},
};
use iris_store::root::{RecordAudit, SupervisionQuery};
use serde_json::{Value, json};

use super::{Done, Grant, done, internal, stored};
use crate::line::LineFigures;
use crate::metrics::{MEDIA_TYPE, Metrics};
use crate::supervision::{OrderError, RecordFilter};
use crate::{Node, write};
use iris_store::{Committed, WriteContext};

pub(super) async fn actors(node: &Node, request: ActorList) -> Result<Done, ApiError> {
    // Thousands of actors are some milliseconds of work, too many for a thread that others wait for.
    let node = node.clone();
    let list = move || {
        let supervision = &node.services.supervision;
        let actors = supervision.actors(request.kind.as_deref(), request.under.as_deref());
        done(ActorPage { node: node_info(&node), actors })
    };
    tokio::task::spawn_blocking(list).await.map_err(internal)?
}

pub(super) async fn metrics(node: &Node) -> Result<Done, ApiError> {
    let node = node.clone();
    let text = tokio::task::spawn_blocking(move || Metrics::text(&node)).await.map_err(internal)?;
    let content = text.map_err(internal)?;
    done(MetricsDocument { mime_type: MEDIA_TYPE.to_owned(), content })
}

fn node_info(node: &Node) -> NodeInfo {
    let supervision = &node.services.supervision;
    NodeInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: u64::try_from(supervision.uptime().as_millis()).unwrap_or(u64::MAX),
        rss_bytes: rss_bytes(),
        actors: supervision.count_by_kind(),
        arbiters: supervision.threads(),
        draining: node.is_draining(),
        runs: line_info(node.services.runs.figures()),
        commands: line_info(node.services.commands.figures()),
        records_dropped: supervision.log().dropped(),
    }
}

fn line_info(figures: LineFigures) -> LineInfo {
    LineInfo {
        working: figures.working as u64,
        waiting: figures.waiting as u64,
        longest_wait_ms: u64::try_from(figures.longest.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Resident memory, as Linux says it in `/proc/self/statm` (proc(5)): the second field, in pages.
pub(crate) fn rss_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

pub(super) async fn actor(node: &Node, request: ActorGet) -> Result<Done, ApiError> {
    let supervision = &node.services.supervision;
    let list = {
        let (supervision, path) = (supervision.clone(), request.path.clone());
        move || supervision.actors(None, Some(&path))
    };
    let under = tokio::task::spawn_blocking(list).await.map_err(internal)?;
    let is_it = |path: &str| path == request.path;
    let actor = under.iter().find(|info| is_it(&info.path)).cloned();
    let actor = actor.ok_or_else(|| ApiError::not_found("actor"))?;
    let children = under.into_iter().filter(|info| is_it(&info.parent)).collect();
    let observed = supervision.observe(&request.path).await;
    let log = supervision.history(&request.path);
    done(ActorDetail { actor, observed, children, log })
}

pub(super) async fn restart(
    node: &Node,
    grant: &Grant,
    request: ActorRestart,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let supervision = &node.services.supervision;
    if recalled(node, &context).await?.is_some() {
        return ordered(true);
    }
    supervision.may_restart(&request.path).map_err(refused)?;
    let audited = audit(node, grant, "actor.restart", &request.path, json!({}), context).await?;
    if !audited.replayed {
        supervision.restart(&request.path).map_err(refused)?;
    }
    ordered(audited.replayed)
}

pub(super) async fn stop(
    node: &Node,
    grant: &Grant,
    request: ActorStop,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let supervision = &node.services.supervision;
    if recalled(node, &context).await?.is_some() {
        return ordered(true);
    }
    supervision.may_stop(&request.path).map_err(refused)?;
    let audited = audit(node, grant, "actor.stop", &request.path, json!({}), context).await?;
    if !audited.replayed {
        supervision.stop(&request.path).map_err(refused)?;
    }
    ordered(audited.replayed)
}

/// The answer to an order that was carried out, now or before.
fn ordered(replayed: bool) -> Result<Done, ApiError> {
    Ok(done(iris_protocol::Done { done: true })?.at(None, replayed))
}

/// What the audit holds under the key of a repeat. Looked up before anything is checked or done: what
/// the first one did may stand in the way of doing it again.
async fn recalled(node: &Node, context: &WriteContext) -> Result<Option<Value>, ApiError> {
    let Some(key) = context.idempotency.clone() else { return Ok(None) };
    let first = node.root_reader.recall::<RecordAudit>(key).await.map_err(stored)?;
    Ok(first.map(|first| first.output))
}

fn refused(error: OrderError) -> ApiError {
    match error {
        OrderError::NotFound => ApiError::not_found("actor"),
        OrderError::NotRestartable => {
            ApiError::new(ErrorCode::Conflict, error.to_string()).reason("not_restartable")
        }
        OrderError::Indispensable => {
            ApiError::new(ErrorCode::Conflict, error.to_string()).reason("indispensable")
        }
    }
}

async fn audit(
    node: &Node,
    grant: &Grant,
    action: &str,
    target: &str,
    details: Value,
    context: WriteContext,
) -> Result<Committed<Value>, ApiError> {
    let command = node.services.audit(grant.user_id()?, action, target, details);
    write(&node.root, command, context).await.map_err(stored)
}

pub(super) async fn supervision(node: &Node, request: SupervisionList) -> Result<Done, ApiError> {
    let SupervisionList { since, kind, path, limit } = request;
    let limit = limit.unwrap_or(SUPERVISION_RECORDS_DEFAULT);
    if !(1..=SUPERVISION_RECORDS_MAX).contains(&limit) {
        let message = format!("`limit` must be 1 to {SUPERVISION_RECORDS_MAX}");
        return Err(ApiError::invalid(message));
    }
    let log = node.services.supervision.log();
    let in_memory = log.records(&RecordFilter { since, kind, path: path.clone() });
    let query = SupervisionQuery { since, kind, path, limit: limit + 1 };
    let in_store = node.root_reader.supervision(query).await.map_err(stored)?;
    let mut records = merged(in_memory, in_store);
    let has_more = records.len() > limit;
    if since.is_some() {
        records.truncate(limit);
    } else {
        // Without a position the newest ones are wanted, and there is nothing after them.
        records.drain(..records.len().saturating_sub(limit));
    }
    let has_more = has_more && since.is_some();
    done(SupervisionPage { records, has_more, dropped: log.dropped() })
}

/// What is in memory or in the store, each once, oldest first.
fn merged(
    mut records: Vec<SupervisionRecord>,
    others: Vec<SupervisionRecord>,
) -> Vec<SupervisionRecord> {
    records.extend(others);
    records.sort_unstable_by_key(|record| record.id);
    records.dedup_by_key(|record| record.id);
    records
}

pub(super) fn log_settings(node: &Node) -> Result<Done, ApiError> {
    done(node.services.log.settings())
}

pub(super) async fn set_log(
    node: &Node,
    grant: &Grant,
    request: LogSet,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(first) = recalled(node, &context).await? {
        return Ok(done(first)?.at(None, true));
    }
    let settings = node.services.log.set(request)?;
    let details = serde_json::to_value(&settings).map_err(internal)?;
    let audited = audit(node, grant, "log.set", "log", details, context).await?;
    Ok(done(audited.output)?.at(None, audited.replayed))
}

/// The audit has that it was asked for, first, and then what came of it.
pub(super) async fn rotate_keys(
    node: &Node,
    grant: &Grant,
    context: WriteContext,
) -> Result<Done, ApiError> {
    if let Some(first) = recalled(node, &context).await? {
        return Ok(done(first)?.at(None, true));
    }
    let (action, target, alone) = ("keys.rotate", "master key", WriteContext::default());
    audit(node, grant, action, target, json!({ "asked": true }), alone).await?;
    let rotated = serde_json::to_value(node.rotate_keys().await?).map_err(internal)?;
    let audited = audit(node, grant, action, target, rotated, context).await?;
    Ok(done(audited.output)?.at(None, audited.replayed))
}
