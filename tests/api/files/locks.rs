//! Locks: who may write, for how long, and who is told.

use std::sync::Arc;
use std::time::Duration;

use iris_actors::FileSettings;
use iris_protocol::{
    ErrorCode, Event, FileLockTake, FileLocks, FileUnlock, LockScope, PermissionAction,
    PermissionCreate, ProjectId, Role, RoomRequest, Subscribe, ToolState, UnlockReason,
};
use iris_testkit::{
    AppOptions, Person, TestApp, TestClock, calls_of, patiently, spawn_app, spawn_app_with,
};

use crate::{code_of, refusal};

fn take(path: &str) -> FileLockTake {
    FileLockTake { path: path.to_owned(), scope: None, ttl_ms: None, take_over: None }
}

/// An owner and a member of a project.
async fn pair(app: &TestApp) -> (Person, Person, ProjectId) {
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Member).await;
    (ann, bob, project)
}

async fn locks(person: &Person, project: &ProjectId) -> Vec<String> {
    let page = person.client.call(Some(project), FileLocks {}).await.unwrap();
    page.locks.into_iter().map(|lock| lock.path).collect()
}

#[tokio::test]
async fn f10_a_lock_is_one_persons_until_it_is_given_back_taken_over_or_over() {
    let clock = Arc::new(TestClock::at(1_790_000_000_000));
    let options = AppOptions { clock: Some(clock.clone()), ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let (ann, bob, project) = pair(&app).await;
    let call = async |person: &Person, request: FileLockTake| {
        person.client.call(Some(&project), request).await.map(|it| it.lock)
    };
    let first = call(&bob, take("dir/a.txt")).await.unwrap();
    let second =
        call(&bob, FileLockTake { ttl_ms: Some(1_000_000), ..take("dir/a.txt") }).await.unwrap();
    assert_eq!((first.created_at, &first.owner_id), (second.created_at, bob.id()));
    assert!(second.expires_at > first.expires_at);

    let refused = refusal(call(&ann, take("dir/a.txt")).await);
    assert_eq!(code_of(&refused), (ErrorCode::Locked, "locked"));
    assert_eq!(refused.details["ownerId"], bob.id().as_str());
    let subtree = FileLockTake { scope: Some(LockScope::Subtree), ..take("dir") };
    assert_eq!(refusal(call(&ann, subtree.clone()).await).code, ErrorCode::Locked);
    let write = refusal(ann.client.file_put(&project, "dir/a.txt", "x").await);
    assert_eq!(write.code, ErrorCode::Locked);
    bob.client.file_put(&project, "dir/a.txt", "bob's").await.unwrap();
    ann.client.file_put(&project, "dir/b.txt", "beside").await.unwrap();

    // Whoever is no administrator cannot take or end the lock of another.
    let unlock = async |person: &Person, path: &str| {
        let request = FileUnlock { path: path.to_owned() };
        person.client.call(Some(&project), request).await
    };
    call(&ann, take("ann.txt")).await.unwrap();
    assert_eq!(
        code_of(&refusal(unlock(&bob, "ann.txt").await)),
        (ErrorCode::Forbidden, "not_owner")
    );
    let over = FileLockTake { take_over: Some(true), ..take("ann.txt") };
    assert_eq!(code_of(&refusal(call(&bob, over).await)), (ErrorCode::Forbidden, "not_admin"));
    assert_eq!(refusal(unlock(&bob, "none").await).code, ErrorCode::NotFound);
    let over = FileLockTake { take_over: Some(true), ..subtree };
    call(&ann, over).await.unwrap();
    assert_eq!(locks(&bob, &project).await, ["ann.txt", "dir"]);
    assert_eq!(
        refusal(bob.client.file_put(&project, "dir/a.txt", "x").await).code,
        ErrorCode::Locked
    );
    unlock(&ann, "dir").await.unwrap();
    bob.client.file_put(&project, "dir/a.txt", "again").await.unwrap();

    // One whose time is over holds nobody up.
    clock.advance(Duration::from_secs(301));
    bob.client.file_put(&project, "ann.txt", "bob's").await.unwrap();
    call(&bob, take("ann.txt")).await.unwrap();
    let file = bob.get(&format!("/v1/projects/{project}/files/stat?path=ann.txt")).await;
    assert_eq!(file.json["data"]["lock"]["ownerId"], bob.id().as_str(), "{file:?}");
    let too_long = FileLockTake { ttl_ms: Some(u64::MAX), ..take("x") };
    assert_eq!(refusal(call(&ann, too_long).await).code, ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn f10_a_lock_ends_when_its_owner_does_not_come_back_and_when_its_time_is_over() {
    let files = FileSettings { lock_grace: Duration::from_millis(200), ..FileSettings::default() };
    let presence = iris_actors::PresenceSettings {
        grace: Duration::from_millis(50),
        joined_for: Duration::from_millis(5),
        ..Default::default()
    };
    let app = spawn_app_with(AppOptions { files, presence, ..AppOptions::default() }).await;
    let (ann, bob, project) = pair(&app).await;
    let join = async |person: &Person| {
        let socket = person.connect().await;
        let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
        let subscribe = Subscribe { rooms, deltas: None, presence: None };
        socket.call(Some(&project), subscribe).await.unwrap();
        socket
    };
    let watcher = join(&ann).await;
    let holder = join(&bob).await;
    let held = holder.call(Some(&project), take("a.txt")).await.unwrap().payload.lock;
    assert!(held.while_connected);
    let lasting = bob.client.call(Some(&project), take("b.txt")).await.unwrap().lock;
    assert!(!lasting.while_connected);
    let brief = FileLockTake { ttl_ms: Some(1), ..take("c.txt") };
    bob.client.call(Some(&project), brief).await.unwrap();
    let next_unlocked = async || loop {
        let told = patiently("file.unlocked", watcher.next_event()).await.unwrap();
        if let Event::FileUnlocked { path, reason, .. } = told.event {
            return (path, reason);
        }
    };
    assert_eq!(next_unlocked().await, ("c.txt".to_owned(), UnlockReason::Expired));
    drop(holder);
    assert_eq!(next_unlocked().await, ("a.txt".to_owned(), UnlockReason::Disconnected));
    assert_eq!(locks(&ann, &project).await, ["b.txt"]);
}

#[tokio::test]
async fn a_tool_waits_for_a_lock_and_the_model_is_told_who_has_it() {
    let files = FileSettings { lock_wait: Duration::from_millis(50), ..FileSettings::default() };
    let app = spawn_app_with(AppOptions { files, ..AppOptions::default() }).await;
    let (ann, bob, project) = pair(&app).await;
    let mut talk = ann.conversation_in(&project).await;
    allow_edits(&talk).await;
    bob.client.call(Some(&project), take("a.txt")).await.unwrap();
    let script = "call write {\"path\": \"a.txt\", \"content\": \"x\"}\nstep\nsay done";
    let answer = talk.ask(script).await;
    let error = calls_of(&answer)[0].error.clone().unwrap();
    assert!(error.contains("locked by `bob`"), "{error}");
    assert!(ann.client.file_get(&project, "a.txt").await.is_err());
    // What acts for the owner of a lock may write.
    bob.client.call(Some(&project), FileUnlock { path: "a.txt".to_owned() }).await.unwrap();
    ann.client.call(Some(&project), take("a.txt")).await.unwrap();
    let answer = talk.ask(script).await;
    assert_eq!(calls_of(&answer)[0].state, ToolState::Completed);
}

async fn allow_edits(talk: &iris_testkit::Conversation) {
    let request = PermissionCreate {
        session_id: None,
        permission: "edit".to_owned(),
        pattern: "*".to_owned(),
        action: PermissionAction::Allow,
    };
    talk.call(request).await.unwrap();
}

#[tokio::test]
async fn a_tool_goes_on_when_the_lock_that_it_waits_for_is_given_back() {
    let app = spawn_app().await;
    let (ann, bob, project) = pair(&app).await;
    let mut talk = ann.conversation_in(&project).await;
    allow_edits(&talk).await;
    bob.client.call(Some(&project), take("a.txt")).await.unwrap();
    let script = "call write {\"path\": \"a.txt\", \"content\": \"x\"}\nstep\nsay done";
    let run = talk.send_message(script).await.run_id;
    talk.wait_for("message.tool.call").await;
    bob.client.call(Some(&project), FileUnlock { path: "a.txt".to_owned() }).await.unwrap();
    assert_eq!(talk.run_ended(&run).await, iris_protocol::RunStatus::Completed);
    assert_eq!(calls_of(&talk.answer(&run).await)[0].state, ToolState::Completed);
}
