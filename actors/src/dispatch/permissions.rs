//! The rules about what tools may touch in one project. Those of a session are a matter of its members,
//! those of the whole project of its administrators.

use std::slice::from_ref;
use std::sync::Arc;

use iris_agent::permissions::{Glob, InvalidRule, check_permission};
use iris_protocol::{
    ApiError, ErrorCode, McpTransport, PermissionAction, PermissionCreate, PermissionDelete,
    PermissionExplain, PermissionId, PermissionList, PermissionPage, PermissionPayload,
    PermissionRule, PermissionSetting, PermissionUpdate, PermissionVerdict, Role, ToolKind,
};
use iris_store::project::{CreatePermission, DeletePermission, RulePlace, UpdatePermission};
use iris_store::{Committed, WriteContext};
use iris_tools::ToolRegistry;
use tokio::sync::Semaphore;

use super::projects::page_size;
use super::{Done, Grant, done, internal, stored};
use crate::permissions::{agent_for, check_may_run_code, judge, judged, server_rules};
use crate::project::ProjectHandle;
use crate::toolbox::tools_of;
use crate::{Node, write};

/// How many calls are explained at once; the others wait. Each may keep a thread busy for a second.
static EXPLAINING: Semaphore = Semaphore::const_new(2);

/// Groups of tools that rules may name.
const GROUPS: [&str; 4] = ["read", "edit", "network", "*"];

/// The caller's role in the project.
pub(super) async fn role_of(node: &Node, grant: &Grant) -> Result<Role, ApiError> {
    let role = node.root_reader.role(grant.user_id()?, grant.project_id()?).await;
    role.map_err(stored)?.ok_or_else(|| ApiError::not_found("project"))
}

/// Refuses what only administrators of the project may do; `what` finishes the sentence.
pub(super) async fn require_admin(node: &Node, grant: &Grant, what: &str) -> Result<(), ApiError> {
    if role_of(node, grant).await? >= Role::Admin {
        return Ok(());
    }
    let message = format!("only an administrator of the project may {what}");
    Err(ApiError::new(ErrorCode::Forbidden, message).reason("needs_admin"))
}

/// Refuses a setting that is no rule.
pub(super) fn check_setting(setting: &PermissionSetting) -> Result<(), ApiError> {
    check_parts(Some(&setting.permission), Some(&setting.pattern))
}

/// Refuses a permission or a pattern that is none.
pub(super) fn check_parts(permission: Option<&str>, pattern: Option<&str>) -> Result<(), ApiError> {
    let checked = permission.map_or(Ok(()), check_permission);
    let checked = checked.and_then(|()| pattern.map_or(Ok(()), |it| Glob::new(it).map(drop)));
    checked.map_err(|error| {
        let reason = match error {
            InvalidRule::Permission => "invalid_permission",
            InvalidRule::PatternLength
            | InvalidRule::PatternCharacter
            | InvalidRule::PatternNegated
            | InvalidRule::PatternBraces
            | InvalidRule::PatternEscape
            | InvalidRule::PatternSyntax(_) => "invalid_pattern",
        };
        ApiError::invalid(error.to_string()).reason(reason)
    })
}

/// Refuses rules by which programs would run without a question that `grant` may not agree to.
pub(super) async fn check_code(
    node: &Node,
    grant: &Grant,
    settings: &[PermissionSetting],
) -> Result<(), ApiError> {
    let project = grant.project(node).await?;
    let tools = tools_of(&project, &node.services).await.map_err(stored)?;
    // A command that is disabled now may be enabled later.
    let own = project.reader.tools().await.map_err(stored)?;
    let commands: Vec<&str> = own
        .iter()
        .filter(|stored| stored.tool.kind == ToolKind::Command)
        .map(|stored| stored.tool.name.as_str())
        .collect();
    // So may a program that nobody has approved yet.
    let servers = project.reader.mcp_servers().await.map_err(stored)?;
    let programs = servers.iter().map(|stored| &stored.server);
    let programs = programs.filter(|server| matches!(server.transport, McpTransport::Stdio { .. }));
    let programs: Vec<&str> = programs.map(|server| server.name.as_str()).collect();
    let runs_code = |setting: &PermissionSetting| {
        let permission = setting.permission.as_str();
        setting.action == PermissionAction::Allow
            && (permission == "*"
                || commands.contains(&permission)
                || tools.get(permission).is_some_and(|tool| tool.runs_code())
                || programs.iter().any(|program| is_of_server(permission, program)))
    };
    if !settings.iter().any(runs_code) {
        return Ok(());
    }
    let but = ", nor make a rule that has them run";
    check_may_run_code(&node.root_reader, grant.user_id()?, but).await
}

