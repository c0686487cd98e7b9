//! Files of a form: written part by part, each by itself, all or nothing of each.

use std::path::Path;

use iris_actors::FileSettings;
use iris_client::RestAnswer;
use iris_protocol::limits::{FILE_BYTES_MAX, UPLOAD_FILES_MAX};
use iris_protocol::{
    ErrorCode, Event, FileLockTake, FileSource, FileVersions, ProjectId, Role, RoomRequest,
    Subscribe,
};
use iris_store::project::Quotas;
use iris_testkit::{AppOptions, Person, TestApp, patiently, spawn_app, spawn_app_with};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::browsing::{TYPES, scene, scene_of};
use crate::{code_of, rest_refusal};

const BOUNDARY: &str = "7MA4YWxkTrZu0gW";
const STAGING: &str = ".iris-tmp-uploads";

/// One field of a form: what its header says, and its bytes.
fn field(disposition: &str, bytes: &[u8]) -> Vec<u8> {
    let head = format!("--{BOUNDARY}\r\ncontent-disposition: form-data; {disposition}\r\n\r\n");
    [head.as_bytes(), bytes, b"\r\n"].concat()
}

pub(super) fn file(path: &str, bytes: &[u8]) -> Vec<u8> {
    field(&format!("name=\"file\"; filename=\"{path}\""), bytes)
}

