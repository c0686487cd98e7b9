//! What has to be known before a yes to a waiting call is recorded: whether the rules let anybody say it,
//! what becomes of edited arguments, and which rules a yes that is remembered makes.

use std::sync::Arc;

use iris_agent::permissions::{Access, Judge};
use iris_protocol::{
    ApiError, Approval, ApprovalState, ErrorCode, JudgedAccess, PermissionAction, PermissionId,
    PermissionSetting, Remember, SessionId, ToolCallId, UserId,
};
use iris_store::StoreError;
use iris_store::project::{NewRule, Yes};

use super::{SessionPlace, users_of};
use crate::permissions;
use crate::toolbox::tools_of;

/// Fills in what a yes brings along. What is wrong with an approval that does not wait is for the command
/// to say.
///
/// # Errors
/// `INVALID_REQUEST` with reason `invalid_input` for arguments that the tool does not take; `FORBIDDEN` with
/// reason `no_code` for a user who may not have programs run, and `denied_by_rule` when a rule denies what
/// the call touches; `CONFLICT` with reason `not_rememberable` when no rule could name it, and `tool_gone`
/// when the tool does not exist any more, and `tool_changed` when it is another one now.
pub(super) async fn prepare(
    place: &SessionPlace,
    session_id: &SessionId,
    call_id: &ToolCallId,
    by: Option<&UserId>,
    yes: &mut Yes,
) -> Result<(), ApiError> {
    let found = place.project.reader.approval(session_id.clone(), call_id.clone()).await;
    let approval = found.map_err(|error| error.to_api())?;
    let Some(approval) = approval.filter(|it| it.state == ApprovalState::Pending) else {
        return Ok(());
    };
    let tools = tools_of(&place.project, &place.services).await.map_err(|e| e.to_api())?;
    let Some(tool) = tools.get(&approval.tool_name) else {
        let message = format!("there is no tool `{}` any more", approval.tool_name);
        return Err(ApiError::new(ErrorCode::Conflict, message).reason("tool_gone"));
    };
    if let (true, Some(by)) = (tool.runs_code(), by) {
        permissions::check_may_run_code(&place.project.root, by, "").await?;
    }
    if !permissions::is_what_was_shown(tool.as_ref(), &approval) {
        let message = format!(
            "the tool `{}` was changed since it was asked about: reject the call, so that it is made again",
            approval.tool_name
        );
        return Err(ApiError::new(ErrorCode::Conflict, message).reason("tool_changed"));
    }
    let edited = yes.edited.take().map(|(input, _)| input);
    let invalid = |message: String| ApiError::invalid(message).reason("invalid_input");
    let judge = Arc::new(judge_of(place, &approval).await?);
    let input = edited.as_ref().unwrap_or(&approval.input);
    let judged = permissions::judged(&tools, &tool, input, &judge).await;
    let (accesses, judgement) = judged.map_err(|error| invalid(error.to_string()))?;
    if let Some(denial) = judgement.denial() {
        return Err(ApiError::new(ErrorCode::Forbidden, denial).reason("denied_by_rule"));
    }
    match yes.remember {
        Remember::Once => {}
        Remember::Session | Remember::Project => {
            yes.rules = remembered(place, &accesses, &judgement.accesses)?;
        }
    }
    yes.edited = edited.map(|input| (input, judgement.accesses));
    Ok(())
}

/// The rules of the agent that makes the call, for whom its run acts.
async fn judge_of(place: &SessionPlace, approval: &Approval) -> Result<Judge, ApiError> {
    let (reader, stored) = (&place.project.reader, |error: StoreError| error.to_api());
    let session = reader.session(place.id.clone()).await.map_err(stored)?;
    let run = reader.run(approval.run_id.clone()).await.map_err(stored)?;
    let run = run.ok_or_else(|| ApiError::not_found("run"))?;
    let answer = reader.answer(place.id.clone(), run.id.clone()).await.map_err(stored)?;
    let agent = answer.and_then(|answer| answer.agent);
    let (project, services) = (&place.project, &place.services);
    let agent =
        permissions::agent_for(project, services, agent.as_deref(), session.as_ref()).await?;
    let users = users_of(place, run.id, &run.started_by).await.map_err(stored)?;
    let judge = permissions::judge(project, services, session.as_ref(), &agent, &users);
    judge.await.map_err(stored)
}

/// The rules that allow what the person was asked about, and nothing else.
fn remembered(
    place: &SessionPlace,
    accesses: &[Access],
    judged: &[JudgedAccess],
) -> Result<Vec<NewRule>, ApiError> {
    let asked = accesses.iter().zip(judged);
    let asked = asked.filter(|(_, judged)| judged.action == PermissionAction::Ask);
    let rules: Option<Vec<NewRule>> = asked
        .map(|(access, judged)| {
            let setting = PermissionSetting {
                permission: judged.permission.clone(),
                pattern: access.target.exact_pattern()?,
                action: PermissionAction::Allow,
            };
            Some(NewRule { id: PermissionId::from_bits(place.services.ids.next_bits()), setting })
        })
        .collect();
    rules.filter(|_| !accesses.is_empty()).ok_or_else(|| {
        let message = "what the call touches cannot be remembered: no rule can name it";
        ApiError::new(ErrorCode::Conflict, message).reason("not_rememberable")
    })
}
