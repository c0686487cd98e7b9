//! Runs: approved, rejected, cancelled, with tools, and one that cannot start.

use iris_client::{ClientError, ConnectOptions};
use iris_protocol::{
    AgentCreate, AgentDelete, Content, ErrorCode, Event, MessageAccepted, MessageAttachment,
    MessageDequeue, MessageEdit, MessageRetry, MessageSend, PartSync, ProjectId, Room, RunStatus,
    SentAttachment, SessionFork, SessionRevert, SessionUnrevert, SessionUpdate, WhenBusy,
};
use iris_testkit::moment;
use serde_json::json;

use super::rooms::subscribe;
use super::{WRITE, delete_project, invite};
use crate::player::{Player, Trouble};
use crate::talk::{How, Talk};

/// What goes with messages, and the same in base64.
const NOTE: &str = "note";
const NOTE_BASE64: &str = "bm90ZQ==";

pub(super) async fn runs(player: &Player<'_>) {
    let project = player.project().await;
    let session = player.session(&project).await;
    invite(player, &project).await;
    let mut talk = Talk::follow(player, &project, session);
    talk.run("approved run", WRITE, How::Approve).await;
    talk.run("rejected run", WRITE, How::Reject).await;
    talk.run("cancelled run", "delay 5\nchunks 1000 tick", How::Cancel).await;
    talk.run("run with a tool", "think hm\ncall list {\"path\": \".\"}\nstep\nsay ok", How::Watch)
        .await;
    talk.run("run with a question", ASK, How::Approve).await;
    talk.run("run with a list", LIST, How::Watch).await;
    talk.run("run with a sub-agent", &task("say hi", false), How::Watch).await;
    cancelled_with_a_sub_agent(player, &mut talk).await;
    talked_to_at_work(player, &mut talk).await;
    in_the_background(player, &mut talk).await;
    talk.run("run that says much", &format!("say {}", "word ".repeat(1_200)), How::Watch).await;
    ask_for_a_part(player, &project, &mut talk).await;
    cancel_with_key(player, &project, &talk, "cancel").await;
    in_other_ways(player, &mut talk).await;
    without_answer(player, &mut talk).await;
    without_agent(player, &project, &mut talk).await;
    drop(talk);
    delete_project(player, &project).await;
}

/// Has a sub-agent play a script.
fn task(script: &str, background: bool) -> String {
    let input = json!({
        "description": "look", "agent": "explore", "prompt": script, "background": background,
    });
    format!("call task {input}\nstep\nsay ok")
}

/// A run that is cancelled while its sub-agent works.
async fn cancelled_with_a_sub_agent(player: &Player<'_>, talk: &mut Talk<'_>) {
    let cancelled = async || {
        let run = talk.try_send(&task("delay 5\nchunks 1000 tick", false)).await?;
        if let Some(ended) = talk.set_to_work(&run).await {
            return Err(Trouble::RunEnded(ended));
        }
        talk.cancel().await;
        match talk.ended(&run, How::Watch).await {
            RunStatus::Cancelled => Ok(()),
            other => Err(Trouble::RunEnded(other)),
        }
    };
    player.insist("cancelled run with a sub-agent", cancelled).await;
}

/// A sub-agent that a person talks to while it works for a run that goes on after that. Whatever goes wrong, all come to rest.
async fn talked_to_at_work(player: &Player<'_>, talk: &mut Talk<'_>) {
    let talked_to = async || {
        let slow = "delay 5\nchunks 40 tick";
        let script = task(slow, false).replace("say ok", slow);
        let run = talk.try_send(&script).await?;
        if let Some(ended) = talk.set_to_work(&run).await {
            return Err(Trouble::RunEnded(ended));
        }
        talk.say_to_sub_agent("say hi").await?;
        while !talk.rests().await? {
            moment().await;
        }
        Ok(())
    };
    player.insist("message to a sub-agent", talked_to).await;
}

/// A run that leaves a sub-agent at work, whose end starts another one. Whatever goes wrong, all come to
/// rest.
async fn in_the_background(player: &Player<'_>, talk: &mut Talk<'_>) {
    talk.run("run with a sub-agent in the background", &task("say hi", true), How::Watch).await;
    let rest = async || {
        while !talk.rests().await? {
            moment().await;
        }
        Ok(())
    };
    player.insist("rest of a sub-agent", rest).await;
}

