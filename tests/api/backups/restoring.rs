//! A project is put back to an earlier state.

use std::path::PathBuf;

use iris_client::Client;
use iris_protocol::{
    Backup, BackupId, BackupKind, ErrorCode, Event, Position, Project, ProjectId, ProjectRestore,
    RestorePayload, Role, RoomRequest, RoomSince, RoomStatus, RunStatus, Subscribe,
};
use iris_testkit::{AppOptions, TestApp, spawn_app, spawn_app_with, text_of};
use serde_json::json;

use super::{backup, backups, tree};
use crate::{code_of, refusal};

async fn restore(client: &Client, project: &ProjectId, id: &BackupId) -> RestorePayload {
    client.call(Some(project), ProjectRestore { backup_id: id.clone() }).await.unwrap()
}

#[tokio::test]
async fn what_came_after_the_backup_is_gone_and_what_was_before_is_there() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let person = ann.person.clone();
    let before = ann.ask("say before").await;
    person.client.file_put(&ann.project, "a.txt", "before").await.unwrap();
    let made = backup(&person, &ann.project).await;
    let after = ann.ask("say after").await;
    person.client.file_put(&ann.project, "a.txt", "after").await.unwrap();
    person.client.file_put(&ann.project, "b.txt", "after").await.unwrap();

    let restored = restore(&person.client, &ann.project, &made.id).await;
    assert_eq!(restored.restored, made);
    assert_ne!(restored.epoch, made.epoch);
    assert_eq!((restored.seq, restored.files), (made.seq + 1, true));
    let snapshot = person.snapshot(&ann.project, &ann.session).await;
    let ids: Vec<_> = snapshot.messages.iter().map(|message| &message.id).collect();
    assert!(ids.contains(&&before.id) && !ids.contains(&&after.id), "{snapshot:?}");
    assert_eq!(snapshot.as_of.epoch, restored.epoch);
    assert_eq!(person.client.file_get(&ann.project, "a.txt").await.unwrap(), "before");
    let gone = refusal(person.client.file_get(&ann.project, "b.txt").await);
    assert_eq!(gone.code, ErrorCode::NotFound);

    // What it was before the restore is a backup, and the way back.
    let safety = restored.safety.unwrap();
    assert_eq!((safety.kind, safety.by.as_ref()), (BackupKind::Safety, Some(person.id())));
    assert_eq!(backups(&person, &ann.project).await, [safety.clone(), made]);
    restore(&person.client, &ann.project, &safety.id).await;
    let snapshot = person.snapshot(&ann.project, &ann.session).await;
    assert!(snapshot.messages.iter().any(|message| message.id == after.id));
    assert_eq!(person.client.file_get(&ann.project, "a.txt").await.unwrap(), "after");
    assert_eq!(person.client.file_get(&ann.project, "b.txt").await.unwrap(), "after");
}

#[tokio::test]
async fn clients_come_back_with_a_reset_and_hear_what_follows() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say before").await;
    let made = backup(&ann.person, &ann.project).await;
    ann.ask("say after").await;
    // The caller is in the room itself, and hears the answer on the same socket.
    let restored = ann.call(ProjectRestore { backup_id: made.id.clone() }).await.unwrap();
    let left = ann.wait_for("room.left").await.event;
    let room = format!("session:{}", ann.session);
    assert_eq!(left, Event::RoomLeft { room: room.clone(), code: ErrorCode::Overloaded });

    let since = Some(ann.position.clone());
    let rooms = vec![RoomRequest::Since(RoomSince { room, since })];
    let joined = ann.call(Subscribe { rooms, deltas: None, presence: None }).await.unwrap();
    assert_eq!(joined.rooms[0].status, RoomStatus::Reset);
    assert_eq!(joined.rooms[0].epoch, restored.epoch);

    let room = format!("project:{}", ann.project);
    let since = Some(Position { epoch: restored.epoch.clone(), seq: made.seq });
    let rooms = vec![RoomRequest::Since(RoomSince { room, since })];
    ann.call(Subscribe { rooms, deltas: None, presence: None }).await.unwrap();
    let told = ann.wait_for("project.restored").await;
    assert_eq!((told.meta.seq, told.meta.by.as_ref()), (Some(restored.seq), Some(ann.person.id())));
    let expected = Event::ProjectRestored {
        project_id: ann.project.clone(),
        backup_id: made.id,
        taken_at: made.at,
    };
    assert_eq!(told.event, expected);

    let as_of = ann.person.snapshot(&ann.project, &ann.session).await.as_of;
    let mut again = ann.person.join_since(&ann.project, &ann.session, Some(as_of)).await;
    assert_eq!(text_of(&again.ask("say on").await), "on");
}

