//! Projects and sessions that nobody needs leave memory, and come back with everything.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use iris_actors::supervision::RecordFilter;
use iris_actors::supervision::faults::{Armed, Fault};
use iris_client::ClientError;
use iris_protocol::{
    Content, ErrorCode, Event, ExitKind, MessageAccepted, MessageList, MessageRole, MessageSend,
    ProjectDelete, ProjectId, RunStatus, SessionCreate, SessionId, SessionState, SupervisionKind,
    Unsubscribe,
};
use iris_testkit::{
    AppOptions, FakeProvider, Gate, Person, Reply, TestApp, chat, moment, patiently,
    spawn_app_with, text_of,
};

use crate::refusal;

/// So soon that a test need not wait for it.
const SOON: Duration = Duration::from_millis(20);
const WAITS: &str = "call write {\"path\": \"a\", \"content\": \"\"}";

/// A server that closes idle projects soon.
async fn hasty_app() -> TestApp {
    spawn_app_with(AppOptions { project_idle: SOON, ..AppOptions::default() }).await
}

/// How often an actor left the tree because nobody needed it.
fn passivations(app: &TestApp, path: &str) -> usize {
    let filter = RecordFilter {
        kind: Some(SupervisionKind::Passivated),
        path: Some(path.to_owned()),
        since: None,
    };
    let records = app.supervision().log().records(&filter);
    assert!(records.iter().all(|record| record.reason == Some(ExitKind::Normal)), "{records:?}");
    records.iter().filter(|record| record.path == path).count()
}

fn path_of(project: &ProjectId) -> String {
    format!("node/directory/project/{project}")
}

async fn until_closed(app: &TestApp, project: &ProjectId) {
    let path = path_of(project);
    app.wait_for_actors("the project to close", |actors| {
        actors.iter().all(|actor| !actor.path.starts_with(&path))
    })
    .await;
}

/// Waits until every project that can be closed was; this one is not.
async fn stays_open(app: &TestApp, witness: &Person, project: &ProjectId) {
    let before = passivations(app, &path_of(project));
    for _ in 0..2 {
        let project = witness.project("witness").await.id;
        witness.session(&project).await;
        until_closed(app, &project).await;
    }
    assert_eq!(passivations(app, &path_of(project)), before);
}

/// The descriptors of this process that belong to the files of a project's database.
fn open_files(app: &TestApp, project: &ProjectId) -> usize {
    let directory = app.data_dir().join("projects").join(project.as_str());
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    let files = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    files.filter(|file| file.starts_with(&directory)).count()
}

/// Sends a message without a socket.
async fn send(
    person: &Person,
    project: &ProjectId,
    session: &SessionId,
    text: &str,
) -> Result<MessageAccepted, ClientError> {
    let content = Content::Text(text.to_owned());
    let request = MessageSend {
        session_id: session.clone(),
        content,
        when_busy: None,
        attachments: Vec::new(),
    };
    person.client.call(Some(project), request).await
}

/// Waits, without a socket, until a session is in a state.
async fn until(person: &Person, project: &ProjectId, session: &SessionId, state: SessionState) {
    let looking = async {
        while person.snapshot(project, session).await.session.state != state {
            moment().await;
        }
    };
    patiently("the state of the session", looking).await;
}

#[tokio::test]
async fn a_project_that_nobody_needs_is_closed_and_comes_back_with_everything() {
    let app = hasty_app().await;
    let mut ann = app.user("ann").await.conversation().await;
    let project = ann.project.clone();
    ann.ask("say one").await;
    ann.wait_for("session.status").await;
    let before = ann.person.snapshot(&project, &ann.session).await;
    assert!(open_files(&app, &project) > 0);
    let closed = passivations(&app, &path_of(&project));
    let (person, session, position) =
        (ann.person.clone(), ann.session.clone(), ann.position.clone());
    drop(ann);
    until_closed(&app, &project).await;
    assert_eq!(passivations(&app, &path_of(&project)), closed + 1);
    let closing = async {
        while open_files(&app, &project) > 0 {
            moment().await;
        }
    };
    patiently("the files to close", closing).await;

    assert_eq!(person.snapshot(&project, &session).await, before);
    let mut again = person.join_since(&project, &session, Some(position)).await;
    assert_eq!(text_of(&again.ask("say two").await), "two");
    assert_eq!(again.seen[0].meta.prev, again.seen[0].meta.seq.map(|seq| seq - 2));
}

#[tokio::test]
async fn a_project_that_somebody_hears_stays_open() {
    let app = hasty_app().await;
    let (ann, eve) = (app.user("ann").await, app.user("eve").await);
    let mut talk = ann.conversation().await;
    stays_open(&app, &eve, &talk.project).await;
    assert_eq!(text_of(&talk.ask("say still here").await), "still here");
    // Whoever only left the rooms hears nothing either.
    let rooms = vec![format!("session:{}", talk.session)];
    talk.socket.call(None, Unsubscribe { rooms }).await.unwrap();
    until_closed(&app, &talk.project).await;
}

