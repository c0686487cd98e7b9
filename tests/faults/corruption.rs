//! Files that are not what they should be, below the real command: each project alone is refused, its
//! files are left as they are, and nobody else notices.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use iris_client::{Client, ClientError};
use iris_protocol::{
    AgentList, ApiError, AuthRegister, AuthSetup, ErrorCode, ProjectDelete, ProjectId,
    SessionCreate, SessionId, SessionList, SupervisionKind,
};
use iris_testkit::{PASSWORD, Person, SETUP_TOKEN, ServerProcess, moment, patiently, text_of};
use serde_json::json;
use tempfile::{TempDir, tempdir};

fn iris(data_dir: &Path) -> Command {
    ServerProcess::command(env!("CARGO_BIN_EXE_iris"), data_dir)
}

/// What is done to the directory of a project, and what the log then says of it.
struct Case {
    name: &'static str,
    damage: fn(&Path),
    reason: &'static str,
}

/// Where everything was written out before.
const OF_FILES: &[Case] = &[
    Case { name: "header zeroed", damage: zero_header, reason: "not a database" },
    Case { name: "cut off in a page", damage: cut_in_page, reason: "cut off" },
    Case { name: "cut off in the header", damage: cut_in_header, reason: "empty or cut off" },
    Case { name: "emptied", damage: empty, reason: "empty or cut off" },
    Case { name: "garbage", damage: garbage, reason: "not a database" },
    Case { name: "newer schema", damage: newer, reason: "schema version 99" },
    Case { name: "missing", damage: remove, reason: "the file is missing" },
    Case { name: "a directory", damage: directory, reason: "is a directory" },
    Case { name: "another project's", damage: of_another, reason: "it belongs to project" },
    Case { name: "pages overwritten", damage: overwrite_pages, reason: "malformed" },
];

/// Where a kill left a write-ahead log.
const OF_LOGS: &[Case] = &[
    Case {
        name: "log: header damaged",
        damage: break_log_header,
        reason: "header of the write-ahead log",
    },
    Case { name: "log: a frame damaged", damage: break_log_frame, reason: "acknowledged" },
    Case { name: "log: cut off", damage: cut_log, reason: "acknowledged" },
    Case { name: "log: emptied", damage: empty_log, reason: "acknowledged" },
    Case { name: "log: deleted", damage: remove_log, reason: "acknowledged" },
];

fn database(directory: &Path) -> PathBuf {
    directory.join("project.db")
}

fn log(directory: &Path) -> PathBuf {
    directory.join("project.db-wal")
}

fn overwrite(path: &Path, bytes: &[u8], offset: u64) {
    File::options().write(true).open(path).unwrap().write_all_at(bytes, offset).unwrap();
}

