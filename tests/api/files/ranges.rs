//! Contents over REST: conditions, parts, and what becomes of a file while it is sent.

use iris_actors::FileSettings;
use iris_client::RestAnswer;
use iris_protocol::{ErrorCode, ProjectId};
use iris_testkit::{AppOptions, Person, patiently, spawn_app_with};

use super::browsing::{in_each_type, scene};
use super::slow::{LARGE_BYTES, stall};
use crate::{code_of, rest_refusal};

async fn send(
    ann: &Person,
    (method, project, query): (&str, &ProjectId, &str),
    headers: &[(&str, &str)],
    body: &'static str,
) -> RestAnswer {
    let route = format!("/v1/projects/{project}/files/content?{query}");
    ann.client.raw(method, &route, Some(ann.token()), headers, body.into()).await.unwrap()
}

#[tokio::test]
async fn a_part_of_a_file_or_of_a_version_is_read() {
    in_each_type(async |_app, ann, project| {
        ann.client.file_put(&project, "a.txt", "0123456789").await.unwrap();
        let etag =
            send(&ann, ("GET", &project, "path=a.txt"), &[], "").await.headers["etag"].clone();
        let etag = etag.to_str().unwrap();
        ann.client.file_put(&project, "b.txt", "0123456789").await.unwrap();
        ann.client.file_put(&project, "b.txt", "now").await.unwrap();
        for query in ["path=a.txt", "path=b.txt&version=1"] {
            let get = async |headers: &[(&str, &str)]| {
                send(&ann, ("GET", &project, query), headers, "").await
            };
            let whole = get(&[]).await;
            assert_eq!((whole.status, &whole.body[..]), (200, &b"0123456789"[..]));
            assert_eq!(whole.headers["accept-ranges"], "bytes");
            let part = get(&[("range", "bytes=3-5")]).await;
            assert_eq!((part.status, &part.body[..]), (206, &b"345"[..]));
            assert_eq!(part.headers["content-range"], "bytes 3-5/10");
            assert_eq!(part.headers["etag"], etag);
            assert_eq!(&get(&[("range", "bytes=8-")]).await.body[..], b"89");
            assert_eq!(&get(&[("range", "bytes=-2")]).await.body[..], b"89");
            let several = get(&[("range", "bytes=0-1,3-4")]).await;
            assert_eq!((several.status, several.body.len()), (200, 10));
            let beyond = get(&[("range", "bytes=10-")]).await;
            assert_eq!(
                (beyond.status, beyond.headers["content-range"].as_bytes()),
                (416, &b"bytes */10"[..])
            );
            assert_eq!(beyond.json["error"]["details"]["reason"], "range_not_satisfiable");
            let same = get(&[("range", "bytes=3-5"), ("if-range", etag)]).await;
            assert_eq!((same.status, &same.body[..]), (206, &b"345"[..]));
            for other in ["\"other\"", "Wed, 21 Oct 2015 07:28:00 GMT"] {
                let other = get(&[("range", "bytes=3-5"), ("if-range", other)]).await;
                assert_eq!((other.status, other.body.len()), (200, 10));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_content_that_is_known_is_not_sent_again_and_a_head_has_no_body() {
    let (_app, ann, project, files) = scene().await;
    ann.client.file_put(&project, "dir/grüße \"1\".html", "<p>").await.unwrap();
    let query = "path=dir/gr%C3%BC%C3%9Fe%20%221%22.html";
    let get =
        async |headers: &[(&str, &str)]| send(&ann, ("GET", &project, query), headers, "").await;
    let first = get(&[]).await;
    let etag = first.headers["etag"].to_str().unwrap();
    assert_eq!(first.headers["content-type"], "application/octet-stream");
    assert_eq!(first.headers["x-content-type-options"], "nosniff");
    let name = "attachment; filename*=UTF-8''gr%C3%BC%C3%9Fe%20%221%22.html";
    assert_eq!(first.headers["content-disposition"], name);
    let weak = format!("\"other\", W/{etag}");
    for known in [etag, &weak, "*"] {
        let known = get(&[("if-none-match", known)]).await;
        assert_eq!((known.status, known.body.len()), (304, 0));
        assert_eq!(known.headers["etag"], etag);
    }
    assert_eq!(get(&[("if-none-match", "\"other\"")]).await.status, 200);
    let refused = rest_refusal(&get(&[("if-match", "\"other\"")]).await);
    assert_eq!(code_of(&refused), (ErrorCode::VersionConflict, "version_conflict"));
    let malformed = rest_refusal(&get(&[("if-match", "other")]).await);
    assert_eq!(malformed.code, ErrorCode::InvalidRequest);

    let head = send(&ann, ("HEAD", &project, query), &[("range", "bytes=0-0")], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        (&head.headers["etag"], head.headers["content-length"].as_bytes()),
        (&first.headers["etag"], &b"3"[..])
    );
    assert_eq!(send(&ann, ("HEAD", &project, "path=none"), &[], "").await.status, 404);

    // Changed without Iris: what stands there now counts.
    std::fs::write(files.join("dir/grüße \"1\".html"), "else").unwrap();
    let changed = get(&[("if-none-match", etag)]).await;
    assert_eq!((changed.status, &changed.body[..]), (200, &b"else"[..]));
}

#[tokio::test]
async fn a_file_is_written_only_where_it_is_what_the_caller_knows() {
    in_each_type(async |_app, ann, project| {
        let put = async |headers: &[(&str, &str)], body: &'static str| {
            send(&ann, ("PUT", &project, "path=a.txt"), headers, body).await
        };
        let conflict = |answer: &RestAnswer| {
            let refused = rest_refusal(answer);
            assert_eq!(code_of(&refused), (ErrorCode::VersionConflict, "version_conflict"));
            (refused.details["currentVersion"].clone(), refused.details["currentHash"].clone())
        };
        assert_eq!(conflict(&put(&[("if-match", "*")], "x").await), (0.into(), "".into()));
        let first = put(&[("if-none-match", "*")], "one").await;
        let hash = first.json["data"]["hash"].clone();
        let etag = format!("\"{}\"", hash.as_str().unwrap());
        assert_eq!(
            conflict(&put(&[("if-none-match", "*")], "two").await),
            (1.into(), hash.clone())
        );
        let weak = format!("W/{etag}");
        for other in ["\"other\"", &weak] {
            assert_eq!(conflict(&put(&[("if-match", other)], "two").await).0, 1);
        }
        assert_eq!(conflict(&put(&[("if-none-match", &etag)], "two").await).0, 1);
        assert_eq!(ann.client.file_get(&project, "a.txt").await.unwrap(), "one");
        let key = [("if-match", &*etag), ("idempotency-key", "key")];
        assert_eq!(put(&key, "two").await.json["data"]["version"], 2);
        // A repeat is answered as the first one was, although the file is another one by now.
        let again = put(&key, "two").await;
        assert_eq!(
            (again.status, again.headers["idempotent-replay"].as_bytes()),
            (200, &b"true"[..])
        );
        let other =
            rest_refusal(&put(&[("if-match", "*"), ("idempotency-key", "key")], "two").await);
        assert_eq!(other.code, ErrorCode::IdempotencyConflict);
        let both = rest_refusal(&put(&[("if-match", "*"), ("if-none-match", "*")], "x").await);
        assert_eq!(both.code, ErrorCode::InvalidRequest);
    })
    .await;
}

/// What is sent is read through one handle: a file that takes the name meanwhile is another one.
#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_sent_is_sent_as_it_was() {
    in_each_type(async |app, ann, project| {
        let mut bytes = vec![0; LARGE_BYTES];
        fastrand::Rng::with_seed(7).fill(&mut bytes);
        ann.client.file_put(&project, "large", bytes.clone()).await.unwrap();
        let path = format!("/v1/projects/{project}/files/content?path=large");
        let mut sending = stall(&app, &ann, &path).await;
        ann.client.file_put(&project, "large", "another").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(&bytes) {
            let read = tokio::io::AsyncReadExt::read_buf(&mut sending, &mut answer);
            assert_ne!(patiently("the rest", read).await.unwrap(), 0);
        }
    })
    .await;
}

/// More than fits into a request that is held in memory.
#[tokio::test]
async fn a_file_is_sent_up_to_a_size() {
    let files = FileSettings { transfer_bytes_max: 20 * 1024 * 1024, ..FileSettings::default() };
    let app = spawn_app_with(AppOptions { files, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let files = app.data_dir().join("projects").join(project.as_str()).join("files");
    let sized = |bytes: u64| {
        let file = std::fs::File::create(files.join("large")).unwrap();
        file.set_len(bytes).unwrap();
    };
    sized(20 * 1024 * 1024);
    let bytes = ann.client.file_get(&project, "large").await.unwrap();
    assert_eq!(bytes.len(), 20 * 1024 * 1024);
    sized(20 * 1024 * 1024 + 1);
    let refused = send(&ann, ("GET", &project, "path=large"), &[("range", "bytes=0-0")], "").await;
    assert_eq!(rest_refusal(&refused).code, ErrorCode::PayloadTooLarge);
}
