//! Versions: who changed what, whatever way; differences; what is put back.

use iris_protocol::{
    ErrorCode, Event, FileChange, FileDelete, FileDiff, FileEdit, FileMove, FileRestore,
    FileSource, FileVersion, FileVersions, FileWrite, PermissionAction, PermissionCreate,
    ProjectId, Role, RoomRequest, RunDiff, RunId, RunStatus, Subscribe,
};
use iris_testkit::{Conversation, Person, patiently, spawn_app};
use serde_json::json;

use super::browsing::{in_each_type, scene};
use crate::{code_of, refusal};

async fn versions(person: &Person, project: &ProjectId, path: &str) -> Vec<FileVersion> {
    let request = FileVersions { path: path.to_owned(), limit: None, cursor: None };
    let mut page = person.client.call(Some(project), request).await.unwrap();
    page.versions.reverse();
    page.versions
}

pub(super) async fn allow(talk: &Conversation, permission: &str) {
    let request = PermissionCreate {
        session_id: None,
        permission: permission.to_owned(),
        pattern: "*".to_owned(),
        action: PermissionAction::Allow,
    };
    talk.call(request).await.unwrap();
}

#[tokio::test]
async fn each_change_is_a_version_with_its_author_whatever_way_it_was_made() {
    let (_app, ann, project, files) = scene().await;
    let mut talk = ann.conversation_in(&project).await;
    allow(&talk, "edit").await;
    ann.client.file_put(&project, "a.txt", "one\n").await.unwrap();
    let edit = FileEdit {
        path: "a.txt".to_owned(),
        old_string: "one".to_owned(),
        new_string: "two".to_owned(),
        replace_all: None,
        version: Some(1),
    };
    ann.client.call(Some(&project), edit).await.unwrap();
    std::fs::write(files.join("a.txt"), "from outside\n").unwrap();
    let script = "call write {\"path\": \"a.txt\", \"content\": \"of a tool\\n\"}\nstep\nsay done";
    let run = talk.send_message(script).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let restore = FileRestore { path: "a.txt".to_owned(), to: 1, version: None };
    ann.client.call(Some(&project), restore).await.unwrap();

    let found = versions(&ann, &project, "a.txt").await;
    let sources: Vec<_> = found.iter().map(|it| (it.version, it.source, it.by.is_some())).collect();
    let expected = [
        (1, FileSource::Api, true),
        (2, FileSource::Api, true),
        (3, FileSource::External, false),
        (4, FileSource::Tool, true),
        (5, FileSource::Restore, true),
    ];
    assert_eq!(sources, expected);
    assert!(found.iter().all(|it| it.kept));
    let of_tool = &found[3];
    assert_eq!(of_tool.run_id.as_ref(), Some(&run));
    assert_eq!(of_tool.session_id.as_ref(), Some(&talk.session));
    let answer = talk.answer(&run).await;
    assert_eq!(of_tool.message_id.as_ref(), Some(&answer.id));
    assert_eq!(ann.client.file_get(&project, "a.txt").await.unwrap(), "one\n");

    let diff = async |from, to| {
        let request = FileDiff { path: "a.txt".to_owned(), from, to };
        ann.client.call(Some(&project), request).await.unwrap()
    };
    let between = diff(Some(1), Some(4)).await;
    assert_eq!((between.insertions, between.deletions), (Some(1), Some(1)));
    assert!(between.unified.contains("-one\n+of a tool\n"), "{}", between.unified);
    assert_eq!(diff(None, Some(1)).await.unified.lines().next(), Some("--- /dev/null"));
    std::fs::write(files.join("a.txt"), "one\nmore\n").unwrap();
    let on_disk = diff(None, None).await;
    assert_eq!((on_disk.from, on_disk.to, on_disk.insertions), (5, None, Some(1)));

    let request = RunDiff { session_id: talk.session.clone(), run_id: run };
    let whole = talk.call(request).await.unwrap();
    assert_eq!(whole.files.len(), 1);
    let changed = &whole.files[0];
    assert_eq!(
        (changed.change, changed.insertions, changed.deletions),
        (FileChange::Updated, Some(1), Some(1))
    );
    assert_eq!((changed.from, changed.to), (Some(3), Some(4)));
    let between = diff(changed.from, changed.to).await;
    assert_eq!((whole.unified, whole.coarse), (between.unified, false));
    assert!(talk.names().contains(&"run.diff.updated"), "{:?}", talk.names());
}