#[tokio::test]
async fn a_run_of_the_earlier_state_is_recovered_and_one_of_the_later_state_is_not_there() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let call = "call write {\"path\": \"a\", \"content\": \"\"}";
    let early = ann.send_message(call).await.run_id;
    ann.approval().await;
    let made = backup(&ann.person, &ann.project).await;
    assert!(ann.cancel().await);
    ann.run_ended(&early).await;
    let late = ann.send_message(call).await.run_id;
    ann.approval().await;

    let restored = restore(&ann.person.client, &ann.project, &made.id).await;
    let since = Position { epoch: restored.epoch, seq: made.seq };
    let mut again = ann.person.join_since(&ann.project, &ann.session, Some(since)).await;
    // Whether it was interrupted or waits again: it is known to have been alive.
    again.cancel().await;
    assert_ne!(again.run_ended(&early).await, RunStatus::Completed);
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert!(snapshot.messages.iter().all(|message| message.run_id.as_ref() != Some(&late)));
    assert_eq!(text_of(&again.ask("say on").await), "on");
}

#[tokio::test]
async fn only_an_owner_restores_and_only_what_is_a_backup_of_the_project() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let (project, other) = (ann.project("a").await.id, ann.project("b").await.id);
    let made = backup(&ann, &project).await;
    for (name, role) in [("bob", Role::Viewer), ("cid", Role::Member), ("dan", Role::Admin)] {
        let person = app.user(name).await;
        ann.add_member(&project, &person, role).await;
        let path = format!("/v1/projects/{project}/restore");
        let answer = person.post(&path, json!({ "backupId": made.id })).await;
        assert_eq!(answer.status, 403, "{role:?}: {answer:?}");
    }
    for (project, id) in [(&other, made.id.clone()), (&project, BackupId::from_bits(1))] {
        let refused = ann.client.call(Some(project), ProjectRestore { backup_id: id }).await;
        assert_eq!(refusal(refused).message, "backup not found");
    }
    assert_eq!(backups(&ann, &project).await, [made]);
}

#[tokio::test]
async fn a_damaged_backup_is_refused_and_the_project_is_as_it_was() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say one").await;
    let made = backup(&ann.person, &ann.project).await;
    let archive = archive_of(&app, &made);
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    let projects = tree(&app.data_dir().join("projects"));
    let refused = ann.call(ProjectRestore { backup_id: made.id.clone() }).await;
    assert_eq!(code_of(&refusal(refused)), (ErrorCode::InvalidRequest, "archive_corrupt"));
    assert_eq!(text_of(&ann.ask("say two").await), "two");
    assert_eq!(tree(&app.data_dir().join("projects")), projects);
    assert_eq!(backups(&ann.person, &ann.project).await, [made]);
}

fn archive_of(app: &TestApp, backup: &Backup) -> PathBuf {
    let all = tree(&app.data_dir().join("backups").join(backup.project_id.as_str()));
    all.into_iter().find(|path| path.to_string_lossy().contains(backup.id.as_str())).unwrap()
}

