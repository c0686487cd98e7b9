//! Backups of projects, restores, exports and imports, over REST and WebSocket.

mod importing;
mod restoring;
mod scheduled;
mod surviving;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use iris_protocol::{
    Backup, BackupDelete, BackupKind, BackupList, ErrorCode, ProjectArchive, ProjectBackup,
    ProjectDelete, ProjectExport, ProjectId, Role, ServerBackup,
};
use iris_testkit::{Person, TestApp, spawn_app, text_of};
use serde_json::{Value, json};

use crate::{code_of, refusal, rest_refusal};

/// Every file and directory under `directory`.
fn tree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

/// What names the project, anywhere in the data directory.
fn traces(app: &TestApp, project: &ProjectId) -> Vec<PathBuf> {
    let all = tree(app.data_dir()).into_iter();
    all.filter(|path| path.to_string_lossy().contains(project.as_str())).collect()
}

async fn backups(person: &Person, project: &ProjectId) -> Vec<Backup> {
    person.client.call(Some(project), BackupList {}).await.unwrap().backups
}

async fn backup(person: &Person, project: &ProjectId) -> Backup {
    person.client.call(Some(project), ProjectBackup {}).await.unwrap().backup
}

/// The bytes of a backup.
async fn content(person: &Person, backup: &Backup) -> Vec<u8> {
    let answer = person.get(&content_path(backup)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.to_vec()
}

fn content_path(backup: &Backup) -> String {
    format!("/v1/projects/{}/backups/{}/content", backup.project_id, backup.id)
}

#[tokio::test]
async fn a_backup_is_made_while_a_run_waits_and_is_listed_with_what_it_holds() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say one").await;
    ann.person.client.file_put(&ann.project, "a.txt", "hello").await.unwrap();
    let run = ann.send_message("call write {\"path\": \"b\", \"content\": \"\"}").await.run_id;
    ann.approval().await;
    let answer = ann.person.post(&format!("/v1/projects/{}/backup", ann.project), json!({})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let made: Backup = answer.data().unwrap();
    assert_eq!((&made.project_id, made.kind), (&ann.project, BackupKind::Manual));
    assert_eq!((made.by.as_ref(), made.expires_at), (Some(ann.person.id()), None));
    assert_eq!(made.epoch, ann.position.epoch);
    assert!(made.seq > 0 && made.bytes > 0 && made.verified_at >= made.at, "{made:?}");
    assert_eq!(backups(&ann.person, &ann.project).await, std::slice::from_ref(&made));

    // The run went on meanwhile, and goes on now.
    assert!(ann.cancel().await);
    ann.run_ended(&run).await;
    assert_eq!(text_of(&ann.ask("say two").await), "two");

    let directory = app.data_dir().join("backups").join(ann.project.as_str());
    let files = tree(&directory);
    assert_eq!(files.len(), 1, "{files:?}");
    let name = files[0].file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.ends_with(&format!("-{}.tar.zst", made.id)), "{name}");
    let bits = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((bits(&files[0]), bits(&directory)), (0o600, 0o700));
    assert_eq!(std::fs::read(&files[0]).unwrap().len() as u64, made.bytes);
}

#[tokio::test]
async fn an_archive_is_downloaded_whole_or_in_a_range_with_its_hash_as_etag() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("a").await.id;
    // More than one part that is read at a time.
    ann.client.file_put(&project, "noise", noise(1, 600_000)).await.unwrap();
    let export = ann.client.call(Some(&project), ProjectExport {}).await.unwrap().backup;
    assert_eq!(
        (export.kind, export.expires_at),
        (BackupKind::Export, Some(export.at + 86_400_000))
    );

    let answer = ann.get(&content_path(&export)).await;
    let header = |name: &str| answer.headers.get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.len() as u64, export.bytes);
    assert!(export.bytes > 300_000, "one part is no test: {}", export.bytes);
    assert_eq!(header("etag"), format!("\"{}\"", export.sha256));
    assert_eq!(header("content-length"), export.bytes.to_string());
    assert_eq!(header("content-type"), "application/zstd");

    let ranged = async |headers: &[(&str, &str)]| {
        let path = content_path(&export);
        ann.client.raw("GET", &path, Some(ann.token()), headers, Bytes::new()).await.unwrap()
    };
    let part = ranged(&[("range", "bytes=10-300010")]).await;
    assert_eq!(part.status, 206);
    assert_eq!(part.body, answer.body.slice(10..300_011));
    let given = part.headers.get("content-range").unwrap();
    assert_eq!(given.to_str().unwrap(), format!("bytes 10-300010/{}", export.bytes));
    let end = ranged(&[("range", "bytes=-5")]).await;
    assert_eq!(end.body, answer.body.slice(answer.body.len() - 5..));
    for headers in [
        &[("range", "bytes=0-1"), ("if-range", "\"another\"")][..],
        &[("range", "bytes=0-1,3-4")],
        &[("range", "lines=1-2")],
    ] {
        let whole = ranged(headers).await;
        assert_eq!((whole.status, whole.body.len()), (200, answer.body.len()), "{headers:?}");
    }
    let beyond = ranged(&[("range", "bytes=999999999-")]).await;
    let given = beyond.headers.get("content-range").unwrap();
    assert_eq!(
        (beyond.status, given.to_str().unwrap()),
        (416, &*format!("bytes */{}", export.bytes))
    );
}