#[tokio::test]
async fn a_run_is_compared_in_one_text_that_leaves_out_what_is_no_text_or_too_much() {
    let (_app, ann, project, _) = scene().await;
    let mut talk = ann.conversation_in(&project).await;
    allow(&talk, "edit").await;
    ann.client.file_put(&project, "gone.txt", "gone\n").await.unwrap();
    let compare = async |talk: &Conversation, run: RunId| {
        let request = RunDiff { session_id: talk.session.clone(), run_id: run };
        talk.call(request).await.unwrap()
    };
    let patch =
        "*** Begin Patch\n*** Delete File: gone.txt\n*** Add File: new.txt\n+new\n*** End Patch";
    let script = format!("call applyPatch {}\nstep\nsay ok", json!({ "patch": patch }));
    let run = talk.send_message(&script).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let found = compare(&talk, run).await;
    let versions: Vec<_> =
        found.files.iter().map(|it| (it.path.as_str(), it.change, it.from, it.to)).collect();
    let gone = ("gone.txt", FileChange::Deleted, Some(1), Some(2));
    assert_eq!(versions, [gone, ("new.txt", FileChange::Created, Some(0), Some(1))]);
    let expected = "--- a/gone.txt\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-gone\n\
                    --- /dev/null\n+++ b/new.txt\n@@ -0,0 +1,1 @@\n+new\n";
    assert_eq!((found.unified.as_str(), found.coarse), (expected, false));

    // What is beyond the size is left out whole, and what is behind it is not.
    for path in ["one.txt", "two.txt"] {
        ann.client.file_put(&project, path, "line\n".repeat(30_000)).await.unwrap();
    }
    let patch = "*** Begin Patch\n*** Delete File: one.txt\n*** Delete File: two.txt\n\
                 *** Add File: zero.txt\n+0\n*** End Patch";
    let script = format!("call applyPatch {}\nstep\nsay ok", json!({ "patch": patch }));
    let run = talk.send_message(&script).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let found = compare(&talk, run).await;
    assert_eq!((found.files.len(), found.coarse, found.cut), (3, true, false));
    assert_eq!(found.files[1].deletions, Some(30_000));
    let headers = found.unified.lines().filter(|line| line.starts_with("--- "));
    assert_eq!(headers.collect::<Vec<_>>(), ["--- a/one.txt", "--- /dev/null"]);
}

#[tokio::test]
async fn what_a_command_changes_is_found_and_is_the_work_of_its_run() {
    let Some((_app, ann)) = crate::bash::app(crate::bash::sandbox()).await else { return };
    let mut talk = ann.conversation().await;
    let project = talk.project.clone();
    allow(&talk, "bash").await;
    allow(&talk, "edit").await;
    ann.client.file_put(&project, "kept.txt", "kept").await.unwrap();
    ann.client.file_put(&project, "gone.txt", "gone").await.unwrap();
    let command = "printf made > made.txt; printf changed > kept.txt; rm gone.txt";
    let run =
        talk.send_message(&format!("call bash {}", json!({ "command": command }))).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    for (path, change, kept) in [
        ("made.txt", FileChange::Created, true),
        ("kept.txt", FileChange::Updated, true),
        ("gone.txt", FileChange::Deleted, false),
    ] {
        let last = versions(&ann, &project, path).await.pop().unwrap();
        assert_eq!(
            (last.change, last.source, last.kept),
            (change, FileSource::Tool, kept),
            "{path}"
        );
        assert_eq!(last.run_id.as_ref(), Some(&run), "{path}");
        assert_eq!(last.by.as_ref(), Some(ann.id()), "{path}");
    }
    let restore = FileRestore { path: "gone.txt".to_owned(), to: 1, version: None };
    ann.client.call(Some(&project), restore).await.unwrap();
    assert_eq!(ann.client.file_get(&project, "gone.txt").await.unwrap(), "gone");
}

#[tokio::test]
async fn f9_a_write_that_does_not_know_the_newest_version_is_refused_and_told_which_it_is() {
    let (_app, ann, project, files) = scene().await;
    let write = async |content: &str, version| {
        let (path, content) = ("a.txt".to_owned(), content.to_owned());
        let request = FileWrite { path, content, encoding: None, version };
        ann.client.call(Some(&project), request).await
    };
    write("one", Some(0)).await.unwrap();
    let stale = refusal(write("again", Some(0)).await);
    assert_eq!(code_of(&stale), (ErrorCode::VersionConflict, "version_conflict"));
    assert_eq!(stale.details["currentVersion"], 1);
    // A change that nobody recorded yet counts too.
    std::fs::write(files.join("a.txt"), "from outside").unwrap();
    let stale = refusal(write("two", Some(1)).await);
    assert_eq!(stale.details["currentVersion"], 2);
    assert_eq!(ann.client.file_get(&project, "a.txt").await.unwrap(), "from outside");
    write("two", Some(2)).await.unwrap();
    let path = format!("/v1/projects/{project}/files/content?path=a.txt&version=2");
    let sent = ann.client.raw("PUT", &path, Some(ann.token()), &[], "three".into());
    assert_eq!(sent.await.unwrap().json["error"]["details"]["currentVersion"], 3);
}