/// Whether a permission is that of an MCP server, or of one of its tools.
fn is_of_server(permission: &str, server: &str) -> bool {
    permission.strip_prefix("mcp:").is_some_and(|name| name == server)
        || permission.strip_prefix(server).is_some_and(|rest| rest.starts_with("__"))
}

/// What whoever made a rule may not have meant.
pub(super) fn warnings(rule: &PermissionRule, tools: &ToolRegistry) -> Vec<String> {
    let mut warnings = Vec::new();
    let permission = rule.permission.as_str();
    let is_everything = matches!(rule.pattern.as_str(), "*" | "**" | "/" | "./");
    if rule.action == PermissionAction::Allow && is_everything {
        warnings.push(format!("it allows everything that `{permission}` can touch"));
    }
    let is_known = GROUPS.contains(&permission)
        || permission.starts_with("mcp:")
        || tools.get(permission).is_some();
    if !is_known {
        warnings.push(format!("no tool and no group of tools is called `{permission}` now"));
    }
    for warning in &warnings {
        let id = rule.id.as_ref().map(tracing::field::display);
        tracing::warn!(permission.id = id, layer = ?rule.layer, warning, "a wide permission rule");
    }
    warnings
}

pub(super) fn answer(
    tools: &ToolRegistry,
    changed: Committed<PermissionRule>,
) -> Result<Done, ApiError> {
    let Committed { output: rule, seq, replayed } = changed;
    let warnings = warnings(&rule, tools);
    Ok(done(PermissionPayload { rule, warnings })?.at(seq, replayed))
}

pub(super) async fn list(
    node: &Node,
    grant: &Grant,
    request: PermissionList,
) -> Result<Done, ApiError> {
    let PermissionList { session_id, limit, cursor } = request;
    let (limit, place) = (page_size(limit)? as usize, place_of(cursor.as_deref())?);
    let project = grant.project(node).await?;
    let rules = server_rules(&project).await.map_err(stored)?;
    let mut rules = behind(rules, place.as_ref());
    // One more than is wanted says that there are more.
    let left = (limit + 1).saturating_sub(rules.len());
    let of_project = project.reader.permissions_behind(session_id, place, left).await;
    rules.extend(of_project.map_err(stored)?);
    done(page(rules, limit)?)
}

/// The place that a page of rules begins behind.
pub(super) fn place_of(cursor: Option<&str>) -> Result<Option<RulePlace>, ApiError> {
    cursor.map(RulePlace::parse).transpose().map_err(stored)
}

/// Those of the server's rules that come behind a place.
pub(super) fn behind(
    mut rules: Vec<PermissionRule>,
    place: Option<&RulePlace>,
) -> Vec<PermissionRule> {
    rules.retain(|rule| RulePlace::of(rule).as_ref() > place);
    rules
}

/// The first `limit` of some rules.
pub(super) fn page(
    mut rules: Vec<PermissionRule>,
    limit: usize,
) -> Result<PermissionPage, ApiError> {
    let has_more = rules.len() > limit;
    rules.truncate(limit);
    let last = rules.last().filter(|_| has_more).and_then(RulePlace::of);
    let next_cursor = last.map(|last| last.cursor()).transpose().map_err(stored)?;
    Ok(PermissionPage { rules, next_cursor, has_more })
}

pub(super) async fn create(
    node: &Node,
    grant: &Grant,
    request: PermissionCreate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let PermissionCreate { session_id, permission, pattern, action } = request;
    let setting = PermissionSetting { permission, pattern, action };
    check_setting(&setting)?;
    if session_id.is_none() {
        require_admin(node, grant, "make a rule for all of it").await?;
    }
    check_code(node, grant, std::slice::from_ref(&setting)).await?;
    let command = CreatePermission {
        id: PermissionId::from_bits(node.services.ids.next_bits()),
        session_id,
        setting,
        by: grant.user_id()?.clone(),
        at: node.services.clock.now_ms(),
    };
    let project = grant.project(node).await?;
    let tools = tools_of(&project, &node.services).await.map_err(stored)?;
    answer(&tools, write(&project.address, command, context).await.map_err(stored)?)
}