/// Bytes that do not compress (xorshift, Marsaglia 2003).
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed;
    let bytes = (0..count).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    bytes.collect()
}

#[tokio::test]
async fn the_same_key_makes_one_backup_also_when_both_come_at_once() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("a").await.id;
    let path = format!("/v1/projects/{project}/backup");
    let headers = [("idempotency-key", "k"), ("content-type", "application/json")];
    let ask = || ann.client.raw("POST", &path, Some(ann.token()), &headers, "{}".into());
    let (one, other) = tokio::join!(ask(), ask());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!((one.status, other.status), (201, 201), "{one:?} {other:?}");
    assert_eq!(one.json, other.json);
    let is_repeat = |answer: &iris_client::RestAnswer| {
        answer.headers.get("idempotent-replay").is_some_and(|value| value == "true")
    };
    assert_eq!([is_repeat(&one), is_repeat(&other)].iter().filter(|repeat| **repeat).count(), 1);
    let app = app.restart().await;
    let again = app.again(&ann);
    let third = again.client.raw("POST", &path, Some(again.token()), &headers, "{}".into());
    let third = third.await.unwrap();
    assert_eq!(third.json, one.json);
    assert!(is_repeat(&third));
    assert_eq!(backups(&again, &project).await.len(), 1);
    assert_eq!(tree(&app.data_dir().join("backups").join(project.as_str())).len(), 1);
}

#[tokio::test]
async fn a_backup_that_is_deleted_is_gone_with_its_file() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("a").await.id;
    ann.add_member(&project, &bob, Role::Admin).await;
    let (kept, made) = (backup(&ann, &project).await, backup(&bob, &project).await);
    let delete = || BackupDelete { backup_id: made.id.clone() };
    let refused = refusal(bob.client.call(Some(&project), delete()).await);
    assert_eq!(refused.code, ErrorCode::Forbidden);
    ann.client.call(Some(&project), delete()).await.unwrap();
    assert_eq!(backups(&ann, &project).await, [kept]);
    assert_eq!(rest_refusal(&ann.get(&content_path(&made)).await).code, ErrorCode::NotFound);
    let refused = refusal(ann.client.call(Some(&project), delete()).await);
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert_eq!(tree(&app.data_dir().join("backups").join(project.as_str())).len(), 1);
}

#[tokio::test]
async fn an_archived_project_can_be_backed_up_and_exported() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("a").await.id;
    ann.client.call(Some(&project), ProjectArchive {}).await.unwrap();
    let made = backup(&ann, &project).await;
    content(&ann, &made).await;
    ann.client.call(Some(&project), ProjectExport {}).await.unwrap();
    assert_eq!(backups(&ann, &project).await.len(), 2);
    ann.client.call(Some(&project), BackupDelete { backup_id: made.id }).await.unwrap();
}

#[tokio::test]
async fn a_project_that_is_deleted_leaves_no_file_behind() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say one").await;
    let person = ann.person.clone();
    let (project, other) = (ann.project.clone(), person.project("other").await.id);
    person.client.file_put(&project, "a.txt", "a").await.unwrap();
    backup(&person, &project).await;
    person.client.call(Some(&project), ProjectExport {}).await.unwrap();
    let kept = backup(&person, &other).await;
    assert!(!traces(&app, &project).is_empty());
    person.client.call(Some(&project), ProjectDelete {}).await.unwrap();
    assert_eq!(traces(&app, &project), Vec::<PathBuf>::new());
    // And nothing of others.
    assert_eq!(backups(&person, &other).await, std::slice::from_ref(&kept));
    content(&person, &kept).await;
}

