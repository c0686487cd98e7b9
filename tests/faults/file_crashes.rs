//! The process ends while files are changed: afterwards each holds the old content or the new one, several
//! that belong together all the old or all the new ones, and the history says so.

use std::path::{Path, PathBuf};

use iris_protocol::{
    AuthRegister, Chunk, ChunkKind, FileSource, FileVersion, FileVersions, MessageState,
    PermissionAction, PermissionCreate, ProjectId, ProjectType, RunStatus, SessionUnrevert,
    SnapshotCreate, SnapshotList, SnapshotRestore,
};
use iris_store::CrashPoint;
use iris_testkit::{Incoming, PASSWORD, Person, ServerProcess, WireSocket};
use serde_json::json;
use tempfile::TempDir;

/// The types of projects whose files behave alike.
const TYPES: [ProjectType; 2] = [ProjectType::Local, ProjectType::Remote];

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
        Self::of(point, ProjectType::Local).await
    }

    /// As [`Scene::new`], with a project of a type.
    async fn of(point: CrashPoint, r#type: ProjectType) -> (Self, ServerProcess) {
        let directory = TempDir::new().unwrap();
        let mut doomed = command(directory.path());
        doomed.env("IRIS_CRASH_AT", point.as_str());
        doomed.env("IRIS_CRASH_WHEN", directory.path().join("armed"));
        let server = ServerProcess::start(doomed).await;
        let request = AuthRegister {
            invitation: None,
            email: "ann@example.com".to_owned(),
            username: "ann".to_owned(),
            password: PASSWORD.to_owned(),
        };
        let client = server.client();
        let person = Person::new(&client, client.register(&request).await.unwrap());
        let project = person.project_of("p", r#type).await.id;
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

    /// What a file of any project holds, as the server says.
    async fn told(&self, path: &str) -> Option<String> {
        let bytes = self.person.client.file_get(&self.project, path).await.ok()?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
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
async fn what_was_left_of_a_write_that_was_cut_off_is_removed_and_its_directory_can_be_deleted() {
    let (mut scene, server) = Scene::new(CrashPoint::FileHalf).await;
    let project = scene.project.clone();
    scene.person.client.file_put(&project, "dir/a.txt", "old").await.unwrap();
    scene.arm();
    drop(scene.person.client.file_put(&project, "dir/a.txt", "new").await);
    assert!(!server.exited().await.success());
    let left = |scene: &Scene| {
        let names = std::fs::read_dir(scene.files().join("dir")).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(".iris-tmp-")).count()
    };
    assert_eq!((left(&scene), scene.read("dir/a.txt").as_deref()), (1, Some("old")));
    let _server = scene.restart().await;
    // A look at everything.
    scene.person.client.call(Some(&project), SnapshotCreate {}).await.unwrap();
    assert_eq!((left(&scene), scene.read("dir/a.txt").as_deref()), (0, Some("old")));
    assert_eq!(scene.versions("dir/a.txt").await.len(), 1);
    let path = format!("/v1/projects/{project}/files");
    let body = json!({ "path": "dir", "recursive": true });
    let token = scene.person.token().to_owned();
    let gone = scene.person.client.rest("DELETE", &path, Some(&token), Some(&body)).await.unwrap();
    assert!(gone.is_success(), "{gone:?}");
    assert!(!scene.files().join("dir").exists());
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
    let points = [CrashPoint::RestoreBegun, CrashPoint::RestoreHalf, CrashPoint::FileWritten];
    let all = TYPES.iter().flat_map(|it| points.map(|point| (point, *it)));
    for (point, r#type) in all {
        let (mut scene, server) = Scene::of(point, r#type).await;
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
        let restore = SnapshotRestore { snapshot_id, skip_unkept: None };
        drop(scene.person.client.call(Some(&project), restore).await);
        assert!(!server.exited().await.success());
        let _server = scene.restart().await;
        // Whoever has the next turn goes on.
        scene.person.client.file_put(&project, "d.txt", "mine").await.unwrap();
        for path in ["a.txt", "b.txt", "c.txt"] {
            let held = scene.told(path).await;
            assert_eq!(held.as_deref(), Some("old"), "{path} at {}", point.as_str());
            let last = scene.versions(path).await.pop().unwrap();
            assert_eq!(last.source, FileSource::Restore, "{path}");
        }
    }
}

/// In a database a file and its version are one commit: a change that is cut off before it never was, one that
/// is cut off after it is known when it is repeated.
#[tokio::test]
async fn a_change_in_a_database_that_is_cut_off_happened_whole_or_not_at_all() {
    let put = ("PUT", "/files/content?path=a.txt", None);
    let moved = ("POST", "/files/move", Some(json!({ "from": "a.txt", "to": "b.txt" })));
    let gone = ("DELETE", "/files", Some(json!({ "path": "a.txt" })));
    let restored = ("POST", "/files/restore", Some(json!({ "path": "a.txt", "to": 1 })));
    for (method, route, body) in [put, moved, gone, restored] {
        let mut points =
            vec![(CrashPoint::FileWritten, false), (CrashPoint::AfterCommitBeforeFanout, true)];
        let mut again = 5;
        while let Some((point, happened)) = points.pop() {
            let (mut scene, server) = Scene::of(point, ProjectType::Remote).await;
            let project = scene.project.clone();
            for content in ["first", "old"] {
                scene.person.client.file_put(&project, "a.txt", content).await.unwrap();
            }
            scene.arm();
            let path = format!("/v1/projects/{project}{route}");
            let change = async |person: &Person| {
                let kind = if body.is_some() { "application/json" } else { "text/plain" };
                let headers = [("idempotency-key", "key"), ("content-type", kind)];
                let bytes = body.as_ref().map_or("new".to_owned(), ToString::to_string);
                let client = &person.client;
                client.raw(method, &path, Some(person.token()), &headers, bytes.into()).await
            };
            drop(change(&scene.person).await);
            assert!(!server.exited().await.success());
            let _server = scene.restart().await;
            let context = format!("{method} {route} at {}", point.as_str());
            let count = scene.versions("a.txt").await.len();
            if happened && count == 2 && again > 0 {
                // Another commit of the server, such as one that counts requests, was the first one behind
                // which it was to die.
                again -= 1;
                points.push((point, happened));
                continue;
            }
            assert_eq!(count, if happened { 3 } else { 2 }, "{context}");
            let (a, b) = (scene.told("a.txt").await, scene.told("b.txt").await);
            let after = match route {
                "/files/content?path=a.txt" => (Some("new"), None),
                "/files/move" => (None, Some("old")),
                "/files/restore" => (Some("first"), None),
                _ => (None, None),
            };
            let expected = if happened { after } else { (Some("old"), None) };
            assert_eq!((a.as_deref(), b.as_deref()), expected, "{context}");
            let repeated = change(&scene.person).await.unwrap();
            assert!(repeated.is_success(), "{context}: {repeated:?}");
            let (a, b) = (scene.told("a.txt").await, scene.told("b.txt").await);
            assert_eq!((a.as_deref(), b.as_deref()), after, "{context}");
            assert_eq!(scene.versions("a.txt").await.len(), 3, "{context}");
        }
    }
}

/// What a tool drafted is nothing until it is recorded.
#[tokio::test]
async fn a_call_in_a_database_that_is_cut_off_before_its_record_changed_nothing() {
    let (mut scene, server) = Scene::of(CrashPoint::ToolEnd, ProjectType::Remote).await;
    let project = scene.project.clone();
    scene.person.client.file_put(&project, "a.txt", "old\n").await.unwrap();
    let talk = scene.person.conversation_in(&project).await;
    let rule = PermissionCreate {
        session_id: None,
        permission: "edit".to_owned(),
        pattern: "*".to_owned(),
        action: PermissionAction::Allow,
    };
    talk.call(rule).await.unwrap();
    scene.arm();
    let patch = "*** Begin Patch\n*** Update File: a.txt\n@@\n-old\n+new\n*** Add File: b.txt\n+b\n\
                 *** End Patch";
    let script = format!("call applyPatch {}\nstep\nsay ok", json!({ "patch": patch }));
    drop(talk.try_send(&script, None).await);
    assert!(!server.exited().await.success());
    let _server = scene.restart().await;
    assert_eq!(scene.told("a.txt").await.as_deref(), Some("old\n"));
    assert_eq!(scene.told("b.txt").await, None);
    assert_eq!(scene.versions("a.txt").await.len(), 1);
}

#[tokio::test]
async fn a_snapshot_that_is_cut_off_is_there_or_not_and_its_repeat_is_the_same_one() {
    let (mut scene, server) = Scene::new(CrashPoint::AfterCommitBeforeFanout).await;
    let project = scene.project.clone();
    scene.person.client.file_put(&project, "a.txt", "old").await.unwrap();
    scene.arm();
    let route = format!("/v1/projects/{project}/snapshots");
    let headers = [("idempotency-key", "key"), ("content-type", "application/json")];
    let keep = async |person: &Person| {
        let client = &person.client;
        client.raw("POST", &route, Some(person.token()), &headers, "{}".into()).await
    };
    drop(keep(&scene.person).await);
    assert!(!server.exited().await.success());
    let _server = scene.restart().await;
    let kept = keep(&scene.person).await.unwrap();
    assert!(kept.is_success());
    let again = keep(&scene.person).await.unwrap();
    assert_eq!(again.json["data"]["id"], kept.json["data"]["id"]);
    let request = SnapshotList { limit: None, cursor: None };
    let page = scene.person.client.call(Some(&project), request).await.unwrap();
    assert_eq!(page.snapshots.len(), 1);
    assert_eq!(page.snapshots[0].file_count, 1);
}

/// Files and messages are both what they were, or both undone; the repeat of it says what became of it.
#[tokio::test]
async fn a_revert_that_is_cut_off_at_any_point_is_whole_after_the_next_start() {
    let points = [
        CrashPoint::RestoreBegun,
        CrashPoint::RestoreHalf,
        CrashPoint::FileWritten,
        CrashPoint::AfterCommitBeforeFanout,
    ];
    for (point, r#type) in TYPES.iter().flat_map(|it| points.map(|point| (point, *it))) {
        let (mut scene, server) = Scene::of(point, r#type).await;
        let project = scene.project.clone();
        let mut talk = scene.person.conversation_in(&project).await;
        let rule = PermissionCreate {
            session_id: None,
            permission: "edit".to_owned(),
            pattern: "*".to_owned(),
            action: PermissionAction::Allow,
        };
        talk.call(rule).await.unwrap();
        let write = |path: &str| {
            format!("call write {}\nstep\n", json!({ "path": path, "content": "new" }))
        };
        let sent = talk.send_message(&format!("{}{}say ok", write("a.txt"), write("b.txt"))).await;
        assert_eq!(talk.run_ended(&sent.run_id).await, RunStatus::Completed);
        scene.arm();
        let route = format!("/v1/projects/{project}/sessions/{}/revert", talk.session);
        let body = json!({ "messageId": sent.message_id }).to_string();
        let undo = async |person: &Person| {
            let headers = [("idempotency-key", "key"), ("content-type", "application/json")];
            let client = &person.client;
            client.raw("POST", &route, Some(person.token()), &headers, body.clone().into()).await
        };
        drop(undo(&scene.person).await);
        assert!(!server.exited().await.success());
        let _server = scene.restart().await;
        assert!(undo(&scene.person).await.unwrap().is_success(), "at {}", point.as_str());
        for path in ["a.txt", "b.txt"] {
            assert_eq!(scene.told(path).await, None, "{path} at {}", point.as_str());
            let versions = scene.versions(path).await;
            let sources: Vec<FileSource> = versions.iter().map(|it| it.source).collect();
            assert_eq!(sources, [FileSource::Tool, FileSource::Restore], "{path}");
        }
        let snapshot = scene.person.snapshot(&project, &talk.session).await;
        let mut states = snapshot.messages.iter().map(|message| message.state);
        assert!(states.all(|state| state == MessageState::Superseded));
        let unrevert =
            SessionUnrevert { session_id: talk.session.clone(), dry_run: None, skip_changed: None };
        scene.person.client.call(Some(&project), unrevert).await.unwrap();
        assert_eq!(scene.told("a.txt").await.as_deref(), Some("new"));
    }
}

/// What is written while the server is gone, and a revert is half done, can be gone back to.
#[tokio::test]
async fn what_others_write_between_the_crash_and_the_start_is_kept_as_a_version() {
    let (mut scene, server) = Scene::new(CrashPoint::RestoreHalf).await;
    let project = scene.project.clone();
    for path in ["a.txt", "b.txt"] {
        scene.person.client.file_put(&project, path, "old").await.unwrap();
    }
    let call = scene.person.client.call(Some(&project), SnapshotCreate {});
    let snapshot_id = call.await.unwrap().snapshot.id;
    for path in ["a.txt", "b.txt"] {
        scene.person.client.file_put(&project, path, "new").await.unwrap();
    }
    scene.arm();
    let restore = SnapshotRestore { snapshot_id, skip_unkept: None };
    drop(scene.person.client.call(Some(&project), restore).await);
    assert!(!server.exited().await.success());
    std::fs::write(scene.files().join("b.txt"), "somebody's").unwrap();
    let _server = scene.restart().await;
    scene.person.client.file_put(&project, "d.txt", "mine").await.unwrap();
    assert_eq!(scene.read("b.txt").as_deref(), Some("old"));
    let versions = scene.versions("b.txt").await;
    let sources: Vec<FileSource> = versions.iter().map(|it| it.source).collect();
    let expected = [FileSource::Api, FileSource::Api, FileSource::External, FileSource::Restore];
    assert_eq!(sources, expected);
}

/// A socket that has begun to send `a.bin`: its stream, and how much of it is on the disk.
async fn begin(server: &ServerProcess, scene: &Scene, bytes: &[u8]) -> (WireSocket, u32, usize) {
    let url = server.url.clone();
    let mut socket = WireSocket::open(&url, Some(scene.person.token())).await.unwrap();
    let upload = json!({
        "path": "a.bin", "size": bytes.len(), "sha256": iris_workspace::content_hash(bytes),
    });
    socket.ask("1", "upload.begin", Some(scene.project.as_str()), upload).await;
    let begun = socket.response("1").await;
    let stream = begun["payload"]["stream"].as_u64().unwrap().try_into().unwrap();
    let received = begun["payload"]["received"].as_u64().unwrap().try_into().unwrap();
    (socket, stream, received)
}

/// Sends some bytes and waits until they are acknowledged.
async fn send(socket: &mut WireSocket, stream: u32, bytes: &[u8], from: usize, to: usize) {
    let (kind, offset) = (ChunkKind::Up, from.try_into().unwrap());
    let chunk = Chunk { kind, is_last: false, stream, offset, bytes: &bytes[from..to] };
    socket.say_bytes(chunk.encode()).await;
    let Incoming::Binary(ack) = socket.next().await else { panic!("no acknowledgement") };
    assert_eq!(Chunk::decode(&ack).unwrap(), Chunk::ack(stream, to.try_into().unwrap()));
}

#[tokio::test]
async fn an_upload_goes_on_from_what_was_acknowledged_before_the_process_was_killed() {
    let (mut scene, mut server) = Scene::new(CrashPoint::FileWritten).await;
    let bytes: Vec<u8> = (0_u32..40_000).flat_map(u32::to_le_bytes).collect();
    let mut has = 0;
    for end in [30_000, 50_001, 110_000, bytes.len()] {
        let (mut socket, stream, received) = begin(&server, &scene, &bytes).await;
        assert_eq!(received, has);
        while has < end {
            let next = (has + 40_000).min(end);
            send(&mut socket, stream, &bytes, has, next).await;
            has = next;
        }
        server.kill();
        assert!(scene.read("a.bin").is_none());
        server = scene.restart().await;
    }
    let (mut socket, stream, received) = begin(&server, &scene, &bytes).await;
    assert_eq!(received, bytes.len());
    let commit = json!({ "stream": stream });
    socket.ask("2", "upload.commit", Some(scene.project.as_str()), commit).await;
    assert_eq!(socket.response("2").await["payload"]["file"]["version"], 1);
    assert_eq!(std::fs::read(scene.files().join("a.bin")).unwrap(), bytes);
    let versions = scene.versions("a.bin").await;
    assert_eq!((versions.len(), versions[0].source), (1, FileSource::Upload));
}

#[tokio::test]
async fn an_upload_that_is_cut_off_before_its_record_is_there_and_can_be_sent_again() {
    let (mut scene, server) = Scene::new(CrashPoint::FileWritten).await;
    let bytes = b"all of it";
    let (mut socket, stream, _) = begin(&server, &scene, bytes).await;
    send(&mut socket, stream, bytes, 0, bytes.len()).await;
    scene.arm();
    let project = scene.project.clone();
    socket.ask("2", "upload.commit", Some(project.as_str()), json!({ "stream": stream })).await;
    assert!(!server.exited().await.success());
    assert_eq!(scene.read("a.bin").as_deref(), Some("all of it"));
    let server = scene.restart().await;
    let (mut socket, stream, received) = begin(&server, &scene, bytes).await;
    assert_eq!(received, 0);
    send(&mut socket, stream, bytes, 0, bytes.len()).await;
    socket.ask("2", "upload.commit", Some(project.as_str()), json!({ "stream": stream })).await;
    assert_eq!(socket.response("2").await["success"], true);
    let last = scene.versions("a.bin").await.pop().unwrap();
    assert_eq!((last.source, last.kept), (FileSource::Upload, true));
    let staged = std::fs::read_dir(scene.files().join(".iris-tmp-uploads"));
    assert_eq!(staged.map_or(0, Iterator::count), 0);
}
