//! The tree of actors, and one of them.

use std::collections::BTreeMap;

use iris_protocol::{ActorInfo, ActorList, ActorState, ErrorCode, SupervisionKind};
use iris_testkit::{Conversation, Person, TestApp, spawn_app};
use serde_json::json;

use super::{path_of_the, project_path, session_path};
use crate::{refusal, rest_refusal};

/// A server with an administrator and a member whose run waits for an approval.
async fn scene() -> (TestApp, Person, Conversation) {
    let app = spawn_app().await;
    let root = app.admin().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.send_message("call write {\"path\": \"a\", \"content\": \"\"}").await;
    ann.approval().await;
    (app, root, ann)
}

fn paths(actors: &[ActorInfo]) -> Vec<&str> {
    actors.iter().map(|actor| actor.path.as_str()).collect()
}

#[tokio::test]
async fn every_actor_stands_under_the_one_that_started_it() {
    let (_app, root, ann) = scene().await;
    let page = root.client.actors(&ActorList::default()).await.unwrap();
    let actors = &page.actors;
    assert!(actors.is_sorted_by(|a, b| a.path < b.path), "{:?}", paths(actors));
    let mut by_kind = BTreeMap::new();
    for actor in actors {
        let is_of = |other: &&ActorInfo| other.parent == actor.path;
        assert_eq!(actor.children, actors.iter().filter(is_of).count() as u64, "{actor:?}");
        assert!(actor.parent == "node" || paths(actors).contains(&actor.parent.as_str()));
        let own = actor.path.strip_prefix(&format!("{}/", actor.parent)).unwrap();
        assert_eq!(own.split('/').next(), Some(actor.kind.as_str()), "{actor:?}");
        assert_eq!((actor.state, actor.restarts, actor.failed), (ActorState::Running, 0, 0));
        assert!(actor.started_at > 0 && actor.last_error.is_none());
        *by_kind.entry(actor.kind.clone()).or_insert(0) += 1;
    }
    assert_eq!(page.node.actors, by_kind);
    let kinds = [
        "backups",
        "connection",
        "directory",
        "orchestrator",
        "project",
        "recorder",
        "root",
        "session",
    ];
    assert!(by_kind.keys().eq(kinds), "{by_kind:?}");
    assert!(paths(actors).contains(&session_path(&ann.project, &ann.session).as_str()));

    let node = page.node;
    assert_eq!((node.version.as_str(), node.draining), (env!("CARGO_PKG_VERSION"), false));
    assert_eq!(node.records_dropped, 0);
    assert!(node.uptime_ms > 0 && node.rss_bytes > 1_000_000);
    assert!(!node.arbiters.is_empty() && node.arbiters.iter().all(|a| a.blocked_ms == 0));
}

#[tokio::test]
async fn kind_and_under_choose_actors() {
    let (_app, root, ann) = scene().await;
    let ask = async |kind: Option<&str>, under: Option<&str>| {
        let request = ActorList { kind: kind.map(str::to_owned), under: under.map(str::to_owned) };
        root.client.actors(&request).await.unwrap().actors
    };
    let (project, session) = (project_path(&ann.project), session_path(&ann.project, &ann.session));
    let sessions = ask(Some("session"), None).await;
    assert_eq!(paths(&sessions), [session.as_str()]);
    // What is not in the answer counts among the children all the same.
    assert_eq!(sessions[0].children, 1);
    let under = ask(None, Some(&project)).await;
    assert_eq!(paths(&under)[..2], [project.as_str(), session.as_str()]);
    assert_eq!(under.len(), 3);
    assert_eq!(paths(&ask(Some("session"), Some(&project)).await), [session.as_str()]);
    // A part of a name is not a parent.
    for (kind, under) in [
        (None, Some(&project[..project.len() - 1])),
        (None, Some("node/dir")),
        (Some("project"), Some(session.as_str())),
        (Some("cat"), None),
    ] {
        assert!(ask(kind, under).await.is_empty(), "{kind:?} {under:?}");
    }
    assert_eq!(ask(None, Some("node")).await.len(), ask(None, None).await.len());
}

