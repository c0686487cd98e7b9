//! A project goes from one server to another.

use iris_client::RestAnswer;
use iris_protocol::{
    Content, ErrorCode, Member, MemberList, MessageSend, Project, ProjectExport, ProjectId,
    ProjectUpdate, Role, SentAttachment,
};
use iris_store::project::Quotas;
use iris_testkit::{AppOptions, Person, TestApp, patiently, spawn_app, spawn_app_with, text_of};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{content, traces, tree};
use crate::{code_of, rest_refusal};

/// The archive of a project.
async fn export(person: &Person, project: &ProjectId) -> Vec<u8> {
    let export = person.client.call(Some(project), ProjectExport {}).await.unwrap().backup;
    content(person, &export).await
}

async fn import(person: &Person, query: &str, archive: &[u8]) -> RestAnswer {
    import_with(person, query, archive, &[]).await
}

async fn import_with(
    person: &Person,
    query: &str,
    archive: &[u8],
    headers: &[(&str, &str)],
) -> RestAnswer {
    let path = format!("/v1/projects/import{query}");
    let body = archive.to_vec().into();
    person.client.raw("POST", &path, Some(person.token()), headers, body).await.unwrap()
}

async fn members(person: &Person, project: &ProjectId) -> Vec<Member> {
    person.client.call(Some(project), MemberList {}).await.unwrap().members
}

/// Nothing of an import is left over.
fn nothing_is_received(app: &TestApp) {
    assert_eq!(tree(&app.data_dir().join("backups/uploads")), Vec::<std::path::PathBuf>::new());
    let all = tree(&app.data_dir().join("projects"));
    let is_unfinished = |name: &str| name.contains(".incoming") || name.contains(".iris-tmp");
    assert!(!all.iter().any(|path| is_unfinished(&path.to_string_lossy())), "{all:?}");
}

#[tokio::test]
async fn an_exported_project_is_whole_on_another_server_and_its_members_are_mapped() {
    let (here, there) = (spawn_app().await, spawn_app().await);
    let mut ann = here.user("ann").await.conversation().await;
    let (bob, cid) = (here.user("bob").await, here.user("cid").await);
    ann.person.add_member(&ann.project, &bob, Role::Member).await;
    ann.person.add_member(&ann.project, &cid, Role::Viewer).await;
    let settings = json!({ "color": "red" }).as_object().cloned();
    let update = ProjectUpdate {
        name: Some("moved".to_owned()),
        description: Some("of ann".to_owned()),
        settings: settings.clone(),
    };
    ann.person.client.call(Some(&ann.project), update).await.unwrap();
    ann.ask("say one").await;
    ann.person.client.file_put(&ann.project, "dir/a.txt", "hello").await.unwrap();
    let with_file = MessageSend {
        session_id: ann.session.clone(),
        content: Content::Text("say with a file".to_owned()),
        when_busy: None,
        attachments: vec![SentAttachment::of_path("dir/a.txt")],
    };
    let with_file = ann.call(with_file).await.unwrap();
    ann.run_ended(&with_file.run_id).await;
    ann.ask("call list {\"path\": \".\"}\nstep\nsay two").await;
    let archive = export(&ann.person, &ann.project).await;
    let before = ann.person.snapshot(&ann.project, &ann.session).await;

    // Dan imports; ann and cid have accounts there, with other ids; bob has none.
    let (dan, cid2, ann2) =
        (there.user("dan").await, there.user("cid").await, there.user("ann").await);
    let answer = import(&dan, "?id=new&members=map", &archive).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let project: Project = answer.data().unwrap();
    assert_ne!(project.id, ann.project);
    assert_eq!((project.name.as_str(), project.role), ("moved", Role::Owner));
    assert_eq!(project.description.as_deref(), Some("of ann"));
    assert_eq!(Some(project.settings.clone()), settings);
    let found = members(&dan, &project.id).await;
    let found: Vec<_> = found.iter().map(|m| (m.user_id.clone(), m.role)).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.contains(&(dan.id().clone(), Role::Owner)));
    assert!(found.contains(&(ann2.id().clone(), Role::Admin)));
    assert!(found.contains(&(cid2.id().clone(), Role::Viewer)));

    let after = dan.snapshot(&project.id, &ann.session).await;
    assert_eq!(after.messages.len(), before.messages.len());
    for (after, before) in after.messages.iter().zip(&before.messages) {
        assert_eq!((&after.id, &after.parts), (&before.id, &before.parts));
        let author = before.created_by.as_ref().map(|_| ann2.id());
        assert_eq!(after.created_by.as_ref(), author);
    }
    assert_ne!(after.as_of.epoch, before.as_of.epoch);
    assert_eq!(dan.client.file_get(&project.id, "dir/a.txt").await.unwrap(), "hello");
    let messages = format!("/v1/projects/{}/sessions/{}/messages", project.id, ann.session);
    let attached = format!("{messages}/{}/attachments/0", with_file.message_id);
    assert_eq!(dan.get(&attached).await.body, "hello");
    nothing_is_received(&there);

    // It lives: who became a member talks in it, also after a restart.
    let there = there.restart().await;
    let mut again = there.again(&ann2).join(&project.id, &ann.session).await;
    assert_eq!(text_of(&again.ask("say three").await), "three");
}

