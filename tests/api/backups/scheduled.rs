//! Backups that the server makes by itself, and how long they are kept.

use std::sync::Arc;
use std::time::Duration;

use iris_protocol::{Backup, BackupKind, ProjectExport, ProjectId};
use iris_testkit::{AppOptions, Person, TestApp, TestClock, moment, patiently, spawn_app_with};
use serde_json::Value;

use super::{backup, backups, content_path, tree};

const SOON: Duration = Duration::from_millis(20);

/// What the actor says of its rounds.
async fn schedule(root: &Person) -> Value {
    root.client.actor("node/backups").await.unwrap().observed["schedule"].clone()
}

/// Waits until so many more rounds were made.
async fn rounds(root: &Person, more: u64) {
    let count = async || schedule(root).await["rounds"].as_u64().unwrap();
    let before = count().await;
    patiently("rounds", async {
        while count().await < before + more {
            moment().await;
        }
    })
    .await;
}

async fn scheduled(person: &Person, project: &ProjectId) -> Vec<Backup> {
    let mut all = backups(person, project).await;
    all.retain(|backup| backup.kind == BackupKind::Scheduled);
    all
}

/// Waits for a scheduled backup that holds all that happened.
async fn covered(person: &Person, project: &ProjectId) -> Backup {
    let head = async || {
        let path = format!("/v1/projects/{project}/sessions");
        person.get(&path).await.json["meta"]["asOf"]["seq"].as_u64().unwrap()
    };
    let seq = head().await;
    let waiting = async {
        loop {
            let newest = scheduled(person, project).await.into_iter().next();
            if let Some(newest) = newest.filter(|newest| newest.seq >= seq) {
                return newest;
            }
        }
    };
    patiently("a scheduled backup", waiting).await
}

fn files_of(app: &TestApp, project: &ProjectId) -> usize {
    tree(&app.data_dir().join("backups").join(project.as_str())).len()
}

#[tokio::test]
async fn a_project_is_backed_up_when_it_changed_and_only_then() {
    let options = AppOptions { backup_interval: Some(SOON), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("a").await.id;
    ann.session(&project).await;
    let first = covered(&ann, &project).await;
    assert_eq!((first.by.as_ref(), first.expires_at), (None, None));
    rounds(&root, 5).await;
    assert_eq!(scheduled(&ann, &project).await.first(), Some(&first));
    ann.session(&project).await;
    let second = covered(&ann, &project).await;
    assert!(second.seq > first.seq);
    assert_eq!(schedule(&root).await["failures"], 0);

    let copies = tree(&app.data_dir().join("backups/root"));
    let whole = copies.iter().filter(|path| path.extension().is_some_and(|is| is == "db"));
    // Older ones may be gone by now.
    iris_store::maintenance::check_root(whole.max().unwrap()).unwrap();

    // A server that starts again knows what it has.
    let count = scheduled(&ann, &project).await.len();
    let app = app.restart().await;
    let (root, ann) = (app.again(&root), app.again(&ann));
    rounds(&root, 3).await;
    assert_eq!(scheduled(&ann, &project).await.len(), count);
}

#[tokio::test]
async fn the_newest_ones_are_kept_and_those_that_somebody_made() {
    let options =
        AppOptions { backup_interval: Some(SOON), backups_kept: 2, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("a").await.id;
    let manual = backup(&ann, &project).await;
    let mut last = None;
    for _ in 0..4 {
        ann.session(&project).await;
        last = Some(covered(&ann, &project).await);
    }
    rounds(&root, 2).await;
    let kept = scheduled(&ann, &project).await;
    assert_eq!((kept.len(), kept.first()), (2, last.as_ref()));
    assert!(backups(&ann, &project).await.contains(&manual));
    assert_eq!(files_of(&app, &project), 3);
    let copies = tree(&app.data_dir().join("backups/root"));
    let whole = copies.iter().filter(|path| path.extension().is_some_and(|is| is == "db"));
    assert!(whole.count() <= 3);
}

#[tokio::test]
async fn an_export_is_gone_after_a_day() {
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let options = AppOptions {
        backup_interval: Some(SOON),
        clock: Some(Arc::clone(&clock) as Arc<dyn iris_agent::Clock>),
        ..AppOptions::default()
    };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let project = ann.project("a").await.id;
    let export = ann.client.call(Some(&project), ProjectExport {}).await.unwrap().backup;
    clock.advance(Duration::from_hours(23));
    assert!(backups(&ann, &project).await.contains(&export));
    clock.advance(Duration::from_hours(1));
    let token = ann.client.token().unwrap();
    assert!(!backups(&ann, &project).await.contains(&export));
    let get = async || {
        let path = content_path(&export);
        let token = ann.client.token().unwrap();
        ann.client.rest("GET", &path, Some(&token), None).await.unwrap().status
    };
    let gone = get().await;
    assert!(gone == 410 || gone == 404, "{gone} {token}");
    patiently("the file to go", async {
        while get().await != 404 {
            moment().await;
        }
    })
    .await;
    let name = export.id.to_string();
    let files = tree(&app.data_dir().join("backups").join(project.as_str()));
    assert!(!files.iter().any(|path| path.to_string_lossy().contains(&name)), "{files:?}");
}

#[tokio::test]
async fn a_project_that_cannot_be_backed_up_is_reported_and_the_others_go_on() {
    let options = AppOptions { backup_interval: Some(SOON), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let (bad, good) = (ann.project("bad").await.id, ann.project("good").await.id);
    let app = app.restart().await;
    let (root, ann) = (app.again(&root), app.again(&ann));
    let place = app.data_dir().join("projects").join(bad.as_str()).join("project.db");
    std::fs::write(&place, "damaged").unwrap();
    ann.session(&good).await;
    covered(&ann, &good).await;
    let failed = async {
        while schedule(&root).await["failures"].as_u64().unwrap() == 0 {
            app.client().health_ready().await.unwrap();
        }
    };
    patiently("the failure to be told", failed).await;
    let told = schedule(&root).await;
    let told = told["lastFailures"].as_array().unwrap();
    assert_eq!(told.last().unwrap(), &format!("{bad}: PROJECT_CORRUPT"));
}

#[tokio::test]
async fn files_that_are_not_mounted_are_a_failure_and_no_deleted_project() {
    let options = AppOptions { backup_interval: Some(SOON), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (root, ann) = (app.admin().await, app.user("ann").await);
    let project = ann.project("a").await.id;
    ann.session(&project).await;
    covered(&ann, &project).await;
    let files = app.data_dir().join("projects").join(project.as_str()).join("files");
    let aside = files.with_file_name("unmounted");
    std::fs::rename(&files, &aside).unwrap();
    ann.session(&project).await;
    rounds(&root, 2).await;
    let told = schedule(&root).await;
    let told = told["lastFailures"].as_array().unwrap();
    assert_eq!(told.last(), Some(&Value::from(format!("{project}: INTERNAL"))));
    std::fs::rename(&aside, &files).unwrap();
    covered(&ann, &project).await;
}
