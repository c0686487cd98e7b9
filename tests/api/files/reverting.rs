//! Undoing turns together with what they made of the files, and undoing that.

use iris_client::ClientError;
use iris_protocol::{
    ErrorCode, Event, FileChange, FileLockTake, FileSource, MessageId, MessageRetry, MessageState,
    ProjectId, RevertOutcome, Role, RunStatus, SessionRevert, SessionUnrevert,
};
use iris_testkit::{Conversation, Person, spawn_app};
use serde_json::json;

use super::browsing::{TYPES, scene, scene_of};
use super::history::allow;
use crate::{code_of, refusal};

/// What the agent is told to do to write a file that it has read.
fn write(path: &str, content: &str) -> String {
    let (read, write) = (json!({ "path": path }), json!({ "path": path, "content": content }));
    format!("call read {read}\nstep\ncall write {write}\nstep\n")
}

/// A turn in which the agent does something. Answers the question.
async fn turn(talk: &mut Conversation, script: &str) -> MessageId {
    let sent = talk.send_message(&format!("{script}say done")).await;
    assert_eq!(talk.run_ended(&sent.run_id).await, RunStatus::Completed);
    sent.message_id
}

fn of(talk: &Conversation, id: &MessageId) -> SessionRevert {
    let (session_id, message_id) = (talk.session.clone(), id.clone());
    SessionRevert { session_id, message_id, dry_run: None, skip_changed: None }
}

async fn revert(talk: &Conversation, id: &MessageId) -> Result<RevertOutcome, ClientError> {
    talk.call(of(talk, id)).await
}

async fn unrevert(talk: &Conversation) -> Result<RevertOutcome, ClientError> {
    let session_id = talk.session.clone();
    talk.call(SessionUnrevert { session_id, dry_run: None, skip_changed: None }).await
}

/// Which messages of the session are superseded.
async fn superseded(talk: &Conversation) -> Vec<bool> {
    let messages = talk.person.snapshot(&talk.project, &talk.session).await.messages;
    messages.iter().map(|message| message.state == MessageState::Superseded).collect()
}

async fn put(person: &Person, project: &ProjectId, path: &str, content: &str) {
    person.client.file_put(project, path, content.to_owned()).await.unwrap();
}

fn told(outcome: &RevertOutcome) -> Vec<(&str, FileChange, Option<u64>, Option<u64>)> {
    let files = outcome.files.iter();
    files.map(|it| (&*it.path, it.change, it.insertions, it.deletions)).collect()
}

#[tokio::test]
async fn turns_are_undone_with_their_files_alone_and_can_be_done_again() {
    for r#type in TYPES {
        let (_app, ann, project, _) = scene_of(r#type).await;
        let mut talk = ann.conversation_in(&project).await;
        allow(&talk, "edit").await;
        let read = async |path: &str| {
            let found = ann.client.file_get(&project, path).await.ok();
            found.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
        };
        put(&ann, &project, "a.txt", "a\n").await;
        let first = turn(&mut talk, &write("a.txt", "a\none\n")).await;
        let second =
            turn(&mut talk, &(write("a.txt", "a\ntwo\n") + &write("new/b.txt", "b\n"))).await;
        put(&ann, &project, "mine.txt", "mine").await;

        let dry = SessionRevert { dry_run: Some(true), ..of(&talk, &second) };
        let would = talk.call(dry).await.unwrap();
        let expected = [
            ("a.txt", FileChange::Updated, Some(1), Some(1)),
            ("new/b.txt", FileChange::Deleted, Some(0), Some(1)),
        ];
        assert_eq!(told(&would), expected);
        assert_eq!((would.dry_run, would.message_count, would.file_count), (true, 2, 2));
        assert_eq!(
            (read("a.txt").await.as_deref(), read("new/b.txt").await.as_deref()),
            (Some("a\ntwo\n"), Some("b\n"))
        );
        assert_eq!(superseded(&talk).await, [false; 4]);

        let done = revert(&talk, &second).await.unwrap();
        assert_eq!(RevertOutcome { dry_run: true, ..done }, would);
        assert_eq!(
            (read("a.txt").await.as_deref(), read("new/b.txt").await),
            (Some("a\none\n"), None)
        );
        assert!(read("mine.txt").await.is_some());
        assert_eq!(superseded(&talk).await, [false, false, true, true]);
        let event = talk.wait_for("session.reverted").await.event;
        let Event::SessionReverted { message_id, message_count, files: named, .. } = event else {
            panic!("another event")
        };
        assert_eq!((&message_id, message_count, &named), (&second, 2, &would.files));

        // One more, by the answer of the first turn; then both come back, the last one first.
        let answer = ann.snapshot(&project, &talk.session).await.messages[1].id.clone();
        assert_eq!(revert(&talk, &answer).await.unwrap().message_id, first);
        assert_eq!(
            (read("a.txt").await.as_deref(), superseded(&talk).await),
            (Some("a\n"), vec![true; 4])
        );
        assert_eq!(unrevert(&talk).await.unwrap().message_id, first);
        assert_eq!(read("a.txt").await.as_deref(), Some("a\none\n"));
        let again = unrevert(&talk).await.unwrap();
        assert_eq!((again.message_id, again.file_count), (second.clone(), 2));
        assert_eq!(
            (read("a.txt").await.as_deref(), read("new/b.txt").await.as_deref()),
            (Some("a\ntwo\n"), Some("b\n"))
        );
        assert_eq!(superseded(&talk).await, [false; 4]);
        talk.wait_for("session.unreverted").await;
        let none = refusal(unrevert(&talk).await);
        assert_eq!(code_of(&none), (ErrorCode::Conflict, "not_reverted"));

        // What is said since makes it final.
        revert(&talk, &second).await.unwrap();
        talk.ask("say something else").await;
        let late = refusal(unrevert(&talk).await);
        assert_eq!(code_of(&late), (ErrorCode::Conflict, "not_reverted"));
        let gone = refusal(revert(&talk, &second).await);
        assert_eq!(code_of(&gone), (ErrorCode::Conflict, "message_superseded"));
        let unknown = refusal(revert(&talk, &MessageId::from_bits(1)).await);
        assert_eq!(unknown.code, ErrorCode::NotFound);
    }
}