#[tokio::test]
async fn each_kind_says_what_it_holds() {
    let (_app, root, ann) = scene().await;
    let observed = async |path: &str| root.client.actor(path).await.unwrap().observed;
    let (project, session) = (project_path(&ann.project), session_path(&ann.project, &ann.session));
    let run = path_of_the(&root, "orchestrator").await;
    let run_id = run.rsplit('/').next().unwrap();

    let rooms = json!({ "joined": 1, "subscribers": 1, "streamingParts": 0, "streamingBytes": 0 });
    let said = observed(&project).await;
    assert_eq!((&said["rooms"], &said["sessions"]), (&rooms, &json!(1)), "{said}");
    assert_eq!(said["epoch"], ann.position.epoch.as_str());
    assert!(said["head"].as_u64().unwrap() >= ann.position.seq && said["commandsWaiting"] == 0);
    let expected = json!({
        "work": "running", "runId": run_id, "runInLine": null, "requestsInFlight": 0, "subAgentsInBackground": 0,
    });
    assert_eq!(observed(&session).await, expected);
    let expected = json!({
        "runId": run_id, "isRecording": false, "isPaused": false, "asksModel": false,
        "waitsToAskAgain": false, "toolsRunning": 0,
        "callsWaitingForApproval": 1, "questionsOfRunningCalls": 0, "inputsWaiting": 0,
    });
    assert_eq!(observed(&run).await, expected);
    let said = observed(&path_of_the(&root, "connection").await).await;
    let expected = json!({
        "userId": ann.person.id(), "rooms": 1, "projects": 1, "requestsInFlight": 0,
        "outbound": { "frames": 0, "bytes": 0, "isClosed": false },
    });
    assert_eq!(said, expected);
    let expected = json!({ "isOpen": true, "commandsWaiting": 0 });
    assert_eq!(observed("node/root").await, expected);
    let expected = json!({
        "open": 1, "opening": 0, "closing": 0, "openMax": 512, "waitingForRoom": 0, "leases": 1,
        "readsIndex": false, "unfinishedToOpen": 0, "unfinishedToLookAt": 0, "isClosing": false,
        "quarantined": { "count": 0, "projects": {} },
    });
    let mut said = observed("node/directory").await;
    let storage = said.as_object_mut().unwrap().remove("storage").unwrap();
    assert_eq!(storage["isFull"], json!(false));
    assert!(storage["reserveBytes"].as_u64() > Some(0) && storage["availableBytes"].is_u64());
    assert_eq!(said, expected);
    let expected = json!({ "tasks": 0, "working": 0, "schedule": {
        "rounds": 0, "backups": 0, "failures": 0, "lastFailures": [], "lastRoundAt": null,
    } });
    assert_eq!(observed("node/backups").await, expected);
    assert_eq!(observed("node/recorder").await, json!({ "dropped": 0 }));
}

#[tokio::test]
async fn one_actor_is_shown_with_its_children_and_its_records() {
    let (_app, root, ann) = scene().await;
    let path = session_path(&ann.project, &ann.session);
    let detail = root.client.actor(&path).await.unwrap();
    assert_eq!((&detail.actor.path, &detail.actor.kind), (&path, &"session".to_owned()));
    assert_eq!((detail.actor.mailbox_depth, detail.actor.mailbox_limit), (0, 256));
    assert!(detail.actor.handled > 0);
    let orchestrator = path_of_the(&root, "orchestrator").await;
    assert_eq!(paths(&detail.children), [orchestrator]);
    // Its own alone, not those of its children.
    assert_eq!(detail.log.len(), 1, "{:?}", detail.log);
    assert_eq!((detail.log[0].kind, &detail.log[0].path), (SupervisionKind::Started, &path));

    let top = root.client.actor("node/directory").await.unwrap();
    assert_eq!(paths(&top.children), [project_path(&ann.project)]);
}

#[tokio::test]
async fn the_slashes_of_a_path_stand_as_they_are_or_encoded() {
    let (_app, root, ann) = scene().await;
    let path = session_path(&ann.project, &ann.session);
    for spelt in [path.clone(), path.replace('/', "%2F"), path.replacen('/', "%2f", 2)] {
        let answer = root.get(&format!("/v1/admin/actors/{spelt}")).await;
        assert_eq!(answer.json["data"]["actor"]["path"], path.as_str(), "{spelt}: {answer:?}");
    }
    for nobody in ["node", "node/nobody", "node%2Fnobody", "root", "node//root", "%2e%2e"] {
        let refused = rest_refusal(&root.get(&format!("/v1/admin/actors/{nobody}")).await);
        assert_eq!(refused.code, ErrorCode::NotFound, "{nobody}");
    }
}

#[tokio::test]
async fn only_administrators_of_the_server_see_or_do_anything() {
    let (_app, _root, ann) = scene().await;
    let owner = &ann.person;
    let path = project_path(&ann.project);
    for (method, route) in [
        ("GET", "actors".to_owned()),
        ("GET", format!("actors/{path}")),
        ("POST", format!("actors/{path}/restart")),
        ("POST", format!("actors/{path}/stop")),
        ("GET", "supervision".to_owned()),
        ("GET", "log".to_owned()),
    ] {
        let answer = owner.rest(method, &format!("/v1/admin/{route}"), None).await;
        assert_eq!(rest_refusal(&answer).code, ErrorCode::Forbidden, "{method} {route}");
    }
    let refused = refusal(owner.client.restart_actor("node/nobody").await);
    assert_eq!(refused.code, ErrorCode::Forbidden);
    // Nothing happened to the project.
    assert!(ann.cancel().await);
}
