//! File contents, and paths that lead where nobody may go.

mod browsing;
mod commands;
mod history;
mod hostile;
mod in_database;
mod locks;
mod model;
mod ranges;
mod reverting;
mod slow;
mod snapshots;
mod streams;
mod uploads;
mod watching;

use iris_protocol::{
    ErrorCode, File, FileRead, FileWrite,
    limits::{FILE_BYTES_MAX, FRAME_BYTES_MAX},
};
use iris_testkit::{calls_of, spawn_app, text_of};

use crate::{code_of, refusal, rest_refusal};
use browsing::in_each_type;

#[tokio::test]
async fn a_file_is_written_and_read_as_bytes_and_as_text() {
    in_each_type(async |_app, ann, project| {
        let bytes = vec![0, 159, 146, 150];
        let file = ann.client.file_put(&project, "dir/raw.bin", bytes.clone()).await.unwrap();
        assert_eq!((file.size, file.version, file.updated_by.as_ref()), (4, 1, Some(ann.id())));
        assert_eq!(ann.client.file_get(&project, "dir/raw.bin").await.unwrap(), bytes);

        let (path, content) = ("notes.txt".to_owned(), "grüße\n".to_owned());
        let write =
            FileWrite { path: path.clone(), content: content.clone(), ..FileWrite::default() };
        ann.client.call(Some(&project), write.clone()).await.unwrap();
        let second = ann.client.call(Some(&project), write).await.unwrap().file;
        assert_eq!(second.version, 2);
        let read = ann
            .client
            .call(Some(&project), FileRead { path, ..FileRead::default() })
            .await
            .unwrap();
        let second = File { mime_type: Some("text/plain".to_owned()), ..second };
        assert_eq!((read.content, &read.file), (content, &second));
        let raw = ann.get(&format!("/v1/projects/{project}/files/content?path=notes.txt")).await;
        assert_eq!(raw.headers["etag"], format!("\"{}\"", second.hash));
        assert_eq!(raw.headers["x-content-type-options"], "nosniff");

        let missing = ann.client.file_get(&project, "none.txt").await;
        assert_eq!(refusal(missing).code, ErrorCode::NotFound);
        let nameless = ann.get(&format!("/v1/projects/{project}/files/content")).await;
        assert_eq!(rest_refusal(&nameless).code, ErrorCode::InvalidRequest);
    })
    .await;
}

#[tokio::test]
async fn a_write_is_told_to_the_project() {
    in_each_type(async |_app, ann, project| {
        let socket = ann.connect().await;
        let rooms = vec![iris_protocol::RoomRequest::Live(format!("project:{project}"))];
        let subscribe = iris_protocol::Subscribe { rooms, deltas: None, presence: None };
        socket.call(Some(&project), subscribe).await.unwrap();
        for name in ["file.created", "file.updated"] {
            ann.client.file_put(&project, "a.txt", name).await.unwrap();
            let told = iris_testkit::patiently(name, socket.next_event()).await.unwrap();
            assert_eq!(told.event.name(), name);
        }
    })
    .await;
}