#[tokio::test]
async fn a_project_that_is_damaged_is_restored_and_what_was_damaged_is_kept_aside() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let before = ann.ask("say before").await;
    let made = backup(&ann.person, &ann.project).await;
    let (project, session, person) = (ann.project.clone(), ann.session.clone(), ann.person.clone());
    drop(ann);
    let data_dir = app.data_dir().to_owned();
    let database = data_dir.join("projects").join(project.as_str()).join("project.db");
    // After a start nobody has it open.
    let app = app.restart().await;
    std::fs::write(&database, "damaged").unwrap();
    let person = app.again(&person);
    let get = person.get(&format!("/v1/projects/{project}/sessions/{session}")).await;
    assert_eq!(get.json["error"]["code"], "PROJECT_CORRUPT", "{get:?}");

    let restored = restore(&person.client, &project, &made.id).await;
    assert_eq!(restored.safety, None);
    let snapshot = person.snapshot(&project, &session).await;
    assert!(snapshot.messages.iter().any(|message| message.id == before.id));
    let aside = tree(&data_dir.join("backups").join(project.as_str()));
    let kept = aside.iter().find(|path| path.ends_with("project.db")).unwrap();
    assert_eq!(std::fs::read(kept).unwrap(), b"damaged");
}

#[tokio::test]
async fn a_project_whose_files_cannot_be_read_is_restored_and_kept_aside_as_it_was() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("a").await.id;
    ann.client.file_put(&project, "a.txt", "before").await.unwrap();
    let made = backup(&ann, &project).await;
    let place = app.data_dir().join("projects").join(project.as_str());
    std::fs::rename(place.join("files"), place.join("lost")).unwrap();

    let restored = restore(&ann.client, &project, &made.id).await;
    assert_eq!(restored.safety, None);
    assert_eq!(ann.client.file_get(&project, "a.txt").await.unwrap(), "before");
    let aside = tree(&app.data_dir().join("backups").join(project.as_str()));
    assert!(aside.iter().any(|path| path.ends_with("project.db")), "{aside:?}");
    let kept = aside.iter().find(|path| path.ends_with("lost/a.txt")).unwrap();
    assert_eq!(std::fs::read(kept).unwrap(), b"before");
}

#[tokio::test]
async fn a_project_with_a_directory_of_its_own_keeps_the_files_in_it() {
    let root = tempfile::tempdir().unwrap();
    let own = root.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let project_roots = vec![root.path().to_owned()];
    let app = spawn_app_with(AppOptions { project_roots, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let request = json!({ "name": "a", "path": own });
    let answer = ann.post("/v1/projects", request).await;
    let project: Project = answer.data().unwrap();
    ann.client.file_put(&project.id, "a.txt", "before").await.unwrap();
    let made = backup(&ann, &project.id).await;
    let session = ann.session(&project.id).await;
    ann.client.file_put(&project.id, "a.txt", "after").await.unwrap();
    let restored = restore(&ann.client, &project.id, &made.id).await;
    assert!(!restored.files);
    assert_eq!(std::fs::read(own.join("a.txt")).unwrap(), b"after");
    let path = format!("/v1/projects/{}/sessions/{}", project.id, session.id);
    assert_eq!(ann.get(&path).await.status, 404);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_restores_nothing_again() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let made = backup(&ann.person, &ann.project).await;
    let path = format!("/v1/projects/{}/restore", ann.project);
    let headers = [("idempotency-key", "k"), ("content-type", "application/json")];
    let body = json!({ "backupId": made.id }).to_string();
    let (client, token) = (ann.person.client.clone(), ann.person.token().to_owned());
    let ask = || client.raw("POST", &path, Some(&token), &headers, body.clone().into());
    let first = ask().await.unwrap();
    assert_eq!(first.status, 200, "{first:?}");
    ann = ann.person.conversation_in(&ann.project).await;
    let said = ann.ask("say kept").await;
    assert_eq!(ask().await.unwrap().json, first.json);
    let snapshot = ann.person.snapshot(&ann.project, &ann.session).await;
    assert!(snapshot.messages.iter().any(|message| message.id == said.id));
    assert_eq!(backups(&ann.person, &ann.project).await.len(), 2);
}
