//! The permission rules that count for a tool call. They are kept in memory until somebody changes one, so
//! that a change counts from the next call on.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use iris_agent::permissions::{Access, Judge, Judgement, Rule, Rules};
use iris_protocol::{
    Agent, ApiError, Approval, ErrorCode, PermissionLayer, PermissionRule, PermissionSetting,
    ProjectId, Role, Session, SessionId, SessionMode, UserId,
};
use iris_sandbox::Sandbox;
use iris_store::StoreError;
use iris_store::root::RootReader;
use iris_tools::{Tool, ToolError, ToolRegistry};
use parking_lot::Mutex;
use serde_json::Value;

use crate::Services;
use crate::agents::{DEFAULT_AGENT, find_agent};
use crate::project::ProjectHandle;

/// Most sessions above a session; more cannot be told from a circle.
const PARENTS_MAX: usize = 8;

/// A value that is read once and kept until it is outdated.
#[derive(Debug)]
pub(crate) struct Cached<T> {
    /// How often it was outdated.
    generation: AtomicU64,
    kept: Mutex<Option<(u64, Arc<T>)>>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { generation: AtomicU64::new(0), kept: Mutex::new(None) }
    }
}

impl<T> Cached<T> {
    /// Has it read again. Whoever asks from now on gets what is committed now, or newer.
    pub(crate) fn outdate(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// What was read last, which may be outdated.
    pub(crate) fn latest(&self) -> Option<Arc<T>> {
        self.kept.lock().as_ref().map(|(_, value)| Arc::clone(value))
    }

    pub(crate) async fn get(
        &self,
        load: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<Arc<T>, StoreError> {
        // Before the read: what changes during it is read again.
        let generation = self.generation.load(Ordering::SeqCst);
        if let Some((of, value)) = &*self.kept.lock()
            && *of == generation
        {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(load.await?);
        *self.kept.lock() = Some((generation, Arc::clone(&value)));
        Ok(value)
    }
}

/// The rules of one project.
#[derive(Debug, Default)]
pub(crate) struct ProjectRules {
    of_project: Arc<Rules>,
    of_sessions: HashMap<SessionId, Arc<Rules>>,
}

impl ProjectRules {
    fn new(rules: Vec<PermissionRule>) -> Self {
        let mut of_project = Vec::new();
        let mut of_sessions: HashMap<SessionId, Vec<Rule>> = HashMap::new();
        for rule in compiled(rules) {
            match rule.as_wire().session_id.clone() {
                Some(id) => of_sessions.entry(id).or_default().push(rule),
                None => of_project.push(rule),
            }
        }
        let of_sessions = of_sessions.into_iter().map(|(id, rules)| (id, shared(rules)));
        Self { of_project: shared(of_project), of_sessions: of_sessions.collect() }
    }
}

fn shared(rules: Vec<Rule>) -> Arc<Rules> {
    Arc::new(Rules::new(rules))
}

/// Rules are checked before they are stored; what another version of the server let through and this one
/// does not understand is said and asks, as if it were not there.
fn compiled(rules: Vec<PermissionRule>) -> impl Iterator<Item = Rule> {
    rules.into_iter().filter_map(|rule| {
        let id = rule.id.clone();
        Rule::new(rule)
            .inspect_err(|error| {
                let id = id.as_ref().map(tracing::field::display);
                tracing::warn!(permission.id = id, %error, "a permission rule does not count");
            })
            .ok()
    })
}

/// The rules of an agent in the form of the others.
pub(crate) fn rules_of_agent(settings: &[PermissionSetting]) -> Vec<PermissionRule> {
    let rules = settings.iter().cloned().map(|setting| PermissionRule {
        id: None,
        layer: PermissionLayer::Agent,
        session_id: None,
        permission: setting.permission,
        pattern: setting.pattern,
        action: setting.action,
        created_by: None,
        created_at: None,
        updated_at: None,
    });
    rules.collect()
}

/// The server's rules, and whom to ask about roles.
#[derive(Debug)]
pub(crate) struct ServerRules {
    root: RootReader,
    rules: Cached<Rules>,
}

impl ServerRules {
    pub(crate) fn new(root: RootReader) -> Self {
        Self { root, rules: Cached::default() }
    }

    /// A rule changed.
    pub(crate) fn outdate(&self) {
        self.rules.outdate();
    }

    async fn get(&self) -> Result<Arc<Rules>, StoreError> {
        let load = async {
            let rules = self.root.permissions().await?;
            Ok(Rules::new(compiled(rules).collect()))
        };
        self.rules.get(load).await
    }
}

/// The rules of the server as clients see them.
///
/// # Errors
/// As the reads of the root database.
pub(crate) async fn server_rules(
    project: &ProjectHandle,
) -> Result<Vec<PermissionRule>, StoreError> {
    let rules = project.server_rules.get().await?;
    Ok(rules.iter().map(|rule| rule.as_wire().clone()).collect())
}

/// Says what tool calls may touch: those that `agent` makes for all of `users`, in a session or, without one,
/// anywhere in the project. A session that another one spawned may do no more than that one.
///
/// # Errors
/// As the reads of the databases.
pub(crate) async fn judge(
    project: &ProjectHandle,
    services: &Services,
    session: Option<&Session>,
    agent: &Agent,
    users: &[UserId],
) -> Result<Judge, StoreError> {
    let server = project.server_rules.get().await?;
    let load = async { Ok(ProjectRules::new(project.reader.permissions().await?)) };
    let rules = project.kept.rules.get(load).await?;
    // From the session itself up to the one that everything began with.
    let mut family = vec![(session.cloned(), agent.clone())];
    while let Some((Some(Session { parent_id: Some(id), .. }), _)) = family.last() {
        if family.len() > PARENTS_MAX {
            return Err(StoreError::internal("a session has too many above it"));
        }
        let parent = project.reader.session(id.clone()).await?;
        let parent = parent.ok_or(StoreError::NotFound { what: "session" })?;
        let found = find_agent(project, services, &parent.agent).await?;
        let agent = found.ok_or(StoreError::NotFound { what: "agent" })?;
        family.push((Some(parent), agent));
    }
    let mut above: Option<Arc<Judge>> = None;
    // What people say of a session counts for those below it too.
    let mut of_sessions: Vec<Arc<Rules>> = Vec::new();
    for (session, agent) in family.into_iter().rev() {
        let mode = session.as_ref().map(|session| session.mode).unwrap_or_default();
        let mode = effective_mode(mode, &project.root, &project.id, users).await?;
        let of_agent = shared(compiled(rules_of_agent(&agent.permissions)).collect());
        of_sessions.extend(session.and_then(|session| rules.of_sessions.get(&session.id).cloned()));
        let mut sets = vec![Arc::clone(&server), Arc::clone(&rules.of_project), of_agent];
        sets.extend(of_sessions.iter().cloned());
        let judge = Judge::new(mode, sets);
        above = Some(Arc::new(match above {
            Some(parent) => judge.within(parent),
            None => judge,
        }));
    }
    let own = above.and_then(Arc::into_inner);
    own.ok_or_else(|| StoreError::internal("a family of sessions without a session"))
}

/// `auto` counts for runs of administrators alone: who chose it may be another than for whom it runs.
async fn effective_mode(
    mode: SessionMode,
    root: &RootReader,
    project_id: &ProjectId,
    users: &[UserId],
) -> Result<SessionMode, StoreError> {
    match mode {
        SessionMode::Default | SessionMode::AcceptEdits | SessionMode::Plan => Ok(mode),
        SessionMode::Auto => {
            for user in users {
                let role = root.role(user, project_id).await?;
                if role.is_none_or(|role| role < Role::Admin) {
                    return Ok(SessionMode::Default);
                }
            }
            Ok(SessionMode::Auto)
        }
    }
}

/// Checks the arguments of a call, reads off them what it touches and says what the rules say of that: on
/// a thread that may take its time, because a command line or a patch may be long and rules many.
///
/// # Errors
/// What is wrong with the arguments.
pub(crate) async fn judged(
    tools: &Arc<ToolRegistry>,
    tool: &Arc<dyn Tool>,
    input: &Value,
    judge: &Arc<Judge>,
) -> Result<(Vec<Access>, Judgement), ToolError> {
    let crashed = ToolError::Crashed { tool: tool.name().to_owned() };
    let (tools, tool, input) = (Arc::clone(tools), Arc::clone(tool), input.clone());
    let judge = Arc::clone(judge);
    let judging = tokio::task::spawn_blocking(move || {
        tools.validate(tool.name(), &input)?;
        let accesses = tool.accesses(&input);
        let judgement = judge.judge(&accesses);
        Ok((accesses, judgement))
    });
    judging.await.unwrap_or(Err(crashed))
}

/// Whether a tool would still do what the person who was asked about a call was shown: people can change
/// some tools while a call waits.
pub(crate) fn is_what_was_shown(tool: &dyn Tool, approval: &Approval) -> bool {
    let shown = approval.original_input.as_ref().unwrap_or(&approval.input);
    tool.summary(shown) == approval.message
}

/// Whether a user may have programs run on the server.
pub(crate) async fn may_run_code(root: &RootReader, user_id: &UserId) -> Result<bool, StoreError> {
    let user = root.user(user_id).await?;
    Ok(user.is_some_and(|user| user.can_execute_code))
}

/// Refuses a user who may not have programs run. `but` ends the sentence.
///
/// # Errors
/// `FORBIDDEN` with reason `no_code`; as the reads of the root database.
pub(crate) async fn check_may_run_code(
    root: &RootReader,
    user_id: &UserId,
    but: &str,
) -> Result<(), ApiError> {
    if may_run_code(root, user_id).await.map_err(|error| error.to_api())? {
        return Ok(());
    }
    let message = format!("you may not have programs run on this server{but}");
    Err(ApiError::new(ErrorCode::Forbidden, message).reason("no_code"))
}

/// Refuses a mode that a user of that role may not choose, or that this server cannot have.
///
/// # Errors
/// `FORBIDDEN` and `SANDBOX_UNAVAILABLE`, both for `auto`.
pub(crate) fn check_mode(
    mode: SessionMode,
    role: Role,
    sandbox: Option<&Sandbox>,
) -> Result<(), ApiError> {
    match mode {
        SessionMode::Default | SessionMode::AcceptEdits | SessionMode::Plan => Ok(()),
        SessionMode::Auto if role < Role::Admin => {
            let message = "only an administrator of the project may choose the mode `auto`";
            Err(ApiError::new(ErrorCode::Forbidden, message).reason("needs_admin"))
        }
        SessionMode::Auto => {
            let missing = match sandbox.map(Sandbox::check) {
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => error.to_string(),
                None => "this server runs no commands".to_owned(),
            };
            let message = format!("the mode `auto` needs a sandbox: {missing}");
            Err(ApiError::new(ErrorCode::SandboxUnavailable, message))
        }
    }
}

/// The agent of that name, or of the session, or the default one.
///
/// # Errors
/// `NOT_FOUND` for an agent that does not exist.
pub(crate) async fn agent_for(
    project: &ProjectHandle,
    services: &Services,
    name: Option<&str>,
    session: Option<&Session>,
) -> Result<Agent, ApiError> {
    let name = name.or(session.map(|session| session.agent.as_str())).unwrap_or(DEFAULT_AGENT);
    let found = find_agent(project, services, name).await.map_err(|e| e.to_api())?;
    found.ok_or_else(|| ApiError::not_found("agent"))
}