pub(super) fn form(fields: &[Vec<u8>]) -> Vec<u8> {
    [fields.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

pub(super) async fn send(
    person: &Person,
    project: &ProjectId,
    key: Option<&str>,
    form: Vec<u8>,
) -> RestAnswer {
    let path = format!("/v1/projects/{project}/uploads");
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    let mut headers = vec![("content-type", &*content_type)];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    let sent = person.client.raw("POST", &path, Some(person.token()), &headers, form.into());
    sent.await.unwrap()
}

/// The paths of an answer, and the version or the error code of each.
pub(super) fn told(answer: &RestAnswer) -> Vec<(&str, Value)> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let files = answer.json["data"].as_array().unwrap().iter();
    let told = files.map(|file| {
        let version = file["file"]["version"].clone();
        let outcome = if version.is_null() { file["error"]["code"].clone() } else { version };
        (file["path"].as_str().unwrap(), outcome)
    });
    told.collect()
}

fn is_clean(files: &Path) -> bool {
    std::fs::read_dir(files.join(STAGING)).is_ok_and(|mut staged| staged.next().is_none())
        || !files.join(STAGING).exists()
}

#[tokio::test]
async fn a_folder_of_files_is_written_and_each_is_one_version_of_an_upload() {
    for r#type in TYPES {
        let (_app, ann, project, files) = scene_of(r#type).await;
        ann.client.file_put(&project, "in/b.txt", "old").await.unwrap();
        let socket = ann.connect().await;
        let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
        let subscribe = Subscribe { rooms, deltas: None, presence: None };
        socket.call(Some(&project), subscribe).await.unwrap();
        // More than is held at a time, with what looks like the end of a part in it.
        let mut large = vec![7; 700_000];
        large.extend_from_slice(
            format!("\r\n--{BOUNDARX}\r\n", BOUNDARX = "7MA4YWxkTrZu0gX").as_bytes(),
        );
        let sent = form(&[
            file("top.bin", &large),
            field("name=\"directory\"", b"in"),
            file("deep/a.txt", b""),
            file("b.txt", b"new"),
            field("name=\"by/its name.txt\"; filename=\"x\"", "grüße".as_bytes()),
        ]);
        let answer = send(&ann, &project, None, sent).await;
        let expected =
            [("top.bin", 1), ("in/deep/a.txt", 1), ("in/b.txt", 2), ("in/by/its name.txt", 1)];
        assert_eq!(told(&answer), expected.map(|(path, version)| (path, Value::from(version))));
        assert_eq!(ann.client.file_get(&project, "top.bin").await.unwrap(), large);
        assert_eq!(ann.client.file_get(&project, "in/deep/a.txt").await.unwrap(), "");
        assert_eq!(ann.client.file_get(&project, "in/b.txt").await.unwrap(), "new");
        assert_eq!(ann.client.file_get(&project, "in/by/its name.txt").await.unwrap(), "grüße");
        let versions = FileVersions { path: "in/b.txt".to_owned(), limit: None, cursor: None };
        let versions = ann.client.call(Some(&project), versions).await.unwrap().versions;
        assert_eq!(
            (versions.len(), versions[0].source, versions[0].kept),
            (2, FileSource::Upload, true)
        );
        for path in ["top.bin", "in/deep/a.txt", "in/b.txt", "in/by/its name.txt"] {
            let event = patiently(path, socket.next_event()).await.unwrap().event;
            let (Event::FileCreated { path: told, source, .. }
            | Event::FileUpdated { path: told, source, .. }) = event
            else {
                panic!("another event: {event:?}")
            };
            assert_eq!((told.as_str(), source), (path, FileSource::Upload));
        }
        assert!(is_clean(&files));
    }
}

#[tokio::test]
async fn what_is_refused_of_one_file_leaves_it_and_the_others_are_written() {
    let quotas = Quotas { file_bytes_max: 300_000, ..Quotas::default() };
    let app = spawn_app_with(AppOptions { quotas, ..AppOptions::default() }).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let files = app.data_dir().join("projects").join(project.as_str()).join("files");
    for path in ["locked.txt", "dir/x"] {
        ann.client.file_put(&project, path, "old").await.unwrap();
    }
    let lock =
        FileLockTake { path: "locked.txt".to_owned(), scope: None, ttl_ms: None, take_over: None };
    ann.client.call(Some(&project), lock).await.unwrap();
    let sent = form(&[
        file("a.txt", b"a"),
        file("locked.txt", b"new"),
        file("dir", b"a directory is there"),
        file(".git/hooks/x", b"x"),
        file("large", &vec![1; 400_000]),
        // What was refused before takes no room.
        file("b.bin", &vec![1; 299_000]),
        file("c.bin", &vec![1; 299_000]),
        file("d.txt", b"d"),
    ]);
    let answer = send(&bob, &project, None, sent).await;
    let expected = [
        ("a.txt", Value::from(1)),
        ("locked.txt", "LOCKED".into()),
        ("dir", "INVALID_REQUEST".into()),
        (".git/hooks/x", "FORBIDDEN".into()),
        ("large", "QUOTA_EXCEEDED".into()),
        ("b.bin", 1.into()),
        ("c.bin", "QUOTA_EXCEEDED".into()),
        ("d.txt", 1.into()),
    ];
    assert_eq!(told(&answer), expected);
    assert_eq!(answer.json["data"][4]["error"]["details"]["reason"], "file_bytes_quota");
    assert_eq!(ann.client.file_get(&project, "locked.txt").await.unwrap(), "old");
    assert!(!files.join("large").exists() && !files.join(".git").exists());
    assert!(is_clean(&files), "{:?}", std::fs::read_dir(files.join(STAGING)));
}

/// Row H15: nothing of such a form is written.
#[tokio::test]
async fn h15_a_form_that_is_none_or_names_what_is_no_path_is_refused_whole() {
    for r#type in TYPES {
        let (_app, ann, project, files) = scene_of(r#type).await;
        let refused = async |form: Vec<u8>| rest_refusal(&send(&ann, &project, None, form).await);
        let reason = async |form: Vec<u8>| code_of(&refused(form).await).1.to_owned();
        let good = file("good.txt", b"good");
        for path in
            ["../x", "/etc/passwd", "a/../../x", "", ".", &"n".repeat(256), &"d/".repeat(65)]
        {
            assert_eq!(
                reason(form(&[good.clone(), file(path, b"x")])).await,
                "invalid_path",
                "{path}"
            );
        }
        assert_eq!(reason(form(&[good.clone(), file("./good.txt", b"x")])).await, "duplicate_path");
        let many: Vec<_> = (0..=UPLOAD_FILES_MAX).map(|n| file(&format!("{n}"), b"")).collect();
        assert_eq!(reason(form(&many)).await, "too_many_files");
        assert_eq!(reason(form(&[])).await, "no_files");
        assert_eq!(
            reason(form(&[good.clone(), field("name=\"other\"", b"x")])).await,
            "unknown_field"
        );
        assert_eq!(reason(good.clone()).await, "invalid_form");
        assert_eq!(reason(b"nothing".to_vec()).await, "invalid_form");
        assert_eq!(
            reason(form(&[good.clone(), field("filename=\"x\"", b"x")])).await,
            "invalid_form"
        );
        let long = field("name=\"directory\"", &[b'a'; 5_000]);
        assert_eq!(refused(form(&[good.clone(), long])).await.code, ErrorCode::PayloadTooLarge);
        let path = format!("/v1/projects/{project}/uploads");
        for content_type in ["application/json", "multipart/form-data"] {
            let headers = [("content-type", content_type)];
            let sent = ann.client.raw(
                "POST",
                &path,
                Some(ann.token()),
                &headers,
                form(std::slice::from_ref(&good)).into(),
            );
            assert!((400..=415).contains(&sent.await.unwrap().status));
        }
        let packed =
            [("content-type", "multipart/form-data; boundary=x"), ("content-encoding", "gzip")];
        let sent =
            ann.client.raw("POST", &path, Some(ann.token()), &packed, "x".into()).await.unwrap();
        assert_eq!(rest_refusal(&sent).code, ErrorCode::UnsupportedMediaType);
        assert!(!files.join("good.txt").exists());
        patiently("that nothing is left", async {
            while !is_clean(&files) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn an_upload_has_a_largest_size_and_may_be_larger_than_what_is_kept_of_a_version() {
    let files = FileSettings { transfer_bytes_max: 20 * 1024 * 1024, ..FileSettings::default() };
    let app = spawn_app_with(AppOptions { files, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let large = vec![9; FILE_BYTES_MAX + 1];
    let answer = send(&ann, &project, None, form(&[file("large", &large)])).await;
    assert_eq!(told(&answer), [("large", Value::from(1))]);
    let read = ann.get(&format!("/v1/projects/{project}/files/content?path=large")).await;
    assert_eq!(read.headers["x-iris-file-version"], "1");
    assert_eq!(read.body.len(), large.len());
    // Nobody takes it for a change from outside.
    let snapshot = iris_protocol::SnapshotCreate {};
    ann.client.call(Some(&project), snapshot).await.unwrap();
    let versions = FileVersions { path: "large".to_owned(), limit: None, cursor: None };
    let versions = ann.client.call(Some(&project), versions).await.unwrap().versions;
    assert_eq!(
        (versions.len(), versions[0].kept, versions[0].size),
        (1, false, large.len() as u64)
    );
    assert_eq!(answer.json["data"][0]["file"]["hash"], versions[0].hash);
    let half = vec![9; 11 * 1024 * 1024];
    let refused = send(&ann, &project, None, form(&[file("a", &half), file("b", &half)])).await;
    assert_eq!(rest_refusal(&refused).code, ErrorCode::PayloadTooLarge);
    assert_eq!(ann.get(&format!("/v1/projects/{project}/files/content?path=a")).await.status, 404);
}

#[tokio::test]
async fn a_repeat_with_a_key_writes_only_what_was_refused_before() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    ann.client.file_put(&project, "b.txt", "old").await.unwrap();
    let lock =
        FileLockTake { path: "b.txt".to_owned(), scope: None, ttl_ms: None, take_over: None };
    ann.client.call(Some(&project), lock).await.unwrap();
    let sent = || form(&[file("a.txt", b"a"), file("b.txt", b"b")]);
    let first = send(&bob, &project, Some("key"), sent()).await;
    assert_eq!(told(&first), [("a.txt", Value::from(1)), ("b.txt", "LOCKED".into())]);
    let unlock = iris_protocol::FileUnlock { path: "b.txt".to_owned() };
    ann.client.call(Some(&project), unlock).await.unwrap();
    ann.client.file_put(&project, "a.txt", "later").await.unwrap();
    let second = send(&bob, &project, Some("key"), sent()).await;
    assert_eq!(told(&second), [("a.txt", Value::from(1)), ("b.txt", Value::from(2))]);
    assert!(!second.headers.contains_key("idempotent-replay"));
    let third = send(&bob, &project, Some("key"), sent()).await;
    assert_eq!(
        (third.json, &third.headers["idempotent-replay"]),
        (second.json, &"true".parse().unwrap())
    );
    assert_eq!(ann.client.file_get(&project, "a.txt").await.unwrap(), "later");
    let other = send(&bob, &project, Some("key"), form(&[file("a.txt", b"other")])).await;
    assert_eq!(told(&other), [("a.txt", "IDEMPOTENCY_CONFLICT".into())]);
    assert_eq!(ann.client.file_get(&project, "a.txt").await.unwrap(), "later");
}

/// Sends the beginning of a form that has more to come.
async fn begin(app: &TestApp, ann: &Person, project: &ProjectId, bytes: &[u8]) -> TcpStream {
    let host = app.url.strip_prefix("http://").unwrap();
    let mut raw = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /v1/projects/{project}/uploads HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n\
         content-type: multipart/form-data; boundary={BOUNDARY}\r\ncontent-length: 9000000\r\n\r\n",
        ann.token()
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    raw.write_all(bytes).await.unwrap();
    raw
}

/// What a user has on the way in forms has a limit: each of these files is open.
#[tokio::test]
async fn forms_that_are_on_their_way_have_a_number_of_files_for_a_user() {
    let (app, ann, project, files) = scene().await;
    let mut forms = Vec::new();
    for nth in 0..2 {
        let many = (0..UPLOAD_FILES_MAX).map(|n| file(&format!("{nth}/{n}"), b"x"));
        let many: Vec<u8> = many.collect::<Vec<_>>().concat();
        forms.push(begin(&app, &ann, &project, &many).await);
    }
    patiently("all files", async {
        let is_there = || std::fs::read_dir(files.join(STAGING)).map_or(0, Iterator::count);
        while is_there() < 2 * UPLOAD_FILES_MAX {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answer = send(&ann, &project, None, form(&[file("more", b"x")])).await;
    assert_eq!(told(&answer), [("more", "OVERLOADED".into())]);
    drop(forms);
    patiently("that nothing is left", async {
        while !is_clean(&files) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answer = send(&ann, &project, None, form(&[file("more", b"x")])).await;
    assert_eq!(told(&answer), [("more", Value::from(1))]);
}

async fn staged(files: &Path) -> u64 {
    patiently("a file that is being received", async {
        loop {
            let staged = std::fs::read_dir(files.join(STAGING)).into_iter().flatten();
            let bytes = staged.filter_map(|file| file.ok()?.metadata().ok()).map(|it| it.len());
            match bytes.sum() {
                0 => tokio::task::yield_now().await,
                bytes => return bytes,
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_file_of_a_form_is_not_put_below_another_one() {
    for r#type in TYPES {
        let (_app, ann, project, _) = scene_of(r#type).await;
        let answer = send(&ann, &project, None, form(&[file("a", b"x"), file("a/b", b"y")])).await;
        let told = told(&answer);
        assert_eq!(told[0], ("a", Value::from(1)), "{told:?}");
        assert!(told[1].1.is_string(), "{told:?}");
        assert!(ann.client.file_get(&project, "a/b").await.is_err());
        assert_eq!(ann.client.file_get(&project, "a").await.unwrap(), "x");
    }
}

/// Row H16, and what a stop of the server in the middle leaves.
#[tokio::test]
async fn h16_an_upload_that_is_cut_leaves_nothing_also_over_a_restart() {
    for r#type in TYPES {
        let (app, ann, project, files) = scene_of(r#type).await;
        let beginning =
            [file("whole.txt", b"whole"), file("cut.bin", &vec![1; 2_000_000])].concat();
        let raw = begin(&app, &ann, &project, &beginning).await;
        assert!(staged(&files).await > 0);
        let listed = ann.get(&format!("/v1/projects/{project}/files")).await;
        assert_eq!(listed.json["data"], serde_json::json!([]));
        drop(raw);
        patiently("that nothing is left", async {
            while !is_clean(&files) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(!files.join("whole.txt").exists() && !files.join("cut.bin").exists());

        std::fs::create_dir_all(files.join(STAGING)).unwrap();
        std::fs::write(files.join(STAGING).join("left over"), "x").unwrap();
        let app = app.restart().await;
        assert!(app.again(&ann).get(&format!("/v1/projects/{project}/files")).await.is_success());
        assert!(!files.join(STAGING).exists());
    }
}

/// Whoever loses the right while a form comes writes nothing any more.
#[tokio::test]
async fn a_member_who_is_taken_out_meanwhile_writes_nothing() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let files = app.data_dir().join("projects").join(project.as_str()).join("files");
    let mut raw = begin(&app, &bob, &project, &file("a.bin", &vec![1; 1_000_000])).await;
    assert!(staged(&files).await > 0);
    let member = format!("/v1/projects/{project}/members/{}", bob.id());
    assert!(ann.rest("DELETE", &member, None).await.is_success());
    let rest = form(&[field("name=\"directory\"", &[])]);
    // As long as it said.
    raw.write_all(&rest).await.unwrap();
    let mut answer = [0; 12];
    let read = tokio::io::AsyncReadExt::read_exact(&mut raw, &mut answer);
    patiently("the answer", read).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
    assert!(!files.join("a.bin").exists());
}
