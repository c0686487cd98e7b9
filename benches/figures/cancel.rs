//! How long it takes from a cancel until all has ended that a run had under way: a sub-agent whose model
//! streams, two commands, and the run itself.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use iris_client::Update;
use iris_protocol::{
    Content, Event, MessageSend, PermissionAction, PermissionCreate, RunCancel, RunGet, RunId,
    RunStatus, SessionId, SubtaskState, ToolCallId,
};
use serde_json::json;

use crate::conversation::{Conversation, Owner};
use crate::server::{Server, data_dir};
use crate::table::{Figure, median, ms};

const CANCEL_MS_MAX: f64 = 250.0;
const CANCELS: usize = 20;
/// How often it is looked whether the sub-agent has ended.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Cancels runs one after the other, each in a session of its own.
pub(crate) async fn figures() -> anyhow::Result<Vec<Figure>> {
    let data_dir = data_dir()?;
    let server = Server::start(data_dir.path())?;
    let owner = Owner::of(&server).await?;
    let allow = PermissionCreate {
        session_id: None,
        permission: "bash".to_owned(),
        pattern: "*".to_owned(),
        action: PermissionAction::Allow,
    };
    owner.client.call(Some(&owner.project), allow).await?;
    let (mut all, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..CANCELS {
        let mut conversation = owner.new_session().await?;
        let at_work = begin(&mut conversation).await?;
        let started_at = Instant::now();
        let session_id = conversation.session.clone();
        conversation.follower.call(RunCancel { session_id }).await?;
        answered.push(ms(started_at.elapsed()));
        run_ended(&mut conversation, &at_work.run).await?;
        while !has_ended(&owner, &at_work.child).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        all.push(ms(started_at.elapsed()));
    }
    server.stop()?;
    Ok(vec![Figure {
        name: "cancel of a run with a sub-agent that streams and two commands",
        target: Some(CANCEL_MS_MAX),
        unit: "ms",
        samples: all,
        comparison: format!("answered after {:.1} ms", median(&answered)),
    }])
}

/// What a run has under way.
struct AtWork {
    run: RunId,
    child: (SessionId, RunId),
}

/// Begins a run, and waits until its sub-agent and both of its commands are at work.
async fn begin(conversation: &mut Conversation) -> anyhow::Result<AtWork> {
    let script = "delay 5\nchunks 100000 tick";
    let task = json!({ "description": "look", "prompt": script, "agent": "explore" });
    let command = json!({ "command": "echo begun; sleep 600", "description": "wait" });
    let text = format!("call task {task}\ncall bash {command}\ncall bash {command}");
    let (session_id, content) = (conversation.session.clone(), Content::Text(text));
    let message = MessageSend { session_id, content, when_busy: None, attachments: Vec::new() };
    let run = conversation.follower.call(message).await?.payload.run_id;
    let (mut child, mut commands) = (None, Vec::<ToolCallId>::new());
    loop {
        let Update::Event(frame) = conversation.next().await? else { continue };
        if let Event::MessageSubtaskUpdated { part, .. } = &frame.event {
            ensure!(part.state == SubtaskState::Running, "the sub-agent ended");
            child = Some((part.child_session_id.clone(), part.child_run_id.clone()));
        }
        if let Event::MessageToolError { error, .. } = &frame.event {
            bail!("a call failed: {error}");
        }
        if let Event::MessageToolProgress { tool_call_id, .. } = frame.event
            && !commands.contains(&tool_call_id)
        {
            commands.push(tool_call_id);
        }
        if let (Some(child), 2) = (&child, commands.len()) {
            return Ok(AtWork { run, child: child.clone() });
        }
    }
}

async fn run_ended(conversation: &mut Conversation, run: &RunId) -> anyhow::Result<()> {
    loop {
        if let Update::Event(frame) = conversation.next().await?
            && let Event::RunCompleted { run_id, status, .. } = frame.event
            && run_id == *run
        {
            ensure!(status == RunStatus::Cancelled, "the run ended otherwise: {status:?}");
            return Ok(());
        }
    }
}

async fn has_ended(owner: &Owner, child: &(SessionId, RunId)) -> anyhow::Result<bool> {
    let (session_id, run_id) = child.clone();
    let get = RunGet { session_id, run_id };
    Ok(owner.client.call(Some(&owner.project), get).await?.run.ended_at.is_some())
}
