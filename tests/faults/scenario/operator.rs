//! What an operator does: look at every actor, restart and stop them.

use iris_actors::supervision::faults::Spot;
use iris_client::ClientError;
use iris_protocol::{ActorList, ErrorCode, ProjectId, RunResume, RunStatus};
use iris_testkit::{moment, patiently};
use serde_json::{Value, json};

use super::{WRITE, delete_project, invite};
use crate::player::{Player, Trouble, project_path};
use crate::talk::{How, Talk};

pub(super) async fn operator(player: &Player<'_>) {
    let project = player.project().await;
    let session = player.session(&project).await;
    invite(player, &project).await;
    let mut talk = Talk::follow(player, &project, session.clone());
    talk.run("a run", "say hi", How::Watch).await;
    player.insist("a run that waits", async || talk.try_send(WRITE).await).await;
    talk.asked().await;
    player.insist("observe", async || observe_all(player).await).await;
    talk.cancel().await;
    server_rules(player).await;
    let registry = project_path(&project);
    let session_path = format!("{registry}/session/{session}");
    let permanent = ["node/root", "node/directory", "node/recorder", "node/backups"];
    for path in [&session_path, &registry].map(String::as_str).into_iter().chain(permanent) {
        talk.run("a run before a restart", "say hi", How::Watch).await;
        restart(player, path).await;
    }
    resumed(player, &project, &mut talk).await;
    for path in [&session_path, &registry] {
        talk.run("a run before a stop", "say hi", How::Watch).await;
        let stop = async || Ok(player.operator.client.stop_actor(path).await?);
        player.insist_done("stop", stop).await;
    }
    talk.run("a run after a stop", "say hi", How::Watch).await;
    drop(talk);
    delete_project(player, &project).await;
    let stored = async {
        let is_it = |spot: &Spot| spot.message == "Write<RecordSupervision>";
        while !player.app.supervision().faults().seen().iter().any(is_it) {
            moment().await;
        }
    };
    patiently("the log to be stored", stored).await;
}

/// A permission rule of the server that is made, changed and deleted, and a right of a user.
async fn server_rules(player: &Player<'_>) {
    let operator = &player.operator;
    let order = async |method: &str, path: &str, body: Value| {
        let token = Some(operator.token());
        let answer = operator.client.rest(method, path, token, Some(&body)).await?;
        answer.error().map_or(Ok(answer.json), |error| Err(Trouble::Refused(error)))
    };
    let rule = json!({ "permission": "edit", "pattern": "/nowhere", "action": "deny" });
    let create = async || order("POST", "/v1/admin/permissions", rule.clone()).await;
    let made = player.insist("admin.permission.create", create).await;
    let id = made["data"]["rule"]["id"].as_str().unwrap();
    let path = format!("/v1/admin/permissions/{id}");
    let update = async || order("PATCH", &path, json!({ "pattern": "/nowhere/else" })).await;
    player.insist("admin.permission.update", update).await;
    let delete = async || order("DELETE", &path, json!({})).await;
    player.insist_done("admin.permission.delete", delete).await;
    let path = format!("/v1/admin/users/{}", player.person.id());
    let allow = async || order("PATCH", &path, json!({ "canExecuteCode": true })).await;
    player.insist("admin.user.update", allow).await;
}

/// A run that a restart of its project interrupts, and that is resumed.
async fn resumed(player: &Player<'_>, project: &ProjectId, talk: &mut Talk<'_>) {
    let (client, id) = (&player.person.client, Some(project));
    let goes_on = async || {
        let run_id = talk.try_send("delay 50\nchunks 200 tick").await?;
        if let Some(status) = talk.said(&run_id).await {
            return Err(Trouble::RunEnded(status));
        }
        restart(player, &project_path(project)).await;
        match talk.ended(&run_id, How::Watch).await {
            RunStatus::Interrupted => {}
            other => return Err(Trouble::RunEnded(other)),
        }
        let (session_id, run) = (talk.session().clone(), run_id.clone());
        client.call(id, RunResume { session_id, run_id }).await?;
        match talk.ended(&run, How::Cancel).await {
            RunStatus::Cancelled => Ok(()),
            other => Err(Trouble::RunEnded(other)),
        }
    };
    player.insist("a run that is resumed", goes_on).await;
}

/// Asks every actor what it says of itself, except those of the bystander.
async fn observe_all(player: &Player<'_>) -> Result<(), Trouble> {
    let client = &player.operator.client;
    let all = client.actors(&ActorList::default()).await?.actors;
    for actor in all.iter().filter(|actor| !player.spares(&actor.path)) {
        match client.actor(&actor.path).await {
            Ok(detail) if detail.observed.is_null() => {
                return Err(Trouble::Silent(actor.path.clone()));
            }
            Ok(_) => {}
            // It ended meanwhile.
            Err(ClientError::Api(error)) if !error.retryable => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Orders a restart and waits until it has happened, or the actor is gone with its parent.
async fn restart(player: &Player<'_>, path: &str) {
    let client = &player.operator.client;
    let order = async || {
        let before = client.actor(path).await?.actor.restarts;
        client.restart_actor(path).await?;
        while client.actor(path).await?.actor.restarts == before {
            moment().await;
        }
        Ok(())
    };
    let order_if_there = async || match order().await {
        Err(ClientError::Api(error)) if error.code == ErrorCode::NotFound => Ok(()),
        ordered => Ok(ordered?),
    };
    player.insist("restart", order_if_there).await;
}
