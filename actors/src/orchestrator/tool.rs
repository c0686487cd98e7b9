//! Running tools: reads side by side, writes one after the other in the order of their calls.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use iris_agent::permissions::{Access, Judge, Target};
use iris_agent::{Input, ToolOutcome};
use iris_protocol::{FileSource, PermissionAction, ToolCallId};
use iris_redact::{MARK, Redactor};
use iris_store::project::{Author, ProjectReader, Quotas};
use iris_store::{CrashPoint, Storage, StoreError, crash_point};
use iris_tools::{OUTPUT_PREFIX, Progress, TASK, TEXT, Tool, ToolContext, ToolError, ToolOutput};
use iris_workspace::Workspace;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;
use tokio::try_join;
use tracing::Instrument;

use super::Orchestrator;
use super::model::{Caller, tool_gone};
use super::nested::{self, ToldInstructions};
use super::outputs::SessionOutputs;
use super::people::CallPeople;
use super::todos::SessionTodos;
use crate::Services;
use crate::files::ToolFiles;
use crate::line::{Place, Standing, Whose};
use crate::metrics::ToolCall;
use crate::permissions::{self, is_what_was_shown};
use crate::project::{Secrets, ToolProgress};

/// How long after its timeout a tool call makes the orchestrator count as stuck.
const TOOL_GRACE: Duration = Duration::from_secs(10);

/// The tools of one run that are running.
#[derive(Default)]
pub(super) struct ToolRuns {
    /// Dropping a task ends its tool.
    running: HashMap<ToolCallId, SpawnHandle>,
    /// Held by the writing tool that runs; tokio's mutex is fair, so writes keep their order.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl ToolRuns {
    pub(super) fn count(&self) -> usize {
        self.running.len()
    }
}

impl Orchestrator {
    pub(super) fn run_tool(
        &mut self,
        call_id: ToolCallId,
        tool_name: &str,
        input: Value,
        ctx: &mut Context<Self>,
    ) {
        self.has_tasks |= tool_name == TASK;
        let services = self.services();
        let Some(answerer) = &self.answerer else { return };
        let tool_timeout = services.settings.tool_timeout;
        let caller = Caller::of(&self.assignment, answerer.agent.clone());
        let workspace = self.assignment.place.project.workspace.clone();
        let read_log = Arc::clone(&self.assignment.read_log);
        let told = Arc::clone(&self.assignment.told);
        let places = self.assignment.place.project.places.clone();
        let (progress, stands) = (self.progress_of(&call_id), self.standing_of(&call_id));
        let todos = Arc::new(SessionTodos::of(&self.assignment));
        let outputs = Arc::new(SessionOutputs::of(&self.assignment));
        let sub_agents = Arc::new(self.call_tasks(&call_id, &answerer.model));
        let people = Arc::new(CallPeople::of(&self.assignment, &call_id, &self.asked));
        let writing = self.may_write(tool_name).then(|| Arc::clone(&self.tools.writing));
        let command = self.may_be_command(tool_name).then(|| self.command_place());
        let span = tracing::info_span!(
            parent: &self.span,
            "tool",
            run.id = self.assignment.run.id.as_str(),
            tool.name = tool_name,
            tool.call_id = call_id.as_str(),
        );
        let (vitals, storage) = (Arc::clone(&self.vitals), services.storage.clone());
        let call = ToolCall::begin(&self.assignment.place.services, tool_name);
        let (id, tool_name) = (call_id.clone(), tool_name.to_owned());
        let (project, quotas) = (self.assignment.place.project.clone(), services.settings.quotas);
        let (reader, services) =
            (project.reader.clone(), Arc::clone(&self.assignment.place.services));
        let author = self.author();
        let secrets = project.kept.secrets.clone();
        let running = async move {
            let turn = turn_to_write(writing, &storage).await;
            // Before it is looked at for the last time: the wait may be long.
            let _place = place_to_run(&services, command, stands).await;
            let admitted = admitted(&caller, &workspace, &tool_name, &id, &input).await;
            let Admitted { tool, accesses, judge } = match admitted {
                Ok(admitted) if admitted.tool.writes() && turn.is_none() => {
                    return ToolOutcome::Failed { error: changed(&tool_name) };
                }
                Ok(admitted) => admitted,
                Err(error) => return ToolOutcome::Failed { error },
            };
            if let Some(error) = writes_a_mark(&accesses, &input) {
                return ToolOutcome::Failed { error };
            }
            if let Err(error) = check_room(&reader, quotas, &accesses, &input).await {
                return ToolOutcome::Failed { error };
            }
            let changing = ToolFiles::begin(
                &project,
                &services,
                author,
                &accesses,
                tool.runs_code() && tool.writes(),
            );
            let files = match changing.await {
                Ok(files) => files,
                Err(error) => return ToolOutcome::Failed { error },
            };
            let timeout = tool.time_limit(&input).unwrap_or(tool_timeout);
            let place = (workspace, Arc::clone(&judge), accesses.clone());
            let context = ToolContext::new(files.workspace().clone(), read_log, judge);
            let context = context.with_accesses(accesses);
            let context = context.with_todos(todos).with_sub_agents(sub_agents);
            let context = context.with_outputs(outputs).with_people(people);
            let context = context.with_places(places).with_progress(progress);
            // Its own timeout comes first.
            let _work = vitals.begin("RunTool", timeout + TOOL_GRACE);
            crash_point(CrashPoint::ToolStart);
            let ended = in_time(timeout, tool.run(context, input)).await;
            crash_point(CrashPoint::ToolEnd);
            let ended = files.end(ended).await;
            drop(turn);
            match ended {
                Ok(output) => {
                    let outcome = without_secrets(secrets, completed(output, &id)).await;
                    with_instructions(outcome, place, told).await
                }
                Err(error) => without_secrets(secrets, ToolOutcome::Failed { error }).await,
            }
        };
        let ended = call.watch(running).instrument(span).into_actor(self).map({
            let call_id = call_id.clone();
            move |outcome, orchestrator, ctx| {
                orchestrator.tools.running.remove(&call_id);
                orchestrator.input(Input::ToolEnded { call_id, outcome }, ctx);
            }
        });
        let task = ctx.spawn(ended);
        self.tools.running.insert(call_id, task);
    }

