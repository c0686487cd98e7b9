//! `kill -9` while an archive is worked on: afterwards there is the old state or the new one.

use std::path::Path;
use std::time::Duration;

use iris_client::Client;
use iris_protocol::{
    Backup, BackupList, ProjectBackup, ProjectCreate, ProjectExport, ProjectId, ProjectList,
    ProjectRestore, ProjectType, SessionCreate, SessionList,
};
use iris_testkit::{Person, ServerProcess, patiently};

use super::{noise, tree};

/// Bytes that take a while: to compress, to hash, to read back.
const SLOW_BYTES: usize = 8 * 1024 * 1024;

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn start(&self) -> ServerProcess {
        let command = ServerProcess::command(env!("CARGO_BIN_EXE_iris"), self.path());
        ServerProcess::start(command).await
    }

    fn names(&self) -> Vec<String> {
        let all = tree(self.path()).into_iter();
        all.map(|path| path.strip_prefix(self.path()).unwrap().display().to_string()).collect()
    }

    /// Waits until the names in the data directory say so.
    async fn appears(&self, what: &str, is_it: impl Fn(&[String]) -> bool) {
        let appears = async {
            while !is_it(&self.names()) {
                tokio::task::yield_now().await;
            }
        };
        patiently(what, appears).await;
    }

    /// Nothing that was begun and not finished is left.
    fn is_clean(&self) {
        let names = self.names();
        let is_left = |name: &&String| {
            [".iris-tmp-", ".new", ".incoming", "uploads/"].iter().any(|mark| name.contains(mark))
        };
        let left: Vec<_> = names.iter().filter(is_left).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Whether names say that something has come so far, given how many archives there were.
type Stage = fn(&[String], usize) -> bool;

fn is_unfinished_archive(names: &[String]) -> bool {
    names.iter().any(|name| name.starts_with("backups/prj_") && name.contains(".iris-tmp-"))
}

/// Archives that were read back, whether they have a row or not.
fn archives(names: &[String]) -> usize {
    let is_one = |name: &&String| {
        name.starts_with("backups/prj_")
            && !name.contains(".iris-tmp-")
            && (name.ends_with(".tar.zst") || name.ends_with(".tar.zst.new"))
    };
    names.iter().filter(is_one).count()
}

async fn ann(server: &ServerProcess) -> Person {
    let request = iris_protocol::AuthRegister {
        invitation: None,
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password: iris_testkit::PASSWORD.to_owned(),
    };
    let client = patient_client(server);
    Person::new(&client, client.register(&request).await.unwrap())
}

fn patient_client(server: &ServerProcess) -> Client {
    Client::with_timeout(&server.url, Duration::from_mins(1)).unwrap()
}

fn again(server: &ServerProcess, ann: &Person) -> Person {
    Person::new(&patient_client(server), ann.grant.clone())
}

/// A project with enough in it that work on its archive takes a while.
async fn slow_project(ann: &Person) -> ProjectId {
    let request = ProjectCreate {
        name: "slow".to_owned(),
        description: None,
        r#type: ProjectType::Local,
        path: None,
        git: None,
    };
    let project = ann.client.call(None, request).await.unwrap().project.id;
    for n in 0..4_u64 {
        let noise = noise(n + 1, SLOW_BYTES);
        ann.client.file_put(&project, &format!("noise{n}"), noise).await.unwrap();
    }
    project
}

async fn session(ann: &Person, project: &ProjectId) {
    let request = SessionCreate { title: None, agent: None, model: None, mode: None };
    ann.client.call(Some(project), request).await.unwrap();
}

/// How many sessions it has, and what stands in the file `state`.
async fn state(ann: &Person, project: &ProjectId) -> (usize, String) {
    let request =
        SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };
    let sessions = ann.client.call(Some(project), request).await.unwrap().sessions.len();
    let text = ann.client.file_get(project, "state").await.unwrap();
    (sessions, String::from_utf8_lossy(&text).into_owned())
}

async fn listed(ann: &Person, project: &ProjectId) -> Vec<Backup> {
    ann.client.call(Some(project), BackupList {}).await.unwrap().backups
}

#[tokio::test]
async fn killed_while_a_backup_is_written_there_is_none_or_a_whole_one() {
    let place = Place::new();
    let server = place.start().await;
    let ann = ann(&server).await;
    let project = slow_project(&ann).await;
    let client = ann.client.clone();
    let asked = {
        let project = project.clone();
        tokio::spawn(async move { client.call(Some(&project), ProjectBackup {}).await })
    };
    place.appears("a backup to be begun", is_unfinished_archive).await;
    server.kill();
    assert!(asked.await.unwrap().is_err());
    let server = place.start().await;
    let ann = again(&server, &ann);
    place.is_clean();
    assert_eq!(listed(&ann, &project).await, []);
    let made = ann.client.call(Some(&project), ProjectBackup {}).await.unwrap().backup;
    assert_eq!(listed(&ann, &project).await, [made]);
}

