//! A thousand projects on a server that keeps few of them open: a process of its own, so that what it
//! uses can be measured.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use iris_protocol::{ActorList, AuthRegister, AuthSetup, ProjectId, SessionList};
use iris_testkit::{PASSWORD, Person, SETUP_TOKEN, ServerProcess, moment, patiently};

const PROJECTS: usize = 1_000;
const OPEN_MAX: usize = 64;
/// Requests at a time.
const CALLERS: usize = 8;
/// Of an open project: database, log and index of the writer, and of the readers that were needed.
const FILES_PER_PROJECT: usize = 12;
/// Of a server without an open project, with those of requests.
const FILES_OF_SERVER: usize = 120;
/// Those that write, and those that do what blocks.
const THREADS_MAX: usize = OPEN_MAX + 100;
/// What another opening of all projects may add to what the ones before took.
const GROWTH_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The open files of a process (proc(5)). The server shows them to root alone: none for anybody else.
fn files(server: &ServerProcess) -> Vec<PathBuf> {
    let all = match fs::read_dir(format!("/proc/{}/fd", server.id())) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            eprintln!("SKIPPED: only root can count the open files of the server");
            return Vec::new();
        }
        all => all.unwrap(),
    };
    // One that was closed meanwhile cannot be read.
    all.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).collect()
}

/// The names of the threads of a process.
fn threads(server: &ServerProcess) -> Vec<String> {
    let all = fs::read_dir(format!("/proc/{}/task", server.id())).unwrap();
    all.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok()).collect()
}

/// The resident memory of a process.
fn memory_bytes(server: &ServerProcess) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap();
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The most that was used at any time.
#[derive(Default)]
struct Peak {
    files: AtomicUsize,
    threads: AtomicUsize,
}

impl Peak {
    fn look(&self, server: &ServerProcess) {
        self.files.fetch_max(files(server).len(), Ordering::Relaxed);
        self.threads.fetch_max(threads(server).len(), Ordering::Relaxed);
    }
}

async fn people(server: &ServerProcess) -> (Person, Person) {
    let client = server.client();
    let setup = AuthSetup {
        token: SETUP_TOKEN.to_owned(),
        email: "root@example.com".to_owned(),
        username: "root".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let register = AuthRegister {
        invitation: None,
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let (root, ann) = tokio::join!(client.setup(&setup), client.register(&register));
    (Person::new(&client, root.unwrap()), Person::new(&client, ann.unwrap()))
}

/// Creates the projects, each with a session, which opens it.
async fn made(server: &ServerProcess, person: &Person, peak: &Peak) -> Vec<ProjectId> {
    let made = stream::iter(0..PROJECTS).map(|number| async move {
        let project = person.project(&format!("p{number}")).await.id;
        person.session(&project).await;
        if number % OPEN_MAX == 0 {
            peak.look(server);
        }
        project
    });
    made.buffer_unordered(CALLERS).collect().await
}

/// Opens the projects one after the other, so that most of them are closed again meanwhile.
async fn open_all(server: &ServerProcess, person: &Person, projects: &[ProjectId], peak: &Peak) {
    let opened = stream::iter(projects).enumerate();
    let opened = opened.for_each_concurrent(CALLERS, |(number, project)| async move {
        let request =
            SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };
        let page = person.client.call(Some(project), request).await.unwrap();
        assert_eq!(page.sessions.len(), 1);
        if number % OPEN_MAX == 0 {
            peak.look(server);
        }
    });
    opened.await;
}

#[tokio::test]
async fn a_thousand_projects_opened_and_closed_again_and_again_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = ServerProcess::command(env!("CARGO_BIN_EXE_iris"), directory.path());
    command.env("IRIS_PROJECTS_OPEN_MAX", OPEN_MAX.to_string());
    command.env("IRIS_PROJECT_IDLE_SECONDS", "1");
    let server = ServerProcess::start(command).await;
    let (operator, person) = people(&server).await;
    let peak = Peak::default();
    let projects = made(&server, &person, &peak).await;
    // The arenas of the allocator fill up for a while.
    open_all(&server, &person, &projects, &peak).await;
    let before = memory_bytes(&server);
    open_all(&server, &person, &projects, &peak).await;
    let growth = memory_bytes(&server).saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "{growth} more than {before}");
    let (most_files, most_threads) = (peak.files.into_inner(), peak.threads.into_inner());
    eprintln!("{most_files} files, {most_threads} threads, {before} bytes, then {growth} more");
    assert!(most_files < FILES_OF_SERVER + OPEN_MAX * FILES_PER_PROJECT, "{most_files} files");
    assert!(most_threads < THREADS_MAX, "{most_threads} threads");

    let list = ActorList { kind: Some("project".to_owned()), under: None };
    let under = directory.path().join("projects");
    let closed = async {
        while !operator.client.actors(&list).await.unwrap().actors.is_empty()
            || files(&server).iter().any(|file| file.starts_with(&under))
            || threads(&server).iter().any(|name| name.starts_with("db-project"))
        {
            moment().await;
        }
    };
    patiently("the last projects to close", closed).await;
    assert!(files(&server).len() < FILES_OF_SERVER);
    assert!(server.terminate().await.success());
}