fn cut(path: &Path, length: u64) {
    File::options().write(true).open(path).unwrap().set_len(length).unwrap();
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

fn zero_header(directory: &Path) {
    overwrite(&database(directory), &[0; 100], 0);
}

fn cut_in_page(directory: &Path) {
    cut(&database(directory), length(&database(directory)) - 1000);
}

fn cut_in_header(directory: &Path) {
    cut(&database(directory), 50);
}

fn empty(directory: &Path) {
    cut(&database(directory), 0);
}

fn garbage(directory: &Path) {
    let bytes: Vec<u8> =
        (0..20_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    fs::write(database(directory), bytes).unwrap();
}

fn newer(directory: &Path) {
    let conn = rusqlite::Connection::open(database(directory)).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
}

fn remove(directory: &Path) {
    fs::remove_file(database(directory)).unwrap();
}

fn directory(directory: &Path) {
    remove(directory);
    fs::create_dir(database(directory)).unwrap();
}

/// That of any other project beside it which is not damaged itself.
fn of_another(directory: &Path) {
    let siblings = fs::read_dir(directory.parent().unwrap()).unwrap();
    let other = siblings.map(|entry| database(&entry.unwrap().path())).find(|other| {
        *other != database(directory)
            && fs::read(other).is_ok_and(|bytes| {
                let has_all_pages = bytes.len().is_multiple_of(4096);
                // Where the schema's version stands (SQLite file format, section 1.3).
                let is_newer = bytes.get(60..64) == Some(&99_u32.to_be_bytes()[..]);
                bytes.starts_with(b"SQLite format 3\0") && has_all_pages && !is_newer
            })
    });
    fs::copy(other.unwrap(), database(directory)).unwrap();
}

/// All but the first, which alone is looked at when a file is opened.
fn overwrite_pages(directory: &Path) {
    let length = usize::try_from(length(&database(directory))).unwrap();
    overwrite(&database(directory), &vec![0xff; length - 4096], 4096);
}

fn break_log_header(directory: &Path) {
    overwrite(&log(directory), &[0xff], 17);
}

fn break_log_frame(directory: &Path) {
    overwrite(&log(directory), &[0xa5; 8], length(&log(directory)) / 2);
}

fn cut_log(directory: &Path) {
    cut(&log(directory), length(&log(directory)) / 2);
}

fn empty_log(directory: &Path) {
    cut(&log(directory), 0);
}

fn remove_log(directory: &Path) {
    fs::remove_file(log(directory)).unwrap();
}

/// What lies in a project's directory that holds data.
fn bytes(directory: &Path) -> Vec<Option<Vec<u8>>> {
    [database(directory), log(directory)].iter().map(|path| fs::read(path).ok()).collect()
}

/// A server in a process of its own, and who uses it.
struct Place {
    data_dir: TempDir,
    log: PathBuf,
    operator: Person,
    ann: Person,
    neighbour: (ProjectId, SessionId),
    victims: Vec<ProjectId>,
}

async fn start(data_dir: &TempDir) -> ServerProcess {
    ServerProcess::start_logging(iris(data_dir.path()), &data_dir.path().join("stderr")).await
}

impl Place {
    /// With a project for each case, and one more.
    async fn set(cases: &[Case]) -> (Self, ServerProcess) {
        let data_dir = tempdir().unwrap();
        let server = start(&data_dir).await;
        let client = server.client();
        let (operator, ann) = people(&client).await;
        let mut neighbour = ann.conversation().await;
        neighbour.ask("say before").await;
        let mut victims = Vec::new();
        for case in cases {
            let project = ann.project(case.name).await.id;
            let mut talk = ann.conversation_in(&project).await;
            talk.ask("say kept").await;
            victims.push(project);
        }
        let log = data_dir.path().join("stderr");
        let neighbour = (neighbour.project.clone(), neighbour.session.clone());
        (Self { data_dir, log, operator, ann, neighbour, victims }, server)
    }

    fn directory(&self, project: &ProjectId) -> PathBuf {
        self.data_dir.path().join("projects").join(project.as_str())
    }

    /// The same people at a server that was started again.
    async fn again(&mut self) -> ServerProcess {
        let server = start(&self.data_dir).await;
        let client = server.client();
        self.operator = Person::new(&client, self.operator.grant.clone());
        self.ann = Person::new(&client, self.ann.grant.clone());
        server
    }

    async fn neighbour_works(&self) {
        let (project, session) = &self.neighbour;
        let mut talk = self.ann.join(project, session).await;
        assert_eq!(text_of(&talk.ask("say still here").await), "still here");
    }

    async fn sessions(&self, project: &ProjectId) -> Result<usize, ApiError> {
        let list =
            SessionList { limit: None, cursor: None, include_archived: None, parent_id: None };
        match self.ann.client.call(Some(project), list).await {
            Ok(answer) => Ok(answer.sessions.len()),
            Err(ClientError::Api(error)) => Err(error),
            Err(other) => panic!("{other}"),
        }
    }

    /// The refusal of a project that is damaged. One whose damage is deep inside is found by what reads
    /// there.
    async fn refusal(&self, project: &ProjectId) -> ApiError {
        self.sessions(project).await.unwrap_err()
    }

    async fn quarantined(&self) -> u64 {
        let detail = self.operator.client.actor("node/directory").await.unwrap();
        detail.observed["quarantined"]["count"].as_u64().unwrap()
    }

    /// Checks that each project alone is refused, told of, and left as it is.
    async fn check(&self, cases: &[Case]) {
        for (case, project) in cases.iter().zip(&self.victims) {
            let directory = self.directory(project);
            let before = bytes(&directory);
            for _ in 0..3 {
                let error = self.refusal(project).await;
                assert_eq!(error.code, ErrorCode::ProjectCorrupt, "{}: {error:?}", case.name);
                let reason = error.details.get("reason").and_then(|reason| reason.as_str());
                assert_eq!(reason, (case.name == "newer schema").then_some("newer_schema"));
            }
            self.neighbour_works().await;
            assert!(bytes(&directory) == before, "{}: the files were touched", case.name);
            let text = fs::read_to_string(&self.log).unwrap();
            let told = |line: &str| line.contains(project.as_str()) && line.contains(case.reason);
            assert!(text.lines().any(told), "{}: not in the log:\n{text}", case.name);
            self.is_in_supervision_log(project, case).await;
        }
        assert_eq!(self.quarantined().await, cases.len() as u64);
    }

    async fn is_in_supervision_log(&self, project: &ProjectId, case: &Case) {
        let path = format!("/v1/admin/supervision?path=node/directory/project/{project}");
        let told = async {
            loop {
                let answer = self.operator.get(&path).await;
                let records = answer.json["data"].as_array().unwrap();
                let is_told = records.iter().any(|record| {
                    record["kind"] == SupervisionKind::Stopped.as_str()
                        && record["error"].as_str().is_some_and(|text| text.contains(case.reason))
                });
                if is_told {
                    return;
                }
            }
        };
        patiently(&format!("the supervision log to tell of `{}`", case.name), told).await;
    }
}

async fn people(client: &Client) -> (Person, Person) {
    let setup = AuthSetup {
        token: SETUP_TOKEN.to_owned(),
        email: "root@example.com".to_owned(),
        username: "root".to_owned(),
        password: PASSWORD.to_owned(),
    };
    let operator = Person::new(client, client.setup(&setup).await.unwrap());
    let register = AuthRegister {
        email: "ann@example.com".to_owned(),
        username: "ann".to_owned(),
        password: PASSWORD.to_owned(),
    };
    (operator, Person::new(client, client.register(&register).await.unwrap()))
}

#[tokio::test]
async fn a_damaged_file_is_refused_alone_and_left_as_it_is_and_a_repair_is_noticed() {
    let (mut place, server) = Place::set(OF_FILES).await;
    assert!(server.terminate().await.success());
    let sound = fs::read(database(&place.directory(&place.victims[0]))).unwrap();
    for (case, project) in OF_FILES.iter().zip(&place.victims) {
        (case.damage)(&place.directory(project));
    }
    let server = place.again().await;
    place.check(OF_FILES).await;

    // An operator puts the first one back: nobody has to restart anything.
    fs::write(database(&place.directory(&place.victims[0])), sound).unwrap();
    let repaired = async {
        while place.sessions(&place.victims[0]).await != Ok(1) {
            moment().await;
        }
    };
    patiently("the repaired project to open", repaired).await;
    // Another one is given up.
    let given_up = &place.victims[1];
    place.ann.client.call(Some(given_up), ProjectDelete {}).await.unwrap();
    assert!(!place.directory(given_up).exists());
    assert_eq!(place.refusal(given_up).await.code, ErrorCode::NotFound);
    assert_eq!(place.quarantined().await, OF_FILES.len() as u64 - 2);

    assert!(server.terminate().await.success());
    let server = place.again().await;
    place.neighbour_works().await;
    assert_eq!(place.sessions(&place.victims[0]).await, Ok(1));
    assert_eq!(place.refusal(&place.victims[2]).await.code, ErrorCode::ProjectCorrupt);
    server.kill();
}

#[tokio::test]
async fn a_damaged_log_loses_no_acknowledged_commit_in_silence() {
    let (mut place, server) = Place::set(OF_LOGS).await;
    server.kill();
    for (case, project) in OF_LOGS.iter().zip(&place.victims) {
        assert!(length(&log(&place.directory(project))) > 8192, "there is a log to damage");
        (case.damage)(&place.directory(project));
    }
    let server = place.again().await;
    place.check(OF_LOGS).await;
    server.kill();
    let server = place.again().await;
    place.check(OF_LOGS).await;
    server.kill();
}

#[tokio::test]
async fn damage_while_a_project_is_open_closes_it_alone_and_writes_nothing_more() {
    let cases = [
        Case { name: "pages overwritten", damage: overwrite_pages, reason: "malformed" },
        Case { name: "missing", damage: remove, reason: "is missing" },
        Case { name: "log missing", damage: remove_log, reason: "log is missing" },
    ];
    let (mut place, server) = Place::set(&cases).await;
    assert!(server.terminate().await.success());
    let server = place.again().await;
    for (case, project) in cases.iter().zip(&place.victims) {
        let mut talk = place.ann.conversation_in(project).await;
        talk.ask("say open").await;
        (case.damage)(&place.directory(project));
        let before = bytes(&place.directory(project));
        let refused = async {
            loop {
                let create = SessionCreate { title: None, agent: None, model: None, mode: None };
                match place.ann.client.call(Some(project), create).await {
                    Err(ClientError::Api(error)) if error.code == ErrorCode::ProjectCorrupt => {
                        return;
                    }
                    // What was written since is in the log and what was read may be in a cache: agents are
                    // neither. Whoever asks in the moment in which it closes is told to come back.
                    Ok(_) | Err(ClientError::Api(_)) => {
                        drop(place.ann.client.call(Some(project), AgentList {}).await);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        };
        patiently(&format!("`{}` to be noticed", case.name), refused).await;
        place.neighbour_works().await;
        assert!(case.name == "pages overwritten" || bytes(&place.directory(project)) == before);
        place.is_in_supervision_log(project, case).await;
    }
    assert!(server.terminate().await.success());
}

/// The command refuses to start: gives what it says.
async fn refused(data_dir: &Path) -> String {
    let (code, text) = ServerProcess::refused(iris(data_dir)).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("root.db"), "the file is named: {text}");
    text
}

#[tokio::test]
async fn a_server_whose_root_database_is_bad_does_not_start_and_says_what_to_do() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    people(&server.client()).await;
    server.kill();
    let (root, log) = (dir.path().join("root.db"), dir.path().join("root.db-wal"));
    let (whole, whole_log) = (fs::read(&root).unwrap(), fs::read(&log).unwrap());
    let mut bad_log = whole_log.clone();
    bad_log[20] ^= 1;
    let mut foreign = whole.clone();
    foreign[68..72].copy_from_slice(b"????");
    for (what, file, its_log, expected) in [
        ("empty", &[][..], &[][..], "empty or cut off"),
        ("garbage", &[b'x'; 5000][..], &[][..], "not a database"),
        ("foreign", &foreign[..], &[][..], "another program"),
        ("log damaged", &whole[..], &bad_log[..], "header of the write-ahead log"),
    ] {
        fs::write(&root, file).unwrap();
        fs::write(&log, its_log).unwrap();
        let text = refused(dir.path()).await;
        assert!(
            text.contains(expected) && text.contains("restore the last backup"),
            "{what}: {text}"
        );
        assert!(fs::read(&root).unwrap() == file && fs::read(&log).unwrap() == its_log, "{what}");
    }
    fs::write(&root, &whole).unwrap();
    fs::write(&log, &whole_log).unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    server.terminate().await;
    rusqlite::Connection::open(&root).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let text = refused(dir.path()).await;
    assert!(
        text.contains("schema version 99") && text.contains("start the newer server"),
        "{text}"
    );
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let dir = tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let script = format!(
        "mount --bind '{path}' '{path}' && mount -o remount,bind,ro '{path}' || exit 99; \
         exec \"$@\""
    );
    let (code, text) =
        ServerProcess::refused(crate::unshare::inside(&iris(dir.path()), &script)).await;
    if code == Some(99) || text.contains("unshare") {
        eprintln!("SKIPPED: this system lets nobody mount: {text}");
        return;
    }
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(path) && text.contains("Read-only file system"), "{text}");
}

#[tokio::test]
async fn a_root_database_that_vanishes_below_a_server_is_not_made_anew_and_nothing_is_acknowledged()
{
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let client = server.client();
    let (_, ann) = people(&client).await;
    let root = dir.path().join("root.db");
    fs::remove_file(&root).unwrap();
    let create = json!({ "name": "lost" });
    let answer = ann.post("/v1/projects", create.clone()).await;
    assert!(answer.status >= 500, "{answer:?}");
    let gone = async {
        while client.health_ready().await.unwrap() {
            moment().await;
        }
    };
    patiently("the server to be not ready", gone).await;
    assert!(ann.post("/v1/projects", create).await.status >= 500);
    assert!(!root.exists());
    server.kill();
}

#[tokio::test]
async fn a_root_database_that_was_put_back_is_read_and_written_again() {
    let dir = tempdir().unwrap();
    let server = ServerProcess::start(iris(dir.path())).await;
    let client = server.client();
    let (_, ann) = people(&client).await;
    let (root, aside) = (dir.path().join("root.db"), dir.path().join("aside.db"));
    fs::rename(&root, &aside).unwrap();
    assert!(ann.get("/v1/projects").await.status >= 500, "it is noticed");
    assert!(!client.health_ready().await.unwrap());
    let register = AuthRegister {
        email: "ben@example.com".to_owned(),
        username: "ben".to_owned(),
        password: PASSWORD.to_owned(),
    };
    for _ in 0..10 {
        assert!(client.register(&register).await.is_err(), "nobody wears it out meanwhile");
    }
    fs::rename(&aside, &root).unwrap();

    // Nobody has to write for that: who balances load sends nobody to a server that is not ready.
    let ready = async {
        while !client.health_ready().await.unwrap() {
            moment().await;
        }
    };
    patiently("the server to be ready again", ready).await;
    assert_eq!(ann.get("/v1/projects").await.status, 200);
    client.register(&register).await.unwrap();
    ann.project("read and written").await;
    assert!(client.health_ready().await.unwrap());
    server.kill();
}