#[tokio::test]
async fn a_path_that_leads_out_of_the_project_is_refused() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let files = app.data_dir().join("projects").join(project.as_str()).join("files");
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    std::os::unix::fs::symlink(outside.path(), files.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret.txt"), files.join("file")).unwrap();

    for path in [
        "../x",
        "/etc/passwd",
        "a/../../x",
        "",
        ".",
        "..",
        "a\0b",
        "link/secret.txt",
        "file",
        "link/new",
    ] {
        let read = refusal(ann.client.file_get(&project, path).await);
        let allowed = [ErrorCode::InvalidRequest, ErrorCode::Forbidden, ErrorCode::NotFound];
        assert!(allowed.contains(&read.code), "{path}: {read}");
        let write = refusal(ann.client.file_put(&project, path, "x").await);
        assert!(
            [ErrorCode::InvalidRequest, ErrorCode::Forbidden].contains(&write.code),
            "{path}: {write}"
        );
        let write =
            FileWrite { path: path.to_owned(), content: "x".to_owned(), ..FileWrite::default() };
        assert!(ann.client.call(Some(&project), write).await.is_err(), "{path}");
    }
    let escape = refusal(ann.client.file_get(&project, "link/secret.txt").await);
    assert_eq!(code_of(&escape), (ErrorCode::Forbidden, "path_escape"));
    let invalid = refusal(ann.client.file_get(&project, "../x").await);
    assert_eq!(code_of(&invalid), (ErrorCode::InvalidRequest, "invalid_path"));
    assert_eq!(std::fs::read_to_string(outside.path().join("secret.txt")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_tool_is_told_that_a_path_leads_out_and_the_run_goes_on() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let files = app.data_dir().join("projects").join(ann.project.as_str()).join("files");
    std::os::unix::fs::symlink("/etc", files.join("link")).unwrap();
    for path in ["../x", "/etc/passwd", "link/passwd"] {
        let script = format!("call read {{\"path\": \"{path}\"}}\nstep\nsay went on");
        let answer = ann.ask(&script).await;
        let calls = calls_of(&answer);
        assert!(calls[0].error.as_ref().unwrap().contains(path), "{:?}", calls[0]);
        assert_eq!(text_of(&answer), "went on");
    }
}

#[tokio::test]
async fn a_file_has_a_largest_size() {
    in_each_type(async |_app, ann, project| {
        let large = vec![0; FILE_BYTES_MAX + 1];
        let refused = refusal(ann.client.file_put(&project, "large", large).await);
        assert_eq!(refused.code, ErrorCode::PayloadTooLarge);
        assert_eq!(refusal(ann.client.file_get(&project, "large").await).code, ErrorCode::NotFound);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_write_does_not_undo_a_later_one() {
    in_each_type(async |_app, ann, project| {
        let put = async |content: &'static str, headers: &[(&str, &str)]| {
            let path = format!("/v1/projects/{project}/files/content?path=a.txt");
            let sent = ann.client.raw("PUT", &path, Some(ann.token()), headers, content.into());
            sent.await.unwrap()
        };
        let key = [("idempotency-key", "key-1")];
        let first = put("one", &key).await;
        put("two", &[]).await;
        let again = put("one", &key).await;
        assert_eq!(again.json, first.json);
        assert_eq!(again.headers["idempotent-replay"], "true");
        assert_eq!(ann.client.file_get(&project, "a.txt").await.unwrap(), "two");
        let other = rest_refusal(&put("three", &key).await);
        assert_eq!(other.code, ErrorCode::IdempotencyConflict);
        assert_eq!(ann.client.file_get(&project, "a.txt").await.unwrap(), "two");
    })
    .await;
}

#[tokio::test]
async fn a_file_that_fits_in_no_frame_is_read_over_rest() {
    in_each_type(async |_app, ann, project| {
        let path = "a.txt".to_owned();
        let bytes = vec![b'x'; FRAME_BYTES_MAX + 1];
        ann.client.file_put(&project, &path, bytes.clone()).await.unwrap();
        let read = FileRead { path: path.clone(), ..FileRead::default() };
        let socket = ann.connect().await;
        let over_socket = refusal(socket.call(Some(&project), read.clone()).await);
        let over_commands = refusal(ann.client.call(Some(&project), read.clone()).await);
        assert_eq!([over_socket.code, over_commands.code], [ErrorCode::PayloadTooLarge; 2]);
        assert_eq!(ann.client.file_get(&project, &path).await.unwrap(), bytes);
        ann.client.file_put(&project, &path, bytes[1..].to_vec()).await.unwrap();
        let fits = ann.client.call(Some(&project), read).await.unwrap();
        assert_eq!(fits.content.len(), FRAME_BYTES_MAX);
    })
    .await;
}
