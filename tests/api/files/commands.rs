//! What commands make of files: while others run, while files are put back, under locks of others, and more than
//! is kept.

use std::path::{Path, PathBuf};

use iris_protocol::{
    ErrorCode, Event, FileLockTake, FileSource, FileVersion, FileVersions, MessageId, ProjectId,
    Role, RoomRequest, RunId, RunStatus, SessionRevert, SessionUnrevert, SkipReason, SkippedFile,
    SnapshotCreate, SnapshotRestore, Subscribe,
};
use iris_testkit::{Conversation, Person, TestApp, calls_of, moment, patiently};
use serde_json::json;

use super::history::allow;
use crate::{code_of, refusal};

/// A server that runs commands, its administrator, a project in which they need not be asked about, and where its
/// files are. `gate-..` is ignored there.
async fn scene() -> Option<(TestApp, Person, ProjectId, PathBuf)> {
    let (app, ann) = crate::bash::app(crate::bash::sandbox()).await?;
    let project = ann.project("p").await.id;
    let files = app.data_dir().join("projects").join(project.as_str()).join("files");
    ann.client.file_put(&project, ".gitignore", "gate-*\n").await.unwrap();
    allow(&ann.conversation_in(&project).await, "bash").await;
    allow(&ann.conversation_in(&project).await, "edit").await;
    Some((app, ann, project, files))
}

/// A command that does something, says that it did, waits to be let go on, and does more.
fn waits(name: &str, first: &str, then: &str) -> String {
    let wait = format!("until [ -e gate-{name} ]; do sleep 0.02; done");
    let command = format!("{first}; touch gate-{name}-begun; {wait}; {then}");
    format!("call bash {}\nstep\nsay done", json!({ "command": command }))
}

async fn begin(talk: &mut Conversation, script: &str) -> (RunId, MessageId) {
    let sent = talk.send_message(script).await;
    (sent.run_id, sent.message_id)
}

/// Waits until a command came to its gate.
async fn at_gate(files: &Path, name: &str) {
    let there = async {
        while !files.join(format!("gate-{name}-begun")).exists() {
            moment().await;
        }
    };
    patiently(name, there).await;
}

async fn let_go(talk: &mut Conversation, files: &Path, name: &str, run: &RunId) {
    std::fs::write(files.join(format!("gate-{name}")), "").unwrap();
    assert_eq!(talk.run_ended(run).await, RunStatus::Completed);
}

async fn command(talk: &mut Conversation, command: &str) -> (MessageId, String) {
    let script = format!("call bash {}\nstep\nsay done", json!({ "command": command }));
    let (run, message) = begin(talk, &script).await;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let call = calls_of(&talk.answer(&run).await)[0].clone();
    (message, call.output.or(call.error).unwrap_or_default())
}

async fn last(person: &Person, project: &ProjectId, path: &str) -> FileVersion {
    let request = FileVersions { path: path.to_owned(), limit: None, cursor: None };
    person.client.call(Some(project), request).await.unwrap().versions.remove(0)
}

fn revert(talk: &Conversation, message_id: &MessageId, skip: Option<bool>) -> SessionRevert {
    let (session_id, message_id) = (talk.session.clone(), message_id.clone());
    SessionRevert { session_id, message_id, dry_run: None, skip_changed: skip }
}

