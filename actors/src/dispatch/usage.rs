//! What was used, and how much may be.

use iris_protocol::{
    ApiError, ServerUsageGet, SessionBudgetSet, SessionPayload, UsageGet, UserBudgetGet,
    UserBudgetPayload, UserBudgetSet, UserBudgets, UserId,
};
use iris_store::project::SetSessionBudget;
use iris_store::root::SetUserBudgets;
use iris_store::{Days, WriteContext};
use serde_json::json;

use super::{Done, Grant, done, stored};
use crate::{Node, budgets, write};

pub(super) async fn get(node: &Node, grant: &Grant, request: UsageGet) -> Result<Done, ApiError> {
    let UsageGet { session_id, project_id, from, to } = request;
    if project_id.is_some_and(|id| grant.project_id().is_ok_and(|known| *known != id)) {
        let message = "`projectId` of the payload is another project than that of the request";
        return Err(ApiError::invalid(message).reason("other_project"));
    }
    let days = days(from, to)?;
    let project = grant.project(node).await?;
    done(project.reader.usage_report(session_id, days).await.map_err(stored)?)
}

fn days(from: Option<i64>, to: Option<i64>) -> Result<Days, ApiError> {
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err(ApiError::invalid("`from` must be before `to`").reason("invalid_time"));
    }
    Ok(Days::between(from, to))
}

pub(super) async fn of_server(node: &Node, request: ServerUsageGet) -> Result<Done, ApiError> {
    let ServerUsageGet { user_id, from, to } = request;
    let report = node.root_reader.usage(user_id, days(from, to)?).await.map_err(stored)?;
    done(report)
}

pub(super) async fn set_session_budget(
    node: &Node,
    grant: &Grant,
    request: SessionBudgetSet,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let SessionBudgetSet { session_id: id, budget } = request;
    let (by, at) = (grant.user_id()?.clone(), node.services.clock.now_ms());
    let project = grant.project(node).await?;
    let command = SetSessionBudget { id, budget, by, at };
    let changed = write(&project.address, command, context).await.map_err(stored)?;
    let answer = done(SessionPayload { session: changed.output })?;
    Ok(answer.at(changed.seq, changed.replayed))
}

pub(super) async fn user_budgets(node: &Node, request: UserBudgetGet) -> Result<Done, ApiError> {
    let user = node.root_reader.user(&request.user_id).await.map_err(stored)?;
    user.ok_or_else(|| ApiError::not_found("user"))?;
    let budgets = node.root_reader.user_budgets(&request.user_id).await.map_err(stored)?;
    done(payload(node, request.user_id, budgets).await?)
}

async fn payload(
    node: &Node,
    user_id: UserId,
    budgets: UserBudgets,
) -> Result<UserBudgetPayload, ApiError> {
    let now = node.services.clock.now_ms();
    let (total, month) = node.root_reader.usage_of_user(&user_id, now).await.map_err(stored)?;
    let effective = budgets::of_user(budgets, &node.services.budgets.read());
    Ok(UserBudgetPayload { user_id, budgets, effective, total, month })
}

pub(super) async fn set_user_budgets(
    node: &Node,
    grant: &Grant,
    request: UserBudgetSet,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let UserBudgetSet { user_id: id, budgets } = request;
    let details = json!({ "budgets": budgets });
    let audit = node.services.audit(grant.user_id()?, "budget.set", id.as_str(), details);
    let command = SetUserBudgets { id: id.clone(), budgets, audit };
    let changed = write(&node.root, command, context).await.map_err(stored)?;
    Ok(done(payload(node, id, changed.output).await?)?.at(None, changed.replayed))
}
