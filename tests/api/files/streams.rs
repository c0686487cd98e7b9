//! Files over a socket: chunks with credit and checksums, what goes on after a cut, and what ends a stream.

use std::path::Path;

use bytes::Bytes;
use iris_actors::FileSettings;
use iris_protocol::limits::{
    CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNKS_UNACKNOWLEDGED_MAX, STREAMS_PER_CONNECTION_MAX,
    UPLOADS_PER_USER_MAX,
};
use iris_protocol::{Chunk, ChunkKind, ProjectId, Role};
use iris_store::project::Quotas;
use iris_testkit::{AppOptions, Incoming, Person, TestApp, WireSocket, spawn_app, spawn_app_with};
use iris_workspace::content_hash;
use serde_json::{Value, json};

use super::browsing::{TYPES, scene, scene_of};

/// A socket whose chunks the test sends and takes.
pub(super) struct Talk {
    socket: WireSocket,
    project: ProjectId,
    asked: u32,
}

impl Talk {
    pub(super) async fn new(app: &TestApp, person: &Person, project: &ProjectId) -> Self {
        let socket = WireSocket::open(&app.url, Some(person.token())).await.unwrap();
        let mut talk = Self { socket, project: project.clone(), asked: 0 };
        assert_eq!(talk.socket.next_json().await["type"], "connected");
        talk
    }

    /// The answer to a request; chunks before it are an error.
    pub(super) async fn ask(&mut self, operation: &str, payload: Value) -> Value {
        self.asked += 1;
        let id = self.asked.to_string();
        self.socket.ask(&id, operation, Some(self.project.as_str()), payload).await;
        self.socket.response(&id).await
    }

    /// Begins an upload: its stream, and how much is there.
    async fn begin(&mut self, path: &str, bytes: &[u8], version: Option<u64>) -> (u32, usize) {
        let answer = self.ask("upload.begin", upload(path, bytes, version)).await;
        let payload = &answer["payload"];
        let stream = payload["stream"].as_u64().unwrap_or_else(|| panic!("{answer}"));
        (stream.try_into().unwrap(), payload["received"].as_u64().unwrap().try_into().unwrap())
    }

    async fn up(&mut self, stream: u32, offset: usize, bytes: &[u8]) {
        let offset = offset.try_into().unwrap();
        let chunk = Chunk { kind: ChunkKind::Up, is_last: false, stream, offset, bytes };
        self.socket.say_bytes(chunk.encode()).await;
    }

