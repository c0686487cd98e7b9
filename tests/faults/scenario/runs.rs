//! Runs: approved, rejected, cancelled, with tools, and one that cannot start.

use iris_client::ClientError;
use iris_protocol::{AgentCreate, AgentDelete, ErrorCode, ProjectId, RunStatus, SessionUpdate};

use super::{WRITE, delete_project, invite};
use crate::player::{Player, Trouble};
use crate::talk::{How, Talk};

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
    talk.run("run that says much", &format!("say {}", "word ".repeat(1_200)), How::Watch).await;
    without_agent(player, &project, &mut talk).await;
    drop(talk);
    delete_project(player, &project).await;
}

/// A message whose agent is deleted while it waits behind another one.
async fn without_agent(player: &Player<'_>, project: &ProjectId, talk: &mut Talk<'_>) {
    let (client, id, name) = (&player.person.client, Some(project), || "helper".to_owned());
    let fails = async || {
        // What an attempt before may have left.
        talk.cancel().await;
        let request = AgentCreate { name: name(), prompt: None, model: None, tools: None };
        match client.call(id, request).await {
            Err(ClientError::Api(error)) if error.code == ErrorCode::Conflict => {}
            created => drop(created?),
        }
        let (session_id, agent) = (talk.session().clone(), Some(name()));
        let request = SessionUpdate { session_id, title: None, agent, model: None };
        client.call(id, request).await?;
        let first = talk.try_send(WRITE).await?;
        let second = talk.try_send("say no").await?;
        client.call(id, AgentDelete { name: name() }).await?;
        talk.cancel().await;
        talk.ended(&first, How::Watch).await;
        match talk.ended(&second, How::Watch).await {
            RunStatus::Failed => Ok(()),
            other => Err(Trouble::RunEnded(other)),
        }
    };
    player.insist("run without an agent", fails).await;
}