#[tokio::test]
async fn a_server_is_backed_up_whole_by_its_administrators() {
    let app = spawn_app().await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    ann.project("a").await;
    ann.project("b").await;
    assert_eq!(
        rest_refusal(&ann.post("/v1/admin/backup", json!({})).await).code,
        ErrorCode::Forbidden
    );
    let answer = root.post("/v1/admin/backup", json!({})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let made: ServerBackup = answer.data().unwrap();
    assert_eq!((made.projects, made.failed.len()), (2, 0));
    let directory = app.data_dir().join("backups/server").join(&made.name);
    let manifest = iris_backup::server::verify_server(&directory).unwrap();
    assert_eq!((manifest.projects.len(), manifest.with_keys), (2, false));
    let second: ServerBackup = root.post("/v1/admin/backup", json!({})).await.data().unwrap();
    let listed: Vec<ServerBackup> = root.get("/v1/admin/backup").await.data().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&made) && listed.contains(&second));
}

#[tokio::test]
async fn what_is_done_with_archives_is_in_the_audit() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("a").await.id;
    let export = ann.client.call(Some(&project), ProjectExport {}).await.unwrap().backup;
    content(&ann, &export).await;
    let restore = json!({ "backupId": export.id });
    let answer = ann.post(&format!("/v1/projects/{project}/restore"), restore).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let archive = content(&ann, &export).await;
    let token = Some(ann.token());
    let path = "/v1/projects/import?id=new";
    let imported = ann.client.raw("POST", path, token, &[], archive.into()).await.unwrap();
    assert_eq!(imported.status, 201, "{imported:?}");
    let data_dir = app.data_dir().to_owned();
    let sql = "SELECT group_concat(action || ' ' || target, ', ' ORDER BY id) FROM audit
               WHERE action LIKE 'project.%'";
    let root = rusqlite::Connection::open(data_dir.join("root.db")).unwrap();
    let audit: String = root.query_row(sql, [], |row| row.get(0)).unwrap();
    let read = "project.backup.read";
    let expected = ["project.export", read, "project.restore", read];
    let expected = expected.map(|action| format!("{action} {project}")).join(", ");
    let new = imported.json["data"]["id"].as_str().unwrap();
    assert_eq!(audit, format!("{expected}, project.import {new}"));
}

#[tokio::test]
async fn there_is_a_bound_on_the_backups_of_a_project() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("a").await.id;
    let first = backup(&ann, &project).await;
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 199)
        INSERT INTO backups SELECT printf('bkp_%032x', i), project_id, kind, at, bytes, sha256, seq,
            epoch, user_id, verified_at, expires_at, file FROM backups, n";
    let root = rusqlite::Connection::open(app.data_dir().join("root.db")).unwrap();
    root.execute(fill, []).unwrap();
    let refused = refusal(ann.client.call(Some(&project), ProjectBackup {}).await);
    assert_eq!(code_of(&refused), (ErrorCode::QuotaExceeded, "too_many_backups"));
    let left = tree(&app.data_dir().join("backups").join(project.as_str()));
    assert_eq!(left.len(), 1, "the refused one leaves nothing: {left:?}");
    assert!(left[0].to_string_lossy().contains(first.id.as_str()));
}

#[tokio::test]
async fn a_full_disk_refuses_new_backups_and_answers_repeats() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("a").await.id;
    let post = async |operation: &str, key: &str, body: &Value| {
        let path = format!("/v1/projects/{project}/{operation}");
        let headers = [("idempotency-key", key), ("content-type", "application/json")];
        let body = Bytes::from(body.to_string());
        ann.client.raw("POST", &path, Some(ann.token()), &headers, body).await.unwrap()
    };
    let nothing = json!({});
    let written = post("backup", "k", &nothing).await;
    let backup: Backup = written.data().unwrap();
    let which = json!({ "backupId": backup.id });
    let restored = post("restore", "r", &which).await;
    assert!(restored.is_success(), "{restored:?}");

    app.storage().pretend_available(Some(0));
    app.storage().report_full();
    for (operation, key, body, first) in
        [("backup", "k", &nothing, &written), ("restore", "r", &which, &restored)]
    {
        let again = post(operation, key, body).await;
        assert_eq!((again.status, &again.json), (first.status, &first.json));
        assert_eq!(again.headers["idempotent-replay"], "true");
        let refused = rest_refusal(&post(operation, "another", body).await);
        assert_eq!(refused.code, ErrorCode::StorageFull);
    }
}