/// Asks people something.
const ASK: &str = "call question {\"questions\": [{\"text\": \"which?\"}]}\nstep\nsay {{result}}";
/// Writes a to-do list.
const LIST: &str = "call todoWrite {\"todos\": [{\"content\": \"a\", \"status\": \"pending\", \
                    \"priority\": \"low\"}]}\nstep\nsay done";

/// A client that lacks pieces of a part which streams.
async fn ask_for_a_part(player: &Player<'_>, project: &ProjectId, talk: &mut Talk<'_>) {
    let room = Room::Session(talk.session().clone()).to_string();
    let asks = async || {
        let run = talk.try_send("delay 5\nchunks 100000 tick").await?;
        let streams = talk.said(&run).await;
        let asked = async {
            if let Some(ended) = streams {
                return Err(Trouble::RunEnded(ended));
            }
            let socket = player.person.client.connect(&ConnectOptions::default()).await?;
            subscribe(&socket, project, &room).await?;
            let part_id = loop {
                if let Event::MessagePartSnapshot { part_id, .. } = socket.next_event().await?.event
                {
                    break part_id;
                }
            };
            socket.call(Some(project), PartSync { part_id }).await?;
            Ok(())
        };
        let asked = asked.await;
        talk.cancel().await;
        if streams.is_none() {
            talk.ended(&run, How::Watch).await;
        }
        asked
    };
    player.insist("ask for a part", asks).await;
}

/// A cancel that may be repeated: it ends no later run.
async fn cancel_with_key(player: &Player<'_>, project: &ProjectId, talk: &Talk<'_>, key: &str) {
    let path = format!("/v1/projects/{project}/sessions/{}/cancel", talk.session());
    let (client, token) = (&player.person.client, Some(player.person.token()));
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    let cancel = async || {
        let answer = client.raw("POST", &path, token, &headers, "{}".into()).await?;
        answer.error().map_or(Ok(()), |error| Err(Trouble::Refused(error)))
    };
    player.insist("cancel with a key", cancel).await;
}

/// What is done with messages besides sending them: one steers, one is taken back, one is answered again
/// and said differently; and the session goes on elsewhere.
async fn in_other_ways(player: &Player<'_>, talk: &mut Talk<'_>) {
    let session = talk.session().clone();
    let session_id = || session.clone();
    let say = |text: &str, when_busy| MessageSend {
        session_id: session_id(),
        content: Content::Text(text.to_owned()),
        when_busy,
        attachments: vec![note()],
    };
    let held = say(WRITE, None);
    let (steers, waits) = (say("say steered", Some(WhenBusy::Steer)), say("say never", None));
    let (retry, edit) = (
        |message_id| MessageRetry { session_id: session_id(), message_id },
        |message_id| MessageEdit {
            session_id: session_id(),
            message_id,
            content: Content::Text("say edited".to_owned()),
            attachments: vec![note()],
        },
    );
    let dequeue = |message_id| MessageDequeue { session_id: session_id(), message_id };
    let fork = SessionFork { session_id: session_id(), message_id: None, title: None };
    let ways = async || {
        // What an attempt before may have left.
        while !talk.rests().await? {
            talk.cancel().await;
            moment().await;
        }
        let first = talk.call(held.clone()).await?;
        talk.call(steers.clone()).await?;
        let waiting = talk.call(waits.clone()).await?.message_id;
        talk.call(dequeue(waiting)).await.map_err(overtaken)?;
        completed(talk.ended(&first.run_id, How::Approve).await)?;
        let retry = retry(first.message_id.clone());
        let again = talk.call(retry).await.map_err(overtaken)?;
        completed(talk.ended(&again.run_id, How::Approve).await)?;
        let edited = talk.call(edit(first.message_id)).await.map_err(overtaken)?;
        completed(talk.ended(&edited.run_id, How::Watch).await)?;
        let (message_id, index) = (edited.message_id, 0);
        let (offset, limit) = (None, None);
        let kept = MessageAttachment { session_id: session_id(), message_id, index, offset, limit };
        assert_eq!(talk.call(kept).await?.content, NOTE);
        talk.call(fork.clone()).await?;
        Ok(())
    };
    player.insist("messages in other ways", ways).await;
    player.insist("session.revert", async || undone_and_back(talk).await).await;
}