#[tokio::test]
async fn what_commands_make_at_the_same_time_is_of_one_only_where_that_is_sure() {
    let Some((_app, ann, project, files)) = scene().await else { return };
    let mut first = ann.conversation_in(&project).await;
    let mut second = ann.conversation_in(&project).await;
    let (one, ones) = begin(&mut first, &waits("one", "echo 1 > alone.txt", "true")).await;
    at_gate(&files, "one").await;
    let both = waits("two", "echo 2 > both.txt", "echo 2 > after.txt");
    let (two, twos) = begin(&mut second, &both).await;
    at_gate(&files, "two").await;
    // Found when the second one began, and the first one alone had run.
    let alone = last(&ann, &project, "alone.txt").await;
    assert_eq!((alone.source, alone.run_id.as_ref()), (FileSource::Tool, Some(&one)));
    ann.client.call(Some(&project), SnapshotCreate {}).await.unwrap();
    let both = last(&ann, &project, "both.txt").await;
    assert_eq!(
        (both.source, &both.run_id, both.by.as_ref()),
        (FileSource::Tool, &None, Some(ann.id()))
    );
    let_go(&mut first, &files, "one", &one).await;
    let_go(&mut second, &files, "two", &two).await;
    let after = last(&ann, &project, "after.txt").await;
    assert_eq!((after.source, after.run_id.as_ref()), (FileSource::Tool, Some(&two)));

    for (talk, message, own) in [(&first, &ones, "alone.txt"), (&second, &twos, "after.txt")] {
        let refused = refusal(talk.call(revert(talk, message, None)).await);
        assert_eq!(code_of(&refused), (ErrorCode::Conflict, "files_changed_since"), "{own}");
        assert_eq!(refused.details["files"][0]["path"], "both.txt");
        let done = talk.call(revert(talk, message, Some(true))).await.unwrap();
        let changed: Vec<_> = done.files.iter().map(|it| it.path.as_str()).collect();
        assert_eq!((changed, done.changed_since.len()), (vec![own], 1));
        assert!(!files.join(own).exists());
        assert_eq!(std::fs::read_to_string(files.join("both.txt")).unwrap(), "2\n");
    }
}

#[tokio::test]
async fn nothing_is_put_back_while_a_command_runs() {
    let Some((_app, ann, project, files)) = scene().await else { return };
    let mut first = ann.conversation_in(&project).await;
    let (message, _) = command(&mut first, "echo 1 > a.txt").await;
    let made = ann.client.call(Some(&project), SnapshotCreate {}).await.unwrap();
    let restore = SnapshotRestore { snapshot_id: made.snapshot.id, skip_unkept: None };
    ann.client.file_put(&project, "a.txt", "2").await.unwrap();
    let mut second = ann.conversation_in(&project).await;
    let (run, _) = begin(&mut second, &waits("it", "true", "true")).await;
    at_gate(&files, "it").await;
    let busy = (ErrorCode::Conflict, "command_running");
    assert_eq!(code_of(&refusal(ann.client.call(Some(&project), restore.clone()).await)), busy);
    let undo = revert(&first, &message, Some(true));
    assert_eq!(code_of(&refusal(first.call(undo.clone()).await)), busy);
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "2");
    let_go(&mut second, &files, "it", &run).await;
    assert_eq!(ann.client.call(Some(&project), restore).await.unwrap().count, 1);
    first.call(undo).await.unwrap();
}

#[tokio::test]
async fn what_a_command_changes_under_the_lock_of_another_is_told_to_the_model_and_everybody() {
    let Some((app, ann, project, _)) = scene().await else { return };
    let bob = app.user("bob").await;
    ann.add_member(&project, &bob, Role::Member).await;
    ann.client.file_put(&project, "change.sh", "echo x > a.txt; echo x > b.txt").await.unwrap();
    let lock = FileLockTake { path: "a.txt".into(), scope: None, ttl_ms: None, take_over: None };
    bob.client.call(Some(&project), lock).await.unwrap();
    let socket = bob.connect().await;
    let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
    let subscribe = Subscribe { rooms, deltas: None, presence: None };
    socket.call(Some(&project), subscribe).await.unwrap();
    let mut talk = ann.conversation_in(&project).await;
    let (_, output) = command(&mut talk, "sh change.sh").await;
    assert!(output.contains("`a.txt`, locked by `bob`]"), "{output}");
    let owner = last(&ann, &project, "a.txt").await.despite_lock_of;
    assert_eq!(owner.as_ref(), Some(bob.id()));
    assert_eq!(last(&ann, &project, "b.txt").await.despite_lock_of, None);
    let told = async {
        loop {
            if let Event::FileCreated { path, despite_lock_of, .. } =
                socket.next_event().await.unwrap().event
                && path == "a.txt"
            {
                return despite_lock_of;
            }
        }
    };
    assert_eq!(patiently("file.created", told).await.as_ref(), Some(bob.id()));
}

