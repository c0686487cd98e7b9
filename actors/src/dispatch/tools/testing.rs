//! Tests of tools: a call outside of a session, for an administrator.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{ApiError, ErrorCode, PermissionAction, ToolTest, ToolTestPayload};
use iris_store::WriteContext;
use iris_store::root::RecordAudit;
use iris_tools::{ReadLog, Tool, ToolContext, ToolRegistry};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{check_may_run, invalid};
use crate::agents::DEFAULT_AGENT;
use crate::dispatch::{Done, Grant, done, internal, stored};
use crate::permissions::{agent_for, judge, judged};
use crate::project::ProjectHandle;
use crate::toolbox::{Parts, make};
use crate::{Node, write};

/// How many tests of tools run at once in this process; more are refused.
static TESTING: Semaphore = Semaphore::const_new(4);

/// Runs a tool for the administrator who asks for it, who needs not be asked again. A rule that denies what
/// it touches counts; so does the right to have programs run.
pub(in crate::dispatch) async fn test(
    node: &Node,
    grant: &Grant,
    request: ToolTest,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let ToolTest { tool_id, input } = request;
    if let Some(key) = context.idempotency.clone() {
        let first = node.root_reader.recall::<RecordAudit>(key).await.map_err(stored)?;
        if first.is_some() {
            return Err(already_tested());
        }
    }
    let project = grant.project(node).await?;
    let found = project.reader.tool(tool_id.clone()).await.map_err(stored)?;
    let found = found.ok_or_else(|| ApiError::not_found("tool"))?;
    let name = found.tool.name.clone();
    let parts = vec![Parts::opened(&project, &node.services, found)];
    let made = make(&node.services, parts).await.map_err(stored)?.into_iter().next();
    let made = made.ok_or_else(|| internal("no tool was made"))?;
    let tool = made.map_err(|error| invalid(error.to_string()))?;
    if tool.runs_code() {
        check_may_run(node, grant).await?;
    }
    if let Some(error) = tool.unavailable() {
        return Err(ApiError::new(error.code(), error.to_string()).reason("tool_unavailable"));
    }
    let input = Value::Object(input);
    let context_of_call = admitted(node, grant, &project, &tool, &input).await?;
    let _turn = TESTING.try_acquire().map_err(|_| {
        ApiError::new(ErrorCode::Overloaded, "too many tools are being tested").retry_after(1_000)
    })?;
    let details = json!({ "projectId": project.id, "name": name });
    let audit = node.services.audit(grant.user_id()?, "tool.test", tool_id.as_str(), details);
    // Another one with the same key may have come first, just now.
    if write(&node.root, audit, context).await.map_err(stored)?.replayed {
        return Err(already_tested());
    }
    let mut tested = run(node, tool.as_ref(), context_of_call, input).await;
    let secrets = &project.kept.secrets;
    for text in tested.output.iter_mut().chain(&mut tested.error) {
        secrets.mask_in(text);
    }
    if let Some(value) = &mut tested.metadata {
        secrets.mask_value(value);
    }
    done(tested)
}

fn already_tested() -> ApiError {
    let message = "the tool was run for this key already; what came of it is not kept";
    ApiError::new(ErrorCode::Conflict, message).reason("already_tested")
}

/// What a call works with, unless its arguments or a rule forbid it.
async fn admitted(
    node: &Node,
    grant: &Grant,
    project: &ProjectHandle,
    tool: &Arc<dyn Tool>,
    input: &Value,
) -> Result<ToolContext, ApiError> {
    let services = &node.services;
    let agent = agent_for(project, services, Some(DEFAULT_AGENT), None).await?;
    let judge =
        judge(project, services, None, &agent, from_ref(grant.user_id()?)).await.map_err(stored)?;
    let judge = Arc::new(judge);
    let alone = Arc::new(ToolRegistry::new(vec![Arc::clone(tool)]).map_err(internal)?);
    let (_, judgement) = judged(&alone, tool, input, &judge)
        .await
        .map_err(|error| ApiError::invalid(error.to_string()).reason("invalid_input"))?;
    match judgement.action {
        PermissionAction::Allow | PermissionAction::Ask => {}
        PermissionAction::Deny => {
            let denial = judgement.denial().unwrap_or_default();
            return Err(ApiError::new(ErrorCode::Forbidden, denial).reason("denied_by_rule"));
        }
    }
    let context = ToolContext::new(project.workspace.clone(), Arc::new(ReadLog::new()), judge);
    Ok(context.with_places(project.places.clone()))
}

async fn run(node: &Node, tool: &dyn Tool, context: ToolContext, input: Value) -> ToolTestPayload {
    let timeout = tool.time_limit(&input).unwrap_or(node.services.settings.tool_timeout);
    let begun = Instant::now();
    let ended = tokio::time::timeout(timeout, tool.run(context, input)).await;
    let duration_ms = millis(begun.elapsed());
    let failed =
        |error| ToolTestPayload { output: None, error: Some(error), metadata: None, duration_ms };
    match ended {
        Ok(Ok(output)) => ToolTestPayload {
            output: Some(output.output),
            error: None,
            metadata: (!output.metadata.is_null()).then_some(output.metadata),
            duration_ms,
        },
        Ok(Err(error)) => failed(error.to_string()),
        Err(_) => failed(format!("the tool took longer than {} s", timeout.as_secs())),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