    /// Who changes the files that a call changes.
    fn author(&self) -> Author {
        Author {
            by: Some(self.assignment.run.started_by.clone()),
            source: FileSource::Tool,
            session_id: Some(self.session_id()),
            run_id: Some(self.run_id()),
            message_id: Some(self.assignment.answer_id.clone()),
            shared: Vec::new(),
        }
    }

    /// Whether a call takes its turn among those that write: it does so before the tool is looked up, so
    /// that the turns keep the order of the calls. A tool that nobody has looked up yet may write.
    fn may_write(&self, tool_name: &str) -> bool {
        let tools = self.assignment.place.project.kept.tools.latest();
        let tool = tools.and_then(|tools| tools.get(tool_name));
        tool.is_none_or(|tool| tool.writes())
    }

    /// Whether a call takes a place among the commands, which it does before the tool is looked up as well.
    fn may_be_command(&self, tool_name: &str) -> bool {
        let tools = self.assignment.place.project.kept.tools.latest();
        let tool = tools.and_then(|tools| tools.get(tool_name));
        tool.is_none_or(|tool| tool.is_command())
    }

    /// For whom a command runs. Those of one user take their turns in the order in which they came.
    fn command_place(&self) -> Whose {
        Whose {
            project: self.assignment.place.project.id.clone(),
            user: self.assignment.run.started_by.clone(),
            rank: String::new(),
        }
    }

    /// Takes what a call says of itself while it runs to those who look at the session.
    fn progress_of(&self, call_id: &ToolCallId) -> Arc<dyn Fn(Progress) + Send + Sync> {
        let secrets = self.assignment.place.project.kept.secrets.clone();
        let tell = self.tell_of(call_id);
        Arc::new(move |Progress { bytes, tail }| {
            let tail = secrets.mask_piece(&tail).into_owned();
            tell(Progress { bytes, tail }, None);
        })
    }

    /// Takes where a command stands that waits for others to the same.
    fn standing_of(&self, call_id: &ToolCallId) -> impl Fn(Option<Standing>) + Send + use<> {
        let tell = self.tell_of(call_id);
        move |standing| tell(Progress { bytes: 0, tail: String::new() }, standing)
    }

