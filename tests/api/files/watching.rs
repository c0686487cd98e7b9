//! What others change in the directory of a project is noticed by itself.

use std::path::Path;
use std::time::Duration;

use iris_actors::FileSettings;
use iris_client::Socket;
use iris_protocol::{
    Event, FileSource, ProjectCreate, ProjectId, ProjectType, RoomRequest, RunStatus, Subscribe,
};
use iris_testkit::{AppOptions, Person, moment, patiently, spawn_app_with};

use crate::bash::{allow, sandbox};
use crate::git::scene;

#[tokio::test]
async fn changes_from_outside_are_told_while_the_project_is_open_and_those_of_iris_once() {
    let files = FileSettings { watch_after: Duration::from_millis(1), ..FileSettings::default() };
    let app = spawn_app_with(AppOptions { files, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let root = app.data_dir().join("projects").join(project.as_str()).join("files");
    let socket = ann.connect().await;
    let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
    let subscribe = Subscribe { rooms, deltas: None, presence: None };
    socket.call(Some(&project), subscribe).await.unwrap();
    // Until the first look, which tells nobody of what is there, a file may be there already.
    let mut count = 0;
    let next = async || loop {
        let told = socket.next_event().await.unwrap();
        match told.event {
            Event::FileCreated { path, source, by, .. } => return (path, "created", source, by),
            Event::FileUpdated { path, source, by, .. } => return (path, "updated", source, by),
            Event::FileDeleted { path, source, by, .. } => return (path, "deleted", source, by),
            _ => {}
        }
    };
    let first = loop {
        count += 1;
        std::fs::write(root.join(format!("first{count}")), "x").unwrap();
        if let Ok(told) = tokio::time::timeout(Duration::from_millis(500), next()).await {
            break told;
        }
    };
    assert_eq!((first.1, first.2, first.3), ("created", FileSource::External, None));
    let told = async |change: &str, path: &str| loop {
        let told = patiently(change, next()).await;
        if told.0 == path {
            assert_eq!((told.1, told.2), (change, FileSource::External), "{path}");
            return;
        }
    };
    std::fs::create_dir(root.join("dir")).unwrap();
    std::fs::write(root.join("dir/a.txt"), "one").unwrap();
    told("created", "dir/a.txt").await;
    std::fs::write(root.join("dir/a.txt"), "two and more").unwrap();
    told("updated", "dir/a.txt").await;
    std::fs::write(root.join(".gitignore"), "*.log\n").unwrap();
    told("created", ".gitignore").await;
    std::fs::write(root.join("dir/a.log"), "ignored").unwrap();
    ann.client.file_put(&project, "mine.txt", "mine").await.unwrap();
    let mine = patiently("file.created", next()).await;
    assert_eq!(
        (mine.0.as_str(), mine.2, mine.3.as_ref()),
        ("mine.txt", FileSource::Api, Some(ann.id()))
    );
    std::fs::remove_file(root.join("dir/a.txt")).unwrap();
    // Neither the ignored file nor the one that Iris wrote is told of before.
    let gone = patiently("file.deleted", next()).await;
    assert_eq!((gone.0.as_str(), gone.1), ("dir/a.txt", "deleted"));
}

/// Beyond the limit for directories, and beyond that of the system, which is answered the same way.
#[tokio::test]
async fn where_not_all_directories_are_watched_changes_are_found_by_looking() {
    let files = FileSettings {
        watch_after: Duration::from_millis(1),
        watched_directories_max: 1,
        scan_every: Duration::from_millis(50),
        ..FileSettings::default()
    };
    let app = spawn_app_with(AppOptions { files, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let project = ann.project("p").await.id;
    let root = app.data_dir().join("projects").join(project.as_str()).join("files");
    std::fs::create_dir(root.join("dir")).unwrap();
    let socket = ann.connect().await;
    let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
    let subscribe = Subscribe { rooms, deltas: None, presence: None };
    socket.call(Some(&project), subscribe).await.unwrap();
    let told = async |expected: &str, change: &str| {
        let told = async {
            loop {
                let (("created", Event::FileCreated { path, source, .. })
                | ("updated", Event::FileUpdated { path, source, .. })
                | ("deleted", Event::FileDeleted { path, source, .. })) =
                    (change, socket.next_event().await.unwrap().event)
                else {
                    continue;
                };
                if path == expected {
                    return assert_eq!(source, FileSource::External, "{path}");
                }
            }
        };
        patiently(&format!("{expected} {change}"), told).await;
    };
    // Behind the look that finds this one, which the top directory tells of, nothing tells of what is in `dir`.
    ann.client.file_put(&project, "mine.txt", "mine").await.unwrap();
    std::fs::write(root.join("top.txt"), "x").unwrap();
    told("top.txt", "created").await;
    // Nor does what changes all the time put the looks off.
    let busy = root.join("busy.txt");
    let writes = tokio::spawn(async move {
        for number in 0.. {
            std::fs::write(&busy, format!("{number}")).unwrap();
            moment().await;
        }
    });
    for round in ["dir/a.txt", "dir/b.txt"] {
        let path = root.join(round);
        std::fs::write(&path, "one").unwrap();
        told(round, "created").await;
        std::fs::write(&path, "two and more").unwrap();
        told(round, "updated").await;
        std::fs::remove_file(&path).unwrap();
        told(round, "deleted").await;
    }
    writes.abort();
}

/// A socket that hears what happens in a project.
async fn hear(person: &Person, project: &ProjectId) -> Socket {
    let socket = person.connect().await;
    let rooms = vec![RoomRequest::Live(format!("project:{project}"))];
    let subscribe = Subscribe { rooms, deltas: None, presence: None };
    socket.call(Some(project), subscribe).await.unwrap();
    socket
}

/// Waits until a change of a file from outside is told.
async fn told_of(socket: &Socket, expected: &str) {
    let told = async {
        loop {
            let (Event::FileCreated { path, source, .. } | Event::FileUpdated { path, source, .. }) =
                socket.next_event().await.unwrap().event
            else {
                continue;
            };
            if path == expected {
                return assert_eq!(source, FileSource::External, "{path}");
            }
        }
    };
    patiently(&format!("a change of {expected}"), told).await;
}

/// Waits until the watcher hears what changes in the top directory: the first look at everything is over then.
async fn watched(socket: &Socket, root: &Path) {
    for count in 0.. {
        let name = format!("top{count}.txt");
        std::fs::write(root.join(&name), "x").unwrap();
        if tokio::time::timeout(Duration::from_secs(1), told_of(socket, &name)).await.is_ok() {
            return;
        }
    }
}

#[tokio::test]
async fn what_a_look_finds_is_told_also_where_there_are_too_many_files_for_one() {
    let files = FileSettings {
        watch_after: Duration::from_millis(1),
        watched_files_max: 1,
        watched_directories_max: 1,
        scan_every: Duration::from_millis(50),
        ..FileSettings::default()
    };
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("dir")).unwrap();
    for path in ["dir/a.txt", "more.txt"] {
        std::fs::write(root.join(path), "one").unwrap();
    }
    let project_roots = vec![root.clone()];
    let app = spawn_app_with(AppOptions { files, project_roots, ..AppOptions::default() }).await;
    let ann = app.user("ann").await;
    let request = ProjectCreate {
        name: "p".to_owned(),
        description: None,
        r#type: ProjectType::Local,
        path: Some(root.to_str().unwrap().to_owned()),
        git: None,
    };
    let project = ann.client.call(None, request).await.unwrap().project.id;
    let socket = hear(&ann, &project).await;
    watched(&socket, &root).await;
    // It does not hear of this one, which is the first that a look comes to.
    std::fs::write(root.join("dir/a.txt"), "two and more").unwrap();
    told_of(&socket, "dir/a.txt").await;
}

/// What is heard after the last look of a command has passed it, and before all of that look is recorded.
#[tokio::test]
async fn what_was_heard_while_a_command_ran_is_looked_at_when_none_runs_any_more() {
    let files = FileSettings { watch_after: Duration::from_millis(1), ..FileSettings::default() };
    let options = AppOptions { sandbox: Some(sandbox()), files, ..AppOptions::default() };
    let Some((app, ann)) = scene(options).await else { return };
    let mut talk = ann.conversation().await;
    allow(&talk, "bash", "*").await;
    allow(&talk, "edit", "*").await;
    let root = app.data_dir().join("projects").join(talk.project.as_str()).join("files");
    let socket = hear(&ann, &talk.project).await;
    // A directory that comes would have everything looked at. The first command has the sandbox make its own.
    let run = talk.send_message("call bash {\"command\": \"true\"}").await.run_id;
    assert_eq!(talk.run_ended(&run).await, RunStatus::Completed);
    watched(&socket, &root).await;
    let script = "i=0; while [ $i -lt 4000 ]; do echo $i > made$i; i=$((i+1)); done";
    ann.client.file_put(&talk.project, "run.sh", script).await.unwrap();
    talk.send_message("call bash {\"command\": \"sh run.sh\"}").await;
    // The first of many files that are recorded.
    let recorded = async {
        loop {
            let told = socket.next_event().await.unwrap().event;
            if matches!(told, Event::FileChanged { source: FileSource::Tool, .. }) {
                return;
            }
        }
    };
    patiently("what the command made", recorded).await;
    std::fs::write(root.join("late.txt"), "x").unwrap();
    told_of(&socket, "late.txt").await;
}
