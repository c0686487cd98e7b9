//! Everything at once, in the real server: sub-agents side by side that wait, crash and are cancelled, kills
//! in the middle, and a run that is resumed.

use std::collections::BTreeMap;

use iris_protocol::{
    Event, MemberAdd, MessageState, Role, RunCancel, RunResume, RunStatus, SubtaskPart,
    SubtaskState, ToolState,
};
use iris_testkit::{Conversation, Person, ServerProcess, calls_of, text_of};
use serde_json::json;
use tempfile::tempdir;

use crate::{ann, iris, root};

const ENDLESS: &str = "delay 10\nchunks 10000 tick";
const WRITE: &str = "call write {\"path\": \"a.txt\", \"content\": \"1\"}\nstep\nsay wrote it";

fn task(script: &str) -> String {
    format!("call task {}", json!({"description": "work", "prompt": script, "agent": "general"}))
}

/// Waits until a sub-agent is in that state.
async fn subtask(talk: &mut Conversation, state: SubtaskState) -> SubtaskPart {
    let is_it =
        |e: &Event| matches!(e, Event::MessageSubtaskUpdated { part, .. } if part.state == state);
    let frame = talk.wait_until("a sub-agent", is_it).await;
    let Event::MessageSubtaskUpdated { part, .. } = frame.event else { panic!("{frame:?}") };
    part
}

/// The same people in the same session, at a server that was started again.
async fn came_back(server: &ServerProcess, talk: &Conversation) -> Conversation {
    talk.resume(Person::new(&server.client(), talk.person.grant.clone())).await
}

/// How many results each call has that was told.
fn results(talk: &Conversation, counts: &mut BTreeMap<String, u32>) {
    for frame in &talk.seen {
        if let Event::MessageToolResult { tool_call_id, .. }
        | Event::MessageToolError { tool_call_id, .. } = &frame.event
        {
            *counts.entry(tool_call_id.to_string()).or_default() += 1;
        }
    }
}

#[tokio::test]
async fn a_whole_conversation_with_sub_agents_of_every_fate_goes_on_after_kills() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let operator = root(&server).await;
    let mut talk = ann(&server).await.conversation().await;
    let (user_id, role) = (Some(operator.id().clone()), Role::Admin);
    talk.call(MemberAdd { user_id, email: None, role }).await.unwrap();

    // One waits for a person, one crashes, one is cancelled.
    let tasks = [task(WRITE), task(ENDLESS), task(ENDLESS)].join("\n");
    let run = talk.send_message(&format!("{tasks}\nstep\nsay heard all")).await.run_id;
    let mut parts = Vec::new();
    for _ in 0..3 {
        parts.push(subtask(&mut talk, SubtaskState::Running).await);
    }
    let approval = talk.approval().await;
    let waits = approval.child_session_id.clone().unwrap();
    parts.retain(|part| part.child_session_id != waits);
    let [crashes, cancelled] = [&parts[0], &parts[1]];
    let path = format!(
        "node/directory/project/{}/session/{}/orchestrator/{run}/session/{}/orchestrator/{}",
        talk.project, talk.session, crashes.child_session_id, crashes.child_run_id
    );
    operator.client.stop_actor(&path).await.unwrap();
    assert_eq!(subtask(&mut talk, SubtaskState::Error).await.child_run_id, crashes.child_run_id);
    talk.call(RunCancel { session_id: cancelled.child_session_id.clone() }).await.unwrap();
    let ended = subtask(&mut talk, SubtaskState::Cancelled).await;
    assert_eq!(ended.child_run_id, cancelled.child_run_id);
    let failed = |talk: &Conversation| {
        talk.names().iter().filter(|name| **name == "message.tool.error").count()
    };
    while failed(&talk) < 2 {
        talk.next().await;
    }
    let queued = talk.send_message(&format!("call list\nstep\n{ENDLESS}")).await.run_id;
    server.kill();

    let server = ServerProcess::start(iris(dir.path())).await;
    let mut again = came_back(&server, &talk).await;
    again.approve(&approval.tool_call_id).await.unwrap();
    assert_eq!(again.run_ended(&run).await, RunStatus::Completed);
    let answer = again.answer(&run).await;
    assert_eq!(text_of(&answer), "heard all");
    let states: Vec<_> = calls_of(&answer).iter().map(|call| call.state).collect();
    let count = |state| states.iter().filter(|it| **it == state).count();
    assert_eq!((states.len(), count(ToolState::Completed), count(ToolState::Error)), (3, 1, 2));
    let wrote = again.person.client.file_get(&again.project, "a.txt").await.unwrap();
    assert_eq!(wrote, "1");
    for (part, expected) in [(crashes, RunStatus::Failed), (cancelled, RunStatus::Cancelled)] {
        let child = again.person.snapshot(&again.project, &part.child_session_id).await;
        assert_eq!(child.runs[0].status, expected);
        assert!(child.messages.iter().all(|it| it.state != MessageState::Streaming));
    }

    // What waited behind goes on, and is cut off in its second step.
    again.wait_for("message.tool.result").await;
    again.wait_for("message.text.delta").await;
    server.kill();
    let server = ServerProcess::start(iris(dir.path())).await;
    let mut last = came_back(&server, &again).await;
    assert_eq!(last.run_ended(&queued).await, RunStatus::Interrupted);
    let (session_id, run_id) = (last.session.clone(), queued.clone());
    last.call(RunResume { session_id, run_id }).await.unwrap();
    last.wait_for("message.text.delta").await;
    assert!(last.cancel().await);
    assert_eq!(last.run_ended(&queued).await, RunStatus::Cancelled);
    let answer = last.answer(&queued).await;
    assert_eq!(calls_of(&answer).len(), 1, "what had its result was not done again");
    assert_eq!(text_of(&last.ask("say still here").await), "still here");

    let mut counts = BTreeMap::new();
    for talk in [&talk, &again, &last] {
        results(talk, &mut counts);
    }
    assert_eq!(counts.len(), 4);
    assert!(counts.values().all(|count| *count == 1), "INV-3: {counts:?}");
}