    fn tell_of(
        &self,
        call_id: &ToolCallId,
    ) -> impl Fn(Progress, Option<Standing>) + Send + Sync + use<> {
        let project = self.assignment.place.project.address.clone();
        let (session_id, message_id) = (self.session_id(), self.assignment.answer_id.clone());
        let tool_call_id = call_id.clone();
        move |progress, standing| {
            project.tell(ToolProgress {
                session_id: session_id.clone(),
                message_id: message_id.clone(),
                tool_call_id: tool_call_id.clone(),
                progress,
                standing,
            });
        }
    }

    pub(super) fn abort_tool(&mut self, call_id: &ToolCallId, ctx: &mut Context<Self>) {
        if let Some(task) = self.tools.running.remove(call_id) {
            ctx.cancel_future(task);
        }
    }
}

/// The turn of a tool that writes, once the disk has room.
async fn turn_to_write(
    writing: Option<Arc<tokio::sync::Mutex<()>>>,
    storage: &Storage,
) -> Option<OwnedMutexGuard<()>> {
    let turn = writing?.lock_owned().await;
    storage.has_space().await;
    Some(turn)
}

/// The place of a command among those that run, once there is one.
async fn place_to_run(
    services: &Services,
    command: Option<Whose>,
    stands: impl Fn(Option<Standing>),
) -> Option<Place> {
    Some(services.commands.wait(command?, stands).await)
}

/// What a call answers, or what the model reads where it fails or takes too long.
async fn in_time(
    timeout: Duration,
    call: impl Future<Output = Result<ToolOutput, ToolError>>,
) -> Result<ToolOutput, String> {
    match tokio::time::timeout(timeout, call).await {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the tool took longer than {} s", timeout.as_secs())),
    }
}

/// A call that may run now.
struct Admitted {
    /// As it is now.
    tool: Arc<dyn Tool>,
    /// What the call touches.
    accesses: Vec<Access>,
    judge: Arc<Judge>,
}

/// Looks at the tool, rights and rules again right before it starts: they may have changed since the call
/// was judged, and the paths that it names may be links. Fails with what the model reads.
async fn admitted(
    caller: &Caller,
    workspace: &Workspace,
    tool_name: &str,
    call_id: &ToolCallId,
    input: &Value,
) -> Result<Admitted, String> {
    let unknown = |error: StoreError| {
        tracing::error!(%error, "the tools or the permission rules could not be read");
        "the tools or the permission rules could not be read".to_owned()
    };
    let tools = caller.tools().await.map_err(unknown)?;
    let tool = tools.get(tool_name).ok_or_else(|| tool_gone(tool_name))?;
    let (lacking, judge) =
        try_join!(caller.lacking_right(tool.as_ref()), caller.judge()).map_err(unknown)?;
    if let Some(lacking) = lacking {
        return Err(lacking.to_owned());
    }
    let judge = Arc::new(judge);
    let judged = permissions::judged(&tools, &tool, input, &judge).await;
    let (accesses, judgement) = judged.map_err(|error| error.to_string())?;
    match judgement.action {
        PermissionAction::Allow => {}
        PermissionAction::Ask => match caller.approved(call_id).await.map_err(unknown)? {
            Some(approval) if is_what_was_shown(tool.as_ref(), &approval) => {}
            Some(_) => return Err(changed(tool_name)),
            None => {
                return Err("the rules changed and now ask about this call: make it again".into());
            }
        },
        PermissionAction::Deny => return Err(judgement.denial().unwrap_or_default()),
    }
    let linked = {
        let (workspace, accesses) = (workspace.clone(), accesses.clone());
        tokio::task::spawn_blocking(move || linked(&workspace, accesses))
    };
    let linked = linked.await.map_err(|_| "the paths could not be looked at".to_owned())??;
    for (named, access) in linked {
        let judged = judge.judge_one(&access);
        if judged.action != PermissionAction::Allow {
            let target = judged.target;
            return Err(format!("`{named}` leads to `{target}`: call the tool with that path"));
        }
    }
    Ok(Admitted { tool, accesses, judge })
}

/// What the model reads of a call whose tool is another one now.
fn changed(tool_name: &str) -> String {
    format!("the tool `{tool_name}` was changed since this call was judged: make it again")
}

