//! The process ends while files are changed: afterwards each holds the old content or the new one, several
//! that belong together all the old or all the new ones, and the history says so.

use std::path::{Path, PathBuf};

use iris_protocol::{
    AuthRegister, FileSource, FileVersion, FileVersions, ProjectId, SnapshotCreate, SnapshotRestore,
};
use iris_store::CrashPoint;
use iris_testkit::{PASSWORD, Person, ServerProcess};
use serde_json::json;
use tempfile::TempDir;

struct Scene {
    directory: TempDir,
    person: Person,
    project: ProjectId,
}

fn command(directory: &Path) -> std::process::Command {
    ServerProcess::command(env!("CARGO_BIN_EXE_iris"), directory)
}

impl Scene {
    /// A server that ends at `point` once the file `armed` is there.
    async fn new(point: CrashPoint) -> (Self, ServerProcess) {
        let directory = TempDir::new().unwrap();
        let mut doomed = command(directory.path());
        doomed.env("IRIS_CRASH_AT", point.as_str());
        doomed.env("IRIS_CRASH_WHEN", directory.path().join("armed"));
        let server = ServerProcess::start(doomed).await;
        let request = AuthRegister {
            email: "ann@example.com".to_owned(),
            username: "ann".to_owned(),
            password: PASSWORD.to_owned(),
        };
        let client = server.client();
        let person = Person::new(&client, client.register(&request).await.unwrap());
        let project = person.project("p").await.id;
        (Self { directory, person, project }, server)
    }

    fn arm(&self) {
        std::fs::write(self.directory.path().join("armed"), "").unwrap();
    }

    fn files(&self) -> PathBuf {
        self.directory.path().join("projects").join(self.project.as_str()).join("files")
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.files().join(path)).ok()
    }

    async fn restart(&mut self) -> ServerProcess {
        let server = ServerProcess::start(command(self.directory.path())).await;
        self.person = Person::new(&server.client(), self.person.grant.clone());
        server
    }

    async fn versions(&self, path: &str) -> Vec<FileVersion> {
        let request = FileVersions { path: path.to_owned(), limit: None, cursor: None };
        let page = self.person.client.call(Some(&self.project), request).await.unwrap();
        page.versions.into_iter().rev().collect()
    }
}

#[tokio::test]
async fn a_write_whose_record_is_cut_off_is_found_and_its_repeat_is_one_version() {
    let (mut scene, server) = Scene::new(CrashPoint::FileWritten).await;
    let (project, person) = (scene.project.clone(), scene.person.clone());
    person.client.file_put(&project, "a.txt", "old").await.unwrap();
    scene.arm();
    let route = format!("/v1/projects/{project}/files/content?path=a.txt");
    let put = async |person: &Person| {
        let key = [("idempotency-key", "key")];
        person.client.raw("PUT", &route, Some(person.token()), &key, "new".into()).await
    };
    drop(put(&scene.person).await);
    assert!(!server.exited().await.success());
    assert_eq!(scene.read("a.txt").as_deref(), Some("new"));
    let _server = scene.restart().await;
    assert!(put(&scene.person).await.unwrap().is_success());
    let versions = scene.versions("a.txt").await;
    let sources: Vec<FileSource> = versions.iter().map(|it| it.source).collect();
    assert_eq!(sources, [FileSource::Api, FileSource::Api], "{versions:?}");
}

#[tokio::test]
async fn a_move_and_a_deletion_whose_records_are_cut_off_are_found() {
    for (route, body, gone, there) in [
        ("move", json!({ "from": "a.txt", "to": "b.txt" }), "a.txt", Some("b.txt")),
        ("", json!({ "path": "a.txt" }), "a.txt", None),
    ] {
        let (mut scene, server) = Scene::new(CrashPoint::FileWritten).await;
        let project = scene.project.clone();
        scene.person.client.file_put(&project, "a.txt", "content").await.unwrap();
        scene.arm();
        let path = format!("/v1/projects/{project}/files/{route}");
        let path = path.trim_end_matches('/');
        let method = if route.is_empty() { "DELETE" } else { "POST" };
        let token = scene.person.token().to_owned();
        drop(scene.person.client.rest(method, path, Some(&token), Some(&body)).await);
        assert!(!server.exited().await.success());
        let _server = scene.restart().await;
        // A look at everything.
        scene.person.client.call(Some(&project), SnapshotCreate {}).await.unwrap();
        assert_eq!(scene.read(gone), None);
        let last = scene.versions(gone).await.pop().unwrap();
        assert_eq!((last.version, last.hash.as_str()), (2, ""));
        if let Some(there) = there {
            assert_eq!(scene.read(there).as_deref(), Some("content"));
            let versions = scene.versions(there).await;
            assert!(versions.len() == 1 && versions[0].kept, "{versions:?}");
        }
    }
}

#[tokio::test]
async fn a_restore_that_is_cut_off_between_two_files_is_complete_after_the_next_start() {
    for point in [CrashPoint::RestoreHalf, CrashPoint::FileWritten] {
        let (mut scene, server) = Scene::new(point).await;
        let project = scene.project.clone();
        for path in ["a.txt", "b.txt", "c.txt"] {
            scene.person.client.file_put(&project, path, "old").await.unwrap();
        }
        let call = scene.person.client.call(Some(&project), SnapshotCreate {});
        let snapshot_id = call.await.unwrap().snapshot.id;
        for path in ["a.txt", "b.txt", "c.txt"] {
            scene.person.client.file_put(&project, path, "new").await.unwrap();
        }
        scene.arm();
        let restore = SnapshotRestore { snapshot_id };
        drop(scene.person.client.call(Some(&project), restore).await);
        assert!(!server.exited().await.success());
        let _server = scene.restart().await;
        // Whoever has the next turn goes on.
        scene.person.client.file_put(&project, "d.txt", "mine").await.unwrap();
        for path in ["a.txt", "b.txt", "c.txt"] {
            assert_eq!(scene.read(path).as_deref(), Some("old"), "{path} at {}", point.as_str());
            let last = scene.versions(path).await.pop().unwrap();
            assert_eq!(last.source, FileSource::Restore, "{path}");
        }
    }
}