#[tokio::test]
async fn members_are_dropped_unless_told_otherwise_and_the_id_may_stay() {
    let (here, there) = (spawn_app().await, spawn_app().await);
    let (ann, bob) = (here.user("ann").await, here.user("bob").await);
    let project = ann.project("a").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    let archive = export(&ann, &project).await;
    let (dan, _) = (there.user("dan").await, there.user("bob").await);
    let same: Project = import(&dan, "?id=same", &archive).await.data().unwrap();
    assert_eq!(same.id, project);
    let found = members(&dan, &project).await;
    assert_eq!(found.iter().map(|m| &m.user_id).collect::<Vec<_>>(), [dan.id()]);

    let again = import(&dan, "?id=same", &archive).await;
    assert_eq!(code_of(&rest_refusal(&again)), (ErrorCode::Conflict, "project_exists"));
    let here_too = import(&ann, "?id=same", &archive).await;
    assert_eq!(code_of(&rest_refusal(&here_too)), (ErrorCode::Conflict, "project_exists"));
    for _ in 0..2 {
        let new: Project = import(&dan, "", &archive).await.data().unwrap();
        assert_ne!(new.id, project);
        dan.session(&new.id).await;
    }
    for query in ["?id=other", "?members=all"] {
        let refused = rest_refusal(&import(&dan, query, &archive).await);
        assert_eq!(refused.code, ErrorCode::InvalidRequest, "{query}");
    }
    nothing_is_received(&there);
}

#[tokio::test]
async fn a_damaged_archive_is_refused_with_a_reason_and_nothing_is_left() {
    let app = spawn_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    ann.ask("say one").await;
    let whole = export(&ann.person, &ann.project).await;
    let before = tree(&app.data_dir().join("projects"));
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cut = whole[..whole.len() - 10].to_vec();
    for archive in [flipped, cut, b"no archive".to_vec(), Vec::new()] {
        let refused = rest_refusal(&import(&ann.person, "", &archive).await);
        assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "archive_corrupt"));
        assert!(!refused.message.contains('/'), "{refused:?}");
    }
    assert_eq!(tree(&app.data_dir().join("projects")), before);
    nothing_is_received(&app);
}