/// The accesses whose paths lead elsewhere, each with the path as it was named.
fn linked(workspace: &Workspace, accesses: Vec<Access>) -> Result<Vec<(String, Access)>, String> {
    let mut linked = Vec::new();
    for access in accesses {
        let Target::Path(named) = &access.target else { continue };
        let real = workspace.real_path(named).map_err(|error| error.to_string())?;
        if real != *named {
            linked.push((named.clone(), Access { target: Target::Path(real), ..access }));
        }
    }
    Ok(linked)
}

/// Whether the project may hold what a call is about to write, or what the model reads if it may not. One
/// that names its file in `path` and says with `content` how large it becomes is refused exactly, any
/// other that changes files once the quota is used up.
async fn check_room(
    reader: &ProjectReader,
    quotas: Quotas,
    accesses: &[Access],
    input: &Value,
) -> Result<(), String> {
    let Some(changed) = accesses.iter().find(|access| access.is("edit")) else { return Ok(()) };
    let checked = match (&changed.target, input.get("path")) {
        (Target::Path(path), Some(_)) => {
            let content = input.get("content").and_then(Value::as_str);
            let size = content.map(|content| content.len() as u64);
            reader.check_file(quotas, path.clone(), size).await
        }
        (Target::Path(_) | Target::Outside(_) | Target::Text(_) | Target::Opaque(_), _) => {
            reader.check_files(quotas).await
        }
    };
    match checked {
        Err(error @ StoreError::QuotaExceeded { .. }) => {
            Err(format!("nothing was written: {error}"))
        }
        // Whatever else is wrong with the database shows when the result is recorded.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A result, and behind it the instructions for where its call was that the model was not told of yet.
async fn with_instructions(
    outcome: ToolOutcome,
    (workspace, judge, accesses): (Workspace, Arc<Judge>, Vec<Access>),
    told: Arc<ToldInstructions>,
) -> ToolOutcome {
    let below = move || nested::below(&workspace, &judge, &told, &accesses);
    let instructions = tokio::task::spawn_blocking(below).await.unwrap_or_default();
    match outcome {
        ToolOutcome::Completed { mut output, metadata, attachment } => {
            output.push_str(&instructions);
            ToolOutcome::Completed { output, metadata, attachment }
        }
        failed @ ToolOutcome::Failed { .. } => failed,
    }
}

/// The outcome as the model and everybody else may read it. Off the actor's thread: it may be long.
async fn without_secrets(secrets: Secrets, outcome: ToolOutcome) -> ToolOutcome {
    let masked = tokio::task::spawn_blocking(move || masked(&secrets, outcome)).await;
    masked.unwrap_or_else(|_| ToolOutcome::Failed { error: "the output is lost".to_owned() })
}

fn masked(redactor: &Redactor, mut outcome: ToolOutcome) -> ToolOutcome {
    match &mut outcome {
        ToolOutcome::Completed { output, metadata, attachment } => {
            redactor.mask_in(output);
            if let Some(metadata) = metadata {
                redactor.mask_value(metadata);
            }
            if let Some(whole) = attachment
                && let Ok(text) = std::str::from_utf8(&whole.bytes)
                && let Cow::Owned(masked) = redactor.mask(text)
            {
                whole.bytes = masked.into_bytes().into();
            }
        }
        ToolOutcome::Failed { error } => redactor.mask_in(error),
    }
    outcome
}

/// Why a call does not write what the model was not shown, if it is about to.
fn writes_a_mark(accesses: &[Access], input: &Value) -> Option<String> {
    let holds_one = |input: &Value| input.to_string().contains(MARK);
    let is_it = accesses.iter().any(|access| access.is("edit")) && holds_one(input);
    is_it.then(|| {
        format!(
            "nothing was written: `{MARK}` stands for a secret that you are not shown; change what is \
             around it"
        )
    })
}

fn completed(output: ToolOutput, call_id: &ToolCallId) -> ToolOutcome {
    let metadata = (!output.metadata.is_null()).then_some(output.metadata);
    let mut text = output.output;
    if output.attachment.as_ref().is_some_and(|it| it.mime_type == TEXT) {
        let how = "\n[all of it can be read: `read` with the path `";
        text.extend([how, OUTPUT_PREFIX, call_id.as_str(), "`]"]);
    }
    ToolOutcome::Completed { output: text, metadata, attachment: output.attachment }
}
