//! Snapshots: made before runs that change files and on demand; going back to one, whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use iris_protocol::{
    ErrorCode, FileChange, FileLockTake, FileRead, PermissionAction, PermissionCreate, ProjectId,
    Role, RunStatus, SessionRevert, SkipReason, SnapshotCreate, SnapshotDiff, SnapshotId,
    SnapshotList, SnapshotRestore,
};
use iris_testkit::Person;

use super::browsing::{TYPES, scene, scene_of};
use super::history::allow;
use crate::{code_of, refusal};

#[tokio::test]
async fn the_files_go_back_to_a_snapshot_and_from_there_to_where_they_were() {
    let (_app, ann, project, files) = scene().await;
    ann.client.file_put(&project, "a.txt", "a1").await.unwrap();
    ann.client.file_put(&project, "dir/b.txt", "b1").await.unwrap();
    std::fs::write(files.join("outside.txt"), "o1").unwrap();
    let call = async |request| ann.client.call(Some(&project), request).await;
    let first = call(SnapshotCreate {}).await.unwrap().snapshot;
    assert_eq!((first.file_count, first.complete, first.by.as_ref()), (3, true, Some(ann.id())));

    std::fs::write(files.join("a.txt"), "a2").unwrap();
    std::fs::remove_dir_all(files.join("dir")).unwrap();
    std::fs::create_dir(files.join("new")).unwrap();
    std::fs::write(files.join("new/c.txt"), "c").unwrap();
    let diff = SnapshotDiff { snapshot_id: first.id.clone(), to: None };
    let differs = ann.client.call(Some(&project), diff).await.unwrap();
    let differs: Vec<_> = differs.files.iter().map(|it| (it.path.as_str(), it.change)).collect();
    let expected = [
        ("a.txt", FileChange::Updated),
        ("dir/b.txt", FileChange::Deleted),
        ("new/c.txt", FileChange::Created),
    ];
    assert_eq!(differs, expected);
    let second = call(SnapshotCreate {}).await.unwrap().snapshot;
    let restore = async |id: &SnapshotId| {
        let request = SnapshotRestore { snapshot_id: id.clone(), skip_unkept: None };
        ann.client.call(Some(&project), request).await
    };
    assert_eq!(restore(&first.id).await.unwrap().count, 3);
    let read = |path: &str| std::fs::read_to_string(files.join(path)).ok();
    assert_eq!(read("a.txt").as_deref(), Some("a1"));
    assert_eq!(read("dir/b.txt").as_deref(), Some("b1"));
    assert!(!files.join("new").exists());
    assert_eq!(restore(&first.id).await.unwrap().count, 0);
    restore(&second.id).await.unwrap();
    assert_eq!(read("a.txt").as_deref(), Some("a2"));
    assert_eq!((read("dir/b.txt"), read("new/c.txt").as_deref()), (None, Some("c")));

    let list = SnapshotList { limit: Some(1), cursor: None };
    let page = ann.client.call(Some(&project), list).await.unwrap();
    assert_eq!((page.snapshots[0].id.clone(), page.has_more), (second.id.clone(), true));
    let list = SnapshotList { limit: None, cursor: page.next_cursor };
    let page = ann.client.call(Some(&project), list).await.unwrap();
    assert_eq!(page.snapshots.iter().map(|it| &it.id).collect::<Vec<_>>(), [&first.id]);
    let none = refusal(restore(&SnapshotId::from_bits(9)).await);
    assert_eq!(none.code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_run_that_changes_files_is_preceded_by_one_snapshot_and_others_by_none() {
    let (_app, ann, project, files) = scene().await;
    let mut talk = ann.conversation_in(&project).await;
    let rule = PermissionCreate {
        session_id: None,
        permission: "edit".to_owned(),
        pattern: "*".to_owned(),
        action: PermissionAction::Allow,
    };
    talk.call(rule).await.unwrap();
    std::fs::write(files.join("a.txt"), "before").unwrap();
    talk.ask("call read {\"path\": \"a.txt\"}\nstep\nsay read").await;
    let write = |n| format!("call write {{\"path\": \"a.txt\", \"content\": \"{n}\"}}\nstep\n");
    let run = talk.send_message(&format!("{}{}say done", write(1), write(2))).await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    let list = SnapshotList { limit: None, cursor: None };
    let snapshots = ann.client.call(Some(&project), list).await.unwrap().snapshots;
    assert_eq!(snapshots.len(), 1);
    assert_eq!(snapshots[0].run_id.as_ref(), Some(&run));
    let request = SnapshotRestore { snapshot_id: snapshots[0].id.clone(), skip_unkept: None };
    ann.client.call(Some(&project), request).await.unwrap();
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "before");
}

/// Row F12: what cannot be put back as a whole leaves everything as it is.
#[tokio::test]
async fn f12_a_restore_that_cannot_be_whole_changes_nothing() {
    let (app, ann, project, files) = scene().await;
    let bob = app.user("bob").await;
    ann.add_member(&project, &bob, Role::Member).await;
    ann.client.file_put(&project, "a.txt", "a1").await.unwrap();
    ann.client.file_put(&project, "b.txt", "b1").await.unwrap();
    let call = SnapshotCreate {};
    let first = ann.client.call(Some(&project), call).await.unwrap().snapshot;
    ann.client.file_put(&project, "a.txt", "a2").await.unwrap();
    ann.client.file_put(&project, "b.txt", "b2").await.unwrap();
    let restore = async || {
        let request = SnapshotRestore { snapshot_id: first.id.clone(), skip_unkept: None };
        refusal(ann.client.call(Some(&project), request).await)
    };
    let unchanged = || {
        for (path, content) in [("a.txt", "a2"), ("b.txt", "b2")] {
            assert_eq!(std::fs::read_to_string(files.join(path)).unwrap(), content);
        }
    };
    let lock = FileLockTake { path: "b.txt".into(), scope: None, ttl_ms: None, take_over: None };
    bob.client.call(Some(&project), lock).await.unwrap();
    assert_eq!(restore().await.code, ErrorCode::Locked);
    unchanged();
    let unlock = iris_protocol::FileUnlock { path: "b.txt".to_owned() };
    bob.client.call(Some(&project), unlock).await.unwrap();

    // Somebody makes a directory of the path while nobody looks: it is no file that could be replaced.
    std::fs::remove_file(files.join("b.txt")).unwrap();
    std::fs::create_dir_all(files.join("b.txt/inside")).unwrap();
    let refused = restore().await;
    assert_eq!(code_of(&refused), (ErrorCode::InvalidRequest, "not_regular_file"));
    assert_eq!(std::fs::read_to_string(files.join("a.txt")).unwrap(), "a2");
    std::fs::remove_dir_all(files.join("b.txt")).unwrap();
    std::fs::write(files.join("b.txt"), "b2").unwrap();

    let path = app.data_dir().join("projects").join(project.as_str()).join("project.db");
    let damage = |sql: &str| rusqlite::Connection::open(&path).unwrap().execute(sql, []).unwrap();
    damage(
        "UPDATE blobs SET content = zeroblob(octet_length(content)) WHERE size = 2 AND hash =
            (SELECT blob FROM file_versions WHERE path = 'b.txt' AND version = 1)",
    );
    let refused = restore().await;
    assert_eq!(code_of(&refused), (ErrorCode::ProjectCorrupt, "blob_corrupt"));
    assert_eq!(refused.details["hash"].as_str().unwrap().len(), 64);
    unchanged();
}

#[tokio::test]
async fn a_restore_destroys_nothing_that_is_not_kept() {
    let (_app, ann, project, files) = scene().await;
    for path in ["small.txt", "grown.txt", "shrunk.bin"] {
        ann.client.file_put(&project, path, "before").await.unwrap();
    }
    let large = |path: &str| {
        std::fs::File::create(files.join(path)).unwrap().set_len(17 * 1024 * 1024).unwrap();
    };
    large("shrunk.bin");
    let made = ann.client.call(Some(&project), SnapshotCreate {}).await.unwrap().snapshot;
    std::fs::write(files.join("small.txt"), "after").unwrap();
    std::fs::write(files.join("shrunk.bin"), "after").unwrap();
    large("grown.txt");
    large("new.bin");
    let request = |skip_unkept| SnapshotRestore { snapshot_id: made.id.clone(), skip_unkept };
    let refused = refusal(ann.client.call(Some(&project), request(None)).await);
    assert_eq!(code_of(&refused), (ErrorCode::Conflict, "content_not_kept"));
    let paths = ["grown.txt", "new.bin", "shrunk.bin"];
    assert_eq!(refused.details["paths"], serde_json::json!(paths));
    let read = |path: &str| std::fs::read_to_string(files.join(path)).unwrap();
    assert_eq!((read("small.txt"), read("shrunk.bin")), ("after".into(), "after".into()));
    let done = ann.client.call(Some(&project), request(Some(true))).await.unwrap();
    let skipped: Vec<_> = done.skipped.iter().map(|it| (&*it.path, it.reason)).collect();
    assert_eq!(skipped, paths.map(|path| (path, SkipReason::ContentNotKept)));
    assert_eq!((read("small.txt"), read("shrunk.bin")), ("before".into(), "after".into()));
    for path in ["grown.txt", "new.bin"] {
        assert_eq!(std::fs::metadata(files.join(path)).unwrap().len(), 17 * 1024 * 1024);
    }
}

#[tokio::test]
async fn what_nobody_may_change_holds_up_no_restore() {
    let (app, ann, project, files) = scene().await;
    let mut talk = ann.conversation_in(&project).await;
    allow(&talk, "edit").await;
    std::fs::create_dir_all(files.join(".iris/agents")).unwrap();
    std::fs::write(files.join(".iris/agents/x.md"), "one").unwrap();
    ann.client.file_put(&project, "a.txt", "a1").await.unwrap();
    ann.client.file_put(&project, "b.txt", "b1").await.unwrap();
    let made = ann.client.call(Some(&project), SnapshotCreate {}).await.unwrap().snapshot;
    std::fs::write(files.join(".iris/agents/x.md"), "two").unwrap();
    std::fs::write(files.join(".iris/agents/y.md"), "new").unwrap();
    let write = |path: &str| {
        let call = format!("{{\"path\": \"{path}\", \"content\": \"2\"}}");
        format!("call read {{\"path\": \"{path}\"}}\nstep\ncall write {call}\nstep\n")
    };
    let sent = talk.send_message(&format!("{}{}say done", write("a.txt"), write("b.txt"))).await;
    assert_eq!(talk.run_ended(&sent.run_id).await, RunStatus::Completed);
    std::fs::hard_link(files.join("b.txt"), app.data_dir().join("second-name")).unwrap();
    let read = |path: &str| std::fs::read_to_string(files.join(path)).unwrap();

    let (session_id, message_id) = (talk.session.clone(), sent.message_id);
    let undo = SessionRevert { session_id, message_id, dry_run: Some(true), skip_changed: None };
    let would = talk.call(undo.clone()).await.unwrap();
    let done = talk.call(SessionRevert { dry_run: None, ..undo }).await.unwrap();
    for outcome in [would, done] {
        let skipped: Vec<_> = outcome.skipped.iter().map(|it| (&*it.path, it.reason)).collect();
        assert_eq!((skipped, outcome.file_count), (vec![("b.txt", SkipReason::HardLinked)], 1));
    }
    assert_eq!((read("a.txt"), read("b.txt")), ("a1".into(), "2".into()));

    std::fs::write(files.join("a.txt"), "a3").unwrap();
    let request = SnapshotRestore { snapshot_id: made.id, skip_unkept: None };
    let done = ann.client.call(Some(&project), request).await.unwrap();
    let skipped: Vec<_> = done.skipped.iter().map(|it| (&*it.path, it.reason)).collect();
    let expected = [
        (".iris/agents/x.md", SkipReason::ProtectedPath),
        (".iris/agents/y.md", SkipReason::ProtectedPath),
        ("b.txt", SkipReason::HardLinked),
    ];
    assert_eq!((skipped.as_slice(), done.count), (expected.as_slice(), 1));
    assert_eq!((read("a.txt"), read(".iris/agents/x.md")), ("a1".into(), "two".into()));
}

const PATHS: usize = 24;
const ROUNDS: usize = 12;
/// Long enough that half of one could be read.
const LETTERS: usize = 20_000;

fn path(n: usize) -> String {
    format!("dir{}/f{n}", n % 3)
}

async fn fill(person: &Person, project: &ProjectId, letter: &str) {
    for n in 0..PATHS {
        person.client.file_put(project, &path(n), letter.repeat(LETTERS)).await.unwrap();
    }
}

/// All versions of a project in the order of its changes: path, version, hash and whether it was put back.
fn changes(data_dir: &Path, project: &ProjectId) -> Vec<(String, u64, String, bool)> {
    let database = data_dir.join("projects").join(project.as_str()).join("project.db");
    let database = rusqlite::Connection::open(database).unwrap();
    let sql = "SELECT path, version, hash, source = 'restore' FROM file_versions ORDER BY number";
    let mut statement = database.prepare(sql).unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

/// Row F12: two people and an agent write all the time while the files go back to one of two snapshots.
#[tokio::test]
async fn f12_writes_while_files_are_put_back_come_before_it_or_after_it() {
    for r#type in TYPES {
        let (app, ann, project, _) = scene_of(r#type).await;
        let bob = app.user("bob").await;
        ann.add_member(&project, &bob, Role::Member).await;
        let mut talk = bob.conversation_in(&project).await;
        allow(&ann.conversation_in(&project).await, "edit").await;
        let mut snapshots = Vec::new();
        for letter in ["o", "n"] {
            fill(&ann, &project, letter).await;
            let made = ann.client.call(Some(&project), SnapshotCreate {}).await.unwrap();
            let hash = hash_of(&ann, &project, &path(0)).await;
            snapshots.push((made.snapshot.id, hash));
        }
        let is_over = AtomicBool::new(false);
        let goes_on = || !is_over.load(Ordering::Relaxed);
        let restores = async {
            for round in 0..ROUNDS {
                let snapshot_id = snapshots[round % 2].0.clone();
                let done = ann
                    .client
                    .call(Some(&project), SnapshotRestore { snapshot_id, skip_unkept: None })
                    .await;
                assert!(done.unwrap().count > 0);
            }
            is_over.store(true, Ordering::Relaxed);
        };
        let writes = async |person: &Person, path: String, letter: &str| {
            let mut written = Vec::new();
            while goes_on() {
                let content = letter.repeat(LETTERS);
                let file = person.client.file_put(&project, &path, content).await.unwrap();
                written.push((path.clone(), file.version, file.hash));
            }
            written
        };
        let agent = async {
            let mut count = 0;
            while goes_on() {
                count += 1;
                let write =
                    format!("call write {{\"path\": \"agent{count}\", \"content\": \"x\"}}");
                talk.ask(&format!("{write}\nstep\nsay done")).await;
            }
            count
        };
        let reads = async {
            while goes_on() {
                for n in 0..PATHS {
                    let bytes = bob.client.file_get(&project, &path(n)).await.unwrap();
                    let is_whole = bytes.len() == LETTERS && bytes.iter().all(|it| *it == bytes[0]);
                    assert!(is_whole, "{} is mixed", path(n));
                }
            }
        };
        let of_ann = writes(&ann, path(5), "a");
        let of_bob = writes(&bob, path(10), "b");
        let ((), of_ann, of_bob, by_agent, ()) =
            tokio::join!(restores, of_ann, of_bob, agent, reads);
        assert!(!of_ann.is_empty() && !of_bob.is_empty() && by_agent > 0);

        let changes = changes(app.data_dir(), &project);
        // What was acknowledged is a version that can be gone back to, whatever came after it.
        for (path, version, hash) in of_ann.iter().chain(&of_bob) {
            let is_it = |it: &&(String, u64, String, bool)| it.0 == *path && it.1 == *version;
            assert_eq!(&changes.iter().find(is_it).unwrap().2, hash, "{path} {version}");
        }
        let (mut now, mut count) = (BTreeMap::new(), 0);
        for (at, (changed, _, hash, is_put_back)) in changes.iter().enumerate() {
            now.insert(changed.clone(), hash.clone());
            if !is_put_back || changes.get(at + 1).is_some_and(|next| next.3) {
                continue;
            }
            // Between the files of one that go back nobody else changed any.
            count += 1;
            let held: BTreeSet<_> = (0..PATHS).map(|n| now[&path(n)].clone()).collect();
            let is_one = snapshots.iter().any(|(_, hash)| held == BTreeSet::from([hash.clone()]));
            assert!(is_one, "{held:?}");
        }
        assert!(count > 1, "all of them came in one another");
        for n in 0..PATHS {
            assert_eq!(hash_of(&ann, &project, &path(n)).await, now[&path(n)], "{}", path(n));
        }
    }
}

async fn hash_of(person: &Person, project: &ProjectId, path: &str) -> String {
    let request = FileRead { path: path.to_owned(), ..FileRead::default() };
    person.client.call(Some(project), request).await.unwrap().file.hash
}