#[tokio::test]
async fn a_directory_is_moved_and_deleted_with_the_history_of_its_files() {
    let (_app, ann, project, files) = scene().await;
    ann.client.file_put(&project, "dir/a.txt", "a").await.unwrap();
    std::fs::write(files.join("dir/outside.txt"), "outside").unwrap();
    ann.client.file_put(&project, "there/x.txt", "x").await.unwrap();
    let move_to = async |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        let request = FileMove { from, to, overwrite: None, version: None };
        ann.client.call(Some(&project), request).await
    };
    let taken = refusal(move_to("dir", "there").await);
    assert_eq!(code_of(&taken), (ErrorCode::Conflict, "exists"));
    let below = refusal(move_to("dir", "dir/below").await);
    assert_eq!(code_of(&below), (ErrorCode::InvalidRequest, "below_itself"));
    let moved = move_to("dir", "new/place").await.unwrap();
    assert_eq!(moved.count, 4);
    let there = versions(&ann, &project, "new/place/outside.txt").await.pop().unwrap();
    assert_eq!((there.change, there.from.as_deref()), (FileChange::Moved, Some("dir/outside.txt")));
    assert!(there.kept);
    let here = versions(&ann, &project, "dir/a.txt").await.pop().unwrap();
    assert_eq!((here.version, here.change), (2, FileChange::Deleted));

    let delete = async |path: &str, recursive| {
        let request =
            FileDelete { path: path.to_owned(), recursive, unversioned: None, version: None };
        ann.client.call(Some(&project), request).await
    };
    let full = refusal(delete("new", None).await);
    assert_eq!(code_of(&full), (ErrorCode::Conflict, "not_empty"));
    assert_eq!(delete("new", Some(true)).await.unwrap().count, 2);
    assert!(!files.join("new").exists());
    let restore = FileRestore { path: "new/place/a.txt".to_owned(), to: 1, version: None };
    ann.client.call(Some(&project), restore).await.unwrap();
    assert_eq!(std::fs::read_to_string(files.join("new/place/a.txt")).unwrap(), "a");
    assert_eq!(refusal(delete("none", None).await).code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_directory_is_not_deleted_with_files_that_nobody_could_put_back() {
    let (_app, ann, project, files) = scene().await;
    ann.client.file_put(&project, ".gitignore", ".env\n").await.unwrap();
    ann.client.file_put(&project, "dir/a.txt", "a").await.unwrap();
    std::fs::write(files.join("dir/.env"), "secret").unwrap();
    let (from, to) = ("dir".to_owned(), "new".to_owned());
    let request = FileMove { from, to, overwrite: None, version: None };
    ann.client.call(Some(&project), request).await.unwrap();
    assert_eq!(std::fs::read_to_string(files.join("new/.env")).unwrap(), "secret");
    let delete = async |unversioned| {
        let path = "new".to_owned();
        let request = FileDelete { path, recursive: Some(true), unversioned, version: None };
        ann.client.call(Some(&project), request).await
    };
    let refused = refusal(delete(None).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "unversioned_files"));
    assert_eq!(refused.details["paths"], json!(["new/.env"]));
    assert!(files.join("new/.env").exists() && files.join("new/a.txt").exists());
    let path = format!("/v1/projects/{project}/files?path=new&recursive=true&unversioned=true");
    let gone = ann.rest("DELETE", &path, None).await;
    assert_eq!((gone.status, &gone.json["data"]["count"]), (200, &json!(1)), "{gone:?}");
    assert!(!files.join("new").exists());
    // One that has a version can be put back.
    std::fs::create_dir(files.join("dir")).unwrap();
    ann.client.file_put(&project, "dir/.env", "secret").await.unwrap();
    let path = "dir".to_owned();
    let request = FileDelete { path, recursive: Some(true), unversioned: None, version: None };
    assert_eq!(ann.client.call(Some(&project), request).await.unwrap().count, 1);
}