/// Content of more than 16 MiB is not kept: what would lose it is named, and left where that is wished.
#[tokio::test]
async fn undoing_turns_never_destroys_what_is_not_kept() {
    let Some((_app, ann, project, files)) = scene().await else { return };
    ann.client.file_put(&project, "grown.txt", "small").await.unwrap();
    let mut talk = ann.conversation_in(&project).await;
    let large =
        "truncate -s 17825792 large.bin; truncate -s 17825792 grown.txt; echo x > small.txt";
    let (message, output) = command(&mut talk, large).await;
    assert!(output.contains("(exit code 0)"), "{output}");
    let is_whole = || {
        let size = |path: &str| std::fs::metadata(files.join(path)).map_or(0, |found| found.len());
        assert_eq!((size("large.bin"), size("grown.txt")), (17_825_792, 17_825_792));
    };
    let unkept: Vec<_> = ["grown.txt", "large.bin"]
        .map(|path| SkippedFile { path: path.to_owned(), reason: SkipReason::ContentNotKept })
        .into();
    let dry = SessionRevert { dry_run: Some(true), ..revert(&talk, &message, None) };
    let would = talk.call(dry).await.unwrap();
    assert_eq!((would.file_count, &would.skipped), (1, &unkept));
    let refused = refusal(talk.call(revert(&talk, &message, None)).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "content_not_kept"));
    assert_eq!(refused.details["paths"], json!(["grown.txt", "large.bin"]));
    assert!(files.join("small.txt").exists());
    is_whole();
    let done = talk.call(revert(&talk, &message, Some(true))).await.unwrap();
    assert_eq!((done.file_count, &done.skipped), (1, &unkept));
    assert!(!files.join("small.txt").exists());
    is_whole();
    let told = talk.wait_for("session.reverted").await.event;
    let Event::SessionReverted { skipped, .. } = told else { panic!("another event") };
    assert_eq!(skipped, unkept);
    let session_id = talk.session.clone();
    let back = SessionUnrevert { session_id, dry_run: None, skip_changed: None };
    assert_eq!(talk.call(back).await.unwrap().file_count, 1);
    assert_eq!(std::fs::read_to_string(files.join("small.txt")).unwrap(), "x\n");
    is_whole();
}

/// What is of one of two commands that are both undone is theirs.
#[tokio::test]
async fn what_sub_agents_make_side_by_side_is_undone_with_the_turn() {
    let Some((_app, ann, project, files)) = scene().await else { return };
    let mut talk = ann.conversation_in(&project).await;
    let tasks = ["one", "two"].map(|name| {
        let first = format!("echo x > {name}.txt");
        let prompt = waits(name, &first, "true");
        let asked = json!({ "description": name, "prompt": prompt, "agent": "general" });
        format!("call task {asked}\n")
    });
    let (run, message) = begin(&mut talk, &format!("{}step\nsay done", tasks.concat())).await;
    at_gate(&files, "one").await;
    at_gate(&files, "two").await;
    ann.client.call(Some(&project), SnapshotCreate {}).await.unwrap();
    // At least one of them was not there yet when the second command began.
    let runs = [last(&ann, &project, "one.txt").await, last(&ann, &project, "two.txt").await];
    assert!(runs.iter().all(|version| version.source == FileSource::Tool), "{runs:?}");
    assert!(runs.iter().any(|version| version.run_id.is_none()), "{runs:?}");
    std::fs::write(files.join("gate-one"), "").unwrap();
    std::fs::write(files.join("gate-two"), "").unwrap();
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let done = talk.call(revert(&talk, &message, None)).await.unwrap();
    assert_eq!((done.file_count, done.changed_since.len()), (2, 0));
    assert!(!files.join("one.txt").exists() && !files.join("two.txt").exists());
}