#[tokio::test]
async fn a_project_whose_run_waits_for_a_person_stays_open_and_so_does_its_queue() {
    let app = hasty_app().await;
    let (ann, eve) = (app.user("ann").await, app.user("eve").await);
    let project = ann.project("p").await.id;
    let session = ann.session(&project).await.id;
    send(&ann, &project, &session, WAITS).await.unwrap();
    until(&ann, &project, &session, SessionState::Waiting).await;
    send(&ann, &project, &session, "say queued").await.unwrap();
    stays_open(&app, &eve, &project).await;

    let mut talk = ann.join(&project, &session).await;
    assert!(talk.cancel().await);
    talk.wait_until("the end of the queue", |event| {
        matches!(event, Event::RunCompleted { status: RunStatus::Completed, .. })
    })
    .await;
    drop(talk);
    until_closed(&app, &project).await;
}

#[tokio::test]
async fn a_project_whose_run_works_stays_open() {
    let gate = Gate::default();
    let held = Reply::stream().wait(&gate).bytes(chat::text("done")).bytes(chat::end("stop"));
    let provider = FakeProvider::start([held]).await;
    let options = AppOptions {
        project_idle: SOON,
        session_idle: SOON,
        ..AppOptions::with_provider(provider.base_url())
    };
    let app = spawn_app_with(options).await;
    let (ann, eve) = (app.user("ann").await, app.user("eve").await);
    let project = ann.project("p").await.id;
    let session = ann.session(&project).await.id;
    let run = send(&ann, &project, &session, "hello").await.unwrap().run_id;
    gate.reached().await;
    stays_open(&app, &eve, &project).await;
    gate.open();
    until_closed(&app, &project).await;
    let answer = ann.join(&project, &session).await.answer(&run).await;
    assert_eq!(text_of(&answer), "done");
}

#[tokio::test]
async fn a_session_that_does_nothing_leaves_its_project_and_comes_back() {
    let app = spawn_app_with(AppOptions { session_idle: SOON, ..AppOptions::default() }).await;
    let mut ann = app.user("ann").await.conversation().await;
    let path = format!("{}/session/{}", path_of(&ann.project), ann.session);
    for round in 1..=2 {
        ann.ask("say hi").await;
        app.wait_for_actors("the session to leave", |actors| {
            actors.iter().all(|actor| actor.kind != "session")
        })
        .await;
        assert_eq!(passivations(&app, &path), round);
    }
    // While its run waits it stays.
    let run = ann.send_message(WAITS).await.run_id;
    ann.approval().await;
    let eve = app.user("eve").await.conversation().await;
    for _ in 0..2 {
        eve.send_message("say hi").await;
        app.wait_for_actors("the other session to leave", |actors| {
            actors.iter().filter(|actor| actor.kind == "session").count() == 1
        })
        .await;
    }
    assert_eq!(passivations(&app, &path), 2);
    assert!(ann.cancel().await);
    assert_eq!(ann.run_ended(&run).await, RunStatus::Cancelled);
}