#[tokio::test]
async fn many_changes_at_once_are_told_in_one_event() {
    let (_app, ann, project, files) = scene().await;
    std::fs::create_dir(files.join("many")).unwrap();
    for n in 0..150 {
        std::fs::write(files.join(format!("many/{n}")), n.to_string()).unwrap();
    }
    let socket = ann.connect().await;
    let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
    let subscribe = Subscribe { rooms, deltas: None, presence: None };
    socket.call(Some(&project), subscribe).await.unwrap();
    let (from, to) = ("many".to_owned(), "moved".to_owned());
    let request = FileMove { from, to, overwrite: None, version: None };
    let moved = ann.client.call(Some(&project), request).await.unwrap();
    assert_eq!((moved.count, moved.versions.len()), (300, 100));
    // That the files were there before anybody looked is told to nobody.
    let told = patiently("file.changed", socket.next_event()).await.unwrap();
    let Event::FileChanged { count, by, source, .. } = told.event else { panic!("{told:?}") };
    assert_eq!((count, by.as_ref(), source), (300, Some(ann.id()), FileSource::Api));
}

#[tokio::test]
async fn two_people_and_an_agent_edit_one_file_and_nothing_is_lost() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let mut talk = ann.conversation().await;
    let project = talk.project.clone();
    ann.add_member(&project, &bob, Role::Member).await;
    allow(&talk, "edit").await;
    ann.client.file_put(&project, "a.txt", "start\n").await.unwrap();
    let append = async |person: &Person, line: String| {
        for _ in 0..50 {
            let read = iris_protocol::FileRead { path: "a.txt".into(), ..Default::default() };
            let found = person.client.call(Some(&project), read).await.unwrap();
            let request = FileWrite {
                path: "a.txt".into(),
                content: found.content + &line + "\n",
                encoding: None,
                version: Some(found.file.version),
            };
            match person.client.call(Some(&project), request).await {
                Ok(_) => return,
                Err(error) => {
                    let error = refusal(Err::<(), _>(error));
                    assert_eq!(error.code, ErrorCode::VersionConflict);
                }
            }
        }
        panic!("never written");
    };
    let people = async {
        for n in 0..5 {
            tokio::join!(append(&ann, format!("ann {n}")), append(&bob, format!("bob {n}")));
        }
    };
    let agent = async {
        for n in 0..5 {
            let edit = json!({ "path": "a.txt", "oldString": "start\n", "newString": format!("start\nagent {n}\n") });
            talk.ask(&format!("call edit {edit}\nstep\nsay done")).await;
        }
    };
    tokio::join!(people, agent);
    let text =
        String::from_utf8(ann.client.file_get(&project, "a.txt").await.unwrap().to_vec()).unwrap();
    for n in 0..5 {
        assert!(
            text.contains(&format!("ann {n}\n")) && text.contains(&format!("bob {n}\n")),
            "{text}"
        );
    }
    let versions = versions(&ann, &project, "a.txt").await;
    let numbers: Vec<u64> = versions.iter().map(|it| it.version).collect();
    assert_eq!(numbers, (1..=versions.len() as u64).collect::<Vec<_>>());
    let of_agent = versions.iter().filter(|it| it.source == FileSource::Tool).count();
    let by_people = versions.iter().filter(|it| it.source == FileSource::Api).count();
    // An edit of what somebody changed since the model read it is refused: the model tries again.
    assert!(of_agent >= 1 && by_people == 11, "{of_agent} {by_people}");
    assert!(versions.iter().all(|it| it.source != FileSource::External), "{versions:?}");
}

#[tokio::test]
async fn binary_files_are_compared_and_put_back() {
    in_each_type(async |_app, ann, project| {
        ann.client.file_put(&project, "a.bin", vec![0, 1, 2]).await.unwrap();
        ann.client.file_put(&project, "a.bin", vec![0, 9]).await.unwrap();
        let request = FileDiff { path: "a.bin".to_owned(), from: Some(1), to: Some(2) };
        let found = ann.client.call(Some(&project), request).await.unwrap();
        assert!(found.binary && found.hunks.is_empty() && found.insertions.is_none());
        let restore = FileRestore { path: "a.bin".to_owned(), to: 1, version: Some(2) };
        ann.client.call(Some(&project), restore).await.unwrap();
        assert_eq!(ann.client.file_get(&project, "a.bin").await.unwrap(), vec![0, 1, 2]);
    })
    .await;
}