#[tokio::test]
async fn what_somebody_else_changed_since_is_named_and_never_overwritten() {
    let (app, ann, project, files) = scene().await;
    let bob = app.user("bob").await;
    ann.add_member(&project, &bob, Role::Member).await;
    let mut talk = ann.conversation_in(&project).await;
    allow(&talk, "edit").await;
    let read = |path: &str| std::fs::read_to_string(files.join(path)).ok();
    let first = turn(&mut talk, &(write("a.txt", "a1") + &write("b.txt", "b1"))).await;
    // Between two turns: what the second one wrote over is not lost either.
    put(&bob, &project, "a.txt", "a of bob").await;
    turn(&mut talk, &(write("a.txt", "a2") + &write("c.txt", "c1"))).await;
    std::fs::write(files.join("c.txt"), "from outside").unwrap();

    let refused = refusal(revert(&talk, &first).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "files_changed_since"));
    let named = refused.details["files"].as_array().unwrap();
    let named: Vec<_> = named.iter().map(|it| (&it["path"], &it["source"], &it["by"])).collect();
    let (a, c) =
        ((json!("a.txt"), json!("api"), json!(bob.id())), (json!("c.txt"), json!("external")));
    assert_eq!(named, [(&a.0, &a.1, &a.2), (&c.0, &c.1, &serde_json::Value::Null)]);
    let state = || (read("a.txt").unwrap(), read("b.txt"), read("c.txt").unwrap());
    assert_eq!(state(), ("a2".into(), Some("b1".into()), "from outside".into()));
    assert_eq!(superseded(&talk).await, [false; 4]);
    let dry = SessionRevert { dry_run: Some(true), ..of(&talk, &first) };
    let would = talk.call(dry).await.unwrap();
    assert_eq!((would.changed_since.len(), would.file_count), (2, 1));

    let skips = SessionRevert { skip_changed: Some(true), ..of(&talk, &first) };
    let done = talk.call(skips).await.unwrap();
    let kept: Vec<_> = done.changed_since.iter().map(|it| (&*it.path, it.source)).collect();
    assert_eq!(kept, [("a.txt", FileSource::Api), ("c.txt", FileSource::External)]);
    assert_eq!(state(), ("a2".into(), None, "from outside".into()));
    assert_eq!(superseded(&talk).await, [true; 4]);

    // The way back is refused in the same way.
    put(&bob, &project, "b.txt", "b of bob").await;
    let refused = refusal(unrevert(&talk).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "files_changed_since"));
    let session_id = talk.session.clone();
    let skips = SessionUnrevert { session_id, dry_run: None, skip_changed: Some(true) };
    assert_eq!(talk.call(skips).await.unwrap().file_count, 0);
    assert_eq!(
        (read("b.txt").as_deref(), superseded(&talk).await),
        (Some("b of bob"), vec![false; 4])
    );
}

#[tokio::test]
async fn nothing_is_undone_while_a_run_works_or_a_file_is_locked_or_what_it_held_is_lost() {
    let (app, ann, project, files) = scene().await;
    let bob = app.user("bob").await;
    ann.add_member(&project, &bob, Role::Member).await;
    let mut talk = ann.conversation_in(&project).await;
    put(&ann, &project, "a.txt", "before").await;
    let hold = talk.send_message(&format!("{}say done", write("a.txt", "after"))).await;
    let call = talk.approval().await.tool_call_id;
    let busy = refusal(revert(&talk, &hold.message_id).await);
    assert_eq!(code_of(&busy), (ErrorCode::Conflict, "session_busy"));
    talk.approve(&call).await.unwrap();
    talk.run_ended(&hold.run_id).await;

    let lock = FileLockTake { path: "a.txt".into(), scope: None, ttl_ms: None, take_over: None };
    bob.client.call(Some(&project), lock).await.unwrap();
    assert_eq!(refusal(revert(&talk, &hold.message_id).await).code, ErrorCode::Locked);
    let unlock = iris_protocol::FileUnlock { path: "a.txt".to_owned() };
    bob.client.call(Some(&project), unlock).await.unwrap();

    let path = app.data_dir().join("projects").join(project.as_str()).join("project.db");
    let sql = "UPDATE file_versions SET blob = NULL WHERE path = 'a.txt' AND version = 1";
    let database = rusqlite::Connection::open(&path).unwrap();
    database
        .execute_batch("CREATE TEMP TABLE lost AS SELECT blob FROM file_versions WHERE version = 1")
        .unwrap();
    database.execute(sql, []).unwrap();
    let lost = refusal(revert(&talk, &hold.message_id).await);
    assert_eq!(code_of(&lost), (ErrorCode::Conflict, "content_not_kept"));
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "after");
    assert_eq!(superseded(&talk).await, [false; 2]);
    database.execute(
        "UPDATE file_versions SET blob = (SELECT blob FROM lost) WHERE path = 'a.txt' AND version = 1",
        [],
    )
    .unwrap();
    revert(&talk, &hold.message_id).await.unwrap();
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "before");
}