/// A file that goes with a message.
fn note() -> SentAttachment {
    let (name, data) = (Some("note.txt".to_owned()), Some(NOTE_BASE64.to_owned()));
    SentAttachment { name, data, ..SentAttachment::default() }
}

/// A turn is undone and done again.
async fn undone_and_back(talk: &mut Talk<'_>) -> Result<(), Trouble> {
    let session_id = talk.session().clone();
    // What an attempt before may have left: a run, or files that are half put back, which the next who has
    // the turn to write completes.
    while !talk.rests().await? {
        talk.cancel().await;
    }
    let (dry_run, skip_changed) = (Some(true), None);
    let settle = SessionUnrevert { session_id: session_id.clone(), dry_run, skip_changed };
    match talk.call(settle).await.map(drop) {
        Err(Trouble::Refused(error)) if error.code == ErrorCode::Conflict => {}
        settled => settled?,
    }
    let sent = talk.call(MessageSend {
        session_id: session_id.clone(),
        content: Content::Text("say undone".to_owned()),
        when_busy: None,
        attachments: Vec::new(),
    });
    let MessageAccepted { message_id, run_id, .. } = sent.await?;
    completed(talk.ended(&run_id, How::Watch).await)?;
    let (dry_run, skip_changed) = (None, None);
    let undo = SessionRevert { session_id: session_id.clone(), message_id, dry_run, skip_changed };
    talk.call(undo).await.map_err(overtaken)?;
    let redo = SessionUnrevert { session_id, dry_run, skip_changed };
    talk.call(redo).await.map_err(overtaken)?;
    Ok(())
}

/// Where a run ended before its time, what waited for it has gone on already.
fn overtaken(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Refused(error) if error.code == ErrorCode::Conflict => {
            Trouble::RunEnded(RunStatus::Failed)
        }
        other => other,
    }
}

fn completed(status: RunStatus) -> Result<(), Trouble> {
    if status == RunStatus::Completed { Ok(()) } else { Err(Trouble::RunEnded(status)) }
}

/// A run whose model fails, and fails again when it is asked once more.
async fn without_answer(player: &Player<'_>, talk: &mut Talk<'_>) {
    let fails = async || {
        let run = talk.try_send("fail overloaded").await?;
        match talk.ended(&run, How::Watch).await {
            RunStatus::Failed => Ok(()),
            other => Err(Trouble::RunEnded(other)),
        }
    };
    player.insist("run without an answer", fails).await;
}

/// A message whose agent is deleted while it waits behind another one.
async fn without_agent(player: &Player<'_>, project: &ProjectId, talk: &mut Talk<'_>) {
    let (client, id, name) = (&player.person.client, Some(project), || "helper".to_owned());
    let mut attempts = 0;
    let fails = async || {
        attempts += 1;
        // What an attempt before may have left.
        talk.cancel().await;
        let request = AgentCreate {
            name: name(),
            description: None,
            mode: None,
            prompt: None,
            model: None,
            tools: None,
            tuning: iris_protocol::AgentTuning::default(),
            permissions: None,
            budget: None,
        };
        match client.call(id, request).await {
            Err(ClientError::Api(error)) if error.code == ErrorCode::Conflict => {}
            created => drop(created?),
        }
        let (session_id, agent) = (talk.session().clone(), Some(name()));
        let request = SessionUpdate { session_id, title: None, agent, model: None, mode: None };
        client.call(id, request).await?;
        let first = talk.try_send(WRITE).await?;
        // A run that has not begun would be without its agent too.
        if let Some(ended) = talk.asks(&first).await {
            return Err(Trouble::RunEnded(ended));
        }
        let second = talk.try_send("say no").await?;
        client.call(id, AgentDelete { name: name() }).await?;
        cancel_with_key(player, project, talk, &format!("attempt {attempts}")).await;
        let held = talk.ended(&first, How::Watch).await;
        match talk.ended(&second, How::Watch).await {
            RunStatus::Failed => Ok(()),
            // The first one had ended before it was cancelled: that was the second one.
            RunStatus::Cancelled => Err(Trouble::RunEnded(held)),
            other => Err(Trouble::RunEnded(other)),
        }
    };
    player.insist("run without an agent", fails).await;
}