#[tokio::test]
async fn an_archive_over_the_limit_is_refused_whether_its_length_is_announced_or_not() {
    let app = spawn_app_with(AppOptions { import_bytes_max: 1_000, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let refused = rest_refusal(&import(&ann, "", &[7; 1_001]).await);
    assert_eq!(refused.code, ErrorCode::PayloadTooLarge);

    let mut raw = request(&app, &ann, "transfer-encoding: chunked\r\n").await;
    for _ in 0..3 {
        raw.write_all(b"200\r\n").await.unwrap();
        raw.write_all(&[7; 512]).await.unwrap();
        raw.write_all(b"\r\n").await.unwrap();
    }
    let mut answer = vec![0; 12];
    patiently("the refusal", raw.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    nothing_is_received(&app);
}

/// Begins an import over a socket of its own; its body is to follow.
async fn request(app: &TestApp, person: &Person, headers: &str) -> TcpStream {
    let host = app.url.strip_prefix("http://").unwrap();
    let mut raw = TcpStream::connect(host).await.unwrap();
    let head = format!(
        "POST /v1/projects/import HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\n{headers}\r\n",
        person.token()
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    raw
}

#[tokio::test]
async fn an_upload_that_is_cut_off_leaves_nothing() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut raw = request(&app, &ann, "content-length: 100000\r\n").await;
    raw.write_all(&vec![7; 50_000]).await.unwrap();
    let uploads = app.data_dir().join("backups/uploads");
    let arrived = async {
        while tree(&uploads).is_empty() {
            app.client().health_ready().await.unwrap();
        }
    };
    patiently("the upload to arrive", arrived).await;
    // Who sends one waits for it; others do not.
    let second = import(&ann, "", &[7; 100]).await;
    assert_eq!(rest_refusal(&second).code, ErrorCode::Overloaded);
    let others = import(&app.user("bob").await, "", &[7; 100]).await;
    assert_eq!(code_of(&rest_refusal(&others)), (ErrorCode::InvalidRequest, "archive_corrupt"));
    drop(raw);
    let gone = async {
        while !tree(&uploads).is_empty() {
            app.client().health_ready().await.unwrap();
        }
    };
    patiently("the upload to go", gone).await;
    let second = import(&ann, "", &[7; 100]).await;
    assert_eq!(code_of(&rest_refusal(&second)), (ErrorCode::InvalidRequest, "archive_corrupt"));
}

#[tokio::test]
async fn a_project_that_holds_more_than_one_may_here_is_refused() {
    let here = spawn_app().await;
    let mut ann = here.user("ann").await.conversation().await;
    ann.ask("say one").await;
    ann.person.client.file_put(&ann.project, "a.txt", "hello").await.unwrap();
    ann.person.client.file_put(&ann.project, "b.txt", "hello").await.unwrap();
    let archive = export(&ann.person, &ann.project).await;
    let unlimited = Quotas::default();
    for (quotas, reason) in [
        (Quotas { rows_max: 2, ..unlimited }, "rows_quota"),
        (Quotas { bytes_max: 4096, ..unlimited }, "bytes_quota"),
        (Quotas { files_max: 1, ..unlimited }, "files_quota"),
        (Quotas { file_bytes_max: 9, ..unlimited }, "file_bytes_quota"),
    ] {
        let there = spawn_app_with(AppOptions { quotas, ..AppOptions::default() }).await;
        let dan = there.user("dan").await;
        let refused = rest_refusal(&import(&dan, "", &archive).await);
        assert_eq!(code_of(&refused), (ErrorCode::QuotaExceeded, reason));
        if reason.starts_with("file") {
            // What the archive says of its files is enough; the rest of it is not even looked at.
            let cut = &archive[..archive.len() - 100];
            let refused = rest_refusal(&import(&dan, "", cut).await);
            assert_eq!(code_of(&refused), (ErrorCode::QuotaExceeded, reason));
        }
        nothing_is_received(&there);
        assert!(tree(&there.data_dir().join("projects")).is_empty());
    }
}

#[tokio::test]
async fn kept_backups_do_not_become_those_of_an_import() {
    let (here, there) = (spawn_app().await, spawn_app().await);
    let ann = here.user("ann").await;
    let project = ann.project("a").await.id;
    let archive = export(&ann, &project).await;
    let dan = there.user("dan").await;
    // As after a restore of a root database that is older than the project.
    let kept = there.data_dir().join("backups").join(project.as_str());
    std::fs::create_dir_all(&kept).unwrap();
    std::fs::write(kept.join("kept.tar.zst"), "an archive").unwrap();
    let same = rest_refusal(&import(&dan, "?id=same", &archive).await);
    assert_eq!(code_of(&same), (ErrorCode::Conflict, "project_exists"));
    let new: Project = import(&dan, "?id=new", &archive).await.data().unwrap();
    assert_ne!(new.id, project);
    assert_eq!(std::fs::read_to_string(kept.join("kept.tar.zst")).unwrap(), "an archive");
}

#[tokio::test]
async fn two_imports_of_one_project_at_the_same_time_are_one() {
    let (here, there) = (spawn_app().await, spawn_app().await);
    let ann = here.user("ann").await;
    let project = ann.project("a").await.id;
    ann.client.file_put(&project, "a.txt", "hello").await.unwrap();
    let archive = export(&ann, &project).await;
    let (dan, eve) = (there.user("dan").await, there.user("eve").await);
    let both = tokio::join!(import(&dan, "?id=same", &archive), import(&eve, "?id=same", &archive));
    let (owner, other) = if both.0.status == 201 { (&dan, &both.1) } else { (&eve, &both.0) };
    assert_eq!(code_of(&rest_refusal(other)), (ErrorCode::Conflict, "project_exists"));
    assert_eq!(owner.client.file_get(&project, "a.txt").await.unwrap(), "hello");
    nothing_is_received(&there);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_imports_once() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let project = ann.project("a").await.id;
    let archive = export(&ann, &project).await;
    let key = [("idempotency-key", "k")];
    let first: Project = import_with(&ann, "", &archive, &key).await.data().unwrap();
    let second: Project = import_with(&ann, "", &archive, &key).await.data().unwrap();
    assert_eq!(first, second);
    let other = import_with(&ann, "?members=map", &archive, &key).await;
    assert_eq!(rest_refusal(&other).code, ErrorCode::IdempotencyConflict);
    let all = std::fs::read_dir(app.data_dir().join("projects")).unwrap().count();
    assert_eq!(all, 2);
    assert!(!traces(&app, &first.id).is_empty());
    nothing_is_received(&app);
}

#[tokio::test]
async fn nobody_without_an_account_sends_an_archive() {
    let app = spawn_app().await;
    let path = "/v1/projects/import";
    let answer = app.client().raw("POST", path, None, &[], vec![7; 100].into()).await.unwrap();
    assert_eq!(rest_refusal(&answer).code, ErrorCode::Unauthenticated);
    assert!(!app.data_dir().join("backups/uploads").exists());
}