/// The files of an answer in whose place another one came are undone with the question.
#[tokio::test]
async fn what_an_answer_changed_that_is_superseded_is_undone_too() {
    let (_app, ann, project, files) = scene().await;
    let mut talk = ann.conversation_in(&project).await;
    allow(&talk, "edit").await;
    let question = turn(&mut talk, &write("a.txt", "first")).await;
    let retry = MessageRetry { session_id: talk.session.clone(), message_id: question.clone() };
    let again = talk.call(retry).await.unwrap();
    talk.run_ended(&again.run_id).await;
    let done = revert(&talk, &question).await.unwrap();
    assert_eq!((done.message_count, done.file_count), (2, 1));
    assert!(!files.join("a.txt").exists());
    // Only what this revert superseded comes back.
    unrevert(&talk).await.unwrap();
    assert_eq!(superseded(&talk).await, [false, true, false]);
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "first");
}

#[tokio::test]
async fn a_revert_is_reached_over_rest_and_a_repeat_of_it_answers_the_same() {
    let app = spawn_app().await;
    let mut talk = app.user("ann").await.conversation().await;
    let question = turn(&mut talk, "").await;
    let path = format!("/v1/projects/{}/sessions/{}", talk.project, talk.session);
    let body = json!({ "messageId": question });
    let key = [("idempotency-key", "key"), ("content-type", "application/json")];
    let ask = async || {
        let (path, body) = (format!("{path}/revert"), body.to_string().into());
        let client = &talk.person.client;
        client.raw("POST", &path, Some(talk.person.token()), &key, body).await.unwrap()
    };
    assert!(ask().await.is_success());
    assert!(ask().await.is_success());
    let back = talk.person.post(&format!("{path}/unrevert"), json!({})).await;
    assert_eq!((back.status, &back.json["data"]["messageCount"]), (200, &json!(2)));
    let none = talk.person.post(&format!("{path}/unrevert"), json!({})).await;
    assert_eq!(none.status, 409);
}

/// Row F12: a file that somebody else writes while the turn is undone is of theirs, before it or after it.
#[tokio::test]
async fn f12_a_turn_is_undone_whole_or_not_at_all_while_others_write() {
    const FILES: usize = 6;
    for r#type in TYPES {
        let (app, ann, project, _) = scene_of(r#type).await;
        let bob = app.user("bob").await;
        ann.add_member(&project, &bob, Role::Member).await;
        let mut talk = ann.conversation_in(&project).await;
        allow(&talk, "edit").await;
        let mut outcomes = Vec::new();
        for round in 0..8 {
            let path = |n: usize| format!("round{round}/f{n}");
            let scripts: Vec<String> = (0..FILES)
                .map(|n| {
                    let call = json!({ "path": path(n), "content": "of the agent" });
                    format!("call write {call}\nstep\n")
                })
                .collect();
            let sent = turn(&mut talk, &scripts.concat()).await;
            // Whoever comes first, at another moment each time.
            let writes = async {
                for n in 0..round {
                    put(&bob, &project, &format!("beside{n}"), "x").await;
                }
                put(&bob, &project, &path(3), "of bob").await;
            };
            let (undone, ()) = tokio::join!(revert(&talk, &sent), writes);
            let mut held = Vec::new();
            for n in 0..FILES {
                let bytes = ann.client.file_get(&project, &path(n)).await.ok();
                held.push(bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()));
            }
            // Nothing of his is lost either way.
            assert_eq!(held.remove(3).as_deref(), Some("of bob"));
            let expected = match &undone {
                Ok(_) => None,
                Err(_) => Some("of the agent".to_owned()),
            };
            assert_eq!(held, vec![expected; FILES - 1], "round {round}");
            if let Err(error) = undone {
                let error = refusal(Err::<(), _>(error));
                assert_eq!(code_of(&error), (ErrorCode::Conflict, "files_changed_since"));
                outcomes.push(false);
            } else {
                outcomes.push(true);
            }
        }
        eprintln!("undone: {outcomes:?}");
        assert!(outcomes.contains(&true), "somebody else came first each time");
    }
}