#[tokio::test]
async fn killed_while_a_project_is_restored_it_is_the_old_one_or_the_new_one() {
    // While the new state is unpacked, while the old one is backed up, when that was read back.
    let stages: [(&str, Stage); 3] = [
        ("the new state", |names, _| names.iter().any(|n| n.starts_with("projects/.iris-tmp-"))),
        ("the safety backup", |names, _| is_unfinished_archive(names)),
        ("its archive", |names, archives_before| archives(names) > archives_before),
    ];
    let place = Place::new();
    let mut server = place.start().await;
    let mut ann = ann(&server).await;
    let project = slow_project(&ann).await;
    session(&ann, &project).await;
    ann.client.file_put(&project, "state", "before").await.unwrap();
    let made = ann.client.call(Some(&project), ProjectBackup {}).await.unwrap().backup;
    for (what, is_it) in stages {
        session(&ann, &project).await;
        ann.client.file_put(&project, "state", "after").await.unwrap();
        let old = state(&ann, &project).await;
        let before = archives(&place.names());
        let client = ann.client.clone();
        let asked = {
            let (project, backup_id) = (project.clone(), made.id.clone());
            let restore = ProjectRestore { backup_id };
            tokio::spawn(async move { client.call(Some(&project), restore).await })
        };
        place.appears(what, |names| is_it(names, before)).await;
        server.kill();
        let answered = asked.await.unwrap().is_ok();
        server = place.start().await;
        ann = again(&server, &ann);
        place.is_clean();
        let now = state(&ann, &project).await;
        let new = (1, "before".to_owned());
        assert!(now == new || (now == old && !answered), "{what}: {now:?}");
        // It goes on, and can be restored.
        let restore = ProjectRestore { backup_id: made.id.clone() };
        ann.client.call(Some(&project), restore).await.unwrap();
        assert_eq!(state(&ann, &project).await, new);
    }
}

#[tokio::test]
async fn killed_while_a_project_is_imported_there_is_none_or_a_whole_one() {
    let place = Place::new();
    let mut server = place.start().await;
    let mut ann = ann(&server).await;
    let project = slow_project(&ann).await;
    ann.client.file_put(&project, "state", "before").await.unwrap();
    let export = ann.client.call(Some(&project), ProjectExport {}).await.unwrap().backup;
    let path = super::content_path(&export);
    let archive = ann.client.rest("GET", &path, Some(ann.token()), None).await.unwrap().body;
    let stages: [(&str, Stage); 2] = [
        ("the upload", |names, _| names.iter().any(|n| n.starts_with("backups/uploads/"))),
        ("the new project", |names, _| names.iter().any(|n| n.ends_with(".incoming"))),
    ];
    let mut known = 1;
    for (what, is_it) in stages {
        let (client, token, body) = (ann.client.clone(), ann.token().to_owned(), archive.clone());
        let asked = tokio::spawn(async move {
            client.raw("POST", "/v1/projects/import", Some(&token), &[], body).await
        });
        place.appears(what, |names| is_it(names, 0)).await;
        server.kill();
        let acknowledged = asked.await.unwrap().is_ok();
        server = place.start().await;
        ann = again(&server, &ann);
        place.is_clean();
        let request = ProjectList { limit: None, cursor: None, include_archived: None };
        let projects = ann.client.call(None, request).await.unwrap().projects;
        // One whose answer was lost may be there too.
        assert!(projects.len() >= known + usize::from(acknowledged), "{what}: {projects:?}");
        assert!(projects.len() <= known + 1, "{what}: {projects:?}");
        known = projects.len();
        let on_disk = std::fs::read_dir(place.path().join("projects")).unwrap().count();
        assert_eq!(on_disk, projects.len(), "{what}: {:?}", place.names());
        for project in projects {
            assert_eq!(state(&ann, &project.id).await.1, "before");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_looked_at_when_the_server_starts_is_not_taken_for_gone() {
    let place = Place::new();
    let server = place.start().await;
    let ann = ann(&server).await;
    let project = ann.project("a").await.id;
    ann.client.file_put(&project, "state", "kept").await.unwrap();
    let made = ann.client.call(Some(&project), ProjectBackup {}).await.unwrap().backup;
    assert!(server.terminate().await.success());
    // As a crash leaves a project that was imported.
    let directory = place.path().join("projects").join(project.as_str());
    let incoming = directory.with_extension("incoming");
    let archives = place.path().join("backups").join(project.as_str());
    let aside = place.path().join("aside");
    for (path, moved) in [(&directory, &incoming), (&archives, &aside)] {
        std::fs::rename(path, moved).unwrap();
        // It cannot be looked at: a link to itself.
        std::os::unix::fs::symlink(path, path).unwrap();
    }
    let server = place.start().await;
    assert_eq!(listed(&again(&server, &ann), &project).await, std::slice::from_ref(&made));
    assert!(server.terminate().await.success());
    assert!(incoming.join("project.db").exists());

    std::fs::remove_file(&directory).unwrap();
    std::fs::remove_file(&archives).unwrap();
    std::fs::rename(&aside, &archives).unwrap();
    let server = place.start().await;
    let ann = again(&server, &ann);
    place.is_clean();
    assert_eq!(state(&ann, &project).await, (0, "kept".to_owned()));
    ann.client.call(Some(&project), ProjectRestore { backup_id: made.id }).await.unwrap();
}

#[tokio::test]
async fn what_a_crash_left_beside_the_backups_is_removed_at_the_start() {
    let place = Place::new();
    assert!(place.start().await.terminate().await.success());
    let backups = place.path().join("backups");
    let copies = backups.join("root");
    std::fs::create_dir_all(&copies).unwrap();
    let kept = copies.join("20260102T030405Z-1.db");
    let deleted = backups.join(".iris-tmp-1");
    std::fs::create_dir(&deleted).unwrap();
    for path in [
        &kept,
        &deleted.join("a.tar.zst"),
        &copies.join("20260102T030406Z-2.db.new"),
        &copies.join("20260102T030406Z-2.db.new-journal"),
    ] {
        std::fs::write(path, "left").unwrap();
    }
    let server = place.start().await;
    place.is_clean();
    assert!(kept.exists());
    server.kill();
}