    async fn binary(&mut self) -> Bytes {
        match self.socket.next().await {
            Incoming::Binary(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    /// How far the next acknowledgement says that a stream is.
    async fn acknowledged(&mut self, stream: u32) -> usize {
        loop {
            let frame = self.binary().await;
            let ack = Chunk::decode(&frame).unwrap();
            // What was taken of a stream before it ended may be said after that.
            if ack.stream < stream {
                continue;
            }
            assert_eq!((ack.kind, ack.stream), (ChunkKind::Ack, stream));
            return ack.offset.try_into().unwrap();
        }
    }

    /// Sends what is left of a file, as its credit allows, up to `end`.
    async fn send(&mut self, stream: u32, bytes: &[u8], from: usize, end: usize) {
        let (mut sent, mut has) = (from, from);
        let mut waiting = std::collections::VecDeque::new();
        while has < end {
            while sent < end && waiting.len() < CHUNKS_UNACKNOWLEDGED_MAX {
                let next = (sent + CHUNK_BYTES_MAX).min(end);
                self.up(stream, sent, &bytes[sent..next]).await;
                sent = next;
                waiting.push_back(next);
            }
            has = self.acknowledged(stream).await;
            waiting.retain(|end| *end > has);
        }
    }

    async fn commit(&mut self, stream: u32) -> Value {
        self.ask("upload.commit", json!({ "stream": stream })).await
    }

    /// Why a stream ended by itself.
    async fn failed(&mut self, stream: u32) -> Value {
        let frame = self.socket.next_json().await;
        assert_eq!(
            (&frame["type"], &frame["payload"]["stream"]),
            (&"transfer.failed".into(), &stream.into())
        );
        frame["payload"]["error"].clone()
    }
}

fn upload(path: &str, bytes: &[u8], version: Option<u64>) -> Value {
    let mut upload = json!({ "path": path, "size": bytes.len(), "sha256": content_hash(bytes) });
    if let Some(version) = version {
        upload["version"] = version.into();
    }
    upload
}

fn reason(answer: &Value) -> (&str, &str) {
    let error = answer.get("error").unwrap_or(answer);
    (error["code"].as_str().unwrap(), error["details"]["reason"].as_str().unwrap_or_default())
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(3).fill(&mut bytes);
    bytes
}

fn staged(files: &Path) -> usize {
    std::fs::read_dir(files.join(".iris-tmp-uploads")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_file_is_sent_in_chunks_and_goes_on_after_a_cut_and_a_restart() {
    for r#type in TYPES {
        let (app, ann, project, files) = scene_of(r#type).await;
        let bytes = random(10 * CHUNK_BYTES_MAX + 7);
        let mut talk = Talk::new(&app, &ann, &project).await;
        let (stream, received) = talk.begin("dir/large", &bytes, Some(0)).await;
        assert_eq!(received, 0);
        talk.send(stream, &bytes, 0, 5 * CHUNK_BYTES_MAX).await;
        assert!(!files.join("dir").exists());
        let incomplete = talk.commit(stream).await;
        assert_eq!(reason(&incomplete), ("INVALID_REQUEST", "upload_incomplete"));
        assert_eq!(incomplete["error"]["details"]["received"], 5 * CHUNK_BYTES_MAX);
        drop(talk);

        let mut talk = Talk::new(&app, &ann, &project).await;
        let (stream, received) = talk.begin("dir/large", &bytes, Some(0)).await;
        assert_eq!(received, 5 * CHUNK_BYTES_MAX);
        talk.send(stream, &bytes, received, 7 * CHUNK_BYTES_MAX).await;
        drop(talk);

        let app = app.restart().await;
        let ann = app.again(&ann);
        let mut talk = Talk::new(&app, &ann, &project).await;
        let (stream, received) = talk.begin("dir/large", &bytes, Some(0)).await;
        assert_eq!(received, 7 * CHUNK_BYTES_MAX);
        talk.send(stream, &bytes, received, bytes.len()).await;
        let done = talk.commit(stream).await;
        assert_eq!(done["payload"]["file"]["version"], 1, "{done}");
        assert_eq!(done["payload"]["file"]["hash"], content_hash(&bytes));
        assert!(done["seq"].as_u64().is_some());
        assert_eq!(ann.client.file_get(&project, "dir/large").await.unwrap(), bytes);
        assert_eq!(staged(&files), 0);
        assert_eq!(reason(&talk.commit(stream).await).0, "NOT_FOUND");
        // It is a new file of the same content, not the one before.
        let (stream, received) = talk.begin("dir/large", &bytes, None).await;
        assert_eq!(received, 0);
        assert_eq!(talk.ask("upload.cancel", json!({ "stream": stream })).await["success"], true);
        assert_eq!(staged(&files), 0);
    }
}

#[tokio::test]
async fn an_empty_file_has_no_chunks_and_a_conflict_ends_the_upload() {
    for r#type in TYPES {
        let (app, ann, project, files) = scene_of(r#type).await;
        let mut talk = Talk::new(&app, &ann, &project).await;
        let (stream, received) = talk.begin("empty", b"", None).await;
        assert_eq!(received, 0);
        assert_eq!(talk.commit(stream).await["payload"]["file"]["size"], 0);

        let (stream, _) = talk.begin("a.txt", b"mine", Some(0)).await;
        talk.send(stream, b"mine", 0, 4).await;
        ann.client.file_put(&project, "a.txt", "theirs").await.unwrap();
        assert_eq!(reason(&talk.commit(stream).await), ("VERSION_CONFLICT", "version_conflict"));
        assert_eq!(ann.client.file_get(&project, "a.txt").await.unwrap(), "theirs");
        let refused = talk.ask("upload.begin", upload("a.txt", b"mine", Some(0))).await;
        assert_eq!(reason(&refused).0, "VERSION_CONFLICT");
        assert_eq!(staged(&files), 0);
        // Another content than was said is none.
        let (stream, _) = talk.begin("b.txt", b"good", None).await;
        talk.send(stream, b"evil", 0, 4).await;
        assert_eq!(reason(&talk.commit(stream).await), ("INVALID_REQUEST", "hash_mismatch"));
        assert_eq!(talk.begin("b.txt", b"good", None).await.1, 0);
    }
}

#[tokio::test]
async fn an_upload_that_may_not_be_is_refused_before_it_is_sent() {
    let files = FileSettings { transfer_bytes_max: 1_000, ..FileSettings::default() };
    let app = spawn_app_with(AppOptions { files, ..AppOptions::default() }).await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    ann.client.file_put(&project, "dir/locked", "x").await.unwrap();
    let lock = iris_protocol::FileLockTake {
        path: "dir/locked".to_owned(),
        scope: None,
        ttl_ms: None,
        take_over: None,
    };
    ann.client.call(Some(&project), lock).await.unwrap();
    let mut talk = Talk::new(&app, &bob, &project).await;
    for (path, bytes, expected) in [
        ("../x", &b"x"[..], ("INVALID_REQUEST", "invalid_path")),
        (".git/config", b"x", ("FORBIDDEN", "protected_path")),
        ("dir", b"x", ("INVALID_REQUEST", "not_regular_file")),
        ("dir/locked", b"x", ("LOCKED", "")),
        ("a", &[0; 1_001], ("PAYLOAD_TOO_LARGE", "")),
    ] {
        let refused = talk.ask("upload.begin", upload(path, bytes, None)).await;
        let (code, reason) = reason(&refused);
        assert_eq!(code, expected.0, "{path}");
        assert!(expected.1.is_empty() || reason == expected.1, "{path}: {reason}");
    }
    let short = json!({ "path": "a", "size": 1, "sha256": "ab" });
    assert_eq!(reason(&talk.ask("upload.begin", short).await), ("INVALID_REQUEST", "invalid_hash"));
}

/// However many begin the same upload at once, one of them writes into it.
#[tokio::test]
async fn an_upload_that_is_begun_twice_at_once_has_one_writer() {
    let (app, ann, project, files) = scene().await;
    let bytes = random(3 * CHUNK_BYTES_MAX);
    let mut talks = Vec::new();
    for _ in 0..6 {
        talks.push(Talk::new(&app, &ann, &project).await);
    }
    let begun = talks.into_iter().map(async |mut talk| {
        let (stream, received) = talk.begin("a", &bytes, None).await;
        assert_eq!(received, 0);
        (talk, stream)
    });
    let mut writers = Vec::new();
    for (mut talk, stream) in futures_util::future::join_all(begun).await {
        talk.up(stream, 0, &bytes[..CHUNK_BYTES_MAX]).await;
        let has_failed = match talk.socket.next().await {
            Incoming::Binary(ack) => {
                let expected = Chunk::ack(stream, CHUNK_BYTES_MAX as u64);
                assert_eq!(Chunk::decode(&ack).unwrap(), expected);
                false
            }
            Incoming::Json(frame) => frame["type"] == "transfer.failed",
            other => panic!("{other:?}"),
        };
        if !has_failed {
            writers.push((talk, stream));
        }
    }
    assert_eq!((writers.len(), staged(&files)), (1, 1));
    let (mut talk, stream) = writers.pop().unwrap();
    talk.send(stream, &bytes, CHUNK_BYTES_MAX, bytes.len()).await;
    assert_eq!(talk.commit(stream).await["success"], true);
    assert_eq!(ann.client.file_get(&project, "a").await.unwrap(), bytes);
    assert_eq!(staged(&files), 0);
}

#[tokio::test]
async fn another_upload_to_the_same_path_takes_the_place_of_the_one_before() {
    let quotas = Quotas { file_bytes_max: 1_000, ..Quotas::default() };
    let app = spawn_app_with(AppOptions { quotas, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let files = app.data_dir().join("projects").join(project.as_str()).join("files");
    let mut talk = Talk::new(&app, &ann, &project).await;
    let (first, _) = talk.begin("a", &[1; 600], None).await;
    let (second, _) = talk.begin("a", &[2; 700], None).await;
    assert_eq!(staged(&files), 1);
    talk.up(first, 0, &[1; 600]).await;
    assert_eq!(reason(&talk.failed(first).await), ("CONFLICT", "upload_given_up"));
    talk.send(second, &[2; 700], 0, 700).await;
    assert_eq!(talk.commit(second).await["success"], true);
    assert_eq!(ann.client.file_get(&project, "a").await.unwrap(), vec![2; 700]);
}

/// What is being received counts before it is there.
#[tokio::test]
async fn uploads_together_have_the_room_of_the_project() {
    let quotas = Quotas { file_bytes_max: 1_000, ..Quotas::default() };
    let app = spawn_app_with(AppOptions { quotas, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let mut talk = Talk::new(&app, &ann, &project).await;
    let (first, _) = talk.begin("a", &[1; 600], None).await;
    let refused = talk.ask("upload.begin", upload("b", &[2; 600], None)).await;
    assert_eq!(reason(&refused), ("QUOTA_EXCEEDED", "file_bytes_quota"));
    talk.begin("b", &[2; 400], None).await;
    assert_eq!(talk.ask("upload.cancel", json!({ "stream": first })).await["success"], true);
    talk.begin("a", &[3; 600], None).await;
}

#[tokio::test]
async fn a_chunk_that_is_wrong_ends_its_stream_and_a_frame_that_is_none_does_not() {
    let (app, ann, project, _) = scene().await;
    let bytes = random(6 * CHUNK_BYTES_MAX);
    let mut talk = Talk::new(&app, &ann, &project).await;
    let chunk = |stream: u32, offset: u64, is_last: bool| {
        let bytes = &bytes[..CHUNK_BYTES_MAX];
        Chunk { kind: ChunkKind::Up, is_last, stream, offset, bytes }.encode()
    };
    let mut damaged = None;
    for (offset, is_last, damages, expected) in [
        (1, false, false, ("INVALID_REQUEST", "chunk_offset")),
        (0, true, false, ("INVALID_REQUEST", "chunk_flags")),
        (0, false, true, ("INVALID_REQUEST", "chunk_checksum")),
    ] {
        let (stream, received) = talk.begin("a", &bytes, None).await;
        assert_eq!(received, 0);
        let mut frame = chunk(stream, offset, is_last);
        if damages {
            *frame.last_mut().unwrap() ^= 1;
        }
        talk.socket.say_bytes(frame).await;
        assert_eq!(reason(&talk.failed(stream).await), expected);
        // What was on its way then is dropped.
        talk.socket.say_bytes(chunk(stream, 0, false)).await;
        damaged = Some(stream);
    }
    let ended = damaged.unwrap();
    let beyond = json!({ "stream": ended });
    assert_eq!(reason(&talk.ask("upload.commit", beyond).await).0, "NOT_FOUND");

    let good = chunk(99, 0, false);
    let with = |index: usize, byte: u8| {
        let mut frame = good.clone();
        frame[index] = byte;
        frame
    };
    // But for the last one.
    let (stream, _) = talk.begin("short", &bytes[..=CHUNK_BYTES_MIN], None).await;
    talk.send(stream, &bytes[..=CHUNK_BYTES_MIN], 0, CHUNK_BYTES_MIN).await;
    talk.up(stream, CHUNK_BYTES_MIN, &bytes[CHUNK_BYTES_MIN..=CHUNK_BYTES_MIN]).await;
    assert_eq!(talk.acknowledged(stream).await, CHUNK_BYTES_MIN + 1);
    let (stream, _) = talk.begin("short", &bytes, None).await;
    talk.up(stream, 0, &bytes[..CHUNK_BYTES_MIN - 1]).await;
    assert_eq!(reason(&talk.failed(stream).await), ("INVALID_REQUEST", "chunk_length"));

    for (frame, expected) in [
        (good.clone(), "unknown_stream"),
        (with(0, 0), "chunk_magic"),
        (with(1, 9), "chunk_version"),
        (with(2, 9), "chunk_kind"),
        (with(2, 2), "chunk_kind"),
        (with(3, 2), "chunk_flags"),
        (good[..30].to_vec(), "chunk_length"),
        (b"I".to_vec(), "chunk_version"),
    ] {
        talk.socket.say_bytes(frame).await;
        let answer = talk.socket.next_json().await;
        assert_eq!(answer["type"], "response");
        assert_eq!(reason(&answer), ("INVALID_REQUEST", expected));
    }
    // The connection goes on, until there are too many.
    let (stream, _) = talk.begin("a", &bytes, None).await;
    talk.send(stream, &bytes, 0, bytes.len()).await;
    assert_eq!(talk.commit(stream).await["success"], true);
    for _ in 0..20 {
        talk.socket.say_bytes(vec![0]).await;
    }
    assert_eq!(talk.socket.close_code().await, 1008);
}

/// Reads nothing until all is sent: so the server cannot be faster than the credit is used up.
#[tokio::test]
async fn more_than_the_credit_ends_the_stream_and_what_was_taken_stays() {
    let (app, ann, project, _) = scene().await;
    let bytes = random(64 * CHUNK_BYTES_MAX);
    let mut talk = Talk::new(&app, &ann, &project).await;
    let (stream, _) = talk.begin("a", &bytes, None).await;
    for (nth, chunk) in bytes.chunks(CHUNK_BYTES_MAX).enumerate() {
        talk.up(stream, nth * CHUNK_BYTES_MAX, chunk).await;
    }
    let error = loop {
        match talk.socket.next().await {
            Incoming::Binary(_) => {}
            Incoming::Json(frame) => break frame["payload"]["error"].clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason(&error), ("RATE_LIMITED", "over_credit"));
    let (stream, received) = talk.begin("a", &bytes, None).await;
    assert!(received > 0 && received % CHUNK_BYTES_MAX == 0, "{received}");
    talk.send(stream, &bytes, received, bytes.len()).await;
    assert_eq!(talk.commit(stream).await["success"], true);
}

#[tokio::test]
async fn streams_have_a_limit_for_a_connection_and_a_user() {
    let (app, ann, project, files) = scene().await;
    let mut talk = Talk::new(&app, &ann, &project).await;
    let mut streams = Vec::new();
    for n in 0..STREAMS_PER_CONNECTION_MAX {
        streams.push(talk.begin(&format!("{n}"), b"x", None).await.0);
    }
    let refused = talk.ask("upload.begin", upload("more", b"x", None)).await;
    assert_eq!(reason(&refused), ("QUOTA_EXCEEDED", "too_many_streams"));
    let refused = talk.ask("download.begin", json!({ "path": "0" })).await;
    assert_eq!(reason(&refused), ("QUOTA_EXCEEDED", "too_many_streams"));
    // Another connection may, until the user has too many.
    let mut n = STREAMS_PER_CONNECTION_MAX;
    while n < UPLOADS_PER_USER_MAX {
        let mut other = Talk::new(&app, &ann, &project).await;
        for _ in 0..STREAMS_PER_CONNECTION_MAX {
            other.begin(&format!("{n}"), b"x", None).await;
            n += 1;
        }
    }
    let cancelled = talk.ask("upload.cancel", json!({ "stream": streams[1] })).await;
    assert_eq!(cancelled["payload"]["done"], true);
    talk.begin("more", b"x", None).await;
    talk.commit(streams[0]).await;
    let refused = talk.ask("upload.begin", upload("one more", b"x", None)).await;
    assert_eq!(reason(&refused), ("QUOTA_EXCEEDED", "uploads_quota"));
    assert_eq!(staged(&files), UPLOADS_PER_USER_MAX);
}

#[tokio::test]
async fn a_member_who_is_taken_out_loses_the_streams() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let bytes = random(20 * CHUNK_BYTES_MAX);
    ann.client.file_put(&project, "there", bytes.clone()).await.unwrap();
    let mut talk = Talk::new(&app, &bob, &project).await;
    let (up, _) = talk.begin("a", &bytes, None).await;
    talk.send(up, &bytes, 0, CHUNK_BYTES_MAX).await;
    let (whole, _) = talk.begin("b", b"b", None).await;
    talk.send(whole, b"b", 0, 1).await;
    let begun = talk.ask("download.begin", json!({ "path": "there" })).await;
    let down: u32 = begun["payload"]["stream"].as_u64().unwrap().try_into().unwrap();
    for _ in 0..CHUNKS_UNACKNOWLEDGED_MAX {
        assert_eq!(Chunk::decode(&talk.binary().await).unwrap().kind, ChunkKind::Down);
    }
    let member = format!("/v1/projects/{project}/members/{}", bob.id());
    assert!(ann.rest("DELETE", &member, None).await.is_success());
    talk.up(up, CHUNK_BYTES_MAX, &bytes[CHUNK_BYTES_MAX..2 * CHUNK_BYTES_MAX]).await;
    assert_eq!(reason(&talk.failed(up).await).0, "NOT_FOUND");
    talk.socket.say_bytes(Chunk::ack(down, CHUNK_BYTES_MAX as u64).encode()).await;
    assert_eq!(reason(&talk.failed(down).await).0, "NOT_FOUND");
    assert_eq!(reason(&talk.commit(whole).await).0, "NOT_FOUND");
    assert_eq!(ann.get(&format!("/v1/projects/{project}/files/content?path=b")).await.status, 404);
}

#[tokio::test]
async fn a_file_is_received_in_chunks_from_anywhere_and_events_come_between_them() {
    let (app, ann, project, _) = scene().await;
    let bytes = random(6 * CHUNK_BYTES_MAX + 11);
    ann.client.file_put(&project, "large", bytes.clone()).await.unwrap();
    let mut talk = Talk::new(&app, &ann, &project).await;
    for offset in [0, 5, 6 * CHUNK_BYTES_MAX, bytes.len()] {
        let begun = talk.ask("download.begin", json!({ "path": "large", "offset": offset })).await;
        let begun = &begun["payload"];
        assert_eq!(
            (&begun["size"], &begun["etag"]),
            (&bytes.len().into(), &content_hash(&bytes).into())
        );
        let stream: u32 = begun["stream"].as_u64().unwrap().try_into().unwrap();
        let (mut at, mut unacknowledged) = (offset, 0);
        loop {
            let frame = talk.binary().await;
            let chunk = Chunk::decode(&frame).unwrap();
            assert_eq!(
                (chunk.kind, chunk.stream, chunk.offset),
                (ChunkKind::Down, stream, at as u64)
            );
            assert_eq!(chunk.bytes, &bytes[at..at + chunk.bytes.len()]);
            at += chunk.bytes.len();
            unacknowledged += 1;
            if unacknowledged == CHUNKS_UNACKNOWLEDGED_MAX && !chunk.is_last {
                // Nothing more of the file comes now, but everything else does.
                assert_eq!(talk.ask("ping", json!({})).await["success"], true);
                talk.socket.say_bytes(Chunk::ack(stream, at as u64).encode()).await;
                unacknowledged = 0;
            }
            if chunk.is_last {
                assert_eq!(at, bytes.len());
                talk.socket.say_bytes(Chunk::ack(stream, at as u64).encode()).await;
                break;
            }
        }
    }
    let beyond = json!({ "path": "large", "offset": bytes.len() + 1 });
    assert_eq!(reason(&talk.ask("download.begin", beyond).await).1, "range_not_satisfiable");
    assert_eq!(reason(&talk.ask("download.begin", json!({ "path": "none" })).await).0, "NOT_FOUND");
    let begun = talk.ask("download.begin", json!({ "path": "large" })).await;
    let stream: u32 = begun["payload"]["stream"].as_u64().unwrap().try_into().unwrap();
    for _ in 0..CHUNKS_UNACKNOWLEDGED_MAX {
        talk.binary().await;
    }
    talk.socket.say_bytes(Chunk::ack(stream, 1 << 40).encode()).await;
    assert_eq!(reason(&talk.failed(stream).await), ("INVALID_REQUEST", "chunk_offset"));
    let begun = talk.ask("download.begin", json!({ "path": "large" })).await;
    let stream = begun["payload"]["stream"].clone();
    for _ in 0..CHUNKS_UNACKNOWLEDGED_MAX {
        talk.binary().await;
    }
    let cancelled = talk.ask("download.cancel", json!({ "stream": stream })).await;
    assert_eq!(cancelled["payload"]["done"], true);
}