/// A rule that is about to be changed, unless it is one of the whole project and the caller no administrator
/// of it. Whether there is such a rule is for the command to say: it may be a repeat.
async fn changeable(
    node: &Node,
    grant: &Grant,
    project: &ProjectHandle,
    id: &PermissionId,
) -> Result<Option<PermissionRule>, ApiError> {
    let found = project.reader.permission(id.clone()).await.map_err(stored)?;
    if found.as_ref().is_some_and(|rule| rule.session_id.is_none()) {
        require_admin(node, grant, "change a rule of all of it").await?;
    }
    Ok(found)
}

pub(super) async fn update(
    node: &Node,
    grant: &Grant,
    request: PermissionUpdate,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let PermissionUpdate { permission_id: id, permission, pattern, action } = request;
    check_parts(permission.as_deref(), pattern.as_deref())?;
    let project = grant.project(node).await?;
    // All three parts are written, so that what was looked at is what counts then.
    let (permission, pattern, action) = match changeable(node, grant, &project, &id).await? {
        Some(rule) => {
            let setting = PermissionSetting {
                permission: permission.unwrap_or(rule.permission),
                pattern: pattern.unwrap_or(rule.pattern),
                action: action.unwrap_or(rule.action),
            };
            check_code(node, grant, std::slice::from_ref(&setting)).await?;
            (Some(setting.permission), Some(setting.pattern), Some(setting.action))
        }
        None => (permission, pattern, action),
    };
    let (by, at) = (grant.user_id()?.clone(), node.services.clock.now_ms());
    let command = UpdatePermission { id, permission, pattern, action, by, at };
    let tools = tools_of(&project, &node.services).await.map_err(stored)?;
    answer(&tools, write(&project.address, command, context).await.map_err(stored)?)
}

pub(super) async fn delete(
    node: &Node,
    grant: &Grant,
    request: PermissionDelete,
    context: WriteContext,
) -> Result<Done, ApiError> {
    let (id, project) = (request.permission_id, grant.project(node).await?);
    changeable(node, grant, &project, &id).await?;
    let (by, at) = (grant.user_id()?.clone(), node.services.clock.now_ms());
    let command = DeletePermission { id, by, at };
    let deleted = write(&project.address, command, context).await.map_err(stored)?;
    Ok(done(iris_protocol::Done { done: true })?.at(deleted.seq, deleted.replayed))
}

pub(super) async fn explain(
    node: &Node,
    grant: &Grant,
    request: PermissionExplain,
) -> Result<Done, ApiError> {
    let PermissionExplain { session_id, agent, tool_name, input } = request;
    let project = grant.project(node).await?;
    let tools = tools_of(&project, &node.services).await.map_err(stored)?;
    let tool = tools.get(&tool_name).ok_or_else(|| {
        ApiError::invalid(tools.unknown(&tool_name).to_string()).reason("unknown_tool")
    })?;
    let invalid = |message: String| ApiError::invalid(message).reason("invalid_input");
    let session = match session_id {
        Some(id) => {
            let found = project.reader.session(id).await.map_err(stored)?;
            Some(found.ok_or_else(|| ApiError::not_found("session"))?)
        }
        None => None,
    };
    let services = &node.services;
    let agent = agent_for(&project, services, agent.as_deref(), session.as_ref()).await?;
    let judge =
        judge(&project, services, session.as_ref(), &agent, from_ref(grant.user_id()?)).await;
    let judge = Arc::new(judge.map_err(stored)?);
    let _turn = EXPLAINING.acquire().await.map_err(internal)?;
    let judged = judged(&tools, &tool, &input, &judge).await;
    let (_, judgement) = judged.map_err(|error| invalid(error.to_string()))?;
    done(PermissionVerdict { action: judgement.action, accesses: judgement.accesses })
}