#[tokio::test]
async fn one_project_more_than_may_be_open_takes_the_place_of_one_that_was_not_used_for_long() {
    const OPEN_MAX: usize = 10;
    let options = AppOptions { projects_open_max: OPEN_MAX, ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    // The first one is the least recently used, but somebody hears it.
    let talk = ann.conversation().await;
    let mut projects = Vec::new();
    for _ in 1..OPEN_MAX {
        projects.push(ann.project("p").await.id);
        ann.session(&projects[projects.len() - 1]).await;
    }
    // The second one, but for this.
    let session = ann.session(&projects[0]).await.id;
    let is_open = |project: &ProjectId| {
        let found = app.supervision().actors(Some("project"), Some(&path_of(project)));
        !found.is_empty()
    };
    assert_eq!(app.supervision().count("project"), OPEN_MAX);
    let newest = ann.project("one more").await.id;
    ann.session(&newest).await;
    assert!(is_open(&newest) && is_open(&talk.project) && is_open(&projects[0]));
    assert_eq!(passivations(&app, &path_of(&projects[1])), 1);
    assert!(app.supervision().count("project") <= OPEN_MAX);
    // It comes back in its turn.
    ann.session(&projects[1]).await;
    ann.snapshot(&projects[0], &session).await;
    assert!(is_open(&projects[1]) && is_open(&talk.project));
}

#[tokio::test]
async fn when_every_open_project_is_in_use_another_is_refused_until_one_is_not() {
    let app = spawn_app_with(AppOptions { projects_open_max: 2, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let third = ann.project("third").await.id;
    ann.session(&third).await;
    let talks = [ann.conversation().await, ann.conversation().await];
    assert_eq!(passivations(&app, &path_of(&third)), 1);
    let title = || SessionCreate { title: None, agent: None, model: None, mode: None };
    let error = refusal(ann.client.call(Some(&third), title()).await);
    assert_eq!(error.code, ErrorCode::Overloaded);
    assert_eq!((error.retryable, error.retry_after_ms), (true, Some(1_000)), "{error:?}");
    let [first, second] = talks;
    first.socket.close().await;
    let opening = async {
        while ann.client.call(Some(&third), title()).await.is_err() {
            moment().await;
        }
    };
    patiently("room for the third", opening).await;
    assert_eq!(text_of(&{ second }.ask("say undisturbed").await), "undisturbed");
}

/// The next message of this kind freezes the actor of this path.
fn freeze(app: &TestApp, path: &str, kind: &'static str, message: &str) {
    let armed = Armed { kind, message: message.to_owned(), fault: Fault::Freeze, times: 1 };
    app.supervision().faults().arm_under(path, armed);
}

#[tokio::test]
async fn a_project_that_does_not_say_whether_it_may_close_keeps_no_other_from_opening() {
    let app = spawn_app_with(AppOptions { projects_open_max: 2, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let frozen = ann.project("frozen").await.id;
    ann.session(&frozen).await;
    freeze(&app, &path_of(&frozen), "project", "CloseIfIdle");
    let title = || SessionCreate { title: None, agent: None, model: None, mode: None };
    for _ in 0..4 {
        let project = ann.project("p").await.id;
        let opening = async {
            while ann.client.call(Some(&project), title()).await.is_err() {
                moment().await;
            }
        };
        patiently("room beside the frozen one", opening).await;
    }
    assert_eq!(app.supervision().faults().armed().len(), 0);
}

#[tokio::test]
async fn who_waits_for_room_gets_that_of_a_project_that_is_deleted_meanwhile() {
    let app = spawn_app_with(AppOptions { projects_open_max: 1, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let first = ann.project("first").await.id;
    let session = ann.session(&first).await.id;
    // Whether the first one may close takes a while to find out; long enough to delete it.
    freeze(&app, &path_of(&first), "session", "OrchestratorExited");
    send(&ann, &first, &session, "say hi").await.unwrap();
    app.wait_for_actors("the session to freeze", |_| app.supervision().faults().armed().is_empty())
        .await;
    let second = ann.project("second").await.id;
    let deleting = async {
        while app.supervision().observe("node/directory").await["waitingForRoom"] != 1 {}
        ann.client.call(Some(&first), ProjectDelete {}).await.unwrap();
    };
    let both = async { tokio::join!(ann.session(&second), deleting) };
    patiently("the room of the first", both).await;
}

/// The messages of people in a session, and how often each is there.
async fn messages(person: &Person, talk: (&ProjectId, &SessionId)) -> BTreeMap<String, usize> {
    let (mut found, mut before) = (BTreeMap::new(), None);
    loop {
        let request = MessageList { session_id: talk.1.clone(), limit: Some(100), before };
        let page = person.client.call(Some(talk.0), request).await.unwrap();
        for message in page.messages.iter().filter(|m| m.role == MessageRole::User) {
            *found.entry(text_of(message)).or_insert(0) += 1;
        }
        before = page.next_cursor;
        if before.is_none() {
            return found;
        }
    }
}

/// Sends messages, and gives the session time to become idle after every second one.
async fn chat_with_pauses(person: &Person, count: usize) {
    let project = person.project("p").await.id;
    let session = person.session(&project).await.id;
    let mut sent = BTreeMap::new();
    for number in 0..count {
        let text = format!("say {number}");
        send(person, &project, &session, &text).await.unwrap();
        sent.insert(text, 1);
        if number % 2 == 1 {
            until(person, &project, &session, SessionState::Idle).await;
        }
    }
    until(person, &project, &session, SessionState::Idle).await;
    assert_eq!(messages(person, (&project, &session)).await, sent);
}

#[tokio::test]
async fn no_message_is_refused_or_lost_that_comes_while_its_session_or_project_closes() {
    const NEVER: u64 = 60_000;
    for (session_idle, project_idle) in [(1, 2), (1, NEVER), (NEVER, 1)] {
        let options = AppOptions {
            session_idle: Duration::from_millis(session_idle),
            project_idle: Duration::from_millis(project_idle),
            ..AppOptions::default()
        };
        let app = spawn_app_with(options).await;
        let ann = app.user("ann").await;
        join_all((0..3).map(|_| chat_with_pauses(&ann, 30))).await;
        let kind = Some(SupervisionKind::Passivated);
        let closed = app.supervision().log().records(&RecordFilter { kind, ..Default::default() });
        assert!(closed.len() > 30, "{session_idle} {project_idle}: {}", closed.len());
    }
}
