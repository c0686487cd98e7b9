//! Sub-agents of a run: set to work by calls of `task`, waited for, and ended with the run.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use iris_agent::ToolSpec;
use iris_protocol::limits::TASK_DEPTH_MAX;
use iris_protocol::{
    Agent, MessageId, ModelRef, PartId, Run, RunId, RunStatus, SessionId, ToolCallId,
};
use iris_store::project::{SpawnTask, TaskChild, TaskIds, TaskResult};
use iris_store::{StoreError, WriteContext};
use iris_tools::{SubAgents, TASK, TaskDraft, TaskReport};
use tokio::time::timeout;

use super::Orchestrator;
use crate::agents::{agents_of, find_agent, is_sub_agent};
use crate::project::{OpenChild, ProjectHandle, RetireSession};
use crate::session::{Adopt, Session, SessionPlace};
use crate::supervision::{Address, Vitals};
use crate::write;

/// How long the end of a run waits for its sub-agents to end too; those that have not are killed then.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// What sets sub-agents to work for one call.
pub(super) struct CallTasks {
    place: SessionPlace,
    run: Run,
    message_id: MessageId,
    call_id: ToolCallId,
    /// The model of the agent that calls.
    model: ModelRef,
    session: Address<Session>,
    /// Whose children sub-agents are.
    vitals: Arc<Vitals>,
}

impl fmt::Debug for CallTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CallTasks").field(&self.call_id).finish()
    }
}

impl Orchestrator {
    pub(super) fn call_tasks(&self, call_id: &ToolCallId, model: &ModelRef) -> CallTasks {
        CallTasks {
            place: self.assignment.place.clone(),
            run: self.assignment.run.clone(),
            message_id: self.assignment.answer_id.clone(),
            call_id: call_id.clone(),
            model: model.clone(),
            session: self.assignment.session.clone(),
            vitals: Arc::clone(&self.vitals),
        }
    }
}

impl SubAgents for CallTasks {
    fn run(&self, task: TaskDraft) -> BoxFuture<'static, Result<TaskReport, String>> {
        let Self { place, run, message_id, call_id, model, session, vitals } = self;
        let (place, run, model) = (place.clone(), run.clone(), model.clone());
        let (message_id, call_id) = (message_id.clone(), call_id.clone());
        let (session, vitals) = (session.clone(), Arc::clone(vitals));
        Box::pin(async move {
            let project = &place.project;
            let begun = project.reader.begun_task(call_id.clone()).await;
            let part = if let Some(part) = begun.map_err(|error| problem(&place, &error))? {
                part
            } else {
                let command = spawning(&place, &run, message_id, call_id, &model, task).await?;
                let spawned = write(&project.address, command, WriteContext::default()).await;
                spawned.map_err(|error| problem(&place, &error))?.output
            };
            let (id, run_id) = (part.child_session_id, part.child_run_id);
            if part.background {
                session.tell(Adopt { id: id.clone(), run_id: run_id.clone() });
            } else {
                let ends = EndOnDrop { project, task: Some((id.clone(), run_id.clone())) };
                let under = Some(vitals);
                project.address.tell(OpenChild { id: id.clone(), run_id: run_id.clone(), under });
                project.run_end(run_id.clone()).await;
                ends.disarm();
                project.address.tell(RetireSession(id.clone()));
            }
            let result = project.reader.task_result(id.clone(), run_id).await;
            result.map(|result| report(id, result)).map_err(|error| problem(&place, &error))
        })
    }
}

/// Ends a sub-agent that nobody waits for any more.
struct EndOnDrop<'a> {
    project: &'a ProjectHandle,
    task: Option<(SessionId, RunId)>,
}

impl EndOnDrop<'_> {
    fn disarm(mut self) {
        self.task = None;
    }
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((id, run_id)) = self.task.take() {
            self.project.end_task(id, run_id);
        }
    }
}

/// What the model is told; the log has what is no fault of its.
fn problem(place: &SessionPlace, error: &StoreError) -> String {
    let told = error.to_api();
    if matches!(error, StoreError::Conflict { .. } | StoreError::NotFound { .. }) {
        return told.message;
    }
    tracing::error!(session.id = place.id.as_str(), %error, "a sub-agent was not set to work");
    told.message
}

