//! What goes on after a crash although nobody comes: unfinished work, events on their way, directories
//! that are left over. The server is killed, and its files are looked at from outside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use iris_actors::supervision::RecordFilter;
use iris_actors::supervision::faults::{Armed, Fault};
use iris_client::Client;
use iris_protocol::{
    ActorList, Event, MemberRemove, ProjectBackup, ProjectDelete, ProjectId, ProjectRestore,
    ProjectUpdate, Role, ServerFrame, SupervisionKind,
};
use iris_testkit::{
    AppOptions, Conversation, FakeProvider, Gate, Person, Reply, ServerProcess, TestApp, chat,
    moment, patiently, spawn_app, spawn_app_with,
};
use rusqlite::{Connection, OpenFlags, params};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::{ann, iris, iris_with, refusal, root};

const WAITS: &str = "call write {\"path\": \"a\", \"content\": \"\"}";

/// A database file, to be looked at without disturbing its owner.
fn read_only(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

pub(crate) fn project_db(data_dir: &Path, project: &ProjectId) -> PathBuf {
    data_dir.join("projects").join(project.as_str()).join("project.db")
}

/// The texts that a query finds in a database.
pub(crate) fn column(path: &Path, sql: &str) -> Vec<String> {
    let conn = read_only(path);
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

pub(crate) fn marked(data_dir: &Path) -> Vec<String> {
    column(&data_dir.join("root.db"), "SELECT project_id FROM unfinished_work ORDER BY 1")
}

/// Waits until a database answers a query in the right way. Nobody asks the server for the project.
pub(crate) async fn until_column(
    client: &Client,
    path: &Path,
    sql: &str,
    is_right: impl Fn(&[String]) -> bool,
) {
    let waiting = async {
        while !is_right(&column(path, sql)) {
            client.rest("GET", "/health/live", None, None).await.unwrap();
        }
    };
    patiently(sql, waiting).await;
}

/// The projects that are open once the server has opened what it opens by itself.
async fn opened_by_itself(root: &Person) -> BTreeSet<String> {
    let settled = async {
        loop {
            let directory = root.client.actor("node/directory").await.unwrap().observed;
            let is = |field: &str, value: Value| directory[field] == value;
            if is("readsIndex", false.into())
                && is("unfinishedToOpen", 0.into())
                && is("opening", 0.into())
            {
                break;
            }
        }
    };
    patiently("the unfinished projects to be opened", settled).await;
    let list = ActorList { kind: Some("project".to_owned()), under: None };
    let actors = root.client.actors(&list).await.unwrap().actors;
    actors.into_iter().map(|actor| actor.path.rsplit('/').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_a_crash_cut_off_is_recorded_and_its_queue_answered_although_nobody_comes() {
    let gate = Gate::default();
    let held = Reply::stream().wait(&gate).bytes(chat::text("first")).bytes(chat::end("stop"));
    let provider = FakeProvider::start([held, chat::says("second")]).await;
    let dir = tempdir().unwrap();
    let command = || {
        let mut command = iris_with(dir.path(), &provider);
        command.env("IRIS_PROJECT_IDLE_SECONDS", "1");
        command
    };
    let server = ServerProcess::start(command()).await;
    let talk = ann(&server).await.conversation().await;
    talk.send_message("one").await;
    gate.reached().await;
    assert!(talk.send_message("two").await.queued);
    assert_eq!(marked(dir.path()), [talk.project.to_string()]);
    server.kill();

    let server = ServerProcess::start(command()).await;
    let client = server.client();
    let path = project_db(dir.path(), &talk.project);
    let runs = "SELECT status FROM runs ORDER BY number";
    until_column(&client, &path, runs, |found| found == ["interrupted", "completed"]).await;
    assert_eq!(provider.asked().len(), 2);
    // With nothing left to do it closes, and is not opened again by the next start.
    let index = "SELECT project_id FROM unfinished_work";
    until_column(&client, &dir.path().join("root.db"), index, <[String]>::is_empty).await;
    server.kill();
    let server = ServerProcess::start(command()).await;
    assert_eq!(opened_by_itself(&root(&server).await).await, BTreeSet::new());
}

#[tokio::test]
async fn of_a_hundred_projects_those_with_unfinished_work_are_opened_and_a_damaged_one_is_skipped()
{
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let operator = root(&server).await;
    let person = ann(&server).await;
    let mut talks: Vec<Conversation> = Vec::new();
    for number in 0..100 {
        let project = person.project(&format!("p{number}")).await.id;
        if number % 25 == 7 {
            let mut talk = person.conversation_in(&project).await;
            talk.send_message(WAITS).await;
            talk.approval().await;
            talks.push(talk);
        } else if number % 10 == 0 {
            // Open is not unfinished.
            person.session(&project).await;
        }
    }
    let mut unfinished: BTreeSet<_> = talks.iter().map(|talk| talk.project.to_string()).collect();
    assert_eq!(marked(dir.path()).into_iter().collect::<BTreeSet<_>>(), unfinished);
    server.kill();
    let damaged = &talks[1].project;
    std::fs::write(project_db(dir.path(), damaged), "no database").unwrap();
    unfinished.remove(damaged.as_str());

    let server = ServerProcess::start(iris(dir.path())).await;
    let operator = Person::new(&server.client(), operator.grant);
    assert_eq!(opened_by_itself(&operator).await, unfinished);
    // The damaged one may be mended, and is not forgotten.
    assert!(marked(dir.path()).contains(&damaged.to_string()));
}

#[tokio::test]
async fn a_server_with_room_for_one_project_takes_up_all_unfinished_work_one_after_the_other() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let person = ann(&server).await;
    let mut projects = Vec::new();
    for _ in 0..3 {
        let mut talk = person.conversation().await;
        talk.ask("say done").await;
        projects.push(talk.project);
    }
    assert_eq!(marked(dir.path()).len(), 3);
    server.kill();

    let mut command = iris(dir.path());
    command.env("IRIS_PROJECTS_OPEN_MAX", "1").env("IRIS_PROJECT_IDLE_SECONDS", "1");
    let server = ServerProcess::start(command).await;
    let index = "SELECT project_id FROM unfinished_work";
    let root_db = dir.path().join("root.db");
    until_column(&server.client(), &root_db, index, <[String]>::is_empty).await;
}

const STATUS: &str = "SELECT status FROM runs ORDER BY number";
const ENDLESS: &str = "delay 10\nchunks 10000 tick";

/// The data of a server that was killed while a run worked, and the project.
async fn killed_during_a_run() -> (TempDir, Person, ProjectId) {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let operator = root(&server).await;
    let mut talk = ann(&server).await.conversation().await;
    talk.send_message(ENDLESS).await;
    talk.wait_for("message.text.delta").await;
    server.kill();
    (dir, operator, talk.project)
}

/// Waits until the directory says of itself what it should.
async fn until_directory(operator: &Person, what: &str, is_right: impl Fn(&Value) -> bool) {
    let waiting = async {
        while !is_right(&operator.client.actor("node/directory").await.unwrap().observed) {
            moment().await;
        }
    };
    patiently(what, waiting).await;
}

#[tokio::test]
async fn unfinished_work_that_cannot_be_taken_up_at_the_start_is_taken_up_once_it_can_be() {
    let (dir, _, project) = killed_during_a_run().await;
    let files = dir.path().join("projects").join(project.as_str()).join("files");
    std::fs::remove_dir_all(&files).unwrap();
    std::fs::write(&files, "no directory").unwrap();

    let log = dir.path().join("stderr");
    let server = ServerProcess::start_logging(iris(dir.path()), &log).await;
    let tried = async {
        let tries = || {
            let text = std::fs::read_to_string(&log).unwrap();
            text.matches("unfinished work could not be taken up").count()
        };
        // At the start, and then not once only.
        while tries() < 3 {
            server.client().rest("GET", "/health/live", None, None).await.unwrap();
        }
    };
    patiently("the project to be tried again", tried).await;
    std::fs::remove_file(&files).unwrap();
    std::fs::create_dir(&files).unwrap();
    let path = project_db(dir.path(), &project);
    until_column(&server.client(), &path, STATUS, |found| found == ["interrupted"]).await;
}

#[tokio::test]
async fn unfinished_work_in_a_damaged_project_is_taken_up_once_it_is_repaired() {
    let (dir, operator, project) = killed_during_a_run().await;
    let path = project_db(dir.path(), &project);
    let sound = std::fs::read(&path).unwrap();
    std::fs::write(&path, "no database").unwrap();

    let server = ServerProcess::start(iris(dir.path())).await;
    let operator = Person::new(&server.client(), operator.grant);
    let is_kept_out = |directory: &Value| directory["quarantined"]["count"] == 1;
    until_directory(&operator, "the project to be in quarantine", is_kept_out).await;
    let repaired = dir.path().join("repaired");
    std::fs::write(&repaired, sound).unwrap();
    std::fs::rename(repaired, &path).unwrap();
    until_column(&server.client(), &path, STATUS, |found| found == ["interrupted"]).await;
}

/// How often the actor of a project was started.
fn starts(app: &TestApp, project: &ProjectId) -> usize {
    let path = format!("node/directory/project/{project}");
    let kind = Some(SupervisionKind::Started);
    let filter = RecordFilter { since: None, kind, path: Some(path.clone()) };
    let records = app.supervision().log().records(&filter);
    records.iter().filter(|record| record.path == path).count()
}

async fn until_started(app: &TestApp, project: &ProjectId, times: usize) {
    let waiting = async {
        while starts(app, project) < times {
            app.client().rest("GET", "/health/live", None, None).await.unwrap();
        }
    };
    patiently("the project to start", waiting).await;
}

#[tokio::test]
async fn a_project_that_ends_with_unfinished_work_is_opened_again_and_one_without_is_not() {
    let app = spawn_app().await;
    let operator = app.admin().await;
    let ann = app.user("ann").await;
    let mut busy = ann.conversation().await;
    busy.send_message(WAITS).await;
    busy.approval().await;
    let idle = ann.conversation().await;
    for talk in [&idle, &busy] {
        assert_eq!(starts(&app, &talk.project), 1);
        let path = format!("node/directory/project/{}", talk.project);
        operator.client.stop_actor(&path).await.unwrap();
    }
    until_started(&app, &busy.project, 2).await;
    let looked = |directory: &Value| directory["unfinishedToLookAt"] == 0;
    until_directory(&operator, "both to be looked at", looked).await;
    assert_eq!(starts(&app, &idle.project), 1);
}

#[tokio::test]
async fn unfinished_work_goes_on_after_a_restore_that_failed() {
    let app = spawn_app().await;
    let mut talk = app.user("ann").await.conversation().await;
    let made = talk.call(ProjectBackup {}).await.unwrap().backup;
    talk.send_message(WAITS).await;
    talk.approval().await;
    assert_eq!(starts(&app, &talk.project), 1);
    let message = "Write<MarkUnfinished>".to_owned();
    app.supervision().faults().arm(Armed { kind: "root", message, fault: Fault::Panic, times: 1 });
    refusal(talk.call(ProjectRestore { backup_id: made.id }).await);
    assert!(
        app.supervision().faults().armed().is_empty(),
        "it failed before the project was taken"
    );
    until_started(&app, &talk.project, 2).await;
    let path = project_db(app.data_dir(), &talk.project);
    assert_eq!(column(&path, STATUS), ["waiting"]);
}

#[tokio::test]
async fn the_mark_is_written_once_however_many_messages_come_at_once_and_later() {
    let app = spawn_app().await;
    let mut talk = app.user("ann").await.conversation().await;
    // Strikes nobody: it is there to be counted.
    let fault = Fault::Block(Duration::ZERO);
    let message = "Write<MarkUnfinished>".to_owned();
    app.supervision().faults().arm(Armed { kind: "root", message, fault, times: 20 });
    let writes = || 20 - app.supervision().faults().armed()[0].times;
    let at_once = (0..8).map(|_| talk.send_message("say hi"));
    let sent = futures_util::future::join_all(at_once).await;
    assert_eq!(writes(), 1);
    talk.run_ended(&sent[7].run_id).await;
    talk.ask("say more").await;
    assert_eq!(writes(), 1);
    assert_eq!(marked(app.data_dir()), [talk.project.to_string()]);
}

#[tokio::test]
async fn a_message_whose_project_cannot_be_marked_is_refused_and_nothing_of_it_is_kept() {
    let app = spawn_app().await;
    let talk = app.user("ann").await.conversation().await;
    let message = "Write<MarkUnfinished>".to_owned();
    app.supervision().faults().arm(Armed { kind: "root", message, fault: Fault::Panic, times: 1 });
    let refused = refusal(talk.try_send("say hi", None).await);
    assert!(refused.retryable, "{refused:?}");
    let runs = "SELECT id FROM runs";
    let path = project_db(app.data_dir(), &talk.project);
    assert_eq!(column(&path, runs), Vec::<String>::new());
    talk.send_message("say hi").await;
    assert_eq!(column(&path, runs).len(), 1);
}

#[tokio::test]
async fn a_project_that_is_closed_with_a_run_keeps_its_mark_and_one_that_is_idle_does_not() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut idle = ann.conversation().await;
    idle.ask("say done").await;
    let mut busy = ann.conversation().await;
    busy.send_message(WAITS).await;
    busy.approval().await;
    assert_eq!(marked(app.data_dir()).len(), 2);
    let app = app.restart().await;
    assert_eq!(marked(app.data_dir()), [busy.project.to_string()]);
}

/// Puts an event on its way, as a server does that is killed before it publishes it.
fn put_event(data_dir: &Path, project: &ProjectId, id: i64, name: &str) {
    let conn = Connection::open(data_dir.join("root.db")).unwrap();
    let event = Event::ProjectUpdated { project_id: project.clone(), name: name.to_owned() };
    let event = serde_json::to_string(&event).unwrap();
    let sql = "INSERT INTO outbox (id, project_id, event, user_id, at)
               SELECT ?1, id, ?3, owner_id, unixepoch() * 1000 FROM projects WHERE id = ?2";
    assert_eq!(conn.execute(sql, params![id, project.as_str(), event]).unwrap(), 1);
}

#[tokio::test]
async fn an_event_that_a_crash_held_up_is_published_once_although_nobody_comes() {
    const UPDATES: &str =
        "SELECT payload ->> 'name' FROM events WHERE name = 'project.updated' ORDER BY seq";
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let project = ann(&server).await.project("p").await.id;
    server.kill();
    let (path, root_db) = (project_db(dir.path(), &project), dir.path().join("root.db"));
    // The second time as if the root had not come to forget the first two.
    for (ids, expected) in [(1..=2, ["1", "2"].as_slice()), (1..=3, &["1", "2", "3"])] {
        for id in ids {
            put_event(dir.path(), &project, id, &id.to_string());
        }
        let server = ServerProcess::start(iris(dir.path())).await;
        let outbox = "SELECT event FROM outbox";
        until_column(&server.client(), &root_db, outbox, <[String]>::is_empty).await;
        assert_eq!(column(&path, UPDATES), expected);
        server.kill();
    }
}

async fn rename(person: &Person, project: &ProjectId, name: &str) {
    let name = Some(name.to_owned());
    let request = ProjectUpdate { name, description: None, settings: None };
    person.client.call(Some(project), request).await.unwrap();
}

#[tokio::test]
async fn events_that_could_not_be_published_come_with_the_next_one_in_their_order() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let bob = app.user("bob").await;
    let project = ann.project("p").await.id;
    ann.add_member(&project, &bob, Role::Viewer).await;
    let message = "Write<PublishOutbox>".to_owned();
    let armed = Armed { kind: "project", message, fault: Fault::Panic, times: 1 };
    app.supervision().faults().arm(armed);
    // What is committed is answered, whether or not its event is out.
    rename(&ann, &project, "one").await;
    let removal = MemberRemove { user_id: bob.id().clone() };
    ann.client.call(Some(&project), removal).await.unwrap();
    let sql =
        "SELECT name FROM events WHERE name LIKE 'project.u%' OR name LIKE 'member.%' ORDER BY seq";
    let path = project_db(app.data_dir(), &project);
    let expected = ["member.added", "project.updated", "member.removed"];
    until_column(app.client(), &path, sql, |found| found == expected).await;
}

#[tokio::test]
async fn a_member_whose_removal_is_told_late_hears_nothing_from_then_on() {
    let app = spawn_app().await;
    let (ann, bob) = (app.user("ann").await, app.user("bob").await);
    let talk = ann.conversation().await;
    ann.add_member(&talk.project, &bob, Role::Viewer).await;
    let heard = bob.join(&talk.project, &talk.session).await;
    let conn = Connection::open(app.data_dir().join("root.db")).unwrap();
    // As if the server had been held up between the root and the project.
    conn.execute("DELETE FROM project_members WHERE user_id = ?1", [bob.id().as_str()]).unwrap();
    let event = Event::MemberRemoved { user_id: bob.id().clone() };
    let event = serde_json::to_string(&event).unwrap();
    let sql = "INSERT INTO outbox (project_id, event, user_id, at) VALUES (?1, ?2, ?3, 1)";
    let values = params![talk.project.as_str(), event, ann.id().as_str()];
    conn.execute(sql, values).unwrap();
    rename(&ann, &talk.project, "new").await;
    let left = async {
        loop {
            match heard.socket.next_frame().await.unwrap() {
                ServerFrame::Event(frame) if frame.event.name() == "room.left" => break,
                _ => {}
            }
        }
    };
    patiently("room.left", left).await;
}

fn directories(data_dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(data_dir.join("projects")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn directories_that_a_crash_left_behind_are_removed_and_no_others() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let kept = ann(&server).await.project("p").await.id;
    server.kill();
    let conn = Connection::open(dir.path().join("root.db")).unwrap();
    let intend = |id: &ProjectId, intent: &str| {
        let sql = "INSERT INTO directory_intents (project_id, intent, at) VALUES (?1, ?2, 0)";
        conn.execute(sql, params![id.as_str(), intent]).unwrap();
    };
    let [making, removing, unknown, with_backups] = [1, 2, 3, 4].map(ProjectId::from_bits);
    let backups = |id: &ProjectId| dir.path().join("backups").join(id.as_str());
    for id in [&making, &removing, &unknown, &with_backups] {
        std::fs::create_dir_all(backups(id)).unwrap();
        let files = dir.path().join("projects").join(id.as_str()).join("files");
        std::fs::create_dir_all(&files).unwrap();
        std::fs::write(files.join("a.txt"), "a").unwrap();
    }
    intend(&making, "making");
    intend(&removing, "removing_files");
    intend(&with_backups, "removing");
    // One that exists is nobody's leftover, whatever the table says.
    intend(&kept, "making");

    let server = ServerProcess::start(iris(dir.path())).await;
    let intents = "SELECT project_id FROM directory_intents";
    let root_db = dir.path().join("root.db");
    until_column(&server.client(), &root_db, intents, |found| found == [kept.to_string()]).await;
    let expected = BTreeSet::from([kept.to_string(), unknown.to_string()]);
    assert_eq!(directories(dir.path()), expected);
    let has_backups = [&making, &removing, &unknown, &with_backups].map(|id| backups(id).exists());
    assert_eq!(has_backups, [true, true, true, false]);
}

#[tokio::test]
async fn a_deleted_project_leaves_no_file_and_no_row_behind() {
    let app = spawn_app().await;
    let ann = app.user("ann").await;
    let mut talk = ann.conversation().await;
    ann.client.file_put(&talk.project, "deep/a.txt", "a").await.unwrap();
    talk.ask("say done").await;
    rename(&ann, &talk.project, "new").await;
    ann.client.call(Some(&talk.project), ProjectDelete {}).await.unwrap();
    assert_eq!(directories(app.data_dir()), BTreeSet::new());
    for table in ["projects", "unfinished_work", "outbox", "directory_intents"] {
        let sql = format!("SELECT '{table}' FROM {table}");
        assert_eq!(column(&app.data_dir().join("root.db"), &sql), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_project_that_could_not_be_created_leaves_no_file_and_no_row_behind() {
    let roots = tempdir().unwrap();
    let options =
        AppOptions { project_roots: vec![roots.path().to_owned()], ..AppOptions::default() };
    let app = spawn_app_with(options).await;
    let ann = app.user("ann").await;
    let body = serde_json::json!({ "name": "p", "path": roots.path() });
    let first = ann.post("/v1/projects", body.clone()).await;
    let second = ann.post("/v1/projects", body).await;
    assert_eq!((first.status, second.status), (201, 409), "{second:?}");
    assert_eq!(directories(app.data_dir()).len(), 1);
    let intents = "SELECT project_id FROM directory_intents";
    assert_eq!(column(&app.data_dir().join("root.db"), intents), Vec::<String>::new());
}