fn report(session_id: SessionId, result: TaskResult) -> TaskReport {
    let TaskResult { run, text } = result;
    let text = match run.status {
        RunStatus::Completed => text,
        RunStatus::Failed => run.error.map(|error| error.message).unwrap_or_default(),
        RunStatus::Queued
        | RunStatus::Running
        | RunStatus::Waiting
        | RunStatus::Cancelled
        | RunStatus::Interrupted => String::new(),
    };
    let (status, usage, steps) = (run.status, run.usage, run.steps);
    TaskReport { session_id, status, text, usage, steps }
}

/// The command that sets a sub-agent to work, or what the model reads of a task that nobody can do.
async fn spawning(
    place: &SessionPlace,
    run: &Run,
    message_id: MessageId,
    tool_call_id: ToolCallId,
    model: &ModelRef,
    task: TaskDraft,
) -> Result<SpawnTask, String> {
    let (project, services) = (&place.project, &place.services);
    if services.is_draining() {
        return Err("the server is stopping: no sub-agent is set to work".to_owned());
    }
    let failed = |error: StoreError| problem(place, &error);
    let agent = find_agent(project, services, &task.agent).await.map_err(failed)?;
    let Some(agent) = agent.filter(is_sub_agent) else {
        let known = sub_agents(place).await.map_err(failed)?;
        let names: Vec<_> = known.iter().map(|agent| format!("`{}`", agent.name)).collect();
        let names = names.join(", ");
        return Err(format!("there is no sub-agent `{}`; there are {names}", task.agent));
    };
    let ids = &services.ids;
    let child = if let Some(id) = task.resume {
        let known = project.reader.session(id.clone()).await.map_err(failed)?;
        if let Some(other) = known.filter(|known| known.agent != agent.name) {
            return Err(format!("the agent of that session is `{}`", other.agent));
        }
        TaskChild::Known(id)
    } else {
        let own = agent.model.is_none().then(|| model.clone());
        let chosen = task.model.or(own);
        if let Some(model) = &chosen {
            services.models.get(model).map_err(|error| error.to_string())?;
        }
        let id = SessionId::from_bits(ids.next_bits());
        TaskChild::New { id, agent: agent.name, model: chosen }
    };
    let new_ids = || TaskIds {
        message_id: MessageId::from_bits(ids.next_bits()),
        part_id: PartId::from_bits(ids.next_bits()),
        run_id: RunId::from_bits(ids.next_bits()),
    };
    Ok(SpawnTask {
        session_id: place.id.clone(),
        run_id: run.id.clone(),
        message_id,
        tool_call_id,
        part_id: PartId::from_bits(ids.next_bits()),
        child,
        description: task.description,
        prompt: task.prompt,
        ids: new_ids(),
        wake: task.background.then(new_ids),
        quotas: services.settings.quotas,
        at: services.clock.now_ms(),
    })
}

pub(super) async fn sub_agents(place: &SessionPlace) -> Result<Vec<Agent>, StoreError> {
    let mut agents = agents_of(&place.project, &place.services).await?;
    agents.retain(is_sub_agent);
    Ok(agents)
}

/// Tells the model of the agents that it may set to work; of no `task` where sub-agents are too deep: `depth`
/// is how many sessions are above this one.
pub(super) fn name_sub_agents(agents: &[Agent], depth: usize, specs: &mut Vec<Arc<ToolSpec>>) {
    let Some(spec) = specs.iter_mut().find(|spec| spec.name == TASK) else { return };
    if depth >= TASK_DEPTH_MAX {
        specs.retain(|spec| spec.name != TASK);
        return;
    }
    let description = &mut Arc::make_mut(spec).description;
    description.push_str(" Agents:");
    for agent in agents {
        description.extend(["\n- `", &agent.name, "`: ", &agent.description]);
    }
}

/// Ends the sub-agents of a run that has ended, and waits for it a while.
pub(crate) async fn end_tasks(project: &ProjectHandle, session_id: SessionId) {
    let found = project.reader.tasks_to_end(session_id).await;
    let tasks = found.unwrap_or_else(|error| {
        tracing::error!(project.id = %project.id, %error, "sub-agents of a run could not be looked up");
        Vec::new()
    });
    let ends = tasks.into_iter().map(|(id, run_id)| {
        project.end_task(id, run_id.clone());
        project.run_end(run_id)
    });
    // What has not ended by then is told to by the end of its parent.
    timeout(END_TIMEOUT, join_all(ends)).await.ok();
}
